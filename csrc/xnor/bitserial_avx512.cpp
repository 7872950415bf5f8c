// Sums of dots from int32 to float32, and codes by a walk down a tree of thresholds: vpermps fetches a lane's next
// threshold by the lane's node, so that 2^A - 1 thresholds take A comparisons. vptestm then makes bits of codes, 16 or
// 64 at once.
#include "target.h"
#include "xnor/bitserial_kernel.h"

#if LOWBIT_X86
#include <immintrin.h>
#include <stdint.h>

LOWBIT_TARGET_BEGIN_AVX512

namespace lowbit {
namespace {

constexpr int kLanes = 16;

static inline __mmask16 lanes(int64_t count) {
  return count >= kLanes ? (__mmask16)0xffff : count <= 0 ? (__mmask16)0 : (__mmask16)((1u << count) - 1);
}

// A complete tree, node n's children 2n and 2n + 1, the thresholds in order; leaves are nodes from 2^bits on, whose
// codes lie at their lowest four bits.
struct Tree {
  __m512 threshold, root;
  __m512i codes;
  int64_t bits;

  explicit Tree(const LevelSteps& s) : bits(s.bits) {
    alignas(64) float t[16] = {};
    alignas(64) int32_t leaf[16] = {};
    for (int64_t depth = 0; depth < bits; ++depth) {
      for (int64_t i = 0; i < (int64_t)1 << depth; ++i) {
        t[((int64_t)1 << depth) + i] = s.threshold[((2 * i + 1) << (bits - depth - 1)) - 1];
      }
    }
    for (int64_t i = 0; i < (int64_t)1 << bits; ++i) leaf[(((int64_t)1 << bits) + i) & 15] = s.codes[i];
    threshold = _mm512_load_ps(t);
    root = _mm512_set1_ps(t[1]);
    codes = _mm512_load_si512(leaf);
  }

  // The codes of 16 numbers.
  inline __attribute__((always_inline)) __m512i of(__m512 v) const {
    const __m512i one = _mm512_set1_epi32(1), two = _mm512_set1_epi32(2);
    __m512i node = _mm512_mask_add_epi32(two, _mm512_cmp_ps_mask(v, root, _CMP_GT_OQ), two, one);
    for (int64_t depth = 1; depth < bits; ++depth) {
      const __mmask16 above = _mm512_cmp_ps_mask(v, _mm512_permutexvar_ps(node, threshold), _CMP_GT_OQ);
      node = _mm512_add_epi32(node, node);
      node = _mm512_mask_add_epi32(node, above, node, one);
    }
    return _mm512_permutexvar_epi32(node, codes);
  }
};

// Plane after plane of kC vectors of codes, `count` of which are there.
template <int kC>
static inline __attribute__((always_inline)) void store_planes(const __m512i (&code)[kC], int64_t bits, int64_t count,
                                                               uint32_t* to, int64_t stride) {
  const uint64_t valid = count < 64 ? ((uint64_t)1 << count) - 1 : ~(uint64_t)0;
  for (int64_t q = 0; q < bits; ++q, to += stride) {
    const __m512i bit = _mm512_set1_epi32(1 << q);
    uint64_t word = 0;
#pragma GCC unroll 4
    for (int c = 0; c < kC; ++c) {
      word |= (uint64_t)_cvtmask16_u32(_mm512_test_epi32_mask(code[c], bit)) << (c * kLanes);
    }
    word &= valid;
    to[0] = (uint32_t)word;
    if (count > 32) to[1] = (uint32_t)(word >> 32);
  }
}

template <bool kPlanes, int kC>
static void sums_f32(const PairSums& s) {
  const LevelSteps none = {1, &s.lo, (const uint8_t*)"\0\1"};
  const Tree tree(kPlanes ? s.levels : none);
  const __m512 lo = _mm512_set1_ps(s.lo), hi = _mm512_set1_ps(s.hi);
  const int64_t step = s.rows * kBitserialPanel;
  for (int64_t r = 0; r < s.rows; ++r) {
    __m512i code[kC];
#pragma GCC unroll 4
    for (int c = 0; c < kC; ++c) {
      const int64_t j = c * kLanes;
      const __mmask16 m = lanes(s.channels - j);
      const int32_t* dot = s.dots + r * kBitserialPanel + j;
      const float* factor = s.c + j;
      __m512 v = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_loadu_si512(dot)), _mm512_loadu_ps(factor));
      for (int64_t i = 1; i < s.pairs; ++i) {
        dot += step;
        factor += s.c_stride;
        v = _mm512_add_ps(v, _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_loadu_si512(dot)), _mm512_loadu_ps(factor)));
      }
      if (s.bias) v = _mm512_add_ps(v, _mm512_maskz_loadu_ps(m, s.bias + j));
      if (s.residual) v = _mm512_add_ps(v, _mm512_maskz_loadu_ps(m, s.residual + r * s.residual_stride + j));
      v = _mm512_max_ps(lo, v);  // a NaN is the second operand, which is then the result
      v = _mm512_min_ps(hi, v);
      if (s.y) _mm512_mask_storeu_ps((float*)s.y + r * s.ldy + j, m, v);
      if (kPlanes) code[c] = tree.of(v);
    }
    if (kPlanes) store_planes<kC>(code, s.levels.bits, s.channels, s.planes + r * s.ld_planes, s.plane_stride);
  }
}

template <bool kPlanes>
static void sums_of(const PairSums& s) {
  if (s.channels > 48) return sums_f32<kPlanes, 4>(s);
  if (s.channels > 32) return sums_f32<kPlanes, 3>(s);
  if (s.channels > 16) return sums_f32<kPlanes, 2>(s);
  return sums_f32<kPlanes, 1>(s);
}

// The codes of 16 kC numbers, `left` of which are there, as planes.
template <int kC>
static inline __attribute__((always_inline)) void pack_vectors(const PlaneRows& r, const Tree& tree, const float* x,
                                                               int64_t left, uint32_t* to) {
  __m512i code[kC];
#pragma GCC unroll 4
  for (int c = 0; c < kC; ++c) {
    const int64_t at = c * kLanes;
    code[c] = tree.of(_mm512_maskz_loadu_ps(lanes(left - at), x + at));
  }
  store_planes<kC>(code, r.levels.bits, left, to, r.stride);
}

}  // namespace

void pair_sums_f32_avx512(const PairSums& s) noexcept { s.planes ? sums_of<true>(s) : sums_of<false>(s); }

void pair_sums_s32_avx512(const PairSums& s) noexcept {
  const __m128i shift = _mm_cvtsi32_si128(s.shift);
  for (int64_t r = 0; r < s.rows; ++r) {
    for (int64_t j = 0; j < s.channels; j += kLanes) {
      const int32_t *dot = s.dots + r * kBitserialPanel + j, *factor = s.c_s32 + j;
      __m512i sum = _mm512_setzero_si512();
      for (int64_t i = 0; i < s.pairs; ++i, dot += s.rows * kBitserialPanel, factor += s.c_stride) {
        sum = _mm512_add_epi32(sum, _mm512_mullo_epi32(_mm512_loadu_si512(dot), _mm512_loadu_si512(factor)));
      }
      sum = _mm512_sra_epi32(sum, shift);
      _mm512_mask_storeu_epi32((int32_t*)s.y + r * s.ldy + j, lanes(s.channels - j), sum);
    }
  }
}

void pack_levels_avx512(const PlaneRows& r) noexcept {
  const Tree tree(r.levels);
  for (int64_t i = 0; i < r.rows; ++i) {
    const float* x = (const float*)r.x + i * r.ldx;
    uint32_t* to = r.planes + i * r.ld;
    int64_t j = 0;
    for (; j + 32 < r.c; j += 64, to += 2) pack_vectors<4>(r, tree, x + j, r.c - j, to);
    if (r.c - j > 16) {
      pack_vectors<2>(r, tree, x + j, r.c - j, to);
    } else if (r.c > j) {
      pack_vectors<1>(r, tree, x + j, r.c - j, to);
    }
  }
}

void pack_codes_avx512(const PlaneRows& r) noexcept {
  for (int64_t i = 0; i < r.rows; ++i) {
    const uint8_t* x = (const uint8_t*)r.x + i * r.ldx;
    uint32_t* row = r.planes + i * r.ld;
    for (int64_t j = 0; j < r.c; j += 64, row += 2) {
      const int64_t left = r.c - j;
      const __mmask64 valid = left >= 64 ? ~(uint64_t)0 : ((uint64_t)1 << left) - 1;
      const __m512i codes = _mm512_maskz_loadu_epi8(valid, x + j);
      uint32_t* to = row;
      for (int64_t q = 0; q < r.levels.bits; ++q, to += r.stride) {
        const uint64_t word = _cvtmask64_u64(_mm512_test_epi8_mask(codes, _mm512_set1_epi8((char)(1 << q))));
        to[0] = (uint32_t)word;
        if (left > 32) to[1] = (uint32_t)(word >> 32);
      }
    }
  }
}

void unpack_levels_avx512(const LevelRows& r) noexcept {
  const __m512 level = _mm512_maskz_loadu_ps(lanes((int64_t)1 << r.bits), r.level);
  for (int64_t i = 0; i < r.rows; ++i) {
    const uint32_t* words = r.planes + i * r.ld;
    for (int64_t j = 0; j < r.c; j += kLanes) {
      __m512i code = _mm512_setzero_si512();
      for (int64_t q = 0; q < r.bits; ++q) {
        const __mmask16 set = (__mmask16)(words[q * r.stride + j / 32] >> (j % 32));
        code = _mm512_mask_or_epi32(code, set, code, _mm512_set1_epi32(1 << q));
      }
      _mm512_mask_storeu_ps(r.y + i * r.ldy + j, lanes(r.c - j), _mm512_permutexvar_ps(code, level));
    }
  }
}

}  // namespace lowbit

LOWBIT_TARGET_END

#endif
