// Layers on codes of a few bits: quantize_levels, dequantize_levels, conv2d_bitserial, gemm_bitserial (docs/format.md;
// lowbit/xnor.h has the arithmetic).
#include <cmath>

#include "lowbit/xnor.h"
#include "model/ops/bit_weights.h"
#include "model/ops/window_attrs.h"
#include "thread_pool.h"

namespace lowbit {
namespace {

constexpr int64_t kMaxPlanes = 8;

// `threshold` and `codes` of a planes output.
class LevelParams {
 public:
  LevelParams() = default;
  LevelParams(OpReader& reader, const Activation& y) : bits_(y.planes) {
    reader.need_planes(y);
    if (bits_ > 4) reader.fail("tensor '" + y.name + "' has " + y.text() + "; levels are of 1 to 4 bits");
    const int64_t count = int64_t{1} << bits_;
    threshold_ = reader.floats("threshold", count - 1);
    for (size_t i = 1; i < threshold_.size(); ++i) {
      if (threshold_[i] < threshold_[i - 1]) reader.fail("param 'threshold' must ascend");
    }
    const FileTensor& codes = reader.param("codes", {DType::u8});
    const int64_t all[] = {count};
    reader.need_shape("codes", codes, all);
    for (std::byte code : codes.bytes) {
      codes_.push_back(static_cast<uint8_t>(code));
      if (codes_.back() >= count) reader.fail("param 'codes' holds " + std::to_string(codes_.back()));
    }
  }

  Levels levels() const { return {bits_, threshold_.data(), codes_.data()}; }

 private:
  int64_t bits_ = 0;
  std::vector<float> threshold_;
  std::vector<uint8_t> codes_;
};

class QuantizeLevels final : public Op {
 public:
  explicit QuantizeLevels(OpReader& reader) : levels_(reader, reader.output()) {
    reader.arity(1, 1);
    const Activation &x = reader.input(0), &y = reader.output();
    reader.need_real(x);
    reader.need_dims(y, x.dims);
    rows_ = y.rows();
    row_ = y.row();
    words_ = y.plane_words();
  }

  void run(const Frame& f) const override {
    const int x = inputs[0], y = outputs[0];
    pack_planes(f.data<float>(x), f.batch * rows_, f.pitch(x), row_, levels_.levels(), f.data<uint32_t>(y), words_,
                f.pitch(y), f.isa, f.threads);
  }
  bool strided_input(size_t) const override { return true; }

 private:
  LevelParams levels_;
  int64_t rows_, row_, words_;
};

class DequantizeLevels final : public Op {
 public:
  explicit DequantizeLevels(OpReader& reader) {
    reader.arity(1, 1);
    const Activation &x = reader.input(0), &y = reader.output();
    reader.need_planes(x);
    reader.need_real(y);
    reader.need_dims(y, x.dims);
    const std::vector<float> basis = reader.floats("basis", x.planes);
    for (unsigned code = 0; code < 1u << x.planes; ++code) {
      float level = code & 1 ? basis[0] : 0.0f * basis[0];
      for (size_t q = 1; q < basis.size(); ++q) level = level + basis[q] * static_cast<float>(code >> q & 1);
      level_.push_back(level);
    }
    planes_ = x.planes;
    rows_ = y.rows();
    row_ = y.row();
    words_ = x.plane_words();
  }

  void run(const Frame& f) const override {
    constexpr int64_t kGrain = 1 << 14;  // elements: less is not worth a second thread
    const uint32_t* x = f.data<uint32_t>(inputs[0]);
    float* y = f.data<float>(outputs[0]);
    const int64_t pitch = f.pitch(inputs[0]);
    parallel_for(f.threads, f.batch * rows_, std::max<int64_t>(1, kGrain / row_),
                 [=, this](int64_t begin, int64_t end) {
                   for (int64_t i = begin; i < end; ++i) {
                     for (int64_t j = 0; j < row_; ++j) {
                       unsigned code = 0;
                       for (int64_t q = 0; q < planes_; ++q) {
                         code |= (x[i * pitch + q * words_ + j / 32] >> j % 32 & 1) << q;
                       }
                       y[i * row_ + j] = level_[code];
                     }
                   }
                 });
  }

 private:
  int64_t planes_, rows_, row_, words_;
  std::vector<float> level_;
};

// Everything but geometry: the weights' planes, both bases, what happens to the sums.
class BitserialProduct {
 public:
  // pack(bits of a plane): the plane's weights. dims: of one plane.
  template <typename Pack>
  BitserialProduct(OpReader& reader, std::initializer_list<int64_t> dims, Pack&& pack) {
    reader.arity(1, 2, 2);
    const Activation &x = reader.input(0), &y = reader.output();
    reader.need_planes(x);
    n_ = y.row();
    x_planes_ = x.planes;
    x_words_ = x.plane_words();
    x_basis_ = reader.floats("input_basis", x_planes_);
    const FileTensor& basis = reader.param("weight_basis", {DType::f32});
    if (basis.shape.size() != 2 || basis.shape[0] < 1 || basis.shape[0] > kMaxPlanes || basis.shape[1] != n_) {
      reader.fail("param 'weight_basis' (" + basis.name + ") is " + shape_text(basis.shape) +
                  ", not 1 to 8 planes by " + std::to_string(n_));
    }
    w_basis_ = reader.float_values("weight_basis");
    const BitWeights bits = bit_weights(reader, dims, basis.shape[0]);
    for (int64_t p = 0; p < basis.shape[0]; ++p) weights_.push_back(pack(bits.data + p * bits.bytes));
    if (reader.has_param("bias")) bias_ = reader.floats("bias", n_);
    reader.float_clamp(lo_, hi_);
    residual_ = reader.inputs() > 1;
    if (residual_) {
      reader.need_real(reader.input(1));
      reader.need_dims(reader.input(1), y.dims);
    }
    float_output_ = !y.is_planes();
    if (float_output_) reader.need_real(y);
    const Activation& last = reader.output(reader.outputs() - 1);
    planes_output_ = reader.outputs() == 2 || y.is_planes();
    if (!planes_output_) return;
    if (reader.outputs() == 2 && !float_output_) reader.fail("of two outputs the first is float32, the second planes");
    levels_ = LevelParams(reader, last);
    reader.need_dims(last, y.dims);
    y_words_ = last.plane_words();
  }

  BitPlanes planes(const Frame& f, int x) const {
    return {.bits = f.data<uint32_t>(x), .count = x_planes_, .stride = x_words_, .ld = f.pitch(x), .zero_one = true};
  }
  BitserialEpilogue epilogue(const Frame& f, const std::vector<int>& inputs, const std::vector<int>& outputs) const {
    BitserialEpilogue e;
    if (float_output_) {
      e.y = f.data<float>(outputs[0]);
      e.ldy = f.pitch(outputs[0]);
    }
    e.bias = bias_.empty() ? nullptr : bias_.data();
    if (residual_) {
      e.residual = f.data<float>(inputs[1]);
      e.residual_stride = f.pitch(inputs[1]);
    }
    e.lo = lo_;
    e.hi = hi_;
    if (planes_output_) {
      e.planes = f.data<uint32_t>(outputs.back());
      e.ld_planes = f.pitch(outputs.back());
      e.plane_stride = y_words_;
      e.levels = levels_.levels();
    }
    return e;
  }

  const PackedXnor* weights() const { return weights_.data(); }
  int64_t weight_planes() const { return static_cast<int64_t>(weights_.size()); }
  const float* x_basis() const { return x_basis_.data(); }
  const float* w_basis() const { return w_basis_.data(); }
  bool writes_planes() const { return planes_output_; }
  // Each element of the residual is read just before the output's element in its place is written.
  bool in_place(size_t input) const { return residual_ && float_output_ && input == 1; }
  bool strided_output() const { return !planes_output_; }

 private:
  int64_t n_, x_planes_, x_words_, y_words_ = 0;
  bool residual_, float_output_, planes_output_;
  float lo_ = -INFINITY, hi_ = INFINITY;
  std::vector<float> x_basis_, w_basis_, bias_;
  std::vector<PackedXnor> weights_;
  LevelParams levels_;
};

class BitserialConv2d final : public Op {
 public:
  explicit BitserialConv2d(OpReader& reader)
      : shape_(window(reader)),
        product_(reader, {shape_.oc, shape_.kh, shape_.kw, shape_.c / shape_.groups},
                 [this](const uint8_t* bits) { return pack_xnor(bits, shape_); }) {
    if (product_.writes_planes() && shape_.groups > 1 && shape_.oc / shape_.groups % 32 != 0) {
      reader.fail("planes of groups of " + std::to_string(shape_.oc / shape_.groups) +
                  " output channels: not whole words");
    }
  }

  void run(const Frame& f) const override {
    bitserial_conv2d(product_.planes(f, inputs[0]), with_batch(shape_, f.batch), PadValue::minus_one,
                     product_.weights(), product_.weight_planes(), product_.x_basis(), product_.w_basis(),
                     product_.epilogue(f, inputs, outputs), f.isa, f.threads);
  }
  bool strided_input(size_t) const override { return true; }
  bool in_place(size_t i) const override { return product_.in_place(i); }
  bool strided_output() const override { return product_.strided_output(); }

 private:
  static Conv2dShape window(OpReader& reader) {
    reader.arity(1, 2, 2);
    reader.need_planes(reader.input(0));
    if (!reader.attrs().has("kernel")) reader.fail("'kernel' is missing");
    const auto kernel = reader.attrs().integers("kernel", 2, 1, 1 << 16, 1);
    return read_window(reader, kernel[0], kernel[1], true);
  }

  Conv2dShape shape_;
  BitserialProduct product_;
};

class BitserialGemm final : public Op {
 public:
  explicit BitserialGemm(OpReader& reader)
      : rows_(checked_rows(reader)),
        product_(reader, {reader.output().row(), reader.input(0).row()},
                 [&](const uint8_t* bits) { return pack_xnor(bits, reader.output().row(), reader.input(0).row()); }) {}

  void run(const Frame& f) const override {
    bitserial_gemm(product_.planes(f, inputs[0]), f.batch * rows_, product_.weights(), product_.weight_planes(),
                   product_.x_basis(), product_.w_basis(), product_.epilogue(f, inputs, outputs), f.isa, f.threads);
  }
  bool strided_input(size_t) const override { return true; }
  bool in_place(size_t i) const override { return product_.in_place(i); }
  bool strided_output() const override { return product_.strided_output(); }

 private:
  static int64_t checked_rows(OpReader& reader) {
    reader.arity(1, 2, 2);
    const Activation &x = reader.input(0), &y = reader.output();
    reader.need_planes(x);
    std::vector<int64_t> expected = x.dims;
    if (y.dims.size() > 1) expected.back() = y.dims.back();
    reader.need_dims(y, expected);
    return x.rows();
  }

  int64_t rows_;  // per batch item
  BitserialProduct product_;
};

}  // namespace

std::unique_ptr<Op> compile_quantize_levels(OpReader& reader) { return std::make_unique<QuantizeLevels>(reader); }
std::unique_ptr<Op> compile_dequantize_levels(OpReader& reader) { return std::make_unique<DequantizeLevels>(reader); }
std::unique_ptr<Op> compile_conv2d_bitserial(OpReader& reader) { return std::make_unique<BitserialConv2d>(reader); }
std::unique_ptr<Op> compile_gemm_bitserial(OpReader& reader) { return std::make_unique<BitserialGemm>(reader); }

}  // namespace lowbit
