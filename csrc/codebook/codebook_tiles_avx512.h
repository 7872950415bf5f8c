// Indices of a tiled block and what they stand for, 64 at a time.
//
// vpermb looks at six bits of each index and vpermi2b at seven, so what lies above an index need not be masked off: the
// table repeats. Two-bit indices are not even shifted but for every fourth: three tables, for bits 0-1, 2-3 and 4-5.
#pragma once

#include "codebook/codebook_kernel.h"
#include "target.h"

#if LOWBIT_X86
#include <immintrin.h>
#include <stdint.h>

namespace lowbit {

LOWBIT_TARGET_BEGIN_AVX512

// Field kQuad of a plane of kWidth bits with its lowest bit at kTo; other bits are anything.
template <int kWidth, int kQuad, int kTo>
static inline __attribute__((always_inline)) __m512i plane_field(const uint8_t* plane) {
  constexpr int kPerByte = 8 / kWidth, kAt = kWidth * (kQuad % kPerByte);
  const __m512i v = _mm512_loadu_si512(plane + 64 * (kQuad / kPerByte));
  if constexpr (kAt > kTo) return _mm512_srli_epi16(v, kAt - kTo);
  if constexpr (kAt < kTo) return _mm512_slli_epi16(v, kTo - kAt);
  return v;
}

// a where mask has ones, else b.
static inline __attribute__((always_inline)) __m512i select_bits(int8_t mask, __m512i a, __m512i b) {
  return _mm512_ternarylogic_epi32(_mm512_set1_epi8(mask), a, b, 0xca);
}

// The indices of quad kQuad, their lowest bits at kTo (0 unless the plane is one); above them anything.
template <int kBits, int kQuad, int kTo = 0>
static inline __attribute__((always_inline)) __m512i quad_index(const uint8_t* block) {
  if constexpr (kBits == 3) {
    return select_bits(0x03, plane_field<2, kQuad, 0>(block), plane_field<1, kQuad, 2>(block + 128));
  } else if constexpr (kBits == 5) {
    return select_bits(0x0f, plane_field<4, kQuad, 0>(block), plane_field<1, kQuad, 4>(block + 256));
  } else if constexpr (kBits == 6) {
    return select_bits(0x0f, plane_field<4, kQuad, 0>(block), plane_field<2, kQuad, 4>(block + 256));
  } else if constexpr (kBits == 7) {
    const __m512i high =
        select_bits(0x30, plane_field<2, kQuad, 4>(block + 256), plane_field<1, kQuad, 6>(block + 384));
    return select_bits(0x0f, plane_field<4, kQuad, 0>(block), high);
  } else {
    return plane_field<kBits, kQuad, kTo>(block);
  }
}

// int8 values (plus `bias`) of one codebook.
template <int kBits>
struct LookupI8 {
  static constexpr int kTables = kBits == 1 ? 4 : kBits == 2 ? 3 : kBits <= 6 ? 1 : kBits == 7 ? 2 : 4;
  __m512i table[kTables];

  inline __attribute__((always_inline)) LookupI8(const int8_t* values, uint8_t bias) {
    alignas(64) uint8_t bytes[64 * kTables];
    for (int t = 0; t < 64 * kTables; ++t) {
      const int index = kBits <= 2 ? t % 64 >> (kBits * (t / 64)) : t;
      bytes[t] = (uint8_t)(values[index & ((1 << kBits) - 1)] + bias);
    }
    for (int t = 0; t < kTables; ++t) table[t] = _mm512_load_si512(bytes + 64 * t);
  }

  template <int kQuad>
  inline __attribute__((always_inline)) __m512i quad(const uint8_t* block) const {
    if constexpr (kBits <= 2) {
      // Where the field lies, less what a table takes up: 4 places of one bit, 3 of two.
      constexpr int kAt = kBits * (kQuad % (8 / kBits)), kTo = kAt % (kBits * kTables);
      return _mm512_permutexvar_epi8(quad_index<kBits, kQuad, kTo>(block), table[kTo / kBits]);
    } else if constexpr (kBits <= 6) {
      return _mm512_permutexvar_epi8(quad_index<kBits, kQuad>(block), table[0]);
    } else {
      const __m512i index = quad_index<kBits, kQuad>(block);
      const __m512i low = _mm512_permutex2var_epi8(table[0], index, table[1]);
      if constexpr (kBits == 7) return low;
      const __m512i high = _mm512_permutex2var_epi8(table[2 % kTables], index, table[3 % kTables]);
      return _mm512_mask_blend_epi8(_mm512_movepi8_mask(index), low, high);
    }
  }
};

// The same of 16 channels with a codebook each: the channel is part of the index. Banks of 128 values hold those of
// 2^(7 - kBits) channels; vpermi2b with a mask replaces an index by its value and leaves other channels' alone.
template <int kBits>
struct ChannelLookupI8 {
  static constexpr int kValues = 16 << kBits;
  alignas(64) uint8_t bank[kValues < 128 ? 128 : kValues];
  __m512i channel;  // above the index

  inline ChannelLookupI8(const int8_t* values, uint8_t bias) {
    for (int t = 0; t < (int)sizeof(bank); ++t) bank[t] = (uint8_t)(values[t % kValues] + bias);
    alignas(64) uint8_t above[64];
    for (int t = 0; t < 64; ++t) above[t] = (uint8_t)((t / 4) << kBits);
    channel = _mm512_load_si512(above);
  }

  template <int kQuad>
  inline __attribute__((always_inline)) __m512i quad(const uint8_t* block) const {
    const __m512i code = quad_index<kBits, kQuad>(block);
    if constexpr (kBits == 8) {
      const __mmask64 upper = _mm512_movepi8_mask(code);
      __m512i v = code;
#pragma GCC unroll 4
      for (int t = 0; t < 32; ++t) {
        const __mmask64 lanes = (__mmask64)0xf << (4 * (t / 2));
        v = look_up(v, t & 1 ? lanes & upper : lanes & ~upper, bank + 128 * t);
      }
      return v;
    }
    __m512i v = select_bits((int8_t)((1 << kBits) - 1), code, channel);
    if constexpr (kBits <= 2) {
      return _mm512_permutexvar_epi8(v, _mm512_load_si512(bank));
    } else if constexpr (kBits == 3) {
      return _mm512_permutex2var_epi8(_mm512_load_si512(bank), v, _mm512_load_si512(bank + 64));
    } else {
      constexpr int kBanks = kValues / 128, kLanes = 64 / kBanks;
#pragma GCC unroll 16
      for (int t = 0; t < kBanks; ++t) {
        v = look_up(v, (((__mmask64)1 << (kLanes % 64)) - 1) << (kLanes * t), bank + 128 * t);
      }
      return v;
    }
  }

 private:
  static inline __attribute__((always_inline)) __m512i look_up(__m512i v, __mmask64 lanes, const uint8_t* values) {
    return _mm512_mask2_permutex2var_epi8(_mm512_load_si512(values), v, lanes, _mm512_load_si512(values + 64));
  }
};

// Blocks [0, count) to 8 vectors each.
template <class Lookup>
static inline __attribute__((always_inline)) void decode_blocks(const Lookup& lookup, const uint8_t* block,
                                                                int64_t block_bytes, int64_t count, uint8_t* out) {
  for (; count > 0; --count, block += block_bytes, out += 512) {
    _mm512_store_si512(out, lookup.template quad<0>(block));
    _mm512_store_si512(out + 64, lookup.template quad<1>(block));
    _mm512_store_si512(out + 128, lookup.template quad<2>(block));
    _mm512_store_si512(out + 192, lookup.template quad<3>(block));
    _mm512_store_si512(out + 256, lookup.template quad<4>(block));
    _mm512_store_si512(out + 320, lookup.template quad<5>(block));
    _mm512_store_si512(out + 384, lookup.template quad<6>(block));
    _mm512_store_si512(out + 448, lookup.template quad<7>(block));
  }
}

template <int kBits>
static void decode_panel_bits(const CodebookI8& c, int64_t panel, int64_t g, uint8_t bias, uint8_t* out) {
  const TiledIndices& w = c.w;
  const int64_t count = (w.columns(g) + kBlockColumns - 1) / kBlockColumns;
  const uint8_t* blocks = w.panel(panel) + g * w.group_blocks * w.block_bytes();
  if (w.per_channel) {
    decode_blocks(ChannelLookupI8<kBits>(c.table + (panel * kChannels << kBits), bias), blocks, 64 * kBits, count, out);
  } else {
    decode_blocks(LookupI8<kBits>(c.table + (g << kBits), bias), blocks, 64 * kBits, count, out);
  }
}

// The columns of group g of a panel: 8 quads a block, values plus `bias`.
static inline void decode_panel(const CodebookI8& c, int64_t panel, int64_t g, uint8_t bias, uint8_t* out) {
  using Fn = void (*)(const CodebookI8&, int64_t, int64_t, uint8_t, uint8_t*);
  static constexpr Fn kFn[] = {decode_panel_bits<1>, decode_panel_bits<2>, decode_panel_bits<3>, decode_panel_bits<4>,
                               decode_panel_bits<5>, decode_panel_bits<6>, decode_panel_bits<7>, decode_panel_bits<8>};
  kFn[c.w.bits - 1](c, panel, g, bias, out);
}

// y[i, 16 panel + lane] of a row's total.
static inline __attribute__((always_inline)) void finish_row(const CodebookI8& c, int64_t i, int64_t panel,
                                                             __m512 total) {
  const int64_t j = panel * kChannels, left = c.w.n - j;
  const __mmask16 lanes = (__mmask16)(left >= kChannels ? 0xffff : (1 << left) - 1);
  __m512 v = _mm512_mul_ps(total, _mm512_set1_ps(c.x_scale[i]));
  if (c.finish.bias) v = _mm512_add_ps(v, _mm512_maskz_loadu_ps(lanes, c.finish.bias + j));
  v = _mm512_max_ps(_mm512_set1_ps(c.finish.lo), v);  // the second operand where one is NaN
  v = _mm512_min_ps(_mm512_set1_ps(c.finish.hi), v);
  _mm512_mask_storeu_ps(c.y + i * c.ldy + j, lanes, v);
}

// The scales of a panel's channels in group g.
static inline __attribute__((always_inline)) __m512 panel_scale(const CodebookI8& c, int64_t panel, int64_t g) {
  return c.w.per_channel ? _mm512_loadu_ps(c.scale + panel * kChannels) : _mm512_set1_ps(c.scale[g]);
}

// Adds group g's part of y[i, 16 panel + lane], where y holds the total of the groups before; after the last, finishes.
static inline __attribute__((always_inline)) void add_total(const CodebookI8& c, int64_t i, int64_t panel, int64_t g,
                                                            __m512 part) {
  const int64_t j = panel * kChannels, left = c.w.n - j;
  const __mmask16 lanes = (__mmask16)(left >= kChannels ? 0xffff : (1 << left) - 1);
  float* y = c.y + i * c.ldy + j;
  const __m512 total = _mm512_add_ps(_mm512_maskz_loadu_ps(g > 0 ? lanes : 0, y), part);
  if (g + 1 == c.w.groups) return finish_row(c, i, panel, total);
  _mm512_mask_storeu_ps(y, lanes, total);
}

LOWBIT_TARGET_END

}  // namespace lowbit

#endif
