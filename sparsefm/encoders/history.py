"""The other items of a row's user, or the other users of its item: `History` and its fitted column."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import KW_ONLY, dataclass
from itertools import compress
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
from pandas.api import types
from scipy.sparse import csr_array

from .field import (
    Block,
    Column,
    Frame,
    Ints,
    State,
    _array,
    _check_choice,
    _check_integer,
    _entry,
    _expect_keys,
    _share,
    _short,
)
from .vocabulary import Level, Vocabulary, _factorize

_BATCH = 1 << 20  # entries made at a time: the working arrays stay small beside the output
_LONGEST = np.iinfo(np.int32).max
_TINY = float(np.finfo(np.float32).tiny)
_KINDS = {"number": "numbers", "naive": "datetimes without a time zone", "aware": "datetimes with a time zone"}


@dataclass(frozen=True)
class History:
    """What else the row's user has seen: an entry for every other item that the fitted rows pair with it.

    In the row of (u, i) these are the items j ≠ i that occur together with u among the fitted rows: the
    implicit feedback of SVD++ (Koren, Factorization Meets the Neighborhood, KDD 2008), which libFM calls an
    implicit relation (Rendle 2012). ``History("item_id", "user_id")`` is the mirror image, the item's other
    users; below, users are the values of `by` and items those of `of`. A pair that occurs several times
    counts once. The row's own pair has no entry, in fit as in transform: only rows that were fitted could have
    one, and the model would learn to rely on it (`own` says otherwise; priors that are learned, as with
    solver="mcmc", keep it harmless).

    Parameters
    ----------
    by, of : str
        The input columns: whose history, and a history of what.
    last : int or None
        Only the `last` latest entries of each row: latest by time with `before`, else by the order of the
        fitted rows. A pair stands where it first occurred; of equal times, the later row is the later.
    decay : float in (0, 1] or None
        The entry r places back from the latest weighs ``decay**r`` before the row is scaled to length 1.
        Entries whose ``decay**r`` is below 1.2e-38, the smallest normal float32, are left out.
    weight : {"sqrt", "sym"}
        "sqrt": each of a row's n entries is 1/√n, so that every row has length 1. "sym": 1/√(n·d), d the
        number of fitted users of the entry's item (the normalisation of LightGCN; He et al., SIGIR 2020).
    before : str or None
        A column of times, numbers or datetimes: only pairs that first occurred strictly before the row's
        own time count. A row without a time is a ValueError. Whole numbers are compared as int64, datetimes
        as nanoseconds in UTC, which span the years 1678 to 2261.
    min_count : int
        Items with fewer fitted users have no column and count nowhere.
    own : bool
        Whether a row's own pair has its entry too, as in SVD++: in the rows that were fitted, and where `transform`
        meets their pairs again. Then (without `before`) all rows of a user have the same entries, and solver="mcmc"
        and "als" keep and work on them once a user, at a small part of the cost.

    Notes
    -----
    There is one column for each item, in order of first appearance, and none for the unknown or missing. A
    row whose user is unknown (in no fitted pair) or missing is empty; an unknown or missing item leaves
    nothing out, nor does an input without the column `of`. The output holds rows x history entries: on tens
    of millions of rows set `last`. `inverse_transform` gives lists of items in the order of the columns,
    which is not the row it came from.

    Examples
    --------
    >>> import pandas as pd
    >>> from sparsefm.encoders import FrameEncoder, History
    >>> ratings = pd.DataFrame({"user_id": ["ann", "ann", "ann", "bob"], "item_id": ["Up", "Jaws", "Heat", "Up"]})
    >>> encoder = FrameEncoder({"seen": History()})
    >>> encoder.inverse_transform(encoder.fit_transform(ratings))["seen"].tolist()  # bob has seen no other film
    [['Jaws', 'Heat'], ['Up', 'Heat'], ['Up', 'Jaws'], []]
    """

    by: str = "user_id"
    of: str = "item_id"
    _: KW_ONLY
    last: int | None = None
    decay: float | None = None
    weight: Literal["sqrt", "sym"] = "sqrt"
    before: str | None = None
    min_count: int = 1
    own: bool = False

    def _check(self, column: str) -> None:
        named = {"by": self.by, "of": self.of} | ({} if self.before is None else {"before": self.before})
        for option, value in named.items():
            if not isinstance(value, str):
                raise ValueError(f"column {column!r}: {option} must be the name of a column, got {_short(value)}")
        if len(set(named.values())) < len(named):
            raise ValueError(f"column {column!r}: {' and '.join(named)} must be different columns, got {named}")
        for option, limit in (("min_count", self.min_count), ("last", 1 if self.last is None else self.last)):
            _check_integer(column, option, limit, 1)
        _check_choice(column, "weight", self.weight, ("sqrt", "sym"))
        if not isinstance(self.own, bool):
            raise ValueError(f"column {column!r}: own must be True or False, got {_short(self.own)}")
        if self.decay is not None:
            if not isinstance(self.decay, (int, float)) or isinstance(self.decay, bool) or not 0 < self.decay <= 1:
                raise ValueError(f"column {column!r}: decay must be above 0 and at most 1, got {_short(self.decay)}")
            if self.weight != "sqrt":
                raise ValueError(f"column {column!r}: decay goes with weight='sqrt' only, got {self.weight!r}")


class _Cells(NamedTuple):
    """What was read: the distinct levels of both columns and for each row the number of its own, -1 if missing."""

    by: Ints
    by_levels: list[Level]
    of: Ints | None  # None: the frame has no such column
    of_levels: list[Level]
    kind: str  # of the times, "" if there are none
    times: npt.NDArray[Any] | None  # (n_rows,) int64, or float64 if some have fractions


class _History(Column):
    """A fitted `History`: the distinct pairs, and an index of those whose item has a column.

    The index knows for each pair its key, user * size + column, and its *place* in the user's history, 0 for
    the earliest. Whole histories are laid out in the order of keys, so that rows come out sorted; where only
    the latest entries are wanted the layout follows the places, so that no others are looked at.
    """

    encoder: History

    def __init__(self, name: str, encoder: History) -> None:
        super().__init__(name, encoder)
        self.by, self.of = Vocabulary(), Vocabulary()
        self.columns = np.empty(0, np.int64)  # (size,) the item of each column
        # the distinct pairs in order of first appearance, and behind them those counted since the last settle
        self.users, self.items = np.empty(0, np.int64), np.empty(0, np.int64)
        self.kind = ""
        self.times: npt.NDArray[Any] | None = None if encoder.before is None else np.empty(0, np.int64)
        self._n_settled = -1
        limits = [] if encoder.last is None else [int(encoder.last)]
        if encoder.decay is not None and encoder.decay < 1:
            limits.append(int(math.log(_TINY) / math.log(encoder.decay)) + 1)
        self.reach = min(*limits, _LONGEST) if limits else None  # the most entries a row can have

    @property
    def sources(self) -> tuple[str, ...]:
        return (self.encoder.by, self.encoder.of, *self.essential[1:])

    @property
    def essential(self) -> tuple[str, ...]:
        return (self.encoder.by,) if self.encoder.before is None else (self.encoder.by, self.encoder.before)

    @property
    def entity(self) -> str | None:
        return self.encoder.by if self.encoder.own and self.encoder.before is None else None

    def read(self, frame: Frame) -> _Cells:
        by, of, before = self.encoder.by, self.encoder.of, self.encoder.before
        users, user_levels = _read_ids(frame[by], by)
        items, item_levels = _read_ids(frame[of], of) if of in frame else (None, [])
        kind, times = ("", None) if before is None else _read_times(frame[before], before)
        if before is not None and self.kind not in ("", kind):
            raise TypeError(f"column {before!r} held {_KINDS[self.kind]} in fit, now {_KINDS[kind]}; convert it")
        return _Cells(users, user_levels, items, item_levels, kind, times)

    def check(self, cells: _Cells, y: npt.NDArray[Any] | None) -> None:
        if cells.of is None:
            raise ValueError(f"column {self.name!r}: fit needs the input column {self.encoder.of!r}")
        if cells.times is not None:
            self._behind(cells.times[(cells.by >= 0) & (cells.of >= 0)])

    def count(self, cells: _Cells, y: npt.NDArray[Any] | None) -> None:
        assert cells.of is not None
        whole = (cells.by >= 0) & (cells.of >= 0)
        if not whole.any():
            return
        times = None if cells.times is None else cells.times[whole]
        users, items, times = _distinct(cells.by[whole], cells.of[whole], times)
        if times is not None:
            self.kind, self.times = cells.kind, self._behind(times)
        self.users = np.append(self.users, _admit(self.by, cells.by_levels, users))
        self.items = np.append(self.items, _admit(self.of, cells.of_levels, items))

    def _behind(self, times: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The times counted so far and these, in one dtype."""
        assert self.times is not None
        parts = [part for part in (self.times, times) if len(part)]
        if len({part.dtype for part in parts}) > 1:
            parts = [_floats(part, str(self.encoder.before)) for part in parts]
        return np.concatenate(parts) if parts else self.times

    def settle(self) -> None:
        if len(self.users) == self._n_settled:
            return
        self.users, self.items, self.times = _distinct(self.users, self.items, self.times)
        degrees = np.bincount(self.items, minlength=len(self.of))
        column_of = np.full(len(self.of), -1, np.int64)
        column_of[self.columns] = np.arange(len(self.columns))
        fresh = np.flatnonzero((degrees >= self.encoder.min_count) & (column_of < 0))
        self.columns = np.append(self.columns, fresh)
        column_of[fresh] = np.arange(len(fresh)) + self.size
        self.size, self._n_settled = len(self.columns), len(self.users)
        self._index(column_of, degrees)

    def _index(self, column_of: Ints, degrees: Ints) -> None:
        """Lay out the pairs whose item has a column."""
        self._column_of, self._degrees = np.append(column_of, -1), degrees[self.columns]
        kept = np.flatnonzero(column_of[self.items] >= 0)
        times = None if self.times is None else self.times[kept]
        by_place = kept[
            np.argsort(self.users[kept], kind="stable") if times is None else np.lexsort((times, self.users[kept]))
        ]
        users, columns = self.users[by_place], column_of[self.items[by_place]]
        # the last of these, one beyond the users there are, has no history
        self._starts = np.append(np.searchsorted(users, np.arange(len(self.by) + 1)), len(users))
        places = np.arange(len(users)) - self._starts[users]
        keys = users * self.size + columns
        by_key = np.argsort(keys)
        beyond = np.iinfo(np.int64).max  # a search for what is not there ends here
        self._keys, self._key_places = np.append(keys[by_key], beyond), np.append(places[by_key], 0)
        if self.times is not None:
            self._instants, ranks = np.unique(self.times[by_place], return_inverse=True)
            self._ranks = users * (len(self._instants) + 1) + ranks  # rising, as the layout by place is
        layout = by_key if self.reach is None else slice(None)
        self._columns, self._places = columns[layout].astype(np.int32), places[layout]

    def encode(self, cells: _Cells) -> Block:
        user, *shares = self._users(cells)
        nobody = len(self._starts) - 2  # stands for users of whom no pair is settled
        user[(user < 0) | (user > nobody)] = nobody
        start = self._starts[user]
        end = self._starts[user + 1] - start  # the places below it are in the row
        low, span = start, end  # what to look at, in the layout
        if cells.times is not None:
            end = self._earlier(user, cells.times) - start
        own = self._own(user, cells)
        counts = end - (own < end)
        if self.reach is not None:
            counts = np.minimum(counts, self.reach)
            first = end - counts
            first -= (first <= own) & (own < end)  # one further back makes up for the row's own
            low, span = start + first, end - first
        indices, data = np.empty(counts.sum(), np.int32), np.empty(counts.sum(), np.float32)
        weigh = self._weights(counts, end, own)
        done = 0
        for rows in _batches(span):
            row = np.repeat(np.arange(rows.start, rows.stop), span[rows])
            entry = np.arange(len(row)) + np.repeat(low[rows] - (np.cumsum(span[rows]) - span[rows]), span[rows])
            kept = self._places[entry] != own[row]
            if cells.times is not None:
                kept &= self._places[entry] < end[row]
            row, entry = row[kept], entry[kept]
            if self.reach is not None:
                order = np.argsort(row * self.size + self._columns[entry])
                row, entry = row[order], entry[order]
            made = slice(done, done + len(row))
            indices[made], data[made] = self._columns[entry], weigh(row, entry)
            done = made.stop
        return Block(counts, indices, data, *shares)

    def encode_entities(self, cells: _Cells, example: Ints) -> Block:
        _, unknown, missing = self._users(cells)
        some = self.encode(cells._replace(by=cells.by[example], of=None))
        return some._replace(unknown=unknown, missing=missing)

    def _users(self, cells: _Cells) -> tuple[Ints, float, float]:
        """The number of each row's user, -1 without one, and the shares of rows where it is unknown or missing."""
        user = np.append(self.by.numbers(cells.by_levels), -1)[cells.by]
        return user, _share((user < 0) & (cells.by >= 0)), _share(cells.by < 0)

    def _own(self, user: Ints, cells: _Cells) -> Ints:
        """The place of each row's own pair in its user's history; `size`, which no place reaches, without one, or
        where it stays."""
        if cells.of is None or self.encoder.own:
            return np.full(len(user), self.size)
        item = np.minimum(self.of.numbers(cells.of_levels), len(self._column_of) - 1)
        column = self._column_of[np.append(item, -1)[cells.of]]
        key = user * self.size + column
        at = np.searchsorted(self._keys, key)
        return np.where((column >= 0) & (self._keys[at] == key), self._key_places[at], self.size)

    def _earlier(self, user: Ints, times: npt.NDArray[Any]) -> Ints:
        """Where in the order of users and places the first pair is that is not earlier than the row."""
        if times.dtype != self._instants.dtype:  # a whole number is below a fraction if it is below the next whole one
            whole = self._instants.dtype == np.int64
            times = np.ceil(times).astype(np.int64) if whole else _floats(times, str(self.encoder.before))
        rank = user * (len(self._instants) + 1) + np.searchsorted(self._instants, times)
        return np.searchsorted(self._ranks, rank)

    def _weights(self, counts: Ints, end: Ints, own: Ints) -> Callable[[Ints, Ints], npt.NDArray[np.floating[Any]]]:
        """A function from rows and their entries, as numbers in the layout, to weights."""
        decay = self.encoder.decay
        if decay is not None:
            powers = np.power(float(decay), np.arange(counts.max(initial=0)))
            length = np.sqrt(np.append(1.0, np.cumsum(powers**2)))[counts]  # 1: an empty row has no entries

            def faded(row: Ints, entry: Ints) -> npt.NDArray[np.float64]:
                place, skipped = self._places[entry], own[row]
                back = end[row] - 1 - place - ((place < skipped) & (skipped < end[row]))
                weights: npt.NDArray[np.float64] = powers[back] / length[row]
                return weights

            return faded
        if self.encoder.weight == "sym":
            return lambda row, entry: 1 / np.sqrt(counts[row] * self._degrees[self._columns[entry]])
        weight: npt.NDArray[np.float32] = (1 / np.sqrt(np.maximum(counts, 1))).astype(np.float32)
        return lambda row, entry: weight[row]

    def labels(self, name: str) -> list[str]:
        labels = self.of.labels()
        return [f"{name}={labels[item]}" for item in self.columns]

    def decode(self, X: csr_array) -> pd.Series[Any]:
        """The items of each row, as lists."""
        items = [self.of.levels[item] for item in self.columns[X.indices]]
        rows = zip(X.indptr[:-1].tolist(), X.indptr[1:].tolist(), strict=True)
        return pd.Series([items[a:b] for a, b in rows], dtype=object)

    def to_state(self) -> State:
        settled = slice(self._n_settled)
        arrays = {"users": self.users[settled], "items": self.items[settled], "columns": self.columns}
        if self.times is not None:
            arrays["times"] = self.times[settled]
        meta: dict[str, Any] = {"times": self.kind}
        for prefix, vocabulary in (("by", self.by), ("of", self.of)):
            meta[prefix], own = vocabulary.to_state()
            arrays |= {prefix + key: array for key, array in own.items()}
        return meta, arrays

    @classmethod
    def from_state(cls, name: str, encoder: Any, meta: Any, arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        self = cls(name, encoder)
        _expect_keys(meta, ["by", "of", "times"])
        parts: dict[str, dict[str, npt.NDArray[Any]]] = {"by": {}, "of": {}, "": {}}
        for key, array in arrays.items():
            prefix = key[:2] if key[:2] in parts else ""
            parts[prefix][key[len(prefix) :]] = array
        self.by, self.of = (Vocabulary.from_state(_entry(meta, part, dict), parts[part]) for part in ("by", "of"))
        _expect_keys(parts[""], ["users", "items", "columns"] + ["times"] * (encoder.before is not None))
        users, items, columns = (_array(arrays, key, np.int64) for key in ("users", "items", "columns"))
        for key, numbers, limit in (
            ("users", users, len(self.by)),
            ("items", items, len(self.of)),
            ("columns", columns, len(self.of)),
        ):
            if (numbers < 0).any() or (numbers >= limit).any():
                raise ValueError(f"column {name!r}: array {key!r} must hold numbers from 0 to below {limit}")
        self.kind = _entry(meta, "times", str)
        timed = encoder.before is not None and len(users) > 0
        if self.kind not in (_KINDS if timed else [""]):
            raise ValueError(f"column {name!r}: times of kind {_short(self.kind)} do not go with {encoder}")
        if encoder.before is not None:
            self.times = _checked_times(name, self.kind, parts[""]["times"])
        n_pairs = len(users)
        if len(items) != n_pairs or (self.times is not None and len(self.times) != n_pairs):
            raise ValueError(f"column {name!r}: each of the {n_pairs} users needs one item and, with before, one time")
        self.users, self.items, self.columns, self.size = users, items, columns, len(columns)
        frequent = np.flatnonzero(np.bincount(items, minlength=len(self.of)) >= encoder.min_count)
        if not np.array_equal(np.sort(columns), frequent):
            raise ValueError(f"column {name!r}: the columns are not the items with {encoder.min_count} users or more")
        self.settle()
        if len(self.users) != n_pairs:
            raise ValueError(f"column {name!r}: a pair of user and item is repeated")
        return self


def _read_ids(cells: pd.Series[Any], column: str) -> tuple[Ints, list[Level]]:
    codes, levels = _factorize(cells, column)
    if any(isinstance(level, pd.Timestamp) for level in levels):
        raise TypeError(f"column {column!r}: History needs ids, got datetimes; make them text with .astype(str)")
    return codes, levels


def _read_times(cells: pd.Series[Any], column: str) -> tuple[str, npt.NDArray[Any]]:
    """The kind of the times and their values: int64, or float64 where some numbers have fractions."""
    missing = int(cells.isna().sum())
    if missing:
        raise ValueError(f"column {column!r}: {missing} row(s) without a time, which History(before=...) needs")
    if isinstance(cells.dtype, pd.CategoricalDtype):
        cells = cells.astype(cells.cat.categories.dtype)
    cells = cells.infer_objects()
    if cells.dtype.kind == "M":
        try:
            stamps = pd.to_datetime(cells, utc=True).dt.as_unit("ns")
        except pd.errors.OutOfBoundsDatetime:
            raise ValueError(f"column {column!r}: datetimes must lie in the years 1678 to 2261") from None
        return "naive" if cells.dt.tz is None else "aware", stamps.to_numpy(dtype="M8[ns]").view(np.int64)
    if cells.dtype.kind not in "iuf":
        hint = "; pd.to_datetime reads text" if types.infer_dtype(cells) == "string" else ""
        raise TypeError(f"column {column!r}: times must be numbers or datetimes, got {cells.dtype} cells{hint}")
    if cells.dtype.kind != "f":
        if int(cells.max() if len(cells) else 0) >= 2**63:
            raise ValueError(f"column {column!r}: times must be below 2**63, got {cells.max()}")
        return "number", cells.to_numpy(dtype=np.int64)
    times = cells.to_numpy(dtype=np.float64)
    if not (np.abs(times) < 2.0**63).all():
        raise ValueError(f"column {column!r}: times must be finite and below 2**63 in size")
    whole = bool((times == np.floor(times)).all())
    return "number", times.astype(np.int64) if whole else times


def _checked_times(name: str, kind: str, times: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The times of a state: nothing missing, no integers in the guise of floats."""
    fractions = kind == "number" and isinstance(times, np.ndarray) and times.dtype == np.float64
    times = _array({"times": times}, "times", np.float64 if fractions else np.int64)
    missing = fractions and not (np.abs(times) < 2.0**63).all()
    if missing or (kind != "number" and (times == np.iinfo(np.int64).min).any()):
        raise ValueError(f"column {name!r}: array 'times' must hold finite times, below 2**63 in size")
    return times


def _floats(times: npt.NDArray[Any], column: str) -> npt.NDArray[np.float64]:
    """The same times as float64, to stand beside fractions."""
    values = times.astype(np.float64)
    if (times.dtype == np.int64 and (values >= 2.0**63).any()) or (values.astype(times.dtype) != times).any():
        raise ValueError(
            f"column {column!r} holds fractions and whole numbers that float64 cannot hold, so they cannot be "
            "compared exactly; use whole numbers of a smaller unit throughout"
        )
    return values


def _distinct(users: Ints, items: Ints, times: npt.NDArray[Any] | None) -> tuple[Ints, Ints, npt.NDArray[Any] | None]:
    """Each pair once, in order of first appearance, with its earliest time."""
    n_items = int(items.max(initial=0)) + 1
    codes, keys = pd.factorize(users * n_items + items)
    if times is not None:
        times = pd.Series(times).groupby(codes).min().to_numpy()
        times = times.astype(np.int64) if (times == np.floor(times)).all() else times  # whatever was left out
    return keys // n_items, keys % n_items, times


def _admit(vocabulary: Vocabulary, levels: list[Level], codes: Ints) -> Ints:
    """The numbers in the vocabulary of these levels, given by code; it takes in those it does not have."""
    present = pd.unique(codes)
    found = [levels[code] for code in present]
    fresh = vocabulary.numbers(found) < 0
    vocabulary.extend(compress(found, fresh))
    numbers = np.empty(len(levels), np.int64)
    numbers[present] = vocabulary.numbers(found)
    return numbers[codes]


def _batches(sizes: Ints) -> Iterator[slice]:
    """Runs of rows whose sizes amount to `_BATCH`, or single rows larger than that."""
    ends = np.cumsum(sizes)
    start = 0
    while start < len(sizes):
        stop = max(start + 1, int(np.searchsorted(ends, (ends[start - 1] if start else 0) + _BATCH, "right")))
        yield slice(start, stop)
        start = stop
