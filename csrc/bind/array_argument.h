// Arrays as the doors take them from Python: dtype, rank and shape checked, in errors that name function and argument.
#pragma once

#include <vector>

#include "bind.h"
#include "lowbit/requantize.h"

namespace lowbit {

using Shape = std::vector<py::ssize_t>;

Shape shape_of(const py::array& a);
std::string text(const Shape& shape);                  // "(2, 3)"
std::string dtype_text(const py::array& a);            // "float64"
py::dtype numpy_dtype(DType t);                        // throws ValueError for an unknown number
std::optional<DType> array_dtype(const py::array& a);  // nothing for one that no kernel takes, other byte orders too

// Throw TypeError.
DType code_dtype(const char* function, const char* name, const py::array& a);  // int8 or uint8
void need_dtype(const char* function, const char* name, const py::array& a, DType dtype);
// Throw ValueError.
void need_rank(const char* function, const char* name, const py::array& a, py::ssize_t rank);
void need_shape(const char* function, const char* name, const py::array& a, const Shape& output);

// `out` checked against shape and dtype (C order, writable), or a new array where it is None.
py::array output_array(const char* function, const py::object& out, DType dtype, const Shape& shape);

// a in C order (a copy where it is not).
py::array dense(const py::array& a);

}  // namespace lowbit
