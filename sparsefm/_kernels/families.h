/* The rows of the family's other members, each written once; a body of instances.h includes this after rows.h. With
 * z_j = x_j v_j, v_j the numbers of feature j in V and f(j) its field, the interaction part of a row's score is
 *
 *     ANOVA      Σ_{t=2..m} Σ_f Σ_{j1<…<jt} z_{j1 f} … z_{jt f}                    Blondel et al. 2016; v_j has m − 1 blocks of
 *                k factors, that of order 2 first, or where they are shared one for all orders
 *     AWARE      Σ_{j<l} ⟨z_j[f(l)], z_l[f(j)]⟩                                   Juan et al. 2016; a block for each field
 *     WEIGHTED   Σ_{j<l} r_{f(j) f(l)} ⟨z_j, z_l⟩                                 Pan et al. 2018
 *
 * `FN(meet)` returns it with the linear part, and writes its gradient with respect to each z_j where wanted: ∂/∂v_j is x_j
 * times that, and ∂/∂x_j its product with v_j. Every other pass is a loop around this one; it is called through a pointer, so
 * that the loop's vectors may be wider than a block.
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
#define AHEAD_BYTES 32768 /* of rows between prefetch and use: less than the first-level cache */
#define AHEAD_ENTRIES 96  /* at most */

typedef struct family family_t;
typedef double meet_t(family_t *, const void *idx, const void *x, ptrdiff_t n, ptrdiff_t to_come, void *sums, void *H);

struct family {
    int kind, order, shared;
    ptrdiff_t k, width;          /* factors of a block, and reals from one row of H to the next */
    ptrdiff_t n_fields;          /* of AWARE and WEIGHTED */
    const int32_t *fields;       /* IN (n_features,) */
    const void *w, *v;           /* IN parameters, strides in elements */
    ptrdiff_t w_stride, v_stride;
    const void *weights;         /* IN (n_fields, n_fields) r, of which f ≤ g is read; each weights_stride reals behind the last */
    ptrdiff_t weights_stride;
    int32_t *places;             /* scratch (2 n_fields + longest row,), of which the first n_fields are −1 */
    const void **rows;           /* scratch (2 longest row,) */
    void *scratch;               /* scratch of family_scratch() reals */
    ptrdiff_t n_cells;           /* OUT fields of the last row; places + n_fields begins with them */
    void *products;              /* OUT (n_fields, n_fields), at f ≤ g what r multiplies, of the fields that the row has; or NULL */
    meet_t *meet;                /* the instance whose vectors a block fills */
};

/* The widest vectors that a block of k fills. */
static inline int family_isa(int isa, ptrdiff_t k) {
    return k % 16 == 0 || isa < ISA_AVX2 ? isa : k % 8 == 0 ? ISA_AVX2 : ISA_BASE;
}

static inline ptrdiff_t pair_of(int32_t f, int32_t g, ptrdiff_t n_fields) {
    return f < g ? f * n_fields + g : g * n_fields + f;
}

static inline ptrdiff_t family_scratch(const family_t *f, ptrdiff_t longest) {
    const ptrdiff_t cells = f->n_fields < longest ? f->n_fields : longest, padded = cells + 16;
    if (f->kind == ANOVA) return longest * f->order * 16;
    return f->kind == AWARE ? cells * f->width : cells * (2 * f->k + padded) + (f->k + 1) * padded;
}
#endif

#define ROW_OF(p) ((const REAL *)a->v + (ptrdiff_t)idx[p] * a->v_stride)

INLINE REAL FN(linear_part)(const family_t *a, const IDX *idx, const REAL *x, ptrdiff_t n) {
    const REAL *w = (const REAL *)a->w;
    REAL one = 0, two = 0, three = 0, four = 0; /* so that not every addition waits for the last */
    ptrdiff_t p = 0;
#define PART(q) ((x ? x[q] : (REAL)1) * w[(ptrdiff_t)idx[q] * a->w_stride])
    for (; p + 4 <= n; p += 4) {
        one += PART(p);
        two += PART(p + 1);
        three += PART(p + 2);
        four += PART(p + 3);
    }
    for (; p < n; p++) one += PART(p);
#undef PART
    return one + two + (three + four);
}

/* Prefetches what a visit to entry p reads, if there is one. */
INLINE void FN(fetch_entry)(const family_t *a, const IDX *idx, ptrdiff_t p, ptrdiff_t to_come) {
    if (p >= to_come) return;
    const char *row = (const char *)ROW_OF(p);
    const ptrdiff_t bytes = a->width * (ptrdiff_t)sizeof(REAL);
    for (ptrdiff_t o = 0; o < bytes; o += 64) PREFETCH_READ(row + o);
    if ((uintptr_t)row % 64 + (bytes - 1) % 64 >= 64) PREFETCH_READ(row + bytes - 1);
    PREFETCH_READ((const REAL *)a->w + (ptrdiff_t)idx[p] * a->w_stride);
}

INLINE ptrdiff_t FN(ahead)(const family_t *a) {
    const ptrdiff_t ahead = AHEAD_BYTES / (a->width * (ptrdiff_t)sizeof(REAL) + 64);
    return ahead < 8 ? 8 : ahead < AHEAD_ENTRIES ? ahead : AHEAD_ENTRIES;
}

/* Of ANOVA with a block for each order up to `top`, W factors of all blocks in one pass; the linear part is summed on the way
 * unless it is NULL. */
INLINE vec FN(anova_tile)(const int top, const int unit, const family_t *a, const REAL *v, const IDX *idx, const REAL *x,
                          ptrdiff_t n, ptrdiff_t to_come, REAL *linear) {
    const REAL *w = (const REAL *)a->w;
    const ptrdiff_t k = a->k, ahead = FN(ahead)(a), v_stride = a->v_stride, w_stride = a->w_stride;
    REAL sum = 0;
    vec sums[15];
#define E(t, s) sums[(t) * ((t) - 1) / 2 - 2 + (s)] /* e_s of the block of order t */
    for (int i = 0; i < 15; i++) sums[i] = FN(zero)();
    for (ptrdiff_t p = 0; p < n; p++) {
        const ptrdiff_t j = idx[p];
        const REAL *row = v + j * v_stride;
        if (linear) {
            FN(fetch_entry)(a, idx, p + ahead, to_come);
            sum += unit ? w[j * w_stride] : w[j * w_stride] * x[p];
        }
#define ORDER(t)                                                    \
    if (top >= (t)) {                                               \
        vec z = FN(load)(row + ((t) - 2) * k);                      \
        if (!unit) z *= x[p];                                       \
        if ((t) >= 5) E(t, 5) += E(t, 4) * z;                       \
        if ((t) >= 4) E(t, 4) += E(t, 3) * z;                       \
        if ((t) >= 3) E(t, 3) += E(t, 2) * z;                       \
        E(t, 2) += E(t, 1) * z;                                     \
        E(t, 1) += z;                                               \
    }
        ORDER(2)
        ORDER(3)
        ORDER(4)
        ORDER(5)
#undef ORDER
    }
    vec total = E(2, 2) + E(3, 3);
    if (top >= 4) total += E(4, 4);
    if (top >= 5) total += E(5, 5);
#undef E
    if (linear) *linear = sum;
    return total;
}

/* The scores of ANOVA with a block for each order up to `top`, with their linear part; k is a multiple of W. */
INLINE REAL FN(anova_own)(const int top, const int unit, const family_t *a, const IDX *idx, const REAL *x, ptrdiff_t n,
                          ptrdiff_t to_come) {
    const REAL *v = (const REAL *)a->v;
    REAL linear;
    vec total = FN(anova_tile)(top, unit, a, v, idx, x, n, to_come, &linear);
    for (ptrdiff_t f = W; f < a->k; f += W) total += FN(anova_tile)(top, unit, a, v + f, idx, x, n, 0, NULL);
    return linear + FN(sum)(total);
}

/* `whole`: the W factors that it may read are all there. */
#define LOAD(v, left) (whole ? FN(load)(v) : FN(load_first)(v, left))
#define STORE(v, z, left)                       \
    do {                                        \
        if (whole) FN(store)(v, z);             \
        else FN(store_first)(v, z, left);       \
    } while (0)

/* Factors `from` to `to` of one block of ANOVA, whose highest order is `top`; with `all` every order from 2 on counts. e_1 …
 * e_top go to sums, k apart, and the gradient to H, whose rows are a width apart, unless these are NULL. */
INLINE REAL FN(anova_block)(const int top, const int whole, int all, const family_t *a, ptrdiff_t at, ptrdiff_t from, ptrdiff_t to,
                            const IDX *idx, const REAL *x, ptrdiff_t n, ptrdiff_t to_come, REAL *sums, REAL *H) {
    REAL *kept = (REAL *)a->scratch;
    const ptrdiff_t ahead = FN(ahead)(a);
    vec total = FN(zero)(), e[MAX_ORDER + 1];
    for (ptrdiff_t f = from; f < to; f += W) {
        const ptrdiff_t left = to - f;
        for (int s = 1; s <= top; s++) e[s] = FN(zero)();
        for (ptrdiff_t p = 0; p < n; p++) {
            vec z = LOAD(ROW_OF(p) + at + f, left);
            if (at + f == 0) FN(fetch_entry)(a, idx, p + ahead, to_come);
            if (x) z *= x[p];
            if (H) for (int s = 1; s < top; s++) FN(store)(kept + (p * (top - 1) + s - 1) * W, e[s]);
            for (int s = top; s > 1; s--) e[s] += e[s - 1] * z;
            e[1] += z;
        }
        for (int s = all ? 2 : top; s <= top; s++) total += e[s];
        if (sums) for (int s = 1; s <= top; s++) STORE(sums + (s - 1) * a->k + f, e[s], left);
        if (H == NULL) continue;
        for (int s = 1; s <= top; s++) e[s] = FN(zero)() + (REAL)(s == top || (all && s > 1)); /* of what stands behind */
        for (ptrdiff_t p = n - 1; p >= 0; p--) {
            vec z = LOAD(ROW_OF(p) + at + f, left), g = e[1];
            if (x) z *= x[p];
            for (int s = 2; s <= top; s++) g += e[s] * FN(load)(kept + (p * (top - 1) + s - 2) * W);
            STORE(H + p * a->width + at + f, g, left);
            for (int s = 2; s <= top; s++) e[s - 1] += e[s] * z;
        }
    }
    return FN(sum)(total);
}

INLINE REAL FN(anova)(const family_t *a, const IDX *idx, const REAL *x, ptrdiff_t n, ptrdiff_t to_come, REAL *sums, REAL *H) {
    const ptrdiff_t k = a->k, whole = k / W * W;
    if (!a->shared && sums == NULL && H == NULL && whole == k && k) {
#define OWN(TOP) (x ? FN(anova_own)(TOP, 0, a, idx, x, n, to_come) : FN(anova_own)(TOP, 1, a, idx, x, n, to_come))
        if (a->order == 3) return OWN(3);
        if (a->order == 4) return OWN(4);
        if (a->order == 5) return OWN(5);
#undef OWN
    }
    REAL score = FN(linear_part)(a, idx, x, n);
    for (int top = a->shared ? a->order : 2; top <= a->order; top++) {
        const ptrdiff_t at = a->shared ? 0 : (top - 2) * k;
#define BLOCK(TOP) score += FN(anova_block)(TOP, 1, a->shared, a, at, 0, whole, idx, x, n, to_come, sums, H)
        switch (top) {
        case 2: BLOCK(2); break;
        case 3: BLOCK(3); break;
        case 4: BLOCK(4); break;
        case 5: BLOCK(5); break;
        default: BLOCK(top); break;
        }
#undef BLOCK
        if (whole < k) score += FN(anova_block)(top, 0, a->shared, a, at, whole, k, idx, x, n, to_come, sums, H);
        if (sums) sums += top * k;
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

/* AWARE where every entry has a field of its own; `one`: a block is one vector. */
INLINE REAL FN(aware_pairs)(const int one, const int whole, const int unit, const int learn, const family_t *a, const int32_t *field,
                            const IDX *idx, const REAL *x, ptrdiff_t n, ptrdiff_t to_come, REAL *H) {
    const REAL **rows = (const REAL **)a->rows;
    const ptrdiff_t k = a->k, ahead = FN(ahead)(a), end = one ? W : k;
    vec total = FN(zero)();
    ptrdiff_t *block = (ptrdiff_t *)(a->rows + n); /* where each entry's eyes look */
    for (ptrdiff_t p = 0; p < n; p++) {
        rows[p] = ROW_OF(p);
        block[p] = field[p] * k;
    }
    for (ptrdiff_t p = 0; p < n; p++) {
        const REAL *own = rows[p];
        const ptrdiff_t at = block[p];
        REAL *h = learn ? H + p * a->width : NULL;
        vec sums[4];
        FN(fetch_entry)(a, idx, p + ahead, to_come);
        for (int i = 0; i < 4; i++) sums[i] = FN(zero)();
#define MEET(i, q)                                                      \
    for (ptrdiff_t f = 0; f < end; f += W) {                            \
        vec z = LOAD(rows[q] + at + f, k - f);                          \
        if (!unit) z *= x[q];                                           \
        if (learn) STORE(h + block[q] + f, z, k - f);                   \
        sums[i] += LOAD(own + block[q] + f, k - f) * z;                 \
    }
        ptrdiff_t q = 0;
        for (; q + 4 <= p; q += 4) {
            MEET(0, q)
            MEET(1, q + 1)
            MEET(2, q + 2)
            MEET(3, q + 3)
        }
        for (; q < p; q++) MEET(0, q)
        total += (sums[0] + sums[1] + sums[2] + sums[3]) * (unit ? (REAL)1 : x[p]);
        if (!learn) continue;
        for (ptrdiff_t f = 0; f < end; f += W) STORE(h + at + f, FN(zero)(), k - f);
        for (q = p + 1; q < n; q++)
            for (ptrdiff_t f = 0; f < end; f += W) {
                vec z = LOAD(rows[q] + at + f, k - f);
                if (!unit) z *= x[q];
                STORE(h + block[q] + f, z, k - f);
            }
#undef MEET
    }
    return FN(sum)(total);
}

LOCAL REAL FN(aware)(family_t *a, const IDX *idx, const REAL *x, ptrdiff_t n, ptrdiff_t to_come, REAL *H) {
    int32_t *cell, *field;
    const ptrdiff_t n_cells = FN(cells)(a, idx, n, &cell, &field), k = a->k, width = a->width;
    REAL score = 0;
    if (n_cells < a->n_fields && H) memset(H, 0, n * width * sizeof(REAL)); /* fields that the row has not */
    if (n_cells == n) { /* cells are entries */
#define PAIRS(one, whole, unit, learn) FN(aware_pairs)(one, whole, unit, learn, a, field, idx, x, n, to_come, H)
        if (k % W) return PAIRS(0, 0, x == NULL, H != NULL);
        if (k != W) return PAIRS(0, 1, x == NULL, H != NULL);
        if (x) return H ? PAIRS(1, 1, 0, 1) : PAIRS(1, 1, 0, 0);
        return H ? PAIRS(1, 1, 1, 1) : PAIRS(1, 1, 1, 0);
#undef PAIRS
    }
    /* the sums of cell c for the eyes of field g are those of entry numbers [g][field c], as they are read below */
    REAL *sums = (REAL *)a->scratch;
    memset(sums, 0, n_cells * width * sizeof(REAL));
    for (ptrdiff_t p = 0; p < n; p++) {
        const REAL *v = ROW_OF(p), xp = x ? x[p] : (REAL)1;
        REAL *within = sums + cell[p] * width + field[cell[p]] * k;
        FN(fetch_entry)(a, idx, p + FN(ahead)(a), to_come);
        score += xp * FN(dot)(v + field[cell[p]] * k, within, k);
        for (ptrdiff_t c = 0; c < n_cells; c++) FN(scaled)(sums + c * width + field[cell[p]] * k, v + field[c] * k, xp, k, 1);
    }
    for (ptrdiff_t c = 0; c < n_cells; c++)
        for (ptrdiff_t e = 0; e < c; e++) score += FN(dot)(sums + c * width + field[e] * k, sums + e * width + field[c] * k, k);
    if (H == NULL) return score;
    for (ptrdiff_t p = 0; p < n; p++) {
        const ptrdiff_t own = field[cell[p]] * k;
        memcpy(H + p * width, sums + cell[p] * width, width * sizeof(REAL));
        FN(scaled)(H + p * width + own, ROW_OF(p) + own, -(x ? x[p] : (REAL)1), k, 1);
    }
    return score;
}

/* With R the weights of the row's cells and S their sums: what cell c meets is R_c S, and the products are S Sᵀ. */
INLINE REAL FN(weighted)(const int whole, family_t *a, const IDX *idx, const REAL *x, ptrdiff_t n, ptrdiff_t to_come, REAL *H) {
    int32_t *cell, *field;
    const ptrdiff_t n_cells = FN(cells)(a, idx, n, &cell, &field), k = a->k, n_fields = a->n_fields, ahead = FN(ahead)(a);
    const ptrdiff_t padded = (n_cells + W - 1) / W * W;
    const REAL *weights = (const REAL *)a->weights;
    REAL *sums = (REAL *)a->scratch, *met = sums + n_cells * k, *R = met + n_cells * k, *across = R + n_cells * n_cells;
    REAL *row = across + k * padded, *products = (REAL *)a->products, score = 0;
    memset(sums, 0, n_cells * k * sizeof(REAL));
    for (ptrdiff_t c = 0; c < n_cells; c++) {
        for (ptrdiff_t e = 0; e <= c; e++)
            R[c * n_cells + e] = R[e * n_cells + c] = weights[pair_of(field[c], field[e], n_fields) * a->weights_stride];
        if (products) products[pair_of(field[c], field[c], n_fields)] = 0;
    }
    for (ptrdiff_t p = 0; p < n; p++) {
        const REAL *v = ROW_OF(p), xp = x ? x[p] : (REAL)1;
        const ptrdiff_t c = cell[p];
        FN(fetch_entry)(a, idx, p + ahead, to_come);
        if (n_cells < n) {
            const REAL pairs = xp * FN(dot)(v, sums + c * k, k);
            score += R[c * n_cells + c] * pairs;
            if (products) products[pair_of(field[c], field[c], n_fields)] += pairs;
        }
        FN(scaled)(sums + c * k, v, xp, k, 1);
    }
    vec total = FN(zero)();
    for (ptrdiff_t c = 0; c < n_cells; c++) {
        const REAL *r = R + c * n_cells;
        for (ptrdiff_t f = 0; f < k; f += W) {
            vec before = FN(zero)(), behind = FN(zero)();
            for (ptrdiff_t e = 0; e < c; e++) before += LOAD(sums + e * k + f, k - f) * r[e];
            total += LOAD(sums + c * k + f, k - f) * before;
            if (H == NULL) continue;
            for (ptrdiff_t e = c + 1; e < n_cells; e++) behind += LOAD(sums + e * k + f, k - f) * r[e];
            STORE(met + c * k + f, before + behind, k - f);
        }
    }
    for (ptrdiff_t p = 0; p < (H ? n : 0); p++) {
        const ptrdiff_t c = cell[p];
        const REAL within = n_cells < n ? R[c * n_cells + c] : 0, xp = x ? x[p] : (REAL)1;
        REAL *h = H + p * a->width;
        memcpy(h, met + c * k, k * sizeof(REAL));
        if (within == 0) continue;
        FN(scaled)(h, sums + c * k, within, k, 1);
        FN(scaled)(h, ROW_OF(p), -within * xp, k, 1);
    }
    if (products) {
        memset(across, 0, k * padded * sizeof(REAL));
        for (ptrdiff_t c = 0; c < n_cells; c++)
            for (ptrdiff_t f = 0; f < k; f++) across[f * padded + c] = sums[c * k + f];
        for (ptrdiff_t c = 1; c < n_cells; c++) {
            for (ptrdiff_t e = 0; e < c; e += W) {
                vec dots = FN(zero)();
                for (ptrdiff_t f = 0; f < k; f++) dots += FN(load)(across + f * padded + e) * sums[c * k + f];
                FN(store)(row + e, dots);
            }
            for (ptrdiff_t e = 0; e < c; e++) products[pair_of(field[c], field[e], n_fields)] = row[e];
        }
    }
    return score + FN(sum)(total);
}

/* A row's score without w0; its gradients to H (n, width), and of ANOVA e_1 … of each block to sums, unless these are NULL. Of
 * the `to_come` entries from idx on those some places further are prefetched; 0: none are. */
APART double FN(meet)(family_t *a, const void *indices, const void *values, ptrdiff_t n, ptrdiff_t to_come, void *sums, void *H) {
    const IDX *idx = (const IDX *)indices;
    const REAL *x = (const REAL *)values;
    if (a->kind == ANOVA) return FN(anova)(a, idx, x, n, to_come, (REAL *)sums, (REAL *)H);
    const REAL linear = FN(linear_part)(a, idx, x, n);
    if (a->kind == AWARE) return linear + FN(aware)(a, idx, x, n, to_come, (REAL *)H);
    if (a->k % W == 0) return linear + FN(weighted)(1, a, idx, x, n, to_come, (REAL *)H);
    return linear + FN(weighted)(0, a, idx, x, n, to_come, (REAL *)H);
}
#undef ROW_OF
#undef LOAD
#undef STORE

LOCAL void FN(set_meet)(family_t *a) { a->meet = FN(meet); }
