// Layers on codes of a few bits: quantize_levels, dequantize_levels, conv2d_bitserial, gemm_bitserial (docs/format.md;
// lowbit/xnor.h has the arithmetic).
#include <algorithm>
#include <cmath>

#include "lowbit/gemm_f32.h"
#include "lowbit/xnor.h"
#include "model/ops/bit_weights.h"
#include "model/ops/window_attrs.h"

namespace lowbit {
namespace {

constexpr int64_t kMaxPlanes = 8;
constexpr int64_t kFloatsAtOnce = 1 << 18;  // levels and sums: 1 MB, of the L2 cache

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
    const int x = inputs[0], y = outputs[0];
    const BitPlanes codes{.bits = f.data<uint32_t>(x), .count = planes_, .stride = words_, .ld = f.pitch(x)};
    unpack_levels(codes, f.batch * rows_, row_, level_.data(), f.data<float>(y), f.pitch(y), f.isa, f.threads);
  }

 private:
  int64_t planes_, rows_, row_, words_;
  std::vector<float> level_;
};

// Everything but geometry: the weights, both bases, what happens to the sums. Products of planes where they pay, else
// one product in float32 of levels and of weights decoded when the model is opened.
class BitserialProduct {
 public:
  // dims: of one plane, outputs first. on_planes(bits of a plane) packs one; in_float(weights) all of them.
  template <typename OnPlanes, typename InFloat>
  BitserialProduct(OpReader& reader, std::initializer_list<int64_t> dims, OnPlanes&& on_planes, InFloat&& in_float) {
    reader.arity(1, 2, 2);
    const Activation &x = reader.input(0), &y = reader.output();
    reader.need_planes(x);
    n_ = y.row();
    y_rows_ = y.rows();
    x_rows_ = x.rows();
    x_row_ = x.row();
    x_planes_ = x.planes;
    x_words_ = x.plane_words();
    x_basis_ = reader.floats("input_basis", x_planes_);
    const FileTensor& basis = reader.param("weight_basis", {DType::f32});
    if (basis.shape.size() != 2 || basis.shape[0] < 1 || basis.shape[0] > kMaxPlanes || basis.shape[1] != n_) {
      reader.fail("param 'weight_basis' (" + basis.name + ") is " + shape_text(basis.shape) +
                  ", not 1 to 8 planes by " + std::to_string(n_));
    }
    w_basis_ = reader.float_values("weight_basis");
    const int64_t w_planes = basis.shape[0];
    const BitWeights bits = bit_weights(reader, dims, w_planes);
    int64_t k = 1;
    for (const int64_t* d = dims.begin() + 1; d != dims.end(); ++d) k *= *d;
    in_float_ = !bitserial_pays(x_planes_ * w_planes, y_rows_, n_, k);
    if (in_float_) {
      in_float(decoded(bits, w_planes, k).data());
      find_levels();
    } else {
      for (int64_t p = 0; p < w_planes; ++p) weights_.push_back(on_planes(bits.data + p * bits.bytes));
    }
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

  bool in_float() const { return in_float_; }

  BitPlanes planes(const Frame& f, int x, int64_t first = 0) const {
    const uint32_t* bits = f.data<uint32_t>(x) + first * x_rows_ * f.pitch(x);
    return {.bits = bits, .count = x_planes_, .stride = x_words_, .ld = f.pitch(x), .zero_one = true};
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

  // A few batch items at a time: codes to levels, multiply(levels, items, y, ldy, epilogue), sums to codes.
  template <typename Multiply>
  void run_in_float(const Frame& f, const std::vector<int>& inputs, const std::vector<int>& outputs,
                    Multiply&& multiply) const {
    const BitserialEpilogue all = epilogue(f, inputs, outputs);
    const int64_t most = items_at_once(f.batch);
    float* x = reinterpret_cast<float*>(f.scratch);
    float* own_y = x + most * x_rows_ * x_row_;
    for (int64_t first = 0; first < f.batch; first += most) {
      const int64_t items = std::min(most, f.batch - first), row = first * y_rows_;
      unpack_levels(planes(f, inputs[0], first), items * x_rows_, x_row_, level_.data(), x, x_row_, f.isa, f.threads);
      EpilogueF32 e{.bias = all.bias, .residual_stride = all.residual_stride, .lo = all.lo, .hi = all.hi};
      if (all.residual) e.residual = all.residual + row * all.residual_stride;
      float* y = all.y ? all.y + row * all.ldy : own_y;
      const int64_t ldy = all.y ? all.ldy : n_;
      multiply(x, items, y, ldy, e);
      if (!all.planes) continue;
      pack_planes(y, items * y_rows_, ldy, n_, all.levels, all.planes + row * all.ld_planes, all.plane_stride,
                  all.ld_planes, f.isa, f.threads);
    }
  }
  int64_t scratch_bytes(int64_t batch) const {
    return in_float_ ? items_at_once(batch) * item_floats() * static_cast<int64_t>(sizeof(float)) : 0;
  }

  const PackedXnor* weights() const { return weights_.data(); }
  int64_t weight_planes() const { return static_cast<int64_t>(weights_.size()); }
  const float* x_basis() const { return x_basis_.data(); }
  const float* w_basis() const { return w_basis_.data(); }
  bool writes_planes() const { return planes_output_; }
  // Each element of the residual is read just before the output's element in its place is written.
  bool in_place(size_t input) const { return !in_float_ && residual_ && float_output_ && input == 1; }
  bool strided_output() const { return !planes_output_; }

 private:
  // sum_p basis[p, o] * w[p, o, i], rounded once.
  std::vector<float> decoded(const BitWeights& bits, int64_t w_planes, int64_t k) const {
    std::vector<float> out(static_cast<size_t>(n_ * k));
    for (int64_t i = 0; i < n_ * k; ++i) {
      double sum = 0;
      for (int64_t p = 0; p < w_planes; ++p) {
        const double part = w_basis_[static_cast<size_t>(p * n_ + i / k)];
        sum += bits.data[p * bits.bytes + i / 8] >> i % 8 & 1 ? part : -part;
      }
      out[static_cast<size_t>(i)] = static_cast<float>(sum);
    }
    return out;
  }
  // Of every code, rounded once; code 0, which padding is, is 0.
  void find_levels() {
    for (unsigned code = 0; code < 1u << x_planes_; ++code) {
      double sum = 0;
      for (size_t q = 0; q < x_basis_.size(); ++q) sum += code >> q & 1 ? x_basis_[q] : 0.0;
      level_.push_back(static_cast<float>(sum));
    }
  }
  int64_t item_floats() const { return x_rows_ * x_row_ + (float_output_ ? 0 : y_rows_ * n_); }
  // Not by the number of threads, which may change nothing.
  int64_t items_at_once(int64_t batch) const {
    return std::clamp<int64_t>(kFloatsAtOnce / item_floats(), 1, std::max<int64_t>(batch, 1));
  }

  int64_t n_, y_rows_, x_rows_, x_row_, x_planes_, x_words_, y_words_ = 0;
  bool in_float_, residual_, float_output_, planes_output_;
  float lo_ = -INFINITY, hi_ = INFINITY;
  std::vector<float> x_basis_, w_basis_, bias_, level_;
  std::vector<PackedXnor> weights_;
  LevelParams levels_;
};

class BitserialConv2d final : public Op {
 public:
  explicit BitserialConv2d(OpReader& reader)
      : shape_(window(reader)),
        product_(
            reader, {shape_.oc, shape_.kh, shape_.kw, shape_.c / shape_.groups},
            [this](const uint8_t* bits) { return pack_xnor(bits, shape_); },
            [this](const float* weights) { weights_ = pack_conv_f32(weights, shape_); }) {
    if (product_.writes_planes() && shape_.groups > 1 && shape_.oc / shape_.groups % 32 != 0) {
      reader.fail("planes of groups of " + std::to_string(shape_.oc / shape_.groups) +
                  " output channels: not whole words");
    }
  }

  void run(const Frame& f) const override {
    if (product_.in_float()) {
      product_.run_in_float(f, inputs, outputs,
                            [&](const float* x, int64_t items, float* y, int64_t ldy, const EpilogueF32& e) {
                              conv2d_f32(x, shape_.c, with_batch(shape_, items), weights_, y, ldy, e, f.isa, f.threads);
                            });
      return;
    }
    bitserial_conv2d(product_.planes(f, inputs[0]), with_batch(shape_, f.batch), PadValue::minus_one,
                     product_.weights(), product_.weight_planes(), product_.x_basis(), product_.w_basis(),
                     product_.epilogue(f, inputs, outputs), f.isa, f.threads);
  }
  bool strided_input(size_t) const override { return true; }
  bool in_place(size_t i) const override { return product_.in_place(i); }
  int64_t scratch_bytes(int64_t batch) const override { return product_.scratch_bytes(batch); }
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
  PackedConvF32 weights_;  // in float
  BitserialProduct product_;
};

class BitserialGemm final : public Op {
 public:
  explicit BitserialGemm(OpReader& reader)
      : rows_(checked_rows(reader)),
        product_(
            reader, {reader.output().row(), reader.input(0).row()},
            [&](const uint8_t* bits) { return pack_xnor(bits, reader.output().row(), reader.input(0).row()); },
            [&](const float* weights) {
              const int64_t k = reader.input(0).row();
              weights_ = pack_f32(weights, k, reader.output().row(), 1, k);
            }) {}

  void run(const Frame& f) const override {
    if (product_.in_float()) {
      product_.run_in_float(f, inputs, outputs,
                            [&](const float* x, int64_t items, float* y, int64_t ldy, const EpilogueF32& e) {
                              gemm_f32(x, items * rows_, weights_.k(), weights_, y, ldy, e, f.isa, f.threads);
                            });
      return;
    }
    bitserial_gemm(product_.planes(f, inputs[0]), f.batch * rows_, product_.weights(), product_.weight_planes(),
                   product_.x_basis(), product_.w_basis(), product_.epilogue(f, inputs, outputs), f.isa, f.threads);
  }
  bool strided_input(size_t) const override { return true; }
  bool in_place(size_t i) const override { return product_.in_place(i); }
  int64_t scratch_bytes(int64_t batch) const override { return product_.scratch_bytes(batch); }
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

  int64_t rows_;       // per batch item
  PackedF32 weights_;  // in float
  BitserialProduct product_;
};

}  // namespace

std::unique_ptr<Op> compile_quantize_levels(OpReader& reader) { return std::make_unique<QuantizeLevels>(reader); }
std::unique_ptr<Op> compile_dequantize_levels(OpReader& reader) { return std::make_unique<DequantizeLevels>(reader); }
std::unique_ptr<Op> compile_conv2d_bitserial(OpReader& reader) { return std::make_unique<BitserialConv2d>(reader); }
std::unique_ptr<Op> compile_gemm_bitserial(OpReader& reader) { return std::make_unique<BitserialGemm>(reader); }

}  // namespace lowbit
