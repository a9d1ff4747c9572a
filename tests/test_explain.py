"""explain and field_importance: the parts add up to the score, and each is what the definition says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.exceptions import NotFittedError
from test_training import ratings

from sparsefm import FMClassifier, FMOrdinal, FMRegressor, FrameEncoder, History, MultiHot, Numeric, OneHot, explain
from sparsefm.model import FMParams, Posterior
from sparsefm.solvers import MCMC, AdaGrad
from sparsefm.validation import RelationBlock

SHORT = MCMC(n_samples=6, burn_in=2)
FILMS = pd.DataFrame(
    {
        "user": ["ann", "bob", "ann", "cy", "bob", "cy"] * 8,
        "genres": ["Comedy|Drama", "Drama", "", "War|Drama|Comedy", "War", "Comedy"] * 8,
        "age": [31.0, 45.0, 31.0, None, 45.0, 18.0] * 8,
    }
)
STARS = np.array([5.0, 3.0, 4.0, 1.0, 2.0, 3.0] * 8)
ENCODER = FrameEncoder({"user": OneHot(), "genres": MultiHot("|"), "age": Numeric()})


def machine(n_features: int, n_factors: int, seed: int, dtype: Any = np.float32) -> FMParams:
    rng = np.random.default_rng(seed)
    V = rng.normal(size=(n_features, n_factors)).astype(dtype)
    return FMParams(float(rng.normal()), rng.normal(size=n_features).astype(dtype), V)


def rows_of(n_rows: int, n_features: int, seed: int) -> np.ndarray:
    """Rows of none to all non-zeros, of either sign; the first has none."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n_rows, n_features)) * (rng.random((n_rows, n_features)) < rng.random((n_rows, 1)))
    X[0] = 0
    return X.astype(np.float32)


def definition(draws: list[FMParams], X: np.ndarray, group: Any) -> dict[tuple[int, int, int], float]:
    """{(row, first, second or −1): value} of all rows, pair after pair of columns."""
    out: dict[tuple[int, int, int], float] = {}

    def add(key: tuple[int, int, int], value: float) -> None:
        out[key] = out.get(key, 0.0) + value / len(draws)

    for draw in draws:
        for i in range(len(X)):
            for j in range(X.shape[1]):
                if X[i, j] == 0:
                    continue
                add((i, int(group[j]), -1), float(draw.w[j]) * float(X[i, j]))
                for m in range(j + 1, X.shape[1]):
                    if X[i, m] == 0:
                        continue
                    product = sum(float(a) * float(b) for a, b in zip(draw.V[j], draw.V[m], strict=True))
                    low, high = sorted((int(group[j]), int(group[m])))
                    add((i, low, high), product * float(X[i, j]) * float(X[i, m]))
    return out


def drawn(draws: list[FMParams]) -> Posterior:
    n = len(draws)
    no_groups = np.zeros((n, 0, draws[0].n_factors + 1))
    w0, w, V = np.array([d.w0 for d in draws]), np.stack([d.w for d in draws]), np.stack([d.V for d in draws])
    return Posterior(w0, w, V, np.ones(n), no_groups, no_groups, np.zeros(n, np.int32))


def found_of(found: explain.Parts) -> dict[tuple[int, int, int], float]:
    keys = list(zip(found.row.tolist(), found.first.tolist(), found.second.tolist(), strict=True))
    assert len(set(keys)) == len(keys)
    return dict(zip(keys, found.value.tolist(), strict=True))


def totals(table: pd.DataFrame) -> np.ndarray:
    return table.groupby("row")["value"].sum().to_numpy()


def near(table: pd.DataFrame, scores: np.ndarray) -> None:
    """Within 1e-5 of what is added up, which float32 scores are uncertain by."""
    size = table["value"].abs().groupby(table["row"]).sum().to_numpy()
    assert (np.abs(totals(table) - scores) <= 1e-5 * size).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n_factors", [0, 1, 5])
@pytest.mark.parametrize("fields", [None, [0, 0, 0, 1, 1, 2, 0, 5, 2]])  # columns of a field need not be neighbours
@pytest.mark.parametrize("n_draws", [None, 3])
def test_parts_are_those_of_the_definition(dtype: Any, n_factors: int, fields: Any, n_draws: int | None) -> None:
    X = rows_of(25, 9, seed=n_factors)
    draws = [machine(9, n_factors, seed, dtype) for seed in range(n_draws or 1)]
    found = explain.parts(draws[0] if n_draws is None else drawn(draws), X, fields=fields)
    expected = definition(draws, X, range(9) if fields is None else fields)
    got = found_of(found)
    assert got.keys() == expected.keys()
    for key, value in expected.items():
        assert got[key] == pytest.approx(value, rel=1e-9, abs=1e-12)
    assert found.intercept == pytest.approx(np.mean([draw.w0 for draw in draws]))


def test_ones_and_wide_models_take_the_same_way() -> None:
    X = sp.csr_array((np.ones(4, np.float32), [3, 90_000, 7, 90_000], [0, 2, 2, 4]), shape=(3, 100_000))
    params = machine(100_000, 3, 0)
    seen = [3, 7, 90_000]
    expected = definition([FMParams(0.0, params.w[seen], params.V[seen])], X[:, seen].toarray(), range(3))
    assert len(expected) == 6
    got = found_of(explain.parts(params, X))
    place = {-1: -1, 3: 0, 7: 1, 90_000: 2}
    assert {(i, place[a], place[b]) for i, a, b in got} == expected.keys()
    for (i, a, b), value in got.items():
        assert value == pytest.approx(expected[i, place[a], place[b]], rel=1e-9)


def test_rows_without_a_non_zero_are_their_intercept() -> None:
    params = machine(4, 2, 0)
    for fields in (None, [0, 0, 1, 1]):
        table = explain.explanation(params, np.zeros((2, 4)), fields=fields)
        assert table[["row", "part", "first", "second"]].to_numpy().tolist() == [
            [0, "intercept", "", ""],
            [1, "intercept", "", ""],
        ]
        assert table["value"].tolist() == [params.w0] * 2
    assert explain.explanation(params, np.zeros((0, 4))).empty


def test_ten_thousand_rows_add_up_to_their_scores() -> None:
    rng = np.random.default_rng(0)
    n, sizes = 10_000, [200, 100, 7, 30]
    places = np.cumsum([0, *sizes[:-1]])
    cells = [sp.eye_array(size, format="csr")[rng.integers(0, size, n)] for size in sizes]
    cells[2] = sp.csr_array(rng.normal(size=(n, 7)) * (rng.random((n, 7)) < 0.4))  # several, of either sign
    X = sp.hstack(cells, format="csr", dtype=np.float32)
    y = X @ rng.normal(size=X.shape[1]) + rng.normal(size=n) > 0
    model = FMClassifier(8, solver=AdaGrad(max_iter=2), fields=np.repeat(range(4), sizes), random_state=0).fit(X, y)
    scores = model.decision_function(X)
    fields, columns = model.explain(X), model.explain(X, by="column")
    near(fields, scores)
    near(columns, scores)
    assert fields["first"].isin(["field 0", "field 1", "field 2", "field 3", ""]).all()
    # the fine table, summed up by the names of the fields, is the coarse one
    field_of = {f"column {j}": f"field {np.searchsorted(places, j, side='right') - 1}" for j in range(X.shape[1])}
    coarse = columns.assign(
        first=columns["first"].map(field_of).fillna(""), second=columns["second"].map(field_of).fillna("")
    )
    key = ["row", "part", "first", "second"]
    np.testing.assert_allclose(
        coarse.groupby(key)["value"].sum(), fields.set_index(key)["value"].sort_index(), rtol=1e-7, atol=1e-9
    )


def test_lines_are_sorted_and_named_by_the_encoder() -> None:
    model = FMRegressor(3, encoder=ENCODER, clip=False, random_state=0).fit(FILMS, STARS)
    fields, columns = model.explain(FILMS[:4]), model.explain(FILMS[:4], by="column")
    for table in (fields, columns):
        assert list(table.columns) == ["row", "part", "first", "second", "value"]
        near(table, model.predict(FILMS[:4]))
        for number, row in table.groupby("row"):
            assert (row["part"] == "intercept").tolist() == [True] + [False] * (len(row) - 1)
            assert row["value"].iloc[0] == pytest.approx(model.intercept_)
            assert (row["value"].iloc[1:].abs().diff().dropna() <= 0).all(), number
        assert ((table["second"] == "") == (table["part"] != "pair")).all()
        assert ((table["first"] == "") == (table["part"] == "intercept")).all()
    first = fields[fields["row"] == 0]
    assert set(zip(first["first"], first["second"], strict=True)) == {
        ("", ""), ("user", ""), ("genres", ""), ("age", ""),
        ("user", "genres"), ("user", "age"), ("genres", "age"), ("genres", "genres"),
    }  # fmt: skip
    names = columns[(columns["row"] == 0) & (columns["part"] == "linear")]["first"]
    assert sorted(names) == ["age", "genres=Comedy", "genres=Drama", "user=ann"]
    weight = dict(zip(model.encoder_.get_feature_names_out(), model.coef_, strict=True))
    ann = columns[(columns["row"] == 0) & (columns["first"] == "user=ann") & (columns["second"] == "")]
    assert ann["value"].tolist() == pytest.approx([weight["user=ann"]])


def test_the_intercept_comes_first_however_small() -> None:
    params = FMParams(0.25, np.array([1.0, -2.0]), np.array([[3.0], [4.0]]))
    table = explain.explanation(params, [[1.0, 10.0]], columns=["a", "b"])
    assert table.to_numpy().tolist() == [
        [0, "intercept", "", "", 0.25],
        [0, "pair", "a", "b", 120.0],
        [0, "linear", "b", "", -20.0],
        [0, "linear", "a", "", 1.0],
    ]


def test_names_without_a_frame_encoder() -> None:
    X, y = np.random.default_rng(0).normal(size=(40, 3)), np.arange(40.0)
    plain = FMRegressor(2, random_state=0).fit(X, y).explain(X[:1])
    assert set(plain["first"]) == {"", "column 0", "column 1", "column 2"}
    frame = pd.DataFrame(X, columns=["width", "height", "depth"])
    named = FMRegressor(2, random_state=0).fit(frame, y).explain(frame[:1])
    assert set(named["first"]) == {"", "width", "height", "depth"}

    class Scaled(TransformerMixin, BaseEstimator):  # type: ignore[misc]
        def fit(self, X: Any, y: Any = None) -> Any:
            self.feature_names_in_, self.n_features_in_ = np.array(X.columns, object), X.shape[1]
            return self

        def transform(self, X: Any) -> Any:
            return sp.csr_array(2 * X.to_numpy()[:, ::-1])

    made = FMRegressor(2, encoder=Scaled(), random_state=0).fit(frame, y).explain(frame[:1])
    assert set(made["first"]) == set(plain["first"])  # names of what went in are none of what came out


def test_draws_give_the_mean_score() -> None:
    X, y = ratings()
    fields = np.repeat([0, 1], [12, 10])
    model = FMRegressor(3, solver=SHORT, fields=fields, clip=False, random_state=0).fit(X, y)
    for by in ("field", "column"):
        near(model.explain(X, by=by), model.predict(X))
    draws = [model.posterior_[i] for i in range(6)]
    some = X.toarray()[:20]
    expected = definition(draws, some, fields)
    table = model.explain(some)
    number = {"field 0": 0, "field 1": 1, "": -1}
    lines = table[table["part"] != "intercept"]
    got = {(r, number[a], number[b]): v for r, _, a, b, v in lines.itertuples(index=False)}
    assert got == pytest.approx(expected, rel=1e-6)
    ordinal = FMOrdinal(3, solver=SHORT, random_state=0).fit(X, y.round())
    near(ordinal.explain(X), np.mean(list(ordinal.posterior_.scores(X)), axis=0))
    probit = FMClassifier(3, solver=SHORT, random_state=0).fit(X, y > 3)
    near(probit.explain(X), np.mean(list(probit.posterior_.scores(X)), axis=0))


@pytest.mark.parametrize("solver", ["adagrad", SHORT])
def test_classes_are_explained_one_at_a_time(solver: Any) -> None:
    X, y = ratings()
    two = FMClassifier(3, solver="adagrad", random_state=0).fit(X, y > 3)
    near(two.explain(X), two.decision_function(X))
    level = np.array(["low", "middle", "high"])[np.digitize(y, [2.5, 4])]
    model = FMClassifier(3, solver=solver, fields=np.repeat([0, 1], [12, 10]), random_state=0).fit(X, level)
    for i, label in enumerate(model.classes_):
        scores = model.decision_function(X)[:, i]
        if model.posterior_ is not None:
            scores = np.mean(list(model.posterior_[i].scores(X)), axis=0)
        near(model.explain(X, label=label), scores)
        assert len(model.field_importance(X, label=label)) == 3
    for refused in (model.explain, model.field_importance):
        for label in (None, "none"):
            with pytest.raises(ValueError, match="label must be the class"):
                refused(X, label=label)
    for refused in (two.explain, two.field_importance):
        with pytest.raises(ValueError, match="more than two classes"):
            refused(X, label=True)


def test_blocks_and_histories_are_seen_as_rows() -> None:
    rng = np.random.default_rng(0)
    index, own, said = rng.integers(0, 5, 60), rng.normal(size=(60, 2)), rng.normal(size=(5, 3))
    X, flat = [own, RelationBlock(index, said)], np.hstack([own, said[index]])
    model = FMRegressor(2, solver=SHORT, random_state=0).fit(X, rng.normal(size=60))
    pd.testing.assert_frame_equal(model.explain(X), model.explain(flat))
    frame = pd.DataFrame({"user_id": rng.integers(0, 6, 80), "item_id": rng.integers(0, 9, 80)}).drop_duplicates()
    encoder = FrameEncoder({"user_id": OneHot(), "seen": History(own=True), "item_id": OneHot()})
    target = rng.normal(size=len(frame))
    histories = FMRegressor(2, solver=SHORT, encoder=encoder, clip=False, random_state=0).fit(frame, target)
    table = histories.explain(frame)
    near(table, histories.predict(frame))
    assert ((table["first"] == "seen") & (table["second"] == "seen")).any()


@pytest.mark.parametrize("at_once", [1, 40, 1 << 20])  # parts held: blocks of one row, of a few, of all
@pytest.mark.parametrize("n_draws", [None, 2])
def test_importance_is_the_deviation_of_the_parts(
    at_once: int, n_draws: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(explain, "_AT_ONCE", at_once)
    fields, X = [0, 0, 4, 4, 2, 7], rows_of(30, 6, seed=3)
    X[:, 5], X[:, 4] = 1, X[:, 4] + 1000  # a part that never differs, and one far from zero
    draws = [machine(6, 2, seed, np.float64) for seed in range(n_draws or 1)]
    found = explain.importance(draws[0] if n_draws is None else drawn(draws), X, fields=fields)
    every = {(a, b): np.zeros(30) for a in (0, 2, 4, 7) for b in (-1, 0, 2, 4, 7) if b == -1 or a < b}
    for (row, a, b), value in definition(draws, X, fields).items():
        every.setdefault((a, b), np.zeros(30))[row] = value
    assert every.keys() >= {(0, 0), (4, 4)}  # two columns of a field in a row
    names = {-1: ""} | {f: f"field {f}" for f in fields}
    got = {(a, b): value for a, b, value in found.itertuples(index=False)}
    assert got == pytest.approx({(names[a], names[b]): v.std() for (a, b), v in every.items()}, rel=1e-9, abs=1e-9)
    assert (np.diff(found["importance"]) <= 0).all()
    assert list(found.columns) == ["first", "second", "importance"]


def test_importance_names_fields_and_finds_the_one_that_matters() -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({name: rng.integers(0, 4, 2000).astype(str) for name in ("noise", "a", "b", "hour")})
    same = frame["a"] == frame["b"]
    encoder = FrameEncoder({name: OneHot() for name in frame})
    model = FMRegressor(4, encoder=encoder, random_state=0).fit(frame, 2.0 * same + frame["hour"].astype(int))
    found = model.field_importance(frame)
    assert len(found) == 4 + 6
    assert found[["first", "second"]].to_numpy().tolist()[:2] == [["hour", ""], ["a", "b"]]
    assert (found["importance"][2:] < 0.3 * found["importance"][1]).all()


def test_what_cannot_be_explained_is_refused() -> None:
    X, y = ratings()
    for unfitted in (FMRegressor(), FMClassifier(), FMOrdinal()):
        with pytest.raises(NotFittedError):
            unfitted.explain(X)
        with pytest.raises(NotFittedError):
            unfitted.field_importance(X)
    model = FMRegressor(3, solver=AdaGrad(max_iter=1), random_state=0).fit(X, y)
    with pytest.raises(ValueError, match="by must be 'column', 'field' or None, got 'rows'"):
        model.explain(X, by="rows")
    with pytest.raises(ValueError, match=r"by='field' needs to know the fields: give an encoder, or fields="):
        model.explain(X, by="field")
    with pytest.raises(ValueError, match=r"field_importance needs to know the fields: give an encoder, or fields="):
        model.field_importance(X)
    for refused in (model.explain, model.field_importance):
        with pytest.raises(ValueError, match="21 features, but FMRegressor is expecting 22"):
            refused(X[:, :21])
    with pytest.raises(ValueError, match="too large for float32"):
        explain.parts(model.params_, 1e300 * X.astype(np.float64))
    with pytest.raises(ValueError, match="21 columns, but 22 are expected"):
        explain.parts(model.params_, X[:, :21])
    wrong: list[Any] = [np.zeros(21, int), np.zeros(22), np.arange(-1, 21)]
    for fields in wrong:
        for function in (explain.parts, explain.importance):
            with pytest.raises(ValueError, match="number of the field of each of the 22 columns"):
                function(model.params_, X, fields=fields)
    with pytest.raises(ValueError, match="0 rows"):
        explain.importance(model.params_, np.zeros((0, 22)), fields=np.zeros(22, int))


def test_too_many_lines_are_refused_before_they_are_made() -> None:
    X, params, fields = np.ones((30, 900)), machine(900, 1, 0), np.arange(900) // 300
    message = r"30 rows with up to 900 columns each have 12,163,530 parts, more than 10,000,000: .* by='field'"
    with pytest.raises(ValueError, match=message):
        explain.explanation(params, X, by="column", fields=fields)
    assert len(explain.explanation(params, X, fields=fields)) == 30 * (1 + 3 + 6)
    by_column = explain.explanation(params, X[:2], by="column", fields=fields)
    near(by_column, totals(explain.explanation(params, X[:2], fields=fields)))
    with pytest.raises(ValueError, match="5000 fields make more than"):
        explain.importance(machine(5000, 1, 0), np.ones((1, 5000)), fields=np.arange(5000))


def test_explaining_changes_nothing() -> None:
    X, y = ratings()
    model = FMRegressor(3, fields=np.repeat([0, 1], [12, 10]), random_state=0).fit(X, y)
    before, w, V = X.copy(), model.coef_.copy(), model.factors_.copy()
    first = model.explain(X)
    model.field_importance(X)
    pd.testing.assert_frame_equal(model.explain(X), first)
    for now, then in ((X.toarray(), before.toarray()), (model.coef_, w), (model.factors_, V)):
        np.testing.assert_array_equal(now, then)
