// vpexpandb: 64 merged bytes from two expands, whose two micro-operations each, with the mask's load, fill port 5 for 5
// cycles on Golden Cove (5.3 measured). The second expand merges onto the first: zero-masked, it would wait for its old
// destination on Zen 4. Masks by vpmovb2m from a transposed bitmap take p0 instead of p5 and won nothing (5.6 cycles).
// Flat codes stand in lanes, so that shifts (p0) find them: 1.2 to 1.9 cycles for 64 where vpermb + vpmultishiftqb on
// codes in order take 3.3; vpermb sees six index bits, so with a repeated table no code is masked.
#include <string.h>

#include "huffman/huffman_kernel.h"
#include "target.h"

#if LOWBIT_X86
#include <immintrin.h>

LOWBIT_TARGET_BEGIN_AVX512

namespace lowbit {

static inline __mmask64 first_lanes(int64_t n) {
  return n >= 64 ? ~__mmask64{0} : n <= 0 ? 0 : (__mmask64{1} << n) - 1;
}

// kmovq from memory: GCC would load into a register for popcnt too, and move that over port 5 once more.
static inline __mmask64 load_mask(const uint8_t* bits) {
  __mmask64 mask;
  __asm__("kmovq %1, %0" : "=k"(mask) : "m"(*reinterpret_cast<const uint64_t (*)[1]>(bits)));
  return mask;
}

static inline uint64_t load_word(const uint8_t* bits) {
  uint64_t word;
  memcpy(&word, bits, 8);
  return word;
}

// The last bits of a bitmap: n of them, at most 63.
static inline uint64_t load_tail(const uint8_t* bits, int64_t n) {
  const __m128i bytes = _mm_maskz_loadu_epi8(static_cast<__mmask16>((1u << ((n + 7) / 8)) - 1), bits);
  return static_cast<uint64_t>(_mm_cvtsi128_si64(bytes)) & ((uint64_t{1} << n) - 1);
}

static uint32_t checksum(const uint8_t* bytes, int64_t n) {
  const __m512i weights = _mm512_set1_epi32(0x07050301);
  __m512i s0, s1, s2, s3, w0, w1, w2, w3;
  s0 = s1 = s2 = s3 = w0 = w1 = w2 = w3 = _mm512_setzero_si512();
  int64_t at = 0;
  const auto add = [&](__m512i a, __m512i b, __m512i c, __m512i d) __attribute__((always_inline)) {
    w0 = _mm512_add_epi32(w0, s0 = _mm512_dpbusd_epi32(s0, a, weights));
    w1 = _mm512_add_epi32(w1, s1 = _mm512_dpbusd_epi32(s1, b, weights));
    w2 = _mm512_add_epi32(w2, s2 = _mm512_dpbusd_epi32(s2, c, weights));
    w3 = _mm512_add_epi32(w3, s3 = _mm512_dpbusd_epi32(s3, d, weights));
  };
  for (; at + 256 <= n; at += 256) {
    const uint8_t* p = bytes + at;
    add(_mm512_loadu_si512(p), _mm512_loadu_si512(p + 64), _mm512_loadu_si512(p + 128), _mm512_loadu_si512(p + 192));
  }
  if (at < n) {
    const uint8_t* p = bytes + at;
    const int64_t left = n - at;
    add(_mm512_maskz_loadu_epi8(first_lanes(left), p), _mm512_maskz_loadu_epi8(first_lanes(left - 64), p + 64),
        _mm512_maskz_loadu_epi8(first_lanes(left - 128), p + 128),
        _mm512_maskz_loadu_epi8(first_lanes(left - 192), p + 192));
  }
  uint32_t sum[kChecksumLanes], weighted[kChecksumLanes];
  _mm512_storeu_si512(sum, s0);
  _mm512_storeu_si512(sum + 16, s1);
  _mm512_storeu_si512(sum + 32, s2);
  _mm512_storeu_si512(sum + 48, s3);
  _mm512_storeu_si512(weighted, w0);
  _mm512_storeu_si512(weighted + 16, w1);
  _mm512_storeu_si512(weighted + 32, w2);
  _mm512_storeu_si512(weighted + 48, w3);
  return checksum_of_lanes(sum, weighted, n);
}

static int64_t count_ones(const uint8_t* bits, int64_t n) {
  __m512i ones = _mm512_setzero_si512();
  int64_t at = 0;
  for (; at + 512 <= n; at += 512) {
    ones = _mm512_add_epi64(ones, _mm512_popcnt_epi64(_mm512_loadu_si512(bits + at / 8)));
  }
  const int64_t bytes = (n - at) / 8;
  ones = _mm512_add_epi64(ones, _mm512_popcnt_epi64(_mm512_maskz_loadu_epi8(first_lanes(bytes), bits + at / 8)));
  int64_t sum = _mm512_reduce_add_epi64(ones);
  if (n % 8) sum += _mm_popcnt_u32(bits[n / 8] & ((1u << (n % 8)) - 1));
  return sum;
}

static void merge(const uint8_t* bits, int64_t n, const uint8_t* left, const uint8_t* right, uint8_t* out) {
  int64_t i = 0;
  for (; i + 64 <= n; i += 64, bits += 8) {
    const __mmask64 mask = load_mask(bits);
    const int64_t ones = _mm_popcnt_u64(load_word(bits));
    const __m512i v = _mm512_maskz_expand_epi8(_knot_mask64(mask), _mm512_loadu_si512(left));
    _mm512_storeu_si512(out + i, _mm512_mask_expand_epi8(v, mask, _mm512_loadu_si512(right)));
    right += ones;
    left += 64 - ones;
  }
  if (i < n) {
    const __mmask64 mask = load_tail(bits, n - i);
    const __m512i v = _mm512_maskz_expand_epi8(_knot_mask64(mask), _mm512_loadu_si512(left));
    _mm512_mask_storeu_epi8(out + i, first_lanes(n - i), _mm512_mask_expand_epi8(v, mask, _mm512_loadu_si512(right)));
  }
}

static void merge_leaf(const uint8_t* bits, int64_t n, uint8_t leaf, const uint8_t* right, uint8_t* out) {
  const __m512i leaves = _mm512_set1_epi8(static_cast<char>(leaf));
  int64_t i = 0;
  for (; i + 64 <= n; i += 64, bits += 8) {
    _mm512_storeu_si512(out + i, _mm512_mask_expand_epi8(leaves, load_mask(bits), _mm512_loadu_si512(right)));
    right += _mm_popcnt_u64(load_word(bits));
  }
  if (i < n) {
    _mm512_mask_storeu_epi8(out + i, first_lanes(n - i),
                            _mm512_mask_expand_epi8(leaves, load_tail(bits, n - i), _mm512_loadu_si512(right)));
  }
}

// The bits from `at` on; the lowest 64 of those that are left, zeros behind them.
static inline uint64_t bits_at(const uint8_t* bits, int64_t size, int64_t at) {
  const int64_t bytes = (size + 7) / 8 - at / 8;
  const __mmask16 lanes = static_cast<__mmask16>(bytes >= 16 ? 0xffff : bytes > 0 ? (1u << bytes) - 1 : 0);
  const __m128i v = _mm_maskz_loadu_epi8(lanes, bits + (bytes > 0 ? at / 8 : 0));
  const uint64_t low = static_cast<uint64_t>(_mm_cvtsi128_si64(v)),
                 high = static_cast<uint64_t>(_mm_extract_epi64(v, 1));
  return low >> (at & 7) | high << 1 << (63 - (at & 7));
}

static inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

// pdep puts a bitmap's next bits where those above it have ones: 64 outputs by blends alone, nothing written between.
template <int kLevels>
static void merge_chain_of(const LeafChain& c, uint8_t* out) {
  const __m512i leaf0 = _mm512_set1_epi8(static_cast<char>(c.leaves[0]));
  const __m512i leaf1 = _mm512_set1_epi8(static_cast<char>(c.leaves[1]));
  const __m512i leaf2 = _mm512_set1_epi8(static_cast<char>(c.leaves[2]));
  const __m512i leaf3 = _mm512_set1_epi8(static_cast<char>(c.leaves[3]));
  const uint8_t *const bits0 = c.bits[0], *const bits1 = c.bits[1], *const bits2 = c.bits[2];
  const int64_t n = c.sizes[0], size1 = c.sizes[1], size2 = c.sizes[kLevels - 1];
  int64_t i = 0, at1 = 0, at2 = 0;
  const auto blended = [&](__mmask64 mask1, __mmask64 mask2, __mmask64 mask3) __attribute__((always_inline)) {
    const __m512i v = _mm512_mask_mov_epi8(_mm512_mask_mov_epi8(leaf0, mask1, leaf1), mask2, leaf2);
    return kLevels == 3 ? _mm512_mask_mov_epi8(v, mask3, leaf3) : v;
  };
  const auto careful = [&]() __attribute__((always_inline)) {
    uint64_t ones = bits_at(bits0, n, i);
    if (n - i < 64) ones &= (uint64_t{1} << (n - i)) - 1;
    const uint64_t second = _pdep_u64(bits_at(bits1, size1, at1), ones);
    const uint64_t third = kLevels == 3 ? _pdep_u64(bits_at(bits2, size2, at2), second) : 0;
    _mm512_mask_storeu_epi8(out + i, first_lanes(n - i), blended(ones, second, third));
    at1 += _mm_popcnt_u64(ones);
    at2 += _mm_popcnt_u64(second);
    i += 64;
  };
  while (i < n) {
    // A step takes at most 64 bits of each bitmap and reads 8 bytes.
    int64_t steps = smaller((n - i) / 64, (size1 - at1 - 8) / 64);
    if (kLevels == 3) steps = smaller(steps, (size2 - at2 - 8) / 64);
    for (; steps > 0; --steps, i += 64) {
      const uint64_t ones = load_word(bits0 + i / 8);
      const int64_t count1 = _mm_popcnt_u64(ones);
      if (count1 > 57) break;  // 8 bytes hold 57 bits from any bit on
      const uint64_t second = _pdep_u64(load_word(bits1 + (at1 >> 3)) >> (at1 & 7), ones);
      uint64_t third = 0;
      if (kLevels == 3) {
        third = _pdep_u64(load_word(bits2 + (at2 >> 3)) >> (at2 & 7), second);
        at2 += _mm_popcnt_u64(second);
      }
      at1 += count1;
      _mm512_storeu_si512(out + i, blended(load_mask(bits0 + i / 8), second, third));
    }
    if (i < n) careful();
  }
}

static void merge_chain(const LeafChain& c, uint8_t* out) {
  c.levels == 2 ? merge_chain_of<2>(c, out) : merge_chain_of<3>(c, out);
}

// The k-th codes of all lanes, with other bits above them.
template <int kWidth, int k>
static inline __m512i codes_of(const __m512i* rows) {
  constexpr int kRow = k * kWidth / 8, kShift = k * kWidth % 8;
  if constexpr (kShift == 0) return rows[kRow];
  const __m512i low = _mm512_srli_epi16(rows[kRow], kShift);
  if constexpr (kShift + kWidth <= 8) {
    return low;
  } else {
    const __m512i in_low = _mm512_set1_epi8(static_cast<char>((1 << (8 - kShift)) - 1));
    return _mm512_ternarylogic_epi64(in_low, low, _mm512_slli_epi16(rows[kRow + 1], 8 - kShift), 0xca);  // select
  }
}

template <int kWidth>
static void flat_of(const uint8_t* codes, int64_t n, const uint8_t* table, uint8_t* out) {
  const __m512i bytes = _mm512_loadu_si512(table);
  for (; n >= kFlatBlock; n -= kFlatBlock, codes += 64 * kWidth, out += kFlatBlock) {
    __m512i rows[kWidth];
#pragma GCC unroll 6
    for (int r = 0; r < kWidth; ++r) rows[r] = _mm512_loadu_si512(codes + 64 * r);
    _mm512_storeu_si512(out, _mm512_permutexvar_epi8(codes_of<kWidth, 0>(rows), bytes));
    _mm512_storeu_si512(out + 64, _mm512_permutexvar_epi8(codes_of<kWidth, 1>(rows), bytes));
    _mm512_storeu_si512(out + 128, _mm512_permutexvar_epi8(codes_of<kWidth, 2>(rows), bytes));
    _mm512_storeu_si512(out + 192, _mm512_permutexvar_epi8(codes_of<kWidth, 3>(rows), bytes));
    _mm512_storeu_si512(out + 256, _mm512_permutexvar_epi8(codes_of<kWidth, 4>(rows), bytes));
    _mm512_storeu_si512(out + 320, _mm512_permutexvar_epi8(codes_of<kWidth, 5>(rows), bytes));
    _mm512_storeu_si512(out + 384, _mm512_permutexvar_epi8(codes_of<kWidth, 6>(rows), bytes));
    _mm512_storeu_si512(out + 448, _mm512_permutexvar_epi8(codes_of<kWidth, 7>(rows), bytes));
  }
  const int64_t lanes = n / 8;
  if (lanes > 0) {
    const __mmask64 mask = first_lanes(lanes);
    __m512i rows[kWidth];
#pragma GCC unroll 6
    for (int r = 0; r < kWidth; ++r) rows[r] = _mm512_maskz_loadu_epi8(mask, codes + lanes * r);
    const auto store = [&](__m512i v) __attribute__((always_inline)) {
      _mm512_mask_storeu_epi8(out, mask, _mm512_permutexvar_epi8(v, bytes));
      out += lanes;
    };
    store(codes_of<kWidth, 0>(rows));
    store(codes_of<kWidth, 1>(rows));
    store(codes_of<kWidth, 2>(rows));
    store(codes_of<kWidth, 3>(rows));
    store(codes_of<kWidth, 4>(rows));
    store(codes_of<kWidth, 5>(rows));
    store(codes_of<kWidth, 6>(rows));
    store(codes_of<kWidth, 7>(rows));
    codes += lanes * kWidth;
    n -= 8 * lanes;
  }
  if (n == 0) return;
  // pdep gives each of the last codes a byte
  const uint64_t last = _pdep_u64(last_codes(codes, n, kWidth), ((1 << kWidth) - 1) * 0x0101010101010101u);
  const __m512i v =
      _mm512_permutexvar_epi8(_mm512_zextsi128_si512(_mm_cvtsi64_si128(static_cast<int64_t>(last))), bytes);
  _mm512_mask_storeu_epi8(out, first_lanes(n), v);
}

static void flat_pair(const uint8_t* bits, int64_t n, const uint8_t* table, uint8_t* out) {
  const __m512i zero = _mm512_set1_epi8(static_cast<char>(table[0])),
                one = _mm512_set1_epi8(static_cast<char>(table[1]));
  int64_t i = 0;
  for (; i + 64 <= n; i += 64, bits += 8)
    _mm512_storeu_si512(out + i, _mm512_mask_mov_epi8(zero, load_mask(bits), one));
  if (i < n) {
    _mm512_mask_storeu_epi8(out + i, first_lanes(n - i), _mm512_mask_mov_epi8(zero, load_tail(bits, n - i), one));
  }
}

static void flat(const uint8_t* codes, int64_t n, int width, const uint8_t* table, uint8_t* out) {
  using Fn = void (*)(const uint8_t*, int64_t, const uint8_t*, uint8_t*);
  static constexpr Fn kByWidth[] = {flat_pair, flat_of<2>, flat_of<3>, flat_of<4>, flat_of<5>, flat_of<6>};
  kByWidth[width - 1](codes, n, table, out);
}

// Each byte is spread over `pack` bytes: widened, then shifted copies of its halves put beside each other.
template <int kPack>
static inline __m512i unpacked(const uint8_t* packed, int64_t bytes) {
  const __mmask64 mask = first_lanes(bytes);
  if constexpr (kPack == 2) {
    const __m512i v =
        _mm512_maskz_cvtepu8_epi16(~__mmask32{0}, _mm256_maskz_loadu_epi8(static_cast<__mmask32>(mask), packed));
    return _mm512_and_si512(_mm512_or_si512(v, _mm512_slli_epi16(v, 4)), _mm512_set1_epi8(15));
  } else if constexpr (kPack == 4) {
    __m512i v = _mm512_maskz_cvtepu8_epi32(0xffff, _mm_maskz_loadu_epi8(static_cast<__mmask16>(mask), packed));
    v = _mm512_or_si512(v, _mm512_slli_epi32(v, 12));  // fields 0, 1 | 2, 3 at bits 0 and 16
    return _mm512_and_si512(_mm512_or_si512(v, _mm512_slli_epi32(v, 6)), _mm512_set1_epi8(3));
  } else {
    uint64_t eight = 0;
    memcpy(&eight, packed, static_cast<size_t>(bytes < 8 ? bytes : 8));
    return _mm512_maskz_set1_epi8(eight, 1);
  }
}

template <int kPack>
static void unpack_of(const uint8_t* packed, int64_t n, uint8_t* out) {
  constexpr int64_t kBytes = 64 / kPack;
  for (; n >= 64; n -= 64, packed += kBytes, out += 64) _mm512_storeu_si512(out, unpacked<kPack>(packed, kBytes));
  if (n > 0) _mm512_mask_storeu_epi8(out, first_lanes(n), unpacked<kPack>(packed, (n + kPack - 1) / kPack));
}

static void unpack(const uint8_t* packed, int64_t n, int pack, uint8_t* out) {
  if (pack == 2) unpack_of<2>(packed, n, out);
  if (pack == 4) unpack_of<4>(packed, n, out);
  if (pack == 8) unpack_of<8>(packed, n, out);
}

const PivotDecoder pivot_decoder_avx512 = {checksum, count_ones, merge, merge_leaf, merge_chain, flat, unpack};

}  // namespace lowbit

LOWBIT_TARGET_END
#endif
