// Calibration: streaming histograms that merge exactly, and the search for the clipping threshold.
//
// A histogram has bins of width 2^exponent, the bin of x being floor(|x| / 2^exponent), apart for x < 0 and x >= 0
// (-0.0 counts as 0). Its exponent is a function of the largest |x| seen alone: max(floor(log2 max|x|) - log2(bins),
// kMinExponent), so between bins + 1 and 2 * bins bins are in use. Widths are powers of two, and folding pairs of bins
// gives exactly the counts that the wider bins would have had: the state is a function of the values, whatever their
// order and however they were split.
#pragma once

#include <cstdint>

#include "lowbit/export.h"
#include "lowbit/isa.h"

namespace lowbit {

// 2^-kMinExponent must be a finite float: below max|x| = 2^-115 (at 2048 bins) fewer bins are in use.
inline constexpr int kMinExponent = -126;

// State of a streaming histogram. counts is the caller's: [2][2 * bins], x >= 0 first, then x < 0; all zero at the
// start.
struct Histogram {
  int64_t* counts = nullptr;
  int64_t bins = 2048;  // a power of two in [16, 65536]
  int exponent = kMinExponent;
  int64_t count = 0;  // values seen
  float lo = 0.0f;    // smallest and largest of them; meaningless while count is 0
  float hi = 0.0f;
};

// Smallest and largest of n >= 1 floats. Throws std::invalid_argument, naming the index, where one is NaN or infinite.
LOWBIT_API void finite_range(const float* x, int64_t n, float& lo, float& hi, Isa isa = best_isa(), int threads = 0);

// Adds 0 <= n <= 2^31 values, folding as the range grows. NaN or infinity: throws as finite_range and leaves the state
// as it was.
LOWBIT_API void histogram_observe(Histogram& h, const float* x, int64_t n, Isa isa = best_isa(), int threads = 0);

// Folds pairs of bins until the width is 2^exponent (>= h.exponent).
LOWBIT_API void histogram_fold(Histogram& h, int exponent);

// The entropy search of TensorRT (Migacz, GTC 2017): counts[0..used) of |x|, counts[used - 1] > 0, total < 2^53; levels
// a power of two <= used. Unless literal_bin0, bin 0 is first replaced by bin 1. For i = levels .. used, the last being
// "no clipping":
//   P = counts[0..i) with the sum of counts[i..used) added to its last bin, normalised
//   Q = counts[0..i) without it, group j = [floor(j i / levels), floor((j + 1) i / levels)) replaced by its sum over
//   its number
//       of non-zero bins, zero bins kept zero, normalised
//   divergence[i - levels] = sum P log(P / Q), in nats; infinite where P > 0 and Q = 0
// Returns the first i whose divergence is within 1e-12 of the smallest. At least one is finite (i = used: Q is zero
// only where P is). Bit-identical on every level: the logarithm is our own, and sums have one order.
LOWBIT_API int64_t entropy_search(const int64_t* counts, int64_t used, int64_t levels, bool literal_bin0,
                                  double* divergence, Isa isa = best_isa());

}  // namespace lowbit
