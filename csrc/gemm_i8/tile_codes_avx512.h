// Sums of a tile in memory to codes in c, 64 at a time: every Finish of requantize_kernel.h but any.
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
  int64_t j, cols;
};

// What one call keeps in registers.
template <int kC, bool kResidual, Finish kFinish>
struct CodesUnit {
  CodesAvx512 e;  // a copy: stores of bytes may alias everything else
  typename ScaleAvx512<kFinish>::Channels scale[kC];
  const Requantizer* q;
  uint64_t mask;
  int64_t ldc, residual_stride;

  // Rows numbered row[r], whose outputs are to + r * ldc, but to + last * ldc at most: 4 / kC rows.
  inline __attribute__((always_inline)) void finish(const int32_t* sums, const uint8_t* row, uint8_t* to,
                                                    const uint8_t* residual, int last) const {
    constexpr int kRows = 4 / kC;
    typename ScaleAvx512<kFinish>::Scaled f[4];
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
      const int at = r < last ? r : last;
      const int32_t* from = sums + row[at] * (16 * kC);
#pragma GCC unroll 4
      for (int c = 0; c < kC; ++c) {
        auto& v = f[r * kC + c];
        v = scaled_avx512(e, _mm512_load_si512(from + 16 * c), scale[c]);
        if constexpr (kResidual) {
          const uint8_t* codes = residual + at * residual_stride + 16 * c;
          v = add_residual_avx512(e, *q, v, _mm_maskz_loadu_epi8((__mmask16)(mask >> (16 * c)), codes));
        }
      }
    }
    const __m512i y = round64_avx512<kResidual>(e, f[0], f[1], f[2], f[3]);
    if constexpr (kC == 4) {
      _mm512_mask_storeu_epi8(to, mask, y);
    } else if constexpr (kC == 2) {
      _mm256_mask_storeu_epi8(to, (__mmask32)mask, _mm512_castsi512_si256(y));
      if (last >= 1) _mm256_mask_storeu_epi8(to + ldc, (__mmask32)mask, _mm512_extracti64x4_epi64(y, 1));
    } else {
      _mm_mask_storeu_epi8(to, (__mmask16)mask, _mm512_castsi512_si128(y));
      if (last >= 1) _mm_mask_storeu_epi8(to + ldc, (__mmask16)mask, _mm512_extracti32x4_epi32(y, 1));
      if (last >= 2) _mm_mask_storeu_epi8(to + 2 * ldc, (__mmask16)mask, _mm512_extracti32x4_epi32(y, 2));
      if (last >= 3) _mm_mask_storeu_epi8(to + 3 * ldc, (__mmask16)mask, _mm512_extracti32x4_epi32(y, 3));
    }
  }
};

// Finishes `count` rows.
template <int kC, bool kResidual, Finish kFinish>
static inline __attribute__((always_inline)) void tile_codes_avx512(const CodesAvx512& e, const Requantizer& q,
                                                                    int64_t ldc, const TileCodes& t, int count) {
  constexpr int kRows = 4 / kC;
  CodesUnit<kC, kResidual, kFinish> unit;
  unit.e = e;
  unit.q = &q;
  unit.mask = t.cols >= 64 ? ~uint64_t{0} : (uint64_t{1} << t.cols) - 1;
  unit.ldc = ldc;
  unit.residual_stride = kResidual ? q.residual_stride : 0;
#pragma GCC unroll 4
  for (int c = 0; c < kC; ++c) {
    unit.scale[c] = ScaleAvx512<kFinish>::at(q, t.j + 16 * c, (__mmask16)(unit.mask >> (16 * c)));
  }
  const int32_t* sums = t.sums;
  const uint8_t *row = t.rows, *residual = t.residual;
  uint8_t* to = t.to;
  for (; count >= kRows; count -= kRows) {
    unit.finish(sums, row, to, residual, kRows - 1);
    row += kRows;
    to += kRows * ldc;
    if constexpr (kResidual) residual += kRows * unit.residual_stride;
  }
  if (kRows > 1 && count > 0) unit.finish(sums, row, to, residual, count - 1);
}

LOWBIT_TARGET_END

}  // namespace lowbit

#endif
