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

from sparsefm.metrics import calibration_error, split_rhat
from sparsefm.plots import (
    calibration,
    explanation,
    field_importance,
    interval_coverage,
    item_map,
    learning_curve,
    pair_importance,
    posterior_trace,
    predicted_against_actual,
)
from sparsefm.solvers import MCMC

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


def test_pairs_of_fields_are_a_square_with_the_fields_themselves_on_its_diagonal() -> None:
    more = pd.DataFrame({"first": ["user"], "second": ["user"], "importance": [0.25]})  # a field met with itself
    ax = pair_importance(pd.concat([FIELDS, more]), title="pairs")
    assert names(ax) == ["user", "item"]
    square = np.asarray(ax.images[0].get_array())
    np.testing.assert_array_equal(square[np.tril_indices(2)], [0.75, 0.25, 0.125])
    assert not np.isfinite(square[0, 1])
    assert sorted(notes(ax)) == sorted(["0.75", "0.25", "0.12"])
    axes = Figure().subplots()
    assert pair_importance(FIELDS, ax=axes) is axes
    with pytest.raises(ValueError, match="sets of three fields"):
        pair_importance(FIELDS.assign(third=""))


def test_what_was_predicted_stands_over_each_level() -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(1, 4, 300)
    p = y + rng.normal(0, 0.1, 300)
    ax = predicted_against_actual(y, p)
    assert [label.get_text() for label in ax.get_xticklabels()] == [f"{k}\n{(y == k).sum()} rows" for k in (1, 2, 3)]
    middles = [line.get_ydata()[0] for line in ax.get_lines() if line.get_linewidth() == 2]
    np.testing.assert_allclose(middles, [np.median(p[y == k]) for k in (1, 2, 3)])
    (label,) = [text.get_text() for text in ax.get_legend().get_texts()]
    assert label == f"right; RMSE of these rows {np.sqrt(np.mean((y - p) ** 2)):.4g}"


def test_a_target_of_many_values_is_a_cloud() -> None:
    y = np.linspace(0, 1, 50)
    axes = Figure().subplots()
    assert predicted_against_actual(y, y**2, ax=axes, title="all") is axes
    points, line = axes.get_lines()
    np.testing.assert_array_equal(points.get_xydata(), np.column_stack([y, y**2]))
    np.testing.assert_array_equal(line.get_xydata(), [[0, 0], [1, 1]])


def test_intervals_are_counted() -> None:
    y = np.random.default_rng(0).normal(size=4000)
    ax = interval_coverage(y, np.zeros(4000), np.full(4000, 0.5))  # too sure by half
    (label,) = [line for line in drawn(ax) if "90 %" in line]
    shares, inside = drawn(ax)[label]
    assert label == f"90 % intervals hold {100 * np.mean(np.abs(y) <= 0.5 * 1.6448536269514722):.1f} %"
    assert (np.array(inside) < shares).all()
    honest = drawn(interval_coverage(y, np.zeros(4000), np.ones(4000)))
    _, (shares, inside) = honest.values()
    np.testing.assert_allclose(inside, shares, atol=0.03)


def test_chains_are_drawn_with_their_agreement() -> None:
    X, y = np.eye(4)[[0, 1, 2, 3] * 10], np.arange(40.0) % 7
    model = FMRegressor(2, solver=MCMC(n_samples=12, n_chains=2, burn_in=2), random_state=0).fit(X, y)
    draws = model.posterior_
    ax = posterior_trace(draws, title="two chains")
    for line, chain in zip(ax.get_lines(), (0, 1), strict=True):
        np.testing.assert_array_equal(line.get_ydata(), draws.deviation[draws.chain == chain])
    assert notes(ax) == [f"2 chains, split R-hat {split_rhat(draws.deviation.reshape(2, -1)):.3f}"]


def test_items_that_are_alike_lie_together_and_titles_apart() -> None:
    rng = np.random.default_rng(0)
    V = np.repeat([[3, 0, 0], [-3, 0, 0], [0, 1, 0]], 20, axis=0) + rng.normal(0, 0.1, (60, 3))
    ax = item_map(V, [f"item {i}" for i in range(60)], top=5)
    x = ax.get_lines()[0].get_xdata()
    np.testing.assert_allclose(np.abs(np.diff(x.reshape(3, 20).mean(axis=1))), [6, 3], atol=0.3)
    assert 2 <= len(ax.texts) <= 5
    assert ax.texts[0].get_text() == "item 0"
    ax.figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in ax.texts]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: predicted_against_actual([1, 2], [1]), "y_true has 2 samples, y_pred has 1"),
        (lambda: predicted_against_actual([1, np.nan], [1, 2]), "missing or infinite"),
        (lambda: interval_coverage([1, 2], [1, 2], [1, 0]), "std must be positive, got 0"),
        (lambda: posterior_trace(None), "fitted with solver='mcmc'.*got NoneType"),
        (lambda: item_map([[1, 2]], ["a"]), r"two and more rows .* got shape \(1, 2\)"),
        (lambda: item_map(np.eye(3), ["a"]), "one for each of the 3 vectors, got 1"),
        (lambda: item_map(np.eye(3), "abc", top=0), "top must be a positive integer"),
        (lambda: pair_importance(FIELDS[:0]), "frame has no line"),
    ],
)
def test_what_these_cannot_draw_is_refused(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
