// 3x3 and 5x5 with stride 1 or 2 and the epilogue fused: vpmaddwd on pairs of taps widened to words (vpmaddubsw would
// saturate). The pairs are rows (0, 1) of a column, (2, 3) too where there are five, and in the last row two columns
// side by side: 5 products for 9 taps, 13 for 25. The pairs of a chunk of pixels go to the stack, 32 channels at a
// time, widened once for all outputs over them (a quarter of the time); then a pair of weights stays in a register for
// four pixels. Six unpacks make the pairs of 32 channels, in lane order (see depthwise_i8_kernel.h), so that packing
// restores the natural one. Twice as fast as rows of sums and a second pass. Lost: sums by intrinsics, which GCC 12
// regroups and spills (a quarter slower at 5x5); finer tests of the border in the interleaving changed nothing.
#include <string.h>

#include "depthwise_i8/depthwise_i8_kernel.h"
#include "depthwise_i8/depthwise_i8_load_avx2.h"
#include "requantize/requantize_avx2.h"
#include "target.h"

#if LOWBIT_X86
#include <immintrin.h>
#include <stdint.h>

LOWBIT_TARGET_BEGIN_AVX2

namespace lowbit {
namespace {

#define LOWBIT_INLINE __attribute__((always_inline)) inline

constexpr int kChannels = 32;  // half a block
constexpr int kPixels = 4;     // outputs that share a pair of weights
constexpr int kChunk = 16;     // outputs whose pairs lie on the stack

// In lane order: dword i of vector q belongs to channel i / 4 * 16 + q * 4 + i % 4.
struct Lanes {
  __m256i q[4];
};

// What one half block's outputs share.
template <int kSize, bool kFixed>
struct Half {
  static constexpr int kColumns = kSize / 2, kPairs = kSize * kColumns + kSize / 2 + 1;
  Lanes weights[kPairs];  // of column kx: kx * kColumns on; then the last row's
  Lanes init;
  typename ScaleAvx2<kFixed>::Channels scale[4];
  CodesAvx2 codes;
  __m256i zero_point, lo, hi, flip, outside;
  int64_t first, width;  // channels
};

// The pairs under a chunk of outputs: output p reads column[p * stride + kx] for kx < kSize, and rest[p * stride + 2
// g], whose last one's second column has the weight 0.
template <int kSize, int kStride>
struct Pairs {
  static constexpr int kWidth = (kChunk - 1) * kStride + kSize;
  Lanes column[kWidth][kSize / 2];
  Lanes rest[kWidth];
};

LOWBIT_INLINE Lanes interleave(__m256i a, __m256i b) {
  const __m256i zero = _mm256_setzero_si256(), lo = _mm256_unpacklo_epi8(a, b), hi = _mm256_unpackhi_epi8(a, b);
  return {{_mm256_unpacklo_epi8(lo, zero), _mm256_unpackhi_epi8(lo, zero), _mm256_unpacklo_epi8(hi, zero),
           _mm256_unpackhi_epi8(hi, zero)}};
}

// 32 dwords from `from` on, of which `width` are there, to lane order.
inline Lanes lane_order(const void* from, int64_t width) {
  int32_t natural[kChannels] = {};
  memcpy(natural, from, (size_t)(width < kChannels ? width : kChannels) * sizeof(int32_t));
  Lanes to;
  for (int q = 0; q < 4; ++q) {
    to.q[q] = _mm256_setr_m128i(_mm_loadu_si128((const __m128i*)(natural + 4 * q)),
                                _mm_loadu_si128((const __m128i*)(natural + 16 + 4 * q)));
  }
  return to;
}

// The low words of two vectors of dwords.
LOWBIT_INLINE __m256i pair(__m256i a, __m256i b) { return _mm256_blend_epi16(a, _mm256_slli_epi32(b, 16), 0xaa); }

// The packed weights: groups of four taps, columns (3x3: of three; 5x5: of the first four rows), then 5x5's last row.
template <int kSize>
void pairs_of_weights(const int8_t* packed, Lanes* to) {
  for (int q = 0; q < 4; ++q) {
    const auto tap = [&](int ky, int kx) __attribute__((always_inline)) {
      const int slot = ky < 4 ? 4 * kx + ky : 4 * kSize + kx;
      const int8_t* group = packed + (slot / 4 * 4 + q) * kDepthwiseBlock;
      const __m256i four = _mm256_loadu_si256((const __m256i*)group);
      return _mm256_srai_epi32(_mm256_sllv_epi32(four, _mm256_set1_epi32(24 - slot % 4 * 8)), 24);
    };
    Lanes* next = to;
    for (int kx = 0; kx < kSize; ++kx) {
      for (int ky = 0; ky + 1 < kSize; ky += 2) next++->q[q] = pair(tap(ky, kx), tap(ky + 1, kx));
    }
    for (int kx = 0; kx < kSize; kx += 2) {
      const __m256i second = kx + 1 < kSize ? tap(kSize - 1, kx + 1) : _mm256_setzero_si256();
      next++->q[q] = pair(tap(kSize - 1, kx), second);
    }
  }
}

template <int kSize, bool kFixed>
void fill_half(const DepthwiseWalkI8& k, int64_t first, Half<kSize, kFixed>& h) {
  const Requantizer& q = *k.requantizer;
  const int64_t block = first / kDepthwiseBlock * kDepthwiseBlock, half = first - block;
  h.first = first;
  h.width = k.c - first;
  pairs_of_weights<kSize>(k.weights + block * k.slots + half, h.weights);
  const Lanes none = {};
  const auto channels = [&](const void* of) __attribute__((always_inline)) {
    if (q.scale_step) return lane_order((const int32_t*)of + first, h.width);
    const __m256i one = _mm256_set1_epi32(*(const int32_t*)of);
    return Lanes{{one, one, one, one}};
  };
  const Lanes bias = q.bias ? lane_order(q.bias + first, h.width) : none;
  const Lanes scale = channels(kFixed ? (const void*)q.m0 : q.scale), shift = kFixed ? channels(q.shift) : none;
  for (int v = 0; v < 4; ++v) {
    // sum x * w - x_zero_point * sum w + bias: the second and third terms are where the accumulators start.
    const __m256i sums = _mm256_loadu_si256((const __m256i*)(k.sums + block + v * 16 + half / 4));
    h.init.q[v] = _mm256_sub_epi32(bias.q[v], _mm256_mullo_epi32(sums, _mm256_set1_epi32(k.outside[0])));
    if constexpr (kFixed) {
      h.scale[v] = fixed_avx2(scale.q[v], shift.q[v]);
    } else {
      h.scale[v] = _mm256_castsi256_ps(scale.q[v]);
    }
  }
  h.codes = codes_avx2(q);
  h.zero_point = _mm256_set1_epi16((short)k.zero_point);
  h.lo = _mm256_set1_epi8((char)k.lo);
  h.hi = _mm256_set1_epi8((char)k.hi);
  h.flip = _mm256_set1_epi8((char)k.flip);
  h.outside = _mm256_set1_epi8((char)k.outside[0]);
}

// rows: of the input at channel h.first. ix: the first output's first column.
template <int kSize, int kStride, bool kFixed, bool kWhole>
__attribute__((noinline)) void interleave_chunk(const DepthwiseWalkI8& k, const Half<kSize, kFixed>& h,
                                                const uint8_t* const rows[kSize], int64_t ix, int64_t pixels,
                                                Pairs<kSize, kStride>& to) {
  constexpr int kLast = kSize - 1;
  const int64_t w = k.w, ldx = k.ldx, width = h.width;
  const __m256i outside = h.outside;
  const Lanes beyond = interleave(outside, outside);
  const auto load = [&](int r, int64_t x) __attribute__((always_inline)) {
    const uint8_t* p = rows[r] + x * ldx;
    return kWhole ? _mm256_loadu_si256((const __m256i*)p) : load_bytes(p, width);
  };
  const auto is_inside = [&](int64_t x) __attribute__((always_inline)) { return (uint64_t)x < (uint64_t)w; };
  __m256i last = is_inside(ix) ? load(kLast, ix) : outside;
  for (int64_t i = 0; i < (pixels - 1) * kStride + kSize; ++i) {
    const int64_t x = ix + i;
    if (is_inside(x)) {
#pragma GCC unroll 2
      for (int g = 0; g < kSize / 2; ++g) to.column[i][g] = interleave(load(2 * g, x), load(2 * g + 1, x));
    } else {
      for (int g = 0; g < kSize / 2; ++g) to.column[i][g] = beyond;
    }
    const __m256i next = is_inside(x + 1) ? load(kLast, x + 1) : outside;
    if (kStride == 1 || i % 2 == 0) to.rest[i] = interleave(last, next);
    last = next;
  }
}

// kCount outputs from the i-th of the chunk, to `to` and on.
template <int kSize, int kStride, bool kFixed, bool kWhole, int kCount>
__attribute__((noinline)) void outputs(const Half<kSize, kFixed>& h, const Pairs<kSize, kStride>& in, int64_t i,
                                       uint8_t* to, int64_t ldy) {
  __m256i v[kCount][4];
  const auto* column = in.column + i * kStride;
  const Lanes* rest = in.rest + i * kStride;
  for (int q = 0; q < 4; ++q) {
    __m256i acc[kCount];
#pragma GCC unroll 4
    for (int p = 0; p < kCount; ++p) acc[p] = h.init.q[q];
    const auto add = [&](__m256i weights, int p, __m256i x) __attribute__((always_inline)) {
      const __m256i product = _mm256_madd_epi16(weights, x);
      __asm__("vpaddd %1, %0, %0" : "+x"(acc[p]) : "x"(product));  // GCC would regroup the sums, and spill
    };
#pragma GCC unroll 5
    for (int kx = 0; kx < kSize; ++kx) {
#pragma GCC unroll 2
      for (int g = 0; g < kSize / 2; ++g) {
        const __m256i weights = h.weights[kx * (kSize / 2) + g].q[q];
#pragma GCC unroll 4
        for (int p = 0; p < kCount; ++p) add(weights, p, column[p * kStride + kx][g].q[q]);
      }
    }
#pragma GCC unroll 3
    for (int g = 0; g <= kSize / 2; ++g) {
      const __m256i weights = h.weights[kSize * (kSize / 2) + g].q[q];
#pragma GCC unroll 4
      for (int p = 0; p < kCount; ++p) add(weights, p, rest[p * kStride + 2 * g].q[q]);
    }
#pragma GCC unroll 4
    for (int p = 0; p < kCount; ++p) {
      if constexpr (kFixed) {
        v[p][q] = scaled_avx2(h.codes, acc[p], h.scale[q]);
      } else {
        v[p][q] = _mm256_cvtps_epi32(scaled_avx2(h.codes, acc[p], h.scale[q]));
      }
    }
  }
  for (int p = 0; p < kCount; ++p, to += ldy) {
    __m256i low = _mm256_packs_epi32(v[p][0], v[p][1]), high = _mm256_packs_epi32(v[p][2], v[p][3]);
    if constexpr (kFixed) low = half_words_avx2(low), high = half_words_avx2(high);
    __m256i y = _mm256_packus_epi16(_mm256_adds_epi16(low, h.zero_point), _mm256_adds_epi16(high, h.zero_point));
    y = _mm256_xor_si256(_mm256_min_epu8(_mm256_max_epu8(y, h.lo), h.hi), h.flip);
    if (kWhole) {
      _mm256_storeu_si256((__m256i*)to, y);
    } else {
      alignas(32) uint8_t codes[kChannels];
      _mm256_store_si256((__m256i*)codes, y);
      memcpy(to, codes, (size_t)h.width);
    }
  }
}

template <int kSize, int kStride, bool kFixed, bool kWhole>
void walk_half(const DepthwiseWalkI8& k, const Half<kSize, kFixed>& h) {
  Pairs<kSize, kStride> pairs;
  for (int64_t oy = k.begin; oy < k.end; ++oy) {
    const uint8_t* rows[kSize];
    for (int r = 0; r < kSize; ++r) {
      const int64_t iy = oy * kStride - k.pad_top + r;
      rows[r] = (iy >= 0 && iy < k.h ? k.x + iy * k.w * k.ldx : k.outside) + h.first;
    }
    for (int64_t ox = 0; ox < k.out_w; ox += kChunk) {
      const int64_t pixels = k.out_w - ox < kChunk ? k.out_w - ox : kChunk;
      interleave_chunk<kSize, kStride, kFixed, kWhole>(k, h, rows, ox * kStride - k.pad_left, pixels, pairs);
      uint8_t* to = k.y + (oy * k.out_w + ox) * k.ldy + h.first;
      if (pixels < kPixels) {
        for (int64_t i = 0; i < pixels; ++i)
          outputs<kSize, kStride, kFixed, kWhole, 1>(h, pairs, i, to + i * k.ldy, k.ldy);
        continue;
      }
      for (int64_t i = 0; i < pixels; i += kPixels) {
        const int64_t at = i + kPixels <= pixels ? i : pixels - kPixels;  // the last ones may be done twice
        outputs<kSize, kStride, kFixed, kWhole, kPixels>(h, pairs, at, to + at * k.ldy, k.ldy);
      }
    }
  }
}

template <int kSize, bool kFixed>
void walk(const DepthwiseWalkI8& k) {
  const int64_t end = k.last_block * kDepthwiseBlock < k.c ? k.last_block * kDepthwiseBlock : k.c;
  for (int64_t first = k.first_block * kDepthwiseBlock; first < end; first += kChannels) {
    Half<kSize, kFixed> half;
    fill_half(k, first, half);
    const bool whole = half.width >= kChannels;
    if (k.stride == 1) {
      whole ? walk_half<kSize, 1, kFixed, true>(k, half) : walk_half<kSize, 1, kFixed, false>(k, half);
    } else {
      whole ? walk_half<kSize, 2, kFixed, true>(k, half) : walk_half<kSize, 2, kFixed, false>(k, half);
    }
  }
}

}  // namespace

void depthwise_i8_walk3_avx2(const DepthwiseWalkI8& k) noexcept {
  k.requantizer->m0 ? walk<3, true>(k) : walk<3, false>(k);
}

void depthwise_i8_walk5_avx2(const DepthwiseWalkI8& k) noexcept {
  k.requantizer->m0 ? walk<5, true>(k) : walk<5, false>(k);
}

}  // namespace lowbit

LOWBIT_TARGET_END
#endif
