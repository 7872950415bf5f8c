// The two gradients of a convolution y = conv2d(x, w) in 8 bits: products of codes, exact sums, one scale at the end.
//
//   input gradient    dx[b, i, j, c]   = scale * sum g[b, y, x, o] w[o, ky, kx, c] over the (y, x, ky, kx) that read
//                                        pixel (i, j)
//   weight gradient   dw[o, ky, kx, c] = scale * sum g[b, y, x, o] x[b, y sh + ky dh - top, x sw + kx dw - left, c]
//                                        over the output pixels (b, y, x); padding counts as 0
//
// `shape` is the forward convolution's. Codes are symmetric: int8, or uint8 around 128; w is int8. x, g, dx (NHWC), w
// and dw (oc, kh, kw, c / groups) are dense. float(sum) * scale is one rounded binary32 product. A weight gradient over
// many pixels is cut into pieces whose scaled sums are added in float32, in order; the cuts depend on the shape alone,
// so results are the same on every level and thread count (weight_gradient_pixels says how long a piece is).
#pragma once

#include <cstdint>

#include "lowbit/dtype.h"
#include "lowbit/export.h"
#include "lowbit/gemm_i8.h"
#include "lowbit/isa.h"

namespace lowbit {

// w for input_gradient_i8. Takes from shape what pack_conv_i8 takes.
LOWBIT_API PackedConvI8 pack_gradient_i8(const int8_t* w, const Conv2dShape& shape, Isa isa = best_isa(),
                                         int threads = 0);

// g (batch, out_h, out_w, oc) -> dx (batch, h, w, c). No padding may exceed dilation * (kernel - 1) on its axis.
LOWBIT_API void input_gradient_i8(const void* g, DType g_dtype, const Conv2dShape& shape, const PackedConvI8& w,
                                  float scale, float* dx, Isa isa = best_isa(), int threads = 0);

// x (batch, h, w, c), g (batch, out_h, out_w, oc) -> dw (oc, kh, kw, c / groups); zeros for an empty batch.
LOWBIT_API void weight_gradient_i8(const void* x, DType x_dtype, const void* g, DType g_dtype, const Conv2dShape& shape,
                                   float scale, float* dw, Isa isa = best_isa(), int threads = 0);

}  // namespace lowbit
