// What the variants of xnor compute: a block of rows times output channels, and rows of bits from numbers and back.
#pragma once

#include <cstdint>

namespace lowbit {

// Weights are tiled in panels of 64 output channels: word by word, the 64 channels' words side by side, zeros where
// there are no channels.
constexpr int64_t kXnorPanel = 64;

enum class XnorOut : uint8_t { none, s32, f32, s8, u8 };

// The epilogue of lowbit/xnor.h, its channel arrays beginning at the block's first channel.
struct XnorFinish {
  XnorOut out;
  void* y;  // of row 0
  int64_t ldy;
  const float *scale, *input_scale, *bias, *residual;
  int64_t residual_stride;
  float lo, hi;
  int32_t zero_point;
  uint32_t* bits;  // of row 0, or null
  int64_t ld_bits;
  bool by_dot;             // bits by XnorBlock::least, else by threshold
  const float* threshold;  // or null
  const uint32_t* flip;    // words of flip bits, whole panels
};

// For row i and channel j of the block:
//   pop = sum over runs r and words p of popcount(rows[i][run_offset[r] + p] ^ w[r * run_words + p][j])
//   half = (start[j] >> 1) - pop,  dot = start[j] - 2 * pop = 2 * half + (start[j] & 1)
// and dot >= the threshold <=> half >= least[j]. Start, half and least are moved by pattern[i] elements (if there is a
// pattern): rows at the image's border have their own.
struct XnorBlock {
  const uint32_t* const* rows;
  int64_t row_count;
  const int64_t* run_offset;
  int64_t runs, run_words;
  const uint32_t* w;                    // first panel; the next lies runs * run_words * kXnorPanel words further
  const uint8_t* w_bytes;               // the same in the order of the byte-table variants (xnor_packed.h), or null
  int64_t channels;                     // from the first panel on, >= 1
  const int32_t *start, *half, *least;  // half: start >> 1
  bool even;                            // every start is
  const int64_t* pattern;
  XnorFinish finish;
};

// Rows of c numbers <-> rows of bits, as lowbit/xnor.h. flip: words, or null.
struct BitRows {
  const void* x;
  int64_t rows, ldx, c;
  const float* threshold;
  const uint32_t* flip;
  uint32_t* bits;
  int64_t ld_bits;
};

struct SignRows {
  const uint32_t* bits;
  int64_t rows, ld_bits, c;
  int8_t* x;
  int64_t ldx;
};

void xnor_scalar(const XnorBlock& b) noexcept;
void xnor_avx2(const XnorBlock& b) noexcept;
void xnor_avx512(const XnorBlock& b) noexcept;

// True where x holds a NaN.
bool pack_bits_f32_scalar(const BitRows& r) noexcept;
bool pack_bits_s8_scalar(const BitRows& r) noexcept;
bool pack_bits_u8_scalar(const BitRows& r) noexcept;
bool pack_bits_f32_avx2(const BitRows& r) noexcept;
bool pack_bits_f32_avx512(const BitRows& r) noexcept;
bool pack_bits_s8_avx512(const BitRows& r) noexcept;
bool pack_bits_u8_avx512(const BitRows& r) noexcept;
void unpack_bits_scalar(const SignRows& r) noexcept;
void unpack_bits_avx512(const SignRows& r) noexcept;

}  // namespace lowbit
