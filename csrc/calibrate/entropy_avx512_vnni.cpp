// Eight groups at a time. The tables of the logarithm are two registers each (vpermt2pd); one gather per eight terms.
#include "entropy_kernel.h"
#include "target.h"

#if LOWBIT_X86
#include <immintrin.h>

LOWBIT_TARGET_BEGIN_AVX512_VNNI

namespace lowbit::entropy {

static __m512d log8(__m512d x) {
  const __m512i bits = _mm512_castpd_si512(x);
  const __m512i biased = _mm512_srli_epi64(bits, 52), k = _mm512_srli_epi64(bits, 48);  // vpermt2pd reads 4 bits of k
  const __m512d exponent = _mm512_cvtepi64_pd(_mm512_sub_epi64(biased, _mm512_set1_epi64(1023)));
  const __m512i fraction = _mm512_and_epi64(bits, _mm512_set1_epi64(0x000fffffffffffff));
  const __m512d m = _mm512_castsi512_pd(_mm512_or_epi64(fraction, _mm512_set1_epi64(0x3ff0000000000000)));
  const __m512d c = _mm512_permutex2var_pd(_mm512_loadu_pd(kReciprocal), k, _mm512_loadu_pd(kReciprocal + 8));
  const __m512d l = _mm512_permutex2var_pd(_mm512_loadu_pd(kLog), k, _mm512_loadu_pd(kLog + 8));
  const __m512d r = _mm512_sub_pd(_mm512_mul_pd(m, c), _mm512_set1_pd(1.0));
  __m512d series = _mm512_set1_pd(kSeries[9]);
  for (int d = 8; d >= 0; --d) series = _mm512_add_pd(_mm512_mul_pd(series, r), _mm512_set1_pd(kSeries[d]));
  return _mm512_add_pd(_mm512_mul_pd(exponent, _mm512_set1_pd(kLn2)), _mm512_add_pd(l, series));
}

void row_avx512_vnni(const double* sums, const int32_t* nonzero, const double* log_of, int64_t w, int64_t n,
                     double* row) noexcept {
  int64_t s = 0;
  for (; s + 8 <= n; s += 8) {
    const __m512d g = _mm512_sub_pd(_mm512_loadu_pd(sums + s + w), _mm512_loadu_pd(sums + s));
    const __m256i last = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(nonzero + s + w));
    const __m256i first = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(nonzero + s));
    const __m512d split = _mm512_i32gather_pd(_mm256_sub_epi32(last, first), log_of, 8);
    const __m512d log_g = log8(_mm512_max_pd(g, _mm512_set1_pd(1.0)));
    _mm512_storeu_pd(row + s, _mm512_mul_pd(g, _mm512_sub_pd(log_g, split)));
  }
  row_scalar(sums + s, nonzero + s, log_of, w, n - s, row + s);
}

double sum_avx512_vnni(const double* rows, int64_t stride, int64_t i, int shift, int64_t w) noexcept {
  if (shift < 3) return sum_scalar(rows, stride, i, shift, w);
  const __m256i width = _mm256_set1_epi32(static_cast<int>(w)), far = _mm256_set1_epi32(static_cast<int>(stride));
  const __m256i step = _mm256_set1_epi32(static_cast<int>(8 * i)), next = _mm256_set1_epi32(static_cast<int>(i));
  __m256i product = _mm256_mullo_epi32(_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), next);
  const __m128i by = _mm_cvtsi32_si128(shift);
  __m512d sum = _mm512_setzero_pd();
  for (int64_t j = 0; j < int64_t{1} << shift; j += 8) {
    const __m256i start = _mm256_srl_epi32(product, by);
    const __m256i end = _mm256_srl_epi32(_mm256_add_epi32(product, next), by);
    const __mmask8 wide = _mm256_cmpgt_epi32_mask(_mm256_sub_epi32(end, start), width);
    sum = _mm512_add_pd(sum, _mm512_i32gather_pd(_mm256_mask_add_epi32(start, wide, start, far), rows, 8));
    product = _mm256_add_epi32(product, step);
  }
  double lane[8];
  _mm512_storeu_pd(lane, sum);
  return ((lane[0] + lane[4]) + (lane[2] + lane[6])) + ((lane[1] + lane[5]) + (lane[3] + lane[7]));
}

}  // namespace lowbit::entropy

LOWBIT_TARGET_END
#endif
