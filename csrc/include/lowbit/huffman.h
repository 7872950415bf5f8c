// Huffman coding of uint8 symbols: canonical, code lengths at most 15, coded in chunks that decode alone.
// docs/huffman.md is the stream's contract. The same symbols and options give the same bytes on every machine, level
// and thread count, and every level decodes every stream, or refuses it with the same FormatError.
//
// Coded bytes: `pack` symbols of 8 / pack bits each stand in one byte, the first in the lowest bits (the dense order of
// packed indices); the Huffman code is over these bytes, and a chunk is a number of them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "lowbit/error.h"
#include "lowbit/isa.h"

namespace lowbit {

enum class HuffmanLayout : int {
  streams = 0,  // eight interleaved bit streams, decoded by table
  pivot = 1,    // a bitmap per tree node, merged bottom-up; packed codes for complete subtrees
};

struct HuffmanOptions {
  HuffmanLayout layout = HuffmanLayout::pivot;
  int pack = 0;           // symbols in a coded byte: 1, 2, 4 or 8; 0: whichever makes the stream smallest
  int64_t chunk = 65536;  // coded bytes of a chunk: a power of two, 256..65536
};

// Symbols in C order. Throws std::invalid_argument where an option is unknown, a symbol needs more than 8 / pack bits
// or the shape is negative or too large (2^48 symbols, 32 axes).
LOWBIT_API std::vector<std::byte> huffman_encode(const uint8_t* symbols, std::span<const int64_t> shape,
                                                 const HuffmanOptions& options = {}, Isa isa = best_isa(),
                                                 int threads = 0);

// A stream whose header has been read and checked; borrows the bytes. Decoding throws FormatError, with the offset in
// the stream, for a chunk whose checksum is wrong or whose sizes disagree; the output is then unspecified. Chunk
// numbers outside [0, chunks()) throw std::invalid_argument.
class LOWBIT_API HuffmanStream {
 public:
  explicit HuffmanStream(std::span<const std::byte> bytes);  // throws FormatError

  HuffmanLayout layout() const noexcept;
  int pack() const noexcept;
  const std::vector<int64_t>& shape() const noexcept;
  int64_t symbols() const noexcept;       // product of the shape
  int64_t packed_bytes() const noexcept;  // ceil(symbols / pack)
  int64_t header_bytes() const noexcept;
  std::span<const uint8_t> code_lengths() const noexcept;  // 256 of them, 0 where a byte has no code

  int64_t chunks() const noexcept;
  int64_t chunk_symbols(int64_t chunk) const;       // in this chunk; all but the last have as many as the first
  int64_t chunk_packed_bytes(int64_t chunk) const;  // ceil(chunk_symbols / pack)
  int64_t chunk_coded_bytes(int64_t chunk) const;   // in the stream
  bool chunk_stored(int64_t chunk) const;           // incompressible, kept as it is

  void decode(uint8_t* symbols, Isa isa = best_isa(), int threads = 0) const;
  void decode_chunk(int64_t chunk, uint8_t* symbols, Isa isa = best_isa()) const;
  // The coded bytes themselves: packed indices, as a kernel that reads them wants them.
  void decode_packed(uint8_t* bytes, Isa isa = best_isa(), int threads = 0) const;
  void decode_chunk_packed(int64_t chunk, uint8_t* bytes, Isa isa = best_isa()) const;

  struct Data;

 private:
  std::shared_ptr<const Data> data_;
};

}  // namespace lowbit
