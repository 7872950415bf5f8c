// vpmuludq: Philox wants 32 x 32 -> 64 bit products. Eight counters live in the low halves of 64-bit lanes, whose upper
// halves may hold anything, so that a round costs 2 products, 2 shifts and 2 three-way xors for 32 words: 20 cycles per
// 16 elements, of which the rest of the work hides behind the memory.
#include "stochastic/stochastic_kernel.h"
#include "target.h"

#if LOWBIT_X86
#include <immintrin.h>

LOWBIT_TARGET_BEGIN_AVX512_VNNI

namespace lowbit::stochastic {

struct State512 {
  __m512i c[4];
};

// Philox of eight counters.
static inline State512 philox512(__m512i counter, uint32_t counter_high, const Random& random) {
  const __m512i m0 = _mm512_set1_epi64(kMultiplier[0]), m1 = _mm512_set1_epi64(kMultiplier[1]);
  State512 s = {{counter, _mm512_set1_epi64(counter_high), _mm512_set1_epi64(random.stream[0]),
                 _mm512_set1_epi64(random.stream[1])}};
  uint32_t k0 = random.key[0], k1 = random.key[1];
#pragma GCC unroll 10
  for (int round = 0; round < kRounds; ++round) {
    const __m512i p0 = _mm512_mul_epu32(s.c[0], m0), p1 = _mm512_mul_epu32(s.c[2], m1);
    s.c[0] = _mm512_ternarylogic_epi64(_mm512_srli_epi64(p1, 32), s.c[1], _mm512_set1_epi64(k0), 0x96);
    s.c[1] = p1;
    s.c[2] = _mm512_ternarylogic_epi64(_mm512_srli_epi64(p0, 32), s.c[3], _mm512_set1_epi64(k1), 0x96);
    s.c[3] = p0;
    k0 += kWeyl[0];
    k1 += kWeyl[1];
  }
  return s;
}

struct Lanes512 {
  __m512 vq, vv, qq;

  inline void add(__m512 v, __m512 q) {
    vq = _mm512_add_ps(vq, _mm512_mul_ps(v, q));
    vv = _mm512_add_ps(vv, _mm512_mul_ps(v, v));
    qq = _mm512_add_ps(qq, _mm512_mul_ps(q, q));
  }
};

static inline Lanes512 no_lanes512() { return {_mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps()}; }

static inline double sum_lanes512(__m512 v) {
  alignas(64) float lane[kLanes];
  _mm512_store_ps(lane, v);
  double sum = 0;
  for (int64_t l = 0; l < kLanes; ++l) sum += lane[l];
  return sum;
}

static inline void flush512(Lanes512& lanes, Sums& sums) {
  sums.vq += sum_lanes512(lanes.vq);
  sums.vv += sum_lanes512(lanes.vv);
  sums.qq += sum_lanes512(lanes.qq);
  lanes = no_lanes512();
}

static inline __m512 clamp512(__m512 v) {
  return _mm512_min_ps(_mm512_max_ps(v, _mm512_set1_ps(-kTop)), _mm512_set1_ps(kTop));
}

static inline __mmask16 lanes_left(int64_t n) { return n >= 16 ? 0xffff : n <= 0 ? 0 : (__mmask16)((1u << n) - 1); }

static inline __m512i magnitude512(__m512i most, __m512 x) {
  return _mm512_max_epu32(most, _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(0x7fffffff)));
}

static inline void note512(__m512i most, Sums& sums) {
  const uint32_t m = _mm512_reduce_max_epu32(most);
  sums.magnitude = m > sums.magnitude ? m : sums.magnitude;
}

void round_avx512_vnni(const float* x, int64_t first, int64_t n, float inverse, const Random& random, uint8_t* codes,
                       Sums& sums) noexcept {
  const __m512 by = _mm512_set1_ps(inverse);
  const __m512i even = _mm512_setr_epi64(0, 2, 4, 6, 8, 10, 12, 14);
  Lanes512 lanes = no_lanes512();
  __m512i most = _mm512_setzero_si512();
  for (int64_t i = 0; i < n; i += 64) {
    const uint64_t counter = (uint64_t)(first + i) / 4;
    const __m512i e = _mm512_add_epi64(_mm512_set1_epi64((uint32_t)counter), even);
    const __m512i o = _mm512_add_epi64(e, _mm512_set1_epi64(1));
    const State512 low = philox512(e, (uint32_t)(counter >> 32), random);
    const State512 high = philox512(o, (uint32_t)(counter >> 32), random);
#pragma GCC unroll 4
    for (int w = 0; w < 4; ++w) {
      const __mmask16 mask = lanes_left(n - i - 16 * w);
      const __m512i words = _mm512_mask_blend_epi32(0xaaaa, low.c[w], _mm512_slli_epi64(high.c[w], 32));
      const __m512 u = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_srli_epi32(words, 8)), _mm512_set1_ps(0x1p-24f));
      const __m512 value = _mm512_maskz_loadu_ps(mask, x + i + 16 * w);
      const __m512 v = _mm512_mul_ps(value, by), c = clamp512(v);
      const __m512 floor = _mm512_roundscale_ps(c, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
      const __mmask16 up = _mm512_cmp_ps_mask(u, _mm512_sub_ps(c, floor), _CMP_LT_OQ);
      const __m512 q = _mm512_mask_add_ps(floor, up, floor, _mm512_set1_ps(1.0f));
      const __m512i code = _mm512_add_epi32(_mm512_cvttps_epi32(q), _mm512_set1_epi32(128));
      _mm_mask_storeu_epi8(codes + i + 16 * w, mask, _mm512_cvtepi32_epi8(code));
      lanes.add(v, q);
      most = magnitude512(most, value);
    }
    if ((i + 64) % kBlock == 0 || i + 64 >= n) flush512(lanes, sums);
  }
  note512(most, sums);
}

void measure_avx512_vnni(const float* x, int64_t n, float inverse, Sums& sums) noexcept {
  const __m512 by = _mm512_set1_ps(inverse);
  __m512i most = _mm512_setzero_si512();
  for (int64_t begin = 0; begin < n; begin += kBlock) {
    const int64_t end = n - begin < kBlock ? n : begin + kBlock;
    Lanes512 lanes = no_lanes512();
    for (int64_t i = begin; i < end; i += 16) {
      const __m512 value = _mm512_maskz_loadu_ps(lanes_left(end - i), x + i);
      const __m512 v = _mm512_mul_ps(value, by);
      lanes.add(v, _mm512_roundscale_ps(clamp512(v), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
      most = magnitude512(most, value);
    }
    flush512(lanes, sums);
  }
  note512(most, sums);
}

}  // namespace lowbit::stochastic

LOWBIT_TARGET_END
#endif
