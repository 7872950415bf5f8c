// How codes become floats and floats codes, 64 at a time. The file opens its own region.
//
// Unpacking is by two rounds of in-lane interleaves, the second with 0x4b00, so that a dword is the float 2^23 + byte
// and one subtraction of 2^23 + zero gives float(byte - zero) exactly, without a conversion. Packing interleaves back,
// so that the lanes' order cancels and no permutation is needed. Four vectors hold 64 elements in that order
// ("quarters").
#pragma once

#include "pointwise/pointwise_kernel.h"

#if LOWBIT_X86
#include <immintrin.h>

LOWBIT_TARGET_BEGIN_AVX512
namespace lowbit::pointwise {

struct Quarters512 {
  __m512 v[4];
};

struct CodeIn512 {
  __m512 shifted_zero, factor;
  __m512i flip;
};

struct CodeOut512 {
  __m512i zero, lo, hi, flip;
  __m512 lowest, highest;  // of the float before rounding: lo - zero, hi - zero
};

static inline __mmask64 first_bytes(int64_t n) {
  return n >= 64 ? ~__mmask64{0} : _bzhi_u64(~0ull, static_cast<unsigned>(n));
}

static inline CodeIn512 broadcast(const CodeIn& in) {
  return {_mm512_set1_ps(8388608.0f + static_cast<float>(in.zero)), _mm512_set1_ps(in.factor),
          _mm512_set1_epi8(static_cast<char>(in.flip))};
}

static inline CodeOut512 broadcast(const CodeOut& out) {
  return {_mm512_set1_epi16(static_cast<short>(out.zero)),       _mm512_set1_epi8(static_cast<char>(out.lo)),
          _mm512_set1_epi8(static_cast<char>(out.hi)),           _mm512_set1_epi8(static_cast<char>(out.flip)),
          _mm512_set1_ps(static_cast<float>(out.lo - out.zero)), _mm512_set1_ps(static_cast<float>(out.hi - out.zero))};
}

// float(byte - zero)
static inline Quarters512 differences(__m512i bytes, const CodeIn512& in) {
  const __m512i zero = _mm512_setzero_si512(), top = _mm512_set1_epi16(0x4b00);
  bytes = _mm512_xor_si512(bytes, in.flip);
  const __m512i low = _mm512_unpacklo_epi8(bytes, zero), high = _mm512_unpackhi_epi8(bytes, zero);
  return {{_mm512_sub_ps(_mm512_castsi512_ps(_mm512_unpacklo_epi16(low, top)), in.shifted_zero),
           _mm512_sub_ps(_mm512_castsi512_ps(_mm512_unpackhi_epi16(low, top)), in.shifted_zero),
           _mm512_sub_ps(_mm512_castsi512_ps(_mm512_unpacklo_epi16(high, top)), in.shifted_zero),
           _mm512_sub_ps(_mm512_castsi512_ps(_mm512_unpackhi_epi16(high, top)), in.shifted_zero)}};
}

// Rounds, adds the zero point and clamps, by saturation: for |f| < 2^30, no NaN.
static inline __m512i saturate_bounded(const Quarters512& f, const CodeOut512& out) {
  const __m512i low = _mm512_packs_epi32(_mm512_cvtps_epi32(f.v[0]), _mm512_cvtps_epi32(f.v[1]));
  const __m512i high = _mm512_packs_epi32(_mm512_cvtps_epi32(f.v[2]), _mm512_cvtps_epi32(f.v[3]));
  const __m512i bytes = _mm512_packus_epi16(_mm512_adds_epi16(low, out.zero), _mm512_adds_epi16(high, out.zero));
  return _mm512_xor_si512(_mm512_min_epu8(_mm512_max_epu8(bytes, out.lo), out.hi), out.flip);
}

// The same for every float: a NaN becomes lo.
static inline __m512i saturate(Quarters512 f, const CodeOut512& out) {
  for (__m512& v : f.v) v = _mm512_min_ps(_mm512_max_ps(v, out.lowest), out.highest);
  return saturate_bounded(f, out);
}

}  // namespace lowbit::pointwise
LOWBIT_TARGET_END
#endif
