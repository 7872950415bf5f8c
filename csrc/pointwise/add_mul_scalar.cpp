#include "pointwise/saturate_kernel.h"

namespace lowbit::pointwise {

void add_codes_scalar(const uint8_t* a, const CodeIn& ca, const uint8_t* b, const CodeIn& cb, int64_t n, uint8_t* y,
                      const CodeOut& out) noexcept {
  for (int64_t i = 0; i < n; ++i) {
    y[i] = saturate(difference(a[i], ca) * ca.factor + difference(b[i], cb) * cb.factor, out);
  }
}

// The product of two differences is below 2^17, so float arithmetic holds it exactly.
void mul_codes_scalar(const uint8_t* a, const CodeIn& ca, const uint8_t* b, const CodeIn& cb, int64_t repeat,
                      int64_t inner, uint8_t* y, const CodeOut& out) noexcept {
  for (int64_t r = 0; r < repeat; ++r) {
    for (int64_t i = 0; i < inner; ++i) {
      const int64_t at = r * inner + i;
      y[at] = saturate((difference(a[at], ca) * difference(b[i], cb)) * ca.factor, out);
    }
  }
}

static float apply(Binary op, float a, float b) {
  switch (op) {
    case Binary::add:
      return a + b;
    case Binary::mul:
      return a * b;
    case Binary::sub:
      return a - b;
    case Binary::div:
      return a / b;
  }
  return 0.0f;
}

void binary_f32_scalar(Binary op, const float* a, const float* b, int64_t repeat, int64_t inner, float lo, float hi,
                       float* y) noexcept {
  for (int64_t r = 0; r < repeat; ++r) {
    for (int64_t i = 0; i < inner; ++i) {
      float f = apply(op, a[r * inner + i], b[i]);
      f = f > lo ? f : lo;
      y[r * inner + i] = f < hi ? f : hi;
    }
  }
}

}  // namespace lowbit::pointwise
