# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""Bindings of dense.h for arrays given by address: whoever calls answers for types, lengths and contiguity. They
work on the piece [start, stop) with the GIL released."""
from libc.stdlib cimport free, malloc

cdef extern from *:
    """
    #define BODY "dense.h"
    #include "instances.h"

    static void run_dense_forward(int isa, int is_f64, const dense_forward_args *a) {
        DISPATCH(dense_forward, rows_isa(isa, a->n_factors), is_f64, 0, a);
    }
    static void run_dense_backward(int isa, int is_f64, const dense_backward_args *a) {
        DISPATCH(dense_backward, isa, is_f64, 0, a);
    }
    """
    ctypedef struct dense_forward_args:
        const void *x
        const void *w
        const void *v
        Py_ssize_t v_stride, n_features, n_factors
        double w0
        Py_ssize_t start, stop
        void *out
        void *sums
        Py_ssize_t s_stride
        void *padded

    ctypedef struct dense_backward_args:
        const void *x
        const void *w
        const void *v
        Py_ssize_t v_stride, n_rows, n_features, n_factors
        const void *sums
        Py_ssize_t s_stride
        const void *d
        Py_ssize_t start, stop
        void *g_x
        void *g_w
        void *g_v

    void run_dense_forward(int isa, int is_f64, const dense_forward_args *a) nogil
    void run_dense_backward(int isa, int is_f64, const dense_backward_args *a) nogil


def forward_at(
    int isa, bint is_f64, Py_ssize_t start, Py_ssize_t stop,
    size_t x, double w0, size_t w, size_t V, Py_ssize_t v_stride, Py_ssize_t n_features, Py_ssize_t n_factors,
    size_t out, size_t sums, Py_ssize_t s_stride,
):
    """Scores of rows start … stop, and their sums unless that address is 0."""
    cdef dense_forward_args a
    a.x = <const void *>x
    a.w = <const void *>w
    a.v = <const void *>V
    a.v_stride = v_stride
    a.n_features = n_features
    a.n_factors = n_factors
    a.w0 = w0
    a.start = start
    a.stop = stop
    a.out = <void *>out
    a.sums = <void *>sums
    a.s_stride = s_stride
    a.padded = NULL
    if n_factors % 16:
        a.padded = malloc(n_features * s_stride * (sizeof(double) if is_f64 else sizeof(float)))
        if a.padded == NULL:
            raise MemoryError()
    with nogil:
        run_dense_forward(isa, is_f64, &a)
    free(a.padded)


def backward_at(
    int isa, bint is_f64, Py_ssize_t start, Py_ssize_t stop,
    size_t x, size_t w, size_t V, Py_ssize_t v_stride, Py_ssize_t n_rows, Py_ssize_t n_features, Py_ssize_t n_factors,
    size_t sums, Py_ssize_t s_stride, size_t d, size_t g_x, size_t g_w, size_t g_V,
):
    """Gradients of features start … stop, start a multiple of 16: with respect to the rows unless g_x is 0, and
    to the parameters unless g_w is."""
    cdef dense_backward_args a
    a.x = <const void *>x
    a.w = <const void *>w
    a.v = <const void *>V
    a.v_stride = v_stride
    a.n_rows = n_rows
    a.n_features = n_features
    a.n_factors = n_factors
    a.sums = <const void *>sums
    a.s_stride = s_stride
    a.d = <const void *>d
    a.start = start
    a.stop = stop
    a.g_x = <void *>g_x
    a.g_w = <void *>g_w
    a.g_v = <void *>g_V
    with nogil:
        run_dense_backward(isa, is_f64, &a)
