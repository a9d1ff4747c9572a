# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""Bindings of minibatch.h: deterministic minibatches over columns that are found once."""
from libc.stdint cimport int32_t, int64_t, uint16_t, uint32_t

ctypedef fused IDX:
    int32_t
    int64_t

ctypedef fused REAL:
    float
    double

cdef extern from *:
    """
    #define BODY "minibatch.h"
    #include "instances.h"

    static void run_batches(int isa, int is_f64, int is_i64, batch_args *a, const step_args *step, int member) {
        DISPATCH(batches, table_isa(isa, a->kp), is_f64, is_i64, a, step, member);
    }

    static void run_compact_scores(int isa, int is_i64, const compact_args *a) {
        const int way = table_isa(isa, a->kp);
        if (is_i64) DISPATCH_F32(compact_scores, i64, way, a);
        else DISPATCH_F32(compact_scores, i32, way, a);
    }
    """
    ctypedef struct team_t:
        int members

    ctypedef struct batch_args:
        const void *indptr
        const void *indices
        const void *data
        const void *y
        const void *weight
        const void *order
        Py_ssize_t n_rows, batch_size
        const void *features
        const int32_t *ends
        const uint16_t *entry_rows
        const void *entry_data
        const int64_t *entry_from
        const int64_t *n_columns
        const int64_t *batches
        Py_ssize_t n_chosen
        void *table
        Py_ssize_t n_features, stride, kp
        void *bias
        double bias_rate, bias_epsilon
        int loss
        double shape
        uint32_t key
        void *sums
        void *d
        void *s
        void *gradients
        double total
        Py_ssize_t bad
        Py_ssize_t next[4]
        team_t team

    ctypedef struct step_args:
        int optimiser
        double rate, epsilon, beta1, beta2, l1, inverse_k

    ctypedef struct compact_args:
        const void *indptr
        const void *indices
        const void *data
        const void *table
        Py_ssize_t stride, kp, start, stop
        double w0
        void *out

    const bint HAVE_TEAMS
    void team_open(team_t *team, int members)
    void team_close(team_t *team)
    void run_batches(int isa, int is_f64, int is_i64, batch_args *a, const step_args *step, int member) nogil
    void run_compact_scores(int isa, int is_i64, const compact_args *a) nogil


teams = bool(HAVE_TEAMS)  # whether a pass may have more than one member

cdef class Pass:
    """A pass over some batches. Its members, threads of the caller's, each call `work` once."""
    cdef batch_args a
    cdef step_args step
    cdef int isa
    cdef bint is_f64, is_i64, opened
    cdef readonly bint begun  # by member 0
    cdef object arrays  # whose memory the addresses above are

    def __dealloc__(self):
        if self.opened:
            team_close(&self.a.team)

    def work(self, int member):
        if member == 0:
            self.begun = True
        with nogil:
            run_batches(self.isa, self.is_f64, self.is_i64, &self.a, &self.step, member)

    def result(self):
        """(Σ weight · loss before each batch's own step, row whose score was not finite or −1)."""
        return self.a.total, self.a.bad


def open_pass(
    REAL[:, ::1] table,             # INOUT (n_features, stride), layout in steps.h
    REAL[::1] bias,                 # INOUT (7,), the tail of the bias
    REAL[:, ::1] sums,              # scratch (batch_size, kp)
    REAL[:, ::1] d,                 # scratch (2, batch_size)
    REAL[:, ::1] gradients,         # scratch (members, kp), or of one column without factors
    const IDX[::1] indptr,          # IN (n_rows + 1,)
    const IDX[::1] indices,         # IN (nnz,)
    const REAL[::1] data,           # IN (nnz,), None: every value is one
    const REAL[::1] y,              # IN (n_rows,)
    const REAL[::1] weight,         # IN (n_rows,) with mean 1, None: all one
    const IDX[::1] order,           # IN (n_rows,) rows batch by batch
    const IDX[::1] features,        # IN the touched columns of each batch, see csr.batch_columns
    const int32_t[::1] ends,
    const uint16_t[::1] entry_rows,
    const REAL[::1] entry_data,     # None with data
    const int64_t[::1] entry_from,
    const int64_t[::1] n_columns,
    const int64_t[::1] batches,     # IN the batches in the order of the pass
    Py_ssize_t kp,
    int optimiser,
    tuple steps,                    # rate, epsilon, beta1, beta2, l1, rate and epsilon of the bias
    Py_ssize_t n_factors,
    int loss,
    double shape,
    uint32_t key,
    int isa,
):
    """The pass, with as many members as `gradients` has rows."""
    cdef Pass each = Pass()
    cdef batch_args *a = &each.a
    each.arrays = (table, bias, sums, d, gradients, indptr, indices, data, y, weight, order, features, ends, entry_rows,
                   entry_data, entry_from, n_columns, batches)
    each.isa, each.is_f64, each.is_i64 = isa, sizeof(REAL) == 8, sizeof(IDX) == 8
    each.step.optimiser = optimiser
    (each.step.rate, each.step.epsilon, each.step.beta1, each.step.beta2, each.step.l1, a.bias_rate,
     a.bias_epsilon) = steps
    each.step.inverse_k = 1.0 / max(1, n_factors)
    a.indptr = &indptr[0]
    a.indices = &indices[0]
    a.data = NULL if data is None else &data[0]
    a.y = &y[0]
    a.weight = NULL if weight is None else &weight[0]
    a.order = &order[0]
    a.n_rows = order.shape[0]
    a.batch_size = d.shape[1]
    a.features = &features[0]
    a.ends = &ends[0]
    a.entry_rows = &entry_rows[0]
    a.entry_data = NULL if data is None else &entry_data[0]
    a.entry_from = &entry_from[0]
    a.n_columns = &n_columns[0]
    a.batches = &batches[0]
    a.n_chosen = batches.shape[0]
    a.table = &table[0, 0]
    a.n_features = table.shape[0]
    a.stride = table.shape[1]
    a.kp = kp
    a.bias = &bias[0]
    a.loss = loss
    a.shape = shape
    a.key = key
    a.sums = &sums[0, 0]
    a.d = &d[0, 0]
    a.s = &d[1, 0]
    a.gradients = &gradients[0, 0]
    a.total = 0
    a.bad = -1
    a.next[0] = a.next[1] = a.next[2] = a.next[3] = 0
    team_open(&a.team, <int>gradients.shape[0])
    each.opened = True
    return each


def compact_scores(
    float[::1] out,             # OUT (n_rows,): places start … stop
    const IDX[::1] indptr,      # IN (n_rows + 1,)
    const IDX[::1] indices,     # IN (nnz,)
    const float[::1] data,      # IN (nnz,), None: every value is one
    const float[:, ::1] table,  # IN (n_features, stride), COMPACT rows of steps.h
    Py_ssize_t kp,
    double w0,
    Py_ssize_t start,
    Py_ssize_t stop,
    int isa,
):
    """Scores of rows start … stop from bfloat16 rows."""
    cdef compact_args a
    if start >= stop:
        return
    a.indptr = &indptr[0]
    a.indices = &indices[0]
    a.data = NULL if data is None else &data[0]
    a.table = &table[0, 0]
    a.stride = table.shape[1]
    a.kp = kp
    a.w0 = w0
    a.start = start
    a.stop = stop
    a.out = &out[0]
    with nogil:
        run_compact_scores(isa, sizeof(IDX) == 8, &a)
