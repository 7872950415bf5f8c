// What the variants of huffman compute: the checksum, the passes of the pivot layout in both directions, the streams
// of the other layout, and unpacking. docs/huffman.md defines the bytes.
#pragma once

#include <cstdint>

namespace lowbit {

constexpr int kFlatBits = 6;         // at most 64 bytes in a complete subtree: one vpermb
constexpr int64_t kFlatBlock = 512;  // codes of a full block: 8 in each of 64 lanes
constexpr int64_t kReadBehind = 64;  // bytes of scratch that a pass may read behind what it was given
constexpr int kStreams = 8;          // of a chunk in the streams layout
constexpr int kChecksumLanes = 64;   // of 4 bytes
constexpr int kMaxStreamTableBits = 15;

// Bytes of n codes of `width` bits: a bitmap; else blocks of 512, of which the last has codes / 8 lanes, and up to
// seven codes behind them.
static inline int64_t flat_bytes(int64_t n, int width) { return n / 8 * width + (n % 8 * width + 7) / 8; }

// The last codes of a flat subtree: n of them, at most 7.
static inline uint64_t last_codes(const uint8_t* codes, int64_t n, int width) {
  uint64_t bits = 0;
  for (int64_t b = 0; 8 * b < n * width; ++b) bits |= static_cast<uint64_t>(codes[b]) << (8 * b);
  return bits;
}

// The end of the checksum: `sum` and `weighted` are its lanes.
static inline uint32_t checksum_of_lanes(const uint32_t* sum, const uint32_t* weighted, int64_t n) {
  uint64_t h = static_cast<uint64_t>(n);
  for (int lane = 0; lane < kChecksumLanes; ++lane) {
    const uint64_t odd = static_cast<uint64_t>(2 * lane + 1) * 0x9e3779b97f4a7c15u;
    h += (sum[lane] + (static_cast<uint64_t>(weighted[lane]) << 32)) * odd;
  }
  h = (h ^ h >> 32) * 0xd6e8feb86659fd93u;
  return static_cast<uint32_t>(h >> 32);
}

// A leaf beside a pair, or a leaf beside a leaf beside a pair: two or three bitmaps, each over the ones of that before
// it, and three or four bytes.
struct LeafChain {
  const uint8_t* bits[3];
  int64_t sizes[3];  // of the bitmaps, in bits; sizes[0] outputs
  uint8_t leaves[4];
  int levels;
};

// All write exactly their n outputs. `left`, `right` and `bytes` of encoding lie in scratch and may be read kReadBehind
// bytes behind their end; bitmaps and codes may not.
struct PivotDecoder {
  uint32_t (*checksum)(const uint8_t* bytes, int64_t n);
  int64_t (*count_ones)(const uint8_t* bits, int64_t n);
  // out[i] = bit i ? next of right : next of left
  void (*merge)(const uint8_t* bits, int64_t n, const uint8_t* left, const uint8_t* right, uint8_t* out);
  // out[i] = bit i ? next of right : leaf
  void (*merge_leaf)(const uint8_t* bits, int64_t n, uint8_t leaf, const uint8_t* right, uint8_t* out);
  // The same for a whole chain at once; null where the passes above are as fast.
  void (*merge_chain)(const LeafChain& c, uint8_t* out);
  // out[i] = table[code i of `width` bits]; the table has 64 entries, repeated
  void (*flat)(const uint8_t* codes, int64_t n, int width, const uint8_t* table, uint8_t* out);
  // out[i] = the i-th field of 8 / pack bits
  void (*unpack)(const uint8_t* packed, int64_t n, int pack, uint8_t* out);
};

struct PivotEncoder {
  void (*map)(const uint8_t* bytes, int64_t n, const uint8_t* table, uint8_t* out);  // out[i] = table[bytes[i]]
  // bit i = bytes[i] >= first_right, zero padded; both lists, which have room for 64 more bytes each
  void (*split)(const uint8_t* bytes, int64_t n, uint8_t first_right, uint8_t* bits, uint8_t* left, uint8_t* right);
  void (*flat)(const uint8_t* bytes, int64_t n, int width, uint8_t first, uint8_t* codes);  // code i = bytes[i] - first
};

// One chunk of the streams layout. Stream s is bytes [offset[s], offset[s + 1]) of `bytes` and gives out[s * segment]
// and on; behind its end follow zeros.
struct StreamsChunk {
  const uint8_t* bytes;
  int64_t offset[kStreams + 1];
  int64_t n, segment;
  const uint16_t* table;        // 2^table_bits entries: byte << 8 | length
  const uint64_t* multi_table;  // 2^multi_bits entries or null: length of all in bits 0..7, number of bytes in 8..15,
                                // then up to six bytes
  int table_bits, multi_bits;
  uint8_t* out;
};

// Whether every stream ends in its last byte.
using StreamsFn = bool (*)(const StreamsChunk& c);

extern const PivotDecoder pivot_decoder_scalar;
extern const PivotDecoder pivot_decoder_avx2;
extern const PivotDecoder pivot_decoder_avx512;

extern const PivotEncoder pivot_encoder_scalar;
extern const PivotEncoder pivot_encoder_avx512;

bool huffman_streams_scalar(const StreamsChunk& c) noexcept;
bool huffman_streams_avx2(const StreamsChunk& c) noexcept;

}  // namespace lowbit
