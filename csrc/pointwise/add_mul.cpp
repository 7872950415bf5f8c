// Doors: add_i8, mul_i8, binary_f32.
#include "pointwise/pointwise_checks.h"
#include "thread_pool.h"
#include "variant.h"

namespace lowbit {

using namespace pointwise;

namespace {

constexpr Variant<AddCodes*> kAdd[] = {
#if LOWBIT_X86
    {Isa::avx512, add_codes_avx512},
    {Isa::avx2, add_codes_avx2},
#endif
    {Isa::scalar, add_codes_scalar},
};
constexpr Variant<MulCodes*> kMul[] = {
#if LOWBIT_X86
    {Isa::avx512, mul_codes_avx512},
    {Isa::avx2, mul_codes_avx2},
#endif
    {Isa::scalar, mul_codes_scalar},
};
constexpr Variant<BinaryFloats*> kBinary[] = {
#if LOWBIT_X86
    {Isa::avx2, binary_f32_avx2},
#endif
    {Isa::scalar, binary_f32_scalar},
};

// a (outer, repeat, inner) with b (outer, inner): body(offset in a, offset in b, repeat, inner) over parts of it.
template <typename Body>
void over_repeats(int threads, int64_t outer, int64_t repeat, int64_t inner, Body body) {
  if (repeat == 1) {
    parallel_for(threads, outer * inner, kGrain,
                 [&](int64_t begin, int64_t end) { body(begin, begin, 1, end - begin); });
    return;
  }
  if (inner == 0) return;
  parallel_for(threads, outer * repeat, std::max<int64_t>(kGrain / inner, 1), [&](int64_t begin, int64_t end) {
    while (begin < end) {
      const int64_t o = begin / repeat, stop = std::min(end, (o + 1) * repeat);
      body(begin * inner, o * inner, stop - begin, inner);
      begin = stop;
    }
  });
}

}  // namespace

void add_i8(const void* a, const Codes& ca, const void* b, const Codes& cb, int64_t n, void* y, const Codes& cy,
            int32_t lo, int32_t hi, Rounding rounding, Isa isa, int threads) {
  check_level("add_i8", isa);
  check_size("add_i8", "n", n);
  check_rounding("add_i8", rounding);
  const CodeOut out = code_out("add_i8", cy, lo, hi);
  const CodeIn in_a = code_in("add_i8", "a", ca, ca.scale / cy.scale),
               in_b = code_in("add_i8", "b", cb, cb.scale / cy.scale);
  if (rounding != Rounding::nearest_even) {
    const double s = 2.0 * std::max(ca.scale, cb.scale);
    const FixedSum fixed{exact_fixed_point("add_i8", ca.scale / s), exact_fixed_point("add_i8", cb.scale / s),
                         exact_fixed_point("add_i8", s * 0x1p-20 / cy.scale), rounding};
    parallel_for(resolve_threads(threads), n, kGrain, [&](int64_t begin, int64_t end) {
      add_fixed_scalar(static_cast<const uint8_t*>(a) + begin, in_a, static_cast<const uint8_t*>(b) + begin, in_b,
                       end - begin, static_cast<uint8_t*>(y) + begin, out, fixed);
    });
    return;
  }
  AddCodes* const run = pick(kAdd, isa);
  parallel_for(resolve_threads(threads), n, kGrain, [&](int64_t begin, int64_t end) {
    run(static_cast<const uint8_t*>(a) + begin, in_a, static_cast<const uint8_t*>(b) + begin, in_b, end - begin,
        static_cast<uint8_t*>(y) + begin, out);
  });
}

void mul_i8(const void* a, const Codes& ca, const void* b, const Codes& cb, int64_t outer, int64_t repeat,
            int64_t inner, void* y, const Codes& cy, int32_t lo, int32_t hi, Rounding rounding, Isa isa, int threads) {
  check_level("mul_i8", isa);
  check_rounding("mul_i8", rounding);
  check_product("mul_i8", outer, repeat, inner);
  const CodeOut out = code_out("mul_i8", cy, lo, hi);
  const CodeIn in_a = code_in("mul_i8", "a", ca, (ca.scale * cb.scale) / cy.scale),
               in_b = code_in("mul_i8", "b", cb, 0.0f);
  if (rounding != Rounding::nearest_even) {
    const FixedPoint ratio = exact_fixed_point("mul_i8", double{ca.scale} * double{cb.scale} / double{cy.scale});
    over_repeats(resolve_threads(threads), outer, repeat, inner,
                 [&](int64_t at, int64_t at_b, int64_t rows, int64_t n) {
                   mul_fixed_scalar(static_cast<const uint8_t*>(a) + at, in_a, static_cast<const uint8_t*>(b) + at_b,
                                    in_b, rows, n, static_cast<uint8_t*>(y) + at, out, ratio, rounding);
                 });
    return;
  }
  MulCodes* const run = pick(kMul, isa);
  over_repeats(resolve_threads(threads), outer, repeat, inner, [&](int64_t at, int64_t at_b, int64_t rows, int64_t n) {
    run(static_cast<const uint8_t*>(a) + at, in_a, static_cast<const uint8_t*>(b) + at_b, in_b, rows, n,
        static_cast<uint8_t*>(y) + at, out);
  });
}

void binary_f32(Binary op, const float* a, const float* b, int64_t outer, int64_t repeat, int64_t inner, float lo,
                float hi, float* y, Isa isa, int threads) {
  check_level("binary_f32", isa);
  check_product("binary_f32", outer, repeat, inner);
  if (op > Binary::div) fail("binary_f32", "unknown operation " + std::to_string(static_cast<int>(op)));
  if (!(lo <= hi)) fail("binary_f32", "lo = " + std::to_string(lo) + " is not at most hi = " + std::to_string(hi));
  BinaryFloats* const run = pick(kBinary, isa);
  over_repeats(resolve_threads(threads), outer, repeat, inner, [&](int64_t at, int64_t at_b, int64_t rows, int64_t n) {
    run(op, a + at, b + at_b, rows, n, lo, hi, y + at);
  });
}

}  // namespace lowbit
