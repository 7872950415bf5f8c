#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "lowbit/pointwise.h"
#include "model/op_reader.h"
#include "thread_pool.h"

namespace lowbit {
namespace {

// With nchw_to_nhwc the input is (-1, c, h, w), the output (-1, h, w, c); otherwise they have one shape.
bool read_layout(OpReader& reader) {
  reader.arity(1, 1);
  const Activation& x = reader.input(0);
  reader.need_real(x);
  const bool nchw = reader.attrs().flag("nchw_to_nhwc", false);
  if (!nchw) {
    reader.need_dims(reader.output(), x.dims);
    return false;
  }
  reader.need_rank(x, 4);
  const int64_t expected[] = {-1, x.dims[2], x.dims[3], x.dims[1]};
  reader.need_dims(reader.output(), expected);
  return true;
}

class Quantize : public Op {
 public:
  explicit Quantize(OpReader& reader) : nchw_(read_layout(reader)) {
    const Activation& y = reader.output();
    items_ = y.items;
    channels_ = y.row();
    if (y.content == Content::dynamic) return;
    reader.need_codes(y);
    codes_ = y.held();
    reader.code_clamp(lo_, hi_);
  }

  void run(const Frame& f) const override { quantize_to(f, codes_); }
  bool strided_output() const override { return nchw_; }

 protected:
  void quantize_to(const Frame& f, const Codes& codes) const {
    const float* x = f.data<float>(inputs[0]);
    const int y = outputs[0];
    if (nchw_) {
      quantize_nchw(x, f.batch, channels_, items_ / channels_, codes, f.data(y), f.pitch(y), lo_, hi_, f.isa,
                    f.threads);
    } else {
      quantize(x, f.batch * items_, codes, f.data(y), lo_, hi_, f.isa, f.threads);
    }
  }
  int64_t items_;

 private:
  bool nchw_;
  int64_t channels_;
  Codes codes_;
  int32_t lo_ = 0, hi_ = 255;
};

// Scale and zero point from the run's own range: asymmetric, zero exactly representable.
class QuantizeDynamic final : public Quantize {
 public:
  explicit QuantizeDynamic(OpReader& reader) : Quantize(reader) {
    if (reader.output().content != Content::dynamic)
      reader.fail("the output '" + reader.output().name + "' must be dynamic");
  }

  void run(const Frame& f) const override {
    float lo, hi;
    min_max(f.data<float>(inputs[0]), f.batch * items_, lo, hi, f.isa, f.threads);
    lo = std::min(lo, 0.0f);
    hi = std::max(hi, 0.0f);
    DynamicCodes& found = f.dynamic[outputs[0]];
    found.scale = (hi - lo) / 255.0f;
    if (found.scale == 0.0f) found.scale = 1.0f;
    if (!std::isfinite(found.scale)) {
      throw std::invalid_argument("op '" + name + "': values from " + std::to_string(lo) + " to " + std::to_string(hi) +
                                  " have no finite scale");
    }
    found.zero_point = static_cast<int32_t>(std::nearbyintf(std::clamp(-lo / found.scale, 0.0f, 255.0f)));
    quantize_to(f, {DType::u8, found.zero_point, found.scale});
  }
};

// +1.0 and -1.0.
class DequantizeBits final : public Op {
 public:
  explicit DequantizeBits(OpReader& reader) {
    reader.need_real(reader.output());
    reader.need_dims(reader.output(), reader.input(0).dims);
    rows_ = reader.output().rows();
    row_ = reader.output().row();
  }

  void run(const Frame& f) const override {
    const uint32_t* x = f.data<uint32_t>(inputs[0]);
    float* y = f.data<float>(outputs[0]);
    const int64_t pitch = f.pitch(inputs[0]);
    parallel_for(f.threads, f.batch * rows_, std::max<int64_t>(1, kGrain / row_),
                 [=, this](int64_t begin, int64_t end) {
                   for (int64_t i = begin; i < end; ++i) {
                     for (int64_t j = 0; j < row_; ++j)
                       y[i * row_ + j] = x[i * pitch + j / 32] >> j % 32 & 1 ? 1.0f : -1.0f;
                   }
                 });
  }

 private:
  static constexpr int64_t kGrain = 1 << 14;  // elements: less is not worth a second thread
  int64_t rows_, row_;
};

class Dequantize final : public Op {
 public:
  explicit Dequantize(OpReader& reader) {
    reader.arity(1, 1);
    const Activation& x = reader.input(0);
    if (x.content != Content::dynamic) reader.need_codes(x);
    reader.need_real(reader.output());
    reader.need_dims(reader.output(), x.dims);
    dynamic_ = x.content == Content::dynamic;
    codes_ = x.held();
    items_ = x.items;
  }

  void run(const Frame& f) const override {
    Codes codes = codes_;
    if (dynamic_) codes = {DType::u8, f.dynamic[inputs[0]].zero_point, f.dynamic[inputs[0]].scale};
    dequantize(f.data(inputs[0]), f.batch * items_, codes, f.data<float>(outputs[0]), f.isa, f.threads);
  }

 private:
  bool dynamic_;
  Codes codes_;
  int64_t items_;
};

}  // namespace

std::unique_ptr<Op> compile_quantize(OpReader& reader) {
  auto op = std::make_unique<Quantize>(reader);
  reader.need_codes(reader.output());
  return op;
}
std::unique_ptr<Op> compile_quantize_dynamic(OpReader& reader) { return std::make_unique<QuantizeDynamic>(reader); }
std::unique_ptr<Op> compile_dequantize(OpReader& reader) {
  reader.arity(1, 1);
  if (reader.input(0).is_bits()) return std::make_unique<DequantizeBits>(reader);
  return std::make_unique<Dequantize>(reader);
}

}  // namespace lowbit
