// Inner loops of the entropy search, which see double and int32 arrays only.
//
// With C and Z the prefix sums of counts and of non-zero bins, a group of bins [s, s + w) holds G = C[s + w] - C[s]
// values in z = Z[s + w] - Z[s] non-zero bins and adds G log(G / z) to the cross entropy. The groups of all candidates
// i in [levels w, levels (w + 1)) have width w or w + 1, so a row of that term per width, indexed by s, serves `levels`
// candidates: seven times fewer logarithms than one per candidate and group at 4096 bins.
#pragma once

#include <cstdint>

namespace lowbit::entropy {

// log(x) for x = m 2^e, m in [1, 2): m c = 1 + r with c = kReciprocal[top 4 bits of m], |r| < 1/32;
// log(x) = e ln2 + (kLog[...] + series(r)), the series to r^9 by Horner, no FMA: the same bits on every level, error <
// 4e-16 e.
inline constexpr double kLn2 = 0x1.62e42fefa39efp-1;
extern const double kReciprocal[16];  // 1 / (1 + (k + 0.5) / 16)
extern const double kLog[16];         // -log(kReciprocal)
inline constexpr double kSeries[10] = {0.0,       1.0,        -1.0 / 2.0, 1.0 / 3.0,  -1.0 / 4.0,
                                       1.0 / 5.0, -1.0 / 6.0, 1.0 / 7.0,  -1.0 / 8.0, 1.0 / 9.0};

// row[s] = G * (log(max(G, 1)) - log_of[z]) for s in [0, n), where G and z are those of the group of width w at s.
using RowFn = void (*)(const double* sums, const int32_t* nonzero, const double* log_of, int64_t w, int64_t n,
                       double* row);

// Sum over j in [0, 2^shift) of rows[wide_j * stride + start_j]: start_j = (j i) >> shift, wide_j = (the group's width)
// - w. Eight partial sums, of j mod 8, joined as ((0+4)+(2+6)) + ((1+5)+(3+7)).
using SumFn = double (*)(const double* rows, int64_t stride, int64_t i, int shift, int64_t w);

double log_scalar(double x) noexcept;
void row_scalar(const double* sums, const int32_t* nonzero, const double* log_of, int64_t w, int64_t n,
                double* row) noexcept;
void row_avx2(const double* sums, const int32_t* nonzero, const double* log_of, int64_t w, int64_t n,
              double* row) noexcept;
void row_avx512_vnni(const double* sums, const int32_t* nonzero, const double* log_of, int64_t w, int64_t n,
                     double* row) noexcept;

double sum_scalar(const double* rows, int64_t stride, int64_t i, int shift, int64_t w) noexcept;
double sum_avx2(const double* rows, int64_t stride, int64_t i, int shift, int64_t w) noexcept;
double sum_avx512_vnni(const double* rows, int64_t stride, int64_t i, int shift, int64_t w) noexcept;

}  // namespace lowbit::entropy
