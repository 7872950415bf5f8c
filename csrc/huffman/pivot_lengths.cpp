// Descent on how many bytes have each length. Moving d bytes into length l, 3 d out of l + 1 and 2 d into l + 2 keeps
// both their number and the code space; in single moves, then in pairs of neighbours among the shortest lengths. For
// int8 weights of 7 bits that turns 26, 51, 30, 22 codes of 6, 7, 8, 9 bits into 21, 64, 24, 24: 3.06 levels of merging
// become 2.10 for 0.07 % of size. An exact search over these numbers finds nothing better there, and takes a second.
#include "huffman/pivot_lengths.h"

#include <algorithm>
#include <array>
#include <bit>
#include <numeric>

#include "huffman/huffman_kernel.h"

namespace lowbit {
namespace {

constexpr int64_t kBit = 128;            // cost of a bit, where that of a level of merging is 1
constexpr int64_t kSubtree = 20 * kBit;  // a byte of padding, and about 80 cycles
constexpr int kRounds = 4, kFarthest = 16, kPairFirst = 8, kPairSecond = 4, kPairLengths = 5;

using LengthCounts = std::array<int, kMaxCodeLength + 4>;  // room for the moves of the longest

struct Descent {
  std::array<int64_t, 257> below{};  // counts of the most frequent bytes, added up
  int64_t subtree;
  LengthCounts best{};
  std::array<int, kMaxCodeLength + 1> start{};  // the first byte of each length
  std::array<int64_t, kMaxCodeLength + 1> costs{};
  int64_t gained = 0;

  // Of n bytes of one length from the at-th on.
  int64_t cost(int length, int at, int n) const {
    int64_t sum = 0;
    while (n > 0) {
      const int width = std::min({kFlatBits, length, static_cast<int>(std::bit_width(unsigned(n))) - 1});
      const int size = 1 << width;
      sum += (below[at + size] - below[at]) * (kBit * length + length - width) + subtree;
      at += size;
      n -= size;
    }
    return sum;
  }

  void settle() {
    for (int length = 1, at = 0; length <= kMaxCodeLength; at += best[length++]) {
      start[length] = at;
      costs[length] = cost(length, at, best[length]);
    }
  }

  // Moves first bytes into `length` and second into the next, as above; nothing changes beyond length + 3.
  void try_moves(int length, int first, int second) {
    const int moves[4] = {first, second - 3 * first, 2 * first - 3 * second, 2 * second};
    int64_t gain = 0;
    for (int i = 0, at = start[length]; i < 4; ++i) {
      const int n = best[length + i] + moves[i];
      if (n < 0 || (length + i > kMaxCodeLength && n > 0)) return;
      if (length + i > kMaxCodeLength) break;
      gain += costs[length + i] - cost(length + i, at, n);
      at += n;
    }
    if (gain <= 0) return;
    for (int i = 0; i < 4; ++i) best[length + i] += moves[i];
    gained += gain;
    settle();
  }

  // A move is tried from where the last one led: best changes on the way.
  void run() {
    settle();
    int shortest = 1;
    while (best[shortest] == 0) ++shortest;
    for (int round = 0; round < kRounds; ++round) {
      const int64_t before = gained;
      for (int length = 1; length + 2 <= kMaxCodeLength; ++length) {
        for (int d = -kFarthest; d <= kFarthest; ++d) try_moves(length, d, 0);
      }
      for (int length = shortest; length < std::min(shortest + kPairLengths, kMaxCodeLength - 2); ++length) {
        for (int d = -kPairFirst; d <= kPairFirst; ++d) {
          for (int e = -kPairSecond; e <= kPairSecond; ++e) try_moves(length, d, e);
        }
      }
      if (gained == before) break;
    }
  }
};

}  // namespace

CodeLengths pivot_lengths(const ByteCounts& counts, const CodeLengths& lengths, int64_t chunks) {
  std::array<int, 256> bytes;  // the most frequent first
  std::iota(bytes.begin(), bytes.end(), 0);
  std::stable_sort(bytes.begin(), bytes.end(), [&](int a, int b) { return counts[a] > counts[b]; });
  Descent descent;
  descent.subtree = chunks * kSubtree;
  for (int i = 0; i < 256; ++i) {
    descent.below[i + 1] = descent.below[i] + static_cast<int64_t>(counts[bytes[i]]);
    if (lengths[i]) ++descent.best[lengths[i]];
  }
  descent.run();
  CodeLengths out{};
  auto next = bytes.begin();
  for (int length = 1; length <= kMaxCodeLength; ++length) {
    for (int i = 0; i < descent.best[length]; ++i) out[*next++] = static_cast<uint8_t>(length);
  }
  return out;
}

}  // namespace lowbit
