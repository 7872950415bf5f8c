// What the matrix product's and the convolution's doors share: packed panels, folded zero points, and the split of the
// work.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "gemm_i8/gemm_i8_kernel.h"
#include "lowbit/gemm_i8.h"

namespace lowbit {

[[noreturn]] void fail(const char* function, const std::string& what);

inline int64_t round_up(int64_t v, int64_t multiple) { return (v + multiple - 1) / multiple * multiple; }

// 16-column panels of several independent products (the groups of a convolution), each of n columns.
struct Panels {
  int64_t n = 0, groups = 1, runs = 0, run_bytes = 0, run_pad = 0, chunk = 0;
  DType dtype = DType::s8;
  std::unique_ptr<int8_t, decltype(&std::free)> data{nullptr, &std::free};
  std::vector<int32_t> column_sums;  // [groups][round_up(n, 16)] of the int8 values as packed

  int64_t padded_n() const { return round_up(n, kPanel); }
  int64_t group_bytes() const { return padded_n() * runs * run_pad; }
  int64_t bytes() const { return groups * group_bytes() + static_cast<int64_t>(column_sums.size() * sizeof(int32_t)); }
  int64_t real_k = 0;              // weights per column
  std::vector<uint8_t> no_weight;  // of a run's bytes: 1 where there is none; empty where there is one for each
  int64_t k() const { return real_k; }
};

constexpr int64_t kNoWeight = -1;

// at(group, run, byte, column) gives the offset in b of a weight, or kNoWeight.
template <typename At>
void fill_panels(Panels& panels, const void* b, At&& at);
Panels make_panels(DType dtype, int64_t groups, int64_t n, int64_t runs, int64_t run_bytes);

// Weights as the kernels see them: uint8 is shifted to int8, its zero point with it.
inline int8_t as_s8(uint8_t bits, DType dtype) { return static_cast<int8_t>(dtype == DType::u8 ? bits ^ 0x80 : bits); }

template <typename At>
void fill_panels(Panels& panels, const void* b, At&& at) {
  const uint8_t* source = static_cast<const uint8_t*>(b);
  const int64_t panel_bytes = panels.runs * panels.run_pad * kPanel;
  for (int64_t g = 0; g < panels.groups; ++g) {
    for (int64_t j = 0; j < panels.n; ++j) {
      int8_t* column = panels.data.get() + g * panels.group_bytes() + j / kPanel * panel_bytes + j % kPanel * 4;
      uint32_t sum = 0;
      for (int64_t t = 0; t < panels.runs; ++t, column += panels.run_pad * kPanel) {
        for (int64_t p = 0; p < panels.run_bytes; ++p) {
          const int64_t from = at(g, t, p, j);
          if (from == kNoWeight) {
            panels.no_weight.resize(static_cast<size_t>(panels.run_bytes));
            panels.no_weight[static_cast<size_t>(p)] = 1;
            continue;
          }
          const int8_t w = as_s8(source[from], panels.dtype);
          column[p / 4 * 4 * kPanel + p % 4] = w;
          sum += static_cast<uint32_t>(w);
        }
      }
      panels.column_sums[static_cast<size_t>(g * panels.padded_n() + j)] = static_cast<int32_t>(sum);
    }
  }
}

// The same where column (g, j) is a row of b, all its runs one after the other.
void fill_panels_from_rows(Panels& panels, const uint8_t* b, int threads);

// The zero points of one call, as the kernels see them: A as uint8, B as int8.
struct ZeroPoints {
  int32_t a = 0, b = 0;
  int64_t sum_limit = 0;  // greatest |sum of (a - za)(b - zb)|
};

// Checks types, zero points and the exact bound k * max|a - za| * max|b - zb| <= 2^31 - 1.
ZeroPoints check_operands(const char* function, DType a_dtype, int32_t a_zero_point, DType b_dtype,
                          int32_t b_zero_point, int64_t k);

// init[group][padded n] = bias - za * colsum + k * za * zb, in the calling thread's scratch.
const int32_t* fold_columns(const Panels& panels, ZeroPoints z, const int32_t* bias);

// row_term for rows [i0, i1): -zb * sum of the row; in the calling thread's scratch. Null where zb is 0.
const int32_t* fold_rows(const GemmI8& g, int64_t i0, int64_t i1, int32_t b_zero_point,
                         const std::vector<uint8_t>& no_weight);

// Lends g room for int16 copies of rows [i0, i1) and a panel where AVX2 makes up for making them.
void lend_wide(GemmI8& g, int64_t i0, int64_t i1, int64_t panels, Isa isa);

GemmI8Fn gemm_i8_variant(Isa isa);

// How a product is shared out: row_parts x panel_parts threads.
struct Split {
  int row_parts = 1, panel_parts = 1;
  int parts() const { return row_parts * panel_parts; }
};
// For `blocks` indivisible blocks of block_rows rows of A.
Split split_work(int threads, Isa isa, int64_t blocks, int64_t block_rows, int64_t panels, int64_t k);

// The product of a matrix in the caller's memory, checked: c (m, n) from a (m, k) and one group of panels. init has q's
// bias.
struct Product {
  const void* a;
  DType a_dtype;
  int64_t m, lda;
  int32_t b_zero_point;  // as the kernels see it
  const int32_t* init;
  void* c;
  int64_t ldc;
};
void run_product(const Panels& panels, const Product& product, const Requantizer& q, Isa isa, int threads);

// Part `index` of `parts` of [0, n), in multiples of grain.
inline int64_t part_begin(int64_t n, int64_t grain, int index, int parts) {
  return std::min(n, (n + grain - 1) / grain * index / parts * grain);
}

}  // namespace lowbit
