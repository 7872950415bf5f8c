#include "pointwise/saturate_kernel.h"

namespace lowbit::pointwise {

static float lerp(float a, float b, float weight) { return a + (b - a) * weight; }

void bilinear_codes_scalar(const LinearRow& row, const CodeIn& in, const CodeOut& out) noexcept {
  const uint8_t *top = static_cast<const uint8_t*>(row.top), *bottom = static_cast<const uint8_t*>(row.bottom);
  uint8_t* y = static_cast<uint8_t*>(row.y);
  for (int64_t ox = 0; ox < row.out_w; ++ox) {
    const int64_t first = row.first[ox] * row.c, second = row.second[ox] * row.c;
    for (int64_t j = 0; j < row.c; ++j) {
      const float t = lerp(difference(top[first + j], in), difference(top[second + j], in), row.weights[ox]);
      const float b = lerp(difference(bottom[first + j], in), difference(bottom[second + j], in), row.weights[ox]);
      y[ox * row.c + j] = saturate(lerp(t, b, row.weight) * in.factor, out);
    }
  }
}

void bilinear_f32_scalar(const LinearRow& row) noexcept {
  const float *top = static_cast<const float*>(row.top), *bottom = static_cast<const float*>(row.bottom);
  float* y = static_cast<float*>(row.y);
  for (int64_t ox = 0; ox < row.out_w; ++ox) {
    const int64_t first = row.first[ox] * row.c, second = row.second[ox] * row.c;
    for (int64_t j = 0; j < row.c; ++j) {
      const float t = lerp(top[first + j], top[second + j], row.weights[ox]);
      const float b = lerp(bottom[first + j], bottom[second + j], row.weights[ox]);
      y[ox * row.c + j] = lerp(t, b, row.weight);
    }
  }
}

}  // namespace lowbit::pointwise
