"""Pictures of what happened in training. matplotlib is imported only when one is drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["learning_curve"]

_TRAINING, _EVALUATION, _FAINT = "#7f8fa6", "#c0392b", "#d9d9d9"


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
    try:
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator
    except ImportError as error:
        raise ImportError("plots are drawn by matplotlib: pip install sparsefm[plot]") from error
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
    if ax is None:
        # not pyplot's figure, which would choose a backend and be kept alive
        ax = Figure(figsize=(7, 4.2), layout="constrained").subplots()

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
