// VPCLMULQDQ: as crc32_avx2.cpp with vectors of four blocks, 256 bytes a step.
#include <immintrin.h>

#include "crc32/crc32_kernel.h"
#include "target.h"

#if LOWBIT_X86
LOWBIT_TARGET_BEGIN(LOWBIT_FEATURES_AVX512 ",pclmul,vpclmulqdq")

namespace lowbit {
namespace {

__m512i fold(__m512i a, __m512i k, __m512i onto) {
  constexpr int kXor3 = 0x96;
  return _mm512_ternarylogic_epi64(onto, _mm512_clmulepi64_epi128(a, k, 0x00), _mm512_clmulepi64_epi128(a, k, 0x11),
                                   kXor3);
}

__m512i constants(uint64_t first, uint64_t second) {
  return _mm512_broadcast_i32x4(_mm_set_epi64x(static_cast<long long>(second), static_cast<long long>(first)));
}

}  // namespace

uint32_t crc32_avx512(uint32_t c, const uint8_t* p, size_t n) noexcept {
  if (n < 512) return crc32_avx2(c, p, n);
  constexpr uint64_t far[] = {crc32_first_half(2048), crc32_second_half(2048)};
  constexpr uint64_t near[] = {crc32_first_half(512), crc32_second_half(512)};
  __m512i a = _mm512_xor_si512(_mm512_loadu_si512(p), _mm512_zextsi128_si512(_mm_cvtsi32_si128(static_cast<int>(c))));
  __m512i b = _mm512_loadu_si512(p + 64), d = _mm512_loadu_si512(p + 128), e = _mm512_loadu_si512(p + 192);
  __m512i k = constants(far[0], far[1]);
  for (p += 256, n -= 256; n >= 256; p += 256, n -= 256) {
    a = fold(a, k, _mm512_loadu_si512(p));
    b = fold(b, k, _mm512_loadu_si512(p + 64));
    d = fold(d, k, _mm512_loadu_si512(p + 128));
    e = fold(e, k, _mm512_loadu_si512(p + 192));
  }
  k = constants(near[0], near[1]);
  e = fold(fold(fold(a, k, b), k, d), k, e);
  uint8_t block[64];
  _mm512_storeu_si512(block, e);
  return crc32_avx2(crc32_scalar(0, block, sizeof(block)), p, n);
}

}  // namespace lowbit

LOWBIT_TARGET_END
#endif
