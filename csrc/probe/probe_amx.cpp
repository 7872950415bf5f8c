// tdpbusd on six accumulator tiles: one instruction every 16 cycles, 52 cycles of latency, so four would do.
//
// GCC 12 declares neither _tile_loadconfig nor _tile_loadd as reading more than 8 bytes and drops the stores that fill
// the buffers (then tilezero is an illegal instruction): an asm with a memory clobber stands between.
#include <immintrin.h>

#include <cstdint>

#include "probe_kernel.h"
#include "target.h"

#if LOWBIT_X86

LOWBIT_TARGET_BEGIN_AMX

namespace lowbit {

int64_t probe_amx_amx(int64_t iterations) noexcept {
  alignas(64) uint8_t config[64] = {1};  // palette 1: every tile 16 rows of 64 bytes
  alignas(64) uint8_t codes[1024];
  for (int t = 0; t < 8; ++t) {
    config[16 + 2 * t] = 64;
    config[48 + t] = 16;
  }
  for (int i = 0; i < 1024; ++i) codes[i] = static_cast<uint8_t>(i * 37 + 11);
  asm volatile("" : : "r"(config), "r"(codes) : "memory");
  _tile_loadconfig(config);
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  _tile_zero(4);
  _tile_zero(5);
  _tile_loadd(6, codes, 64);
  _tile_loadd(7, codes, 64);
  for (int64_t i = 0; i < iterations; ++i) {
    _tile_dpbusd(0, 6, 7);
    _tile_dpbusd(1, 6, 7);
    _tile_dpbusd(2, 6, 7);
    _tile_dpbusd(3, 6, 7);
    _tile_dpbusd(4, 6, 7);
    _tile_dpbusd(5, 6, 7);
  }
  _tile_release();
  return iterations * 6 * (16 * 16 * 64);
}

}  // namespace lowbit

LOWBIT_TARGET_END

#endif
