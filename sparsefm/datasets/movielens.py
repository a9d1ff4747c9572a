"""MovieLens in every layout GroupLens has published, and in RecBole's, read into the same three frames.

A layout is a few text files of fixed names. They are read where they lie, in a folder or inside a zip, and
nothing is ever extracted. Ratings go through pandas' C parser, which is fast and forgiving: it fills short
rows and drops what it does not understand. So its result is checked as a whole, and only when a check fails
is the file read again line by line, to say in which line the fault lies. All other files are small and are
read that way at once.

Harper and Konstan (2015), The MovieLens Datasets: History and Context, ACM TiiS 5(4).
"""

from __future__ import annotations

import csv
import io
import math
import re
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

__all__ = ["DataFileError", "MovieLens", "fetch_movielens", "load_movielens"]


class DataFileError(ValueError):
    """A data file that is not what its layout says; the message names file and line."""


@dataclass(frozen=True, eq=False, repr=False)
class MovieLens:
    """Ratings with the users and the items they are about; what `load_movielens` and `make_ratings` return.

    Ids are as in the files, never renumbered: int64 in all frames if every user and item id of the data set
    equals ``str(int(id))``, else text in all frames (ids with leading zeros are text). Every id of `ratings`
    has exactly one row in `users` and one in `items`. Text columns have pandas' own text dtype (``str``, or
    ``object`` before pandas 3), with missing values where the file has none.

    Attributes
    ----------
    name : str
        The layout: "ml-100k", "ml-1m", "ml-10m", "ml-csv" (20M, 25M, 32M and latest), "generated", or the
        name before ``.inter`` for RecBole's files.
    ratings : DataFrame (n_ratings, 4)
        user_id, item_id, rating (float64), timestamp (int64, seconds since 1970, UTC), in the file's order.
    users : DataFrame (n_users, ...)
        user_id and, where the layout has them, age (Int64, years; in ml-1m the lowest age of a bracket),
        gender, occupation, zip_code (text; in ml-1m occupation is a code).
    items : DataFrame (n_items, ...)
        item_id, title (text, without the year), year (Int64, missing if the title has none), genres (text,
        joined by "|", missing if there are none); in ml-100k also release_date and imdb_url (text, as in
        the file).
    tags : DataFrame or None
        user_id, item_id, tag, timestamp.
    links : DataFrame or None
        item_id, imdb_id, tmdb_id (text).

    Examples
    --------
    >>> from sparsefm.datasets import make_ratings
    >>> ml = make_ratings(30, 40, 600, random_state=0)
    >>> ml
    MovieLens(generated: 600 ratings, 30 users, 40 items)
    >>> ml.ratings.merge(ml.users, on="user_id").merge(ml.items, on="item_id").shape
    (600, 11)
    """

    name: str
    ratings: pd.DataFrame
    users: pd.DataFrame
    items: pd.DataFrame
    tags: pd.DataFrame | None = None
    links: pd.DataFrame | None = None

    def __repr__(self) -> str:
        parts = [f"{len(self.ratings):,} ratings", f"{len(self.users):,} users", f"{len(self.items):,} items"]
        if self.tags is not None:
            parts.append(f"{len(self.tags):,} tags")
        return f"MovieLens({self.name}: {', '.join(parts)})"

    def fold(self, fold: int | str) -> tuple[pd.DataFrame, pd.DataFrame]:
        """One of the seven splits that are distributed with MovieLens 100K, as ``(train, test)``.

        They follow from the order of the ratings (GroupLens' mku.sh and allbut.pl): the test set of fold k
        is rows (k - 1) * 20,000 up to k * 20,000; those of "ua" and "ub" are every user's first and next ten
        ratings. Generated ratings of the same size can be split likewise: their order is random too.

        Parameters
        ----------
        fold : {1, 2, 3, 4, 5, "ua", "ub"}
            Folds 1 to 5 are a five-fold cross-validation; "ua" and "ub" have ten test ratings for each user.

        Returns
        -------
        train, test : DataFrames (80,000, 4) and (20,000, 4); with "ua" and "ub" (90,570, 4) and (9,430, 4)
            The columns of `ratings`, in its order and with its index.

        Raises
        ------
        ValueError
            If `fold` is none of these, or the data set is not MovieLens 100K.

        Examples
        --------
        >>> from sparsefm.datasets import make_ratings
        >>> train, test = make_ratings(random_state=0).fold(1)
        >>> len(train), len(test)
        (80000, 20000)
        """
        if self.name not in ("ml-100k", "generated") or len(self.ratings) != 100_000:
            raise ValueError(
                f"canonical folds exist for MovieLens 100K and its 100,000 ratings only, this is {self!r}; "
                "split it with sparsefm.splits (by_time, leave_last_out, random, cold_users, cold_items)"
            )
        # a bool is an int to Python, but fold(True) can only be a mistake
        if isinstance(fold, int) and not isinstance(fold, bool) and 1 <= fold <= 5:
            row = np.arange(len(self.ratings))
            in_test = (row >= (fold - 1) * 20_000) & (row < fold * 20_000)
        elif fold in ("ua", "ub"):
            nth = self.ratings.groupby("user_id").cumcount().to_numpy()
            in_test = nth < 10 if fold == "ua" else (nth >= 10) & (nth < 20)
        else:
            raise ValueError(f'fold must be 1, 2, 3, 4, 5, "ua" or "ub", got {fold!r}')
        return self.ratings[~in_test], self.ratings[in_test]


# ---------------------------------------------------------------------------------------------- layouts

_RATING = ("user_id", "item_id", "rating", "timestamp")
_GENRES_100K = (  # noqa: SIM905
    "unknown Action Adventure Animation Children's Comedy Crime Documentary Drama Fantasy Film-Noir Horror "
    "Musical Mystery Romance Sci-Fi Thriller War Western"
).split()

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


# ------------------------------------------------------------------------------------------ building frames


def _is_plain_integer(text: str) -> bool:
    try:
        return str(int(text)) == text and -(2**63) <= int(text) < 2**63
    except ValueError:
        return False


def _text(values: list[Any]) -> pd.Series[Any]:
    # the dtype this pandas gives text: str, or object before pandas 3
    return pd.Series(values, dtype=pd.Series([""]).dtype)


def _ids(values: list[str], as_int: bool) -> Any:
    return np.array([int(value) for value in values], dtype=np.int64) if as_int else _text(values)


def _frame(columns: _Columns, as_int: bool) -> pd.DataFrame:
    built: dict[str, Any] = {}
    for column, values in columns.items():
        if column in ("user_id", "item_id"):
            built[column] = _ids(values, as_int)
        elif column in ("age", "year"):
            built[column] = pd.array(values, dtype="Int64")
        elif column == "timestamp":
            built[column] = np.array(values, dtype=np.int64)
        else:
            built[column] = _text(values)
    return pd.DataFrame(built)


def _complete(columns: _Columns, key: str, rated: Iterable[str]) -> None:
    """Append the ids that only the ratings have, in order of appearance, their attributes missing."""
    known = set(columns[key])
    for value in rated:
        if value not in known:
            for column, values in columns.items():
                values.append(value if column == key else None)


def _build(name: str, tables: dict[str, _Table], flags: Sequence[str]) -> MovieLens:
    ratings = _read_ratings(tables["ratings"])
    users = _read_users(tables["users"]) if "users" in tables else {"user_id": []}
    items: _Columns = {"item_id": [], "title": [], "year": [], "genres": []}
    if "items" in tables:
        items = _read_items(tables["items"], flags)
    tags = _read_tags(tables["tags"]) if "tags" in tables else None
    links = _read_links(tables["links"]) if "links" in tables else None

    user_codes, user_levels = ratings.user
    item_codes, item_levels = ratings.item
    _complete(users, "user_id", user_levels)
    _complete(items, "item_id", item_levels)

    every = {*users["user_id"], *items["item_id"]}
    for extra in (tags, links):
        if extra is not None:
            every.update(*(extra[key] for key in ("user_id", "item_id") if key in extra))
    as_int = all(map(_is_plain_integer, every))

    def column(codes: npt.NDArray[np.intp], levels: list[str]) -> Any:
        return pd.Series(_ids(levels, as_int)).take(codes).array

    return MovieLens(
        name=name,
        ratings=pd.DataFrame(
            {
                "user_id": column(user_codes, user_levels),
                "item_id": column(item_codes, item_levels),
                "rating": ratings.rating,
                "timestamp": ratings.timestamp.astype(np.int64),
            }
        ),
        users=_frame(users, as_int),
        items=_frame(items, as_int),
        tags=None if tags is None else _frame(tags, as_int),
        links=None if links is None else _frame(links, as_int),
    )


# ------------------------------------------------------------------------------------------ the front door


def _find(names: Iterable[str]) -> list[tuple[str, str, PurePosixPath]]:
    """(layout, data set's name, ratings file) of every data set among these files."""
    found = []
    every = set(names)
    for path in map(PurePosixPath, sorted(every)):
        if path.name == "u.data":
            found.append(("ml-100k", "ml-100k", path))
        elif path.name == "ratings.dat":
            layout = "ml-1m" if str(path.with_name("users.dat")) in every else "ml-10m"
            found.append((layout, layout, path))
        elif path.name == "ratings.csv":
            found.append(("ml-csv", "ml-csv", path))
        elif path.suffix == ".inter":
            found.append(("recbole", path.stem, path))
    return found


def _load(where: str, names: Iterable[str], read: Callable[[str], bytes]) -> MovieLens:
    # folders, and what file managers add (.DS_Store, ._u.data, __MACOSX/), are no data
    hidden = (".", "__MACOSX")
    names = [
        name
        for name in names
        if not name.endswith("/") and not any(part.startswith(hidden) for part in PurePosixPath(name).parts)
    ]
    found = _find(names)
    if len(found) != 1:
        seen = [str(path) for _, _, path in found] or sorted(names)
        listed = ", ".join(seen[:12]) + (f" and {len(seen) - 12:,} more" if len(seen) > 12 else "")
        count = f"{len(found)} data sets" if found else "no data set"
        advice = "name the folder that holds just one" if found else f"expected the files of {_EXPECTED}"
        raise DataFileError(f"{where}: found {count} ({listed or 'no files'}); {advice}")
    layout, name, ratings_path = found[0]

    tables: dict[str, _Table] = {}
    flags: list[str] = []
    for table, (pattern, sep, columns) in _LAYOUTS[layout].items():
        path = str(ratings_path.with_name(pattern.replace("*", name)))
        if path not in names:
            if table in _NEEDED[layout]:
                beside = [n for n in names if PurePosixPath(n).parent == ratings_path.parent]
                raise DataFileError(
                    f"{where}: the {layout} layout needs {path} beside {ratings_path}; found {', '.join(beside)}"
                )
            continue
        if table == "items" and layout == "ml-100k" and columns is not None:
            flags = _GENRES_100K
            if "genres" in tables:
                flags = [row["genre"] for _, row in tables["genres"].rows()]
            columns = (*columns, *flags)
        tables[table] = _open_table(table, path, read(path), sep, columns)
    return _build(name, tables, flags)


def load_movielens(path: str | Path) -> MovieLens:
    """Read MovieLens, or any data set in one of its layouts, from where it lies.

    The layout is recognised by its files, which may lie in a folder of any depth:

    ===================  ==========================================================================
    100K                 u.data, u.user, u.item (and u.genre)
    1M                   ratings.dat, users.dat, movies.dat
    10M                  ratings.dat, movies.dat (and tags.dat)
    20M, 25M, 32M, latest  ratings.csv, movies.csv (and tags.csv, links.csv)
    RecBole              NAME.inter (and NAME.user, NAME.item), tab-separated with typed headers
    ===================  ==========================================================================

    Parameters
    ----------
    path : str or Path
        A folder, a .zip or a .whl that holds exactly one data set. Archives are read in memory.

    Returns
    -------
    MovieLens
        The frames `ratings`, `users`, `items` and, where there are any, `tags` and `links`; see there.

    Raises
    ------
    FileNotFoundError
        If there is nothing at `path`.
    DataFileError
        If there is no data set or more than one, or a file is malformed: a wrong number of fields, a rating
        or timestamp that is no finite number, an empty id, a second row for an item or a user, text that
        cannot be decoded, a header without the columns needed. The message names file and line.

    Examples
    --------
    >>> from sparsefm.datasets import load_movielens
    >>> ml = load_movielens("datasets/tiny/ml-1m")  # doctest: +SKIP
    >>> train, test = load_movielens("ml-100k.zip").fold(1)  # doctest: +SKIP
    """
    path = Path(path)
    if path.is_dir():
        names = [p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file()]
        return _load(str(path), names, lambda name: (path / name).read_bytes())
    if not path.exists():
        raise FileNotFoundError(
            f"there is no folder or archive at {path}; "
            "fetch_movielens downloads MovieLens, make_ratings makes up its like"
        )
    if not zipfile.is_zipfile(path):
        raise DataFileError(f"{path} is neither a folder nor a whole zip or wheel; expected {_EXPECTED}")

    try:
        opened = zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        raise DataFileError(f"{path} is a damaged archive: {error}") from error
    with opened as archive:

        def read(name: str) -> bytes:
            try:
                return archive.read(name)
            # RuntimeError: encrypted, or compressed in a way this Python lacks
            except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
                raise DataFileError(f"{path}: {name} cannot be read from the archive: {error}") from error

        return _load(str(path), archive.namelist(), read)


# MD5 sums as GroupLens publishes them. The "latest" sets change, so nothing could be checked about them.
_MD5 = {
    "ml-100k": "0e33842e24a9c977be4e0107933c0723",
    "ml-1m": "c4d9eecfca2ab87c1945afe126590906",
    "ml-10m": "ce571fd55effeba0271552578f2648bd",
    "ml-20m": "cd245b17a1ae2cc31bb14903e1204af3",
    "ml-25m": "6b51fb2759a8657d3bfcbfc42b592ada",
    "ml-32m": "d472be332d4daa821edc399621853b57",
}


def fetch_movielens(name: str = "ml-100k", *, cache_dir: str | Path | None = None) -> MovieLens:
    """Download MovieLens from GroupLens, once, and read it.

    The archive is checked against GroupLens' MD5 sum and kept; a later call reads the copy. The data may be
    used under GroupLens' terms, which do not allow redistribution.

    Parameters
    ----------
    name : {"ml-100k", "ml-1m", "ml-10m", "ml-20m", "ml-25m", "ml-32m"}
        The data set.
    cache_dir : str or Path, optional
        Where the archive is kept; the user's cache folder if not given.

    Returns
    -------
    MovieLens

    Raises
    ------
    ImportError
        If pooch is not installed: ``pip install sparsefm[data]``.
    OSError
        If the download fails.
    ValueError
        If the name is not known, or the checksum does not match.

    Examples
    --------
    >>> ml = fetch_movielens("ml-100k")  # doctest: +SKIP
    """
    if name not in _MD5:
        raise ValueError(
            f"unknown data set {name!r}; known are {', '.join(_MD5)}. "
            "Anything else in a MovieLens layout can be downloaded by hand and read by load_movielens"
        )
    try:
        import pooch
    except ImportError as error:
        raise ImportError("fetch_movielens downloads with pooch: pip install sparsefm[data]") from error
    url = f"https://files.grouplens.org/datasets/movielens/{name}.zip"
    try:
        archive = pooch.retrieve(
            url=url,
            known_hash=f"md5:{_MD5[name]}",
            fname=f"{name}.zip",
            path=pooch.os_cache("sparsefm") if cache_dir is None else cache_dir,
        )
    except OSError as error:
        raise OSError(
            f"could not download {url} ({error}); get it in another way and pass the file to load_movielens"
        ) from error
    return load_movielens(archive)
