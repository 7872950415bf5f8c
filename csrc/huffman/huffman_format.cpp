#include "huffman/huffman_format.h"

#include <algorithm>
#include <bit>
#include <string>

#include "huffman/huffman_kernel.h"

namespace lowbit {
namespace {

constexpr uint8_t kMagic[4] = {'L', 'B', 'H', 'F'};
constexpr uint8_t kVersion = 1;
constexpr uint8_t kPivotFlag = 1, kPackShift = 1, kPackMask = 3, kCodesFlag = 8, kKnownFlags = 15;
constexpr uint32_t kEntryBytes = 6;  // of a chunk

uint32_t checksum(const void* bytes, int64_t n) {
  return pivot_decoder_scalar.checksum(static_cast<const uint8_t*>(bytes), n);
}

class Writer {
 public:
  void u8(uint64_t v) { bytes.push_back(static_cast<std::byte>(v)); }
  void u16(uint32_t v) {
    u8(v & 255);
    u8(v >> 8);
  }
  void u32(uint32_t v) {
    for (int shift = 0; shift < 32; shift += 8) u8(v >> shift & 255);
  }
  void number(uint64_t v) {
    for (; v >= 128; v >>= 7) u8(v % 128 + 128);
    u8(v);
  }
  std::vector<std::byte> bytes;
};

class Reader {
 public:
  explicit Reader(std::span<const std::byte> bytes) : bytes_(bytes) {}
  [[noreturn]] void fail(const std::string& what) const { throw FormatError("huffman stream: " + what, at_); }
  int64_t at() const { return at_; }
  int64_t left() const { return static_cast<int64_t>(bytes_.size()) - at_; }
  uint8_t u8() {
    need(1);
    return static_cast<uint8_t>(bytes_[static_cast<size_t>(at_++)]);
  }
  uint32_t u16() {
    const uint32_t low = u8();
    return low | uint32_t{u8()} << 8;
  }
  uint32_t u32() {
    need(4);
    uint32_t v = 0;
    for (int shift = 0; shift < 32; shift += 8) v |= uint32_t{u8()} << shift;
    return v;
  }
  // At most 2^49, in the fewest bytes.
  int64_t number() {
    uint64_t v = 0;
    for (int shift = 0; shift < 49; shift += 7) {
      const uint8_t b = u8();
      v |= static_cast<uint64_t>(b & 127) << shift;
      if (b >= 128) continue;
      if (b == 0 && shift > 0) fail("a number is longer than it need be");
      return static_cast<int64_t>(v);
    }
    fail("a number is too large");
  }
  void need(int64_t n) const {
    if (n > left()) fail("cut off in its header");
  }

 private:
  std::span<const std::byte> bytes_;
  int64_t at_ = 0;
};

// Neighbouring bytes have similar lengths, so each is written as its difference to the one before (8 before the first)
// modulo 16, which makes "no code" a neighbour of 15: 0, -1, 1, -2, 2, ... as that many zeros before a one.
constexpr int kBeforeFirst = 8;

void write_lengths(Writer& out, const CodeLengths& lengths) {
  const auto coded = [](uint8_t length) { return length != 0; };
  const auto first = std::find_if(lengths.begin(), lengths.end(), coded);
  const auto last = std::find_if(lengths.rbegin(), lengths.rend(), coded).base() - 1;
  out.u8(static_cast<uint64_t>(first - lengths.begin()));
  out.u8(static_cast<uint64_t>(last - lengths.begin()));
  uint32_t bits = 0;
  int used = 0, before = kBeforeFirst;
  for (auto at = first; at <= last; before = *at++) {
    const int difference = (*at - before + 24) % 16 - 8;  // -8..7
    used += difference < 0 ? -2 * difference - 1 : 2 * difference;
    bits |= 1u << used++;
    for (; used >= 8; used -= 8, bits >>= 8) out.u8(bits & 255);
  }
  if (used) out.u8(bits);
}

CodeLengths read_lengths(Reader& in) {
  CodeLengths lengths{};
  const int64_t start = in.at();
  const int first = in.u8(), last = in.u8();
  if (first > last) in.fail("code lengths from byte " + std::to_string(first) + " to " + std::to_string(last));
  uint32_t bits = 1;  // those not yet read, below a one
  int before = kBeforeFirst;
  for (int b = first; b <= last; ++b) {
    int zeros = 0;
    for (bool one = false; !one;) {
      if (bits == 1) bits = in.u8() | 256;
      one = bits & 1;
      bits >>= 1;
      zeros += !one;
      if (zeros > 15) in.fail("the code length of byte " + std::to_string(b) + " is no difference modulo 16");
    }
    before = (before + (zeros % 2 ? -(zeros + 1) / 2 : zeros / 2) + 16) % 16;
    lengths[b] = static_cast<uint8_t>(before);
  }
  if (bits & (bits - 1)) in.fail("bits behind the last code length");
  const auto wrong = [&](const std::string& what) { throw FormatError("huffman stream: " + what, start); };
  if (!lengths[first] || !lengths[last]) wrong("the first and the last code length must not be 0");
  uint32_t used = 0;
  for (uint8_t length : lengths) used += length ? 1u << (kMaxCodeLength - length) : 0;
  constexpr uint32_t kAll = 1u << kMaxCodeLength;
  if (first == last && used == kAll / 2) return lengths;  // one byte alone
  if (used > kAll) wrong("the code table is over-subscribed");
  if (used < kAll) wrong("the code table is incomplete");
  return lengths;
}

void read_chunks(Reader& in, HuffmanHeader& h) {
  const int64_t count = (h.packed_bytes() + h.chunk - 1) / h.chunk;
  if (count > in.left() / kEntryBytes) in.fail("too short for its " + std::to_string(count) + " chunks");
  const bool codes = h.has_codes();
  h.chunks.resize(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) {
    HuffmanChunk& c = h.chunks[static_cast<size_t>(i)];
    const int64_t n = h.chunk_packed_bytes(i);
    c.size = in.u16();
    c.stored = c.size == kStoredChunk;
    if (c.stored) c.size = static_cast<uint32_t>(n);
    c.checksum = in.u32();
    if (c.stored) continue;
    const std::string name = "chunk " + std::to_string(i) + " of " + std::to_string(n) + " bytes ";
    if (c.size >= n) in.fail(name + "has " + std::to_string(c.size) + " in the stream");
    if (!codes) in.fail(name + "is coded, but there is no code table");
  }
}

}  // namespace

bool HuffmanHeader::has_codes() const {
  return std::any_of(lengths.begin(), lengths.end(), [](uint8_t length) { return length != 0; });
}

int64_t symbols_of_shape(std::span<const int64_t> shape) {
  if (shape.size() > kMaxHuffmanAxes) return -1;
  bool empty = false, large = false;
  int64_t n = 1;
  for (int64_t axis : shape) {
    if (axis < 0 || axis > kMaxHuffmanSymbols) return -1;
    empty |= axis == 0;
    large |= __builtin_mul_overflow(n, std::max<int64_t>(axis, 1), &n) || n > kMaxHuffmanSymbols;
    if (large) n = 1;
  }
  return large ? -1 : empty ? 0 : n;
}

std::vector<std::byte> write_header(const HuffmanHeader& h) {
  Writer out;
  for (uint8_t c : kMagic) out.u8(c);
  out.u8(kVersion);
  out.u8((h.layout == HuffmanLayout::pivot ? kPivotFlag : 0) |
         static_cast<uint64_t>(std::countr_zero(static_cast<unsigned>(h.pack))) << kPackShift |
         (h.has_codes() ? kCodesFlag : 0));
  out.u8(static_cast<uint64_t>(std::countr_zero(static_cast<uint64_t>(h.chunk))));
  out.u8(h.shape.size());
  for (int64_t axis : h.shape) out.number(static_cast<uint64_t>(axis));
  if (h.has_codes()) write_lengths(out, h.lengths);
  for (const HuffmanChunk& c : h.chunks) {
    out.u16(c.stored ? kStoredChunk : c.size);
    out.u32(c.checksum);
  }
  out.u32(checksum(out.bytes.data(), static_cast<int64_t>(out.bytes.size())));
  return std::move(out.bytes);
}

HuffmanHeader read_header(std::span<const std::byte> bytes) {
  Reader in(bytes);
  HuffmanHeader h;
  for (uint8_t c : kMagic) {
    if (in.left() == 0 || in.u8() != c) in.fail("not one: it does not begin with LBHF");
  }
  if (const int version = in.u8(); version != kVersion) {
    in.fail("version " + std::to_string(version) + (version > kVersion ? " is of a newer lowbit" : " is unknown"));
  }
  const uint8_t flags = in.u8();
  if (flags & ~kKnownFlags) in.fail("unknown flags " + std::to_string(flags));
  h.layout = flags & kPivotFlag ? HuffmanLayout::pivot : HuffmanLayout::streams;
  h.pack = 1 << (flags >> kPackShift & kPackMask);
  const int log_chunk = in.u8();
  h.chunk = log_chunk < 32 ? int64_t{1} << log_chunk : 0;
  if (h.chunk < kMinHuffmanChunk || h.chunk > kMaxHuffmanChunk) in.fail("chunks of 2^" + std::to_string(log_chunk));
  const size_t axes = in.u8();
  if (axes > kMaxHuffmanAxes) in.fail(std::to_string(axes) + " axes");
  for (size_t i = 0; i < axes; ++i) h.shape.push_back(in.number());
  h.symbols = symbols_of_shape(h.shape);
  if (h.symbols < 0) in.fail("the shape is too large");
  if (flags & kCodesFlag) h.lengths = read_lengths(in);
  read_chunks(in, h);
  const int64_t checked = in.at();
  if (const uint32_t sum = checksum(bytes.data(), checked); in.u32() != sum) in.fail("the header's checksum is wrong");
  h.bytes = in.at();
  int64_t at = h.bytes;
  for (HuffmanChunk& c : h.chunks) {
    c.offset = at;
    at += c.size;
  }
  const int64_t size = static_cast<int64_t>(bytes.size());
  if (at != size) {
    throw FormatError("huffman stream: " + std::to_string(size) + " bytes, its chunks end at " + std::to_string(at),
                      std::min(at, size));
  }
  return h;
}

}  // namespace lowbit
