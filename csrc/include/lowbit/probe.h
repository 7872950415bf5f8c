// The physical limit of one core of this machine, measured with loops that live in registers: the denominator of
// bench/.
//
//   vnni   int8 multiply-accumulates by vpdpbusd zmm
//   amx    int8 multiply-accumulates by tdpbusd on full tiles (16 x 64 times 64 x 16)
//   avx2   int8 already widened to int16, exactly: vpmaddwd ymm. Each needs a vpaddd too, so a product on three vector
//   ports
//          (Intel) stays below 3/4 of this
//   xnor   products of +-1 by vpxord, vpopcntd, vpaddd zmm
//   fma    float32 by vfmadd231ps, zmm where the machine has AVX-512, else ymm
//
// The clock is read in the same bursts from a chain of dependent multiplications (imul r64: 3 cycles on every x86-64
// since Nehalem and Zen). Dependent additions of constants would not do: Golden Cove removes them at rename and such a
// chain reads 15 GHz. A reading counts (`valid`) only where macs_per_second is at least 97 % of limit_per_cycle *
// clock_hz.
#pragma once

#include "lowbit/export.h"

namespace lowbit {

enum class Probe { vnni, amx, avx2, fma, xnor };

struct Peak {
  double macs_per_second = 0;
  double clock_hz = 0;
  double limit_per_cycle =
      0;  // MACs that this kind of core can start in a cycle: the table entry nearest above the reading
  bool valid = false;
};

// Runs for about `seconds` on the calling thread, in bursts of which the best counts. Throws std::invalid_argument
// where the machine lacks the instruction or seconds is not in (0, 10].
LOWBIT_API Peak peak_probe(Probe probe, double seconds = 0.05);

}  // namespace lowbit
