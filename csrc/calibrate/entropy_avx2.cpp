// Four groups at a time.
#include "entropy_kernel.h"
#include "target.h"

#if LOWBIT_X86
#include <immintrin.h>

LOWBIT_TARGET_BEGIN_AVX2

namespace lowbit::entropy {

static __m256d log4(__m256d x) {
  const __m256i bits = _mm256_castpd_si256(x);
  const __m256i biased = _mm256_srli_epi64(bits, 52);
  const __m256i k = _mm256_and_si256(_mm256_srli_epi64(bits, 48), _mm256_set1_epi64x(15));
  // A small integer in the mantissa of 2^52 is 2^52 plus it, exactly.
  const __m256d shifted = _mm256_castsi256_pd(_mm256_or_si256(biased, _mm256_set1_epi64x(0x4330000000000000)));
  const __m256d exponent = _mm256_sub_pd(shifted, _mm256_set1_pd(0x1p52 + 1023.0));
  const __m256i fraction = _mm256_and_si256(bits, _mm256_set1_epi64x(0x000fffffffffffff));
  const __m256d m = _mm256_castsi256_pd(_mm256_or_si256(fraction, _mm256_set1_epi64x(0x3ff0000000000000)));
  const __m256d c = _mm256_i64gather_pd(kReciprocal, k, 8), l = _mm256_i64gather_pd(kLog, k, 8);
  const __m256d r = _mm256_sub_pd(_mm256_mul_pd(m, c), _mm256_set1_pd(1.0));
  __m256d series = _mm256_set1_pd(kSeries[9]);
  for (int d = 8; d >= 0; --d) series = _mm256_add_pd(_mm256_mul_pd(series, r), _mm256_set1_pd(kSeries[d]));
  return _mm256_add_pd(_mm256_mul_pd(exponent, _mm256_set1_pd(kLn2)), _mm256_add_pd(l, series));
}

void row_avx2(const double* sums, const int32_t* nonzero, const double* log_of, int64_t w, int64_t n,
              double* row) noexcept {
  int64_t s = 0;
  for (; s + 4 <= n; s += 4) {
    const __m256d g = _mm256_sub_pd(_mm256_loadu_pd(sums + s + w), _mm256_loadu_pd(sums + s));
    const __m128i last = _mm_loadu_si128(reinterpret_cast<const __m128i*>(nonzero + s + w));
    const __m128i first = _mm_loadu_si128(reinterpret_cast<const __m128i*>(nonzero + s));
    const __m256d split = _mm256_i32gather_pd(log_of, _mm_sub_epi32(last, first), 8);
    const __m256d log_g = log4(_mm256_max_pd(g, _mm256_set1_pd(1.0)));
    _mm256_storeu_pd(row + s, _mm256_mul_pd(g, _mm256_sub_pd(log_g, split)));
  }
  row_scalar(sums + s, nonzero + s, log_of, w, n - s, row + s);
}

double sum_avx2(const double* rows, int64_t stride, int64_t i, int shift, int64_t w) noexcept {
  if (shift < 3) return sum_scalar(rows, stride, i, shift, w);
  const __m256i width = _mm256_set1_epi32(static_cast<int>(w)), far = _mm256_set1_epi32(static_cast<int>(stride));
  const __m256i step = _mm256_set1_epi32(static_cast<int>(8 * i)), next = _mm256_set1_epi32(static_cast<int>(i));
  __m256i product = _mm256_mullo_epi32(_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), next);
  const __m128i by = _mm_cvtsi32_si128(shift);
  __m256d low = _mm256_setzero_pd(), high = low;
  for (int64_t j = 0; j < int64_t{1} << shift; j += 8) {
    const __m256i start = _mm256_srl_epi32(product, by);
    const __m256i end = _mm256_srl_epi32(_mm256_add_epi32(product, next), by);
    const __m256i wide = _mm256_cmpgt_epi32(_mm256_sub_epi32(end, start), width);
    const __m256i at = _mm256_add_epi32(start, _mm256_and_si256(wide, far));
    low = _mm256_add_pd(low, _mm256_i32gather_pd(rows, _mm256_castsi256_si128(at), 8));
    high = _mm256_add_pd(high, _mm256_i32gather_pd(rows, _mm256_extracti128_si256(at, 1), 8));
    product = _mm256_add_epi32(product, step);
  }
  double lane[8];
  _mm256_storeu_pd(lane, low);
  _mm256_storeu_pd(lane + 4, high);
  return ((lane[0] + lane[4]) + (lane[2] + lane[6])) + ((lane[1] + lane[5]) + (lane[3] + lane[7]));
}

}  // namespace lowbit::entropy

LOWBIT_TARGET_END
#endif
