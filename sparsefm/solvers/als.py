"""Alternating least squares: every column in turn to where the objective is lowest given all others."""

from __future__ import annotations

from dataclasses import replace
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator

from ..model import FMParams, init
from ..model import score as model_score
from ..validation import Rows, check_positive
from .design import Design
from .engine import Interrupted
from .problem import Problem, judge, mean_loss, warn
from .sweep import Prior, Sweep

__all__ = ["ALS", "counted", "occurrences", "penalties"]

_LOSSES = ("squared", "logistic")


class ALS(BaseEstimator):  # type: ignore[misc]
    """Alternating least squares (Rendle, Gantner, Freudenthaler & Schmidt-Thieme, SIGIR 2011): no learning rate.

    Each pass moves the weight and all factors of a feature together to the minimum of the objective given all others;
    the features of a one-hot field side by side, on all threads, to the same bits at any number of them. What depends
    on a user or an item alone (age, genres) is found, and costs a pass over users and items instead of rows. The
    objective never rises; it has many minima, of which init_std and random_state choose one. With loss="logistic" a
    pass works on a quadratic bound of the loss that touches it where training stands (Jaakkola & Jordan 2000), so that
    the objective falls all the same. Other losses are refused. The penalties are the estimator's; rows of weight zero
    are left out, also of the number of rows that l2_prior is divided by.

    Parameters
    ----------
    max_iter : int
        Passes at most.
    tol : float
        Training ends when Σ gᵀ P⁻¹ g / n of a pass, twice what the objective gained by it in units of the solver's own
        loss, is at most tol: g is the objective's gradient with respect to a feature's parameters as they were
        before their step, P its curvature, so that zero means that all gradients are zero.
    patience : int
        With early stopping: end after so many passes that did not better what is watched.

    Examples
    --------
    >>> from sparsefm import FMRegressor
    >>> from sparsefm.solvers import ALS
    >>> FMRegressor(solver=ALS(max_iter=10))
    FMRegressor(solver=ALS(max_iter=10))
    """

    takes_blocks = True

    def __init__(self, *, max_iter: int = 20, tol: float = 1e-4, patience: int = 3) -> None:
        self.max_iter = max_iter
        self.tol = tol
        self.patience = patience

    def solve(self, problem: Problem) -> FMParams:
        """The parameters; n_threads only changes how fast they come."""
        check_positive(self.max_iter, "ALS(max_iter)", integer=True)
        check_positive(self.patience, "ALS(patience)", integer=True)
        check_positive(self.tol, "ALS(tol)", zero=True)
        if problem.loss not in _LOSSES:
            raise ValueError(f"solver='als' minimises loss='squared' or 'logistic', not {problem.loss!r}")
        if problem.resume is not None:
            raise ValueError("resume goes on from the checkpoint of a solver that wrote one; solver='als' does not")
        problem = counted(problem)
        return _Run(self, problem).solve()


class _Run:
    def __init__(self, solver: ALS, problem: Problem) -> None:
        self.solver, self.problem = solver, problem
        self.began = perf_counter()
        rows = problem.rows
        self.design = Design.of(problem.relations or rows, problem.n_factors)
        order = self.design.order
        self.y = np.ascontiguousarray(problem.y[order])
        self.weight = None if problem.weight is None else np.ascontiguousarray(problem.weight[order])
        self.sweep = Sweep(self.design, problem.n_factors, self.y, self.weight, problem.n_threads)
        start = problem.start
        if start is None:
            first = init(
                rows.n_features, problem.n_factors, init_std=problem.init_std, seed=problem.seed, dtype=rows.dtype
            )
            first.V[occurrences(problem) == 0] = 0  # a column that never is scores zero
            start = replace(first, w0=problem.w0)
        self.sweep.start(start)
        self.prior = penalties(problem)

    def solve(self) -> FMParams:
        solver, problem = self.solver, self.problem
        best, best_params, best_epoch = np.inf, None, 0
        done, stopped, gained, last = False, False, 0.0, np.inf
        sweep = self.sweep
        sweep.residuals()
        for epoch in range(1, solver.max_iter + 1):
            try:
                before = sweep.params() if problem.early_stopping else None
                self._bound()
                sweep.run(self.prior, 1.0, None)
                self._move_bias()
                record: dict[str, Any] = {"epoch": epoch, "loss": self._loss(), "seconds": perf_counter() - self.began}
                self.began = perf_counter()
                judged = None
                if problem.evaluation is not None:
                    params = sweep.params()
                    scores = model_score(params, problem.evaluation[0], n_threads=problem.n_threads)
                    judged = judge(problem, scores, record)
                    if problem.early_stopping and judged < best:
                        best, best_params, best_epoch = judged, params, epoch
                gained = float(sweep.gain.sum()) / problem.rows.n_rows
                done = gained <= solver.tol or (problem.early_stopping and epoch - best_epoch >= solver.patience)
                stopped = problem.report(record)
            except KeyboardInterrupt as interruption:
                if epoch == 1:
                    raise
                sweep.refresh()
                raise Interrupted(best_params or before or sweep.params()) from interruption
            last = record["loss"]
            if done or stopped:
                break
        constant = mean_loss(problem.loss, self.y, np.full(len(self.y), problem.w0), self.weight)
        if not last <= 1.1 * constant + 0.01:
            warn(
                f"the fit is worse than a constant: its mean loss is {last:.3g}, that of the constant {constant:.3g}. "
                "Scale numeric columns (Numeric() in a FrameEncoder, or StandardScaler), or pass float64 rows"
            )
        elif not (done or stopped or problem.early_stopping) and gained > 100 * solver.tol:
            warn(
                f"ALS ended after max_iter={solver.max_iter} passes, the last of which still gained "
                f"{gained / 2:.2g} of a loss of {last:.3g}; raise max_iter or tol={solver.tol:g}"
            )
        return best_params or sweep.params()

    def _bound(self) -> None:
        """With the logistic loss: weights and targets of the squares that bound it where the scores are."""
        if self.problem.loss != "logistic":
            return
        score = self._scores()
        half = np.abs(score) / 2
        curvature = np.where(half < 1e-3, 0.25, np.tanh(half) / (4 * np.maximum(half, 1e-3)))
        dtype = self.y.dtype
        target = ((self.y - 0.5) / curvature).astype(dtype)
        weight = curvature if self.weight is None else curvature * self.weight
        self.sweep.see(target, weight.astype(dtype))

    def _scores(self) -> NDArray[np.float64]:
        """As they were when the residuals were looked at."""
        return np.asarray(np.subtract(self.sweep.target, self.sweep.residual, dtype=np.float64))

    def _move_bias(self) -> None:
        sweep = self.sweep
        moved, _ = sweep.residuals()
        total = float(self.design.n_rows if sweep.weight is None else sweep.weight.sum(dtype=np.float64))
        sweep.w0 += moved / total
        sweep.residual -= sweep.dtype.type(moved / total)

    def _loss(self) -> float:
        if self.problem.loss == "logistic":
            return mean_loss("logistic", self.y, self._scores(), self.weight)
        return mean_loss("squared", self.sweep.residual, np.zeros_like(self.sweep.residual), self.weight)


def counted(problem: Problem) -> Problem:
    """Without rows of weight zero, which say nothing."""
    if problem.weight is None or (problem.weight > 0).all():
        return problem
    kept = np.flatnonzero(problem.weight > 0)
    weight = problem.weight[kept]
    weight = (weight / weight.mean(dtype=np.float64)).astype(weight.dtype)
    relations = None if problem.relations is None else problem.relations.take(kept)
    return replace(problem, rows=problem.rows.take(kept), relations=relations, y=problem.y[kept], weight=weight)


def penalties(problem: Problem) -> Prior:
    """The penalties of the objective times the number of rows, as a normal of mean zero."""
    rows, k = problem.rows, problem.n_factors
    strengths, group = np.unique(np.broadcast_to(problem.l2_factors, rows.n_features), return_inverse=True)
    precision = np.repeat(strengths.astype(np.float64)[:, None], k + 1, axis=1)
    precision[:, k] = problem.l2_linear
    times = occurrences(problem)
    strength = np.where(times > 0, times + problem.l2_prior, 0.0)  # a column that never is stays where it is
    precision = np.maximum(precision, np.finfo(np.float64).tiny ** 0.25)
    return Prior(np.zeros_like(precision), precision, group.astype(np.int32), strength)


def occurrences(problem: Problem) -> NDArray[np.float64]:
    """Of each feature the weight of the rows that have it."""
    rows, weight = problem.rows, problem.weight
    times = _times(rows, weight)
    for block in () if problem.relations is None else problem.relations.blocks:
        times += _times(block.rows, np.bincount(block.index, weights=weight, minlength=block.rows.n_rows))
    return times


def _times(rows: Rows, weight: NDArray[Any] | None) -> NDArray[np.float64]:
    if weight is None:
        return np.bincount(rows.indices, minlength=rows.n_features).astype(np.float64)
    each = np.repeat(weight.astype(np.float64), np.diff(rows.indptr))
    return np.asarray(np.bincount(rows.indices, weights=each, minlength=rows.n_features), np.float64)
