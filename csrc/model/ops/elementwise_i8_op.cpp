// add and mul of codes, and look-up tables.
#include <cstring>

#include "lowbit/pointwise.h"
#include "model/ops/broadcast.h"

namespace lowbit {
namespace {

class Add final : public Op {
 public:
  explicit Add(OpReader& reader) {
    reader.arity(2, 2);
    const Activation &a = reader.input(0), &b = reader.input(1), &y = reader.output();
    for (const Activation* t : {&a, &b, &y}) {
      reader.need_codes(*t);
      reader.need_dims(*t, y.dims);
    }
    a_ = a.held();
    b_ = b.held();
    y_ = y.held();
    reader.ratio(a.scale, y.scale);
    reader.ratio(b.scale, y.scale);
    reader.code_clamp(lo_, hi_);
    rounding_ = reader.rounding();
    items_ = y.items;
  }

  void run(const Frame& f) const override {
    add_i8(f.data(inputs[0]), a_, f.data(inputs[1]), b_, f.batch * items_, f.data(outputs[0]), y_, lo_, hi_, rounding_,
           f.isa, f.threads);
  }
  bool in_place(size_t) const override { return true; }

 private:
  Codes a_, b_, y_;
  int32_t lo_, hi_;
  Rounding rounding_;
  int64_t items_;
};

class Mul final : public Op {
 public:
  explicit Mul(OpReader& reader) {
    reader.arity(2, 2);
    const Activation &a = reader.input(0), &b = reader.input(1), &y = reader.output();
    for (const Activation* t : {&a, &b, &y}) reader.need_codes(*t);
    reader.need_dims(y, a.dims);
    over_ = read_broadcast(reader, a, b);
    a_ = a.held();
    b_ = b.held();
    y_ = y.held();
    reader.ratio(double(a.scale * b.scale), y.scale);
    reader.code_clamp(lo_, hi_);
    rounding_ = reader.rounding();
  }

  void run(const Frame& f) const override {
    mul_i8(f.data(inputs[0]), a_, f.data(inputs[1]), b_, f.batch * over_.outer, over_.repeat, over_.inner,
           f.data(outputs[0]), y_, lo_, hi_, rounding_, f.isa, f.threads);
  }
  bool in_place(size_t i) const override { return i == 0; }

 private:
  Codes a_, b_, y_;
  Broadcast over_;
  int32_t lo_, hi_;
  Rounding rounding_;
};

// Tables as the engine's codes need them: int8 codes are held with their sign bit flipped, on either side.
class Lookup final : public Op {
 public:
  explicit Lookup(OpReader& reader) {
    reader.arity(1, 1);
    const Activation &x = reader.input(0), &y = reader.output();
    if (x.content != Content::raw) reader.need_codes(x);
    if (y.content != Content::real) reader.need_codes(y);
    reader.need_dims(y, x.dims);
    const FileTensor& t = reader.param("table", {y.dtype});
    const int64_t one[] = {256}, each[] = {x.row(), 256};
    channels_ = t.shape.size() == 1 ? 1 : x.row();
    reader.need_shape("table", t, t.shape.size() == 1 ? std::span<const int64_t>(one) : each);
    float_ = y.dtype == DType::f32;
    if (float_) reader.float_values("table");
    items_ = y.items;

    const size_t size = dtype_size(y.dtype);
    table_.resize(t.bytes.size());
    const size_t flip = x.dtype == DType::s8 ? 0x80 : 0;
    for (size_t i = 0; i < t.bytes.size() / size; ++i) {
      std::memcpy(table_.data() + i * size, t.bytes.data() + (i ^ flip) * size, size);
    }
    if (y.dtype == DType::s8) {
      for (std::byte& b : table_) b ^= std::byte{0x80};
    }
  }

  void run(const Frame& f) const override {
    lookup(f.data<uint8_t>(inputs[0]), f.batch * items_, table_.data(), float_, channels_, f.data(outputs[0]), f.isa,
           f.threads);
  }
  bool in_place(size_t) const override { return !float_; }

 private:
  bool float_;
  int64_t channels_, items_;
  std::vector<std::byte> table_;
};

}  // namespace

std::unique_ptr<Op> compile_add(OpReader& reader) { return std::make_unique<Add>(reader); }
std::unique_ptr<Op> compile_mul(OpReader& reader) { return std::make_unique<Mul>(reader); }
std::unique_ptr<Op> compile_lookup(OpReader& reader) { return std::make_unique<Lookup>(reader); }

}  // namespace lowbit
