// The epilogue of lowbit/requantize.h in AVX2 registers, for kernels that fuse it. As in requantize_avx512.h only the
// upper clamp comes before the rounding. Columns beyond a multiple of 8, and the fixed-point roundings, which want
// 64-bit shifts that AVX2 lacks, go to the scalar variant.
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
  e.is_signed = q.out_dtype == DType::s8;
  e.residual_is_signed = q.residual_dtype == DType::s8;
  e.limits = q.may_overflow;
  e.clamps = (int64_t)q.hi - q.lo != 255;
  return e;
}

static inline __m256 scaled_avx2(__m256i acc, __m256 scale) { return _mm256_mul_ps(_mm256_cvtepi32_ps(acc), scale); }

// f + float(r - zero point) * scale for the 8 residual codes at r.
static inline __m256 add_residual_avx2(const CodesAvx2& e, __m256 f, const uint8_t* r) {
  const __m128i codes = _mm_loadl_epi64((const __m128i*)r);
  const __m256i wide = e.residual_is_signed ? _mm256_cvtepi8_epi32(codes) : _mm256_cvtepu8_epi32(codes);
  const __m256 shifted = _mm256_cvtepi32_ps(_mm256_sub_epi32(wide, e.residual_zero_point));
  return _mm256_add_ps(f, _mm256_mul_ps(shifted, e.residual_scale));
}

// 32 codes of four scaled vectors, in their order.
static inline __m256i round32_avx2(const CodesAvx2& e, __m256 f0, __m256 f1, __m256 f2, __m256 f3) {
  if (e.limits) {
    f0 = _mm256_min_ps(f0, e.top), f1 = _mm256_min_ps(f1, e.top);
    f2 = _mm256_min_ps(f2, e.top), f3 = _mm256_min_ps(f3, e.top);
  }
  const __m256i low =
      _mm256_adds_epi16(_mm256_packs_epi32(_mm256_cvtps_epi32(f0), _mm256_cvtps_epi32(f1)), e.zero_point16);
  const __m256i high =
      _mm256_adds_epi16(_mm256_packs_epi32(_mm256_cvtps_epi32(f2), _mm256_cvtps_epi32(f3)), e.zero_point16);
  if (e.is_signed) {
    const __m256i y = _mm256_permutevar8x32_epi32(_mm256_packs_epi16(low, high), e.order);
    return e.clamps ? _mm256_min_epi8(_mm256_max_epi8(y, e.lo8), e.hi8) : y;
  }
  const __m256i y = _mm256_permutevar8x32_epi32(_mm256_packus_epi16(low, high), e.order);
  return e.clamps ? _mm256_min_epu8(_mm256_max_epu8(y, e.lo8), e.hi8) : y;
}

static inline __m256 channel_scales_avx2(const Requantizer& q, int64_t j) {
  return q.scale_step ? _mm256_loadu_ps(q.scale + j) : _mm256_set1_ps(*q.scale);
}

static inline __m256i load_acc_avx2(const int32_t* acc, const Requantizer& q, int64_t j) {
  const __m256i a = _mm256_loadu_si256((const __m256i*)acc);
  return q.bias ? _mm256_add_epi32(a, _mm256_loadu_si256((const __m256i*)(q.bias + j))) : a;
}

// 8 scaled sums with their residual, which starts at r where there is one.
static inline __m256 code_sums_avx2(const CodesAvx2& e, const int32_t* acc, int64_t j, const uint8_t* r,
                                    const Requantizer& q) {
  const __m256 f = scaled_avx2(load_acc_avx2(acc, q, j), channel_scales_avx2(q, j));
  return r ? add_residual_avx2(e, f, r) : f;
}

// The multiple of 8 columns that it did.
static inline int64_t codes_row_avx2(const CodesAvx2& e, const int32_t* acc, int64_t i, int64_t j, int64_t cols,
                                     uint8_t* y, const Requantizer& q) {
  const uint8_t* r = q.residual ? (const uint8_t*)q.residual + i * q.residual_stride + j : (const uint8_t*)0;
  int64_t c = 0;
  for (; c + 32 <= cols; c += 32) {
    const __m256 f0 = code_sums_avx2(e, acc + c, j + c, r ? r + c : r, q);
    const __m256 f1 = code_sums_avx2(e, acc + c + 8, j + c + 8, r ? r + c + 8 : r, q);
    const __m256 f2 = code_sums_avx2(e, acc + c + 16, j + c + 16, r ? r + c + 16 : r, q);
    const __m256 f3 = code_sums_avx2(e, acc + c + 24, j + c + 24, r ? r + c + 24 : r, q);
    _mm256_storeu_si256((__m256i*)(y + c), round32_avx2(e, f0, f1, f2, f3));
  }
  for (; c + 8 <= cols; c += 8) {
    const __m256 f = code_sums_avx2(e, acc + c, j + c, r ? r + c : r, q);
    const __m256i codes = round32_avx2(e, f, f, f, f);
    _mm_storel_epi64((__m128i*)(y + c), _mm256_castsi256_si128(codes));
  }
  return c;
}

static inline int64_t floats_row_avx2(const int32_t* acc, int64_t i, int64_t j, int64_t cols, float* y,
                                      const Requantizer& q) {
  int64_t c = 0;
  for (; c + 8 <= cols; c += 8) {
    __m256 f = scaled_avx2(load_acc_avx2(acc + c, q, j + c), channel_scales_avx2(q, j + c));
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
  if (codes && q.rounding != Rounding::nearest_even) {
    requantize_scalar(acc, acc_stride, i, rows, j, cols, y, y_stride, q);
    return;
  }
  const CodesAvx2 e = codes_avx2(q);
  for (int64_t r = 0; r < rows; ++r) {
    const int32_t* from = acc + r * acc_stride;
    const int64_t at = (i + r) * y_stride + j;
    const int64_t done = codes                       ? codes_row_avx2(e, from, i + r, j, cols, (uint8_t*)y + at, q)
                         : q.out_dtype == DType::f32 ? floats_row_avx2(from, i + r, j, cols, (float*)y + at, q)
                                                     : sums_row_avx2(from, j, cols, (int32_t*)y + at, q);
    if (done < cols) requantize_scalar(from + done, acc_stride, i + r, 1, j + done, cols - done, y, y_stride, q);
  }
}

LOWBIT_TARGET_END

}  // namespace lowbit

#endif
