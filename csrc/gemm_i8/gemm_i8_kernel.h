// What the gemm_i8 and conv2d_i8 doors hand to the variants: one inner form for matrix product and convolution.
#pragma once

#include "requantize/requantize_kernel.h"

namespace lowbit {

constexpr int64_t kPanel = 16;  // columns of a packed panel

// A run is packed as chunks of one length, a multiple of 4 and at most 64 bytes (an AMX tile), zeros at its end.
constexpr int64_t run_chunks(int64_t run_bytes) { return run_bytes > 64 ? (run_bytes + 63) / 64 : 1; }
constexpr int64_t run_chunk(int64_t run_bytes) {
  const int64_t chunks = run_chunks(run_bytes), bytes = (run_bytes + chunks - 1) / chunks;
  return bytes > 0 ? (bytes + 3) / 4 * 4 : 4;
}

// An accumulator is a sum over runs t of dot products of run_bytes uint8 (A) with int8 (B), int32 and wrapping:
//
//   acc[i][j] = init[j] + row_term[i - first_row] + sum_t sum_p row(i)[run_offset[t] + p] * b[t][p][j]
//
// A matrix product has one run, a convolution usually one per row of its kernel. The output pixels of one row of an
// image lie lda apart in A; after out_w of them come virtual_w - out_w places whose windows would wrap around the
// border. A tile of 16 rows at one distance may compute those "virtual pixels" too, and not store them. A matrix is one
// row of pixels.
//
// b is packed [panel][t][p / 4, padded to run_pad / 4][16 columns][4]: 16 quadruples are one AMX tile, one is one zmm.
struct GemmI8 {
  const uint8_t* a = nullptr;
  int64_t lda = 0;
  int64_t first_row = 0;  // the row that a points at
  int64_t out_w = 0, virtual_w = 0;
  // Rows from tail_row on lie elsewhere, at tail: the last rows of the caller's memory, copied so that of every row
  // run_pad bytes may be read (the excess meets zeros of b). tail_row - first_row is a multiple of 16; without a tail
  // it is huge.
  int64_t tail_row = INT64_MAX;
  const uint8_t* tail = nullptr;
  int64_t tail_lda = 0;

  const int64_t* run_offset = nullptr;
  int64_t runs = 0, run_bytes = 0, run_pad = 0, chunk = 0;
  const int8_t* b = nullptr;
  const int32_t* init = nullptr;      // [panels * 16]
  const int32_t* row_term = nullptr;  // or null
  int64_t n = 0;
  void* c = nullptr;
  int64_t ldc = 0;
  const Requantizer* requantizer = nullptr;  // its bias is null: it is in init
  int16_t* wide = nullptr;                   // for AVX2: room for wide_panel() + wide_rows() values, or null

  int64_t panels() const { return (n + kPanel - 1) / kPanel; }
  int64_t panel_bytes() const { return runs * run_pad * kPanel; }
  int64_t run_read() const { return (run_bytes + 3) / 4 * 4; }  // bytes of a run that are read
  // Values of a panel and of rows [i0, i1) as int16: the rows of a matrix one by one, an image as it lies.
  int64_t wide_panel() const { return runs * run_read() * kPanel; }
  int64_t wide_pitch() const { return runs > 1 ? lda : run_read() + (run_read() % 256 == 0 ? 32 : 0); }
  int64_t first_offset() const {
    int64_t least = run_offset[0];
    for (int64_t t = 1; t < runs; ++t) least = run_offset[t] < least ? run_offset[t] : least;
    return least;
  }
  int64_t wide_rows(int64_t i0, int64_t i1) const {
    if (runs == 1) return (i1 - i0) * wide_pitch();
    int64_t last = run_offset[0];
    for (int64_t t = 1; t < runs; ++t) last = run_offset[t] > last ? run_offset[t] : last;
    return (virtual_row(i1 - 1) - virtual_row(i0)) * lda + last - first_offset() + run_read();
  }
  int64_t virtual_row(int64_t i) const { return (i - first_row) / out_w * virtual_w + (i - first_row) % out_w; }
  const uint8_t* row(int64_t i) const {
    return i < tail_row ? a + virtual_row(i) * lda : tail + (i - tail_row) * tail_lda;
  }
};

// Computes rows [i0, i1) of panels [p0, p1).
using GemmI8Fn = void (*)(const GemmI8& g, int64_t i0, int64_t i1, int64_t p0, int64_t p1) noexcept;

void gemm_i8_amx(const GemmI8& g, int64_t i0, int64_t i1, int64_t p0, int64_t p1) noexcept;
void gemm_i8_avx512_vnni(const GemmI8& g, int64_t i0, int64_t i1, int64_t p0, int64_t p1) noexcept;
void gemm_i8_avx2(const GemmI8& g, int64_t i0, int64_t i1, int64_t p0, int64_t p1) noexcept;
void gemm_i8_scalar(const GemmI8& g, int64_t i0, int64_t i1, int64_t p0, int64_t p1) noexcept;

}  // namespace lowbit
