// Written to be read. Sums run over k in order, in float32.
#include "gemm_f32/gemm_f32_kernel.h"

namespace lowbit {
namespace {

// NaN passes through the clamp, as it does through a layer without one.
float finished(float v, const FinishF32& f, int64_t i, int64_t j) {
  if (f.bias) v += f.bias[j];
  if (f.residual) v += f.residual[i * f.residual_stride + j];
  v = v < f.lo ? f.lo : v;
  return v > f.hi ? f.hi : v;
}

}  // namespace

void gemm_f32_strip_scalar(const StripF32& s) noexcept {
  const int64_t k = s.runs * s.run_length;
  for (int64_t i = 0; i < s.rows; ++i) {
    for (int64_t first = 0; first < s.columns; first += kPanelF32) {
      const float* b = s.b + first * k;
      float acc[kPanelF32] = {};
      for (int64_t r = 0; r < s.runs; ++r) {
        const float* a = s.a + i * s.row_step + s.run_offset[r];
        for (int64_t p = 0; p < s.run_length; ++p, b += kPanelF32) {
          for (int64_t j = 0; j < kPanelF32; ++j) acc[j] += a[p] * b[j];
        }
      }
      for (int64_t j = 0; j < kPanelF32 && first + j < s.columns; ++j) {
        s.c[i * s.ldc + first + j] = finished(acc[j], s.finish, i, first + j);
      }
    }
  }
}

void depthwise_f32_row_scalar(const DepthwiseRowF32& r) noexcept {
  for (int64_t i = 0; i < r.pixels; ++i) {
    const float* const* taps = r.taps + i * r.tap_count;
    for (int64_t j = 0; j < r.c; ++j) {
      float sum = 0;
      for (int64_t t = 0; t < r.tap_count; ++t) sum += taps[t][j] * r.w[t * r.c + j];
      r.y[i * r.ldy + j] = finished(sum, r.finish, i, j);
    }
  }
}

}  // namespace lowbit
