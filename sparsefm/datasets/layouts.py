"""The files of MovieLens' layouts: which there are, and how each is cut into columns and checked.

Ratings go through pandas' C parser, which is fast and forgiving: it fills short rows and drops what it does not
understand. So its result is checked as a whole, and only when a check fails is the file read again line by line, to
say in which line the fault lies. All other files are small and are read that way at once.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd


class DataFileError(ValueError):
    """A data file that is not what its layout says; the message names file and line."""


# ---------------------------------------------------------------------------------------------- layouts

_RATING = ("user_id", "item_id", "rating", "timestamp")

# table -> (file, separator, columns); columns of None stand in the file's first line. In a RecBole file name
# the * is the data set's name.
_Layout = dict[str, tuple[str, str, Sequence[str] | None]]
_LAYOUTS: dict[str, _Layout] = {
    "ml-100k": {
        "genres": ("u.genre", "|", ("genre", "number")),  # before the items, whose columns they are
        "ratings": ("u.data", "\t", _RATING),
        "users": ("u.user", "|", ("user_id", "age", "gender", "occupation", "zip_code")),
        "items": ("u.item", "|", ("item_id", "title", "release_date", "video_release_date", "imdb_url")),
    },
    "ml-1m": {
        "ratings": ("ratings.dat", "::", _RATING),
        "users": ("users.dat", "::", ("user_id", "gender", "age", "occupation", "zip_code")),
        "items": ("movies.dat", "::", ("item_id", "title", "genres")),
    },
    "ml-10m": {
        "ratings": ("ratings.dat", "::", _RATING),
        "items": ("movies.dat", "::", ("item_id", "title", "genres")),
        "tags": ("tags.dat", "::", ("user_id", "item_id", "tag", "timestamp")),
    },
    "ml-csv": {
        "ratings": ("ratings.csv", ",", None),
        "items": ("movies.csv", ",", None),
        "tags": ("tags.csv", ",", None),
        "links": ("links.csv", ",", None),
    },
    "recbole": {
        "ratings": ("*.inter", "\t", None),
        "users": ("*.user", "\t", None),
        "items": ("*.item", "\t", None),
    },
}
# tables without which a layout is incomplete; the rest are optional
_NEEDED = {
    "ml-100k": ("ratings", "users", "items"),
    "ml-1m": ("ratings", "users", "items"),
    "ml-10m": ("ratings", "items"),
    "ml-csv": ("ratings", "items"),
    "recbole": ("ratings",),
}
# headers of the CSV and the RecBole files -> our names, and what each table must have
_RENAMED = {
    "userId": "user_id",
    "movieId": "item_id",
    "imdbId": "imdb_id",
    "tmdbId": "tmdb_id",
    "movie_title": "title",
    "release_year": "year",
    "class": "genres",
    "genre": "genres",
}
_REQUIRED = {
    "ratings": _RATING,
    "users": ("user_id",),
    "items": ("item_id", "title", "genres"),
    "tags": ("user_id", "item_id", "tag", "timestamp"),
    "links": ("item_id", "imdb_id", "tmdb_id"),
}
_EXPECTED = (
    "MovieLens 100K (u.data, u.user, u.item), 1M (ratings.dat, users.dat, movies.dat), 10M (ratings.dat, "
    "movies.dat), 20M, 25M, 32M or latest (ratings.csv, movies.csv), or RecBole's files (*.inter, *.user, "
    "*.item)"
)


# ------------------------------------------------------------------------------------------- reading files


@dataclass(frozen=True)
class _Table:
    """One text file: its bytes, and how they are to be cut into fields."""

    name: str
    data: bytes
    encoding: str
    sep: str
    columns: Sequence[str]
    has_header: bool

    def error(self, line: int, message: str) -> DataFileError:
        return DataFileError(f"{self.name}, line {line}: {message}")

    def rows(self) -> Iterator[tuple[int, dict[str, str]]]:
        """Line number and fields by column, blank lines left out; every other line must be complete."""
        for line, fields in _split(self.name, self.data.decode(self.encoding), self.sep, self.has_header):
            if len(fields) != len(self.columns):
                expected = f"{len(self.columns)} fields ({', '.join(self.columns)})"
                raise self.error(line, f"expected {expected}, found {len(fields)}")
            yield line, dict(zip(self.columns, fields, strict=True))

    def number(self, line: int, row: dict[str, str], column: str) -> float:
        try:
            value = math.nan if "_" in row[column] else float(row[column])  # 1_0 is a number to Python only
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise self.error(line, f"{column} must be a finite number, found {row[column]!r}")
        return value

    def integer(self, line: int, row: dict[str, str], column: str) -> int:
        value = self.number(line, row, column)
        if not value.is_integer() or abs(value) >= 2**53:
            raise self.error(line, f"{column} must be a whole number, found {row[column]!r}")
        return int(value)

    def id(self, line: int, row: dict[str, str], column: str) -> str:
        if not row[column]:
            raise self.error(line, f"{column} is empty")
        return row[column]


def _split(name: str, text: str, sep: str, skip_first: bool) -> Iterator[tuple[int, list[str]]]:
    """Records with the number of the line they begin in. Only the comma-separated files know quotes."""
    if sep != ",":
        # not splitlines(), which also breaks lines at characters that occur inside titles
        for line, record in enumerate(text.split("\n"), start=1):
            record = record.removesuffix("\r")
            if record.strip(" ") and not (skip_first and line == 1):
                yield line, record.split(sep)
        return
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    line = 1
    try:
        for fields in reader:
            if fields and not (skip_first and line == 1):
                yield line, fields
            line = reader.line_num + 1
    except csv.Error as error:
        raise DataFileError(f"{name}, line {line}: {error}") from error


def _open_table(table: str, name: str, data: bytes, sep: str, columns: Sequence[str] | None) -> _Table:
    data = data.removeprefix(b"\xef\xbb\xbf")
    if not data.strip():
        raise DataFileError(f"{name}: the file is empty")
    encoding = "utf-8"
    if not data.isascii():
        try:
            data.decode(encoding)
        except UnicodeDecodeError as error:
            # 100K and 1M are latin-1, in which any byte is a character; files with a header are UTF-8
            if columns is None:
                line = data.count(b"\n", 0, error.start) + 1
                raise DataFileError(f"{name}, line {line}: not UTF-8 text ({error.reason})") from error
            encoding = "latin-1"
    if sep == "::":
        # pandas' C parser wants one character; U+001F is the character meant for it. In "Title:::Drama" the
        # first colon is the title's.
        sep = "\x1f"
        if (at := data.find(b"\x1f")) >= 0:
            line = data.count(b"\n", 0, at) + 1
            raise DataFileError(f"{name}, line {line}: found the control character 0x1F")
        data = re.sub(rb"::(?!:)", b"\x1f", data) if b":::" in data else data.replace(b"::", b"\x1f")
    if columns is not None:
        return _Table(name, data, encoding, sep, columns, has_header=False)

    _, header = next(_split(name, data.partition(b"\n")[0].decode(encoding), sep, skip_first=False), (1, []))
    # RecBole writes the type behind the name: user_id:token
    columns = [_RENAMED.get(bare, bare) for bare in (column.partition(":")[0].strip() for column in header)]
    missing = [column for column in _REQUIRED[table] if column not in columns]
    if missing or len(set(columns)) < len(columns):
        what = f"no column {', '.join(missing)}" if missing else "two columns of one name"
        raise DataFileError(f"{name}, line 1: the header has {what}; it reads {', '.join(header)}")
    return _Table(name, data, encoding, sep, columns, has_header=True)


@dataclass(frozen=True)
class _Ratings:
    """Ratings before it is known whether ids are numbers: each id column as (codes, distinct ids)."""

    user: tuple[npt.NDArray[np.intp], list[str]]
    item: tuple[npt.NDArray[np.intp], list[str]]
    rating: npt.NDArray[np.float64]
    timestamp: npt.NDArray[np.float64]


def _read_ratings(table: _Table) -> _Ratings:
    ratings = _parse_ratings(table)
    if ratings is not None:
        return ratings
    n_rows = 0
    for line, row in table.rows():
        table.id(line, row, "user_id")
        table.id(line, row, "item_id")
        table.number(line, row, "rating")
        table.integer(line, row, "timestamp")
        n_rows += 1
    if n_rows == 0:
        raise DataFileError(f"{table.name}: no ratings below the header")
    raise DataFileError(f"{table.name}: these {n_rows:,} lines are not plain numbers and ids")


def _parse_ratings(table: _Table) -> _Ratings | None:
    """Ratings by pandas' C parser; None if there is anything wrong with any line."""
    # as text, and object is the fastest: numbers would lose leading zeros, and pandas 3 makes numbers of
    # categories too
    dtypes: dict[str, Any] = dict.fromkeys(table.columns, object)
    dtypes |= {"rating": "float64", "timestamp": "float64"}
    try:
        frame = pd.read_csv(
            io.BytesIO(table.data),
            sep=table.sep,
            header=None,
            names=list(table.columns),
            skiprows=int(table.has_header),
            dtype=dtypes,
            na_filter=False,
            quoting=csv.QUOTE_MINIMAL if table.sep == "," else csv.QUOTE_NONE,
            encoding=table.encoding,
            low_memory=False,
        )
    except (ValueError, OverflowError):  # ParserError and EmptyDataError are ValueErrors
        return None
    user_codes, users = pd.factorize(frame["user_id"].to_numpy(object))
    item_codes, items = pd.factorize(frame["item_id"].to_numpy(object))
    rating = frame["rating"].to_numpy(np.float64)
    timestamp = frame["timestamp"].to_numpy(np.float64)
    # A row that is too short has no timestamp and was refused above; then as many separators as rows should
    # have means that none is too long.
    n_separators = (len(frame) + table.has_header) * (len(table.columns) - 1)
    if not (
        len(frame) > 0
        and table.data.count(table.sep.encode()) == n_separators
        and "" not in users
        and "" not in items
        and np.isfinite(rating).all()
        and (np.abs(timestamp) < 2**53).all()
        and (timestamp == np.trunc(timestamp)).all()
    ):
        return None
    return _Ratings((user_codes, users.tolist()), (item_codes, items.tolist()), rating, timestamp)


# Columns of a small frame, ids still as text.
_Columns = dict[str, list[Any]]

# the year that ends a title, perhaps a span of years, perhaps before a mark such as (V) or (TV)
_YEAR = re.compile(r"(.*\S)\s*\((1[89]\d\d|20\d\d)(?:\s*[-–]\s*(?:\d{4})?)?\s*\)(.*)")
_MARK = re.compile(r"\s*(\([A-Z]+\))?\s*")


def _title_and_year(text: str) -> tuple[str | None, int | None]:
    match = _YEAR.fullmatch(text)
    if match is None:
        return text.strip() or None, None
    title, year, rest = match.groups()
    return (title if _MARK.fullmatch(rest) else title + rest).strip(), int(year)


def _genres(text: str, sep: str) -> str | None:
    if text in ("", "unknown", "(no genres listed)"):
        return None
    return text.replace(sep, "|")


def _read_users(table: _Table) -> _Columns:
    attributes = [c for c in ("age", "gender", "occupation", "zip_code") if c in table.columns]
    users: _Columns = {column: [] for column in ("user_id", *attributes)}
    for line, row in table.rows():
        users["user_id"].append(table.id(line, row, "user_id"))
        for column in attributes:
            value = row[column] or None
            users[column].append(table.integer(line, row, "age") if value and column == "age" else value)
    _check_distinct(table, "user_id", users["user_id"])
    return users


def _read_items(table: _Table, flags: Sequence[str]) -> _Columns:
    """Items of any layout; `flags` are the genres that ml-100k has as columns of 0 and 1."""
    kept = [column for column in ("release_date", "imdb_url") if column in table.columns]
    items: _Columns = {column: [] for column in ("item_id", "title", "year", "genres", *kept)}
    # RecBole separates genres by blanks, and none of MovieLens' genres has a blank in it
    sep = " " if table.sep == "\t" else "|"
    for line, row in table.rows():
        title, year = _title_and_year(row["title"])
        if re.fullmatch(r"\d{4}", row.get("year", "")):
            year = int(row["year"])
        if flags:
            if wrong := [f"{row[flag]!r} for {flag}" for flag in flags if row[flag] not in ("0", "1")]:
                raise table.error(line, f"a genre must be 0 or 1, found {wrong[0]}")
            genres = _genres("|".join(flag for flag in flags if row[flag] == "1"), "|")
        else:
            genres = _genres(row["genres"], sep)
        items["item_id"].append(table.id(line, row, "item_id"))
        items["title"].append(title)
        items["year"].append(year)
        items["genres"].append(genres)
        for column in kept:
            items[column].append(row[column] or None)
    _check_distinct(table, "item_id", items["item_id"])
    return items


def _read_tags(table: _Table) -> _Columns:
    tags: _Columns = {column: [] for column in ("user_id", "item_id", "tag", "timestamp")}
    for line, row in table.rows():
        tags["user_id"].append(table.id(line, row, "user_id"))
        tags["item_id"].append(table.id(line, row, "item_id"))
        tags["tag"].append(row["tag"])
        tags["timestamp"].append(table.integer(line, row, "timestamp"))
    return tags


def _read_links(table: _Table) -> _Columns:
    links: _Columns = {column: [] for column in ("item_id", "imdb_id", "tmdb_id")}
    for line, row in table.rows():
        links["item_id"].append(table.id(line, row, "item_id"))
        links["imdb_id"].append(row["imdb_id"] or None)
        links["tmdb_id"].append(row["tmdb_id"] or None)
    return links


def _check_distinct(table: _Table, column: str, values: list[str]) -> None:
    if len(set(values)) == len(values):
        return
    first: dict[str, int] = {}
    for line, row in table.rows():
        if first.setdefault(row[column], line) != line:
            raise table.error(line, f"{column} {row[column]!r} is in line {first[row[column]]} already")
