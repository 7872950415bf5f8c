// Dense indices to values, and activations to codes.
//
// 8 indices of b bits fill b bytes, so a 64-bit lane gets the bytes of its 8 indices (vpermb; for one and two bits a
// broadcast load that needs no shuffle) and vpmultishiftqb puts each index into its byte; vpermb looks them up. All
// three want port 5 on Intel: 64 weights of two or four bits in two cycles (four bits by a widening load, a shift and
// an OR instead of the multishift), other widths in three. Float values of up to four bits: a broadcast, one shift by
// the lane's place (port 0) and vpermps (port 5), whose low four bits need no mask: one store of 16 weights a cycle.
#include "codebook/codebook_kernel.h"
#include "target.h"

#if LOWBIT_X86
#include <immintrin.h>
#include <stdint.h>

LOWBIT_TARGET_BEGIN_AVX512

namespace lowbit {
namespace {

// The indices of the next 64 from `bytes` on (8 kBits bytes), bits above an index anything.
template <int kBits>
static inline __attribute__((always_inline)) __m512i indices64(const uint8_t* bytes) {
  static constexpr uint64_t kLow = 0x0706050403020100;
  const __m512i places = _mm512_set1_epi64((int64_t)(kLow * kBits));
  if constexpr (kBits == 1) {
    uint64_t word;
    __builtin_memcpy(&word, bytes, sizeof(word));
    const __m512i lane =
        _mm512_set_epi64(0x3f3e3d3c3b3a3938, 0x3736353433323130, 0x2f2e2d2c2b2a2928, 0x2726252423222120,
                         0x1f1e1d1c1b1a1918, 0x1716151413121110, 0x0f0e0d0c0b0a0908, 0x0706050403020100);
    return _mm512_multishift_epi64_epi8(lane, _mm512_set1_epi64((int64_t)word));
  } else if constexpr (kBits == 2) {
    uint64_t low, high;
    __builtin_memcpy(&low, bytes, sizeof(low));
    __builtin_memcpy(&high, bytes + 8, sizeof(high));
    const __m512i words = _mm512_mask_set1_epi64(_mm512_set1_epi64((int64_t)low), 0xf0, (int64_t)high);
    const __m512i lane =
        _mm512_set_epi64(0x3e3c3a3836343230, 0x2e2c2a2826242220, 0x1e1c1a1816141210, 0x0e0c0a0806040200,
                         0x3e3c3a3836343230, 0x2e2c2a2826242220, 0x1e1c1a1816141210, 0x0e0c0a0806040200);
    return _mm512_multishift_epi64_epi8(lane, words);
  } else if constexpr (kBits == 4) {
    const __m512i words = _mm512_cvtepu8_epi16(_mm256_loadu_si256((const __m256i*)bytes));
    return _mm512_or_si512(words, _mm512_slli_epi16(words, 4));
  } else if constexpr (kBits == 8) {
    return _mm512_loadu_si512(bytes);
  } else {
    const __m512i all = _mm512_maskz_loadu_epi8(((__mmask64)1 << (8 * kBits)) - 1, bytes);
    const __m512i lane =
        _mm512_setr_epi64(kLow, kLow + kBits * 0x0101010101010101, kLow + 2 * kBits * 0x0101010101010101,
                          kLow + 3 * kBits * 0x0101010101010101, kLow + 4 * kBits * 0x0101010101010101,
                          kLow + 5 * kBits * 0x0101010101010101, kLow + 6 * kBits * 0x0101010101010101,
                          kLow + 7 * kBits * 0x0101010101010101);
    return _mm512_multishift_epi64_epi8(places, _mm512_permutexvar_epi8(lane, all));
  }
}

// kBytes bytes over and over.
template <int kBytes>
static inline __m512i repeated(const void* from) {
  const __mmask16 some = (__mmask16)((1 << (kBytes / 4)) - 1);
  if constexpr (kBytes >= 16) {
    const __m512i v = _mm512_maskz_loadu_epi32(some, from);
    if constexpr (kBytes == 16) return _mm512_broadcast_i32x4(_mm512_castsi512_si128(v));
    if constexpr (kBytes == 32) return _mm512_broadcast_i64x4(_mm512_castsi512_si256(v));
    return v;
  }
  uint64_t word = 0;
  __builtin_memcpy(&word, from, kBytes < 8 ? kBytes : 8);
  if constexpr (kBytes == 2) return _mm512_set1_epi16((int16_t)word);
  if constexpr (kBytes == 4) return _mm512_set1_epi32((int32_t)word);
  return _mm512_set1_epi64((int64_t)word);
}

template <int kBits>
struct ValuesI8 {
  static constexpr int kTables = kBits <= 6 ? 1 : kBits == 7 ? 2 : 4;
  __m512i table[kTables];
  explicit inline ValuesI8(const int8_t* values) {
    if constexpr (kBits <= 6) {
      table[0] = repeated<(1 << kBits)>(values);
    } else {
      for (int t = 0; t < kTables; ++t) table[t] = _mm512_loadu_si512(values + 64 * t);
    }
  }
  inline __attribute__((always_inline)) void store64(const uint8_t* bytes, int8_t* out) const {
    const __m512i index = indices64<kBits>(bytes);
    __m512i v;
    if constexpr (kBits <= 6) {
      v = _mm512_permutexvar_epi8(index, table[0]);
    } else {
      v = _mm512_permutex2var_epi8(table[0], index, table[1]);
      if constexpr (kBits == 8) {
        const __m512i high = _mm512_permutex2var_epi8(table[2], index, table[3]);
        v = _mm512_mask_blend_epi8(_mm512_movepi8_mask(index), v, high);
      }
    }
    _mm512_storeu_si512(out, v);
  }
};

template <int kBits>
struct ValuesF32 {
  static constexpr int kTables = kBits <= 4 ? 1 : kBits == 5 ? 2 : 4;
  __m512 table[kTables];
  const float* values;
  explicit inline ValuesF32(const float* v) : values(v) {
    if constexpr (kBits <= 4) {
      table[0] = _mm512_castsi512_ps(repeated<(4 << kBits)>(v));
    } else {
      for (int t = 0; t < kTables; ++t) table[t] = _mm512_loadu_ps(v + 16 * t);
    }
  }

  // By the low bits of 32-bit lanes.
  inline __attribute__((always_inline)) __m512 look_up(__m512i index) const {
    if constexpr (kBits <= 4) return _mm512_permutexvar_ps(index, table[0]);
    if constexpr (kBits == 5) return _mm512_permutex2var_ps(table[0], index, table[1 % kTables]);
    if constexpr (kBits == 6) {
      const __mmask16 upper = _mm512_test_epi32_mask(index, _mm512_set1_epi32(32));
      return _mm512_mask_blend_ps(upper, _mm512_permutex2var_ps(table[0], index, table[1 % kTables]),
                                  _mm512_permutex2var_ps(table[2 % kTables], index, table[3 % kTables]));
    }
    const __m512i low = _mm512_and_si512(index, _mm512_set1_epi32((1 << kBits) - 1));
    return _mm512_mask_i32gather_ps(_mm512_setzero_ps(), 0xffff, low, values, 4);
  }

  inline __attribute__((always_inline)) void store64(const uint8_t* bytes, float* out) const {
    if constexpr (kBits == 2) {
      const __m512i places = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
#pragma GCC unroll 4
      for (int t = 0; t < 4; ++t) {
        int32_t word;
        __builtin_memcpy(&word, bytes + 4 * t, sizeof(word));
        _mm512_storeu_ps(out + 16 * t, look_up(_mm512_srlv_epi32(_mm512_set1_epi32(word), places)));
      }
    } else if constexpr (kBits == 4) {
      const __m512i places = _mm512_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28, 0, 4, 8, 12, 16, 20, 24, 28);
#pragma GCC unroll 4
      for (int t = 0; t < 4; ++t) {
        int32_t low, high;
        __builtin_memcpy(&low, bytes + 8 * t, sizeof(low));
        __builtin_memcpy(&high, bytes + 8 * t + 4, sizeof(high));
        const __m512i words = _mm512_mask_set1_epi32(_mm512_set1_epi32(low), 0xff00, high);
        _mm512_storeu_ps(out + 16 * t, look_up(_mm512_srlv_epi32(words, places)));
      }
    } else {
      alignas(64) uint8_t index[64];
      _mm512_store_si512(index, indices64<kBits>(bytes));
#pragma GCC unroll 4
      for (int t = 0; t < 4; ++t) {
        const __m128i some = _mm_load_si128((const __m128i*)(index + 16 * t));
        _mm512_storeu_ps(out + 16 * t, look_up(_mm512_cvtepu8_epi32(some)));
      }
    }
  }
};

template <int kBits, class Values, typename T>
static void decode(const DecodeRun<T>& run) {
  const Values values(run.table);
  T* out = run.out;
  int64_t t = run.first, left = run.count;
  constexpr int kStep = kBits == 8 ? 1 : kBits == 4 ? 2 : kBits % 2 == 0 ? 4 : 8;  // indices that end with a byte
  for (; left > 0 && t % kStep != 0; ++t, --left) {
    const int64_t bit = t * kBits;
    int word = run.packed[bit / 8];
    if (bit % 8 + kBits > 8) word |= run.packed[bit / 8 + 1] << 8;
    *out++ = run.table[word >> (bit % 8) & ((1 << kBits) - 1)];
  }
  const uint8_t* bytes = run.packed + t * kBits / 8;
  if (left >=
      128) {  // to a cache line of the output, if a whole byte gets there: stores across lines take twice as long
    values.store64(bytes, out);
    for (int some = 0; some < 64; some += kStep) {
      if ((uintptr_t)(out + some) % 64 != 0) continue;
      out += some, left -= some, bytes += some * kBits / 8;
      break;
    }
  }
  for (; left >= 64; left -= 64, bytes += 8 * kBits, out += 64) values.store64(bytes, out);
  if (left > 0) {
    alignas(64) uint8_t last[64] = {};
    alignas(64) T some[64];
    __builtin_memcpy(last, bytes, (size_t)((left * kBits + 7) / 8));
    values.store64(last, some);
    __builtin_memcpy(out, some, (size_t)left * sizeof(T));
  }
}

}  // namespace

void codebook_decode_f32_avx512(const DecodeRun<float>& run, int bits) noexcept {
  using Fn = void (*)(const DecodeRun<float>&);
  static constexpr Fn kFn[] = {decode<1, ValuesF32<1>, float>, decode<2, ValuesF32<2>, float>,
                               decode<3, ValuesF32<3>, float>, decode<4, ValuesF32<4>, float>,
                               decode<5, ValuesF32<5>, float>, decode<6, ValuesF32<6>, float>,
                               decode<7, ValuesF32<7>, float>, decode<8, ValuesF32<8>, float>};
  kFn[bits - 1](run);
}

void codebook_decode_i8_avx512(const DecodeRun<int8_t>& run, int bits) noexcept {
  using Fn = void (*)(const DecodeRun<int8_t>&);
  static constexpr Fn kFn[] = {decode<1, ValuesI8<1>, int8_t>, decode<2, ValuesI8<2>, int8_t>,
                               decode<3, ValuesI8<3>, int8_t>, decode<4, ValuesI8<4>, int8_t>,
                               decode<5, ValuesI8<5>, int8_t>, decode<6, ValuesI8<6>, int8_t>,
                               decode<7, ValuesI8<7>, int8_t>, decode<8, ValuesI8<8>, int8_t>};
  kFn[bits - 1](run);
}

float codebook_peak_avx512(const float* x, int64_t count) noexcept {
  const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);  // ordered as integers, NaN last
  __m512i peak = _mm512_setzero_si512();
  for (; count >= 16; count -= 16, x += 16) {
    peak = _mm512_max_epu32(peak, _mm512_and_si512(_mm512_loadu_si512(x), magnitude));
  }
  const __mmask16 some = (__mmask16)((1 << count) - 1);
  peak = _mm512_max_epu32(peak, _mm512_and_si512(_mm512_maskz_loadu_epi32(some, x), magnitude));
  const uint32_t bits = _mm512_reduce_max_epu32(peak);
  float out;
  __builtin_memcpy(&out, &bits, sizeof(out));
  return out;
}

void codebook_codes_avx512(const float* x, int64_t count, float inverse, int8_t* codes) noexcept {
  const __m512 by = _mm512_set1_ps(inverse), low = _mm512_set1_ps(-127), high = _mm512_set1_ps(127);
  for (; count > 0; count -= 16, x += 16, codes += 16) {
    const __mmask16 some = (__mmask16)(count >= 16 ? 0xffff : (1 << count) - 1);
    __m512 v = _mm512_mul_ps(_mm512_maskz_loadu_ps(some, x), by);
    v = _mm512_min_ps(_mm512_max_ps(v, low), high);
    _mm512_mask_cvtepi32_storeu_epi8(codes, some, _mm512_cvtps_epi32(v));
  }
}

}  // namespace lowbit

LOWBIT_TARGET_END

#endif
