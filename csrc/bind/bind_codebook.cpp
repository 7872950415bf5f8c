#include "bind_conv2d_shape.h"
#include "lowbit/codebook.h"

namespace lowbit {
namespace {

using Clamp = std::optional<std::pair<float, float>>;

// Dense indices as Python holds them: bytes, and what they stand for.
int64_t check_packed(const char* function, const py::array& packed, int64_t n, int64_t k, int bits) {
  need_dtype(function, "packed", packed, DType::u8);
  need_rank(function, "packed", packed, 1);
  if (n < 0 || k < 0 || (k > 0 && n > (int64_t{1} << 46) / k)) {
    throw py::value_error(std::string(function) + ": indices of " + std::to_string(n) + " x " + std::to_string(k));
  }
  const int64_t bytes = index_bytes(n * k, bits);
  if (packed.size() != bytes) {
    throw py::value_error(std::string(function) + ": " + std::to_string(n) + " x " + std::to_string(k) +
                          " indices of " + std::to_string(bits) + " bits take " + std::to_string(bytes) +
                          " bytes, packed has " + std::to_string(packed.size()));
  }
  return n * k;
}

const uint8_t* bytes_of(const py::array& a) { return static_cast<const uint8_t*>(a.data()); }

// A codebook (entries,), (n, entries) or, with a group size, (groups, entries), and the array that it borrows.
template <typename T>
class CodebookHolder {
 public:
  CodebookHolder(const char* function, const py::array& values, std::optional<int64_t> group_size, int64_t n,
                 int64_t k) {
    need_dtype(function, "codebook", values, sizeof(T) == 1 ? DType::s8 : DType::f32);
    values_ = dense(values);
    if (values.ndim() != 1 && values.ndim() != 2) {
      throw py::value_error(std::string(function) + ": codebook has " + std::to_string(values.ndim()) +
                            " axes, must have 1 or 2");
    }
    c_.values = static_cast<const T*>(values_.data());
    c_.entries = values.shape(values.ndim() - 1);
    if (group_size) {
      c_.per = CodebookPer::columns;
      c_.group_size = *group_size;
      if (c_.group_size < 1) {
        throw py::value_error(std::string(function) + ": group_size is " + std::to_string(c_.group_size) +
                              ", must be at least 1");
      }
    } else if (values.ndim() == 2) {
      c_.per = CodebookPer::channel;
    }
    const int64_t rows = c_.rows(n, k), have = values.ndim() == 2 ? values.shape(0) : 1;
    if (have != rows || (group_size && values.ndim() != 2)) {
      throw py::value_error(std::string(function) + ": codebook is " + text(shape_of(values)) + ", " +
                            (group_size ? std::to_string(k) + " columns in groups of " + std::to_string(*group_size)
                                        : std::to_string(n) + " output channels") +
                            " need " + std::to_string(rows) + " rows");
    }
  }
  const Codebook<T>& get() const { return c_; }

 private:
  Codebook<T> c_;
  py::array values_;
};

py::array pack(const py::array& indices, int bits) {
  need_dtype("pack_indices", "indices", indices, DType::u8);
  const py::array from = dense(indices);
  py::array packed = py::array(numpy_dtype(DType::u8), Shape{index_bytes(from.size(), bits)});
  const uint8_t* data = bytes_of(from);
  auto* to = static_cast<uint8_t*>(packed.mutable_data());
  {
    py::gil_scoped_release release;
    pack_indices(data, from.size(), bits, to);
  }
  return packed;
}

py::array unpack(const py::array& packed, const Shape& shape, int bits, const py::object& out,
                 const std::optional<std::string>& isa, std::optional<int> threads) {
  constexpr const char* kName = "unpack_indices";
  const Isa level = isa_argument(isa);
  int64_t count = 1;
  for (py::ssize_t s : shape) count *= s;
  check_packed(kName, packed, 1, count, bits);
  const py::array from = dense(packed);
  py::array indices = output_array(kName, out, DType::u8, shape);
  const uint8_t* data = bytes_of(from);
  auto* to = static_cast<uint8_t*>(indices.mutable_data());
  {
    py::gil_scoped_release release;
    unpack_indices(data, count, bits, to, level, threads_argument(threads));
  }
  return indices;
}

template <typename T>
py::array decode(const py::array& packed, const Shape& shape, int bits, const py::array& codebook,
                 std::optional<int64_t> group_size, const py::object& out, const std::optional<std::string>& isa,
                 std::optional<int> threads) {
  constexpr const char* kName = "codebook_decode";
  const Isa level = isa_argument(isa);
  const int64_t n = shape.empty() ? 1 : shape[0];
  int64_t k = 1;
  for (size_t t = 1; t < shape.size(); ++t) k *= shape[t];
  check_packed(kName, packed, n, k, bits);
  const CodebookHolder<T> book(kName, codebook, group_size, n, k);
  const py::array from = dense(packed);
  py::array values = output_array(kName, out, sizeof(T) == 1 ? DType::s8 : DType::f32, shape);
  const uint8_t* data = bytes_of(from);
  auto* to = static_cast<T*>(values.mutable_data());
  {
    py::gil_scoped_release release;
    codebook_decode(data, n, k, bits, book.get(), to, level, threads_argument(threads));
  }
  return values;
}

py::tuple quantize(const py::array& codebook) {
  constexpr const char* kName = "quantize_codebook";
  const int64_t rows = codebook.ndim() == 2 ? codebook.shape(0) : 1;
  const CodebookHolder<float> book(kName, codebook, std::nullopt, rows, 1);
  py::array q(numpy_dtype(DType::s8), shape_of(codebook)), scale(numpy_dtype(DType::f32), Shape{rows});
  quantize_codebook(book.get(), rows, static_cast<int8_t*>(q.mutable_data()),
                    static_cast<float*>(scale.mutable_data()));
  return py::make_tuple(q, scale);
}

PackedCodebook pack_matrix(const py::array& packed, int64_t n, int64_t k, int bits, const py::array& codebook,
                           std::optional<int64_t> group_size) {
  constexpr const char* kName = "pack_codebook";
  check_packed(kName, packed, n, k, bits);
  const CodebookHolder<float> book(kName, codebook, group_size, n, k);
  const py::array from = dense(packed);
  const uint8_t* data = bytes_of(from);
  py::gil_scoped_release release;
  return pack_codebook(data, n, k, bits, book.get());
}

// The packer in Python: the codebook is copied when it is made.
CodebookPacker make_packer(int64_t n, int64_t k, int bits, const py::array& codebook,
                           std::optional<int64_t> group_size) {
  const CodebookHolder<float> book("pack_codebook", codebook, group_size, n, k);
  return CodebookPacker(n, k, bits, book.get());
}

EpilogueCodebook epilogue(const char* function, const std::optional<py::array>& bias, const Clamp& clamp, int64_t n) {
  EpilogueCodebook e;
  if (bias) {
    need_dtype(function, "bias", *bias, DType::f32);
    if (bias->ndim() != 1 || bias->size() != n) {
      throw py::value_error(std::string(function) + ": bias is " + text(shape_of(*bias)) + ", the output has " +
                            std::to_string(n) + " channels");
    }
    e.bias = static_cast<const float*>(bias->data());
  }
  if (clamp) std::tie(e.lo, e.hi) = *clamp;
  return e;
}

std::optional<py::array> dense_bias(const std::optional<py::array>& bias) {
  return bias ? std::optional<py::array>(dense(*bias)) : std::nullopt;
}

py::array gemm(const py::array& x, const PackedCodebook& w, bool int8, float x_scale,
               const std::optional<py::array>& bias, const Clamp& clamp, const py::object& out,
               const std::optional<std::string>& isa, std::optional<int> threads) {
  constexpr const char* kName = "codebook_gemm";
  const Isa level = isa_argument(isa);
  need_rank(kName, "x", x, 2);
  need_dtype(kName, "x", x, DType::f32);
  const int64_t m = x.shape(0), k = x.shape(1);
  if (k != w.k()) {
    throw py::value_error("codebook_gemm: x has k = " + std::to_string(k) + ", p has k = " + std::to_string(w.k()));
  }
  const py::array rows = dense(x);
  const auto kept_bias = dense_bias(bias);
  const EpilogueCodebook e = epilogue(kName, kept_bias, clamp, w.n());
  py::array y = output_array(kName, out, DType::f32, {m, w.n()});
  const auto* from = static_cast<const float*>(rows.data());
  auto* to = static_cast<float*>(y.mutable_data());
  {
    py::gil_scoped_release release;
    if (int8) {
      codebook_gemm_i8(from, m, k, x_scale, w, to, w.n(), e, level, threads_argument(threads));
    } else {
      codebook_gemm_f32(from, m, k, w, to, w.n(), e, level, threads_argument(threads));
    }
  }
  return y;
}

// Convolution weights with what their shape was.
struct ConvCodebook {
  PackedConvCodebook packed;
  int64_t oc, kh, kw, c, groups;
};

ConvCodebook pack_conv(const py::array& packed, const Shape& shape, int bits, const py::array& codebook,
                       std::optional<int64_t> group_size, int64_t groups) {
  constexpr const char* kName = "pack_conv_codebook";
  if (shape.size() != 4) {
    throw py::value_error("pack_conv_codebook: p is " + text(shape) + ", must be (oc, kh, kw, c / groups)");
  }
  ConvCodebook w{{}, shape[0], shape[1], shape[2], shape[3] * groups, groups};
  const int64_t k = shape[1] * shape[2] * shape[3];
  check_packed(kName, packed, w.oc, k, bits);
  const CodebookHolder<float> book(kName, codebook, group_size, w.oc, k);
  const py::array from = dense(packed);
  const uint8_t* data = bytes_of(from);
  py::gil_scoped_release release;
  w.packed =
      pack_conv_codebook(data, {.c = w.c, .oc = w.oc, .kh = w.kh, .kw = w.kw, .groups = groups}, bits, book.get());
  return w;
}

py::array convolve(const py::array& x, const ConvCodebook& w, const Pair& stride, const Padding& padding,
                   const Pair& dilation, bool int8, float x_scale, const std::optional<py::array>& bias,
                   const Clamp& clamp, const py::object& out, const std::optional<std::string>& isa,
                   std::optional<int> threads) {
  constexpr const char* kName = "codebook_conv2d";
  const Isa level = isa_argument(isa);
  const Conv2dShape s = conv2d_shape(kName, x, w.oc, w.kh, w.kw, stride, padding, dilation, w.groups);
  need_dtype(kName, "x", x, DType::f32);
  if (s.c != w.c) {
    throw py::value_error("codebook_conv2d: x has " + std::to_string(s.c) + " channels, p (with groups) has " +
                          std::to_string(w.c));
  }
  const py::array pixels = dense(x);
  const auto kept_bias = dense_bias(bias);
  const EpilogueCodebook e = epilogue(kName, kept_bias, clamp, s.oc);
  py::array y = output_array(kName, out, DType::f32, output_shape(s));
  const auto* from = static_cast<const float*>(pixels.data());
  auto* to = static_cast<float*>(y.mutable_data());
  {
    py::gil_scoped_release release;
    if (int8) {
      codebook_conv2d_i8(from, s.c, s, x_scale, w.packed, to, s.oc, e, level, threads_argument(threads));
    } else {
      codebook_conv2d_f32(from, s.c, s, w.packed, to, s.oc, e, level, threads_argument(threads));
    }
  }
  return y;
}

py::tuple cluster(const py::array& x, int64_t k, int init, uint64_t seed, int64_t max_iterations,
                  std::optional<int> threads) {
  need_dtype("kmeans1d", "x", x, DType::f32);
  if (k < 1 || k > 256) throw py::value_error("kmeans1d: k is " + std::to_string(k) + ", must be 1 to 256");
  const py::array from = dense(x);
  py::array codebook(numpy_dtype(DType::f32), Shape{k}), indices(numpy_dtype(DType::u8), shape_of(x));
  const auto* values = static_cast<const float*>(from.data());
  auto* centroids = static_cast<float*>(codebook.mutable_data());
  auto* to = static_cast<uint8_t*>(indices.mutable_data());
  {
    py::gil_scoped_release release;
    kmeans1d(values, from.size(), k, static_cast<KmeansInit>(init), seed, max_iterations, centroids, to,
             threads_argument(threads));
  }
  return py::make_tuple(codebook, indices);
}

}  // namespace

void bind_codebook(py::module_& m) {
  py::class_<PackedCodebook>(m, "PackedCodebook",
                             "Codebook weights in the kernels' order; made by lowbit.pack_codebook.")
      .def_property_readonly("shape", [](const PackedCodebook& w) { return py::make_tuple(w.n(), w.k()); })
      .def_property_readonly("bits", &PackedCodebook::bits)
      .def_property_readonly("nbytes", &PackedCodebook::bytes);
  py::class_<CodebookPacker>(m, "CodebookPacker",
                             "Tiles indices as they come, chunk by chunk in row-major order; see lowbit/codebook.h.")
      .def(py::init(&make_packer), py::arg("n"), py::arg("k"), py::arg("bits"), py::arg("codebook"),
           py::arg("group_size") = py::none())
      .def(
          "append",
          [](CodebookPacker& packer, const py::array& indices) {
            need_dtype("CodebookPacker.append", "indices", indices, DType::u8);
            const py::array from = dense(indices);
            const uint8_t* data = bytes_of(from);
            py::gil_scoped_release release;
            packer.append(data, from.size());
          },
          py::arg("indices"))
      .def(
          "append_packed",
          [](CodebookPacker& packer, const py::array& packed, int bits, int64_t count) {
            check_packed("CodebookPacker.append_packed", packed, 1, count, bits);
            const py::array from = dense(packed);
            const uint8_t* data = bytes_of(from);
            py::gil_scoped_release release;
            packer.append_packed(data, count);
          },
          py::arg("packed"), py::arg("bits"), py::arg("count"))
      .def("finish", &CodebookPacker::finish);
  py::class_<ConvCodebook>(m, "PackedConvCodebook",
                           "Codebook weights of codebook_conv2d in the kernels' order; made by "
                           "lowbit.pack_conv_codebook.")
      .def_property_readonly("shape",
                             [](const ConvCodebook& w) { return py::make_tuple(w.oc, w.kh, w.kw, w.c / w.groups); })
      .def_readonly("groups", &ConvCodebook::groups)
      .def_property_readonly("nbytes", [](const ConvCodebook& w) { return w.packed.bytes(); });
  m.def("pack_indices", &pack, py::arg("indices"), py::arg("bits"));
  m.def("unpack_indices", &unpack, py::arg("packed"), py::arg("shape"), py::arg("bits"), py::arg("out"), py::arg("isa"),
        py::arg("threads"));
  for (const bool int8 : {false, true}) {
    m.def(int8 ? "codebook_decode_i8" : "codebook_decode_f32", int8 ? &decode<int8_t> : &decode<float>,
          py::arg("packed"), py::arg("shape"), py::arg("bits"), py::arg("codebook"), py::arg("group_size"),
          py::arg("out"), py::arg("isa"), py::arg("threads"));
  }
  m.def("quantize_codebook", &quantize, py::arg("codebook"));
  m.def("pack_codebook", &pack_matrix, py::arg("packed"), py::arg("n"), py::arg("k"), py::arg("bits"),
        py::arg("codebook"), py::arg("group_size"));
  m.def("codebook_gemm", &gemm, py::arg("x"), py::arg("w"), py::arg("int8"), py::arg("x_scale"), py::arg("bias"),
        py::arg("clamp"), py::arg("out"), py::arg("isa"), py::arg("threads"));
  m.def("pack_conv_codebook", &pack_conv, py::arg("packed"), py::arg("shape"), py::arg("bits"), py::arg("codebook"),
        py::arg("group_size"), py::arg("groups"));
  m.def("codebook_conv2d", &convolve, py::arg("x"), py::arg("w"), py::arg("stride"), py::arg("padding"),
        py::arg("dilation"), py::arg("int8"), py::arg("x_scale"), py::arg("bias"), py::arg("clamp"), py::arg("out"),
        py::arg("isa"), py::arg("threads"));
  m.def("kmeans1d", &cluster, py::arg("x"), py::arg("k"), py::arg("init"), py::arg("seed"), py::arg("max_iterations"),
        py::arg("threads"));
}

}  // namespace lowbit
