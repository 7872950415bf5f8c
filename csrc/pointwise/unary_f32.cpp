// Doors: unary_f32, prelu_f32, softmax_f32.
#include "pointwise/pointwise_checks.h"
#include "thread_pool.h"
#include "variant.h"

namespace lowbit {

using namespace pointwise;

namespace {

constexpr Variant<UnaryFloats*> kUnary[] = {
#if LOWBIT_X86
    {Isa::avx512, unary_f32_avx512},
    {Isa::avx2, unary_f32_avx2},
#endif
    {Isa::scalar, unary_f32_scalar},
};
constexpr Variant<Prelu*> kPrelu[] = {
#if LOWBIT_X86
    {Isa::avx512, prelu_f32_avx512},
    {Isa::avx2, prelu_f32_avx2},
#endif
    {Isa::scalar, prelu_f32_scalar},
};
constexpr Variant<Softmax*> kSoftmax[] = {
#if LOWBIT_X86
    {Isa::avx512, softmax_f32_avx512},
    {Isa::avx2, softmax_f32_avx2},
#endif
    {Isa::scalar, softmax_f32_scalar},
};

}  // namespace

void unary_f32(Unary op, const float* x, int64_t n, float alpha, float beta, float* y, Isa isa, int threads) {
  check_level("unary_f32", isa);
  check_size("unary_f32", "n", n);
  if (op > Unary::exp) fail("unary_f32", "unknown operation " + std::to_string(static_cast<int>(op)));
  if (op == Unary::clip && !(alpha <= beta)) {
    fail("unary_f32", "clip to " + std::to_string(alpha) + ".." + std::to_string(beta));
  }
  UnaryFloats* const run = pick(kUnary, isa);
  parallel_for(resolve_threads(threads), n, kGrain / 4,
               [&](int64_t begin, int64_t end) { run(op, x + begin, end - begin, alpha, beta, y + begin); });
}

void prelu_f32(const float* x, int64_t n, const float* slope, int64_t channels, float* y, Isa isa, int threads) {
  check_level("prelu_f32", isa);
  check_size("prelu_f32", "n", n);
  if (channels < 1 || n % channels != 0) {
    fail("prelu_f32", "n = " + std::to_string(n) + " is no multiple of channels = " + std::to_string(channels));
  }
  Prelu* const run = pick(kPrelu, isa);
  parallel_for(resolve_threads(threads), n / channels, std::max<int64_t>(kGrain / channels, 1),
               [&](int64_t begin, int64_t end) {
                 run(x + begin * channels, end - begin, slope, channels, y + begin * channels);
               });
}

void softmax_f32(const float* x, int64_t rows, int64_t n, float* y, Isa isa, int threads) {
  check_level("softmax_f32", isa);
  check_product("softmax_f32", rows, n, 1);
  if (n == 0) return;
  Softmax* const run = pick(kSoftmax, isa);
  parallel_for(resolve_threads(threads), rows, std::max<int64_t>(kGrain / 4 / n, 1),
               [&](int64_t begin, int64_t end) { run(x + begin * n, end - begin, n, y + begin * n); });
}

}  // namespace lowbit
