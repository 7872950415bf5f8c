// Two passes: the range first (it decides the width of the bins, and a bad value must leave no trace), then the counts.
#include <bit>
#include <cmath>
#include <cstring>
#include <mutex>
#include <stdexcept>
#include <string>

#include "calibrate/histogram_kernel.h"
#include "lowbit/calibrate.h"
#include "scratch.h"
#include "thread_pool.h"
#include "variant.h"

namespace lowbit {
namespace {

using histogram::CountFn;
using histogram::kTables;
using histogram::RangeFn;

constexpr Variant<RangeFn> kRange[] = {
#if defined(__x86_64__)
    {Isa::avx512_vnni, histogram::range_avx512_vnni},
    {Isa::avx2, histogram::range_avx2},
#endif
    {Isa::scalar, histogram::range_scalar},
};
constexpr Variant<CountFn> kCount[] = {
#if defined(__x86_64__)
    {Isa::avx512_vnni, histogram::count_avx512_vnni},
    {Isa::avx2, histogram::count_avx2},
#endif
    {Isa::scalar, histogram::count_scalar},
};

constexpr uint32_t kInfinity = 0x7f800000u;
constexpr int64_t kGrain = 1 << 16;   // below this a second thread costs more than it brings
constexpr int64_t kBlock = 1 << 30;   // counts of one block fit in 32 bits
constexpr int64_t kDirect = 1 << 11;  // below this, clearing and adding the tables would dominate

[[noreturn]] void fail(const char* function, const std::string& what) {
  throw std::invalid_argument(std::string(function) + ": " + what);
}

void check_values(const char* function, const float* x, int64_t n) {
  if (n < 0) fail(function, "n = " + std::to_string(n) + " is negative");
  if (n > 0 && !x) fail(function, "x is null and n = " + std::to_string(n));
}

int log2_of(int64_t bins) { return std::countr_zero(static_cast<uint64_t>(bins)); }

void check_histogram(const char* function, const Histogram& h) {
  if (!h.counts) fail(function, "counts is null");
  if (h.bins < 16 || h.bins > 65536 || !std::has_single_bit(static_cast<uint64_t>(h.bins))) {
    fail(function, "bins = " + std::to_string(h.bins) + " is not a power of two in [16, 65536]");
  }
  if (h.exponent < kMinExponent || h.exponent > 127 - log2_of(h.bins)) {
    fail(function, "exponent = " + std::to_string(h.exponent) + " is not in [" + std::to_string(kMinExponent) + ", " +
                       std::to_string(127 - log2_of(h.bins)) + "]");
  }
}

// The range and the largest magnitude's bits.
uint32_t checked_range(const char* function, const float* x, int64_t n, float& lo, float& hi, Isa isa, int threads) {
  const RangeFn range = pick(kRange, isa);
  uint32_t magnitude = 0;
  lo = hi = x[0];
  std::mutex join;
  parallel_for(threads, n, kGrain, [&](int64_t begin, int64_t end) {
    float low, high;
    const uint32_t bits = range(x + begin, end - begin, low, high);
    std::lock_guard<std::mutex> hold(join);
    magnitude = std::max(magnitude, bits);
    lo = std::min(lo, low);
    hi = std::max(hi, high);
  });
  if (magnitude >= kInfinity) {
    int64_t i = 0;
    while (std::isfinite(x[i])) ++i;
    fail(function, "the value at index " + std::to_string(i) + " of " + std::to_string(n) + " is " +
                       (std::isnan(x[i]) ? "NaN"
                        : x[i] > 0       ? "infinite"
                                         : "-infinite"));
  }
  lo += 0.0f;  // -0.0 becomes 0.0: which of the two came first must not show
  hi += 0.0f;
  return magnitude;
}

void count_directly(const float* x, int64_t n, float scale, int64_t side, int64_t* counts) {
  for (int64_t i = 0; i < n; ++i) {
    ++counts[x[i] < 0 ? side + static_cast<int64_t>(-x[i] * scale) : static_cast<int64_t>(x[i] * scale)];
  }
}

void count_block(const float* x, int64_t n, float scale, int64_t side, int64_t used, bool negative, CountFn count,
                 uint32_t* tables, int64_t* counts, std::mutex& join) {
  const int sides = negative ? 2 : 1;
  for (int t = 0; t < kTables; ++t) {
    for (int s = 0; s < sides; ++s)
      std::memset(tables + (2 * t + s) * side, 0, static_cast<size_t>(used) * sizeof(uint32_t));
  }
  count(x, n, scale, static_cast<uint32_t>(side), tables);
  std::lock_guard<std::mutex> hold(join);
  for (int s = 0; s < sides; ++s) {
    const uint32_t *a = tables + s * side, *b = a + 2 * side, *c = b + 2 * side, *d = c + 2 * side;
    int64_t* out = counts + s * side;
    for (int64_t i = 0; i < used; ++i) out[i] += static_cast<int64_t>(a[i]) + b[i] + c[i] + d[i];
  }
}

}  // namespace

void finite_range(const float* x, int64_t n, float& lo, float& hi, Isa isa, int threads) {
  check_values("finite_range", x, n);
  if (n == 0) fail("finite_range", "no values");
  checked_range("finite_range", x, n, lo, hi, isa, resolve_threads(threads));
}

void histogram_fold(Histogram& h, int exponent) {
  check_histogram("histogram_fold", h);
  if (exponent < h.exponent || exponent > 127 - log2_of(h.bins)) {
    fail("histogram_fold", "exponent = " + std::to_string(exponent) + " is not in [" + std::to_string(h.exponent) +
                               ", " + std::to_string(127 - log2_of(h.bins)) + "]");
  }
  const int64_t side = 2 * h.bins;
  const int shift = std::min(exponent - h.exponent, log2_of(side));
  h.exponent = exponent;
  if (shift == 0) return;
  for (int s = 0; s < 2; ++s) {
    int64_t* counts = h.counts + s * side;
    for (int64_t i = 0; i < side; ++i) {
      const int64_t count = counts[i];
      counts[i] = 0;  // before the sum: bin 0 folds onto itself
      counts[i >> shift] += count;
    }
  }
}

void histogram_observe(Histogram& h, const float* x, int64_t n, Isa isa, int threads) {
  check_histogram("histogram_observe", h);
  check_values("histogram_observe", x, n);
  threads = resolve_threads(threads);
  if (n == 0) return;
  float lo, hi;
  const uint32_t magnitude = checked_range("histogram_observe", x, n, lo, hi, isa, threads);
  const int needed = static_cast<int>(magnitude >> 23) - 127 - log2_of(h.bins);
  if (needed > h.exponent) histogram_fold(h, needed);

  const float scale = std::ldexp(1.0f, -h.exponent);
  const int64_t side = 2 * h.bins;
  if (n <= kDirect) {
    count_directly(x, n, scale, side, h.counts);
  } else {
    const int64_t used = static_cast<int64_t>(std::bit_cast<float>(magnitude) * scale) + 1;
    const CountFn count = pick(kCount, isa);
    std::mutex join;
    // Threads take their tables here, where running out of memory may still throw; they clear what they use.
    const int64_t parts = std::min<int64_t>(threads, (n + kGrain - 1) / kGrain);
    const int64_t size = 2 * side * kTables;
    uint32_t* tables = scratch<uint32_t>(ScratchSlot::histogram, static_cast<size_t>(parts * size));
    parallel(static_cast<int>(parts), [&](int part, int total) {
      const int64_t begin = n * part / total, end = n * (part + 1) / total;
      for (int64_t at = begin; at < end; at += kBlock) {
        count_block(x + at, std::min(kBlock, end - at), scale, side, used, lo < 0, count, tables + part * size,
                    h.counts, join);
      }
    });
  }
  h.lo = h.count ? std::min(h.lo, lo) : lo;
  h.hi = h.count ? std::max(h.hi, hi) : hi;
  h.count += n;
}

}  // namespace lowbit
