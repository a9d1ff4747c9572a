/* The second-order equation on dense rows, for the middle of a network: scores, and gradients with respect to
 * rows and parameters. The equation and its running form are those of rows.h.
 *
 * Scores take DENSE_ROWS rows at a time, so that one load of v_j serves all of them and the chains of additions
 * of one row hide behind those of the others; W factors at a time are kept in registers. They leave behind the
 * sums S (n_rows, s_stride), S_if = Σ_j x_ij v_jf.
 *
 * Gradients, with d_i the gradient with respect to score i and u_j = ‖v_j‖²,
 *     g_x[i, j] = d_i (w_j + ⟨v_j, S_i⟩ − x_ij u_j)
 *     g_w[j]    = Σ_i d_i x_ij
 *     g_V[j]    = Σ_i d_i x_ij S_i − v_j Σ_i d_i x_ij²
 * take W features at a time, side by side in the lanes: their factors are transposed once, then one pass over all
 * rows reads x once and serves both gradients, FACTORS factors at a time. Features are the pieces of work, so no
 * two of them write one place and the bits do not depend on the number of threads.
 */
#ifndef SPARSEFM_DENSE
#define SPARSEFM_DENSE
#define DENSE_ROWS 4
#define FACTORS 8

typedef struct {
    const void *x;       /* IN (n_rows, n_features) contiguous */
    const void *w, *v;   /* IN (n_features,) contiguous, and (n_features, n_factors) */
    ptrdiff_t v_stride, n_features, n_factors;
    double w0;
    ptrdiff_t start, stop; /* rows of this piece */
    void *out;           /* OUT (n_rows,) */
    void *sums;          /* OUT (n_rows, s_stride), or NULL */
    ptrdiff_t s_stride;  /* n_factors rounded up to a multiple of 16 */
    void *padded;        /* scratch (n_features, s_stride) */
} dense_forward_args;

typedef struct {
    const void *x;
    const void *w, *v;
    ptrdiff_t v_stride, n_rows, n_features, n_factors;
    const void *sums;    /* IN (n_rows, s_stride), zeros beyond n_factors */
    ptrdiff_t s_stride;
    const void *d;       /* IN (n_rows,) */
    ptrdiff_t start, stop; /* features of this piece */
    void *g_x;           /* OUT (n_rows, n_features), or NULL */
    void *g_w, *g_v;     /* OUT (n_features,) and (n_features, n_factors); g_w NULL: neither is wanted */
} dense_backward_args;
#endif

#include "rows.h"

/* Scores of R rows from x on, and their sums. */
INLINE void FN(dense_block)(const int R, const dense_forward_args *a, const REAL *v, ptrdiff_t v_stride, ptrdiff_t i) {
    const ptrdiff_t n = a->n_features;
    const REAL *x = (const REAL *)a->x + i * n, *w = (const REAL *)a->w;
    vec total[DENSE_ROWS];
    REAL rest[DENSE_ROWS];
    ptrdiff_t j = 0;
    for (int r = 0; r < R; r++) {
        total[r] = FN(zero)();
        rest[r] = 0;
    }
    for (; j + W <= n; j += W)
        for (int r = 0; r < R; r++) total[r] += FN(load)(x + r * n + j) * FN(load)(w + j);
    for (; j < n; j++)
        for (int r = 0; r < R; r++) rest[r] += x[r * n + j] * w[j];
    for (ptrdiff_t f = 0; f < a->n_factors; f += W) {
        vec e1[DENSE_ROWS], e2[DENSE_ROWS];
        for (int r = 0; r < R; r++) e1[r] = e2[r] = FN(zero)();
        for (j = 0; j < n; j++) {
            const vec vj = FN(load)(v + j * v_stride + f);
            for (int r = 0; r < R; r++) {
                const vec z = vj * x[r * n + j];
                e2[r] += e1[r] * z;
                e1[r] += z;
            }
        }
        for (int r = 0; r < R; r++) {
            total[r] += e2[r];
            if (a->sums) FN(store)((REAL *)a->sums + (i + r) * a->s_stride + f, e1[r]);
        }
    }
    for (int r = 0; r < R; r++) ((REAL *)a->out)[i + r] = (REAL)a->w0 + (rest[r] + FN(sum)(total[r]));
}

LOCAL void FN(dense_forward)(const dense_forward_args *a) {
    const REAL *v = (const REAL *)a->v;
    ptrdiff_t v_stride = a->v_stride, k = a->n_factors, i = a->start;
    if (k % W) { /* whole vectors of factors only */
        REAL *padded = (REAL *)a->padded;
        memset(padded, 0, a->n_features * a->s_stride * sizeof(REAL));
        for (ptrdiff_t j = 0; j < a->n_features; j++) memcpy(padded + j * a->s_stride, v + j * v_stride, k * sizeof(REAL));
        v = padded;
        v_stride = a->s_stride;
    }
    for (; i + DENSE_ROWS <= a->stop; i += DENSE_ROWS) FN(dense_block)(DENSE_ROWS, a, v, v_stride, i);
    for (; i < a->stop; i++) FN(dense_block)(1, a, v, v_stride, i);
}

/* Factors f … f + FACTORS of features j … j + W. */
INLINE void FN(dense_columns)(const int rows, const int parameters, const int whole, const dense_backward_args *a,
                              ptrdiff_t j, ptrdiff_t f) {
    const ptrdiff_t n = a->n_features, k = a->n_factors, left = whole ? W : n - j, width = k - f < FACTORS ? k - f : FACTORS;
    const REAL *x = (const REAL *)a->x, *d = (const REAL *)a->d, *sums = (const REAL *)a->sums;
    const REAL *v = (const REAL *)a->v + j * a->v_stride + f;
    REAL lanes[FACTORS][W] = {{0}};
    vec turned[FACTORS], g_v[FACTORS], u = FN(zero)(), g_w = FN(zero)(), squares = FN(zero)();
    const vec w = FN(load_first)((const REAL *)a->w + j, left);
    for (ptrdiff_t p = 0; p < (left < W ? left : W); p++)
        for (ptrdiff_t q = 0; q < width; q++) lanes[q][p] = v[p * a->v_stride + q];
    for (int q = 0; q < FACTORS; q++) {
        turned[q] = FN(load)(lanes[q]);
        u += turned[q] * turned[q];
        g_v[q] = FN(zero)();
    }
    for (ptrdiff_t i = 0; i < a->n_rows; i++) {
        const REAL *S = sums + i * a->s_stride + f;
        const vec xi = FN(load_first)(x + i * n + j, left), dx = xi * d[i];
        vec g = f == 0 ? w - xi * u : -(xi * u);
        for (int q = 0; q < FACTORS; q++) {
            if (rows) g += turned[q] * S[q];
            if (parameters) g_v[q] += dx * S[q];
        }
        if (parameters) {
            g_w += dx;
            squares += dx * xi;
        }
        if (rows) {
            REAL *to = (REAL *)a->g_x + i * n + j;
            FN(store_first)(to, f == 0 ? g * d[i] : FN(load_first)(to, left) + g * d[i], left);
        }
    }
    if (parameters) {
        if (f == 0) FN(store_first)((REAL *)a->g_w + j, g_w, left);
        for (int q = 0; q < FACTORS; q++) FN(store)(lanes[q], g_v[q] - turned[q] * squares);
        REAL *to = (REAL *)a->g_v + j * k + f;
        for (ptrdiff_t p = 0; p < (left < W ? left : W); p++)
            for (ptrdiff_t q = 0; q < width; q++) to[p * k + q] = lanes[q][p];
    }
}

LOCAL void FN(dense_backward)(const dense_backward_args *a) {
    const int rows = a->g_x != NULL, parameters = a->g_w != NULL;
    for (ptrdiff_t j = a->start; j < a->stop; j += W)
        for (ptrdiff_t f = 0; f == 0 || f < a->n_factors; f += FACTORS) {
            if (j + W > a->n_features) FN(dense_columns)(rows, parameters, 0, a, j, f);
            else if (rows && parameters) FN(dense_columns)(1, 1, 1, a, j, f);
            else if (rows) FN(dense_columns)(1, 0, 1, a, j, f);
            else if (parameters) FN(dense_columns)(0, 1, 1, a, j, f);
        }
}

#undef vec
#undef mask_t
#undef params_t
