// The windows that outputs of a convolution of bits read, and how its work is split. A band of the image is copied with
// the padding around it (bits are small: 27 KB for 64 channels at 56 x 56), so that the inner loop sees a base pointer
// per output pixel and one list of runs: no im2col, no borders, and kernel rows that are one run.
#pragma once

#include <algorithm>
#include <cstring>

#include "conv2d_shape.h"
#include "scratch.h"
#include "thread_pool.h"
#include "xnor/xnor_call.h"

namespace lowbit {

inline constexpr int64_t kBandWords = 64 << 10;  // of the image, so that it stays in the L2 cache while panels pass
inline constexpr int64_t kBandRows = 4096;

inline bool padded(const Conv2dShape& s) { return s.pad_top || s.pad_left || s.pad_bottom || s.pad_right; }

// Copies the 32 bits or fewer of words [first, first + count) of `from`.
inline uint32_t bits_at(const uint32_t* from, int64_t first, int64_t count) {
  const int64_t shift = first % 32;
  uint64_t two = from[first / 32];
  if (shift + count > 32) two |= uint64_t{from[first / 32 + 1]} << 32;
  return static_cast<uint32_t>(two >> shift & ((uint64_t{1} << count) - 1));
}

// Which taps of a kernel axis lie inside the image for an output at `start`: a range, since taps ascend.
struct TapRange {
  int64_t begin, end;
  bool operator==(const TapRange&) const = default;
};
inline TapRange taps_inside(int64_t start, int64_t kernel, int64_t dilation, int64_t size) {
  const int64_t begin = std::clamp<int64_t>(start < 0 ? (-start + dilation - 1) / dilation : 0, 0, kernel);
  const int64_t end = std::clamp<int64_t>(start < size ? (size - start + dilation - 1) / dilation : 0, begin, kernel);
  return {begin, end};
}

// The kinds of outputs along one axis: kind[o] for every output, ranges[kind].
struct TapKinds {
  int32_t* kind;
  TapRange* ranges;
  int64_t count = 0;
};
inline TapKinds kinds_of(int32_t* kind, TapRange* ranges, int64_t outputs, int64_t stride, int64_t pad, int64_t kernel,
                         int64_t dilation, int64_t size) {
  TapKinds k{kind, ranges};
  for (int64_t o = 0; o < outputs; ++o) {  // equal ranges are neighbours: both ends ascend with o
    const TapRange r = taps_inside(o * stride - pad, kernel, dilation, size);
    if (k.count == 0 || !(ranges[k.count - 1] == r)) ranges[k.count++] = r;
    kind[o] = static_cast<int32_t>(k.count - 1);
  }
  return k;
}

// The image may be `planes` images, plane_stride words apart; Call::run then gets the rows of all, plane after plane.
template <typename Call>
struct BitWindows {
  const uint32_t* x;
  int64_t ldx, planes, plane_stride;
  const Conv2dShape& s;
  PadValue pad_value;
  const Call& call;
  bool exact_zero;  // outputs differ in start
  TapKinds vertical, horizontal;

  int64_t depth() const { return s.c / s.groups; }
  int64_t group_words() const { return bit_words(depth()); }
  // Groups whose bits do not begin on words are set apart in the copy.
  bool regroups() const { return s.groups > 1 && depth() % 32 != 0; }
  int64_t image_words() const { return s.groups * group_words(); }  // of a pixel of the copy
  int64_t width() const { return (s.out_w() - 1) * s.stride_w + s.dilation_w * (s.kw - 1) + 1; }
  int64_t height(int64_t rows) const { return (rows - 1) * s.stride_h + s.dilation_h * (s.kh - 1) + 1; }

  void copy_pixels(uint32_t* to, const uint32_t* from, int64_t count) const {
    if (!regroups()) {
      const int64_t words = image_words();
      if (ldx == words) {
        std::memcpy(to, from, size_t(count * words) * sizeof(uint32_t));
        return;
      }
      for (int64_t i = 0; i < count; ++i) std::memcpy(to + i * words, from + i * ldx, size_t(words) * sizeof(uint32_t));
      return;
    }
    for (int64_t i = 0; i < count; ++i) {
      for (int64_t g = 0; g < s.groups; ++g) {
        for (int64_t p = 0; p < group_words(); ++p) {
          *to++ = bits_at(from + i * ldx, g * depth() + 32 * p, std::min<int64_t>(32, depth() - 32 * p));
        }
      }
    }
  }

  void fill_pad(uint32_t* to, int64_t count) const {
    if (pad_value != PadValue::plus_one) {
      std::memset(to, 0, size_t(count * image_words()) * sizeof(uint32_t));
      return;
    }
    for (int64_t i = 0; i < count * s.groups; ++i) {
      for (int64_t p = 0; p < group_words(); ++p) {
        *to++ = static_cast<uint32_t>((uint64_t{1} << std::min<int64_t>(32, depth() - 32 * p)) - 1);
      }
    }
  }

  int64_t band_words(int64_t rows) const { return height(rows) * width() * image_words(); }

  // What output rows [oy, oy + rows) of an image read, with its padding.
  void copy_band(uint32_t* out, const uint32_t* image, int64_t oy, int64_t rows) const {
    const int64_t words = image_words(), w = width();
    const int64_t left = std::min(s.pad_left, w), inside = std::clamp<int64_t>(w - left, 0, s.w);
    for (int64_t y = 0; y < height(rows); ++y) {
      uint32_t* row = out + y * w * words;
      const int64_t iy = oy * s.stride_h - s.pad_top + y;
      if (iy < 0 || iy >= s.h) {
        fill_pad(row, w);
        continue;
      }
      fill_pad(row, left);
      copy_pixels(row + left * words, image + iy * s.w * ldx, inside);
      fill_pad(row + (left + inside) * words, w - left - inside);
    }
  }

  // Rows [begin, end) of all images' output rows, panels [p0, p1).
  void run(int64_t begin, int64_t end, int64_t p0, int64_t p1) const {
    const bool copy = padded(s) || regroups();
    const int64_t out_h = s.out_h(), out_w = s.out_w(), words = copy ? image_words() : ldx;
    const int64_t row_words = (copy ? width() : s.w) * words;
    const bool whole_rows = s.groups == 1 && s.dilation_w == 1 && words == group_words();
    const int64_t runs = whole_rows ? s.kh : s.kh * s.kw;
    int64_t* run_offset = scratch<int64_t>(ScratchSlot::run_offsets, size_t(runs));
    for (int64_t r = 0; r < runs; ++r) {
      const int64_t ky = whole_rows ? r : r / s.kw, kx = whole_rows ? 0 : r % s.kw;
      run_offset[r] = ky * s.dilation_h * row_words + kx * s.dilation_w * words;
    }
    const int64_t band = std::clamp<int64_t>(
        std::min(kBandWords / std::max<int64_t>(planes * s.stride_h * row_words, 1), kBandRows / out_w), 1, out_h);
    uint32_t* copies = copy ? scratch<uint32_t>(ScratchSlot::padded_input, size_t(planes * band_words(band))) : nullptr;
    auto* rows = scratch<const uint32_t*>(ScratchSlot::bit_rows, size_t((planes + 1) * band * out_w));
    auto* pattern = reinterpret_cast<int64_t*>(rows + planes * band * out_w);
    for (int64_t row = begin; row < end;) {
      const int64_t oy = row % out_h, count = std::min({band, end - row, out_h - oy});
      for (int64_t q = 0, i = 0; q < planes; ++q) {
        const uint32_t* image = x + q * plane_stride + row / out_h * s.h * s.w * ldx;
        const uint32_t* base = image + oy * s.stride_h * row_words;
        if (copy) {
          uint32_t* own = copies + q * band_words(count);
          copy_band(own, image, oy, count);
          base = own;
        }
        for (int64_t r = 0; r < count; ++r) {
          const uint32_t* pixel = base + r * s.stride_h * row_words;
          for (int64_t ox = 0; ox < out_w; ++ox, pixel += s.stride_w * words) rows[i++] = pixel;
        }
      }
      for (int64_t r = 0, i = 0; exact_zero && r < count; ++r) {
        const int64_t first = vertical.kind[oy + r] * horizontal.count;
        for (int64_t ox = 0; ox < out_w; ++ox) pattern[i++] = (first + horizontal.kind[ox]) * call.pattern_stride();
      }
      call.run({.rows = rows,
                .count = count * out_w,
                .first_row = row * out_w,
                .pattern = exact_zero ? pattern : nullptr,
                .run_offset = run_offset,
                .runs = runs,
                .run_words = whole_rows ? s.kw * words : group_words(),
                .group_words = group_words()},
               p0, p1);
      row += count;
    }
  }
};

inline int64_t part_of(int64_t n, int part, int parts) { return n * part / parts; }

// body(row_begin, row_end, panel_begin, panel_end)
template <typename Body>
void parallel_split(const XnorSplit& split, int64_t rows, int64_t panels, Body&& body) {
  parallel(split.row_parts * split.panel_parts, [&](int part, int) {
    const int rp = part % split.row_parts, pp = part / split.row_parts;
    const int64_t begin = part_of(rows, rp, split.row_parts), end = part_of(rows, rp + 1, split.row_parts);
    const int64_t p0 = part_of(panels, pp, split.panel_parts), p1 = part_of(panels, pp + 1, split.panel_parts);
    if (begin < end && p0 < p1) body(begin, end, p0, p1);
  });
}

// Images of bits, `planes` of them, plane_stride words apart.
struct BitImages {
  const uint32_t* bits;
  int64_t ld, planes, plane_stride;
};

// Every output pixel of a convolution whose arguments were checked, by `call`.
template <typename Call>
void run_conv2d(const BitImages& x, const Conv2dShape& s, const PackedXnor::Data& w, PadValue pad_value, Call& call,
                int64_t products, int threads) {
  const int64_t out_h = s.out_h(), out_w = s.out_w();
  const bool exact_zero = pad_value == PadValue::zero && padded(s);
  BitWindows<Call> c{x.bits, x.ld, x.planes, x.plane_stride, s, pad_value, call, exact_zero, {}, {}};
  if (exact_zero) {
    TapRange* ranges = scratch<TapRange>(ScratchSlot::columns, size_t(2 * (out_h + out_w)));
    auto* kind = reinterpret_cast<int32_t*>(ranges + out_h + out_w);
    c.vertical = kinds_of(kind, ranges, out_h, s.stride_h, s.pad_top, s.kh, s.dilation_h, s.h);
    c.horizontal = kinds_of(kind + out_h, ranges + out_h, out_w, s.stride_w, s.pad_left, s.kw, s.dilation_w, s.w);
    call.prepare(c.vertical.count * c.horizontal.count, [&](int64_t p) {
      const TapRange v = c.vertical.ranges[p / c.horizontal.count], h = c.horizontal.ranges[p % c.horizontal.count];
      return Taps{v.begin, v.end, h.begin, h.end};
    });
  } else {
    call.prepare(1, [&](int64_t) { return Taps{0, s.kh, 0, s.kw}; });
  }
  const int64_t panels = w.panels(), rows = s.batch * out_h;
  const XnorSplit split = split_xnor(threads, rows, call.splits_panels() ? panels : 1,
                                     products * rows * out_w * s.oc * s.kh * s.kw * w.depth());
  parallel_split(split, rows, panels,
                 [&](int64_t begin, int64_t end, int64_t p0, int64_t p1) { c.run(begin, end, p0, p1); });
}

// Every row of a product whose arguments were checked.
template <typename Call>
void run_gemm(const BitImages& a, int64_t m, const PackedXnor::Data& w, Call& call, int64_t products, int threads) {
  const int64_t k = w.shape.c, words = bit_words(k);
  call.prepare(1, [](int64_t) { return Taps{0, 1, 0, 1}; });
  constexpr int64_t kTile = 6;
  const int64_t tiles = (m + kTile - 1) / kTile;
  const int64_t band = std::clamp<int64_t>(kBandWords / (a.planes * words), kTile, kBandRows);
  const XnorSplit split = split_xnor(threads, tiles, w.panels(), products * m * w.shape.oc * k);
  parallel_split(split, tiles, w.panels(), [&](int64_t t0, int64_t t1, int64_t p0, int64_t p1) {
    const int64_t end = std::min(m, t1 * kTile), zero = 0;
    auto* rows = scratch<const uint32_t*>(ScratchSlot::bit_rows, size_t(a.planes * band));
    for (int64_t i = t0 * kTile; i < end; i += band) {
      const int64_t count = std::min(band, end - i);
      for (int64_t q = 0; q < a.planes; ++q) {
        for (int64_t r = 0; r < count; ++r) rows[q * count + r] = a.bits + q * a.plane_stride + (i + r) * a.ld;
      }
      call.run({.rows = rows,
                .count = count,
                .first_row = i,
                .pattern = nullptr,
                .run_offset = &zero,
                .runs = 1,
                .run_words = words,
                .group_words = 0},
               p0, p1);
    }
  });
}

}  // namespace lowbit
