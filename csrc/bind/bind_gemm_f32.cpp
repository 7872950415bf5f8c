#include "bind_conv2d_shape.h"
#include "lowbit/gemm_f32.h"

namespace lowbit {
namespace {

using Clamp = std::optional<std::pair<float, float>>;

// The weights of a convolution with what their shape was, since arrays carry theirs.
struct ConvWeightsF32 {
  PackedConvF32 packed;
  int64_t oc, kh, kw, c, groups;
};

// a in C order; throws TypeError unless it is float32.
py::array float_array(const char* function, const char* name, const py::array& a) {
  need_dtype(function, name, a, DType::f32);
  return dense(a);
}

const float* floats(const py::array& a) { return static_cast<const float*>(a.data()); }

// An EpilogueF32 and the arrays that it borrows.
class EpilogueF32Holder {
 public:
  // Of an output of `shape`, channels last.
  EpilogueF32Holder(const char* function, const std::optional<py::array>& bias,
                    const std::optional<py::array>& residual, const Clamp& clamp, const Shape& shape) {
    if (bias) {
      bias_ = float_array(function, "bias", *bias);
      if (bias_.ndim() != 1 || bias_.size() != shape.back()) {
        throw py::value_error(std::string(function) + ": bias is " + text(shape_of(bias_)) + ", the output has " +
                              std::to_string(shape.back()) + " channels");
      }
      e_.bias = floats(bias_);
    }
    if (residual) {
      residual_ = float_array(function, "residual", *residual);
      need_shape(function, "residual", residual_, shape);
      e_.residual = floats(residual_);
      e_.residual_stride = shape.back();
    }
    if (clamp) std::tie(e_.lo, e_.hi) = *clamp;
  }
  const EpilogueF32& get() const { return e_; }

 private:
  EpilogueF32 e_;
  py::array bias_, residual_;
};

PackedF32 pack_matrix(const py::array& b) {
  constexpr const char* kName = "pack_f32";
  constexpr py::ssize_t kSize = sizeof(float);
  need_rank(kName, "b", b, 2);
  need_dtype(kName, "b", b, DType::f32);
  const py::array strided = b.strides(0) % kSize || b.strides(1) % kSize ? dense(b) : b;  // else a field of a record
  const float* data = floats(strided);
  const int64_t k = b.shape(0), n = b.shape(1), row = strided.strides(0) / kSize, column = strided.strides(1) / kSize;
  py::gil_scoped_release release;
  return pack_f32(data, k, n, row, column);
}

py::array gemm(const py::array& a, const PackedF32& b, const std::optional<py::array>& bias,
               const std::optional<py::array>& residual, const Clamp& clamp, const py::object& out,
               const std::optional<std::string>& isa, std::optional<int> threads) {
  constexpr const char* kName = "gemm_f32";
  const Isa level = isa_argument(isa);
  need_rank(kName, "a", a, 2);
  const py::array rows = float_array(kName, "a", a);
  const int64_t m = a.shape(0), k = a.shape(1);
  if (k != b.k()) {
    throw py::value_error("gemm_f32: a has k = " + std::to_string(k) + ", b has k = " + std::to_string(b.k()));
  }
  const Shape shape{m, b.n()};
  const EpilogueF32Holder epilogue(kName, bias, residual, clamp, shape);
  py::array c = output_array(kName, out, DType::f32, shape);
  const float* from = floats(rows);
  auto* to = static_cast<float*>(c.mutable_data());
  {
    py::gil_scoped_release release;
    gemm_f32(from, m, k, b, to, b.n(), epilogue.get(), level, threads_argument(threads));
  }
  return c;
}

ConvWeightsF32 pack_conv(const py::array& w, int64_t groups) {
  constexpr const char* kName = "pack_conv_f32";
  need_rank(kName, "w", w, 4);
  const py::array rows = float_array(kName, "w", w);
  ConvWeightsF32 out{{}, w.shape(0), w.shape(1), w.shape(2), w.shape(3) * groups, groups};
  const float* data = floats(rows);
  py::gil_scoped_release release;
  out.packed = pack_conv_f32(data, {.c = out.c, .oc = out.oc, .kh = out.kh, .kw = out.kw, .groups = groups});
  return out;
}

py::array convolve(const py::array& x, const ConvWeightsF32& w, const Pair& stride, const Padding& padding,
                   const Pair& dilation, const std::optional<py::array>& bias, const std::optional<py::array>& residual,
                   const Clamp& clamp, const py::object& out, const std::optional<std::string>& isa,
                   std::optional<int> threads) {
  constexpr const char* kName = "conv2d_f32";
  const Isa level = isa_argument(isa);
  const Conv2dShape s = conv2d_shape(kName, x, w.oc, w.kh, w.kw, stride, padding, dilation, w.groups);
  const py::array pixels = float_array(kName, "x", x);
  if (s.c != w.c) {
    throw py::value_error("conv2d_f32: x has " + std::to_string(s.c) + " channels, w (with groups) has " +
                          std::to_string(w.c));
  }
  const Shape shape = output_shape(s);
  const EpilogueF32Holder epilogue(kName, bias, residual, clamp, shape);
  py::array y = output_array(kName, out, DType::f32, shape);
  const float* from = floats(pixels);
  auto* to = static_cast<float*>(y.mutable_data());
  {
    py::gil_scoped_release release;
    conv2d_f32(from, s.c, s, w.packed, to, s.oc, epilogue.get(), level, threads_argument(threads));
  }
  return y;
}

}  // namespace

void bind_gemm_f32(py::module_& m) {
  py::class_<PackedF32>(m, "PackedF32", "Weights of gemm_f32 in the kernels' order; made by lowbit.pack_f32.")
      .def_property_readonly("k", &PackedF32::k)
      .def_property_readonly("n", &PackedF32::n)
      .def_property_readonly("nbytes", &PackedF32::bytes);
  py::class_<ConvWeightsF32>(m, "PackedConvF32",
                             "Weights of conv2d_f32 in the kernels' order; made by lowbit.pack_conv_f32.")
      .def_property_readonly("shape",
                             [](const ConvWeightsF32& w) { return py::make_tuple(w.oc, w.kh, w.kw, w.c / w.groups); })
      .def_readonly("groups", &ConvWeightsF32::groups)
      .def_property_readonly("nbytes", [](const ConvWeightsF32& w) { return w.packed.bytes(); });
  m.def("pack_f32", &pack_matrix, py::arg("b"));
  m.def("gemm_f32", &gemm, py::arg("a"), py::arg("b"), py::arg("bias"), py::arg("residual"), py::arg("clamp"),
        py::arg("out"), py::arg("isa"), py::arg("threads"));
  m.def("pack_conv_f32", &pack_conv, py::arg("w"), py::arg("groups"));
  m.def("conv2d_f32", &convolve, py::arg("x"), py::arg("w"), py::arg("stride"), py::arg("padding"), py::arg("dilation"),
        py::arg("bias"), py::arg("residual"), py::arg("clamp"), py::arg("out"), py::arg("isa"), py::arg("threads"));
}

}  // namespace lowbit
