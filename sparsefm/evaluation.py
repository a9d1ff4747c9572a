"""How good a model's lists are: all items ranked for each test user, ties at their worst."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from .metrics import OF_HITS
from .validation import check_positive

__all__ = ["evaluate_ranking"]

_BLOCK = 1 << 20  # places asked for at once
_NOTHING = -1  # stands where a list has ended

_Ask = Callable[[Any, int], pd.DataFrame]


def evaluate_ranking(
    model: Any,
    test: pd.DataFrame,
    *,
    k: int | Sequence[int] = 10,
    train: pd.DataFrame | None = None,
    contexts: pd.DataFrame | None = None,
    candidates: pd.DataFrame | None = None,
    user: str = "user_id",
    item: str = "item_id",
) -> pd.DataFrame:
    """Metrics of the first k places of each test user's list, at one k or several.

    A list ranks all items, not the relevant ones among some that were drawn: sampled metrics can put models in another
    order than exact ones do (Krichene and Rendle 2020). Among items with equal scores those that are not relevant stand
    first, so that a model gains nothing from ties.

    Parameters
    ----------
    model : fitted model
        Anything with ``recommend(users, k=k)``, which leaves out what the users have met (FMRanker, Popularity, EASE),
        or, where frames are given, ``recommend(contexts, candidates, user=user, item=item, k=k, exclude=train)`` (all
        models with an encoder). It returns a frame with `user`, `item` and "score".
    test : DataFrame (n_pairs, ...)
        What was relevant: columns `user` and `item`. A pair given twice is one. Items that the model does not know
        count as relevant and never found.
    k : int or sequence of int
        Numbers of places.
    train : DataFrame, optional
        The interactions of the fit. Pairs of `test` that are among them cannot be recommended and are dropped; without
        `train` they count as never found.
    contexts, candidates : DataFrame, optional
        Both or neither: one row for each user, with at least those of `test`, and one row for each item.
    user, item : str
        Columns of the ids.

    Returns
    -------
    DataFrame
        One row for each k, in ascending order. Columns precision, recall, ndcg, mrr, map and hit_rate: means, over the
        n_users users with a relevant item, of what `sparsefm.metrics` defines. With `train` also coverage (of the items
        of `candidates`, or else of `train`), novelty and popularity_lift of the same users' lists, by the number of
        users in `train` who met an item; NaN where no list has an item, or no user with a list is in `train`. Last is
        n_users.

    Raises
    ------
    TypeError
        If the model has no recommend, or something is no DataFrame.
    ValueError
        If test is empty or has no relevant pair left, columns are absent, ids are missing or of another kind than those
        they are compared with, a k is not positive, contexts have no row or several for a user, or the lists are none.

    Examples
    --------
    >>> import pandas as pd
    >>> from sparsefm import Popularity
    >>> train = pd.DataFrame({"user_id": [1, 1, 2, 2, 3], "item_id": ["a", "b", "a", "c", "c"]})
    >>> test = pd.DataFrame({"user_id": [2, 3], "item_id": ["b", "b"]})
    >>> evaluate_ranking(Popularity().fit(train), test, k=[1, 2])["mrr"].tolist()  # 3 gets a, then b
    [0.5, 0.75]
    """
    places = _whole_numbers(k)
    if not callable(getattr(model, "recommend", None)):
        raise TypeError(f"model must have a method recommend, {type(model).__name__} has none")
    if (contexts is None) != (candidates is None):
        raise ValueError("contexts and candidates go together: give both, or neither to recommend by user ids")
    _check_frame(test, "test", (user, item), test)
    for frame, name, columns in (
        (train, "train", (user, item)),
        (contexts, "contexts", (user,)),
        (candidates, "candidates", (item,)),
    ):
        if frame is not None:
            _check_frame(frame, name, columns, test)

    frames = [frame for frame in (candidates, train, test) if frame is not None]
    items = pd.Index(pd.concat([frame[item] for frame in frames]).unique())  # those of the first frame come first
    pairs = _Pairs(pd.Index(test[user].unique()), items, user, item)
    relevant = np.unique(pairs.numbers(test))
    if train is not None:
        relevant = relevant[~np.isin(relevant, pairs.numbers(train))]
        if len(relevant) == 0:
            raise ValueError("all pairs of test are in train: no user has a relevant item that can be recommended")
    of_user, n_relevant = np.unique(relevant // pairs.width, return_counts=True)
    of_train = None if train is None else _OfTrain(train, pairs, frames[0][item].nunique(), places)

    names = [*OF_HITS, *([] if train is None else ["novelty", "shown", "met"])]
    total = {name: np.zeros(len(places)) for name in names}
    count = {name: np.zeros(len(places)) for name in names}
    ask = _by_ids(model) if contexts is None else _by_frames(model, contexts, candidates, train, user, item)
    for rows, shown, hits in _lists(ask, pairs, of_user, relevant, places[-1]):
        n = n_relevant[np.searchsorted(of_user, rows)]
        for number, first in enumerate(places):
            values = {name: of_hits(hits[:, :first], n) for name, of_hits in OF_HITS.items()}
            if of_train is not None:
                values |= of_train.values(rows, shown[:, :first])
            for name, value in values.items():
                total[name][number] += np.nansum(value)
                count[name][number] += np.count_nonzero(~np.isnan(value))
    means = pd.DataFrame(total, index=pd.Index(places, name="k")) / pd.DataFrame(count, index=places)
    result = means[[*OF_HITS]]
    if of_train is not None:
        lift = means["shown"] / means["met"] - 1
        result = result.assign(coverage=of_train.coverage(), novelty=means["novelty"], popularity_lift=lift)
    return result.assign(n_users=len(of_user))


@dataclass
class _Pairs:
    """Test users, items and pairs of them as numbers; all items that no frame named share the last one."""

    users: pd.Index[Any]
    items: pd.Index[Any]
    user: str
    item: str

    @property
    def width(self) -> int:
        return len(self.items) + 1

    def of_items(self, ids: pd.Series[Any]) -> NDArray[np.int64]:
        found = self.items.get_indexer(pd.Index(ids)).astype(np.int64)
        return np.where(found < 0, len(self.items), found)

    def numbers(self, frame: pd.DataFrame) -> NDArray[np.int64]:
        """Those of the pairs in a frame whose user is one of these."""
        users = self.users.get_indexer(pd.Index(frame[self.user])).astype(np.int64)
        return (users * self.width + self.of_items(frame[self.item]))[users >= 0]


class _OfTrain:
    """What the lists are beside what was met in training: by how many users each item was, and what each user met."""

    def __init__(self, train: pd.DataFrame, pairs: _Pairs, n_catalogue: int, places: list[int]) -> None:
        met = train[[pairs.user, pairs.item]].drop_duplicates()
        popularity = np.bincount(pairs.of_items(met[pairs.item]), minlength=pairs.width)
        self._popularity = popularity.astype(np.float64)
        self._bits = -np.log2(np.maximum(popularity, 1) / met[pairs.user].nunique())
        own, of_own = np.divmod(pairs.numbers(met), pairs.width)
        n_users = len(pairs.users)
        with np.errstate(invalid="ignore"):  # who met nothing has no mean
            self._met = np.bincount(own, self._popularity[of_own], n_users) / np.bincount(own, minlength=n_users)
        self._n_catalogue = n_catalogue
        self._occurs = {first: np.zeros(pairs.width, bool) for first in places}

    def values(self, rows: NDArray[np.int64], shown: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
        """Of the users in these rows, NaN for those who do not enter the mean."""
        listed = shown != _NOTHING
        self._occurs[shown.shape[1]][shown[listed]] = True
        with np.errstate(invalid="ignore"):  # an empty list has no mean
            bits, popularity = (
                np.where(listed, of_items[shown], 0).sum(axis=1) / listed.sum(axis=1)
                for of_items in (self._bits, self._popularity)
            )
        met = self._met[rows]
        either = np.isnan(popularity) | np.isnan(met)
        return {"novelty": bits, "shown": np.where(either, np.nan, popularity), "met": np.where(either, np.nan, met)}

    def coverage(self) -> list[float]:
        return [float(occurs[: self._n_catalogue].mean()) for occurs in self._occurs.values()]


def _by_ids(model: Any) -> _Ask:
    return lambda users, n: model.recommend(users, k=n)


def _by_frames(model: Any, contexts: Any, candidates: Any, train: pd.DataFrame | None, user: str, item: str) -> _Ask:
    index = pd.Index(contexts[user])
    if index.has_duplicates:
        raise ValueError(
            f"contexts has {user} {index[index.duplicated()][0]!r} more than once: test does not say for which of the "
            "rows a pair is relevant, so give one row a user"
        )

    def ask(users: pd.Index[Any], n: int) -> pd.DataFrame:
        at = index.get_indexer(users)
        if (at < 0).any():
            raise ValueError(f"{int((at < 0).sum())} users of test are not in contexts, such as {users[at < 0][0]!r}")
        met = None if train is None else train.loc[train[user].isin(users), [user, item]]
        found: pd.DataFrame = model.recommend(contexts.iloc[at], candidates, user=user, item=item, k=n, exclude=met)
        return found

    return ask


def _lists(
    ask: _Ask, pairs: _Pairs, rows: NDArray[np.int64], relevant: NDArray[np.int64], k: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]]:
    """Rows of users, some at a time, with their first k items and whether these are relevant; among equal scores such
    items stand last.

    One place more than k shows whether a tie goes on behind the last; if so, the user is asked for again, with longer
    lists, until it ends.
    """
    waiting = [(rows, k + 1)]
    while waiting:
        asked, n = waiting.pop()
        step = max(1, _BLOCK // n)
        for start in range(0, len(asked), step):
            block = asked[start : start + step]
            users = pairs.users[block]
            row, item, score = _answer(ask(users, n), pairs, users)
            hit = np.isin(block[row] * pairs.width + item, relevant)
            order = np.lexsort((hit, -score, row))
            row, item, score, hit = row[order], item[order], score[order], hit[order]
            length = np.bincount(row, minlength=len(block))
            end = np.cumsum(length)
            full = np.flatnonzero(length >= n)
            goes_on = full[score[(end - length)[full] + k - 1] == score[end[full] - 1]]
            if len(goes_on):
                waiting.append((block[goes_on], 4 * n))
            place = np.arange(len(row)) - (end - length)[row]
            at = row[place < k], place[place < k]
            shown, hits = np.full((len(block), k), _NOTHING, np.int64), np.zeros((len(block), k), bool)
            shown[at], hits[at] = item[place < k], hit[place < k]
            ended = np.delete(np.arange(len(block)), goes_on)
            yield block[ended], shown[ended], hits[ended]


def _answer(lists: Any, pairs: _Pairs, users: pd.Index[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64], Any]:
    """Of each place that a model filled the position of its user among these, the number of its item, and its score."""
    user, item = pairs.user, pairs.item
    found = list(lists.columns) if isinstance(lists, pd.DataFrame) else type(lists).__name__
    if not {user, item, "score"} <= set(found):
        raise ValueError(
            f"recommend must return a frame with {user!r}, {item!r} and 'score', got {found}: user= and item= name the "
            "columns of ids"
        )
    if len(lists):
        _check_kind(lists[item], "the model's lists", pairs.items)
    row, score = users.get_indexer(pd.Index(lists[user])), lists["score"].to_numpy(np.float64)
    if (row < 0).any():
        raise ValueError(f"recommend gave a list to {lists[user][row < 0].iloc[0]!r}, which was not asked for")
    if np.isnan(score).any():
        raise ValueError(f"{int(np.isnan(score).sum())} scores of the model's lists are NaN: they have no order")
    twice = lists.duplicated([user, item])
    if twice.any():
        first = lists[twice].iloc[0]
        raise ValueError(f"recommend gave {user} {first[user]!r} the item {first[item]!r} twice")
    return row.astype(np.int64), pairs.of_items(lists[item]), score


def _whole_numbers(k: Any) -> list[int]:
    """In ascending order, each once."""
    values = [k] if np.ndim(k) == 0 else list(k)
    if not values:
        raise ValueError("k is an empty sequence: name at least one number of places")
    for value in values:
        check_positive(value, "k", integer=True)
    return sorted({int(value) for value in values})


def _check_frame(frame: Any, name: str, columns: tuple[str, ...], test: pd.DataFrame) -> None:
    if not isinstance(frame, pd.DataFrame):
        raise TypeError(f"{name} must be a DataFrame, got {type(frame).__name__}")
    if len(frame) == 0:
        raise ValueError(f"{name} has 0 rows: there is nothing to judge by")
    for column in columns:
        if column not in frame.columns:
            raise ValueError(f"{name} has no column {column!r}, only {list(frame.columns)}")
        if frame[column].isna().any():
            raise ValueError(f"{int(frame[column].isna().sum())} values of {column!r} in {name} are missing; drop them")
        _check_kind(frame[column], name, test[column])


def _check_kind(ids: Any, name: str, of_test: Any) -> None:
    if pd.api.types.is_numeric_dtype(ids.dtype) != pd.api.types.is_numeric_dtype(of_test.dtype):
        raise ValueError(f"ids are {ids.dtype} in {name}, {of_test.dtype} in test: none would match")
