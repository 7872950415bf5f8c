// vpshufb over 16 rows of 16 bytes. It looks at the low 4 bits and gives 0 where the top bit is set, so with v going
// down by 16 a step (saturating) row k takes part while v >= 16 k: rows hold the xor of neighbours, and the sum
// telescopes to the row of v. The upper half of the codes is the same with the top bit flipped. 48 instructions for 32
// codes; scalar needs 32 cycles.
#include "pointwise/codes_avx2.h"

#if LOWBIT_X86
LOWBIT_TARGET_BEGIN_AVX2
namespace lowbit::pointwise {

static inline __m256i row(const uint8_t* table, int k) {
  return _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(table + 16 * k)));
}

void lookup_avx2(const uint8_t* x, int64_t n, const uint8_t* table, uint8_t* y) noexcept {
  __m256i rows[16];
  for (int k = 0; k < 16; ++k)
    rows[k] = k % 8 == 0 ? row(table, k) : _mm256_xor_si256(row(table, k), row(table, k - 1));
  const __m256i sixteen = _mm256_set1_epi8(16), top = _mm256_set1_epi8(-128);
  int64_t i = 0;
  for (; i + 32 <= n; i += 32) {
    __m256i v = load_bytes(x + i), w = _mm256_xor_si256(v, top), sum = _mm256_setzero_si256();
    for (int k = 0; k < 8; ++k) {
      sum =
          _mm256_xor_si256(sum, _mm256_xor_si256(_mm256_shuffle_epi8(rows[k], v), _mm256_shuffle_epi8(rows[8 + k], w)));
      v = _mm256_subs_epi8(v, sixteen);
      w = _mm256_subs_epi8(w, sixteen);
    }
    store_bytes(y + i, sum);
  }
  lookup_scalar(x + i, n - i, table, y + i);
}

}  // namespace lowbit::pointwise
LOWBIT_TARGET_END
#endif
