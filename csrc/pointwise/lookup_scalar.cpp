#include "pointwise/pointwise_kernel.h"

namespace lowbit::pointwise {

void lookup_scalar(const uint8_t* x, int64_t n, const uint8_t* table, uint8_t* y) noexcept {
  for (int64_t i = 0; i < n; ++i) y[i] = table[x[i]];
}

}  // namespace lowbit::pointwise
