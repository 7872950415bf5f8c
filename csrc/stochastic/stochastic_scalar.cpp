// Defines what is right: one element at a time.
#include <cmath>
#include <cstring>

#include "stochastic/stochastic_kernel.h"

namespace lowbit::stochastic {
namespace {

struct Words {
  uint32_t w[4];
};

Words philox(uint64_t counter, const Random& random) {
  uint32_t c[4] = {static_cast<uint32_t>(counter), static_cast<uint32_t>(counter >> 32), random.stream[0],
                   random.stream[1]};
  uint32_t k[2] = {random.key[0], random.key[1]};
  for (int round = 0; round < kRounds; ++round) {
    const uint64_t p0 = uint64_t{kMultiplier[0]} * c[0], p1 = uint64_t{kMultiplier[1]} * c[2];
    c[0] = static_cast<uint32_t>(p1 >> 32) ^ c[1] ^ k[0];
    c[1] = static_cast<uint32_t>(p1);
    c[2] = static_cast<uint32_t>(p0 >> 32) ^ c[3] ^ k[1];
    c[3] = static_cast<uint32_t>(p0);
    k[0] += kWeyl[0];
    k[1] += kWeyl[1];
  }
  return {{c[0], c[1], c[2], c[3]}};
}

float clamp(float v) {
  v = v > -kTop ? v : -kTop;  // NaN too; the door refuses it
  return v < kTop ? v : kTop;
}

struct LaneSums {
  float vq[kLanes] = {}, vv[kLanes] = {}, qq[kLanes] = {};

  void add(int64_t i, float v, float q) {
    const int64_t lane = i % kLanes;
    vq[lane] += v * q;
    vv[lane] += v * v;
    qq[lane] += q * q;
  }
  void flush(Sums& sums) {
    double a = 0, b = 0, c = 0;
    for (int64_t l = 0; l < kLanes; ++l) a += vq[l], b += vv[l], c += qq[l];
    sums.vq += a, sums.vv += b, sums.qq += c;
    *this = {};
  }
};

void note_magnitude(float x, Sums& sums) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  bits &= 0x7fffffffu;
  sums.magnitude = bits > sums.magnitude ? bits : sums.magnitude;
}

}  // namespace

void round_scalar(const float* x, int64_t first, int64_t n, float inverse, const Random& random, uint8_t* codes,
                  Sums& sums) noexcept {
  LaneSums lanes;
  Words words[kLanes];
  for (int64_t i = 0; i < n; ++i) {
    if (i % 64 == 0) {
      for (int64_t l = 0; l < kLanes; ++l) words[l] = philox(static_cast<uint64_t>((first + i) / 64 * 16 + l), random);
    }
    const float v = x[i] * inverse, c = clamp(v), low = std::floor(c);
    const float u = static_cast<float>(words[i % kLanes].w[i % 64 / kLanes] >> 8) * 0x1p-24f;
    const float q = low + (u < c - low ? 1.0f : 0.0f);
    codes[i] = static_cast<uint8_t>(static_cast<int32_t>(q) + 128);
    lanes.add(i, v, q);
    note_magnitude(x[i], sums);
    if ((i + 1) % kBlock == 0 || i + 1 == n) lanes.flush(sums);
  }
}

void measure_scalar(const float* x, int64_t n, float inverse, Sums& sums) noexcept {
  LaneSums lanes;
  for (int64_t i = 0; i < n; ++i) {
    const float v = x[i] * inverse;
    lanes.add(i, v, std::nearbyint(clamp(v)));
    note_magnitude(x[i], sums);
    if ((i + 1) % kBlock == 0 || i + 1 == n) lanes.flush(sums);
  }
}

}  // namespace lowbit::stochastic
