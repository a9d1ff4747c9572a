"""Of ranked lists and what was relevant."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .checks import Bools, Floats, check_whole, places_of, set_of

__all__ = [
    "OF_HITS",
    "hit_rate_at_k",
    "map_at_k",
    "mrr_at_k",
    "ndcg_at_k",
    "precision_at_k",
    "recall_at_k",
]

_Counts = npt.NDArray[np.intp]


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

    Arguments, result and errors as of `precision_at_k`.

    Examples
    --------
    >>> recall_at_k([[1, 2, 3, 4], [5, 6, -1, -1]], [{1, 4, 8, 9}, {6}], k=4)  # (2/4 + 1/1) / 2
    0.75
    """
    return _mean("recall", recommended, relevant, k)


def hit_rate_at_k(recommended: Any, relevant: Sequence[Collection[Any]], k: int) -> float:
    """Share of users who have a relevant item in the first `k` places.

    Users without any relevant item are left out of it (trec_eval's success).

    Arguments, result and errors as of `precision_at_k`.

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

    Arguments, result and errors as of `precision_at_k`.

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

    Arguments, result and errors as of `precision_at_k`.

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

    Arguments, result and errors as of `precision_at_k`.

    Examples
    --------
    >>> round(ndcg_at_k([[7, 8, 9]], [{8}], k=3), 4)  # (1 / log2(3)) / (1 / log2(2))
    0.6309
    """
    return _mean("ndcg", recommended, relevant, k)


def _precision(hits: Bools, n_relevant: _Counts) -> Floats:
    return np.asarray(hits.sum(axis=1) / hits.shape[1])


def _recall(hits: Bools, n_relevant: _Counts) -> Floats:
    return np.asarray(hits.sum(axis=1) / n_relevant)


def _hit_rate(hits: Bools, n_relevant: _Counts) -> Floats:
    return np.asarray(hits.any(axis=1), np.float64)


def _mrr(hits: Bools, n_relevant: _Counts) -> Floats:
    return np.asarray(hits.any(axis=1) / (hits.argmax(axis=1) + 1))


def _map(hits: Bools, n_relevant: _Counts) -> Floats:
    precision = hits.cumsum(axis=1) / np.arange(1, hits.shape[1] + 1)
    return np.asarray((precision * hits).sum(axis=1) / n_relevant)


def _ndcg(hits: Bools, n_relevant: _Counts) -> Floats:
    k = hits.shape[1]
    gain = 1 / np.log2(np.arange(2, k + 2))
    return np.asarray(hits @ gain / np.cumsum(gain)[np.minimum(n_relevant, k) - 1])


# of each user, from hits (n, k) in the first k places and the number of relevant items (n,)
OF_HITS: dict[str, Callable[[Bools, _Counts], Floats]] = {
    "precision": _precision,
    "recall": _recall,
    "ndcg": _ndcg,
    "mrr": _mrr,
    "map": _map,
    "hit_rate": _hit_rate,
}


def _mean(name: str, recommended: Any, relevant: Sequence[Collection[Any]], k: int) -> float:
    return float(np.mean(OF_HITS[name](*_hits(recommended, relevant, k))))


def _hits(recommended: Any, relevant: Sequence[Collection[Any]], k: int) -> tuple[Bools, _Counts]:
    """Hits (n, k) among the first k places and number of relevant items (n,), users with none left out."""
    check_whole(k, "k", "places")
    places = places_of(recommended, k)
    if len(relevant) != len(places):
        raise ValueError(f"recommended has {len(places)} rows, relevant has {len(relevant)}")
    hits, n_relevant = [], []
    for row, (shown, collection) in enumerate(zip(places, relevant, strict=True)):
        if wanted := set_of(collection, "relevant", row):
            hits.append([item is not None and item in wanted for item in shown])
            n_relevant.append(len(wanted))
    if not hits:
        raise ValueError("no user has a relevant item, so there is nothing to average")
    return np.array(hits, dtype=bool), np.array(n_relevant, dtype=np.intp)
