// float32 activations times pruned weights that share a codebook: only the weights that are not 0 are held, as a column
// and a code each, so work and memory fall with the density.
#pragma once

#include <cstdint>
#include <memory>

#include "lowbit/codebook.h"
#include "lowbit/export.h"
#include "lowbit/isa.h"

namespace lowbit {

// The weights (n, k) in the kernel's order; three bytes per weight that is not 0. Immutable and copyable (shared
// storage).
class LOWBIT_API PackedSparse {
 public:
  PackedSparse() = default;
  int64_t n() const noexcept;
  int64_t k() const noexcept;
  int64_t entries() const noexcept;  // weights held
  int64_t bytes() const noexcept;

  struct Data;
  std::shared_ptr<const Data> data;
};

// From entries in row-major order: entry e lies gaps[e] + 1 places after the one before (the first: after place -1) and
// is codebook[codes[e]], one codebook for the tensor; a place without an entry holds 0, and so must codebook[0]. Throws
// where an entry lies beyond n * k, a code is beyond the codebook, k is above 65,536 or codebook[0] is not 0.
LOWBIT_API PackedSparse pack_sparse(const uint8_t* gaps, const uint8_t* codes, int64_t entries, int64_t n, int64_t k,
                                    const Codebook<float>& codebook);

// Whether sparse_gemm_f32 over `entries` of (n, k) weights is expected to take less time than codebook_gemm_f32 over
// all of them, m rows of x at a time, and can hold them (bench/sparse.py measures where the two meet).
LOWBIT_API bool sparse_pays(int64_t m, int64_t n, int64_t k, int64_t entries, CodebookPer per);

// y[i, j] = clamp(sum_p x[i, p] * w[j, p] + bias[j]), the sum as in codebook_gemm_f32 but over the weights held: one
// chain of fused multiply-adds in ascending p, started at 0. Where x is finite the two give the same numbers, on every
// level and thread count; an infinity or NaN that meets only zeros does not show here.
//
// x (m, k) with ldx floats between rows, y (m, n) with ldy.
LOWBIT_API void sparse_gemm_f32(const float* x, int64_t m, int64_t ldx, const PackedSparse& w, float* y, int64_t ldy,
                                const EpilogueCodebook& epilogue, Isa isa = best_isa(), int threads = 0);

}  // namespace lowbit
