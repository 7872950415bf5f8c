// Eight bytes a step by eight tables (Intel's "slicing by 8"): a checksum must not be what opening a file waits for.
#include "model/crc32.h"

#include <array>
#include <cstring>

namespace lowbit {
namespace {

using Tables = std::array<std::array<uint32_t, 256>, 8>;

constexpr Tables make_tables() {
  Tables t{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t c = i;
    for (int bit = 0; bit < 8; ++bit) c = (c >> 1) ^ (c & 1 ? 0xedb88320u : 0);
    t[0][i] = c;
  }
  for (size_t k = 1; k < t.size(); ++k) {
    for (size_t i = 0; i < 256; ++i) t[k][i] = (t[k - 1][i] >> 8) ^ t[0][t[k - 1][i] & 255];
  }
  return t;
}

constexpr Tables kTables = make_tables();

}  // namespace

uint32_t crc32(std::span<const std::byte> bytes, uint32_t previous) noexcept {
  uint32_t c = ~previous;
  const std::byte* p = bytes.data();
  size_t n = bytes.size();
  for (; n >= 8; n -= 8, p += 8) {
    uint32_t lo, hi;
    std::memcpy(&lo, p, 4);
    std::memcpy(&hi, p + 4, 4);
    lo ^= c;  // little-endian, as every machine we run on
    c = kTables[7][lo & 255] ^ kTables[6][lo >> 8 & 255] ^ kTables[5][lo >> 16 & 255] ^ kTables[4][lo >> 24] ^
        kTables[3][hi & 255] ^ kTables[2][hi >> 8 & 255] ^ kTables[1][hi >> 16 & 255] ^ kTables[0][hi >> 24];
  }
  for (; n > 0; --n, ++p) c = (c >> 8) ^ kTables[0][(c ^ static_cast<uint32_t>(*p)) & 255];
  return ~c;
}

std::string crc32_text(uint32_t crc) {
  std::string text(8, '0');
  for (int i = 7; i >= 0; --i, crc >>= 4) text[static_cast<size_t>(i)] = "0123456789abcdef"[crc & 15];
  return text;
}

}  // namespace lowbit
