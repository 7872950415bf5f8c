// Sums of a tile in memory to codes in c (nearest_even), 64 at a time.
#pragma once

#include "gemm_i8/gemm_i8_kernel.h"
#include "requantize/requantize_avx512.h"
#include "target.h"

#if LOWBIT_X86
#include <immintrin.h>
#include <stdint.h>

namespace lowbit {

LOWBIT_TARGET_BEGIN_AVX512_VNNI

// Where the codes of a tile's rows go, and where they come from: kC panels wide (1, 2 or 4), channels from j on.
struct TileCodes {
  const int32_t* sums;  // [row][16 kC]
  const uint8_t* rows;  // numbers of the rows to finish, in the order of their output rows
  uint8_t* to;          // output of the first of them, at channel j
  const uint8_t* residual;
  const float* scale;  // of channel j
  int64_t cols;
};

static constexpr int kCodesUnit = 64;  // sums finished at a time

// Finishes `count` rows. A last unit that is not full does its last row more than once.
template <int kC, bool kResidual>
static inline __attribute__((always_inline)) void tile_codes_avx512(const CodesAvx512& shared, const GemmI8& g,
                                                                    int step, const TileCodes& tile, int count) {
  constexpr int kRows = 4 / kC;
  const CodesAvx512 e = shared;  // stays in registers: stores of bytes may alias everything else
  const TileCodes t = tile;
  const int64_t ldc = g.ldc, residual_stride = kResidual ? g.requantizer->residual_stride : 0;
  const uint64_t mask = t.cols >= 64 ? ~uint64_t{0} : (uint64_t{1} << t.cols) - 1;
  __m512 scale[kC];
#pragma GCC unroll 4
  for (int c = 0; c < kC; ++c) {
    scale[c] = step ? _mm512_maskz_loadu_ps((__mmask16)(mask >> (16 * c)), t.scale + 16 * c) : _mm512_set1_ps(*t.scale);
  }
  uint8_t* to = t.to;
  const uint8_t* residual = t.residual;
  for (int first = 0; first < count; first += kRows) {
    __m512 f[4];
    int64_t at[4] = {0, 0, 0, 0};  // rows from `first` on
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
      if (r > 0) at[r] = first + r < count ? at[r - 1] + 1 : at[r - 1];
      const int32_t* sums = t.sums + t.rows[first + at[r]] * (16 * kC);
#pragma GCC unroll 4
      for (int c = 0; c < kC; ++c) {
        __m512 v = scaled_avx512(_mm512_load_si512(sums + 16 * c), scale[c]);
        if constexpr (kResidual) {
          const uint8_t* from = residual + at[r] * residual_stride + 16 * c;
          v = add_residual_avx512(e, v, _mm_maskz_loadu_epi8((__mmask16)(mask >> (16 * c)), from));
        }
        f[r * kC + c] = v;
      }
    }
    const __m512i y = round64_avx512(e, f[0], f[1], f[2], f[3]);
    if constexpr (kC == 4) {
      _mm512_mask_storeu_epi8(to, mask, y);
    } else if constexpr (kC == 2) {
      _mm256_mask_storeu_epi8(to, (__mmask32)mask, _mm512_castsi512_si256(y));
      _mm256_mask_storeu_epi8(to + at[1] * ldc, (__mmask32)mask, _mm512_extracti64x4_epi64(y, 1));
    } else {
      _mm_mask_storeu_epi8(to, (__mmask16)mask, _mm512_castsi512_si128(y));
      _mm_mask_storeu_epi8(to + at[1] * ldc, (__mmask16)mask, _mm512_extracti32x4_epi32(y, 1));
      _mm_mask_storeu_epi8(to + at[2] * ldc, (__mmask16)mask, _mm512_extracti32x4_epi32(y, 2));
      _mm_mask_storeu_epi8(to + at[3] * ldc, (__mmask16)mask, _mm512_extracti32x4_epi32(y, 3));
    }
    to += kRows * ldc;
    if constexpr (kResidual) residual += kRows * residual_stride;
  }
}

LOWBIT_TARGET_END

}  // namespace lowbit

#endif
