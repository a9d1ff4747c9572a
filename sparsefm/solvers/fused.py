"""Stochastic gradient descent and AdaGrad: one sample at a time, scored and applied in one visit to memory."""

from __future__ import annotations

from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator

from .._kernels import adaptive, dispatch
from ..model import FMParams, aligned_zeros, score
from ..validation import check_positive
from .problem import LOSSES, DivergenceError, Problem, mean_loss

__all__ = ["SGD", "AdaGrad"]

# Scores are near unit scale (the target is standardised, or logits), so a mean loss like this, or this many
# times that of the constant start, is no fit on its way.
_RUNAWAY = 1e3


class _Fused(BaseEstimator):  # type: ignore[misc]
    """The loop over epochs; what a step does is one compile-time instance of _kernels/adaptive.h."""

    _optimiser: int
    _epsilon: float
    max_iter: int
    learning_rate: float
    tol: float
    patience: int

    def _check(self) -> None:
        name = type(self).__name__
        check_positive(self.max_iter, f"{name}(max_iter)", integer=True)
        check_positive(self.learning_rate, f"{name}(learning_rate)")
        check_positive(self.tol, f"{name}(tol)", zero=True)
        check_positive(self.patience, f"{name}(patience)", integer=True)

    def solve(self, problem: Problem) -> FMParams:
        """Passes over the rows in a new random order each, until max_iter, early stopping or `report` ends them.

        The result is a function of the problem and its seed; n_threads only speeds up the evaluation.
        """
        self._check()
        rows, k = problem.rows, problem.n_factors
        table = _Table(rows.n_features, k, rows.dtype, has_state=self._optimiser == 1)
        occurring = _occurring(rows.indices, rows.n_features)
        adaptive.fill_uniform(table.array, k, occurring, problem.init_std, problem.seed)

        order = np.empty(rows.n_rows, dtype=rows.indices.dtype)
        w0, w0_state = problem.w0, 0.0
        start_loss = mean_loss(problem.loss, problem.y, np.full(rows.n_rows, w0), problem.weight)
        best_loss, best_params, best_epoch = np.inf, None, 0
        for epoch in range(1, self.max_iter + 1):
            began = perf_counter()
            adaptive.shuffle(order, problem.seed + epoch)
            w0, w0_state, total = adaptive.epoch(
                table.array,
                table.scratch,
                rows.indptr,
                rows.indices,
                rows.data,
                rows.row_length,
                problem.y,
                problem.weight,
                order,
                w0,
                w0_state,
                self._optimiser,
                LOSSES[problem.loss],
                self.learning_rate,
                self._epsilon,
                problem.l2_linear,
                problem.l2_factors,
                dispatch.ISA,
            )
            record: dict[str, Any] = {"epoch": epoch, "loss": total / rows.n_rows, "seconds": perf_counter() - began}
            self._check_divergence(record["loss"], start_loss, epoch)
            if problem.evaluation is not None:
                X, y, weight = problem.evaluation
                record["eval_loss"] = mean_loss(
                    problem.loss, y, score(table.view(w0), X, n_threads=problem.n_threads), weight
                )
                self._check_divergence(record["eval_loss"], np.inf, epoch)
            if problem.report(record):
                break
            if problem.early_stopping:
                if record["eval_loss"] < best_loss - self.tol:
                    best_loss, best_params, best_epoch = record["eval_loss"], table.copy(w0), epoch
                elif epoch - best_epoch >= self.patience:
                    break
        params = best_params if best_params is not None else table.copy(w0)
        if not (np.isfinite(params.w0) and np.isfinite(params.w).all() and np.isfinite(params.V).all()):
            self._check_divergence(np.nan, start_loss, epoch)
        return params

    def _check_divergence(self, loss: float, start_loss: float, epoch: int) -> None:
        if np.isfinite(loss) and loss <= _RUNAWAY * max(start_loss, 1.0):
            return
        raise DivergenceError(
            f"training diverged in epoch {epoch}: the mean loss is {loss:.3g}, that of a constant prediction "
            f"{start_loss:.3g}. Scale numeric columns (Numeric() in a FrameEncoder, or StandardScaler), lower "
            f"learning_rate={self.learning_rate}, raise l2_factors, or use solver='adagrad'"
        )


class AdaGrad(_Fused):
    """Adaptive gradient steps (Duchi, Hazan & Singer 2011), one row of the training table a feature.

    Parameters
    ----------
    max_iter : int
        Passes over the rows.
    learning_rate : float
        Length of the first steps, in units of the (standardised) score. The step of a parameter shrinks with the root of
        the sum of its squared gradients, so that rare features keep learning when frequent ones have settled.
    tol, patience : float, int
        With early stopping: end after `patience` passes that did not lower the watched loss by more than tol.

    Examples
    --------
    >>> from sparsefm import FMRegressor
    >>> from sparsefm.solvers import AdaGrad
    >>> FMRegressor(solver=AdaGrad(learning_rate=0.1, max_iter=10))
    FMRegressor(solver=AdaGrad(learning_rate=0.1, max_iter=10))
    """

    _optimiser = 1
    _epsilon = 1.0

    def __init__(
        self, *, max_iter: int = 30, learning_rate: float = 0.03, tol: float = 0.0, patience: int = 3
    ) -> None:
        self.max_iter = max_iter
        self.learning_rate = learning_rate
        self.tol = tol
        self.patience = patience


class SGD(_Fused):
    """Stochastic gradient descent with a constant step.

    Half the memory of AdaGrad and a shorter pass, but the step must suit the data: scale numeric columns.

    Parameters
    ----------
    max_iter, tol, patience
        As for AdaGrad.
    learning_rate : float
        Step per unit of gradient.
    """

    _optimiser = 0
    _epsilon = 0.0

    def __init__(
        self, *, max_iter: int = 30, learning_rate: float = 0.01, tol: float = 0.0, patience: int = 3
    ) -> None:
        self.max_iter = max_iter
        self.learning_rate = learning_rate
        self.tol = tol
        self.patience = patience


class _Table:
    """The interleaved training table of adaptive.h, private to one fit."""

    def __init__(self, n_features: int, n_factors: int, dtype: Any, *, has_state: bool) -> None:
        kp = -(-n_factors // 8) * 8
        width = 2 * kp + 2 if has_state else kp + 1
        self.n_factors = n_factors
        self.array = aligned_zeros((n_features, -(-width // 8) * 8), dtype)
        self.scratch = aligned_zeros((1, kp), dtype)[0]
        self._w = 2 * kp if has_state else kp

    def view(self, w0: float) -> FMParams:
        """The parameters where they are."""
        return FMParams(w0, self.array[:, self._w], self.array[:, : self.n_factors])

    def copy(self, w0: float) -> FMParams:
        """The parameters in arrays of their own, without padding and state."""
        here = self.view(w0)
        V = aligned_zeros(here.V.shape, here.dtype)
        V[...] = here.V
        return FMParams(w0, here.w.copy(), V)


def _occurring(indices: NDArray[Any], n_features: int) -> NDArray[np.int64]:
    """Features with a non-zero, ascending. Only these get starting factors: one never seen scores zero."""
    seen = np.zeros(n_features, dtype=bool)
    seen[indices] = True
    return np.flatnonzero(seen)
