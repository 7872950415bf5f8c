// The geometry that convolutions and pools read from their attributes.
#pragma once

#include "lowbit/gemm_i8.h"
#include "model/op_reader.h"

namespace lowbit {

// strides, pads, dilations, groups; h, w, c, oc from the input and output, kh and kw given. The output's size must be
// what the formula of Conv2dShape gives.
Conv2dShape read_window(OpReader& reader, int64_t kh, int64_t kw, bool with_groups);

// Pools: the attribute `kernel`; every window must cover a pixel of the image.
Conv2dShape read_pool_window(OpReader& reader, bool with_dilations);

inline Conv2dShape with_batch(Conv2dShape shape, int64_t batch) {
  shape.batch = batch;
  return shape;
}

}  // namespace lowbit
