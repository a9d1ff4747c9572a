# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""Bindings of adaptive.h: one fused training pass, and the starting values of the factors."""
from libc.math cimport sqrt
from libc.stdint cimport int32_t, int64_t, uint64_t

ctypedef fused IDX:
    int32_t
    int64_t

ctypedef fused REAL:
    float
    double

cdef extern from *:
    """
    #define BODY "adaptive.h"
    #include "instances.h"

    static void run_epoch(int isa, int is_f64, int is_i64, epoch_args *a) {
        DISPATCH(epoch, epoch_isa(isa, a->kp), is_f64, is_i64, a);
    }
    """
    ctypedef struct epoch_args:
        const void *indptr
        const void *indices
        const void *data
        Py_ssize_t n_rows
        Py_ssize_t row_length
        const void *y
        const void *weight
        const void *order
        Py_ssize_t n_samples
        void *table
        Py_ssize_t n_features, stride, kp
        void *sums
        double w0, w0_state
        int optimiser, loss
        double learning_rate, epsilon, l2_linear, l2_factors
        double total

    void run_epoch(int isa, int is_f64, int is_i64, epoch_args *a) nogil


def epoch(
    REAL[:, ::1] table,         # INOUT (n_features, stride), layout in adaptive.h
    REAL[::1] sums,             # scratch (kp,)
    const IDX[::1] indptr,      # IN (n_rows + 1,)
    const IDX[::1] indices,     # IN (nnz,)
    const REAL[::1] data,       # IN (nnz,), None: every value is one
    Py_ssize_t row_length,      # non-zeros of every row, or −1 if they differ
    const REAL[::1] y,          # IN (n_rows,)
    const REAL[::1] weight,     # IN (n_rows,) with mean 1, None: all one
    const IDX[::1] order,       # IN (n_samples,) rows in the order of the pass
    double w0,
    double w0_state,
    int optimiser,              # 0 SGD, 1 AdaGrad
    int loss,                   # 0 squared, 1 logistic
    double learning_rate,
    double epsilon,
    double l2_linear,
    double l2_factors,
    int isa,
):
    """One pass; returns (w0, w0_state, Σ weight · loss before each sample's own update)."""
    cdef epoch_args a
    a.indptr = &indptr[0]
    a.indices = &indices[0]
    a.data = NULL if data is None else &data[0]
    a.n_rows = indptr.shape[0] - 1
    a.row_length = row_length
    a.y = &y[0]
    a.weight = NULL if weight is None else &weight[0]
    a.order = &order[0]
    a.n_samples = order.shape[0]
    a.table = &table[0, 0]
    a.n_features = table.shape[0]
    a.stride = table.shape[1]
    a.kp = sums.shape[0]
    a.sums = &sums[0]
    a.w0 = w0
    a.w0_state = w0_state
    a.optimiser = optimiser
    a.loss = loss
    a.learning_rate = learning_rate
    a.epsilon = epsilon
    a.l2_linear = l2_linear
    a.l2_factors = l2_factors
    a.total = 0
    with nogil:
        run_epoch(isa, sizeof(REAL) == 8, sizeof(IDX) == 8, &a)
    return a.w0, a.w0_state, a.total


cdef uint64_t GOLDEN = 0x9E3779B97F4A7C15ULL  # 2^64 / golden ratio: counters times it differ in all bits


cdef inline uint64_t mixed(uint64_t z) noexcept nogil:
    """Finaliser of splitmix64 (Steele, Lea & Flood 2014): a bijection whose output bits look independent."""
    z = (z ^ (z >> 30)) * <uint64_t>0xBF58476D1CE4E5B9ULL
    z = (z ^ (z >> 27)) * <uint64_t>0x94D049BB133111EBULL
    return z ^ (z >> 31)


def shuffle(IDX[::1] order, uint64_t seed):
    """Fills order with a permutation of 0 … n − 1 that is a function of n and the seed.

    Each place is mapped by a bijection of m-bit numbers, 2^m ≥ n: rounds of adding a key, multiplying by an
    odd number and folding the upper half onto the lower; a result beyond n is mapped again until it is not.
    No random access to memory, so it costs a small part of the pass it orders, unlike Fisher and Yates'.
    """
    cdef Py_ssize_t i, n = order.shape[0]
    cdef int bits = 8, r
    cdef uint64_t mask, x, add[4], multiply[4]
    while bits < 63 and (<uint64_t>1 << bits) < <uint64_t>n:
        bits += 1
    mask = (<uint64_t>1 << bits) - 1
    for r in range(4):
        add[r] = mixed(seed + <uint64_t>(2 * r + 1) * GOLDEN)
        multiply[r] = mixed(seed + <uint64_t>(2 * r + 2) * GOLDEN) | 1
    with nogil:
        for i in range(n):
            x = <uint64_t>i
            while True:
                for r in range(4):
                    x = ((x + add[r]) * multiply[r]) & mask
                    x ^= x >> (bits >> 1)
                if x < <uint64_t>n:
                    break
            order[i] = <IDX>x


def fill_uniform(
    REAL[:, ::1] V,             # OUT (n_features, ≥ n_factors): only rows named in features are written
    Py_ssize_t n_factors,
    const IDX[::1] features,    # IN (n_touched,)
    double std,
    uint64_t seed,
):
    """Uniform values of mean 0 and the given standard deviation from a counter: the value at (feature,
    factor) depends on those two and the seed alone, not on which other features there are."""
    cdef Py_ssize_t u, f
    cdef uint64_t key, bits
    cdef double half_width = std * sqrt(3.0)
    cdef REAL *row
    with nogil:
        for u in range(features.shape[0]):
            row = &V[<Py_ssize_t>features[u], 0]
            key = mixed(seed ^ mixed(<uint64_t>features[u] + GOLDEN))
            for f in range(n_factors):
                bits = mixed(key + <uint64_t>(f + 1) * GOLDEN)
                row[f] = <REAL>(half_width * ((<double>(bits >> 11)) * (2.0 / 9007199254740992.0) - 1.0))
