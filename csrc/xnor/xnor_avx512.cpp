// vpopcntd: the set bits of 16 words at once. Lanes are output channels, so that there is no horizontal sum and any k
// works; 32-bit words, since 64-bit ones would halve the channels that an epilogue's vector holds. A tile keeps 24 sums
// in registers, 6 rows x 64 channels: a word of a row is broadcast by the load and meets four vectors of weights.
// xor, vpopcntd and vpaddd are three operations on two ports (vpopcntd on one of them): 341 products a cycle, of which
// this loop runs 338.
#include "target.h"
#include "xnor/xnor_kernel.h"

#if LOWBIT_X86
#include <immintrin.h>
#include <stdint.h>

LOWBIT_TARGET_BEGIN_AVX512

namespace lowbit {
namespace {

constexpr int kLanes = 16;

// How a tile ends: the common cases from registers, everything else through memory.
enum class Finish { dot_bits, plain, dots, sums, any };

static inline __mmask16 lanes(int64_t count) {
  return count >= kLanes ? (__mmask16)0xffff : count <= 0 ? (__mmask16)0 : (__mmask16)((1u << count) - 1);
}

// Bits of the channels whose half is at least what `least` says.
template <int kC>
static inline __attribute__((always_inline)) uint64_t at_least(const __m512i (&half)[kC], const int32_t* least) {
  uint64_t bits = 0;
#pragma GCC unroll 4
  for (int c = 0; c < kC; ++c) {
    const __mmask16 m = _mm512_cmpge_epi32_mask(half[c], _mm512_loadu_si512(least + c * kLanes));
    bits |= (uint64_t)_cvtmask16_u32(m) << (c * kLanes);
  }
  return bits;
}

// The bits of a row's channels [j, j + channels), turned where flip says so.
static inline void store_bits(const XnorFinish& f, int64_t i, int64_t j, uint64_t bits, int64_t channels) {
  uint32_t* to = f.bits + i * f.ld_bits + j / 32;
  const uint32_t* flip = f.flip + j / 32;
  const uint64_t valid = channels < kXnorPanel ? ((uint64_t)1 << channels) - 1 : ~(uint64_t)0;
  to[0] = ((uint32_t)bits ^ flip[0]) & (uint32_t)valid;
  if (channels > 32) to[1] = ((uint32_t)(bits >> 32) ^ flip[1]) & (uint32_t)(valid >> 32);
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
  bool doubles;  // twice the scale is finite where the scale is
  __mmask16 mask[kC];
  __m512 scale[kC], bias[kC];

  explicit Channels(const XnorBlock& b, int64_t first) : j(first) {
    count = b.channels - j < kC * kLanes ? b.channels - j : kC * kLanes;
    doubles = true;
    const XnorFinish& f = b.finish;
#pragma GCC unroll 4
    for (int c = 0; c < kC; ++c) {
      mask[c] = lanes(count - c * kLanes);
      scale[c] = f.scale ? _mm512_maskz_loadu_ps(mask[c], f.scale + j + c * kLanes) : _mm512_set1_ps(1.0f);
      bias[c] = f.bias ? _mm512_maskz_loadu_ps(mask[c], f.bias + j + c * kLanes) : _mm512_set1_ps(-0.0f);  // neutral
      doubles &= _mm512_cmp_ps_mask(_mm512_abs_ps(scale[c]), _mm512_set1_ps(1e38f), _CMP_GT_OQ) == 0;
    }
  }
};

// float32 with a residual, a clamp or bits, of even starts and whole panels: what a residual network's blocks end with.
template <bool kResidual, bool kBits>
static __attribute__((noinline)) void finish_sums(const XnorBlock& b, const Channels<4>& t, int64_t i, int rows,
                                                  const int32_t* halves) {
  const XnorFinish& f = b.finish;
  const __m512 lo = _mm512_set1_ps(f.lo), hi = _mm512_set1_ps(f.hi), zero = _mm512_setzero_ps();
  const float* threshold = f.threshold ? f.threshold + t.j : nullptr;
  for (; rows > 0; --rows, ++i, halves += kXnorPanel) {
    float* y = (float*)f.y + i * f.ldy + t.j;
    const float* residual = kResidual ? f.residual + i * f.residual_stride + t.j : nullptr;
    uint64_t bits = 0;
#pragma GCC unroll 4
    for (int c = 0; c < 4; ++c) {
      const __m512 doubled = _mm512_add_ps(t.scale[c], t.scale[c]);
      __m512 v = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_load_si512(halves + c * kLanes)), doubled);
      v = _mm512_add_ps(v, t.bias[c]);
      if (kResidual) v = _mm512_add_ps(v, _mm512_loadu_ps(residual + c * kLanes));
      v = _mm512_min_ps(hi, _mm512_max_ps(lo, v));  // a NaN is the second operand, which is then the result
      _mm512_storeu_ps(y + c * kLanes, v);
      if (kBits) {
        const __m512 least = threshold ? _mm512_loadu_ps(threshold + c * kLanes) : zero;
        bits |= (uint64_t)_cvtmask16_u32(_mm512_cmp_ps_mask(v, least, _CMP_GE_OQ)) << (c * kLanes);
      }
    }
    if (kBits) store_bits(f, i, t.j, bits, kXnorPanel);
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
        _mm512_mask_storeu_epi32((int32_t*)f.y + at, mask, dot);
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

// One word of a row times kC vectors of weights, taken off the sums. In assembly, for its order: one xor, count and
// subtraction after the other. GCC 12 orders them another way in every instance of the tile, between 60 and 98 % of the
// limit, and so does asm of single instructions.
#define LOWBIT_XNOR_COUNT(sum, weight) \
  "vpxord %[" weight                   \
  "], %[a], %[bits]\n\t"               \
  "vpopcntd %[bits], %[bits]\n\t"      \
  "vpsubd %[bits], %[" sum "], %[" sum "]\n\t"

template <int kC>
static inline
    __attribute__((always_inline)) void count_row(__m512i (&sum)[kC], const __m512i (&w)[kC], const uint32_t* word) {
  __m512i a, bits;
  if constexpr (kC == 4) {
    __asm__ volatile(
        "vpbroadcastd %[word], %[a]\n\t" LOWBIT_XNOR_COUNT("s0", "w0") LOWBIT_XNOR_COUNT("s1", "w1")
            LOWBIT_XNOR_COUNT("s2", "w2") LOWBIT_XNOR_COUNT("s3", "w3")
        : [s0] "+v"(sum[0]), [s1] "+v"(sum[1]), [s2] "+v"(sum[2]), [s3] "+v"(sum[3]), [a] "=&v"(a), [bits] "=&v"(bits)
        : [w0] "v"(w[0]), [w1] "v"(w[1]), [w2] "v"(w[2]), [w3] "v"(w[3]), [word] "m"(*word));
  } else {
    a = _mm512_set1_epi32((int)*word);
#pragma GCC unroll 4
    for (int c = 0; c < kC; ++c) {
      sum[c] = _mm512_sub_epi32(sum[c], _mm512_popcnt_epi32(_mm512_xor_si512(a, w[c])));
    }
  }
}

// Rows [i, i + kR), channels [t.j, t.j + 16 kC). Not inlined, or GCC copies and spills the sums.
template <Finish kFinish, int kR, int kC>
static __attribute__((noinline)) void tile(const XnorBlock& b, const Channels<kC>& t, int64_t i) {
  static const int64_t kNoPattern[kR] = {};
  const int64_t* pattern = b.pattern ? b.pattern + i : kNoPattern;
  __m512i half[kR][kC];
#pragma GCC unroll 24
  for (int r = 0; r < kR; ++r) {
    const int32_t* from = b.half + t.j + pattern[r];
#pragma GCC unroll 4
    for (int c = 0; c < kC; ++c) half[r][c] = _mm512_loadu_si512(from + c * kLanes);
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
        count_row<kC>(half[r], weights, row[r] + p);
      }
    }
  }
  const XnorFinish& f = b.finish;
  if constexpr (kFinish == Finish::dot_bits) {
    uint64_t flip;
    __builtin_memcpy(&flip, f.flip + t.j / 32, sizeof(flip));
    uint32_t* to = f.bits + i * f.ld_bits + t.j / 32;
#pragma GCC unroll 24
    for (int r = 0; r < kR; ++r, to += f.ld_bits) {
      const uint64_t bits = flip ^ at_least<kC>(half[r], b.least + t.j + pattern[r]);
      __builtin_memcpy(to, &bits, sizeof(bits));
    }
  } else if constexpr (kFinish == Finish::plain) {
    // Of even starts: float(dot) * scale = float(half) * (2 * scale), to the last bit.
    float* y = (float*)f.y + i * f.ldy + t.j;
#pragma GCC unroll 24
    for (int r = 0; r < kR; ++r, y += f.ldy) {
#pragma GCC unroll 4
      for (int c = 0; c < kC; ++c) {
        const __m512 v = _mm512_mul_ps(_mm512_cvtepi32_ps(half[r][c]), _mm512_add_ps(t.scale[c], t.scale[c]));
        _mm512_storeu_ps(y + c * kLanes, _mm512_add_ps(v, t.bias[c]));
      }
    }
  } else if constexpr (kFinish == Finish::dots) {
    int32_t* y = (int32_t*)f.y + i * f.ldy + t.j;
#pragma GCC unroll 24
    for (int r = 0; r < kR; ++r, y += f.ldy) {
#pragma GCC unroll 4
      for (int c = 0; c < kC; ++c) _mm512_storeu_si512(y + c * kLanes, _mm512_add_epi32(half[r][c], half[r][c]));
    }
  } else {
    alignas(64) int32_t halves[kR * kC * kLanes];
#pragma GCC unroll 24
    for (int r = 0; r < kR; ++r) {
#pragma GCC unroll 4
      for (int c = 0; c < kC; ++c) _mm512_store_si512(halves + (r * kC + c) * kLanes, half[r][c]);
    }
    if constexpr (kFinish == Finish::sums) {
      if (f.residual) {
        f.bits ? finish_sums<true, true>(b, t, i, kR, halves) : finish_sums<true, false>(b, t, i, kR, halves);
      } else {
        f.bits ? finish_sums<false, true>(b, t, i, kR, halves) : finish_sums<false, false>(b, t, i, kR, halves);
      }
    } else {
      finish_any<kC>(b, t, i, kR, halves);
    }
  }
}

// All rows, kR at a time and the rest one size down.
template <Finish kFinish, int kR, int kC>
static void rows_of(const XnorBlock& b, const Channels<kC>& t, int64_t i) {
  for (; i + kR <= b.row_count; i += kR) tile<kFinish, kR, kC>(b, t, i);
  if constexpr (kR > 1) rows_of<kFinish, kR / 2, kC>(b, t, i);
}

// The last channels, fewer than a panel: dots of whole vectors from registers.
template <Finish kFinish, int kC>
static void rest_of(const XnorBlock& b, int64_t j) {
  const Channels<kC> t(b, j);
  if constexpr (kFinish == Finish::dots) {
    if (t.count == kC * kLanes) return rows_of<Finish::dots, 8, kC>(b, t, 0);
  }
  rows_of<Finish::any, 8, kC>(b, t, 0);
}

template <Finish kFinish>
static void run(const XnorBlock& b) {
  int64_t j = 0;
  for (; j + 48 < b.channels; j += kXnorPanel) {
    const Channels<4> t(b, j);
    if (t.count == kXnorPanel && t.doubles) {
      rows_of<kFinish, 6>(b, t, 0);
    } else {
      rows_of<Finish::any, 6>(b, t, 0);
    }
  }
  const int64_t rest = b.channels - j;
  if (rest > 32) {
    rest_of<kFinish, 3>(b, j);
  } else if (rest > 16) {
    rest_of<kFinish, 2>(b, j);
  } else if (rest > 0) {
    rest_of<kFinish, 1>(b, j);
  }
}

}  // namespace

void xnor_avx512(const XnorBlock& b) noexcept {
  const XnorFinish& f = b.finish;
  const bool more = f.input_scale || f.residual || f.lo != -__builtin_inff() || f.hi != __builtin_inff();
  if (f.out == XnorOut::none && f.by_dot) {
    run<Finish::dot_bits>(b);
  } else if (f.out == XnorOut::f32 && b.even && !f.bits && !more) {
    run<Finish::plain>(b);
  } else if (f.out == XnorOut::f32 && b.even && !f.input_scale && !(f.bits && f.by_dot)) {
    run<Finish::sums>(b);
  } else if (f.out == XnorOut::s32 && b.even && !f.bits) {
    run<Finish::dots>(b);
  } else {
    run<Finish::any>(b);
  }
}

}  // namespace lowbit

LOWBIT_TARGET_END

#endif
