"""Which instruction sets this build and this machine can run, widest last."""

cdef extern from *:
    """
    #if defined(__GNUC__) && (defined(__x86_64__) || defined(__aarch64__))
    #define HAS_BASE 1
    #else
    #define HAS_BASE 0
    #endif
    #if HAS_BASE && defined(__x86_64__)
    /* exactly the features that instances.h compiles for */
    static int has_avx2(void) {
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    }
    static int has_avx512(void) {
        return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw")
            && __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq")
            && __builtin_cpu_supports("avx512vl");
    }
    #else
    /* exactly the features that instances.h compiles for */
    static int has_avx2(void) { return 0; }
    static int has_avx512(void) { return 0; }
    #endif
    """
    const int HAS_BASE
    int has_avx2()
    int has_avx512()


def supported():
    """Names of the paths that run here; the place of a name in ("plain", "base", "avx2", "avx512") is its
    number in the kernels."""
    names = ["plain"]
    if HAS_BASE:
        names.append("base")
    if has_avx2():
        names.append("avx2")
    if has_avx512():
        names.append("avx512")
    return tuple(names)
