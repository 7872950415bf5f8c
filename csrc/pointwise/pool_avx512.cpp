// Lanes are channels, so that a window is one pass over its taps: a load and a maximum each; for averages bytes are
// widened to 16 bits by interleaving and summed there, up to 257 of them, before they go to 32 bits. Interleaves keep
// the order that codes_avx512.h packs from.
#include <math.h>

#include "pointwise/codes_avx512.h"

#if LOWBIT_X86
LOWBIT_TARGET_BEGIN_AVX512
namespace lowbit::pointwise {

static inline __m512i window_max(const uint8_t* x, int64_t rows, int64_t row_step, int64_t taps, int64_t tap_step,
                                 __mmask64 mask, bool is_signed) {
  const __m512i lowest = _mm512_set1_epi8(is_signed ? -128 : 0);
  __m512i m = lowest;
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t t = 0; t < taps; ++t) {
      const __m512i v = _mm512_mask_loadu_epi8(lowest, mask, x + r * row_step + t * tap_step);
      m = is_signed ? _mm512_max_epi8(m, v) : _mm512_max_epu8(m, v);
    }
  }
  return m;
}

// Blocks of 64 channels; is_signed is a constant where this is inlined.
static inline void max_pool_bytes(const PoolRow& row, bool is_signed) {
  for (int64_t ox = 0; ox < row.out_w; ++ox) {
    const PoolColumn& column = row.columns[ox];
    const uint8_t* window = static_cast<const uint8_t*>(row.x) + column.first * row.pixel_step;
    uint8_t* y = static_cast<uint8_t*>(row.y) + ox * row.y_step;
    for (int64_t j = 0; j < row.c; j += 64) {
      const __mmask64 mask = first_bytes(row.c - j);
      const bool full = row.rows == 3 && column.taps == 3;  // the usual window, unrolled
      const __m512i m =
          full ? window_max(window + j, 3, row.row_step, 3, row.tap_step, mask, is_signed)
               : window_max(window + j, row.rows, row.row_step, column.taps, row.tap_step, mask, is_signed);
      _mm512_mask_storeu_epi8(y + j, mask, m);
    }
  }
}

void max_pool_u8_avx512(const PoolRow& row) noexcept { max_pool_bytes(row, false); }
void max_pool_s8_avx512(const PoolRow& row) noexcept { max_pool_bytes(row, true); }

void max_pool_f32_avx512(const PoolRow& row) noexcept {
  for (int64_t ox = 0; ox < row.out_w; ++ox) {
    const PoolColumn& column = row.columns[ox];
    const float* window = static_cast<const float*>(row.x) + column.first * row.pixel_step;
    float* y = static_cast<float*>(row.y) + ox * row.y_step;
    for (int64_t j = 0; j < row.c; j += 16) {
      const __mmask16 mask = static_cast<__mmask16>(first_bytes(row.c - j));
      __m512 m = _mm512_set1_ps(-HUGE_VALF);
      for (int64_t r = 0; r < row.rows; ++r) {
        const float* x = window + r * row.row_step + j;
        for (int64_t t = 0; t < column.taps; ++t, x += row.tap_step)
          m = _mm512_max_ps(_mm512_maskz_loadu_ps(mask, x), m);
      }
      _mm512_mask_storeu_ps(y + j, mask, m);
    }
  }
}

static inline __m512 divisor(const PoolRow& row, const PoolColumn& column) {
  const int64_t count = row.count * column.count;
  return _mm512_set1_ps(static_cast<float>(count > 1 ? count : 1));
}

// Sums of 64 channels: 16 bits are flushed into 32 before they overflow.
struct Sums {
  __m512i word[2], total[4];
};

static inline void flush(Sums& s) {
  const __m512i zero = _mm512_setzero_si512();
  s.total[0] = _mm512_add_epi32(s.total[0], _mm512_unpacklo_epi16(s.word[0], zero));
  s.total[1] = _mm512_add_epi32(s.total[1], _mm512_unpackhi_epi16(s.word[0], zero));
  s.total[2] = _mm512_add_epi32(s.total[2], _mm512_unpacklo_epi16(s.word[1], zero));
  s.total[3] = _mm512_add_epi32(s.total[3], _mm512_unpackhi_epi16(s.word[1], zero));
  s.word[0] = s.word[1] = zero;
}

void average_pool_codes_avx512(const PoolRow& row, const CodeIn& in, const CodeOut& out) noexcept {
  const __m512i zero = _mm512_setzero_si512(), flip = _mm512_set1_epi8(static_cast<char>(in.flip));
  const CodeOut512 to = broadcast(out);
  const __m512 factor = _mm512_set1_ps(in.factor);
  for (int64_t ox = 0; ox < row.out_w; ++ox) {
    const PoolColumn& column = row.columns[ox];
    const uint8_t* window = static_cast<const uint8_t*>(row.x) + column.first * row.pixel_step;
    uint8_t* y = static_cast<uint8_t*>(row.y) + ox * row.y_step;
    const __m512i zeros = _mm512_set1_epi32(static_cast<int32_t>(row.rows * column.taps * in.zero));
    const __m512 count = divisor(row, column);
    for (int64_t j = 0; j < row.c; j += 64) {
      const __mmask64 mask = first_bytes(row.c - j);
      Sums s = {{zero, zero}, {zero, zero, zero, zero}};
      int room = 257;  // 257 * 255 = 2^16 - 1
      for (int64_t r = 0; r < row.rows; ++r) {
        const uint8_t* x = window + r * row.row_step + j;
        for (int64_t t = 0; t < column.taps; ++t, x += row.tap_step) {
          const __m512i bytes = _mm512_xor_si512(_mm512_maskz_loadu_epi8(mask, x), flip);
          s.word[0] = _mm512_add_epi16(s.word[0], _mm512_unpacklo_epi8(bytes, zero));
          s.word[1] = _mm512_add_epi16(s.word[1], _mm512_unpackhi_epi8(bytes, zero));
          if (--room == 0) {
            flush(s);
            room = 257;
          }
        }
      }
      flush(s);
      Quarters512 f;
      for (int k = 0; k < 4; ++k) {
        const __m512 sum = _mm512_cvtepi32_ps(_mm512_sub_epi32(s.total[k], zeros));
        f.v[k] = _mm512_div_ps(_mm512_mul_ps(sum, factor), count);
      }
      _mm512_mask_storeu_epi8(y + j, mask, saturate(f, to));
    }
  }
}

void average_pool_f32_avx512(const PoolRow& row) noexcept {
  for (int64_t ox = 0; ox < row.out_w; ++ox) {
    const PoolColumn& column = row.columns[ox];
    const float* window = static_cast<const float*>(row.x) + column.first * row.pixel_step;
    float* y = static_cast<float*>(row.y) + ox * row.y_step;
    for (int64_t j = 0; j < row.c; j += 16) {
      const __mmask16 mask = static_cast<__mmask16>(first_bytes(row.c - j));
      __m512 sum = _mm512_setzero_ps();
      for (int64_t r = 0; r < row.rows; ++r) {
        const float* x = window + r * row.row_step + j;
        for (int64_t t = 0; t < column.taps; ++t, x += row.tap_step)
          sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(mask, x));
      }
      _mm512_mask_storeu_ps(y + j, mask, _mm512_div_ps(sum, divisor(row, column)));
    }
  }
}

}  // namespace lowbit::pointwise
LOWBIT_TARGET_END
#endif
