"""How far predictions hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from ..metrics import calibration_error, rmse
from .canvas import BLUE, GREY, RED, finish, new_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["calibration", "interval_coverage", "predicted_against_actual"]

_FEW = 12  # levels of a target up to which each has a box


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
    ax.legend(frameon=False)
    return finish(ax, title)


def predicted_against_actual(
    y_true: npt.ArrayLike, y_pred: npt.ArrayLike, *, ax: Axes | None = None, title: str | None = None
) -> Axes:
    """Predictions of each level of the target as a box (quartiles; whiskers 5 to 95 %), or of each row as a point.

    A target of up to twelve values, such as stars, has a box for each, with the number of its rows below. The line is
    where predictions would be right; those of a good model rise along it, less steeply the more noise there is.

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
    >>> ax.get_xlabel()
    'actual'
    """
    error = rmse(y_true, y_pred)
    actual, predicted = np.asarray(y_true, np.float64), np.asarray(y_pred, np.float64)
    ax = new_axes(4.2) if ax is None else ax
    levels = np.unique(actual)
    if len(levels) <= _FEW:
        parts = [predicted[actual == level] for level in levels]
        width = 0.6 * (np.diff(levels).min() if len(levels) > 1 else 1.0)
        style = {"color": GREY}
        ax.boxplot(
            parts,
            positions=levels,
            widths=width,
            whis=(5, 95),
            showfliers=False,
            manage_ticks=False,
            patch_artist=True,
            boxprops={"facecolor": "#cfe0ee", "edgecolor": GREY},
            medianprops={"color": BLUE, "linewidth": 2},
            whiskerprops=style,
            capprops=style,
        )
        counts = [f"{level:g}\n{len(part):,} rows" for level, part in zip(levels, parts, strict=True)]
        ax.set_xticks(levels, counts)
        ends = np.array([levels[0], levels[-1]])
    else:
        shade = min(1.0, max(0.05, 300 / len(actual)))
        ax.plot(actual, predicted, ".", color=BLUE, markersize=4, alpha=shade, markeredgewidth=0)
        ends = np.array([actual.min(), actual.max()])
    ax.plot(ends, ends, color="black", linewidth=0.9, label=f"right; RMSE of these rows {error:.4g}")
    ax.set_xlabel("actual")
    ax.set_ylabel("predicted")
    ax.legend(frameon=False, loc="upper left")
    return finish(ax, title, grid="y")


def interval_coverage(
    y_true: npt.ArrayLike,
    mean: npt.ArrayLike,
    std: npt.ArrayLike,
    *,
    ax: Axes | None = None,
    title: str | None = None,
) -> Axes:
    """How many targets lie inside predictive intervals, beside how many should.

    The intervals are the central ones of a normal distribution, 5 to 99 % of it. Points on the diagonal are honest;
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
    rmse(y_true, mean)  # what it refuses
    rmse(y_true, std)
    actual, centre, deviation = (np.asarray(each, np.float64) for each in (y_true, mean, std))
    if (deviation <= 0).any():
        raise ValueError(f"std must be positive, got {deviation.min():g}")
    shares = np.array([*np.arange(5, 100, 5), 99]) / 100
    off = np.abs(actual - centre) / deviation
    inside = (off[:, None] <= ndtri(0.5 + shares / 2)).mean(axis=0)
    ax = new_axes(4.2) if ax is None else ax
    ax.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, label="intervals that hold")
    held = inside[np.flatnonzero(np.isclose(shares, 0.9))[0]]
    ax.plot(shares, inside, color=RED, marker=".", label=f"90 % intervals hold {100 * held:.1f} %")
    ax.set_xlabel("nominal share")
    ax.set_ylabel("share of the rows inside")
    ax.set_xlim(0, 1)
    ax.set_ylim(0, 1)
    ax.legend(frameon=False)
    return finish(ax, title)
