// The door: packing, the choice between the fused walk and the general rows, and the walk over output rows.
#include "lowbit/depthwise_i8.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "aligned_vector.h"
#include "conv2d_shape.h"
#include "depthwise_i8/depthwise_i8_kernel.h"
#include "scratch.h"
#include "tap_pointers.h"
#include "target.h"
#include "thread_pool.h"
#include "variant.h"

namespace lowbit {

struct PackedDepthwiseI8::Data {
  int64_t c = 0, kh = 0, kw = 0;
  std::vector<int32_t> tap_of_slot;  // ky * kw + kx, or -1 where the weight is 0; a multiple of four
  AlignedVector<int8_t> weights;     // (block, slots / 4, 64 positions, 4)
  AlignedVector<int32_t> sums;       // of a channel's weights, lane order
};

namespace {

constexpr const char* kName = "depthwise_conv2d_i8";

constexpr Variant<DepthwiseRowI8Fn> kRows[] = {
#if LOWBIT_X86
    {Isa::avx512_vnni, depthwise_i8_row_avx512_vnni},
    {Isa::avx2, depthwise_i8_row_avx2},
#endif
    {Isa::scalar, depthwise_i8_row_scalar}};

constexpr Variant<DepthwiseWalkI8Fn> kWalks3[] = {
#if LOWBIT_X86
    {Isa::avx512_vnni, depthwise_i8_walk3_avx512_vnni},
    {Isa::avx2, depthwise_i8_walk3_avx2},
#endif
    {Isa::scalar, nullptr}};

constexpr Variant<DepthwiseWalkI8Fn> kWalks5[] = {
#if LOWBIT_X86
    {Isa::avx512_vnni, depthwise_i8_walk5_avx512_vnni},
    {Isa::avx2, depthwise_i8_walk5_avx2},
#endif
    {Isa::scalar, nullptr}};

constexpr int64_t kBandAccumulators = 16 << 10;

[[noreturn]] void fail(const std::string& what) { throw std::invalid_argument(std::string(kName) + ": " + what); }

int64_t block_count(int64_t c) { return (c + kDepthwiseBlock - 1) / kDepthwiseBlock; }

// Which tap each byte of the interleaved groups of four holds. 3x3: a column of three per group, which neighbouring
// output pixels share. 5x5: columns of the first four rows, then the fifth row along x. Any other: row by row.
std::vector<int32_t> slot_order(int64_t kh, int64_t kw) {
  std::vector<int32_t> order;
  auto tap = [&](int64_t ky, int64_t kx) { order.push_back(int32_t(ky * kw + kx)); };
  if (kh == 3 && kw == 3) {
    for (int64_t kx = 0; kx < 3; ++kx) {
      for (int64_t ky = 0; ky < 3; ++ky) tap(ky, kx);
      order.push_back(-1);
    }
  } else if (kh == 5 && kw == 5) {
    for (int64_t kx = 0; kx < 5; ++kx) {
      for (int64_t ky = 0; ky < 4; ++ky) tap(ky, kx);
    }
    for (int64_t kx = 0; kx < 5; ++kx) tap(4, kx);
  } else {
    for (int64_t t = 0; t < kh * kw; ++t) order.push_back(int32_t(t));
  }
  while (order.size() % 4) order.push_back(-1);
  return order;
}

// to[p] = value(channel) for every position in lane order; 0 where there is no such channel.
template <typename T, typename Value>
void fill_lane_order(int64_t c, T* to, Value&& value) {
  for (int64_t first = 0; first < c; first += kDepthwiseBlock) {
    const int64_t copies = depthwise_copies(c - first);
    for (int64_t p = 0; p < kDepthwiseBlock; p += 4, to += 4) {
      const int64_t j = first + depthwise_channel(p, copies);
      if (j + 4 <= c) {
        for (int64_t i = 0; i < 4; ++i) to[i] = value(j + i);
      } else {
        for (int64_t i = 0; i < 4; ++i) to[i] = j + i < c ? value(j + i) : T{};
      }
    }
  }
}

Requantizer check(const void* x, DType x_dtype, int64_t ldx, const Conv2dShape& s, int32_t x_zero_point,
                  const PackedDepthwiseI8& w, const void* y, int64_t ldy, const Epilogue& epilogue) {
  check_conv2d_shape(kName, s);
  if (s.groups != s.c || s.c != s.oc) {
    fail("groups = " + std::to_string(s.groups) + ", c = " + std::to_string(s.c) + " and oc = " + std::to_string(s.oc) +
         " must be equal");
  }
  if (!w.data) fail("w is empty: it was not packed");
  const PackedDepthwiseI8::Data& d = *w.data;
  if (d.c != s.c || d.kh != s.kh || d.kw != s.kw) {
    auto text = [](int64_t kh, int64_t kw, int64_t c) {
      return "(" + std::to_string(kh) + ", " + std::to_string(kw) + ", " + std::to_string(c) + ")";
    };
    fail("w was packed as " + text(d.kh, d.kw, d.c) + ", shape asks for " + text(s.kh, s.kw, s.c));
  }
  if (x_dtype != DType::s8 && x_dtype != DType::u8)
    fail(std::string("x is ") + dtype_name(x_dtype) + ", must be int8 or uint8");
  const int32_t least = x_dtype == DType::u8 ? 0 : -128, greatest = least + 255;
  if (x_zero_point < least || x_zero_point > greatest) {
    fail("x_zero_point " + std::to_string(x_zero_point) + " is not a value of " + dtype_name(x_dtype));
  }
  const int64_t reach = std::max(greatest - x_zero_point, x_zero_point - least);
  if (s.kh * s.kw * reach * 128 > INT32_MAX) {
    fail("a window of " + std::to_string(s.kh) + " x " + std::to_string(s.kw) +
         " taps can leave int32 with x_zero_point " + std::to_string(x_zero_point));
  }
  if (ldx < s.c) fail("ldx is " + std::to_string(ldx) + ", c is " + std::to_string(s.c));
  if (ldy < s.c) fail("ldy is " + std::to_string(ldy) + ", c is " + std::to_string(s.c));
  if (epilogue.residual && epilogue.residual_stride < s.c) {
    fail("residual_stride is " + std::to_string(epilogue.residual_stride) + ", c is " + std::to_string(s.c));
  }
  if (s.batch > 0 && ((!x && s.h * s.w > 0) || !y)) fail("x or y is null");
  return make_requantizer(kName, epilogue, s.c, int64_t{255 * 128} * s.kh * s.kw);
}

// int8 codes as uint8: x ^ 0x80 = x + 128, and so for the zero point.
const uint8_t* shifted_to_u8(const uint8_t* x, const Conv2dShape& s, int64_t ldx, int threads) {
  const int64_t pixels = s.batch * s.h * s.w;
  uint8_t* out = scratch<uint8_t>(ScratchSlot::padded_input, size_t(pixels * s.c));
  parallel_for(threads, pixels, 1 + (16 << 10) / s.c, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      for (int64_t j = 0; j < s.c; ++j) out[i * s.c + j] = x[i * ldx + j] ^ 0x80;
    }
  });
  return out;
}

// What both paths read.
struct Input {
  const uint8_t* x;
  int64_t ldx;
  uint8_t zero_point;
  const uint8_t* outside;  // a row of zero points
};

void run_rows(const Input& in, const Conv2dShape& s, const PackedDepthwiseI8::Data& d, const int32_t* init, void* y,
              int64_t ldy, const Epilogue& epilogue, Isa isa, int threads) {
  const DepthwiseRowI8Fn row_fn = pick(kRows, isa);
  const int64_t out_h = s.out_h(), out_w = s.out_w(), slots = int64_t(d.tap_of_slot.size());
  const int64_t band = std::max<int64_t>(1, kBandAccumulators / (out_w * s.c));
  parallel_for(threads, s.batch * out_h, 1, [&](int64_t begin, int64_t end) {
    const uint8_t** taps = scratch<const uint8_t*>(ScratchSlot::columns, size_t(out_w * slots));
    int32_t* acc = scratch<int32_t>(ScratchSlot::accumulators, size_t(band * out_w * s.c));
    for (int64_t row = begin; row < end; row += band) {
      const int64_t rows = std::min(band, end - row);
      for (int64_t r = 0; r < rows; ++r) {
        const uint8_t* image = in.x + (row + r) / out_h * s.h * s.w * in.ldx;
        const auto tap_at = [&](int64_t slot) { return d.tap_of_slot[size_t(slot)]; };
        fill_tap_pointers(s, image, in.ldx, in.outside, (row + r) % out_h, slots, tap_at, taps);
        row_fn({taps, slots, out_w, s.c, d.weights.data(), init, acc + r * out_w * s.c});
      }
      const int64_t pixel = row * out_w;
      Epilogue e = epilogue;
      if (e.residual) {
        e.residual =
            static_cast<const char*>(e.residual) + pixel * e.residual_stride * int64_t(dtype_size(e.residual_dtype));
      }
      char* out = static_cast<char*>(y) + pixel * ldy * int64_t(dtype_size(e.out_dtype));
      requantize(acc, s.c, rows * out_w, s.c, out, ldy, e, isa, 1);
    }
  });
}

// The fused walk for this geometry and epilogue, or null.
DepthwiseWalkI8Fn pick_walk(const Conv2dShape& s, const Requantizer& q, Isa isa) {
  if (s.kh != s.kw || s.stride_h != s.stride_w || s.stride_h > 2 || s.dilation_h != 1 || s.dilation_w != 1)
    return nullptr;
  if (finish_of(q, isa >= Isa::avx512_vnni) == Finish::any || q.residual || q.max_scale >= 1.0f) return nullptr;
  return s.kh == 3 ? pick(kWalks3, isa) : s.kh == 5 ? pick(kWalks5, isa) : nullptr;
}

void run_walk(DepthwiseWalkI8Fn fn, const Input& in, const Conv2dShape& s, const PackedDepthwiseI8::Data& d, void* y,
              int64_t ldy, const Requantizer& e, int threads) {
  const int32_t shift = e.out_dtype == DType::s8 ? 128 : 0;
  const int64_t out_h = s.out_h(), blocks = block_count(s.c);
  const DepthwiseWalkI8 whole{.x = in.x,
                              .h = s.h,
                              .w = s.w,
                              .c = s.c,
                              .ldx = in.ldx,
                              .pad_top = s.pad_top,
                              .pad_left = s.pad_left,
                              .stride = s.stride_h,
                              .outside = in.outside,
                              .weights = d.weights.data(),
                              .slots = int64_t(d.tap_of_slot.size()),
                              .sums = d.sums.data(),
                              .requantizer = &e,
                              .zero_point = e.zero_point + shift,
                              .lo = uint8_t(e.lo + shift),
                              .hi = uint8_t(e.hi + shift),
                              .flip = uint8_t(shift),
                              .y = static_cast<uint8_t*>(y),
                              .out_w = s.out_w(),
                              .ldy = ldy,
                              .begin = 0,
                              .end = out_h,
                              .first_block = 0,
                              .last_block = blocks};
  auto image = [&](int64_t b) {
    DepthwiseWalkI8 walk = whole;
    walk.x += b * s.h * s.w * in.ldx;
    walk.y += b * out_h * walk.out_w * ldy;
    return walk;
  };
  // By rows where there are enough, as split_work() does: a thread finds its input in its own cache.
  if (blocks >= 2 * threads && s.batch * out_h * s.out_w() < 64 * threads) {
    parallel_for(threads, blocks, 1, [&](int64_t begin, int64_t end) {
      for (int64_t b = 0; b < s.batch; ++b) {
        DepthwiseWalkI8 walk = image(b);
        walk.first_block = begin;
        walk.last_block = end;
        fn(walk);
      }
    });
    return;
  }
  parallel_for(threads, s.batch * out_h, 1, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end;) {
      DepthwiseWalkI8 walk = image(row / out_h);
      walk.begin = row % out_h;
      walk.end = std::min(out_h, walk.begin + end - row);
      fn(walk);
      row += walk.end - walk.begin;
    }
  });
}

}  // namespace

int64_t PackedDepthwiseI8::bytes() const noexcept {
  return data ? int64_t(data->weights.size() + data->sums.size() * sizeof(int32_t)) : 0;
}

PackedDepthwiseI8 pack_depthwise_i8(const int8_t* w, const Conv2dShape& s) {
  check_conv2d_weights("pack_depthwise_i8", s);
  auto data = std::make_shared<PackedDepthwiseI8::Data>();
  data->c = s.c;
  data->kh = s.kh;
  data->kw = s.kw;
  data->tap_of_slot = slot_order(s.kh, s.kw);
  const int64_t slots = int64_t(data->tap_of_slot.size()), padded = block_count(s.c) * kDepthwiseBlock;
  data->weights.resize(size_t(padded * slots));
  data->sums.resize(size_t(padded));
  fill_lane_order(s.c, data->sums.data(), [&](int64_t j) {
    int32_t sum = 0;
    for (int64_t t = 0; t < s.kh * s.kw; ++t) sum += w[t * s.c + j];
    return sum;
  });
  std::vector<int8_t> ordered(size_t(padded), 0);
  for (int64_t k = 0; k < slots; ++k) {
    const int32_t t = data->tap_of_slot[size_t(k)];
    if (t < 0) continue;
    fill_lane_order(s.c, ordered.data(), [&](int64_t j) { return w[t * s.c + j]; });
    for (int64_t i = 0; i < padded; ++i) {
      const int64_t block = i / kDepthwiseBlock, p = i % kDepthwiseBlock;
      data->weights[size_t(((block * slots / 4 + k / 4) * kDepthwiseBlock + p) * 4 + k % 4)] = ordered[size_t(i)];
    }
  }
  PackedDepthwiseI8 packed;
  packed.data = std::move(data);
  return packed;
}

void depthwise_conv2d_i8(const void* x, DType x_dtype, int64_t ldx, const Conv2dShape& s, int32_t x_zero_point,
                         const PackedDepthwiseI8& w, void* y, int64_t ldy, const Epilogue& epilogue, Isa isa,
                         int threads) {
  const Requantizer q = check(x, x_dtype, ldx, s, x_zero_point, w, y, ldy, epilogue);
  threads = resolve_threads(threads);
  if (s.batch == 0 || s.c == 0) return;
  const PackedDepthwiseI8::Data& d = *w.data;
  Input in{static_cast<const uint8_t*>(x), ldx, static_cast<uint8_t>(x_zero_point), nullptr};
  if (x_dtype == DType::s8) {
    in = {shifted_to_u8(in.x, s, ldx, threads), s.c, static_cast<uint8_t>(x_zero_point + 128), nullptr};
  }
  const int64_t padded = block_count(s.c) * kDepthwiseBlock, row_bytes = std::max(s.w, int64_t{1}) * in.ldx;
  int32_t* init = scratch<int32_t>(ScratchSlot::row_sums, size_t(padded + row_bytes / 4 + 1));
  uint8_t* outside = reinterpret_cast<uint8_t*>(init + padded);
  std::memset(outside, in.zero_point, size_t(row_bytes));
  in.outside = outside;
  if (const DepthwiseWalkI8Fn walk = pick_walk(s, q, isa)) {
    run_walk(walk, in, s, d, y, ldy, q, threads);
    return;
  }
  for (int64_t p = 0; p < padded; ++p) init[p] = -int32_t{in.zero_point} * d.sums[size_t(p)];
  run_rows(in, s, d, init, y, ldy, epilogue, isa, threads);
}

}  // namespace lowbit
