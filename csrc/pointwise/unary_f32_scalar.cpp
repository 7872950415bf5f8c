// exp(x) = 2^k exp(r), k = rne(x log2 e) by the magic number, r = x - k ln 2 in two parts; 2^k is applied in two
// factors, so that denormal results are rounded once and the largest do not overflow early.
#include <math.h>
#include <string.h>

#include "pointwise/pointwise_kernel.h"
#include "pointwise/unary_f32_kernel.h"

namespace lowbit::pointwise {

static uint32_t bits_of(float f) {
  uint32_t u;
  memcpy(&u, &f, sizeof(u));
  return u;
}

static float power_of_two(int32_t k) {
  const uint32_t u = static_cast<uint32_t>(k + 127) << 23;
  float f;
  memcpy(&f, &u, sizeof(f));
  return f;
}

static float exp_of(float x) {
  x = kExpLowest > x ? kExpLowest : x;  // NaN stays
  x = kExpHighest < x ? kExpHighest : x;
  const float shifted = x * kLog2E + kRoundMagic;
  const float n = shifted - kRoundMagic;
  const int32_t k = static_cast<int32_t>((bits_of(shifted) - bits_of(kRoundMagic)) << 8) >> 8;
  const float r = (x - n * kLn2High) - n * kLn2Low;
  float p = kE6 * r + kE5;
  p = p * r + kE4;
  p = p * r + kE3;
  p = p * r + kE2;
  p = (p * (r * r) + r) + 1.0f;
  return (p * power_of_two(k >> 1)) * power_of_two(k - (k >> 1));
}

static float tanh_of(float x) {
  const float a = fabsf(x);
  const float large = 1.0f - 2.0f / (exp_of(a + a) + 1.0f);
  const float z = a * a;
  float p = kT4 * z + kT3;
  p = p * z + kT2;
  p = p * z + kT1;
  p = p * z + kT0;
  const float small = a + (a * z) * p;
  return copysignf(a < kTanhSmall ? small : large, x);
}

static float clamp(float x, float lo, float hi) {
  x = x > lo ? x : lo;
  return x < hi ? x : hi;
}

static float apply(Unary op, float x, float alpha, float beta) {
  switch (op) {
    case Unary::relu:
      return x > 0.0f ? x : 0.0f;
    case Unary::clip:
      return clamp(x, alpha, beta);
    case Unary::sigmoid:
      return 1.0f / (1.0f + exp_of(-x));
    case Unary::hard_sigmoid:
      return clamp(alpha * x + beta, 0.0f, 1.0f);
    case Unary::hard_swish:
      return x * clamp(x * kSixth + 0.5f, 0.0f, 1.0f);
    case Unary::swish:
      return x / (1.0f + exp_of(-x));
    case Unary::leaky_relu:
      return x > 0.0f ? x : alpha * x;
    case Unary::tanh:
      return tanh_of(x);
    case Unary::exp:
      return exp_of(x);
  }
  return 0.0f;
}

void unary_f32_scalar(Unary op, const float* x, int64_t n, float alpha, float beta, float* y) noexcept {
  for (int64_t i = 0; i < n; ++i) y[i] = apply(op, x[i], alpha, beta);
}

void prelu_f32_scalar(const float* x, int64_t rows, const float* slope, int64_t channels, float* y) noexcept {
  for (int64_t r = 0; r < rows; ++r, x += channels, y += channels) {
    for (int64_t j = 0; j < channels; ++j) y[j] = x[j] > 0.0f ? x[j] : x[j] * slope[j];
  }
}

void softmax_f32_scalar(const float* x, int64_t rows, int64_t n, float* y) noexcept {
  for (int64_t r = 0; r < rows; ++r, x += n, y += n) {
    float highest = -HUGE_VALF;
    for (int64_t i = 0; i < n; ++i) highest = x[i] > highest ? x[i] : highest;
    float s[16] = {};
    for (int64_t i = 0; i < n; ++i) {
      y[i] = exp_of(x[i] - highest);
      s[i % 16] += y[i];
    }
    for (int step = 8; step > 0; step /= 2) {
      for (int j = 0; j < step; ++j) s[j] += s[j + step];
    }
    for (int64_t i = 0; i < n; ++i) y[i] /= s[0];
  }
}

}  // namespace lowbit::pointwise
