"""New columns of a model whose others stay as they are, where one solution of normal equations does not do: for
classes, by squares that stand in for the loss, and for any loss by steps."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._kernels import dispatch, gibbs
from ..model import FMParams
from ..validation import Rows
from .engine import Training, advice
from .first_order import AdaGrad
from .fold import Fold
from .problem import DivergenceError, Problem
from .sweep import Prior

__all__ = ["LatentFold", "LogisticFold", "step_in"]

_BOUNDS = 30  # of the logistic loss, each where the one before led
_DRAWS = 20  # of what stands behind the rows
_PASSES = 30  # of AdaGrad


class LogisticFold(Fold):
    """To the mode under the logistic loss, by quadratic bounds that touch it (Jaakkola & Jordan 2000)."""

    def __init__(
        self, rows: Rows, y: NDArray[Any], weight: Any, first: int, n_factors: int, n_threads: int | None
    ) -> None:
        super().__init__(rows, y, first, n_factors, n_threads)
        order = self.sweep.design.order
        self.y, self.weight = y[order], 1.0 if weight is None else weight[order]

    def __call__(self, params: FMParams, prior: Prior, alpha: float, key: int | None) -> tuple[Any, Any]:
        """The mode: there is no draw under this loss."""
        sweep = self.sweep
        sweep.start(params)
        for _ in range(_BOUNDS):
            sweep.residuals()
            half = np.abs(sweep.target - sweep.residual, dtype=np.float64) / 2
            curvature = np.where(half < 1e-3, 0.25, np.tanh(half) / (4 * np.maximum(half, 1e-3)))
            target, weight = (self.y - 0.5) / curvature, self.weight * curvature
            sweep.see(target.astype(sweep.dtype), weight.astype(sweep.dtype))
            sweep.run(prior, alpha, None)
        return _found(self)


class LatentFold(Fold):
    """Draws where a normal behind each row decides its level, by the cuts that it lies between (Albert & Chib 1993)."""

    def __init__(self, rows: Rows, y: NDArray[Any], first: int, n_factors: int, n_threads: int | None) -> None:
        super().__init__(rows, y, first, n_factors, n_threads)
        self.cuts = np.array([-np.inf, 0.0, np.inf])
        self.levels = self.sweep.target.astype(np.int32)
        self.row_ids = np.asarray(self.sweep.design.order, np.int64)

    def __call__(self, params: FMParams, prior: Prior, alpha: float, key: int | None) -> tuple[Any, Any]:
        """A draw; alpha is 1, the precision of the normals."""
        assert key is not None
        sweep = self.sweep
        sweep.start(params)
        for number in range(_DRAWS):
            self._look(key + 2 * number)
            sweep.run(prior, alpha, key + 2 * number + 1)
        return _found(self)

    def _look(self, key: int) -> None:
        """Draws the normals, given the scores as they are."""
        sweep = self.sweep
        sweep.residuals()
        score = sweep.target - sweep.residual
        latent = np.empty_like(score)

        def run(start: int, stop: int) -> None:
            gibbs.latents(latent, score, self.levels, self.cuts, self.row_ids, key, start, stop)

        dispatch.run_pieces(run, len(score), 64 * len(score), sweep.n_threads)
        sweep.see(latent, None)


def _found(fold: Fold) -> tuple[Any, Any]:
    params = fold.sweep.params()
    return params.w[fold.columns], params.V[fold.columns]


def step_in(problem: Problem, first: int) -> tuple[NDArray[Any], FMParams]:
    """The columns from `first` on that rows have, and their parameters after AdaGrad's passes, sample after sample: the
    mean over the latter half of the passes (Polyak & Juditsky 1992), which also settles under losses with a kink. All
    columns before them and the bias are held where `problem.start` has them."""
    training = Training(AdaGrad(batch_size=1).method(problem), problem)
    table, columns = training.table, np.unique(problem.rows.indices[problem.rows.indices >= first])
    table.admitted[columns] = False
    table.admit(columns, problem.init_std, problem.seed, training.scale**-0.5)
    table.hold(np.arange(first))
    training.bias_rate = 0.0
    found, half = table.copy(columns), _PASSES // 2
    for epoch in range(1, _PASSES + 1):
        _, bad = training.run(problem, None, epoch)
        now = table.copy(columns)
        if bad >= 0 or not (np.isfinite(now.w).all() and np.isfinite(now.V).all()):
            raise DivergenceError(f"the steps of new columns diverged. {advice(problem, training.rate)}")
        for mean, moved in ((found.w, now.w), (found.V, now.V)):
            mean += (moved - mean) / max(1, epoch - half)
    return columns, found
