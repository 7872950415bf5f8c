// The loop of the streams layout, which the levels compile with and without BMI2.
#pragma once

#include <cstring>

#include "huffman/huffman_kernel.h"

#define LOWBIT_ALWAYS_INLINE inline __attribute__((always_inline))

namespace lowbit {

struct StreamCursor {
  const uint8_t* bytes;
  int64_t end;  // bytes of the stream
  int64_t bit;  // consumed
  uint8_t *out, *out_end;
};

static LOWBIT_ALWAYS_INLINE uint64_t next_bits(const StreamCursor& s) {  // at least 57
  uint64_t word;
  std::memcpy(&word, s.bytes + (s.bit >> 3), 8);
  return word >> (s.bit & 7);
}

static LOWBIT_ALWAYS_INLINE bool streams_loop(const StreamsChunk& c) {
  StreamCursor streams[kStreams];
  for (int s = 0; s < kStreams; ++s) {
    const int64_t first = s * c.segment < c.n ? s * c.segment : c.n;
    const int64_t last = (s + 1) * c.segment < c.n ? (s + 1) * c.segment : c.n;
    streams[s] = {c.bytes + c.offset[s], c.offset[s + 1] - c.offset[s], 0, c.out + first, c.out + last};
  }
  const uint64_t mask = (uint64_t{1} << c.table_bits) - 1;
  const uint16_t* table = c.table;
  const uint64_t* multi = c.multi_table;
  for (int group = 0; group < kStreams; group += 4) {
    StreamCursor* a = streams + group;
    const auto ready = [&](int64_t room) {
      bool yes = true;
      for (int s = 0; s < 4; ++s) yes &= (a[s].bit >> 3) + 8 <= a[s].end && a[s].out_end - a[s].out >= room;
      return yes;
    };
    if (multi) {
      while (ready(32)) {  // four look-ups of at most 12 bits; each writes 8 bytes, of which up to six count
#pragma GCC unroll 4
        for (int s = 0; s < 4; ++s) {
          uint64_t bits = next_bits(a[s]);
#pragma GCC unroll 4
          for (int k = 0; k < 4; ++k) {
            const uint64_t entry = multi[bits & mask];
            const uint64_t symbols = entry >> 16;
            std::memcpy(a[s].out, &symbols, 8);
            a[s].out += entry >> 8 & 0xff;
            a[s].bit += static_cast<int64_t>(entry & 0xff);
            bits >>= entry & 63;
          }
        }
      }
    }
    while (ready(3)) {  // three codes of at most 15 bits
#pragma GCC unroll 4
      for (int s = 0; s < 4; ++s) {
        uint64_t bits = next_bits(a[s]);
        uint32_t used = 0;
#pragma GCC unroll 3
        for (int k = 0; k < 3; ++k) {
          const uint32_t entry = table[bits & mask];
          a[s].out[k] = static_cast<uint8_t>(entry >> 8);
          used += entry & 0xff;
          bits >>= entry & 63;
        }
        a[s].out += 3;
        a[s].bit += used;
      }
    }
  }
  bool good = true;
  for (StreamCursor& s : streams) {
    while (s.out < s.out_end) {
      uint32_t bits = 0;
      for (int b = 0; b < 3; ++b) {
        const int64_t at = (s.bit >> 3) + b;
        if (at < s.end) bits |= uint32_t{s.bytes[at]} << (8 * b);
      }
      const uint32_t entry = table[bits >> (s.bit & 7) & mask];
      *s.out++ = static_cast<uint8_t>(entry >> 8);
      s.bit += entry & 0xff;
    }
    good &= (s.bit + 7) >> 3 == s.end;
  }
  return good;
}

}  // namespace lowbit
