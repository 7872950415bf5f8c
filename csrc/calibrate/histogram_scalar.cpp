// The definition.
#include "histogram_kernel.h"

#include <string.h>

namespace lowbit::histogram {

uint32_t range_scalar(const float* x, int64_t n, float& lo, float& hi) noexcept {
  float least = x[0], most = x[0];
  uint32_t magnitude = 0;
  for (int64_t i = 0; i < n; ++i) {
    uint32_t bits;
    memcpy(&bits, x + i, sizeof(bits));
    bits &= 0x7fffffffu;
    magnitude = bits > magnitude ? bits : magnitude;
    least = x[i] < least ? x[i] : least;
    most = x[i] > most ? x[i] : most;
  }
  lo = least;
  hi = most;
  return magnitude;
}

void count_scalar(const float* x, int64_t n, float scale, uint32_t side, uint32_t* tables) noexcept {
  for (int64_t i = 0; i < n; ++i) {
    const float v = x[i];
    const uint32_t bin = v < 0 ? side + static_cast<uint32_t>(-v * scale) : static_cast<uint32_t>(v * scale);
    ++tables[(static_cast<uint32_t>(i) % kTables) * 2 * side + bin];
  }
}

}  // namespace lowbit::histogram
