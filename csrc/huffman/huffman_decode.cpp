// The decoding doors: a chunk's tree is walked down for the sizes of its nodes and up for their bytes.
#include <algorithm>
#include <atomic>
#include <cstring>
#include <optional>
#include <stdexcept>
#include <string>

#include "huffman/huffman_format.h"
#include "huffman/huffman_kernel.h"
#include "huffman/pivot_tree.h"
#include "huffman/stream_codes.h"
#include "lowbit/huffman.h"
#include "scratch.h"
#include "target.h"
#include "thread_pool.h"
#include "variant.h"

namespace lowbit {

struct HuffmanStream::Data {
  std::span<const std::byte> bytes;
  HuffmanHeader header;
  std::optional<uint8_t> only;  // the one byte that has a code
  std::optional<PivotTree> tree;
  std::optional<StreamTables> tables;
};

namespace {

constexpr Variant<const PivotDecoder*> kPivotDecoders[] = {
#if LOWBIT_X86
    {Isa::avx512, &pivot_decoder_avx512},
    {Isa::avx2, &pivot_decoder_avx2},
#endif
    {Isa::scalar, &pivot_decoder_scalar}};

constexpr Variant<StreamsFn> kStreamsDecoders[] = {
#if LOWBIT_X86
    {Isa::avx2, huffman_streams_avx2},
#endif
    {Isa::scalar, huffman_streams_scalar}};

struct Fault {
  const char* what = nullptr;  // null: none
  int64_t offset = 0;          // in the chunk
};

int64_t whole_vectors(int64_t n) { return (n + 63) / 64 * 64; }

// A chunk's tree on its way up.
struct PivotWalk {
  PivotWalk(const PivotDecoder& decoder, const PivotTree& t) : run(decoder), tree(t) {}
  const PivotDecoder& run;
  const PivotTree& tree;
  int64_t sizes[512];        // of the nodes' bytes
  const uint8_t* data[512];  // of the nodes in the stream

  // Writes the bytes of node i to out, its children's to scratch from `top` on. Small nodes so use the same scratch
  // again and again, and find it in the L1 cache.
  void gather(int i, uint8_t* out, uint8_t* top) const {
    const PivotNode& node = tree.nodes[i];
    if (sizes[i] == 0) return;
    if (!node.right) {
      run.flat(data[i], sizes[i], node.width, tree.tables[i].data(), out);
      return;
    }
    if (run.merge_chain && tree.chain_levels[i]) {
      run.merge_chain(chain(i), out);
      return;
    }
    uint8_t* right = top;
    top += whole_vectors(sizes[node.right]);
    gather(node.right, right, top);
    if (const PivotNode& left = tree.nodes[i + 1]; !left.right && left.width == 0) {
      run.merge_leaf(data[i], sizes[i], tree.byte_of_rank[left.first], right, out);
      return;
    }
    uint8_t* left = top;
    top += whole_vectors(sizes[i + 1]);
    gather(i + 1, left, top);
    run.merge(data[i], sizes[i], left, right, out);
  }

  LeafChain chain(int i) const {
    LeafChain c{{}, {}, {}, tree.chain_levels[i]};
    for (int level = 0; level < c.levels; ++level) {
      c.bits[level] = data[i];
      c.sizes[level] = sizes[i];
      c.leaves[level] = tree.byte_of_rank[tree.nodes[i].first];
      if (level + 1 == c.levels) c.leaves[level + 1] = tree.byte_of_rank[tree.nodes[i].first + 1];
      i = tree.nodes[i].right;
    }
    return c;
  }

  // Scratch that gather needs, node for node.
  int64_t room() const {
    int64_t rooms[512];
    for (int i = tree.count - 1; i >= 0; --i) {
      const int right = tree.nodes[i].right;
      rooms[i] = 0;
      if (!right) continue;
      const int64_t at = whole_vectors(sizes[right]);
      rooms[i] = at + std::max(rooms[right], whole_vectors(sizes[i + 1]) + rooms[i + 1]);
    }
    return rooms[0] + kReadBehind;
  }
};

Fault decode_pivot(const PivotDecoder& run, const PivotTree& tree, const uint8_t* bytes, int64_t size, int64_t n,
                   uint8_t* out) {
  PivotWalk walk(run, tree);
  walk.sizes[0] = n;
  const uint8_t *at = bytes, *end = bytes + size;
  for (int i = 0; i < tree.count; ++i) {
    const PivotNode& node = tree.nodes[i];
    const int64_t count = walk.sizes[i];
    const int64_t need = node.right ? (count + 7) / 8 : flat_bytes(count, node.width);
    if (need > end - at) return {"cut off", size};
    walk.data[i] = at;
    if (node.right) {
      walk.sizes[node.right] = run.count_ones(at, count);
      walk.sizes[i + 1] = count - walk.sizes[node.right];
    }
    at += need;
  }
  if (at != end) return {"bytes behind its last code", at - bytes};
  walk.gather(0, out, scratch<uint8_t>(ScratchSlot::huffman_lists, static_cast<size_t>(walk.room())));
  return {};
}

Fault decode_streams(StreamsFn run, const StreamTables& tables, const uint8_t* bytes, int64_t size, int64_t n,
                     uint8_t* out) {
  constexpr int64_t kSizes = 2 * (kStreams - 1);
  if (size < kSizes) return {"cut off", size};
  StreamsChunk c{.bytes = bytes,
                 .offset = {kSizes},
                 .n = n,
                 .segment = (n + kStreams - 1) / kStreams,
                 .table = tables.table.data(),
                 .multi_table = tables.multi.empty() ? nullptr : tables.multi.data(),
                 .table_bits = tables.bits,
                 .multi_bits = tables.multi_bits,
                 .out = out};
  for (int i = 0; i + 1 < kStreams; ++i) c.offset[i + 1] = c.offset[i] + bytes[2 * i] + 256 * bytes[2 * i + 1];
  c.offset[kStreams] = size;
  if (c.offset[kStreams - 1] > size) return {"streams longer than the chunk", 0};
  return run(c) ? Fault{} : Fault{"a stream does not end with its last code", kSizes};
}

struct Decoders {
  explicit Decoders(Isa isa) : pivot(pick(kPivotDecoders, isa)), streams(pick(kStreamsDecoders, isa)) {}
  const PivotDecoder* pivot;
  StreamsFn streams;
};

Fault decode_packed_chunk(const HuffmanStream::Data& d, const Decoders& run, int64_t chunk, uint8_t* out) {
  const HuffmanChunk& c = d.header.chunks[static_cast<size_t>(chunk)];
  const int64_t n = d.header.chunk_packed_bytes(chunk), size = c.size;
  const uint8_t* bytes = reinterpret_cast<const uint8_t*>(d.bytes.data()) + c.offset;
  if (run.pivot->checksum(bytes, size) != c.checksum) return {"its checksum is wrong", 0};
  if (c.stored) {
    std::memcpy(out, bytes, static_cast<size_t>(n));
    return {};
  }
  if (d.only) {
    if (size != 0) return {"bytes where one symbol needs none", 0};
    std::memset(out, *d.only, static_cast<size_t>(n));
    return {};
  }
  if (d.tree) return decode_pivot(*run.pivot, *d.tree, bytes, size, n, out);
  return decode_streams(run.streams, *d.tables, bytes, size, n, out);
}

Fault decode_symbol_chunk(const HuffmanStream::Data& d, const Decoders& run, int64_t chunk, uint8_t* out) {
  const HuffmanHeader& h = d.header;
  if (h.pack == 1) return decode_packed_chunk(d, run, chunk, out);
  const int64_t n = h.chunk_packed_bytes(chunk);
  uint8_t* packed = scratch<uint8_t>(ScratchSlot::huffman_bytes, static_cast<size_t>(n + kReadBehind));
  const Fault fault = decode_packed_chunk(d, run, chunk, packed);
  if (!fault.what) run.pivot->unpack(packed, std::min(n * h.pack, h.symbols - chunk * h.chunk * h.pack), h.pack, out);
  return fault;
}

using ChunkFn = Fault (*)(const HuffmanStream::Data&, const Decoders&, int64_t, uint8_t*);

void check(const HuffmanStream::Data& d, int64_t chunk, const Fault& fault) {
  if (!fault.what) return;
  throw FormatError("huffman stream: chunk " + std::to_string(chunk) + ": " + fault.what,
                    d.header.chunks[static_cast<size_t>(chunk)].offset + fault.offset);
}

// Every chunk to out + chunk * stride; the error is that of the first bad chunk, whatever the threads.
void decode_all(const HuffmanStream::Data& d, ChunkFn decode, int64_t stride, uint8_t* out, Isa isa, int threads) {
  const Decoders run(isa);
  const int64_t chunks = static_cast<int64_t>(d.header.chunks.size());
  std::atomic<int64_t> first_bad = chunks;
  parallel_for(resolve_threads(threads), chunks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end && i < first_bad.load(std::memory_order_relaxed); ++i) {
      if (!decode(d, run, i, out + i * stride).what) continue;
      int64_t known = first_bad.load();
      while (i < known && !first_bad.compare_exchange_weak(known, i)) {
      }
    }
  });
  if (first_bad < chunks) check(d, first_bad, decode(d, run, first_bad, out + first_bad * stride));
}

void need_chunk(const char* function, const HuffmanHeader& h, int64_t chunk) {
  const int64_t chunks = static_cast<int64_t>(h.chunks.size());
  if (chunk >= 0 && chunk < chunks) return;
  throw std::invalid_argument(std::string(function) + ": chunk " + std::to_string(chunk) + ", the stream has " +
                              std::to_string(chunks));
}

}  // namespace

HuffmanStream::HuffmanStream(std::span<const std::byte> bytes) {
  auto data = std::make_shared<Data>();
  data->bytes = bytes;
  data->header = read_header(bytes);
  const HuffmanHeader& h = data->header;
  if (h.has_codes()) {
    const auto coded = [](uint8_t length) { return length != 0; };
    if (std::count_if(h.lengths.begin(), h.lengths.end(), coded) == 1) {
      data->only = static_cast<uint8_t>(std::find_if(h.lengths.begin(), h.lengths.end(), coded) - h.lengths.begin());
    } else if (h.layout == HuffmanLayout::pivot) {
      data->tree.emplace(h.lengths);
    } else {
      data->tables.emplace(h.lengths);
    }
  }
  data_ = std::move(data);
}

HuffmanLayout HuffmanStream::layout() const noexcept { return data_->header.layout; }
int HuffmanStream::pack() const noexcept { return data_->header.pack; }
const std::vector<int64_t>& HuffmanStream::shape() const noexcept { return data_->header.shape; }
int64_t HuffmanStream::symbols() const noexcept { return data_->header.symbols; }
int64_t HuffmanStream::packed_bytes() const noexcept { return data_->header.packed_bytes(); }
int64_t HuffmanStream::header_bytes() const noexcept { return data_->header.bytes; }
std::span<const uint8_t> HuffmanStream::code_lengths() const noexcept { return data_->header.lengths; }
int64_t HuffmanStream::chunks() const noexcept { return static_cast<int64_t>(data_->header.chunks.size()); }

int64_t HuffmanStream::chunk_symbols(int64_t chunk) const {
  const HuffmanHeader& h = data_->header;
  need_chunk("HuffmanStream::chunk_symbols", h, chunk);
  return std::min(h.chunk * h.pack, h.symbols - chunk * h.chunk * h.pack);
}

int64_t HuffmanStream::chunk_packed_bytes(int64_t chunk) const {
  need_chunk("HuffmanStream::chunk_packed_bytes", data_->header, chunk);
  return data_->header.chunk_packed_bytes(chunk);
}

int64_t HuffmanStream::chunk_coded_bytes(int64_t chunk) const {
  need_chunk("HuffmanStream::chunk_coded_bytes", data_->header, chunk);
  return data_->header.chunks[static_cast<size_t>(chunk)].size;
}

bool HuffmanStream::chunk_stored(int64_t chunk) const {
  need_chunk("HuffmanStream::chunk_stored", data_->header, chunk);
  return data_->header.chunks[static_cast<size_t>(chunk)].stored;
}

void HuffmanStream::decode(uint8_t* symbols, Isa isa, int threads) const {
  const HuffmanHeader& h = data_->header;
  decode_all(*data_, decode_symbol_chunk, h.chunk * h.pack, symbols, isa, threads);
}

void HuffmanStream::decode_packed(uint8_t* bytes, Isa isa, int threads) const {
  decode_all(*data_, decode_packed_chunk, data_->header.chunk, bytes, isa, threads);
}

void HuffmanStream::decode_chunk(int64_t chunk, uint8_t* symbols, Isa isa) const {
  need_chunk("HuffmanStream::decode_chunk", data_->header, chunk);
  check(*data_, chunk, decode_symbol_chunk(*data_, Decoders(isa), chunk, symbols));
}

void HuffmanStream::decode_chunk_packed(int64_t chunk, uint8_t* bytes, Isa isa) const {
  need_chunk("HuffmanStream::decode_chunk_packed", data_->header, chunk);
  check(*data_, chunk, decode_packed_chunk(*data_, Decoders(isa), chunk, bytes));
}

}  // namespace lowbit
