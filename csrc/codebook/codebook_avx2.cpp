// Dense indices: pdep spreads 8 of them over the bytes of a word in a cycle. Up to four bits vpshufb looks 32 up,
// vpermps 8 floats of up to three bits (four: two and a blend); wider tables are read value by value or gathered.
//
// Products decode 128 columns of two panels at a time (L1) and multiply them in register tiles. int8: |w| * (x with w's
// sign), whose pairs vpmaddubsw adds without saturating, since codes stay within +-127: 2 * 127 * 127 < 2^15.
#include "codebook/codebook_kernel.h"
#include "target.h"

#if LOWBIT_X86
#include <immintrin.h>
#include <stdint.h>

LOWBIT_TARGET_BEGIN_AVX2

namespace lowbit {
namespace {

constexpr int64_t kWidth = 2 * kChannels;  // of decoded float columns

// Values by index.
class LookupF32 {
 public:
  LookupF32(const float* values, int bits, bool per_channel)
      : values_(values), bits_(bits), per_channel_(per_channel), in_registers_(bits <= 4 && !per_channel) {
    if (!in_registers_) return;
    float all[16];
    for (int t = 0; t < 16; ++t) all[t] = values[t & ((1 << bits) - 1)];
    low_ = _mm256_loadu_ps(all);
    high_ = _mm256_loadu_ps(all + 8);
  }
  // Of channels [first, first + 8).
  inline __m256 at(__m256i index, int first) const {
    if (in_registers_) {
      const __m256 low = _mm256_permutevar8x32_ps(low_, index), high = _mm256_permutevar8x32_ps(high_, index);
      return _mm256_blendv_ps(low, high, _mm256_castsi256_ps(_mm256_slli_epi32(index, 28)));
    }
    if (per_channel_) {
      const __m256i lane = _mm256_add_epi32(_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), _mm256_set1_epi32(first));
      index = _mm256_or_si256(index, _mm256_sll_epi32(lane, _mm_cvtsi32_si128(bits_)));
    }
    return _mm256_i32gather_ps(values_, index, 4);
  }

 private:
  const float* values_;
  int bits_;
  bool per_channel_, in_registers_;
  __m256 low_, high_;
};

class LookupI8 {
 public:
  LookupI8(const int8_t* values, int bits, bool per_channel) : values_(values), bits_(per_channel ? bits : 0) {
    in_registers_ = bits <= 4 && !per_channel;
    if (!in_registers_) return;
    int8_t all[16];
    for (int t = 0; t < 16; ++t) all[t] = values[t & ((1 << bits) - 1)];
    table_ = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i*)all));
  }
  inline void store(uint64_t index, int8_t* out) const {
    if (in_registers_) {
      const __m128i eight = _mm_cvtsi64_si128((int64_t)index);
      _mm_storel_epi64((__m128i*)out, _mm_shuffle_epi8(_mm256_castsi256_si128(table_), eight));
      return;
    }
    for (int t = 0; t < 8; ++t) out[t] = values_[index >> (8 * t) & 0xff];
  }
  // 32 bytes of channels [first, first + 8), four of each.
  inline void store(__m256i index, int first, int8_t* out) const {
    if (in_registers_) {
      _mm256_storeu_si256((__m256i*)out, _mm256_shuffle_epi8(table_, index));
      return;
    }
    uint8_t some[32];
    _mm256_storeu_si256((__m256i*)some, index);
    for (int t = 0; t < 32; ++t) out[t] = values_[(bits_ ? (first + t / 4) << bits_ : 0) + some[t]];
  }

 private:
  const int8_t* values_;
  int bits_;
  bool in_registers_;
  __m256i table_;
};

// The next 8 dense indices, a byte each, from a load of `size` bytes: 8 where there are as many, since a load of three
// goes through memory.
template <int kBits>
static inline __attribute__((always_inline)) uint64_t eight(const uint8_t* bytes, size_t size) {
  uint64_t word = 0;
  __builtin_memcpy(&word, bytes, size);
  return _pdep_u64(word, 0x0101010101010101ull * ((1u << kBits) - 1));
}

static inline int dense_index(const uint8_t* packed, int64_t t, int bits) {
  const int64_t bit = t * bits;
  int word = packed[bit / 8];
  if (bit % 8 + bits > 8) word |= packed[bit / 8 + 1] << 8;
  return word >> (bit % 8) & ((1 << bits) - 1);
}

static inline void store_eight(const LookupF32& lookup, uint64_t index, float* out) {
  _mm256_storeu_ps(out, lookup.at(_mm256_cvtepu8_epi32(_mm_cvtsi64_si128((int64_t)index)), 0));
}

static inline void store_eight(const LookupI8& lookup, uint64_t index, int8_t* out) { lookup.store(index, out); }

template <int kBits, class Lookup, typename T>
static void decode(const DecodeRun<T>& run) {
  const Lookup lookup(run.table, kBits, false);
  int64_t t = run.first, left = run.count;
  T* out = run.out;
  for (; left > 0 && t % 8 != 0; ++t, --left) *out++ = run.table[dense_index(run.packed, t, kBits)];  // to a whole byte
  const uint8_t* bytes = run.packed + t / 8 * kBits;
  for (; left * kBits >= 64; left -= 8, bytes += kBits, out += 8) store_eight(lookup, eight<kBits>(bytes, 8), out);
  for (; left >= 8; left -= 8, bytes += kBits, out += 8) store_eight(lookup, eight<kBits>(bytes, kBits), out);
  for (t = 0; t < left; ++t) out[t] = run.table[dense_index(bytes, t, kBits)];
}

// The indices of a quad: two halves of 8 channels.
template <int kBits>
static inline __attribute__((always_inline)) void quad_index(const uint8_t* block, int quad, __m256i (&index)[2]) {
  constexpr IndexPlanes planes = index_planes(kBits);
  index[0] = index[1] = _mm256_setzero_si256();
  int bit = 0;
#pragma GCC unroll 3
  for (int t = 0; t < planes.count; ++t) {
    const int width = planes.width[t], per_byte = 8 / width;
    const uint8_t* vector = block + 64 * (quad / per_byte);
    const __m256i mask = _mm256_set1_epi8((char)((1 << width) - 1));
    for (int h = 0; h < 2; ++h) {
      const __m256i v = _mm256_loadu_si256((const __m256i*)(vector + 32 * h));
      const __m256i field = _mm256_and_si256(_mm256_srli_epi16(v, width * (quad % per_byte)), mask);
      index[h] = _mm256_or_si256(index[h], _mm256_slli_epi16(field, bit));
    }
    bit += width;
    block += 64 * width;
  }
}

static inline float finished(float v, const FinishCodebook& f, int64_t j) {
  if (f.bias) v += f.bias[j];
  v = v < f.lo ? f.lo : v;
  return v > f.hi ? f.hi : v;
}

// Float --------------------------------------------------------------------------------------------------------------

// `columns` columns of a panel, kWidth floats apart; whole blocks.
template <int kBits>
static void decode_panel_f32(const CodebookF32& c, int64_t panel, int64_t g, int64_t first, int64_t columns,
                             float* out) {
  const TiledIndices& w = c.w;
  const LookupF32 lookup(c.table + (w.per_channel ? panel * kChannels : g) * w.entries(), kBits, w.per_channel);
  const uint8_t* block = w.panel(panel) + (g * w.group_blocks + first / kBlockColumns) * w.block_bytes();
  const __m256i byte = _mm256_set1_epi32(0xff);
  for (; columns > 0; columns -= kBlockColumns, block += w.block_bytes()) {
#pragma GCC unroll 8
    for (int quad = 0; quad < kQuads; ++quad, out += 4 * kWidth) {
      __m256i index[2];
      quad_index<kBits>(block, quad, index);
#pragma GCC unroll 4
      for (int r = 0; r < 4; ++r) {
        for (int h = 0; h < 2; ++h) {
          const __m256i one = _mm256_and_si256(_mm256_srli_epi32(index[h], 8 * r), byte);
          _mm256_storeu_ps(out + r * kWidth + 8 * h, lookup.at(one, 8 * h));
        }
      }
    }
  }
}

// Rows x, x + ldx, ... of sums (kRows, kWidth) go on over `count` columns of w.
template <int kRows>
static void multiply_f32(const float* x, int64_t ldx, const float* w, int64_t count, float* sums) {
  __m256 sum[kRows][4];
#pragma GCC unroll 3
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int q = 0; q < 4; ++q) sum[r][q] = _mm256_loadu_ps(sums + r * kWidth + 8 * q);
  }
  for (int64_t t = 0; t < count; ++t, w += kWidth) {
#pragma GCC unroll 3
    for (int r = 0; r < kRows; ++r) {
      const __m256 v = _mm256_set1_ps(x[r * ldx + t]);
#pragma GCC unroll 4
      for (int q = 0; q < 4; ++q) sum[r][q] = _mm256_fmadd_ps(v, _mm256_loadu_ps(w + 8 * q), sum[r][q]);
    }
  }
#pragma GCC unroll 3
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int q = 0; q < 4; ++q) _mm256_storeu_ps(sums + r * kWidth + 8 * q, sum[r][q]);
  }
}

// int8 ---------------------------------------------------------------------------------------------------------------

template <int kBits>
static void decode_panel_i8(const CodebookI8& c, int64_t panel, int64_t g, int8_t* out) {
  const TiledIndices& w = c.w;
  const LookupI8 lookup(c.table + (w.per_channel ? panel * kChannels : g) * w.entries(), kBits, w.per_channel);
  const uint8_t* block = w.panel(panel) + g * w.group_blocks * w.block_bytes();
  for (int64_t left = w.columns(g); left > 0; left -= kBlockColumns, block += w.block_bytes()) {
#pragma GCC unroll 8
    for (int quad = 0; quad < kQuads; ++quad, out += 64) {
      __m256i index[2];
      quad_index<kBits>(block, quad, index);
      lookup.store(index[0], 0, out);
      lookup.store(index[1], 8, out + 32);
    }
  }
}

// Sums (kRows, 16) of kRows rows with a decoded panel of a group.
template <int kRows>
static inline void multiply_i8(const int8_t* x, int64_t ldx, const int8_t* w, int64_t quads,
                               int32_t (&sums)[kRows][16]) {
  const __m256i ones = _mm256_set1_epi16(1);
  __m256i sum[kRows][2];
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) sum[r][0] = sum[r][1] = _mm256_setzero_si256();
  for (int64_t s = 0; s < quads; ++s, w += 64) {
    const __m256i a = _mm256_loadu_si256((const __m256i*)w), b = _mm256_loadu_si256((const __m256i*)(w + 32));
    const __m256i size_a = _mm256_abs_epi8(a), size_b = _mm256_abs_epi8(b);
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
      int32_t codes;
      __builtin_memcpy(&codes, x + r * ldx + 4 * s, sizeof(codes));
      const __m256i v = _mm256_set1_epi32(codes);
      const __m256i pairs_a = _mm256_maddubs_epi16(size_a, _mm256_sign_epi8(v, a));
      const __m256i pairs_b = _mm256_maddubs_epi16(size_b, _mm256_sign_epi8(v, b));
      sum[r][0] = _mm256_add_epi32(sum[r][0], _mm256_madd_epi16(pairs_a, ones));
      sum[r][1] = _mm256_add_epi32(sum[r][1], _mm256_madd_epi16(pairs_b, ones));
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) {
    _mm256_storeu_si256((__m256i*)sums[r], sum[r][0]);
    _mm256_storeu_si256((__m256i*)(sums[r] + 8), sum[r][1]);
  }
}

// Rows [i, i + kRows) of panel p, over group g: y holds totals until the last group finishes it.
template <int kRows>
static void rows_i8(const CodebookI8& c, int64_t i, int64_t p, int64_t g) {
  const TiledIndices& w = c.w;
  const int64_t quads = (w.columns(g) + kBlockColumns - 1) / kBlockColumns * kQuads, first = p * kChannels;
  int32_t sums[kRows][16];
  multiply_i8<kRows>(c.x + i * c.ldx + g * w.group_blocks * kBlockColumns, c.ldx, (const int8_t*)c.work, quads, sums);
  for (int r = 0; r < kRows; ++r) {
    for (int64_t j = first; j < w.n && j < first + kChannels; ++j) {
      float* y = c.y + (i + r) * c.ldy + j;
      const float total = (g > 0 ? *y : 0) + (float)sums[r][j - first] * c.scale[w.per_channel ? j : g];
      *y = g + 1 < w.groups ? total : finished(total * c.x_scale[i + r], c.finish, j);
    }
  }
}

}  // namespace

void codebook_decode_f32_avx2(const DecodeRun<float>& run, int bits) noexcept {
  using Fn = void (*)(const DecodeRun<float>&);
  static constexpr Fn kFn[] = {decode<1, LookupF32, float>, decode<2, LookupF32, float>, decode<3, LookupF32, float>,
                               decode<4, LookupF32, float>, decode<5, LookupF32, float>, decode<6, LookupF32, float>,
                               decode<7, LookupF32, float>, decode<8, LookupF32, float>};
  kFn[bits - 1](run);
}

void codebook_decode_i8_avx2(const DecodeRun<int8_t>& run, int bits) noexcept {
  using Fn = void (*)(const DecodeRun<int8_t>&);
  static constexpr Fn kFn[] = {decode<1, LookupI8, int8_t>, decode<2, LookupI8, int8_t>, decode<3, LookupI8, int8_t>,
                               decode<4, LookupI8, int8_t>, decode<5, LookupI8, int8_t>, decode<6, LookupI8, int8_t>,
                               decode<7, LookupI8, int8_t>, decode<8, LookupI8, int8_t>};
  kFn[bits - 1](run);
}

float codebook_peak_avx2(const float* x, int64_t count) noexcept {
  const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);  // ordered as integers, NaN last
  __m256i peak = _mm256_setzero_si256();
  for (; count >= 8; count -= 8, x += 8) {
    peak = _mm256_max_epi32(peak, _mm256_and_si256(_mm256_loadu_si256((const __m256i*)x), magnitude));
  }
  uint32_t some[8], most = 0;
  _mm256_storeu_si256((__m256i*)some, peak);
  for (int t = 0; t < 8; ++t) most = some[t] > most ? some[t] : most;
  for (int64_t t = 0; t < count; ++t) {
    uint32_t bits;
    __builtin_memcpy(&bits, x + t, sizeof(bits));
    bits &= 0x7fffffff;
    most = bits > most ? bits : most;
  }
  float out;
  __builtin_memcpy(&out, &most, sizeof(out));
  return out;
}

void codebook_codes_avx2(const float* x, int64_t count, float inverse, int8_t* codes) noexcept {
  const __m256 by = _mm256_set1_ps(inverse), low = _mm256_set1_ps(-127), high = _mm256_set1_ps(127);
  for (; count >= 8; count -= 8, x += 8, codes += 8) {
    const __m256 v = _mm256_min_ps(_mm256_max_ps(_mm256_mul_ps(_mm256_loadu_ps(x), by), low), high);
    const __m256i q = _mm256_cvtps_epi32(v);
    const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(q), _mm256_extracti128_si256(q, 1));
    _mm_storel_epi64((__m128i*)codes, _mm_packs_epi16(words, words));
  }
  codebook_codes_scalar(x, count, inverse, codes);
}

void codebook_f32_avx2(const CodebookF32& c, int64_t i0, int64_t i1, int64_t p0, int64_t p1) noexcept {
  const TiledIndices& w = c.w;
  using Decode = void (*)(const CodebookF32&, int64_t, int64_t, int64_t, int64_t, float*);
  static constexpr Decode kDecode[] = {decode_panel_f32<1>, decode_panel_f32<2>, decode_panel_f32<3>,
                                       decode_panel_f32<4>, decode_panel_f32<5>, decode_panel_f32<6>,
                                       decode_panel_f32<7>, decode_panel_f32<8>};
  const Decode decode_panel = kDecode[w.bits - 1];
  float *decoded = c.work, *sums = c.work + kWidth * kWorkColumns;
  for (int64_t p = p0; p < p1; p += 2) {
    for (int64_t t = 0; t < (i1 - i0) * kWidth; ++t) sums[t] = 0;
    for (int64_t g = 0; g < w.groups; ++g) {
      for (int64_t first = 0, all = w.columns(g); first < all; first += kWorkColumns) {
        const int64_t count = all - first < kWorkColumns ? all - first : kWorkColumns;
        decode_panel(c, p, g, first, count, decoded);
        if (p + 1 < p1) decode_panel(c, p + 1, g, first, count, decoded + kChannels);
        const float* x = c.x + g * w.group_size + first;
        int64_t i = i0;
        for (; i + 3 <= i1; i += 3) multiply_f32<3>(x + i * c.ldx, c.ldx, decoded, count, sums + (i - i0) * kWidth);
        for (; i < i1; ++i) multiply_f32<1>(x + i * c.ldx, c.ldx, decoded, count, sums + (i - i0) * kWidth);
      }
    }
    for (int64_t i = i0; i < i1; ++i) {
      const int64_t first = p * kChannels, end = p + 1 < p1 ? first + kWidth : first + kChannels;
      for (int64_t j = first; j < w.n && j < end; ++j) {
        c.y[i * c.ldy + j] = finished(sums[(i - i0) * kWidth + j - first], c.finish, j);
      }
    }
  }
}

void codebook_i8_avx2(const CodebookI8& c, int64_t i0, int64_t i1, int64_t p0, int64_t p1) noexcept {
  using Decode = void (*)(const CodebookI8&, int64_t, int64_t, int8_t*);
  static constexpr Decode kDecode[] = {decode_panel_i8<1>, decode_panel_i8<2>, decode_panel_i8<3>, decode_panel_i8<4>,
                                       decode_panel_i8<5>, decode_panel_i8<6>, decode_panel_i8<7>, decode_panel_i8<8>};
  for (int64_t p = p0; p < p1; ++p) {
    for (int64_t g = 0; g < c.w.groups; ++g) {
      kDecode[c.w.bits - 1](c, p, g, (int8_t*)c.work);
      int64_t i = i0;
      for (; i + 4 <= i1; i += 4) rows_i8<4>(c, i, p, g);
      for (; i < i1; ++i) rows_i8<1>(c, i, p, g);
    }
  }
}

}  // namespace lowbit

LOWBIT_TARGET_END

#endif
