// Bins come 8 at a time, the increments are scalar. Runs of bin 0 (tensors after ReLU) are counted a vector at a time.
#include "histogram_kernel.h"
#include "target.h"

#if LOWBIT_X86
#include <immintrin.h>

LOWBIT_TARGET_BEGIN_AVX2

namespace lowbit::histogram {

uint32_t range_avx2(const float* x, int64_t n, float& lo, float& hi) noexcept {
  __m256 least = _mm256_set1_ps(x[0]), most = least;
  __m256i magnitude = _mm256_setzero_si256();
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    const __m256 v = _mm256_loadu_ps(x + i);
    least = _mm256_min_ps(least, v);
    most = _mm256_max_ps(most, v);
    const __m256i bits = _mm256_and_si256(_mm256_castps_si256(v), _mm256_set1_epi32(0x7fffffff));
    magnitude = _mm256_max_epu32(magnitude, bits);
  }
  float lows[8], highs[8];
  uint32_t bits[8];
  _mm256_storeu_ps(lows, least);
  _mm256_storeu_ps(highs, most);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(bits), magnitude);
  uint32_t largest = i < n ? range_scalar(x + i, n - i, lo, hi) : 0;
  if (i == n) lo = hi = x[0];
  for (int k = 0; k < 8; ++k) {
    lo = lows[k] < lo ? lows[k] : lo;
    hi = highs[k] > hi ? highs[k] : hi;
    largest = bits[k] > largest ? bits[k] : largest;
  }
  return largest;
}

void count_avx2(const float* x, int64_t n, float scale, uint32_t side, uint32_t* tables) noexcept {
  uint32_t *const even = tables, *const odd = tables + 2 * side;
  const __m256 scales = _mm256_set1_ps(scale), zero = _mm256_setzero_ps(), sign = _mm256_set1_ps(-0.0f);
  const __m256i sides = _mm256_set1_epi32(static_cast<int>(side));
  alignas(32) uint32_t bins[8];
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    const __m256 v = _mm256_loadu_ps(x + i);
    __m256i bin = _mm256_cvttps_epi32(_mm256_mul_ps(_mm256_andnot_ps(sign, v), scales));
    const __m256i negative = _mm256_castps_si256(_mm256_cmp_ps(v, zero, _CMP_LT_OQ));
    bin = _mm256_add_epi32(bin, _mm256_and_si256(negative, sides));
    if (_mm256_testz_si256(bin, bin)) {
      even[0] += 8;
      continue;
    }
    _mm256_store_si256(reinterpret_cast<__m256i*>(bins), bin);
    for (int k = 0; k < 8; k += 2) {
      ++even[bins[k]];
      ++odd[bins[k + 1]];
    }
  }
  count_scalar(x + i, n - i, scale, side, tables);
}

}  // namespace lowbit::histogram

LOWBIT_TARGET_END
#endif
