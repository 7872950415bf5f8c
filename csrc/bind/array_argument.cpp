#include "array_argument.h"

namespace lowbit {

Shape shape_of(const py::array& a) { return {a.shape(), a.shape() + a.ndim()}; }

std::string text(const Shape& shape) {
  std::string s = "(";
  for (size_t i = 0; i < shape.size(); ++i) s += (i ? ", " : "") + std::to_string(shape[i]);
  return s + (shape.size() == 1 ? ",)" : ")");
}

std::string dtype_text(const py::array& a) { return py::str(a.dtype()).cast<std::string>(); }

py::dtype numpy_dtype(DType t) {
  switch (t) {
    case DType::f32:
      return py::dtype::of<float>();
    case DType::s8:
      return py::dtype::of<int8_t>();
    case DType::u8:
      return py::dtype::of<uint8_t>();
    case DType::s32:
      return py::dtype::of<int32_t>();
  }
  throw py::value_error("unknown dtype " + std::to_string(static_cast<int>(t)));
}

std::optional<DType> array_dtype(const py::array& a) {
  const py::dtype dtype = a.dtype();
  if (dtype.byteorder() != '=' && dtype.byteorder() != '|') return std::nullopt;  // not this machine's
  const int num = dtype.num();
  if (num == py::detail::npy_api::NPY_INT8_) return DType::s8;
  if (num == py::detail::npy_api::NPY_UINT8_) return DType::u8;
  if (num == py::detail::npy_api::NPY_FLOAT_) return DType::f32;
  if (num == py::detail::npy_api::NPY_INT32_) return DType::s32;
  return std::nullopt;
}

DType code_dtype(const char* function, const char* name, const py::array& a) {
  const auto t = array_dtype(a);
  if (t == DType::s8 || t == DType::u8) return *t;
  throw py::type_error(std::string(function) + ": " + name + " is " + dtype_text(a) + ", must be int8 or uint8");
}

void need_dtype(const char* function, const char* name, const py::array& a, DType dtype) {
  if (array_dtype(a) == dtype) return;
  throw py::type_error(std::string(function) + ": " + name + " is " + dtype_text(a) + ", must be " + dtype_name(dtype));
}

void need_rank(const char* function, const char* name, const py::array& a, py::ssize_t rank) {
  if (a.ndim() == rank) return;
  throw py::value_error(std::string(function) + ": " + name + " has " + std::to_string(a.ndim()) + " axes, must have " +
                        std::to_string(rank));
}

void need_shape(const char* function, const char* name, const py::array& a, const Shape& output) {
  if (shape_of(a) == output) return;
  throw py::value_error(std::string(function) + ": " + name + " is " + text(shape_of(a)) + ", the output is " +
                        text(output));
}

py::array output_array(const char* function, const py::object& out, DType dtype, const Shape& shape) {
  if (out.is_none()) return py::array(numpy_dtype(dtype), shape);
  const std::string name = std::string(function) + ": out ";
  if (!py::isinstance<py::array>(out)) throw py::type_error(name + "must be a NumPy array");
  py::array a = py::reinterpret_borrow<py::array>(out);
  if (array_dtype(a) != dtype)
    throw py::type_error(name + "is " + dtype_text(a) + ", the result is " + dtype_name(dtype));
  if (shape_of(a) != shape) throw py::value_error(name + "is " + text(shape_of(a)) + ", the result is " + text(shape));
  if (!(a.flags() & py::array::c_style)) throw py::value_error(name + "must be in C order");
  if (!a.writeable()) throw py::value_error(name + "is read-only");
  return a;
}

py::array dense(const py::array& a) {
  if (a.flags() & py::array::c_style) return a;
  return py::array::ensure(a, py::array::c_style);
}

}  // namespace lowbit
