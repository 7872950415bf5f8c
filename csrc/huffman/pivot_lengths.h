// Code lengths that the pivot layout decodes faster, at hardly more bits.
#pragma once

#include "huffman/code_lengths.h"

namespace lowbit {

// `lengths`, the shortest ones, or others that fill the code space as exactly and save levels of merging: one level of
// a byte is worth 1/128 bit of it, a complete subtree 20 bits a chunk.
CodeLengths pivot_lengths(const ByteCounts& counts, const CodeLengths& lengths, int64_t chunks);

}  // namespace lowbit
