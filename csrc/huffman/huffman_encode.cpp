// The encoding door. Everything that decides a byte of the stream is integer arithmetic on counts, the same on every
// level.
#include <algorithm>
#include <cstring>
#include <optional>
#include <stdexcept>
#include <string>

#include "huffman/huffman_format.h"
#include "huffman/huffman_kernel.h"
#include "huffman/pivot_lengths.h"
#include "huffman/pivot_tree.h"
#include "huffman/stream_codes.h"
#include "lowbit/huffman.h"
#include "scratch.h"
#include "target.h"
#include "thread_pool.h"
#include "variant.h"

namespace lowbit {
namespace {

struct Encoder {
  const PivotEncoder* pivot;
  const PivotDecoder* decoder;  // for its checksum
};
constexpr Encoder kScalar{&pivot_encoder_scalar, &pivot_decoder_scalar};
#if LOWBIT_X86
constexpr Encoder kAvx2{&pivot_encoder_scalar, &pivot_decoder_avx2};
constexpr Encoder kAvx512{&pivot_encoder_avx512, &pivot_decoder_avx512};
#endif

constexpr Variant<const Encoder*> kEncoders[] = {
#if LOWBIT_X86
    {Isa::avx512, &kAvx512},
    {Isa::avx2, &kAvx2},
#endif
    {Isa::scalar, &kScalar}};

// Longer codes would need a table that does not fit the L1 cache; the pivot layout has no table.
constexpr int kStreamsLimit = 12;
// The search for lengths takes about 0.1 ms.
constexpr int64_t kWorthSearching = 32768;

using Counts32 = std::array<uint32_t, 256>;

[[noreturn]] void fail(const std::string& what) { throw std::invalid_argument("huffman_encode: " + what); }

Counts32 count_bytes(const uint8_t* bytes, int64_t n) {
  Counts32 four[4] = {};  // so that equal neighbours do not wait for each other
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    uint64_t word;
    std::memcpy(&word, bytes + i, 8);
    for (int b = 0; b < 8; ++b) ++four[b % 4][word >> (8 * b) & 255];
  }
  for (; i < n; ++i) ++four[0][bytes[i]];
  for (int b = 0; b < 256; ++b) four[0][b] += four[1][b] + four[2][b] + four[3][b];
  return four[0];
}

// What is coded: n bytes in chunks, their counts per chunk and in all.
struct Source {
  const uint8_t* bytes;
  int64_t n, chunk;
  std::vector<Counts32> counts;
  ByteCounts total{};

  Source(const uint8_t* source, int64_t size, int64_t chunk_bytes, int threads)
      : bytes(source),
        n(size),
        chunk(chunk_bytes),
        counts(static_cast<size_t>((size + chunk_bytes - 1) / chunk_bytes)) {
    parallel_for(threads, static_cast<int64_t>(counts.size()), 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) counts[static_cast<size_t>(i)] = count_bytes(bytes + i * chunk, size_of(i));
    });
    for (const Counts32& c : counts) {
      for (int b = 0; b < 256; ++b) total[b] += c[b];
    }
  }
  int64_t size_of(int64_t i) const { return std::min(chunk, n - i * chunk); }
};

template <int kPack>
void pack_full_bytes(const uint8_t* symbols, int64_t bytes, uint8_t* out) {
  for (int64_t i = 0; i < bytes; ++i, symbols += kPack) {
    unsigned byte = 0;
    for (int j = 0; j < kPack; ++j) byte |= unsigned{symbols[j]} << (j * (8 / kPack));
    out[i] = static_cast<uint8_t>(byte);
  }
}

std::vector<uint8_t> packed(const uint8_t* symbols, int64_t n, int pack, int threads) {
  std::vector<uint8_t> out(static_cast<size_t>((n + pack - 1) / pack));
  const auto run = pack == 2 ? pack_full_bytes<2> : pack == 4 ? pack_full_bytes<4> : pack_full_bytes<8>;
  parallel_for(threads, n / pack, 4096,
               [&](int64_t begin, int64_t end) { run(symbols + begin * pack, end - begin, out.data() + begin); });
  for (int64_t i = n / pack * pack; i < n; ++i) {
    out.back() = static_cast<uint8_t>(out.back() | symbols[i] << (i % pack * (8 / pack)));
  }
  return out;
}

// Bytes of the codes and roughly of their table (two bits a byte), chunks and headers apart.
uint64_t estimated_bytes(const ByteCounts& counts, int limit) {
  const CodeLengths lengths = code_lengths(counts, limit);
  const auto coded = [](uint8_t length) { return length != 0; };
  const auto first = std::find_if(lengths.begin(), lengths.end(), coded);
  const auto last = std::find_if(lengths.rbegin(), lengths.rend(), coded).base();
  return coded_bits(counts, lengths) / 8 + static_cast<uint64_t>(std::max<int64_t>(last - first, 0)) / 4;
}

// The nodes' bitmaps and codes in pre-order. As in decoding a list begins where that of its leftmost complete subtree
// does, and these lie one behind the other, here with 64 bytes for split to write behind each.
int64_t encode_pivot(const PivotEncoder& run, const PivotTree& tree, const uint8_t* bytes, int64_t n,
                     const Counts32& counts, uint8_t* out) {
  int64_t below[257] = {};  // bytes of ranks < r
  for (int r = 0; r < tree.nodes[0].end; ++r) below[r + 1] = below[r] + counts[tree.byte_of_rank[r]];
  int64_t offsets[512], room = 0;
  for (int i = 0; i < tree.count; ++i) {
    offsets[i] = room;
    if (!tree.nodes[i].right) room += (below[tree.nodes[i].end] - below[tree.nodes[i].first] + 127) / 64 * 64;
  }
  room += kReadBehind;
  uint8_t* lists = scratch<uint8_t>(ScratchSlot::huffman_lists, static_cast<size_t>(2 * room));
  run.map(bytes, n, tree.rank_of_byte.data(), lists);
  uint8_t* at = out;
  for (int i = 0; i < tree.count; ++i) {
    const PivotNode& node = tree.nodes[i];
    const int64_t size = below[node.end] - below[node.first];
    const uint8_t* list = lists + (node.depth & 1) * room + offsets[i];
    uint8_t* children = lists + (~node.depth & 1) * room;
    if (node.right) {
      run.split(list, size, static_cast<uint8_t>(tree.nodes[node.right].first), at, children + offsets[i + 1],
                children + offsets[node.right]);
      at += (size + 7) / 8;
    } else if (node.width) {
      run.flat(list, size, node.width, static_cast<uint8_t>(node.first), at);
      at += flat_bytes(size, node.width);
    }
  }
  return at - out;
}

int64_t encode_streams(const std::array<uint16_t, 256>& codes, const CodeLengths& lengths, const uint8_t* bytes,
                       int64_t n, uint8_t* out) {
  const int64_t segment = (n + kStreams - 1) / kStreams;
  uint8_t* at = out + 2 * (kStreams - 1);
  for (int s = 0; s < kStreams; ++s) {
    const uint8_t* start = at;
    uint64_t bits = 0;
    int used = 0;
    for (int64_t i = s * segment; i < std::min(n, (s + 1) * segment); ++i) {
      bits |= uint64_t{codes[bytes[i]]} << used;
      used += lengths[bytes[i]];
      for (; used >= 8; used -= 8, bits >>= 8) *at++ = static_cast<uint8_t>(bits);
    }
    if (used) *at++ = static_cast<uint8_t>(bits);
    if (s + 1 == kStreams) break;
    out[2 * s] = static_cast<uint8_t>(at - start);
    out[2 * s + 1] = static_cast<uint8_t>((at - start) >> 8);
  }
  return at - out;
}

}  // namespace

std::vector<std::byte> huffman_encode(const uint8_t* symbols, std::span<const int64_t> shape,
                                      const HuffmanOptions& options, Isa isa, int threads) {
  HuffmanHeader h;
  h.layout = options.layout;
  h.shape.assign(shape.begin(), shape.end());
  h.symbols = symbols_of_shape(shape);
  h.chunk = options.chunk;
  if (h.symbols < 0) fail("the shape is negative, of more than 32 axes, or of more than 2^48 symbols");
  if (h.layout != HuffmanLayout::streams && h.layout != HuffmanLayout::pivot) {
    fail("layout " + std::to_string(static_cast<int>(h.layout)));
  }
  if (h.chunk < kMinHuffmanChunk || h.chunk > kMaxHuffmanChunk || (h.chunk & (h.chunk - 1))) {
    fail("chunk is " + std::to_string(h.chunk) + ", must be a power of two from 256 to 65536");
  }
  const int pack = options.pack;
  if (pack != 0 && pack != 1 && pack != 2 && pack != 4 && pack != 8) fail("pack is " + std::to_string(pack));
  threads = resolve_threads(threads);
  const int limit = h.layout == HuffmanLayout::pivot ? kMaxCodeLength : kStreamsLimit;
  const Encoder& run = *pick(kEncoders, isa);

  Source source(symbols, h.symbols, h.chunk, threads);
  int largest = 255;
  while (largest > 0 && !source.total[largest]) --largest;
  std::vector<uint8_t> memory;
  if (pack > 1 && largest >> (8 / pack)) {
    fail("symbol " + std::to_string(largest) + " does not fit " + std::to_string(8 / pack) +
         " bits, as pack = " + std::to_string(pack) + " wants");
  }
  const auto use = [&](int p) {
    memory = packed(symbols, h.symbols, p, threads);
    source = Source(memory.data(), static_cast<int64_t>(memory.size()), h.chunk, threads);
    h.pack = p;
  };
  if (pack > 1) use(pack);
  if (pack == 0 && largest < 16) {
    const int p = largest < 2 ? 8 : largest < 4 ? 4 : 2;
    const Source plain = source;
    use(p);
    if (estimated_bytes(source.total, limit) >= estimated_bytes(plain.total, limit)) {
      source = plain;
      h.pack = 1;
    }
  }

  h.lengths = code_lengths(source.total, limit);
  const int64_t chunks = static_cast<int64_t>(source.counts.size());
  h.chunks.resize(static_cast<size_t>(chunks));
  const bool alone = std::count(h.lengths.begin(), h.lengths.end(), 0) >= 255;
  std::optional<PivotTree> tree;
  if (!alone && h.layout == HuffmanLayout::pivot) {
    if (source.n >= kWorthSearching) h.lengths = pivot_lengths(source.total, h.lengths, chunks);
    tree.emplace(h.lengths);
  }
  const std::array<uint16_t, 256> codes = stream_codes(h.lengths);
  std::vector<std::byte> payload(static_cast<size_t>(source.n));
  parallel_for(threads, chunks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t n = source.size_of(i);
      HuffmanChunk& c = h.chunks[static_cast<size_t>(i)];
      const uint8_t* bytes = source.bytes + i * h.chunk;
      // 15 bits a byte, and what rounding up costs each node or stream
      uint8_t* coded = scratch<uint8_t>(ScratchSlot::huffman_bytes, static_cast<size_t>(2 * n + 8192));
      const Counts32& counts = source.counts[static_cast<size_t>(i)];
      const int64_t size = alone  ? 0
                           : tree ? encode_pivot(*run.pivot, *tree, bytes, n, counts, coded)
                                  : encode_streams(codes, h.lengths, bytes, n, coded);
      c.stored = size >= std::min<int64_t>(n, kStoredChunk);
      c.size = static_cast<uint32_t>(c.stored ? n : size);
      auto* to = reinterpret_cast<uint8_t*>(payload.data()) + i * h.chunk;
      std::memcpy(to, c.stored ? bytes : coded, c.size);
      c.checksum = run.decoder->checksum(to, c.size);
    }
  });
  if (std::all_of(h.chunks.begin(), h.chunks.end(), [](const HuffmanChunk& c) { return c.stored; })) h.lengths = {};
  std::vector<std::byte> out = write_header(h);
  size_t size = out.size();
  for (const HuffmanChunk& c : h.chunks) size += c.size;
  out.reserve(size);
  for (int64_t i = 0; i < chunks; ++i) {
    const auto from = payload.begin() + i * h.chunk;
    out.insert(out.end(), from, from + h.chunks[static_cast<size_t>(i)].size);
  }
  return out;
}

}  // namespace lowbit
