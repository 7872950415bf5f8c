#include "bind.h"
#include "bind_conv2d_shape.h"
#include "lowbit/gemm_f32.h"

namespace lowbit {
namespace {

using Floats = py::array_t<float, py::array::c_style>;

// The weights of a convolution with what their shape was, since arrays carry theirs.
struct ConvF32 {
  PackedConvF32 packed;
  int64_t oc, kh, kw, c, groups;
};

EpilogueF32 epilogue_f32(const std::optional<Floats>& bias, const std::optional<Floats>& residual, float lo, float hi,
                         int64_t rows, int64_t n) {
  if (bias && (bias->ndim() != 1 || bias->shape(0) != n)) {
    throw std::invalid_argument("bias has " + std::to_string(bias->size()) + " values, the output " +
                                std::to_string(n) + " columns");
  }
  if (residual && residual->size() != rows * n) {
    throw std::invalid_argument("residual has " + std::to_string(residual->size()) + " values, the output " +
                                std::to_string(rows * n));
  }
  return {.bias = bias ? bias->data() : nullptr,
          .residual = residual ? residual->data() : nullptr,
          .residual_stride = n,
          .lo = lo,
          .hi = hi};
}

}  // namespace

void bind_gemm_f32(py::module_& m) {
  py::class_<PackedF32>(m, "PackedF32")
      .def_property_readonly("k", &PackedF32::k)
      .def_property_readonly("n", &PackedF32::n)
      .def_property_readonly("nbytes", &PackedF32::bytes);
  m.def(
      "pack_f32",
      [](const py::array_t<float, 0>& b) {
        if (b.ndim() != 2)
          throw std::invalid_argument("pack_f32: b must be (k, n), it has " + std::to_string(b.ndim()) + " axes");
        if (b.strides(0) % 4 || b.strides(1) % 4)
          throw std::invalid_argument("pack_f32: b's strides are not whole floats");
        const float* data = b.data();
        const int64_t k = b.shape(0), n = b.shape(1), rows = b.strides(0) / 4, columns = b.strides(1) / 4;
        py::gil_scoped_release nogil;
        return pack_f32(data, k, n, rows, columns);
      },
      py::arg("b").noconvert());
  m.def(
      "gemm_f32",
      [](const Floats& a, const PackedF32& b, const std::optional<Floats>& bias, const std::optional<Floats>& residual,
         float lo, float hi, const std::optional<std::string>& isa, std::optional<int> threads) {
        if (a.ndim() != 2 || a.shape(1) != b.k()) {
          throw std::invalid_argument("gemm_f32: a must be (m, " + std::to_string(b.k()) + "), its last axis is " +
                                      std::to_string(a.ndim() ? a.shape(a.ndim() - 1) : 0));
        }
        const int64_t rows = a.shape(0);
        Floats c({rows, b.n()});
        const EpilogueF32 e = epilogue_f32(bias, residual, lo, hi, rows, b.n());
        const Isa level = isa_argument(isa);
        const float* in = a.data();
        float* out = c.mutable_data();
        {
          py::gil_scoped_release nogil;
          gemm_f32(in, rows, b.k(), b, out, b.n(), e, level, threads_argument(threads));
        }
        return c;
      },
      py::arg("a").noconvert(), py::arg("b"), py::arg("bias").noconvert() = py::none(),
      py::arg("residual").noconvert() = py::none(), py::arg("lo") = -__builtin_inff(), py::arg("hi") = __builtin_inff(),
      py::arg("isa") = py::none(), py::arg("threads") = py::none());

  py::class_<ConvF32>(m, "PackedConvF32")
      .def_property_readonly("shape", [](const ConvF32& w) { return py::make_tuple(w.oc, w.kh, w.kw, w.c / w.groups); })
      .def_readonly("groups", &ConvF32::groups)
      .def_property_readonly("nbytes", [](const ConvF32& w) { return w.packed.bytes(); });
  m.def(
      "pack_conv_f32",
      [](const Floats& w, int64_t groups) {
        if (w.ndim() != 4) {
          throw std::invalid_argument("pack_conv_f32: w must be (oc, kh, kw, c / groups), it has " +
                                      std::to_string(w.ndim()) + " axes");
        }
        ConvF32 out{{}, w.shape(0), w.shape(1), w.shape(2), w.shape(3) * groups, groups};
        const float* data = w.data();
        py::gil_scoped_release nogil;
        out.packed = pack_conv_f32(data, {.c = out.c, .oc = out.oc, .kh = out.kh, .kw = out.kw, .groups = groups});
        return out;
      },
      py::arg("w").noconvert(), py::arg("groups") = 1);
  m.def(
      "conv2d_f32",
      [](const Floats& x, const ConvF32& w, const Pair& stride, const Padding& padding, const Pair& dilation,
         const std::optional<Floats>& bias, const std::optional<Floats>& residual, float lo, float hi,
         const std::optional<std::string>& isa, std::optional<int> threads) {
        const Conv2dShape s = conv2d_shape(x, w.oc, w.kh, w.kw, stride, padding, dilation, w.groups);
        if (s.c != w.c) {
          throw std::invalid_argument("conv2d_f32: x has " + std::to_string(s.c) + " channels, w takes " +
                                      std::to_string(w.c));
        }
        Floats y(output_shape(s));
        const EpilogueF32 e = epilogue_f32(bias, residual, lo, hi, s.oc ? y.size() / s.oc : 0, s.oc);
        const Isa level = isa_argument(isa);
        const float* in = x.data();
        float* out = y.mutable_data();
        {
          py::gil_scoped_release nogil;
          conv2d_f32(in, s.c, s, w.packed, out, s.oc, e, level, threads_argument(threads));
        }
        return y;
      },
      py::arg("x").noconvert(), py::arg("w"), py::arg("stride") = Pair{1, 1}, py::arg("padding") = Padding{0, 0, 0, 0},
      py::arg("dilation") = Pair{1, 1}, py::arg("bias").noconvert() = py::none(),
      py::arg("residual").noconvert() = py::none(), py::arg("lo") = -__builtin_inff(), py::arg("hi") = __builtin_inff(),
      py::arg("isa") = py::none(), py::arg("threads") = py::none());
}

}  // namespace lowbit
