"""Of ranked lists alone: how much of the catalogue they show, and how well known it is."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from .checks import check_whole, places_of, set_of, vector

__all__ = ["coverage", "novelty", "popularity_lift"]


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
    check_whole(n_items, "n_items", "items")
    found = {item for row in places_of(recommended) for item in row if item is not None}
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
    check_whole(n_users, "n_users", "users")
    met = _popularity(popularity)
    if max(met.values(), default=0) > n_users:
        raise ValueError(f"popularity says {max(met.values()):g} users for an item, more than n_users={n_users}")
    means = [
        np.mean([-np.log2(max(met.get(item, 0.0), 1) / n_users) for item in row if item is not None])
        for row in places_of(recommended)
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
    places, number = places_of(recommended), _popularity(popularity)
    if len(met) != len(places):
        raise ValueError(f"recommended has {len(places)} rows, met has {len(met)}")
    shown, before = [], []
    for row, (place, collection) in enumerate(zip(places, met, strict=True)):
        items, own = [item for item in place if item is not None], set_of(collection, "met", row)
        if items and own:
            shown.append(np.mean([number.get(item, 0.0) for item in items]))
            before.append(np.mean([number.get(item, 0.0) for item in own]))
    if not before or np.mean(before) == 0:
        raise ValueError("no user with a list met an item with a popularity, so there is nothing to compare with")
    return float(np.mean(shown) / np.mean(before) - 1)


def _popularity(popularity: Mapping[Any, float] | pd.Series[Any]) -> dict[Any, float]:
    numbers = dict(popularity.items())
    values = vector(list(numbers.values()), "popularity")
    if len(values) and values.min() < 0:
        raise ValueError(f"popularity must not be negative, found {values.min():g}")
    return dict(zip(numbers, values.tolist(), strict=True))
