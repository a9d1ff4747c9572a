# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""Bindings of rowsteps.h for arrays given by address: whoever calls answers for types, lengths and contiguity, and for
features that `ascending_at` has seen."""
from libc.stdint cimport int64_t

cdef extern from *:
    """
    #define BODY "rowsteps.h"
    #include "instances.h"

    static void run_row_steps(int isa, int is_f64, const row_steps_args *a, const step_args *step) {
        DISPATCH(row_steps, rows_isa(isa, a->k), is_f64, 1, a, step);
    }
    """
    enum:
        ADAGRAD
        ROWWISE
        ADAM

    ctypedef struct row_steps_args:
        const void *features
        const void *gradient
        void *table
        void *first
        void *second
        void *powers
        Py_ssize_t v_stride, k, n
        double weight_decay
        Py_ssize_t start, stop

    ctypedef struct step_args:
        int optimiser
        double rate, epsilon, beta1, beta2, l1, inverse_k

    void run_row_steps(int isa, int is_f64, const row_steps_args *a, const step_args *step) nogil


OPTIMISERS = {"adagrad": ADAGRAD, "rowwise": ROWWISE, "adam": ADAM}  # those that rowsteps.h has state for


def ascending_at(size_t features, Py_ssize_t n, Py_ssize_t n_features):
    """Whether n features are distinct, ascending and inside 0 … n_features − 1."""
    cdef const int64_t *feature = <const int64_t *>features
    cdef Py_ssize_t u
    cdef bint falls = False
    if n == 0:
        return True
    with nogil:
        for u in range(1, n):
            falls |= feature[u] <= feature[u - 1]
    return not falls and feature[0] >= 0 and feature[n - 1] < n_features


def step_at(
    int isa, bint is_f64, Py_ssize_t start, Py_ssize_t stop,
    size_t features, Py_ssize_t n, size_t gradient, size_t table, Py_ssize_t v_stride, Py_ssize_t n_factors,
    size_t first, size_t second, size_t powers,
    int optimiser, double rate, double epsilon, double beta1, double beta2, double weight_decay,
):
    """One step of the rows features[start … stop]; `second` and `powers` are read by Adam only, as the betas are."""
    cdef row_steps_args a
    cdef step_args step
    a.features = <const void *>features
    a.gradient = <const void *>gradient
    a.table = <void *>table
    a.first = <void *>first
    a.second = <void *>second
    a.powers = <void *>powers
    a.v_stride = v_stride
    a.k = n_factors
    a.n = n
    a.weight_decay = weight_decay
    a.start = start
    a.stop = stop
    step.optimiser = optimiser
    step.rate = rate
    step.epsilon = epsilon
    step.beta1 = beta1
    step.beta2 = beta2
    step.l1 = 0
    step.inverse_k = 1.0 / n_factors
    with nogil:
        run_row_steps(isa, is_f64, &a, &step)
