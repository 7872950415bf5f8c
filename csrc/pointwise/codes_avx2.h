// How codes become floats and floats codes, 32 at a time: codes_avx512.h at half the width.
#pragma once

#include "pointwise/pointwise_kernel.h"

#if LOWBIT_X86
#include <immintrin.h>

LOWBIT_TARGET_BEGIN_AVX2
namespace lowbit::pointwise {

struct Quarters256 {
  __m256 v[4];
};

struct CodeIn256 {
  __m256 shifted_zero, factor;
  __m256i flip;
};

struct CodeOut256 {
  __m256i zero, lo, hi, flip;
  __m256 lowest, highest;
};

static inline CodeIn256 broadcast(const CodeIn& in) {
  return {_mm256_set1_ps(8388608.0f + static_cast<float>(in.zero)), _mm256_set1_ps(in.factor),
          _mm256_set1_epi8(static_cast<char>(in.flip))};
}

static inline CodeOut256 broadcast(const CodeOut& out) {
  return {_mm256_set1_epi16(static_cast<short>(out.zero)),       _mm256_set1_epi8(static_cast<char>(out.lo)),
          _mm256_set1_epi8(static_cast<char>(out.hi)),           _mm256_set1_epi8(static_cast<char>(out.flip)),
          _mm256_set1_ps(static_cast<float>(out.lo - out.zero)), _mm256_set1_ps(static_cast<float>(out.hi - out.zero))};
}

static inline __m256i load_bytes(const uint8_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
static inline void store_bytes(uint8_t* p, __m256i v) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), v); }

static inline Quarters256 differences(__m256i bytes, const CodeIn256& in) {
  const __m256i zero = _mm256_setzero_si256(), top = _mm256_set1_epi16(0x4b00);
  bytes = _mm256_xor_si256(bytes, in.flip);
  const __m256i low = _mm256_unpacklo_epi8(bytes, zero), high = _mm256_unpackhi_epi8(bytes, zero);
  return {{_mm256_sub_ps(_mm256_castsi256_ps(_mm256_unpacklo_epi16(low, top)), in.shifted_zero),
           _mm256_sub_ps(_mm256_castsi256_ps(_mm256_unpackhi_epi16(low, top)), in.shifted_zero),
           _mm256_sub_ps(_mm256_castsi256_ps(_mm256_unpacklo_epi16(high, top)), in.shifted_zero),
           _mm256_sub_ps(_mm256_castsi256_ps(_mm256_unpackhi_epi16(high, top)), in.shifted_zero)}};
}

static inline __m256i saturate_bounded(const Quarters256& f, const CodeOut256& out) {
  const __m256i low = _mm256_packs_epi32(_mm256_cvtps_epi32(f.v[0]), _mm256_cvtps_epi32(f.v[1]));
  const __m256i high = _mm256_packs_epi32(_mm256_cvtps_epi32(f.v[2]), _mm256_cvtps_epi32(f.v[3]));
  const __m256i bytes = _mm256_packus_epi16(_mm256_adds_epi16(low, out.zero), _mm256_adds_epi16(high, out.zero));
  return _mm256_xor_si256(_mm256_min_epu8(_mm256_max_epu8(bytes, out.lo), out.hi), out.flip);
}

static inline __m256i saturate(Quarters256 f, const CodeOut256& out) {
  for (__m256& v : f.v) v = _mm256_min_ps(_mm256_max_ps(v, out.lowest), out.highest);
  return saturate_bounded(f, out);
}

}  // namespace lowbit::pointwise
LOWBIT_TARGET_END
#endif
