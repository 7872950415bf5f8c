// vcmpps writes bits to a mask register: a comparison packs 16 numbers. A plain move of sign bits would turn -0.0 into
// -1 and let NaNs pass; one unordered comparison looks for them in two vectors.
#include "target.h"
#include "xnor/xnor_kernel.h"

#if LOWBIT_X86
#include <immintrin.h>
#include <stdint.h>

LOWBIT_TARGET_BEGIN_AVX512

namespace lowbit {
namespace {

constexpr int64_t kAhead = 512;  // floats that are asked for ahead: a quarter less time from L2

static inline __mmask16 lanes(int64_t count) {
  return count >= 16 ? (__mmask16)0xffff : count <= 0 ? (__mmask16)0 : (__mmask16)((1u << count) - 1);
}

static inline uint32_t word_of(__m512 x0, __m512 x1, __m512 t0, __m512 t1) {
  const __mmask16 low = _mm512_cmp_ps_mask(x0, t0, _CMP_GE_OQ), high = _mm512_cmp_ps_mask(x1, t1, _CMP_GE_OQ);
  return _cvtmask16_u32(low) | _cvtmask16_u32(high) << 16;
}

// Without thresholds or flips, rows without gaps: one run of whole words.
static bool pack_run(const float* x, int64_t words, uint32_t* bits) {
  const __m512 zero = _mm512_setzero_ps();
  __mmask16 nan = 0;
  for (int64_t p = 0; p < words; ++p) {
    _mm_prefetch((const char*)(x + 32 * p + kAhead), _MM_HINT_T0);
    _mm_prefetch((const char*)(x + 32 * p + kAhead + 16), _MM_HINT_T0);
    const __m512 x0 = _mm512_loadu_ps(x + 32 * p), x1 = _mm512_loadu_ps(x + 32 * p + 16);
    nan = _kor_mask16(nan, _mm512_cmp_ps_mask(x0, x1, _CMP_UNORD_Q));
    bits[p] = word_of(x0, x1, zero, zero);
  }
  return nan;
}

template <typename Load>
static inline bool pack_rows(const BitRows& r, Load load) {
  const __m512 zero = _mm512_setzero_ps();
  const int64_t words = (r.c + 31) / 32;
  bool nan = false;
  for (int64_t i = 0; i < r.rows; ++i) {
    for (int64_t p = 0; p < words; ++p) {
      const int64_t j = 32 * p;
      const __mmask16 m0 = lanes(r.c - j), m1 = lanes(r.c - j - 16);
      const __m512 x0 = load(i * r.ldx + j, m0), x1 = load(i * r.ldx + j + 16, m1);
      nan |= _mm512_cmp_ps_mask(x0, x1, _CMP_UNORD_Q) != 0;
      const __m512 t0 = r.threshold ? _mm512_maskz_loadu_ps(m0, r.threshold + j) : zero;
      const __m512 t1 = r.threshold ? _mm512_maskz_loadu_ps(m1, r.threshold + j + 16) : zero;
      const uint32_t valid = _cvtmask16_u32(m0) | _cvtmask16_u32(m1) << 16;
      r.bits[i * r.ld_bits + p] = (word_of(x0, x1, t0, t1) ^ (r.flip ? r.flip[p] : 0)) & valid;
    }
  }
  return nan;
}

}  // namespace

bool pack_bits_f32_avx512(const BitRows& r) noexcept {
  const float* x = (const float*)r.x;
  if (!r.threshold && !r.flip && r.c % 32 == 0 && r.ldx == r.c && r.ld_bits == r.c / 32) {
    return pack_run(x, r.rows * r.ld_bits, r.bits);
  }
  return pack_rows(r, [x](int64_t at, __mmask16 m) { return _mm512_maskz_loadu_ps(m, x + at); });
}

bool pack_bits_s8_avx512(const BitRows& r) noexcept {
  const int8_t* x = (const int8_t*)r.x;
  if (!r.threshold && r.c % 64 == 0) {  // signs as they stand
    for (int64_t i = 0; i < r.rows; ++i, x += r.ldx) {
      uint32_t* to = r.bits + i * r.ld_bits;
      for (int64_t j = 0; j < r.c; j += 64, to += 2) {
        uint64_t bits = ~(uint64_t)_mm512_movepi8_mask(_mm512_loadu_si512(x + j)), flip = 0;
        if (r.flip) __builtin_memcpy(&flip, r.flip + j / 32, sizeof(flip));
        bits ^= flip;
        __builtin_memcpy(to, &bits, sizeof(bits));
      }
    }
    return false;
  }
  return pack_rows(r, [x](int64_t at, __mmask16 m) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(m, x + at)));
  });
}

bool pack_bits_u8_avx512(const BitRows& r) noexcept {
  const uint8_t* x = (const uint8_t*)r.x;
  return pack_rows(r, [x](int64_t at, __mmask16 m) {
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(m, x + at)));
  });
}

void unpack_bits_avx512(const SignRows& r) noexcept {
  const __m512i minus = _mm512_set1_epi8(-1), plus = _mm512_set1_epi8(1);
  for (int64_t i = 0; i < r.rows; ++i) {
    const uint32_t* bits = r.bits + i * r.ld_bits;
    int8_t* x = r.x + i * r.ldx;
    int64_t j = 0;
    for (; j + 64 <= r.c; j += 64) {
      uint64_t word;
      __builtin_memcpy(&word, bits + j / 32, sizeof(word));
      _mm512_storeu_si512(x + j, _mm512_mask_blend_epi8(word, minus, plus));
    }
    if (j < r.c) {
      const int64_t count = r.c - j;
      const uint64_t word = count > 32 ? bits[j / 32] | (uint64_t)bits[j / 32 + 1] << 32 : bits[j / 32];
      const __mmask64 valid = ((uint64_t)1 << count) - 1;
      _mm512_mask_storeu_epi8(x + j, valid, _mm512_mask_blend_epi8(word, minus, plus));
    }
  }
}

}  // namespace lowbit

LOWBIT_TARGET_END

#endif
