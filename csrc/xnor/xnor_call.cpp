#include "xnor/xnor_call.h"

#include <algorithm>
#include <cmath>

#include "conv2d_shape.h"
#include "scratch.h"
#include "target.h"
#include "variant.h"

namespace lowbit {
namespace {

constexpr Variant<XnorVariant> kVariants[] = {
#if LOWBIT_X86
    {Isa::avx512, {xnor_avx512, false}},
    {Isa::avx2, {xnor_avx2, true}},
#endif
    {Isa::scalar, {xnor_scalar, false}}};

XnorOut out_of(DType dtype, const void* y) {
  if (!y) return XnorOut::none;
  switch (dtype) {
    case DType::s32:
      return XnorOut::s32;
    case DType::f32:
      return XnorOut::f32;
    case DType::s8:
      return XnorOut::s8;
    case DType::u8:
      return XnorOut::u8;
  }
  return XnorOut::none;
}

// `count` bits of `from` to the bits from `first` on of `to`, which are 0 so far.
void append_bits(uint32_t* to, int64_t first, const uint32_t* from, int64_t count) {
  for (int64_t p = 0; 32 * p < count; ++p) {
    const int64_t at = first + 32 * p, shift = at % 32;
    to[at / 32] |= from[p] << shift;
    if (shift && shift + std::min<int64_t>(32, count - 32 * p) > 32) to[at / 32 + 1] |= from[p] >> (32 - shift);
  }
}

std::string text(const Conv2dShape& s) {
  return "(" + std::to_string(s.oc) + ", " + std::to_string(s.kh) + ", " + std::to_string(s.kw) + ", " +
         std::to_string(s.c / s.groups) + ") in " + std::to_string(s.groups) + " groups";
}

}  // namespace

const PackedXnor::Data& check_gemm(const char* function, int64_t m, int64_t lda, const PackedXnor& b) {
  if (!b.data) fail_xnor(function, "b is empty: it was not packed");
  const PackedXnor::Data& w = *b.data;
  if (w.shape.kh != 1 || w.shape.kw != 1 || w.shape.groups != 1) {
    fail_xnor(function, "b was packed as a convolution, " + text(w.shape));
  }
  const int64_t k = w.shape.c, words = bit_words(k);
  if (m < 0 || m >= int64_t{1} << 46) fail_xnor(function, "m is " + std::to_string(m));
  if (m > 1 && lda < words) {
    fail_xnor(function, "lda is " + std::to_string(lda) + ", a row of k = " + std::to_string(k) + " has " +
                            std::to_string(words) + " words");
  }
  return w;
}

const PackedXnor::Data& check_conv2d(const char* function, const Conv2dShape& s, int64_t ldx, const PackedXnor& packed,
                                     PadValue pad_value) {
  check_conv2d_shape(function, s);
  if (!packed.data) fail_xnor(function, "w is empty: it was not packed");
  const PackedXnor::Data& w = *packed.data;
  if (w.shape.c != s.c || w.shape.oc != s.oc || w.shape.kh != s.kh || w.shape.kw != s.kw ||
      w.shape.groups != s.groups) {
    fail_xnor(function, "w was packed as " + text(w.shape) + ", shape asks for " + text(s));
  }
  if (pad_value != PadValue::minus_one && pad_value != PadValue::zero && pad_value != PadValue::plus_one) {
    fail_xnor(function, "pad_value is " + std::to_string(static_cast<int>(pad_value)) + ", must be -1, 0 or 1");
  }
  if (ldx < bit_words(s.c)) {
    fail_xnor(function, "ldx is " + std::to_string(ldx) + ", a pixel of c = " + std::to_string(s.c) + " has " +
                            std::to_string(bit_words(s.c)) + " words");
  }
  return w;
}

XnorVariant pick_xnor(Isa isa) { return pick(kVariants, isa); }

XnorSplit split_xnor(int threads, int64_t rows, int64_t panels, int64_t macs) {
  constexpr int64_t kMacsPerThread = 4 << 20;  // some 4 us
  const int64_t worth = std::clamp<int64_t>(macs / kMacsPerThread, 1, threads);
  XnorSplit best;
  double least = 1e300;
  for (int64_t pp = 1; pp <= std::min(worth, panels); ++pp) {
    const int64_t rp = std::min(worth / pp, rows);
    // Parts of a panel split copy the same image: rows are split first.
    const double load = double((rows + rp - 1) / rp) * double((panels + pp - 1) / pp) * (pp > 1 ? 1.02 : 1.0);
    if (load < least) {
      least = load;
      best = {static_cast<int>(rp), static_cast<int>(pp)};
    }
  }
  return best;
}

XnorCall::XnorCall(const char* function, const PackedXnor::Data& w, const XnorEpilogue& e, void* y, int64_t ldy,
                   Isa isa)
    : w_(w), e_(e), y_(y), ldy_(ldy), all_(w.shape.groups * w.padded_channels()) {
  const int64_t n = w.shape.oc;
  auto at_least = [&](const char* name, int64_t value, int64_t least) {
    if (value < least)
      fail_xnor(function, std::string(name) + " is " + std::to_string(value) + ", a row has " + std::to_string(least));
  };
  if (!y && !e.bits) fail_xnor(function, "neither y nor bits are wanted");
  if (y) at_least("ldy", ldy, n);
  if (e.bits) at_least("ld_bits", e.ld_bits, bit_words(n));
  if (e.residual) at_least("residual_stride", e.residual_stride, n);
  if (!(e.lo <= e.hi)) fail_xnor(function, "clamp from " + std::to_string(e.lo) + " to " + std::to_string(e.hi));
  const bool codes = y && (e.out_dtype == DType::s8 || e.out_dtype == DType::u8);
  const int32_t least = e.out_dtype == DType::s8 ? -128 : 0;
  if (codes && (e.zero_point < least || e.zero_point > least + 255)) {
    fail_xnor(function, "zero_point " + std::to_string(e.zero_point) + " is not one of " + dtype_name(e.out_dtype));
  }
  for (int64_t j = 0; e.bits && !e.dot_threshold && e.threshold && j < n; ++j) {
    if (std::isnan(e.threshold[j])) fail_xnor(function, "threshold[" + std::to_string(j) + "] is NaN");
  }
  variant_ = pick_xnor(isa);
  groups_share_words_ = e.bits && w.shape.groups > 1 && w.channels() % 32 != 0;
  if (e.bits) flips_ = flip_words(e.flip, w.shape.groups, w.channels(), w.padded_channels() / 32);
}

void XnorCall::reserve(int64_t patterns) {
  const int64_t size = patterns * all_;
  start_ = scratch<int32_t>(ScratchSlot::bit_starts, size_t(3 * size));
  half_ = start_ + size;
  least_ = half_ + size;
}

// Pad pixels of an exact zero are stored as -1 (bits 0), so a tap outside the image added -(sum of its weights) to
// k - 2 pop. With S the sum over all taps and R over those inside the image, the outside ones sum to S - R, and
//   dot = k + (S - R) - 2 pop =: start - 2 pop.
void fill_starts(const PackedXnor::Data& w, const Taps& in, int32_t* start) {
  const Conv2dShape& s = w.shape;
  const int64_t all = s.groups * w.padded_channels();
  const int32_t k = static_cast<int32_t>(s.kh * s.kw * w.depth());
  auto sums = [&](int64_t ky, int64_t kx) { return w.tap_sums.data() + (ky * (s.kw + 1) + kx) * all; };
  if (in.ky0 == 0 && in.ky1 == s.kh && in.kx0 == 0 && in.kx1 == s.kw) {
    std::fill_n(start, all, k);
    return;
  }
  const int32_t *total = sums(s.kh, s.kw), *a = sums(in.ky1, in.kx1), *b = sums(in.ky0, in.kx1),
                *c = sums(in.ky1, in.kx0), *d = sums(in.ky0, in.kx0);
  for (int64_t j = 0; j < all; ++j) start[j] = k + total[j] - (a[j] - b[j] - c[j] + d[j]);
}

// With start = 2 h + odd and half = h - pop: dot = 2 half + odd, so
//   dot >= t <=> half >= (t - odd) / 2 <=> half >= ceil((t - odd) / 2) =: least.
void XnorCall::fill(int64_t pattern, const Taps& in) {
  const Conv2dShape& s = w_.shape;
  int32_t *start = start_ + pattern * all_, *least = least_ + pattern * all_;
  fill_starts(w_, in, start);
  for (int64_t j = 0; j < all_; ++j) half_[pattern * all_ + j] = start[j] >> 1;
  if (!e_.bits || !e_.dot_threshold) return;
  const int64_t channels = w_.channels(), padded = w_.padded_channels();
  for (int64_t g = 0; g < s.groups; ++g) {
    for (int64_t j = 0; j < channels; ++j) {
      const int64_t t = e_.dot_threshold[g * channels + j], odd = start[g * padded + j] & 1;
      least[g * padded + j] = static_cast<int32_t>((t - odd + 1) >> 1);
    }
    std::fill(least + g * padded + channels, least + (g + 1) * padded, INT32_MAX);
  }
}

void XnorCall::run_group(const WindowRows& r, int64_t g, int64_t p0, int64_t p1, uint32_t* bits,
                         int64_t ld_bits) const {
  const int64_t channels = w_.channels(), padded = w_.padded_channels(), first = p0 * kXnorPanel;
  const int64_t column = g * channels + first, panel_words = w_.words_per_channel() * kXnorPanel;
  const int64_t panel = g * w_.panels() + p0;
  auto from = [column](auto* p) { return p ? p + column : p; };
  XnorFinish f{};
  f.out = out_of(e_.out_dtype, y_);
  if (y_) f.y = static_cast<char*>(y_) + (r.first_row * ldy_ + column) * int64_t(dtype_size(e_.out_dtype));
  f.ldy = ldy_;
  f.scale = from(e_.scale);
  f.input_scale = e_.input_scale ? e_.input_scale + r.first_row : nullptr;
  f.bias = from(e_.bias);
  f.residual = e_.residual ? e_.residual + r.first_row * e_.residual_stride + column : nullptr;
  f.residual_stride = e_.residual_stride;
  f.lo = e_.lo;
  f.hi = e_.hi;
  f.zero_point = e_.zero_point;
  f.bits = bits;
  f.ld_bits = ld_bits;
  f.by_dot = e_.dot_threshold;
  f.threshold = from(e_.threshold);
  f.flip = flips_ ? flips_ + (g * padded + first) / 32 : nullptr;
  const int64_t offset = g * padded + first;
  variant_.fn(
      {.rows = r.rows,
       .row_count = r.count,
       .run_offset = r.run_offset,
       .runs = r.runs,
       .run_words = r.run_words,
       .w = w_.words.data() + panel * panel_words,
       .w_bytes = variant_.byte_order ? w_.bytes_ordered() + panel * panel_words * int64_t(sizeof(uint32_t)) : nullptr,
       .channels = std::min(channels, p1 * kXnorPanel) - first,
       .start = start_ + offset,
       .half = half_ + offset,
       .least = least_ + offset,
       .even = w_.depth() % 2 == 0,
       .pattern = r.pattern,
       .finish = f});
}

void XnorCall::run(const WindowRows& rows, int64_t p0, int64_t p1) const {
  const int64_t groups = w_.shape.groups, channels = w_.channels(), n = w_.shape.oc;
  if (rows.count == 0) return;
  const int64_t words = bit_words(channels), ld = groups_share_words_ ? groups * words : e_.ld_bits;
  uint32_t* apart =
      groups_share_words_ ? scratch<uint32_t>(ScratchSlot::accumulators, size_t(rows.count * ld)) : nullptr;
  WindowRows r = rows;
  const uint32_t** moved = groups > 1 ? scratch<const uint32_t*>(ScratchSlot::row_sums, size_t(rows.count)) : nullptr;
  for (int64_t g = 0; g < groups; ++g) {
    if (moved) {
      for (int64_t i = 0; i < rows.count; ++i) moved[i] = rows.rows[i] + g * rows.group_words;
      r.rows = moved;
    }
    uint32_t* bits = groups_share_words_ ? apart + g * words
                     : e_.bits           ? e_.bits + rows.first_row * ld + (g * channels + p0 * kXnorPanel) / 32
                                         : nullptr;
    run_group(r, g, p0, p1, bits, ld);
  }
  for (int64_t i = 0; groups_share_words_ && i < rows.count; ++i) {
    uint32_t* out = e_.bits + (rows.first_row + i) * e_.ld_bits;
    std::fill_n(out, bit_words(n), 0u);
    for (int64_t g = 0; g < groups; ++g) append_bits(out, g * channels, apart + i * ld + g * words, channels);
  }
}

const uint8_t* PackedXnor::Data::bytes_ordered() const {
  std::call_once(bytes_once, [this] {
    byte_order.resize(words.size() * sizeof(uint32_t));
    const auto* from = reinterpret_cast<const uint8_t*>(words.data());  // little-endian: byte b of a word is bits 8b...
    for (size_t block = 0; block < byte_order.size(); block += kXnorPanel * sizeof(uint32_t)) {
      for (int64_t j = 0; j < kXnorPanel; ++j) {
        for (int64_t b = 0; b < 4; ++b)
          byte_order[block + size_t(b * kXnorPanel + j)] = from[block + size_t(4 * j + b)];
      }
    }
  });
  return byte_order.data();
}

}  // namespace lowbit
