// The bytes of one length are cut into complete subtrees of 2^w leaves, w at most 6, the largest first, because a
// complete subtree costs one look-up where each level of merging costs two expands; their roots, sorted by depth, are
// then given codes canonically. Roots of equal depth come narrowest first, so that a leaf is always a left child:
// there is at most one of a depth, and the first node of a depth has an even code.
#include "huffman/pivot_tree.h"

#include <algorithm>
#include <bit>
#include <vector>

#include "huffman/huffman_kernel.h"

namespace lowbit {

struct PivotTree::Piece {
  int depth, width;
  std::array<uint8_t, 1 << kFlatBits> bytes;
};

PivotTree::PivotTree(const CodeLengths& lengths) {
  std::vector<Piece> pieces;
  for (int length = 1; length <= kMaxCodeLength; ++length) {
    std::vector<uint8_t> bytes;
    for (int b = 0; b < 256; ++b) {
      if (lengths[b] == length) bytes.push_back(static_cast<uint8_t>(b));
    }
    for (size_t at = 0; at < bytes.size();) {
      const int width = std::min({kFlatBits, length, static_cast<int>(std::bit_width(bytes.size() - at)) - 1});
      Piece& piece = pieces.emplace_back(Piece{length - width, width, {}});
      std::copy_n(bytes.begin() + static_cast<std::ptrdiff_t>(at), 1 << width, piece.bytes.begin());
      at += size_t{1} << width;
    }
  }
  std::stable_sort(pieces.begin(), pieces.end(), [](const Piece& a, const Piece& b) {
    return a.depth != b.depth ? a.depth < b.depth : a.width < b.width;
  });
  int next = 0, rank = 0;
  build(pieces.data(), next, rank, 0);
  tables.resize(count);
  for (int i = count - 1; i >= 0; --i) {
    const PivotNode& node = nodes[i];
    if (!node.right || nodes[i + 1].right || nodes[i + 1].width != 0) continue;  // the left child must be a leaf
    const PivotNode& right = nodes[node.right];
    if (!right.right && right.width == 1) chain_levels[i] = 2;
    if (chain_levels[node.right] == 2) chain_levels[i] = 3;
  }
  for (int i = 0; i < count; ++i) {
    if (nodes[i].right) continue;
    for (int j = 0; j < 64; ++j) tables[i][j] = byte_of_rank[nodes[i].first + j % (1 << nodes[i].width)];
  }
}

// The subtree at `depth` whose leftmost piece is pieces[next]. The lengths fill the tree exactly, so that pieces never
// run out, and the next one is never shallower than the node that is asked for.
int PivotTree::build(const Piece* pieces, int& next, int& rank, int depth) {
  const int self = count++;
  PivotNode node;
  node.depth = static_cast<uint8_t>(depth);
  node.first = static_cast<int16_t>(rank);
  if (pieces[next].depth == depth) {
    const Piece& piece = pieces[next++];
    node.width = static_cast<uint8_t>(piece.width);
    for (int i = 0; i < 1 << piece.width; ++i, ++rank) {
      byte_of_rank[rank] = piece.bytes[i];
      rank_of_byte[piece.bytes[i]] = static_cast<uint8_t>(rank);
    }
  } else {
    build(pieces, next, rank, depth + 1);
    node.right = static_cast<int16_t>(build(pieces, next, rank, depth + 1));
  }
  node.end = static_cast<int16_t>(rank);
  nodes[self] = node;
  return self;
}

}  // namespace lowbit
