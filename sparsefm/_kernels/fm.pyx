# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""Bindings of fm.h: scores and gradients of rows. They trust their input (validation.py is the door) and
work on the piece [start, stop) with the GIL released, so that threads can share one call's output."""
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
    static void run_backward_columns(int isa, int is_f64, int is_i64, const backward_columns_args *a) {
        DISPATCH(backward_columns, isa, is_f64, is_i64, a);
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
        Py_ssize_t start, stop
        void *g_data
        void *tail

    ctypedef struct backward_columns_args:
        const void *features
        const int64_t *colptr
        const int64_t *entry_rows
        const void *entry_data
        const void *v
        Py_ssize_t v_stride, n_features, n_factors
        const void *sums
        Py_ssize_t s_stride
        const void *d
        Py_ssize_t start, stop
        void *g_w
        void *g_v

    void run_forward(int isa, int is_f64, int is_i64, const forward_args *a) nogil
    void run_backward_rows(int isa, int is_f64, int is_i64, const backward_rows_args *a) nogil
    void run_backward_columns(int isa, int is_f64, int is_i64, const backward_columns_args *a) nogil


cdef inline Py_ssize_t row_stride(const REAL[:, :] V) noexcept:
    """Elements from one row of V to the next; a single row may carry any stride."""
    return V.strides[0] // <Py_ssize_t>sizeof(REAL) if V.shape[0] > 1 else V.shape[1]


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
    cdef forward_args a
    a.indptr = &indptr[0]
    a.indices = &indices[0]
    a.data = NULL if data is None else &data[0]
    a.w0 = w0
    a.w = &w[0]
    a.w_stride = w.strides[0] // <Py_ssize_t>sizeof(REAL)
    a.v = &V[0, 0]
    a.v_stride = row_stride(V)
    a.n_features = V.shape[0]
    a.n_factors = V.shape[1]
    a.start = start
    a.stop = stop
    a.out = &out[0]
    a.sums = NULL if sums is None else &sums[0, 0]
    a.s_stride = 0 if sums is None else sums.shape[1]
    a.tail = malloc((a.n_factors + TAIL) * sizeof(REAL))
    if a.tail == NULL:
        raise MemoryError()
    with nogil:
        run_forward(isa, sizeof(REAL) == 8, sizeof(IDX) == 8, &a)
    free(a.tail)


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
    cdef backward_rows_args a
    a.indptr = &indptr[0]
    a.indices = &indices[0]
    a.data = NULL if data is None else &data[0]
    a.w = &w[0]
    a.w_stride = w.strides[0] // <Py_ssize_t>sizeof(REAL)
    a.v = &V[0, 0]
    a.v_stride = row_stride(V)
    a.n_features = V.shape[0]
    a.n_factors = V.shape[1]
    a.sums = &sums[0, 0]
    a.s_stride = sums.shape[1]
    a.d = &d[0]
    a.start = start
    a.stop = stop
    a.g_data = &g_data[0]
    a.tail = malloc((a.n_factors + TAIL) * sizeof(REAL))
    if a.tail == NULL:
        raise MemoryError()
    with nogil:
        run_backward_rows(isa, sizeof(REAL) == 8, sizeof(IDX) == 8, &a)
    free(a.tail)


def backward_columns(
    REAL[::1] g_w,                  # OUT (n_touched,)
    REAL[:, ::1] g_V,               # OUT (n_touched, n_factors padded to a multiple of 16), zeros on entry
    const IDX[::1] features,        # IN (n_touched,) of csr.transpose
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
    cdef backward_columns_args a
    a.features = &features[0]
    a.colptr = &colptr[0]
    a.entry_rows = &entry_rows[0]
    a.entry_data = NULL if entry_data is None else &entry_data[0]
    a.v = &V[0, 0]
    a.v_stride = row_stride(V)
    a.n_features = V.shape[0]
    a.n_factors = V.shape[1]
    a.sums = &sums[0, 0]
    a.s_stride = sums.shape[1]
    a.d = &d[0]
    a.start = start
    a.stop = stop
    a.g_w = &g_w[0]
    a.g_v = &g_V[0, 0]
    with nogil:
        run_backward_columns(isa, sizeof(REAL) == 8, sizeof(IDX) == 8, &a)
