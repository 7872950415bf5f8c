// Convolutions of bits as int8 at level amx: bits become -1 and +1 bytes, conv2d_i8 multiplies them with tdpbusd, which
// runs three times the products a cycle that vpopcntd does, and its fused epilogue ends in floats, dots, or codes whose
// signs are the bits. Padded pixels hold conv2d_i8's zero point z, subtracted from every pixel: with z the pad value,
// its sums are sum (x - z) * w = dot - z * sum w, so z * sum w goes to the bias; an exact zero is z = 0.
#include <algorithm>
#include <cmath>

#include "scratch.h"
#include "thread_pool.h"
#include "xnor/xnor_packed.h"

namespace lowbit {
namespace {

// Where it beats vpopcntd (bench/README.md): enough products for a byte widened and for an output that passes through
// memory (float32 more than bits), and enough pixels for the weights, which are eight times as large.
bool pays(const Conv2dShape& s, bool only_bits, int parts) {
  constexpr int64_t kMinPixels = 128, kMaxBytes = 1 << 20, kMaxDepth = 1 << 16;  // the last for conv2d_i8's sums
  constexpr int64_t kMinMacs = 24 << 20;                                         // of a thread
  const int64_t depth = s.kh * s.kw * s.c;
  return s.groups == 1 && s.stride_h == 1 && s.stride_w == 1 && s.kh * s.kw >= 9 && s.c % 64 == 0 && s.oc >= 64 &&
         depth >= (only_bits ? 576 : 1152) && depth <= kMaxDepth && s.out_h() * s.out_w() >= kMinPixels &&
         s.h * s.w * s.c <= kMaxBytes && s.batch * s.out_h() * s.out_w() * s.oc * depth >= parts * kMinMacs &&
         s.pad_top <= s.dilation_h * (s.kh - 1) && s.pad_bottom <= s.dilation_h * (s.kh - 1);  // every row reads some
}

// Whether conv2d_i8 ends in the same outputs, operation by operation.
bool same_epilogue(const XnorEpilogue& e, const void* y, int64_t n) {
  if (!y) return e.dot_threshold;
  if (e.bits || e.input_scale) return false;
  if (e.out_dtype == DType::s32) return true;
  if (e.out_dtype != DType::f32) return false;
  for (int64_t j = 0; e.scale && j < n; ++j) {
    if (!(e.scale[j] > 0 && std::isfinite(e.scale[j]))) return false;
  }
  return true;
}

}  // namespace

const PackedConvI8& PackedXnor::Data::as_i8(const Conv2dShape& s) const {
  const std::lock_guard lock(i8_lock);
  for (const auto& [geometry, packed] : i8) {
    if (geometry.stride_h == s.stride_h && geometry.stride_w == s.stride_w && geometry.dilation_h == s.dilation_h &&
        geometry.dilation_w == s.dilation_w) {
      return packed;
    }
  }
  const int64_t taps = shape.kh * shape.kw, row = bit_words(shape.c), all = taps * row;
  std::vector<int8_t> signs(size_t(shape.oc * taps * shape.c));
  for (int64_t o = 0, i = 0; o < shape.oc; ++o) {
    const uint32_t* from = words.data() + o / kXnorPanel * all * kXnorPanel + o % kXnorPanel;
    for (int64_t t = 0; t < taps; ++t) {
      for (int64_t j = 0; j < shape.c; ++j, ++i) {
        signs[size_t(i)] = from[(t * row + j / 32) * kXnorPanel] >> j % 32 & 1 ? 1 : -1;
      }
    }
  }
  return i8.emplace_back(s, pack_conv_i8(signs.data(), DType::s8, s)).second;
}

bool xnor_conv2d_as_i8(const uint32_t* x, int64_t ldx, const Conv2dShape& s, const PackedXnor::Data& w,
                       PadValue pad_value, void* y, int64_t ldy, const XnorEpilogue& e, Isa isa, int threads) {
  const int most = static_cast<int>(std::min<int64_t>(threads, s.batch * s.out_h()));
  if (isa != Isa::amx || !pays(s, !y, most) || !same_epilogue(e, y, s.oc)) return false;
  // Every thread takes its rows through all three steps; where the weights crowd the L2 cache, each step is split by
  // itself, since conv2d_i8 then splits channels.
  const bool by_rows = s.kh * s.kw * s.c * s.oc <= 1 << 20;
  const int parts = by_rows ? most : 1, inner = by_rows ? 1 : threads;
  const PackedConvI8& weights = w.as_i8(s);
  const int32_t z = static_cast<int32_t>(pad_value), k = static_cast<int32_t>(s.kh * s.kw * s.c);
  const int32_t* sums = w.tap_sums.data() + ((s.kh + 1) * (s.kw + 1) - 1) * w.padded_channels();
  int32_t* bias = scratch<int32_t>(ScratchSlot::bit_starts, size_t(s.oc));
  for (int64_t j = 0; j < s.oc; ++j) {
    bias[j] = z * sums[j] - (y ? 0 : std::clamp(e.dot_threshold[j], -k - 1, k + 1));
  }
  const float one = 1.0f;
  Epilogue q;
  q.bias = bias;
  q.out_dtype = y ? e.out_dtype : DType::s8;
  if (q.out_dtype != DType::s32) {
    q.scale = y && e.scale ? e.scale : &one;
    q.scale_count = y && e.scale ? s.oc : 1;
  }
  if (q.out_dtype == DType::f32) {
    q.float_bias = e.bias;
    q.flo = e.lo;
    q.fhi = e.hi;
    q.residual_dtype = DType::f32;
    q.residual_stride = e.residual_stride;
  }
  const int64_t out_h = s.out_h(), out_w = s.out_w(), rows = s.batch * out_h;
  parallel(parts, [&](int part, int) {
    const int64_t end = rows * (part + 1) / parts;
    for (int64_t row = rows * part / parts; row < end;) {  // a part of an image at a time, as an image of its own
      const int64_t oy = row % out_h, count = std::min(end - row, out_h - oy);
      const int64_t top = oy - s.pad_top, bottom = top + count + s.dilation_h * (s.kh - 1);  // of what it reads
      Conv2dShape band = s;
      band.batch = 1;
      band.pad_top = std::max<int64_t>(-top, 0);
      band.pad_bottom = std::max<int64_t>(bottom - s.h, 0);
      band.h = bottom - top - band.pad_top - band.pad_bottom;
      const int64_t pixels = band.h * s.w, out_pixels = count * out_w, first = row * out_w;
      auto* signs = scratch<int8_t>(ScratchSlot::bit_signs, size_t(pixels * s.c + (y ? 0 : out_pixels * s.oc)));
      int8_t* codes = signs + pixels * s.c;
      const uint32_t* from = x + (row / out_h * s.h + std::max<int64_t>(top, 0)) * s.w * ldx;
      unpack_bits(from, pixels, ldx, s.c, signs, s.c, isa, inner);
      void* to = codes;
      if (y) to = static_cast<char*>(y) + first * ldy * int64_t(dtype_size(e.out_dtype));
      Epilogue own = q;
      if (q.out_dtype == DType::f32 && e.residual) own.residual = e.residual + first * e.residual_stride;
      conv2d_i8(signs, DType::s8, s.c, band, z, weights, 0, to, y ? ldy : s.oc, own, isa, inner);
      if (!y) {
        pack_bits(codes, DType::s8, out_pixels, s.oc, s.oc, nullptr, e.flip, e.bits + first * e.ld_bits, e.ld_bits, isa,
                  1);
      }
      row += count;
    }
  });
  return true;
}

}  // namespace lowbit
