// vfmadd231ps on tiles of 14 rows x 32 columns: 28 accumulators, two loads of B and 14 broadcasts of A for 28 FMAs, so
// neither load port nor latency binds. 14 divides the rows of the usual images (112, 56, 28, 14, 7 x 2). Uses AVX-512 F
// only; the level is the lowest that has it.
#include "gemm_f32/gemm_f32_kernel.h"
#include "target.h"

#if LOWBIT_X86
#include <immintrin.h>

LOWBIT_TARGET_BEGIN_AVX512_VNNI

namespace lowbit {

static inline __mmask16 mask_of(int64_t columns) {
  return columns >= 16 ? __mmask16(0xffff) : __mmask16((1u << columns) - 1);
}

// f's pointers are those of this vector's first element.
static inline __m512 finished(__m512 v, const float* bias, const float* residual, const FinishF32& f, __mmask16 mask) {
  if (bias) v = _mm512_add_ps(v, _mm512_maskz_loadu_ps(mask, bias));
  if (residual) v = _mm512_add_ps(v, _mm512_maskz_loadu_ps(mask, residual));
  v = _mm512_max_ps(_mm512_set1_ps(f.lo), v);  // the second operand is the result where one is NaN
  return _mm512_min_ps(_mm512_set1_ps(f.hi), v);
}

// Rows [i, i + kRows) of a strip, all its columns: one panel or two.
template <int kRows, int kPanels>
static void tile(const StripF32& s, int64_t i) {
  __m512 acc[kRows][kPanels];
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
    for (int q = 0; q < kPanels; ++q) acc[r][q] = _mm512_setzero_ps();
  }
  const float* b0 = s.b;
  const int64_t to_next_panel = s.runs * s.run_length * kPanelF32, step = s.row_step;
  for (int64_t run = 0; run < s.runs; ++run) {
    // Five bases, three rows each by the address modes base, base + step, base + 2 step: they all stay in registers.
    const float* base[5];
#pragma GCC unroll 5
    for (int g = 0; 3 * g < kRows; ++g) base[g] = s.a + s.run_offset[run] + (i + 3 * g) * step;
#pragma GCC unroll 2
    for (int64_t p = 0; p < s.run_length; ++p) {
      __m512 b[kPanels];
#pragma GCC unroll 2
      for (int q = 0; q < kPanels; ++q) b[q] = _mm512_loadu_ps(b0 + q * to_next_panel);
      b0 += kPanelF32;
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) {
        const __m512 a = _mm512_set1_ps(base[r / 3][r % 3 * step]);
#pragma GCC unroll 2
        for (int q = 0; q < kPanels; ++q) acc[r][q] = _mm512_fmadd_ps(a, b[q], acc[r][q]);
      }
#pragma GCC unroll 5
      for (int g = 0; 3 * g < kRows; ++g) ++base[g];
    }
  }
#pragma GCC unroll 2
  for (int q = 0; q < kPanels; ++q) {
    const int64_t j = q * kPanelF32;
    const __mmask16 mask = mask_of(s.columns - j);
    const float* bias = s.finish.bias ? s.finish.bias + j : nullptr;
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      const float* residual = s.finish.residual ? s.finish.residual + (i + r) * s.finish.residual_stride + j : nullptr;
      _mm512_mask_storeu_ps(s.c + (i + r) * s.ldc + j, mask, finished(acc[r][q], bias, residual, s.finish, mask));
    }
  }
}

using TileFn = void (*)(const StripF32&, int64_t);
static constexpr int kMaxRows = 14;
#define LOWBIT_TILES(panels)                                                                \
  {tile<1, panels>,  tile<2, panels>,  tile<3, panels>,  tile<4, panels>, tile<5, panels>,  \
   tile<6, panels>,  tile<7, panels>,  tile<8, panels>,  tile<9, panels>, tile<10, panels>, \
   tile<11, panels>, tile<12, panels>, tile<13, panels>, tile<14, panels>}
static constexpr TileFn kTiles[2][kMaxRows] = {LOWBIT_TILES(1), LOWBIT_TILES(2)};
#undef LOWBIT_TILES

void gemm_f32_strip_avx512_vnni(const StripF32& s) noexcept {
  const TileFn* tiles = kTiles[s.columns > kPanelF32];
  for (int64_t i = 0; i < s.rows;) {
    const int64_t left = s.rows - i;
    // A short last tile is balanced with the one before it: 8 + 8 rows, not 14 + 2.
    const int64_t rows = left <= kMaxRows ? left : left < 2 * kMaxRows ? (left + 1) / 2 : kMaxRows;
    tiles[rows - 1](s, i);
    i += rows;
  }
}

// Up to 64 channels of 4 pixels: a tap's four pointers and four weights serve 16 FMAs.
template <int kPixels, int kVectors>
static void depthwise_block(const DepthwiseRowF32& r, int64_t i, int64_t j, __mmask16 last) {
  const __mmask16 all = 0xffff;
  __m512 acc[kPixels][kVectors];
#pragma GCC unroll 4
  for (int x = 0; x < kPixels; ++x) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) acc[x][v] = _mm512_setzero_ps();
  }
  const float* const* taps = r.taps + i * r.tap_count;
  const float* weights = r.w + j;
  for (int64_t t = 0; t < r.tap_count; ++t, ++taps, weights += r.c) {
    __m512 w[kVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) w[v] = _mm512_maskz_loadu_ps(v + 1 < kVectors ? all : last, weights + v * 16);
#pragma GCC unroll 4
    for (int x = 0; x < kPixels; ++x) {
      const float* in = taps[x * r.tap_count] + j;
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) {
        acc[x][v] = _mm512_fmadd_ps(_mm512_maskz_loadu_ps(v + 1 < kVectors ? all : last, in + v * 16), w[v], acc[x][v]);
      }
    }
  }
#pragma GCC unroll 4
  for (int v = 0; v < kVectors; ++v) {
    const int64_t c = j + v * 16;
    const __mmask16 mask = v + 1 < kVectors ? all : last;
    const float* bias = r.finish.bias ? r.finish.bias + c : nullptr;
#pragma GCC unroll 4
    for (int x = 0; x < kPixels; ++x) {
      const float* residual = r.finish.residual ? r.finish.residual + (i + x) * r.finish.residual_stride + c : nullptr;
      _mm512_mask_storeu_ps(r.y + (i + x) * r.ldy + c, mask, finished(acc[x][v], bias, residual, r.finish, mask));
    }
  }
}

template <int kPixels>
static void depthwise_pixels(const DepthwiseRowF32& r, int64_t i) {
  for (int64_t j = 0; j < r.c; j += 64) {
    const int64_t left = r.c - j;
    if (left > 48) {
      depthwise_block<kPixels, 4>(r, i, j, mask_of(left - 48));
    } else if (left > 32) {
      depthwise_block<kPixels, 3>(r, i, j, mask_of(left - 32));
    } else if (left > 16) {
      depthwise_block<kPixels, 2>(r, i, j, mask_of(left - 16));
    } else {
      depthwise_block<kPixels, 1>(r, i, j, mask_of(left));
    }
  }
}

void depthwise_f32_row_avx512_vnni(const DepthwiseRowF32& r) noexcept {
  int64_t i = 0;
  for (; i + 4 <= r.pixels; i += 4) depthwise_pixels<4>(r, i);
  const int64_t left = r.pixels - i;
  if (left == 3) depthwise_pixels<3>(r, i);
  if (left == 2) depthwise_pixels<2>(r, i);
  if (left == 1) depthwise_pixels<1>(r, i);
}

}  // namespace lowbit

LOWBIT_TARGET_END
#endif
