// PCLMULQDQ folds four blocks of 16 bytes forward by 64 bytes: two products a block, eight for 64 bytes. What is left
// at the end, a block that is equal to all before it, goes through the tables.
#include <immintrin.h>

#include "crc32/crc32_kernel.h"
#include "target.h"

#if LOWBIT_X86
LOWBIT_TARGET_BEGIN(LOWBIT_FEATURES_AVX2 ",pclmul")

namespace lowbit {
namespace {

__m128i fold(__m128i a, __m128i k, __m128i onto) {
  return _mm_xor_si128(onto, _mm_xor_si128(_mm_clmulepi64_si128(a, k, 0x00), _mm_clmulepi64_si128(a, k, 0x11)));
}

__m128i load(const uint8_t* p) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p)); }

__m128i constants(uint64_t first, uint64_t second) {
  return _mm_set_epi64x(static_cast<long long>(second), static_cast<long long>(first));
}

}  // namespace

uint32_t crc32_avx2(uint32_t c, const uint8_t* p, size_t n) noexcept {
  if (n < 128) return crc32_scalar(c, p, n);
  constexpr uint64_t far[] = {crc32_first_half(512), crc32_second_half(512)};
  constexpr uint64_t near[] = {crc32_first_half(128), crc32_second_half(128)};
  __m128i a = _mm_xor_si128(load(p), _mm_cvtsi32_si128(static_cast<int>(c)));
  __m128i b = load(p + 16), d = load(p + 32), e = load(p + 48);
  __m128i k = constants(far[0], far[1]);
  for (p += 64, n -= 64; n >= 64; p += 64, n -= 64) {
    a = fold(a, k, load(p));
    b = fold(b, k, load(p + 16));
    d = fold(d, k, load(p + 32));
    e = fold(e, k, load(p + 48));
  }
  k = constants(near[0], near[1]);
  e = fold(fold(fold(a, k, b), k, d), k, e);
  uint8_t block[16];
  _mm_storeu_si128(reinterpret_cast<__m128i*>(block), e);
  return crc32_scalar(crc32_scalar(0, block, sizeof(block)), p, n);
}

}  // namespace lowbit

LOWBIT_TARGET_END
#endif
