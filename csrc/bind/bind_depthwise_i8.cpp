#include "bind_conv2d_shape.h"
#include "epilogue_argument.h"
#include "lowbit/depthwise_i8.h"

namespace lowbit {
namespace {

constexpr const char* kName = "depthwise_conv2d_i8";

// Packed weights with what their shape was, since arrays carry theirs.
struct DepthwiseWeights {
  PackedDepthwiseI8 packed;
  int64_t kh, kw, c;
};

DepthwiseWeights pack(const py::array& w) {
  constexpr const char* kPack = "pack_depthwise_i8";
  need_rank(kPack, "w", w, 3);
  need_dtype(kPack, "w", w, DType::s8);
  const py::array rows = dense(w);
  DepthwiseWeights out{{}, w.shape(0), w.shape(1), w.shape(2)};
  const auto* data = static_cast<const int8_t*>(rows.data());
  py::gil_scoped_release release;
  out.packed = pack_depthwise_i8(data, {.c = out.c, .oc = out.c, .kh = out.kh, .kw = out.kw, .groups = out.c});
  return out;
}

py::array convolve(const py::array& x, const DepthwiseWeights& w, const Pair& stride, const Padding& padding,
                   const Pair& dilation, int32_t x_zero_point, py::object scale, py::object bias, int32_t zero_point,
                   int out_dtype, int rounding, py::object clamp, py::object residual, py::object residual_scale,
                   int32_t residual_zero_point, py::object out, const std::optional<std::string>& isa,
                   std::optional<int> threads) {
  const Isa level = isa_argument(isa);
  const DType x_dtype = code_dtype(kName, "x", x);
  const Conv2dShape s = conv2d_shape(kName, x, w.c, w.kh, w.kw, stride, padding, dilation, w.c);
  if (s.c != w.c) {
    throw py::value_error(std::string(kName) + ": x has " + std::to_string(s.c) + " channels, w has " +
                          std::to_string(w.c));
  }
  const Shape shape = output_shape(s);
  const py::array pixels = dense(x);
  const EpilogueHolder epilogue(
      kName, {scale, bias, zero_point, out_dtype, rounding, clamp, residual, residual_scale, residual_zero_point},
      shape);
  py::array y = output_array(kName, out, static_cast<DType>(out_dtype), shape);
  const void* from = pixels.data();
  void* to = y.mutable_data();
  {
    py::gil_scoped_release release;
    depthwise_conv2d_i8(from, x_dtype, s.c, s, x_zero_point, w.packed, to, s.c, epilogue.get(), level,
                        threads_argument(threads));
  }
  return y;
}

}  // namespace

void bind_depthwise_i8(py::module_& m) {
  py::class_<DepthwiseWeights>(
      m, "PackedDepthwiseI8", "Weights of depthwise_conv2d_i8 in the kernels' order; made by lowbit.pack_depthwise_i8.")
      .def_property_readonly("shape", [](const DepthwiseWeights& w) { return py::make_tuple(w.kh, w.kw, w.c); })
      .def_property_readonly("nbytes", [](const DepthwiseWeights& w) { return w.packed.bytes(); });
  m.def("pack_depthwise_i8", &pack, py::arg("w"));
  m.def("depthwise_conv2d_i8", &convolve, py::arg("x"), py::arg("w"), py::arg("stride"), py::arg("padding"),
        py::arg("dilation"), py::arg("x_zero_point"), py::arg("scale"), py::arg("bias"), py::arg("zero_point"),
        py::arg("out_dtype"), py::arg("rounding"), py::arg("clamp"), py::arg("residual"), py::arg("residual_scale"),
        py::arg("residual_zero_point"), py::arg("out"), py::arg("isa"), py::arg("threads"));
}

}  // namespace lowbit
