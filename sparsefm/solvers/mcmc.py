"""Gibbs sampling of all parameters and of the priors' own: nothing to tune."""

from __future__ import annotations

from dataclasses import replace
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri
from sklearn.base import BaseEstimator

from .._kernels import dispatch, gibbs
from ..model import Posterior, init
from ..model import score as model_score
from ..validation import check_positive
from .als import counted, occurrences
from .design import SEGMENT, Design
from .engine import Interrupted
from .problem import Problem, judge, mean_loss
from .sweep import Prior, Sweep

__all__ = ["MCMC"]

_LOSSES = ("squared", "probit", "ordinal")

# Gamma(shape, rate) of precisions and the normal of the groups' means, as in libFM, for a target of spread 1; w0's
# normal is so wide that it only makes the posterior proper.
_SHAPE, _RATE, _MEANS = 0.5, 0.5, 1.0
_BIAS_PRECISION = 0.01
_FIRST = 100.0  # precision of factors and weights in the first sweep: chains that grow into their scale settle sooner
_CUTS_EVERY = 5  # sweeps: a draw of the cuts costs more than one
_NEWTON = 10  # steps at most to the mode of the cuts


class MCMC(BaseEstimator):  # type: ignore[misc]
    """Gibbs sampling (Freudenthaler, Schmidt-Thieme & Rendle 2011; Salakhutdinov & Mnih 2008): nothing to tune.

    Weight and factors of a feature are drawn together from their exact conditional, those of a one-hot field side by
    side, to the same bits at any number of threads. Each field has normal priors of its own, one for the weights and
    one a factor, whose means and precisions are drawn too: they take the place of l2_linear, l2_factors and l2_prior,
    which are not looked at; without fields all features are one group. Columns that follow from a user or an item alone
    (age, genres) are found, and cost a pass over users and items instead of rows. A classifier has the probit link
    (Albert & Chib 1993). A column that no training row has is drawn from its field's prior.

    Predictions average over the draws that are kept; `predict(X, return_std=True)` tells how sure they are. Samples are
    float32 as the rows are: n_features · (n_factors + 1) · 4 bytes each.

    Parameters
    ----------
    n_samples : int
        Sweeps after the first `burn_in`.
    burn_in : int
        Sweeps that are left out of all averages.
    keep : int, optional
        Draws that are kept, evenly spaced among the n_samples; None keeps all.
    n_chains : int
        Samplings from different starts, one after another, each of burn_in + n_samples sweeps; two or more let
        `metrics.split_rhat` tell whether they agree.

    Examples
    --------
    >>> from sparsefm import FMRegressor
    >>> from sparsefm.solvers import MCMC
    >>> FMRegressor(solver=MCMC(n_samples=300))
    FMRegressor(solver=MCMC(n_samples=300))
    """

    takes_blocks = True

    def __init__(self, *, n_samples: int = 200, burn_in: int = 30, keep: int | None = None, n_chains: int = 1) -> None:
        self.n_samples = n_samples
        self.burn_in = burn_in
        self.keep = keep
        self.n_chains = n_chains

    @property
    def max_iter(self) -> int:
        """Sweeps in all."""
        return self.n_chains * (self.burn_in + self.n_samples)

    def solve(self, problem: Problem) -> Posterior:
        """Draws; n_threads only changes how fast they come."""
        for option in ("n_samples", "n_chains"):
            check_positive(getattr(self, option), f"MCMC({option})", integer=True)
        check_positive(self.burn_in, "MCMC(burn_in)", zero=True, integer=True)
        if self.keep is not None:
            check_positive(self.keep, "MCMC(keep)", integer=True)
            if self.keep > self.n_samples:
                raise ValueError(f"MCMC(keep) must be at most n_samples={self.n_samples}, got {self.keep}")
        if problem.loss not in _LOSSES:
            raise ValueError(f"solver='mcmc' samples under {', '.join(map(repr, _LOSSES))}, not loss={problem.loss!r}")
        if problem.resume is not None:
            raise ValueError("resume goes on from the checkpoint of a solver that wrote one; solver='mcmc' does not")
        if problem.early_stopping:
            raise ValueError("early_stopping has no part in solver='mcmc': more samples only make the average better")
        if problem.loss != "squared" and problem.weight is not None:
            raise ValueError("solver='mcmc' takes weights of rows for a real target only; with classes repeat the rows")
        return _Run(self, counted(problem)).solve()


class _Run:
    """The chains, one after another."""

    def __init__(self, solver: MCMC, problem: Problem) -> None:
        self.solver, self.problem = solver, problem
        self.began = perf_counter()
        rows, k = problem.rows, problem.n_factors
        self.design = Design.of(problem.relations or rows, k)
        order = self.design.order
        self.y = np.ascontiguousarray(problem.y[order])
        self.weight = None if problem.weight is None else np.ascontiguousarray(problem.weight[order])
        self.levels = None if problem.loss == "squared" else self.y.astype(np.int32)
        self.cuts = np.array([-np.inf, 0.0, np.inf])
        if problem.loss == "ordinal":
            assert self.levels is not None
            share = np.cumsum(np.bincount(self.levels)) / len(self.levels)
            self.cuts = np.concatenate([[-np.inf], ndtri(share[:-1]), [np.inf]])
        self.row_ids = np.asarray(order, np.int64)
        self.sweep = Sweep(self.design, k, self.y, self.weight, problem.n_threads)
        group = np.zeros(rows.n_features, np.int32) if problem.fields is None else problem.fields
        occurs = occurrences(problem) > 0
        self.n_groups = int(group.max(initial=0)) + 1
        self.members = [_slice_of(np.flatnonzero((group == g) & occurs)) for g in range(self.n_groups)]
        self.prior = Prior(np.zeros((self.n_groups, k + 1)), np.ones((self.n_groups, k + 1)), group)
        n_kept = solver.n_samples if solver.keep is None else solver.keep
        kept = np.unique(np.linspace(0, solver.n_samples, n_kept + 1)[1:].round().astype(np.int64))
        self.kept = set((solver.burn_in + kept).tolist())
        n = solver.n_chains * len(self.kept)
        self.draws = Posterior(
            w0=np.empty(n),
            w=np.empty((n, rows.n_features), rows.dtype),
            V=np.empty((n, rows.n_features, k), rows.dtype),
            deviation=np.empty(n),
            mean=np.empty((n, self.n_groups, k + 1)),
            precision=np.empty((n, self.n_groups, k + 1)),
            chain=np.empty(n, np.int32),
            cuts=np.empty((n, len(self.cuts) - 2)) if problem.loss == "ordinal" else None,
        )
        self.n_drawn = 0
        self.watched = None if problem.evaluation is None else np.zeros(problem.evaluation[0].n_rows)

    def solve(self) -> Posterior:
        solver = self.solver
        try:
            for chain in range(solver.n_chains):
                if self._chain(chain):
                    break
        except KeyboardInterrupt as interruption:
            if self.n_drawn == 0:
                raise
            raise Interrupted(self._drawn()) from interruption
        return self._drawn()

    def _drawn(self) -> Posterior:
        if self.n_drawn == len(self.draws):
            return self.draws
        parts: dict[str, Any] = vars(self.draws)
        some: dict[str, Any] = {name: None if part is None else part[: self.n_drawn] for name, part in parts.items()}
        return Posterior(**some)

    def _chain(self, chain: int) -> bool:
        """True if a callback ended it after a draw."""
        problem, solver, sweep, prior = self.problem, self.solver, self.sweep, self.prior
        seed = int(np.random.SeedSequence([problem.seed, chain]).generate_state(1, np.uint64)[0])
        self.random = np.random.Generator(np.random.Philox(seed))
        prior.mean[:], prior.precision[:] = 0, _FIRST
        start = problem.start
        if start is None:
            shape, dtype = (problem.rows.n_features, problem.n_factors), problem.rows.dtype
            start = init(*shape, init_std=problem.init_std, seed=seed, dtype=dtype)
            start = replace(start, w0=problem.w0)
        sweep.start(start)
        self.alpha, per_chain = 1.0, solver.burn_in + solver.n_samples
        sums = self._look(int(gibbs.mixed(seed, 0)), 0)
        for t in range(1, per_chain + 1):
            self._draw_bias(*sums)
            if t > 1 or problem.start is not None:
                self._draw_prior()
            left = sweep.run(prior, self.alpha, int(gibbs.mixed(seed, 2 * t - 1)))
            if left is None or self.levels is not None:
                sums = self._look(int(gibbs.mixed(seed, 2 * t)), t)
            else:
                sums, self._loss = left, left[1] / 2 / self.design.n_rows
            epoch = chain * per_chain + t
            record: dict[str, Any] = {"epoch": epoch, "loss": self._loss, "seconds": perf_counter() - self.began}
            self.began = perf_counter()
            if self.levels is None:
                record["deviation"] = self.alpha**-0.5
            if solver.n_chains > 1:
                record["chain"] = chain
            if t in self.kept:
                self._keep(chain)
                self._watch(record)
            if problem.report(record) and self.n_drawn:
                return True
        return False

    # ---- draws of all but the columns ----

    def _look(self, key: int, t: int) -> tuple[float, float]:
        """Looks at the rows, with an ordered or a binary target draws the normals behind it; Σ s r and Σ s r²."""
        sweep = self.sweep
        sums = sweep.residuals()
        if self.levels is None:
            self._loss = sums[1] / 2 / self.design.n_rows
            return sums
        score = sweep.target - sweep.residual
        if self.problem.loss == "ordinal":
            if t % _CUTS_EVERY == 0 or t < _CUTS_EVERY:
                self._draw_cuts(score)
            self._loss = -self._slopes(score, self.cuts)[0] / len(score)
        else:
            self._loss = mean_loss("probit", self.y, score, None)
        latent, levels = np.empty_like(score), self.levels

        def run(start: int, stop: int) -> None:
            gibbs.latents(latent, score, levels, self.cuts, self.row_ids, key, start, stop)

        dispatch.run_pieces(run, len(score), 64 * len(score), self.problem.n_threads)
        sweep.see(latent, None)
        residual = latent.astype(np.float64) - score
        return float(residual.sum()), float(residual @ residual)

    def _draw_bias(self, first: float, second: float) -> None:
        """The noise's precision, of which a binary target has none, and w0."""
        n = float(self.design.n_rows)
        if self.problem.loss == "ordinal":
            return  # the cuts are where the bias would be
        if self.levels is None:
            self.alpha = self.random.gamma(_SHAPE + n / 2) / (_RATE + second / 2)
        precision = _BIAS_PRECISION + self.alpha * n
        mean = (self.alpha * (first + n * self.sweep.w0)) / precision
        self.sweep.w0 = float(mean + self.random.standard_normal() * precision**-0.5)

    def _slopes(self, score: NDArray[Any], cuts: NDArray[np.float64]) -> tuple[float, Any, Any]:
        """log P(levels | scores, cuts) with the normal prior of the cuts, its gradient and its Hessian by them."""
        assert self.levels is not None
        levels, n_pieces, n = self.levels, -(-len(score) // SEGMENT), len(cuts) - 2
        sums = np.empty((n_pieces, 1 + 3 * n))

        def run(start: int, stop: int) -> None:
            gibbs.cut_slopes(sums, score, levels, cuts, SEGMENT, start, stop)

        dispatch.run_pieces(run, n_pieces, 128 * len(score), self.problem.n_threads)
        total = sums.sum(axis=0)
        gradient, diagonal, above = np.split(total[1:], 3)
        hessian = np.diag(diagonal - _BIAS_PRECISION) + np.diag(above[:-1], 1) + np.diag(above[:-1], -1)
        inner = cuts[1:-1]
        return float(total[0] - _BIAS_PRECISION / 2 * inner @ inner), gradient - _BIAS_PRECISION * inner, hessian

    def _draw_cuts(self, score: NDArray[Any]) -> None:
        """One step of Metropolis and Hastings, with the normal at the mode as proposal, the normals behind the rows
        left out: they would hold the cuts where they are."""
        now, mode = self.cuts, self.cuts.copy()
        log_now, gradient, hessian = self._slopes(score, now)
        for _ in range(_NEWTON):
            step = np.linalg.solve(hessian, -gradient)
            while (np.diff(mode[1:-1] + step) <= 0).any():
                step /= 2
            mode[1:-1] += step
            _, gradient, hessian = self._slopes(score, mode)
            if np.abs(step).max() < 1e-3:
                break
        root = np.linalg.cholesky(-hessian)  # of the precision
        noise = self.random.standard_normal(len(mode) - 2)
        proposed = mode.copy()
        proposed[1:-1] += np.linalg.solve(root.T, noise)
        threshold = np.log(self.random.random())
        if (np.diff(proposed[1:-1]) <= 0).any():
            return
        away = root.T @ (now[1:-1] - mode[1:-1])
        log_proposed = self._slopes(score, proposed)[0]
        if threshold < log_proposed - log_now + (noise @ noise - away @ away) / 2:
            self.cuts = proposed

    def _draw_prior(self) -> None:
        """Means and precisions of the groups."""
        k1 = self.problem.n_factors + 1
        for group, members in enumerate(self.members):
            theta = self.sweep.theta[members, :k1]
            n, total = len(theta), theta.sum(axis=0, dtype=np.float64)
            noise, shape = self.random.standard_normal(k1), self.random.gamma(_SHAPE + (n + 1) / 2, size=k1)
            mean = self.prior.mean[group]
            squares = np.einsum("ij,ij->j", theta, theta, dtype=np.float64) - 2 * mean * total + n * mean**2
            precision = shape / (_RATE + (np.maximum(squares, 0) + _MEANS * mean**2) / 2)
            self.prior.precision[group] = precision
            self.prior.mean[group] = total / (n + _MEANS) + noise / np.sqrt((n + _MEANS) * precision)

    # ---- what is kept ----

    def _keep(self, chain: int) -> None:
        at, draws, theta, k = self.n_drawn, self.draws, self.sweep.theta, self.problem.n_factors
        draws.w0[at], draws.chain[at] = self.sweep.w0, chain
        draws.w[at], draws.V[at] = theta[:, k], theta[:, :k]
        draws.deviation[at] = self.alpha**-0.5
        if draws.cuts is not None:
            draws.cuts[at] = self.cuts[1:-1]
        draws.mean[at], draws.precision[at] = self.prior.mean, self.prior.precision
        self.n_drawn += 1

    def _watch(self, record: dict[str, Any]) -> None:
        """The loss of the average over all draws so far."""
        if self.watched is None:
            return
        assert self.problem.evaluation is not None
        rows, y, weight = self.problem.evaluation
        scores = model_score(self.draws[self.n_drawn - 1], rows, n_threads=self.problem.n_threads).astype(np.float64)
        if self.problem.loss == "ordinal":
            level = y.astype(np.int64)
            self.watched += ndtr(self.cuts[level + 1] - scores) - ndtr(self.cuts[level] - scores)
            record["eval_loss"] = -float(np.average(np.log(self.watched / self.n_drawn), weights=weight))
            return
        self.watched += scores if self.levels is None else ndtr(scores)
        mean = self.watched / self.n_drawn
        judge(self.problem, mean if self.levels is None else ndtri(mean), record)


def _slice_of(some: NDArray[Any]) -> Any:
    """The same as a slice where they are consecutive."""
    if len(some) and some[-1] - some[0] + 1 == len(some):
        return slice(int(some[0]), int(some[-1]) + 1)
    return some
