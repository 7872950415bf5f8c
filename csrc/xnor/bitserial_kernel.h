// What the variants of few-bit products compute beside the binary products: their sums, and codes as planes of bits.
#pragma once

#include <cstdint>

namespace lowbit {

// Dots are kept in panels of 64 output channels.
constexpr int64_t kBitserialPanel = 64;

// Code of v: codes[#{i: v > threshold[i]}].
struct LevelSteps {
  int64_t bits;            // 1 to 4
  const float* threshold;  // [2^bits - 1]
  const uint8_t* codes;    // [2^bits]
};

// Rows of at most 64 channels; of pair i, row r and channel j the dot is dots[(i * rows + r) * 64 + j].
struct PairSums {
  const int32_t* dots;
  int64_t pairs, rows, channels;
  int64_t c_stride;      // between the coefficients of pairs
  const float* c;        // v = float(dot) * c of pair 0, then v = v + float(dot) * c; then the steps of lowbit/xnor.h
  const int32_t* c_s32;  // int32: y = (sum of dot * c) >> shift, wrapping
  int shift;
  void* y;  // float32 or int32, or null
  int64_t ldy;
  const float *bias, *residual;
  int64_t residual_stride;
  float lo, hi;
  uint32_t* planes;  // or null
  int64_t plane_stride, ld_planes;
  LevelSteps levels;
};

// Rows of c numbers or codes as planes of bits, lowbit/xnor.h.
struct PlaneRows {
  const void* x;
  int64_t rows, ldx, c;
  LevelSteps levels;  // of codes: bits alone
  uint32_t* planes;
  int64_t stride, ld;
};

// Rows of planes as what their codes stand for.
struct LevelRows {
  const uint32_t* planes;
  int64_t bits, stride, ld, rows, c;
  const float* level;  // [2^bits]; of vectors' variants bits <= 4
  float* y;
  int64_t ldy;
};

void pair_sums_f32_scalar(const PairSums& s) noexcept;
void pair_sums_f32_avx2(const PairSums& s) noexcept;
void pair_sums_f32_avx512(const PairSums& s) noexcept;
void pair_sums_s32_scalar(const PairSums& s) noexcept;
void pair_sums_s32_avx2(const PairSums& s) noexcept;
void pair_sums_s32_avx512(const PairSums& s) noexcept;

void pack_levels_scalar(const PlaneRows& r) noexcept;
void pack_levels_avx2(const PlaneRows& r) noexcept;
void pack_levels_avx512(const PlaneRows& r) noexcept;
void pack_codes_scalar(const PlaneRows& r) noexcept;
void pack_codes_avx2(const PlaneRows& r) noexcept;
void pack_codes_avx512(const PlaneRows& r) noexcept;

void unpack_levels_scalar(const LevelRows& r) noexcept;
void unpack_levels_avx2(const LevelRows& r) noexcept;
void unpack_levels_avx512(const LevelRows& r) noexcept;

}  // namespace lowbit
