// Few rows (int8: up to 16, four at a time; float: one): indices stream by, four panels together, and are looked up in
// registers on their way into vpdpbusd or an FMA. More rows: panels are decoded once (int8: four panels of a codebook
// group, in L2; float: 128 columns of two panels, in L1) and multiplied in register tiles.
//
// int8: the weights are the unsigned operand, 128 added in the table, so 128 * sum(codes of a row) is taken off again.
// Float: one chain of FMAs per output in the order of columns, which memory may interrupt without changing a bit.
// Limits of GEMV on Sapphire Rapids: 4096 x 4096 at 2 bits comes from L3 at 26 of the 32 GB/s that one core reads there
// (105 GMAC/s; in L2 137); software prefetch (L1, L2, NTA) lost 0 to 30 %, the number of streams made no difference.
// Float at 2 bits: 16 vpermps, 16 FMAs and 7 shifts for 256 weights on ports 0 and 5.
#include "codebook/codebook_kernel.h"
#include "codebook/codebook_tiles_avx512.h"
#include "target.h"

#if LOWBIT_X86
#include <immintrin.h>
#include <stdint.h>

LOWBIT_TARGET_BEGIN_AVX512

namespace lowbit {
namespace {

constexpr int64_t kTogether = 4;     // panels
constexpr int64_t kStreamRows = 16;  // at most, for which weights are looked up on the way

// 16 values of one column of a quad.
template <int kBits>
struct LookupF32 {
  static constexpr int kTables = kBits == 1 ? 4 : kBits == 2 ? 2 : kBits <= 4 ? 1 : kBits == 5 ? 2 : 4;
  __m512 table[kTables];
  const float* values;

  inline __attribute__((always_inline)) explicit LookupF32(const float* v) : values(v) {
    alignas(64) float all[16 * kTables];
    for (int t = 0; t < 16 * kTables; ++t) {
      const int index = kBits <= 2 ? t % 16 >> (kBits * (t / 16)) : t;
      all[t] = v[index & ((1 << kBits) - 1)];
    }
    for (int t = 0; t < kTables; ++t) table[t] = _mm512_load_ps(all + 16 * t);
  }

  template <int kQuad, int kColumn>
  inline __attribute__((always_inline)) __m512 column(const uint8_t* block) const {
    if constexpr (kBits == 1 || kBits == 2 || kBits == 4) {
      // vpermps sees four bits: tables for each place of an index among them.
      constexpr int kPerByte = 8 / kBits, kAt = 8 * kColumn + kBits * (kQuad % kPerByte);
      const __m512i v = _mm512_loadu_si512(block + 64 * (kQuad / kPerByte));
      return _mm512_permutexvar_ps(_mm512_srli_epi32(v, kAt / 4 * 4), table[kAt % 4 / kBits]);
    } else {
      const __m512i v = _mm512_srli_epi32(quad_index<kBits, kQuad>(block), 8 * kColumn);
      if constexpr (kBits == 3) return _mm512_permutexvar_ps(v, table[0]);
      if constexpr (kBits == 5) return _mm512_permutex2var_ps(table[0], v, table[1 % kTables]);
      if constexpr (kBits == 6) {
        const __mmask16 upper = _mm512_test_epi32_mask(v, _mm512_set1_epi32(32));
        return _mm512_mask_blend_ps(upper, _mm512_permutex2var_ps(table[0], v, table[1 % kTables]),
                                    _mm512_permutex2var_ps(table[2 % kTables], v, table[3 % kTables]));
      }
      const __m512i index = _mm512_and_si512(v, _mm512_set1_epi32((1 << kBits) - 1));
      return _mm512_mask_i32gather_ps(_mm512_setzero_ps(), 0xffff, index, values, 4);
    }
  }
};

// The same of 16 channels with a codebook each.
template <int kBits>
struct ChannelLookupF32 {
  const float* values;
  inline explicit ChannelLookupF32(const float* v) : values(v) {}

  template <int kQuad, int kColumn>
  inline __attribute__((always_inline)) __m512 column(const uint8_t* block) const {
    const __m512i channel = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512i v = _mm512_srli_epi32(quad_index<kBits, kQuad>(block), 8 * kColumn);
    const __m512i index = _mm512_and_si512(v, _mm512_set1_epi32((1 << kBits) - 1));
    return _mm512_mask_i32gather_ps(_mm512_setzero_ps(), 0xffff,
                                    _mm512_or_si512(index, _mm512_slli_epi32(channel, kBits)), values, 4);
  }
};

// Columns [kStep, kEnd) of a block.
template <int kStep, int kEnd, class Lookup>
static inline __attribute__((always_inline)) __m512 chain(const Lookup& lookup, const uint8_t* block, const float* x,
                                                          __m512 sum) {
  sum = _mm512_fmadd_ps(lookup.template column<kStep / 4, kStep % 4>(block), _mm512_set1_ps(x[kStep]), sum);
  if constexpr (kStep + 1 < kEnd) return chain<kStep + 1, kEnd>(lookup, block, x, sum);
  return sum;
}

// A block of each panel, two quads at a time, so that chains overlap.
template <int kStep, class Lookup, int kPanels>
static inline __attribute__((always_inline)) void chains(const Lookup& lookup, const uint8_t* block,
                                                         int64_t panel_bytes, const float* x, __m512 (&sum)[kPanels]) {
#pragma GCC unroll 4
  for (int q = 0; q < kPanels; ++q) {
    sum[q] = chain<kStep, kStep + 8>(lookup, block + q * panel_bytes, x, sum[q]);
  }
  if constexpr (kStep + 8 < kBlockColumns) chains<kStep + 8>(lookup, block, panel_bytes, x, sum);
}

static inline __attribute__((always_inline)) void store_row(const CodebookF32& c, int64_t i, int64_t panel, __m512 v) {
  const int64_t j = panel * kChannels, left = c.w.n - j;
  const __mmask16 lanes = (__mmask16)(left >= kChannels ? 0xffff : (1 << left) - 1);
  if (c.finish.bias) v = _mm512_add_ps(v, _mm512_maskz_loadu_ps(lanes, c.finish.bias + j));
  v = _mm512_max_ps(_mm512_set1_ps(c.finish.lo), v);  // the second operand where one is NaN
  v = _mm512_min_ps(_mm512_set1_ps(c.finish.hi), v);
  _mm512_mask_storeu_ps(c.y + i * c.ldy + j, lanes, v);
}

template <int kBits, class Lookup, int kPanels>
static void gemv_f32(const CodebookF32& c, int64_t i, int64_t p) {
  const TiledIndices& w = c.w;
  const int64_t panel_bytes = w.blocks * w.block_bytes();
  __m512 sum[kPanels];
#pragma GCC unroll 4
  for (int q = 0; q < kPanels; ++q) sum[q] = _mm512_setzero_ps();
  for (int64_t g = 0; g < w.groups; ++g) {
    const uint8_t* block = w.panel(p) + g * w.group_blocks * w.block_bytes();
    const float* x = c.x + i * c.ldx + g * w.group_size;
    const Lookup lookup(c.table + (w.per_channel ? p * kChannels : g) * w.entries());
    for (int64_t left = w.columns(g); left > 0; left -= kBlockColumns, block += 64 * kBits, x += kBlockColumns) {
      float last[kBlockColumns];
      if (left < kBlockColumns) {
        for (int64_t t = 0; t < kBlockColumns; ++t) last[t] = t < left ? x[t] : 0;
        x = last;
      }
      chains<0>(lookup, block, panel_bytes, x, sum);
      if (left < kBlockColumns) break;
    }
  }
#pragma GCC unroll 4
  for (int q = 0; q < kPanels; ++q) store_row(c, i, p + q, sum[q]);
}

// 32 columns of a panel, 32 floats apart.
template <int kStep, class Lookup>
static inline __attribute__((always_inline)) void store_columns(const Lookup& lookup, const uint8_t* block,
                                                                float* out) {
  _mm512_store_ps(out + 2 * kChannels * kStep, lookup.template column<kStep / 4, kStep % 4>(block));
  if constexpr (kStep + 1 < kBlockColumns) store_columns<kStep + 1>(lookup, block, out);
}

template <class Lookup>
static void decode_f32(const Lookup& lookup, const uint8_t* block, int64_t block_bytes, int64_t columns, float* out) {
  for (; columns > 0; columns -= kBlockColumns, block += block_bytes, out += 2 * kChannels * kBlockColumns) {
    store_columns<0>(lookup, block, out);
  }
}

// Rows [i, i + kRows) of sums (rows, 32) go on over `count` columns of x and of w (count, 32).
template <int kRows>
static void multiply_f32(const CodebookF32& c, const float* x, const float* w, int64_t count, float* sums) {
  __m512 sum[kRows][2];
#pragma GCC unroll 12
  for (int r = 0; r < kRows; ++r) {
    sum[r][0] = _mm512_load_ps(sums + 32 * r);
    sum[r][1] = _mm512_load_ps(sums + 32 * r + 16);
  }
  const float* rows[kRows];
  for (int r = 0; r < kRows; ++r) rows[r] = x + r * c.ldx;
  for (int64_t t = 0; t < count; ++t, w += 32) {
    const __m512 a = _mm512_load_ps(w), b = _mm512_load_ps(w + 16);
#pragma GCC unroll 12
    for (int r = 0; r < kRows; ++r) {
      const __m512 v = _mm512_set1_ps(rows[r][t]);
      sum[r][0] = _mm512_fmadd_ps(v, a, sum[r][0]);
      sum[r][1] = _mm512_fmadd_ps(v, b, sum[r][1]);
    }
  }
#pragma GCC unroll 12
  for (int r = 0; r < kRows; ++r) {
    _mm512_store_ps(sums + 32 * r, sum[r][0]);
    _mm512_store_ps(sums + 32 * r + 16, sum[r][1]);
  }
}

template <int kBits, class Lookup>
static void run_f32(const CodebookF32& c, int64_t i0, int64_t i1, int64_t p0, int64_t p1) {
  const TiledIndices& w = c.w;
  if (i1 - i0 == 1) {
    int64_t p = p0;
    if (!w.per_channel) {
      for (; p + kTogether <= p1; p += kTogether) gemv_f32<kBits, Lookup, kTogether>(c, i0, p);
    }
    for (; p < p1; ++p) gemv_f32<kBits, Lookup, 1>(c, i0, p);
    return;
  }
  float *decoded = c.work, *sums = c.work + 2 * kChannels * kWorkColumns;
  for (int64_t p = p0; p < p1; p += 2) {
    for (int64_t t = 0; t < (i1 - i0) * 2; ++t) _mm512_store_ps(sums + 16 * t, _mm512_setzero_ps());
    for (int64_t g = 0; g < w.groups; ++g) {
      for (int64_t first = 0, all = w.columns(g); first < all; first += kWorkColumns) {
        const int64_t count = all - first < kWorkColumns ? all - first : kWorkColumns;
        for (int64_t q = p; q < p + 2 && q < p1; ++q) {
          const Lookup lookup(c.table + (w.per_channel ? q * kChannels : g) * w.entries());
          const int64_t block = g * w.group_blocks + first / kBlockColumns;
          decode_f32(lookup, w.panel(q) + block * 64 * kBits, 64 * kBits, count, decoded + (q - p) * kChannels);
        }
        const float* x = c.x + g * w.group_size + first;
        int64_t i = i0;
        for (; i + 12 <= i1; i += 12) multiply_f32<12>(c, x + i * c.ldx, decoded, count, sums + (i - i0) * 32);
        for (; i + 4 <= i1; i += 4) multiply_f32<4>(c, x + i * c.ldx, decoded, count, sums + (i - i0) * 32);
        for (; i < i1; ++i) multiply_f32<1>(c, x + i * c.ldx, decoded, count, sums + (i - i0) * 32);
      }
    }
    for (int64_t i = i0; i < i1; ++i) {
      store_row(c, i, p, _mm512_load_ps(sums + (i - i0) * 32));
      if (p + 1 < p1) store_row(c, i, p + 1, _mm512_load_ps(sums + (i - i0) * 32 + 16));
    }
  }
}

template <int kBits>
static void run_f32_bits(const CodebookF32& c, int64_t i0, int64_t i1, int64_t p0, int64_t p1) {
  if (c.w.per_channel) return run_f32<kBits, ChannelLookupF32<kBits>>(c, i0, i1, p0, p1);
  run_f32<kBits, LookupF32<kBits>>(c, i0, i1, p0, p1);
}

// int8 ---------------------------------------------------------------------------------------------------------------

static inline __attribute__((always_inline)) void dot(__m512i& sum, __m512i w, __m512i x) {
  __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(w), "v"(x));
}

static inline __attribute__((always_inline)) __m512i four_codes(const int8_t* x) {
  int32_t codes;
  __builtin_memcpy(&codes, x, sizeof(codes));
  return _mm512_set1_epi32(codes);
}

// 128 * the sum of `count` codes, a multiple of 32.
static inline __m512i row_term(const int8_t* x, int64_t count) {
  __m256i sum = _mm256_setzero_si256();
  const __m256i bias = _mm256_set1_epi8((char)128);
  for (int64_t t = 0; t < count; t += 32) {
    sum = _mm256_dpbusd_epi32(sum, bias, _mm256_loadu_si256((const __m256i*)(x + t)));
  }
  const __m128i four = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
  const __m128i two = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4e));
  return _mm512_set1_epi32(_mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32(two, 0xb1))));
}

// x: four codes, for all lanes.
static inline __attribute__((always_inline)) void dot_quad(__m512i& sum, __m512i w, const int8_t* x) {
  __asm__("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(sum) : "v"(w), "m"(*(const int32_t*)x));
}

// Quads [kQuad, kQuad + 4) of a block of each panel, one row: its codes stay in registers for all panels, indices for
// all quads, and two chains of sums keep vpdpbusd's five cycles apart.
template <int kQuad, class Lookup, int kPanels>
static inline __attribute__((always_inline)) void dot_half(const Lookup& lookup, const uint8_t* block,
                                                           int64_t panel_bytes, const int8_t* x, int64_t,
                                                           __m512i (&sum)[kPanels][2]) {
  const __m512i x0 = four_codes(x + 4 * kQuad), x1 = four_codes(x + 4 * kQuad + 4);
  const __m512i x2 = four_codes(x + 4 * kQuad + 8), x3 = four_codes(x + 4 * kQuad + 12);
#pragma GCC unroll 4
  for (int q = 0; q < kPanels; ++q, block += panel_bytes) {
    dot(sum[q][0], lookup.template quad<kQuad>(block), x0);
    dot(sum[q][1], lookup.template quad<kQuad + 1>(block), x1);
    dot(sum[q][0], lookup.template quad<kQuad + 2>(block), x2);
    dot(sum[q][1], lookup.template quad<kQuad + 3>(block), x3);
  }
}

// The same of four rows, whose codes come from memory.
template <int kQuad, class Lookup, int kPanels>
static inline __attribute__((always_inline)) void dot_half(const Lookup& lookup, const uint8_t* block,
                                                           int64_t panel_bytes, const int8_t* x, int64_t ldx,
                                                           __m512i (&sum)[kPanels][4]) {
#pragma GCC unroll 4
  for (int q = 0; q < kPanels; ++q, block += panel_bytes) {
    const __m512i w[4] = {lookup.template quad<kQuad>(block), lookup.template quad<kQuad + 1>(block),
                          lookup.template quad<kQuad + 2>(block), lookup.template quad<kQuad + 3>(block)};
#pragma GCC unroll 4
    for (int t = 0; t < 4; ++t) {
#pragma GCC unroll 4
      for (int r = 0; r < 4; ++r) dot_quad(sum[q][r], w[t], x + r * ldx + 4 * (kQuad + t));
    }
  }
}

// One row, or up to four (of which `rows` count), of kPanels panels.
template <int kBits, class Lookup, int kPanels, int kRows>
static void stream_i8(const CodebookI8& c, int64_t i, int64_t rows, int64_t p) {
  constexpr int kChains = kRows == 1 ? 2 : kRows;
  const TiledIndices& w = c.w;
  const int64_t panel_bytes = w.blocks * w.block_bytes();
  for (int64_t g = 0; g < w.groups; ++g) {
    const int64_t first = g * w.group_blocks, count = (w.columns(g) + kBlockColumns - 1) / kBlockColumns;
    const uint8_t* block = w.panel(p) + first * w.block_bytes();
    const int8_t* x = c.x + i * c.ldx + first * kBlockColumns;
    const Lookup lookup(c.table + (w.per_channel ? p * kChannels : g) * w.entries(), 128);
    __m512i sum[kPanels][kChains];
#pragma GCC unroll 4
    for (int q = 0; q < kPanels; ++q) {
#pragma GCC unroll 4
      for (int r = 0; r < kChains; ++r) sum[q][r] = _mm512_setzero_si512();
    }
    for (int64_t b = 0; b < count; ++b, block += 64 * kBits, x += kBlockColumns) {
      dot_half<0>(lookup, block, panel_bytes, x, c.ldx, sum);
      dot_half<4>(lookup, block, panel_bytes, x, c.ldx, sum);
    }
    x -= count * kBlockColumns;
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
      if (r >= rows) break;
      const __m512i term = row_term(x + r * c.ldx, count * kBlockColumns);
#pragma GCC unroll 4
      for (int q = 0; q < kPanels; ++q) {
        const __m512i all = kRows == 1 ? _mm512_add_epi32(sum[q][0], sum[q][1]) : sum[q][r];
        const __m512 f = _mm512_cvtepi32_ps(_mm512_sub_epi32(all, term));
        add_total(c, i + r, p + q, g, _mm512_mul_ps(f, panel_scale(c, p + q, g)));
      }
    }
  }
}

template <int kBits, class Lookup, int kRows>
static void stream_i8_panels(const CodebookI8& c, int64_t i, int64_t rows, int64_t p, int64_t p1) {
  if (!c.w.per_channel) {
    for (; p + kTogether <= p1; p += kTogether) stream_i8<kBits, Lookup, kTogether, kRows>(c, i, rows, p);
  }
  for (; p < p1; ++p) stream_i8<kBits, Lookup, 1, kRows>(c, i, rows, p);
}

template <int kBits>
static void stream_i8_bits(const CodebookI8& c, int64_t i0, int64_t i1, int64_t p0, int64_t p1) {
  for (int64_t i = i0; i < i1; i += 4) {
    const int64_t rows = i1 - i < 4 ? i1 - i : 4;
    if (c.w.per_channel) {
      if (rows == 1) stream_i8_panels<kBits, ChannelLookupI8<kBits>, 1>(c, i, rows, p0, p1);
      if (rows > 1) stream_i8_panels<kBits, ChannelLookupI8<kBits>, 4>(c, i, rows, p0, p1);
    } else {
      if (rows == 1) stream_i8_panels<kBits, LookupI8<kBits>, 1>(c, i, rows, p0, p1);
      if (rows > 1) stream_i8_panels<kBits, LookupI8<kBits>, 4>(c, i, rows, p0, p1);
    }
  }
}

// Rows [i, i + kRows) of kPanels decoded panels, over one group: adds to y, which holds totals, or stores them.
template <int kRows, int kPanels>
static void tile_i8(const CodebookI8& c, int64_t i, int64_t p, int64_t g, int64_t decoded_bytes) {
  const TiledIndices& w = c.w;
  const int64_t first = g * w.group_blocks, quads = (w.columns(g) + kBlockColumns - 1) / kBlockColumns * kQuads;
  const int8_t* x[kRows];
  __m512i sum[kRows][kPanels];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
    x[r] = c.x + (i + r) * c.ldx + first * kBlockColumns;
    const __m512i term = _mm512_sub_epi32(_mm512_setzero_si512(), row_term(x[r], 4 * quads));
#pragma GCC unroll 4
    for (int q = 0; q < kPanels; ++q) sum[r][q] = term;
  }
  const uint8_t* b = c.work;
  for (int64_t s = 0; s < quads; ++s, b += 64) {
    __m512i column[kPanels];
#pragma GCC unroll 4
    for (int q = 0; q < kPanels; ++q) column[q] = _mm512_load_si512(b + q * decoded_bytes);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const __m512i four = four_codes(x[r] + 4 * s);
#pragma GCC unroll 4
      for (int q = 0; q < kPanels; ++q) dot(sum[r][q], column[q], four);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int q = 0; q < kPanels; ++q) {
      add_total(c, i + r, p + q, g, _mm512_mul_ps(_mm512_cvtepi32_ps(sum[r][q]), panel_scale(c, p + q, g)));
    }
  }
}

template <int kRows, int kPanels>
static void rows_i8(const CodebookI8& c, int64_t i0, int64_t i1, int64_t p, int64_t g, int64_t decoded_bytes) {
  for (; i0 + kRows <= i1; i0 += kRows) tile_i8<kRows, kPanels>(c, i0, p, g, decoded_bytes);
  if constexpr (kRows > 1) rows_i8<kRows / 2, kPanels>(c, i0, i1, p, g, decoded_bytes);
}

}  // namespace

void codebook_f32_avx512(const CodebookF32& c, int64_t i0, int64_t i1, int64_t p0, int64_t p1) noexcept {
  using Fn = void (*)(const CodebookF32&, int64_t, int64_t, int64_t, int64_t);
  static constexpr Fn kFn[] = {run_f32_bits<1>, run_f32_bits<2>, run_f32_bits<3>, run_f32_bits<4>,
                               run_f32_bits<5>, run_f32_bits<6>, run_f32_bits<7>, run_f32_bits<8>};
  kFn[c.w.bits - 1](c, i0, i1, p0, p1);
}

void codebook_i8_avx512(const CodebookI8& c, int64_t i0, int64_t i1, int64_t p0, int64_t p1) noexcept {
  using Stream = void (*)(const CodebookI8&, int64_t, int64_t, int64_t, int64_t);
  static constexpr Stream kStream[] = {stream_i8_bits<1>, stream_i8_bits<2>, stream_i8_bits<3>, stream_i8_bits<4>,
                                       stream_i8_bits<5>, stream_i8_bits<6>, stream_i8_bits<7>, stream_i8_bits<8>};
  const TiledIndices& w = c.w;
  if (i1 - i0 <= kStreamRows) return kStream[w.bits - 1](c, i0, i1, p0, p1);
  for (int64_t p = p0; p < p1; p += kTogether) {
    const int64_t panels = p1 - p < kTogether ? p1 - p : kTogether;
    for (int64_t g = 0; g < w.groups; ++g) {
      const int64_t bytes = kChannels * ((w.columns(g) + kBlockColumns - 1) / kBlockColumns * kBlockColumns);
      for (int64_t q = 0; q < panels; ++q) decode_panel(c, p + q, g, 128, c.work + q * bytes);
      if (panels == 4) rows_i8<6, 4>(c, i0, i1, p, g, bytes);
      if (panels == 3) rows_i8<8, 3>(c, i0, i1, p, g, bytes);
      if (panels == 2) rows_i8<8, 2>(c, i0, i1, p, g, bytes);
      if (panels == 1) rows_i8<8, 1>(c, i0, i1, p, g, bytes);
    }
  }
}

}  // namespace lowbit

LOWBIT_TARGET_END

#endif
