# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""Bindings of fm.h: scores, pairs by factor, and gradients of rows. They trust their input (validation.py and
ops are the doors) and work on the piece [start, stop) with the GIL released, so that threads can share one
call's output.

Each pass has two faces: typed views for arrays, and addresses (`_at`) for tensors, which offer no buffers.
An address of 0 is what None is for a view. Typed views are checked against each other when they are taken;
whoever passes addresses answers for types, lengths and contiguity.
"""
from libc.stdint cimport int32_t, int64_t
from libc.stdlib cimport free, malloc

ctypedef fused IDX:
    int32_t
    int64_t

ctypedef fused REAL:
    float
    double

cdef extern from *:
    """
    #define BODY "fm.h"
    #include "instances.h"

    static void run_forward(int isa, int is_f64, int is_i64, const forward_args *a) {
        DISPATCH(forward, rows_isa(isa, a->n_factors), is_f64, is_i64, a);
    }
    static void run_backward_rows(int isa, int is_f64, int is_i64, const backward_rows_args *a) {
        DISPATCH(backward_rows, rows_isa(isa, a->n_factors), is_f64, is_i64, a);
    }
    static void run_backward_columns(int isa, int is_f64, const backward_columns_args *a) {
        DISPATCH(backward_columns, isa, is_f64, 1, a);
    }
    """
    const int TAIL

    ctypedef struct forward_args:
        const void *indptr
        const void *indices
        const void *data
        const void *w
        const void *v
        Py_ssize_t w_stride, v_stride, n_features, n_factors
        double w0
        Py_ssize_t start, stop
        void *out
        void *pairs
        void *sums
        Py_ssize_t s_stride
        void *tail

    ctypedef struct backward_rows_args:
        const void *indptr
        const void *indices
        const void *data
        const void *w
        const void *v
        Py_ssize_t w_stride, v_stride, n_features, n_factors
        const void *sums
        Py_ssize_t s_stride
        const void *d
        int by_factor
        Py_ssize_t start, stop
        void *g_data
        void *tail

    ctypedef struct backward_columns_args:
        const int64_t *features
        const int64_t *colptr
        const int64_t *entry_rows
        const void *entry_data
        const void *v
        Py_ssize_t v_stride, n_factors
        const void *sums
        Py_ssize_t s_stride
        const void *d
        int by_factor
        Py_ssize_t start, stop, n_touched
        void *g_w
        void *g_v
        void *tail

    void run_forward(int isa, int is_f64, int is_i64, const forward_args *a) nogil
    void run_backward_rows(int isa, int is_f64, int is_i64, const backward_rows_args *a) nogil
    void run_backward_columns(int isa, int is_f64, const backward_columns_args *a) nogil


cdef inline Py_ssize_t row_stride(const REAL[:, :] V) noexcept:
    """Elements from one row of V to the next; a single row may carry any stride."""
    return V.strides[0] // <Py_ssize_t>sizeof(REAL) if V.shape[0] > 1 else V.shape[1]


cdef void *scratch(bint is_f64, Py_ssize_t n_factors) except NULL:
    cdef void *tail = malloc((n_factors + TAIL) * (sizeof(double) if is_f64 else sizeof(float)))
    if tail == NULL:
        raise MemoryError()
    return tail


cpdef forward_at(
    int isa, bint is_f64, bint is_i64, Py_ssize_t start, Py_ssize_t stop,
    size_t indptr, size_t indices, size_t data, double w0, size_t w, Py_ssize_t w_stride,
    size_t V, Py_ssize_t v_stride, Py_ssize_t n_features, Py_ssize_t n_factors,
    size_t out, size_t pairs, size_t sums, Py_ssize_t s_stride,
):
    """Scores (out), pairs by factor and sums of rows start … stop, each where wanted. Strides are in elements.

    Without w (pairs alone) its place is taken by the first factors, which are read anyway."""
    cdef forward_args a
    a.indptr = <const void *>indptr
    a.indices = <const void *>indices
    a.data = <const void *>data
    a.w0 = w0
    a.w = <const void *>(w or V)
    a.w_stride = w_stride if w else v_stride
    a.v = <const void *>V
    a.v_stride = v_stride
    a.n_features = n_features
    a.n_factors = n_factors
    a.start = start
    a.stop = stop
    a.out = <void *>out
    a.pairs = <void *>pairs
    a.sums = <void *>sums
    a.s_stride = s_stride
    a.tail = scratch(is_f64, n_factors)
    with nogil:
        run_forward(isa, is_f64, is_i64, &a)
    free(a.tail)


cpdef backward_rows_at(
    int isa, bint is_f64, bint is_i64, Py_ssize_t start, Py_ssize_t stop,
    size_t indptr, size_t indices, size_t data, size_t w, Py_ssize_t w_stride,
    size_t V, Py_ssize_t v_stride, Py_ssize_t n_features, Py_ssize_t n_factors,
    size_t sums, Py_ssize_t s_stride, size_t d, bint by_factor, size_t g_data,
):
    """Gradient with respect to the values of rows start … stop; w is not read if d is by factor."""
    cdef backward_rows_args a
    a.indptr = <const void *>indptr
    a.indices = <const void *>indices
    a.data = <const void *>data
    a.w = <const void *>w
    a.w_stride = w_stride
    a.v = <const void *>V
    a.v_stride = v_stride
    a.n_features = n_features
    a.n_factors = n_factors
    a.sums = <const void *>sums
    a.s_stride = s_stride
    a.d = <const void *>d
    a.by_factor = by_factor
    a.start = start
    a.stop = stop
    a.g_data = <void *>g_data
    a.tail = scratch(is_f64, n_factors)
    with nogil:
        run_backward_rows(isa, is_f64, is_i64, &a)
    free(a.tail)


cpdef backward_columns_at(
    int isa, bint is_f64, Py_ssize_t start, Py_ssize_t stop, Py_ssize_t n_touched,
    size_t features, size_t colptr, size_t entry_rows, size_t entry_data,
    size_t V, Py_ssize_t v_stride, Py_ssize_t n_factors,
    size_t sums, Py_ssize_t s_stride, size_t d, bint by_factor, size_t g_w, size_t g_V,
):
    """Gradient with respect to w and V for touched features start … stop, one compact row each; g_w is not
    written if d is by factor."""
    cdef backward_columns_args a
    a.features = <const int64_t *>features
    a.colptr = <const int64_t *>colptr
    a.entry_rows = <const int64_t *>entry_rows
    a.entry_data = <const void *>entry_data
    a.v = <const void *>V
    a.v_stride = v_stride
    a.n_factors = n_factors
    a.sums = <const void *>sums
    a.s_stride = s_stride
    a.d = <const void *>d
    a.by_factor = by_factor
    a.start = start
    a.stop = stop
    a.n_touched = n_touched
    a.g_w = <void *>g_w
    a.g_v = <void *>g_V
    a.tail = scratch(is_f64, n_factors)
    with nogil:
        run_backward_columns(isa, is_f64, &a)
    free(a.tail)


def forward(
    REAL[::1] out,              # OUT (n_rows,)
    const IDX[::1] indptr,      # IN (n_rows + 1,)
    const IDX[::1] indices,     # IN (nnz,)
    const REAL[::1] data,       # IN (nnz,), None: every value is one
    double w0,
    const REAL[:] w,            # IN (n_features,), any stride
    const REAL[:, :] V,         # IN (n_features, n_factors), rows contiguous
    REAL[:, ::1] sums,          # OUT (n_rows, n_factors padded to a multiple of 16), None: not wanted
    Py_ssize_t start,
    Py_ssize_t stop,
    int isa,
):
    """Scores of rows start … stop, and their sums S = Σ x_j v_j where wanted."""
    forward_at(
        isa, sizeof(REAL) == 8, sizeof(IDX) == 8, start, stop,
        <size_t>&indptr[0], <size_t>&indices[0], 0 if data is None else <size_t>&data[0],
        w0, <size_t>&w[0], w.strides[0] // <Py_ssize_t>sizeof(REAL),
        <size_t>&V[0, 0], row_stride(V), V.shape[0], V.shape[1],
        <size_t>&out[0], 0, 0 if sums is None else <size_t>&sums[0, 0], 0 if sums is None else sums.shape[1],
    )


def backward_rows(
    REAL[::1] g_data,           # OUT (nnz,)
    const IDX[::1] indptr,      # IN (n_rows + 1,)
    const IDX[::1] indices,     # IN (nnz,)
    const REAL[::1] data,       # IN (nnz,), None: every value is one
    const REAL[:] w,            # IN (n_features,)
    const REAL[:, :] V,         # IN (n_features, n_factors)
    const REAL[:, ::1] sums,    # IN (n_rows, padded) of forward
    const REAL[::1] d,          # IN (n_rows,) gradient with respect to the scores
    Py_ssize_t start,
    Py_ssize_t stop,
    int isa,
):
    """Gradient with respect to the values of rows start … stop."""
    backward_rows_at(
        isa, sizeof(REAL) == 8, sizeof(IDX) == 8, start, stop,
        <size_t>&indptr[0], <size_t>&indices[0], 0 if data is None else <size_t>&data[0],
        <size_t>&w[0], w.strides[0] // <Py_ssize_t>sizeof(REAL),
        <size_t>&V[0, 0], row_stride(V), V.shape[0], V.shape[1],
        <size_t>&sums[0, 0], sums.shape[1], <size_t>&d[0], False, <size_t>&g_data[0],
    )


def backward_columns(
    REAL[::1] g_w,                  # OUT (n_touched,)
    REAL[:, ::1] g_V,               # OUT (n_touched, n_factors)
    const int64_t[::1] features,    # IN (n_touched,) of csr.transpose
    const int64_t[::1] colptr,      # IN (n_touched + 1,)
    const int64_t[::1] entry_rows,  # IN (nnz,)
    const REAL[::1] entry_data,     # IN (nnz,), None: every value is one
    const REAL[:, :] V,             # IN (n_features, n_factors)
    const REAL[:, ::1] sums,        # IN (n_rows, padded) of forward
    const REAL[::1] d,              # IN (n_rows,)
    Py_ssize_t start,
    Py_ssize_t stop,
    int isa,
):
    """Gradient with respect to w and V for touched features start … stop, one compact row each."""
    backward_columns_at(
        isa, sizeof(REAL) == 8, start, stop, features.shape[0],
        <size_t>&features[0], <size_t>&colptr[0], <size_t>&entry_rows[0],
        0 if entry_data is None else <size_t>&entry_data[0],
        <size_t>&V[0, 0], row_stride(V), V.shape[1],
        <size_t>&sums[0, 0], sums.shape[1], <size_t>&d[0], False, <size_t>&g_w[0], <size_t>&g_V[0, 0],
    )
