// The definition of the pivot layout's passes.
#include <cstring>

#include "huffman/huffman_kernel.h"

namespace lowbit {

static uint32_t checksum(const uint8_t* bytes, int64_t n) {
  uint32_t sum[kChecksumLanes] = {}, weighted[kChecksumLanes] = {};
  constexpr int64_t kStripe = 4 * kChecksumLanes;
  for (int64_t at = 0; at < n; at += kStripe) {
    uint8_t stripe[kStripe] = {};
    std::memcpy(stripe, bytes + at, static_cast<size_t>(n - at < kStripe ? n - at : kStripe));
    for (int lane = 0; lane < kChecksumLanes; ++lane) {
      const uint8_t* b = stripe + 4 * lane;
      sum[lane] += b[0] + 3u * b[1] + 5u * b[2] + 7u * b[3];
      weighted[lane] += sum[lane];
    }
  }
  return checksum_of_lanes(sum, weighted, n);
}

static int64_t count_ones(const uint8_t* bits, int64_t n) {
  int64_t ones = 0;
  for (int64_t at = 0; at < n; at += 64) {
    const int64_t left = n - at < 64 ? n - at : 64;
    uint64_t word = 0;
    std::memcpy(&word, bits + at / 8, static_cast<size_t>((left + 7) / 8));
    if (left < 64) word &= (uint64_t{1} << left) - 1;
    ones += __builtin_popcountll(word);
  }
  return ones;
}

// Without a branch, which the bits would send either way.
static inline uint8_t chosen(int64_t bit, uint8_t right, uint8_t left) {
  return static_cast<uint8_t>(left ^ ((left ^ right) & -bit));
}

static void merge(const uint8_t* bits, int64_t n, const uint8_t* left, const uint8_t* right, uint8_t* out) {
  for (int64_t i = 0; i < n; ++i) {
    const int64_t bit = bits[i >> 3] >> (i & 7) & 1;
    out[i] = chosen(bit, *right, *left);
    right += bit;
    left += 1 - bit;
  }
}

static void merge_leaf(const uint8_t* bits, int64_t n, uint8_t leaf, const uint8_t* right, uint8_t* out) {
  for (int64_t i = 0; i < n; ++i) {
    const int64_t bit = bits[i >> 3] >> (i & 7) & 1;
    out[i] = chosen(bit, *right, leaf);
    right += bit;
  }
}

// A pair is a bitmap. Else code i of a block lies in lane i % lanes; a lane's codes follow each other, lowest bit
// first, down its column of bytes.
static void flat(const uint8_t* codes, int64_t n, int width, const uint8_t* table, uint8_t* out) {
  if (width == 1) {
    for (int64_t i = 0; i < n; ++i) out[i] = table[codes[i >> 3] >> (i & 7) & 1];
    return;
  }
  const unsigned mask = (1u << width) - 1;
  while (n >= 8) {
    const int64_t lanes = n < kFlatBlock ? n / 8 : kFlatBlock / 8;
    for (int bit = 0; bit < 8 * width; bit += width) {
      const uint8_t* row = codes + bit / 8 * lanes;
      for (int64_t lane = 0; lane < lanes; ++lane) {
        unsigned code = row[lane];
        if (bit % 8 + width > 8) code |= unsigned{row[lanes + lane]} << 8;
        *out++ = table[code >> (bit % 8) & mask];
      }
    }
    codes += lanes * width;
    n -= 8 * lanes;
  }
  for (uint64_t bits = last_codes(codes, n, width); n > 0; --n, bits >>= width) *out++ = table[bits & mask];
}

static void unpack(const uint8_t* packed, int64_t n, int pack, uint8_t* out) {
  const int bits = 8 / pack;
  for (; n > 0; ++packed) {
    unsigned byte = *packed;
    for (int i = 0; i < pack && n > 0; ++i, --n, byte >>= bits)
      *out++ = static_cast<uint8_t>(byte & ((1u << bits) - 1));
  }
}

const PivotDecoder pivot_decoder_scalar = {checksum, count_ones, merge, merge_leaf, nullptr, flat, unpack};

}  // namespace lowbit
