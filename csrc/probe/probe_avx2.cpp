// vpmaddwd, the exact int8 product without VNNI, and vfmadd231ps ymm for machines without AVX-512. The vpaddd that
// every vpmaddwd needs is left out: with three vector ports a loop of pairs should reach 24 MACs in a cycle, but the
// renamer binds ports before it knows, and every order tried read 22.4 to 23.1, which is no limit to divide by.
#include <cstdint>

#include "probe_kernel.h"
#include "target.h"

#if LOWBIT_X86

LOWBIT_TARGET_BEGIN_AVX2

namespace lowbit {

#define LOWBIT_PROBE_CLOBBER                                                                                       \
  "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", \
      "xmm13", "xmm14", "xmm15"

int64_t probe_avx2_avx2(int64_t iterations) noexcept {
  int64_t n = iterations;
#define LOWBIT_PROBE_12_MADD                                                                              \
  "vpmaddwd %%ymm13,%%ymm12,%%ymm0\n vpmaddwd %%ymm13,%%ymm12,%%ymm1\n vpmaddwd %%ymm13,%%ymm12,%%ymm2\n" \
  "vpmaddwd %%ymm13,%%ymm12,%%ymm3\n vpmaddwd %%ymm13,%%ymm12,%%ymm4\n vpmaddwd %%ymm13,%%ymm12,%%ymm5\n" \
  "vpmaddwd %%ymm13,%%ymm12,%%ymm6\n vpmaddwd %%ymm13,%%ymm12,%%ymm7\n vpmaddwd %%ymm13,%%ymm12,%%ymm8\n" \
  "vpmaddwd %%ymm13,%%ymm12,%%ymm9\n vpmaddwd %%ymm13,%%ymm12,%%ymm10\n vpmaddwd %%ymm13,%%ymm12,%%ymm11\n"
  asm volatile(
      "vpcmpeqd %%ymm12,%%ymm12,%%ymm12\n vpsrlw $9,%%ymm12,%%ymm12\n vpsrlw $1,%%ymm12,%%ymm13\n"
      "1:\n" LOWBIT_PROBE_12_MADD LOWBIT_PROBE_12_MADD "dec %0\n jnz 1b\n vzeroupper\n"
      : "+r"(n)
      :
      : LOWBIT_PROBE_CLOBBER);
  return iterations * 24 * 16;
}

int64_t probe_fma_avx2(int64_t iterations) noexcept {
  int64_t n = iterations;
#define LOWBIT_PROBE_12                                                                                            \
  "vfmadd231ps %%ymm13,%%ymm12,%%ymm0\n vfmadd231ps %%ymm13,%%ymm12,%%ymm1\n vfmadd231ps %%ymm13,%%ymm12,%%ymm2\n" \
  "vfmadd231ps %%ymm13,%%ymm12,%%ymm3\n vfmadd231ps %%ymm13,%%ymm12,%%ymm4\n vfmadd231ps %%ymm13,%%ymm12,%%ymm5\n" \
  "vfmadd231ps %%ymm13,%%ymm12,%%ymm6\n vfmadd231ps %%ymm13,%%ymm12,%%ymm7\n vfmadd231ps %%ymm13,%%ymm12,%%ymm8\n" \
  "vfmadd231ps %%ymm13,%%ymm12,%%ymm9\n vfmadd231ps %%ymm13,%%ymm12,%%ymm10\n vfmadd231ps %%ymm13,%%ymm12,%%ymm11\n"
  // All accumulators start at zero: what the registers held could be a denormal, which is slow.
  asm volatile(
      "vpxor %%xmm0,%%xmm0,%%xmm0\n vmovdqa %%ymm0,%%ymm1\n vmovdqa %%ymm0,%%ymm2\n vmovdqa %%ymm0,%%ymm3\n"
      "vmovdqa %%ymm0,%%ymm4\n vmovdqa %%ymm0,%%ymm5\n vmovdqa %%ymm0,%%ymm6\n vmovdqa %%ymm0,%%ymm7\n"
      "vmovdqa %%ymm0,%%ymm8\n vmovdqa %%ymm0,%%ymm9\n vmovdqa %%ymm0,%%ymm10\n vmovdqa %%ymm0,%%ymm11\n"
      "vpcmpeqd %%ymm12,%%ymm12,%%ymm12\n vpsrld $25,%%ymm12,%%ymm12\n vpslld $23,%%ymm12,%%ymm12\n"  // 1.0f
      "vmovdqa %%ymm12,%%ymm13\n"
      "1:\n" LOWBIT_PROBE_12 LOWBIT_PROBE_12 "dec %0\n jnz 1b\n vzeroupper\n"
      : "+r"(n)
      :
      : LOWBIT_PROBE_CLOBBER);
  return iterations * 24 * 8;
}

}  // namespace lowbit

LOWBIT_TARGET_END

#endif
