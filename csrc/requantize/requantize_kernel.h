// What the requantisation door hands to its variants, and the 8-bit kernels to the epilogue that they fuse.
#pragma once

#include "lowbit/requantize.h"

namespace lowbit {

// scale = m0 * 2^(shift - 31)
struct FixedPoint {
  int32_t m0 = 0;
  int32_t shift = 0;
};

// A checked epilogue: lo and hi narrowed to the output's type, fixed-point pairs made where the rounding wants them.
struct Requantizer : Epilogue {
  int64_t scale_step = 0;          // channel j's multiplier is scale[j * scale_step], and so for the next two
  const int32_t* m0 = nullptr;     // gemmlowp and single
  const int32_t* shift = nullptr;  // at least -32
  FixedPoint residual_fixed;       // of residual_scale * 2^-16
  bool below_half = false;         // gemmlowp and single: every shift, the residual's too, is negative
  bool by_floor = false;           // gemmlowp and single: exact in float arithmetic that rounds down
  float max_scale = 0.0f;          // greatest of scale
  bool may_overflow = true;        // a scaled sum can leave int32 (scales above 1/2, residual scale above 2^20)
};

// How a kernel that fuses the epilogue takes it: codes by float arithmetic; codes by fixed-point multipliers in float
// arithmetic that rounds down, or below 1/2 in whole numbers; or whatever else there is, by requantize_rows of its
// level.
enum class Finish { floats, floor, fixed, any };

// rounds_down: the level's instructions do, in registers (AVX-512).
inline Finish finish_of(const Requantizer& q, bool rounds_down) {
  if (q.out_dtype != DType::s8 && q.out_dtype != DType::u8) return Finish::any;
  if (q.rounding == Rounding::nearest_even) return Finish::floats;
  if (q.by_floor && rounds_down) return Finish::floor;
  return q.below_half ? Finish::fixed : Finish::any;
}

// Checks an epilogue over n channels and prepares it; throws std::invalid_argument naming `function`. The result
// borrows the epilogue's arrays and the calling thread's scratch (slot fixed_point) until that thread's next call.
// Accumulators, without their bias, are within sum_limit of 0.
Requantizer make_requantizer(const char* function, const Epilogue& epilogue, int64_t n,
                             int64_t sum_limit = int64_t{1} << 31);

// The pair of a multiplier > 0 to 31 bits, m0 = rne(mantissa * 2^31) (Jacob et al. 2018, section 2.2): for what has one
// multiplier, not one per channel. Throws std::invalid_argument naming `function` where it is not finite, > 0 and below
// 2^30.
FixedPoint exact_fixed_point(const char* function, double multiplier);

// Rows [i, i + rows) and channels [j, j + cols): accumulator (r, c) at acc[r * acc_stride + c], its output in row i + r
// and column j + c of y. i counts output rows (pixels), which is where the residual is read.
using RequantizeFn = void (*)(const int32_t* acc, int64_t acc_stride, int64_t i, int64_t rows, int64_t j, int64_t cols,
                              void* y, int64_t y_stride, const Requantizer& q) noexcept;

void requantize_scalar(const int32_t* acc, int64_t acc_stride, int64_t i, int64_t rows, int64_t j, int64_t cols,
                       void* y, int64_t y_stride, const Requantizer& q) noexcept;
void requantize_avx2(const int32_t* acc, int64_t acc_stride, int64_t i, int64_t rows, int64_t j, int64_t cols, void* y,
                     int64_t y_stride, const Requantizer& q) noexcept;
void requantize_avx512_vnni(const int32_t* acc, int64_t acc_stride, int64_t i, int64_t rows, int64_t j, int64_t cols,
                            void* y, int64_t y_stride, const Requantizer& q) noexcept;

}  // namespace lowbit
