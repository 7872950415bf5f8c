// The packed forms and the checks that the door files of codebook share.
#pragma once

#include <cstddef>
#include <string>

#include "aligned_vector.h"
#include "codebook/codebook_kernel.h"
#include "lowbit/codebook.h"

namespace lowbit {

struct PackedCodebook::Data {
  int64_t n = 0, k = 0;
  int bits = 0;
  CodebookPer per = CodebookPer::tensor;
  int64_t group_size = 0, group_blocks = 0, blocks = 0, groups = 1;
  AlignedVector<uint8_t> tiles;
  AlignedVector<float> table;      // (1, padded n or groups, 2^bits); what no index names is 0
  AlignedVector<int8_t> table_i8;  // the same in int8
  AlignedVector<float> scale;      // of table_i8

  TiledIndices indices() const {
    return {tiles.data(), bits, n, k, group_size, group_blocks, blocks, groups, per == CodebookPer::channel};
  }
};

namespace codebook {

[[noreturn]] void fail(const char* function, const std::string& what);
// Sizes within int64 arithmetic, 1 <= bits <= 8.
void check_indices(const char* function, int64_t n, int64_t k, int bits);
template <typename T>
void check_codebook(const char* function, int64_t n, int64_t k, int bits, const Codebook<T>& codebook);

FinishCodebook finish(const char* function, const EpilogueCodebook& epilogue);
// Inner functions of a level.
struct Variants {
  DecodeFn<float> decode_f32;
  DecodeFn<int8_t> decode_i8;
  CodebookF32Fn f32;
  CodebookI8Fn i8;
  PeakFn peak;
  CodesFn codes;
};
const Variants& variants(Isa isa);

// The products, checked.
void run_f32(const PackedCodebook::Data& w, const float* x, int64_t m, int64_t ldx, float* y, int64_t ldy,
             const FinishCodebook& finish, Isa isa, int threads);

// Rows of codes as CodebookI8 wants them: the columns of each codebook group from a whole block on, then zeros.
struct CodeRows {
  explicit CodeRows(const PackedCodebook::Data& w) : pitch((w.blocks * kBlockColumns + 63) / 64 * 64) {}
  int64_t pitch;                                                              // bytes of a row
  int64_t bytes(int64_t m) const { return (m + 15) / 16 * 16 * pitch + 64; }  // with what kernels read beyond the end

  // From k floats.
  void write(const PackedCodebook::Data& w, const Variants& v, const float* x, float inverse, int8_t* codes) const;
  // From k codes at the row's start.
  void spread(const PackedCodebook::Data& w, int8_t* codes) const;
};
// The scale of codes whose largest value is peak, NaN where the codes are of no use, and what values are multiplied by.
float code_scale(float peak, float x_scale);
float code_inverse(float peak, float x_scale);
void check_x_scale(const char* function, float x_scale);
void run_i8(const PackedCodebook::Data& w, const int8_t* codes, const float* x_scale, int64_t m, float* y, int64_t ldy,
            const FinishCodebook& finish, Isa isa, int threads);

}  // namespace codebook
}  // namespace lowbit
