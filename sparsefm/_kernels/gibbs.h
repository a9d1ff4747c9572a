/* Exact conditionals of a second-order machine: of (v_j, w_j) of one column given everything else, for coordinate
 * descent (the mode) and Gibbs sampling (a draw).
 *
 * With q_i = Σ_{l≠j} v_l x_il a score is linear in (v_j, w_j): score_i = rest_i + x_ij (w_j + ⟨v_j, q_i⟩). So all that
 * the data say of column j is the Gram matrix, over its rows, of
 *
 *     h_i = (x q_i, x, r_i) √s_i          k + 2 numbers, r_i the residual, s_i the row's weight
 *
 * and the conditional is normal with precision Λ + α Σ s x² (q, 1)(q, 1)ᵀ. Columns of one field, at most one of which a
 * row has, do not meet in any row: they are drawn side by side, exactly.
 *
 * Where the columns are those of an entity (a user with all that is said of him), the rows of an entity enter through
 * one Gram matrix of (q, 1, r), q now of everything but the entity: a row costs the same however much is said of its
 * user, and the columns of the entity are then drawn from these matrices alone (Rendle 2013, Scaling Factorization
 * Machines to Relational Data, whose blocks these are).
 *
 * A Gram matrix is kept as its lower triangle in blocks of 16: row f has the columns up to the end of its block, from
 * gram_row(f) on. Sums run over 256 rows in REAL and then in double; rows are cut into segments by their number alone.
 *
 * A vector of a column, an entity or a row has `width` numbers: k factors, then the weight, zero lanes behind them.
 * Where it is one of a table of entities that rows look up, the weight's place holds bias − ½‖vector‖², so that with S
 * the sum over a row's entities its score is w0 + Σ places + ½‖S‖²; and the next one the bias alone.
 */
#include "rows.h"
#ifndef SPARSEFM_GIBBS
#define SPARSEFM_GIBBS
#include "random.h"
#define PANEL 32   /* rows whose products are added at a time */
#define FLUSH 8    /* panels between additions to the sums in double */
#define MOST_PARTNERS 8
#define PARTNERS_AHEAD 16

static inline ptrdiff_t gram_row(ptrdiff_t f) {
    const ptrdiff_t v = f >> 4;
    return 128 * v * (v + 1) + 16 * (v + 1) * (f & 15);
}

typedef struct {
    ptrdiff_t k, width, n_partners;
    const int32_t *entities[MOST_PARTNERS]; /* (n_rows,) of each partner */
    const void *tables[MOST_PARTNERS];      /* (n_entities, width) of each */
    double w0;
    const void *target, *weight; /* (n_rows,) in the order of the rows; weight: NULL if all one */
    const int32_t *starts;       /* (n_segments + 1,) */
    void *grams;                 /* (n_segments, size) */
    void *residual;              /* (n_rows,) or NULL */
    void *total;                 /* (n_rows, width): the sum over the partners, or NULL */
    double *sums;                /* (n_segments, 2): Σ s r and Σ s r² */
    double *scratch;             /* (size,) and PANEL rows of `width`, twice */
} gather_args;

typedef struct {
    ptrdiff_t k, width;
    const int32_t *starts, *columns; /* (n_segments + 1,) entries of a segment; (n_segments,) whose column it is */
    const int32_t *rows;             /* (n_entries,) rows, or entities */
    const void *data;                /* (n_entries,) or NULL */
    const void *weight;              /* (n_rows,) or NULL */
    void *total, *residual;          /* (n_rows, width) and (n_rows,): of rows */
    void *own, *of_entities;         /* (n_entities, width), (n_entities, size): of entities */
    const void *old, *step;          /* (n_columns, width): what the columns are, and by how much they move */
    void *grams;                     /* (n_segments, size) */
    double *scratch;
} column_args;

typedef struct {
    ptrdiff_t k, width;
    const int32_t *segments; /* (n_columns + 1,) */
    const void *grams;       /* (n_segments, size) */
    int apart;               /* the residuals leave the columns' own part out */
    const void *values;      /* (n_columns,) x of each column, or NULL */
    const int64_t *features; /* (n_columns,) */
    const int32_t *group;    /* (n_columns,) */
    const double *mean, *precision; /* (n_groups, k + 1) of the prior */
    const double *strength;  /* (n_columns,) that the precision is multiplied by, or NULL */
    double alpha;
    int noise;
    uint64_t key;
    const void *old;         /* (n_columns, width) */
    void *step;
    double *gain;            /* (n_columns,) gᵀ P⁻¹ g, twice what the log density gains by going to the mode */
    double *left;            /* (n_columns, 2): Σ s r and Σ s r² after the step, or NULL; only where apart */
    double *scratch;         /* (size,) and (k + 4) rows of k + 1, up to a multiple of 8 */
} draw_args;

#define FOR_ROWS_OF_TILE(n, FUNCTION, ...)              \
    switch (n) {                                        \
    case 8: FUNCTION(8, __VA_ARGS__); break;            \
    case 7: FUNCTION(7, __VA_ARGS__); break;            \
    case 6: FUNCTION(6, __VA_ARGS__); break;            \
    case 5: FUNCTION(5, __VA_ARGS__); break;            \
    case 4: FUNCTION(4, __VA_ARGS__); break;            \
    case 3: FUNCTION(3, __VA_ARGS__); break;            \
    case 2: FUNCTION(2, __VA_ARGS__); break;            \
    default: FUNCTION(1, __VA_ARGS__); break;           \
    }
#endif

/* Adds the products of F ≤ 16 numbers from place f on with W from c on, over the rows of a panel. */
INLINE void FN(gram_tile)(const int F, REAL *gram, const REAL *panel, ptrdiff_t width, int n, ptrdiff_t f, ptrdiff_t c) {
    vec g[16];
    for (int i = 0; i < F; i++) g[i] = FN(load)(gram + gram_row(f + i) + c);
    for (int r = 0; r < n; r++) {
        const REAL *row = panel + r * width;
        const vec h = FN(load)(row + c);
        for (int i = 0; i < F; i++) g[i] += h * row[f + i];
    }
    for (int i = 0; i < F; i++) FN(store)(gram + gram_row(f + i) + c, g[i]);
}

LOCAL void FN(gram_panel)(REAL *gram, const REAL *panel, ptrdiff_t width, int n, ptrdiff_t d) {
    ptrdiff_t f = 0;
    while (f < d) {
        const ptrdiff_t columns = ((f >> 4) + 1) * 16, left = (columns < d ? columns : d) - f;
        ptrdiff_t tile = left < 8 ? left : 8;
        if (W >= 16 && left >= 9 && left <= 12) tile = left; /* as many sums at once as hide the latency of one */
        for (ptrdiff_t c = 0; c < columns; c += W) {
            switch (W >= 16 ? tile : 0) {
            case 9: FN(gram_tile)(9, gram, panel, width, n, f, c); continue;
            case 10: FN(gram_tile)(10, gram, panel, width, n, f, c); continue;
            case 11: FN(gram_tile)(11, gram, panel, width, n, f, c); continue;
            case 12: FN(gram_tile)(12, gram, panel, width, n, f, c); continue;
            default: break;
            }
            FOR_ROWS_OF_TILE(tile, FN(gram_tile), gram, panel, width, n, f, c);
        }
        f += tile;
    }
}

/* A sum that is going on: panels into `gram`, that now and then into `total`. */
typedef struct {
    REAL *gram, *panel;
    double *total;
    ptrdiff_t width, d, size;
    int filled, panels;
} FN(sum_t);
#define sum_t FN(sum_t)

INLINE sum_t FN(sum_begin)(double *scratch, ptrdiff_t width, ptrdiff_t d) {
    const ptrdiff_t size = gram_row(d - 1) + (((d - 1) >> 4) + 1) * 16;
    sum_t s = {(REAL *)(scratch + size), NULL, scratch, width, d, size, 0, 0};
    s.panel = s.gram + size;
    memset(s.total, 0, size * sizeof(double));
    memset(s.gram, 0, size * sizeof(REAL));
    memset(s.panel, 0, PANEL * width * sizeof(REAL));
    return s;
}

LOCAL void FN(sum_flush)(sum_t *s) {
    for (ptrdiff_t i = 0; i < s->size; i++) s->total[i] += s->gram[i];
    memset(s->gram, 0, s->size * sizeof(REAL));
    s->panels = 0;
}

INLINE void FN(sum_row)(sum_t *s) { /* the row s->panel + s->filled · width is complete */
    if (++s->filled < PANEL) return;
    FN(gram_panel)(s->gram, s->panel, s->width, PANEL, s->d);
    s->filled = 0;
    if (++s->panels == FLUSH) FN(sum_flush)(s);
}

LOCAL void FN(sum_end)(sum_t *s, REAL *out) {
    FN(gram_panel)(s->gram, s->panel, s->width, s->filled, s->d);
    FN(sum_flush)(s);
    for (ptrdiff_t i = 0; i < s->size; i++) out[i] = (REAL)s->total[i];
    memset(s->total, 0, s->size * sizeof(double));
    s->filled = 0;
}

/* Sum S of a row's partners into out, and its score less w0. A vector is `nvec` vectors of W, of which those from
 * `whole` on have places that are no factors'. */
INLINE REAL FN(row_of)(const int nvec, const gather_args *a, ptrdiff_t row, mask_t mask, REAL *out) {
    const ptrdiff_t width = nvec * W, whole = a->k / W;
    const REAL *rows[MOST_PARTNERS];
    vec squares = FN(zero)();
    REAL places = 0;
    for (ptrdiff_t p = 0; p < a->n_partners; p++) {
        rows[p] = (const REAL *)a->tables[p] + a->entities[p][row] * width;
        places += rows[p][a->k];
    }
    for (ptrdiff_t v = 0; v < nvec; v++) {
        vec sum = FN(zero)();
        for (ptrdiff_t p = 0; p < a->n_partners; p++) sum += FN(load)(rows[p] + v * W);
        if (v == whole) sum = W == 1 ? FN(zero)() : FN(keep)(sum, mask);
        else if (v > whole) sum = FN(zero)();
        squares += sum * sum;
        FN(store)(out + v * W, sum);
    }
    return places + (REAL)0.5 * FN(sum)(squares);
}

INLINE mask_t FN(mask_of)(ptrdiff_t k) {
    mask_t mask;
    memset(&mask, 0, sizeof mask);
#if W > 1
    for (ptrdiff_t i = 0; i < k % W; i++) mask[i] = -1;
#else
    (void)k;
#endif
    return mask;
}

INLINE void FN(fetch_partners)(const gather_args *a, ptrdiff_t row) {
    for (ptrdiff_t p = 0; p < a->n_partners; p++)
        PREFETCH_READ((const REAL *)a->tables[p] + a->entities[p][row] * a->width);
}

/* The Gram matrices of segments start … stop, each of the rows of one entity. */
INLINE void FN(gather_in)(const int nvec, const gather_args *a, ptrdiff_t start, ptrdiff_t stop) {
    const REAL *target = a->target, *weight = a->weight;
    const ptrdiff_t k = a->k, width = nvec * W, end = a->starts[stop];
    const mask_t mask = FN(mask_of)(k);
    const REAL w0 = (REAL)a->w0;
    sum_t s = FN(sum_begin)(a->scratch, width, k + 2);
    for (ptrdiff_t g = start; g < stop; g++) {
        for (ptrdiff_t row = a->starts[g]; row < a->starts[g + 1]; row++) {
            REAL *h = s.panel + s.filled * width;
            REAL r = target[row] - w0;
            if (row + PARTNERS_AHEAD < end) FN(fetch_partners)(a, row + PARTNERS_AHEAD);
            if (a->n_partners == 1) { /* whose score is written in its table */
                const REAL *only = (const REAL *)a->tables[0] + a->entities[0][row] * width;
                for (int v = 0; v < nvec; v++) FN(store)(h + v * W, FN(load)(only + v * W));
                r -= only[k + 1];
            } else {
                r -= FN(row_of)(nvec, a, row, mask, h);
            }
            if (weight) {
                const REAL root = (REAL)sqrt(weight[row]);
                for (ptrdiff_t l = 0; l < k; l++) h[l] *= root;
                h[k] = root;
                h[k + 1] = root * r;
            } else {
                h[k] = 1;
                h[k + 1] = r;
            }
            FN(sum_row)(&s);
        }
        FN(sum_end)(&s, (REAL *)a->grams + g * s.size);
    }
}

LOCAL void FN(gather)(const gather_args *a, ptrdiff_t start, ptrdiff_t stop) {
    if (a->width == 16) FN(gather_in)(16 / W, a, start, stop);
    else FN(gather_in)((int)(a->width / W), a, start, stop);
}

/* Residuals of the rows of segments start … stop, their sums, and if wanted the sums of their partners. */
INLINE void FN(residuals_in)(const int nvec, const gather_args *a, ptrdiff_t start, ptrdiff_t stop) {
    const REAL *target = a->target, *weight = a->weight;
    const mask_t mask = FN(mask_of)(a->k);
    REAL *residual = a->residual;
    for (ptrdiff_t g = start; g < stop; g++) {
        double first = 0, second = 0;
        for (ptrdiff_t row = a->starts[g]; row < a->starts[g + 1]; row++) {
            REAL *out = a->total ? (REAL *)a->total + row * a->width : (REAL *)a->scratch;
            if (row + PARTNERS_AHEAD < a->starts[stop]) FN(fetch_partners)(a, row + PARTNERS_AHEAD);
            const REAL r = target[row] - (REAL)a->w0 - FN(row_of)(nvec, a, row, mask, out);
            const double s = weight ? weight[row] : 1;
            first += s * r;
            second += s * r * r;
            residual[row] = r;
        }
        a->sums[2 * g] = first;
        a->sums[2 * g + 1] = second;
    }
}

LOCAL void FN(residuals)(const gather_args *a, ptrdiff_t start, ptrdiff_t stop) {
    if (a->width == 16) FN(residuals_in)(16 / W, a, start, stop);
    else FN(residuals_in)((int)(a->width / W), a, start, stop);
}

/* The Gram matrix of segment g of a column over the rows themselves. */
LOCAL void FN(column_of_rows)(const column_args *a, ptrdiff_t g, REAL *out) {
    const REAL *data = a->data, *weight = a->weight, *residual = a->residual;
    const REAL *v = (const REAL *)a->old + a->columns[g] * a->width;
    const ptrdiff_t end = a->starts[g + 1];
    sum_t s = FN(sum_begin)(a->scratch, a->width, a->k + 2);
    for (ptrdiff_t p = a->starts[g]; p < end; p++) {
        const ptrdiff_t row = a->rows[p];
        const REAL *q = (const REAL *)a->total + row * a->width;
        REAL *h = s.panel + s.filled * a->width;
        const REAL x = data ? data[p] : 1, root = weight ? (REAL)sqrt(weight[row]) : 1, scale = x * root;
        if (p + PARTNERS_AHEAD < end) {
            PREFETCH_READ((const REAL *)a->total + a->rows[p + PARTNERS_AHEAD] * a->width);
            PREFETCH_READ(residual + a->rows[p + PARTNERS_AHEAD]);
        }
        for (ptrdiff_t l = 0; l < a->k; l++) h[l] = scale * (q[l] - x * v[l]);
        h[a->k] = scale;
        h[a->k + 1] = root * residual[row];
        FN(sum_row)(&s);
    }
    FN(sum_end)(&s, out);
}

/* Moves the column of segment g: the totals and residuals of its rows follow. */
LOCAL void FN(move_rows)(const column_args *a, ptrdiff_t g) {
    const REAL *data = a->data;
    REAL *residual = a->residual;
    const ptrdiff_t k = a->k;
    const REAL *v = (const REAL *)a->old + a->columns[g] * a->width;
    const REAL *step = (const REAL *)a->step + a->columns[g] * a->width;
    for (ptrdiff_t p = a->starts[g]; p < a->starts[g + 1]; p++) {
        const ptrdiff_t row = a->rows[p];
        const REAL x = data ? data[p] : 1;
        REAL *q = (REAL *)a->total + row * a->width;
        REAL moved = step[k];
        for (ptrdiff_t l = 0; l < k; l++) {
            moved += step[l] * (q[l] - x * v[l]);
            q[l] += x * step[l];
        }
        residual[row] -= x * moved;
    }
}

/* The Gram matrix of segment g of a column over entities, each of which brings its own. With u the vector of the rest of
 * an entity, and zeros behind it, q + u takes the place of q: row f becomes C_f + m_f u + u_f (m + n u). */
LOCAL void FN(column_of_entities)(const column_args *a, ptrdiff_t g, REAL *out) {
    const ptrdiff_t k = a->k, width = a->width;
    const REAL *data = a->data, *v = (const REAL *)a->old + a->columns[g] * width;
    sum_t s = FN(sum_begin)(a->scratch, width, k + 2);
    REAL *u = s.panel, *shifted = s.panel + width;
    for (ptrdiff_t p = a->starts[g]; p < a->starts[g + 1]; p++) {
        const ptrdiff_t b = a->rows[p];
        const REAL x = data ? data[p] : 1, square = x * x;
        const REAL *own = (const REAL *)a->own + b * width, *gram = (const REAL *)a->of_entities + b * s.size;
        const REAL *mean = gram + gram_row(k), *slope = gram + gram_row(k + 1);
        const REAL count = mean[k], first = slope[k];
        const ptrdiff_t last = (k >> 4) * 16 + 16; /* columns of the row of means */
        for (ptrdiff_t l = 0; l < k; l++) u[l] = own[l] - x * v[l];
        for (ptrdiff_t l = 0; l < last; l += W) {
            const vec m = FN(load)(mean + l) + FN(load)(u + l) * count;
            FN(store)(shifted + l, m);
            FN(store)(s.gram + gram_row(k) + l, FN(load)(s.gram + gram_row(k) + l) + m * square);
            FN(store)(s.gram + gram_row(k + 1) + l,
                      FN(load)(s.gram + gram_row(k + 1) + l) + (FN(load)(slope + l) + FN(load)(u + l) * first) * x);
        }
        const REAL *row = gram;
        REAL *into = s.gram;
        for (ptrdiff_t f = 0; f < k; f++) {
            const REAL by_u = square * mean[f], by_mean = square * u[f];
            const ptrdiff_t columns = (f >> 4) * 16 + 16;
            for (ptrdiff_t l = 0; l < columns; l += W)
                FN(store)(into + l, FN(load)(into + l) + (FN(load)(row + l) * square + FN(load)(u + l) * by_u +
                                                          FN(load)(shifted + l) * by_mean));
            row += columns;
            into += columns;
        }
        if (++s.panels == PANEL * FLUSH) FN(sum_flush)(&s);
    }
    FN(sum_flush)(&s);
    for (ptrdiff_t i = 0; i < s.size; i++) out[i] = (REAL)s.total[i];
}

/* Moves the column of segment g: the vectors of its entities follow, and what is left of the residuals in their Gram
 * matrices. */
LOCAL void FN(move_entities)(const column_args *a, ptrdiff_t g) {
    const ptrdiff_t k = a->k, width = a->width, size = gram_row(k + 1) + (((k + 1) >> 4) + 1) * 16;
    const REAL *data = a->data, *v = (const REAL *)a->old + a->columns[g] * width;
    const REAL *step = (const REAL *)a->step + a->columns[g] * width;
    REAL *delta = (REAL *)a->scratch, *y = delta + width;
    memset(delta, 0, width * sizeof(REAL));
    for (ptrdiff_t p = a->starts[g]; p < a->starts[g + 1]; p++) {
        const ptrdiff_t b = a->rows[p];
        const REAL x = data ? data[p] : 1;
        REAL *own = (REAL *)a->own + b * width, *gram = (REAL *)a->of_entities + b * size;
        REAL bias = step[k];
        for (ptrdiff_t l = 0; l < k; l++) {
            bias += step[l] * (own[l] - x * v[l]);
            delta[l] = x * step[l];
        }
        delta[k] = x * bias;
        /* y = G δ: of the blocks of 16 right of a row's last one, the rows below tell */
        for (ptrdiff_t l = 0; l <= k; l += W) {
            ptrdiff_t f = l / 16 * 16;
            const REAL *row = gram + gram_row(f) + l;
            vec even = FN(zero)(), odd = FN(zero)();
            for (; f < k; f += 2) {
                const ptrdiff_t columns = (f >> 4) * 16 + 16;
                even += FN(load)(row) * delta[f];
                odd += FN(load)(row + columns) * delta[f + 1];
                row += 2 * columns;
            }
            if (f == k) even += FN(load)(row) * delta[k];
            FN(store)(y + l, even + odd);
        }
        for (ptrdiff_t f = 16; f <= k; f++) {
            const REAL *row = gram + gram_row(f);
            vec along = FN(zero)();
            for (ptrdiff_t l = 0; l < (f >> 4) * 16; l += W) along += FN(load)(row + l) * FN(load)(delta + l);
            y[f] += FN(sum)(along);
        }
        REAL *slope = gram + gram_row(k + 1);
        double squares = slope[k + 1];
        for (ptrdiff_t l = 0; l <= k; l++) squares += (double)delta[l] * (y[l] - 2 * slope[l]);
        for (ptrdiff_t l = 0; l <= k; l++) {
            slope[l] -= y[l];
            own[l] += delta[l];
        }
        slope[k + 1] = (REAL)squares;
    }
}

/* The step of column j to the mode of its conditional, or to a draw from it; its Gram matrix is the sum of `count`. */
LOCAL void FN(draw_column)(const draw_args *a, ptrdiff_t j, const REAL *gram, ptrdiff_t count) {
    const ptrdiff_t k = a->k, n = k + 1, width = a->width, size = gram_row(k + 1) + (((k + 1) >> 4) + 1) * 16;
    const ptrdiff_t row_length = (n + 7) / 8 * 8;
    double *sum = a->scratch, *U = sum + size, *y = U + n * row_length, *old = y + row_length, *whole = old + row_length;
    const REAL *values = a->values;
    const REAL *now = (const REAL *)a->old + j * width;
    REAL *step = (REAL *)a->step + j * width;
    const double x = values ? values[j] : 1, strength = a->strength ? a->strength[j] : 1;
    const double *mean = a->mean + a->group[j] * n, *precision = a->precision + a->group[j] * n;
    for (ptrdiff_t i = 0; i < size; i++) sum[i] = gram[i];
    for (ptrdiff_t t = 1; t < count; t++)
        for (ptrdiff_t i = 0; i < size; i++) sum[i] += gram[t * size + i];
    const double *slope = sum + gram_row(k + 1), each = a->alpha * x * x;
    /* The precision's upper triangle into U, row by row; the gradient into y. */
    for (ptrdiff_t f = 0; f < n; f++) {
        double *into = U + f * row_length;
        for (ptrdiff_t l = f; l < n; l++) into[l] = each * sum[gram_row(l) + f];
        for (ptrdiff_t l = n; l < row_length; l++) into[l] = 0;
        old[f] = now[f];
        y[f] = a->alpha * x * slope[f] + strength * precision[f] * (mean[f] - old[f]);
    }
    for (ptrdiff_t l = n; l < row_length; l++) y[l] = old[l] = 0;
    if (a->apart) {
        for (ptrdiff_t f = 0; f < n; f++) { /* y −= U old, U symmetric */
            const double *row = U + f * row_length;
            const double value = old[f];
            double along = row[f] * value;
            for (ptrdiff_t l = f + 1; l < n; l++) {
                along += row[l] * old[l];
                y[l] -= row[l] * value;
            }
            y[f] -= along;
        }
    }
    for (ptrdiff_t f = 0; f < n; f++) {
        U[f * row_length + f] += strength * precision[f];
        whole[f] = U[f * row_length + f];
    }
    /* Cholesky, P = Uᵀ U, whose diagonal is kept as reciprocals, and Uᵀ y = gradient on the way. Whole rows of eight
     * are computed: what lies left of the diagonal is not looked at again. */
    double gain = 0;
    for (ptrdiff_t f = 0; f < n; f++) {
        double *row = U + f * row_length;
        /* a direction of which neither rows nor prior say anything is left alone */
        const double root = row[f] > whole[f] * (sizeof(REAL) == 8 ? 1e-12 : 1e-6) ? 1 / sqrt(row[f]) : 0;
        for (ptrdiff_t b = f / 8 * 8; b < row_length; b += 8)
            for (int i = 0; i < 8; i++) row[b + i] *= root;
        const double value = y[f] * root;
        for (ptrdiff_t l = f + 1; l < n; l++) {
            double *other = U + l * row_length;
            const double share = row[l];
            for (ptrdiff_t b = l / 8 * 8; b < row_length; b += 8)
                for (int i = 0; i < 8; i++) other[b + i] -= share * row[b + i];
            y[l] -= share * value;
        }
        row[f] = root;
        y[f] = value;
        gain += value * value;
    }
    a->gain[j] = gain;
    if (a->noise) {
        const uint64_t key = mixed64(a->key ^ mixed64((uint64_t)a->features[j] + GOLDEN));
        for (ptrdiff_t f = 0; f < n; f++) y[f] += normal_quantile(uniform_at(key, (uint64_t)f));
    }
    for (ptrdiff_t f = n - 1; f >= 0; f--) { /* U step = y */
        const double *row = U + f * row_length;
        double value = y[f];
        for (ptrdiff_t l = f + 1; l < n; l++) value -= row[l] * y[l];
        y[f] = value * row[f];
        step[f] = (REAL)y[f];
        old[f] += step[f];
    }
    if (a->left) {
        double first = slope[k], second = slope[n];
        for (ptrdiff_t f = 0; f < n; f++) {
            const double *row = sum + gram_row(f), theta = x * old[f];
            double along = 0;
            for (ptrdiff_t l = 0; l < f; l++) along += row[l] * old[l];
            second += theta * (x * (2 * along + row[f] * old[f]) - 2 * slope[f]);
            first -= theta * sum[gram_row(k) + f];
        }
        a->left[2 * j] = first;
        a->left[2 * j + 1] = second;
    }
}

LOCAL void FN(draw)(const draw_args *a, ptrdiff_t start, ptrdiff_t stop) {
    const ptrdiff_t size = gram_row(a->k + 1) + (((a->k + 1) >> 4) + 1) * 16;
    for (ptrdiff_t j = start; j < stop; j++) {
        const REAL *gram = (const REAL *)a->grams + a->segments[j] * size;
        FN(draw_column)(a, j, gram, a->segments[j + 1] - a->segments[j]);
    }
}

LOCAL void FN(columns)(const column_args *a, ptrdiff_t start, ptrdiff_t stop) {
    const ptrdiff_t size = gram_row(a->k + 1) + (((a->k + 1) >> 4) + 1) * 16;
    for (ptrdiff_t g = start; g < stop; g++) {
        if (a->step && a->of_entities) FN(move_entities)(a, g);
        else if (a->step) FN(move_rows)(a, g);
        else if (a->of_entities) FN(column_of_entities)(a, g, (REAL *)a->grams + g * size);
        else FN(column_of_rows)(a, g, (REAL *)a->grams + g * size);
    }
}

/* Columns start … stop in turn, each of one segment: whatever they meet in, each finds what those before it left. */
LOCAL void FN(chain)(const column_args *a, const draw_args *d, ptrdiff_t start, ptrdiff_t stop) {
    REAL *gram = a->grams;
    for (ptrdiff_t j = start; j < stop; j++) {
        if (a->of_entities) FN(column_of_entities)(a, j, gram);
        else FN(column_of_rows)(a, j, gram);
        FN(draw_column)(d, j, gram, 1);
        if (a->of_entities) FN(move_entities)(a, j);
        else FN(move_rows)(a, j);
    }
}

#undef sum_t
#undef vec
#undef mask_t
#undef params_t
