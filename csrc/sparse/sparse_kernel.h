// What the variants of sparse compute: sixteen output channels at once. Their entries lie step by step: step t holds
// the t-th weight of every channel, so that each lane's sum runs in ascending columns, as the scalar one does.
#pragma once

#include <cstdint>

namespace lowbit {

constexpr int64_t kSparseLanes = 16;
constexpr int64_t kSparseRows = 16;  // rows of x that a panel holds

struct SparseSlice {
  const uint16_t* columns;  // (steps, 16)
  const uint8_t* codes;     // (steps, 16)
  const int32_t* counts;    // (16), descending; lane l has weights in steps [0, counts[l])
  const float* codebook;    // 256, zero-filled
  int64_t entries;          // of the codebook
};

// sums[l] = sum over t < counts[l] of x[column] * weight, one chain of fused multiply-adds in ascending t, from 0.
using SparseRowFn = void (*)(const SparseSlice& s, const float* x, float* sums) noexcept;
// sums[l * 16 + i] alike with x[column * 16 + i], for sixteen rows whose values lie together.
using SparsePanelFn = void (*)(const SparseSlice& s, const float* x, float* sums) noexcept;

struct SparseVariant {
  SparseRowFn row;
  SparsePanelFn panel;
};

void sparse_row_scalar(const SparseSlice& s, const float* x, float* sums) noexcept;
void sparse_panel_scalar(const SparseSlice& s, const float* x, float* sums) noexcept;
void sparse_row_avx2(const SparseSlice& s, const float* x, float* sums) noexcept;
void sparse_panel_avx2(const SparseSlice& s, const float* x, float* sums) noexcept;
void sparse_row_avx512_vnni(const SparseSlice& s, const float* x, float* sums) noexcept;
void sparse_panel_avx512_vnni(const SparseSlice& s, const float* x, float* sums) noexcept;

}  // namespace lowbit
