// A block's range comes first (it may widen the bins), then its counts, in tables of the thread that join the caller's
// counts at the end: a bad value must leave no trace.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <mutex>
#include <stdexcept>
#include <string>
#include <vector>

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
constexpr int64_t kGrain = 1 << 16;               // below this a second thread costs more than it brings
constexpr int64_t kBlock = 1 << 15;               // 128 KB: in the second-level cache between range and counts
constexpr int64_t kDirect = 1 << 11;              // below this, clearing and adding the tables would dominate
constexpr int64_t kMaxValues = int64_t{1} << 31;  // of a call, so that a table's counts fit in 32 bits

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

[[noreturn]] void refuse(const char* function, const float* x, int64_t n) {
  int64_t i = 0;
  while (std::isfinite(x[i])) ++i;
  fail(function, "the value at index " + std::to_string(i) + " of " + std::to_string(n) + " is " +
                     (std::isnan(x[i]) ? "NaN"
                      : x[i] > 0       ? "infinite"
                                       : "-infinite"));
}

struct Range {
  float lo, hi;
  uint32_t magnitude = 0;  // bits of the largest absolute value; kInfinity and above: a value is not finite

  explicit Range(float x) : lo(x), hi(x) {}
  void extend(const Range& other) {
    lo = std::min(lo, other.lo);
    hi = std::max(hi, other.hi);
    magnitude = std::max(magnitude, other.magnitude);
  }
};

Range range_of(RangeFn range, const float* x, int64_t n) {
  Range r(x[0]);
  r.magnitude = range(x, n, r.lo, r.hi);
  return r;
}

Range checked_range(const char* function, const float* x, int64_t n, Isa isa, int threads) {
  const RangeFn range = pick(kRange, isa);
  Range all(x[0]);
  std::mutex join;
  parallel_for(threads, n, kGrain, [&](int64_t begin, int64_t end) {
    const Range own = range_of(range, x + begin, end - begin);
    std::lock_guard<std::mutex> hold(join);
    all.extend(own);
  });
  if (all.magnitude >= kInfinity) refuse(function, x, n);
  return all;
}

int exponent_for(uint32_t magnitude, int64_t bins) {
  return std::max(static_cast<int>(magnitude >> 23) - 127 - log2_of(bins), kMinExponent);
}

float scale_for(int exponent) { return std::ldexp(1.0f, -exponent); }

// counts [rows][side]: pairs of bins join, shift times.
template <typename T>
void fold(T* counts, int rows, int64_t side, int shift) {
  shift = std::min(shift, log2_of(side));
  if (shift == 0) return;
  for (int r = 0; r < rows; ++r, counts += side) {
    for (int64_t i = 0; i < side; ++i) {
      const T count = counts[i];
      counts[i] = 0;  // before the sum: bin 0 folds onto itself
      counts[i >> shift] += count;
    }
  }
}

// What one thread counted, in tables [kTables][2][side] of its own width.
struct Part {
  Range range;
  int exponent;
  uint32_t* tables;
};

// Block by block, so that the second look at a block finds it in the cache. Stops where a value is not finite.
void count_part(Part& part, const float* x, int64_t n, int64_t bins, RangeFn range, CountFn count) {
  const int64_t side = 2 * bins;
  std::memset(part.tables, 0, static_cast<size_t>(kTables * 2 * side) * sizeof(uint32_t));
  for (int64_t begin = 0; begin < n; begin += kBlock) {
    const int64_t size = std::min(kBlock, n - begin);
    part.range.extend(range_of(range, x + begin, size));
    if (part.range.magnitude >= kInfinity) return;
    const int needed = exponent_for(part.range.magnitude, bins);
    if (needed > part.exponent) {
      fold(part.tables, 2 * kTables, side, needed - part.exponent);
      part.exponent = needed;
    }
    count(x + begin, size, scale_for(part.exponent), static_cast<uint32_t>(side), part.tables);
  }
}

void add_part(Histogram& h, const Part& part) {
  const int64_t side = 2 * h.bins;
  fold(part.tables, 2 * kTables, side, h.exponent - part.exponent);
  const int64_t used = static_cast<int64_t>(std::bit_cast<float>(part.range.magnitude) * scale_for(h.exponent)) + 1;
  for (int row = 0; row < 2 * kTables; ++row) {
    int64_t* counts = h.counts + row % 2 * side;
    for (int64_t i = 0; i < used; ++i) counts[i] += part.tables[row * side + i];
  }
}

Range count_directly(Histogram& h, const float* x, int64_t n, Isa isa) {
  const Range all = checked_range("histogram_observe", x, n, isa, 1);
  histogram_fold(h, std::max(h.exponent, exponent_for(all.magnitude, h.bins)));
  const float scale = scale_for(h.exponent);
  for (int64_t i = 0; i < n; ++i) {
    ++h.counts[x[i] < 0 ? 2 * h.bins + static_cast<int64_t>(-x[i] * scale) : static_cast<int64_t>(x[i] * scale)];
  }
  return all;
}

Range count_in_parts(Histogram& h, const float* x, int64_t n, Isa isa, int threads) {
  const int64_t size = kTables * 4 * h.bins, parts = std::min<int64_t>(threads, (n + kGrain - 1) / kGrain);
  uint32_t* tables = scratch<uint32_t>(ScratchSlot::histogram, static_cast<size_t>(parts * size));
  std::vector<Part> part(static_cast<size_t>(parts), Part{Range(x[0]), h.exponent, nullptr});
  const RangeFn range = pick(kRange, isa);
  const CountFn count = pick(kCount, isa);
  parallel(static_cast<int>(parts), [&](int p, int total) {
    const int64_t begin = n * p / total, end = n * (p + 1) / total;
    part[p].tables = tables + p * size;
    count_part(part[p], x + begin, end - begin, h.bins, range, count);
  });
  Range all(x[0]);
  for (const Part& p : part) all.extend(p.range);
  if (all.magnitude >= kInfinity) refuse("histogram_observe", x, n);
  histogram_fold(h, std::max(h.exponent, exponent_for(all.magnitude, h.bins)));
  for (const Part& p : part) add_part(h, p);
  return all;
}

}  // namespace

void finite_range(const float* x, int64_t n, float& lo, float& hi, Isa isa, int threads) {
  check_values("finite_range", x, n);
  if (n == 0) fail("finite_range", "no values");
  const Range all = checked_range("finite_range", x, n, isa, resolve_threads(threads));
  lo = all.lo + 0.0f;  // -0.0 becomes 0.0: which of the two came first must not show
  hi = all.hi + 0.0f;
}

void histogram_fold(Histogram& h, int exponent) {
  check_histogram("histogram_fold", h);
  if (exponent < h.exponent || exponent > 127 - log2_of(h.bins)) {
    fail("histogram_fold", "exponent = " + std::to_string(exponent) + " is not in [" + std::to_string(h.exponent) +
                               ", " + std::to_string(127 - log2_of(h.bins)) + "]");
  }
  fold(h.counts, 2, 2 * h.bins, exponent - h.exponent);
  h.exponent = exponent;
}

void histogram_observe(Histogram& h, const float* x, int64_t n, Isa isa, int threads) {
  check_histogram("histogram_observe", h);
  check_values("histogram_observe", x, n);
  if (n > kMaxValues) fail("histogram_observe", std::to_string(n) + " values in one call, more than 2^31");
  threads = resolve_threads(threads);
  if (n == 0) return;
  const Range all = n <= kDirect ? count_directly(h, x, n, isa) : count_in_parts(h, x, n, isa, threads);
  h.lo = h.count ? std::min(h.lo, all.lo + 0.0f) : all.lo + 0.0f;
  h.hi = h.count ? std::max(h.hi, all.hi + 0.0f) : all.hi + 0.0f;
  h.count += n;
}

}  // namespace lowbit
