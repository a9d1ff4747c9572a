"""One pass over all columns, each moved to the mode of its conditional or to a draw from it, given all others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._kernels import dispatch, fm, gibbs
from ..model import FMParams, aligned_zeros
from ..validation import Rows
from .design import SEGMENT, Design, Run, Side
from .problem import DivergenceError

__all__ = ["Prior", "Sweep"]

_LANES = 16  # reals that a vector is padded to a multiple of
_SLICE = 1 << 24  # bytes of matrices of entities that are kept at a time where no other column needs them


@dataclass
class Prior:
    """Normal: of each group of columns the mean and the precision of factors and weight, the weight last."""

    mean: NDArray[np.float64]  # (n_groups, n_factors + 1)
    precision: NDArray[np.float64]  # the same
    group: NDArray[np.int32]  # (n_features,)
    strength: NDArray[np.float64] | None = None  # (n_features,) that the precision is multiplied by


class Sweep:
    """The state of coordinate-wise training on fixed rows: the parameters, and what follows from them for each entity.

    `target` and `weight` are in the order of the design's rows. With `unobserved` there are beside these rows those of
    each entity of the first side with each of the second, of that weight and with target 0; `times` says how often each
    entity of either is there.
    """

    def __init__(
        self,
        design: Design,
        n_factors: int,
        target: Any,
        weight: Any,
        n_threads: int | None,
        *,
        unobserved: float = 0.0,
        times: tuple[Any, Any] | None = None,
    ) -> None:
        self.unobserved, self._times = unobserved, times
        self.design, self.k, self.dtype, self.n_threads = design, n_factors, design.dtype, n_threads
        self.width = -(-(n_factors + 2) // _LANES) * _LANES
        self.size = int(gibbs.size_of_gram(n_factors))
        self.w0 = 0.0
        self.theta = aligned_zeros((design.n_features, self.width), self.dtype)  # factors, then the weight
        self.tables = [aligned_zeros((side.n_entities, self.width), self.dtype) for side in design.sides]
        self._rest = None if design.rest is None else aligned_zeros((design.n_rows, self.width), self.dtype)
        self._all = np.arange(0 if self._rest is None else design.n_rows, dtype=np.int32)
        self.residual = np.zeros(design.n_rows, self.dtype)
        pieces = range(0, design.n_rows, SEGMENT)
        self._pieces = np.array([*pieces, design.n_rows], np.int32)
        self._sums = np.zeros((len(pieces), 2))
        self._ids = np.arange(design.n_features, dtype=np.int64)
        self._step = aligned_zeros((design.n_features, self.width), self.dtype)
        self.gain = np.zeros(design.n_features)
        self._grams = aligned_zeros((0, self.size), self.dtype)
        self._targets: list[Any] = []
        self._weights: list[Any] = []
        self.see(target, weight)

    # ---- what the rows say ----

    def see(self, target: Any, weight: Any) -> None:
        """Other targets or weights."""
        self.target, self.weight = target, weight
        self._targets = [target if side.order is None else target[side.order] for side in self.design.sides]
        self._weights = [
            weight if weight is None or side.order is None else weight[side.order] for side in self.design.sides
        ]

    def start(self, params: FMParams) -> None:
        """Takes parameters over."""
        self.w0 = params.w0
        self.theta[:, : self.k] = params.V
        self.theta[:, self.k] = params.w
        self.refresh()

    def params(self) -> FMParams:
        """A copy of the parameters."""
        V = aligned_zeros((self.design.n_features, self.k), self.dtype)
        V[...] = self.theta[:, : self.k]
        return FMParams(self.w0, np.ascontiguousarray(self.theta[:, self.k]), V)

    def refresh(self) -> None:
        """Makes what follows from the parameters anew."""
        for table, side in zip(self.tables, self.design.sides, strict=True):
            self._tabulate(table, side.columns)
        if self._rest is not None:
            self._tabulate(self._rest, self.design.rest)

    def residuals(self) -> tuple[float, float]:
        """Fills `residual`, (n_rows,); returns Σ weight · residual and Σ weight · residual²."""
        self._look(None)
        first, second = self._sums.sum(axis=0).tolist()
        return first, second

    # ---- a pass ----

    def run(self, prior: Prior, alpha: float, key: int | None) -> tuple[float, float] | None:
        """Moves every column once; key: of the noise, None: to the modes. `gain` then says of each how far off it was:
        twice what the log density gains, or would, by going to the mode. Returns what `residuals` would, but for the
        rounding of sums, where that follows without another look at the rows."""
        left = None
        for number, side in enumerate(self.design.sides):
            if side.runs:
                left = self._run_side(number, side, prior, alpha, key)
        if self.design.rest_runs:
            self._run_rest(prior, alpha, key)
            left = None
        if not np.isfinite(self.gain.sum()):
            raise DivergenceError(
                "training left the finite numbers: scale numeric columns (Numeric() in a FrameEncoder, or "
                "StandardScaler) or raise l2_factors and l2_linear"
            )
        return left

    def _run_side(
        self, number: int, side: Side, prior: Prior, alpha: float, key: int | None
    ) -> tuple[float, float] | None:
        first, left = side.runs[0], None
        if self.unobserved and side.single:
            left = self._run_subspaces(number, side, prior)
        elif side.alone:
            per = max(1, _SLICE // (self.size * self.dtype.itemsize))
            n_columns, at = first.stop - first.start, 0
            if n_columns == side.n_entities:  # no row has none of the columns
                left = np.empty((n_columns, 2))
            while at < n_columns:
                ends = np.searchsorted(side.segments[: n_columns + 1], side.segments[at] + per, "right")
                upto = max(at + 1, int(ends) - 1)
                segments = side.segments[at : upto + 1]
                grams = self._gather(number, side, int(segments[0]), int(segments[-1]))
                where = slice(first.start + at, first.start + upto)
                some = [None if each is None else each[at:upto] for each in (side.values, left)]
                self._draw(grams, segments - segments[0], where, prior, alpha, key, *some, apart=True)
                self.theta[where] += self._step[where]
                at = upto
        else:
            grams = self._merged(side, self._gather(number, side, 0, int(side.segments[-1])))
            own = self.tables[number]  # now of what its columns say of an entity, no longer of what its rows look up
            own[:, self.k], own[:, self.k + 1] = own[:, self.k + 1], 0
            for run in side.runs:
                self._run_columns(run, own, None, grams, prior, alpha, key)
            left = self._settle(own, grams)
        self._tabulate(self.tables[number], side.columns)
        return None if left is None else tuple(left.sum(axis=0, dtype=np.float64).tolist())

    def _run_subspaces(self, number: int, side: Side, prior: Prior) -> NDArray[np.float64]:
        """The columns of users, or items, of whom nothing else is said, beside unobserved pairs with the others."""
        columns, times = side.columns.indices, self._times_of(number)
        others = self.tables[1 - number].copy()
        others[:, self.k] = 1
        total = self._square(self._of_all(1 - number))
        starts = side.starts[side.segments]
        longest = max(1, int(np.diff(starts).max()))
        theta, gain, left = self.theta[columns], np.empty(len(columns)), np.empty((len(columns), 2))
        strength = np.ones(len(columns)) if prior.strength is None else prior.strength[columns]

        def run(start: int, stop: int) -> None:
            gibbs.subspace(
                theta, starts, side.entities[1 - number], others, self._weights[number], total, times,
                prior.precision[0], strength, gain, left, np.empty(longest, self.dtype), start, stop, dispatch.ISA,
            )  # fmt: skip

        work = (int(starts[-1]) + len(columns)) * (self.k + 2) * 20 + len(columns) * (self.k + 2) ** 2
        dispatch.run_pieces(run, len(columns), work, self.n_threads)
        self.theta[columns], self.gain[columns] = theta, gain
        return left

    def _square(self, gram: NDArray[Any]) -> NDArray[Any]:
        """(width, width) of a Gram matrix of (q, 1, minus the score that is q's own), with the score instead."""
        square = aligned_zeros((self.width, self.width), self.dtype)
        begin = 0
        for f in range(self.k + 2):
            square[f, : f + 1] = gram[begin : begin + f + 1]
            begin += (f // 16 + 1) * 16
        square[self.k + 1, : self.k + 1] *= -1
        square += np.tril(square, -1).T
        return square

    def _times_of(self, number: int) -> NDArray[Any]:
        """How often each entity of a side is there."""
        if self._times is None:
            return np.ones(self.design.sides[number].n_entities, self.dtype)
        return np.asarray(self._times[number], self.dtype)

    def _run_rest(self, prior: Prior, alpha: float, key: int | None) -> None:
        total = self._rest
        if total is not None:
            self._look(total)
        else:
            total = aligned_zeros((1, self.width), self.dtype)
        for run in self.design.rest_runs:
            self._run_columns(run, total, self.residual, None, prior, alpha, key)
        if self._rest is not None:
            self._tabulate(self._rest, self.design.rest)

    def _run_columns(
        self, run: Run, total: Any, residual: Any, of_entities: Any, prior: Prior, alpha: float, key: int | None
    ) -> None:
        where = slice(run.start, run.stop)
        old = self.theta[where]
        if run.in_turn:
            self._chain(run, total, residual, of_entities, prior, alpha, key)
            old += self._step[where]
            return
        grams = aligned_zeros((len(run.of), self.size), self.dtype)
        self._columns(run, old, None, total, residual, of_entities, grams)
        self._draw(grams, run.segments, where, prior, alpha, key)
        self._columns(run, old, self._step[where], total, residual, of_entities, None)
        old += self._step[where]

    # ---- kernels ----

    def _pieces_of(self, run: Callable[[Any, int, int], None], n: int, work: int) -> None:
        def with_scratch(start: int, stop: int) -> None:
            run(self._scratch(), start, stop)

        dispatch.run_pieces(with_scratch, n, work, self.n_threads)

    def _partners(self, number: int | None) -> tuple[list[Any], list[Any]]:
        """Tables of all entities of a row but those of one side, and which of them it has."""
        sides = self.design.sides
        order = sides[number] if number is not None else sides[0] if sides else None
        others = [i for i in range(len(sides)) if i != number]
        tables = [self.tables[i] for i in others]
        entities = [] if order is None else [order.entities[i] for i in others]
        if self._rest is not None:
            tables.append(self._rest)
            own = None if order is None else order.order
            entities.append(self._all if own is None else own)
        return tables, entities

    def _gather(self, number: int, side: Side, start: int, stop: int) -> NDArray[Any]:
        tables, entities = self._partners(number)
        if len(self._grams) < stop - start:
            self._grams = aligned_zeros((stop - start, self.size), self.dtype)
        grams = self._grams[: stop - start]
        starts = side.starts[start : stop + 1]
        target, weight = self._targets[number], self._weights[number]

        def run(scratch: Any, start: int, stop: int) -> None:
            gibbs.gather(
                tables, entities, target, weight, starts, grams, None, None, None, scratch, self.w0, self.k, self.width,
                start, stop, dispatch.ISA,
            )  # fmt: skip

        self._pieces_of(run, len(grams), int(starts[-1] - starts[0]) * (self.k + 2) ** 2 + len(grams) * self.size)
        if self.unobserved:
            of_all, firsts = self._of_all(1 - number), side.segments[:-1]  # each entity's first segment
            within = firsts[(firsts >= start) & (firsts < stop)] - start
            times = self._times_of(number)[(firsts >= start) & (firsts < stop)]
            for at, often in zip(within.tolist(), times.tolist(), strict=True):
                grams[at] += often * of_all
        return grams

    def _of_all(self, number: int) -> NDArray[Any]:
        """What an entity's unobserved rows say: one with each entity of a side."""
        table = self.tables[number]
        n = len(table)
        starts = np.array([*range(0, n, SEGMENT), n], np.int32)
        parts = aligned_zeros((len(starts) - 1, self.size), self.dtype)
        tables, entities, times = [table], [np.arange(n, dtype=np.int32)], self._times_of(number)

        def run(scratch: Any, start: int, stop: int) -> None:
            gibbs.gather(
                tables, entities, np.zeros(n, self.dtype), times, starts, parts, None, None, None, scratch, self.w0,
                self.k, self.width, start, stop, dispatch.ISA,
            )  # fmt: skip

        self._pieces_of(run, len(parts), n * (self.k + 2) ** 2)
        total: NDArray[Any] = (self.unobserved * parts.sum(axis=0, dtype=np.float64)).astype(self.dtype)
        return total

    def _look(self, total: Any) -> None:
        tables, entities = self._partners(None)

        def run(scratch: Any, start: int, stop: int) -> None:
            gibbs.gather(
                tables, entities, self.target, self.weight, self._pieces, None, self.residual, total, self._sums,
                scratch, self.w0, self.k, self.width, start, stop, dispatch.ISA,
            )  # fmt: skip

        self._pieces_of(run, len(self._sums), self.design.n_rows * (self.k + 4) * (1 + len(tables)))

    def _columns(self, run: Run, old: Any, step: Any, total: Any, residual: Any, of_entities: Any, grams: Any) -> None:
        def work(scratch: Any, start: int, stop: int) -> None:
            gibbs.columns(
                old, step, total, residual, of_entities, self.weight if of_entities is None else None, run.starts,
                run.of, run.rows, run.data, grams, scratch, self.k, start, stop, dispatch.ISA,
            )  # fmt: skip

        self._pieces_of(work, len(run.of), (len(run.rows) + len(run.of)) * (self.k + 2) ** 2)

    def _draw(
        self,
        grams: Any,
        segments: Any,
        where: slice,
        prior: Prior,
        alpha: float,
        key: int | None,
        values: Any = None,
        left: Any = None,
        *,
        apart: bool = False,
    ) -> None:
        """apart: the residuals behind grams leave the columns' own part out."""
        n = where.stop - where.start
        strength = None if prior.strength is None else prior.strength[where]

        def run(scratch: Any, start: int, stop: int) -> None:
            gibbs.draw(
                grams, segments, apart, values, self._ids[where], prior.group[where], prior.mean, prior.precision,
                strength, alpha, key is not None, key or 0, self.theta[where], self._step[where], self.gain[where],
                left, scratch, start, stop, dispatch.ISA,
            )  # fmt: skip

        self._pieces_of(run, n, n * (self.k + 2) ** 3)

    def _chain(
        self, run: Run, total: Any, residual: Any, of_entities: Any, prior: Prior, alpha: float, key: int | None
    ) -> None:
        where = slice(run.start, run.stop)
        gibbs.chain(
            self.theta[where], self._step[where], total, residual, of_entities,
            self.weight if of_entities is None else None, run.starts, run.of, run.rows, run.data,
            aligned_zeros((1, self.size), self.dtype), self._ids[where], prior.group[where], prior.mean,
            prior.precision, None if prior.strength is None else prior.strength[where], alpha, key is not None,
            key or 0, self.gain[where], self._scratch(), dispatch.ISA,
        )  # fmt: skip

    def _settle(self, own: Any, grams: Any) -> NDArray[np.float64]:
        left = np.empty((len(own), 2))

        def run(scratch: Any, start: int, stop: int) -> None:
            gibbs.settle(own, grams, left, scratch, self.k, start, stop, dispatch.ISA)

        self._pieces_of(run, len(own), len(own) * (self.k + 2) ** 2)
        return left

    def _scratch(self) -> NDArray[np.float64]:
        scratch: NDArray[np.float64] = aligned_zeros((1, int(gibbs.scratch_of(self.k, self.width))), np.float64)[0]
        return scratch

    def _merged(self, side: Side, grams: NDArray[Any]) -> NDArray[Any]:
        """The matrices of entities, those of their segments added in order."""
        if len(grams) == side.n_entities:
            return grams
        merged = grams[side.segments[:-1]]
        for entity in np.flatnonzero(np.diff(side.segments) > 1).tolist():
            start, stop = side.segments[entity : entity + 2]
            merged[entity] = grams[start:stop].sum(axis=0, dtype=np.float64)
        return merged

    def _tabulate(self, table: NDArray[Any], rows: Rows | None) -> None:
        """Vectors of entities, as their rows look them up."""
        assert rows is not None
        w, V = np.ascontiguousarray(self.theta[:, self.k]), self.theta[:, : self.k]
        own = np.empty(rows.n_rows, self.dtype)

        def run(start: int, stop: int) -> None:
            fm.forward(own, rows.indptr, rows.indices, rows.data, 0.0, w, V, table, start, stop, dispatch.ISA)

        dispatch.run_pieces(run, rows.n_rows, rows.nnz * (self.k + 4), self.n_threads)
        vectors = table[:, : self.k]
        table[:, self.k + 1] = own
        table[:, self.k] = own - np.einsum("ij,ij->i", vectors, vectors) / 2
