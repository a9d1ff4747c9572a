"""Text of libsvm, libFM and libFFM as arrays, and what is wrong with a line that is none of theirs.

A text is cut into pieces at ends of lines, by size alone. One pass counts lines and colons, which gives each piece its
place in the arrays; a second one parses the pieces into them, on several threads. The parser (_text.pyx) only tells in
which line it stopped. That line is then read again here, slowly, to say what is wrong with it.
"""

from __future__ import annotations

import itertools
import mmap
import re
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
from scipy import sparse

from . import _text
from .layouts import DataFileError

_Floats = npt.NDArray[np.float64]
_Job = TypeVar("_Job")
_Result = TypeVar("_Result")

# Bytes of text in a piece: some milliseconds of parsing, which dwarfs what it costs to hand one out.
_PIECE = 1 << 22
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


# ------------------------------------------------------------------------------------------ pieces


class _Piece(NamedTuple):
    text: bytes | mmap.mmap
    start: int
    stop: int  # after a newline


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
