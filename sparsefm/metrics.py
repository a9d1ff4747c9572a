"""How good predictions are: functions of arrays, which know no model.

Of single predictions: `rmse`, `mae`, `log_loss`, `auc`, `calibration_error`. Of ranked lists and what was relevant:
`precision_at_k`, `recall_at_k`, `hit_rate_at_k`, `mrr_at_k`, `map_at_k`, `ndcg_at_k`. Of ranked lists alone:
`coverage`, `novelty`, `popularity_lift`. Of draws of a number: `split_rhat`, `effective_sample_size`.
Nothing is dropped in silence: missing or infinite numbers, empty input and lengths that differ are errors.

For ranked lists libraries disagree on denominators, so here they are. Precision divides by k, however short
the list or few the relevant items. Recall and average precision divide by the number of all relevant items of the
user, however small k. The ideal of NDCG holds all relevant items of the user, up to k of them,
whether or not they were shown. The mean is over users who have a relevant item.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from numbers import Integral
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

__all__ = [
    "auc",
    "calibration_error",
    "coverage",
    "effective_sample_size",
    "hit_rate_at_k",
    "log_loss",
    "mae",
    "map_at_k",
    "mrr_at_k",
    "ndcg_at_k",
    "novelty",
    "popularity_lift",
    "precision_at_k",
    "recall_at_k",
    "rmse",
    "split_rhat",
]

_Floats = npt.NDArray[np.float64]
_Bools = npt.NDArray[np.bool_]
_Counts = npt.NDArray[np.intp]


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
    y_true : array-like (n_samples,)
        Labels: 0 and 1, -1 and 1, or booleans.
    y_prob : array-like (n_samples,)
        Probabilities of label 1.
    n_bins : int
        Number of bins.
    sample_weight : array-like (n_samples,), optional
        Not negative and not all zero; a weight of 2 counts as a sample given twice.

    Returns
    -------
    float
        Between 0 and 1.

    Raises
    ------
    ValueError
        If n_bins is not a whole number of bins, labels are others, probabilities lie outside [0, 1], or the input is
        empty, of different lengths, not one-dimensional, missing or infinite.

    Examples
    --------
    >>> calibration_error([0, 1, 1, 1], [0.25, 0.25, 0.75, 0.75], n_bins=2)  # (|1/2 - 1/4| + |1 - 3/4|) / 2
    0.25
    """
    _check_whole(n_bins, "n_bins", "bins")
    positive, p, w = _of_two_classes(y_true, y_prob, sample_weight)
    w = np.ones_like(p) if w is None else w
    of = np.searchsorted(np.linspace(0, 1, n_bins + 1)[1:-1], p)
    return float(np.abs(np.bincount(of, weights=w * (positive - p))).sum() / w.sum())


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
    return _mean("precision", recommended, relevant, k)


def recall_at_k(recommended: Any, relevant: Sequence[Collection[Any]], k: int) -> float:
    """Share of a user's relevant items that are in the first `k` places, averaged over users.

    Always divided by the number of all relevant items of the user: one with more than `k` of them cannot reach 1.
    Users without any relevant item are left out of the mean.

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
    >>> recall_at_k([[1, 2, 3, 4], [5, 6, -1, -1]], [{1, 4, 8, 9}, {6}], k=4)  # (2/4 + 1/1) / 2
    0.75
    """
    return _mean("recall", recommended, relevant, k)


def hit_rate_at_k(recommended: Any, relevant: Sequence[Collection[Any]], k: int) -> float:
    """Share of users who have a relevant item in the first `k` places.

    Users without any relevant item are left out of it (trec_eval's success).

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
    >>> hit_rate_at_k([[1, 2, 3, 4], [5, 6, -1, -1]], [{1, 4, 9}, {7}], k=4)  # one user of two
    0.5
    """
    return _mean("hit_rate", recommended, relevant, k)


def mrr_at_k(recommended: Any, relevant: Sequence[Collection[Any]], k: int) -> float:
    """Mean reciprocal rank: one over the place of the first hit among the first `k` places, averaged over users.

    A user without a hit in them counts as 0 (trec_eval's recip_rank, which looks at whole lists). Users without any
    relevant item are left out of the mean.

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
    >>> mrr_at_k([[1, 2, 3, 4], [5, 6, -1, -1]], [{2, 3}, {7}], k=4)  # (1/2 + 0) / 2
    0.25
    """
    return _mean("mrr", recommended, relevant, k)


def map_at_k(recommended: Any, relevant: Sequence[Collection[Any]], k: int) -> float:
    """Mean average precision of the first `k` places, averaged over users.

    The precision at the place of each hit, summed and divided by the number of all relevant items of the user
    (trec_eval's map_cut). Others divide by min(k, number of relevant items), which is larger where a user has more than
    `k` of them. Users without any relevant item are left out of the mean.

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
    >>> map_at_k([[1, 2, 3, 4]], [{1, 4, 8, 9}], k=4)  # (1/1 + 2/4) / 4
    0.375
    """
    return _mean("map", recommended, relevant, k)


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
    return _mean("ndcg", recommended, relevant, k)


def coverage(recommended: Any, n_items: int) -> float:
    """Share of the catalogue that occurs in any list.

    Parameters
    ----------
    recommended : array-like (n_users, k)
        Item ids, best first; short lists are filled up with -1 or None (which therefore cannot be ids).
    n_items : int
        Number of items that could have been recommended.

    Returns
    -------
    float
        Between 0 and 1.

    Raises
    ------
    ValueError
        If `n_items` is not a whole number of items or less than occur, or an item is recommended twice to one user.

    Examples
    --------
    >>> coverage([[1, 2], [2, -1]], n_items=4)  # items 1 and 2 of four
    0.5
    """
    _check_whole(n_items, "n_items", "items")
    found = {item for row in _places(recommended) for item in row if item is not None}
    if len(found) > n_items:
        raise ValueError(f"recommended holds {len(found)} items, more than the n_items={n_items} of the catalogue")
    return len(found) / n_items


def novelty(recommended: Any, popularity: Mapping[Any, float] | pd.Series[Any], n_users: int) -> float:
    """Mean self-information of what is recommended, in bits: how little known it is.

    An item that a share s of the users met has −log2(s) bits: 0 if everyone met it, one more with each halving. One
    that nobody met counts as if one user had. The mean is within each list, then over lists that are not empty (Zhou
    et al. 2010; Vargas and Castells 2011).

    Parameters
    ----------
    recommended : array-like (n_lists, k)
        Item ids, best first; short lists are filled up with -1 or None (which therefore cannot be ids).
    popularity : mapping or Series
        From an item to the number of users who met it; items that are absent were met by nobody.
    n_users : int
        Number of users among whom they were counted.

    Returns
    -------
    float
        Between 0 and log2(n_users).

    Raises
    ------
    ValueError
        If `n_users` is not a whole number of users, a popularity is not between 0 and `n_users`, an item is
        recommended twice to one user, or all lists are empty.

    Examples
    --------
    >>> novelty([["a", "b"], ["b", None]], {"a": 8, "b": 2}, n_users=8)  # ((0 + 2) / 2 + 2) / 2
    1.5
    """
    _check_whole(n_users, "n_users", "users")
    met = _popularity(popularity)
    if max(met.values(), default=0) > n_users:
        raise ValueError(f"popularity says {max(met.values()):g} users for an item, more than n_users={n_users}")
    means = [
        np.mean([-np.log2(max(met.get(item, 0.0), 1) / n_users) for item in row if item is not None])
        for row in _places(recommended)
        if any(item is not None for item in row)
    ]
    if not means:
        raise ValueError("all lists are empty, so there is nothing to average")
    return float(np.mean(means)) + 0.0  # of -0.0 too


def popularity_lift(
    recommended: Any, met: Sequence[Collection[Any]], popularity: Mapping[Any, float] | pd.Series[Any]
) -> float:
    """How much more popular the lists are than what their users met before: 0 for as popular, 1 for twice.

    The mean popularity of the items within each list, averaged over users, divided by the same of what they met, minus
    1 (ΔGAP of Abdollahpouri et al. 2019, with all users as one group). Users with an empty list, or who met nothing,
    are left out of both.

    Parameters
    ----------
    recommended : array-like (n_users, k)
        Item ids, best first; short lists are filled up with -1 or None (which therefore cannot be ids).
    met : sequence of n_users collections
        The items that each user met, in the order of the rows.
    popularity : mapping or Series
        From an item to the number, or the share, of users who met it; items that are absent were met by nobody.

    Returns
    -------
    float
        At least -1.

    Raises
    ------
    ValueError
        If the lengths differ, a popularity is negative or not finite, an item is recommended twice to one user, or no
        user with a list met an item that is popular at all.

    Examples
    --------
    >>> popularity_lift([["a", "b"]], [{"b", "c"}], {"a": 8, "b": 4, "c": 2})  # 6 to 3
    1.0
    """
    places, number = _places(recommended), _popularity(popularity)
    if len(met) != len(places):
        raise ValueError(f"recommended has {len(places)} rows, met has {len(met)}")
    shown, before = [], []
    for row, (place, collection) in enumerate(zip(places, met, strict=True)):
        items, own = [item for item in place if item is not None], _as_set(collection, "met", row)
        if items and own:
            shown.append(np.mean([number.get(item, 0.0) for item in items]))
            before.append(np.mean([number.get(item, 0.0) for item in own]))
    if not before or np.mean(before) == 0:
        raise ValueError("no user with a list met an item with a popularity, so there is nothing to compare with")
    return float(np.mean(shown) / np.mean(before) - 1)


def _precision(hits: _Bools, n_relevant: _Counts) -> _Floats:
    return np.asarray(hits.sum(axis=1) / hits.shape[1])


def _recall(hits: _Bools, n_relevant: _Counts) -> _Floats:
    return np.asarray(hits.sum(axis=1) / n_relevant)


def _hit_rate(hits: _Bools, n_relevant: _Counts) -> _Floats:
    return np.asarray(hits.any(axis=1), np.float64)


def _mrr(hits: _Bools, n_relevant: _Counts) -> _Floats:
    return np.asarray(hits.any(axis=1) / (hits.argmax(axis=1) + 1))


def _map(hits: _Bools, n_relevant: _Counts) -> _Floats:
    precision = hits.cumsum(axis=1) / np.arange(1, hits.shape[1] + 1)
    return np.asarray((precision * hits).sum(axis=1) / n_relevant)


def _ndcg(hits: _Bools, n_relevant: _Counts) -> _Floats:
    k = hits.shape[1]
    gain = 1 / np.log2(np.arange(2, k + 2))
    return np.asarray(hits @ gain / np.cumsum(gain)[np.minimum(n_relevant, k) - 1])


# of each user, from hits (n, k) in the first k places and the number of relevant items (n,)
OF_HITS: dict[str, Callable[[_Bools, _Counts], _Floats]] = {
    "precision": _precision,
    "recall": _recall,
    "ndcg": _ndcg,
    "mrr": _mrr,
    "map": _map,
    "hit_rate": _hit_rate,
}


def _mean(name: str, recommended: Any, relevant: Sequence[Collection[Any]], k: int) -> float:
    return float(np.mean(OF_HITS[name](*_hits(recommended, relevant, k))))


def _hits(recommended: Any, relevant: Sequence[Collection[Any]], k: int) -> tuple[_Bools, _Counts]:
    """Hits (n, k) among the first k places and number of relevant items (n,), users with none left out."""
    _check_whole(k, "k", "places")
    places = _places(recommended, k)
    if len(relevant) != len(places):
        raise ValueError(f"recommended has {len(places)} rows, relevant has {len(relevant)}")
    hits, n_relevant = [], []
    for row, (shown, collection) in enumerate(zip(places, relevant, strict=True)):
        if wanted := _as_set(collection, "relevant", row):
            hits.append([item is not None and item in wanted for item in shown])
            n_relevant.append(len(wanted))
    if not hits:
        raise ValueError("no user has a relevant item, so there is nothing to average")
    return np.array(hits, dtype=bool), np.array(n_relevant, dtype=np.intp)


def _places(recommended: Any, k: int | None = None) -> list[list[Any]]:
    """What stands in the first k places of each list, or in all; None where nothing does."""
    # as objects: beside text ids NumPy would turn the padding into text too
    lists = recommended if isinstance(recommended, np.ndarray) else np.asarray(recommended, dtype=object)
    if lists.ndim != 2 or lists.shape[1] < (k or 0):
        least = "" if k is None else f" and at least k={k} columns"
        raise ValueError(
            f"recommended must have one row a user{least} (fill short lists up with -1), got shape {lists.shape}"
        )
    places = [[None if item == -1 or pd.isna(item) else item for item in row] for row in lists[:, :k].tolist()]
    for number, row in enumerate(places):
        items = [item for item in row if item is not None]
        if len(set(items)) < len(items):
            raise ValueError(f"recommended[{number}] holds an item twice: {items}")
    return places


def _as_set(collection: Collection[Any], name: str, row: int) -> set[Any]:
    if isinstance(collection, str):
        raise ValueError(f"{name}[{row}] must be a collection of item ids, got the text {collection!r}")
    return set(collection)


def _popularity(popularity: Mapping[Any, float] | pd.Series[Any]) -> dict[Any, float]:
    numbers = dict(popularity.items())
    values = _vector(list(numbers.values()), "popularity")
    if len(values) and values.min() < 0:
        raise ValueError(f"popularity must not be negative, found {values.min():g}")
    return dict(zip(numbers, values.tolist(), strict=True))


def _check_whole(value: Any, name: str, what: str) -> None:
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
        raise ValueError(f"{name} must be a whole number of {what}, at least 1, got {value!r}")


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


def _of_two_classes(
    y_true: npt.ArrayLike, y_prob: npt.ArrayLike, sample_weight: npt.ArrayLike | None
) -> tuple[_Bools, _Floats, _Floats | None]:
    y, p, w = _aligned(y_true, y_prob, sample_weight, "y_prob")
    positive = _positive(y)
    if p.min() < 0 or p.max() > 1:
        raise ValueError(f"y_prob must be probabilities, found values from {p.min():g} to {p.max():g}")
    return positive, p, w


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


def _positive(y: _Floats) -> _Bools:
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
