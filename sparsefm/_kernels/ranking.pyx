# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""Bindings of ranking.h: one pass over interactions, each against an item drawn."""
from libc.stdint cimport int32_t, int64_t, uint64_t

ctypedef fused REAL:
    float
    double

cdef extern from *:
    """
    #define BODY "ranking.h"
    #include "instances.h"

    static void run_ranking(int isa, int is_f64, ranking_args *a, const step_args *step) {
        const int chosen = table_isa(isa, a->kp);
        if (is_f64) DISPATCH_F64(ranking, i32, chosen, a, step);
        else DISPATCH_F32(ranking, i32, chosen, a, step);
    }
    """
    ctypedef struct side_rows:
        const int32_t *indptr
        const int32_t *indices
        const void *data

    ctypedef struct ranking_args:
        side_rows contexts, items
        Py_ssize_t n_items, n_interactions
        const int64_t *starts
        const int32_t *context
        const int32_t *item
        const void *weight
        const int32_t *order
        Py_ssize_t n_samples
        void *table
        Py_ssize_t stride, kp
        void *sums
        int loss, popular
        Py_ssize_t max_trials
        uint64_t key
        double total
        Py_ssize_t bad

    ctypedef struct step_args:
        int optimiser
        double rate, epsilon, beta1, beta2, l1, inverse_k

    void run_ranking(int isa, int is_f64, ranking_args *a, const step_args *step) nogil


def epoch(
    REAL[:, ::1] table,                  # INOUT (n_features, stride), ADAGRAD rows of steps.h
    REAL[:, ::1] sums,                   # scratch (3, kp)
    const int32_t[::1] context_indptr,   # IN (n_contexts + 1,)
    const int32_t[::1] context_indices,  # IN (nnz,)
    const REAL[::1] context_data,        # IN (nnz,), None: every value is one
    const int32_t[::1] item_indptr,      # IN (n_items + 1,), and so on
    const int32_t[::1] item_indices,
    const REAL[::1] item_data,
    const int64_t[::1] starts,           # IN (n_contexts + 1,) interactions of each context
    const int32_t[::1] context,          # IN (n_interactions,) ascending
    const int32_t[::1] item,             # IN (n_interactions,) ascending within a context
    const REAL[::1] weight,              # IN (n_interactions,) with mean 1, None: all one
    const int32_t[::1] order,            # IN (n_samples,) interactions in the order of the pass
    bint warp,                           # else BPR
    bint popular,                        # items are drawn as often as they occur
    Py_ssize_t max_trials,
    double rate,
    double epsilon,
    uint64_t key,
    int isa,
):
    """One pass; returns (Σ weight · loss, interaction where it ended for a score that was not finite, or −1)."""
    cdef ranking_args a
    cdef step_args step
    a.contexts.indptr, a.contexts.indices = &context_indptr[0], &context_indices[0]
    a.contexts.data = NULL if context_data is None else &context_data[0]
    a.items.indptr, a.items.indices = &item_indptr[0], &item_indices[0]
    a.items.data = NULL if item_data is None else &item_data[0]
    a.n_items, a.n_interactions = item_indptr.shape[0] - 1, item.shape[0]
    a.starts, a.context, a.item = &starts[0], &context[0], &item[0]
    a.weight = NULL if weight is None else &weight[0]
    a.order, a.n_samples = &order[0], order.shape[0]
    a.table, a.stride, a.kp = &table[0, 0], table.shape[1], sums.shape[1]
    a.sums = &sums[0, 0]
    a.loss, a.popular, a.max_trials = warp, popular, max_trials
    a.key = key
    a.total = 0
    step.optimiser = 1
    step.rate, step.epsilon = rate, epsilon
    step.beta1 = step.beta2 = step.l1 = step.inverse_k = 0
    with nogil:
        run_ranking(isa, sizeof(REAL) == 8, &a, &step)
    return a.total, a.bad
