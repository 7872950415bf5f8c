#include "model/ops/codebook_params.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include "lowbit/error.h"
#include "lowbit/huffman.h"

namespace lowbit {
namespace {

// `count` symbols of `bits` bits from a param: packed, or Huffman-coded where the flag says so. One per byte.
std::vector<uint8_t> read_symbols(OpReader& reader, const char* role, const char* flag, int64_t count, int bits) {
  if (!reader.attrs().flag(flag, false)) return reader.packed(role, count, bits);
  const FileTensor& t = reader.param(role, {DType::u8});
  const std::string where = "param '" + std::string(role) + "' (" + t.name + ")";
  if (t.shape.size() != 1) reader.fail(where + " is " + shape_text(t.shape) + ", not one-dimensional");
  std::vector<uint8_t> symbols(static_cast<size_t>(count));
  try {
    const HuffmanStream stream(t.bytes);
    if (stream.symbols() != count) {
      reader.fail(where + " holds " + std::to_string(stream.symbols()) + " symbols, not " + std::to_string(count));
    }
    stream.decode(symbols.data());
  } catch (const FormatError& e) {
    reader.fail(where + ": " + e.what());
  }
  return symbols;
}

}  // namespace

CodebookParams::CodebookParams(OpReader& reader, int64_t n, int64_t k) : n_(n), k_(k) {
  bits_ = static_cast<int>(reader.attrs().integer("bits", 1, 8));
  const int gap_bits = static_cast<int>(reader.attrs().integer("gap_bits", 0, 8, 0));
  sparse_ = gap_bits > 0;
  read_codebook(reader, reader.input(0).content == Content::real ? DType::f32 : DType::s8);
  read_codes(reader);
  if (sparse_) read_gaps(reader, gap_bits);
  if (!floats_.empty() && reader.has_param("scale")) scale_codebook(reader, reader.floats("scale", n));
}

void CodebookParams::read_codebook(OpReader& reader, DType dtype) {
  const int64_t group_size = reader.attrs().integer("group_size", 0, 1 << 30, 0);
  const FileTensor& t = reader.param("codebook", {dtype});
  const CodebookPer per = group_size > 0       ? CodebookPer::columns
                          : t.shape.size() > 1 ? CodebookPer::channel
                                               : CodebookPer::tensor;
  float_book_ = {nullptr, 0, per, group_size};
  rows_ = float_book_.rows(n_, k_);
  entries_ = t.shape.empty() ? 0 : t.shape.back();
  const bool matrix = per != CodebookPer::tensor;
  if (t.shape.size() != (matrix ? 2 : 1) || entries_ < 1 || entries_ > int64_t{1} << bits_ ||
      (matrix && t.shape[0] != rows_)) {
    reader.fail("param 'codebook' (" + t.name + ") is " + shape_text(t.shape) + ", not (" +
                (matrix ? std::to_string(rows_) + ", " : "") + "1 to " + std::to_string(1 << bits_) + ")");
  }
  float_book_.entries = entries_;
  if (dtype == DType::f32) {
    floats_ = reader.float_values("codebook");
    float_book_.values = floats_.data();
  } else {
    int8s_.resize(t.bytes.size());
    std::memcpy(int8s_.data(), t.bytes.data(), t.bytes.size());
    int8_book_ = {int8s_.data(), entries_, per, group_size};
  }
}

void CodebookParams::scale_codebook(OpReader& reader, const std::vector<float>& scale) {
  if (sparse_) reader.fail("'scale' is for dense weights only");
  if (float_book_.per != CodebookPer::tensor) reader.fail("'scale' is for a layer with one codebook only");
  std::vector<float> rows;
  rows.reserve(scale.size() * floats_.size());
  for (float s : scale) {
    for (float v : floats_) rows.push_back(v * s);
  }
  floats_ = std::move(rows);
  float_book_.values = floats_.data();
  float_book_.per = CodebookPer::channel;
}

void CodebookParams::read_codes(OpReader& reader) {
  const int64_t count = sparse_ ? reader.attrs().integer("entries", 0, n_ * k_) : n_ * k_;
  codes_ = read_symbols(reader, "weight", "huffman", count, bits_);
  uint8_t top = 0;
  for (uint8_t c : codes_) top = std::max(top, c);  // a loop that vectorises, as find_if does not
  if (top < entries_ || codes_.empty()) return;
  const auto beyond = std::find_if(codes_.begin(), codes_.end(), [&](uint8_t c) { return c >= entries_; });
  reader.fail("code " + std::to_string(*beyond) + " at " + std::to_string(beyond - codes_.begin()) +
              " in a codebook of " + std::to_string(entries_));
}

void CodebookParams::read_gaps(OpReader& reader, int gap_bits) {
  for (int64_t r = 0; r < rows_; ++r) {
    const auto first = static_cast<size_t>(r * entries_);
    const double zero = floats_.empty() ? int8s_[first] : floats_[first];
    if (zero != 0) reader.fail("code 0 of a sparse layer must be 0.0, not " + std::to_string(zero));
  }
  gaps_ = read_symbols(reader, "gaps", "gaps_huffman", static_cast<int64_t>(codes_.size()), gap_bits);
  int64_t at = -1;
  for (size_t i = 0; i < gaps_.size(); ++i) {
    at += gaps_[i] + 1;
    if (at >= n_ * k_) {
      reader.fail("entry " + std::to_string(i) + " lies at " + std::to_string(at) + ", beyond " +
                  std::to_string(n_ * k_) + " weights");
    }
  }
}

std::vector<uint8_t> CodebookParams::take_indices() {
  if (!sparse_) return std::move(codes_);
  std::vector<uint8_t> indices(static_cast<size_t>(n_ * k_), 0);
  int64_t at = -1;
  for (size_t i = 0; i < codes_.size(); ++i) indices[static_cast<size_t>(at += gaps_[i] + 1)] = codes_[i];
  return indices;
}

PackedCodebook CodebookParams::take_packed() {
  CodebookPacker packer(n_, k_, bits_, float_book_);
  packer.append(take_indices().data(), n_ * k_);
  return packer.finish();
}

PackedConvCodebook CodebookParams::take_packed(const Conv2dShape& shape) {
  if (shape.groups == 1) return pack_conv_codebook(take_packed(), shape);
  std::vector<uint8_t> packed(static_cast<size_t>(index_bytes(n_ * k_, bits_)));
  pack_indices(take_indices().data(), n_ * k_, bits_, packed.data());
  return pack_conv_codebook(packed.data(), shape, bits_, float_book_);
}

template <typename T>
std::vector<T> CodebookParams::decoded(const Codebook<T>& book) {
  const std::vector<uint8_t> indices = take_indices();
  std::vector<T> out(indices.size());
  for (int64_t j = 0, t = 0; j < n_; ++j) {
    const T* row = book.values + (book.per == CodebookPer::channel ? j * book.entries : 0);
    for (int64_t p = 0; p < k_; ++p, ++t) {
      const T* table = book.per == CodebookPer::columns ? row + p / book.group_size * book.entries : row;
      out[static_cast<size_t>(t)] = table[indices[static_cast<size_t>(t)]];
    }
  }
  return out;
}

std::vector<float> CodebookParams::take_floats() { return decoded(float_book_); }
std::vector<int8_t> CodebookParams::take_int8() { return decoded(int8_book_); }

}  // namespace lowbit
