"""`Binned`, `Hashed` and `Date` against a brute force, cell by cell, written from their definitions."""

import datetime as dt
import hashlib
import importlib.util
import math
from decimal import Decimal
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_encoders import assert_same, through_state

from sparsefm.encoders import Binned, Date, FrameEncoder, Hashed

QUICK = settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
NEEDS_ARROW = pytest.mark.skipif(importlib.util.find_spec("pyarrow") is None, reason="pyarrow is not installed")


def frame(cells, dtype=None):
    return pd.DataFrame({"c": pd.Series(cells, dtype=dtype)})


def encoder(specification):
    return FrameEncoder({"c": specification})


def names(fitted):
    return fitted.get_feature_names_out().tolist()


def rows(fitted, X):
    """Each row as a dict from column name to value."""
    labels = names(fitted)
    spans = pairwise(X.indptr.tolist())
    return [{labels[X.indices[k]]: float(X.data[k]) for k in range(a, b)} for a, b in spans]


def assert_sound(fitted, X):
    assert (X.data.dtype, X.indices.dtype, X.indptr.dtype) == (np.float32, np.int32, np.int32)
    assert X.shape[1] == fitted.n_features_out_
    for a, b in pairwise(X.indptr.tolist()):
        assert (np.diff(X.indices[a:b]) > 0).all()


@pytest.mark.parametrize("specification", [Binned(3), Hashed(4), Date()])
@pytest.mark.parametrize("missing", ["own", "ignore", "error"])
def test_missing(specification, missing):
    specification = type(specification)(missing=missing)
    cells = pd.to_datetime(["2020-01-01", None]) if isinstance(specification, Date) else [1.5, None]
    train = frame(pd.Series(cells))
    if missing == "error":
        with pytest.raises(ValueError, match=r"'c': 1 missing value.s., refused by missing='error'"):
            encoder(specification).fit(train)
        train = train[:1]
    fitted = encoder(specification).fit(train)
    assert ("c=<missing>" in names(fitted)[:2]) == (missing == "own")
    if missing != "error":
        X = fitted.transform(train)
        assert_sound(fitted, X)
        assert rows(fitted, X)[1] == ({"c=<missing>": 1.0} if missing == "own" else {})
        assert fitted.unknown_report_.loc["c"].tolist() == [0.0, 0.5]
        nothing = fitted.transform(train[1:])
        assert nothing.nnz == (missing == "own")


# Binned ------------------------------------------------------------------------------------------------------


def quantile_edges(n_bins, values):
    ordered = sorted(value for value in values if not pd.isna(value))
    picked = [ordered[k * len(ordered) // n_bins] for k in range(1, n_bins)] if ordered else []
    return sorted({edge for edge in picked if edge > ordered[0]})


def interval(edges, value):
    """The text of the bin, found by trying them all."""
    for low, high in pairwise([-math.inf, *edges, math.inf]):
        if low <= value < high:
            left = "(-inf" if low == -math.inf else f"[{low + 0.0:g}"
            return f"{left}, {high + 0.0:g})"  # + 0.0: no minus zero
    raise AssertionError(value)


NUMBERS = st.sampled_from([-3.0, -0.5, -0.0, 0.0, 0.25, 1.0, 2.0, 2.5, 7.0, 1e5, None, math.nan])


@QUICK
@given(
    st.lists(NUMBERS, min_size=1, max_size=40),
    st.lists(NUMBERS, min_size=1, max_size=10),
    st.integers(2, 6),
    st.sampled_from([None, (0.0,), (-0.5, 0.25, 2.5)]),
    st.integers(0, 40),
)
def test_binned_matches_the_definition(train, test, n_bins, edges, cut):
    specification = Binned(n_bins, edges=edges)
    fitted = encoder(specification).fit(frame(train, "float64"))
    inner = quantile_edges(n_bins, train) if edges is None else edges
    assert fitted.n_features_out_ == 2 + len(inner)
    expected = [None if pd.isna(value) else interval(inner, value) for value in test]
    X = fitted.transform(frame(test, "float64"))
    assert_sound(fitted, X)
    assert rows(fitted, X) == [{f"c={text or '<missing>'}": 1.0} for text in expected]
    decoded = fitted.inverse_transform(X)["c"]
    assert [None if pd.isna(text) else text for text in decoded] == expected
    chunks = [frame(part, "float64") for part in (train[:cut], train[cut:]) if part]
    chunked = encoder(specification).fit_stream(chunks)
    assert names(chunked) == names(fitted)
    assert_same(chunked.transform(frame(test, "float64")), X)
    loaded = through_state(fitted)
    assert names(loaded) == names(fitted)
    assert_same(loaded.transform(frame(test, "float64")), X)
    loaded.partial_fit(frame(test, "float64"))  # the edges are those of the first fit
    assert names(loaded) == names(fitted)


def test_quantile_bins_are_even():
    X = encoder(Binned(4, missing="ignore")).fit_transform(frame(np.random.default_rng(0).permutation(100)))
    assert X.sum(axis=0).tolist() == [25, 25, 25, 25]


def test_edges_belong_to_the_bin_on_their_right():
    fitted = encoder(Binned(edges=[20, 30])).fit(frame([0.0]))
    assert names(fitted) == ["c=<missing>", "c=(-inf, 20)", "c=[20, 30)", "c=[30, inf)"]
    below = [math.nextafter(20, 0), 20.0, math.nextafter(30, 0), 30.0]
    assert fitted.transform(frame(below)).indices.tolist() == [1, 2, 2, 3]


@pytest.mark.parametrize(
    "cells, dtype",
    [
        ([1, 2, 3, 4], "int8"),
        ([1, 2, 3, 4], "uint64"),
        ([1, 2, 3, 4], "Int64"),
        ([1, 2, 3, 4], "float32"),
        ([1, 2, 3, 4], "category"),
        ([1, 2, 3, 4], object),
        ([Decimal(n) for n in (1, 2, 3, 4)], object),
        ([2**60, 2**61, 2**62, 2**63], "uint64"),
        ([2**60, 2**61, 2**62, 2**64], object),
        pytest.param([1, 2, 3, 4], "int64[pyarrow]", marks=NEEDS_ARROW),
    ],
)
def test_binned_numbers_of_any_type(cells, dtype):
    assert encoder(Binned(2)).fit_transform(frame(cells, dtype)).indices.tolist() == [1, 1, 2, 2]


def test_binned_booleans():
    assert encoder(Binned()).fit_transform(frame([True, False, True])).indices.tolist() == [2, 1, 2]


@pytest.mark.parametrize("train", [[None, None], [5.0, 5.0]])
def test_one_bin_where_nothing_differs(train):
    fitted = encoder(Binned()).fit(frame(train, "float64"))
    assert names(fitted) == ["c=<missing>", "c=(-inf, inf)"]


@pytest.mark.parametrize(
    "options, message",
    [
        ({"n_bins": 1}, "n_bins must be an integer from 2"),
        ({"n_bins": True}, "n_bins must be"),
        ({"edges": ()}, "edges must be finite numbers that rise"),
        ({"edges": [1, 1]}, "edges must be"),
        ({"edges": [2, 1]}, "edges must be"),
        ({"edges": [0, math.inf]}, "edges must be"),
        ({"edges": [math.nan]}, "edges must be"),
        ({"edges": "12"}, "edges must be"),
        ({"edges": 3}, "edges must be"),
        ({"edges": [None]}, "edges must be"),
        ({"missing": "drop"}, "missing must be one of"),
    ],
)
def test_binned_wrong_options(options, message):
    with pytest.raises(ValueError, match=f"'c': {message}"):
        encoder(Binned(**options)).fit(frame([1.0, 2.0]))


def test_binned_refuses_what_has_no_bin():
    with pytest.raises(TypeError, match="'c'"):
        encoder(Binned()).fit(frame(["1", "2"]))
    with pytest.raises(ValueError, match="'c': 1 infinite"):
        encoder(Binned()).fit(frame([1.0, math.inf]))


# Hashed ------------------------------------------------------------------------------------------------------


def hashed(text, n_bits):
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") % 2**n_bits


GOLDEN = {"196": 243426, "Toy Story": 25312, "ü": 127317}  # with 18 bits


def test_hashed_columns_are_for_ever():
    """The values were worked out once with hashlib: a change of the hash would break models on disk."""
    for text, column in GOLDEN.items():
        assert hashed(text, 18) == column
    fitted = encoder(Hashed(missing="ignore")).fit(frame(["anything"]))
    assert fitted.transform(frame(list(GOLDEN))).indices.tolist() == list(GOLDEN.values())


LEVELS = st.one_of(
    st.text(max_size=5).filter(lambda text: text.isprintable()),
    st.integers(-(10**20), 10**20),
    st.booleans(),
    st.sampled_from([0.5, 1.0, -0.0, 1e300, math.inf, None, math.nan]),
)


@QUICK
@given(st.lists(LEVELS, min_size=1, max_size=12), st.sampled_from([1, 3, 16]))
def test_hashed_matches_the_definition(cells, n_bits):
    fitted = encoder(Hashed(n_bits)).fit(frame(["other"]))
    X = fitted.transform(frame(cells, object))
    assert X.shape == (len(cells), 2**n_bits + 1)
    expected = []
    for cell in cells:
        whole = isinstance(cell, float) and cell.is_integer()
        expected.append(0 if pd.isna(cell) else hashed(str(int(cell) if whole else cell), n_bits) + 1)
    assert X.indices.tolist() == expected
    assert (X.data == 1).all()
    assert_same(through_state(fitted).partial_fit(frame(cells, object)).transform(frame(cells, object)), X)


@pytest.mark.parametrize(
    "cells, dtype, texts",
    [
        ([1, 2], "int8", ["1", "2"]),
        ([1.0, 2.5], "float64", ["1", "2.5"]),
        ([1, None], "Int64", ["1", None]),
        (["a", None], "str", ["a", None]),
        (["a", None], "category", ["a", None]),
        ([True, False], "bool", ["True", "False"]),
        ([dt.datetime(2020, 1, 2)], "M8[s]", ["2020-01-02T00:00:00"]),
        ([dt.datetime(2020, 1, 2, 3, 4, 5, 6)], "M8[ns]", ["2020-01-02T03:04:05.000006"]),
        (pd.to_datetime(["2020-01-02"]).tz_localize("Asia/Tokyo"), None, ["2020-01-01T15:00:00+00:00"]),
        pytest.param([1, None], "int64[pyarrow]", ["1", None], marks=NEEDS_ARROW),
    ],
)
def test_hashed_levels_of_any_type(cells, dtype, texts):
    X = encoder(Hashed(10)).fit_transform(frame(cells, dtype))
    assert X.indices.tolist() == [0 if text is None else hashed(text, 10) + 1 for text in texts]


def test_hashed_labels_and_no_way_back():
    fitted = encoder(Hashed(2)).fit(frame(["a"]))
    assert names(fitted) == ["c=<missing>", "c=#0", "c=#1", "c=#2", "c=#3"]
    assert fitted.inverse_transform(fitted.transform(frame(["a"]))).shape[1] == 0


@pytest.mark.parametrize("n_bits", [0, 25, 2.5, True, "18"])
def test_hashed_wrong_options(n_bits):
    with pytest.raises(ValueError, match="'c': n_bits must be an integer from 1 to 24"):
        encoder(Hashed(n_bits)).fit(frame(["a"]))


def test_hashed_refuses_lists():
    with pytest.raises(TypeError, match="'c'"):
        encoder(Hashed()).fit(frame([["a"], ["b"]]))


# Date --------------------------------------------------------------------------------------------------------

WEEKDAYS = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]


def date_parts(specification, years, stamp):
    """The row of a datetime, by Python's own calendar."""
    if pd.isna(stamp):
        return {"c=<missing>": 1.0}
    values = {
        "year": f"year {stamp.year}" if stamp.year in years else "<unknown>",
        "quarter": f"quarter {(stamp.month + 2) // 3}",
        "month": f"month {stamp.month}",
        "day": f"day {stamp.day}",
        "weekday": f"weekday {WEEKDAYS[stamp.weekday()]}",
        "hour": f"hour {stamp.hour}",
    }
    weight = float(np.float32(1 / math.sqrt(len(specification.parts))))
    return {f"c={values[part]}": weight for part in specification.parts}


STAMPS = st.one_of(st.none(), st.datetimes(dt.datetime(1965, 1, 1), dt.datetime(1975, 12, 31, 23)))
PARTS = st.permutations(["year", "quarter", "month", "day", "weekday", "hour"])


@QUICK
@given(
    st.lists(STAMPS, min_size=1, max_size=12),
    st.lists(STAMPS, min_size=1, max_size=12),
    PARTS,
    st.integers(1, 6),
    st.sampled_from(["M8[us]", "M8[ns]", "M8[s]", object]),
    st.sampled_from([None, "America/New_York"]),
    st.integers(0, 12),
)
def test_date_matches_the_definition(train, test, order, n_parts, dtype, zone, cut):
    def made(stamps):
        cells = pd.Series(stamps, dtype="M8[us]")
        return frame(cells.dt.tz_localize("UTC").dt.tz_convert(zone) if zone else cells.astype(dtype))

    specification = Date(tuple(order[:n_parts]))
    fitted = encoder(specification).fit(made(train))
    years = [stamp.year for stamp in made(train)["c"] if not pd.isna(stamp)] if "year" in specification.parts else []
    X = fitted.transform(made(test))
    assert_sound(fitted, X)
    assert rows(fitted, X) == [date_parts(specification, years, stamp) for stamp in made(test)["c"]]
    chunked = encoder(specification).fit_stream([made(part) for part in (train[:cut], train[cut:]) if part])
    assert names(chunked) == names(fitted)
    loaded = through_state(fitted)
    assert_same(loaded.transform(made(test)), X)
    loaded.partial_fit(made(test))
    grown = years + (
        [stamp.year for stamp in made(test)["c"] if not pd.isna(stamp)] if years or "year" in order[:n_parts] else []
    )
    assert names(loaded)[: len(names(fitted))] == names(fitted)
    assert names(loaded)[len(names(fitted)) :] == [
        f"c=year {year}" for year in dict.fromkeys(grown) if year not in years
    ]
    Y = loaded.transform(made(test))
    assert rows(loaded, Y) == [date_parts(specification, grown, stamp) for stamp in made(test)["c"]]


def test_date_layout():
    fitted = encoder(Date(["year", "weekday"])).fit(frame(pd.to_datetime(["2021-03-01", "2020-03-01"])))
    expected = ["<unknown>", "<missing>", *(f"weekday {day}" for day in WEEKDAYS), "year 2021", "year 2020"]
    assert names(fitted) == [f"c={label}" for label in expected]
    late = fitted.transform(frame(pd.to_datetime(["1999-01-01", None, "2020-01-01"])))
    np.testing.assert_allclose(fitted.unknown_report_.loc["c"], [1 / 3, 1 / 3])
    assert fitted.inverse_transform(late).shape[1] == 0


@pytest.mark.parametrize("dtype", ["category", "object", "timestamp[us][pyarrow]", "date32[pyarrow]"])
def test_datetimes_of_any_type(dtype):
    if "pyarrow" in dtype:
        pytest.importorskip("pyarrow", reason="an extra: sparsefm[arrow]")
    cells = pd.Series(pd.to_datetime(["2020-02-29", None])).astype(dtype)
    fitted = encoder(Date(("month",))).fit(frame(cells))
    assert rows(fitted, fitted.transform(frame(cells))) == [{"c=month 2": 1.0}, {"c=<missing>": 1.0}]


def test_years_counted_but_not_settled_are_not_in_use():
    """A `partial_fit` that another column breaks off leaves them behind."""
    fitted = encoder(Date()).fit(frame(pd.to_datetime(["2020-01-01"])))
    more = frame(pd.to_datetime(["2021-01-01"]))
    before = fitted.transform(more)
    column = fitted.columns_["c"]
    column.count(column.read(more), None)
    assert_same(fitted.transform(more), before)
    assert_same(through_state(fitted).transform(more), before)


@pytest.mark.parametrize(
    "cells, message",
    [
        (["2020-01-01"], "see pd.to_datetime"),
        ([1.5e9, 2], "unit='s'"),
        ([10**9], "unit='s'"),
        ([dt.date(2020, 1, 1)], "see pd.to_datetime"),
        ([pd.Timestamp("2020-01-01"), pd.Timestamp("2020-01-01", tz="UTC")], "one time zone"),
        ([True], "needs datetimes"),
    ],
)
def test_date_refuses_other_cells(cells, message):
    with pytest.raises(TypeError, match=f"'c': .*{message}"):
        encoder(Date()).fit(frame(cells))


@pytest.mark.parametrize("chosen", [(), ("minute",), ("year", "year"), "year", 3, (["year"],)])
def test_date_wrong_parts(chosen):
    with pytest.raises(ValueError, match="'c': parts must be some of"):
        encoder(Date(chosen)).fit(frame(pd.to_datetime(["2020-01-01"])))


# State from a file -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "specification, key, value",
    [
        (Binned(3), "edges", np.array([2.0, 1.0])),
        (Binned(3), "edges", np.array([1.0, 1.0])),
        (Binned(3), "edges", np.array([math.nan])),
        (Binned(3), "edges", np.array([math.inf])),
        (Binned(3), "edges", np.array([1.0, 2.0, 3.0])),
        (Binned(3), "edges", np.array([[1.0]])),
        (Binned(3), "edges", np.array([1, 2])),
        (Binned(3), "edges", None),
        (Binned(edges=[1.0]), "edges", np.array([2.0])),
        (Binned(3), "more", np.array([1.0])),
        (Hashed(3), "more", np.array([1.0])),
        (Date(), "years", np.array([2020, 2020])),
        (Date(), "years", np.array([2020.0])),
        (Date(), "years", None),
        (Date(), "more", np.array([1])),
        (Date(("month",)), "years", np.array([2020])),
    ],
)
def test_hostile_state(specification, key, value):
    train = pd.to_datetime(["2020-01-01", "2021-01-01"]) if isinstance(specification, Date) else [1, 2, 3]
    meta, arrays = encoder(specification).fit(frame(train)).to_state()
    FrameEncoder.from_state(meta, arrays)
    arrays = dict(arrays)
    if value is None:
        del arrays[f"0.{key}"]
    else:
        arrays[f"0.{key}"] = value
    with pytest.raises(ValueError):
        FrameEncoder.from_state(meta, arrays)
    meta["columns"][0]["state"] = {"more": 1}
    with pytest.raises(ValueError):
        FrameEncoder.from_state(meta, arrays)
