#include "array_argument.h"
#include "lowbit/stochastic.h"

namespace lowbit {
namespace {

// x in C order: its values in memory order are the elements that the generator numbers.
const float* values(const char* function, const py::array& x) {
  need_dtype(function, "x", x, DType::f32);
  if (!(x.flags() & py::array::c_style)) throw py::value_error(std::string(function) + ": x is not C-contiguous");
  return static_cast<const float*>(x.data());
}

py::tuple round_stochastic(const py::array& x, float scale, uint64_t seed, uint64_t stream, const py::object& out,
                           const std::optional<std::string>& isa, std::optional<int> threads) {
  constexpr const char* kName = "quantize_stochastic";
  const float* from = values(kName, x);
  py::array codes = output_array(kName, out, DType::u8, shape_of(x));
  uint8_t* to = static_cast<uint8_t*>(codes.mutable_data());
  const Isa level = isa_argument(isa);
  QuantizeSums sums;
  {
    py::gil_scoped_release release;
    sums = quantize_stochastic(from, x.size(), scale, seed, stream, to, level, threads_argument(threads));
  }
  return py::make_tuple(codes, sums.deviation(), sums.peak);
}

py::array_t<double> deviations(const py::array& x, const py::array& scales, const std::optional<std::string>& isa,
                               std::optional<int> threads) {
  constexpr const char* kName = "clip_deviations";
  const float* from = values(kName, x);
  need_dtype(kName, "scales", scales, DType::f32);
  need_rank(kName, "scales", scales, 1);
  const py::array dense_scales = dense(scales);
  const int64_t count = scales.shape(0);
  const float* by = static_cast<const float*>(dense_scales.data());
  const Isa level = isa_argument(isa);
  std::vector<QuantizeSums> sums(static_cast<size_t>(count));
  {
    py::gil_scoped_release release;
    quantize_sums(from, x.size(), by, count, sums.data(), level, threads_argument(threads));
  }
  py::array_t<double> result(count);
  for (int64_t k = 0; k < count; ++k) result.mutable_at(k) = sums[static_cast<size_t>(k)].deviation();
  return result;
}

}  // namespace

void bind_stochastic(py::module_& m) {
  m.def("quantize_stochastic", &round_stochastic, py::arg("x"), py::arg("scale"), py::arg("seed"), py::arg("stream"),
        py::arg("out"), py::arg("isa"), py::arg("threads"));
  m.def("clip_deviations", &deviations, py::arg("x"), py::arg("scales"), py::arg("isa"), py::arg("threads"));
}

}  // namespace lowbit
