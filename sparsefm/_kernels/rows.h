/* The equation and its gradient for ONE row, written once. A body of instances.h includes this file first.
 *
 * Order 2 (Rendle 2010). For a row with values x_j and z_jf = x_j v_jf,
 *
 *     score = w0 + Σ_j w_j x_j + Σ_f Σ_{j<l} z_jf z_lf
 *
 * The double sum is taken in its running form, one pass over the non-zeros:
 *
 *     e2 += e1 · z;   e1 += z        (e1 = Σ z so far, e2 = Σ of products of pairs so far)
 *
 * which costs O(k) a non-zero like ((Σ z)² − Σ z²) / 2 but has none of its cancellation: with one |x| of
 * 1000 the latter loses nearly all digits in float32. With S_f = Σ_j z_jf the gradient is
 *
 *     ∂score/∂w0 = 1    ∂score/∂w_j = x_j    ∂score/∂v_jf = x_j (S_f − z_jf)
 *     ∂score/∂x_j = w_j + Σ_f v_jf (S_f − z_jf)
 *
 * Layout: the factors of feature j are k contiguous reals at v + j · v_stride, its weight is
 * w[j · w_stride]; separate arrays and one interleaved table are the same code. The k factors are cut into
 * vectors of W lanes, up to TILE of them kept in registers at once. `nvec` (vectors a row), `masked` and
 * `unit` are constants at every call that matters, so that each rank gets its own loop.
 */
#ifndef SPARSEFM_ROWS
#define SPARSEFM_ROWS
#define TILE 4
#define AHEAD 128 /* non-zeros between prefetch and use in a read-only pass */

/* v with its lanes in another order. */
#if defined(__clang__)
#define ROTATED(v, ...) __builtin_shufflevector(v, v, __VA_ARGS__)
#else
#define ROTATED(v, ...) __builtin_shuffle(v, (FN(word_t)){__VA_ARGS__})
#endif

/* What `masked` says of the rows of V: whole vectors, a last vector to mask, whole vectors of bfloat16. */
enum { WHOLE = 0, MASKED = 1, HALF = 2 };

/* Runs DO(T, first vector) over nvec vectors, TILE at a time; folds to straight code for a constant nvec. */
#define FOR_TILES(nvec, DO)                                   \
    do {                                                      \
        int f_ = 0;                                           \
        for (; f_ + TILE <= (nvec); f_ += TILE) DO(TILE, f_); \
        switch ((nvec) - f_) {                                \
        case 3: DO(3, f_); break;                             \
        case 2: DO(2, f_); break;                             \
        case 1: DO(1, f_); break;                             \
        default: break;                                       \
        }                                                     \
    } while (0)

/* Calls FUNCTION(nvec, ...) with nvec a constant up to TILE in vectors of float, a variable above it and elsewhere. */
#define FOR_RANK(nvec, FUNCTION, ...)                  \
    switch (W == 1 || sizeof(REAL) == 8 ? -1 : (nvec)) { \
    case 0: FUNCTION(0, __VA_ARGS__); break;           \
    case 1: FUNCTION(1, __VA_ARGS__); break;           \
    case 2: FUNCTION(2, __VA_ARGS__); break;           \
    case 3: FUNCTION(3, __VA_ARGS__); break;           \
    case 4: FUNCTION(4, __VA_ARGS__); break;           \
    default: FUNCTION((nvec), __VA_ARGS__); break;     \
    }

/* 16 lanes only where they fill: a rank of 8 or 24 takes the 8-lane instance. */
static inline int rows_isa(int isa, ptrdiff_t k) {
    return isa == ISA_AVX512 && k % 16 != 0 && (k % 8 == 0 || k < 8) ? ISA_AVX2 : isa;
}
#endif

#define vec FN(vec)
#define mask_t FN(mask_t)
#if W == 1
typedef REAL vec;
typedef int mask_t;
#else
typedef REAL vec __attribute__((vector_size(W * sizeof(REAL))));
typedef __typeof__((vec){0} < (vec){0}) mask_t; /* integers as wide as REAL */
#endif

/* Where the parameters lie. Reading the last vector of a row whose k is not a multiple of W touches up to
 * W − 1 reals beyond it: `mask` clears them, and the few last rows of the array, where that would leave
 * the allocation, are read from `tail`, a padded copy of rows tail_from, tail_from + 1, … */
typedef struct {
    const REAL *w, *v, *tail;
    ptrdiff_t w_stride, v_stride, v_bytes;
    IDX tail_from;
    mask_t mask;
} FN(params_t);
#define params_t FN(params_t)

INLINE vec FN(load)(const REAL *p) {
    vec v;
    memcpy(&v, p, sizeof v);
    return v;
}

INLINE void FN(store)(REAL *p, vec v) { memcpy(p, &v, sizeof v); }

/* The first `left` lanes only, all of them if there are that many. */
INLINE void FN(store_first)(REAL *p, vec v, ptrdiff_t left) {
    if (W == 1 || left >= W) FN(store)(p, v);
    else memcpy(p, &v, left * sizeof(REAL));
}

INLINE vec FN(load_first)(const REAL *p, ptrdiff_t left) {
    if (W == 1 || left >= W) return FN(load)(p);
    REAL lanes[W] = {0};
    memcpy(lanes, p, left * sizeof(REAL));
    return FN(load)(lanes);
}

#if W == 1
typedef uint16_t FN(half_t);
typedef uint32_t FN(word_t);
typedef float FN(single_t);
#else
typedef uint16_t FN(half_t) __attribute__((vector_size(W * 2)));
typedef uint32_t FN(word_t) __attribute__((vector_size(W * 4)));
typedef float FN(single_t) __attribute__((vector_size(W * 4)));
#endif
#undef CONVERT
#if W == 1
#define CONVERT(v, type) ((type)(v))
#else
#define CONVERT(v, type) __builtin_convertvector(v, type)
#endif

/* W factors kept as bfloat16, the upper half of a float's bits. */
INLINE vec FN(load_half)(const uint16_t *p) {
    FN(half_t) half;
    FN(single_t) v;
    memcpy(&half, p, sizeof half);
    const FN(word_t) word = CONVERT(half, FN(word_t)) << 16;
    memcpy(&v, &word, sizeof v);
    return CONVERT(v, vec);
}

INLINE vec FN(zero)(void) {
    vec v;
    memset(&v, 0, sizeof v);
    return v;
}

INLINE vec FN(keep)(vec v, mask_t mask) {
#if W == 1
    (void)mask;
    return v;
#else
    return (vec)((mask_t)v & mask);
#endif
}

/* Sum of the lanes, halves folded onto each other: log2(W) steps in a fixed order. */
INLINE REAL FN(sum)(vec v) {
#if W == 1
    return v;
#else
#if W >= 16
    v += ROTATED(v, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7);
    v += ROTATED(v, 4, 5, 6, 7, 0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3);
    v += ROTATED(v, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1);
#elif W >= 8
    v += ROTATED(v, 4, 5, 6, 7, 0, 1, 2, 3);
    v += ROTATED(v, 2, 3, 0, 1, 2, 3, 0, 1);
#elif W >= 4
    v += ROTATED(v, 2, 3, 0, 1);
#endif
    return v[0] + v[1];
#endif
}

INLINE const REAL *FN(factors_of)(const params_t *t, const int masked, IDX j) {
    if (masked == MASKED && j >= t->tail_from) return t->tail + (j - t->tail_from) * t->v_stride;
    return t->v + (ptrdiff_t)j * t->v_stride;
}

/* Prefetches what a visit to feature j reads; k is not 0. */
INLINE void FN(fetch)(const params_t *t, IDX j) {
    const char *row = (const char *)(t->v + (ptrdiff_t)j * t->v_stride);
    for (ptrdiff_t o = 0; o < t->v_bytes; o += 64) PREFETCH_READ(row + o);
    PREFETCH_READ(row + t->v_bytes - 1);
    PREFETCH_READ(t->w + (ptrdiff_t)j * t->w_stride);
}

/* T vectors of the pair sum of one row, from vector f on; e1 goes to sums[0 … T·W), and the first `left`
 * numbers of e2 to each[0 … T·W) unless that is NULL. With `linear` the linear part is summed on the way, so
 * that an interleaved row is visited once. */
INLINE vec FN(score_tile)(const int T, const int f, const int masked, const int unit, const int linear,
                          const IDX *idx, const REAL *x, ptrdiff_t n, const params_t *t, int last_tile,
                          ptrdiff_t to_come, REAL *sums, REAL *each, ptrdiff_t left, REAL *lin) {
    vec e1[TILE], e2[TILE], pairs = FN(zero)();
    REAL l = 0;
    for (int i = 0; i < T; i++) e1[i] = e2[i] = FN(zero)();
    for (ptrdiff_t p = 0; p < n; p++) {
        const REAL *v = FN(factors_of)(t, masked, idx[p]);
        const REAL value = unit ? (REAL)1 : x[p];
        if (linear && p + AHEAD < to_come) FN(fetch)(t, idx[p + AHEAD]);
        if (linear) l += unit ? t->w[(ptrdiff_t)idx[p] * t->w_stride] : value * t->w[(ptrdiff_t)idx[p] * t->w_stride];
        for (int i = 0; i < T; i++) {
            vec z = masked == HALF ? FN(load_half)((const uint16_t *)v + (f + i) * W) : FN(load)(v + (f + i) * W);
            if (masked == MASKED && last_tile && i == T - 1) z = FN(keep)(z, t->mask);
            if (!unit) z = z * value;
            e2[i] += e1[i] * z;
            e1[i] += z;
        }
    }
    for (int i = 0; i < T; i++) {
        if (sums) FN(store)(sums + i * W, e1[i]);
        if (each) FN(store_first)(each + i * W, e2[i], left - i * W);
        pairs += e2[i];
    }
    if (linear) *lin = l;
    return pairs;
}

/* Linear part plus pairs of one row, without w0; S goes to sums[0 … nvec·W) and the pairs of each factor to
 * each[0 … k), unless these are NULL. Of the `to_come` non-zeros from idx on, those AHEAD places further are
 * prefetched; 0: none are. */
INLINE REAL FN(row_score)(const int nvec, const int masked, const int unit, const IDX *idx, const REAL *x,
                          ptrdiff_t n, const params_t *t, ptrdiff_t to_come, REAL *sums, REAL *each,
                          ptrdiff_t k) {
    REAL lin = 0;
    vec pairs = FN(zero)();
    if (nvec == 0) {
        for (ptrdiff_t p = 0; p < n; p++)
            lin += (unit ? (REAL)1 : x[p]) * t->w[(ptrdiff_t)idx[p] * t->w_stride];
        return lin;
    }
#define TILE_AT(T, f, linear)                                                                            \
    FN(score_tile)(T, f, masked, unit, linear, idx, x, n, t, (f) + (T) == nvec, to_come,                 \
                   sums ? sums + (f) * W : NULL, each ? each + (f) * W : NULL, k - (f) * W, &lin)
#define SCORE_TILE(T, f)                          \
    do {                                          \
        if ((f) == 0) pairs += TILE_AT(T, 0, 1);  \
        else pairs += TILE_AT(T, f, 0);           \
    } while (0)
    FOR_TILES(nvec, SCORE_TILE);
#undef SCORE_TILE
#undef TILE_AT
    return lin + FN(sum)(pairs);
}
