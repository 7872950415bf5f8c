// Defines what is right: the sum of gemm_i8_kernel.h, one element at a time, then the scalar epilogue.
#include <stdint.h>

#include "gemm_i8/gemm_i8_kernel.h"

namespace lowbit {
namespace {

uint32_t dot(const GemmI8& g, const uint8_t* row, const int8_t* panel, int64_t column) {
  uint32_t sum = 0;
  for (int64_t t = 0; t < g.runs; ++t) {
    const uint8_t* a = row + g.run_offset[t];
    const int8_t* b = panel + t * g.run_pad * kPanel;
    for (int64_t p = 0; p < g.run_bytes; ++p) {
      sum += static_cast<uint32_t>(a[p] * b[p / 4 * 4 * kPanel + column * 4 + p % 4]);
    }
  }
  return sum;
}

}  // namespace

void gemm_i8_scalar(const GemmI8& g, int64_t i0, int64_t i1, int64_t p0, int64_t p1) noexcept {
  for (int64_t i = i0; i < i1; ++i) {
    for (int64_t panel = p0; panel < p1; ++panel) {
      const int64_t j0 = panel * kPanel, cols = g.n - j0 < kPanel ? g.n - j0 : kPanel;
      int32_t acc[kPanel];
      for (int64_t j = 0; j < cols; ++j) {
        uint32_t sum = static_cast<uint32_t>(g.init[j0 + j]) + dot(g, g.row(i), g.b + panel * g.panel_bytes(), j);
        if (g.row_term) sum += static_cast<uint32_t>(g.row_term[i - g.first_row]);
        acc[j] = static_cast<int32_t>(sum);
      }
      requantize_scalar(acc, kPanel, i, 1, j0, cols, g.c, g.ldc, *g.requantizer);
    }
  }
}

}  // namespace lowbit
