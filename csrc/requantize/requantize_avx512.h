// The epilogue of lowbit/requantize.h in AVX-512 registers, for kernels that fuse it (levels avx512_vnni and above).
//
// Codes cost one convert, one multiply, one min, one convert and a share of three packs per 16 outputs. Only the upper
// clamp is needed before the rounding: what is too small, and INT_MIN where the conversion overflowed, saturates in the
// packs and meets lo in bytes; what is too large would have become INT_MIN.
#pragma once

#include "requantize/requantize_kernel.h"
#include "target.h"

#if LOWBIT_X86
#include <immintrin.h>
#include <stdint.h>

namespace lowbit {

LOWBIT_TARGET_BEGIN_AVX512_VNNI

// An epilogue with code outputs in registers.
struct CodesAvx512 {
  __m512 top;  // hi - zero_point; for Finish::floor 2^30
  __m512i zero_point16, lo8, hi8, order;
  __m512 residual_scale;
  __m512i residual_zero_point;
  __m512i nudge;   // fixed point: 2^31 in 64 bits for gemmlowp
  __mmask16 away;  // all for gemmlowp, whose second rounding goes away from zero
  __m512i sign;    // Finish::floor: the sign bit where signs matters, else 0
  __m512 residual_half;
  bool is_signed, residual_is_signed;
  bool limits, shifts, clamps;  // top, zero_point16 and lo8..hi8 matter
  bool signs;                   // Finish::floor: sums below 0 are rounded apart and can be seen
};

// 1/2 + d of Finish::floor, below.
static inline __m512 floor_half_avx512(__m512 scale, Rounding rounding) {
  const __m512 half = _mm512_set1_ps(0.5f);
  const __mmask16 twice = rounding == Rounding::gemmlowp ? _mm512_cmp_ps_mask(scale, half, _CMP_LT_OQ) : (__mmask16)0;
  const __m512i exponent = _mm512_set1_epi32((int)0xff800000);
  return _mm512_add_ps(half, _mm512_castsi512_ps(_mm512_maskz_and_epi32(twice, _mm512_castps_si512(scale), exponent)));
}

static inline CodesAvx512 codes_avx512(const Requantizer& q) {
  CodesAvx512 e;
  e.top = _mm512_set1_ps(q.rounding == Rounding::nearest_even ? (float)(q.hi - q.zero_point) : 0x1p30f);
  e.zero_point16 = _mm512_set1_epi16((short)q.zero_point);
  e.lo8 = _mm512_set1_epi8((char)q.lo);
  e.hi8 = _mm512_set1_epi8((char)q.hi);
  e.order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  e.residual_scale = _mm512_set1_ps(q.residual_scale);
  e.residual_zero_point = _mm512_set1_epi32(q.residual_zero_point);
  e.nudge = _mm512_set1_epi64(q.rounding == Rounding::gemmlowp ? int64_t{1} << 31 : 0);
  e.away = q.rounding == Rounding::gemmlowp ? 0xffff : 0;
  e.signs = e.away && (q.residual || q.lo < q.zero_point);
  e.sign = _mm512_set1_epi32(e.signs ? INT32_MIN : 0);
  e.residual_half = floor_half_avx512(_mm512_set1_ps(q.residual_scale * 0x1p-16f), q.rounding);
  e.is_signed = q.out_dtype == DType::s8;
  e.residual_is_signed = q.residual_dtype == DType::s8;
  e.limits = q.may_overflow;
  e.shifts = q.zero_point != 0;
  e.clamps = q.hi != q.lo + 255;  // lo may be the least int
  return e;
}

static inline __m512 scaled_avx512(const CodesAvx512&, __m512i acc, __m512 scale) {
  return _mm512_mul_ps(_mm512_cvtepi32_ps(acc), scale);
}

// r - zero point of 16 residual codes.
static inline __m512i residual_avx512(const CodesAvx512& e, __m128i r) {
  const __m512i wide = e.residual_is_signed ? _mm512_cvtepi8_epi32(r) : _mm512_cvtepu8_epi32(r);
  return _mm512_sub_epi32(wide, e.residual_zero_point);
}

// f + float(r - zero point) * scale
static inline __m512 add_residual_avx512(const CodesAvx512& e, const Requantizer&, __m512 f, __m128i r) {
  return _mm512_add_ps(f, _mm512_mul_ps(_mm512_cvtepi32_ps(residual_avx512(e, r)), e.residual_scale));
}

// 64 codes of words packed from four vectors, in the order of these.
static inline __m512i bytes64_avx512(const CodesAvx512& e, __m512i low, __m512i high) {
  if (e.shifts) {
    low = _mm512_adds_epi16(low, e.zero_point16);
    high = _mm512_adds_epi16(high, e.zero_point16);
  }
  if (e.is_signed) {
    const __m512i y = _mm512_permutexvar_epi32(e.order, _mm512_packs_epi16(low, high));
    return e.clamps ? _mm512_min_epi8(_mm512_max_epi8(y, e.lo8), e.hi8) : y;
  }
  const __m512i y = _mm512_permutexvar_epi32(e.order, _mm512_packus_epi16(low, high));
  return e.clamps ? _mm512_min_epu8(_mm512_max_epu8(y, e.lo8), e.hi8) : y;
}

// 64 codes of four scaled vectors, in their order.
template <bool kResidual>
static inline __m512i round64_avx512(const CodesAvx512& e, __m512 f0, __m512 f1, __m512 f2, __m512 f3) {
  if (e.limits) {
    f0 = _mm512_min_ps(f0, e.top), f1 = _mm512_min_ps(f1, e.top);
    f2 = _mm512_min_ps(f2, e.top), f3 = _mm512_min_ps(f3, e.top);
  }
  return bytes64_avx512(e, _mm512_packs_epi32(_mm512_cvtps_epi32(f0), _mm512_cvtps_epi32(f1)),
                        _mm512_packs_epi32(_mm512_cvtps_epi32(f2), _mm512_cvtps_epi32(f3)));
}

// Scales, biases and the like of channels j..j+15 under a mask; one for all where step is 0.
static inline __m512 channel_scales_avx512(const Requantizer& q, int64_t j, __mmask16 mask) {
  return q.scale_step ? _mm512_maskz_loadu_ps(mask, q.scale + j) : _mm512_set1_ps(*q.scale);
}

static inline __m512i load_acc_avx512(const int32_t* acc, const Requantizer& q, int64_t j, __mmask16 mask) {
  const __m512i a = _mm512_maskz_loadu_epi32(mask, acc);
  return q.bias ? _mm512_add_epi32(a, _mm512_maskz_loadu_epi32(mask, q.bias + j)) : a;
}

static inline const uint8_t* residual_codes_avx512(const Requantizer& q, int64_t i, int64_t j) {
  return (const uint8_t*)q.residual + i * q.residual_stride + j;
}

static inline void floats_row_avx512(const int32_t* acc, int64_t i, int64_t j, int64_t cols, float* y,
                                     const Requantizer& q) {
  for (int64_t c = 0; c < cols; c += 16) {
    const __mmask16 mask = cols - c < 16 ? (__mmask16)((1u << (cols - c)) - 1) : (__mmask16)0xffff;
    __m512 f = _mm512_cvtepi32_ps(load_acc_avx512(acc + c, q, j + c, mask));
    f = _mm512_mul_ps(f, channel_scales_avx512(q, j + c, mask));
    if (q.float_bias) f = _mm512_add_ps(f, _mm512_maskz_loadu_ps(mask, q.float_bias + j + c));
    if (q.residual) {
      const float* r = (const float*)q.residual + i * q.residual_stride + j + c;
      f = _mm512_add_ps(f, _mm512_maskz_loadu_ps(mask, r));
    }
    f = _mm512_max_ps(_mm512_set1_ps(q.flo), f);  // the second operand where one is NaN
    _mm512_mask_storeu_ps(y + c, mask, _mm512_min_ps(_mm512_set1_ps(q.fhi), f));
  }
}

static inline void sums_row_avx512(const int32_t* acc, int64_t j, int64_t cols, int32_t* y, const Requantizer& q) {
  for (int64_t c = 0; c < cols; c += 16) {
    const __mmask16 mask = cols - c < 16 ? (__mmask16)((1u << (cols - c)) - 1) : (__mmask16)0xffff;
    _mm512_mask_storeu_epi32(y + c, mask, load_acc_avx512(acc + c, q, j + c, mask));
  }
}

// Fixed-point multipliers below 1/2 of 16 channels.
//
// With h = x * m0 * 2^-31 rounded, gemmlowp's up from the half and single's down, and r = -shift > 0, both roundings
// have the form v = (t + 1) >> 1, t = (h + away) >> (r - 1): gemmlowp's second rounding, half away from zero, is
// (h - (h < 0) + 2^(r - 1)) >> r, and single's h needs no more than its floor. No step leaves 32 bits but the products,
// and v's own is done on words. h is the upper half of 2 m0 x, but 2 m0 fits no int32: with m = 2 m0 - 2^32 it is
// x + (m x >> 32).
struct FixedAvx512 {
  __m512i m, m_odd, right;  // m_odd: m's odd elements in the place of the even ones; right = r - 1
};

static inline FixedAvx512 fixed_avx512(__m512i m0, __m512i shift) {
  const __m512i m = _mm512_slli_epi32(m0, 1);
  return {m, _mm512_srli_epi64(m, 32), _mm512_xor_si512(shift, _mm512_set1_epi32(-1))};
}

static inline FixedAvx512 channel_fixed_avx512(const Requantizer& q, int64_t j, __mmask16 mask) {
  if (!q.scale_step) return fixed_avx512(_mm512_set1_epi32(*q.m0), _mm512_set1_epi32(*q.shift));
  return fixed_avx512(_mm512_maskz_loadu_epi32(mask, q.m0 + j), _mm512_maskz_loadu_epi32(mask, q.shift + j));
}

// t
static inline __m512i scaled_avx512(const CodesAvx512& e, __m512i x, FixedAvx512 s) {
  const __m512i even = _mm512_add_epi64(_mm512_mul_epi32(x, s.m), e.nudge);
  const __m512i odd = _mm512_add_epi64(_mm512_mul_epi32(_mm512_srli_epi64(x, 32), s.m_odd), e.nudge);
  const __m512i high =
      _mm512_castps_si512(_mm512_mask_movehdup_ps(_mm512_castsi512_ps(odd), 0x5555, _mm512_castsi512_ps(even)));
  const __m512i h = _mm512_add_epi32(x, high);
  return _mm512_srav_epi32(_mm512_mask_add_epi32(h, e.away, h, _mm512_srai_epi32(h, 31)), s.right);
}

// (t + 1) >> 1 on words
static inline __m512i half_words_avx512(__m512i t) {
  return _mm512_srai_epi16(_mm512_adds_epi16(t, _mm512_set1_epi16(1)), 1);
}

static inline __m512i half_dwords_avx512(__m512i t) {
  return _mm512_srai_epi32(_mm512_add_epi32(t, _mm512_set1_epi32(1)), 1);
}

// v with its residual, in full.
static inline __m512i add_residual_avx512(const CodesAvx512& e, const Requantizer& q, __m512i t, __m128i r) {
  const __m512i x = _mm512_slli_epi32(residual_avx512(e, r), 16);
  const FixedAvx512 s = fixed_avx512(_mm512_set1_epi32(q.residual_fixed.m0), _mm512_set1_epi32(q.residual_fixed.shift));
  return _mm512_add_epi32(half_dwords_avx512(t), half_dwords_avx512(scaled_avx512(e, x, s)));
}

// 64 codes of four vectors: t, or v where they have their residuals.
template <bool kResidual>
static inline __m512i round64_avx512(const CodesAvx512& e, __m512i t0, __m512i t1, __m512i t2, __m512i t3) {
  const __m512i low = _mm512_packs_epi32(t0, t1), high = _mm512_packs_epi32(t2, t3);
  if (kResidual) return bytes64_avx512(e, low, high);
  return bytes64_avx512(e, half_words_avx512(low), half_words_avx512(high));
}

// Fixed-point multipliers in float arithmetic that rounds down, where Requantizer::by_floor says that it is exact.
//
// With u = x * s, single is floor(u + 1/2). gemmlowp's first rounding is h = floor(u 2^r + 1/2), r = -shift; its second
// reaches k > 0 where h >= (k - 1/2) 2^r, which is whole for r > 0, and so where u + d >= k - 1/2, d = 2^-(r + 1).
// Below 0, where halves go down, it stays at k if h > (k - 1/2) 2^r, and so u - d >= k - 1/2. Hence floor(u + (1/2 +
// d)) for x >= 0 and floor(u - (1/2 + d)) + 1 for x < 0; d is s without its mantissa, and 0 where s >= 1/2 has no
// second rounding. Rounding down passes no whole number: one FMA and one conversion give the floor. What is below 0 and
// clamped to the zero point needs no sign.
struct FloorAvx512 {
  __m512 scale, half;  // 1/2 + d
};
struct FlooredAvx512 {
  __m512i t;  // the floor, where signs matter without its + 1; v with a residual
};

static inline FlooredAvx512 scaled_avx512(const CodesAvx512& e, __m512i x, FloorAvx512 s) {
  constexpr int kDown = _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC;
  const __m512 half = _mm512_castsi512_ps(_mm512_ternarylogic_epi32(_mm512_castps_si512(s.half), x, e.sign, 0xf8));
  __m512 f = _mm512_fmadd_round_ps(_mm512_cvtepi32_ps(x), s.scale, half, kDown);
  if (e.limits) f = _mm512_max_ps(_mm512_min_ps(f, e.top), _mm512_set1_ps(-0x1p30f));
  return {_mm512_cvt_roundps_epi32(f, kDown)};
}

static inline FlooredAvx512 add_residual_avx512(const CodesAvx512& e, const Requantizer&, FlooredAvx512 v, __m128i r) {
  const FlooredAvx512 w = scaled_avx512(e, residual_avx512(e, r), FloorAvx512{e.residual_scale, e.residual_half});
  const __m512i sum = _mm512_add_epi32(v.t, w.t);
  const __m512i ones = _mm512_add_epi32(_mm512_srai_epi32(v.t, 31), _mm512_srai_epi32(w.t, 31));
  return {_mm512_mask_sub_epi32(sum, e.away, sum, ones)};
}

// t with the + 1 of what is below 0, on words.
static inline __m512i signed_words_avx512(const CodesAvx512& e, __m512i t) {
  return e.signs ? _mm512_sub_epi16(t, _mm512_srai_epi16(t, 15)) : t;
}

template <bool kResidual>
static inline __m512i round64_avx512(const CodesAvx512& e, FlooredAvx512 v0, FlooredAvx512 v1, FlooredAvx512 v2,
                                     FlooredAvx512 v3) {
  const __m512i low = _mm512_packs_epi32(v0.t, v1.t), high = _mm512_packs_epi32(v2.t, v3.t);
  if (kResidual) return bytes64_avx512(e, low, high);
  return bytes64_avx512(e, signed_words_avx512(e, low), signed_words_avx512(e, high));
}

// The ways from sums to codes.
template <Finish>
struct ScaleAvx512;
template <>
struct ScaleAvx512<Finish::floats> {
  using Channels = __m512;
  using Scaled = __m512;
  static inline __attribute__((always_inline)) Channels at(const Requantizer& q, int64_t j, __mmask16 mask) {
    return channel_scales_avx512(q, j, mask);
  }
};
template <>
struct ScaleAvx512<Finish::floor> {
  using Channels = FloorAvx512;
  using Scaled = FlooredAvx512;
  static inline __attribute__((always_inline)) Channels at(const Requantizer& q, int64_t j, __mmask16 mask) {
    const __m512 scale = channel_scales_avx512(q, j, mask);
    return {scale, floor_half_avx512(scale, q.rounding)};
  }
};
template <>
struct ScaleAvx512<Finish::fixed> {
  using Channels = FixedAvx512;
  using Scaled = __m512i;
  static inline __attribute__((always_inline)) Channels at(const Requantizer& q, int64_t j, __mmask16 mask) {
    return channel_fixed_avx512(q, j, mask);
  }
};

template <Finish kFinish, bool kResidual>
static inline void codes_row_avx512(const CodesAvx512& e, const int32_t* acc, int64_t i, int64_t j, int64_t cols,
                                    uint8_t* y, const Requantizer& q) {
  const auto scaled = [&](int64_t c, __mmask16 mask) __attribute__((always_inline)) {
    const __m512i x = load_acc_avx512(acc + c, q, j + c, mask);
    const typename ScaleAvx512<kFinish>::Scaled v = scaled_avx512(e, x, ScaleAvx512<kFinish>::at(q, j + c, mask));
    if constexpr (kResidual) {
      return add_residual_avx512(e, q, v, _mm_maskz_loadu_epi8(mask, residual_codes_avx512(q, i, j + c)));
    } else {
      return v;
    }
  };
  int64_t c = 0;
  for (; c + 64 <= cols; c += 64) {
    const __m512i codes = round64_avx512<kResidual>(e, scaled(c, 0xffff), scaled(c + 16, 0xffff),
                                                    scaled(c + 32, 0xffff), scaled(c + 48, 0xffff));
    _mm512_storeu_si512(y + c, codes);
  }
  for (; c < cols; c += 16) {
    const __mmask16 mask = cols - c < 16 ? (__mmask16)((1u << (cols - c)) - 1) : (__mmask16)0xffff;
    const auto v = scaled(c, mask);
    _mm_mask_storeu_epi8(y + c, mask, _mm512_castsi512_si128(round64_avx512<kResidual>(e, v, v, v, v)));
  }
}

// Eight 64-bit x * m0 * 2^(shift - 31), |x| < 2^31, rounded as in requantize_scalar.cpp.
static inline __m512i multiply_wide_avx512(__m512i x, __m512i m0, __m512i shift, Rounding rounding) {
  const __m512i zero = _mm512_setzero_si512(), one = _mm512_set1_epi64(1);
  if (rounding == Rounding::single) {
    const __m512i right = _mm512_sub_epi64(_mm512_set1_epi64(31), shift);
    const __m512i half = _mm512_sllv_epi64(one, _mm512_sub_epi64(right, one));
    return _mm512_srav_epi64(_mm512_add_epi64(_mm512_mul_epi32(x, m0), half), right);
  }
  x = _mm512_sllv_epi64(x, _mm512_max_epi64(shift, zero));
  x = _mm512_max_epi64(_mm512_min_epi64(x, _mm512_set1_epi64(INT32_MAX)), _mm512_set1_epi64(INT32_MIN));
  const __m512i product = _mm512_add_epi64(_mm512_mul_epi32(x, m0), _mm512_set1_epi64(int64_t{1} << 30));
  const __m512i high = _mm512_srai_epi64(product, 31);
  const __m512i right = _mm512_max_epi64(_mm512_sub_epi64(zero, shift), zero);
  const __m512i half = _mm512_srli_epi64(_mm512_sllv_epi64(one, right), 1);
  const __mmask8 away = _mm512_cmplt_epi64_mask(high, zero) & _mm512_cmpgt_epi64_mask(right, zero);
  const __m512i sum = _mm512_add_epi64(high, half);
  return _mm512_srav_epi64(_mm512_mask_sub_epi64(sum, away, sum, one), right);
}

// Any fixed-point multipliers: channels [j, j + 8) of a row, less where the mask says so.
static inline void wide8_avx512(const int32_t* acc, int64_t i, int64_t j, __mmask8 mask, uint8_t* y,
                                const Requantizer& q) {
  const auto channels = [&](const int32_t* of) __attribute__((always_inline)) {
    return q.scale_step ? _mm512_cvtepi32_epi64(_mm256_maskz_loadu_epi32(mask, of + j)) : _mm512_set1_epi64(*of);
  };
  const __m512i lo = _mm512_set1_epi64(q.lo - q.zero_point), hi = _mm512_set1_epi64(q.hi - q.zero_point);
  const __m512i x = _mm512_cvtepi32_epi64(_mm512_castsi512_si256(load_acc_avx512(acc, q, j, mask)));
  __m512i v = multiply_wide_avx512(x, channels(q.m0), channels(q.shift), q.rounding);
  if (q.residual) {
    const __m128i codes = _mm_maskz_loadu_epi8(mask, residual_codes_avx512(q, i, j));
    const __m512i r = q.residual_dtype == DType::s8 ? _mm512_cvtepi8_epi64(codes) : _mm512_cvtepu8_epi64(codes);
    const __m512i shifted = _mm512_slli_epi64(_mm512_sub_epi64(r, _mm512_set1_epi64(q.residual_zero_point)), 16);
    v = _mm512_add_epi64(v, multiply_wide_avx512(shifted, _mm512_set1_epi64(q.residual_fixed.m0),
                                                 _mm512_set1_epi64(q.residual_fixed.shift), q.rounding));
  }
  v = _mm512_add_epi64(_mm512_min_epi64(_mm512_max_epi64(v, lo), hi), _mm512_set1_epi64(q.zero_point));
  _mm_mask_storeu_epi8(y, mask, _mm512_cvtepi64_epi8(v));
}

static inline void wide_row_avx512(const CodesAvx512&, const int32_t* acc, int64_t i, int64_t j, int64_t cols,
                                   uint8_t* y, const Requantizer& q) {
  for (int64_t c = 0; c < cols; c += 8) {
    const __mmask8 mask = cols - c < 8 ? (__mmask8)((1u << (cols - c)) - 1) : (__mmask8)0xff;
    wide8_avx512(acc + c, i, j + c, mask, y + c, q);
  }
}

// RequantizeFn.
static inline void requantize_rows_avx512(const int32_t* acc, int64_t acc_stride, int64_t i, int64_t rows, int64_t j,
                                          int64_t cols, void* y, int64_t y_stride, const Requantizer& q) {
  if (q.out_dtype == DType::s32) {
    for (int64_t r = 0; r < rows; ++r) {
      sums_row_avx512(acc + r * acc_stride, j, cols, (int32_t*)y + (i + r) * y_stride + j, q);
    }
  } else if (q.out_dtype == DType::f32) {
    for (int64_t r = 0; r < rows; ++r) {
      floats_row_avx512(acc + r * acc_stride, i + r, j, cols, (float*)y + (i + r) * y_stride + j, q);
    }
  } else {
    const CodesAvx512 e = codes_avx512(q);
    const auto rows_by = [&](auto with_residual, auto without) { return q.residual ? with_residual : without; };
    auto codes_row = wide_row_avx512;
    switch (finish_of(q, true)) {
      case Finish::floats:
        codes_row = rows_by(codes_row_avx512<Finish::floats, true>, codes_row_avx512<Finish::floats, false>);
        break;
      case Finish::floor:
        codes_row = rows_by(codes_row_avx512<Finish::floor, true>, codes_row_avx512<Finish::floor, false>);
        break;
      case Finish::fixed:
        codes_row = rows_by(codes_row_avx512<Finish::fixed, true>, codes_row_avx512<Finish::fixed, false>);
        break;
      case Finish::any:
        break;
    }
    for (int64_t r = 0; r < rows; ++r) {
      codes_row(e, acc + r * acc_stride, i + r, j, cols, (uint8_t*)y + (i + r) * y_stride + j, q);
    }
  }
}

LOWBIT_TARGET_END

}  // namespace lowbit

#endif
