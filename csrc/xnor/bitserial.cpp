// Doors: bitserial_gemm, bitserial_conv2d. The dots of every pair of planes for a few rows times a panel of channels go
// to scratch that the L1 cache holds, the binary product's own tile doing them; one pass then adds them up and ends in
// floats, codes' planes, or both.
#include <algorithm>
#include <cmath>

#include "target.h"
#include "variant.h"
#include "xnor/bit_windows.h"
#include "xnor/bitserial_kernel.h"
#include "xnor/level_steps.h"

namespace lowbit {
namespace {

constexpr int64_t kMaxPlanes = 8;
constexpr int64_t kTileRows = 6;
constexpr int64_t kDots = 6 << 10;  // of all pairs at a time: 24 KB
static_assert(kBitserialPanel == kXnorPanel);

using SumsFn = void (*)(const PairSums&) noexcept;
constexpr Variant<SumsFn> kSumsF32[] = {
#if LOWBIT_X86
    {Isa::avx512, pair_sums_f32_avx512},
    {Isa::avx2, pair_sums_f32_avx2},
#endif
    {Isa::scalar, pair_sums_f32_scalar}};
constexpr Variant<SumsFn> kSumsS32[] = {
#if LOWBIT_X86
    {Isa::avx512, pair_sums_s32_avx512},
    {Isa::avx2, pair_sums_s32_avx2},
#endif
    {Isa::scalar, pair_sums_s32_scalar}};

// Sum of the +-1 weights of output channel j of group g.
int32_t weight_sum(const PackedXnor::Data& w, int64_t g, int64_t j) {
  const Conv2dShape& s = w.shape;
  const int64_t padded = w.padded_channels();
  return w.tap_sums[size_t(((s.kh + 1) * (s.kw + 1) - 1) * s.groups * padded + g * padded + j)];
}

// One call, checked: the weights' planes, the coefficients of every pair, the dots' starts, and how rows become
// outputs.
class BitserialCall {
 public:
  // sums: the epilogue without what this finds. a_basis, b_basis: of coefficients of type T.
  template <typename T>
  BitserialCall(const char* function, const BitPlanes& a, const PackedXnor* b, int64_t b_bits, const T* a_basis,
                const T* b_basis, const PairSums& sums, SumsFn fn, Isa isa)
      : b_(b), a_bits_(a.count), b_bits_(b_bits), zero_one_(a.zero_one), sums_(sums), fn_(fn), xnor_(pick_xnor(isa)) {
    const PackedXnor::Data& w = *b[0].data;
    all_ = w.shape.groups * w.padded_channels();
    if (sums.planes && w.shape.groups > 1 && w.channels() % 32 != 0) {
      fail_xnor(function, "planes of " + std::to_string(w.shape.groups) + " groups of " + std::to_string(w.channels()) +
                              " channels: groups must be whole words");
    }
    static_assert(sizeof(T) == sizeof(float));
    T* c = scratch<T>(ScratchSlot::bit_bases, size_t(a_bits_ * b_bits_ * all_));
    std::fill_n(c, a_bits_ * b_bits_ * all_, T{});
    if constexpr (std::is_same_v<T, float>) {
      sums_.c = c;
    } else {
      sums_.c_s32 = c;
      sums_.shift = zero_one_ ? 1 : 0;
    }
    sums_.c_stride = all_;
    const int64_t channels = w.channels(), padded = w.padded_channels();
    for (int64_t q = 0; q < a_bits_; ++q) {
      for (int64_t p = 0; p < b_bits_; ++p, c += all_) {
        for (int64_t j = 0; j < w.shape.oc; ++j) {
          T& own = c[j / channels * padded + j % channels];
          own = a_basis[q] * b_basis[p * w.shape.oc + j];
          if constexpr (std::is_same_v<T, float>) own *= zero_one_ ? 0.5f : 1.0f;
        }
      }
    }
  }

  template <typename Inside>
  void prepare(int64_t patterns, Inside&& inside) {
    pattern_area_ = patterns * all_;
    start_ = scratch<int32_t>(ScratchSlot::bit_starts, size_t(2 * b_bits_ * pattern_area_));
    half_ = start_ + b_bits_ * pattern_area_;
    for (int64_t p = 0; p < b_bits_; ++p) {
      for (int64_t i = 0; i < patterns; ++i) fill(*b_[p].data, inside(i), start_ + p * pattern_area_ + i * all_);
    }
    for (int64_t i = 0; i < b_bits_ * pattern_area_; ++i) half_[i] = start_[i] >> 1;
  }
  int64_t pattern_stride() const { return all_; }
  bool splits_panels() const { return true; }

  void run(const WindowRows& r, int64_t p0, int64_t p1) const {
    const PackedXnor::Data& w = *b_[0].data;
    const int64_t pairs = a_bits_ * b_bits_;
    const int64_t most = std::max(kTileRows, kDots / (pairs * kXnorPanel) / kTileRows * kTileRows);
    int32_t* dots = scratch<int32_t>(ScratchSlot::bit_dots, size_t(pairs * std::min(most, r.count) * kXnorPanel));
    auto** rows = scratch<const uint32_t*>(ScratchSlot::row_sums, size_t(a_bits_ * r.count));
    for (int64_t g = 0; g < w.shape.groups; ++g) {
      for (int64_t i = 0; i < a_bits_ * r.count; ++i) rows[i] = r.rows[i] + g * r.group_words;
      for (int64_t panel = p0; panel < p1; ++panel) {
        for (int64_t i = 0; i < r.count; i += most) {
          const int64_t count = std::min(most, r.count - i);
          for (int64_t pair = 0; pair < pairs; ++pair) {
            find_dots(r, rows + pair / b_bits_ * r.count, i, count, pair % b_bits_, g, panel,
                      dots + pair * count * kXnorPanel);
          }
          finish(dots, r.first_row + i, count, g, panel);
        }
      }
    }
  }

 private:
  // <a01, b> = (<a, b> + sum b) / 2, pixels of padding being codes 0: twice it is k + sum b - 2 pop.
  void fill(const PackedXnor::Data& w, const Taps& in, int32_t* start) const {
    if (!zero_one_) return fill_starts(w, in, start);
    fill_starts(w, {0, w.shape.kh, 0, w.shape.kw}, start);
    const int64_t padded = w.padded_channels();
    for (int64_t i = 0; i < all_; ++i) start[i] += weight_sum(w, i / padded, i % padded);
  }

  void find_dots(const WindowRows& r, const uint32_t* const* rows, int64_t first, int64_t count, int64_t p, int64_t g,
                 int64_t panel, int32_t* dots) const {
    const PackedXnor::Data& w = *b_[p].data;
    const int64_t panel_words = w.words_per_channel() * kXnorPanel, at = g * w.panels() + panel;
    const int64_t column = g * w.padded_channels() + panel * kXnorPanel;
    XnorFinish f{};
    f.out = XnorOut::s32;
    f.y = dots;
    f.ldy = kXnorPanel;
    f.lo = -INFINITY;
    f.hi = INFINITY;
    xnor_.fn({.rows = rows + first,
              .row_count = count,
              .run_offset = r.run_offset,
              .runs = r.runs,
              .run_words = r.run_words,
              .w = w.words.data() + at * panel_words,
              .w_bytes = xnor_.byte_order ? w.bytes_ordered() + at * panel_words * int64_t(sizeof(uint32_t)) : nullptr,
              .channels = std::min(kXnorPanel, (w.channels() - panel * kXnorPanel + 15) / 16 * 16),  // whole vectors
              .start = start_ + p * pattern_area_ + column,
              .half = half_ + p * pattern_area_ + column,
              .least = nullptr,
              .even = zero_one_ || w.depth() % 2 == 0,
              .pattern = r.pattern ? r.pattern + first : nullptr,
              .finish = f});
  }

  void finish(const int32_t* dots, int64_t row, int64_t count, int64_t g, int64_t panel) const {
    const PackedXnor::Data& w = *b_[0].data;
    const int64_t column = g * w.channels() + panel * kXnorPanel, padded = g * w.padded_channels() + panel * kXnorPanel;
    PairSums s = sums_;
    s.dots = dots;
    s.pairs = a_bits_ * b_bits_;
    s.rows = count;
    s.channels = std::min(kXnorPanel, w.channels() - panel * kXnorPanel);
    if (s.c) s.c += padded;
    if (s.c_s32) s.c_s32 += padded;
    if (s.y) s.y = static_cast<float*>(s.y) + row * s.ldy + column;
    if (s.bias) s.bias += column;
    if (s.residual) s.residual += row * s.residual_stride + column;
    if (s.planes) s.planes += row * s.ld_planes + column / 32;
    fn_(s);
  }

  const PackedXnor* b_;
  int64_t a_bits_, b_bits_, all_ = 0, pattern_area_ = 0;  // all_: channels of all groups, padded to panels
  bool zero_one_;
  PairSums sums_;
  SumsFn fn_;
  XnorVariant xnor_;
  int32_t* start_ = nullptr;
  int32_t* half_ = nullptr;
};

void check_planes(const char* function, const BitPlanes& a, const PackedXnor* b, int64_t b_bits) {
  if (a.count < 1 || a.count > kMaxPlanes || b_bits < 1 || b_bits > kMaxPlanes) {
    fail_xnor(function, std::to_string(a.count) + " and " + std::to_string(b_bits) + " planes, must be 1 to 8");
  }
  for (int64_t p = 0; p < b_bits; ++p) {
    if (!b[p].data) fail_xnor(function, "plane " + std::to_string(p) + " of the weights is empty: it was not packed");
    if (b[p].data->shape.oc != b[0].data->shape.oc) {
      fail_xnor(function, "planes of the weights have " + std::to_string(b[0].data->shape.oc) + " and " +
                              std::to_string(b[p].data->shape.oc) + " channels");
    }
  }
}

// int32: no sum may leave it.
void check_sums(const char* function, const BitPlanes& a, const PackedXnor* b, int64_t b_bits, const int32_t* a_basis,
                const int32_t* b_basis) {
  const PackedXnor::Data& w = *b[0].data;
  const int64_t n = w.shape.oc, k = w.shape.kh * w.shape.kw * w.depth();
  for (int64_t j = 0; j < n; ++j) {
    double most = 0;
    for (int64_t q = 0; q < a.count; ++q) {
      for (int64_t p = 0; p < b_bits; ++p) most += std::abs(double(a_basis[q]) * double(b_basis[p * n + j]));
    }
    if (most * double(k) * (a.zero_one ? 2 : 1) > double(INT32_MAX)) {
      fail_xnor(function, "the sums of channel " + std::to_string(j) + " with k = " + std::to_string(k) +
                              " and these bases leave int32");
    }
  }
}

PairSums checked_epilogue(const char* function, const BitserialEpilogue& e, int64_t n) {
  auto at_least = [&](const char* name, int64_t value, int64_t least) {
    if (value < least)
      fail_xnor(function, std::string(name) + " is " + std::to_string(value) + ", a row has " + std::to_string(least));
  };
  if (!e.y && !e.planes) fail_xnor(function, "neither y nor planes are wanted");
  if (e.y) at_least("ldy", e.ldy, n);
  if (e.residual) at_least("residual_stride", e.residual_stride, n);
  if (!(e.lo <= e.hi)) fail_xnor(function, "clamp from " + std::to_string(e.lo) + " to " + std::to_string(e.hi));
  PairSums s{};
  s.y = e.y;
  s.ldy = e.ldy;
  s.bias = e.bias;
  s.residual = e.residual;
  s.residual_stride = e.residual_stride;
  s.lo = e.lo;
  s.hi = e.hi;
  if (e.planes) {
    at_least("ld_planes", e.ld_planes, bit_words(n));
    s.planes = e.planes;
    s.plane_stride = e.plane_stride;
    s.ld_planes = e.ld_planes;
    s.levels = checked_steps(function, e.levels);
  }
  return s;
}

// What a float or an int32 call ends in, as PairSums and its kernel; empty y where there are no outputs.
template <typename T, typename Run>
void with_call(const char* function, const BitPlanes& a, const PackedXnor* b, int64_t b_bits, const T* a_basis,
               const T* b_basis, const PairSums& sums, Isa isa, Run&& run) {
  SumsFn fn;
  if constexpr (std::is_same_v<T, float>) {
    fn = pick(kSumsF32, isa);
  } else {
    check_sums(function, a, b, b_bits, a_basis, b_basis);
    fn = pick(kSumsS32, isa);
  }
  BitserialCall call(function, a, b, b_bits, a_basis, b_basis, sums, fn, isa);
  run(call);
}

PairSums checked_s32(const char* function, int32_t* y, int64_t ldy, int64_t n) {
  if (!y || ldy < n) fail_xnor(function, "ldy is " + std::to_string(ldy) + ", a row has " + std::to_string(n));
  PairSums s{};
  s.y = y;
  s.ldy = ldy;
  return s;
}

template <typename T, typename Check>
void gemm(const BitPlanes& a, int64_t m, const PackedXnor* b, int64_t b_bits, const T* a_basis, const T* b_basis,
          Check&& checked, Isa isa, int threads) {
  constexpr const char* kName = "bitserial_gemm";
  check_planes(kName, a, b, b_bits);
  for (int64_t p = 0; p < b_bits; ++p) {
    if (check_gemm(kName, m, a.ld, b[p]).shape.c != b[0].data->shape.c) fail_xnor(kName, "planes of b differ in k");
  }
  const PackedXnor::Data& w = *b[0].data;
  const PairSums sums = checked(kName, w.shape.oc);
  threads = resolve_threads(threads);
  if (m == 0 || w.shape.oc == 0) return;
  with_call(kName, a, b, b_bits, a_basis, b_basis, sums, isa, [&](BitserialCall& call) {
    run_gemm({a.bits, a.ld, a.count, a.stride}, m, w, call, a.count * b_bits, threads);
  });
}

template <typename T, typename Check>
void conv2d(const BitPlanes& x, const Conv2dShape& s, PadValue pad_value, const PackedXnor* b, int64_t b_bits,
            const T* x_basis, const T* w_basis, Check&& checked, Isa isa, int threads) {
  constexpr const char* kName = "bitserial_conv2d";
  check_planes(kName, x, b, b_bits);
  for (int64_t p = 0; p < b_bits; ++p) check_conv2d(kName, s, x.ld, b[p], pad_value);
  if (x.zero_one) pad_value = PadValue::minus_one;  // code 0 is bits 0
  const PackedXnor::Data& w = *b[0].data;
  const PairSums sums = checked(kName, s.oc);
  threads = resolve_threads(threads);
  if (s.batch == 0 || s.oc == 0) return;
  with_call(kName, x, b, b_bits, x_basis, w_basis, sums, isa, [&](BitserialCall& call) {
    run_conv2d({x.bits, x.ld, x.count, x.stride}, s, w, pad_value, call, x.count * b_bits, threads);
  });
}

}  // namespace

void bitserial_gemm(const BitPlanes& a, int64_t m, const PackedXnor* b, int64_t b_bits, const int32_t* a_basis,
                    const int32_t* b_basis, int32_t* y, int64_t ldy, Isa isa, int threads) {
  gemm(
      a, m, b, b_bits, a_basis, b_basis, [=](const char* f, int64_t n) { return checked_s32(f, y, ldy, n); }, isa,
      threads);
}

void bitserial_gemm(const BitPlanes& a, int64_t m, const PackedXnor* b, int64_t b_bits, const float* a_basis,
                    const float* b_basis, const BitserialEpilogue& e, Isa isa, int threads) {
  gemm(
      a, m, b, b_bits, a_basis, b_basis, [&](const char* f, int64_t n) { return checked_epilogue(f, e, n); }, isa,
      threads);
}

void bitserial_conv2d(const BitPlanes& x, const Conv2dShape& shape, PadValue pad_value, const PackedXnor* w,
                      int64_t w_bits, const int32_t* x_basis, const int32_t* w_basis, int32_t* y, int64_t ldy, Isa isa,
                      int threads) {
  conv2d(
      x, shape, pad_value, w, w_bits, x_basis, w_basis,
      [=](const char* f, int64_t n) { return checked_s32(f, y, ldy, n); }, isa, threads);
}

void bitserial_conv2d(const BitPlanes& x, const Conv2dShape& shape, PadValue pad_value, const PackedXnor* w,
                      int64_t w_bits, const float* x_basis, const float* w_basis, const BitserialEpilogue& e, Isa isa,
                      int threads) {
  conv2d(
      x, shape, pad_value, w, w_bits, x_basis, w_basis,
      [&](const char* f, int64_t n) { return checked_epilogue(f, e, n); }, isa, threads);
}

}  // namespace lowbit
