/* What the memory system allows: the least work that touches the lines a factorization machine touches.
 *
 * A table of rows lies at `table` (64-byte aligned), `stride` bytes apart. A visit to feature j touches the
 * `lines` cache lines that hold row j, whole lines, one vector each. `indices` (n,) is the workload's own
 * stream of features, `ahead` how many visits ahead a line is asked for (0: never).
 *
 * gather      reads every line of every visit and sums them: a forward pass with free arithmetic.
 * gather_two  the same with a second array of one float a feature: factors and linear part kept apart.
 * update      for each sample, m visits long or cut by `indptr` (n_rows + 1,): first reads all its lines,
 *             then adds a constant to all of them: an epoch of a sequential solver with free arithmetic.
 * stream      reads n vectors in order.
 *
 * Every function returns its sum, and the caller keeps it, so nothing can be dropped.
 */
#include <stdint.h>

typedef float line_t __attribute__((vector_size(64), may_alias));

#if defined(__x86_64__)
#define CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define CLONES
#endif
#define INLINE static inline __attribute__((always_inline))

INLINE line_t *first_line(const char *table, int32_t j, int64_t stride) {
    return (line_t *)((uintptr_t)(table + j * stride) & ~(uintptr_t)63);
}

INLINE float sum_of(const line_t *v) {
    float total = 0;
    for (int c = 0; c < 16; c++) total += (*v)[c];
    return total;
}

/* `lines` is a constant in every expansion of these three, so that the loop over lines unrolls */
INLINE void gather_lines(const char *table, const float *w, const int32_t *indices, int64_t n, int64_t stride,
                         int lines, int64_t ahead, float *out) {
    line_t acc = {0};
    float linear = 0;
    int64_t asked = ahead > 0 ? n - ahead : 0;
    for (int64_t i = 0; i < n; i++) {
        if (i < asked) {
            const line_t *next = first_line(table, indices[i + ahead], stride);
            for (int l = 0; l < lines; l++) __builtin_prefetch(next + l, 0, 3);
            if (w) __builtin_prefetch(w + indices[i + ahead], 0, 3);
        }
        const line_t *row = first_line(table, indices[i], stride);
        for (int l = 0; l < lines; l++) acc += row[l];
        if (w) linear += w[indices[i]];
    }
    *out = sum_of(&acc) + linear;
}

INLINE void update_lines(char *table, const int32_t *indices, const int64_t *indptr, int64_t m, int64_t rows,
                         int64_t stride, int lines, int64_t ahead, float *out) {
    line_t acc = {0}, step = {0};
    step += 1e-3f;
    int64_t n = indptr ? indptr[rows] : m * rows;
    for (int64_t r = 0; r < rows; r++) {
        int64_t start = indptr ? indptr[r] : m * r, stop = indptr ? indptr[r + 1] : m * (r + 1);
        for (int64_t i = start; i < stop; i++) {
            if (ahead > 0 && i + ahead < n) {
                line_t *next = first_line(table, indices[i + ahead], stride);
                for (int l = 0; l < lines; l++) __builtin_prefetch(next + l, 1, 3);
            }
            const line_t *row = first_line(table, indices[i], stride);
            for (int l = 0; l < lines; l++) acc += row[l];
        }
        for (int64_t i = start; i < stop; i++) {
            line_t *row = first_line(table, indices[i], stride);
            for (int l = 0; l < lines; l++) row[l] += step;
        }
    }
    *out = sum_of(&acc);
}

#define BY_LINES(lines, CALL)          \
    switch (lines) {                   \
    case 1: CALL(1); break;            \
    case 2: CALL(2); break;            \
    case 3: CALL(3); break;            \
    case 4: CALL(4); break;            \
    case 5: CALL(5); break;            \
    default: CALL(lines);              \
    }

CLONES float gather(const char *table, const int32_t *indices, int64_t n, int64_t stride, int32_t lines,
                    int64_t ahead) {
    float out = 0;
#define CALL(L) gather_lines(table, 0, indices, n, stride, L, ahead, &out)
    BY_LINES(lines, CALL)
#undef CALL
    return out;
}

CLONES float gather_two(const char *table, const float *w, const int32_t *indices, int64_t n, int64_t stride,
                        int32_t lines, int64_t ahead) {
    float out = 0;
#define CALL(L) gather_lines(table, w, indices, n, stride, L, ahead, &out)
    BY_LINES(lines, CALL)
#undef CALL
    return out;
}

CLONES float update(char *table, const int32_t *indices, const int64_t *indptr, int64_t m, int64_t rows,
                    int64_t stride, int32_t lines, int64_t ahead) {
    float out = 0;
#define CALL(L) update_lines(table, indices, indptr, m, rows, stride, L, ahead, &out)
    if (indptr) {
        BY_LINES(lines, CALL)
    } else {
        indptr = 0; /* a constant below: samples of m visits need no row pointers */
        BY_LINES(lines, CALL)
    }
#undef CALL
    return out;
}

CLONES float stream(const char *table, int64_t n) {
    const line_t *v = (const line_t *)table;
    line_t a = {0}, b = {0}, c = {0}, d = {0};
    for (int64_t i = 0; i + 4 <= n; i += 4) {
        a += v[i];
        b += v[i + 1];
        c += v[i + 2];
        d += v[i + 3];
    }
    a += b + c + d;
    return sum_of(&a);
}
