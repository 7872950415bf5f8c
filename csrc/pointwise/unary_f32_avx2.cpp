// The AVX-512 variant at half the width. The elements beyond the last full vector go through the scalar variant.
#include <math.h>

#include "pointwise/codes_avx2.h"
#include "pointwise/unary_f32_kernel.h"

#if LOWBIT_X86
LOWBIT_TARGET_BEGIN_AVX2
namespace lowbit::pointwise {

static inline __m256 set(float f) { return _mm256_set1_ps(f); }
static inline __m256 add(__m256 a, __m256 b) { return _mm256_add_ps(a, b); }
static inline __m256 sub(__m256 a, __m256 b) { return _mm256_sub_ps(a, b); }
static inline __m256 mul(__m256 a, __m256 b) { return _mm256_mul_ps(a, b); }
static inline __m256 div(__m256 a, __m256 b) { return _mm256_div_ps(a, b); }

static inline __m256 power_of_two(__m256i k) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(k, _mm256_set1_epi32(127)), 23));
}

static inline __m256 exp_of(__m256 x) {
  x = _mm256_min_ps(set(kExpHighest), _mm256_max_ps(set(kExpLowest), x));  // NaN stays
  const __m256 shifted = add(mul(x, set(kLog2E)), set(kRoundMagic));
  const __m256 n = sub(shifted, set(kRoundMagic));
  const __m256i k = _mm256_sub_epi32(_mm256_castps_si256(shifted), _mm256_castps_si256(set(kRoundMagic)));
  const __m256 r = sub(sub(x, mul(n, set(kLn2High))), mul(n, set(kLn2Low)));
  __m256 p = add(mul(set(kE6), r), set(kE5));
  p = add(mul(p, r), set(kE4));
  p = add(mul(p, r), set(kE3));
  p = add(mul(p, r), set(kE2));
  p = add(add(mul(p, mul(r, r)), r), set(1.0f));
  const __m256i half = _mm256_srai_epi32(k, 1);
  return mul(mul(p, power_of_two(half)), power_of_two(_mm256_sub_epi32(k, half)));
}

static inline __m256 abs_of(__m256 x) { return _mm256_andnot_ps(set(-0.0f), x); }

static inline __m256 tanh_of(__m256 x) {
  const __m256 a = abs_of(x);
  const __m256 large = sub(set(1.0f), div(set(2.0f), add(exp_of(add(a, a)), set(1.0f))));
  const __m256 z = mul(a, a);
  __m256 p = add(mul(set(kT4), z), set(kT3));
  p = add(mul(p, z), set(kT2));
  p = add(mul(p, z), set(kT1));
  p = add(mul(p, z), set(kT0));
  const __m256 small = add(a, mul(mul(a, z), p));
  const __m256 y = _mm256_blendv_ps(large, small, _mm256_cmp_ps(a, set(kTanhSmall), _CMP_LT_OQ));
  return _mm256_or_ps(abs_of(y), _mm256_and_ps(x, set(-0.0f)));
}

static inline __m256 clamp(__m256 x, __m256 lo, __m256 hi) { return _mm256_min_ps(_mm256_max_ps(x, lo), hi); }

static inline __m256 scale_negative(__m256 x, __m256 slope) {
  return _mm256_blendv_ps(mul(x, slope), x, _mm256_cmp_ps(x, _mm256_setzero_ps(), _CMP_GT_OQ));
}

static inline __m256 apply(Unary op, __m256 x, __m256 alpha, __m256 beta) {
  switch (op) {
    case Unary::relu:
      return _mm256_max_ps(x, set(0.0f));
    case Unary::clip:
      return clamp(x, alpha, beta);
    case Unary::sigmoid:
      return div(set(1.0f), add(set(1.0f), exp_of(_mm256_xor_ps(x, set(-0.0f)))));
    case Unary::hard_sigmoid:
      return clamp(add(mul(alpha, x), beta), set(0.0f), set(1.0f));
    case Unary::hard_swish:
      return mul(x, clamp(add(mul(x, set(kSixth)), set(0.5f)), set(0.0f), set(1.0f)));
    case Unary::swish:
      return div(x, add(set(1.0f), exp_of(_mm256_xor_ps(x, set(-0.0f)))));
    case Unary::leaky_relu:
      return scale_negative(x, alpha);
    case Unary::tanh:
      return tanh_of(x);
    default:
      return exp_of(x);
  }
}

// op is a constant where this is inlined.
static inline void unary(Unary op, const float* x, int64_t n, float alpha, float beta, float* y) {
  const __m256 a = set(alpha), b = set(beta);
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) _mm256_storeu_ps(y + i, apply(op, _mm256_loadu_ps(x + i), a, b));
  unary_f32_scalar(op, x + i, n - i, alpha, beta, y + i);
}

void unary_f32_avx2(Unary op, const float* x, int64_t n, float alpha, float beta, float* y) noexcept {
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

void prelu_f32_avx2(const float* x, int64_t rows, const float* slope, int64_t channels, float* y) noexcept {
  for (int64_t r = 0; r < rows; ++r, x += channels, y += channels) {
    int64_t j = 0;
    for (; j + 8 <= channels; j += 8) {
      _mm256_storeu_ps(y + j, scale_negative(_mm256_loadu_ps(x + j), _mm256_loadu_ps(slope + j)));
    }
    if (j < channels) prelu_f32_scalar(x + j, 1, slope + j, channels - j, y + j);
  }
}

void softmax_f32_avx2(const float* x, int64_t rows, int64_t n, float* y) noexcept {
  for (int64_t r = 0; r < rows; ++r, x += n, y += n) {
    __m256 highest = set(-HUGE_VALF);
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) highest = _mm256_max_ps(_mm256_loadu_ps(x + i), highest);
    float lane[16];
    _mm256_storeu_ps(lane, highest);
    float top = -HUGE_VALF;
    for (int k = 0; k < 8; ++k) top = lane[k] > top ? lane[k] : top;
    for (; i < n; ++i) top = x[i] > top ? x[i] : top;

    // Lanes 0..7 and 8..15 of the partial sums.
    __m256 sum[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
    for (i = 0; i + 16 <= n; i += 16) {
      for (int k = 0; k < 2; ++k) {
        const __m256 e = exp_of(sub(_mm256_loadu_ps(x + i + 8 * k), set(top)));
        sum[k] = add(sum[k], e);
        _mm256_storeu_ps(y + i + 8 * k, e);
      }
    }
    _mm256_storeu_ps(lane, sum[0]);
    _mm256_storeu_ps(lane + 8, sum[1]);
    const int64_t rest = n - i;
    for (int64_t k = 0; k < rest; ++k) y[i + k] = x[i + k] - top;
    unary_f32_scalar(Unary::exp, y + i, rest, 0.0f, 0.0f, y + i);
    for (int64_t k = 0; k < rest; ++k) lane[k] += y[i + k];
    for (int step = 8; step > 0; step /= 2) {
      for (int j = 0; j < step; ++j) lane[j] += lane[j + step];
    }
    const __m256 total = set(lane[0]);
    for (i = 0; i + 8 <= n; i += 8) _mm256_storeu_ps(y + i, div(_mm256_loadu_ps(y + i), total));
    for (; i < n; ++i) y[i] /= lane[0];
  }
}

}  // namespace lowbit::pointwise
LOWBIT_TARGET_END
#endif
