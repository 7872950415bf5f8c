#include "array_argument.h"
#include "lowbit/huffman.h"

namespace lowbit {
namespace {

// Any object with a C-contiguous buffer of bytes, held while it is read.
class BytesArgument {
 public:
  BytesArgument(const char* function, const py::object& bytes) {
    if (!PyObject_CheckBuffer(bytes.ptr())) {
      throw py::type_error(std::string(function) + ": buf must be bytes or another buffer");
    }
    if (PyObject_GetBuffer(bytes.ptr(), &view_, PyBUF_SIMPLE)) throw py::error_already_set();
  }
  ~BytesArgument() { PyBuffer_Release(&view_); }
  BytesArgument(const BytesArgument&) = delete;
  BytesArgument& operator=(const BytesArgument&) = delete;
  std::span<const std::byte> span() const {
    return {static_cast<const std::byte*>(view_.buf), static_cast<size_t>(view_.len)};
  }

 private:
  Py_buffer view_{};
};

// A parsed stream and the object whose bytes it borrows.
struct BoundStream {
  explicit BoundStream(const py::object& bytes)
      : bytes(std::make_unique<BytesArgument>("HuffmanStream", bytes)), stream(this->bytes->span()) {}
  std::unique_ptr<BytesArgument> bytes;
  HuffmanStream stream;
};

py::bytes encode(const py::array& symbols, int layout, int pack, int64_t chunk, const std::optional<std::string>& isa,
                 std::optional<int> threads) {
  constexpr const char* kName = "huffman_encode";
  const Isa level = isa_argument(isa);
  need_dtype(kName, "symbols", symbols, DType::u8);
  const py::array rows = dense(symbols);
  const Shape shape = shape_of(symbols);
  const std::vector<int64_t> axes(shape.begin(), shape.end());
  const auto* from = static_cast<const uint8_t*>(rows.data());
  std::vector<std::byte> out;
  {
    py::gil_scoped_release release;
    out =
        huffman_encode(from, axes, {static_cast<HuffmanLayout>(layout), pack, chunk}, level, threads_argument(threads));
  }
  return py::bytes(reinterpret_cast<const char*>(out.data()), out.size());
}

// Decodes everything, or one chunk, into `out`, whose size and dtype are checked here.
void decode(const BoundStream& b, py::array& out, std::optional<int64_t> chunk, bool packed,
            const std::optional<std::string>& isa, std::optional<int> threads) {
  constexpr const char* kName = "huffman_decode";
  const Isa level = isa_argument(isa);
  const HuffmanStream& s = b.stream;
  const int64_t need = !chunk ? (packed ? s.packed_bytes() : s.symbols())
                              : (packed ? s.chunk_packed_bytes(*chunk) : s.chunk_symbols(*chunk));
  need_dtype(kName, "out", out, DType::u8);
  if (out.size() != need) {
    throw py::value_error("huffman_decode: out has " + std::to_string(out.size()) + " elements, the result has " +
                          std::to_string(need));
  }
  if (!(out.flags() & py::array::c_style)) throw py::value_error("huffman_decode: out must be in C order");
  auto* to = static_cast<uint8_t*>(out.mutable_data());
  py::gil_scoped_release release;
  if (!chunk) {
    packed ? s.decode_packed(to, level, threads_argument(threads)) : s.decode(to, level, threads_argument(threads));
  } else {
    packed ? s.decode_chunk_packed(*chunk, to, level) : s.decode_chunk(*chunk, to, level);
  }
}

}  // namespace

void bind_huffman(py::module_& m) {
  py::class_<BoundStream>(m, "HuffmanStream", "A Huffman stream whose header has been checked; keeps its bytes alive.")
      .def(py::init<const py::object&>(), py::arg("buf"))
      .def_property_readonly("layout", [](const BoundStream& b) { return static_cast<int>(b.stream.layout()); })
      .def_property_readonly("pack", [](const BoundStream& b) { return b.stream.pack(); })
      .def_property_readonly("shape", [](const BoundStream& b) { return py::tuple(py::cast(b.stream.shape())); })
      .def_property_readonly("symbols", [](const BoundStream& b) { return b.stream.symbols(); })
      .def_property_readonly("packed_bytes", [](const BoundStream& b) { return b.stream.packed_bytes(); })
      .def_property_readonly("header_bytes", [](const BoundStream& b) { return b.stream.header_bytes(); })
      .def_property_readonly("nbytes", [](const BoundStream& b) { return b.bytes->span().size(); })
      .def_property_readonly("code_lengths",
                             [](const BoundStream& b) {
                               const auto lengths = b.stream.code_lengths();
                               return py::bytes(reinterpret_cast<const char*>(lengths.data()), lengths.size());
                             })
      .def_property_readonly("chunks", [](const BoundStream& b) { return b.stream.chunks(); })
      .def("chunk_symbols", [](const BoundStream& b, int64_t i) { return b.stream.chunk_symbols(i); })
      .def("chunk_packed_bytes", [](const BoundStream& b, int64_t i) { return b.stream.chunk_packed_bytes(i); })
      .def("chunk_coded_bytes", [](const BoundStream& b, int64_t i) { return b.stream.chunk_coded_bytes(i); })
      .def("chunk_stored", [](const BoundStream& b, int64_t i) { return b.stream.chunk_stored(i); })
      .def("decode", &decode, py::arg("out"), py::arg("chunk"), py::arg("packed"), py::arg("isa"), py::arg("threads"));
  m.def("huffman_encode", &encode, py::arg("symbols"), py::arg("layout"), py::arg("pack"), py::arg("chunk"),
        py::arg("isa"), py::arg("threads"));
}

}  // namespace lowbit
