// The input of a convolution as the kernels read it: padded, and laid out so that a kernel row is one run of bytes.
#pragma once

#include "gemm_i8/gemm_i8_plan.h"

namespace lowbit {

// Padded rows are dealt out to stride_h planes, so that output rows that follow each other read rows that follow each
// other in every plane. Where the kernel is one pixel wide only every stride_w-th column is kept. Within a plane rows
// are `pitch` pixels apart: the padding right of a row is the padding left of the next one, as far as both are wide
// enough.
struct ConvImage {
  Conv2dShape shape;
  int64_t column_step = 1;  // padded columns between pixels kept
  int64_t pixel_step = 1;   // kept pixels between output pixels
  int64_t reach = 0;        // pixels from the start of a row that its outputs read
  int64_t left = 0;         // of them, padding at the left
  int64_t used_w = 0;       // columns of the input that reach an output, left padding included
  int64_t pitch = 0;        // pixels
  int64_t planes = 1;

  explicit ConvImage(const Conv2dShape& shape);

  // For a band of `rows` output rows:
  int64_t plane_rows(int64_t rows) const { return rows + (shape.kh - 1) * shape.dilation_h / shape.stride_h; }
  int64_t bytes(int64_t rows) const;                           // with room for reads beyond the last run
  int64_t offset(int64_t rows, int64_t ky, int64_t kx) const;  // of a kernel position, from an output pixel's start
  int64_t lda() const { return pixel_step * shape.c; }
  int64_t virtual_w() const { return pitch / pixel_step; }

  // Copies what output rows [y0, y1) of one image need; x points at the image. zero_point and flip are as the kernels
  // see the bytes: x ^ flip.
  void fill(uint8_t* to, const uint8_t* x, int64_t ldx, int64_t y0, int64_t y1, uint8_t flip, uint8_t zero_point) const;

  // Where channels are so few that a kernel row would be a short run, a second copy makes the whole window one run:
  // [output row][group of stride_w columns][kernel row][stride_w * c bytes].
  static bool worth_stacking(const Conv2dShape& shape);
  int64_t group_bytes() const { return pixel_step * shape.c; }
  int64_t stacked_lda() const { return shape.kh * group_bytes(); }  // one group per output pixel
  int64_t stacked_bytes(int64_t count) const;                       // of `count` output rows

  // Stacks output rows [r, r + count) of a filled band of `rows` rows.
  void stack(uint8_t* to, const uint8_t* image, int64_t rows, int64_t r, int64_t count) const;
};

}  // namespace lowbit
