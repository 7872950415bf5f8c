#include "lowbit/gradient_i8.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "conv2d_shape.h"
#include "gemm_i8/gemm_i8_plan.h"
#include "gemm_i8/gradient_i8_kernel.h"
#include "scratch.h"
#include "target.h"
#include "thread_pool.h"
#include "variant.h"

namespace lowbit {
namespace {

using namespace gradient;

constexpr Variant<TransposeFn*> kTranspose[] = {
#if LOWBIT_X86
    {Isa::avx512_vnni, transpose_avx512_vnni},
#endif
    {Isa::scalar, transpose_scalar},
};
constexpr Variant<InterleaveFn*> kInterleave[] = {
#if LOWBIT_X86
    {Isa::avx512_vnni, interleave_avx512_vnni},
#endif
    {Isa::scalar, interleave_scalar},
};

// The code of zero.
uint8_t zero_code(const char* function, const char* operand, DType dtype) {
  if (dtype != DType::s8 && dtype != DType::u8) {
    fail(function, std::string(operand) + " is " + dtype_name(dtype) + ", must be int8 or uint8");
  }
  return dtype == DType::u8 ? 128 : 0;
}

void check_padding(const char* function, const char* side, int64_t padding, int64_t most) {
  if (padding > most) {
    fail(function, std::string(side) + " padding " + std::to_string(padding) +
                       " is more than dilation * (kernel - 1) = " + std::to_string(most));
  }
}

// The convolution that makes the input gradient: of the output gradient with stride - 1 zeros between its pixels.
Conv2dShape gradient_shape(const Conv2dShape& s) {
  Conv2dShape b;
  b.batch = s.batch;
  b.c = s.oc;
  b.oc = s.c;
  b.kh = s.kh;
  b.kw = s.kw;
  b.dilation_h = s.dilation_h;
  b.dilation_w = s.dilation_w;
  b.groups = s.groups;
  return b;
}

Conv2dShape gradient_shape(const char* function, const Conv2dShape& s) {
  const int64_t tall = s.dilation_h * (s.kh - 1), wide = s.dilation_w * (s.kw - 1);
  check_padding(function, "top", s.pad_top, tall);
  check_padding(function, "bottom", s.pad_bottom, tall);
  check_padding(function, "left", s.pad_left, wide);
  check_padding(function, "right", s.pad_right, wide);
  Conv2dShape b = gradient_shape(s);
  b.h = (s.out_h() - 1) * s.stride_h + 1;
  b.w = (s.out_w() - 1) * s.stride_w + 1;
  b.pad_top = tall - s.pad_top;
  b.pad_left = wide - s.pad_left;
  b.pad_bottom = s.h - b.h + s.pad_top;
  b.pad_right = s.w - b.w + s.pad_left;
  return b;
}

// The weight gradient as a matrix product over positions.
//
// The padded input is dealt out to stride_h x stride_w planes, so that the pixels that one tap of the kernel meets are
// a plane shifted by whole rows and columns. Numbering the places of a plane, image after image, row after row, a tap
// is one distance: dw[o, tap, c] = sum over places p of g[p - distance(tap), o] * plane[p, c], where g lies at the
// places (y, x) of its pixels, zeros between. Columns of padding are shared by neighbouring rows, rows by neighbouring
// images, as far as both are wide enough. So one transposed copy of g serves all taps, each at its own distance.
struct Places {
  const Conv2dShape& s;
  int64_t planes_h, planes_w;     // that some tap may use
  int64_t height = 0, width = 0;  // of a plane, shared padding counted once

  explicit Places(const Conv2dShape& shape) : s(shape) {
    planes_h = std::min(s.stride_h, (s.kh - 1) * s.dilation_h + 1);
    planes_w = std::min(s.stride_w, (s.kw - 1) * s.dilation_w + 1);
    height = extent(s.out_h(), s.kh, s.dilation_h, s.stride_h, planes_h, s.pad_top, s.h);
    width = extent(s.out_w(), s.kw, s.dilation_w, s.stride_w, planes_w, s.pad_left, s.w);
  }
  int64_t planes() const { return planes_h * planes_w; }
  int64_t count() const { return s.batch * height * width; }
  int64_t plane(int64_t tap) const {
    return tap / s.kw * s.dilation_h % s.stride_h * planes_w + tap % s.kw * s.dilation_w % s.stride_w;
  }
  int64_t distance(int64_t tap) const {
    return tap / s.kw * s.dilation_h / s.stride_h * width + tap % s.kw * s.dilation_w / s.stride_w;
  }
  bool used(int64_t plane) const {
    for (int64_t tap = 0; tap < s.kh * s.kw; ++tap) {
      if (this->plane(tap) == plane) return true;
    }
    return false;
  }

  // Input rows or columns of a plane, [first, last) of its places, among `window` that outputs read.
  static int64_t first(int64_t phase, int64_t stride, int64_t pad, int64_t window) {
    return std::clamp<int64_t>((pad - phase + stride - 1) / stride, 0, window);
  }
  static int64_t last(int64_t phase, int64_t stride, int64_t pad, int64_t size, int64_t window) {
    return std::clamp<int64_t>((size + pad - phase + stride - 1) / stride, 0, window);
  }
  static int64_t window(int64_t out, int64_t kernel, int64_t dilation, int64_t stride) {
    return out + (kernel - 1) * dilation / stride;
  }
  static int64_t extent(int64_t out, int64_t kernel, int64_t dilation, int64_t stride, int64_t phases, int64_t pad,
                        int64_t size) {
    const int64_t all = window(out, kernel, dilation, stride);
    int64_t least = out;
    for (int64_t phase = 0; phase < phases; ++phase) {
      least = std::max({least, last(phase, stride, pad, size, all), all - first(phase, stride, pad, all)});
    }
    return least;
  }

  // Pointers to what stands at places [begin, begin + 64) of a grid whose pixels are rows [y0, y1) and columns [x0,
  // x1); at(image, y, x) gives a pixel's.
  template <typename At>
  void pointers(int64_t begin, int64_t y0, int64_t y1, int64_t x0, int64_t x1, const uint8_t* zero,
                const uint8_t** rows, At&& at) const {
    int64_t place = begin, i = 0;
    for (; i < kBlock && place < 0; ++i, ++place) rows[i] = zero;
    int64_t x = place % width, y = place / width % height, image = place / width / height;
    for (; i < kBlock; ++i) {
      rows[i] = image < s.batch && y >= y0 && y < y1 && x >= x0 && x < x1 ? at(image, y, x) : zero;
      if (++x < width) continue;
      x = 0;
      if (++y < height) continue;
      y = 0;
      ++image;
    }
  }
};

constexpr int64_t kMostPlaces = 8192;  // of a piece: two panels and 64 rows of g are 768 KB, in L2
constexpr int64_t kRowBlock = 64;

// One piece of the weight gradient: places [begin, begin + length).
struct Piece {
  const Places& places;
  const Conv2dShape& s;
  const uint8_t *x, *g;
  uint8_t x_flip, g_flip;
  const uint8_t *x_zero, *g_zero;  // pixels of padding
  Isa isa;
  int64_t begin, length;
  int64_t front, lda;  // places before `begin` that a row of a has, and bytes from row to row
  uint8_t* a;          // g transposed: [oc][lda]
  int8_t* b;           // [plane][group][panel][length / 4][16][4]
  int64_t padded;      // channels of a group in b
  int64_t sums_size;

  int64_t depth() const { return s.c / s.groups; }
  int64_t plane_bytes() const { return s.groups * padded * length; }

  // Blocks of 64 places of g, then of every plane.
  int64_t blocks() const { return (front + length) / kBlock + places.planes() * (length / kBlock); }
  void pack(int64_t block, int32_t* sums) const {
    const uint8_t* rows[kBlock];
    const int64_t blocks_g = (front + length) / kBlock;
    if (block < blocks_g) {
      places.pointers(
          begin - front + block * kBlock, 0, s.out_h(), 0, s.out_w(), g_zero, rows,
          [&](int64_t image, int64_t y, int64_t x) { return g + ((image * s.out_h() + y) * s.out_w() + x) * s.oc; });
      pick(kTranspose, isa)(rows, kBlock, s.oc, g_flip, a + block * kBlock, lda);
      return;
    }
    block -= blocks_g;
    const int64_t plane = block / (length / kBlock), at = block % (length / kBlock) * kBlock;
    if (!places.used(plane)) return;
    const int64_t py = plane / places.planes_w, px = plane % places.planes_w;
    const int64_t rows_all = Places::window(s.out_h(), s.kh, s.dilation_h, s.stride_h);
    const int64_t columns_all = Places::window(s.out_w(), s.kw, s.dilation_w, s.stride_w);
    places.pointers(begin + at, Places::first(py, s.stride_h, s.pad_top, rows_all),
                    Places::last(py, s.stride_h, s.pad_top, s.h, rows_all),
                    Places::first(px, s.stride_w, s.pad_left, columns_all),
                    Places::last(px, s.stride_w, s.pad_left, s.w, columns_all), x_zero, rows,
                    [&](int64_t image, int64_t y, int64_t column) {
                      const int64_t row = image * s.h + y * s.stride_h + py - s.pad_top;
                      return x + (row * s.w + column * s.stride_w + px - s.pad_left) * s.c;
                    });
    for (int64_t group = 0; group < s.groups; ++group) {
      int8_t* to = b + plane * plane_bytes() + group * padded * length + at * kPanel;
      pick(kInterleave, isa)(rows, depth(), x_flip, to, length * kPanel, sums + (plane * s.groups + group) * padded);
      for (int64_t r = 0; r < kBlock; ++r) rows[r] += depth();
    }
  }

  // dw of one group, rows [i0, i1), panels [p0, p1), one tap. init: what the sums start from, as b has its columns.
  void multiply(int64_t group, int64_t i0, int64_t i1, int64_t p0, int64_t p1, int64_t tap, const int32_t* init,
                float* dw, const Requantizer& q, GemmI8Fn fn) const {
    const int64_t taps = s.kh * s.kw, rows = s.oc / s.groups, plane = places.plane(tap), none = 0;
    Requantizer mine = q;
    GemmI8 m;
    m.a = a + group * rows * lda + front - places.distance(tap);
    m.lda = lda;
    m.out_w = m.virtual_w = rows;
    m.run_offset = &none;
    m.runs = 1;
    m.run_bytes = m.run_pad = length;
    m.chunk = kBlock;
    m.b = b + plane * plane_bytes() + group * padded * length;
    m.init = init + (plane * s.groups + group) * padded;
    m.n = depth();
    float* to = dw + (group * rows * taps + tap) * depth();
    m.c = to;
    m.ldc = taps * depth();
    if (begin > 0) {
      mine.residual = to;
      mine.residual_dtype = DType::f32;
      mine.residual_stride = m.ldc;
    }
    m.requantizer = &mine;
    lend_wide(m, i0, i1, p1 - p0, isa);
    fn(m, i0, i1, p0, p1);
  }
};

}  // namespace

PackedConvI8 pack_gradient_i8(const int8_t* w, const Conv2dShape& shape, Isa isa, int threads) {
  constexpr const char* kName = "pack_gradient_i8";
  check_conv2d_weights(kName, shape);
  const Conv2dShape& s = shape;
  const int64_t taps = s.kh * s.kw, depth = s.c / s.groups, n = s.oc / s.groups;
  if (!w && s.oc * taps * depth > 0) fail(kName, "w is null");
  threads = resolve_threads(threads);
  // (oc, kh, kw, c / groups) to (c, kh, kw, oc / groups), turned by 180 degrees.
  uint8_t* turned = scratch<uint8_t>(ScratchSlot::gradient_codes, static_cast<size_t>(s.oc * taps * depth));
  const uint8_t* from = reinterpret_cast<const uint8_t*>(w);
  TransposeFn* const transpose = pick(kTranspose, isa);
  const int64_t blocks = (n + kBlock - 1) / kBlock;
  parallel_for(threads, s.groups * taps * blocks, 1, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      const int64_t group = i / taps / blocks, tap = i / blocks % taps, o = i % blocks * kBlock;
      const int64_t count = std::min(kBlock, n - o);
      const uint8_t* rows[kBlock];
      for (int64_t r = 0; r < count; ++r) rows[r] = from + ((group * n + o + r) * taps + tap) * depth;
      transpose(rows, count, depth, 0, turned + (group * depth * taps + taps - 1 - tap) * n + o, taps * n);
    }
  });
  return pack_conv_i8(turned, DType::s8, gradient_shape(s), threads);
}

void input_gradient_i8(const void* g, DType g_dtype, const Conv2dShape& shape, const PackedConvI8& w, float scale,
                       float* dx, Isa isa, int threads) {
  constexpr const char* kName = "input_gradient_i8";
  check_conv2d_shape(kName, shape);
  const uint8_t zero = zero_code(kName, "g", g_dtype);
  const Conv2dShape& s = shape;
  if (s.batch == 0) return;
  const Conv2dShape b = gradient_shape(kName, s);
  Epilogue epilogue;
  epilogue.out_dtype = DType::f32;
  epilogue.scale = &scale;
  epilogue.scale_count = 1;
  const uint8_t* codes = static_cast<const uint8_t*>(g);
  threads = resolve_threads(threads);
  if (!codes && s.oc > 0) fail(kName, "g is null");
  if (s.stride_h > 1 || s.stride_w > 1) {
    const int64_t row_bytes = b.w * s.oc;
    uint8_t* spread = scratch<uint8_t>(ScratchSlot::gradient_codes, static_cast<size_t>(s.batch * b.h * row_bytes));
    parallel_for(threads, s.batch * b.h, 16, [&](int64_t first, int64_t last) {
      for (int64_t row = first; row < last; ++row) {
        uint8_t* to = spread + row * row_bytes;
        std::memset(to, zero, static_cast<size_t>(row_bytes));
        if (row % b.h % s.stride_h != 0) continue;
        const uint8_t* from = codes + (row / b.h * s.out_h() + row % b.h / s.stride_h) * s.out_w() * s.oc;
        for (int64_t x = 0; x < s.out_w(); ++x) {
          std::memcpy(to + x * s.stride_w * s.oc, from + x * s.oc, static_cast<size_t>(s.oc));
        }
      }
    });
    codes = spread;
  }
  conv2d_i8(codes, g_dtype, s.oc, b, zero, w, 0, dx, s.c, epilogue, isa, threads);
}

void weight_gradient_i8(const void* x, DType x_dtype, const void* g, DType g_dtype, const Conv2dShape& shape,
                        float scale, float* dw, Isa isa, int threads) {
  constexpr const char* kName = "weight_gradient_i8";
  check_conv2d_shape(kName, shape);
  const Conv2dShape& s = shape;
  const uint8_t x_zero = zero_code(kName, "x", x_dtype), g_zero = zero_code(kName, "g", g_dtype);
  Epilogue epilogue;
  epilogue.out_dtype = DType::f32;
  epilogue.scale = &scale;
  epilogue.scale_count = 1;
  const int64_t taps = s.kh * s.kw, depth = s.c / s.groups, rows = s.oc / s.groups;
  const Requantizer q = make_requantizer(kName, epilogue, depth);
  threads = resolve_threads(threads);
  const int64_t weights = s.oc * taps * depth;
  if (weights == 0) return;
  if (!dw) fail(kName, "dw is null");
  if (s.batch == 0) {
    std::fill(dw, dw + weights, 0.0f);
    return;
  }
  if (!x || !g) fail(kName, "x or g is null");

  const Places places(s);
  const int64_t pieces = (places.count() + kMostPlaces - 1) / kMostPlaces;
  const int64_t length = round_up((places.count() + pieces - 1) / pieces, kBlock);
  const int64_t front = round_up(places.distance(taps - 1), kBlock);
  const int64_t lda = (front + length) % 512 == 0 ? front + length + kBlock : front + length;
  const int64_t padded = round_up(depth, kPanel), panels = padded / kPanel;
  const int64_t sums_size = places.planes() * s.groups * padded;
  uint8_t* zeros = scratch<uint8_t>(ScratchSlot::gradient_rows, static_cast<size_t>(s.c + s.oc + kBlock));
  std::memset(zeros, x_zero, static_cast<size_t>(s.c));
  std::memset(zeros + s.c, g_zero, static_cast<size_t>(s.oc));
  constexpr int64_t kTile = 16;  // rows that a tile may read beyond the last
  Piece piece{places,
              s,
              static_cast<const uint8_t*>(x),
              static_cast<const uint8_t*>(g),
              static_cast<uint8_t>(x_dtype == DType::u8 ? 0x80 : 0),
              static_cast<uint8_t>(g_dtype == DType::s8 ? 0x80 : 0),
              zeros,
              zeros + s.c,
              isa,
              0,
              length,
              front,
              lda,
              scratch<uint8_t>(ScratchSlot::gradient_a, static_cast<size_t>((s.oc + kTile) * lda)),
              scratch<int8_t>(ScratchSlot::gradient_b, static_cast<size_t>(sums_size * length)),
              padded,
              sums_size};
  const GemmI8Fn fn = gemm_i8_variant(isa);
  const int64_t wide = rows <= kTile ? 4 : 2;  // panels of a task
  const int64_t panel_blocks = (panels + wide - 1) / wide, row_blocks = (rows + kRowBlock - 1) / kRowBlock;
  int32_t* sums = scratch<int32_t>(ScratchSlot::gradient_sums, static_cast<size_t>(threads * sums_size));
  for (int64_t begin = 0; begin < places.count(); begin += length) {
    piece.begin = begin;
    std::fill(sums, sums + threads * sums_size, 0);
    const int64_t blocks = piece.blocks();
    parallel(static_cast<int>(std::min<int64_t>(threads, blocks)), [&](int part, int parts) {
      for (int64_t k = blocks * part / parts; k < blocks * (part + 1) / parts; ++k) {
        piece.pack(k, sums + part * sums_size);
      }
    });
    for (int64_t j = 0; j < sums_size; ++j) {  // a is unsigned, around 128
      for (int part = 1; part < threads; ++part) sums[j] += sums[part * sums_size + j];
      sums[j] *= -128;
    }
    // Taps innermost: they share their rows of a and their panels.
    parallel_for(threads, s.groups * panel_blocks * row_blocks * taps, 1, [&](int64_t first, int64_t last) {
      for (int64_t k = first; k < last; ++k) {
        const int64_t tap = k % taps, i0 = k / taps % row_blocks * kRowBlock, p = k / taps / row_blocks;
        const int64_t group = p / panel_blocks, p0 = p % panel_blocks * wide;
        piece.multiply(group, i0, std::min(rows, i0 + kRowBlock), p0, std::min(panels, p0 + wide), tap, sums, dw, q,
                       fn);
      }
    });
  }
}

}  // namespace lowbit
