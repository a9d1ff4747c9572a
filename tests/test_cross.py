"""Crosses against a reference that looks at one row after the other."""

import json
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import eye_array
from test_encoders import assert_same

from sparsefm.encoders import FrameEncoder, OneHot
from sparsefm.encoders.cross import Cross, _Cross, _PairNumbers
from sparsefm.encoders.field import _stack

QUICK = settings(max_examples=60, deadline=None)


# What FrameEncoder does with a column ------------------------------------------------------------------------


def fitted(spec, *chunks):
    spec._check("pair")
    column = _Cross("pair", spec)
    for chunk in chunks:
        column.count(column.read(chunk), None)
    column.settle()
    return column


def grown(column, frame):
    column.count(column.read(frame), None)
    column.settle()
    return column


def encoded(column, frame):
    return _stack([(0, column.encode(column.read(frame)))], len(frame), column.size)


def through_state(column):
    meta, arrays = column.to_state()
    for array in arrays.values():
        assert array.flags.c_contiguous
        assert array.dtype in (np.int64, np.uint8)
    return _Cross.from_state(column.name, column.encoder, json.loads(json.dumps(meta)), arrays)


# The reference -----------------------------------------------------------------------------------------------


def key(value):
    return None if pd.isna(value) else (isinstance(value, bool), value)


def pair(row):
    first, second = map(key, row)
    return None if first is None or second is None else (first, second)


def reference(spec, train, frame):
    """The column names and, for each row, the name of its column or None."""
    counts = Counter(p for p in map(pair, zip(train["a"], train["b"], strict=True)) if p is not None)
    kept = [p for p, n in counts.items() if n >= spec.min_count]
    if spec.max_levels is not None:
        best = sorted(kept, key=lambda p: -counts[p])[: spec.max_levels]
        kept = [p for p in kept if p in best]
    columns = ["unknown"] * (spec.unknown == "bucket") + ["missing"] * (spec.missing == "own") + kept
    names = []
    for p in map(pair, zip(frame["a"], frame["b"], strict=True)):
        name = "missing" if p is None else p if p in kept else "unknown"
        names.append(name if name in columns else None)
    return columns, names


CELLS = st.sampled_from(["x", "y", "1", 1, 2, True, 0.5, None, np.nan, "x & y"])
FRAMES = st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=25).map(
    lambda rows: pd.DataFrame(rows, columns=["a", "b"], dtype=object)
)
SPECS = st.builds(
    Cross,
    st.just("a"),
    st.just("b"),
    min_count=st.integers(1, 3),
    max_levels=st.one_of(st.none(), st.integers(1, 3)),
    unknown=st.sampled_from(["bucket", "ignore"]),
    missing=st.sampled_from(["own", "ignore"]),
)


@QUICK
@given(SPECS, FRAMES, FRAMES)
def test_against_reference(spec, train, other):
    column = fitted(spec, train)
    for frame in (train, other):
        columns, names = reference(spec, train, frame)
        dense = np.array([[float(name == c) for c in columns] for name in names]).reshape(len(frame), len(columns))
        np.testing.assert_array_equal(encoded(column, frame).toarray(), dense)
    labels = column.labels("pair")
    assert len(set(labels)) == len(labels) == column.size
    assert all(label.startswith("pair=") for label in labels)


@QUICK
@given(SPECS, FRAMES, FRAMES, FRAMES)
def test_chunks_are_the_whole_and_state_keeps_all(spec, one, two, three):
    whole = fitted(spec, pd.concat([one, two], ignore_index=True))
    parts = fitted(spec, one, two)
    assert parts.labels("pair") == whole.labels("pair")
    restored = through_state(parts)
    for column in (whole, parts, restored):
        assert_same(encoded(column, three), encoded(whole, three))
    assert restored.labels("pair") == whole.labels("pair")
    before = encoded(whole, three)
    for column in (parts, restored):
        grown(column, three)
        same = eye_array(column.size, format="csr")[: whole.size]
        assert column.decode(same).tolist() == whole.decode(eye_array(whole.size, format="csr")).tolist()
    assert_same(encoded(parts, three), encoded(restored, three))
    known = before.toarray()[:, len(whole.special) :]
    np.testing.assert_array_equal(encoded(parts, three).toarray()[:, len(whole.special) : whole.size], known)


@QUICK
@given(FRAMES)
def test_decode_gives_the_pairs_back(train):
    column = fitted(Cross("a", "b"), train)
    for row, cell in zip(zip(train["a"], train["b"], strict=True), column.decode(encoded(column, train)), strict=True):
        assert (None if cell is None else pair(cell)) == pair(row)


def test_labels_and_decode_of_a_plain_cross():
    train = pd.DataFrame({"a": ["F", "M", "F", None], "b": ["artist", "artist", "a & b", "artist"]})
    column = fitted(Cross("a", "b"), train)
    assert column.labels("p") == ["p=<unknown>", "p=<missing>", "p=F & artist", "p=M & artist", "p=F & 'a & b'"]
    assert column.decode(encoded(column, train)).tolist() == [("F", "artist"), ("M", "artist"), ("F", "a & b"), None]
    strange = pd.DataFrame({"a": ["M"], "b": ["a & b"]})  # both known, never together
    block = column.encode(column.read(strange))
    assert (block.indices.tolist(), block.unknown, block.missing) == ([0], 1.0, 0.0)
    assert column.sources == ("a", "b")
    assert column.bucket == 0


def test_labels_differ_where_their_texts_could_be_taken_for_others():
    rows = [("a & b", "c"), ("a", "b & c"), ('a & "b', 'c"'), ("'a", "b' & c"), ("<missing>", "<unknown>")]
    labels = fitted(Cross("a", "b"), pd.DataFrame(rows, columns=["a", "b"])).labels("p")
    assert len(set(labels)) == 7


def test_datetimes_categories_and_integers():
    times = pd.Series(pd.to_datetime(["2024-01-01", "2024-01-02", None])).dt.tz_localize("Europe/Berlin")
    train = pd.DataFrame({"a": times, "b": pd.Categorical(["u", "v", "u"])})
    column = through_state(fitted(Cross("a", "b"), train))
    assert column.decode(encoded(column, train)).tolist() == [(times[0], "u"), (times[1], "v"), None]
    ids = pd.DataFrame({"a": [2**60, 2**60 + 1], "b": pd.array([1, None], "Int64")})
    column = fitted(Cross("a", "b"), ids)
    assert column.decode(encoded(column, ids)).tolist() == [(2**60, 1), None]


def test_waiting_pairs_are_counted_on():
    spec = Cross("a", "b", min_count=2)
    rare = pd.DataFrame({"a": ["u", "v"], "b": ["x", "x"]})
    column = through_state(fitted(spec, rare))
    assert column.size == 2
    grown(column, rare[:1])
    assert column.labels("p")[2:] == ["p=u & x"]
    grown(column, rare[1:])
    assert column.labels("p")[2:] == ["p=u & x", "p=v & x"]


def test_refusals():
    train = pd.DataFrame({"a": ["u", "v"], "b": ["x", "y"]})
    column = fitted(Cross("a", "b", unknown="error", missing="error"), train)
    with pytest.raises(ValueError, match=r"column 'pair': 1 unknown pair\(s\), not seen in fit: \('u', 'y'\)"):
        encoded(column, pd.DataFrame({"a": ["u"], "b": ["y"]}))
    with pytest.raises(ValueError, match="column 'pair': 1 missing"):
        column.read(pd.DataFrame({"a": ["u"], "b": [None]}))
    for spec, message in [
        (Cross("a", "a"), "'a' twice"),
        (Cross("a", 3), "two column names, got 3"),
        (Cross("a", "b", min_count=0), "min_count"),
        (Cross("a", "b", unknown="error", max_levels=3), "unknown='error'"),
        (Cross("a", "b", missing="drop"), "missing must be one of"),
    ]:
        with pytest.raises(ValueError, match=message):
            spec._check("pair")


@pytest.mark.parametrize("rows", [0, 1])
def test_without_a_pair(rows):
    frame = pd.DataFrame({"a": [None], "b": ["x"]}, dtype=object)[:rows]
    column = through_state(fitted(Cross("a", "b"), frame))
    assert encoded(column, frame).toarray().tolist() == [[0, 1]] * rows
    assert column.decode(encoded(column, frame)).tolist() == [None] * rows


def test_in_a_frame():
    train = pd.DataFrame({"a": ["u", "v", None], "b": ["x", "y", "x"]})
    encoder = FrameEncoder({"a": OneHot(), "a×b": Cross("a", "b")})
    X = encoder.fit_transform(train)
    assert encoder.get_feature_names_out()[4:].tolist() == [
        *("a×b=<unknown>", "a×b=<missing>", "a×b=u & x", "a×b=v & y")
    ]
    assert encoder.n_features_in_ == 2
    assert encoder.inverse_transform(X)["a×b"].tolist() == [("u", "x"), ("v", "y"), None]
    meta, arrays = encoder.to_state()
    restored = FrameEncoder.from_state(json.loads(json.dumps(meta)), arrays)
    more = pd.DataFrame({"a": ["u", "w"], "b": ["y", "y"]})
    for grown_encoder in (encoder, restored):
        grown_encoder.partial_fit(more)
        assert grown_encoder.fields_.tolist() == [0] * 4 + [1] * 4 + [0] + [1] * 2
        assert_same(grown_encoder.transform(train)[:, :8], X)
        assert grown_encoder.get_feature_names_out()[8:].tolist() == ["a=w", "a×b=u & y", "a×b=w & y"]


def tampered(change):
    train = pd.DataFrame({"a": ["u", "v", "u", "w"], "b": ["x", "x", "x", "z"]})
    meta, arrays = fitted(Cross("a", "b", min_count=2), train).to_state()
    change(meta, arrays)
    return lambda: _Cross.from_state("pair", Cross("a", "b", min_count=2, max_levels=1), meta, arrays)


@pytest.mark.parametrize(
    "change",
    [
        lambda meta, arrays: arrays.update(pairs=np.array([0, 3])),
        lambda meta, arrays: arrays.update(pairs=np.array([-1, 0])),
        lambda meta, arrays: arrays.update(pairs=np.array([0])),
        lambda meta, arrays: arrays.update(pairs=np.array([0, 0, 0, 0])),
        lambda meta, arrays: arrays.update(pairs=np.array([0, 0, 0, 1])),  # more than max_levels
        lambda meta, arrays: arrays.update(pairs=arrays["waiting"][:2]),
        lambda meta, arrays: arrays.update(pairs=np.array([0.0, 0.0])),
        lambda meta, arrays: arrays.update(counts=np.array([1])),
        lambda meta, arrays: arrays.update(counts=np.array([1, 0])),
        lambda meta, arrays: arrays.update(more=np.array([1])),
        lambda meta, arrays: arrays.pop("waiting"),
        lambda meta, arrays: arrays.pop("firstbytes"),
        lambda meta, arrays: arrays.update(firstoffsets=np.array([0, 9, 2, 3])),
        lambda meta, arrays: meta.pop("first"),
        lambda meta, arrays: meta.update(second=None),
    ],
)
def test_hostile_state(change):
    with pytest.raises(ValueError, match=r"."):
        tampered(change)()


def test_untouched_state_is_read():
    assert tampered(lambda meta, arrays: None)().size == 3


def test_pair_numbers_grow_and_find():
    rng = np.random.default_rng(0)
    pairs, seen = _PairNumbers(), {}
    for _ in range(5):
        chunk = list(dict.fromkeys(map(tuple, rng.integers(0, 6, (20, 2)).tolist())))
        expected = [seen.setdefault(p, len(seen)) for p in chunk]
        assert pairs.add(*np.array(chunk).T).tolist() == expected
    assert pairs.table.tolist() == [list(p) for p in seen]
    top = 2**31 - 1
    assert pairs.find(np.array([top, -1, 0]), np.array([top, 0, -1])).tolist() == [-1, -1, -1]
    assert pairs.add(np.array([top]), np.array([top])).tolist() == [len(seen)]
    assert pairs.table[-1].tolist() == [top, top]
