/* Random numbers from counters: each is a function of its key and its place alone, so that neither threads nor the order
 * of the work change it. */
#ifndef SPARSEFM_RANDOM
#define SPARSEFM_RANDOM
#include <math.h>
#include <stdint.h>

#define GOLDEN 0x9E3779B97F4A7C15ULL /* 2^64 / golden ratio: counters times it differ in all bits */

/* Finaliser of splitmix64 (Steele, Lea & Flood 2014): a bijection whose output bits look independent. */
#if defined(__GNUC__)
__attribute__((always_inline)) /* in code that is compiled for size too */
#endif
static inline uint64_t mixed64(uint64_t z) {
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL;
    return z ^ (z >> 31);
}

/* Between 0 and 1, neither of them. */
static inline double uniform_at(uint64_t key, uint64_t counter) {
    return ((double)(mixed64(key + (counter + 1) * GOLDEN) >> 12) + 0.5) * (1.0 / 4503599627370496.0);
}

/* The standard normal's quantile at ½ + q to about 1e-16 (Wichura 1988, AS 241): where |q| ≤ NEAR, and beyond. */
#define NEAR 0.425
static inline double normal_quantile_near(double q) {
    const double r = 0.180625 - q * q;
    return q *
           (((((((2.5090809287301226727e3 * r + 3.3430575583588128105e4) * r + 6.7265770927008700853e4) * r +
                4.5921953931549871457e4) * r + 1.3731693765509461125e4) * r + 1.9715909503065514427e3) * r +
             1.3314166789178437745e2) * r + 3.3871328727963666080e0) /
           (((((((5.2264952788528545610e3 * r + 2.8729085735721942674e4) * r + 3.9307895800092710610e4) * r +
                2.1213794301586595867e4) * r + 5.3941960214247511077e3) * r + 6.8718700749205790830e2) * r +
             4.2313330701600911252e1) * r + 1.0);
}

static inline double normal_quantile_far(double p) {
    double r = sqrt(-log(p < 0.5 ? p : 1 - p)), value;
    if (r <= 5) {
        r -= 1.6;
        value = (((((((7.74545014278341407640e-4 * r + 2.27238449892691845833e-2) * r + 2.41780725177450611770e-1) * r +
                     1.27045825245236838258e0) * r + 3.64784832476320460504e0) * r + 5.76949722146069140550e0) * r +
                  4.63033784615654529590e0) * r + 1.42343711074968357734e0) /
                (((((((1.05075007164441684324e-9 * r + 5.47593808499534494600e-4) * r + 1.51986665636164571966e-2) * r +
                     1.48103976427480074590e-1) * r + 6.89767334985100004550e-1) * r + 1.67638483018380384940e0) * r +
                  2.05319162663775882187e0) * r + 1.0);
    } else {
        r -= 5;
        value = (((((((2.01033439929228813265e-7 * r + 2.71155556874348757815e-5) * r + 1.24266094738807843860e-3) * r +
                     2.65321895265761230930e-2) * r + 2.96560571828504891230e-1) * r + 1.78482653991729133580e0) * r +
                  5.46378491116411436990e0) * r + 6.65790464350110377720e0) /
                (((((((2.04426310338993978564e-15 * r + 1.42151175831644588870e-7) * r + 1.84631831751005468180e-5) * r +
                     7.86869131145613259100e-4) * r + 1.48753612908506148525e-2) * r + 1.36929880922735805310e-1) * r +
                  5.99832206555887937690e-1) * r + 1.0);
    }
    return p < 0.5 ? -value : value;
}

static inline double normal_quantile(double p) {
    const double q = p - 0.5;
    return fabs(q) <= NEAR ? normal_quantile_near(q) : normal_quantile_far(p);
}

/* Standard normals at 16 consecutive counters: as a rule near, side by side, and those that are not one by one. */
static inline void normals_16(double *out, uint64_t key, uint64_t counter) {
    double p[16];
    unsigned far = 0;
    for (int i = 0; i < 16; i++) p[i] = uniform_at(key, counter + (uint64_t)i);
    for (int i = 0; i < 16; i++) out[i] = normal_quantile_near(p[i] - 0.5);
    for (int i = 0; i < 16; i++) far |= (unsigned)(fabs(p[i] - 0.5) > NEAR) << i;
    for (; far; far &= far - 1) {
        const int i = __builtin_ctz(far);
        out[i] = normal_quantile_far(p[i]);
    }
}

/* The standard normal's distribution function, exact in its lower tail. */
static inline double normal_share(double x) { return 0.5 * erfc(-x * 0.70710678118654752440); }

/* A standard normal between lo and hi at the quantile u of what lies there; from the nearer tail, which keeps it exact
 * far out. */
static inline double truncated_normal(double lo, double hi, double u) {
    if (lo > 0) return -truncated_normal(-hi, -lo, 1 - u);
    const double below = normal_share(lo), p = below + u * (normal_share(hi) - below);
    if (!(p > 1e-300)) return hi - log(u + (1 - u) * exp(hi * (hi - lo))) / hi; /* far out the tail is an exponential */
    const double value = normal_quantile(p < 1 ? p : 1 - 1.1e-16);
    return value < lo ? lo : value > hi ? hi : value;
}
#endif
