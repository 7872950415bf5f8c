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

constexpr int kStackRows = 8;

// Up to eight rows of pixels to be stacked; null where a row is padding.
struct StackRows {
  const uint8_t* from[kStackRows];
  int count;
};

// Pixel p of row r goes to to[p * pixel + r * c]. kRows > 0 is their number for c = 3: four bytes at a time, in
// ascending order, so that the fourth is overwritten by what follows; the last pixel is read byte by byte.
template <int kRows>
void stack_pixels(uint8_t* to, StackRows rows, int64_t pixels, int64_t c, int64_t pixel, int64_t step, uint8_t flip,
                  uint8_t zero_point) {
  int64_t p = 0;
  if constexpr (kRows > 0) {
    const uint8_t padding[4] = {static_cast<uint8_t>(zero_point ^ flip), static_cast<uint8_t>(zero_point ^ flip),
                                static_cast<uint8_t>(zero_point ^ flip), 0};
    const uint8_t* from[kRows];
    int64_t steps[kRows];
    for (int r = 0; r < kRows; ++r) {
      from[r] = rows.from[r] ? rows.from[r] : padding;
      steps[r] = rows.from[r] ? step : 0;
    }
    const uint32_t flips = flip * 0x01010101u;
    for (; p + 1 < pixels; ++p, to += pixel) {
      for (int r = 0; r < kRows; ++r) {
        uint32_t bytes;
        std::memcpy(&bytes, from[r], sizeof(bytes));
        bytes ^= flips;
        std::memcpy(to + 3 * r, &bytes, sizeof(bytes));
        from[r] += steps[r];
      }
    }
  }
  for (; p < pixels; ++p, to += pixel) {
    for (int r = 0; r < rows.count; ++r) {
      for (int64_t i = 0; i < c; ++i) {
        to[r * c + i] = rows.from[r] ? rows.from[r][p * step + i] ^ flip : zero_point;
      }
    }
  }
}

}  // namespace

ConvImage::ConvImage(const Conv2dShape& s, bool stack) : shape(s), stacked(stack) {
  column_step = s.kw == 1 ? s.stride_w : 1;
  pixel_step = s.stride_w / column_step;
  planes = stacked ? 1 : std::min(s.stride_h, (s.kh - 1) * s.dilation_h + 1);
  reach = (s.out_w() - 1) * pixel_step + (s.kw - 1) * s.dilation_w + 1;  // pixels of a row that are read
  left = (s.pad_left + column_step - 1) / column_step;
  const int64_t right_edge = (s.pad_left + s.w + column_step - 1) / column_step;  // first pixel of right padding
  used_w = std::min(reach, right_edge);
  pitch = round_up(std::max({used_w, reach - std::min(left, reach), (s.out_w() - 1) * pixel_step + 1}), pixel_step);
}

int64_t ConvImage::bytes(int64_t rows) const {
  constexpr int64_t kTile = 16;  // virtual rows that a tile may compute beyond the last
  const int64_t beyond = kTile * lda() + (reach + shape.kw * shape.dilation_w) * pixel_bytes() + 64;
  return planes * plane_rows(rows) * pitch * pixel_bytes() + beyond;
}

int64_t ConvImage::offset(int64_t rows, int64_t ky, int64_t kx) const {
  const int64_t down = ky * shape.dilation_h, plane = down % shape.stride_h;
  const int64_t row = plane * plane_rows(rows) + down / shape.stride_h;
  return (row * pitch + kx * shape.dilation_w) * shape.c;
}

bool ConvImage::worth_stacking(const Conv2dShape& s) {
  constexpr int64_t kMostChannels = 8;
  return s.groups == 1 && s.kh > 1 && s.dilation_h == 1 && s.dilation_w == 1 && s.c <= kMostChannels &&
         run_chunks(s.kh * s.kw * s.c) < s.kh * run_chunks(s.kw * s.c);
}

void ConvImage::fill_stacked(uint8_t* to, const uint8_t* x, int64_t ldx, int64_t y0, int64_t y1, uint8_t flip,
                             uint8_t zero_point) const {
  const Conv2dShape& s = shape;
  const int64_t c = s.c, pixel = pixel_bytes(), begin = std::min(left, used_w), step = column_step * ldx;
  for (int64_t y = y0; y < y1; ++y, to += pitch * pixel) {
    std::memset(to, zero_point, static_cast<size_t>(begin * pixel));
    for (int64_t ky = 0; ky < s.kh; ky += kStackRows) {
      StackRows rows;
      rows.count = static_cast<int>(std::min<int64_t>(kStackRows, s.kh - ky));
      for (int r = 0; r < rows.count; ++r) {
        const int64_t row = y * s.stride_h + ky + r - s.pad_top;
        const bool inside = row >= 0 && row < s.h;
        rows.from[r] = inside ? x + (row * s.w + begin * column_step - s.pad_left) * ldx : nullptr;
      }
      uint8_t* at = to + begin * pixel + ky * c;
      if (c == 3 && s.kh == 3) {
        stack_pixels<3>(at, rows, used_w - begin, c, pixel, step, flip, zero_point);
      } else if (c == 3 && s.kh == 7) {
        stack_pixels<7>(at, rows, used_w - begin, c, pixel, step, flip, zero_point);
      } else {
        stack_pixels<0>(at, rows, used_w - begin, c, pixel, step, flip, zero_point);
      }
    }
    std::memset(to + used_w * pixel, zero_point, static_cast<size_t>((pitch - used_w) * pixel));
  }
  if (reach > pitch) std::memset(to, zero_point, static_cast<size_t>((reach - pitch) * pixel));
}

void ConvImage::fill(uint8_t* to, const uint8_t* x, int64_t ldx, int64_t y0, int64_t y1, uint8_t flip,
                     uint8_t zero_point) const {
  if (stacked) {
    fill_stacked(to, x, ldx, y0, y1, flip, zero_point);
    return;
  }
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
