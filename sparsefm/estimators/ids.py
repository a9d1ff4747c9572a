"""Interactions in, lists by id out: for models that keep what they know of the users and items of their fit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from ..encoders.tables import is_frame
from ..recommend import top_k
from ..validation import check_csr, check_positive
from .sides import as_frame, check_pairs, kind_of

__all__ = ["ByIds", "places_of"]

_BLOCK = 1 << 24  # numbers of users' vectors held at once


class ByIds(BaseEstimator):  # type: ignore[misc]
    """What a fit to interactions takes, what answers by id are made of, and the answers.

    A fit takes the frame of `_frame_of`, whose ids `_check_ids` found whole. It calls `_know` with the ids (pandas
    arrays; of users None where an id does not say which context) and what was met (n_users, n_items), and sets
    `_items`, scores and vectors of all items; `_side_of` is of users. Users that the fit did not see get the items that
    most users met, with their number as the score.
    """

    user: str
    item: str
    n_threads: int | None
    user_ids_: Any
    item_ids_: Any
    seen_: Any
    _tables: list[Any]
    _counts: NDArray[np.float64]
    _items: tuple[NDArray[Any], NDArray[Any]]

    def _check_names(self) -> None:
        if not (isinstance(self.user, str) and isinstance(self.item, str)) or self.user == self.item:
            raise ValueError(f"user and item must be the names of two columns, got {self.user!r} and {self.item!r}")

    def _frame_of(self, X: Any, users: Any = None, items: Any = None) -> tuple[pd.DataFrame, Any, Any]:
        """What a fit takes, as a frame; users and items of a matrix are all its rows and columns, if not given."""
        if sp.issparse(X):
            rows = check_csr(X)
            met = rows.matrix().tocoo()
            X = pd.DataFrame({self.user: met.coords[0], self.item: met.coords[1], "weight": met.data})
            users = pd.DataFrame({self.user: np.arange(rows.n_rows)}) if users is None else users
            items = pd.DataFrame({self.item: np.arange(rows.n_features)}) if items is None else items
        if not isinstance(X, pd.DataFrame):
            if not is_frame(X):
                raise TypeError(f"X must be a DataFrame of interactions or a sparse matrix, got {type(X).__name__}")
            X = X.to_pandas()
        if len(X) == 0:
            raise ValueError("X has 0 rows: there is nothing to fit")
        return X, users, items

    def _check_ids(self, X: pd.DataFrame) -> None:
        """That every row of X says who met what."""
        if X.columns.nlevels > 1:
            raise ValueError(f"X must have plain column names, got pairs or longer such as {X.columns[0]!r}")
        for column in (self.user, self.item):
            if column not in X.columns:
                raise ValueError(f"X has no column {column!r}, only {list(X.columns)}")
            if X[column].isna().any():
                raise ValueError(f"{int(X[column].isna().sum())} values of {column!r} are missing; drop these rows")

    def _know(self, users: Any, items: Any, seen: Any) -> None:
        """Keeps the ids and what was met; and tables of the ids, which pandas would make as they are first asked for,
        by several threads perhaps."""
        self.user_ids_, self.item_ids_, self.seen_ = users, items, seen
        self._counts = np.bincount(seen.indices, minlength=seen.shape[1]).astype(np.float64)
        self._tables = [None if ids is None else pd.Index(ids) for ids in (users, items)]
        for table in self._tables:
            if table is not None:
                table.get_indexer(table[:1])

    def _side_of(self, places: NDArray[np.int64]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Scores and vectors of these rows of users."""
        raise NotImplementedError

    def _popularity(self, items: NDArray[np.int64]) -> NDArray[np.float64]:
        """The number of users who met each of these items."""
        return self._counts[items]

    def _lists(self, users: Any, k: int, items: Any, exclude_seen: bool) -> pd.DataFrame:
        """The k best for each of these ids among `items`: all of the fit, a sequence for all, or pairs in a frame."""
        check_is_fitted(self)
        check_positive(k, "k", integer=True)
        places = self._of_users(users)
        users = pd.Series(index_of(users, self.user))
        if isinstance(items, pd.DataFrame):
            return self._lists_of_pairs(users, places, items, k, exclude_seen)
        shown = np.arange(len(self.item_ids_)) if items is None else self._of_items(items)
        shown.sort()
        own = self._items if items is None else (self._items[0][shown], self._items[1][shown])
        step, k = max(1, _BLOCK // max(1, own[1].shape[1])), max(1, min(k, len(shown)))
        ids, scores = np.empty((len(places), k), np.int64), np.empty((len(places), k))
        known, unknown = np.flatnonzero(places >= 0), places < 0
        if unknown.any():
            popularity, none = self._popularity(shown), np.zeros((len(shown), 1))
            ids[unknown], scores[unknown] = (
                top_k((none[:1, 0], none[:1]), (popularity, none), k) if len(shown) else (-1, 0)
            )
        for start in range(0, len(known), step):
            block = known[start : start + step]
            seen = None
            if exclude_seen:
                seen = self.seen_[places[block]]
                seen = seen if items is None else seen[:, shown]
            ids[block], scores[block] = top_k(
                self._side_of(places[block]), own, k, exclude=seen, n_threads=self.n_threads
            )
        return as_frame(ids, scores, users, pd.Series(self.item_ids_.take(shown)), self.user, self.item)

    def _lists_of_pairs(
        self, users: pd.Series[Any], places: NDArray[np.int64], pairs: pd.DataFrame, k: int, exclude_seen: bool
    ) -> pd.DataFrame:
        """The same from each user's own candidates, whose pairs alone are scored."""
        check_pairs(pairs, "items", self.user, self.item)
        if users.duplicated().any():
            raise ValueError(f"user {users[users.duplicated()].iloc[0]!r} is asked for twice")
        row = np.asarray(places_of(users.array, pairs[self.user], self.user))
        item = self._of_items(pairs[self.item].drop_duplicates().array)
        item = item[pd.factorize(pairs[self.item])[0]]
        keep = (row >= 0) & ~pd.DataFrame({"row": row, "item": item}).duplicated().to_numpy()
        if exclude_seen:
            met = self.seen_[places[places >= 0]].tocoo().coords
            asked = np.flatnonzero(places >= 0)[met[0]]
            keep &= ~np.isin(row * len(self.item_ids_) + item, asked * len(self.item_ids_) + met[1])
        row, item = row[keep], item[keep]
        order = np.lexsort((item, row))
        row, item = row[order], item[order]
        scores, known = self._popularity(item), np.flatnonzero(places[row] >= 0)
        step = max(1, _BLOCK // max(1, self._items[1].shape[1]))
        for start in range(0, len(known), step):
            block = known[start : start + step]
            of_user, p = self._side_of(places[row[block]])
            bias, q = (side[item[block]] for side in self._items)
            scores[block] = of_user + np.einsum("ij,ij->i", p, q, dtype=np.float64) + bias
        order = np.lexsort((item, -scores, row))
        row, item, scores = row[order], item[order], scores[order]
        place = np.arange(len(row)) - np.searchsorted(row, row)
        best = place < k
        return pd.DataFrame(
            {
                self.user: users.array.take(row[best]),
                self.item: self.item_ids_.take(item[best]),
                "rank": place[best] + 1,
                "score": scores[best],
            }
        )

    def _of_users(self, ids: Any) -> NDArray[np.int64]:
        """The context row of each id, −1 for one that the fit did not see."""
        if self.user_ids_ is None:
            raise ValueError(
                "users have more than one context here, so that an id does not say which: give recommend a frame of "
                "contexts and one of candidates"
            )
        if isinstance(ids, (str, bytes)) or np.ndim(ids) != 1:
            raise TypeError(f"give a sequence of user ids, or two frames; got {type(ids).__name__}")
        return np.asarray(places_of(self._tables[0], ids, self.user), np.int64)

    def _of_items(self, ids: Any) -> NDArray[np.int64]:
        """The row of each item, which must be one of the fit's, once."""
        if isinstance(ids, (str, bytes)) or np.ndim(ids) != 1:
            raise TypeError(f"items must be a sequence of item ids, got {type(ids).__name__}")
        places = np.asarray(places_of(self._tables[1], ids, self.item), np.int64)
        if (places < 0).any():
            raise ValueError(
                f"item {np.asarray(ids, object)[places < 0][0]!r} was not in the fit: give a frame of candidates with "
                "what is known of it"
            )
        if len(np.unique(places)) < len(places):
            twice = pd.Series(places).duplicated()
            raise ValueError(f"items names {np.asarray(ids, object)[twice][0]!r} more than once")
        return places


def index_of(ids: Any, column: str) -> Any:
    dtype = getattr(ids, "dtype", None)
    if isinstance(ids, pd.MultiIndex) or (isinstance(dtype, np.dtype) and dtype.kind == "V"):
        raise TypeError(f"ids of {column} must be single values, got several in one, such as {ids[0]!r}")
    return pd.Index(np.asarray(ids, np.float64) if dtype == np.float16 else ids)  # pandas has no index of float16


def places_of(known: Any, ids: Any, column: str) -> NDArray[np.intp]:
    """Where the ids are among those known, −1 where they are not."""
    index, asked = pd.Index(known), index_of(ids, column)
    kinds = {kind_of(index), kind_of(asked)} - {""}
    if len(asked) and len(kinds) > 1:
        raise ValueError(f"ids of {column} are {index.dtype} in the fit, {asked.dtype} here: no id would match")
    if index.dtype.kind in "iu" and asked.dtype.kind == "f" and (np.abs(asked) >= 2**53).any():
        raise ValueError(
            f"ids of {column} are {index.dtype} in the fit and {asked.dtype} here, which cannot tell numbers from 2^53 "
            "on apart: give integers, without missing ones among them"
        )
    found: NDArray[np.intp] = index.get_indexer(asked)
    return found
