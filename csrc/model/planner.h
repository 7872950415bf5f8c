// Where every tensor of a run lies, for one batch size. Tensors share memory (a class of them does) where one is
// another's bytes: a reshape and its input, an in-place operator's output and input, the parts of a concatenation.
// Classes whose lives do not overlap share addresses: largest first, each into the tightest gap (Pisarchyk and Lee
// 2020, "greedy by size").
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "model/op.h"
#include "model/plan.h"

namespace lowbit {

struct Layout {
  enum class Home : uint8_t { arena, input, output };
  struct Spot {
    Home home = Home::arena;
    int index = 0;       // which input or output of the caller's
    int64_t offset = 0;  // bytes
    int64_t pitch = 0;   // elements between rows of the last axis
  };
  std::vector<Spot> spots;            // per tensor
  std::vector<int64_t> scratch;       // per op, an arena offset
  std::vector<int> output_is_direct;  // per network output: the plan writes the caller's memory itself
  int64_t arena_bytes = 0;            // over-read slack included
};

// With keep_tensors nothing is overwritten and nothing lies in the caller's memory, so that every tensor can be read
// later. Throws std::invalid_argument where the batch needs more memory than can be addressed.
Layout plan_layout(const std::vector<Activation>& tensors, const std::vector<std::unique_ptr<const Op>>& ops,
                   std::span<const int> inputs, std::span<const int> outputs, int64_t batch, bool keep_tensors);

}  // namespace lowbit
