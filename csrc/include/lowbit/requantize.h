// Requantisation: from int32 accumulators to codes, float32 or int32. The epilogue of every 8-bit kernel, and a door of
// its own.
//
// With acc' = acc + bias[j] (int32, wrapping), j the output channel, and s[j] the multiplier (input scale * weight
// scale / output scale for codes; input scale * weight scale for float32):
//
//   out_dtype s32            y = acc'                                      (no scale, no clamp)
//   out_dtype f32            f = float(acc') * s[j];  f += float_bias[j] if given;  f += residual;  y = min(max(f,
//   flo), fhi) out_dtype s8 | u8:
//     nearest_even           f = float(acc') * s[j];  f += float(r - r_zero_point) * r_scale where there is a residual;
//                            y = zero_point + rne(min(max(f, lo - zero_point), hi - zero_point))
//     gemmlowp               v = RoundingDivideByPOT(SaturatingRoundingDoublingHighMul(acc' << max(shift, 0), M0),
//     max(-shift, 0)) single                 v = (acc' * M0 + 2^(30 - shift)) >> (31 - shift), in 64 bits (ties towards
//     +infinity)
//                            then, for both, v += the same of (r - r_zero_point) << 16 with r_scale * 2^-16 where there
//                            is a residual, y = min(max(zero_point + v, lo), hi)
//
// float() rounds to nearest even, every float operation is a single rounded binary32 operation in the order written (no
// FMA), rne is round-half-to-even; so every level gives the same bits. The fixed-point pair is s = M0 * 2^(shift - 31)
// with M0 in [2^30, 2^31) (Jacob et al. 2018, section 2.2; gemmlowp fixedpoint.h): shift > 0 where s >= 1; the left
// shift saturates.
#pragma once

#include <cstdint>

#include "lowbit/dtype.h"
#include "lowbit/export.h"
#include "lowbit/isa.h"

namespace lowbit {

enum class Rounding : uint8_t { nearest_even = 0, gemmlowp = 1, single = 2 };

// What happens between an accumulator and its output. Pointers are borrowed for the call. n is the number of output
// channels.
struct Epilogue {
  DType out_dtype = DType::s32;
  Rounding rounding = Rounding::nearest_even;
  const int32_t* bias = nullptr;      // [n] or null
  const float* scale = nullptr;       // [scale_count]; finite and > 0; below 2^30 for gemmlowp and single
  int64_t scale_count = 0;            // 0 (only for s32), 1 or n
  const float* float_bias = nullptr;  // [n] or null; f32 output only
  int32_t zero_point = 0;             // of the output codes
  int32_t lo = -2147483647 - 1;       // clamp of the output codes (fused ReLU, ReLU6); narrowed to the type's range
  int32_t hi = 2147483647;
  float flo = -__builtin_inff();  // clamp of a float output
  float fhi = __builtin_inff();
  const void* residual =
      nullptr;  // element (i, j) at residual[i * residual_stride + j]; code outputs: s8 or u8; f32: f32
  DType residual_dtype = DType::u8;
  int64_t residual_stride = 0;  // elements between rows (pixels)
  int32_t residual_zero_point = 0;
  float residual_scale = 0.0f;  // residual's scale / output scale; ignored (1) for f32
};

// Rows of accumulators: acc (m, n) with acc_stride elements between rows -> y (m, n) with y_stride elements between
// rows. Throws std::invalid_argument where the epilogue is not well formed (see above) or a size is negative.
LOWBIT_API void requantize(const int32_t* acc, int64_t acc_stride, int64_t m, int64_t n, void* y, int64_t y_stride,
                           const Epilogue& epilogue, Isa isa = best_isa(), int threads = 0);

// The fixed-point pair of a multiplier: scale = m0 * 2^(shift - 31), m0 in [2^30, 2^31). scale must be finite and > 0.
LOWBIT_API void fixed_point_multiplier(float scale, int32_t& m0, int& shift);

}  // namespace lowbit
