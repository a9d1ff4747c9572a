"""Estimators: scikit-learn's own checks first, then frames, targets, weights, and what may go wrong."""

from __future__ import annotations

import copy
import inspect
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from sparsefm import FMClassifier, FMRegressor, FrameEncoder, Numeric, OneHot, load
from sparsefm.model import FMParams
from sparsefm.solvers import SGD, AdaGrad

SAMPLING = dict.fromkeys(
    (
        "check_sample_weight_equivalence_on_dense_data",
        "check_sample_weight_equivalence_on_sparse_data",
    ),
    "a sampling solver visits a row of weight 2 once with a longer step, not twice",
)


# some checks fit columns of mean 100 unscaled and do not mind what comes out; our warning about it is right
@pytest.mark.filterwarnings("ignore:the fit is worse than a constant")
@parametrize_with_checks([FMRegressor(), FMClassifier()], expected_failed_checks=lambda estimator: SAMPLING)
def test_scikit_learn_conventions_hold(estimator, check):
    check(estimator)


def frame(n: int = 240, seed: int = 0) -> tuple[pd.DataFrame, np.ndarray]:
    """Text, category and float columns, and a rating that follows from them."""
    rng = np.random.default_rng(seed)
    user, film = rng.integers(0, 8, n), rng.integers(0, 6, n)
    df = pd.DataFrame(
        {
            "user": np.array([f"u{j}" for j in range(8)])[user],
            "film": pd.Categorical(np.array(list("abcdef"))[film]),
            "age": rng.normal(40, 10, n),
        }
    )
    return df, 3 + 0.1 * user - 0.2 * film + 0.3 * ((user % 2) == (film % 2)) + 0.01 * rng.normal(size=n)


def matrix(n: int = 200, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 5)).astype(np.float32)
    return X, X[:, 0] - 2 * X[:, 1] + 0.1 * rng.normal(size=n)


ENCODER = FrameEncoder({"user": OneHot(), "film": OneHot(), "age": Numeric()})
BOTH = [FMRegressor(4, random_state=0), FMClassifier(4, random_state=0)]


def target(model: Any, y: np.ndarray) -> np.ndarray:
    return y > np.median(y) if isinstance(model, FMClassifier) else y


# ------------------------------------------------------------------------------------------ frames


@pytest.mark.parametrize("model", BOTH)
def test_a_frame_through_an_encoder(model: Any) -> None:
    df, y = frame()
    before = df.copy()
    model = clone(model).set_params(encoder=ENCODER).fit(df, target(model, y))
    pd.testing.assert_frame_equal(df, before)
    assert not hasattr(ENCODER, "columns_")  # the argument is cloned, not fitted
    n_columns = model.encoder_.n_features_out_
    assert model.factors_.shape == (n_columns, 4)
    assert model.fields_.shape == (n_columns,)
    assert model.score(df, target(model, y)) > 0.8
    # by name: order and further columns do not matter
    turned = df.assign(more="x")[["more", "age", "film", "user"]]
    np.testing.assert_array_equal(model._scores(turned), model._scores(df))
    np.testing.assert_array_equal(model._scores(df.set_index(df.index * 3 + 7)), model._scores(df))
    by_hand = clone(model).set_params(encoder=None)
    by_hand.fit(clone(ENCODER).fit_transform(df), target(model, y))
    np.testing.assert_array_equal(by_hand._scores(model.encoder_.transform(df)), model._scores(df))


@pytest.mark.parametrize("model", BOTH)
def test_a_frame_of_text_needs_no_encoder(model: Any) -> None:
    df, y = frame()
    plain = clone(model).fit(df, target(model, y))
    assert isinstance(plain.encoder_, FrameEncoder)
    assert plain.encoder is None
    assert plain.score(df, target(model, y)) > 0.8
    with_encoder = clone(model).set_params(encoder=ENCODER).fit(df, target(model, y))
    np.testing.assert_array_equal(plain._scores(df), with_encoder._scores(df))
    assert np.isfinite(plain._scores(df.assign(user="nobody"))).all()


@pytest.mark.parametrize("integers", [np.int64, np.int8, np.uint32, "Int64"])
def test_integers_beside_text_are_asked_about(integers: Any) -> None:
    df, y = frame()
    df["year"] = np.arange(len(df)) % 100
    df["year"] = df["year"].astype(integers)
    with pytest.raises(ValueError, match=r"'year' an id \(OneHot\) or a number \(Numeric\)\?"):
        FMRegressor().fit(df, y)


def test_a_frame_of_numbers_is_a_matrix() -> None:
    X, y = matrix()
    named = pd.DataFrame(X, columns=list("abcde"))
    model = FMRegressor(4, random_state=0).fit(named, y)
    assert model.encoder_ is None
    assert model.fields_ is None
    assert model.feature_names_in_.tolist() == list("abcde")
    assert model.coef_.dtype == np.float32
    np.testing.assert_array_equal(model.predict(named), FMRegressor(4, random_state=0).fit(X, y).predict(X))
    with pytest.raises(ValueError, match="feature names should match"):
        model.predict(named.rename(columns={"a": "z"}))
    with pytest.raises(ValueError, match="same order"):
        model.predict(named[list("edcba")])
    with pytest.raises(ValueError, match="feature names"):
        model.predict(named[list("abcd")])


def test_a_missing_column_is_named() -> None:
    df, y = frame()
    for model in (FMRegressor(encoder=ENCODER, random_state=0), FMRegressor(random_state=0)):
        model.fit(df, y)
        with pytest.raises(ValueError, match="age"):
            model.predict(df.drop(columns="age"))


@pytest.mark.parametrize("width", [4, 6])
@pytest.mark.parametrize("sparse", [False, True])
def test_another_width_is_refused(width: int, sparse: bool) -> None:
    X, y = matrix()
    model = FMRegressor(random_state=0).fit(X, y)
    Z: Any = np.zeros((3, width))
    with pytest.raises(ValueError, match=rf"X has {width} features, but FMRegressor is expecting 5"):
        model.predict(sp.csr_array(Z) if sparse else Z)
    with pytest.raises(ValueError, match=f"{width}"):
        FMRegressor(random_state=0).fit(X, y, eval_set=(Z, np.zeros(3)))


@pytest.mark.parametrize("model", BOTH)
def test_rows_without_any(model: Any) -> None:
    df, y = frame()
    model = clone(model).set_params(encoder=ENCODER)
    with pytest.raises(ValueError, match="0 rows"):
        model.fit(df.iloc[:0], y[:0])
    model.fit(df, target(model, y))
    assert model.predict(df.iloc[:0]).shape == (0,)


# ----------------------------------------------------------------------------------------- targets


@pytest.mark.parametrize("encoder", [None, ENCODER])
@pytest.mark.parametrize("model", BOTH)
def test_targets_may_be_a_series_of_any_index(encoder: Any, model: Any) -> None:
    df, y = frame()
    y = target(model, y)
    expected = clone(model).set_params(encoder=encoder).fit(df, y)
    series = pd.Series(y, index=np.arange(len(y))[::-1] * 5)
    weight = pd.Series(np.linspace(0.5, 2, len(y)))
    got = clone(model).set_params(encoder=encoder).fit(df, series)
    np.testing.assert_array_equal(got._scores(df), expected._scores(df))
    a = clone(model).fit(df, series, sample_weight=weight.set_axis(weight.index[::-1]))
    b = clone(model).fit(df, y, sample_weight=weight.to_numpy())
    np.testing.assert_array_equal(a._scores(df), b._scores(df))


@pytest.mark.parametrize("encoder", [None, ENCODER])
@pytest.mark.parametrize("model", BOTH)
def test_wrong_targets_are_refused(encoder: Any, model: Any) -> None:
    df, y = frame()
    model = clone(model).set_params(encoder=encoder)
    y = target(model, y)
    holes = y.astype(float)
    holes[3] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        model.fit(df, holes)
    with pytest.raises(ValueError, match="y"):
        model.fit(df, y[:-1])
    with pytest.raises(ValueError, match="requires y to be passed"):
        model.fit(df, None)
    with pytest.raises(ValueError, match="y"):
        model.fit(df, np.column_stack([y, y]))


@pytest.mark.parametrize("model", BOTH)
def test_wrong_targets_are_refused_when_rows_are_set_aside(model: Any) -> None:
    X, y = matrix()
    model = clone(model).set_params(early_stopping=True)
    for wrong in (target(model, y)[:100], np.r_[target(model, y), target(model, y)]):
        with pytest.raises(ValueError, match=r"y|inconsistent"):
            model.fit(X, wrong)
    for weight in (np.ones(100), np.ones((200, 1)), np.full(200, -1.0)):
        with pytest.raises(ValueError, match="sample_weight"):
            model.fit(X, target(model, y), sample_weight=weight)
    with pytest.raises(ValueError, match="leaves nothing to watch"):
        model.fit(X[:4], target(model, y)[:4])


@pytest.mark.parametrize(
    "labels",
    [
        ["no", "yes"],
        [False, True],
        [0, 1],
        [-1, 1],
        [2.0, 7.0],
        np.array(["no", "yes"], dtype=object),
        pd.Categorical(["no", "yes"]),
        ["a", "b", "c"],
        [10, 20, 30, 40],
    ],
)
def test_labels_of_any_type(labels: Any) -> None:
    X, y = matrix(300)
    codes = np.digitize(y, np.quantile(y, np.linspace(0, 1, len(labels) + 1)[1:-1]))
    y = (
        pd.Series(pd.Categorical.from_codes(codes, categories=labels.categories))
        if isinstance(labels, pd.Categorical)
        else np.asarray(labels)[codes]
    )
    model = FMClassifier(4, random_state=0).fit(X, y, eval_set=(X, y))
    assert model.classes_.tolist() == np.unique(np.asarray(y)).tolist()
    assert model.score(X, y) > 0.7
    share = model.predict_proba(X)
    assert share.shape == (300, len(labels))
    np.testing.assert_allclose(share.sum(axis=1), 1)
    assert ((share >= 0) & (share <= 1)).all()
    np.testing.assert_array_equal(model.predict(X), model.classes_[share.argmax(axis=1)])
    assert model.decision_function(X).shape == ((300,) if len(labels) == 2 else (300, len(labels)))
    assert model.coef_.shape == ((5,) if len(labels) == 2 else (len(labels), 5))
    assert model.factors_.shape == ((5, 4) if len(labels) == 2 else (len(labels), 5, 4))
    assert np.shape(model.intercept_) == (() if len(labels) == 2 else (len(labels),))


def test_one_class_is_refused() -> None:
    X, _ = matrix()
    with pytest.raises(ValueError, match="one class"):
        FMClassifier().fit(X, np.ones(200))
    with pytest.raises(ValueError, match="Unknown label type"):
        FMClassifier().fit(X, np.linspace(0, 1, 200))


def test_each_class_against_the_rest() -> None:
    X, y = matrix()
    labels = np.digitize(y, [-1, 1])
    model = FMClassifier(3, random_state=0).fit(X, labels)
    assert isinstance(model.params_, tuple)
    for code in range(3):
        alone = FMClassifier(3, random_state=0).fit(X, labels == code)
        np.testing.assert_array_equal(model.decision_function(X)[:, code], alone.decision_function(X))
    assert {record["class"] for record in model.history_} == {0, 1, 2}


def test_probabilities_are_the_logistic_function_of_the_score() -> None:
    X, y = matrix()
    model = FMClassifier(3, random_state=0).fit(X, y > 0)
    scores = model.decision_function(X).astype(np.float64)
    np.testing.assert_allclose(model.predict_proba(X)[:, 1], 1 / (1 + np.exp(-scores)), rtol=1e-12)
    far = model.predict_proba(X * 1e6)  # no overflow on either side
    assert set(far[:, 1].round(3)) <= {0.0, 1.0}
    np.testing.assert_array_equal(far.sum(axis=1), 1)


def test_several_hopeless_classes_share_alike() -> None:
    X, y = matrix()
    model = FMClassifier(0, random_state=0).fit(X, np.digitize(y, [-1, 1]))
    model.params_ = tuple(FMParams(-1e5, p.w, p.V) for p in model.params_)
    np.testing.assert_allclose(model.predict_proba(X), 1 / 3)


# ----------------------------------------------------------------------------------------- weights


def test_class_weights_are_sample_weights() -> None:
    X, y = matrix()
    labels = np.where(y > 1, "rare", "common")

    def scores(**options: Any) -> np.ndarray:
        weight = options.pop("sample_weight", None)
        return FMClassifier(3, random_state=0, **options).fit(X, labels, sample_weight=weight)._scores(X)

    of_row = np.where(labels == "rare", 5.0, 1.0)
    np.testing.assert_array_equal(scores(class_weight={"rare": 5.0, "common": 1.0}), scores(sample_weight=of_row))
    n = len(labels)
    balanced = np.where(labels == "rare", n / 2 / (labels == "rare").sum(), n / 2 / (labels == "common").sum())
    np.testing.assert_allclose(scores(class_weight="balanced"), scores(sample_weight=balanced), rtol=1e-4, atol=1e-5)
    given = np.random.default_rng(0).random(n)
    np.testing.assert_allclose(
        scores(class_weight={"rare": 5.0}, sample_weight=given),
        scores(sample_weight=given * of_row),
        rtol=1e-4,
        atol=1e-5,
    )
    for wrong in ("even", {"rare": -1.0}, {"other": 2.0}):
        with pytest.raises(ValueError, match=r"class_weight|sample_weight"):
            scores(class_weight=wrong)


@pytest.mark.parametrize("model", BOTH)
def test_weights_matter(model: Any) -> None:
    X, y = matrix()
    flipped = np.r_[y, -y]
    twice = np.vstack([X, X])
    weight = np.r_[np.ones(200), np.full(200, 1e-6)]
    fit = clone(model).fit(twice, target(model, flipped), sample_weight=weight)
    assert fit.score(X, target(model, y)) > 0.9


# ---------------------------------------------------------------------------------------- eval_set


@pytest.mark.parametrize("model", BOTH)
@pytest.mark.parametrize("encoder", [None, ENCODER])
def test_watched_rows_do_not_change_the_fit(model: Any, encoder: Any) -> None:
    df, y = frame()
    y = target(model, y)
    model = clone(model).set_params(encoder=encoder)
    plain = clone(model).fit(df, y)
    assert "eval_loss" not in plain.history_[0]
    odd = df.assign(user="stranger")
    for watched in ((df, y), [df, y], (df, y, np.linspace(0, 1, 240)), (odd, list(y)), (df[:1], y[:1])):
        fit = clone(model).fit(df, y, eval_set=watched)
        np.testing.assert_array_equal(fit._scores(df), plain._scores(df))
        assert all(np.isfinite(record["eval_loss"]) for record in fit.history_)
        assert [record["loss"] for record in fit.history_] == [r["loss"] for r in plain.history_]


@pytest.mark.parametrize("model", BOTH)
def test_wrong_watched_rows_are_refused(model: Any) -> None:
    X, y = matrix()
    y = target(model, y)
    fit = clone(model).fit
    for wrong in (X, (X,), (X, y, None, None), {"X": X, "y": y}, "Xy"):
        with pytest.raises(ValueError, match=r"eval_set must be \(X, y\) or"):
            fit(X, y, eval_set=wrong)
    for wrong_y in (y[:-1], y[:, None], None):
        with pytest.raises(ValueError, match="the y of eval_set must have"):
            fit(X, y, eval_set=(X, wrong_y))
    with pytest.raises(ValueError, match="sample_weight must"):
        fit(X, y, eval_set=(X, y, np.ones(3)))
    holes = y.astype(float)
    holes[7] = np.nan
    with pytest.raises(ValueError, match="the y of eval_set"):
        fit(X, y, eval_set=(X, holes))
    bad = X.copy()
    bad[0, 0] = np.inf
    with pytest.raises(ValueError, match="infinity"):
        fit(X, y, eval_set=(bad, y))


@pytest.mark.parametrize(
    ("labels", "watched"),
    [
        (["a", "b"], ["a", "c"]),
        ([0, 1], [0, 2]),
        (["0", "1"], [0, 1]),
        ([0, 1], ["0", "1"]),
        ([0, 1], [None, 1]),
        (["a", "b"], [None, "a"]),
        (["a", "b"], [np.nan, "a"]),
    ],
)
def test_watched_labels_that_training_has_not_are_refused(labels: Any, watched: Any) -> None:
    X, y = matrix()
    code = (y > 0).astype(int)
    odd = np.empty(2, dtype=object)
    odd[:] = watched
    with pytest.raises(ValueError, match="the y of eval_set has classes that the first y has not"):
        FMClassifier().fit(X, np.array(labels)[code], eval_set=(X, odd[code]))


def test_a_class_of_few_rows_is_not_set_aside_as_a_whole() -> None:
    X, y = matrix()
    labels = np.where(y > 0, "a", "b").astype(object)
    labels[0] = "rare"
    for seed in range(25):
        solver = AdaGrad(max_iter=1)
        FMClassifier(2, solver=solver, early_stopping=True, random_state=seed).fit(X, labels)


# --------------------------------------------------------------------------------- as scikit-learn's


@pytest.mark.parametrize("model", [FMRegressor, FMClassifier])
def test_arguments_come_back_as_they_were_given(model: Any) -> None:
    given = model(7, solver=AdaGrad(max_iter=4), l2_linear=0.5, encoder=ENCODER, callbacks=[print], n_threads=2)
    names = set(inspect.signature(model.__init__).parameters) - {"self"}
    assert set(given.get_params(deep=False)) == names
    copy = clone(given)
    for name, value in given.get_params().items():
        theirs = copy.get_params()[name]
        assert theirs == value or repr(theirs) == repr(value), name
    assert copy.set_params(solver__max_iter=9).solver.max_iter == 9
    assert given.solver.max_iter == 4
    assert "AdaGrad(max_iter=4)" in repr(given)


@pytest.mark.parametrize("encoder", [None, ENCODER])
def test_grid_search_over_the_solvers_options(encoder: Any, tmp_path: Path) -> None:
    df, y = frame()
    search = GridSearchCV(
        FMRegressor(3, solver=AdaGrad(), encoder=encoder, random_state=0),
        {"solver__max_iter": np.array([1, 20]), "n_factors": [0, 3]},
        cv=2,
    ).fit(df, y)
    assert search.best_params_["solver__max_iter"] == 20
    best = search.best_estimator_
    best.save(tmp_path / "best.sfm")
    np.testing.assert_array_equal(load(tmp_path / "best.sfm").predict(df), best.predict(df))


def test_inside_pipelines_and_cross_validation() -> None:
    X, y = matrix()
    pipe = make_pipeline(StandardScaler(), FMRegressor(3, random_state=0))
    assert cross_val_score(pipe, X, y, cv=3).min() > 0.8
    encoded = make_pipeline(clone(ENCODER), FMClassifier(3, random_state=0))
    df, target = frame()
    assert encoded.fit(df, target > 3).score(df, target > 3) > 0.8


@pytest.mark.parametrize("model", BOTH)
def test_pickles_and_copies_predict_alike(model: Any) -> None:
    df, y = frame()
    model = clone(model).fit(df, target(model, y))
    for back in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        np.testing.assert_array_equal(back._scores(df), model._scores(df))
        assert back.history_ == model.history_


@pytest.mark.parametrize("model", BOTH)
def test_a_second_fit_forgets_the_first(model: Any) -> None:
    df, y = frame()
    X, z = matrix()
    model = clone(model)
    expected = clone(model).fit(X, target(model, z))._scores(X)
    model.fit(df, target(model, y)).fit(X, target(model, z))
    np.testing.assert_array_equal(model._scores(X), expected)
    assert model.encoder_ is None
    assert not hasattr(model, "feature_names_in_")
    assert model.n_features_in_ == 5


@pytest.mark.parametrize("model", BOTH)
def test_a_fit_that_fails_leaves_the_model_as_it_was(model: Any) -> None:
    """The old parameters with the new columns would predict nonsense, or crash."""
    X, y = matrix()
    model = clone(model).fit(X, target(model, y))
    before = model.predict(X)
    wide = np.hstack([X, X])
    model.set_params(solver=SGD(learning_rate=1e30))
    with pytest.raises(ValueError, match="diverged"):
        model.fit(wide, target(model, y))
    with pytest.raises(ValueError, match="solver must be one of"):
        model.set_params(solver="newton").fit(X, target(model, y))
    with pytest.raises(ValueError, match="inconsistent"):
        model.set_params(solver="adagrad").fit(X, target(model, y)[:-1])
    assert (model.predict(X) == before).all()
    assert model.n_features_in_ == 5


@pytest.mark.parametrize("model", BOTH)
def test_nothing_works_before_fit(model: Any) -> None:
    X, _ = matrix()
    for call in (lambda: model.predict(X), lambda: model.save("none"), lambda: model.recommend(X, X)):
        with pytest.raises(ValueError, match="not fitted"):
            call()


def test_parameters_follow_the_type_of_the_matrix() -> None:
    X, y = matrix()
    for dtype, expected in ((np.float64, np.float64), (np.float32, np.float32), (np.int32, np.float32)):
        model = FMRegressor(3, random_state=0).fit(X.astype(dtype), y)
        assert model.coef_.dtype == model.factors_.dtype == expected
        assert model.predict(X.astype(np.float64)).dtype == np.float64
    with pytest.raises(ValueError, match="too large for float32"):
        model.predict(np.full((1, 5), 1e300))


def test_predictions_stay_inside_the_training_range_if_asked() -> None:
    X, y = matrix()
    model = FMRegressor(3, random_state=0).fit(X, y)
    far = model.predict(100 * X)
    assert (far.min(), far.max()) == pytest.approx((y.min(), y.max()))
    assert far.min() >= np.float32(y.min())
    free = model.set_params(clip=False).predict(100 * X)
    assert free.max() > y.max()
    np.testing.assert_array_equal(np.clip(free, float(y.min()), float(y.max())), far)


def test_silent_unless_asked(capfd: pytest.CaptureFixture[str]) -> None:
    X, y = matrix()
    model = FMRegressor(3, solver=AdaGrad(max_iter=2), random_state=0).fit(X, y, eval_set=(X, y))
    model.predict(X)
    assert capfd.readouterr() == ("", "")
    model.set_params(verbose=1).fit(X, y, eval_set=(X, y))
    out, err = capfd.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert len(lines) == 2
    assert re.fullmatch(r"FMRegressor epoch 1/2 \[#{10}\.{10}\]  loss \d.*  eval_loss \d.*  \d+\.\d\d s", lines[0])
    FMClassifier(2, solver=AdaGrad(max_iter=1), verbose=1).fit(X, np.digitize(y, [-1, 1]))
    assert [line.split()[:3] for line in capfd.readouterr().err.splitlines()] == [
        ["FMClassifier", "class", str(code)] for code in range(3)
    ]


@pytest.mark.parametrize("state", [np.random.RandomState(3), None, np.int64(3), 0, 2**32 - 1])
def test_random_states_of_every_kind(state: Any) -> None:
    X, y = matrix()
    FMRegressor(2, solver=AdaGrad(max_iter=1), random_state=state, early_stopping=True).fit(X, y)
    for wrong in (-1, 2**32, "seed", 0.5):
        with pytest.raises(ValueError, match=r"seed|Seed"):
            FMRegressor(2, random_state=wrong).fit(X, y)


@pytest.mark.parametrize("n_threads", [1, 2, np.int64(2), None])
def test_numbers_of_threads(n_threads: Any) -> None:
    X, y = matrix()
    fit = FMRegressor(3, random_state=0, n_threads=n_threads).fit(X, y, eval_set=(X, y))
    np.testing.assert_array_equal(fit.predict(X), FMRegressor(3, random_state=0).fit(X, y).predict(X))


def test_the_arguments_are_left_as_they_are() -> None:
    X, y = matrix()
    for each in (X, sp.csr_array(X), sp.csc_array(X), sp.coo_array(X)):
        parts = [each] if each is X else [each.data]
        weight = np.linspace(0, 1, 200)
        held = [*parts, y, weight]
        before = [array.copy() for array in held]
        for array in held:
            array.flags.writeable = False
        FMRegressor(2, early_stopping=True, random_state=0).fit(each, y, sample_weight=weight).predict(each)
        for array, old in zip(held, before, strict=True):
            np.testing.assert_array_equal(array, old)
            array.flags.writeable = True


@pytest.mark.parametrize("offset", [1e4, 1e6, 1e8])
def test_a_target_far_from_zero_keeps_its_variation(offset: float) -> None:
    """Adding the bias in float32 left one distinct prediction at an offset of 1e8."""
    X, y = matrix()
    X = X.astype(np.float32)
    near = FMRegressor(3, random_state=0).fit(X, y).predict(X)
    far = FMRegressor(3, random_state=0).fit(X, y + offset).predict(X)
    np.testing.assert_allclose(far - offset, near, atol=1e-4 * y.std())


def test_a_row_of_weight_zero_has_no_say_in_what_the_target_reaches() -> None:
    model = FMRegressor(0).fit(np.eye(3), [1.0, 1.0, 2.0], sample_weight=[1, 1, 0])
    assert model.target_range_ == (1.0, 1.0)


@pytest.mark.parametrize("factor", [1e45, 1e60, 1e-50])
def test_a_target_whose_parameters_would_leave_float32_is_refused(factor: float) -> None:
    X, y = matrix()
    with pytest.raises(ValueError, match="pass a float64 X"):
        FMRegressor(3, random_state=0).fit(X.astype(np.float32), factor * y)
    X = X.astype(np.float64)
    assert np.isfinite(FMRegressor(3, random_state=0).fit(X, factor * y).predict(X)).all()


@pytest.mark.parametrize(
    "options, message",
    [
        ({"callbacks": print}, "callbacks must be a list"),
        ({"solver": AdaGrad}, "solver must be one of"),
        ({"encoder": {"a": OneHot()}}, "FrameEncoder"),
        ({"loss": "absolute"}, "loss must be one of 'squared', 'huber', 'quantile', 'poisson', got 'absolute'"),
        ({"loss": "logistic"}, "loss must be one of 'squared'"),
        ({"loss": None}, "loss must be one of"),
        ({"quantile": 1.0}, "quantile must lie between 0 and 1"),
        ({"quantile": 0}, "quantile"),
        ({"delta": -1.0}, "delta"),
        ({"l2_prior": -1.0}, "l2_prior"),
        ({"l2_factors": {0: -1.0}}, r"l2_factors\[0\] must be a non-negative number"),
        ({"l2_factors": {0: 1.0}}, "needs to know the fields"),
        ({"l2_factors": {7: 1.0}, "fields": [0, 0, 1, 1, 2]}, r"l2_factors names \[7\]; the fields are \[0, 1, 2\]"),
        ({"l2_factors": {0: 1.0}, "fields": [0, 0, 1]}, "the number of the field of each of the 5 columns"),
        ({"l2_factors": {0: 1.0}, "fields": [0.5] * 5}, "from 0 on"),
        ({"l2_factors": {0: 1.0}, "fields": [-1] * 5}, "from 0 on"),
        ({"encoder": FrameEncoder(), "fields": [0] * 5}, "leave fields=None"),
    ],
)
def test_slips_in_the_options_are_named(options: dict[str, Any], message: str) -> None:
    X, y = matrix()
    with pytest.raises((ValueError, TypeError), match=message):
        FMRegressor(**options).fit(X, y)


def test_strengths_by_field_hold_down_the_factors_of_their_columns() -> None:
    X, _ = matrix(600)
    y = X[:, 0] * X[:, 2] + X[:, 3] * X[:, 4]
    fields = [0, 0, 1, 1, 2]
    free = FMRegressor(4, fields=fields, random_state=0).fit(X, y)
    model = clone(free).set_params(l2_factors={0: 100.0}).fit(X, y)
    np.testing.assert_array_equal(model.fields_, fields)
    assert np.abs(free.factors_[0]).max() > 0.1
    assert np.abs(model.factors_[:2]).max() < 0.01
    assert np.abs(model.factors_[3]).max() > 0.1
    df, rating = frame()
    named = FMRegressor(4, encoder=ENCODER, l2_factors={"user": 100.0}, random_state=0).fit(df, rating)
    of_user = named.fields_ == named.encoder_.field_names_.index("user")
    assert np.abs(named.factors_[of_user]).max() < np.abs(named.factors_[~of_user]).max() / 10
    # a field that is not named keeps the default
    plain, unnamed = (
        FMRegressor(4, encoder=ENCODER, l2_factors=l2, random_state=0).fit(df, rating).predict(df) for l2 in (None, {})
    )
    np.testing.assert_allclose(plain, unnamed, rtol=1e-6)


def test_losses_predict_what_they_are_for() -> None:
    rng = np.random.default_rng(0)
    X = np.eye(2, dtype=np.float32)[rng.integers(0, 2, 4000)]
    y = np.where(X[:, 0] == 1, rng.exponential(1, 4000), 5 + rng.exponential(3, 4000))
    options: dict[str, Any] = {"n_factors": 0, "l2_linear": 0.0, "solver": AdaGrad(max_iter=60), "random_state": 0}
    for share in (0.1, 0.5, 0.9):
        model = FMRegressor(loss="quantile", quantile=share, **options).fit(X, y)
        below = y < model.predict(X)
        assert [below[X[:, j] == 1].mean() for j in (0, 1)] == pytest.approx([share, share], abs=0.08)
    counts = rng.poisson(np.where(X[:, 0] == 1, 0.5, 6.0))
    model = FMRegressor(loss="poisson", **options).fit(X, counts)
    assert model.predict(np.eye(2)) == pytest.approx([counts[X[:, j] == 1].mean() for j in (0, 1)], rel=0.05)
    wild = np.where(rng.random(4000) < 0.02, 1e4, np.where(X[:, 0] == 1, 1.0, 2.0) + 0.1 * rng.normal(size=4000))
    model = FMRegressor(loss="huber", **options).fit(X, wild)
    assert model.predict(np.eye(2)) == pytest.approx([1, 2], abs=0.1)


def test_the_hinge_gives_no_probabilities() -> None:
    X, y = matrix()
    model = FMClassifier(3, loss="hinge", random_state=0).fit(X, y > 0)
    assert model.score(X, y > 0) > 0.9
    assert not hasattr(model, "predict_proba")
    with pytest.raises(AttributeError) as caught:
        model.predict_proba(X)
    assert "loss='hinge' gives no probabilities" in str(caught.value.__cause__)  # behind scikit-learn's words


@pytest.mark.parametrize("counts", [[-1.0, 2.0, 3.0], [0.0, 0.0, 0.0]])
def test_counts_are_not_negative_and_not_all_zero(counts: list[float]) -> None:
    with pytest.raises(ValueError, match="loss='poisson' needs counts"):
        FMRegressor(loss="poisson").fit(np.eye(3), counts)


def test_watched_counts_are_not_negative_either() -> None:
    X = np.eye(3)
    with pytest.raises(ValueError, match="the y of eval_set"):
        FMRegressor(loss="poisson").fit(X, [1.0, 2.0, 3.0], eval_set=(X, [-1.0, 2.0, 3.0]))


def test_a_matrix_given_to_a_model_with_an_encoder_is_refused() -> None:
    X, y = matrix()
    with pytest.raises(TypeError, match="needs encoder=None"):
        FMRegressor(encoder=FrameEncoder()).fit(sp.csr_array(X), y)


def test_ids_that_turned_from_numbers_to_text_are_warned_of() -> None:
    """Every prediction would be that of an unknown user, in silence."""
    ratings = pd.DataFrame({"user": [1, 2, 1, 2], "film": ["a", "a", "b", "b"]})
    model = FMRegressor(2, encoder=FrameEncoder({"user": OneHot(), "film": OneHot()}), random_state=0)
    model.fit(ratings, [1.0, 2.0, 3.0, 5.0])
    with pytest.warns(UserWarning, match="numbers and text never match"):
        model.predict(ratings.astype({"user": str}))
