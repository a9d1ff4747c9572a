"""Cells cut into parts that are few: `Binned` numbers, `Hashed` levels, `Date`s by year, month, weekday, hour."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from hashlib import blake2b
from itertools import pairwise
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
from pandas.api import types
from scipy.sparse import csr_array

from .field import (
    MISSING,
    UNKNOWN,
    Block,
    Column,
    Frame,
    Ints,
    State,
    _array,
    _check_choice,
    _check_integer,
    _expect_keys,
    _share,
    _short,
)
from .numeric import _read_numbers
from .vocabulary import Level, Vocabulary, _factorize

# the attribute of a DatetimeIndex that holds a part, its first value and how many there are
_CLOSED = {
    "quarter": ("quarter", 1, 4),
    "month": ("month", 1, 12),
    "day": ("day", 1, 31),
    "weekday": ("day_of_week", 0, 7),
    "hour": ("hour", 0, 24),
}
_WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


@dataclass(frozen=True)
class Binned:
    """A number by the interval it falls into: a 1 in the column of that bin.

    Parameters
    ----------
    n_bins : int from 2 to 65536
        At most that many bins, with equally many training values in each as far as equal values allow: inner
        edge k is the value at place k * n // n_bins (counted from 0) of the n training values in order.
        Edges that are equal or have no value below them collapse.
    edges : sequence of float or None
        The inner edges, rising and finite, instead of quantiles; `n_bins` then means nothing.
    missing : {"own", "ignore", "error"}
        None, NaN or pandas.NA: a column of their own; no entry; ValueError.

    Notes
    -----
    Bins are closed on the left: with edges 20 and 30 they are (-inf, 20), [20, 30) and [30, inf). Numbers are
    compared as float64. Infinite values are a ValueError, text is a TypeError. The edges are those of the
    first fit for good, and there is a single bin if the first fit saw no value.
    `inverse_transform` gives the text of the interval.

    Examples
    --------
    >>> import pandas as pd
    >>> from sparsefm.encoders import Binned, FrameEncoder
    >>> encoder = FrameEncoder({"age": Binned(edges=(18, 65))}).fit(pd.DataFrame({"age": [20.0, 70.0]}))
    >>> encoder.get_feature_names_out().tolist()
    ['age=<missing>', 'age=(-inf, 18)', 'age=[18, 65)', 'age=[65, inf)']
    """

    n_bins: int = 10
    _: KW_ONLY
    edges: tuple[float, ...] | None = None
    missing: Literal["own", "ignore", "error"] = "own"

    def __post_init__(self) -> None:
        if self.edges is not None and not isinstance(self.edges, str):
            try:
                object.__setattr__(self, "edges", tuple(float(edge) for edge in self.edges))
            except (TypeError, ValueError, OverflowError):
                return  # `_check` will say so, with the name of the column

    def _check(self, column: str) -> None:
        _check_integer(column, "n_bins", self.n_bins, 2, 2**16)
        _check_choice(column, "missing", self.missing, ("own", "ignore", "error"))
        edges = self.edges
        if edges is not None and not (
            isinstance(edges, tuple)
            and len(edges) > 0
            and all(isinstance(edge, float) and math.isfinite(edge) for edge in edges)
            and all(low < high for low, high in pairwise(edges))
        ):
            raise ValueError(f"column {column!r}: edges must be finite numbers that rise, got {_short(edges)}")


@dataclass(frozen=True)
class Hashed:
    """A level by the hash of its text: a 1 in one of ``2**n_bits`` columns, without a vocabulary.

    Nothing is learned, no level is unknown, and a level has the same column in every run, on every machine and
    in every version: the first 8 bytes of its hash, ``hashlib.blake2b(text, digest_size=8)`` of the UTF-8
    text, read as a little-endian number modulo ``2**n_bits``. Levels that fall on one column are one to the
    model (Weinberger et al., Feature Hashing for Large Scale Multitask Learning, ICML 2009).

    Parameters
    ----------
    n_bits : int from 1 to 24
    missing : {"own", "ignore", "error"}
        None, NaN, NaT or pandas.NA: a column of their own; no entry; ValueError.

    Notes
    -----
    The text of a number is Python's shortest, of an integral one that of the integer, so 1, 1.0 and "1" share
    a column; booleans are "True" and "False", datetimes in ISO 8601, in UTC if they have a time zone. Columns
    are named "#0", "#1", ...; `inverse_transform` leaves the field out, for no way leads back.

    Examples
    --------
    >>> import pandas as pd
    >>> from sparsefm.encoders import FrameEncoder, Hashed
    >>> encoder = FrameEncoder({"ad": Hashed(4)})
    >>> encoder.fit_transform(pd.DataFrame({"ad": ["x", 1, "1", 1.0]})).indices.tolist()  # 1, 1.0 and "1" hash alike
    [11, 7, 7, 7]
    """

    n_bits: int = 18
    _: KW_ONLY
    missing: Literal["own", "ignore", "error"] = "own"

    def _check(self, column: str) -> None:
        _check_integer(column, "n_bits", self.n_bits, 1, 24)
        _check_choice(column, "missing", self.missing, ("own", "ignore", "error"))


@dataclass(frozen=True)
class Date:
    """A datetime by its parts: one entry for each, so that what recurs can be learned.

    Parameters
    ----------
    parts : sequence of "year", "quarter", "month", "day", "weekday", "hour"
        All but the year have their fixed columns, whether training saw them or not. The years of the training
        data are levels; the others share the column <unknown>.
    missing : {"own", "ignore", "error"}
        None or NaT: a column of their own; no entry; ValueError.

    Notes
    -----
    Each of the n entries is 1/√n, so that every row has length 1. Parts are those of the column's own time
    zone: a column in UTC has the hours of UTC; ``dt.tz_convert`` makes them local. Text and numbers are a
    TypeError: ``pd.to_datetime`` reads them. `inverse_transform` leaves the field out.

    Examples
    --------
    >>> import pandas as pd
    >>> from sparsefm.encoders import Date, FrameEncoder
    >>> frame = pd.DataFrame({"when": pd.to_datetime(["2024-02-29 13:00"])})
    >>> encoder = FrameEncoder({"when": Date(("month", "hour"))})
    >>> encoder.fit_transform(frame).indices.tolist()
    [2, 26]
    """

    parts: tuple[str, ...] = ("year", "month", "weekday", "hour")
    _: KW_ONLY
    missing: Literal["own", "ignore", "error"] = "own"

    def __post_init__(self) -> None:
        if isinstance(self.parts, list):
            object.__setattr__(self, "parts", tuple(self.parts))

    def _check(self, column: str) -> None:
        _check_choice(column, "missing", self.missing, ("own", "ignore", "error"))
        known = ["year", *_CLOSED]
        if (
            not isinstance(self.parts, tuple)
            or len(self.parts) == 0
            or any(part not in known for part in self.parts)
            or len(set(self.parts)) < len(self.parts)
        ):
            raise ValueError(f"column {column!r}: parts must be some of {known}, each once, got {_short(self.parts)}")


class _Binned(Column):
    """A fitted `Binned`: its edges, and before the first settle the distinct values and how often each came."""

    encoder: Binned

    def __init__(self, name: str, encoder: Binned) -> None:
        super().__init__(name, encoder)
        self.special = [MISSING] * (encoder.missing == "own")
        self.edges = np.array(encoder.edges or (), np.float64)
        self.values, self.counts = np.empty(0, np.float64), np.empty(0, np.int64)

    def read(self, frame: Frame) -> npt.NDArray[np.float64]:
        values = _read_numbers(frame[self.name], self.name)
        _refuse_missing(self, np.isnan(values))
        return values

    def count(self, cells: npt.NDArray[np.float64], y: npt.NDArray[Any] | None) -> None:
        if self.size > 0 or self.encoder.edges is not None:
            return
        values, counts = np.unique(cells[~np.isnan(cells)] + 0.0, return_counts=True)  # + 0.0: no minus zero
        self.values, numbers = np.unique(np.append(self.values, values), return_inverse=True)
        counts = np.append(self.counts, counts)
        self.counts = np.zeros(len(self.values), np.int64)
        np.add.at(self.counts, numbers, counts)

    def settle(self) -> None:
        if self.size == 0 and len(self.values):
            ends = np.cumsum(self.counts)
            places = np.arange(1, self.encoder.n_bins) * ends[-1] // self.encoder.n_bins
            edges = np.unique(self.values[np.searchsorted(ends, places, side="right")])
            self.edges = edges[edges > self.values[0]]
        self.values, self.counts = self.values[:0], self.counts[:0]
        self.size = len(self.special) + len(self.edges) + 1

    def encode(self, cells: npt.NDArray[np.float64]) -> Block:
        bins = np.searchsorted(self.edges, cells, side="right") + len(self.special)
        return _one_a_row(bins, np.isnan(cells), self.special)

    def _intervals(self) -> list[str]:
        texts = [
            str(int(edge)) if edge.is_integer() and abs(edge) < 1e16 else repr(edge) for edge in self.edges.tolist()
        ]
        cuts = list(pairwise(["-inf", *texts, "inf"]))
        return [f"{'[' if i else '('}{low}, {high})" for i, (low, high) in enumerate(cuts)]

    def labels(self, name: str) -> list[str]:
        return [f"{name}={label}" for label in self.special + self._intervals()]

    def decode(self, X: csr_array) -> pd.Series[Any]:
        """The text of each row's interval, missing where there is none."""
        counts = np.diff(X.indptr)
        if (counts > 1).any():
            raise ValueError(f"column {self.name!r}: row {int(np.argmax(counts > 1))} is in several bins")
        numbers = np.full(X.shape[0], -1, np.int64)
        numbers[counts == 1] = np.maximum(X.indices.astype(np.int64) - len(self.special), -1)
        return Vocabulary(self._intervals()).take(numbers)

    def to_state(self) -> State:
        return {}, {"edges": self.edges}

    @classmethod
    def from_state(cls, name: str, encoder: Any, meta: Any, arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        _expect_keys(meta, [])
        _expect_keys(arrays, ["edges"])
        self = cls(name, encoder)
        edges = _array(arrays, "edges", np.float64)
        if not np.isfinite(edges).all() or (edges[1:] <= edges[:-1]).any():
            raise ValueError(f"column {name!r}: array 'edges' must hold finite numbers that rise")
        if len(edges) >= encoder.n_bins if encoder.edges is None else not np.array_equal(edges, self.edges):
            raise ValueError(f"column {name!r}: {len(edges)} edges do not go with {_short(encoder)}")
        self.edges = edges
        self.settle()
        return self


class _Codes(NamedTuple):
    """Distinct levels and for each row the number of its own, -1 if missing."""

    codes: Ints
    levels: list[Level]


class _Hashed(Column):
    """A fitted `Hashed`, which is all in its specification."""

    encoder: Hashed

    def __init__(self, name: str, encoder: Hashed) -> None:
        super().__init__(name, encoder)
        self.special = [MISSING] * (encoder.missing == "own")

    def read(self, frame: Frame) -> _Codes:
        cells = _Codes(*_factorize(frame[self.name], self.name))
        _refuse_missing(self, cells.codes < 0)
        return cells

    def count(self, cells: _Codes, y: npt.NDArray[Any] | None) -> None:
        """Nothing is learned."""

    def settle(self) -> None:
        self.size = len(self.special) + 2**self.encoder.n_bits

    def encode(self, cells: _Codes) -> Block:
        hashes = b"".join(blake2b(_text(level), digest_size=8).digest() for level in cells.levels)
        numbers = np.frombuffer(hashes, "<u8") & np.uint64(2**self.encoder.n_bits - 1)
        columns = np.append(numbers.astype(np.int32) + np.int32(len(self.special)), np.int32(-1))
        return _one_a_row(columns[cells.codes], cells.codes < 0, self.special)

    def labels(self, name: str) -> list[str]:
        special = [f"{name}={label}" for label in self.special]
        return special + [f"{name}=#{number}" for number in range(2**self.encoder.n_bits)]

    def decode(self, X: csr_array) -> None:
        return None

    def to_state(self) -> State:
        return {}, {}

    @classmethod
    def from_state(cls, name: str, encoder: Any, meta: Any, arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        _expect_keys(meta, [])
        _expect_keys(arrays, [])
        self = cls(name, encoder)
        self.settle()
        return self


class _Dates(NamedTuple):
    """The datetimes of a column that are there."""

    missing: npt.NDArray[np.bool_]  # (n_rows,)
    parts: dict[str, Ints]  # each (n_present,), counted from 0, but for the year


class _Date(Column):
    """A fitted `Date`: the special columns, the fixed parts in the order given, and the years, which may grow."""

    encoder: Date

    def __init__(self, name: str, encoder: Date) -> None:
        super().__init__(name, encoder)
        self.special = [UNKNOWN] * ("year" in encoder.parts) + [MISSING] * (encoder.missing == "own")
        self.years = Vocabulary()
        self.counted = np.empty(0, np.int64)  # years counted since the last settle

    @property
    def closed(self) -> list[str]:
        return [part for part in self.encoder.parts if part != "year"]

    def read(self, frame: Frame) -> _Dates:
        missing, index = _read_datetimes(frame[self.name], self.name)
        _refuse_missing(self, missing)
        parts = {}
        for part in self.encoder.parts:
            attribute, first, _ = _CLOSED.get(part, ("year", 0, 0))
            parts[part] = np.asarray(getattr(index, attribute), np.int64) - first
        return _Dates(missing, parts)

    def count(self, cells: _Dates, y: npt.NDArray[Any] | None) -> None:
        if "year" in cells.parts:
            self.counted = np.append(self.counted, pd.unique(cells.parts["year"]))

    def settle(self) -> None:
        years = pd.unique(self.counted)
        self.years.extend(years[self.years.numbers(years.tolist()) < 0].tolist())
        self.counted = self.counted[:0]
        self.size = len(self.special) + sum(_CLOSED[part][2] for part in self.closed) + len(self.years)

    def encode(self, cells: _Dates) -> Block:
        n_parts, first = len(self.encoder.parts), len(self.special)
        columns = np.empty((len(cells.missing) - int(cells.missing.sum()), n_parts), np.int32)
        for i, part in enumerate(self.closed):
            columns[:, i] = cells.parts[part] + first
            first += _CLOSED[part][2]
        unknown = 0.0
        if "year" in cells.parts:
            codes, years = pd.factorize(cells.parts["year"])
            numbers = self.years.numbers(years.tolist())
            columns[:, -1] = np.where(numbers < 0, 0, numbers + first)[codes]
            if (numbers < 0).any():
                columns.sort(axis=1)  # the column of unknown years is the first
                unknown = float((numbers[codes] < 0).sum() / len(cells.missing))
        weight = np.float32(1 / math.sqrt(n_parts))
        if not cells.missing.any():
            counts, indices, data = np.full(len(columns), n_parts), columns.ravel(), np.full(columns.size, weight)
        else:
            own = MISSING in self.special
            counts = np.where(cells.missing, int(own), n_parts)
            indices = np.full(counts.sum(), self.special.index(MISSING) if own else 0, np.int32)
            data = np.ones(len(indices), np.float32)
            present = np.repeat(~cells.missing, counts)
            indices[present], data[present] = columns.ravel(), weight
        return Block(counts, indices, data, unknown, _share(cells.missing))

    def labels(self, name: str) -> list[str]:
        labels = list(self.special)
        for part in self.closed:
            _, first, size = _CLOSED[part]
            values = _WEEKDAYS if part == "weekday" else range(first, first + size)
            labels += [f"{part} {value}" for value in values]
        return [f"{name}={label}" for label in [*labels, *(f"year {year}" for year in self.years.levels)]]

    def decode(self, X: csr_array) -> None:
        return None

    def to_state(self) -> State:
        return {}, {"years": np.array(self.years.levels, np.int64)}

    @classmethod
    def from_state(cls, name: str, encoder: Any, meta: Any, arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        _expect_keys(meta, [])
        _expect_keys(arrays, ["years"])
        self = cls(name, encoder)
        self.years = Vocabulary(_array(arrays, "years", np.int64).tolist())
        if len(self.years) and "year" not in encoder.parts:
            raise ValueError(f"column {name!r}: {len(self.years)} years do not go with {encoder}")
        self.settle()
        return self


def _refuse_missing(column: Column, missing: npt.NDArray[np.bool_]) -> None:
    if column.encoder.missing == "error" and missing.any():
        raise ValueError(f"column {column.name!r}: {missing.sum()} missing value(s), refused by missing='error'")


def _one_a_row(columns: npt.NDArray[np.integer[Any]], missing: npt.NDArray[np.bool_], special: list[str]) -> Block:
    """An entry of 1 in the column of each row; where missing, in the first if that is special, else none."""
    columns, share = columns.astype(np.int32, copy=False), _share(missing)
    if special:
        return Block(None, np.where(missing, np.int32(0), columns), None, 0.0, share)
    if share:
        return Block((~missing).astype(np.int8), columns[~missing], None, 0.0, share)
    return Block(None, columns, None, 0.0, share)


def _text(level: Level) -> bytes:
    text = level.isoformat() if isinstance(level, pd.Timestamp) else str(level)
    return text.encode("utf-8", "surrogatepass")


def _read_datetimes(cells: pd.Series[Any], column: str) -> tuple[npt.NDArray[np.bool_], pd.DatetimeIndex]:
    """Where datetimes are missing (n_rows,), and those that are not, in their own time zone."""
    missing = cells.isna().to_numpy(dtype=np.bool_)
    present = cells[~missing]
    if isinstance(present.dtype, pd.CategoricalDtype):
        present = present.astype(present.cat.categories.dtype)
    present = present.infer_objects()
    if len(present) == 0:
        return missing, pd.DatetimeIndex([])
    if present.dtype.kind != "M":
        kind = types.infer_dtype(present)
        hint = "pd.to_datetime(..., unit='s') reads numbers" if present.dtype.kind in "iuf" else "see pd.to_datetime"
        raise TypeError(
            f"column {column!r}: Date needs datetimes of one time zone, got {present.dtype} cells ({kind}); {hint}"
        )
    return missing, pd.DatetimeIndex(present)
