// Lanes are channels, 32 codes at a time; the last channels of a pixel go by way of a full vector.
#include <string.h>

#include "pointwise/codes_avx2.h"

#if LOWBIT_X86
LOWBIT_TARGET_BEGIN_AVX2
namespace lowbit::pointwise {

static inline __m256 lerp(__m256 a, __m256 b, __m256 weight) {
  return _mm256_add_ps(a, _mm256_mul_ps(_mm256_sub_ps(b, a), weight));
}

static inline __m256i load_first(const uint8_t* p, int64_t n) {
  if (n >= 32) return load_bytes(p);
  uint8_t line[32] = {};
  memcpy(line, p, static_cast<size_t>(n));
  return load_bytes(line);
}

void bilinear_codes_avx2(const LinearRow& row, const CodeIn& in, const CodeOut& out) noexcept {
  if (row.c < 8) return bilinear_codes_scalar(row, in, out);
  const uint8_t *top = static_cast<const uint8_t*>(row.top), *bottom = static_cast<const uint8_t*>(row.bottom);
  const CodeIn256 from = broadcast(in);
  const CodeOut256 to = broadcast(out);
  const __m256 fy = _mm256_set1_ps(row.weight);
  for (int64_t ox = 0; ox < row.out_w; ++ox) {
    const int64_t first = row.first[ox] * row.c, second = row.second[ox] * row.c;
    const __m256 fx = _mm256_set1_ps(row.weights[ox]);
    for (int64_t j = 0; j < row.c; j += 32) {
      const int64_t n = row.c - j;
      const Quarters256 a = differences(load_first(top + first + j, n), from);
      const Quarters256 b = differences(load_first(top + second + j, n), from);
      const Quarters256 c = differences(load_first(bottom + first + j, n), from);
      const Quarters256 d = differences(load_first(bottom + second + j, n), from);
      Quarters256 f;
      for (int k = 0; k < 4; ++k) {
        f.v[k] = _mm256_mul_ps(lerp(lerp(a.v[k], b.v[k], fx), lerp(c.v[k], d.v[k], fx), fy), from.factor);
      }
      uint8_t line[32];
      store_bytes(line, saturate(f, to));
      memcpy(static_cast<uint8_t*>(row.y) + ox * row.c + j, line, static_cast<size_t>(n < 32 ? n : 32));
    }
  }
}

}  // namespace lowbit::pointwise
LOWBIT_TARGET_END
#endif
