#include "lowbit/pointwise.h"
#include "lowbit/xnor.h"
#include "model/ops/window_attrs.h"

namespace lowbit {
namespace {

class MaxPool final : public Op {
 public:
  explicit MaxPool(OpReader& reader) {
    reader.arity(1, 1);
    reader.need_same_values(reader.input(0), reader.output());
    shape_ = read_pool_window(reader, true);
    dtype_ = reader.output().held_dtype();
    dynamic_ = reader.output().content == Content::dynamic;
  }

  void run(const Frame& f) const override {
    const int x = inputs[0], y = outputs[0];
    if (dynamic_) f.dynamic[y] = f.dynamic[x];
    max_pool(f.data(x), dtype_, f.pitch(x), with_batch(shape_, f.batch), f.data(y), f.pitch(y), f.isa, f.threads);
  }
  bool strided_input(size_t) const override { return true; }
  bool strided_output() const override { return true; }

 private:
  Conv2dShape shape_;
  DType dtype_;
  bool dynamic_;
};

// The maximum of +-1 is an OR; channels that are to be negated are so afterwards.
class MaxPoolBits final : public Op {
 public:
  explicit MaxPoolBits(OpReader& reader) {
    reader.arity(1, 1);
    reader.need_bits(reader.output());
    shape_ = read_pool_window(reader, true);
    const std::vector<uint8_t> flips = reader.flips(shape_.c);
    if (!flips.empty()) flip_.resize(static_cast<size_t>(bit_words(shape_.c)));
    for (size_t j = 0; j < flips.size(); ++j) flip_[j / 32] |= uint32_t{flips[j]} << j % 32;
  }

  void run(const Frame& f) const override {
    const int x = inputs[0], y = outputs[0];
    const Conv2dShape shape = with_batch(shape_, f.batch);
    uint32_t* to = f.data<uint32_t>(y);
    max_pool_bits(f.data<uint32_t>(x), f.pitch(x), shape, to, f.pitch(y), f.isa, f.threads);
    if (flip_.empty()) return;
    for (int64_t i = 0; i < shape.batch * shape.out_h() * shape.out_w(); ++i) {
      for (size_t j = 0; j < flip_.size(); ++j) to[i * f.pitch(y) + static_cast<int64_t>(j)] ^= flip_[j];
    }
  }

 private:
  Conv2dShape shape_;
  std::vector<uint32_t> flip_;
};

class AveragePool final : public Op {
 public:
  explicit AveragePool(OpReader& reader) {
    reader.arity(1, 1);
    const Activation &x = reader.input(0), &y = reader.output();
    real_ = x.content == Content::real;
    if (real_) {
      reader.need_real(y);
    } else {
      reader.need_codes(x);
      reader.need_codes(y);
      reader.ratio(x.scale, y.scale);
      x_ = x.held();
      y_ = y.held();
    }
    shape_ = read_pool_window(reader, false);
    include_pad_ = reader.attrs().flag("count_include_pad", false);
    if (!real_) rounding_ = reader.rounding();
  }

  void run(const Frame& f) const override {
    const int x = inputs[0], y = outputs[0];
    const Conv2dShape shape = with_batch(shape_, f.batch);
    if (real_) {
      average_pool_f32(f.data<float>(x), f.pitch(x), shape, include_pad_, f.data<float>(y), f.pitch(y), f.isa,
                       f.threads);
    } else {
      average_pool_i8(f.data(x), x_, f.pitch(x), shape, include_pad_, f.data(y), y_, f.pitch(y), rounding_, f.isa,
                      f.threads);
    }
  }
  bool strided_input(size_t) const override { return true; }
  bool strided_output() const override { return true; }

 private:
  bool real_, include_pad_;
  Codes x_, y_;
  Rounding rounding_ = Rounding::nearest_even;
  Conv2dShape shape_;
};

}  // namespace

std::unique_ptr<Op> compile_max_pool(OpReader& reader) {
  reader.arity(1, 1);
  if (reader.input(0).is_bits()) return std::make_unique<MaxPoolBits>(reader);
  return std::make_unique<MaxPool>(reader);
}
std::unique_ptr<Op> compile_average_pool(OpReader& reader) { return std::make_unique<AveragePool>(reader); }

}  // namespace lowbit
