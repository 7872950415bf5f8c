#include "gemm_i8/conv_image.h"

#include <algorithm>
#include <cstring>

namespace lowbit {
namespace {

constexpr int64_t kMostStacked = 16;  // kernel rows

void copy_bytes(uint8_t* to, const uint8_t* from, int64_t count, uint8_t flip) {
  if (flip == 0) {
    std::memcpy(to, from, static_cast<size_t>(count));
    return;
  }
  for (int64_t i = 0; i < count; ++i) to[i] = from[i] ^ flip;
}

// `groups` groups of one output row. A group is copied from each kernel row in one piece of kPiece bytes, of which the
// next piece overwrites the excess.
template <int kPiece>
void stack_row(uint8_t* to, const uint8_t* const* from, int64_t kh, int64_t group, int64_t groups) {
  for (int64_t g = 0; g < groups; ++g) {
    for (int64_t ky = 0; ky < kh; ++ky, to += group) std::memcpy(to, from[ky] + g * group, kPiece);
  }
}

}  // namespace

ConvImage::ConvImage(const Conv2dShape& s) : shape(s) {
  column_step = s.kw == 1 ? s.stride_w : 1;
  pixel_step = s.stride_w / column_step;
  planes = std::min(s.stride_h, (s.kh - 1) * s.dilation_h + 1);
  reach = (s.out_w() - 1) * pixel_step + (s.kw - 1) * s.dilation_w + 1;  // pixels of a row that are read
  left = (s.pad_left + column_step - 1) / column_step;
  const int64_t right_edge = (s.pad_left + s.w + column_step - 1) / column_step;  // first pixel of right padding
  used_w = std::min(reach, right_edge);
  pitch = round_up(std::max({used_w, reach - std::min(left, reach), (s.out_w() - 1) * pixel_step + 1}), pixel_step);
}

int64_t ConvImage::bytes(int64_t rows) const {
  constexpr int64_t kTile = 16;  // virtual rows that a tile may compute beyond the last
  const int64_t beyond = kTile * lda() + (reach + shape.kw * shape.dilation_w + shape.stride_w) * shape.c + 64;
  return planes * plane_rows(rows) * pitch * shape.c + beyond;
}

int64_t ConvImage::offset(int64_t rows, int64_t ky, int64_t kx) const {
  const int64_t down = ky * shape.dilation_h, plane = down % shape.stride_h;
  const int64_t row = plane * plane_rows(rows) + down / shape.stride_h;
  return (row * pitch + kx * shape.dilation_w) * shape.c;
}

bool ConvImage::worth_stacking(const Conv2dShape& s) {
  const int64_t group = s.stride_w * s.c, groups = (s.kw + s.stride_w - 1) / s.stride_w;
  return s.groups == 1 && s.dilation_w == 1 && s.kh > 1 && s.kh <= kMostStacked && s.kw > 1 && s.c > 0 && group <= 16 &&
         run_chunks(groups * s.kh * group) < s.kh * run_chunks(s.kw * s.c);
}

int64_t ConvImage::stacked_bytes(int64_t count) const {
  constexpr int64_t kTile = 16;  // virtual rows that a tile may compute beyond the last
  const int64_t groups = count * virtual_w() + (reach + shape.kw) / pixel_step + 1 + kTile;
  return groups * stacked_lda() + 64;
}

void ConvImage::stack(uint8_t* to, const uint8_t* image, int64_t rows, int64_t r, int64_t count) const {
  const Conv2dShape& s = shape;
  const int64_t group = group_bytes();
  for (int64_t y = r; y < r + count; ++y, to += virtual_w() * stacked_lda()) {
    const uint8_t* from[kMostStacked];
    for (int64_t ky = 0; ky < s.kh; ++ky) from[ky] = image + y * pitch * s.c + offset(rows, ky, 0);
    // The last row's windows reach beyond it; those of the others reach into the next.
    const int64_t groups = y + 1 < r + count ? virtual_w() : std::max(virtual_w(), (reach - 1) / pixel_step + 1);
    if (group <= 4) {
      stack_row<4>(to, from, s.kh, group, groups);
    } else if (group <= 8) {
      stack_row<8>(to, from, s.kh, group, groups);
    } else {
      stack_row<16>(to, from, s.kh, group, groups);
    }
  }
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
      const int64_t begin = std::min(left, used_w);
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
