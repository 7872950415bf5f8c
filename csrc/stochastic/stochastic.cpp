#include "lowbit/stochastic.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <stdexcept>
#include <string>

#include "scratch.h"
#include "stochastic/stochastic_kernel.h"
#include "target.h"
#include "thread_pool.h"
#include "variant.h"

namespace lowbit {
namespace {

using namespace stochastic;

constexpr Variant<RoundFn*> kRound[] = {
#if LOWBIT_X86
    {Isa::avx512_vnni, round_avx512_vnni},
    {Isa::avx2, round_avx2},
#endif
    {Isa::scalar, round_scalar},
};
constexpr Variant<MeasureFn*> kMeasure[] = {
#if LOWBIT_X86
    {Isa::avx512_vnni, measure_avx512_vnni},
    {Isa::avx2, measure_avx2},
#endif
    {Isa::scalar, measure_scalar},
};

constexpr int64_t kPart = 1 << 16;  // elements whose sums one thread takes in order
constexpr uint32_t kInfinity = 0x7f800000u;
static_assert(kPart % kBlock == 0);

[[noreturn]] void fail(const char* function, const std::string& what) {
  throw std::invalid_argument(std::string(function) + ": " + what);
}

void check(const char* function, const float* x, int64_t n, const float* scales, int64_t count) {
  if (n < 0 || n > int64_t{1} << 46) fail(function, "n = " + std::to_string(n) + " is not in [0, 2^46]");
  if (n > 0 && !x) fail(function, "x is null");
  for (int64_t k = 0; k < count; ++k) {
    if (!(scales[k] >= 0x1p-126f && scales[k] <= 0x1p126f)) {
      fail(function, "scale " + std::to_string(scales[k]) + " is not in [2^-126, 2^126]");
    }
  }
}

// body(begin, end, count sums) for every part of [0, n); the parts' sums in order, one after the other in scratch.
template <typename Body>
const Sums* sum_parts(int64_t n, int64_t count, int threads, Body&& body) {
  const int64_t parts = (n + kPart - 1) / kPart;
  Sums* sums = scratch<Sums>(ScratchSlot::stochastic_sums, static_cast<size_t>(parts * count));
  std::fill(sums, sums + parts * count, Sums{});
  parallel_for(threads, parts, 1, [&](int64_t first, int64_t last) {
    for (int64_t part = first; part < last; ++part) {
      body(part * kPart, std::min(n, (part + 1) * kPart), sums + part * count);
    }
  });
  return sums;
}

QuantizeSums total(const char* function, const Sums* sums, int64_t n, int64_t step) {
  QuantizeSums all;
  uint32_t magnitude = 0;
  for (int64_t begin = 0; begin < n; begin += kPart, sums += step) {
    all.vq += sums->vq;
    all.vv += sums->vv;
    all.qq += sums->qq;
    magnitude = std::max(magnitude, sums->magnitude);
  }
  if (magnitude >= kInfinity) fail(function, "x holds a NaN or an infinity");
  std::memcpy(&all.peak, &magnitude, sizeof all.peak);
  return all;
}

}  // namespace

double QuantizeSums::deviation() const noexcept {
  if (peak == 0) return 0;
  if (qq == 0 || !(vv > 0) || !std::isfinite(vv) || !std::isfinite(vq)) return 1;
  return std::max(0.0, 1 - vq / (std::sqrt(vv) * std::sqrt(qq)));
}

QuantizeSums quantize_stochastic(const float* x, int64_t n, float scale, uint64_t seed, uint64_t stream, uint8_t* codes,
                                 Isa isa, int threads) {
  constexpr const char* kName = "quantize_stochastic";
  check(kName, x, n, &scale, 1);
  threads = resolve_threads(threads);
  RoundFn* const run = pick(kRound, isa);
  const float inverse = 1.0f / scale;
  const Random random = {{static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)},
                         {static_cast<uint32_t>(stream), static_cast<uint32_t>(stream >> 32)}};
  const Sums* sums = sum_parts(n, 1, threads, [&](int64_t begin, int64_t end, Sums* part) {
    run(x + begin, begin, end - begin, inverse, random, codes + begin, *part);
  });
  return total(kName, sums, n, 1);
}

void quantize_sums(const float* x, int64_t n, const float* scales, int64_t count, QuantizeSums* sums, Isa isa,
                   int threads) {
  constexpr const char* kName = "quantize_sums";
  if (count < 0) fail(kName, "count = " + std::to_string(count) + " must be >= 0");
  check(kName, x, n, scales, count);
  threads = resolve_threads(threads);
  MeasureFn* const run = pick(kMeasure, isa);
  const Sums* parts = sum_parts(n, count, threads, [&](int64_t begin, int64_t end, Sums* part) {
    for (int64_t i = begin; i < end; i += kBlock) {  // in L1 while the scales pass by
      for (int64_t k = 0; k < count; ++k) run(x + i, std::min(kBlock, end - i), 1.0f / scales[k], part[k]);
    }
  });
  for (int64_t k = 0; k < count; ++k) sums[k] = total(kName, parts + k, n, count);
}

}  // namespace lowbit
