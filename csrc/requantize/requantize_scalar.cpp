// Defines what is right: lowbit/requantize.h, one element at a time.
#include <stdint.h>

#include "requantize/requantize_kernel.h"
#include "requantize/requantize_scalar.h"

namespace lowbit {
namespace {

int32_t wrapping_add(int32_t a, int32_t b) {
  return static_cast<int32_t>(static_cast<uint32_t>(a) + static_cast<uint32_t>(b));
}

int64_t clamp(int64_t v, int64_t lo, int64_t hi) { return v < lo ? lo : v > hi ? hi : v; }

int32_t residual_code(const Requantizer& q, int64_t i, int64_t j) {
  const int64_t at = i * q.residual_stride + j;
  const int32_t r = q.residual_dtype == DType::u8 ? static_cast<const uint8_t*>(q.residual)[at]
                                                  : static_cast<const int8_t*>(q.residual)[at];
  return r - q.residual_zero_point;
}

int32_t code_nearest_even(int32_t acc, int64_t i, int64_t j, const Requantizer& q) {
  float f = static_cast<float>(acc) * q.scale[j * q.scale_step];
  if (q.residual) f += static_cast<float>(residual_code(q, i, j)) * q.residual_scale;
  const float lo = static_cast<float>(q.lo - q.zero_point), hi = static_cast<float>(q.hi - q.zero_point);
  f = f < hi ? f : hi;  // inf - inf goes to hi
  f = f > lo ? f : lo;
  return q.zero_point + static_cast<int32_t>(__builtin_nearbyintf(f));
}

int32_t code_fixed_point(int32_t acc, int64_t i, int64_t j, const Requantizer& q) {
  int64_t v = multiply_fixed(acc, {q.m0[j * q.scale_step], q.shift[j * q.scale_step]}, q.rounding);
  if (q.residual) v += multiply_fixed(residual_code(q, i, j) * 65536, q.residual_fixed, q.rounding);
  return static_cast<int32_t>(clamp(q.zero_point + v, q.lo, q.hi));
}

float float_value(int32_t acc, int64_t i, int64_t j, const Requantizer& q) {
  float f = static_cast<float>(acc) * q.scale[j * q.scale_step];
  if (q.float_bias) f += q.float_bias[j];
  if (q.residual) f += static_cast<const float*>(q.residual)[i * q.residual_stride + j];
  f = q.flo > f ? q.flo : f;  // NaN stays NaN
  return q.fhi < f ? q.fhi : f;
}

}  // namespace

void requantize_scalar(const int32_t* acc, int64_t acc_stride, int64_t i, int64_t rows, int64_t j, int64_t cols,
                       void* y, int64_t y_stride, const Requantizer& q) noexcept {
  for (int64_t r = i; r < i + rows; ++r, acc += acc_stride) {
    for (int64_t c = j; c < j + cols; ++c) {
      const int32_t a = wrapping_add(acc[c - j], q.bias ? q.bias[c] : 0);
      const int64_t at = r * y_stride + c;
      if (q.out_dtype == DType::s32) {
        static_cast<int32_t*>(y)[at] = a;
      } else if (q.out_dtype == DType::f32) {
        static_cast<float*>(y)[at] = float_value(a, r, c, q);
      } else {
        const int32_t code =
            q.rounding == Rounding::nearest_even ? code_nearest_even(a, r, c, q) : code_fixed_point(a, r, c, q);
        static_cast<uint8_t*>(y)[at] = static_cast<uint8_t>(code);
      }
    }
  }
}

}  // namespace lowbit
