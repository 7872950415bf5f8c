// Convolution in float. Dense and grouped ones are products whose rows are runs of the (padded) image: no window is
// ever written out. Depthwise ones walk channels.
#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>

#include "conv2d_shape.h"
#include "gemm_f32/gemm_f32_packed.h"
#include "lowbit/gemm_f32.h"
#include "scratch.h"
#include "tap_pointers.h"
#include "target.h"
#include "thread_pool.h"
#include "variant.h"

namespace lowbit {

struct PackedConvF32::Data {
  int64_t c = 0, oc = 0, kh = 0, kw = 0, groups = 0;
  bool depthwise = false;
  AlignedVector<float> taps;        // depthwise: (kh * kw, c)
  std::vector<PackedF32> groups_b;  // else: of each group, k = kh * kw * c / groups, n = oc / groups
};

namespace {

using RowFn = void (*)(const DepthwiseRowF32&) noexcept;
constexpr Variant<RowFn> kRows[] = {
#if LOWBIT_X86
    {Isa::avx512_vnni, depthwise_f32_row_avx512_vnni},
    {Isa::avx2, depthwise_f32_row_avx2},
#endif
    {Isa::scalar, depthwise_f32_row_scalar}};

constexpr int64_t kBandFloats = 64 << 10;

[[noreturn]] void fail(const std::string& what) { throw std::invalid_argument("conv2d_f32: " + what); }

struct Image {
  const float* x;  // the first pixel of the first output row's window
  int64_t pixel_stride, row_stride;
};

// The part of one image that output rows [oy, oy + rows) read, written out with its padding.
Image padded_band(const Conv2dShape& s, const float* image, int64_t ldx, int64_t oy, int64_t rows,
                  int64_t pixel_stride) {
  const int64_t height = (rows - 1) * s.stride_h + s.dilation_h * (s.kh - 1) + 1;
  const int64_t width = (s.out_w() - 1) * s.stride_w + s.dilation_w * (s.kw - 1) + 1;
  const int64_t left = std::min(s.pad_left, width), inside = std::clamp<int64_t>(width - left, 0, s.w);
  float* out = scratch<float>(ScratchSlot::padded_input, size_t(height * width * pixel_stride));
  for (int64_t y = 0; y < height; ++y) {
    float* row = out + y * width * pixel_stride;
    const int64_t iy = oy * s.stride_h - s.pad_top + y;
    if (iy < 0 || iy >= s.h) {
      std::fill_n(row, width * pixel_stride, 0.0f);
      continue;
    }
    const float* in = image + iy * s.w * ldx;
    std::fill_n(row, left * pixel_stride, 0.0f);
    if (ldx == s.c && pixel_stride == s.c) {
      std::memcpy(row + left * s.c, in, size_t(inside * s.c) * sizeof(float));
    } else {
      for (int64_t x = 0; x < inside; ++x)
        std::memcpy(row + (left + x) * pixel_stride, in + x * ldx, size_t(s.c) * sizeof(float));
    }
    std::fill_n(row + (left + inside) * pixel_stride, (width - left - inside) * pixel_stride, 0.0f);
  }
  return {out, pixel_stride, width * pixel_stride};
}

void convolve(const float* x, int64_t ldx, const Conv2dShape& s, const PackedConvF32::Data& w, float* y, int64_t ldy,
              const EpilogueF32& epilogue, Isa isa, int threads) {
  const StripFn strip = pick_strip_f32(isa);
  const int64_t out_h = s.out_h(), out_w = s.out_w(), c = s.c / s.groups, n = s.oc / s.groups, k = s.kh * s.kw * c;
  const bool padded = s.pad_top || s.pad_left || s.pad_bottom || s.pad_right;
  // Pixels a multiple of 2 KB apart would share few sets of the L1 cache, so the copy sets them a little further apart.
  const int64_t pixel_stride = !padded ? ldx : s.c * sizeof(float) % 2048 == 0 ? s.c + kPanelF32 : s.c;
  const int64_t row_stride = (padded ? (out_w - 1) * s.stride_w + s.dilation_w * (s.kw - 1) + 1 : s.w) * pixel_stride;

  const bool whole_rows = s.dilation_w == 1 && pixel_stride == c;
  const int64_t runs = whole_rows ? s.kh : s.kh * s.kw;
  int64_t* run_offset = scratch<int64_t>(ScratchSlot::columns, size_t(runs));
  for (int64_t r = 0; r < runs; ++r) {
    const int64_t ky = whole_rows ? r : r / s.kw, kx = whole_rows ? 0 : r % s.kw;
    run_offset[r] = ky * s.dilation_h * row_stride + kx * s.dilation_w * pixel_stride;
  }

  const int64_t band = std::clamp<int64_t>(kBandFloats / std::max<int64_t>(s.stride_h * row_stride, 1), 1, out_h);
  const int64_t strips_per_group = (n + kStripColumnsF32 - 1) / kStripColumnsF32;
  auto body = [&](int64_t begin, int64_t end, int64_t first_strip, int64_t last_strip) {
    for (int64_t row = begin; row < end;) {
      const int64_t image = row / out_h, oy = row % out_h, rows = std::min({band, end - row, out_h - oy});
      const float* image_x = x + image * s.h * s.w * ldx;
      const Image in = padded ? padded_band(s, image_x, ldx, oy, rows, pixel_stride)
                              : Image{image_x + oy * s.stride_h * row_stride, pixel_stride, row_stride};
      for (int64_t q = first_strip; q < last_strip; ++q) {
        const int64_t group = q / strips_per_group, j = q % strips_per_group * kStripColumnsF32;
        for (int64_t r = 0; r < rows; ++r) {
          const int64_t pixel = (row + r) * out_w, column = group * n + j;
          strip({.a = in.x + r * s.stride_h * row_stride + group * c,
                 .row_step = s.stride_w * pixel_stride,
                 .rows = out_w,
                 .run_offset = run_offset,
                 .runs = runs,
                 .run_length = k / runs,
                 .b = w.groups_b[size_t(group)].data->panels.data() + j * k,
                 .columns = std::min(kStripColumnsF32, n - j),
                 .c = y + pixel * ldy + column,
                 .ldc = ldy,
                 .finish = finish_f32(epilogue, pixel, column)});
        }
      }
      row += rows;
    }
  };
  parallel_rows_or_strips(threads, s.batch * out_h, 1, s.groups * strips_per_group, body);
}

void convolve_depthwise(const float* x, int64_t ldx, const Conv2dShape& s, const PackedConvF32::Data& w, float* y,
                        int64_t ldy, const EpilogueF32& epilogue, Isa isa, int threads) {
  const RowFn row_fn = pick(kRows, isa);
  const int64_t out_h = s.out_h(), out_w = s.out_w(), tap_count = s.kh * s.kw;
  float* zeros = scratch<float>(ScratchSlot::padded_input, size_t(s.c));
  std::fill_n(zeros, s.c, 0.0f);
  parallel_for(threads, s.batch * out_h, 1, [&](int64_t begin, int64_t end) {
    const float** taps = scratch<const float*>(ScratchSlot::columns, size_t(out_w * tap_count));
    for (int64_t row = begin; row < end; ++row) {
      const float* image = x + row / out_h * s.h * s.w * ldx;
      const auto tap_at = [](int64_t tap) { return tap; };
      fill_tap_pointers(s, image, ldx, static_cast<const float*>(zeros), row % out_h, tap_count, tap_at, taps);
      row_fn({.taps = taps,
              .tap_count = tap_count,
              .pixels = out_w,
              .c = s.c,
              .w = w.taps.data(),
              .y = y + row * out_w * ldy,
              .ldy = ldy,
              .finish = finish_f32(epilogue, row * out_w, 0)});
    }
  });
}

}  // namespace

int64_t PackedConvF32::bytes() const noexcept {
  if (!data) return 0;
  int64_t total = int64_t(data->taps.size() * sizeof(float));
  for (const PackedF32& b : data->groups_b) total += b.bytes();
  return total;
}

PackedConvF32 pack_conv_f32(const float* w, const Conv2dShape& s) {
  check_conv2d_weights("pack_conv_f32", s);
  auto data = std::make_shared<PackedConvF32::Data>();
  data->c = s.c;
  data->oc = s.oc;
  data->kh = s.kh;
  data->kw = s.kw;
  data->groups = s.groups;
  data->depthwise = s.groups > 1 && s.groups == s.c && s.c == s.oc;
  if (data->depthwise) {
    const int64_t taps = s.kh * s.kw;
    data->taps.resize(size_t(taps * s.c));
    for (int64_t j = 0; j < s.c; ++j) {
      for (int64_t t = 0; t < taps; ++t) data->taps[size_t(t * s.c + j)] = w[j * taps + t];
    }
  } else {
    const int64_t n = s.oc / s.groups, k = s.kh * s.kw * (s.c / s.groups);
    for (int64_t g = 0; g < s.groups; ++g) data->groups_b.push_back(pack_f32(w + g * n * k, k, n, 1, k));
  }
  PackedConvF32 packed;
  packed.data = std::move(data);
  return packed;
}

void conv2d_f32(const float* x, int64_t ldx, const Conv2dShape& s, const PackedConvF32& w, float* y, int64_t ldy,
                const EpilogueF32& epilogue, Isa isa, int threads) {
  check_conv2d_shape("conv2d_f32", s);
  if (!w.data) fail("w is empty: it was not packed");
  const PackedConvF32::Data& d = *w.data;
  if (d.c != s.c || d.oc != s.oc || d.kh != s.kh || d.kw != s.kw || d.groups != s.groups) {
    auto text = [](int64_t oc, int64_t kh, int64_t kw, int64_t c, int64_t groups) {
      return "(" + std::to_string(oc) + ", " + std::to_string(kh) + ", " + std::to_string(kw) + ", " +
             std::to_string(c) + ") in " + std::to_string(groups) + " groups";
    };
    fail("w was packed as " + text(d.oc, d.kh, d.kw, d.c, d.groups) + ", shape asks for " +
         text(s.oc, s.kh, s.kw, s.c, s.groups));
  }
  if (ldx < s.c) fail("ldx is " + std::to_string(ldx) + ", c is " + std::to_string(s.c));
  if (ldy < s.oc) fail("ldy is " + std::to_string(ldy) + ", oc is " + std::to_string(s.oc));
  check_finish_f32("conv2d_f32", epilogue, s.oc);
  threads = resolve_threads(threads);
  if (s.batch == 0 || s.oc == 0) return;

  const bool pointwise = s.kh == 1 && s.kw == 1 && s.stride_h == 1 && s.stride_w == 1 && s.groups == 1 &&
                         s.pad_top == 0 && s.pad_left == 0 && s.pad_bottom == 0 && s.pad_right == 0;
  if (d.depthwise) {
    convolve_depthwise(x, ldx, s, d, y, ldy, epilogue, isa, threads);
  } else if (pointwise) {
    gemm_f32(x, s.batch * s.h * s.w, ldx, d.groups_b[0], y, ldy, epilogue, isa, threads);
  } else {
    convolve(x, ldx, s, d, y, ldy, epilogue, isa, threads);
  }
}

}  // namespace lowbit
