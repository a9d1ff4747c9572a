/* Fused training: one pass that scores a sample and updates every row it read, samples one after another.
 *
 * The table holds one row a feature (steps.h), so that reading and updating it are one visit to memory. For a
 * sample with weight s (mean 1), loss ℓ and d = s · ∂ℓ/∂score,
 *
 *     g(w0) = d        g(w_j) = d x_j + s λ_w w_j        g(v_jf) = d x_j (S_f − z_jf) + s λ_v v_jf
 *
 * S is taken before any row of the sample changes. Paying λ at every visit makes the penalty weighted by
 * the share of rows in which a feature occurs, and keeps the cost at the non-zeros touched.
 *
 * Of the family's other members (families.h) the gradient of v_j is d x_j ∂score/∂z_j + s λ_v v_j, with a λ_v for each block of
 * v_j; a row's are all found before any row of the table changes. Field weights take steps of their own, as the bias does.
 *
 * With dropout p, an entry is hidden with probability p: it becomes the column that unknown levels of its field
 * have, where there is one, so that this column is trained; else it is left out, and what stays is divided by 1 − p.
 */
#include "rows.h"
#include "steps.h"
#include "families.h"

#ifndef SPARSEFM_EPOCH
#define SPARSEFM_EPOCH
#include "losses.h"

#define PAIR_REALS 7 /* of the tail of a field weight; they stand behind that of the bias */

typedef struct {
    const void *indptr, *indices, *data; /* IN CSR rows; data NULL: every value is one */
    ptrdiff_t n_rows;
    ptrdiff_t row_length;                /* non-zeros of every row if all have as many, else −1 */
    const void *y;                       /* IN (n_rows,) */
    const void *weight;                  /* IN (n_rows,) with mean 1, or NULL */
    const void *order;                   /* IN (n_samples,) rows in the order of the pass, of type IDX */
    ptrdiff_t n_samples;
    void *table; /* INOUT (n_features, stride) */
    ptrdiff_t n_features, stride, kp;
    void *sums; /* scratch (kp,) aligned */
    void *bias; /* INOUT (STATE_AT + 4,), the tail of the bias, and behind it those of field weights */
    family_t *family;     /* of which the parameters are in the table and those tails; NULL: pairs */
    const void *l2_of;    /* IN (kp,) what λ_v is multiplied by, of family */
    void *H;              /* scratch (longest row, kp) of zeros, of family */
    double bias_rate, bias_epsilon;
    int loss;
    double shape;          /* of the loss */
    const int32_t *bucket; /* IN (n_features,), −1 where a hidden entry is left out; NULL: everywhere */
    double dropout;
    void *kept_indices, *kept_data; /* scratch, as long as the longest row; with dropout */
    uint32_t key, first;            /* of dropout and rounding in this epoch; number of the first row */
    double total;                   /* INOUT Σ weight · loss, each sample scored before its own update */
    ptrdiff_t bad;                  /* OUT the row whose score was not finite, where the pass ended; else −1 */
} epoch_args;
#endif

INLINE void FN(fetch_row)(const REAL *row, ptrdiff_t bytes) {
    for (ptrdiff_t o = 0; o < bytes; o += 64) PREFETCH_WRITE((const char *)row + o);
    PREFETCH_WRITE((const char *)row + bytes - 1);
}

/* The same into the second-level cache: two wide samples do not fit the first. */
INLINE void FN(fetch_wide)(const REAL *row, ptrdiff_t bytes) {
    for (ptrdiff_t o = 0; o < bytes; o += 64) PREFETCH_NEAR((const char *)row + o);
    PREFETCH_NEAR((const char *)row + bytes - 1);
}

/* Updates the row of one entry of the sample, whose value is x; S are its sums, in registers for a constant nvec. */
INLINE void FN(update_row)(const int nvec, const int known, const int optimiser, const int unit, REAL *row, ptrdiff_t kp,
                           REAL x, REAL d, REAL s, const vec *S, const REAL *sums, const step_t *c) {
    REAL *tail = row + tail_at(optimiser, kp);
    const REAL dx = unit ? d : d * x, l2 = s * tail[L2_V_AT];
    const int rowwise = optimiser == ROWWISE || optimiser == COMPACT;
    vec v[TILE], g[TILE], squares = FN(zero)();
#define GRADIENT(i, f, S_f)                                                \
    do {                                                                   \
        v[i] = FN(factor_at)(optimiser, row, f);                           \
        g[i] = ((S_f) - (unit ? v[i] : v[i] * x)) * dx + v[i] * l2;        \
    } while (0)
    if (known) {
        for (int i = 0; i < nvec; i++) {
            GRADIENT(i, i, S[i]);
            if (rowwise) squares += g[i] * g[i];
        }
    } else if (rowwise) {
        for (int f = 0; f < nvec; f++) {
            GRADIENT(0, f, FN(load)(sums + f * W));
            squares += g[0] * g[0];
        }
    }
    const visit_t visit = FN(begin_row)(optimiser, tail, rowwise ? FN(sum)(squares) : 0, c);
    if (known) {
        FN(step_tile)(nvec, optimiser, row, 0, kp, v, g, &visit, c);
    } else {
        for (int f = 0; f < nvec; f++) {
            GRADIENT(0, f, FN(load)(sums + f * W));
            FN(step_tile)(1, optimiser, row, f, kp, v, g, &visit, c);
        }
    }
    FN(step_linear)(optimiser, tail, dx + s * tail[L2_W_AT] * tail[W_AT], &visit, c);
#undef GRADIENT
}

/* The same of another family: h is the gradient of the score by z. */
INLINE void FN(update_entry)(const int optimiser, REAL *row, ptrdiff_t kp, REAL x, REAL d, REAL s, const REAL *h,
                              const REAL *l2_of, const step_t *c) {
    REAL *tail = row + tail_at(optimiser, kp);
    const REAL dx = d * x, l2 = s * tail[L2_V_AT];
    vec v, g, squares = FN(zero)();
#define GRADIENT(f)                                                             \
    do {                                                                        \
        v = FN(load)(row + (f));                                                \
        g = FN(load)(h + (f)) * dx + v * FN(load)(l2_of + (f)) * l2;            \
    } while (0)
    if (optimiser == ROWWISE)
        for (ptrdiff_t f = 0; f < kp; f += W) {
            GRADIENT(f);
            squares += g * g;
        }
    const visit_t visit = FN(begin_row)(optimiser, tail, FN(sum)(squares), c);
    for (ptrdiff_t f = 0; f < kp; f += W) {
        GRADIENT(f);
        FN(step_tile)(1, optimiser, row, (int)(f / W), kp, &v, &g, &visit, c);
    }
    FN(step_linear)(optimiser, tail, dx + s * tail[L2_W_AT] * tail[W_AT], &visit, c);
#undef GRADIENT
}

/* All entries of a row; on the way those of a later row are fetched, one each. */
APART void FN(update_entries)(int optimiser, const epoch_args *a, const IDX *idx, const REAL *x, ptrdiff_t n, REAL d, REAL s,
                              const step_t *c, const IDX *next, ptrdiff_t n_next) {
    const ptrdiff_t kp = a->kp, bytes = (tail_at(optimiser, kp) + STATE_AT + 4) * (ptrdiff_t)sizeof(REAL);
    REAL *table = (REAL *)a->table;
    const REAL *H = (const REAL *)a->H, *l2_of = (const REAL *)a->l2_of;
#define ROW(j) (table + (ptrdiff_t)(j) * a->stride)
#define UPDATE(O)                                                                                            \
    for (ptrdiff_t q = 0; q < (n > n_next ? n : n_next) && (O) != COMPACT; q++) {                            \
        if (q < n_next) FN(fetch_wide)(ROW(next[q]), bytes);                                                 \
        if (q < n) FN(update_entry)(O, ROW(idx[q]), kp, x ? x[q] : (REAL)1, d, s, H + q * kp, l2_of, c);     \
    }
    FOR_OPTIMISER(optimiser, UPDATE)
#undef UPDATE
#undef ROW
}

/* The weights of the pairs of fields that the last row has, whose penalty is ½ λ (r − 1)². */
APART void FN(update_pairs)(int optimiser, const family_t *family, REAL *pairs, REAL d, REAL s, const step_t *c) {
    const int way = optimiser == FTRL || optimiser == ROWWISE ? ADAGRAD : optimiser; /* no L1, and one number each */
    const int32_t *field = family->places + family->n_fields;
    const REAL *products = (const REAL *)family->products;
    for (ptrdiff_t i = 0; i < family->n_cells; i++)
        for (ptrdiff_t l = 0; l <= i; l++) {
            const ptrdiff_t at = pair_of(field[i], field[l], family->n_fields);
            REAL *tail = pairs + at * PAIR_REALS;
            const visit_t visit = FN(begin_row)(way, tail, 0, c);
            FN(step_linear)(way, tail, d * products[at] + s * tail[L2_W_AT] * (tail[W_AT] - 1), &visit, c);
        }
}

/* The entries of a row that dropout leaves; returns their number. */
INLINE ptrdiff_t FN(hide)(const IDX *idx, const REAL *x, ptrdiff_t n, const int32_t *bucket, double dropout,
                          uint32_t key, IDX *kept_idx, REAL *kept_x) {
    const uint32_t limit = (uint32_t)(dropout * 4294967296.0);
    const REAL scale = (REAL)(1 / (1 - dropout));
    ptrdiff_t kept = 0;
    for (ptrdiff_t p = 0; p < n; p++) {
        const IDX unknown = bucket ? (IDX)bucket[idx[p]] : -1;
        REAL value = x ? x[p] : (REAL)1;
        IDX j = idx[p];
        if (mixed32(key ^ mixed32((uint32_t)j)) < limit) {
            if (unknown < 0) continue;
            j = unknown;
            ptrdiff_t q = 0;
            while (q < kept && kept_idx[q] != j) q++;
            if (q < kept) { /* two unknown levels of one cell are one entry */
                kept_x[q] += value;
                continue;
            }
        } else if (unknown < 0) {
            value *= scale;
        }
        kept_idx[kept] = j;
        kept_x[kept++] = value;
    }
    return kept;
}

INLINE void FN(prefetch_array)(const void *p, ptrdiff_t bytes) {
    for (ptrdiff_t o = 0; o < bytes; o += 64) PREFETCH_READ((const char *)p + o);
    PREFETCH_READ((const char *)p + bytes);
}

INLINE void FN(epoch_rows)(const int nvec, const int known, const int optimiser, const int unit, const int member,
                           epoch_args *a, const step_args *step) {
    const IDX *indptr = (const IDX *)a->indptr, *indices = (const IDX *)a->indices;
    const IDX *order = (const IDX *)a->order;
    const REAL *data = (const REAL *)a->data, *y = (const REAL *)a->y, *weight = (const REAL *)a->weight;
    REAL *table = (REAL *)a->table, *sums = (REAL *)a->sums;
    REAL bias[STATE_AT + 4]; /* in registers: from sample to sample everything waits for it */
    const ptrdiff_t stride = a->stride, kp = a->kp, row_length = a->row_length, n_samples = a->n_samples;
    const ptrdiff_t row_bytes = (tail_at(optimiser, kp) + STATE_AT + 4) * (ptrdiff_t)sizeof(REAL);
    const int prefetch = (double)a->n_features * stride * sizeof(REAL) > PREFETCH_BYTES;
    const params_t t = FN(table_params)(optimiser, table, stride, kp);
    step_t c = FN(step_of)(step), c0 = c;
    c0.rate = (REAL)a->bias_rate;
    c0.inverse_rate = (REAL)(1 / a->bias_rate);
    c0.epsilon = (REAL)a->bias_epsilon;
    c0.l1 = 0;
    double total = a->total;
    memcpy(bias, a->bias, sizeof bias);
    /* Samples between prefetch and use: about 48 non-zeros. The sample's own entries are fetched as much
     * earlier, and the pointer to them as much earlier again. */
    const ptrdiff_t mean = (indptr[a->n_rows] - indptr[0]) / (a->n_rows > 0 ? a->n_rows : 1) + 1;
    const ptrdiff_t ahead = 1 + 48 / mean;

    a->bad = -1;
    for (ptrdiff_t i = 0; i < n_samples; i++) {
        if (row_length < 0 && i + 3 * ahead < n_samples) PREFETCH_READ(indptr + order[i + 3 * ahead]);
        if (i + 2 * ahead < n_samples) {
            const ptrdiff_t r = order[i + 2 * ahead];
            const ptrdiff_t from = row_length >= 0 ? r * row_length : indptr[r];
            const ptrdiff_t to = row_length >= 0 ? from + row_length : indptr[r + 1];
            FN(prefetch_array)(indices + from, (to - from) * sizeof(IDX));
            if (data) FN(prefetch_array)(data + from, (to - from) * sizeof(REAL));
            PREFETCH_READ(y + r);
            if (weight) PREFETCH_READ(weight + r);
        }
        const IDX *next = NULL;
        ptrdiff_t n_next = 0;
        if (prefetch && i + ahead < n_samples) {
            const ptrdiff_t r = order[i + ahead];
            const ptrdiff_t from = row_length >= 0 ? r * row_length : indptr[r];
            const ptrdiff_t to = row_length >= 0 ? from + row_length : indptr[r + 1];
            next = indices + from;
            n_next = to - from;
            for (ptrdiff_t p = 0; p < (member ? 0 : n_next); p++) FN(fetch_row)(table + (ptrdiff_t)next[p] * stride, row_bytes);
        }
        const ptrdiff_t r = order[i];
        const ptrdiff_t p = row_length >= 0 ? r * row_length : indptr[r];
        ptrdiff_t n = row_length >= 0 ? row_length : indptr[r + 1] - p;
        const IDX *idx = indices + p;
        const REAL *x = unit || data == NULL ? NULL : data + p;
        const REAL s = weight ? weight[r] : (REAL)1;
        if (s == 0) continue; /* as if the row were absent */
        if (optimiser == COMPACT || !unit) c.key = mixed32(a->key + mixed32(a->first + (uint32_t)r));
        if (!unit && a->dropout > 0) {
            n = FN(hide)(idx, x, n, a->bucket, a->dropout, c.key, (IDX *)a->kept_indices, (REAL *)a->kept_data);
            idx = (const IDX *)a->kept_indices;
            x = (const REAL *)a->kept_data;
        }
        const REAL score = bias[W_AT] + (member ? (REAL)a->family->meet(a->family, idx, x, n, 0, NULL, a->H)
                                                : FN(row_score)(nvec, optimiser == COMPACT ? HALF : WHOLE, unit, idx, x, n, &t, 0, sums, NULL, 0));
        if (!(score - score == 0)) {
            a->bad = r;
            break;
        }
        double gradient;
        total += (double)s * loss_of(a->loss, a->shape, (double)y[r], (double)score, &gradient);
        const REAL d = s * (REAL)gradient;
        const visit_t visit = FN(begin_row)(optimiser, bias, 0, &c0);
        FN(step_linear)(optimiser, bias, d, &visit, &c0);
        if (member) {
            FN(update_entries)(optimiser, a, idx, x, n, d, s, &c, next, n_next);
            if (a->family->kind == WEIGHTED) FN(update_pairs)(optimiser, a->family, (REAL *)a->bias + STATE_AT + 4, d, s, &c);
            continue;
        }
        vec S[TILE];
        for (int f = 0; f < (known ? nvec : 0); f++) S[f] = FN(load)(sums + f * W);
        for (ptrdiff_t q = 0; q < n; q++) {
            if (optimiser == COMPACT) c.key += 0x9e3779b9U;
            FN(update_row)(nvec, known, optimiser, unit, table + (ptrdiff_t)idx[q] * stride, kp, unit ? (REAL)1 : x[q], d, s, S, sums, &c);
        }
    }
    memcpy(a->bias, bias, sizeof bias);
    a->total = total;
}
