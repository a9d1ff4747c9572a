"""New columns of a model whose others stay as they are."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..model import FMParams
from ..validation import Block, Relations, Rows
from .design import Design
from .sweep import Prior, Sweep

__all__ = ["Fold"]

_PASSES = 10  # where a row has several of the columns


class Fold:
    """Rows in which some columns, the last ones from `first` on, are solved for given all before them.

    What a row has of the latter is said once, as a relational block of which no column moves.
    """

    def __init__(self, rows: Rows, y: NDArray[Any], first: int, n_factors: int, n_threads: int | None) -> None:
        matrix = rows.matrix()
        new = matrix.indices >= first
        self.columns = np.unique(matrix.indices[new])
        moving, fixed = (_part(matrix, keep, rows.dtype) for keep in (new, ~new))
        index = np.arange(rows.n_rows, dtype=np.int32)
        relations = Relations(moving, (Block(index, fixed, ((0, 0),)),))
        design = Design.of(relations, n_factors, spans=[(int(j), int(j) + 1) for j in self.columns])
        self.passes = 1 if len(self.columns) == 0 or np.diff(moving.indptr).max() <= 1 else _PASSES
        self.sweep = Sweep(design, n_factors, np.ascontiguousarray(y[design.order]), None, n_threads)

    def __call__(self, params: FMParams, prior: Prior, alpha: float, key: int | None) -> tuple[Any, Any]:
        """Weights and factors of the columns: a draw given all else, or without a key the mode. `params` has zeros for
        them."""
        self.sweep.start(params)
        for number in range(self.passes):
            self.sweep.run(prior, alpha, None if key is None else key + number)
        found = self.sweep.params()
        return found.w[self.columns], found.V[self.columns]


def _part(matrix: Any, keep: NDArray[np.bool_], dtype: Any) -> Rows:
    """The rows with some of their entries."""
    indptr = np.concatenate([[0], np.cumsum(keep)])[matrix.indptr].astype(np.int32)
    data = np.asarray(matrix.data[keep], dtype)
    indices = matrix.indices[keep].astype(np.int32)
    return Rows(indptr, indices, None if (data == 1).all() else data, matrix.shape[1], -1, np.dtype(dtype))
