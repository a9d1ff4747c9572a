"""The door: anything matrix-like becomes canonical CSR arrays, or is refused with an error that says what
came, what was expected and what to do. Behind it nothing is checked again.

Canonical means: row by row, column indices inside 0 … n_features − 1 and strictly ascending, values finite
and not zero, int32 indices if they were int32 and int64 otherwise. Duplicates are summed. Arrays that are
canonical already are used as they are, read-only ones included; nothing of the caller's is ever written to.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray

from ._kernels import csr

__all__ = [
    "Block",
    "RelationBlock",
    "Relations",
    "Rows",
    "check_csr",
    "check_positive",
    "check_relations",
    "check_sample_weight",
    "check_target",
    "check_weights",
]


class Rows(NamedTuple):
    """Canonical CSR arrays as the kernels take them."""

    indptr: NDArray[Any]  # (n_rows + 1,) int32 or int64
    indices: NDArray[Any]  # (nnz,) of the same type
    data: NDArray[Any] | None  # (nnz,) float32 or float64; None: every value is one
    n_features: int
    row_length: int  # non-zeros of every row, −1 if they differ
    dtype: np.dtype[Any]  # the real type to compute in

    @property
    def n_rows(self) -> int:
        return len(self.indptr) - 1

    @property
    def nnz(self) -> int:
        return len(self.indices)

    def matrix(self) -> Any:
        """As a scipy CSR array."""
        data = np.ones(self.nnz, self.dtype) if self.data is None else self.data
        return sp.csr_array((data, self.indices, self.indptr), shape=(self.n_rows, self.n_features))

    def take(self, of: NDArray[Any]) -> Rows:
        """Some rows, in the order given."""
        lengths = np.diff(self.indptr)[of]
        indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(self.indptr.dtype)
        entries = np.repeat(self.indptr[of] - indptr[:-1], lengths) + np.arange(indptr[-1])
        return self._replace(
            indptr=indptr, indices=self.indices[entries], data=None if self.data is None else self.data[entries]
        )


def check_csr(X: Any, *, n_features: int | None = None, dtype: Any = None, name: str = "X") -> Rows:
    """Canonical rows of X.

    Parameters
    ----------
    X : scipy sparse matrix or array of any format, array, DataFrame of numbers, list of rows; (n_rows, n_columns)
        A stored or dense zero is the same as no entry. `Rows` pass through unchanged.
    n_features : int, optional
        Number of columns X must have.
    dtype : float32 or float64, optional
        Type of the values; by default float64 stays float64 and everything else becomes float32.
    name : str
        What to call X in errors.

    Raises
    ------
    ValueError
        For anything that is not a finite real matrix of that width with valid CSR structure.
    TypeError
        For something that is no matrix at all.
    """
    if isinstance(X, Rows):
        rows = X
        if dtype is not None and rows.dtype != np.dtype(dtype):
            data = None if rows.data is None else _converted(rows.data, np.dtype(dtype))
            if data is not None:
                _scan(rows.indptr, rows.indices, data, rows.n_features, name)
            rows = rows._replace(data=data, dtype=np.dtype(dtype))
    else:
        rows = _rows_of(_as_csr(X, name), dtype, name)
    if n_features is not None and rows.n_features != n_features:
        raise ValueError(
            f"{name} has {rows.n_features} columns, but {n_features} are expected: "
            "encode it with the encoder, or build it with the columns, that the parameters were fitted on"
        )
    return rows


def _as_csr(X: Any, name: str) -> Any:
    """X as a scipy CSR container whose arrays may still be wrong."""
    if sp.issparse(X):
        if X.ndim != 2:
            raise ValueError(
                f"{name} must be two-dimensional, (n_rows, n_columns); got a sparse array of shape {X.shape}"
            )
        if X.format == "csr":
            return X
        try:
            X = copy.copy(X) if X.format in ("csc", "bsr") else X  # check_format replaces attributes
            _check_other_format(X, name)
            return X.tocsr()
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise ValueError(f"{name} is not a valid {X.format.upper()} matrix of numbers: {error}") from None
    if isinstance(X, pd.DataFrame):
        other = [c for c, dtype in zip(X.columns, X.dtypes, strict=True) if not _is_real(dtype)]
        if other:
            raise ValueError(
                f"{name} has columns that are not numbers: {', '.join(map(repr, other[:5]))}; "
                "turn them into columns of a matrix with FrameEncoder, or give the estimator encoder="
            )
        wide = any(_is_float64(dtype) for dtype in X.dtypes)
        X = X.to_numpy(dtype=np.float64 if wide else np.float32, na_value=np.nan)
    dense = np.asarray(X)
    if dense.dtype.kind == "O":
        try:
            dense = dense.astype(np.float64)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{name} holds values that are not numbers: {error}") from None
    if dense.dtype.kind not in "buif":
        raise TypeError(
            f"{name} must hold real numbers, got an array of type {dense.dtype}; encode text with FrameEncoder"
        )
    if dense.ndim != 2:
        raise ValueError(
            f"{name} must be two-dimensional, (n_rows, n_columns); got shape {dense.shape}. "
            "Reshape your data: X.reshape(1, -1) if it is one row, X.reshape(-1, 1) if it is one column"
        )
    if not dense.dtype.isnative or dense.dtype == np.float16:  # which scipy does not take
        dense = dense.astype(np.float64 if _is_float64(dense.dtype) else np.float32)
    return sp.csr_array(dense)


def _is_float64(dtype: Any) -> bool:
    """In either byte order, NumPy's or pandas'."""
    dtype = getattr(dtype, "subtype", dtype)  # of pandas' sparse columns
    return bool(dtype.kind == "f" and dtype.itemsize == 8)


def _is_real(dtype: Any) -> bool:
    return pd.api.types.is_numeric_dtype(dtype) and not pd.api.types.is_complex_dtype(dtype)


def _check_other_format(X: Any, name: str) -> None:
    """scipy's conversions read and write where the indices and lengths say: look at them first."""
    if X.format == "coo":
        if len(X.coords) != 2:
            raise ValueError(f"{name} has {len(X.coords)} arrays of coordinates, a matrix needs 2")
        for axis, (index, size) in enumerate(zip(X.coords, X.shape, strict=True)):
            _check_integers(index, f"{name}.coords[{axis}]")
            if len(index) != len(X.data):
                raise ValueError(f"{name}: {len(index)} coordinates on axis {axis} for {len(X.data)} values")
            if len(index) and (index.min() < 0 or index.max() >= size):
                bad = index[(index < 0) | (index >= size)][0]
                raise ValueError(f"{name} has index {bad} on axis {axis}, outside 0 … {size - 1}")
    elif X.format in ("csc", "bsr"):
        _check_integers(X.indptr, f"{name}.indptr")
        _check_integers(X.indices, f"{name}.indices")
        X.check_format(full_check=True)
    elif X.format == "dia":
        _check_integers(X.offsets, f"{name}.offsets")
        if X.data.ndim != 2 or len(X.data) != len(X.offsets):
            raise ValueError(f"{name} has {len(X.offsets)} offsets for values of shape {X.data.shape}")
    elif X.format == "lil":
        n_rows = X.shape[0]
        for what, lists in (("rows", X.rows), ("data", X.data)):
            if getattr(lists, "shape", None) != (n_rows,) or not all(type(each) is list for each in lists):
                raise ValueError(f"{name}.{what} must hold one list a row, {n_rows} in all")
        if [*map(len, X.rows)] != [*map(len, X.data)]:
            raise ValueError(f"{name} has rows with more column indices than values, or fewer")


def _check_integers(array: Any, what: str) -> None:
    if not isinstance(array, np.ndarray) or array.ndim != 1 or array.dtype.kind not in "iu":
        got = f"shape {array.shape} and type {array.dtype}" if isinstance(array, np.ndarray) else type(array).__name__
        raise ValueError(f"{what} must be a one-dimensional array of integers, got {got}")


def _rows_of(X: Any, dtype: Any, name: str) -> Rows:
    n_rows, n_features = X.shape
    indptr, indices, data = (np.asarray(a) for a in (X.indptr, X.indices, X.data))
    for what, array in (("indptr", indptr), ("indices", indices), ("data", data)):
        if array.ndim != 1:
            raise ValueError(f"{name}.{what} must be one-dimensional, got shape {array.shape}")
    if indptr.dtype.kind not in "iu" or indices.dtype.kind not in "iu":
        raise ValueError(f"{name}.indptr and {name}.indices must be integers, got {indptr.dtype} and {indices.dtype}")
    if len(indptr) != n_rows + 1 or indptr[0] != 0:
        raise ValueError(
            f"{name}.indptr must have {n_rows + 1} entries for {n_rows} rows and begin with 0; "
            f"got {len(indptr)} entries" + (f" beginning with {indptr[0]}" if len(indptr) else "")
        )
    small = indptr.dtype == indices.dtype == np.int32 and max(n_rows, n_features) < 2**31 - 1
    indptr, indices = (np.ascontiguousarray(a, dtype=np.int32 if small else np.int64) for a in (indptr, indices))

    bad_row, row_length = csr.scan_indptr(indptr, min(len(indices), len(data)))
    if bad_row >= 0:
        raise ValueError(
            f"{name}.indptr is not a valid row pointer at row {bad_row}: the row runs from {indptr[bad_row]} to "
            f"{indptr[bad_row + 1]} in {len(indices)} indices and {len(data)} values"
        )
    nnz = int(indptr[-1])
    if data.dtype.kind not in "buif":
        raise ValueError(f"{name} must hold real numbers, got values of type {data.dtype}. Complex data not supported")
    if dtype is None:
        dtype = np.float64 if _is_float64(data.dtype) else np.float32
    indices, data = indices[:nnz], _converted(data[:nnz], np.dtype(dtype))

    ones = _scan(indptr, indices, data, n_features, name)
    if ones is None:
        tidy = sp.csr_array((data.copy(), indices.copy(), indptr.copy()), shape=(n_rows, n_features))
        tidy.sum_duplicates()
        tidy.eliminate_zeros()
        indptr, indices, data = (
            np.ascontiguousarray(tidy.indptr, dtype=indptr.dtype),
            np.ascontiguousarray(tidy.indices, dtype=indices.dtype),
            tidy.data,
        )
        _, row_length = csr.scan_indptr(indptr, len(indices))
        ones = bool(_scan(indptr, indices, data, n_features, name))
    return Rows(indptr, indices, None if ones else data, n_features, row_length, np.dtype(dtype))


def _converted(data: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    with np.errstate(over="ignore"):  # a float64 beyond float32 becomes inf, which the scan reports
        return np.ascontiguousarray(data, dtype=dtype)


def _scan(indptr: NDArray[Any], indices: NDArray[Any], data: NDArray[Any], n_features: int, name: str) -> bool | None:
    """Whether all values are one; None if the rows are valid but not canonical. Raises for the rest."""
    bad_index, bad_value, ascending, no_zeros, ones = csr.scan(indices, data, indptr, n_features)
    if bad_index >= 0:
        row = int(np.searchsorted(indptr, bad_index, side="right")) - 1
        raise ValueError(
            f"{name} has column index {indices[bad_index]} in row {row}, outside 0 … {n_features - 1}: "
            "its indices and its shape do not belong together"
        )
    if bad_value >= 0:
        row = int(np.searchsorted(indptr, bad_value, side="right")) - 1
        what = "NaN" if np.isnan(data[bad_value]) else f"infinity or a value too large for {data.dtype} (inf)"
        raise ValueError(
            f"{name} contains {what} in row {row}, column {indices[bad_value]}; "
            "leave missing entries out of a sparse matrix, or fill them before"
        )
    return ones if ascending and no_zeros else None


def check_target(y: Any, n_rows: int, *, name: str = "y") -> NDArray[np.float64]:
    """y as (n_rows,) float64, finite."""
    array = np.asarray(y)
    if array.shape != (n_rows,):
        raise ValueError(f"{name} must have one value a row of X, shape ({n_rows},); got shape {array.shape}")
    try:
        if array.dtype.kind not in "buifO":
            raise TypeError
        array = array.astype(np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"{name} must hold numbers, got an array of type {array.dtype}") from None
    bad = ~np.isfinite(array)
    if bad.any():
        at = int(np.argmax(bad))
        raise ValueError(
            f"{name} contains {array[at]} at position {at} ({bad.sum()} such values); drop or fill those rows"
        )
    return array


def check_sample_weight(sample_weight: Any, n_rows: int) -> NDArray[np.float64] | None:
    """Weights as (n_rows,) float64 of mean 1; None stays None, and so do equal weights."""
    weight = check_weights(sample_weight, n_rows)
    if weight is None:
        return None
    weight = weight / weight.max()  # before the sum, which may overflow
    return None if weight.min() == 1 else weight / weight.mean()


def check_weights(sample_weight: Any, n_rows: int) -> NDArray[np.float64] | None:
    """Weights as (n_rows,) float64, finite, not negative and not all zero; None stays None."""
    if sample_weight is None:
        return None
    weight = np.asarray(sample_weight)
    if weight.ndim == 0:
        weight = np.full(n_rows, weight[()])
    if weight.shape != (n_rows,):
        raise ValueError(f"sample_weight must have one value a row of X, shape ({n_rows},); got shape {weight.shape}")
    try:
        if weight.dtype.kind not in "buifO":
            raise TypeError
        weight = weight.astype(np.float64)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"sample_weight must hold numbers, got an array of type {weight.dtype}") from None
    if not np.isfinite(weight).all() or (weight < 0).any():
        at = int(np.argmin(np.isfinite(weight) & (weight >= 0)))
        raise ValueError(f"sample_weight must be finite and not negative; got {weight[at]} at position {at}")
    if weight.max() == 0:
        raise ValueError("sample_weight is zero everywhere: there is nothing to fit; give some row a positive weight")
    return np.asarray(weight, np.float64)


_LARGEST = 1e30  # option: float32 holds it, and with room to multiply


def check_positive(value: Any, name: str, *, zero: bool = False, integer: bool = False) -> None:
    """Refuses a parameter that is not a positive (with zero=True: non-negative) number, or none that float32 holds."""
    kind = "integer" if integer else "number"
    types = (int, np.integer) if integer else (int, float, np.integer, np.floating)
    if (
        isinstance(value, bool)
        or not isinstance(value, types)
        or not 0 <= value < np.inf  # also false for NaN, and an integer may be of any size
        or (value == 0 and not zero)
    ):
        raise ValueError(f"{name} must be a {'non-negative' if zero else 'positive'} {kind}, got {value!r}")
    if value > _LARGEST:
        raise ValueError(f"{name} must be at most {_LARGEST:g}, got {value!r}")


@dataclass(frozen=True, eq=False)
class RelationBlock:
    """Columns that are said of an entity, stored once: row i of the data has those of row index[i] of X.

    Estimators take a list [X, RelationBlock(index, X_block), …], whose columns are those of X, which may be None, then
    those of each block. `ALS` and `MCMC` work on the blocks as they are (Rendle 2013, Scaling Factorization Machines to
    Relational Data); other solvers, and predictions, see the rows that they stand for.

    >>> import numpy as np
    >>> ages = RelationBlock(np.array([0, 0, 1]), np.array([[1, 0], [0, 1]]))  # rows 0 and 1 are of one user
    """

    index: Any  # (n_rows,) int
    X: Any  # (n_entities, n_columns), matrix-like


@dataclass(frozen=True, eq=False)
class Block:
    """A RelationBlock whose rows have the columns of all, of which those of its spans are its own."""

    index: NDArray[np.int32]
    rows: Rows
    spans: tuple[tuple[int, int], ...]  # (start, stop) of columns, ascending


@dataclass(frozen=True)
class Relations:
    """Canonical rows with blocks beside them; all have the columns of all, none of them those of another."""

    rows: Rows
    blocks: tuple[Block, ...]

    @property
    def n_rows(self) -> int:
        return self.rows.n_rows

    @property
    def n_features(self) -> int:
        return self.rows.n_features

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.rows.dtype

    def take(self, of: NDArray[Any]) -> Relations:
        """Some rows, in the order given."""
        return Relations(self.rows.take(of), tuple(replace(block, index=block.index[of]) for block in self.blocks))

    def flat(self) -> Rows:
        """The rows that they stand for."""
        parts = [self.rows.matrix(), *(block.rows.take(block.index).matrix() for block in self.blocks)]
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        return check_csr(total, dtype=self.dtype)


def check_relations(X: Any) -> Relations | None:
    """Canonical rows and blocks of a list with a RelationBlock in it; None for anything else."""
    if not isinstance(X, (list, tuple)):
        return None
    if not any(isinstance(part, RelationBlock) for part in X):
        return None
    own, blocks = (None, X) if isinstance(X[0], RelationBlock) else (X[0], X[1:])
    parts: list[tuple[NDArray[Any], Rows]] = []
    for number, block in enumerate(blocks):
        name = f"block {number}"
        if not isinstance(block, RelationBlock):
            raise TypeError(f"after X come RelationBlocks; {name} is a {type(block).__name__}")
        index, rows = np.asarray(block.index), check_csr(block.X, name=f"X of {name}")
        if index.ndim != 1 or index.dtype.kind not in "iu":
            raise ValueError(f"index of {name} must be (n_rows,) integers, got shape {index.shape} of {index.dtype}")
        if parts and len(index) != len(parts[0][0]):
            raise ValueError(f"index of {name} has {len(index)} rows, that of block 0 {len(parts[0][0])}: one a row")
        if len(index) and (index.min() < 0 or index.max() >= rows.n_rows):
            raise ValueError(
                f"index of {name} goes from {index.min()} to {index.max()}; its X has rows 0 to {rows.n_rows - 1}"
            )
        parts.append((index.astype(np.int32), rows))
    n_rows = len(parts[0][0])
    if n_rows == 0:
        raise ValueError("the blocks have 0 rows: there is nothing to fit")
    main = None if own is None else check_csr(own)
    if main is not None and main.n_rows != n_rows:
        raise ValueError(f"X has {main.n_rows} rows, the blocks' indices have {n_rows}")
    dtype = np.result_type(*(rows.dtype for _, rows in parts), *(() if main is None else (main.dtype,)))
    if main is None:
        main = Rows(np.zeros(n_rows + 1, np.int32), np.empty(0, np.int32), None, 0, 0, dtype)
    width = main.n_features + sum(rows.n_features for _, rows in parts)
    placed, at = [], main.n_features
    for index, rows in parts:
        indices = rows.indices + rows.indices.dtype.type(at)
        moved = check_csr(rows, dtype=dtype)._replace(indices=indices, n_features=width)
        if rows.n_features:  # else nothing is said
            placed.append(Block(index, moved, ((at, at + rows.n_features),)))
        at += rows.n_features
    return Relations(check_csr(main, dtype=dtype)._replace(n_features=width), tuple(placed))
