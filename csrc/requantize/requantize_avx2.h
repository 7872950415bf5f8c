// The epilogue of lowbit/requantize.h in AVX2 registers, for kernels that fuse it. As in requantize_avx512.h only the
// upper clamp comes before the rounding, and fixed-point multipliers below 1/2 need products of 64 bits only. Columns
// beyond a multiple of 8 and other fixed-point multipliers go to the scalar variant.
#pragma once

#include "requantize/requantize_kernel.h"
#include "target.h"

#if LOWBIT_X86
#include <immintrin.h>
#include <stdint.h>

namespace lowbit {

LOWBIT_TARGET_BEGIN_AVX2

// An epilogue with code outputs in registers.
struct CodesAvx2 {
  __m256 top;  // hi - zero_point
  __m256i zero_point16, lo8, hi8, order;
  __m256 residual_scale;
  __m256i residual_zero_point;
  __m256i nudge, away;  // fixed point, gemmlowp: 2^31 in 64 bits, all ones
  bool is_signed, residual_is_signed;
  bool limits, clamps;  // top and lo8..hi8 matter
};

static inline CodesAvx2 codes_avx2(const Requantizer& q) {
  CodesAvx2 e;
  e.top = _mm256_set1_ps((float)(q.hi - q.zero_point));
  e.zero_point16 = _mm256_set1_epi16((short)q.zero_point);
  e.lo8 = _mm256_set1_epi8((char)q.lo);
  e.hi8 = _mm256_set1_epi8((char)q.hi);
  e.order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  e.residual_scale = _mm256_set1_ps(q.residual_scale);
  e.residual_zero_point = _mm256_set1_epi32(q.residual_zero_point);
  e.nudge = _mm256_set1_epi64x(q.rounding == Rounding::gemmlowp ? int64_t{1} << 31 : 0);
  e.away = _mm256_set1_epi32(q.rounding == Rounding::gemmlowp ? -1 : 0);
  e.is_signed = q.out_dtype == DType::s8;
  e.residual_is_signed = q.residual_dtype == DType::s8;
  e.limits = q.may_overflow;
  e.clamps = (int64_t)q.hi - q.lo != 255;
  return e;
}

static inline __m256 scaled_avx2(const CodesAvx2&, __m256i acc, __m256 scale) {
  return _mm256_mul_ps(_mm256_cvtepi32_ps(acc), scale);
}

// f + float(r - zero point) * scale for the 8 residual codes at r.
static inline __m256 add_residual_avx2(const CodesAvx2& e, const Requantizer&, __m256 f, const uint8_t* r) {
  const __m128i codes = _mm_loadl_epi64((const __m128i*)r);
  const __m256i wide = e.residual_is_signed ? _mm256_cvtepi8_epi32(codes) : _mm256_cvtepu8_epi32(codes);
  const __m256 shifted = _mm256_cvtepi32_ps(_mm256_sub_epi32(wide, e.residual_zero_point));
  return _mm256_add_ps(f, _mm256_mul_ps(shifted, e.residual_scale));
}

// 32 codes of words packed from four vectors, in the order of these.
static inline __m256i bytes32_avx2(const CodesAvx2& e, __m256i low, __m256i high) {
  low = _mm256_adds_epi16(low, e.zero_point16);
  high = _mm256_adds_epi16(high, e.zero_point16);
  if (e.is_signed) {
    const __m256i y = _mm256_permutevar8x32_epi32(_mm256_packs_epi16(low, high), e.order);
    return e.clamps ? _mm256_min_epi8(_mm256_max_epi8(y, e.lo8), e.hi8) : y;
  }
  const __m256i y = _mm256_permutevar8x32_epi32(_mm256_packus_epi16(low, high), e.order);
  return e.clamps ? _mm256_min_epu8(_mm256_max_epu8(y, e.lo8), e.hi8) : y;
}

// 32 codes of four scaled vectors, in their order.
template <bool kResidual>
static inline __m256i round32_avx2(const CodesAvx2& e, __m256 f0, __m256 f1, __m256 f2, __m256 f3) {
  if (e.limits) {
    f0 = _mm256_min_ps(f0, e.top), f1 = _mm256_min_ps(f1, e.top);
    f2 = _mm256_min_ps(f2, e.top), f3 = _mm256_min_ps(f3, e.top);
  }
  return bytes32_avx2(e, _mm256_packs_epi32(_mm256_cvtps_epi32(f0), _mm256_cvtps_epi32(f1)),
                      _mm256_packs_epi32(_mm256_cvtps_epi32(f2), _mm256_cvtps_epi32(f3)));
}

// Fixed-point multipliers below 1/2 of 8 channels, as requantize_avx512.h derives them.
struct FixedAvx2 {
  __m256i m, m_odd, right;
};

static inline FixedAvx2 fixed_avx2(__m256i m0, __m256i shift) {
  const __m256i m = _mm256_slli_epi32(m0, 1);
  return {m, _mm256_srli_epi64(m, 32), _mm256_xor_si256(shift, _mm256_set1_epi32(-1))};
}

static inline FixedAvx2 channel_fixed_avx2(const Requantizer& q, int64_t j) {
  if (!q.scale_step) return fixed_avx2(_mm256_set1_epi32(*q.m0), _mm256_set1_epi32(*q.shift));
  return fixed_avx2(_mm256_loadu_si256((const __m256i*)(q.m0 + j)), _mm256_loadu_si256((const __m256i*)(q.shift + j)));
}

// t
static inline __m256i scaled_avx2(const CodesAvx2& e, __m256i x, FixedAvx2 s) {
  const __m256i even = _mm256_add_epi64(_mm256_mul_epi32(x, s.m), e.nudge);
  const __m256i odd = _mm256_add_epi64(_mm256_mul_epi32(_mm256_srli_epi64(x, 32), s.m_odd), e.nudge);
  const __m256i h = _mm256_add_epi32(x, _mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0xaa));
  const __m256i sign = _mm256_and_si256(_mm256_srai_epi32(h, 31), e.away);
  return _mm256_srav_epi32(_mm256_add_epi32(h, sign), s.right);
}

// (t + 1) >> 1 on words
static inline __m256i half_words_avx2(__m256i t) {
  return _mm256_srai_epi16(_mm256_adds_epi16(t, _mm256_set1_epi16(1)), 1);
}

static inline __m256i half_dwords_avx2(__m256i t) {
  return _mm256_srai_epi32(_mm256_add_epi32(t, _mm256_set1_epi32(1)), 1);
}

// v with its residual, in full.
static inline __m256i add_residual_avx2(const CodesAvx2& e, const Requantizer& q, __m256i t, const uint8_t* r) {
  const __m128i codes = _mm_loadl_epi64((const __m128i*)r);
  const __m256i wide = e.residual_is_signed ? _mm256_cvtepi8_epi32(codes) : _mm256_cvtepu8_epi32(codes);
  const __m256i x = _mm256_slli_epi32(_mm256_sub_epi32(wide, e.residual_zero_point), 16);
  const FixedAvx2 s = fixed_avx2(_mm256_set1_epi32(q.residual_fixed.m0), _mm256_set1_epi32(q.residual_fixed.shift));
  return _mm256_add_epi32(half_dwords_avx2(t), half_dwords_avx2(scaled_avx2(e, x, s)));
}

// 32 codes of four vectors: t, or v where they have their residuals.
template <bool kResidual>
static inline __m256i round32_avx2(const CodesAvx2& e, __m256i t0, __m256i t1, __m256i t2, __m256i t3) {
  const __m256i low = _mm256_packs_epi32(t0, t1), high = _mm256_packs_epi32(t2, t3);
  if (kResidual) return bytes32_avx2(e, low, high);
  return bytes32_avx2(e, half_words_avx2(low), half_words_avx2(high));
}

static inline __m256 channel_scales_avx2(const Requantizer& q, int64_t j) {
  return q.scale_step ? _mm256_loadu_ps(q.scale + j) : _mm256_set1_ps(*q.scale);
}

static inline __m256i load_acc_avx2(const int32_t* acc, const Requantizer& q, int64_t j) {
  const __m256i a = _mm256_loadu_si256((const __m256i*)acc);
  return q.bias ? _mm256_add_epi32(a, _mm256_loadu_si256((const __m256i*)(q.bias + j))) : a;
}

// The two ways from sums to codes, as in requantize_avx512.h.
template <bool kFixed>
struct ScaleAvx2 {
  using Channels = __m256;
  using Scaled = __m256;
  static inline __attribute__((always_inline)) Channels at(const Requantizer& q, int64_t j) {
    return channel_scales_avx2(q, j);
  }
};
template <>
struct ScaleAvx2<true> {
  using Channels = FixedAvx2;
  using Scaled = __m256i;
  static inline __attribute__((always_inline)) Channels at(const Requantizer& q, int64_t j) {
    return channel_fixed_avx2(q, j);
  }
};

// 8 scaled sums with their residual, which starts at r.
template <bool kFixed, bool kResidual>
static inline typename ScaleAvx2<kFixed>::Scaled code_sums_avx2(const CodesAvx2& e, const int32_t* acc, int64_t j,
                                                                const uint8_t* r, const Requantizer& q) {
  const typename ScaleAvx2<kFixed>::Scaled v = scaled_avx2(e, load_acc_avx2(acc, q, j), ScaleAvx2<kFixed>::at(q, j));
  if constexpr (kResidual) {
    return add_residual_avx2(e, q, v, r);
  } else {
    return v;
  }
}

static inline const uint8_t* residual_codes_avx2(const Requantizer& q, int64_t i, int64_t j) {
  return (const uint8_t*)q.residual + i * q.residual_stride + j;
}

// The multiple of 8 columns that it did.
template <bool kFixed, bool kResidual>
static inline int64_t codes_row_avx2(const CodesAvx2& e, const int32_t* acc, int64_t i, int64_t j, int64_t cols,
                                     uint8_t* y, const Requantizer& q) {
  const auto scaled = [&](int64_t c) __attribute__((always_inline)) {
    const uint8_t* r = kResidual ? residual_codes_avx2(q, i, j + c) : y;
    return code_sums_avx2<kFixed, kResidual>(e, acc + c, j + c, r, q);
  };
  int64_t c = 0;
  for (; c + 32 <= cols; c += 32) {
    const __m256i codes = round32_avx2<kResidual>(e, scaled(c), scaled(c + 8), scaled(c + 16), scaled(c + 24));
    _mm256_storeu_si256((__m256i*)(y + c), codes);
  }
  for (; c + 8 <= cols; c += 8) {
    const auto v = scaled(c);
    _mm_storel_epi64((__m128i*)(y + c), _mm256_castsi256_si128(round32_avx2<kResidual>(e, v, v, v, v)));
  }
  return c;
}

static inline int64_t floats_row_avx2(const int32_t* acc, int64_t i, int64_t j, int64_t cols, float* y,
                                      const Requantizer& q) {
  int64_t c = 0;
  for (; c + 8 <= cols; c += 8) {
    __m256 f = _mm256_mul_ps(_mm256_cvtepi32_ps(load_acc_avx2(acc + c, q, j + c)), channel_scales_avx2(q, j + c));
    if (q.float_bias) f = _mm256_add_ps(f, _mm256_loadu_ps(q.float_bias + j + c));
    if (q.residual) f = _mm256_add_ps(f, _mm256_loadu_ps((const float*)q.residual + i * q.residual_stride + j + c));
    f = _mm256_max_ps(_mm256_set1_ps(q.flo), f);  // the second operand where one is NaN
    _mm256_storeu_ps(y + c, _mm256_min_ps(_mm256_set1_ps(q.fhi), f));
  }
  return c;
}

static inline int64_t sums_row_avx2(const int32_t* acc, int64_t j, int64_t cols, int32_t* y, const Requantizer& q) {
  int64_t c = 0;
  for (; c + 8 <= cols; c += 8) _mm256_storeu_si256((__m256i*)(y + c), load_acc_avx2(acc + c, q, j + c));
  return c;
}

// RequantizeFn.
static inline void requantize_rows_avx2(const int32_t* acc, int64_t acc_stride, int64_t i, int64_t rows, int64_t j,
                                        int64_t cols, void* y, int64_t y_stride, const Requantizer& q) {
  const bool codes = q.out_dtype == DType::s8 || q.out_dtype == DType::u8;
  const Finish finish = finish_of(q, false);
  if (codes && finish == Finish::any) {
    requantize_scalar(acc, acc_stride, i, rows, j, cols, y, y_stride, q);
    return;
  }
  const CodesAvx2 e = codes_avx2(q);
  const bool fixed = finish == Finish::fixed;
  const auto codes_row = fixed && q.residual ? codes_row_avx2<true, true>
                         : fixed             ? codes_row_avx2<true, false>
                         : q.residual        ? codes_row_avx2<false, true>
                                             : codes_row_avx2<false, false>;
  for (int64_t r = 0; r < rows; ++r) {
    const int32_t* from = acc + r * acc_stride;
    const int64_t at = (i + r) * y_stride + j;
    const int64_t done = codes                       ? codes_row(e, from, i + r, j, cols, (uint8_t*)y + at, q)
                         : q.out_dtype == DType::f32 ? floats_row_avx2(from, i + r, j, cols, (float*)y + at, q)
                                                     : sums_row_avx2(from, j, cols, (int32_t*)y + at, q);
    if (done < cols) requantize_scalar(from + done, acc_stride, i + r, 1, j + done, cols - done, y, y_stride, q);
  }
}

LOWBIT_TARGET_END

}  // namespace lowbit

#endif
