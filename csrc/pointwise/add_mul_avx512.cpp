// vpunpck + vcvtps2dq: see codes_avx512.h. An add of 64 elements is 44 instructions of the two vector ports, 22 cycles.
// Float arithmetic is bound by loads and stores: 512 bits lost to AVX2 by a fifth.
#include "pointwise/codes_avx512.h"

#if LOWBIT_X86
LOWBIT_TARGET_BEGIN_AVX512
namespace lowbit::pointwise {

void add_codes_avx512(const uint8_t* a, const CodeIn& ca, const uint8_t* b, const CodeIn& cb, int64_t n, uint8_t* y,
                      const CodeOut& out) noexcept {
  if (!(255.0f * ca.factor + 255.0f * cb.factor < 1e9f)) return add_codes_scalar(a, ca, b, cb, n, y, out);
  const CodeIn512 in_a = broadcast(ca), in_b = broadcast(cb);
  const CodeOut512 to = broadcast(out);
  for (int64_t i = 0; i < n; i += 64) {
    const __mmask64 mask = first_bytes(n - i);
    const Quarters512 fa = differences(_mm512_maskz_loadu_epi8(mask, a + i), in_a);
    Quarters512 f = differences(_mm512_maskz_loadu_epi8(mask, b + i), in_b);
    for (int k = 0; k < 4; ++k) {
      f.v[k] = _mm512_add_ps(_mm512_mul_ps(fa.v[k], in_a.factor), _mm512_mul_ps(f.v[k], in_b.factor));
    }
    _mm512_mask_storeu_epi8(y + i, mask, saturate_bounded(f, to));
  }
}

void mul_codes_avx512(const uint8_t* a, const CodeIn& ca, const uint8_t* b, const CodeIn& cb, int64_t repeat,
                      int64_t inner, uint8_t* y, const CodeOut& out) noexcept {
  const CodeIn512 in_a = broadcast(ca), in_b = broadcast(cb);
  const CodeOut512 to = broadcast(out);
  for (int64_t i = 0; i < inner; i += 64) {
    const __mmask64 mask = first_bytes(inner - i);
    const Quarters512 fb = differences(_mm512_maskz_loadu_epi8(mask, b + i), in_b);
    for (int64_t at = i; at < repeat * inner; at += inner) {
      Quarters512 f = differences(_mm512_maskz_loadu_epi8(mask, a + at), in_a);
      for (int k = 0; k < 4; ++k) f.v[k] = _mm512_mul_ps(_mm512_mul_ps(f.v[k], fb.v[k]), in_a.factor);
      _mm512_mask_storeu_epi8(y + at, mask, saturate(f, to));
    }
  }
}

}  // namespace lowbit::pointwise
LOWBIT_TARGET_END
#endif
