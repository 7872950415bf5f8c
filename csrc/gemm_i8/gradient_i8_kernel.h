// What the doors of lowbit/gradient_i8.h hand to the variants: 64 rows of bytes, wherever they lie, rearranged.
#pragma once

#include <stdint.h>

namespace lowbit::gradient {

constexpr int64_t kBlock = 64;  // rows

// to[c * ld + r] = rows[r][c] ^ flip for r < count <= 64 and c < columns.
using TransposeFn = void(const uint8_t* const* rows, int64_t count, int64_t columns, uint8_t flip, uint8_t* to,
                         int64_t ld) noexcept;
// 64 rows as the gemm_i8 panels have them: byte (r, c) ^ flip at to + c / 16 * panel + r / 4 * 64 + c % 16 * 4 + r % 4,
// zeros for columns up to the next 16; sums[c] grows by column c's sum as int8.
using InterleaveFn = void(const uint8_t* const* rows, int64_t columns, uint8_t flip, int8_t* to, int64_t panel,
                          int32_t* sums) noexcept;

TransposeFn transpose_scalar, transpose_avx512_vnni;
InterleaveFn interleave_scalar, interleave_avx512_vnni;

}  // namespace lowbit::gradient
