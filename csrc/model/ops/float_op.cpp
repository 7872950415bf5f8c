// Operators on float32: activations, arithmetic, softmax.
#include "lowbit/pointwise.h"
#include "model/ops/broadcast.h"

namespace lowbit {
namespace {

struct UnaryKind {
  const char* name;
  Unary op;
  bool alpha, beta;  // which attributes it must have
};
constexpr UnaryKind kUnary[] = {{"relu", Unary::relu, false, false},
                                {"clip", Unary::clip, true, true},
                                {"sigmoid", Unary::sigmoid, false, false},
                                {"hard_sigmoid", Unary::hard_sigmoid, true, true},
                                {"hard_swish", Unary::hard_swish, false, false},
                                {"swish", Unary::swish, false, false},
                                {"leaky_relu", Unary::leaky_relu, true, false},
                                {"tanh", Unary::tanh, false, false},
                                {"exp", Unary::exp, false, false}};

// A per-channel parameter of one element or of c, as c.
std::vector<float> per_channel(std::vector<float> values, int64_t c) {
  if (values.size() == 1) values.resize(static_cast<size_t>(c), values[0]);
  return values;
}

// float32 -> float32 of one shape.
void check_pointwise(OpReader& reader) {
  reader.need_real(reader.input(0));
  reader.need_real(reader.output());
  reader.need_dims(reader.output(), reader.input(0).dims);
}

class UnaryF32 final : public Op {
 public:
  explicit UnaryF32(OpReader& reader) {
    reader.arity(1, 1);
    check_pointwise(reader);
    items_ = reader.output().items;
    const std::string wanted = reader.attrs().text("kind");
    for (const UnaryKind& kind : kUnary) {
      if (wanted != kind.name) continue;
      op_ = kind.op;
      if (kind.alpha && !reader.attrs().has("alpha")) reader.fail("'" + wanted + "' needs 'alpha'");
      if (kind.beta && !reader.attrs().has("beta")) reader.fail("'" + wanted + "' needs 'beta'");
      alpha_ = reader.attrs().number("alpha", 0);
      beta_ = reader.attrs().number("beta", 0);
      if (op_ == Unary::clip && alpha_ > beta_) reader.fail("clips to 'alpha' above 'beta'");
      return;
    }
    reader.fail("'kind' is '" + wanted + "', which is no float32 activation");
  }

  void run(const Frame& f) const override {
    unary_f32(op_, f.data<float>(inputs[0]), f.batch * items_, alpha_, beta_, f.data<float>(outputs[0]), f.isa,
              f.threads);
  }
  bool in_place(size_t) const override { return true; }

 private:
  Unary op_ = Unary::relu;
  float alpha_ = 0, beta_ = 0;
  int64_t items_;
};

class Prelu final : public Op {
 public:
  explicit Prelu(OpReader& reader) {
    reader.arity(1, 1);
    check_pointwise(reader);
    items_ = reader.output().items;
    slope_ = per_channel(reader.floats("slope", reader.output().row(), true), reader.output().row());
  }

  void run(const Frame& f) const override {
    prelu_f32(f.data<float>(inputs[0]), f.batch * items_, slope_.data(), static_cast<int64_t>(slope_.size()),
              f.data<float>(outputs[0]), f.isa, f.threads);
  }
  bool in_place(size_t) const override { return true; }

 private:
  int64_t items_;
  std::vector<float> slope_;
};

class BinaryF32 final : public Op {
 public:
  explicit BinaryF32(OpReader& reader) {
    reader.arity(1, 2);
    check_pointwise(reader);
    const std::string kind = reader.attrs().choice("kind", {"add", "sub", "mul", "div"}, nullptr);
    op_ = kind == "add" ? Binary::add : kind == "sub" ? Binary::sub : kind == "mul" ? Binary::mul : Binary::div;
    reader.float_clamp(lo_, hi_);
    const Activation& a = reader.input(0);
    if (reader.inputs() == 2) {
      reader.need_real(reader.input(1));
      over_ = read_broadcast(reader, a, reader.input(1));
      return;
    }
    read_constant(reader, a);
  }

  void run(const Frame& f) const override {
    const bool two = inputs.size() == 2;
    const float* b = two ? f.data<float>(inputs[1]) : b_.data();
    const int64_t outer = two ? f.batch * over_.outer : 1, repeat = two ? over_.repeat : f.batch * over_.repeat;
    binary_f32(op_, f.data<float>(inputs[0]), b, outer, repeat, over_.inner, lo_, hi_, f.data<float>(outputs[0]), f.isa,
               f.threads);
  }
  bool in_place(size_t i) const override { return i == 0; }

 private:
  // (1), (c), or the shape without batch: repeated over the batch, and over the pixels where it is per channel.
  void read_constant(OpReader& reader, const Activation& a) {
    const FileTensor& b = reader.param("b", {DType::f32});
    const std::span<const int64_t> item(a.dims.begin() + 1, a.dims.end());
    b_ = reader.float_values("b");
    if (!item.empty() && std::equal(b.shape.begin(), b.shape.end(), item.begin(), item.end())) {
      over_ = {1, 1, a.items};
      return;
    }
    b_ = per_channel(reader.floats("b", a.row(), true), a.row());
    over_ = {1, a.rows(), a.row()};
  }

  Binary op_;
  Broadcast over_;
  float lo_, hi_;
  std::vector<float> b_;
};

class Softmax final : public Op {
 public:
  explicit Softmax(OpReader& reader) {
    reader.arity(1, 1);
    check_pointwise(reader);
    rows_ = reader.output().rows();
    n_ = reader.output().row();
  }

  void run(const Frame& f) const override {
    softmax_f32(f.data<float>(inputs[0]), f.batch * rows_, n_, f.data<float>(outputs[0]), f.isa, f.threads);
  }

 private:
  int64_t rows_, n_;
};

}  // namespace

std::unique_ptr<Op> compile_unary(OpReader& reader) { return std::make_unique<UnaryF32>(reader); }
std::unique_ptr<Op> compile_prelu(OpReader& reader) { return std::make_unique<Prelu>(reader); }
std::unique_ptr<Op> compile_binary(OpReader& reader) { return std::make_unique<BinaryF32>(reader); }
std::unique_ptr<Op> compile_softmax(OpReader& reader) { return std::make_unique<Softmax>(reader); }

}  // namespace lowbit
