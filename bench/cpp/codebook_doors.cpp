// The codebook doors from C++, one thread: codebook_doors LEVEL prints decoding into a given buffer beside a store loop
// of the same size, GEMV in the L2 cache, and seconds of kmeans1d (10 M values, 256 clusters).
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <random>
#include <vector>

#include "lowbit/lowbit.h"

namespace {

using Clock = std::chrono::steady_clock;

template <typename Call>
double seconds(Call&& call, int64_t items) {
  const int64_t repeats = std::max<int64_t>(1, 400'000 / items);
  const auto start = Clock::now();
  for (int64_t i = 0; i < repeats; ++i) call();
  return std::chrono::duration<double>(Clock::now() - start).count() / static_cast<double>(repeats);
}

// Contenders take turns; the best of each.
template <typename A, typename B>
std::pair<double, double> both(A&& a, B&& b, int64_t items, int rounds) {
  std::pair<double, double> best{1e9, 1e9};
  for (int round = 0; round < rounds; ++round) {
    best.first = std::min(best.first, seconds(a, items));
    best.second = std::min(best.second, seconds(b, items));
  }
  return best;
}

typedef float Vector __attribute__((vector_size(64)));

__attribute__((noinline, target("avx512f"))) void store_loop(void* to, int64_t bytes) {
  const Vector v = {1};
  for (Vector *p = static_cast<Vector*>(to), *end = p + bytes / 64; p < end; p += 4) {
    p[0] = v, p[1] = v, p[2] = v, p[3] = v;
    __asm__ volatile("" ::: "memory");  // not one memset
  }
}

void decode(lowbit::Isa isa) {
  std::vector<float> book(256);
  std::vector<int8_t> book8(256, 3);
  for (size_t t = 0; t < book.size(); ++t) book[t] = static_cast<float>(t) / 7;
  for (int bits : {1, 2, 3, 4, 8}) {
    for (int64_t count : {8192, 32768, 262144, 1 << 22, 1 << 25}) {
      std::vector<uint8_t> packed(static_cast<size_t>(lowbit::index_bytes(count, bits)), 0x5a);
      void* out = std::aligned_alloc(4096, static_cast<size_t>(count) * 4);
      const int rounds = count > 1'000'000 ? 8 : 200;
      const lowbit::Codebook<float> c{book.data(), int64_t{1} << bits};
      const lowbit::Codebook<int8_t> c8{book8.data(), int64_t{1} << bits};
      const auto [floats, stores] =
          both([&] { lowbit::codebook_decode(packed.data(), 1, count, bits, c, static_cast<float*>(out), isa, 1); },
               [&] { store_loop(out, 4 * count); }, count, rounds);
      const auto [codes, stores8] =
          both([&] { lowbit::codebook_decode(packed.data(), 1, count, bits, c8, static_cast<int8_t*>(out), isa, 1); },
               [&] { store_loop(out, count); }, count, rounds);
      const double g = static_cast<double>(count) * 1e-9;
      std::printf("decode %d bit, %ld weights: float32 %.1f G/s (%.0f %% of a store loop), int8 %.1f G/s (%.0f %%)\n",
                  bits, static_cast<long>(count), g / floats, 100 * stores / floats, g / codes, 100 * stores8 / codes);
      std::free(out);
    }
  }
}

void gemv(lowbit::Isa isa) {
  const int64_t n = 512, k = 4096;
  std::vector<float> x(static_cast<size_t>(k), 0.5f), y(static_cast<size_t>(n)), book(256, 0.25f);
  for (int bits = 1; bits <= 8; ++bits) {
    const std::vector<uint8_t> packed(static_cast<size_t>(lowbit::index_bytes(n * k, bits)), 0xa5);
    const lowbit::PackedCodebook w =
        lowbit::pack_codebook(packed.data(), n, k, bits, {book.data(), int64_t{1} << bits});
    const auto [f32, i8] =
        both([&] { lowbit::codebook_gemm_f32(x.data(), 1, k, w, y.data(), n, {}, isa, 1); },
             [&] { lowbit::codebook_gemm_i8(x.data(), 1, k, 0, w, y.data(), n, {}, isa, 1); }, n * k, 2000);
    const double g = static_cast<double>(n * k) * 1e-9;
    std::printf("GEMV 1 x %ld x %ld, %d bit: int8 %.1f GMAC/s, float32 %.1f\n", static_cast<long>(n),
                static_cast<long>(k), bits, g / i8, g / f32);
  }
}

void kmeans() {
  std::vector<float> x(10'000'000), book(256);
  std::vector<uint8_t> indices(x.size());
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  for (float& v : x) v = normal(random);
  const char* names[] = {"linear", "density", "forgy", "optimal"};
  for (int init = 0; init < 4; ++init) {
    const auto start = Clock::now();
    lowbit::kmeans1d(x.data(), static_cast<int64_t>(x.size()), 256, static_cast<lowbit::KmeansInit>(init), 1, 10'000,
                     book.data(), indices.data(), 1);
    std::printf("kmeans1d, %s: %.2f s\n", names[init], std::chrono::duration<double>(Clock::now() - start).count());
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: %s LEVEL\n", argv[0]);
    return 2;
  }
  try {
    const lowbit::Isa isa = lowbit::parse_isa(argv[1]);
    decode(isa);
    gemv(isa);
    kmeans();
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
