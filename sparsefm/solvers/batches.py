"""Fixed minibatches of the training rows, each with its columns found once."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._kernels import adaptive, csr, dispatch, minibatch
from ..model import aligned_zeros
from .problem import LOSSES, Problem
from .table import Table
from .team import work

__all__ = ["Batches"]

LARGEST = 1 << 16  # rows of a batch are counted in 16 bits


class Batches:
    """The rows in a random order, or without a seed as they come, cut into batches; the last may be shorter."""

    def __init__(self, problem: Problem, batch_size: int, seed: int | None) -> None:
        rows = problem.rows
        self.problem, self.size = problem, min(batch_size, rows.n_rows)
        self.order = np.arange(rows.n_rows, dtype=rows.indices.dtype)
        if seed is not None:
            adaptive.shuffle(self.order, seed)
        self.n_batches = -(-rows.n_rows // self.size)
        lengths = np.diff(rows.indptr)[self.order]
        firsts = np.arange(self.n_batches) * self.size
        per_batch = np.add.reduceat(lengths, firsts, dtype=np.int64)
        if per_batch.max() > np.iinfo(np.int32).max:
            raise ValueError(f"a batch of {self.size} rows has {per_batch.max()} non-zeros: lower batch_size")
        self.entry_from = np.concatenate([[0], np.cumsum(per_batch)])
        self.n_columns = np.zeros(self.n_batches, np.int64)
        nnz = max(1, rows.nnz)
        self.features = np.empty(nnz, rows.indices.dtype)
        self.ends, self.entry_rows = np.empty(nnz, np.int32), np.empty(nnz, np.uint16)
        self.entry_data = None if rows.data is None else np.empty(nnz, rows.dtype)

        def run(start: int, stop: int) -> None:
            csr.batch_columns(
                self.features,
                self.ends,
                self.entry_rows,
                self.entry_data,
                self.n_columns,
                self.entry_from,
                rows.indptr,
                rows.indices,
                rows.data,
                self.order,
                self.size,
                start,
                stop,
            )

        dispatch.run_pieces(run, self.n_batches, 32 * rows.nnz, problem.n_threads)
        self._sums = aligned_zeros((self.size, max(1, -(-problem.n_factors // 8) * 8)), rows.dtype)
        self._d = aligned_zeros((2, self.size), rows.dtype)

    def run(self, table: Table, batches: NDArray[np.int64], steps: tuple[float, ...], key: int) -> tuple[float, int]:
        """A pass over some batches; (Σ weight · loss before each batch's own step, first bad row or −1)."""
        problem, rows = self.problem, self.problem.rows

        def open_pass(members: int) -> Any:
            return minibatch.open_pass(
                table.array,
                table.bias,
                self._sums,
                self._d,
                aligned_zeros((members, max(8, table.kp)), rows.dtype),
                rows.indptr,
                rows.indices,
                rows.data,
                problem.y,
                problem.weight,
                self.order,
                self.features,
                self.ends,
                self.entry_rows,
                self.entry_data,
                self.entry_from,
                self.n_columns,
                batches,
                table.kp,
                table.optimiser,
                steps,
                problem.n_factors,
                LOSSES[problem.loss],
                problem.shape,
                key,
                dispatch.ISA,
            )

        result: tuple[float, int] = work(open_pass, problem.n_threads if minibatch.teams else 1)
        return result
