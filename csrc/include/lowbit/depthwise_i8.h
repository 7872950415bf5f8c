// 8-bit depthwise convolution (groups == c == oc), exact, with a fused epilogue. The same definition as conv2d_i8.
#pragma once

#include "lowbit/gemm_i8.h"

namespace lowbit {

class LOWBIT_API PackedDepthwiseI8 {
 public:
  PackedDepthwiseI8() = default;
  int64_t bytes() const noexcept;

  struct Data;
  std::shared_ptr<const Data> data;
};

// w (kh, kw, c), dense, int8. Any kernel size; 3x3 and 5x5 have their own inner loops.
LOWBIT_API PackedDepthwiseI8 pack_depthwise_i8(const int8_t* w, const Conv2dShape& shape);

// Weight zero point is 0. x and y as in conv2d_i8.
LOWBIT_API void depthwise_conv2d_i8(const void* x, DType x_dtype, int64_t ldx, const Conv2dShape& shape,
                                    int32_t x_zero_point, const PackedDepthwiseI8& w, void* y, int64_t ldy,
                                    const Epilogue& epilogue, Isa isa = best_isa(), int threads = 0);

}  // namespace lowbit
