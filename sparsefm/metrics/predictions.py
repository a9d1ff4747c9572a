"""Of single predictions: numbers, probabilities and scores against what happened."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .checks import Bools, Floats, check_whole, vector

__all__ = ["auc", "calibration_error", "log_loss", "mae", "rmse"]


def rmse(y_true: npt.ArrayLike, y_pred: npt.ArrayLike, *, sample_weight: npt.ArrayLike | None = None) -> float:
    """Root of the mean squared error, in the unit of `y_true`.

    Parameters
    ----------
    y_true, y_pred : array-like (n_samples,)
        Observed and predicted numbers.
    sample_weight : array-like (n_samples,), optional
        Not negative and not all zero; a weight of 2 counts as a sample given twice.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If the input is empty, of different lengths, not one-dimensional, missing or infinite.

    Examples
    --------
    >>> rmse([1, 2, 3, 4], [1, 2, 3, 8])  # the root of 16 / 4
    2.0
    """
    y, p, w = _aligned(y_true, y_pred, sample_weight, "y_pred")
    return float(np.sqrt(np.average((y - p) ** 2, weights=w)))


def mae(y_true: npt.ArrayLike, y_pred: npt.ArrayLike, *, sample_weight: npt.ArrayLike | None = None) -> float:
    """Mean absolute error, in the unit of `y_true`.

    Arguments, result and errors as of `rmse`.

    Examples
    --------
    >>> mae([1, 2, 3], [1, 2, 6])
    1.0
    """
    y, p, w = _aligned(y_true, y_pred, sample_weight, "y_pred")
    return float(np.average(np.abs(y - p), weights=w))


def log_loss(y_true: npt.ArrayLike, y_prob: npt.ArrayLike, *, sample_weight: npt.ArrayLike | None = None) -> float:
    """Mean negative log-likelihood of two classes, in nats.

    A probability of exactly 0 for what happened would cost an infinity. As in scikit-learn, probabilities are
    clipped to [eps, 1 - eps] with the eps of float64 (2.2e-16), so one such row costs 36 nats.

    Parameters
    ----------
    y_true : array-like (n_samples,)
        Labels: 0 and 1, -1 and 1, or booleans.
    y_prob : array-like (n_samples,)
        Probabilities of label 1.
    sample_weight : array-like (n_samples,), optional
        Not negative and not all zero; a weight of 2 counts as a sample given twice.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If labels are others, probabilities lie outside [0, 1], or the input is empty, of different lengths,
        not one-dimensional, missing or infinite.

    Examples
    --------
    >>> round(log_loss([1, 0], [0.5, 0.5]), 4)  # log 2
    0.6931
    """
    positive, p, w = _of_two_classes(y_true, y_prob, sample_weight)
    eps = np.finfo(np.float64).eps
    p = np.clip(p, eps, 1 - eps)
    return float(np.average(-np.log(np.where(positive, p, 1 - p)), weights=w))


def auc(y_true: npt.ArrayLike, y_score: npt.ArrayLike, *, sample_weight: npt.ArrayLike | None = None) -> float:
    """Area under the ROC curve: the probability that a positive scores above a negative, a tie counting half.

    Computed as the rank statistic it is (Mann and Whitney 1947; Hanley and McNeil 1982), over all rows at
    once and not within users.

    Parameters
    ----------
    y_true : array-like (n_samples,)
        Labels: 0 and 1, -1 and 1, or booleans.
    y_score : array-like (n_samples,)
        Scores, higher for 1; only their order matters.
    sample_weight : array-like (n_samples,), optional
        Not negative, and not all zero in either class; a weight of 2 counts as a sample given twice.

    Returns
    -------
    float
        Between 0 and 1; 0.5 is no better than chance.

    Raises
    ------
    ValueError
        If only one class is present, labels are others, or the input is empty, of different lengths, not
        one-dimensional, missing or infinite.

    Examples
    --------
    >>> auc([0, 1, 0, 1], [0.1, 0.2, 0.2, 0.3])  # of 4 pairs 3 are in order and 1 is a tie
    0.875
    """
    y, score, w = _aligned(y_true, y_score, sample_weight, "y_score")
    positive = _positive(y)
    w = np.ones_like(y) if w is None else w
    _, group = np.unique(score, return_inverse=True)
    of_positives = np.bincount(group, weights=w * positive)
    of_negatives = np.bincount(group, weights=w * ~positive)
    pairs = of_positives.sum() * of_negatives.sum()
    if pairs == 0:
        raise ValueError("AUC compares positives with negatives, but only one class is there (or has weight)")
    # a positive beats all negatives of the groups below its own, and half of those in it
    return float(of_positives @ (np.cumsum(of_negatives) - of_negatives / 2) / pairs)


def calibration_error(
    y_true: npt.ArrayLike, y_prob: npt.ArrayLike, *, n_bins: int = 10, sample_weight: npt.ArrayLike | None = None
) -> float:
    """Expected calibration error: how far probabilities are from the shares of what happened.

    Rows go by their probability to `n_bins` bins of equal width, the upper edge of a bin within it. The error is
    Σ over bins of (share of the rows that are in it) · |share of them with label 1 − their mean probability|
    (Naeini, Cooper and Hauskrecht 2015). It depends on the bins, and a constant forecast of the base rate has none:
    read it beside `log_loss`, which also rewards telling rows apart.

    Parameters
    ----------
    y_true, y_prob, sample_weight
        As of `log_loss`.
    n_bins : int
        Number of bins.

    Returns
    -------
    float
        Between 0 and 1.

    Raises
    ------
    ValueError
        As of `log_loss`, and if n_bins is not a whole number of bins.

    Examples
    --------
    >>> calibration_error([0, 1, 1, 1], [0.25, 0.25, 0.75, 0.75], n_bins=2)  # (|1/2 - 1/4| + |1 - 3/4|) / 2
    0.25
    """
    check_whole(n_bins, "n_bins", "bins")
    positive, p, w = _of_two_classes(y_true, y_prob, sample_weight)
    w = np.ones_like(p) if w is None else w
    of = np.searchsorted(np.linspace(0, 1, n_bins + 1)[1:-1], p)
    return float(np.abs(np.bincount(of, weights=w * (positive - p))).sum() / w.sum())


def _of_two_classes(
    y_true: npt.ArrayLike, y_prob: npt.ArrayLike, sample_weight: npt.ArrayLike | None
) -> tuple[Bools, Floats, Floats | None]:
    y, p, w = _aligned(y_true, y_prob, sample_weight, "y_prob")
    positive = _positive(y)
    if p.min() < 0 or p.max() > 1:
        raise ValueError(f"y_prob must be probabilities, found values from {p.min():g} to {p.max():g}")
    return positive, p, w


def _positive(y: Floats) -> Bools:
    labels = set(np.unique(y).tolist())
    if not (labels <= {0.0, 1.0} or labels <= {-1.0, 1.0}):
        raise ValueError(f"y_true must hold 0 and 1, -1 and 1, or booleans, found {sorted(labels)[:5]}")
    return np.asarray(y == 1)


def _aligned(
    y_true: npt.ArrayLike, y_other: npt.ArrayLike, sample_weight: npt.ArrayLike | None, name: str
) -> tuple[Floats, Floats, Floats | None]:
    y, other = vector(y_true, "y_true"), vector(y_other, name)
    weight = None if sample_weight is None else vector(sample_weight, "sample_weight")
    if len(y) == 0:
        raise ValueError("y_true is empty")
    for what, array in ((name, other), ("sample_weight", weight)):
        if array is not None and len(array) != len(y):
            raise ValueError(f"y_true has {len(y)} samples, {what} has {len(array)}")
    if weight is not None and (weight.min() < 0 or weight.sum() == 0):
        raise ValueError("sample_weight must not be negative, nor zero everywhere")
    return y, other, weight
