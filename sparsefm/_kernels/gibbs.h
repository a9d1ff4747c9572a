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
 * Machines to Relational Data, whose blocks these are). The matrices stand while the columns move: what is left of the
 * residuals follows from the vectors of the entities.
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
    void *own;                       /* (n_entities, width) vectors of entities, w and the products between */
    const void *of_entities;         /* (n_entities, size): as if the entities had no part in the scores */
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
    double *scratch;         /* (size,) twice and (k + 5) rows of k + 2, up to a multiple of 8 */
} draw_args;

typedef struct {
    ptrdiff_t k, width;
    const int32_t *starts;   /* (n_columns + 1,) rows of each column */
    const int32_t *entities; /* (n_rows,) the other side's entity of each row */
    const void *others;      /* (n_others, width) h = (q, 1, b) of each: factors, one, and the score that is its own */
    const void *weight;      /* (n_rows,) in the order of the rows, or NULL */
    const void *all;         /* (width, width) α Σ over all others of h hᵀ */
    const void *times;       /* (n_columns,) how often the column's unobserved rows are there */
    const double *precision; /* (k + 1,) of the prior */
    const double *strength;  /* (n_columns,) that the precision is multiplied by */
    void *theta;             /* INOUT (n_columns, width) factors, weight, zeros */
    double *gain;            /* (n_columns,) what the steps gain twice, by the model of each block */
    double *left;            /* (n_columns, 2): Σ s r and Σ s r² + α Σ over its unobserved rows of the score's square */
    void *residual;          /* scratch, as many as the longest column has rows */
} subspace_args;

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
    int filled, panels, whole; /* whole: nothing is in `total` */
} FN(sum_t);
#define sum_t FN(sum_t)

INLINE sum_t FN(sum_begin)(double *scratch, ptrdiff_t width, ptrdiff_t d) {
    const ptrdiff_t size = gram_row(d - 1) + (((d - 1) >> 4) + 1) * 16;
    sum_t s = {(REAL *)(scratch + size), NULL, scratch, width, d, size, 0, 0, 1};
    s.panel = s.gram + size;
    for (ptrdiff_t i = 0; i < size; i += W) FN(store)(s.gram + i, FN(zero)());
    return s;
}

LOCAL void FN(sum_flush)(sum_t *s) {
    if (s->whole)
        for (ptrdiff_t i = 0; i < s->size; i++) s->total[i] = s->gram[i];
    else
        for (ptrdiff_t i = 0; i < s->size; i++) s->total[i] += s->gram[i];
    for (ptrdiff_t i = 0; i < s->size; i += W) FN(store)(s->gram + i, FN(zero)());
    s->panels = s->whole = 0;
}

INLINE void FN(sum_row)(sum_t *s) { /* the row s->panel + s->filled · width is complete */
    if (++s->filled < PANEL) return;
    FN(gram_panel)(s->gram, s->panel, s->width, PANEL, s->d);
    s->filled = 0;
    if (++s->panels == FLUSH) FN(sum_flush)(s);
}

/* The sum to out; another one may begin. */
LOCAL void FN(sum_out)(sum_t *s, REAL *out) {
    if (s->whole)
        for (ptrdiff_t i = 0; i < s->size; i += W) FN(store)(out + i, FN(load)(s->gram + i));
    else
        for (ptrdiff_t i = 0; i < s->size; i++) out[i] = (REAL)(s->total[i] + s->gram[i]);
    for (ptrdiff_t i = 0; i < s->size; i += W) FN(store)(s->gram + i, FN(zero)());
    s->filled = s->panels = 0;
    s->whole = 1;
}

LOCAL void FN(sum_end)(sum_t *s, REAL *out) {
    FN(gram_panel)(s->gram, s->panel, s->width, s->filled, s->d);
    FN(sum_out)(s, out);
}

INLINE sum_t FN(panels_begin)(double *scratch, ptrdiff_t width, ptrdiff_t d) { /* of rows with zeros behind them */
    const sum_t s = FN(sum_begin)(scratch, width, d);
    memset(s.panel, 0, PANEL * width * sizeof(REAL));
    return s;
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
    sum_t s = FN(panels_begin)(a->scratch, width, k + 2);
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
    sum_t s = FN(panels_begin)(a->scratch, a->width, a->k + 2);
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

/* y = G δ, k + 1 numbers and zeros behind them in δ: of the blocks of 16 right of a row's last one, the rows below tell.
 * narrow: there are none. */
INLINE void FN(times)(const int narrow, const REAL *gram, ptrdiff_t k, const REAL *delta, REAL *y) {
    for (ptrdiff_t l = 0; l < (narrow ? 16 : k + 1); l += W) {
        const REAL *row = gram + gram_row(l / 16 * 16) + l;
        vec even = FN(zero)(), odd = FN(zero)();
        for (ptrdiff_t begin = l / 16 * 16; begin < (narrow ? 16 : k + 1); begin += 16) {
            const ptrdiff_t columns = begin + 16, end = columns <= k ? columns : k + 1;
            ptrdiff_t f = begin;
            for (; f + 4 <= end; f += 4) {
                even += FN(load)(row) * delta[f];
                odd += FN(load)(row + columns) * delta[f + 1];
                even += FN(load)(row + 2 * columns) * delta[f + 2];
                odd += FN(load)(row + 3 * columns) * delta[f + 3];
                row += 4 * columns;
            }
            for (; f < end; f++) {
                even += FN(load)(row) * delta[f];
                row += columns;
            }
        }
        FN(store)(y + l, even + odd);
    }
    for (ptrdiff_t f = 16; f < (narrow ? 16 : k + 1); f++) {
        const REAL *row = gram + gram_row(f);
        vec along = FN(zero)();
        for (ptrdiff_t l = 0; l < (f >> 4) * 16; l += W) along += FN(load)(row + l) * FN(load)(delta + l);
        y[f] += FN(sum)(along);
    }
}

/* Entities whose matrices are added at a time. With u the vector of the rest of an entity, zeros behind it, q + u takes
 * the place of q: row f of its matrix becomes C_f + m_f u + u_f (m + n u), that of means m + n u, and that of residuals
 * t + (Σ r) u. */
typedef struct {
    const REAL *gram[PANEL];
    REAL square[PANEL];            /* x² */
    REAL *u, *mean, *low, *slope;  /* (PANEL, width): u, m x², (m + n u) x² and (t + (Σ r) u) x */
} FN(entities_t);
#define entities_t FN(entities_t)

/* Rows f … f + F of the sum, which have so many columns, in columns c … c + W. */
INLINE void FN(entities_tile)(const int F, const ptrdiff_t width, const ptrdiff_t columns, REAL *sum,
                              const entities_t *e, int n, ptrdiff_t f, ptrdiff_t c) {
    const ptrdiff_t begin = gram_row(f) + c;
    vec g[16];
    for (int i = 0; i < F; i++) g[i] = FN(load)(sum + begin + i * columns);
    for (int r = 0; r < n; r++) {
        const REAL *rows = e->gram[r] + begin, *u = e->u + r * width, *mean = e->mean + r * width + f;
        const vec along = FN(load)(u + c), low = FN(load)(e->low + r * width + c);
        const REAL square = e->square[r], *u_f = u + f;
        for (int i = 0; i < F; i++) g[i] += FN(load)(rows + i * columns) * square;
        for (int i = 0; i < F; i++) g[i] += along * mean[i];
        for (int i = 0; i < F; i++) g[i] += low * u_f[i];
    }
    for (int i = 0; i < F; i++) FN(store)(sum + begin + i * columns, g[i]);
}

INLINE void FN(add_entities_in)(const int narrow, REAL *sum, const entities_t *e, ptrdiff_t any_width, int n, ptrdiff_t k) {
    const ptrdiff_t width = narrow ? 16 : any_width, length = narrow ? 16 : (k >> 4) * 16 + 16;
    for (ptrdiff_t f = 0, tile; f < k; f += tile) {
        const ptrdiff_t columns = narrow ? 16 : (f >> 4) * 16 + 16, left = (columns < k ? columns : k) - f;
        tile = left < 8 ? left : 8;
        if (W >= 16 && left >= 9 && left <= 12) tile = left;
        for (ptrdiff_t c = 0; c < columns; c += W) {
            switch (W >= 16 ? tile : 0) {
            case 9: FN(entities_tile)(9, width, columns, sum, e, n, f, c); continue;
            case 10: FN(entities_tile)(10, width, columns, sum, e, n, f, c); continue;
            case 11: FN(entities_tile)(11, width, columns, sum, e, n, f, c); continue;
            case 12: FN(entities_tile)(12, width, columns, sum, e, n, f, c); continue;
            default: break;
            }
            FOR_ROWS_OF_TILE(tile, FN(entities_tile), width, columns, sum, e, n, f, c);
        }
    }
    REAL *means = sum + gram_row(k), *slopes = sum + gram_row(k + 1);
    for (ptrdiff_t c = 0; c < length; c += W) {
        vec mean = FN(load)(means + c), slope = FN(load)(slopes + c);
        for (int r = 0; r < n; r++) {
            mean += FN(load)(e->low + r * width + c);
            slope += FN(load)(e->slope + r * width + c);
        }
        FN(store)(means + c, mean);
        FN(store)(slopes + c, slope);
    }
}

LOCAL void FN(add_entities)(REAL *sum, const entities_t *e, ptrdiff_t width, int n, ptrdiff_t k) {
    if (width == 16) FN(add_entities_in)(1, sum, e, width, n, k);
    else FN(add_entities_in)(0, sum, e, width, n, k);
}

/* The Gram matrix of segment g of a column over entities, each of which brings its own: what the rows say of it with its
 * own part left out of their residuals, which is what its vector says now. */
INLINE void FN(column_of_entities_in)(const int nvec, const column_args *a, ptrdiff_t g, REAL *out) {
    const ptrdiff_t k = a->k, width = nvec * W, whole = k / W;
    const ptrdiff_t length = width == 16 ? 16 : (k >> 4) * 16 + 16; /* of the row of means */
    const REAL *data = a->data, *v = (const REAL *)a->old + a->columns[g] * width;
    const mask_t mask = FN(mask_of)(k);
    sum_t s = FN(sum_begin)(a->scratch, width, k + 2);
    entities_t e;
    e.u = s.panel;
    e.mean = e.u + PANEL * width;
    e.low = e.mean + PANEL * width;
    e.slope = e.low + PANEL * width;
    const ptrdiff_t end = a->starts[g + 1];
    for (ptrdiff_t p = a->starts[g]; p < end; p++) {
        const ptrdiff_t b = a->rows[p], at = s.filled * width;
        const REAL x = data ? data[p] : 1, square = x * x;
        const REAL *own = (const REAL *)a->own + b * width, *gram = (const REAL *)a->of_entities + b * s.size;
        const REAL *mean = gram + gram_row(k), *slope = gram + gram_row(k + 1), count = mean[k];
        REAL *now = e.slope + at;
        FN(times)(width == 16, gram, k, own, now);
        const REAL first = slope[k] - now[k];
        for (ptrdiff_t i = 0; i < length / W; i++) {
            const ptrdiff_t l = i * W;
            vec u = FN(load)(own + l) - FN(load)(v + l) * x;
            if (i == whole) u = W == 1 ? FN(zero)() : FN(keep)(u, mask);
            else if (i > whole) u = FN(zero)();
            const vec m = FN(load)(mean + l);
            FN(store)(e.u + at + l, u);
            FN(store)(e.mean + at + l, m * square);
            FN(store)(e.low + at + l, (m + u * count) * square);
            FN(store)(now + l, (FN(load)(slope + l) - FN(load)(now + l) + u * first) * x);
        }
        e.gram[s.filled] = gram;
        e.square[s.filled] = square;
        if (++s.filled < PANEL) continue;
        FN(add_entities)(s.gram, &e, width, PANEL, k);
        s.filled = 0;
        if (++s.panels == FLUSH) FN(sum_flush)(&s);
    }
    FN(add_entities)(s.gram, &e, width, s.filled, k);
    FN(sum_out)(&s, out);
}

LOCAL void FN(column_of_entities)(const column_args *a, ptrdiff_t g, REAL *out) {
    if (a->width == 16) FN(column_of_entities_in)(16 / W, a, g, out);
    else FN(column_of_entities_in)((int)(a->width / W), a, g, out);
}

/* Moves the column of segment g: the vectors of its entities follow. */
INLINE void FN(move_entities_in)(const int nvec, const column_args *a, ptrdiff_t g) {
    const ptrdiff_t k = a->k, width = nvec * W, whole = k / W;
    const REAL *data = a->data, *v = (const REAL *)a->old + a->columns[g] * width;
    const REAL *step = (const REAL *)a->step + a->columns[g] * width;
    const mask_t mask = FN(mask_of)(k);
    for (ptrdiff_t p = a->starts[g]; p < a->starts[g + 1]; p++) {
        const REAL x = data ? data[p] : 1;
        REAL *own = (REAL *)a->own + a->rows[p] * width;
        const REAL bias = own[k];
        vec along = FN(zero)();
        for (ptrdiff_t i = 0; i <= whole; i++) {
            const ptrdiff_t l = i * W;
            const vec now = FN(load)(own + l), by = FN(load)(step + l);
            vec u = now - FN(load)(v + l) * x;
            if (i == whole) u = W == 1 ? FN(zero)() : FN(keep)(u, mask);
            along += by * u;
            FN(store)(own + l, now + by * x);
        }
        own[k] = bias + x * (step[k] + FN(sum)(along));
    }
}

LOCAL void FN(move_entities)(const column_args *a, ptrdiff_t g) {
    if (a->width == 16) FN(move_entities_in)(16 / W, a, g);
    else FN(move_entities_in)((int)(a->width / W), a, g);
}

/* Of entities start … stop Σ s r and Σ s r² of what is left of their rows' residuals. */
LOCAL void FN(settle)(const column_args *a, double *left, ptrdiff_t start, ptrdiff_t stop) {
    const ptrdiff_t k = a->k, size = gram_row(k + 1) + (((k + 1) >> 4) + 1) * 16;
    REAL *y = (REAL *)a->scratch;
    for (ptrdiff_t b = start; b < stop; b++) {
        const REAL *own = (const REAL *)a->own + b * a->width, *gram = (const REAL *)a->of_entities + b * size;
        const REAL *slope = gram + gram_row(k + 1);
        double squares = slope[k + 1];
        FN(times)(0, gram, k, own, y);
        for (ptrdiff_t l = 0; l <= k; l++) squares += (double)own[l] * ((double)y[l] - 2 * (double)slope[l]);
        left[2 * b] = (double)slope[k] - y[k];
        left[2 * b + 1] = squares;
    }
}

/* Elimination of the n rows of P, of which U has the upper triangle, and the gradient behind each: then P = Uᵀ D⁻¹ U with
 * D the diagonal of U, and behind the rows is y of Uᵀ D⁻¹ y = gradient. Returns yᵀ D⁻¹ y. Rows are computed in whole
 * eights: what lies left of the diagonal is not looked at again. */
INLINE double FN(eliminate)(const ptrdiff_t row_length, ptrdiff_t n, double *U, double *inverse) {
    double gain = 0, *whole = inverse + row_length;
    for (ptrdiff_t f = 0; f < n; f++) whole[f] = U[f * row_length + f];
    for (ptrdiff_t f = 0; f < n; f++) {
        const double *row = U + f * row_length;
        /* a direction of which neither rows nor prior say anything is left alone */
        const double by = row[f] > whole[f] * (sizeof(REAL) == 8 ? 1e-12 : 1e-6) ? 1 / row[f] : 0;
        for (ptrdiff_t block = 0; block < row_length; block += 8) {
            for (ptrdiff_t l = block > f ? block : f + 1; l < (n < block + 8 ? n : block + 8); l++) {
                double *other = U + l * row_length;
                const double share = row[l] * by;
                for (ptrdiff_t b = block; b < row_length; b += 8)
                    for (int i = 0; i < 8; i++) other[b + i] -= share * row[b + i];
            }
        }
        inverse[f] = by;
        gain += row[n] * row[n] * by;
    }
    return gain;
}

/* The step of column j to the mode of its conditional, or to a draw from it; its Gram matrix is the sum of `count`. */
LOCAL void FN(draw_column)(const draw_args *a, ptrdiff_t j, const REAL *gram, ptrdiff_t count) {
    const ptrdiff_t k = a->k, n = k + 1, width = a->width, size = gram_row(k + 1) + (((k + 1) >> 4) + 1) * 16;
    const ptrdiff_t row_length = (n + 8) / 8 * 8;
    double *total = a->scratch, *U = total + 2 * size, *y = U + n * row_length, *old = y + row_length;
    double *inverse = old + row_length, noise[16];
    const REAL *values = a->values;
    const REAL *now = (const REAL *)a->old + j * width;
    REAL *step = (REAL *)a->step + j * width;
    const double x = values ? values[j] : 1, strength = a->strength ? a->strength[j] : 1;
    const double *mean = a->mean + a->group[j] * n, *precision = a->precision + a->group[j] * n;
    if (count > 1) {
        for (ptrdiff_t i = 0; i < size; i++) total[i] = gram[i];
        for (ptrdiff_t t = 1; t < count; t++)
            for (ptrdiff_t i = 0; i < size; i++) total[i] += gram[t * size + i];
        REAL *sum = (REAL *)(total + size); /* U comes later, behind it */
        for (ptrdiff_t i = 0; i < size; i++) sum[i] = (REAL)total[i];
        gram = sum;
    }
    const REAL *slope = gram + gram_row(k + 1);
    const double each = a->alpha * x * x;
    /* The precision's upper triangle into U, in whole rows: what lies left of the diagonal is not looked at. */
    for (ptrdiff_t f = 0; f < n; f++) {
        double *into = U + f * row_length;
        const REAL *row = gram + gram_row(f);
        const ptrdiff_t columns = (f >> 4) * 16 + 16 < row_length ? (f >> 4) * 16 + 16 : row_length;
        for (ptrdiff_t b = f & ~(ptrdiff_t)7; b < columns; b += 8)
            for (int i = 0; i < 8; i++) into[b + i] = each * row[b + i];
        for (ptrdiff_t l = columns; l < row_length; l++) into[l] = l < n ? each * gram[gram_row(l) + f] : 0;
        old[f] = now[f];
        y[f] = a->alpha * x * slope[f] + strength * precision[f] * (mean[f] - old[f]);
    }
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
        U[f * row_length + n] = y[f];
    }
    a->gain[j] = row_length == 16   ? FN(eliminate)(16, n, U, inverse)
                 : row_length == 24 ? FN(eliminate)(24, n, U, inverse)
                                    : FN(eliminate)(row_length, n, U, inverse);
    for (ptrdiff_t f = 0; f < n; f++) y[f] = U[f * row_length + n];
    if (a->noise) { /* D^½ ε to y */
        const uint64_t key = mixed64(a->key ^ mixed64((uint64_t)a->features[j] + GOLDEN));
        for (ptrdiff_t begin = 0; begin < n; begin += 16) {
            normals_16(noise, key, (uint64_t)begin);
            for (ptrdiff_t f = begin; f < n && f < begin + 16; f++)
                if (inverse[f] > 0) y[f] += sqrt(U[f * row_length + f]) * noise[f - begin];
        }
    }
    for (ptrdiff_t f = n - 1; f >= 0; f--) { /* U step = y */
        const double by = y[f] * inverse[f];
        for (ptrdiff_t l = 0; l < f; l++) y[l] -= U[l * row_length + f] * by;
        step[f] = (REAL)by;
        old[f] += step[f];
    }
    if (a->left) {
        double first = slope[k], second = slope[n];
        for (ptrdiff_t f = 0; f < n; f++) {
            const REAL *row = gram + gram_row(f);
            const double theta = x * old[f];
            double along = 0;
            for (ptrdiff_t l = 0; l < f; l++) along += row[l] * old[l];
            second += theta * (x * (2 * along + row[f] * old[f]) - 2 * slope[f]);
            first -= theta * gram[gram_row(k) + f];
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

/* Columns of a side whose rows all have target 1 and hold nothing but one entity of it and one of the other side, beside
 * unobserved rows of all pairs with target 0: BLOCK of a column's numbers at a time go to their minimum given all else
 * (Rendle, Krichene, Zhang & Koren 2021, "iALS++"), so that a row costs k · BLOCK and not k². */
#define BLOCK 16
#define BLOCK_ROWS (W == 16 ? 16 : W == 8 ? 4 : 2) /* rows of a block's matrix that are summed in registers */
#define CHUNK 256                                  /* rows between additions to the sums in double */

/* Solves A x = g for the symmetric A (BLOCK, BLOCK), by Gauss and Jordan; x into g. Where a row is one vector all of
 * them stay in registers. */
#if W == BLOCK
INLINE void FN(solve_block)(REAL *A, REAL *g) {
    vec row[BLOCK];
#pragma GCC unroll 16
    for (int f = 0; f < BLOCK; f++) row[f] = FN(load)(A + f * BLOCK);
#pragma GCC unroll 16
    for (int f = 0; f < BLOCK; f++) {
        const REAL inverse = row[f][f] > 0 ? 1 / row[f][f] : 0;
        row[f] *= inverse;
        g[f] *= inverse;
#pragma GCC unroll 16
        for (int l = 0; l < BLOCK; l++) {
            if (l == f) continue;
            const REAL by = row[l][f];
            row[l] -= row[f] * by;
            g[l] -= g[f] * by;
        }
    }
}
#else
LOCAL void FN(solve_block)(REAL *A, REAL *g) {
    for (int f = 0; f < BLOCK; f++) {
        REAL *row = A + f * BLOCK;
        const REAL inverse = row[f] > 0 ? 1 / row[f] : 0;
        for (int v = 0; v < BLOCK; v += W) FN(store)(row + v, FN(load)(row + v) * inverse);
        g[f] *= inverse;
        for (int l = 0; l < BLOCK; l++) {
            REAL *other = A + l * BLOCK;
            const REAL by = other[f];
            if (l == f) continue;
            for (int v = 0; v < BLOCK; v += W) FN(store)(other + v, FN(load)(other + v) - FN(load)(row + v) * by);
            g[l] -= g[f] * by;
        }
    }
}
#endif

/* Of a block of columns Σ s h hᵀ into A (BLOCK, BLOCK) and Σ s r h into g, over n rows. */
INLINE void FN(block_sums)(const subspace_args *a, const REAL *others, const int32_t *entities, const REAL *s,
                           const REAL *residual, ptrdiff_t n, REAL *A, REAL *g) {
    for (int f = 0; f < BLOCK; f += BLOCK_ROWS) {
        vec sums[BLOCK_ROWS][BLOCK / W], along[BLOCK / W];
        for (int r = 0; r < BLOCK_ROWS; r++)
            for (int v = 0; v < BLOCK / W; v++) sums[r][v] = FN(zero)();
        for (int v = 0; v < BLOCK / W; v++) along[v] = FN(zero)();
        for (ptrdiff_t i = 0; i < n; i++) {
            const REAL *h = others + entities[i] * a->width, weighed = s ? s[i] : (REAL)1;
            for (int v = 0; v < BLOCK / W; v++) {
                vec part = FN(load)(h + v * W);
                if (s) part *= weighed;
                if (f == 0) along[v] += part * residual[i];
                for (int r = 0; r < BLOCK_ROWS; r++) sums[r][v] += part * h[f + r];
            }
        }
        for (int v = 0; v < BLOCK / W; v++) {
            if (f == 0) FN(store)(g + v * W, along[v]);
            for (int r = 0; r < BLOCK_ROWS; r++) FN(store)(A + (f + r) * BLOCK + v * W, sums[r][v]);
        }
    }
}

LOCAL void FN(subspace)(const subspace_args *a, ptrdiff_t start, ptrdiff_t stop) {
    const ptrdiff_t width = a->width, n_free = a->k + 1;
    const REAL *others = (const REAL *)a->others, *all = (const REAL *)a->all, *weight = (const REAL *)a->weight;
    REAL *residual = (REAL *)a->residual;
    for (ptrdiff_t c = start; c < stop; c++) {
        const int32_t *entities = a->entities + a->starts[c];
        const ptrdiff_t n = a->starts[c + 1] - a->starts[c];
        const REAL times = ((const REAL *)a->times)[c];
        const REAL *s = weight ? weight + a->starts[c] : NULL;
        REAL *theta = (REAL *)a->theta + c * width;
        double gain = 0;
        theta[n_free] = 1; /* so that a score is ⟨theta, h⟩; cleared below */
        for (ptrdiff_t i = 0; i < n; i++) {
            if (i + 4 < n)
                for (ptrdiff_t f = 0; f < width; f += 64 / (ptrdiff_t)sizeof(REAL)) PREFETCH_READ(others + entities[i + 4] * width + f);
            const REAL *h = others + entities[i] * width;
            vec along = FN(zero)();
            for (ptrdiff_t f = 0; f < width; f += W) along += FN(load)(h + f) * FN(load)(theta + f);
            residual[i] = 1 - FN(sum)(along);
        }
        for (ptrdiff_t b = 0; b < n_free; b += BLOCK) {
            const int active = n_free - b < BLOCK ? (int)(n_free - b) : BLOCK;
            _Alignas(64) REAL A[BLOCK * BLOCK], g[BLOCK], before[BLOCK];
            if (b == a->k) { /* the weight alone, for which every row has a one */
                const double prior = a->strength[c] * a->precision[b];
                double most = (double)times * (double)all[b * width + b] + prior, slope = -prior * (double)theta[b];
                for (ptrdiff_t l = 0; l <= n_free; l++) slope -= (double)(times * all[b * width + l]) * (double)theta[l];
                for (ptrdiff_t i = 0; i < n; i++) {
                    const double weighed = s ? (double)s[i] : 1;
                    most += weighed;
                    slope += weighed * (double)residual[i];
                }
                const REAL step = most > 0 ? (REAL)(slope / most) : 0;
                gain += slope * (double)step;
                theta[b] += step;
                for (ptrdiff_t i = 0; i < n; i++) residual[i] -= step;
                continue;
            }
            FN(block_sums)(a, others + b, entities, s, residual, n < CHUNK ? n : CHUNK, A, g);
            if (n > CHUNK) {
                double U[BLOCK * BLOCK], slope[BLOCK];
                for (int f = 0; f < BLOCK * BLOCK; f++) U[f] = (double)A[f];
                for (int f = 0; f < BLOCK; f++) slope[f] = (double)g[f];
                for (ptrdiff_t from = CHUNK; from < n; from += CHUNK) {
                    FN(block_sums)(a, others + b, entities + from, s ? s + from : NULL, residual + from,
                                   n - from < CHUNK ? n - from : CHUNK, A, g);
                    for (int f = 0; f < BLOCK * BLOCK; f++) U[f] += (double)A[f];
                    for (int f = 0; f < BLOCK; f++) slope[f] += (double)g[f];
                }
                for (int f = 0; f < BLOCK * BLOCK; f++) A[f] = (REAL)U[f];
                for (int f = 0; f < BLOCK; f++) g[f] = (REAL)slope[f];
            }
            for (int v = 0; v < BLOCK; v += W) { /* `all` is symmetric */
                vec along = FN(zero)();
                for (ptrdiff_t l = 0; l <= n_free; l++) along += FN(load)(all + l * width + b + v) * theta[l];
                FN(store)(g + v, FN(load)(g + v) - along * times);
                for (int f = 0; f < BLOCK; f++)
                    FN(store)(A + f * BLOCK + v, FN(load)(A + f * BLOCK + v) + FN(load)(all + (b + f) * width + b + v) * times);
            }
            for (int f = 0; f < active; f++) {
                const REAL prior = (REAL)(a->strength[c] * a->precision[b + f]);
                A[f * BLOCK + f] += prior;
                g[f] -= prior * theta[b + f];
            }
            for (int f = active; f < BLOCK; f++) { /* what is not a column's stays */
                for (int l = 0; l < BLOCK; l++) A[f * BLOCK + l] = A[l * BLOCK + f] = 0;
                A[f * BLOCK + f] = 1;
                g[f] = 0;
            }
            memcpy(before, g, sizeof before);
            FN(solve_block)(A, g);
            for (int f = 0; f < active; f++) {
                gain += (double)before[f] * (double)g[f];
                theta[b + f] += g[f];
            }
            vec step[BLOCK / W];
            for (int v = 0; v < BLOCK / W; v++) step[v] = FN(load)(g + v * W);
            for (ptrdiff_t i = 0; i < n; i++) {
                const REAL *h = others + entities[i] * width + b;
                vec along = FN(load)(h) * step[0];
                for (int v = 1; v < BLOCK / W; v++) along += FN(load)(h + v * W) * step[v];
                residual[i] -= FN(sum)(along);
            }
        }
        double first = 0, second = 0;
        for (ptrdiff_t i = 0; i < n; i++) {
            const double r = residual[i], weighed = s ? (double)s[i] : 1;
            first += weighed * r;
            second += weighed * r * r;
        }
        for (ptrdiff_t f = 0; f <= n_free; f++) {
            vec along = FN(zero)();
            for (ptrdiff_t l = 0; l < width; l += W) along += FN(load)(all + f * width + l) * FN(load)(theta + l);
            second += (double)times * (double)theta[f] * (double)FN(sum)(along);
        }
        theta[n_free] = 0;
        a->gain[c] = gain;
        a->left[2 * c] = first;
        a->left[2 * c + 1] = second;
    }
}

#undef sum_t
#undef entities_t
#undef vec
#undef mask_t
#undef params_t
