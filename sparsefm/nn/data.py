"""Sparse rows for PyTorch: a batch of them, a dataset that cuts batches whole, and a sampler of whole batches.

    loader = DataLoader(CSRDataset(X, y), sampler=RowBatches(len(y), 1024, shuffle=True), batch_size=None)

`batch_size=None` stops the loader from asking for single rows and stacking them: the sampler has put rows together
already, and the dataset cuts all of them from the matrix at once.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from typing import Any, NamedTuple, NoReturn, TypeAlias

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from ..validation import Rows, check_csr, check_positive

__all__ = ["CSRBatch", "CSRDataset", "RowBatches"]

_REAL_TYPES = {torch.float32: np.float32, torch.float64: np.float64}


class CSRBatch(NamedTuple):
    """Rows of a sparse matrix as tensors.

    A tuple of four, which is how torch's loaders, pytrees and distributed wrappers take it apart and put it
    together again; the number of rows is `n_rows`, not `len`.

    Parameters
    ----------
    indptr : Tensor (n_rows + 1,) int32 or int64
        Where each row begins in `indices`; begins with 0.
    indices : Tensor (nnz,) of the same type
        Column numbers, ascending in each row.
    data : Tensor (nnz,) or None
        Values; None means that every value is one.
    n_features : int
        Number of columns.

    Examples
    --------
    >>> batch = CSRBatch.from_csr([[0, 2.5, 0], [1, 0, 3]])
    >>> batch.indptr.tolist(), batch.indices.tolist(), batch.n_rows
    ([0, 1, 3], [1, 0, 2], 2)
    """

    indptr: Tensor
    indices: Tensor
    data: Tensor | None
    n_features: int

    @property
    def n_rows(self) -> int:
        return self.indptr.shape[0] - 1

    @property
    def nnz(self) -> int:
        return self.indices.shape[0]

    @classmethod
    def from_csr(cls, X: Any, *, dtype: torch.dtype | None = None) -> CSRBatch:
        """All rows of X, checked and copied.

        Parameters
        ----------
        X : whatever `validation.check_csr` takes; (n_rows, n_features)
            A scipy sparse matrix or array, an array, a DataFrame of numbers, a list of rows.
        dtype : torch.float32 or torch.float64, optional
            Type of the values; by default float64 stays float64 and everything else becomes float32.

        Raises
        ------
        ValueError
            For anything that is not a finite real matrix with valid CSR structure, and for another `dtype`.
        TypeError
            For something that is no matrix at all.

        Examples
        --------
        >>> CSRBatch.from_csr([[0, 2], [3, 0]], dtype=torch.float64).data
        tensor([2., 3.], dtype=torch.float64)
        """
        if dtype is not None and dtype not in _REAL_TYPES:
            raise ValueError(
                f"dtype must be torch.float32 or torch.float64, got {dtype!r}; convert the batch with .to(dtype=...)"
            )
        rows = check_csr(X, dtype=None if dtype is None else _REAL_TYPES[dtype])
        data = None if rows.data is None else torch.tensor(rows.data)
        return cls(torch.tensor(rows.indptr), torch.tensor(rows.indices), data, rows.n_features)

    def to(
        self,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
        non_blocking: bool = False,
    ) -> CSRBatch:
        """The batch on `device`, its values converted to `dtype`; what is in place already is not copied.

        Parameters
        ----------
        device : device, str or int, optional
        dtype : torch.dtype, optional
            Type of the values; the indices keep theirs.
        non_blocking : bool
            Do not wait for copies from pinned memory.

        Examples
        --------
        >>> CSRBatch.from_csr([[0, 2], [3, 0]]).to("cpu", torch.float64).data
        tensor([2., 3.], dtype=torch.float64)
        """
        indptr = self.indptr.to(device=device, non_blocking=non_blocking)
        indices = self.indices.to(device=device, non_blocking=non_blocking)
        data = self.data
        if data is not None:
            data = data.to(device=device, dtype=dtype, non_blocking=non_blocking)
        return CSRBatch(indptr, indices, data, self.n_features)

    def pin_memory(self) -> CSRBatch:
        """The batch in page-locked memory, from which copies to a GPU need not wait."""
        data = None if self.data is None else self.data.pin_memory()
        return CSRBatch(self.indptr.pin_memory(), self.indices.pin_memory(), data, self.n_features)


_WithTargets: TypeAlias = tuple[CSRBatch, *tuple[Tensor, ...]]


class CSRDataset(Dataset[CSRBatch | _WithTargets]):
    """Rows of a sparse matrix and their targets, taken out a batch at a time.

    Arrays that are canonical CSR already are used in place and never written to, memory-mapped ones included, so
    that the matrix may be larger than memory. Batches own their memory and may be changed.

    Pickling, which is how worker processes that are spawned get the dataset, stores arrays mapped from a file as
    the file's name and the position in it: the file must then be found there, unchanged.

    Parameters
    ----------
    X : whatever `validation.check_csr` takes; (n_rows, n_features)
        A scipy sparse matrix or array, an array, a DataFrame of numbers, a list of rows.
    *targets : array, Series or list; (n_rows,)
        Numbers. Floating and boolean ones become X's real type; integers, such as class numbers, keep their type.

    Raises
    ------
    ValueError
        If X is not a finite real matrix with valid CSR structure, or a target has another length, holds something
        other than numbers, or NaN or infinity.
    TypeError
        If X is no matrix at all.

    Notes
    -----
    `ds[rows]` takes an int, a slice, a list, a NumPy array or a tensor of row numbers, or a mask of n_rows booleans.
    It gives the rows in that order as `CSRBatch`, or as a tuple `(CSRBatch, target, ...)` if there are targets, each
    target of shape (rows,); an int gives one row. Row numbers below zero count from the end. A DataLoader passes a
    tuple on as a list.

    A DataLoader needs `batch_size=None` and a sampler of whole batches: `RowBatches`, or torch's own ones in a
    `torch.utils.data.BatchSampler`.

    To be used in place, `indptr` and `indices` must have the same type; and scipy's `csr_matrix`, unlike its
    `csr_array`, copies int64 ones into int32 where they fit.

    Examples
    --------
    >>> ds = CSRDataset([[0, 2.5, 0], [1, 0, 3], [0, 0, 0]], [4.0, 3.5, 1.0])
    >>> X, y = ds[1:]
    >>> X.indptr.tolist(), X.indices.tolist(), y.tolist()
    ([0, 2, 2], [0, 2], [3.5, 1.0])
    """

    def __init__(self, X: Any, *targets: Any) -> None:
        self._rows = check_csr(X)
        self._targets = [
            _check_target(target, len(self), self._rows.dtype, f"targets[{i}]") for i, target in enumerate(targets)
        ]
        self._matrix = _scipy_rows(self._rows)

    def __len__(self) -> int:
        return self._rows.n_rows

    @property
    def n_features(self) -> int:
        """Number of columns of X."""
        return self._rows.n_features

    def __getitem__(self, rows: int | slice | list[int] | NDArray[Any] | Tensor) -> CSRBatch | _WithTargets:
        at = self._checked(rows)
        indptr, indices, data, n_features, *_ = self._rows
        if isinstance(at, slice):
            begin, end = indptr[at.start], indptr[at.stop]
            batch_indptr = indptr[at.start : at.stop + 1] - begin
            batch_indices = indices[begin:end].copy()
            batch_data = None if data is None else data[begin:end].copy()
            targets = [target[at].copy() for target in self._targets]
        else:
            cut = self._matrix[at]
            # no rows come with int32 indices, whatever the matrix has
            batch_indptr = cut.indptr.astype(indptr.dtype, copy=False)
            batch_indices = cut.indices.astype(indices.dtype, copy=False)
            batch_data = None if data is None else cut.data
            targets = [target[at] for target in self._targets]
        batch = CSRBatch(
            torch.from_numpy(batch_indptr),
            torch.from_numpy(batch_indices),
            None if batch_data is None else torch.from_numpy(batch_data),
            n_features,
        )
        if not targets:
            return batch
        item: _WithTargets = (batch, *map(torch.from_numpy, targets))
        return item

    def __getitems__(self, rows: list[int]) -> NoReturn:
        """Called by a DataLoader that collates; default_collate would stack the rows' arrays, not join them."""
        raise TypeError(
            "a CSRDataset gives whole batches, and this DataLoader was set up to collect single rows with its "
            "batch_size; write DataLoader(ds, sampler=RowBatches(len(ds), batch_size, shuffle=...), batch_size=None), "
            "or for another order of rows DataLoader(ds, sampler=BatchSampler(...), batch_size=None)"
        )

    def _checked(self, rows: Any) -> slice | NDArray[np.int64]:
        """A slice 0 <= start <= stop <= n_rows of step 1, or row numbers in −n_rows … n_rows − 1."""
        n_rows = len(self)
        if isinstance(rows, slice):
            start, stop, step = rows.indices(n_rows)
            return slice(start, max(start, stop)) if step == 1 else np.arange(start, stop, step, dtype=np.int64)
        if isinstance(rows, Tensor):
            rows = rows.numpy(force=True)
        if not isinstance(rows, (int, np.integer, list, np.ndarray)):
            raise TypeError(
                "rows must be an int, a slice, a list, an array or a tensor of row numbers, or a mask; "
                f"got {type(rows).__name__}"
            )
        numbers = np.asarray(rows, dtype=np.int64 if isinstance(rows, list) and not rows else None)
        if numbers.dtype.kind == "b" and numbers.ndim == 1:
            if len(numbers) != n_rows:
                raise IndexError(f"a mask must have one boolean a row, {n_rows} in all; got {len(numbers)}")
            return np.flatnonzero(numbers)
        if numbers.dtype.kind not in "iu":
            raise TypeError(f"row numbers must be integers, or booleans of a mask; got values of type {numbers.dtype}")
        if numbers.ndim > 1:
            raise IndexError(f"row numbers must be one-dimensional, got shape {numbers.shape}")
        numbers = numbers.reshape(-1)
        outside = (numbers < -n_rows) | (numbers >= n_rows)
        if outside.any():
            raise IndexError(f"row {numbers[np.argmax(outside)]} is out of range: the dataset has {n_rows} rows")
        return numbers.astype(np.int64, copy=False)

    def __getstate__(self) -> dict[str, Any]:
        indptr, indices, data, *rest = self._rows
        return {"arrays": [_packed(array) for array in (indptr, indices, data, *self._targets)], "rest": rest}

    def __setstate__(self, state: dict[str, Any]) -> None:
        indptr, indices, data, *self._targets = map(_unpacked, state["arrays"])
        self._rows = Rows(indptr, indices, data, *state["rest"])
        self._matrix = _scipy_rows(self._rows)


class RowBatches(Sampler[slice | NDArray[np.int64]]):
    """Row numbers of whole batches, for a DataLoader with `batch_size=None`.

    In order, a batch is a slice; shuffled, it is an array from one permutation of all rows, a new one each time the
    sampler is iterated over.

    Under several processes each of them makes its own sampler and gets a contiguous share of every batch, so that the
    processes together see the same batches in the same order as one process would. All have the same number of
    batches. The shares of a batch differ by one row at most; a last batch with fewer rows than processes is left out.

    Parameters
    ----------
    n_rows : int
        Number of rows in all.
    batch_size : int
        Rows of a batch, of all processes together.
    shuffle : bool
        Whether each epoch has another random order.
    generator : torch.Generator, optional
        Random source of the order; by default one is seeded from torch's global source, which `torch.manual_seed`
        sets. Several processes must agree on the order: give each its own generator with the same seed, used for
        nothing else.
    drop_last : bool
        Whether to leave out a last batch with fewer than `batch_size` rows.
    rank, world_size : int
        The number of this process, from 0, and how many there are.

    Raises
    ------
    TypeError
        If `generator` is no torch.Generator.
    ValueError
        If a number is out of range, there are fewer rows in a batch than processes, or several processes are to
        shuffle without a `generator`.

    Notes
    -----
    DistributedDataParallel weights processes equally. With a loss that is the mean over rows its gradient is that of
    the whole batch when the shares are equal: when `world_size` divides `batch_size`, and, by `drop_last=True` or by
    luck, the size of the last batch.

    Examples
    --------
    >>> [(rows.start, rows.stop) for rows in RowBatches(10, 4)]
    [(0, 4), (4, 8), (8, 10)]
    >>> [(rows.start, rows.stop) for rows in RowBatches(10, 4, rank=1, world_size=2)]
    [(2, 4), (6, 8), (9, 10)]
    >>> batches = RowBatches(10, 4, shuffle=True, generator=torch.Generator().manual_seed(0))
    >>> sorted(row for rows in batches for row in rows.tolist())
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    """

    def __init__(
        self,
        n_rows: int,
        batch_size: int,
        *,
        shuffle: bool = False,
        generator: torch.Generator | None = None,
        drop_last: bool = False,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        check_positive(n_rows, "n_rows", zero=True, integer=True)
        check_positive(batch_size, "batch_size", integer=True)
        check_positive(rank, "rank", zero=True, integer=True)
        check_positive(world_size, "world_size", integer=True)
        if rank >= world_size:
            raise ValueError(f"rank must be in 0 … world_size − 1 = {world_size - 1}, got {rank}")
        if batch_size < world_size:
            raise ValueError(
                f"batch_size={batch_size} leaves some of world_size={world_size} processes without a row; "
                "it counts the rows of all processes together: raise it"
            )
        if generator is not None and not isinstance(generator, torch.Generator):
            raise TypeError(
                f"generator must be a torch.Generator, got {generator!r}; "
                "write torch.Generator().manual_seed(...) for an order that can be repeated"
            )
        if shuffle and world_size > 1 and generator is None:
            raise ValueError(
                f"{world_size} processes must shuffle alike: give each generator=torch.Generator().manual_seed(...) "
                "with the same seed"
            )
        self.n_rows = int(n_rows)
        self.batch_size = int(batch_size)
        self.shuffle = shuffle
        self.generator = generator
        self.drop_last = drop_last
        self.rank = int(rank)
        self.world_size = int(world_size)

    def __len__(self) -> int:
        n_batches, n_left = divmod(self.n_rows, self.batch_size)
        # a process without rows in the last batch would leave the others waiting for its gradients
        return n_batches + (n_left >= self.world_size and not self.drop_last)

    def __iter__(self) -> Iterator[slice | NDArray[np.int64]]:
        # an array, because a worker process would receive every tensor in a shared memory segment of its own
        order = self._permutation() if self.shuffle else None
        for i in range(len(self)):
            begin = i * self.batch_size
            size = min(self.batch_size, self.n_rows - begin)
            rows = slice(begin + size * self.rank // self.world_size, begin + size * (self.rank + 1) // self.world_size)
            yield rows if order is None else order[rows]

    def _permutation(self) -> NDArray[np.int64]:
        generator = self.generator
        if generator is None:  # one draw from the global source, whatever the number of rows, as torch's samplers do
            generator = torch.Generator().manual_seed(int(torch.empty((), dtype=torch.int64).random_().item()))
        order: NDArray[np.int64] = torch.randperm(self.n_rows, generator=generator).numpy()
        return order


def _check_target(target: Any, n_rows: int, dtype: np.dtype[Any], name: str) -> NDArray[Any]:
    array = np.asarray(target)
    if array.shape != (n_rows,):
        raise ValueError(f"{name} must have one value a row of X, shape ({n_rows},); got shape {array.shape}")
    if array.dtype.kind in "iu":
        return array.astype(array.dtype.newbyteorder("="), copy=False)  # torch takes native ones only
    if array.dtype.kind not in "bf":
        raise ValueError(
            f"{name} must hold numbers, got an array of type {array.dtype}; convert it, or number classes 0, 1, …"
        )
    with np.errstate(over="ignore"):  # a float64 beyond float32 becomes inf, which is reported
        array = array.astype(dtype, copy=False)
    bad = ~np.isfinite(array)
    if bad.any():
        at = int(np.argmax(bad))
        what = "NaN" if np.isnan(array[at]) else f"infinity or a value too large for {dtype} (inf)"
        raise ValueError(f"{name} contains {what} at position {at} ({bad.sum()} such values); drop or fill those rows")
    return array


def _scipy_rows(rows: Rows) -> Any:
    """A scipy container of the same arrays, for its compiled row indexing: NumPy would gather through positions."""
    # without values any array of that length will do
    data = rows.indices if rows.data is None else rows.data
    return sp.csr_array((data, rows.indices, rows.indptr), shape=(rows.n_rows, rows.n_features))


class _Mapped(NamedTuple):
    """Where in a file the content of an array is."""

    path: str
    offset: int
    dtype: np.dtype[Any]
    length: int


def _packed(array: NDArray[Any] | None) -> NDArray[Any] | _Mapped | None:
    """The place in its file of a one-dimensional array that is mapped from one; any other array as it is."""
    base: Any = array
    while isinstance(base, np.ndarray) and not isinstance(base.base, mmap.mmap):
        base = base.base
    if (
        array is None
        or not isinstance(base, np.memmap)
        or base.filename is None
        or base.mode == "c"  # copy on write: the file may hold something else
        or not array.flags.c_contiguous
    ):
        return array
    offset = base.offset + array.ctypes.data - base.ctypes.data
    return _Mapped(os.fspath(base.filename), offset, array.dtype, len(array))


def _unpacked(array: Any) -> Any:
    if not isinstance(array, _Mapped):
        return array
    return np.asarray(np.memmap(array.path, array.dtype, "r", array.offset, (array.length,)))
