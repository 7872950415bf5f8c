// vcmpps and vmovmskps: eight numbers a comparison. Rows shorter than a word go through a padded copy of their end.
#include "target.h"
#include "xnor/xnor_kernel.h"

#if LOWBIT_X86
#include <immintrin.h>
#include <stdint.h>

LOWBIT_TARGET_BEGIN_AVX2

namespace lowbit {
namespace {

static inline uint32_t word_of(const float* x, const float* t, __m256& nan) {
  uint32_t word = 0;
#pragma GCC unroll 4
  for (int q = 0; q < 4; ++q) {
    const __m256 v = _mm256_loadu_ps(x + 8 * q), least = t ? _mm256_loadu_ps(t + 8 * q) : _mm256_setzero_ps();
    nan = _mm256_or_ps(nan, _mm256_cmp_ps(v, v, _CMP_UNORD_Q));
    word |= (uint32_t)_mm256_movemask_ps(_mm256_cmp_ps(v, least, _CMP_GE_OQ)) << (8 * q);
  }
  return word;
}

}  // namespace

bool pack_bits_f32_avx2(const BitRows& r) noexcept {
  __m256 nan = _mm256_setzero_ps();
  const int64_t whole = r.c / 32, rest = r.c % 32;
  for (int64_t i = 0; i < r.rows; ++i) {
    const float* x = (const float*)r.x + i * r.ldx;
    uint32_t* bits = r.bits + i * r.ld_bits;
    for (int64_t p = 0; p < whole; ++p) {
      bits[p] = word_of(x + 32 * p, r.threshold ? r.threshold + 32 * p : nullptr, nan) ^ (r.flip ? r.flip[p] : 0);
    }
    if (rest) {
      float last[32] = {}, least[32] = {};
      __builtin_memcpy(last, x + 32 * whole, (uint64_t)rest * sizeof(float));
      if (r.threshold) __builtin_memcpy(least, r.threshold + 32 * whole, (uint64_t)rest * sizeof(float));
      bits[whole] = (word_of(last, least, nan) ^ (r.flip ? r.flip[whole] : 0)) & ((1u << rest) - 1);
    }
  }
  return _mm256_movemask_ps(nan) != 0;
}

}  // namespace lowbit

LOWBIT_TARGET_END

#endif
