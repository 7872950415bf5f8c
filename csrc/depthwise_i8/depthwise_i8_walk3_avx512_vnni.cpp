// 3x3 and stride 1 or 2 with the epilogue fused: vpdpbusd on columns of taps. Walking along a row, each input column is
// loaded and interleaved once (8 unpacks) and used by the three outputs over it; at stride 1 its four rows serve two
// output rows, the second with weights shifted down by one tap. So 64 outputs cost 12 products, 4 unpacks (16 at stride
// 2) and the epilogue. Rows outside the image are a row of zero points, columns outside are constants, and the loop
// between the borders does not look. All of it must be inlined: where GCC left the lambdas as calls, stride 2 took 1.4
// times as long.
#include "depthwise_i8/depthwise_i8_block_avx512_vnni.h"
#include "depthwise_i8/depthwise_i8_kernel.h"
#include "target.h"

#if LOWBIT_X86
#include <immintrin.h>

LOWBIT_TARGET_BEGIN_AVX512_VNNI

namespace lowbit {
namespace {

// acc += the products of four unsigned and four signed bytes.
LOWBIT_INLINE void dot(__m512i& acc, __m512i u8, const int8_t* s8) {
  acc = _mm512_dpbusd_epi32(acc, u8, _mm512_loadu_si512(s8));
}

// Four rows of one input column, interleaved: in lane order, four bytes per channel.
struct Column {
  __m512i q[4];
};

template <int kIn, int kSets, bool kMasked>
LOWBIT_INLINE Column column_inside(const Block& b, const Rows<kIn, kSets>& rows, int64_t ix) {
  const auto row = [&](int r) LOWBIT_INLINE_LAMBDA { return load<kIn, kSets, kMasked>(rows, r, ix * b.ldx, b.mask); };
  const __m512i r0 = row(0), r1 = row(1), r2 = row(2), r3 = kIn > 3 ? row(kIn - 1) : r2;  // r2: its weight is 0
  const __m512i lo01 = _mm512_unpacklo_epi8(r0, r1), hi01 = _mm512_unpackhi_epi8(r0, r1);
  const __m512i lo23 = _mm512_unpacklo_epi8(r2, r3), hi23 = _mm512_unpackhi_epi8(r2, r3);
  return {{_mm512_unpacklo_epi16(lo01, lo23), _mm512_unpackhi_epi16(lo01, lo23), _mm512_unpacklo_epi16(hi01, hi23),
           _mm512_unpackhi_epi16(hi01, hi23)}};
}

// One output pixel of kRows rows (times kSets) from its three columns.
// weights: of the first and of the second row.
template <int kRows, int kSets, bool kMasked, Ending kEnding>
LOWBIT_INLINE void output(const Block& b, const int8_t* const weights[2], const Column& c0, const Column& c1,
                          const Column& c2, int64_t oy, int64_t ox) {
  __m512i acc[kRows][4];
#pragma GCC unroll 2
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int q = 0; q < 4; ++q) acc[r][q] = _mm512_loadu_si512(b.init + 16 * q);
  }
  const Column* columns[3] = {&c0, &c1, &c2};
#pragma GCC unroll 3
  for (int x = 0; x < 3; ++x) {
#pragma GCC unroll 2
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
      for (int q = 0; q < 4; ++q) dot(acc[r][q], columns[x]->q[q], weights[r] + (x * 4 + q) * kDepthwiseBlock);
    }
  }
#pragma GCC unroll 2
  for (int r = 0; r < kRows; ++r) {
    const __m512i y =
        bytes<kEnding>(words<kEnding>(acc[r][0], acc[r][1], 0, b), words<kEnding>(acc[r][2], acc[r][3], 32, b), b);
    store<kSets, kMasked>(b, y, oy + r, kRows, ox);
  }
}

// kRows * kSets output rows of one block.
template <int kStride, int kRows, int kSets, bool kMasked, Ending kEnding>
void strip(const DepthwiseWalkI8& k, int64_t block, const Constants& constants, const int8_t* shifted, int64_t oy) {
  const Block b = block_at(k, block, constants);
  const int8_t* const weights[2] = {b.weights, shifted};
  constexpr int kIn = kStride == 1 ? kRows + 2 : 3;
  const auto rows = rows_at<kIn, kSets>(k, b.first, oy, kRows);
  const auto inside = [&](int64_t ix) LOWBIT_INLINE_LAMBDA { return column_inside<kIn, kSets, kMasked>(b, rows, ix); };
  const auto column = [&](int64_t ix) LOWBIT_INLINE_LAMBDA {
    return ix >= 0 && ix < b.w ? inside(ix) : Column{{b.outside, b.outside, b.outside, b.outside}};
  };
  const auto out = [&](const Column& c0, const Column& c1, const Column& c2, int64_t ox)
                       LOWBIT_INLINE_LAMBDA { output<kRows, kSets, kMasked, kEnding>(b, weights, c0, c1, c2, oy, ox); };
  // The outputs whose new columns all lie inside, three (at stride 2 one) at a time, between borders that look.
  int64_t ix = -k.pad_left, ox = 0;  // ix: the first column of output ox
  constexpr int64_t kKept = kStride == 1 ? 2 : 1, kAtOnce = kStride == 1 ? 3 : 1;
  Column c0 = column(ix), c1 = kKept == 2 ? column(ix + 1) : c0;
  const auto step = [&]() LOWBIT_INLINE_LAMBDA {
    if constexpr (kStride == 1) {
      const Column c2 = column(ix + 2);
      out(c0, c1, c2, ox);
      c0 = c1;
      c1 = c2;
    } else {
      const Column middle = column(ix + 1), c2 = column(ix + 2);
      out(c0, middle, c2, ox);
      c0 = c2;
    }
    ix += kStride;
    ++ox;
  };
  while (ox < b.out_w && ix + kKept < 0) step();
  for (; ox + kAtOnce <= b.out_w && ix + (kAtOnce - 1) * kStride + 2 < b.w; ox += kAtOnce, ix += kAtOnce * kStride) {
    if constexpr (kStride == 1) {
      const Column c2 = inside(ix + 2);
      out(c0, c1, c2, ox);
      c0 = inside(ix + 3);
      out(c1, c2, c0, ox + 1);
      c1 = inside(ix + 4);
      out(c2, c0, c1, ox + 2);
    } else {
      const Column middle = inside(ix + 1), c2 = inside(ix + 2);
      out(c0, middle, c2, ox);
      c0 = c2;
    }
  }
  while (ox < b.out_w) step();
}

template <int kSets, bool kMasked, Ending kEnding>
void walk_block(const DepthwiseWalkI8& k, int64_t block) {
  Constants constants;
  fill_constants(k, block, constants);
  if (k.stride == 2) {
    for (int64_t oy = k.begin; oy < k.end; oy += kSets)
      strip<2, 1, kSets, kMasked, kEnding>(k, block, constants, nullptr, oy);
    return;
  }
  alignas(64) int8_t shifted[12 * kDepthwiseBlock];  // taps (0, w0, w1, w2)
  const int8_t* weights = k.weights + block * kDepthwiseBlock * k.slots;
  for (int64_t i = 0; i < int64_t{sizeof(shifted)}; i += 64) {
    _mm512_store_si512(shifted + i, _mm512_slli_epi32(_mm512_loadu_si512(weights + i), 8));
  }
  for (int64_t oy = k.begin; oy < k.end;) {
    if (k.end - oy > kSets) {
      strip<1, 2, kSets, kMasked, kEnding>(k, block, constants, shifted, oy);
      oy += 2 * kSets;
    } else {
      strip<1, 1, kSets, kMasked, kEnding>(k, block, constants, shifted, oy);
      oy += kSets;
    }
  }
}

template <Ending kEnding>
void walk(const DepthwiseWalkI8& k) {
  for (int64_t block = k.first_block; block < k.last_block; ++block) {
    const int64_t width = k.c - block * kDepthwiseBlock;
    if (width >= 64) {
      walk_block<1, false, kEnding>(k, block);
    } else if (width > 32) {
      walk_block<1, true, kEnding>(k, block);
    } else if (width > 16) {
      walk_block<2, true, kEnding>(k, block);
    } else {
      walk_block<4, true, kEnding>(k, block);
    }
  }
}

}  // namespace

void depthwise_i8_walk3_avx512_vnni(const DepthwiseWalkI8& k) noexcept {
  switch (ending_of(k)) {
    case Ending::bare:
      return walk<Ending::bare>(k);
    case Ending::floats:
      return walk<Ending::floats>(k);
    case Ending::floor:
      return walk<Ending::floor>(k);
    case Ending::fixed:
      return walk<Ending::fixed>(k);
  }
}

}  // namespace lowbit

LOWBIT_TARGET_END
#endif
