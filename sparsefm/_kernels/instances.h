/* Compiles BODY once for every instruction set, real type and index type.
 *
 * A body names its functions FN(name) and writes them with
 *   REAL  float or double          IDX   int32_t or int64_t
 *   W     lanes of one vector      vec   W lanes of REAL (a plain REAL when W is 1)
 * The vector width equals the width of the instruction set: a wider one is lowered to spills.
 * No global compiler flag is involved, so one build runs everywhere and picks its path when it is
 * imported (isa.pyx):
 *   plain   W = 1, any C99 compiler
 *   base    the 16-byte vectors every 64-bit x86 (SSE2) and arm64 (NEON) has
 *   avx2    AVX2 and FMA    avx512  AVX-512 F, BW, CD, DQ and VL: no more than isa.pyx has asked the machine for
 * double is the reference precision and exists as plain and base only.
 *
 * Use:  #define BODY "fm.h"
 *       #include "instances.h"
 */
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifndef SPARSEFM_INSTANCES
#define SPARSEFM_INSTANCES

enum { ISA_PLAIN = 0, ISA_BASE = 1, ISA_AVX2 = 2, ISA_AVX512 = 3 };

#if defined(__GNUC__) && (defined(__x86_64__) || defined(__aarch64__))
#define HAVE_VECTORS 1
#else
#define HAVE_VECTORS 0
#endif
#if HAVE_VECTORS && defined(__x86_64__)
#define HAVE_AVX 1
#else
#define HAVE_AVX 0
#endif

#if defined(__GNUC__)
#define INLINE static inline __attribute__((always_inline, unused))
#define LOCAL static __attribute__((unused))
#define APART static __attribute__((noinline, unused)) /* once, however many loops call it */
#define PREFETCH_READ(p) __builtin_prefetch((p), 0, 3)
#define PREFETCH_WRITE(p) __builtin_prefetch((p), 1, 3)
#define PREFETCH_NEAR(p) __builtin_prefetch((p), 0, 2)
#else
#define INLINE static inline
#define LOCAL static
#define APART static
#define PREFETCH_READ(p) ((void)(p))
#define PREFETCH_WRITE(p) ((void)(p))
#define PREFETCH_NEAR(p) ((void)(p))
#endif

#define PASTE_(a, b) a##_##b
#define PASTE(a, b) PASTE_(a, b)
#define FN(name) PASTE(name, TAG)

/* A table that fits the second-level cache is read faster without prefetching. */
#define PREFETCH_BYTES (1536 * 1024)

/* The C face of a body: picks the instance for one call. Unsupported combinations fall back to the widest
 * one below, so an out-of-range isa cannot jump into nothing. */
#define DISPATCH_F32(name, index, isa, ...)                                          \
    do {                                                                             \
        if (HAVE_AVX && (isa) >= ISA_AVX512) IF_AVX(name##_f32##index##_avx512(__VA_ARGS__)); \
        else if (HAVE_AVX && (isa) == ISA_AVX2) IF_AVX(name##_f32##index##_avx2(__VA_ARGS__)); \
        else if (HAVE_VECTORS && (isa) >= ISA_BASE) IF_VECTORS(name##_f32##index##_base(__VA_ARGS__)); \
        else name##_f32##index##_plain(__VA_ARGS__);                                 \
    } while (0)
#define DISPATCH_F64(name, index, isa, ...)                                          \
    do {                                                                             \
        if (HAVE_VECTORS && (isa) >= ISA_BASE) IF_VECTORS(name##_f64##index##_base(__VA_ARGS__)); \
        else name##_f64##index##_plain(__VA_ARGS__);                                 \
    } while (0)
#define DISPATCH(name, isa, is_f64, is_i64, ...)                                     \
    do {                                                                             \
        if (is_f64) {                                                                \
            if (is_i64) DISPATCH_F64(name, i64, isa, __VA_ARGS__);                   \
            else DISPATCH_F64(name, i32, isa, __VA_ARGS__);                          \
        } else {                                                                     \
            if (is_i64) DISPATCH_F32(name, i64, isa, __VA_ARGS__);                   \
            else DISPATCH_F32(name, i32, isa, __VA_ARGS__);                          \
        }                                                                            \
    } while (0)
#if HAVE_VECTORS
#define IF_VECTORS(...) __VA_ARGS__
#else
#define IF_VECTORS(...) ((void)0)
#endif
#if HAVE_AVX
#define IF_AVX(...) __VA_ARGS__
#else
#define IF_AVX(...) ((void)0)
#endif

#endif /* SPARSEFM_INSTANCES */

/* ---- plain ---- */
#define W 1
#define REAL float
#define IDX int32_t
#define TAG f32i32_plain
#include BODY
#undef IDX
#undef TAG
#define IDX int64_t
#define TAG f32i64_plain
#include BODY
#undef REAL
#undef IDX
#undef TAG
#define REAL double
#define IDX int32_t
#define TAG f64i32_plain
#include BODY
#undef IDX
#undef TAG
#define IDX int64_t
#define TAG f64i64_plain
#include BODY
#undef REAL
#undef IDX
#undef TAG
#undef W

#if HAVE_VECTORS
/* ---- base ---- */
#define W 4
#define REAL float
#define IDX int32_t
#define TAG f32i32_base
#include BODY
#undef IDX
#undef TAG
#define IDX int64_t
#define TAG f32i64_base
#include BODY
#undef REAL
#undef IDX
#undef TAG
#undef W
#define W 2
#define REAL double
#define IDX int32_t
#define TAG f64i32_base
#include BODY
#undef IDX
#undef TAG
#define IDX int64_t
#define TAG f64i64_base
#include BODY
#undef REAL
#undef IDX
#undef TAG
#undef W
#endif

#if HAVE_AVX
/* ---- avx2 ---- */
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif
#define W 8
#define REAL float
#define IDX int32_t
#define TAG f32i32_avx2
#include BODY
#undef IDX
#undef TAG
#define IDX int64_t
#define TAG f32i64_avx2
#include BODY
#undef REAL
#undef IDX
#undef TAG
#undef W
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

/* ---- avx512 ---- */
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx2,fma,prefer-vector-width=512")
#endif
#define W 16
#define REAL float
#define IDX int32_t
#define TAG f32i32_avx512
#include BODY
#undef IDX
#undef TAG
#define IDX int64_t
#define TAG f32i64_avx512
#include BODY
#undef REAL
#undef IDX
#undef TAG
#undef W
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif /* HAVE_AVX */

#undef BODY

/* What Cython writes behind this takes arrays apart and calls one of the instances: small before fast. */
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize ("Os")
#endif
