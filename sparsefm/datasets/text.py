"""libsvm, libFM and libFFM text, read into CSR arrays and written from them.

All three have one row a line, a label and then the entries that are not zero:

    label index:value index:value ...               LIBSVM (indices from 1), libFM and xLearn (from 0)
    label field:index:value field:index:value ...   libFFM

A file is mapped into memory and cut into pieces at ends of lines, by size alone. One pass counts lines and colons,
which gives each piece its place in the arrays; a second one parses the pieces into them, on several threads.
The parser (_text.pyx) only tells in which line it stopped. That line is then read again here, slowly, to say what
is wrong with it.

Chang and Lin (2011), LIBSVM: A Library for Support Vector Machines, ACM TIST 2(3). Rendle (2012), Factorization
Machines with libFM, ACM TIST 3(3). Juan et al. (2016), Field-aware Factorization Machines for CTR Prediction,
RecSys.
"""

from __future__ import annotations

import gzip
import itertools
import mmap
import os
import re
import secrets
import zlib
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from numbers import Integral
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
from scipy import sparse

from . import _text
from .movielens import DataFileError

__all__ = [
    "dump_libffm",
    "dump_libfm",
    "dump_libsvm",
    "iter_libfm",
    "iter_libsvm",
    "load_libffm",
    "load_libfm",
    "load_libsvm",
]

_Floats = npt.NDArray[np.float64]
_Job = TypeVar("_Job")
_Result = TypeVar("_Result")

# Bytes of text in a piece: some milliseconds of parsing, which dwarfs what it costs to hand one out.
_PIECE = 1 << 22
# Text is written in blocks of this many bytes.
_BLOCK = 1 << 20
_INT32_MAX = 2**31 - 1
_INT64_MAX = 2**63 - 1
# Fields of features take four bytes each, those between the ones that occur included: a gigabyte, and no more
# unless n_features asks for it.
_MAX_FEATURES_OF_FIELDS = 2**28

_MARK = b"\xef\xbb\xbf"  # some editors begin UTF-8 with it
_WORD = re.compile(rb"[^ \t]+")
_NUMBER = re.compile(rb"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_INDEX = re.compile(rb"[0-9]+")


class _Layout(NamedTuple):
    name: str
    first: int  # what the file calls feature 0
    has_fields: bool
    entry: str


_LIBSVM = _Layout("libsvm", 1, False, "index:value")
_LIBFM = _Layout("libfm", 0, False, "index:value")
_LIBFFM = _Layout("libffm", 0, True, "field:index:value")


# ------------------------------------------------------------------------------------------ what is wrong


class _Fault(Exception):
    """What was expected in place of the word at `column` (from 0)."""

    def __init__(self, column: int, word: bytes, expected: str):
        self.column = column
        shown = word[:60].decode("utf-8", "backslashreplace") + ("…" if len(word) > 60 else "")
        super().__init__(f"got {shown!r}, expected {expected}")


@dataclass(frozen=True)
class _Reader:
    """What one call was asked for."""

    path: Path
    layout: _Layout
    n_features: int | None
    dtype: np.dtype[Any]
    n_threads: int
    lines_before: int = 0  # of the file, where its text comes in blocks

    @property
    def limit(self) -> int:
        """Indices, from 0, are below it."""
        if self.n_features is not None:
            return self.n_features
        return _MAX_FEATURES_OF_FIELDS if self.layout.has_fields else _INT64_MAX

    def check_number(self, column: int, word: bytes, text: bytes, what: str, dtype: np.dtype[Any]) -> None:
        if re.fullmatch(rb"[+-]?(?:nan|inf|infinity)", text, re.IGNORECASE):
            raise _Fault(column, word, f"a finite {what}: neither nan nor inf can be learned from; leave the row out")
        if not _NUMBER.fullmatch(text):
            raise _Fault(column, word, f"a decimal number as the {what}")
        with np.errstate(over="ignore"):
            finite = np.isfinite(dtype.type(float(text)))
        if not finite:
            advice = "; dtype=np.float64 reaches further" if dtype == np.float32 else ""
            raise _Fault(column, word, f"a {what} of at most {np.finfo(dtype).max:.3g}, as {dtype} holds it{advice}")

    def check_entry(self, column: int, word: bytes) -> tuple[int, int]:
        """The field and the index, from 0, of a word that has no fault."""
        layout = self.layout
        parts = word.split(b":")
        if parts[0] == b"qid":
            raise _Fault(column, word, f"{layout.entry}; groups of rows for ranking (qid) are not supported")
        if layout.has_fields and len(parts) == 2:
            raise _Fault(column, word, f"{layout.entry}; files without fields are for load_libfm or load_libsvm")
        if not layout.has_fields and len(parts) == 3:
            raise _Fault(column, word, f"{layout.entry}; files with fields are for load_libffm")
        if len(parts) != 2 + layout.has_fields:
            raise _Fault(column, word, layout.entry)
        field = 0
        if layout.has_fields:
            field = _integer(parts[0]) if _INDEX.fullmatch(parts[0]) else -1
        if not 0 <= field <= _INT32_MAX:
            raise _Fault(column, word, f"{layout.entry} with a whole number from 0 to {_INT32_MAX} as the field")
        index = _integer(parts[-2]) - layout.first if _INDEX.fullmatch(parts[-2]) else None
        if index is None:
            raise _Fault(column, word, f"{layout.entry} with a whole number from {layout.first} as the index")
        if index < 0:
            raise _Fault(column, word, "an index from 1; files whose indices count from 0 are for load_libfm")
        if index >= self.limit:
            last = f"an index of at most {self.limit - 1 + layout.first}"
            if self.n_features is not None:
                last += f", as n_features={self.n_features} says"
            elif layout.has_fields:
                last += "; to read larger ones, which needs 4 bytes for each feature up to the largest, give n_features"
            raise _Fault(column, word, last)
        if not parts[-1]:
            raise _Fault(column, word, f"{layout.entry}; the value is missing")
        self.check_number(column, word, parts[-1], "value", self.dtype)
        return field, index

    def check_line(self, line: bytes, table: npt.NDArray[np.int32]) -> None:
        """Raises the first fault of a line, if it has one; `table` holds the field of each feature so far."""
        words = _WORD.finditer(line.removesuffix(b"\r").partition(b"#")[0])
        column, label = next(((word.start(), word.group()) for word in words), (0, b""))
        if b":" in label:
            raise _Fault(column, label, f"a label, before the first {self.layout.entry}")
        if b"," in label:
            raise _Fault(column, label, "a single number as the label; several labels a row are not supported")
        self.check_number(column, label, label, "label", np.dtype(np.float64))
        seen: set[int] = set()
        for match in words:
            column, word = match.start(), match.group()
            field, index = self.check_entry(column, word)
            if index in seen:
                raise _Fault(column, word, f"each index once in a row; {index + self.layout.first} is there already")
            seen.add(index)
            if self.layout.has_fields and index < len(table) and table[index] not in (-1, field):
                raise _Fault(
                    column,
                    word,
                    f"field {table[index]}, where feature {index} was before: a feature has one field here; "
                    "give the feature another index in each field",
                )

    def error(self, line_number: int, line: bytes, table: npt.NDArray[np.int32]) -> DataFileError:
        where = f"{self.path}, line {line_number}"
        try:
            self.check_line(line, table)
        except _Fault as fault:
            return DataFileError(f"{where}, column {fault.column + 1}: {fault}")
        return DataFileError(f"{where}: the file changed while it was read; read it again")


def _integer(digits: bytes) -> int:
    """int() refuses thousands of digits; all numbers too large to be an index are the same here."""
    digits = digits.lstrip(b"0") or b"0"
    return int(digits) if len(digits) < 30 else 10**30


# ------------------------------------------------------------------------------------------ reading


class _Piece(NamedTuple):
    text: bytes | mmap.mmap
    start: int
    stop: int  # after a newline


@contextmanager
def _opened(path: Path) -> Iterator[bytes | mmap.mmap]:
    """The content of a file, unpacked if its name ends in .gz."""
    with open(path, "rb") as file:
        if path.suffix == ".gz":
            try:
                text = gzip.GzipFile(fileobj=file).read()
            except (gzip.BadGzipFile, EOFError, zlib.error) as error:
                raise DataFileError(f"{path} is no intact gzip file: {error}") from error
            yield text
        elif os.fstat(file.fileno()).st_size == 0:  # which cannot be mapped
            yield b""
        else:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
                yield mapped


def _cut(text: bytes | mmap.mmap, *, begins: bool) -> list[_Piece]:
    """Pieces of whole lines; begins: the text does so with its file, where a mark may stand. What follows the last
    newline is copied to get one, since the parser relies on it."""
    pieces = []
    start = len(_MARK) if begins and text[: len(_MARK)] == _MARK else 0
    last = text.rfind(b"\n", start) + 1 or start
    while start < last:
        stop = text.find(b"\n", start + _PIECE - 1, last) + 1 or last
        pieces.append(_Piece(text, start, stop))
        start = stop
    if last < len(text):
        rest = text[last:] + b"\n"
        pieces.append(_Piece(rest, 0, len(rest)))
    return pieces


def _in_order(run: Callable[[_Job], _Result], jobs: Sequence[_Job], n_threads: int) -> Generator[_Result, None, None]:
    """The results in the order of the jobs, of which no more than two a thread are started ahead of the taker."""
    n_threads = min(n_threads, len(jobs))
    if n_threads <= 1:
        yield from map(run, jobs)
        return
    with ThreadPoolExecutor(n_threads) as pool:
        waiting: deque[Future[_Result]] = deque()
        try:
            for job in jobs:
                waiting.append(pool.submit(run, job))
                if len(waiting) == 2 * n_threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


class _Parsed(NamedTuple):
    n_rows: int
    n_entries: int
    max_index: int
    fault: int  # where the line with the first fault starts, or -1
    too_narrow: bool  # that line was refused because the index type cannot hold it
    fields: npt.NDArray[np.int32] | None


def _line_of_row(piece: _Piece, row: int) -> int:
    """Where the line of a row of the piece starts."""
    at = piece.start
    for line in bytes(piece.text[piece.start : piece.stop]).split(b"\n"):
        if line.removesuffix(b"\r").partition(b"#")[0].strip(b" \t"):
            row -= 1
            if row < 0:
                break
        at += len(line) + 1
    return at


def _parse(
    reader: _Reader, pieces: list[_Piece], lines: list[int], entries: list[int], index_type: type[np.signedinteger[Any]]
) -> tuple[sparse.csr_array, _Floats, npt.NDArray[np.int32]] | None:
    """X, y and the field of each feature, or None if `index_type` turns out too narrow.

    `lines` and `entries` are how many each piece has at most.
    """
    first_row = [0, *itertools.accumulate(lines)]
    first_entry = [0, *itertools.accumulate(entries)]
    indptr = np.empty(first_row[-1] + 1, index_type)
    indices = np.empty(first_entry[-1], index_type)
    data = np.empty(first_entry[-1], reader.dtype)
    y = np.empty(first_row[-1], np.float64)
    table = np.full((reader.n_features or 0) if reader.layout.has_fields else 0, -1, np.int32)

    def parse(i: int) -> _Parsed:
        rows = slice(first_row[i], first_row[i + 1])
        places = slice(first_entry[i], first_entry[i + 1])
        fields = np.empty(entries[i], np.int32) if reader.layout.has_fields else None
        result = _text.parse(
            *pieces[i],
            reader.layout.first,
            reader.limit,
            indptr[1:][rows],
            indices[places],
            data[places],
            y[rows],
            fields,
        )
        return _Parsed(*result, fields)

    n_rows = n_entries = 0
    max_index = -1
    with closing(_in_order(parse, range(len(pieces)), reader.n_threads)) as results:
        for i, parsed in enumerate(results):
            row, entry = first_row[i], first_entry[i]
            ends = indptr[row + 1 : row + 1 + parsed.n_rows]
            here = indices[entry : entry + parsed.n_entries]
            if parsed.fields is not None:
                if parsed.max_index >= len(table):
                    grown = np.full(max(parsed.max_index + 1, 2 * len(table)), -1, np.int32)
                    grown[: len(table)] = table
                    table = grown
                bad = _text.merge_fields(table, ends, here, parsed.fields)
                if bad >= 0:  # in a row before any fault of the parser's
                    parsed = parsed._replace(fault=_line_of_row(pieces[i], bad), too_narrow=False)
            if parsed.too_narrow:
                return None
            if parsed.fault >= 0:
                text, start, _ = pieces[i]
                line_number = reader.lines_before + row + _text.count(text, start, parsed.fault)[0] + 1
                raise reader.error(line_number, text[parsed.fault : text.find(b"\n", parsed.fault)], table)
            # rows and entries move up to where comments and blank lines left room
            y[n_rows : n_rows + parsed.n_rows] = y[row : row + parsed.n_rows]
            indptr[n_rows + 1 : n_rows + 1 + parsed.n_rows] = ends + index_type(n_entries)
            if entry > n_entries:
                indices[n_entries : n_entries + parsed.n_entries] = here
                data[n_entries : n_entries + parsed.n_entries] = data[entry : entry + parsed.n_entries]
            n_rows += parsed.n_rows
            n_entries += parsed.n_entries
            max_index = max(max_index, parsed.max_index)
    indptr[0] = 0
    # in place, since views of the larger arrays would keep all of them
    indptr.resize(n_rows + 1, refcheck=False)
    y.resize(n_rows, refcheck=False)
    indices.resize(n_entries, refcheck=False)
    data.resize(n_entries, refcheck=False)
    n_features = max_index + 1 if reader.n_features is None else reader.n_features
    X = sparse.csr_array((data, indices, indptr), shape=(n_rows, n_features))
    X.has_canonical_format = True  # what the parser made sure of, and scipy would find out by another pass
    if reader.layout.has_fields:
        table.resize(n_features, refcheck=False)
    return X, y, table


_Read = tuple[sparse.csr_array, _Floats, npt.NDArray[np.int32]]


def _reader(path: str | Path, layout: _Layout, n_features: Any, dtype: Any, n_threads: Any) -> _Reader:
    if n_features is not None:
        _check_count("n_features", n_features, "None (as many as occur)")
        n_features = int(n_features)
        if n_features > _INT64_MAX:
            raise ValueError(f"n_features must be below 2**63, got {n_features}")
    if np.dtype(dtype) not in (np.float32, np.float64):
        raise ValueError(f"dtype must be float32 or float64, got {np.dtype(dtype)}")
    if n_threads is None:
        n_threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    _check_count("n_threads", n_threads, "None (every core)")
    return _Reader(Path(path), layout, n_features, np.dtype(dtype), int(n_threads))


def _no_rows(reader: _Reader) -> DataFileError:
    return DataFileError(f"{reader.path} has no rows; expected lines of {reader.layout.name}: a label, then entries")


def _load(path: str | Path, layout: _Layout, n_features: Any, dtype: Any, n_threads: Any) -> _Read:
    reader = _reader(path, layout, n_features, dtype, n_threads)
    with _opened(reader.path) as text:
        read, _ = _read(reader, text)
    if read[0].shape[0] == 0:
        raise _no_rows(reader)
    return read


def _read(reader: _Reader, text: bytes | mmap.mmap) -> tuple[_Read, int]:
    """The rows of a text, and how many lines it has."""
    pieces = _cut(text, begins=reader.lines_before == 0)
    counted = list(_in_order(lambda piece: _text.count(*piece), pieces, reader.n_threads))
    lines = [newlines for newlines, _ in counted]
    entries = [colons // (1 + reader.layout.has_fields) for _, colons in counted]
    read = None
    if max(sum(lines), sum(entries), reader.n_features or 0) <= _INT32_MAX:
        read = _parse(reader, pieces, lines, entries, np.int32)
    if read is None:
        read = _parse(reader, pieces, lines, entries, np.int64)
    assert read is not None  # no index is too wide for int64
    return read, sum(lines)


def _iterate(
    path: str | Path, layout: _Layout, n_features: Any, dtype: Any, n_threads: Any, block_bytes: Any
) -> Iterator[tuple[sparse.csr_array, _Floats]]:
    _check_count("n_features", n_features, "the number of columns of the whole file")
    _check_count("block_bytes", block_bytes, "the bytes of text in a piece")
    reader = _reader(path, layout, n_features, dtype, n_threads)
    return _blocks(reader, int(block_bytes))


def _blocks(reader: _Reader, size: int) -> Iterator[tuple[sparse.csr_array, _Floats]]:
    rows = 0
    opened: Any = gzip.open if reader.path.suffix == ".gz" else open
    with opened(reader.path, "rb") as file:
        try:
            while block := file.read(size):
                block += file.readline()  # to the end of a line
                (X, y, _), lines = _read(reader, block)
                reader = replace(reader, lines_before=reader.lines_before + lines)
                rows += len(y)
                if len(y):
                    yield X, y
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise DataFileError(f"{reader.path} is no intact gzip file: {error}") from error
    if rows == 0:
        raise _no_rows(reader)


def _check_count(name: str, value: Any, otherwise: str) -> None:
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
        raise ValueError(f"{name} must be a positive integer or {otherwise}, got {value!r}")


def load_libsvm(
    path: str | Path, *, n_features: int | None = None, dtype: npt.DTypeLike = np.float32, n_threads: int | None = None
) -> tuple[sparse.csr_array, _Floats]:
    """Read LIBSVM text: lines of ``label index:value index:value ...``, with indices from 1.

    Labels and values are decimal numbers, with or without sign and exponent. Blanks and tabs separate, lines end
    in LF or CRLF, everything from a ``#`` on is a comment, and lines with nothing else are skipped, as is a
    UTF-8 byte order mark. Entries may be in any order.

    Parameters
    ----------
    path : str or Path
        The file. It is unpacked in memory if its name ends in ".gz", else mapped; it must not change meanwhile.
    n_features : int, optional
        Number of columns; a larger index is then an error. The largest index of the file if not given, so give
        it for a test set.
    dtype : float32 or float64
        Of the values. A value is what ``float(text)`` is, rounded to this type.
    n_threads : int, optional
        Every core if not given. The result does not depend on it.

    Returns
    -------
    X : csr_array (n_rows, n_features)
        Indices from 0, sorted in each row: int32, or int64 where a dimension or the number of entries needs it.
        Zeros that the file has are stored.
    y : float64 array (n_rows,)
        The labels.

    Raises
    ------
    DataFileError
        If there are no rows, or a line is not as above: the label or a value is no number, or not finite in
        `dtype`; an index is missing, 0, too large, or twice in the row; there are several labels, or a ranking
        group (qid). The message names the line of the first fault, and the column, counted in bytes from 1,
        where the faulty word begins.
    OSError
        If the file cannot be read.
    ValueError
        If an option has no such value.

    Examples
    --------
    >>> from pathlib import Path
    >>> _ = Path("two.svm").write_text("+1 3:0.5 1:2  # a comment\\n-1 2:1e-3\\n")
    >>> X, y = load_libsvm("two.svm")
    >>> X.shape, X.indices.tolist(), y.tolist()
    ((2, 3), [0, 2, 1], [1.0, -1.0])
    """
    X, y, _ = _load(path, _LIBSVM, n_features, dtype, n_threads)
    return X, y


def iter_libsvm(
    path: str | Path,
    *,
    n_features: int,
    dtype: npt.DTypeLike = np.float32,
    n_threads: int | None = None,
    block_bytes: int = 1 << 26,
) -> Iterator[tuple[sparse.csr_array, _Floats]]:
    """Read LIBSVM text in pieces of whole rows, in memory that does not grow with the file.

    Parameters
    ----------
    path, dtype, n_threads
        As in `load_libsvm`.
    n_features : int
        Number of columns of the whole, hence of each piece; a larger index is an error.
    block_bytes : int
        Bytes of text in a piece, and what its last line takes.

    Yields
    ------
    X : csr_array (n_rows, n_features)
    y : float64 array (n_rows,)

    Raises
    ------
    DataFileError, OSError, ValueError
        As in `load_libsvm`, a fault of the file when its piece is reached.

    Examples
    --------
    >>> dump_libsvm([[0, 0.5], [1, 0]], [1, -1], "two.svm")
    >>> [X.shape for X, y in iter_libsvm("two.svm", n_features=2, block_bytes=1)]
    [(1, 2), (1, 2)]
    """
    return _iterate(path, _LIBSVM, n_features, dtype, n_threads, block_bytes)


def iter_libfm(
    path: str | Path,
    *,
    n_features: int,
    dtype: npt.DTypeLike = np.float32,
    n_threads: int | None = None,
    block_bytes: int = 1 << 26,
) -> Iterator[tuple[sparse.csr_array, _Floats]]:
    """Read libFM's text in pieces: as `iter_libsvm`, but with indices from 0.

    Examples
    --------
    >>> dump_libfm([[0, 0.5], [1, 0]], [1, -1], "two.fm")
    >>> [y.tolist() for X, y in iter_libfm("two.fm", n_features=2)]
    [[1.0, -1.0]]
    """
    return _iterate(path, _LIBFM, n_features, dtype, n_threads, block_bytes)


def load_libfm(
    path: str | Path, *, n_features: int | None = None, dtype: npt.DTypeLike = np.float32, n_threads: int | None = None
) -> tuple[sparse.csr_array, _Floats]:
    """Read libFM's text: that of `load_libsvm`, but with indices from 0. xLearn's FM reads the same.

    Parameters
    ----------
    path, n_features, dtype, n_threads
        As in `load_libsvm`.

    Returns
    -------
    X : csr_array (n_rows, n_features)
    y : float64 array (n_rows,)

    Raises
    ------
    DataFileError, OSError, ValueError
        As in `load_libsvm`, but 0 is an index.

    Examples
    --------
    >>> dump_libfm([[0, 0.5], [1, 0]], [1, -1], "two.fm")
    >>> X, y = load_libfm("two.fm")
    >>> X.toarray().tolist()
    [[0.0, 0.5], [1.0, 0.0]]
    """
    X, y, _ = _load(path, _LIBFM, n_features, dtype, n_threads)
    return X, y


def load_libffm(
    path: str | Path, *, n_features: int | None = None, dtype: npt.DTypeLike = np.float32, n_threads: int | None = None
) -> tuple[sparse.csr_array, _Floats, npt.NDArray[np.int32]]:
    """Read libFFM text: lines of ``label field:index:value ...``, fields and indices from 0.

    In all else the text is that of `load_libsvm`. The format lets one index stand in several fields; here a
    feature has one.

    Parameters
    ----------
    path, n_features, dtype, n_threads
        As in `load_libsvm`. Without `n_features` indices must be below 2**28, since `fields` is dense.

    Returns
    -------
    X : csr_array (n_rows, n_features)
    y : float64 array (n_rows,)
    fields : int32 array (n_features,)
        The field of each feature; -1 for those that do not occur.

    Raises
    ------
    DataFileError
        As in `load_libsvm`, but 0 is an index; and if a feature is in two fields, or a field is above 2**31 - 1.
    OSError, ValueError
        As in `load_libsvm`.

    Examples
    --------
    >>> dump_libffm([[0, 0.5], [1, 0]], [1, -1], [3, 1], "two.ffm")
    >>> X, y, fields = load_libffm("two.ffm")
    >>> fields.tolist()
    [3, 1]
    """
    return _load(path, _LIBFFM, n_features, dtype, n_threads)


# ------------------------------------------------------------------------------------------ writing


@contextmanager
def _replacing(target: Path) -> Iterator[IO[bytes] | gzip.GzipFile]:
    """A file beside the target that takes its place once it is complete; packed if the name ends in .gz."""
    beside = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        with open(beside, "xb") as file:
            if target.suffix == ".gz":
                with gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as packed:
                    yield packed
            else:
                yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, target)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def _as_floats(values: Any, what: str) -> Any:
    """float32 as it is and all else as float64, if that keeps every value, and every value is finite."""
    values = np.asarray(values)
    if values.dtype.kind not in "buif" or values.dtype.itemsize > 8:
        raise ValueError(f"{what} must be real numbers of at most 64 bits, got {values.dtype}")
    if values.dtype == np.float32:
        floats = values
    else:
        floats = values.astype(np.float64)
        if values.dtype.kind in "ui" and (abs(floats) > 2**53).any():
            raise ValueError(f"{what} has integers beyond 2**53, which readers would round; scale them down")
    if not np.isfinite(floats).all():
        at = int(np.flatnonzero(~np.isfinite(floats))[0])
        raise ValueError(f"{what} must be finite, got {floats[at]} at position {at}; replace it or leave the row out")
    return np.ascontiguousarray(floats)


def _dump(X: Any, y: Any, fields: Any, path: str | Path, layout: _Layout) -> None:
    X = sparse.csr_array(X)
    if X.ndim != 2:
        raise ValueError(f"X must have rows and columns, got shape {X.shape}")
    X.check_format(full_check=True)
    if not X.has_canonical_format:
        X = X.copy()
        X.sum_duplicates()
    data = _as_floats(X.data, "X")
    y = np.asarray(y)
    if y.shape != (X.shape[0],):
        raise ValueError(f"y must have one label for each of the {X.shape[0]} rows of X, got shape {y.shape}")
    y = _as_floats(y, "y").astype(np.float64)
    if layout.has_fields:
        fields = np.asarray(fields)
        if fields.shape != (X.shape[1],) or fields.dtype.kind not in "ui":
            raise ValueError(
                f"fields must have one integer for each of the {X.shape[1]} columns of X, "
                f"got {fields.dtype} of shape {fields.shape}"
            )
        # a feature that does not occur needs no field
        used = fields[X.indices]
        wrong = (used < 0) | (used > _INT32_MAX)
        if wrong.any():
            feature = X.indices[wrong][0]
            raise ValueError(f"fields must be from 0 to {_INT32_MAX}, got {fields[feature]} for feature {feature}")
        fields = np.ascontiguousarray(fields, dtype=np.int32)
    # scipy lets the two differ
    index_type = np.promote_types(X.indptr.dtype, X.indices.dtype)
    indptr, indices = X.indptr.astype(index_type, copy=False), X.indices.astype(index_type, copy=False)
    block = np.empty(_BLOCK, np.uint8)
    row, entry = 0, -1
    with _replacing(Path(path)) as file:
        while row < len(y):
            n, row, entry = _text.write(block, indptr, indices, data, y, fields, layout.first, row, entry)
            file.write(block[:n].data)


def dump_libsvm(X: Any, y: npt.ArrayLike, path: str | Path) -> None:
    """Write LIBSVM text, with indices from 1, that `load_libsvm` reads back to the same bits.

    Numbers have the fewest digits that do so: those of a float32 matrix are read back as float32, all others as
    float64. The format has no place for the number of columns; give `n_features` when you read. Entries are
    sorted, duplicates added up, stored zeros written. The file is complete or untouched: it is written beside and
    renamed.

    Parameters
    ----------
    X : sparse matrix or array (n_rows, n_features)
        Real and finite.
    y : array (n_rows,)
        The labels, real and finite.
    path : str or Path
        The file, packed if its name ends in ".gz".

    Raises
    ------
    ValueError
        If X or y is not as above, or an integer is beyond 2**53.
    OSError
        If the file cannot be written.

    Examples
    --------
    >>> from pathlib import Path
    >>> dump_libsvm([[0, 0.5], [1, 0]], [1, -1], "two.svm")
    >>> Path("two.svm").read_text()
    '1 2:0.5\\n-1 1:1\\n'
    """
    _dump(X, y, None, path, _LIBSVM)


def dump_libfm(X: Any, y: npt.ArrayLike, path: str | Path) -> None:
    """Write libFM's text, with indices from 0, that `load_libfm` reads back to the same bits.

    Parameters
    ----------
    X, y, path
        As in `dump_libsvm`.

    Raises
    ------
    ValueError, OSError
        As in `dump_libsvm`.

    Examples
    --------
    >>> from pathlib import Path
    >>> dump_libfm([[0, 0.5], [1, 0]], [1, -1], "two.fm")
    >>> Path("two.fm").read_text()
    '1 1:0.5\\n-1 0:1\\n'
    """
    _dump(X, y, None, path, _LIBFM)


def dump_libffm(X: Any, y: npt.ArrayLike, fields: npt.ArrayLike, path: str | Path) -> None:
    """Write libFFM text, fields and indices from 0, that `load_libffm` reads back to the same bits.

    Parameters
    ----------
    X, y, path
        As in `dump_libsvm`.
    fields : integer array (n_features,)
        The field of each feature, such as `FrameEncoder.fields_`; from 0, but for features that have no entry.

    Raises
    ------
    ValueError
        As in `dump_libsvm`, and if `fields` is not as above.
    OSError
        As in `dump_libsvm`.

    Examples
    --------
    >>> from pathlib import Path
    >>> dump_libffm([[0, 0.5], [1, 0]], [1, -1], [3, 1], "two.ffm")
    >>> Path("two.ffm").read_text()
    '1 1:1:0.5\\n-1 3:0:1\\n'
    """
    _dump(X, y, fields, path, _LIBFFM)
