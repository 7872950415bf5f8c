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

// The channels [j, j + cols) of a tile kC panels wide, kC 1, 2 or 4.
template <int kC>
struct TileColumns {
  int64_t j;
  uint64_t mask;
  __m512 scale[kC];
};

template <int kC>
static inline __attribute__((always_inline)) TileColumns<kC> tile_columns_avx512(const Requantizer& q, int64_t j,
                                                                                 int64_t cols) {
  TileColumns<kC> t;
  t.j = j;
  t.mask = cols >= 64 ? ~uint64_t{0} : (uint64_t{1} << cols) - 1;
  for (int c = 0; c < kC; ++c) t.scale[c] = channel_scales_avx512(q, j + 16 * c, (__mmask16)(t.mask >> (16 * c)));
  return t;
}

// One unit: 4 / kC rows, whose sums lie at sums[r] and whose output rows are out[r].
template <int kC, bool kResidual>
static inline __attribute__((always_inline)) void tile_codes_avx512(const CodesAvx512& e, const GemmI8& g,
                                                                    const TileColumns<kC>& t,
                                                                    const int32_t* const (&sums)[4 / kC],
                                                                    const int64_t (&out)[4 / kC]) {
  __m512 f[4];
  for (int r = 0; r < 4 / kC; ++r) {
    for (int c = 0; c < kC; ++c) {
      __m512 v = scaled_avx512(_mm512_load_si512(sums[r] + 16 * c), t.scale[c]);
      if constexpr (kResidual) {
        const uint8_t* from = residual_codes_avx512(*g.requantizer, out[r], t.j + 16 * c);
        v = add_residual_avx512(e, v, _mm_maskz_loadu_epi8((__mmask16)(t.mask >> (16 * c)), from));
      }
      f[r * kC + c] = v;
    }
  }
  const __m512i y = round64_avx512(e, f[0], f[1], f[2], f[3]);
  uint8_t* to = (uint8_t*)g.c + t.j;
  if constexpr (kC == 4) {
    _mm512_mask_storeu_epi8(to + out[0] * g.ldc, t.mask, y);
  } else if constexpr (kC == 2) {
    _mm256_mask_storeu_epi8(to + out[0] * g.ldc, (__mmask32)t.mask, _mm512_castsi512_si256(y));
    _mm256_mask_storeu_epi8(to + out[1] * g.ldc, (__mmask32)t.mask, _mm512_extracti64x4_epi64(y, 1));
  } else {
    _mm_mask_storeu_epi8(to + out[0] * g.ldc, (__mmask16)t.mask, _mm512_castsi512_si128(y));
    _mm_mask_storeu_epi8(to + out[1] * g.ldc, (__mmask16)t.mask, _mm512_extracti32x4_epi32(y, 1));
    _mm_mask_storeu_epi8(to + out[2] * g.ldc, (__mmask16)t.mask, _mm512_extracti32x4_epi32(y, 2));
    _mm_mask_storeu_epi8(to + out[3] * g.ldc, (__mmask16)t.mask, _mm512_extracti32x4_epi32(y, 3));
  }
}

LOWBIT_TARGET_END

}  // namespace lowbit

#endif
