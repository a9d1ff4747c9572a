"""The encoders against a slow reference: each row a dict from output column to value, built cell by cell."""

import datetime as dt
import importlib
import importlib.util
import json
import math
import os
import pickle
import subprocess
import sys
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler
from sklearn.utils.estimator_checks import estimator_checks_generator

from sparsefm import encoders
from sparsefm.encoders import FrameEncoder, MultiHot, Numeric, OneHot, Vocabulary

QUICK = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
NEEDS_ARROW = pytest.mark.skipif(importlib.util.find_spec("pyarrow") is None, reason="pyarrow is not installed")


# The reference ---------------------------------------------------------------------------------------------


def is_missing(value):
    return not isinstance(value, (list, tuple, set, np.ndarray)) and pd.isna(value)


def key(value):
    """Levels that count as one have one key."""
    if isinstance(value, (bool, np.bool_)):
        return "bool", bool(value)
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        return "number", int(value)
    if isinstance(value, (int, float, np.number)):
        return "number", value
    return type(value).__name__, value


def members(encoder, cell):
    """The keys of a cell, each once."""
    if isinstance(encoder, OneHot):
        return [key(cell)]
    if isinstance(cell, str):
        cell = [piece for piece in cell.split(encoder.sep) if piece]
    cell = sorted(cell) if isinstance(cell, set) else cell
    return list(dict.fromkeys(key(value) for value in cell if not is_missing(value)))


def reference(specification, train, frame):
    """The encoding of `frame` after fitting on `train`: dense (n_rows, n_columns), and the fields."""
    layout, rows = [], [{} for _ in range(len(frame))]
    for name, encoder in specification.items():
        cells = list(frame[name])
        if isinstance(encoder, Numeric):
            known = [float(value) for value in train[name] if not is_missing(value)]
            layout.append((name, "value"))
            if len(known) < len(train) and encoder.missing == "own":
                layout.append((name, "missing"))
            mean, std = 0.0, 1.0
            if encoder.scale == "standard" and known:
                mean = math.fsum(known) / len(known)
                std = math.sqrt(math.fsum((x - mean) ** 2 for x in known) / len(known))
                if min(known) == max(known):
                    mean, std = known[0], 1.0
            for row, cell in zip(rows, cells, strict=True):
                if not is_missing(cell):
                    row[name, "value"] = (float(cell) - mean) / std
                elif (name, "missing") in layout:
                    row[name, "missing"] = 1.0
            continue
        present = [members(encoder, cell) for cell in train[name] if not is_missing(cell)]
        counts = Counter(level for cell in present for level in cell)  # keeps the order of first appearance
        kept = [level for level in counts if counts[level] >= encoder.min_count]
        if encoder.max_levels is not None:
            best = sorted(kept, key=lambda level: -counts[level])[: encoder.max_levels]
            kept = [level for level in kept if level in best]
        layout += [(name, "unknown")] * (encoder.unknown == "bucket")
        layout += [(name, "missing")] * (encoder.missing == "own")
        layout += [(name, level) for level in kept]
        for row, cell in zip(rows, cells, strict=True):
            found = {"missing"} if is_missing(cell) else {m if m in kept else "unknown" for m in members(encoder, cell)}
            entries = [(name, entry) for entry in found if (name, entry) in layout]
            weight = 1.0 if getattr(encoder, "weight", None) is None else 1 / math.sqrt(max(len(entries), 1))
            row.update(dict.fromkeys(entries, weight))
    names = list(specification)
    dense = np.array([[row.get(column, 0.0) for column in layout] for row in rows]).reshape(len(rows), len(layout))
    return dense, np.array([names.index(name) for name, _ in layout])


def assert_well_formed(X, encoder):
    assert isinstance(X, sparse.csr_array)
    assert (X.data.dtype, X.indices.dtype, X.indptr.dtype) == (np.float32, np.int32, np.int32)
    assert X.shape[1] == encoder.n_features_out_ == len(encoder.get_feature_names_out()) == len(encoder.fields_)
    assert (X.data != 0).all()
    for a, b in zip(X.indptr[:-1], X.indptr[1:], strict=True):
        assert (np.diff(X.indices[a:b]) > 0).all()  # sorted, nothing twice


def assert_same(X, Y):
    assert X.shape == Y.shape
    for part in ("indptr", "indices", "data"):
        np.testing.assert_array_equal(getattr(X, part), getattr(Y, part))


def through_state(encoder):
    meta, arrays = encoder.to_state()
    for array in arrays.values():
        assert array.flags.c_contiguous
        assert array.dtype in (np.int64, np.float64, np.uint8)
    return FrameEncoder.from_state(json.loads(json.dumps(meta)), arrays)


def one(cells, encoder=None, dtype=None):
    """A frame of one column and the encoder for it."""
    return pd.DataFrame({"c": pd.Series(cells, dtype=dtype)}), FrameEncoder({"c": encoder or OneHot()})


# Fast path against reference -------------------------------------------------------------------------------

WORDS = st.sampled_from(["a", "b", "1", "", "True", "ü", "c d"])
MIXED = st.one_of(
    WORDS,
    st.integers(-2, 2),
    st.booleans(),
    st.sampled_from([1.0, 0.5, -0.0, math.inf]),
    st.sampled_from([None, math.nan, pd.NA]),
)
LISTS = st.one_of(
    st.none(), st.lists(MIXED, max_size=4), st.lists(WORDS, max_size=4).map(tuple), st.sets(WORDS, max_size=3)
)
TEXTS = st.one_of(st.none(), st.lists(st.sampled_from(["a", "b", "c", "d", ""]), max_size=4).map("|".join))
NUMBERS = st.one_of(st.sampled_from([None, math.nan]), st.integers(-50, 50), st.sampled_from([0.5, 1e3]))
LEVEL_OPTIONS = {
    "min_count": st.integers(1, 3),
    "max_levels": st.one_of(st.none(), st.integers(1, 3)),
    "unknown": st.sampled_from(["bucket", "ignore"]),
    "missing": st.sampled_from(["own", "ignore"]),
}
CELLS = {
    "mixed": MIXED,
    "word": st.one_of(st.none(), WORDS),
    "lists": LISTS,
    "texts": TEXTS,
    "number": NUMBERS,
}


@st.composite
def tasks(draw):
    weight = st.sampled_from(["sqrt", None])
    specification = {
        "mixed": draw(st.builds(OneHot, **LEVEL_OPTIONS)),
        "texts": draw(st.builds(MultiHot, st.just("|"), weight=weight, **LEVEL_OPTIONS)),
        "number": draw(
            st.builds(Numeric, st.sampled_from(["standard", None]), missing=st.sampled_from(["own", "ignore"]))
        ),
        "word": draw(st.builds(OneHot, **LEVEL_OPTIONS)),
        "lists": draw(st.builds(MultiHot, weight=weight, **LEVEL_OPTIONS)),
    }
    frames = []
    for rows in (draw(st.integers(1, 8)), draw(st.integers(0, 8))):
        columns = {
            name: pd.Series(draw(st.lists(cells, min_size=rows, max_size=rows)), dtype=object)
            for name, cells in CELLS.items()
        }
        frames.append(pd.DataFrame(columns))
    return specification, *frames


@pytest.mark.filterwarnings("ignore:column .* was fitted on levels")
@QUICK
@given(tasks())
def test_the_fast_path_agrees_with_the_slow_one(task):
    specification, train, test = task
    encoder = FrameEncoder(specification)
    for X, frame in ((encoder.fit_transform(train), train), (encoder.transform(test), test)):
        dense, fields = reference(specification, train, frame)
        assert_well_formed(X, encoder)
        np.testing.assert_allclose(X.toarray(), dense, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(encoder.fields_, fields)
    assert_same(through_state(encoder).transform(test), encoder.transform(test))
    assert through_state(encoder).get_feature_names_out().tolist() == encoder.get_feature_names_out().tolist()
    assert len(set(encoder.get_feature_names_out())) == encoder.n_features_out_


DTYPES = {
    "object": (["b", "a", None, "b"], object),
    "str": (["b", "a", None, "b"], "str"),
    "string": (["b", "a", None, "b"], "string"),
    "category": (["b", "a", None, "b"], pd.CategoricalDtype(["z", "a", "b"])),
    "ordered": ([3, 1, None, 3], pd.CategoricalDtype([1, 2, 3], ordered=True)),
    "int8": ([3, -1, 3], np.int8),
    "uint64": ([2**64 - 1, 5, 2**64 - 1], np.uint64),
    "Int64": ([3, 1, None, 3], "Int64"),
    "float64": ([3.0, 0.5, None, 3.0], np.float64),
    "Float32": ([3.0, 0.5, None, 3.0], "Float32"),
    "bool": ([True, False, True], bool),
    "boolean": ([True, False, None, True], "boolean"),
    "datetime": (pd.to_datetime(["2024-03-01", "1969-01-02", None, "2024-03-01"]), None),
    "datetime, ns": (pd.to_datetime(["2024-03-01", "1969-01-02", None, "2024-03-01"]), "datetime64[ns]"),
    "datetime, tz": (pd.to_datetime(["2024-03-01", None, "2024-07-01"]).tz_localize("Europe/Paris"), None),
    "datetime, offset": (
        pd.to_datetime(["2024-03-01", None]).tz_localize(dt.timezone(dt.timedelta(hours=2))),
        None,
    ),
    "python dates": ([dt.datetime(2024, 3, 1, 12, 30), None, dt.datetime(2020, 1, 1)], object),
    "big integers": ([2**70, -(2**70), 1], object),
    "mixed": ([1, "1", True, 1.5, None, False, 0, 1.0], object),
    "surrogates": (["\ud800", "a\x00b"], object),
    "no level": ([None, None], object),
    "arrow text": pytest.param((["b", "a", None, "b"], "string[pyarrow]"), marks=NEEDS_ARROW),
    "arrow integers": pytest.param((["3", "1", None, "3"], "int64[pyarrow]"), marks=NEEDS_ARROW),
}


@pytest.fixture(params=list(DTYPES.values()), ids=list(DTYPES))
def column(request):
    cells, dtype = request.param
    return pd.DataFrame({"c": pd.Series(cells, dtype=dtype)})


def test_every_dtype_is_encoded_and_comes_back(column):
    encoder = FrameEncoder({"c": OneHot()})
    X = encoder.fit_transform(column)
    assert_well_formed(X, encoder)
    assert_same(X, encoder.transform(column))
    missing = column["c"].isna().to_numpy()
    np.testing.assert_array_equal(X.toarray()[:, 1] == 1, missing)
    assert encoder.n_features_out_ == 2 + column["c"].astype(object).map(key, na_action="ignore").nunique()
    for back in (encoder.inverse_transform(X), through_state(encoder).inverse_transform(X)):
        np.testing.assert_array_equal(back["c"].isna().to_numpy(), missing)
        for given_, returned in zip(column["c"][~missing], back["c"][~missing], strict=True):
            assert returned == given_
            assert isinstance(returned, str) == isinstance(given_, str)
            assert isinstance(returned, (bool, np.bool_)) == isinstance(given_, (bool, np.bool_))
    assert_same(through_state(encoder).transform(column), X)


@pytest.mark.filterwarnings("ignore:column 'c' was fitted on levels")
def test_levels_of_one_value_are_one_level_whatever_dtype_they_come_in():
    encoder = one([1, 2], dtype=np.int32)[1].fit(one([1, 2], dtype=np.int32)[0])
    expected = [[0, 0, 1, 0], [0, 0, 0, 1]]
    for dtype in (np.int64, np.uint8, np.float64, "Int64", "Float64", object, "category"):
        assert encoder.transform(one([1, 2], dtype=dtype)[0]).toarray().tolist() == expected
    for cells in (["1", "2"], [True, False], [1.5, 2.5]):
        assert encoder.transform(one(cells)[0]).toarray().tolist() == [[1, 0, 0, 0]] * 2


def test_an_instant_is_one_level_in_every_time_zone_and_unit():
    stamps = pd.DatetimeIndex(["2024-10-27 00:30", "2024-10-27 01:30"], tz="UTC")  # 02:30 twice in Paris
    encoder = one(stamps)[1].fit(one(stamps.tz_convert("Europe/Paris"))[0])
    for other in (
        stamps.as_unit("ns"),
        stamps.as_unit("s"),
        stamps.tz_convert("Asia/Tokyo"),
        list(stamps),
    ):
        assert encoder.transform(one(other)[0]).indices.tolist() == [2, 3]
    with pytest.warns(UserWarning, match="datetimes with a time zone and datetimes without a time zone never match"):
        assert encoder.transform(one(stamps.tz_localize(None))[0]).indices.tolist() == [0, 0]


def test_levels_stand_in_the_order_of_first_appearance():
    frame, encoder = one(["b", "a", "b", "c"], dtype=pd.CategoricalDtype(["a", "b", "c", "unused"]))
    assert encoder.fit(frame).get_feature_names_out().tolist() == [
        "c=<unknown>",
        "c=<missing>",
        "c=b",
        "c=a",
        "c=c",
    ]


def test_the_order_of_the_levels_of_sets_does_not_hang_on_hash_seeds():
    code = (
        "import pandas as pd; from sparsefm.encoders import *;"
        "f = pd.DataFrame({'c': [{'x', 'y', 'z', 'w'}, {'v', 'u'}]});"
        "print(FrameEncoder({'c': MultiHot()}).fit(f).get_feature_names_out())"
    )
    root = os.path.dirname(os.path.dirname(encoders.__path__[0]))
    printed = set()
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": root}
        printed.add(subprocess.check_output([sys.executable, "-c", code], env=environment))
    assert len(printed) == 1


def test_names_tell_levels_apart_that_look_alike():
    frame, encoder = one([1, "1", "<unknown>", True, "True"], dtype=object)
    names = encoder.fit(frame).get_feature_names_out().tolist()
    assert names[2:] == ["c=1", "c='1'", "c='<unknown>'", "c=True", "c='True'"]


def test_read_only_columns_are_read():
    values = np.array([1.0, 2.0, np.nan])
    values.flags.writeable = False
    frame = pd.DataFrame({"a": values, "b": values}, copy=False)
    assert FrameEncoder({"a": OneHot(), "b": Numeric()}).fit_transform(frame).shape == (3, 6)


# Unknown and missing ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoder", [OneHot, MultiHot])
def test_an_unknown_level_goes_where_the_policy_says(encoder):
    several = encoder is MultiHot
    train, test = (one([[v] for v in cells] if several else cells)[0] for cells in (["a", "b"], ["b", "z"]))
    for policy, width, row in (("bucket", 4, [1, 0, 0, 0]), ("ignore", 3, [0, 0, 0])):
        fitted = FrameEncoder({"c": encoder(unknown=policy)}).fit(train)
        assert fitted.n_features_out_ == width
        assert fitted.transform(test).toarray()[1].tolist() == row
        assert fitted.unknown_report_.loc["c"].tolist() == [0.5, 0.0]
    fitted = FrameEncoder({"c": encoder(unknown="error")}).fit(train)
    many = one([[v] for v in range(7)] if several else list(range(7)))[0]
    with pytest.raises(ValueError, match=r"column 'c': 7 unknown level\(s\).*: 0, 1, 2, 3, 4, \.\.\."):
        fitted.transform(many)


@pytest.mark.parametrize("encoder", [OneHot(), MultiHot("|"), Numeric()])
def test_missing_cells_can_be_refused_in_fit_and_transform(encoder):
    cells, refusing = [1.5, None], type(encoder)(missing="error")
    if isinstance(encoder, MultiHot):
        cells, refusing = ["a", None], MultiHot("|", missing="error")
    with pytest.raises(ValueError, match=r"column 'c': 1 missing value\(s\)"):
        FrameEncoder({"c": refusing}).fit(one(cells)[0])
    fitted = FrameEncoder({"c": refusing}).fit(one(cells[:1])[0])
    with pytest.raises(ValueError, match=r"column 'c': 1 missing value\(s\)"):
        fitted.transform(one(cells)[0])


def test_rare_levels_of_the_training_data_train_the_bucket():
    frame, encoder = one(["a", "b", "a", "c"], OneHot(min_count=2))
    assert encoder.fit_transform(frame).indices.tolist() == [2, 0, 2, 0]
    assert encoder.unknown_report_.loc["c", "unknown"] == 0.5


def test_max_levels_keeps_the_most_frequent_and_of_equals_the_first():
    frame, encoder = one(["c", "b", "a", "b", "d"], OneHot(max_levels=2))
    assert encoder.fit(frame).get_feature_names_out().tolist()[2:] == ["c=c", "c=b"]


def test_the_report_holds_shares_by_column_of_the_last_transform():
    frame = pd.DataFrame({"u": ["a", "b", "a", None], "x": [1.0, None, 3.0, 4.0]})
    encoder = FrameEncoder({"u": OneHot(), "x": Numeric()})
    encoder.fit_transform(frame)
    assert encoder.unknown_report_.to_dict("list") == {"unknown": [0.0, 0.0], "missing": [0.25, 0.25]}
    assert (encoder.unknown_report_.dtypes == np.float32).all()
    encoder.transform(pd.DataFrame({"u": ["z", None]}), columns=["u"])
    assert encoder.unknown_report_.to_dict("index") == {"u": {"unknown": 0.5, "missing": 0.5}}
    encoder.transform(frame.head(0))
    assert encoder.unknown_report_["missing"].tolist() == [0.0, 0.0]


# MultiHot --------------------------------------------------------------------------------------------------


def test_the_levels_of_a_cell_share_one_unit_of_length():
    frame, encoder = one(["a|b|a", "", "b", None, "||"], MultiHot("|"))
    X = encoder.fit_transform(frame).toarray()
    half = np.float32(1 / math.sqrt(2))
    assert X.tolist() == [[0, 0, half, half], [0] * 4, [0, 0, 0, 1], [0, 1, 0, 0], [0] * 4]
    frame, encoder = one(["a|b|a"], MultiHot("|", weight=None))
    assert encoder.fit_transform(frame).toarray().tolist() == [[0, 0, 1, 1]]


def test_ignored_levels_do_not_count_and_unknown_ones_count_once():
    train, test = one([["a", "b"]])[0], one([["a", "x", "y"], ["x"]])[0]
    ignoring = FrameEncoder({"c": MultiHot(unknown="ignore", missing="ignore")}).fit(train)
    assert ignoring.transform(test).toarray().tolist() == [[1, 0], [0, 0]]
    bucket = FrameEncoder({"c": MultiHot(missing="ignore")}).fit(train)
    half = np.float32(1 / math.sqrt(2))
    assert bucket.transform(test).toarray().tolist() == [[half, half, 0], [1, 0, 0]]


@pytest.mark.parametrize("container", [list, tuple, set, frozenset, np.array])
def test_every_container_of_levels_is_read_alike(container):
    frame, encoder = one([container(["a"]), container(["b", "a"])], MultiHot(missing="ignore", unknown="ignore"))
    X = encoder.fit_transform(frame)
    assert X.sum(axis=1) == pytest.approx([1, math.sqrt(2)])
    assert encoder.inverse_transform(X)["c"].tolist() == [["a"], ["a", "b"]]


def test_text_of_every_dtype_is_split():
    for dtype in (object, "str", "string", "category"):
        frame, encoder = one(["b|a", None, "", "b|a"], MultiHot("|"), dtype=dtype)
        X = encoder.fit_transform(frame)
        assert X.indices.tolist() == [2, 3, 1, 2, 3]
        assert encoder.inverse_transform(X)["c"].tolist() == ["b|a", None, "", "b|a"]


@pytest.mark.parametrize(
    "cells, encoder, message",
    [
        ([["a"], "a|b"], MultiHot(), "name the separator of text as sep"),
        ([3, 4], MultiHot("|"), r"list, tuple, set or 1-d array, or text with '\|', got int 3"),
        ([np.ones((2, 2))], MultiHot(), "got ndarray"),
        ([["a", ["b"]]], MultiHot(), r"column 'c'.*got list \['b'\]"),
        ([["a"], ["b"]], OneHot(), r"column 'c'.*got list \['a'\] \(several levels in a cell: MultiHot\)"),
        ([("a", 1)], OneHot(), "column 'c'.*got tuple"),
        ([{"a": 1}, "b"], OneHot(), "column 'c'.*got dict"),
        ([b"a"], OneHot(), "column 'c'.*got bytes b'a'"),
        ([dt.timedelta(1)], OneHot(), "column 'c'.*got (Timed|timed)elta"),
        ([1j], OneHot(), "column 'c'.*got complex"),
        ([2**1024], OneHot(), "column 'c'.*got int 1797"),
        ([dt.datetime(2024, 1, 1), "a"], OneHot(), "column 'c' mixes datetimes"),
        ([pd.Timestamp(0), pd.Timestamp(0, tz="UTC")], OneHot(), "column 'c' mixes datetimes"),
        (["1", "2"], Numeric(), "column 'c': numbers are needed"),
        ([1, "2"], Numeric(), "column 'c': numbers are needed"),
        (pd.to_datetime(["2024-01-01"]), Numeric(), "column 'c': numbers are needed"),
        ([1j], Numeric(), "column 'c': numbers are needed"),
    ],
)
def test_cells_that_cannot_be_read_are_named(cells, encoder, message):
    with pytest.raises(TypeError, match=message):
        FrameEncoder({"c": encoder}).fit(one(cells, dtype=object if isinstance(cells, list) else None)[0])


# Numeric ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.int8, np.float32, "Int64", "Float64", object, "category", bool])
def test_numbers_of_every_dtype_are_standardised(dtype):
    frame, encoder = one([0, 1, 1, 0], Numeric(), dtype=dtype)
    X = encoder.fit_transform(frame)
    assert X.toarray().ravel().tolist() == [-1, 1, 1, -1]
    assert encoder.inverse_transform(X)["c"].tolist() == [0, 1, 1, 0]
    assert encoder.inverse_transform(X)["c"].dtype == np.float32


def test_a_missing_number_is_the_mean_and_says_so_if_it_could_in_training():
    seen, unseen = one([1.0, np.nan, 3.0])[0], one([1.0, 3.0])[0]
    encoder = FrameEncoder({"c": Numeric()}).fit(seen)
    assert encoder.get_feature_names_out().tolist() == ["c", "c=<missing>"]
    assert encoder.transform(seen).toarray().tolist() == [[-1, 0], [0, 1], [1, 0]]
    assert encoder.inverse_transform(encoder.transform(seen))["c"].isna().tolist() == [False, True, False]
    for other in (
        FrameEncoder({"c": Numeric()}).fit(unseen),
        FrameEncoder({"c": Numeric(missing="ignore")}).fit(seen),
    ):
        assert other.get_feature_names_out().tolist() == ["c"]
        assert other.transform(seen).toarray().tolist() == [[-1], [0], [1]]


@pytest.mark.parametrize("cells", [[0.1] * 7, [1e300, -1e300, 1e308], [1e-310, 2e-310], [2**53, 1.5]])
def test_numbers_of_any_size_are_standardised(cells):
    X = one(cells, Numeric())[1].fit_transform(one(cells)[0])
    values = X.toarray().ravel()
    assert np.isfinite(values).all()
    assert np.abs(values.mean()) < 1e-6
    assert values.std() == pytest.approx(0 if len(set(cells)) == 1 else 1, rel=1e-5)


def test_numbers_that_no_float32_holds_are_refused():
    with pytest.raises(ValueError, match=r"column 'c': 2 infinite value\(s\)"):
        one([1.0], Numeric())[1].fit(one([1.0, math.inf, -math.inf])[0])
    with pytest.raises(ValueError, match=r"column 'c': 1e\+39 is too large for float32"):
        one([1.0], Numeric(None))[1].fit(one([1.0, 1e39])[0])
    with pytest.raises(ValueError, match="column 'c': numbers must fit in float64"):
        one([1.0], Numeric())[1].fit(one([10**400], dtype=object)[0])


# The frame -------------------------------------------------------------------------------------------------


@pytest.fixture
def ratings():
    return pd.DataFrame(
        {
            "user_id": [196, 186, 196, 22],
            "title": ["Marble", "Quarry", "Quarry", None],
            "genres": ["Comedy|Drama", "Action", "", None],
            "age": [49.0, 39.0, np.nan, 25.0],
            "rating": [3, 3, 1, 5],
        }
    )


@pytest.fixture
def specification():
    return {"user_id": OneHot(), "genres": MultiHot(sep="|"), "age": Numeric()}


def test_fields_names_and_widths_agree(ratings, specification):
    encoder = FrameEncoder(specification).fit(ratings)
    assert encoder.fields_.dtype == np.int32
    assert encoder.fields_.tolist() == [0] * 5 + [1] * 5 + [2] * 2
    assert encoder.field_names_ == ["user_id", "genres", "age"]
    assert encoder.feature_names_in_.tolist() == ["user_id", "genres", "age"]
    assert (encoder.n_features_in_, encoder.n_features_out_) == (3, 12)
    assert encoder.get_feature_names_out().tolist()[4:8] == [
        "user_id=22",
        "genres=<unknown>",
        "genres=<missing>",
        "genres=Comedy",
    ]


def test_columns_are_found_by_name(ratings, specification):
    encoder = FrameEncoder(specification)
    X = encoder.fit_transform(ratings)
    assert_same(encoder.transform(ratings[["age", "genres", "user_id"]]), X)
    with pytest.raises(ValueError, match=r"column\(s\) 'age' not in the input; it has 'user_id', 'genres'"):
        encoder.transform(ratings[["user_id", "genres"]])


def test_a_frame_of_some_columns_leaves_the_other_fields_empty(ratings, specification):
    encoder = FrameEncoder(specification)
    X = encoder.fit_transform(ratings)
    user = encoder.transform(ratings[["user_id"]], columns=["user_id"])
    item = encoder.transform(ratings[["age", "genres"]], columns={"age", "genres"})
    assert user.shape == item.shape == X.shape
    assert set(encoder.fields_[user.indices]) == {0}
    assert_same((user + item).tocsr(), X)
    assert encoder.transform(ratings, columns=()).nnz == 0
    with pytest.raises(ValueError, match=r"not among the encoded columns: \['rating'\]"):
        encoder.transform(ratings, columns=["rating"])
    with pytest.raises(TypeError, match="collection of column names"):
        encoder.transform(ratings, columns="user_id")


def test_no_rows_make_an_empty_matrix(ratings, specification):
    encoder = FrameEncoder(specification).fit(ratings)
    X = encoder.transform(ratings.head(0))
    assert_well_formed(X, encoder)
    assert X.shape == (0, 12)
    assert encoder.inverse_transform(X).shape == (0, 3)


def test_the_inverse_is_exact_for_levels_and_keeps_their_type(ratings, specification):
    encoder = FrameEncoder({**specification, "title": OneHot()})
    back = encoder.inverse_transform(encoder.fit_transform(ratings))
    assert back["user_id"].tolist() == [196, 186, 196, 22]
    assert back["user_id"].dtype == np.int64
    assert back["genres"].tolist() == ["Comedy|Drama", "Action", "", None]
    assert back["title"].isna().tolist() == [False, False, False, True]
    np.testing.assert_array_equal(back["age"].to_numpy(), ratings["age"].to_numpy(np.float32))
    unknown = encoder.transform(ratings.assign(user_id=[196, 7, 196, None]))
    assert encoder.inverse_transform(unknown)["user_id"].tolist() == [196, None, 196, None]
    assert type(encoder.inverse_transform(unknown)["user_id"][0]) is int
    assert encoder.inverse_transform(unknown.toarray()).equals(encoder.inverse_transform(unknown))


def test_the_inverse_refuses_what_it_did_not_make(ratings, specification):
    encoder = FrameEncoder(specification).fit(ratings)
    with pytest.raises(ValueError, match="X has 3 columns, the encoder made 12"):
        encoder.inverse_transform(np.ones((1, 3)))
    with pytest.raises(ValueError, match="column 'user_id': row 0 has several levels"):
        encoder.inverse_transform(np.ones((1, 12)))


@pytest.mark.parametrize(
    "columns, message",
    [
        ({}, "non-empty dict"),
        (["user_id"], "non-empty dict"),
        ({"user_id": "onehot"}, "column 'user_id' needs an encoder such as OneHot"),
        ({"user_id": OneHot}, "column 'user_id' needs an encoder such as OneHot"),
        ({3: OneHot()}, "column names must be str, got int 3"),
        ({"nobody": OneHot()}, r"column\(s\) 'nobody' not in the input; it has 'user_id', 'title'"),
        ({"user_id": OneHot(unknown="drop")}, "column 'user_id': unknown must be one of"),
        ({"user_id": OneHot(missing=None)}, "column 'user_id': missing must be one of"),
        (
            {"user_id": OneHot(min_count=0)},
            "column 'user_id': min_count must be an integer above 0, got 0",
        ),
        ({"user_id": OneHot(max_levels=2.5)}, "max_levels must be an integer"),
        ({"user_id": OneHot(min_count=True)}, "min_count must be an integer"),
        ({"user_id": OneHot(min_count=2, unknown="error")}, "would refuse the rare levels"),
        ({"user_id": OneHot(max_levels=2, unknown="error")}, "would refuse the rare levels"),
        ({"genres": MultiHot("")}, "sep must be a non-empty string"),
        ({"genres": MultiHot("|", weight="mean")}, "weight must be one of"),
        ({"age": Numeric("minmax")}, "scale must be one of"),
        ({"age": Numeric(missing="bucket")}, "missing must be one of"),
    ],
)
def test_a_wrong_specification_is_refused_in_fit(ratings, columns, message):
    with pytest.raises(ValueError, match=message):
        FrameEncoder(columns).fit(ratings)


def test_wrong_frames_are_refused(ratings, specification):
    encoder = FrameEncoder(specification)
    with pytest.raises(NotFittedError):
        encoder.transform(ratings)
    with pytest.raises(ValueError, match="the frame repeats 'age'"):
        encoder.fit(pd.concat([ratings, ratings[["age"]]], axis=1))
    with pytest.raises(ValueError, match=r"shape \(0, 5\), a minimum of 1 row"):
        encoder.fit(ratings.head(0))
    with pytest.raises(ValueError, match="y must have one value for each of the 4 rows"):
        encoder.fit(ratings, [1, 2])
    with pytest.raises(TypeError, match=r"[Ss]parse"):
        encoder.fit(sparse.csr_array(np.eye(3)))
    with pytest.raises(ValueError, match=r"'user_id', 'genres', 'age' not in the input; it has 'x0', 'x1', 'x2'"):
        encoder.fit(np.eye(3))


def test_specifications_compare_print_and_clone(specification):
    assert OneHot(min_count=2) == OneHot(min_count=2) != OneHot()
    assert eval(repr(MultiHot("|", weight=None))) == MultiHot("|", weight=None)
    copy = clone(FrameEncoder(specification))
    assert copy.columns == specification
    assert copy.columns is not specification
    assert "MultiHot(sep='|'" in repr(copy)


def test_a_fitted_encoder_keeps_nothing_in_its_specification(ratings, specification):
    before = {name: repr(encoder) for name, encoder in specification.items()}
    FrameEncoder(specification).fit(ratings)
    assert {name: repr(encoder) for name, encoder in specification.items()} == before


def test_an_encoder_survives_pickling(ratings, specification):
    encoder = FrameEncoder(specification)
    X = encoder.fit_transform(ratings)
    assert_same(pickle.loads(pickle.dumps(encoder)).transform(ratings), X)


# Chosen by dtype -------------------------------------------------------------------------------------------


def kinds(encoder):
    return [type(column.encoder).__name__ for column in encoder.columns_.values()]


def test_dtypes_choose_the_encoders_when_no_columns_are_named(ratings):
    frame = ratings[["title", "age"]].assign(old=[True, False, True, True])
    frame["genre"] = pd.Categorical(["a", "b", "a", None])
    encoder = FrameEncoder().fit(frame)
    assert kinds(encoder) == ["OneHot", "Numeric", "OneHot", "OneHot"]
    assert encoder.feature_names_in_.tolist() == ["title", "age", "old", "genre"]
    assert kinds(FrameEncoder().fit(ratings[["rating", "age"]])) == ["Numeric", "Numeric"]
    assert kinds(FrameEncoder().fit(ratings[["rating"]].to_numpy())) == ["Numeric"]


def test_an_integer_beside_categories_is_asked_about(ratings):
    with pytest.raises(ValueError, match=r"'user_id', 'rating' beside.*is 'user_id' an id \(OneHot\) or a number"):
        FrameEncoder().fit(ratings)
    with pytest.raises(ValueError, match="column 'day' has dtype datetime64"):
        FrameEncoder().fit(pd.DataFrame({"day": pd.to_datetime(["2024-01-01"])}))


def test_arrays_have_columns_x0_x1():
    X = np.array([["a", 1.5], ["b", 2.5]], dtype=object)
    encoder = FrameEncoder().fit(X)
    assert kinds(encoder) == ["OneHot", "Numeric"]
    assert encoder.get_feature_names_out().tolist()[2:] == ["x0=a", "x0=b", "x1"]
    assert not hasattr(encoder, "feature_names_in_")
    named = FrameEncoder({"x1": OneHot()}).fit(np.array([["a", "b"], ["c", "d"]]))
    assert named.get_feature_names_out().tolist()[2:] == ["x1=b", "x1=d"]
    assert named.get_feature_names_out(["word"]).tolist()[2:] == ["word=b", "word=d"]
    assert FrameEncoder().fit(pd.DataFrame(np.eye(2))).field_names_ == ["x0", "x1"]


CHECKS = list(estimator_checks_generator(FrameEncoder()))


@pytest.mark.filterwarnings("ignore")  # several checks warn on purpose
@pytest.mark.parametrize("estimator, check", CHECKS, ids=[check.func.__name__ for _, check in CHECKS])
def test_scikit_learn_checks_pass(estimator, check):
    check(estimator)


def test_it_stands_in_a_pipeline(ratings, specification):
    pipeline = make_pipeline(FrameEncoder(specification), MaxAbsScaler())
    assert pipeline.fit_transform(ratings).dtype == np.float32
    assert len(pipeline[:1].get_feature_names_out()) == 12


def test_it_stands_in_a_column_transformer(ratings, specification):
    encoder = FrameEncoder(specification)
    beside = ColumnTransformer([("ids", encoder, ["user_id", "genres", "age"]), ("rest", "passthrough", ["rating"])])
    X = sparse.csr_array(beside.fit_transform(ratings))
    assert_same(X[:, :-1], encoder.fit_transform(ratings))
    names = [f"ids__{name}" for name in encoder.get_feature_names_out()]
    assert beside.get_feature_names_out().tolist() == [*names, "rest__rating"]


# State -----------------------------------------------------------------------------------------------------


def test_a_restored_encoder_is_the_same_encoder(ratings, specification):
    encoder = FrameEncoder(specification)
    X = encoder.fit_transform(ratings)
    restored = through_state(encoder)
    assert_same(restored.transform(ratings), X)
    assert restored.columns == specification
    assert restored.field_names_ == encoder.field_names_
    assert restored.feature_names_in_.tolist() == encoder.feature_names_in_.tolist()
    np.testing.assert_array_equal(restored.fields_, encoder.fields_)
    assert restored.inverse_transform(X).equals(encoder.inverse_transform(X))
    assert json.dumps(restored.to_state()[0]) == json.dumps(encoder.to_state()[0])
    assert through_state(FrameEncoder().fit(np.eye(2))).columns is None
    assert FrameEncoder.from_state(*encoder.to_state()).unknown_report_.empty


def test_numpy_integers_in_options_become_json():
    encoder = FrameEncoder({"c": OneHot(min_count=np.int64(1))}).fit(one(["a"])[0])
    assert json.loads(json.dumps(encoder.to_state()[0]))["columns"][0]["options"]["min_count"] == 1


def example_state():
    frame = pd.DataFrame(
        {
            "ids": [3, 1, 2],
            "words": ["a", "üb", "c"],
            "mixed": pd.Series([1, "1", True], dtype=object),
            "when": pd.to_datetime(["2024-01-01", "2024-01-02", None]).tz_localize("Europe/Paris"),
            "tags": ["a|b", "b", None],
            "x": [1.0, None, 2.0],
        }
    )
    columns = {name: OneHot() for name in ["ids", "words", "mixed", "when"]}
    meta, arrays = FrameEncoder({**columns, "tags": MultiHot("|"), "x": Numeric()}).fit(frame).to_state()
    return frame, json.loads(json.dumps(meta)), arrays


def spots(node, path=()):
    """The path of every node of a JSON tree."""
    yield path
    for step, child in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
        yield from spots(child, (*path, step))


JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.just(10**400),
    st.floats(),
    st.text(max_size=4),
    st.sampled_from(
        ["int", "str", "mixed", "datetime", "ns", "UTC", "../../etc/passwd", "dateutil//etc/hosts", "Numeric"]
    ),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)


def damage(data, meta, arrays):
    """Change an entry or an array of a state, or two."""
    for _ in range(data.draw(st.integers(1, 2))):
        if data.draw(st.booleans()):
            path = data.draw(st.sampled_from(list(spots(meta))[1:]))
            node = meta
            try:
                for step in path[:-1]:
                    node = node[step]
                if isinstance(node, dict) and data.draw(st.booleans()):
                    node[data.draw(st.text(max_size=3))] = node.pop(path[-1])
                else:
                    node[path[-1]] = data.draw(JUNK)
            except (TypeError, KeyError, IndexError):
                pass
        elif arrays:
            name = data.draw(st.sampled_from(sorted(arrays)))
            array = arrays[name].copy() if isinstance(arrays[name], np.ndarray) else np.zeros(1)
            change = data.draw(st.integers(0, 6))
            if change == 0:
                del arrays[name]
            elif change == 1:
                arrays[data.draw(st.text(max_size=4))] = array
            elif change == 2:
                arrays[name] = data.draw(st.sampled_from([array[:-1], array[::-1], np.append(array, array), array[:0]]))
            elif change == 3:
                arrays[name] = data.draw(st.sampled_from([array.astype(float), array[None], None, array.tolist()]))
            elif change == 4 and array.ndim == 1 and array.size and array.dtype.kind == "i":
                extreme = st.sampled_from([-(2**63), 2**63 - 1, -1, 2**40, 253402300800 * 10**6])
                array[data.draw(st.integers(0, array.size - 1))] = data.draw(st.one_of(st.integers(-9, 9), extreme))
                arrays[name] = array
            elif array.ndim == 1 and array.size and array.dtype == np.uint8:
                array[data.draw(st.integers(0, array.size - 1))] = data.draw(st.integers(0, 255))
                arrays[name] = array


@settings(QUICK, max_examples=400)
@given(st.data())
def test_a_damaged_state_is_a_value_error_or_a_working_encoder(data):
    frame, meta, arrays = example_state()
    damage(data, meta, arrays)
    try:
        encoder = FrameEncoder.from_state(meta, arrays)
    except ValueError:
        return
    encoder.get_feature_names_out()
    names = [name for name in encoder.field_names_ if name in frame]
    try:
        X = encoder.transform(frame, columns=names)
    except (ValueError, TypeError, UserWarning) as error:  # a policy or an encoder that does not fit these cells
        named = any(repr(name) in str(error) for name in names)
    else:
        named = encoder.inverse_transform(X).shape == (3, len(encoder.field_names_))
    assert named


@pytest.mark.parametrize("meta", [None, [], {}, {"version": 2, "named": True, "chosen": False, "columns": []}])
def test_what_is_no_state_is_refused(meta):
    with pytest.raises(ValueError, match="state"):
        FrameEncoder.from_state(meta, {})


@pytest.mark.parametrize(
    "arrays, message",
    [
        ({"offsets": [0, 2, 1, 4]}, "offsets must rise"),
        ({"offsets": [0, 1, 3, 9]}, "offsets must rise"),
        ({"offsets": [1, 1, 3, 4]}, "offsets must rise"),
        ({"offsets": []}, "offsets must rise"),
        ({"bytes": [97, 255, 188, 98]}, "not UTF-8"),
        ({"bytes": [97, 98, 98, 97]}, "repeated level"),
        ({"extra": [1]}, "exactly the entries"),
    ],
)
def test_a_damaged_vocabulary_says_what_is_wrong(arrays, message):
    meta, good = Vocabulary(["a", "ü", "b"]).to_state()
    dtypes = {"bytes": np.uint8}
    arrays = {name: np.array(values, dtypes.get(name, np.int64)) for name, values in arrays.items()}
    if message == "repeated level":
        good["offsets"] = np.array([0, 1, 3, 4])
    with pytest.raises(ValueError, match=message):
        Vocabulary.from_state(meta, {**good, **arrays})


@QUICK
@given(st.lists(st.one_of(st.text(), st.integers(), st.booleans(), st.floats(allow_nan=False))))
def test_a_vocabulary_comes_back_from_its_state(cells):
    frame = pd.DataFrame({"c": pd.Series(cells, dtype=object)})
    if frame.empty:
        return
    vocabulary = FrameEncoder({"c": OneHot()}).fit(frame).columns_["c"].vocabulary
    meta, arrays = vocabulary.to_state()
    restored = Vocabulary.from_state(json.loads(json.dumps(meta)), arrays)
    assert [(type(level), level) for level in restored.levels] == [(type(v), v) for v in vocabulary.levels]
    assert restored.numbers(vocabulary.levels).tolist() == list(range(len(vocabulary)))
