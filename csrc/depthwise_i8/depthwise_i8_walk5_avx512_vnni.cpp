// 5x5 and stride 1 or 2 with the epilogue fused: vpdpbusd on groups of four taps. The first four of the input rows are
// interleaved column by column; what is left of the window is grouped two ways:
//   stride 1: two output rows at a time, which share the columns (the second has its weights shifted down by one tap);
//             the fifth and sixth row by pairs of columns, (r4[x], r5[x], r4[x + 1], r5[x + 1]): three more groups
//   stride 2: one output row; the fifth row by fours, (r4[x] ... r4[x + 3]): two more groups
// The interleaved bytes of a chunk of output pixels go to 17 KB of the stack, because five columns of four registers
// and the accumulators do not fit 32. Four pixels are sixteen chains of dependent products, which hides their latency.
// Weights in registers, half a
// block at a time, measured the same.
#include "depthwise_i8/depthwise_i8_block_avx512_vnni.h"
#include "depthwise_i8/depthwise_i8_kernel.h"
#include "target.h"

#if LOWBIT_X86
#include <immintrin.h>

LOWBIT_TARGET_BEGIN_AVX512_VNNI

namespace lowbit {
namespace {

template <int kStride>
struct Plan;
template <>
struct Plan<1> {
  static constexpr int kRows = 2, kIn = 6, kGroups = 8, kChunk = 28;  // output rows, input rows, groups, output pixels
};
template <>
struct Plan<2> {
  static constexpr int kRows = 1, kIn = 5, kGroups = 7, kChunk = 14;
};

// What a chunk reads, interleaved. Output pixel i reads column[i * stride + kx] for kx < 5, and rest[i + 2 * g] for the
// groups that are left.
struct Interleaved {
  __m512i column[33][4];
  __m512i rest[34][4];
};

LOWBIT_INLINE void dot(__m512i& acc, __m512i u8, const int8_t* s8) {
  acc = _mm512_dpbusd_epi32(acc, u8, _mm512_loadu_si512(s8));
}

struct Pair {
  __m512i lo, hi;
};

LOWBIT_INLINE Pair pair(__m512i a, __m512i b) { return {_mm512_unpacklo_epi8(a, b), _mm512_unpackhi_epi8(a, b)}; }

LOWBIT_INLINE void interleave(Pair a, Pair b, __m512i to[4]) {
  to[0] = _mm512_unpacklo_epi16(a.lo, b.lo);
  to[1] = _mm512_unpackhi_epi16(a.lo, b.lo);
  to[2] = _mm512_unpacklo_epi16(a.hi, b.hi);
  to[3] = _mm512_unpackhi_epi16(a.hi, b.hi);
}

// ix: the first pixel's first column.
template <int kStride, int kSets, bool kMasked>
void interleave_chunk(const Block& b, const Rows<Plan<kStride>::kIn, kSets>& rows, int64_t ix, int64_t pixels,
                      Interleaved& to) {
  constexpr int kIn = Plan<kStride>::kIn;
  const auto inside = [&](int64_t x) LOWBIT_INLINE_LAMBDA { return x >= 0 && x < b.w; };
  const auto row = [&](int r, int64_t x)
                       LOWBIT_INLINE_LAMBDA { return load<kIn, kSets, kMasked>(rows, r, x * b.ldx, b.mask); };
  for (int64_t i = 0; i < (pixels - 1) * kStride + 5; ++i) {
    const int64_t x = ix + i;
    if (inside(x)) {
      interleave(pair(row(0, x), row(1, x)), pair(row(2, x), row(3, x)), to.column[i]);
    } else {
      to.column[i][0] = to.column[i][1] = to.column[i][2] = to.column[i][3] = b.outside;
    }
  }
  const auto rest = [&](int64_t x) LOWBIT_INLINE_LAMBDA {
    if constexpr (kStride == 1) {
      return inside(x) ? pair(row(4, x), row(kIn - 1, x)) : Pair{b.outside, b.outside};
    } else {
      return pair(inside(x) ? row(4, x) : b.outside, inside(x + 1) ? row(4, x + 1) : b.outside);
    }
  };
  Pair left = rest(ix);
  for (int64_t i = 0; i < pixels + 4 / kStride; ++i) {
    const Pair right = rest(ix + (i + 1) * kStride);
    interleave(left, right, to.rest[i]);
    left = right;
  }
}

// kPixels pixels from the i-th of the chunk that starts at ox, of the output rows from oy on that exist.
template <int kStride, int kPixels, int kSets, bool kMasked, Ending kEnding>
void outputs(const Block& b, const int8_t* weights, const Interleaved& in, int64_t i, int64_t oy, int64_t ox) {
  constexpr int kRows = Plan<kStride>::kRows, kGroups = Plan<kStride>::kGroups;
  for (int r = 0; r < kRows && oy + r < b.end; ++r, weights += 8 * 4 * kDepthwiseBlock) {
    __asm__("" ::: "memory");  // or GCC keeps what both rows read, and spills it
    __m512i acc[kPixels][4];
#pragma GCC unroll 4
    for (int p = 0; p < kPixels; ++p) {
#pragma GCC unroll 4
      for (int q = 0; q < 4; ++q) acc[p][q] = _mm512_loadu_si512(b.init + q * 16);
    }
#pragma GCC unroll 16
    for (int x = 0; x < (kPixels - 1) * kStride + 5; ++x) {
#pragma GCC unroll 4
      for (int q = 0; q < 4; ++q) {
        const __m512i column = in.column[i * kStride + x][q];
#pragma GCC unroll 4
        for (int p = 0; p < kPixels; ++p) {
          const int kx = x - p * kStride;
          if (kx >= 0 && kx < 5) dot(acc[p][q], column, weights + (kx * 4 + q) * kDepthwiseBlock);
        }
      }
    }
#pragma GCC unroll 16
    for (int x = 0; x < kPixels + (kGroups - 6) * 2; ++x) {
#pragma GCC unroll 4
      for (int q = 0; q < 4; ++q) {
        const __m512i rest = in.rest[i + x][q];
#pragma GCC unroll 4
        for (int p = 0; p < kPixels; ++p) {
          const int g = (x - p) / 2;
          if (x >= p && (x - p) % 2 == 0 && g < kGroups - 5)
            dot(acc[p][q], rest, weights + ((5 + g) * 4 + q) * kDepthwiseBlock);
        }
      }
    }
#pragma GCC unroll 4
    for (int p = 0; p < kPixels; ++p) {
      const __m512i lo = words<kEnding>(acc[p][0], acc[p][1], 0, b);
      const __m512i hi = words<kEnding>(acc[p][2], acc[p][3], 32, b);
      store<kSets, kMasked>(b, bytes<kEnding>(lo, hi, b), oy + r, kRows, ox + i + p);
    }
  }
}

// The packed groups, five columns (w0, w1, w2, w3) and the fifth row (w4[0] ... w4[3]), (w4[4], 0, 0, 0), as the eight
// groups of the first and the eight of the second output row of a pair.
void weights_of_pair(const int8_t* packed, int8_t* to) {
  constexpr int kGroup = 4 * kDepthwiseBlock, kRow = 8 * kGroup;
  for (int q = 0; q < 4; ++q, packed += kDepthwiseBlock, to += kDepthwiseBlock) {
    const auto group = [&](int g) LOWBIT_INLINE_LAMBDA { return _mm512_loadu_si512(packed + g * kGroup); };
    const auto put = [&](int g, __m512i first, __m512i second) LOWBIT_INLINE_LAMBDA {
      _mm512_storeu_si512(to + g * kGroup, first);
      _mm512_storeu_si512(to + kRow + g * kGroup, second);
    };
    __m512i last[6];  // w3 of every column, as dwords
    last[5] = _mm512_setzero_si512();
    for (int g = 0; g < 5; ++g) {
      last[g] = _mm512_srli_epi32(group(g), 24);
      put(g, group(g), _mm512_slli_epi32(group(g), 8));
    }
    const __m512i byte = _mm512_set1_epi32(0xff), fifth = group(5);
    const auto spread = [&](__m512i two) LOWBIT_INLINE_LAMBDA {  // (a, b, ...) to (a, 0, b, 0)
      return _mm512_or_si512(_mm512_and_si512(two, byte),
                             _mm512_slli_epi32(_mm512_and_si512(_mm512_srli_epi32(two, 8), byte), 16));
    };
    const __m512i rest[3] = {spread(fifth), spread(_mm512_srli_epi32(fifth, 16)), group(6)};
    for (int g = 0; g < 3; ++g) {
      const __m512i fourth = _mm512_or_si512(last[2 * g], _mm512_slli_epi32(last[2 * g + 1], 16));
      put(5 + g, rest[g], _mm512_or_si512(fourth, _mm512_slli_epi32(rest[g], 8)));
    }
  }
}

template <int kStride, int kSets, bool kMasked, Ending kEnding>
void walk_block(const DepthwiseWalkI8& k, int64_t block) {
  constexpr int kRows = Plan<kStride>::kRows, kIn = Plan<kStride>::kIn, kChunk = Plan<kStride>::kChunk;
  Constants constants;
  fill_constants(k, block, constants);
  const Block b = block_at(k, block, constants);
  alignas(64) int8_t pair_weights[2 * 8 * 4 * kDepthwiseBlock];
  const int8_t* weights = b.weights;
  if constexpr (kRows == 2) {
    weights_of_pair(b.weights, pair_weights);
    weights = pair_weights;
  }
  Interleaved in;
  for (int64_t oy = k.begin; oy < k.end; oy += kSets * kRows) {
    const auto rows = rows_at<kIn, kSets>(k, b.first, oy, kRows);
    for (int64_t ox = 0; ox < k.out_w; ox += kChunk) {
      const int64_t pixels = k.out_w - ox < kChunk ? k.out_w - ox : kChunk;
      interleave_chunk<kStride, kSets, kMasked>(b, rows, ox * kStride - k.pad_left, pixels, in);
      int64_t i = 0;
      while (i < pixels) {
        const int64_t left = pixels - i;
        if (left == 4 || left > 6) {
          outputs<kStride, 4, kSets, kMasked, kEnding>(b, weights, in, i, oy, ox);
          i += 4;
        } else if (left >= 3) {
          outputs<kStride, 3, kSets, kMasked, kEnding>(b, weights, in, i, oy, ox);
          i += 3;
        } else {
          outputs<kStride, 1, kSets, kMasked, kEnding>(b, weights, in, i, oy, ox);
          ++i;
        }
      }
    }
  }
}

template <int kStride, Ending kEnding>
void walk(const DepthwiseWalkI8& k) {
  for (int64_t block = k.first_block; block < k.last_block; ++block) {
    const int64_t width = k.c - block * kDepthwiseBlock;
    if (width >= 64) {
      walk_block<kStride, 1, false, kEnding>(k, block);
    } else if (width > 32) {
      walk_block<kStride, 1, true, kEnding>(k, block);
    } else if (width > 16) {
      walk_block<kStride, 2, true, kEnding>(k, block);
    } else {
      walk_block<kStride, 4, true, kEnding>(k, block);
    }
  }
}

}  // namespace

void depthwise_i8_walk5_avx512_vnni(const DepthwiseWalkI8& k) noexcept {
  const bool one = k.stride == 1;
  switch (ending_of(k)) {
    case Ending::bare:
      return one ? walk<1, Ending::bare>(k) : walk<2, Ending::bare>(k);
    case Ending::floats:
      return one ? walk<1, Ending::floats>(k) : walk<2, Ending::floats>(k);
    case Ending::floor:
      return one ? walk<1, Ending::floor>(k) : walk<2, Ending::floor>(k);
    case Ending::fixed:
      return one ? walk<1, Ending::fixed>(k) : walk<2, Ending::fixed>(k);
  }
}

}  // namespace lowbit

LOWBIT_TARGET_END
#endif
