#include "pointwise/pointwise_checks.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

namespace lowbit::pointwise {
namespace {

int32_t lowest(DType dtype) { return dtype == DType::s8 ? -128 : 0; }

// From a code to the byte of pointwise_kernel.h.
int32_t shift(DType dtype) { return dtype == DType::s8 ? 128 : 0; }

}  // namespace

void fail(const char* function, const std::string& what) {
  throw std::invalid_argument(std::string(function) + ": " + what);
}

void check_level(const char* function, Isa isa) {
  if (!isa_supported(isa)) fail(function, std::string("level '") + isa_name(isa) + "' is not on this machine");
}

void check_rounding(const char* function, Rounding rounding) {
  if (rounding > Rounding::single) fail(function, "unknown rounding " + std::to_string(static_cast<int>(rounding)));
}

void check_size(const char* function, const char* name, int64_t size) {
  if (size < 0) fail(function, std::string(name) + " = " + std::to_string(size) + " is negative");
}

int64_t check_product(const char* function, int64_t a, int64_t b, int64_t c) {
  for (int64_t size : {a, b, c}) check_size(function, "a size", size);
  if (a == 0 || b == 0 || c == 0) return 0;
  int64_t product;
  if (__builtin_mul_overflow(a, b, &product) || __builtin_mul_overflow(product, c, &product)) {
    fail(function, std::to_string(a) + " x " + std::to_string(b) + " x " + std::to_string(c) + " elements overflow");
  }
  return product;
}

void check_codes(const char* function, const char* name, const Codes& codes) {
  if (codes.dtype != DType::s8 && codes.dtype != DType::u8) {
    fail(function, std::string(name) + " has dtype " + dtype_name(codes.dtype) + ", codes are int8 or uint8");
  }
  if (!(std::isfinite(codes.scale) && codes.scale > 0)) {
    fail(function, std::string(name) + " has scale " + std::to_string(codes.scale) + ", not finite and > 0");
  }
  const int32_t low = lowest(codes.dtype);
  if (codes.zero_point < low || codes.zero_point > low + 255) {
    fail(function, std::string(name) + " has zero point " + std::to_string(codes.zero_point) + ", not in " +
                       std::to_string(low) + ".." + std::to_string(low + 255));
  }
}

CodeIn code_in(const char* function, const char* name, const Codes& codes, float factor) {
  check_codes(function, name, codes);
  const int32_t move = shift(codes.dtype);
  return {codes.zero_point + move, factor, static_cast<uint8_t>(move)};
}

CodeOut code_out(const char* function, const Codes& codes, int32_t lo, int32_t hi) {
  check_codes(function, "the output", codes);
  const int32_t low = lowest(codes.dtype), move = shift(codes.dtype);
  const int32_t least = std::max(lo, low), most = std::min(hi, low + 255);
  if (least > most) {
    fail(function,
         "lo = " + std::to_string(lo) + " and hi = " + std::to_string(hi) + " leave no " + dtype_name(codes.dtype));
  }
  return {codes.zero_point + move, least + move, most + move, static_cast<uint8_t>(move)};
}

}  // namespace lowbit::pointwise
