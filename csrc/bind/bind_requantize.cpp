#include "epilogue_argument.h"

namespace lowbit {

void bind_requantize(py::module_& m) {
  m.def(
      "requantize",
      [](const py::array& acc, py::object scale, py::object bias, int32_t zero_point, int dtype, int rounding,
         py::object clamp, py::object residual, py::object residual_scale, int32_t residual_zero_point, py::object out,
         const std::optional<std::string>& isa, std::optional<int> threads) {
        constexpr const char* kName = "requantize";
        need_dtype(kName, "acc", acc, DType::s32);
        const py::array rows = dense(acc);
        Shape shape = shape_of(rows);
        const Shape out_shape = shape;
        if (shape.empty()) shape.push_back(1);
        const EpilogueHolder epilogue(
            kName, {scale, bias, zero_point, dtype, rounding, clamp, residual, residual_scale, residual_zero_point},
            shape);
        py::array y = output_array(kName, out, static_cast<DType>(dtype), out_shape);
        const int64_t n = shape.back(), count = n > 0 ? rows.size() / n : 0;
        const Isa level = isa_argument(isa);
        const auto* from = static_cast<const int32_t*>(rows.data());
        void* to = y.mutable_data();
        {
          py::gil_scoped_release release;
          requantize(from, n, count, n, to, n, epilogue.get(), level, threads_argument(threads));
        }
        return y;
      },
      py::arg("acc"), py::arg("scale"), py::arg("bias"), py::arg("zero_point"), py::arg("dtype"), py::arg("rounding"),
      py::arg("clamp"), py::arg("residual"), py::arg("residual_scale"), py::arg("residual_zero_point"), py::arg("out"),
      py::arg("isa"), py::arg("threads"));
  m.def(
      "fixed_point_multiplier",
      [](float scale) {
        int32_t m0 = 0;
        int shift = 0;
        fixed_point_multiplier(scale, m0, shift);
        return py::make_tuple(m0, shift);
      },
      py::arg("scale"));
}

}  // namespace lowbit
