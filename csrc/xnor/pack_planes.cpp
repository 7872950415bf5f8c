// Doors: pack_planes, unpack_levels, and which products planes are for: bitserial_pays.
#include "target.h"
#include "thread_pool.h"
#include "variant.h"
#include "xnor/level_steps.h"
#include "xnor/xnor_packed.h"

namespace lowbit {
namespace {

using PackFn = void (*)(const PlaneRows&) noexcept;
constexpr Variant<PackFn> kLevels[] = {
#if LOWBIT_X86
    {Isa::avx512, pack_levels_avx512},
    {Isa::avx2, pack_levels_avx2},
#endif
    {Isa::scalar, pack_levels_scalar}};
constexpr Variant<PackFn> kCodes[] = {
#if LOWBIT_X86
    {Isa::avx512, pack_codes_avx512},
    {Isa::avx2, pack_codes_avx2},
#endif
    {Isa::scalar, pack_codes_scalar}};

using UnpackFn = void (*)(const LevelRows&) noexcept;
constexpr Variant<UnpackFn> kUnpack[] = {
#if LOWBIT_X86
    {Isa::avx512, unpack_levels_avx512},
    {Isa::avx2, unpack_levels_avx2},
#endif
    {Isa::scalar, unpack_levels_scalar}};

constexpr uint8_t kInOrder[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
constexpr int64_t kGrain = 1 << 14;  // numbers that one thread should have at least

void pack(PackFn fn, PlaneRows all, int64_t element, int threads) {
  constexpr const char* kName = "pack_planes";
  if (all.rows < 0 || all.c < 0 || all.rows >= int64_t{1} << 46 || all.c >= int64_t{1} << 31) {
    fail_xnor(kName, "rows = " + std::to_string(all.rows) + ", c = " + std::to_string(all.c));
  }
  if (all.rows > 1 && all.ldx < all.c) {
    fail_xnor(kName, "ldx is " + std::to_string(all.ldx) + ", c is " + std::to_string(all.c));
  }
  if (all.rows > 1 && all.ld < bit_words(all.c)) {
    fail_xnor(kName, "ld is " + std::to_string(all.ld) + ", a row has " + std::to_string(bit_words(all.c)) + " words");
  }
  threads = resolve_threads(threads);
  if (all.rows == 0 || all.c == 0) return;
  parallel_for(threads, all.rows, kGrain / all.c + 1, [&](int64_t begin, int64_t end) {
    PlaneRows part = all;
    part.x = static_cast<const char*>(all.x) + begin * all.ldx * element;
    part.rows = end - begin;
    part.planes += begin * all.ld;
    fn(part);
  });
}

}  // namespace

LevelSteps checked_steps(const char* function, const Levels& levels) {
  if (levels.bits < 1 || levels.bits > 4) fail_xnor(function, std::to_string(levels.bits) + " bits, must be 1 to 4");
  if (!levels.threshold) fail_xnor(function, "levels without thresholds");
  const int64_t count = int64_t{1} << levels.bits;
  for (int64_t i = 0; i + 1 < count; ++i) {
    const float t = levels.threshold[i];
    if (t != t || (i > 0 && t < levels.threshold[i - 1])) {
      fail_xnor(function, "threshold[" + std::to_string(i) + "] is " + std::to_string(t) + ", must ascend");
    }
  }
  for (int64_t i = 0; levels.codes && i < count; ++i) {
    if (levels.codes[i] >= count) {
      fail_xnor(function, "codes[" + std::to_string(i) + "] is " + std::to_string(levels.codes[i]) + " of " +
                              std::to_string(levels.bits) + " bits");
    }
  }
  return {levels.bits, levels.threshold, levels.codes ? levels.codes : kInOrder};
}

void pack_planes(const float* x, int64_t rows, int64_t ldx, int64_t c, const Levels& levels, uint32_t* planes,
                 int64_t stride, int64_t ld, Isa isa, int threads) {
  pack(pick(kLevels, isa), {x, rows, ldx, c, checked_steps("pack_planes", levels), planes, stride, ld}, sizeof(float),
       threads);
}

void pack_planes(const uint8_t* codes, int64_t rows, int64_t ldx, int64_t c, int64_t bits, uint32_t* planes,
                 int64_t stride, int64_t ld, Isa isa, int threads) {
  if (bits < 1 || bits > 8) fail_xnor("pack_planes", std::to_string(bits) + " bits, must be 1 to 8");
  pack(pick(kCodes, isa), {codes, rows, ldx, c, {bits, nullptr, nullptr}, planes, stride, ld}, 1, threads);
}

void unpack_levels(const BitPlanes& codes, int64_t rows, int64_t c, const float* level, float* y, int64_t ldy, Isa isa,
                   int threads) {
  constexpr const char* kName = "unpack_levels";
  if (codes.count < 1 || codes.count > 8) {
    fail_xnor(kName, std::to_string(codes.count) + " planes, must be 1 to 8");
  }
  if (rows < 0 || c < 0 || rows >= int64_t{1} << 46 || c >= int64_t{1} << 31) {
    fail_xnor(kName, "rows = " + std::to_string(rows) + ", c = " + std::to_string(c));
  }
  if (rows > 1 && (codes.ld < bit_words(c) || ldy < c)) {
    fail_xnor(kName,
              "ld is " + std::to_string(codes.ld) + ", ldy " + std::to_string(ldy) + ", c is " + std::to_string(c));
  }
  const UnpackFn fn = codes.count <= 4 ? pick(kUnpack, isa) : unpack_levels_scalar;
  threads = resolve_threads(threads);
  if (rows == 0 || c == 0) return;
  if (!codes.bits || !level || !y) fail_xnor(kName, "planes, level or y is null");
  parallel_for(threads, rows, kGrain / c + 1, [&](int64_t begin, int64_t end) {
    fn({codes.bits + begin * codes.ld, codes.count, codes.stride, codes.ld, end - begin, c, level, y + begin * ldy,
        ldy});
  });
}

bool bitserial_pays(int64_t pairs, int64_t m, int64_t n, int64_t k) {
  const bool from_memory = m == 1 && k > 0 && n >= ((int64_t{1} << 20) + k - 1) / k;
  return from_memory ? pairs <= 16 : pairs <= 9 && 64 * pairs <= k;
}

}  // namespace lowbit
