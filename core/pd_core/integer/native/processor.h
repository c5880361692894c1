/* What this processor, and its system, let a program use. */
#ifndef PD_PROCESSOR_H
#define PD_PROCESSOR_H

#if defined(__x86_64__) || defined(_M_X64)
int pd_has_avx2(void);
int pd_has_avx512(void); /* F, BW, VL, DQ and VNNI */
#elif defined(__aarch64__)
int pd_has_dotprod(void);
#endif

#endif
