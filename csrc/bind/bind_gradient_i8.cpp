#include "bind_conv2d_shape.h"
#include "lowbit/gradient_i8.h"

namespace lowbit {
namespace {

// Weights packed for the input gradient, and the forward convolution's geometry.
struct GradientWeights {
  PackedConvI8 packed;
  Conv2dShape shape;
};

GradientWeights pack(const py::array& w, const Pair& stride, const Pair& dilation, int64_t groups,
                     const std::optional<std::string>& isa, std::optional<int> threads) {
  constexpr const char* kName = "pack_gradient_i8";
  need_rank(kName, "w", w, 4);
  need_dtype(kName, "w", w, DType::s8);
  Conv2dShape s;
  s.oc = w.shape(0);
  s.kh = w.shape(1);
  s.kw = w.shape(2);
  s.c = w.shape(3) * groups;
  s.groups = groups;
  s.stride_h = stride[0], s.stride_w = stride[1];
  s.dilation_h = dilation[0], s.dilation_w = dilation[1];
  const py::array rows = dense(w);
  const int8_t* from = static_cast<const int8_t*>(rows.data());
  const Isa level = isa_argument(isa);
  py::gil_scoped_release release;
  return {pack_gradient_i8(from, s, level, threads_argument(threads)), s};
}

// The door checks the window; what it will refuse has no output to compare with.
void need_output(const char* function, const py::array& g, const Conv2dShape& s) {
  const Shape shape = output_shape(s);
  if (shape[1] > 0 && shape[2] > 0) need_shape(function, "g", g, shape);
}

py::array input_gradient(const py::array& g, const GradientWeights& w, const Pair& size, const Padding& padding,
                         float scale, const py::object& out, const std::optional<std::string>& isa,
                         std::optional<int> threads) {
  constexpr const char* kName = "input_gradient_i8";
  need_rank(kName, "g", g, 4);
  const DType dtype = code_dtype(kName, "g", g);
  Conv2dShape s = w.shape;
  s.batch = g.shape(0);
  s.h = size[0], s.w = size[1];
  s.pad_top = padding[0], s.pad_left = padding[1], s.pad_bottom = padding[2], s.pad_right = padding[3];
  need_output(kName, g, s);
  const py::array pixels = dense(g);
  py::array dx = output_array(kName, out, DType::f32, {s.batch, s.h, s.w, s.c});
  const void* from = pixels.data();
  float* to = static_cast<float*>(dx.mutable_data());
  const Isa level = isa_argument(isa);
  {
    py::gil_scoped_release release;
    input_gradient_i8(from, dtype, s, w.packed, scale, to, level, threads_argument(threads));
  }
  return dx;
}

py::array weight_gradient(const py::array& x, const py::array& g, const Pair& kernel, const Pair& stride,
                          const Padding& padding, const Pair& dilation, int64_t groups, float scale,
                          const py::object& out, const std::optional<std::string>& isa, std::optional<int> threads) {
  constexpr const char* kName = "weight_gradient_i8";
  need_rank(kName, "g", g, 4);
  const Conv2dShape s = conv2d_shape(kName, x, g.shape(3), kernel[0], kernel[1], stride, padding, dilation, groups);
  const DType x_dtype = code_dtype(kName, "x", x), g_dtype = code_dtype(kName, "g", g);
  need_output(kName, g, s);
  const py::array x_pixels = dense(x), g_pixels = dense(g);
  py::array dw = output_array(kName, out, DType::f32, {s.oc, s.kh, s.kw, groups > 0 ? s.c / groups : s.c});
  const void *x_from = x_pixels.data(), *g_from = g_pixels.data();
  float* to = static_cast<float*>(dw.mutable_data());
  const Isa level = isa_argument(isa);
  {
    py::gil_scoped_release release;
    weight_gradient_i8(x_from, x_dtype, g_from, g_dtype, s, scale, to, level, threads_argument(threads));
  }
  return dw;
}

}  // namespace

void bind_gradient_i8(py::module_& m) {
  py::class_<GradientWeights>(m, "PackedGradientI8",
                              "Weights of input_gradient_i8 in the kernels' tiled order; made by "
                              "lowbit.pack_gradient_i8.")
      .def_property_readonly("nbytes", [](const GradientWeights& w) { return w.packed.bytes(); });
  m.def("pack_gradient_i8", &pack, py::arg("w"), py::arg("stride"), py::arg("dilation"), py::arg("groups"),
        py::arg("isa"), py::arg("threads"));
  m.def("input_gradient_i8", &input_gradient, py::arg("g"), py::arg("w"), py::arg("size"), py::arg("padding"),
        py::arg("scale"), py::arg("out"), py::arg("isa"), py::arg("threads"));
  m.def("weight_gradient_i8", &weight_gradient, py::arg("x"), py::arg("g"), py::arg("kernel"), py::arg("stride"),
        py::arg("padding"), py::arg("dilation"), py::arg("groups"), py::arg("scale"), py::arg("out"), py::arg("isa"),
        py::arg("threads"));
}

}  // namespace lowbit
