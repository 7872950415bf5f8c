// The AVX-512 variant at half the width. Channels beyond the last full vector go through the scalar variant, as a
// narrower row.
#include <math.h>

#include "pointwise/codes_avx2.h"

#if LOWBIT_X86
LOWBIT_TARGET_BEGIN_AVX2
namespace lowbit::pointwise {

// The row's channels from `done` on, elements of `size` bytes.
static PoolRow remaining(PoolRow row, int64_t done, int64_t size) {
  row.x = static_cast<const uint8_t*>(row.x) + done * size;
  row.y = static_cast<uint8_t*>(row.y) + done * size;
  row.c -= done;
  return row;
}

static inline __m256i window_max(const uint8_t* x, int64_t rows, int64_t row_step, int64_t taps, int64_t tap_step,
                                 bool is_signed) {
  __m256i m = _mm256_set1_epi8(is_signed ? -128 : 0);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t t = 0; t < taps; ++t) {
      const __m256i v = load_bytes(x + r * row_step + t * tap_step);
      m = is_signed ? _mm256_max_epi8(m, v) : _mm256_max_epu8(m, v);
    }
  }
  return m;
}

// is_signed is a constant where this is inlined.
static inline void max_pool_bytes(const PoolRow& row, int64_t channels, bool is_signed) {
  for (int64_t ox = 0; ox < row.out_w; ++ox) {
    const PoolColumn& column = row.columns[ox];
    const uint8_t* window = static_cast<const uint8_t*>(row.x) + column.first * row.pixel_step;
    uint8_t* y = static_cast<uint8_t*>(row.y) + ox * row.y_step;
    for (int64_t j = 0; j < channels; j += 32) {
      const bool full = row.rows == 3 && column.taps == 3;  // the usual window, unrolled
      store_bytes(y + j, full ? window_max(window + j, 3, row.row_step, 3, row.tap_step, is_signed)
                              : window_max(window + j, row.rows, row.row_step, column.taps, row.tap_step, is_signed));
    }
  }
}

void max_pool_u8_avx2(const PoolRow& row) noexcept {
  const int64_t full = row.c / 32 * 32;
  max_pool_bytes(row, full, false);
  if (full < row.c) max_pool_u8_scalar(remaining(row, full, 1));
}

void max_pool_s8_avx2(const PoolRow& row) noexcept {
  const int64_t full = row.c / 32 * 32;
  max_pool_bytes(row, full, true);
  if (full < row.c) max_pool_s8_scalar(remaining(row, full, 1));
}

void max_pool_f32_avx2(const PoolRow& row) noexcept {
  const int64_t full = row.c / 8 * 8;
  for (int64_t ox = 0; ox < row.out_w; ++ox) {
    const PoolColumn& column = row.columns[ox];
    const float* window = static_cast<const float*>(row.x) + column.first * row.pixel_step;
    float* y = static_cast<float*>(row.y) + ox * row.y_step;
    for (int64_t j = 0; j < full; j += 8) {
      __m256 m = _mm256_set1_ps(-HUGE_VALF);
      for (int64_t r = 0; r < row.rows; ++r) {
        const float* x = window + r * row.row_step + j;
        for (int64_t t = 0; t < column.taps; ++t, x += row.tap_step) m = _mm256_max_ps(_mm256_loadu_ps(x), m);
      }
      _mm256_storeu_ps(y + j, m);
    }
  }
  if (full < row.c) max_pool_f32_scalar(remaining(row, full, 4));
}

static inline __m256 divisor(const PoolRow& row, const PoolColumn& column) {
  const int64_t count = row.count * column.count;
  return _mm256_set1_ps(static_cast<float>(count > 1 ? count : 1));
}

struct Sums {
  __m256i word[2], total[4];
};

static inline void flush(Sums& s) {
  const __m256i zero = _mm256_setzero_si256();
  s.total[0] = _mm256_add_epi32(s.total[0], _mm256_unpacklo_epi16(s.word[0], zero));
  s.total[1] = _mm256_add_epi32(s.total[1], _mm256_unpackhi_epi16(s.word[0], zero));
  s.total[2] = _mm256_add_epi32(s.total[2], _mm256_unpacklo_epi16(s.word[1], zero));
  s.total[3] = _mm256_add_epi32(s.total[3], _mm256_unpackhi_epi16(s.word[1], zero));
  s.word[0] = s.word[1] = zero;
}

// Sums over a window's taps of 32 channels of bytes, in the order of codes_avx2.h.
static inline Sums window_sums(const uint8_t* window, const PoolRow& row, int32_t taps, __m256i flip) {
  const __m256i zero = _mm256_setzero_si256();
  Sums s = {{zero, zero}, {zero, zero, zero, zero}};
  int room = 257;  // 257 * 255 = 2^16 - 1
  for (int64_t r = 0; r < row.rows; ++r) {
    const uint8_t* x = window + r * row.row_step;
    for (int64_t t = 0; t < taps; ++t, x += row.tap_step) {
      const __m256i bytes = _mm256_xor_si256(load_bytes(x), flip);
      s.word[0] = _mm256_add_epi16(s.word[0], _mm256_unpacklo_epi8(bytes, zero));
      s.word[1] = _mm256_add_epi16(s.word[1], _mm256_unpackhi_epi8(bytes, zero));
      if (--room == 0) {
        flush(s);
        room = 257;
      }
    }
  }
  flush(s);
  return s;
}

void average_pool_codes_avx2(const PoolRow& row, const CodeIn& in, const CodeOut& out) noexcept {
  const __m256i flip = _mm256_set1_epi8(static_cast<char>(in.flip));
  const CodeOut256 to = broadcast(out);
  const __m256 factor = _mm256_set1_ps(in.factor);
  const int64_t full = row.c / 32 * 32;
  for (int64_t ox = 0; ox < row.out_w; ++ox) {
    const PoolColumn& column = row.columns[ox];
    const uint8_t* window = static_cast<const uint8_t*>(row.x) + column.first * row.pixel_step;
    uint8_t* y = static_cast<uint8_t*>(row.y) + ox * row.y_step;
    const __m256i zeros = _mm256_set1_epi32(static_cast<int32_t>(row.rows * column.taps * in.zero));
    const __m256 count = divisor(row, column);
    for (int64_t j = 0; j < full; j += 32) {
      const Sums s = window_sums(window + j, row, column.taps, flip);
      Quarters256 f;
      for (int k = 0; k < 4; ++k) {
        const __m256 sum = _mm256_cvtepi32_ps(_mm256_sub_epi32(s.total[k], zeros));
        f.v[k] = _mm256_div_ps(_mm256_mul_ps(sum, factor), count);
      }
      store_bytes(y + j, saturate(f, to));
    }
  }
  if (full < row.c) average_pool_codes_scalar(remaining(row, full, 1), in, out);
}

// The sums take the time: their multiplication stays scalar.
void average_pool_fixed_avx2(const PoolRow& row, const CodeIn& in, const CodeOut& out, const FixedPoint* ratio,
                             Rounding rounding) noexcept {
  const __m256i flip = _mm256_set1_epi8(static_cast<char>(in.flip));
  const int64_t full = row.c / 32 * 32;
  for (int64_t ox = 0; ox < row.out_w; ++ox) {
    const PoolColumn& column = row.columns[ox];
    const uint8_t* window = static_cast<const uint8_t*>(row.x) + column.first * row.pixel_step;
    uint8_t* y = static_cast<uint8_t*>(row.y) + ox * row.y_step;
    const __m256i zeros = _mm256_set1_epi32(static_cast<int32_t>(row.rows * column.taps * in.zero));
    const int64_t count = row.count * column.count;
    for (int64_t j = 0; j < full; j += 32) {
      const Sums s = window_sums(window + j, row, column.taps, flip);
      alignas(32) int32_t sums[32];
      for (int k = 0; k < 4; ++k) {
        const __m256i sum = _mm256_sub_epi32(s.total[k], zeros);
        _mm_store_si128(reinterpret_cast<__m128i*>(sums + 4 * k), _mm256_castsi256_si128(sum));
        _mm_store_si128(reinterpret_cast<__m128i*>(sums + 16 + 4 * k), _mm256_extracti128_si256(sum, 1));
      }
      means_fixed_scalar(sums, 32, count, out, ratio, rounding, y + j);
    }
  }
  if (full < row.c) average_pool_fixed_scalar(remaining(row, full, 1), in, out, ratio, rounding);
}

void average_pool_f32_avx2(const PoolRow& row) noexcept {
  const int64_t full = row.c / 8 * 8;
  for (int64_t ox = 0; ox < row.out_w; ++ox) {
    const PoolColumn& column = row.columns[ox];
    const float* window = static_cast<const float*>(row.x) + column.first * row.pixel_step;
    float* y = static_cast<float*>(row.y) + ox * row.y_step;
    for (int64_t j = 0; j < full; j += 8) {
      __m256 sum = _mm256_setzero_ps();
      for (int64_t r = 0; r < row.rows; ++r) {
        const float* x = window + r * row.row_step + j;
        for (int64_t t = 0; t < column.taps; ++t, x += row.tap_step) sum = _mm256_add_ps(sum, _mm256_loadu_ps(x));
      }
      _mm256_storeu_ps(y + j, _mm256_div_ps(sum, divisor(row, column)));
    }
  }
  if (full < row.c) average_pool_f32_scalar(remaining(row, full, 4));
}

}  // namespace lowbit::pointwise
LOWBIT_TARGET_END
#endif
