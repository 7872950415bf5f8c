// Door: lookup.
#include "pointwise/pointwise_checks.h"
#include "thread_pool.h"
#include "variant.h"

namespace lowbit {

using namespace pointwise;

namespace {

constexpr Variant<Lookup*> kLookup[] = {
#if LOWBIT_X86
    {Isa::avx512, lookup_avx512},
    {Isa::avx2, lookup_avx2},
#endif
    {Isa::scalar, lookup_scalar},
};

// Tables of floats, or one per channel: a load per element is all there is to it.
template <typename T>
void lookup_plain(const uint8_t* x, int64_t begin, int64_t end, const T* table, int64_t channels, T* y) {
  int64_t channel = begin % channels;
  for (int64_t i = begin; i < end; ++i) {
    y[i] = table[channel * 256 + x[i]];
    if (++channel == channels) channel = 0;
  }
}

}  // namespace

void lookup(const uint8_t* x, int64_t n, const void* table, bool f32, int64_t channels, void* y, Isa isa, int threads) {
  check_level("lookup", isa);
  check_size("lookup", "n", n);
  if (channels < 1) fail("lookup", "channels = " + std::to_string(channels) + " is below 1");
  if (n % channels != 0) {
    fail("lookup", "n = " + std::to_string(n) + " is no multiple of channels = " + std::to_string(channels));
  }
  Lookup* const run = pick(kLookup, isa);
  parallel_for(resolve_threads(threads), n, 4 * kGrain, [&](int64_t begin, int64_t end) {
    if (f32) {
      lookup_plain(x, begin, end, static_cast<const float*>(table), channels, static_cast<float*>(y));
    } else if (channels > 1) {
      lookup_plain(x, begin, end, static_cast<const uint8_t*>(table), channels, static_cast<uint8_t*>(y));
    } else {
      run(x + begin, end - begin, static_cast<const uint8_t*>(table), static_cast<uint8_t*>(y) + begin);
    }
  });
}

}  // namespace lowbit
