"""Coordinate-wise passes: every conditional is the definition's, however the rows are taken apart."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.special import log_ndtr, ndtri
from scipy.stats import kstest, truncnorm

from sparsefm._kernels import dispatch, gibbs
from sparsefm.model import init
from sparsefm.solvers import DivergenceError, design, sweep
from sparsefm.solvers.design import MOST_SIDES, Design
from sparsefm.solvers.sweep import Prior, Sweep
from sparsefm.validation import RelationBlock, Rows, check_csr, check_relations

ISAS = range(dispatch.ISA + 1)
RANKS = (0, 1, 3, 8, 15, 16, 20, 35)
BOTH_TYPES = pytest.mark.parametrize("dtype", [np.float64, np.float32])
CLOSE = {np.float64: 1e-9, np.float32: 3e-4}  # relative to the largest parameter


@pytest.fixture(params=["in turn", "side by side"])
def solved(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How the columns of runs are solved for, of which all are short here."""
    monkeypatch.setattr(design, "_WORTH_SHARING", 0 if request.param == "side by side" else 1 << 40)
    return str(request.param)


@pytest.fixture
def side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every run stays one."""
    monkeypatch.setattr(design, "_WORTH_SHARING", 0)


EITHER_WAY = pytest.mark.usefixtures("solved")


def one_hot(levels: np.ndarray, n_levels: int) -> np.ndarray:
    """Rows of level −1 have none."""
    return (levels[:, None] == np.arange(n_levels)) * 1.0


def people(n: int = 150, seed: int = 0, *, missing: bool = False) -> list[np.ndarray]:
    """Columns of users, what is said of them (an age, an income), films, their genres, and of the rows themselves.

    The last user and the last film never come; with missing=True some rows have no user, nor what is said of him.
    """
    rng = np.random.default_rng(seed)
    user, film = rng.integers(0, 14, n), rng.integers(0, 10, n)
    age, income, genres = rng.integers(0, 3, 14), rng.normal(size=14), rng.random((10, 4)) < 0.4
    known = rng.random(n) < 0.8 if missing else np.ones(n, bool)
    user = np.where(known, user, -1)
    return [
        one_hot(user, 15),
        one_hot(np.where(known, age[user], -1), 3),
        np.where(known, income[user], 0)[:, None],
        one_hot(film, 11),
        genres[film] / np.sqrt(np.maximum(1, genres[film].sum(axis=1)))[:, None],
        rng.normal(size=(n, 2)),
        (rng.random((n, 3)) < 0.3) * 1.0,
    ]


def flat(parts: list[np.ndarray], dtype: Any = np.float64) -> Rows:
    return check_csr(np.hstack(parts).astype(dtype))


def prior_of(n_features: int, k: int, seed: int = 0) -> Prior:
    rng = np.random.default_rng(seed)
    return Prior(
        0.3 * rng.normal(size=(2, k + 1)),
        1 + rng.random((2, k + 1)),
        (np.arange(n_features) % 2).astype(np.int32),
        1 + rng.random(n_features),
    )


def begin(
    X: Any, k: int = 5, *, weighted: bool = True, sides: bool = True, n_threads: int = 1, seed: int = 0, w0: float = 0.3
) -> Sweep:
    """A pass about to begin, on random targets that belong to the rows as they came."""
    rng = np.random.default_rng(seed + 100)
    y = rng.normal(size=X.n_rows).astype(X.dtype)
    weight = (0.5 + rng.random(X.n_rows)).astype(X.dtype)
    of = Design.of(X, k, sides=sides)
    found = Sweep(of, k, y[of.order], weight[of.order] if weighted else None, n_threads)
    first = init(X.n_features, k, init_std=0.5, seed=seed, dtype=X.dtype)
    rng.shuffle(first.w)
    found.start(first)
    found.w0 = w0
    return found


def in_order(of: Design) -> list[int]:
    """The columns as a pass comes to them."""
    runs = [run for side in of.sides for run in side.runs] + of.rest_runs
    return [j for run in runs for j in range(run.start, run.stop)]


def scores_of(X: np.ndarray, w0: float, w: np.ndarray, V: np.ndarray) -> np.ndarray:
    """Σ over pairs of columns, without the trick."""
    pairs = np.triu(V @ V.T, 1)
    return w0 + X @ w + np.einsum("ij,jl,il->i", X, pairs, X)


def conditional(
    X: np.ndarray, y: np.ndarray, s: np.ndarray, w0: float, theta: np.ndarray, j: int, prior: Prior, alpha: float
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and precision of column j's factors and weight given all others; theta (n_features, k + 1)."""
    others = theta.copy()
    others[j] = 0
    r = y - scores_of(X, w0, others[:, -1], others[:, :-1])
    h = X[:, [j]] * np.hstack([X @ others[:, :-1], np.ones((len(X), 1))])
    strength = 1 if prior.strength is None else prior.strength[j]
    own = strength * prior.precision[prior.group[j]]
    precision = alpha * h.T @ (s[:, None] * h) + np.diag(own)
    return np.linalg.solve(precision, alpha * h.T @ (s * r) + own * prior.mean[prior.group[j]]), precision


def replay(state: Sweep, X: np.ndarray, prior: Prior, alpha: float) -> tuple[np.ndarray, np.ndarray]:
    """One pass to the modes, column after column in float64: theta (n_features, k + 1) and the gains."""
    order, k = state.design.order, state.k
    X, y = X[order], state.target.astype(np.float64)
    s = np.ones(len(y)) if state.weight is None else state.weight.astype(np.float64)
    theta, gain = state.theta[:, : k + 1].astype(np.float64), np.zeros(X.shape[1])
    for j in in_order(state.design):
        mode, precision = conditional(X, y, s, state.w0, theta, j, prior, alpha)
        gain[j] = (mode - theta[j]) @ precision @ (mode - theta[j])
        theta[j] = mode
    return theta, gain


def assert_close(found: np.ndarray, expected: np.ndarray, tol: float) -> None:
    np.testing.assert_allclose(found, expected, rtol=0, atol=tol * max(1.0, np.abs(expected).max(initial=0)))


# ------------------------------------------------------------------------------------------ random numbers


def test_normal_quantiles() -> None:
    p = np.concatenate([10.0 ** -np.arange(1, 301), np.linspace(1e-3, 1 - 1e-3, 2001), 1 - 10.0 ** -np.arange(1, 16)])
    found = np.empty_like(p)
    gibbs.normal_quantiles(p, found)
    np.testing.assert_allclose(found, ndtri(p), rtol=1e-13, atol=1e-16)
    assert (np.diff(found[np.argsort(p)]) >= 0).all()


def latents(score: np.ndarray, level: np.ndarray, cuts: list[float], key: int = 7) -> np.ndarray:
    out = np.full(len(score), np.nan, score.dtype)
    rows = np.arange(len(score), dtype=np.int64)
    for start, stop in ((0, len(score) // 3), (len(score) // 3, len(score))):  # any cut gives the same
        gibbs.latents(out, score, level.astype(np.int32), np.array(cuts), rows, key, start, stop)
    return out


@pytest.mark.parametrize(
    ("score", "lo", "hi"),
    [
        (0.0, -np.inf, np.inf),
        (0.3, -np.inf, 0.0),
        (-0.4, 0.0, np.inf),
        (2.0, -1.0, 0.5),
        (-9.0, 0.0, np.inf),
        (9.0, -np.inf, 0.0),
        (-30.0, 0.0, np.inf),
        (12.0, -0.5, 0.0),
        (0.0, -0.01, 0.02),
    ],
)
def test_latents_are_truncated_normals(score: float, lo: float, hi: float) -> None:
    n = 20_000
    drawn = latents(np.full(n, score), np.ones(n), [-np.inf, lo, hi, np.inf])
    assert ((drawn >= lo) & (drawn <= hi)).all()
    assert kstest(drawn, truncnorm(lo - score, hi - score, loc=score).cdf).pvalue > 1e-3
    other = latents(np.full(n, score), np.ones(n), [-np.inf, lo, hi, np.inf], key=8)
    assert abs(np.corrcoef(drawn, other)[0, 1]) < 0.04


@BOTH_TYPES
def test_latents_far_out_are_finite_and_inside(dtype: Any) -> None:
    score = np.repeat(np.array([-1000.0, -40, -39, -38.5, -37, -8, 0, 8, 37, 38.5, 39, 40, 1000], dtype), 200)
    cuts = [-np.inf, -0.5, 0.5, np.inf]
    for level in range(3):
        drawn = latents(score, np.full(len(score), level), cuts)
        assert np.isfinite(drawn).all()
        slack = np.abs(score) * np.finfo(dtype).eps * 2
        assert (drawn >= cuts[level] - slack).all()
        assert (drawn <= cuts[level + 1] + slack).all()
    for value in (38.5, 40, 1000):  # the tail is an exponential, of mean 1 / distance
        drawn = latents(np.full(5000, float(value)), np.ones(5000), cuts)
        np.testing.assert_allclose(0.5 - drawn.mean(), 1 / (value - 0.5), rtol=0.06, atol=1e-6)


def log_likelihood(score: np.ndarray, level: np.ndarray, inner: np.ndarray) -> float:
    cuts = np.array([-np.inf, *inner, np.inf])
    lo, hi = cuts[level] - score, cuts[level + 1] - score
    turned = lo > 0  # the nearer tail
    lo, hi = np.where(turned, -hi, lo), np.where(turned, -lo, hi)
    return float((log_ndtr(hi) + np.log1p(-np.exp(log_ndtr(lo) - log_ndtr(hi)))).sum())


@BOTH_TYPES
@pytest.mark.parametrize("inner", [[0.2], [-1.0, 0.1, 0.4, 2.0]])
def test_slopes_of_the_cuts(dtype: Any, inner: list[float]) -> None:
    rng = np.random.default_rng(0)
    n, m, size = 57, len(inner), 10
    score = (2 * rng.normal(size=n)).astype(dtype)
    level = rng.integers(0, m + 1, n).astype(np.int32)
    sums = np.full((6, 1 + 3 * m), np.nan)
    for start, stop in ((0, 2), (2, 6)):
        gibbs.cut_slopes(sums, score, level, np.array([-np.inf, *inner, np.inf]), size, start, stop)
    for piece in range(6):
        rows = slice(piece * size, (piece + 1) * size)
        expected = log_likelihood(score[rows].astype(float), level[rows], np.array(inner))
        np.testing.assert_allclose(sums[piece, 0], expected, rtol=1e-10)

    def at(step: np.ndarray) -> float:
        return log_likelihood(score.astype(float), level, np.array(inner) + step)

    value, gradient, diagonal, above = np.split(sums.sum(axis=0), [1, 1 + m, 1 + 2 * m])
    np.testing.assert_allclose(value, at(np.zeros(m)), rtol=1e-10)
    e, small = np.eye(m), 1e-4
    slopes = [(at(small * e[i]) - at(-small * e[i])) / (2 * small) for i in range(m)]
    np.testing.assert_allclose(gradient, slopes, rtol=1e-5, atol=1e-5)
    curves = [(at(small * e[i]) - 2 * at(0 * e[i]) + at(-small * e[i])) / small**2 for i in range(m)]
    np.testing.assert_allclose(diagonal, curves, rtol=1e-4, atol=1e-4)
    for i in range(m - 1):
        a, b = small * e[i], small * e[i + 1]
        mixed = (at(a + b) - at(a - b) - at(b - a) + at(-a - b)) / (4 * small**2)
        np.testing.assert_allclose(above[i], mixed, rtol=1e-4, atol=1e-4)


def test_improbable_levels_have_finite_slopes() -> None:
    score = np.array([-1e3, -50.0, 50.0, 1e3])
    for level in range(3):
        sums = np.empty((1, 7))
        of = np.full(4, level, np.int32)
        gibbs.cut_slopes(sums, score, of, np.array([-np.inf, 0.0, 1.0, np.inf]), 4, 0, 1)
        assert np.isfinite(sums).all()


# ------------------------------------------------------------------------------------------ conditionals


@EITHER_WAY
@BOTH_TYPES
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("k", RANKS)
def test_a_pass_is_the_definition(k: int, weighted: bool, dtype: Any) -> None:
    parts = people(missing=True)
    rows = flat(parts, dtype)
    state = begin(rows, k, weighted=weighted)
    prior = prior_of(rows.n_features, k)
    theta, gain = replay(state, rows.matrix().toarray().astype(np.float64), prior, 1.7)
    first = in_order(state.design)[0]
    state.run(prior, 1.7, None)
    assert_close(state.theta[first, : k + 1], theta[first], CLOSE[dtype])
    assert_close(state.theta[:, : k + 1], theta, CLOSE[dtype])
    assert_close(state.gain, gain, 10 * CLOSE[dtype])
    assert not state.theta[:, k + 1 :].any()  # lanes of no factor


def test_short_neighbours_are_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = people(60)
    of = Design.of(flat(parts), 4)
    assert [(run.start, run.stop, run.in_turn) for run in of.sides[0].runs] == [(0, 19, True)]
    assert [(run.start, run.stop, run.in_turn) for run in of.rest_runs] == [(34, 39, True)]
    monkeypatch.setattr(design, "SEGMENT", 59)  # entries of a run of ones in every row
    of = Design.of(flat(parts), 4, sides=False)
    assert (0, 15, False) in [(run.start, run.stop, run.in_turn) for run in of.rest_runs]
    assert all(len(run.of) == run.stop - run.start for run in of.rest_runs if run.in_turn)
    assert in_order(of) == list(range(39))


@pytest.mark.parametrize("sides", [False, True])
def test_values_of_users_other_than_one(sides: bool) -> None:
    rng = np.random.default_rng(1)
    user, film = rng.integers(0, 6, 80), rng.integers(0, 5, 80)
    rows = flat([one_hot(user, 6) * rng.normal(size=6)[user][:, None], 0.5 * one_hot(film, 5)])
    state = begin(rows, 4, sides=sides)
    assert [side.alone for side in state.design.sides] == [True, True] * sides
    assert all(side.values is not None for side in state.design.sides)
    theta, gain = replay(state, rows.matrix().toarray(), prior_of(11, 4), 0.8)
    returned = state.run(prior_of(11, 4), 0.8, None)
    assert_close(state.theta[:, :5], theta, 1e-10)
    assert_close(state.gain, gain, 1e-10)
    if sides:
        np.testing.assert_allclose(returned, state.residuals(), rtol=1e-9, atol=1e-9)


def test_without_strength_it_is_one() -> None:
    rows = flat(people())
    found = []
    for strength in (None, np.ones(rows.n_features)):
        prior = prior_of(rows.n_features, 3)
        prior.strength = strength
        state = begin(rows, 3)
        state.run(prior, 1.0, 5)
        found.append(state.theta.copy())
    np.testing.assert_array_equal(*found)


@EITHER_WAY
@BOTH_TYPES
def test_draws_come_from_the_conditional(dtype: Any) -> None:
    k, n_draws = 2, 4000
    rows = flat([people(60)[part] for part in (0, 3)], dtype)
    state = begin(rows, k)
    start, prior = state.params(), prior_of(rows.n_features, k)
    dense = rows.matrix().toarray().astype(np.float64)[state.design.order]
    theta = state.theta[:, : k + 1].astype(np.float64)
    drawn = np.empty((n_draws, 15, k + 1))
    for key in range(n_draws):
        state.start(start)
        state.w0 = 0.3
        state.run(prior, 1.7, key + 1)
        drawn[key] = state.theta[:15, : k + 1]
    args = dense, state.target.astype(float), state.weight.astype(float), 0.3
    for j in (0, 7, 14):  # the last never comes: it is drawn from the prior
        mode, precision = conditional(*args, theta, j, prior, 1.7)
        root = np.linalg.cholesky(precision)
        white = (drawn[:, j] - mode) @ root
        assert np.abs(white.mean(axis=0)).max() < 4.5 / np.sqrt(n_draws)
        assert np.abs(white.T @ white / n_draws - np.eye(k + 1)).max() < 4.5 * np.sqrt(2 / n_draws)
        assert kstest(white.ravel(), "norm").pvalue > 1e-3
    columns = drawn.reshape(n_draws, -1)[:, : 3 * (k + 1)]
    apart = np.corrcoef(columns.T)[: k + 1, k + 1 :]  # columns of one run are drawn independently
    assert np.abs(apart).max() < 4.5 / np.sqrt(n_draws)


# ------------------------------------------------------------------------------------------ what a design finds


@pytest.mark.usefixtures("side_by_side")
def test_sides_and_what_follows_from_them() -> None:
    of = Design.of(flat(people()), 4)
    assert [side.n_entities for side in of.sides] == [15, 11]
    assert not any(side.alone for side in of.sides)
    of_user, of_film = ([(run.start, run.stop) for run in side.runs] for side in of.sides)
    assert of_user == [(0, 15), (15, 18), (18, 19)]
    assert of_film[0] == (19, 30)
    assert of_film[-1][1] == 34
    assert of.rest is not None
    assert of.rest_runs[0].start == 34
    assert sorted(in_order(of)) == list(range(of.n_features))


@pytest.mark.usefixtures("side_by_side")
def test_a_row_that_contradicts_is_seen() -> None:
    for part, column in ((1, 15), (2, 18)):
        parts = people()
        parts[part][77] = np.roll(parts[part][77], 1) if part == 1 else parts[part][77] + 1
        of = Design.of(flat(parts), 4)
        runs = [(run.start, run.stop) for run in of.sides[0].runs]
        assert (0, 15) in runs
        assert all(start != column for start, _ in runs)
        of_film = [run.start for run in of.sides[1].runs] if len(of.sides) > 1 else []
        assert column not in of_film


@pytest.mark.usefixtures("side_by_side")
def test_rows_without_a_user_are_an_entity() -> None:
    parts = people(missing=True)
    of = Design.of(flat(parts), 4)
    none = int((parts[0].sum(axis=1) == 0).sum())
    assert none > 0
    side = of.sides[0]
    assert side.n_entities == 16
    assert np.bincount(side.entities[0], minlength=16)[15] == none
    assert [(run.start, run.stop) for run in side.runs] == [(0, 15), (15, 18), (18, 19)]


def test_the_first_side_orders_the_rows() -> None:
    rows = flat(people())
    of = Design.of(rows, 4)
    np.testing.assert_array_equal(np.sort(of.order), np.arange(rows.n_rows))
    assert (np.diff(of.sides[0].entities[0]) >= 0).all()
    dense = rows.matrix().toarray()
    whole = np.zeros_like(dense)
    if of.rest is not None:
        whole += of.rest.matrix().toarray()
    for number, side in enumerate(of.sides):
        whole += side.columns.matrix().toarray()[of.sides[0].entities[number]]
        place = np.arange(rows.n_rows) if side.order is None else side.order
        np.testing.assert_array_equal(side.entities[number], np.sort(of.sides[0].entities[number]))
        np.testing.assert_array_equal(of.sides[0].entities[number][place], side.entities[number])
    np.testing.assert_array_equal(whole, dense[of.order])  # every entry is in one place


@EITHER_WAY
@pytest.mark.parametrize(
    "dense",
    [
        np.ones((1, 1)),
        np.array([[0.0, 2.0, 3.0]]),
        np.full((7, 1), -1.5),
        np.eye(6)[[0, 1, 2, 2, 1, 0, 5]],
        np.zeros((4, 3)),
        np.array([[0.0, 0, 0], [0, 1, 0], [0, 0, 0]]),
        np.random.default_rng(0).normal(size=(12, 4)),
    ],
    ids=["one by one", "one row", "one column", "one side", "nothing", "nearly nothing", "all rest"],
)
@pytest.mark.parametrize("sides", [False, True])
@pytest.mark.parametrize("k", [0, 4])
def test_odd_shapes(dense: np.ndarray, sides: bool, k: int) -> None:
    rows = check_csr(dense)
    state = begin(rows, k, sides=sides)
    prior = prior_of(rows.n_features, k)
    theta, _ = replay(state, dense, prior, 1.0)
    state.run(prior, 1.0, None)
    assert_close(state.theta[:, : k + 1], theta, 1e-10)
    first, second = state.residuals()
    r = state.target - scores_of(dense[state.design.order], state.w0, theta[:, k], theta[:, :k])
    assert_close(state.residual, r, 1e-10)
    np.testing.assert_allclose([first, second], [state.weight @ r, state.weight @ r**2], atol=1e-10)


@EITHER_WAY
def test_a_column_never_seen_goes_to_its_prior() -> None:
    rows = flat(people())
    prior = prior_of(rows.n_features, 4)
    for sides in (False, True):
        state = begin(rows, 4, sides=sides)
        state.run(prior, 1.0, None)
        for j in (14, 29):
            np.testing.assert_allclose(state.theta[j, :5], prior.mean[prior.group[j]], atol=1e-12)


# ------------------------------------------------------------------------------------------ one result


def passes(state: Sweep, n: int = 3, key: int | None = 100) -> np.ndarray:
    prior = prior_of(state.design.n_features, state.k)
    for t in range(n):
        state.run(prior, 1.5, None if key is None else key + t)
    return np.column_stack([state.theta, state.gain])


@EITHER_WAY
@BOTH_TYPES
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("k", [0, 1, 8, 14, 16, 35])
def test_sides_change_nothing(k: int, weighted: bool, dtype: Any) -> None:
    rows = flat(people(missing=True), dtype)
    one, other = (begin(rows, k, weighted=weighted, sides=sides) for sides in (False, True))
    assert (len(one.design.sides), len(other.design.sides)) == (0, 2)
    assert in_order(one.design) == in_order(other.design)
    assert_close(passes(other), passes(one), 10 * CLOSE[dtype])


@EITHER_WAY
@BOTH_TYPES
@pytest.mark.parametrize("k", [0, 5, 16])
def test_blocks_are_the_rows_they_stand_for(k: int, dtype: Any) -> None:
    rng = np.random.default_rng(3)
    n = 140
    user, film = rng.integers(0, 12, n), rng.integers(0, 9, n)
    own = np.hstack([one_hot(rng.integers(0, 3, n), 3), rng.normal(size=(n, 2))]).astype(dtype)
    of_user = np.hstack([np.eye(13), rng.normal(size=(13, 2)), one_hot(rng.integers(0, 3, 13), 3)]).astype(dtype)
    of_film = np.hstack([np.eye(9), (rng.random((9, 4)) < 0.5) / 2]).astype(dtype)
    given = check_relations([own, RelationBlock(user, of_user), RelationBlock(film, sp.csr_array(of_film))])
    assert given is not None
    np.testing.assert_array_equal(given.flat().matrix().toarray(), np.hstack([own, of_user[user], of_film[film]]))
    by_blocks = begin(given, k)
    order = in_order(by_blocks.design)
    assert not any(side.alone for side in by_blocks.design.sides[:2])
    prior = prior_of(given.n_features, k)
    dense = given.flat().matrix().toarray().astype(np.float64)
    theta, _ = replay(by_blocks, dense, prior, 1.5)
    # the flat rows with the columns where a pass comes to them
    turned = check_csr(dense[:, order].astype(dtype))
    by_rows = begin(turned, k, sides=False)
    by_rows.theta[:, : k + 1] = by_blocks.theta[order, : k + 1]
    by_rows.refresh()
    again = Prior(prior.mean, prior.precision, prior.group[order], prior.strength[order])  # type: ignore[index]
    by_blocks.run(prior, 1.5, None)
    by_rows.run(again, 1.5, None)
    assert_close(by_blocks.theta[:, : k + 1], theta, CLOSE[dtype])
    for _ in range(2):
        by_blocks.run(prior, 1.5, None)
        by_rows.run(again, 1.5, None)
    assert_close(by_blocks.theta[order], by_rows.theta, 10 * CLOSE[dtype])


@BOTH_TYPES
def test_the_order_of_the_rows_does_not_matter(dtype: Any) -> None:
    rows = flat(people(missing=True), dtype)
    turned = np.random.default_rng(5).permutation(rows.n_rows)
    found = []
    for of in (np.arange(rows.n_rows), turned):
        some = rows.take(of)
        design_of = Design.of(some, 6)
        rng = np.random.default_rng(0)
        y, weight = rng.normal(size=rows.n_rows)[of].astype(dtype), rng.random(rows.n_rows)[of].astype(dtype)
        state = Sweep(design_of, 6, y[design_of.order], weight[design_of.order], 1)
        state.start(init(rows.n_features, 6, init_std=0.5, dtype=dtype))
        found.append(passes(state))
    assert_close(found[1], found[0], 10 * CLOSE[dtype])


@EITHER_WAY
def test_more_fields_than_sides() -> None:
    rng = np.random.default_rng(2)
    sizes = [12, 10, 9, 8, 7, 6]
    rows = flat([one_hot(rng.integers(0, size, 200), size) for size in sizes])
    many, none = (begin(rows, 5, sides=sides) for sides in (True, False))
    assert len(many.design.sides) == MOST_SIDES
    assert many.design.rest is not None
    assert many.design.rest.nnz == 200 * (len(sizes) - MOST_SIDES)
    assert in_order(many.design) == in_order(none.design)
    theta, _ = replay(many, rows.matrix().toarray(), prior_of(rows.n_features, 5), 1.5)
    first = passes(many, 1, None)
    assert_close(first[:, :6], theta, 1e-10)
    assert_close(passes(none, 1, None), first, 1e-9)
    assert_close(passes(many), passes(none), 1e-8)


@EITHER_WAY
@BOTH_TYPES
@pytest.mark.parametrize("part", ["sides", "alone", "rest"])
def test_long_entities_are_summed_in_segments(part: str, dtype: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = people(400, missing=True)
    rows = flat([parts[0], parts[3]] if part == "alone" else parts, dtype)
    whole = passes(begin(rows, sides=part != "rest"))
    monkeypatch.setattr(design, "SEGMENT", 16)
    monkeypatch.setattr(sweep, "SEGMENT", 16)
    state = begin(rows, sides=part != "rest")
    runs = state.design.sides if part != "rest" else state.design.rest_runs
    assert all(np.diff(each.segments).max() > 1 for each in runs)
    assert all(side.alone == (part == "alone") for side in state.design.sides)
    assert_close(passes(state), whole, 10 * CLOSE[dtype])
    first, second = state.residuals()
    r = state.residual.astype(np.float64)
    np.testing.assert_allclose([first, second], [state.weight @ r, state.weight @ r**2], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("segment", [16, 4096])
def test_slices_of_a_side_are_the_side(segment: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(design, "SEGMENT", segment)
    monkeypatch.setattr(sweep, "SEGMENT", segment)
    parts = people(300)
    rows = flat([parts[0], 0.5 * parts[3]])
    at_once = begin(rows)
    whole = passes(at_once)
    for slice_ in (1, 3 * at_once.size * 8):
        monkeypatch.setattr(sweep, "_SLICE", slice_)
        state = begin(rows)
        assert [side.alone for side in state.design.sides] == [True, True]
        np.testing.assert_array_equal(passes(state), whole)
        np.testing.assert_allclose(state.run(prior_of(26, 5), 1.0, None), state.residuals(), rtol=1e-9, atol=1e-9)


@EITHER_WAY
@BOTH_TYPES
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", ["alone", "said of", "missing"])
def test_what_a_pass_returns_is_left(kind: str, weighted: bool, dtype: Any) -> None:
    parts = people(500, missing=kind == "missing")
    rows = flat([parts[0], parts[3]] if kind == "alone" else parts[:5], dtype)
    state = begin(rows, weighted=weighted)
    assert state.design.rest is None
    for key in (None, 3, 4):
        returned = state.run(prior_of(rows.n_features, 5), 1.5, key)
        sums = state.residuals()
        assert returned is not None
        np.testing.assert_allclose(returned, sums, rtol=CLOSE[dtype], atol=sums[1] * CLOSE[dtype])


@EITHER_WAY
@BOTH_TYPES
@pytest.mark.parametrize("sides", [False, True])
def test_residuals_do_not_drift(sides: bool, dtype: Any) -> None:
    rows = flat(people(600, missing=True), dtype)
    state = begin(rows, 8, sides=sides)
    passes(state, 10)
    theta = state.theta.astype(np.float64)
    dense = rows.matrix().toarray().astype(np.float64)[state.design.order]
    exact = state.target - scores_of(dense, state.w0, theta[:, 8], theta[:, :8])
    tol = {np.float64: 1e-12, np.float32: 1e-4}[dtype] * np.abs(exact).max()
    if not sides:  # those that the pass itself has kept
        np.testing.assert_allclose(state.residual, exact, atol=tol)
    first, second = state.residuals()
    np.testing.assert_allclose(state.residual, exact, atol=tol)
    s = state.weight.astype(np.float64)
    np.testing.assert_allclose([first, second], [s @ exact, s @ exact**2], atol=tol * len(s))


@EITHER_WAY
@BOTH_TYPES
@pytest.mark.parametrize("isa", ISAS)
def test_threads_do_not_change_a_bit(isa: int, dtype: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "ISA", isa)
    monkeypatch.setattr(design, "SEGMENT", 16)
    monkeypatch.setattr(sweep, "SEGMENT", 16)
    rows = flat(people(300, missing=True), dtype)
    for sides in (False, True):
        whole = passes(begin(rows, 9, sides=sides))
        with monkeypatch.context() as patch:
            patch.setattr(dispatch, "_WORK_PER_PIECE", 1)
            for n_threads in (1, 2, 3, 4):
                found = passes(begin(rows, 9, sides=sides, n_threads=n_threads))
                np.testing.assert_array_equal(found, whole)


@EITHER_WAY
@BOTH_TYPES
@pytest.mark.parametrize("k", RANKS)
def test_instruction_sets_agree(k: int, dtype: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = flat(people(missing=True), dtype)
    found = {}
    for isa in ISAS:
        monkeypatch.setattr(dispatch, "ISA", isa)
        state = begin(rows, k)
        found[isa] = passes(state)
        state.residuals()
        residual = state.residual.copy()
        if isa == 0:
            first = residual
        assert_close(found[isa], found[0], 10 * CLOSE[dtype])
        assert_close(residual, first, 10 * CLOSE[dtype])


@EITHER_WAY
def test_bounds_are_told() -> None:
    blocks = [RelationBlock(np.zeros(2, int), np.ones((1, 1)))] * int(gibbs.most_partners)
    given = check_relations(blocks)
    assert given is not None
    with pytest.raises(ValueError, match=r"8 blocks, at most 7"):
        Design.of(given, 2)
    fewer = check_relations(blocks[1:])
    assert fewer is not None
    state = begin(fewer, 2)
    theta, _ = replay(state, np.ones((2, 7)), prior_of(7, 2), 1.0)
    state.run(prior_of(7, 2), 1.0, None)
    assert_close(state.theta[:, :3], theta, 1e-10)


@EITHER_WAY
@pytest.mark.parametrize("sides", [False, True])
def test_infinities_are_told(sides: bool) -> None:
    parts = people()
    parts[5] *= 1e25
    state = begin(flat(parts, np.float32), sides=sides)
    with pytest.raises(DivergenceError, match="left the finite numbers"):
        passes(state)
    parts = people()
    state = begin(flat(parts, np.float32), sides=sides)
    state.see((state.target * 1e30).astype(np.float32), state.weight)
    with pytest.raises(DivergenceError, match="scale numeric columns"):
        passes(state)
