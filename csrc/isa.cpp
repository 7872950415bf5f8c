// Which CPU features make a level, asked of the CPU and of the operating system.
#include "lowbit/isa.h"

#include <cstdlib>
#include <cstring>
#include <stdexcept>

#include "target.h"

#if LOWBIT_X86
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace lowbit {
namespace {

struct Row {
  Isa isa;
  const char* name;
};
constexpr Row kLevels[] = {{Isa::amx, "amx"},
                           {Isa::avx512, "avx512"},
                           {Isa::avx512_vnni, "avx512_vnni"},
                           {Isa::avx2, "avx2"},
                           {Isa::scalar, "scalar"}};

#if LOWBIT_X86

struct Regs {
  unsigned a = 0, b = 0, c = 0, d = 0;
};

Regs cpuid(unsigned leaf, unsigned sub = 0) {
  Regs r;
  if (__get_cpuid_max(leaf & 0x80000000u, nullptr) >= leaf) __cpuid_count(leaf, sub, r.a, r.b, r.c, r.d);
  return r;
}

uint64_t xcr0() {
  unsigned lo, hi;
  __asm__("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
  return (uint64_t{hi} << 32) | lo;
}

constexpr bool all(unsigned reg, std::initializer_list<int> bits) {
  for (int b : bits) {
    if (!(reg >> b & 1u)) return false;
  }
  return true;
}

// Linux gives a process the 8 KB tile state only on request (Documentation/arch/x86/xstate.rst); threads inherit it.
bool request_amx() {
  constexpr long kReqXcompPerm = 0x1023, kXtileData = 18;
  return syscall(SYS_arch_prctl, kReqXcompPerm, kXtileData) == 0;
}

Isa detect() {
  const Regs f1 = cpuid(1), f7 = cpuid(7), ext = cpuid(0x80000001u);
  if (!all(f1.c, {27})) return Isa::scalar;  // OSXSAVE
  const uint64_t state = xcr0();
  // PCLMULQDQ FMA SSE4.2 MOVBE POPCNT AVX F16C; BMI1 AVX2 BMI2; LZCNT; xmm and ymm state
  const bool avx2 =
      all(f1.c, {1, 12, 20, 22, 23, 28, 29}) && all(f7.b, {3, 5, 8}) && all(ext.c, {5}) && (state & 6) == 6;
  if (!avx2) return Isa::scalar;
  // F DQ CD BW VL; VNNI; opmask and zmm state
  const bool vnni = all(f7.b, {16, 17, 28, 30, 31}) && all(f7.c, {11}) && (state & 0xe0) == 0xe0;
  if (!vnni) return Isa::avx2;
  const bool avx512 = all(f7.c, {1, 6, 10, 12, 14});  // VBMI VBMI2 VPCLMULQDQ BITALG VPOPCNTDQ
  if (!avx512) return Isa::avx512_vnni;
  const bool amx = all(f7.d, {24, 25}) && (state & 0x60000) == 0x60000;  // TILE INT8; tile configuration and data state
  return amx && request_amx() ? Isa::amx : Isa::avx512;
}

#else
Isa detect() { return Isa::scalar; }
#endif

Isa machine_level() {
  static const Isa level = detect();
  return level;
}

std::string level_names() {
  std::string names;
  for (Isa isa : isas()) names += std::string(names.empty() ? "" : ", ") + isa_name(isa);
  return names;
}

}  // namespace

const char* isa_name(Isa isa) {
  for (const Row& row : kLevels) {
    if (row.isa == isa) return row.name;
  }
  return "?";
}

Isa parse_isa(std::string_view name) {
  for (const Row& row : kLevels) {
    if (name != row.name) continue;
    if (!isa_supported(row.isa)) {
      throw std::invalid_argument("isa: level '" + std::string(name) + "' is not on this machine, which has " +
                                  level_names());
    }
    return row.isa;
  }
  throw std::invalid_argument("isa: unknown level '" + std::string(name) + "'; this machine has " + level_names());
}

std::vector<Isa> isas() {
  std::vector<Isa> out;
  for (const Row& row : kLevels) {
    if (isa_supported(row.isa)) out.push_back(row.isa);
  }
  return out;
}

bool isa_supported(Isa isa) { return isa <= machine_level(); }

Isa best_isa() {
  const char* forced = std::getenv("LOWBIT_ISA");
  return forced && *forced ? parse_isa(forced) : machine_level();
}

std::string cpu_name() {
#if LOWBIT_X86
  unsigned words[12] = {};
  for (unsigned i = 0; i < 3; ++i) {
    const Regs r = cpuid(0x80000002u + i);
    const unsigned part[4] = {r.a, r.b, r.c, r.d};
    std::memcpy(words + 4 * i, part, sizeof(part));
  }
  char text[sizeof(words) + 1] = {};
  std::memcpy(text, words, sizeof(words));
  std::string name(text);
  const size_t first = name.find_first_not_of(' '), last = name.find_last_not_of(' ');
  if (first != std::string::npos) return name.substr(first, last - first + 1);
#endif
  return "unknown CPU";
}

}  // namespace lowbit
