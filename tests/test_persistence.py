"""persistence and load: what was saved comes back to the bit; anything else is a ModelFileError."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import pickle
import re
import warnings
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from safetensors.numpy import save as serialise

from sparsefm import (
    FFMRegressor,
    FMClassifier,
    FMRegressor,
    FrameEncoder,
    FwFMClassifier,
    ModelFileError,
    MultiHot,
    Numeric,
    OneHot,
    load,
    persistence,
)
from sparsefm.model import FMParams
from sparsefm.solvers import SGD, AdaGrad

FRAME = pd.DataFrame(
    {
        "user": [1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 2, 4],
        "film": list("ababcabcacba"),
        "genres": ["x|y", "y", "", "z", "x", "x|z", "y|z", "x", "y", "z", "", "x"],
        "age": [20.5, 30, 41, 20, 30, np.nan, 20, 30, 40, 20, 30, 50],
        "when": pd.date_range("2020-01-01", periods=12, tz="Europe/Berlin"),
        "flag": [True, False] * 6,
    }
)
ENCODER = FrameEncoder(
    {
        "user": OneHot(),
        "film": OneHot(min_count=2),
        "genres": MultiHot(sep="|"),
        "age": Numeric(),
        "when": OneHot(),
        "flag": OneHot(),
    }
)
RATING = np.array([5.0, 4, 3, 2, 1, 5, 4, 3, 2, 1, 5, 4])
X32 = np.random.default_rng(0).normal(size=(12, 5)).astype(np.float32)


def models() -> dict[str, tuple[Any, Any]]:
    """Fitted models of every kind with something to predict."""
    named = pd.DataFrame(X32, columns=list("vwxyz"))
    label = np.where(RATING > 3, "good", "bad")
    words = np.array(["low", "mid", "high"], dtype=object)[(RATING // 2).astype(int)]
    solver = AdaGrad(max_iter=3, learning_rate=0.1)
    made = {
        "regressor": (FMRegressor(3, solver=solver).fit(X32, RATING), X32),
        "regressor f64": (FMRegressor(3, solver="sgd").fit(X32.astype(float), RATING), X32.astype(float)),
        "regressor named": (FMRegressor(0, clip=False, random_state=3).fit(named, RATING), named),
        "regressor encoder": (FMRegressor(4, encoder=ENCODER, random_state=0).fit(FRAME, RATING), FRAME),
        "regressor frame": (
            FMRegressor(2, solver=solver).fit(FRAME[["film", "age"]], RATING),
            FRAME[["film", "age"]],
        ),
        "binary": (FMClassifier(3, class_weight="balanced").fit(X32, label), X32),
        "binary bool": (FMClassifier(3, solver=solver).fit(X32, RATING > 2), X32),
        "binary float": (FMClassifier(3, solver=solver).fit(X32, (RATING > 2) - 0.0), X32),
        "binary int8": (FMClassifier(3, solver=solver).fit(X32, (RATING > 2).astype(np.int8)), X32),
        "several": (FMClassifier(3, class_weight={1: 2.0, 2: 1}).fit(X32, RATING.astype(int)), X32),
        "poisson": (FMRegressor(2, loss="poisson", solver="auto").fit(X32, RATING), X32),
        "quantile": (FMRegressor(2, loss="quantile", quantile=0.9, solver="ftrl").fit(X32, RATING), X32),
        "huber by field": (
            FMRegressor(2, loss="huber", delta=2.0, fields=[0, 0, 1, 1, 2], l2_factors={1: 0.5}).fit(X32, RATING),
            X32,
        ),
        "encoder by field": (FMRegressor(2, encoder=ENCODER, l2_factors={"film": 0.5}).fit(FRAME, RATING), FRAME),
        "hinge": (FMClassifier(2, loss="hinge", solver="adam").fit(X32, label), X32),
        "a metric": (FMRegressor(2, eval_metric="mae").fit(X32, RATING, eval_set=(X32, RATING)), X32),
        "bf16": (FMRegressor(2, solver=AdaGrad(rowwise=True, storage="bf16", average=3)).fit(X32, RATING), X32),
        "pieces": (
            FMRegressor(3, encoder=ENCODER).partial_fit(FRAME[:7], RATING[:7]).partial_fit(FRAME[7:], RATING[7:]),
            FRAME,
        ),
        "several in pieces": (FMClassifier(2).partial_fit(X32, RATING, classes=[1, 2, 3, 4, 5, 6]), X32),
        "stream": (FMRegressor(3, encoder=ENCODER).fit_stream([(FRAME, RATING)], epochs=2), FRAME),
        "several words": (FMClassifier(2, encoder=ENCODER, solver=solver).fit(FRAME, words), FRAME),
        "order 3": (FMRegressor(2, order=3, solver=solver).fit(X32, RATING), X32),
        "field-aware": (FFMRegressor(2, encoder=ENCODER, solver=solver).fit(FRAME, RATING), FRAME),
        "field-weighted": (FwFMClassifier(2, fields=[0, 0, 1, 1, 2], solver=solver).fit(X32, RATING), X32),
    }
    return made


MODELS = models()


@pytest.fixture(autouse=True)
def _no_waiting_for_disks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda file: None)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.sfm"


def outputs(model: Any, X: Any) -> list[np.ndarray]:
    if isinstance(model, FMClassifier):
        shares = [model.predict_proba(X)] if model.loss == "logistic" else []
        return [model.predict(X), model.decision_function(X), *shares]
    return [model.predict(X)]


@pytest.mark.parametrize("name", MODELS)
def test_a_loaded_model_is_the_saved_one_to_the_bit(name: str, path: Path) -> None:
    model, X = MODELS[name]
    model.save(path)
    back = load(path)
    assert type(back) is type(model)
    for ours, theirs in zip(outputs(back, X), outputs(model, X), strict=True):
        np.testing.assert_array_equal(ours, theirs)
        assert ours.dtype == theirs.dtype
    for attribute in ("intercept_", "coef_", "factors_", "n_iter_", "n_features_in_", "history_"):
        np.testing.assert_array_equal(getattr(back, attribute), getattr(model, attribute))
    assert back.coef_.dtype == model.coef_.dtype
    assert hasattr(back, "feature_names_in_") == hasattr(model, "feature_names_in_")
    if hasattr(model, "feature_names_in_"):
        assert back.feature_names_in_.tolist() == model.feature_names_in_.tolist()
    if isinstance(model, FMClassifier):
        assert back.classes_.dtype == model.classes_.dtype
    for option, value in model.get_params(deep=False).items():
        if option not in ("solver", "encoder"):
            np.testing.assert_equal(getattr(back, option), value, err_msg=option)
    again = path.with_name("again")
    back.save(again)
    assert load(again).history_ == model.history_
    y = np.resize(model.classes_, 12) if isinstance(model, FMClassifier) else RATING
    if name not in ("poisson", "binary"):  # whose solver is "auto", whose weights need the frequencies of all classes
        back.partial_fit(X, y)
    back.fit(X, y)


def test_a_loaded_model_recommends_as_before(path: Path) -> None:
    model, _ = MODELS["regressor encoder"]
    model.save(path)
    users = FRAME[["user", "age"]].drop_duplicates("user")
    items = FRAME[["film", "genres"]].drop_duplicates("film")
    options = {"user": "user", "item": "film", "k": 3, "exclude": FRAME}
    expected = model.recommend(users, items, **options)
    pd.testing.assert_frame_equal(load(path).recommend(users, items, **options), expected)


def test_options_of_numpys_types_are_saved(path: Path) -> None:
    """As a grid search over np.arange sets them."""
    model = FMRegressor(
        np.int64(2),
        solver=SGD(max_iter=np.int64(2), learning_rate=np.float32(0.125), tol=np.float64(0)),
        l2_linear=np.float32(0.5),
        random_state=np.int64(3),
        clip=np.bool_(True),
    ).fit(X32, RATING)
    model.save(path)
    back = load(path)
    assert (back.n_factors, back.l2_linear, back.random_state) == (2, 0.5, 3)
    assert (back.solver.max_iter, back.solver.learning_rate) == (2, 0.125)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.uint8, bool])
def test_arrays_of_any_layout(dtype: type, path: Path) -> None:
    base = np.arange(48).reshape(6, 8).astype(dtype)
    arrays = {
        "c": base,
        "fortran": np.asfortranarray(base),
        "turned": base.T,
        "strided": base[::2, 1::3],
        "backwards": base[::-1, ::-1],
        "one": base[:, 3],
        "empty": base[:0],
        "thin": base[:, :0],
        "many axes": base.reshape(2, 3, 2, 4).transpose(3, 1, 0, 2),
        "read only": np.broadcast_to(base[0], (3, 8)),
    }
    meta = {"text": "Zoë ‘x’ \ud800 \x00", "deep": [{"a": [None, True, 1.5, 2**80]}]}
    persistence.write(path, meta, arrays)
    back_meta, back = persistence.read(path)
    assert back_meta == meta
    assert back.keys() == arrays.keys()
    for name, array in arrays.items():
        assert back[name].dtype == array.dtype
        np.testing.assert_array_equal(back[name], array)


def test_models_with_strided_parameters_are_saved_as_they_are(path: Path) -> None:
    model = copy.deepcopy(MODELS["regressor"][0])
    table = np.zeros((5, 9), np.float32)
    table[:, 1:4], table[:, 7] = model.params_.V, model.params_.w
    model.params_ = FMParams(model.params_.w0, table[:, 7], table[:, 1:4])
    expected = model.predict(X32)
    model.save(path)
    np.testing.assert_array_equal(load(path).predict(X32), expected)


# ------------------------------------------------------------------------------------ damaged files


def test_any_flipped_byte_is_noticed(path: Path) -> None:
    MODELS["regressor"][0].save(path)
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    places = {*range(64), *range(len(content) - 8, len(content)), *rng.integers(0, len(content), 150).tolist()}
    for at in places:
        flipped = bytearray(content)
        flipped[at] ^= int(rng.integers(1, 256))
        path.write_bytes(flipped)
        with pytest.raises(ModelFileError, match=r"model\.sfm"):
            load(path)


def test_any_cut_or_grown_file_is_noticed(path: Path) -> None:
    MODELS["regressor"][0].save(path)
    content = path.read_bytes()
    for length in {*range(60), *range(60, len(content), 97), len(content) - 1}:
        path.write_bytes(content[:length])
        with pytest.raises(ModelFileError):
            load(path)
    for more in (b"\0", content):
        path.write_bytes(content + more)
        with pytest.raises(ModelFileError, match="damaged"):
            load(path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"sparsefm",
        b"SPARSEFM" + bytes(40),
        b"PK\x03\x04" + bytes(100),
        pickle.dumps({"a": 1}),
        b"sparsefm" + bytes(32),
        b"sparsefm" + hashlib.sha256(b"").digest(),
        b"\0" * 1000,
    ],
)
def test_other_files_are_refused(content: bytes, path: Path) -> None:
    path.write_bytes(content)
    with pytest.raises(ModelFileError):
        load(path)


def test_files_that_cannot_be_read_are_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "none")
    with pytest.raises(OSError):
        load(tmp_path)


# ------------------------------------------------------------- malicious files, with a right checksum


def sealed(body: bytes) -> bytes:
    return b"sparsefm" + hashlib.sha256(body).digest() + body


def forged(path: Path, meta: Any, arrays: dict[str, np.ndarray]) -> None:
    text = json.dumps(meta)
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    path.write_bytes(sealed(serialise(arrays, metadata={"sparsefm": text})))


OPENED: dict[str, tuple[dict[str, Any], dict[str, np.ndarray]]] = {}


def opened(name: str, path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    if name not in OPENED:
        MODELS[name][0].save(path)
        OPENED[name] = persistence.read(path)
    meta, arrays = OPENED[name]
    return copy.deepcopy(meta), dict(arrays)


def refused_or_working(path: Path, name: str, note: Any) -> None:
    try:
        model = load(path)
    except ModelFileError as error:
        assert str(path) in str(error)  # noqa: PT017
        return
    X = MODELS[name][1]
    if model.encoder_ is None:  # whatever its columns are called now
        X = np.asarray(X)
    try:
        repr(model)
        assert isinstance(model.n_iter_, int)
        model.save(path.with_name("again"))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # X may have names that the model has not
                for output in outputs(model, X):
                    assert len(output) == len(X), note
        except (ValueError, TypeError):
            if model.encoder_ is None:  # else it may be one that goes with other frames
                raise
    except Exception as error:
        raise AssertionError(f"loaded, but does not work: {error!r} after {note}") from error


JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 12),
    st.sampled_from([2**31, 2**63, -(2**63), 10**30, 10**400, 1e308, -1e308, 0.5, -0.0]),
    st.text(max_size=4),
    st.sampled_from(["sgd", "adagrad", "FMClassifier", "<U3", "O", "float64", "int64", "x|y", "own"]),
    st.sampled_from([[], {}, [[]], [{}], {"a": 1}, [1, [2, [3]]], [["a", "b"], ["c"]], [None], ["", ""]]),
)


def places_of(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The place of every value inside a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [p for key, each in inner for p in [(*at, key), *places_of(each, (*at, key))]]


@pytest.mark.parametrize("name", ["regressor", "regressor named", "regressor encoder", "several", "binary"])
@given(data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_changed_descriptions_are_refused_or_work(name: str, tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "forged.sfm"
    meta, arrays = opened(name, path)
    notes = []
    for _ in range(data.draw(st.integers(1, 2))):
        where = data.draw(st.sampled_from(places_of(meta)))
        holder: Any = meta
        for key in where[:-1]:
            holder = holder[key]
        action = data.draw(st.sampled_from(["put", "put", "put", "drop", "add", "wrap"]))
        if action == "drop":
            del holder[where[-1]]
        elif action == "put":
            holder[where[-1]] = copy.deepcopy(data.draw(JUNK))
        elif action == "wrap":
            holder[where[-1]] = [holder[where[-1]]]
        elif isinstance(holder, dict):
            holder[data.draw(st.sampled_from(["callbacks", "encoder", "x", "n_jobs"]))] = copy.deepcopy(data.draw(JUNK))
        else:
            holder.append(copy.deepcopy(data.draw(JUNK)))
        notes.append((action, where, holder))
        if not places_of(meta):
            break
    forged(path, meta, arrays)
    refused_or_working(path, name, notes)


@pytest.mark.parametrize("name", ["regressor", "regressor encoder", "several"])
@given(data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_changed_arrays_are_refused_or_work(name: str, tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "forged.sfm"
    meta, arrays = opened(name, path)
    which = data.draw(st.sampled_from(sorted(arrays)))
    array = arrays[which]
    action = data.draw(
        st.sampled_from(["drop", "cut", "grow", "turn", "flat", "dtype", "value", "rename", "add", "scalar"])
    )
    if action == "drop":
        del arrays[which]
    elif action == "cut":
        arrays[which] = array[: data.draw(st.integers(0, max(len(array) - 1, 0)))]
    elif action == "grow":
        arrays[which] = np.concatenate([array, array])
    elif action == "turn":
        arrays[which] = array.T if array.ndim > 1 else array[:, None]
    elif action == "flat":
        arrays[which] = array.ravel()
    elif action == "dtype":
        kinds = [np.float16, np.float32, np.float64, np.int8, np.int64, np.uint64, bool]
        kind = data.draw(st.sampled_from(kinds))
        with np.errstate(all="ignore"):
            arrays[which] = np.asarray(array).astype(kind)
    elif action == "value":
        arrays[which] = array.copy()
        odd = [np.nan, np.inf, -np.inf, 1e30] if array.dtype.kind == "f" else [0, 127, 255]
        if array.size:
            at = data.draw(st.integers(0, array.size - 1))
            arrays[which].reshape(-1)[at] = np.array(data.draw(st.sampled_from(odd))).astype(array.dtype)
    elif action == "rename":
        arrays[which + data.draw(st.sampled_from(["0", ".", "x"]))] = arrays.pop(which)
    elif action == "add":
        arrays[data.draw(st.sampled_from(["w.9", "encoder.9.levels", "encoder.x", "", "é"]))] = array
    else:
        arrays[which] = np.array(1, dtype=array.dtype)
    forged(path, meta, arrays)
    refused_or_working(path, name, (action, which))


FORGERIES: dict[str, dict[str, Any]] = {
    "newer": {"format": 3},
    "older": {"format": 1},
    "format of text": {"format": "1"},
    "another class": {"class": "BaseEstimator"},
    "the wrong class": {"class": "FMRegressor"},
    "too many functions": {"n_params": 2**62},
    "no function": {"n_params": 0},
    "a bool of functions": {"n_params": True},
    "two functions": {"n_params": 2},
    "rank": {"options": {"n_factors": 10**9}},
    "solver": {"options": {"solver": {"name": "__init__", "options": {}}}},
    "solver options": {"options": {"solver": {"name": "sgd", "options": {"solve": 1}}}},
    "threads": {"options": {"n_threads": "2"}},
    "no threads": {"options": {"n_threads": 0}},
    "class weights": {"options": {"class_weight": [[[], 1]]}},
    "labels of records": {"classes": {"dtype": [["a", "O"]], "labels": [1, 2, 3, 4, 5]}},
    "labels of bytes": {"classes": {"dtype": "V8", "labels": [1, 2, 3, 4, 5]}},
    "labels cut off": {"classes": {"dtype": "<U2", "labels": ["a", "aaa", "b", "c", "d"]}},
    "label twice": {"classes": {"dtype": "<i8", "labels": [1, 1, 2, 3, 4]}},
    "label too large": {"classes": {"dtype": "<i1", "labels": [1, 2, 3, 4, 500]}},
    "labels of many bytes": {"classes": {"dtype": f"<U{2**20}", "labels": list("abcde")}},
    "few labels": {"classes": {"dtype": "<i8", "labels": [1, 2]}},
    "half a column": {"n_features_in": 5.5},
    "a strength for no field": {"options": {"l2_factors": [[0, -1.0]]}},
    "another loss": {"options": {"loss": "squared"}},
    "another metric": {"options": {"eval_metric": "rmse"}},
    "other width": {"n_features_in": 6},
    "names": {"feature_names_in": ["a"]},
    "no history": {"history": []},
    "epoch of text": {"history": [{"epoch": "1"}]},
}


@pytest.mark.parametrize("name", FORGERIES)
def test_forgeries_are_refused(name: str, path: Path) -> None:
    meta, arrays = opened("several", path)
    for key, value in FORGERIES[name].items():
        meta[key] = {**meta[key], **value} if key == "options" else value
    forged(path, meta, arrays)
    with pytest.raises(ModelFileError):
        load(path)


def test_a_regressor_has_one_score_function(path: Path) -> None:
    meta, arrays = opened("regressor", path)
    more = {f"{key}.1": arrays[f"{key}.0"] for key in ("w0", "w", "V")}
    forged(path, {**meta, "n_params": 2}, {**arrays, **more})
    with pytest.raises(ModelFileError):
        load(path)


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, '{"a":' * 100_000, "NaN", "{", "", "\x00", '{"format": 1e999}', "[1]", "1", '"a"', "null"],
    ids=range(11),
)
def test_descriptions_that_are_none(text: str, path: Path) -> None:
    arrays = opened("regressor", path)[1]
    path.write_bytes(sealed(serialise(arrays, metadata={"sparsefm": text})))
    with pytest.raises(ModelFileError):
        load(path)


def test_files_without_a_description(path: Path) -> None:
    meta, arrays = opened("regressor", path)
    path.write_bytes(sealed(serialise(arrays, metadata={"other": json.dumps(meta)})))
    with pytest.raises(ModelFileError):
        load(path)
    path.write_bytes(sealed(serialise(arrays)))
    with pytest.raises(ModelFileError):
        load(path)


@pytest.mark.parametrize("length", [0, 1, 2**31, 2**63, 2**64 - 1])
def test_lying_header_lengths(length: int, path: Path) -> None:
    MODELS["regressor"][0].save(path)
    body = path.read_bytes()[40:]
    path.write_bytes(sealed(length.to_bytes(8, "little") + body[8:]))
    with pytest.raises(ModelFileError):
        load(path)


@given(st.binary(max_size=80))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_arbitrary_bytes_under_a_right_checksum(tmp_path: Path, body: bytes) -> None:
    path = tmp_path / "bytes.sfm"
    path.write_bytes(sealed(body))
    with pytest.raises(ModelFileError):
        load(path)


def test_changed_bytes_under_a_right_checksum(path: Path) -> None:
    meta, arrays = opened("several", path)
    forged(path, meta, arrays)
    body = path.read_bytes()[40:]
    rng = np.random.default_rng(1)
    header = int.from_bytes(body[:8], "little")
    for at in rng.choice(8 + header, 300, replace=False).tolist():
        changed = bytearray(body)
        changed[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(sealed(bytes(changed)))
        refused_or_working(path, "several", (at, body[max(at - 30, 0) : at + 10], changed[at]))


def test_nothing_in_a_file_is_executed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def boom(*args: Any, **options: Any) -> None:
        raise AssertionError("unpickled")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, boom)
    monkeypatch.setattr(np, "load", boom)
    for model, _ in MODELS.values():
        model.save(path)
        load(path)
        assert b"sklearn" not in path.read_bytes()


# ------------------------------------------------------------------------------------------ writing


def test_a_failing_write_leaves_the_old_file_and_nothing_else(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    MODELS["regressor"][0].save(path)
    before = path.read_bytes()

    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    for broken in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, broken, full)
            with pytest.raises(OSError, match="No space"):
                MODELS["several"][0].save(path)
        assert path.read_bytes() == before
        assert os.listdir(path.parent) == ["model.sfm"]

    def interrupted(*args: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        MODELS["several"][0].save(path)
    assert os.listdir(path.parent) == ["model.sfm"]


def test_saving_to_a_folder_or_into_none(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError):
        MODELS["regressor"][0].save(tmp_path / "folder")
    with pytest.raises(FileNotFoundError):
        MODELS["regressor"][0].save(tmp_path / "none" / "model.sfm")
    assert os.listdir(tmp_path) == ["folder"]


def test_saving_over_a_file_replaces_it_and_takes_text_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    MODELS["regressor"][0].save("m")
    MODELS["binary"][0].save("m")
    assert isinstance(load("m"), FMClassifier)
    assert os.listdir() == ["m"]


def test_what_cannot_be_loaded_again_is_not_saved(path: Path) -> None:
    class Mine(SGD):
        pass

    with pytest.raises(TypeError, match="solver of your own, Mine"):
        FMRegressor(2, solver=Mine(max_iter=1)).fit(X32, RATING).save(path)
    with pytest.raises(ValueError, match="not fitted"):
        FMRegressor().save(path)
    assert not path.exists()


def test_random_states_and_callbacks_are_left_out(path: Path) -> None:
    model = FMRegressor(2, random_state=np.random.RandomState(0), callbacks=[lambda e, r: None])
    model.fit(X32, RATING).save(path)
    back = load(path)
    assert back.random_state is None
    assert back.callbacks is None


def test_a_metric_of_ones_own_is_left_out(path: Path) -> None:
    model = FMRegressor(2, eval_metric=lambda y, p: 0.0).fit(X32, RATING, eval_set=(X32, RATING))
    model.save(path)
    assert load(path).eval_metric == "loss"


def test_a_checkpoint_is_not_taken_for_a_model(path: Path) -> None:
    FMRegressor(2, solver=AdaGrad(max_iter=1, checkpoint=path)).fit(X32, RATING)
    with pytest.raises(ModelFileError, match="checkpoint"):
        load(path)


def test_where_checkpoints_were_written_is_left_out(path: Path) -> None:
    model = FMRegressor(2, solver=AdaGrad(max_iter=1, checkpoint=path.with_name("c"))).fit(X32, RATING)
    model.save(path)
    assert load(path).solver.checkpoint is None
    assert str(path.parent).encode() not in path.read_bytes()


def test_errors_name_the_file_and_the_reason(path: Path) -> None:
    meta, arrays = opened("regressor", path)
    forged(path, {**meta, "format": 99}, arrays)
    with pytest.raises(ModelFileError, match=re.escape(str(path)) + ".*format is 99, this version reads"):
        load(path)
