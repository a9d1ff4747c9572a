"""solvers: each step is the formula, and what comes of them has the properties that the objective promises."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import textwrap
import warnings
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import reference
import scipy.sparse as sp
from sklearn.exceptions import ConvergenceWarning

from sparsefm import FMClassifier, FMRegressor, FrameEncoder, MultiHot, OneHot, splits
from sparsefm._kernels import adaptive, dispatch
from sparsefm.datasets import make_ratings
from sparsefm.model import FMParams, init, score
from sparsefm.solvers import (
    ALS,
    FTRL,
    LOSSES,
    MCMC,
    SGD,
    SOLVERS,
    AdaGrad,
    Adam,
    Auto,
    DivergenceError,
    Problem,
    make_solver,
    table,
)
from sparsefm.solvers.batches import Batches
from sparsefm.solvers.engine import Training, order_seed
from sparsefm.solvers.problem import losses as losses_of
from sparsefm.solvers.problem import mean_loss
from sparsefm.validation import check_csr, check_sample_weight

ISAS = range(dispatch.ISA + 1)
RANKS = (0, 1, 5, 8, 16, 24, 32, 33, 64)
SHAPES = {"huber": 0.7, "quantile": 0.3}
# What the documentation promises: the step for rows of two ones, and ε.
NUMBERS = {SGD: (0.02, 0.0), AdaGrad: (0.2, 10.0), Adam: (0.01, 0.1), FTRL: (0.2, 10.0)}
KINDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "sgd": (SGD, {}),
    "adagrad": (AdaGrad, {}),
    "rowwise": (AdaGrad, {"rowwise": True}),
    "bf16": (AdaGrad, {"rowwise": True, "storage": "bf16"}),
    "adam": (Adam, {"beta1": 0.8, "beta2": 0.99}),
    "ftrl": (FTRL, {"l1": 0.0}),
    "ftrl, l1": (FTRL, {"l1": 0.3}),
}
# bfloat16 rows are made of float32.
IN_EACH_PRECISION = pytest.mark.parametrize(
    ("kind", "dtype"), [(kind, dtype) for kind in KINDS for dtype in (np.float32, np.float64)[: 1 + (kind != "bf16")]]
)
# A few epochs of random numbers need not be a good fit.
ANY_FIT = pytest.mark.filterwarnings("ignore:the fit is worse than a constant")


def make(kind: str, **options: Any) -> Any:
    of, own = KINDS[kind]
    return of(**{"max_iter": 2, **own, **options})


def targets(loss: str, n: int, rng: np.random.Generator) -> np.ndarray:
    if loss in ("logistic", "hinge"):
        return (rng.random(n) < 0.5) * 1.0
    if loss == "poisson":
        return rng.poisson(1.5, n) * 1.0
    return rng.normal(size=n)


def problem_of(
    *,
    n: int = 23,
    m: int = 9,
    k: int = 5,
    dtype: Any = np.float64,
    loss: str = "squared",
    ones: bool = False,
    weighted: bool = False,
    even: bool = False,
    wide: bool = False,
    l2: tuple[Any, Any] = (0.0, 0.0),
    prior: float = 0.0,
    seed: int = 0,
) -> Problem:
    """Random rows, some of them empty, or with even=True of three non-zeros each; column 0 is in all that are not."""
    rng = np.random.default_rng(seed)
    dense = np.where(rng.random((n, m)) < 0.4, 1.0 if ones else rng.normal(size=(n, m)), 0)
    dense[:, 0] = 1.0 if ones else rng.normal(size=n)
    dense[1::7] = 0
    if even:
        dense = np.zeros((n, m))
        for i in range(n):
            dense[i, rng.choice(m, 3, replace=False)] = 1.0 if ones else rng.normal(size=3)
    weight = check_sample_weight(rng.integers(0, 4, n), n) if weighted else None
    rows = check_csr(dense.astype(dtype))
    if wide:
        rows = rows._replace(indptr=rows.indptr.astype(np.int64), indices=rows.indices.astype(np.int64))
    return Problem(
        rows=rows,
        y=targets(loss, n, rng).astype(dtype),
        weight=None if weight is None else weight.astype(dtype),
        loss=loss,
        shape=SHAPES.get(loss, 0.0),
        w0=0.25,
        n_factors=k,
        l2_linear=l2[0],
        l2_factors=l2[1],
        l2_prior=prior,
        init_std=0.1,
        seed=7,
        n_threads=1,
        evaluation=None,
        early_stopping=False,
        report=lambda record: False,
    )


def arrays(problem: Problem) -> tuple[Any, Any, Any]:
    return problem.rows.indptr, problem.rows.indices, problem.rows.data


def shuffled(n: int, seed: int) -> np.ndarray:
    order = np.empty(n, dtype=np.int32)
    adaptive.shuffle(order, seed)
    return order


def schedule(problem: Problem, solver: Any, epoch: int) -> list[Any]:
    """The batches of an epoch in their order, one row each without batch_size."""
    n, size = problem.rows.n_rows, min(solver.batch_size or 1, problem.rows.n_rows)
    order = np.arange(n)
    if (solver.batch_size or 1) > 1:
        order = shuffled(n, order_seed(problem.seed, 0))
    batches = [order[start : start + size] for start in range(0, n, size)]
    visits = shuffled(len(batches), order_seed(problem.seed, epoch)) if solver.shuffle else range(len(batches))
    return [batches[i] for i in visits]


def as_bfloat16(V: Any) -> np.ndarray:
    """The nearest bfloat16 numbers, as float64."""
    bits = np.asarray(V, np.float32).view(np.uint32)
    return ((bits + 0x8000) & 0xFFFF0000).astype(np.uint32).view(np.float32).astype(np.float64)


def started(problem: Problem, solver: Any, n_j: Any) -> reference.Training:
    """The parameters before the first step, with the solver's numbers."""
    rate, epsilon = NUMBERS[type(solver)]
    scale = reference.scale(problem.rows.indptr, problem.rows.data, problem.weight)
    given = solver.learning_rate
    steps = reference.Steps(
        name="rowwise" if getattr(solver, "rowwise", False) else type(solver).__name__.lower(),
        rate=rate / scale**0.5 if given is None else given,
        epsilon=epsilon * scale,
        bias_rate=rate if given is None else given,
        bias_epsilon=epsilon,
        beta1=getattr(solver, "beta1", 0.0),
        beta2=getattr(solver, "beta2", 0.0),
        l1=getattr(solver, "l1", 0.0),
    )
    start = init(
        problem.rows.n_features,
        problem.n_factors,
        init_std=problem.init_std / scale**0.5,
        seed=problem.seed,
        features=np.flatnonzero(n_j),
        dtype=problem.rows.dtype,
    )
    V = as_bfloat16(start.V) if getattr(solver, "storage", "") == "bf16" else start.V.astype(np.float64)
    return reference.Training(steps, problem.w0, start.w.astype(np.float64), V)


def epochs_by_hand(
    problem: Problem, solver: Any, *, batches_of: Any = schedule, halved_after: int | None = None
) -> Iterator[tuple[reference.Training, float]]:
    """The same epochs by brute force: same start, same order, in float64. Yields after each, with its mean loss."""
    n_j = reference.occurrences(*arrays(problem)[:2], problem.rows.n_features, problem.weight)
    at = started(problem, solver, n_j)
    rates = np.array([at.steps.rate, at.steps.bias_rate])
    share = 1 + problem.l2_prior / np.where(n_j > 0, n_j, 1)
    for epoch in range(1, solver.max_iter + 1):
        slower = epoch**0.5 if getattr(solver, "schedule", "constant") == "inverse" else 1.0
        slower *= 2 if halved_after is not None and epoch > halved_after else 1
        at.set_rate(*(rates / slower))
        total = reference.epoch(
            at,
            *arrays(problem),
            problem.y,
            problem.weight,
            batches_of(problem, solver, epoch),
            name=problem.loss,
            shape=problem.shape,
            l2_linear=share * problem.l2_linear,
            l2_factors=share * problem.l2_factors,
        )
        yield at, total / problem.rows.n_rows


def by_hand(problem: Problem, solver: Any, **options: Any) -> tuple[reference.Training, list[float]]:
    """The parameters after the last epoch and the losses of all."""
    epochs = list(epochs_by_hand(problem, solver, **options))
    return epochs[-1][0], [loss for _, loss in epochs]


def solved(problem: Problem, solver: Any) -> tuple[FMParams, list[dict[str, Any]]]:
    records: list[dict[str, Any]] = []
    params = solver.solve(replace(problem, report=lambda record: records.append(record)))  # type: ignore[arg-type]
    return params, records


def same_bits(a: FMParams, b: FMParams) -> None:
    np.testing.assert_array_equal(a.w, b.w)
    np.testing.assert_array_equal(a.V, b.V)
    assert a.w0 == b.w0


def tolerance_of(kind: str, dtype: Any, penalised: bool = True) -> dict[str, float]:
    if kind == "bf16":
        return {"rtol": 0.02, "atol": 0.015}
    if dtype is np.float64:  # the strengths of L2 are kept in single precision
        return {"rtol": 1e-6, "atol": 1e-8} if penalised else {"rtol": 1e-9, "atol": 1e-11}
    return {"rtol": 2e-3, "atol": 2e-4}


def assert_follows(problem: Problem, kind: str, solver: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """On every instruction set."""
    at, losses = by_hand(problem, solver)
    dtype = problem.rows.dtype.type
    close = tolerance_of(kind, dtype, problem.l2_linear > 0)
    for isa in ISAS:
        monkeypatch.setattr(dispatch, "ISA", isa)
        got, records = solved(problem, solver)
        np.testing.assert_allclose(got.w0, at.w0, **close)
        np.testing.assert_allclose(got.w, at.w, **close)
        np.testing.assert_allclose(got.V, at.V, **close)
        np.testing.assert_allclose([r["loss"] for r in records], losses, **close)
        assert [r["epoch"] for r in records] == list(range(1, solver.max_iter + 1))
        assert (got.V.shape, got.V.dtype, got.w.dtype) == (at.V.shape, dtype, dtype)
        assert got.V.flags.c_contiguous


# ------------------------------------------------------------------------------------------- one step


def cases() -> list[Any]:
    """Every optimiser with every loss and rank; what else there is to choose is drawn for each."""
    drawn = []
    for i, (kind, loss, k) in enumerate(itertools.product(KINDS, LOSSES, RANKS)):
        rng = np.random.default_rng([i, 5])
        options = {name: bool(rng.integers(2)) for name in ("ones", "weighted", "even", "wide")}
        dtype = np.float32 if kind == "bf16" or rng.integers(2) else np.float64
        l2, prior = ((0.05, 0.08), 3.0) if rng.integers(2) else ((0.0, 0.0), 0.0)
        rate = None if rng.integers(3) else 0.04
        batch_size = int(rng.choice([1, 1, 2, 8]))
        drawn.append(
            pytest.param(
                kind,
                {"k": k, "loss": loss, "dtype": dtype, "l2": l2, "prior": prior, "seed": i + 1000, **options},
                {"learning_rate": rate, "batch_size": batch_size},
                id=f"{kind}-{loss}-{k}",
            )
        )
    return drawn


@ANY_FIT
@pytest.mark.parametrize(("kind", "rows", "options"), cases())
def test_epochs_are_the_steps_by_hand(
    monkeypatch: pytest.MonkeyPatch, kind: str, rows: dict[str, Any], options: dict[str, Any]
) -> None:
    assert_follows(problem_of(**rows), kind, make(kind, **options), monkeypatch)


@ANY_FIT
@IN_EACH_PRECISION
@pytest.mark.parametrize("batch_size", [2, 3, 7, 23, 50])
def test_batches_are_the_steps_by_hand(
    monkeypatch: pytest.MonkeyPatch, kind: str, batch_size: int, dtype: type
) -> None:
    problem = problem_of(
        k=5 if batch_size % 2 else 16,
        dtype=dtype,
        weighted=True,
        ones=batch_size == 7,
        wide=batch_size == 3,
        l2=(0.05, 0.08),
        prior=3.0,
        seed=batch_size,
    )
    assert_follows(problem, kind, make(kind, batch_size=batch_size, learning_rate=0.01), monkeypatch)


@ANY_FIT
@pytest.mark.parametrize("kind", KINDS)
def test_batches_cut_into_pieces_are_the_steps_by_hand(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Some two thousand entries are four pieces."""
    problem = problem_of(n=430, k=5, dtype=np.float32, weighted=True, l2=(0.05, 0.08), prior=3.0)
    solver = make(kind, batch_size=400, learning_rate=5e-4, max_iter=1)
    assert_follows(replace(problem, n_threads=3), kind, solver, monkeypatch)


@ANY_FIT
def test_the_largest_batch_is_one_step() -> None:
    n, rate = 1 << 16, 1e-6
    rng = np.random.default_rng(0)
    columns = rng.integers(0, 5, n + 10)
    X = sp.csr_array((rng.normal(size=n + 10), columns, np.arange(n + 11)), shape=(n + 10, 5))
    problem = replace(problem_of(k=0), rows=check_csr(X), y=rng.normal(size=n + 10), n_threads=2)
    got = SGD(max_iter=1, batch_size=n, learning_rate=rate).solve(problem)
    order = shuffled(n + 10, order_seed(problem.seed, 0))
    w0, w = 0.25, np.zeros(5)
    for batch in [(order[:n], order[n:])[i] for i in shuffled(2, order_seed(problem.seed, 1))]:
        d = w0 + X[batch] @ w - problem.y[batch]
        w0, w = w0 - rate * d.sum(), w - rate * (X[batch].T @ d)
    np.testing.assert_allclose(got.w, w, rtol=1e-9)
    assert got.w0 == pytest.approx(w0, rel=1e-12)


@ANY_FIT
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "bf16"])
@pytest.mark.parametrize("batch_size", [1, 6])
def test_a_table_larger_than_the_cache_takes_the_same_steps(kind: str, batch_size: int) -> None:
    """Its rows are fetched ahead, which changes nothing. Columns far apart of a wide matrix, started alike."""
    small, apart, k = problem_of(dtype=np.float32, k=16, weighted=True, l2=(0.05, 0.05)), 2500, 16
    rng = np.random.default_rng(0)
    start = FMParams(0.0, rng.normal(size=9).astype(np.float32), rng.normal(size=(9, k)).astype(np.float32) * 0.1)
    wide = FMParams(0.0, np.ones(9 * apart, np.float32), np.ones((9 * apart, k), np.float32))
    wide.w[::apart], wide.V[::apart] = start.w, start.V
    rows = small.rows._replace(n_features=9 * apart, indices=small.rows.indices * apart)
    solver = make(kind, batch_size=batch_size)
    got = solver.solve(replace(small, rows=rows, start=wide))
    expected = solver.solve(replace(small, start=start))
    same_bits(FMParams(got.w0, got.w[::apart], got.V[::apart]), expected)
    untouched = np.arange(9 * apart) % apart > 0
    assert (got.w[untouched] == 1).all()
    assert (got.V[untouched] == 1).all()


@ANY_FIT
@IN_EACH_PRECISION
@pytest.mark.parametrize("k", [0, 5, 16])
def test_batches_of_one_row_are_the_pass_over_rows(kind: str, k: int, dtype: type) -> None:
    problem = problem_of(k=k, dtype=dtype, weighted=True, l2=(0.05, 0.08), prior=3.0)
    solver = make(kind, max_iter=1)
    order = shuffled(23, order_seed(problem.seed, 0))[shuffled(23, order_seed(problem.seed, 1))]
    at, losses = by_hand(problem, solver, batches_of=lambda *_: order[:, None])
    batched = Training(solver.method(problem), problem)
    total, bad = batched.run(problem, Batches(problem, 1, order_seed(problem.seed, 0)), 1)
    got = batched.table.unpack()
    close = tolerance_of(kind, dtype)
    assert bad == -1
    np.testing.assert_allclose(total / 23, losses[0], **close)
    np.testing.assert_allclose(got.w0, at.w0, **close)
    np.testing.assert_allclose(got.w, at.w, **close)
    np.testing.assert_allclose(got.V, at.V, **close)


@ANY_FIT
def test_strengths_of_each_feature(monkeypatch: pytest.MonkeyPatch) -> None:
    strengths = np.linspace(0, 0.5, 9).astype(np.float32)
    for batch_size in (1, 5):
        problem = problem_of(weighted=True, l2=(0.1, strengths), prior=4.0)
        assert_follows(problem, "adagrad", AdaGrad(max_iter=2, batch_size=batch_size), monkeypatch)


@ANY_FIT
@pytest.mark.parametrize("batch_size", [1, 4])
def test_the_inverse_schedule_divides_the_step_by_the_root_of_the_epoch(
    monkeypatch: pytest.MonkeyPatch, batch_size: int
) -> None:
    solver = SGD(max_iter=5, schedule="inverse", learning_rate=0.05, batch_size=batch_size)
    assert_follows(problem_of(), "sgd", solver, monkeypatch)
    constant = SGD(max_iter=5, learning_rate=0.05, batch_size=batch_size).solve(problem_of())
    assert not np.allclose(constant.w, solver.solve(problem_of()).w)


@ANY_FIT
@pytest.mark.parametrize("kind", ["sgd", "adagrad", "adam", "ftrl"])
def test_without_shuffling_rows_come_as_they_are(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    assert_follows(problem_of(), kind, make(kind, shuffle=False), monkeypatch)
    shuffled_too = make(kind).solve(problem_of())
    assert not np.array_equal(shuffled_too.w, make(kind, shuffle=False).solve(problem_of()).w)


def test_the_objective_at_a_point_by_hand() -> None:
    """Two rows, weights 1 and 3; x_1 = (1, 2), x_2 = (0, 1); y = (1, 4)."""
    X = sp.csr_array([[1.0, 2], [0, 1]])
    w0, w, V = 0.5, [1.0, -1.0], [[2.0], [1.0]]
    # scores 0.5 + 1 - 2 + 2·1·1·2 = 3.5 and 0.5 - 1 = -0.5
    data_part = (1 * 0.5 * (3.5 - 1) ** 2 + 3 * 0.5 * (-0.5 - 4) ** 2) / 4
    # weights of mean 1 are 1/2 and 3/2: n_1 = 1/2, n_2 = 2, and n = 2
    penalty = 0.5 * ((0.5 + 3) / 2 * (0.1 * 1 + 0.2 * 4) + (2 + 3) / 2 * (0.1 * 1 + 0.7 * 1))
    got = reference.objective(
        X.indptr,
        X.indices,
        X.data,
        [1, 4],
        w0,
        w,
        V,
        name="squared",
        l2_linear=0.1,
        l2_factors=[0.2, 0.7],
        l2_prior=3.0,
        sample_weight=[1, 3],
    )
    assert got == pytest.approx(data_part + penalty, rel=1e-14)


@ANY_FIT
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(("n", "batch_size"), [(1, 1), (8, 8)])
def test_one_sgd_step_goes_down_the_gradient_of_the_objective(loss: str, n: int, batch_size: int) -> None:
    """All rows in one batch take one step down n times the gradient of the whole, penalties included."""
    k, m, rate = 3, 6, 1e-3
    strengths = np.linspace(0.1, 0.9, m)
    problem = problem_of(n=n, m=m, k=k, loss=loss, l2=(0.3, strengths), prior=2.5, seed=2)
    n_j = reference.occurrences(*arrays(problem)[:2], m)
    scale = reference.scale(problem.rows.indptr, problem.rows.data)
    start = init(m, k, init_std=0.1 / scale**0.5, seed=7, features=np.flatnonzero(n_j), dtype=np.float64)
    got = SGD(max_iter=1, learning_rate=rate, batch_size=batch_size).solve(problem)

    def objective(w0: float, w: Any, V: Any) -> float:
        return reference.objective(
            *arrays(problem),
            problem.y,
            w0,
            w,
            V,
            name=loss,
            shape=problem.shape,
            l2_linear=0.3,
            l2_factors=strengths,
            l2_prior=2.5,
        )

    h = 1e-5
    slope = (objective(0.25 + h, start.w, start.V) - objective(0.25 - h, start.w, start.V)) / (2 * h)
    assert got.w0 - 0.25 == pytest.approx(-rate * n * slope, abs=1e-10)
    for j in range(m):
        unit = h * (np.arange(m) == j)
        slope = (objective(0.25, start.w + unit, start.V) - objective(0.25, start.w - unit, start.V)) / (2 * h)
        assert got.w[j] - start.w[j] == pytest.approx(-rate * n * slope, abs=1e-10)
        for f in range(k):
            turn = np.outer(unit, np.arange(k) == f)
            slope = (objective(0.25, start.w, start.V + turn) - objective(0.25, start.w, start.V - turn)) / (2 * h)
            assert got.V[j, f] - start.V[j, f] == pytest.approx(-rate * n * slope, abs=1e-10)


@pytest.mark.parametrize(
    "solver",
    [
        SGD(max_iter=4000, learning_rate=5e-4),
        SGD(max_iter=8000, learning_rate=2e-3, batch_size=40),
        AdaGrad(max_iter=2000, average=1000),
        FTRL(max_iter=2000, l1=0, average=1000),
    ],
    ids=["sgd", "sgd, one batch", "adagrad", "ftrl"],
)
def test_many_small_steps_end_where_the_objective_is_flat(solver: Any) -> None:
    """Convex without factors: its gradient vanishes at the solution, weights, penalty and prior included."""
    problem = problem_of(n=40, m=5, k=0, weighted=True, l2=(0.3, 0.0), prior=6.0)
    got = solver.solve(problem)

    def objective(w0: float, w: Any) -> float:
        return reference.objective(
            *arrays(problem),
            problem.y,
            w0,
            w,
            got.V,
            name="squared",
            l2_linear=0.3,
            l2_factors=0,
            l2_prior=6.0,
            sample_weight=problem.weight,
        )

    h = 1e-4
    here = objective(got.w0, got.w)
    assert abs(objective(got.w0 + h, got.w) - objective(got.w0 - h, got.w)) / (2 * h) < 5e-3
    for j in range(5):
        unit = h * (np.arange(5) == j)
        assert abs(objective(got.w0, got.w + unit) - objective(got.w0, got.w - unit)) / (2 * h) < 5e-3
        for far in (0.3, -0.3):
            assert objective(got.w0, got.w + far * (np.arange(5) == j)) > here


@pytest.mark.parametrize("n", [1, 2, 3, 5, 17, 255, 256, 257, 1000, 4097])
def test_orders_are_permutations_that_differ_from_epoch_to_epoch(n: int) -> None:
    orders = []
    for seed in range(5):
        order = shuffled(n, seed)
        assert sorted(order.tolist()) == list(range(n))
        wide = np.empty(n, dtype=np.int64)
        adaptive.shuffle(wide, seed)
        assert wide.tolist() == order.tolist()
        orders.append(tuple(order.tolist()))
    if n > 10:
        assert len(set(orders)) == 5
    assert len({order_seed(seed, epoch) for seed in range(20) for epoch in range(20)}) == 400


# ----------------------------------------------------------------------------------------------- losses


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_mean_loss_is_the_formula(loss: str, dtype: type) -> None:
    scores = np.array([-800, -30, -1.5, 0, 0.5, 40, 20 if loss == "poisson" else 900], dtype=dtype)
    y = np.array([0, 1, 1, 0, 1, 0, 1], dtype=dtype)
    weight = np.array([1, 2, 0, 1, 1, 0.5, 3], dtype=dtype)
    shape = SHAPES.get(loss, 0.0)
    each = [reference.loss(loss, float(a), float(b), shape)[0] for a, b in zip(y, scores, strict=True)]
    assert mean_loss(loss, y, scores, None, shape) == pytest.approx(np.mean(each), rel=1e-12)
    expected = np.average(each, weights=weight.astype(np.float64))
    assert mean_loss(loss, y, scores, weight, shape) == pytest.approx(expected, rel=1e-12)
    np.testing.assert_allclose(losses_of(loss, y, scores, shape), each, rtol=1e-12)


@ANY_FIT
@pytest.mark.parametrize("loss", LOSSES)
def test_the_kernels_losses_and_slopes(loss: str) -> None:
    """A row without entries has the bias as its score, which one step moves by the slope."""
    shape = SHAPES.get(loss, 0.0)
    empty = check_csr(sp.csr_array((1, 1)))
    scores = [-700.0, -3.1, -1.0, -0.71, -0.69, -1e-3, 0.0, 0.2, 0.69, 0.71, 0.999, 1.0, 1.001, 2.5, 30.0]
    scores += [] if loss == "poisson" else [700.0]
    answers = (0.0, 1.0) if loss in ("logistic", "hinge") else (0.0, 1.0, 3.0)
    for y, at in itertools.product(answers, scores):
        problem = replace(problem_of(k=0, loss=loss), rows=empty, y=np.array([y]), w0=at)
        got, records = solved(problem, SGD(max_iter=1, learning_rate=1.0))
        value, slope = reference.loss(loss, y, at, shape)
        assert records[0]["loss"] == pytest.approx(value, rel=1e-12, abs=1e-300)
        assert records[0]["loss"] == pytest.approx(float(losses_of(loss, np.array([y]), np.array([at]), shape)[0]))
        assert at - got.w0 == pytest.approx(slope, rel=1e-12, abs=1e-12)
        h = 1e-6 * max(1, abs(at))
        kinks = {"hinge": [2 * y - 1], "quantile": [y], "huber": [y - shape, y + shape]}.get(loss, [])
        if all(abs(at - kink) > 2 * h for kink in kinks):
            below, above = losses_of(loss, np.array([y, y]), np.array([at - h, at + h]), shape)
            assert slope == pytest.approx((above - below) / (2 * h), rel=1e-5, abs=1e-6)


# ---------------------------------------------------------------------------------- each solver's own


@ANY_FIT
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("batch_size", [1, 5])
def test_ftrl_without_l1_is_adagrad(dtype: type, batch_size: int) -> None:
    problem = problem_of(dtype=dtype, n=200, weighted=True, l2=(0.02, 0.02), prior=5.0)
    ours, theirs = (make(kind, max_iter=8, batch_size=batch_size).solve(problem) for kind in ("ftrl", "adagrad"))
    close = {"rtol": 1e-9, "atol": 1e-11} if dtype is np.float64 else {"rtol": 1e-3, "atol": 1e-4}
    np.testing.assert_allclose(ours.w, theirs.w, **close)
    np.testing.assert_allclose(ours.V, theirs.V, **close)
    np.testing.assert_allclose(ours.w0, theirs.w0, **close)


def test_l1_leaves_exact_zeros_the_more_the_stronger_it_is() -> None:
    X, y = toy(m=200)
    zeros, losses = [], []
    for l1 in (0.0, 1.0, 4.0, 16.0, 1e6):
        model = FMRegressor(0, solver=FTRL(l1=l1, max_iter=10), random_state=0, clip=False).fit(X, y)
        zeros.append(int((model.coef_ == 0).sum()))
        losses.append(float(np.mean((model.predict(X) - y) ** 2)))
    assert zeros[0] == 0
    assert zeros[-1] == 200
    assert zeros == sorted(zeros)
    assert 0 < zeros[2] < 200
    assert losses == sorted(losses)


def test_l1_spares_the_bias_and_the_factors() -> None:
    problem = replace(problem_of(n=60), y=np.full(60, 3.0))
    got = FTRL(l1=1e6, max_iter=30).solve(problem)
    assert not got.w.any()
    assert got.w0 > 1
    assert got.V.all()


@pytest.mark.parametrize("l1", [0.0, 2.0])
def test_ftrl_goes_on_from_weights_that_it_is_given(l1: float) -> None:
    """They follow from a state without history: a first step of next to nothing finds them as they were."""
    problem = problem_of(k=0, m=20)
    first = FTRL(l1=l1, max_iter=3).solve(problem)
    assert (first.w == 0).any() == (l1 > 0)
    again = FTRL(l1=l1, max_iter=1, learning_rate=1e-9).solve(replace(problem, start=first, w0=first.w0))
    np.testing.assert_allclose(again.w, first.w, rtol=1e-5, atol=1e-6)
    assert again.w0 == pytest.approx(first.w0, rel=1e-5)


@pytest.mark.parametrize("l1", [0.0, 2.0])
def test_halving_the_step_of_ftrl_changes_no_weight(l1: float) -> None:
    """They follow from z and r, the state of the row, and from the step."""
    problem = problem_of(k=0, n=60, m=20)
    training = Training(FTRL(l1=l1).method(problem), problem)
    training.run(problem, None, 1)
    before = training.table.view().w.copy()
    training.halve()
    z, r = training.table.array[:, 3], training.table.array[:, 4]
    again = np.where(np.abs(z) > l1, -training.rate * (z - np.sign(z) * l1) / r, 0)
    assert (before == 0).any() == (l1 > 0)
    np.testing.assert_allclose(again, before, rtol=1e-5, atol=1e-7)


def one_row_of(V: np.ndarray, **more: Any) -> Problem:
    """A single row with a one in every column but the last, and factors to begin with."""
    m, k = V.shape
    x = np.ones((1, m), np.float32)
    x[0, -1] = 0
    start = FMParams(0.0, np.zeros(m, np.float32), V.astype(np.float32))
    problem = replace(problem_of(k=k, dtype=np.float32), rows=check_csr(x), y=np.array([2.0], np.float32), start=start)
    return replace(problem, w0=0.0, **more)


@ANY_FIT
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("batch_size", [1, 2])
def test_rounding_to_bfloat16_keeps_the_mean(monkeypatch: pytest.MonkeyPatch, isa: int, batch_size: int) -> None:
    monkeypatch.setattr(dispatch, "ISA", isa)
    rng = np.random.default_rng(0)
    problem = one_row_of(as_bfloat16(rng.normal(size=(4, 24)) * 0.3))
    exact = AdaGrad(max_iter=1, rowwise=True, batch_size=batch_size).solve(problem).V.astype(np.float64)
    solver = AdaGrad(max_iter=1, rowwise=True, storage="bf16", batch_size=batch_size)
    n = 600
    got = np.array([solver.solve(replace(problem, seed=seed)).V for seed in range(n)], np.float64)
    _, exponent = np.frexp(np.abs(exact))
    spacing = 2.0 ** (exponent - 8)
    assert (as_bfloat16(got) == got).all()
    assert (np.abs(got - exact) < spacing * 1.0001).all()  # one neighbour or the other
    # the chance of the upper neighbour is where the value lies between both: standard deviation at most half a spacing
    assert (np.abs(got.mean(axis=0) - exact)[:3] < 4.5 * 0.5 * spacing[:3] / n**0.5).all()
    assert (got.std(axis=0)[:3] > 0).mean() > 0.9
    # lanes are rounded apart
    up = (got > exact)[:, :3].reshape(n, -1).astype(float)
    up = up[:, (up.mean(axis=0) > 0.2) & (up.mean(axis=0) < 0.8)]
    together = np.corrcoef(up.T)[~np.eye(up.shape[1], dtype=bool)]
    assert np.abs(together).max() < 6 / n**0.5


@ANY_FIT
def test_steps_too_small_for_bfloat16_still_arrive() -> None:
    """Of many steps far below its spacing none would be seen with rounding to nearest."""
    n, steps = 150, 200
    problem = one_row_of(np.full((3, 8), 1.0), loss="quantile", shape=0.5)
    problem = replace(problem, y=np.array([1e4], np.float32))  # so that the slope stays the same
    rate = 0.004
    exact = AdaGrad(max_iter=steps, rowwise=True, learning_rate=rate).solve(problem).V.astype(np.float64)
    first = AdaGrad(max_iter=1, rowwise=True, learning_rate=rate).solve(problem).V
    spacing = 2.0**-7
    assert 0 < (first[0] - 1).max() < spacing / 10
    assert (exact[0] - 1).min() > 2 * spacing
    solver = AdaGrad(max_iter=steps, rowwise=True, storage="bf16", learning_rate=rate)
    got = np.array([solver.solve(replace(problem, seed=seed)).V[:2].mean() for seed in range(n)], np.float64)
    assert abs(got.mean() - exact[:2].mean()) < 5 * got.std() / n**0.5 + 0.02 * (exact[:2].mean() - 1)


@ANY_FIT
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("batch_size", [1, 2, 30])
def test_bfloat16_values_without_a_gradient_keep_their_bits(
    monkeypatch: pytest.MonkeyPatch, isa: int, batch_size: int
) -> None:
    """Visited, but alone in their rows; and not visited at all."""
    monkeypatch.setattr(dispatch, "ISA", isa)
    rng = np.random.default_rng(0)
    V = rng.normal(size=(6, 24)).astype(np.float32)
    X = np.eye(6, dtype=np.float32)[rng.integers(0, 4, 30)]
    weight = np.ones(30, np.float32)
    X[5, 4], weight[5] = 1, 0
    problem = replace(
        problem_of(n=30, k=24, dtype=np.float32),
        rows=check_csr(X),
        weight=weight,
        start=FMParams(0.0, np.zeros(6, np.float32), V),
    )
    got = AdaGrad(max_iter=20, rowwise=True, storage="bf16", batch_size=batch_size).solve(problem)
    assert got.w[:4].all()
    np.testing.assert_array_equal(got.V.astype(np.float64), as_bfloat16(V))


# ---------------------------------------------------------------------------------------------- dropout


@ANY_FIT
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ones", [False, True])
def test_dropout_of_nothing_changes_no_bit(kind: str, ones: bool) -> None:
    problem = problem_of(ones=ones, dtype=np.float32, weighted=True, l2=(0.1, 0.1))
    same_bits(make(kind).solve(problem), make(kind, dropout=0.0).solve(problem))
    hidden = make(kind, dropout=0.4).solve(problem)
    same_bits(hidden, make(kind, dropout=0.4).solve(replace(problem, n_threads=3)))
    assert not np.array_equal(hidden.w, make(kind).solve(problem).w)


def one_long_row(m: int, *, ones: bool, **more: Any) -> Problem:
    rows = check_csr(np.ones((1, m)) if ones else np.linspace(1, 2, m)[None])
    return replace(problem_of(k=0), rows=rows, y=np.array([1.25]), n_factors=0, **more)


@ANY_FIT
@pytest.mark.parametrize("ones", [False, True])
@pytest.mark.parametrize("p", [0.01, 0.3, 0.5, 0.95])
def test_dropout_hides_its_share_and_scales_the_rest(p: float, ones: bool) -> None:
    """Of a linear model that begins at zero one step shows who was hidden: the score is the bias, so d is −1."""
    m = 6000
    solver = SGD(max_iter=1, learning_rate=1e-3, dropout=p)
    patterns = []
    for seed in range(3):
        got = solver.solve(one_long_row(m, ones=ones, seed=seed))
        x = np.ones(m) if ones else np.linspace(1, 2, m)
        kept = got.w != 0
        np.testing.assert_allclose(got.w[kept], 1e-3 * x[kept] / (1 - p), rtol=1e-12)
        assert abs((~kept).mean() - p) < 5 * (p * (1 - p) / m) ** 0.5
        patterns.append(kept)
    for a, b in itertools.combinations(patterns, 2):  # as alike as independent draws
        assert abs((~a & ~b).mean() - p**2) < 6 * (p / m) ** 0.5
    shares = [part.mean() for part in np.array_split(patterns[0], 10)]  # wherever in the row
    assert np.ptp(shares) < 10 * (p * (1 - p) * 10 / m) ** 0.5


@ANY_FIT
def test_dropout_hides_others_in_each_row_and_epoch() -> None:
    m = 400
    X = np.zeros((2, 2 * m))
    X[0, :m] = X[1, m:] = 1
    problem = replace(problem_of(k=0), rows=check_csr(X), y=np.ones(2))
    one = SGD(max_iter=1, learning_rate=1e-3, dropout=0.5).solve(problem).w != 0
    assert 0.3 < np.mean(one[:m] == one[m:]) < 0.7
    two = SGD(max_iter=2, learning_rate=1e-3, dropout=0.5).solve(problem).w != 0
    assert (one <= two).all()
    assert 0.6 < two.mean() < 0.9


@ANY_FIT
def test_hidden_levels_become_their_bucket() -> None:
    """Their values go to the bucket's column, and nothing is scaled."""
    m, p = 3000, 0.2
    bucket = np.r_[np.zeros(m // 2), np.full(m // 2, -1)].astype(np.int32)
    problem = one_long_row(m, ones=True, bucket=bucket)
    rows = check_csr(sp.csr_array((np.ones(m - 1), np.arange(1, m), [0, m - 1]), shape=(1, m)))
    got = SGD(max_iter=1, learning_rate=1e-3, dropout=p).solve(replace(problem, rows=rows))
    hidden = got.w[1 : m // 2] == 0
    assert abs(hidden.mean() - p) < 0.06
    assert got.w[0] == pytest.approx(1e-3 * hidden.sum(), rel=1e-12)
    np.testing.assert_allclose(got.w[1 : m // 2][~hidden], 1e-3, rtol=1e-12)
    rest = got.w[m // 2 :]
    np.testing.assert_allclose(rest[rest != 0], 1e-3 / (1 - p), rtol=1e-12)


@ANY_FIT
@pytest.mark.parametrize("ones", [False, True])
@pytest.mark.parametrize("k", [3, 16, 33])
def test_with_dropout_rows_are_trained_as_if_they_lacked_what_is_hidden(
    monkeypatch: pytest.MonkeyPatch, k: int, ones: bool
) -> None:
    n, m, p = 12, 40, 0.4
    bucket = np.r_[np.zeros(20), np.full(20, -1)].astype(np.int32)
    problem = replace(problem_of(n=n, m=m, k=k, ones=ones, weighted=True), bucket=bucket)
    dense = np.zeros((n, m))
    at_rows = np.repeat(np.arange(n), np.diff(problem.rows.indptr))
    dense[at_rows, problem.rows.indices] = 1.0 if ones else problem.rows.data
    options: dict[str, Any] = {"max_iter": 1, "learning_rate": 1e-3, "shuffle": False}
    left = np.zeros((n, m))
    for i in np.flatnonzero(dense.any(axis=1)):  # a linear model shows of one row at a time what it was trained on
        alone = replace(problem, n_factors=0, weight=(np.arange(n) == i) * 1.0, y=np.full(n, 1.25))
        left[i] = SGD(**options, dropout=p).solve(alone).w / 1e-3
    kept = dense * np.where(bucket < 0, 1 / (1 - p), 1.0)
    assert np.isclose(left[:, 1:], 0).any()
    assert (np.isclose(left[:, 1:], kept[:, 1:]) | np.isclose(left[:, 1:], 0)).all()
    hidden = np.where(np.isclose(left, 0), dense, 0)
    np.testing.assert_allclose(left[:, 0], dense[:, 0] + hidden[:, 1:20].sum(axis=1), atol=1e-9)

    start = FMParams(0.0, np.zeros(m), np.random.default_rng(0).normal(size=(m, k)) * 0.1)
    by_rows = SGD(**options).solve(
        replace(problem, rows=check_csr(np.where(np.isclose(left, 0), 0, left)), start=start)
    )
    for isa in ISAS:
        monkeypatch.setattr(dispatch, "ISA", isa)
        got = SGD(**options, dropout=p).solve(replace(problem, start=start))
        np.testing.assert_allclose(got.w, by_rows.w, rtol=1e-7, atol=1e-10)
        np.testing.assert_allclose(got.V, by_rows.V, rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_dropout_trains_the_column_of_unknown_levels(kind: str) -> None:
    ml = make_ratings(40, 30, 600, random_state=0).ratings
    encoder = FrameEncoder({"user_id": OneHot(), "item_id": OneHot()})

    def unknown(dropout: float) -> Any:
        model = FMRegressor(4, encoder=encoder, solver=make(kind, max_iter=5, dropout=dropout), random_state=0)
        model.fit(ml, ml["rating"])
        buckets = np.unique(model.encoder_.buckets_)
        assert len(buckets) == 2
        return model, model.coef_[buckets], model.factors_[buckets]

    _, w, V = unknown(0.0)
    assert not w.any()
    assert not V.any()
    model, w, V = unknown(0.2)
    if kind != "ftrl, l1":
        assert w.all()
    assert V.all()
    again, *_ = unknown(0.2)
    same_bits(model.params_, again.params_)
    new = pd.DataFrame({"user_id": [-5], "item_id": [-6]})
    np.testing.assert_allclose(model._scores(new), model.intercept_ + w.sum() + V[0] @ V[1], rtol=1e-5)


@ANY_FIT
def test_several_hidden_levels_of_one_cell_are_one_entry() -> None:
    tags = pd.DataFrame({"tags": ["|".join(f"t{i}" for i in range(40))] * 2 + ["t0|t50"], "y": [1.0, 2.0, 0.0]})
    encoder = FrameEncoder({"tags": MultiHot("|")})
    model = FMRegressor(3, encoder=encoder, solver=AdaGrad(dropout=0.5, max_iter=3), random_state=0)
    same_bits(model.fit(tags, tags["y"]).params_, model.fit(tags, tags["y"]).params_)
    assert model.factors_[np.unique(model.encoder_.buckets_)].all()


# -------------------------------------------------------------------------------------------- averaging


def mean_of(runs: list[FMParams]) -> tuple[float, Any, Any]:
    return tuple(np.mean([getattr(run, name) for run in runs], axis=0) for name in ("w0", "w", "V"))  # type: ignore[return-value]


@ANY_FIT
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("average", [1, 3, 6])
def test_averaging_is_the_mean_of_the_epochs_from_there_on(kind: str, average: int) -> None:
    problem = problem_of(dtype=np.float32, l2=(0.05, 0.05))
    runs = [make(kind, max_iter=epochs).solve(problem) for epochs in range(average, 7)]
    got = make(kind, max_iter=6, average=average).solve(problem)
    for mine, expected in zip((got.w0, got.w, got.V), mean_of(runs), strict=True):
        np.testing.assert_allclose(mine, expected, rtol=1e-5, atol=1e-7)
    if average == 6:
        same_bits(got, runs[-1])


@ANY_FIT
def test_what_is_watched_is_the_mean_of_the_epochs() -> None:
    problem = problem_of(l2=(0.05, 0.05))
    other = problem_of(seed=5)
    watched = (other.rows, other.y, None)
    runs = [AdaGrad(max_iter=epochs).solve(problem) for epochs in range(1, 6)]
    _, records = solved(replace(problem, evaluation=watched), AdaGrad(max_iter=5, average=3))
    for epoch, record in enumerate(records, 1):
        w0, w, V = mean_of(runs[2:epoch] if epoch >= 3 else runs[epoch - 1 : epoch])
        expected = mean_loss("squared", other.y, reference.score(*arrays(other), w0, w, V), None)
        assert record["eval_loss"] == pytest.approx(expected, rel=1e-9)


@pytest.mark.filterwarnings("ignore:the fit is worse than a constant")
@pytest.mark.parametrize("average", [1, 2, 4])
def test_early_stopping_keeps_the_mean_of_the_best_epoch(average: int) -> None:
    X, y, X_watched, y_watched = overfitting()
    solver = AdaGrad(max_iter=200, average=average, learning_rate=0.5, patience=3)
    model = FMRegressor(8, solver=solver, early_stopping=True, l2_linear=0, l2_factors=0, random_state=0)
    model.fit(X, y, eval_set=(X_watched, y_watched))
    losses = [record["eval_loss"] for record in model.history_]
    assert len(losses) == int(np.argmin(losses)) + 4
    got = mean_loss("squared", y_watched, model._scores(X_watched), None)
    assert got == pytest.approx(min(losses), rel=1e-5)


# ------------------------------------------------------------------------------- running away, recovery


class Flaky:
    """Makes the passes whose numbers are given end as if they had left the finite numbers."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, lost: set[int]) -> None:
        self.lost, self.passes, run = lost, 0, Training.run

        def flaky(training: Training, problem: Problem, batches: Any, epoch: int, first: int = 0) -> tuple[float, int]:
            self.passes += 1
            total, bad = run(training, problem, batches, epoch, first)
            return (np.nan, 0) if self.passes in self.lost else (total, bad)

        monkeypatch.setattr(Training, "run", flaky)


@pytest.mark.filterwarnings("ignore:training ran away")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch_size", [1, 6])
def test_a_first_epoch_that_runs_away_is_begun_again_with_half_the_step(
    monkeypatch: pytest.MonkeyPatch, kind: str, batch_size: int
) -> None:
    problem = problem_of(dtype=np.float32, weighted=True, l2=(0.05, 0.05), prior=2.0)
    solver = make(kind, max_iter=3, batch_size=batch_size, learning_rate=0.02)
    expected = make(kind, max_iter=3, batch_size=batch_size, learning_rate=0.005).solve(problem)
    Flaky(monkeypatch, {1, 2})
    same_bits(solver.solve(problem), expected)


@pytest.mark.filterwarnings("ignore:training ran away")
@pytest.mark.parametrize("kind", ["sgd", "adagrad", "adam"])
def test_a_later_epoch_that_runs_away_goes_on_from_the_last_good_one(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    problem = problem_of()
    solver = make(kind, max_iter=4, learning_rate=0.02)
    at, _ = by_hand(problem, solver, halved_after=2)
    Flaky(monkeypatch, {3})
    got, records = solved(problem, solver)
    np.testing.assert_allclose(got.w, at.w, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(got.V, at.V, rtol=1e-9, atol=1e-11)
    assert [record["epoch"] for record in records] == [1, 2, 3, 4]


@pytest.mark.filterwarnings("ignore:training ran away")
def test_a_mean_forgets_the_epochs_that_were_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever epoch training goes back to, each enters the mean once, as it was at the end."""
    problem, lost = problem_of(m=30, even=True), 7
    solver = AdaGrad(max_iter=8, average=1, learning_rate=0.05)
    Flaky(monkeypatch, {lost})
    got = solver.solve(problem)

    def mean(back_to: int) -> Any:
        return np.mean([at.w for at, _ in epochs_by_hand(problem, solver, halved_after=back_to)], axis=0)

    assert any(np.allclose(got.w, mean(back_to), rtol=1e-9, atol=1e-11) for back_to in range(lost))


def test_a_hopeless_training_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    flaky = Flaky(monkeypatch, set(range(1, 100)))
    with pytest.raises(DivergenceError, match=r"diverged in epoch 1: .* halved 12 times.*lower learning_rate="):
        AdaGrad().solve(problem_of())
    assert flaky.passes == 13


# -------------------------------------------------------------------------------------- invariances


def toy(n: int = 400, m: int = 30, *, dtype: Any = np.float32, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    X = (rng.random((n, m)) < 0.2).astype(dtype)
    P = rng.normal(size=(m, 2)) * 0.5
    y = X @ rng.normal(size=m) + 0.5 * ((X @ P) ** 2 - X**2 @ P**2).sum(axis=1) + 0.1 * rng.normal(size=n)
    return X, y


def same(a: Any, b: Any) -> None:
    np.testing.assert_array_equal(a.coef_, b.coef_)
    np.testing.assert_array_equal(a.factors_, b.factors_)
    assert a.intercept_ == b.intercept_


@pytest.mark.parametrize("model", [FMRegressor(4, random_state=0), FMClassifier(4, random_state=0)])
def test_doubling_every_weight_changes_nothing(model: Any) -> None:
    X, y = toy()
    y = y > 0 if isinstance(model, FMClassifier) else y
    weight = np.random.default_rng(0).random(len(y))
    a = type(model)(4, random_state=0).fit(X, y, sample_weight=weight)
    b = type(model)(4, random_state=0).fit(X, y, sample_weight=2 * weight)
    same(a, b)
    c = type(model)(4, random_state=0).fit(X, y, sample_weight=np.full(len(y), 3.0))
    same(c, type(model)(4, random_state=0).fit(X, y))


@pytest.mark.parametrize("loss", ["squared", "huber", "quantile"])
@pytest.mark.parametrize("factor", [1e-6, 0.03, 7.0, 1e6])
def test_scaling_the_target_scales_the_predictions(factor: float, loss: str) -> None:
    X, y = toy(dtype=np.float64)
    # a loss that grows linearly outgrows no square: l2_linear is in the target's units there
    options: dict[str, Any] = {"loss": loss, "random_state": 0, "l2_linear": 0 if loss == "quantile" else 0.01}
    plain = FMRegressor(4, **options).fit(X, y)
    scaled = FMRegressor(4, **options).fit(X, factor * y)
    close = 1e-8 if loss == "squared" else 1e-5
    np.testing.assert_allclose(scaled.predict(X), factor * plain.predict(X), rtol=close, atol=close / 10 * factor)
    losses = [[record["loss"] for record in model.history_] for model in (plain, scaled)]
    np.testing.assert_allclose(losses[1], np.array(losses[0]) * factor ** (1 if loss == "quantile" else 2), rtol=close)


@pytest.mark.parametrize("factor", [1e-300, 1e-180, 1e-140, 1e140, 1e180, 1e300])
def test_targets_of_extreme_size_are_scaled_or_refused(factor: float) -> None:
    X, y = toy(dtype=np.float64)
    plain = FMRegressor(4, random_state=0).fit(X, y)
    try:
        scaled = FMRegressor(4, random_state=0).fit(X, factor * y)
    except ValueError as error:
        assert "y" in str(error)  # noqa: PT017
        assert not 1e-150 < factor < 1e150
        return
    np.testing.assert_allclose(scaled.predict(X) / factor, plain.predict(X), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("shift", [-5.0, 1000.0])
def test_shifting_the_target_shifts_the_predictions(shift: float) -> None:
    X, y = toy(dtype=np.float64)
    plain = FMRegressor(4, random_state=0).fit(X, y)
    shifted = FMRegressor(4, random_state=0).fit(X, y + shift)
    np.testing.assert_allclose(shifted.predict(X), plain.predict(X) + shift, rtol=1e-8)


def test_a_constant_target_is_predicted() -> None:
    X, _ = toy()
    assert FMRegressor(4, random_state=0).fit(X, np.full(400, 3.5)).predict(X) == pytest.approx(3.5)


@pytest.mark.parametrize("model", [FMRegressor(4, random_state=0), FMClassifier(4, random_state=0)])
def test_a_column_never_seen_scores_zero(model: Any) -> None:
    X, y = toy()
    X = np.hstack([X, np.zeros((400, 3), np.float32)])
    model.fit(X, y > 0 if isinstance(model, FMClassifier) else y)
    assert not model.coef_[30:].any()
    assert not model.factors_[30:].any()
    unseen = X.copy()
    unseen[:, 30:] = 5
    np.testing.assert_array_equal(model._scores(unseen), model._scores(X))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "bf16"])
@pytest.mark.parametrize("batch_size", [1, 6])
def test_rows_of_weight_zero_are_passed_over(kind: str, batch_size: int) -> None:
    """By hand: the same order without them takes the same steps."""
    problem = problem_of(weighted=True, l2=(0.1, 0.1), prior=2.0)
    assert problem.weight is not None
    assert (problem.weight == 0).any()
    solver = make(kind, batch_size=batch_size)
    at, _ = by_hand(problem, solver)
    poisoned = np.where(problem.weight == 0, 1e6, problem.y)
    got = solver.solve(replace(problem, y=poisoned))
    np.testing.assert_allclose(got.V, at.V, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(got.w, at.w, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(got.w0, at.w0, rtol=1e-6)


def test_the_values_of_a_row_of_weight_zero_do_not_count() -> None:
    X, y = toy()
    X[:, 0] *= 0.5
    wild = X.copy()
    wild[0, np.flatnonzero(X[0])] = 1000
    weight = (np.arange(400) > 0) * 1.0
    for solver in ("adagrad", AdaGrad(batch_size=32)):
        a = FMRegressor(4, solver=solver, random_state=0).fit(X, y, sample_weight=weight)
        b = FMRegressor(4, solver=solver, random_state=0).fit(wild, y, sample_weight=weight)
        same(a, b)


def test_a_column_seen_only_in_rows_of_weight_zero_scores_zero() -> None:
    X, y = toy()
    X = np.hstack([X, np.zeros((400, 1), np.float32)])
    X[0, 30] = 1
    model = FMRegressor(4, random_state=0).fit(X, y, sample_weight=np.arange(400) > 0)
    assert not model.coef_[30:].any()
    assert not model.factors_[30:].any()


def test_a_target_of_weight_zero_does_not_count() -> None:
    X, y = toy()
    wild = y.copy()
    wild[0] = 1e6
    weight = (np.arange(400) > 0) * 1.0
    a = FMRegressor(4, random_state=0).fit(X, y, sample_weight=weight)
    b = FMRegressor(4, random_state=0).fit(X, wild, sample_weight=weight)
    np.testing.assert_array_equal(a._scores(X), b._scores(X))


# ---------------------------------------------------------------------------------------- the same bits


@ANY_FIT
@IN_EACH_PRECISION
@pytest.mark.parametrize("isa", ISAS)
def test_batches_have_the_same_bits_at_any_number_of_threads(
    monkeypatch: pytest.MonkeyPatch, isa: int, kind: str, dtype: type
) -> None:
    """Enough entries for several pieces; a column of every row, empty rows, rows of weight zero, a short last batch."""
    monkeypatch.setattr(dispatch, "ISA", isa)
    monkeypatch.setattr(dispatch, "_WORK_PER_PIECE", 1 << 10)
    for k, ones, wide in ((0, False, True), (5, True, False), (16, False, False), (40, True, True)):
        problem = problem_of(
            n=700, m=14, k=k, dtype=dtype, ones=ones, wide=wide, weighted=True, l2=(0.05, 0.05), prior=3.0
        )
        solver = make(kind, batch_size=300, learning_rate=2e-4 if kind == "sgd" else 0.002)
        runs = [solved(replace(problem, n_threads=n), solver) for n in (1, 2, 3, 4)]
        for params, records in runs[1:]:
            same_bits(runs[0][0], params)
            assert [r["loss"] for r in records] == [r["loss"] for r in runs[0][1]]
        narrow = replace(
            problem,
            rows=problem.rows._replace(
                indptr=problem.rows.indptr.astype(np.int32), indices=problem.rows.indices.astype(np.int32)
            ),
        )
        # ranks that 32-bit indices have a loop of their own for may round differently
        close = {"rtol": 1e-3, "atol": 1e-4} if dtype is np.float32 else {"rtol": 1e-9, "atol": 1e-12}
        np.testing.assert_allclose(solver.solve(narrow).w, runs[0][0].w, **close)


@pytest.mark.parametrize("solver", ["adagrad", "sgd", AdaGrad(batch_size=64), Adam(batch_size=7), "ftrl", "auto"])
@pytest.mark.parametrize("isa", ISAS)
def test_a_fit_repeats_itself_to_the_bit(monkeypatch: pytest.MonkeyPatch, isa: int, solver: Any) -> None:
    monkeypatch.setattr(dispatch, "ISA", isa)
    # so that threads are used at all
    monkeypatch.setattr(dispatch, "_WORK_PER_PIECE", 1 << 10)
    X, y = toy()
    fits = [
        FMRegressor(5, solver=solver, random_state=3, n_threads=n).fit(X, y, eval_set=(X, y))
        for n in (1, 1, 2, 3, 4, None)
    ]
    for other in fits[1:]:
        same(fits[0], other)
        assert [r["eval_loss"] for r in fits[0].history_] == [r["eval_loss"] for r in other.history_]
        np.testing.assert_array_equal(fits[0].predict(X), other.predict(X))
    assert not np.array_equal(FMRegressor(5, solver=solver, random_state=4).fit(X, y).factors_, fits[0].factors_)


def test_a_fit_repeats_itself_in_another_process() -> None:
    """The environment chooses the instruction set; hashes and addresses play no part."""
    code = """
        import hashlib, numpy as np
        from sparsefm import FMRegressor
        from sparsefm.solvers import AdaGrad, Adam
        rng = np.random.default_rng(0)
        X = (rng.random((200, 20)) < 0.3).astype(np.float32)
        for solver in (AdaGrad(dropout=0.1), Adam(batch_size=32), AdaGrad(rowwise=True, storage="bf16")):
            model = FMRegressor(6, solver=solver, random_state=1).fit(X, X @ rng.normal(size=20))
            print(hashlib.sha256(model.factors_.tobytes() + model.coef_.tobytes()).hexdigest())
    """
    for name in dispatch.ISA_NAMES[dispatch.ISA // 2 : dispatch.ISA // 2 + 1]:
        prints = set()
        for hash_seed in ("1", "2"):
            environment = {**os.environ, "SPARSEFM_ISA": name, "PYTHONHASHSEED": hash_seed}
            run = subprocess.run(
                [sys.executable, "-c", textwrap.dedent(code)],
                env=environment,
                capture_output=True,
                text=True,
                check=True,
            )
            prints.add(run.stdout)
        assert len(prints) == 1


def test_input_of_other_layout_gives_the_same_bits() -> None:
    X, y = toy()
    first = FMRegressor(5, random_state=3).fit(X, y)
    wide = sp.csr_array(X)
    wide.indices, wide.indptr = wide.indices.astype(np.int64), wide.indptr.astype(np.int64)
    for other in (sp.csr_array(X), sp.csc_array(X), np.asfortranarray(X), wide):
        same(first, FMRegressor(5, random_state=3).fit(other, y))


# ------------------------------------------------------------------------------- divergence, stopping


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rate", [3.0, 30.0, 1e3, 1e10, 1e30])
def test_a_step_too_long_is_halved_and_reported(dtype: type, rate: float) -> None:
    X, y = toy(dtype=dtype)
    advice = r"Encode integer ids .*scale numeric columns.*lower learning_rate=.*l2_factors"
    for max_iter in (1, 30):
        model = FMRegressor(4, solver=SGD(learning_rate=rate, max_iter=max_iter), random_state=0)
        if rate < 100:
            with pytest.warns(ConvergenceWarning, match=rf"taken back \d+ times.*half the step.*{advice}"):
                model.fit(X, y)
            assert np.mean((model.predict(X) - y) ** 2) < np.var(y)
        else:
            with pytest.raises(DivergenceError, match=rf"training diverged in epoch \d+:.*halved 12 times.*{advice}"):
                model.fit(X, y)


@pytest.mark.parametrize("model", [FMRegressor, FMClassifier])
@pytest.mark.parametrize(
    "solver", ["sgd", "adagrad", "adam", "ftrl", AdaGrad(rowwise=True, storage="bf16", batch_size=50)]
)
@pytest.mark.parametrize("size", [1e4, 1e15, 3e38])
def test_huge_values_are_survived_or_reported(model: Any, solver: Any, size: float) -> None:
    X, y = toy()
    X[3, 5] = size
    fit = model(4, solver=solver, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", ConvergenceWarning)
        try:
            fit.fit(X, y > 0 if model is FMClassifier else y)
        except DivergenceError as error:
            assert "scale numeric columns" in str(error)  # noqa: PT017
            assert "the largest values are column 5 (" in str(error)  # noqa: PT017
            return
    assert np.isfinite(fit.factors_).all()


def test_no_fit_is_left_after_divergence() -> None:
    X, y = toy()
    model = FMRegressor(4, solver=SGD(learning_rate=1e10), random_state=0)
    with pytest.raises(DivergenceError):
        model.fit(X, y)
    with pytest.raises(ValueError, match="not fitted"):
        model.predict(X)


@pytest.mark.parametrize("model", [FMRegressor, FMClassifier])
def test_huge_values_in_the_watched_rows_are_an_error_not_a_warning(model: Any) -> None:
    X, y = toy()
    y = y > 0 if model is FMClassifier else y
    watched = X.copy()
    watched[0] = 1e30
    for weight in (None, (np.arange(400) > 0) * 1.0):
        with pytest.raises(DivergenceError):
            model(4, random_state=0).fit(X, y, eval_set=(watched, y, weight))


def overfitting() -> tuple[Any, Any, Any, Any]:
    rng = np.random.default_rng(0)
    X = (rng.random((160, 60)) < 0.2).astype(np.float32)
    y = X[:, :5].sum(axis=1) + rng.normal(size=160)
    return X[:80], y[:80], X[80:], y[80:]


@pytest.mark.filterwarnings("ignore:the fit is worse than a constant")
@pytest.mark.parametrize("max_iter", [3, 400])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("model", [FMRegressor, FMClassifier])
def test_early_stopping_keeps_the_best_epoch(model: Any, weighted: bool, max_iter: int) -> None:
    X, y, X_watched, y_watched = overfitting()
    if model is FMClassifier:
        y, y_watched = (y > 1).astype(int), (y_watched > 1).astype(int)
    weight = np.random.default_rng(1).random(80) if weighted else None
    solver = AdaGrad(max_iter=max_iter, learning_rate=0.3, patience=4)
    fit = model(8, solver=solver, early_stopping=True, l2_linear=0, l2_factors=0, random_state=0)
    fit.fit(X, y, eval_set=(X_watched, y_watched, weight))
    losses = [record["eval_loss"] for record in fit.history_]
    best = int(np.argmin(losses))
    if max_iter > 3:
        assert len(losses) == best + 1 + 4
        assert losses[-1] > losses[best]
    loss = "squared" if model is FMRegressor else "logistic"
    got = mean_loss(loss, y_watched.astype(float), fit._scores(X_watched), weight)
    assert got == pytest.approx(min(losses), rel=1e-5)


@pytest.mark.parametrize("stop", [1, 2, 3, 4])
def test_a_callback_that_stops_leaves_the_best_epoch(stop: int) -> None:
    X, y, X_watched, y_watched = overfitting()
    model = FMRegressor(
        4,
        early_stopping=True,
        random_state=0,
        callbacks=[lambda model, record: record["epoch"] == stop],
    ).fit(X, y, eval_set=(X_watched, y_watched))
    losses = [record["eval_loss"] for record in model.history_]
    assert len(losses) == stop
    got = mean_loss("squared", y_watched, model._scores(X_watched), None)
    assert got == pytest.approx(min(losses), rel=1e-5)


def test_a_tolerance_stops_sooner_but_still_keeps_the_best_epoch() -> None:
    X, y, X_watched, y_watched = overfitting()
    solver = AdaGrad(max_iter=100, tol=0.05, patience=2)
    model = FMRegressor(4, solver=solver, early_stopping=True, random_state=0)
    model.fit(X, y, eval_set=(X_watched, y_watched))
    losses = [record["eval_loss"] for record in model.history_]
    assert len(losses) < 100
    got = mean_loss("squared", y_watched, model._scores(X_watched), None)
    assert got == pytest.approx(min(losses), rel=1e-5)


def test_without_eval_set_a_part_of_the_rows_is_set_aside() -> None:
    X, y, *_ = overfitting()
    model = FMRegressor(4, early_stopping=True, validation_fraction=0.25, random_state=0).fit(X, y)
    assert all("eval_loss" in record for record in model.history_)
    again = FMRegressor(4, early_stopping=True, validation_fraction=0.25, random_state=0).fit(X, y)
    same(model, again)
    order = np.random.default_rng(0).permutation(80)
    kept, watched = np.sort(order[20:]), np.sort(order[:20])
    by_hand = FMRegressor(4, early_stopping=True, random_state=0)
    by_hand.fit(X[kept], y[kept], eval_set=(X[watched], y[watched]))
    same(model, by_hand)


def test_callbacks_see_every_epoch_and_may_stop() -> None:
    X, y = toy()
    seen: list[Any] = []

    def first(model: Any, record: Any) -> Any:
        seen.append((model, record["epoch"]))
        return "not True"

    def second(model: Any, record: Any) -> Any:
        return np.bool_(record["epoch"] >= 4)  # a comparison of NumPy's numbers

    model = FMRegressor(4, callbacks=[first, second], random_state=0).fit(X, y)
    assert [epoch for _, epoch in seen] == [1, 2, 3, 4]
    assert all(each is model for each, _ in seen)
    assert model.n_iter_ == 4
    same(model, FMRegressor(4, solver=AdaGrad(max_iter=4), random_state=0).fit(X, y))


@pytest.mark.parametrize("solver", [SGD, AdaGrad, Adam, FTRL])
@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("max_iter", [0, -1, 1.5, True, None, "3", np.nan]),
        ("learning_rate", [0, -0.1, np.nan, np.inf, "fast", True]),
        ("batch_size", [0, -3, 2.5, True, "all"]),
        ("dropout", [-0.1, np.nan, "0.5", True]),
        ("average", [-1, 1.5, None, True]),
        ("tol", [-1e-9, np.nan, np.inf, None]),
        ("patience", [0, 2.0, None]),
        ("checkpoint_epochs", [0, 1.5]),
        ("checkpoint_minutes", [-1, np.nan]),
    ],
)
def test_wrong_options_are_named(solver: Any, option: str, values: list[Any]) -> None:
    X, y = toy()
    for value in values:
        kind = "non-negative" if option in ("tol", "dropout", "average", "checkpoint_minutes") else "positive"
        with pytest.raises(ValueError, match=rf"{solver.__name__}\({option}\) must be a {kind} .*got"):
            FMRegressor(4, solver=solver(**{option: value})).fit(X, y)


@pytest.mark.parametrize(
    ("solver", "error", "message"),
    [
        (Adam(dropout=1.0), ValueError, r"Adam\(dropout\) must be less than 1, got 1.0"),
        (SGD(batch_size=65537), ValueError, r"SGD\(batch_size\) must be at most 65536, got 65537"),
        (FTRL(dropout=0.1, batch_size=2), ValueError, r"FTRL\(dropout\) needs batch_size=1"),
        (SGD(shuffle=1), TypeError, r"SGD\(shuffle\) must be True or False, got 1"),
        (SGD(schedule="linear"), ValueError, r"SGD\(schedule\) must be 'constant' or 'inverse', got 'linear'"),
        (AdaGrad(checkpoint=3), TypeError, r"AdaGrad\(checkpoint\) must be a path or None, got 3"),
        (AdaGrad(rowwise=1), TypeError, r"AdaGrad\(rowwise\) must be True or False, got 1"),
        (AdaGrad(storage="f16"), ValueError, r"AdaGrad\(storage\) must be 'float32' or 'bf16', got 'f16'"),
        (AdaGrad(storage="bf16"), ValueError, r"AdaGrad\(storage='bf16'\) needs rowwise=True"),
        (Adam(beta1=1), ValueError, r"Adam\(beta1\) must be at most 0.999999, got 1"),
        (Adam(beta2=-0.1), ValueError, r"Adam\(beta2\) must be a non-negative number, got -0.1"),
        (FTRL(l1=-1), ValueError, r"FTRL\(l1\) must be a non-negative number, got -1"),
        (FTRL(l1=np.inf), ValueError, r"FTRL\(l1\) must be a non-negative number, got inf"),
        (Auto(max_iter=0), ValueError, r"Auto\(max_iter\) must be a positive integer, got 0"),
        (Auto(patience=1.5), ValueError, r"Auto\(patience\) must be a positive integer, got 1.5"),
    ],
    ids=str,
)
def test_each_solvers_own_options_are_checked(solver: Any, error: Any, message: str) -> None:
    X, y = toy(n=40)
    with pytest.raises(error, match=message):
        FMRegressor(2, solver=solver).fit(X, y)


def test_bfloat16_is_for_single_precision() -> None:
    X, y = toy(n=40, dtype=np.float64)
    solver = AdaGrad(rowwise=True, storage="bf16")
    with pytest.raises(ValueError, match=r"trains float32 rows; X is float64: pass X.astype\(np.float32\)"):
        FMRegressor(2, solver=solver).fit(X, y)
    assert FMRegressor(2, solver=solver, random_state=0).fit(X.astype(np.float32), y).factors_.dtype == np.float32


@pytest.mark.parametrize(
    "options",
    [
        {"n_factors": -1},
        {"n_factors": 2.0},
        {"l2_linear": -1},
        {"l2_factors": np.nan},
        {"l2_prior": -1},
        {"l2_prior": np.inf},
        {"loss": "absolute"},
        {"init_std": -0.1},
        {"validation_fraction": 1.0, "early_stopping": True},
        {"validation_fraction": 0, "early_stopping": True},
        {"n_threads": 0},
        {"n_threads": -1},
        {"n_threads": 1.5},
    ],
)
@pytest.mark.parametrize("model", [FMRegressor, FMClassifier])
def test_wrong_arguments_are_named_by_fit(model: Any, options: dict[str, Any]) -> None:
    X, y = toy()
    with pytest.raises(ValueError, match=rf"{next(iter(options))} must"):
        model(**options).fit(X, y > 0)


def test_solvers_by_name() -> None:
    first_order = {"adagrad": AdaGrad, "sgd": SGD, "adam": Adam, "ftrl": FTRL}
    assert {**first_order, "als": ALS, "mcmc": MCMC, "auto": Auto} == SOLVERS
    for name, kind in SOLVERS.items():
        assert type(make_solver(name)) is kind
    mine = SGD(max_iter=3)
    assert make_solver(mine) is mine
    for wrong in ("adam!", None, 3, [], SGD):
        with pytest.raises(ValueError, match=r"solver must be one of 'adagrad', 'sgd', .* 'mcmc', 'auto' or a solver"):
            make_solver(wrong)


@pytest.mark.parametrize("batch_size", [1, 8, 100])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("k", [0, 5])
def test_rows_without_entries_move_the_bias_only(k: int, kind: str, batch_size: int) -> None:
    X = sp.csr_array((50, 4), dtype=np.float32)
    solver = make(kind, batch_size=batch_size, learning_rate=0.01)
    model = FMRegressor(k, solver=solver, random_state=0).fit(X, np.arange(50.0))
    assert not model.coef_.any()
    assert not model.factors_.any()
    assert abs(model.intercept_ - 24.5) < 5


@pytest.mark.parametrize("batch_size", [1, 8])
@pytest.mark.parametrize("kind", KINDS)
def test_one_row(kind: str, batch_size: int) -> None:
    model = FMRegressor(3, solver=make(kind, batch_size=batch_size), random_state=0)
    model.fit(np.array([[1.0, 2.0]], np.float32), [4.0])
    assert model.predict([[1.0, 2.0]]) == pytest.approx([4.0])


def test_parameters_are_not_the_training_table() -> None:
    X, y = toy()
    params = FMRegressor(5, random_state=0).fit(X, y).params_
    assert isinstance(params, FMParams)
    assert params.V.shape == (30, 5)
    assert params.V.flags.c_contiguous
    assert params.w.flags.c_contiguous
    np.testing.assert_allclose(
        score(params, X)[:5],
        reference.score(*arrays_of(X[:5]), params.w0, params.w, params.V),
        rtol=1e-4,
        atol=1e-5,
    )


def arrays_of(X: np.ndarray) -> tuple[Any, Any, Any]:
    rows = sp.csr_array(X)
    return rows.indptr, rows.indices, rows.data


# -------------------------------------------------------------------------------- strengths by field, auto


class Spy(AdaGrad):
    """Keeps the problem that it is given."""

    def solve(self, problem: Problem) -> FMParams:
        self.problem = problem
        return super().solve(problem)


def test_strengths_by_the_names_of_an_encoders_fields() -> None:
    ml = make_ratings(30, 20, 500, random_state=0).ratings
    encoder = FrameEncoder({"user_id": OneHot(), "item_id": OneHot()})
    spread = float(ml["rating"].std(ddof=0))

    def fitted(l2_factors: Any) -> tuple[Any, Any]:
        spy = Spy(max_iter=8)
        return FMRegressor(3, encoder=encoder, solver=spy, l2_factors=l2_factors, random_state=0).fit(
            ml, ml["rating"]
        ), spy

    model, spy = fitted({"item_id": 3.0})
    of_items = model.fields_ == model.encoder_.field_names_.index("item_id")
    np.testing.assert_allclose(spy.problem.l2_factors[of_items], 3.0 / spread, rtol=1e-6)
    np.testing.assert_allclose(spy.problem.l2_factors[~of_items], 0.025, rtol=1e-6)  # as without a word
    default, spy = fitted(None)
    assert spy.problem.l2_factors == 0.025
    items, users = (
        [np.linalg.norm(each.factors_[rows]) for each in (model, default)] for rows in (of_items, ~of_items)
    )
    assert items[0] < 0.5 * items[1]
    assert items[0] / items[1] < users[0] / users[1]
    everywhere, _ = fitted({"item_id": 0.025 * spread, "user_id": 0.025 * spread})
    np.testing.assert_allclose(everywhere.factors_, default.factors_, rtol=1e-4, atol=1e-6)


def test_strengths_by_the_numbers_of_fields() -> None:
    X, y = toy()
    fields = np.repeat([0, 1, 2], 10)
    spy = Spy(max_iter=2)
    FMClassifier(2, fields=fields, solver=spy, l2_factors={0: 0.5, 2: 0.0}, random_state=0).fit(X, y > 0)
    np.testing.assert_allclose(spy.problem.l2_factors, np.repeat([0.5, 0.025, 0.0], 10), rtol=1e-6)
    for options, message in (
        ({"l2_factors": {3: 0.5}, "fields": fields}, r"l2_factors names \[3\]; the fields are \[0, 1, 2\]"),
        ({"l2_factors": {0: 0.5}}, r"l2_factors by field needs to know the fields"),
        ({"l2_factors": {0: -0.5}, "fields": fields}, r"l2_factors\[0\] must be a non-negative number"),
        ({"l2_factors": {0: 0.5}, "fields": fields[:5]}, r"fields must hold the number of the field of each of the 30"),
        ({"l2_factors": {0: 0.5}, "fields": fields - 1}, r"fields must hold the number of the field"),
    ):
        with pytest.raises(ValueError, match=message):
            FMClassifier(2, **options).fit(X, y > 0)


def noisy(n: int, seed: int = 0) -> tuple[Any, Any]:
    """Few rows a level and much noise: what overfits."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, 60, (n, 3))
    X = np.hstack([np.eye(60, dtype=np.float32)[column] for column in ids.T])
    return X, X[:, :60] @ rng.normal(size=60) * 0.3 + rng.normal(size=n)


@pytest.mark.parametrize("model", [FMRegressor, FMClassifier])
def test_auto_does_not_do_worse_than_the_defaults_where_those_overfit(model: Any) -> None:
    X, y = noisy(4000)
    if model is FMClassifier:
        y = y > 0
    options: dict[str, Any] = {"l2_linear": 0.0, "l2_factors": 1e-4, "random_state": 0}

    def loss_of(solver: Any) -> float:
        fit = model(16, solver=solver, **options).fit(X[:1500], y[:1500])
        name = "squared" if model is FMRegressor else "logistic"
        return mean_loss(name, y[1500:].astype(float), fit._scores(X[1500:]), None)

    assert loss_of("auto") < 0.98 * loss_of(AdaGrad(max_iter=40))
    assert loss_of("auto") <= 1.001 * loss_of("adagrad")


def test_auto_is_a_function_of_the_rows_and_the_seed() -> None:
    X, y = noisy(800)
    weight = np.random.default_rng(1).random(800) * (np.arange(800) % 5 > 0)
    fits = [FMRegressor(3, solver="auto", random_state=2, n_threads=n).fit(X, y, sample_weight=weight) for n in (1, 3)]
    same(*fits)
    epochs = [record["epoch"] for record in fits[0].history_]
    assert epochs == list(range(1, len(epochs) + 1))  # the search leaves no trace
    assert len(epochs) <= Auto().max_iter
    watched = FMRegressor(3, solver="auto", random_state=2, early_stopping=True).fit(X, y)
    assert "eval_loss" in watched.history_[0]
    assert len(FMRegressor(3, solver=Auto(max_iter=2), random_state=0).fit(X, y).history_) <= 2


@pytest.mark.parametrize("n", [1, 2, 3, 10, 499, 500, 501, 600])
@pytest.mark.parametrize("model", [FMRegressor, FMClassifier])
def test_auto_takes_any_number_of_rows(model: Any, n: int) -> None:
    X, y = noisy(n)
    if model is FMClassifier:
        if n == 1:
            return
        y = np.arange(n) % 2
    plain = model(2, solver="auto", random_state=0).fit(X, y)
    assert np.isfinite(plain.factors_).all()
    if n < 500:
        same(plain, model(2, random_state=0).fit(X, y))
    weight = np.where(np.arange(n) < max(2, n // 2), 1.0, 0.0)
    assert np.isfinite(model(2, solver="auto", random_state=0).fit(X, y, sample_weight=weight).factors_).all()
    rows = sp.csr_array(X)
    same(plain, model(2, solver="auto", random_state=0).fit(rows, y))


def test_auto_counts_passes_by_their_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    """A trial that runs away and begins anew reports its first epochs twice."""
    trained, inner = [], AdaGrad.solve

    def solve(self: AdaGrad, problem: Problem) -> FMParams:
        if problem.evaluation is None:
            trained.append(self.max_iter)
            return inner(self, problem)
        for epoch, loss in ((1, 5.0), (2, 6.0), (1, 4.0), (2, 3.0), (3, 2.0)):
            problem.report({"epoch": epoch, "eval_loss": loss})
        return FMParams(0.0, np.zeros(1), np.zeros((1, 0)))

    monkeypatch.setattr(AdaGrad, "solve", solve)
    FMRegressor(0, solver=Auto(max_iter=6), random_state=0).fit(*noisy(600))
    assert trained == [3]


# -------------------------------------------------------------------------------------- planted truth


def test_planted_interactions_are_found() -> None:
    """Better than biases alone, and near what no model can beat."""
    ml = make_ratings(300, 300, 30_000, noise_std=0.5, n_factors=3, random_state=0)
    train, test = splits.random(ml.ratings, test_size=0.2, random_state=0)
    encoder = FrameEncoder({"user_id": OneHot(), "item_id": OneHot()})

    def rmse(k: int) -> float:
        model = FMRegressor(k, encoder=encoder, random_state=0).fit(train, train["rating"])
        return float(np.sqrt(np.mean((model.predict(test) - test["rating"]) ** 2)))

    floor = float(np.sqrt(np.mean((ml.expected[test.index] - test["rating"]) ** 2)))
    biases, factors = rmse(0), rmse(8)
    assert floor < factors < biases
    # most of what lies between the two is found
    assert factors - floor < 0.35 * (biases - floor)


def test_planted_classes_are_found() -> None:
    """Exclusive or: no linear model can tell, a product of two features can."""
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2, (600, 2))
    X = np.eye(4, dtype=np.float32)[bits[:, 0]] + np.eye(4, dtype=np.float32)[2 + bits[:, 1]]
    y = bits[:, 0] ^ bits[:, 1]
    solver = AdaGrad(max_iter=60, learning_rate=0.3)
    assert FMClassifier(2, solver=solver, random_state=0).fit(X[:400], y[:400]).score(X[400:], y[400:]) == 1
    assert FMClassifier(0, solver=solver, random_state=0).fit(X[:400], y[:400]).score(X[400:], y[400:]) < 0.7


# ---------------------------------------------------------------------------------------- large tables


@pytest.mark.parametrize("solver", [SGD(), AdaGrad(), AdaGrad(rowwise=True), AdaGrad(rowwise=True, storage="bf16")])
@pytest.mark.parametrize("k", [1, 8, 13, 16, 64])
def test_parameters_that_take_over_the_memory_of_the_table_are_those_of_a_copy(
    monkeypatch: pytest.MonkeyPatch, solver: Any, k: int
) -> None:
    monkeypatch.setattr(table, "_CHUNK", 5)
    problem = problem_of(k=k, m=23, dtype=np.float32)
    training = Training(solver.method(problem), problem)
    training.run(problem, None, 1)
    expected = training.table.copy()
    monkeypatch.setattr(table, "_LARGE", 0)
    got = training.table.unpack()
    same_bits(got, expected)
    assert got.V.flags.c_contiguous


@pytest.mark.parametrize(
    "solver", [AdaGrad(max_iter=12, patience=2), AdaGrad(max_iter=12, rowwise=True, storage="bf16")]
)
def test_a_slot_in_a_file_keeps_what_one_in_memory_keeps(monkeypatch: pytest.MonkeyPatch, solver: Any) -> None:
    X, y = toy()
    fits = []
    for limit in (1 << 30, 0):
        monkeypatch.setattr(table, "_IN_MEMORY", limit)
        model = FMRegressor(4, solver=solver, early_stopping=True, l2_factors=0, l2_linear=0, random_state=0)
        fits.append(model.fit(X, y))
    same(*fits)
