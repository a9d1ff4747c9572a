"""fold_in of the estimators of a target: new levels given all else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize
from scipy.special import log_ndtr, ndtr
from sklearn.exceptions import NotFittedError
from sklearn.metrics import log_loss

from sparsefm import FMClassifier, FMOrdinal, FMRegressor, FrameEncoder, OneHot, load
from sparsefm.datasets import make_ratings
from sparsefm.solvers import ALS, MCMC, AdaGrad


def ratings() -> pd.DataFrame:
    return make_ratings(n_users=120, n_items=60, n_ratings=5000, random_state=0).ratings[
        ["user_id", "item_id", "rating"]
    ]


IDS = ["user_id", "item_id"]


def encoder() -> FrameEncoder:
    return FrameEncoder({"user_id": OneHot(), "item_id": OneHot()})


def model_of(solver: Any, **more: Any) -> FMRegressor:
    return FMRegressor(4, solver=solver, encoder=encoder(), random_state=0, clip=False, **more)


def split() -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Rows of known users; of new ones to learn from, and to predict."""
    df = ratings()
    new = df[df["user_id"] > 100]
    late = new.groupby("user_id").sample(frac=0.4, random_state=0)
    return df[df["user_id"] <= 100], new.drop(late.index), late


def test_least_squares_solve_for_the_new_user_alone() -> None:
    known, new, _ = split()
    model = model_of(ALS(max_iter=30), l2_factors=0.3, l2_linear=0.2, l2_prior=2.0)
    model.fit(known[["user_id", "item_id"]], known["rating"])
    folded = model.fold_in(new[["user_id", "item_id"]], new["rating"])
    before = model.params_.n_features
    np.testing.assert_array_equal(folded.params_.V[:before], model.params_.V)
    np.testing.assert_array_equal(folded.params_.w[:before], model.params_.w)
    assert folded.params_.w0 == model.params_.w0
    scale = known["rating"].std(ddof=0)
    for _, rows in new.groupby("user_id"):
        items = folded.encoder_.transform(rows[["user_id", "item_id"]], columns=["item_id"])
        h = np.column_stack([items @ folded.params_.V, np.ones(len(rows))])
        rest = rows["rating"] - folded.params_.w0 - items @ folded.params_.w
        penalty = (len(rows) + 2.0) * np.array([0.3] * 4 + [0.2])
        want = np.linalg.solve(h.T @ h + np.diag(penalty), h.T @ rest)
        column = folded.encoder_.transform(rows[:1], columns=["user_id"]).indices[0]
        assert column >= before
        np.testing.assert_allclose(folded.params_.V[column], want[:4], rtol=0, atol=2e-4 * scale)
        np.testing.assert_allclose(folded.params_.w[column], want[4], rtol=0, atol=2e-4 * scale)


@pytest.mark.parametrize("solver", [ALS(max_iter=20), MCMC(n_samples=60, burn_in=30)])
def test_new_users_are_predicted_better_and_others_as_before(solver: Any, tmp_path: Path) -> None:
    known, new, late = split()
    model = model_of(solver).fit(known[["user_id", "item_id"]], known["rating"])
    folded = model.fold_in(new[["user_id", "item_id"]], new["rating"])
    np.testing.assert_array_equal(folded.predict(known), model.predict(known))
    errors = [np.sqrt(np.mean((each.predict(late) - late["rating"]) ** 2)) for each in (model, folded)]
    whole = model_of(solver).fit(pd.concat([known, new])[["user_id", "item_id"]], pd.concat([known, new])["rating"])
    of_whole = np.sqrt(np.mean((whole.predict(late) - late["rating"]) ** 2))
    assert errors[1] < 0.97 * errors[0]
    assert errors[1] < of_whole + 0.03
    folded.save(tmp_path / "m.sfm")
    np.testing.assert_array_equal(load(tmp_path / "m.sfm").predict(late), folded.predict(late))


def test_draws_for_a_new_user_have_their_conditional() -> None:
    known, new, _ = split()
    model = model_of(MCMC(n_samples=400, burn_in=20)).fit(known[["user_id", "item_id"]], known["rating"])
    one = new[new["user_id"] == new["user_id"].iloc[0]]
    folded = model.fold_in(one[["user_id", "item_id"]], one["rating"])
    draws = folded.posterior_
    X = folded.encoder_.transform(one[["user_id", "item_id"]]).toarray()
    column, z = folded.params_.n_features - 1, []
    group = folded.encoder_.fields_[column]
    for d in range(len(draws)):
        V, w = draws.V[d].copy(), draws.w[d].copy()
        theta = np.append(V[column], w[column])
        V[column], w[column] = 0, 0
        h = np.column_stack([X @ V, np.ones(len(X))])
        rest = one["rating"].to_numpy() - draws.w0[d] - X @ w
        precision = np.diag(draws.precision[d, group]) + h.T @ h / draws.deviation[d] ** 2
        b = draws.precision[d, group] * draws.mean[d, group] + h.T @ rest / draws.deviation[d] ** 2
        z.append(np.linalg.cholesky(precision).T @ (theta - np.linalg.solve(precision, b)))
    z = np.ravel(z)
    assert abs(z.mean()) < 4 / np.sqrt(len(z))
    assert abs(z.var() - 1) < 4 * np.sqrt(2 / len(z))


@pytest.mark.parametrize("solver", [ALS(max_iter=20), "adagrad"])
def test_several_new_levels_in_a_row_and_rows_without_any(solver: Any) -> None:
    known, new, late = split()
    model = model_of(solver).fit(known[["user_id", "item_id"]], known["rating"])
    strange = new.assign(item_id=new["item_id"] + 1000 * (new["item_id"] % 5 == 0))
    folded = model.fold_in(strange[["user_id", "item_id"]], strange["rating"])
    before = np.sqrt(np.mean((model.predict(strange) - strange["rating"]) ** 2))
    assert np.sqrt(np.mean((folded.predict(strange) - strange["rating"]) ** 2)) < 0.9 * before
    same = model.fold_in(known[["user_id", "item_id"]], known["rating"])
    np.testing.assert_array_equal(same.predict(late), model.predict(late))


def each_of(found: Any) -> tuple[Any, ...]:
    return found if isinstance(found, tuple) else (found,)


def liked(rating: Any) -> Any:
    return (rating > 3.5).astype(int)


def in_three(rating: Any) -> Any:
    return np.array(["bad", "good", "great"])[np.searchsorted([3.0, 4.0], rating)]


def in_stars(rating: Any) -> Any:
    return rating.round().clip(2, 5)


def losses(loss: str, y: Any, score: Any, delta: float) -> Any:
    sign, r = 2 * y - 1, np.abs(y - score)
    return {
        "squared": r**2 / 2,
        "huber": np.where(r <= delta, r**2 / 2, delta * (r - delta / 2)),
        "quantile": np.where(y > score, 0.7, 0.3) * r,
        "poisson": np.exp(score) - y * score,
        "logistic": np.logaddexp(0, -sign * score),
        "hinge": np.maximum(0, 1 - sign * score),
    }[loss]


@pytest.mark.parametrize(
    ("loss", "solver"),
    [
        ("squared", "adagrad"),
        ("squared", "sgd"),
        ("huber", "adam"),
        ("quantile", "adagrad"),
        ("poisson", "ftrl"),
        ("logistic", "auto"),
        ("hinge", "sgd"),
        ("logistic", "als"),
    ],
)
def test_new_users_come_near_the_minimum_of_their_own_objective(loss: str, solver: str) -> None:
    known, new, _ = split()
    classes = loss in ("logistic", "hinge")
    kind: Any = FMClassifier if classes else FMRegressor
    target: Callable[[Any], Any] = liked if classes else np.round if loss == "poisson" else np.asarray
    options: dict[str, Any] = {"l2_factors": 0.1, "l2_linear": 0.2, "l2_prior": 3.0}
    if loss == "quantile":
        options["quantile"] = 0.7
    model = kind(2, loss=loss, solver=solver, encoder=encoder(), random_state=0, **options)
    model.fit(known[IDS], target(known["rating"]))
    folded = model.fold_in(new[IDS], target(new["rating"]))
    rating = known["rating"]
    params, delta = folded.params_, 1.35 * 1.4826 * (rating - rating.median()).abs().median()
    lost = to_lose = 0.0
    for _, rows in new.groupby("user_id"):
        column = folded.encoder_.transform(rows[:1], columns=["user_id"]).indices[0]
        items = folded.encoder_.transform(rows, columns=["item_id"]).astype(np.float64)
        h = np.column_stack([items @ params.V, np.ones(len(rows))])
        others, y = params.w0 + items @ params.w, np.asarray(target(rows["rating"]))
        penalty = (len(rows) + 3.0) * np.array([0.1, 0.1, 0.2])

        def objective(theta: Any, y: Any = y, others: Any = others, h: Any = h, penalty: Any = penalty) -> float:
            return float(losses(loss, y, others + h @ theta, delta).sum() + penalty @ theta**2 / 2)

        found = np.append(params.V[column], params.w[column])
        fine = {"maxiter": 5000, "xatol": 1e-6, "fatol": 1e-8}
        least = minimize(objective, found, method="Nelder-Mead", options=fine).fun
        least = min(least, minimize(objective, np.zeros(3), method="Nelder-Mead", options=fine).fun)
        lost += objective(found) - least
        to_lose += objective(np.zeros(3)) - least
    near = 1e-5 if solver == "als" else 0.1 if loss in ("hinge", "quantile") else 0.01
    assert lost < near * to_lose


@pytest.mark.parametrize("solver", ["adagrad", "als"])
def test_a_class_weight_counts(solver: str) -> None:
    known, new, _ = split()
    one = new[new["user_id"] == new["user_id"].iloc[0]]
    options: dict[str, Any] = {"solver": solver, "encoder": encoder(), "random_state": 0, "l2_prior": 3.0}
    y = liked(one["rating"])
    model = FMClassifier(2, class_weight={1: 3.0}, **options).fit(known[IDS], liked(known["rating"]))
    three = np.where(y == 1, 3, 1)
    repeated = FMClassifier(2, **options).fit(known[IDS], liked(known["rating"]))
    repeated.params_ = model.params_
    repeated.set_params(l2_prior=3.0 * three.mean())  # in rows, of which there are so many times more
    weighed = model.fold_in(one[IDS], y)
    again = repeated.fold_in(one[IDS].loc[one.index.repeat(three)], y.repeat(three))
    np.testing.assert_allclose(weighed.params_.w[-1], again.params_.w[-1], rtol=0, atol=0.01)
    plain = repeated.set_params(l2_prior=3.0).fold_in(one[IDS], y)
    assert abs(weighed.params_.w[-1] - plain.params_.w[-1]) > 0.05


MODELS: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "adagrad": (lambda: FMRegressor(4), np.asarray),
    "rowwise": (lambda: FMRegressor(4, solver=AdaGrad(rowwise=True)), np.asarray),
    "sgd": (lambda: FMRegressor(4, solver="sgd"), np.asarray),
    "adam": (lambda: FMRegressor(4, solver="adam"), np.asarray),
    "ftrl": (lambda: FMRegressor(4, solver="ftrl"), np.asarray),
    "classes": (lambda: FMClassifier(4), liked),
    "several classes": (lambda: FMClassifier(4), in_three),
    "classes by als": (lambda: FMClassifier(4, solver="als"), liked),
    "several classes by als": (lambda: FMClassifier(4, solver="als"), in_three),
    "probit": (lambda: FMClassifier(4, solver=MCMC(n_samples=60, burn_in=30)), liked),
    "probit of several classes": (lambda: FMClassifier(4, solver=MCMC(n_samples=60, burn_in=30)), in_three),
    "ordinal": (lambda: FMOrdinal(4, solver=MCMC(n_samples=60, burn_in=30)), in_stars),
}


def error_of(model: Any, X: Any, y: Any) -> float:
    if isinstance(model, FMClassifier):
        return float(log_loss(y, model.predict_proba(X)))
    return float(np.sqrt(np.mean((model.predict(X) - y) ** 2)))


@pytest.mark.parametrize("name", MODELS)
def test_every_solver_learns_new_users_and_moves_nothing_else(name: str, tmp_path: Path) -> None:
    make, target = MODELS[name]
    known, new, late = split()
    options = {"encoder": encoder(), "random_state": 0}
    model = make().set_params(**options).fit(known[IDS], target(known["rating"]))
    kept = [(each.w.copy(), each.V.copy()) for each in each_of(model.params_)]
    folded = model.fold_in(new[IDS], target(new["rating"]))
    for (w, V), mine, theirs in zip(kept, each_of(model.params_), each_of(folded.params_), strict=True):
        for params in (mine, theirs):
            np.testing.assert_array_equal(params.w[: len(w)], w)
            np.testing.assert_array_equal(params.V[: len(V)], V)
        assert mine.n_features == len(w) < theirs.n_features
        assert mine.w0 == theirs.w0
    np.testing.assert_array_equal(folded.predict(known), model.predict(known))
    both = pd.concat([known, new])
    whole = make().set_params(**options).fit(both[IDS], target(both["rating"]))
    before, after, of_whole = (error_of(each, late[IDS], target(late["rating"])) for each in (model, folded, whole))
    assert after < 0.98 * before
    assert after < of_whole + 0.35 * (before - of_whole)
    folded.save(tmp_path / "m.sfm")
    np.testing.assert_array_equal(load(tmp_path / "m.sfm").predict(late), folded.predict(late))
    threads = model.set_params(n_threads=1).fold_in(new[IDS], target(new["rating"]))
    for one, other in zip(each_of(folded.params_), each_of(threads.params_), strict=True):
        np.testing.assert_array_equal(one.w, other.w)
        np.testing.assert_array_equal(one.V, other.V)
    stays = model.fold_in(known[IDS], target(known["rating"]))
    np.testing.assert_array_equal(stays.predict(late), model.predict(late))


@pytest.mark.parametrize("kind", [FMClassifier, FMOrdinal])
def test_draws_behind_classes_and_levels_have_their_conditional(kind: Any) -> None:
    known, new, _ = split()
    target = liked if kind is FMClassifier else in_stars
    model = kind(1, solver=MCMC(n_samples=300, burn_in=30), encoder=encoder(), random_state=0)
    model.fit(known[IDS], target(known["rating"]))
    one = new[new["user_id"] == new["user_id"].iloc[0]]
    folded = model.fold_in(one[IDS], target(one["rating"]))
    y = np.asarray(target(one["rating"]))
    levels = y if kind is FMClassifier else np.searchsorted(folded.levels_, y)
    draws, column = folded.posterior_, folded.params_.n_features - 1
    items = folded.encoder_.transform(one[IDS], columns=["item_id"]).indices
    group, z = folded.encoder_.fields_[column], []
    for d in range(len(draws)):
        mean, precision = draws.mean[d, group], draws.precision[d, group]
        cuts = np.array([-np.inf, *(draws.cuts[d] if kind is FMOrdinal else [0.0]), np.inf])
        h = np.column_stack([draws.V[d, items, 0], np.ones(len(one))]).astype(np.float64)
        others = draws.w0[d] + draws.w[d, items]
        centre, deviation = mean, precision**-0.5
        for _ in range(3):  # on a grid that closes in
            steps = np.linspace(-5, 5, 41)
            grid = np.stack(np.meshgrid(*(centre + deviation * steps[:, None]).T), axis=-1).reshape(-1, 2)
            score = others[:, None] + h @ grid.T
            if kind is FMClassifier:
                log_p = log_ndtr((2 * levels - 1)[:, None] * score).sum(axis=0)
            else:
                share = ndtr(cuts[levels + 1][:, None] - score) - ndtr(cuts[levels][:, None] - score)
                log_p = np.log(np.maximum(share, 1e-300)).sum(axis=0)
            log_p -= (precision * (grid - mean) ** 2).sum(axis=1) / 2
            p = np.exp(log_p - log_p.max())
            p /= p.sum()
            centre = p @ grid
            covariance = ((grid - centre) * p[:, None]).T @ (grid - centre)
            deviation = np.sqrt(np.diag(covariance))
        theta = np.append(draws.V[d, column], draws.w[d, column])
        z.append(np.linalg.solve(np.linalg.cholesky(covariance), theta - centre))
    assert (np.abs(np.mean(z, axis=0)) < 3.5 / np.sqrt(len(z))).all()
    assert (np.abs(np.var(z, axis=0) - 1) < 4 * np.sqrt(2 / len(z))).all()


def test_rows_of_known_levels_teach_nothing_beside_new_ones() -> None:
    known, new, late = split()
    model = FMRegressor(4, encoder=encoder(), random_state=0).fit(known[IDS], known["rating"])
    alone = model.fold_in(new[IDS], new["rating"])
    both = pd.concat([known.assign(rating=100.0), new])
    beside = model.fold_in(both[IDS], both["rating"])
    np.testing.assert_array_equal(beside.predict(late), alone.predict(late))
    assert beside.target_range_ == alone.target_range_


def test_the_two_models_train_on_apart() -> None:
    known, new, late = split()
    model = FMRegressor(4, encoder=encoder(), random_state=0)
    model.partial_fit(known[IDS], known["rating"])  # whose training is still open
    folded = model.fold_in(new[IDS], new["rating"])
    before, epochs = folded.predict(late), len(folded.history_)
    model.partial_fit(known[IDS], known["rating"])
    np.testing.assert_array_equal(folded.predict(late), before)
    assert len(folded.history_) == epochs
    before = model.predict(known)
    folded.partial_fit(new[IDS], new["rating"])
    np.testing.assert_array_equal(model.predict(known), before)


def test_what_cannot_be_folded_in_is_refused() -> None:
    known, _, _ = split()
    X, y = known[["user_id", "item_id"]], known["rating"]
    with pytest.raises(NotFittedError):
        model_of("als").fold_in(X, y)
    with pytest.raises(ValueError, match="FrameEncoder"):
        FMRegressor(2, solver="als").fit(np.eye(3), [1.0, 2, 3]).fold_in(np.eye(3), [1.0, 2, 3])
    model = model_of("als").fit(X, y)
    with pytest.raises(ValueError, match="one value a row"):
        model.fold_in(X, y[:5])
    with pytest.raises(ValueError, match="contains nan"):
        model.fold_in(X, y * np.nan)
    with pytest.raises(ValueError, match="0 rows"):
        model.fold_in(X[:0], y[:0])
    later = X.assign(user_id=X["user_id"] + 1000)
    with pytest.raises(ValueError, match="'balanced' needs"):
        FMClassifier(2, encoder=encoder(), class_weight="balanced").fit(X, y > 3).fold_in(later, y > 3)
    with pytest.raises(ValueError, match=r"classes that the first y has not: \[7\]"):
        FMClassifier(2, encoder=encoder()).fit(X, liked(y)).fold_in(later, np.full(len(y), 7))
    with pytest.raises(ValueError, match="has the level 9"):
        FMOrdinal(2, solver=MCMC(n_samples=5), encoder=encoder()).fit(X, in_stars(y)).fold_in(later, y * 0 + 9)
