"""fold_in of FMRegressor: new levels given all else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.exceptions import NotFittedError

from sparsefm import FMRegressor, FrameEncoder, OneHot, load
from sparsefm.datasets import make_ratings
from sparsefm.solvers import ALS, MCMC


def ratings() -> pd.DataFrame:
    return make_ratings(n_users=120, n_items=60, n_ratings=5000, random_state=0).ratings[
        ["user_id", "item_id", "rating"]
    ]


def model_of(solver: Any, **more: Any) -> FMRegressor:
    encoder = FrameEncoder({"user_id": OneHot(), "item_id": OneHot()})
    return FMRegressor(4, solver=solver, encoder=encoder, random_state=0, clip=False, **more)


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


def test_several_new_levels_in_a_row_and_rows_without_any() -> None:
    known, new, late = split()
    model = model_of(ALS(max_iter=20)).fit(known[["user_id", "item_id"]], known["rating"])
    strange = new.assign(item_id=new["item_id"] + 1000 * (new["item_id"] % 5 == 0))
    folded = model.fold_in(strange[["user_id", "item_id"]], strange["rating"])
    before = np.sqrt(np.mean((model.predict(strange) - strange["rating"]) ** 2))
    assert np.sqrt(np.mean((folded.predict(strange) - strange["rating"]) ** 2)) < 0.9 * before
    same = model.fold_in(known[["user_id", "item_id"]], known["rating"])
    np.testing.assert_array_equal(same.predict(late), model.predict(late))


def test_what_cannot_be_folded_in_is_refused() -> None:
    known, _, _ = split()
    X, y = known[["user_id", "item_id"]], known["rating"]
    with pytest.raises(NotFittedError):
        model_of("als").fold_in(X, y)
    with pytest.raises(ValueError, match="partial_fit"):
        model_of("sgd").fit(X, y).fold_in(X, y)
    with pytest.raises(ValueError, match="FrameEncoder"):
        FMRegressor(2, solver="als").fit(np.eye(3), [1.0, 2, 3]).fold_in(np.eye(3), [1.0, 2, 3])
    model = model_of("als").fit(X, y)
    with pytest.raises(ValueError, match="one value a row"):
        model.fold_in(X, y[:5])
    with pytest.raises(ValueError, match="contains nan"):
        model.fold_in(X, y * np.nan)
