// Prints what one core of this machine could do at most (lowbit/probe.h). Exit status 1 where a reading does not count.
#include <cstdio>
#include <stdexcept>

#include "lowbit/lowbit.h"

int main() {
  constexpr struct {
    lowbit::Probe probe;
    const char* name;
  } kProbes[] = {{lowbit::Probe::fma, "fma"},
                 {lowbit::Probe::avx2, "avx2"},
                 {lowbit::Probe::vnni, "vnni"},
                 {lowbit::Probe::amx, "amx"},
                 {lowbit::Probe::xnor, "xnor"}};
  bool all_valid = true;
  std::printf("%s\n", lowbit::cpu_name().c_str());
  for (const auto& [probe, name] : kProbes) {
    try {
      const lowbit::Peak p = lowbit::peak_probe(probe, 0.2);
      std::printf("%-5s %8.1f GMAC/s at %.2f GHz = %6.1f of %4.0f MACs per cycle%s\n", name, p.macs_per_second * 1e-9,
                  p.clock_hz * 1e-9, p.macs_per_second / p.clock_hz, p.limit_per_cycle,
                  p.valid ? "" : "  (does not count)");
      all_valid = all_valid && p.valid;
    } catch (const std::invalid_argument&) {
      std::printf("%-5s not on this machine\n", name);
    }
  }
  return all_valid ? 0 : 1;
}
