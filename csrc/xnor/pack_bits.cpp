// Doors: pack_bits, unpack_bits, max_pool_bits.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <stdexcept>

#include "conv2d_shape.h"
#include "scratch.h"
#include "target.h"
#include "thread_pool.h"
#include "variant.h"
#include "xnor/xnor_packed.h"

namespace lowbit {
namespace {

using PackFn = bool (*)(const BitRows&) noexcept;
constexpr Variant<PackFn> kPackF32[] = {
#if LOWBIT_X86
    {Isa::avx512, pack_bits_f32_avx512},
    {Isa::avx2, pack_bits_f32_avx2},
#endif
    {Isa::scalar, pack_bits_f32_scalar}};
constexpr Variant<PackFn> kPackS8[] = {
#if LOWBIT_X86
    {Isa::avx512, pack_bits_s8_avx512},
#endif
    {Isa::scalar, pack_bits_s8_scalar}};
constexpr Variant<PackFn> kPackU8[] = {
#if LOWBIT_X86
    {Isa::avx512, pack_bits_u8_avx512},
#endif
    {Isa::scalar, pack_bits_u8_scalar}};

using UnpackFn = void (*)(const SignRows&) noexcept;
constexpr Variant<UnpackFn> kUnpack[] = {
#if LOWBIT_X86
    {Isa::avx512, unpack_bits_avx512},
#endif
    {Isa::scalar, unpack_bits_scalar}};

constexpr int64_t kGrainBits = 1 << 17;  // that one thread should have at least: waking another costs microseconds

void check_rows(const char* function, int64_t rows, int64_t c, int64_t ldx, int64_t ld_bits) {
  if (rows < 0 || c < 0 || rows >= int64_t{1} << 46 || c >= int64_t{1} << 31) {
    fail_xnor(function, "rows = " + std::to_string(rows) + ", c = " + std::to_string(c));
  }
  if (rows > 1 && ldx < c) fail_xnor(function, "ldx is " + std::to_string(ldx) + ", c is " + std::to_string(c));
  if (rows > 1 && ld_bits < bit_words(c)) {
    fail_xnor(function, "ld_bits is " + std::to_string(ld_bits) + ", a row has " + std::to_string(bit_words(c)));
  }
}

[[noreturn]] void fail_nan(const float* x, int64_t rows, int64_t ldx, int64_t c) {
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < c; ++j) {
      if (std::isnan(x[i * ldx + j]))
        fail_xnor("pack_bits", "x[" + std::to_string(i) + ", " + std::to_string(j) + "] is NaN");
    }
  }
  fail_xnor("pack_bits", "x held a NaN");
}

}  // namespace

const uint32_t* flip_words(const uint8_t* flip, int64_t groups, int64_t channels, int64_t words_per_group) {
  uint32_t* words = scratch<uint32_t>(ScratchSlot::bit_flips, size_t(groups * words_per_group));
  std::fill_n(words, groups * words_per_group, 0u);
  for (int64_t g = 0; flip && g < groups; ++g) {
    for (int64_t j = 0; j < channels; ++j) {
      words[g * words_per_group + j / 32] |= uint32_t(flip[g * channels + j] != 0) << j % 32;
    }
  }
  return words;
}

void pack_bits(const void* x, DType dtype, int64_t rows, int64_t ldx, int64_t c, const float* threshold,
               const uint8_t* flip, uint32_t* bits, int64_t ld_bits, Isa isa, int threads) {
  constexpr const char* kName = "pack_bits";
  check_rows(kName, rows, c, ldx, ld_bits);
  if (dtype == DType::s32) fail_xnor(kName, "x is int32, must be float32, int8 or uint8");
  for (int64_t j = 0; threshold && j < c; ++j) {
    if (std::isnan(threshold[j])) fail_xnor(kName, "threshold[" + std::to_string(j) + "] is NaN");
  }
  threads = resolve_threads(threads);
  if (rows == 0 || c == 0) return;
  const uint32_t* flips = flip ? flip_words(flip, 1, c, bit_words(c)) : nullptr;
  const PackFn pack = dtype == DType::f32  ? pick(kPackF32, isa)
                      : dtype == DType::s8 ? pick(kPackS8, isa)
                                           : pick(kPackU8, isa);
  std::atomic<bool> nan = false;
  parallel_for(threads, rows, kGrainBits / c + 1, [&](int64_t begin, int64_t end) {
    const char* from = static_cast<const char*>(x) + begin * ldx * int64_t(dtype_size(dtype));
    if (pack({from, end - begin, ldx, c, threshold, flips, bits + begin * ld_bits, ld_bits})) nan = true;
  });
  if (nan) fail_nan(static_cast<const float*>(x), rows, ldx, c);
}

void unpack_bits(const uint32_t* bits, int64_t rows, int64_t ld_bits, int64_t c, int8_t* x, int64_t ldx, Isa isa,
                 int threads) {
  check_rows("unpack_bits", rows, c, ldx, ld_bits);
  threads = resolve_threads(threads);
  if (rows == 0 || c == 0) return;
  const UnpackFn unpack = pick(kUnpack, isa);
  parallel_for(threads, rows, kGrainBits / c + 1, [&](int64_t begin, int64_t end) {
    unpack({bits + begin * ld_bits, end - begin, ld_bits, c, x + begin * ldx, ldx});
  });
}

void max_pool_bits(const uint32_t* x, int64_t ldx, const Conv2dShape& shape, uint32_t* y, int64_t ldy, Isa,
                   int threads) {
  constexpr const char* kName = "max_pool_bits";
  Conv2dShape s = shape;
  s.oc = s.c;
  s.groups = 1;
  check_conv2d_shape(kName, s);
  const int64_t words = bit_words(s.c);
  for (int64_t ld : {ldx, ldy}) {
    if (ld < words)
      fail_xnor(kName, "a row of " + std::to_string(ld) + " words is below the " + std::to_string(words) +
                           " of c = " + std::to_string(s.c));
  }
  threads = resolve_threads(threads);
  if (s.batch == 0 || s.c == 0) return;
  const int64_t out_h = s.out_h(), out_w = s.out_w();
  const int64_t row_bits = out_w * s.c * s.kh * s.kw;
  parallel_for(threads, s.batch * out_h, kGrainBits / row_bits + 1, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      uint32_t* out = y + row * out_w * ldy;
      for (int64_t ox = 0; ox < out_w; ++ox) std::memset(out + ox * ldy, 0, size_t(words) * sizeof(uint32_t));
      for (int64_t ky = 0; ky < s.kh; ++ky) {
        const int64_t iy = row % out_h * s.stride_h - s.pad_top + ky * s.dilation_h;
        if (iy < 0 || iy >= s.h) continue;
        const uint32_t* in = x + (row / out_h * s.h + iy) * s.w * ldx;
        for (int64_t kx = 0; kx < s.kw; ++kx) {
          int64_t ix = kx * s.dilation_w - s.pad_left;
          for (int64_t ox = 0; ox < out_w; ++ox, ix += s.stride_w) {
            if (ix < 0 || ix >= s.w) continue;
            for (int64_t p = 0; p < words; ++p) out[ox * ldy + p] |= in[ix * ldx + p];
          }
        }
      }
    }
  });
}

}  // namespace lowbit
