// vpdpbusd: 64 products of uint8 and int8 added to 16 int32. A tile keeps up to 24 sums in registers: 6 rows x 64
// columns, more rows where there are fewer columns, so that a quadruple of A is broadcast once for up to four products
// and the loads stay below half of them. Inline assembly, because GCC 12 copies and spills the accumulators of the
// intrinsic (half the speed). For one to three rows, which only stream B, eight panels at once.
//
// Measured in L1 on a Xeon: the loop issues two vpdpbusd in every cycle, but the clock falls from the probe's 3.4 GHz
// to 3.0-3.2 once operands are loaded: 370-404 of 434 GMAC/s at most. Every scalar instruction takes a slot of ports 0
// and 5, hence four steps at a time (+5 %; eight: -3 %). Lost: 8 x 48, 9 x 48, 5 x 80, 12 x 32 (level or 1-4 % slower),
// A in the memory operand's broadcast (-15 %), B in memory operands (-30 %); prefetching C (level or
// worse), streaming stores (level).
// B from L2 costs nothing at K = 1024 and 2048, so K is not blocked; storing C beyond L1 costs 4-6 %.
#include "gemm_i8/gemm_i8_kernel.h"
#include "gemm_i8/tile_codes_avx512.h"
#include "requantize/requantize_avx512.h"
#include "target.h"

#if LOWBIT_X86
#include <immintrin.h>
#include <stdint.h>

LOWBIT_TARGET_BEGIN_AVX512_VNNI

namespace lowbit {
namespace {

static inline __attribute__((always_inline)) void dot(__m512i& sum, __m512i a, __m512i b) {
  __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
}

static inline __m512i quadruple(const uint8_t* a) {
  int32_t bytes;
  __builtin_memcpy(&bytes, a, sizeof(bytes));
  return _mm512_set1_epi32(bytes);
}

// What the tiles of a call share.
struct Task {
  const GemmI8& g;
  CodesAvx512 e;
  Finish finish;
  bool direct;  // int32 sums
};

// Where rows [i, i + kR) of A lie: g.row(i) without a division for each.
template <int kR>
static inline __attribute__((always_inline)) void rows_from(const GemmI8& g, int64_t i, const uint8_t* (&rows)[kR]) {
  const bool matrix = g.virtual_w == g.out_w;
  if (i + kR > g.tail_row && i < g.tail_row) {
#pragma GCC unroll 8
    for (int r = 0; r < kR; ++r) rows[r] = g.row(i + r);
  } else if (matrix || i >= g.tail_row) {
    const int64_t pitch = i < g.tail_row ? g.lda : g.tail_lda;
    rows[0] = i < g.tail_row ? g.a + (i - g.first_row) * pitch : g.tail + (i - g.tail_row) * pitch;
#pragma GCC unroll 8
    for (int r = 1; r < kR; ++r) rows[r] = rows[r - 1] + pitch;
  } else {
    const int64_t border = (g.virtual_w - g.out_w) * g.lda;
    int64_t x = (i - g.first_row) % g.out_w;
    rows[0] = g.row(i);
#pragma GCC unroll 8
    for (int r = 1; r < kR; ++r) {
      rows[r] = rows[r - 1] + g.lda + (x + 1 == g.out_w ? border : 0);
      x = x + 1 == g.out_w ? 0 : x + 1;
    }
  }
}

// kC panels of `rows` rows of sums, from column j on.
template <int kC, bool kResidual, Finish kFinish>
static inline void finish(const Task& k, const int32_t* sums, int rows, int64_t i, int64_t j) {
  static const uint8_t kInOrder[8] = {0, 1, 2, 3, 4, 5, 6, 7};
  const Requantizer& q = *k.g.requantizer;
  TileCodes t;
  t.sums = sums;
  t.rows = kInOrder;
  t.to = (uint8_t*)k.g.c + i * k.g.ldc + j;
  t.residual = kResidual ? residual_codes_avx512(q, i, j) : t.to;
  t.j = j;
  t.cols = k.g.n - j;
  tile_codes_avx512<kC, kResidual, kFinish>(k.e, q, k.g.ldc, t, rows);
}

template <int kC, Finish kFinish>
static inline void finish_codes(const Task& k, const int32_t* sums, int rows, int64_t i, int64_t j) {
  k.g.requantizer->residual ? finish<kC, true, kFinish>(k, sums, rows, i, j)
                            : finish<kC, false, kFinish>(k, sums, rows, i, j);
}

// The kC panels of a tile in groups of 4, 2 and 1, from panel kFrom of the tile on.
template <int kR, int kC, int kFrom>
static inline __attribute__((always_inline)) void finish_sums(const Task& k, const __m512i (&sum)[kR][kC], int32_t* out,
                                                              int64_t i, int64_t p) {
  constexpr int kGroup = kC - kFrom >= 4 ? 4 : kC - kFrom >= 2 ? 2 : 1;
#pragma GCC unroll 8
  for (int r = 0; r < kR; ++r) {
#pragma GCC unroll 4
    for (int c = 0; c < kGroup; ++c) _mm512_store_si512(out + (r * kGroup + c) * kPanel, sum[r][kFrom + c]);
  }
  const GemmI8& g = k.g;
  const int64_t j = (p + kFrom) * kPanel;
  if (k.finish == Finish::any) {
    const int64_t cols = g.n - j < kGroup * kPanel ? g.n - j : kGroup * kPanel;
    requantize_rows_avx512(out, kGroup * kPanel, i, kR, j, cols, g.c, g.ldc, *g.requantizer);
  } else if (k.finish == Finish::floats) {
    finish_codes<kGroup, Finish::floats>(k, out, kR, i, j);
  } else if (k.finish == Finish::floor) {
    finish_codes<kGroup, Finish::floor>(k, out, kR, i, j);
  } else {
    finish_codes<kGroup, Finish::fixed>(k, out, kR, i, j);
  }
  if constexpr (kFrom + kGroup < kC) finish_sums<kR, kC, kFrom + kGroup>(k, sum, out + kR * kGroup * kPanel, i, p);
}

// int32 outputs, straight from the registers.
template <int kR, int kC>
static inline __attribute__((always_inline)) void store_sums(const GemmI8& g, const __m512i (&sum)[kR][kC], int64_t i,
                                                             int64_t p) {
  const int64_t last = g.n - (p + kC - 1) * kPanel;
  const __mmask16 mask = last < kPanel ? (__mmask16)((1u << last) - 1) : (__mmask16)0xffff;
  int32_t* to = (int32_t*)g.c + i * g.ldc + p * kPanel;
#pragma GCC unroll 8
  for (int r = 0; r < kR; ++r, to += g.ldc) {
#pragma GCC unroll 8
    for (int c = 0; c < kC - 1; ++c) _mm512_storeu_si512(to + c * kPanel, sum[r][c]);
    _mm512_mask_storeu_epi32(to + (kC - 1) * kPanel, mask, sum[r][kC - 1]);
  }
}

// Four bytes of every row with a quadruple of each column.
template <int kR, int kC>
static inline __attribute__((always_inline)) void step(__m512i (&sum)[kR][kC], const uint8_t* const (&rows)[kR],
                                                       int64_t at, const int8_t* b, int64_t panel) {
  __m512i column[kC];
#pragma GCC unroll 8
  for (int c = 0; c < kC; ++c) column[c] = _mm512_loadu_si512(b + c * panel);
#pragma GCC unroll 8
  for (int r = 0; r < kR; ++r) {
    const __m512i a = quadruple(rows[r] + at);
#pragma GCC unroll 8
    for (int c = 0; c < kC; ++c) dot(sum[r][c], a, column[c]);
  }
}

// Rows [i, i + kR) of the kC panels from p on.
// kAhead: meanwhile kAhead bytes at `ahead` come into L2 for every byte of a run.
template <int kR, int kC, int kAhead = 0>
static void tile(const Task& k, int64_t i, int64_t p, const int8_t* ahead = nullptr) {
  const GemmI8& g = k.g;
  const uint8_t* rows[kR];
  rows_from<kR>(g, i, rows);
  __m512i sum[kR][kC];
#pragma GCC unroll 8
  for (int r = 0; r < kR; ++r) {
#pragma GCC unroll 8
    for (int c = 0; c < kC; ++c) sum[r][c] = _mm512_loadu_si512(g.init + (p + c) * kPanel);
  }
  if (g.row_term) {
#pragma GCC unroll 8
    for (int r = 0; r < kR; ++r) {
      const __m512i term = _mm512_set1_epi32(g.row_term[i + r - g.first_row]);
#pragma GCC unroll 8
      for (int c = 0; c < kC; ++c) sum[r][c] = _mm512_add_epi32(sum[r][c], term);
    }
  }
  const int64_t panel = g.panel_bytes(), bytes = (g.run_bytes + 3) / 4 * 4;
  const int8_t* run = g.b + p * panel;
  for (int64_t t = 0; t < g.runs; ++t, run += g.run_pad * kPanel) {
    const int8_t* fetch = ahead + (t * g.run_pad - g.run_offset[t]) * kAhead;
    const int64_t end = g.run_offset[t] + bytes;
    const int8_t* b = run;
    int64_t at = g.run_offset[t];
    for (; at + 16 <= end; at += 16, b += 256) {
#pragma GCC unroll 2
      for (int f = 0; f < kAhead / 4; ++f) _mm_prefetch((const char*)fetch + kAhead * at + 64 * f, _MM_HINT_T1);
#pragma GCC unroll 4
      for (int s = 0; s < 4; ++s) step(sum, rows, at + 4 * s, b + 64 * s, panel);
    }
    for (; at < end; at += 4, b += 64) step(sum, rows, at, b, panel);
  }
  if (k.direct) {
    store_sums(g, sum, i, p);
    return;
  }
  alignas(64) int32_t out[kR * kC * kPanel];
  finish_sums<kR, kC, 0>(k, sum, out, i, p);
}

// Rows [i0, i1), kR at a time and the rest one size down.
template <int kR, int kC>
static void rows_of(const Task& k, int64_t i0, int64_t i1, int64_t p) {
  for (; i0 + kR <= i1; i0 += kR) tile<kR, kC>(k, i0, p);
  if constexpr (kR > 1) rows_of<(kR + 1) / 2, kC>(k, i0, i1, p);
}

// Rows [i0, i1) of four panels: 6 at a time, and 7 or 8 as two tiles, since the sums of one or two rows are too few to
// hide the latency of vpdpbusd. The next four panels come into L2 where L3 would not deliver them in time.
static void rows_of_four(const Task& k, int64_t i0, int64_t i1, int64_t p) {
  constexpr int kAhead = 8;
  constexpr int64_t kFar = 1 << 17;
  const int64_t bytes = 4 * k.g.panel_bytes(), slice = k.g.panel_bytes() / kPanel * kAhead;
  const int8_t* next = k.g.b + (p + 4) * k.g.panel_bytes();
  const int64_t fetched = bytes >= kFar && p + 8 <= k.g.panels() ? bytes : 0;
  for (int64_t at = 0; i1 - i0 > 8 || i1 - i0 == 6; i0 += 6, at += slice) {
    if (at < fetched) {
      tile<6, 4, kAhead>(k, i0, p, next + at);
    } else {
      tile<6, 4>(k, i0, p);
    }
  }
  if (i1 - i0 > 6) tile<4, 4>(k, i0, p), i0 += 4;
  if (i1 - i0 == 5) tile<5, 4>(k, i0, p);
  if (i1 - i0 == 4) tile<4, 4>(k, i0, p);
  if (i1 - i0 == 3) tile<3, 4>(k, i0, p);
  if (i1 - i0 == 2) tile<2, 4>(k, i0, p);
  if (i1 - i0 == 1) tile<1, 4>(k, i0, p);
}

}  // namespace

void gemm_i8_avx512_vnni(const GemmI8& g, int64_t i0, int64_t i1, int64_t p0, int64_t p1) noexcept {
  const Requantizer& q = *g.requantizer;
  const Task k{g, codes_avx512(q), finish_of(q, true), q.out_dtype == DType::s32};
  int64_t p = p0;
  if (i1 - i0 <= 3) {
    for (; p + 8 <= p1; p += 8) rows_of<3, 8>(k, i0, i1, p);
  }
  if (i1 - i0 == 7 || i1 - i0 == 8) {  // in one pass over B
    for (; p + 3 <= p1; p += 3) i1 - i0 == 8 ? tile<8, 3>(k, i0, p) : tile<7, 3>(k, i0, p);
  }
  for (; p + 4 <= p1; p += 4) rows_of_four(k, i0, i1, p);
  if (p1 - p == 3) rows_of<8, 3>(k, i0, i1, p);
  if (p1 - p == 2) rows_of<8, 2>(k, i0, i1, p);
  if (p1 - p == 1) rows_of<8, 1>(k, i0, i1, p);
}

}  // namespace lowbit

LOWBIT_TARGET_END

#endif
