// vpdpbusd and vfmadd231ps on 24 named accumulators, in asm: GCC 12 spills accumulators of the intrinsic. 24
// independent chains cover latency (5) x ports (2) twice over.
#include <cstdint>

#include "probe_kernel.h"
#include "target.h"

#if LOWBIT_X86

LOWBIT_TARGET_BEGIN_AVX512_VNNI

namespace lowbit {

#define LOWBIT_PROBE_24(op)                                                                          \
  op " %%zmm25,%%zmm24,%%zmm0\n" op " %%zmm25,%%zmm24,%%zmm1\n" op " %%zmm25,%%zmm24,%%zmm2\n" op    \
     " %%zmm25,%%zmm24,%%zmm3\n" op " %%zmm25,%%zmm24,%%zmm4\n" op " %%zmm25,%%zmm24,%%zmm5\n" op    \
     " %%zmm25,%%zmm24,%%zmm6\n" op " %%zmm25,%%zmm24,%%zmm7\n" op " %%zmm25,%%zmm24,%%zmm8\n" op    \
     " %%zmm25,%%zmm24,%%zmm9\n" op " %%zmm25,%%zmm24,%%zmm10\n" op " %%zmm25,%%zmm24,%%zmm11\n" op  \
     " %%zmm25,%%zmm24,%%zmm12\n" op " %%zmm25,%%zmm24,%%zmm13\n" op " %%zmm25,%%zmm24,%%zmm14\n" op \
     " %%zmm25,%%zmm24,%%zmm15\n" op " %%zmm25,%%zmm24,%%zmm16\n" op " %%zmm25,%%zmm24,%%zmm17\n" op \
     " %%zmm25,%%zmm24,%%zmm18\n" op " %%zmm25,%%zmm24,%%zmm19\n" op " %%zmm25,%%zmm24,%%zmm20\n" op \
     " %%zmm25,%%zmm24,%%zmm21\n" op " %%zmm25,%%zmm24,%%zmm22\n" op " %%zmm25,%%zmm24,%%zmm23\n"

// Non-zero operands (a multiplier fed with zeros draws less power and may clock higher); accumulators start at zero.
#define LOWBIT_PROBE_LOOP(op)                                                                                       \
  asm volatile(                                                                                                     \
      "vpbroadcastd %1,%%zmm24\n vpbroadcastd %2,%%zmm25\n"                                                         \
      "vpxord %%zmm0,%%zmm0,%%zmm0\n vmovdqa64 %%zmm0,%%zmm1\n vmovdqa64 %%zmm0,%%zmm2\n vmovdqa64 %%zmm0,%%zmm3\n" \
      "vmovdqa64 %%zmm0,%%zmm4\n vmovdqa64 %%zmm0,%%zmm5\n vmovdqa64 %%zmm0,%%zmm6\n vmovdqa64 %%zmm0,%%zmm7\n"     \
      "vmovdqa64 %%zmm0,%%zmm8\n vmovdqa64 %%zmm0,%%zmm9\n vmovdqa64 %%zmm0,%%zmm10\n vmovdqa64 %%zmm0,%%zmm11\n"   \
      "vmovdqa64 %%zmm0,%%zmm12\n vmovdqa64 %%zmm0,%%zmm13\n vmovdqa64 %%zmm0,%%zmm14\n vmovdqa64 %%zmm0,%%zmm15\n" \
      "vmovdqa64 %%zmm0,%%zmm16\n vmovdqa64 %%zmm0,%%zmm17\n vmovdqa64 %%zmm0,%%zmm18\n vmovdqa64 %%zmm0,%%zmm19\n" \
      "vmovdqa64 %%zmm0,%%zmm20\n vmovdqa64 %%zmm0,%%zmm21\n vmovdqa64 %%zmm0,%%zmm22\n vmovdqa64 %%zmm0,%%zmm23\n" \
      "1:\n" LOWBIT_PROBE_24(op) LOWBIT_PROBE_24(op) "dec %0\n jnz 1b\n vzeroupper\n"                               \
      : "+r"(n)                                                                                                     \
      : "r"(a), "r"(b)                                                                                              \
      : "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11",     \
        "xmm12", "xmm13", "xmm14", "xmm15", "xmm16", "xmm17", "xmm18", "xmm19", "xmm20", "xmm21", "xmm22", "xmm23", \
        "xmm24", "xmm25")

int64_t probe_vnni_avx512_vnni(int64_t iterations) noexcept {
  int64_t n = iterations;
  const uint32_t a = 0x81fe7d63u, b = 0x5a93c47eu;
  LOWBIT_PROBE_LOOP("vpdpbusd");
  return iterations * 48 * 64;
}

int64_t probe_fma_avx512_vnni(int64_t iterations) noexcept {
  int64_t n = iterations;
  const uint32_t a = 0x3f8ccccdu, b = 0x3f99999au;  // 1.1f, 1.2f
  LOWBIT_PROBE_LOOP("vfmadd231ps");
  return iterations * 48 * 16;
}

}  // namespace lowbit

LOWBIT_TARGET_END

#endif
