// 8-bit matrix product and convolution with exact int32 accumulation and a fused epilogue (lowbit/requantize.h).
//
//   gemm:   acc[i, j] = sum_p (a[i, p] - a_zero_point) * (b[p, j] - b_zero_point)
//   conv2d: acc[b, y, x, o] = sum over the window of (x - x_zero_point) * (w - w_zero_point); padded pixels hold
//   x_zero_point
//
// Exact at every shape and on every level. The true sum must fit int32: k * max|a - za| * max|b - zb| <= 2^31 - 1 over
// the values the types allow, checked at the door.
#pragma once

#include <cstdint>
#include <memory>

#include "lowbit/dtype.h"
#include "lowbit/export.h"
#include "lowbit/isa.h"
#include "lowbit/requantize.h"

namespace lowbit {

// Weights in the kernel's tiled order, made once and shared by every level and thread. Immutable and copyable (shared
// storage).
class LOWBIT_API PackedI8 {
 public:
  PackedI8() = default;
  int64_t k() const noexcept;
  int64_t n() const noexcept;
  DType dtype() const noexcept;  // of the array it was packed from
  int64_t bytes() const noexcept;

  struct Data;
  std::shared_ptr<const Data> data;
};

// b (k, n): element (p, j) at b[p * row_stride + j * col_stride]; so a row-major (k, n) array is (n, 1), an (n, k) one
// (1, k).
LOWBIT_API PackedI8 pack_i8(const void* b, DType dtype, int64_t k, int64_t n, int64_t row_stride, int64_t col_stride);

// a (m, k) with lda elements between rows; c (m, n) of epilogue.out_dtype with ldc elements between rows. m, n, k >= 0.
LOWBIT_API void gemm_i8(const void* a, DType a_dtype, int64_t m, int64_t lda, int32_t a_zero_point, const PackedI8& b,
                        int32_t b_zero_point, void* c, int64_t ldc, const Epilogue& epilogue, Isa isa = best_isa(),
                        int threads = 0);

// Geometry of a 2-d convolution over NHWC images. Output height = (h + pad_top + pad_bottom - dilation_h * (kh - 1) -
// 1) / stride_h + 1, width alike; both must come out >= 1 (or the batch be empty).
struct Conv2dShape {
  int64_t batch = 0, h = 0, w = 0, c = 0;  // input
  int64_t oc = 0, kh = 1, kw = 1;          // weights (oc, kh, kw, c / groups)
  int64_t stride_h = 1, stride_w = 1;
  int64_t pad_top = 0, pad_left = 0, pad_bottom = 0, pad_right = 0;
  int64_t dilation_h = 1, dilation_w = 1;
  int64_t groups = 1;

  int64_t out_h() const noexcept { return (h + pad_top + pad_bottom - dilation_h * (kh - 1) - 1) / stride_h + 1; }
  int64_t out_w() const noexcept { return (w + pad_left + pad_right - dilation_w * (kw - 1) - 1) / stride_w + 1; }
};

class LOWBIT_API PackedConvI8 {
 public:
  PackedConvI8() = default;
  int64_t bytes() const noexcept;

  struct Data;
  std::shared_ptr<const Data> data;
};

// w (oc, kh, kw, c / groups), dense. Takes c, oc, kh, kw, groups, stride and dilation from shape; not batch, h, w,
// padding.
LOWBIT_API PackedConvI8 pack_conv_i8(const void* w, DType dtype, const Conv2dShape& shape, int threads = 1);

// x: pixel (b, y, x) starts at x + ((b * h + y) * w + x) * ldx, ldx >= c elements. y: pixel (b, oy, ox) starts at
// ((b * out_h + oy) * out_w + ox) * ldy, ldy >= oc, in elements of epilogue.out_dtype. So either may be a channel slice
// of a wider tensor. The epilogue's residual rows are output pixels in the same order.
LOWBIT_API void conv2d_i8(const void* x, DType x_dtype, int64_t ldx, const Conv2dShape& shape, int32_t x_zero_point,
                          const PackedConvI8& w, int32_t w_zero_point, void* y, int64_t ldy, const Epilogue& epilogue,
                          Isa isa = best_isa(), int threads = 0);

}  // namespace lowbit
