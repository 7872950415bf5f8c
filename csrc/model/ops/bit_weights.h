// The packed bits of binary weights, as their operators read them.
#pragma once

#include "model/op_reader.h"

namespace lowbit {

// Param `weight`, the signs of weights with these dimensions: exactly as many bytes as they need, unused bits 0. With
// planes > 0 (planes, bytes): plane p begins at byte p * bytes.
struct BitWeights {
  const uint8_t* data;
  int64_t bytes;  // of one plane
};
BitWeights bit_weights(OpReader& reader, std::initializer_list<int64_t> dims, int64_t planes = 0);

}  // namespace lowbit
