/* Deterministic minibatches: a batch is scored row by row, then each feature it touches takes one step, with the
 * gradient summed over its rows in their order. The pieces of both phases follow from the batch alone and threads only
 * claim them, so the result has the same bits however many there are.
 *
 * The columns of a batch are found once and kept (csr.pyx): `features` the touched ones, ascending; `ends` where the
 * entries of each end; `entry_rows` their rows, counted within the batch.
 */
#ifndef SPARSEFM_MINIBATCH
#define SPARSEFM_MINIBATCH
#include "losses.h"
#include "team.h"

#define MAX_PIECES 32
#define PIECE_ENTRIES 512 /* entries of a piece at least: some ten microseconds of work */
#define COLUMNS_AHEAD 8   /* columns between prefetch and use */

typedef struct {
    const void *indptr, *indices, *data; /* IN CSR rows; data NULL: every value is one */
    const void *y, *weight;              /* IN (n_rows,); weight may be NULL */
    const void *order;                   /* IN (n_rows,) rows batch by batch, of type IDX */
    ptrdiff_t n_rows, batch_size;
    const void *features;       /* IN (nnz,) of type IDX: those of a batch begin where its entries do */
    const int32_t *ends;        /* IN (nnz,) alike, counted within the batch */
    const uint16_t *entry_rows; /* IN (nnz,) */
    const void *entry_data;     /* IN (nnz,), or NULL with data */
    const int64_t *entry_from;  /* IN (n_batches + 1,) where the entries of a batch begin */
    const int64_t *n_columns;   /* IN (n_batches,) features that it touches */
    const int64_t *batches;     /* IN (n_chosen,) batches in the order of the pass */
    ptrdiff_t n_chosen;
    void *table; /* INOUT (n_features, stride) */
    ptrdiff_t n_features, stride, kp;
    void *bias; /* INOUT the tail of the bias */
    double bias_rate, bias_epsilon;
    int loss;
    double shape;
    uint32_t key;                  /* of the rounding in this epoch */
    void *sums, *d, *s;            /* scratch (batch_size, kp), (batch_size,), (batch_size,) */
    void *gradients;               /* scratch (members, kp) */
    double total;                  /* INOUT Σ weight · loss, each row scored before its batch's step */
    ptrdiff_t bad;                 /* OUT a row whose score was not finite, where the pass ended; else −1 */
    ptrdiff_t next[4];             /* pieces claimed, of two phases of two batches */
    double piece_total[MAX_PIECES], piece_d[MAX_PIECES], piece_s[MAX_PIECES];
    ptrdiff_t piece_bad[MAX_PIECES];
    team_t team;
} batch_args;

typedef struct {
    const void *indptr, *indices, *data, *table; /* IN */
    ptrdiff_t stride, kp, start, stop;
    double w0;
    void *out; /* OUT (n_rows,) */
} compact_args;

static inline ptrdiff_t pieces_of(ptrdiff_t entries) {
    const ptrdiff_t n = entries / PIECE_ENTRIES;
    return n < 1 ? 1 : n > MAX_PIECES ? MAX_PIECES : n;
}

/* First column of a piece: the first whose end lies beyond its share of the entries. */
static inline ptrdiff_t column_of(const int32_t *ends, ptrdiff_t n_columns, ptrdiff_t entries, ptrdiff_t piece, ptrdiff_t n_pieces) {
    if (piece == n_pieces) return n_columns;
    const ptrdiff_t share = entries * piece / n_pieces;
    ptrdiff_t low = 0, high = n_columns;
    while (low < high) {
        const ptrdiff_t middle = (low + high) / 2;
        if (ends[middle] <= share) low = middle + 1;
        else high = middle;
    }
    return low;
}
#endif

#include "rows.h"
#include "steps.h"

/* Rows start … stop of a batch: sums, derivative and weight of each, and the piece's part of the loss. */
INLINE void FN(score_rows)(const int nvec, const int known, const int half, const int unit, batch_args *a, const params_t *t,
                            const IDX *rows, ptrdiff_t start, ptrdiff_t stop, ptrdiff_t piece) {
    const IDX *indptr = (const IDX *)a->indptr, *indices = (const IDX *)a->indices;
    const REAL *data = (const REAL *)a->data, *y = (const REAL *)a->y, *weight = (const REAL *)a->weight;
    REAL *sums = (REAL *)a->sums, *d_of = (REAL *)a->d, *s_of = (REAL *)a->s;
    const REAL w0 = ((const REAL *)a->bias)[W_AT];
    const int prefetch = (double)a->n_features * a->stride * sizeof(REAL) > PREFETCH_BYTES;
    double total = 0, d_total = 0, s_total = 0;
    ptrdiff_t bad = -1;
    (void)known;
    for (ptrdiff_t i = start; i < stop; i++) {
        if (i + 8 < stop) PREFETCH_READ(indptr + rows[i + 8]);
        if (i + 4 < stop) PREFETCH_READ(indices + indptr[rows[i + 4]]);
        if (prefetch && i + 2 < stop) {
            const ptrdiff_t r = rows[i + 2];
            for (ptrdiff_t p = indptr[r]; p < indptr[r + 1]; p++) FN(fetch)(t, indices[p]);
        }
        const ptrdiff_t r = rows[i], p = indptr[r], n = indptr[r + 1] - p;
        const REAL s = weight ? weight[r] : (REAL)1;
        REAL d = 0;
        if (s != 0) {
            double gradient;
            const REAL score = w0 + FN(row_score)(nvec, half, unit, indices + p,
                                                  unit ? NULL : data + p, n, t, 0, sums + i * a->kp, NULL, 0);
            if (!(score - score == 0)) bad = r;
            total += (double)s * loss_of(a->loss, a->shape, (double)y[r], (double)score, &gradient);
            d = s * (REAL)gradient;
        } else {
            memset(sums + i * a->kp, 0, a->kp * sizeof(REAL));
        }
        d_of[i] = d;
        s_of[i] = s;
        d_total += (double)d;
        s_total += (double)s;
    }
    a->piece_total[piece] = total;
    a->piece_d[piece] = d_total;
    a->piece_s[piece] = s_total;
    a->piece_bad[piece] = bad;
}

LOCAL void FN(score_piece)(int half, batch_args *a, const params_t *t, const IDX *rows, ptrdiff_t start, ptrdiff_t stop, ptrdiff_t piece) {
    const int nvec = (int)(a->kp / W);
#define SCORE(N, K, H, U) FN(score_rows)(N, K, H, U, a, t, rows, start, stop, piece)
    if (half) {
        if (sizeof(REAL) == 4) SCORE(nvec, 0, HALF, a->data == NULL);
    } else if (a->data == NULL) FOR_FEW_RANKS(nvec, SCORE, WHOLE, 1)
    else FOR_FEW_RANKS(nvec, SCORE, WHOLE, 0)
#undef SCORE
}

/* One step for a feature whose n entries are given; x NULL: all of them are one. */
INLINE void FN(step_column)(const int nvec, const int known, const int optimiser, batch_args *a, REAL *row,
                            const uint16_t *rows, const REAL *x, ptrdiff_t n, REAL *gradients, const step_t *c) {
    const REAL *sums = (const REAL *)a->sums, *d_of = (const REAL *)a->d, *s_of = (const REAL *)a->s;
    const ptrdiff_t kp = a->kp;
    const int rowwise = optimiser == ROWWISE || optimiser == COMPACT;
    REAL *tail = row + tail_at(optimiser, kp), g_w = 0, s = 0;
    vec v[TILE], g[TILE], squares = FN(zero)();
    if (a->weight) for (ptrdiff_t p = 0; p < n; p++) s += s_of[rows[p]];
    else s = (REAL)n;
    if (s == 0) return;
    const REAL l2 = s * tail[L2_V_AT];
#define ADD_ENTRIES(T, f)                                                                         \
    do {                                                                                          \
        for (int i = 0; i < (T); i++) {                                                           \
            v[i] = FN(factor_at)(optimiser, row, (f) + i);                                        \
            g[i] = v[i] * l2;                                                                     \
        }                                                                                         \
        for (ptrdiff_t p = 0; p < n; p++) {                                                       \
            const REAL *S = sums + rows[p] * kp + (f) * W;                                        \
            const REAL value = x ? x[p] : (REAL)1, dx = d_of[rows[p]] * value;                    \
            if ((f) == 0) g_w += dx;                                                              \
            for (int i = 0; i < (T); i++) g[i] += (FN(load)(S + i * W) - v[i] * value) * dx;      \
        }                                                                                         \
        if (rowwise) for (int i = 0; i < (T); i++) squares += g[i] * g[i];                        \
    } while (0)
    if (known) {
        ADD_ENTRIES(nvec, 0);
    } else {
        for (int f = 0; f < nvec; f++) {
            ADD_ENTRIES(1, f);
            FN(store)(gradients + f * W, g[0]);
        }
        if (nvec == 0) for (ptrdiff_t p = 0; p < n; p++) g_w += d_of[rows[p]] * (x ? x[p] : (REAL)1);
    }
    const visit_t visit = FN(begin_row)(optimiser, tail, rowwise ? FN(sum)(squares) : 0, c);
    if (known) {
        FN(step_tile)(nvec, optimiser, row, 0, kp, v, g, &visit, c);
    } else {
        for (int f = 0; f < nvec; f++) {
            v[0] = FN(factor_at)(optimiser, row, f);
            g[0] = FN(load)(gradients + f * W);
            FN(step_tile)(1, optimiser, row, f, kp, v, g, &visit, c);
        }
    }
    FN(step_linear)(optimiser, tail, g_w + s * tail[L2_W_AT] * tail[W_AT], &visit, c);
#undef ADD_ENTRIES
}

INLINE void FN(batch_rows)(const int nvec, const int known, const int optimiser, batch_args *a, const step_args *step,
                           int member) {
    REAL *table = (REAL *)a->table, *bias = (REAL *)a->bias, *gradients = (REAL *)a->gradients + member * a->kp;
    const ptrdiff_t row_bytes = (tail_at(optimiser, a->kp) + STATE_AT + 4) * (ptrdiff_t)sizeof(REAL);
    const int prefetch = (double)a->n_features * a->stride * sizeof(REAL) > PREFETCH_BYTES;
    const params_t t = FN(table_params)(optimiser, table, a->stride, a->kp);
    step_t c = FN(step_of)(step), c0 = c;
    c0.rate = (REAL)a->bias_rate;
    c0.inverse_rate = (REAL)(1 / a->bias_rate);
    c0.epsilon = (REAL)a->bias_epsilon;
    c0.l1 = 0;
    for (ptrdiff_t i = 0; i < a->n_chosen; i++) {
        const ptrdiff_t batch = (ptrdiff_t)a->batches[i], first = batch * a->batch_size;
        const ptrdiff_t n_rows = first + a->batch_size < a->n_rows ? a->batch_size : a->n_rows - first;
        const ptrdiff_t entries = (ptrdiff_t)(a->entry_from[batch + 1] - a->entry_from[batch]);
        const ptrdiff_t n_pieces = pieces_of(entries + n_rows);
        const IDX *rows = (const IDX *)a->order + first;
        ptrdiff_t *scoring = a->next + 2 * (i % 2), *stepping = scoring + 1, piece;

        while ((piece = team_claim(scoring)) < n_pieces)
            FN(score_piece)(optimiser == COMPACT, a, &t, rows, n_rows * piece / n_pieces, n_rows * (piece + 1) / n_pieces, piece);
        team_wait(&a->team);
        for (piece = 0; piece < n_pieces; piece++)
            if (a->piece_bad[piece] >= 0) {
                if (member == 0) a->bad = a->piece_bad[piece];
                return;
            }

        const IDX *features = (const IDX *)a->features + a->entry_from[batch];
        const int32_t *ends = a->ends + a->entry_from[batch];
        const ptrdiff_t n_columns = (ptrdiff_t)a->n_columns[batch];
        const uint16_t *entry_rows = a->entry_rows + a->entry_from[batch];
        const REAL *entry_data = a->data == NULL ? NULL : (const REAL *)a->entry_data + a->entry_from[batch];
        const uint32_t key = mixed32(a->key + mixed32((uint32_t)batch));
        while ((piece = team_claim(stepping)) < n_pieces) {
            if (piece == 0) { /* the bias, the losses, and the counters of the next batch */
                double total = 0, d = 0, s = 0;
                for (ptrdiff_t q = 0; q < n_pieces; q++) {
                    total += a->piece_total[q];
                    d += a->piece_d[q];
                    s += a->piece_s[q];
                }
                a->total += total;
                if (s > 0) { /* else as if the rows were absent */
                    const visit_t visit = FN(begin_row)(optimiser, bias, 0, &c0);
                    FN(step_linear)(optimiser, bias, (REAL)d, &visit, &c0);
                }
                a->next[2 * ((i + 1) % 2)] = a->next[2 * ((i + 1) % 2) + 1] = 0;
            }
            const ptrdiff_t stop = column_of(ends, n_columns, entries, piece + 1, n_pieces);
            for (ptrdiff_t u = column_of(ends, n_columns, entries, piece, n_pieces); u < stop; u++) {
                if (prefetch && u + COLUMNS_AHEAD < stop) {
                    const char *row = (const char *)(table + (ptrdiff_t)features[u + COLUMNS_AHEAD] * a->stride);
                    for (ptrdiff_t o = 0; o < row_bytes; o += 64) PREFETCH_WRITE(row + o);
                    PREFETCH_WRITE(row + row_bytes - 1);
                }
                const ptrdiff_t from = u ? ends[u - 1] : 0;
                c.key = mixed32(key + (uint32_t)features[u]);
                FN(step_column)(nvec, known, optimiser, a, table + (ptrdiff_t)features[u] * a->stride, entry_rows + from,
                                entry_data ? entry_data + from : NULL, ends[u] - from, gradients, &c);
            }
        }
        team_wait(&a->team);
    }
}

LOCAL void FN(batches)(batch_args *a, const step_args *step, int member) {
    const int nvec = (int)(a->kp / W);
#define BATCHES(N, K, O) FN(batch_rows)(N, K, O, a, step, member)
#define BATCHES_OF(O) FOR_FEW_RANKS(nvec, BATCHES, O)
    FOR_OPTIMISER(step->optimiser, BATCHES_OF)
#undef BATCHES_OF
#undef BATCHES
}

/* Scores of the rows start … stop from a table of bfloat16 rows. */
LOCAL void FN(compact_scores)(const compact_args *a) {
    const IDX *indptr = (const IDX *)a->indptr, *indices = (const IDX *)a->indices;
    const REAL *data = (const REAL *)a->data;
    const params_t t = FN(table_params)(COMPACT, (const REAL *)a->table, a->stride, a->kp);
    for (ptrdiff_t i = a->start; i < a->stop; i++) {
        const ptrdiff_t p = indptr[i], n = indptr[i + 1] - p, to_come = indptr[a->stop] - p;
#define SCORE(N, U) FN(row_score)(N, HALF, U, indices + p, U ? NULL : data + p, n, &t, to_come, NULL, NULL, 0)
        const REAL score = data == NULL ? SCORE((int)(a->kp / W), 1) : SCORE((int)(a->kp / W), 0);
#undef SCORE
        ((REAL *)a->out)[i] = (REAL)a->w0 + score;
    }
}

#undef vec
#undef mask_t
#undef params_t
#undef step_t
#undef visit_t
