// vpopcntd: the set bits of 16 words at once. Lanes are output channels, so that there is no horizontal sum and any k
// works; 32-bit words, since 64-bit ones would halve the channels that an epilogue's vector holds. A tile keeps 24 sums
// in registers, 6 rows x 64 channels: a word of a row is broadcast by the load and meets four vectors of weights.
// xor, vpopcntd and vpaddd are three operations on two ports (vpopcntd on one of them): 341 products a cycle, of which
// this loop runs 338. Intrinsics, because GCC 12 keeps them in registers here and does not with inline assembly.
#include "target.h"
#include "xnor/xnor_kernel.h"

#if LOWBIT_X86
#include <immintrin.h>
#include <stdint.h>

LOWBIT_TARGET_BEGIN_AVX512

namespace lowbit {
namespace {

constexpr int kLanes = 16;

static inline __mmask16 lanes(int64_t count) {
  return count >= kLanes ? (__mmask16)0xffff : count <= 0 ? (__mmask16)0 : (__mmask16)((1u << count) - 1);
}

// Stores the bits of a row's channels [j, j + 16 kC), turned where flip says so.
static inline void store_bits(const XnorFinish& f, int64_t i, int64_t j, uint64_t bits, int64_t channels) {
  uint64_t flip = f.flip[j / 32];
  const bool two = channels > 32;
  if (two) flip |= (uint64_t)f.flip[j / 32 + 1] << 32;
  bits ^= flip;
  if (channels < 64) bits &= ((uint64_t)1 << channels) - 1;
  uint32_t* to = f.bits + i * f.ld_bits + j / 32;
  to[0] = (uint32_t)bits;
  if (two) to[1] = (uint32_t)(bits >> 32);
}

static inline void store_codes(const XnorFinish& f, int64_t at, __m512 v, __mmask16 mask) {
  const int least = f.out == XnorOut::s8 ? -128 : 0;
  // A NaN is the first operand of the maximum, whose second is then the result.
  v = _mm512_max_ps(v, _mm512_set1_ps((float)(least - f.zero_point)));
  v = _mm512_min_ps(v, _mm512_set1_ps((float)(least + 255 - f.zero_point)));
  const __m512i q = _mm512_add_epi32(_mm512_cvtps_epi32(v), _mm512_set1_epi32(f.zero_point));
  _mm_mask_storeu_epi8((int8_t*)f.y + at, mask, _mm512_cvtepi32_epi8(q));
}

// What a tile's channels share.
template <int kC>
struct Channels {
  int64_t j, count;
  bool plain;  // twice the scale is finite where the scale is
  __mmask16 mask[kC];
  __m512 scale[kC], bias[kC];

  inline __attribute__((always_inline)) Channels(const XnorBlock& b, int64_t first) : j(first) {
    count = b.channels - j < kC * kLanes ? b.channels - j : kC * kLanes;
    const XnorFinish& f = b.finish;
    plain = true;
#pragma GCC unroll 4
    for (int c = 0; c < kC; ++c) {
      mask[c] = lanes(count - c * kLanes);
      scale[c] = f.scale ? _mm512_maskz_loadu_ps(mask[c], f.scale + j + c * kLanes) : _mm512_set1_ps(1.0f);
      bias[c] = f.bias ? _mm512_maskz_loadu_ps(mask[c], f.bias + j + c * kLanes) : _mm512_set1_ps(-0.0f);  // neutral
      plain &= _mm512_cmp_ps_mask(_mm512_abs_ps(scale[c]), _mm512_set1_ps(1e38f), _CMP_GT_OQ) == 0;
    }
  }
};

// Bits by the dot product, and nothing else: one comparison per sum.
template <int kC>
static inline __attribute__((always_inline)) void finish_dot_bits(const XnorBlock& b, const Channels<kC>& t, int64_t i,
                                                                  const __m512i (&half)[kC]) {
  const int32_t* least = b.least + t.j + (b.pattern ? b.pattern[i] : 0);
  uint64_t bits = 0;
#pragma GCC unroll 4
  for (int c = 0; c < kC; ++c) {
    const __mmask16 m = _mm512_cmpge_epi32_mask(half[c], _mm512_loadu_si512(least + c * kLanes));
    bits |= (uint64_t)_cvtmask16_u32(m) << (c * kLanes);
  }
  store_bits(b.finish, i, t.j, bits, t.count);
}

// float32 of scale and bias alone, of even starts: float(dot) * scale = float(half) * (2 * scale), to the last bit.
template <int kC>
static inline __attribute__((always_inline)) void finish_plain(const XnorBlock& b, const Channels<kC>& t, int64_t i,
                                                               const __m512i (&half)[kC]) {
  float* y = (float*)b.finish.y + i * b.finish.ldy + t.j;
#pragma GCC unroll 4
  for (int c = 0; c < kC; ++c) {
    const __m512 v = _mm512_mul_ps(_mm512_cvtepi32_ps(half[c]), _mm512_add_ps(t.scale[c], t.scale[c]));
    _mm512_mask_storeu_ps(y + c * kLanes, t.mask[c], _mm512_add_ps(v, t.bias[c]));
  }
}

// Everything else, for the rows of a tile whose sums were stored.
template <int kC>
static __attribute__((noinline)) void finish_any(const XnorBlock& b, const Channels<kC>& t, int64_t i, int rows,
                                                 const int32_t* halves) {
  const XnorFinish& f = b.finish;
  for (; rows > 0; --rows, ++i) {
    uint64_t bits = 0;
    for (int c = 0; c < kC; ++c, halves += kLanes) {
      const __m512i half = _mm512_load_si512(halves);
      const int64_t j = t.j + c * kLanes, at = i * f.ldy + j;
      const __mmask16 mask = t.mask[c];
      const __m512i start = _mm512_loadu_si512(b.start + j + (b.pattern ? b.pattern[i] : 0));
      const __m512i dot = _mm512_or_si512(_mm512_add_epi32(half, half), _mm512_and_si512(start, _mm512_set1_epi32(1)));
      __m512 v = _mm512_mul_ps(_mm512_cvtepi32_ps(dot), t.scale[c]);
      if (f.input_scale) v = _mm512_mul_ps(v, _mm512_set1_ps(f.input_scale[i]));
      v = _mm512_add_ps(v, t.bias[c]);
      if (f.residual) v = _mm512_add_ps(v, _mm512_maskz_loadu_ps(mask, f.residual + i * f.residual_stride + j));
      v = _mm512_max_ps(_mm512_set1_ps(f.lo), v);  // a NaN is the second operand, which is then the result
      v = _mm512_min_ps(_mm512_set1_ps(f.hi), v);
      if (f.out == XnorOut::f32) {
        _mm512_mask_storeu_ps((float*)f.y + at, mask, v);
      } else if (f.out == XnorOut::s32) {
        int32_t* y = (int32_t*)f.y + at;
        __m512i sum = dot;
        if (f.multiplier) {
          sum = _mm512_mullo_epi32(dot, _mm512_maskz_loadu_epi32(mask, f.multiplier + j));
          sum = _mm512_add_epi32(sum, _mm512_maskz_loadu_epi32(mask, f.offset + j));
          if (f.accumulate) sum = _mm512_add_epi32(sum, _mm512_maskz_loadu_epi32(mask, y));
          sum = _mm512_sra_epi32(sum, _mm_cvtsi32_si128(f.shift));
        }
        _mm512_mask_storeu_epi32(y, mask, sum);
      } else if (f.out != XnorOut::none) {
        store_codes(f, at, v, mask);
      }
      if (f.bits) {
        __mmask16 m;
        if (f.by_dot) {
          const int32_t* least = b.least + j + (b.pattern ? b.pattern[i] : 0);
          m = _mm512_cmpge_epi32_mask(half, _mm512_loadu_si512(least));
        } else {
          const __m512 threshold = f.threshold ? _mm512_maskz_loadu_ps(mask, f.threshold + j) : _mm512_setzero_ps();
          m = _mm512_cmp_ps_mask(v, threshold, _CMP_GE_OQ);
        }
        bits |= (uint64_t)_cvtmask16_u32(m) << (c * kLanes);
      }
    }
    if (f.bits) store_bits(f, i, t.j, bits, t.count);
  }
}

enum class Finish { dot_bits, plain, any };

// Rows [i, i + kR), channels [t.j, t.j + 16 kC).
template <int kR, int kC>
static void tile(const XnorBlock& b, const Channels<kC>& t, Finish finish, int64_t i) {
  __m512i half[kR][kC];
  const int32_t* start = b.start + t.j;
  if (!b.pattern) {
#pragma GCC unroll 4
    for (int c = 0; c < kC; ++c) half[0][c] = _mm512_srai_epi32(_mm512_loadu_si512(start + c * kLanes), 1);
#pragma GCC unroll 24
    for (int r = 1; r < kR; ++r) {
#pragma GCC unroll 4
      for (int c = 0; c < kC; ++c) half[r][c] = half[0][c];
    }
  } else {
#pragma GCC unroll 24
    for (int r = 0; r < kR; ++r) {
#pragma GCC unroll 4
      for (int c = 0; c < kC; ++c) {
        half[r][c] = _mm512_srai_epi32(_mm512_loadu_si512(start + b.pattern[i + r] + c * kLanes), 1);
      }
    }
  }
  const uint32_t* w = b.w + t.j / kXnorPanel * b.runs * b.run_words * kXnorPanel + t.j % kXnorPanel;
  for (int64_t run = 0; run < b.runs; ++run) {
    const uint32_t* row[kR];
#pragma GCC unroll 24
    for (int r = 0; r < kR; ++r) row[r] = b.rows[i + r] + b.run_offset[run];
    for (int64_t p = 0; p < b.run_words; ++p, w += kXnorPanel) {
      __m512i weights[kC];
#pragma GCC unroll 4
      for (int c = 0; c < kC; ++c) weights[c] = _mm512_loadu_si512(w + c * kLanes);
#pragma GCC unroll 24
      for (int r = 0; r < kR; ++r) {
        const __m512i a = _mm512_set1_epi32((int)row[r][p]);
#pragma GCC unroll 4
        for (int c = 0; c < kC; ++c) {
          half[r][c] = _mm512_sub_epi32(half[r][c], _mm512_popcnt_epi32(_mm512_xor_si512(a, weights[c])));
        }
      }
    }
  }
  if (finish == Finish::dot_bits) {
#pragma GCC unroll 24
    for (int r = 0; r < kR; ++r) finish_dot_bits<kC>(b, t, i + r, half[r]);
  } else if (finish == Finish::plain && t.plain) {
#pragma GCC unroll 24
    for (int r = 0; r < kR; ++r) finish_plain<kC>(b, t, i + r, half[r]);
  } else {
    alignas(64) int32_t halves[kR * kC * kLanes];
#pragma GCC unroll 24
    for (int r = 0; r < kR; ++r) {
#pragma GCC unroll 4
      for (int c = 0; c < kC; ++c) _mm512_store_si512(halves + (r * kC + c) * kLanes, half[r][c]);
    }
    finish_any<kC>(b, t, i, kR, halves);
  }
}

// All rows, kR at a time and the rest one size down.
template <int kR, int kC>
static void rows_of(const XnorBlock& b, const Channels<kC>& t, Finish finish, int64_t i) {
  for (; i + kR <= b.row_count; i += kR) tile<kR, kC>(b, t, finish, i);
  if constexpr (kR > 1) rows_of<(kR + 1) / 2 < kR ? (kR + 1) / 2 : 1, kC>(b, t, finish, i);
}

}  // namespace

void xnor_avx512(const XnorBlock& b) noexcept {
  const XnorFinish& f = b.finish;
  const bool clamped = f.lo != -__builtin_inff() || f.hi != __builtin_inff();
  const Finish finish = f.out == XnorOut::none && f.by_dot ? Finish::dot_bits
                        : f.out == XnorOut::f32 && b.even && !f.bits && !f.input_scale && !f.residual && !clamped
                            ? Finish::plain
                            : Finish::any;
  int64_t j = 0;
  for (; j + 48 < b.channels; j += kXnorPanel) rows_of<6, 4>(b, Channels<4>(b, j), finish, 0);
  const int64_t rest = b.channels - j;
  if (rest > 32) {
    rows_of<8, 3>(b, Channels<3>(b, j), finish, 0);
  } else if (rest > 16) {
    rows_of<12, 2>(b, Channels<2>(b, j), finish, 0);
  } else if (rest > 0) {
    rows_of<12, 1>(b, Channels<1>(b, j), finish, 0);
  }
}

}  // namespace lowbit

LOWBIT_TARGET_END

#endif
