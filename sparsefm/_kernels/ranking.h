/* Pairwise training of rankings: one pass over interactions, each against an item that its context has not met.
 *
 * A context and an item are rows with disjoint columns. With p the sum of the context's vectors, and q and b the sum and
 * the score of an item's row alone, the items of a context are ordered by s = b + ⟨p, q⟩. For an interaction of weight s_r
 * with item i and an item j drawn,
 *
 *     BPR     ℓ = log(1 + exp(s_j − s_i))                                    Rendle et al. 2009
 *     WARP    ℓ = log(1 + rank) max(0, 1 + s_j − s_i)                        Weston, Bengio & Usunier 2011
 *             j the first of at most max_trials draws that is within the margin, rank = ⌊others / trials⌋ an estimate of how
 *             many items stand above i
 *
 * and with d = −∂ℓ/∂(s_i − s_j) · s_r the gradients are, λ paid at every visit as in adaptive.h,
 *
 *     context   g(v_f) = −d x_f (q_i − q_j)
 *     item i    g(w_f) = −d x_f,  g(v_f) = −d x_f (p + q_i − x_f v_f)        item j the same with +d
 *
 * all from the state before the interaction; a column that both items have takes one step by the sum of the two. A draw
 * is a function of the key, the interaction and the number of the draw, so that the pass is one of the data and the key
 * alone.
 */
#ifndef SPARSEFM_RANKING
#define SPARSEFM_RANKING
#include "random.h"

enum { BPR, WARP };
#define FIRST_TRIALS 16 /* draws of BPR before an interaction is left out, all of whose draws were met */
#define INTERACTIONS_AHEAD 6

typedef struct {
    const int32_t *indptr, *indices;
    const void *data; /* NULL: every value is one */
} side_rows;

typedef struct {
    side_rows contexts, items;
    ptrdiff_t n_items, n_interactions;
    const int64_t *starts;        /* IN (n_contexts + 1,) interactions of each context */
    const int32_t *context, *item; /* IN (n_interactions,), items ascending within a context */
    const void *weight;           /* IN (n_interactions,) with mean 1, or NULL */
    const int32_t *order;         /* IN (n_samples,) interactions in the order of the pass */
    ptrdiff_t n_samples;
    void *table; /* INOUT (n_features, stride), ADAGRAD rows of steps.h */
    ptrdiff_t stride, kp;
    void *sums; /* scratch (3 kp,) aligned */
    int loss, popular; /* popular: items are drawn as often as they occur, else each as often as any */
    ptrdiff_t max_trials;
    uint64_t key;
    double total; /* OUT Σ weight · loss */
    ptrdiff_t bad; /* OUT the interaction whose scores were not finite, where the pass ended; else −1 */
} ranking_args;

/* The item of a draw. */
static inline int32_t drawn_item(const ranking_args *a, ptrdiff_t r, ptrdiff_t trial) {
    const uint64_t bits = mixed64(a->key + mixed64((uint64_t)r * GOLDEN + (uint64_t)trial)) >> 32;
    if (a->popular) return a->item[bits * (uint64_t)a->n_interactions >> 32];
    return (int32_t)(bits * (uint64_t)a->n_items >> 32);
}

static inline int has_met(const ranking_args *a, int32_t context, int32_t item) {
    ptrdiff_t low = a->starts[context], high = a->starts[context + 1];
    while (low < high) {
        const ptrdiff_t middle = (low + high) / 2;
        if (a->item[middle] < item) low = middle + 1;
        else high = middle;
    }
    return low < a->starts[context + 1] && a->item[low] == item;
}
#endif

#include "rows.h"
#include "steps.h"

LOCAL REAL FN(side_score)(const int nvec, const side_rows *side, int32_t row, const params_t *t, REAL *sums) {
    const ptrdiff_t p = side->indptr[row], n = side->indptr[row + 1] - p;
    const REAL *data = (const REAL *)side->data;
    const IDX *indices = (const IDX *)(side->indices + p); /* of the instances only those of int32_t run */
    if (data) return FN(row_score)(nvec, WHOLE, 0, indices, data + p, n, t, 0, sums, NULL, 0);
    return FN(row_score)(nvec, WHOLE, 1, indices, NULL, n, t, 0, sums, NULL, 0);
}

INLINE REAL FN(dot)(const int nvec, const REAL *a, const REAL *b) {
    vec sum = FN(zero)();
    for (int f = 0; f < nvec; f++) sum += FN(load)(a + f * W) * FN(load)(b + f * W);
    return FN(sum)(sum);
}

/* One step on the columns of the context along q_i − q_j. The items' order does not depend on its weights. */
INLINE void FN(step_context)(const int nvec, const ranking_args *a, int32_t row, REAL d, REAL s, const REAL *along,
                             const step_t *c) {
    const side_rows *side = &a->contexts;
    const REAL *data = (const REAL *)side->data;
    const visit_t visit = {c->rate, 0};
    for (ptrdiff_t p = side->indptr[row]; p < side->indptr[row + 1]; p++) {
        REAL *at = (REAL *)a->table + (ptrdiff_t)side->indices[p] * a->stride;
        const REAL dx = data ? d * data[p] : d, l2 = s * at[2 * a->kp + L2_V_AT];
        for (int f = 0; f < nvec; f++) {
            const vec v = FN(load)(at + f * W), g = v * l2 - FN(load)(along + f * W) * dx;
            FN(step_tile)(1, ADAGRAD, at, f, a->kp, &v, &g, &visit, c);
        }
    }
}

/* One step on the columns of both items, whose rows ascend. */
INLINE void FN(step_items)(const int nvec, const ranking_args *a, int32_t i, int32_t j, REAL d, REAL s, const REAL *p,
                           const REAL *q_i, const REAL *q_j, const step_t *c) {
    const side_rows *side = &a->items;
    const REAL *data = (const REAL *)side->data;
    ptrdiff_t m = side->indptr[i], n = side->indptr[j];
    const ptrdiff_t end_m = side->indptr[i + 1], end_n = side->indptr[j + 1];
    const visit_t visit = {c->rate, 0};
    while (m < end_m || n < end_n) {
        const int of_i = n == end_n || (m < end_m && side->indices[m] <= side->indices[n]);
        const int of_j = m == end_m || (n < end_n && side->indices[n] <= side->indices[m]);
        REAL *at = (REAL *)a->table + (ptrdiff_t)side->indices[of_i ? m : n] * a->stride, *tail = at + 2 * a->kp;
        const REAL x_i = !of_i ? (REAL)0 : data ? data[m] : (REAL)1, x_j = !of_j ? (REAL)0 : data ? data[n] : (REAL)1;
        const REAL l2 = s * tail[L2_V_AT];
        for (int f = 0; f < nvec; f++) {
            const vec v = FN(load)(at + f * W), own = FN(load)(p + f * W);
            vec g = v * l2;
            if (of_i) g -= (own + FN(load)(q_i + f * W) - v * x_i) * (d * x_i);
            if (of_j) g += (own + FN(load)(q_j + f * W) - v * x_j) * (d * x_j);
            FN(step_tile)(1, ADAGRAD, at, f, a->kp, &v, &g, &visit, c);
        }
        FN(step_linear)(ADAGRAD, tail, d * (x_j - x_i) + s * tail[L2_W_AT] * tail[W_AT], &visit, c);
        m += of_i;
        n += of_j;
    }
}

INLINE void FN(fetch_side)(const ranking_args *a, const side_rows *side, int32_t row) {
    const ptrdiff_t first = side->indptr[row];
    const ptrdiff_t most = side->indptr[row + 1] - first < 4 ? side->indptr[row + 1] - first : 4;
    for (ptrdiff_t p = first; p < first + most; p++) {
        const char *at = (const char *)((const REAL *)a->table + (ptrdiff_t)side->indices[p] * a->stride);
        for (ptrdiff_t o = 0; o < (2 * a->kp + STATE_AT + 1) * (ptrdiff_t)sizeof(REAL); o += 64) PREFETCH_WRITE(at + o);
    }
}

LOCAL void FN(ranking)(ranking_args *a, const step_args *step) {
    const int nvec = (int)(a->kp / W), loss = a->loss;
    REAL *sums = (REAL *)a->sums, *p = sums, *q_i = sums + a->kp, *q_j = sums + 2 * a->kp;
    const REAL *weight = (const REAL *)a->weight;
    const params_t t = FN(table_params)(ADAGRAD, (const REAL *)a->table, a->stride, a->kp);
    const step_t c = FN(step_of)(step);
    a->bad = -1;
    for (ptrdiff_t n = 0; n < a->n_samples; n++) {
        if (n + INTERACTIONS_AHEAD < a->n_samples) {
            const ptrdiff_t next = a->order[n + INTERACTIONS_AHEAD];
            FN(fetch_side)(a, &a->contexts, a->context[next]);
            FN(fetch_side)(a, &a->items, a->item[next]);
            FN(fetch_side)(a, &a->items, drawn_item(a, next, 0));
        }
        const ptrdiff_t r = a->order[n];
        const int32_t context = a->context[r], i = a->item[r];
        const REAL s = weight ? weight[r] : (REAL)1;
        FN(side_score)(nvec, &a->contexts, context, &t, p);
        const REAL score = FN(side_score)(nvec, &a->items, i, &t, q_i) + FN(dot)(nvec, p, q_i);
        const ptrdiff_t most = loss == BPR ? FIRST_TRIALS : a->max_trials;
        REAL d = 0;
        int32_t j = -1;
        for (ptrdiff_t trial = 0; trial < most; trial++) {
            j = drawn_item(a, r, trial);
            if (has_met(a, context, j)) continue;
            const REAL margin = score - FN(side_score)(nvec, &a->items, j, &t, q_j) - FN(dot)(nvec, p, q_j);
            if (!(margin - margin == 0)) {
                a->bad = r;
                return;
            }
            if (loss == BPR) {
                const double e = exp(-fabs((double)margin));
                d = s * (REAL)((margin > 0 ? e : 1) / (1 + e));
                a->total += (double)s * (log1p(e) + (margin > 0 ? 0 : -(double)margin));
                break;
            }
            if (margin < 1) {
                const ptrdiff_t others = a->n_items - (a->starts[context + 1] - a->starts[context]);
                const double rank = log1p((double)(others / (trial + 1)));
                d = s * (REAL)rank;
                a->total += (double)s * rank * (1 - (double)margin);
                break;
            }
        }
        if (d == 0) continue; /* no item stands too near, or there is none left to draw */
        FN(step_items)(nvec, a, i, j, d, s, p, q_i, q_j, &c);
        for (int f = 0; f < nvec; f++) FN(store)(q_i + f * W, FN(load)(q_i + f * W) - FN(load)(q_j + f * W));
        FN(step_context)(nvec, a, context, d, s, q_i, &c);
    }
}

#undef vec
#undef mask_t
#undef params_t
#undef step_t
#undef visit_t
