// The AVX-512 variant at half the width: see there why FMAs divide exactly.
#include "pointwise/codes_avx2.h"

#if LOWBIT_X86
LOWBIT_TARGET_BEGIN_AVX2
namespace lowbit::pointwise {

struct Divisor {
  __m256 scale, inverse, rest, highest;
};

static bool can_invert(float scale) { return scale > 0x1p-60f && scale < 0x1p60f; }

static Divisor divisor(float scale) {
  const float inverse = 1.0f / scale;
  const float rest = static_cast<float>((1.0 - static_cast<double>(inverse) * scale) / scale);
  return {_mm256_set1_ps(scale), _mm256_set1_ps(inverse), _mm256_set1_ps(rest), _mm256_set1_ps(1024.0f * scale)};
}

static inline __m256 divide(__m256 x, const Divisor& d) {
  x = _mm256_min_ps(d.highest, x);
  const __m256 q = _mm256_fmadd_ps(x, d.inverse, _mm256_mul_ps(x, d.rest));
  return _mm256_fmadd_ps(_mm256_fnmadd_ps(q, d.scale, x), d.inverse, q);
}

static inline __m256i quantize32(const float* x, const Divisor& d, const CodeOut256& to) {
  Quarters256 f;
  for (int k = 0; k < 4; ++k) f.v[k] = divide(_mm256_loadu_ps(x + 8 * k), d);
  return _mm256_permutevar8x32_epi32(saturate_bounded(f, to), _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}

void quantize_avx2(const float* x, int64_t n, float scale, const CodeOut& out, uint8_t* q) noexcept {
  int64_t i = 0;
  if (can_invert(scale)) {
    const Divisor d = divisor(scale);
    const CodeOut256 to = broadcast(out);
    for (; i + 32 <= n; i += 32) store_bytes(q + i, quantize32(x + i, d, to));
  }
  quantize_scalar(x + i, n - i, scale, out, q + i);
}

// 32 pixels of three bytes: a shuffle for each plane and 16 bytes, within the two lanes of 16 pixels. Byte i of the 48
// is channel i % 3 of pixel i / 3.
struct Triples {
  alignas(
      16) int8_t index[3][3][16];  // of bytes [16 part, 16 part + 16), into plane j; -1 where another plane's byte goes
};

static constexpr Triples make_triples() {
  Triples t = {};
  for (int part = 0; part < 3; ++part) {
    for (int j = 0; j < 3; ++j) {
      for (int i = 0; i < 16; ++i) {
        const int at = 16 * part + i;
        t.index[part][j][i] = static_cast<int8_t>(at % 3 == j ? at / 3 : -1);
      }
    }
  }
  return t;
}

static constexpr Triples kTriples = make_triples();

static inline void store_triples(__m256i r, __m256i g, __m256i b, uint8_t* q) {
  const __m256i planes[3] = {r, g, b};
  for (int part = 0; part < 3; ++part) {
    __m256i bytes = _mm256_setzero_si256();
    for (int j = 0; j < 3; ++j) {
      const __m128i index = _mm_load_si128(reinterpret_cast<const __m128i*>(kTriples.index[part][j]));
      bytes = _mm256_or_si256(bytes, _mm256_shuffle_epi8(planes[j], _mm256_broadcastsi128_si256(index)));
    }
    _mm_storeu_si128(reinterpret_cast<__m128i*>(q + part * 16), _mm256_castsi256_si128(bytes));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(q + 48 + part * 16), _mm256_extracti128_si256(bytes, 1));
  }
}

void quantize_planes_avx2(const float* x, int64_t plane, int64_t c, int64_t pixels, float scale, const CodeOut& out,
                          uint8_t* q, int64_t ldq) noexcept {
  int64_t i = 0;
  if (can_invert(scale)) {
    const Divisor d = divisor(scale);
    const CodeOut256 to = broadcast(out);
    for (; i + 32 <= pixels; i += 32) {
      if (c == 3 && ldq == 3) {
        store_triples(quantize32(x + i, d, to), quantize32(x + plane + i, d, to), quantize32(x + 2 * plane + i, d, to),
                      q + 3 * i);
        continue;
      }
      for (int64_t j = 0; j < c; ++j) {
        uint8_t line[32];
        store_bytes(line, quantize32(x + j * plane + i, d, to));
        for (int64_t k = 0; k < 32; ++k) q[(i + k) * ldq + j] = line[k];
      }
    }
  }
  quantize_planes_scalar(x + i, plane, c, pixels - i, scale, out, q + i * ldq, ldq);
}

void dequantize_avx2(const uint8_t* q, int64_t n, const CodeIn& in, float* x) noexcept {
  const __m256 factor = _mm256_set1_ps(in.factor);
  const __m256i zero = _mm256_set1_epi32(in.zero), flip = _mm256_set1_epi32(in.flip);
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(q + i));
    const __m256i code = _mm256_xor_si256(_mm256_cvtepu8_epi32(bytes), flip);
    _mm256_storeu_ps(x + i, _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_sub_epi32(code, zero)), factor));
  }
  dequantize_scalar(q + i, n - i, in, x + i);
}

bool min_max_avx2(const float* x, int64_t n, float* lo, float* hi) noexcept {
  __m256 low = _mm256_set1_ps(*lo), high = _mm256_set1_ps(*hi), nan = _mm256_setzero_ps();
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) {
    const __m256 a = _mm256_loadu_ps(x + i), b = _mm256_loadu_ps(x + i + 8);
    nan = _mm256_or_ps(nan, _mm256_cmp_ps(a, b, _CMP_UNORD_Q));
    low = _mm256_min_ps(a, _mm256_min_ps(b, low));
    high = _mm256_max_ps(a, _mm256_max_ps(b, high));
  }
  float lows[8], highs[8];
  _mm256_storeu_ps(lows, low);
  _mm256_storeu_ps(highs, high);
  bool numbers = _mm256_movemask_ps(nan) == 0;
  for (int k = 0; k < 8; ++k) {
    *lo = lows[k] < *lo ? lows[k] : *lo;
    *hi = highs[k] > *hi ? highs[k] : *hi;
  }
  numbers &= min_max_scalar(x + i, n - i, lo, hi);
  return numbers;
}

}  // namespace lowbit::pointwise
LOWBIT_TARGET_END
#endif
