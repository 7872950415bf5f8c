// The packed form of binary weights, and what the door files of xnor share.
#pragma once

#include <list>
#include <mutex>
#include <string>
#include <utility>

#include "aligned_vector.h"
#include "lowbit/xnor.h"
#include "xnor/xnor_kernel.h"

namespace lowbit {

struct PackedXnor::Data {
  Conv2dShape shape;              // c, oc, kh, kw, groups; of a matrix (n, k): c = k, oc = n
  AlignedVector<uint32_t> words;  // (group, panel, kh * kw * bit_words(c / groups), 64)
  // Sums of weights (+-1) over the taps above and left of (ky, kx): (kh + 1, kw + 1, group, panels * 64).
  AlignedVector<int32_t> tap_sums;
  mutable std::once_flag bytes_once;
  mutable AlignedVector<uint8_t> byte_order;  // of the byte-table variants, made when one first runs

  mutable std::mutex i8_lock;
  mutable std::list<std::pair<Conv2dShape, PackedConvI8>> i8;  // by stride and dilation, made when level amx first runs

  int64_t depth() const { return shape.c / shape.groups; }
  int64_t channels() const { return shape.oc / shape.groups; }  // of one group
  int64_t panels() const { return (channels() + kXnorPanel - 1) / kXnorPanel; }
  int64_t padded_channels() const { return panels() * kXnorPanel; }
  int64_t words_per_channel() const { return shape.kh * shape.kw * bit_words(depth()); }
  const uint8_t* bytes_ordered() const;
  const PackedConvI8& as_i8(const Conv2dShape& geometry) const;
};

[[noreturn]] void fail_xnor(const char* function, const std::string& what);

// xnor_conv2d of checked arguments by conv2d_i8 (xnor_i8.cpp). False where vpopcntd is to do it: nothing was written.
bool xnor_conv2d_as_i8(const uint32_t* x, int64_t ldx, const Conv2dShape& s, const PackedXnor::Data& w,
                       PadValue pad_value, void* y, int64_t ldy, const XnorEpilogue& e, Isa isa, int threads);

// flip as words of bits, in whole panels of channels; in this thread's scratch (bit_flips).
const uint32_t* flip_words(const uint8_t* flip, int64_t groups, int64_t channels, int64_t words_per_group);

}  // namespace lowbit
