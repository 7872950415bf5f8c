// The loop of the streams layout, which the levels compile with and without BMI2. All eight streams take turns, so that
// a look-up's latency is hidden by seven others: with four, 1.25 G symbols/s of 7 bits instead of 1.85.
#pragma once

#include <cstring>

#include "huffman/huffman_kernel.h"

#define LOWBIT_ALWAYS_INLINE inline __attribute__((always_inline))

namespace lowbit {

struct StreamCursors {
  const uint8_t* bytes[kStreams];
  int64_t end[kStreams];  // bytes of the stream
  int64_t bit[kStreams];  // consumed
  uint8_t *out[kStreams], *out_end[kStreams];
};

static LOWBIT_ALWAYS_INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

// How often every stream may read 8 bytes at its place, consume `bits` bits and give up to `bytes` bytes, `behind` more
// being written behind them.
static LOWBIT_ALWAYS_INLINE int64_t safe_rounds(const StreamCursors& c, int bits, int bytes, int behind) {
  int64_t rounds = INT64_MAX;
  for (int s = 0; s < kStreams; ++s) {
    const int64_t bits_left = 8 * (c.end[s] - 8) - c.bit[s], room = c.out_end[s] - c.out[s] - behind;
    rounds = least(rounds, least(bits_left < 0 ? 0 : bits_left / bits, room < 0 ? 0 : room / bytes));
  }
  return rounds;
}

static LOWBIT_ALWAYS_INLINE uint64_t next_bits(const StreamCursors& c, int s) {  // at least 57
  uint64_t word;
  std::memcpy(&word, c.bytes[s] + (c.bit[s] >> 3), 8);
  return word >> (c.bit[s] & 7);
}

// Rounds of kCodes look-ups of one byte each.
template <int kCodes>
static LOWBIT_ALWAYS_INLINE void single_rounds(const StreamsChunk& chunk, StreamCursors& c) {
  const uint64_t mask = (uint64_t{1} << chunk.table_bits) - 1;
  const uint16_t* table = chunk.table;
  for (int64_t rounds; (rounds = safe_rounds(c, kCodes * chunk.table_bits, kCodes, 0)) > 0;) {
    for (; rounds > 0; --rounds) {
#pragma GCC unroll 8
      for (int s = 0; s < kStreams; ++s) {
        uint64_t bits = next_bits(c, s);
        uint32_t used = 0;
#pragma GCC unroll 4
        for (int k = 0; k < kCodes; ++k) {
          const uint32_t entry = table[bits & mask];
          c.out[s][k] = static_cast<uint8_t>(entry >> 8);
          used += entry & 0xff;
          bits >>= entry & 63;
        }
        c.out[s] += kCodes;
        c.bit[s] += used;
      }
    }
  }
}

// Rounds of four look-ups of at most 12 bits, each of which writes eight bytes; up to six of them count.
static LOWBIT_ALWAYS_INLINE void multi_rounds(const StreamsChunk& chunk, StreamCursors& c) {
  const uint64_t mask = (uint64_t{1} << chunk.multi_bits) - 1;
  const uint64_t* table = chunk.multi_table;
  for (int64_t rounds; (rounds = safe_rounds(c, 4 * chunk.multi_bits, 24, 2)) > 0;) {
    for (; rounds > 0; --rounds) {
#pragma GCC unroll 8
      for (int s = 0; s < kStreams; ++s) {
        uint64_t bits = next_bits(c, s), used = 0;
        uint8_t* out = c.out[s];
#pragma GCC unroll 4
        for (int k = 0; k < 4; ++k) {
          const uint64_t entry = table[bits & mask], symbols = entry >> 16;
          std::memcpy(out, &symbols, 8);
          out += entry >> 8 & 0xff;
          used += entry & 0xff;
          bits >>= entry & 63;
        }
        c.out[s] = out;
        c.bit[s] += static_cast<int64_t>(used);
      }
    }
  }
}

static LOWBIT_ALWAYS_INLINE bool streams_loop(const StreamsChunk& chunk) {
  StreamCursors c;
  for (int s = 0; s < kStreams; ++s) {
    c.bytes[s] = chunk.bytes + chunk.offset[s];
    c.end[s] = chunk.offset[s + 1] - chunk.offset[s];
    c.bit[s] = 0;
    c.out[s] = chunk.out + least(s * chunk.segment, chunk.n);
    c.out_end[s] = chunk.out + least((s + 1) * chunk.segment, chunk.n);
  }
  if (chunk.multi_table) multi_rounds(chunk, c);
  if (chunk.table_bits <= 14) {
    single_rounds<4>(chunk, c);
  } else {
    single_rounds<3>(chunk, c);
  }
  const uint32_t mask = (1u << chunk.table_bits) - 1;
  bool good = true;
  for (int s = 0; s < kStreams; ++s) {
    while (c.out[s] < c.out_end[s]) {
      uint32_t bits = 0;
      for (int64_t b = 0, at = c.bit[s] >> 3; b < 3 && at + b < c.end[s]; ++b) {
        bits |= uint32_t{c.bytes[s][at + b]} << (8 * b);
      }
      const uint32_t entry = chunk.table[bits >> (c.bit[s] & 7) & mask];
      *c.out[s]++ = static_cast<uint8_t>(entry >> 8);
      c.bit[s] += entry & 0xff;
    }
    good &= (c.bit[s] + 7) >> 3 == c.end[s];
  }
  return good;
}

}  // namespace lowbit
