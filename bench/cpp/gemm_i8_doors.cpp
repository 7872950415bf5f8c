// Seconds per gemm_i8 from C++: gemm_i8_doors LEVEL THREADS M N K [M N K ...] prints "M N K seconds", best of many
// runs. uint8 activations, packed int8 weights, int32 sums, as bench/ours.py.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <vector>

#include "lowbit/lowbit.h"

namespace {

using Clock = std::chrono::steady_clock;

double seconds_per_call(int64_t m, int64_t n, int64_t k, lowbit::Isa isa, int threads) {
  std::vector<uint8_t> a(static_cast<size_t>(m * k));
  std::vector<int8_t> b(static_cast<size_t>(k * n));
  std::vector<int32_t> c(static_cast<size_t>(m * n));
  for (size_t i = 0; i < a.size(); ++i) a[i] = static_cast<uint8_t>(i * 37 + 11);
  for (size_t i = 0; i < b.size(); ++i) b[i] = static_cast<int8_t>(static_cast<int>(i * 53 % 255) - 127);
  const lowbit::PackedI8 packed = lowbit::pack_i8(b.data(), lowbit::DType::s8, k, n, n, 1);
  const lowbit::Epilogue epilogue;
  const auto call = [&] {
    lowbit::gemm_i8(a.data(), lowbit::DType::u8, m, k, 0, packed, 0, c.data(), n, epilogue, isa, threads);
  };
  const auto spend = [&](int repeats) {
    const auto start = Clock::now();
    for (int i = 0; i < repeats; ++i) call();
    return std::chrono::duration<double>(Clock::now() - start).count() / repeats;
  };
  call();
  const double once = std::min(spend(1), spend(1));
  const int repeats = std::clamp(static_cast<int>(1e-3 / std::max(once, 1e-8)), 1, 100000);
  double best = once, spent = 0;
  for (int round = 0; round < 20 || spent < 0.25; ++round) {
    const double one = spend(repeats);
    best = std::min(best, one);
    spent += one * repeats;
  }
  return best;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 6 || argc % 3 != 0) {
    std::fprintf(stderr, "usage: %s LEVEL THREADS M N K [M N K ...]\n", argv[0]);
    return 2;
  }
  try {
    const lowbit::Isa isa = lowbit::parse_isa(argv[1]);
    for (int i = 3; i + 2 < argc; i += 3) {
      const int64_t m = std::atoll(argv[i]), n = std::atoll(argv[i + 1]), k = std::atoll(argv[i + 2]);
      std::printf("%lld %lld %lld %.9g\n", static_cast<long long>(m), static_cast<long long>(n),
                  static_cast<long long>(k), seconds_per_call(m, n, k, isa, std::atoi(argv[2])));
      std::fflush(stdout);
    }
  } catch (const std::exception& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 1;
  }
  return 0;
}
