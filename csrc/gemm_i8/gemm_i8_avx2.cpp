// vpmaddwd on bytes widened to 16 bits: exact, where vpmaddubsw would saturate. From six rows on, A and one panel of B
// are widened once into scratch, and 6 rows x 16 columns cost two loads of B and six broadcasts for twelve vpmaddwd and
// twelve vpaddd, which alone fill the three vector ports: 20 to 22 of at most 24 products per cycle, 1.4 times what
// widening in the loop reached. In assembly: GCC 12 spills the sums of the intrinsics (1.1 times).
//
// Fewer rows widen on the fly: a packed quadruple of 4 columns is one register, whose products with a broadcast
// quadruple of A leave two sums per column, added at the end; 3 rows x 16 columns share the widening of B.
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

template <bool kFixed, bool kResidual>
static void finish_tile(const Task& k, const int32_t* out, int rows, int64_t i, int64_t j) {
  for (int r = 0; r < rows; r += 2) {
    const int second = r + 1 < rows ? r + 1 : r;  // a row alone is done twice
    finish_rows<kFixed, kResidual>(k, out + r * kPanel, out + second * kPanel, i + r, i + second, j);
  }
}

// The epilogue of `rows` rows of panel p.
static void finish(const Task& k, const int32_t* out, int rows, int64_t i, int64_t p) {
  const GemmI8& g = k.g;
  const int64_t j = p * kPanel, cols = g.n - j < kPanel ? g.n - j : kPanel;
  if (k.finish == Finish::any || cols < kPanel) {
    requantize_rows_avx2(out, kPanel, i, rows, j, cols, g.c, g.ldc, *g.requantizer);
    return;
  }
  const bool fixed = k.finish == Finish::fixed;
  if (g.requantizer->residual) {
    fixed ? finish_tile<true, true>(k, out, rows, i, j) : finish_tile<false, true>(k, out, rows, i, j);
  } else {
    fixed ? finish_tile<true, false>(k, out, rows, i, j) : finish_tile<false, false>(k, out, rows, i, j);
  }
}

// out = init + row_term + sums, whose columns come in the order 0 1 4 5 2 3 6 7.
static inline __attribute__((always_inline)) void put_sums(const GemmI8& g, __m256i sums, int64_t i, int64_t j,
                                                           int32_t* out) {
  const __m256i term = _mm256_set1_epi32(g.row_term ? g.row_term[i - g.first_row] : 0);
  const __m256i start = _mm256_add_epi32(_mm256_loadu_si256((const __m256i*)(g.init + j)), term);
  _mm256_storeu_si256((__m256i*)out, _mm256_add_epi32(_mm256_permute4x64_epi64(sums, 0xd8), start));
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
#pragma GCC unroll 4
  for (int r = 0; r < kR; ++r) {
#pragma GCC unroll 2
    for (int h = 0; h < 2; ++h) {
      put_sums(g, _mm256_hadd_epi32(sum[r][2 * h], sum[r][2 * h + 1]), i + r, p * kPanel + 8 * h,
               out + r * kPanel + 8 * h);
    }
  }
  finish(k, out, kR, i, p);
}

// Rows of A and a panel of B as int16. Of a matrix the rows follow each other, of an image all bytes stay in place.
struct Wide {
  int16_t* b;  // [run][quadruple][2 pairs][columns 0 1 4 5 2 3 6 7, then 8 more][2]
  int16_t* a;
  int64_t i0, first, pitch;  // virtual row, offset and distance of the rows, in values
};

static inline __m256i wide_bytes(const uint8_t* from) {
  return _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i*)from));
}

static void widen_bytes(const uint8_t* from, int64_t n, int16_t* to) {
  if (n < 16) {
    for (int64_t at = 0; at < n; ++at) to[at] = from[at];
    return;
  }
  for (int64_t at = 0; at < n - 16; at += 16) _mm256_storeu_si256((__m256i*)(to + at), wide_bytes(from + at));
  _mm256_storeu_si256((__m256i*)(to + n - 16), wide_bytes(from + n - 16));
}

static Wide widen_rows(const GemmI8& g, int64_t i0, int64_t i1) {
  Wide w;
  w.b = g.wide;
  w.a = w.b + g.wide_panel();
  w.pitch = g.wide_pitch();
  if (g.runs == 1) {
    w.i0 = i0, w.first = 0;
    if (g.virtual_w == g.out_w && i1 <= g.tail_row && g.lda == w.pitch) {
      widen_bytes(g.row(i0) + g.run_offset[0], (i1 - i0) * w.pitch, w.a);
      return w;
    }
    for (int64_t i = i0; i < i1; ++i) widen_bytes(g.row(i) + g.run_offset[0], g.run_read(), w.a + (i - i0) * w.pitch);
  } else {
    w.i0 = g.virtual_row(i0), w.first = g.first_offset();
    widen_bytes(g.row(i0) + w.first, g.wide_rows(i0, i1), w.a);
  }
  return w;
}

static void widen_panel(const GemmI8& g, int64_t p, int16_t* to) {
  const int8_t* run = g.b + p * g.panel_bytes();
  for (int64_t t = 0; t < g.runs; ++t, run += g.run_pad * kPanel) {
    for (int64_t at = 0; at < g.run_read(); at += 4, to += 64) {
      __m256 v[4];
#pragma GCC unroll 4
      for (int c = 0; c < 4; ++c) {
        const __m128i bytes = _mm_loadu_si128((const __m128i*)(run + at * kPanel + 16 * c));
        v[c] = _mm256_castsi256_ps(_mm256_cvtepi8_epi16(bytes));
      }
      _mm256_store_ps((float*)to, _mm256_shuffle_ps(v[0], v[1], 0x88));
      _mm256_store_ps((float*)(to + 16), _mm256_shuffle_ps(v[2], v[3], 0x88));
      _mm256_store_ps((float*)(to + 32), _mm256_shuffle_ps(v[0], v[1], 0xdd));
      _mm256_store_ps((float*)(to + 48), _mm256_shuffle_ps(v[2], v[3], 0xdd));
    }
  }
}

static inline __m256i pair(const int16_t* a) {
  int32_t values;
  __builtin_memcpy(&values, a, sizeof(values));
  return _mm256_set1_epi32(values);
}

// sum += a * b in pairs. In assembly, because GCC 12 spills sums where twelve of them leave four registers.
static inline __attribute__((always_inline)) void dot(__m256i& sum, __m256i a, __m256i b) {
  __m256i product;
  __asm__("vpmaddwd %3, %2, %1\n\tvpaddd %1, %0, %0" : "+x"(sum), "=&x"(product) : "x"(a), "x"(b));
}

// Rows [i, i + kR) of panel p, which is widened.
template <int kR>
static void wide_tile(const Task& k, const Wide& w, int64_t i, int64_t p) {
  const GemmI8& g = k.g;
  const int16_t* rows[kR];
  __m256i sum[kR][2];
#pragma GCC unroll 6
  for (int r = 0; r < kR; ++r) {
    rows[r] = w.a + ((g.runs == 1 ? i + r : g.virtual_row(i + r)) - w.i0) * w.pitch - w.first;
    sum[r][0] = sum[r][1] = _mm256_setzero_si256();
  }
  const int16_t* b = w.b;
  for (int64_t t = 0; t < g.runs; ++t) {
    const int64_t start = g.runs == 1 ? 0 : g.run_offset[t], end = start + g.run_read();
    for (int64_t at = start; at < end; at += 4, b += 64) {
#pragma GCC unroll 2
      for (int s = 0; s < 2; ++s) {
        const __m256i b0 = _mm256_load_si256((const __m256i*)(b + 32 * s));
        const __m256i b1 = _mm256_load_si256((const __m256i*)(b + 32 * s + 16));
#pragma GCC unroll 6
        for (int r = 0; r < kR; ++r) {
          const __m256i a = pair(rows[r] + at + 2 * s);
          dot(sum[r][0], a, b0);
          dot(sum[r][1], a, b1);
        }
      }
    }
  }
  alignas(32) int32_t out[kR * kPanel];
  const int64_t j = p * kPanel;
  const bool direct = g.requantizer->out_dtype == DType::s32 && j + kPanel <= g.n;
  int32_t* to = direct ? (int32_t*)g.c + i * g.ldc + j : out;
  const int64_t stride = direct ? g.ldc : kPanel;
#pragma GCC unroll 6
  for (int r = 0; r < kR; ++r, to += stride) {
    put_sums(g, sum[r][0], i + r, j, to);
    put_sums(g, sum[r][1], i + r, j + 8, to + 8);
  }
  if (!direct) finish(k, out, kR, i, p);
}

static void wide_panels(const Task& k, int64_t i0, int64_t i1, int64_t p0, int64_t p1) {
  const Wide w = widen_rows(k.g, i0, i1);
  for (int64_t p = p0; p < p1; ++p) {
    widen_panel(k.g, p, w.b);
    int64_t i = i0;
    for (; i1 - i > 8 || i1 - i == 6; i += 6) wide_tile<6>(k, w, i, p);
    if (i1 - i > 6) wide_tile<4>(k, w, i, p), i += 4;
    if (i1 - i == 5) wide_tile<5>(k, w, i, p);
    if (i1 - i == 4) wide_tile<4>(k, w, i, p);
    if (i1 - i == 3) wide_tile<3>(k, w, i, p);
    if (i1 - i == 2) wide_tile<2>(k, w, i, p);
    if (i1 - i == 1) wide_tile<1>(k, w, i, p);
  }
}

}  // namespace

void gemm_i8_avx2(const GemmI8& g, int64_t i0, int64_t i1, int64_t p0, int64_t p1) noexcept {
  const Requantizer& q = *g.requantizer;
  const Task k{g, codes_avx2(q), finish_of(q, false)};
  if (g.wide) {
    wide_panels(k, i0, i1, p0, p1);
    return;
  }
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
