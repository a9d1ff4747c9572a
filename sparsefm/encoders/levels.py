"""Columns of levels: `OneHot`, `MultiHot` and their fitted column."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from itertools import chain, compress
from typing import Any, Literal, NamedTuple, Self, cast

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
    _entry,
    _expect_keys,
    _share,
    _short,
)
from .vocabulary import Level, Vocabulary, _factorize, _keys, _zone


class Cells(NamedTuple):
    """A column of levels as it was read."""

    codes: Ints  # (n_rows,) the distinct cell of each row, -1 where missing
    cell: Ints  # (n_pairs,) a distinct cell ...
    level: Ints  # (n_pairs,) ... and one of its levels; with OneHot every cell is its level
    n_cells: int
    levels: list[Level]
    zone: str  # the time zone of a datetime column


def _check_levels(encoder: OneHot | MultiHot, column: str) -> None:
    _check_choice(column, "unknown", encoder.unknown, ("bucket", "ignore", "error"))
    _check_choice(column, "missing", encoder.missing, ("own", "ignore", "error"))
    limit = 1 if encoder.max_levels is None else encoder.max_levels
    for option, value in (("min_count", encoder.min_count), ("max_levels", limit)):
        _check_integer(column, option, value, 1)
    if encoder.unknown == "error" and (encoder.min_count > 1 or encoder.max_levels is not None):
        raise ValueError(
            f"column {column!r}: unknown='error' would refuse the rare levels of the training data itself; "
            "leave min_count and max_levels alone or choose unknown='bucket' or 'ignore'"
        )
    if encoder.vocabulary is not None and not isinstance(encoder.vocabulary, str):
        raise ValueError(f"column {column!r}: vocabulary must be a name or None, got {_short(encoder.vocabulary)}")


@dataclass(frozen=True)
class OneHot:
    """One level a cell: a 1 in the column of that level.

    Parameters
    ----------
    min_count : int
        Levels in fewer training rows are unknown.
    max_levels : int or None
        Only that many levels are kept, the most frequent (of equals, those that appear first).
    unknown : {"bucket", "ignore", "error"}
        A level that is not in the vocabulary: all share one column; no entry; ValueError. With `min_count`
        or `max_levels` the rare levels of the training data fall into the bucket and train it; otherwise
        nothing does.
    missing : {"own", "ignore", "error"}
        None, NaN, NaT or pandas.NA: a column of their own; no entry; ValueError.
    vocabulary : str or None
        Columns that give the same name here know the same levels in the same order, those of all of them
        together, and count them together for `min_count` and `max_levels`, which must be equal. Each still
        has columns of its own in the output: a home team is not the same feature as a guest.

    Notes
    -----
    Levels are strings, numbers, booleans or datetimes, in the order of their first appearance. An integral
    float is its integer: 1.0 and 1 are one level, "1" and True are others.

    Examples
    --------
    >>> import pandas as pd
    >>> from sparsefm.encoders import FrameEncoder, OneHot
    >>> encoder = FrameEncoder({"city": OneHot(min_count=2)}).fit(pd.DataFrame({"city": ["Rome", "Oslo", "Rome"]}))
    >>> encoder.get_feature_names_out().tolist()
    ['city=<unknown>', 'city=<missing>', 'city=Rome']
    """

    _: KW_ONLY
    min_count: int = 1
    max_levels: int | None = None
    unknown: Literal["bucket", "ignore", "error"] = "bucket"
    missing: Literal["own", "ignore", "error"] = "own"
    vocabulary: str | None = None

    def _check(self, column: str) -> None:
        _check_levels(self, column)

    def _read(self, cells: pd.Series[Any], column: str) -> Cells:
        codes, levels = _factorize(cells, column)
        each = np.arange(len(levels), dtype=np.int64)
        return Cells(codes, each, each, len(levels), levels, _zone(getattr(cells.dtype, "tz", None)))


@dataclass(frozen=True)
class MultiHot:
    """Several levels a cell: an entry in the column of each.

    A cell is a list, tuple, set or 1-d array of levels, or text with `sep` between them. A level repeated
    within a cell counts once; missing members of a list and empty pieces of a text do not count. An empty
    list or text is an empty field, None or NaN is missing.

    Parameters
    ----------
    sep : str or None
        What separates the levels of a text cell, as in "Action|Comedy"; nothing else is stripped.
    weight : {"sqrt", None}
        "sqrt": each of a cell's n entries is 1/√n, so that every cell has length 1. None: each is 1.
    min_count, max_levels, unknown, missing, vocabulary
        As in `OneHot`. The unknown levels of a cell share one entry in the bucket.

    Examples
    --------
    >>> import pandas as pd
    >>> from sparsefm.encoders import FrameEncoder, MultiHot
    >>> encoder = FrameEncoder({"tags": MultiHot(weight=None, unknown="ignore", missing="ignore")})
    >>> encoder.fit_transform(pd.DataFrame({"tags": [["a", "b"], ["b"]]})).toarray().tolist()
    [[1.0, 1.0], [0.0, 1.0]]
    """

    sep: str | None = None
    _: KW_ONLY
    weight: Literal["sqrt"] | None = "sqrt"
    min_count: int = 1
    max_levels: int | None = None
    unknown: Literal["bucket", "ignore", "error"] = "bucket"
    missing: Literal["own", "ignore", "error"] = "own"
    vocabulary: str | None = None

    def _check(self, column: str) -> None:
        _check_levels(self, column)
        _check_choice(column, "weight", self.weight, ("sqrt", None))
        if self.sep is not None and (not isinstance(self.sep, str) or not self.sep):
            raise ValueError(f"column {column!r}: sep must be a non-empty string or None, got {_short(self.sep)}")

    def _read(self, cells: pd.Series[Any], column: str) -> Cells:
        distinct: Sequence[object]
        if cells.dtype != object or types.infer_dtype(cells, skipna=True) in ("string", "empty"):
            codes, distinct = _factorize(cells, column)
        else:  # lists cannot be factorized: every row is its own cell
            present = cells.notna().to_numpy()
            codes = np.where(present, np.cumsum(present) - 1, -1)
            distinct = cells[present].tolist()
        members = [self._members(value, column) for value in distinct]
        flat = pd.Series(list(chain.from_iterable(members)), dtype=object)
        level, levels = _factorize(flat, column)
        cell = np.repeat(np.arange(len(members)), [len(m) for m in members])
        pairs = np.unique(cell[level >= 0] * max(len(levels), 1) + level[level >= 0])
        cell, level = np.divmod(pairs, max(len(levels), 1))
        return Cells(codes, cell, level, len(members), levels, "UTC")

    def _members(self, cell: object, column: str) -> Sequence[object]:
        if isinstance(cell, str) and self.sep is not None:
            return [piece for piece in cell.split(self.sep) if piece]
        if isinstance(cell, (list, tuple)):
            return cell
        if isinstance(cell, (set, frozenset)):  # in an order that does not hang on hashes
            return sorted(cell, key=lambda value: (type(value).__name__, repr(value)))
        if isinstance(cell, np.ndarray) and cell.ndim == 1:
            return list(cell)
        expected = "a list, tuple, set or 1-d array" + (f", or text with {self.sep!r}" if self.sep else "")
        hint = "; name the separator of text as sep" if isinstance(cell, str) else ""
        raise TypeError(
            f"column {column!r}: a MultiHot cell must be {expected}, got {type(cell).__name__} {_short(cell)}{hint}"
        )


class _LevelTable:
    """The levels counted so far: those frequent enough are in the vocabulary, the others wait.

    Chunks counted one by one and settled once give the vocabulary of the whole. After that, levels that are new
    or have become frequent enough come behind those that are there.
    """

    def __init__(self, column: str, min_count: int, max_levels: int | None) -> None:
        self.column, self.min_count, self.max_levels = column, min_count, max_levels
        self.vocabulary, self.waiting = Vocabulary(), Vocabulary()
        self.counts = np.zeros(0, np.int64)  # of the waiting levels

    @property
    def room(self) -> int | None:
        return None if self.max_levels is None else self.max_levels - len(self.vocabulary)

    def check(self, levels: Sequence[Level]) -> None:
        """Raises for datetimes that cannot stand in one vocabulary."""
        kinds = set(map(type, chain(levels, self.vocabulary.levels[:1], self.waiting.levels[:1])))
        if pd.Timestamp not in kinds:
            return
        every = cast(list[pd.Timestamp], [*self.vocabulary.levels, *self.waiting.levels, *levels])
        if kinds != {pd.Timestamp} or len({stamp.tz is None for stamp in every}) > 1:
            raise TypeError(f"column {self.column!r} mixes datetimes with other levels, or naive and aware ones")
        try:
            years = pd.DatetimeIndex(every).year
        except pd.errors.OutOfBoundsDatetime:
            raise ValueError(
                f"column {self.column!r}: the datetimes from {min(every)} to {max(every)} lie too far apart for the "
                "finest unit among them; give them one coarse unit, such as .dt.as_unit('us')"
            ) from None
        if years.min() < 1 or years.max() > 9999:
            raise ValueError(f"column {self.column!r}: datetimes must lie in the years 1 to 9999")

    def count(self, levels: Sequence[Level], counts: Ints) -> None:
        if self.room == 0:
            return
        if len(self.vocabulary) == len(self.waiting) == 0:
            self.waiting.extend(levels)
            self.counts = counts
            return
        absent = self.vocabulary.numbers(levels) < 0
        levels, counts = list(compress(levels, absent)), counts[absent]
        numbers = self.waiting.numbers(levels)
        fresh = numbers < 0
        numbers[fresh] = np.arange(fresh.sum()) + len(self.waiting)
        self.waiting.extend(compress(levels, fresh))
        self.counts = np.append(self.counts, np.zeros(int(fresh.sum()), np.int64))
        self.counts[numbers] += counts

    def settle(self) -> None:
        kept = np.flatnonzero(self.counts >= self.min_count)
        if self.room is not None:
            kept = np.sort(kept[np.argsort(-self.counts[kept], kind="stable")[: self.room]])
        if len(kept) == 0:
            return
        stamps = isinstance(self.waiting.levels[0], pd.Timestamp)
        if len(kept) == len(self.counts) and not len(self.vocabulary) and not stamps:
            self.vocabulary, self.waiting, self.counts = self.waiting, Vocabulary(), self.counts[:0]
            return
        stays = np.ones(len(self.counts), np.bool_)
        stays[kept] = False
        levels = list(compress(self.waiting.levels, ~stays))
        self.vocabulary.extend(levels)
        if stamps:
            alike = pd.DatetimeIndex(cast(Any, self.vocabulary.levels))  # of one unit
            self.vocabulary = Vocabulary(alike.tolist(), self.vocabulary.zone)
        self.waiting = Vocabulary(() if self.room == 0 else compress(self.waiting.levels, stays))
        self.counts = self.counts[stays] if len(self.waiting) else np.zeros(0, np.int64)


def _sort(level: Level) -> str:
    if isinstance(level, pd.Timestamp):
        return "datetimes without a time zone" if level.tz is None else "datetimes with a time zone"
    return "text" if isinstance(level, str) else "numbers"


def _introduce(several: Sequence[tuple[_LevelTable, Cells]]) -> None:
    """Line up the levels of columns that share a table by their first row, then by column, whatever the chunks."""
    levels: list[Level] = []
    rows: list[Ints] = []
    for _, cells in several:
        n_rows = len(cells.codes)
        first = np.full(cells.n_cells + 1, n_rows)  # the last one answers for code -1
        first[cells.codes[::-1]] = np.arange(n_rows)[::-1]  # of equal places the last write stays
        of_level = np.full(len(cells.levels), n_rows)
        np.minimum.at(of_level, cells.level, first[cells.cell])
        levels += cells.levels
        rows.append(of_level)
    order = np.argsort(np.concatenate(rows), kind="stable").tolist()
    distinct = list(dict(zip(_keys([levels[i] for i in order]), (levels[i] for i in order), strict=True)).values())
    several[0][0].count(distinct, np.zeros(len(distinct), np.int64))


class _Levels(Column):
    """A fitted `OneHot` or `MultiHot`: its vocabulary behind the special columns."""

    def __init__(self, name: str, encoder: OneHot | MultiHot) -> None:
        super().__init__(name, encoder)
        self.special = [UNKNOWN] * (encoder.unknown == "bucket") + [MISSING] * (encoder.missing == "own")
        self.table = _LevelTable(name, encoder.min_count, encoder.max_levels)
        self.size = 0

    @property
    def bucket(self) -> int:
        return self._place(UNKNOWN)

    @property
    def vocabulary(self) -> Vocabulary:
        return self.table.vocabulary

    def share(self, other: _Levels) -> None:
        """Use the other column's vocabulary; they must agree on what is frequent."""
        ours, theirs = ((t.min_count, t.max_levels) for t in (self.table, other.table))
        if ours != theirs:
            raise ValueError(
                f"columns {other.name!r} and {self.name!r} share the vocabulary {self.encoder.vocabulary!r}, so their "
                f"(min_count, max_levels) must be equal, got {theirs} and {ours}"
            )
        self.table = other.table

    def read(self, frame: Frame) -> Cells:
        cells: Cells = self.encoder._read(frame[self.name], self.name)
        missing = int((cells.codes < 0).sum()) if self.encoder.missing == "error" else 0
        if missing:
            raise ValueError(f"column {self.name!r}: {missing} missing value(s), refused by missing='error'")
        return cells

    def check(self, cells: Cells, y: object) -> None:
        self.table.check(cells.levels)

    def count(self, cells: Cells, y: object) -> None:
        if isinstance(self.encoder, OneHot) and self.encoder.min_count == 1 and self.encoder.max_levels is None:
            rows = np.ones(cells.n_cells, np.int64)  # which is frequent enough
        else:
            present = cells.codes if cells.codes.min(initial=0) >= 0 else cells.codes[cells.codes >= 0]
            rows = np.bincount(present, minlength=cells.n_cells)
        if isinstance(self.encoder, MultiHot):
            rows = np.bincount(cells.level, rows[cells.cell], minlength=len(cells.levels)).astype(np.int64)
        if not self.table.vocabulary.levels:
            self.table.vocabulary.zone = self.table.waiting.zone = cells.zone
        self.table.count(cells.levels, rows)

    def settle(self) -> None:
        self.table.settle()
        self.size = len(self.special) + len(self.vocabulary)

    def encode(self, cells: Cells) -> Block:
        numbers = self.vocabulary.numbers(cells.levels)
        unknown = numbers < 0
        if unknown.any():
            self._refuse(cells, unknown)
        columns = np.where(unknown, self._place(UNKNOWN), numbers + len(self.special))
        if isinstance(self.encoder, OneHot):
            block = self._encode_single(cells.codes, np.append(columns, self._place(MISSING)).astype(np.int32))
        else:
            block = self._encode_several(cells, columns)
        if unknown.any():
            strange = np.zeros(cells.n_cells + 1, np.bool_)  # the last cell is the missing one: code -1
            strange[cells.cell[unknown[cells.level]]] = True
            block = block._replace(unknown=_share(strange[cells.codes]))
        return block._replace(missing=_share(cells.codes < 0) if cells.codes.min(initial=0) < 0 else 0.0)

    def _encode_single(self, codes: Ints, columns: npt.NDArray[np.int32]) -> Block:
        indices = columns[codes]
        if (columns < 0).any():
            entry = indices >= 0
            if not entry.all():
                return Block(entry.astype(np.int8), indices[entry], None, 0.0, 0.0)
        return Block(None, indices, None, 0.0, 0.0)

    def _encode_several(self, cells: Cells, columns: Ints) -> Block:
        # the entries of each distinct cell, columns sorted
        entry = columns[cells.level]
        pairs = np.unique(cells.cell[entry >= 0] * self.size + entry[entry >= 0])
        if self._place(MISSING) >= 0:
            pairs = np.append(pairs, cells.n_cells * self.size + self._place(MISSING))
        cell, entry = np.divmod(pairs, max(self.size, 1))
        sizes = np.bincount(cell, minlength=cells.n_cells + 1)
        data = (1 / np.sqrt(sizes[cell])).astype(np.float32) if self.encoder.weight == "sqrt" else None
        # the entries of each row
        counts = sizes[cells.codes]
        start = (np.cumsum(sizes) - sizes)[cells.codes]
        single = bool((counts == 1).all())
        if not single:
            start = np.repeat(start - (np.cumsum(counts) - counts), counts) + np.arange(counts.sum())
        entry = entry.astype(np.int32)
        return Block(None if single else counts, entry[start], None if data is None else data[start], 0.0, 0.0)

    def _place(self, special: str) -> int:
        return self.special.index(special) if special in self.special else -1

    def _refuse(self, cells: Cells, unknown: npt.NDArray[np.bool_]) -> None:
        absent = np.flatnonzero(unknown)
        if self.encoder.unknown == "error":
            some = ", ".join(_short(cells.levels[i]) for i in absent[:5]) + ", ..." * (len(absent) > 5)
            raise ValueError(f"column {self.name!r}: {len(absent)} unknown level(s), not seen in fit: {some}")
        if len(absent) == len(cells.levels) and len(self.vocabulary) > 0:  # nothing known: are these other ids?
            fitted, found = (set(map(_sort, levels)) for levels in (self.vocabulary.levels, cells.levels))
            if len(fitted) == len(found) == 1 and fitted != found:
                warnings.warn(
                    f"column {self.name!r} was fitted on levels such as {_short(self.vocabulary.levels[0])} and now "
                    f"holds only such as {_short(cells.levels[0])}: {fitted.pop()} and {found.pop()} never match; "
                    "convert the column",
                    UserWarning,
                    stacklevel=2,
                )

    def labels(self, name: str) -> list[str]:
        return [f"{name}={label}" for label in self.special + self.vocabulary.labels()]

    def decode(self, X: csr_array) -> pd.Series[Any]:
        counts, numbers = np.diff(X.indptr), X.indices.astype(np.int64) - len(self.special)
        if isinstance(self.encoder, OneHot):
            if (counts > 1).any():
                raise ValueError(f"column {self.name!r}: row {int(np.argmax(counts > 1))} has several levels")
            single = np.full(X.shape[0], -1, np.int64)
            single[counts == 1] = np.maximum(numbers, -1)
            return self.vocabulary.take(single)
        levels, sep = self.vocabulary.levels, self.encoder.sep
        cells: list[object] = []
        for a, b in zip(X.indptr[:-1].tolist(), X.indptr[1:].tolist(), strict=True):
            members = [levels[number] for number in numbers[a:b] if number >= 0]
            missing = self._place(MISSING) >= 0 and self._place(MISSING) in X.indices[a:b]
            text = sep is not None and all(isinstance(member, str) for member in members)
            cells.append(None if missing else sep.join(cast(list[str], members)) if text and sep else members)
        return pd.Series(cells, dtype=object)

    def to_state(self) -> State:
        vocabulary, arrays = self.vocabulary.to_state()
        meta: dict[str, Any] = {"vocabulary": vocabulary}
        if len(self.table.waiting):
            meta["waiting"], waiting = self.table.waiting.to_state()
            arrays |= {"waiting" + key: array for key, array in waiting.items()} | {"counts": self.table.counts}
        return meta, arrays

    @classmethod
    def from_state(cls, name: str, encoder: Any, meta: Any, arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        _expect_keys(meta, ["vocabulary", "waiting"] if "waiting" in meta else ["vocabulary"])
        self, prefix = cls(name, encoder), "waiting"
        table = self.table
        own = {key: array for key, array in arrays.items() if not key.startswith((prefix, "counts"))}
        table.vocabulary = Vocabulary.from_state(_entry(meta, "vocabulary", dict), own)
        if prefix in meta:
            others = {key.removeprefix(prefix): array for key, array in arrays.items() if key.startswith(prefix)}
            _expect_keys(arrays, [*own, *(prefix + key for key in others), "counts"])
            table.waiting = Vocabulary.from_state(_entry(meta, prefix, dict), others)
            table.counts = _array(arrays, "counts", np.int64).copy()
            if len(table.counts) != len(table.waiting) or (table.counts < 1).any():
                raise ValueError(f"{len(table.waiting)} waiting levels need as many counts above 0")
            if (table.vocabulary.numbers(table.waiting.levels) >= 0).any():
                raise ValueError("a level is in the vocabulary and waits to be")
        else:
            _expect_keys(arrays, list(own))
        if table.room is not None and table.room < 0:
            raise ValueError(f"{len(table.vocabulary)} levels where max_levels is {table.max_levels}")
        self.size = len(self.special) + len(table.vocabulary)
        return self
