# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""Bindings of ranking.h: passes over interactions, and steps of rows whose gradients are known."""
from libc.stdint cimport int32_t, int64_t, uint64_t

ctypedef fused REAL:
    float
    double

cdef extern from *:
    """
    #define BODY "ranking.h"
    #include "instances.h"

    static void run_ranking(int isa, int is_f64, ranking_args *a, const step_args *step, int member) {
        const int chosen = table_isa(isa, a->kp);
        if (is_f64) DISPATCH_F64(ranking, i32, chosen, a, step, member);
        else DISPATCH_F32(ranking, i32, chosen, a, step, member);
    }

    static void run_rows(int isa, int is_f64, int stepping, const rows_args *a, const step_args *step) {
        const int chosen = table_isa(isa, a->kp);
        if (stepping) {
            if (is_f64) DISPATCH_F64(row_steps, i32, chosen, a, step);
            else DISPATCH_F32(row_steps, i32, chosen, a, step);
        } else if (is_f64) DISPATCH_F64(row_sums, i32, chosen, a, step);
        else DISPATCH_F32(row_sums, i32, chosen, a, step);
    }
    """
    ctypedef struct side_rows:
        const int32_t *indptr
        const int32_t *indices
        const void *data

    ctypedef struct team_t:
        int members

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
        Py_ssize_t next[2]
        team_t team

    ctypedef struct rows_args:
        side_rows side
        const int32_t *rows
        Py_ssize_t n
        void *table
        Py_ssize_t stride, kp
        void *sums
        const void *strength

    ctypedef struct step_args:
        int optimiser
        double rate, epsilon, beta1, beta2, l1, inverse_k

    const bint HAVE_TEAMS
    enum: BATCH
    void team_open(team_t *team, int members)
    void team_close(team_t *team)
    void run_ranking(int isa, int is_f64, ranking_args *a, const step_args *step, int member) nogil
    void run_rows(int isa, int is_f64, int stepping, const rows_args *a, const step_args *step) nogil


teams = bool(HAVE_TEAMS)  # whether a pass may have more than one member
batch_size = int(BATCH)

cdef class Pass:
    """A pass over interactions. Its members, threads of the caller's, each call `work` once."""
    cdef ranking_args a
    cdef step_args step
    cdef int isa
    cdef bint is_f64, opened
    cdef readonly bint begun  # by member 0
    cdef object arrays  # whose memory the addresses above are

    def __dealloc__(self):
        if self.opened:
            team_close(&self.a.team)

    def work(self, int member):
        if member == 0:
            self.begun = True
        with nogil:
            run_ranking(self.isa, self.is_f64, &self.a, &self.step, member)

    def result(self):
        """(Σ weight · loss, interaction whose scores were not finite, where it ended, or −1)."""
        return self.a.total, self.a.bad


def open_pass(
    REAL[:, ::1] table,                  # INOUT (n_features, stride), ADAGRAD rows of steps.h
    REAL[:, ::1] sums,                   # scratch (4 batch_size, kp)
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
    int members,
    int isa,
):
    """The pass, with that many members."""
    cdef Pass each = Pass()
    cdef ranking_args *a = &each.a
    each.arrays = (table, sums, context_indptr, context_indices, context_data, item_indptr, item_indices, item_data,
                   starts, context, item, weight, order)
    each.isa, each.is_f64 = isa, sizeof(REAL) == 8
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
    a.bad = -1
    a.next[0] = a.next[1] = 0
    each.step.optimiser = 1
    each.step.rate, each.step.epsilon = rate, epsilon
    team_open(&a.team, members)
    each.opened = True
    return each


def rows(
    REAL[:, ::1] table,           # INOUT (n_features, stride), ADAGRAD rows of steps.h
    const int32_t[::1] indptr,    # IN (n_rows + 1,)
    const int32_t[::1] indices,   # IN (nnz,)
    const REAL[::1] data,         # IN (nnz,), None: every value is one
    const int32_t[::1] chosen,    # IN (n,) rows
    REAL[:, ::1] sums,            # OUT (n, kp), or IN the gradients of the sums
    const REAL[::1] strength,     # IN (n,) of L2, one step for each row; None: no steps, but the sums
    double rate,
    double epsilon,
    int isa,
):
    """The sums of some rows, or a step for each of them."""
    cdef rows_args a
    cdef step_args step
    if chosen.shape[0] == 0:
        return
    a.side.indptr, a.side.indices = &indptr[0], &indices[0]
    a.side.data = NULL if data is None else &data[0]
    a.rows, a.n = &chosen[0], chosen.shape[0]
    a.table, a.stride, a.kp = &table[0, 0], table.shape[1], sums.shape[1]
    a.sums = &sums[0, 0]
    a.strength = NULL if strength is None else &strength[0]
    step.optimiser = 1
    step.rate, step.epsilon = rate, epsilon
    step.beta1 = step.beta2 = step.l1 = step.inverse_k = 0
    with nogil:
        run_rows(isa, sizeof(REAL) == 8, strength is not None, &a, &step)
