// The tree of the pivot layout, made from the code lengths alone.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "huffman/code_lengths.h"

namespace lowbit {

// In pre-order. The bytes below a node are those of ranks [first, end).
struct PivotNode {
  int16_t right = 0;  // the right child of an inner node (the left one follows it); 0: a complete subtree
  uint8_t width = 0;  // a complete subtree's depth, 0..kFlatBits; 0 is a leaf
  uint8_t depth = 0;
  int16_t first = 0, end = 0;
};

struct PivotTree {
  explicit PivotTree(const CodeLengths& lengths);  // complete ones, of at least two bytes

  int count = 0;
  std::array<PivotNode, 512> nodes;
  std::array<uint8_t, 256> byte_of_rank{}, rank_of_byte{};
  std::array<uint8_t, 512> chain_levels{};      // of the nodes that a LeafChain can be; else 0
  std::vector<std::array<uint8_t, 64>> tables;  // of the complete subtrees, by node: their bytes, repeated

 private:
  struct Piece;
  int build(const Piece* pieces, int& next, int& rank, int depth);
};

}  // namespace lowbit
