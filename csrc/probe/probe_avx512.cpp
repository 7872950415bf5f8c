// xor, vpopcntd and vpaddd from registers: 512 products of +-1 by three operations on two ports. 24 sums as the kernel
// has, in asm so that none spills; one triple after the other (xors, then counts, then additions in groups of four read
// two thirds of the limit).
#include <cstdint>

#include "probe_kernel.h"
#include "target.h"

#if LOWBIT_X86

LOWBIT_TARGET_BEGIN_AVX512

namespace lowbit {

#define LOWBIT_PROBE_SUM(sum, b) \
  "vpxord %%zmm24,%%zmm" b       \
  ",%%zmm29\n"                   \
  "vpopcntd %%zmm29,%%zmm29\n"   \
  "vpaddd %%zmm29,%%zmm" sum ",%%zmm" sum "\n"
#define LOWBIT_PROBE_ROW(s0, s1, s2, s3) \
  LOWBIT_PROBE_SUM(s0, "25") LOWBIT_PROBE_SUM(s1, "26") LOWBIT_PROBE_SUM(s2, "27") LOWBIT_PROBE_SUM(s3, "28")

int64_t probe_xnor_avx512(int64_t iterations) noexcept {
  int64_t n = iterations;
  const uint32_t a = 0x81fe7d63u, b = 0x5a93c47eu;
  asm volatile(
      "vpbroadcastd %1,%%zmm24\n vpbroadcastd %2,%%zmm25\n"
      "vpaddd %%zmm24,%%zmm25,%%zmm26\n vpaddd %%zmm24,%%zmm26,%%zmm27\n vpaddd %%zmm24,%%zmm27,%%zmm28\n"
      "1:\n" LOWBIT_PROBE_ROW("0", "1", "2", "3") LOWBIT_PROBE_ROW("4", "5", "6", "7") LOWBIT_PROBE_ROW(
          "8", "9", "10", "11") LOWBIT_PROBE_ROW("12", "13", "14", "15") LOWBIT_PROBE_ROW("16", "17", "18", "19")
          LOWBIT_PROBE_ROW("20", "21", "22", "23") "dec %0\n jnz 1b\n vzeroupper\n"
      : "+r"(n)
      : "r"(a), "r"(b)
      : "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12",
        "xmm13", "xmm14", "xmm15", "xmm16", "xmm17", "xmm18", "xmm19", "xmm20", "xmm21", "xmm22", "xmm23", "xmm24",
        "xmm25", "xmm26", "xmm27", "xmm28", "xmm29");
  return iterations * 24 * 512;
}

}  // namespace lowbit

LOWBIT_TARGET_END

#endif
