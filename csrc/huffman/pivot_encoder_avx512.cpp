// vpcompressb into a register (into memory it is microcoded on Zen 4), and vpermi2b for the ranks.
#include <string.h>

#include "huffman/huffman_kernel.h"
#include "target.h"

#if LOWBIT_X86
#include <immintrin.h>

LOWBIT_TARGET_BEGIN_AVX512

namespace lowbit {

static inline __mmask64 first_lanes(int64_t n) { return n >= 64 ? ~__mmask64{0} : (__mmask64{1} << n) - 1; }

static void map(const uint8_t* bytes, int64_t n, const uint8_t* table, uint8_t* out) {
  const __m512i t0 = _mm512_loadu_si512(table), t1 = _mm512_loadu_si512(table + 64);
  const __m512i t2 = _mm512_loadu_si512(table + 128), t3 = _mm512_loadu_si512(table + 192);
  for (int64_t i = 0; i < n; i += 64) {
    const __mmask64 lanes = first_lanes(n - i);
    const __m512i v = _mm512_maskz_loadu_epi8(lanes, bytes + i);
    const __m512i low = _mm512_permutex2var_epi8(t0, v, t1), high = _mm512_permutex2var_epi8(t2, v, t3);
    _mm512_mask_storeu_epi8(out + i, lanes, _mm512_mask_mov_epi8(low, _mm512_movepi8_mask(v), high));
  }
}

static void split(const uint8_t* bytes, int64_t n, uint8_t first_right, uint8_t* bits, uint8_t* left, uint8_t* right) {
  const __m512i first = _mm512_set1_epi8(static_cast<char>(first_right));
  for (int64_t i = 0; i < n; i += 64, bits += 8) {
    const __mmask64 lanes = first_lanes(n - i);
    const __m512i v = _mm512_loadu_si512(bytes + i);
    const __mmask64 ones = _mm512_mask_cmpge_epu8_mask(lanes, v, first), zeros = lanes & ~ones;
    const uint64_t word = ones;
    memcpy(bits, &word, static_cast<size_t>(n - i >= 64 ? 8 : (n - i + 7) / 8));
    _mm512_storeu_si512(left, _mm512_maskz_compress_epi8(zeros, v));
    _mm512_storeu_si512(right, _mm512_maskz_compress_epi8(ones, v));
    left += _mm_popcnt_u64(zeros);
    right += _mm_popcnt_u64(ones);
  }
}

template <int kWidth>
static inline void put_rows(const __m512i* codes, uint8_t* out, int64_t lanes) {
#pragma GCC unroll 6
  for (int row = 0; row < kWidth; ++row) {
    __m512i v = _mm512_setzero_si512();
#pragma GCC unroll 8
    for (int k = 0; k < 8; ++k) {
      const int shift = k * kWidth - 8 * row;  // of the code in this row
      if (shift >= 8 || shift <= -kWidth) continue;
      // 16-bit shifts push bits into the neighbour on the left only above 8, and codes have but kWidth
      const __m512i in_byte = _mm512_and_si512(
          codes[k], _mm512_set1_epi8(static_cast<char>(shift >= 0 ? 255 >> shift : 255 << -shift & 255)));
      v = _mm512_or_si512(v, shift >= 0 ? _mm512_slli_epi16(in_byte, static_cast<unsigned>(shift))
                                        : _mm512_srli_epi16(in_byte, static_cast<unsigned>(-shift)));
    }
    _mm512_mask_storeu_epi8(out + row * lanes, first_lanes(lanes), v);
  }
}

template <int kWidth>
static void flat_of(const uint8_t* bytes, int64_t n, uint8_t first, uint8_t* codes) {
  const __m512i base = _mm512_set1_epi8(static_cast<char>(first));
  while (n >= 8) {
    const int64_t lanes = n < kFlatBlock ? n / 8 : kFlatBlock / 8;
    const __mmask64 mask = first_lanes(lanes);
    __m512i eight[8];
#pragma GCC unroll 8
    for (int64_t k = 0; k < 8; ++k) {
      eight[k] = _mm512_maskz_sub_epi8(mask, _mm512_maskz_loadu_epi8(mask, bytes + k * lanes), base);
    }
    put_rows<kWidth>(eight, codes, lanes);
    codes += lanes * kWidth;
    bytes += 8 * lanes;
    n -= 8 * lanes;
  }
  uint64_t bits = 0;
  for (int64_t i = 0; i < n; ++i) bits |= static_cast<uint64_t>(bytes[i] - first) << (i * kWidth);
  memcpy(codes, &bits, static_cast<size_t>(flat_bytes(n, kWidth)));
}

static void flat_pair(const uint8_t* bytes, int64_t n, uint8_t first, uint8_t* codes) {
  for (int64_t i = 0; i < n; i += 64) {
    const uint64_t word = _mm512_cmpneq_epu8_mask(_mm512_maskz_loadu_epi8(first_lanes(n - i), bytes + i),
                                                  _mm512_maskz_set1_epi8(first_lanes(n - i), static_cast<char>(first)));
    memcpy(codes + i / 8, &word, static_cast<size_t>(n - i >= 64 ? 8 : (n - i + 7) / 8));
  }
}

static void flat(const uint8_t* bytes, int64_t n, int width, uint8_t first, uint8_t* codes) {
  using Fn = void (*)(const uint8_t*, int64_t, uint8_t, uint8_t*);
  static constexpr Fn kByWidth[] = {flat_pair, flat_of<2>, flat_of<3>, flat_of<4>, flat_of<5>, flat_of<6>};
  kByWidth[width - 1](bytes, n, first, codes);
}

const PivotEncoder pivot_encoder_avx512 = {map, split, flat};

}  // namespace lowbit

LOWBIT_TARGET_END
#endif
