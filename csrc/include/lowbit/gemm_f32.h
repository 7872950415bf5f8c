// float32 matrix product and convolution, for layers kept in float: clamp(sum a * b + bias + residual, lo, hi), NaN
// passing. The order of summation is not fixed: with u = 2^-24 and j = k + 2, results are within j u / (1 - j u) * (sum
// |a| |b| + |bias| + |residual|) of exact arithmetic (Higham's gamma_j bound), and levels within twice that of each
// other.
#pragma once

#include "lowbit/gemm_i8.h"

namespace lowbit {

struct EpilogueF32 {
  const float* bias = nullptr;      // [n] or null
  const float* residual = nullptr;  // rows as in Epilogue
  int64_t residual_stride = 0;
  float lo = -__builtin_inff();  // clamp, after the residual
  float hi = __builtin_inff();
};

class LOWBIT_API PackedF32 {
 public:
  PackedF32() = default;
  int64_t k() const noexcept;
  int64_t n() const noexcept;
  int64_t bytes() const noexcept;

  struct Data;
  std::shared_ptr<const Data> data;
};

LOWBIT_API PackedF32 pack_f32(const float* b, int64_t k, int64_t n, int64_t row_stride, int64_t col_stride);
LOWBIT_API void gemm_f32(const float* a, int64_t m, int64_t lda, const PackedF32& b, float* c, int64_t ldc,
                         const EpilogueF32& epilogue, Isa isa = best_isa(), int threads = 0);

class LOWBIT_API PackedConvF32 {
 public:
  PackedConvF32() = default;
  int64_t bytes() const noexcept;

  struct Data;
  std::shared_ptr<const Data> data;
};

// w (oc, kh, kw, c / groups). Depthwise (groups == c == oc) has its own inner loop.
LOWBIT_API PackedConvF32 pack_conv_f32(const float* w, const Conv2dShape& shape);
LOWBIT_API void conv2d_f32(const float* x, int64_t ldx, const Conv2dShape& shape, const PackedConvF32& w, float* y,
                           int64_t ldy, const EpilogueF32& epilogue, Isa isa = best_isa(), int threads = 0);

}  // namespace lowbit
