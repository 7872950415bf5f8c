#include "crc32/crc32.h"

#include "crc32/crc32_kernel.h"
#include "target.h"
#include "variant.h"

namespace lowbit {
namespace {

constexpr Variant<Crc32Fn> kVariants[] = {
#if LOWBIT_X86
    {Isa::avx512, crc32_avx512},
    {Isa::avx2, crc32_avx2},
#endif
    {Isa::scalar, crc32_scalar}};

}  // namespace

uint32_t crc32(std::span<const std::byte> bytes, uint32_t previous, Isa isa) {
  return ~pick(kVariants, isa)(~previous, reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
}

std::string crc32_text(uint32_t crc) {
  std::string text(8, '0');
  for (int i = 7; i >= 0; --i, crc >>= 4) text[static_cast<size_t>(i)] = "0123456789abcdef"[crc & 15];
  return text;
}

}  // namespace lowbit
