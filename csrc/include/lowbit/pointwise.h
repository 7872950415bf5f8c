// What whole models need besides products: quantise, add, multiply, look-up activations, pooling, resizing, softmax,
// layout. Formulas use the conventions of requantize.h: single rounded binary32 operations in the order written, rne =
// half to even, sat(f, z, lo, hi) = z + rne(min(max(f, lo - z), hi - z)), and max(NaN, v) = v: a NaN becomes the lowest
// code. Code arrays are s8 or u8; those of one call may differ; lo and hi are narrowed to the type's range and must not
// cross. Scales are finite and > 0. Every result is the same on every level and thread count, floats too (only the
// payload of a NaN is left open). The output of an elementwise function may be its first input where elements have the
// same size; arrays must not overlap otherwise.
#pragma once

#include <cstdint>

#include "lowbit/dtype.h"
#include "lowbit/export.h"
#include "lowbit/gemm_i8.h"
#include "lowbit/isa.h"
#include "lowbit/requantize.h"

namespace lowbit {

// A code array's parameters: real = scale * (code - zero_point).
struct Codes {
  DType dtype = DType::u8;
  int32_t zero_point = 0;
  float scale = 1.0f;
};

// q = sat(x / scale, zero_point, lo, hi), lo and hi the type's range narrowed to [lo, hi]. Contiguous, n elements.
LOWBIT_API void quantize(const float* x, int64_t n, const Codes& out, void* q, int32_t lo = -128, int32_t hi = 255,
                         Isa isa = best_isa(), int threads = 0);
// x = float(q - zero_point) * scale.
LOWBIT_API void dequantize(const void* q, int64_t n, const Codes& in, float* x, Isa isa = best_isa(), int threads = 0);

// The same from NCHW floats to NHWC codes in one pass; ldq >= c elements between pixels, channels c..ldq untouched.
// plane = h * w.
LOWBIT_API void quantize_nchw(const float* x, int64_t batch, int64_t c, int64_t plane, const Codes& out, void* q,
                              int64_t ldq, int32_t lo = -128, int32_t hi = 255, Isa isa = best_isa(), int threads = 0);

// y = table[x] for every code; x is indexed as an unsigned byte. channels > 1: table (channels, 256), the channel of
// element i is i % channels. The table holds bytes (f32 = false) or floats.
LOWBIT_API void lookup(const uint8_t* x, int64_t n, const void* table, bool f32, int64_t channels, void* y,
                       Isa isa = best_isa(), int threads = 0);

// With a fixed-point rounding the next three are integer arithmetic: fix(v, m) = v * m in requantize.h's gemmlowp or
// single rounding, m = m0 * 2^(shift - 31) with m0 rounded to 31 bits from the float64 quotient of the scales; then
// y = min(max(zo + v, lo), hi).

// y = sat(float(a - za) * (sa / so) + float(b - zb) * (sb / so), zo, lo, hi), with the two quotients rounded to float32
// first. Fixed-point: v = fix(fix((a - za) << 20, sa / s) + fix((b - zb) << 20, sb / s), s / (2^20 so)) with
// s = 2 max(sa, sb): TensorFlow Lite's.
LOWBIT_API void add_i8(const void* a, const Codes& ca, const void* b, const Codes& cb, int64_t n, void* y,
                       const Codes& cy, int32_t lo, int32_t hi, Rounding rounding = Rounding::nearest_even,
                       Isa isa = best_isa(), int threads = 0);

// y = sat(float((a - za) * (b - zb)) * m, zo, lo, hi), m = (sa * sb) / so in float32 steps. a is (outer, repeat,
// inner); b is (outer, inner), repeated over the middle: squeeze-and-excite is (batch, h*w, c) with (batch, c); same
// shapes: repeat = 1. Fixed-point: v = fix((a - za) * (b - zb), sa sb / so).
LOWBIT_API void mul_i8(const void* a, const Codes& ca, const void* b, const Codes& cb, int64_t outer, int64_t repeat,
                       int64_t inner, void* y, const Codes& cy, int32_t lo, int32_t hi,
                       Rounding rounding = Rounding::nearest_even, Isa isa = best_isa(), int threads = 0);

// Windows over NHWC; uses shape's kh, kw, stride, padding, dilation (oc and groups ignored). Padding never wins a
// maximum and NaN neither: a window without a number gives the type's lowest value, -inf for f32. dtype: s8, u8, f32.
LOWBIT_API void max_pool(const void* x, DType dtype, int64_t ldx, const Conv2dShape& shape, void* y, int64_t ldy,
                         Isa isa = best_isa(), int threads = 0);
// Which pixels of a window an average counts: those inside the image, and the padding too where include_pad.
// ceil_mode's extra output comes from padding added at the bottom and right of the shape; those overhang_* rows and
// columns never count.
struct PoolCount {
  PoolCount(bool count_include_pad = false, int64_t bottom = 0, int64_t right = 0)
      : include_pad(count_include_pad), overhang_bottom(bottom), overhang_right(right) {}
  bool include_pad;
  int64_t overhang_bottom, overhang_right;
};
// Codes: y = sat((float(sum (x - zx)) * (sx / sy)) / float(max(count, 1)), zy, the type's range); the sum is exact.
// Fixed-point, count at least 1: where sx = sy, v = floor(sum (x - zx) / count + 1/2). Else v = fix(sum (x - zx) 2^h,
// m 2^-h) with m0 * 2^(shift - 31) = sx / sy as above, m = (m0 2^k / count, rounded half up) * 2^(shift - k - 31), k
// the greatest that leaves that below 2^31, and h = max(23 - ceil(log2 count), 0).
LOWBIT_API void average_pool_i8(const void* x, const Codes& cx, int64_t ldx, const Conv2dShape& shape, PoolCount count,
                                void* y, const Codes& cy, int64_t ldy, Rounding rounding = Rounding::nearest_even,
                                Isa isa = best_isa(), int threads = 0);
// y = sum / float(max(count, 1)), summed from 0 in the window's row-major order.
LOWBIT_API void average_pool_f32(const float* x, int64_t ldx, const Conv2dShape& shape, PoolCount count, float* y,
                                 int64_t ldy, Isa isa = best_isa(), int threads = 0);

// NHWC resize. Nearest copies pixel (rows[y], cols[x]). Bilinear reads rows r0[y], r1[y] with weight fy[y] on r1,
// columns alike: top = a + (b - a) * fx, bottom alike, v = top + (bottom - top) * fy, on float(code - zx); codes: y =
// sat(v * (sx / sy), zy, the type's range). Every index is checked.
LOWBIT_API void resize_nearest(const void* x, DType dtype, int64_t batch, int64_t h, int64_t w, int64_t c,
                               const int32_t* rows, int64_t out_h, const int32_t* cols, int64_t out_w, void* y,
                               Isa isa = best_isa(), int threads = 0);
struct LinearTaps {
  const int32_t* first;   // [out]
  const int32_t* second;  // [out]
  const float* weight;    // [out], of second
  int64_t size;           // out
};
LOWBIT_API void resize_bilinear_i8(const void* x, const Codes& cx, int64_t batch, int64_t h, int64_t w, int64_t c,
                                   const LinearTaps& rows, const LinearTaps& cols, void* y, const Codes& cy,
                                   Isa isa = best_isa(), int threads = 0);
LOWBIT_API void resize_bilinear_f32(const float* x, int64_t batch, int64_t h, int64_t w, int64_t c,
                                    const LinearTaps& rows, const LinearTaps& cols, float* y, Isa isa = best_isa(),
                                    int threads = 0);

// Float activations, elementwise, each step a rounded operation. exp is our own polynomial
// (pointwise/unary_f32_scalar.cpp): within 2 ulp, tanh within 3; exp, sigmoid, swish and tanh of NaN are NaN.
//   relu          max(x, 0)                            clip        min(max(x, alpha), beta)
//   sigmoid       1 / (1 + exp(-x))                    swish       x / (1 + exp(-x))
//   hard_sigmoid  min(max(alpha * x + beta, 0), 1)     hard_swish  x * min(max(x * float(1/6) + 0.5, 0), 1)
//   leaky_relu    x > 0 ? x : alpha * x                tanh, exp
enum class Unary : uint8_t { relu, clip, sigmoid, hard_sigmoid, hard_swish, swish, leaky_relu, tanh, exp };
LOWBIT_API void unary_f32(Unary op, const float* x, int64_t n, float alpha, float beta, float* y, Isa isa = best_isa(),
                          int threads = 0);
// prelu: y = x > 0 ? x : x * slope[i % channels].
LOWBIT_API void prelu_f32(const float* x, int64_t n, const float* slope, int64_t channels, float* y,
                          Isa isa = best_isa(), int threads = 0);
enum class Binary : uint8_t { add, mul, sub, div };
// a (outer, repeat, inner) op b (outer, inner) repeated over the middle; then clamp to [lo, hi].
LOWBIT_API void binary_f32(Binary op, const float* a, const float* b, int64_t outer, int64_t repeat, int64_t inner,
                           float lo, float hi, float* y, Isa isa = best_isa(), int threads = 0);
// Over the last axis: e = exp(x - max), y = e / sum(e). The sum has 16 partial sums, s[j] over i % 16 = j in order,
// added as s[j] += s[j + 8] for j < 8, then s[j + 4], s[j + 2], s[j + 1] alike. A row with a NaN, or of -inf alone,
// becomes NaN.
LOWBIT_API void softmax_f32(const float* x, int64_t rows, int64_t n, float* y, Isa isa = best_isa(), int threads = 0);
// Smallest and largest value (0, 0 for n = 0; never -0), for dynamic quantisation. NaN throws std::invalid_argument.
LOWBIT_API void min_max(const float* x, int64_t n, float& lo, float& hi, Isa isa = best_isa(), int threads = 0);

// y = x with axes permuted: y's axis i is x's axis perm[i]; rank <= 8; size = bytes per element (1, 2, 4 or 8).
LOWBIT_API void transpose(const void* x, const int64_t* dims, const int64_t* perm, int rank, int64_t size, void* y,
                          int threads = 0);

// Rows of row_bytes bytes from src to dst, strides in bytes: how Concat and Slice move channels. Strides may be
// negative.
LOWBIT_API void copy_2d(const void* src, int64_t src_stride, void* dst, int64_t dst_stride, int64_t rows,
                        int64_t row_bytes, int threads = 0);

}  // namespace lowbit
