// Written to be read.
#include <math.h>
#include <string.h>

#include "codebook/codebook_kernel.h"

namespace lowbit {
namespace {

int dense_index(const uint8_t* packed, int64_t t, int bits) {
  const int64_t bit = t * bits;
  int word = packed[bit / 8];
  if (bit % 8 + bits > 8) word |= packed[bit / 8 + 1] << 8;
  return word >> (bit % 8) & ((1 << bits) - 1);
}

template <typename T>
void decode(const DecodeRun<T>& run, int bits) {
  for (int64_t t = 0; t < run.count; ++t) run.out[t] = run.table[dense_index(run.packed, run.first + t, bits)];
}

// The index of channel j at column p of group g.
int tiled_index(const TiledIndices& w, int64_t j, int64_t g, int64_t p) {
  const IndexPlanes planes = index_planes(w.bits);
  const uint8_t* block = w.panel(j / kChannels) + (g * w.group_blocks + p / kBlockColumns) * w.block_bytes();
  const int quad = static_cast<int>(p % kBlockColumns / 4);
  int index = 0, bit = 0;
  for (int t = 0; t < planes.count; ++t) {
    const int width = planes.width[t], per_byte = 8 / width;
    const int byte = block[64 * (quad / per_byte) + 4 * (j % kChannels) + p % 4];
    index |= (byte >> (width * (quad % per_byte)) & ((1 << width) - 1)) << bit;
    bit += width;
    block += 64 * width;
  }
  return index;
}

constexpr int64_t kRows = 16;  // that share a decoded weight

// body(first, rows, j) for output channels of [p0, p1) and rows of [i0, i1).
template <typename Body>
void for_each_column(const TiledIndices& w, int64_t i0, int64_t i1, int64_t p0, int64_t p1, Body&& body) {
  const int64_t j1 = p1 * kChannels < w.n ? p1 * kChannels : w.n;
  for (int64_t j = p0 * kChannels; j < j1; ++j) {
    for (int64_t first = i0; first < i1; first += kRows) body(first, i1 - first < kRows ? i1 - first : kRows, j);
  }
}

// NaN passes.
float finished(float v, const FinishCodebook& f, int64_t j) {
  if (f.bias) v += f.bias[j];
  v = v < f.lo ? f.lo : v;
  return v > f.hi ? f.hi : v;
}

}  // namespace

void codebook_decode_f32_scalar(const DecodeRun<float>& run, int bits) noexcept { decode(run, bits); }
void codebook_decode_i8_scalar(const DecodeRun<int8_t>& run, int bits) noexcept { decode(run, bits); }

void codebook_f32_scalar(const CodebookF32& c, int64_t i0, int64_t i1, int64_t p0, int64_t p1) noexcept {
  const TiledIndices& w = c.w;
  for_each_column(w, i0, i1, p0, p1, [&](int64_t first, int64_t rows, int64_t j) {
    float sum[kRows] = {};
    for (int64_t g = 0; g < w.groups; ++g) {
      const float* table = c.table + (w.per_channel ? j : g) * w.entries();
      for (int64_t p = 0; p < w.columns(g); ++p) {
        const float value = table[tiled_index(w, j, g, p)];
        const float* x = c.x + first * c.ldx + g * w.group_size + p;
        for (int64_t i = 0; i < rows; ++i) sum[i] = fmaf(x[i * c.ldx], value, sum[i]);
      }
    }
    for (int64_t i = 0; i < rows; ++i) c.y[(first + i) * c.ldy + j] = finished(sum[i], c.finish, j);
  });
}

float codebook_peak_scalar(const float* x, int64_t count) noexcept {
  uint32_t peak = 0;  // magnitudes are ordered as their bits, NaN last
  for (int64_t t = 0; t < count; ++t) {
    uint32_t bits;
    memcpy(&bits, x + t, sizeof(bits));
    bits &= 0x7fffffff;
    peak = bits > peak ? bits : peak;
  }
  float out;
  memcpy(&out, &peak, sizeof(out));
  return out;
}

void codebook_codes_scalar(const float* x, int64_t count, float inverse, int8_t* codes) noexcept {
  for (int64_t t = 0; t < count; ++t) {
    float v = x[t] * inverse;
    v = v > -127.0f ? v : -127.0f;
    v = v < 127.0f ? v : 127.0f;
    codes[t] = static_cast<int8_t>(nearbyintf(v));
  }
}

void codebook_i8_scalar(const CodebookI8& c, int64_t i0, int64_t i1, int64_t p0, int64_t p1) noexcept {
  const TiledIndices& w = c.w;
  for_each_column(w, i0, i1, p0, p1, [&](int64_t first, int64_t rows, int64_t j) {
    float total[kRows] = {};
    for (int64_t g = 0; g < w.groups; ++g) {
      const int64_t row = w.per_channel ? j : g;
      int32_t sum[kRows] = {};
      for (int64_t p = 0; p < w.columns(g); ++p) {
        const int32_t value = c.table[row * w.entries() + tiled_index(w, j, g, p)];
        const int8_t* x = c.x + first * c.ldx + g * w.group_blocks * kBlockColumns + p;
        for (int64_t i = 0; i < rows; ++i) sum[i] += x[i * c.ldx] * value;
      }
      for (int64_t i = 0; i < rows; ++i) total[i] += static_cast<float>(sum[i]) * c.scale[row];
    }
    for (int64_t i = 0; i < rows; ++i) {
      c.y[(first + i) * c.ldy + j] = finished(total[i] * c.x_scale[first + i], c.finish, j);
    }
  });
}

}  // namespace lowbit
