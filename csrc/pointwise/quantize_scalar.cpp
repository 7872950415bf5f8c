#include "pointwise/saturate_kernel.h"

namespace lowbit::pointwise {

void quantize_scalar(const float* x, int64_t n, float scale, const CodeOut& out, uint8_t* q) noexcept {
  for (int64_t i = 0; i < n; ++i) q[i] = saturate(x[i] / scale, out);
}

void quantize_planes_scalar(const float* x, int64_t plane, int64_t c, int64_t pixels, float scale, const CodeOut& out,
                            uint8_t* q, int64_t ldq) noexcept {
  for (int64_t i = 0; i < pixels; ++i) {
    for (int64_t j = 0; j < c; ++j) q[i * ldq + j] = saturate(x[j * plane + i] / scale, out);
  }
}

void dequantize_scalar(const uint8_t* q, int64_t n, const CodeIn& in, float* x) noexcept {
  for (int64_t i = 0; i < n; ++i) x[i] = difference(q[i], in) * in.factor;
}

bool min_max_scalar(const float* x, int64_t n, float* lo, float* hi) noexcept {
  float low = *lo, high = *hi;
  bool number = true;
  for (int64_t i = 0; i < n; ++i) {
    low = x[i] < low ? x[i] : low;
    high = x[i] > high ? x[i] : high;
    number &= x[i] == x[i];
  }
  *lo = low;
  *hi = high;
  return number;
}

}  // namespace lowbit::pointwise
