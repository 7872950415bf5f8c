// The header of a Huffman stream: docs/huffman.md.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "huffman/code_lengths.h"
#include "lowbit/huffman.h"

namespace lowbit {

struct HuffmanChunk {
  int64_t offset = 0;  // in the stream
  uint32_t size = 0;
  bool stored = false;
  uint32_t checksum = 0;
};

struct HuffmanHeader {
  HuffmanLayout layout = HuffmanLayout::pivot;
  int pack = 1;
  int64_t chunk = 65536;  // coded bytes
  std::vector<int64_t> shape;
  int64_t symbols = 0;
  CodeLengths lengths{};  // all zero: every chunk is stored
  std::vector<HuffmanChunk> chunks;
  int64_t bytes = 0;

  int64_t packed_bytes() const { return (symbols + pack - 1) / pack; }
  int64_t chunk_packed_bytes(int64_t i) const { return std::min(chunk, packed_bytes() - i * chunk); }
  bool has_codes() const;
};

constexpr int64_t kMinHuffmanChunk = 256, kMaxHuffmanChunk = 65536, kMaxHuffmanSymbols = int64_t{1} << 48;
constexpr size_t kMaxHuffmanAxes = 32;
constexpr uint32_t kStoredChunk = 0xffff;  // in place of a size

// The product of the axes, or -1 where one is negative or there are too many symbols or axes.
int64_t symbols_of_shape(std::span<const int64_t> shape);

std::vector<std::byte> write_header(const HuffmanHeader& header);  // sizes and checksums of the chunks are given
HuffmanHeader read_header(std::span<const std::byte> bytes);       // throws FormatError

}  // namespace lowbit
