// Sums of dots eight channels at a time; codes by counting the thresholds below a number, then pshufb as their table;
// movmskps and pmovmskb make bits of them.
#include "target.h"
#include "xnor/bitserial_kernel.h"

#if LOWBIT_X86
#include <immintrin.h>
#include <stdint.h>

LOWBIT_TARGET_BEGIN_AVX2

namespace lowbit {
namespace {

constexpr int kLanes = 8;

struct Steps {
  const float* threshold;
  int64_t count, bits;
  __m256i codes;

  explicit Steps(const LevelSteps& s) : threshold(s.threshold), count(((int64_t)1 << s.bits) - 1), bits(s.bits) {
    alignas(16) uint8_t table[16] = {};
    for (int64_t i = 0; i <= count; ++i) table[i] = s.codes[i];
    codes = _mm256_broadcastsi128_si256(_mm_load_si128((const __m128i*)table));
  }

  // The codes of eight numbers, in the lowest byte of each lane.
  inline __attribute__((always_inline)) __m256i of(__m256 v) const {
    __m256i above = _mm256_setzero_si256();
    for (int64_t i = 0; i < count; ++i) {
      const __m256 greater = _mm256_cmp_ps(v, _mm256_broadcast_ss(threshold + i), _CMP_GT_OQ);
      above = _mm256_sub_epi32(above, _mm256_castps_si256(greater));
    }
    return _mm256_shuffle_epi8(codes, above);
  }
};

// Plane after plane of 32 codes, `count` of which are there, one word each.
static inline __attribute__((always_inline)) void store_planes(const __m256i (&code)[4], int64_t bits, int64_t count,
                                                               uint32_t* to, int64_t stride) {
  const uint32_t valid = count < 32 ? (1u << count) - 1 : ~0u;
  for (int64_t q = 0; q < bits; ++q, to += stride) {
    const __m128i shift = _mm_cvtsi32_si128((int)(31 - q));
    uint32_t word = 0;
#pragma GCC unroll 4
    for (int c = 0; c < 4; ++c) {
      const __m256i top = _mm256_sll_epi32(code[c], shift);
      word |= (uint32_t)_mm256_movemask_ps(_mm256_castsi256_ps(top)) << (c * kLanes);
    }
    *to = word & valid;
  }
}

// Eight numbers of a row of `left`, zeros behind.
static inline __m256 load(const float* x, int64_t left) {
  if (left >= kLanes) return _mm256_loadu_ps(x);
  alignas(32) float rest[kLanes] = {};
  for (int64_t l = 0; l < left; ++l) rest[l] = x[l];
  return _mm256_load_ps(rest);
}

}  // namespace

void pair_sums_f32_avx2(const PairSums& s) noexcept {
  const LevelSteps none = {1, &s.lo, (const uint8_t*)"\0\1"};
  const Steps steps(s.planes ? s.levels : none);
  const __m256 lo = _mm256_set1_ps(s.lo), hi = _mm256_set1_ps(s.hi);
  for (int64_t r = 0; r < s.rows; ++r) {
    for (int64_t first = 0; first < s.channels; first += 32) {
      __m256i code[4];
#pragma GCC unroll 4
      for (int c = 0; c < 4; ++c) {
        const int64_t j = first + c * kLanes, left = s.channels - j;
        const int32_t* dot = s.dots + r * kBitserialPanel + j;
        const float* factor = s.c + j;
        __m256 v = _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_loadu_si256((const __m256i*)dot)), _mm256_loadu_ps(factor));
        for (int64_t i = 1; i < s.pairs; ++i) {
          dot += s.rows * kBitserialPanel;
          factor += s.c_stride;
          const __m256 d = _mm256_cvtepi32_ps(_mm256_loadu_si256((const __m256i*)dot));
          v = _mm256_add_ps(v, _mm256_mul_ps(d, _mm256_loadu_ps(factor)));
        }
        if (s.bias) v = _mm256_add_ps(v, load(s.bias + j, left));
        if (s.residual) v = _mm256_add_ps(v, load(s.residual + r * s.residual_stride + j, left));
        v = _mm256_max_ps(lo, v);  // a NaN is the second operand, which is then the result
        v = _mm256_min_ps(hi, v);
        code[c] = steps.of(v);
        if (!s.y) continue;
        float* y = (float*)s.y + r * s.ldy + j;
        if (left >= kLanes) {
          _mm256_storeu_ps(y, v);
        } else {
          alignas(32) float rest[kLanes];
          _mm256_store_ps(rest, v);
          for (int64_t l = 0; l < left; ++l) y[l] = rest[l];
        }
      }
      if (s.planes) {
        uint32_t* to = s.planes + r * s.ld_planes + first / 32;
        store_planes(code, s.levels.bits, s.channels - first, to, s.plane_stride);
      }
    }
  }
}

void pair_sums_s32_avx2(const PairSums& s) noexcept {
  const __m128i shift = _mm_cvtsi32_si128(s.shift);
  for (int64_t r = 0; r < s.rows; ++r) {
    for (int64_t j = 0; j < s.channels; j += kLanes) {
      const int32_t *dot = s.dots + r * kBitserialPanel + j, *factor = s.c_s32 + j;
      __m256i sum = _mm256_setzero_si256();
      for (int64_t i = 0; i < s.pairs; ++i, dot += s.rows * kBitserialPanel, factor += s.c_stride) {
        const __m256i d = _mm256_loadu_si256((const __m256i*)dot), c = _mm256_loadu_si256((const __m256i*)factor);
        sum = _mm256_add_epi32(sum, _mm256_mullo_epi32(d, c));
      }
      sum = _mm256_sra_epi32(sum, shift);
      int32_t* y = (int32_t*)s.y + r * s.ldy + j;
      if (s.channels - j >= kLanes) {
        _mm256_storeu_si256((__m256i*)y, sum);
      } else {
        alignas(32) int32_t rest[kLanes];
        _mm256_store_si256((__m256i*)rest, sum);
        for (int64_t l = 0; l < s.channels - j; ++l) y[l] = rest[l];
      }
    }
  }
}

void pack_levels_avx2(const PlaneRows& r) noexcept {
  const Steps steps(r.levels);
  for (int64_t i = 0; i < r.rows; ++i) {
    const float* x = (const float*)r.x + i * r.ldx;
    for (int64_t j = 0; j < r.c; j += 32) {
      __m256i code[4];
#pragma GCC unroll 4
      for (int c = 0; c < 4; ++c) code[c] = steps.of(load(x + j + c * kLanes, r.c - j - c * kLanes));
      store_planes(code, r.levels.bits, r.c - j, r.planes + i * r.ld + j / 32, r.stride);
    }
  }
}

void pack_codes_avx2(const PlaneRows& r) noexcept {
  for (int64_t i = 0; i < r.rows; ++i) {
    const uint8_t* x = (const uint8_t*)r.x + i * r.ldx;
    for (int64_t j = 0; j < r.c; j += 32) {
      alignas(32) uint8_t rest[32] = {};
      const uint8_t* from = x + j;
      if (r.c - j < 32) {
        __builtin_memcpy(rest, from, (uint64_t)(r.c - j));
        from = rest;
      }
      const __m256i codes = _mm256_loadu_si256((const __m256i*)from);
      uint32_t* to = r.planes + i * r.ld + j / 32;
      for (int64_t q = 0; q < r.levels.bits; ++q, to += r.stride) {
        const __m256i top = _mm256_sll_epi16(codes, _mm_cvtsi32_si128((int)(7 - q)));  // a byte's bit q to its top
        *to = (uint32_t)_mm256_movemask_epi8(top);
      }
    }
  }
}

void unpack_levels_avx2(const LevelRows& r) noexcept {
  alignas(32) float table[16] = {};
  for (int64_t i = 0; i < (int64_t)1 << r.bits; ++i) table[i] = r.level[i];
  const __m256 low = _mm256_load_ps(table), high = _mm256_load_ps(table + kLanes);
  const __m256i own = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
  for (int64_t i = 0; i < r.rows; ++i) {
    const uint32_t* words = r.planes + i * r.ld;
    float* y = r.y + i * r.ldy;
    for (int64_t j = 0; j < r.c; j += kLanes) {
      __m256i code = _mm256_setzero_si256();
      for (int64_t q = 0; q < r.bits; ++q) {
        const __m256i bits = _mm256_set1_epi32((int)(words[q * r.stride + j / 32] >> (j % 32)));
        const __m256i set = _mm256_cmpeq_epi32(_mm256_and_si256(bits, own), own);
        code = _mm256_or_si256(code, _mm256_and_si256(set, _mm256_set1_epi32(1 << q)));
      }
      const __m256 upper = _mm256_castsi256_ps(_mm256_slli_epi32(code, 28));  // bit 3 on top: blendv's choice
      const __m256 v =
          _mm256_blendv_ps(_mm256_permutevar8x32_ps(low, code), _mm256_permutevar8x32_ps(high, code), upper);
      if (r.c - j >= kLanes) {
        _mm256_storeu_ps(y + j, v);
      } else {
        alignas(32) float rest[kLanes];
        _mm256_store_ps(rest, v);
        for (int64_t l = 0; l < r.c - j; ++l) y[j + l] = rest[l];
      }
    }
  }
}

}  // namespace lowbit

LOWBIT_TARGET_END

#endif
