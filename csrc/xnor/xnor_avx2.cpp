// vpshufb as a product: for a nibble of activations, a table of 16 bytes holds popcount(nibble ^ i) for every nibble i
// of weights, so that two look-ups count the differing bits of eight weights of 32 output channels (a lane is a
// channel's byte). The tables of a byte of activations lie side by side, 8 KB for all. Without the tables (xor, then
// the popcount of both nibbles by look-up) the same loop takes two operations more. Bytes are flushed before they
// overflow.
#include "target.h"
#include "xnor/xnor_kernel.h"

#if LOWBIT_X86
#include <immintrin.h>
#include <stdint.h>

namespace lowbit {
namespace {

struct ProductTables {
  uint8_t low[256][2][16];  // of a byte of activations: its low nibble, its high one

  constexpr ProductTables() : low{} {
    for (int a = 0; a < 256; ++a) {
      for (int i = 0; i < 16; ++i) {
        for (int bit = 0; bit < 4; ++bit) {
          low[a][0][i] = static_cast<uint8_t>(low[a][0][i] + (((a ^ i) >> bit) & 1));
          low[a][1][i] = static_cast<uint8_t>(low[a][1][i] + ((((a >> 4) ^ i) >> bit) & 1));
        }
      }
    }
  }
};
alignas(64) constexpr ProductTables kTables;

}  // namespace
}  // namespace lowbit

LOWBIT_TARGET_BEGIN_AVX2

namespace lowbit {
namespace {

constexpr int kRows = 4;
constexpr int64_t kFlush = 28;            // bytes of k: 28 * 8 <= 255, and whole words
constexpr int64_t kSpill = 256 * kFlush;  // bytes of k that 16 bits hold the counts of

// Sums of one tile, 64 channels a row.
struct Counts {
  alignas(32) uint16_t narrow[kRows][kXnorPanel];
  alignas(32) int32_t wide[kRows][kXnorPanel];
};

static inline __attribute__((always_inline)) __m256i table(const uint8_t* t) {
  return _mm256_broadcastsi128_si256(_mm_load_si128((const __m128i*)t));
}

// In assembly, because GCC 12 adds the two look-ups first, which costs registers, and spills half of the sums.
static inline __attribute__((always_inline)) void add(__m256i& sum, __m256i count) {
  __asm__("vpaddb %1, %0, %0" : "+x"(sum) : "x"(count));
}

// `bytes` <= kFlush bytes of k of kR rows times 64 channels, added to narrow.
template <int kR>
static inline __attribute__((always_inline)) void count_block(const uint8_t* const (&a)[kR], const uint8_t* w,
                                                              int64_t bytes, Counts& counts) {
  const __m256i nibble = _mm256_set1_epi8(15);
  __m256i sum[kR][2];
#pragma GCC unroll 4
  for (int r = 0; r < kR; ++r) sum[r][0] = sum[r][1] = _mm256_setzero_si256();
  for (int64_t p = 0; p < bytes; ++p, w += kXnorPanel) {
    const __m256i w0 = _mm256_loadu_si256((const __m256i*)w), w1 = _mm256_loadu_si256((const __m256i*)(w + 32));
    const __m256i low0 = _mm256_and_si256(w0, nibble), high0 = _mm256_and_si256(_mm256_srli_epi16(w0, 4), nibble);
    const __m256i low1 = _mm256_and_si256(w1, nibble), high1 = _mm256_and_si256(_mm256_srli_epi16(w1, 4), nibble);
#pragma GCC unroll 4
    for (int r = 0; r < kR; ++r) {
      const uint8_t* tables = kTables.low[a[r][p]][0];
      const __m256i low = table(tables), high = table(tables + 16);
      add(sum[r][0], _mm256_shuffle_epi8(low, low0));
      add(sum[r][1], _mm256_shuffle_epi8(low, low1));
      add(sum[r][0], _mm256_shuffle_epi8(high, high0));
      add(sum[r][1], _mm256_shuffle_epi8(high, high1));
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < kR; ++r) {
#pragma GCC unroll 2
    for (int c = 0; c < 2; ++c) {
      __m256i* to = (__m256i*)(counts.narrow[r] + 32 * c);
      const __m256i first = _mm256_cvtepu8_epi16(_mm256_castsi256_si128(sum[r][c]));
      const __m256i second = _mm256_cvtepu8_epi16(_mm256_extracti128_si256(sum[r][c], 1));
      _mm256_store_si256(to, _mm256_add_epi16(_mm256_load_si256(to), first));
      _mm256_store_si256(to + 1, _mm256_add_epi16(_mm256_load_si256(to + 1), second));
    }
  }
}

static void spill(Counts& counts, int rows) {
  for (int r = 0; r < rows; ++r) {
    for (int64_t j = 0; j < kXnorPanel; ++j) {
      counts.wide[r][j] += counts.narrow[r][j];
      counts.narrow[r][j] = 0;
    }
  }
}

static uint32_t word_of(const __m256i (&clear)[4]) {  // bits of lanes that are not all ones
  uint32_t word = 0;
  for (int q = 0; q < 4; ++q) word |= (uint32_t)_mm256_movemask_ps(_mm256_castsi256_ps(clear[q])) << (8 * q);
  return ~word;
}

static void store_codes(const XnorFinish& f, int64_t at, const float* v, int64_t count) {
  const int least = f.out == XnorOut::s8 ? -128 : 0;
  const __m256 lo = _mm256_set1_ps((float)(least - f.zero_point)),
               hi = _mm256_set1_ps((float)(least + 255 - f.zero_point));
  for (int64_t j = 0; j < count; j += 8) {
    alignas(32) int32_t q[8];
    const __m256 x = _mm256_min_ps(_mm256_max_ps(_mm256_loadu_ps(v + j), lo), hi);  // a NaN gives lo
    _mm256_store_si256((__m256i*)q, _mm256_add_epi32(_mm256_cvtps_epi32(x), _mm256_set1_epi32(f.zero_point)));
    for (int64_t l = 0; l < 8 && j + l < count; ++l) ((uint8_t*)f.y)[at + j + l] = (uint8_t)q[l];
  }
}

// Bits of channels [j, j + count) of row i: those whose lane in `clear` is not all ones.
template <typename Clear>
static inline __attribute__((always_inline)) void store_bits(const XnorFinish& f, int64_t i, int64_t j, int64_t count,
                                                             Clear clear) {
  for (int64_t p = 0; 32 * p < count; ++p) {
    const __m256i lanes[4] = {clear(32 * p), clear(32 * p + 8), clear(32 * p + 16), clear(32 * p + 24)};
    const int64_t left = count - 32 * p;
    const uint32_t valid = left >= 32 ? 0xffffffffu : (1u << left) - 1;
    f.bits[i * f.ld_bits + j / 32 + p] = (word_of(lanes) ^ f.flip[j / 32 + p]) & valid;
  }
}

// Row i, channels [j, j + count): pop (64 of them).
static void finish_row(const XnorBlock& b, int64_t i, int64_t j, int64_t count, const int32_t* pop) {
  const XnorFinish& f = b.finish;
  const int64_t at = j + (b.pattern ? b.pattern[i] : 0);
  const int32_t *start = b.start + at, *least = b.least + at;
  if (f.bits && f.by_dot) {
    store_bits(f, i, j, count, [&](int64_t l) {
      const __m256i half = _mm256_sub_epi32(_mm256_loadu_si256((const __m256i*)(b.half + at + l)),
                                            _mm256_load_si256((const __m256i*)(pop + l)));
      return _mm256_cmpgt_epi32(_mm256_loadu_si256((const __m256i*)(least + l)), half);
    });
    if (f.out == XnorOut::none) return;
  }
  if (f.out == XnorOut::s32) {
    int32_t* y = (int32_t*)f.y + i * f.ldy + j;
    for (int64_t l = 0; l < count; ++l) y[l] = start[l] - 2 * pop[l];
    if (!f.bits || f.by_dot) return;
  }
  // Every step a loop that the compiler turns into vectors.
  alignas(32) float v[kXnorPanel] = {};
  if (f.scale) {
    const float* scale = f.scale + j;
    for (int64_t l = 0; l < count; ++l) v[l] = (float)(start[l] - 2 * pop[l]) * scale[l];
  } else {
    for (int64_t l = 0; l < count; ++l) v[l] = (float)(start[l] - 2 * pop[l]);
  }
  if (f.input_scale) {
    const float scale = f.input_scale[i];
    for (int64_t l = 0; l < count; ++l) v[l] = v[l] * scale;
  }
  if (f.bias) {
    const float* bias = f.bias + j;
    for (int64_t l = 0; l < count; ++l) v[l] = v[l] + bias[l];
  }
  if (f.residual) {
    const float* residual = f.residual + i * f.residual_stride + j;
    for (int64_t l = 0; l < count; ++l) v[l] = v[l] + residual[l];
  }
  if (f.lo != -__builtin_inff() || f.hi != __builtin_inff()) {
    const float lo = f.lo, hi = f.hi;
    for (int64_t l = 0; l < count; ++l) {
      const float raised = v[l] < lo ? lo : v[l];
      v[l] = raised > hi ? hi : raised;
    }
  }
  if (f.out == XnorOut::f32) {  // after the residual was read: it may be y itself
    __builtin_memcpy((float*)f.y + i * f.ldy + j, v, (uint64_t)count * sizeof(float));
  } else if (f.out != XnorOut::none && f.out != XnorOut::s32) {
    store_codes(f, i * f.ldy + j, v, count);
  }
  if (f.bits && !f.by_dot) {
    alignas(32) float threshold[kXnorPanel] = {};
    if (f.threshold) __builtin_memcpy(threshold, f.threshold + j, (uint64_t)count * sizeof(float));
    store_bits(f, i, j, count, [&](int64_t l) {  // not >=: less or NaN
      return _mm256_castps_si256(_mm256_cmp_ps(_mm256_load_ps(v + l), _mm256_load_ps(threshold + l), _CMP_NGE_UQ));
    });
  }
}

template <int kR>
static void tile(const XnorBlock& b, int64_t i, int64_t j, const uint8_t* w) {
  Counts counts{};
  const int64_t run_bytes = 4 * b.run_words;
  int64_t since_spill = 0;
  for (int64_t run = 0; run < b.runs; ++run) {
    const uint8_t* a[kR];
#pragma GCC unroll 4
    for (int r = 0; r < kR; ++r) a[r] = (const uint8_t*)(b.rows[i + r] + b.run_offset[run]);
    for (int64_t p = 0; p < run_bytes; p += kFlush) {
      const int64_t bytes = run_bytes - p < kFlush ? run_bytes - p : kFlush;
      count_block<kR>(a, w, bytes, counts);
      w += bytes * kXnorPanel;
#pragma GCC unroll 4
      for (int r = 0; r < kR; ++r) a[r] += bytes;
      if ((since_spill += kFlush) >= kSpill) {
        spill(counts, kR);
        since_spill = 0;
      }
    }
  }
  spill(counts, kR);
  const int64_t count = b.channels - j < kXnorPanel ? b.channels - j : kXnorPanel;
  for (int r = 0; r < kR; ++r) finish_row(b, i + r, j, count, counts.wide[r]);
}

}  // namespace

void xnor_avx2(const XnorBlock& b) noexcept {
  const int64_t panel = b.runs * b.run_words * 4 * kXnorPanel;
  const uint8_t* w = b.w_bytes;
  for (int64_t j = 0; j < b.channels; j += kXnorPanel, w += panel) {
    int64_t i = 0;
    for (; i + kRows <= b.row_count; i += kRows) tile<kRows>(b, i, j, w);
    if (b.row_count - i >= 2) {
      tile<2>(b, i, j, w);
      i += 2;
    }
    if (b.row_count - i >= 1) tile<1>(b, i, j, w);
  }
}

}  // namespace lowbit

LOWBIT_TARGET_END

#endif
