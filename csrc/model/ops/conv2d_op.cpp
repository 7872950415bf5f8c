#include "lowbit/depthwise_i8.h"
#include "lowbit/gemm_f32.h"
#include "lowbit/gemm_i8.h"
#include "model/ops/product_op.h"
#include "model/ops/window_attrs.h"

namespace lowbit {
namespace {

class Conv2d final : public Op {
 public:
  Conv2d(OpReader& reader, const Conv2dShape& shape, const ProductWeights& weights)
      : shape_(shape),
        epilogue_(reader, shape_.oc, shape_.kh * shape_.kw * (shape_.c / shape_.groups), weights),
        depthwise_(shape_.groups == shape_.c && shape_.c == shape_.oc && shape_.c > 1 &&
                   epilogue_.weight_zero_point == 0) {
    const std::vector<int8_t>& w = weights.values;
    const int64_t taps = shape_.kh * shape_.kw;
    if (!depthwise_) {
      conv_ = pack_conv_i8(w.data(), DType::s8, shape_);
      return;
    }
    const int shift = 8 - weights.bits, factor = epilogue_.enlarge_sums(taps, shift) ? 1 << shift : 1;
    std::vector<int8_t> taps_first(w.size());  // (c, kh, kw) -> (kh, kw, c)
    for (int64_t c = 0; c < shape_.c; ++c) {
      for (int64_t t = 0; t < taps; ++t) {
        const int enlarged = w[static_cast<size_t>(c * taps + t)] * factor;
        taps_first[static_cast<size_t>(t * shape_.c + c)] = static_cast<int8_t>(enlarged);
      }
    }
    depthwise_weights_ = pack_depthwise_i8(taps_first.data(), shape_);
  }

  void run(const Frame& f) const override {
    const int x = inputs[0], y = outputs[0];
    const Conv2dShape shape = with_batch(shape_, f.batch);
    const Epilogue epilogue = epilogue_.at(f, inputs);
    const int32_t zero_point = epilogue_.x_zero_point(f, x);
    if (depthwise_) {
      depthwise_conv2d_i8(f.data(x), DType::u8, f.pitch(x), shape, zero_point, depthwise_weights_, f.data(y),
                          f.pitch(y), epilogue, f.isa, f.threads);
    } else {
      conv2d_i8(f.data(x), DType::u8, f.pitch(x), shape, zero_point, conv_, epilogue_.weight_zero_point, f.data(y),
                f.pitch(y), epilogue, f.isa, f.threads);
    }
  }

  bool strided_input(size_t) const override { return true; }
  bool strided_output() const override { return true; }
  int64_t scratch_bytes(int64_t) const override { return epilogue_.scratch_bytes(); }

 private:
  Conv2dShape shape_;
  ProductEpilogue epilogue_;
  bool depthwise_;
  PackedConvI8 conv_;
  PackedDepthwiseI8 depthwise_weights_;
};

class Conv2dF32 final : public Op {
 public:
  explicit Conv2dF32(OpReader& reader) {
    reader.arity(1, 2);
    reader.need_real(reader.input(0));
    reader.need_real(reader.output());
    const FileTensor& w = reader.param("weight", {DType::f32});
    if (w.shape.size() != 4)
      reader.fail("param 'weight' (" + w.name + ") is " + shape_text(w.shape) + ", not 4-dimensional");
    shape_ = read_window(reader, w.shape[1], w.shape[2], true);
    const int64_t expected[] = {shape_.oc, shape_.kh, shape_.kw, shape_.c / shape_.groups};
    reader.need_shape("weight", w, expected);
    weights_ = pack_conv_f32(reader.float_values("weight").data(), shape_);
    if (reader.has_param("bias")) bias_ = reader.floats("bias", shape_.oc);
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
    conv2d_f32(f.data<float>(inputs[0]), f.pitch(inputs[0]), with_batch(shape_, f.batch), weights_,
               f.data<float>(outputs[0]), f.pitch(outputs[0]), e, f.isa, f.threads);
  }

  bool strided_input(size_t) const override { return true; }
  bool strided_output() const override { return true; }

 private:
  Conv2dShape shape_;
  PackedConvF32 weights_;
  std::vector<float> bias_;
  float lo_, hi_;
};

}  // namespace

std::unique_ptr<Op> make_conv2d_i8(OpReader& reader, const Conv2dShape& shape, const ProductWeights& weights) {
  return std::make_unique<Conv2d>(reader, shape, weights);
}

std::unique_ptr<Op> compile_conv2d(OpReader& reader) {
  reader.arity(1, 2);
  const auto count = [](const Conv2dShape& s) { return s.oc * s.kh * s.kw * (s.c / s.groups); };
  if (weight_bits(reader) < 8) {
    const std::vector<int64_t> kernel = reader.attrs().integers("kernel", 2, 1, 4096, 1);
    const Conv2dShape s = read_window(reader, kernel[0], kernel[1], true);
    return make_conv2d_i8(reader, s, int8_weights(reader, count(s)));
  }
  const FileTensor& w = reader.param("weight", {DType::s8, DType::u8});
  if (w.shape.size() != 4)
    reader.fail("param 'weight' (" + w.name + ") is " + shape_text(w.shape) + ", not 4-dimensional");
  const Conv2dShape s = read_window(reader, w.shape[1], w.shape[2], true);
  const int64_t expected[] = {s.oc, s.kh, s.kw, s.c / s.groups};
  reader.need_shape("weight", w, expected);
  return make_conv2d_i8(reader, s, int8_weights(reader, count(s)));
}
std::unique_ptr<Op> compile_conv2d_f32(OpReader& reader) { return std::make_unique<Conv2dF32>(reader); }

}  // namespace lowbit
