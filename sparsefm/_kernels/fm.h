/* Passes over many rows that only read the parameters: scores, and their gradients.
 *
 * Gradients come in two passes that share nothing but the sums S of the forward pass (n_rows, s_stride):
 *   by row      g_data[p] = d_i · ∂score_i/∂x_p
 *   by feature  g_w[u] = Σ_i d_i x_iu,   g_V[u] = Σ_i d_i x_iu (S_i − x_iu v_u)
 * the second over the transposed rows (csr.pyx), each feature's entries in row order. No two pieces of
 * work write one place and every sum has one order, so the bits do not depend on the number of threads.
 */
#ifndef SPARSEFM_FM
#define SPARSEFM_FM
#define TAIL 32

typedef struct {
    const void *indptr, *indices, *data; /* IN CSR rows; data NULL: every value is one */
    const void *w, *v;                   /* IN parameters, strides in elements */
    ptrdiff_t w_stride, v_stride, n_features, n_factors;
    double w0;
    ptrdiff_t start, stop; /* rows of this piece */
    void *out;             /* OUT (n_rows,) */
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
    const void *d;         /* IN (n_rows,) gradient with respect to the scores */
    ptrdiff_t start, stop; /* rows of this piece */
    void *g_data;          /* OUT (nnz,) */
    void *tail;            /* scratch (n_factors + TAIL,) */
} backward_rows_args;

typedef struct {
    const void *features;      /* IN (n_touched,) */
    const int64_t *colptr;     /* IN (n_touched + 1,) entries of each touched feature */
    const int64_t *entry_rows; /* IN (nnz,) row of each entry, ascending within a feature */
    const void *entry_data;    /* IN (nnz,) value of each entry, or NULL */
    const void *v;
    ptrdiff_t v_stride, n_features, n_factors;
    const void *sums; /* IN (n_rows, s_stride) */
    ptrdiff_t s_stride;
    const void *d;         /* IN (n_rows,) */
    ptrdiff_t start, stop; /* touched features of this piece */
    void *g_w;             /* OUT (n_touched,) */
    void *g_v;             /* OUT (n_touched, s_stride), padding included */
} backward_columns_args;

/* 16 lanes only where they fill: a rank of 8 or 24 takes the 8-lane instance. */
static inline int rows_isa(int isa, ptrdiff_t k) {
    return isa == ISA_AVX512 && k % 16 != 0 && (k % 8 == 0 || k < 8) ? ISA_AVX2 : isa;
}
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
        for (ptrdiff_t j = 0; j < rows; j++)
            memcpy(tail + j * v_stride, t->v + (n_features - rows + j) * v_stride, k * sizeof(REAL));
    }
#endif
    return nvec;
}

INLINE void FN(forward_rows)(const int nvec, const int masked, const int unit, const params_t *t,
                             const forward_args *a, const int prefetch) {
    const IDX *indptr = (const IDX *)a->indptr, *indices = (const IDX *)a->indices;
    const REAL *data = (const REAL *)a->data;
    REAL *out = (REAL *)a->out, *sums = (REAL *)a->sums;
    const REAL w0 = (REAL)a->w0;
    const ptrdiff_t end = indptr[a->stop];
    for (ptrdiff_t i = a->start; i < a->stop; i++) {
        const ptrdiff_t p = indptr[i], n = indptr[i + 1] - p;
        out[i] = w0 + FN(row_score)(nvec, masked, unit, indices + p, unit ? NULL : data + p, n, t, prefetch ? end - p : 0,
                                    sums ? sums + i * a->s_stride : NULL);
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

LOCAL void FN(backward_rows)(const backward_rows_args *a) {
    const IDX *indptr = (const IDX *)a->indptr, *indices = (const IDX *)a->indices;
    const REAL *data = (const REAL *)a->data, *sums = (const REAL *)a->sums, *d = (const REAL *)a->d;
    REAL *g = (REAL *)a->g_data;
    params_t t;
    int masked;
    const int nvec = FN(set_params)(&t, (REAL *)a->tail, a->w, a->w_stride, a->v, a->v_stride, a->n_features, a->n_factors, &masked);
    for (ptrdiff_t i = a->start; i < a->stop; i++) {
        const REAL *S = sums + i * a->s_stride;
        for (ptrdiff_t p = indptr[i]; p < indptr[i + 1]; p++) {
            const REAL *v = FN(factors_of)(&t, masked, indices[p]);
            const REAL x = data ? data[p] : (REAL)1;
            vec acc = FN(zero)();
            for (int f = 0; f < nvec; f++) {
                vec vf = FN(load)(v + f * W);
                if (masked && f == nvec - 1) vf = FN(keep)(vf, t.mask);
                acc += vf * (FN(load)(S + f * W) - vf * x);
            }
            g[p] = d[i] * (t.w[(ptrdiff_t)indices[p] * t.w_stride] + FN(sum)(acc));
        }
    }
}

INLINE void FN(columns_tile)(const int T, const int f, const backward_columns_args *a, const REAL *v, ptrdiff_t u) {
    const REAL *x = (const REAL *)a->entry_data, *sums = (const REAL *)a->sums, *d = (const REAL *)a->d;
    vec acc[TILE];
    REAL squares = 0;
    for (int i = 0; i < T; i++) acc[i] = FN(zero)();
    for (int64_t p = a->colptr[u]; p < a->colptr[u + 1]; p++) {
        const REAL value = x ? x[p] : (REAL)1, g = d[a->entry_rows[p]] * value;
        const REAL *S = sums + a->entry_rows[p] * a->s_stride + f * W;
        squares += g * value;
        for (int i = 0; i < T; i++) acc[i] += FN(load)(S + i * W) * g;
    }
    for (int i = 0; i < T; i++) {
        /* sums are zero beyond n_factors, so only the factors themselves need masking: v is a padded copy */
        FN(store)((REAL *)a->g_v + u * a->s_stride + (f + i) * W, acc[i] - FN(load)(v + (f + i) * W) * squares);
    }
}

LOCAL void FN(backward_columns)(const backward_columns_args *a) {
    const IDX *features = (const IDX *)a->features;
    const REAL *x = (const REAL *)a->entry_data, *d = (const REAL *)a->d;
    const int nvec = (int)((a->n_factors + W - 1) / W);
    for (ptrdiff_t u = a->start; u < a->stop; u++) {
        REAL g = 0;
        for (int64_t p = a->colptr[u]; p < a->colptr[u + 1]; p++) g += d[a->entry_rows[p]] * (x ? x[p] : (REAL)1);
        ((REAL *)a->g_w)[u] = g;
        /* the output row doubles as the padded copy of the factors that the tiles read before they store */
        REAL *row = (REAL *)a->g_v + u * a->s_stride;
        memcpy(row, (const REAL *)a->v + (ptrdiff_t)features[u] * a->v_stride, a->n_factors * sizeof(REAL));
#define COLUMNS(T, f) FN(columns_tile)(T, f, a, row, u)
        FOR_TILES(nvec, COLUMNS);
#undef COLUMNS
    }
}

#undef vec
#undef mask_t
#undef params_t
