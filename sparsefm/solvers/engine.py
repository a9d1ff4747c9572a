"""The loop over epochs that every first-order solver shares: passes, evaluation, recovery, stopping, checkpoints."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from time import monotonic, perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._kernels import adaptive, csr, dispatch, family
from .._kernels.dispatch import address
from ..model import Family, FMParams, Posterior
from ..model import score as model_score
from ..validation import Rows
from . import checkpoint
from .batches import Batches
from .problem import HALVINGS, LOSSES, PAIR_SHARE, DivergenceError, Problem, judge, mean_loss, warn
from .table import Slot, Table

__all__ = ["Interrupted", "Method", "Training", "advice", "far_above", "norms", "scale_of", "solve"]

_SLICE = 1 << 27  # multiply-adds between looks at the clock and at Ctrl-C: about a tenth of a second
_CHUNK = 1 << 20  # features prepared at a time
_LONGEST = 2.0  # that the first step of a batch may move the weights' part of a score, in the units of training
_RUNAWAY = 20.0  # times the loss of the start
_WORN = 8  # a snapshot is worth its while when the passes since the last have moved so many times its memory


@dataclass(frozen=True)
class Method:
    """What a solver object says to the engine."""

    layout: str  # of the table
    learning_rate: float | None  # None: by `default_rate`
    default_rate: float  # for rows of mean square norm 2
    epsilon: float  # for the same rows
    max_iter: int
    tol: float
    patience: int
    batch_size: int
    dropout: float = 0.0
    power: float = 0.0  # the step of epoch e is divided by e^power
    beta1: float = 0.0
    beta2: float = 0.0
    l1: float = 0.0
    average: int = 0  # first epoch whose parameters enter the mean that is returned; 0: the last ones are
    shuffle: bool = True
    checkpoint: Any = None
    checkpoint_epochs: int = 1
    checkpoint_minutes: float = 0.0


def order_seed(seed: int, epoch: int) -> int:
    """What the order of an epoch is drawn with; other seeds share none of it."""
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0])


def far_above(loss: float) -> float:
    """A mean loss that no training comes to which began at `loss` and does not run away."""
    return loss + _RUNAWAY * (abs(loss) + 0.05)


def norms(rows: Rows, weight: NDArray[Any] | None = None) -> NDArray[np.float64]:
    """Σ over the rows of weight · (sum of the absolute values, sum of the squares)."""
    if rows.data is not None:
        return np.array(csr.norms(rows.indptr, rows.data, weight))
    ones = float(rows.nnz if weight is None else np.dot(weight.astype(np.float64), np.diff(rows.indptr)))
    return np.array([ones, ones])


def scale_of(squares: float, n_rows: int) -> float:
    """Mean square norm of the rows, in units of the two ones that a row of two ids has.

    A step moves a score in proportion to it: steps and ε are set for two ids and adapted by it, which makes training
    on X what it is on X / √scale with parameters √scale times as large. Rows of next to nothing count as a quarter.
    squares: Σ of weight · squared norm of the rows, n_rows: Σ of the weights.
    """
    return min(max(squares / n_rows / 2, 0.25), 1e60)


class Training:
    """The state of a training, which outlives the rows it is shown."""

    def __init__(
        self,
        method: Method,
        problem: Problem,
        *,
        scale: float | None = None,
        counts: NDArray[np.float32] | None = None,
    ) -> None:
        """scale, counts: of all the rows that will come, where these are not `problem.rows`."""
        self.method = method
        rows = problem.rows
        absolute = 0.0
        if scale is None:
            absolute, squares = norms(rows, problem.weight) / rows.n_rows
            scale = scale_of(squares, 1)
        self.scale = scale
        if method.learning_rate is not None:
            self.rate = self.bias_rate = method.learning_rate
        else:
            self.rate, self.bias_rate = method.default_rate / scale**0.5, method.default_rate
            if method.batch_size > 1:  # whose first adaptive steps have that length whatever the gradient
                self.rate = min(self.rate, _LONGEST / max(absolute, 1e-30))
        largest = float(np.finfo(rows.dtype).max) / 16  # a double beyond would be infinite in float32
        self.epsilon = min(method.epsilon * self.scale, largest)
        self.table = Table(method.layout, rows.n_features, problem.n_factors, rows.dtype, self.epsilon, problem.family)
        self.counts = np.zeros(rows.n_features, np.float32)
        self.begin(problem)
        if counts is not None:
            self.counts[:] = counts
            self._prepare(problem, np.flatnonzero(counts))

    def begin(self, problem: Problem) -> None:
        """The parameters that the first step finds."""
        if self.counts.any():  # not for the first time
            self.table.clear()
            self.counts[:] = 0
        self.table.start_bias(problem.w0, self.bias_rate, self.method.epsilon)
        self.table.strengthen_pairs(PAIR_SHARE * float(np.mean(problem.l2_factors)))
        if problem.start is not None:
            self.table.start(problem.start, self.rate, self.method.l1)
        self.show(problem)

    def show(self, problem: Problem) -> None:
        """Counts the features of rows that come, gives new ones a start, and all of them their strength of L2."""
        rows = problem.rows
        if rows.nnz < rows.n_features // 64:
            features = np.unique(rows.indices)
            csr.count(self.counts, rows.indptr, rows.indices, problem.weight)
            features = features[self.counts[features] > 0]
        else:
            csr.count(self.counts, rows.indptr, rows.indices, problem.weight)
            features = np.flatnonzero(self.counts)
        self._prepare(problem, features)

    def grow(self, n_features: int, start: NDArray[Any], family: Family) -> None:
        """Appends features; start: the one that each begins as, -1 for none; family: with their fields."""
        self.table.grow(n_features, start, family)
        self.counts = np.concatenate([self.counts, np.zeros(n_features - len(self.counts), np.float32)])

    def _prepare(self, problem: Problem, features: NDArray[Any]) -> None:
        counts: Any = self.counts
        if self.method.dropout > 0 and problem.bucket is not None:  # which are visited in the place of what is hidden
            counts = counts.astype(np.float64)
            seen = np.flatnonzero(self.counts)
            hides = seen[problem.bucket[seen] >= 0]
            np.add.at(counts, problem.bucket[hides], self.method.dropout * self.counts[hides])
            features = np.flatnonzero(counts)
        for start in range(0, len(features), _CHUNK):
            some = features[start : start + _CHUNK]
            self.table.admit(some, problem.init_std, problem.seed, self.scale**-0.5)
            share = 1 + problem.l2_prior / counts[some].astype(np.float64)
            l2_factors = problem.l2_factors if np.ndim(problem.l2_factors) == 0 else problem.l2_factors[some]
            self.table.strengthen(some, problem.l2_linear * share, l2_factors * share)

    def steps(self, epoch: int) -> tuple[float, ...]:
        method, largest = self.method, float(np.finfo(self.table.dtype).max) / 16
        rate, bias_rate = (min(r * float(epoch) ** -method.power, largest) for r in (self.rate, self.bias_rate))
        return rate, self.epsilon, method.beta1, method.beta2, method.l1, bias_rate, method.epsilon

    def run(self, problem: Problem, batches: Batches | None, epoch: int, first: int = 0) -> tuple[float, int]:
        """One pass over the rows: (Σ weight · loss, a row whose score was not finite or −1). first: the number of the
        first row, where they are a piece of a stream."""
        method, table, rows = self.method, self.table, problem.rows
        steps, key = self.steps(epoch), order_seed(problem.seed, -epoch & 0xFFFFFFFF) & 0xFFFFFFFF
        per_row = rows.nnz / rows.n_rows * (table.width + 4) + 16
        if batches is None:
            order = np.arange(rows.n_rows, dtype=rows.indices.dtype)
            if method.shuffle:
                adaptive.shuffle(order, order_seed(problem.seed, epoch))
            longest = int(np.diff(rows.indptr).max()) if method.dropout > 0 else 0
            kept = (np.empty(longest + 1, rows.indices.dtype), np.empty(longest + 1, rows.dtype)) if longest else None
            size = max(1, int(_SLICE / per_row))
        else:
            order = np.arange(batches.n_batches, dtype=np.int64)
            if method.shuffle:
                adaptive.shuffle(order, order_seed(problem.seed, epoch))
            size = max(1, int(_SLICE / per_row / batches.size))
        total = 0.0
        for start in range(0, len(order), size):
            some = order[start : start + size]
            if batches is not None:
                part, bad = batches.run(table, some, steps, key)
            elif problem.family.kind != "fm":
                part, bad = self._member_epoch(problem, some, steps, key, first)
            else:
                part, bad = adaptive.epoch(
                    table.array,
                    table.bias,
                    np.empty(max(1, table.kp), rows.dtype)[: table.kp],
                    rows.indptr,
                    rows.indices,
                    rows.data,
                    rows.row_length,
                    problem.y,
                    problem.weight,
                    some,
                    problem.bucket if method.dropout > 0 else None,
                    None if kept is None else kept[0],
                    None if kept is None else kept[1],
                    method.dropout if kept is not None else 0.0,
                    first,
                    table.optimiser,
                    steps,
                    problem.n_factors,
                    LOSSES[problem.loss],
                    problem.shape,
                    key,
                    dispatch.ISA,
                )
            total += part
            if bad >= 0:
                return np.nan, bad
            if problem.progress is not None and size < len(order):
                problem.progress(epoch, min(1.0, (start + size) / len(order)))
        return total, -1

    def _member_epoch(
        self, problem: Problem, order: NDArray[Any], steps: tuple[float, ...], key: int, first: int
    ) -> tuple[float, int]:
        """The pass over some rows of a family that is not "fm"."""
        own, table, rows, dropout = problem.family, self.table, problem.rows, self.method.dropout
        l2_of = np.ones(table.kp, table.dtype)
        if problem.l2_of_blocks is not None:
            l2_of[: table.width] = np.repeat(problem.l2_of_blocks, table.n_factors)
        result: tuple[float, int] = family.epoch_at(
            dispatch.ISA,
            rows.dtype.itemsize == 8,
            rows.indices.itemsize == 8,
            address(rows.indptr),
            address(rows.indices),
            address(rows.data),
            rows.n_rows,
            int(np.diff(rows.indptr).max(initial=0)),
            rows.row_length,
            address(problem.y),
            address(problem.weight),
            address(order),
            len(order),
            family.KINDS[own.kind],
            own.order,
            own.shared,
            table.n_factors,
            own.n_fields,
            address(own.fields),
            address(l2_of),
            address(table.array),
            table.n_features,
            table.array.shape[1],
            table.kp,
            table.width,
            address(table.bias),
            address(problem.bucket) if dropout > 0 else 0,
            dropout,
            first,
            table.optimiser,
            steps,
            LOSSES[problem.loss],
            problem.shape,
            key,
        )
        return result

    def halve(self) -> None:
        self.rate /= 2
        self.bias_rate /= 2
        self.table.slow(0.5, self.method.l1)


@dataclass
class _Progress:
    """What a checkpoint keeps beside the table."""

    epoch: int = 0  # the last one that is complete
    kept_epoch: int = 0  # the one in the slot; 0: none, the start
    best: float = np.inf  # what early stopping has seen, less tol
    best_epoch: int = 0
    kept: float = np.inf  # what the slot's parameters were judged to be
    fell_back_to: int = -1  # the epoch that the last recovery went back to
    halvings: int = 0
    averaged: int = 0  # epochs in the mean
    kept_averaged: int = 0  # in that of the slot
    done: bool = False


def solve(method: Method, problem: Problem) -> FMParams:
    """Passes over the rows, in a new random order each, until max_iter, early stopping, `report` or Ctrl-C ends them.

    An epoch that leaves the finite numbers, or runs away, is taken back: training goes on from the state in the slot
    with half the step. The result is a function of the problem and its seed; n_threads only speeds it up.
    """
    return _Run(method, problem).solve()


class _Run:
    def __init__(self, method: Method, problem: Problem) -> None:
        self.method, self.problem = method, problem
        self.began: float | None = perf_counter()  # the first epoch's seconds hold what comes before it
        if method.checkpoint is not None:
            _check_place(Path(method.checkpoint))
        self.slot, self.at = Slot(), _Progress()
        self.mean: FMParams | None = None  # of the epochs from method.average on
        self.kept_mean: FMParams | None = None  # what it was when the slot was filled
        self.records: list[dict[str, Any]] = []
        scores = np.full(problem.rows.n_rows, problem.w0)
        self.start_loss = mean_loss(problem.loss, problem.y, scores, problem.weight, problem.shape)
        if problem.start is not None:  # which may be far off on these rows
            scores = model_score(problem.start, problem.rows, n_threads=problem.n_threads)
            loss = mean_loss(problem.loss, problem.y, scores, problem.weight, problem.shape)
            self.start_loss = max(self.start_loss, loss) if np.isfinite(loss) else self.start_loss
        self.batches = None
        if method.batch_size > 1:
            seed = order_seed(problem.seed, 0) if method.shuffle else None
            self.batches = Batches(problem, method.batch_size, seed)
        self.training = Training(method, problem)
        visited = problem.rows.nnz * self.training.table.array.shape[1] * problem.rows.dtype.itemsize
        self.snapshot_every = max(1, -(-_WORN * self.training.table.array.nbytes // max(1, visited)))
        self.saved_at = monotonic()
        self.stopped = False  # by `report`: a training that resumes this one goes on

    @cached_property
    def fingerprint(self) -> str:
        """Names the training in its checkpoints."""
        return checkpoint.fingerprint(self.problem, self.method)

    def solve(self) -> FMParams:
        try:
            return self._solve()
        finally:
            self.slot.close()

    def _solve(self) -> FMParams:
        method, problem, at = self.method, self.problem, self.at
        interrupted: KeyboardInterrupt | None = None
        if problem.resume is not None:
            checkpoint.restore(self, *problem.resume)
        try:
            while at.epoch < method.max_iter and not (at.done or self.stopped):
                self._epoch()
        except KeyboardInterrupt as interruption:
            interrupted = interruption
        params = self._result()
        if interrupted is not None:
            raise Interrupted(params) from interrupted
        return params

    def _epoch(self) -> None:
        method, problem, at, table = self.method, self.problem, self.at, self.training.table
        began, self.began, epoch = self.began or perf_counter(), None, at.epoch + 1
        total, bad = self.training.run(problem, self.batches, epoch)
        loss = total / problem.rows.n_rows
        if bad >= 0 or not np.isfinite(loss) or loss > far_above(self.start_loss):
            self._recover(epoch, loss)
            return
        at.epoch = epoch
        record: dict[str, Any] = {"epoch": epoch, "loss": loss, "seconds": perf_counter() - began}
        if method.average and epoch >= method.average:
            at.averaged += 1
            self.mean = _mean(self.mean, table.copy(), at.averaged)
        judged = self._judge(record)
        if judged is not None and not np.isfinite(judged) and not np.isfinite(record["eval_loss"]):
            self._recover(epoch, record["eval_loss"])
            return
        if problem.early_stopping and judged is not None:
            if judged < at.kept or not self.slot.filled:
                at.kept = judged
                self._keep()
            if judged < at.best - method.tol:
                at.best, at.best_epoch = judged, epoch
            elif epoch - at.best_epoch >= method.patience:
                at.done = True
        elif epoch % self.snapshot_every == 0 and epoch < method.max_iter:
            self._keep()
        self.records.append(record)
        self.stopped = problem.report(record)
        if method.checkpoint is not None and (
            at.done
            or self.stopped
            or epoch == method.max_iter
            or (epoch % method.checkpoint_epochs == 0 and monotonic() - self.saved_at >= 60 * method.checkpoint_minutes)
        ):
            self._save()

    def _keep(self) -> None:
        """Fills the slot with the present state."""
        at = self.at
        self.slot.save(self.training.table)
        self.kept_mean = None if self.mean is None else _copied(self.mean)
        at.kept_epoch, at.kept_averaged = at.epoch, at.averaged

    def _judge(self, record: dict[str, Any]) -> float | None:
        """Puts what is watched into the record; returns what early stopping makes small."""
        problem = self.problem
        if problem.evaluation is None:
            return None
        X = problem.evaluation[0]
        if self.mean is None:
            scores = self.training.table.scores(X, problem.n_threads)
        else:
            scores = model_score(self.mean, X, n_threads=problem.n_threads)
        return judge(problem, scores, record)

    def _recover(self, epoch: int, loss: float) -> None:
        """Back to the state in the slot, or to the start, with half the step."""
        at, training = self.at, self.training
        at.halvings += 1
        if at.halvings > HALVINGS:
            raise DivergenceError(
                f"training diverged in epoch {epoch}: the loss is {loss:.3g}, although the step was halved "
                f"{HALVINGS} times. {self._advice()}"
            )
        if self.slot.filled and at.fell_back_to == at.kept_epoch:  # what is kept has begun to run away itself
            self.slot.bias = None
            at.kept = at.best = np.inf
        if self.slot.filled:
            self.slot.restore(training.table)
            training.halve()
            at.epoch = at.fell_back_to = at.kept_epoch
            at.averaged = at.kept_averaged
            self.mean = None if self.kept_mean is None else _copied(self.kept_mean)
        else:
            training.halve()
            training.begin(self.problem)
            at.epoch = at.best_epoch = at.kept_epoch = at.averaged = at.kept_averaged = 0
            at.fell_back_to = -1
            self.mean = self.kept_mean = None
        del self.records[at.epoch :]

    def _result(self) -> FMParams:
        """The parameters that training has come to, the best ones if it watched for them."""
        at, table, problem = self.at, self.training.table, self.problem
        if not self.records:
            raise KeyboardInterrupt  # before the first pass was complete
        best = problem.early_stopping and self.slot.filled
        mean = self.kept_mean if best else self.mean
        if mean is not None:
            params = mean
        else:
            if best:
                self.slot.restore(table)
            params = table.unpack()
        # a sum of squares is finite only if every parameter is
        with np.errstate(over="ignore"):
            finite = np.isfinite(params.w0**2 + np.vdot(params.w, params.w) + np.vdot(params.V, params.V))
            finite &= params.field_weights is None or np.isfinite(params.field_weights).all()
        if not finite:
            raise DivergenceError(f"training diverged: its parameters are not finite. {self._advice()}")
        if at.halvings:
            self._warn(f"training ran away and was taken back {at.halvings} times, each time to half the step")
        elif self.records[-1]["loss"] > self.start_loss + 0.1 * abs(self.start_loss) + 0.01:
            last = self.records[-1]["loss"]
            self._warn(
                f"the fit is worse than a constant: its mean loss is {last:.3g}, that of the constant "
                f"{self.start_loss:.3g}"
            )
        return params

    def _save(self) -> None:
        if not self.problem.early_stopping:
            self._keep()  # from here on this training and one that resumes it go back to the same state
        checkpoint.save(self, self.method.checkpoint)
        self.saved_at = monotonic()

    def _warn(self, what: str) -> None:
        warn(f"{what}. {self._advice()}")

    def _advice(self) -> str:
        return advice(self.problem, self.training.rate)


def advice(problem: Problem, rate: float) -> str:
    """What to do about a training that runs away, with the columns that may be why."""
    rows = problem.rows
    what = (
        "Encode integer ids with FrameEncoder({'user_id': OneHot(), ...}), scale numeric columns (Numeric() in it, "
        f"or StandardScaler), lower learning_rate={rate:.3g} or raise l2_factors"
    )
    if rows.data is None:
        return what
    size = np.abs(rows.data)
    entries = np.argpartition(size, -min(len(size), 64))[-64:]
    largest: dict[int, float] = {}
    for entry in entries[np.argsort(size[entries])[::-1]]:
        largest.setdefault(int(rows.indices[entry]), float(rows.data[entry]))
    named = ", ".join(f"{problem.name_of(j)} ({value:.3g})" for j, value in list(largest.items())[:3])
    return f"{what}. The columns with the largest values are {named}"


def _check_place(file: Path) -> None:
    if not file.name or file.is_dir():
        raise IsADirectoryError(f"checkpoint must name a file, got {str(file)!r}, a folder")
    if not file.absolute().parent.is_dir():
        raise FileNotFoundError(f"checkpoint: there is no folder {file.absolute().parent}")


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during training; `params` are those it had come to, or the draws."""

    def __init__(self, params: FMParams | Posterior) -> None:
        super().__init__("training was interrupted; the model holds what it had learned until then")
        self.params = params


def _copied(params: FMParams) -> FMParams:
    return replace(params, w=params.w.copy(), V=params.V.copy())


def _mean(mean: FMParams | None, params: FMParams, n: int) -> FMParams:
    """The mean of n sets of parameters, of which the first n − 1 have that mean."""
    if mean is None:
        return params
    for of_all, of_one in ((mean.w, params.w), (mean.V, params.V)):
        of_all += (of_one - of_all) / n
    r, one = mean.field_weights, params.field_weights
    return replace(
        mean,
        w0=mean.w0 + (params.w0 - mean.w0) / n,
        field_weights=None if r is None or one is None else r + (one - r) / n,
    )
