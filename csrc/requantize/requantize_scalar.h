// Multiplication by a fixed-point number (lowbit/requantize.h), one value at a time.
#pragma once

#include <stdint.h>

#include "requantize/requantize_kernel.h"

namespace lowbit {

// gemmlowp's SaturatingRoundingDoublingHighMul for m0 > 0 (nothing saturates then): its nudge and truncating division
// come to rounding half up. Then RoundingDivideByPOT: half away from zero.
static inline int64_t multiply_gemmlowp(int32_t x, FixedPoint s) {
  const int64_t left = s.shift > 0 ? s.shift : 0, right = s.shift < 0 ? -s.shift : 0;
  const int64_t wide = int64_t{x} * (int64_t{1} << left);
  const int64_t shifted = wide < INT32_MIN ? INT32_MIN : wide > INT32_MAX ? INT32_MAX : wide;
  const int64_t high = (shifted * s.m0 + (int64_t{1} << 30)) >> 31;
  const int64_t half = (int64_t{1} << right) >> 1;
  return (high + half - (right > 0 && high < 0)) >> right;
}

static inline int64_t multiply_single(int32_t x, FixedPoint s) {
  const int right = 31 - s.shift;  // in [1, 63]
  return (int64_t{x} * s.m0 + (int64_t{1} << (right - 1))) >> right;
}

static inline int64_t multiply_fixed(int32_t x, FixedPoint s, Rounding rounding) {
  return rounding == Rounding::gemmlowp ? multiply_gemmlowp(x, s) : multiply_single(x, s);
}

}  // namespace lowbit
