"""One field of the encoded matrix, and what every column encoder needs to make and keep one.

A fitted `Column` encodes rows as a `Block`; `_stack` puts blocks side by side. The checks at the end are for
options (at fit) and for state that comes from a file: what `from_state` trusts is checked here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any, NamedTuple, Self

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

    counts: npt.NDArray[np.integer[Any]] | None  # (n_rows,) entries of each row; None: one in every row
    indices: npt.NDArray[np.integer[Any]]  # (nnz,)
    data: npt.NDArray[np.float32] | None  # (nnz,); None: all ones
    unknown: float  # share of rows with a level that is not in the vocabulary
    missing: float  # share of rows without a value


def _take(block: Block, rows: Ints) -> Block:
    """The entries of some rows, in the order given."""
    if block.counts is None:
        data = None if block.data is None else block.data[rows]
        return Block(None, block.indices[rows], data, block.unknown, block.missing)
    counts = block.counts[rows].astype(np.int64)
    begins = (np.cumsum(block.counts, dtype=np.int64) - block.counts)[rows]
    entries = np.arange(counts.sum()) + np.repeat(begins - (np.cumsum(counts) - counts), counts)
    data = None if block.data is None else block.data[entries]
    return Block(counts, block.indices[entries], data, block.unknown, block.missing)


def _same(a: Block, b: Block) -> bool:
    """Whether both have the same entries."""
    return all(
        (one is None and other is None) or (one is not None and other is not None and np.array_equal(one, other))
        for one, other in zip(a[:3], b[:3], strict=True)
    )


class Column(ABC):
    """A field in the making and in use: statistics of the rows seen, and the columns they amount to.

    A frame is read once, `cells = column.read(frame)`, and what was read is counted or encoded or both:

        fit              read, check, count, settle, encode_training
        fit of chunks    read, check, count; read, check, count; ...; settle
        partial_fit      read, check, count, settle: columns that exist never move, new ones come behind them
        transform        read, encode
    """

    size: int  # columns so far, 0 before the first settle

    def __init__(self, name: str, encoder: Any) -> None:
        self.name, self.encoder = name, encoder
        self.size = 0

    @property
    def sources(self) -> tuple[str, ...]:
        """The input columns it reads."""
        return (self.name,)

    @property
    def essential(self) -> tuple[str, ...]:
        """The sources that `read` needs where one side of a request is encoded, its user or its item alone."""
        return self.sources

    @property
    def entity(self) -> str | None:
        """The source that decides all entries of a row, where these are many: they are then kept once for each of its
        values, with `transform_blocks`."""
        return None

    @property
    def bucket(self) -> int:
        """The column that unknown levels share, -1 if there is none."""
        return -1

    @abstractmethod
    def read(self, frame: Frame) -> Any:
        """The cells of its sources, made ready to be counted and encoded. Refuses what it cannot read."""

    def check(self, cells: Any, y: npt.NDArray[Any] | None) -> None:
        """Raises for rows that cannot be counted; counting them, and settling later, raises nothing any more."""
        return

    @abstractmethod
    def count(self, cells: Any, y: npt.NDArray[Any] | None) -> None:
        """Take the rows into the statistics. y: (n_rows,) target, None if fit was given none."""

    @abstractmethod
    def settle(self) -> None:
        """Make columns out of what was counted since the last time."""

    @abstractmethod
    def encode(self, cells: Any) -> Block:
        """Rows as `transform` sees them."""

    def encode_training(self, cells: Any, y: npt.NDArray[Any] | None) -> Block:
        """The rows just counted, all that ever were, as `fit_transform` sees them: no row sees itself."""
        return self.encode(cells)

    def encode_entities(self, cells: Any, example: Ints) -> Block:
        """One row for each value of `entity`; example: a row that has it."""
        raise NotImplementedError

    @abstractmethod
    def labels(self, name: str) -> list[str]:
        """A name for each column, in their order; they begin with the field's name. (size,)"""

    @abstractmethod
    def decode(self, X: csr_array) -> pd.Series[Any] | None:
        """The cells that encoded rows (n_rows, size) stand for; None if nothing leads back."""

    @abstractmethod
    def to_state(self) -> State:
        """All that `encode` and `count` need, as a JSON-able dict and arrays."""

    @classmethod
    @abstractmethod
    def from_state(cls, name: str, encoder: Any, meta: Any, arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        """The column that `to_state` wrote. Raises ValueError for anything malformed."""


def _share(mask: npt.NDArray[np.bool_]) -> float:
    return float(mask.mean()) if mask.size else 0.0


def _stack(blocks: Sequence[tuple[int | Ints, Block]], n_rows: int, n_columns: int) -> csr_array:
    """The blocks side by side, each with its first column, or with all of them where a field has grown."""
    per_row = np.zeros(n_rows, np.int64)
    for _, block in blocks:
        per_row += 1 if block.counts is None else block.counts
    indptr = np.zeros(n_rows + 1, np.int64)
    np.cumsum(per_row, out=indptr[1:])
    nnz, limit = int(indptr[-1]), np.iinfo(np.int32).max
    dtype = np.int64 if max(nnz, n_columns) > limit else np.int32
    indices, data = np.empty(nnz, dtype), np.ones(nnz, np.float32)
    table = len(blocks) == 1 or all(block.counts is None for _, block in blocks)  # places need not be looked up
    free = indptr[:-1].copy()  # the next free place of each row
    for i, (columns, block) in enumerate(blocks):
        places: Any
        if table:
            places = slice(i, None, len(blocks))
        elif block.counts is None:
            places = free
        else:
            before = np.cumsum(block.counts, dtype=np.int64) - block.counts
            places = np.repeat(free - before, block.counts) + np.arange(len(block.indices))
        if isinstance(columns, int) and table:
            np.add(block.indices, columns, out=indices[places], dtype=dtype, casting="unsafe")
        elif isinstance(columns, int):
            indices[places] = np.add(block.indices, columns, dtype=dtype)
        else:
            indices[places] = columns[block.indices]
        if block.data is not None:
            data[places] = block.data
        free += 1 if block.counts is None else block.counts
    X = csr_array((data, indices, indptr.astype(dtype)), shape=(n_rows, n_columns))
    firsts = [columns if isinstance(columns, int) else -1 for columns, _ in blocks]
    if firsts != sorted(firsts) or -1 in firsts:  # fields that have grown
        X.sort_indices()
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


def _check_integer(column: str, option: str, value: object, low: int, high: int | None = None) -> None:
    if not isinstance(value, Integral) or isinstance(value, bool) or not low <= int(value) <= (high or int(value)):
        wanted = f"above {low - 1}" if high is None else f"from {low} to {high}"
        raise ValueError(f"column {column!r}: {option} must be an integer {wanted}, got {_short(value)}")


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
