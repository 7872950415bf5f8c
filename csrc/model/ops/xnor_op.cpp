// Layers on bits: binarize, xnor_conv2d, xnor_gemm (docs/format.md; lowbit/xnor.h has the arithmetic).
#include "lowbit/xnor.h"

#include <algorithm>
#include <cmath>

#include "model/ops/bit_weights.h"
#include "model/ops/window_attrs.h"

namespace lowbit {
namespace {

template <typename T>
const T* or_null(const std::vector<T>& v) {
  return v.empty() ? nullptr : v.data();
}

class Binarize final : public Op {
 public:
  explicit Binarize(OpReader& reader) {
    reader.arity(1, 1);
    const Activation &x = reader.input(0), &y = reader.output();
    reader.need_bits(y);
    reader.need_dims(y, x.dims);
    if (x.content == Content::dynamic || x.is_packed())
      reader.fail("takes float32, codes or raw bytes, not " + x.text());
    dtype_ = x.held_dtype();
    rows_ = y.rows();
    row_ = y.row();
    threshold_ = reader.float_thresholds(row_);
    flip_ = reader.flips(row_);
    if (dtype_ == DType::f32) return;
    if (threshold_.empty()) {
      if (x.content == Content::raw) reader.fail("raw bytes need a 'threshold'");
      threshold_.assign(static_cast<size_t>(row_), static_cast<float>(x.zero_point));
    }
    // Codes are whole numbers: x >= t <=> x >= ceil(t). Held codes are so much greater.
    for (float& t : threshold_) t = std::clamp(std::ceil(t), -512.0f, 512.0f) + static_cast<float>(x.held_offset());
  }

  void run(const Frame& f) const override {
    const int x = inputs[0], y = outputs[0];
    pack_bits(f.data(x), dtype_, f.batch * rows_, f.pitch(x), row_, or_null(threshold_), or_null(flip_),
              f.data<uint32_t>(y), f.pitch(y), f.isa, f.threads);
  }
  bool strided_input(size_t) const override { return true; }

 private:
  DType dtype_;
  int64_t rows_, row_;
  std::vector<float> threshold_;
  std::vector<uint8_t> flip_;
};

// What happens to the sums: everything behind the product, read and checked once.
class BitsEpilogue {
 public:
  // Outputs are float32, bits, or both in this order.
  explicit BitsEpilogue(OpReader& reader) {
    const Activation& y = reader.output();
    n_ = y.row();
    const bool two = reader.outputs() == 2;
    float_output_ = !y.is_bits();
    bits_output_ = two || y.is_bits();
    if (float_output_) reader.need_real(y);
    if (two) {
      if (!float_output_) reader.fail("of two outputs the first is float32, the second bits");
      reader.need_bits(reader.output(1));
      reader.need_dims(reader.output(1), y.dims);
    }
    if (bits_output_) flip_ = reader.flips(n_);
    if (!float_output_ && reader.has_param("threshold") &&
        reader.param("threshold", {DType::s32, DType::f32}).dtype == DType::s32) {
      dot_threshold_ = reader.ints("threshold", n_);
      if (reader.inputs() > 1) reader.fail("whole thresholds compare the sums alone: one input");
      return;
    }
    if (bits_output_) threshold_ = reader.float_thresholds(n_);
    if (reader.has_param("scale")) {
      scale_ = reader.floats("scale", n_, true);
      if (scale_.size() == 1) scale_.assign(static_cast<size_t>(n_), scale_[0]);
    }
    if (reader.has_param("bias")) bias_ = reader.floats("bias", n_);
    reader.float_clamp(lo_, hi_);
    read_inputs(reader);
  }

  XnorEpilogue at(const Frame& f, const std::vector<int>& inputs, const std::vector<int>& outputs) const {
    XnorEpilogue e;
    e.scale = or_null(scale_);
    e.bias = or_null(bias_);
    e.lo = lo_;
    e.hi = hi_;
    if (residual_) {
      e.residual = f.data<float>(inputs[1]);
      e.residual_stride = f.pitch(inputs[1]);
    }
    if (map_) e.input_scale = f.data<float>(inputs.back());
    if (bits_output_) {
      e.bits = f.data<uint32_t>(outputs.back());
      e.ld_bits = f.pitch(outputs.back());
      e.dot_threshold = or_null(dot_threshold_);
      e.threshold = or_null(threshold_);
      e.flip = or_null(flip_);
    }
    return e;
  }

  // y of the float32 output, null where there is none.
  float* float_data(const Frame& f, const std::vector<int>& outputs) const {
    return float_output_ ? f.data<float>(outputs[0]) : nullptr;
  }
  int64_t float_pitch(const Frame& f, const std::vector<int>& outputs) const {
    return float_output_ ? f.pitch(outputs[0]) : n_;
  }
  // Each element of the residual is read just before the output's element in its place is written.
  bool in_place(size_t input) const { return residual_ && float_output_ && input == 1; }
  bool takes_pitch(size_t input) const { return !(map_ && input == (residual_ ? 2u : 1u)); }

 private:
  void read_inputs(OpReader& reader) {
    map_ = reader.attrs().flag("input_scale", false);
    const size_t most = map_ ? 3 : 2;
    reader.arity(map_ ? 2 : 1, most, 2);
    residual_ = reader.inputs() == most;
    const std::vector<int64_t>& dims = reader.output().dims;
    if (residual_) {
      reader.need_real(reader.input(1));
      reader.need_dims(reader.input(1), dims);
    }
    if (map_) {
      const Activation& map = reader.input(reader.inputs() - 1);
      reader.need_real(map);
      std::vector<int64_t> expected = dims;
      expected.back() = 1;
      reader.need_dims(map, expected);
    }
  }

  int64_t n_;
  bool float_output_, bits_output_, residual_ = false, map_ = false;
  float lo_ = -INFINITY, hi_ = INFINITY;
  std::vector<float> scale_, bias_, threshold_;
  std::vector<int32_t> dot_threshold_;
  std::vector<uint8_t> flip_;
};

class XnorConv2d final : public Op {
 public:
  explicit XnorConv2d(OpReader& reader) : shape_(window(reader)), epilogue_(reader) {
    pad_value_ = static_cast<PadValue>(reader.attrs().integer("pad_value", -1, 1, 0));
    weights_ = pack_xnor(bit_weights(reader, {shape_.oc, shape_.kh, shape_.kw, shape_.c / shape_.groups}).data, shape_);
  }

  void run(const Frame& f) const override {
    xnor_conv2d(f.data<uint32_t>(inputs[0]), f.pitch(inputs[0]), with_batch(shape_, f.batch), weights_, pad_value_,
                epilogue_.float_data(f, outputs), epilogue_.float_pitch(f, outputs), epilogue_.at(f, inputs, outputs),
                f.isa, f.threads);
  }
  bool strided_input(size_t i) const override { return epilogue_.takes_pitch(i); }
  bool in_place(size_t i) const override { return epilogue_.in_place(i); }
  bool strided_output() const override { return true; }

 private:
  static Conv2dShape window(OpReader& reader) {
    reader.arity(1, 3, 2);
    reader.need_bits(reader.input(0));
    if (!reader.attrs().has("kernel")) reader.fail("'kernel' is missing");
    const auto kernel = reader.attrs().integers("kernel", 2, 1, 1 << 16, 1);
    return read_window(reader, kernel[0], kernel[1], true);
  }

  Conv2dShape shape_;
  BitsEpilogue epilogue_;
  PadValue pad_value_;
  PackedXnor weights_;
};

class XnorGemm final : public Op {
 public:
  explicit XnorGemm(OpReader& reader) : rows_(checked_rows(reader)), epilogue_(reader) {
    const int64_t n = reader.output().row(), k = reader.input(0).row();
    weights_ = pack_xnor(bit_weights(reader, {n, k}).data, n, k);
  }

  void run(const Frame& f) const override {
    xnor_gemm(f.data<uint32_t>(inputs[0]), f.batch * rows_, f.pitch(inputs[0]), weights_,
              epilogue_.float_data(f, outputs), epilogue_.float_pitch(f, outputs), epilogue_.at(f, inputs, outputs),
              f.isa, f.threads);
  }
  bool strided_input(size_t i) const override { return epilogue_.takes_pitch(i); }
  bool in_place(size_t i) const override { return epilogue_.in_place(i); }
  bool strided_output() const override { return true; }

 private:
  static int64_t checked_rows(OpReader& reader) {
    reader.arity(1, 3, 2);
    const Activation &x = reader.input(0), &y = reader.output();
    reader.need_bits(x);
    std::vector<int64_t> expected = x.dims;
    if (y.dims.size() > 1) expected.back() = y.dims.back();
    reader.need_dims(y, expected);
    return x.rows();
  }

  int64_t rows_;  // per batch item
  BitsEpilogue epilogue_;
  PackedXnor weights_;
};

}  // namespace

std::unique_ptr<Op> compile_binarize(OpReader& reader) { return std::make_unique<Binarize>(reader); }
std::unique_ptr<Op> compile_xnor_conv2d(OpReader& reader) { return std::make_unique<XnorConv2d>(reader); }
std::unique_ptr<Op> compile_xnor_gemm(OpReader& reader) { return std::make_unique<XnorGemm>(reader); }

}  // namespace lowbit
