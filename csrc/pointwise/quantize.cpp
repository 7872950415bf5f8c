// Doors: quantize, quantize_nchw, dequantize, min_max.
#include <mutex>

#include "pointwise/pointwise_checks.h"
#include "thread_pool.h"
#include "variant.h"

namespace lowbit {

using namespace pointwise;

namespace {

constexpr Variant<Quantize*> kQuantize[] = {
#if LOWBIT_X86
    {Isa::avx512, quantize_avx512},
    {Isa::avx2, quantize_avx2},
#endif
    {Isa::scalar, quantize_scalar},
};
constexpr Variant<QuantizePlanes*> kQuantizePlanes[] = {
#if LOWBIT_X86
    {Isa::avx512, quantize_planes_avx512},
    {Isa::avx2, quantize_planes_avx2},
#endif
    {Isa::scalar, quantize_planes_scalar},
};
constexpr Variant<Dequantize*> kDequantize[] = {
#if LOWBIT_X86
    {Isa::avx2, dequantize_avx2},
#endif
    {Isa::scalar, dequantize_scalar},
};
constexpr Variant<MinMax*> kMinMax[] = {
#if LOWBIT_X86
    {Isa::avx512, min_max_avx512},
    {Isa::avx2, min_max_avx2},
#endif
    {Isa::scalar, min_max_scalar},
};

}  // namespace

void quantize(const float* x, int64_t n, const Codes& out, void* q, int32_t lo, int32_t hi, Isa isa, int threads) {
  check_level("quantize", isa);
  check_size("quantize", "n", n);
  const CodeOut code = code_out("quantize", out, lo, hi);
  Quantize* const run = pick(kQuantize, isa);
  parallel_for(resolve_threads(threads), n, kGrain, [&](int64_t begin, int64_t end) {
    run(x + begin, end - begin, out.scale, code, static_cast<uint8_t*>(q) + begin);
  });
}

void quantize_nchw(const float* x, int64_t batch, int64_t c, int64_t plane, const Codes& out, void* q, int64_t ldq,
                   int32_t lo, int32_t hi, Isa isa, int threads) {
  constexpr const char* kName = "quantize_nchw";
  check_level(kName, isa);
  check_product(kName, batch, c, plane);
  if (ldq < c) fail(kName, "ldq = " + std::to_string(ldq) + " is below c = " + std::to_string(c));
  check_product(kName, batch, plane, ldq);
  const CodeOut code = code_out(kName, out, lo, hi);
  const int team = resolve_threads(threads);
  if (c == 0) return;
  if (c == 1 && ldq == 1) return quantize(x, batch * plane, out, q, lo, hi, isa, threads);
  QuantizePlanes* const run = pick(kQuantizePlanes, isa);
  for (int64_t b = 0; b < batch; ++b) {
    parallel_for(team, plane, std::max<int64_t>(kGrain / c, 64), [&](int64_t begin, int64_t end) {
      run(x + b * c * plane + begin, plane, c, end - begin, out.scale, code,
          static_cast<uint8_t*>(q) + (b * plane + begin) * ldq, ldq);
    });
  }
}

void dequantize(const void* q, int64_t n, const Codes& in, float* x, Isa isa, int threads) {
  check_level("dequantize", isa);
  check_size("dequantize", "n", n);
  const CodeIn code = code_in("dequantize", "q", in, in.scale);
  Dequantize* const run = pick(kDequantize, isa);
  parallel_for(resolve_threads(threads), n, kGrain, [&](int64_t begin, int64_t end) {
    run(static_cast<const uint8_t*>(q) + begin, end - begin, code, x + begin);
  });
}

void min_max(const float* x, int64_t n, float& lo, float& hi, Isa isa, int threads) {
  check_level("min_max", isa);
  check_size("min_max", "n", n);
  const int team = resolve_threads(threads);
  MinMax* const run = pick(kMinMax, isa);
  float low = n > 0 ? x[0] : 0.0f, high = low;
  bool numbers = true;
  std::mutex merge;
  parallel_for(team, n, 4 * kGrain, [&](int64_t begin, int64_t end) {
    float part_low = x[begin], part_high = x[begin];
    const bool ok = run(x + begin, end - begin, &part_low, &part_high);
    std::lock_guard<std::mutex> lock(merge);
    low = std::min(low, part_low);
    high = std::max(high, part_high);
    numbers &= ok;
  });
  if (!numbers) fail("min_max", "the array holds a NaN");
  lo = low + 0.0f;  // -0 becomes 0, so that the order of equal values does not show
  hi = high + 0.0f;
}

}  // namespace lowbit
