"""What the columns of a table are: as they are said to be, or as they look."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd
from pandas.api import types

from ..encoders import Binned, Date, FrameEncoder, MultiHot, Numeric, OneHot

__all__ = ["ROLES", "Choice", "as_dates", "choose", "encoder_of", "guess_side", "guess_target", "names_in"]

# The flag of each role, its encoder and its help.
ROLES: dict[str, tuple[Callable[..., Any], str]] = {
    "id": (OneHot, "ids and categories"),
    "multi": (MultiHot, "several categories in a cell, as in Drama|War; COLUMN:SEP for another separator"),
    "number": (Numeric, "numbers that act in proportion"),
    "bins": (Binned, "numbers that act by ranges"),
    "date": (Date, "dates and times, by year, month, weekday and hour; text as 2024-02-29 13:00, seconds since 1970"),
}
_TARGETS = ("rating", "stars", "target", "label", "click", "clicked", "y")
_LIKE_ID = re.compile(r"(^|_|\b)(id|ids|code|zip|key|uid|user|item)$|[a-z](Id|ID|Code|Key)$", re.IGNORECASE)
_LIKE_TIME = re.compile(r"(^|_)(time|timestamp|date|datetime|ts)$|[a-z](Time|Timestamp|Date)$", re.IGNORECASE)
_DATE = r"\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}.*)?"
_SIDES = {
    "user": re.compile(r"user|customer|member|visitor", re.IGNORECASE),
    "item": re.compile(r"item|movie|film|product|book|song|track|artist|article|game", re.IGNORECASE),
}
_FEW = 32  # distinct values up to which numbers are taken for names
_UNIQUE = 50  # rows from which text that never repeats is taken for no category


class Choice(NamedTuple):
    """What one column is used as."""

    column: str
    role: str  # of ROLES, or "ignored"
    encoder: Any  # None where ignored
    given: bool
    why: str


def names_in(values: Sequence[str] | str | None) -> list[str]:
    """Column names of a flag that takes several: A,B or the flag again."""
    given = [values] if isinstance(values, str) else values or []
    return [name for value in given for name in value.split(",") if name]


def guess_target(frame: pd.DataFrame) -> str:
    """The column whose name says that it is the target."""
    for name in _TARGETS:
        found = [column for column in frame.columns if str(column).lower() == name]
        if found:
            return str(found[0])
    raise ValueError(f"which column is to be predicted? name it by --target; there are {', '.join(frame.columns)}")


def guess_side(columns: Sequence[str], side: str) -> str:
    """The column whose name says that it holds the ids of users, or of items."""
    found = [column for column in columns if _SIDES[side].search(column)]
    if f"{side}_id" in columns:
        return f"{side}_id"
    if len(found) != 1:
        raise ValueError(f"which of the columns {', '.join(columns)} holds the {side}s? name it by --{side}-column")
    return found[0]


def choose(frame: pd.DataFrame, given: Mapping[str, Sequence[str]], skipped: Sequence[str]) -> list[Choice]:
    """A choice for each column but those skipped.

    Parameters
    ----------
    frame : DataFrame (n_rows, n_columns)
    given : roles, and "ignore", with the columns that were named for them
    skipped : target and weights

    Raises
    ------
    ValueError
        For a column that is not there, or has two roles, or if none is left to learn from.
    """
    said: dict[str, Choice] = {}
    for role, flags in given.items():
        for name in names_in(flags):
            column, _, sep = name.partition(":") if role == "multi" and name not in frame.columns else (name, "", "")
            if column not in frame.columns:
                raise ValueError(f"--{role} {column}: there is no such column, only {', '.join(frame.columns)}")
            if column in said or column in skipped:
                raise ValueError(f"--{role} {column}: the column already has a role")
            if role == "ignore":
                said[column] = Choice(column, "ignored", None, True, "")
                continue
            encoder = MultiHot(sep or "|") if role == "multi" else ROLES[role][0]()
            said[column] = Choice(column, role, encoder, True, "")
    choices: list[Choice] = []
    for column in frame.columns:
        if column not in skipped:
            choices.append(said[column] if column in said else _guess(frame, column, choices))
    if all(choice.encoder is None for choice in choices):
        raise ValueError("no column is left to learn from; name one by --id, --number or another role")
    return choices


def encoder_of(choices: Sequence[Choice]) -> FrameEncoder:
    return FrameEncoder({choice.column: choice.encoder for choice in choices if choice.encoder is not None})


def as_dates(frame: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """These columns as datetimes, where they are text or seconds since 1970."""
    for name in columns:
        column = frame[name]
        if not types.is_datetime64_any_dtype(column):
            try:
                read = (
                    pd.to_datetime(column, unit="s")
                    if types.is_numeric_dtype(column)
                    else pd.to_datetime(column, format="ISO8601")
                )
            except (ValueError, TypeError) as error:
                raise ValueError(
                    f"column {name!r} holds no dates as 2024-02-29 13:00, or seconds since 1970: {error}"
                ) from error
            frame = frame.assign(**{name: read})
    return frame


def _guess(frame: pd.DataFrame, name: str, before: Sequence[Choice]) -> Choice:
    column = frame[name]

    def found(role: str, why: str, encoder: Any = None) -> Choice:
        make = None if role == "ignored" else ROLES[role][0]
        return Choice(name, role, encoder if make is None or encoder is not None else make(), False, why)

    n_levels = column.nunique()
    if n_levels == 0:
        return found("ignored", "it is empty")
    if types.is_datetime64_any_dtype(column):
        return found("date", "year, month, weekday and hour")
    numeric = types.is_numeric_dtype(column) and not types.is_bool_dtype(column)
    texts = column.astype(str)[column.notna()]
    if not numeric and texts[:100].str.fullmatch(_DATE).all():
        return found("date", "year, month, weekday and hour")
    if _LIKE_TIME.search(name) and (numeric or n_levels > _FEW):
        return found("ignored", f"a time; --date {name} uses its parts, --by-time {name} holds out the latest rows")
    if numeric:
        values = column.dropna()
        if types.is_integer_dtype(column) or (values % 1 == 0).all():
            if _LIKE_ID.search(name):
                return found("id", f"{n_levels:,} levels")
            if n_levels <= _FEW:
                return found("id", f"{n_levels} values; --number {name} if they count something")
            if 0 <= values.min() <= 1 and n_levels > 0.4 * values.max():
                return found(
                    "id", f"{n_levels:,} numbers from {values.min():g} on; --bins {name} if they count something"
                )
        return found("bins", f"{values.min():g} to {values.max():g}")
    if texts.str.contains("|", regex=False).mean() > 0.05:
        return found("multi", f"{texts.str.split('|').explode().nunique():,} levels between |", MultiHot("|"))
    if n_levels == len(column) >= _UNIQUE:
        return found("ignored", f"every value differs; --id {name} uses it")
    for other in before:
        if other.role == "id" and n_levels > _FEW and _repeats(frame, other.column, name):
            return found("ignored", f"it says what {other.column} says; --id {name} uses it")
    return found("id", f"{n_levels:,} levels")


def _repeats(frame: pd.DataFrame, one: str, other: str) -> bool:
    """Whether the second column follows from the first and tells nearly as much apart, as a title beside its id."""
    pairs = frame[[one, other]].drop_duplicates()
    return len(pairs) == frame[one].nunique(dropna=False) and pairs[other].nunique() > 0.9 * len(pairs)
