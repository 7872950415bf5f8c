// The definition, written to be read.
#include "xnor/xnor_kernel.h"

#include <cmath>
#include <cstdint>

namespace lowbit {
namespace {

// A real number as a code of [least, least + 255].
int code(float v, int zero_point, int least) {
  const float shifted = std::fmin(std::fmax(v, static_cast<float>(least - zero_point)),
                                  static_cast<float>(least + 255 - zero_point));  // a NaN gives the least
  return zero_point + static_cast<int>(std::nearbyint(shifted));
}

void finish(const XnorBlock& b, int64_t i, int64_t j, int32_t pop) {
  const XnorFinish& f = b.finish;
  const int64_t at = j + (b.pattern ? b.pattern[i] : 0);
  const int32_t dot = b.start[at] - 2 * pop;
  float v = static_cast<float>(dot);
  if (f.scale) v = v * f.scale[j];
  if (f.input_scale) v = v * f.input_scale[i];
  if (f.bias) v = v + f.bias[j];
  if (f.residual) v = v + f.residual[i * f.residual_stride + j];
  v = v < f.lo ? f.lo : v;
  v = v > f.hi ? f.hi : v;
  const int64_t out = i * f.ldy + j;
  switch (f.out) {
    case XnorOut::none:
      break;
    case XnorOut::s32:
      static_cast<int32_t*>(f.y)[out] = dot;
      break;
    case XnorOut::f32:
      static_cast<float*>(f.y)[out] = v;
      break;
    case XnorOut::s8:
      static_cast<int8_t*>(f.y)[out] = static_cast<int8_t>(code(v, f.zero_point, -128));
      break;
    case XnorOut::u8:
      static_cast<uint8_t*>(f.y)[out] = static_cast<uint8_t>(code(v, f.zero_point, 0));
      break;
  }
  if (f.bits) {
    const bool at_least = f.by_dot ? b.half[at] - pop >= b.least[at] : v >= (f.threshold ? f.threshold[j] : 0.0f);
    const uint32_t bit = static_cast<uint32_t>(at_least) ^ (f.flip[j / 32] >> j % 32 & 1);
    uint32_t& word = f.bits[i * f.ld_bits + j / 32];
    word = (j % 32 ? word : 0) | bit << j % 32;
  }
}

template <typename T>
bool pack_rows(const BitRows& r) {
  bool nan = false;
  for (int64_t i = 0; i < r.rows; ++i) {
    const T* x = static_cast<const T*>(r.x) + i * r.ldx;
    for (int64_t j0 = 0; j0 < r.c; j0 += 32) {
      uint32_t word = 0;
      for (int64_t j = j0; j < j0 + 32 && j < r.c; ++j) {
        const float v = static_cast<float>(x[j]);
        nan |= v != v;
        word |= static_cast<uint32_t>(v >= (r.threshold ? r.threshold[j] : 0.0f)) << (j - j0);
      }
      r.bits[i * r.ld_bits + j0 / 32] = word ^ (r.flip ? r.flip[j0 / 32] : 0);
    }
  }
  return nan;
}

}  // namespace

void xnor_scalar(const XnorBlock& b) noexcept {
  const int64_t k = b.runs * b.run_words;
  for (int64_t i = 0; i < b.row_count; ++i) {
    for (int64_t j = 0; j < b.channels; ++j) {
      const uint32_t* w = b.w + j / kXnorPanel * k * kXnorPanel + j % kXnorPanel;
      int32_t pop = 0;
      for (int64_t r = 0; r < b.runs; ++r) {
        for (int64_t p = 0; p < b.run_words; ++p) {
          pop += __builtin_popcount(b.rows[i][b.run_offset[r] + p] ^ w[(r * b.run_words + p) * kXnorPanel]);
        }
      }
      finish(b, i, j, pop);
    }
  }
}

bool pack_bits_f32_scalar(const BitRows& r) noexcept { return pack_rows<float>(r); }
bool pack_bits_s8_scalar(const BitRows& r) noexcept { return pack_rows<int8_t>(r); }
bool pack_bits_u8_scalar(const BitRows& r) noexcept { return pack_rows<uint8_t>(r); }

void unpack_bits_scalar(const SignRows& r) noexcept {
  for (int64_t i = 0; i < r.rows; ++i) {
    for (int64_t j = 0; j < r.c; ++j) {
      r.x[i * r.ldx + j] = r.bits[i * r.ld_bits + j / 32] >> j % 32 & 1 ? int8_t{1} : int8_t{-1};
    }
  }
}

}  // namespace lowbit
