"""How far predictions hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from ..metrics import calibration_error, rmse
from ..metrics.checks import Floats, vector
from .canvas import BLUE, GREY, PALE, RED, finish, new_axes, shades

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["calibration", "interval_coverage", "predicted_against_actual"]

_FEW = 12  # levels of a target up to which each has a box
_POINTS = 2000  # rows up to which each has a point


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
    ax = new_axes(4.2) if ax is None else ax
    from sklearn.calibration import calibration_curve  # takes a while to import

    happened, predicted = calibration_curve(y_true, y_prob, n_bins=n_bins, pos_label=1)
    ax.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, label="forecasts that hold")
    label = f"of these rows: expected calibration error {error:.3g}"
    ax.plot(predicted, happened, color=RED, marker=".", label=label)
    ax.set_xlabel("predicted probability")
    ax.set_ylabel("share that happened")
    ax.set_xlim(0, 1)
    ax.set_ylim(0, 1)
    ax.legend(frameon=False, loc="upper left")
    return finish(ax, title)


def predicted_against_actual(
    y_true: npt.ArrayLike, y_pred: npt.ArrayLike, *, ax: Axes | None = None, title: str | None = None
) -> Axes:
    """Predictions of each level of the target as a box (quartiles; whiskers 5 to 95 %), or against the target.

    A target of up to twelve values, such as stars, has a box for each, with the number of its rows below. Any other has
    a point a row, or, with more than 2,000 rows, hexagons that are darker the more rows they hold. The line is where
    predictions would be right; those of a good model rise along it, less steeply the more noise there is.

    Parameters
    ----------
    y_true, y_pred : array-like (n_samples,)
        Targets and predictions, in one unit.
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
        If the input is empty, of different lengths, not one-dimensional, missing or infinite.

    Examples
    --------
    >>> from sparsefm.plots import predicted_against_actual
    >>> ax = predicted_against_actual([1, 1, 2, 2], [1.2, 1.4, 1.5, 2.1])
    >>> ax.get_legend().get_texts()[0].get_text()
    'right; RMSE of these rows 0.3391'
    """
    error = rmse(y_true, y_pred)
    actual, predicted = np.asarray(y_true, np.float64), np.asarray(y_pred, np.float64)
    ax = new_axes(4.2) if ax is None else ax
    levels, counts = np.unique(actual, return_counts=True)
    if len(levels) <= _FEW:
        places, right = np.arange(float(len(levels))), levels
        _boxes(ax, [predicted[actual == level] for level in levels])
        labels = [f"{level:g}\n{count:,}" for level, count in zip(levels, counts, strict=True)]
        ax.set_xticks(places, labels, fontsize="medium" if len(levels) <= 8 else "small")
        ax.set_xlabel("actual, and number of rows")
    else:
        places = right = levels[[0, -1]]
        if len(actual) <= _POINTS:
            ax.plot(actual, predicted, ".", color=BLUE, markersize=5, alpha=0.5, markeredgewidth=0)
        else:
            ends = min(actual.min(), predicted.min()), max(actual.max(), predicted.max())
            style: dict[str, Any] = {"bins": "log", "mincnt": 1, "cmap": shades(PALE), "linewidths": 0.1}
            cells = ax.hexbin(actual, predicted, gridsize=(60, 22), extent=(*ends, *ends), **style)
            figure: Any = ax.figure
            figure.colorbar(cells, ax=ax, label="rows").outline.set_visible(False)
        ax.set_xlabel("actual")
    ax.plot(places, right, color="black", linewidth=0.9, label=f"right; RMSE of these rows {error:.4g}")
    ax.set_ylabel("predicted")
    ax.legend(edgecolor="none")  # where there is most room, which differs
    return finish(ax, title, grid="y")


def _boxes(ax: Axes, parts: Sequence[Floats]) -> None:
    """Side by side. Not those of matplotlib, which go through pyplot's settings and so import it."""
    places = np.arange(len(parts))
    low, first, middle, third, high = np.array([np.percentile(part, [5, 25, 50, 75, 95]) for part in parts]).T
    ax.vlines(places, low, high, color=GREY, linewidth=1)
    ax.bar(places, third - first, 0.6, bottom=first, facecolor=PALE, edgecolor=GREY)
    ax.hlines(middle, places - 0.3, places + 0.3, color=BLUE, linewidth=2)
    ax.use_sticky_edges = False  # no box ends at the edge


def interval_coverage(
    y_true: npt.ArrayLike,
    mean: npt.ArrayLike,
    std: npt.ArrayLike,
    *,
    ax: Axes | None = None,
    title: str | None = None,
) -> Axes:
    """How many targets lie inside predictive intervals, beside how many should.

    The intervals are the central ones of a normal distribution, 5, 10 to 95 % of it. Points on the diagonal are honest;
    below it the model is too sure.

    Parameters
    ----------
    y_true : array-like (n_samples,)
    mean, std : array-like (n_samples,)
        What ``predict(X, return_std=True)`` gives.
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
        If the input is empty, of different lengths, not one-dimensional, missing or infinite, or a std is not positive.

    Examples
    --------
    >>> from sparsefm.plots import interval_coverage
    >>> ax = interval_coverage([1.0, 2.0, 9.0], [1.1, 2.2, 3.0], [1.0, 1.0, 1.0])
    >>> ax.get_legend().get_texts()[1].get_text()
    '90 % intervals hold 66.7 %'
    """
    columns = {name: vector(each, name) for name, each in {"y_true": y_true, "mean": mean, "std": std}.items()}
    lengths = [len(column) for column in columns.values()]
    if min(lengths) == 0 or len(set(lengths)) > 1:
        raise ValueError("y_true, mean and std must have one number a row each, got {} and {} and {}".format(*lengths))
    actual, centre, deviation = columns.values()
    if (deviation <= 0).any():
        raise ValueError(f"std must be positive, got {deviation.min():g}: give that of predict(X, return_std=True)")
    percent = np.arange(5, 100, 5)
    off = np.sort(np.abs(actual - centre) / deviation)
    inside = np.searchsorted(off, ndtri(0.5 + percent / 200), side="right") / len(off)
    ax = new_axes(4.2) if ax is None else ax
    ax.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, label="intervals that hold")
    held = float(inside[percent == 90][0])
    ax.plot(percent / 100, inside, color=RED, marker=".", label=f"90 % intervals hold {100 * held:.1f} %")
    ax.set_xlabel("nominal share")
    ax.set_ylabel("share of the rows inside")
    ax.set_xlim(0, 1)
    ax.set_ylim(0, 1)
    ax.legend(frameon=False, loc="upper left")
    return finish(ax, title)
