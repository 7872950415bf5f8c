// The packed forms and what the two door files of gemm_f32 share.
#pragma once

#include "aligned_vector.h"
#include "gemm_f32/gemm_f32_kernel.h"
#include "lowbit/gemm_f32.h"
#include "thread_pool.h"

namespace lowbit {

struct PackedF32::Data {
  int64_t k = 0, n = 0;
  AlignedVector<float> panels;  // (ceil(n / 16), k, 16)
};

using StripFn = void (*)(const StripF32&) noexcept;
StripFn pick_strip_f32(Isa isa);

void check_finish_f32(const char* function, const EpilogueF32& epilogue, int64_t n);
FinishF32 finish_f32(const EpilogueF32& epilogue, int64_t row, int64_t column);

// Splits rows or strips of columns over threads, whichever is cut more evenly: body(row_begin, row_end, strip_begin,
// strip_end).
template <typename Body>
void parallel_rows_or_strips(int threads, int64_t rows, int64_t row_grain, int64_t strips, Body&& body) {
  if (rows >= 4 * row_grain * threads || rows / row_grain >= strips) {
    parallel_for(threads, rows, row_grain, [&](int64_t begin, int64_t end) { body(begin, end, int64_t{0}, strips); });
  } else {
    parallel_for(threads, strips, 1, [&](int64_t begin, int64_t end) { body(int64_t{0}, rows, begin, end); });
  }
}

}  // namespace lowbit
