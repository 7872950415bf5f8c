#include "bind_conv2d_shape.h"
#include "epilogue_argument.h"
#include "lowbit/gemm_i8.h"

namespace lowbit {
namespace {

PackedI8 pack_array(const char* function, const py::array& b) {
  need_rank(function, "b", b, 2);
  const DType dtype = code_dtype(function, "b", b);
  const void* data = b.data();
  const int64_t k = b.shape(0), n = b.shape(1), row = b.strides(0), column = b.strides(1);
  py::gil_scoped_release release;
  return pack_i8(data, dtype, k, n, row, column);
}

py::array gemm(const py::array& a, const py::object& b, int32_t a_zero_point, int32_t b_zero_point, py::object scale,
               py::object bias, int32_t zero_point, int out_dtype, int rounding, py::object clamp, py::object residual,
               py::object residual_scale, int32_t residual_zero_point, py::object out,
               const std::optional<std::string>& isa, std::optional<int> threads) {
  constexpr const char* kName = "gemm_i8";
  const Isa level = isa_argument(isa);
  need_rank(kName, "a", a, 2);
  const DType a_dtype = code_dtype(kName, "a", a);
  const PackedI8 packed =
      py::isinstance<PackedI8>(b) ? b.cast<const PackedI8&>() : pack_array(kName, b.cast<py::array>());
  const int64_t m = a.shape(0), k = a.shape(1);
  if (k != packed.k()) {
    throw py::value_error("gemm_i8: a has k = " + std::to_string(k) + ", b has k = " + std::to_string(packed.k()));
  }
  const py::array rows = a.strides(1) == 1 && a.strides(0) >= k ? a : dense(a);
  const Shape shape{m, packed.n()};
  const EpilogueHolder epilogue(
      kName, {scale, bias, zero_point, out_dtype, rounding, clamp, residual, residual_scale, residual_zero_point},
      shape);
  py::array c = output_array(kName, out, static_cast<DType>(out_dtype), shape);
  const void* from = rows.data();
  const int64_t lda = rows.strides(0);
  void* to = c.mutable_data();
  {
    py::gil_scoped_release release;
    gemm_i8(from, a_dtype, m, lda, a_zero_point, packed, b_zero_point, to, packed.n(), epilogue.get(), level,
            threads_argument(threads));
  }
  return c;
}

Conv2dShape weight_shape(const char* function, const py::array& w, const Pair& stride, const Pair& dilation,
                         int64_t groups) {
  need_rank(function, "w", w, 4);
  Conv2dShape s;
  s.oc = w.shape(0);
  s.kh = w.shape(1);
  s.kw = w.shape(2);
  s.c = w.shape(3) * groups;
  s.groups = groups;
  s.stride_h = stride[0], s.stride_w = stride[1];
  s.dilation_h = dilation[0], s.dilation_w = dilation[1];
  return s;
}

// Packed convolution weights with the geometry that they were packed for.
struct ConvWeights {
  PackedConvI8 packed;
  Conv2dShape shape;
};

ConvWeights pack_conv_array(const char* function, const py::array& w, const Pair& stride, const Pair& dilation,
                            int64_t groups) {
  const Conv2dShape shape = weight_shape(function, w, stride, dilation, groups);
  const DType dtype = code_dtype(function, "w", w);
  const py::array rows = dense(w);
  const void* data = rows.data();
  py::gil_scoped_release release;
  return {pack_conv_i8(data, dtype, shape), shape};
}

py::array conv2d(const py::array& x, const ConvWeights& w, const Padding& padding, int32_t x_zero_point,
                 int32_t w_zero_point, py::object scale, py::object bias, int32_t zero_point, int out_dtype,
                 int rounding, py::object clamp, py::object residual, py::object residual_scale,
                 int32_t residual_zero_point, py::object out, const std::optional<std::string>& isa,
                 std::optional<int> threads) {
  constexpr const char* kName = "conv2d_i8";
  const Isa level = isa_argument(isa);
  need_rank(kName, "x", x, 4);
  const DType x_dtype = code_dtype(kName, "x", x);
  Conv2dShape s = w.shape;
  s.batch = x.shape(0);
  s.h = x.shape(1);
  s.w = x.shape(2);
  s.pad_top = padding[0], s.pad_left = padding[1], s.pad_bottom = padding[2], s.pad_right = padding[3];
  if (x.shape(3) != s.c) {
    throw py::value_error("conv2d_i8: x has " + std::to_string(x.shape(3)) + " channels, w (with groups) has " +
                          std::to_string(s.c));
  }
  const Shape shape = output_shape(s);
  const bool slice = x.strides(3) == 1 && x.strides(2) >= s.c && x.strides(1) == s.w * x.strides(2) &&
                     x.strides(0) == s.h * x.strides(1);  // channels of a wider tensor
  const py::array pixels = slice ? x : dense(x);
  const EpilogueHolder epilogue(
      kName, {scale, bias, zero_point, out_dtype, rounding, clamp, residual, residual_scale, residual_zero_point},
      shape);
  py::array y = output_array(kName, out, static_cast<DType>(out_dtype), shape);
  const void* from = pixels.data();
  const int64_t ldx = slice ? pixels.strides(2) : s.c;
  void* to = y.mutable_data();
  {
    py::gil_scoped_release release;
    conv2d_i8(from, x_dtype, ldx, s, x_zero_point, w.packed, w_zero_point, to, s.oc, epilogue.get(), level,
              threads_argument(threads));
  }
  return y;
}

}  // namespace

void bind_gemm_i8(py::module_& m) {
  py::class_<PackedI8>(m, "PackedI8", "Weights of gemm_i8 in the kernels' tiled order; made by lowbit.pack_i8.")
      .def_property_readonly("shape", [](const PackedI8& p) { return py::make_tuple(p.k(), p.n()); })
      .def_property_readonly("dtype", [](const PackedI8& p) { return numpy_dtype(p.dtype()); })
      .def_property_readonly("nbytes", &PackedI8::bytes);
  py::class_<ConvWeights>(m, "PackedConvI8",
                          "Weights of conv2d_i8 in the kernels' tiled order; made by lowbit.pack_conv2d_i8.")
      .def_property_readonly("nbytes", [](const ConvWeights& w) { return w.packed.bytes(); });
  m.def("pack_i8", [](const py::array& b) { return pack_array("pack_i8", b); }, py::arg("b"));
  m.def(
      "pack_conv2d_i8",
      [](const py::array& w, const Pair& stride, const Pair& dilation, int64_t groups) {
        return pack_conv_array("pack_conv2d_i8", w, stride, dilation, groups);
      },
      py::arg("w"), py::arg("stride"), py::arg("dilation"), py::arg("groups"));
  m.def("gemm_i8", &gemm, py::arg("a"), py::arg("b"), py::arg("a_zero_point"), py::arg("b_zero_point"),
        py::arg("scale"), py::arg("bias"), py::arg("zero_point"), py::arg("out_dtype"), py::arg("rounding"),
        py::arg("clamp"), py::arg("residual"), py::arg("residual_scale"), py::arg("residual_zero_point"),
        py::arg("out"), py::arg("isa"), py::arg("threads"));
  m.def("conv2d_i8", &conv2d, py::arg("x"), py::arg("w"), py::arg("padding"), py::arg("x_zero_point"),
        py::arg("w_zero_point"), py::arg("scale"), py::arg("bias"), py::arg("zero_point"), py::arg("out_dtype"),
        py::arg("rounding"), py::arg("clamp"), py::arg("residual"), py::arg("residual_scale"),
        py::arg("residual_zero_point"), py::arg("out"), py::arg("isa"), py::arg("threads"));
}

}  // namespace lowbit
