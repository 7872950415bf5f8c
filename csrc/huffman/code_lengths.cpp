// Package-merge (Larmore and Hirschberg, JACM 1990): the list of a level holds the leaves and the pairs of the level
// below, sorted by weight; the 2 m - 2 lightest items of the top list count, and a leaf's length is how often it does.
#include "huffman/code_lengths.h"

#include <algorithm>
#include <vector>

namespace lowbit {
namespace {

struct Item {
  uint64_t weight;
  bool leaf;
};

}  // namespace

CodeLengths code_lengths(const ByteCounts& counts, int limit) {
  CodeLengths lengths{};
  std::vector<int> bytes;
  for (int b = 0; b < 256; ++b) {
    if (counts[b]) bytes.push_back(b);
  }
  if (bytes.size() <= 1) {
    for (int b : bytes) lengths[b] = 1;
    return lengths;
  }
  std::stable_sort(bytes.begin(), bytes.end(), [&](int a, int b) { return counts[a] < counts[b]; });

  std::vector<std::vector<Item>> levels(limit);
  for (int level = 0; level < limit; ++level) {
    std::vector<Item>& list = levels[level];
    for (int b : bytes) list.push_back({counts[b], true});
    if (level == 0) continue;
    const std::vector<Item>& below = levels[level - 1];
    const std::ptrdiff_t leaves = static_cast<std::ptrdiff_t>(list.size());
    for (size_t i = 0; i + 1 < below.size(); i += 2) list.push_back({below[i].weight + below[i + 1].weight, false});
    std::inplace_merge(list.begin(), list.begin() + leaves, list.end(),
                       [](const Item& a, const Item& b) { return a.weight < b.weight; });
  }
  size_t active = 2 * bytes.size() - 2;
  for (int level = limit - 1; level >= 0; --level) {
    size_t leaves = 0;
    for (size_t i = 0; i < active; ++i) leaves += levels[level][i].leaf;
    for (size_t i = 0; i < leaves; ++i) ++lengths[bytes[i]];
    active = 2 * (active - leaves);
  }
  return lengths;
}

uint64_t coded_bits(const ByteCounts& counts, const CodeLengths& lengths) {
  uint64_t bits = 0;
  for (int b = 0; b < 256; ++b) bits += counts[b] * lengths[b];
  return bits;
}

}  // namespace lowbit
