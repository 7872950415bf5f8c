// vpermi2b: 128 bytes of table in two registers, picked by the low 7 bits; the top bit chooses between two such halves.
#include "pointwise/codes_avx512.h"

#if LOWBIT_X86
LOWBIT_TARGET_BEGIN_AVX512
namespace lowbit::pointwise {

void lookup_avx512(const uint8_t* x, int64_t n, const uint8_t* table, uint8_t* y) noexcept {
  __m512i t[4];
  for (int k = 0; k < 4; ++k) t[k] = _mm512_loadu_si512(table + 64 * k);
  for (int64_t i = 0; i < n; i += 64) {
    const __mmask64 mask = first_bytes(n - i);
    const __m512i v = _mm512_maskz_loadu_epi8(mask, x + i);
    const __m512i low = _mm512_permutex2var_epi8(t[0], v, t[1]), high = _mm512_permutex2var_epi8(t[2], v, t[3]);
    _mm512_mask_storeu_epi8(y + i, mask, _mm512_mask_blend_epi8(_mm512_movepi8_mask(v), low, high));
  }
}

}  // namespace lowbit::pointwise
LOWBIT_TARGET_END
#endif
