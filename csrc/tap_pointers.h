// Where a depthwise convolution reads: one pointer per (output pixel, tap), so that inner loops see no borders, strides
// or dilation.
#pragma once

#include "lowbit/gemm_i8.h"

namespace lowbit {

// pointers[ox * count + i] for one output row: the input pixel under tap tap_at(i) = ky * kw + kx, or `pad` outside the
// image and where the tap is negative. image is one image of the batch, ldx its elements between pixels.
template <typename T, typename TapAt>
void fill_tap_pointers(const Conv2dShape& s, const T* image, int64_t ldx, const T* pad, int64_t oy, int64_t count,
                       TapAt&& tap_at, const T** pointers) {
  const int64_t out_w = s.out_w();
  for (int64_t i = 0; i < count; ++i) {
    const int64_t tap = tap_at(i), ky = tap / s.kw, kx = tap % s.kw;
    const int64_t iy = oy * s.stride_h - s.pad_top + ky * s.dilation_h;
    const bool row_inside = tap >= 0 && iy >= 0 && iy < s.h;
    int64_t ix = kx * s.dilation_w - s.pad_left;
    const T** out = pointers + i;
    for (int64_t ox = 0; ox < out_w; ++ox, ix += s.stride_w, out += count) {
      *out = row_inside && ix >= 0 && ix < s.w ? image + (iy * s.w + ix) * ldx : pad;
    }
  }
}

}  // namespace lowbit
