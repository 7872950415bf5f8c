// Written to be read.
#include "depthwise_i8/depthwise_i8_kernel.h"

namespace lowbit {

void depthwise_i8_row_scalar(const DepthwiseRowI8& r) noexcept {
  for (int64_t first = 0; first < r.c; first += kDepthwiseBlock) {
    const int64_t width = r.c - first < kDepthwiseBlock ? r.c - first : kDepthwiseBlock;
    const int64_t copies = depthwise_copies(width);
    const int8_t* weights = r.weights + first * r.slots;
    for (int64_t i = 0; i < r.pixels; ++i) {
      const uint8_t* const* taps = r.taps + i * r.slots;
      for (int64_t p = 0; p < kDepthwiseBlock; ++p) {
        const int64_t j = depthwise_channel(p, copies);
        if (j >= width) continue;
        uint32_t sum = static_cast<uint32_t>(r.init[first + p]);  // the zero point is in it: only the total fits int32
        for (int64_t s = 0; s < r.slots; ++s) {
          sum += static_cast<uint32_t>(taps[s][first + j] * weights[s / 4 * (4 * kDepthwiseBlock) + p * 4 + s % 4]);
        }
        r.acc[i * r.c + first + j] = static_cast<int32_t>(sum);
      }
    }
  }
}

}  // namespace lowbit
