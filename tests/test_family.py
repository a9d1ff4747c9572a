"""The members of the family in the NumPy wing: brute force, identities, training replayed, and the estimators."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import reference
import scipy.sparse as sp
from sklearn.exceptions import NotFittedError
from sklearn.utils.estimator_checks import parametrize_with_checks
from test_estimators import SAMPLING
from test_solvers import problem_of, schedule, solved, started

from sparsefm import (
    FFMClassifier,
    FFMRegressor,
    FMClassifier,
    FMRegressor,
    FrameEncoder,
    FwFMClassifier,
    FwFMRegressor,
    MultiHot,
    OneHot,
    load,
    metrics,
)
from sparsefm._kernels import dispatch, isa
from sparsefm.model import Family, FMParams, gradient, init, represent, score
from sparsefm.solvers import FTRL, SGD, AdaGrad, Adam
from sparsefm.solvers.problem import PAIR_SHARE
from sparsefm.validation import check_csr

ISAS = [dispatch.ISA_NAMES.index(name) for name in isa.supported()]
FIELDS = np.array((0, 0, 1, 1, 1, 3, 3, 2, 0, 3, 1), np.int32)  # a row of all columns has several of each
N, N_FIELDS = len(FIELDS), 5  # and no column is of the last field
MEMBERS = {
    "anova 2": Family("anova", 2),
    "anova 3": Family("anova", 3),
    "anova 4": Family("anova", 4),
    "anova 5": Family("anova", 5),
    "anova 7": Family("anova", 7),
    "anova 3 shared": Family("anova", 3, True),
    "anova 5 shared": Family("anova", 5, True),
    "ffm": Family("ffm", fields=FIELDS, n_fields=N_FIELDS),
    "fwfm": Family("fwfm", fields=FIELDS, n_fields=N_FIELDS),
}
FEW = ("anova 3", "anova 4 shared", "ffm", "fwfm")
MEMBERS["anova 4 shared"] = Family("anova", 4, True)


def machine(name: str, k: int, dtype: Any = np.float32, seed: int = 0) -> FMParams:
    rng, family = np.random.default_rng(seed), MEMBERS[name]
    r = rng.normal(size=(N_FIELDS, N_FIELDS))
    V = rng.normal(0, 0.6, (N, family.blocks * k)).astype(dtype)
    return FMParams(
        0.3, rng.normal(size=N).astype(dtype), V, family, (r + r.T).astype(dtype) if name == "fwfm" else None
    )


def rows_of(lengths: Any = (3, 0, 1, 5, N, 2, 0, 4), *, seed: int = 1, ones: bool = False, apart: bool = False) -> Any:
    """CSR rows of so many non-zeros; apart: at most one a field."""
    rng, chosen = np.random.default_rng(seed), []
    for n in lengths:
        columns = rng.permutation(N)
        if apart:
            columns = columns[np.unique(FIELDS[columns], return_index=True)[1]]
        chosen.append(np.sort(columns[:n]))
    data = [np.ones(len(c)) if ones else rng.normal(size=len(c)) for c in chosen]
    indptr = np.concatenate([[0], np.cumsum([len(c) for c in chosen])])
    return sp.csr_array((np.concatenate(data), np.concatenate(chosen), indptr), shape=(len(chosen), N))


def brute_force(params: FMParams, X: Any) -> np.ndarray:
    family, X = params.family, sp.csr_array(X)
    given = (X.indptr, X.indices, X.data, params.w0, params.w, params.V)
    if family.kind == "ffm":
        return reference.field_aware(*given, family.fields, family.n_fields)
    if family.kind == "fwfm":
        return reference.field_weighted(*given, family.fields, params.field_weights)
    return reference.anova(*given, family.order, family.shared)


def slopes(params: FMParams, x: Any) -> np.ndarray:
    """∂score/∂V of one dense row; a score is linear in each number by itself, so that a difference is exact."""
    out = np.zeros(params.V.shape)
    for j in np.flatnonzero(x):
        for f in range(params.V.shape[1]):
            ends = []
            for step in (0.5, -0.5):
                V = params.V.astype(np.float64)
                V[j, f] += step
                moved = FMParams(params.w0, params.w.astype(np.float64), V, params.family, params.field_weights)
                ends.append(float(brute_force_f64(moved, x)))
            out[j, f] = ends[0] - ends[1]
    return out


def brute_force_f64(params: FMParams, x: Any) -> float:
    r = params.field_weights
    given = replace(params, field_weights=None if r is None else r.astype(np.float64))
    return float(brute_force(given, np.asarray(x)[None])[0])


# ---- the equation


@pytest.mark.parametrize("isa_number", ISAS)
@pytest.mark.parametrize("name", MEMBERS)
def test_scores_are_those_of_the_definition(name: str, isa_number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "ISA", isa_number)
    for k, dtype in (
        (1, np.float64),
        (3, np.float32),
        (4, np.float32),
        (8, np.float32),
        (16, np.float32),
        (20, np.float32),
    ):
        for ones in (False, True):
            for apart in (False, True):
                X = rows_of(ones=ones, apart=apart).astype(dtype)
                if k == 8:
                    X.indices, X.indptr = X.indices.astype(np.int64), X.indptr.astype(np.int64)
                params = machine(name, k, dtype)
                expected = brute_force(params, X)
                tolerance = 1e-12 if dtype is np.float64 else 2e-5
                scale = np.abs(expected).max()
                np.testing.assert_allclose(score(params, X), expected, rtol=tolerance, atol=tolerance * scale)


@pytest.mark.parametrize("name", FEW)
def test_gradients_are_those_of_the_definition(name: str) -> None:
    X, params = rows_of(), machine(name, 3, np.float64)
    d = np.random.default_rng(2).normal(size=X.shape[0])
    found, dense = gradient(params, X, d), X.toarray()
    expected = sum(d[i] * slopes(params, dense[i]) for i in range(len(d)))
    np.testing.assert_allclose(found.V, expected[found.features], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(found.w, (dense.T @ d)[found.features], rtol=1e-12)
    assert found.w0 == pytest.approx(d.sum())
    flat = X.copy()
    for p in range(X.nnz):  # linear in each value too
        ends = []
        for step in (0.5, -0.5):
            flat.data[:] = X.data
            flat.data[p] += step
            ends.append(float(brute_force(params, flat) @ d))
        assert found.data[p] == pytest.approx(ends[0] - ends[1], rel=1e-8, abs=1e-8)
    if found.field_weights is not None:
        for f, g in ((0, 1), (1, 3), (0, 0)):
            ends = []
            for step in (0.5, -0.5):
                r = params.field_weights.copy()
                r[f, g] += step
                r[g, f] = r[f, g]
                ends.append(float(brute_force(replace(params, field_weights=r), X) @ d))
            both = found.field_weights[f, g] + (found.field_weights[g, f] if f != g else 0)
            assert both == pytest.approx(ends[0] - ends[1], rel=1e-8, abs=1e-8)


@pytest.mark.parametrize("isa_number", ISAS)
@pytest.mark.parametrize("order", (2, 3, 4, 5))
@pytest.mark.parametrize("shared", (False, True))
def test_gradients_in_float32_stand_one_large_value(
    order: int, shared: bool, isa_number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "ISA", isa_number)
    rng, family = np.random.default_rng(order), Family("anova", order, shared)
    w, V = rng.normal(size=20), rng.normal(0, 0.5, (20, family.blocks * 8))
    single = FMParams(0.0, w.astype(np.float32), V.astype(np.float32), family)
    double = FMParams(0.0, single.w.astype(np.float64), single.V.astype(np.float64), family)
    x = rng.normal(size=(1, 20)).astype(np.float32)
    x[0, 7] = 30
    exact, found = (gradient(p, x.astype(p.dtype), np.ones(1)) for p in (double, single))
    for one, other in ((found.V, exact.V), (found.data, exact.data)):
        assert np.abs(one - other).max() <= 1e-4 * np.abs(other).mean()


@pytest.mark.parametrize("apart", (False, True))
def test_members_that_are_the_pairwise_machine(apart: bool) -> None:
    X, rng = rows_of(apart=apart), np.random.default_rng(5)
    w, V = rng.normal(size=N), rng.normal(size=(N, 4))
    plain, d = FMParams(0.2, w, V), rng.normal(size=X.shape[0])
    ones = np.ones((N_FIELDS, N_FIELDS))
    for same in (
        FMParams(0.2, w, V, Family("anova", 2)),
        FMParams(0.2, w, V, Family("anova", 2, True)),
        FMParams(0.2, w, np.tile(V, (1, N_FIELDS)), MEMBERS["ffm"]),
        FMParams(0.2, w, V, MEMBERS["fwfm"], ones),
    ):
        np.testing.assert_allclose(score(same, X), score(plain, X), rtol=1e-11, atol=1e-11)
        one, other = gradient(same, X, d), gradient(plain, X, d)
        g = one.V.reshape(len(one.V), -1, 4).sum(axis=1)  # all blocks of a feature move as one
        np.testing.assert_allclose(g, other.V, rtol=1e-10, atol=1e-10)
        np.testing.assert_allclose(one.data, other.data, rtol=1e-10, atol=1e-10)
    own = FMParams(0.2, w, np.tile(V, (1, 2)), Family("anova", 3))
    np.testing.assert_allclose(score(own, X), score(FMParams(0.2, w, V, Family("anova", 3, True)), X), rtol=1e-11)


@pytest.mark.parametrize("name", MEMBERS)
def test_two_sides_make_the_score(name: str) -> None:
    params, X = machine(name, 4, np.float64), rows_of((N,) * 6).toarray()
    users, items = X.copy(), X.copy()
    users[:, 1::2], items[:, ::2] = 0, 0
    users[0], items[1] = 0, 0
    (b_u, u), (b_i, i) = represent(params, users, items)
    expected = np.array([[score(params, (a + b)[None])[0] for b in items] for a in users])
    np.testing.assert_allclose(params.w0 + b_u[:, None] + b_i + u @ i.T, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", FEW)
def test_bits_do_not_depend_on_threads(name: str) -> None:
    X = sp.vstack([rows_of((N, 3, 5, 7) * 500, seed=s) for s in range(2)], format="csr").astype(np.float32)
    params, d = machine(name, 8), np.random.default_rng(0).normal(size=X.shape[0]).astype(np.float32)
    base, g = score(params, X, n_threads=1), gradient(params, X, d, n_threads=1)
    for threads in (2, 3):
        assert (score(params, X, n_threads=threads) == base).all()
        other = gradient(params, X, d, n_threads=threads)
        assert (other.V == g.V).all()
        assert (other.data == g.data).all()
        assert g.field_weights is None or (other.field_weights == g.field_weights).all()


# ---- training, replayed

SOLVERS = {
    "sgd": SGD(max_iter=2, learning_rate=0.05),
    "adagrad": AdaGrad(max_iter=2, learning_rate=0.1, batch_size=1),
    "rowwise": AdaGrad(max_iter=2, learning_rate=0.1, batch_size=1, rowwise=True),
    "adam": Adam(max_iter=2, learning_rate=0.02),
    "ftrl": FTRL(max_iter=2, learning_rate=0.1),
}


def by_hand(problem: Any, solver: Any, name: str) -> tuple[reference.Training, dict[tuple[int, int], reference.Vector]]:
    """Sample after sample in float64: gradients of all parameters by differences of the definition, then the steps."""
    family, k = MEMBERS[name], problem.n_factors
    at = started(problem, solver, np.ones(N))
    scale = reference.scale(problem.rows.indptr, problem.rows.data, problem.weight)
    V = init(N, k, init_std=problem.init_std, seed=problem.seed, dtype=np.float64, family=family).V / scale**0.5
    at.factors = [reference.Vector(each, at.steps.rate, at.steps.epsilon) for each in V]
    pairs = {}
    steps = replace(at.steps, name="adagrad") if at.steps.name in ("rowwise", "ftrl") else at.steps
    for f in range(N_FIELDS if name == "fwfm" else 0):
        for g in range(f, N_FIELDS):
            pairs[f, g] = reference.Vector(1.0, at.steps.rate, at.steps.epsilon)
    strength = np.repeat(problem.l2_of_blocks or [1.0] * family.blocks, k) * problem.l2_factors
    dense = problem.rows.matrix().toarray().astype(np.float64)
    for epoch in range(1, solver.max_iter + 1):
        for batch in schedule(problem, solver, epoch):
            (i,) = batch
            s = 1.0 if problem.weight is None else float(problem.weight[i])
            if s == 0:
                continue
            r = np.zeros((N_FIELDS, N_FIELDS))
            for (f, g), own in pairs.items():
                r[f, g] = r[g, f] = own.theta
            now = FMParams(at.w0, at.w, np.array([v.theta for v in at.factors]), family, r if pairs else None)
            d = s * reference.loss(problem.loss, float(problem.y[i]), brute_force_f64(now, dense[i]))[1]
            g_V, g_pairs = d * slopes(now, dense[i]), {}
            here = {FIELDS[j] for j in np.flatnonzero(dense[i])}
            for f, g in pairs:
                if f in here and g in here:
                    moved = []
                    for step in (0.5, -0.5):
                        other = r.copy()
                        other[f, g] += step
                        other[g, f] = other[f, g]
                        moved.append(brute_force_f64(replace(now, field_weights=other), dense[i]))
                    g_pairs[f, g] = d * (moved[0] - moved[1])
            at.bias.step(at.steps, d, linear=True)
            for j in np.flatnonzero(dense[i]):
                at.linear[j].step(
                    at.steps, d * dense[i, j] + s * problem.l2_linear * now.w[j], linear=True, l1=at.steps.l1
                )
                at.factors[j].step(at.steps, g_V[j] + s * strength * now.V[j], linear=False)
            for pair, g_r in g_pairs.items():
                drawn = s * PAIR_SHARE * problem.l2_factors * (pairs[pair].theta - 1)
                pairs[pair].step(steps, g_r + drawn, linear=True)
    return at, pairs


@pytest.mark.parametrize("name", FEW)
@pytest.mark.parametrize("how", SOLVERS)
def test_training_is_that_of_the_definition(name: str, how: str) -> None:
    rng, family = np.random.default_rng(3), MEMBERS[name]
    dense = rng.normal(size=(12, N)) * (rng.random((12, N)) < 0.4)
    problem = replace(
        problem_of(),
        rows=check_csr(dense),
        y=rng.normal(size=12),
        weight=np.array([1, 2, 0, 1, 1, 0.5, 1, 1, 1, 1.5, 1, 2]),
        n_factors=2,
        family=family,
        l2_prior=0.0,
        l2_linear=0.02,
        l2_factors=0.05,
        l2_of_blocks=None if family.blocks == 1 else [1.0 + b for b in range(family.blocks)],
        init_std=0.3,
    )
    found, _ = solved(problem, SOLVERS[how])
    expected, pairs = by_hand(problem, SOLVERS[how], name)
    assert found.w0 == pytest.approx(expected.w0, rel=1e-9)
    used = np.flatnonzero(np.abs(dense[problem.weight > 0]).sum(axis=0))
    np.testing.assert_allclose(found.w[used], expected.w[used], rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(found.V[used], expected.V[used], rtol=1e-8, atol=1e-10)
    for (f, g), own in pairs.items():
        assert found.field_weights[f, g] == pytest.approx(float(own.theta), rel=1e-8)


# ---- the estimators

LEVELS = 12


def cells(n: int = 4000, seed: int = 0) -> tuple[Any, np.ndarray, np.ndarray]:
    """Rows of one of twelve levels in each of four fields; their columns; the fields of the columns."""
    rng = np.random.default_rng(seed)
    columns = rng.integers(0, LEVELS, (n, 4)) + LEVELS * np.arange(4)
    X = sp.csr_array((np.ones(4 * n, np.float32), columns.ravel(), np.arange(0, 4 * n + 1, 4)), shape=(n, 4 * LEVELS))
    return X, columns, np.repeat(np.arange(4), LEVELS)


def everyone(fields: Any = None, **options: Any) -> dict[str, Any]:
    options = {"random_state": 0, "solver": AdaGrad(max_iter=5, batch_size=1, learning_rate=0.1)} | options
    return {
        "order 3": FMRegressor(3, order=3, **options),
        "order 4 shared": FMRegressor(3, order=4, share_factors=True, **options),
        "ffm": FFMRegressor(2, fields=fields, **options),
        "fwfm": FwFMRegressor(3, fields=fields, **options),
    }


@pytest.mark.parametrize("name", everyone())
def test_estimators_end_to_end(name: str, tmp_path: Path) -> None:
    """Bits at any number of threads, weights, saving, watching, resuming, warm starts."""
    X, columns, fields = cells(600)
    y = np.sin(columns.sum(axis=1))
    model = everyone(fields)[name].fit(X, y)
    again = everyone(fields, n_threads=2)[name].fit(X, y)
    assert (again.factors_ == model.factors_).all()
    assert (again.predict(X) == model.predict(X)).all()
    model.save(tmp_path / "model")
    loaded = load(tmp_path / "model")
    assert (loaded.predict(X) == model.predict(X)).all()
    assert type(loaded) is type(model)
    assert loaded.get_params()["n_factors"] == model.n_factors

    weight = np.ones(600)
    weight[::3] = 0
    light = everyone(fields)[name].fit(X, y, sample_weight=5 * weight)
    np.testing.assert_array_equal(light.factors_, everyone(fields)[name].fit(X, y, sample_weight=weight).factors_)

    watched = everyone(fields, early_stopping=True)[name].fit(X[:500], y[:500], eval_set=(X[500:], y[500:]))
    losses = [record["eval_loss"] for record in watched.history_]
    raw = watched.set_params(clip=False).predict(X[500:])
    assert np.mean((y[500:] - raw) ** 2) / 2 == pytest.approx(min(losses), rel=1e-4)  # the best pass, not the last

    path = tmp_path / "checkpoint"
    options = {"batch_size": 1, "learning_rate": 0.1, "average": 3}
    whole = everyone(fields, solver=AdaGrad(max_iter=6, **options))[name].fit(X, y)
    everyone(fields, solver=AdaGrad(max_iter=3, checkpoint=path, **options))[name].fit(X, y)
    rest = everyone(fields, solver=AdaGrad(max_iter=6, **options))[name].fit(X, y, resume=path)
    assert (rest.factors_ == whole.factors_).all()
    if name == "fwfm":
        assert (rest.field_weights_ == whole.field_weights_).all()
        assert (rest.field_weights_ == rest.field_weights_.T).all()

    warm = everyone(fields, warm_start=True)[name].fit(X, y)
    before = warm.history_[0]["loss"]
    assert warm.fit(X, y).history_[5]["loss"] < before  # the history goes on too


@pytest.mark.parametrize("kind", (FFMClassifier, FwFMClassifier, FMClassifier))
def test_classifiers(kind: Any, tmp_path: Path) -> None:
    X, columns, fields = cells(1500)
    of = {"order": 3} if kind is FMClassifier else {"fields": fields}
    label = np.array(["no", "yes", "often"])[(columns[:, 0] + columns[:, 1]) % 3]
    model = kind(4, random_state=0, solver=AdaGrad(max_iter=15, learning_rate=0.3, batch_size=1), init_std=0.1, **of)
    model.fit(X, label)
    assert model.score(X, label) > 0.9
    p = model.predict_proba(X)
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-6)
    model.save(tmp_path / "model")
    assert (load(tmp_path / "model").predict_proba(X) == p).all()
    assert model.factors_.shape[:2] == (3, X.shape[1])
    if kind is FwFMClassifier:
        assert model.field_weights_.shape == (3, 4, 4)


@parametrize_with_checks(
    [FMRegressor(order=3), FMClassifier(order=3), FFMRegressor(), FFMClassifier(), FwFMRegressor(), FwFMClassifier()],
    expected_failed_checks=lambda estimator: SAMPLING,
)
@pytest.mark.filterwarnings("ignore:the fit is worse than a constant")
def test_scikit_learn_conventions_hold(estimator: Any, check: Any) -> None:
    check(estimator)


def test_only_the_member_of_a_truth_finds_it() -> None:
    X, columns, fields = cells(20_000)
    rng, noise = np.random.default_rng(1), 0.2
    A = rng.normal(0, 0.7, (4 * LEVELS, 4, 2))
    V = rng.normal(0, 0.8, (4 * LEVELS, 3))
    three = sum(np.prod(V[np.delete(columns, out, axis=1)], axis=1).sum(-1) for out in range(4))
    pairs = [(f, g) for f in range(4) for g in range(f)]
    aware = sum((A[columns[:, f], g] * A[columns[:, g], f]).sum(-1) for f, g in pairs)
    weighted = sum(
        r * (V[columns[:, f]] * V[columns[:, g]]).sum(-1) for r, (f, g) in zip((2, -2, 0, 1, -1, 0), pairs, strict=True)
    )
    train, test = slice(0, 18_000), slice(18_000, None)

    def error(model: Any, y: Any) -> float:
        model.set_params(solver=AdaGrad(max_iter=25, batch_size=1), init_std=0.1, l2_factors=0.0005)
        return metrics.rmse(y[test], model.fit(X[train], y[train]).predict(X[test]))

    members = everyone(fields)
    plain = FMRegressor(6, random_state=0)
    y = three + rng.normal(0, noise, len(three))
    assert error(members["order 3"].set_params(n_factors=6), y) < 1.1 * noise
    assert error(plain, y) > 2 * noise
    y = aware + rng.normal(0, noise, len(aware))
    assert error(members["ffm"], y) < 1.1 * noise
    assert error(plain, y) > 2 * noise
    y = weighted + rng.normal(0, noise, len(weighted))
    assert error(members["fwfm"].set_params(n_factors=6), y) < 1.1 * noise
    assert error(plain, y) > 1.2 * noise


def frame(n: int = 900, seed: int = 0) -> tuple[pd.DataFrame, np.ndarray]:
    rng = np.random.default_rng(seed)
    user, item = rng.integers(0, 20, n), rng.integers(0, 15, n)
    genres = [("a|b", "b", "c|a")[i % 3] for i in item]
    age = np.array(["young", "old"])[user % 2]
    df = pd.DataFrame({"user": [f"u{u}" for u in user], "age": age, "item": [f"i{i}" for i in item], "genres": genres})
    return df, np.sin(user + 2.0 * item) + 0.3 * (item % 3)


ENCODER = FrameEncoder({"user": OneHot(), "age": OneHot(), "item": OneHot(), "genres": MultiHot("|")})


@pytest.mark.parametrize("name", everyone())
def test_frames(name: str) -> None:
    """recommend is the order of the scores; explain adds up to them; new levels get columns by both ways."""
    df, y = frame()
    model = everyone(encoder=ENCODER)[name].fit(df, y)
    items = df.drop_duplicates("item")[["item", "genres"]]
    users = df.drop_duplicates("user")[["user", "age"]].head(4)
    top = model.recommend(users, items, user="user", item="item", k=5)
    for who in users["user"]:
        rows = users[users["user"] == who].merge(items, how="cross")
        scores = model.set_params(clip=False).predict(rows)
        best = rows["item"].to_numpy()[np.argsort(-scores, kind="stable")[:5]]
        assert top.loc[top["user"] == who, "item"].tolist() == best.tolist()
    parts = model.explain(df.head(7))
    np.testing.assert_allclose(parts.groupby("row")["value"].sum(), model.predict(df.head(7)), atol=1e-5)

    newer, more = frame(60, seed=5)
    newer["user"] = "new" + newer["user"].str[1:].astype(int).mod(3).astype(str)
    folded = model.fold_in(newer, more)
    assert folded.factors_.shape[0] == model.factors_.shape[0] + 3
    known = df.head(50)
    np.testing.assert_allclose(folded.predict(known), model.predict(known), rtol=1e-6)
    assert np.mean((folded.predict(newer) - more) ** 2) < np.mean((model.predict(newer) - more) ** 2)
    pieces = everyone(encoder=ENCODER)[name].partial_fit(df, y)
    losses = []
    for _ in range(5):
        pieces.partial_fit(newer, more)
        losses.append(np.mean((pieces.predict(newer) - more) ** 2))
    assert losses[-1] < losses[0]
    assert pieces.factors_.shape[0] == folded.factors_.shape[0]


@pytest.mark.parametrize("kind", (FFMRegressor, FwFMRegressor))
def test_the_fields_of_a_frame_are_its_columns(kind: Any) -> None:
    df, y = frame()
    model = kind(2, encoder=ENCODER, random_state=0).fit(df, y)
    X = ENCODER.fit(df, y).transform(df)
    by_hand = kind(2, fields=ENCODER.fields_, random_state=0, l2_factors=model.l2_factors).fit(X, y)
    np.testing.assert_allclose(model.predict(df), by_hand.predict(X), rtol=1e-6, atol=1e-6)
    assert (model.fields_ == ENCODER.fields_).all()


def test_normalised_rows() -> None:
    X, columns, fields = cells(400)
    X = (X * sp.csr_array(np.random.default_rng(0).uniform(0.5, 2, (1, X.shape[1])))).tocsr().astype(np.float32)
    y = np.cos(columns.sum(axis=1))
    length = np.sqrt(X.multiply(X).sum(axis=1))
    by_hand = everyone(fields)["ffm"].fit(sp.csr_array(X / length[:, None]), y)
    model = everyone(fields)["ffm"].set_params(normalize=True).fit(X, y)
    np.testing.assert_allclose(
        model.predict(X), by_hand.predict(sp.csr_array(X / length[:, None])), rtol=1e-4, atol=1e-5
    )
    df, z = frame()
    model = FFMRegressor(2, normalize=True, encoder=ENCODER).fit(df, z)
    with pytest.raises(ValueError, match="normalize"):
        model.recommend(df[["user", "age"]], df[["item", "genres"]], user="user", item="item")


def test_order_one_is_the_linear_model() -> None:
    df, y = frame()
    one, none = (FMRegressor(k, order=o, encoder=ENCODER, random_state=0).fit(df, y) for k, o in ((5, 1), (0, 2)))
    assert (one.predict(df) == none.predict(df)).all()
    assert one.factors_.shape[1] == 0


# ---- what is refused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"order": 0}, "order must be"),
        ({"order": 13}, "order must be at most 12, got 13"),
        ({"order": 2.5}, "order must be"),
        ({"order": 3, "share_factors": 1}, "share_factors must be True or False"),
        ({"order": 3, "solver": "als"}, "order=3 needs a solver of gradients"),
        ({"order": 3, "solver": "mcmc"}, "order=3 needs a solver of gradients"),
        ({"order": 3, "solver": AdaGrad(batch_size=64)}, "batch_size"),
        ({"order": 3, "solver": AdaGrad(batch_size=1, rowwise=True, storage="bf16")}, "bf16"),
    ],
)
def test_orders_that_are_refused(options: dict[str, Any], message: str) -> None:
    model = FMRegressor(2, **options)
    with pytest.raises((ValueError, TypeError), match=message):
        model.fit(np.eye(4), np.arange(4.0))
    with pytest.raises(NotFittedError):
        model.predict(np.eye(4))


@pytest.mark.parametrize("kind", (FFMRegressor, FFMClassifier, FwFMRegressor, FwFMClassifier))
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fields": [0, 1]}, "fields"),
        ({"fields": [0, 1, 2, -1]}, "fields"),
        ({"fields": [0, 1, 2, 0.5]}, "fields"),
        ({"solver": "als"}, "needs a solver of gradients"),
        ({"solver": AdaGrad(batch_size=64)}, "batch_size"),
    ],
)
def test_fields_that_are_refused(kind: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        kind(2, **options).fit(np.eye(4), [0, 1, 0, 1])


def test_a_field_each_for_thousands_of_columns_is_refused() -> None:
    with pytest.raises(ValueError, match="1001 fields are more than 1000: give fields="):
        FFMRegressor(2).fit(sp.eye_array(1001, format="csr"), np.arange(1001.0))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Family("cubic"),
        lambda: Family("anova", 1),
        lambda: Family("anova", 13),
        lambda: Family("ffm"),
        lambda: Family("ffm", fields=np.array([0, 3], np.int32), n_fields=2),
        lambda: Family("fwfm", fields=np.array([0, 1]), n_fields=2),
        lambda: FMParams(0.0, np.zeros(3), np.zeros((3, 5)), Family("anova", 3)),
        lambda: FMParams(0.0, np.zeros(3), np.zeros((3, 4)), Family("ffm", fields=np.zeros(2, np.int32), n_fields=2)),
        lambda: FMParams(0.0, np.zeros(N), np.zeros((N, 4)), MEMBERS["fwfm"]),
        lambda: FMParams(0.0, np.zeros(N), np.zeros((N, 4)), MEMBERS["fwfm"], np.arange(25.0).reshape(5, 5)),
        lambda: FMParams(0.0, np.zeros(N), np.zeros((N, 4)), field_weights=np.ones((5, 5))),
    ],
)
def test_machines_that_do_not_fit_together(wrong: Any) -> None:
    with pytest.raises(ValueError):
        wrong()
