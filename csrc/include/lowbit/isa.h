// Instruction-set levels: named bundles of CPU features, chosen at run time.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "lowbit/export.h"

namespace lowbit {

// Ordered: a level includes every lower one, and a kernel without a variant at a level runs the best variant below it.
//   avx2         x86-64-v3 (AVX2, FMA, BMI1/2, F16C) and PCLMULQDQ, which every such CPU has
//   avx512_vnni  AVX-512 F BW DQ VL VNNI (Cascade Lake and later)
//   avx512       the same and VBMI VBMI2 BITALG VPOPCNTDQ VPCLMULQDQ (Ice Lake and later, Zen 4 and later)
//   amx          the same and AMX-TILE AMX-INT8, granted by the OS (Sapphire Rapids and later)
enum class Isa : int { scalar = 0, avx2 = 1, avx512_vnni = 2, avx512 = 3, amx = 4 };

// "scalar", "avx2", ...
LOWBIT_API const char* isa_name(Isa isa);

// Throws std::invalid_argument where the name is unknown or the level is not on this machine.
LOWBIT_API Isa parse_isa(std::string_view name);

// The levels of this machine (CPU and operating system), best first; ends with scalar.
LOWBIT_API std::vector<Isa> isas();
LOWBIT_API bool isa_supported(Isa isa);

// The default of every door: LOWBIT_ISA if it is set (an unknown or unsupported one throws), else the best level.
LOWBIT_API Isa best_isa();

// Brand string of the CPU, or "unknown CPU".
LOWBIT_API std::string cpu_name();

}  // namespace lowbit
