/* The rows of the family's other members, each written once; a body of instances.h includes this after rows.h. With
 * z_j = x_j v_j, v_j the numbers of feature j in V and f(j) its field, the interaction part of a row's score is
 *
 *     ANOVA      Σ_{t=2..m} Σ_f Σ_{j1<…<jt} z_{j1 f} … z_{jt f}                    Blondel et al. 2016; v_j has m − 1 blocks of
 *                k factors, that of order 2 first, or where they are shared one for all orders
 *     AWARE      Σ_{j<l} ⟨z_j[f(l)], z_l[f(j)]⟩                                   Juan et al. 2016; a block for each field
 *     WEIGHTED   Σ_{j<l} r_{f(j) f(l)} ⟨z_j, z_l⟩                                 Pan et al. 2018
 *
 * `FN(meet)` returns it, and writes its gradient with respect to each z_j where wanted: ∂/∂v_j is x_j times that, and ∂/∂x_j
 * its product with v_j. Every other pass is a loop around this one.
 *
 * ANOVA: e_s, the sum of the products of s different z, in its running form e_s += e_{s−1} z, s from t down. The gradient is
 * the same loop backwards: what stands before a feature (kept on the way) times what stands behind it. Taking the feature out
 * of the finished sums instead, e_{s−1} − z …, loses all digits at order 5 with one |x| of 30.
 *
 * AWARE and WEIGHTED: a row's non-zeros are added up by field, so that n of them in L fields cost O(n L k), and O(n k + L² k).
 */
#ifndef SPARSEFM_FAMILIES
#define SPARSEFM_FAMILIES

enum { ANOVA, AWARE, WEIGHTED };
#define MAX_ORDER 12

typedef struct {
    int kind, order, shared;
    ptrdiff_t k, width;    /* factors of a block, and of all blocks of a feature */
    ptrdiff_t n_fields;    /* of AWARE and WEIGHTED */
    const int32_t *fields; /* IN (n_features,) */
    const void *weights;   /* IN (n_fields, n_fields) r, of which f ≤ g is read; each weights_stride reals behind the last */
    ptrdiff_t weights_stride;
    int32_t *places;       /* scratch (2 n_fields + longest row,), of which the first n_fields are −1 */
    ptrdiff_t n_cells;     /* OUT fields of the last row; places + n_fields begins with them */
    void *scratch;         /* scratch of family_scratch() reals */
    void *products;        /* OUT (n_fields, n_fields), at f ≤ g what r multiplies, of the fields that the row has; or NULL */
} family_t;

/* The widest vectors that a block of k fills. */
static inline int family_isa(int isa, ptrdiff_t k) {
    return k % 16 == 0 || isa < ISA_AVX2 ? isa : k % 8 == 0 ? ISA_AVX2 : ISA_BASE;
}

static inline ptrdiff_t pair_of(int32_t f, int32_t g, ptrdiff_t n_fields) {
    return f < g ? f * n_fields + g : g * n_fields + f;
}

static inline ptrdiff_t family_scratch(const family_t *f, ptrdiff_t longest) {
    const ptrdiff_t cells = f->n_fields < longest ? f->n_fields : longest;
    if (f->kind == ANOVA) return longest * f->order * 16;
    return f->kind == AWARE ? cells * f->width : 2 * cells * f->k;
}
#endif

INLINE REAL FN(linear_part)(const params_t *t, const IDX *idx, const REAL *x, ptrdiff_t n) {
    REAL sum = 0;
    for (ptrdiff_t p = 0; p < n; p++) sum += (x ? x[p] : (REAL)1) * t->w[(ptrdiff_t)idx[p] * t->w_stride];
    return sum;
}

/* One block of ANOVA, whose highest order is `top`; with `all` every order from 2 on counts. e_1 … e_top go to sums, k apart,
 * and the gradient to H, whose rows are a width apart, unless these are NULL. */
INLINE REAL FN(anova_block)(const int top, int all, const family_t *a, const REAL *v, ptrdiff_t stride, const IDX *idx,
                            const REAL *x, ptrdiff_t n, REAL *sums, REAL *H) {
    REAL *kept = (REAL *)a->scratch;
    vec total = FN(zero)(), e[MAX_ORDER + 1];
    memset(e, 0, sizeof e);
    for (ptrdiff_t f = 0; f < a->k; f += W) {
        const ptrdiff_t left = a->k - f;
        for (int s = 1; s <= top; s++) e[s] = FN(zero)();
        for (ptrdiff_t p = 0; p < n; p++) {
            vec z = FN(load_first)(v + (ptrdiff_t)idx[p] * stride + f, left);
            if (x) z *= x[p];
            if (H) for (int s = 1; s < top; s++) FN(store)(kept + (p * (top - 1) + s - 1) * W, e[s]);
            for (int s = top; s > 1; s--) e[s] += e[s - 1] * z;
            e[1] += z;
        }
        for (int s = all ? 2 : top; s <= top; s++) total += e[s];
        if (sums) for (int s = 1; s <= top; s++) FN(store_first)(sums + (s - 1) * a->k + f, e[s], left);
        if (H == NULL) continue;
        for (int s = 1; s <= top; s++) e[s] = FN(zero)() + (REAL)(s == top || (all && s > 1)); /* of what stands behind */
        for (ptrdiff_t p = n - 1; p >= 0; p--) {
            vec z = FN(load_first)(v + (ptrdiff_t)idx[p] * stride + f, left), g = e[1];
            if (x) z *= x[p];
            for (int s = 2; s <= top; s++) g += e[s] * FN(load)(kept + (p * (top - 1) + s - 2) * W);
            FN(store_first)(H + p * a->width + f, g, left);
            for (int s = 2; s <= top; s++) e[s - 1] += e[s] * z;
        }
    }
    return FN(sum)(total);
}

INLINE REAL FN(anova)(const family_t *a, const params_t *t, const IDX *idx, const REAL *x, ptrdiff_t n, REAL *sums, REAL *H) {
    REAL score = 0;
    for (int top = a->shared ? a->order : 2; top <= a->order; top++) {
        const ptrdiff_t at = a->shared ? 0 : (top - 2) * a->k;
#define BLOCK(TOP) score += FN(anova_block)(TOP, a->shared, a, t->v + at, t->v_stride, idx, x, n, sums, H ? H + at : NULL)
        switch (top) {
        case 2: BLOCK(2); break;
        case 3: BLOCK(3); break;
        case 4: BLOCK(4); break;
        case 5: BLOCK(5); break;
        default: BLOCK(top); break;
        }
#undef BLOCK
        if (sums) sums += top * a->k;
    }
    return score;
}

INLINE REAL FN(dot)(const REAL *a, const REAL *b, ptrdiff_t n) {
    vec sum = FN(zero)();
    ptrdiff_t f = 0;
    for (; f + W <= n; f += W) sum += FN(load)(a + f) * FN(load)(b + f);
    if (f < n) sum += FN(load_first)(a + f, n - f) * FN(load_first)(b + f, n - f);
    return FN(sum)(sum);
}

/* to = by · from, with `add` to += by · from. */
INLINE void FN(scaled)(REAL *to, const REAL *from, REAL by, ptrdiff_t n, int add) {
    ptrdiff_t f = 0;
    for (; f + W <= n; f += W) FN(store)(to + f, (add ? FN(load)(to + f) : FN(zero)()) + FN(load)(from + f) * by);
    for (; f < n; f++) to[f] = (add ? to[f] : 0) + from[f] * by;
}

/* Numbers the fields of a row in the order they come: cell[p] of its entries, and the field of each cell; returns how many
 * cells there are. `places` is left as it must be found. */
INLINE ptrdiff_t FN(cells)(family_t *a, const IDX *idx, ptrdiff_t n, int32_t **cell, int32_t **field) {
    int32_t *cell_of = a->places, n_cells = 0;
    *field = a->places + a->n_fields;
    *cell = *field + a->n_fields;
    for (ptrdiff_t p = 0; p < n; p++) {
        const int32_t f = a->fields[idx[p]];
        if (cell_of[f] < 0) {
            (*field)[n_cells] = f;
            cell_of[f] = n_cells++;
        }
        (*cell)[p] = cell_of[f];
    }
    for (int32_t c = 0; c < n_cells; c++) cell_of[(*field)[c]] = -1;
    return a->n_cells = n_cells;
}

LOCAL REAL FN(aware)(family_t *a, const params_t *t, const IDX *idx, const REAL *x, ptrdiff_t n, REAL *H) {
    int32_t *cell, *field;
    const ptrdiff_t n_cells = FN(cells)(a, idx, n, &cell, &field), k = a->k, width = a->width;
    REAL score = 0;
    if (n_cells < a->n_fields && H) memset(H, 0, n * width * sizeof(REAL)); /* fields that the row has not */
    if (n_cells == n) { /* cells are entries */
        for (ptrdiff_t p = 0; p < n; p++) {
            const REAL *v = t->v + (ptrdiff_t)idx[p] * t->v_stride, *other = t->v + field[p] * k;
            const REAL xp = x ? x[p] : (REAL)1;
            vec sum = FN(zero)();
            for (ptrdiff_t q = 0; q < (H ? n : p); q++) {
                const REAL *u = other + (ptrdiff_t)idx[q] * t->v_stride, *own = v + field[q] * k;
                const REAL xq = x ? x[q] : (REAL)1;
                for (ptrdiff_t f = 0; f < k; f += W) {
                    vec z = FN(load_first)(u + f, k - f);
                    if (x) z *= xq;
                    if (H) FN(store_first)(H + p * width + field[q] * k + f, q == p ? FN(zero)() : z, k - f);
                    if (q < p) sum += FN(load_first)(own + f, k - f) * z * xp;
                }
            }
            score += FN(sum)(sum);
        }
        return score;
    }
    /* the sums of cell c for the eyes of field g are those of entry numbers [g][field c], as they are read below */
    REAL *sums = (REAL *)a->scratch;
    memset(sums, 0, n_cells * width * sizeof(REAL));
    for (ptrdiff_t p = 0; p < n; p++) {
        const REAL *v = t->v + (ptrdiff_t)idx[p] * t->v_stride, xp = x ? x[p] : (REAL)1;
        REAL *within = sums + cell[p] * width + field[cell[p]] * k;
        score += xp * FN(dot)(v + field[cell[p]] * k, within, k);
        for (ptrdiff_t c = 0; c < n_cells; c++) FN(scaled)(sums + c * width + field[cell[p]] * k, v + field[c] * k, xp, k, 1);
    }
    for (ptrdiff_t c = 0; c < n_cells; c++)
        for (ptrdiff_t e = 0; e < c; e++) score += FN(dot)(sums + c * width + field[e] * k, sums + e * width + field[c] * k, k);
    if (H == NULL) return score;
    for (ptrdiff_t p = 0; p < n; p++) {
        const ptrdiff_t own = field[cell[p]] * k;
        const REAL *v = t->v + (ptrdiff_t)idx[p] * t->v_stride;
        memcpy(H + p * width, sums + cell[p] * width, width * sizeof(REAL));
        FN(scaled)(H + p * width + own, v + own, -(x ? x[p] : (REAL)1), k, 1);
    }
    return score;
}

LOCAL REAL FN(weighted)(family_t *a, const params_t *t, const IDX *idx, const REAL *x, ptrdiff_t n, REAL *H) {
    int32_t *cell, *field;
    const ptrdiff_t n_cells = FN(cells)(a, idx, n, &cell, &field), k = a->k, n_fields = a->n_fields;
    const REAL *weights = (const REAL *)a->weights;
    REAL *sums = (REAL *)a->scratch, *seen = sums + n_cells * k, *products = (REAL *)a->products, score = 0;
#define PAIR(c, e) pair_of(field[c], field[e], n_fields)
#define WEIGHT(c, e) weights[PAIR(c, e) * a->weights_stride]
#define PRODUCT(c, e) products[PAIR(c, e)]
    memset(sums, 0, n_cells * k * sizeof(REAL));
    if (products) for (ptrdiff_t c = 0; c < n_cells; c++) PRODUCT(c, c) = 0;
    for (ptrdiff_t p = 0; p < n; p++) {
        const REAL *v = t->v + (ptrdiff_t)idx[p] * t->v_stride, xp = x ? x[p] : (REAL)1;
        REAL *sum = sums + cell[p] * k;
        if (n_cells < n) {
            const REAL pairs = xp * FN(dot)(v, sum, k);
            score += WEIGHT(cell[p], cell[p]) * pairs;
            if (products) PRODUCT(cell[p], cell[p]) += pairs;
        }
        FN(scaled)(sum, v, xp, k, 1);
    }
    for (ptrdiff_t c = 0; c < n_cells; c++) { /* what cell c meets */
        memset(seen + c * k, 0, k * sizeof(REAL));
        for (ptrdiff_t e = 0; e < (H ? n_cells : c); e++)
            if (e != c) FN(scaled)(seen + c * k, sums + e * k, WEIGHT(c, e), k, 1);
        if (H == NULL) score += FN(dot)(sums + c * k, seen + c * k, k);
        else score += FN(dot)(sums + c * k, seen + c * k, k) / 2;
        if (products) for (ptrdiff_t e = 0; e < c; e++) PRODUCT(c, e) = FN(dot)(sums + c * k, sums + e * k, k);
    }
    for (ptrdiff_t p = 0; p < (H ? n : 0); p++) {
        REAL *h = H + p * a->width;
        memcpy(h, seen + cell[p] * k, k * sizeof(REAL));
        if (n_cells == n) continue;
        const REAL r = WEIGHT(cell[p], cell[p]), xp = x ? x[p] : (REAL)1;
        FN(scaled)(h, sums + cell[p] * k, r, k, 1);
        FN(scaled)(h, t->v + (ptrdiff_t)idx[p] * t->v_stride, -r * xp, k, 1);
    }
#undef PAIR
#undef WEIGHT
#undef PRODUCT
    return score;
}

/* The interaction part of a row's score; its gradients to H (n, width), and of ANOVA e_1 … of each block to sums, unless these
 * are NULL. */
APART REAL FN(meet)(family_t *a, const params_t *t, const IDX *idx, const REAL *x, ptrdiff_t n, REAL *sums, REAL *H) {
    if (a->kind == ANOVA) return FN(anova)(a, t, idx, x, n, sums, H);
    return a->kind == AWARE ? FN(aware)(a, t, idx, x, n, H) : FN(weighted)(a, t, idx, x, n, H);
}
