/* One step of an optimiser on the row of one feature, written once; a body of instances.h includes this after
 * rows.h. The row of a training table, kp = n_factors rounded up to a multiple of 8:
 *
 *     SGD       [ v (kp) |           w λ_w λ_v ]
 *     ADAGRAD   [ v (kp) | G (kp)  | w λ_w λ_v G_w ]                 Duchi, Hazan & Singer 2011
 *     ROWWISE   [ v (kp) |           w λ_w λ_v G_w G_v ]             one G_v, of the mean of the squares
 *     ADAM      [ v (kp) | m | s   | w λ_w λ_v c1 c2 m_w s_w ]       Kingma & Ba 2015, lazily: a row is as old as
 *                                                                    its own visits, c1 = β1^age, c2 = β2^age
 *     FTRL      [ v (kp) | G (kp)  | w λ_w λ_v z r ]                 McMahan et al. 2013 for w, AdaGrad for v
 *     COMPACT   [ v (kp bfloat16)  | w λ_w λ_v G_w G_v ]             ROWWISE with stochastic rounding
 *
 * padded with zeros to a multiple of 8 reals (COMPACT: of 64 bytes). λ are the feature's own strengths of L2.
 * Padding lanes of v and its state start at zero and stay there, their gradient being zero. With g the gradient,
 * L2 included,
 *
 *     SGD       θ −= η g
 *     ADAGRAD   G += g²;  θ −= η g / √(ε + G)
 *     ADAM      m += (1 − β1) (g − m);  s += (1 − β2) (g² − s);  θ −= η m̂ / √(ε + ŝ),  m̂ = m / (1 − c1),  ŝ = s / (1 − c2)
 *     FTRL      z += g − (√(r² + g²) − r) w / η;  r = √(r² + g²), from √ε on
 *               w = 0 where |z| ≤ l1, else −η (z − sign(z) l1) / r
 *
 * The bias is one such tail, with steps of its own.
 */
#ifndef SPARSEFM_STEPS
#define SPARSEFM_STEPS

enum { SGD, ADAGRAD, ROWWISE, ADAM, FTRL, COMPACT };
enum { W_AT, L2_W_AT, L2_V_AT, STATE_AT }; /* in the tail of a row */

/* The table is padded to 8 reals, so 16 lanes need an even number of those. */
static inline int table_isa(int isa, ptrdiff_t kp) { return isa == ISA_AVX512 && kp % 16 != 0 ? ISA_AVX2 : isa; }

/* Reals in front of the tail. */
static inline ptrdiff_t tail_at(int optimiser, ptrdiff_t kp) {
    switch (optimiser) {
    case ADAGRAD: case FTRL: return 2 * kp;
    case ADAM: return 3 * kp;
    case COMPACT: return kp / 2;
    default: return kp;
    }
}

typedef struct {
    int optimiser;
    double rate, epsilon, beta1, beta2, l1, inverse_k; /* inverse_k: 1 / n_factors */
} step_args;

static inline uint32_t mixed32(uint32_t z) { /* a bijection whose output bits look independent */
    z = (z ^ (z >> 16)) * 0x7feb352dU;
    z = (z ^ (z >> 15)) * 0x846ca68bU;
    return z ^ (z >> 16);
}

/* Calls FUNCTION(nvec, known, ...), nvec a known constant for the ranks that matter, a variable for the others: ranks of 8 to
 * 64 in float with 32-bit indices. */
#define FOR_FEW_RANKS(nvec, FUNCTION, ...)                                                       \
    switch (W == 1 || sizeof(REAL) == 8 || sizeof(IDX) == 8 || (W == 4 && (nvec) == 1) ? -1 : (nvec)) { \
    case 1: FUNCTION(1, 1, __VA_ARGS__); break;                                                     \
    case 2: FUNCTION(2, 1, __VA_ARGS__); break;                                                     \
    case 4: FUNCTION(4, 1, __VA_ARGS__); break;                                                     \
    default: FUNCTION((nvec), 0, __VA_ARGS__); break;                                            \
    }

/* Calls CALL(O) with O a constant. bfloat16 exists for float alone. */
#define FOR_OPTIMISER(optimiser, CALL)                                          \
    switch (optimiser) {                                                        \
    case ADAGRAD: CALL(ADAGRAD); break;                                         \
    case ROWWISE: CALL(ROWWISE); break;                                         \
    case ADAM: CALL(ADAM); break;                                               \
    case FTRL: CALL(FTRL); break;                                               \
    case COMPACT: if (sizeof(REAL) == 4) { CALL(COMPACT); } break;              \
    default: CALL(SGD); break;                                                  \
    }
#endif

typedef struct {
    REAL rate, epsilon, beta1, beta2, l1, inverse_k, inverse_rate;
    uint32_t key; /* of the stochastic rounding; whoever steps advances it */
} FN(step_t);
#define step_t FN(step_t)

INLINE step_t FN(step_of)(const step_args *a) {
    const step_t c = {(REAL)a->rate, (REAL)a->epsilon, (REAL)a->beta1, (REAL)a->beta2, (REAL)a->l1, (REAL)a->inverse_k, (REAL)(1 / a->rate), 0};
    return c;
}

INLINE REAL FN(root)(REAL x) { return sizeof(REAL) == 4 ? (REAL)sqrtf((float)x) : (REAL)sqrt((double)x); }

/* 1 / √x of every lane. In float by two Newton steps from a first guess on the bits, relative error 5e-6: only the
 * length of a step depends on it, it takes a third of the time of root and division, and it is the same on every
 * make of machine, which the processors' own estimates are not. */
INLINE vec FN(inverse_root)(vec x) {
#if W == 1
    return 1 / FN(root)(x);
#else
    vec r;
    if (sizeof(REAL) == 8) {
        for (int i = 0; i < W; i++) r[i] = 1 / FN(root)(x[i]);
        return r;
    }
    FN(word_t) bits;
    memcpy(&bits, &x, sizeof bits);
    bits = 0x5f375a86U - (bits >> 1);
    memcpy(&r, &bits, sizeof bits);
    const vec half = x * (REAL)0.5;
    r = r * ((REAL)1.5 - half * (r * r));
    return r * ((REAL)1.5 - half * (r * r));
#endif
}

/* The same of one number, by that many Newton steps: 2 have a relative error of 5e-6, 3 are right to rounding. */
INLINE REAL FN(inverse_root_of)(REAL x, const int turns) {
    if (W == 1 || sizeof(REAL) == 8) return 1 / FN(root)(x);
    uint32_t bits;
    float r, single = (float)x;
    memcpy(&bits, &single, sizeof bits);
    bits = 0x5f375a86U - (bits >> 1);
    memcpy(&r, &bits, sizeof r);
    for (int turn = 0; turn < turns; turn++) r = r * (1.5f - 0.5f * single * (r * r));
    return (REAL)r;
}

/* bfloat16 by stochastic rounding: the bits that go are compared with random ones, so the mean is kept and steps
 * smaller than a bfloat16 can tell are not lost (Gupta et al. 2015). */
INLINE void FN(store_half)(uint16_t *p, vec v, uint32_t key) {
    FN(single_t) single = CONVERT(v, FN(single_t));
    FN(word_t) word, noise;
#if W == 1
    noise = key;
#else
    for (int i = 0; i < W; i++) noise[i] = (uint32_t)i * 0x85ebca6bU;
    noise += key;
#endif
    noise = (noise ^ (noise >> 16)) * 0x7feb352dU;
    noise = (noise ^ (noise >> 15)) * 0x846ca68bU;
    noise >>= 16;
    memcpy(&word, &single, sizeof word);
    word = (word + noise) >> 16;
    const FN(half_t) half = CONVERT(word, FN(half_t));
    memcpy(p, &half, sizeof half);
}

/* What the steps of one row share, found before any of them. */
typedef struct {
    REAL scale, second;
} FN(visit_t);
#define visit_t FN(visit_t)

/* squares: Σ g² over the factors, read by ROWWISE and COMPACT only. */
INLINE visit_t FN(begin_row)(const int optimiser, REAL *tail, REAL squares, const step_t *c) {
    visit_t visit = {c->rate, 0};
    if (optimiser == ROWWISE || optimiser == COMPACT) {
        REAL *G = tail + STATE_AT + 1;
        *G += squares * c->inverse_k;
        visit.scale = c->rate * FN(inverse_root_of)(c->epsilon + *G, 2);
    } else if (optimiser == ADAM) {
        REAL *age = tail + STATE_AT;
        age[0] *= c->beta1;
        age[1] *= c->beta2;
        const REAL first = 1 - age[0], second = 1 - age[1], both = 1 / (first * second);
        visit.scale = c->rate * second * both;
        visit.second = first * both;
    }
    return visit;
}

INLINE void FN(step_linear)(const int optimiser, REAL *tail, REAL g, const visit_t *visit, const step_t *c) {
    REAL *w = tail + W_AT, *state = tail + STATE_AT;
    if (optimiser == SGD) {
        *w -= c->rate * g;
    } else if (optimiser == ADAM) {
        REAL *m = state + 2, *s = state + 3;
        *m += (1 - c->beta1) * (g - *m);
        *s += (1 - c->beta2) * (g * g - *s);
        *w -= visit->scale * *m * FN(inverse_root_of)(c->epsilon + *s * visit->second, 2);
    } else if (optimiser == FTRL) {
        REAL *z = state, *root = state + 1;
        const REAL before = *root, square = before * before + g * g, inverse = FN(inverse_root_of)(square, 3);
        const REAL after = square * inverse;
        *z += g - (after - before) * c->inverse_rate * *w;
        *root = after;
        const REAL least = *z > -c->l1 ? *z : -c->l1, near = least < c->l1 ? least : c->l1; /* z within −l1 … l1 */
        *w = c->rate * (near - *z) * inverse;
    } else {
        *state += g * g;
        *w -= c->rate * g * FN(inverse_root_of)(c->epsilon + *state, 2);
    }
}

/* Vectors f … f + T of the factors of a row, v their values and g their gradients. */
INLINE void FN(step_tile)(const int T, const int optimiser, REAL *row, int f, ptrdiff_t kp, const vec *v,
                          const vec *g, const visit_t *visit, const step_t *c) {
    for (int i = 0; i < T; i++) {
        REAL *at = row + (f + i) * W;
        if (optimiser == ADAGRAD || optimiser == FTRL) {
            const vec G = FN(load)(at + kp) + g[i] * g[i];
            FN(store)(at + kp, G);
            FN(store)(at, v[i] - g[i] * c->rate * FN(inverse_root)(G + c->epsilon));
        } else if (optimiser == ADAM) {
            vec m = FN(load)(at + kp), s = FN(load)(at + 2 * kp);
            m += (g[i] - m) * (1 - c->beta1);
            s += (g[i] * g[i] - s) * (1 - c->beta2);
            FN(store)(at + kp, m);
            FN(store)(at + 2 * kp, s);
            FN(store)(at, v[i] - m * visit->scale * FN(inverse_root)(s * visit->second + c->epsilon));
        } else if (optimiser == COMPACT) {
            const uint32_t key = c->key + (uint32_t)(f + i) * 0xc2b2ae35U;
            FN(store_half)((uint16_t *)row + (f + i) * W, v[i] - g[i] * visit->scale, key);
        } else {
            FN(store)(at, v[i] - g[i] * visit->scale);
        }
    }
}

INLINE vec FN(factor_at)(const int optimiser, const REAL *row, int f) {
    return optimiser == COMPACT ? FN(load_half)((const uint16_t *)row + f * W) : FN(load)(row + f * W);
}

/* Where the rows of a table hold what the score reads. */
INLINE params_t FN(table_params)(const int optimiser, const REAL *table, ptrdiff_t stride, ptrdiff_t kp) {
    params_t t;
    memset(&t, 0, sizeof t);
    t.v = table;
    t.w = table + tail_at(optimiser, kp);
    t.v_stride = t.w_stride = stride;
    t.v_bytes = (ptrdiff_t)((optimiser == COMPACT ? kp / 2 : kp) * sizeof(REAL));
    return t;
}
