// What the variants of depthwise_i8 compute, and the order of channels and taps that they share. Variants see uint8
// input only.
//
// Channels come in blocks of 64. Interleaving four vectors of 64 bytes with unpacklo/hi_epi8 and unpacklo/hi_epi16,
// which work within lanes of 128 bits, gives four vectors of 16 dwords, each dword four bytes of one channel; dword i
// of vector q belongs to channel i / 4 * 16 + q * 4 + i % 4 of the block. Weights, accumulators and scales keep that
// order ("lane order"), so packing dwords to words and bytes, which works within the same lanes, restores the natural
// one for free.
//
// A last block of at most 32 (16) channels holds them twice (four times), so that one register can serve several output
// rows.
#pragma once

#include <cstdint>

#include "requantize/requantize_kernel.h"

namespace lowbit {

constexpr int64_t kDepthwiseBlock = 64;

// How often a block of `width` channels repeats in its 64 lanes.
constexpr int64_t depthwise_copies(int64_t width) { return width > 32 ? 1 : width > 16 ? 2 : 4; }

// The channel within a block of `copies` at lane-order position p.
constexpr int64_t depthwise_channel(int64_t p, int64_t copies) {
  return (p % 16 / 4 * 16 + p / 16 * 4 + p % 4) % (kDepthwiseBlock / copies);
}

// A kernel of any size, stride and dilation, one output row: acc[i * c + j] = sum over slots s of taps[i * slots +
// s][j] * weight(s, j) + init(j). Taps come in slots of four; weights are (block, slots / 4, 64 positions, 4).
struct DepthwiseRowI8 {
  const uint8_t* const* taps;
  int64_t slots, pixels, c;
  const int8_t* weights;
  const int32_t* init;  // lane order
  int32_t* acc;
};

using DepthwiseRowI8Fn = void (*)(const DepthwiseRowI8& r) noexcept;
void depthwise_i8_row_scalar(const DepthwiseRowI8& r) noexcept;
void depthwise_i8_row_avx2(const DepthwiseRowI8& r) noexcept;
void depthwise_i8_row_avx512_vnni(const DepthwiseRowI8& r) noexcept;

// A 3x3 or 5x5 kernel without dilation, stride 1 or 2 both ways, the epilogue fused: output rows [begin, end) of one
// image and channel blocks [first_block, last_block).
//   y = flip ^ min(max(sat_u8(zero_point + v), lo), hi)
// with v = rne(float(acc) * scale), scale < 1, so that the conversion to int32 cannot overflow; or v from fixed-point
// multipliers below 1/2 (see requantize_avx512.h).
struct DepthwiseWalkI8 {
  const uint8_t* x;
  int64_t h, w, c, ldx, pad_top, pad_left;
  int64_t stride;
  const uint8_t* outside;  // a row of padding: w * ldx bytes
  const int8_t* weights;   // slots (see depthwise_i8.cpp): 3x3 columns of three; 5x5 columns of four, then the last row
  int64_t slots;
  const int32_t* sums;             // of a channel's weights, lane order
  const Requantizer* requantizer;  // its bias and multipliers
  int32_t zero_point;              // these three in uint8 terms
  uint8_t lo, hi, flip;
  uint8_t* y;
  int64_t out_w, ldy;
  int64_t begin, end, first_block, last_block;
};

using DepthwiseWalkI8Fn = void (*)(const DepthwiseWalkI8& walk) noexcept;
void depthwise_i8_walk3_avx2(const DepthwiseWalkI8& walk) noexcept;
void depthwise_i8_walk5_avx2(const DepthwiseWalkI8& walk) noexcept;
void depthwise_i8_walk3_avx512_vnni(const DepthwiseWalkI8& walk) noexcept;
void depthwise_i8_walk5_avx512_vnni(const DepthwiseWalkI8& walk) noexcept;

}  // namespace lowbit
