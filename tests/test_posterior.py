"""What comes of draws: averages, deviations, quantiles, probabilities, files, and what is refused."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.special import ndtr
from scipy.stats import chisquare
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.utils.estimator_checks import parametrize_with_checks
from test_training import ratings

from sparsefm import FMClassifier, FMOrdinal, FMRegressor, load
from sparsefm._kernels import dispatch
from sparsefm.datasets import make_ratings
from sparsefm.encoders import FrameEncoder, History, OneHot
from sparsefm.metrics import effective_sample_size, split_rhat
from sparsefm.model import represent, score
from sparsefm.solvers import MCMC, AdaGrad, Problem
from sparsefm.solvers import mcmc as module
from sparsefm.solvers.design import Design
from sparsefm.validation import Relations, check_csr

SHORT = MCMC(n_samples=12, burn_in=4)


def planted(n: int, seed: int, *, n_users: int = 40, n_items: int = 30) -> tuple[Any, np.ndarray]:
    """Rows of a user and an item, and their scores by a machine of two factors."""
    rng = np.random.default_rng(seed)
    truth = np.random.default_rng(99)
    user, item = rng.integers(0, n_users, n), rng.integers(0, n_items, n)
    a, b = truth.normal(0, 0.7, (n_users, 2)), truth.normal(0, 0.7, (n_items, 2))
    score = truth.normal(0, 0.4, n_users)[user] + truth.normal(0, 0.4, n_items)[item] + (a[user] * b[item]).sum(axis=1)
    columns = np.column_stack([user, n_users + item]).ravel()
    X = sp.csr_array((np.ones(2 * n, np.float32), columns, np.arange(0, 2 * n + 1, 2)), shape=(n, n_users + n_items))
    return X, score


def test_draws_of_a_linear_model_are_those_of_the_closed_form(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the hyperparameters held the weights and w0 are jointly normal."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(30, 3)), rng.normal(size=30)
    weight = rng.random(30) + 0.5
    weight /= weight.mean()
    monkeypatch.setattr(module._Run, "_draw_prior", lambda self: None)

    def draw_bias(self: Any, first: float, second: float) -> None:
        self.alpha = 2.0
        precision = module._BIAS_PRECISION + self.alpha * 30
        mean = self.alpha * (first + 30 * self.sweep.w0) / precision
        self.sweep.w0 = float(mean + self.random.standard_normal() / precision**0.5)

    monkeypatch.setattr(module._Run, "_draw_bias", draw_bias)
    monkeypatch.setattr(module, "_FIRST", 4.0)
    problem = Problem(
        rows=check_csr(X), y=y, weight=weight, loss="squared", w0=0.0, n_factors=0, l2_linear=0, l2_factors=0,
        init_std=0, seed=3, n_threads=1, evaluation=None, early_stopping=False, report=lambda record: False,
    )  # fmt: skip
    draws = MCMC(n_samples=20_000, burn_in=10).solve(problem)
    Z = np.column_stack([np.ones(30), X])
    precision = 2.0 * Z.T @ (weight[:, None] * Z) + np.diag([module._BIAS_PRECISION, 4, 4, 4])
    covariance = np.linalg.inv(precision)
    mean = covariance @ (2.0 * Z.T @ (weight * y))
    drawn = np.column_stack([draws.w0, draws.w])
    size = effective_sample_size(drawn[None])
    assert (np.abs(drawn.mean(axis=0) - mean) < 5 * np.sqrt(np.diag(covariance) / size)).all()
    np.testing.assert_allclose(np.cov(drawn.T), covariance, atol=0.1 * covariance.max())


@pytest.mark.parametrize("loss", ["squared", "probit", "ordinal"])
def test_ranks_of_the_truth_among_draws_are_uniform(loss: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulation-based calibration (Talts et al. 2018): parameters from the prior, data from them, draws given these.

    The priors are narrowed so that chains are short enough; scores and hyperparameters are looked at, never factors.
    """
    for name, value in {"_SHAPE": 4.0, "_RATE": 2.0, "_BIAS_PRECISION": 1.0}.items():
        monkeypatch.setattr(module, name, value)
    k, users, items, n, draws = 2, 6, 5, 60, 19
    group = np.repeat([0, 1], [users, items]).astype(np.int32)
    rng, ranks = np.random.default_rng(0), []
    while len(ranks) < 100:
        user, item = rng.integers(0, users, n), rng.integers(0, items, n)
        user[:users], item[:items] = np.arange(users), np.arange(items)
        X = np.zeros((n, users + items))
        X[np.arange(n), user] = X[np.arange(n), users + item] = 1
        precision = rng.gamma(4.0, 0.5, (2, k + 1))
        mean = rng.normal(size=(2, k + 1)) / np.sqrt(module._MEANS * precision)
        theta = mean[group] + rng.normal(size=(users + items, k + 1)) / np.sqrt(precision[group])
        w0 = 0.0 if loss == "ordinal" else rng.normal()
        score = w0 + X @ theta[:, k] + (theta[user, :k] * theta[users + item, :k]).sum(axis=1)
        deviation = rng.gamma(4.0, 0.5) ** -0.5 if loss == "squared" else 1.0
        latent, cuts = score + deviation * rng.normal(size=n), np.sort(rng.normal(size=2))
        y = {"squared": latent, "probit": latent > 0, "ordinal": np.searchsorted(cuts, latent)}[loss].astype(float)
        if loss == "ordinal" and len(np.unique(y)) < 3:
            continue  # such data are no part of the question: given all others the draws are still right
        problem = Problem(
            rows=check_csr(X), y=y, weight=None, loss=loss, w0=0.0, n_factors=k, l2_linear=0, l2_factors=0,
            init_std=0.1, seed=len(ranks), n_threads=1, evaluation=None, early_stopping=False,
            report=lambda record: False, fields=group,
        )  # fmt: skip
        drawn = MCMC(n_samples=draws * 20, burn_in=100, keep=draws).solve(problem)
        scores, first = np.array(list(drawn.scores(X))), 0.0
        statistics = [(drawn.precision[:, 0, k], precision[0, k]), (drawn.precision[:, 1, 0], precision[1, 0])]
        statistics += [(drawn.mean[:, 0, k], mean[0, k]), (drawn.deviation, deviation)][: 1 + (loss == "squared")]
        if loss == "ordinal":
            statistics.append((np.diff(drawn.cuts, axis=1)[:, 0], cuts[1] - cuts[0]))
            scores, first = scores - drawn.cuts[:, :1], cuts[0]
        statistics += [(scores[:, 0], score[0] - first), (scores.mean(axis=1), score.mean() - first)]
        statistics.append((scores.std(axis=1), score.std()))
        ranks.append([int((values < truth).sum()) for values, truth in statistics])
    for of_one in np.array(ranks).T:
        assert chisquare(np.bincount(of_one // 4, minlength=5)).pvalue > 1e-4


def test_intervals_cover_what_they_promise() -> None:
    (X, score), (T, truth) = planted(4000, 0), planted(4000, 1)
    rng = np.random.default_rng(2)
    y, y_new = score + rng.normal(0, 0.5, 4000), truth + rng.normal(0, 0.5, 4000)
    model = FMRegressor(2, solver=MCMC(n_samples=150), random_state=0, fields=np.repeat([0, 1], [40, 30])).fit(X, y)
    mean, deviation = model.predict(T, return_std=True)
    np.testing.assert_array_equal(mean, model.predict(T))
    _, of_the_mean = model.predict(T, return_std="mean")
    assert (of_the_mean < deviation).all()
    low, middle, high = model.predict_quantiles(T, [0.05, 0.5, 0.95]).T
    assert 0.88 < np.mean((low <= y_new) & (y_new <= high)) < 0.92
    assert 0.88 < np.mean(np.abs(y_new - mean) < 1.6449 * deviation) < 0.92
    assert np.abs(middle - mean).max() < 0.1
    assert abs(model.posterior_.deviation.mean() - 0.5) < 0.03
    linear = FMRegressor(0, solver=MCMC(n_samples=150), random_state=0).fit(X, y)
    assert model.score(T, y_new) > linear.score(T, y_new) + 0.1


def calibration(probability: np.ndarray, happened: np.ndarray) -> float:
    """Expected calibration error over ten bins."""
    of = np.minimum((probability * 10).astype(int), 9)
    return float(sum(abs((probability - happened)[of == b].sum()) for b in range(10)) / len(probability))


def test_probabilities_are_calibrated() -> None:
    (X, score), (T, truth) = planted(6000, 0), planted(20_000, 1)
    rng = np.random.default_rng(2)
    y, y_new = score + rng.normal(size=6000), truth + rng.normal(size=20_000)
    model = FMClassifier(2, solver=MCMC(n_samples=150), random_state=0).fit(X, y > 0)
    assert calibration(model.predict_proba(T)[:, 1], y_new > 0) < 0.02
    ordinal = FMOrdinal(2, solver=MCMC(n_samples=150), random_state=0).fit(X, np.digitize(y, [-1, 0.2, 1.5]) + 1)
    shares, deviation = ordinal.predict_proba(T, return_std=True)
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    assert (deviation > 0).all()
    for level in range(4):
        assert calibration(shares[:, level], np.digitize(y_new, [-1, 0.2, 1.5]) == level) < 0.02
    apart = np.diff(ordinal.posterior_.cuts.mean(axis=0))
    np.testing.assert_allclose(apart, [1.2, 1.3], atol=0.15)
    np.testing.assert_allclose(ordinal.predict(T), shares @ [1, 2, 3, 4])


@pytest.mark.parametrize("target", ["regressor", "two classes", "three classes", "ordinal"])
def test_averages_files_and_copies(target: str, tmp_path: Path) -> None:
    X, y = ratings()
    kind = {"regressor": FMRegressor, "ordinal": FMOrdinal}.get(target, FMClassifier)
    y = {"two classes": y > 3, "three classes": np.digitize(y, [2.5, 4]), "ordinal": y.round()}.get(target, y)
    model = kind(3, solver=SHORT, random_state=0).fit(X, y)
    outputs = [name for name in ("predict", "predict_proba", "decision_function") if hasattr(model, name)]
    model.save(tmp_path / "m")
    for other in (load(tmp_path / "m"), pickle.loads(pickle.dumps(model)), clone(model).fit(X, y)):
        for name in outputs:
            np.testing.assert_array_equal(getattr(other, name)(X), getattr(model, name)(X))
    if target == "regressor":
        np.testing.assert_array_equal(
            load(tmp_path / "m").predict(X, return_std=True), model.predict(X, return_std=True)
        )
        draws = model.posterior_
        mean = np.mean(list(draws.scores(X)), axis=0)
        np.testing.assert_allclose(model.predict(X), mean.clip(y.min(), y.max()), rtol=1e-5)
        assert model.params_.w0 == draws.w0[-1]
    if target == "two classes":
        mean = np.mean([ndtr(scores) for scores in model.posterior_.scores(X)], axis=0)
        np.testing.assert_allclose(model.predict_proba(X)[:, 1], mean, rtol=1e-6)


def test_both_sides_of_draws_give_the_mean_score() -> None:
    X, y = ratings()
    model = FMRegressor(3, solver=SHORT, random_state=0).fit(X.astype(np.float64), y)
    users, items = X.astype(np.float64).toarray(), X.astype(np.float64).toarray()
    users[:, 12:], items[:, :12] = 0, 0
    (a, p), (b, q) = represent(model.posterior_, users, items)
    assert p.shape == (240, 36)
    mean = np.mean(list(model.posterior_.scores(X)), axis=0)
    np.testing.assert_allclose(model.posterior_.w0.mean() + a + b + (p * q).sum(axis=1), mean, rtol=1e-9)
    ids, scores = model.recommend(np.eye(22)[:12], np.eye(22)[12:], k=3)
    all_pairs = np.eye(22)[:12].repeat(10, 0) + np.tile(np.eye(22)[12:], (12, 1))
    every = np.mean(list(model.posterior_.scores(all_pairs)), axis=0).reshape(12, 10)
    np.testing.assert_allclose(scores, -np.sort(-every, axis=1)[:, :3], rtol=1e-9)
    assert ids.shape == (12, 3)


def test_histories_of_a_frame_are_kept_once(monkeypatch: pytest.MonkeyPatch) -> None:
    data = make_ratings(n_users=30, n_items=20, n_ratings=300, random_state=0).ratings
    columns = {
        "user_id": OneHot(),
        "seen": History(own=True),
        "item_id": OneHot(),
        "seen_by": History("item_id", "user_id", own=True),
    }
    seen: list[Any] = []
    of = Design.of.__func__  # type: ignore[attr-defined]
    monkeypatch.setattr(Design, "of", classmethod(lambda cls, rows, *rest: seen.append(rows) or of(cls, rows, *rest)))
    encoder = FrameEncoder(columns)
    model = FMRegressor(4, solver=MCMC(n_samples=40, burn_in=10), encoder=encoder, random_state=0)
    model.fit(data, data["rating"])
    (relations,) = seen
    assert isinstance(relations, Relations)
    assert [block.rows.n_rows for block in relations.blocks] == [30, 20]
    assert relations.rows.nnz == 0
    X = model.encoder_.transform(data)
    np.testing.assert_array_equal(relations.flat().matrix().toarray(), X.toarray())
    from_rows = np.mean([score(draw, X) for draw in draws_of(model)], axis=0)
    np.testing.assert_allclose(model.predict(data), from_rows, rtol=0, atol=1e-4)
    # the same posterior as from rows that hold each history as often as it has ratings
    flat = clone(model).set_params(encoder=None, fields=model.encoder_.fields_).fit(X, data["rating"])
    apart = np.abs(flat.predict(X) - model.predict(data))
    assert apart.mean() < 0.25 * model.predict(data, return_std="mean")[1].mean()


def draws_of(model: Any) -> list[Any]:
    return [model.posterior_[i] for i in range(len(model.posterior_))]


def test_the_same_bits_at_any_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "_WORK_PER_PIECE", 1)
    X, y = ratings()
    for model, target in ((FMRegressor(3), y), (FMClassifier(3), y > 3), (FMOrdinal(3), y.round())):
        model.set_params(solver=SHORT, random_state=0)
        fits = [clone(model).set_params(n_threads=n).fit(X, target) for n in (1, 2, 3, 4)]
        for fit in fits[1:]:
            np.testing.assert_array_equal(fit.posterior_.V, fits[0].posterior_.V)
            np.testing.assert_array_equal(fit.predict(X), fits[0].predict(X))
        other = clone(model).set_params(random_state=1).fit(X, target)
        assert (other.posterior_.V != fits[0].posterior_.V).any()


def test_what_is_kept_and_told() -> None:
    X, y = ratings()
    solver = MCMC(n_samples=10, burn_in=3, keep=4, n_chains=2)
    model = FMRegressor(3, solver=solver, random_state=0).fit(X, 100 * y, eval_set=(X[:50], 100 * y[:50]))
    assert model.posterior_.chain.tolist() == [0] * 4 + [1] * 4
    assert [r["epoch"] for r in model.history_] == list(range(1, 27))
    assert [r["chain"] for r in model.history_] == [0] * 13 + [1] * 13
    assert sum("eval_loss" in r for r in model.history_) == 8
    np.testing.assert_allclose(model.history_[12]["deviation"], model.posterior_.deviation[3])
    residual = 100 * y - np.asarray(list(model.posterior_.scores(X)))[-1]
    np.testing.assert_allclose(model.history_[-1]["loss"], (residual**2).mean() / 2, rtol=1e-3)
    assert np.isfinite(split_rhat(model.posterior_.deviation.reshape(2, 4)))
    stopped = FMRegressor(3, solver=SHORT, random_state=0, callbacks=[lambda m, r: r["epoch"] == 6]).fit(X, y)
    assert len(stopped.posterior_) == 2


def test_what_draws_cannot_do_is_refused() -> None:
    X, y = ratings()
    wrong: list[tuple[Any, Any, dict[str, Any], str]] = [
        (FMRegressor(loss="poisson", solver="mcmc"), np.abs(y).round(), {}, "not loss='poisson'"),
        (FMClassifier(loss="logistic", solver="mcmc"), y > 3, {}, "not loss='logistic'"),
        (FMClassifier(loss="probit"), y > 3, {}, "needs solver='mcmc'"),
        (FMOrdinal(solver="adagrad"), y.round(), {}, "needs solver='mcmc'"),
        (FMOrdinal(), np.ones(240), {}, r"1 levels; ordered levels are 2 to 256 \(n_samples=240\)"),
        (FMRegressor(solver="mcmc", early_stopping=True), y, {}, "early_stopping has no part"),
        (FMClassifier(solver="mcmc"), y > 3, {"sample_weight": np.arange(240)}, "weights of rows for a real target"),
        (FMRegressor(solver=MCMC(keep=300)), y, {}, "at most n_samples=200"),
        (FMRegressor(solver=MCMC(n_samples=0)), y, {}, "positive integer"),
    ]
    for model, target, more, message in wrong:
        with pytest.raises(ValueError, match=message):
            model.fit(X, target, **more)
        assert not hasattr(model, "params_")
    with pytest.raises(ValueError, match="300 levels; ordered levels are 2 to 256: round y"):
        FMOrdinal().fit(np.ones((300, 1)), np.arange(300))
    plain = FMRegressor(3, solver=AdaGrad(max_iter=2), random_state=0).fit(X, y)
    with pytest.raises(ValueError, match="return_std needs draws"):
        plain.predict(X, return_std=True)
    with pytest.raises(ValueError, match="predict_quantiles needs draws"):
        plain.predict_quantiles(X)
    drawn = FMRegressor(3, solver=SHORT, random_state=0).fit(X, y)
    for quantiles in (0.0, [0.5, 1.0], np.nan):
        with pytest.raises(ValueError, match="between 0 and 1"):
            drawn.predict_quantiles(X, quantiles)
    with pytest.raises(ValueError, match="return_std must be"):
        drawn.predict(X, return_std="yes")


WEIGHTS = ("check_sample_weight_equivalence_on_dense_data", "check_sample_weight_equivalence_on_sparse_data")
EXPECTED = {
    FMRegressor: dict.fromkeys(WEIGHTS, "other rows, other draws"),
    FMClassifier: dict.fromkeys(
        (*WEIGHTS, "check_sample_weights_not_overwritten", "check_class_weight_classifiers"),
        "the probit sampler refuses weights of rows",
    ),
    FMOrdinal: dict.fromkeys((*WEIGHTS, "check_sample_weights_not_overwritten"), "it refuses weights of rows")
    | dict.fromkeys(
        ("check_estimator_sparse_array", "check_estimator_sparse_matrix"),
        "the check asks whatever has predict_proba for the tags of a classifier",
    )
    | {"check_regressors_no_decision_function": "it has one, the score behind the levels"},
}


@parametrize_with_checks(
    [FMRegressor(4, solver=SHORT), FMClassifier(4, solver=SHORT), FMOrdinal(4, solver=SHORT)],
    expected_failed_checks=lambda estimator: EXPECTED[type(estimator)],
)
def test_scikit_learn_conventions_hold(estimator: Any, check: Any) -> None:
    check(estimator)


def test_grid_search_finds_the_rank() -> None:
    X, score = planted(1500, 0)
    y = score + np.random.default_rng(1).normal(0, 0.3, 1500)
    model = FMRegressor(solver=MCMC(n_samples=40, burn_in=10), random_state=0)
    search = GridSearchCV(model, {"n_factors": [0, 2]}, cv=3).fit(X, y)
    assert search.best_params_ == {"n_factors": 2}


def test_diagnostics_of_draws() -> None:
    rng = np.random.default_rng(0)
    independent = rng.normal(size=(4, 2000, 2))
    np.testing.assert_allclose(split_rhat(independent), 1, atol=0.01)
    np.testing.assert_allclose(effective_sample_size(independent), 8000, rtol=0.25)
    noise, slow = rng.normal(size=(4, 5000)), np.zeros((4, 5000))
    for t in range(1, 5000):
        slow[:, t] = 0.9 * slow[:, t - 1] + noise[:, t]
    np.testing.assert_allclose(effective_sample_size(slow), 20_000 * 0.1 / 1.9, rtol=0.2)
    apart = independent[:2, :, 0] + np.array([[0.0], [1.0]])
    assert split_rhat(apart) > 1.1
    assert effective_sample_size(apart) < 50
    assert np.isnan(effective_sample_size(np.ones((2, 8))))
    for wrong in (np.ones(8), np.ones((2, 3)), np.full((2, 8), np.nan)):
        with pytest.raises(ValueError, match="draws must be"):
            split_rhat(wrong)
