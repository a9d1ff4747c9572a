"""Columns of texts as columns of a dtype: what dtype they settle for, and which text is no value of it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from .movielens import _is_plain_integer, _text

# What a user may ask for. The readers know three more: "any" and "token" are to be settled by the first chunk,
# a token never as float64; "token_seq" and "hour" are what RecBole and Avazu write.
_DTYPES = ("str", "int64", "Int64", "float64")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?|nan", re.IGNORECASE)
_INTEGER = re.compile(r"[+-]?[0-9]+")


def _is_number(text: str) -> bool:
    return _NUMBER.fullmatch(text) is not None and not math.isinf(float(text))


def _settle(levels: Iterable[str], floats: bool) -> str:
    """The dtype of a column with these distinct texts; an integer must be a plain one, so that 007 is text."""
    levels = set(levels)
    gaps = "" in levels
    levels.discard("")
    if levels and all(map(_is_plain_integer, levels)):
        return "Int64" if gaps else "int64"
    # beyond 2**53 a float is another number than the text
    if floats and all(
        _is_number(level) and (not _INTEGER.fullmatch(level) or (_is_plain_integer(level) and abs(int(level)) <= 2**53))
        for level in levels
    ):
        return "float64" if levels else "str"
    return "str"


def _integer(text: str) -> int:
    if not _is_plain_integer(text):
        raise ValueError
    return int(text)


def _float(text: str) -> float:
    if not _is_number(text):
        raise ValueError
    return float(text)


def _sequence(text: str) -> str:
    if "|" in text:
        raise ValueError
    return "|".join(text.split(" "))


def _hour(text: str) -> datetime:
    if not re.fullmatch(r"[0-9]{8}", text):
        raise ValueError
    return datetime.strptime(text, "%y%m%d%H")


_PARSERS: dict[str, Callable[[str], Any]] = {
    "str": str,
    "int64": _integer,
    "Int64": _integer,
    "float64": _float,
    "token_seq": _sequence,
    "hour": _hour,
}
_EXPECTED = {
    "int64": "an integer without gaps",
    "Int64": "an integer or a gap",
    "float64": "a finite number or a gap",
    "token_seq": "words without a |",
    "hour": "an hour as YYMMDDHH",
}


class _MisfitError(ValueError):
    """The value in a row is not what the dtype says."""

    def __init__(self, row: int, text: str) -> None:
        self.row, self.text = row, text


def _convert(texts: npt.NDArray[np.object_], dtype: str) -> pd.Series[Any]:
    """(n,) texts, empty where there is a gap, as a column; each distinct text is parsed once."""
    parse = _PARSERS[dtype]
    codes, levels = pd.factorize(texts)
    values: list[Any] = []
    misfits = []
    for code, level in enumerate(levels):
        try:
            if level == "" and dtype == "int64":
                raise ValueError
            values.append(None if level == "" else parse(level))
        except ValueError:
            misfits.append(code)
    if misfits:
        row = int(np.flatnonzero(np.isin(codes, misfits))[0])
        raise _MisfitError(row, texts[row])
    if dtype in ("str", "token_seq"):
        column = _text(values)
    else:
        column = pd.Series(values, dtype="datetime64[s]" if dtype == "hour" else dtype)
    return column.take(codes).reset_index(drop=True)
