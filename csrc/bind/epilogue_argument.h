// The epilogue's arguments, as every 8-bit kernel takes them from Python.
#pragma once

#include "bind.h"
#include "lowbit/requantize.h"

namespace lowbit {

// The element type of an array, or nothing for one that no kernel takes.
std::optional<DType> array_dtype(const py::array& a);
// Throws TypeError unless a is int8 or uint8.
DType code_dtype(const char* function, const char* name, const py::array& a);
// An array object for Python's own type; throws ValueError for an unknown number.
py::dtype numpy_dtype(DType t);

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
  EpilogueHolder(const char* function, const EpilogueArgument& argument, const std::vector<py::ssize_t>& shape);
  const Epilogue& get() const { return e_; }

 private:
  Epilogue e_;
  float scale_ = 1.0f;
  py::object scale_array_, bias_array_, residual_array_;
};

// `out` checked against shape and dtype (C order, writable), or a new array where it is None.
py::array output_array(const char* function, const py::object& out, DType dtype, const std::vector<py::ssize_t>& shape);

// a with its last axis contiguous and every other axis as in C order (a copy where it is not).
py::array dense(const py::array& a);

}  // namespace lowbit
