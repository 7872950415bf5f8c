// vpdpbusd on four interleaved taps: eight unpacks and four products for four taps of 64 channels.
#include "depthwise_i8/depthwise_i8_kernel.h"
#include "target.h"

#if LOWBIT_X86
#include <immintrin.h>

LOWBIT_TARGET_BEGIN_AVX512_VNNI

namespace lowbit {

// acc += the products of four unsigned and four signed bytes. By hand: GCC 12's intrinsic copies the accumulator.
static inline void dot(__m512i& acc, __m512i u8, const int8_t* s8) {
  __asm__("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(u8), "m"(*reinterpret_cast<const __m512i*>(s8)));
}

static inline __mmask64 mask_of(int64_t width) { return width >= 64 ? ~__mmask64{0} : (__mmask64{1} << width) - 1; }

// From lane order to channels [0, width) of out: the 4 x 4 lanes are transposed.
static inline void store_natural(int32_t* out, int64_t width, const __m512i acc[4]) {
  const __m512i a = _mm512_shuffle_i32x4(acc[0], acc[1], 0x44), b = _mm512_shuffle_i32x4(acc[2], acc[3], 0x44);
  const __m512i c = _mm512_shuffle_i32x4(acc[0], acc[1], 0xee), d = _mm512_shuffle_i32x4(acc[2], acc[3], 0xee);
  const __m512i rows[4] = {_mm512_shuffle_i32x4(a, b, 0x88), _mm512_shuffle_i32x4(a, b, 0xdd),
                           _mm512_shuffle_i32x4(c, d, 0x88), _mm512_shuffle_i32x4(c, d, 0xdd)};
#pragma GCC unroll 4
  for (int q = 0; q < 4; ++q) {
    const int64_t left = width - 16 * q;
    if (left <= 0) return;
    _mm512_mask_storeu_epi32(out + 16 * q, left >= 16 ? __mmask16(0xffff) : __mmask16((1u << left) - 1), rows[q]);
  }
}

void depthwise_i8_row_avx512_vnni(const DepthwiseRowI8& r) noexcept {
  for (int64_t first = 0; first < r.c; first += kDepthwiseBlock) {
    const __mmask64 mask = mask_of(r.c - first);
    for (int64_t i = 0; i < r.pixels; ++i) {
      const uint8_t* const* taps = r.taps + i * r.slots;
      const int8_t* weights = r.weights + first * r.slots;
      __m512i acc[4];
#pragma GCC unroll 4
      for (int q = 0; q < 4; ++q) acc[q] = _mm512_loadu_si512(r.init + first + q * 16);
      for (int64_t s = 0; s < r.slots; s += 4, weights += 4 * kDepthwiseBlock) {
        const __m512i t0 = _mm512_maskz_loadu_epi8(mask, taps[s] + first);
        const __m512i t1 = _mm512_maskz_loadu_epi8(mask, taps[s + 1] + first);
        const __m512i t2 = _mm512_maskz_loadu_epi8(mask, taps[s + 2] + first);
        const __m512i t3 = _mm512_maskz_loadu_epi8(mask, taps[s + 3] + first);
        const __m512i lo01 = _mm512_unpacklo_epi8(t0, t1), hi01 = _mm512_unpackhi_epi8(t0, t1);
        const __m512i lo23 = _mm512_unpacklo_epi8(t2, t3), hi23 = _mm512_unpackhi_epi8(t2, t3);
        dot(acc[0], _mm512_unpacklo_epi16(lo01, lo23), weights);
        dot(acc[1], _mm512_unpackhi_epi16(lo01, lo23), weights + kDepthwiseBlock);
        dot(acc[2], _mm512_unpacklo_epi16(hi01, hi23), weights + 2 * kDepthwiseBlock);
        dot(acc[3], _mm512_unpackhi_epi16(hi01, hi23), weights + 3 * kDepthwiseBlock);
      }
      store_natural(r.acc + i * r.c + first, r.c - first, acc);
    }
  }
}

}  // namespace lowbit

LOWBIT_TARGET_END
#endif
