"""sparsefm.plots: the numbers that are drawn, and that pyplot is left alone."""

from __future__ import annotations

import io
import subprocess
import sys
from typing import Any

import numpy as np
import pandas as pd
import pytest

from sparsefm import FMClassifier, FMRegressor

pytest.importorskip("matplotlib", reason="matplotlib comes with the extra `plot`")

from matplotlib.figure import Figure

from sparsefm.metrics import calibration_error
from sparsefm.plots import calibration, explanation, field_importance, learning_curve

HISTORY: list[dict[str, Any]] = [
    {"epoch": 1, "loss": 2.0, "eval_loss": 0.5},
    {"epoch": 2, "loss": 0.5, "eval_loss": 0.125},
    {"epoch": 3, "loss": 0.125, "eval_loss": 0.5},
]


def drawn(ax: Any) -> dict[str, list[list[float]]]:
    return {line.get_label(): [list(map(float, xy)) for xy in line.get_data()] for line in ax.get_lines()}


def test_losses_are_drawn_with_the_best_epoch_marked() -> None:
    ax = learning_curve(HISTORY)
    assert drawn(ax) == {
        "training": [[1, 2, 3], [2.0, 0.5, 0.125]],
        "held out": [[1, 2, 3], [0.5, 0.125, 0.5]],
        "best: 0.125 in epoch 2": [[2], [0.125]],
    }
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("epoch", "mean loss")


def test_rmse_is_the_root_of_twice_the_squared_loss() -> None:
    # √(2 · 2), √(2 · 1/2), √(2 · 1/8)
    assert drawn(learning_curve(HISTORY, metric="rmse"))["training"][1] == [2, 1, 1 / 2]


def test_rmse_is_that_of_the_predictions() -> None:
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((60, 4)), 7 + 3 * rng.standard_normal(60)
    model = FMRegressor(clip=False, random_state=0).fit(X[:40], y[:40], eval_set=(X[40:], y[40:]))
    last = drawn(learning_curve(model.history_, metric="rmse"))["held out"][1][-1]
    assert last == pytest.approx(np.sqrt(np.mean((model.predict(X[40:]) - y[40:]) ** 2)))


def test_without_watched_rows_only_training_is_drawn() -> None:
    ax = learning_curve([{"epoch": 1, "loss": 2.0}], title="one epoch")
    assert list(drawn(ax)) == ["training"]
    assert ax.get_title(loc="left") == "one epoch"


def test_it_draws_where_it_is_told() -> None:
    ax = Figure().subplots()
    assert learning_curve(HISTORY, ax=ax) is ax


def test_the_figure_can_be_saved() -> None:
    buffer = io.BytesIO()
    figure: Any = learning_curve(HISTORY).figure
    figure.savefig(buffer, format="png")
    assert buffer.getvalue().startswith(b"\x89PNG")


def test_pyplot_is_not_even_imported() -> None:
    code = (
        "import sys; from sparsefm.plots import learning_curve; "
        "learning_curve([{'epoch': 1, 'loss': 1.0}]); print('matplotlib.pyplot' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


def test_without_matplotlib_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install sparsefm\[plot\]"):
        learning_curve(HISTORY)


def test_classes_are_drawn_one_at_a_time() -> None:
    X, y = np.eye(6), np.array([0, 1, 2, 0, 1, 2])
    history = FMClassifier(random_state=0).fit(X, y).history_
    with pytest.raises(ValueError, match="records of one class"):
        learning_curve(history)
    assert drawn(learning_curve([record for record in history if record["class"] == 1]))


@pytest.mark.parametrize(
    "history, metric, message",
    [
        ([], "loss", "history is empty"),
        ([{"epoch": 1}], "loss", "record 0 of history has no 'loss', only epoch"),
        ([HISTORY[0], {"epoch": 2, "loss": 1.0}], "loss", "record 1 of history has no 'eval_loss'"),
        (HISTORY, "auc", "metric must be 'loss' or 'rmse', got 'auc'"),
    ],
)
def test_what_cannot_be_drawn_is_refused(history: Any, metric: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        learning_curve(history, metric=metric)


PARTS = pd.DataFrame(
    [
        (0, "intercept", "", "", 3.0),
        (7, "intercept", "", "", 3.0),
        (7, "linear", "user", "", -1.0),
        (7, "pair", "user", "item", 0.5),
        (7, "linear", "item", "", 0.25),
        (7, "pair", "item", "item", -0.125),
    ],
    columns=["row", "part", "first", "second", "value"],
)
FIELDS = pd.DataFrame({"first": ["user", "user", "item"], "second": ["", "item", ""], "importance": [0.5, 0.25, 0.125]})


def bars(ax: Any) -> dict[str, tuple[float, float]]:
    """{name: (where it begins, how far it goes)}, from the top down."""
    names = {place: label.get_text() for place, label in zip(ax.get_yticks(), ax.get_yticklabels(), strict=True)}
    patches = sorted(ax.patches, key=lambda bar: bar.get_y())
    return {names[round(bar.get_y() + bar.get_height() / 2)]: (bar.get_x(), bar.get_width()) for bar in patches}


def names(ax: Any) -> list[str]:
    return [label.get_text() for label in ax.get_yticklabels()]


def notes(ax: Any) -> list[str]:
    return [text.get_text() for text in ax.texts]


def test_a_row_is_explained_from_the_intercept_to_the_score() -> None:
    ax = explanation(PARTS, row=7, title="row 7")
    assert names(ax) == ["intercept", "user", "user × item", "item", "item × item", "score"]
    assert bars(ax) == {
        "user": (3.0, -1.0),
        "user × item": (2.0, 0.5),
        "item": (2.5, 0.25),
        "item × item": (2.75, -0.125),
    }
    assert sorted(notes(ax)) == sorted(["3", "−1", "+0.5", "+0.25", "−0.125", "2.625"])
    assert (ax.get_xlabel(), ax.get_title(loc="left")) == ("score", "row 7")
    low, high = ax.get_xlim()
    assert low < 2.0 < 3.0 < high
    assert ax.yaxis_inverted()


def test_small_parts_are_drawn_as_one_bar() -> None:
    ax = explanation(PARTS[::-1], row=7, top=2)  # in whatever order the lines come
    assert bars(ax) == {"user": (3.0, -1.0), "user × item": (2.0, 0.5), "2 more": (2.5, 0.125)}
    assert "2.625" in notes(ax)
    assert "2 more" not in names(explanation(PARTS, row=7, top=4))


def test_a_row_of_nothing_is_its_intercept() -> None:
    ax = explanation(PARTS[:1])  # the only row needs no naming
    assert names(ax) == ["intercept", "score"]
    assert notes(ax) == ["3", "3"]


def test_importance_is_drawn_from_the_largest_down() -> None:
    ax = field_importance(FIELDS[::-1], title="fields")
    assert bars(ax) == {"user": (0.0, 0.5), "user × item": (0.0, 0.25), "item": (0.0, 0.125)}
    assert names(ax) == ["user", "user × item", "item"]
    assert notes(ax) == ["0.5", "0.25", "0.125"]
    assert ax.get_title(loc="left") == "fields"
    assert names(field_importance(FIELDS, top=2)) == ["user", "user × item"]


def test_tables_of_a_model_are_drawn_and_saved() -> None:
    X, y = np.eye(4)[[0, 1, 0, 1] * 10] + np.eye(4)[[2, 2, 3, 3] * 10], np.array([1.0, 2.0, 3.0, 5.0] * 10)
    model = FMRegressor(2, fields=[0, 0, 1, 1], clip=False, random_state=0).fit(X, y)
    waterfall, shares = explanation(model.explain(X), row=3), field_importance(model.field_importance(X))
    assert notes(waterfall)[-1] == f"{model.predict(X)[3]:.4g}"
    assert sorted(names(shares)) == ["field 0", "field 0 × field 1", "field 1"]
    for ax in (waterfall, shares):
        buffer = io.BytesIO()
        figure: Any = ax.figure
        figure.savefig(buffer, format="png")
        assert buffer.getvalue().startswith(b"\x89PNG")


def test_long_names_leave_room_for_the_bars() -> None:
    (name,) = bars(field_importance(pd.DataFrame({"first": ["x" * 200], "second": [""], "importance": [1.0]})))
    assert name == "x" * 27 + "…"


def test_tables_are_drawn_where_they_are_told() -> None:
    above, below = Figure().subplots(2)
    assert explanation(PARTS, row=7, ax=above) is above
    assert field_importance(FIELDS, ax=below) is below


def test_tables_without_matplotlib_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install sparsefm\[plot\]"):
        explanation(PARTS, row=7)
    with pytest.raises(ImportError, match=r"pip install sparsefm\[plot\]"):
        field_importance(FIELDS)


@pytest.mark.parametrize(
    "draw, table, options, message",
    [
        (explanation, PARTS, {}, "parts has 2 rows and one is drawn: name it by row="),
        (explanation, PARTS, {"row": 3}, r"parts has no row 3, only \[0, 7\]$"),
        (explanation, PARTS, {"row": 7, "top": 0}, "top must be a positive integer, got 0"),
        (explanation, PARTS[:0], {}, "parts has no line"),
        (explanation, FIELDS, {}, "parts must be what explain .* row, part, first, second, value; got first, second"),
        (explanation, [1.0], {}, "parts must be what explain .*; got list"),
        (field_importance, FIELDS, {"top": 2.5}, "top must be a positive integer, got 2.5"),
        (field_importance, FIELDS[:0], {}, "frame has no line"),
        (field_importance, PARTS, {}, "frame must be what field_importance .* first, second, importance; got row"),
    ],
)
def test_tables_that_cannot_be_drawn_are_refused(draw: Any, table: Any, options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        draw(table, **options)


def test_probabilities_are_drawn_beside_what_happened() -> None:
    y, p = [0, 1, 1, 1, 0, 0, 1], [0.25, 0.25, 0.75, 0.75, 0.0, 0.5, 1.0]
    ax = calibration(y, p, n_bins=2, title="held out")
    # up to 0.5, the edge within, one of four happened; above it three of three
    low, high = (0.25 + 0.25 + 0.0 + 0.5) / 4, (0.75 + 0.75 + 1.0) / 3
    error = (4 * abs(1 / 4 - low) + 3 * abs(1 - high)) / 7
    label = f"of these rows: expected calibration error {error:.3g}"
    assert set(drawn(ax)) == {"forecasts that hold", label}
    assert drawn(ax)["forecasts that hold"] == [[0, 1], [0, 1]]
    np.testing.assert_allclose(drawn(ax)[label], [[low, high], [1 / 4, 1]])
    assert error == pytest.approx(calibration_error(y, p, n_bins=2))
    assert (ax.get_xlabel(), ax.get_title(loc="left")) == ("predicted probability", "held out")
    axes = Figure().subplots()
    assert calibration(2 * np.array(y) - 1, p, n_bins=2, ax=axes) is axes
    np.testing.assert_allclose(drawn(axes)[label], [[low, high], [1 / 4, 1]])


def test_points_and_error_are_of_the_same_bins() -> None:
    rng = np.random.default_rng(0)
    p = rng.integers(0, 101, 400) / 100  # many on the edges
    y = rng.random(400) < p**2
    (line,) = [line for line in calibration(y, p).get_lines() if "error" in str(line.get_label())]
    of = np.maximum(np.ceil(np.round(p * 10, 9)).astype(int), 1)
    bins = [of == number for number in range(1, 11)]
    np.testing.assert_allclose(line.get_xdata(), [p[rows].mean() for rows in bins])
    np.testing.assert_allclose(line.get_ydata(), [y[rows].mean() for rows in bins])


def test_probabilities_that_cannot_be_drawn_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for y, p, options, message in (
        ([0, 1], [0.5, np.nan], {}, "missing or infinite"),
        ([0, 1], [0.5, 1.5], {}, "must be probabilities"),
        ([0, 2], [0.5, 0.5], {}, "y_true must hold 0 and 1"),
        ([0, 1], [0.5, 0.5], {"n_bins": 0}, "n_bins must be a whole number of bins, at least 1, got 0"),
    ):
        with pytest.raises(ValueError, match=message):
            calibration(y, p, **options)  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install sparsefm\[plot\]"):
        calibration([0, 1], [0.5, 0.5])
