// Lanes are channels: the two weights are broadcast per pixel and per row. Images of fewer than 8 channels go through
// the scalar variant, which fills its lanes no worse.
#include "pointwise/codes_avx512.h"

#if LOWBIT_X86
LOWBIT_TARGET_BEGIN_AVX512
namespace lowbit::pointwise {

static inline __m512 lerp(__m512 a, __m512 b, __m512 weight) {
  return _mm512_add_ps(a, _mm512_mul_ps(_mm512_sub_ps(b, a), weight));
}

void bilinear_codes_avx512(const LinearRow& row, const CodeIn& in, const CodeOut& out) noexcept {
  if (row.c < 8) return bilinear_codes_scalar(row, in, out);
  const uint8_t *top = static_cast<const uint8_t*>(row.top), *bottom = static_cast<const uint8_t*>(row.bottom);
  const CodeIn512 from = broadcast(in);
  const CodeOut512 to = broadcast(out);
  const __m512 fy = _mm512_set1_ps(row.weight);
  for (int64_t ox = 0; ox < row.out_w; ++ox) {
    const int64_t first = row.first[ox] * row.c, second = row.second[ox] * row.c;
    const __m512 fx = _mm512_set1_ps(row.weights[ox]);
    for (int64_t j = 0; j < row.c; j += 64) {
      const __mmask64 mask = first_bytes(row.c - j);
      const Quarters512 a = differences(_mm512_maskz_loadu_epi8(mask, top + first + j), from);
      const Quarters512 b = differences(_mm512_maskz_loadu_epi8(mask, top + second + j), from);
      const Quarters512 c = differences(_mm512_maskz_loadu_epi8(mask, bottom + first + j), from);
      const Quarters512 d = differences(_mm512_maskz_loadu_epi8(mask, bottom + second + j), from);
      Quarters512 f;
      for (int k = 0; k < 4; ++k) {
        f.v[k] = _mm512_mul_ps(lerp(lerp(a.v[k], b.v[k], fx), lerp(c.v[k], d.v[k], fx), fy), from.factor);
      }
      _mm512_mask_storeu_epi8(static_cast<uint8_t*>(row.y) + ox * row.c + j, mask, saturate(f, to));
    }
  }
}

void bilinear_f32_avx512(const LinearRow& row) noexcept {
  const float *top = static_cast<const float*>(row.top), *bottom = static_cast<const float*>(row.bottom);
  const __m512 fy = _mm512_set1_ps(row.weight);
  for (int64_t ox = 0; ox < row.out_w; ++ox) {
    const int64_t first = row.first[ox] * row.c, second = row.second[ox] * row.c;
    const __m512 fx = _mm512_set1_ps(row.weights[ox]);
    for (int64_t j = 0; j < row.c; j += 16) {
      const __mmask16 mask = static_cast<__mmask16>(first_bytes(row.c - j));
      const __m512 t =
          lerp(_mm512_maskz_loadu_ps(mask, top + first + j), _mm512_maskz_loadu_ps(mask, top + second + j), fx);
      const __m512 b =
          lerp(_mm512_maskz_loadu_ps(mask, bottom + first + j), _mm512_maskz_loadu_ps(mask, bottom + second + j), fx);
      _mm512_mask_storeu_ps(static_cast<float*>(row.y) + ox * row.c + j, mask, lerp(t, b, fy));
    }
  }
}

}  // namespace lowbit::pointwise
LOWBIT_TARGET_END
#endif
