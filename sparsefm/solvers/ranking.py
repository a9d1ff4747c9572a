"""Solvers of rankings: by pairs of items (BPR, WARP), and by all pairs at once (ImplicitALS)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator

from .._kernels import adaptive, dispatch, gibbs, ranking
from ..model import FMParams, aligned_zeros, init
from ..validation import Block, Relations, Rows, check_positive
from .design import Design
from .engine import Interrupted
from .problem import DivergenceError
from .sweep import Prior, Sweep
from .table import Table
from .team import work

__all__ = ["BPR", "WARP", "ImplicitALS", "RankingProblem"]

Spans = tuple[tuple[int, int], ...]
Side = tuple[NDArray[np.int32], NDArray[np.int32], NDArray[Any] | None]  # indptr, indices, data

_SHARED = 1 << 23  # bytes of a table up to which threads lose more by handing its lines over than they gain
EPSILON = 1.0  # that AdaGrad's sums of squares begin with


@dataclass(frozen=True)
class RankingProblem:
    """Interactions of contexts (a user, with what is said of him and of the occasion) with items.

    Both are rows of one machine with disjoint columns, so that the score of a pair is b_c + b_i + ⟨p_c, q_i⟩ with

        p_c = Σ x_j v_j,    b_c = Σ w_j x_j + ½ (‖p_c‖² − Σ x_j² ‖v_j‖²)

    over the row of the context, q_i and b_i alike, and a context's items are ordered by b_i + ⟨p_c, q_i⟩.
    """

    contexts: Rows  # (n_contexts, n_features)
    items: Rows  # (n_items, n_features)
    spans: tuple[Spans, Spans]  # columns of contexts, and of items, that are solved for
    context: NDArray[np.int32]  # (n_interactions,) ascending
    item: NDArray[np.int32]  # (n_interactions,) ascending within a context, each once
    weight: NDArray[Any] | None  # (n_interactions,) in the rows' type, with mean 1; None: all one
    n_factors: int
    l2_linear: float
    l2_factors: float
    init_std: float
    seed: int
    n_threads: int | None
    report: Callable[[dict[str, Any], Callable[[], FMParams]], bool]
    """Called after each epoch with its record, and what gives the parameters as they are; True stops."""
    start: FMParams | None = None  # what the columns that are not solved for stay at

    @property
    def n_features(self) -> int:
        return self.items.n_features

    def columns(self) -> NDArray[np.int64]:
        """Those that are solved for, ascending."""
        return np.concatenate([np.arange(*span) for spans in self.spans for span in spans])

    def starts(self) -> NDArray[np.int64]:
        """(n_contexts + 1,) where the interactions of each context begin."""
        return np.searchsorted(self.context, np.arange(self.contexts.n_rows + 1))


@dataclass
class Training:
    """A problem on its way: rows as the kernels take them, and the table that is trained."""

    problem: RankingProblem
    table: Table
    contexts: Side
    items: Side
    starts: NDArray[np.int64]

    @classmethod
    def of(cls, problem: RankingProblem) -> Training:
        sides = (problem.contexts, problem.items)
        table = Table("adagrad", problem.n_features, problem.n_factors, problem.items.dtype, EPSILON)
        occurs = np.unique(np.concatenate([rows.indices for rows in sides]))
        if problem.start is not None:
            moving = problem.columns()
            table.start(problem.start, 1.0, 0.0)
            table.hold(np.setdiff1d(np.arange(problem.n_features), moving))
            table.array[moving], table.admitted[moving] = 0, False
            occurs = np.intersect1d(occurs, moving)
        table.admit(occurs, problem.init_std, problem.seed)
        table.strengthen(occurs, problem.l2_linear, problem.l2_factors)
        contexts, items = ((rows.indptr.astype(np.int32), rows.indices.astype(np.int32), rows.data) for rows in sides)
        return cls(problem, table, contexts, items, problem.starts())


class ByGradient(BaseEstimator):  # type: ignore[misc]
    """Passes over the interactions in a random order, with AdaGrad's steps."""

    max_iter: int
    learning_rate: float

    def _check(self) -> None:
        """Raises ValueError for options of its own that cannot be."""
        raise NotImplementedError

    def _pass(self, training: Training, order: NDArray[np.int32], key: int) -> float:
        """One pass over the interactions in this order; the sum of their losses, not finite where it diverged."""
        raise NotImplementedError

    def solve(self, problem: RankingProblem) -> FMParams:
        """The parameters: a function of the problem and its seed, n_threads only changes how fast they come."""
        name = type(self).__name__
        check_positive(self.max_iter, f"{name}(max_iter)", integer=True)
        check_positive(self.learning_rate, f"{name}(learning_rate)")
        self._check()
        training = Training.of(problem)
        order = np.empty(len(problem.item), np.int32)
        began = perf_counter()
        for epoch in range(1, self.max_iter + 1):
            key = int(gibbs.mixed(problem.seed, epoch))
            adaptive.shuffle(order, key)
            try:
                total = self._pass(training, order, key)
                if not np.isfinite(total):
                    raise self._diverged()
                record = {"epoch": epoch, "loss": total / len(order), "seconds": perf_counter() - began}
                began = perf_counter()
                if problem.report(record, training.table.copy):
                    break
            except KeyboardInterrupt as interruption:
                if epoch == 1:
                    raise
                raise Interrupted(training.table.copy()) from interruption
        params = training.table.unpack()
        with np.errstate(over="ignore"):  # a sum of squares is finite only if every parameter is
            finite = np.isfinite(np.vdot(params.w, params.w) + np.vdot(params.V, params.V))
        if not finite:
            raise self._diverged()
        if problem.start is None:
            return params
        moving, whole = problem.columns(), problem.start.grow(problem.n_features)
        whole.w[moving], whole.V[moving] = params.w[moving], params.V[moving]
        return whole

    def _diverged(self) -> DivergenceError:
        return DivergenceError(
            "training left the finite numbers: scale numeric columns or lower "
            f"{type(self).__name__}(learning_rate={self.learning_rate:g})"
        )


class _Pairwise(ByGradient):
    """Each interaction against one item that its context has not met."""

    _warp = False
    negatives: str
    max_trials: int = 1

    def _check(self) -> None:
        name = type(self).__name__
        check_positive(self.max_trials, f"{name}(max_trials)", integer=True)
        if self.negatives not in ("uniform", "popular"):
            raise ValueError(f"{name}(negatives) must be 'uniform' or 'popular', got {self.negatives!r}")

    def _pass(self, training: Training, order: NDArray[np.int32], key: int) -> float:
        problem, table = training.problem, training.table

        def open_pass(members: int) -> ranking.Pass:
            return ranking.open_pass(
                table.array,
                aligned_zeros((4 * ranking.batch_size, table.kp), table.dtype),
                *training.contexts,
                *training.items,
                training.starts,
                problem.context,
                problem.item,
                problem.weight,
                order,
                self._warp,
                self.negatives == "popular",
                self.max_trials,
                self.learning_rate,
                EPSILON,
                key,
                members,
                dispatch.ISA,
            )

        shared = ranking.teams and table.array.nbytes > _SHARED
        total, bad = work(open_pass, problem.n_threads if shared else 1)
        return float(total) if bad < 0 else float("nan")


class BPR(_Pairwise):
    """Bayesian personalised ranking (Rendle et al. 2009): each interaction against one item drawn, by AdaGrad.

    Parameters
    ----------
    max_iter : int
        Passes over the interactions.
    learning_rate : float
        Of AdaGrad.
    negatives : "uniform" or "popular"
        Items are drawn each as often as any other, or as often as they occur: then popularity is no merit.

    Notes
    -----
    Interactions step in batches of 128: drawn, and scored, from the state before the batch. The same bits at any
    n_threads, of which models up to 8 MB use one.
    """

    def __init__(self, *, max_iter: int = 30, learning_rate: float = 0.1, negatives: str = "uniform") -> None:
        self.max_iter = max_iter
        self.learning_rate = learning_rate
        self.negatives = negatives


class WARP(_Pairwise):
    """Weighted approximate-rank pairwise loss (Weston, Bengio & Usunier 2011): items are drawn until one stands too
    near, and the sooner that is, the longer is the step.

    Parameters
    ----------
    max_iter : int
        Passes over the interactions.
    learning_rate : float
        Of AdaGrad.
    negatives : "uniform" or "popular"
        As for BPR.
    max_trials : int
        Draws at most; an interaction that holds against all of them takes no step.

    Notes
    -----
    Interactions step in batches of 128: drawn, and scored, from the state before the batch. The same bits at any
    n_threads, of which models up to 8 MB use one.
    """

    _warp = True

    def __init__(
        self, *, max_iter: int = 30, learning_rate: float = 0.05, negatives: str = "uniform", max_trials: int = 30
    ) -> None:
        self.max_iter = max_iter
        self.learning_rate = learning_rate
        self.negatives = negatives
        self.max_trials = max_trials


class ImplicitALS(BaseEstimator):  # type: ignore[misc]
    """Least squares on all pairs, met or not (Hu, Koren & Volinsky 2008; with side features Bayer et al. 2017).

    Minimises, over interactions of weight s and over all pairs of a context and an item,

        ½ Σ_met s (1 − score)² + ½ α Σ_all score² + penalties

    a pair's score being b_c + b_i + ⟨p_c, q_i⟩ of its row. What all unmet pairs say of a context is one matrix, Σ over
    all items of (q_i, 1)(q_i, 1)ᵀ, so that a pass costs what the interactions do; columns, of ids as of side features,
    move to their minimum given all others, factors and weight together. Penalties grow with how often a feature is met,
    as (its interactions + α · the pairs it is in)^exponent (Rendle et al. 2021).

    Parameters
    ----------
    max_iter : int
        Passes over all columns.
    unobserved : float
        α.
    exponent : float
        1: penalties by frequency, 0: the same for all.

    Notes
    -----
    The same bits at any n_threads.
    """

    def __init__(self, *, max_iter: int = 15, unobserved: float = 0.1, exponent: float = 1.0) -> None:
        self.max_iter = max_iter
        self.unobserved = unobserved
        self.exponent = exponent

    def solve(self, problem: RankingProblem) -> FMParams:
        """The parameters; n_threads only changes how fast they come."""
        check_positive(self.max_iter, "ImplicitALS(max_iter)", integer=True)
        check_positive(self.unobserved, "ImplicitALS(unobserved)")
        check_positive(self.exponent, "ImplicitALS(exponent)", zero=True)
        dtype, n = problem.items.dtype, len(problem.item)
        merged = (_merged(problem.contexts, problem.context), _merged(problem.items, problem.item))
        counts = merged[0].times, merged[1].times
        nothing = Rows(np.zeros(n + 1, np.int32), np.empty(0, np.int32), None, problem.n_features, 0, dtype)
        blocks = tuple(Block(side.index, side.rows, spans) for side, spans in zip(merged, problem.spans, strict=True))
        design = Design.of(Relations(nothing, blocks), problem.n_factors, spans=())
        met = np.ones(n, dtype) if problem.weight is None else problem.weight
        sweep = Sweep(
            design,
            problem.n_factors,
            np.ones(n, dtype),
            None if problem.weight is None else met[design.order],
            problem.n_threads,
            unobserved=self.unobserved,
            times=counts,
        )
        start = problem.start
        if start is None:
            start = init(
                problem.n_features, problem.n_factors, init_std=problem.init_std, seed=problem.seed, dtype=dtype
            )
        times = np.zeros(problem.n_features)
        for block, own, other in zip(blocks, counts, counts[::-1], strict=True):
            each = np.bincount(block.index, weights=met, minlength=len(own)) + self.unobserved * own * other.sum()
            entries = np.repeat(each, np.diff(block.rows.indptr))
            times += np.bincount(block.rows.indices, weights=entries, minlength=problem.n_features)
        if problem.start is None:
            start.V[times == 0] = 0
        sweep.start(start)
        k = problem.n_factors
        precision = np.full((1, k + 1), problem.l2_factors)
        precision[:, k] = problem.l2_linear
        precision = np.maximum(precision, np.finfo(np.float64).tiny ** 0.25)
        strength = np.where(times > 0, times**self.exponent, 0.0)
        prior = Prior(np.zeros((1, k + 1)), precision, np.zeros(problem.n_features, np.int32), strength)
        began = perf_counter()
        for epoch in range(1, self.max_iter + 1):
            try:
                left = sweep.run(prior, 1.0, None)
                assert left is not None
                record = {"epoch": epoch, "loss": left[1] / 2 / n, "seconds": perf_counter() - began}
                began = perf_counter()
                if problem.report(record, sweep.params):
                    break
            except KeyboardInterrupt as interruption:
                if epoch == 1:
                    raise
                raise Interrupted(sweep.params()) from interruption
        return sweep.params()


@dataclass
class _Side:
    """Distinct rows, which of them each interaction has, and how often each is there."""

    rows: Rows
    index: NDArray[np.int32]
    times: NDArray[np.float64]


def _merged(rows: Rows, index: NDArray[np.int32]) -> _Side:
    """Rows that have one entry and no more, a one, are the same where that is; others are taken for distinct."""
    n = rows.n_rows
    if rows.data is not None or not (np.diff(rows.indptr) == 1).all():
        return _Side(rows, index, np.ones(n))
    columns, which, times = np.unique(rows.indices, return_inverse=True, return_counts=True)
    distinct = Rows(np.arange(len(columns) + 1, dtype=np.int32), columns, None, rows.n_features, -1, rows.dtype)
    return _Side(distinct, which.astype(np.int32)[index], times.astype(np.float64))
