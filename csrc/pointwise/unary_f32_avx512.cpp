// The scalar variant's steps, 16 at a time, in its order and without contraction, so that the bits agree.
#include <math.h>

#include "pointwise/codes_avx512.h"
#include "pointwise/unary_f32_kernel.h"

#if LOWBIT_X86
LOWBIT_TARGET_BEGIN_AVX512
namespace lowbit::pointwise {

static inline __m512 set(float f) { return _mm512_set1_ps(f); }
static inline __m512 add(__m512 a, __m512 b) { return _mm512_add_ps(a, b); }
static inline __m512 sub(__m512 a, __m512 b) { return _mm512_sub_ps(a, b); }
static inline __m512 mul(__m512 a, __m512 b) { return _mm512_mul_ps(a, b); }
static inline __m512 div(__m512 a, __m512 b) { return _mm512_div_ps(a, b); }

static inline __m512 power_of_two(__m512i k) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(k, _mm512_set1_epi32(127)), 23));
}

static inline __m512 exp_of(__m512 x) {
  x = _mm512_min_ps(set(kExpHighest), _mm512_max_ps(set(kExpLowest), x));  // NaN stays
  const __m512 shifted = add(mul(x, set(kLog2E)), set(kRoundMagic));
  const __m512 n = sub(shifted, set(kRoundMagic));
  const __m512i k = _mm512_sub_epi32(_mm512_castps_si512(shifted), _mm512_castps_si512(set(kRoundMagic)));
  const __m512 r = sub(sub(x, mul(n, set(kLn2High))), mul(n, set(kLn2Low)));
  __m512 p = add(mul(set(kE6), r), set(kE5));
  p = add(mul(p, r), set(kE4));
  p = add(mul(p, r), set(kE3));
  p = add(mul(p, r), set(kE2));
  p = add(add(mul(p, mul(r, r)), r), set(1.0f));
  const __m512i half = _mm512_srai_epi32(k, 1);
  return mul(mul(p, power_of_two(half)), power_of_two(_mm512_sub_epi32(k, half)));
}

static inline __m512 tanh_of(__m512 x) {
  const __m512 a = _mm512_abs_ps(x);
  const __m512 large = sub(set(1.0f), div(set(2.0f), add(exp_of(add(a, a)), set(1.0f))));
  const __m512 z = mul(a, a);
  __m512 p = add(mul(set(kT4), z), set(kT3));
  p = add(mul(p, z), set(kT2));
  p = add(mul(p, z), set(kT1));
  p = add(mul(p, z), set(kT0));
  const __m512 small = add(a, mul(mul(a, z), p));
  const __m512 y = _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, set(kTanhSmall), _CMP_LT_OQ), large, small);
  return _mm512_or_ps(_mm512_abs_ps(y), _mm512_and_ps(x, set(-0.0f)));
}

static inline __m512 clamp(__m512 x, __m512 lo, __m512 hi) { return _mm512_min_ps(_mm512_max_ps(x, lo), hi); }

static inline __mmask16 positive(__m512 x) { return _mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_GT_OQ); }

static inline __m512 apply(Unary op, __m512 x, __m512 alpha, __m512 beta) {
  switch (op) {
    case Unary::relu:
      return _mm512_max_ps(x, set(0.0f));
    case Unary::clip:
      return clamp(x, alpha, beta);
    case Unary::sigmoid:
      return div(set(1.0f), add(set(1.0f), exp_of(_mm512_xor_ps(x, set(-0.0f)))));
    case Unary::hard_sigmoid:
      return clamp(add(mul(alpha, x), beta), set(0.0f), set(1.0f));
    case Unary::hard_swish:
      return mul(x, clamp(add(mul(x, set(kSixth)), set(0.5f)), set(0.0f), set(1.0f)));
    case Unary::swish:
      return div(x, add(set(1.0f), exp_of(_mm512_xor_ps(x, set(-0.0f)))));
    case Unary::leaky_relu:
      return _mm512_mask_mul_ps(x, static_cast<__mmask16>(~positive(x)), alpha, x);
    case Unary::tanh:
      return tanh_of(x);
    default:
      return exp_of(x);
  }
}

// op is a constant where this is inlined.
static inline void unary(Unary op, const float* x, int64_t n, float alpha, float beta, float* y) {
  const __m512 a = set(alpha), b = set(beta);
  for (int64_t i = 0; i < n; i += 16) {
    const __mmask16 mask = static_cast<__mmask16>(first_bytes(n - i));
    _mm512_mask_storeu_ps(y + i, mask, apply(op, _mm512_maskz_loadu_ps(mask, x + i), a, b));
  }
}

void unary_f32_avx512(Unary op, const float* x, int64_t n, float alpha, float beta, float* y) noexcept {
  switch (op) {
    case Unary::relu:
      return unary(Unary::relu, x, n, alpha, beta, y);
    case Unary::clip:
      return unary(Unary::clip, x, n, alpha, beta, y);
    case Unary::sigmoid:
      return unary(Unary::sigmoid, x, n, alpha, beta, y);
    case Unary::hard_sigmoid:
      return unary(Unary::hard_sigmoid, x, n, alpha, beta, y);
    case Unary::hard_swish:
      return unary(Unary::hard_swish, x, n, alpha, beta, y);
    case Unary::swish:
      return unary(Unary::swish, x, n, alpha, beta, y);
    case Unary::leaky_relu:
      return unary(Unary::leaky_relu, x, n, alpha, beta, y);
    case Unary::tanh:
      return unary(Unary::tanh, x, n, alpha, beta, y);
    case Unary::exp:
      return unary(Unary::exp, x, n, alpha, beta, y);
  }
}

void prelu_f32_avx512(const float* x, int64_t rows, const float* slope, int64_t channels, float* y) noexcept {
  for (int64_t r = 0; r < rows; ++r, x += channels, y += channels) {
    for (int64_t j = 0; j < channels; j += 16) {
      const __mmask16 mask = static_cast<__mmask16>(first_bytes(channels - j));
      const __m512 v = _mm512_maskz_loadu_ps(mask, x + j), s = _mm512_maskz_loadu_ps(mask, slope + j);
      _mm512_mask_storeu_ps(y + j, mask, _mm512_mask_mul_ps(v, static_cast<__mmask16>(~positive(v)), v, s));
    }
  }
}

// The partial sums are the lanes; lanes beyond the row add 0. _mm512_reduce_add_ps adds in another order on other
// compilers.
static inline float sum_of_lanes(__m512 s) {
  alignas(64) float lane[16];
  _mm512_store_ps(lane, s);
  for (int step = 8; step > 0; step /= 2) {
    for (int j = 0; j < step; ++j) lane[j] += lane[j + step];
  }
  return lane[0];
}

void softmax_f32_avx512(const float* x, int64_t rows, int64_t n, float* y) noexcept {
  for (int64_t r = 0; r < rows; ++r, x += n, y += n) {
    __m512 highest = set(-HUGE_VALF);
    for (int64_t i = 0; i < n; i += 16) {
      const __mmask16 mask = static_cast<__mmask16>(first_bytes(n - i));
      highest = _mm512_max_ps(_mm512_mask_loadu_ps(set(-HUGE_VALF), mask, x + i), highest);
    }
    const __m512 top = set(_mm512_reduce_max_ps(highest));
    __m512 sum = _mm512_setzero_ps();
    for (int64_t i = 0; i < n; i += 16) {
      const __mmask16 mask = static_cast<__mmask16>(first_bytes(n - i));
      const __m512 e = exp_of(sub(_mm512_maskz_loadu_ps(mask, x + i), top));
      sum = _mm512_mask_add_ps(sum, mask, sum, e);
      _mm512_mask_storeu_ps(y + i, mask, e);
    }
    const __m512 total = set(sum_of_lanes(sum));
    for (int64_t i = 0; i < n; i += 16) {
      const __mmask16 mask = static_cast<__mmask16>(first_bytes(n - i));
      _mm512_mask_storeu_ps(y + i, mask, div(_mm512_maskz_loadu_ps(mask, y + i), total));
    }
  }
}

}  // namespace lowbit::pointwise
LOWBIT_TARGET_END
#endif
