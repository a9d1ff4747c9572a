"""`History` against a brute force in plain Python, written from its definition."""

import importlib.util
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_encoders import assert_same, through_state

from sparsefm.encoders import FrameEncoder, History, MultiHot, Numeric, OneHot, history

QUICK = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
NEEDS_ARROW = pytest.mark.skipif(importlib.util.find_spec("pyarrow") is None, reason="pyarrow is not installed")


# The reference ---------------------------------------------------------------------------------------------


def reference(spec, fitted, frame):
    """Column levels, and each row of `frame` as a dict from level to weight, after fitting on `fitted`."""
    pairs = {}  # (by, of) -> its earliest time, in order of first appearance
    for row in fitted.to_dict("records"):
        user, item = row[spec.by], row[spec.of]
        if not pd.isna(user) and not pd.isna(item):
            time = row.get(spec.before)
            pairs[user, item] = time if (user, item) not in pairs or time is None else min(time, pairs[user, item])
    degree = {}
    for _, item in pairs:
        degree[item] = degree.get(item, 0) + 1
    columns = [item for item in degree if degree[item] >= spec.min_count]
    rows = []
    for row in frame.to_dict("records"):
        user, own = row[spec.by], None if spec.own else row.get(spec.of)
        seen = [(item, time) for (u, item), time in pairs.items() if u == user and item != own and item in columns]
        if spec.before is not None:
            seen = [(item, time) for item, time in seen if time < row[spec.before]]
            seen.sort(key=lambda pair: pair[1])  # stable: of equal times, the later row is the later
        items = [item for item, _ in seen]
        items = items if spec.last is None else items[-spec.last :]
        decay = 1 if spec.decay is None else spec.decay
        weights = [decay ** (len(items) - 1 - place) for place in range(len(items))]
        length = math.sqrt(sum(weight**2 for weight in weights))
        if spec.weight == "sym":
            rows.append({item: 1 / math.sqrt(len(items) * degree[item]) for item in items})
        else:
            rows.append({item: weight / length for item, weight in zip(items, weights, strict=True)})
    return columns, rows


def expected(spec, fitted, frame):
    columns, rows = reference(spec, fitted, frame)
    return np.array([[row.get(item, 0.0) for item in columns] for row in rows]).reshape(len(rows), len(columns))


def assert_matches(spec, fitted, frame, encoder, X):
    columns, _ = reference(spec, fitted, frame)
    assert list(encoder.get_feature_names_out()) == [f"seen={item}" for item in columns]
    np.testing.assert_allclose(X.toarray(), expected(spec, fitted, frame), rtol=1e-6)
    assert (X.data.dtype, X.indices.dtype, X.indptr.dtype) == (np.float32, np.int32, np.int32)
    for a, b in zip(X.indptr[:-1], X.indptr[1:], strict=True):
        assert (np.diff(X.indices[a:b]) > 0).all()


def assert_same_state(encoder, other):
    (meta, arrays), (other_meta, others) = encoder.to_state(), other.to_state()
    assert meta == other_meta
    assert arrays.keys() == others.keys()
    for key in arrays:
        assert arrays[key].dtype == others[key].dtype
        np.testing.assert_array_equal(arrays[key], others[key])


def assert_leaves_out_own(frame, encoder, X):
    """No row has an entry for its own item."""
    names = encoder.get_feature_names_out().tolist()
    dense = X.toarray()
    for row, item in enumerate(frame["item_id"]):
        if f"seen={item}" in names:
            assert dense[row, names.index(f"seen={item}")] == 0


def seen(**options):
    return FrameEncoder({"seen": History(**options)})


TIMES = {
    "int": st.integers(2**60, 2**60 + 4),  # one float64 for all of them
    "float": st.sampled_from([0.25, 0.5, 1.0, 2.0, 2.5, -1.0]),
    "naive": st.integers(0, 4).map(lambda n: pd.Timestamp("2020-01-01") + pd.Timedelta(n, "ns")),
    "aware": st.integers(0, 4).map(
        lambda n: pd.Timestamp("2020-03-29 01:30", tz="Europe/Berlin") + pd.Timedelta(n, "h")
    ),
}


@st.composite
def cases(draw):
    kind = draw(st.sampled_from(sorted(TIMES)))

    def frame(users, items, at_least):
        row = st.tuples(st.sampled_from(users), st.sampled_from(items), TIMES[kind])
        rows = draw(st.lists(row, min_size=at_least, max_size=25))
        user_id, item_id, time = zip(*rows, strict=True) if rows else ((), (), ())
        ids = {"user_id": pd.Series(user_id, dtype=object), "item_id": pd.Series(item_id, dtype=object)}
        return pd.DataFrame(ids | {"time": pd.Series(time, dtype={"int": "int64", "float": "float64"}.get(kind))})

    weight = draw(st.sampled_from(["sqrt", "sym"]))
    decay = draw(st.sampled_from([None, 0.5, 0.9, 1.0])) if weight == "sqrt" else None
    spec = History(
        last=draw(st.sampled_from([None, 1, 2, 3])),
        decay=decay,
        weight=weight,
        before=draw(st.sampled_from([None, "time"])),
        min_count=draw(st.sampled_from([1, 1, 2, 3])),
        own=draw(st.booleans()),
    )
    fitted = frame(["u", "v", "w", None], ["a", "b", "c", "d", "e", None], 1)
    more = frame(["u", "v", "x", None], ["a", "e", "f", "g", None], 1)
    return spec, fitted, more


@QUICK
@given(cases())
def test_matches_the_definition(case):
    spec, fitted, more = case
    encoder = FrameEncoder({"seen": spec})
    X = encoder.fit_transform(fitted)
    assert_matches(spec, fitted, fitted, encoder, X)
    Y = encoder.transform(more)
    assert_matches(spec, fitted, more, encoder, Y)
    if not spec.own:
        assert_leaves_out_own(fitted, encoder, X)
        assert_leaves_out_own(more, encoder, Y)
    assert encoder.inverse_transform(Y)["seen"].map(set).tolist() == [
        set(row) for row in reference(spec, fitted, more)[1]
    ]


@QUICK
@given(cases())
def test_small_batches_change_nothing(case):
    spec, fitted, more = case
    encoder = FrameEncoder({"seen": spec}).fit(fitted)
    whole = encoder.transform(more)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(history, "_BATCH", 3)
        assert_same(encoder.transform(more), whole)


@QUICK
@given(cases(), st.integers(0, 25))
def test_chunks_are_the_whole(case, cut):
    spec, fitted, more = case
    parts = [part for part in (fitted[:cut], fitted[cut:]) if len(part)]
    whole, chunked = (FrameEncoder({"seen": spec}) for _ in range(2))
    whole.fit(fitted)
    chunked.fit_stream(parts)
    assert_same_state(whole, chunked)
    assert_same(whole.transform(more), chunked.transform(more))


@QUICK
@given(cases())
def test_growth_and_state(case):
    spec, fitted, more = case
    encoder = FrameEncoder({"seen": spec}).fit(fitted)
    names = encoder.get_feature_names_out().tolist()
    loaded = through_state(encoder)
    assert_same(loaded.transform(more), encoder.transform(more))
    encoder.partial_fit(more)
    assert encoder.get_feature_names_out().tolist()[: len(names)] == names
    assert_same_state(loaded.partial_fit(more), encoder)
    assert_same_state(through_state(encoder), encoder)
    both = pd.concat([fitted, more], ignore_index=True)
    X = encoder.transform(both)
    columns = reference(spec, both, both)[0]
    grown = encoder.get_feature_names_out().tolist()
    assert sorted(grown) == sorted(f"seen={item}" for item in columns)
    order = [grown.index(f"seen={item}") for item in columns]
    np.testing.assert_allclose(X.toarray()[:, order], expected(spec, both, both), rtol=1e-6)


@QUICK
@given(cases())
def test_entities_are_the_rows_they_stand_for(case):
    spec, fitted, more = case
    columns = {"user_id": OneHot(), "seen": spec, "item_id": OneHot()}
    encoder, plain = FrameEncoder(columns), FrameEncoder(columns)
    made = encoder.fit_transform_blocks(fitted), plain.fit_transform(fitted)
    assert_parts_of(*made, spec)
    pd.testing.assert_frame_equal(encoder.unknown_report_, plain.unknown_report_)
    assert_same_state(encoder, plain)
    assert_parts_of(encoder.transform_blocks(more), plain.transform(more), spec)
    pd.testing.assert_frame_equal(encoder.unknown_report_, plain.unknown_report_)


def assert_parts_of(parts, whole, spec):
    rows, blocks = parts
    assert len(blocks) == (spec.own and spec.before is None)
    total = rows.toarray()
    for block in blocks:
        assert not total[:, block.columns].any()
        others = np.setdiff1d(np.arange(whole.shape[1]), block.columns)
        assert block.X[:, others].nnz == 0
        assert len(np.unique(block.of)) == block.X.shape[0]
        total = total + block.X[block.of].toarray()
    np.testing.assert_array_equal(total, whole.toarray())


def test_what_an_entity_has_in_all_its_rows_is_said_of_it():
    frame = pd.DataFrame({"user_id": list("uuuvv"), "item_id": list("abcab")})
    frame["age"], frame["mood"] = [30.0, 30.0, 30.0, 50.0, 50.0], list("+-+++")
    frame["genres"] = frame["item_id"].map({"a": "x|y", "b": "", "c": "y"})
    encoder = FrameEncoder(
        {
            "age": Numeric(),
            "seen": History(own=True),
            "mood": OneHot(),
            "user_id": OneHot(),
            "genres": MultiHot("|"),
            "by": History("item_id", "user_id", own=True),
            "item_id": OneHot(),
        }
    )
    rows, (users, items) = encoder.fit_transform_blocks(frame)
    of = [{encoder.field_names_[f] for f in encoder.fields_[block.columns]} for block in (users, items)]
    assert of == [{"age", "seen", "user_id"}, {"genres", "by", "item_id"}]
    assert set(encoder.fields_[rows.indices]) == {encoder.field_names_.index("mood")}
    assert (users.X.shape[0], items.X.shape[0]) == (2, 3)
    moved = frame.assign(age=[30.0, 31.0, 30.0, 50.0, 50.0])  # no longer a matter of the user alone
    rows, (users, _) = encoder.transform_blocks(moved)
    assert encoder.field_names_.index("age") not in encoder.fields_[users.columns]


# What a row may see of itself --------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"last": 2}, {"before": "time"}, {"decay": 0.5}, {"weight": "sym"}])
def test_a_row_that_saw_itself_would_be_noticed(monkeypatch, options):
    frame = pd.DataFrame({"user_id": list("uuuuvv"), "item_id": list("abcdab"), "time": [4, 3, 2, 1, 1, 2]})
    frame = pd.concat([frame, frame.assign(time=9)], ignore_index=True)  # every pair has happened before
    encoder = seen(**options)
    assert_leaves_out_own(frame, encoder, encoder.fit_transform(frame))
    assert_leaves_out_own(frame, encoder, encoder.transform(frame))

    def blind(self, user, cells):
        return np.full(len(user), self.size)

    monkeypatch.setattr(history._History, "_own", blind)
    for X in (encoder.transform(frame), seen(**options).fit_transform(frame)):
        with pytest.raises(AssertionError):
            assert_leaves_out_own(frame, encoder, X)


def test_one_side_of_a_request():
    frame = pd.DataFrame({"user_id": [1, 1, 2], "item_id": [10, 20, 20], "time": [1, 2, 3]})
    columns = {"user_id": OneHot(), "seen": History(), "watchers": History("item_id", "user_id")}
    encoder = FrameEncoder(columns)
    encoder.fit(frame)
    user = encoder.transform(pd.DataFrame({"user_id": [1, 7]}), columns=["seen"])
    names = encoder.get_feature_names_out().tolist()
    dense = user.toarray()
    np.testing.assert_allclose(dense[0, [names.index("seen=10"), names.index("seen=20")]], 1 / math.sqrt(2))
    assert dense[1].sum() == 0
    item = encoder.transform(pd.DataFrame({"item_id": [20]}), columns=["watchers"]).toarray()
    np.testing.assert_allclose(item[0, [names.index("watchers=1"), names.index("watchers=2")]], 1 / math.sqrt(2))
    timed = seen(before="time").fit(frame)
    assert timed.transform(pd.DataFrame({"user_id": [1], "time": [2]}), columns=["seen"]).toarray().tolist() == [[1, 0]]
    with pytest.raises(ValueError, match="time"):
        timed.transform(pd.DataFrame({"user_id": [1]}), columns=["seen"])


def test_report_tells_unknown_from_missing():
    encoder = seen().fit(pd.DataFrame({"user_id": ["u", "v"], "item_id": ["a", "b"]}))
    encoder.transform(pd.DataFrame({"user_id": ["u", "x", None, "y"], "item_id": ["z", "a", "a", None]}))
    assert encoder.unknown_report_.loc["seen"].tolist() == [0.5, 0.25]


def test_far_places_of_a_steep_decay_have_no_entry():
    frame = pd.DataFrame({"user_id": [1] * 200, "item_id": range(200)})
    X = seen(decay=0.1).fit_transform(frame)
    assert (X.data > 0).all()
    assert set(np.diff(X.indptr)) == {38}  # 0.1**37 is a normal float32, 0.1**38 is not
    np.testing.assert_allclose(np.sqrt(X.multiply(X).sum(axis=1)), 1, rtol=1e-6)


# Ids and times of every kind ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "dtype",
    ["int64", "Int64", "float64", "str", "category", "object", pytest.param("int64[pyarrow]", marks=NEEDS_ARROW)],
)
def test_ids_of_any_type(dtype):
    frame = pd.DataFrame({"user_id": pd.Series([1, 1, 2]).astype(dtype), "item_id": pd.Series([5, 6, 5]).astype(dtype)})
    X = seen().fit_transform(frame)
    assert X.toarray().tolist() == [[0, 1], [1, 0], [0, 0]]


STAMPS = pd.Series(pd.to_datetime(["2020-01-02", "2020-01-01", "2020-01-03"]))


@pytest.mark.parametrize(
    "times",
    [
        pd.Series([2, 1, 3]),
        pd.Series([2, 1, 3], dtype="Int64"),
        pd.Series([2, 1, 3], dtype="uint64"),
        pd.Series([2.0, 0.5, 1e300]).clip(upper=9e18),
        pd.Series([2, 1, 3], dtype=object),
        pd.Series([2, 1, 3], dtype="category"),
        STAMPS,
        STAMPS.astype("M8[s]"),
        STAMPS.astype(object),
        STAMPS.dt.tz_localize("Asia/Tokyo"),
        pytest.param(pd.Series([2, 1, 3]), marks=NEEDS_ARROW, id="arrow"),
    ],
)
def test_times_of_any_type(times, request):
    if request.node.callspec.id == "arrow":
        times = STAMPS.astype("timestamp[us][pyarrow]")
    frame = pd.DataFrame({"user_id": [1, 1, 1], "item_id": list("abc"), "time": times})
    encoder = seen(before="time")
    half = math.sqrt(0.5)
    np.testing.assert_allclose(encoder.fit_transform(frame).toarray(), [[0, 1, 0], [0, 0, 0], [half, half, 0]])
    assert_same(through_state(encoder).transform(frame), encoder.transform(frame))


@pytest.mark.parametrize("fitted, asked", [(2**53, 2**53 + 1), (0.5, 1), (1, 1.5), (3.0, 4)])
def test_times_are_compared_exactly(fitted, asked):
    encoder = seen(before="time").fit(
        pd.DataFrame({"user_id": [1, 2], "item_id": ["a", "b"], "time": [fitted, fitted]})
    )
    ask = pd.DataFrame({"user_id": [1, 1], "item_id": ["z", "z"], "time": pd.Series([fitted, asked])})
    counts = [encoder.transform(ask[i : i + 1].astype({"time": type(t)})).nnz for i, t in enumerate((fitted, asked))]
    assert counts == [0, 1]


def test_units_do_not_matter():
    late = pd.Series([pd.Timestamp("2020-01-01 00:00:00.000000001")])
    early = pd.Series(pd.to_datetime(["2020-01-01"])).astype("M8[s]")
    ids = {"user_id": [1], "item_id": ["a"]}
    encoder = seen(before="time").fit(pd.DataFrame(ids | {"time": early}))
    ask = {"user_id": [1], "item_id": ["b"]}
    assert encoder.transform(pd.DataFrame(ask | {"time": late})).nnz == 1
    assert encoder.transform(pd.DataFrame(ask | {"time": early})).nnz == 0


# Refusals ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options, message",
    [
        ({"by": 3}, "by must be the name"),
        ({"of": "user_id"}, "different columns"),
        ({"before": "item_id"}, "different columns"),
        ({"last": 0}, "last must be an integer above 0"),
        ({"last": True}, "last must be"),
        ({"min_count": 1.5}, "min_count must be"),
        ({"decay": 0}, "decay must be above 0"),
        ({"decay": 1.5}, "decay must be above 0"),
        ({"decay": math.nan}, "decay must be above 0"),
        ({"decay": "0.5"}, "decay must be above 0"),
        ({"decay": 0.5, "weight": "sym"}, "decay goes with weight='sqrt'"),
        ({"weight": "mean"}, "weight must be one of"),
        ({"weight": ["sqrt"]}, "weight must be one of"),
    ],
)
def test_wrong_options(options, message):
    frame = pd.DataFrame({"user_id": [1], "item_id": [2], "time": [3]})
    with pytest.raises(ValueError, match=message):
        seen(**options).fit(frame)


@pytest.mark.parametrize(
    "times, error, message",
    [
        ([1.0, None], ValueError, "'time': 1 row.s. without a time"),
        ([1.5, math.inf], ValueError, "finite"),
        (["2020", "2021"], TypeError, "pd.to_datetime"),
        ([True, False], TypeError, "numbers or datetimes"),
        ([2**63, 1], ValueError, "below 2..63"),
        (pd.Series(np.array(["0970-01-01", "0970-01-02"], "M8[s]")), ValueError, "1678"),
    ],
)
def test_wrong_times(times, error, message):
    frame = pd.DataFrame({"user_id": [1, 1], "item_id": [2, 3], "time": times})
    with pytest.raises(error, match=message):
        seen(before="time").fit(frame)


def test_other_kinds_of_time_than_in_fit():
    ids = {"user_id": [1], "item_id": [2]}
    encoder = seen(before="time").fit(pd.DataFrame(ids | {"time": [1]}))
    stamp = pd.Timestamp("2020-01-01")
    with pytest.raises(TypeError, match="'time' held numbers in fit, now datetimes without"):
        encoder.transform(pd.DataFrame(ids | {"time": [stamp]}))
    before = encoder.to_state()[1]
    with pytest.raises(TypeError, match="convert it"):
        encoder.partial_fit(pd.DataFrame(ids | {"time": [stamp.tz_localize("UTC")]}))
    np.testing.assert_array_equal(encoder.to_state()[1]["0.times"], before["0.times"])
    encoder.partial_fit(pd.DataFrame(ids | {"time": [0.5]}))
    with pytest.raises(ValueError, match="cannot be compared exactly"):
        encoder.transform(pd.DataFrame(ids | {"time": [2**53 + 1]}))


def test_datetimes_are_no_ids():
    frame = pd.DataFrame({"user_id": [pd.Timestamp("2020-01-01")], "item_id": [1]})
    with pytest.raises(TypeError, match="'user_id': History needs ids"):
        seen().fit(frame)


def test_rows_counted_but_not_settled_are_not_in_use():
    """A `partial_fit` that another column breaks off leaves them behind."""
    frame = pd.DataFrame({"user_id": [1, 1, 2], "item_id": list("aba"), "time": [1, 2, 3]})
    more = pd.DataFrame({"user_id": [1, 9, 9], "item_id": list("cca"), "time": [1.5, 2.0, 2.5]})
    for options in ({}, {"before": "time"}, {"last": 1}):
        encoder = seen(**options).fit(frame)
        before = encoder.transform(more)
        column = encoder.columns_["seen"]
        column.count(column.read(more), None)
        assert_same(encoder.transform(more), before)
        assert_same(through_state(encoder).transform(more), before)


# State from a file -------------------------------------------------------------------------------------------


def hostile():
    """A sound state, to be spoiled: meta of the field and its arrays."""
    frame = pd.DataFrame({"user_id": [1, 1, 2, 2], "item_id": list("abac"), "time": [1.5, 2, 3, 4]})
    meta, arrays = seen(before="time", min_count=1).fit(frame).to_state()
    return meta, {key: array.copy() for key, array in arrays.items()}


@pytest.mark.parametrize(
    "key, value",
    [
        ("users", [0, 0, 1]),
        ("users", [0, 0, 1, 2]),
        ("users", [0, 0, 1, -1]),
        ("users", [[0, 0], [1, 1]]),
        ("items", [0, 1, 0, 3]),
        ("items", [0, 1, 0, 0]),  # a pair twice, and an item without one
        ("items", [0.0, 1.0, 0.0, 2.0]),
        ("columns", [0, 1]),
        ("columns", [0, 1, 1]),
        ("columns", [0, 1, 9]),
        ("columns", [0, 1, -3]),
        ("times", [1.5, math.nan, 3, 4]),
        ("times", [1.5, math.inf, 3, 4]),
        ("times", [1.5, 2]),
        ("times", np.array([1, 2, 3], np.uint8)),
        ("bylevels", [1, 1]),
        ("ofoffsets", [0, 1, 9]),
        ("strange", [1]),
        ("times", None),
        ("users", None),
    ],
)
def test_hostile_arrays(key, value):
    meta, arrays = hostile()
    if value is None:
        del arrays[f"0.{key}"]
    else:
        arrays[f"0.{key}"] = np.array(value)
    with pytest.raises(ValueError):
        FrameEncoder.from_state(meta, arrays)


@pytest.mark.parametrize("kind", ["", "naive", "float", 3, None])
def test_hostile_meta(kind):
    meta, arrays = hostile()
    meta["columns"][0]["state"]["times"] = kind
    with pytest.raises(ValueError):
        FrameEncoder.from_state(meta, arrays)


def test_state_without_anything_counted_goes_on():
    nothing = pd.DataFrame({"user_id": [None, 1], "item_id": [2, None], "time": [1, 2]}).astype(object)
    encoder = seen(before="time")
    assert encoder.fit_transform(nothing).shape == (2, 0)
    loaded = through_state(encoder)
    more = pd.DataFrame({"user_id": [1, 1], "item_id": [2, 3], "time": [0.5, 1.5]})
    assert loaded.partial_fit(more).transform(more).toarray().tolist() == [[0, 0], [1, 0]]
