// vpshufb by a table of 256 x 8 indices: the next 8 bytes of either list, put in the order that 8 bits of the bitmap
// say.
#include <string.h>

#include "huffman/huffman_kernel.h"
#include "target.h"

#if LOWBIT_X86
#include <immintrin.h>

namespace lowbit {

// Byte i of entry b: which byte of (8 of left, 8 of right) is the i-th, where bit i of b says right.
struct MergeOrders {
  alignas(64) uint8_t order[256][8];
  constexpr MergeOrders() : order() {
    for (int b = 0; b < 256; ++b) {
      uint8_t left = 0, right = 8;
      for (int i = 0; i < 8; ++i) order[b][i] = b >> i & 1 ? right++ : left++;
    }
  }
};
static constexpr MergeOrders kMerge;

}  // namespace lowbit

LOWBIT_TARGET_BEGIN_AVX2

namespace lowbit {

static uint32_t checksum(const uint8_t* bytes, int64_t n) {
  constexpr int kVectors = 8;
  const __m256i weights = _mm256_set1_epi32(0x07050301), ones = _mm256_set1_epi16(1);
  __m256i sum[kVectors], weighted[kVectors];
#pragma GCC unroll 8
  for (int v = 0; v < kVectors; ++v) sum[v] = weighted[v] = _mm256_setzero_si256();
  uint8_t tail[256];
  for (int64_t at = 0; at < n; at += 256) {
    const uint8_t* p = bytes + at;
    if (n - at < 256) {
      memset(tail, 0, sizeof(tail));
      memcpy(tail, p, static_cast<size_t>(n - at));
      p = tail;
    }
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      const __m256i x = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 32 * v));
      // at most 255 * (5 + 7): no pair saturates
      sum[v] = _mm256_add_epi32(sum[v], _mm256_madd_epi16(_mm256_maddubs_epi16(x, weights), ones));
      weighted[v] = _mm256_add_epi32(weighted[v], sum[v]);
    }
  }
  uint32_t lanes[2][kChecksumLanes];
  for (int v = 0; v < kVectors; ++v) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(lanes[0] + 8 * v), sum[v]);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(lanes[1] + 8 * v), weighted[v]);
  }
  return checksum_of_lanes(lanes[0], lanes[1], n);
}

static int64_t count_ones(const uint8_t* bits, int64_t n) {
  int64_t ones = 0;
  for (; n >= 64; n -= 64, bits += 8) {
    uint64_t word;
    memcpy(&word, bits, 8);
    ones += _mm_popcnt_u64(word);
  }
  uint64_t word = 0;
  memcpy(&word, bits, static_cast<size_t>((n + 7) / 8));
  return ones + _mm_popcnt_u64(_bzhi_u64(word, static_cast<unsigned>(n)));
}

static inline __m128i eight(const uint8_t* p) { return _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)); }

// The 8 outputs of 8 bits.
static inline __m128i merged(unsigned bits, const uint8_t* left, const uint8_t* right) {
  return _mm_shuffle_epi8(_mm_unpacklo_epi64(eight(left), eight(right)), eight(kMerge.order[bits]));
}

static inline void store_first(uint8_t* out, __m128i v, int64_t n) {
  uint8_t bytes[16];
  _mm_storeu_si128(reinterpret_cast<__m128i*>(bytes), v);
  memcpy(out, bytes, static_cast<size_t>(n));
}

static void merge(const uint8_t* bits, int64_t n, const uint8_t* left, const uint8_t* right, uint8_t* out) {
  for (; n >= 16; n -= 16, bits += 2, out += 16) {
    const unsigned low = bits[0], high = bits[1];
    const int64_t ones = _mm_popcnt_u32(low), both = _mm_popcnt_u32(low | high << 8);
    const __m128i first = merged(low, left, right), second = merged(high, left + 8 - ones, right + ones);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm_unpacklo_epi64(first, second));
    right += both;
    left += 16 - both;
  }
  for (; n > 0; n -= 8, ++bits, out += 8) {
    const int64_t ones = _mm_popcnt_u32(*bits);
    store_first(out, merged(*bits, left, right), n < 8 ? n : 8);
    right += ones;
    left += 8 - ones;
  }
}

static void merge_leaf(const uint8_t* bits, int64_t n, uint8_t leaf, const uint8_t* right, uint8_t* out) {
  const __m128i leaves = _mm_set1_epi8(static_cast<char>(leaf));
  const auto one = [&](unsigned b, const uint8_t* from) __attribute__((always_inline)) {
    return _mm_shuffle_epi8(_mm_unpacklo_epi64(leaves, eight(from)), eight(kMerge.order[b]));
  };
  for (; n >= 16; n -= 16, bits += 2, out += 16) {
    const unsigned low = bits[0], high = bits[1];
    const __m128i first = one(low, right), second = one(high, right + _mm_popcnt_u32(low));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm_unpacklo_epi64(first, second));
    right += _mm_popcnt_u32(low | high << 8);
  }
  for (; n > 0; n -= 8, ++bits, out += 8) {
    store_first(out, one(*bits, right), n < 8 ? n : 8);
    right += _mm_popcnt_u32(*bits);
  }
}

// table[code] for codes of kWidth bits, with nothing above them.
template <int kWidth>
static inline __m256i looked_up(__m256i codes, const __m256i* tables) {
  if constexpr (kWidth <= 4) {
    return _mm256_shuffle_epi8(tables[0], codes);
  } else {
    // bit 4 (and 5) chooses the table; vpblendvb looks at bit 7
    const __m256i bit4 = _mm256_slli_epi16(codes, 3);
    const __m256i low =
        _mm256_blendv_epi8(_mm256_shuffle_epi8(tables[0], codes), _mm256_shuffle_epi8(tables[1], codes), bit4);
    if constexpr (kWidth == 5) return low;
    const __m256i high =
        _mm256_blendv_epi8(_mm256_shuffle_epi8(tables[2], codes), _mm256_shuffle_epi8(tables[3], codes), bit4);
    return _mm256_blendv_epi8(low, high, _mm256_slli_epi16(codes, 2));
  }
}

template <int kWidth>
static inline __m256i codes_of(int k, const uint8_t* rows) {
  const int shift = k * kWidth % 8;
  const uint8_t* row = rows + k * kWidth / 8 * 64;
  __m256i v = _mm256_srli_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(row)), shift);
  if (shift + kWidth > 8) {
    const __m256i in_low = _mm256_set1_epi8(static_cast<char>((1 << (8 - shift)) - 1));
    const __m256i next = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(row + 64));
    v = _mm256_or_si256(_mm256_and_si256(in_low, v), _mm256_andnot_si256(in_low, _mm256_slli_epi16(next, 8 - shift)));
  }
  return _mm256_and_si256(v, _mm256_set1_epi8((1 << kWidth) - 1));
}

template <int kWidth>
static void flat_of(const uint8_t* codes, int64_t n, const uint8_t* table, uint8_t* out) {
  __m256i tables[4];
#pragma GCC unroll 4
  for (int t = 0; t < 4; ++t) {
    tables[t] = _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(table + 16 * t)));
  }
  const auto block = [&](const uint8_t* rows, uint8_t* to) __attribute__((always_inline)) {
#pragma GCC unroll 2
    for (int half = 0; half < 64; half += 32) {
#pragma GCC unroll 8
      for (int k = 0; k < 8; ++k) {
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + 64 * k + half),
                            looked_up<kWidth>(codes_of<kWidth>(k, rows + half), tables));
      }
    }
  };
  for (; n >= kFlatBlock; n -= kFlatBlock, codes += 64 * kWidth, out += kFlatBlock) block(codes, out);
  if (const int64_t lanes = n / 8; lanes > 0) {
    uint8_t rows[64 * kWidth], bytes[kFlatBlock];
    for (int r = 0; r < kWidth; ++r) memcpy(rows + 64 * r, codes + lanes * r, static_cast<size_t>(lanes));
    block(rows, bytes);
    for (int k = 0; k < 8; ++k, out += lanes) memcpy(out, bytes + 64 * k, static_cast<size_t>(lanes));
    codes += lanes * kWidth;
    n -= 8 * lanes;
  }
  uint64_t bits = last_codes(codes, n, kWidth);
  for (; n > 0; --n, bits >>= kWidth) *out++ = table[bits & ((1 << kWidth) - 1)];
}

static void flat_pair(const uint8_t* bits, int64_t n, const uint8_t* table, uint8_t* out) {
  const __m256i spread =
      _mm256_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3);
  const __m256i own_bit = _mm256_set1_epi64x(static_cast<int64_t>(0x8040201008040201u));
  const __m256i zero = _mm256_set1_epi8(static_cast<char>(table[0]));
  const __m256i one = _mm256_set1_epi8(static_cast<char>(table[1]));
  int64_t i = 0;
  for (; i + 32 <= n; i += 32) {
    uint32_t word;
    memcpy(&word, bits + i / 8, 4);
    const __m256i bytes =
        _mm256_and_si256(_mm256_shuffle_epi8(_mm256_set1_epi32(static_cast<int>(word)), spread), own_bit);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + i),
                        _mm256_blendv_epi8(zero, one, _mm256_cmpeq_epi8(bytes, own_bit)));
  }
  for (; i < n; ++i) out[i] = table[bits[i / 8] >> (i % 8) & 1];
}

static void flat(const uint8_t* codes, int64_t n, int width, const uint8_t* table, uint8_t* out) {
  using Fn = void (*)(const uint8_t*, int64_t, const uint8_t*, uint8_t*);
  static constexpr Fn kByWidth[] = {flat_pair, flat_of<2>, flat_of<3>, flat_of<4>, flat_of<5>, flat_of<6>};
  kByWidth[width - 1](codes, n, table, out);
}

// Each byte is widened, and shifted copies of its halves put beside each other.
static void unpack(const uint8_t* packed, int64_t n, int pack, uint8_t* out) {
  const int bits = 8 / pack;
  int64_t i = 0;
  if (pack == 2) {
    for (; i + 32 <= n; i += 32, packed += 16) {
      const __m256i v = _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(packed)));
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + i),
                          _mm256_and_si256(_mm256_or_si256(v, _mm256_slli_epi16(v, 4)), _mm256_set1_epi8(15)));
    }
  } else if (pack == 4) {
    for (; i + 32 <= n; i += 32, packed += 8) {
      __m256i v = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(packed)));
      v = _mm256_or_si256(v, _mm256_slli_epi32(v, 12));
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + i),
                          _mm256_and_si256(_mm256_or_si256(v, _mm256_slli_epi32(v, 6)), _mm256_set1_epi8(3)));
    }
  } else {
    const uint8_t zero_one[2] = {0, 1};
    flat_pair(packed, n, zero_one, out);
    return;
  }
  for (; i < n; ++i, packed += i % pack == 0)
    out[i] = static_cast<uint8_t>(*packed >> (i % pack * bits) & ((1 << bits) - 1));
}

const PivotDecoder pivot_decoder_avx2 = {checksum, count_ones, merge, merge_leaf, nullptr, flat, unpack};

}  // namespace lowbit

LOWBIT_TARGET_END
#endif
