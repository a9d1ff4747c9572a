# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""Bindings of family.h: scores, gradients and fused training of the members of the family beside the pairwise machine.

They trust their input and take addresses, as fm.pyx's `_at` do; 0 is what None is for a view."""
from libc.stdint cimport int32_t, uint32_t
from libc.stdlib cimport calloc, free, malloc

cdef extern from *:
    """
    #define BODY "family.h"
    #include "instances.h"

    static void run_family(int isa, int is_f64, int is_i64, const family_args *a, family_t *f) {
        DISPATCH(set_meet, family_isa(isa, f->k), is_f64, is_i64, f);
        DISPATCH(family, isa, is_f64, is_i64, a, f);
    }

    static void run_epoch(int isa, int is_f64, int is_i64, epoch_args *a, const step_args *step) {
        family_t *f = a->family;
        f->v = a->table;
        f->w = (const char *)a->table + tail_at(step->optimiser, a->kp) * (is_f64 ? sizeof(double) : sizeof(float));
        f->v_stride = f->w_stride = a->stride;
        DISPATCH(set_meet, family_isa(isa, f->k), is_f64, is_i64, f);
        DISPATCH(epoch, table_isa(isa, a->kp), is_f64, is_i64, a, step);
    }
    """
    ctypedef struct family_t:
        int kind, order, shared
        Py_ssize_t k, width, n_fields
        const int32_t *fields
        const void *w
        const void *v
        Py_ssize_t w_stride, v_stride
        const void *weights
        Py_ssize_t weights_stride
        int32_t *places
        const void **rows
        void *scratch
        void *products

    ctypedef struct family_args:
        const void *indptr
        const void *indices
        const void *data
        Py_ssize_t n_features
        double w0
        Py_ssize_t start, stop
        void *out
        void *sums
        Py_ssize_t sums_stride
        const void *d
        void *g_v
        void *g_data
        double *g_weights
        void *H

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
        void *bias
        family_t *family
        const void *l2_of
        void *H
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

    const int PAIR_REALS
    const int ANOVA
    const int AWARE
    const int WEIGHTED
    const int MAX_ORDER
    Py_ssize_t family_scratch(const family_t *f, Py_ssize_t longest)
    void run_family(int isa, int is_f64, int is_i64, const family_args *a, family_t *f) nogil
    void run_epoch(int isa, int is_f64, int is_i64, epoch_args *a, const step_args *step) nogil


KINDS = {"anova": ANOVA, "ffm": AWARE, "fwfm": WEIGHTED}
HIGHEST_ORDER = MAX_ORDER


def family_at(
    int isa, bint is_f64, bint is_i64, Py_ssize_t start, Py_ssize_t stop, Py_ssize_t longest,
    size_t indptr, size_t indices, size_t data,
    int kind, int order, bint shared, Py_ssize_t k, Py_ssize_t width, Py_ssize_t n_fields, size_t fields,
    size_t weights, double w0, size_t w, Py_ssize_t w_stride, size_t V, Py_ssize_t v_stride, Py_ssize_t n_features,
    size_t out, size_t sums, Py_ssize_t sums_stride, size_t d, size_t g_V, size_t g_data, size_t g_weights,
):
    """Scores of rows start … stop, none of which has more than `longest` entries, and with d their gradients."""
    cdef family_args a
    cdef family_t f
    cdef Py_ssize_t i, real = sizeof(double) if is_f64 else sizeof(float)
    f.kind, f.order, f.shared = kind, order, shared
    f.k, f.width, f.n_fields = k, width, n_fields
    f.fields = <const int32_t *>fields
    f.weights = <const void *>weights
    f.weights_stride = 1
    f.places = <int32_t *>malloc((2 * n_fields + longest + 1) * sizeof(int32_t))
    f.rows = <const void **>malloc(2 * (longest + 1) * sizeof(void *))
    f.scratch = malloc((family_scratch(&f, longest) + 1) * real)
    f.products = malloc((n_fields * n_fields + 1) * real) if g_weights else NULL
    a.H = malloc((longest * width + 1) * real) if d else NULL
    try:
        if (
            f.places == NULL or f.rows == NULL or f.scratch == NULL
            or (g_weights and f.products == NULL) or (d and a.H == NULL)
        ):
            raise MemoryError()
        for i in range(n_fields):
            f.places[i] = -1
        a.indptr = <const void *>indptr
        a.indices = <const void *>indices
        a.data = <const void *>data
        f.w, f.v = <const void *>w, <const void *>V
        f.w_stride, f.v_stride = w_stride, v_stride
        a.n_features = n_features
        a.w0 = w0
        a.start, a.stop = start, stop
        a.out = <void *>out
        a.sums = <void *>sums
        a.sums_stride = sums_stride
        a.d = <const void *>d
        a.g_v = <void *>g_V
        a.g_data = <void *>g_data
        a.g_weights = <double *>g_weights
        with nogil:
            run_family(isa, is_f64, is_i64, &a, &f)
    finally:
        free(f.places)
        free(f.rows)
        free(f.scratch)
        free(f.products)
        free(a.H)


def epoch_at(
    int isa, bint is_f64, bint is_i64,
    size_t indptr, size_t indices, size_t data, Py_ssize_t n_rows, Py_ssize_t longest, Py_ssize_t row_length,
    size_t y, size_t weight, size_t order, Py_ssize_t n_samples,
    int kind, int member_order, bint shared, Py_ssize_t k, Py_ssize_t n_fields, size_t fields, size_t l2_of,
    size_t table, Py_ssize_t n_features, Py_ssize_t stride, Py_ssize_t kp, Py_ssize_t width, size_t bias,
    size_t bucket, double dropout, uint32_t first, int optimiser, tuple steps, int loss, double shape, uint32_t key,
):
    """One pass as `adaptive.epoch` makes it, with a table whose rows hold all vectors of a feature (width numbers and
    zeros up to kp, l2_of what λ_v of each is multiplied by) and a bias with the tails of the field weights behind it,
    PAIR_REALS each."""
    cdef epoch_args a
    cdef step_args step
    cdef family_t f
    cdef Py_ssize_t i, real = sizeof(double) if is_f64 else sizeof(float)
    if n_samples == 0:
        return 0.0, -1
    f.kind, f.order, f.shared = kind, member_order, shared
    f.k, f.width, f.n_fields = k, kp, n_fields
    f.fields = <const int32_t *>fields
    f.weights = <void *>(bias + PAIR_REALS * real)
    f.weights_stride = PAIR_REALS
    step.optimiser = optimiser
    step.rate, step.epsilon, step.beta1, step.beta2, step.l1, a.bias_rate, a.bias_epsilon = steps
    step.inverse_k = 1.0 / max(1, width)
    a.indptr = <const void *>indptr
    a.indices = <const void *>indices
    a.data = <const void *>data
    a.n_rows, a.row_length = n_rows, row_length
    a.y = <const void *>y
    a.weight = <const void *>weight
    a.order = <const void *>order
    a.n_samples = n_samples
    a.table = <void *>table
    a.n_features, a.stride, a.kp = n_features, stride, kp
    a.bias = <void *>bias
    a.family = &f
    a.l2_of = <const void *>l2_of
    a.loss = loss
    a.shape = shape
    a.bucket = <const int32_t *>bucket
    a.dropout = dropout
    a.key, a.first = key, first
    a.total = 0
    f.places = <int32_t *>malloc((2 * n_fields + longest + 1) * sizeof(int32_t))
    f.rows = <const void **>malloc(2 * (longest + 1) * sizeof(void *))
    f.scratch = malloc((family_scratch(&f, longest) + 1) * real)
    f.products = malloc((n_fields * n_fields + 1) * real)
    cdef char *H = <char *>calloc(longest * kp * real + 64, 1)
    a.H = H + (64 - <size_t>H % 64)
    a.kept_indices = malloc((longest + 1) * (8 if is_i64 else 4)) if dropout else NULL
    a.kept_data = malloc((longest + 1) * real) if dropout else NULL
    try:
        if (
            f.places == NULL or f.rows == NULL or f.scratch == NULL or f.products == NULL or H == NULL
            or (dropout and (a.kept_indices == NULL or a.kept_data == NULL))
        ):
            raise MemoryError()
        for i in range(n_fields):
            f.places[i] = -1
        with nogil:
            run_epoch(isa, is_f64, is_i64, &a, &step)
    finally:
        free(f.places)
        free(f.rows)
        free(f.scratch)
        free(f.products)
        free(H)
        free(a.kept_indices)
        free(a.kept_data)
    return a.total, a.bad
