/* Steps of an optimiser on some rows of a table whose state lies in arrays of its own, as torch keeps it.
 *
 * The formulas are those of steps.h: W factors at a time become the row [ v | state of v ] that it steps, and go
 * back to their arrays. The gradient of row j is the one given plus weight_decay · v_j, the L2 of touched rows.
 *
 *               first                 second               powers
 *     ADAGRAD   G (n_features, k)
 *     ROWWISE   G (n_features,)
 *     ADAM      m (n_features, k)     s (n_features, k)    β1^age, β2^age (n_features, 2)
 *
 * All rows are distinct, so pieces of them give the same bits in any order. A table of one column is stepped as
 * weights are, where ROWWISE is the same as ADAGRAD.
 */
#ifndef SPARSEFM_ROWSTEPS
#define SPARSEFM_ROWSTEPS
#define ROWS_AHEAD 8 /* rows between prefetch and use */

typedef struct {
    const void *features; /* IN (n,) of type IDX: the rows to step */
    const void *gradient; /* IN (n, k) contiguous */
    void *table;          /* INOUT (n_features, k), its rows v_stride apart */
    void *first, *second, *powers; /* INOUT contiguous; NULL where an optimiser has none */
    ptrdiff_t v_stride, k, n;
    double weight_decay;
    ptrdiff_t start, stop; /* places in `features` of this piece */
} row_steps_args;
#endif

#include "rows.h"
#include "steps.h"

INLINE void FN(fetch_row)(const REAL *row, ptrdiff_t k) {
    for (ptrdiff_t f = 0; f < k; f += 64 / (ptrdiff_t)sizeof(REAL)) PREFETCH_WRITE(row + f);
    PREFETCH_WRITE(row + k - 1);
}

/* Prefetches what the step ROWS_AHEAD places after u reads. */
INLINE void FN(fetch_ahead)(const int optimiser, const row_steps_args *a, ptrdiff_t u) {
    if (u + ROWS_AHEAD >= a->n) return;
    const ptrdiff_t j = ((const IDX *)a->features)[u + ROWS_AHEAD], state_stride = optimiser == ROWWISE ? 1 : a->k;
    FN(fetch_row)((REAL *)a->table + j * a->v_stride, a->k);
    FN(fetch_row)((REAL *)a->first + j * state_stride, state_stride);
    if (optimiser == ADAM) {
        FN(fetch_row)((REAL *)a->second + j * a->k, a->k);
        PREFETCH_WRITE((REAL *)a->powers + 2 * j);
    }
}

INLINE void FN(step_column)(const int optimiser, const row_steps_args *a, const step_t *c) {
    const IDX *features = (const IDX *)a->features;
    const REAL *gradient = (const REAL *)a->gradient;
    REAL *table = (REAL *)a->table, *first = (REAL *)a->first, *second = (REAL *)a->second, *powers = (REAL *)a->powers;
    for (ptrdiff_t u = a->start; u < a->stop; u++) {
        const ptrdiff_t j = features[u];
        FN(fetch_ahead)(optimiser, a, u);
        REAL *w = table + j * a->v_stride, tail[STATE_AT + 4] = {*w};
        if (optimiser == ADAM) {
            memcpy(tail + STATE_AT, powers + 2 * j, 2 * sizeof(REAL));
            tail[STATE_AT + 2] = first[j];
            tail[STATE_AT + 3] = second[j];
        } else {
            tail[STATE_AT] = first[j];
        }
        const visit_t visit = FN(begin_row)(optimiser, tail, 0, c);
        FN(step_linear)(optimiser, tail, gradient[u] + (REAL)a->weight_decay * *w, &visit, c);
        *w = tail[W_AT];
        if (optimiser == ADAM) {
            memcpy(powers + 2 * j, tail + STATE_AT, 2 * sizeof(REAL));
            first[j] = tail[STATE_AT + 2];
            second[j] = tail[STATE_AT + 3];
        } else {
            first[j] = tail[STATE_AT];
        }
    }
}

/* The gradient of `left` factors of a row, at most W. */
INLINE vec FN(full_gradient)(const REAL *gradient, const REAL *v, REAL decay, ptrdiff_t left) {
    return FN(load_first)(gradient, left) + FN(load_first)(v, left) * decay;
}

/* Steps factors f … f + left of a row, at most W; first and second are the row's state. */
INLINE void FN(step_vector)(const int optimiser, ptrdiff_t f, ptrdiff_t left, const REAL *gradient, REAL *factors,
                            REAL *first, REAL *second, REAL decay, const visit_t *visit, const step_t *c) {
    REAL row[3 * W];
    const vec v = FN(load_first)(factors + f, left), g = FN(full_gradient)(gradient + f, factors + f, decay, left);
    if (optimiser != ROWWISE) FN(store)(row + W, FN(load_first)(first + f, left));
    if (optimiser == ADAM) FN(store)(row + 2 * W, FN(load_first)(second + f, left));
    FN(step_tile)(1, optimiser, row, 0, W, &v, &g, visit, c);
    FN(store_first)(factors + f, FN(load)(row), left);
    if (optimiser != ROWWISE) FN(store_first)(first + f, FN(load)(row + W), left);
    if (optimiser == ADAM) FN(store_first)(second + f, FN(load)(row + 2 * W), left);
}

INLINE void FN(step_factors)(const int optimiser, const row_steps_args *a, const step_t *c) {
    const IDX *features = (const IDX *)a->features;
    const REAL decay = (REAL)a->weight_decay;
    const ptrdiff_t k = a->k, whole = k - k % W, state_stride = optimiser == ROWWISE ? 1 : k;
    for (ptrdiff_t u = a->start; u < a->stop; u++) {
        const ptrdiff_t j = features[u];
        const REAL *g = (const REAL *)a->gradient + u * k;
        REAL *v = (REAL *)a->table + j * a->v_stride, *first = (REAL *)a->first + j * state_stride;
        REAL *second = (REAL *)a->second, *powers = (REAL *)a->powers, tail[STATE_AT + 4] = {0}, squares = 0;
        FN(fetch_ahead)(optimiser, a, u);
        if (optimiser == ROWWISE) {
            vec sum = FN(zero)();
            for (ptrdiff_t f = 0; f < whole; f += W) {
                const vec each = FN(full_gradient)(g + f, v + f, decay, W);
                sum += each * each;
            }
            if (W > 1 && whole < k) {
                const vec each = FN(full_gradient)(g + whole, v + whole, decay, k - whole);
                sum += each * each;
            }
            squares = FN(sum)(sum);
            tail[STATE_AT + 1] = *first;
        } else if (optimiser == ADAM) {
            second += j * k;
            powers += 2 * j;
            memcpy(tail + STATE_AT, powers, 2 * sizeof(REAL));
        }
        const visit_t visit = FN(begin_row)(optimiser, tail, squares, c);
        if (optimiser == ROWWISE) *first = tail[STATE_AT + 1];
        if (optimiser == ADAM) memcpy(powers, tail + STATE_AT, 2 * sizeof(REAL));
        for (ptrdiff_t f = 0; f < whole; f += W)
            FN(step_vector)(optimiser, f, W, g, v, first, second, decay, &visit, c);
        if (W > 1 && whole < k) FN(step_vector)(optimiser, whole, k - whole, g, v, first, second, decay, &visit, c);
    }
}

LOCAL void FN(row_steps)(const row_steps_args *a, const step_args *step) {
    const step_t c = FN(step_of)(step);
    if (a->k == 1 && step->optimiser == ADAM) FN(step_column)(ADAM, a, &c);
    else if (a->k == 1) FN(step_column)(ADAGRAD, a, &c);
    else if (step->optimiser == ADAM) FN(step_factors)(ADAM, a, &c);
    else if (step->optimiser == ROWWISE) FN(step_factors)(ROWWISE, a, &c);
    else FN(step_factors)(ADAGRAD, a, &c);
}

#undef vec
#undef mask_t
#undef params_t
#undef step_t
#undef visit_t
