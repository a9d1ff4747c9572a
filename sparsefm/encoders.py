"""From a data frame to a sparse matrix: `FrameEncoder` and its column encoders.

Each input column becomes one *field*, a block of columns of the encoded matrix:

    OneHot     [<unknown>] [<missing>] level level level ...   one 1 in a row
    MultiHot   [<unknown>] [<missing>] level level level ...   1/√n for each of the cell's n levels
    Numeric    value [<missing>]

Both kinds of levels take the same road. A column is first *read* into its few distinct cells and, for each
row, the number of its cell (`Cells`); the vocabulary is asked about distinct levels only; the rows then pick
up their entries by number. No Python runs per row, unless the cells are lists or an object column mixes
types. The special columns stand first in a field, so that a vocabulary can grow behind them.

A column encoder is two classes. The one the user writes, say `OneHot(min_count=2)`, is a specification:
frozen, comparable, checked at fit (`_check`). The fitted column is made by `fit(name, encoder, frame, y)`,
which also returns the block of the training rows (where an encoder that looks at other rows leaves out a
row's own), and has `size`, `labels`, `encode`, `decode`, `to_state` and `from_state`. A new encoder brings
such a pair and one line in `_ENCODERS`.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, asdict, dataclass, fields
from datetime import datetime
from itertools import chain, pairwise, repeat
from numbers import Integral
from typing import Any, Literal, NamedTuple, Self, cast

import numpy as np
import numpy.typing as npt
import pandas as pd
from pandas.api import types
from scipy.sparse import csr_array, issparse
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_array, check_consistent_length, check_is_fitted, validate_data

__all__ = ["FrameEncoder", "MultiHot", "Numeric", "OneHot", "Vocabulary"]

Level = str | int | float | bool | pd.Timestamp
Frame = Mapping[str, "pd.Series[Any]"]  # the input columns by name
State = tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]
Ints = npt.NDArray[np.int64]

UNKNOWN, MISSING = "<unknown>", "<missing>"


# Levels and their numbers ---------------------------------------------------------------------------------


def _level(value: object, column: str) -> Level | None:
    """The level a cell stands for, None if missing: integral floats as integers, instants in UTC."""
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, (float, np.floating)):
        value = float(value)
        if math.isnan(value):
            return None
        return int(value) if value.is_integer() else value
    if isinstance(value, (int, np.integer)) and not isinstance(value, np.timedelta64):
        if abs(int(value)) <= sys.float_info.max:  # pandas converts larger ones to float, and fails
            return int(value)
    elif isinstance(value, (datetime, np.datetime64)):
        stamp = pd.Timestamp(value)
        if pd.isna(stamp):
            return None
        return stamp if stamp.tz is None else stamp.tz_convert("UTC")
    elif value is None or value is pd.NA or value is pd.NaT:
        return None
    hint = " (several levels in a cell: MultiHot)" if isinstance(value, (list, set, np.ndarray)) else ""
    raise TypeError(
        f"column {column!r}: the argument must be a string, a number (in float range), a boolean or a "
        f"datetime in every cell, got {type(value).__name__} {_short(value)}{hint}"
    )


def _key(level: Level) -> object:
    """What a level is filed under: a hash table would take True for 1."""
    return (level,) if isinstance(level, bool) else level


def _short(value: object) -> str:
    try:
        text = repr(value)
    except ValueError:  # an integer beyond Python's limit of digits
        text = "a huge number"
    return text if len(text) <= 60 else text[:57] + "..."


def _factorize(cells: pd.Series[Any], column: str) -> tuple[Ints, list[Level]]:
    """Codes (n_rows,), -1 where missing, and the distinct levels in the order of their first appearance."""
    if cells.dtype == object and types.infer_dtype(cells, skipna=True) in ("mixed", "mixed-integer"):
        codes, uniques = _factorize_mixed(cells, column)
    else:
        if isinstance(cells.dtype, pd.DatetimeTZDtype):
            cells = cells.dt.tz_convert("UTC")
        codes, index = pd.factorize(cells.to_numpy() if cells.dtype == object else cells)
        uniques = index.tolist()
    kinds = set(map(type, uniques))
    if kinds <= {str} or (kinds <= {int, pd.Timestamp} and cells.dtype.kind in "iuM"):  # levels already
        return codes.astype(np.int64, copy=False), uniques
    numbers: dict[object, int] = {}
    levels: list[Level] = []
    recode = np.full(len(uniques) + 1, -1, np.int64)  # the last one answers for code -1
    for i, value in enumerate(uniques):
        level = _level(value, column)
        if level is not None:
            recode[i] = numbers.setdefault(_key(level), len(levels))
            if recode[i] == len(levels):
                levels.append(level)
    return recode[codes], levels


def _factorize_mixed(cells: pd.Series[Any], column: str) -> tuple[Ints, list[Any]]:
    """The same, row by row, where a hash table of pandas would take True for 1 or trip over a list."""
    numbers: dict[object, int] = {}
    uniques: list[Any] = []
    codes = np.full(len(cells), -1, np.int64)
    values = cells.to_numpy(dtype=object)
    for row in np.flatnonzero(cells.notna().to_numpy()):
        value = values[row]
        try:
            code = numbers.setdefault((value, isinstance(value, (bool, np.bool_))), len(uniques))
        except TypeError:  # not hashable, so no level: say which cell
            _level(value, column)
            raise
        if code == len(uniques):
            uniques.append(value)
        codes[row] = code
    return codes, uniques


class Vocabulary:
    """Levels <-> numbers 0, 1, 2, ... in the order given.

    Levels are str, int, float, bool or pandas.Timestamp. An integral float is its integer (1.0, 1 and
    np.int64(1) are one level); True, 1 and "1" are three. Instants are in UTC here and leave by `take` in
    the time zone `zone`.
    """

    def __init__(self, levels: Iterable[Level] = (), zone: str = "UTC") -> None:
        self.levels, self.zone = list(levels), zone
        self._numbers = {key: number for number, key in enumerate(map(_key, self.levels))}
        if len(self._numbers) != len(self.levels):
            raise ValueError("a vocabulary holds each level once, got a repeated level")

    def __len__(self) -> int:
        return len(self.levels)

    def numbers(self, levels: Sequence[Level]) -> Ints:
        """The number of each level, -1 for one that is not here. (n,) int64"""
        keys = levels if set(map(type, levels)) <= {str, int, float} else map(_key, levels)
        return np.fromiter(map(self._numbers.get, keys, repeat(-1)), np.int64, len(levels))

    def labels(self) -> list[str]:
        """The levels as text; strings are quoted where they could be taken for something else."""
        mixed = len(set(map(type, self.levels))) > 1
        quote = {level for level in self.levels if isinstance(level, str) and (mixed or level in (UNKNOWN, MISSING))}
        return [repr(level) if level in quote else str(level) for level in self.levels]

    def take(self, numbers: Ints) -> pd.Series[Any]:
        """The levels of these numbers, in their own dtype; None, NaN or NaT (by dtype) for -1."""
        kinds = set(map(type, self.levels))
        if kinds == {pd.Timestamp}:
            stamps = pd.DatetimeIndex(cast(Any, self.levels))
            stamps = stamps if stamps.tz is None else stamps.tz_convert(self.zone)
            return pd.Series(stamps).reindex(numbers).reset_index(drop=True)
        values = np.empty(len(self.levels) + 1, object)
        values[:-1] = self.levels
        taken = pd.Series(values[numbers], dtype=object)
        if kinds != {str} and (numbers < 0).any():
            return taken  # integers beside None would become floats
        try:
            return taken.infer_objects()
        except UnicodeEncodeError:  # a lone surrogate, which Arrow cannot hold
            return taken

    def to_state(self) -> State:
        """A JSON-able dict and arrays: int64 levels, or UTF-8 bytes, offsets and (if mixed) type tags."""
        kinds = set(map(type, self.levels))
        if kinds == {int} and all(-(2**63) <= cast(int, level) < 2**63 for level in self.levels):
            return {"kind": "int"}, {"levels": np.array(self.levels, np.int64)}
        if kinds == {pd.Timestamp}:
            index = pd.DatetimeIndex(cast(Any, self.levels))
            zone = None if index.tz is None else self.zone
            return {"kind": "datetime", "unit": index.unit, "tz": zone}, {"levels": np.array(index.asi8)}
        texts = [level if isinstance(level, str) else repr(level) for level in self.levels]
        encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
        arrays: dict[str, npt.NDArray[Any]] = {
            "bytes": np.frombuffer(b"".join(encoded), np.uint8),
            "offsets": np.cumsum([0, *map(len, encoded)], dtype=np.int64),
        }
        if kinds <= {str}:
            return {"kind": "str"}, arrays
        arrays["tags"] = np.array([_TAGS.index(type(level)) for level in self.levels], np.uint8)
        return {"kind": "mixed"}, arrays

    @classmethod
    def from_state(cls, meta: object, arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        """The vocabulary that `to_state` wrote. Raises ValueError for anything malformed."""
        kind = _entry(meta, "kind", str)
        names = {"int": ["levels"], "datetime": ["levels"], "str": ["bytes", "offsets"]}
        names["mixed"] = ["bytes", "offsets", "tags"]
        if kind not in names:
            raise ValueError(f"vocabulary of unknown kind {kind!r}, expected one of {sorted(names)}")
        _expect_keys(meta, ["kind", "unit", "tz"] if kind == "datetime" else ["kind"])
        _expect_keys(arrays, names[kind])
        if kind == "int":
            return cls(_array(arrays, "levels", np.int64).tolist())
        if kind == "datetime":
            unit, zone = _entry(meta, "unit", str), _entry(meta, "tz", str, type(None))
            return cls(_stamps(_array(arrays, "levels", np.int64), unit, zone), zone or "UTC")
        texts = _texts(_array(arrays, "bytes", np.uint8), _array(arrays, "offsets", np.int64))
        if kind == "str":
            return cls(texts)
        tags = _array(arrays, "tags", np.uint8)
        if len(tags) != len(texts) or (tags >= len(_TAGS)).any():
            raise ValueError(f"{len(texts)} levels need as many type tags below {len(_TAGS)}")
        return cls([_parse(text, _TAGS[tag]) for text, tag in zip(texts, tags, strict=True)])


_TAGS: list[type] = [str, int, float, bool]


def _parse(text: str, kind: type) -> Level:
    """The level of this type whose repr is the text; the text of a string is the string."""
    if kind is str:
        return text
    level: Level | None
    try:
        level = text == "True" if kind is bool else _level(kind(text), "")
    except (ValueError, TypeError, OverflowError):
        level = None
    if type(level) is not kind or repr(level) != text:
        raise ValueError(f"level {_short(text)} is no {kind.__name__}")
    return cast(Level, level)


def _texts(data: npt.NDArray[np.uint8], offsets: Ints) -> list[str]:
    """The strings whose UTF-8 bytes are data[offsets[i]:offsets[i + 1]]."""
    if len(offsets) == 0 or offsets[0] != 0 or offsets[-1] != len(data) or (offsets[1:] < offsets[:-1]).any():
        raise ValueError(f"level offsets must rise from 0 to the {len(data)} bytes there are")
    raw, cuts = data.tobytes(), offsets.tolist()
    try:
        return [str(raw[a:b], "utf-8", "surrogatepass") for a, b in pairwise(cuts)]
    except UnicodeDecodeError as error:
        raise ValueError(f"levels are not UTF-8: {error}") from None


def _stamps(values: Ints, unit: str, zone: str | None) -> list[pd.Timestamp]:
    if unit not in ("s", "ms", "us", "ns") or not re.fullmatch(r"(?!dateutil)[\w+:/-]{1,64}", zone or "UTC"):
        raise ValueError(f"datetime levels of unknown unit {unit!r} or time zone {_short(zone)}")
    stamps = values.view(f"M8[{unit}]")
    years = stamps.astype("M8[Y]").astype(np.int64) + 1970
    if np.isnat(stamps).any() or (years < 1).any() or (years > 9999).any():
        raise ValueError("datetime levels must lie in the years 1 to 9999")
    try:
        index = pd.DatetimeIndex(stamps)
        if zone is not None:
            index = index.tz_localize("UTC")
            index.tz_convert(zone)
        return index.tolist()
    except Exception as error:  # time zone libraries raise what they like
        raise ValueError(f"datetime levels in time zone {_short(zone)}: {error}") from None


def _zone(tz: object) -> str:
    """The name under which pandas finds this time zone again; UTC if it has none."""
    try:
        pd.Timestamp(0, tz="UTC").tz_convert(str(tz))
    except Exception:  # time zone libraries raise what they like
        return "UTC"
    return str(tz)


# Blocks: the encoded columns of one field ------------------------------------------------------------------


class Cells(NamedTuple):
    """A column of levels as it was read."""

    codes: Ints  # (n_rows,) the distinct cell of each row, -1 where missing
    cell: Ints  # (n_pairs,) a distinct cell ...
    level: Ints  # (n_pairs,) ... and one of its levels
    n_cells: int
    levels: list[Level]


class Block(NamedTuple):
    """The entries of one field, row by row, columns counted from the field's first and sorted in each row."""

    counts: Ints | None  # (n_rows,) entries of each row; None: one in every row
    indices: Ints  # (nnz,)
    data: npt.NDArray[np.float32]  # (nnz,)
    unknown: float  # share of rows with a level that is not in the vocabulary
    missing: float  # share of rows without a value


def _share(mask: npt.NDArray[np.bool_]) -> float:
    return float(mask.mean()) if mask.size else 0.0


def _stack(blocks: Sequence[tuple[int, Block]], n_rows: int, n_columns: int) -> csr_array:
    """The blocks side by side, each with its first column, in rising order."""
    per_row = np.zeros(n_rows, np.int64)
    for _, block in blocks:
        per_row += 1 if block.counts is None else block.counts
    indptr = np.zeros(n_rows + 1, np.int64)
    np.cumsum(per_row, out=indptr[1:])
    nnz, limit = int(indptr[-1]), np.iinfo(np.int32).max
    dtype = np.int64 if max(nnz, n_columns) > limit else np.int32
    indices, data = np.empty(nnz, dtype), np.empty(nnz, np.float32)
    free = indptr[:-1].copy()  # the next free place of each row
    for first, block in blocks:
        if block.counts is None:
            places = free
        else:
            before = np.cumsum(block.counts) - block.counts
            places = np.repeat(free - before, block.counts) + np.arange(len(block.indices))
        indices[places] = block.indices + first
        data[places] = block.data
        free += 1 if block.counts is None else block.counts
    X = csr_array((data, indices, indptr.astype(dtype)), shape=(n_rows, n_columns))
    X.has_canonical_format = True
    return X


# Column encoders ------------------------------------------------------------------------------------------


def _check_choice(column: str, option: str, value: object, choices: Sequence[str | None]) -> None:
    if not (value is None or isinstance(value, str)) or value not in choices:
        raise ValueError(f"column {column!r}: {option} must be one of {choices}, got {_short(value)}")


def _check_levels(encoder: OneHot | MultiHot, column: str) -> None:
    _check_choice(column, "unknown", encoder.unknown, ("bucket", "ignore", "error"))
    _check_choice(column, "missing", encoder.missing, ("own", "ignore", "error"))
    limit = 1 if encoder.max_levels is None else encoder.max_levels
    for option, value in (("min_count", encoder.min_count), ("max_levels", limit)):
        if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
            raise ValueError(f"column {column!r}: {option} must be an integer above 0, got {_short(value)}")
    if encoder.unknown == "error" and (encoder.min_count > 1 or encoder.max_levels is not None):
        raise ValueError(
            f"column {column!r}: unknown='error' would refuse the rare levels of the training data itself; "
            "leave min_count and max_levels alone or choose unknown='bucket' or 'ignore'"
        )


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

    Levels are strings, numbers, booleans or datetimes, in the order of their first appearance. An integral
    float is its integer: 1.0 and 1 are one level, "1" and True are others.
    """

    _: KW_ONLY
    min_count: int = 1
    max_levels: int | None = None
    unknown: Literal["bucket", "ignore", "error"] = "bucket"
    missing: Literal["own", "ignore", "error"] = "own"

    def _check(self, column: str) -> None:
        _check_levels(self, column)

    def _read(self, cells: pd.Series[Any], column: str) -> Cells:
        codes, levels = _factorize(cells, column)
        each = np.arange(len(levels), dtype=np.int64)
        return Cells(codes, each, each, len(levels), levels)


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
    min_count, max_levels, unknown, missing
        As in `OneHot`. The unknown levels of a cell share one entry in the bucket.
    """

    sep: str | None = None
    _: KW_ONLY
    weight: Literal["sqrt"] | None = "sqrt"
    min_count: int = 1
    max_levels: int | None = None
    unknown: Literal["bucket", "ignore", "error"] = "bucket"
    missing: Literal["own", "ignore", "error"] = "own"

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
        return Cells(codes, cell, level, len(members), levels)

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


class _Levels:
    """A fitted `OneHot` or `MultiHot`: its vocabulary behind the special columns."""

    def __init__(self, name: str, encoder: OneHot | MultiHot, vocabulary: Vocabulary) -> None:
        self.name, self.encoder, self.vocabulary = name, encoder, vocabulary
        self.special = [UNKNOWN] * (encoder.unknown == "bucket") + [MISSING] * (encoder.missing == "own")
        self.size = len(self.special) + len(vocabulary)

    @classmethod
    def fit(cls, name: str, encoder: Any, frame: Frame, y: object) -> tuple[_Levels, Block]:
        cells = encoder._read(frame[name], name)
        rows = np.bincount(cells.codes[cells.codes >= 0], minlength=cells.n_cells)
        counts = np.bincount(cells.level, rows[cells.cell], minlength=len(cells.levels))
        kept = np.flatnonzero(counts >= encoder.min_count)
        if encoder.max_levels is not None:
            kept = np.sort(kept[np.argsort(-counts[kept], kind="stable")[: encoder.max_levels]])
        levels = [cells.levels[i] for i in kept]
        stamps = {level.tz is None for level in levels if isinstance(level, pd.Timestamp)}
        if stamps:
            if len(stamps) > 1 or set(map(type, levels)) != {pd.Timestamp}:
                raise TypeError(f"column {name!r} mixes datetimes with other levels, or naive and aware ones")
            levels = pd.DatetimeIndex(cast(Any, levels)).tolist()  # of one unit
        zone = _zone(getattr(frame[name].dtype, "tz", None))
        column = cls(name, encoder, Vocabulary(levels, zone))
        return column, column._encode(cells)

    def encode(self, frame: Frame) -> Block:
        return self._encode(self.encoder._read(frame[self.name], self.name))

    def _encode(self, cells: Cells) -> Block:
        numbers = self.vocabulary.numbers(cells.levels)
        columns = np.where(numbers >= 0, numbers + len(self.special), self._place(UNKNOWN))
        unknown = np.zeros(cells.n_cells + 1, np.bool_)  # the last cell is the missing one: code -1
        unknown[cells.cell[numbers[cells.level] < 0]] = True
        self._refuse(cells, numbers)
        # the entries of each distinct cell, columns sorted
        entry = columns[cells.level]
        pairs = np.unique(cells.cell[entry >= 0] * self.size + entry[entry >= 0])
        if self._place(MISSING) >= 0:
            pairs = np.append(pairs, cells.n_cells * self.size + self._place(MISSING))
        cell, entry = np.divmod(pairs, max(self.size, 1))
        sizes = np.bincount(cell, minlength=cells.n_cells + 1)
        data = np.ones(len(entry), np.float32)
        if isinstance(self.encoder, MultiHot) and self.encoder.weight == "sqrt":
            data = (1 / np.sqrt(sizes[cell])).astype(np.float32)
        # the entries of each row
        counts = sizes[cells.codes]
        start = (np.cumsum(sizes) - sizes)[cells.codes]
        single = bool((counts == 1).all())
        if not single:
            start = np.repeat(start - (np.cumsum(counts) - counts), counts) + np.arange(counts.sum())
        shares = _share(unknown[cells.codes]), _share(cells.codes < 0)
        return Block(None if single else counts, entry[start], data[start], *shares)

    def _place(self, special: str) -> int:
        return self.special.index(special) if special in self.special else -1

    def _refuse(self, cells: Cells, numbers: Ints) -> None:
        absent = np.flatnonzero(numbers < 0)
        if self.encoder.unknown == "error" and len(absent):
            some = ", ".join(_short(cells.levels[i]) for i in absent[:5]) + ", ..." * (len(absent) > 5)
            raise ValueError(f"column {self.name!r}: {len(absent)} unknown level(s), not seen in fit: {some}")
        missing = int((cells.codes < 0).sum())
        if self.encoder.missing == "error" and missing:
            raise ValueError(f"column {self.name!r}: {missing} missing value(s), refused by missing='error'")

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
        meta, arrays = self.vocabulary.to_state()
        return {"vocabulary": meta}, arrays

    @classmethod
    def from_state(cls, name: str, encoder: Any, meta: Any, arrays: Mapping[str, npt.NDArray[Any]]) -> _Levels:
        _expect_keys(meta, ["vocabulary"])
        return cls(name, encoder, Vocabulary.from_state(_entry(meta, "vocabulary", dict), arrays))


@dataclass(frozen=True)
class Numeric:
    """A number: one column with its value.

    Parameters
    ----------
    scale : {"standard", None}
        "standard": minus the mean of the training data, divided by its standard deviation (a constant column
        becomes 0). None: as it is.
    missing : {"own", "ignore", "error"}
        A missing number has value 0, which is the mean if scaled, and with "own" an entry in a second column
        that says so. That column exists only if values were missing in fit; if they first are in transform,
        value 0 is all they get. "error": ValueError.

    An infinite value, or one that float32 cannot hold once scaled, is a ValueError; text is a TypeError.
    """

    scale: Literal["standard"] | None = "standard"
    _: KW_ONLY
    missing: Literal["own", "ignore", "error"] = "own"

    def _check(self, column: str) -> None:
        _check_choice(column, "scale", self.scale, ("standard", None))
        _check_choice(column, "missing", self.missing, ("own", "ignore", "error"))


class _Number:
    """A fitted `Numeric`: the value's column and, if `indicator`, the missing one's."""

    def __init__(self, name: str, encoder: Numeric, mean: float, std: float, indicator: bool) -> None:
        self.name, self.encoder = name, encoder
        self.mean, self.std, self.indicator = mean, std, indicator
        self.size = 1 + indicator

    @classmethod
    def fit(cls, name: str, encoder: Any, frame: Frame, y: object) -> tuple[_Number, Block]:
        values = _read_numbers(frame[name], name)
        missing = np.isnan(values)
        mean, std = (0.0, 1.0) if encoder.scale is None else _moments(values[~missing])
        column = cls(name, encoder, mean, std, encoder.missing == "own" and bool(missing.any()))
        return column, column._encode(values)

    def encode(self, frame: Frame) -> Block:
        return self._encode(_read_numbers(frame[self.name], self.name))

    def _encode(self, values: npt.NDArray[np.float64]) -> Block:
        missing = np.isnan(values)
        if self.encoder.missing == "error" and missing.any():
            raise ValueError(f"column {self.name!r}: {missing.sum()} missing value(s), refused by missing='error'")
        with np.errstate(over="ignore", under="ignore"):
            data = ((values - self.mean) / self.std).astype(np.float32)
        if np.isinf(data).any():
            worst = values[np.argmax(np.isinf(data))]
            raise ValueError(f"column {self.name!r}: {worst} is too large for float32 after scaling")
        data[missing] = 1 if self.indicator else 0
        entry = data != 0
        counts = None if entry.all() else entry.astype(np.int64)
        return Block(counts, missing[entry].astype(np.int64), data[entry], 0.0, _share(missing))

    def labels(self, name: str) -> list[str]:
        return [name, f"{name}={MISSING}"] if self.indicator else [name]

    def decode(self, X: csr_array) -> pd.Series[Any]:
        dense = X.toarray().astype(np.float64)
        values = dense[:, 0] * self.std + self.mean
        if self.indicator:
            values[dense[:, 1] != 0] = np.nan
        return pd.Series(values.astype(np.float32))

    def to_state(self) -> State:
        return {"mean": self.mean, "std": self.std, "indicator": self.indicator}, {}

    @classmethod
    def from_state(cls, name: str, encoder: Any, meta: Any, arrays: Mapping[str, npt.NDArray[Any]]) -> _Number:
        _expect_keys(meta, ["mean", "std", "indicator"])
        _expect_keys(arrays, [])
        mean, std = _entry(meta, "mean", float), _entry(meta, "std", float)
        if not math.isfinite(mean) or not math.isfinite(std) or std <= 0:
            raise ValueError(f"column {name!r}: mean {mean} and standard deviation {std} scale nothing")
        indicator = _entry(meta, "indicator", bool)
        if (indicator and encoder.missing != "own") or (encoder.scale is None and (mean, std) != (0.0, 1.0)):
            raise ValueError(f"column {name!r}: state {_short(meta)} does not go with {encoder}")
        return cls(name, encoder, mean, std, indicator)


def _read_numbers(cells: pd.Series[Any], column: str) -> npt.NDArray[np.float64]:
    """The numbers of a column, NaN where missing. (n_rows,)"""
    if isinstance(cells.dtype, pd.CategoricalDtype):
        cells = cells.astype(object)
    kind = types.infer_dtype(cells, skipna=True)
    if kind not in ("integer", "floating", "mixed-integer-float", "decimal", "boolean", "empty") and not (
        types.is_numeric_dtype(cells.dtype) and kind != "complex"
    ):
        raise TypeError(f"column {column!r}: Numeric needs numbers, got {cells.dtype} cells ({kind})")
    try:
        values = cells.to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"column {column!r}: Numeric needs numbers that float64 can hold: {error}") from None
    infinite = int(np.isinf(values).sum())
    if infinite:
        raise ValueError(f"column {column!r}: {infinite} infinite value(s); Numeric needs finite numbers")
    return values


def _moments(values: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Mean and standard deviation, of numbers of any size; the deviation of a constant is 1."""
    if values.size == 0:
        return 0.0, 1.0
    if values.min() == values.max():
        return float(values[0]), 1.0
    size = float(np.abs(values).max())
    with np.errstate(under="ignore"):
        mean, std = (values / size).mean() * size, (values / size).std() * size
    return float(mean), float(std) or 1.0


ColumnEncoder = OneHot | MultiHot | Numeric
_Column = _Levels | _Number
_ENCODERS: dict[type[ColumnEncoder], type[_Column]] = {OneHot: _Levels, MultiHot: _Levels, Numeric: _Number}
_BY_NAME = {encoder.__name__: encoder for encoder in _ENCODERS}


# State: what from_state trusts is checked here -------------------------------------------------------------


def _entry(meta: object, key: str, *types: type) -> Any:
    if not isinstance(meta, dict) or type(meta.get(key)) not in types:
        found = f"got {_short(meta.get(key))}" if isinstance(meta, dict) else f"in a {type(meta).__name__}"
        raise ValueError(f"state entry {key!r} must be {' or '.join(t.__name__ for t in types)}, {found}")
    return meta[key]


def _expect_keys(mapping: object, keys: Sequence[str]) -> None:
    if not isinstance(mapping, Mapping) or set(mapping) != set(keys):
        found = list(mapping) if isinstance(mapping, Mapping) else type(mapping).__name__
        raise ValueError(f"state must have exactly the entries {list(keys)}, got {_short(found)}")


def _array(arrays: Mapping[str, npt.NDArray[Any]], name: str, dtype: type) -> npt.NDArray[Any]:
    array = arrays[name]
    if not isinstance(array, np.ndarray) or array.dtype != dtype or array.ndim != 1:
        found = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
        raise ValueError(f"array {name!r} must be one-dimensional {np.dtype(dtype)}, got {found}")
    return np.ascontiguousarray(array)


# The frame ------------------------------------------------------------------------------------------------


class FrameEncoder(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Encode the columns of a data frame as one sparse matrix, field by field.

    Parameters
    ----------
    columns : dict of str to OneHot, MultiHot or Numeric, or None
        The columns to encode and how, in the order of the output; other columns of the frame are ignored.
        None chooses by dtype: text, object, category and boolean columns are OneHot, floats are Numeric, and
        so are integers unless a OneHot column stands beside them. There an integer may be an id, so it is
        refused and must be named. The columns of an array are called x0, x1, ...

    Attributes
    ----------
    columns_ : dict of str to fitted column
    field_names_ : list of str, one per encoded column
    fields_ : (n_features_out_,) int32, the field of each output column
    n_features_in_, n_features_out_ : int, encoded input columns and output columns
    feature_names_in_ : (n_features_in_,) object, only if fitted on a frame with column names
    unknown_report_ : DataFrame, see there

    Raises
    ------
    ValueError
        for an absent column, a wrong option, a level or value that the column's encoder refuses.
    TypeError
        for cells that its encoder cannot read, sparse input, and frames other than pandas'.

    Every error names the column. Levels that training never saw are encoded as the column's `unknown` says,
    missing cells (None, NaN, NaT, pandas.NA) as its `missing` says.

    Examples
    --------
    >>> import pandas as pd
    >>> from sparsefm.encoders import FrameEncoder, MultiHot, Numeric, OneHot
    >>> train = pd.DataFrame({
    ...     "user_id": [196, 186, 196],
    ...     "genres": ["Drama|War", "Drama", ""],
    ...     "age": [20.0, 40.0, 60.0],
    ... })
    >>> genres = MultiHot("|", missing="ignore")
    >>> encoder = FrameEncoder({"user_id": OneHot(), "genres": genres, "age": Numeric()})
    >>> X = encoder.fit_transform(train)  # (n_samples, n_features_out_) csr_array, float32
    >>> X.shape
    (3, 8)
    >>> for field, name in zip(encoder.fields_, encoder.get_feature_names_out()):
    ...     print(field, name)
    0 user_id=<unknown>
    0 user_id=<missing>
    0 user_id=196
    0 user_id=186
    1 genres=<unknown>
    1 genres=Drama
    1 genres=War
    2 age
    >>> X.toarray()[0].round(3).tolist()
    [0.0, 0.0, 1.0, 0.0, 0.0, 0.7070000171661377, 0.7070000171661377, -1.225000023841858]
    >>> encoder.transform(pd.DataFrame({"user_id": [7, 186]}), columns=["user_id"]).toarray()[:, :4].tolist()
    [[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]]
    >>> encoder.inverse_transform(X)["genres"].tolist()
    ['Drama|War', 'Drama', '']
    """

    def __init__(self, columns: Mapping[str, ColumnEncoder] | None = None) -> None:
        self.columns = columns

    def fit(self, X: Any, y: Any = None) -> Self:
        """Learn the levels, means and deviations of a frame or array of shape (n_samples, n_columns)."""
        self._fit(X, y)
        return self

    def fit_transform(self, X: Any, y: Any = None) -> csr_array:
        """Fit and encode the training rows. (n_samples, n_features_out_) csr_array, float32, int32."""
        n_rows, blocks = self._fit(X, y)
        return self._assemble(n_rows, blocks)

    def transform(self, X: Any, *, columns: Collection[str] | None = None) -> csr_array:
        """Encode with all that was fitted. (n_samples, n_features_out_) csr_array, float32, int32.

        columns: the input columns to encode. The fields of the others stay empty, and X need not have them.
        """
        check_is_fitted(self, "columns_")
        if isinstance(columns, str):
            raise TypeError(f"columns must be a collection of column names, got the text {columns!r}")
        chosen = list(self.columns_) if columns is None else list(columns)
        absent = [name for name in chosen if name not in self.columns_]
        if absent:
            raise ValueError(f"not among the encoded columns: {absent}; these are {_listed(self.columns_)}")
        frame, n_rows = self._open(X, reset=False, by_name=columns is not None)
        _require(frame, chosen)
        encoded = set(chosen)
        blocks = {name: column.encode(frame) for name, column in self.columns_.items() if name in encoded}
        return self._assemble(n_rows, blocks)

    def inverse_transform(self, X: Any) -> pd.DataFrame:
        """The frame that an encoded matrix (n_samples, n_features_out_) stands for, one column a field.

        Levels come back as they were given (integral floats as integers), numbers as float32. What the
        encoding does not keep: an unknown level is None (MultiHot: left out of its cell), as is a missing or
        empty cell; a text or datetime column shows both as NaN or NaT. A MultiHot cell is text if it has a
        `sep`, else a list, its levels in the order of their columns. A number without an entry is the mean.
        """
        check_is_fitted(self, "columns_")
        if not issparse(X):
            X = check_array(X, ensure_min_samples=0, ensure_min_features=0)
        X = csr_array(X, copy=True)
        if X.shape[1] != self.n_features_out_:
            raise ValueError(f"X has {X.shape[1]} columns, the encoder made {self.n_features_out_}")
        X.sum_duplicates()
        X.eliminate_zeros()
        starts = self._starts
        parts = {n: c.decode(X[:, starts[n] : starts[n] + c.size]) for n, c in self.columns_.items()}
        return pd.DataFrame(parts)

    def get_feature_names_out(self, input_features: Any = None) -> npt.NDArray[np.object_]:
        """Output column names: "user_id=196", "user_id=<unknown>", "age". (n_features_out_,) object"""
        check_is_fitted(self, "columns_")
        names = self.field_names_ if input_features is None else list(input_features)
        if len(names) != self.n_features_in_:
            raise ValueError(
                f"input_features should have length equal to number of features ({self.n_features_in_}), "
                f"got {len(names)}"
            )
        if hasattr(self, "feature_names_in_") and names != self.field_names_:
            raise ValueError("input_features is not equal to feature_names_in_")
        labels = (column.labels(name) for name, column in zip(names, self.columns_.values(), strict=True))
        return np.array(list(chain.from_iterable(labels)), dtype=object)

    @property
    def unknown_report_(self) -> pd.DataFrame:
        """By column, the share of rows with an unknown level and without a value at the last transform."""
        check_is_fitted(self, "columns_")
        shares = np.array(list(self._report.values()), np.float32).reshape(-1, 2)
        return pd.DataFrame(shares, index=list(self._report), columns=["unknown", "missing"])

    def to_state(self) -> State:
        """A JSON-able dict and named C-contiguous arrays (int64, uint8) that `from_state` reads."""
        check_is_fitted(self, "columns_")
        columns, arrays = [], {}
        for i, (name, column) in enumerate(self.columns_.items()):
            options = {k: int(v) if isinstance(v, Integral) else v for k, v in asdict(column.encoder).items()}
            state, own = column.to_state()
            encoder = type(column.encoder).__name__
            columns.append({"name": name, "encoder": encoder, "options": options, "state": state})
            arrays.update({f"{i}.{key}": array for key, array in own.items()})
        named, chosen = hasattr(self, "feature_names_in_"), self.columns is None
        return {"version": 1, "named": named, "chosen": chosen, "columns": columns}, arrays

    @classmethod
    def from_state(cls, meta: Any, arrays: Any) -> Self:
        """The fitted encoder that `to_state` wrote. Raises ValueError for anything malformed."""
        _expect_keys(meta, ["version", "named", "chosen", "columns"])
        if _entry(meta, "version", int) != 1:
            raise ValueError(f"encoder state of version {meta['version']}; this release reads version 1")
        parts: list[dict[str, npt.NDArray[Any]]] = [{} for _ in _entry(meta, "columns", list)]
        if not isinstance(arrays, Mapping):
            raise ValueError(f"encoder arrays must be a dict, got {type(arrays).__name__}")
        for key, array in arrays.items():
            match = re.fullmatch(r"(0|[1-9][0-9]{0,8})\.([a-z]+)", key) if isinstance(key, str) else None
            if match is None or int(match[1]) >= len(parts):
                raise ValueError(f"unexpected array {_short(key)} for {len(parts)} columns")
            parts[int(match[1])][match[2]] = array
        fitted: dict[str, _Column] = {}
        for entry, own in zip(meta["columns"], parts, strict=True):
            _expect_keys(entry, ["name", "encoder", "options", "state"])
            name, kind = _entry(entry, "name", str), _entry(entry, "encoder", str)
            if name in fitted or kind not in _BY_NAME:
                raise ValueError(f"column {_short(name)} is repeated or of unknown encoder {_short(kind)}")
            options = _entry(entry, "options", dict)
            _expect_keys(options, [field.name for field in fields(_BY_NAME[kind])])
            encoder = _BY_NAME[kind](**options)
            encoder._check(name)
            state = _entry(entry, "state", dict)
            fitted[name] = _ENCODERS[type(encoder)].from_state(name, encoder, state, own)
        if not fitted:
            raise ValueError("encoder state without columns")
        chosen, named = _entry(meta, "chosen", bool), _entry(meta, "named", bool)
        self = cls(None if chosen else {name: column.encoder for name, column in fitted.items()})
        self._settle(fitted, {}, named=named)
        return self

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.categorical = tags.input_tags.allow_nan = True
        tags.transformer_tags.preserves_dtype = []  # float32 whatever comes in
        return tags

    def _fit(self, X: Any, y: Any) -> tuple[int, dict[str, Block]]:
        frame, n_rows = self._open(X, reset=True)
        if y is not None:
            check_consistent_length(X, y)
        encoders = _choose(frame) if self.columns is None else _checked(self.columns)
        _require(frame, encoders)
        fitted: dict[str, _Column] = {}
        blocks: dict[str, Block] = {}
        for name, encoder in encoders.items():
            fitted[name], blocks[name] = _ENCODERS[type(encoder)].fit(name, encoder, frame, y)
        self._settle(fitted, blocks, named=isinstance(X, pd.DataFrame) and set(fitted) <= set(X.columns))
        return n_rows, blocks

    def _settle(self, fitted: dict[str, _Column], blocks: dict[str, Block], *, named: bool) -> None:
        self.columns_ = fitted
        self.field_names_ = list(fitted)
        sizes = [column.size for column in fitted.values()]
        self.fields_ = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
        self.n_features_in_, self.n_features_out_ = len(sizes), sum(sizes)
        self._starts = dict(zip(fitted, np.cumsum([0, *sizes]).tolist(), strict=False))
        if named:
            self.feature_names_in_ = np.array(list(fitted), dtype=object)
        elif hasattr(self, "feature_names_in_"):
            del self.feature_names_in_
        self._note(blocks)

    def _note(self, blocks: Mapping[str, Block]) -> None:
        self._report = {name: [block.unknown, block.missing] for name, block in blocks.items()}

    def _assemble(self, n_rows: int, blocks: dict[str, Block]) -> csr_array:
        self._note(blocks)
        return _stack([(self._starts[name], b) for name, b in blocks.items()], n_rows, self.n_features_out_)

    def _open(self, X: Any, *, reset: bool, by_name: bool = False) -> tuple[dict[str, pd.Series[Any]], int]:
        """The columns of X by name and the number of rows."""
        if isinstance(X, pd.DataFrame):
            repeated = list(X.columns[X.columns.duplicated()].unique())
            if repeated:
                raise ValueError(f"column names must be unique, the frame repeats {_listed(repeated)}")
            if reset and 0 in X.shape:
                raise ValueError(f"the frame has shape {X.shape}, a minimum of 1 row and 1 column is required")
            series = [X.iloc[:, i] for i in range(X.shape[1])]
            names = list(X.columns)
        else:
            if hasattr(X, "__dataframe__") or hasattr(X, "__arrow_c_stream__"):
                raise TypeError(f"a frame must be a pandas.DataFrame, got {type(X)}")
            rows = int(reset)  # fit needs one
            X = check_array(X, dtype=None, ensure_all_finite=False, ensure_min_samples=rows, estimator=self)
            series = [pd.Series(X[:, i]).infer_objects() for i in range(X.shape[1])]
            names = []
        if self.columns is None and not by_name:
            validate_data(self, X, reset=reset, skip_check_array=True)
            names = names if reset else self.field_names_
        if not any(isinstance(name, str) for name in names):
            names = [f"x{i}" for i in range(len(series))]
        return dict(zip(names, series, strict=True)), X.shape[0]


def _listed(names: Iterable[object]) -> str:
    names = list(names)
    return ", ".join(map(repr, names[:20])) + (f" and {len(names) - 20} more" if len(names) > 20 else "")


def _require(frame: Frame, names: Iterable[str]) -> None:
    absent = [name for name in names if name not in frame]
    if absent:
        raise ValueError(f"column(s) {_listed(absent)} not in the input; it has {_listed(frame)}")


def _checked(columns: object) -> dict[str, ColumnEncoder]:
    if not isinstance(columns, dict) or not columns:
        raise ValueError(f"columns must be a non-empty dict from name to encoder, got {_short(columns)}")
    for name, encoder in columns.items():
        if not isinstance(name, str):
            raise ValueError(f"column names must be str, got {type(name).__name__} {_short(name)}")
        if not isinstance(encoder, ColumnEncoder):
            raise ValueError(f"column {name!r} needs an encoder such as OneHot(), got {_short(encoder)}")
        encoder._check(name)
    return columns


def _choose(frame: Frame) -> dict[str, ColumnEncoder]:
    """An encoder for each column by its dtype; refuses what could be meant in two ways."""
    encoders: dict[str, ColumnEncoder] = {}
    integers: list[str] = []
    for name, cells in frame.items():
        dtype = cells.dtype
        categorical = isinstance(dtype, pd.CategoricalDtype) or types.is_object_dtype(dtype)
        if categorical or types.is_string_dtype(dtype) or types.is_bool_dtype(dtype):
            encoders[name] = OneHot()
        elif types.is_float_dtype(dtype) or types.is_integer_dtype(dtype):
            encoders[name] = Numeric()
            if types.is_integer_dtype(dtype):
                integers.append(name)
        else:
            raise ValueError(f"column {name!r} has dtype {dtype}: name its encoder: {{{name!r}: OneHot()}}")
    if integers and any(isinstance(encoder, OneHot) for encoder in encoders.values()):
        raise ValueError(
            f"integer column(s) {_listed(integers)} beside categories: is {integers[0]!r} an id (OneHot) "
            f"or a number (Numeric)? Name every encoder: FrameEncoder({{{integers[0]!r}: OneHot(), ...}})"
        )
    return encoders
