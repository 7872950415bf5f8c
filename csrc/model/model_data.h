// What a Model holds: the plan compiled. Immutable once made.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "lowbit/model.h"
#include "model/op.h"
#include "model/plan.h"

namespace lowbit {

struct Model::Data {
  std::string plan, manifest;
  std::vector<Activation> tensors;
  std::vector<int> inputs, outputs;
  std::vector<TensorInfo> input_infos, output_infos, tensor_infos;
  std::vector<std::unique_ptr<const Op>> ops;
};

}  // namespace lowbit
