// vfmadd231ps on tiles of 6 rows x 16 columns: 12 accumulators, two loads of B and six broadcasts of A for 12 FMAs.
#include "gemm_f32/gemm_f32_kernel.h"
#include "target.h"

#if LOWBIT_X86
#include <immintrin.h>

LOWBIT_TARGET_BEGIN_AVX2

namespace lowbit {

// All ones in the first `columns` of eight lanes.
static inline __m256i mask_of(int64_t columns) {
  const int n = columns >= 8 ? 8 : columns <= 0 ? 0 : static_cast<int>(columns);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

// f's pointers are those of this vector's first element.
static inline __m256 finished(__m256 v, const float* bias, const float* residual, const FinishF32& f, __m256i mask) {
  if (bias) v = _mm256_add_ps(v, _mm256_maskload_ps(bias, mask));
  if (residual) v = _mm256_add_ps(v, _mm256_maskload_ps(residual, mask));
  v = _mm256_max_ps(_mm256_set1_ps(f.lo), v);  // the second operand is the result where one is NaN
  return _mm256_min_ps(_mm256_set1_ps(f.hi), v);
}

// Rows [i, i + kRows) of a strip, columns [first, first + 16).
template <int kRows>
static void tile(const StripF32& s, int64_t i, int64_t first) {
  __m256 acc[kRows][2];
#pragma GCC unroll 6
  for (int r = 0; r < kRows; ++r) acc[r][0] = acc[r][1] = _mm256_setzero_ps();
  const float* b = s.b + first * s.runs * s.run_length;
  const int64_t step = s.row_step;
  for (int64_t run = 0; run < s.runs; ++run) {
    const float* a0 = s.a + s.run_offset[run] + i * step;
    const float* a3 = a0 + 3 * step;
    for (int64_t p = 0; p < s.run_length; ++p, ++a0, ++a3, b += kPanelF32) {
      const __m256 b0 = _mm256_loadu_ps(b), b1 = _mm256_loadu_ps(b + 8);
#pragma GCC unroll 6
      for (int r = 0; r < kRows; ++r) {
        const __m256 a = _mm256_broadcast_ss((r < 3 ? a0 : a3) + r % 3 * step);
        acc[r][0] = _mm256_fmadd_ps(a, b0, acc[r][0]);
        acc[r][1] = _mm256_fmadd_ps(a, b1, acc[r][1]);
      }
    }
  }
  for (int q = 0; q < 2; ++q) {
    const int64_t j = first + q * 8;
    const __m256i mask = mask_of(s.columns - j);
    if (j >= s.columns) return;
    const float* bias = s.finish.bias ? s.finish.bias + j : nullptr;
#pragma GCC unroll 6
    for (int r = 0; r < kRows; ++r) {
      const float* residual = s.finish.residual ? s.finish.residual + (i + r) * s.finish.residual_stride + j : nullptr;
      _mm256_maskstore_ps(s.c + (i + r) * s.ldc + j, mask, finished(acc[r][q], bias, residual, s.finish, mask));
    }
  }
}

using TileFn = void (*)(const StripF32&, int64_t, int64_t);
static constexpr int kMaxRows = 6;
static constexpr TileFn kTiles[kMaxRows] = {tile<1>, tile<2>, tile<3>, tile<4>, tile<5>, tile<6>};

void gemm_f32_strip_avx2(const StripF32& s) noexcept {
  for (int64_t first = 0; first < s.columns; first += kPanelF32) {
    for (int64_t i = 0; i < s.rows;) {
      const int64_t left = s.rows - i;
      // A short last tile is balanced with the one before it: 4 + 4 rows, not 6 + 2.
      const int64_t rows = left <= kMaxRows ? left : left < 2 * kMaxRows ? (left + 1) / 2 : kMaxRows;
      kTiles[rows - 1](s, i, first);
      i += rows;
    }
  }
}

template <int kPixels>
static inline void depthwise_pixels(const DepthwiseRowF32& r, int64_t i, int64_t j, __m256i mask) {
  __m256 acc[kPixels];
#pragma GCC unroll 4
  for (int x = 0; x < kPixels; ++x) acc[x] = _mm256_setzero_ps();
  const float* const* taps = r.taps + i * r.tap_count;
  for (int64_t t = 0; t < r.tap_count; ++t) {
    const __m256 w = _mm256_maskload_ps(r.w + t * r.c + j, mask);
#pragma GCC unroll 4
    for (int x = 0; x < kPixels; ++x) {
      acc[x] = _mm256_fmadd_ps(_mm256_maskload_ps(taps[x * r.tap_count + t] + j, mask), w, acc[x]);
    }
  }
  const float* bias = r.finish.bias ? r.finish.bias + j : nullptr;
#pragma GCC unroll 4
  for (int x = 0; x < kPixels; ++x) {
    const float* residual = r.finish.residual ? r.finish.residual + (i + x) * r.finish.residual_stride + j : nullptr;
    _mm256_maskstore_ps(r.y + (i + x) * r.ldy + j, mask, finished(acc[x], bias, residual, r.finish, mask));
  }
}

void depthwise_f32_row_avx2(const DepthwiseRowF32& r) noexcept {
  int64_t i = 0;
  for (; i + 4 <= r.pixels; i += 4) {
    for (int64_t j = 0; j < r.c; j += 8) depthwise_pixels<4>(r, i, j, mask_of(r.c - j));
  }
  for (; i < r.pixels; ++i) {
    for (int64_t j = 0; j < r.c; j += 8) depthwise_pixels<1>(r, i, j, mask_of(r.c - j));
  }
}

}  // namespace lowbit

LOWBIT_TARGET_END
#endif
