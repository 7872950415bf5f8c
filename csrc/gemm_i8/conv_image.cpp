#include "gemm_i8/conv_image.h"

#include <algorithm>
#include <cstring>

namespace lowbit {
namespace {

void copy_bytes(uint8_t* to, const uint8_t* from, int64_t count, uint8_t flip) {
  if (flip == 0) {
    std::memcpy(to, from, static_cast<size_t>(count));
    return;
  }
  for (int64_t i = 0; i < count; ++i) to[i] = from[i] ^ flip;
}

}  // namespace

ConvImage::ConvImage(const Conv2dShape& s) : shape(s) {
  column_step = s.kw == 1 ? s.stride_w : 1;
  pixel_step = s.stride_w / column_step;
  planes = std::min(s.stride_h, (s.kh - 1) * s.dilation_h + 1);
  reach = (s.out_w() - 1) * pixel_step + (s.kw - 1) * s.dilation_w + 1;           // pixels of a row that are read
  const int64_t left = (s.pad_left + column_step - 1) / column_step;              // of them, padding at the left
  const int64_t right_edge = (s.pad_left + s.w + column_step - 1) / column_step;  // first pixel of right padding
  used_w = std::min(reach, right_edge);
  pitch = round_up(std::max({used_w, reach - std::min(left, reach), (s.out_w() - 1) * pixel_step + 1}), pixel_step);
}

int64_t ConvImage::bytes(int64_t rows) const {
  constexpr int64_t kTile = 16;  // virtual rows that a tile may compute beyond the last
  const int64_t beyond = kTile * lda() + (reach + shape.kw * shape.dilation_w) * shape.c + 64;
  return planes * plane_rows(rows) * pitch * shape.c + beyond;
}

int64_t ConvImage::offset(int64_t rows, int64_t ky, int64_t kx) const {
  const int64_t down = ky * shape.dilation_h, plane = down % shape.stride_h;
  const int64_t row = plane * plane_rows(rows) + down / shape.stride_h;
  return (row * pitch + kx * shape.dilation_w) * shape.c;
}

void ConvImage::fill(uint8_t* to, const uint8_t* x, int64_t ldx, int64_t y0, int64_t y1, uint8_t flip,
                     uint8_t zero_point) const {
  const Conv2dShape& s = shape;
  const int64_t rows = plane_rows(y1 - y0), c = s.c, row_bytes = pitch * c;
  for (int64_t plane = 0; plane < planes; ++plane) {
    for (int64_t r = 0; r < rows; ++r, to += row_bytes) {
      const int64_t y = (y0 + r) * s.stride_h + plane - s.pad_top;
      if (y < 0 || y >= s.h) {
        std::memset(to, zero_point, static_cast<size_t>(row_bytes));
        continue;
      }
      // Pixel p of the row is column p * column_step - pad_left of the input.
      const int64_t first = (s.pad_left + column_step - 1) / column_step, begin = std::min(first, used_w);
      const uint8_t* from = x + (y * s.w + begin * column_step - s.pad_left) * ldx;
      std::memset(to, zero_point, static_cast<size_t>(begin * c));
      if (ldx == c && column_step == 1) {
        copy_bytes(to + begin * c, from, (used_w - begin) * c, flip);
      } else {
        for (int64_t p = begin; p < used_w; ++p, from += column_step * ldx) copy_bytes(to + p * c, from, c, flip);
      }
      std::memset(to + used_w * c, zero_point, static_cast<size_t>((pitch - used_w) * c));
    }
  }
  // The right padding that the last row would share with the next.
  if (reach > pitch) std::memset(to, zero_point, static_cast<size_t>((reach - pitch) * c));
}

}  // namespace lowbit
