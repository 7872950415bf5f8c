// What the variants of gemm_f32 compute: a strip of rows times at most 32 columns, and a row of a depthwise
// convolution.
#pragma once

#include <cstdint>

namespace lowbit {

// B is packed in panels of 16 columns, each (k, 16) row-major, zero-filled on the right.
constexpr int64_t kPanelF32 = 16;
// Columns of one strip: a (k, 32) block of B stays in the L2 cache while the rows pass.
constexpr int64_t kStripColumnsF32 = 32;

struct FinishF32 {
  const float* bias;      // of the strip's first column, or null
  const float* residual;  // of its first element, or null
  int64_t residual_stride;
  float lo, hi;
};

// c[i, j] = finish(sum over runs r and p of a[i * row_step + run_offset[r] + p] * b[r * run_length + p, j]): a row of A
// is `runs` contiguous pieces, which makes a convolution a product without writing out its windows.
struct StripF32 {
  const float* a;
  int64_t row_step, rows;
  const int64_t* run_offset;
  int64_t runs, run_length;
  const float* b;   // first panel; the next lies runs * run_length * 16 floats further
  int64_t columns;  // 1..kStripColumnsF32
  float* c;
  int64_t ldc;
  FinishF32 finish;
};

// y[i, j] = finish(sum over t of taps[i * tap_count + t][j] * w[t * c + j]).
struct DepthwiseRowF32 {
  const float* const* taps;
  int64_t tap_count, pixels, c;
  const float* w;
  float* y;
  int64_t ldy;
  FinishF32 finish;
};

void gemm_f32_strip_scalar(const StripF32& s) noexcept;
void gemm_f32_strip_avx2(const StripF32& s) noexcept;
void gemm_f32_strip_avx512_vnni(const StripF32& s) noexcept;

void depthwise_f32_row_scalar(const DepthwiseRowF32& r) noexcept;
void depthwise_f32_row_avx2(const DepthwiseRowF32& r) noexcept;
void depthwise_f32_row_avx512_vnni(const DepthwiseRowF32& r) noexcept;

}  // namespace lowbit
