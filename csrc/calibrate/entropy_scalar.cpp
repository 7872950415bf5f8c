// The definition, and the tables.
#include "entropy_kernel.h"

#include <string.h>

namespace lowbit::entropy {

const double kReciprocal[16] = {0x1.f07c1f07c1f08p-1, 0x1.d41d41d41d41dp-1, 0x1.bacf914c1bad0p-1, 0x1.a41a41a41a41ap-1,
                                0x1.8f9c18f9c18fap-1, 0x1.7d05f417d05f4p-1, 0x1.6c16c16c16c17p-1, 0x1.5c9882b931057p-1,
                                0x1.4e5e0a72f0539p-1, 0x1.4141414141414p-1, 0x1.3521cfb2b78c1p-1, 0x1.29e4129e4129ep-1,
                                0x1.1f7047dc11f70p-1, 0x1.15b1e5f75270dp-1, 0x1.0c9714fbcda3bp-1, 0x1.0410410410410p-1};
const double kLog[16] = {0x1.f829b0e7832f8p-6, 0x1.6f0d28ae56b4ep-4, 0x1.29552f81ff521p-3, 0x1.9525a9cf456b6p-3,
                         0x1.fb9186d5e3e29p-3, 0x1.2e8e2bae11d31p-2, 0x1.5d1bdbf5809cap-2, 0x1.89a3386c1425bp-2,
                         0x1.b44f77bcc8f64p-2, 0x1.dd46a04c1c4a1p-2, 0x1.02552a5a5d0ffp-1, 0x1.154c3d2f4d5eap-1,
                         0x1.2795e1289b11bp-1, 0x1.393e0d3562a1ap-1, 0x1.4a4f85db03ebbp-1, 0x1.5ad404c359f2dp-1};

double log_scalar(double x) noexcept {
  uint64_t bits;
  memcpy(&bits, &x, sizeof(bits));
  const double exponent = static_cast<double>(static_cast<int64_t>(bits >> 52) - 1023);
  const int k = static_cast<int>(bits >> 48 & 15);
  bits = (bits & 0x000fffffffffffffu) | 0x3ff0000000000000u;
  double m;
  memcpy(&m, &bits, sizeof(m));
  const double r = m * kReciprocal[k] - 1.0;
  double series = kSeries[9];
  for (int d = 8; d >= 0; --d) series = series * r + kSeries[d];
  return exponent * kLn2 + (kLog[k] + series);
}

void row_scalar(const double* sums, const int32_t* nonzero, const double* log_of, int64_t w, int64_t n,
                double* row) noexcept {
  for (int64_t s = 0; s < n; ++s) {
    const double g = sums[s + w] - sums[s];
    row[s] = g * (log_scalar(g > 1.0 ? g : 1.0) - log_of[nonzero[s + w] - nonzero[s]]);
  }
}

double sum_scalar(const double* rows, int64_t stride, int64_t i, int shift, int64_t w) noexcept {
  double lane[8] = {};
  int64_t start = 0;
  for (int64_t j = 0; j < int64_t{1} << shift; ++j) {
    const int64_t end = ((j + 1) * i) >> shift;
    lane[j % 8] += rows[start + (end - start > w ? stride : 0)];
    start = end;
  }
  return ((lane[0] + lane[4]) + (lane[2] + lane[6])) + ((lane[1] + lane[5]) + (lane[3] + lane[7]));
}

}  // namespace lowbit::entropy
