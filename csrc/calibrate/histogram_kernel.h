// Inner loops of the streaming histogram.
#pragma once

#include <cstdint>

namespace lowbit::histogram {

// Increments of one bin may wait for each other (up to 5 cycles through the store buffer), so neighbours go to
// different tables. Two of them stay in L1 where values are spread over all bins: 1.9 G/s, with four 1.2, with
// eight 1.0.
inline constexpr int kTables = 2;

// lo, hi: smallest and largest of n >= 1 values; returns the largest absolute value's bits (0x7f800000 and above where
// a value is not finite; lo and hi mean nothing then).
using RangeFn = uint32_t (*)(const float* x, int64_t n, float& lo, float& hi);

// Adds 1 to table[t][int(|x| * scale) + (x < 0 ? side : 0)] for any t in [0, kTables), for each of n < 2^31 values.
// A table has 2 * side entries; every index is inside.
using CountFn = void (*)(const float* x, int64_t n, float scale, uint32_t side, uint32_t* tables);

uint32_t range_scalar(const float* x, int64_t n, float& lo, float& hi) noexcept;
uint32_t range_avx2(const float* x, int64_t n, float& lo, float& hi) noexcept;
uint32_t range_avx512_vnni(const float* x, int64_t n, float& lo, float& hi) noexcept;

void count_scalar(const float* x, int64_t n, float scale, uint32_t side, uint32_t* tables) noexcept;
void count_avx2(const float* x, int64_t n, float scale, uint32_t side, uint32_t* tables) noexcept;
void count_avx512_vnni(const float* x, int64_t n, float scale, uint32_t side, uint32_t* tables) noexcept;

}  // namespace lowbit::histogram
