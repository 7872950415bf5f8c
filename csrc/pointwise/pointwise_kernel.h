// What the doors hand to the variants. The contract is lowbit/pointwise.h.
//
// Codes are bytes in [0, 255] here: an int8 code c is the byte c ^ 0x80 = c + 128, its zero point and clamp move by 128
// as well, and every formula depends on differences only. `flip` (0x80 or 0) is the xor that a load or store applies.
#pragma once

#include <stdint.h>

#include "lowbit/pointwise.h"
#include "requantize/requantize_kernel.h"
#include "target.h"

namespace lowbit::pointwise {

struct CodeIn {
  int32_t zero;  // real = float(byte - zero) * factor
  float factor;
  uint8_t flip;
};

struct CodeOut {
  int32_t zero, lo, hi;  // byte = zero + rne(min(max(f, lo - zero), hi - zero))
  uint8_t flip;
};

// One output column of a pooling: its taps inside the image, and how many columns an average counts.
struct PoolColumn {
  int64_t first;  // image column of the first tap
  int32_t taps, count;
};

// One output row of a pooling. Steps are in elements.
struct PoolRow {
  const void* x;  // the first image row that the window meets
  int64_t rows;   // how many rows it meets
  int64_t count;  // how many rows an average counts
  int64_t row_step, tap_step, pixel_step;
  const PoolColumn* columns;
  int64_t out_w, c;
  void* y;
  int64_t y_step;
};

// One output row of a bilinear resize.
struct LinearRow {
  const void *top, *bottom;
  float weight;  // of bottom
  const int32_t *first, *second;
  const float* weights;  // of second
  int64_t out_w, c;
  void* y;
};

// The fixed-point forms. Integer-only networks spend little time in add and mul: one variant each.
struct FixedSum {
  FixedPoint a, b, sum;  // of (a - za) << 20, (b - zb) << 20, and of their sum
  Rounding rounding;
};
void add_fixed_scalar(const uint8_t* a, const CodeIn& ca, const uint8_t* b, const CodeIn& cb, int64_t n, uint8_t* y,
                      const CodeOut& out, const FixedSum& fixed) noexcept;
void mul_fixed_scalar(const uint8_t* a, const CodeIn& ca, const uint8_t* b, const CodeIn& cb, int64_t repeat,
                      int64_t inner, uint8_t* y, const CodeOut& out, FixedPoint ratio, Rounding rounding) noexcept;
// ratio: of the scales, divided by each window's count; null: the plain mean.
using PoolFixed = void(const PoolRow& row, const CodeIn& in, const CodeOut& out, const FixedPoint* ratio,
                       Rounding rounding) noexcept;
PoolFixed average_pool_fixed_scalar;
#if LOWBIT_X86
PoolFixed average_pool_fixed_avx2;
#endif
// The last step of these, for sums of n channels' differences.
void means_fixed_scalar(const int32_t* sums, int64_t n, int64_t counted, const CodeOut& out, const FixedPoint* ratio,
                        Rounding rounding, uint8_t* y) noexcept;

using Quantize = void(const float* x, int64_t n, float scale, const CodeOut& out, uint8_t* q) noexcept;
// pixels of c planes that lie `plane` floats apart -> pixels ldq bytes apart.
using QuantizePlanes = void(const float* x, int64_t plane, int64_t c, int64_t pixels, float scale, const CodeOut& out,
                            uint8_t* q, int64_t ldq) noexcept;
using Dequantize = void(const uint8_t* q, int64_t n, const CodeIn& in, float* x) noexcept;
// Widens *lo, *hi; false where it met a NaN.
using MinMax = bool(const float* x, int64_t n, float* lo, float* hi) noexcept;
using Lookup = void(const uint8_t* x, int64_t n, const uint8_t* table, uint8_t* y) noexcept;
using AddCodes = void(const uint8_t* a, const CodeIn& ca, const uint8_t* b, const CodeIn& cb, int64_t n, uint8_t* y,
                      const CodeOut& out) noexcept;
// a, y (repeat, inner), b (inner); a's factor multiplies the product of differences, b's is not used.
using MulCodes = void(const uint8_t* a, const CodeIn& ca, const uint8_t* b, const CodeIn& cb, int64_t repeat,
                      int64_t inner, uint8_t* y, const CodeOut& out) noexcept;
using BinaryFloats = void(Binary op, const float* a, const float* b, int64_t repeat, int64_t inner, float lo, float hi,
                          float* y) noexcept;
using Pool = void(const PoolRow& row) noexcept;
using PoolCodes = void(const PoolRow& row, const CodeIn& in, const CodeOut& out) noexcept;
using Bilinear = void(const LinearRow& row) noexcept;
using BilinearCodes = void(const LinearRow& row, const CodeIn& in, const CodeOut& out) noexcept;
using UnaryFloats = void(Unary op, const float* x, int64_t n, float alpha, float beta, float* y) noexcept;
using Prelu = void(const float* x, int64_t rows, const float* slope, int64_t channels, float* y) noexcept;
using Softmax = void(const float* x, int64_t rows, int64_t n, float* y) noexcept;

Quantize quantize_scalar;
QuantizePlanes quantize_planes_scalar;
Dequantize dequantize_scalar;
MinMax min_max_scalar;
Lookup lookup_scalar;
AddCodes add_codes_scalar;
MulCodes mul_codes_scalar;
BinaryFloats binary_f32_scalar;
Pool max_pool_u8_scalar, max_pool_s8_scalar, max_pool_f32_scalar, average_pool_f32_scalar;
PoolCodes average_pool_codes_scalar;
Bilinear bilinear_f32_scalar;
BilinearCodes bilinear_codes_scalar;
UnaryFloats unary_f32_scalar;
Prelu prelu_f32_scalar;
Softmax softmax_f32_scalar;

#if LOWBIT_X86
Quantize quantize_avx2, quantize_avx512;
QuantizePlanes quantize_planes_avx2, quantize_planes_avx512;
Dequantize dequantize_avx2;
MinMax min_max_avx2, min_max_avx512;
Lookup lookup_avx2, lookup_avx512;
AddCodes add_codes_avx2, add_codes_avx512;
MulCodes mul_codes_avx2, mul_codes_avx512;
BinaryFloats binary_f32_avx2;
Pool max_pool_u8_avx2, max_pool_s8_avx2, max_pool_f32_avx2, average_pool_f32_avx2;
Pool max_pool_u8_avx512, max_pool_s8_avx512, max_pool_f32_avx512, average_pool_f32_avx512;
PoolCodes average_pool_codes_avx2, average_pool_codes_avx512;
Bilinear bilinear_f32_avx512;
BilinearCodes bilinear_codes_avx2, bilinear_codes_avx512;
UnaryFloats unary_f32_avx2, unary_f32_avx512;
Prelu prelu_f32_avx2, prelu_f32_avx512;
Softmax softmax_f32_avx2, softmax_f32_avx512;
#endif

}  // namespace lowbit::pointwise
