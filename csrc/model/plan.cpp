#include "model/plan.h"

#include <cmath>
#include <cstring>
#include <set>

#include "lowbit/error.h"
#include "model/strict_json.h"

namespace lowbit {
namespace {

constexpr size_t kMaxCount = 1 << 16;  // tensors, ops
constexpr int64_t kMaxDim = int64_t{1} << 31;
constexpr int64_t kMaxItems = int64_t{1} << 31;  // elements of one batch item

std::vector<float> activation_scales(const Container& file) {
  const auto it = file.tensors.find("activation_scales");
  if (it == file.tensors.end()) return {};
  const FileTensor& t = it->second;
  if (t.dtype != DType::f32 || t.shape.size() != 1) {
    throw FormatError("activation_scales: must be one-dimensional F32, not " + std::string(dtype_name(t.dtype)) + " " +
                      shape_text(t.shape));
  }
  std::vector<float> scales(t.bytes.size() / sizeof(float));
  if (!scales.empty()) std::memcpy(scales.data(), t.bytes.data(), t.bytes.size());
  for (size_t i = 0; i < scales.size(); ++i) {
    if (!(std::isfinite(scales[i]) && scales[i] > 0)) {
      throw FormatError("activation_scales: entry " + std::to_string(i) + " is " + std::to_string(scales[i]) +
                        "; scales are finite and > 0");
    }
  }
  return scales;
}

Activation read_activation(const Json& entry, size_t index, const std::vector<float>& scales) {
  Fields fields(entry, "plan: tensor " + std::to_string(index));
  Activation t;
  t.name = fields.text("name");
  fields = Fields(entry, "plan: tensor " + std::to_string(index) + " '" + t.name + "'");
  fields.has("name");
  const std::string dtype = fields.choice("dtype", {"float32", "int8", "uint8", "bits", "planes"}, nullptr);
  t.dtype = dtype == "float32" ? DType::f32 : dtype == "uint8" || dtype == "planes" ? DType::u8 : DType::s8;
  t.dims = fields.integers("shape", -1, kMaxDim);
  if (t.dims.empty() || t.dims.size() > 8 || t.dims[0] != -1) {
    fields.fail("shape " + shape_text(t.dims) + " must have 1 to 8 dimensions, the first -1 (the batch)");
  }
  for (size_t i = 1; i < t.dims.size(); ++i) {
    if (t.dims[i] < 1) fields.fail("shape " + shape_text(t.dims) + ": dimensions after the batch are >= 1");
    if (t.items > kMaxItems / t.dims[i]) fields.fail("shape " + shape_text(t.dims) + " is too large");
    t.items *= t.dims[i];
  }
  const bool dynamic = fields.flag("dynamic", false);
  if (dtype == "bits" || dtype == "planes") {
    if (fields.has("scale") || fields.has("zero_point") || dynamic) fields.fail(dtype + " have no scale");
    if (t.dims.size() < 2) fields.fail(dtype + " need an axis behind the batch");
    t.content = dtype == "bits" ? Content::bits : Content::planes;
    if (t.is_planes()) {
      if (!fields.has("bits")) fields.fail("planes say how many: 'bits' is missing");
      t.planes = fields.integer("bits", 1, 8);
    }
  } else if (fields.has("scale")) {
    if (t.dtype == DType::f32 || dynamic) fields.fail("only code tensors have a 'scale', and no dynamic ones");
    if (scales.empty()) fields.fail("has a 'scale', but the file has no activation_scales");
    t.scale = scales[static_cast<size_t>(fields.integer("scale", 0, static_cast<int64_t>(scales.size()) - 1))];
    const bool is_signed = t.dtype == DType::s8;
    t.zero_point = static_cast<int32_t>(fields.integer("zero_point", is_signed ? -128 : 0, is_signed ? 127 : 255));
    t.content = Content::codes;
  } else if (dynamic) {
    if (t.dtype != DType::u8) fields.fail("only uint8 tensors may be dynamic");
    t.content = Content::dynamic;
  } else if (t.dtype == DType::u8) {
    t.content = Content::raw;
  } else if (t.dtype == DType::s8) {
    fields.fail("int8 codes need a 'scale'");
  }
  fields.text("source", "");
  fields.choice("layout", {"NHWC"}, "NHWC");
  fields.done();
  return t;
}

std::vector<int> read_indices(Fields& fields, const char* key, size_t count) {
  std::vector<int> out;
  for (int64_t i : fields.integers(key, 0, static_cast<int64_t>(count) - 1)) out.push_back(static_cast<int>(i));
  return out;
}

PlanOp read_op(const Json& entry, size_t index, size_t tensor_count, const Container& file) {
  Fields fields(entry, "plan: op " + std::to_string(index));
  PlanOp op;
  op.kind = fields.text("op");
  op.name = fields.text("name");
  op.inputs = read_indices(fields, "inputs", tensor_count);
  op.outputs = read_indices(fields, "outputs", tensor_count);
  const std::string where = "op '" + op.name + "' (" + op.kind + ")";
  op.attrs = fields.has("attrs") ? fields.get("attrs") : Json::object();
  if (!op.attrs.is_object()) throw FormatError(where + ": 'attrs' must be an object");
  if (fields.has("params")) {
    const Json& params = fields.get("params");
    Fields roles(params, where + ": params");
    for (const auto& [role, name] : params.items()) {
      op.params[role] = roles.text(role.c_str());
      if (!file.tensors.contains(op.params[role])) {
        throw FormatError(where + ": '" + role + "' is the tensor '" + op.params[role] + "', which is not in the file");
      }
    }
  }
  fields.done();
  return op;
}

// Every tensor written once and before it is read; inputs by nobody; outputs written.
void check_order(const Plan& plan) {
  std::vector<char> written(plan.tensors.size(), 0);
  const auto name = [&](int t) { return "tensor '" + plan.tensors[static_cast<size_t>(t)].name + "'"; };
  const auto check_content = [&](int t, const char* what) {
    const Content content = plan.tensors[static_cast<size_t>(t)].content;
    if (content == Content::dynamic || content == Content::bits || content == Content::planes) {
      throw FormatError("plan: " + std::string(what) + name(t) + " cannot be dynamic, bits or planes");
    }
  };
  std::set<std::string> seen;
  for (int t : plan.inputs) {
    if (std::exchange(written[static_cast<size_t>(t)], 1))
      throw FormatError("plan: input " + name(t) + " is listed twice");
    if (!seen.insert(plan.tensors[static_cast<size_t>(t)].name).second) {
      throw FormatError("plan: two inputs are named '" + plan.tensors[static_cast<size_t>(t)].name + "'");
    }
    check_content(t, "input ");
  }
  seen.clear();
  for (const PlanOp& op : plan.ops) {
    const std::string where = "op '" + op.name + "' (" + op.kind + ")";
    if (!seen.insert(op.name).second) throw FormatError("plan: two ops are named '" + op.name + "'");
    for (int t : op.inputs) {
      if (!written[static_cast<size_t>(t)]) throw FormatError(where + ": reads " + name(t) + " before it is written");
    }
    for (int t : op.outputs) {
      if (std::exchange(written[static_cast<size_t>(t)], 1))
        throw FormatError(where + ": " + name(t) + " is written twice");
    }
  }
  seen.clear();
  for (size_t t = 0; t < plan.tensors.size(); ++t) {
    if (!written[t]) throw FormatError("plan: " + name(static_cast<int>(t)) + " is never written");
  }
  for (int t : plan.outputs) {
    if (!seen.insert(plan.tensors[static_cast<size_t>(t)].name).second) {
      throw FormatError("plan: two outputs are named '" + plan.tensors[static_cast<size_t>(t)].name + "'");
    }
    check_content(t, "output ");
  }
}

}  // namespace

std::string Activation::text() const {
  const std::string kind = is_bits() ? "bits" : is_planes() ? std::to_string(planes) + " planes" : dtype_name(dtype);
  return kind + " " + shape_text(dims);
}

Plan parse_plan(const Container& file) {
  const Json root = parse_json(file.plan, "plan");
  Fields fields(root, "plan");
  const int64_t version = fields.integer("version", 1, INT32_MAX);
  if (version != 1) fields.fail("version " + std::to_string(version) + "; this lowbit reads version 1");
  const std::vector<float> scales = activation_scales(file);

  Plan plan;
  const Json& tensors = fields.get("tensors");
  const Json& ops = fields.get("ops");
  if (!tensors.is_array() || !ops.is_array()) fields.fail("'tensors' and 'ops' must be lists");
  if (tensors.size() > kMaxCount || ops.size() > kMaxCount) fields.fail("more than 65536 tensors or ops");
  for (const Json& entry : tensors) plan.tensors.push_back(read_activation(entry, plan.tensors.size(), scales));
  plan.inputs = read_indices(fields, "inputs", plan.tensors.size());
  plan.outputs = read_indices(fields, "outputs", plan.tensors.size());
  if (plan.inputs.empty() || plan.outputs.empty()) fields.fail("a network has at least one input and one output");
  for (const Json& entry : ops) plan.ops.push_back(read_op(entry, plan.ops.size(), plan.tensors.size(), file));
  fields.done();
  check_order(plan);
  return plan;
}

}  // namespace lowbit
