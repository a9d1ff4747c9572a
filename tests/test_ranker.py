"""Rankings: the solvers against their definition, and FMRanker from ids to ids."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from sparsefm import Cross, FMRanker, FMRegressor, FrameEncoder, MultiHot, OneHot, load, metrics
from sparsefm._kernels import adaptive, dispatch, gibbs, ranking
from sparsefm.model import init
from sparsefm.persistence import ModelFileError
from sparsefm.solvers import (
    BPR,
    RANKERS,
    WARP,
    CosineContrastive,
    DivergenceError,
    ImplicitALS,
    RankingProblem,
    SampledSoftmax,
)
from sparsefm.solvers import (
    ranking as of_rankings,
)
from sparsefm.validation import check_csr

GOLDEN, WORD = 0x9E3779B97F4A7C15, (1 << 64) - 1


def problem(
    dtype: Any = np.float64,
    *,
    shape: tuple[int, int] = (9, 7),
    sides: bool = True,
    weighted: bool = True,
    k: int = 3,
    **more: Any,
) -> Any:
    """Contexts and items, with columns that several rows share where there are sides."""
    rng = np.random.default_rng(0)
    (n_contexts, n_items), shared = shape, 3 if sides else 0

    def rows(n: int, before: int, behind: int) -> Any:
        some = rng.normal(size=(n, shared)) * (rng.random((n, shared)) < 0.6)
        return check_csr(np.hstack([np.zeros((n, before)), np.eye(n), some, np.zeros((n, behind))]).astype(dtype))

    wide = n_contexts + shared, n_items + shared
    met = rng.random((n_contexts, n_items)) < 0.4
    met[4] = True  # who has met everything
    context, item = np.nonzero(met)
    weight = rng.uniform(0.5, 1.5, len(item)) if weighted else None
    options: dict[str, Any] = {"l2_linear": 0.02, "l2_factors": 0.05, "init_std": 0.3, "seed": 5, "n_threads": 1}
    return RankingProblem(
        contexts=rows(n_contexts, 0, wide[1]),
        items=rows(n_items, wide[0], 0),
        spans=(((0, wide[0]),), ((wide[0], sum(wide)),)),
        context=context.astype(np.int32),
        item=item.astype(np.int32),
        weight=None if weight is None else (weight / weight.mean()).astype(dtype),
        n_factors=k,
        **(options | {"report": lambda record, current: False} | more),
    )


def mixed64(z: int) -> int:
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & WORD
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & WORD
    return z ^ (z >> 31)


class Replay:
    """Passes in float64 from the formulas of the kernel and of the losses."""

    def __init__(self, given: Any, solver: Any) -> None:
        self.given, self.solver = given, solver
        C, D = (np.asarray(rows.matrix().toarray(), np.float64) for rows in (given.contexts, given.items))
        self.C, self.D = C, D
        V = init(given.n_features, given.n_factors, init_std=given.init_std, seed=given.seed, dtype=C.dtype).V
        self.V = np.array(V)
        self.V[~((C != 0).any(axis=0) | (D != 0).any(axis=0))] = 0
        self.w, self.G_w, self.G_V = np.zeros(len(V)), np.zeros(len(V)), np.zeros_like(self.V)
        self.met = {(int(c), int(i)) for c, i in zip(given.context, given.item, strict=True)}

    def weight(self, r: int) -> float:
        return 1.0 if self.given.weight is None else float(self.given.weight[r])

    def alone(self, x: np.ndarray) -> tuple[float, np.ndarray]:
        q = x @ self.V
        return float(x @ self.w + (q @ q - (x**2) @ (self.V**2).sum(axis=1)) / 2), q

    def step(self, columns: np.ndarray, g_w: Any, g_V: np.ndarray, s: float) -> None:
        rate = self.solver.learning_rate
        g_V = (g_V + s * self.given.l2_factors * self.V)[columns]
        self.G_V[columns] += g_V**2
        self.V[columns] -= rate * g_V / np.sqrt(1 + self.G_V[columns])
        if g_w is not None:
            g_w = (g_w + s * self.given.l2_linear * self.w)[columns]
            self.G_w[columns] += g_w**2
            self.w[columns] -= rate * g_w / np.sqrt(1 + self.G_w[columns])

    def run(self, passed: Any) -> tuple[np.ndarray, np.ndarray]:
        for epoch in range(1, self.solver.max_iter + 1):
            key, order = int(gibbs.mixed(self.given.seed, epoch)), np.empty(len(self.given.item), np.int32)
            adaptive.shuffle(order, key)
            passed(self, order, key)
        return self.w, self.V


def pairwise_pass(at: Replay, order: np.ndarray, key: int) -> None:
    given, solver, C, D = at.given, at.solver, at.C, at.D
    n_items, warp = len(D), isinstance(solver, WARP)

    def drawn(r: int) -> tuple[Any, ...] | None:
        c, i = int(given.context[r]), int(given.item[r])
        p = C[c] @ at.V
        b_i, q_i = at.alone(D[i])
        for trial in range(solver.max_trials if warp else 16):
            bits = mixed64((key + mixed64((r * GOLDEN + trial) & WORD)) & WORD) >> 32
            popular = solver.negatives == "popular"
            j = int(given.item[bits * len(given.item) >> 32]) if popular else bits * n_items >> 32
            if (c, j) in at.met:
                continue
            b_j, q_j = at.alone(D[j])
            margin = b_i + p @ q_i - b_j - p @ q_j
            if not warp:
                return j, p, q_i, q_j, at.weight(r) / (1 + np.exp(margin))
            if margin < 1:
                others = n_items - sum(context == c for context, _ in at.met)
                return j, p, q_i, q_j, at.weight(r) * np.log1p(others // (trial + 1))
        return None

    for first in range(0, len(order), ranking.batch_size):
        batch = order[first : first + ranking.batch_size].tolist()
        for r, found in [(r, drawn(r)) for r in batch]:
            if found is None:
                continue
            j, p, q_i, q_j, d = found
            c, i = int(given.context[r]), int(given.item[r])
            g_w, g_V = np.zeros_like(at.w), np.zeros_like(at.V)
            for x, sign, q in ((D[i], -d, q_i), (D[j], d, q_j)):
                g_w += sign * x
                partners = (q - x[:, None] * at.V) if (x != 0).sum() > 1 else np.zeros_like(at.V)
                g_V += sign * x[:, None] * (p + partners)
            at.step((D[i] != 0) | (D[j] != 0), g_w, g_V, at.weight(r))
            at.step(C[c] != 0, None, -d * C[c][:, None] * (q_i - q_j), at.weight(r))


def shared_pass(at: Replay, order: np.ndarray, key: int) -> None:
    """Gradients of the sums by central differences of the loss of a batch."""
    given, solver, C, D = at.given, at.solver, at.C, at.D
    rng = np.random.default_rng(key)
    for first in range(0, len(order), 256):
        batch = order[first : first + 256]
        drawn = np.unique(rng.integers(len(D), size=solver.n_negatives, dtype=np.int32))
        contexts, items = given.context[batch], given.item[batch]
        open_to = np.array([[(int(c), int(j)) not in at.met for j in drawn] for c in contexts])
        s = np.array([at.weight(r) for r in batch])

        def loss(sums: list[np.ndarray], open_to: np.ndarray = open_to, s: np.ndarray = s) -> float:
            p, q, n = (side / np.linalg.norm(side, axis=1, keepdims=True) for side in sums)
            own, others = (p * q).sum(axis=1), p @ n.T
            if isinstance(solver, SampledSoftmax):
                whole = np.exp(own / solver.temperature) + (np.exp(others / solver.temperature) * open_to).sum(axis=1)
                return float(s @ (np.log(whole) - own / solver.temperature))
            above = (np.maximum(others - solver.margin, 0) * open_to).mean(axis=1)
            return float(s @ (1 - own + solver.negative_weight * above))

        sides = [(C, contexts, s), (D, items, s), (D, drawn, np.ones(len(drawn)))]
        sums = [X[rows] @ at.V for X, rows, _ in sides]
        gradients = [np.zeros_like(side) for side in sums]
        for side, gradient in zip(sums, gradients, strict=True):
            for place in np.ndindex(side.shape):
                kept, values = side[place], []
                for step in (1e-6, -1e-6):
                    side[place] = kept + step
                    values.append(loss(sums))
                side[place] = kept
                gradient[place] = (values[0] - values[1]) / 2e-6
        for (X, rows, strengths), gradient in zip(sides, gradients, strict=True):
            for row, g, strength in zip(rows, gradient, strengths, strict=True):
                at.step(X[row] != 0, None, X[row][:, None] * g, strength)


@pytest.mark.parametrize("negatives", ["uniform", "popular"])
@pytest.mark.parametrize("sides", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-9), (np.float32, 3e-4)])
@pytest.mark.parametrize("k", [1, 8, 20])
def test_a_pass_is_the_definition(negatives: str, sides: bool, dtype: Any, tolerance: float, k: int) -> None:
    given = problem(dtype, shape=(30, 25), sides=sides, weighted=sides, k=k, seed=8)
    assert len(given.item) > 2 * ranking.batch_size
    for solver in (
        BPR(max_iter=3, learning_rate=0.3, negatives=negatives),
        WARP(max_iter=3, learning_rate=0.2, negatives=negatives, max_trials=5),
    ):
        found = solver.solve(given)
        w, V = Replay(given, solver).run(pairwise_pass)
        np.testing.assert_allclose(found.w, w, rtol=0, atol=tolerance)
        np.testing.assert_allclose(found.V, V, rtol=0, atol=tolerance)
        assert np.abs(V).max() > 0.3


@pytest.mark.parametrize("sides", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-6), (np.float32, 2e-3)])
@pytest.mark.parametrize(
    "solver",
    [
        SampledSoftmax(max_iter=2, learning_rate=0.1, n_negatives=5, temperature=0.3),
        CosineContrastive(max_iter=2, learning_rate=0.05, n_negatives=5, margin=0.1, negative_weight=3),
    ],
)
def test_a_pass_against_shared_items_is_the_definition(solver: Any, dtype: Any, tolerance: float, sides: bool) -> None:
    given = problem(dtype, shape=(30, 25), sides=sides, weighted=sides, k=3)
    assert len(given.item) > 256
    found = solver.solve(given)
    _, V = Replay(given, solver).run(shared_pass)
    np.testing.assert_allclose(found.V, V, rtol=0, atol=tolerance)
    assert np.abs(V).max() > 0.3
    assert not found.w.any()


@pytest.mark.parametrize("exponent", [0.0, 1.0])
@pytest.mark.parametrize(("sides", "weighted", "k"), [(False, False, 3), (True, True, 3), (False, True, 17)])
def test_implicit_least_squares_end_where_the_whole_objective_is_flat(
    sides: bool, weighted: bool, k: int, exponent: float
) -> None:
    records: list[dict[str, Any]] = []
    given = problem(sides=sides, weighted=weighted, k=k, report=lambda record, current: bool(records.append(record)))
    solver = ImplicitALS(max_iter=3000, unobserved=0.3, exponent=exponent)
    found = solver.solve(given)
    C, D = (rows.matrix().toarray() for rows in (given.contexts, given.items))
    met = np.ones(len(given.item)) if given.weight is None else given.weight
    weights = np.zeros((len(C), len(D)))
    weights[given.context, given.item] = met

    times = ((C != 0).T @ (weights.sum(axis=1) + 0.3 * len(D))) + ((D != 0).T @ (weights.sum(axis=0) + 0.3 * len(C)))
    strength = np.where(times > 0, times**exponent, 0)

    def data_term(w: np.ndarray, V: np.ndarray) -> float:
        rows = (C[:, None] + D[None]).reshape(-1, C.shape[1])
        total = rows @ V
        scores = rows @ w + ((total**2).sum(axis=1) - (rows**2) @ (V**2).sum(axis=1)) / 2
        scores = scores.reshape(weights.shape)
        return float((weights * (1 - scores) ** 2 + 0.3 * scores**2).sum() / 2)

    def objective(theta: np.ndarray) -> float:
        w, V = theta[:, 0], theta[:, 1:]
        penalty = given.l2_linear * strength @ w**2 + given.l2_factors * strength @ (V**2).sum(axis=1)
        return data_term(w, V) + penalty / 2

    theta = np.column_stack([found.w, found.V])
    for j, f in np.ndindex(*theta.shape):
        step = np.zeros_like(theta)
        step[j, f] = 1e-5
        slope = (objective(theta + step) - objective(theta - step)) / 2e-5
        assert abs(slope) < 1e-5, (j, f)
    assert records[-1]["loss"] == pytest.approx(data_term(found.w, found.V) / len(given.item), rel=1e-9)
    assert objective(theta) < 0.9 * objective(np.zeros_like(theta))


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-9), (np.float32, 2e-5)])
def test_blocks_of_a_column_go_to_their_minimum_one_after_another(weighted: bool, dtype: Any, tolerance: float) -> None:
    """One pass from the definition: rows h = (q, 1, b) of the other side, 16 numbers of (p, w, 1) at a time."""
    given = problem(dtype, shape=(30, 25), sides=False, weighted=weighted, k=21)
    found = ImplicitALS(max_iter=1, unobserved=0.3, exponent=0.5).solve(given)
    n = 30
    start = init(given.n_features, 21, init_std=given.init_std, seed=given.seed, dtype=dtype)
    theta = np.column_stack([start.V, start.w]).astype(np.float64)
    s = np.ones(len(given.item)) if given.weight is None else given.weight.astype(np.float64)
    weights = np.zeros((30, 25))
    weights[given.context, given.item] = s
    for own, other, W in ((slice(0, n), slice(n, None), weights), (slice(n, None), slice(0, n), weights.T)):
        h = np.column_stack([theta[other, :21], np.ones(W.shape[1])])
        b = theta[other, 21]
        for c, column in enumerate(range(*own.indices(len(theta)))):
            strength = (W[c].sum() + 0.3 * W.shape[1]) ** 0.5
            penalty = strength * np.array([given.l2_factors] * 21 + [given.l2_linear])
            for block in (slice(0, 16), slice(16, 22)):
                score = h @ theta[column] + b
                slope = h[:, block].T @ (W[c] * (1 - score) - 0.3 * score) - penalty[block] * theta[column, block]
                A = (h[:, block] * (W[c] + 0.3)[:, None]).T @ h[:, block] + np.diag(penalty[block])
                theta[column, block] += np.linalg.solve(A, slope)
    np.testing.assert_allclose(np.column_stack([found.V, found.w]), theta, rtol=0, atol=tolerance)


@pytest.mark.parametrize("sides", [False, True])
def test_equal_rows_are_one_row_as_often(sides: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of items that nobody met only a common column is known."""
    given = problem(np.float64, shape=(30, 25), sides=sides, weighted=True, k=12)
    few = given.items.matrix().tolil()
    few[20:] = 0
    few[20:, few.shape[1] - 1] = 1
    keep = given.item < 20
    parts = {name: getattr(given, name)[keep] for name in ("context", "item", "weight")}
    given = replace(given, items=check_csr(few.tocsr()), **parts)
    found = []
    for merged in (of_rankings._merged, lambda rows, index: of_rankings._Side(rows, index, np.ones(rows.n_rows))):
        monkeypatch.setattr(of_rankings, "_merged", merged)
        found.append(ImplicitALS(max_iter=300, unobserved=0.2).solve(given))
    np.testing.assert_allclose(found[0].V @ found[0].V.T, found[1].V @ found[1].V.T, rtol=0, atol=1e-6)
    np.testing.assert_allclose(found[0].w, found[1].w, rtol=0, atol=1e-6)


@pytest.mark.parametrize("n_factors", [5, 40])
@pytest.mark.parametrize("solver", list(RANKERS))
def test_the_same_bits_at_any_number_of_threads(solver: str, n_factors: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "_WORK_PER_PIECE", 1)
    monkeypatch.setattr(of_rankings, "_SHARED", 0)
    met = interactions()
    items = pd.DataFrame({"item_id": np.arange(100, 140), "kind": [f"kind {i % 4}" for i in range(40)]})
    if n_factors > 32:
        items = items[["item_id"]]
    models = [FMRanker(n_factors, solver=solver, n_threads=n, random_state=0).fit(met, items=items) for n in (1, 2, 3)]
    for other in models[1:]:
        np.testing.assert_array_equal(other.params_.V, models[0].params_.V)
        np.testing.assert_array_equal(other.params_.w, models[0].params_.w)


# ---- the estimator


def interactions(n_users: int = 60, n_items: int = 40, seed: int = 0) -> pd.DataFrame:
    """Users and items of four kinds; most of what a user meets is of his own."""
    rng = np.random.default_rng(seed)
    user, item = np.meshgrid(np.arange(n_users), np.arange(n_items), indexing="ij")
    chance = np.where(user % 4 == item % 4, 0.6, 0.03)
    met = rng.random(chance.shape) < chance
    return pd.DataFrame({"user_id": user[met], "item_id": 100 + item[met]}).sample(frac=1, random_state=0)


def test_lists_are_those_of_all_scores() -> None:
    met = interactions()
    model = FMRanker(6, random_state=0).fit(met)
    scores = (model.user_vectors() @ model.item_vectors().T).to_numpy(np.float64)
    users, items = model.user_vectors().index, model.item_vectors().index
    for exclude_seen in (True, False):
        left = scores.copy()
        if exclude_seen:
            left[users.get_indexer(met["user_id"]), items.get_indexer(met["item_id"])] = -np.inf
        lists = model.recommend([3, 7, 3], k=5, exclude_seen=exclude_seen)
        assert lists["rank"].tolist() == [1, 2, 3, 4, 5] * 3
        for number, user in enumerate([3, 7, 3]):
            best = np.argsort(-left[users.get_loc(user)], kind="stable")[:5]
            part = lists[number * 5 : number * 5 + 5]
            assert part["item_id"].tolist() == items[best].tolist()
            np.testing.assert_allclose(part["score"], left[users.get_loc(user), best], rtol=1e-5)
    some = model.recommend([3], k=9, items=[101, 102, 103], exclude_seen=False)
    assert sorted(some["item_id"]) == [101, 102, 103]
    by_frames = model.recommend(pd.DataFrame({"user_id": [3]}), pd.DataFrame({"item_id": items}), k=5, exclude=met)
    pd.testing.assert_frame_equal(by_frames, model.recommend([3], k=5), rtol=1e-5)
    assert len(model.recommend([], k=3)) == 0


@pytest.mark.parametrize("solver", list(RANKERS))
def test_who_is_not_known_gets_what_most_have_met(solver: str) -> None:
    met = interactions()
    model = FMRanker(6, solver=solver, random_state=0).fit(met)
    got = model.recommend([3, 12345, 7], k=40)
    counts = met["item_id"].value_counts()
    unknown = got[got["user_id"] == 12345]
    assert unknown["score"].tolist() == sorted(counts, reverse=True)
    assert (counts[unknown["item_id"]].to_numpy() == unknown["score"]).all()
    pd.testing.assert_frame_equal(
        got[got["user_id"] != 12345].reset_index(drop=True), model.recommend([3, 7], k=40), check_exact=True
    )


@pytest.mark.parametrize("exclude_seen", [False, True])
def test_each_user_has_candidates_of_his_own(exclude_seen: bool) -> None:
    met = interactions()
    model = FMRanker(4, solver="implicit_als", random_state=0).fit(met)
    rng = np.random.default_rng(1)
    pairs = pd.DataFrame({"user_id": rng.integers(0, 70, 900), "item_id": 100 + rng.integers(0, 40, 900)})
    got = model.recommend([3, 50, 69, 7], k=5, items=pairs, exclude_seen=exclude_seen)
    for user in (3, 50, 69, 7):
        own = pairs.loc[pairs["user_id"] == user, "item_id"].unique()
        want = model.recommend([user], k=5, items=own, exclude_seen=exclude_seen)
        assert 0 < len(want) <= 5
        pd.testing.assert_frame_equal(got[got["user_id"] == user].reset_index(drop=True), want)
    with pytest.raises(ValueError, match="'item_id'"):
        model.recommend([3], items=pairs[["user_id"]])
    with pytest.raises(ValueError, match="was not in the fit"):
        model.recommend([3], items=pairs.assign(item_id=1000))
    with pytest.raises(ValueError, match="twice"):
        model.recommend([3, 3], items=pairs)


def test_similar_ones_are_of_one_kind_and_never_the_same() -> None:
    model = FMRanker(6, solver="implicit_als", random_state=0).fit(interactions())
    items = model.similar_items([100, 101], k=5)
    assert (items["similar"] != items["item_id"]).all()
    assert (items["similar"] % 4 == items["item_id"] % 4).all()
    vectors = model.item_vectors().iloc[:, :-1]
    a, b = vectors.loc[items["item_id"][0]], vectors.loc[items["similar"][0]]
    assert items["score"][0] == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b), rel=1e-5)
    users = model.similar_users([5], k=5)
    assert (users["similar"] % 4 == 1).all()


@pytest.mark.parametrize("solver", list(RANKERS))
def test_what_is_planted_is_found(solver: str) -> None:
    met = interactions(200, 120)
    held_out = met.groupby("user_id").sample(3, random_state=0)
    train = met.drop(held_out.index)
    model = FMRanker(8, solver=solver, random_state=0).fit(train)
    lists = model.recommend(held_out["user_id"].unique(), k=10)
    found = len(lists.merge(held_out)) / len(held_out)
    popular = train["item_id"].value_counts().index[:10]
    assert found > 2 * held_out["item_id"].isin(popular).mean()


def test_a_new_item_is_judged_by_what_is_said_of_it() -> None:
    met = interactions()
    items = pd.DataFrame({"item_id": np.arange(100, 144)})
    items["kind"] = np.array(["a", "b", "c", "d"])[items["item_id"] % 4]
    for solver in ("warp", "implicit_als"):
        model = FMRanker(6, solver=solver, random_state=0).fit(met, items=items)
        new = model.recommend([5], k=4, items=[140, 141, 142, 143])
        assert new["item_id"][0] == 141


def test_context_is_part_of_a_request() -> None:
    met = interactions()
    met["hour"] = np.where(met["item_id"] % 8 < 4, "am", "pm")
    columns = {"user_id": OneHot(), "hour": OneHot(), "item_id": OneHot()}
    model = FMRanker(8, encoder=FrameEncoder(columns), random_state=0).fit(met)
    with pytest.raises(ValueError, match="more than one context"):
        model.recommend([1])
    requests = pd.DataFrame({"user_id": [1, 1], "hour": ["am", "pm"]})
    lists = model.recommend(requests, pd.DataFrame({"item_id": np.arange(100, 140)}), k=4)
    assert (lists["item_id"][:4] % 8 < 4).all()
    assert (lists["item_id"][4:] % 8 >= 4).all()
    with pytest.raises(ValueError, match="item_columns names"):
        FMRanker(encoder=FrameEncoder(columns), item_columns=["item_id", "genre"]).fit(met)
    both = FrameEncoder(columns | {"both": Cross("hour", "item_id")})
    with pytest.raises(ValueError, match="of the item and of others together"):
        FMRanker(encoder=both).fit(met)


# ---- who came later


@pytest.mark.parametrize("sides", [False, True])
def test_least_squares_fold_in_what_a_fit_would_find(sides: bool) -> None:
    met = interactions().assign(weight=lambda rows: 1 + rows["item_id"] % 3)
    users = pd.DataFrame({"user_id": np.arange(60), "kind": [f"kind {u % 4}" for u in range(60)]}) if sides else None
    solver = ImplicitALS(max_iter=200)
    model = FMRanker(4, solver=solver, l2_linear=0.1, l2_factors=0.1, random_state=0).fit(met, users=users)
    some = met[met["user_id"].isin([3, 10, 31])]
    asked = None if users is None else users[users["user_id"].isin([3, 10, 31])]
    again = model.fold_in(some, users=asked)
    np.testing.assert_allclose(again.user_vectors(), model.user_vectors(), rtol=0, atol=2e-3)
    renamed = again.fold_in(some.assign(user_id=some["user_id"] + 1000))
    assert not np.allclose(model.user_vectors(), 0, atol=0.1)
    if not sides:
        vectors = renamed.user_vectors()
        np.testing.assert_allclose(vectors.loc[[1003, 1010]], vectors.loc[[3, 10]], rtol=0, atol=2e-3)


@pytest.mark.parametrize("solver", list(RANKERS))
def test_new_users_get_lists_of_their_own_and_nothing_else_moves(solver: str, tmp_path: Path) -> None:
    met = interactions()
    known, new = met[met["user_id"] < 50], met[met["user_id"] >= 50]
    model = FMRanker(6, solver=solver, random_state=0).fit(known)
    before = model.user_vectors().copy(), model.item_vectors().copy(), model.recommend([50], k=40)
    folded = model.fold_in(new)
    assert folded.user_vectors().index.tolist()[-10:] == new["user_id"].drop_duplicates().tolist()
    pd.testing.assert_frame_equal(folded.user_vectors().iloc[:-10], before[0], check_exact=True)
    pd.testing.assert_frame_equal(folded.item_vectors(), before[1], check_exact=True)
    pd.testing.assert_frame_equal(model.recommend([50], k=40), before[2], check_exact=True)
    lists = folded.recommend(range(50, 60), k=3)
    assert lists.merge(new, on=["user_id", "item_id"]).empty
    assert (lists["user_id"] % 4 == lists["item_id"] % 4).mean() > 0.6
    assert folded.recommend([50], k=3, exclude_seen=False)["item_id"].isin(new["item_id"]).any()
    folded.save(tmp_path / "folded.sfm")
    pd.testing.assert_frame_equal(load(tmp_path / "folded.sfm").recommend(range(50, 60), k=3), lists)
    again = model.fold_in(new.sample(frac=1, random_state=1)).recommend(range(50, 60), k=3)
    assert again["item_id"].tolist() == lists["item_id"].tolist() or solver != "implicit_als"


def test_users_of_whom_something_is_said_and_occasions_fold_in() -> None:
    met = interactions()
    users = pd.DataFrame({"user_id": np.arange(60), "kind": [f"kind {u % 4}" for u in range(60)]})
    model = FMRanker(4, solver="implicit_als", random_state=0).fit(met[met["user_id"] < 50], users=users[:50])
    told = model.fold_in(met[met["user_id"] == 51][:1], users=users)
    bare = model.fold_in(met[met["user_id"] == 51][:1])
    assert (told.recommend([51], k=5)["item_id"] % 4 == 3).mean() >= (
        bare.recommend([51], k=5)["item_id"] % 4 == 3
    ).mean()
    hours = met.assign(hour=met["item_id"] % 2)
    encoder = FrameEncoder({"user_id": OneHot(), "hour": OneHot(), "item_id": OneHot()})
    model = FMRanker(4, encoder=encoder, random_state=0).fit(hours[hours["user_id"] < 50])
    folded = model.fold_in(hours[hours["user_id"] >= 50])
    request = pd.DataFrame({"user_id": [55], "hour": [1]})
    got = folded.recommend(request, met[["item_id"]].drop_duplicates(), k=5)
    assert (got["item_id"] % 4 == 3).mean() >= 0.6


def test_what_cannot_be_folded_in_is_refused() -> None:
    met = interactions()
    model = FMRanker(4, solver="implicit_als", random_state=0).fit(met)
    with pytest.raises(NotFittedError):
        FMRanker().fold_in(met)
    with pytest.raises(ValueError, match="was not in the fit"):
        model.fold_in(pd.DataFrame({"user_id": [900], "item_id": [5]}))
    with pytest.raises(ValueError, match="at least one"):
        model.fold_in(met[:0])
    with pytest.raises(ValueError, match="no column 'item_id'"):
        model.fold_in(met[["user_id"]])
    with pytest.raises(ValueError, match="no id would match"):
        model.fold_in(pd.DataFrame({"user_id": ["a"], "item_id": [100]}))


# ---- what carried a recommendation


@pytest.mark.parametrize("by", ["field", "column"])
@pytest.mark.parametrize("solver", list(RANKERS))
def test_parts_add_up_to_the_score_of_a_list(solver: str, by: str) -> None:
    met = interactions()
    users = pd.DataFrame({"user_id": np.arange(60), "kind": [f"kind {u % 4}" for u in range(60)]})
    items = pd.DataFrame({"item_id": np.arange(100, 140), "genres": ["a|b", "b", "c", "a|c"] * 10})
    encoder = FrameEncoder({"user_id": OneHot(), "kind": OneHot(), "item_id": OneHot(), "genres": MultiHot("|")})
    model = FMRanker(4, solver=solver, encoder=encoder, random_state=0).fit(met, users=users, items=items)
    lists = model.recommend([3, 50, 7], k=6)
    table = model.explain(lists, by=by)
    np.testing.assert_allclose(table.groupby("row")["value"].sum(), lists["score"], rtol=1e-5, atol=1e-6)
    whole = model.explain(lists.merge(users).merge(items), by=by)
    pd.testing.assert_frame_equal(whole, table)
    own = {"user_id", "kind"} if by == "field" else {f"kind={kind}" for kind in users["kind"]}
    assert not (table["first"].isin(own) & (table["second"].isin(own) | (table["second"] == ""))).any()
    with pytest.raises(ValueError, match="was not in the fit"):
        model.explain(lists.assign(user_id=900))
    with pytest.raises(ValueError, match="'item_id'"):
        model.explain(lists[["user_id"]])
    with pytest.raises(ValueError, match="by"):
        model.explain(lists, by="row")


# ---- held-out interactions


@pytest.mark.parametrize("solver", list(RANKERS))
def test_training_ends_when_lists_get_no_better(solver: str) -> None:
    met = interactions()
    held_out = met.groupby("user_id").sample(2, random_state=0)
    train = met.drop(held_out.index)
    kind = RANKERS[solver]
    model = FMRanker(4, solver=kind(max_iter=60), early_stopping=True, patience=3, random_state=0)
    model.fit(train, eval_set=held_out)
    values = [record["eval_metric"] for record in model.history_]
    best = int(np.argmax(values))
    assert len(values) < 60
    assert len(values) - 1 - best == 3
    shorter = FMRanker(4, solver=kind(max_iter=best + 1), random_state=0).fit(train)
    np.testing.assert_array_equal(model.params_.V, shorter.params_.V)
    lists = model.recommend(held_out["user_id"].unique(), k=10)
    shown = lists.pivot(index="user_id", columns="rank", values="item_id")
    relevant = [set(held_out.loc[held_out["user_id"] == user, "item_id"]) for user in shown.index]
    assert metrics.ndcg_at_k(shown.to_numpy(), relevant, 10) == pytest.approx(values[best], abs=1e-12)


def test_what_is_held_out_may_be_new_and_needs_its_columns() -> None:
    met = interactions()
    new = pd.DataFrame({"user_id": [3, 3, 999], "item_id": [100, 777, 101]})
    model = FMRanker(4, eval_metric="recall@40", solver=BPR(max_iter=2), random_state=0).fit(met, eval_set=new)
    seen = ((met["user_id"] == 3) & (met["item_id"] == 100)).any()
    assert [record["eval_metric"] for record in model.history_] == [((0 if seen else 0.5) + 1) / 2] * 2
    for bad, message in (
        ({"eval_metric": "auc"}, "'ndcg@10'"),
        ({"eval_metric": "ndcg@0"}, "'ndcg@10'"),
        ({"patience": 0}, "patience"),
        ({"early_stopping": True}, "needs eval_set"),
    ):
        with pytest.raises(ValueError, match=message):
            FMRanker(4, **bad).fit(met)
    for wrong in (met[:0], met[["user_id"]], [1]):
        with pytest.raises(ValueError, match=r"eval_set|no column"):
            FMRanker(4).fit(met, eval_set=wrong)


def test_pairs_that_come_twice_and_matrices() -> None:
    met = interactions().sort_values(["user_id", "item_id"])
    twice = pd.concat([met, met[:50]])
    weighted = met.assign(weight=np.where(np.arange(len(met)) < 50, 2.0, 1.0))
    fits = [FMRanker(4, solver="implicit_als", random_state=0).fit(frame) for frame in (twice, weighted)]
    np.testing.assert_allclose(fits[0].params_.V, fits[1].params_.V, rtol=1e-5, atol=1e-6)
    given = FMRanker(4, solver="implicit_als", random_state=0).fit(met, sample_weight=weighted["weight"])
    np.testing.assert_array_equal(given.params_.V, fits[1].params_.V)
    matrix = sp.csr_array((weighted["weight"], (met["user_id"], met["item_id"] - 100)), shape=(61, 41))
    model = FMRanker(4, solver="implicit_als", random_state=0).fit(matrix)
    assert model.item_vectors().shape == (41, 5)
    assert model.recommend([60], k=1)["item_id"].notna().all()


@pytest.mark.parametrize("kind", [np.int64, str, "string", "category"])
def test_ids_come_back_as_they_were_given(kind: Any, tmp_path: Path) -> None:
    met = interactions()
    met["item_id"] = met["item_id"].astype(str).astype(kind) if kind is not np.int64 else met["item_id"]
    model = FMRanker(4, random_state=0).fit(met)
    lists = model.recommend([1, 2], k=3)
    assert set(lists["item_id"]) <= set(met["item_id"])
    assert lists["item_id"].dtype == met["item_id"].dtype
    model.save(tmp_path / "model")
    back = load(tmp_path / "model")
    assert isinstance(back, FMRanker)
    assert back.recommend([1, 2], k=3).astype(object).to_numpy().tolist() == lists.astype(object).to_numpy().tolist()
    again = pickle.loads(pickle.dumps(model))
    pd.testing.assert_frame_equal(again.recommend([1, 2], k=3), lists)


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    model = FMRanker(4, random_state=0).fit(interactions())
    model.save(tmp_path / "model")
    whole = (tmp_path / "model").read_bytes()
    for at in range(0, len(whole), len(whole) // 40):
        (tmp_path / "bad").write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(ModelFileError):
            load(tmp_path / "bad")


def test_who_has_met_everything_and_tiny_sets() -> None:
    everything = pd.DataFrame({"user_id": [1, 1, 1, 2], "item_id": [1, 2, 3, 1]})
    for solver in ("bpr", "warp", "implicit_als"):
        model = FMRanker(2, solver=solver, random_state=0).fit(everything)
        assert len(model.recommend([1], k=5)) == 0
        assert np.isfinite(model.params_.V).all()
        FMRanker(2, solver=solver, random_state=0).fit(everything[:1])


def test_what_cannot_be_ranked_is_refused() -> None:
    met = interactions()
    model = FMRanker(4, random_state=0)
    with pytest.raises(NotFittedError):
        model.recommend([1])
    items = pd.DataFrame({"item_id": [100, 100]})
    wrong: list[tuple[FMRanker, Any, dict[str, Any], str]] = [
        (FMRanker(solver="adagrad"), met, {}, "solver must be one of 'bpr', 'warp', 'sampled_softmax'"),
        (FMRanker(0), met, {}, "n_factors must be a positive integer"),
        (FMRanker(solver=BPR(negatives="rare")), met, {}, "'uniform' or 'popular'"),
        (FMRanker(solver=ImplicitALS(unobserved=0)), met, {}, "unobserved"),
        (FMRanker(solver=SampledSoftmax(temperature=0)), met, {}, "temperature"),
        (FMRanker(solver=SampledSoftmax(n_negatives=2.5)), met, {}, "n_negatives"),
        (FMRanker(solver=CosineContrastive(margin=2)), met, {}, "from -1 to 1"),
        (FMRanker(solver=CosineContrastive(negative_weight=-1)), met, {}, "negative_weight"),
        (model, met[:0], {}, "0 rows"),
        (model, met.drop(columns="item_id"), {}, "no column 'item_id'"),
        (model, met.assign(item_id=np.nan), {}, "are missing"),
        (model, met, {"items": items}, r"100\)? twice"),
        (model, met, {"items": met[["item_id"]].drop_duplicates().assign(user_id=1)}, "are in X and in items"),
        (model, met, {"sample_weight": -np.ones(len(met))}, "not negative"),
    ]
    for ranker, X, more, message in wrong:
        with pytest.raises(ValueError, match=message):
            ranker.fit(X, **more)
        assert not hasattr(ranker, "params_")
    with pytest.raises(ValueError, match="solver must be one of"):
        FMRegressor(solver="bpr").fit([[1.0]], [1.0])
    with pytest.raises(DivergenceError, match="learning_rate"):
        FMRanker(4, solver=BPR(learning_rate=1e25)).fit(met)
    model.fit(met)
    for call, message in (
        (lambda: model.recommend(["a"]), "no id would match"),
        (lambda: model.recommend([1], items=[100, 100]), "more than once"),
        (lambda: model.recommend([1], items=[99]), "was not in the fit"),
        (lambda: model.recommend([1], k=0), "k must be a positive integer"),
        (lambda: model.similar_users([99]), "was not in the fit"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    with pytest.raises(TypeError, match="sequence of user ids"):
        model.recommend("1")


def test_parameters_callbacks_and_seeds() -> None:
    met, seen = interactions(), []
    model = FMRanker(4, solver="bpr", callbacks=[lambda fitted, record: seen.append(record) or len(seen) == 3])
    clone(model).set_params(random_state=1).fit(met)
    assert [record["epoch"] for record in seen] == [1, 2, 3]
    fits = [FMRanker(4, random_state=seed).fit(met).params_.V for seed in (0, 0, 1)]
    np.testing.assert_array_equal(fits[0], fits[1])
    assert not np.array_equal(fits[0], fits[2])
