// A Conv2dShape from the shapes of NumPy arrays and the arguments that convolutions take.
#pragma once

#include <array>

#include "array_argument.h"
#include "lowbit/gemm_i8.h"

namespace lowbit {

using Pair = std::array<int64_t, 2>;     // height, width
using Padding = std::array<int64_t, 4>;  // top, left, bottom, right

// x (batch, h, w, c); weights (oc, kh, kw, c / groups).
inline Conv2dShape conv2d_shape(const char* function, const py::array& x, int64_t oc, int64_t kh, int64_t kw,
                                const Pair& stride, const Padding& padding, const Pair& dilation, int64_t groups) {
  need_rank(function, "x", x, 4);
  return {.batch = x.shape(0),
          .h = x.shape(1),
          .w = x.shape(2),
          .c = x.shape(3),
          .oc = oc,
          .kh = kh,
          .kw = kw,
          .stride_h = stride[0],
          .stride_w = stride[1],
          .pad_top = padding[0],
          .pad_left = padding[1],
          .pad_bottom = padding[2],
          .pad_right = padding[3],
          .dilation_h = dilation[0],
          .dilation_w = dilation[1],
          .groups = groups};
}

// Of y (batch, out_h, out_w, oc); without pixels where the window is one that the door will refuse, and name why.
inline Shape output_shape(const Conv2dShape& s) {
  const bool fits = s.stride_h > 0 && s.stride_w > 0 && s.h + s.pad_top + s.pad_bottom > s.dilation_h * (s.kh - 1) &&
                    s.w + s.pad_left + s.pad_right > s.dilation_w * (s.kw - 1);
  return {s.batch, fits ? s.out_h() : 0, fits ? s.out_w() : 0, s.oc};
}

}  // namespace lowbit
