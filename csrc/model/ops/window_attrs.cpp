#include "model/ops/window_attrs.h"

#include <algorithm>

namespace lowbit {
namespace {

constexpr int64_t kMaxWindow = 1 << 16;  // strides, dilations, kernel sizes
constexpr int64_t kMaxPad = 1 << 12;

// Window starts at oy * stride - pad for oy in [0, out); taps every `dilation`; some tap of each must be in [0, size).
bool every_window_sees_the_image(int64_t size, int64_t out, int64_t stride, int64_t pad, int64_t dilation,
                                 int64_t taps) {
  if ((out - 1) * stride - pad >= size) return false;
  for (int64_t o = 0; o < out && o * stride < pad; ++o) {
    const int64_t start = o * stride - pad;
    const int64_t first = (-start + dilation - 1) / dilation;  // the first tap at or after pixel 0
    if (first >= taps || start + first * dilation >= size) return false;
  }
  return true;
}

}  // namespace

Conv2dShape read_window(OpReader& reader, int64_t kh, int64_t kw, bool with_groups) {
  const Activation& x = reader.input(0);
  const Activation& y = reader.output();
  reader.need_rank(x, 4);
  reader.need_rank(y, 4);
  Fields& attrs = reader.attrs();
  const auto strides = attrs.integers("strides", 2, 1, kMaxWindow, 1);
  const auto pads = attrs.integers("pads", 4, 0, kMaxPad, 0);
  const auto dilations = attrs.integers("dilations", 2, 1, kMaxWindow, 1);
  Conv2dShape s;
  s.h = x.dims[1];
  s.w = x.dims[2];
  s.c = x.dims[3];
  s.oc = y.dims[3];
  s.kh = kh;
  s.kw = kw;
  s.stride_h = strides[0];
  s.stride_w = strides[1];
  s.pad_top = pads[0];
  s.pad_left = pads[1];
  s.pad_bottom = pads[2];
  s.pad_right = pads[3];
  s.dilation_h = dilations[0];
  s.dilation_w = dilations[1];
  if (with_groups) s.groups = attrs.integer("groups", 1, s.c, 1);
  if (kh < 1 || kw < 1 || kh > kMaxWindow || kw > kMaxWindow) {
    reader.fail("the kernel is " + std::to_string(kh) + " x " + std::to_string(kw));
  }
  if (s.c % s.groups != 0 || s.oc % s.groups != 0) {
    reader.fail(std::to_string(s.groups) + " groups do not divide " + std::to_string(s.c) + " input and " +
                std::to_string(s.oc) + " output channels");
  }
  const int64_t span_h = s.dilation_h * (kh - 1) + 1, span_w = s.dilation_w * (kw - 1) + 1;
  if (s.h + s.pad_top + s.pad_bottom < span_h || s.w + s.pad_left + s.pad_right < span_w) {
    reader.fail("the window, " + std::to_string(span_h) + " x " + std::to_string(span_w) +
                ", does not fit the padded image of '" + x.name + "' " + shape_text(x.dims));
  }
  const int64_t expected[] = {-1, s.out_h(), s.out_w(), s.oc};
  reader.need_dims(y, expected);
  return s;
}

Conv2dShape read_pool_window(OpReader& reader, bool with_dilations) {
  if (!reader.attrs().has("kernel")) reader.fail("'kernel' is missing");
  const auto kernel = reader.attrs().integers("kernel", 2, 1, kMaxWindow, 1);
  const Conv2dShape s = read_window(reader, kernel[0], kernel[1], false);
  if (s.c != s.oc)
    reader.fail("pooling keeps the channels, not " + std::to_string(s.c) + " -> " + std::to_string(s.oc));
  if (!with_dilations && (s.dilation_h != 1 || s.dilation_w != 1)) reader.fail("takes no 'dilations'");
  if (!every_window_sees_the_image(s.h, s.out_h(), s.stride_h, s.pad_top, s.dilation_h, s.kh) ||
      !every_window_sees_the_image(s.w, s.out_w(), s.stride_w, s.pad_left, s.dilation_w, s.kw)) {
    reader.fail("a window covers nothing but padding");
  }
  return s;
}

}  // namespace lowbit
