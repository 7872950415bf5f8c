#include "lowbit/pointwise.h"
#include "model/op_reader.h"

namespace lowbit {
namespace {

class Resize final : public Op {
 public:
  explicit Resize(OpReader& reader) {
    reader.arity(1, 1);
    const Activation &x = reader.input(0), &y = reader.output();
    reader.need_rank(x, 4);
    reader.need_rank(y, 4);
    if (x.row() != y.row() || x.dtype != y.dtype) reader.fail("resizing keeps channels and dtype");
    h_ = x.dims[1];
    w_ = x.dims[2];
    c_ = x.dims[3];
    dtype_ = x.held_dtype();
    linear_ = reader.attrs().choice("mode", {"nearest", "linear"}, nullptr) == "linear";
    if (!linear_) {
      reader.need_same_values(x, y);
      if (x.content == Content::dynamic) reader.fail("takes no dynamic codes");
      rows_ = indices(reader, "rows", y.dims[1], h_);
      cols_ = indices(reader, "cols", y.dims[2], w_);
      return;
    }
    if (x.content != Content::real) {
      reader.need_codes(x);
      reader.need_codes(y);
      reader.ratio(x.scale, y.scale);
    }
    x_ = x.held();
    y_ = y.held();
    rows_ = indices(reader, "rows0", y.dims[1], h_);
    rows1_ = indices(reader, "rows1", y.dims[1], h_);
    cols_ = indices(reader, "cols0", y.dims[2], w_);
    cols1_ = indices(reader, "cols1", y.dims[2], w_);
    row_weight_ = weights(reader, "row_weight", y.dims[1]);
    col_weight_ = weights(reader, "col_weight", y.dims[2]);
  }

  void run(const Frame& f) const override {
    const void* x = f.data(inputs[0]);
    void* y = f.data(outputs[0]);
    const int64_t out_h = static_cast<int64_t>(rows_.size()), out_w = static_cast<int64_t>(cols_.size());
    if (!linear_) {
      resize_nearest(x, dtype_, f.batch, h_, w_, c_, rows_.data(), out_h, cols_.data(), out_w, y, f.isa, f.threads);
      return;
    }
    const LinearTaps rows{rows_.data(), rows1_.data(), row_weight_.data(), out_h};
    const LinearTaps cols{cols_.data(), cols1_.data(), col_weight_.data(), out_w};
    if (dtype_ == DType::f32) {
      resize_bilinear_f32(static_cast<const float*>(x), f.batch, h_, w_, c_, rows, cols, static_cast<float*>(y), f.isa,
                          f.threads);
    } else {
      resize_bilinear_i8(x, x_, f.batch, h_, w_, c_, rows, cols, y, y_, f.isa, f.threads);
    }
  }

 private:
  static std::vector<int32_t> indices(OpReader& reader, const char* role, int64_t out, int64_t size) {
    std::vector<int32_t> values = reader.ints(role, out);
    for (int32_t v : values) {
      if (v < 0 || v >= size) {
        reader.fail("param '" + std::string(role) + "' holds " + std::to_string(v) + ", not in 0.." +
                    std::to_string(size - 1));
      }
    }
    return values;
  }

  static std::vector<float> weights(OpReader& reader, const char* role, int64_t out) {
    std::vector<float> values = reader.floats(role, out);
    for (float v : values) {
      if (!(v >= 0 && v <= 1))
        reader.fail("param '" + std::string(role) + "' holds " + std::to_string(v) + ", not in 0..1");
    }
    return values;
  }

  bool linear_;
  DType dtype_;
  Codes x_, y_;
  int64_t h_, w_, c_;
  std::vector<int32_t> rows_, rows1_, cols_, cols1_;
  std::vector<float> row_weight_, col_weight_;
};

}  // namespace

std::unique_ptr<Op> compile_resize(OpReader& reader) { return std::make_unique<Resize>(reader); }

}  // namespace lowbit
