// What the codebook doors hand to the variants.
//
// Tiled order of indices: panels of 16 output channels; of each, blocks of 32 columns; of each, 8 quads of 16 channels
// x 4 columns, 64 indices in the order of an AMX tile or a VNNI operand (byte 4 * channel + column % 4). The bits of an
// index are split into planes of 4, 2 and 1 bits (7 = 4 + 2 + 1, 8 whole), a plane of w bits of the 8 quads takes w
// vectors of 64 bytes, and quad f lies in vector f / (8 / w) at bit w * (f % (8 / w)) of each byte: a block takes 64 *
// bits bytes, and an index comes out of a vector by one shift that is the same for all lanes. Columns of a codebook
// group fill whole blocks; what is missing has index 0.
#pragma once

#include <cstdint>

namespace lowbit {

constexpr int64_t kChannels = 16;      // of a panel
constexpr int64_t kBlockColumns = 32;  // of a block
constexpr int64_t kQuads = 8;          // of a block

struct IndexPlanes {
  int count = 0;
  int width[3] = {};
};
constexpr IndexPlanes index_planes(int bits) {
  if (bits == 8) return {1, {8}};
  IndexPlanes p;
  for (int w = 4; w > 0; w /= 2) {
    if (bits & w) p.width[p.count++] = w;
  }
  return p;
}

// A run of dense indices with one codebook.
template <typename T>
struct DecodeRun {
  const uint8_t* packed;
  int64_t first, count;  // indices
  const T* table;        // 2^bits entries
  T* out;                // of index `first`
};

struct TiledIndices {
  const uint8_t* tiles;  // (panels, blocks, 64 * bits bytes)
  int bits;
  int64_t n, k;
  int64_t group_size;    // columns; k where there is one group
  int64_t group_blocks;  // blocks of a whole group
  int64_t blocks;        // of a panel
  int64_t groups;
  bool per_channel;

  int64_t block_bytes() const { return 64 * bits; }
  const uint8_t* panel(int64_t p) const { return tiles + p * blocks * block_bytes(); }
  int64_t panels() const { return (n + kChannels - 1) / kChannels; }
  int64_t entries() const { return int64_t{1} << bits; }
  // Columns of group g.
  int64_t columns(int64_t g) const { return (k - g * group_size) < group_size ? k - g * group_size : group_size; }
};

struct FinishCodebook {
  const float* bias;  // or null
  float lo, hi;
};

// y[i, j] as lowbit/codebook.h has it. A table is 2^bits values, one per tensor or group, or one per channel (padded to
// whole panels).
struct CodebookF32 {
  TiledIndices w;
  const float* table;
  const float* x;
  int64_t ldx;
  float* y;
  int64_t ldy;
  FinishCodebook finish;
  float* work;  // of this thread: f32_work_floats(rows)
};
constexpr int64_t kWorkColumns = 128;  // that are decoded at a time, of two panels
constexpr int64_t f32_work_floats(int64_t rows) { return (kWorkColumns + rows) * 2 * kChannels; }

// Rows of x hold, group after group, the codes of group_blocks * 32 columns, zeros behind the group's own; ldx is a
// multiple of 64. Up to the next multiple of 16 rows, and 64 bytes more, may be read.
struct CodebookI8 {
  TiledIndices w;
  const int8_t* table;
  const float* scale;  // of a table
  const int8_t* x;
  int64_t ldx;
  const float* x_scale;  // of a row
  float* y;
  int64_t ldy;
  FinishCodebook finish;
  uint8_t* work;  // of this thread: i8_work_bytes(columns of a group)
};
// Four panels of a group, decoded.
constexpr int64_t i8_work_bytes(int64_t columns) { return 4 * kChannels * ((columns + 63) / 64 * 64); }

// Rows [i0, i1) of panels [p0, p1).
using CodebookF32Fn = void (*)(const CodebookF32& c, int64_t i0, int64_t i1, int64_t p0, int64_t p1) noexcept;
using CodebookI8Fn = void (*)(const CodebookI8& c, int64_t i0, int64_t i1, int64_t p0, int64_t p1) noexcept;
template <typename T>
using DecodeFn = void (*)(const DecodeRun<T>& run, int bits) noexcept;
// The largest |x|; not finite where a value is not, NaN before infinity.
using PeakFn = float (*)(const float* x, int64_t count) noexcept;
// codes[t] = round(x[t] * inverse), half to even, within +-127; of NaN any.
using CodesFn = void (*)(const float* x, int64_t count, float inverse, int8_t* codes) noexcept;

void codebook_decode_f32_scalar(const DecodeRun<float>& run, int bits) noexcept;
void codebook_decode_i8_scalar(const DecodeRun<int8_t>& run, int bits) noexcept;
float codebook_peak_scalar(const float* x, int64_t count) noexcept;
void codebook_codes_scalar(const float* x, int64_t count, float inverse, int8_t* codes) noexcept;
void codebook_f32_scalar(const CodebookF32& c, int64_t i0, int64_t i1, int64_t p0, int64_t p1) noexcept;
void codebook_i8_scalar(const CodebookI8& c, int64_t i0, int64_t i1, int64_t p0, int64_t p1) noexcept;

void codebook_decode_f32_avx2(const DecodeRun<float>& run, int bits) noexcept;
void codebook_decode_i8_avx2(const DecodeRun<int8_t>& run, int bits) noexcept;
float codebook_peak_avx2(const float* x, int64_t count) noexcept;
void codebook_codes_avx2(const float* x, int64_t count, float inverse, int8_t* codes) noexcept;
void codebook_f32_avx2(const CodebookF32& c, int64_t i0, int64_t i1, int64_t p0, int64_t p1) noexcept;
void codebook_i8_avx2(const CodebookI8& c, int64_t i0, int64_t i1, int64_t p0, int64_t p1) noexcept;

void codebook_decode_f32_avx512(const DecodeRun<float>& run, int bits) noexcept;
void codebook_decode_i8_avx512(const DecodeRun<int8_t>& run, int bits) noexcept;
float codebook_peak_avx512(const float* x, int64_t count) noexcept;
void codebook_codes_avx512(const float* x, int64_t count, float inverse, int8_t* codes) noexcept;
void codebook_f32_avx512(const CodebookF32& c, int64_t i0, int64_t i1, int64_t p0, int64_t p1) noexcept;
void codebook_i8_avx512(const CodebookI8& c, int64_t i0, int64_t i1, int64_t p0, int64_t p1) noexcept;

void codebook_i8_amx(const CodebookI8& c, int64_t i0, int64_t i1, int64_t p0, int64_t p1) noexcept;

}  // namespace lowbit
