#include "model/ops/product_op.h"

#include <algorithm>
#include <cfloat>
#include <cmath>

namespace lowbit {
ProductEpilogue::ProductEpilogue(OpReader& reader, int64_t n, int64_t depth, const ProductWeights& weights)
    : weight_zero_point(weights.zero_point) {
  const Activation& x = reader.input(0);
  const Activation& y = reader.output();
  if (x.content != Content::codes && x.content != Content::dynamic) reader.need_codes(x);
  dynamic_ = x.content == Content::dynamic;
  x_zero_point_ = x.held().zero_point;

  check_sum(reader, depth, weights.bits);

  fixed_.rounding = reader.rounding();
  if (y.content == Content::codes) {
    fixed_.out_dtype = DType::u8;
    fixed_.zero_point = y.held().zero_point;
    y_scale_ = y.scale;
    reader.code_clamp(fixed_.lo, fixed_.hi);
  } else {
    reader.need_real(y);
    fixed_.out_dtype = DType::f32;
    reader.float_clamp(fixed_.flo, fixed_.fhi);
  }
  weight_scale_ = reader.floats("weight_scale", n, true);
  find_multipliers(reader);
  if (reader.has_param("bias")) bias_ = reader.ints("bias", n);
  if (reader.has_param("float_bias")) {
    if (fixed_.out_dtype != DType::f32) reader.fail("'float_bias' is for float32 outputs only");
    float_bias_ = reader.floats("float_bias", n);
  }
  fixed_.scale_count = static_cast<int64_t>(weight_scale_.size());

  if (reader.inputs() < 2) return;
  const Activation& r = reader.input(1);
  reader.need_dims(r, y.dims);
  fixed_.residual_dtype = r.held_dtype();
  if (y.content == Content::codes) {
    reader.need_codes(r);
    fixed_.residual_zero_point = r.held().zero_point;
    fixed_.residual_scale = reader.ratio(r.scale, y.scale);
  } else {
    reader.need_real(r);
  }
}

void ProductEpilogue::find_multipliers(OpReader& reader) {
  for (float s : weight_scale_) {
    if (!(s > 0)) reader.fail("param 'weight_scale' holds " + std::to_string(s) + "; scales are > 0");
    if (!dynamic_) multipliers_.push_back(reader.ratio(double(reader.input(0).scale) * double(s), y_scale_));
  }
}

void ProductEpilogue::check_sum(OpReader& reader, int64_t depth, int bits) const {
  const int64_t x = dynamic_ ? 255 : std::max(x_zero_point_, 255 - x_zero_point_);
  const int64_t half = int64_t{1} << (bits - 1);
  const int64_t w = std::max(weight_zero_point + half, half - 1 - weight_zero_point);
  if (depth > INT32_MAX / (x * w)) {
    reader.fail("a sum of " + std::to_string(depth) + " products of up to " + std::to_string(x) + " x " +
                std::to_string(w) + " can exceed int32");
  }
}

// Powers of two commute with every rounding to float32 that neither overflows nor falls below its normal numbers; the
// fixed-point roundings are other arithmetic.
bool ProductEpilogue::enlarge_sums(int64_t depth, int shift) {
  if (shift == 0 || dynamic_ || fixed_.rounding != Rounding::nearest_even) return false;
  const auto [least, most] = std::minmax_element(multipliers_.begin(), multipliers_.end());
  if (multipliers_.empty() || *most < 1 || *least < 0x1p-100f) return false;
  int64_t reach = 0;  // of a bias
  for (int32_t b : bias_) reach = std::max<int64_t>(reach, std::abs(int64_t{b}));
  const int64_t x = std::max(x_zero_point_, 255 - x_zero_point_);
  if ((reach << shift) + depth * x * 128 > INT32_MAX) return false;
  for (int32_t& b : bias_) b *= 1 << shift;
  for (float& m : multipliers_) m = std::ldexp(m, -shift);
  return true;
}

int64_t ProductEpilogue::scratch_bytes() const {
  return dynamic_ ? static_cast<int64_t>(weight_scale_.size() * sizeof(float)) : 0;
}

Epilogue ProductEpilogue::at(const Frame& frame, const std::vector<int>& inputs) const {
  Epilogue e = fixed_;
  e.scale = multipliers_.data();
  if (dynamic_) {
    float* m = reinterpret_cast<float*>(frame.scratch);
    const double x_scale = frame.dynamic[inputs[0]].scale;
    for (size_t j = 0; j < weight_scale_.size(); ++j) {
      // Tiny inputs may have no float32 multiplier > 0, which the epilogue asks for.
      m[j] = std::max(static_cast<float>(x_scale * double(weight_scale_[j]) / y_scale_), FLT_TRUE_MIN);
    }
    e.scale = m;
  }
  if (!bias_.empty()) e.bias = bias_.data();
  if (!float_bias_.empty()) e.float_bias = float_bias_.data();
  if (inputs.size() > 1) {
    e.residual = frame.data(inputs[1]);
    e.residual_stride = frame.pitch(inputs[1]);
  }
  return e;
}

void check_product_dims(OpReader& reader) {
  const Activation& x = reader.input(0);
  const Activation& y = reader.output();
  if (x.dims.size() < 2) reader.fail("tensor '" + x.name + "' " + x.text() + " has no axis to multiply over");
  std::vector<int64_t> expected = x.dims;
  expected.back() = y.dims.back();
  reader.need_dims(y, expected);
}

int weight_bits(OpReader& reader) {
  return reader.attrs().has("bits") ? static_cast<int>(reader.attrs().integer("bits", 2, 7)) : 8;
}

ProductWeights int8_weights(OpReader& reader, int64_t count) {
  if (const int bits = weight_bits(reader); bits < 8) {
    const std::vector<uint8_t> codes = reader.packed("weight", count, bits);
    ProductWeights out{std::vector<int8_t>(codes.size()), bits, 0};
    const int half = 1 << (bits - 1);
    std::transform(codes.begin(), codes.end(), out.values.begin(),
                   [half](uint8_t c) { return static_cast<int8_t>(c - half); });
    return out;
  }
  const FileTensor& weight = reader.param("weight", {DType::s8, DType::u8});
  const bool is_unsigned = weight.dtype == DType::u8;
  const uint8_t flip = is_unsigned ? 0x80 : 0;
  ProductWeights out{std::vector<int8_t>(weight.bytes.size())};
  std::transform(weight.bytes.begin(), weight.bytes.end(), out.values.begin(),
                 [flip](std::byte b) { return static_cast<int8_t>(static_cast<uint8_t>(b) ^ flip); });
  out.zero_point = static_cast<int32_t>(reader.attrs().integer("weight_zero_point", is_unsigned ? 0 : -128,
                                                               is_unsigned ? 255 : 127, 0)) -
                   (is_unsigned ? 128 : 0);
  return out;
}

}  // namespace lowbit
