"""Rows that come in pieces: partial_fit one at a time, fit_stream a stream of them."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from test_growth import NEEDS_ARROW, NEEDS_POLARS
from test_training import ALL, METHODS, assert_same, numbers, predicted, ratings, without_time

from sparsefm import FMClassifier, FMRegressor, FrameEncoder, Numeric, OneHot, RelationBlock, TargetStats, load
from sparsefm.solvers import FTRL, SGD, AdaGrad, Adam, DivergenceError
from sparsefm.solvers.engine import Training

USERS, FILMS = 30, 20


def frame(n: int = 300, seed: int = 0, users: Any = range(USERS)) -> tuple[pd.DataFrame, np.ndarray]:
    """A user, a film and a number, and a rating with a planted interaction."""
    rng = np.random.default_rng(seed)
    user, film, age = rng.choice(list(users), n), rng.integers(0, FILMS, n), rng.normal(40, 10, n)
    rating = 3 + 0.05 * (user % 7) - 0.1 * (film % 5) + 1.5 * (user % 3 == film % 3) + 0.1 * rng.normal(size=n)
    columns = {"user": [f"u{j}" for j in user], "film": film.astype(str), "age": age.astype(np.float32)}
    return pd.DataFrame(columns), rating


ENCODER = FrameEncoder({"user": OneHot(), "film": OneHot(), "age": Numeric()})
IDS = FrameEncoder({"user": OneHot(), "film": OneHot()})


def regressor(**options: Any) -> FMRegressor:
    return FMRegressor(**{"n_factors": 4, "encoder": ENCODER, "random_state": 0, "n_threads": 1} | options)


def state(model: Any, *, vocabulary: bool = True) -> Any:
    """All of a fitted model that a refusal must leave alone, as bytes."""
    params = model.params_ if isinstance(model.params_, tuple) else (model.params_,)
    parts = [(p.w0, p.w.tobytes(), p.V.tobytes()) for p in params]
    session = getattr(model, "_session", None)
    tables = (
        []
        if session is None
        else [(t.table.array.tobytes(), t.table.bias.tobytes(), t.rate, t.counts.tobytes()) for t in session.trainings]
    )
    columns = None if model.encoder_ is None or not vocabulary else model.encoder_.get_feature_names_out().tolist()
    return parts, tables, columns, without_time(model.history_)


def target_of(kind: type, y: np.ndarray) -> np.ndarray:
    return np.where(y > np.median(y), "good", "bad") if kind is FMClassifier else y


def cut(values: Any, edges: list[int]) -> list[Any]:
    n = values.shape[0]
    take = values.iloc if isinstance(values, pd.DataFrame) else values
    return [take[a:b] for a, b in pairwise([0, *edges, n])]


# ------------------------------------------------------------------------------------- partial_fit


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("kind", [FMRegressor, FMClassifier])
def test_the_first_piece_makes_a_model_and_further_ones_teach_it(name: str, kind: type) -> None:
    X, y = ratings(3000)
    y = y > 3 if kind is FMClassifier else y
    model = kind(4, solver=METHODS[name](), random_state=0)
    assert model.partial_fit(X[:100], y[:100]) is model
    first = model.score(X[2000:], y[2000:])
    assert np.isfinite(predicted(model, X)).all()
    for _ in range(3):
        for start in range(100, 2000, 100):
            model.partial_fit(X[start : start + 100], y[start : start + 100])
    assert model.score(X[2000:], y[2000:]) > first + 0.03
    assert model.score(X[2000:], y[2000:]) > (0.6 if kind is FMRegressor else 0.75)
    assert [record["epoch"] for record in model.history_] == list(range(1, 59))
    assert model.n_iter_ == 58


def test_every_class_learns_from_pieces() -> None:
    X, y = ratings(3000)
    labels = np.digitize(y, [2.5, 4])
    model = FMClassifier(4, random_state=0)
    for _ in range(3):
        for start in range(0, 2000, 200):
            model.partial_fit(X[start : start + 200], labels[start : start + 200], classes=[0, 1, 2])
    assert model.score(X[2000:], labels[2000:]) > 0.6  # the largest class has 0.4
    assert len(model.params_) == 3
    assert {record["class"] for record in model.history_} == {0, 1, 2}


@pytest.mark.parametrize("name", ["adagrad", "sgd", "adam", "ftrl"])
def test_a_piece_is_an_epoch_of_fit(name: str) -> None:
    """One pass in the order given, over the rows the statistics are of."""
    X, y = ratings()
    solver = METHODS[name](max_iter=1, batch_size=1)
    assert_same(
        FMRegressor(3, solver=solver, random_state=0).partial_fit(X, y),
        FMRegressor(3, solver=solver, random_state=0).fit(X, y),
    )


def test_params_are_those_of_the_tables() -> None:
    df, y = frame(200)
    for solver in (AdaGrad(), AdaGrad(dropout=0.3), SGD(dropout=0.3), FTRL(), Adam()):
        model = regressor(solver=solver, clip=False)
        for some, of_some in zip(cut(df, [50, 120]), cut(y, [50, 120]), strict=True):
            model.partial_fit(some, of_some)
        units, (training,) = model._units(), model._session.trainings
        inside = training.table.copy()
        np.testing.assert_allclose(model.coef_, inside.w * units.scale, rtol=1e-6)
        np.testing.assert_allclose(model.factors_, inside.V * units.scale**0.5, rtol=1e-6)
        assert model.intercept_ == pytest.approx(units.centre + units.scale * inside.w0)


def test_growing_alone_changes_no_prediction_of_old_rows() -> None:
    """A piece of next to no step, whose only effect is new columns."""
    df, y = frame(300)
    model = regressor(encoder=IDS, clip=False).fit(df, y)
    names, before = model.encoder_.get_feature_names_out().tolist(), model.predict(df)
    factors, weights = model.factors_.copy(), model.coef_.copy()
    unknown = model.predict(df[:1].assign(user="new"))
    model.set_params(solver=SGD(learning_rate=1e-30))
    more = df[:40].assign(user=[f"new{j}" for j in range(40)])
    model.partial_fit(more, y[:40])
    assert model.encoder_.get_feature_names_out().tolist()[: len(names)] == names
    assert model.encoder_.n_features_out_ == len(names) + 40 == len(model.coef_)
    np.testing.assert_allclose(model.coef_[: len(names)], weights, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(model.factors_[: len(names)], factors, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(model.predict(df), before, rtol=1e-6)
    np.testing.assert_allclose(model.predict(df[:1].assign(user="new7")), unknown, rtol=1e-6)


def test_a_new_user_is_learned_and_old_ones_are_kept() -> None:
    df, y = frame(2000)
    model = regressor(encoder=IDS)
    for _ in range(5):
        model.partial_fit(df, y)
    more, z = frame(150, seed=1, users=[100])
    known, unseen = cut(more, [100])
    z_known, z_unseen = cut(z, [100])
    old = model.score(df, y)
    before = np.mean((model.predict(unseen) - z_unseen) ** 2)
    for _ in range(20):
        model.partial_fit(known, z_known)
    assert np.mean((model.predict(unseen) - z_unseen) ** 2) < 0.7 * before
    assert model.score(df, y) > old - 0.1


def test_columns_of_a_level_seen_in_a_later_piece_take_part() -> None:
    df, y = frame(1500)
    whole = regressor(encoder=IDS)
    order = np.argsort([int(u[1:]) for u in df["user"]], kind="stable")  # users come one after the other
    df, y = df.iloc[order], y[order]
    for _ in range(6):
        for start in range(0, 1500, 250):
            whole.partial_fit(df[start : start + 250], y[start : start + 250])
    assert whole.score(df, y) > 0.6


def test_statistics_of_labels_do_not_leak_into_their_own_rows() -> None:
    """Labels of pure noise: who could read them off the statistics would predict them."""
    rng = np.random.default_rng(0)
    df = pd.DataFrame({"user": [f"u{j}" for j in rng.permutation(2000) // 2]})
    y = rng.normal(size=2000)
    # a user has two rows, both in one piece
    order = np.argsort(df["user"], kind="stable").to_numpy()
    df, y = df.iloc[order].reset_index(drop=True), y[order]
    encoder = FrameEncoder({"statistics": TargetStats(["user"])})
    model = FMRegressor(2, encoder=encoder, solver=AdaGrad(learning_rate=0.5), random_state=0)
    for start in range(0, 2000, 100):
        model.partial_fit(df[start : start + 100], y[start : start + 100])
    assert np.mean([record["loss"] for record in model.history_[1:]]) > 0.45  # half the variance is all there is
    # what the model makes of statistics that do tell the labels
    assert np.mean((model.predict(df) - y) ** 2) > 0.8


@pytest.mark.parametrize("once", [False, True])
def test_statistics_of_labels_do_not_leak_in_a_stream(once: bool) -> None:
    """As above; a row must not be described by its own label in the epochs either."""
    rng = np.random.default_rng(0)
    df, y = pd.DataFrame({"user": [f"u{j // 2}" for j in range(2000)]}), rng.normal(size=2000)
    cuts = list(range(100, 2000, 100))
    pieces = list(zip(cut(df, cuts), cut(y, cuts), strict=True))
    encoder = FrameEncoder({"statistics": TargetStats(["user"])})
    model = FMRegressor(2, encoder=encoder, solver=AdaGrad(learning_rate=0.5), random_state=0)
    if not once:
        with pytest.raises(ValueError, match=r"fields \['statistics'\] are statistics of labels.* give a generator"):
            model.fit_stream(pieces, epochs=20)
        return
    model.fit_stream(iter(pieces))
    assert np.mean([record["loss"] for record in model.history_[1:]]) > 0.45
    assert np.mean((model.predict(df) - y) ** 2) > 0.8


@pytest.mark.parametrize("begin", ["fit", "partial_fit"])
def test_predictions_reach_as_far_as_the_targets_of_all_pieces(begin: str) -> None:
    X, y = numbers(400)
    y = X[:, 0] * 2.0
    low, high = np.flatnonzero(y < 0), np.flatnonzero(y >= 0)
    model = FMRegressor(2, random_state=0)
    getattr(model, begin)(X[low], y[low])
    for _ in range(20):
        model.partial_fit(X[high], y[high]).partial_fit(X[low], y[low])
    assert model.target_range_ == (y.min(), y.max())
    assert model.predict(X).max() > 1


REFUSED: dict[str, tuple[Any, str]] = {
    "a label too few": (lambda X, y: {"X": X, "y": y[:-1]}, "y|inconsistent"),
    "no y": (lambda X, y: {"X": X, "y": None}, "y"),
    "NaN in y": (lambda X, y: {"X": X, "y": np.r_[y[:-1].astype(float), np.nan]}, "y|classes"),
    "infinity in y": (lambda X, y: {"X": X, "y": np.r_[y[:-1].astype(float), np.inf]}, "y|classes"),
    "words in y": (lambda X, y: {"X": X, "y": np.array(["word"] * len(y))}, "y"),
    "y of two columns": (lambda X, y: {"X": X, "y": np.column_stack([y, y])}, "y"),
    "y is a number": (lambda X, y: {"X": X, "y": 3.0}, "y"),
    "no rows": (lambda X, y: {"X": X[:0], "y": y[:0]}, "0 rows|0 sample"),
    "a weight too few": (lambda X, y: {"X": X, "y": y, "sample_weight": np.ones(len(y) - 1)}, "sample_weight"),
    "negative weights": (lambda X, y: {"X": X, "y": y, "sample_weight": -np.ones(len(y))}, "sample_weight"),
    "weights of zero": (lambda X, y: {"X": X, "y": y, "sample_weight": np.zeros(len(y))}, "sample_weight"),
    "NaN in weights": (lambda X, y: {"X": X, "y": y, "sample_weight": np.full(len(y), np.nan)}, "sample_weight"),
}
OF_MATRICES: dict[str, tuple[Any, str]] = {
    "a column more": (lambda X, y: {"X": np.hstack([X, X[:, :1]]), "y": y}, "6 features"),
    "a column less": (lambda X, y: {"X": X[:, :-1], "y": y}, "4 features"),
    "NaN in X": (lambda X, y: {"X": np.where(X[0, 0] == X, np.nan, X), "y": y}, "NaN"),
    "words in X": (lambda X, y: {"X": np.full(X.shape, "word"), "y": y}, "."),
    "one row as a vector": (lambda X, y: {"X": X[0], "y": y[:5]}, "."),
}
OF_FRAMES: dict[str, tuple[Any, str]] = {
    "a column is missing": (lambda X, y: {"X": X.drop(columns="age"), "y": y}, "age"),
    "a number is a word": (lambda X, y: {"X": X.assign(age="old"), "y": y}, "age"),
    "a matrix": (lambda X, y: {"X": np.ones((len(y), 3)), "y": y}, "."),
}


@pytest.mark.parametrize("after", ["nothing", "partial_fit", "fit"])
@pytest.mark.parametrize("kind", [FMRegressor, FMClassifier])
@pytest.mark.parametrize("case", [*REFUSED, *OF_MATRICES])
def test_a_piece_of_a_matrix_that_is_refused_changes_nothing(after: str, kind: type, case: str) -> None:
    X, y = numbers()
    y = (y > 0).astype(float) if kind is FMClassifier else y
    model = kind(3, random_state=0)
    make, message = {**REFUSED, **OF_MATRICES}[case]
    if after == "nothing":
        if case in ("a column more", "a column less"):
            pytest.skip("the first piece may have any width")
        if kind is FMClassifier and case == "words in y":
            pytest.skip("words are labels")
    else:
        getattr(model, after)(X, y)
    attributes, held = dict(model.__dict__), None if after == "nothing" else state(model)
    with pytest.raises((ValueError, TypeError), match=message) as caught:
        model.partial_fit(**make(X, y))
    assert "has no len" not in str(caught.value)
    if held is None:
        assert model.__dict__ == attributes
    else:
        assert state(model) == held
        model.partial_fit(X, y)


@pytest.mark.parametrize("after", ["nothing", "partial_fit", "fit"])
@pytest.mark.parametrize("case", [*REFUSED, *OF_FRAMES])
def test_a_piece_of_a_frame_that_is_refused_changes_nothing(after: str, case: str) -> None:
    df, y = frame(120)
    model = regressor()
    make, message = {**REFUSED, **OF_FRAMES}[case]
    if after != "nothing":
        getattr(model, after)(df, y)
    attributes, held = dict(model.__dict__), None if after == "nothing" else state(model)
    new = df.assign(user="newcomer")
    with pytest.raises((ValueError, TypeError), match=message) as caught:
        model.partial_fit(**make(new, y))
    assert "has no len" not in str(caught.value)
    if held is None:
        assert model.__dict__ == attributes
    else:
        assert state(model) == held
        model.partial_fit(df, y)


def test_classes_name_all_labels_there_will_be() -> None:
    X, y = numbers()
    labels = np.where(y > 0, "b", "a")
    model = FMClassifier(2, random_state=0).partial_fit(X, labels, classes=["a", "b", "c"])
    assert model.classes_.tolist() == ["a", "b", "c"]
    model.partial_fit(X, np.where(y > 1, "c", "a"))
    assert model.predict_proba(X).shape == (120, 3)
    with pytest.raises(ValueError, match="'d'"):
        model.partial_fit(X, np.where(y > 1, "d", "a"))
    # one label in a piece will do when the others are announced
    FMClassifier(2, random_state=0).partial_fit(X, np.full(120, "a"), classes=["a", "b"]).partial_fit(X, labels)
    unannounced = FMClassifier(2, random_state=0).partial_fit(X, labels)
    with pytest.raises(ValueError, match="classes that the first y has not"):
        unannounced.partial_fit(X, np.full(120, "c"))
    with pytest.raises(ValueError, match="c"):
        FMClassifier(2).partial_fit(X, np.full(120, "c"), classes=["a", "b"])
    with pytest.raises(ValueError, match="one class"):
        FMClassifier(2).partial_fit(X, np.full(120, "c"))


def test_other_classes_at_a_later_call_are_refused() -> None:
    X, y = numbers()
    model = FMClassifier(2, random_state=0).partial_fit(X, y > 0, classes=[False, True])
    model.partial_fit(X, y > 0, classes=[False, True])
    held = state(model)
    with pytest.raises(ValueError, match="classes"):
        model.partial_fit(X, y > 0, classes=[False, True, 2])
    assert state(model) == held


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("loaded", [False, True])
def test_training_goes_on_after_fit_and_after_load(name: str, loaded: bool, tmp_path: Path) -> None:
    df, y = frame(1500, users=range(9))
    model = regressor(solver=METHODS[name](), encoder=IDS).fit(df[:500], y[:500])
    if loaded:
        model.save(tmp_path / "m")
        model = load(tmp_path / "m")
    before, held = model.score(df[1000:], y[1000:]), model.predict(df)
    # a pass of next to no step keeps what was learned
    still = copy.deepcopy(model).set_params(solver__learning_rate=1e-12)
    if not name.startswith("ftrl"):  # whose weights follow from sums that are divided by the step
        close = 0.05 if name == "bf16" else 1e-5
        np.testing.assert_allclose(still.partial_fit(df[500:600], y[500:600]).predict(df), held, atol=close)
    for _ in range(5):
        for start in range(500, 1000, 100):
            model.partial_fit(df[start : start + 100], y[start : start + 100])
    assert model.score(df[1000:], y[1000:]) > before


@pytest.mark.parametrize("kind", [FMRegressor, FMClassifier])
def test_saved_after_a_piece(kind: type, tmp_path: Path) -> None:
    df, y = frame(400)
    y = target_of(kind, y)
    model = kind(3, encoder=ENCODER, random_state=0).partial_fit(df[:200], y[:200])
    for start in (200, 300):
        model.partial_fit(df[start : start + 100].assign(user=f"new{start}"), y[start : start + 100])
    model.save(tmp_path / "m")
    back = load(tmp_path / "m")
    np.testing.assert_array_equal(
        predicted(back, df) if kind is FMRegressor else back.predict_proba(df)[:, 1], predicted(model, df)
    )
    assert back.history_ == model.history_
    back.partial_fit(df, y).save(tmp_path / "m")
    np.testing.assert_array_equal(load(tmp_path / "m").predict(df), back.predict(df))


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("how", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_goes_on_as_the_original_does(name: str, how: Callable[[Any], Any]) -> None:
    df, y = frame(400)
    model = regressor(solver=METHODS[name]()).partial_fit(df[:200], y[:200])
    others = [how(model) for _ in range(4)]  # arrays in several places of memory
    before = model.predict(df)
    model.partial_fit(df[200:], y[200:])
    for other in others:
        np.testing.assert_array_equal(other.predict(df), before)
        assert_same(other.partial_fit(df[200:], y[200:]), model)


def test_a_clone_begins_anew() -> None:
    df, y = frame(200)
    model = regressor().partial_fit(df, y)
    assert_same(clone(model).partial_fit(df, y), regressor().partial_fit(df, y))


def test_a_fit_after_pieces_forgets_them() -> None:
    df, y = frame(200)
    model = regressor().partial_fit(df[:50], y[:50]).fit(df, y)
    assert_same(model, regressor().fit(df, y))
    assert_same(model.partial_fit(df, y), regressor().fit(df, y).partial_fit(df, y))


@pytest.mark.parametrize("order", [(np.float32, np.float64, np.float32), (np.float64, np.float32, np.float64)])
@pytest.mark.parametrize("begin", ["fit", "partial_fit"])
def test_pieces_of_other_real_types(order: Any, begin: str) -> None:
    """A matrix of float64 after one of float32, or a list of rows."""
    X, y = numbers()
    X = np.where(np.abs(X) < 0.3, 0, X).round(2)
    model = FMRegressor(2, random_state=0)
    getattr(model, begin)(X.astype(order[0]), y)
    for dtype in order[1:]:
        model.partial_fit(X.astype(dtype), y)
    model.partial_fit(sp.csr_array((X != 0).astype(np.int64)), y)
    assert np.isfinite(model.predict(X)).all()


def test_sample_weights_count_in_pieces() -> None:
    X, y = numbers(600)
    model = FMRegressor(4, random_state=0, clip=False)
    for _ in range(5):
        weight = np.r_[np.ones(300), np.full(300, 1e-6)]
        model.partial_fit(np.vstack([X[:300], X[:300]]), np.r_[y[:300], -y[:300]], sample_weight=weight)
    assert model.score(X[300:], y[300:]) > 0.5


def test_weights_of_pieces_are_in_the_unit_of_the_first() -> None:
    X, y = ratings()
    pieces = list(zip(cut(X, [80, 160]), cut(y, [80, 160]), strict=True))

    def taught(*weights: Any) -> Any:
        model = FMRegressor(3, random_state=0, n_threads=1)
        for (some, target), weight in zip(pieces, weights, strict=True):
            model.partial_fit(some, target, sample_weight=weight)
        return model

    assert_same(taught(None, None, None), taught(2.0, np.full(80, 2.0), 2.0))
    assert_same(taught(2.0, 2.0, 6.0), taught(None, None, np.full(80, 3.0)))
    assert_same(taught(0.5, None, None), taught(None, 2.0, 2.0))
    assert_same(taught(1e308, 1e308, 1e308), taught(None, None, None))
    light, plain, heavy = (taught(None, None, weight).predict(X) for weight in (0.1, 1.0, 5.0))
    moved = [np.abs(other - taught(None, None, 1e-20).predict(X)).mean() for other in (light, plain, heavy)]
    assert moved[0] < moved[1] < moved[2]
    losses = [r["loss"] for r in taught(None, None, 1.0).history_ + taught(None, None, 3.0).history_]
    np.testing.assert_allclose(losses[2], losses[5], rtol=0.05)  # means, whatever the weight


def test_weights_of_classes_in_pieces_are_those_of_their_rows() -> None:
    X, y = ratings()
    labels = np.where(y > 3.5, "good", "bad")
    order = np.argsort(labels != "good", kind="stable")  # the last piece knows one class only
    order = np.r_[order[:20], order[-100:], order[20:-100]]
    X, labels = X[order], labels[order]
    weighted = FMClassifier(3, class_weight={"good": 4.0}, random_state=0, n_threads=1)
    told = clone(weighted).set_params(class_weight=None)
    for some, target in zip(cut(X, [120, 180]), cut(labels, [120, 180]), strict=True):
        weighted.partial_fit(some, target)
        told.partial_fit(some, target, sample_weight=np.where(target == "good", 4.0, 1.0))
    assert_same(weighted, told)


def test_weights_of_classes_that_no_piece_can_tell_are_refused() -> None:
    X, y = ratings()
    labels = y > 3.5
    balanced = FMClassifier(3, class_weight="balanced")
    with pytest.raises(ValueError, match="frequencies of all classes"):
        balanced.partial_fit(X, labels)
    assert not hasattr(balanced, "params_")
    wrong = FMClassifier(3, class_weight={"good": 2.0})
    for call in (wrong.fit, wrong.partial_fit, lambda X, y: wrong.fit_stream([(X, y)])):
        with pytest.raises(ValueError, match=r"class_weight names \['good'\]; the classes are \[False, True\]"):
            call(X, labels)
    for weight in (-1.0, np.nan, "2"):
        with pytest.raises(ValueError, match=r"class_weight\[True\] must be a non-negative number"):
            FMClassifier(3, class_weight={True: weight}).fit(X, labels)


@pytest.mark.parametrize(
    "changed",
    [{"n_factors": 4}, {"loss": "huber"}, {"l2_factors": 1.0}, {"solver": AdaGrad(learning_rate=0.1)}, {"delta": 2.0}],
    ids=str,
)
def test_options_that_change_on_the_way_are_refused(changed: dict[str, Any]) -> None:
    X, y = ratings()
    model = FMRegressor(3, random_state=0).partial_fit(X, y)
    held = state(model)
    with pytest.raises(ValueError, match=f"the options of its first call, but {next(iter(changed))} changed"):
        model.set_params(**changed).partial_fit(X, y)
    assert state(model) == held


def test_options_that_train_nothing_may_change_on_the_way() -> None:
    X, y = ratings()
    model, expected = (FMRegressor(3, random_state=0, n_threads=1).partial_fit(X, y) for _ in range(2))
    model.set_params(n_threads=2, clip=False, verbose=0).partial_fit(X, y)
    assert_same(model.set_params(clip=True), expected.partial_fit(X, y))


def test_pieces_after_a_fit_of_another_number_of_factors_are_refused() -> None:
    X, y = ratings()
    model = FMRegressor(3, random_state=0).fit(X, y)
    with pytest.raises(ValueError, match=r"fitted with n_factors=3, which is now 5, or is of another order: fit anew"):
        model.set_params(n_factors=5).partial_fit(X, y)
    model.set_params(n_factors=3).partial_fit(X, y)


def test_counts_stay_counts() -> None:
    X, y = ratings()
    model = FMRegressor(2, loss="poisson", random_state=0).partial_fit(X, np.abs(y).round())
    held = state(model)
    with pytest.raises(ValueError, match="poisson"):
        model.partial_fit(X, -np.abs(y).round() - 1)
    assert state(model) == held


def test_a_solver_of_another_kind_is_refused() -> None:
    X, y = ratings()
    with pytest.raises(AttributeError, match="no attribute 'partial_fit'") as caught:
        FMRegressor(solver="auto").partial_fit(X, y)
    assert "needs a first-order solver such as 'adagrad', not 'auto'" in str(caught.value.__cause__)
    with pytest.raises(TypeError, match="needs a first-order solver such as 'adagrad', not 'auto'"):
        FMRegressor(solver="auto").fit_stream([(X, y)])
    for call in (lambda m: m.partial_fit(X, y), lambda m: m.fit_stream([(X, y)])):
        with pytest.raises(ValueError, match="n_factors"):
            call(FMRegressor(n_factors=-1))


# Pieces that run away ------------------------------------------------------------------------------


@pytest.mark.parametrize("begin", ["fit", "partial_fit"])
@pytest.mark.parametrize("new_levels", [False, True])
def test_a_piece_that_diverges_leaves_a_working_model(begin: str, new_levels: bool, tmp_path: Path) -> None:
    df, y = frame(200)
    model = regressor(encoder=IDS)
    getattr(model, begin)(df, y)
    before = model.predict(df)
    held = state(model, vocabulary=False)
    more = df.assign(user="new") if new_levels else df
    if begin == "fit":
        model.set_params(solver=SGD(learning_rate=1e30))
    else:
        model._session.trainings[0].rate = model._session.trainings[0].bias_rate = 1e30
    rate = None if begin == "fit" else 1e30
    with pytest.raises(DivergenceError, match="halved 12 times"):
        model.partial_fit(more, y)
    np.testing.assert_array_equal(model.predict(df), before)
    if not new_levels and rate is None:
        assert state(model, vocabulary=False) == held
    model.save(tmp_path / "m")
    np.testing.assert_array_equal(load(tmp_path / "m").predict(df), before)
    if begin == "partial_fit":
        model._session.trainings[0].rate = model._session.trainings[0].bias_rate = 0.1
        model.partial_fit(more, y)
        assert np.isfinite(model.predict(more)).all()


def halves(n: int = 300) -> tuple[Any, np.ndarray, Any]:
    """Rows of the first half of the columns, and rows of the second."""
    X, y = ratings(n)
    nothing = sp.csr_array((n, 22), dtype=np.float32)
    return sp.hstack([X, nothing], format="csr"), y, sp.hstack([nothing, X], format="csr")


def test_columns_that_come_with_a_piece_that_runs_away_start_as_others_do() -> None:
    """The piece is taken back and repeated: its new columns keep their starting factors and their penalties."""
    X, y, Z = halves()
    calm, wild = FMRegressor(4, random_state=0, solver="sgd"), FMRegressor(4, random_state=0, solver="sgd")
    for model in (calm, wild):
        model.partial_fit(X, y)
    wild._session.trainings[0].rate = wild._session.trainings[0].bias_rate = 32.0
    with pytest.warns(ConvergenceWarning, match="ran away on these rows and was taken back"):
        wild.partial_fit(Z, y)
    rate = wild._session.trainings[0].rate
    assert rate < 32
    calm._session.trainings[0].rate = calm._session.trainings[0].bias_rate = rate
    calm.partial_fit(Z, y)
    assert np.abs(calm.factors_[22:]).max() > 0
    assert_same(wild, calm)


def test_columns_that_come_with_a_piece_that_fails_start_as_others_do(monkeypatch: pytest.MonkeyPatch) -> None:
    X, y, Z = halves()
    model, expected = FMRegressor(4, random_state=0), FMRegressor(4, random_state=0)
    for each in (model, expected):
        each.partial_fit(X, y)

    def press(*args: Any, **more: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Training, "run", press)
        with pytest.raises(KeyboardInterrupt):
            model.partial_fit(Z, y)
    held = state(expected)
    assert state(model)[0] == held[0]
    assert state(model)[3] == held[3]
    assert_same(model.partial_fit(Z, y), expected.partial_fit(Z, y))


def test_a_rate_that_was_halved_stays_so() -> None:
    X, y = ratings()
    model = FMRegressor(3, solver=SGD(learning_rate=30.0), random_state=0)
    with pytest.warns(ConvergenceWarning, match="from here on learning_rate=") as caught:
        model.partial_fit(X, y)
    assert [warning.filename for warning in caught] == [__file__]
    rate = model._session.trainings[0].rate
    assert f"learning_rate={rate:.3g}" in str(caught[0].message)
    assert rate < 30
    assert np.isfinite(model.predict(X)).all()
    assert len(model.history_) == 1
    model._session.trainings[0].rate *= 64
    with pytest.warns(ConvergenceWarning, match="from here on learning_rate=") as caught:
        model.partial_fit(X, y)
    assert [warning.filename for warning in caught] == [__file__]


# -------------------------------------------------------------------------------------- fit_stream

CUTS = [[], [1], [100], [1, 2, 3, 150], [37, 74, 111, 148, 185], list(range(10, 240, 10))]
STREAMED = {
    "adagrad": AdaGrad,
    "rowwise": METHODS["rowwise"],
    "bf16": METHODS["bf16"],
    "sgd": SGD,
    "adam": Adam,
    "ftrl": FTRL,
}


def in_order(name: str, epochs: int = 1, **options: Any) -> Any:
    return STREAMED[name](max_iter=epochs, shuffle=False, batch_size=1, **options)


@pytest.mark.parametrize("name", STREAMED)
@pytest.mark.parametrize("kind", [FMRegressor, FMClassifier])
@pytest.mark.parametrize("cuts", CUTS, ids=len)
def test_a_stream_of_matrices_is_the_fit_of_the_whole(name: str, kind: type, cuts: list[int]) -> None:
    X, y = ratings()
    y = target_of(kind, y.round() / 2)
    options: dict[str, Any] = {"n_factors": 3, "random_state": 0}
    expected = kind(solver=in_order(name, 3), **options).fit(X, y)
    pieces = list(zip(cut(X, cuts), cut(y, cuts), strict=True))
    model = kind(solver=in_order(name), **options).fit_stream(pieces, epochs=3)
    assert_same(model, expected)
    np.testing.assert_array_equal(predicted(model, X), predicted(expected, X))
    assert [record["epoch"] for record in model.history_] == [1, 2, 3]
    np.testing.assert_allclose([r["loss"] for r in model.history_], [r["loss"] for r in expected.history_], rtol=1e-9)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_stream_of_numbers_is_nearly_the_fit_of_the_whole(dtype: Any) -> None:
    X, y = numbers(240, dtype=dtype)
    options: dict[str, Any] = {"n_factors": 3, "random_state": 0}
    expected = FMRegressor(solver=in_order("adagrad", 3), **options).fit(X, y)
    pieces = list(zip(cut(X, [7, 99]), cut(y, [7, 99]), strict=True))
    model = FMRegressor(solver=in_order("adagrad"), **options).fit_stream(pieces, epochs=3)
    np.testing.assert_allclose(model.predict(X), expected.predict(X), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", STREAMED)
@pytest.mark.parametrize("cuts", CUTS, ids=len)
def test_a_stream_of_frames_is_the_fit_of_the_whole(name: str, cuts: list[int]) -> None:
    df, y = frame(240)
    y = (2 * y).round() / 2
    expected = regressor(encoder=IDS, solver=in_order(name, 2)).fit(df, y)
    whole = df.assign(rating=y)
    model = regressor(encoder=IDS, solver=in_order(name)).fit_stream(cut(whole, cuts), target="rating", epochs=2)
    assert_same(model, expected)
    np.testing.assert_array_equal(model.predict(df), expected.predict(df))
    assert model.encoder_.get_feature_names_out().tolist() == expected.encoder_.get_feature_names_out().tolist()
    assert model.feature_names_in_.tolist() == expected.feature_names_in_.tolist()
    assert model.n_features_in_ == expected.n_features_in_


@pytest.mark.parametrize("name", ["adagrad", "sgd"])
def test_the_order_of_rows_is_that_of_the_stream_whatever_the_solver_says(name: str) -> None:
    """A shuffle inside the pieces would make the result depend on the cuts."""
    X, y = ratings()
    y = y.round()
    expected = FMRegressor(3, solver=in_order(name, 2), random_state=0).fit(X, y)
    for cuts in CUTS[:3]:
        pieces = list(zip(cut(X, cuts), cut(y, cuts), strict=True))
        assert_same(FMRegressor(3, solver=STREAMED[name](), random_state=0).fit_stream(pieces, epochs=2), expected)


def test_dropout_in_a_stream_does_not_depend_on_the_cuts() -> None:
    X, y = ratings()
    y = y.round()
    solver = in_order("adagrad", 2, dropout=0.3)
    expected = FMRegressor(3, solver=solver, random_state=0).fit(X, y)
    for cuts in CUTS:
        pieces = list(zip(cut(X, cuts), cut(y, cuts), strict=True))
        assert_same(FMRegressor(3, solver=solver, random_state=0).fit_stream(pieces, epochs=2), expected)


def test_l2_by_field_and_several_classes_in_a_stream() -> None:
    df, y = frame(240)
    labels = np.digitize(y, [3, 4])
    more: dict[str, Any] = {"encoder": IDS, "l2_factors": {"user": 0.3}, "random_state": 0}
    expected = FMClassifier(3, solver=in_order("adagrad", 2), **more).fit(df, labels)
    pieces = list(zip(cut(df, [9, 200]), cut(labels, [9, 200]), strict=True))
    model = FMClassifier(3, solver=in_order("adagrad"), **more).fit_stream(pieces, epochs=2)
    np.testing.assert_array_equal(model.decision_function(df), expected.decision_function(df))
    assert [(r["epoch"], r["class"]) for r in model.history_] == [(e, c) for e in (1, 2) for c in (0, 1, 2)]


@pytest.mark.parametrize("class_weight", ["balanced", {"good": 5.0, "bad": 1.0}])
def test_weights_of_classes_are_those_of_the_whole_stream(class_weight: Any) -> None:
    X, y = ratings()
    labels = np.where(y > 3.5, "good", "bad")
    more: dict[str, Any] = {"class_weight": class_weight, "random_state": 0}
    expected = FMClassifier(3, solver=in_order("adagrad", 2), **more).fit(X, labels)
    for cuts in CUTS:
        pieces = list(zip(cut(X, cuts), cut(labels, cuts), strict=True))
        model = FMClassifier(3, solver=in_order("adagrad"), **more).fit_stream(pieces, epochs=2)
        np.testing.assert_allclose(model.decision_function(X), expected.decision_function(X), rtol=1e-3, atol=1e-4)


def test_lists_functions_and_generators_give_the_same_rows() -> None:
    df, y = frame(240)
    whole = df.assign(rating=y.round())
    pieces = cut(whole, [50, 130])

    class Again:
        def __iter__(self) -> Iterator[pd.DataFrame]:
            return iter(pieces)

    opened: list[int] = []

    def open_again() -> Iterator[pd.DataFrame]:
        opened.append(1)
        return iter(pieces)

    expected = regressor(encoder=IDS).fit_stream(pieces, target="rating", epochs=2)
    for frames in (tuple(pieces), Again(), open_again, lambda: pieces):
        assert_same(regressor(encoder=IDS).fit_stream(frames, target="rating", epochs=2), expected)
    assert len(opened) == 4
    pairs = [(p.drop(columns="rating"), p["rating"].to_numpy()) for p in pieces]
    assert_same(regressor(encoder=IDS).fit_stream(pairs, epochs=2), expected)


def test_a_generator_is_read_once_as_partial_fit_reads_it() -> None:
    df, y = frame(400)
    pieces = list(zip(cut(df, [100, 250]), cut(y, [100, 250]), strict=True))
    expected = regressor()
    for X, of_X in pieces:
        expected.partial_fit(X, of_X)
    read: list[int] = []

    def once() -> Iterator[Any]:
        for number, piece in enumerate(pieces):
            read.append(number)
            yield piece

    model = regressor().fit_stream(once())
    assert read == [0, 1, 2]
    assert_same(model, expected)
    again = model.fit_stream(iter(pieces))  # a fit: it begins anew
    assert_same(again, expected)
    whole = df.assign(rating=y)
    assert_same(regressor().fit_stream(iter(cut(whole, [100, 250])), target="rating"), expected)


def test_a_streamed_model_learns_saves_and_goes_on(tmp_path: Path) -> None:
    df, y = frame(3000)
    pieces = list(zip(cut(df, [1000, 1500]), cut(y, [1000, 1500]), strict=True))
    model = regressor().fit_stream(pieces, epochs=8)
    test, z = frame(500, seed=5)
    assert model.score(test, z) > 0.7
    model.save(tmp_path / "m")
    back = load(tmp_path / "m")
    np.testing.assert_array_equal(back.predict(test), model.predict(test))
    np.testing.assert_array_equal(
        back.partial_fit(test, z).predict(test), pickle.loads(pickle.dumps(model)).partial_fit(test, z).predict(test)
    )


@NEEDS_POLARS
def test_frames_of_other_libraries_in_a_stream() -> None:
    import polars
    import pyarrow

    df, y = frame(240)
    pieces = cut(df.assign(rating=y.round()), [90])
    for epochs in (1, 2):
        expected = regressor().fit_stream(pieces, target="rating", epochs=epochs)
        for of in (polars.from_pandas, lambda p: pyarrow.Table.from_pandas(p, preserve_index=False)):
            model = regressor().fit_stream([of(p) for p in pieces], target="rating", epochs=epochs)
            assert_same(model, expected)
            pairs = [(of(p.drop(columns="rating")), of(p)["rating"]) for p in pieces]
            assert_same(regressor().fit_stream(pairs, epochs=epochs), expected)
    expected = regressor().fit_stream(iter(pieces), target="rating")
    assert_same(regressor().fit_stream((polars.from_pandas(p) for p in pieces), target="rating"), expected)


@NEEDS_ARROW
def test_pieces_of_other_libraries_one_by_one() -> None:
    import pyarrow

    df, y = frame(240)
    ours, theirs = regressor(), regressor()
    for X, of_X in zip(cut(df, [90]), cut(y, [90]), strict=True):
        ours.partial_fit(X, of_X)
        theirs.partial_fit(pyarrow.Table.from_pandas(X, preserve_index=False), of_X)
    assert_same(ours, theirs)


def test_empty_pieces_are_passed_over() -> None:
    X, y = ratings()
    expected = FMRegressor(3, random_state=0, solver=in_order("adagrad")).fit_stream([(X, y)])
    pieces = [(X[:0], y[:0]), (X[:9], y[:9]), (X[:0], y[:0]), (X[9:], y[9:])]
    assert_same(FMRegressor(3, random_state=0, solver=in_order("adagrad")).fit_stream(pieces), expected)


def test_values_of_one_in_one_piece_and_others_in_the_next() -> None:
    X, y = ratings()
    Z = X.copy()
    Z.data[240:] = 0.5
    expected = FMRegressor(3, solver=in_order("adagrad", 2), random_state=0).fit(Z, y.round())
    pieces = [(Z[:120], y[:120].round()), (Z[120:], y[120:].round())]
    model = FMRegressor(3, solver=in_order("adagrad"), random_state=0).fit_stream(pieces, epochs=2)
    np.testing.assert_allclose(model.predict(X), expected.predict(X), rtol=1e-5)


@pytest.mark.parametrize("order", [(np.float32, np.float64), (np.float64, np.float32)])
def test_pieces_of_other_real_types_in_a_stream(order: Any) -> None:
    X, y = numbers()
    pieces = [(X[:60].astype(order[0]), y[:60]), (X[60:].astype(order[1]), y[60:])]
    for frames in (pieces, iter(pieces)):
        model = FMRegressor(2, random_state=0).fit_stream(frames)
        assert np.isfinite(model.predict(X)).all()


X_, Y_ = ratings(20)
DF_, Z_ = frame(20)
WRONG: dict[str, tuple[Any, dict[str, Any], Any, str]] = {
    "no pieces": (lambda: [], {}, None, "frames holds no rows: there is nothing to fit"),
    "no pieces once": (lambda: iter([]), {}, None, "frames holds no rows: there is nothing to fit"),
    "empty pieces": (lambda: [(X_[:0], Y_[:0])] * 2, {}, None, "frames holds no rows"),
    "empty pieces once": (lambda: iter([(X_[:0], Y_[:0])]), {}, None, "frames holds no rows"),
    "a generator twice": (lambda: iter([(X_, Y_)]), {"epochs": 2}, None, "can be iterated once only"),
    "no epochs": (lambda: [(X_, Y_)], {"epochs": 0}, None, "epochs must be a positive integer"),
    "half an epoch": (lambda: [(X_, Y_)], {"epochs": 1.5}, None, "epochs must be a positive integer"),
    "true epochs": (lambda: [(X_, Y_)], {"epochs": True}, None, "epochs must be a positive integer"),
    "no target": (lambda: [DF_], {}, ENCODER, "target must name the column that holds y"),
    "another target": (lambda: [DF_], {"target": "stars"}, ENCODER, "has no column 'stars', only"),
    "a column is absent": (
        lambda: [(DF_, Z_), (DF_.drop(columns="age"), Z_)],
        {},
        ENCODER,
        "age",
    ),
    "other widths": (lambda: [(X_, Y_), (X_[:, :20], Y_)], {}, None, "a piece has 20 columns, those before have 22"),
    "other widths once": (lambda: iter([(X_, Y_), (X_[:, :20], Y_)]), {}, None, "20 features"),
    "frames without an encoder": (lambda: [(DF_, Z_)], {}, None, "needs encoder=FrameEncoder"),
    "matrices with an encoder": (lambda: [(X_, Y_)], {}, ENCODER, "."),
    "a number": (lambda: 7, {}, None, "frames must be an iterable"),
    "None": (lambda: None, {}, None, "frames must be an iterable"),
    "a frame": (lambda: DF_, {"target": "age"}, ENCODER, "frames must be an iterable"),
    "a matrix as a piece": (lambda: [X_], {}, None, "each piece must be a frame or a pair"),
    "a piece of three": (lambda: [(X_, Y_, Y_)], {}, None, "each piece must be a frame or a pair"),
    "a y too short": (lambda: [(X_, Y_), (X_, Y_[:-1])], {}, None, "y"),
    "NaN in a later y": (lambda: [(X_, Y_), (X_, np.where(Y_[3] == Y_, np.nan, Y_))], {}, None, "y"),
    "words in a later y": (lambda: [(X_, Y_), (X_, np.full(20, "word"))], {}, None, "y"),
    "y of two columns": (lambda: [(X_, np.column_stack([Y_, Y_]))], {}, None, "target|y"),
    "y is None": (lambda: [(X_, None)], {}, None, "target|y"),
}


@pytest.mark.parametrize("fitted", [False, True])
@pytest.mark.parametrize("case", WRONG)
def test_a_stream_that_is_refused_leaves_the_model_as_it_was(case: str, fitted: bool) -> None:
    make, more, encoder, message = WRONG[case]
    model = FMRegressor(2, encoder=encoder, random_state=0)
    if fitted:
        model.fit(*((DF_, Z_) if encoder is not None else (X_, Y_)))
    attributes = dict(model.__dict__)
    held = state(model) if fitted else None
    with pytest.raises((ValueError, TypeError), match=message) as caught:
        model.fit_stream(make(), **more)
    assert "has no len" not in str(caught.value)
    assert model.__dict__ == attributes
    if fitted:
        assert state(model) == held


@pytest.mark.parametrize("error", [RuntimeError("mine"), KeyboardInterrupt(), OSError("disk")])
@pytest.mark.parametrize("fitted", [False, "fit", "partial_fit"])
@pytest.mark.parametrize("reading", [1, 2, 3])
def test_a_stream_that_breaks_off_leaves_the_model_as_it_was(error: BaseException, fitted: Any, reading: int) -> None:
    """In the reading for the encoder, for the frequencies and in the first epoch."""
    df, y = frame(200)
    openings = iter(range(1, 9))

    def frames() -> Iterator[Any]:
        breaks = next(openings) == reading
        yield df[:100], y[:100]
        if breaks:
            raise error
        yield df[100:].assign(user="new"), y[100:]

    model = regressor()
    if fitted:
        getattr(model, fitted)(df, y)
    attributes = dict(model.__dict__)
    held = state(model) if fitted else None
    with pytest.raises(type(error)):
        model.fit_stream(frames, epochs=2)
    if isinstance(error, KeyboardInterrupt) and model.__dict__ != attributes:
        # what had been learned, as a fit that Ctrl-C ends
        assert np.isfinite(model.predict(df)).all()
        assert model.n_iter_ >= 1
        return
    assert model.__dict__ == attributes
    if fitted:
        assert state(model) == held
        model.partial_fit(df, y)


def test_a_generator_that_breaks_off_leaves_the_model_as_it_was() -> None:
    df, y = frame(200)

    def frames() -> Iterator[Any]:
        yield df[:100], y[:100]
        yield df[100:150].assign(user="new"), y[100:150]
        raise RuntimeError("mine")

    for begin in (None, "fit", "partial_fit"):
        model = regressor()
        if begin is not None:
            getattr(model, begin)(df, y)
        attributes = dict(model.__dict__)
        held = None if begin is None else state(model)
        with pytest.raises(RuntimeError, match="mine"):
            model.fit_stream(frames())
        assert model.__dict__ == attributes
        if begin is not None:
            assert state(model) == held


def test_a_stream_that_runs_away_is_taken_back() -> None:
    X, y = ratings()
    pieces = [(X[:100], y[:100]), (X[100:], y[100:])]
    model = FMRegressor(3, solver=SGD(learning_rate=30.0), random_state=0)
    with pytest.warns(ConvergenceWarning, match="learning_rate="):
        model.fit_stream(pieces, epochs=3)
    assert np.isfinite(model.predict(X)).all()
    assert [record["epoch"] for record in model.history_] == [1, 2, 3]
    before = model.predict(X)
    with pytest.raises(DivergenceError):
        model.set_params(solver=SGD(learning_rate=1e30)).fit_stream(pieces)
    np.testing.assert_array_equal(model.predict(X), before)


@pytest.mark.parametrize("name", [name for name in ALL if name != "auto"])
def test_pieces_print_nothing(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    X, y = ratings()
    model = FMRegressor(2, solver=ALL[name](), random_state=0)
    model.partial_fit(X, y).partial_fit(X, y)
    model.fit_stream([(X, y)], epochs=2).predict(X)
    assert capfd.readouterr() == ("", "")


def test_pieces_may_be_relational_blocks() -> None:
    X, y = ratings()
    users, items = X[:, :12].argmax(axis=1), X[:, 12:].argmax(axis=1)
    blocks, flat = (FMRegressor(3, random_state=0, n_threads=1) for _ in range(2))
    for some in (slice(0, 100), slice(100, 240)):
        parts = [RelationBlock(users[some], np.eye(12)), RelationBlock(items[some], np.eye(10))]
        blocks.partial_fit(parts, y[some])
        flat.partial_fit(X[some].astype(np.float64), y[some])
    np.testing.assert_array_equal(blocks.predict(X), flat.predict(X))
