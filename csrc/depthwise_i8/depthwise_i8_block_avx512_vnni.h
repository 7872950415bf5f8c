// What the 3x3 and 5x5 walks share at this level: a block of channels, its input rows, the epilogue and the stores.
#pragma once

#include "depthwise_i8/depthwise_i8_kernel.h"
#include "target.h"

#if LOWBIT_X86
#include <immintrin.h>

LOWBIT_TARGET_BEGIN_AVX512_VNNI

namespace lowbit {
namespace {

// A block of channels, with what its pixels share.
struct Block {
  const DepthwiseWalkI8* walk;
  int64_t first;   // channel
  __mmask64 mask;  // of its channels, in one copy
  const int8_t* weights;
  const int32_t* init;
  const float* scale;
};

// The input rows under kRows output rows, for each of kSets groups of output rows that share a register.
template <int kIn, int kSets>
struct Rows {
  const uint8_t* start[kIn][kSets];
  int64_t moves[kIn][kSets];  // all ones, or 0 outside the image
};

template <int kIn, int kSets>
inline Rows<kIn, kSets> rows_at(const Block& b, int64_t oy, int64_t rows_per_set) {
  const DepthwiseWalkI8& k = *b.walk;
  Rows<kIn, kSets> rows;
  for (int set = 0; set < kSets; ++set) {
    for (int r = 0; r < kIn; ++r) {
      const int64_t iy = (oy + set * rows_per_set) * k.stride - k.pad_top + r;
      const bool inside = iy >= 0 && iy < k.h;
      rows.start[r][set] = inside ? k.x + iy * k.w * k.ldx + b.first : k.outside;
      rows.moves[r][set] = inside ? -1 : 0;
    }
  }
  return rows;
}

template <int kIn, int kSets, bool kMasked>
inline __m512i load(const Rows<kIn, kSets>& rows, int r, int64_t offset, __mmask64 mask) {
  const uint8_t* p[kSets];
#pragma GCC unroll 4
  for (int set = 0; set < kSets; ++set) p[set] = rows.start[r][set] + (offset & rows.moves[r][set]);
  if constexpr (kSets == 1) {
    return kMasked ? _mm512_maskz_loadu_epi8(mask, p[0]) : _mm512_loadu_si512(p[0]);
  } else if constexpr (kSets == 2) {
    const __mmask32 m = static_cast<__mmask32>(mask);
    return _mm512_inserti64x4(_mm512_castsi256_si512(_mm256_maskz_loadu_epi8(m, p[0])),
                              _mm256_maskz_loadu_epi8(m, p[1]), 1);
  } else {
    const __mmask16 m = static_cast<__mmask16>(mask);
    __m512i v = _mm512_castsi128_si512(_mm_maskz_loadu_epi8(m, p[0]));
    v = _mm512_inserti32x4(v, _mm_maskz_loadu_epi8(m, p[1]), 1);
    v = _mm512_inserti32x4(v, _mm_maskz_loadu_epi8(m, p[2]), 2);
    return _mm512_inserti32x4(v, _mm_maskz_loadu_epi8(m, p[3]), 3);
  }
}

inline Block block_at(const DepthwiseWalkI8& k, int64_t block) {
  const int64_t first = block * kDepthwiseBlock, width = k.c - first;
  const __mmask64 mask = width >= 64 ? ~__mmask64{0} : (__mmask64{1} << width) - 1;
  return {&k, first, mask, k.weights + first * k.slots, k.init + first, k.scale + first};
}

// The epilogue of requantize.h for codes, nearest_even, scale < 1: rounding commutes with the clamp to whole numbers,
// and saturating to int16 before the zero point is added cannot change what saturates to uint8. First two accumulators
// to words, then four to bytes, which are in the natural order of channels.
inline __m512i words(__m512i acc0, __m512i acc1, const float* scale, const DepthwiseWalkI8& k) {
  const __m512 f0 = _mm512_mul_ps(_mm512_cvtepi32_ps(acc0), _mm512_loadu_ps(scale));
  const __m512 f1 = _mm512_mul_ps(_mm512_cvtepi32_ps(acc1), _mm512_loadu_ps(scale + 16));
  const __m512i v0 = _mm512_cvt_roundps_epi32(f0, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const __m512i v1 = _mm512_cvt_roundps_epi32(f1, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  return _mm512_adds_epi16(_mm512_packs_epi32(v0, v1), _mm512_set1_epi16(static_cast<int16_t>(k.zero_point)));
}

inline __m512i bytes(__m512i words0, __m512i words1, const DepthwiseWalkI8& k) {
  const __m512i lo = _mm512_set1_epi8(static_cast<char>(k.lo)), hi = _mm512_set1_epi8(static_cast<char>(k.hi));
  const __m512i y = _mm512_min_epu8(_mm512_max_epu8(_mm512_packus_epi16(words0, words1), lo), hi);
  return _mm512_xor_si512(y, _mm512_set1_epi8(static_cast<char>(k.flip)));
}

template <int kSets, bool kMasked>
inline void store(const Block& b, __m512i y, int64_t oy, int64_t rows_per_set, int64_t ox) {
  const DepthwiseWalkI8& k = *b.walk;
  uint8_t* out = k.y + (oy * k.out_w + ox) * k.ldy + b.first;
  const int64_t step = rows_per_set * k.out_w * k.ldy;
  const auto inside = [&](int set) { return oy + set * rows_per_set < k.end; };
  if constexpr (kSets == 1) {
    if (kMasked) {
      _mm512_mask_storeu_epi8(out, b.mask, y);
    } else {
      _mm512_storeu_si512(out, y);
    }
  } else if constexpr (kSets == 2) {
    const __mmask32 m = static_cast<__mmask32>(b.mask);
    if (inside(0)) _mm256_mask_storeu_epi8(out, m, _mm512_castsi512_si256(y));
    if (inside(1)) _mm256_mask_storeu_epi8(out + step, m, _mm512_extracti64x4_epi64(y, 1));
  } else {
    const __mmask16 m = static_cast<__mmask16>(b.mask);
    if (inside(0)) _mm_mask_storeu_epi8(out, m, _mm512_castsi512_si128(y));
    if (inside(1)) _mm_mask_storeu_epi8(out + step, m, _mm512_extracti32x4_epi32(y, 1));
    if (inside(2)) _mm_mask_storeu_epi8(out + 2 * step, m, _mm512_extracti32x4_epi32(y, 2));
    if (inside(3)) _mm_mask_storeu_epi8(out + 3 * step, m, _mm512_extracti32x4_epi32(y, 3));
  }
}

}  // namespace
}  // namespace lowbit

LOWBIT_TARGET_END
#endif
