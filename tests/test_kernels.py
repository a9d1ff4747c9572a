"""The compiled floor against brute force, on every instruction set this machine has.

This file needs the installed package only, so that a built wheel can be tested from anywhere.
"""

import itertools
import os
import subprocess
import sys

import numpy as np
import pytest
import reference
import scipy.sparse as sp

from sparsefm import model
from sparsefm._kernels import adaptive, csr, dense, dispatch, fm, isa

ISAS = [dispatch.ISA_NAMES.index(name) for name in isa.supported()]
RANKS = (0, 1, 3, 7, 8, 9, 15, 16, 17, 24, 31, 32, 33, 48, 64, 65, 100)


def random_rows(rng, n_rows, n_features, real, index, *, density=0.3, ones=False):
    X = sp.random_array((n_rows, n_features), density=density, format="csr", rng=rng)
    X.sort_indices()
    data = np.ones(X.nnz) if ones else rng.standard_normal(X.nnz)
    return X.indptr.astype(index), X.indices.astype(index), data.astype(real)


def parameters(rng, n_features, k, real):
    return (
        0.25,
        rng.standard_normal(n_features).astype(real),
        rng.standard_normal((n_features, k)).astype(real),
    )


def run_forward(indptr, indices, data, w0, w, V, path, *, with_sums=False):
    out = np.full(len(indptr) - 1, np.nan, dtype=w.dtype)
    sums = np.zeros((len(out), -(-V.shape[1] // 16) * 16), dtype=w.dtype) if with_sums else None
    fm.forward(out, indptr, indices, data, w0, w, V, sums, 0, len(out), path)
    return (out, sums) if with_sums else out


def tolerance(real, nnz, k, scale):
    """n · eps of the size of the sums: n the additions that end in one number."""
    return (1e-12 if real is np.float64 else (nnz + k) * np.finfo(np.float32).eps) * scale


@pytest.mark.parametrize("index", [np.int32, np.int64])
@pytest.mark.parametrize("real", [np.float32, np.float64])
@pytest.mark.parametrize("k", RANKS)
@pytest.mark.parametrize("path", ISAS)
def test_scores_equal_the_definition(path, k, real, index):
    rng = np.random.default_rng(k)
    n_features = 23
    rows = random_rows(rng, 17, n_features, real, index)
    w0, w, V = parameters(rng, n_features, k, real)
    expected = reference.score(*rows, w0, w, V)
    scale = reference.magnitude(*rows, w0, w, V).max()
    np.testing.assert_allclose(
        run_forward(*rows, w0, w, V, path), expected, rtol=0, atol=tolerance(real, n_features, k, scale)
    )


@pytest.mark.parametrize("k", (0, 3, 8, 16, 40))
@pytest.mark.parametrize("path", ISAS)
def test_the_flag_for_values_of_one_changes_nothing(path, k):
    rng = np.random.default_rng(1)
    indptr, indices, data = random_rows(rng, 40, 30, np.float32, np.int32, ones=True)
    w0, w, V = parameters(rng, 30, k, np.float32)
    with_values = run_forward(indptr, indices, data, w0, w, V, path)
    without = run_forward(indptr, indices, None, w0, w, V, path)
    np.testing.assert_allclose(without, with_values, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("k", (3, 8, 16, 20))
@pytest.mark.parametrize("path", ISAS)
def test_factors_inside_a_wider_table_score_like_factors_of_their_own(path, k):
    rng = np.random.default_rng(2)
    rows = random_rows(rng, 40, 30, np.float32, np.int32)
    w0, w, V = parameters(rng, 30, k, np.float32)
    table = np.full((30, k + 5), np.nan, dtype=np.float32)
    table[:, :k], table[:, k + 2] = V, w
    inside = run_forward(*rows, w0, table[:, k + 2], table[:, :k], path)
    assert (inside == run_forward(*rows, w0, w, V, path)).all()


LAST_ROWS = """
import ctypes, mmap, sys
import numpy as np
from sparsefm._kernels import fm

page, n, path = mmap.PAGESIZE, 9, int(sys.argv[1])
block = mmap.mmap(-1, 2 * page)
memory = np.frombuffer(block, dtype=np.uint8)
libc = ctypes.CDLL(None, use_errno=True)
assert libc.mprotect(ctypes.c_void_p(memory.ctypes.data + page), ctypes.c_size_t(page), 0) == 0
w, indptr, indices = np.zeros(n, np.float32), np.array([0, n], np.int32), np.arange(n, dtype=np.int32)
for k in (1, 5, 9, 17, 33):
    V = memory[page - 4 * n * k : page].view(np.float32).reshape(n, k)
    V[...] = 1
    out = np.empty(1, np.float32)
    fm.forward(out, indptr, indices, None, 0.0, w, V, None, 0, 1, path)
    assert out[0] == k * n * (n - 1) / 2, (k, out)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="protects a page of memory through Linux' libc")
@pytest.mark.parametrize("path", ISAS)
def test_the_last_rows_are_read_without_leaving_the_array(path):
    """A full vector read from the last row of an unpadded V would run past it, here into a forbidden page."""
    subprocess.run([sys.executable, "-c", LAST_ROWS, str(path)], check=True)


def test_one_large_value_does_not_cancel_the_pairs():
    """(Σz)² − Σz² loses the small pairs beside one |x| of 1000; the running form keeps them."""
    rng = np.random.default_rng(3)
    data = rng.standard_normal(40).astype(np.float32)
    data[7] = 1000.0
    indptr, indices = np.array([0, 40], np.int32), np.arange(40, dtype=np.int32)
    _, w, V = parameters(rng, 40, 16, np.float32)
    V[7] *= 1e-3
    expected = reference.score(indptr, indices, data, 0.0, w, V)[0]
    got = run_forward(indptr, indices, data, 0.0, w, V, dispatch.ISA)[0]
    assert abs(got - expected) < 1e-4 * abs(expected)


@pytest.mark.parametrize("index", [np.int32, np.int64])
@pytest.mark.parametrize("real", [np.float32, np.float64])
@pytest.mark.parametrize("k", (0, 1, 5, 8, 16, 17, 32, 70))
@pytest.mark.parametrize("path", ISAS)
def test_gradients_equal_the_definition(path, k, real, index):
    rng = np.random.default_rng(k + 100)
    n_features = 19
    indptr, indices, data = random_rows(rng, 25, n_features, real, index)
    w0, w, V = parameters(rng, n_features, k, real)
    d = rng.standard_normal(25).astype(real)
    _, sums = run_forward(indptr, indices, data, w0, w, V, path, with_sums=True)
    g_data = np.empty_like(data)
    fm.backward_rows(g_data, indptr, indices, data, w, V, sums, d, 0, 25, path)
    touched, colptr, entries, entry_rows = transposed(indptr, indices)
    g_w = np.empty(len(touched), dtype=real)
    g_V = np.full((len(touched), k), np.nan, dtype=real)
    fm.backward_columns(g_w, g_V, touched, colptr, entry_rows, data[entries], V, sums, d, 0, len(touched), path)

    _, expected_w, expected_V, expected_data = reference.gradient(indptr, indices, data, w0, w, V, d)
    # twice the sum of absolute terms: S − z is the sum over the others, computed by taking z off again
    sizes = reference.gradient(indptr, indices, abs(data), w0, abs(w), abs(V), abs(d))[1:]
    results = (g_w, expected_w[touched]), (g_V, expected_V[touched]), (g_data, expected_data)
    for (got, expected), size in zip(results, sizes, strict=True):
        atol = tolerance(real, n_features + 25, k, 2 * size.max(initial=0))
        np.testing.assert_allclose(got, expected, rtol=0, atol=atol)
    assert (np.delete(expected_w, touched) == 0).all()


def at(array):
    return 0 if array is None else array.ctypes.data


@pytest.mark.parametrize("index", [np.int32, np.int64])
@pytest.mark.parametrize("real", [np.float32, np.float64])
@pytest.mark.parametrize("k", (1, 5, 8, 16, 17, 32, 70))
@pytest.mark.parametrize("path", ISAS)
def test_pairs_by_factor_and_their_gradients_equal_the_definition(path, k, real, index):
    rng = np.random.default_rng(k + 200)
    n_rows, n_features, stride = 14, 11, -(-k // 16) * 16
    indptr, indices, data = random_rows(rng, n_rows, n_features, real, index)
    V = rng.standard_normal((n_features, k)).astype(real)
    kind = path, real is np.float64, index is np.int64
    rows = at(indptr), at(indices), at(data)
    pairs, sums = np.full((n_rows, k), np.nan, real), np.full((n_rows, stride), np.nan, real)
    fm.forward_at(*kind, 0, n_rows, *rows, 0.0, 0, 0, at(V), k, n_features, k, 0, at(pairs), at(sums), stride)
    d = np.zeros((n_rows, stride), real)
    d[:, :k] = rng.standard_normal((n_rows, k))
    g_data = np.full(len(data), np.nan, real)
    fm.backward_rows_at(
        *kind, 0, n_rows, *rows, 0, 0, at(V), k, n_features, k, at(sums), stride, at(d), True, at(g_data)
    )
    touched, colptr, entries, entry_rows = transposed(indptr, indices)
    g_V, entry_data = np.full((len(touched), k), np.nan, real), data[entries]
    fm.backward_columns_at(
        *kind[:2], 0, len(touched), len(touched), at(touched), at(colptr), at(entry_rows), at(entry_data),
        at(V), k, k, at(sums), stride, at(d), True, 0, at(g_V),
    )  # fmt: skip

    nothing, expected_data = np.zeros(n_features), np.zeros(len(data))
    atol = tolerance(real, n_features + n_rows, k, 50)
    for f in range(k):  # a machine of rank one without a linear part
        one = indptr, indices, data, 0.0, nothing, V[:, f : f + 1]
        _, _, expected_V, by_factor = reference.gradient(*one, d[:, f])
        np.testing.assert_allclose(pairs[:, f], reference.score(*one), rtol=0, atol=atol)
        np.testing.assert_allclose(g_V[:, f], expected_V[touched, 0], rtol=0, atol=atol)
        expected_data += by_factor
    np.testing.assert_allclose(g_data, expected_data, rtol=0, atol=atol * k)


@pytest.mark.parametrize("real", [np.float32, np.float64])
@pytest.mark.parametrize("k", (0, 1, 5, 8, 16, 17, 40))
@pytest.mark.parametrize("n_features", (1, 7, 16, 35))
@pytest.mark.parametrize("path", ISAS)
def test_dense_scores_and_gradients_equal_the_definition(path, n_features, k, real):
    rng = np.random.default_rng(k + 300)
    n_rows, stride = 11, max(1, -(-k // 16)) * 16
    x = rng.standard_normal((n_rows, n_features)).astype(real)
    w0, w, _ = parameters(rng, n_features, k, real)
    V = rng.standard_normal((n_features, k + 3)).astype(real)[:, :k]  # of a wider table
    d = rng.standard_normal(n_rows).astype(real)
    kind = path, real is np.float64
    out, sums = np.full(n_rows, np.nan, real), np.zeros((n_rows, stride), real)
    for start, stop in ((0, 5), (5, n_rows)):
        dense.forward_at(*kind, start, stop, at(x), w0, at(w), at(V), k + 3, n_features, k, at(out), at(sums), stride)
    g_x, g_w, g_V = (np.full(shape, np.nan, real) for shape in (x.shape, w.shape, (n_features, k)))
    given = at(x), at(w), at(V), k + 3, n_rows, n_features, k, at(sums), stride, at(d)
    for start in range(0, n_features, 16):
        dense.backward_at(*kind, start, min(start + 16, n_features), *given, at(g_x), at(g_w), at(g_V))

    every = np.arange(0, n_rows * n_features + 1, n_features), np.tile(np.arange(n_features), n_rows), x.ravel()
    atol = tolerance(real, n_features + n_rows, k, 60 * (1 + n_features / 8))
    _, expected_w, expected_V, expected_x = reference.gradient(*every, w0, w, V, d)
    np.testing.assert_allclose(out, reference.score(*every, w0, w, V), rtol=0, atol=atol)
    np.testing.assert_allclose(g_w, expected_w, rtol=0, atol=atol)
    np.testing.assert_allclose(g_V, expected_V, rtol=0, atol=atol)
    np.testing.assert_allclose(g_x.ravel(), expected_x, rtol=0, atol=atol)
    alone_x, alone_w, alone_V = np.empty_like(g_x), np.empty_like(g_w), np.empty_like(g_V)
    for start in range(0, n_features, 16):
        piece = *kind, start, min(start + 16, n_features), *given
        dense.backward_at(*piece, at(alone_x), 0, 0)
        dense.backward_at(*piece, 0, at(alone_w), at(alone_V))
    np.testing.assert_array_equal(alone_x, g_x)
    np.testing.assert_array_equal(alone_w, g_w)
    np.testing.assert_array_equal(alone_V, g_V)


@pytest.mark.parametrize("index", [np.int32, np.int64])
def test_rows_that_would_be_read_outside_their_arrays_are_found(index):
    indptr, indices = np.array([0, 2, 2, 4], index), np.array([0, 3, 1, 2], index)

    def valid(indptr=indptr, indices=indices, n_features=4):
        return csr.valid_at(index is np.int64, 3, 4, n_features, at(indptr), at(indices))

    assert valid()
    assert not valid(n_features=3)
    for place, value in itertools.product(range(4), (-1, 4, np.iinfo(index).max, np.iinfo(index).min)):
        wrong = indices.copy()
        wrong[place] = value
        assert not valid(indices=wrong)
    for wrong in ([1, 2, 2, 4], [0, 2, 2, 3], [0, 2, 2, 5], [0, 3, 2, 4], [0, 5, 2, 4], [0, -1, 2, 4]):
        assert not valid(indptr=np.array(wrong, index))


def test_gradients_equal_finite_differences():
    rng = np.random.default_rng(4)
    indptr, indices, data = random_rows(rng, 12, 9, np.float64, np.int32)
    w0, w, V = parameters(rng, 9, 5, np.float64)
    d = rng.standard_normal(12)

    def loss(w, V, data):
        return float(d @ run_forward(indptr, indices, data, w0, w, V, dispatch.ISA))

    compact = model.gradient(model.FMParams(w0, w, V), sp.csr_array((data, indices, indptr), shape=(12, 9)), d)
    g_w, g_V = np.zeros_like(w), np.zeros_like(V)
    g_w[compact.features], g_V[compact.features] = compact.w, compact.V
    for which, gradient in enumerate((g_w, g_V, compact.data)):
        for place in np.ndindex(gradient.shape):
            moved = [w.copy(), V.copy(), data.copy()]
            moved[which][place] += 1e-6
            up = loss(*moved)
            moved[which][place] -= 2e-6
            assert (up - loss(*moved)) / 2e-6 == pytest.approx(gradient[place], rel=1e-6, abs=1e-7)


def transposed(indptr, indices):
    """With the position of each entry as its value."""
    nnz = len(indices)
    features, colptr, entry_rows = np.empty(nnz, np.int64), np.empty(nnz + 1, np.int64), np.empty(nnz, np.int64)
    entries, positions = np.empty(nnz), np.arange(nnz, dtype=np.float64)
    n_touched = csr.transpose(features, colptr, entry_rows, entries, indptr, indices, positions)
    return features[:n_touched], colptr[: n_touched + 1], entries.astype(np.int64), entry_rows


@pytest.mark.parametrize("n_rows", [3, 300, 3000])
@pytest.mark.parametrize("n_features", [1, 2, 5, 4095, 4096, 4097, 5_000_000, 2**24, 2**40])
def test_transposing_lists_each_feature_once_with_its_rows_in_order(n_features, n_rows):
    rng = np.random.default_rng(5)
    lengths = rng.integers(0, 6, size=n_rows)
    indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    indices = rng.integers(0, n_features, size=indptr[-1], dtype=np.int64)
    features, colptr, entries, entry_rows = transposed(indptr, indices)
    assert (features == np.unique(indices)).all()
    assert (np.sort(entries) == np.arange(len(indices))).all()
    assert (indices[entries] == np.repeat(features, np.diff(colptr))).all()
    assert (entry_rows == np.searchsorted(indptr, entries, side="right") - 1).all()
    for a, b in itertools.pairwise(colptr):
        assert (np.diff(entries[a:b]) > 0).all()


def test_transposing_nothing_gives_nothing():
    features, colptr, entries, _ = transposed(np.zeros(4, np.int32), np.empty(0, np.int32))
    assert len(features) == len(entries) == 0
    assert colptr.tolist() == [0]


def test_transposing_more_than_fits_a_word_is_refused():
    indices = np.array([2**62, 0, 5, 7, 8], dtype=np.int64)
    with pytest.raises(OverflowError, match="split it"):
        transposed(np.array([0, 5], np.int64), indices)


@pytest.mark.parametrize("n", [1, 2, 3, 7, 255, 256, 257, 10_000])
@pytest.mark.parametrize("index", [np.int32, np.int64])
def test_shuffling_is_a_permutation_that_depends_on_the_seed(n, index):
    orders = []
    for seed in (0, 1, 2**64 - 1):
        order = np.full(n, -1, dtype=index)
        adaptive.shuffle(order, seed)
        assert (np.sort(order) == np.arange(n)).all()
        orders.append(order.tolist())
    if n > 100:
        assert len(set(map(tuple, orders))) == 3


def test_shuffling_puts_every_row_everywhere_about_equally_often():
    n, repeats = 12, 6000
    counts, neighbours = np.zeros((n, n)), np.zeros((n, n))
    order = np.empty(n, dtype=np.int32)
    for seed in range(repeats):
        adaptive.shuffle(order, seed * 1_000_003)
        counts[np.arange(n), order] += 1
        neighbours[order[:-1], order[1:]] += 1
    # chi-squared with 121 degrees of freedom lies below 200 with probability 1 − 1e-5
    assert ((counts - repeats / n) ** 2 / (repeats / n)).sum() < 200
    off_diagonal = neighbours[~np.eye(n, dtype=bool)]
    assert abs(off_diagonal / (repeats / n) - 1).max() < 0.25


def test_starting_factors_have_the_mean_and_spread_asked_for():
    V = np.zeros((20_000, 8), dtype=np.float32)
    adaptive.fill_uniform(V, 0, 8, np.arange(20_000), 0.1, 7)
    assert abs(V.mean()) < 1e-3
    assert V.std() == pytest.approx(0.1, rel=0.01)
    assert np.abs(V).max() <= 0.1 * np.sqrt(3) * (1 + 1e-6)
    assert np.abs(np.corrcoef(V.T) - np.eye(8)).max() < 0.03
    assert abs(np.corrcoef(V[:-1, 0], V[1:, 0])[0, 1]) < 0.03


@pytest.mark.parametrize("name", isa.supported())
def test_the_environment_chooses_the_path(name):
    code = "from sparsefm._kernels import dispatch; print(dispatch.ISA_NAMES[dispatch.ISA])"
    environment = os.environ | {"SPARSEFM_ISA": name}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == name


def test_an_unknown_path_is_refused_by_name():
    with pytest.raises(ValueError, match="SPARSEFM_ISA is 'mmx'"):
        dispatch.choose_isa("mmx")


def test_the_widest_path_is_the_default():
    assert dispatch.choose_isa(None) == dispatch.choose_isa("") == max(ISAS)


@pytest.mark.parametrize("bad", [0, -1, 1.5, True, "2"])
def test_a_thread_count_that_is_no_positive_integer_is_refused(bad):
    with pytest.raises(ValueError, match="n_threads must be a positive integer"):
        dispatch.n_threads_or_default(bad)


@pytest.mark.parametrize("n_threads", [1, 2, 3, 4])
def test_pieces_cover_the_range_once(n_threads):
    seen = np.zeros(1000, dtype=int)

    def run(start, stop):
        seen[start:stop] += 1

    dispatch.run_pieces(run, 1000, 10**9, n_threads)
    assert (seen == 1).all()


def test_an_error_in_a_piece_reaches_the_caller():
    def run(start, stop):
        raise RuntimeError("in a thread")

    with pytest.raises(RuntimeError, match="in a thread"):
        dispatch.run_pieces(run, 1000, 10**9, 2)
