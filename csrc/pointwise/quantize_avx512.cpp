// Division is the wall here: vdivps takes 10 cycles for 16 quotients on Golden Cove, 16 on Ice Lake. Four FMAs give the
// same bits. With y = RN(1/s) and z = RN(1/s - y), q = RN(x y + RN(x z)) is faithful (within 0.5 ulp and 2^-23 of one),
// so that r = x - s q is exact in one FMA and RN(q + r y) = RN(x/s) (Markstein 1990, theorem on faithful quotients). It
// needs all of them to be normal numbers, so scales beyond 2^+-60 divide. A quotient too small for that, or a NaN,
// decides nothing: it rounds to 0, or converts to INT_MIN, which saturates to lo; only the upper bound needs a clamp.
#include "pointwise/codes_avx512.h"

#if LOWBIT_X86
LOWBIT_TARGET_BEGIN_AVX512
namespace lowbit::pointwise {

struct Divisor {
  __m512 scale, inverse, rest, highest;  // highest: of x
};

static bool can_invert(float scale) { return scale > 0x1p-60f && scale < 0x1p60f; }

static Divisor divisor(float scale) {
  const float inverse = 1.0f / scale;
  const float rest = static_cast<float>((1.0 - static_cast<double>(inverse) * scale) / scale);
  return {_mm512_set1_ps(scale), _mm512_set1_ps(inverse), _mm512_set1_ps(rest), _mm512_set1_ps(1024.0f * scale)};
}

static inline __m512 divide(__m512 x, const Divisor& d) {
  x = _mm512_min_ps(d.highest, x);  // a NaN stays
  const __m512 q = _mm512_fmadd_ps(x, d.inverse, _mm512_mul_ps(x, d.rest));
  return _mm512_fmadd_ps(_mm512_fnmadd_ps(q, d.scale, x), d.inverse, q);
}

// 64 codes of 64 floats, in the order that the interleaves of packing leave: dword 4 j + k holds codes 16 k + 4 j and
// the next three.
static inline __m512i quantize64_lanes(const float* x, __mmask64 mask, const Divisor& d, const CodeOut512& to) {
  Quarters512 f;
  for (int k = 0; k < 4; ++k) {
    f.v[k] = divide(_mm512_maskz_loadu_ps(static_cast<__mmask16>(mask >> (16 * k)), x + 16 * k), d);
  }
  return saturate_bounded(f, to);
}

static inline __m512i quantize64(const float* x, __mmask64 mask, const Divisor& d, const CodeOut512& to) {
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  return _mm512_permutexvar_epi32(order, quantize64_lanes(x, mask, d, to));
}

void quantize_avx512(const float* x, int64_t n, float scale, const CodeOut& out, uint8_t* q) noexcept {
  if (!can_invert(scale)) return quantize_scalar(x, n, scale, out, q);
  const Divisor d = divisor(scale);
  const CodeOut512 to = broadcast(out);
  int64_t i = 0;
  for (; i + 64 <= n; i += 64) _mm512_storeu_si512(q + i, quantize64(x + i, ~__mmask64{0}, d, to));
  if (i < n) {
    const __mmask64 mask = first_bytes(n - i);
    _mm512_mask_storeu_epi8(q + i, mask, quantize64(x + i, mask, d, to));
  }
}

// Three planes to pixels of three bytes: byte i of the 192 is channel i % 3 of pixel i / 3.
struct Triples {
  alignas(64) uint8_t index[3][64];  // into red (0..63) and green (64..127), or into blue
  uint64_t blue[3];
};

static constexpr Triples make_triples() {
  Triples t = {};
  for (int i = 0; i < 192; ++i) {
    t.index[i / 64][i % 64] = static_cast<uint8_t>(i / 3 + (i % 3 == 1 ? 64 : 0));
    if (i % 3 == 2) t.blue[i / 64] |= uint64_t{1} << i % 64;
  }
  return t;
}

static constexpr Triples kTriples = make_triples();

static inline void store_triples(__m512i r, __m512i g, __m512i b, __mmask64 pixels, uint8_t* q) {
  const int64_t bytes = 3 * static_cast<int64_t>(_mm_popcnt_u64(pixels));
  for (int part = 0; part < 3 && part * 64 < bytes; ++part) {
    const __m512i index = _mm512_load_si512(kTriples.index[part]);
    const __m512i rg = _mm512_permutex2var_epi8(r, index, g);
    const __m512i rgb = _mm512_mask_permutexvar_epi8(rg, kTriples.blue[part], index, b);
    _mm512_mask_storeu_epi8(q + part * 64, first_bytes(bytes - part * 64), rgb);
  }
}

// Three or four planes to pixels of four bytes, of which `channels` marks those to write. The planes come in lanes'
// order, which the interleaves turn into the pixels' own.
static inline void store_fours(const __m512i* planes, __mmask64 channels, __mmask64 pixels, uint8_t* q) {
  const __m512i rg[2] = {_mm512_unpacklo_epi8(planes[0], planes[1]), _mm512_unpackhi_epi8(planes[0], planes[1])};
  const __m512i ba[2] = {_mm512_unpacklo_epi8(planes[2], planes[3]), _mm512_unpackhi_epi8(planes[2], planes[3])};
  const __m512i four[4] = {_mm512_unpacklo_epi16(rg[0], ba[0]), _mm512_unpackhi_epi16(rg[0], ba[0]),
                           _mm512_unpacklo_epi16(rg[1], ba[1]), _mm512_unpackhi_epi16(rg[1], ba[1])};
  const int64_t bytes = 4 * static_cast<int64_t>(_mm_popcnt_u64(pixels));
  for (int k = 0; k < 4 && 64 * k < bytes; ++k) {
    _mm512_mask_storeu_epi8(q + 64 * k, first_bytes(bytes - 64 * k) & channels, four[k]);
  }
}

void quantize_planes_avx512(const float* x, int64_t plane, int64_t c, int64_t pixels, float scale, const CodeOut& out,
                            uint8_t* q, int64_t ldq) noexcept {
  if (!can_invert(scale)) return quantize_planes_scalar(x, plane, c, pixels, scale, out, q, ldq);
  const Divisor d = divisor(scale);
  const CodeOut512 to = broadcast(out);
  for (int64_t i = 0; i < pixels; i += 64) {
    const __mmask64 mask = first_bytes(pixels - i);
    const int64_t count = pixels - i < 64 ? pixels - i : 64;
    if (c == 3 && ldq == 3) {
      store_triples(quantize64(x + i, mask, d, to), quantize64(x + plane + i, mask, d, to),
                    quantize64(x + 2 * plane + i, mask, d, to), mask, q + 3 * i);
      continue;
    }
    if ((c == 3 || c == 4) && ldq == 4) {
      __m512i planes[4] = {};
      for (int j = 0; j < c; ++j) planes[j] = quantize64_lanes(x + j * plane + i, mask, d, to);
      store_fours(planes, c == 4 ? ~__mmask64{0} : 0x7777777777777777u, mask, q + 4 * i);
      continue;
    }
    alignas(64) uint8_t line[64];
    for (int64_t j = 0; j < c; ++j) {
      _mm512_store_si512(line, quantize64(x + j * plane + i, mask, d, to));
      for (int64_t k = 0; k < count; ++k) q[(i + k) * ldq + j] = line[k];
    }
  }
}

bool min_max_avx512(const float* x, int64_t n, float* lo, float* hi) noexcept {
  __m512 low[2] = {_mm512_set1_ps(*lo), _mm512_set1_ps(*lo)}, high[2] = {_mm512_set1_ps(*hi), _mm512_set1_ps(*hi)};
  __mmask16 nan = 0;
  int64_t i = 0;
  for (; i + 32 <= n; i += 32) {
    const __m512 a = _mm512_loadu_ps(x + i), b = _mm512_loadu_ps(x + i + 16);
    nan |= _mm512_cmp_ps_mask(a, b, _CMP_UNORD_Q);
    low[0] = _mm512_min_ps(a, low[0]);
    low[1] = _mm512_min_ps(b, low[1]);
    high[0] = _mm512_max_ps(a, high[0]);
    high[1] = _mm512_max_ps(b, high[1]);
  }
  *lo = _mm512_reduce_min_ps(_mm512_min_ps(low[0], low[1]));
  *hi = _mm512_reduce_max_ps(_mm512_max_ps(high[0], high[1]));
  const bool rest = min_max_scalar(x + i, n - i, lo, hi);
  return nan == 0 && rest;
}

}  // namespace lowbit::pointwise
LOWBIT_TARGET_END
#endif
