// The epilogue's arguments, as every 8-bit kernel takes them from Python.
#pragma once

#include "array_argument.h"

namespace lowbit {

// What Python passes, before the number of channels is known. Missing values are None.
struct EpilogueArgument {
  py::object scale, bias;
  int32_t zero_point;
  int out_dtype, rounding;  // numbers of DType and Rounding
  py::object clamp, residual, residual_scale;
  int32_t residual_zero_point;
};

// An Epilogue and the arrays that it borrows.
class EpilogueHolder {
 public:
  // Of an output of `shape`, channels last. Throws ValueError or TypeError naming `function`.
  EpilogueHolder(const char* function, const EpilogueArgument& argument, const Shape& shape);
  const Epilogue& get() const { return e_; }

 private:
  Epilogue e_;
  float scale_ = 1.0f;
  py::object scale_array_, bias_array_, residual_array_;
};

}  // namespace lowbit
