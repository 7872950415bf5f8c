// vpmaddwd on widened taps: vpmaddubsw would be shorter but saturates. Even and odd bytes of four interleaved taps are
// the words (t0, t2) and (t1, t3) of a channel, so two vpmaddwd take four taps of eight channels.
#include <string.h>

#include "depthwise_i8/depthwise_i8_kernel.h"
#include "depthwise_i8/depthwise_i8_load_avx2.h"
#include "target.h"

#if LOWBIT_X86
#include <immintrin.h>

LOWBIT_TARGET_BEGIN_AVX2

namespace lowbit {

constexpr int64_t kWideSlots = 64;  // kernels up to 8 x 8 have their weights widened once per row

// The weights of half a block as words: of every group and quarter the taps 0 and 2, then 1 and 3.
static void widen(const int8_t* weights, int64_t slots, __m256i* to) {
  for (int64_t s = 0; s < slots; s += 4) {
    for (int q = 0; q < 4; ++q, weights += kDepthwiseBlock) {
      const __m256i w = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(weights));
      *to++ = _mm256_srai_epi16(_mm256_slli_epi16(w, 8), 8);
      *to++ = _mm256_srai_epi16(w, 8);
    }
  }
}

// Half a block: 32 channels of one output pixel, four taps, weights as widen() leaves them.
static inline void accumulate(const uint8_t* const* taps, int64_t channel, int64_t width, const __m256i* weights,
                              __m256i acc[4]) {
  const __m256i low_bytes = _mm256_set1_epi16(0xff);
  const __m256i t0 = load_bytes(taps[0] + channel, width), t1 = load_bytes(taps[1] + channel, width);
  const __m256i t2 = load_bytes(taps[2] + channel, width), t3 = load_bytes(taps[3] + channel, width);
  const __m256i lo01 = _mm256_unpacklo_epi8(t0, t1), hi01 = _mm256_unpackhi_epi8(t0, t1);
  const __m256i lo23 = _mm256_unpacklo_epi8(t2, t3), hi23 = _mm256_unpackhi_epi8(t2, t3);
  const __m256i x[4] = {_mm256_unpacklo_epi16(lo01, lo23), _mm256_unpackhi_epi16(lo01, lo23),
                        _mm256_unpacklo_epi16(hi01, hi23), _mm256_unpackhi_epi16(hi01, hi23)};
#pragma GCC unroll 4
  for (int q = 0; q < 4; ++q) {
    const __m256i even = _mm256_madd_epi16(_mm256_and_si256(x[q], low_bytes), weights[2 * q]);
    const __m256i odd = _mm256_madd_epi16(_mm256_srli_epi16(x[q], 8), weights[2 * q + 1]);
    acc[q] = _mm256_add_epi32(acc[q], _mm256_add_epi32(even, odd));
  }
}

// From lane order to channels [0, width) of out.
static inline void store_natural(int32_t* out, int64_t width, const __m256i acc[4]) {
  alignas(32) int32_t natural[32];
  int32_t* to = width >= 32 ? out : natural;
#pragma GCC unroll 4
  for (int q = 0; q < 4; ++q) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to + q * 4), _mm256_castsi256_si128(acc[q]));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to + 16 + q * 4), _mm256_extracti128_si256(acc[q], 1));
  }
  if (width < 32) memcpy(out, natural, static_cast<size_t>(width) * sizeof(int32_t));
}

void depthwise_i8_row_avx2(const DepthwiseRowI8& r) noexcept {
  for (int64_t channel = 0; channel < r.c; channel += 32) {
    const int64_t block = channel / kDepthwiseBlock * kDepthwiseBlock, half = channel - block, width = r.c - channel;
    const int32_t* init = r.init + block + half / 4;
    const int8_t* weights = r.weights + block * r.slots + half;
    __m256i wide[kWideSlots * 2];
    const bool fits = r.slots <= kWideSlots;
    if (fits) widen(weights, r.slots, wide);
    for (int64_t i = 0; i < r.pixels; ++i) {
      __m256i acc[4];
#pragma GCC unroll 4
      for (int q = 0; q < 4; ++q) acc[q] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(init + q * 16));
      for (int64_t s = 0; s < r.slots; s += 4) {
        if (!fits) widen(weights + s * kDepthwiseBlock, 4, wide);
        accumulate(r.taps + i * r.slots + s, channel, width, fits ? wide + s * 2 : wide, acc);
      }
      store_natural(r.acc + i * r.c + channel, width, acc);
    }
  }
}

}  // namespace lowbit

LOWBIT_TARGET_END
#endif
