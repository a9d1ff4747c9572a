"""sparsefm.plots: the numbers that are drawn, and that pyplot is left alone."""

from __future__ import annotations

import io
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from sparsefm import FMClassifier, FMRegressor

pytest.importorskip("matplotlib", reason="matplotlib comes with the extra `plot`")

from matplotlib.figure import Figure

from sparsefm.plots import learning_curve

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
