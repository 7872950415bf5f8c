#include "epilogue_argument.h"

#include <limits>

namespace lowbit {
namespace {

std::string text(const std::vector<py::ssize_t>& shape) {
  std::string s = "(";
  for (size_t i = 0; i < shape.size(); ++i) s += (i ? ", " : "") + std::to_string(shape[i]);
  return s + (shape.size() == 1 ? ",)" : ")");
}

std::vector<py::ssize_t> shape_of(const py::array& a) { return {a.shape(), a.shape() + a.ndim()}; }

[[noreturn]] void wrong(const char* function, const std::string& what) {
  throw py::value_error(std::string(function) + ": " + what);
}

void check_length(const char* function, const char* name, const py::array& a, int64_t n, bool one_allowed) {
  if (a.size() == n || (one_allowed && a.size() == 1)) return;
  wrong(function,
        std::string(name) + " has " + std::to_string(a.size()) + " values for " + std::to_string(n) + " channels");
}

// int32 from any integers that fit.
py::array_t<int32_t> int32_array(const char* function, const char* name, const py::object& o) {
  const py::array a = py::array::ensure(o);
  if (!a || (a.dtype().kind() != 'i' && a.dtype().kind() != 'u')) {
    throw py::type_error(std::string(function) + ": " + name +
                         " must be integers (float32 where the output is float32)");
  }
  if (a.dtype().num() != py::dtype::of<int32_t>().num()) {
    const auto wide = py::array_t<int64_t, py::array::c_style | py::array::forcecast>::ensure(a);
    for (py::ssize_t i = 0; i < wide.size(); ++i) {
      const int64_t v = wide.data()[i];
      if (v < std::numeric_limits<int32_t>::min() || v > std::numeric_limits<int32_t>::max()) {
        wrong(function,
              std::string(name) + "[" + std::to_string(i) + "] = " + std::to_string(v) + " does not fit int32");
      }
    }
  }
  return py::array_t<int32_t, py::array::c_style | py::array::forcecast>::ensure(a);
}

py::array_t<float> float_array(const char* function, const char* name, const py::object& o) {
  auto a = py::array_t<float, py::array::c_style | py::array::forcecast>::ensure(o);
  if (!a) {
    PyErr_Clear();
    throw py::type_error(std::string(function) + ": " + name + " must be a number or an array of float32");
  }
  return a;
}

}  // namespace

std::optional<DType> array_dtype(const py::array& a) {
  const int num = a.dtype().num();
  if (num == py::detail::npy_api::NPY_INT8_) return DType::s8;
  if (num == py::detail::npy_api::NPY_UINT8_) return DType::u8;
  if (num == py::detail::npy_api::NPY_FLOAT_) return DType::f32;
  if (num == py::detail::npy_api::NPY_INT32_) return DType::s32;
  return std::nullopt;
}

DType code_dtype(const char* function, const char* name, const py::array& a) {
  const auto t = array_dtype(a);
  if (t == DType::s8 || t == DType::u8) return *t;
  throw py::type_error(std::string(function) + ": " + name + " is " + py::str(a.dtype()).cast<std::string>() +
                       ", must be int8 or uint8");
}

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

EpilogueHolder::EpilogueHolder(const char* function, const EpilogueArgument& a, const std::vector<py::ssize_t>& shape) {
  const int64_t n = shape.back();
  e_.out_dtype = static_cast<DType>(a.out_dtype);
  e_.rounding = static_cast<Rounding>(a.rounding);
  e_.zero_point = a.zero_point;
  const bool is_float = e_.out_dtype == DType::f32;
  if (e_.out_dtype == DType::s32) {
    if (!a.scale.is_none()) wrong(function, "scale needs out_dtype float32, int8 or uint8");
    if (!a.clamp.is_none()) wrong(function, "clamp needs out_dtype float32, int8 or uint8");
  } else if (a.scale.is_none() || PyFloat_Check(a.scale.ptr())) {
    if (!a.scale.is_none()) scale_ = static_cast<float>(PyFloat_AS_DOUBLE(a.scale.ptr()));
    e_.scale = &scale_;
    e_.scale_count = 1;
  } else {
    const auto scales = float_array(function, "scale", a.scale);
    check_length(function, "scale", scales, n, true);
    e_.scale = scales.data();
    e_.scale_count = scales.size();
    scale_array_ = scales;
  }
  if (!a.bias.is_none()) {
    if (is_float && py::array::ensure(a.bias).dtype().kind() == 'f') {
      const auto bias = float_array(function, "bias", a.bias);
      check_length(function, "bias", bias, n, false);
      e_.float_bias = bias.data();
      bias_array_ = bias;
    } else {
      const auto bias = int32_array(function, "bias", a.bias);
      check_length(function, "bias", bias, n, false);
      e_.bias = bias.data();
      bias_array_ = bias;
    }
  }
  if (!a.clamp.is_none()) {
    const auto [lo, hi] = a.clamp.cast<std::pair<double, double>>();
    if (is_float) {
      e_.flo = static_cast<float>(lo);
      e_.fhi = static_cast<float>(hi);
    } else {
      e_.lo = static_cast<int32_t>(std::max(lo, -1e9));
      e_.hi = static_cast<int32_t>(std::min(hi, 1e9));
    }
  }
  if (!a.residual.is_none()) {
    const py::array residual = dense(py::array::ensure(a.residual));
    if (shape_of(residual) != shape) {
      wrong(function, "residual is " + text(shape_of(residual)) + ", the output is " + text(shape));
    }
    const auto t = array_dtype(residual);
    if (!t)
      throw py::type_error(std::string(function) + ": residual is " + py::str(residual.dtype()).cast<std::string>());
    e_.residual = residual.data();
    e_.residual_dtype = *t;
    e_.residual_stride = n;
    e_.residual_zero_point = a.residual_zero_point;
    e_.residual_scale = a.residual_scale.is_none() ? 1.0f : a.residual_scale.cast<float>();
    residual_array_ = residual;
  }
}

py::array output_array(const char* function, const py::object& out, DType dtype,
                       const std::vector<py::ssize_t>& shape) {
  if (out.is_none()) return py::array(numpy_dtype(dtype), shape);
  if (!py::isinstance<py::array>(out)) throw py::type_error(std::string(function) + ": out must be a NumPy array");
  py::array a = py::reinterpret_borrow<py::array>(out);
  if (array_dtype(a) != dtype) {
    throw py::type_error(std::string(function) + ": out is " + py::str(a.dtype()).cast<std::string>() +
                         ", the result is " + dtype_name(dtype));
  }
  if (shape_of(a) != shape) wrong(function, "out is " + text(shape_of(a)) + ", the result is " + text(shape));
  if (!(a.flags() & py::array::c_style)) wrong(function, "out must be in C order");
  if (!a.writeable()) wrong(function, "out is read-only");
  return a;
}

py::array dense(const py::array& a) {
  if (a.flags() & py::array::c_style) return a;
  return py::array::ensure(a, py::array::c_style);
}

}  // namespace lowbit
