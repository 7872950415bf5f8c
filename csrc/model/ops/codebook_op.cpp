// Products on float32 with weights that are codes into a codebook. Huffman streams and gaps become packed indices when
// the model is opened; the weights themselves are never written out.
#include <algorithm>
#include <string>

#include "lowbit/codebook.h"
#include "lowbit/error.h"
#include "lowbit/huffman.h"
#include "model/ops/window_attrs.h"

namespace lowbit {
namespace {

// `count` symbols of `bits` bits from a param: packed, or Huffman-coded where the flag says so. One per byte.
std::vector<uint8_t> read_symbols(OpReader& reader, const char* role, const char* flag, int64_t count, int bits) {
  const FileTensor& t = reader.param(role, {DType::u8});
  const bool huffman = reader.attrs().flag(flag, false);
  std::vector<uint8_t> symbols(static_cast<size_t>(count));
  const std::string where = "param '" + std::string(role) + "' (" + t.name + ")";
  if (t.shape.size() != 1) reader.fail(where + " is " + shape_text(t.shape) + ", not one-dimensional");
  if (!huffman) {
    if (static_cast<int64_t>(t.bytes.size()) != index_bytes(count, bits)) {
      reader.fail(where + " has " + std::to_string(t.bytes.size()) + " bytes, not " +
                  std::to_string(index_bytes(count, bits)) + " for " + std::to_string(count) + " symbols of " +
                  std::to_string(bits) + " bits");
    }
    unpack_indices(reinterpret_cast<const uint8_t*>(t.bytes.data()), count, bits, symbols.data());
    return symbols;
  }
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

// Codes of `size` weights from entries (gap - 1, code); code 0 elsewhere.
std::vector<uint8_t> spread(OpReader& reader, const std::vector<uint8_t>& gaps, const std::vector<uint8_t>& codes,
                            int64_t size) {
  std::vector<uint8_t> indices(static_cast<size_t>(size), 0);
  int64_t at = -1;
  for (size_t i = 0; i < codes.size(); ++i) {
    at += gaps[i] + 1;
    if (at >= size) {
      reader.fail("entry " + std::to_string(i) + " lies at " + std::to_string(at) + ", beyond " + std::to_string(size) +
                  " weights");
    }
    indices[static_cast<size_t>(at)] = codes[i];
  }
  return indices;
}

// What both products read: codebook, dense packed indices of n * k weights, bias, clamp.
struct CodebookParams {
  CodebookParams(OpReader& reader, int64_t n, int64_t k) {
    bits = static_cast<int>(reader.attrs().integer("bits", 1, 8));
    values = reader.float_values("codebook");
    const FileTensor& book = reader.param("codebook", {DType::f32});
    if (book.shape.size() != 1 || values.empty() || values.size() > size_t{1} << bits) {
      reader.fail("param 'codebook' (" + book.name + ") is " + shape_text(book.shape) + ", not (1 to " +
                  std::to_string(1 << bits) + ")");
    }
    const int gap_bits = static_cast<int>(reader.attrs().integer("gap_bits", 0, 8, 0));
    std::vector<uint8_t> indices;
    if (gap_bits == 0) {
      indices = read_symbols(reader, "weight", "huffman", n * k, bits);
    } else {
      if (values[0] != 0.0f) reader.fail("code 0 of a sparse layer must be 0.0, not " + std::to_string(values[0]));
      const int64_t entries = reader.attrs().integer("entries", 0, n * k);
      const std::vector<uint8_t> codes = read_symbols(reader, "weight", "huffman", entries, bits);
      indices = spread(reader, read_symbols(reader, "gaps", "gaps_huffman", entries, gap_bits), codes, n * k);
    }
    const auto beyond = std::find_if(indices.begin(), indices.end(), [&](uint8_t i) { return i >= values.size(); });
    if (beyond != indices.end()) {
      reader.fail("weight " + std::to_string(beyond - indices.begin()) + " has code " + std::to_string(*beyond) +
                  " in a codebook of " + std::to_string(values.size()));
    }
    packed.resize(static_cast<size_t>(index_bytes(n * k, bits)));
    pack_indices(indices.data(), n * k, bits, packed.data());
    if (reader.has_param("bias")) bias = reader.floats("bias", n);
    reader.float_clamp(epilogue.lo, epilogue.hi);
    reader.need_real(reader.input(0));
    reader.need_real(reader.output());
  }

  Codebook<float> codebook() const { return {values.data(), static_cast<int64_t>(values.size())}; }

  int bits;
  std::vector<float> values, bias;
  std::vector<uint8_t> packed;
  EpilogueCodebook epilogue;
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
    CodebookParams params(reader, y.row(), x.row());
    weights_ = pack_codebook(params.packed.data(), y.row(), x.row(), params.bits, params.codebook());
    bias_ = std::move(params.bias);
    epilogue_ = params.epilogue;
    if (!bias_.empty()) epilogue_.bias = bias_.data();
  }

  void run(const Frame& f) const override {
    codebook_gemm_f32(f.data<float>(inputs[0]), f.batch * rows_, f.pitch(inputs[0]), weights_,
                      f.data<float>(outputs[0]), f.pitch(outputs[0]), epilogue_, f.isa, f.threads);
  }

  bool strided_input(size_t) const override { return true; }
  bool strided_output() const override { return true; }

 private:
  int64_t rows_;
  PackedCodebook weights_;
  std::vector<float> bias_;
  EpilogueCodebook epilogue_;
};

class Conv2dCodebook final : public Op {
 public:
  explicit Conv2dCodebook(OpReader& reader) {
    reader.arity(1, 1);
    const std::vector<int64_t> kernel = reader.attrs().integers("kernel", 2, 1, 4096, 1);
    shape_ = read_window(reader, kernel[0], kernel[1], true);
    CodebookParams params(reader, shape_.oc, shape_.kh * shape_.kw * (shape_.c / shape_.groups));
    weights_ = pack_conv_codebook(params.packed.data(), shape_, params.bits, params.codebook());
    bias_ = std::move(params.bias);
    epilogue_ = params.epilogue;
    if (!bias_.empty()) epilogue_.bias = bias_.data();
  }

  void run(const Frame& f) const override {
    codebook_conv2d_f32(f.data<float>(inputs[0]), f.pitch(inputs[0]), with_batch(shape_, f.batch), weights_,
                        f.data<float>(outputs[0]), f.pitch(outputs[0]), epilogue_, f.isa, f.threads);
  }

  bool strided_input(size_t) const override { return true; }
  bool strided_output() const override { return true; }

 private:
  Conv2dShape shape_;
  PackedConvCodebook weights_;
  std::vector<float> bias_;
  EpilogueCodebook epilogue_;
};

}  // namespace

std::unique_ptr<Op> compile_conv2d_codebook(OpReader& reader) { return std::make_unique<Conv2dCodebook>(reader); }
std::unique_ptr<Op> compile_gemm_codebook(OpReader& reader) { return std::make_unique<GemmCodebook>(reader); }

}  // namespace lowbit
