// A compiled operator: everything that does not depend on the batch is computed when the model is opened.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "lowbit/isa.h"

namespace lowbit {

// Where a tensor lies: rows of the last axis, `pitch` elements apart (the axis itself, or more inside a concatenation).
struct Place {
  std::byte* data = nullptr;
  int64_t pitch = 0;
};

// Scale and zero point of a dynamic tensor, found by quantize_dynamic.
struct DynamicCodes {
  float scale = 1.0f;
  int32_t zero_point = 0;
};

// What a run of one batch gives to its operators.
struct Frame {
  int64_t batch = 0;
  Isa isa = Isa::scalar;
  int threads = 1;
  const Place* places = nullptr;    // per tensor
  DynamicCodes* dynamic = nullptr;  // per tensor
  std::byte* scratch = nullptr;     // scratch_bytes(batch) of the running op, 64-byte aligned

  template <typename T = void>
  T* data(int tensor) const {
    return reinterpret_cast<T*>(places[tensor].data);
  }
  int64_t pitch(int tensor) const { return places[tensor].pitch; }
};

class Op {
 public:
  virtual ~Op() = default;
  virtual void run(const Frame& frame) const = 0;

  // What the memory planner may do.
  virtual bool strided_input(size_t) const { return false; }  // reads any pitch
  virtual bool strided_output() const { return false; }       // writes any pitch
  virtual bool in_place(size_t) const { return false; }       // output 0 may be this input's memory
  virtual bool alias() const { return false; }                // output 0 is input 0's bytes; nothing to run
  virtual int concat_axis() const { return 0; }               // > 0: inputs may be written where they end up
  virtual int64_t scratch_bytes(int64_t /*batch*/) const { return 0; }

  std::string kind, name;
  std::vector<int> inputs, outputs;
};

}  // namespace lowbit
