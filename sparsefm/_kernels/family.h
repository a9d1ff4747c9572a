/* Passes over many rows of the family's other members: scores and their gradients, and fused training (epoch.h).
 *
 * The backward pass gives one row of the gradient an entry, d_i x_p ∂score_i/∂z_p, and leaves it to the caller to add up those
 * of a feature. Rows are independent, so the bits do not depend on how they are shared among threads; the gradient of the field
 * weights is the sum over the rows of one piece, and the caller adds the pieces in their order.
 */
#include "epoch.h"

#ifndef SPARSEFM_FAMILY
#define SPARSEFM_FAMILY

typedef struct {
    const void *indptr, *indices, *data; /* IN CSR rows; data NULL: every value is one */
    ptrdiff_t n_features;
    double w0;
    ptrdiff_t start, stop; /* rows of this piece */
    void *out;             /* OUT (n_rows,) scores, or NULL */
    void *sums;            /* OUT (n_rows, sums_stride) of ANOVA, or NULL */
    ptrdiff_t sums_stride;
    const void *d;         /* IN (n_rows,) gradient with respect to the scores, or NULL, where nothing below is written */
    void *g_v, *g_data;    /* OUT (nnz, width), (nnz,) */
    double *g_weights;     /* INOUT (n_fields, n_fields), at f ≤ g, or NULL */
    void *H;               /* scratch (longest row, width) */
} family_args;
#endif

LOCAL void FN(family)(const family_args *a, family_t *family) {
    const IDX *indptr = (const IDX *)a->indptr, *indices = (const IDX *)a->indices;
    const REAL *data = (const REAL *)a->data, *d = (const REAL *)a->d;
    REAL *out = (REAL *)a->out, *H = (REAL *)a->H, *products = (REAL *)family->products;
    const REAL *w = (const REAL *)family->w, *V = (const REAL *)family->v;
    const ptrdiff_t width = family->width, end = indptr[a->stop];
    const int prefetch = (double)a->n_features * (width + 1) * sizeof(REAL) > PREFETCH_BYTES;
    for (ptrdiff_t i = a->start; i < a->stop; i++) {
        const ptrdiff_t from = indptr[i], n = indptr[i + 1] - from;
        const IDX *idx = indices + from;
        const REAL *x = data ? data + from : NULL;
        REAL *sums = a->sums ? (REAL *)a->sums + i * a->sums_stride : NULL;
        const REAL score = (REAL)family->meet(family, idx, x, n, prefetch ? end - from : 0, sums, d ? H : NULL);
        if (out) out[i] = (REAL)a->w0 + score;
        if (d == NULL) continue;
        REAL *g_v = (REAL *)a->g_v + from * width, *g_data = (REAL *)a->g_data + from;
        for (ptrdiff_t p = 0; p < n; p++) {
            const REAL *v = V + (ptrdiff_t)idx[p] * family->v_stride;
            g_data[p] = d[i] * (w[(ptrdiff_t)idx[p] * family->w_stride] + FN(dot)(v, H + p * width, width));
            FN(scaled)(g_v + p * width, H + p * width, d[i] * (x ? x[p] : (REAL)1), width, 0);
        }
        if (a->g_weights == NULL) continue;
        const int32_t *field = family->places + family->n_fields;
        for (ptrdiff_t c = 0; c < family->n_cells; c++)
            for (ptrdiff_t e = 0; e <= c; e++) {
                const ptrdiff_t at = pair_of(field[c], field[e], family->n_fields);
                a->g_weights[at] += (double)d[i] * (double)products[at];
            }
    }
}

LOCAL void FN(epoch)(epoch_args *a, const step_args *step) { FN(epoch_rows)(0, 0, step->optimiser, 0, 1, a, step); }

#undef vec
#undef mask_t
#undef params_t
#undef step_t
#undef visit_t
