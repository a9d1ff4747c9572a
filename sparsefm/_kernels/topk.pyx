# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""Bindings of topk.h: the best of each row of scores."""
from libc.stdint cimport int32_t, int64_t

ctypedef fused REAL:
    float
    double

cdef extern from *:
    """
    #define BODY "topk.h"
    #include "instances.h"

    static void run_top(int isa, int is_f64, const topk_args *a, ptrdiff_t start, ptrdiff_t stop) {
        if (is_f64) DISPATCH_F64(top_of_rows, i32, isa, a, start, stop);
        else DISPATCH_F32(top_of_rows, i32, isa, a, start, stop);
    }
    """
    ctypedef struct topk_args:
        Py_ssize_t n_items, d, k
        void *scores
        const void *users
        const void *items
        const void *bias
        const double *slack
        const int64_t *starts
        const int32_t *seen
        int64_t *ids
        double *top
        void *heap
        int32_t *near

    void run_top(int isa, int is_f64, const topk_args *a, Py_ssize_t start, Py_ssize_t stop) nogil


def top(
    REAL[:, ::1] scores,        # INOUT (n_rows, n_items), of vectors alone; used up
    const REAL[:, ::1] users,   # IN (n_rows, d)
    const REAL[:, ::1] items,   # IN (n_items, d)
    const REAL[::1] bias,       # IN (n_items,)
    const double[::1] slack,    # IN (n_rows,) what rounding may have moved a score by
    const int64_t[::1] starts,  # IN (n_rows + 1,) of seen, None: nothing is left out
    const int32_t[::1] seen,    # IN items that are left out, row by row
    int64_t[:, ::1] ids,        # INOUT (n_rows, k), −1 to begin with
    double[:, ::1] top,         # INOUT (n_rows, k), −inf to begin with
    REAL[::1] heap,             # scratch (k,)
    int32_t[::1] near,          # scratch (n_items,)
    Py_ssize_t start,
    Py_ssize_t stop,
    int isa,
):
    """Lists of rows start … stop, the best first; equal scores in the order of the items."""
    cdef topk_args a
    a.n_items, a.d, a.k = scores.shape[1], users.shape[1], ids.shape[1]
    a.scores = &scores[0, 0]
    a.users = &users[0, 0] if a.d else NULL
    a.items = &items[0, 0] if a.d else NULL
    a.bias, a.slack = &bias[0], &slack[0]
    a.starts = NULL if starts is None else &starts[0]
    a.seen = NULL if seen is None or seen.shape[0] == 0 else &seen[0]
    a.ids, a.top, a.heap, a.near = &ids[0, 0], &top[0, 0], &heap[0], &near[0]
    with nogil:
        run_top(isa, sizeof(REAL) == 8, &a, start, stop)
