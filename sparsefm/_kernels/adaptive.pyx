# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""Bindings of adaptive.h: one fused training pass, the order of its samples, and the table it works on."""
from libc.math cimport sqrt
from libc.string cimport memcpy
from libc.stdint cimport int32_t, int64_t, uint16_t, uint32_t, uint64_t

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
    #include "random.h"

    static void run_epoch(int isa, int is_f64, int is_i64, epoch_args *a, const step_args *step) {
        DISPATCH(epoch, table_isa(isa, a->kp), is_f64, is_i64, a, step);
    }
    """
    ctypedef struct epoch_args:
        const void *indptr
        const void *indices
        const void *data
        Py_ssize_t n_rows, row_length
        const void *y
        const void *weight
        const void *order
        Py_ssize_t n_samples
        void *table
        Py_ssize_t n_features, stride, kp
        void *sums
        void *bias
        double bias_rate, bias_epsilon
        int loss
        double shape
        const int32_t *bucket
        double dropout
        void *kept_indices
        void *kept_data
        uint32_t key, first
        double total
        Py_ssize_t bad

    ctypedef struct step_args:
        int optimiser
        double rate, epsilon, beta1, beta2, l1, inverse_k

    uint64_t GOLDEN
    uint64_t mixed64(uint64_t z) nogil
    Py_ssize_t tail_at(int optimiser, Py_ssize_t kp)
    void run_epoch(int isa, int is_f64, int is_i64, epoch_args *a, const step_args *step) nogil


def tail_of(int optimiser, Py_ssize_t kp):
    """Reals of a row of the training table in front of its tail w, λ_w, λ_v, state; layout in steps.h."""
    return tail_at(optimiser, kp)


def epoch(
    REAL[:, ::1] table,         # INOUT (n_features, stride), layout in steps.h
    REAL[::1] bias,             # INOUT (7,), the tail of the bias
    REAL[::1] sums,             # scratch (kp,)
    const IDX[::1] indptr,      # IN (n_rows + 1,)
    const IDX[::1] indices,     # IN (nnz,)
    const REAL[::1] data,       # IN (nnz,), None: every value is one
    Py_ssize_t row_length,      # non-zeros of every row, or −1 if they differ
    const REAL[::1] y,          # IN (n_rows,)
    const REAL[::1] weight,     # IN (n_rows,) with mean 1, None: all one
    const IDX[::1] order,       # IN (n_samples,) rows in the order of the pass
    const int32_t[::1] bucket,  # IN (n_features,) column of unknown levels, −1: none; None: nowhere
    IDX[::1] kept_indices,      # scratch, as long as the longest row; None without dropout
    REAL[::1] kept_data,        # the same
    double dropout,
    uint32_t first,             # number of the first row, for dropout and rounding
    int optimiser,              # as in steps.h
    tuple steps,                # rate, epsilon, beta1, beta2, l1, rate and epsilon of the bias
    Py_ssize_t n_factors,
    int loss,                   # as in losses.h
    double shape,
    uint32_t key,               # of dropout and rounding
    int isa,
):
    """One pass; returns (Σ weight · loss before each sample's own update, row where it ended for a score that was
    not finite, or −1)."""
    cdef epoch_args a
    cdef step_args step
    if order.shape[0] == 0:
        return 0.0, -1
    step.optimiser = optimiser
    step.rate, step.epsilon, step.beta1, step.beta2, step.l1, a.bias_rate, a.bias_epsilon = steps
    step.inverse_k = 1.0 / max(1, n_factors)
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
    a.bias = &bias[0]
    a.loss = loss
    a.shape = shape
    a.bucket = NULL if bucket is None else &bucket[0]
    a.dropout = dropout
    a.kept_indices = NULL if kept_indices is None else &kept_indices[0]
    a.kept_data = NULL if kept_data is None else &kept_data[0]
    a.key = key
    a.first = first
    a.total = 0
    with nogil:
        run_epoch(isa, sizeof(REAL) == 8, sizeof(IDX) == 8, &a, &step)
    return a.total, a.bad


def shuffle(IDX[::1] order, uint64_t seed):
    """Fills order with a permutation of 0 … n − 1 that is a function of n and the seed.

    Each place is mapped by a bijection of m-bit numbers, 2^m ≥ n: rounds of adding a key, multiplying by an
    odd number and folding the upper half onto the lower; a result beyond n is mapped again until it is not.
    No random access to memory, so it costs a small part of the pass it orders, unlike Fisher and Yates'.
    """
    cdef Py_ssize_t i, n = order.shape[0]
    cdef int bits = 8, r
    cdef uint64_t mask, x
    cdef uint64_t[4] add
    cdef uint64_t[4] multiply
    while bits < 63 and (<uint64_t>1 << bits) < <uint64_t>n:
        bits += 1
    mask = (<uint64_t>1 << bits) - 1
    for r in range(4):
        add[r] = mixed64(seed + <uint64_t>(2 * r + 1) * GOLDEN)
        multiply[r] = mixed64(seed + <uint64_t>(2 * r + 2) * GOLDEN) | 1
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
    REAL[:, ::1] V,             # OUT (n_features, ≥ first + n_factors): only rows named in features are written
    Py_ssize_t first,           # place in a row where they begin
    Py_ssize_t n_factors,
    const IDX[::1] features,    # IN (n_touched,)
    double std,
    uint64_t seed,
    bint half=False,            # as bfloat16: COMPACT rows of steps.h
):
    """Uniform values of mean 0 and the given standard deviation from a counter: the value at (feature,
    factor) depends on those two and the seed alone, not on which other features there are."""
    cdef Py_ssize_t u, f
    cdef uint64_t key, bits
    cdef double value, half_width = std * sqrt(3.0)
    cdef float single
    cdef uint32_t word
    cdef REAL *row
    with nogil:
        for u in range(features.shape[0]):
            row = &V[<Py_ssize_t>features[u], 0]
            key = mixed64(seed ^ mixed64(<uint64_t>features[u] + GOLDEN))
            for f in range(first, first + n_factors):
                bits = mixed64(key + <uint64_t>(f + 1) * GOLDEN)
                value = half_width * ((<double>(bits >> 11)) * (2.0 / 9007199254740992.0) - 1.0)
                if half:
                    single = <float>value
                    memcpy(&word, &single, sizeof(word))
                    (<uint16_t *>row)[f] = <uint16_t>((word + 0x8000) >> 16)
                else:
                    row[f] = <REAL>value
