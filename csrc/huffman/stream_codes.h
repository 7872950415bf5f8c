// The codes of the streams layout, and the tables that decode them.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "huffman/code_lengths.h"

namespace lowbit {

// Canonical codes, by length and then by byte, first bit lowest as they stand in a stream.
std::array<uint16_t, 256> stream_codes(const CodeLengths& lengths);

struct StreamTables {
  explicit StreamTables(const CodeLengths& lengths);  // complete ones, of at least two bytes

  int bits = 0;                 // the longest length
  std::vector<uint16_t> table;  // as in StreamsChunk
  int multi_bits = 0;
  std::vector<uint64_t> multi;  // empty where a look-up would seldom give two bytes
};

}  // namespace lowbit
