#include "epilogue_argument.h"

#include <limits>

namespace lowbit {
namespace {

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

EpilogueHolder::EpilogueHolder(const char* function, const EpilogueArgument& a, const Shape& shape) {
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
    need_shape(function, "residual", residual, shape);
    const auto t = array_dtype(residual);
    if (!t) throw py::type_error(std::string(function) + ": residual is " + dtype_text(residual));
    e_.residual = residual.data();
    e_.residual_dtype = *t;
    e_.residual_stride = n;
    e_.residual_zero_point = a.residual_zero_point;
    e_.residual_scale = a.residual_scale.is_none() ? 1.0f : a.residual_scale.cast<float>();
    residual_array_ = residual;
  }
}

}  // namespace lowbit
