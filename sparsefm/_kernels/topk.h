/* The best k of the scores of each row, exactly: found in the scores' own type, scored once more in double.
 *
 * A heap holds the k best so far; vectors none of whose lanes is above its least are passed over, which soon are nearly
 * all. What comes within `slack` of the k-th best, so much as rounding may have moved it, is scored in double, and of
 * these the k best are the list, equal ones in the order of their places.
 */
#ifndef SPARSEFM_TOPK
#define SPARSEFM_TOPK
#define AT_ONCE 4 /* vectors that are looked at together */

typedef struct {
    ptrdiff_t n_items, d, k;
    void *scores;                    /* INOUT (n_rows, n_items), of vectors alone */
    const void *users, *items;       /* IN (n_rows, d), (n_items, d) */
    const void *bias;                /* IN (n_items,) */
    const double *slack;             /* IN (n_rows,) */
    const int64_t *starts;           /* IN (n_rows + 1,) of `seen`, or NULL */
    const int32_t *seen;             /* IN items that are left out */
    int64_t *ids;                    /* INOUT (n_rows, k), −1 to begin with */
    double *top;                     /* INOUT (n_rows, k), −inf to begin with: without the row's own bias */
    void *heap;                      /* scratch (k,) */
    int32_t *near;                   /* scratch (n_items,) */
} topk_args;
#endif

#include "rows.h"

INLINE vec FN(greater)(vec a, vec b) {
#if W == 1
    return a > b ? a : b;
#else
    const mask_t first = a > b;
    return (vec)(((mask_t)a & first) | ((mask_t)b & ~first));
#endif
}

INLINE int FN(any_at_least)(vec v, REAL least) {
#if W == 1
    return v >= least;
#else
    const mask_t is = v >= least;
    uint64_t words[sizeof is / 8], any = 0;
    memcpy(words, &is, sizeof is);
    for (unsigned i = 0; i < sizeof is / 8; i++) any |= words[i];
    return any != 0;
#endif
}

/* Takes the place of the least in a heap of n. */
INLINE void FN(replace_least)(REAL *heap, ptrdiff_t n, REAL value) {
    ptrdiff_t at = 0;
    for (;;) {
        ptrdiff_t child = 2 * at + 1;
        if (child >= n) break;
        if (child + 1 < n && heap[child + 1] < heap[child]) child++;
        if (heap[child] >= value) break;
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = value;
}

INLINE double FN(exact)(const REAL *a, const REAL *b, ptrdiff_t d) {
    double sums[8] = {0};
    ptrdiff_t i = 0;
    for (; i + 8 <= d; i += 8)
        for (int lane = 0; lane < 8; lane++) sums[lane] += (double)a[i + lane] * (double)b[i + lane];
    for (int lane = 0; i < d; i++, lane++) sums[lane] += (double)a[i] * (double)b[i];
    return ((sums[0] + sums[4]) + (sums[2] + sums[6])) + ((sums[1] + sums[5]) + (sums[3] + sums[7]));
}

LOCAL void FN(top_of_rows)(const topk_args *a, ptrdiff_t start, ptrdiff_t stop) {
    const ptrdiff_t n = a->n_items, k = a->k < n ? a->k : n, step = AT_ONCE * W;
    const REAL *bias = (const REAL *)a->bias;
    REAL *heap = (REAL *)a->heap;
    for (ptrdiff_t row = start; row < stop; row++) {
        REAL *scores = (REAL *)a->scores + row * n;
        if (a->starts)
            for (ptrdiff_t p = a->starts[row]; p < a->starts[row + 1]; p++) scores[a->seen[p]] = -(REAL)INFINITY;
        for (ptrdiff_t i = 0; i < k; i++) heap[i] = -(REAL)INFINITY;
        ptrdiff_t i = 0;
        for (; i + step <= n; i += step) {
            vec highest = FN(load)(scores + i) + FN(load)(bias + i);
            FN(store)(scores + i, highest);
            for (int v = 1; v < AT_ONCE; v++) {
                const vec each = FN(load)(scores + i + v * W) + FN(load)(bias + i + v * W);
                FN(store)(scores + i + v * W, each);
                highest = FN(greater)(highest, each);
            }
            if (!FN(any_at_least)(highest, heap[0])) continue;
            for (ptrdiff_t j = i; j < i + step; j++)
                if (scores[j] > heap[0]) FN(replace_least)(heap, k, scores[j]);
        }
        for (; i < n; i++) {
            scores[i] += bias[i];
            if (scores[i] > heap[0]) FN(replace_least)(heap, k, scores[i]);
        }
        const REAL least = (REAL)((double)heap[0] - a->slack[row]);
        ptrdiff_t n_near = 0;
        for (i = 0; i + step <= n; i += step) {
            vec highest = FN(load)(scores + i);
            for (int v = 1; v < AT_ONCE; v++) highest = FN(greater)(highest, FN(load)(scores + i + v * W));
            if (!FN(any_at_least)(highest, least)) continue;
            for (ptrdiff_t j = i; j < i + step; j++)
                if (scores[j] >= least && scores[j] > -(REAL)INFINITY) a->near[n_near++] = (int32_t)j;
        }
        for (; i < n; i++)
            if (scores[i] >= least && scores[i] > -(REAL)INFINITY) a->near[n_near++] = (int32_t)i;
        int64_t *ids = a->ids + row * a->k;
        double *top = a->top + row * a->k;
        const REAL *user = (const REAL *)a->users + row * a->d;
        ptrdiff_t filled = 0;
        for (ptrdiff_t p = 0; p < n_near; p++) {
            const int32_t item = a->near[p];
            const double score = FN(exact)(user, (const REAL *)a->items + (ptrdiff_t)item * a->d, a->d) + (double)bias[item];
            if (filled == k && !(score > top[k - 1])) continue;
            ptrdiff_t place = filled < k ? filled++ : k - 1;
            for (; place > 0 && top[place - 1] < score; place--) {
                top[place] = top[place - 1];
                ids[place] = ids[place - 1];
            }
            top[place] = score;
            ids[place] = item;
        }
    }
}

#undef vec
#undef mask_t
#undef params_t
