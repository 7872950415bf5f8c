// One row: loads, not vgatherdps, which loses to them on many AVX2 machines; fused multiply-adds are an instruction
// here, where the scalar level calls the library. A panel of rows: the weight broadcast, x contiguous in two registers.
#include "sparse/sparse_kernel.h"
#include "target.h"

#if LOWBIT_X86
#include <immintrin.h>

LOWBIT_TARGET_BEGIN_AVX2
namespace lowbit {

void sparse_row_avx2(const SparseSlice& s, const float* x, float* sums) noexcept {
  for (int64_t l = 0; l < kSparseLanes; l += 4) {
    __m128 sum[4] = {_mm_setzero_ps(), _mm_setzero_ps(), _mm_setzero_ps(), _mm_setzero_ps()};
    const int64_t shared = s.counts[l + 3];
    for (int64_t t = 0; t < s.counts[l]; ++t) {
      const int64_t live = t < shared ? 4 : 3;
      for (int64_t i = 0; i < live; ++i) {
        if (t >= s.counts[l + i]) break;
        const int64_t at = t * kSparseLanes + l + i;
        sum[i] = _mm_fmadd_ss(_mm_load_ss(x + s.columns[at]), _mm_load_ss(s.codebook + s.codes[at]), sum[i]);
      }
    }
    for (int64_t i = 0; i < 4; ++i) sums[l + i] = _mm_cvtss_f32(sum[i]);
  }
}

void sparse_panel_avx2(const SparseSlice& s, const float* x, float* sums) noexcept {
  for (int64_t l = 0; l < kSparseLanes; ++l) {
    __m256 low = _mm256_setzero_ps(), high = _mm256_setzero_ps();
    for (int64_t t = 0; t < s.counts[l]; ++t) {
      const int64_t at = t * kSparseLanes + l;
      const __m256 weight = _mm256_broadcast_ss(s.codebook + s.codes[at]);
      const float* values = x + s.columns[at] * kSparseRows;
      low = _mm256_fmadd_ps(_mm256_loadu_ps(values), weight, low);
      high = _mm256_fmadd_ps(_mm256_loadu_ps(values + 8), weight, high);
    }
    _mm256_storeu_ps(sums + l * kSparseRows, low);
    _mm256_storeu_ps(sums + l * kSparseRows + 8, high);
  }
}

}  // namespace lowbit
LOWBIT_TARGET_END
#endif
