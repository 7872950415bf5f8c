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
  __m512 top, bottom;  // hi - zero_point, lo - zero_point
  __m512i zero_point;  // 32 bit
  __m512i zero_point16, lo8, hi8, order;
  __m512 residual_scale;
  __m512i residual_zero_point;
  bool is_signed, residual_is_signed;
  bool limits, shifts, clamps;  // top, zero_point and lo8..hi8 matter
};

static inline CodesAvx512 codes_avx512(const Requantizer& q) {
  CodesAvx512 e;
  e.top = _mm512_set1_ps((float)(q.hi - q.zero_point));
  e.bottom = _mm512_set1_ps((float)(q.lo - q.zero_point));
  e.zero_point = _mm512_set1_epi32(q.zero_point);
  e.zero_point16 = _mm512_set1_epi16((short)q.zero_point);
  e.lo8 = _mm512_set1_epi8((char)q.lo);
  e.hi8 = _mm512_set1_epi8((char)q.hi);
  e.order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  e.residual_scale = _mm512_set1_ps(q.residual_scale);
  e.residual_zero_point = _mm512_set1_epi32(q.residual_zero_point);
  e.is_signed = q.out_dtype == DType::s8;
  e.residual_is_signed = q.residual_dtype == DType::s8;
  e.limits = q.may_overflow;
  e.shifts = q.zero_point != 0;
  e.clamps = q.hi != q.lo + 255;  // lo may be the least int
  return e;
}

static inline __m512 scaled_avx512(__m512i acc, __m512 scale) { return _mm512_mul_ps(_mm512_cvtepi32_ps(acc), scale); }

// f + float(r - zero point) * scale for 16 residual codes.
static inline __m512 add_residual_avx512(const CodesAvx512& e, __m512 f, __m128i r) {
  const __m512i wide = e.residual_is_signed ? _mm512_cvtepi8_epi32(r) : _mm512_cvtepu8_epi32(r);
  const __m512 shifted = _mm512_cvtepi32_ps(_mm512_sub_epi32(wide, e.residual_zero_point));
  return _mm512_add_ps(f, _mm512_mul_ps(shifted, e.residual_scale));
}

// 64 codes of four scaled vectors, in their order.
static inline __m512i round64_avx512(const CodesAvx512& e, __m512 f0, __m512 f1, __m512 f2, __m512 f3) {
  if (e.limits) {
    f0 = _mm512_min_ps(f0, e.top), f1 = _mm512_min_ps(f1, e.top);
    f2 = _mm512_min_ps(f2, e.top), f3 = _mm512_min_ps(f3, e.top);
  }
  __m512i low = _mm512_packs_epi32(_mm512_cvtps_epi32(f0), _mm512_cvtps_epi32(f1));
  __m512i high = _mm512_packs_epi32(_mm512_cvtps_epi32(f2), _mm512_cvtps_epi32(f3));
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

// 16 codes of one scaled vector.
static inline __m128i round16_avx512(const CodesAvx512& e, __m512 f) {
  const __m512i i = _mm512_cvtps_epi32(_mm512_max_ps(_mm512_min_ps(f, e.top), e.bottom));
  return _mm512_cvtepi32_epi8(_mm512_add_epi32(i, e.zero_point));
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

static inline void codes_row_avx512(const CodesAvx512& e, const int32_t* acc, int64_t i, int64_t j, int64_t cols,
                                    uint8_t* y, const Requantizer& q) {
  int64_t c = 0;
  for (; c + 64 <= cols; c += 64) {
    __m512 f[4];
    for (int v = 0; v < 4; ++v) {
      const int64_t at = c + 16 * v;
      f[v] = scaled_avx512(load_acc_avx512(acc + at, q, j + at, 0xffff), channel_scales_avx512(q, j + at, 0xffff));
      if (q.residual) {
        f[v] = add_residual_avx512(e, f[v], _mm_loadu_si128((const __m128i*)residual_codes_avx512(q, i, j + at)));
      }
    }
    _mm512_storeu_si512(y + c, round64_avx512(e, f[0], f[1], f[2], f[3]));
  }
  for (; c < cols; c += 16) {
    const __mmask16 mask = cols - c < 16 ? (__mmask16)((1u << (cols - c)) - 1) : (__mmask16)0xffff;
    __m512 f = scaled_avx512(load_acc_avx512(acc + c, q, j + c, mask), channel_scales_avx512(q, j + c, mask));
    if (q.residual) f = add_residual_avx512(e, f, _mm_maskz_loadu_epi8(mask, residual_codes_avx512(q, i, j + c)));
    _mm_mask_storeu_epi8(y + c, mask, round16_avx512(e, f));
  }
}

static inline void floats_row_avx512(const int32_t* acc, int64_t i, int64_t j, int64_t cols, float* y,
                                     const Requantizer& q) {
  for (int64_t c = 0; c < cols; c += 16) {
    const __mmask16 mask = cols - c < 16 ? (__mmask16)((1u << (cols - c)) - 1) : (__mmask16)0xffff;
    __m512 f = scaled_avx512(load_acc_avx512(acc + c, q, j + c, mask), channel_scales_avx512(q, j + c, mask));
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

// Eight 64-bit x * m0 * 2^(shift - 31), |x| < 2^31, rounded as in requantize_scalar.cpp. A lane of `pairs` is a
// FixedPoint.
static inline __m512i multiply_fixed_avx512(__m512i x, __m512i pairs, Rounding rounding) {
  const __m512i zero = _mm512_setzero_si512(), one = _mm512_set1_epi64(1), shift = _mm512_srai_epi64(pairs, 32);
  if (rounding == Rounding::single) {
    const __m512i right = _mm512_sub_epi64(_mm512_set1_epi64(31), shift);
    const __m512i half = _mm512_sllv_epi64(one, _mm512_sub_epi64(right, one));
    return _mm512_srav_epi64(_mm512_add_epi64(_mm512_mul_epi32(x, pairs), half), right);
  }
  x = _mm512_sllv_epi64(x, _mm512_max_epi64(shift, zero));
  x = _mm512_max_epi64(_mm512_min_epi64(x, _mm512_set1_epi64(INT32_MAX)), _mm512_set1_epi64(INT32_MIN));
  const __m512i product = _mm512_add_epi64(_mm512_mul_epi32(x, pairs), _mm512_set1_epi64(int64_t{1} << 30));
  const __m512i high = _mm512_srai_epi64(product, 31);
  const __m512i right = _mm512_max_epi64(_mm512_sub_epi64(zero, shift), zero);
  const __m512i half = _mm512_srli_epi64(_mm512_sllv_epi64(one, right), 1);
  const __mmask8 away = _mm512_cmplt_epi64_mask(high, zero) & _mm512_cmpgt_epi64_mask(right, zero);
  const __m512i sum = _mm512_add_epi64(high, half);
  return _mm512_srav_epi64(_mm512_mask_sub_epi64(sum, away, sum, one), right);
}

// Channels [c, c + 8) of a row, less where the mask says so.
static inline void fixed8_avx512(const int32_t* acc, int64_t i, int64_t j, __mmask8 mask, uint8_t* y,
                                 const Requantizer& q) {
  int64_t residual_pair;
  __builtin_memcpy(&residual_pair, &q.residual_fixed, sizeof(residual_pair));
  const __m512i lo = _mm512_set1_epi64(q.lo - q.zero_point), hi = _mm512_set1_epi64(q.hi - q.zero_point);
  const __m512i x = _mm512_cvtepi32_epi64(_mm512_castsi512_si256(load_acc_avx512(acc, q, j, mask)));
  const int64_t* pair = (const int64_t*)(q.fixed + j * q.scale_step);
  const __m512i pairs = q.scale_step ? _mm512_maskz_loadu_epi64(mask, pair) : _mm512_set1_epi64(*pair);
  __m512i v = multiply_fixed_avx512(x, pairs, q.rounding);
  if (q.residual) {
    const __m128i codes = _mm_maskz_loadu_epi8(mask, residual_codes_avx512(q, i, j));
    const __m512i r = q.residual_dtype == DType::s8 ? _mm512_cvtepi8_epi64(codes) : _mm512_cvtepu8_epi64(codes);
    const __m512i shifted = _mm512_slli_epi64(_mm512_sub_epi64(r, _mm512_set1_epi64(q.residual_zero_point)), 16);
    v = _mm512_add_epi64(v, multiply_fixed_avx512(shifted, _mm512_set1_epi64(residual_pair), q.rounding));
  }
  v = _mm512_add_epi64(_mm512_min_epi64(_mm512_max_epi64(v, lo), hi), _mm512_set1_epi64(q.zero_point));
  _mm_mask_storeu_epi8(y, mask, _mm512_cvtepi64_epi8(v));
}

// Sixteen x * m0 * 2^-(31 + right) by gemmlowp's rounding, 0 <= right <= 31: nothing leaves 32 bits but the products.
static inline __m512i multiply_gemmlowp16_avx512(__m512i x, __m512i m0, __m512i right) {
  const __m512i nudge = _mm512_set1_epi64(int64_t{1} << 30), one = _mm512_set1_epi32(1);
  const __m512i even = _mm512_add_epi64(_mm512_mul_epi32(x, m0), nudge);
  const __m512i odd = _mm512_add_epi64(_mm512_mul_epi32(_mm512_srli_epi64(x, 32), _mm512_srli_epi64(m0, 32)), nudge);
  const __m512i high = _mm512_mask_blend_epi32(0xaaaa, _mm512_srli_epi64(even, 31), _mm512_slli_epi64(odd, 1));
  const __m512i mask = _mm512_sub_epi32(_mm512_sllv_epi32(one, right), one);
  const __m512i half = _mm512_srli_epi32(mask, 1);
  const __m512i threshold = _mm512_mask_add_epi32(half, _mm512_movepi32_mask(high), half, one);
  const __mmask16 up = _mm512_cmpgt_epi32_mask(_mm512_and_si512(high, mask), threshold);
  const __m512i y = _mm512_srav_epi32(high, right);
  return _mm512_mask_add_epi32(y, up, y, one);
}

static inline void fixed_row_avx512(const int32_t* acc, int64_t i, int64_t j, int64_t cols, uint8_t* y,
                                    const Requantizer& q) {
  const __m512i m0s = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
  const __m512i lo = _mm512_set1_epi32(q.lo - q.zero_point), hi = _mm512_set1_epi32(q.hi - q.zero_point);
  for (int64_t c = 0; c < cols; c += 16) {
    const __mmask16 mask = cols - c < 16 ? (__mmask16)((1u << (cols - c)) - 1) : (__mmask16)0xffff;
    if (q.rounding == Rounding::gemmlowp && !q.residual) {
      const int64_t* pair = (const int64_t*)(q.fixed + (j + c) * q.scale_step);
      const __m512i first = q.scale_step ? _mm512_maskz_loadu_epi64((__mmask8)mask, pair) : _mm512_set1_epi64(*pair);
      const __m512i second = q.scale_step ? _mm512_maskz_loadu_epi64((__mmask8)(mask >> 8), pair + 8) : first;
      const __m512i m0 = _mm512_permutex2var_epi32(first, m0s, second);
      const __m512i shift = _mm512_permutex2var_epi32(first, _mm512_or_si512(m0s, _mm512_set1_epi32(1)), second);
      const __m512i right = _mm512_sub_epi32(_mm512_setzero_si512(), shift);
      if (_mm512_cmpgt_epu32_mask(right, _mm512_set1_epi32(31)) == 0) {
        __m512i v = multiply_gemmlowp16_avx512(load_acc_avx512(acc + c, q, j + c, mask), m0, right);
        v = _mm512_add_epi32(_mm512_min_epi32(_mm512_max_epi32(v, lo), hi), _mm512_set1_epi32(q.zero_point));
        _mm_mask_storeu_epi8(y + c, mask, _mm512_cvtepi32_epi8(v));
        continue;
      }
    }
    fixed8_avx512(acc + c, i, j + c, (__mmask8)mask, y + c, q);
    if (mask >> 8) fixed8_avx512(acc + c + 8, i, j + c + 8, (__mmask8)(mask >> 8), y + c + 8, q);
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
  } else if (q.rounding == Rounding::nearest_even) {
    const CodesAvx512 e = codes_avx512(q);
    for (int64_t r = 0; r < rows; ++r) {
      codes_row_avx512(e, acc + r * acc_stride, i + r, j, cols, (uint8_t*)y + (i + r) * y_stride + j, q);
    }
  } else {
    for (int64_t r = 0; r < rows; ++r) {
      fixed_row_avx512(acc + r * acc_stride, i + r, j, cols, (uint8_t*)y + (i + r) * y_stride + j, q);
    }
  }
}

LOWBIT_TARGET_END

}  // namespace lowbit

#endif
