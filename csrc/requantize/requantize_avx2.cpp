// The door's own pass over stored accumulators: the inline epilogue of requantize_avx2.h.
#include "requantize/requantize_avx2.h"

#if LOWBIT_X86

LOWBIT_TARGET_BEGIN_AVX2

namespace lowbit {

void requantize_avx2(const int32_t* acc, int64_t acc_stride, int64_t i, int64_t rows, int64_t j, int64_t cols, void* y,
                     int64_t y_stride, const Requantizer& q) noexcept {
  requantize_rows_avx2(acc, acc_stride, i, rows, j, cols, y, y_stride, q);
}

}  // namespace lowbit

LOWBIT_TARGET_END

#endif
