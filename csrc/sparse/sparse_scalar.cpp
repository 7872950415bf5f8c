// Written to be read.
#include <math.h>

#include "sparse/sparse_kernel.h"

namespace lowbit {

void sparse_row_scalar(const SparseSlice& s, const float* x, float* sums) noexcept {
  for (int64_t l = 0; l < kSparseLanes; ++l) {
    float sum = 0;
    for (int64_t t = 0; t < s.counts[l]; ++t) {
      const int64_t at = t * kSparseLanes + l;
      sum = fmaf(x[s.columns[at]], s.codebook[s.codes[at]], sum);
    }
    sums[l] = sum;
  }
}

void sparse_panel_scalar(const SparseSlice& s, const float* x, float* sums) noexcept {
  for (int64_t l = 0; l < kSparseLanes; ++l) {
    float* sum = sums + l * kSparseRows;
    for (int64_t i = 0; i < kSparseRows; ++i) sum[i] = 0;
    for (int64_t t = 0; t < s.counts[l]; ++t) {
      const int64_t at = t * kSparseLanes + l;
      const float weight = s.codebook[s.codes[at]];
      const float* values = x + s.columns[at] * kSparseRows;
      for (int64_t i = 0; i < kSparseRows; ++i) sum[i] = fmaf(values[i], weight, sum[i]);
    }
  }
}

}  // namespace lowbit
