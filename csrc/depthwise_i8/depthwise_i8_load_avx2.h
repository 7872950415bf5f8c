// Bytes at the end of a caller's memory.
#pragma once

#include <string.h>

#include "target.h"

#if LOWBIT_X86
#include <immintrin.h>
#include <stdint.h>

namespace lowbit {

LOWBIT_TARGET_BEGIN_AVX2

static inline __m128i load_16(const uint8_t* p, int64_t width) {
  if (width >= 16) return _mm_loadu_si128((const __m128i*)p);
  alignas(16) uint8_t bytes[16] = {};
  if (width > 0) memcpy(bytes, p, (size_t)width);
  return _mm_load_si128((const __m128i*)bytes);
}

// `width` bytes, and zeros.
static inline __m256i load_bytes(const uint8_t* p, int64_t width) {
  if (width >= 32) return _mm256_loadu_si256((const __m256i*)p);
  return _mm256_setr_m128i(load_16(p, width), width > 16 ? load_16(p + 16, width - 16) : _mm_setzero_si128());
}

LOWBIT_TARGET_END

}  // namespace lowbit

#endif
