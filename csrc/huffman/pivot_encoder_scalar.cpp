// The definition of encoding; pivot_decoder_scalar.cpp says where bits lie.
#include <string.h>

#include "huffman/huffman_kernel.h"

namespace lowbit {

static void map(const uint8_t* bytes, int64_t n, const uint8_t* table, uint8_t* out) {
  for (int64_t i = 0; i < n; ++i) out[i] = table[bytes[i]];
}

static void split(const uint8_t* bytes, int64_t n, uint8_t first_right, uint8_t* bits, uint8_t* left, uint8_t* right) {
  for (int64_t at = 0; at < n; at += 8) {
    const int64_t size = n - at < 8 ? n - at : 8;
    unsigned eight = 0;
    for (int64_t i = 0; i < size; ++i) {
      const uint8_t b = bytes[at + i];
      const unsigned bit = b >= first_right;
      *left = b;
      *right = b;
      left += 1 - bit;
      right += bit;
      eight |= bit << i;
    }
    bits[at / 8] = static_cast<uint8_t>(eight);
  }
}

static void flat(const uint8_t* bytes, int64_t n, int width, uint8_t first, uint8_t* codes) {
  memset(codes, 0, static_cast<size_t>(flat_bytes(n, width)));
  if (width == 1) {
    for (int64_t i = 0; i < n; ++i) codes[i / 8] = static_cast<uint8_t>(codes[i / 8] | (bytes[i] - first) << (i % 8));
    return;
  }
  while (n >= 8) {
    const int64_t lanes = n < kFlatBlock ? n / 8 : kFlatBlock / 8;
    for (int bit = 0; bit < 8 * width; bit += width) {
      uint8_t* row = codes + bit / 8 * lanes;
      for (int64_t lane = 0; lane < lanes; ++lane) {
        const unsigned code = static_cast<unsigned>(*bytes++ - first) << (bit % 8);
        row[lane] = static_cast<uint8_t>(row[lane] | code);
        if (bit % 8 + width > 8) row[lanes + lane] = static_cast<uint8_t>(code >> 8);
      }
    }
    codes += lanes * width;
    n -= 8 * lanes;
  }
  uint64_t bits = 0;
  for (int64_t i = 0; i < n; ++i) bits |= static_cast<uint64_t>(bytes[i] - first) << (i * width);
  memcpy(codes, &bits, static_cast<size_t>(flat_bytes(n, width)));
}

const PivotEncoder pivot_encoder_scalar = {map, split, flat};

}  // namespace lowbit
