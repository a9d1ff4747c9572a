"""How good predictions are: functions of arrays, which know no model.

Of single predictions: `rmse`, `mae`, `log_loss`, `auc`. Of ranked lists: `precision_at_k`, `ndcg_at_k`.
Of draws of a number: `split_rhat`, `effective_sample_size`.
Nothing is dropped in silence: missing or infinite numbers, empty input and lengths that differ are errors.

For ranked lists libraries disagree on denominators, so here they are. Precision divides by k, however short
the list or few the relevant items. The ideal of NDCG holds all relevant items of the user, up to k of them,
whether or not they were shown. The mean is over users who have a relevant item.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from numbers import Integral
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

__all__ = ["auc", "effective_sample_size", "log_loss", "mae", "ndcg_at_k", "precision_at_k", "rmse", "split_rhat"]

_Floats = npt.NDArray[np.float64]


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
    y, p, w = _aligned(y_true, y_prob, sample_weight, "y_prob")
    positive = _positive(y)
    if p.min() < 0 or p.max() > 1:
        raise ValueError(f"y_prob must be probabilities, found values from {p.min():g} to {p.max():g}")
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


def precision_at_k(recommended: Any, relevant: Sequence[Collection[Any]], k: int) -> float:
    """Share of the first `k` places that hold a relevant item, averaged over users.

    Always divided by `k`: a list that is too short, or a user with fewer than `k` relevant items, cannot
    reach 1. Users without any relevant item are left out of the mean.

    Parameters
    ----------
    recommended : array-like (n_users, at least k)
        Item ids, best first; short lists are filled up with -1 or None (which therefore cannot be ids).
    relevant : sequence of n_users collections
        The relevant item ids of each user, in the order of the rows.
    k : int
        Number of places.

    Returns
    -------
    float
        Between 0 and 1.

    Raises
    ------
    ValueError
        If the lengths differ, lists are shorter than `k`, an item is recommended twice to one user, or
        nobody has a relevant item.

    Examples
    --------
    >>> precision_at_k([[1, 2, 3, 4], [5, 6, -1, -1]], [{1, 4, 9}, {6}], k=4)  # (2/4 + 1/4) / 2
    0.375
    """
    hits, _ = _hits(recommended, relevant, k)
    return float(np.mean(hits.sum(axis=1) / k))


def ndcg_at_k(recommended: Any, relevant: Sequence[Collection[Any]], k: int) -> float:
    """Normalised discounted cumulative gain of the first `k` places, averaged over users.

    A relevant item in place j = 1, 2, ... gains 1 / log2(j + 1). The sum is divided by that of an ideal list,
    whose first min(k, number of relevant items) places are hits, counting all relevant items and not just
    those shown (Järvelin and Kekäläinen 2002; trec_eval's ndcg_cut). Users without any relevant item are left
    out of the mean.

    Parameters
    ----------
    recommended : array-like (n_users, at least k)
        Item ids, best first; short lists are filled up with -1 or None (which therefore cannot be ids).
    relevant : sequence of n_users collections
        The relevant item ids of each user, in the order of the rows.
    k : int
        Number of places.

    Returns
    -------
    float
        Between 0 and 1.

    Raises
    ------
    ValueError
        If the lengths differ, lists are shorter than `k`, an item is recommended twice to one user, or
        nobody has a relevant item.

    Examples
    --------
    >>> round(ndcg_at_k([[7, 8, 9]], [{8}], k=3), 4)  # (1 / log2(3)) / (1 / log2(2))
    0.6309
    """
    hits, n_relevant = _hits(recommended, relevant, k)
    gain = 1 / np.log2(np.arange(2, k + 2))
    ideal = np.cumsum(gain)[np.minimum(n_relevant, k) - 1]
    return float(np.mean(hits @ gain / ideal))


def _hits(
    recommended: Any, relevant: Sequence[Collection[Any]], k: int
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.intp]]:
    """Hits (n, k) among the first k places and number of relevant items (n,), users with none left out."""
    if isinstance(k, bool) or not isinstance(k, Integral) or k < 1:
        raise ValueError(f"k must be a whole number of places, at least 1, got {k!r}")
    # as objects: beside text ids NumPy would turn the padding into text too
    lists = recommended if isinstance(recommended, np.ndarray) else np.asarray(recommended, dtype=object)
    if lists.ndim != 2 or lists.shape[1] < k:
        raise ValueError(
            f"recommended must have one row a user and at least k={k} columns (fill short lists up with -1), "
            f"got shape {lists.shape}"
        )
    if len(relevant) != len(lists):
        raise ValueError(f"recommended has {len(lists)} rows, relevant has {len(relevant)}")
    hits, n_relevant = [], []
    for row, (shown, collection) in enumerate(zip(lists[:, :k].tolist(), relevant, strict=True)):
        if isinstance(collection, str):
            raise ValueError(f"relevant[{row}] must be a collection of item ids, got the text {collection!r}")
        wanted = set(collection)
        is_item = [not (item == -1 or pd.isna(item)) for item in shown]
        items = [item for item, real in zip(shown, is_item, strict=True) if real]
        if len(set(items)) < len(items):
            raise ValueError(f"recommended[{row}] holds an item twice: {shown}")
        if wanted:
            hits.append([real and item in wanted for item, real in zip(shown, is_item, strict=True)])
            n_relevant.append(len(wanted))
    if not hits:
        raise ValueError("no user has a relevant item, so there is nothing to average")
    return np.array(hits, dtype=bool), np.array(n_relevant, dtype=np.intp)


def _aligned(
    y_true: npt.ArrayLike, y_other: npt.ArrayLike, sample_weight: npt.ArrayLike | None, name: str
) -> tuple[_Floats, _Floats, _Floats | None]:
    y, other = _vector(y_true, "y_true"), _vector(y_other, name)
    weight = None if sample_weight is None else _vector(sample_weight, "sample_weight")
    if len(y) == 0:
        raise ValueError("y_true is empty")
    for what, array in ((name, other), ("sample_weight", weight)):
        if array is not None and len(array) != len(y):
            raise ValueError(f"y_true has {len(y)} samples, {what} has {len(array)}")
    if weight is not None and (weight.min() < 0 or weight.sum() == 0):
        raise ValueError("sample_weight must not be negative, nor zero everywhere")
    return y, other, weight


def _vector(values: npt.ArrayLike, name: str) -> _Floats:
    array = np.asarray(values)
    if array.ndim != 1:
        raise ValueError(f"{name} must be one-dimensional, got shape {array.shape}")
    try:
        array = array.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be numbers: {error}") from error
    if not np.isfinite(array).all():
        raise ValueError(f"{name} has {int((~np.isfinite(array)).sum())} missing or infinite values")
    return array


def _positive(y: _Floats) -> npt.NDArray[np.bool_]:
    labels = set(np.unique(y).tolist())
    if not (labels <= {0.0, 1.0} or labels <= {-1.0, 1.0}):
        raise ValueError(f"y_true must hold 0 and 1, -1 and 1, or booleans, found {sorted(labels)[:5]}")
    return np.asarray(y == 1)


def split_rhat(draws: npt.ArrayLike) -> Any:
    """How far chains of draws disagree: the potential scale reduction of half chains (Gelman et al. 2013, §11.4).

    Near 1 where the chains, and the first and second halves of each, have the same mean; above 1.01 to 1.1, by the
    purpose, they have not been run for long enough.

    Parameters
    ----------
    draws : (n_chains, n_draws, ...)
        At least four draws a chain; one number, or an array of them, a draw.

    Returns
    -------
    float, or array (...)
        NaN where no draw differs from another.

    Examples
    --------
    >>> bool(split_rhat(np.random.default_rng(0).normal(size=(2, 500))) < 1.01)
    True
    """
    halves = _chains(draws)
    half = halves.shape[1] // 2
    halves = np.concatenate([halves[:, :half], halves[:, -half:]])
    within = halves.var(axis=1, ddof=1).mean(axis=0)
    between = halves.mean(axis=1).var(axis=0, ddof=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.sqrt((half - 1) / half + between / within)[()]


def effective_sample_size(draws: npt.ArrayLike) -> Any:
    """How many independent draws would know the mean as well as these do (Geyer 1992; Vehtari et al. 2021).

    The number of draws divided by 1 + 2 Σ of their autocorrelations, summed up in pairs until a pair is negative.

    Parameters
    ----------
    draws : (n_chains, n_draws, ...)
        At least four draws a chain; one number, or an array of them, a draw.

    Returns
    -------
    float, or array (...)
        At most n log10(n) of n draws in all; NaN where no draw differs from another.

    Examples
    --------
    >>> draws = np.random.default_rng(0).normal(size=(2, 500))
    >>> bool(effective_sample_size(np.repeat(draws, 4, axis=1)) < 1200)  # each four times
    True
    """
    chains = _chains(draws)
    n_chains, n = chains.shape[:2]
    flat = chains.reshape(n_chains, n, -1)
    off = flat - flat.mean(axis=1, keepdims=True)
    spectrum = np.fft.rfft(off, 2 * n, axis=1)
    covariance = np.fft.irfft(np.abs(spectrum) ** 2, 2 * n, axis=1)[:, :n].mean(axis=0) / n
    within = covariance[0] * n / (n - 1)
    between = flat.mean(axis=1).var(axis=0, ddof=1) if n_chains > 1 else 0.0
    total = within * (n - 1) / n + between
    with np.errstate(invalid="ignore", divide="ignore"):
        correlation = 1 - (within - covariance * n / (n - 1)) / total
    pairs = correlation[0 : n - n % 2 : 2] + correlation[1:n:2]
    pairs = np.minimum.accumulate(pairs, axis=0)
    pairs[np.cumsum(pairs <= 0, axis=0) > 0] = 0
    size = n_chains * n
    with np.errstate(invalid="ignore", divide="ignore"):
        found = size / np.maximum(2 * pairs.sum(axis=0) - 1, 1 / np.log10(size))
    return np.where(total > 0, found, np.nan).reshape(chains.shape[2:])[()]


def _chains(draws: npt.ArrayLike) -> _Floats:
    chains = np.asarray(draws, np.float64)
    if chains.ndim < 2 or chains.shape[0] < 1 or chains.shape[1] < 4:
        raise ValueError(f"draws must be (n_chains, n_draws, ...) with at least 4 draws a chain, got {chains.shape}")
    if not np.isfinite(chains).all():
        raise ValueError("draws must be finite")
    return chains
