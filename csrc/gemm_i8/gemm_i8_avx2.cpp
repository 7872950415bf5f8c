// vpmaddwd on bytes widened to 16 bits: exact, where vpmaddubsw would saturate. A packed quadruple of 4 columns widens
// to one register, whose products with a broadcast quadruple of A leave two sums per column, added at the end. Tiles of
// 3 rows x 16 columns: the widening of B is shared by three rows.
#include "gemm_i8/gemm_i8_kernel.h"
#include "requantize/requantize_avx2.h"
#include "target.h"

#if LOWBIT_X86
#include <immintrin.h>
#include <stdint.h>

LOWBIT_TARGET_BEGIN_AVX2

namespace lowbit {
namespace {

static inline __m256i quadruple(const uint8_t* a) {
  int32_t bytes;
  __builtin_memcpy(&bytes, a, sizeof(bytes));
  return _mm256_cvtepu8_epi16(_mm_set1_epi32(bytes));
}

// What the tiles of a call share.
struct Task {
  const GemmI8& g;
  CodesAvx2 e;
  Finish finish;
};

// 16 codes of two rows, from a whole panel's sums.
template <bool kFixed, bool kResidual>
static inline __attribute__((always_inline)) void finish_rows(const Task& k, const int32_t* first,
                                                              const int32_t* second, int64_t i, int64_t second_i,
                                                              int64_t j) {
  const Requantizer& q = *k.g.requantizer;
  const int32_t* sums[2] = {first, second};
  const int64_t out[2] = {i, second_i};
  typename ScaleAvx2<kFixed>::Scaled f[4];
#pragma GCC unroll 4
  for (int v = 0; v < 4; ++v) {
    const int64_t at = j + v % 2 * 8;
    const int32_t* acc = sums[v / 2] + v % 2 * 8;
    const uint8_t* r = kResidual ? residual_codes_avx2(q, out[v / 2], at) : nullptr;
    f[v] = code_sums_avx2<kFixed, kResidual>(k.e, acc, at, r, q);
  }
  const __m256i y = round32_avx2<kResidual>(k.e, f[0], f[1], f[2], f[3]);
  uint8_t* to = (uint8_t*)k.g.c + j;
  _mm_storeu_si128((__m128i*)(to + i * k.g.ldc), _mm256_castsi256_si128(y));
  _mm_storeu_si128((__m128i*)(to + second_i * k.g.ldc), _mm256_extracti128_si256(y, 1));
}

template <int kR, bool kFixed, bool kResidual>
static inline __attribute__((always_inline)) void finish_tile(const Task& k, const int32_t* out, int64_t i, int64_t j) {
  constexpr int kSecond = kR > 1 ? 1 : 0;  // a row alone is done twice
  finish_rows<kFixed, kResidual>(k, out, out + kSecond * kPanel, i, i + kSecond, j);
  if constexpr (kR == 3) {
    finish_rows<kFixed, kResidual>(k, out + 2 * kPanel, out + 2 * kPanel, i + 2, i + 2, j);
  }
}

// Rows [i, i + kR) of panel p.
template <int kR>
static void tile(const Task& k, int64_t i, int64_t p) {
  const GemmI8& g = k.g;
  const uint8_t* rows[kR];
  __m256i sum[kR][4];
#pragma GCC unroll 4
  for (int r = 0; r < kR; ++r) {
    rows[r] = g.row(i + r);
#pragma GCC unroll 4
    for (int c = 0; c < 4; ++c) sum[r][c] = _mm256_setzero_si256();
  }
  const int64_t quads = (g.run_bytes + 3) / 4;
  const int8_t* run = g.b + p * g.panel_bytes();
  for (int64_t t = 0; t < g.runs; ++t, run += g.run_pad * kPanel) {
    const int64_t offset = g.run_offset[t];
    const int8_t* b = run;
    for (int64_t s = 0; s < quads; ++s, b += 64) {
      __m256i a[kR];
#pragma GCC unroll 4
      for (int r = 0; r < kR; ++r) a[r] = quadruple(rows[r] + offset + 4 * s);
#pragma GCC unroll 4
      for (int c = 0; c < 4; ++c) {
        const __m256i column = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i*)(b + 16 * c)));
#pragma GCC unroll 4
        for (int r = 0; r < kR; ++r) sum[r][c] = _mm256_add_epi32(sum[r][c], _mm256_madd_epi16(a[r], column));
      }
    }
  }
  alignas(32) int32_t out[kR * kPanel];
  const int32_t* init = g.init + p * kPanel;
#pragma GCC unroll 4
  for (int r = 0; r < kR; ++r) {
    const __m256i term = _mm256_set1_epi32(g.row_term ? g.row_term[i + r - g.first_row] : 0);
#pragma GCC unroll 2
    for (int h = 0; h < 2; ++h) {  // hadd works within 128-bit lanes: columns 0 1 4 5 2 3 6 7
      const __m256i mixed = _mm256_hadd_epi32(sum[r][2 * h], sum[r][2 * h + 1]);
      const __m256i sums = _mm256_permute4x64_epi64(mixed, 0xd8);
      const __m256i start = _mm256_add_epi32(_mm256_loadu_si256((const __m256i*)(init + 8 * h)), term);
      _mm256_store_si256((__m256i*)(out + r * kPanel + 8 * h), _mm256_add_epi32(sums, start));
    }
  }
  const int64_t j = p * kPanel, cols = g.n - j < kPanel ? g.n - j : kPanel;
  if (k.finish == Finish::any || cols < kPanel) {
    requantize_rows_avx2(out, kPanel, i, kR, j, cols, g.c, g.ldc, *g.requantizer);
    return;
  }
  const bool fixed = k.finish == Finish::fixed;
  if (g.requantizer->residual) {
    fixed ? finish_tile<kR, true, true>(k, out, i, j) : finish_tile<kR, false, true>(k, out, i, j);
  } else {
    fixed ? finish_tile<kR, true, false>(k, out, i, j) : finish_tile<kR, false, false>(k, out, i, j);
  }
}

}  // namespace

void gemm_i8_avx2(const GemmI8& g, int64_t i0, int64_t i1, int64_t p0, int64_t p1) noexcept {
  const Requantizer& q = *g.requantizer;
  const Task k{g, codes_avx2(q), finish_of(q)};
  for (int64_t p = p0; p < p1; ++p) {
    int64_t i = i0;
    for (; i + 3 <= i1; i += 3) tile<3>(k, i, p);
    if (i1 - i == 2) tile<2>(k, i, p);
    if (i1 - i == 1) tile<1>(k, i, p);
  }
}

}  // namespace lowbit

LOWBIT_TARGET_END

#endif
