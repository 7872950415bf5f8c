// Round trips of random symbols at every level, and the streams damaged: cut at every byte, bits flipped, bytes
// overwritten, spliced. Files and folders named on the command line are fed first. Usage: mutate_huffman [rounds = 300]
// [seed = 1] [file or folder ...]
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>

#include "fuzz_huffman.h"
#include "lowbit/huffman.h"

namespace {

using Bytes = std::vector<uint8_t>;

std::mt19937_64 g_random;

size_t below(size_t n) { return static_cast<size_t>(g_random() % n); }

void feed(const Bytes& bytes) { fuzz_huffman(bytes.data(), bytes.size()); }

int feed_path(const std::filesystem::path& path) {
  if (!std::filesystem::is_directory(path)) {
    std::ifstream file(path, std::ios::binary);
    const std::vector<char> bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
    feed(Bytes(bytes.begin(), bytes.end()));
    return 1;
  }
  int files = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(path)) {
    if (entry.is_regular_file()) files += feed_path(entry.path());
  }
  return files;
}

// Symbols whose frequencies fall by a random factor.
Bytes symbols(size_t n, size_t alphabet) {
  const double skew = 0.2 + 0.8 * std::generate_canonical<double, 32>(g_random);
  std::vector<double> weights(alphabet);
  for (size_t i = 0; i < alphabet; ++i) weights[i] = std::pow(skew, static_cast<double>(i));
  std::discrete_distribution<int> pick(weights.begin(), weights.end());
  Bytes out(n);
  for (uint8_t& s : out) s = static_cast<uint8_t>(pick(g_random));
  return out;
}

// A stream of random symbols and options, the same from every level and of one or two threads.
Bytes stream() {
  static constexpr int kPacks[] = {0, 1, 2, 4, 8};
  const int pack = kPacks[below(5)];
  const size_t most = pack > 1 ? size_t{1} << (8 / pack) : 256;
  const Bytes source = symbols(below(below(8) ? 1500 : 70000), 1 + below(most));
  const int64_t shape[] = {static_cast<int64_t>(source.size())};
  const lowbit::HuffmanOptions options{static_cast<lowbit::HuffmanLayout>(below(2)), pack,
                                       int64_t{256} << below(below(4) ? 3 : 9)};
  const auto coded = lowbit::huffman_encode(source.data(), shape, options, lowbit::Isa::scalar, 1);
  for (lowbit::Isa isa : lowbit::isas()) {
    if (lowbit::huffman_encode(source.data(), shape, options, isa, 2) == coded) continue;
    std::fprintf(stderr, "mutate_huffman: %s encodes other bytes\n", lowbit::isa_name(isa));
    std::abort();
  }
  Bytes decoded(source.size());
  lowbit::HuffmanStream(coded).decode(decoded.data());
  if (decoded != source) {
    std::fprintf(stderr, "mutate_huffman: a round trip of %zu symbols fails\n", source.size());
    std::abort();
  }
  Bytes bytes(coded.size());
  std::transform(coded.begin(), coded.end(), bytes.begin(), [](std::byte b) { return static_cast<uint8_t>(b); });
  return bytes;
}

void damage(Bytes& b) {
  for (size_t changes = 1 + below(3); changes > 0 && !b.empty(); --changes) {
    // Half of them where the header decides most.
    const size_t at = below(below(2) ? b.size() : std::min<size_t>(b.size(), 200));
    switch (below(5)) {
      case 0:
      case 1:
        b[at] ^= static_cast<uint8_t>(1u << below(8));
        break;
      case 2:
        b[at] = static_cast<uint8_t>(g_random());
        break;
      case 3:
        b.resize(at);
        break;
      case 4:
        std::copy_n(b.begin() + static_cast<std::ptrdiff_t>(below(at + 1)), std::min<size_t>(b.size() - at, below(40)),
                    b.begin() + static_cast<std::ptrdiff_t>(at));
        break;
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  const int64_t rounds = argc > 1 ? std::atoll(argv[1]) : 300;
  g_random.seed(argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 1);
  int files = 0;
  for (int i = 3; i < argc; ++i) files += feed_path(argv[i]);
  for (int64_t round = 0; round < rounds; ++round) {
    const Bytes good = stream();
    const int64_t accepted = huffman_verdicts().accepted;
    feed(good);
    if (huffman_verdicts().accepted != accepted + 2) {  // as it is, and sealed again
      std::fprintf(stderr, "mutate_huffman: a good stream is refused\n");
      return 1;
    }
    for (int i = 0; i < 8; ++i) {
      Bytes bad = good;
      damage(bad);
      feed(bad);
    }
    if (good.size() < 400) {
      for (size_t n = 0; n < good.size(); ++n) feed(Bytes(good.begin(), good.begin() + static_cast<std::ptrdiff_t>(n)));
    }
  }
  const HuffmanVerdicts v = huffman_verdicts();
  std::printf("%d files; %lld streams accepted, %lld refused\n", files, static_cast<long long>(v.accepted),
              static_cast<long long>(v.refused));
  // Every good stream counts twice; some damage must get past the checksums that were made right.
  return v.accepted < 2 * rounds + rounds / 2 || v.refused < rounds;
}
