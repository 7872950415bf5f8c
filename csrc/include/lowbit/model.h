// Whole networks: open a .lowbit file, run it. No Python, no framework. docs/format.md is the file's contract.
//
//   auto model = lowbit::Model::open("net.lowbit");     // checks everything before the first byte is trusted
//   lowbit::Session session(model, {.threads = 2});
//   session.run(input, output);                         // one input, one output, float32
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lowbit/dtype.h"
#include "lowbit/export.h"
#include "lowbit/isa.h"

namespace lowbit {

struct TensorInfo {
  std::string name;
  DType dtype = DType::f32;
  std::vector<int64_t> shape;  // leading -1: the batch
};

// A borrowed, dense, row-major array. As an input its shape's batch may be any number >= 0.
struct TensorView {
  std::string_view name;
  DType dtype = DType::f32;
  std::span<const int64_t> shape;
  void* data = nullptr;  // not written through for inputs
};

// An immutable network, its weights tiled for the kernels; cheap to copy, shared by any number of sessions and threads.
class LOWBIT_API Model {
 public:
  // Throws FormatError naming what and where for anything wrong in the file, std::runtime_error where it cannot be
  // read.
  static Model open(const std::string& path);
  static Model from_bytes(std::span<const std::byte> bytes);  // copies what it keeps

  const std::vector<TensorInfo>& inputs() const;
  const std::vector<TensorInfo>& outputs() const;
  const std::vector<TensorInfo>& tensors() const;  // every activation of the plan, in its order
  const std::string& plan() const;                 // JSON text
  const std::string& manifest() const;             // JSON text

  struct Data;
  std::shared_ptr<const Data> data;
};

struct SessionOptions {
  int threads = 0;  // 0: the default, num_threads()
  Isa isa = best_isa();
  bool keep_tensors = false;  // no memory reuse, so that tensor() can be read after a run
  bool profile = false;       // measure each op
};

// Working memory of one run at a time; sessions are independent of each other. Memory is planned at the first run of a
// batch size; later runs of that size allocate nothing.
class LOWBIT_API Session {
 public:
  explicit Session(const Model& model, const SessionOptions& options = {});
  ~Session();
  Session(Session&&) noexcept;
  Session& operator=(Session&&) noexcept;

  // One float32 input, one float32 output. The batch is input.size() / elements per item.
  void run(std::span<const float> input, std::span<float> output);
  // One uint8 input (a net with raw images), one float32 output.
  void run(std::span<const uint8_t> input, std::span<float> output);
  // By name, in any order; every input and output once. Throws std::invalid_argument naming the tensor and both shapes,
  // or where an output's memory overlaps another tensor's.
  void run(std::span<const TensorView> inputs, std::span<const TensorView> outputs);

  // After a run with keep_tensors: plan tensor `index` as float32 (dequantised), in the plan's layout; shape with the
  // batch.
  std::vector<float> tensor(int index, std::vector<int64_t>& shape) const;
  // The same as raw codes (or floats), dense.
  std::vector<std::byte> tensor_bytes(int index) const;
  // After a run with profile: milliseconds of each op of the last run, in plan order.
  std::vector<double> op_ms() const;
  // Bytes of activation memory for a batch, after planning.
  int64_t memory_bytes(int64_t batch) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace lowbit
