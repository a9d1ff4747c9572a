"""Tables of any size, read piece by piece into frames whose dtypes never change along the way.

pandas guesses dtypes anew in every chunk: an id column is int64 in one and text in the next, so that '1' and 1
differ, '007' becomes 7 and a single gap turns integers into floats. Here the dtypes are settled once, and a
value that does not fit them is an error that names its line. Records are cut by Python's csv module, which can
be strict, and every field stays text until it is known to be what its column says.

RecBole's atomic files: Zhao et al. (2021), RecBole: Towards a Unified, Comprehensive and Efficient Framework
for Recommendation Algorithms, CIKM.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import lzma
import os
import zipfile
import zlib
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from numbers import Integral
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from .movielens import DataFileError
from .parquet import _check_types, _open_parquet, _parquet_frames
from .values import _DTYPES, _EXPECTED, _convert, _MisfitError, _settle

__all__ = ["iter_frames", "load_avazu", "load_criteo", "load_recbole"]

# ------------------------------------------------------------------------------------------------- layouts


@dataclass(frozen=True)
class _Layout:
    """How text is cut into fields, and the dtypes that the layout itself settles."""

    sep: str
    quoted: bool
    header: bool = True
    dtypes: Mapping[str, str] | None = None


_CRITEO = {
    "label": "int64",
    **{f"I{i}": "Int64" for i in range(1, 14)},
    **{f"C{i}": "str" for i in range(1, 27)},
}
_AVAZU = {
    "id": "str",
    "click": "int64",
    "hour": "hour",
    "C1": "int64",
    "banner_pos": "int64",
    **dict.fromkeys(("site_id", "site_domain", "site_category", "app_id", "app_domain", "app_category"), "str"),
    **dict.fromkeys(("device_id", "device_ip", "device_model"), "str"),
    **dict.fromkeys(("device_type", "device_conn_type", *(f"C{i}" for i in range(14, 22))), "int64"),
}
_LAYOUTS = {
    "csv": _Layout(",", quoted=True),
    "tsv": _Layout("\t", quoted=True),
    "recbole": _Layout("\t", quoted=False),
    "criteo": _Layout("\t", quoted=False, header=False, dtypes=_CRITEO),
    "avazu": _Layout(",", quoted=True, dtypes=_AVAZU),
}
_RECBOLE_FILES = ("inter", "user", "item", "kg", "link", "net")
_BY_SUFFIX = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".pq": "parquet",
    **{f".{suffix}": "recbole" for suffix in _RECBOLE_FILES},
}
_COMPRESSED: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
# --------------------------------------------------------------------------------------------- cutting text


@contextmanager
def _open(path: Path) -> Iterator[IO[bytes]]:
    """The file's bytes, decompressed as its name says."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if not name.endswith("/")]
            if len(names) != 1:
                raise DataFileError(f"{path}: the archive must hold exactly one file, found {len(names)}")
            with archive.open(names[0]) as file:
                yield file
    else:
        with _COMPRESSED.get(path.suffix, open)(path, "rb") as file:
            yield file


def _lines(path: Path) -> Iterator[str]:
    """Decoded lines with their ends. They end with a newline and nothing else, as in the file's own count."""
    number = 0
    try:
        with _open(path) as file:
            for number, raw in enumerate(file, start=1):
                if number == 1:
                    raw = raw.removeprefix(b"\xef\xbb\xbf")
                if b"\0" in raw:
                    raise DataFileError(f"{path}, line {number}: found a NUL byte, so this is no text file")
                try:
                    line = raw.decode()
                except UnicodeDecodeError as error:
                    raise DataFileError(f"{path}, line {number}: not UTF-8 text ({error.reason})") from error
                yield line
    # RuntimeError: encrypted; OSError: what gzip and bz2 raise for bytes that are not theirs
    except (EOFError, OSError, RuntimeError, zlib.error, lzma.LZMAError, zipfile.BadZipFile) as error:
        raise DataFileError(f"{path}: cannot be read beyond line {number}: {error}") from error


def _records(path: Path, layout: _Layout) -> Iterator[tuple[int, list[str]]]:
    """Fields with the number of the line they begin in; blank lines are no records."""
    line = 1
    if not layout.quoted:
        for line, text in enumerate(_lines(path), start=1):
            text = text.removesuffix("\n").removesuffix("\r")
            if text:
                yield line, text.split(layout.sep)
        return
    reader = csv.reader(_lines(path), delimiter=layout.sep, strict=True)
    try:
        for fields in reader:
            if fields:
                yield line, fields
            line = reader.line_num + 1
    except csv.Error as error:
        raise DataFileError(f"{path}, line {line}: {error}") from error


@dataclass(frozen=True)
class _TextFile:
    """A text file whose first record has been seen."""

    path: Path
    layout: _Layout
    dtypes: dict[str, str]  # by column, in the file's order

    def records(self) -> Iterator[tuple[int, list[str]]]:
        """Complete records below the header."""
        n_fields = len(self.dtypes)
        for line, fields in islice(_records(self.path, self.layout), int(self.layout.header), None):
            if len(fields) != n_fields:
                raise DataFileError(f"{self.path}, line {line}: expected {n_fields} fields, found {len(fields)}")
            yield line, fields


def _open_text(path: Path, name: str) -> _TextFile:
    layout = _LAYOUTS[name]
    line, header = next(_records(path, layout), (1, None))
    if header is None:
        raise DataFileError(f"{path}: the file is empty")

    def error(message: str) -> DataFileError:
        return DataFileError(f"{path}, line {line}: {message}")

    known = layout.dtypes or {}
    dtypes = dict.fromkeys(header, "any")
    if name == "recbole":
        dtypes = {}
        for column, _, kind in (field.rpartition(":") for field in header):
            if kind not in _RECBOLE_TYPES or column in dtypes:
                raise error(
                    "the header of an atomic file is name:type, each name once, with the types "
                    f"{', '.join(_RECBOLE_TYPES)}; it reads {', '.join(header)}"
                )
            dtypes[column] = _RECBOLE_TYPES[kind]
    elif name == "criteo":
        # the test set of the Kaggle competition has no label
        if len(header) not in (len(known), len(known) - 1):
            raise error(f"expected 40 fields, or 39 without the label, found {len(header)}")
        dtypes = dict(list(known.items())[-len(header) :])
    elif len(dtypes) < len(header):
        raise error(f"the header has two columns of one name; it reads {', '.join(header)}")
    elif name == "avazu":
        if header not in (list(known), [column for column in known if column != "click"]):
            raise error(f"the header is not Avazu's ({', '.join(known)}); it reads {', '.join(header)}")
        dtypes = {column: known[column] for column in header}
    return _TextFile(path, layout, dtypes)


# RecBole's types. A float_seq has no encoder, so it stays the text it is, numbers with blanks between.
_RECBOLE_TYPES = {"token": "token", "token_seq": "token_seq", "float": "float64", "float_seq": "str"}
_BLOCK = 100  # records turned into columns at one time; few enough for a processor's cache


def _text_chunks(
    file: _TextFile, columns: Sequence[str], rows: int
) -> Iterator[tuple[dict[str, npt.NDArray[np.object_]], Sequence[int]]]:
    """Columns of text, `rows` long at most, with the line in which each row begins."""
    at = {column: list(file.dtypes).index(column) for column in columns}
    records = file.records()
    while True:
        lines = array("q")
        blocks: dict[str, list[npt.NDArray[np.object_]]] = {column: [] for column in columns}
        one: dict[str, str] = {}  # equal texts of a chunk are one object, which saves most of the memory
        while block := list(islice(records, min(_BLOCK, rows - len(lines)))):
            lines.extend(line for line, _ in block)
            for column, i in at.items():
                texts = np.empty(len(block), dtype=object)
                texts[:] = [one.setdefault(fields[i], fields[i]) for _, fields in block]
                blocks[column].append(texts)
        if not lines:
            return
        yield {column: np.concatenate(parts) for column, parts in blocks.items()}, lines


def _text_frames(
    files: Sequence[_TextFile], columns: Sequence[str], rows: int, given: dict[str, str]
) -> Iterator[pd.DataFrame]:
    dtypes = files[0].dtypes | given
    n_rows = 0
    for file in files:
        for texts, lines in _text_chunks(file, columns, rows):
            frame: dict[str, Any] = {}
            for column in columns:
                if dtypes[column] in ("any", "token"):
                    dtypes[column] = _settle(pd.unique(texts[column]), floats=dtypes[column] == "any")
                dtype = dtypes[column]
                try:
                    frame[column] = _convert(texts[column], dtype)
                except _MisfitError as misfit:
                    remedy = "Int64" if misfit.text == "" and dtype == "int64" else "str"
                    raise DataFileError(
                        f"{file.path}, line {lines[misfit.row]}: column {column!r} is {dtype}, so expected "
                        f"{_EXPECTED[dtype]}, found {misfit.text!r}; "
                        f'to read the column as it is, pass dtypes={{"{column}": "{remedy}"}} to iter_frames'
                    ) from None
            yield pd.DataFrame(frame).set_axis(pd.RangeIndex(n_rows, n_rows + len(lines)))
            n_rows += len(lines)
    if n_rows == 0:
        raise DataFileError(f"{', '.join(str(file.path) for file in files)}: no rows")


# ---------------------------------------------------------------------------------------------- front doors

_Path = str | os.PathLike[str]


def _check_rows(rows: object) -> None:
    if not isinstance(rows, Integral) or isinstance(rows, bool) or rows < 1:
        raise ValueError(f"rows must be an integer of at least 1, got {rows!r}")


def _layout_of(path: Path) -> str:
    suffix = path.with_suffix("").suffix if path.suffix in (*_COMPRESSED, ".zip") else path.suffix
    if suffix not in _BY_SUFFIX:
        raise ValueError(
            f"the layout of {path} does not follow from its name; pass layout, one of {', '.join(_LAYOUTS)}, parquet"
        )
    return _BY_SUFFIX[suffix]


def iter_frames(
    path: _Path | Sequence[_Path],
    *,
    rows: int = 1_000_000,
    columns: Sequence[str] | None = None,
    layout: str | None = None,
    dtypes: Mapping[str, str] | None = None,
) -> Iterator[pd.DataFrame]:
    """Read a table of any size as frames of at most `rows` rows that all have the same dtypes.

    In text files a column that `dtypes` does not name is settled by the first chunk: int64 if each of its texts
    equals ``str(int(text))`` and fits (Int64 if there are gaps too), else float64 if all are finite decimal
    numbers or nan, and no integer among them has leading zeros, a plus sign or more than 2**53, else text. A
    column of nothing but gaps is text. Only an empty field is a gap: "NA", "NULL" and "?" are text. Parquet files
    know their types; integers and booleans have pandas' nullable dtypes if the column has a gap anywhere, for which
    the first ``next()`` reads all of these columns once.

    The end of a file, and perhaps of a Parquet row group, ends a frame early. The index counts the rows of all
    files, so that ``pd.concat(iter_frames(path))`` is the whole table.

    Parameters
    ----------
    path : str or Path, or a list of them
        The files, read in this order, all in one layout and with the same columns. Text may be compressed
        (.gz, .bz2, .xz, or .zip with one file in it) and must be UTF-8.
    rows : int
        The most rows of a frame.
    columns : list of str, optional
        The columns to keep, in this order; all if not given.
    layout : {"csv", "tsv", "parquet", "recbole", "criteo", "avazu"}, optional
        Without it the file's name decides: .csv; .tsv; .parquet or .pq; .inter, .user, .item, .kg, .link or .net
        for RecBole's atomic files. "criteo" and "avazu" must always be named, for their files are called
        train.txt, day_0 or train. csv and tsv have a header and double quotes where needed; in recbole and criteo
        a quote is a character like any other. RecBole's token is text or integer, never float; token_seq is
        text joined by "|", float_seq text as in the file. For criteo and avazu see `load_criteo`, `load_avazu`.
    dtypes : dict of str to {"str", "int64", "Int64", "float64"}, optional
        Dtypes of columns that are not to be settled by the first chunk; Int64 and float64 admit gaps, str too.

    Returns
    -------
    iterator of DataFrames (at most rows, n_columns)
        Text columns have pandas' own text dtype (``str``, or ``object`` before pandas 3).

    Raises
    ------
    ValueError, FileNotFoundError
        At the call: for wrong arguments, a file that is not there.
    ImportError
        If a Parquet file is to be read without pyarrow: ``pip install sparsefm[arrow]``.
    DataFileError
        At the call for an empty file, a wrong header, files whose columns differ; later for a line that is too
        short or too long, an unterminated quote, bytes that are not UTF-8, a NUL byte, a damaged archive, a value
        that does not fit its column, no rows at all. The message names the file and the line of the file.

    Examples
    --------
    >>> from sparsefm.datasets import iter_frames
    >>> for frame in iter_frames("datasets/tiny/ml-latest/ratings.csv", rows=25):
    ...     print(len(frame), frame["rating"].dtype)
    25 int64
    25 int64
    10 int64
    """
    paths = [Path(path)] if isinstance(path, (str, os.PathLike)) else [Path(p) for p in path]
    _check_rows(rows)
    if not paths:
        raise ValueError("path is an empty list; pass at least one file")
    for p in paths:
        if not p.is_file():
            raise FileNotFoundError(f"there is no file at {p}")
    if layout is not None and layout not in (*_LAYOUTS, "parquet"):
        raise ValueError(f"layout must be one of {', '.join(_LAYOUTS)}, parquet; got {layout!r}")
    layouts = {layout or _layout_of(p) for p in paths}
    if len(layouts) > 1:
        raise ValueError(f"the files of one call must have one layout, found {', '.join(sorted(layouts))}")
    given = dict(dtypes or {})
    for column, dtype in given.items():
        if dtype not in _DTYPES:
            raise ValueError(f"the dtype of {column!r} must be one of {', '.join(_DTYPES)}; got {dtype!r}")
    if isinstance(columns, str) or (columns is not None and not 0 < len(set(columns)) == len(columns)):
        raise ValueError(f"columns must be a list of different names, got {columns!r}")

    def check(names: Sequence[list[str]]) -> list[str]:
        wanted = names[0] if columns is None else list(columns)
        absent = [column for column in (*wanted, *given) if column not in names[0]]
        if absent:
            raise ValueError(f"{paths[0]} has no column {', '.join(absent)}; it has {', '.join(names[0])}")
        for p, found in zip(paths, names, strict=True):
            if set(found) != set(names[0]):
                raise DataFileError(f"{p} has the columns {', '.join(found)}, but {paths[0]} has {', '.join(names[0])}")
        return wanted

    (name,) = layouts
    if name == "parquet":
        tables = [_open_parquet(p) for p in paths]
        wanted = check([list(table.types) for table in tables])
        _check_types(tables, wanted, given)
        return _parquet_frames(tables, wanted, rows, given)
    files = [_open_text(p, name) for p in paths]
    return _text_frames(files, check([list(file.dtypes) for file in files]), rows, given)


def _load(path: _Path, layout: str, rows: int | None) -> pd.DataFrame:
    if rows is None:
        return pd.concat(iter_frames(path, layout=layout))
    _check_rows(rows)
    frames: list[pd.DataFrame] = []
    missing = int(rows)
    for frame in iter_frames(path, layout=layout, rows=min(missing, 1_000_000)):
        frames.append(frame.iloc[:missing])
        missing -= len(frames[-1])
        if missing == 0:
            break
    return pd.concat(frames)


def load_criteo(path: _Path, *, rows: int | None = None) -> pd.DataFrame:
    """Read a file of Criteo's click logs: Kaggle's Display Advertising Challenge or a day of the 1 TB set.

    Parameters
    ----------
    path : str or Path
        train.txt, test.txt or day_0 to day_23, perhaps compressed; no header, tabs between the fields.
    rows : int, optional
        Read only so many rows, from the first; all if not given. A table beyond memory is read by
        ``iter_frames(path, layout="criteo")``.

    Returns
    -------
    DataFrame (n_rows, 40), or (n_rows, 39) for a test set, which has no label
        label (int64, 1 for a click), I1 to I13 (Int64: they are counts, exact and with gaps), C1 to C26 (text:
        hashes, with gaps).

    Raises
    ------
    FileNotFoundError, ValueError, DataFileError
        As `iter_frames`.

    Examples
    --------
    >>> from sparsefm.datasets import load_criteo
    >>> load_criteo("datasets/tiny/criteo.tsv", rows=10).shape
    (10, 40)
    """
    return _load(path, "criteo", rows)


def load_avazu(path: _Path, *, rows: int | None = None) -> pd.DataFrame:
    """Read a file of Kaggle's Avazu Click-Through Rate Prediction.

    Parameters
    ----------
    path : str or Path
        train or test, perhaps compressed: comma-separated, with a header.
    rows : int, optional
        Read only so many rows, from the first; all if not given. A table beyond memory is read by
        ``iter_frames(path, layout="avazu")``.

    Returns
    -------
    DataFrame (n_rows, 24), or (n_rows, 23) for a test set, which has no click
        id (text: many are beyond int64), click (int64), hour (datetime64[s], UTC without a time zone), the codes
        C1, banner_pos, device_type, device_conn_type and C14 to C21 (int64: categories, to be encoded by
        OneHot), and nine hashes of site, app and device (text).

    Raises
    ------
    FileNotFoundError, ValueError, DataFileError
        As `iter_frames`.

    Examples
    --------
    >>> from sparsefm.datasets import load_avazu
    >>> load_avazu("datasets/tiny/avazu.csv", rows=10)["hour"].dt.year.unique().tolist()
    [2014]
    """
    return _load(path, "avazu", rows)


def load_recbole(path: _Path) -> dict[str, pd.DataFrame]:
    """Read RecBole's atomic files of one data set.

    A token column is int64 (Int64 with gaps) if each of its texts, in all files that have a column of this name,
    equals ``str(int(text))``, else text; so ids can be joined across the frames.

    Parameters
    ----------
    path : str or Path
        A folder with the files of one data set (NAME.inter, NAME.user, NAME.item, NAME.kg, NAME.link, NAME.net,
        as far as there are), or one such file.

    Returns
    -------
    dict of str to DataFrame
        The frames by the ending of the file ("inter", "user", ...), their columns named without the type: token
        as said, token_seq text joined by "|", float float64, float_seq text as in the file.

    Raises
    ------
    FileNotFoundError
        If there is nothing at `path`.
    DataFileError
        If there is no data set or more than one, or a file is malformed; see `iter_frames`.

    Examples
    --------
    >>> from sparsefm.datasets import load_recbole
    >>> frames = load_recbole("dataset/ml-100k")  # doctest: +SKIP
    >>> frames["inter"].merge(frames["item"], on="item_id")  # doctest: +SKIP
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"there is no folder or file at {path}")
    beside = sorted(path.iterdir()) if path.is_dir() else [path]
    files = [file for file in beside if file.suffix[1:] in _RECBOLE_FILES and not file.name.startswith(".")]
    if len({file.stem for file in files}) != 1:
        listed = ", ".join(file.name for file in files) or "none"
        raise DataFileError(f"{path}: expected the files (*.inter, *.user, *.item) of one data set, found {listed}")
    frames: dict[str, pd.DataFrame] = {}
    having: dict[str, list[str]] = {}  # frames by token column
    for file in files:
        tokens = [column for column, dtype in _open_text(file, "recbole").dtypes.items() if dtype == "token"]
        suffix = file.suffix[1:]
        frames[suffix] = pd.concat(iter_frames(file, dtypes=dict.fromkeys(tokens, "str")))
        for column in tokens:
            having.setdefault(column, []).append(suffix)
    for column, suffixes in having.items():
        texts = {suffix: frames[suffix][column].fillna("").to_numpy(object) for suffix in suffixes}
        dtype = _settle({text for column in texts.values() for text in pd.unique(column)}, floats=False)
        for suffix in suffixes:
            frames[suffix][column] = _convert(texts[suffix], dtype)
    return frames
