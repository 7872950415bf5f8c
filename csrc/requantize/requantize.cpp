#include "lowbit/requantize.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <stdexcept>
#include <string>

#include "requantize/requantize_kernel.h"
#include "scratch.h"
#include "target.h"
#include "thread_pool.h"
#include "variant.h"

namespace lowbit {
namespace {

constexpr Variant<RequantizeFn> kRequantize[] = {
#if LOWBIT_X86
    {Isa::avx512_vnni, requantize_avx512_vnni},
    {Isa::avx2, requantize_avx2},
#endif
    {Isa::scalar, requantize_scalar},
};

[[noreturn]] void fail(const char* function, const std::string& what) {
  throw std::invalid_argument(std::string(function) + ": " + what);
}

bool is_code(DType t) { return t == DType::s8 || t == DType::u8; }
int32_t type_lo(DType t) { return t == DType::u8 ? 0 : -128; }
int32_t type_hi(DType t) { return t == DType::u8 ? 255 : 127; }

void check_zero_point(const char* function, const char* name, int32_t zero_point, DType dtype) {
  if (zero_point < type_lo(dtype) || zero_point > type_hi(dtype)) {
    fail(function, std::string(name) + " " + std::to_string(zero_point) + " is not a value of " + dtype_name(dtype));
  }
}

constexpr float kFixedPointLimit = 0x1p30f;  // the fixed-point roundings' shifts stay within 64 bits

void check_scale(const char* function, const std::string& name, float s, bool fixed_point) {
  if (!(s > 0.0f && s <= __FLT_MAX__)) fail(function, name + " is " + std::to_string(s) + ", must be finite and > 0");
  if (fixed_point && s >= kFixedPointLimit) {
    fail(function, name + " is " + std::to_string(s) + ", must be below 2^30 with fixed-point rounding");
  }
}

// Checks all scales and returns the greatest. Their bits, as whole numbers, are in the same order: this runs for every
// channel of every call, and so in vectors.
float check_scales(const char* function, const Epilogue& e, int64_t n, bool fixed_point) {
  if (e.scale_count != 1 && e.scale_count != n) {
    fail(function, "scale_count is " + std::to_string(e.scale_count) + ", must be 1 or n = " + std::to_string(n));
  }
  if (e.scale_count > 0 && !e.scale)
    fail(function, "scale is null for an output of " + std::string(dtype_name(e.out_dtype)));
  int32_t least = 1, greatest = 0;
  for (int64_t j = 0; j < e.scale_count; ++j) {
    const int32_t bits = std::bit_cast<int32_t>(e.scale[j]);
    least = std::min(least, bits);
    greatest = std::max(greatest, bits);
  }
  const float limit = fixed_point ? kFixedPointLimit : __builtin_inff();
  if (least < 1 || greatest >= std::bit_cast<int32_t>(limit)) {
    for (int64_t j = 0; j < e.scale_count; ++j)
      check_scale(function, "scale[" + std::to_string(j) + "]", e.scale[j], fixed_point);
  }
  return std::bit_cast<float>(greatest);
}

// The pair of a multiplier. Below 2^-32 it takes every int32 to 0, in both roundings; so does 2^-33, whose shifts fit
// 64 bits and which stands for all of them (subnormals among them).
FixedPoint fixed_point(float scale) {
  const int32_t bits = std::bit_cast<int32_t>(scale), shift = (bits >> 23) - 126;
  return shift < -32 ? FixedPoint{1 << 30, -32} : FixedPoint{((bits & 0x7fffff) | 0x800000) << 7, shift};
}

// Whether Finish::floor gives every code. A sum x is exact as a float up to 2^24, and so is its code then, with s at
// least 2^-24 for the FMA's addend to be one. Sums beyond may be rounded where their codes saturate whatever the
// residual is, or where every code is 0.
bool exact_by_floor(const Requantizer& q, int64_t n, int64_t sum_limit) {
  const float residual = q.residual ? q.residual_scale : 0.0f;
  if (q.residual && !(residual >= 0x1p-8f && residual <= 0x1p8f)) return false;
  const float saturates = (260.0f + 257.0f * residual) * 0x1p-24f, limit = static_cast<float>(sum_limit);
  const auto fails = [&](int64_t step) {  // without branches: this, too, is in vectors
    int count = 0;
    for (int64_t j = 0; j < n; ++j) {
      const float s = q.scale[j * step], greatest = limit + (q.bias ? std::fabs(static_cast<float>(q.bias[j])) : 0.0f);
      const bool exact = (s >= 0x1p-24f) & (greatest < 16777000.0f);
      const bool zero = (greatest * s < 0.49f) & (greatest < 2147483000.0f);
      count += !((s >= saturates) | exact | zero);
    }
    return count;
  };
  return (q.scale_step ? fails(1) : fails(0)) == 0;
}

}  // namespace

void fixed_point_multiplier(float scale, int32_t& m0, int& shift) {
  check_scale("fixed_point_multiplier", "scale", scale, false);
  m0 = static_cast<int32_t>(std::ldexp(std::frexp(scale, &shift), 31));  // exact: a float has 24 bits
}

FixedPoint exact_fixed_point(const char* function, double multiplier) {
  if (!(multiplier > 0.0 && multiplier < double{kFixedPointLimit})) {
    fail(function, "a ratio of scales is " + std::to_string(multiplier) + ", must be > 0 and below 2^30");
  }
  int shift;
  int64_t m0 = std::llrint(std::ldexp(std::frexp(multiplier, &shift), 31));
  if (m0 == int64_t{1} << 31) {
    m0 >>= 1;
    ++shift;
  }
  return shift < -32 ? FixedPoint{1 << 30, -32} : FixedPoint{static_cast<int32_t>(m0), shift};
}

Requantizer make_requantizer(const char* function, const Epilogue& epilogue, int64_t n, int64_t sum_limit) {
  Requantizer q;
  static_cast<Epilogue&>(q) = epilogue;
  if (q.out_dtype == DType::s32) {
    if (q.residual) fail(function, "an int32 output takes no residual");
    return q;
  }
  const bool fixed = is_code(q.out_dtype) && q.rounding != Rounding::nearest_even;
  q.max_scale = check_scales(function, q, n, fixed);
  q.scale_step = q.scale_count == 1 ? 0 : 1;
  if (q.out_dtype == DType::f32) {
    if (q.residual && q.residual_dtype != DType::f32) fail(function, "a float32 output takes a float32 residual");
    if (!(q.flo <= q.fhi))
      fail(function, "clamp flo " + std::to_string(q.flo) + " is above fhi " + std::to_string(q.fhi));
    return q;
  }
  check_zero_point(function, "zero_point", q.zero_point, q.out_dtype);
  q.lo = std::max(q.lo, type_lo(q.out_dtype));
  q.hi = std::min(q.hi, type_hi(q.out_dtype));
  if (q.lo > q.hi) {
    fail(function, "clamp " + std::to_string(epilogue.lo) + ".." + std::to_string(epilogue.hi) +
                       " leaves no value of " + dtype_name(q.out_dtype));
  }
  if (q.float_bias) fail(function, "float_bias needs a float32 output");
  if (q.residual) {
    if (!is_code(q.residual_dtype)) fail(function, "an 8-bit output takes an int8 or uint8 residual");
    check_zero_point(function, "residual_zero_point", q.residual_zero_point, q.residual_dtype);
    check_scale(function, "residual_scale", q.residual_scale, fixed);
  }
  q.may_overflow = q.max_scale > 0.5f || (q.residual && q.residual_scale > 1048576.0f);
  if (fixed) {
    int32_t* m0 = scratch<int32_t>(ScratchSlot::fixed_point, static_cast<size_t>(2 * q.scale_count));
    int32_t* shift = m0 + q.scale_count;
    for (int64_t j = 0; j < q.scale_count; ++j) {
      const FixedPoint pair = fixed_point(q.scale[j]);
      m0[j] = pair.m0;
      shift[j] = pair.shift;
    }
    q.m0 = m0;
    q.shift = shift;
    if (q.residual) q.residual_fixed = fixed_point(q.residual_scale * 0x1p-16f);
    q.below_half = q.max_scale < 0.5f && (!q.residual || q.residual_fixed.shift < 0);
    q.by_floor = exact_by_floor(q, n, sum_limit);
  }
  return q;
}

void requantize(const int32_t* acc, int64_t acc_stride, int64_t m, int64_t n, void* y, int64_t y_stride,
                const Epilogue& epilogue, Isa isa, int threads) {
  constexpr const char* kName = "requantize";
  if (m < 0 || n < 0) fail(kName, "m = " + std::to_string(m) + ", n = " + std::to_string(n) + " must be >= 0");
  if (m > 1 && (acc_stride < n || y_stride < n)) {
    fail(kName, "acc_stride = " + std::to_string(acc_stride) + " and y_stride = " + std::to_string(y_stride) +
                    " must be at least n = " + std::to_string(n));
  }
  const Requantizer q = make_requantizer(kName, epilogue, n);
  threads = resolve_threads(threads);
  if (m == 0 || n == 0) return;
  if (!acc || !y) fail(kName, "acc or y is null");
  const RequantizeFn fn = pick(kRequantize, isa);
  constexpr int64_t kGrain = 32768;  // elements worth a thread
  if (m == 1) {
    parallel_for(threads, n, kGrain,
                 [&](int64_t j0, int64_t j1) { fn(acc + j0, acc_stride, 0, 1, j0, j1 - j0, y, y_stride, q); });
    return;
  }
  parallel_for(threads, m, (kGrain + n - 1) / n, [&](int64_t i0, int64_t i1) {
    fn(acc + i0 * acc_stride, acc_stride, i0, i1 - i0, 0, n, y, y_stride, q);
  });
}

}  // namespace lowbit
