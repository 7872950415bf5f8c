// Quantisation of gradients for training in 8 bits (Zhu et al. 2020, "Towards Unified INT8 Training"): stochastic
// rounding by a counter-based generator, and how far a clip turns a gradient's direction.
//
// With v = x * (1 / scale) and c = min(max(v, -127), 127), single rounded binary32 operations:
//
//   stochastic   q = floor(c) + [u < c - floor(c)]      u uniform on {0, 1, ..., 2^24 - 1} / 2^24
//   nearest      q = rint(c)                            half to even
//
// The mean of q is c to within 2^-24. Element i's u is word / 2^8 / 2^24 of word i % 64 / 16 of Philox4x32-10 (Salmon,
// Moraes, Dror, Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3") with key = seed and counter
// (16 * (i / 64) + i % 16, stream), each a 64-bit number, low word first. So the same seed and stream give the same
// codes on every level and thread count.
//
// The sums below are taken in a fixed order too: float32 in each of 16 lanes (element i in lane i % 16) over 1024
// elements, lanes then added as float64, then those of 65536 elements, then all.
#pragma once

#include <cstdint>

#include "lowbit/export.h"
#include "lowbit/isa.h"

namespace lowbit {

// Of the unclipped v and its codes: sums of v q, v v, q q; the greatest |x|.
struct QuantizeSums {
  double vq = 0, vv = 0, qq = 0;
  float peak = 0;

  // 1 - cos(x, q): 0 where x is zero (nothing to lose), 1 where only q is.
  LOWBIT_API double deviation() const noexcept;
};

// codes[i] = q + 128. Throws std::invalid_argument where an x is not finite, or scale is not in [2^-126, 2^126].
LOWBIT_API QuantizeSums quantize_stochastic(const float* x, int64_t n, float scale, uint64_t seed, uint64_t stream,
                                            uint8_t* codes, Isa isa = best_isa(), int threads = 0);

// sums[k] of x rounded to nearest with scales[k], without keeping the codes. Throws as above.
LOWBIT_API void quantize_sums(const float* x, int64_t n, const float* scales, int64_t count, QuantizeSums* sums,
                              Isa isa = best_isa(), int threads = 0);

}  // namespace lowbit
