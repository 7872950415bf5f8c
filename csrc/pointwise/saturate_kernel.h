// sat() of the scalar variants.
#pragma once

#include <math.h>

#include "pointwise/pointwise_kernel.h"

namespace lowbit::pointwise {

static inline uint8_t saturate(float f, const CodeOut& out) {
  const float lo = static_cast<float>(out.lo - out.zero), hi = static_cast<float>(out.hi - out.zero);
  f = f > lo ? f : lo;  // NaN becomes lo
  f = f < hi ? f : hi;
  return static_cast<uint8_t>((out.zero + static_cast<int32_t>(lrintf(f))) ^ out.flip);
}

// The same of a whole number.
static inline uint8_t saturate_fixed(int64_t v, const CodeOut& out) {
  v += out.zero;
  v = v > out.lo ? v : out.lo;
  v = v < out.hi ? v : out.hi;
  return static_cast<uint8_t>(static_cast<int32_t>(v) ^ out.flip);
}

static inline float difference(uint8_t byte, const CodeIn& in) {
  return static_cast<float>((byte ^ in.flip) - in.zero);
}

}  // namespace lowbit::pointwise
