// What the binding files share: one bind_* function per kernel, and the arguments that every door takes.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>
#include <string>

#include "lowbit/isa.h"

namespace lowbit {

namespace py = pybind11;

// isa=None is the default level; a name is checked.
inline Isa isa_argument(const std::optional<std::string>& isa) { return isa ? parse_isa(*isa) : best_isa(); }
// threads=None is the default count.
inline int threads_argument(std::optional<int> threads) { return threads.value_or(0); }

void bind_calibrate(py::module_& m);
void bind_codebook(py::module_& m);
void bind_isa(py::module_& m);
void bind_gemm_f32(py::module_& m);
void bind_depthwise_i8(py::module_& m);
void bind_pointwise(py::module_& m);
void bind_requantize(py::module_& m);
void bind_crc32(py::module_& m);
void bind_sparse(py::module_& m);
void bind_stochastic(py::module_& m);
void bind_gemm_i8(py::module_& m);
void bind_gradient_i8(py::module_& m);
void bind_huffman(py::module_& m);
void bind_probe(py::module_& m);
void bind_model(py::module_& m);
void bind_xnor(py::module_& m);

}  // namespace lowbit
