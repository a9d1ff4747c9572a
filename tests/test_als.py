"""Alternating least squares behind the estimators: what it minimises, and all that a fit promises."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.utils.estimator_checks import parametrize_with_checks

from sparsefm import FMClassifier, FMRegressor, FrameEncoder, OneHot, load
from sparsefm.model import FMParams
from sparsefm.solvers import ALS, AdaGrad
from sparsefm.validation import RelationBlock

# A few passes need not have converged.
ANY_FIT = pytest.mark.filterwarnings("ignore:ALS ended after")
BOTH = pytest.mark.parametrize("kind", [FMRegressor, FMClassifier])
FIELDS = np.repeat([0, 1, 2, 3], [8, 3, 6, 2])


def ratings(n: int = 160, seed: int = 0, *, dtype: Any = np.float64) -> tuple[np.ndarray, np.ndarray]:
    """Rows of a user, his age, a film and two numbers; column 7 never comes. y has a spread of about 2."""
    rng = np.random.default_rng(seed)
    user, film = rng.integers(0, 7, n), rng.integers(0, 6, n)
    age, taste, kind = rng.integers(0, 3, 7), rng.normal(size=(7, 2)), rng.normal(size=(6, 2))
    dense = np.hstack(
        [
            user[:, None] == np.arange(8),
            age[user][:, None] == np.arange(3),
            film[:, None] == np.arange(6),
            rng.normal(size=(n, 2)),
        ]
    )
    y = 5 + 1.5 * np.einsum("ij,ij->i", taste[user], kind[film]) + dense[:, -1] + 0.3 * rng.normal(size=n)
    return dense.astype(dtype), y


def blocks_of(X: np.ndarray) -> list[Any]:
    """The same columns in the same order: users with their ages, films, and the rows' own numbers as a block too."""
    blocks = []
    for start, stop in ((0, 11), (11, 17), (17, 19)):
        rows, index = np.unique(X[:, start:stop], axis=0, return_inverse=True)
        blocks.append(RelationBlock(index.ravel(), rows))
    return blocks


def labels(kind: type, y: np.ndarray) -> np.ndarray:
    return y > np.median(y) if kind is FMClassifier else y


def model_of(kind: type, max_iter: int = 20, *, tol: float = 1e-4, n_factors: int = 3, **options: Any) -> Any:
    return kind(n_factors, solver=ALS(max_iter=max_iter, tol=tol), **{"random_state": 0, "init_std": 0.1} | options)


def strengths(model: Any, n_features: int) -> np.ndarray:
    by_field = model.l2_factors
    if not isinstance(by_field, dict):
        return np.full(n_features, by_field)
    return np.array([by_field[field] for field in model.fields])


def objective(
    model: Any, params: FMParams, X: np.ndarray, y: np.ndarray, weight: np.ndarray | None = None
) -> tuple[float, np.ndarray]:
    """As its documentation says, and its gradient by w0, w and V in one vector; in the target's own units."""
    s = np.ones(len(y)) if weight is None else weight / weight.mean()
    w, V, n = params.w.astype(float), params.V.astype(float), len(y)
    S = X @ V
    score = params.w0 + X @ w + np.einsum("ij,jl,il->i", X, np.triu(V @ V.T, 1), X)
    if isinstance(model, FMRegressor):
        loss, slope = (score - y) ** 2 / 2, score - y
    else:
        loss, slope = np.logaddexp(0, score) - y * score, 1 / (1 + np.exp(-score)) - y
    times = (X != 0).T @ s
    c = np.where(times > 0, times + model.l2_prior, 0) / n
    factors = strengths(model, X.shape[1])
    value = (s @ loss) / n + 0.5 * (c @ (model.l2_linear * w**2 + factors * (V**2).sum(axis=1)))
    d = s * slope / n
    by_V = X.T @ (d[:, None] * S) - ((X**2).T @ d)[:, None] * V + (c * factors)[:, None] * V
    return float(value), np.concatenate([[d.sum()], X.T @ d + c * model.l2_linear * w, by_V.ravel()])


def weights(n: int, seed: int = 0) -> np.ndarray:
    return 0.2 + np.random.default_rng(seed).random(n)


# ------------------------------------------------------------------------------------------ scikit-learn


# some checks fit pure noise or columns of mean 100, on which a few passes are not enough: our warning is right
@ANY_FIT
@parametrize_with_checks([FMRegressor(l2_prior=0, solver=ALS()), FMClassifier(l2_prior=0, solver=ALS())])
def test_scikit_learn_conventions_hold(estimator, check):
    check(estimator)


# ------------------------------------------------------------------------------------------ the objective


def test_the_gradient_of_these_tests_is_right() -> None:
    X, y = ratings(40)
    rng = np.random.default_rng(0)
    for kind in (FMRegressor, FMClassifier):
        model = model_of(kind, l2_factors={0: 0.1, 1: 0.2, 2: 0.3, 3: 0.4}, fields=FIELDS)
        theta = rng.normal(size=1 + 19 * 4)

        def at(theta: np.ndarray) -> tuple[float, np.ndarray]:
            params = FMParams(float(theta[0]), theta[1:20], theta[20:].reshape(19, 3))
            return objective(model, params, X, labels(kind, y) * 1.0, weights(40))  # noqa: B023

        slopes = [(at(theta + 1e-6 * e)[0] - at(theta - 1e-6 * e)[0]) / 2e-6 for e in np.eye(len(theta))]
        np.testing.assert_allclose(at(theta)[1], slopes, atol=1e-6)


@ANY_FIT
@BOTH
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("by_field", [False, True])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_every_pass_lowers_the_objective(kind: type, weighted: bool, by_field: bool, dtype: Any) -> None:
    X, y = ratings(dtype=dtype)
    y = labels(kind, y)
    s = weights(len(y)) if weighted else None
    l2 = {"l2_factors": {0: 0.01, 1: 0.3, 2: 0.05, 3: 0.02}, "fields": FIELDS} if by_field else {"l2_factors": 0.05}
    values = []
    for max_iter in range(1, 11):
        model = model_of(kind, max_iter, tol=0, l2_linear=0.02, l2_prior=5.0, **l2).fit(X, y, sample_weight=s)
        assert model.params_.w.dtype == dtype
        values.append(objective(model, model.params_, X.astype(float), y * 1.0, s)[0])
    start = FMParams(float(np.average(y, weights=s)), np.zeros(19), np.zeros((19, 3)))
    if kind is FMRegressor:
        assert values[0] < objective(model, start, X, y * 1.0, s)[0]
    assert (np.diff(values) <= (0 if dtype == np.float64 else 1e-6)).all()
    assert values[-1] < 0.95 * values[0]


@ANY_FIT
@BOTH
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("blocks", [False, True])
def test_where_it_ends_the_gradient_is_zero(kind: type, weighted: bool, blocks: bool) -> None:
    X, y = ratings()
    y = labels(kind, y)
    s = weights(len(y)) if weighted else None
    l2_factors = {0: 0.05, 1: 0.2, 2: 0.04, 3: 0.1}
    model = model_of(kind, 1500, tol=0, l2_linear=0.02, l2_prior=2.0, l2_factors=l2_factors, fields=FIELDS)
    model.fit(blocks_of(X) if blocks else X, y, sample_weight=s)
    value, gradient = objective(model, model.params_, X, y * 1.0, s)
    assert np.abs(gradient).max() < 1e-6
    assert np.abs(model.factors_).max() > 0.1  # not the linear model
    assert not model.factors_[7].any()
    assert model.history_[-1]["loss"] < value


@ANY_FIT
@BOTH
def test_the_loss_of_the_record_is_that_of_the_parameters(kind: type) -> None:
    X, y = ratings()
    y = labels(kind, y)
    s = weights(len(y))
    model = model_of(kind, 4, tol=0).fit(X, y, sample_weight=s)
    assert [record["epoch"] for record in model.history_] == [1, 2, 3, 4]
    free = clone(model).set_params(l2_linear=0, l2_factors=0)
    loss, _ = objective(free, model.params_, X, y * 1.0, s)
    np.testing.assert_allclose(model.history_[-1]["loss"], loss, rtol=1e-9)
    assert all(record["seconds"] >= 0 for record in model.history_)


@pytest.mark.parametrize("weighted", [False, True])
def test_without_factors_it_is_ridge_regression(weighted: bool) -> None:
    X, y = ratings()
    X = X[:, [0, 1, 2, 3, 4, 5, 6, 17, 18]]
    n, s = len(y), weights(len(y)) if weighted else np.ones(len(y))
    s = s / s.mean()
    model = model_of(FMRegressor, 2000, tol=1e-26, n_factors=0, l2_linear=0.3, l2_prior=4.0)
    model.fit(X, y, sample_weight=s if weighted else None)
    root = np.sqrt(0.3 * ((X != 0).T @ s + 4))  # columns so scaled have one penalty for all
    ridge = Ridge(alpha=1.0, solver="cholesky", tol=0).fit(X / root, y, sample_weight=s)
    np.testing.assert_allclose(model.coef_, ridge.coef_ / root, atol=1e-9)
    np.testing.assert_allclose(model.intercept_, ridge.intercept_, atol=1e-9)
    assert model.factors_.shape == (9, 0)
    assert n == len(model._scores(X))


@ANY_FIT
@BOTH
def test_a_column_never_seen_scores_zero(kind: type) -> None:
    X, y = ratings()
    model = model_of(kind, 5).fit(X, labels(kind, y))
    assert not X[:, 7].any()
    assert model.coef_[7] == 0
    assert not model.factors_[7].any()
    seen = X.copy()
    seen[:, 7] = 3
    np.testing.assert_array_equal(model._scores(seen), model._scores(X))


@ANY_FIT
def test_several_classes_one_against_the_rest() -> None:
    X, y = ratings()
    y = np.digitize(y, [4, 6])
    model = model_of(FMClassifier, 6, l2_factors=0.02).fit(X, y)
    for one in range(3):
        alone = model_of(FMClassifier, 6, l2_factors=0.02).fit(X, y == one)
        np.testing.assert_allclose(model.coef_[one], alone.coef_, atol=1e-12)
    assert model.score(X, y) > 0.8


@ANY_FIT
@BOTH
def test_what_it_learns_is_of_use_and_the_same_at_any_number_of_threads(kind: type) -> None:
    X, y = ratings(1200, dtype=np.float32)
    y = labels(kind, y)
    options = {"l2_linear": 0.001, "l2_factors": 0.01, "l2_prior": 1.0}
    model = model_of(kind, 15, n_threads=1, **options).fit(X[:800], y[:800])
    assert model.score(X[800:], y[800:]) > 0.85
    other = model_of(kind, 15, n_threads=3, **options).fit(X[:800], y[:800])
    np.testing.assert_array_equal(model._scores(X), other._scores(X))


def test_a_constant_target_is_predicted() -> None:
    X, y = ratings()
    model = model_of(FMRegressor).fit(X, np.full(len(y), 7.25))
    np.testing.assert_array_equal(model.predict(X), 7.25)
    assert model.n_iter_ < 20


# ------------------------------------------------------------------------------------------ weights


@ANY_FIT
@BOTH
def test_a_weight_is_so_many_rows(kind: type) -> None:
    X, y = ratings(90)
    y = labels(kind, y)
    times = np.random.default_rng(1).integers(0, 4, len(y))
    one = model_of(kind, 12, tol=0, l2_prior=0, l2_factors=0.05).fit(X, y, sample_weight=times)
    many = model_of(kind, 12, tol=0, l2_prior=0, l2_factors=0.05).fit(np.repeat(X, times, axis=0), np.repeat(y, times))
    np.testing.assert_allclose(one._scores(X), many._scores(X), rtol=0, atol=1e-9)
    np.testing.assert_allclose(one.factors_, many.factors_, rtol=0, atol=1e-9)
    np.testing.assert_allclose(one.history_[-1]["loss"], many.history_[-1]["loss"], rtol=1e-9)


@ANY_FIT
@BOTH
@pytest.mark.parametrize("blocks", [False, True])
def test_rows_of_weight_zero_do_not_count(kind: type, blocks: bool) -> None:
    X, y = ratings(120)
    y = labels(kind, y)
    s = weights(len(y))
    rng = np.random.default_rng(4)
    off = rng.random(len(y)) < 0.2
    s[off] = 0
    strange = X.copy()
    strange[off, 8:11] = np.roll(strange[off, 8:11], 1, axis=1)  # here the age does not follow from the user
    strange[off, 17:] *= 100
    wrong = y.copy()
    wrong[off] = ~y[off] if kind is FMClassifier else 1e3
    options = {"tol": 0, "l2_factors": 0.05}
    given, kept = (blocks_of(strange), blocks_of(X[~off])) if blocks else (strange, X[~off])
    model = model_of(kind, 8, **options).fit(given, wrong, sample_weight=s)
    without = model_of(kind, 8, **options).fit(kept, y[~off], sample_weight=s[~off])
    np.testing.assert_allclose(model._scores(X), without._scores(X), rtol=0, atol=1e-9)


@ANY_FIT
@BOTH
def test_only_the_ratios_of_weights_count(kind: type) -> None:
    X, y = ratings()
    y, s = labels(kind, y), weights(160)
    found = [model_of(kind, 3).fit(X, y, sample_weight=c * s)._scores(X) for c in (1, 1e-3, 64)]
    np.testing.assert_allclose(found[1], found[0], atol=1e-11)
    np.testing.assert_allclose(found[2], found[0], atol=1e-11)
    even = model_of(kind, 3).fit(X, y, sample_weight=np.full(160, 2.0))
    np.testing.assert_array_equal(even._scores(X), model_of(kind, 3).fit(X, y)._scores(X))


# ------------------------------------------------------------------------------------------ a fit


def assert_same(one: Any, other: Any) -> None:
    np.testing.assert_array_equal(one.coef_, other.coef_)
    np.testing.assert_array_equal(one.factors_, other.factors_)
    assert one.intercept_ == other.intercept_


@ANY_FIT
@BOTH
def test_cloned_pickled_and_saved(kind: type, tmp_path: Path) -> None:
    X, y = ratings(dtype=np.float32)
    y = labels(kind, y)
    model = model_of(kind, 5).fit(X, y)
    assert clone(model).solver is not model.solver
    assert_same(clone(model).fit(X, y), model)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict(X), model.predict(X))
    assert_same(again.fit(X, y), model)
    model.save(tmp_path / "model")
    loaded = load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.predict(X), model.predict(X))
    np.testing.assert_array_equal(loaded._scores(X), model._scores(X))
    assert isinstance(loaded.solver, ALS)
    assert loaded.solver.get_params() == model.solver.get_params()


@ANY_FIT
def test_by_name_with_a_frame_and_in_a_search() -> None:
    X, y = ratings()
    frame = pd.DataFrame({"user": X[:, :8].argmax(axis=1).astype(str), "film": X[:, 11:17].argmax(axis=1).astype(str)})
    encoder = FrameEncoder({"user": OneHot(), "film": OneHot()})
    model = FMRegressor(3, solver="als", encoder=encoder, random_state=0, l2_factors={"user": 0.1, "film": 0.2})
    assert model.fit(frame, y).score(frame, y) > 0.3
    listed = model.recommend(frame[["user"]].head(2), frame[["film"]].drop_duplicates(), user="user", item="film", k=3)
    assert len(listed) == 6
    search = GridSearchCV(model_of(FMRegressor, 8, l2_prior=1.0, l2_factors=0.05), {"n_factors": [0, 3]}, cv=3)
    search.fit(X, y)
    assert search.best_params_ == {"n_factors": 3}
    search = GridSearchCV(model_of(FMRegressor, 8), {"solver__max_iter": [1, 4]}, cv=2).fit(X, y)
    assert search.best_estimator_.solver.max_iter == search.best_params_["solver__max_iter"]


@ANY_FIT
@BOTH
def test_warm_start_goes_on(kind: type) -> None:
    X, y = ratings()
    y = labels(kind, y)
    options = {"l2_factors": 0.05, "tol": 0}
    whole = model_of(kind, 7, **options).fit(X, y)
    model = model_of(kind, 3, warm_start=True, **options).fit(X, y)
    model.set_params(solver__max_iter=4).fit(X, y)
    np.testing.assert_allclose(model._scores(X), whole._scores(X), rtol=0, atol=1e-10)
    assert len(model.history_) == 7
    np.testing.assert_allclose(
        [record["loss"] for record in model.history_], [record["loss"] for record in whole.history_], rtol=1e-9
    )


@ANY_FIT
@BOTH
def test_early_stopping_keeps_the_best_pass(kind: type) -> None:
    X, y = ratings(120)
    y = labels(kind, y)
    noise = np.random.default_rng(3).permutation(y[80:])
    weak = {"l2_factors": 1e-4, "l2_linear": 1e-4, "l2_prior": 0.0}
    model = model_of(kind, 60, tol=0, n_factors=6, early_stopping=True, **weak).set_params(solver__patience=4)
    model.fit(X[:80], y[:80], eval_set=(X[80:], noise))
    watched = [record["eval_loss"] for record in model.history_]
    best = int(np.argmin(watched)) + 1
    assert len(watched) == min(60, best + 4)
    assert len(watched) < 60
    same = clone(model).set_params(early_stopping=False, solver__max_iter=best).fit(X[:80], y[:80])
    assert_same(model, same)
    scored = clone(model).set_params(eval_metric="rmse" if kind is FMRegressor else "auc")
    scored.fit(X[:80], y[:80], eval_set=(X[80:], y[80:], weights(40)))
    metric = [record["eval_metric"] for record in scored.history_]
    assert len(metric) == min(60, 1 + int(np.argmin(metric) if kind is FMRegressor else np.argmax(metric)) + 4)
    aside = clone(model).set_params(validation_fraction=0.25).fit(X, y)
    assert "eval_loss" in aside.history_[-1]


@ANY_FIT
@BOTH
def test_callbacks_see_and_stop(kind: type) -> None:
    X, y = ratings()
    y = labels(kind, y)
    seen = []

    def stop(model: Any, record: dict[str, Any]) -> bool:
        seen.append(record["epoch"])
        return bool(record["epoch"] == 3)

    with warnings.catch_warnings():
        warnings.simplefilter("error")  # it did not end by itself
        model = model_of(kind, 9, tol=0, callbacks=[stop]).fit(X, y)
    assert seen == [1, 2, 3]
    assert model.n_iter_ == 3
    assert_same(model, model_of(kind, 3, tol=0).fit(X, y))


@ANY_FIT
@BOTH
def test_an_interruption_after_the_first_pass_leaves_a_model(kind: type, tmp_path: Path) -> None:
    X, y = ratings()
    y = labels(kind, y)

    def press(model: Any, record: dict[str, Any]) -> None:
        if record["epoch"] == 3:
            raise KeyboardInterrupt

    model = model_of(kind, 9, tol=0, callbacks=[press])
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, y)
    assert [record["epoch"] for record in model.history_] == [1, 2, 3]
    expected = model_of(kind, 3, tol=0).fit(X, y)
    assert_same(model, expected)
    model.save(tmp_path / "model")
    np.testing.assert_array_equal(load(tmp_path / "model").predict(X), expected.predict(X))


@ANY_FIT
@BOTH
def test_interrupted_with_early_stopping_the_best_pass_is_kept(kind: type) -> None:
    X, y = ratings(120)
    y = labels(kind, y)

    def press(model: Any, record: dict[str, Any]) -> None:
        if record["epoch"] == 4:
            raise KeyboardInterrupt

    weak = {"l2_factors": 1e-4, "l2_linear": 1e-4, "l2_prior": 0.0}
    model = model_of(kind, 60, tol=0, n_factors=6, early_stopping=True, callbacks=[press], **weak)
    model.set_params(solver__patience=50)
    noise = np.random.default_rng(3).permutation(y[80:])
    with pytest.raises(KeyboardInterrupt):
        model.fit(X[:80], y[:80], eval_set=(X[80:], noise))
    watched = [record["eval_loss"] for record in model.history_]
    best = int(np.argmin(watched)) + 1
    assert best < len(watched) == 4
    assert_same(model, model_of(kind, best, tol=0, n_factors=6, **weak).fit(X[:80], y[:80]))


@BOTH
@pytest.mark.parametrize("fitted", [False, True])
def test_an_interruption_of_the_first_pass_changes_nothing(kind: type, fitted: bool) -> None:
    X, y = ratings()
    y = labels(kind, y)

    def press(model: Any, record: dict[str, Any]) -> None:
        raise KeyboardInterrupt

    model = model_of(kind, 50, l2_prior=20.0)
    if fitted:
        model.fit(X, y)
    model.set_params(callbacks=[press])
    before = dict(model.__dict__)
    with pytest.raises(KeyboardInterrupt):
        model.fit(X[:100], y[:100])
    assert model.__dict__ == before


def test_a_warm_start_keeps_columns_that_are_no_more() -> None:
    X = np.eye(4)[np.random.default_rng(0).integers(0, 4, 60)]
    y = X @ [1.0, 2.0, 3.0, 9.0]
    model = FMRegressor(2, solver=ALS(max_iter=5), warm_start=True, random_state=0, l2_prior=1.0).fit(X, y)
    before, kept = model.coef_[3], X[:, 3] == 0
    assert abs(before) > 1
    np.testing.assert_allclose(model.fit(X[kept], y[kept]).coef_[3], before, rtol=1e-6)


def test_a_block_without_columns_says_nothing() -> None:
    blocks = [np.eye(4), RelationBlock([0, 1, 1, 0], np.empty((2, 0)))]
    model = FMRegressor(2, solver="als", random_state=0).fit(blocks, [0.0, 1.0, 1.0, 3.0])
    expected = FMRegressor(2, solver="als", random_state=0).fit(np.eye(4), [0.0, 1.0, 1.0, 3.0])
    np.testing.assert_array_equal(model.predict(blocks), expected.predict(np.eye(4)))


def test_a_fit_worse_than_a_constant_says_what_to_do() -> None:
    X = (np.random.default_rng(0).normal(size=(200, 3)) * 1e8).astype(np.float32)
    with pytest.warns(ConvergenceWarning, match="worse than a constant.*Scale numeric columns"):
        FMRegressor(2, solver=ALS(max_iter=30), random_state=0).fit(X, X[:, 0] / 1e8)


def test_what_it_does_not_do_is_refused(tmp_path: Path) -> None:
    X, y = ratings()
    for loss in ("poisson", "huber", "quantile"):
        with pytest.raises(ValueError, match=rf"'squared' or 'logistic', not '{loss}'"):
            FMRegressor(loss=loss, solver="als").fit(X, np.round(np.abs(y)))
    for loss in ("hinge", "probit"):
        with pytest.raises(ValueError, match=rf"'squared' or 'logistic', not '{loss}'"):
            FMClassifier(loss=loss, solver="als").fit(X, y > 5)
    for model in (FMRegressor(solver="als"), FMClassifier(solver=ALS())):
        with pytest.raises(AttributeError, match="no attribute 'partial_fit'"):
            model.partial_fit(X, y > 5)
        with pytest.raises(TypeError, match="needs a first-order solver"):
            model.fit_stream([(X, y > 5)])
        assert not hasattr(model, "params_")
    path = tmp_path / "checkpoint"
    FMRegressor(2, solver=AdaGrad(max_iter=2, checkpoint=path), random_state=0).fit(X, y)
    with pytest.raises(ValueError, match=r"resume.*'als' does not"):
        FMRegressor(2, solver="als").fit(X, y, resume=path)


@pytest.mark.parametrize("value", [0, -1, 1.5, "3", None, True])
@pytest.mark.parametrize("name", ["max_iter", "patience"])
def test_options_are_checked(name: str, value: Any) -> None:
    X, y = ratings(30)
    with pytest.raises(ValueError, match=rf"ALS\({name}\) must be a positive integer"):
        FMRegressor(solver=ALS(**{name: value})).fit(X, y)


@pytest.mark.parametrize("value", [-1e-9, np.nan, np.inf, "0", None])
def test_tol_is_checked(value: Any) -> None:
    X, y = ratings(30)
    with pytest.raises(ValueError, match=r"ALS\(tol\) must be a non-negative number"):
        FMRegressor(solver=ALS(tol=value)).fit(X, y)


@BOTH
def test_ending_early_is_warned_of_where_fit_was_called(kind: type) -> None:
    X, y = ratings()
    with pytest.warns(ConvergenceWarning, match=r"max_iter=2 passes.*raise max_iter or tol=1e-09") as caught:
        model_of(kind, 2, tol=1e-9).fit(X, labels(kind, y))
    assert [warning.filename for warning in caught] == [__file__]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        done = model_of(kind, 500, tol=1e-6, l2_factors=0.1).fit(X, labels(kind, y))
    assert done.n_iter_ < 500


# ------------------------------------------------------------------------------------------ blocks


def related(n: int = 150, dtype: Any = np.float64) -> tuple[list[Any], np.ndarray, np.ndarray]:
    """[X, users, films], the flat rows, and y."""
    X, y = ratings(n, dtype=dtype)
    users, films = (np.unique(X[:, part], axis=0, return_inverse=True) for part in (slice(0, 11), slice(11, 17)))
    own = sp.csr_array(X[:, 17:])
    given = [own, RelationBlock(users[1].ravel(), users[0]), RelationBlock(films[1].ravel(), sp.csr_array(films[0]))]
    return given, np.hstack([X[:, 17:], X[:, :17]]), y


@ANY_FIT
@BOTH
@pytest.mark.parametrize("weighted", [False, True])
def test_a_fit_to_blocks_is_one_to_their_rows(kind: type, weighted: bool) -> None:
    given, X, y = related()
    y = labels(kind, y)
    s = weights(len(y)) if weighted else None
    options = {"l2_factors": 0.1, "l2_linear": 0.05, "l2_prior": 3.0}
    model = model_of(kind, 600, tol=0, **options).fit(given, y, sample_weight=s)
    flat = model_of(kind, 600, tol=0, **options).fit(X, y, sample_weight=s)
    # which of equal minima is found depends on the order of the columns: both are stationary, and of one start
    for each in (model, flat):
        assert np.abs(objective(each, each.params_, X, y * 1.0, s)[1]).max() < 1e-6
    np.testing.assert_allclose(model.predict(given), model.predict(X), rtol=0, atol=1e-10)
    np.testing.assert_allclose(model._scores(given), model._scores(X), rtol=0, atol=1e-10)
    assert model.n_features_in_ == flat.n_features_in_ == X.shape[1]
    again = model_of(kind, 3, **options).fit(blocks_of(np.hstack([X[:, 2:], X[:, :2]])), y, sample_weight=s)
    ordered = model_of(kind, 3, **options).fit(np.hstack([X[:, 2:], X[:, :2]]), y, sample_weight=s)
    np.testing.assert_allclose(again.factors_, ordered.factors_, rtol=0, atol=1e-9)
    np.testing.assert_allclose(again.coef_, ordered.coef_, rtol=0, atol=1e-9)
    np.testing.assert_allclose(again.intercept_, ordered.intercept_, rtol=0, atol=1e-9)


@ANY_FIT
@BOTH
def test_a_block_may_have_rows_that_nobody_has(kind: type, tmp_path: Path) -> None:
    given, X, y = related()
    y = labels(kind, y)
    users = given[1]
    more = RelationBlock(users.index + 2, np.vstack([np.ones((2, 11)), users.X, np.ones((1, 11))]))
    plain = model_of(kind, 4).fit(given, y)
    model = model_of(kind, 4).fit([given[0], more, given[2]], y)
    np.testing.assert_allclose(model._scores(X), plain._scores(X), rtol=0, atol=1e-10)
    assert not model.factors_[9].any()  # column 7 of `ratings`, which no row has
    some = [given[0][:5], RelationBlock(users.index[:5], users.X), RelationBlock(given[2].index[:5], given[2].X)]
    np.testing.assert_allclose(model.predict(some), model.predict(X[:5]), rtol=0, atol=1e-10)
    model.save(tmp_path / "model")
    np.testing.assert_array_equal(load(tmp_path / "model").predict(given), model.predict(given))
    without = [RelationBlock(users.index, users.X), RelationBlock(given[2].index, given[2].X)]
    for lists in ([None, *without], without, tuple(without)):
        found = model_of(kind, 2).fit(lists, y)
        np.testing.assert_allclose(found._scores(lists), found._scores(X[:, 2:]), rtol=0, atol=1e-10)


@ANY_FIT
@BOTH
def test_blocks_of_float32_and_ones(kind: type) -> None:
    given, X, y = related(dtype=np.float32)
    model = model_of(kind, 4).fit(given, labels(kind, y))
    assert model.coef_.dtype == np.float32
    wide = [given[0], given[1], RelationBlock(given[2].index.astype(np.uint8), given[2].X.astype(np.float64))]
    other = model_of(kind, 4).fit(wide, labels(kind, y))
    assert other.coef_.dtype == np.float64
    np.testing.assert_allclose(model._scores(X), other._scores(X), rtol=0, atol=1e-3)


@BOTH
def test_a_first_order_solver_sees_the_flat_rows(kind: type) -> None:
    given, X, y = related(dtype=np.float32)
    y = labels(kind, y)
    options = {"solver": AdaGrad(max_iter=3), "random_state": 0, "n_threads": 1}
    model, flat = kind(4, **options).fit(given, y), kind(4, **options).fit(X, y)
    assert_same(model, flat)


@ANY_FIT
@BOTH
def test_the_watched_rows_may_be_blocks_too(kind: type) -> None:
    given, X, y = related()
    y = labels(kind, y)
    found = [
        model_of(kind, 6, tol=0, early_stopping=True).fit(given, y, eval_set=(watched, y)) for watched in (given, X)
    ]
    assert_same(*found)
    with pytest.raises(ValueError, match=r"early_stopping.*needs eval_set"):
        model_of(kind, 6, early_stopping=True).fit(given, y)


INDEX = np.array([0, 1, 1, 0])
WRONG: dict[str, tuple[Any, type[Exception], str]] = {
    "too large": (
        lambda B: [None, RelationBlock(INDEX + 1, B)],
        ValueError,
        r"index of block 0 goes from 1 to 2; .* 0 to 1",
    ),
    "negative": (lambda B: [RelationBlock(INDEX - 1, B)], ValueError, r"index of block 0 goes from -1 to 0"),
    "no integers": (lambda B: [RelationBlock(INDEX * 1.0, B)], ValueError, r"integers, got shape \(4,\) of float64"),
    "booleans": (lambda B: [RelationBlock(INDEX > 0, B)], ValueError, r"integers, got shape \(4,\) of bool"),
    "two columns": (lambda B: [RelationBlock(INDEX[:, None], B)], ValueError, r"integers, got shape \(4, 1\)"),
    "blocks differ": (
        lambda B: [RelationBlock(INDEX, B), RelationBlock(INDEX[:3], B)],
        ValueError,
        r"index of block 1 has 3 rows, that of block 0 4",
    ),
    "X differs": (lambda B: [np.ones((3, 2)), RelationBlock(INDEX, B)], ValueError, r"X has 3 rows, .* have 4"),
    "no block": (lambda B: [RelationBlock(INDEX, B), B], TypeError, r"block 1 is a ndarray"),
    "no matrix": (lambda B: [RelationBlock(INDEX, B[0])], ValueError, r"X of block 0 must be two-dimensional"),
    "infinite": (lambda B: [RelationBlock(INDEX, B * np.inf)], ValueError, r"X of block 0 contains"),
    "no rows": (lambda B: [RelationBlock(INDEX[:0], B)], ValueError, r"0 rows: there is nothing to fit"),
    "y differs": (lambda B: [RelationBlock(INDEX[:3], B)], ValueError, r"X has 3 rows, but y has 4"),
    "many": (lambda B: [RelationBlock(INDEX, B)] * 8, ValueError, r"X has 8 blocks, at most 7"),
}


@BOTH
@pytest.mark.parametrize("what", WRONG)
def test_blocks_are_checked(what: str, kind: type) -> None:
    make, error, message = WRONG[what]
    model = kind(2, solver="als")
    with pytest.raises(error, match=message):
        model.fit(make(np.arange(1.0, 5).reshape(2, 2)), np.array([0, 1, 1, 0]))
    assert not hasattr(model, "params_")


@ANY_FIT
def test_blocks_at_prediction_are_those_of_the_fit() -> None:
    given, _, y = related()
    model = model_of(FMRegressor, 2).fit(given, y)
    with pytest.raises(ValueError, match=r"X has 13 columns in all, but 19 are expected"):
        model.predict(given[:2])
    with pytest.raises(ValueError, match="19"):
        model.predict(np.ones((2, 5)))
    with pytest.raises(TypeError, match="needs encoder=None"):
        FMRegressor(solver="als", encoder=FrameEncoder({"a": OneHot()})).fit(given, y)
