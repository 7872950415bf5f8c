// What the doors of lowbit/stochastic.h hand to the variants.
#pragma once

#include <cstdint>

namespace lowbit::stochastic {

constexpr int64_t kLanes = 16;
constexpr int64_t kBlock = 1024;  // elements whose sums are float32: of q q they are exact, 64 * 127^2 < 2^24
constexpr float kTop = 127.0f;

constexpr uint32_t kMultiplier[2] = {0xD2511F53u, 0xCD9E8D57u};
constexpr uint32_t kWeyl[2] = {0x9E3779B9u, 0xBB67AE85u};
constexpr int kRounds = 10;

struct Random {
  uint32_t key[2], stream[2];
};

struct Sums {
  double vq, vv, qq;
  uint32_t magnitude;  // bits of the greatest |x|; those of infinity and above: a value is not finite
};

// Codes of x[0..n), elements number first, first + 1, ... of the tensor, first a multiple of kBlock; adds to sums.
using RoundFn = void(const float* x, int64_t first, int64_t n, float inverse, const Random& random, uint8_t* codes,
                     Sums& sums) noexcept;
// Adds the sums of rounding to nearest.
using MeasureFn = void(const float* x, int64_t n, float inverse, Sums& sums) noexcept;

RoundFn round_scalar, round_avx2, round_avx512_vnni;
MeasureFn measure_scalar, measure_avx2, measure_avx512_vnni;

}  // namespace lowbit::stochastic
