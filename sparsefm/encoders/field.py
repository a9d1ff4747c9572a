"""One field of the encoded matrix, and what every column encoder needs to make and keep one.

A column encodes rows as a `Block`; `_stack` puts blocks side by side. The checks at the end are for options
(at fit) and for state that comes from a file: what `from_state` trusts is checked here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.sparse import csr_array

Frame = Mapping[str, "pd.Series[Any]"]  # the input columns by name
State = tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]
Ints = npt.NDArray[np.int64]

UNKNOWN, MISSING = "<unknown>", "<missing>"


class Block(NamedTuple):
    """The entries of one field, row by row, columns counted from the field's first and sorted in each row."""

    counts: Ints | None  # (n_rows,) entries of each row; None: one in every row
    indices: Ints  # (nnz,)
    data: npt.NDArray[np.float32]  # (nnz,)
    unknown: float  # share of rows with a level that is not in the vocabulary
    missing: float  # share of rows without a value


def _share(mask: npt.NDArray[np.bool_]) -> float:
    return float(mask.mean()) if mask.size else 0.0


def _stack(blocks: Sequence[tuple[int, Block]], n_rows: int, n_columns: int) -> csr_array:
    """The blocks side by side, each with its first column, in rising order."""
    per_row = np.zeros(n_rows, np.int64)
    for _, block in blocks:
        per_row += 1 if block.counts is None else block.counts
    indptr = np.zeros(n_rows + 1, np.int64)
    np.cumsum(per_row, out=indptr[1:])
    nnz, limit = int(indptr[-1]), np.iinfo(np.int32).max
    dtype = np.int64 if max(nnz, n_columns) > limit else np.int32
    indices, data = np.empty(nnz, dtype), np.empty(nnz, np.float32)
    free = indptr[:-1].copy()  # the next free place of each row
    for first, block in blocks:
        if block.counts is None:
            places = free
        else:
            before = np.cumsum(block.counts) - block.counts
            places = np.repeat(free - before, block.counts) + np.arange(len(block.indices))
        indices[places] = block.indices + first
        data[places] = block.data
        free += 1 if block.counts is None else block.counts
    X = csr_array((data, indices, indptr.astype(dtype)), shape=(n_rows, n_columns))
    X.has_canonical_format = True
    return X


def _short(value: object) -> str:
    try:
        text = repr(value)
    except ValueError:  # an integer beyond Python's limit of digits
        text = "a huge number"
    return text if len(text) <= 60 else text[:57] + "..."


def _check_choice(column: str, option: str, value: object, choices: Sequence[str | None]) -> None:
    if not (value is None or isinstance(value, str)) or value not in choices:
        raise ValueError(f"column {column!r}: {option} must be one of {choices}, got {_short(value)}")


def _entry(meta: object, key: str, *types: type) -> Any:
    if not isinstance(meta, dict) or type(meta.get(key)) not in types:
        found = f"got {_short(meta.get(key))}" if isinstance(meta, dict) else f"in a {type(meta).__name__}"
        raise ValueError(f"state entry {key!r} must be {' or '.join(t.__name__ for t in types)}, {found}")
    return meta[key]


def _expect_keys(mapping: object, keys: Sequence[str]) -> None:
    if not isinstance(mapping, Mapping) or set(mapping) != set(keys):
        found = list(mapping) if isinstance(mapping, Mapping) else type(mapping).__name__
        raise ValueError(f"state must have exactly the entries {list(keys)}, got {_short(found)}")


def _array(arrays: Mapping[str, npt.NDArray[Any]], name: str, dtype: type) -> npt.NDArray[Any]:
    array = arrays[name]
    if not isinstance(array, np.ndarray) or array.dtype != dtype or array.ndim != 1:
        found = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
        raise ValueError(f"array {name!r} must be one-dimensional {np.dtype(dtype)}, got {found}")
    return np.ascontiguousarray(array)
