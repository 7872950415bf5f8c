#include "bind.h"
#include "lowbit/calibrate.h"

namespace lowbit {
namespace {

using Floats = py::array_t<float, py::array::c_style>;
using Counts = py::array_t<int64_t, py::array::c_style>;

// counts (2, 2 * bins), written in place; lowbit.calibration.Histogram owns it.
Histogram histogram_of(Counts& counts, int exponent, int64_t count, float lo, float hi) {
  if (counts.ndim() != 2 || counts.shape(0) != 2 || counts.shape(1) % 2 != 0) {
    throw std::invalid_argument("histogram: counts must have shape (2, 2 * bins)");
  }
  return {counts.mutable_data(), counts.shape(1) / 2, exponent, count, lo, hi};
}

py::tuple observe(Counts counts, int exponent, int64_t count, float lo, float hi, const Floats& x,
                  const std::optional<std::string>& isa, std::optional<int> threads) {
  Histogram h = histogram_of(counts, exponent, count, lo, hi);
  const Isa level = isa_argument(isa);
  {
    py::gil_scoped_release release;
    histogram_observe(h, x.data(), x.size(), level, threads_argument(threads));
  }
  return py::make_tuple(h.exponent, h.count, h.lo, h.hi);
}

void fold(Counts counts, int exponent, int target) {
  Histogram h = histogram_of(counts, exponent, 0, 0, 0);
  py::gil_scoped_release release;
  histogram_fold(h, target);
}

py::tuple range(const Floats& x, const std::optional<std::string>& isa, std::optional<int> threads) {
  float lo, hi;
  const Isa level = isa_argument(isa);
  {
    py::gil_scoped_release release;
    finite_range(x.data(), x.size(), lo, hi, level, threads_argument(threads));
  }
  return py::make_tuple(lo, hi);
}

py::tuple search(const Counts& counts, int64_t levels, bool literal_bin0, const std::optional<std::string>& isa) {
  if (counts.ndim() != 1) throw std::invalid_argument("entropy_search: counts must have one axis");
  const Isa level = isa_argument(isa);
  py::array_t<double> divergence(std::max<int64_t>(counts.size() - levels + 1, 0));
  double* out = divergence.mutable_data();
  int64_t best = 0;
  {
    py::gil_scoped_release release;
    best = entropy_search(counts.data(), counts.size(), levels, literal_bin0, out, level);
  }
  return py::make_tuple(best, divergence);
}

}  // namespace

void bind_calibrate(py::module_& m) {
  m.def("histogram_observe", &observe, py::arg("counts").noconvert(), py::arg("exponent"), py::arg("count"),
        py::arg("lo"), py::arg("hi"), py::arg("x").noconvert(), py::kw_only(), py::arg("isa") = py::none(),
        py::arg("threads") = py::none());
  m.def("histogram_fold", &fold, py::arg("counts").noconvert(), py::arg("exponent"), py::arg("target"));
  m.def("finite_range", &range, py::arg("x").noconvert(), py::kw_only(), py::arg("isa") = py::none(),
        py::arg("threads") = py::none());
  m.def("entropy_search", &search, py::arg("counts").noconvert(), py::arg("levels") = 128, py::kw_only(),
        py::arg("literal_bin0") = false, py::arg("isa") = py::none());
}

}  // namespace lowbit
