#include <cerrno>
#include <climits>
#include <cstdio>
#include <cstring>
#include <stdexcept>

#include "lowbit/error.h"
#include "model/model_data.h"
#include "model/op_reader.h"

namespace lowbit {
namespace {

// Read, not mapped: a file cut while it is mapped would kill the process, and every byte is read for its checksum
// anyway.
std::vector<std::byte> read_file(const std::string& path) {
  const auto fail = [&](const char* what) {
    throw std::runtime_error("cannot " + std::string(what) + " '" + path + "': " + std::strerror(errno));
  };
  struct Closer {
    void operator()(std::FILE* f) const { std::fclose(f); }
  };
  const std::unique_ptr<std::FILE, Closer> file(std::fopen(path.c_str(), "rb"));
  if (!file) fail("open");
  if (std::fseek(file.get(), 0, SEEK_END) != 0) fail("read");
  const long size = std::ftell(file.get());
  if (size < 0 || std::fseek(file.get(), 0, SEEK_SET) != 0) fail("read");
  if (size == LONG_MAX) fail("read");  // a folder
  std::vector<std::byte> bytes(static_cast<size_t>(size));
  if (std::fread(bytes.data(), 1, bytes.size(), file.get()) != bytes.size()) fail("read");
  return bytes;
}

TensorInfo info(const Activation& t) { return {t.name, t.dtype, t.dims}; }

}  // namespace

Model Model::from_bytes(std::span<const std::byte> bytes) {
  const Container file = read_container(bytes);
  Plan plan = parse_plan(file);
  auto model = std::make_shared<Data>();
  for (const PlanOp& op : plan.ops) model->ops.push_back(compile_op(plan, file, op));
  for (int t : plan.inputs) model->input_infos.push_back(info(plan.tensors[static_cast<size_t>(t)]));
  for (int t : plan.outputs) model->output_infos.push_back(info(plan.tensors[static_cast<size_t>(t)]));
  for (const Activation& t : plan.tensors) model->tensor_infos.push_back(info(t));
  model->plan = file.plan;
  model->manifest = file.manifest;
  model->tensors = std::move(plan.tensors);
  model->inputs = std::move(plan.inputs);
  model->outputs = std::move(plan.outputs);
  Model out;
  out.data = std::move(model);
  return out;
}

Model Model::open(const std::string& path) {
  const std::vector<std::byte> bytes = read_file(path);
  try {
    return from_bytes(bytes);
  } catch (const FormatError& e) {
    throw FormatError(path + ": " + e.what());
  }
}

const std::vector<TensorInfo>& Model::inputs() const { return data->input_infos; }
const std::vector<TensorInfo>& Model::outputs() const { return data->output_infos; }
const std::vector<TensorInfo>& Model::tensors() const { return data->tensor_infos; }
const std::string& Model::plan() const { return data->plan; }
const std::string& Model::manifest() const { return data->manifest; }

}  // namespace lowbit
