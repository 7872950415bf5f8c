#include <algorithm>

#include "conv2d_shape.h"
#include "gemm_i8/conv_image.h"
#include "gemm_i8/gemm_i8_plan.h"
#include "lowbit/gemm_i8.h"
#include "scratch.h"
#include "thread_pool.h"

namespace lowbit {

struct PackedConvI8::Data {
  Conv2dShape shape;     // c, oc, kernel, stride, dilation, groups
  bool stacked = false;  // see ConvImage
  Panels panels;
};

int64_t PackedConvI8::bytes() const noexcept { return data ? data->panels.bytes() : 0; }

namespace {

// A kernel row is one run where its pixels lie side by side in the image, else every pixel is one.
bool rows_are_runs(const Conv2dShape& s) { return s.groups == 1 && (s.dilation_w == 1 || s.kw == 1); }

bool same_weights(const Conv2dShape& a, const Conv2dShape& b) {
  return a.c == b.c && a.oc == b.oc && a.kh == b.kh && a.kw == b.kw && a.stride_h == b.stride_h &&
         a.stride_w == b.stride_w && a.dilation_h == b.dilation_h && a.dilation_w == b.dilation_w &&
         a.groups == b.groups;
}

// Output pixels are the rows of a matrix in the caller's memory.
bool is_product(const Conv2dShape& s) {
  return s.groups == 1 && s.kh == 1 && s.kw == 1 && s.stride_h == 1 && s.stride_w == 1 && s.pad_top == 0 &&
         s.pad_left == 0 && s.pad_bottom == 0 && s.pad_right == 0;
}

// The epilogue of channels from j on.
Requantizer from_channel(const Requantizer& q, int64_t j) {
  Requantizer r = q;
  r.scale = q.scale ? q.scale + j * q.scale_step : nullptr;
  r.m0 = q.m0 ? q.m0 + j * q.scale_step : nullptr;
  r.shift = q.shift ? q.shift + j * q.scale_step : nullptr;
  r.float_bias = q.float_bias ? q.float_bias + j : nullptr;
  r.residual = q.residual
                   ? static_cast<const char*>(q.residual) + j * static_cast<int64_t>(dtype_size(q.residual_dtype))
                   : nullptr;
  return r;
}

// One convolution call, checked.
struct Call {
  const Panels& panels;
  bool stacked;
  Conv2dShape shape;
  const uint8_t* x;
  DType x_dtype;
  int64_t ldx;
  ZeroPoints z;
  const int32_t* init;
  void* y;
  int64_t ldy;
  Requantizer q;
  GemmI8Fn fn;
  Isa isa;

  // All groups of rows [i0, i1), panels [p0, p1) of each; g's a and geometry are set.
  void run_groups(GemmI8 g, int64_t i0, int64_t i1, int64_t p0, int64_t p1) const {
    const uint8_t *a = g.a, *tail = g.tail;
    for (int64_t group = 0; group < panels.groups; ++group) {
      const Requantizer q_group = from_channel(q, group * panels.n);
      g.a = a + group * (shape.c / shape.groups);
      if (tail) g.tail = tail + group * (shape.c / shape.groups);
      g.b = panels.data.get() + group * panels.group_bytes();
      g.init = init + group * panels.padded_n();
      g.n = panels.n;
      g.c = static_cast<char*>(y) + group * panels.n * static_cast<int64_t>(dtype_size(q.out_dtype));
      g.ldc = ldy;
      g.requantizer = &q_group;
      g.runs = panels.runs;
      g.run_bytes = panels.run_bytes;
      g.run_pad = panels.run_pad;
      g.chunk = panels.chunk;
      g.row_term = fold_rows(g, i0, i1, z.b, panels.no_weight);
      lend_wide(g, i0, i1, p1 - p0, isa);
      fn(g, i0, i1, p0, p1);
    }
  }

  // Output rows [y0, y1) of one image.
  void run_band(int64_t image, int64_t y0, int64_t y1, int64_t p0, int64_t p1) const {
    const Conv2dShape& s = shape;
    const ConvImage layout(s);
    const int64_t rows = y1 - y0;
    uint8_t* copy = scratch<uint8_t>(ScratchSlot::padded_input, static_cast<size_t>(layout.bytes(rows)));
    const uint8_t flip = x_dtype == DType::s8 ? 0x80 : 0;
    layout.fill(copy, x + image * s.h * s.w * ldx, ldx, y0, y1, flip, static_cast<uint8_t>(z.a));
    GemmI8 g;
    g.first_row = (image * s.out_h() + y0) * s.out_w();
    if (stacked) {
      run_stacked(layout, copy, rows, g, p0, p1);
      return;
    }
    int64_t* offsets = scratch<int64_t>(ScratchSlot::run_offsets, static_cast<size_t>(panels.runs));
    const int64_t per_row = rows_are_runs(s) ? 1 : s.kw;
    for (int64_t t = 0; t < panels.runs; ++t) offsets[t] = layout.offset(rows, t / per_row, t % per_row);
    g.a = copy;
    g.lda = layout.lda();
    g.out_w = s.out_w();
    g.virtual_w = layout.virtual_w();
    g.run_offset = offsets;
    run_groups(g, g.first_row, g.first_row + rows * s.out_w(), p0, p1);
  }

  // A filled band of `rows` output rows, as many at a time as L2 holds of the stacked image.
  void run_stacked(const ConvImage& layout, const uint8_t* image, int64_t rows, GemmI8 g, int64_t p0,
                   int64_t p1) const {
    constexpr int64_t kBytes = 1 << 18;
    const int64_t offset = 0;
    g.lda = layout.stacked_lda();
    g.out_w = shape.out_w();
    g.virtual_w = layout.virtual_w();
    g.run_offset = &offset;
    const int64_t step = std::clamp<int64_t>(kBytes / (g.virtual_w * g.lda), 1, rows);
    uint8_t* windows = scratch<uint8_t>(ScratchSlot::a_panel, static_cast<size_t>(layout.stacked_bytes(step)));
    g.a = windows;
    for (int64_t r = 0; r < rows; r += step) {
      const int64_t count = std::min(step, rows - r);
      layout.stack(windows, image, rows, r, count);
      run_groups(g, g.first_row, g.first_row + count * g.out_w, p0, p1);
      g.first_row += count * g.out_w;
    }
  }

  void run(int threads) const {
    const int64_t out_h = shape.out_h(), rows = shape.batch * out_h, panel_count = panels.padded_n() / kPanel;
    const Split split = split_work(threads, isa, rows, shape.out_w(), panel_count, panels.groups * panels.k());
    parallel(split.parts(), [&](int part, int) {
      const int rp = part % split.row_parts, pp = part / split.row_parts;
      const int64_t p0 = part_begin(panel_count, 2, pp, split.panel_parts),
                    p1 = part_begin(panel_count, 2, pp + 1, split.panel_parts);
      const int64_t end = part_begin(rows, 1, rp + 1, split.row_parts);
      for (int64_t row = part_begin(rows, 1, rp, split.row_parts); row < end && p0 < p1;) {
        const int64_t y0 = row % out_h, y1 = std::min(out_h, y0 + end - row);
        run_band(row / out_h, y0, y1, p0, p1);
        row += y1 - y0;
      }
    });
  }
};

}  // namespace

PackedConvI8 pack_conv_i8(const void* w, DType dtype, const Conv2dShape& shape, int threads) {
  constexpr const char* kName = "pack_conv_i8";
  check_conv2d_weights(kName, shape);
  if (dtype != DType::s8 && dtype != DType::u8)
    fail(kName, std::string("w is ") + dtype_name(dtype) + ", must be int8 or uint8");
  const int64_t depth = shape.c / shape.groups, n = shape.oc / shape.groups, taps = shape.kh * shape.kw;
  if (!w && shape.oc * taps * depth > 0) fail(kName, "w is null");
  auto data = std::make_shared<PackedConvI8::Data>();
  data->shape = shape;
  data->stacked = ConvImage::worth_stacking(shape);
  if (data->stacked) {  // [column group][kernel row][column of the group][channel], zeros for columns beyond the kernel
    const int64_t group = shape.stride_w * shape.c, tall = shape.kh * group;
    data->panels = make_panels(dtype, 1, n, 1, (shape.kw + shape.stride_w - 1) / shape.stride_w * tall);
    data->panels.real_k = taps * depth;
    fill_panels(data->panels, w, [=](int64_t, int64_t, int64_t p, int64_t j) {
      const int64_t kx = p / tall * shape.stride_w + p % group / depth, ky = p % tall / group;
      return kx < shape.kw ? ((j * shape.kh + ky) * shape.kw + kx) * depth + p % depth : kNoWeight;
    });
  } else {
    const int64_t runs = rows_are_runs(shape) ? shape.kh : taps, run_bytes = taps * depth / runs;
    data->panels = make_panels(dtype, shape.groups, n, runs, run_bytes);
    fill_panels_from_rows(data->panels, static_cast<const uint8_t*>(w), resolve_threads(threads));
  }
  PackedConvI8 packed;
  packed.data = std::move(data);
  return packed;
}

void conv2d_i8(const void* x, DType x_dtype, int64_t ldx, const Conv2dShape& shape, int32_t x_zero_point,
               const PackedConvI8& w, int32_t w_zero_point, void* y, int64_t ldy, const Epilogue& epilogue, Isa isa,
               int threads) {
  constexpr const char* kName = "conv2d_i8";
  check_conv2d_shape(kName, shape);
  if (!w.data) fail(kName, "w is not packed");
  const Panels& panels = w.data->panels;
  if (!same_weights(shape, w.data->shape)) fail(kName, "shape differs from the one that w was packed for");
  if (ldx < shape.c) fail(kName, "ldx = " + std::to_string(ldx) + " is less than c = " + std::to_string(shape.c));
  if (ldy < shape.oc) fail(kName, "ldy = " + std::to_string(ldy) + " is less than oc = " + std::to_string(shape.oc));
  const ZeroPoints z = check_operands(kName, x_dtype, x_zero_point, panels.dtype, w_zero_point, panels.k());
  Requantizer q = make_requantizer(kName, epilogue, shape.oc, z.sum_limit);
  threads = resolve_threads(threads);
  if (shape.batch == 0 || shape.oc == 0) return;
  if (!y || (!x && shape.h * shape.w * shape.c > 0)) fail(kName, "x or y is null");
  const int32_t* init = fold_columns(panels, z, q.bias);
  q.bias = nullptr;
  if (is_product(shape)) {
    run_product(panels, {x, x_dtype, shape.batch * shape.h * shape.w, ldx, z.b, init, y, ldy}, q, isa, threads);
    return;
  }
  Call{panels, w.data->stacked,      shape, static_cast<const uint8_t*>(x), x_dtype, ldx, z, init, y, ldy,
       q,      gemm_i8_variant(isa), isa}
      .run(threads);
}

}  // namespace lowbit
