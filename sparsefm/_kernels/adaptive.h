/* Fused training: one pass that scores a sample and updates every row it read, samples one after another.
 *
 * The table holds one row a feature, so that reading and updating it are one visit to memory:
 *
 *     SGD      [ v (kp) | w | 0 … ]                 kp = n_factors rounded up to a multiple of 8
 *     AdaGrad  [ v (kp) | G_v (kp) | w | G_w | 0 … ]  G: running sum of squared gradients
 *
 * stride a multiple of 8 reals, base aligned to a cache line. Padding lanes start at zero and stay there,
 * their gradient being zero. For a sample with weight s (mean 1), loss ℓ and d = s · ∂ℓ/∂score,
 *
 *     g(w0) = d        g(w_j) = d x_j + s λ_w w_j        g(v_jf) = d x_j (S_f − z_jf) + s λ_v v_jf
 *     SGD:      θ −= η g
 *     AdaGrad:  G += g²;  θ −= η g / sqrt(ε + G)         Duchi, Hazan & Singer 2011
 *
 * S is taken before any row of the sample changes. Paying λ at every visit makes the penalty weighted by
 * the share of rows in which a feature occurs, and keeps the cost at the non-zeros touched.
 */
#ifndef SPARSEFM_ADAPTIVE
#define SPARSEFM_ADAPTIVE
#include "losses.h"

enum { OPTIMISER_SGD = 0, OPTIMISER_ADAGRAD = 1 };

typedef struct {
    const void *indptr, *indices, *data; /* IN CSR rows; data NULL: every value is one */
    ptrdiff_t n_rows;
    ptrdiff_t row_length;                /* non-zeros of every row if all have as many, else −1 */
    const void *y;                       /* IN (n_rows,) */
    const void *weight;                  /* IN (n_rows,) with mean 1, or NULL */
    const void *order;                   /* IN (n_samples,) rows in the order of the pass, of type IDX */
    ptrdiff_t n_samples;
    void *table; /* INOUT (n_features, stride) */
    ptrdiff_t n_features, stride, kp;
    void *sums;            /* scratch (kp,) aligned */
    double w0, w0_state;   /* INOUT */
    int optimiser, loss;
    double learning_rate, epsilon, l2_linear, l2_factors;
    double total; /* OUT Σ weight · loss, each sample scored before its own update */
} epoch_args;

/* The table is padded to 8 reals, so 16 lanes need an even number of those. */
static inline int epoch_isa(int isa, ptrdiff_t kp) { return isa == ISA_AVX512 && kp % 16 != 0 ? ISA_AVX2 : isa; }
#endif

#include "rows.h"

INLINE vec FN(sqrt_of)(vec v) {
#if W == 1
    return sizeof(REAL) == 4 ? (REAL)sqrtf((float)v) : (REAL)sqrt((double)v);
#else
    vec r;
    for (int i = 0; i < W; i++) r[i] = sizeof(REAL) == 4 ? (REAL)sqrtf((float)v[i]) : (REAL)sqrt((double)v[i]);
    return r;
#endif
}

INLINE void FN(step_one)(const int optimiser, REAL *theta, REAL *state, REAL g, REAL rate, REAL epsilon) {
    if (optimiser == OPTIMISER_ADAGRAD) {
        *state += g * g;
        *theta -= rate * g / (sizeof(REAL) == 4 ? (REAL)sqrtf((float)(epsilon + *state)) : (REAL)sqrt((double)(epsilon + *state)));
    } else {
        *theta -= rate * g;
    }
}

/* Updates vectors f … f + T of every row of the sample; with `linear` its weight too. */
INLINE void FN(update_tile)(const int T, const int f, const int optimiser, const int unit, const int linear,
                            const IDX *idx, const REAL *x, ptrdiff_t n, REAL *table, ptrdiff_t stride,
                            ptrdiff_t kp, const REAL *sums, REAL d, REAL l2_w, REAL l2_v, REAL rate, REAL eps) {
    vec S[TILE];
    for (int i = 0; i < T; i++) S[i] = FN(load)(sums + (f + i) * W);
    for (ptrdiff_t p = 0; p < n; p++) {
        REAL *row = table + (ptrdiff_t)idx[p] * stride;
        const REAL value = unit ? (REAL)1 : x[p], dx = unit ? d : d * value;
        for (int i = 0; i < T; i++) {
            REAL *at = row + (f + i) * W;
            const vec v = FN(load)(at);
            const vec g = (S[i] - (unit ? v : v * value)) * dx + v * l2_v;
            if (optimiser == OPTIMISER_ADAGRAD) {
                const vec G = FN(load)(at + kp) + g * g;
                FN(store)(at + kp, G);
                FN(store)(at, v - g * rate / FN(sqrt_of)(G + eps));
            } else {
                FN(store)(at, v - g * rate);
            }
        }
        if (linear) {
            REAL *w = row + (optimiser == OPTIMISER_ADAGRAD ? 2 * kp : kp);
            FN(step_one)(optimiser, w, w + 1, dx + l2_w * *w, rate, eps);
        }
    }
}

INLINE void FN(prefetch_array)(const void *p, ptrdiff_t bytes) {
    for (ptrdiff_t o = 0; o < bytes; o += 64) PREFETCH_READ((const char *)p + o);
    PREFETCH_READ((const char *)p + bytes);
}

INLINE void FN(epoch_rows)(const int nvec, const int optimiser, const int unit, epoch_args *a) {
    const IDX *indptr = (const IDX *)a->indptr, *indices = (const IDX *)a->indices;
    const IDX *order = (const IDX *)a->order;
    const REAL *data = (const REAL *)a->data, *y = (const REAL *)a->y, *weight = (const REAL *)a->weight;
    REAL *table = (REAL *)a->table, *sums = (REAL *)a->sums;
    const ptrdiff_t stride = a->stride, kp = a->kp, row_length = a->row_length, n_samples = a->n_samples;
    const ptrdiff_t row_bytes = ((optimiser == OPTIMISER_ADAGRAD ? 2 * kp + 2 : kp + 1)) * sizeof(REAL);
    const REAL rate = (REAL)a->learning_rate, eps = (REAL)a->epsilon;
    const REAL l2_w = (REAL)a->l2_linear, l2_v = (REAL)a->l2_factors;
    const int prefetch = (double)a->n_features * stride * sizeof(REAL) > PREFETCH_BYTES;
    params_t t;
    REAL w0 = (REAL)a->w0, w0_state = (REAL)a->w0_state;
    double total = 0;
    /* Samples between prefetch and use: about 48 non-zeros. The sample's own entries are fetched as much
     * earlier, and the pointer to them as much earlier again. */
    const ptrdiff_t mean = (indptr[a->n_rows] - indptr[0]) / (a->n_rows > 0 ? a->n_rows : 1) + 1;
    const ptrdiff_t ahead = 1 + 48 / mean;

    memset(&t, 0, sizeof t);
    t.v = table;
    t.w = table + (optimiser == OPTIMISER_ADAGRAD ? 2 * kp : kp);
    t.v_stride = t.w_stride = stride;
    for (ptrdiff_t i = 0; i < n_samples; i++) {
        if (row_length < 0 && i + 3 * ahead < n_samples) PREFETCH_READ(indptr + order[i + 3 * ahead]);
        if (i + 2 * ahead < n_samples) {
            const ptrdiff_t r = order[i + 2 * ahead];
            const ptrdiff_t from = row_length >= 0 ? r * row_length : indptr[r];
            const ptrdiff_t to = row_length >= 0 ? from + row_length : indptr[r + 1];
            FN(prefetch_array)(indices + from, (to - from) * sizeof(IDX));
            if (!unit) FN(prefetch_array)(data + from, (to - from) * sizeof(REAL));
            PREFETCH_READ(y + r);
            if (weight) PREFETCH_READ(weight + r);
        }
        if (prefetch && i + ahead < n_samples) {
            const ptrdiff_t r = order[i + ahead];
            const ptrdiff_t from = row_length >= 0 ? r * row_length : indptr[r];
            const ptrdiff_t to = row_length >= 0 ? from + row_length : indptr[r + 1];
            for (ptrdiff_t p = from; p < to; p++) {
                const char *row = (const char *)(table + (ptrdiff_t)indices[p] * stride);
                for (ptrdiff_t o = 0; o < row_bytes; o += 64) PREFETCH_WRITE(row + o);
                PREFETCH_WRITE(row + row_bytes - 1);
            }
        }
        const ptrdiff_t r = order[i];
        const ptrdiff_t p = row_length >= 0 ? r * row_length : indptr[r];
        const ptrdiff_t n = row_length >= 0 ? row_length : indptr[r + 1] - p;
        const IDX *idx = indices + p;
        const REAL *x = unit ? NULL : data + p;
        const REAL s = weight ? weight[r] : (REAL)1;
        if (s == 0) continue; /* as if the row were absent */
        const REAL score = w0 + FN(row_score)(nvec, 0, unit, idx, x, n, &t, 0, sums, NULL, 0);
        double gradient;
        total += (double)s * loss_of(a->loss, (double)y[r], (double)score, &gradient);
        const REAL d = s * (REAL)gradient;
        FN(step_one)(optimiser, &w0, &w0_state, d, rate, eps);
        if (nvec == 0) {
            FN(update_tile)(0, 0, optimiser, unit, 1, idx, x, n, table, stride, kp, sums, d, s * l2_w, s * l2_v, rate, eps);
        } else {
#define UPDATE(T, f)                                                                                          \
    do {                                                                                                      \
        if ((f) == 0)                                                                                         \
            FN(update_tile)(T, 0, optimiser, unit, 1, idx, x, n, table, stride, kp, sums, d, s * l2_w, s * l2_v, rate, eps); \
        else                                                                                                  \
            FN(update_tile)(T, f, optimiser, unit, 0, idx, x, n, table, stride, kp, sums, d, s * l2_w, s * l2_v, rate, eps); \
    } while (0)
            FOR_TILES(nvec, UPDATE);
#undef UPDATE
        }
    }
    a->w0 = w0;
    a->w0_state = w0_state;
    a->total = total;
}

LOCAL void FN(epoch)(epoch_args *a) {
    const int nvec = (int)(a->kp / W);
#define EPOCH(N, O, U) FN(epoch_rows)(N, O, U, a)
    if (a->optimiser == OPTIMISER_ADAGRAD) {
        if (a->data == NULL) FOR_RANK(nvec, EPOCH, OPTIMISER_ADAGRAD, 1)
        else FOR_RANK(nvec, EPOCH, OPTIMISER_ADAGRAD, 0)
    } else {
        if (a->data == NULL) FOR_RANK(nvec, EPOCH, OPTIMISER_SGD, 1)
        else FOR_RANK(nvec, EPOCH, OPTIMISER_SGD, 0)
    }
#undef EPOCH
}

#undef vec
#undef mask_t
#undef params_t
