// One row: sixteen columns gathered per step (vgatherdps, the limit: about one element a cycle); a codebook of up to 32
// entries stays in registers (vpermi2ps), a longer one is gathered too. A panel of rows: the weight broadcast, x
// contiguous, four channels at a time so that the chains overlap.
#include "sparse/sparse_kernel.h"
#include "target.h"

#if LOWBIT_X86
#include <immintrin.h>

LOWBIT_TARGET_BEGIN_AVX512_VNNI
namespace lowbit {
namespace {

template <bool kShort>
static inline __m512 weights_of(const SparseSlice& s, __m512 low, __m512 high, __mmask16 lanes, __m512i codes) {
  if (kShort) return _mm512_permutex2var_ps(low, codes, high);
  return _mm512_mask_i32gather_ps(_mm512_setzero_ps(), lanes, codes, s.codebook, 4);
}

template <bool kShort>
static inline void row(const SparseSlice& s, const float* x, float* sums) {
  const __m512i counts = _mm512_loadu_si512(s.counts);
  const __m512 low = _mm512_loadu_ps(s.codebook), high = _mm512_loadu_ps(s.codebook + 16);
  __m512 sum = _mm512_setzero_ps();
  const int64_t steps = s.counts[0];
  for (int64_t t = 0; t < steps; ++t) {
    const __mmask16 lanes = _mm512_cmpgt_epi32_mask(counts, _mm512_set1_epi32(static_cast<int>(t)));
    const __m512i columns =
        _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(s.columns + t * kSparseLanes)));
    const __m512i codes =
        _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(s.codes + t * kSparseLanes)));
    const __m512 values = _mm512_mask_i32gather_ps(_mm512_setzero_ps(), lanes, columns, x, 4);
    sum = _mm512_mask3_fmadd_ps(values, weights_of<kShort>(s, low, high, lanes, codes), sum, lanes);
  }
  _mm512_storeu_ps(sums, sum);
}

static inline __m512 step(const SparseSlice& s, const float* x, int64_t at, __m512 sum) {
  const __m512 weight = _mm512_set1_ps(s.codebook[s.codes[at]]);
  return _mm512_fmadd_ps(_mm512_loadu_ps(x + s.columns[at] * kSparseRows), weight, sum);
}

}  // namespace

void sparse_row_avx512_vnni(const SparseSlice& s, const float* x, float* sums) noexcept {
  if (s.entries <= 32) {
    row<true>(s, x, sums);
  } else {
    row<false>(s, x, sums);
  }
}

void sparse_panel_avx512_vnni(const SparseSlice& s, const float* x, float* sums) noexcept {
  for (int64_t l = 0; l < kSparseLanes; l += 4) {
    __m512 sum[4] = {_mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps()};
    int64_t t = 0;
    for (; t < s.counts[l + 3]; ++t) {
      for (int64_t i = 0; i < 4; ++i) sum[i] = step(s, x, t * kSparseLanes + l + i, sum[i]);
    }
    for (int64_t i = 0; i < 4; ++i) {
      for (int64_t rest = t; rest < s.counts[l + i]; ++rest) sum[i] = step(s, x, rest * kSparseLanes + l + i, sum[i]);
      _mm512_storeu_ps(sums + (l + i) * kSparseRows, sum[i]);
    }
  }
}

}  // namespace lowbit
LOWBIT_TARGET_END
#endif
