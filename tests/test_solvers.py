"""solvers: each step is the formula, and what comes of them has the properties that the objective promises."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import reference
import scipy.sparse as sp
from sklearn.exceptions import ConvergenceWarning

from sparsefm import FMClassifier, FMRegressor, FrameEncoder, OneHot, splits
from sparsefm._kernels import adaptive, dispatch
from sparsefm.datasets import make_ratings
from sparsefm.model import FMParams, init, score
from sparsefm.solvers import SGD, SOLVERS, AdaGrad, DivergenceError, Problem, make_solver
from sparsefm.solvers.fused import order_seed
from sparsefm.solvers.problem import mean_loss
from sparsefm.validation import check_csr, check_sample_weight

ISAS = range(dispatch.ISA + 1)


def problem_of(
    *,
    n: int = 30,
    m: int = 9,
    k: int = 5,
    dtype: Any = np.float64,
    loss: str = "squared",
    ones: bool = False,
    weighted: bool = False,
    even: bool = False,
    l2: tuple[float, float] = (0.0, 0.0),
    seed: int = 0,
) -> Problem:
    rng = np.random.default_rng(seed)
    dense = np.where(rng.random((n, m)) < 0.5, 1.0 if ones else rng.normal(size=(n, m)), 0)
    if even:  # three non-zeros in each row
        dense = np.zeros((n, m))
        for i in range(n):
            dense[i, rng.choice(m, 3, replace=False)] = 1.0 if ones else rng.normal(size=3)
    y = rng.normal(size=n) if loss == "squared" else (rng.random(n) < 0.5) * 1.0
    weight = check_sample_weight(rng.integers(0, 4, n), n) if weighted else None
    return Problem(
        rows=check_csr(dense.astype(dtype)),
        y=y.astype(dtype),
        weight=None if weight is None else weight.astype(dtype),
        loss=loss,
        w0=0.25,
        n_factors=k,
        l2_linear=l2[0],
        l2_factors=l2[1],
        init_std=0.1,
        seed=7,
        n_threads=1,
        evaluation=None,
        early_stopping=False,
        report=lambda record: False,
    )


def arrays(problem: Problem) -> tuple[Any, Any, Any]:
    return problem.rows.indptr, problem.rows.indices, problem.rows.data


def trained(problem: Problem, solver: Any) -> tuple[reference.Training, list[float]]:
    """The same epochs by hand: same start, same order, in float64."""
    seen = np.unique(problem.rows.indices).astype(np.int64)
    start = init(
        problem.rows.n_features,
        problem.n_factors,
        init_std=problem.init_std,
        seed=problem.seed,
        features=seen,
        dtype=problem.rows.dtype,
    )
    at = reference.Training(problem.w0, start.w.astype(np.float64), start.V.astype(np.float64))
    losses = []
    for epoch in range(1, solver.max_iter + 1):
        order = np.empty(problem.rows.n_rows, dtype=np.int32)
        adaptive.shuffle(order, order_seed(problem.seed, epoch))
        total = reference.epoch(
            at,
            *arrays(problem),
            problem.y,
            problem.weight,
            order,
            adagrad=isinstance(solver, AdaGrad),
            name=problem.loss,
            learning_rate=solver.learning_rate,
            epsilon=solver._epsilon,
            l2_linear=problem.l2_linear,
            l2_factors=problem.l2_factors,
        )
        losses.append(total / problem.rows.n_rows)
    return at, losses


# ------------------------------------------------------------------------------------------- one step


@pytest.mark.parametrize("solver", [SGD(max_iter=3, learning_rate=0.02), AdaGrad(max_iter=3, learning_rate=0.2)])
@pytest.mark.parametrize("loss", ["squared", "logistic"])
@pytest.mark.parametrize("k", [0, 1, 5, 8, 16, 24, 33])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"ones": True},
        {"even": True},
        {"weighted": True, "l2": (0.3, 0.2)},
        {"ones": True, "even": True, "weighted": True, "l2": (0.1, 0.4)},
    ],
)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_epochs_are_the_steps_by_hand(
    monkeypatch: pytest.MonkeyPatch, solver: Any, loss: str, k: int, options: Any, dtype: type
) -> None:
    problem = problem_of(k=k, loss=loss, dtype=dtype, **options)
    at, losses = trained(problem, solver)
    tolerance = {"rtol": 1e-9, "atol": 1e-11} if dtype is np.float64 else {"rtol": 2e-3, "atol": 2e-4}
    for isa in ISAS:
        monkeypatch.setattr(dispatch, "ISA", isa)
        records: list[dict[str, Any]] = []
        got = solver.solve(replace(problem, report=lambda r, to=records: to.append(r)))  # type: ignore[misc]
        np.testing.assert_allclose(got.w0, at.w0, **tolerance)
        np.testing.assert_allclose(got.w, at.w, **tolerance)
        np.testing.assert_allclose(got.V, at.V, **tolerance)
        np.testing.assert_allclose([r["loss"] for r in records], losses, **tolerance)
        assert (got.V.shape, got.V.dtype, got.w.dtype) == ((9, k), dtype, dtype)
        assert got.V.flags.c_contiguous


def test_the_objective_at_a_point_by_hand() -> None:
    """Two rows, weights 1 and 3; x_1 = (1, 2), x_2 = (0, 1); y = (1, 4)."""
    X = sp.csr_array([[1.0, 2], [0, 1]])
    w0, w, V = 0.5, [1.0, -1.0], [[2.0], [1.0]]
    # scores 0.5 + 1 - 2 + 2·1·1·2 = 3.5 and 0.5 - 1 = -0.5
    data_part = (1 * 0.5 * (3.5 - 1) ** 2 + 3 * 0.5 * (-0.5 - 4) ** 2) / 4
    # feature 1 is in the first row only (c = 1/4), feature 2 in both (c = 1)
    penalty = 0.5 * (1 / 4) * (0.1 * 1 + 0.2 * 4) + 0.5 * 1 * (0.1 * 1 + 0.2 * 1)
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
        l2_factors=0.2,
        sample_weight=[1, 3],
    )
    assert got == pytest.approx(data_part + penalty, rel=1e-14)


@pytest.mark.parametrize("loss", ["squared", "logistic"])
@pytest.mark.parametrize("k", [0, 1, 5])
def test_one_sgd_step_goes_down_the_gradient_of_the_objective(loss: str, k: int) -> None:
    problem = problem_of(n=1, m=6, k=k, loss=loss, l2=(0.3, 0.7), seed=2)
    rate = 1e-3
    start = init(6, k, init_std=0.1, seed=7, features=problem.rows.indices.astype(np.int64), dtype=np.float64)
    got = SGD(max_iter=1, learning_rate=rate).solve(problem)

    def objective(w0: float, w: Any, V: Any) -> float:
        return reference.objective(*arrays(problem), problem.y, w0, w, V, name=loss, l2_linear=0.3, l2_factors=0.7)

    h = 1e-5
    slope = (objective(0.25 + h, start.w, start.V) - objective(0.25 - h, start.w, start.V)) / (2 * h)
    assert got.w0 - 0.25 == pytest.approx(-rate * slope, abs=1e-11)
    for j in range(6):
        unit = h * (np.arange(6) == j)
        slope = (objective(0.25, start.w + unit, start.V) - objective(0.25, start.w - unit, start.V)) / (2 * h)
        assert got.w[j] - start.w[j] == pytest.approx(-rate * slope, abs=1e-11)
        for f in range(k):
            turn = np.outer(unit, np.arange(k) == f)
            slope = (objective(0.25, start.w, start.V + turn) - objective(0.25, start.w, start.V - turn)) / (2 * h)
            assert got.V[j, f] - start.V[j, f] == pytest.approx(-rate * slope, abs=1e-11)


def test_many_small_steps_end_where_the_objective_is_flat() -> None:
    """Convex without factors: its gradient vanishes at the solution, weights and penalty included."""
    problem = problem_of(n=40, m=5, k=0, weighted=True, l2=(0.3, 0.0))
    got = SGD(max_iter=4000, learning_rate=5e-4).solve(problem)

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
        order = np.empty(n, dtype=np.int32)
        adaptive.shuffle(order, seed)
        assert sorted(order.tolist()) == list(range(n))
        wide = np.empty(n, dtype=np.int64)
        adaptive.shuffle(wide, seed)
        assert wide.tolist() == order.tolist()
        orders.append(tuple(order.tolist()))
    if n > 10:
        assert len(set(orders)) == 5


@pytest.mark.parametrize("loss", ["squared", "logistic"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_mean_loss_is_the_formula(loss: str, dtype: type) -> None:
    scores = np.array([-800, -30, -1.5, 0, 0.5, 40, 900], dtype=dtype)
    y = np.array([0, 1, 1, 0, 1, 0, 1], dtype=dtype)
    weight = np.array([1, 2, 0, 1, 1, 0.5, 3], dtype=dtype)
    each = [reference.loss(loss, float(a), float(b))[0] for a, b in zip(y, scores, strict=True)]
    assert mean_loss(loss, y, scores, None) == pytest.approx(np.mean(each), rel=1e-12)
    expected = np.average(each, weights=weight.astype(np.float64))
    assert mean_loss(loss, y, scores, weight) == pytest.approx(expected, rel=1e-12)


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


@pytest.mark.parametrize("factor", [1e-6, 0.03, 7.0, 1e6])
def test_scaling_the_target_scales_the_predictions(factor: float) -> None:
    X, y = toy(dtype=np.float64)
    plain = FMRegressor(4, random_state=0).fit(X, y)
    scaled = FMRegressor(4, random_state=0).fit(X, factor * y)
    np.testing.assert_allclose(scaled.predict(X), factor * plain.predict(X), rtol=1e-8, atol=1e-9 * factor)
    losses = [[record["loss"] for record in model.history_] for model in (plain, scaled)]
    np.testing.assert_allclose(losses[1], np.array(losses[0]) * factor**2, rtol=1e-8)


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


def test_rows_of_weight_zero_are_passed_over() -> None:
    """By hand: the same order without them takes the same steps."""
    problem = problem_of(weighted=True, l2=(0.1, 0.1))
    assert problem.weight is not None
    assert (problem.weight == 0).any()
    at, _ = trained(problem, SGD(max_iter=2, learning_rate=0.05))
    poisoned = np.where(problem.weight == 0, 1e6, problem.y)
    got = SGD(max_iter=2, learning_rate=0.05).solve(replace(problem, y=poisoned))
    np.testing.assert_allclose(got.V, at.V, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(got.w0, at.w0, rtol=1e-10)


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


@pytest.mark.parametrize("solver", ["adagrad", "sgd"])
@pytest.mark.parametrize("isa", ISAS)
def test_a_fit_repeats_itself_to_the_bit(monkeypatch: pytest.MonkeyPatch, isa: int, solver: str) -> None:
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
        rng = np.random.default_rng(0)
        X = (rng.random((200, 20)) < 0.3).astype(np.float32)
        model = FMRegressor(6, random_state=1).fit(X, X @ rng.normal(size=20))
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
def test_a_step_too_long_is_reported_with_advice(dtype: type, rate: float) -> None:
    X, y = toy(dtype=dtype)
    for max_iter in (1, 30):
        model = FMRegressor(4, solver=SGD(learning_rate=rate, max_iter=max_iter), random_state=0)
        with pytest.raises((DivergenceError, ConvergenceWarning), match=r"lower learning_rate=.*adagrad"):
            model.fit(X, y)


@pytest.mark.parametrize("model", [FMRegressor, FMClassifier])
@pytest.mark.parametrize("solver", ["sgd", "adagrad"])
@pytest.mark.parametrize("size", [1e4, 1e15, 3e38])
def test_huge_values_are_survived_or_reported(model: Any, solver: str, size: float) -> None:
    X, y = toy()
    X[3, 5] = size
    fit = model(4, solver=solver, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", ConvergenceWarning)
        try:
            fit.fit(X, y > 0 if model is FMClassifier else y)
        except DivergenceError as error:
            assert "Scale numeric columns" in str(error)  # noqa: PT017
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


@pytest.mark.parametrize("solver", [SGD, AdaGrad])
@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("max_iter", [0, -1, 1.5, True, None, "3", np.nan]),
        ("learning_rate", [0, -0.1, np.nan, np.inf, "fast", True]),
        ("tol", [-1e-9, np.nan, np.inf, None]),
        ("patience", [0, 2.0, None]),
    ],
)
def test_wrong_options_are_named(solver: Any, option: str, values: list[Any]) -> None:
    X, y = toy()
    for value in values:
        kind = "non-negative" if option == "tol" else "positive"
        with pytest.raises(ValueError, match=rf"{solver.__name__}\({option}\) must be a {kind} .*got"):
            FMRegressor(4, solver=solver(**{option: value})).fit(X, y)


@pytest.mark.parametrize(
    "options",
    [
        {"n_factors": -1},
        {"n_factors": 2.0},
        {"l2_linear": -1},
        {"l2_factors": np.nan},
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
    assert set(SOLVERS) == {"adagrad", "sgd"}
    for name, kind in SOLVERS.items():
        assert type(make_solver(name)) is kind
    mine = SGD(max_iter=3)
    assert make_solver(mine) is mine
    for wrong in ("adam!", None, 3, []):
        with pytest.raises(ValueError, match=r"solver must be one of 'adagrad', 'sgd' or a solver object"):
            make_solver(wrong)


@pytest.mark.parametrize("k", [0, 5])
def test_rows_without_entries_move_the_bias_only(k: int) -> None:
    X = sp.csr_array((50, 4), dtype=np.float32)
    model = FMRegressor(k, random_state=0).fit(X, np.arange(50.0))
    assert not model.coef_.any()
    assert not model.factors_.any()
    assert abs(model.intercept_ - 24.5) < 5


def test_one_row() -> None:
    model = FMRegressor(3, random_state=0).fit([[1.0, 2.0]], [4.0])
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


# -------------------------------------------------------------------------------------- planted truth


def test_planted_interactions_are_found() -> None:
    """Better than biases alone, and near what no model can beat."""
    ml = make_ratings(300, 300, 30_000, noise_std=0.5, n_factors=3, random_state=0)
    train, test = splits.random(ml.ratings, test_size=0.2, random_state=0)
    encoder = FrameEncoder({"user_id": OneHot(), "item_id": OneHot()})

    def rmse(k: int) -> float:
        model = FMRegressor(k, encoder=encoder, random_state=0, l2_factors=0.05).fit(train, train["rating"])
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
