/* Passes over many rows that only read the parameters: scores, pairs by factor, and their gradients.
 *
 * Pairs are the k numbers whose sum is the interaction part of the score, pairs_f = Σ_{j<l} z_jf z_lf.
 * Gradients come in two passes that share nothing but the sums S of the forward pass (n_rows, s_stride).
 * With d_i the gradient with respect to score i:
 *   by row      g_data[p] = d_i · ∂score_i/∂x_p
 *   by feature  g_w[u] = Σ_i d_i x_iu,   g_V[u] = Σ_i d_i x_iu (S_i − x_iu v_u)
 * With D_if the gradient with respect to pairs_if there is no linear part, and D_if stands for d_i in g_V and
 *               g_data[p] = Σ_f D_if v_jf (S_if − x_p v_jf)
 * The pass by feature runs over the transposed rows (csr.pyx), each feature's entries in row order. No two
 * pieces of work write one place and every sum has one order, so the bits do not depend on the number of
 * threads.
 */
#ifndef SPARSEFM_FM
#define SPARSEFM_FM
#define TAIL 32
#define COLUMNS_AHEAD 16 /* touched features between prefetch and use */

typedef struct {
    const void *indptr, *indices, *data; /* IN CSR rows; data NULL: every value is one */
    const void *w, *v;                   /* IN parameters, strides in elements */
    ptrdiff_t w_stride, v_stride, n_features, n_factors;
    double w0;
    ptrdiff_t start, stop; /* rows of this piece */
    void *out;             /* OUT (n_rows,) scores, or NULL */
    void *pairs;           /* OUT (n_rows, n_factors), or NULL */
    void *sums;            /* OUT (n_rows, s_stride), or NULL */
    ptrdiff_t s_stride;    /* n_factors rounded up to a multiple of 16 */
    void *tail;            /* scratch (n_factors + TAIL,) */
} forward_args;

typedef struct {
    const void *indptr, *indices, *data; /* IN CSR rows */
    const void *w, *v;                   /* IN parameters */
    ptrdiff_t w_stride, v_stride, n_features, n_factors;
    const void *sums;      /* IN (n_rows, s_stride) */
    ptrdiff_t s_stride;
    const void *d;         /* IN (n_rows,), or (n_rows, s_stride) if by_factor */
    int by_factor;
    ptrdiff_t start, stop; /* rows of this piece */
    void *g_data;          /* OUT (nnz,) */
    void *tail;            /* scratch (n_factors + TAIL,) */
} backward_rows_args;

typedef struct {
    const int64_t *features;   /* IN (n_touched,) */
    const int64_t *colptr;     /* IN (n_touched + 1,) entries of each touched feature */
    const int64_t *entry_rows; /* IN (nnz,) row of each entry, ascending within a feature */
    const void *entry_data;    /* IN (nnz,) value of each entry, or NULL */
    const void *v;
    ptrdiff_t v_stride, n_factors;
    const void *sums; /* IN (n_rows, s_stride) */
    ptrdiff_t s_stride;
    const void *d;    /* IN (n_rows,), or (n_rows, s_stride) if by_factor */
    int by_factor;
    ptrdiff_t start, stop, n_touched; /* touched features of this piece, and in all */
    void *g_w;             /* OUT (n_touched,), or NULL */
    void *g_v;             /* OUT (n_touched, n_factors) */
    void *tail;            /* scratch (n_factors + TAIL,) */
} backward_columns_args;
#endif

#include "rows.h"

/* Fills t and its tail (k + 2·W reals are enough); returns vectors a row. A rank that is no multiple of W
 * is `masked`. */
INLINE int FN(set_params)(params_t *t, REAL *tail, const void *w, ptrdiff_t w_stride, const void *v,
                          ptrdiff_t v_stride, ptrdiff_t n_features, ptrdiff_t k, int *masked) {
    const int nvec = (int)((k + W - 1) / W);
    t->w = (const REAL *)w;
    t->v = (const REAL *)v;
    t->w_stride = w_stride;
    t->v_stride = v_stride;
    t->v_bytes = k * sizeof(REAL);
    t->tail = tail;
    t->tail_from = (IDX)n_features;
    memset(&t->mask, 0, sizeof t->mask);
    *masked = k % W != 0;
#if W > 1
    if (*masked) {
        for (int i = 0; i < k % W; i++) t->mask[i] = -1;
        /* first row j with j·stride + nvec·W > (n − 1)·stride + k, the end of the array */
        const ptrdiff_t beyond = nvec * W - k;
        ptrdiff_t rows = v_stride > 0 ? (beyond + v_stride - 1) / v_stride : n_features;
        if (rows > n_features) rows = n_features;
        t->tail_from = (IDX)(n_features - rows);
        memset(tail, 0, (k + 2 * W) * sizeof(REAL));
        for (ptrdiff_t j = 0; j < (v_stride > 0 ? rows : 1); j++) /* stride 0: one row stands for all */
            memcpy(tail + j * v_stride, t->v + (n_features - rows + j) * v_stride, k * sizeof(REAL));
    }
#endif
    return nvec;
}

INLINE void FN(forward_rows)(const int nvec, const int masked, const int unit, const params_t *t,
                             const forward_args *a, const int prefetch) {
    const IDX *indptr = (const IDX *)a->indptr, *indices = (const IDX *)a->indices;
    const REAL *data = (const REAL *)a->data;
    REAL *out = (REAL *)a->out, *sums = (REAL *)a->sums, *pairs = (REAL *)a->pairs;
    const REAL w0 = (REAL)a->w0;
    const ptrdiff_t end = indptr[a->stop];
    for (ptrdiff_t i = a->start; i < a->stop; i++) {
        const ptrdiff_t p = indptr[i], n = indptr[i + 1] - p;
        const REAL score = FN(row_score)(nvec, masked, unit, indices + p, unit ? NULL : data + p, n, t,
                                         prefetch ? end - p : 0, sums ? sums + i * a->s_stride : NULL,
                                         pairs ? pairs + i * a->n_factors : NULL, a->n_factors);
        if (out) out[i] = w0 + score;
    }
}

LOCAL void FN(forward)(const forward_args *a) {
    params_t t;
    int masked;
    const int nvec = FN(set_params)(&t, (REAL *)a->tail, a->w, a->w_stride, a->v, a->v_stride, a->n_features, a->n_factors, &masked);
    const int prefetch = (double)a->n_features * (a->v_stride + 1) * sizeof(REAL) > PREFETCH_BYTES;
#define FORWARD(N, M, U, P) FN(forward_rows)(N, M, U, &t, a, P)
    if (masked) {
        if (a->data == NULL) FORWARD(nvec, 1, 1, prefetch);
        else FORWARD(nvec, 1, 0, prefetch);
    } else if (prefetch) {
        if (a->data == NULL) FOR_RANK(nvec, FORWARD, 0, 1, 1)
        else FOR_RANK(nvec, FORWARD, 0, 0, 1)
    } else {
        if (a->data == NULL) FOR_RANK(nvec, FORWARD, 0, 1, 0)
        else FOR_RANK(nvec, FORWARD, 0, 0, 0)
    }
#undef FORWARD
}

INLINE void FN(values_rows)(const int nvec, const int masked, const int by_factor, const params_t *t,
                            const backward_rows_args *a, const int prefetch) {
    const IDX *indptr = (const IDX *)a->indptr, *indices = (const IDX *)a->indices;
    const REAL *data = (const REAL *)a->data, *sums = (const REAL *)a->sums, *d = (const REAL *)a->d;
    REAL *g = (REAL *)a->g_data;
    const ptrdiff_t end = indptr[a->stop];
    for (ptrdiff_t i = a->start; i < a->stop; i++) {
        const REAL *S = sums + i * a->s_stride, *D = d + i * (by_factor ? a->s_stride : 1);
        for (ptrdiff_t p = indptr[i]; p < indptr[i + 1]; p++) {
            const REAL *v = FN(factors_of)(t, masked, indices[p]);
            const REAL x = data ? data[p] : (REAL)1;
            if (prefetch && p + AHEAD < end) FN(fetch)(t, indices[p + AHEAD]);
            vec acc = FN(zero)();
            for (int f = 0; f < nvec; f++) {
                vec vf = FN(load)(v + f * W);
                if (masked && f == nvec - 1) vf = FN(keep)(vf, t->mask);
                const vec others = vf * (FN(load)(S + f * W) - vf * x);
                acc += by_factor ? others * FN(load)(D + f * W) : others;
            }
            g[p] = by_factor ? FN(sum)(acc) : *D * (t->w[(ptrdiff_t)indices[p] * t->w_stride] + FN(sum)(acc));
        }
    }
}

LOCAL void FN(backward_rows)(const backward_rows_args *a) {
    params_t t;
    int masked;
    const int nvec = FN(set_params)(&t, (REAL *)a->tail, a->w, a->w_stride, a->v, a->v_stride, a->n_features, a->n_factors, &masked);
    const int prefetch = a->n_factors > 0 && (double)a->n_features * (a->v_stride + 1) * sizeof(REAL) > PREFETCH_BYTES;
#define VALUES(N, M, F) FN(values_rows)(N, M, F, &t, a, prefetch)
    if (a->by_factor) VALUES(nvec, masked, 1);
    else if (masked) VALUES(nvec, 1, 0);
    else FOR_RANK(nvec, VALUES, 0, 0)
#undef VALUES
}

/* T vectors of one touched feature's gradient, v its factors padded with zeros; with `linear` g_w on the way. */
INLINE void FN(columns_tile)(const int T, const int f, const int by_factor, const int linear,
                             const backward_columns_args *a, const REAL *v, ptrdiff_t u) {
    const REAL *x = (const REAL *)a->entry_data, *sums = (const REAL *)a->sums, *d = (const REAL *)a->d;
    vec acc[TILE], squares[TILE];
    REAL square = 0, lin = 0;
    for (int i = 0; i < T; i++) acc[i] = squares[i] = FN(zero)();
    for (int64_t p = a->colptr[u]; p < a->colptr[u + 1]; p++) {
        const REAL value = x ? x[p] : (REAL)1;
        const REAL *S = sums + a->entry_rows[p] * a->s_stride + f * W;
        if (by_factor) {
            const REAL *D = d + a->entry_rows[p] * a->s_stride + f * W;
            for (int i = 0; i < T; i++) {
                const vec g = FN(load)(D + i * W) * value;
                squares[i] += g * value;
                acc[i] += FN(load)(S + i * W) * g;
            }
        } else {
            const REAL g = d[a->entry_rows[p]] * value;
            if (linear) lin += g;
            square += g * value;
            for (int i = 0; i < T; i++) acc[i] += FN(load)(S + i * W) * g;
        }
    }
    REAL *row = (REAL *)a->g_v + u * a->n_factors + f * W;
    for (int i = 0; i < T; i++) {
        const vec vf = FN(load)(v + (f + i) * W);
        FN(store_first)(row + i * W, acc[i] - (by_factor ? vf * squares[i] : vf * square), a->n_factors - (f + i) * W);
    }
    if (linear && !by_factor) ((REAL *)a->g_w)[u] = lin;
}

INLINE void FN(gradient_rows)(const int nvec, const int by_factor, const backward_columns_args *a) {
    const REAL *v = (const REAL *)a->v;
    REAL *tail = (REAL *)a->tail;
    const ptrdiff_t k = a->n_factors;
    memset(tail, 0, (k + TAIL) * sizeof(REAL));
    for (ptrdiff_t u = a->start; u < a->stop; u++) {
        if (u + COLUMNS_AHEAD < a->n_touched) {
            const char *next = (const char *)(v + a->features[u + COLUMNS_AHEAD] * a->v_stride);
            for (ptrdiff_t o = 0; o < k * (ptrdiff_t)sizeof(REAL); o += 64) PREFETCH_READ(next + o);
        }
        memcpy(tail, v + a->features[u] * a->v_stride, k * sizeof(REAL));
#define COLUMNS(T, f)                                                        \
    do {                                                                     \
        if ((f) == 0) FN(columns_tile)(T, 0, by_factor, 1, a, tail, u);      \
        else FN(columns_tile)(T, f, by_factor, 0, a, tail, u);               \
    } while (0)
        FOR_TILES(nvec, COLUMNS);
#undef COLUMNS
    }
}

LOCAL void FN(backward_columns)(const backward_columns_args *a) {
    const int nvec = (int)((a->n_factors + W - 1) / W);
    if (nvec == 0) {
        const REAL *x = (const REAL *)a->entry_data, *d = (const REAL *)a->d;
        for (ptrdiff_t u = a->start; u < a->stop; u++) {
            REAL g = 0;
            for (int64_t p = a->colptr[u]; p < a->colptr[u + 1]; p++) g += d[a->entry_rows[p]] * (x ? x[p] : (REAL)1);
            if (a->g_w) ((REAL *)a->g_w)[u] = g;
        }
    } else if (a->by_factor) {
        FN(gradient_rows)(nvec, 1, a);
    } else {
        FOR_RANK(nvec, FN(gradient_rows), 0, a)
    }
}

#undef vec
#undef mask_t
#undef params_t
