// Optimal code lengths under a limit.
#pragma once

#include <array>
#include <cstdint>

namespace lowbit {

using ByteCounts = std::array<uint64_t, 256>;
using CodeLengths = std::array<uint8_t, 256>;  // 0: no code

constexpr int kMaxCodeLength = 15;

// Lengths that minimise sum counts * length, none above `limit` (8..15). A byte that is alone has length 1; none
// where all counts are 0. Ties are broken by byte value, so equal counts give equal lengths everywhere.
CodeLengths code_lengths(const ByteCounts& counts, int limit);

// sum counts * lengths.
uint64_t coded_bits(const ByteCounts& counts, const CodeLengths& lengths);

}  // namespace lowbit
