// 3x3 and stride 1 or 2 with the epilogue fused: vpdpbusd on columns of taps. Walking along a row, each input column is
// loaded and interleaved once (8 unpacks) and used by the three outputs over it; at stride 1 its four rows serve two
// output rows, the second with weights shifted down by one tap. So 64 outputs cost 12 products, 4 unpacks (16 at stride
// 2) and the epilogue. Borders are pointers: rows outside read a pixel of zero points without moving, columns outside
// are constants.
#include "depthwise_i8/depthwise_i8_block_avx512_vnni.h"
#include "depthwise_i8/depthwise_i8_kernel.h"
#include "target.h"

#if LOWBIT_X86
#include <immintrin.h>

LOWBIT_TARGET_BEGIN_AVX512_VNNI

namespace lowbit {
namespace {

// acc += the products of four unsigned and four signed bytes. By hand: GCC 12's intrinsic copies the accumulator.
inline void dot(__m512i& acc, __m512i u8, const int8_t* s8) {
  __asm__("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(u8), "m"(*reinterpret_cast<const __m512i*>(s8)));
}

// Four rows of one input column, interleaved: in lane order, four bytes per channel.
struct Column {
  __m512i q[4];
};

template <int kIn, int kSets, bool kMasked>
inline Column column_at(const Block& b, const Rows<kIn, kSets>& rows, int64_t ix) {
  const DepthwiseWalkI8& k = *b.walk;
  Column c;
  if (ix < 0 || ix >= k.w) {
    c.q[0] = c.q[1] = c.q[2] = c.q[3] = _mm512_loadu_si512(k.outside);
    return c;
  }
  const int64_t offset = ix * k.ldx;
  const __m512i r0 = load<kIn, kSets, kMasked>(rows, 0, offset, b.mask),
                r1 = load<kIn, kSets, kMasked>(rows, 1, offset, b.mask);
  const __m512i r2 = load<kIn, kSets, kMasked>(rows, 2, offset, b.mask);
  const __m512i r3 =
      kIn > 3 ? load<kIn, kSets, kMasked>(rows, kIn > 3 ? 3 : 2, offset, b.mask) : r2;  // or a weight of 0
  const __m512i lo01 = _mm512_unpacklo_epi8(r0, r1), hi01 = _mm512_unpackhi_epi8(r0, r1);
  const __m512i lo23 = _mm512_unpacklo_epi8(r2, r3), hi23 = _mm512_unpackhi_epi8(r2, r3);
  c.q[0] = _mm512_unpacklo_epi16(lo01, lo23);
  c.q[1] = _mm512_unpackhi_epi16(lo01, lo23);
  c.q[2] = _mm512_unpacklo_epi16(hi01, hi23);
  c.q[3] = _mm512_unpackhi_epi16(hi01, hi23);
  return c;
}

// One output pixel of kRows rows (times kSets) from its three columns.
// weights: of the first and of the second row.
template <int kRows, int kSets, bool kMasked>
inline void output(const Block& b, const int8_t* const weights[2], const Column& c0, const Column& c1, const Column& c2,
                   int64_t oy, int64_t ox) {
  __m512i acc[kRows][4];
#pragma GCC unroll 2
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int q = 0; q < 4; ++q) {
      const int8_t* w = weights[r] + q * kDepthwiseBlock;
      acc[r][q] = _mm512_loadu_si512(b.init + 16 * q);
      dot(acc[r][q], c0.q[q], w);
      dot(acc[r][q], c1.q[q], w + 4 * kDepthwiseBlock);
      dot(acc[r][q], c2.q[q], w + 8 * kDepthwiseBlock);
    }
  }
#pragma GCC unroll 2
  for (int r = 0; r < kRows; ++r) {
    const DepthwiseWalkI8& k = *b.walk;
    const __m512i y = bytes(words(acc[r][0], acc[r][1], b.scale, k), words(acc[r][2], acc[r][3], b.scale + 32, k), k);
    store<kSets, kMasked>(b, y, oy + r, kRows, ox);
  }
}

// kRows * kSets output rows of one block.
template <int kStride, int kRows, int kSets, bool kMasked>
void strip(const Block& b, const int8_t* const weights[2], int64_t oy) {
  constexpr int kIn = kStride == 1 ? kRows + 2 : 3;
  const auto rows = rows_at<kIn, kSets>(b, oy, kRows);
  const auto column = [&](int64_t ix) { return column_at<kIn, kSets, kMasked>(b, rows, ix); };
  const int64_t out_w = b.walk->out_w;
  int64_t ix = -b.walk->pad_left, ox = 0;
  if constexpr (kStride == 1) {
    Column c0 = column(ix), c1 = column(ix + 1);
    for (ix += 2; ox + 3 <= out_w; ox += 3, ix += 3) {
      const Column c2 = column(ix);
      output<kRows, kSets, kMasked>(b, weights, c0, c1, c2, oy, ox);
      c0 = column(ix + 1);
      output<kRows, kSets, kMasked>(b, weights, c1, c2, c0, oy, ox + 1);
      c1 = column(ix + 2);
      output<kRows, kSets, kMasked>(b, weights, c2, c0, c1, oy, ox + 2);
    }
    if (ox < out_w) {
      const Column c2 = column(ix);
      output<kRows, kSets, kMasked>(b, weights, c0, c1, c2, oy, ox);
      if (ox + 1 < out_w) output<kRows, kSets, kMasked>(b, weights, c1, c2, column(ix + 1), oy, ox + 1);
    }
  } else {
    Column c0 = column(ix);
    for (; ox < out_w; ++ox, ix += 2) {
      const Column c1 = column(ix + 1), c2 = column(ix + 2);
      output<kRows, kSets, kMasked>(b, weights, c0, c1, c2, oy, ox);
      c0 = c2;
    }
  }
}

template <int kSets, bool kMasked>
void walk_block(const Block& b) {
  const DepthwiseWalkI8& k = *b.walk;
  alignas(64) int8_t shifted[12 * kDepthwiseBlock];  // taps (0, w0, w1, w2)
  const int8_t* const weights[2] = {b.weights, shifted};
  if (k.stride == 2) {
    for (int64_t oy = k.begin; oy < k.end; oy += kSets) strip<2, 1, kSets, kMasked>(b, weights, oy);
    return;
  }
  for (int64_t i = 0; i < int64_t{sizeof(shifted)}; i += 64) {
    _mm512_store_si512(shifted + i, _mm512_slli_epi32(_mm512_loadu_si512(b.weights + i), 8));
  }
  for (int64_t oy = k.begin; oy < k.end;) {
    if (k.end - oy > kSets) {
      strip<1, 2, kSets, kMasked>(b, weights, oy);
      oy += 2 * kSets;
    } else {
      strip<1, 1, kSets, kMasked>(b, weights, oy);
      oy += kSets;
    }
  }
}

}  // namespace

void depthwise_i8_walk3_avx512_vnni(const DepthwiseWalkI8& k) noexcept {
  for (int64_t block = k.first_block; block < k.last_block; ++block) {
    const int64_t width = k.c - block * kDepthwiseBlock;
    const Block b = block_at(k, block);
    if (width >= 64) {
      walk_block<1, false>(b);
    } else if (width > 32) {
      walk_block<1, true>(b);
    } else if (width > 16) {
      walk_block<2, true>(b);
    } else {
      walk_block<4, true>(b);
    }
  }
}

}  // namespace lowbit

LOWBIT_TARGET_END
#endif
