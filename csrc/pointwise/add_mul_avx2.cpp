// The AVX-512 variant at half the width; the elements beyond the last full vector go through the scalar variant.
#include <string.h>

#include "pointwise/codes_avx2.h"

#if LOWBIT_X86
LOWBIT_TARGET_BEGIN_AVX2
namespace lowbit::pointwise {

void add_codes_avx2(const uint8_t* a, const CodeIn& ca, const uint8_t* b, const CodeIn& cb, int64_t n, uint8_t* y,
                    const CodeOut& out) noexcept {
  if (!(255.0f * ca.factor + 255.0f * cb.factor < 1e9f)) return add_codes_scalar(a, ca, b, cb, n, y, out);
  const CodeIn256 in_a = broadcast(ca), in_b = broadcast(cb);
  const CodeOut256 to = broadcast(out);
  int64_t i = 0;
  for (; i + 32 <= n; i += 32) {
    const Quarters256 fa = differences(load_bytes(a + i), in_a);
    Quarters256 f = differences(load_bytes(b + i), in_b);
    for (int k = 0; k < 4; ++k) {
      f.v[k] = _mm256_add_ps(_mm256_mul_ps(fa.v[k], in_a.factor), _mm256_mul_ps(f.v[k], in_b.factor));
    }
    store_bytes(y + i, saturate_bounded(f, to));
  }
  add_codes_scalar(a + i, ca, b + i, cb, n - i, y + i, out);
}

static inline __m256i multiply(const uint8_t* a, const Quarters256& fb, const CodeIn256& in_a, const CodeOut256& to) {
  Quarters256 f = differences(load_bytes(a), in_a);
  for (int k = 0; k < 4; ++k) f.v[k] = _mm256_mul_ps(_mm256_mul_ps(f.v[k], fb.v[k]), in_a.factor);
  return saturate(f, to);
}

void mul_codes_avx2(const uint8_t* a, const CodeIn& ca, const uint8_t* b, const CodeIn& cb, int64_t repeat,
                    int64_t inner, uint8_t* y, const CodeOut& out) noexcept {
  const CodeIn256 in_a = broadcast(ca), in_b = broadcast(cb);
  const CodeOut256 to = broadcast(out);
  int64_t i = 0;
  for (; i + 32 <= inner; i += 32) {
    const Quarters256 fb = differences(load_bytes(b + i), in_b);
    for (int64_t at = i; at < repeat * inner; at += inner) {
      store_bytes(y + at, multiply(a + at, fb, in_a, to));
    }
  }
  if (i == inner) return;
  // The last channels of every row, by way of a full vector.
  const size_t rest = static_cast<size_t>(inner - i);
  uint8_t line[32] = {};
  memcpy(line, b + i, rest);
  const Quarters256 fb = differences(load_bytes(line), in_b);
  for (int64_t at = i; at < repeat * inner; at += inner) {
    memcpy(line, a + at, rest);
    store_bytes(line, multiply(line, fb, in_a, to));
    memcpy(y + at, line, rest);
  }
}

static inline __m256 apply(Binary op, __m256 a, __m256 b) {
  switch (op) {
    case Binary::add:
      return _mm256_add_ps(a, b);
    case Binary::mul:
      return _mm256_mul_ps(a, b);
    case Binary::sub:
      return _mm256_sub_ps(a, b);
    default:
      return _mm256_div_ps(a, b);
  }
}

// op is a constant where this is inlined.
static inline void binary(Binary op, const float* a, const float* b, int64_t repeat, int64_t inner, float lo, float hi,
                          float* y) {
  const __m256 low = _mm256_set1_ps(lo), high = _mm256_set1_ps(hi);
  for (int64_t r = 0; r < repeat; ++r, a += inner, y += inner) {
    int64_t i = 0;
    for (; i + 8 <= inner; i += 8) {
      const __m256 f = apply(op, _mm256_loadu_ps(a + i), _mm256_loadu_ps(b + i));
      _mm256_storeu_ps(y + i, _mm256_min_ps(_mm256_max_ps(f, low), high));
    }
    if (i < inner) binary_f32_scalar(op, a + i, b + i, 1, inner - i, lo, hi, y + i);
  }
}

void binary_f32_avx2(Binary op, const float* a, const float* b, int64_t repeat, int64_t inner, float lo, float hi,
                     float* y) noexcept {
  switch (op) {
    case Binary::add:
      return binary(Binary::add, a, b, repeat, inner, lo, hi, y);
    case Binary::mul:
      return binary(Binary::mul, a, b, repeat, inner, lo, hi, y);
    case Binary::sub:
      return binary(Binary::sub, a, b, repeat, inner, lo, hi, y);
    case Binary::div:
      return binary(Binary::div, a, b, repeat, inner, lo, hi, y);
  }
}

}  // namespace lowbit::pointwise
LOWBIT_TARGET_END
#endif
