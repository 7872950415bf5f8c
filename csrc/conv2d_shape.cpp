#include "conv2d_shape.h"

#include <stdexcept>
#include <string>

namespace lowbit {
namespace {

constexpr int64_t kMaxSize = int64_t{1} << 31;      // of one dimension
constexpr int64_t kMaxElements = int64_t{1} << 46;  // of one array: offsets in bytes stay far from overflow

[[noreturn]] void fail(const char* function, const std::string& what) {
  throw std::invalid_argument(std::string(function) + ": " + what);
}

void check_range(const char* function, const char* name, int64_t value, int64_t least) {
  if (value < least || value >= kMaxSize) {
    fail(function,
         std::string(name) + " is " + std::to_string(value) + ", must be in [" + std::to_string(least) + ", 2^31)");
  }
}

void check_product(const char* function, const char* name, int64_t a, int64_t b, int64_t c, int64_t d) {
  int64_t product = 1;
  for (int64_t factor : {a, b, c, d}) {
    if (factor == 0) return;
    if (__builtin_mul_overflow(product, factor, &product) || product > kMaxElements) {
      fail(function, std::string(name) + " has more than 2^46 elements");
    }
  }
}

void check_window(const char* function, const char* axis, int64_t padded, int64_t window) {
  if (padded < window) {
    fail(function, std::string("the dilated kernel's ") + axis + " is " + std::to_string(window) +
                       ", the padded image's " + std::to_string(padded));
  }
}

}  // namespace

void check_conv2d_weights(const char* function, const Conv2dShape& s) {
  check_range(function, "c", s.c, 0);
  check_range(function, "oc", s.oc, 0);
  check_range(function, "kh", s.kh, 1);
  check_range(function, "kw", s.kw, 1);
  check_range(function, "stride_h", s.stride_h, 1);
  check_range(function, "stride_w", s.stride_w, 1);
  check_range(function, "dilation_h", s.dilation_h, 1);
  check_range(function, "dilation_w", s.dilation_w, 1);
  check_range(function, "groups", s.groups, 1);
  if (s.c % s.groups != 0 || s.oc % s.groups != 0) {
    fail(function, "groups = " + std::to_string(s.groups) + " does not divide c = " + std::to_string(s.c) +
                       " and oc = " + std::to_string(s.oc));
  }
  check_product(function, "w", s.oc, s.kh, s.kw, s.c / s.groups);
}

void check_conv2d_shape(const char* function, const Conv2dShape& s) {
  check_conv2d_weights(function, s);
  check_range(function, "batch", s.batch, 0);
  check_range(function, "h", s.h, 0);
  check_range(function, "w", s.w, 0);
  check_range(function, "pad_top", s.pad_top, 0);
  check_range(function, "pad_left", s.pad_left, 0);
  check_range(function, "pad_bottom", s.pad_bottom, 0);
  check_range(function, "pad_right", s.pad_right, 0);
  check_product(function, "x", s.batch, s.h, s.w, s.c);
  if (s.batch == 0) return;
  check_window(function, "height", s.h + s.pad_top + s.pad_bottom, s.dilation_h * (s.kh - 1) + 1);
  check_window(function, "width", s.w + s.pad_left + s.pad_right, s.dilation_w * (s.kw - 1) + 1);
  check_product(function, "y", s.batch, s.out_h(), s.out_w(), s.oc);
}

}  // namespace lowbit
