#include "bind.h"
#include "crc32/crc32.h"

namespace lowbit {

void bind_crc32(py::module_& m) {
  m.def(
      "crc32",
      [](const py::buffer& data, uint32_t previous, const std::optional<std::string>& isa) {
        const py::buffer_info info = data.request();
        const Isa level = isa_argument(isa);
        const auto* bytes = static_cast<const std::byte*>(info.ptr);
        const auto count = static_cast<size_t>(info.size * info.itemsize);
        if (PyBuffer_IsContiguous(info.view(), 'C') == 0) throw py::value_error("crc32: the bytes are not contiguous");
        py::gil_scoped_release release;
        return crc32({bytes, count}, previous, level);
      },
      py::arg("data"), py::arg("previous") = 0, py::arg("isa") = py::none());
}

}  // namespace lowbit
