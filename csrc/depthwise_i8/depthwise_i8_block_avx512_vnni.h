// What the 3x3 and 5x5 walks share at this level: a block of channels, its input rows, the epilogue and the stores.
#pragma once

#include "depthwise_i8/depthwise_i8_kernel.h"
#include "requantize/requantize_avx512.h"
#include "target.h"

#if LOWBIT_X86
#include <immintrin.h>

LOWBIT_TARGET_BEGIN_AVX512_VNNI

namespace lowbit {
namespace {

// Everything here is inlined into loops that store bytes, which may alias whatever lies in memory: so a walk's loop
// works on a local copy of its Block, whose fields then stay in registers.
#define LOWBIT_INLINE_LAMBDA __attribute__((always_inline))
#define LOWBIT_INLINE LOWBIT_INLINE_LAMBDA inline

// A block's own constants, in lane order.
struct Constants {
  alignas(64) int32_t init[kDepthwiseBlock];
  alignas(64) int32_t scale[kDepthwiseBlock];  // float32, or a FixedAvx512's m
  alignas(64) float half[kDepthwiseBlock];     // a FloorAvx512's; m_odd and right: a FixedAvx512's
  alignas(64) int32_t m_odd[kDepthwiseBlock];
  alignas(64) int32_t right[kDepthwiseBlock];
};

// A block of channels, with what its pixels share.
struct Block {
  int64_t first;   // channel
  __mmask64 mask;  // of its channels, in one copy
  const int8_t* weights;
  const Constants* constants;
  const int32_t* init;  // of constants
  int64_t w, ldx, out_w, ldy, end;
  __m512i outside;
  uint8_t* y;
  __m512i zero_point, lo, hi, flip;
  CodesAvx512 codes;
};

// 64 values from `from` on, of which `width` are there, to lane order with their copies: the 4 x 4 lanes are
// transposed.
LOWBIT_INLINE void load_lane_order(const void* from, int64_t width, __m512i to[4]) {
  __m512i n[4];
  const int copies = static_cast<int>(depthwise_copies(width));
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    const int64_t at = i % (4 / copies) * 16, left = width - at;
    const __mmask16 mask = left >= 16 ? __mmask16(0xffff) : left <= 0 ? __mmask16(0) : __mmask16((1u << left) - 1);
    n[i] = _mm512_maskz_loadu_epi32(mask, static_cast<const int32_t*>(from) + at);
  }
  const __m512i a = _mm512_shuffle_i32x4(n[0], n[1], 0x44), b = _mm512_shuffle_i32x4(n[2], n[3], 0x44);
  const __m512i c = _mm512_shuffle_i32x4(n[0], n[1], 0xee), d = _mm512_shuffle_i32x4(n[2], n[3], 0xee);
  to[0] = _mm512_shuffle_i32x4(a, b, 0x88);
  to[1] = _mm512_shuffle_i32x4(a, b, 0xdd);
  to[2] = _mm512_shuffle_i32x4(c, d, 0x88);
  to[3] = _mm512_shuffle_i32x4(c, d, 0xdd);
}

// sum x * w - x_zero_point * sum w + bias: the second and third terms are where the accumulators start.
LOWBIT_INLINE void fill_constants(const DepthwiseWalkI8& k, int64_t block, Constants& constants) {
  const int64_t first = block * kDepthwiseBlock, width = k.c - first;
  const Requantizer& q = *k.requantizer;
  const auto channels = [&](const void* of, __m512i to[4]) LOWBIT_INLINE_LAMBDA {
    if (q.scale_step == 0) {
      to[0] = to[1] = to[2] = to[3] = _mm512_set1_epi32(*static_cast<const int32_t*>(of));
    } else {
      load_lane_order(static_cast<const int32_t*>(of) + first, width, to);
    }
  };
  __m512i bias[4] = {}, scale[4], shift[4] = {};
  if (q.bias) load_lane_order(q.bias + first, width, bias);
  const bool fixed_point = finish_of(q, true) == Finish::fixed;
  channels(fixed_point ? static_cast<const void*>(q.m0) : q.scale, scale);
  if (fixed_point) channels(q.shift, shift);
  const __m512i zero_point = _mm512_set1_epi32(k.outside[0]);
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    const __m512i correction = _mm512_mullo_epi32(zero_point, _mm512_loadu_si512(k.sums + first + i * 16));
    _mm512_store_si512(constants.init + i * 16, _mm512_sub_epi32(bias[i], correction));
    if (fixed_point) {
      const FixedAvx512 fixed = fixed_avx512(scale[i], shift[i]);
      scale[i] = fixed.m;
      _mm512_store_si512(constants.m_odd + i * 16, fixed.m_odd);
      _mm512_store_si512(constants.right + i * 16, fixed.right);
    } else {
      _mm512_store_ps(constants.half + i * 16, floor_half_avx512(_mm512_castsi512_ps(scale[i]), q.rounding));
    }
    _mm512_store_si512(constants.scale + i * 16, scale[i]);
  }
}

LOWBIT_INLINE Block block_at(const DepthwiseWalkI8& k, int64_t block, const Constants& constants) {
  const int64_t first = block * kDepthwiseBlock, width = k.c - first;
  return {.first = first,
          .mask = width >= 64 ? ~__mmask64{0} : (__mmask64{1} << width) - 1,
          .weights = k.weights + first * k.slots,
          .constants = &constants,
          .init = constants.init,
          .w = k.w,
          .ldx = k.ldx,
          .out_w = k.out_w,
          .ldy = k.ldy,
          .end = k.end,
          .outside = _mm512_set1_epi8(static_cast<char>(k.outside[0])),
          .y = k.y,
          .zero_point = _mm512_set1_epi16(static_cast<int16_t>(k.zero_point)),
          .lo = _mm512_set1_epi8(static_cast<char>(k.lo)),
          .hi = _mm512_set1_epi8(static_cast<char>(k.hi)),
          .flip = _mm512_set1_epi8(static_cast<char>(k.flip)),
          .codes = codes_avx512(*k.requantizer)};
}

// What becomes of sums: bare where nearest_even gives plain uint8 with zero point 0, as after a ReLU, and the last
// steps of the epilogue do nothing.
enum class Ending { bare, floats, floor, fixed };

inline Ending ending_of(const DepthwiseWalkI8& k) {
  const Finish finish = finish_of(*k.requantizer, true);
  if (finish != Finish::floats) return finish == Finish::floor ? Ending::floor : Ending::fixed;
  return k.zero_point == 0 && k.lo == 0 && k.hi == 255 && k.flip == 0 ? Ending::bare : Ending::floats;
}

// The first pixels of kIn input rows, for each of kSets groups of output rows that share a register.
template <int kIn, int kSets>
struct Rows {
  const uint8_t* start[kIn][kSets];
};

template <int kIn, int kSets>
LOWBIT_INLINE Rows<kIn, kSets> rows_at(const DepthwiseWalkI8& k, int64_t first, int64_t oy, int64_t rows_per_set) {
  Rows<kIn, kSets> rows;
  for (int set = 0; set < kSets; ++set) {
    for (int r = 0; r < kIn; ++r) {
      const int64_t iy = (oy + set * rows_per_set) * k.stride - k.pad_top + r;
      rows.start[r][set] = (iy >= 0 && iy < k.h ? k.x + iy * k.w * k.ldx : k.outside) + first;
    }
  }
  return rows;
}

template <int kIn, int kSets, bool kMasked>
LOWBIT_INLINE __m512i load(const Rows<kIn, kSets>& rows, int r, int64_t offset, __mmask64 mask) {
  const uint8_t* const* p = rows.start[r];
  if constexpr (kSets == 1) {
    return kMasked ? _mm512_maskz_loadu_epi8(mask, p[0] + offset) : _mm512_loadu_si512(p[0] + offset);
  } else if constexpr (kSets == 2) {
    const __mmask32 m = static_cast<__mmask32>(mask);
    return _mm512_inserti64x4(_mm512_castsi256_si512(_mm256_maskz_loadu_epi8(m, p[0] + offset)),
                              _mm256_maskz_loadu_epi8(m, p[1] + offset), 1);
  } else {
    const __mmask16 m = static_cast<__mmask16>(mask);
    __m512i v = _mm512_castsi128_si512(_mm_maskz_loadu_epi8(m, p[0] + offset));
    v = _mm512_inserti32x4(v, _mm_maskz_loadu_epi8(m, p[1] + offset), 1);
    v = _mm512_inserti32x4(v, _mm_maskz_loadu_epi8(m, p[2] + offset), 2);
    return _mm512_inserti32x4(v, _mm_maskz_loadu_epi8(m, p[3] + offset), 3);
  }
}

// The epilogue of requantize.h for codes: nearest_even with scale < 1, where rounding commutes with the clamp to whole
// numbers, or fixed-point multipliers. Saturating to int16 before the zero point is added cannot change what
// saturates to uint8. First two accumulators to words, whose constants start at `at`, then four to bytes, which are in
// the natural order of channels.
template <Ending kEnding>
LOWBIT_INLINE __m512i words(__m512i acc0, __m512i acc1, int at, const Block& b) {
  const Constants& c = *b.constants;
  if constexpr (kEnding == Ending::floor) {
    const auto scaled = [&](__m512i acc, int i) LOWBIT_INLINE_LAMBDA {
      return scaled_avx512(b.codes, acc, FloorAvx512{_mm512_load_ps(c.scale + i), _mm512_load_ps(c.half + i)}).t;
    };
    const __m512i packed = _mm512_packs_epi32(scaled(acc0, at), scaled(acc1, at + 16));
    return _mm512_adds_epi16(signed_words_avx512(b.codes, packed), b.zero_point);
  } else if constexpr (kEnding == Ending::fixed) {
    const auto scaled = [&](__m512i acc, int i) LOWBIT_INLINE_LAMBDA {
      const auto from = [i](const int32_t* of) LOWBIT_INLINE_LAMBDA { return _mm512_load_si512(of + i); };
      return scaled_avx512(b.codes, acc, FixedAvx512{from(c.scale), from(c.m_odd), from(c.right)});
    };
    const __m512i packed = half_words_avx512(_mm512_packs_epi32(scaled(acc0, at), scaled(acc1, at + 16)));
    return _mm512_adds_epi16(packed, b.zero_point);
  } else {
    const __m512 f0 = _mm512_mul_ps(_mm512_cvtepi32_ps(acc0), _mm512_load_ps(c.scale + at));
    const __m512 f1 = _mm512_mul_ps(_mm512_cvtepi32_ps(acc1), _mm512_load_ps(c.scale + at + 16));
    const __m512i v0 = _mm512_cvt_roundps_epi32(f0, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const __m512i v1 = _mm512_cvt_roundps_epi32(f1, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const __m512i packed = _mm512_packs_epi32(v0, v1);
    return kEnding == Ending::bare ? packed : _mm512_adds_epi16(packed, b.zero_point);
  }
}

template <Ending kEnding>
LOWBIT_INLINE __m512i bytes(__m512i words0, __m512i words1, const Block& b) {
  const __m512i y = _mm512_packus_epi16(words0, words1);
  return kEnding == Ending::bare ? y : _mm512_xor_si512(_mm512_min_epu8(_mm512_max_epu8(y, b.lo), b.hi), b.flip);
}

template <int kSets, bool kMasked>
LOWBIT_INLINE void store(const Block& b, __m512i y, int64_t oy, int64_t rows_per_set, int64_t ox) {
  uint8_t* out = b.y + (oy * b.out_w + ox) * b.ldy + b.first;
  const int64_t step = rows_per_set * b.out_w * b.ldy;
  const auto inside = [&](int set) LOWBIT_INLINE_LAMBDA { return oy + set * rows_per_set < b.end; };
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
