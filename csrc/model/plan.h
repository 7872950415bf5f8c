// The plan of a .lowbit file (docs/format.md, "The plan"): activations and operators, checked but not yet compiled.
#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "lowbit/dtype.h"
#include "lowbit/pointwise.h"
#include "model/container.h"

namespace lowbit {

// What a tensor's elements are: float32; codes with a scale; raw bytes; codes whose scale is found at run time; +-1;
// codes of a few bits, which mean what the operator that reads them says.
enum class Content : uint8_t { real, codes, raw, dynamic, bits, planes };

// An activation. int8 codes are held as uint8 with 128 added to codes and zero point: the kernels' zero-copy form. Bits
// are held as words of 32 (lowbit/xnor.h), each row of the last axis padded to whole words, and read as int8 +-1. A row
// of planes is as many such rows, one behind the other, and is read as uint8.
struct Activation {
  std::string name;
  DType dtype = DType::f32;  // as the plan says
  Content content = Content::real;
  std::vector<int64_t> dims;  // dims[0] = -1, the batch
  float scale = 1.0f;
  int32_t zero_point = 0;  // as the plan says
  int64_t planes = 1;      // of Content::planes
  int64_t items = 1;       // elements of one batch item

  bool is_bits() const { return content == Content::bits; }
  bool is_planes() const { return content == Content::planes; }
  bool is_packed() const { return is_bits() || is_planes(); }  // words
  DType held_dtype() const { return is_packed() ? DType::s32 : dtype == DType::f32 ? DType::f32 : DType::u8; }
  int32_t held_offset() const { return dtype == DType::s8 ? 128 : 0; }
  Codes held() const { return {DType::u8, zero_point + held_offset(), scale}; }
  int64_t item_bytes() const { return rows() * held_row() * static_cast<int64_t>(dtype_size(held_dtype())); }
  int64_t row() const { return dims.size() > 1 ? dims.back() : 1; }  // the last axis
  int64_t plane_words() const { return (row() + 31) / 32; }
  int64_t held_row() const { return is_packed() ? planes * plane_words() : row(); }  // in elements as held
  int64_t rows() const { return items / row(); }                                     // per batch item
  std::string text() const;                                                          // "int8 (-1, 4, 4, 8)"
};

struct PlanOp {
  std::string kind, name;
  std::vector<int> inputs, outputs;
  nlohmann::json attrs;
  std::map<std::string, std::string> params;  // role -> file tensor
};

struct Plan {
  std::vector<Activation> tensors;
  std::vector<int> inputs, outputs;
  std::vector<PlanOp> ops;
};

// References, order, shapes and quantisation parameters are checked; operators' own attributes are not. Throws
// FormatError.
Plan parse_plan(const Container& file);

}  // namespace lowbit
