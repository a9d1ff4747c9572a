"""What surrounds the steps of a training: what is watched, recovery, Ctrl-C, checkpoints, callbacks, warm starts."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning

from sparsefm import (
    FMClassifier,
    FMRegressor,
    FrameEncoder,
    ModelFileError,
    Numeric,
    OneHot,
    load,
    metrics,
    persistence,
)
from sparsefm._kernels import adaptive
from sparsefm.solvers import FTRL, SGD, AdaGrad, Adam, Auto, DivergenceError, engine, team

METHODS: dict[str, Callable[..., Any]] = {
    "adagrad": AdaGrad,
    "rowwise": lambda **options: AdaGrad(rowwise=True, **options),
    "bf16": lambda **options: AdaGrad(rowwise=True, storage="bf16", **options),
    "minibatch": lambda **options: AdaGrad(**{"batch_size": 16} | options),
    "sgd": SGD,
    "adam": Adam,
    "ftrl": FTRL,
    "ftrl minibatch": lambda **options: FTRL(**{"batch_size": 16} | options),
}
ALL = {**METHODS, "auto": Auto}


def ratings(n: int = 240, seed: int = 0, n_features: int = 22) -> tuple[sp.csr_array, np.ndarray]:
    """Rows of a user and an item, and a target with a planted interaction and noise."""
    rng = np.random.default_rng(seed)
    user, item = rng.integers(0, 12, n), rng.integers(0, 10, n)
    columns = np.column_stack([user, 12 + item]).astype(np.int32).ravel()
    starts = np.arange(0, 2 * n + 1, 2, dtype=np.int32)
    X = sp.csr_array((np.ones(2 * n, np.float32), columns, starts), shape=(n, n_features))
    y = 3 + 0.1 * user - 0.2 * item + (user % 3 == item % 3) + 0.3 * rng.normal(size=n)
    return X, y


def numbers(n: int = 120, seed: int = 0, dtype: Any = np.float32) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 5))
    return X.astype(dtype), X[:, 0] - X[:, 1] * X[:, 2] + 0.1 * rng.normal(size=n)


def assert_same(a: Any, b: Any) -> None:
    """The same parameters to the bit."""
    assert a.intercept_ == b.intercept_
    np.testing.assert_array_equal(a.coef_, b.coef_)
    np.testing.assert_array_equal(a.factors_, b.factors_)


def without_time(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in record.items() if key != "seconds"} for record in history]


@pytest.fixture(autouse=True)
def _no_waiting_for_disks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda file: None)


# --------------------------------------------------------------------------------- what is watched


def minus_rmse(y: np.ndarray, p: np.ndarray, sample_weight: Any = None) -> float:
    return -metrics.rmse(y, p, sample_weight=sample_weight)


def accuracy(y: np.ndarray, p: np.ndarray, sample_weight: Any = None) -> float:
    return float(np.average((p > 0.5) == y, weights=sample_weight))


WATCHED: list[tuple[type, Any, Any, bool]] = [
    (FMRegressor, "rmse", metrics.rmse, False),
    (FMRegressor, "mae", metrics.mae, False),
    (FMRegressor, metrics.rmse, metrics.rmse, False),
    (FMRegressor, metrics.mae, metrics.mae, False),
    (FMRegressor, minus_rmse, minus_rmse, True),
    (FMClassifier, "auc", metrics.auc, True),
    (FMClassifier, "log_loss", metrics.log_loss, False),
    (FMClassifier, metrics.auc, metrics.auc, True),
    (FMClassifier, metrics.log_loss, metrics.log_loss, False),
    (FMClassifier, accuracy, accuracy, True),
]


def overfitting(kind: type, **options: Any) -> tuple[Any, tuple[Any, Any], tuple[Any, Any, Any]]:
    """A model that learns its few rows by heart, those rows, and weighted rows to watch."""
    X, y = ratings(320)
    if kind is FMClassifier:
        y = y > np.median(y)
    solver = AdaGrad(learning_rate=1.0, **{"max_iter": 60, "patience": 4} | options.pop("solver", {}))
    model = kind(8, solver=solver, l2_linear=0, l2_factors=0, early_stopping=True, random_state=0, **options)
    return model, (X[:80], y[:80]), (X[80:], y[80:], np.linspace(0, 2, 240))


def predicted(model: Any, X: Any) -> np.ndarray:
    return model.predict_proba(X)[:, 1] if isinstance(model, FMClassifier) else model.predict(X)


@pytest.mark.parametrize("kind, metric, function, more", WATCHED)
@pytest.mark.parametrize("weighted", [False, True])
def test_the_best_epoch_by_a_metric_is_kept(kind: type, metric: Any, function: Any, more: bool, weighted: bool) -> None:
    seen: list[float] = []
    model, train, (X, y, weight) = overfitting(kind, eval_metric=metric)
    given = (X, y, weight) if weighted else (X, y)
    model.set_params(callbacks=[lambda _, record: seen.append(record["eval_metric"])])
    model.fit(*train, eval_set=given)
    watched = [record["eval_metric"] for record in model.history_]
    assert seen == watched
    best = int(np.argmax(watched) if more else np.argmin(watched))
    assert model.n_iter_ == min(60, best + 1 + 4)
    assert best < 50  # else nothing was stopped
    now = function(y, predicted(model, X), **({"sample_weight": weight} if weighted else {}))
    assert now == pytest.approx(watched[best], rel=1e-5)
    assert len(set(watched)) > 3
    # a training that ends at the best epoch is at the same place
    alone = clone(model).set_params(solver__max_iter=best + 1, early_stopping=False, callbacks=None)
    assert_same(alone.fit(*train), model)


def test_the_loss_is_what_is_watched_unless_told() -> None:
    model, train, (X, y, _) = overfitting(FMRegressor)
    model.fit(*train, eval_set=(X, y))
    assert all("eval_metric" not in record for record in model.history_)
    watched = [record["eval_loss"] for record in model.history_]
    best = int(np.argmin(watched))
    assert model.n_iter_ == best + 5
    assert watched[best] == pytest.approx(0.5 * np.mean((model.set_params(clip=False).predict(X) - y) ** 2), rel=1e-5)


def test_a_metric_watches_rows_that_were_set_aside() -> None:
    X, y = ratings(400)
    model = FMRegressor(3, early_stopping=True, eval_metric="mae", random_state=0).fit(X, y)
    assert all(np.isfinite(record["eval_metric"]) for record in model.history_)


@pytest.mark.parametrize("patience", [1, 3])
def test_gains_below_tol_do_not_count_but_the_best_is_kept(patience: int) -> None:
    model, train, (X, y, _) = overfitting(FMRegressor, eval_metric="rmse", solver={"tol": 100.0, "patience": patience})
    model.fit(*train, eval_set=(X, y))
    assert model.n_iter_ == 1 + patience
    assert metrics.rmse(y, model.predict(X)) == pytest.approx(min(r["eval_metric"] for r in model.history_), rel=1e-5)


def test_a_metric_without_early_stopping_only_watches() -> None:
    X, y = ratings()
    plain = FMRegressor(3, random_state=0).fit(X, y)
    watched = FMRegressor(3, random_state=0, eval_metric="rmse").fit(X, y, eval_set=(X, y))
    assert_same(plain, watched)
    assert len(watched.history_) == len(plain.history_)
    assert watched.history_[-1]["eval_metric"] == pytest.approx(metrics.rmse(y, watched.predict(X)), rel=1e-5)


def test_several_classes_are_watched_one_by_one() -> None:
    X, y = ratings()
    labels = np.digitize(y, [2.5, 4])
    model = FMClassifier(3, random_state=0, eval_metric="auc").fit(X, labels, eval_set=(X, labels))
    last = {record["class"]: record["eval_metric"] for record in model.history_}
    for label, value in last.items():
        assert value == pytest.approx(metrics.auc(labels == label, model.decision_function(X)[:, label]), rel=1e-5)


@pytest.mark.parametrize("value", [np.nan, np.inf, None, "0.5", [0.5], np.array([0.5]), 1j])
def test_a_metric_that_returns_no_number_is_refused(value: Any) -> None:
    X, y = ratings()
    model = FMRegressor(2, eval_metric=lambda y, p: value, random_state=0)
    with pytest.raises(ValueError, match="eval_metric must return a finite number"):
        model.fit(X, y, eval_set=(X, y))
    assert not hasattr(model, "params_")


@pytest.mark.parametrize(
    "kind, metric",
    [(FMRegressor, wrong) for wrong in ("auc", "log_loss", "accuracy", "RMSE", "", None, 3, ["rmse"])]
    + [(FMClassifier, wrong) for wrong in ("rmse", "mae", "accuracy", None, ("auc",))],
)
def test_other_names_of_metrics_are_refused(kind: type, metric: Any) -> None:
    X, y = ratings()
    with pytest.raises(ValueError, match=r"eval_metric must be 'loss', '.* or a function of \(y, prediction\), got"):
        kind(eval_metric=metric).fit(X, y > 3, eval_set=(X, y > 3))


# ---------------------------------------------------------------------------------------- recovery


@pytest.fixture
def runs_away(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes passes, counted from 1, end with a table of NaN."""

    def arrange(*passes: int) -> None:
        real, calls = adaptive.epoch, iter(range(1, 10_000))

        def epoch(array: Any, bias: Any, *args: Any) -> tuple[float, int]:
            result = real(array, bias, *args)
            if next(calls) in passes:
                array[...] = np.nan
                bias[...] = np.nan
                return np.nan, 0
            return result

        monkeypatch.setattr(adaptive, "epoch", epoch)

    return arrange


@pytest.mark.parametrize("name", ["adagrad", "rowwise", "bf16", "sgd", "adam", "ftrl"])
@pytest.mark.parametrize("average", [0, 2])
@pytest.mark.parametrize("early_stopping", [False, True])
@pytest.mark.parametrize("wide", [False, True])
def test_a_pass_that_is_taken_back_leaves_no_trace_but_the_shorter_step(
    name: str, average: int, early_stopping: bool, wide: bool, runs_away: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the step as it was, which only this test arranges, the fit is the one without accident."""
    X, y = ratings(n_features=40_000 if wide else 22)  # of a wide table no state is kept in the first passes
    solver = METHODS[name](max_iter=6, average=average, patience=6)
    model = FMRegressor(3, solver=solver, early_stopping=early_stopping, random_state=0)
    more = {"eval_set": (X[:50], y[:50])} if early_stopping else {}
    expected = clone(model).fit(X, y, **more)
    monkeypatch.setattr(engine.Training, "halve", lambda self: None)
    runs_away(4)
    with pytest.warns(ConvergenceWarning, match="taken back 1 times"):
        model.fit(X, y, **more)
    assert without_time(model.history_) == without_time(expected.history_)
    assert_same(model, expected)


@pytest.mark.parametrize("rewarded", [3, 5])
def test_a_mean_is_taken_back_with_the_epochs_that_it_is_of(
    rewarded: int, runs_away: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the third pass training goes back to the first, the best so far: the second enters the mean once."""
    X, y = ratings()

    def scripted(values: list[float]) -> Callable[..., float]:
        following = iter(values)
        return lambda y, p: next(following)

    values = [1.0, 0.5, 0.5, 0.5, 0.5, 0.5]
    values[rewarded - 1] = 2.0
    model = FMRegressor(3, solver=AdaGrad(max_iter=6, average=1, patience=6), early_stopping=True, random_state=0)
    expected = clone(model).set_params(eval_metric=scripted(values)).fit(X, y, eval_set=(X, y))
    monkeypatch.setattr(engine.Training, "halve", lambda self: None)
    runs_away(3)
    model.set_params(eval_metric=scripted(values[:2] + values[1:]))
    with pytest.warns(ConvergenceWarning, match="taken back 1 times"):
        model.fit(X, y, eval_set=(X, y))
    assert without_time(model.history_) == without_time(expected.history_)
    assert_same(model, expected)


@pytest.mark.parametrize("name", ["adagrad", "rowwise", "bf16", "sgd", "adam", "ftrl"])
def test_a_first_pass_that_runs_away_makes_the_step_half_as_long(name: str, runs_away: Any) -> None:
    X, y = ratings()
    expected = FMRegressor(3, solver=METHODS[name](learning_rate=0.05), random_state=0).fit(X, y)
    model = FMRegressor(3, solver=METHODS[name](learning_rate=0.1), random_state=0)
    runs_away(1)
    with pytest.warns(ConvergenceWarning, match=r"taken back 1 times.*learning_rate=0\.05"):
        model.fit(X, y)
    assert [record["epoch"] for record in model.history_] == list(range(1, 16))
    np.testing.assert_allclose(model.predict(X), expected.predict(X), atol=1e-3 if name == "ftrl" else 0)


@pytest.mark.parametrize("learning_rate", [1e3, 1e6, 1e12, 1e20, 1e30])
@pytest.mark.parametrize("batch_size", [1, 32])
@pytest.mark.parametrize("kind", [FMRegressor, FMClassifier])
def test_steps_far_too_long_are_taken_back_or_refused(learning_rate: float, batch_size: int, kind: type) -> None:
    X, y = ratings()
    y = y > 3 if kind is FMClassifier else y
    solver = SGD(learning_rate=learning_rate, batch_size=batch_size, max_iter=8)
    model = kind(4, random_state=0).fit(X, y)
    before = predicted(model, X)
    model.set_params(solver=solver)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            model.fit(X, y)
        except DivergenceError as error:
            assert "although the step was halved 12 times" in str(error)  # noqa: PT017
            assert "learning_rate=" in str(error)  # noqa: PT017
            np.testing.assert_array_equal(predicted(model, X), before)
            assert learning_rate >= 1e3
            return
    assert learning_rate < 1e12
    assert [w.category for w in caught] == [ConvergenceWarning]
    assert "learning_rate=" in str(caught[0].message)
    assert np.isfinite(predicted(model, X)).all()
    assert [record["epoch"] for record in model.history_] == list(range(1, len(model.history_) + 1))
    assert np.isfinite([record["loss"] for record in model.history_]).all()


def test_a_recovered_fit_is_a_good_one() -> None:
    X, y = ratings(1000)
    with pytest.warns(ConvergenceWarning, match=r"to half the step.*learning_rate="):
        model = FMRegressor(4, solver=SGD(learning_rate=8.0), random_state=0).fit(X, y)
    assert model.score(X, y) > 0.5


def test_a_warning_points_at_the_call_of_fit() -> None:
    X, y = ratings()
    with pytest.warns(ConvergenceWarning, match="taken back") as caught:
        FMRegressor(4, solver=SGD(learning_rate=8.0), random_state=0).fit(X, y)
    assert [warning.filename for warning in caught] == [__file__]


@pytest.mark.parametrize("batch_size, learning_rate", [(32, 0.05), (32, 0.7), (256, 0.01), (256, 0.05), (256, 0.5)])
def test_minibatches_of_long_steps_are_taken_back(batch_size: int, learning_rate: float) -> None:
    """Also where the first pass ends in a state that no shorter step can lead out of."""
    X, y = numbers(400)
    solver = SGD(learning_rate=learning_rate, batch_size=batch_size)
    with pytest.warns(ConvergenceWarning, match=r"to half the step.*learning_rate="):
        model = FMRegressor(4, solver=solver, random_state=0).fit(X, y)
    assert model.score(X, y) > 0.9


def test_the_largest_columns_are_named_as_the_encoder_names_them() -> None:
    rng = np.random.default_rng(0)
    income = rng.normal(size=300)
    income[7] = 1e6  # stays far out when it is scaled
    frame = pd.DataFrame({"user": rng.integers(0, 9, 300).astype(str), "income": income})
    encoder = FrameEncoder({"user": OneHot(), "income": Numeric()})
    model = FMRegressor(3, encoder=encoder, solver=SGD(learning_rate=1e30), random_state=0)
    with pytest.raises(DivergenceError, match=r"largest values are income \(17\.3\)"):
        model.fit(frame, rng.normal(size=300))
    assert not hasattr(model, "params_")
    assert not hasattr(model, "encoder_")


def test_the_largest_columns_of_a_matrix_are_numbered() -> None:
    X, y = numbers()
    X[5, 3], X[9, 1], X[11, 4] = 1e4, -1e5, 900
    with pytest.raises(DivergenceError, match=r"column 1 \(-1e\+05\), column 3 \(1e\+04\), column 4 \(900\)"):
        FMRegressor(3, solver=SGD(learning_rate=1e30), random_state=0).fit(X, y)


@pytest.mark.parametrize("batch_size", [1, 32])
def test_a_training_that_never_works_is_given_up(batch_size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = ratings()
    model = FMRegressor(3, solver=AdaGrad(batch_size=batch_size), random_state=0).fit(X, y)
    before, history = model.predict(X), model.history_
    passes = []

    def run(self: Any, problem: Any, batches: Any, epoch: int, first: int = 0) -> tuple[float, int]:
        passes.append(self.rate)
        return np.nan, 3

    monkeypatch.setattr(engine.Training, "run", run)
    with pytest.raises(DivergenceError, match="diverged in epoch 1"):
        model.fit(X, y)
    np.testing.assert_allclose(passes, passes[0] / 2.0 ** np.arange(13))
    np.testing.assert_array_equal(model.predict(X), before)
    assert model.history_ == history


# ------------------------------------------------------------------------------------ hostile fits

Case = tuple[Any, Any, dict[str, Any]]


def _dense(values: Any) -> np.ndarray:
    return np.asarray(values, np.float32)


def hostile() -> dict[str, tuple[str, Callable[[], Case]]]:
    """What comes of each, 'finite', 'refused' or 'either', and X, y and more arguments of fit."""
    X, y = numbers(60)
    weight = np.ones(60)

    def changed(values: np.ndarray, at: Any, value: Any) -> np.ndarray:
        values = values.copy()
        values[at] = value
        return values

    return {
        "huge values": ("either", lambda: (X * np.float32(1e30), y, {})),
        "the largest values": ("either", lambda: (np.full((60, 5), 3e38, np.float32), y, {})),
        "one huge value": ("either", lambda: (changed(X, (3, 2), 1e18), y, {})),
        "huge float64 values": ("either", lambda: (X.astype(np.float64) * 1e300, y, {})),
        "a huge target": ("either", lambda: (X, y * 1e17, {})),
        "constant target": ("finite", lambda: (X, np.full(60, 7.25), {})),
        "all-zero rows": ("finite", lambda: (np.zeros((60, 5), np.float32), y, {})),
        "some zero rows": ("finite", lambda: (changed(X, slice(0, 30), 0), y, {})),
        "values of 1e-30": ("finite", lambda: (X * np.float32(1e-30), y, {})),
        "subnormal values": ("finite", lambda: (X * np.float32(1e-42), y, {})),
        "a tiny target": ("either", lambda: (X, y * 1e-17, {})),
        "duplicated columns": ("finite", lambda: (np.hstack([X] * 8), y, {})),
        "one row": ("finite", lambda: (X[:1], y[:1], {})),
        "one feature": ("finite", lambda: (X[:, :1], y, {})),
        "a single number": ("finite", lambda: (X[:1, :1], y[:1], {})),
        "an entry twice": (
            "finite",
            lambda: (sp.csr_array((_dense([1, 2, 3]), ([0, 0, 1], [1, 1, 0])), shape=(60, 5)), y, {}),
        ),
        "weights with NaN": ("refused", lambda: (X, y, {"sample_weight": changed(weight, 3, np.nan)})),
        "negative weights": ("refused", lambda: (X, y, {"sample_weight": changed(weight, 3, -1)})),
        "weights of zero": ("refused", lambda: (X, y, {"sample_weight": 0 * weight})),
        "one weight": ("finite", lambda: (X, y, {"sample_weight": changed(0 * weight, 3, 1)})),
        "weights far apart": ("either", lambda: (X, y, {"sample_weight": np.geomspace(1e-300, 1e300, 60)})),
        "a target of lists": ("refused", lambda: (X, np.array([[1]] * 30 + [[2, 3]] * 30, dtype=object), {})),
        "a complex target": ("refused", lambda: (X, y * 1j, {})),
        "a target of dates": ("refused", lambda: (X, np.array(["2020-01-01", "2020-01-02"] * 30, "M8[D]"), {})),
        "a target of None": ("refused", lambda: (X, np.array([None] * 60), {})),
        "a target of two columns": ("refused", lambda: (X, np.column_stack([y, y]), {})),
        "infinity in the target": ("refused", lambda: (X, changed(y, 3, np.inf), {})),
        "NaN in the target": ("refused", lambda: (X, changed(y, 3, np.nan), {})),
        "infinity in the rows": ("refused", lambda: (changed(X, (3, 2), np.inf), y, {})),
        "no rows": ("refused", lambda: (X[:0], y[:0], {})),
        "no rows in sparse form": ("refused", lambda: (sp.csr_array((0, 5), dtype=np.float32), y[:0], {})),
        "no columns": ("refused", lambda: (X[:, :0], y, {})),
        "no columns in sparse form": ("refused", lambda: (sp.csr_array((60, 0), dtype=np.float32), y, {})),
        "a target of words": ("refused", lambda: (X, np.array(["good", "bad"] * 30), {})),
    }


HOSTILE = hostile()


def expect(outcome: str, model: Any, X: Any, y: Any, more: dict[str, Any], capfd: Any) -> None:
    """A fit is refused with a clear error, or gives a model of finite numbers; it prints nothing."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            model.fit(X, y, **more)
        except (ValueError, TypeError) as error:
            assert outcome in ("either", "refused"), error  # noqa: PT017
            assert len(str(error)) > 20  # noqa: PT017
            assert not hasattr(model, "params_")
        else:
            assert outcome in ("either", "finite")
            for params in model.params_ if isinstance(model.params_, tuple) else (model.params_,):
                assert np.isfinite(params.w0)
                assert np.isfinite(params.w).all()
                assert np.isfinite(params.V).all()
            assert [r["epoch"] for r in model.history_ if r.get("class", 0) in (0, "a")] == list(
                range(1, model.n_iter_ + 1)
            )
            assert np.isfinite([r["loss"] for r in model.history_]).all()
            if isinstance(model, FMRegressor):
                assert np.isfinite(model.predict(X)).all()
    assert {w.category for w in caught} <= {ConvergenceWarning}, [str(w.message) for w in caught]
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("case", HOSTILE)
@pytest.mark.parametrize("name", ALL)
def test_hostile_fits_are_refused_or_finite(name: str, case: str, capfd: pytest.CaptureFixture[str]) -> None:
    outcome, make = HOSTILE[case]
    if name == "bf16" and case == "huge float64 values":
        outcome = "refused"  # it trains float32 rows
    expect(outcome, FMRegressor(4, solver=ALL[name](max_iter=4), random_state=0), *make(), capfd)


@pytest.mark.parametrize("loss", ["huber", "quantile", "poisson"])
@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_fits_with_other_losses(loss: str, case: str, capfd: pytest.CaptureFixture[str]) -> None:
    outcome, make = HOSTILE[case]
    X, y, more = make()
    if loss == "poisson" and outcome in ("finite", "either"):
        y = np.abs(y)
    outcome = "either" if outcome == "finite" and loss == "poisson" else outcome
    expect(outcome, FMRegressor(4, loss=loss, random_state=0), X, y, more, capfd)


@pytest.mark.parametrize("name", list(METHODS))
@pytest.mark.parametrize("case", ["huge values", "constant target", "duplicated columns", "one feature"])
@pytest.mark.parametrize("learning_rate", [1e6, 1e300, 1e-300])
def test_hostile_steps(name: str, case: str, learning_rate: float, capfd: pytest.CaptureFixture[str]) -> None:
    solver = METHODS[name](max_iter=4, learning_rate=learning_rate)
    expect("either", FMRegressor(4, solver=solver, random_state=0), *HOSTILE[case][1](), capfd)


@pytest.mark.parametrize("loss", ["logistic", "hinge"])
@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_classes(loss: str, case: str, capfd: pytest.CaptureFixture[str]) -> None:
    outcome, make = HOSTILE[case]
    X, y, more = make()
    if outcome != "refused":
        y = np.where(y > np.median(y), "a", "b")
        if len(set(y)) == 1:
            outcome = "refused"  # one class
    elif case in ("a target of words", "a target of dates"):
        outcome = "finite"
    expect(outcome, FMClassifier(4, loss=loss, random_state=0), X, y, more, capfd)


@pytest.mark.parametrize("name", ALL)
def test_a_constant_target_is_predicted(name: str) -> None:
    X, _ = numbers(60)
    model = FMRegressor(4, solver=ALL[name](max_iter=4), random_state=0).fit(X, np.full(60, 7.25))
    np.testing.assert_array_equal(model.predict(X), 7.25)


# ------------------------------------------------------------------------------------------ Ctrl-C


@pytest.fixture
def pressed(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Makes a pass, counted from 1, end in KeyboardInterrupt."""

    def arrange(at: int) -> None:
        real, calls = adaptive.epoch, iter(range(1, 10_000))

        def epoch(*args: Any) -> tuple[float, int]:
            result: tuple[float, int] = real(*args)
            if next(calls) == at:
                raise KeyboardInterrupt
            return result

        monkeypatch.setattr(adaptive, "epoch", epoch)

    return arrange


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("kind", [FMRegressor, FMClassifier])
def test_a_model_interrupted_after_an_epoch_keeps_what_it_had_learned(name: str, kind: type, tmp_path: Path) -> None:
    X, y = ratings()
    y = y > 3 if kind is FMClassifier else y

    def press(model: Any, record: dict[str, Any]) -> None:
        if record["epoch"] == 3:
            raise KeyboardInterrupt

    model = kind(4, solver=METHODS[name](max_iter=20), callbacks=[press], random_state=0)
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, y)
    expected = kind(4, solver=METHODS[name](max_iter=3), random_state=0).fit(X, y)
    assert_same(model, expected)
    assert without_time(model.history_) == without_time(expected.history_)
    np.testing.assert_array_equal(model.predict(X), expected.predict(X))
    model.save(tmp_path / "model")
    np.testing.assert_array_equal(load(tmp_path / "model").predict(X), expected.predict(X))


def test_an_interrupted_pass_counts_as_far_as_it_came(pressed: Any) -> None:
    X, y = ratings()
    model = FMRegressor(4, random_state=0)
    pressed(3)
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, y)
    assert [record["epoch"] for record in model.history_] == [1, 2]
    assert np.isfinite(model.predict(X)).all()


def test_interrupted_with_early_stopping_the_best_epoch_is_kept() -> None:
    model, train, (X, y, _) = overfitting(FMRegressor, eval_metric="rmse", solver={"patience": 50})

    def press(model: Any, record: dict[str, Any]) -> None:
        if record["epoch"] == 30:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        model.set_params(callbacks=[press]).fit(*train, eval_set=(X, y))
    assert metrics.rmse(y, model.predict(X)) == pytest.approx(min(r["eval_metric"] for r in model.history_), rel=1e-5)


@pytest.mark.parametrize("fitted", [False, True])
@pytest.mark.parametrize("name", ["adagrad", "sgd", "auto"])
def test_an_interruption_before_the_first_epoch_changes_nothing(name: str, fitted: bool, pressed: Any) -> None:
    X, y = ratings(600)
    model = FMRegressor(4, solver=name, random_state=0)
    if fitted:
        model.fit(X, y)
        before = model.predict(X)
    attributes = dict(model.__dict__)
    pressed(1)
    with pytest.raises(KeyboardInterrupt):
        model.fit(X[:300], y[:300])
    assert model.__dict__ == attributes
    if fitted:
        np.testing.assert_array_equal(model.predict(X), before)


def test_an_interrupted_search_of_auto_changes_nothing_or_is_a_fit(pressed: Any, tmp_path: Path) -> None:
    """The trials are no training of the model: their epochs are not in its history."""
    X, y = ratings(600)
    model = FMRegressor(4, solver="auto", random_state=0)
    pressed(3)
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, y)
    if hasattr(model, "params_"):
        assert model.n_iter_ >= 1
        model.save(tmp_path / "model")
        load(tmp_path / "model")


@pytest.mark.parametrize("epoch", [1, 3])
def test_an_interruption_while_the_watched_rows_are_scored(epoch: int, tmp_path: Path) -> None:
    """It comes after the pass and before its record."""
    X, y = ratings()
    calls = iter(range(1, 100))

    def metric(y: np.ndarray, p: np.ndarray) -> float:
        if next(calls) == epoch:
            raise KeyboardInterrupt
        return 0.0

    model = FMRegressor(4, eval_metric=metric, random_state=0)
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, y, eval_set=(X, y))
    if hasattr(model, "params_"):
        assert model.n_iter_ >= 1
        assert np.isfinite(model.predict(X)).all()
        model.save(tmp_path / "model")
        load(tmp_path / "model")
    else:
        assert epoch == 1


def test_an_interruption_among_several_classes_changes_nothing() -> None:
    X, y = ratings()
    labels = np.digitize(y, [2.5, 4])

    def press(model: Any, record: dict[str, Any]) -> None:
        if record["class"] == 1:
            raise KeyboardInterrupt

    model = FMClassifier(2, callbacks=[press], random_state=0)
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, labels)
    assert not hasattr(model, "params_")
    assert not hasattr(model, "classes_")


@pytest.mark.skipif(os.name != "posix", reason="signals are sent with os.kill")
@pytest.mark.parametrize("batch_size", [1, 64])
def test_a_real_signal_ends_a_long_fit(batch_size: int, request: pytest.FixtureRequest) -> None:
    # what a shell starts in the background is told to ignore it
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    X, y = ratings(3000)
    begun = threading.Event()

    def press() -> None:
        begun.wait()
        time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=press)
    solver = AdaGrad(max_iter=20_000, batch_size=batch_size)
    model = FMRegressor(4, solver=solver, callbacks=[lambda *_: begun.set()], n_threads=2, random_state=0)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, y)
    thread.join()
    assert model.n_iter_ >= 1
    assert [r["epoch"] for r in model.history_] == list(range(1, model.n_iter_ + 1))
    assert model.score(X, y) > 0.5


# ------------------------------------------------------------------------------------- checkpoints


def halves(model: Any, X: Any, y: Any, path: Path, at: int, **more: Any) -> Any:
    """A fit that ends at epoch `at` and is resumed with all of its epochs."""
    epochs = model.solver.max_iter
    first = clone(model).set_params(solver__max_iter=at, solver__checkpoint=path)
    first.fit(X, y, **more)
    return clone(model).set_params(solver__max_iter=epochs).fit(X, y, resume=path, **more)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("kind", [FMRegressor, FMClassifier])
@pytest.mark.parametrize("average", [0, 2])
@pytest.mark.parametrize("early_stopping", [False, True])
def test_a_resumed_fit_is_the_one_that_never_stopped(
    name: str, kind: type, average: int, early_stopping: bool, tmp_path: Path
) -> None:
    X, y = ratings()
    y = y > 3 if kind is FMClassifier else y
    weight = np.linspace(0, 1, 240)
    solver = METHODS[name](max_iter=9, average=average, learning_rate=0.3)
    model = kind(4, solver=solver, early_stopping=early_stopping, random_state=3)
    expected = clone(model).fit(X, y, sample_weight=weight)
    for at in (2, 4):
        resumed = halves(model, X, y, tmp_path / "checkpoint", at, sample_weight=weight)
        assert_same(resumed, expected)
        assert without_time(resumed.history_) == without_time(expected.history_)
    assert os.listdir(tmp_path) == ["checkpoint"]


@pytest.mark.parametrize("name", ["adagrad", "minibatch", "sgd", "adam", "ftrl"])
def test_a_resumed_fit_of_float64_rows_with_other_threads(name: str, tmp_path: Path) -> None:
    X, y = numbers(200, dtype=np.float64)
    model = FMRegressor(4, solver=METHODS[name](max_iter=6), n_threads=1, random_state=0)
    expected = clone(model).fit(X, y)
    clone(model).set_params(solver__max_iter=2, solver__checkpoint=tmp_path / "c").fit(X, y)
    assert_same(clone(model).set_params(n_threads=3).fit(X, y, resume=tmp_path / "c"), expected)


def test_what_early_stopping_ended_stays_ended(tmp_path: Path) -> None:
    model, train, (X, y, _) = overfitting(FMRegressor, eval_metric="mae")
    expected = clone(model).fit(*train, eval_set=(X, y))
    assert expected.n_iter_ < 60
    clone(model).set_params(solver__checkpoint=tmp_path / "c").fit(*train, eval_set=(X, y))
    resumed = clone(model).set_params(solver__max_iter=80).fit(*train, eval_set=(X, y), resume=tmp_path / "c")
    assert_same(resumed, expected)
    assert without_time(resumed.history_) == without_time(expected.history_)


def test_a_resumed_fit_writes_checkpoints_of_its_own(tmp_path: Path) -> None:
    X, y = ratings()
    model = FMRegressor(4, solver=AdaGrad(max_iter=2, checkpoint=tmp_path / "c"), random_state=0).fit(X, y)
    for epochs in (4, 7):
        model.set_params(solver__max_iter=epochs).fit(X, y, resume=tmp_path / "c")
    assert persistence.read(tmp_path / "c")[0]["at"]["epoch"] == 7
    assert_same(model, FMRegressor(4, solver=AdaGrad(max_iter=7), random_state=0).fit(X, y))


def test_recovery_after_a_resumption_goes_back_to_the_same_epoch(tmp_path: Path, runs_away: Any) -> None:
    X, y = ratings()
    model = FMRegressor(4, solver=AdaGrad(max_iter=8, checkpoint=tmp_path / "c"), random_state=0)
    runs_away(6)
    with pytest.warns(ConvergenceWarning, match="taken back"):
        expected = clone(model).fit(X, y)
    clone(model).set_params(solver__max_iter=4).fit(X, y)
    runs_away(2)
    with pytest.warns(ConvergenceWarning, match="taken back"):
        resumed = clone(model).fit(X, y, resume=tmp_path / "c")
    assert_same(resumed, expected)


def test_checkpoints_come_when_they_are_due(tmp_path: Path) -> None:
    X, y = ratings()
    path = tmp_path / "c"
    there: list[Any] = []

    def look(model: Any, record: dict[str, Any]) -> None:
        there.append(persistence.read(path)[0]["at"]["epoch"] if path.exists() else 0)

    solver = AdaGrad(max_iter=7, checkpoint=str(path), checkpoint_epochs=3)
    FMRegressor(2, solver=solver, callbacks=[look], random_state=0).fit(X, y)
    assert there == [0, 0, 0, 3, 3, 3, 6]
    assert persistence.read(path)[0]["at"]["epoch"] == 7
    path.unlink()
    there.clear()
    solver = AdaGrad(max_iter=4, checkpoint=path, checkpoint_minutes=1e6)
    FMRegressor(2, solver=solver, callbacks=[look], random_state=0).fit(X, y)
    assert there == [0, 0, 0, 0]
    assert persistence.read(path)[0]["at"]["epoch"] == 4


def test_a_checkpoint_of_another_training_is_refused(tmp_path: Path) -> None:
    X, y = ratings()
    weight, path = np.linspace(1, 2, 240), tmp_path / "c"
    fields = np.repeat([0, 1], [12, 10])
    solver = AdaGrad(max_iter=2)
    strengths = {0: 0.1, 1: 0.2}
    base: dict[str, Any] = {"n_factors": 4, "l2_factors": strengths, "fields": fields, "solver": solver}
    base |= {"early_stopping": True, "eval_metric": "rmse", "random_state": 0}
    data: dict[str, Any] = {"X": X, "y": y, "sample_weight": weight, "eval_set": (X[:9], y[:9])}
    FMRegressor(**base).set_params(solver__checkpoint=path).fit(**data)
    X_other, y_other = X.copy(), y.copy()
    X_other.indices[0], y_other[3] = (X.indices[0] + 1) % 12, y[3] + 0.01
    others: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({}, {"X": X_other}),
        ({}, {"X": X.astype(np.float64)}),
        ({}, {"X": X * np.float32(2)}),
        ({}, {"X": X[:-1], "y": y[:-1], "sample_weight": weight[:-1]}),
        ({}, {"y": y_other}),
        ({}, {"sample_weight": None}),
        ({}, {"sample_weight": weight**2}),
        ({}, {"eval_set": (X[:9], y[1:10])}),
        ({}, {"eval_set": (X[:9], y[:9], weight[:9])}),
        ({"n_factors": 3}, {}),
        ({"l2_linear": 0.02}, {}),
        ({"l2_factors": {0: 0.1, 1: 0.3}}, {}),
        ({"l2_prior": 1.0}, {}),
        ({"init_std": 0.02}, {}),
        ({"random_state": 1}, {}),
        ({"early_stopping": False}, {}),
        ({"loss": "huber"}, {}),
        ({"eval_metric": "mae"}, {}),
        ({"eval_metric": "loss"}, {}),
        ({"solver": AdaGrad(learning_rate=0.1)}, {}),
        ({"solver": AdaGrad(rowwise=True)}, {}),
        ({"solver": AdaGrad(batch_size=8)}, {}),
        ({"solver": AdaGrad(average=1)}, {}),
        ({"solver": AdaGrad(patience=9)}, {}),
        ({"solver": AdaGrad(shuffle=False)}, {}),
        ({"solver": SGD()}, {}),
    ]
    accepted = []
    for options, arguments in others:
        model = FMRegressor(**base | options)
        try:
            model.fit(**data | arguments, resume=path)
        except ValueError as error:
            assert "the checkpoint is of another training" in str(error)  # noqa: PT017
            assert not hasattr(model, "params_")
        else:
            accepted.append((options, list(arguments)))
    assert accepted == []
    FMRegressor(**base).fit(**data, resume=path)


@pytest.mark.parametrize("kind", [float, np.float32, np.float64])
def test_strengths_of_any_type_of_number_tell_trainings_apart(kind: type, tmp_path: Path) -> None:
    X, y = ratings()
    solver = AdaGrad(max_iter=2, checkpoint=tmp_path / "c")
    FMRegressor(4, solver=solver, l2_factors=kind(0.25), random_state=0).fit(X, y)
    with pytest.raises(ValueError, match="another training"):
        FMRegressor(4, l2_factors=kind(0.5), random_state=0).fit(X, y, resume=tmp_path / "c")


def test_a_model_is_no_checkpoint_and_a_checkpoint_no_model(tmp_path: Path) -> None:
    X, y = ratings()
    model = FMRegressor(2, solver=AdaGrad(max_iter=2, checkpoint=tmp_path / "c"), random_state=0).fit(X, y)
    model.save(tmp_path / "m")
    before = model.predict(X)
    with pytest.raises(ValueError, match=r"m holds a model, not a checkpoint; load it with sparsefm\.load"):
        model.fit(X, y, resume=tmp_path / "m")
    with pytest.raises(ModelFileError, match="checkpoint"):
        load(tmp_path / "c")
    with pytest.raises(FileNotFoundError):
        model.fit(X, y, resume=tmp_path / "none")
    np.testing.assert_array_equal(model.predict(X), before)


def test_what_has_no_checkpoint_says_so(tmp_path: Path) -> None:
    X, y = ratings()
    path = tmp_path / "c"
    FMRegressor(2, solver=AdaGrad(max_iter=2, checkpoint=path), random_state=0).fit(X, y)
    with pytest.raises(ValueError, match="solver='auto' does not"):
        FMRegressor(2, solver="auto", random_state=0).fit(X, y, resume=path)
    labels = np.digitize(y, [2.5, 4])
    for model, more in (
        (FMClassifier(2), {"resume": path}),
        (FMClassifier(2, solver=AdaGrad(checkpoint=tmp_path / "d")), {}),
    ):
        with pytest.raises(ValueError, match="a checkpoint holds one score function and 3 classes have one each"):
            model.fit(X, labels, **more)
    assert not (tmp_path / "d").exists()
    for wrong in (3, b"c", ["c"], True):
        with pytest.raises(TypeError, match=r"AdaGrad\(checkpoint\) must be a path"):
            FMRegressor(2, solver=AdaGrad(checkpoint=wrong)).fit(X, y)
    for option in ("checkpoint_epochs", "checkpoint_minutes"):
        with pytest.raises(ValueError, match=option):
            FMRegressor(2, solver=AdaGrad(**{option: -1})).fit(X, y)


def test_a_checkpoint_that_cannot_be_a_file_is_refused_before_training(tmp_path: Path) -> None:
    X, y = ratings()
    epochs: list[int] = []
    wrong = {tmp_path: IsADirectoryError, "": IsADirectoryError, tmp_path / "no" / "c": FileNotFoundError}
    for path, error in wrong.items():
        model = FMRegressor(2, solver=AdaGrad(checkpoint=path), callbacks=[lambda m, record: epochs.append(1)])
        with pytest.raises(error, match="checkpoint"):
            model.fit(X, y)
    assert epochs == []


def test_a_fit_that_a_callback_ended_can_be_resumed(tmp_path: Path) -> None:
    X, y = ratings()
    solver = AdaGrad(max_iter=6, checkpoint=tmp_path / "c")
    model = FMRegressor(4, solver=solver, random_state=0, callbacks=[lambda m, record: record["epoch"] == 3])
    assert model.fit(X, y).n_iter_ == 3
    resumed = clone(model).set_params(callbacks=None).fit(X, y, resume=tmp_path / "c")
    assert_same(resumed, FMRegressor(4, solver=AdaGrad(max_iter=6), random_state=0).fit(X, y))


def test_a_metric_without_a_name_is_the_same_when_resumed(tmp_path: Path) -> None:
    X, y = ratings()
    watched: dict[str, Any] = {"eval_set": (X[:50], y[:50])}

    def model(**more: Any) -> Any:
        return FMRegressor(3, eval_metric=functools.partial(minus_rmse), random_state=0, **more)

    model(solver=AdaGrad(max_iter=2, checkpoint=tmp_path / "c")).fit(X, y, **watched)
    resumed = model(solver=AdaGrad(max_iter=4)).fit(X, y, resume=tmp_path / "c", **watched)
    assert_same(resumed, model(solver=AdaGrad(max_iter=4)).fit(X, y, **watched))


def test_damaged_and_cut_checkpoints_are_refused(tmp_path: Path) -> None:
    X, y = ratings()
    path = tmp_path / "c"
    model = FMRegressor(2, solver=AdaGrad(max_iter=2, checkpoint=path), random_state=0).fit(X, y)
    before, content = model.predict(X), path.read_bytes()
    rng = np.random.default_rng(0)
    for at in (0, 9, 41, len(content) - 1, *rng.integers(0, len(content), 20).tolist()):
        path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        with pytest.raises(ModelFileError, match="c "):
            model.fit(X, y, resume=path)
        path.write_bytes(content[:at])
        with pytest.raises(ModelFileError):
            model.fit(X, y, resume=path)
    np.testing.assert_array_equal(model.predict(X), before)


def _at(**values: Any) -> Callable[[Any, Any], None]:
    return lambda meta, arrays: meta["at"].update(values)


def _array(name: str, change: Callable[[Any], Any]) -> Callable[[Any, Any], None]:
    return lambda meta, arrays: arrays.update({name: np.ascontiguousarray(change(arrays[name]))})


def _without(name: str) -> Callable[[Any, Any], None]:
    return lambda meta, arrays: arrays.pop(name)


def _meta(**values: Any) -> Callable[[Any, Any], None]:
    return lambda meta, arrays: meta.update(values)


def _poisoned(array: np.ndarray) -> np.ndarray:
    array = array.copy()
    array.reshape(-1)[0] = np.nan
    return array


FORGED: dict[str, Callable[[Any, Any], Any]] = {
    **{f"without {name}": _without(name) for name in ("table", "bias", "slot", "slot_bias", "mean.w", "mean.V")},
    **{f"{name} cut": _array(name, lambda a: a[:-1]) for name in ("table", "bias", "slot", "slot_bias", "mean.w")},
    **{f"one of {name}": _array(name, lambda a: a[:1]) for name in ("table", "bias", "slot", "slot_bias", "mean.V")},
    **{f"{name} flat": _array(name, np.ravel) for name in ("table", "slot", "mean.V")},
    **{f"{name} turned": _array(name, np.transpose) for name in ("table", "slot", "mean.V")},
    **{
        f"{name} {np.dtype(kind)}": _array(name, lambda a, kind=kind: a.astype(kind))
        for name in ("table", "bias", "slot", "slot_bias", "mean.w0", "mean.w", "mean.V")
        for kind in (np.int64, np.float64 if name != "mean.w0" else np.float32)
    },
    **{
        f"NaN in {name}": _array(name, _poisoned)
        for name in ("table", "bias", "slot", "slot_bias", "mean.w0", "mean.w")
    },
    "a mean of two biases": _array("mean.w0", lambda a: np.r_[a, a]),
    "a mean of no bias": _array("mean.w0", lambda a: a[:0]),
    "no fingerprint": lambda meta, arrays: meta.pop("fingerprint"),
    "no rates": lambda meta, arrays: meta.pop("rates"),
    "no at": lambda meta, arrays: meta.pop("at"),
    "no records": lambda meta, arrays: meta.pop("records"),
    "no epoch": lambda meta, arrays: meta["at"].pop("epoch"),
    "another format": _meta(checkpoint=99),
    "a format of text": _meta(checkpoint="1"),
    "at is a list": _meta(at=[1]),
    "at has more": _at(more=1),
    "at has a method": _at(__class__=1),
    "an epoch of text": _at(epoch="1"),
    "a negative epoch": _at(epoch=-1),
    "epoch zero": _at(epoch=0),
    "half an epoch": _at(epoch=1.5),
    "no epoch at all": _at(epoch=None),
    "halvings of text": _at(halvings="1"),
    "averaged nothing": _at(averaged=0),
    "averaged of text": _at(averaged="2"),
    "best of text": _at(best="1"),
    "done of text": _at(done="no"),
    "rates of text": _meta(rates=["a", "b"]),
    "rates of one": _meta(rates=[0.1]),
    "rates of three": _meta(rates=[0.1, 0.1, 0.1]),
    "a rate of zero": _meta(rates=[0, 0.1]),
    "a negative rate": _meta(rates=[-1.0, 0.1]),
    "rates is a number": _meta(rates=0.1),
    "records of numbers": _meta(records=[1, 2, 3]),
    "records of nothing": _meta(records=[]),
    "records is an object": _meta(records={"loss": 1}),
    "a record without a loss": _meta(records=[{"epoch": 1}]),
    "a loss of text": _meta(records=[{"epoch": 1, "loss": "1", "seconds": 0.1}]),
    "a fingerprint of numbers": _meta(fingerprint=7),
    "an endless epoch": _at(epoch=10**400),
    "more averaged than epochs": _at(averaged=10**400),
    "endless halvings": _at(halvings=10**400),
    "too many halvings": _at(halvings=13),
    "an endless best": _at(best=10**400),
    "endless seconds": lambda meta, arrays: meta["records"][0].update(seconds=10**400),
}


@pytest.mark.parametrize("name", FORGED)
def test_forged_checkpoints_are_refused(name: str, tmp_path: Path) -> None:
    """Their checksum is right; what they hold is not."""
    X, y = ratings()
    path = tmp_path / "c"
    solver = AdaGrad(max_iter=3, average=1, checkpoint=path)
    model = FMRegressor(4, solver=solver, early_stopping=True, random_state=0).fit(X, y)
    before, history = model.predict(X), without_time(model.history_)
    meta, arrays = persistence.read(path)
    FORGED[name](meta, arrays)
    persistence.write(path, meta, arrays)
    with pytest.raises(ValueError, match=r".{20}"):
        model.set_params(solver__max_iter=5).fit(X, y, resume=path)
    np.testing.assert_array_equal(model.predict(X), before)
    assert without_time(model.history_) == history


FIT = """
import sys
import numpy as np
from test_training import long_fit
long_fit(sys.argv[1], 10**6, resume=sys.argv[1] if sys.argv[2] == "again" else None)
"""


def long_fit(path: Any, epochs: int, resume: Any = None) -> Any:
    """One that spends most of its time writing checkpoints."""
    X, y = ratings(300, n_features=20_000)
    solver = AdaGrad(max_iter=epochs, checkpoint=path)
    return FMRegressor(8, solver=solver, random_state=0).fit(X, y, resume=resume)


@pytest.mark.skipif(os.name != "posix", reason="a process is killed as Linux and macOS do it")
@pytest.mark.parametrize("kills", [5, pytest.param(50, marks=pytest.mark.slow)])
def test_a_killed_fit_leaves_a_whole_checkpoint(kills: int, tmp_path: Path) -> None:
    """Each process goes on from where the last was killed; what comes out is the fit that never was."""
    path = tmp_path / "c"
    rng = np.random.default_rng()
    epoch = 0
    for kill in range(kills):
        command = [sys.executable, "-c", FIT, str(path), "again" if kill else "anew"]
        stamp = path.stat().st_mtime_ns if path.exists() else 0
        process = subprocess.Popen(command, cwd=Path(__file__).parent, stderr=subprocess.PIPE)
        try:
            while (path.stat().st_mtime_ns if path.exists() else 0) == stamp:
                assert process.poll() is None, process.stderr and process.stderr.read().decode()
                time.sleep(0.01)
            time.sleep(rng.uniform(0, 0.05))
        finally:
            process.kill()
            process.communicate()
        meta, _ = persistence.read(path)
        assert meta["at"]["epoch"] > epoch
        epoch = meta["at"]["epoch"]
    resumed, expected = long_fit(path, epoch + 2, resume=path), long_fit(tmp_path / "d", epoch + 2)
    assert_same(resumed, expected)
    assert without_time(resumed.history_) == without_time(expected.history_)


def test_a_checkpoint_that_cannot_be_written_leaves_the_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = ratings()
    path = tmp_path / "c"
    model = FMRegressor(2, solver=AdaGrad(max_iter=2, checkpoint=path), random_state=0).fit(X, y)
    before, content = model.predict(X), path.read_bytes()

    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        model.set_params(solver__max_iter=5).fit(X, y, resume=path)
    assert path.read_bytes() == content
    assert os.listdir(tmp_path) == ["c"]
    np.testing.assert_array_equal(model.predict(X), before)


# --------------------------------------------------------------------- callbacks and what is printed


def test_callbacks_see_the_estimator_and_the_record() -> None:
    X, y = ratings()
    seen: list[Any] = []
    model = FMRegressor(2, solver=AdaGrad(max_iter=3), random_state=0)
    model.set_params(callbacks=[lambda e, r: seen.append((e, r)), lambda e, r: seen.append(len(e.history_))])
    model.fit(X, y, eval_set=(X, y))
    assert all(each is model for each, _ in seen[::2])
    assert [record for _, record in seen[::2]] == model.history_
    assert seen[1::2] == [1, 2, 3]
    assert all(set(record) == {"epoch", "loss", "seconds", "eval_loss"} for record in model.history_)


@pytest.mark.parametrize("value, stops", [(True, True), (np.True_, True), (1, False), ("yes", False), (None, False)])
def test_only_true_stops(value: Any, stops: bool) -> None:
    X, y = ratings()
    later: list[int] = []
    model = FMRegressor(2, solver=AdaGrad(max_iter=4), random_state=0)
    callbacks = [lambda e, r: value if r["epoch"] == 2 else None, lambda e, r: later.append(r["epoch"])]
    model.set_params(callbacks=callbacks).fit(X, y)
    assert model.n_iter_ == (2 if stops else 4)
    assert later == list(range(1, model.n_iter_ + 1))  # the others are called all the same
    if stops:
        assert_same(model, FMRegressor(2, solver=AdaGrad(max_iter=2), random_state=0).fit(X, y))


def test_a_callback_that_fails_leaves_the_former_fit() -> None:
    X, y = ratings()
    model = FMRegressor(2, random_state=0).fit(X, y)
    before, history = model.predict(X), list(model.history_)

    def fail(model: Any, record: dict[str, Any]) -> None:
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        model.set_params(callbacks=[fail]).fit(X[:50], y[:50])
    np.testing.assert_array_equal(model.predict(X), before)
    assert model.history_ == history


@pytest.mark.parametrize("name", ALL)
def test_nothing_is_printed_unless_asked(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    X, y = ratings(600)
    model = FMRegressor(2, solver=ALL[name](max_iter=3), random_state=0)
    model.fit(X, y, eval_set=(X, y)).predict(X)
    assert capfd.readouterr() == ("", "")
    model.set_params(verbose=1).fit(X, y, eval_set=(X, y))
    out, err = capfd.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert len(lines) == model.n_iter_
    assert all("epoch" in line and "loss" in line and "eval_loss" in line for line in lines)
    assert "\r" not in err  # a bar is for terminals


# -------------------------------------------------------------------------------------- warm starts


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("kind", [FMRegressor, FMClassifier])
def test_a_warm_start_goes_on_from_the_parameters(name: str, kind: type) -> None:
    X, y = ratings(600)
    y = y > 3 if kind is FMClassifier else y
    model = kind(4, solver=METHODS[name](max_iter=12), random_state=0).fit(X, y)
    before = predicted(model, X)
    cold = clone(model).set_params(solver__max_iter=1).fit(X, y)
    # with next to no step nothing but rounding changes
    model.set_params(warm_start=True, solver__max_iter=1, solver__learning_rate=1e-12)
    if name != "ftrl" and name != "ftrl minibatch":  # whose weights follow from sums that are divided by the step
        np.testing.assert_allclose(predicted(model.fit(X, y), X), before, atol=0.02 if name == "bf16" else 1e-5)
    model.set_params(solver__learning_rate=None).fit(X, y)
    assert model.history_[-1]["loss"] < cold.history_[-1]["loss"]


def test_a_warm_start_on_another_target_keeps_the_predictions_scale() -> None:
    """The parameters are carried over in the units of the target, not of the training."""
    X, y = ratings(600)
    model = FMRegressor(4, random_state=0, clip=False).fit(X, y)
    before = model.predict(X)
    model.set_params(warm_start=True, solver=SGD(max_iter=1, learning_rate=1e-12)).fit(X, 10 + 20 * y)
    np.testing.assert_allclose(model.predict(X), before, rtol=1e-5)


def test_a_warm_start_of_other_shapes_is_refused() -> None:
    X, y = ratings()
    model = FMRegressor(4, warm_start=True, random_state=0).fit(X, y)
    before, history = model.predict(X), list(model.history_)
    wide = sp.hstack([X, X], format="csr")
    with pytest.raises(ValueError, match=r"warm_start: the fit before has .* 22 features and 4 factors, this one"):
        model.fit(wide, y)
    with pytest.raises(ValueError, match="warm_start"):
        model.set_params(n_factors=5).fit(X, y)
    model.set_params(n_factors=4)
    np.testing.assert_array_equal(model.predict(X), before)
    assert model.history_ == history
    classes = FMClassifier(2, warm_start=True, random_state=0).fit(X, y > 3)
    with pytest.raises(ValueError, match="warm_start"):
        classes.fit(X, np.digitize(y, [2.5, 4]))
    assert len(classes.classes_) == 2
    with pytest.raises(ValueError, match=r"knows the classes \[False, True\], y has \['bad', 'good'\]"):
        classes.fit(X, np.where(y > 3, "good", "bad"))
    assert classes.classes_.tolist() == [False, True]


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: FMRegressor(3, l2_linear=1e31),
        lambda: FMRegressor(3, l2_factors=1e300),
        lambda: FMRegressor(3, l2_prior=1e300),
        lambda: FMRegressor(3, init_std=1e40),
        lambda: FMRegressor(3, solver=AdaGrad(learning_rate=1e39)),
        lambda: FMRegressor(3, solver=FTRL(l1=1e39)),
        lambda: FMRegressor(3, solver=Adam(beta1=1 - 1e-9)),
        lambda: FMRegressor(3, solver=Adam(beta2=1 - 1e-9)),
    ],
)
def test_options_that_float32_cannot_hold_are_refused(wrong: Callable[[], Any]) -> None:
    X, y = ratings()
    with pytest.raises(ValueError, match="must be at most"):
        wrong().fit(X, y)


def test_watched_targets_beyond_float32_are_refused_as_such() -> None:
    X, y = ratings()
    with pytest.raises(ValueError, match=r"the y of eval_set has 1e\+200, which is .* times the spread of the target"):
        FMRegressor(3).fit(X, y, eval_set=(X[:2], [3.0, 1e200]))


def test_fields_of_another_length_are_refused() -> None:
    X, y = ratings()
    for fields in (np.zeros(21, int), np.zeros(22), -np.ones(22, int)):
        model = FMRegressor(3, fields=fields)
        with pytest.raises(ValueError, match="fields must hold the number of the field of each of the 22 columns"):
            model.fit(X, y)
        assert not hasattr(model, "params_")


def test_a_metric_that_the_watched_rows_do_not_suit_says_so() -> None:
    X, y = ratings()
    with pytest.raises(ValueError, match="eval_metric='auc' of the rows to watch: "):
        FMClassifier(3, eval_metric="auc").fit(X, y > 3, eval_set=(X[y > 3], np.ones((y > 3).sum(), bool)))


class Late:
    """A pass whose member 0 is interrupted before it has begun, while the others wait for it."""

    def __init__(self, interruptions: int) -> None:
        self.begun, self.left = False, interruptions
        self.barrier = threading.Barrier(3, timeout=60)
        self.done: list[int] = []

    def work(self, member: int) -> None:
        if member == 0 and self.left:
            self.left -= 1
            raise KeyboardInterrupt
        if member == 0:
            self.begun = True
        self.barrier.wait()
        self.done.append(member)


@pytest.mark.parametrize("interruptions", [0, 1, 3])
def test_a_team_that_is_interrupted_as_it_starts_ends_its_work(interruptions: int) -> None:
    late = Late(interruptions)
    with pytest.raises(KeyboardInterrupt) if interruptions else contextlib.nullcontext():
        team._try(late, 3)
    assert sorted(late.done) == [0, 1, 2]


def test_a_warm_start_that_fails_leaves_the_history() -> None:
    X, y = ratings()
    model = FMRegressor(2, warm_start=True, random_state=0).fit(X, y)
    history = list(model.history_)

    def fail(model: Any, record: dict[str, Any]) -> None:
        if record["epoch"] == 2:
            raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        model.set_params(callbacks=[fail]).fit(X, y)
    assert model.history_ == history


def test_a_warm_start_with_an_encoder_is_refused() -> None:
    frame = pd.DataFrame({"user": list("abcab")})
    model = FMRegressor(2, encoder=FrameEncoder({"user": OneHot()}), warm_start=True, random_state=0)
    model.fit(frame, [1.0, 2, 3, 4, 5])
    with pytest.raises(ValueError, match="with an encoder use partial_fit"):
        model.fit(frame, [1.0, 2, 3, 4, 5])


def test_a_warm_start_without_a_fit_is_a_fit() -> None:
    X, y = ratings()
    warm = FMRegressor(4, warm_start=True, random_state=0).fit(X, y)
    assert_same(warm, FMRegressor(4, random_state=0).fit(X, y))
