// What crc32 hands to the variants: the register as it is, without the inversions before and after.
#pragma once

#include <cstddef>
#include <cstdint>

namespace lowbit {

using Crc32Fn = uint32_t (*)(uint32_t state, const uint8_t* bytes, size_t count) noexcept;

uint32_t crc32_scalar(uint32_t state, const uint8_t* bytes, size_t count) noexcept;
uint32_t crc32_avx2(uint32_t state, const uint8_t* bytes, size_t count) noexcept;
uint32_t crc32_avx512(uint32_t state, const uint8_t* bytes, size_t count) noexcept;

// Folding. Bytes are a polynomial over bits, the first bit its highest power; moving a block of 128 bits forward by D
// bits multiplies it by x^D, and any block that is equal modulo the CRC's polynomial P gives the same CRC. So a block
// is replaced by (its first half) * (x^(D+64) mod P) + (its second half) * (x^D mod P), 96 bits that are added to the
// block D bits on. All is bit-reversed: a product of two reversed 64-bit numbers comes out reversed and one bit short,
// and a constant of 32 bits reversed in the lower end of 64, shifted up by that one bit, is the constant times x^32:
// so the exponents below are 32 less.
constexpr uint64_t crc32_constant(int exponent) {
  uint32_t v = 0x80000000u;  // x^0
  for (; exponent > 0; --exponent) v = (v >> 1) ^ (v & 1 ? 0xedb88320u : 0);
  return uint64_t{v} << 1;
}
constexpr uint64_t crc32_first_half(int distance) { return crc32_constant(distance + 32); }
constexpr uint64_t crc32_second_half(int distance) { return crc32_constant(distance - 32); }

}  // namespace lowbit
