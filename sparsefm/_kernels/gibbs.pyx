# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""Bindings of gibbs.h: Gram matrices of columns, draws from their conditionals, and what follows from a draw. `start`
and `stop` are segments or columns; any cut of their range gives the same bits."""
from libc.math cimport exp, log
from libc.stdint cimport int32_t, int64_t, uint64_t

ctypedef fused REAL:
    float
    double

cdef extern from *:
    """
    #define BODY "gibbs.h"
    #include "instances.h"

    #define DISPATCH_I32(name, isa, is_f64, ...)                     \\
        do {                                                         \\
            if (is_f64) DISPATCH_F64(name, i32, isa, __VA_ARGS__);   \\
            else DISPATCH_F32(name, i32, isa, __VA_ARGS__);          \\
        } while (0)

    static void run_gather(int isa, int is_f64, const gather_args *a, ptrdiff_t start, ptrdiff_t stop) {
        if (a->grams) DISPATCH_I32(gather, isa, is_f64, a, start, stop);
        else DISPATCH_I32(residuals, isa, is_f64, a, start, stop);
    }
    static void run_columns(int isa, int is_f64, const column_args *a, ptrdiff_t start, ptrdiff_t stop) {
        DISPATCH_I32(columns, isa, is_f64, a, start, stop);
    }
    static void run_settle(int isa, int is_f64, const column_args *a, double *left, ptrdiff_t start, ptrdiff_t stop) {
        DISPATCH_I32(settle, isa, is_f64, a, left, start, stop);
    }
    static void run_chain(int isa, int is_f64, const column_args *a, const draw_args *d, ptrdiff_t n) {
        DISPATCH_I32(chain, isa, is_f64, a, d, 0, n);
    }
    static void run_draw(int isa, int is_f64, const draw_args *a, ptrdiff_t start, ptrdiff_t stop) {
        DISPATCH_I32(draw, isa, is_f64, a, start, stop);
    }
    static void run_subspace(int isa, int is_f64, const subspace_args *a, ptrdiff_t start, ptrdiff_t stop) {
        DISPATCH_I32(subspace, isa, is_f64, a, start, stop);
    }
    """
    enum: MOST_PARTNERS
    enum: PANEL

    ctypedef struct gather_args:
        Py_ssize_t k, width, n_partners
        const int32_t **entities
        const void **tables
        double w0
        const void *target
        const void *weight
        const int32_t *starts
        void *grams
        void *residual
        void *total
        double *sums
        double *scratch

    ctypedef struct column_args:
        Py_ssize_t k, width
        const int32_t *starts
        const int32_t *columns
        const int32_t *rows
        const void *data
        const void *weight
        void *total
        void *residual
        void *own
        const void *of_entities
        const void *old
        const void *step
        void *grams
        double *scratch

    ctypedef struct draw_args:
        Py_ssize_t k, width
        const int32_t *segments
        const void *grams
        int apart
        const void *values
        const int64_t *features
        const int32_t *group
        const double *mean
        const double *precision
        const double *strength
        double alpha
        int noise
        uint64_t key
        const void *old
        void *step
        double *gain
        double *left
        double *scratch

    ctypedef struct subspace_args:
        Py_ssize_t k, width
        const int32_t *starts
        const int32_t *entities
        const void *others
        const void *weight
        const void *all
        const void *times
        const double *precision
        const double *strength
        void *theta
        double *gain
        double *left
        void *residual

    Py_ssize_t gram_row(Py_ssize_t f)
    double normal_quantile(double p) nogil
    double normal_share(double x) nogil
    double truncated_normal(double lo, double hi, double u) nogil
    double uniform_at(uint64_t key, uint64_t counter) nogil
    uint64_t mixed64(uint64_t z) nogil
    void run_gather(int isa, int is_f64, const gather_args *a, Py_ssize_t start, Py_ssize_t stop) nogil
    void run_columns(int isa, int is_f64, const column_args *a, Py_ssize_t start, Py_ssize_t stop) nogil
    void run_settle(int isa, int is_f64, const column_args *a, double *left, Py_ssize_t start, Py_ssize_t stop) nogil
    void run_chain(int isa, int is_f64, const column_args *a, const draw_args *d, Py_ssize_t n) nogil
    void run_draw(int isa, int is_f64, const draw_args *a, Py_ssize_t start, Py_ssize_t stop) nogil
    void run_subspace(int isa, int is_f64, const subspace_args *a, Py_ssize_t start, Py_ssize_t stop) nogil

most_partners = MOST_PARTNERS


def size_of_gram(Py_ssize_t k):
    """Numbers of a Gram matrix of k factors, the weight and the residual; layout in gibbs.h."""
    return gram_row(k + 1) + (((k + 1) >> 4) + 1) * 16


def scratch_of(Py_ssize_t k, Py_ssize_t width):
    """Doubles that each call needs for itself."""
    return 2 * size_of_gram(k) + 4 * PANEL * width + (k + 6) * (k + 9)


def gather(
    list tables,                    # IN (n_entities, width) of each partner
    list entities,                  # IN (n_rows,) int32 of each partner
    const REAL[::1] target,         # IN (n_rows,)
    const REAL[::1] weight,         # IN (n_rows,), None: all one
    const int32_t[::1] starts,      # IN (n_segments + 1,)
    REAL[:, ::1] grams,             # OUT (n_segments, size): segments start … stop; None: residuals instead
    REAL[::1] residual,             # OUT (n_rows,), None with grams
    REAL[:, ::1] total,             # OUT (n_rows, width) sums of the partners' vectors, or None
    double[:, ::1] sums,            # OUT (n_segments, 2): Σ weight · residual and of its square; None with grams
    double[::1] scratch,
    double w0,
    Py_ssize_t k,
    Py_ssize_t width,
    Py_ssize_t start,
    Py_ssize_t stop,
    int isa,
):
    """Gram matrices of (vectors of the partners, 1, residual) over the rows of each segment, or the residuals."""
    cdef gather_args a
    cdef const REAL[:, ::1] table
    cdef const int32_t[::1] of
    cdef Py_ssize_t p
    if start >= stop:
        return
    a.k, a.width, a.n_partners, a.w0 = k, width, len(tables), w0
    for p in range(a.n_partners):
        table, of = tables[p], entities[p]
        a.tables[p] = &table[0, 0]
        a.entities[p] = &of[0]
    a.target = &target[0]
    a.weight = NULL if weight is None else &weight[0]
    a.starts = &starts[0]
    a.grams = NULL if grams is None else &grams[0, 0]
    a.residual = NULL if residual is None else &residual[0]
    a.total = NULL if total is None else &total[0, 0]
    a.sums = NULL if sums is None else &sums[0, 0]
    a.scratch = &scratch[0]
    with nogil:
        run_gather(isa, sizeof(REAL) == 8, &a, start, stop)


def columns(
    const REAL[:, ::1] old,         # IN (n_columns, width)
    const REAL[:, ::1] step,        # IN (n_columns, width); None: Gram matrices, else the columns are moved by it
    REAL[:, ::1] total,             # INOUT (n_rows, width) of rows, or the vectors (n_entities, width) of entities
    REAL[::1] residual,             # INOUT (n_rows,); None with entities
    const REAL[:, ::1] of_entities,  # IN (n_entities, size) Gram matrices; None with rows
    const REAL[::1] weight,         # IN (n_rows,), None: all one
    const int32_t[::1] starts,      # IN (n_segments + 1,) entries
    const int32_t[::1] of,          # IN (n_segments,) column of each segment
    const int32_t[::1] rows,        # IN (n_entries,) rows or entities
    const REAL[::1] data,           # IN (n_entries,), None: every value is one
    REAL[:, ::1] grams,             # OUT (n_segments, size): segments start … stop; None with step
    double[::1] scratch,
    Py_ssize_t k,
    Py_ssize_t start,
    Py_ssize_t stop,
    int isa,
):
    """Gram matrices of columns over rows or over entities, or what follows when they move."""
    cdef column_args a
    if start >= stop:
        return
    a.k, a.width = k, old.shape[1]
    a.starts = &starts[0]
    a.columns = &of[0]
    a.rows = &rows[0]
    a.data = NULL if data is None else &data[0]
    a.weight = NULL if weight is None else &weight[0]
    a.total = a.own = &total[0, 0]
    a.residual = NULL if residual is None else &residual[0]
    a.of_entities = NULL if of_entities is None else &of_entities[0, 0]
    a.old = &old[0, 0]
    a.step = NULL if step is None else &step[0, 0]
    a.grams = NULL if grams is None else &grams[0, 0]
    a.scratch = &scratch[0]
    with nogil:
        run_columns(isa, sizeof(REAL) == 8, &a, start, stop)


def settle(
    const REAL[:, ::1] own,          # IN (n_entities, width) vectors of entities
    const REAL[:, ::1] of_entities,  # IN (n_entities, size) Gram matrices
    double[:, ::1] left,             # OUT (n_entities, 2)
    double[::1] scratch,
    Py_ssize_t k,
    Py_ssize_t start,
    Py_ssize_t stop,
    int isa,
):
    """Σ weight · residual and of its square over the rows of each entity."""
    cdef column_args a
    a.k, a.width = k, own.shape[1]
    a.own = <void *>&own[0, 0]
    a.of_entities = &of_entities[0, 0]
    a.scratch = &scratch[0]
    with nogil:
        run_settle(isa, sizeof(REAL) == 8, &a, &left[0, 0], start, stop)


def chain(
    const REAL[:, ::1] old,         # as in columns and draw; one segment a column
    REAL[:, ::1] step,
    REAL[:, ::1] total,
    REAL[::1] residual,
    const REAL[:, ::1] of_entities,
    const REAL[::1] weight,
    const int32_t[::1] starts,
    const int32_t[::1] of,
    const int32_t[::1] rows,
    const REAL[::1] data,
    REAL[:, ::1] gram,              # scratch (1, size)
    const int64_t[::1] features,
    const int32_t[::1] group,
    const double[:, ::1] mean,
    const double[:, ::1] precision,
    const double[::1] strength,
    double alpha,
    bint noise,
    uint64_t key,
    double[::1] gain,
    double[::1] scratch,
    int isa,
):
    """Draws and moves all columns in turn, each in the light of those before it."""
    cdef column_args a
    cdef draw_args d
    a.k, a.width = mean.shape[1] - 1, old.shape[1]
    a.starts = &starts[0]
    a.columns = &of[0]
    a.rows = &rows[0] if rows.shape[0] else NULL
    a.data = &data[0] if data is not None and data.shape[0] else NULL
    a.weight = NULL if weight is None else &weight[0]
    a.total = a.own = &total[0, 0]
    a.residual = NULL if residual is None else &residual[0]
    a.of_entities = NULL if of_entities is None else &of_entities[0, 0]
    a.old = d.old = &old[0, 0]
    a.step = d.step = &step[0, 0]
    a.grams = &gram[0, 0]
    a.scratch = d.scratch = &scratch[0]
    d.k, d.width = a.k, a.width
    d.grams = NULL
    d.segments = NULL
    d.apart = False
    d.values = NULL
    d.features = &features[0]
    d.group = &group[0]
    d.mean = &mean[0, 0]
    d.precision = &precision[0, 0]
    d.strength = NULL if strength is None else &strength[0]
    d.alpha = alpha
    d.noise = noise
    d.key = key
    d.gain = &gain[0]
    d.left = NULL
    with nogil:
        run_chain(isa, sizeof(REAL) == 8, &a, &d, old.shape[0])


def draw(
    const REAL[:, ::1] grams,       # IN (n_segments, size)
    const int32_t[::1] segments,    # IN (n_columns + 1,) first segment of each column
    bint apart,                     # the residuals in grams leave the columns' own part out
    const REAL[::1] values,         # IN (n_columns,) value of each column, None: one
    const int64_t[::1] features,    # IN (n_columns,) what the noise of each is drawn for
    const int32_t[::1] group,       # IN (n_columns,) of the prior
    const double[:, ::1] mean,      # IN (n_groups, k + 1) of factors and weight
    const double[:, ::1] precision,  # IN the same
    const double[::1] strength,     # IN (n_columns,) times the precision, None: one
    double alpha,                   # precision of the residuals
    bint noise,                     # a draw; else the mode
    uint64_t key,
    const REAL[:, ::1] old,         # IN (n_columns, width)
    REAL[:, ::1] step,              # OUT (n_columns, width)
    double[::1] gain,               # OUT (n_columns,) twice what the log density gains by going to the mode
    double[:, ::1] left,            # OUT (n_columns, 2): Σ weight · residual and of its square after the step, or None
    double[::1] scratch,
    Py_ssize_t start,
    Py_ssize_t stop,
    int isa,
):
    """Steps of columns start … stop to a draw from their conditionals or to its mode."""
    cdef draw_args a
    if start >= stop:
        return
    a.k, a.width = mean.shape[1] - 1, old.shape[1]
    a.segments = &segments[0]
    a.grams = &grams[0, 0]
    a.apart = apart
    a.values = NULL if values is None else &values[0]
    a.features = &features[0]
    a.group = &group[0]
    a.mean = &mean[0, 0]
    a.precision = &precision[0, 0]
    a.strength = NULL if strength is None else &strength[0]
    a.alpha = alpha
    a.noise = noise
    a.key = key
    a.old = &old[0, 0]
    a.step = &step[0, 0]
    a.gain = &gain[0]
    a.left = NULL if left is None else &left[0, 0]
    a.scratch = &scratch[0]
    with nogil:
        run_draw(isa, sizeof(REAL) == 8, &a, start, stop)


def latents(
    REAL[::1] out,                  # OUT (n_rows,): score plus a standard normal between the row's bounds
    const REAL[::1] score,          # IN (n_rows,)
    const int32_t[::1] level,       # IN (n_rows,) of the target
    const double[::1] cuts,         # IN (n_levels + 1,) ascending, from −inf to inf
    const int64_t[::1] rows,        # IN (n_rows,) what the noise of each is drawn for
    uint64_t key,
    Py_ssize_t start,
    Py_ssize_t stop,
):
    """Draws of the latent normals of rows start … stop, each between the cuts of its level."""
    cdef Py_ssize_t i
    cdef double s
    with nogil:
        for i in range(start, stop):
            s = score[i]
            out[i] = <REAL>(s + truncated_normal(cuts[level[i]] - s, cuts[level[i] + 1] - s,
                                                 uniform_at(key, <uint64_t>rows[i])))


def cut_slopes(
    double[:, ::1] sums,            # OUT (n_pieces, 1 + 3 (n_levels − 1)): pieces start … stop
    const REAL[::1] score,          # IN (n_rows,)
    const int32_t[::1] level,       # IN (n_rows,)
    const double[::1] cuts,         # IN (n_levels + 1,) ascending, from −inf to inf
    Py_ssize_t size,                # rows of a piece
    Py_ssize_t start,
    Py_ssize_t stop,
):
    """Of each piece Σ log P(level | score), its gradient by the inner cuts, and its Hessian's diagonal and the one
    above it: a row knows the two cuts around its level only."""
    cdef Py_ssize_t piece, i, n = cuts.shape[0] - 2
    cdef double lo, hi, p, near, below, above
    cdef double *out
    cdef int y
    with nogil:
        for piece in range(start, stop):
            out = &sums[piece, 0]
            for i in range(1 + 3 * n):
                out[i] = 0
            for i in range(piece * size, min((piece + 1) * size, score.shape[0])):
                y = level[i]
                lo, hi = cuts[y] - score[i], cuts[y + 1] - score[i]
                p = normal_share(-lo) - normal_share(-hi) if lo > 0 else normal_share(hi) - normal_share(lo)
                if p > 1e-290:
                    out[0] += log(p)
                    below = 0.3989422804014327 * exp(-0.5 * lo * lo) / p if y > 0 else 0
                    above = 0.3989422804014327 * exp(-0.5 * hi * hi) / p if y < n else 0
                else:  # so far out only the nearer cut counts, and the tail is φ(near) / near
                    near = lo if lo > 0 else -hi
                    out[0] -= 0.5 * near * near + log(near) + 0.9189385332046727
                    below = near + 1 / near if lo > 0 else 0
                    above = near + 1 / near if lo <= 0 else 0
                if y > 0:
                    out[y] -= below
                    out[n + y] += below * lo - below * below
                if y < n:
                    out[1 + y] += above
                    out[n + 1 + y] -= above * hi + above * above
                if 0 < y < n:
                    out[2 * n + y] += below * above


def subspace(
    REAL[:, ::1] theta,             # INOUT (n_columns, width): columns start … stop
    const int32_t[::1] starts,      # IN (n_columns + 1,) rows of each column
    const int32_t[::1] entities,    # IN (n_rows,) the other side's entity of each row
    const REAL[:, ::1] others,      # IN (n_others, width): factors, one, own score, zeros
    const REAL[::1] weight,         # IN (n_rows,), None: all one
    const REAL[:, ::1] all,         # IN (width, width) α Σ h hᵀ over all others
    const REAL[::1] times,          # IN (n_columns,) that all others are there
    const double[::1] precision,    # IN (k + 1,)
    const double[::1] strength,     # IN (n_columns,)
    double[::1] gain,               # OUT (n_columns,)
    double[:, ::1] left,            # OUT (n_columns, 2)
    REAL[::1] residual,             # scratch, the longest column's number of rows
    Py_ssize_t start,
    Py_ssize_t stop,
    int isa,
):
    """Moves each column, some of its numbers at a time; see gibbs.h."""
    cdef subspace_args a
    if start >= stop:
        return
    a.k, a.width = precision.shape[0] - 1, theta.shape[1]
    a.starts, a.entities = &starts[0], &entities[0]
    a.others = &others[0, 0]
    a.weight = NULL if weight is None else &weight[0]
    a.all, a.times = &all[0, 0], &times[0]
    a.precision, a.strength = &precision[0], &strength[0]
    a.theta, a.gain, a.left = &theta[0, 0], &gain[0], &left[0, 0]
    a.residual = &residual[0]
    with nogil:
        run_subspace(isa, sizeof(REAL) == 8, &a, start, stop)


def normal_quantiles(const double[::1] p, double[::1] out):
    """The standard normal's quantiles."""
    cdef Py_ssize_t i
    for i in range(p.shape[0]):
        out[i] = normal_quantile(p[i])


def mixed(uint64_t a, uint64_t b):
    """A key made of two."""
    return mixed64(a ^ mixed64(b + <uint64_t>0x9E3779B97F4A7C15ULL))
