"""MovieLens in every layout GroupLens has published, and in RecBole's, read into the same three frames.

A layout is a few text files of fixed names (`layouts.py`). They are read where they lie, in a folder or inside a zip,
and nothing is ever extracted.

Harper and Konstan (2015), The MovieLens Datasets: History and Context, ACM TiiS 5(4).
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from .layouts import (
    _EXPECTED,
    _LAYOUTS,
    _NEEDED,
    DataFileError,
    _Columns,
    _open_table,
    _read_items,
    _read_links,
    _read_ratings,
    _read_tags,
    _read_users,
    _Table,
)

__all__ = ["DataFileError", "MovieLens", "fetch_movielens", "load_movielens"]


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

# what the flags of u.item mean where u.genre is absent
_GENRES_100K = (  # noqa: SIM905
    "unknown Action Adventure Animation Children's Comedy Crime Documentary Drama Fantasy Film-Noir Horror "
    "Musical Mystery Romance Sci-Fi Thriller War Western"
).split()


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

    ======================  ====================================================================
    100K                    u.data, u.user, u.item (and u.genre)
    1M                      ratings.dat, users.dat, movies.dat
    10M                     ratings.dat, movies.dat (and tags.dat)
    20M, 25M, 32M, latest   ratings.csv, movies.csv (and tags.csv, links.csv)
    RecBole                 NAME.inter (and NAME.user, NAME.item), tab-separated, typed headers
    ======================  ====================================================================

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
