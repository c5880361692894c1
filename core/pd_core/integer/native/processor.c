/* Asked of the processor itself: what __builtin_cpu_supports reads is not filled in by every
   compiler's own library (zig's has none of it). */
#include "processor.h"

#if defined(__x86_64__) || defined(_M_X64)
#include <cpuid.h>

enum { AVX_STATE = 0x6, AVX512_STATE = 0xe6 };
enum { OSXSAVE = 1u << 27, AVX = 1u << 28 };                              /* leaf 1, ecx */
enum { AVX2 = 1u << 5, AVX512_F_DQ_BW = 1u << 16 | 1u << 17 | 1u << 30 }; /* leaf 7, ebx */
enum { AVX512_VNNI = 1u << 11 };                                          /* leaf 7, ecx */
static const unsigned avx512_vl = 1u << 31;                               /* leaf 7, ebx */

/* Whether the system keeps the registers of `state` for each thread. */
static int keeps(unsigned state) {
    unsigned a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || (c & (OSXSAVE | AVX)) != (OSXSAVE | AVX)) return 0;
    __asm__("xgetbv" : "=a"(a), "=d"(d) : "c"(0));
    return (a & state) == state;
}

int pd_has_avx2(void) {
    unsigned a, b, c, d;
    return keeps(AVX_STATE) && __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & AVX2);
}

int pd_has_avx512(void) {
    const unsigned wanted = AVX512_F_DQ_BW | avx512_vl;
    unsigned a, b, c, d;
    return keeps(AVX512_STATE) && pd_has_avx2() && __get_cpuid_count(7, 0, &a, &b, &c, &d) &&
           (b & wanted) == wanted && (c & AVX512_VNNI);
}
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
int pd_has_dotprod(void) { return (getauxval(AT_HWCAP) >> 20) & 1; }
#elif defined(__aarch64__)
int pd_has_dotprod(void) { return 1; } /* every Apple and Windows arm64 processor */
#else
typedef int pd_nothing; /* a file may not be empty */
#endif
