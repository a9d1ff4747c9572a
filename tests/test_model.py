"""model: the equation against brute force, its identities, and its gradient."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import reference
import scipy.sparse as sp
from hypothesis import given, settings

from sparsefm import model
from sparsefm._kernels import dispatch
from sparsefm.model import FMParams, aligned_zeros, gradient, init, represent, score
from sparsefm.validation import check_csr

RANKS = [0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 24, 33, 70]
DTYPES = [np.float32, np.float64]


def params_of(n_features: int, k: int, dtype: Any = np.float64, seed: int = 0) -> FMParams:
    rng = np.random.default_rng(seed)
    return FMParams(
        float(rng.normal()),
        rng.normal(size=n_features).astype(dtype),
        rng.normal(size=(n_features, k)).astype(dtype),
    )


def rows_of(n: int, m: int, dtype: Any = np.float64, *, ones: bool = False, seed: int = 0) -> sp.csr_array:
    """Rows of very different lengths, empty ones among them."""
    rng = np.random.default_rng(seed)
    mask = rng.random((n, m)) < rng.random((n, 1)) ** 2
    return sp.csr_array(np.where(mask, 1 if ones else rng.normal(size=(n, m)), 0).astype(dtype))


def parts(X: sp.csr_array, p: FMParams) -> tuple[Any, ...]:
    return X.indptr, X.indices, X.data, p.w0, p.w, p.V


def big(k: int = 16, n: int = 6000, m: int = 3000, dtype: Any = np.float32) -> tuple[FMParams, sp.csr_array]:
    """Enough work for several pieces (see dispatch.run_pieces), with rows of uneven length."""
    rng = np.random.default_rng(4)
    lengths = rng.integers(0, 160, n)
    indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    indices = np.concatenate([np.sort(rng.choice(m, each, replace=False)) for each in lengths])
    X = sp.csr_array((rng.normal(size=len(indices)).astype(dtype), indices.astype(np.int32), indptr), shape=(n, m))
    assert X.nnz * (k + 4) > 3 * dispatch._WORK_PER_PIECE
    return params_of(m, k, dtype), X


# ------------------------------------------------------------------------------------------- the score


@pytest.mark.parametrize("ones", [False, True])
@pytest.mark.parametrize("k", RANKS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_score_is_the_sum_over_pairs(dtype: type, k: int, ones: bool) -> None:
    p, X = params_of(13, k, dtype), rows_of(25, 13, dtype, ones=ones)
    exact, size = reference.score(*parts(X, p)), reference.magnitude(*parts(X, p))
    got = score(p, X)
    assert got.dtype == dtype
    # every intermediate sum is at most `size`, and there are no more of them than non-zeros and lanes
    bound = 2 * (13 + k + 4) * np.finfo(dtype).eps * size
    assert (np.abs(got.astype(np.float64) - exact) <= bound).all()


def test_score_by_hand() -> None:
    p = FMParams(0.5, np.array([1.0, 2.0, 4.0]), np.array([[1.0, 2.0], [3.0, 0.0], [0.0, 1.0]]))
    # 0.5 + (1·1 + 2·10) + <v0, v1> · 1 · 10, and 0.5 + (2 + 4) + <v1, v2>, and a row of nothing
    assert score(p, [[1, 10, 0], [0, 1, 1], [0, 0, 0]]).tolist() == [0.5 + 21 + 3 * 10, 6.5 + 0, 0.5]


@pytest.mark.parametrize("dtype", DTYPES)
def test_one_large_value_does_not_cancel_the_pairs_of_others(dtype: type) -> None:
    """((Σz)² − Σz²) / 2 would lose them: 1e8 + 1 is 1e8 in float32."""
    V = np.array([[1e4], [1e-2], [2e-2]], dtype=dtype)
    V[0] *= 1e4
    p = FMParams(0.0, np.zeros(3, dtype), V)
    X = np.array([[1, 1e-8, 1e-8], [0, 1, 1]], dtype=dtype)
    exact = reference.score(*parts(sp.csr_array(X), p))
    np.testing.assert_allclose(score(p, X), exact, rtol=4 * np.finfo(dtype).eps)


@pytest.mark.parametrize("k", [0, 3, 8, 16])
@pytest.mark.parametrize("isa", range(dispatch.ISA + 1))
def test_every_instruction_set(monkeypatch: pytest.MonkeyPatch, isa: int, k: int) -> None:
    monkeypatch.setattr(dispatch, "ISA", isa)
    for dtype in DTYPES:
        p, X = params_of(13, k, dtype), rows_of(25, 13, dtype)
        size = reference.magnitude(*parts(X, p))
        assert (np.abs(score(p, X) - reference.score(*parts(X, p))) <= 60 * np.finfo(dtype).eps * size).all()


@pytest.mark.parametrize("k", [0, 3, 8, 16])
def test_dense_is_sparse(k: int) -> None:
    p, X = params_of(13, k, np.float32), rows_of(25, 13, np.float32)
    expected = score(p, X)
    for same in (
        X.toarray(),
        np.asfortranarray(X.toarray()),
        X.toarray().tolist(),
        X.tocsc(),
        X.tocoo(),
        sp.csr_matrix(X),
    ):
        np.testing.assert_array_equal(score(p, same), expected)


@pytest.mark.parametrize("index", [np.int32, np.int64])
def test_index_type_does_not_change_the_bits(index: type) -> None:
    p, X = params_of(13, 5, np.float32), rows_of(25, 13, np.float32)
    expected = score(p, X)
    X.indptr, X.indices = X.indptr.astype(index), X.indices.astype(index)
    np.testing.assert_array_equal(score(p, X), expected)


@given(st.integers(0, 10**6), st.sampled_from([0, 1, 3, 8, 17]))
@settings(max_examples=40, deadline=None)
def test_permuting_features_changes_nothing(seed: int, k: int) -> None:
    p, X = params_of(9, k, seed=seed), rows_of(6, 9, seed=seed)
    order = np.random.default_rng(seed).permutation(9)
    turned = FMParams(p.w0, p.w[order], np.ascontiguousarray(p.V[order]))
    np.testing.assert_allclose(score(turned, X[:, order]), score(p, X), rtol=1e-12, atol=1e-11)


@pytest.mark.parametrize("k", [0, 3, 8, 16])
def test_a_row_scores_alike_alone_and_among_others(k: int) -> None:
    p, X = params_of(13, k, np.float32), rows_of(25, 13, np.float32)
    expected = score(p, X)
    np.testing.assert_array_equal(score(p, sp.vstack([X, X])), np.r_[expected, expected])
    for i in range(25):
        np.testing.assert_array_equal(score(p, X[[i]]), expected[[i]])


def test_factors_on_top_of_a_wider_table_are_read_in_place() -> None:
    p, X = params_of(13, 11, np.float32), rows_of(25, 13, np.float32)
    for k in (1, 3, 5, 8):
        for first in (0, 3):
            strided = FMParams(p.w0, p.V[:, 10], p.V[:, first : first + k])
            packed = FMParams(p.w0, p.V[:, 10].copy(), p.V[:, first : first + k].copy())
            np.testing.assert_array_equal(score(strided, X), score(packed, X))


def test_weights_may_run_backwards() -> None:
    p, X = params_of(13, 4), rows_of(25, 13)
    np.testing.assert_array_equal(score(FMParams(p.w0, p.w[::-1].copy()[::-1], p.V), X), score(p, X))


def test_read_only_parameters() -> None:
    p, X = params_of(13, 4), rows_of(25, 13)
    expected = score(p, X)
    for array in (p.w, p.V):
        array.flags.writeable = False
    np.testing.assert_array_equal(score(p, X), expected)
    gradient(p, X, np.ones(25))


def test_padding_beyond_the_last_factors_is_never_read() -> None:
    """Ranks that fill no vector, with the factors at the very end of a page."""
    for k in (1, 3, 5, 9, 17):
        for n in (1, 2, 3):
            table = np.full(n * k + 64, np.nan, dtype=np.float32)
            V = table[: n * k].reshape(n, k)
            V[...] = np.arange(n * k).reshape(n, k)
            p = FMParams(0.0, np.ones(n, np.float32), V)
            got = score(p, np.ones((2, n), np.float32))
            expected = reference.score(*parts(sp.csr_array(np.ones((2, n))), p))
            np.testing.assert_allclose(got, expected, rtol=1e-5)
            g = gradient(p, np.ones((2, n), np.float32), np.ones(2))
            assert np.isfinite(g.V).all()
            assert np.isfinite(g.data).all()


@pytest.mark.parametrize("shape", [(0, 4), (3, 0), (0, 0)])
@pytest.mark.parametrize("k", [0, 3, 8])
def test_rows_or_columns_of_nothing(shape: tuple[int, int], k: int) -> None:
    p = params_of(shape[1], k)
    np.testing.assert_array_equal(score(p, sp.csr_array(shape)), np.full(shape[0], p.w0))
    g = gradient(p, sp.csr_array(shape), np.ones(shape[0]))
    assert (g.w0, len(g.features), g.w.shape, g.V.shape, g.data.shape) == (shape[0], 0, (0,), (0, k), (0,))


def test_another_width_is_refused() -> None:
    with pytest.raises(ValueError, match="3 columns, but 4 are expected"):
        score(params_of(4, 2), np.eye(3))


def test_values_beyond_the_parameters_type_are_refused() -> None:
    p = params_of(2, 2, np.float32)
    for X in ([[1e300, 0.5]], check_csr([[1e300, 0.5]])):
        with pytest.raises(ValueError, match="too large for float32"):
            score(p, X)


@pytest.mark.parametrize("n_threads", [0, -1, 1.5, True, "2"])
def test_impossible_numbers_of_threads(n_threads: Any) -> None:
    with pytest.raises(ValueError, match="n_threads must be a positive integer or None"):
        score(params_of(3, 2), np.eye(3), n_threads=n_threads)


# ------------------------------------------------------------------------------------------ the gradient


@pytest.mark.parametrize("ones", [False, True])
@pytest.mark.parametrize("k", RANKS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_gradient_is_the_formula(dtype: type, k: int, ones: bool) -> None:
    p, X = params_of(13, k, dtype), rows_of(25, 13, dtype, ones=ones)
    d = np.random.default_rng(1).normal(size=25).astype(dtype)
    got = gradient(p, X, d)
    w0, w, V, data = reference.gradient(*parts(X, p), d)
    touched = np.unique(X.indices)
    np.testing.assert_array_equal(got.features, touched)
    tolerance = {"rtol": 300 * np.finfo(dtype).eps, "atol": 300 * np.finfo(dtype).eps}
    np.testing.assert_allclose(got.w0, w0, **tolerance)
    np.testing.assert_allclose(got.w, w[touched], **tolerance)
    np.testing.assert_allclose(got.V, V[touched], **tolerance)
    np.testing.assert_allclose(got.data, data, **tolerance)
    assert got.w.dtype == got.V.dtype == got.data.dtype == dtype


@pytest.mark.parametrize("k", [0, 1, 3, 8])
def test_gradient_is_what_finite_differences_say(k: int) -> None:
    # columns shared by many rows, some touched once, one never
    X = sp.csr_array(np.array([[1.5, 0, -2, 1, 0], [1, 3, 0, 0.5, 0], [0, 0, 0, 2, 0], [0, 0, 0, 0, 0]]))
    p, d = params_of(5, k), np.array([0.3, -1.2, 2.0, 0.7])
    got = gradient(p, X, d)
    assert got.features.tolist() == [0, 1, 2, 3]
    # the sum of scores is a quadratic of each single parameter: central differences are exact but for rounding
    h = 1e-3

    def slope(change: Any) -> float:
        up, down = change(h), change(-h)
        return float(d @ (score(*up) - score(*down))) / (2 * h)

    assert got.w0 == pytest.approx(slope(lambda e: (FMParams(p.w0 + e, p.w, p.V), X)))
    for at, j in enumerate(got.features):
        unit = np.arange(5) == j
        assert got.w[at] == pytest.approx(slope(lambda e, u=unit: (FMParams(p.w0, p.w + e * u, p.V), X)))
        for f in range(k):
            direction = np.outer(unit, np.arange(k) == f)
            by_v = slope(lambda e, u=direction: (FMParams(p.w0, p.w, p.V + e * u), X))
            assert got.V[at, f] == pytest.approx(by_v, abs=1e-9)
    for at in range(X.nnz):
        unit = np.arange(X.nnz) == at

        def moved(e: float, u: Any = unit) -> Any:
            return p, sp.csr_array((X.data + e * u, X.indices, X.indptr), shape=X.shape)

        assert got.data[at] == pytest.approx(slope(moved), abs=1e-9)


def test_gradient_refuses_a_wrong_number_of_derivatives() -> None:
    for d in (np.ones(2), np.ones((3, 1)), 1.0):
        with pytest.raises(ValueError, match=r"d must have one value a row of X, shape \(3,\)"):
            gradient(params_of(3, 2), np.eye(3), d)


def test_gradient_takes_any_numbers_as_derivatives() -> None:
    p, X = params_of(3, 2, np.float32), np.eye(3)
    expected = gradient(p, X, np.array([1, 2, 3], np.float32)).w
    for d in ([1, 2, 3], np.array([1, 0, 2, 0, 3])[::2], np.arange(1, 4, dtype=np.int8)):
        np.testing.assert_array_equal(gradient(p, X, d).w, expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_bits_do_not_depend_on_the_number_of_threads(dtype: type) -> None:
    p, X = big(dtype=dtype)
    d = np.random.default_rng(0).normal(size=X.shape[0])
    expected, slope = score(p, X, n_threads=1), gradient(p, X, d, n_threads=1)
    for n_threads in (2, 3, 4, None):
        np.testing.assert_array_equal(score(p, X, n_threads=n_threads), expected)
        for one, many in zip(slope, gradient(p, X, d, n_threads=n_threads), strict=True):
            np.testing.assert_array_equal(many, one)
    few = np.random.default_rng(1).choice(X.shape[0], 5)
    np.testing.assert_allclose(expected[few], reference.score(*parts(X[few], p)), rtol=1e-3, atol=1e-3)


@given(st.integers(0, 300), st.integers(0, 2**40), st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_pieces_cover_everything_once(n: int, work: int, n_threads: int) -> None:
    done: list[int] = []
    dispatch.run_pieces(lambda start, stop: done.extend(range(start, stop)), n, work, n_threads)
    assert sorted(done) == list(range(n))


def test_an_error_in_a_piece_comes_out() -> None:
    def fail(start: int, stop: int) -> None:
        raise MemoryError

    with pytest.raises(MemoryError):
        dispatch.run_pieces(fail, 100, 2**40, 2)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_scores_alike_after_threads_were_used() -> None:
    p, X = big()
    expected = score(p, X, n_threads=2)
    child = os.fork()
    if child == 0:
        os._exit(0 if np.array_equal(score(p, X, n_threads=2), expected) else 1)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            assert os.waitstatus_to_exitcode(status) == 0
            return
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    pytest.fail("the child did not finish")


# ------------------------------------------------------------------------------------------ two sides


@given(st.integers(0, 10**6), st.sampled_from([0, 1, 3, 8, 17]))
@settings(max_examples=40, deadline=None)
def test_both_sides_add_up_to_the_score(seed: int, k: int) -> None:
    p, X = params_of(11, k, seed=seed), rows_of(7, 11, seed=seed)
    mine = np.random.default_rng(seed).random(11) < 0.5
    X_users, X_items = (sp.csr_array(X.toarray()[:4] * mine), sp.csr_array(X.toarray()[4:] * ~mine))
    (b_u, P), (b_i, Q) = represent(p, X_users, X_items)
    assert (b_u.shape, P.shape, b_i.shape, Q.shape) == ((4,), (4, k), (3,), (3, k))
    for u in range(4):
        for i in range(3):
            whole = X_users[[u]] + X_items[[i]]
            parted = p.w0 + b_u[u] + b_i[i] + P[u] @ Q[i]
            size = reference.magnitude(*parts(sp.csr_array(whole), p))[0]
            assert abs(parted - score(p, whole)[0]) <= 1e-12 * max(1.0, size)


def test_a_column_on_both_sides_is_refused() -> None:
    p = params_of(4, 2)
    with pytest.raises(ValueError, match="1 columns are non-zero on both sides, the first being column 2"):
        represent(p, [[1, 0, 1, 0]], [[0, 0, 1, 1]])
    represent(p, [[1, 0, 0, 0]], sp.csr_array(([0.0, 1], [0, 1], [0, 2]), shape=(1, 4)))  # a stored zero
    with pytest.raises(ValueError, match="X_items has 3 columns"):
        represent(p, np.eye(4), np.eye(3))


# ------------------------------------------------------------------------------------------ parameters


@pytest.mark.parametrize(
    ("w", "V", "message"),
    [
        (np.zeros((3, 1)), np.zeros((3, 2)), r"got shapes \(3, 1\) and \(3, 2\)"),
        (np.zeros(3), np.zeros(3), r"got shapes \(3,\) and \(3,\)"),
        (np.zeros(3), np.zeros((4, 2)), r"\(3,\) and \(4, 2\)"),
        (np.zeros(3), np.zeros((3, 2), np.float32), "both be float32 or both float64"),
        (np.zeros(3, int), np.zeros((3, 2), int), "got int64 and int64"),
        (np.zeros(3, ">f8"), np.zeros((3, 2), ">f8"), "both be float32 or both float64"),
        (np.zeros(3, complex), np.zeros((3, 2), complex), "complex"),
        (np.zeros(3, np.float16), np.zeros((3, 2), np.float16), "float16"),
        (np.zeros(3), np.zeros((2, 3)).T, "side by side"),
        (np.zeros(3), np.zeros((3, 4))[:, ::2], "side by side"),
        (np.zeros(3), np.zeros((3, 2))[:, ::-1], "side by side"),
        (np.zeros(3), np.zeros((3, 2))[::-1], "side by side"),
        (np.zeros(3), np.broadcast_to(np.zeros(2), (3, 2)), "side by side"),
    ],
)
def test_parameters_that_do_not_go_together(w: Any, V: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FMParams(0.0, w, V)


def test_parameters_must_be_arrays() -> None:
    with pytest.raises(TypeError, match="must be NumPy arrays, got list and ndarray"):
        FMParams(0.0, [0.0], np.zeros((1, 2)))  # type: ignore[arg-type]


def test_strides_between_whole_numbers_of_values() -> None:
    """Columns of packed records: refused, or scored right."""
    X = np.ones((1, 5), np.float32)
    w = np.zeros(5, dtype={"names": ["w"], "formats": ["f4"], "offsets": [0], "itemsize": 6})["w"]
    V = np.zeros(5, dtype={"names": ["v"], "formats": [("f4", 2)], "offsets": [0], "itemsize": 10})["v"]
    w[:], V[:] = np.arange(5), np.arange(10).reshape(5, 2)
    for odd in ((w, V.copy()), (w.copy(), V)):
        expected = score(FMParams(0.0, w.copy(), V.copy()), X)
        try:
            got = score(FMParams(0.0, *odd), X)
        except ValueError:
            continue
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_feature_starts_alike_whichever_others_there_are(dtype: type) -> None:
    whole = init(50, 6, seed=3, dtype=dtype)
    some = np.array([3, 7, 49])
    part = init(50, 6, seed=3, features=some, dtype=dtype)
    np.testing.assert_array_equal(part.V[some], whole.V[some])
    assert not np.delete(part.V, some, axis=0).any()
    np.testing.assert_array_equal(init(1000, 6, seed=3, dtype=dtype).V[:50], whole.V)
    np.testing.assert_array_equal(init(50, 9, seed=3, dtype=dtype).V[:, :6], whole.V)
    assert not np.array_equal(init(50, 6, seed=4, dtype=dtype).V, whole.V)
    assert (whole.w0, whole.w.any(), whole.dtype) == (0, False, dtype)


def test_starting_factors_have_the_mean_and_deviation_asked_for() -> None:
    V = init(4000, 25, init_std=0.3, seed=1, dtype=np.float64).V
    n = V.size
    assert abs(V.mean()) < 5 * 0.3 / np.sqrt(n)
    assert abs(V.std() - 0.3) < 5 * 0.3 / np.sqrt(n)
    assert np.abs(V).max() <= 0.3 * np.sqrt(3)
    assert len(np.unique(V)) == n
    # neither features nor factors are correlated
    assert np.abs(np.corrcoef(V.T) - np.eye(25)).max() < 6 / np.sqrt(4000)
    assert np.abs(np.corrcoef(V[:200]) - np.eye(200)).max() < 6 / np.sqrt(25)


@pytest.mark.parametrize("shape", [(0, 0), (0, 5), (5, 0), (1, 1), (1000, 3)])
def test_aligned_zeros(shape: tuple[int, int]) -> None:
    for dtype in DTYPES:
        out = aligned_zeros(shape, dtype)
        assert out.shape == shape
        assert out.dtype == dtype
        assert out.flags.c_contiguous
        assert not out.any()
        assert out.size == 0 or out.ctypes.data % 64 == 0


def test_the_face_of_the_room() -> None:
    assert all(hasattr(model, name) for name in model.__all__)
