/* Training of rankings: a pass over interactions, each against an item that its context has not met.
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
 * A draw is a function of the key, the interaction and the number of the draw. Interactions come in batches: those of one
 * are drawn and their p, q and d found from the state before it, by any number of threads; then each takes its steps, in
 * order, every column by the one thread it belongs to, v_f and w_f as they stand by then. So a pass is a function of the
 * data and the key, whatever the number of threads. A column that both items have takes one step by the sum of the two.
 */
#ifndef SPARSEFM_RANKING
#define SPARSEFM_RANKING
#include "random.h"
#include "team.h"

enum { BPR, WARP };
#define FIRST_TRIALS 16 /* draws of BPR before an interaction is left out, all of whose draws were met */
#define INTERACTIONS_AHEAD 4
#define BATCH 128
#define PIECE 16 /* interactions that a thread claims at a time */

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
    void *sums; /* scratch (4, BATCH, kp) aligned: p, q_i, q_j and the gradient of p of each interaction of a batch */
    int loss, popular; /* popular: items are drawn as often as they occur, else each as often as any */
    ptrdiff_t max_trials;
    uint64_t key;
    double total; /* OUT Σ weight · loss */
    ptrdiff_t bad; /* OUT an interaction whose scores were not finite, where the pass ended; else −1 */
    double d[BATCH], losses[BATCH]; /* of the present batch; d is NaN where a score was not finite */
    int32_t drawn[BATCH];
    ptrdiff_t next[2]; /* the first piece that nobody has claimed, of the present batch and of the one after */
    team_t team;
} ranking_args;

typedef struct {
    side_rows side;
    const int32_t *rows; /* IN (n,) */
    ptrdiff_t n;
    void *table;
    ptrdiff_t stride, kp;
    void *sums;           /* OUT, or IN the gradients of them, (n, kp) aligned */
    const void *strength; /* IN (n,) of L2, for steps */
} rows_args;

/* The item of a draw. */
static inline int32_t drawn_item(const ranking_args *a, ptrdiff_t r, ptrdiff_t trial) {
    const uint64_t bits = mixed64(a->key + mixed64((uint64_t)r * GOLDEN + (uint64_t)trial)) >> 32;
    if (a->popular) return a->item[bits * (uint64_t)a->n_interactions >> 32];
    return (int32_t)(bits * (uint64_t)a->n_items >> 32);
}

/* Without a branch in the search, none of which could be foreseen. */
static inline int has_met(const ranking_args *a, int32_t context, int32_t item) {
    const int32_t *from = a->item + a->starts[context];
    ptrdiff_t n = a->starts[context + 1] - a->starts[context];
    if (n == 0) return 0;
    while (n > 1) {
        const ptrdiff_t half = n / 2;
        from += from[half] <= item ? half : 0;
        n -= half;
    }
    return *from == item;
}
#endif

#include "rows.h"
#include "steps.h"

LOCAL REAL FN(long_score)(const int nvec, const side_rows *side, int32_t row, const params_t *t, REAL *sums) {
    const ptrdiff_t p = side->indptr[row], n = side->indptr[row + 1] - p;
    const REAL *data = (const REAL *)side->data;
    const IDX *indices = (const IDX *)(side->indices + p); /* of the instances only those of int32_t run */
    if (data) return FN(row_score)(nvec, WHOLE, 0, indices, data + p, n, t, 0, sums, NULL, 0);
    return FN(row_score)(nvec, WHOLE, 1, indices, NULL, n, t, 0, sums, NULL, 0);
}

/* The sum of a row's vectors, where it lies or in `sums`, and the row's own score. */
INLINE const REAL *FN(side_sum)(const int nvec, const side_rows *side, int32_t row, const params_t *t, REAL *sums, REAL *score) {
    const ptrdiff_t p = side->indptr[row];
    if (side->indptr[row + 1] - p == 1 && side->data == NULL) {
        const ptrdiff_t column = side->indices[p];
        *score = ((const REAL *)t->w)[column * t->w_stride];
        return (const REAL *)t->v + column * t->v_stride;
    }
    *score = FN(long_score)(nvec, side, row, t, sums);
    return sums;
}

/* The same in `sums` in any case. */
INLINE REAL FN(side_score)(const int nvec, const side_rows *side, int32_t row, const params_t *t, REAL *sums) {
    REAL score;
    const REAL *at = FN(side_sum)(nvec, side, row, t, sums, &score);
    if (at != sums) for (int f = 0; f < nvec; f++) FN(store)(sums + f * W, FN(load)(at + f * W));
    return score;
}

INLINE REAL FN(dot)(const int nvec, const REAL *a, const REAL *b) {
    vec sum = FN(zero)();
    for (int f = 0; f < nvec; f++) sum += FN(load)(a + f * W) * FN(load)(b + f * W);
    return FN(sum)(sum);
}

/* A step on those of a row's columns that are this member's, G the gradient of the row's sum. */
INLINE void FN(step_row)(const int nvec, const side_rows *side, int32_t row, REAL *table, ptrdiff_t stride, ptrdiff_t kp,
                         const REAL *G, REAL s, const step_t *c, int member, int members) {
    const REAL *data = (const REAL *)side->data;
    const visit_t visit = {c->rate, 0};
    for (ptrdiff_t p = side->indptr[row]; p < side->indptr[row + 1]; p++) {
        if (members > 1 && side->indices[p] % members != member) continue;
        REAL *at = table + (ptrdiff_t)side->indices[p] * stride;
        const REAL x = data ? data[p] : (REAL)1, l2 = s * at[2 * kp + L2_V_AT];
        for (int f = 0; f < nvec; f++) {
            const vec v = FN(load)(at + f * W), g = v * l2 + FN(load)(G + f * W) * x;
            FN(step_tile)(1, ADAGRAD, at, f, kp, &v, &g, &visit, c);
        }
    }
}

/* The same for both items, whose rows ascend. An only column has no partners in its row. */
INLINE void FN(step_items)(const int nvec, const ranking_args *a, int32_t i, int32_t j, REAL d, REAL s, const REAL *p,
                           const REAL *q_i, const REAL *q_j, const step_t *c, int member) {
    const side_rows *side = &a->items;
    const REAL *data = (const REAL *)side->data;
    ptrdiff_t m = side->indptr[i], n = side->indptr[j];
    const ptrdiff_t end_m = side->indptr[i + 1], end_n = side->indptr[j + 1];
    const int partners_i = end_m - m > 1, partners_j = end_n - n > 1, members = a->team.members;
    const visit_t visit = {c->rate, 0};
    while (m < end_m || n < end_n) {
        const int of_i = n == end_n || (m < end_m && side->indices[m] <= side->indices[n]);
        const int of_j = m == end_m || (n < end_n && side->indices[n] <= side->indices[m]);
        const int32_t column = side->indices[of_i ? m : n];
        if (members == 1 || column % members == member) {
            REAL *at = (REAL *)a->table + (ptrdiff_t)column * a->stride, *tail = at + 2 * a->kp;
            const REAL x_i = !of_i ? (REAL)0 : data ? data[m] : (REAL)1, x_j = !of_j ? (REAL)0 : data ? data[n] : (REAL)1;
            const REAL l2 = s * tail[L2_V_AT];
            for (int f = 0; f < nvec; f++) {
                const vec v = FN(load)(at + f * W), own = FN(load)(p + f * W);
                vec g = v * l2 + own * (d * (x_j - x_i));
                if (of_i && partners_i) g -= (FN(load)(q_i + f * W) - v * x_i) * (d * x_i);
                if (of_j && partners_j) g += (FN(load)(q_j + f * W) - v * x_j) * (d * x_j);
                FN(step_tile)(1, ADAGRAD, at, f, a->kp, &v, &g, &visit, c);
            }
            FN(step_linear)(ADAGRAD, tail, d * (x_j - x_i) + s * tail[L2_W_AT] * tail[W_AT], &visit, c);
        }
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

INLINE double FN(exponential)(REAL x) { return sizeof(REAL) == 4 ? (double)expf((float)x) : exp((double)x); }
INLINE double FN(log_of_one_and)(REAL x) { return sizeof(REAL) == 4 ? (double)log1pf((float)x) : log1p((double)x); }

/* Draws an item for interaction r, which is number m of its batch. */
INLINE void FN(draw)(const int nvec, ranking_args *a, const params_t *t, ptrdiff_t r, ptrdiff_t m) {
    REAL *p = (REAL *)a->sums + m * a->kp, *q_i = p + BATCH * a->kp, *q_j = q_i + BATCH * a->kp, *G = q_j + BATCH * a->kp;
    const REAL *weight = (const REAL *)a->weight;
    const int32_t context = a->context[r];
    const double s = weight ? (double)weight[r] : 1;
    FN(side_score)(nvec, &a->contexts, context, t, p);
    REAL score = FN(side_score)(nvec, &a->items, a->item[r], t, q_i);
    score += FN(dot)(nvec, p, q_i);
    const ptrdiff_t most = a->loss == BPR ? FIRST_TRIALS : a->max_trials;
    a->d[m] = a->losses[m] = 0; /* no item stands too near, or there is none left to draw */
    for (ptrdiff_t trial = 0; trial < most; trial++) {
        const int32_t j = drawn_item(a, r, trial);
        REAL own;
        const REAL *at = FN(side_sum)(nvec, &a->items, j, t, q_j, &own);
        const REAL margin = score - own - FN(dot)(nvec, p, at);
        if (a->loss == WARP && margin >= 1) continue; /* met or not */
        if (has_met(a, context, j)) continue;
        double slope = 0;
        if (!(margin - margin == 0)) {
            slope = (double)(margin - margin); /* NaN */
        } else if (a->loss == BPR) {
            const double e = FN(exponential)(margin > 0 ? -margin : margin);
            slope = (margin > 0 ? e : 1) / (1 + e);
            a->losses[m] = s * (FN(log_of_one_and)((REAL)e) + (margin > 0 ? 0 : -(double)margin));
        } else {
            const ptrdiff_t others = a->n_items - (a->starts[context + 1] - a->starts[context]);
            slope = log1p((double)(others / (trial + 1)));
            a->losses[m] = s * slope * (1 - (double)margin);
        }
        if (at != q_j) for (int f = 0; f < nvec; f++) FN(store)(q_j + f * W, FN(load)(at + f * W));
        if (slope == 0) continue;
        a->d[m] = s * slope;
        a->drawn[m] = j;
        const REAL d = (REAL)a->d[m];
        for (int f = 0; f < nvec; f++) FN(store)(G + f * W, (FN(load)(q_j + f * W) - FN(load)(q_i + f * W)) * d);
        return;
    }
}

LOCAL void FN(ranking)(ranking_args *a, const step_args *step, int member) {
    const int nvec = (int)(a->kp / W);
    const REAL *weight = (const REAL *)a->weight, *sums = (const REAL *)a->sums;
    const params_t t = FN(table_params)(ADAGRAD, (const REAL *)a->table, a->stride, a->kp);
    const step_t c = FN(step_of)(step);
    for (ptrdiff_t first = 0, batch = 0; first < a->n_samples; first += BATCH, batch++) {
        const ptrdiff_t size = a->n_samples - first < BATCH ? a->n_samples - first : BATCH;
        ptrdiff_t *claimed = a->next + batch % 2, piece;
        while ((piece = team_claim(claimed) * PIECE) < size)
            for (ptrdiff_t m = piece; m < size && m < piece + PIECE; m++) {
                if (first + m + INTERACTIONS_AHEAD < a->n_samples) {
                    const ptrdiff_t next = a->order[first + m + INTERACTIONS_AHEAD];
                    FN(fetch_side)(a, &a->contexts, a->context[next]);
                    FN(fetch_side)(a, &a->items, a->item[next]);
                    FN(fetch_side)(a, &a->items, drawn_item(a, next, 0));
                }
                FN(draw)(nvec, a, &t, a->order[first + m], m);
            }
        team_wait(&a->team);
        if (member == 0) a->next[(batch + 1) % 2] = 0;
        for (ptrdiff_t m = 0; m < size; m++) {
            const ptrdiff_t r = a->order[first + m];
            if (a->d[m] == 0) continue;
            if (a->d[m] != a->d[m]) { /* seen by every member before any has stepped beyond it */
                if (member == 0) a->bad = r;
                return;
            }
            const REAL s = weight ? weight[r] : (REAL)1, *p = sums + m * a->kp;
            const REAL *q_i = p + BATCH * a->kp, *q_j = q_i + BATCH * a->kp, *G = q_j + BATCH * a->kp;
            if (member == 0) a->total += a->losses[m];
            FN(step_items)(nvec, a, a->item[r], a->drawn[m], (REAL)a->d[m], s, p, q_i, q_j, &c, member);
            FN(step_row)(nvec, &a->contexts, a->context[r], (REAL *)a->table, a->stride, a->kp, G, s, &c, member, a->team.members);
        }
        team_wait(&a->team);
    }
}

/* The sums of some rows. */
LOCAL void FN(row_sums)(const rows_args *a, const step_args *step) {
    const params_t t = FN(table_params)(ADAGRAD, (const REAL *)a->table, a->stride, a->kp);
    for (ptrdiff_t m = 0; m < a->n; m++)
        FN(side_score)((int)(a->kp / W), &a->side, a->rows[m], &t, (REAL *)a->sums + m * a->kp);
    (void)step;
}

/* A step for each of some rows, in their order. */
LOCAL void FN(row_steps)(const rows_args *a, const step_args *step) {
    const step_t c = FN(step_of)(step);
    for (ptrdiff_t m = 0; m < a->n; m++)
        FN(step_row)((int)(a->kp / W), &a->side, a->rows[m], (REAL *)a->table, a->stride, a->kp,
                     (const REAL *)a->sums + m * a->kp, ((const REAL *)a->strength)[m], &c, 0, 1);
}

#undef vec
#undef mask_t
#undef params_t
#undef step_t
#undef visit_t
