// As avx512_vnni, with four counters to a vector and two vectors for 16 lanes.
#include "stochastic/stochastic_kernel.h"
#include "target.h"

#if LOWBIT_X86
#include <immintrin.h>

LOWBIT_TARGET_BEGIN_AVX2

namespace lowbit::stochastic {

struct State256 {
  __m256i c[4];
};

// Philox of four counters, in the low halves of 64-bit lanes.
static inline State256 philox256(__m256i counter, uint32_t counter_high, const Random& random) {
  const __m256i m0 = _mm256_set1_epi64x(kMultiplier[0]), m1 = _mm256_set1_epi64x(kMultiplier[1]);
  State256 s = {{counter, _mm256_set1_epi64x(counter_high), _mm256_set1_epi64x(random.stream[0]),
                 _mm256_set1_epi64x(random.stream[1])}};
  uint32_t k0 = random.key[0], k1 = random.key[1];
  for (int round = 0; round < kRounds; ++round) {
    const __m256i p0 = _mm256_mul_epu32(s.c[0], m0), p1 = _mm256_mul_epu32(s.c[2], m1);
    s.c[0] = _mm256_xor_si256(_mm256_xor_si256(_mm256_srli_epi64(p1, 32), s.c[1]), _mm256_set1_epi64x(k0));
    s.c[1] = p1;
    s.c[2] = _mm256_xor_si256(_mm256_xor_si256(_mm256_srli_epi64(p0, 32), s.c[3]), _mm256_set1_epi64x(k1));
    s.c[3] = p0;
    k0 += kWeyl[0];
    k1 += kWeyl[1];
  }
  return s;
}

struct Lanes256 {
  __m256 vq[2], vv[2], qq[2];

  inline void add(int half, __m256 v, __m256 q) {
    vq[half] = _mm256_add_ps(vq[half], _mm256_mul_ps(v, q));
    vv[half] = _mm256_add_ps(vv[half], _mm256_mul_ps(v, v));
    qq[half] = _mm256_add_ps(qq[half], _mm256_mul_ps(q, q));
  }
};

static inline Lanes256 no_lanes256() {
  const __m256 z = _mm256_setzero_ps();
  return {{z, z}, {z, z}, {z, z}};
}

static inline double sum_lanes256(const __m256* v) {
  alignas(32) float lane[kLanes];
  _mm256_store_ps(lane, v[0]);
  _mm256_store_ps(lane + 8, v[1]);
  double sum = 0;
  for (int64_t l = 0; l < kLanes; ++l) sum += lane[l];
  return sum;
}

static inline void flush256(Lanes256& lanes, Sums& sums) {
  sums.vq += sum_lanes256(lanes.vq);
  sums.vv += sum_lanes256(lanes.vv);
  sums.qq += sum_lanes256(lanes.qq);
  lanes = no_lanes256();
}

static inline __m256 clamp256(__m256 v) {
  return _mm256_min_ps(_mm256_max_ps(v, _mm256_set1_ps(-kTop)), _mm256_set1_ps(kTop));
}

static inline __m256 load256(const float* x, int64_t n) {
  if (n >= 8) return _mm256_loadu_ps(x);
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return _mm256_maskload_ps(x, _mm256_cmpgt_epi32(_mm256_set1_epi32((int)(n > 0 ? n : 0)), lane));
}

static inline __m256i magnitude256(__m256i most, __m256 x) {
  return _mm256_max_epu32(most, _mm256_and_si256(_mm256_castps_si256(x), _mm256_set1_epi32(0x7fffffff)));
}

static inline void note256(__m256i most, Sums& sums) {
  alignas(32) uint32_t lane[8];
  _mm256_store_si256((__m256i*)lane, most);
  for (int l = 0; l < 8; ++l) sums.magnitude = lane[l] > sums.magnitude ? lane[l] : sums.magnitude;
}

// 8 whole numbers as bytes, 128 added.
static inline void store_codes256(uint8_t* to, int64_t n, __m256 q) {
  const __m256i wide = _mm256_add_epi32(_mm256_cvttps_epi32(q), _mm256_set1_epi32(128));
  const __m128i words = _mm_packus_epi32(_mm256_castsi256_si128(wide), _mm256_extracti128_si256(wide, 1));
  const __m128i bytes = _mm_packus_epi16(words, words);
  if (n >= 8) {
    _mm_storel_epi64((__m128i*)to, bytes);
    return;
  }
  alignas(16) uint8_t code[16];
  _mm_store_si128((__m128i*)code, bytes);
  for (int64_t k = 0; k < n; ++k) to[k] = code[k];
}

void round_avx2(const float* x, int64_t first, int64_t n, float inverse, const Random& random, uint8_t* codes,
                Sums& sums) noexcept {
  const __m256 by = _mm256_set1_ps(inverse);
  Lanes256 lanes = no_lanes256();
  __m256i most = _mm256_setzero_si256();
  for (int64_t i = 0; i < n; i += 64) {
    const uint64_t counter = (uint64_t)(first + i) / 4;
    for (int half = 0; half < 2; ++half) {
      const __m256i base = _mm256_set1_epi64x((uint32_t)counter + 8 * half);
      const State256 low = philox256(_mm256_add_epi64(base, _mm256_setr_epi64x(0, 2, 4, 6)), counter >> 32, random);
      const State256 high = philox256(_mm256_add_epi64(base, _mm256_setr_epi64x(1, 3, 5, 7)), counter >> 32, random);
      for (int w = 0; w < 4; ++w) {
        const int64_t at = i + 16 * w + 8 * half;
        const __m256i words = _mm256_blend_epi32(low.c[w], _mm256_slli_epi64(high.c[w], 32), 0xaa);
        const __m256 u = _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_srli_epi32(words, 8)), _mm256_set1_ps(0x1p-24f));
        const __m256 value = load256(x + at, n - at);
        const __m256 v = _mm256_mul_ps(value, by), c = clamp256(v), floor = _mm256_floor_ps(c);
        const __m256 up = _mm256_cmp_ps(u, _mm256_sub_ps(c, floor), _CMP_LT_OQ);
        const __m256 q = _mm256_add_ps(floor, _mm256_and_ps(up, _mm256_set1_ps(1.0f)));
        store_codes256(codes + at, n - at, q);
        lanes.add(half, v, q);
        most = magnitude256(most, value);
      }
    }
    if ((i + 64) % kBlock == 0 || i + 64 >= n) flush256(lanes, sums);
  }
  note256(most, sums);
}

void measure_avx2(const float* x, int64_t n, float inverse, Sums& sums) noexcept {
  const __m256 by = _mm256_set1_ps(inverse);
  __m256i most = _mm256_setzero_si256();
  for (int64_t begin = 0; begin < n; begin += kBlock) {
    const int64_t end = n - begin < kBlock ? n : begin + kBlock;
    Lanes256 lanes = no_lanes256();
    for (int64_t i = begin; i < end; i += 16) {
      for (int half = 0; half < 2; ++half) {
        const __m256 value = load256(x + i + 8 * half, end - i - 8 * half);
        const __m256 v = _mm256_mul_ps(value, by);
        const __m256 q = _mm256_round_ps(clamp256(v), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
        lanes.add(half, v, q);
        most = magnitude256(most, value);
      }
    }
    flush256(lanes, sums);
  }
  note256(most, sums);
}

}  // namespace lowbit::stochastic

LOWBIT_TARGET_END
#endif
