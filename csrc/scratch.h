// Working memory that a thread keeps: grown when a call needs more, never shrunk, so that the hot path does not
// allocate after its first call. One slot per purpose, so that kernels that call each other's doors do not overwrite
// each other.
#pragma once

#include <cstddef>

namespace lowbit {

enum class ScratchSlot {
  padded_input,
  a_panel,
  accumulators,
  row_sums,
  columns,
  pool_columns,
  histogram,
  fixed_point,
  run_offsets,
  wide_values,
  codebook_codes,
  codebook_scales,
  codebook_image,
  codebook_columns,
  codebook_tile,
  sparse_panel,
  packed_bits,
  bit_rows,
  bit_starts,
  bit_flips,
  bit_bases,
  bit_signs,
  bit_dots,
  huffman_bytes,
  huffman_lists,
  stochastic_sums,
  gradient_a,
  gradient_b,
  gradient_rows,
  gradient_sums,
  gradient_codes,
  count,
};

// At least `bytes` bytes, 64-byte aligned, uninitialised, valid until this thread asks for the same slot again.
// Throws std::bad_alloc.
void* scratch(ScratchSlot slot, size_t bytes);

template <typename T>
T* scratch(ScratchSlot slot, size_t count) {
  return static_cast<T*>(scratch(slot, count * sizeof(T)));
}

}  // namespace lowbit
