// Where a depthwise convolution reads: one pointer per (output pixel, tap), so that inner loops see no borders, strides
// or dilation.
#pragma once

#include "lowbit/gemm_i8.h"

namespace lowbit {

// taps[ox * tap_stride + ky * kw + kx] for one output row: the input pixel under that tap, or `pad` outside the image;
// from kh * kw to tap_stride `pad` too. image is one image of the batch, ldx its elements between pixels.
template <typename T>
void fill_tap_pointers(const Conv2dShape& s, const T* image, int64_t ldx, const T* pad, int64_t oy, int64_t tap_stride,
                       const T** taps) {
  const int64_t out_w = s.out_w();
  for (int64_t ky = 0; ky < s.kh; ++ky) {
    const int64_t iy = oy * s.stride_h - s.pad_top + ky * s.dilation_h;
    const bool row_inside = iy >= 0 && iy < s.h;
    for (int64_t kx = 0; kx < s.kw; ++kx) {
      const T** out = taps + ky * s.kw + kx;
      int64_t ix = kx * s.dilation_w - s.pad_left;
      for (int64_t ox = 0; ox < out_w; ++ox, ix += s.stride_w, out += tap_stride) {
        *out = row_inside && ix >= 0 && ix < s.w ? image + (iy * s.w + ix) * ldx : pad;
      }
    }
  }
  for (int64_t ox = 0; ox < out_w; ++ox) {
    for (int64_t t = s.kh * s.kw; t < tap_stride; ++t) taps[ox * tap_stride + t] = pad;
  }
}

}  // namespace lowbit
