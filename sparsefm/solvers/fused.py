"""Stochastic gradient descent and AdaGrad: one sample at a time, scored and applied in one visit to memory."""

from __future__ import annotations

import warnings
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning

from .._kernels import adaptive, dispatch
from ..model import FMParams, aligned_zeros, score
from ..validation import check_positive
from .problem import LOSSES, DivergenceError, Problem, mean_loss

__all__ = ["SGD", "AdaGrad"]


class _Fused(BaseEstimator):  # type: ignore[misc]
    """The loop over epochs; what a step does is one compile-time instance of _kernels/adaptive.h."""

    _optimiser: int
    _epsilon: float
    _learning_rates: dict[str, float]
    max_iter: int
    learning_rate: float | None
    tol: float
    patience: int

    def _check(self) -> None:
        name = type(self).__name__
        check_positive(self.max_iter, f"{name}(max_iter)", integer=True)
        if self.learning_rate is not None:
            check_positive(self.learning_rate, f"{name}(learning_rate)")
        check_positive(self.tol, f"{name}(tol)", zero=True)
        check_positive(self.patience, f"{name}(patience)", integer=True)

    def solve(self, problem: Problem) -> FMParams:
        """Passes over the rows in a new random order each, until max_iter, early stopping or `report` ends them.

        The result is a function of the problem and its seed; n_threads only speeds up the evaluation.
        """
        self._check()
        rows, k = problem.rows, problem.n_factors
        rate = self._learning_rates[problem.loss] if self.learning_rate is None else self.learning_rate
        table = _Table(rows.n_features, k, rows.dtype, has_state=self._optimiser == 1)
        occurring = _occurring(problem)
        adaptive.fill_uniform(table.array, k, occurring, problem.init_std, problem.seed)

        order = np.empty(rows.n_rows, dtype=rows.indices.dtype)
        w0, w0_state = problem.w0, 0.0
        best_loss = kept_loss = np.inf
        best_params, best_epoch = None, 0
        for epoch in range(1, self.max_iter + 1):
            began = perf_counter()
            adaptive.shuffle(order, order_seed(problem.seed, epoch))
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
                rate,
                self._epsilon,
                problem.l2_linear,
                problem.l2_factors,
                dispatch.ISA,
            )
            record: dict[str, Any] = {
                "epoch": epoch,
                "loss": total / rows.n_rows,
                "seconds": perf_counter() - began,
            }
            self._check_finite(record["loss"], epoch, rate)
            if problem.evaluation is not None:
                X, y, weight = problem.evaluation
                record["eval_loss"] = mean_loss(
                    problem.loss, y, score(table.view(w0), X, n_threads=problem.n_threads), weight
                )
                self._check_finite(record["eval_loss"], epoch, rate)
            if problem.early_stopping and record["eval_loss"] < kept_loss:
                kept_loss, best_params = record["eval_loss"], table.copy(w0)
            if problem.report(record):
                break
            if problem.early_stopping:
                if record["eval_loss"] < best_loss - self.tol:
                    best_loss, best_epoch = record["eval_loss"], epoch
                elif epoch - best_epoch >= self.patience:
                    break
        params = best_params if best_params is not None else table.copy(w0)
        # a sum of squares is finite only if every parameter is
        self._check_finite(float(params.w0**2 + np.vdot(params.w, params.w) + np.vdot(params.V, params.V)), epoch, rate)
        start_loss = mean_loss(problem.loss, problem.y, np.full(rows.n_rows, problem.w0), problem.weight)
        if record["loss"] > 1.1 * start_loss + 0.01:
            warnings.warn(
                f"the fit is worse than a constant: its mean loss is {record['loss']:.3g}, that of the constant "
                f"{start_loss:.3g}. {self._advice(rate)}",
                ConvergenceWarning,
                stacklevel=4,
            )
        return params

    def _advice(self, rate: float) -> str:
        return (
            "Encode integer ids with FrameEncoder({'user_id': OneHot(), ...}). Scale numeric columns (Numeric() in it, "
            f"or StandardScaler), lower learning_rate={rate}, raise l2_factors, or use solver='adagrad'"
        )

    def _check_finite(self, value: float, epoch: int, rate: float) -> None:
        if not np.isfinite(value):
            raise DivergenceError(f"training diverged in epoch {epoch}: the loss is {value}. {self._advice(rate)}")


class AdaGrad(_Fused):
    """Adaptive gradient steps (Duchi, Hazan & Singer 2011), one row of the training table a feature.

    Parameters
    ----------
    max_iter : int
        Passes over the rows.
    learning_rate : float, optional
        The step of a parameter is learning_rate · gradient / sqrt(3 + the sum of its squared gradients so far), so that
        rare features keep learning when frequent ones have settled. None is 0.05 for the squared loss, whose target is
        standardised, and 0.12 for the logistic loss, whose gradients are smaller: chosen, with the penalties, on
        held-out parts of the training folds of MovieLens-100K and of three other data sets.
    tol, patience : float, int
        With early stopping: end after `patience` passes that did not lower the watched loss by more than tol, which
        is in units of the solver's own loss: for FMRegressor that of the standardised target.

    Examples
    --------
    >>> from sparsefm import FMRegressor
    >>> from sparsefm.solvers import AdaGrad
    >>> FMRegressor(solver=AdaGrad(learning_rate=0.1, max_iter=10))
    FMRegressor(solver=AdaGrad(learning_rate=0.1, max_iter=10))
    """

    _optimiser = 1
    _epsilon = 3.0  # chosen with the learning rates
    _learning_rates = {"squared": 0.05, "logistic": 0.12}  # noqa: RUF012

    def __init__(
        self, *, max_iter: int = 30, learning_rate: float | None = None, tol: float = 0.0, patience: int = 3
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
    learning_rate : float, optional
        Step per unit of gradient. None is 0.01 for the squared loss of a standardised target and 0.03 for the logistic
        loss.
    """

    _optimiser = 0
    _epsilon = 0.0
    _learning_rates = {"squared": 0.01, "logistic": 0.03}  # noqa: RUF012

    def __init__(
        self, *, max_iter: int = 30, learning_rate: float | None = None, tol: float = 0.0, patience: int = 3
    ) -> None:
        self.max_iter = max_iter
        self.learning_rate = learning_rate
        self.tol = tol
        self.patience = patience


def order_seed(seed: int, epoch: int) -> int:
    """What the order of an epoch is drawn with; other seeds share none of it."""
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0])


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


def _occurring(problem: Problem) -> NDArray[np.int64]:
    """Features with a non-zero in a row that counts, ascending. Only these get starting factors: one never seen
    scores zero."""
    rows = problem.rows
    seen = np.zeros(rows.n_features, dtype=bool)
    if problem.weight is None or problem.weight.min() > 0:
        seen[rows.indices] = True
    else:
        seen[rows.indices[np.repeat(problem.weight > 0, np.diff(rows.indptr))]] = True
    return np.flatnonzero(seen)
