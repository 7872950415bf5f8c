// Doors: max_pool, average_pool_i8, average_pool_f32. A window is clipped to the image once per output row and once per
// column, so that the variants see only taps that exist.
#include "conv2d_shape.h"
#include "pointwise/pointwise_checks.h"
#include "scratch.h"
#include "thread_pool.h"
#include "variant.h"

namespace lowbit {

using namespace pointwise;

namespace {

constexpr Variant<Pool*> kMaxU8[] = {
#if LOWBIT_X86
    {Isa::avx512, max_pool_u8_avx512},
    {Isa::avx2, max_pool_u8_avx2},
#endif
    {Isa::scalar, max_pool_u8_scalar},
};
constexpr Variant<Pool*> kMaxS8[] = {
#if LOWBIT_X86
    {Isa::avx512, max_pool_s8_avx512},
    {Isa::avx2, max_pool_s8_avx2},
#endif
    {Isa::scalar, max_pool_s8_scalar},
};
constexpr Variant<Pool*> kMaxF32[] = {
#if LOWBIT_X86
    {Isa::avx512, max_pool_f32_avx512},
    {Isa::avx2, max_pool_f32_avx2},
#endif
    {Isa::scalar, max_pool_f32_scalar},
};
constexpr Variant<PoolCodes*> kAverageCodes[] = {
#if LOWBIT_X86
    {Isa::avx512, average_pool_codes_avx512},
    {Isa::avx2, average_pool_codes_avx2},
#endif
    {Isa::scalar, average_pool_codes_scalar},
};
constexpr Variant<PoolFixed*> kAverageFixed[] = {
#if LOWBIT_X86
    {Isa::avx2, average_pool_fixed_avx2},
#endif
    {Isa::scalar, average_pool_fixed_scalar},
};
constexpr Variant<Pool*> kAverageF32[] = {
#if LOWBIT_X86
    {Isa::avx512, average_pool_f32_avx512},
    {Isa::avx2, average_pool_f32_avx2},
#endif
    {Isa::scalar, average_pool_f32_scalar},
};

// The taps of [0, kernel) at start + t * dilation that lie in [from, to): their number, and the first of them.
struct Taps {
  int64_t first, count;
};
Taps taps_within(int64_t start, int64_t kernel, int64_t dilation, int64_t from, int64_t to) {
  const int64_t skip = start < from ? (from - start + dilation - 1) / dilation : 0;
  const int64_t end = start < to ? std::min(kernel, (to - start + dilation - 1) / dilation) : 0;
  return {start + skip * dilation, std::max<int64_t>(end - skip, 0)};
}

Conv2dShape checked(const char* function, Conv2dShape shape, int64_t ldx, int64_t ldy) {
  shape.oc = shape.c;
  shape.groups = 1;
  check_conv2d_shape(function, shape);
  for (int64_t ld : {ldx, ldy}) {
    if (ld < shape.c)
      fail(function, "a row of " + std::to_string(ld) + " elements is below c = " + std::to_string(shape.c));
  }
  return shape;
}

// run(row) for every output row.
template <typename T, typename Run>
void over_rows(const T* x, int64_t ldx, const Conv2dShape& s, PoolCount count, T* y, int64_t ldy, int threads,
               Run run) {
  const int team = resolve_threads(threads);
  if (s.batch == 0 || s.c == 0) return;
  const int64_t out_h = s.out_h(), out_w = s.out_w();
  // An average counts the taps inside [top, bottom) and [left, right).
  const int64_t pad = count.include_pad ? 1 : 0;
  const int64_t top = -pad * s.pad_top, bottom = s.h + pad * (s.pad_bottom - count.overhang_bottom);
  const int64_t left = -pad * s.pad_left, right = s.w + pad * (s.pad_right - count.overhang_right);
  PoolColumn* const columns = scratch<PoolColumn>(ScratchSlot::pool_columns, static_cast<size_t>(out_w));
  for (int64_t ox = 0; ox < out_w; ++ox) {
    const int64_t start = ox * s.stride_w - s.pad_left;
    const Taps taps = taps_within(start, s.kw, s.dilation_w, 0, s.w);
    columns[ox] = {taps.count > 0 ? taps.first : 0, static_cast<int32_t>(taps.count),
                   static_cast<int32_t>(taps_within(start, s.kw, s.dilation_w, left, right).count)};
  }
  const double work = static_cast<double>(out_w) * s.c * s.kh * s.kw;
  parallel_for(team, s.batch * out_h, static_cast<int64_t>(8 * kGrain / work) + 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t start = i % out_h * s.stride_h - s.pad_top;
      const Taps taps = taps_within(start, s.kh, s.dilation_h, 0, s.h);
      PoolRow row;
      row.x = taps.count > 0 ? x + (i / out_h * s.h + taps.first) * s.w * ldx : x;
      row.rows = taps.count;
      row.count = taps_within(start, s.kh, s.dilation_h, top, bottom).count;
      row.row_step = s.dilation_h * s.w * ldx;
      row.tap_step = s.dilation_w * ldx;
      row.pixel_step = ldx;
      row.columns = columns;
      row.out_w = out_w;
      row.c = s.c;
      row.y = y + i * out_w * ldy;
      row.y_step = ldy;
      run(row);
    }
  });
}

void check_count(const char* function, const Conv2dShape& shape, const PoolCount& count) {
  if (count.overhang_bottom < 0 || count.overhang_bottom > shape.pad_bottom || count.overhang_right < 0 ||
      count.overhang_right > shape.pad_right) {
    fail(function, "overhang " + std::to_string(count.overhang_bottom) + ", " + std::to_string(count.overhang_right) +
                       " is not within the padding " + std::to_string(shape.pad_bottom) + ", " +
                       std::to_string(shape.pad_right));
  }
}

}  // namespace

void max_pool(const void* x, DType dtype, int64_t ldx, const Conv2dShape& shape, void* y, int64_t ldy, Isa isa,
              int threads) {
  check_level("max_pool", isa);
  const Conv2dShape s = checked("max_pool", shape, ldx, ldy);
  if (dtype == DType::s32) fail("max_pool", "dtype int32 is not int8, uint8 or float32");
  if (dtype == DType::f32) {
    over_rows(static_cast<const float*>(x), ldx, s, false, static_cast<float*>(y), ldy, threads, pick(kMaxF32, isa));
  } else {
    over_rows(static_cast<const uint8_t*>(x), ldx, s, false, static_cast<uint8_t*>(y), ldy, threads,
              dtype == DType::s8 ? pick(kMaxS8, isa) : pick(kMaxU8, isa));
  }
}

void average_pool_i8(const void* x, const Codes& cx, int64_t ldx, const Conv2dShape& shape, PoolCount count, void* y,
                     const Codes& cy, int64_t ldy, Rounding rounding, Isa isa, int threads) {
  constexpr const char* kName = "average_pool_i8";
  check_level(kName, isa);
  check_rounding(kName, rounding);
  const Conv2dShape s = checked(kName, shape, ldx, ldy);
  check_count(kName, s, count);
  const CodeOut out = code_out(kName, cy);
  const CodeIn in = code_in(kName, "x", cx, cx.scale / cy.scale);
  const int64_t taps = std::min(s.kh, s.h) * std::min(s.kw, s.w);  // that can lie inside the image
  if (taps > INT32_MAX / 255) fail(kName, "a window of " + std::to_string(taps) + " pixels overflows its sum");
  if (rounding != Rounding::nearest_even) {
    if (s.kh > INT32_MAX / s.kw) fail(kName, "a window of " + std::to_string(s.kh) + " x " + std::to_string(s.kw));
    const bool same = cx.scale == cy.scale;
    const FixedPoint ratio = exact_fixed_point(kName, double{cx.scale} / double{cy.scale});
    PoolFixed* const run = pick(kAverageFixed, isa);
    over_rows(static_cast<const uint8_t*>(x), ldx, s, count, static_cast<uint8_t*>(y), ldy, threads,
              [&](const PoolRow& row) { run(row, in, out, same ? nullptr : &ratio, rounding); });
    return;
  }
  PoolCodes* const run = pick(kAverageCodes, isa);
  over_rows(static_cast<const uint8_t*>(x), ldx, s, count, static_cast<uint8_t*>(y), ldy, threads,
            [&](const PoolRow& row) { run(row, in, out); });
}

void average_pool_f32(const float* x, int64_t ldx, const Conv2dShape& shape, PoolCount count, float* y, int64_t ldy,
                      Isa isa, int threads) {
  check_level("average_pool_f32", isa);
  const Conv2dShape s = checked("average_pool_f32", shape, ldx, ldy);
  check_count("average_pool_f32", s, count);
  over_rows(x, ldx, s, count, y, ldy, threads, pick(kAverageF32, isa));
}

}  // namespace lowbit
