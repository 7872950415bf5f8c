// 5x5 and stride 1 or 2 with the epilogue fused: vpdpbusd on seven groups of four taps, five columns of the first four
// rows and two pieces of the fifth row (28 taps of which 25 count). The interleaved inputs of up to 16 output pixels
// are written to 14 KB of the stack, because five columns of four registers and the accumulators do not fit 32; then
// each pair of quarters of a block keeps its 14 weight registers while the pixels pass.
#include "depthwise_i8/depthwise_i8_block_avx512_vnni.h"
#include "depthwise_i8/depthwise_i8_kernel.h"
#include "target.h"

#if LOWBIT_X86
#include <immintrin.h>

LOWBIT_TARGET_BEGIN_AVX512_VNNI

namespace lowbit {
namespace {

constexpr int kChunk = 16;  // output pixels

LOWBIT_INLINE void dot(__m512i& acc, __m512i u8, __m512i s8) {
  __asm__("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(u8), "v"(s8));
}

// What a chunk of output pixels reads, interleaved. Output pixel i reads columns [i * stride, i * stride + 5), fifth[i]
// (its fifth row's first four taps) and the first byte of fifth[i + 4 / stride] (the last one).
struct Interleaved {
  __m512i column[2 * kChunk + 3][4];
  __m512i fifth[kChunk + 4][4];
};

LOWBIT_INLINE void interleave_words(__m512i to[4], __m512i lo0, __m512i hi0, __m512i lo1, __m512i hi1) {
  to[0] = _mm512_unpacklo_epi16(lo0, lo1);
  to[1] = _mm512_unpackhi_epi16(lo0, lo1);
  to[2] = _mm512_unpacklo_epi16(hi0, hi1);
  to[3] = _mm512_unpackhi_epi16(hi0, hi1);
}

template <int kStride, int kSets, bool kMasked>
void interleave(const Block& b, const Rows<5, kSets>& rows, int64_t ix, int64_t pixels, Interleaved& to) {
  const auto inside = [&](int64_t x) LOWBIT_INLINE_LAMBDA { return x >= 0 && x < b.w; };
  const auto at = [&](int r, int64_t x)
                      LOWBIT_INLINE_LAMBDA { return load<5, kSets, kMasked>(rows, r, x * b.ldx, b.mask); };
  for (int64_t i = 0; i < (pixels - 1) * kStride + 5; ++i) {
    __m512i* column = to.column[i];
    if (inside(ix + i)) {
      const __m512i r0 = at(0, ix + i), r1 = at(1, ix + i), r2 = at(2, ix + i), r3 = at(3, ix + i);
      interleave_words(column, _mm512_unpacklo_epi8(r0, r1), _mm512_unpackhi_epi8(r0, r1), _mm512_unpacklo_epi8(r2, r3),
                       _mm512_unpackhi_epi8(r2, r3));
    } else {
      column[0] = column[1] = column[2] = column[3] = b.outside;
    }
  }
  // Pairs of neighbours first: fifth[i] is the pair at i * stride and the pair two columns on.
  __m512i lo[2 / kStride], hi[2 / kStride];  // a ring
  constexpr int kAhead = 2 / kStride;
  for (int64_t i = 0; i < pixels + 4 / kStride + kAhead; ++i) {
    const int64_t x = ix + i * kStride;
    const __m512i left = inside(x) ? at(4, x) : b.outside, right = inside(x + 1) ? at(4, x + 1) : b.outside;
    const __m512i lo1 = _mm512_unpacklo_epi8(left, right), hi1 = _mm512_unpackhi_epi8(left, right);
    if (i >= kAhead) interleave_words(to.fifth[i - kAhead], lo[i % kAhead], hi[i % kAhead], lo1, hi1);
    lo[i % kAhead] = lo1;
    hi[i % kAhead] = hi1;
  }
}

// Quarters kPair * 2 and kPair * 2 + 1 of kPixels pixels from the i-th of the chunk on, to words.
template <int kStride, int kPixels, int kPair>
LOWBIT_INLINE void quarters(const Block& b, const Interleaved& in, int64_t i, __m512i out[kPixels]) {
  __m512i acc[kPixels][2];
#pragma GCC unroll 2
  for (int h = 0; h < 2; ++h) {
    const int q = kPair * 2 + h;
    __m512i w[7];
#pragma GCC unroll 7
    for (int g = 0; g < 7; ++g) w[g] = _mm512_loadu_si512(b.weights + (g * 4 + q) * kDepthwiseBlock);
    const __m512i init = _mm512_loadu_si512(b.init + q * 16);
#pragma GCC unroll 4
    for (int p = 0; p < kPixels; ++p) acc[p][h] = init;
#pragma GCC unroll 16
    for (int x = 0; x < (kPixels - 1) * kStride + 5; ++x) {
      const __m512i column = in.column[i * kStride + x][q];
#pragma GCC unroll 4
      for (int p = 0; p < kPixels; ++p) {
        const int kx = x - p * kStride;
        if (kx >= 0 && kx < 5) dot(acc[p][h], column, w[kx]);
      }
    }
#pragma GCC unroll 4
    for (int p = 0; p < kPixels; ++p) {
      dot(acc[p][h], in.fifth[i + p][q], w[5]);
      dot(acc[p][h], in.fifth[i + p + 4 / kStride][q], w[6]);
    }
  }
#pragma GCC unroll 4
  for (int p = 0; p < kPixels; ++p) out[p] = words<false>(acc[p][0], acc[p][1], b.scale + kPair * 32, b);
}

template <int kStride, int kPixels, int kSets, bool kMasked>
void outputs(const Block& b, const Interleaved& in, int64_t i, int64_t oy, int64_t ox) {
  __m512i words0[kPixels], words1[kPixels];
  quarters<kStride, kPixels, 0>(b, in, i, words0);
  quarters<kStride, kPixels, 1>(b, in, i, words1);
#pragma GCC unroll 4
  for (int p = 0; p < kPixels; ++p) store<kSets, kMasked>(b, bytes<false>(words0[p], words1[p], b), oy, 1, ox + i + p);
}

template <int kStride, int kSets, bool kMasked>
void walk_block(const DepthwiseWalkI8& k, int64_t block) {
  Constants constants;
  fill_constants(k, block, constants);
  const Block b = block_at(k, block, constants);
  Interleaved in;
  for (int64_t oy = k.begin; oy < k.end; oy += kSets) {
    const auto rows = rows_at<5, kSets>(k, b.first, oy, 1);
    for (int64_t ox = 0; ox < k.out_w; ox += kChunk) {
      const int64_t pixels = k.out_w - ox < kChunk ? k.out_w - ox : kChunk;
      interleave<kStride, kSets, kMasked>(b, rows, ox * kStride - k.pad_left, pixels, in);
      int64_t i = 0;
      for (; i + 4 <= pixels; i += 4) outputs<kStride, 4, kSets, kMasked>(b, in, i, oy, ox);
      if (pixels - i >= 2) {
        outputs<kStride, 2, kSets, kMasked>(b, in, i, oy, ox);
        i += 2;
      }
      if (i < pixels) outputs<kStride, 1, kSets, kMasked>(b, in, i, oy, ox);
    }
  }
}

template <int kStride>
void walk(const DepthwiseWalkI8& k) {
  for (int64_t block = k.first_block; block < k.last_block; ++block) {
    const int64_t width = k.c - block * kDepthwiseBlock;
    if (width >= 64) {
      walk_block<kStride, 1, false>(k, block);
    } else if (width > 32) {
      walk_block<kStride, 1, true>(k, block);
    } else if (width > 16) {
      walk_block<kStride, 2, true>(k, block);
    } else {
      walk_block<kStride, 4, true>(k, block);
    }
  }
}

}  // namespace

void depthwise_i8_walk5_avx512_vnni(const DepthwiseWalkI8& k) noexcept {
  if (k.stride == 1) {
    walk<1>(k);
  } else {
    walk<2>(k);
  }
}

}  // namespace lowbit

LOWBIT_TARGET_END
#endif
