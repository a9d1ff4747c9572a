"""Levels and their numbers: what a cell stands for, the distinct levels of a column, and `Vocabulary`."""

from __future__ import annotations

import math
import operator
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from itertools import pairwise, repeat
from typing import Any, Self, cast

import numpy as np
import numpy.typing as npt
import pandas as pd
from pandas.api import types

from .field import MISSING, UNKNOWN, Ints, State, _array, _entry, _expect_keys, _short

Level = str | int | float | bool | pd.Timestamp


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
    elif isinstance(value, (date, np.datetime64)):
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


def _keys(levels: Sequence[Level]) -> Iterable[object]:
    return map(_key, levels) if bool in set(map(type, levels)) else levels


def _factorize(cells: pd.Series[Any], column: str) -> tuple[Ints, list[Level]]:
    """Codes (n_rows,), -1 where missing, and the distinct levels in the order of their first appearance."""
    if isinstance(cells.dtype, pd.DatetimeTZDtype):
        cells = cells.dt.tz_convert("UTC")
    try:
        codes, index = pd.factorize(cells.to_numpy() if cells.dtype == object else cells)
        # Arrow's own tolist makes its objects one by one
        uniques = (np.asarray(index, object) if types.is_string_dtype(index.dtype) else index).tolist()
        kinds = set(map(type, uniques))
    except TypeError:  # a cell that is not hashable
        kinds = {object}
    if cells.dtype == object and kinds != {str} and types.infer_dtype(cells, skipna=True) in ("mixed", "mixed-integer"):
        codes, uniques = _factorize_mixed(cells, column)
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
        self._numbers: dict[object, int] = {}  # of the first levels, the rest when first asked
        self._file()

    def __len__(self) -> int:
        return len(self.levels)

    def _file(self) -> dict[object, int]:
        filed = len(self._numbers)
        if filed < len(self.levels):
            more = dict(zip(_keys(self.levels[filed:]), range(filed, len(self.levels)), strict=True))
            if filed:
                self._numbers.update(more)
            else:
                self._numbers = more
            if len(self._numbers) != len(self.levels):
                raise ValueError("a vocabulary holds each level once, got a repeated level")
        return self._numbers

    def extend(self, levels: Iterable[Level]) -> None:
        """Takes in levels, which must be new, behind those that are here."""
        self.levels.extend(levels)

    def numbers(self, levels: Sequence[Level]) -> Ints:
        """The number of each level, -1 for one that is not here. (n,) int64"""
        if len(levels) == len(self.levels) and all(map(operator.is_, levels, self.levels)):  # of the rows just counted
            return np.arange(len(levels))
        return np.fromiter(map(self._file().get, _keys(levels), repeat(-1)), np.int64, len(levels))

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
