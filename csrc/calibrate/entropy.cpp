// With h = counts after bin 0 := bin 1, N their sum, A = h[0] + .. + h[i-1], out = N - A, t = h[i-1] + out and the
// groups' (G, z):
//
//   sum P log(P / Q) = 1/N [ sum_{k < i-1} h log h + t log t                        P log P, without its normalisation
//                            - sum_j G_j log(G_j / z_j) - out log(G_last / z_last) ]  P log Q: the outliers sit in the
//                            last group
//                      + log A - log N
//
// All but the sum over j are prefix sums or one logarithm per candidate; entropy_kernel.h has the sum over j.
#include <algorithm>
#include <bit>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include "calibrate/entropy_kernel.h"
#include "lowbit/calibrate.h"
#include "variant.h"

namespace lowbit {
namespace {

using entropy::log_scalar;
using entropy::RowFn;
using entropy::SumFn;

constexpr Variant<RowFn> kRow[] = {
#if defined(__x86_64__)
    {Isa::avx512_vnni, entropy::row_avx512_vnni},
    {Isa::avx2, entropy::row_avx2},
#endif
    {Isa::scalar, entropy::row_scalar},
};
constexpr Variant<SumFn> kSum[] = {
#if defined(__x86_64__)
    {Isa::avx512_vnni, entropy::sum_avx512_vnni},
    {Isa::avx2, entropy::sum_avx2},
#endif
    {Isa::scalar, entropy::sum_scalar},
};

// Divergences closer than this are a tie: several candidates can be exactly as good, and rounding must not choose.
constexpr double kTie = 1e-12;

[[noreturn]] void fail(const std::string& what) { throw std::invalid_argument("entropy_search: " + what); }

void check(const int64_t* counts, int64_t used, int64_t levels, const double* divergence) {
  if (!counts || !divergence) fail("counts or divergence is null");
  if (levels < 2 || levels > 65536 || !std::has_single_bit(static_cast<uint64_t>(levels))) {
    fail("levels = " + std::to_string(levels) + " is not a power of two in [2, 65536]");
  }
  // 2^31 / levels keeps j * i in 32 bits
  if (used < levels || used > std::min<int64_t>(int64_t{1} << 20, (int64_t{1} << 30) / levels)) {
    fail("used = " + std::to_string(used) + " is below levels = " + std::to_string(levels) + " or too large");
  }
  int64_t total = 0;
  for (int64_t k = 0; k < used; ++k) {
    if (counts[k] < 0) fail("counts[" + std::to_string(k) + "] = " + std::to_string(counts[k]) + " is negative");
    if (__builtin_add_overflow(total, counts[k], &total) || total >= int64_t{1} << 52) fail("more than 2^52 values");
  }
  if (counts[used - 1] == 0) fail("counts[used - 1 = " + std::to_string(used - 1) + "] is zero");
}

}  // namespace

int64_t entropy_search(const int64_t* counts, int64_t used, int64_t levels, bool literal_bin0, double* divergence,
                       Isa isa) {
  check(counts, used, levels, divergence);
  const RowFn fill = pick(kRow, isa);
  const SumFn sum = pick(kSum, isa);
  const size_t size = static_cast<size_t>(used) + 1;
  std::vector<double> sums(size), h_log_h(size), log_of(size), rows(2 * size);
  std::vector<int32_t> nonzero(size);
  for (int64_t k = 0; k < used; ++k) {
    const double h = static_cast<double>(k == 0 && !literal_bin0 ? counts[1] : counts[k]);
    sums[k + 1] = sums[k] + h;  // exact: integers below 2^53
    nonzero[k + 1] = nonzero[k] + (h > 0);
    h_log_h[k + 1] = h_log_h[k] + (h > 0 ? h * log_scalar(h) : 0.0);
  }
  const int shift = std::countr_zero(static_cast<uint64_t>(levels));
  for (int64_t z = 1; z <= used / levels + 1; ++z) log_of[z] = log_scalar(static_cast<double>(z));

  // Rows of width w and w + 1 for the candidates [levels w, levels (w + 1)); the wider row moves down for the next w.
  const int64_t stride = static_cast<int64_t>(size);
  const auto fill_row = [&](int64_t w, int64_t candidates, double* row) {
    const int64_t starts = std::min(used, candidates) - w + 1;
    if (starts > 0) fill(sums.data(), nonzero.data(), log_of.data(), w, starts, row);
  };
  const double total = sums[used], log_total = log_scalar(total);
  double* narrow = rows.data();
  for (int64_t w = 1; w * levels <= used; ++w) {
    if (w == 1) {
      fill_row(1, 2 * levels, narrow);
    } else {
      std::copy(narrow + stride, narrow + 2 * stride, narrow);
    }
    fill_row(w + 1, (w + 2) * levels, narrow + stride);
    for (int64_t i = w * levels; i <= std::min(used, (w + 1) * levels - 1); ++i) {
      double& out = divergence[i - levels];
      const double outliers = total - sums[i], last = sums[i] - sums[i - 1];
      if (last == 0) {
        out = std::numeric_limits<double>::infinity();
        continue;
      }
      const int64_t start = ((levels - 1) * i) >> shift;
      const double in_last = last + outliers;
      const double log_level = log_scalar(sums[i] - sums[start]) - log_of[nonzero[i] - nonzero[start]];
      const double entropy = h_log_h[i - 1] + in_last * log_scalar(in_last);
      const double cross = sum(narrow, stride, i, shift, w) + outliers * log_level;
      out = std::max((entropy - cross) / total + (log_scalar(sums[i]) - log_total), 0.0);
    }
  }
  const int64_t candidates = used - levels + 1;
  const double least = *std::min_element(divergence, divergence + candidates);
  return levels +
         (std::find_if(divergence, divergence + candidates, [&](double d) { return d <= least + kTie; }) - divergence);
}

}  // namespace lowbit
