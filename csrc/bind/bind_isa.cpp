#include "bind.h"
#include "lowbit/threads.h"

namespace lowbit {

void bind_isa(py::module_& m) {
  m.def("isas", [] {
    std::vector<std::string> names;
    for (Isa isa : isas()) names.emplace_back(isa_name(isa));
    return names;
  });
  m.def("best_isa", [] { return std::string(isa_name(best_isa())); });
  m.def("parse_isa", [](const std::string& name) { return std::string(isa_name(parse_isa(name))); }, py::arg("name"));
  m.def("cpu_name", &cpu_name);
  m.def("num_threads", &num_threads);
  m.def("set_num_threads", &set_num_threads, py::arg("n"));
}

}  // namespace lowbit
