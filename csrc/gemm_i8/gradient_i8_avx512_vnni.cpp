// Byte interleaves within 128-bit lanes, each lane a block of 16 columns of its own rows: a 16 x 16 transposition is
// four of them, groups of four rows two and a 4 x 4 transposition of lanes. vpdpbusd with ones makes the column sums.
#include "gemm_i8/gradient_i8_kernel.h"
#include "target.h"

#if LOWBIT_X86
#include <immintrin.h>

LOWBIT_TARGET_BEGIN_AVX512_VNNI

namespace lowbit::gradient {

// Columns [c, c + 16) of rows a, b, c, d, each in a lane.
static inline __m512i four_rows(const uint8_t* const* rows, int a, int step, int64_t at, __mmask16 columns) {
  if (columns == 0xffff) {
    const __m128i* from[4];
    for (int k = 0; k < 4; ++k) from[k] = (const __m128i*)(rows[a + k * step] + at);
    __m512i v = _mm512_castsi128_si512(_mm_loadu_si128(from[0]));
    v = _mm512_inserti32x4(v, _mm_loadu_si128(from[1]), 1);
    v = _mm512_inserti32x4(v, _mm_loadu_si128(from[2]), 2);
    return _mm512_inserti32x4(v, _mm_loadu_si128(from[3]), 3);
  }
  __m512i v = _mm512_castsi128_si512(_mm_maskz_loadu_epi8(columns, rows[a] + at));
  v = _mm512_inserti32x4(v, _mm_maskz_loadu_epi8(columns, rows[a + step] + at), 1);
  v = _mm512_inserti32x4(v, _mm_maskz_loadu_epi8(columns, rows[a + 2 * step] + at), 2);
  return _mm512_inserti32x4(v, _mm_maskz_loadu_epi8(columns, rows[a + 3 * step] + at), 3);
}

static inline __mmask16 columns_left(int64_t n) { return n >= 16 ? 0xffff : (__mmask16)((1u << n) - 1); }

void transpose_avx512_vnni(const uint8_t* const* rows, int64_t count, int64_t columns, uint8_t flip, uint8_t* to,
                           int64_t ld) noexcept {
  const uint8_t* all[kBlock];
  for (int64_t r = 0; r < kBlock; ++r) all[r] = rows[r < count ? r : 0];
  const __mmask64 stored = count >= kBlock ? ~(__mmask64)0 : ((__mmask64)1 << count) - 1;
  const __m512i flips = _mm512_set1_epi8((char)flip);
  for (int64_t c = 0; c < columns; c += 16, to += 16 * ld) {
    const __mmask16 mask = columns_left(columns - c);
    __m512i a[16], b[16];
#pragma GCC unroll 16
    for (int r = 0; r < 16; ++r) a[r] = four_rows(all, r, 16, c, mask);  // lane k: row 16 k + r
    // Each step pairs row r with row r + 8; after four, vector j is column j.
#pragma GCC unroll 4
    for (int step = 0; step < 4; ++step) {
      __m512i* const from = step % 2 ? b : a;
      __m512i* const into = step % 2 ? a : b;
#pragma GCC unroll 8
      for (int r = 0; r < 8; ++r) {
        into[2 * r] = _mm512_unpacklo_epi8(from[r], from[r + 8]);
        into[2 * r + 1] = _mm512_unpackhi_epi8(from[r], from[r + 8]);
      }
    }
    const int64_t width = columns - c < 16 ? columns - c : 16;
#pragma GCC unroll 16
    for (int j = 0; j < 16; ++j) {
      if (j < width) _mm512_mask_storeu_epi8(to + j * ld, stored, _mm512_xor_si512(a[j], flips));
    }
  }
}

void interleave_avx512_vnni(const uint8_t* const* rows, int64_t columns, uint8_t flip, int8_t* to, int64_t panel,
                            int32_t* sums) noexcept {
  const __m512i flips = _mm512_set1_epi8((char)flip), ones = _mm512_set1_epi8(1);
  for (int64_t c = 0; c < columns; c += 16, to += panel) {
    const __mmask16 mask = columns_left(columns - c);
    const __m512i quads = _mm512_maskz_mov_epi32(mask, flips);
    __m512i sum = _mm512_maskz_loadu_epi32(mask, sums + c);
    for (int r = 0; r < kBlock; r += 16) {
      __m512i a[4];
#pragma GCC unroll 4
      for (int k = 0; k < 4; ++k) a[k] = four_rows(rows, r + k, 4, c, mask);  // lane q: row r + 4 q + k
      const __m512i lo01 = _mm512_unpacklo_epi8(a[0], a[1]), hi01 = _mm512_unpackhi_epi8(a[0], a[1]);
      const __m512i lo23 = _mm512_unpacklo_epi8(a[2], a[3]), hi23 = _mm512_unpackhi_epi8(a[2], a[3]);
      const __m512i u0 = _mm512_unpacklo_epi16(lo01, lo23), u1 = _mm512_unpackhi_epi16(lo01, lo23);
      const __m512i u2 = _mm512_unpacklo_epi16(hi01, hi23), u3 = _mm512_unpackhi_epi16(hi01, hi23);
      // Lane q of u_k: columns 4 k .. 4 k + 3 of quadruple q.
      const __m512i e0 = _mm512_shuffle_i32x4(u0, u1, 0x44), e1 = _mm512_shuffle_i32x4(u2, u3, 0x44);
      const __m512i e2 = _mm512_shuffle_i32x4(u0, u1, 0xee), e3 = _mm512_shuffle_i32x4(u2, u3, 0xee);
      __m512i q[4] = {_mm512_shuffle_i32x4(e0, e1, 0x88), _mm512_shuffle_i32x4(e0, e1, 0xdd),
                      _mm512_shuffle_i32x4(e2, e3, 0x88), _mm512_shuffle_i32x4(e2, e3, 0xdd)};
#pragma GCC unroll 4
      for (int k = 0; k < 4; ++k) {
        q[k] = _mm512_xor_si512(q[k], quads);
        sum = _mm512_dpbusd_epi32(sum, ones, q[k]);
        _mm512_storeu_si512(to + (r / 4 + k) * 64, q[k]);
      }
    }
    _mm512_mask_storeu_epi32(sums + c, mask, sum);
  }
}

}  // namespace lowbit::gradient

LOWBIT_TARGET_END
#endif
