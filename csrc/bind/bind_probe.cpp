#include <map>

#include "bind.h"
#include "lowbit/probe.h"

namespace lowbit {

void bind_probe(py::module_& m) {
  m.def(
      "peak_probe",
      [](const std::string& kind, double seconds) {
        static const std::map<std::string, Probe> kinds = {{"vnni", Probe::vnni},
                                                           {"amx", Probe::amx},
                                                           {"avx2", Probe::avx2},
                                                           {"fma", Probe::fma},
                                                           {"xnor", Probe::xnor}};
        const auto found = kinds.find(kind);
        if (found == kinds.end()) {
          throw std::invalid_argument("peak_probe: unknown kind '" + kind + "'; there are vnni, amx, avx2, fma, xnor");
        }
        Peak peak;
        {
          py::gil_scoped_release release;
          peak = peak_probe(found->second, seconds);
        }
        py::dict out;
        out["macs_per_second"] = peak.macs_per_second;
        out["clock_hz"] = peak.clock_hz;
        out["limit_per_cycle"] = peak.limit_per_cycle;
        out["valid"] = peak.valid;
        return out;
      },
      py::arg("kind"), py::arg("seconds") = 0.05);
}

}  // namespace lowbit
