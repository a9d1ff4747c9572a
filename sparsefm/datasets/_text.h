/* Numbers as text, read and written without a locale.
 *
 * Every reader here is given text whose last byte, at end − 1, is a newline: whatever scans byte by byte stops
 * there, and only loads of eight bytes at once look at `end`.
 *
 * A decimal w · 10^e with w < 2^53 and |e| ≤ 22 is one product or quotient of two exact doubles, so it comes out
 * correctly rounded (Clinger, How to Read Floating Point Numbers Accurately, PLDI 1990). All others, which are
 * rare, go to Python's own conversion, which is correctly rounded too. Writing is the same backwards: the digits
 * found are those that reading turns into the same bits. */
#ifndef SPARSEFM_TEXT
#define SPARSEFM_TEXT
#include <float.h>
#include <math.h>
#include <stdint.h>
#include <string.h>
#if defined(_MSC_VER)
#include <intrin.h>
#endif

#define EXACT ((uint64_t)1 << 53)
#define MAX_EXPONENT 22
#define MAX_TOKEN 80 /* bytes of one entry or label: two integers of 20 digits, a number of 24, what is between */

static const double POWERS[MAX_EXPONENT + 1] = {
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11,
    1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22,
};
static const uint32_t SHIFTS[9] = {1, 10, 100, 1000, 10000, 100000, 1000000, 10000000, 100000000};

static inline int is_digit(uint8_t c) { return (uint8_t)(c - '0') < 10; }
static inline int is_blank(uint8_t c) { return c == ' ' || c == '\t'; }

static inline const uint8_t *skip_blanks(const uint8_t *p) {
    while (is_blank(*p)) p++;
    return p;
}

/* Past the newline if only a comment or nothing is left of the line, else NULL. */
static inline const uint8_t *end_of_line(const uint8_t *p, const uint8_t *end) {
    if (*p == '\n') return p + 1;
    if (*p == '\r' && p[1] == '\n') return p + 2;
    if (*p == '#') return (const uint8_t *)memchr(p, '\n', (size_t)(end - p)) + 1;
    return NULL;
}

/* Eight bytes at once: the first of them in the lowest bits, digits as 0 … 9. */
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
#define EIGHT_FIT(p, end) 0
#else
#define EIGHT_FIT(p, end) ((end) - (p) >= 8)
#endif
#define EACH_BYTE(x) (UINT64_C(0x0101010101010101) * (x))

static inline uint64_t load_eight(const uint8_t *p) {
    uint64_t t;
    memcpy(&t, p, 8);
    return t ^ EACH_BYTE('0');
}

/* How many of the eight are digits before the first that is none. */
static inline int count_digits(uint64_t t) {
    uint64_t others = ((t + EACH_BYTE(6)) | t) & EACH_BYTE(0xF0); /* a carry only reaches bytes after the first */
    if (others == 0) return 8;
#if defined(_MSC_VER)
    unsigned long bit;
    _BitScanForward64(&bit, others);
    return (int)(bit >> 3);
#else
    return __builtin_ctzll(others) >> 3;
#endif
}

/* The number that the first n digits make, n from 1 to 8: neighbours are added up, then pairs, then fours. */
static inline uint64_t join_digits(uint64_t t, int n) {
    t <<= 64 - 8 * n;
    t = (t * 10 + (t >> 8)) & UINT64_C(0x00FF00FF00FF00FF);
    t = (t * 100 + (t >> 16)) & UINT64_C(0x0000FFFF0000FFFF);
    return (t * 10000 + (t >> 32)) & UINT64_C(0xFFFFFFFF);
}

/* Appends the digits at p to *w, modulo 2^64, and returns where they end. */
static inline const uint8_t *read_digits(const uint8_t *p, const uint8_t *end, uint64_t *w) {
    while (EIGHT_FIT(p, end)) {
        uint64_t t = load_eight(p);
        int n = count_digits(t);
        if (n == 0) return p;
        *w = *w * SHIFTS[n] + join_digits(t, n);
        p += n;
        if (n < 8) return p;
    }
    for (; is_digit(*p); p++) *w = *w * 10 + (*p - '0');
    return p;
}

/* An unsigned integer; UINT64_MAX stands for all from 2^63 + 2 on. NULL if there is none. */
static inline const uint8_t *read_integer(const uint8_t *p, const uint8_t *end, uint64_t *value) {
    uint64_t w = 0;
    const uint8_t *stop = read_digits(p, end, &w);
    if (stop == p) return NULL;
    if (stop - p > 18) {
        w = 0;
        for (; p < stop; p++) w = w <= INT64_MAX / 10 ? w * 10 + (*p - '0') : UINT64_MAX;
    }
    *value = w;
    return stop;
}

/* What Python's float() makes of the number at p, infinity included; NULL if it makes nothing of it. */
static const uint8_t *read_exactly(const uint8_t *p, const uint8_t *stop, double *value) {
    char *reached = NULL;
    PyGILState_STATE state = PyGILState_Ensure();
    *value = PyOS_string_to_double((const char *)p, &reached, NULL);
    if (PyErr_Occurred()) {
        PyErr_Clear();
        reached = NULL;
    }
    PyGILState_Release(state);
    return (const uint8_t *)reached == stop ? stop : NULL;
}

/* [sign] digits [. digits] [e [sign] digits], with a digit before or after the point. Returns where it ends, or
 * NULL if there is no number; what follows it is not looked at. */
static const uint8_t *read_any_number(const uint8_t *p, const uint8_t *end, double *value) {
    const uint8_t *start = p, *first;
    const int negative = *p == '-';
    uint64_t w = 0;
    int64_t exponent = 0;
    ptrdiff_t n_digits;
    p += negative || *p == '+';
    first = p;
    p = read_digits(p, end, &w);
    n_digits = p - first;
    if (*p == '.') {
        first = ++p;
        p = read_digits(p, end, &w);
        n_digits += p - first;
        exponent = first - p;
    }
    if (n_digits == 0) return NULL;
    if (*p == 'e' || *p == 'E') {
        int64_t power = 0;
        int below;
        p++;
        below = *p == '-';
        p += below || *p == '+';
        if (!is_digit(*p)) return NULL;
        for (; is_digit(*p); p++)
            if (power < 100000) power = power * 10 + (*p - '0'); /* beyond that only its being large counts */
        exponent += below ? -power : power;
    }
    if (n_digits > 19 || w > EXACT || exponent > MAX_EXPONENT || exponent < -MAX_EXPONENT)
        return read_exactly(start, p, value);
    *value = exponent < 0 ? (double)w / POWERS[-exponent] : (double)w * POWERS[exponent];
    if (negative) *value = -*value;
    return p;
}

/* The same, faster where an unsigned decimal and the blank after it lie within eight bytes: the point is taken
 * out of them, so that 1 and 0.25 take the same path and no branch has to guess which it is. */
static inline const uint8_t *read_number(const uint8_t *p, const uint8_t *end, double *value) {
    if (EIGHT_FIT(p, end)) {
        const uint64_t t = load_eight(p);
        const int whole = count_digits(t);
        if (whole < 8) {
            const uint64_t rest = t >> 8 * whole, before = t ^ rest << 8 * whole;
            const int point = (uint8_t)rest == ('.' ^ '0');
            const uint64_t joined = before | rest >> 8 * point << 8 * whole;
            int n = count_digits(joined);
            if (n > 7) n = 7; /* the zero that moved in at the top */
            if (n > 0 && p[n + point] <= ' ') {
                *value = (double)join_digits(joined, n) / POWERS[n - whole];
                return p + n + point;
            }
        }
    }
    return read_any_number(p, end, value);
}

/* Newlines and colons, in lanes of one byte that are emptied before they can run over. */
static inline void count_marks(const uint8_t *p, const uint8_t *end, int64_t *newlines, int64_t *colons) {
    int64_t n = 0, c = 0;
    while (end - p >= 16) {
        uint8_t n_lanes[16] = {0}, c_lanes[16] = {0};
        const ptrdiff_t fit = (end - p) / 16, rounds = fit < 255 ? fit : 255;
        for (ptrdiff_t i = 0; i < rounds; i++, p += 16)
            for (int j = 0; j < 16; j++) {
                n_lanes[j] += p[j] == '\n';
                c_lanes[j] += p[j] == ':';
            }
        for (int j = 0; j < 16; j++) {
            n += n_lanes[j];
            c += c_lanes[j];
        }
    }
    for (; p < end; p++) {
        n += *p == '\n';
        c += *p == ':';
    }
    *newlines = n;
    *colons = c;
}

static inline char *write_integer(char *out, uint64_t value) {
    char digits[20];
    int n = 0;
    do {
        digits[n++] = (char)('0' + value % 10);
        value /= 10;
    } while (value);
    while (n) *out++ = digits[--n];
    return out;
}

/* The fewest digits by Python's own conversion; NULL if it ran out of memory. */
static char *write_exactly(char *out, double x, int is_f32) {
    PyGILState_STATE state = PyGILState_Ensure();
    char *text = NULL;
    if (!is_f32) text = PyOS_double_to_string(x, 'r', 0, 0, NULL);
    /* normal floats lie closer together than decimals of FLT_DIG digits, so fewer than those need no try of their own:
     * 'g' drops zeros at the end */
    for (int precision = fabs(x) < FLT_MIN ? 1 : FLT_DIG; is_f32 && precision <= 9; precision++) {
        text = PyOS_double_to_string(x, 'g', precision, 0, NULL);
        if (text == NULL || (float)PyOS_string_to_double(text, NULL, NULL) == (float)x) break;
        if (precision < 9) PyMem_Free(text);
    }
    if (text == NULL) {
        PyErr_Clear();
        out = NULL;
    } else {
        const size_t n = strlen(text);
        memcpy(out, text, n);
        out += n;
        PyMem_Free(text);
    }
    PyGILState_Release(state);
    return out;
}

/* The integer with the most zeros at its end that is the same float as w < 2^53, itself a float. */
static inline uint64_t fewest_digits(uint64_t w) {
    uint64_t best = w;
    for (uint64_t unit = 10; w >= (1 << 24) && unit <= w; unit *= 10) {
        const uint64_t rounded = (w + unit / 2) / unit * unit;
        if ((float)(double)rounded != (float)w) break;
        best = rounded;
    }
    return best;
}

/* The fewest digits that read_number, rounded to float if is_f32, turns into x again. x is finite. */
static inline char *write_number(char *out, double x, int is_f32) {
    const double size = fabs(x);
    for (int k = 0; k <= MAX_EXPONENT; k++) {
        const double scaled = size * POWERS[k];
        if (scaled >= (double)EXACT) break;
        const uint64_t below = (uint64_t)scaled;
        const int up = scaled - (double)below > 0.5;
        for (int turn = 0; turn < 2; turn++) { /* the nearer neighbour first */
            const uint64_t w = below + (uint64_t)(turn ^ up);
            const double read = (double)w / POWERS[k];
            if (is_f32 ? (float)read != (float)size : read != size) continue;
            if (signbit(x)) *out++ = '-';
            if (k == 0) return write_integer(out, is_f32 ? fewest_digits(w) : w);
            if (size < 1e-4) {
                out = write_integer(out, w);
                *out++ = 'e';
                *out++ = '-';
                return write_integer(out, (uint64_t)k);
            }
            char digits[32], *last = write_integer(digits, w);
            ptrdiff_t n = last - digits;
            if (n > k) {
                memcpy(out, digits, (size_t)(n - k));
                out += n - k;
            } else {
                *out++ = '0';
            }
            *out++ = '.';
            for (ptrdiff_t zeros = k - n; zeros > 0; zeros--) *out++ = '0';
            n = n < k ? n : k;
            memcpy(out, last - n, (size_t)n);
            return out + n;
        }
    }
    return write_exactly(out, x, is_f32);
}
#endif
