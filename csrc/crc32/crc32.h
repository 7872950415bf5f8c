// CRC-32 as zlib and PNG define it: reflected polynomial 0xedb88320, initial value and final inversion all ones. A
// checksum must not be what opening a file waits for.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "lowbit/isa.h"

namespace lowbit {

LOWBIT_API uint32_t crc32(std::span<const std::byte> bytes, uint32_t previous = 0, Isa isa = best_isa());

// 8 lower-case hexadecimal digits.
std::string crc32_text(uint32_t crc);

}  // namespace lowbit
