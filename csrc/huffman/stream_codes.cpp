#include "huffman/stream_codes.h"

#include <algorithm>

namespace lowbit {
namespace {

constexpr int kMostBytes = 6;
constexpr int kMultiBits = 11, kMaxMultiBits = 12;  // 16 or 32 KB of table: more would not stay in the L1 cache

uint16_t reversed(uint32_t code, int length) {
  uint32_t r = 0;
  for (int i = 0; i < length; ++i) r |= (code >> i & 1) << (length - 1 - i);
  return static_cast<uint16_t>(r);
}

}  // namespace

std::array<uint16_t, 256> stream_codes(const CodeLengths& lengths) {
  std::array<uint16_t, 256> codes{};
  uint32_t code = 0;
  for (int length = 1; length <= kMaxCodeLength; ++length, code <<= 1) {
    for (int b = 0; b < 256; ++b) {
      if (lengths[b] == length) codes[b] = reversed(code++, length);
    }
  }
  return codes;
}

StreamTables::StreamTables(const CodeLengths& lengths) {
  bits = *std::max_element(lengths.begin(), lengths.end());
  const uint32_t size = uint32_t{1} << bits;
  table.resize(size);
  const std::array<uint16_t, 256> codes = stream_codes(lengths);
  double mean = 0;  // length, where bytes are as frequent as their codes are short
  for (int b = 0; b < 256; ++b) {
    if (!lengths[b]) continue;
    mean += lengths[b] / static_cast<double>(uint32_t{1} << lengths[b]);
    for (uint32_t at = codes[b]; at < size; at += uint32_t{1} << lengths[b]) {
      table[at] = static_cast<uint16_t>(b << 8 | lengths[b]);
    }
  }
  multi_bits = std::max(bits, kMultiBits);
  if (2 * mean > multi_bits || multi_bits > kMaxMultiBits) return;
  multi.resize(size_t{1} << multi_bits);
  for (uint32_t at = 0; at < multi.size(); ++at) {
    uint64_t entry = 0;
    int used = 0, count = 0;
    while (count < kMostBytes) {
      const uint16_t one = table[at >> used & (size - 1)];
      if (used + (one & 0xff) > multi_bits) break;
      used += one & 0xff;
      entry |= static_cast<uint64_t>(one >> 8) << (16 + 8 * count++);
    }
    multi[at] = entry | static_cast<uint64_t>(count) << 8 | static_cast<uint64_t>(used);
  }
}

}  // namespace lowbit
