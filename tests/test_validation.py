"""validation: whatever comes in is canonical behind the door, or refused; it never crashes and is never changed."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis.extra import numpy as hnp

from sparsefm import validation
from sparsefm._kernels import dispatch, fm
from sparsefm.validation import Rows, check_csr, check_positive, check_sample_weight, check_target

FORMATS = ["coo", "csc", "csr", "bsr", "dia", "dok", "lil"]
KINDS = {"array": sp.csr_array, "matrix": sp.csr_matrix}


def dense_of(rows: Rows) -> np.ndarray:
    data = np.ones(rows.nnz, dtype=rows.dtype) if rows.data is None else rows.data
    out = np.zeros((rows.n_rows, rows.n_features), dtype=rows.dtype)
    for i in range(rows.n_rows):
        for p in range(rows.indptr[i], rows.indptr[i + 1]):
            out[i, rows.indices[p]] += data[p]
    return out


def assert_canonical(rows: Rows) -> None:
    assert rows.indptr.dtype == rows.indices.dtype
    assert rows.indptr.dtype in (np.int32, np.int64)
    assert rows.indptr[0] == 0
    assert rows.indptr[-1] == rows.nnz
    lengths = np.diff(rows.indptr)
    assert (lengths >= 0).all()
    assert rows.row_length == (lengths[0] if len(set(lengths.tolist())) == 1 else -1 if len(lengths) else 0)
    for i in range(rows.n_rows):
        columns = rows.indices[rows.indptr[i] : rows.indptr[i + 1]].astype(np.int64)
        assert (np.diff(columns) > 0).all()
        assert ((columns >= 0) & (columns < rows.n_features)).all()
    if rows.data is not None:
        assert rows.data.shape == rows.indices.shape
        assert rows.data.dtype == rows.dtype
        assert np.isfinite(rows.data).all()
        assert (rows.data != 0).all()
        assert (rows.data != 1).any()


def sample(rng: np.random.Generator, n: int = 12, m: int = 8, dtype: Any = np.float64) -> np.ndarray:
    return np.where(rng.random((n, m)) < 0.4, rng.normal(size=(n, m)), 0).astype(dtype)


@pytest.fixture
def dense() -> np.ndarray:
    return sample(np.random.default_rng(0))


# ------------------------------------------------------------------------------------- what is taken


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int8, np.int64, np.uint16, bool])
def test_every_sparse_format_is_its_dense_equivalent(kind: str, form: str, dtype: type) -> None:
    dense = sample(np.random.default_rng(1), dtype=np.float64)
    dense = (dense * 3).astype(dtype)
    X = KINDS[kind](dense).asformat(form)
    rows = check_csr(X)
    assert_canonical(rows)
    assert rows.dtype == (np.float64 if dtype is np.float64 else np.float32)
    np.testing.assert_array_equal(dense_of(rows), dense.astype(rows.dtype))


@pytest.mark.parametrize(
    "make",
    [
        np.ascontiguousarray,
        np.asfortranarray,
        lambda a: np.repeat(np.repeat(a, 2, axis=0), 2, axis=1)[::2, ::2],
        lambda a: a[::-1, ::-1].copy()[::-1, ::-1],
        lambda a: a.tolist(),
        lambda a: [tuple(row) for row in a],
        lambda a: list(a),
        lambda a: a.astype(object),
        lambda a: a.astype(a.dtype.newbyteorder()),
        pd.DataFrame,
        lambda a: pd.DataFrame(a, columns=list("abcdefgh"), index=np.arange(len(a))[::-1]),
        lambda a: pd.DataFrame(a, columns=["same"] * a.shape[1]),
        lambda a: pd.DataFrame(a).astype("Float64"),
        lambda a: pd.DataFrame(a).astype(pd.SparseDtype(np.float64, 0)),
    ],
)
def test_dense_things_and_frames_of_numbers(make: Callable[..., Any], dense: np.ndarray) -> None:
    rows = check_csr(make(dense))
    assert_canonical(rows)
    assert rows.dtype == np.float64
    np.testing.assert_array_equal(dense_of(rows), dense)


@pytest.mark.parametrize("dtype", [np.float32, np.int64, bool, "Int64", "boolean", "Float32"])
def test_a_frame_has_the_type_of_the_array(dtype: Any) -> None:
    frame = pd.DataFrame([[1, 0], [0, 1]]).astype(dtype)
    assert check_csr(frame).dtype == np.float32
    assert check_csr(frame.assign(b=np.float64(0.1))).dtype == np.float64


def test_a_frame_may_mix_kinds_of_numbers() -> None:
    frame = pd.DataFrame({"a": [1, 0], "b": [True, False], "c": [0.5, 0.25]})
    np.testing.assert_array_equal(dense_of(check_csr(frame)), [[1, 1, 0.5], [0, 0, 0.25]])


@pytest.mark.parametrize("shape", [(0, 0), (0, 5), (5, 0), (1, 1), (7, 3)])
@pytest.mark.parametrize("form", [None, *FORMATS])
def test_nothing_stored(shape: tuple[int, int], form: str | None) -> None:
    X: Any = np.zeros(shape)
    if form == "bsr" and 0 in shape:
        pytest.skip("scipy makes no BSR matrix of this shape")
    if form is not None:
        X = sp.coo_array(shape).asformat(form)
    rows = check_csr(X)
    assert (rows.n_rows, rows.n_features, rows.nnz, rows.row_length) == (*shape, 0, 0)


# ------------------------------------------------------------------------------------- copies


def canonical(dtype: Any = np.float32, index: Any = np.int32) -> sp.csr_array:
    X = sp.random_array((30, 20), density=0.2, rng=np.random.default_rng(0), format="csr", dtype=np.float64)
    X.data += 0.5
    out = sp.csr_array(X.shape, dtype=dtype)
    out.indptr, out.indices, out.data = X.indptr.astype(index), X.indices.astype(index), X.data.astype(dtype)
    return out


@pytest.mark.parametrize("index", [np.int32, np.int64])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_canonical_rows_are_used_without_a_copy(dtype: type, index: type) -> None:
    X = canonical(dtype, index)
    rows = check_csr(X)
    assert np.shares_memory(rows.indptr, X.indptr)
    assert np.shares_memory(rows.indices, X.indices)
    assert rows.data is not None
    assert np.shares_memory(rows.data, X.data)
    assert rows.indices.dtype == index
    assert rows.dtype == dtype
    assert check_csr(rows) is rows


def test_entries_behind_the_last_row_are_cut_off_without_a_copy() -> None:
    X = canonical()
    expected = X.toarray()
    X.indices = np.r_[X.indices, np.full(5, 10**6, dtype=np.int32)]
    X.data = np.r_[X.data, np.full(5, np.nan, dtype=np.float32)]
    rows = check_csr(X)
    assert np.shares_memory(rows.indices, X.indices)
    np.testing.assert_array_equal(dense_of(rows), expected)


@pytest.mark.parametrize("index", [np.int8, np.uint8, np.int16, np.uint16, np.uint32, np.uint64])
def test_other_integers_as_indices(index: type) -> None:
    X, odd = canonical(), canonical()
    odd.indptr, odd.indices = X.indptr.astype(index), X.indices.astype(index)
    rows = check_csr(odd)
    assert_canonical(rows)
    assert rows.indices.dtype == np.int64
    np.testing.assert_array_equal(dense_of(rows), X.toarray())


def test_indptr_and_indices_of_different_types() -> None:
    X = canonical()
    for pointer, index in ((np.int32, np.int64), (np.int64, np.int32), (np.uint8, np.int32)):
        odd = canonical()
        odd.indptr, odd.indices = X.indptr.astype(pointer), X.indices.astype(index)
        rows = check_csr(odd)
        assert_canonical(rows)
        np.testing.assert_array_equal(dense_of(rows), X.toarray())


def test_more_columns_than_int32_can_number() -> None:
    X = sp.csr_array((np.ones(2), np.array([1, 2**40]), np.array([0, 2])), shape=(1, 2**41))
    rows = check_csr(X)
    assert rows.indices.dtype == np.int64
    assert rows.indices.tolist() == [1, 2**40]
    X.indices, X.indptr = np.array([1, 5], dtype=np.int32), X.indptr.astype(np.int32)
    assert check_csr(X).indices.dtype == np.int64


def test_read_only_and_memory_mapped_buffers(tmp_path: Path) -> None:
    X = canonical()
    expected = X.toarray()
    for part in ("indptr", "indices", "data"):
        np.save(tmp_path / part, getattr(X, part))
        setattr(X, part, np.load(tmp_path / f"{part}.npy", mmap_mode="r"))
    rows = check_csr(X)
    assert np.shares_memory(rows.data, X.data)
    np.testing.assert_array_equal(dense_of(rows), expected)
    np.save(tmp_path / "dense", expected)
    for mode in ("r", "c", "r+"):
        np.testing.assert_array_equal(dense_of(check_csr(np.load(tmp_path / "dense.npy", mmap_mode=mode))), expected)
    expected.flags.writeable = False
    np.testing.assert_array_equal(dense_of(check_csr(expected)), expected)


# ------------------------------------------------------------------------------------- not canonical


@st.composite
def messy(draw: st.DrawFn) -> tuple[sp.csr_array, np.ndarray]:
    """CSR rows in any order, with repeated columns and stored zeros, and what they add up to."""
    n_rows, n_features = draw(st.integers(0, 6)), draw(st.integers(1, 6))
    lengths = draw(st.lists(st.integers(0, 8), min_size=n_rows, max_size=n_rows))
    indptr = np.cumsum([0, *lengths])
    nnz = int(indptr[-1])
    indices = draw(hnp.arrays(np.int64, nnz, elements=st.integers(0, n_features - 1)))
    # small integers, so that sums are exact in any order and cancel now and then
    data = draw(hnp.arrays(np.float64, nnz, elements=st.integers(-2, 2).map(float)))
    index = draw(st.sampled_from([np.int32, np.int64, np.uint16]))
    X = sp.csr_array((n_rows, n_features), dtype=np.float64)
    X.indptr, X.indices, X.data = indptr.astype(index), indices.astype(index), data
    X.data = data.astype(draw(st.sampled_from([np.float32, np.float64, np.int8])))
    dense = np.zeros((n_rows, n_features))
    for i in range(n_rows):
        for p in range(indptr[i], indptr[i + 1]):
            dense[i, indices[p]] += data[p]
    return X, dense


@given(messy(), st.sampled_from([None, np.float32, np.float64]))
@settings(max_examples=150, deadline=None)
def test_unsorted_repeated_and_zero_entries_are_their_sum(case: tuple[sp.csr_array, np.ndarray], dtype: Any) -> None:
    X, dense = case
    before = [array.copy() for array in (X.indptr, X.indices, X.data)]
    for array in (X.indptr, X.indices, X.data):
        array.flags.writeable = False
    held = (X.indptr, X.indices, X.data)
    rows = check_csr(X, dtype=dtype)
    assert_canonical(rows)
    np.testing.assert_array_equal(dense_of(rows), dense)
    for now, array, old in zip((X.indptr, X.indices, X.data), held, before, strict=True):
        assert now is array
        np.testing.assert_array_equal(array, old)


@pytest.mark.parametrize("form", FORMATS)
def test_containers_are_left_as_they_are(form: str) -> None:
    X = sp.csr_array(sample(np.random.default_rng(3))).asformat(form)
    if form in ("csc", "bsr"):  # entries behind the last one, which scipy's own check cuts off
        X.indices = np.r_[X.indices, X.indices[:1]]
        X.data = np.concatenate([X.data, X.data[:1]])
    before, copied = dict(X.__dict__), copy.deepcopy(X.__dict__)
    check_csr(X)
    assert X.__dict__.keys() == before.keys()
    for key, value in X.__dict__.items():
        if key not in ("_has_sorted_indices", "_has_canonical_format", "has_canonical_format"):
            assert value is before[key], key
            same = value == copied[key] if key != "coords" else True
            assert np.all(same), key


@pytest.mark.parametrize("form", ["coo", "csc", "bsr", "dia"])
def test_repeated_entries_in_other_formats(form: str) -> None:
    if form == "coo":
        X = sp.coo_array(([1.0, 2, 4, 0], ([0, 0, 1, 1], [1, 1, 0, 1])), shape=(2, 2))
    elif form == "csc":
        X = sp.csc_array(([4.0, 1, 2, 0], [1, 0, 0, 1], [0, 1, 4]), shape=(2, 2))
    elif form == "bsr":
        X = sp.bsr_array((np.array([[[0.0, 1], [4, 0]], [[0, 2], [0, 0]]]), [0, 0], [0, 2]), shape=(2, 2))
    else:
        X = sp.dia_array(([[4.0, 9], [9, 3], [0, 0]], [-1, 1, 0]), shape=(2, 2))
    rows = check_csr(X)
    assert_canonical(rows)
    np.testing.assert_array_equal(dense_of(rows), [[0, 3], [4, 0]])


def test_values_that_vanish_in_float32_are_no_entries() -> None:
    rows = check_csr(sp.csr_array([[1e-300, 2.0]]), dtype=np.float32)
    assert rows.indices.tolist() == [1]


def test_duplicates_that_overflow_when_summed_are_refused() -> None:
    X = sp.csr_array((np.array([3e38, 3e38], dtype=np.float32), [0, 0], [0, 2]), shape=(1, 1))
    with pytest.raises(ValueError, match=r"too large for float32 .*row 0, column 0"):
        check_csr(X)


# ------------------------------------------------------------------------------------- what is refused


def corrupt(**replaced: Any) -> sp.csr_array:
    X = sp.csr_array(np.array([[1.0, 0, 2], [0, 3, 0], [4, 0, 5]]))
    for name, value in replaced.items():
        setattr(X, name, value)
    return X


@pytest.mark.parametrize("index", [np.int32, np.int64])
@pytest.mark.parametrize(
    ("replaced", "message"),
    [
        ({"indices": [0, 2, 1, 0, 3]}, r"column index 3 in row 2, outside 0 … 2"),
        ({"indices": [0, 2, 10**6, 0, 2]}, r"column index 1000000 in row 1"),
        ({"indices": [0, 2, 1, -1, 2]}, r"column index -1 in row 2"),
        ({"indptr": [0, 3, 2, 5]}, r"not a valid row pointer at row 1: the row runs from 3 to 2"),
        ({"indptr": [0, 2, 3, 6]}, r"at row 2: the row runs from 3 to 6 in 5 indices"),
        ({"indptr": [0, -1, 3, 5]}, r"at row 0"),
        ({"indptr": [0, 2**31 - 1, 3, 5]}, r"at row 0"),
        ({"indptr": [1, 2, 3, 5]}, r"begin with 0"),
        ({"indptr": [0, 2, 5]}, r"4 entries for 3 rows .*got 3"),
        ({"indptr": [0, 2, 3, 5, 5]}, r"4 entries for 3 rows .*got 5"),
        ({"indptr": []}, r"4 entries for 3 rows .*got 0"),
        ({"indices": [0, 2]}, r"in 2 indices and 5 values"),
        ({"indices": []}, r"in 0 indices and 5 values"),
        ({"indices": [[0], [2], [1], [0], [2]]}, "indices must be one-dimensional"),
    ],
)
def test_broken_structure_is_refused(replaced: dict[str, Any], message: str, index: type) -> None:
    X = corrupt(**{key: np.array(value, dtype=index) for key, value in replaced.items()})
    with pytest.raises(ValueError, match=message):
        check_csr(X)


@pytest.mark.parametrize(
    ("replaced", "message"),
    [
        ({"data": np.ones(2)}, "5 indices and 2 values"),
        ({"data": np.ones((5, 1))}, "data must be one-dimensional"),
        ({"data": np.ones(5, dtype=complex)}, "must hold real numbers"),
        ({"data": np.ones(5, dtype=object)}, "must hold real numbers"),
        ({"data": np.array(list("abcde"))}, "must hold real numbers"),
        ({"data": np.ones(5).astype("M8[s]")}, "must hold real numbers"),
        ({"indices": np.zeros(5)}, "must be integers"),
        ({"indices": None}, "one-dimensional"),
        ({"indptr": np.array([0.0, 2, 3, 5])}, "must be integers"),
        ({"indptr": np.array([0, 2, 3, 2**63 + 5], dtype=np.uint64)}, "at row 2"),
        ({"_shape": (2, 3)}, "3 entries for 2 rows"),
        ({"_shape": (3, 1)}, "outside 0 … 0"),
        ({"_shape": (3, 0)}, "column index 0 in row 0"),
    ],
)
def test_broken_types_are_refused(replaced: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_csr(corrupt(**replaced))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("form", [None, "frame", *FORMATS])
def test_values_that_are_not_finite_are_refused(bad: float, dtype: type, form: str | None) -> None:
    dense = sample(np.random.default_rng(0)).astype(dtype)
    dense[7, 3] = bad
    X: Any = dense
    if form == "frame":
        X = pd.DataFrame(dense)
    elif form is not None:
        X = sp.csr_array(dense).asformat(form)
    with pytest.raises(ValueError, match=("NaN" if np.isnan(bad) else "infinity") + ".* in row 7, column 3"):
        check_csr(X, name="Z")


@pytest.mark.parametrize("bad", [1e39, -1e300, np.finfo(np.float64).max])
def test_float64_too_large_for_float32_is_refused(bad: float) -> None:
    for X in (np.array([[1, bad]]), sp.csr_array([[1, bad]]), check_csr(np.array([[1, bad]]))):
        with pytest.raises(ValueError, match="too large for float32"):
            check_csr(X, dtype=np.float32)
    assert check_csr(np.array([[1, bad]])).dtype == np.float64


@pytest.mark.parametrize(
    "X",
    [
        "text",
        b"bytes",
        None,
        5,
        {"a": 1},
        [],
        [1, 2, 3],
        [[1, 2], [3]],
        [["a", "b"]],
        [[None, "b"]],
        [[{}]],
        np.zeros(3),
        np.zeros((2, 2, 2)),
        np.array([[1 + 1j]]),
        np.array([["2020-01-01"]], dtype="M8[D]"),
        np.zeros((2, 2), dtype=[("a", float)]),
        sp.coo_array(np.arange(3)),
        sp.coo_array(np.zeros((2, 2, 2))),
        sp.csr_array(np.array([[1 + 1j, 0]])),
        sp.coo_array(np.array([[1 + 1j, 0]])),
        pd.DataFrame({"a": ["x", "y"]}),
        pd.DataFrame({"a": [1, 2], "b": pd.to_datetime(["2020", "2021"])}),
        pd.DataFrame({"a": pd.Categorical([1, 2])}),
        pd.DataFrame({"a": [1 + 1j, 2]}),
        pd.DataFrame({"a": [1, None]}).astype("Int64"),
        pd.Series([1.0, 2.0]),
    ],
    ids=lambda X: f"{type(X).__name__}-{getattr(X, 'dtype', '')}",
)
def test_what_is_no_matrix_of_numbers_is_refused(X: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        check_csr(X)


def test_wrong_width_says_both_widths_and_the_name() -> None:
    for X in (np.eye(3), sp.csr_array(np.eye(3)), check_csr(np.eye(3))):
        with pytest.raises(ValueError, match="X_users has 3 columns, but 4 are expected"):
            check_csr(X, n_features=4, name="X_users")


# Run in a process of its own, since a crash is what is to be excluded. Each case is a container whose parts
# were replaced after it was made.
NASTY = """
    import copy, json, sys, warnings
    import numpy as np, scipy.sparse as sp
    from sparsefm.validation import check_csr
    warnings.simplefilter("error")
    big = 10**6
    base = sp.random_array((50, 40), density=.2, rng=np.random.default_rng(0), format="coo")
    make = {"coo": base.copy, "csc": base.tocsc, "csr": base.tocsr, "lil": base.tolil, "dok": base.todok,
            "bsr": lambda: sp.bsr_array(base.toarray(), blocksize=(5, 4)),
            "dia": lambda: sp.dia_array((np.ones((3, 40)), [0, 1, -2]), shape=(50, 40))}
    cases = {}

    def case(form, name, change):
        cases[form + " " + name] = (form, change)

    def put(attribute, place, value):
        return lambda X: getattr(X, attribute).__setitem__(place, value)

    def swap(attribute, of):
        return lambda X: setattr(X, attribute, of(getattr(X, attribute)))

    for form in ("csc", "csr", "bsr"):
        case(form, "indices too large", put("indices", slice(None), big))
        case(form, "indices negative", put("indices", 0, -big))
        case(form, "indices short", swap("indices", lambda a: a[:3].copy()))
        case(form, "indices beyond int32", swap("indices", lambda a: a.astype(np.int64) + 2**33))
        case(form, "indices real", swap("indices", lambda a: a.astype(float)))
        case(form, "indices flat list of text", swap("indices", lambda a: list("abc")))
        case(form, "indices None", swap("indices", lambda a: None))
        case(form, "indices 2-d", swap("indices", lambda a: a[:, None]))
        case(form, "indptr huge", put("indptr", 3, 10**8))
        case(form, "indptr negative", put("indptr", 3, -10**8))
        case(form, "indptr ends late", put("indptr", -1, 10**8))
        case(form, "indptr begins late", put("indptr", 0, 1))
        case(form, "indptr short", swap("indptr", lambda a: a[:3].copy()))
        case(form, "indptr empty", swap("indptr", lambda a: a[:0].copy()))
        case(form, "indptr long", swap("indptr", lambda a: np.r_[a, a[-1]].astype(a.dtype)))
        case(form, "indptr real", swap("indptr", lambda a: a.astype(float)))
        case(form, "data short", swap("data", lambda a: a[:3].copy()))
        case(form, "data 0-d", swap("data", lambda a: np.float64(3)))
        case(form, "data objects", swap("data", lambda a: a.astype(object)))
        case(form, "data text", swap("data", lambda a: a.astype(str)))
        case(form, "shape small", lambda X: setattr(X, "_shape", (20, 10)))
        case(form, "shape large", lambda X: setattr(X, "_shape", (2000, 1000)))
    case("bsr", "blocks of nothing", swap("data", lambda a: a[:, :0, :0].copy()))
    case("bsr", "smaller blocks", swap("data", lambda a: a[:, :2, :2].copy()))
    case("coo", "row too large", lambda X: X.coords[0].__setitem__(slice(None), big))
    case("coo", "column negative", lambda X: X.coords[1].__setitem__(0, -big))
    case("coo", "three axes", lambda X: setattr(X, "coords", (*X.coords, X.coords[1])))
    case("coo", "one axis", lambda X: setattr(X, "coords", X.coords[:1]))
    case("coo", "fewer rows", lambda X: setattr(X, "coords", (X.coords[0][:3], X.coords[1])))
    case("coo", "real", lambda X: setattr(X, "coords", tuple(c + .5 for c in X.coords)))
    case("coo", "unsigned", lambda X: setattr(X, "coords", (X.coords[0].astype(np.uint64) + 2**63, X.coords[1])))
    case("coo", "data short", swap("data", lambda a: a[:3].copy()))
    case("coo", "data 2-d", swap("data", lambda a: a[:, None]))
    case("coo", "data objects", swap("data", lambda a: a.astype(object)))
    case("dia", "offsets short", swap("offsets", lambda a: a[:1]))
    case("dia", "offsets long", swap("offsets", lambda a: np.arange(30, dtype=a.dtype)))
    case("dia", "offsets real", swap("offsets", lambda a: a + .5))
    case("dia", "data 1-d", swap("data", lambda a: a[0]))
    case("dia", "data short", swap("data", lambda a: a[:1]))
    case("dia", "data objects", swap("data", lambda a: a.astype(object)))
    case("lil", "column too large", put("rows", 0, [big] * len(base.tolil().rows[0])))
    case("lil", "column negative", put("rows", 0, [-5] * len(base.tolil().rows[0])))
    case("lil", "column beyond int64", put("rows", 0, [2**70] * len(base.tolil().rows[0])))
    case("lil", "row short", lambda X: X.rows[0].pop())
    case("lil", "row long", lambda X: X.rows[-1].extend([1] * big))
    case("lil", "values short", lambda X: X.data[0].pop())
    case("lil", "values long", lambda X: X.data[-1].extend([1.] * big))
    case("lil", "row None", put("rows", 0, None))
    case("lil", "values text", put("data", 0, ["a"] * len(base.tolil().rows[0])))
    case("lil", "few rows", swap("rows", lambda a: a[:3]))
    case("lil", "many rows", swap("rows", lambda a: np.r_[a, a]))
    case("lil", "rows of numbers", swap("rows", lambda a: np.zeros(50)))
    case("lil", "rows 2-d", swap("rows", lambda a: a[:, None]))
    case("dok", "key too large", lambda X: X._dict.__setitem__((big, 0), 1.))
    case("dok", "key negative", lambda X: X._dict.__setitem__((0, -1), 1.))
    case("dok", "key beyond int64", lambda X: X._dict.__setitem__((2**70, 0), 1.))
    case("dok", "key of one", lambda X: X._dict.__setitem__(3, 1.))
    case("dok", "value text", lambda X: X._dict.__setitem__((0, 0), "a"))

    call = {"door": check_csr}
    if len(sys.argv) > 1:
        from sparsefm import FMRegressor
        model = FMRegressor(2, solver="sgd", early_stopping=sys.argv[1] == "early stopping")
        call = {sys.argv[1]: lambda X: model.fit(X, np.arange(50.0))}
    (check,) = call.values()
    for name, (form, change) in cases.items():
        X = make[form]()
        change(X)
        print(json.dumps(name), end=" ", flush=True)
        try:
            check(X)
            print(json.dumps("taken"), flush=True)
        except (ValueError, TypeError) as error:
            print(json.dumps("refused"), flush=True)
        except Exception as error:
            print(json.dumps(repr(error)), flush=True)
"""


def test_corrupted_containers_are_refused_and_crash_nothing() -> None:
    run = subprocess.run([sys.executable, "-c", textwrap.dedent(NASTY)], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, (run.stdout[-300:], run.stderr[-1000:])
    lines = run.stdout.splitlines()
    assert len(lines) > 90
    decoder = json.JSONDecoder()
    for line in lines:
        name, end = decoder.raw_decode(line)
        assert json.loads(line[end:]) == "refused", name


@pytest.mark.parametrize("way", ["fit", "early stopping"])
def test_corrupted_containers_crash_no_estimator(way: str) -> None:
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(NASTY), way], capture_output=True, text=True, timeout=120
    )
    assert run.returncode == 0, (run.stdout[-300:], run.stderr[-1000:])
    taken = [line for line in run.stdout.splitlines() if "taken" in line]
    assert [line for line in taken if "data objects" not in line] == []  # objects may be numbers


# ------------------------------------------------------------------------------------- beyond 2^31


def sparse_file(path: Path, size: int, dtype: Any) -> np.memmap:
    """An array on a file of which only the written pages exist; skips the test where that is not possible."""
    try:
        with open(path, "wb") as file:
            file.truncate(size * np.dtype(dtype).itemsize)
        if path.stat().st_blocks * 512 > 1 << 24:
            pytest.skip("this file system fills truncated files")
        return np.memmap(path, dtype=dtype, mode="r+", shape=(size,))
    except (OSError, ValueError, OverflowError) as error:
        pytest.skip(f"no sparse file of that size: {error}")


def test_rows_beyond_two_to_the_31_non_zeros(tmp_path: Path) -> None:
    """The kernel reads entries at offsets that int32 cannot hold; only the pages it needs exist."""
    small = canonical(np.float32, np.int64)
    small.sort_indices()
    offset = 2**31 + 11
    indices = sparse_file(tmp_path / "indices", offset + small.nnz, np.int64)
    data = sparse_file(tmp_path / "data", offset + small.nnz, np.float32)
    indices[offset:], data[offset:] = small.indices, small.data
    # one row with all that comes first, which is never read, then the rows in question
    indptr = np.concatenate([[0], small.indptr + offset]).astype(np.int64)
    rng = np.random.default_rng(0)
    for k in (3, 8, 16, 24):
        w = rng.normal(size=20).astype(np.float32)
        V = rng.normal(size=(20, k)).astype(np.float32)
        near, far = np.zeros(30, np.float32), np.zeros(31, np.float32)
        for isa in range(dispatch.ISA + 1):
            fm.forward(near, small.indptr, small.indices, small.data, 0.5, w, V, None, 0, 30, isa)
            fm.forward(far, indptr, indices, data, 0.5, w, V, None, 1, 31, isa)
            np.testing.assert_array_equal(far[1:], near)
            assert (near != 0).all()


def test_offsets_beyond_int32_are_checked_as_they_are() -> None:
    X = canonical(np.float32, np.int64)
    X.indptr = X.indptr.copy()
    X.indptr[-1] += 2**32  # equal to the right number modulo 2^32
    with pytest.raises(ValueError, match="at row 29: the row runs from"):
        check_csr(X)


# ------------------------------------------------------------------------------------- targets and weights


@pytest.mark.parametrize(
    "y", [[1, 2, 3], (1, 2, 3), np.array([1, 2, 3], np.int8), pd.Series([1, 2, 3], index=[7, 7, 9]), range(1, 4)]
)
def test_targets_are_float64(y: Any) -> None:
    target = check_target(y, 3)
    assert target.dtype == np.float64
    assert target.tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("y", "message"),
    [
        ([1, 2], r"shape \(3,\); got shape \(2,\)"),
        ([[1], [2], [3]], r"got shape \(3, 1\)"),
        ([1, np.nan, np.nan], r"y contains nan at position 1 \(2 such values\)"),
        ([1, 2, -np.inf], "contains -inf at position 2"),
        (["a", "b", "c"], "must hold numbers"),
        (["1", "2", "3"], "must hold numbers"),
        ([1, None, {}], "must hold numbers"),
        ([1, 2, 3j], "must hold numbers"),
        (np.array(["2020", "2021", "2022"], dtype="M8[Y]"), "must hold numbers"),
        (pd.array([1, None, 3], dtype="Int64"), "y"),
        (3.0, "shape"),
        (None, "shape"),
    ],
)
def test_wrong_targets_are_refused(y: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_target(y, 3)


@given(hnp.arrays(np.float64, st.integers(1, 8), elements=st.floats(0, 1e300)))
@settings(max_examples=80, deadline=None)
def test_weights_have_mean_one_and_keep_their_ratios(weight: np.ndarray) -> None:
    if not weight.any():
        with pytest.raises(ValueError, match="zero everywhere"):
            check_sample_weight(weight, len(weight))
        return
    before = weight.copy()
    out = check_sample_weight(weight, len(weight))
    np.testing.assert_array_equal(weight, before)
    if (weight == weight[0]).all():
        assert out is None
        return
    assert out is not None
    assert out.mean() == pytest.approx(1)
    np.testing.assert_allclose(out / out.max(), weight / weight.max(), rtol=1e-12, atol=1e-300)


def test_a_number_weighs_every_row_alike() -> None:
    assert check_sample_weight(None, 3) is None
    assert check_sample_weight(2.5, 3) is None
    assert check_sample_weight(pd.Series([1, 1, 1]), 3) is None
    assert check_sample_weight([True, False, True, True], 4).tolist() == [4 / 3, 0, 4 / 3, 4 / 3]


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        ([1, 2], r"shape \(3,\); got shape \(2,\)"),
        ([[1], [2], [3]], "got shape"),
        ([1, -1, 1], "not negative; got -1.0 at position 1"),
        ([1, 1, np.nan], "got nan at position 2"),
        ([1, np.inf, 1], "got inf at position 1"),
        ([0, 0, 0], "zero everywhere"),
        (0, "zero everywhere"),
        (["a", "b", "c"], "must hold numbers"),
        ([1, 1j, 1], "must hold numbers"),
    ],
)
def test_wrong_weights_are_refused(weight: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"sample_weight.*{message}"):
        check_sample_weight(weight, 3)


@pytest.mark.parametrize("value", [0, -1, -0.5, np.nan, np.inf, True, None, "1", [1], 1j])
def test_numbers_that_are_not_positive_are_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="rate must be a positive number, got"):
        check_positive(value, "rate")


def test_positive_numbers() -> None:
    for value in (1, 0.5, np.float32(0.5), np.int64(3), 10**30):
        check_positive(value, "rate")
    check_positive(0, "rate", zero=True)
    with pytest.raises(ValueError, match=r"n must be a non-negative integer, got 1\.0"):
        check_positive(1.0, "n", zero=True, integer=True)


def test_the_face_of_the_room() -> None:
    assert all(hasattr(validation, name) for name in validation.__all__)
