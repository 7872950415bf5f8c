#include "lowbit/gemm_f32.h"
#include "lowbit/gemm_i8.h"
#include "model/ops/product_op.h"

namespace lowbit {
namespace {

// (-1, ..., k) x (n, k) -> (-1, ..., n).
void check_weight(OpReader& reader, const FileTensor& weight) {
  const int64_t shape[] = {reader.output().row(), reader.input(0).row()};
  reader.need_shape("weight", weight, shape);
}

class Gemm final : public Op {
 public:
  Gemm(OpReader& reader, const ProductWeights& weights)
      : rows_(reader.input(0).rows()), epilogue_(reader, reader.output().row(), reader.input(0).row(), weights) {
    const int64_t k = reader.input(0).row(), n = reader.output().row();
    weights_ = pack_i8(weights.values.data(), DType::s8, k, n, 1, k);
  }

  void run(const Frame& f) const override {
    const int x = inputs[0], y = outputs[0];
    gemm_i8(f.data(x), DType::u8, f.batch * rows_, f.pitch(x), epilogue_.x_zero_point(f, x), weights_,
            epilogue_.weight_zero_point, f.data(y), f.pitch(y), epilogue_.at(f, inputs), f.isa, f.threads);
  }

  bool strided_input(size_t) const override { return true; }
  bool strided_output() const override { return true; }
  int64_t scratch_bytes(int64_t) const override { return epilogue_.scratch_bytes(); }

 private:
  int64_t rows_;  // per batch item
  ProductEpilogue epilogue_;
  PackedI8 weights_;
};

class GemmF32 final : public Op {
 public:
  explicit GemmF32(OpReader& reader) {
    reader.arity(1, 2);
    reader.need_real(reader.input(0));
    reader.need_real(reader.output());
    check_product_dims(reader);
    check_weight(reader, reader.param("weight", {DType::f32}));
    const int64_t n = reader.output().row(), k = reader.input(0).row();
    rows_ = reader.input(0).rows();
    weights_ = pack_f32(reader.float_values("weight").data(), k, n, 1, k);
    if (reader.has_param("bias")) bias_ = reader.floats("bias", n);
    reader.float_clamp(lo_, hi_);
    if (reader.inputs() < 2) return;
    reader.need_real(reader.input(1));
    reader.need_dims(reader.input(1), reader.output().dims);
  }

  void run(const Frame& f) const override {
    EpilogueF32 e;
    if (!bias_.empty()) e.bias = bias_.data();
    e.lo = lo_;
    e.hi = hi_;
    if (inputs.size() > 1) {
      e.residual = f.data<float>(inputs[1]);
      e.residual_stride = f.pitch(inputs[1]);
    }
    gemm_f32(f.data<float>(inputs[0]), f.batch * rows_, f.pitch(inputs[0]), weights_, f.data<float>(outputs[0]),
             f.pitch(outputs[0]), e, f.isa, f.threads);
  }

  bool strided_input(size_t) const override { return true; }
  bool strided_output() const override { return true; }

 private:
  int64_t rows_;
  PackedF32 weights_;
  std::vector<float> bias_;
  float lo_, hi_;
};

}  // namespace

std::unique_ptr<Op> make_gemm_i8(OpReader& reader, const ProductWeights& weights) {
  return std::make_unique<Gemm>(reader, weights);
}

std::unique_ptr<Op> compile_gemm(OpReader& reader) {
  reader.arity(1, 2);
  check_product_dims(reader);
  if (weight_bits(reader) == 8) check_weight(reader, reader.param("weight", {DType::s8, DType::u8}));
  return make_gemm_i8(reader, int8_weights(reader, reader.output().row() * reader.input(0).row()));
}
std::unique_ptr<Op> compile_gemm_f32(OpReader& reader) { return std::make_unique<GemmF32>(reader); }

}  // namespace lowbit
