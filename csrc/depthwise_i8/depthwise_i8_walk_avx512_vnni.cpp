// 3x3 and stride 1 or 2 with the epilogue fused: vpdpbusd on columns of taps. Walking along a row, each input column is
// loaded and interleaved once (8 unpacks) and used by the three outputs over it; at stride 1 its four rows serve two
// output rows, the second with weights shifted down by one tap. So 64 outputs cost 12 products, 4 unpacks (16 at stride
// 2) and the epilogue. Borders are pointers: rows outside read a pixel of zero points without moving, columns outside
// are constants.
#include "depthwise_i8/depthwise_i8_kernel.h"
#include "target.h"

#if LOWBIT_X86
#include <immintrin.h>

LOWBIT_TARGET_BEGIN_AVX512_VNNI

namespace lowbit {

// acc += the products of four unsigned and four signed bytes. By hand: GCC 12's intrinsic copies the accumulator.
static inline void dot(__m512i& acc, __m512i u8, const int8_t* s8) {
  __asm__("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(u8), "m"(*reinterpret_cast<const __m512i*>(s8)));
}

// A block of channels, with what its pixels share.
struct Block {
  const DepthwiseWalkI8* walk;
  int64_t first;             // channel
  __mmask64 mask;            // of its channels, in one copy
  const int8_t* weights[2];  // for the first and the second output row of a pair
  const int32_t* init;
  const float* scale;
};

// The input rows under kRows output rows, for each of kSets groups of output rows that share a register.
template <int kIn, int kSets>
struct Rows {
  const uint8_t* start[kIn][kSets];
  int64_t moves[kIn][kSets];  // all ones, or 0 outside the image
};

template <int kIn, int kSets>
static inline Rows<kIn, kSets> rows_at(const Block& b, int64_t oy, int64_t rows_per_set) {
  const DepthwiseWalkI8& k = *b.walk;
  Rows<kIn, kSets> rows;
  for (int set = 0; set < kSets; ++set) {
    for (int r = 0; r < kIn; ++r) {
      const int64_t iy = (oy + set * rows_per_set) * k.stride - k.pad_top + r;
      const bool inside = iy >= 0 && iy < k.h;
      rows.start[r][set] = inside ? k.x + iy * k.w * k.ldx + b.first : k.outside;
      rows.moves[r][set] = inside ? -1 : 0;
    }
  }
  return rows;
}

template <int kIn, int kSets, bool kMasked>
static inline __m512i load(const Rows<kIn, kSets>& rows, int r, int64_t offset, __mmask64 mask) {
  const uint8_t* p[kSets];
#pragma GCC unroll 4
  for (int set = 0; set < kSets; ++set) p[set] = rows.start[r][set] + (offset & rows.moves[r][set]);
  if constexpr (kSets == 1) {
    return kMasked ? _mm512_maskz_loadu_epi8(mask, p[0]) : _mm512_loadu_si512(p[0]);
  } else if constexpr (kSets == 2) {
    const __mmask32 m = static_cast<__mmask32>(mask);
    return _mm512_inserti64x4(_mm512_castsi256_si512(_mm256_maskz_loadu_epi8(m, p[0])),
                              _mm256_maskz_loadu_epi8(m, p[1]), 1);
  } else {
    const __mmask16 m = static_cast<__mmask16>(mask);
    __m512i v = _mm512_castsi128_si512(_mm_maskz_loadu_epi8(m, p[0]));
    v = _mm512_inserti32x4(v, _mm_maskz_loadu_epi8(m, p[1]), 1);
    v = _mm512_inserti32x4(v, _mm_maskz_loadu_epi8(m, p[2]), 2);
    return _mm512_inserti32x4(v, _mm_maskz_loadu_epi8(m, p[3]), 3);
  }
}

// Four rows of one input column, interleaved: in lane order, four bytes per channel.
struct Column {
  __m512i q[4];
};

template <int kIn, int kSets, bool kMasked>
static inline Column column_at(const Block& b, const Rows<kIn, kSets>& rows, int64_t ix) {
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

// The epilogue of requantize.h for codes, nearest_even, scale < 1: rounding commutes with the clamp to whole numbers,
// and saturating to int16 before the zero point is added cannot change what saturates to uint8.
static inline __m512i finished(const __m512i acc[4], const Block& b) {
  const DepthwiseWalkI8& k = *b.walk;
  __m512i v[4];
#pragma GCC unroll 4
  for (int q = 0; q < 4; ++q) {
    const __m512 f = _mm512_mul_ps(_mm512_cvtepi32_ps(acc[q]), _mm512_loadu_ps(b.scale + 16 * q));
    v[q] = _mm512_cvt_roundps_epi32(f, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  }
  const __m512i zero_point = _mm512_set1_epi16(static_cast<int16_t>(k.zero_point));
  const __m512i lo = _mm512_adds_epi16(_mm512_packs_epi32(v[0], v[1]), zero_point);
  const __m512i hi = _mm512_adds_epi16(_mm512_packs_epi32(v[2], v[3]), zero_point);
  __m512i y = _mm512_packus_epi16(lo, hi);
  y = _mm512_min_epu8(_mm512_max_epu8(y, _mm512_set1_epi8(static_cast<char>(k.lo))),
                      _mm512_set1_epi8(static_cast<char>(k.hi)));
  return _mm512_xor_si512(y, _mm512_set1_epi8(static_cast<char>(k.flip)));
}

template <int kSets, bool kMasked>
static inline void store(const Block& b, __m512i y, int64_t oy, int64_t rows_per_set, int64_t ox) {
  const DepthwiseWalkI8& k = *b.walk;
  uint8_t* out = k.y + (oy * k.out_w + ox) * k.ldy + b.first;
  const int64_t step = rows_per_set * k.out_w * k.ldy;
  const auto inside = [&](int set) { return oy + set * rows_per_set < k.end; };
  if constexpr (kSets == 1) {
    if (kMasked) {
      _mm512_mask_storeu_epi8(out, b.mask, y);
    } else {
      _mm512_storeu_si512(out, y);
    }
  } else if constexpr (kSets == 2) {
    const __mmask32 m = static_cast<__mmask32>(b.mask);
    if (inside(0)) _mm256_mask_storeu_epi8(out, m, _mm512_castsi512_si256(y));
    if (inside(1)) _mm256_mask_storeu_epi8(out + step, m, _mm512_extracti64x4_epi64(y, 1));
  } else {
    const __mmask16 m = static_cast<__mmask16>(b.mask);
    if (inside(0)) _mm_mask_storeu_epi8(out, m, _mm512_castsi512_si128(y));
    if (inside(1)) _mm_mask_storeu_epi8(out + step, m, _mm512_extracti32x4_epi32(y, 1));
    if (inside(2)) _mm_mask_storeu_epi8(out + 2 * step, m, _mm512_extracti32x4_epi32(y, 2));
    if (inside(3)) _mm_mask_storeu_epi8(out + 3 * step, m, _mm512_extracti32x4_epi32(y, 3));
  }
}

// One output pixel of kRows rows (times kSets) from its three columns.
template <int kRows, int kSets, bool kMasked>
static inline void output(const Block& b, const Column& c0, const Column& c1, const Column& c2, int64_t oy,
                          int64_t ox) {
  __m512i acc[kRows][4];
#pragma GCC unroll 2
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int q = 0; q < 4; ++q) {
      const int8_t* w = b.weights[r] + q * kDepthwiseBlock;
      acc[r][q] = _mm512_loadu_si512(b.init + 16 * q);
      dot(acc[r][q], c0.q[q], w);
      dot(acc[r][q], c1.q[q], w + 4 * kDepthwiseBlock);
      dot(acc[r][q], c2.q[q], w + 8 * kDepthwiseBlock);
    }
  }
#pragma GCC unroll 2
  for (int r = 0; r < kRows; ++r) store<kSets, kMasked>(b, finished(acc[r], b), oy + r, kRows, ox);
}

// kRows * kSets output rows of one block.
template <int kStride, int kRows, int kSets, bool kMasked>
static void strip(const Block& b, int64_t oy) {
  constexpr int kIn = kStride == 1 ? kRows + 2 : 3;
  const auto rows = rows_at<kIn, kSets>(b, oy, kRows);
  const auto column = [&](int64_t ix) { return column_at<kIn, kSets, kMasked>(b, rows, ix); };
  const int64_t out_w = b.walk->out_w;
  int64_t ix = -b.walk->pad_left, ox = 0;
  if constexpr (kStride == 1) {
    Column c0 = column(ix), c1 = column(ix + 1);
    for (ix += 2; ox + 3 <= out_w; ox += 3, ix += 3) {
      const Column c2 = column(ix);
      output<kRows, kSets, kMasked>(b, c0, c1, c2, oy, ox);
      c0 = column(ix + 1);
      output<kRows, kSets, kMasked>(b, c1, c2, c0, oy, ox + 1);
      c1 = column(ix + 2);
      output<kRows, kSets, kMasked>(b, c2, c0, c1, oy, ox + 2);
    }
    if (ox < out_w) {
      const Column c2 = column(ix);
      output<kRows, kSets, kMasked>(b, c0, c1, c2, oy, ox);
      if (ox + 1 < out_w) output<kRows, kSets, kMasked>(b, c1, c2, column(ix + 1), oy, ox + 1);
    }
  } else {
    Column c0 = column(ix);
    for (; ox < out_w; ++ox, ix += 2) {
      const Column c1 = column(ix + 1), c2 = column(ix + 2);
      output<kRows, kSets, kMasked>(b, c0, c1, c2, oy, ox);
      c0 = c2;
    }
  }
}

template <int kSets, bool kMasked>
static void walk_block(const Block& b) {
  const DepthwiseWalkI8& k = *b.walk;
  if (k.stride == 2) {
    for (int64_t oy = k.begin; oy < k.end; oy += kSets) strip<2, 1, kSets, kMasked>(b, oy);
    return;
  }
  for (int64_t oy = k.begin; oy < k.end;) {
    if (k.end - oy > kSets) {
      strip<1, 2, kSets, kMasked>(b, oy);
      oy += 2 * kSets;
    } else {
      strip<1, 1, kSets, kMasked>(b, oy);
      oy += kSets;
    }
  }
}

void depthwise_i8_walk_avx512_vnni(const DepthwiseWalkI8& k) noexcept {
  alignas(64) int8_t shifted[12 * kDepthwiseBlock];  // taps (0, w0, w1, w2)
  for (int64_t block = k.first_block; block < k.last_block; ++block) {
    const int64_t first = block * kDepthwiseBlock, width = k.c - first;
    const int8_t* weights = k.weights + first * k.slots;
    for (int64_t i = 0; i < int64_t{sizeof(shifted)}; i += 64) {
      _mm512_store_si512(shifted + i, _mm512_slli_epi32(_mm512_loadu_si512(weights + i), 8));
    }
    const __mmask64 mask = width >= 64 ? ~__mmask64{0} : (__mmask64{1} << width) - 1;
    const Block b{&k, first, mask, {weights, shifted}, k.init + first, k.scale + first};
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
