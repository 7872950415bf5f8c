// Products with weights that are codes into a codebook. Huffman streams and gaps become packed indices when the model
// is opened. Layers that read codes multiply int8 weights: the codebook is int8, and decoded with the layer.
#include <string>
#include <utility>
#include <vector>

#include "lowbit/gemm_f32.h"
#include "lowbit/sparse.h"
#include "model/ops/codebook_params.h"
#include "model/ops/product_op.h"
#include "model/ops/window_attrs.h"

namespace lowbit {
namespace {

// Whether the layer is an 8-bit product, which may have a residual.
bool takes_codes(OpReader& reader) {
  reader.arity(1, 2);
  if (reader.input(0).content != Content::real) return true;
  reader.arity(1, 1);
  return false;
}

ProductWeights int8_weights(OpReader& reader, int64_t n, int64_t k) {
  return {CodebookParams(reader, n, k).take_int8()};
}

// Bias and clamp of float products.
class FloatEpilogue {
 public:
  FloatEpilogue(OpReader& reader, int64_t n) {
    reader.need_real(reader.output());
    if (reader.has_param("bias")) bias_ = reader.floats("bias", n);
    reader.float_clamp(epilogue_.lo, epilogue_.hi);
  }

  EpilogueCodebook get() const {
    EpilogueCodebook e = epilogue_;
    if (!bias_.empty()) e.bias = bias_.data();
    return e;
  }

 private:
  std::vector<float> bias_;
  EpilogueCodebook epilogue_;
};

// A matrix of codebook weights times m rows of x: over all of them, or over those that are there.
class MatrixCodebook {
 public:
  MatrixCodebook() = default;
  // m: rows for each item of a batch.
  MatrixCodebook(CodebookParams& params, int64_t m, int64_t n, int64_t k) {
    const auto entries = static_cast<int64_t>(params.codes().size());
    if (params.sparse() && sparse_pays(m, n, k, entries, params.codebook().per)) {
      sparse_ = pack_sparse(params.gaps().data(), params.codes().data(), entries, n, k, params.codebook());
    } else {
      dense_ = params.take_packed();
    }
  }

  void run(const float* x, int64_t m, int64_t ldx, float* y, int64_t ldy, const EpilogueCodebook& e,
           const Frame& f) const {
    if (sparse_.data) {
      sparse_gemm_f32(x, m, ldx, sparse_, y, ldy, e, f.isa, f.threads);
    } else {
      codebook_gemm_f32(x, m, ldx, dense_, y, ldy, e, f.isa, f.threads);
    }
  }

 private:
  PackedCodebook dense_;  // one of the two
  PackedSparse sparse_;
};

class GemmCodebook final : public Op {
 public:
  explicit GemmCodebook(OpReader& reader) : rows_(reader.input(0).rows()), epilogue_(reader, reader.output().row()) {
    const int64_t n = reader.output().row(), k = reader.input(0).row();
    CodebookParams params(reader, n, k);
    weights_ = MatrixCodebook(params, rows_, n, k);
  }

  void run(const Frame& f) const override {
    weights_.run(f.data<float>(inputs[0]), f.batch * rows_, f.pitch(inputs[0]), f.data<float>(outputs[0]),
                 f.pitch(outputs[0]), epilogue_.get(), f);
  }

  bool strided_input(size_t) const override { return true; }
  bool strided_output() const override { return true; }

 private:
  int64_t rows_;
  MatrixCodebook weights_;
  FloatEpilogue epilogue_;
};

// Depthwise layers have few weights and no product to share a decoded one: theirs are decoded when the model is opened,
// and gemm_f32.h's depthwise loop runs them (a hundred times as fast here as groups of one channel).
class Conv2dCodebook final : public Op {
 public:
  Conv2dCodebook(OpReader& reader, const Conv2dShape& shape) : shape_(shape), epilogue_(reader, shape.oc) {
    const int64_t k = shape.kh * shape.kw * (shape.c / shape.groups);
    CodebookParams params(reader, shape.oc, k);
    if (is_matrix()) {
      matrix_ = MatrixCodebook(params, shape.h * shape.w, shape.oc, shape.c);
    } else if (shape.groups > 1 && shape.groups == shape.c && shape.c == shape.oc) {
      depthwise_ = pack_conv_f32(params.take_floats().data(), shape);
    } else {
      weights_ = params.take_packed(shape);
    }
  }

  void run(const Frame& f) const override {
    const float* x = f.data<float>(inputs[0]);
    float* y = f.data<float>(outputs[0]);
    const Conv2dShape shape = with_batch(shape_, f.batch);
    const int64_t ldx = f.pitch(inputs[0]), ldy = f.pitch(outputs[0]);
    const EpilogueCodebook e = epilogue_.get();
    if (is_matrix()) {
      matrix_.run(x, f.batch * shape.h * shape.w, ldx, y, ldy, e, f);
    } else if (depthwise_.data) {
      EpilogueF32 epilogue;
      epilogue.bias = e.bias;
      epilogue.lo = e.lo;
      epilogue.hi = e.hi;
      conv2d_f32(x, ldx, shape, depthwise_, y, ldy, epilogue, f.isa, f.threads);
    } else {
      codebook_conv2d_f32(x, ldx, shape, weights_, y, ldy, e, f.isa, f.threads);
    }
  }

  bool strided_input(size_t) const override { return true; }
  bool strided_output() const override { return true; }

 private:
  // A 1 x 1 kernel over every pixel: the image is the matrix.
  bool is_matrix() const {
    const Conv2dShape& s = shape_;
    return s.kh == 1 && s.kw == 1 && s.stride_h == 1 && s.stride_w == 1 && s.groups == 1 && s.out_h() == s.h &&
           s.out_w() == s.w;
  }

  Conv2dShape shape_;
  MatrixCodebook matrix_;  // one of the three
  PackedConvCodebook weights_;
  PackedConvF32 depthwise_;
  FloatEpilogue epilogue_;
};

}  // namespace

std::unique_ptr<Op> compile_conv2d_codebook(OpReader& reader) {
  const bool codes = takes_codes(reader);
  const std::vector<int64_t> kernel = reader.attrs().integers("kernel", 2, 1, 4096, 1);
  const Conv2dShape shape = read_window(reader, kernel[0], kernel[1], true);
  if (!codes) return std::make_unique<Conv2dCodebook>(reader, shape);
  return make_conv2d_i8(reader, shape, int8_weights(reader, shape.oc, shape.kh * shape.kw * (shape.c / shape.groups)));
}

std::unique_ptr<Op> compile_gemm_codebook(OpReader& reader) {
  const bool codes = takes_codes(reader);
  check_product_dims(reader);
  if (!codes) return std::make_unique<GemmCodebook>(reader);
  return make_gemm_i8(reader, int8_weights(reader, reader.output().row(), reader.input(0).row()));
}

}  // namespace lowbit
