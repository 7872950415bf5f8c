// The checks that every door over a Conv2dShape makes.
#pragma once

#include "lowbit/gemm_i8.h"

namespace lowbit {

// Throws std::invalid_argument naming `function` where a size is negative or too large, a kernel, stride, dilation or
// group count is below 1, groups do not divide the channels, or the window does not fit the padded image of a batch
// that is not empty.
void check_conv2d_shape(const char* function, const Conv2dShape& shape);

// The part of it that packing weights needs: channels, kernel, stride, dilation and groups.
void check_conv2d_weights(const char* function, const Conv2dShape& shape);

}  // namespace lowbit
