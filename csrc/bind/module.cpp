// The extension module: the only place, with its neighbours, that knows pybind11.
#include "bind.h"
#include "lowbit/error.h"

PYBIND11_MODULE(_core, m) {
  namespace py = pybind11;
  m.doc() = "lowbit's C++ kernels; lowbit.ops is the friendly side";
  m.attr("__version__") = LOWBIT_VERSION;
  py::register_exception<lowbit::FormatError>(m, "FormatError", PyExc_ValueError).attr("__doc__") =
      "Bytes from outside (a file, a stream) are wrong: what and where.";
  lowbit::bind_calibrate(m);
  lowbit::bind_codebook(m);
  lowbit::bind_isa(m);
  lowbit::bind_gemm_f32(m);
  lowbit::bind_depthwise_i8(m);
  lowbit::bind_pointwise(m);
  lowbit::bind_requantize(m);
  lowbit::bind_crc32(m);
  lowbit::bind_sparse(m);
  lowbit::bind_stochastic(m);
  lowbit::bind_gemm_i8(m);
  lowbit::bind_gradient_i8(m);
  lowbit::bind_huffman(m);
  lowbit::bind_probe(m);
  lowbit::bind_model(m);
  lowbit::bind_xnor(m);
}
