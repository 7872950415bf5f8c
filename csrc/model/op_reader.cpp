#include "model/op_reader.h"

#include <cmath>
#include <cstring>
#include <stdexcept>

#include "lowbit/codebook.h"
#include "lowbit/error.h"
#include "model/ops/ops.h"

namespace lowbit {
namespace {

template <typename T>
std::vector<T> copied(const FileTensor& t) {
  std::vector<T> out(t.bytes.size() / sizeof(T));
  if (!out.empty()) std::memcpy(out.data(), t.bytes.data(), t.bytes.size());
  return out;
}

}  // namespace

OpReader::OpReader(const Plan& plan, const Container& file, const PlanOp& op)
    : plan_(plan), file_(file), op_(op), attrs_(op.attrs, "op '" + op.name + "' (" + op.kind + ")") {}

void OpReader::arity(size_t least, size_t most, size_t most_outputs) {
  if (op_.inputs.size() < least || op_.inputs.size() > most || op_.outputs.empty() ||
      op_.outputs.size() > most_outputs) {
    fail("has " + std::to_string(op_.inputs.size()) + " inputs and " + std::to_string(op_.outputs.size()) +
         " outputs, not " + std::to_string(least) + (most > least ? " to " + std::to_string(most) : "") + " and 1" +
         (most_outputs > 1 ? " to " + std::to_string(most_outputs) : ""));
  }
}

const Activation& OpReader::input(size_t i) const { return plan_.tensors[static_cast<size_t>(op_.inputs.at(i))]; }
const Activation& OpReader::output(size_t i) const { return plan_.tensors[static_cast<size_t>(op_.outputs.at(i))]; }

void OpReader::need_codes(const Activation& t) const {
  if (t.content != Content::codes) fail("tensor '" + t.name + "' must be codes with a scale, not " + t.text());
}

void OpReader::need_real(const Activation& t) const {
  if (t.content != Content::real) fail("tensor '" + t.name + "' must be float32, not " + t.text());
}

void OpReader::need_bits(const Activation& t) const {
  if (!t.is_bits()) fail("tensor '" + t.name + "' must be bits, not " + t.text());
}

void OpReader::need_planes(const Activation& t) const {
  if (!t.is_planes()) fail("tensor '" + t.name + "' must be planes, not " + t.text());
}

void OpReader::need_rank(const Activation& t, size_t rank) const {
  if (t.dims.size() != rank)
    fail("tensor '" + t.name + "' " + t.text() + " must have " + std::to_string(rank) + " dimensions");
}

void OpReader::need_dims(const Activation& t, std::span<const int64_t> dims) const {
  if (!std::equal(t.dims.begin(), t.dims.end(), dims.begin(), dims.end())) {
    fail("tensor '" + t.name + "' is " + shape_text(t.dims) + ", but must be " + shape_text(dims));
  }
}

void OpReader::need_same_values(const Activation& a, const Activation& b) const {
  if (a.is_packed()) fail("tensor '" + a.name + "' is " + a.text() + ", which this operator does not take");
  if (a.dtype != b.dtype || a.content != b.content || a.scale != b.scale || a.zero_point != b.zero_point) {
    fail("tensors '" + a.name + "' and '" + b.name + "' must have the same dtype, scale and zero point");
  }
}

const FileTensor& OpReader::param(const char* role, std::initializer_list<DType> dtypes) {
  asked_.insert(role);
  const auto it = op_.params.find(role);
  if (it == op_.params.end()) fail("param '" + std::string(role) + "' is missing");
  const FileTensor& t = file_.tensors.find(it->second)->second;
  std::string names;
  for (DType d : dtypes) {
    if (t.dtype == d) return t;
    names += std::string(names.empty() ? "" : " or ") + dtype_name(d);
  }
  fail("param '" + std::string(role) + "' (" + t.name + ") is " + dtype_name(t.dtype) + ", not " + names);
}

void OpReader::need_shape(const char* role, const FileTensor& t, std::span<const int64_t> shape) const {
  if (!std::equal(t.shape.begin(), t.shape.end(), shape.begin(), shape.end())) {
    fail("param '" + std::string(role) + "' (" + t.name + ") is " + shape_text(t.shape) + ", not " + shape_text(shape));
  }
}

std::vector<float> OpReader::floats(const char* role, int64_t size, bool or_one) {
  const FileTensor& t = param(role, {DType::f32});
  const int64_t one[] = {1}, all[] = {size};
  const bool single = or_one && t.shape.size() == 1 && t.shape[0] == 1;
  need_shape(role, t, single ? one : all);
  return float_values(role);
}

std::vector<float> OpReader::float_values(const char* role) {
  const FileTensor& t = param(role, {DType::f32});
  std::vector<float> values = copied<float>(t);
  for (size_t i = 0; i < values.size(); ++i) {
    if (!std::isfinite(values[i]))
      fail("param '" + std::string(role) + "' (" + t.name + ")[" + std::to_string(i) + "] is not finite");
  }
  return values;
}

std::vector<float> OpReader::float_thresholds(int64_t size) {
  if (!has_param("threshold")) return {};
  const FileTensor& t = param("threshold", {DType::f32});
  const int64_t all[] = {size}, one[] = {1};
  const bool single = t.shape.size() == 1 && t.shape[0] == 1;
  need_shape("threshold", t, single ? one : all);
  std::vector<float> values = copied<float>(t);
  for (size_t i = 0; i < values.size(); ++i) {
    if (std::isnan(values[i])) fail("param 'threshold' (" + t.name + ")[" + std::to_string(i) + "] is NaN");
  }
  if (single) values.assign(static_cast<size_t>(size), values[0]);
  return values;
}

std::vector<uint8_t> OpReader::flips(int64_t size) {
  if (!has_param("flip")) return {};
  const FileTensor& t = param("flip", {DType::u8});
  const int64_t all[] = {size};
  need_shape("flip", t, all);
  std::vector<uint8_t> values = copied<uint8_t>(t);
  for (size_t i = 0; i < values.size(); ++i) {
    if (values[i] > 1) {
      fail("param 'flip' (" + t.name + ")[" + std::to_string(i) + "] is " + std::to_string(values[i]) +
           ", neither 0 nor 1");
    }
  }
  return values;
}

std::vector<int32_t> OpReader::ints(const char* role, int64_t size) {
  const FileTensor& t = param(role, {DType::s32});
  const int64_t all[] = {size};
  need_shape(role, t, all);
  return copied<int32_t>(t);
}

std::vector<uint8_t> OpReader::packed(const char* role, int64_t count, int bits) {
  const FileTensor& t = param(role, {DType::u8});
  const std::string where = "param '" + std::string(role) + "' (" + t.name + ")";
  if (t.shape.size() != 1) fail(where + " is " + shape_text(t.shape) + ", not one-dimensional");
  const int64_t size = index_bytes(count, bits);
  if (t.shape[0] != size) {
    fail(where + " has " + std::to_string(t.shape[0]) + " bytes, not " + std::to_string(size) + " for " +
         std::to_string(count) + " symbols of " + std::to_string(bits) + " bits");
  }
  const auto* bytes = reinterpret_cast<const uint8_t*>(t.bytes.data());
  if (const int64_t used = count * bits % 8; used != 0 && bytes[size - 1] >> used != 0) {
    fail(where + " has bits set behind the last code");
  }
  std::vector<uint8_t> codes(static_cast<size_t>(count));
  unpack_indices(bytes, count, bits, codes.data());
  return codes;
}

void OpReader::code_clamp(int32_t& lo, int32_t& hi) {
  const Activation& y = output();
  const int32_t least = y.dtype == DType::s8 ? -128 : 0, most = least + 255;
  lo = static_cast<int32_t>(attrs_.integer("lo", least, most, least)) + y.held_offset();
  hi = static_cast<int32_t>(attrs_.integer("hi", least, most, most)) + y.held_offset();
  if (lo > hi) fail("'lo' is above 'hi'");
}

void OpReader::float_clamp(float& lo, float& hi) {
  lo = attrs_.number("min", -std::numeric_limits<float>::infinity());
  hi = attrs_.number("max", std::numeric_limits<float>::infinity());
  if (lo > hi) fail("'min' is above 'max'");
}

Rounding OpReader::rounding() {
  const std::string name = attrs_.choice("rounding", {"nearest_even", "gemmlowp", "single"}, "nearest_even");
  return name == "gemmlowp" ? Rounding::gemmlowp : name == "single" ? Rounding::single : Rounding::nearest_even;
}

float OpReader::ratio(double a, double b) const {
  const float r = static_cast<float>(a / b);
  if (!(std::isfinite(r) && r > 0))
    fail("the multiplier " + std::to_string(a) + " / " + std::to_string(b) + " has no float32 > 0");
  return r;
}

void OpReader::done() const {
  attrs_.done();
  for (const auto& [role, name] : op_.params) {
    if (!asked_.contains(role)) fail("unknown param '" + role + "'");
  }
}

std::unique_ptr<Op> compile_op(const Plan& plan, const Container& file, const PlanOp& op) {
  OpReader reader(plan, file, op);
  try {
    for (const auto& [kind, compile] : kOps) {
      if (op.kind != kind) continue;
      std::unique_ptr<Op> compiled = compile(reader);
      reader.done();
      compiled->kind = op.kind;
      compiled->name = op.name;
      compiled->inputs = op.inputs;
      compiled->outputs = op.outputs;
      return compiled;
    }
  } catch (const std::invalid_argument& e) {
    reader.fail(e.what());  // a door refused what the checks above it let through
  }
  reader.fail("unknown operator");
}

}  // namespace lowbit
