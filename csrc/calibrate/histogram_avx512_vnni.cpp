// Bins come 16 at a time; the increments are scalar: gather, vpconflictd and scatter take 2-3 cycles a value, an
// increment in memory about 1. Bin 0 (half of a tensor after ReLU, and one long chain of dependent increments) is
// counted by population count and compressed away.
#include "histogram_kernel.h"
#include "target.h"

#if LOWBIT_X86
#include <immintrin.h>

LOWBIT_TARGET_BEGIN_AVX512_VNNI

namespace lowbit::histogram {

struct Range {
  __m512 lo, hi;
  __m512i magnitude;
};

static void extend(Range& r, __m512 v) {
  r.lo = _mm512_min_ps(r.lo, v);
  r.hi = _mm512_max_ps(r.hi, v);
  const __m512i bits = _mm512_and_epi32(_mm512_castps_si512(v), _mm512_set1_epi32(0x7fffffff));
  r.magnitude = _mm512_max_epu32(r.magnitude, bits);
}

static __m512i bins_of(__m512 v, __m512 scale, __m512i side) {
  const __m512i bin = _mm512_cvttps_epi32(_mm512_mul_ps(_mm512_abs_ps(v), scale));
  return _mm512_mask_add_epi32(bin, _mm512_cmp_ps_mask(v, _mm512_setzero_ps(), _CMP_LT_OQ), bin, side);
}

uint32_t range_avx512_vnni(const float* x, int64_t n, float& lo, float& hi) noexcept {
  const __m512 first = _mm512_set1_ps(x[0]);
  Range a{first, first, _mm512_setzero_si512()}, b = a;
  int64_t i = 0;
  for (; i + 32 <= n; i += 32) {
    extend(a, _mm512_loadu_ps(x + i));
    extend(b, _mm512_loadu_ps(x + i + 16));
  }
  for (; i < n; i += 16) {
    const __mmask16 rest = n - i >= 16 ? 0xffff : static_cast<__mmask16>((1u << (n - i)) - 1);
    extend(a, _mm512_mask_loadu_ps(first, rest, x + i));
  }
  lo = _mm512_reduce_min_ps(_mm512_min_ps(a.lo, b.lo));
  hi = _mm512_reduce_max_ps(_mm512_max_ps(a.hi, b.hi));
  return _mm512_reduce_max_epu32(_mm512_max_epu32(a.magnitude, b.magnitude));
}

void count_avx512_vnni(const float* x, int64_t n, float scale, uint32_t side, uint32_t* tables) noexcept {
  constexpr int64_t kBlock = 1024;
  alignas(64) uint32_t bins[kBlock + 16];
  uint32_t *const even = tables, *const odd = tables + 2 * side;
  const __m512 scales = _mm512_set1_ps(scale);
  const __m512i sides = _mm512_set1_epi32(static_cast<int>(side));
  for (int64_t begin = 0; begin < n; begin += kBlock) {
    const int64_t size = n - begin < kBlock ? n - begin : kBlock;
    int64_t found = 0;
    for (int64_t i = 0; i < size; i += 16) {
      const __mmask16 rest = size - i >= 16 ? 0xffff : static_cast<__mmask16>((1u << (size - i)) - 1);
      const __m512i bin = bins_of(_mm512_maskz_loadu_ps(rest, x + begin + i), scales, sides);
      const __mmask16 keep = _mm512_test_epi32_mask(bin, bin);
      _mm512_storeu_si512(bins + found, _mm512_maskz_compress_epi32(keep, bin));
      found += __builtin_popcount(keep);
    }
    even[0] += static_cast<uint32_t>(size - found);
    int64_t i = 0;
    for (; i + 8 <= found; i += 8) {
      for (int k = 0; k < 8; k += 2) {
        ++even[bins[i + k]];
        ++odd[bins[i + k + 1]];
      }
    }
    for (; i < found; ++i) ++even[bins[i]];
  }
}

}  // namespace lowbit::histogram

LOWBIT_TARGET_END
#endif
