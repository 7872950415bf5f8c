// The definition, written to be read.
#include "xnor/bitserial_kernel.h"

#include <cstdint>

namespace lowbit {
namespace {

uint32_t code_of(const LevelSteps& s, float v) {
  int above = 0;
  for (int i = 0; i + 1 < 1 << s.bits; ++i) above += v > s.threshold[i];
  return s.codes[above];
}

// Bits of code of channel j to its words; words begin with their first channel.
void put(uint32_t* planes, int64_t stride, int64_t bits, int64_t j, uint32_t code) {
  for (int64_t q = 0; q < bits; ++q) {
    uint32_t& word = planes[q * stride + j / 32];
    word = (j % 32 ? word : 0) | (code >> q & 1) << j % 32;
  }
}

}  // namespace

void pair_sums_f32_scalar(const PairSums& s) noexcept {
  for (int64_t r = 0; r < s.rows; ++r) {
    for (int64_t j = 0; j < s.channels; ++j) {
      const int32_t* dot = s.dots + r * kBitserialPanel + j;
      float v = static_cast<float>(*dot) * s.c[j];
      for (int64_t i = 1; i < s.pairs; ++i) {
        v = v + static_cast<float>(dot[i * s.rows * kBitserialPanel]) * s.c[i * s.c_stride + j];
      }
      if (s.bias) v = v + s.bias[j];
      if (s.residual) v = v + s.residual[r * s.residual_stride + j];
      v = v < s.lo ? s.lo : v;
      v = v > s.hi ? s.hi : v;
      if (s.y) static_cast<float*>(s.y)[r * s.ldy + j] = v;
      if (s.planes) put(s.planes + r * s.ld_planes, s.plane_stride, s.levels.bits, j, code_of(s.levels, v));
    }
  }
}

void pair_sums_s32_scalar(const PairSums& s) noexcept {
  for (int64_t r = 0; r < s.rows; ++r) {
    for (int64_t j = 0; j < s.channels; ++j) {
      uint32_t sum = 0;
      for (int64_t i = 0; i < s.pairs; ++i) {
        sum += static_cast<uint32_t>(s.dots[(i * s.rows + r) * kBitserialPanel + j]) *
               static_cast<uint32_t>(s.c_s32[i * s.c_stride + j]);
      }
      static_cast<int32_t*>(s.y)[r * s.ldy + j] = static_cast<int32_t>(sum) >> s.shift;
    }
  }
}

void pack_levels_scalar(const PlaneRows& r) noexcept {
  for (int64_t i = 0; i < r.rows; ++i) {
    const float* x = static_cast<const float*>(r.x) + i * r.ldx;
    for (int64_t j = 0; j < r.c; ++j) put(r.planes + i * r.ld, r.stride, r.levels.bits, j, code_of(r.levels, x[j]));
  }
}

void pack_codes_scalar(const PlaneRows& r) noexcept {
  for (int64_t i = 0; i < r.rows; ++i) {
    const uint8_t* x = static_cast<const uint8_t*>(r.x) + i * r.ldx;
    for (int64_t j = 0; j < r.c; ++j) put(r.planes + i * r.ld, r.stride, r.levels.bits, j, x[j]);
  }
}

void unpack_levels_scalar(const LevelRows& r) noexcept {
  for (int64_t i = 0; i < r.rows; ++i) {
    for (int64_t j = 0; j < r.c; ++j) {
      uint32_t code = 0;
      for (int64_t q = 0; q < r.bits; ++q) code |= (r.planes[q * r.stride + i * r.ld + j / 32] >> j % 32 & 1) << q;
      r.y[i * r.ldy + j] = r.level[code];
    }
  }
}

}  // namespace lowbit
