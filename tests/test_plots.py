"""sparsefm.plots: the numbers that are drawn, and that pyplot is left alone."""

from __future__ import annotations

import io
import subprocess
import sys
from typing import Any

import numpy as np
import pandas as pd
import pytest

from sparsefm import FMClassifier, FMOrdinal, FMRegressor

pytest.importorskip("matplotlib", reason="matplotlib comes with the extra `plot`")

from matplotlib.figure import Figure

from sparsefm import plots
from sparsefm.metrics import calibration_error, split_rhat
from sparsefm.model import Posterior
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
    assert names(ax) == [label.get_text() for label in ax.get_xticklabels()] == ["user", "item"]
    square = np.asarray(ax.images[0].get_array())
    np.testing.assert_array_equal(square[np.tril_indices(2)], [0.75, 0.25, 0.125])
    assert not np.isfinite(square[0, 1])
    assert {text.get_position(): text.get_text() for text in ax.texts} == {
        (0, 0): "0.750",
        (0, 1): "0.250",
        (1, 1): "0.125",
    }
    assert ax.get_title(loc="left") == "pairs"
    bar = ax.images[0].colorbar
    assert bar is not None
    assert (bar.vmin, bar.vmax) == (0, 0.75)


@pytest.mark.parametrize(
    "values, written",
    [
        ([0.4, 0.1, 0.0069], ["0.400", "0.100", "0.007"]),
        ([1234.5, 20.0, 3.0], ["1234", "20", "3"]),
        ([2e-9, 1e-9, 0.0], ["2.0e-09", "1.0e-09", "0.0e+00"]),
        ([0.0, 0.0, 0.0], ["0", "0", "0"]),
    ],
)
def test_numbers_in_cells_have_their_last_digit_in_one_place(values: Any, written: Any) -> None:
    frame = pd.DataFrame({"first": ["a", "b", "b"], "second": ["", "a", ""], "importance": values})
    assert sorted(notes(pair_importance(frame))) == sorted(written)


def test_squares_of_many_fields_leave_out_numbers_that_nobody_could_read() -> None:
    frame = pd.DataFrame({"first": [f"field {f}" for f in range(30)], "second": "", "importance": np.arange(30.0)})
    assert notes(pair_importance(frame)) == []
    assert len(notes(pair_importance(frame[:20]))) == 20


def test_sets_of_three_are_named_whole() -> None:
    sets = pd.DataFrame(
        [("user", "", "", 0.5), ("user", "item", "", 0.25), ("user", "item", "day", 0.125)],
        columns=["first", "second", "third", "importance"],
    )
    assert names(field_importance(sets)) == ["user", "user × item", "user × item × day"]
    with pytest.raises(ValueError, match="sets of three fields"):
        pair_importance(sets)


def test_what_was_predicted_stands_over_each_level() -> None:
    rng = np.random.default_rng(0)
    y = rng.choice([1, 2, 3, 40], 300)  # not in equal steps
    p = y + rng.normal(0, 0.1, 300)
    ax = predicted_against_actual(y, p)
    assert [label.get_text() for label in ax.get_xticklabels()] == [f"{k}\n{(y == k).sum()}" for k in (1, 2, 3, 40)]
    whiskers, middles = ([line[:, 1] for line in lines.get_segments()] for lines in ax.collections)
    boxes = [(box.get_y(), box.get_y() + box.get_height()) for box in ax.patches]
    shown = np.column_stack([whiskers, boxes, middles])
    wanted = [np.percentile(p[y == k], [5, 95, 25, 75, 50, 50]) for k in (1, 2, 3, 40)]
    np.testing.assert_allclose(shown, wanted)
    label = f"right; RMSE of these rows {np.sqrt(np.mean((y - p) ** 2)):.4g}"
    assert drawn(ax)[label] == [[0, 1, 2, 3], [1, 2, 3, 40]]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [label]


def test_a_target_of_many_values_is_a_cloud() -> None:
    y = np.linspace(0, 1, 13)
    ax = predicted_against_actual(y, y**2, title="all")
    points, line = ax.get_lines()
    np.testing.assert_array_equal(points.get_xydata(), np.column_stack([y, y**2]))
    np.testing.assert_array_equal(line.get_xydata(), [[0, 0], [1, 1]])
    assert len(predicted_against_actual(y[:12], y[:12]).patches) == 12


def test_a_large_cloud_is_counted_in_hexagons() -> None:
    y = np.random.default_rng(0).normal(size=2001)
    ax = predicted_against_actual(y, np.full(2001, 0.5))
    (cells,) = ax.collections
    counts = np.asarray(cells.get_array())
    assert counts.sum() == 2001
    (line,) = ax.get_lines()
    np.testing.assert_array_equal(line.get_xydata(), [[y.min()] * 2, [y.max()] * 2])


def test_intervals_are_counted() -> None:
    y = np.random.default_rng(0).normal(size=4000)
    ax = interval_coverage(y, np.zeros(4000), np.full(4000, 0.5))  # too sure by half
    (label,) = [line for line in drawn(ax) if "90 %" in line]
    shares, inside = drawn(ax)[label]
    assert label == f"90 % intervals hold {100 * np.mean(np.abs(y) <= 0.5 * 1.6448536269514722):.1f} %"
    np.testing.assert_allclose(shares, np.arange(1, 20) / 20)
    assert (np.array(inside) < shares).all()
    honest = drawn(interval_coverage(y + 7, np.full(4000, 7), np.ones(4000)))
    assert honest["intervals that hold"] == [[0, 1], [0, 1]]
    _, (shares, inside) = honest.values()
    np.testing.assert_allclose(inside, shares, atol=0.03)


def chains(model: Any) -> dict[str, Any]:
    """What is drawn of a model, {name: split R-hat}."""
    ax = posterior_trace(model.fit(np.eye(4)[[0, 1, 2, 3] * 10], np.arange(40) % 3).posterior_)
    title = ax.get_legend().get_title().get_text().removeprefix("split R-hat: ")
    found = {name: float(value) for name, value in (part.rsplit(" ", 1) for part in title.split(", "))}
    assert [label.split("\n")[0] for label in names(ax)] == list(found)
    return found


def test_chains_are_drawn_with_their_agreement() -> None:
    X, y = np.eye(4)[[0, 1, 2, 3] * 10], np.arange(40.0) % 7
    model = FMRegressor(2, solver=MCMC(n_samples=12, n_chains=2, burn_in=2), random_state=0).fit(X, y)
    draws = model.posterior_
    numbers = {
        "noise": draws.deviation,
        "w0": draws.w0,
        "weights": np.sqrt(np.mean(draws.w**2, axis=1)),
        "factors": np.sqrt(np.mean(draws.V**2, axis=(1, 2))),
    }
    ax = posterior_trace(draws, title="two chains")
    means = [f"{name}\n{each.mean():.4g} ± {each.std():.2g}" for name, each in numbers.items()]
    assert [label.replace("−", "-") for label in names(ax)] == means
    legend = ax.get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["chain 1", "chain 2"]
    rhat = ", ".join(f"{name} {split_rhat(each.reshape(2, -1)):.3f}" for name, each in numbers.items())
    assert legend.get_title().get_text() == f"split R-hat: {rhat}"
    assert ax.yaxis_inverted()
    for band, each in enumerate(numbers.values()):
        lines = [line.get_ydata() for line in ax.get_lines()[2 * band : 2 * band + 2]]
        shown = band - np.concatenate(lines)  # upwards, in the band's own unit
        assert np.ptp(shown) == pytest.approx(0.84)
        assert shown.max() == pytest.approx(-shown.min())
        np.testing.assert_allclose(shown / 0.84 * np.ptp(each), each - (each.max() + each.min()) / 2, atol=1e-6)
        np.testing.assert_array_equal(ax.get_lines()[2 * band].get_xdata(), np.arange(1, 13))


def test_only_what_is_drawn_at_random_has_a_trace() -> None:
    solver = MCMC(n_samples=6, n_chains=2, burn_in=0)
    assert list(chains(FMRegressor(0, solver=solver))) == ["noise", "w0", "weights"]
    assert list(chains(FMOrdinal(2, solver=solver))) == ["cut 1", "cut 2", "weights", "factors"]
    binary = FMClassifier(2, solver=solver).fit(np.eye(4)[[0, 1, 2, 3] * 5], [0, 1] * 10)
    assert [name.split("\n")[0] for name in names(posterior_trace(binary.posterior_))] == ["w0", "weights", "factors"]


def test_few_draws_have_a_trace_and_no_agreement() -> None:
    X, y = np.eye(4)[[0, 1, 2, 3] * 10], np.arange(40.0) % 7
    model = FMRegressor(2, solver=MCMC(n_samples=3, burn_in=0), random_state=0).fit(X, y)
    ax = posterior_trace(model.posterior_)
    assert len(ax.get_lines()) == 4
    assert ax.get_legend().get_title().get_text() == ""
    one = FMRegressor(2, solver=MCMC(n_samples=3, keep=1), random_state=0).fit(X, y).posterior_
    with pytest.raises(ValueError, match="do not differ, there are 1: keep more"):
        posterior_trace(one)


CLOUD = np.random.default_rng(0).normal(size=(300, 5)) * [5, 4, 1, 1, 1]


def boxes_on_the_page(ax: Any) -> list[Any]:
    """Of each title, after the figure has been laid out once more, as saving does."""
    ax.figure.draw_without_rendering()
    return [text.get_window_extent() for text in ax.texts]


def test_a_map_shows_the_first_two_principal_axes() -> None:
    V = CLOUD @ np.linalg.qr(np.random.default_rng(1).normal(size=(5, 5)))[0] + 3
    ax = item_map(V, [""] * 300, title="films")
    variances, axes = np.linalg.eigh(np.cov(V.T))
    places = (V - V.mean(axis=0)) @ axes[:, :-3:-1]
    shown = ax.get_lines()[0].get_xydata()
    np.testing.assert_allclose(np.abs(shown), np.abs(places), atol=1e-9)
    shares = 100 * variances[:-3:-1] / variances.sum()
    assert ax.get_xlabel() == f"first axis, {shares[0]:.0f} % of the variance"
    assert ax.get_ylabel() == f"second axis, {shares[1]:.0f} % of the variance"
    assert ax.get_title(loc="left") == "films"
    np.testing.assert_allclose(item_map(-V, [""] * 300).get_lines()[0].get_xydata(), -shown)
    boxes_on_the_page(ax)
    wide, high = np.diff(ax.transData.transform([[0, 0], [1, 1]]), axis=0)[0]
    assert wide == pytest.approx(high)


@pytest.mark.parametrize("size", [(7, 5.6), (3, 2)])
def test_titles_stand_apart_and_inside_the_frame(size: Any) -> None:
    ax = Figure(figsize=size, layout="constrained").subplots()
    item_map(CLOUD, [f"a film, number {i}" for i in range(300)], ax=ax, title="a title takes room")
    boxes, frame = boxes_on_the_page(ax), ax.get_window_extent()
    assert 8 <= len(boxes) <= 60
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    assert all(frame.x0 <= box.x0 and box.x1 <= frame.x1 for box in boxes)
    assert all(frame.y0 <= box.y0 and box.y1 <= frame.y1 for box in boxes)
    dots = ax.transData.transform(ax.get_lines()[1].get_xydata())
    assert len(dots) == len(boxes)
    assert not any(box.contains(*dot) for box in boxes for dot in dots)


def test_the_first_items_have_their_titles_first() -> None:
    V = np.array([[0, 0], [0, 0.01], [9, 5], [9, 5.01], [-9, -5]])
    titles = pd.Series(["one", "two", "three", "four", "five"], index=[7, 3, 1, 0, 2])  # ids of items, in any order
    assert notes(item_map(V, titles)) == ["one", "three", "five"]
    assert notes(item_map(V[::-1], titles[::-1])) == ["five", "four", "two"]
    ax = item_map(V, titles, top=2)
    assert notes(ax) == ["one", "three"]
    everything, named = (line.get_xydata() for line in ax.get_lines())
    np.testing.assert_array_equal(named, everything[[0, 2]])
    np.testing.assert_array_equal([text.xy for text in ax.texts], named)


def test_titles_are_no_formulas() -> None:
    ax = item_map([[0, 0], [4, 1], [0, 8]], ["$9.99_^$", "Ca$h", "x" * 99])
    boxes_on_the_page(ax)
    assert notes(ax) == ["$9.99_^$", "Ca$h", "x" * 27 + "…"]


def test_items_in_one_place_are_a_map_too() -> None:
    assert notes(item_map(np.ones((3, 2)), ["one", "two", "three"])) == ["one"]


PICTURES = {
    "learning_curve": (HISTORY,),
    "explanation": (PARTS[:1],),
    "field_importance": (FIELDS,),
    "pair_importance": (FIELDS,),
    "calibration": ([0, 1], [0.5, 0.5]),
    "predicted_against_actual": ([1, 2], [1, 2]),
    "interval_coverage": ([1, 2], [1, 2], [1, 1]),
    "item_map": ([[0, 1], [1, 0], [1, 1]], "abc"),
    "posterior_trace": (
        Posterior(*np.arange(8.0).reshape(1, 8), *np.ones((5, 8, 1, 1)), np.zeros(8, np.int32)),  # type: ignore[arg-type]
    ),
}


def test_every_picture_is_looked_at_here() -> None:
    assert list(plots.__all__) == sorted(PICTURES)


@pytest.mark.parametrize("name", PICTURES)
def test_every_picture_keeps_the_same_manners(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    draw: Any = getattr(plots, name)
    left, right = Figure().subplots(1, 2)
    assert draw(*PICTURES[name], ax=right, title="it") is right
    assert right.get_title(loc="left") == "it"
    assert not left.has_data()
    buffer = io.BytesIO()
    draw(*PICTURES[name]).figure.savefig(buffer, format="png")
    assert buffer.getvalue().startswith(b"\x89PNG")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install sparsefm\[plot\]"):
        draw(*PICTURES[name])


def test_pictures_import_no_pyplot_and_nothing_before_they_are_drawn() -> None:
    code = """
import sys
from sparsefm import FMRegressor, plots
assert "matplotlib" not in sys.modules
X, y = [[1, 0], [0, 1], [1, 1]], [1, 2, 3]
model = FMRegressor(2, solver="mcmc", fields=[0, 1], random_state=0).fit(X, y)
many = [number / 7 for number in range(3000)]
for draw in (
    lambda: plots.learning_curve(model.history_),
    lambda: plots.posterior_trace(model.posterior_),
    lambda: plots.explanation(model.explain(X), row=0),
    lambda: plots.field_importance(model.field_importance(X)),
    lambda: plots.pair_importance(model.field_importance(X)),
    lambda: plots.item_map(model.posterior_.V[-1], "ab"),
    lambda: plots.calibration([0, 1], [0, 1]),
    lambda: plots.predicted_against_actual(y, y),
    lambda: plots.predicted_against_actual(many, many),
    lambda: plots.interval_coverage(y, *model.predict(X, return_std=True)),
):
    draw().figure.draw_without_rendering()
    assert "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: predicted_against_actual([1, 2], [1]), "y_true has 2 samples, y_pred has 1"),
        (lambda: predicted_against_actual([1, np.nan], [1, 2]), "y_true has 1 missing or infinite"),
        (lambda: predicted_against_actual([], []), "y_true is empty"),
        (lambda: interval_coverage([1, 2], [1, 2], [1, 0]), "std must be positive, got 0"),
        (lambda: interval_coverage([1, 2], [1, 2], [1]), "one number a row each, got 2 and 2 and 1"),
        (lambda: interval_coverage([], [], []), "one number a row each, got 0 and 0 and 0"),
        (lambda: interval_coverage([1, 2], [1, np.inf], [1, 1]), "mean has 1 missing or infinite"),
        (lambda: interval_coverage([1], [1], [[1]]), r"std must be one-dimensional, got shape \(1, 1\)"),
        (lambda: posterior_trace(None), "fitted with solver='mcmc'.*got NoneType"),  # type: ignore[arg-type]
        (lambda: posterior_trace(()), "of several classes one of them; got tuple"),  # type: ignore[arg-type]
        (lambda: item_map([[1, 2]], ["a"]), r"two and more rows .* got shape \(1, 2\)"),
        (lambda: item_map([[1], [2]], "ab"), r"two and more finite numbers, got shape \(2, 1\)"),
        (lambda: item_map([[1, 2], [1, np.nan]], "ab"), "finite numbers"),
        (lambda: item_map(np.eye(3), ["a"]), "one for each of the 3 vectors, got 1"),
        (lambda: item_map(np.eye(3), "abc", top=0), "top must be a positive integer"),
        (lambda: pair_importance(FIELDS[:0]), "frame has no line"),
        (lambda: pair_importance(PARTS), "frame must be what field_importance .*; got row"),
        (lambda: pair_importance({"first": []}), "frame must be what field_importance .*; got dict"),  # type: ignore[arg-type]
    ],
)
def test_what_these_cannot_draw_is_refused(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
