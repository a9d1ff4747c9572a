"""libsvm, libFM and libFFM text, read into CSR arrays and written from them.

All three have one row a line, a label and then the entries that are not zero:

    label index:value index:value ...               LIBSVM (indices from 1), libFM and xLearn (from 0)
    label field:index:value field:index:value ...   libFFM

A file is mapped into memory, or read in blocks, and parsed by `parsing.py`.

Chang and Lin (2011), LIBSVM: A Library for Support Vector Machines, ACM TIST 2(3). Rendle (2012), Factorization
Machines with libFM, ACM TIST 3(3). Juan et al. (2016), Field-aware Factorization Machines for CTR Prediction,
RecSys.
"""

from __future__ import annotations

import gzip
import mmap
import os
import secrets
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from numbers import Integral
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from . import _text
from .layouts import DataFileError
from .parsing import _INT32_MAX, _INT64_MAX, _LIBFFM, _LIBFM, _LIBSVM, _Floats, _Layout, _Read, _read, _Reader

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

# Text is written in blocks of this many bytes.
_BLOCK = 1 << 20


# ------------------------------------------------------------------------------------------ reading


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
