// What an operator's compiler sees: its tensors, attributes and parameters, each checked as it is asked for.
#pragma once

#include <initializer_list>
#include <limits>
#include <memory>
#include <set>

#include "lowbit/gemm_i8.h"
#include "model/op.h"
#include "model/plan.h"
#include "model/strict_json.h"

namespace lowbit {

class OpReader {
 public:
  OpReader(const Plan& plan, const Container& file, const PlanOp& op);

  const PlanOp& op() const { return op_; }
  Fields& attrs() { return attrs_; }
  [[noreturn]] void fail(const std::string& message) const { attrs_.fail(message); }

  // Number of inputs in [least, most]; one output, or up to most_outputs.
  void arity(size_t least, size_t most, size_t most_outputs = 1);
  size_t inputs() const { return op_.inputs.size(); }
  const Activation& input(size_t i) const;
  size_t outputs() const { return op_.outputs.size(); }
  const Activation& output(size_t i = 0) const;

  // Each fails, naming the tensor, unless it holds.
  void need_codes(const Activation& t) const;  // codes with a scale
  void need_bits(const Activation& t) const;
  void need_planes(const Activation& t) const;
  void need_real(const Activation& t) const;  // float32
  void need_rank(const Activation& t, size_t rank) const;
  void need_dims(const Activation& t, std::span<const int64_t> dims) const;
  void need_same_values(const Activation& a,
                        const Activation& b) const;  // dtype, scale and zero point; no bits, no planes

  bool has_param(const char* role) const { return op_.params.contains(role); }
  const FileTensor& param(const char* role, std::initializer_list<DType> dtypes);
  void need_shape(const char* role, const FileTensor& t, std::span<const int64_t> shape) const;
  // A one-dimensional parameter of `size` elements, or of one where `or_one`; all finite where they are float32.
  std::vector<float> floats(const char* role, int64_t size, bool or_one = false);
  std::vector<int32_t> ints(const char* role, int64_t size);
  // A uint8 parameter of `count` packed codes of `bits` bits (codebook.h), one per byte.
  std::vector<uint8_t> packed(const char* role, int64_t count, int bits);
  // All of a float32 parameter, of any shape; finite.
  std::vector<float> float_values(const char* role);
  // A comparison's `threshold` (1) or (size), as (size); infinite perhaps, but no NaN. Empty where there is none.
  std::vector<float> float_thresholds(int64_t size);
  // Its `flip` (size) of 0 and 1. Empty where there is none.
  std::vector<uint8_t> flips(int64_t size);

  // The clamp of code outputs in held codes: attributes lo and hi.
  void code_clamp(int32_t& lo, int32_t& hi);
  // The clamp of float outputs: attributes min and max.
  void float_clamp(float& lo, float& hi);
  // Attribute rounding.
  Rounding rounding();
  // a / b, which must come out finite and > 0 in float32.
  float ratio(double a, double b) const;

  // Every attribute and parameter has been asked for.
  void done() const;

 private:
  const Plan& plan_;
  const Container& file_;
  const PlanOp& op_;
  Fields attrs_;
  std::set<std::string> asked_;
};

// One per operator; fills everything but kind, name, inputs and outputs. Throws FormatError.
using CompileOp = std::unique_ptr<Op> (*)(OpReader& reader);

std::unique_ptr<Op> compile_op(const Plan& plan, const Container& file, const PlanOp& op);

}  // namespace lowbit
