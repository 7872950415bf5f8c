#include "fuzz_huffman.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "lowbit/huffman.h"

using namespace lowbit;

namespace {

HuffmanVerdicts g_verdicts;

[[noreturn]] void give_up(const char* what, const std::string& message) {
  std::fprintf(stderr, "fuzz_huffman: %s: %s\n", what, message.c_str());
  std::abort();
}

// A heap block of the exact size, so that AddressSanitizer sees any access behind it.
std::unique_ptr<uint8_t[]> block(int64_t size) { return std::make_unique<uint8_t[]>(static_cast<size_t>(size)); }

using Bytes = std::vector<uint8_t>;

struct Result {
  Bytes symbols, packed;
  std::string error;  // empty: accepted
  bool operator==(const Result&) const = default;
};

Result decode(const HuffmanStream& stream, Isa isa) {
  Result r;
  try {
    auto symbols = block(stream.symbols()), packed = block(stream.packed_bytes());
    stream.decode(symbols.get(), isa, 1);
    stream.decode_packed(packed.get(), isa, 1);
    r.symbols.assign(symbols.get(), symbols.get() + stream.symbols());
    r.packed.assign(packed.get(), packed.get() + stream.packed_bytes());
  } catch (const FormatError& e) {
    r.error = e.what();
  }
  return r;
}

// The error of the first bad chunk, or nothing, and the symbols as the chunks alone give them.
Result decode_chunks(const HuffmanStream& stream, Isa isa) {
  Result r;
  try {
    for (int64_t i = 0; i < stream.chunks(); ++i) {
      auto symbols = block(stream.chunk_symbols(i)), packed = block(stream.chunk_packed_bytes(i));
      stream.decode_chunk(i, symbols.get(), isa);
      stream.decode_chunk_packed(i, packed.get(), isa);
      r.symbols.insert(r.symbols.end(), symbols.get(), symbols.get() + stream.chunk_symbols(i));
      r.packed.insert(r.packed.end(), packed.get(), packed.get() + stream.chunk_packed_bytes(i));
    }
  } catch (const FormatError& e) {
    return {{}, {}, e.what()};
  }
  return r;
}

void decode_everywhere(std::span<const uint8_t> bytes) {
  std::optional<HuffmanStream> stream;
  try {
    stream.emplace(std::as_bytes(bytes));
  } catch (const FormatError&) {
    ++g_verdicts.refused;
    return;
  } catch (const std::exception& e) {
    give_up("unexpected exception", e.what());
  }
  if (stream->symbols() > (1 << 22)) return;  // a code of no bits: much memory from few bytes, and no fault
  const Result expected = decode(*stream, Isa::scalar);
  ++(expected.error.empty() ? g_verdicts.accepted : g_verdicts.refused);
  for (Isa isa : isas()) {
    if (decode(*stream, isa) != expected) give_up("levels disagree", isa_name(isa));
    if (decode_chunks(*stream, isa) != expected) give_up("chunks disagree with the whole", isa_name(isa));
  }
}

uint64_t checksum_by_definition(const uint8_t* bytes, size_t n) {  // docs/huffman.md
  uint32_t sum[64] = {}, weighted[64] = {};
  for (size_t at = 0; at < n; at += 256) {
    for (size_t i = 0; i < 256 && at + i < n; ++i) sum[i / 4] += (2 * (i % 4) + 1) * bytes[at + i];
    for (int lane = 0; lane < 64; ++lane) weighted[lane] += sum[lane];
  }
  uint64_t h = n;
  for (uint64_t lane = 0; lane < 64; ++lane) {
    h += (sum[lane] + (uint64_t{weighted[lane]} << 32)) * ((2 * lane + 1) * 0x9e3779b97f4a7c15u);
  }
  return (h ^ h >> 32) * 0xd6e8feb86659fd93u >> 32;
}

void put_u32(uint8_t* to, uint64_t v) {
  for (int i = 0; i < 4; ++i) to[i] = static_cast<uint8_t>(v >> (8 * i));
}

}  // namespace

HuffmanVerdicts huffman_verdicts() { return g_verdicts; }

std::vector<uint8_t> resealed_huffman(const uint8_t* data, size_t size) {
  Bytes out(data, data + size);
  if (size < 8 || out[6] > 16 || out[6] < 8) return out;
  uint64_t symbols = 1;
  size_t at = 8;
  for (int axes = out[7]; axes > 0; --axes) {
    uint64_t axis = 0;
    for (int shift = 0; at < size && shift < 49; shift += 7) {
      axis |= uint64_t{out[at] & 127u} << shift;
      if (out[at++] < 128) break;
    }
    if (axis > size * 65536 * 8) return out;
    symbols *= axis;
    if (symbols > size * 65536 * 8) return out;
  }
  if (out[5] & 8) {  // the code table: as many ones as lengths
    if (at + 2 > size || out[at] > out[at + 1]) return out;
    int lengths = out[at + 1] - out[at] + 1;
    for (at += 2; lengths > 0; ++at) {
      if (at >= size) return out;
      lengths -= __builtin_popcount(out[at]);
    }
  }
  const uint64_t pack = uint64_t{1} << (out[5] >> 1 & 3), bytes = (symbols + pack - 1) / pack;
  const size_t chunks = static_cast<size_t>((bytes + (uint64_t{1} << out[6]) - 1) >> out[6]);
  if (chunks > size / 6 || at + 6 * chunks + 4 > size) return out;
  size_t payload = at + 6 * chunks + 4;
  for (size_t i = 0; i < chunks; ++i, at += 6) {
    size_t n = out[at] | size_t{out[at + 1]} << 8;
    if (n == 0xffff) n = std::min<size_t>(size_t{1} << out[6], bytes - (i << out[6]));  // stored
    if (n > size - payload) return out;
    put_u32(out.data() + at + 2, checksum_by_definition(out.data() + payload, n));
    payload += n;
  }
  put_u32(out.data() + at, checksum_by_definition(out.data(), at));
  return out;
}

int fuzz_huffman(const uint8_t* data, size_t size) {
  auto exact = block(static_cast<int64_t>(size));
  std::copy_n(data, size, exact.get());
  decode_everywhere({exact.get(), size});
  const Bytes sealed = resealed_huffman(data, size);
  std::copy(sealed.begin(), sealed.end(), exact.get());
  decode_everywhere({exact.get(), size});
  return 0;
}
