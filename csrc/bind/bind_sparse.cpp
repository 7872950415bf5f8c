#include "bind_conv2d_shape.h"
#include "lowbit/sparse.h"

namespace lowbit {
namespace {

PackedSparse pack(const py::array& gaps, const py::array& codes, int64_t n, int64_t k, const py::array& codebook) {
  constexpr const char* kName = "pack_sparse";
  for (const auto& [name, array] : {std::pair{"gaps", &gaps}, {"codes", &codes}}) {
    need_dtype(kName, name, *array, DType::u8);
    need_rank(kName, name, *array, 1);
  }
  if (gaps.size() != codes.size()) {
    throw py::value_error("pack_sparse: " + std::to_string(gaps.size()) + " gaps for " + std::to_string(codes.size()) +
                          " codes");
  }
  need_dtype(kName, "codebook", codebook, DType::f32);
  need_rank(kName, "codebook", codebook, 1);
  const py::array g = dense(gaps), c = dense(codes), values = dense(codebook);
  const Codebook<float> book{static_cast<const float*>(values.data()), values.size()};
  py::gil_scoped_release release;
  return pack_sparse(static_cast<const uint8_t*>(g.data()), static_cast<const uint8_t*>(c.data()), c.size(), n, k,
                     book);
}

py::array gemm(const py::array& x, const PackedSparse& w, const std::optional<py::array>& bias,
               const std::optional<std::pair<float, float>>& clamp, const py::object& out,
               const std::optional<std::string>& isa, std::optional<int> threads) {
  constexpr const char* kName = "sparse_gemm";
  const Isa level = isa_argument(isa);
  need_rank(kName, "x", x, 2);
  need_dtype(kName, "x", x, DType::f32);
  const int64_t m = x.shape(0), k = x.shape(1);
  if (k != w.k()) {
    throw py::value_error("sparse_gemm: x has k = " + std::to_string(k) + ", w has k = " + std::to_string(w.k()));
  }
  const py::array rows = dense(x);
  EpilogueCodebook e;
  std::optional<py::array> kept_bias;
  if (bias) {
    need_dtype(kName, "bias", *bias, DType::f32);
    if (bias->ndim() != 1 || bias->shape(0) != w.n()) {
      throw py::value_error("sparse_gemm: bias is " + text(shape_of(*bias)) + ", must be (" + std::to_string(w.n()) +
                            ")");
    }
    kept_bias = dense(*bias);
    e.bias = static_cast<const float*>(kept_bias->data());
  }
  if (clamp) std::tie(e.lo, e.hi) = *clamp;
  py::array y = output_array(kName, out, DType::f32, {m, w.n()});
  const auto* from = static_cast<const float*>(rows.data());
  auto* to = static_cast<float*>(y.mutable_data());
  {
    py::gil_scoped_release release;
    sparse_gemm_f32(from, m, k, w, to, w.n(), e, level, threads_argument(threads));
  }
  return y;
}

}  // namespace

void bind_sparse(py::module_& m) {
  py::class_<PackedSparse>(m, "PackedSparse", "Pruned weights in the kernel's order; made by lowbit.pack_sparse.")
      .def_property_readonly("shape", [](const PackedSparse& w) { return py::make_tuple(w.n(), w.k()); })
      .def_property_readonly("entries", &PackedSparse::entries)
      .def_property_readonly("nbytes", &PackedSparse::bytes);
  m.def("pack_sparse", &pack, py::arg("gaps"), py::arg("codes"), py::arg("n"), py::arg("k"), py::arg("codebook"));
  m.def(
      "sparse_pays",
      [](int64_t rows, int64_t n, int64_t k, int64_t entries) {
        return sparse_pays(rows, n, k, entries, CodebookPer::tensor);
      },
      py::arg("m"), py::arg("n"), py::arg("k"), py::arg("entries"));
  m.def("sparse_gemm", &gemm, py::arg("x"), py::arg("w"), py::arg("bias"), py::arg("clamp"), py::arg("out"),
        py::arg("isa"), py::arg("threads"));
}

}  // namespace lowbit
