"""Pictures of training, of what scores are made of, and of how far probabilities hold.

matplotlib is imported only when one is drawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from .metrics import calibration_error
from .validation import check_positive

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["calibration", "explanation", "field_importance", "learning_curve"]

_TRAINING, _EVALUATION, _FAINT = "#7f8fa6", "#c0392b", "#d9d9d9"
_UP, _DOWN = "#2e7fb8", _EVALUATION
_LONGEST = 28  # characters of a name beside a bar


def learning_curve(
    history: Sequence[Mapping[str, Any]],
    *,
    ax: Axes | None = None,
    metric: Literal["loss", "rmse"] = "loss",
    title: str | None = None,
) -> Axes:
    """Loss after each epoch, on the training rows and on those watched, whose best epoch is marked.

    The training loss of an epoch is the mean over rows that were scored just before their own update, so it
    can lie above the loss on watched rows in the first epochs.

    Parameters
    ----------
    history : sequence of (n_epochs,) records
        `history_` of a fitted estimator: each has "epoch" and "loss", and "eval_loss" if it was fitted with
        an eval_set or early stopping. Of a classifier with several classes pass the records of one class.
    ax : matplotlib Axes, optional
        Where to draw. Without it a new figure is made, which pyplot does not know: save it by
        ``ax.figure.savefig(path)``.
    metric : {"loss", "rmse"}
        "rmse" is √(2 · loss), for squared loss in the unit of the target; predictions are not clipped.
    title : str, optional

    Returns
    -------
    Axes

    Raises
    ------
    ImportError
        If matplotlib is not installed: ``pip install sparsefm[plot]``.
    ValueError
        If the history is empty, not one record an epoch, or lacks losses; or metric is another word.

    Examples
    --------
    >>> from sparsefm.plots import learning_curve
    >>> history = [{"epoch": 1, "loss": 0.5, "eval_loss": 0.6}, {"epoch": 2, "loss": 0.4, "eval_loss": 0.5}]
    >>> ax = learning_curve(history, metric="rmse")
    >>> ax.get_ylabel()
    'RMSE'
    """
    if metric not in ("loss", "rmse"):
        raise ValueError(f"metric must be 'loss' or 'rmse', got {metric!r}")
    epochs, training = _series(history, "epoch"), _series(history, "loss")
    watched = _series(history, "eval_loss") if any("eval_loss" in record for record in history) else None
    if (np.diff(epochs) <= 0).any():
        raise ValueError(
            "the epochs of history must rise; of a classifier with several classes pass the records of one "
            "class: [record for record in model.history_ if record['class'] == label]"
        )
    if metric == "rmse":
        training = np.sqrt(2 * training)
        watched = None if watched is None else np.sqrt(2 * watched)
    ax = _new_axes(4.2) if ax is None else ax
    from matplotlib.ticker import MaxNLocator

    ax.plot(epochs, training, color=_TRAINING, marker=".", label="training")
    if watched is not None:
        ax.plot(epochs, watched, color=_EVALUATION, marker=".", label="held out")
        best = int(np.argmin(watched))
        where = (float(epochs[best]), float(watched[best]))
        label = f"best: {where[1]:.4g} in epoch {where[0]:.0f}"
        ax.plot(*where, "o", color=_EVALUATION, markersize=11, fillstyle="none", label=label)
    ax.set_xlabel("epoch")
    ax.set_ylabel("RMSE" if metric == "rmse" else "mean loss")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.grid(axis="y", color=_FAINT, linewidth=0.8)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False)
    if title is not None:
        ax.set_title(title, loc="left")
    return ax


def explanation(
    parts: pd.DataFrame,
    *,
    row: int | None = None,
    top: int = 10,
    ax: Axes | None = None,
    title: str | None = None,
) -> Axes:
    """From the intercept to the score of one row: a bar for each part, the largest first, the small ones in one.

    Parameters
    ----------
    parts : DataFrame
        What `explain` of a fitted estimator gives.
    row : int, optional
        Which row of it; needed where it has several.
    top : int
        So many parts have a bar of their own.
    ax : matplotlib Axes, optional
        Where to draw. Without it a new figure is made, which pyplot does not know: save it by
        ``ax.figure.savefig(path)``.
    title : str, optional

    Returns
    -------
    Axes

    Raises
    ------
    ImportError
        If matplotlib is not installed: ``pip install sparsefm[plot]``.
    ValueError
        If parts is not such a table, or has other rows than the one named, or several and none is named; or top is
        not a positive integer.

    Examples
    --------
    >>> import numpy as np
    >>> from sparsefm import FMRegressor
    >>> from sparsefm.plots import explanation
    >>> X = np.array([[1, 0, 1, 0], [1, 0, 0, 1], [0, 1, 1, 0], [0, 1, 0, 1]] * 25)
    >>> model = FMRegressor(random_state=0).fit(X, [1, 2, 2, 5] * 25)
    >>> ax = explanation(model.explain(X), row=3)
    >>> ax.get_xlabel()
    'score'
    """
    _check_columns(parts, "parts", "explain", ("row", "part", "first", "second", "value"))
    check_positive(top, "top", integer=True)
    rows = parts["row"].unique()
    if row is None and len(rows) != 1:
        raise ValueError(f"parts has {len(rows)} rows and one is drawn: name it by row=")
    if row is not None and row not in rows:
        raise ValueError(f"parts has no row {row!r}, only {rows[:5].tolist()}{' ...' * (len(rows) > 5)}")
    own = parts[parts["row"] == (rows[0] if row is None else row)]
    start = float(own.loc[own["part"] == "intercept", "value"].sum())
    own = own[own["part"] != "intercept"].sort_values("value", key=abs, ascending=False, kind="stable")
    labels, values = _labels(own[:top]), own["value"].to_numpy(np.float64)
    if len(values) > top:
        labels.append(f"{len(values) - top} more")
        values = np.append(values[:top], values[top:].sum())
    reached = start + np.concatenate([[0.0], np.cumsum(values)])  # before each bar, and at last the score
    last = len(values) + 1
    ax = _new_axes(1.2 + 0.32 * (last + 1)) if ax is None else ax

    colors = [_DOWN if value < 0 else _UP for value in values]
    ax.barh(np.arange(1, last), values, left=reached[:-1], height=0.62, color=colors)
    ax.plot([start, reached[-1]], [0, last], "o", color="black", markersize=5)
    for place, x in enumerate(reached):  # from the end of each to the beginning of the next
        ax.plot([x, x], [place, place + 1], color=_TRAINING, linewidth=0.8, zorder=0)
    for place, value in enumerate(values, 1):
        _note(ax, f"{value:+.3g}", reached[place - 1 : place + 1].max(), place)
    _note(ax, f"{start:.4g}", start, 0)
    _note(ax, f"{reached[-1]:.4g}", reached[-1], last)
    ax.use_sticky_edges = False  # no bar begins at the edge
    ax.set_xlabel("score")
    _finish_bars(ax, ["intercept", *labels, "score"], title)
    return ax


def field_importance(frame: pd.DataFrame, *, top: int = 20, ax: Axes | None = None, title: str | None = None) -> Axes:
    """How much each field, and each pair of fields, makes scores differ: a bar each, the largest first.

    Parameters
    ----------
    frame : DataFrame
        What `field_importance` of a fitted estimator gives.
    top : int
        How many are drawn.
    ax : matplotlib Axes, optional
        Where to draw, as for `explanation`.
    title : str, optional

    Returns
    -------
    Axes

    Raises
    ------
    ImportError
        If matplotlib is not installed: ``pip install sparsefm[plot]``.
    ValueError
        If frame is empty or not such a table, or top is not a positive integer.

    Examples
    --------
    >>> import pandas as pd
    >>> from sparsefm.plots import field_importance
    >>> frame = pd.DataFrame({"first": ["user", "user"], "second": ["", "item"], "importance": [0.4, 0.1]})
    >>> [label.get_text() for label in field_importance(frame).get_yticklabels()]
    ['user', 'user × item']
    """
    _check_columns(frame, "frame", "field_importance", ("first", "second", "importance"))
    check_positive(top, "top", integer=True)
    shown = frame.sort_values("importance", ascending=False, kind="stable")[:top]
    ax = _new_axes(1.2 + 0.32 * len(shown)) if ax is None else ax

    values = shown["importance"].to_numpy(np.float64)
    ax.barh(np.arange(len(values)), values, height=0.62, color=[_UP if pair else _TRAINING for pair in shown["second"]])
    for place, value in enumerate(values):
        _note(ax, f"{value:.3g}", value, place)
    ax.set_xlabel("standard deviation of its part of the score")
    _finish_bars(ax, _labels(shown), title)
    return ax


def calibration(
    y_true: npt.ArrayLike,
    y_prob: npt.ArrayLike,
    *,
    n_bins: int = 10,
    ax: Axes | None = None,
    title: str | None = None,
) -> Axes:
    """Reliability diagram: how often what was given a probability happened, beside the diagonal of forecasts that hold.

    Rows go by their probability to bins of equal width; a bin without rows has no point. The legend has the expected
    calibration error (`metrics.calibration_error`) of the same bins.

    Parameters
    ----------
    y_true : array-like (n_samples,)
        Labels: 0 and 1, -1 and 1, or booleans.
    y_prob : array-like (n_samples,)
        Probabilities of label 1.
    n_bins : int
        Number of bins.
    ax : matplotlib Axes, optional
        Where to draw. Without it a new figure is made, which pyplot does not know: save it by
        ``ax.figure.savefig(path)``.
    title : str, optional

    Returns
    -------
    Axes

    Raises
    ------
    ImportError
        If matplotlib is not installed: ``pip install sparsefm[plot]``.
    ValueError
        If n_bins is not a positive integer, labels are others, probabilities lie outside [0, 1], or the input is empty,
        of different lengths, not one-dimensional, missing or infinite.

    Examples
    --------
    >>> from sparsefm.plots import calibration
    >>> ax = calibration([0, 1, 1, 1], [0.25, 0.25, 0.75, 0.75], n_bins=2)
    >>> ax.get_xlabel()
    'predicted probability'
    """
    error = calibration_error(y_true, y_prob, n_bins=n_bins)
    ax = _new_axes(4.2) if ax is None else ax
    from sklearn.calibration import calibration_curve  # takes a while to import

    happened, predicted = calibration_curve(y_true, y_prob, n_bins=n_bins, pos_label=1)
    ax.plot([0, 1], [0, 1], color=_TRAINING, linewidth=0.8, label="forecasts that hold")
    label = f"of these rows: expected calibration error {error:.3g}"
    ax.plot(predicted, happened, color=_EVALUATION, marker=".", label=label)
    ax.set_xlabel("predicted probability")
    ax.set_ylabel("share that happened")
    ax.set_xlim(0, 1)
    ax.set_ylim(0, 1)
    ax.grid(color=_FAINT, linewidth=0.8)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False)
    if title is not None:
        ax.set_title(title, loc="left")
    return ax


def _new_axes(height: float) -> Axes:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("plots are drawn by matplotlib: pip install sparsefm[plot]") from error
    # not pyplot's figure, which would choose a backend and be kept alive
    ax: Axes = Figure(figsize=(7, height), layout="constrained").subplots()
    return ax


def _check_columns(frame: Any, name: str, source: str, columns: Sequence[str]) -> None:
    expected = f"{name} must be what {source} of a fitted estimator gives, with columns {', '.join(columns)}"
    if not isinstance(frame, pd.DataFrame):
        raise ValueError(f"{expected}; got {type(frame).__name__}")
    if not set(columns) <= set(frame.columns):
        raise ValueError(f"{expected}; got {', '.join(map(str, frame.columns))}")
    if frame.empty:
        raise ValueError(f"{name} has no line: there is nothing to draw")


def _labels(frame: pd.DataFrame) -> list[str]:
    pairs = zip(frame["first"], frame["second"], strict=True)
    return [_shortened(first) + (f" × {_shortened(second)}" if second else "") for first, second in pairs]


def _shortened(name: str) -> str:
    return name if len(name) <= _LONGEST else name[: _LONGEST - 1] + "…"


def _note(ax: Axes, text: str, x: float, y: float) -> None:
    ax.annotate(
        text.replace("-", "−"), (x, y), xytext=(5, 0), textcoords="offset points", va="center", fontsize="small"
    )


def _finish_bars(ax: Axes, labels: Sequence[str], title: str | None) -> None:
    ax.set_yticks(range(len(labels)), labels)
    ax.set_ylim(len(labels) - 0.4, -0.6)  # downwards
    ax.margins(x=0.12)  # room for the numbers beside the bars
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x", color=_FAINT, linewidth=0.8)
    ax.set_axisbelow(True)
    ax.spines[["top", "right", "left"]].set_visible(False)
    if title is not None:
        ax.set_title(title, loc="left")


def _series(history: Sequence[Mapping[str, Any]], key: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    """(n_epochs,) values of one key, which every record must have."""
    if len(history) == 0:
        raise ValueError("history is empty: pass history_ of a fitted estimator")
    without = [number for number, record in enumerate(history) if key not in record]
    if without:
        raise ValueError(
            f"record {without[0]} of history has no {key!r}, only {', '.join(map(str, history[without[0]]))}"
        )
    return np.array([record[key] for record in history], dtype=np.float64)
