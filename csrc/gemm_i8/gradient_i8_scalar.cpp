// Defines what is right.
#include "gemm_i8/gradient_i8_kernel.h"

namespace lowbit::gradient {

void transpose_scalar(const uint8_t* const* rows, int64_t count, int64_t columns, uint8_t flip, uint8_t* to,
                      int64_t ld) noexcept {
  for (int64_t r = 0; r < count; ++r) {
    for (int64_t c = 0; c < columns; ++c) to[c * ld + r] = rows[r][c] ^ flip;
  }
}

void interleave_scalar(const uint8_t* const* rows, int64_t columns, uint8_t flip, int8_t* to, int64_t panel,
                       int32_t* sums) noexcept {
  for (int64_t r = 0; r < kBlock; ++r) {
    for (int64_t c = 0; c < (columns + 15) / 16 * 16; ++c) {
      const int8_t value = c < columns ? static_cast<int8_t>(rows[r][c] ^ flip) : int8_t{0};
      to[c / 16 * panel + r / 4 * 64 + c % 16 * 4 + r % 4] = value;
      if (c < columns) sums[c] += value;
    }
  }
}

}  // namespace lowbit::gradient
