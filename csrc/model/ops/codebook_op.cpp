// Products on float32 with weights that are codes into a codebook. Huffman streams and gaps become packed indices when
// the model is opened; the weights themselves are written out for depthwise layers alone.
#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "lowbit/codebook.h"
#include "lowbit/error.h"
#include "lowbit/gemm_f32.h"
#include "lowbit/huffman.h"
#include "lowbit/sparse.h"
#include "model/ops/window_attrs.h"

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

// What both products read: codebook, codes (of every weight, or with gaps), bias, clamp.
struct CodebookParams {
  CodebookParams(OpReader& reader, int64_t n, int64_t k) : size(n * k) {
    bits = static_cast<int>(reader.attrs().integer("bits", 1, 8));
    values = reader.float_values("codebook");
    const FileTensor& book = reader.param("codebook", {DType::f32});
    if (book.shape.size() != 1 || values.empty() || values.size() > size_t{1} << bits) {
      reader.fail("param 'codebook' (" + book.name + ") is " + shape_text(book.shape) + ", not (1 to " +
                  std::to_string(1 << bits) + ")");
    }
    entries = static_cast<int64_t>(values.size());
    const int gap_bits = static_cast<int>(reader.attrs().integer("gap_bits", 0, 8, 0));
    sparse = gap_bits > 0;
    const int64_t count = sparse ? reader.attrs().integer("entries", 0, size) : size;
    codes = read_symbols(reader, "weight", "huffman", count, bits);
    uint8_t top = 0;
    for (uint8_t c : codes) top = std::max(top, c);  // a loop that vectorises, as find_if does not
    if (top >= values.size() && !codes.empty()) {
      const auto beyond = std::find_if(codes.begin(), codes.end(), [&](uint8_t c) { return c >= values.size(); });
      reader.fail("code " + std::to_string(*beyond) + " at " + std::to_string(beyond - codes.begin()) +
                  " in a codebook of " + std::to_string(values.size()));
    }
    if (sparse) read_gaps(reader, gap_bits);
    if (reader.has_param("scale")) spread(reader, reader.floats("scale", n));
    if (reader.has_param("bias")) bias = reader.floats("bias", n);
    reader.float_clamp(epilogue.lo, epilogue.hi);
    reader.need_real(reader.input(0));
    reader.need_real(reader.output());
  }

  Codebook<float> codebook() const { return {values.data(), entries, per}; }

  // The index of every weight; `codes` is gone then.
  std::vector<uint8_t> take_indices() {
    if (!sparse) return std::move(codes);
    std::vector<uint8_t> indices(static_cast<size_t>(size), 0);
    int64_t at = -1;
    for (size_t i = 0; i < codes.size(); ++i) indices[static_cast<size_t>(at += gaps[i] + 1)] = codes[i];
    return indices;
  }

  // The same, packed.
  std::vector<uint8_t> take_packed() {
    std::vector<uint8_t> out(static_cast<size_t>(index_bytes(size, bits)));
    pack_indices(take_indices().data(), size, bits, out.data());
    return out;
  }

  int64_t size, entries;
  int bits;
  bool sparse;
  CodebookPer per = CodebookPer::tensor;
  std::vector<float> values, bias;  // values (1 or n, entries)
  std::vector<uint8_t> codes, gaps;
  EpilogueCodebook epilogue;

 private:
  // A codebook for every output channel: the one there is, times the channel's scale.
  void spread(OpReader& reader, const std::vector<float>& scale) {
    if (sparse) reader.fail("'scale' is for dense weights only");
    std::vector<float> rows;
    rows.reserve(scale.size() * values.size());
    for (float s : scale) {
      for (float v : values) rows.push_back(v * s);
    }
    values = std::move(rows);
    per = CodebookPer::channel;
  }

  void read_gaps(OpReader& reader, int gap_bits) {
    if (values[0] != 0.0f) reader.fail("code 0 of a sparse layer must be 0.0, not " + std::to_string(values[0]));
    gaps = read_symbols(reader, "gaps", "gaps_huffman", static_cast<int64_t>(codes.size()), gap_bits);
    int64_t at = -1;
    for (size_t i = 0; i < gaps.size(); ++i) {
      at += gaps[i] + 1;
      if (at >= size) {
        reader.fail("entry " + std::to_string(i) + " lies at " + std::to_string(at) + ", beyond " +
                    std::to_string(size) + " weights");
      }
    }
  }
};

class GemmCodebook final : public Op {
 public:
  explicit GemmCodebook(OpReader& reader) {
    reader.arity(1, 1);
    const Activation& x = reader.input(0);
    const Activation& y = reader.output();
    if (x.dims.size() < 2) reader.fail("tensor '" + x.name + "' " + x.text() + " has no axis to multiply over");
    std::vector<int64_t> expected = x.dims;
    expected.back() = y.dims.back();
    reader.need_dims(y, expected);
    rows_ = x.rows();
    const int64_t n = y.row(), k = x.row();
    CodebookParams params(reader, n, k);
    const auto entries = static_cast<int64_t>(params.codes.size());
    if (params.sparse && k <= kMostColumns &&
        static_cast<double>(entries) <= kSparseBelow * static_cast<double>(n * k)) {
      sparse_ = pack_sparse(params.gaps.data(), params.codes.data(), entries, n, k, params.codebook());
    } else {
      CodebookPacker packer(n, k, params.bits, params.codebook());
      packer.append(params.take_indices().data(), n * k);
      dense_ = packer.finish();
    }
    bias_ = std::move(params.bias);
    epilogue_ = params.epilogue;
    if (!bias_.empty()) epilogue_.bias = bias_.data();
  }

  void run(const Frame& f) const override {
    const float* x = f.data<float>(inputs[0]);
    float* y = f.data<float>(outputs[0]);
    const int64_t m = f.batch * rows_, ldx = f.pitch(inputs[0]), ldy = f.pitch(outputs[0]);
    if (sparse_.data) {
      sparse_gemm_f32(x, m, ldx, sparse_, y, ldy, epilogue_, f.isa, f.threads);
    } else {
      codebook_gemm_f32(x, m, ldx, dense_, y, ldy, epilogue_, f.isa, f.threads);
    }
  }

  bool strided_input(size_t) const override { return true; }
  bool strided_output() const override { return true; }

 private:
  static constexpr int64_t kMostColumns = 1 << 16;  // of pack_sparse
  static constexpr double kSparseBelow = 0.15;      // break-even at batch 1; at batch 16 it is 0.3

  int64_t rows_;
  PackedCodebook dense_;  // one of the two
  PackedSparse sparse_;
  std::vector<float> bias_;
  EpilogueCodebook epilogue_;
};

// Depthwise layers have few weights and no product to share a decoded one: theirs are decoded when the model is opened,
// and gemm_f32.h's depthwise loop runs them (a hundred times as fast here as groups of one channel).
class Conv2dCodebook final : public Op {
 public:
  explicit Conv2dCodebook(OpReader& reader) {
    reader.arity(1, 1);
    const std::vector<int64_t> kernel = reader.attrs().integers("kernel", 2, 1, 4096, 1);
    shape_ = read_window(reader, kernel[0], kernel[1], true);
    const int64_t k = shape_.kh * shape_.kw * (shape_.c / shape_.groups);
    CodebookParams params(reader, shape_.oc, k);
    if (shape_.groups > 1 && shape_.groups == shape_.c && shape_.c == shape_.oc) {
      std::vector<float> w(static_cast<size_t>(shape_.oc * k));
      codebook_decode(params.take_packed().data(), shape_.oc, k, params.bits, params.codebook(), w.data());
      depthwise_ = pack_conv_f32(w.data(), shape_);
    } else {
      weights_ = pack_conv_codebook(params.take_packed().data(), shape_, params.bits, params.codebook());
    }
    bias_ = std::move(params.bias);
    epilogue_ = params.epilogue;
    if (!bias_.empty()) epilogue_.bias = bias_.data();
  }

  void run(const Frame& f) const override {
    const float* x = f.data<float>(inputs[0]);
    float* y = f.data<float>(outputs[0]);
    const Conv2dShape shape = with_batch(shape_, f.batch);
    const int64_t ldx = f.pitch(inputs[0]), ldy = f.pitch(outputs[0]);
    if (depthwise_.data) {
      EpilogueF32 epilogue;
      epilogue.bias = epilogue_.bias;
      epilogue.lo = epilogue_.lo;
      epilogue.hi = epilogue_.hi;
      conv2d_f32(x, ldx, shape, depthwise_, y, ldy, epilogue, f.isa, f.threads);
    } else {
      codebook_conv2d_f32(x, ldx, shape, weights_, y, ldy, epilogue_, f.isa, f.threads);
    }
  }

  bool strided_input(size_t) const override { return true; }
  bool strided_output() const override { return true; }

 private:
  Conv2dShape shape_;
  PackedConvCodebook weights_;  // one of the two
  PackedConvF32 depthwise_;
  std::vector<float> bias_;
  EpilogueCodebook epilogue_;
};

}  // namespace

std::unique_ptr<Op> compile_conv2d_codebook(OpReader& reader) { return std::make_unique<Conv2dCodebook>(reader); }
std::unique_ptr<Op> compile_gemm_codebook(OpReader& reader) { return std::make_unique<GemmCodebook>(reader); }

}  // namespace lowbit
