// What the 8-bit products (conv2d, gemm) share: the epilogue, with every multiplier computed when the model is opened.
#pragma once

#include "lowbit/requantize.h"
#include "model/op_reader.h"

namespace lowbit {

class ProductEpilogue {
 public:
  // Reads the attributes and params of the epilogue for n output channels; input 1, if there, is the residual. depth:
  // products summed into one output, whose true sum must fit int32.
  ProductEpilogue(OpReader& reader, int64_t n, int64_t depth);

  // The epilogue of this run: residual, and multipliers of a dynamic input (written to scratch, n floats).
  Epilogue at(const Frame& frame, const std::vector<int>& inputs) const;
  int64_t scratch_bytes() const;

  int32_t weight_zero_point = 0;  // of the weights as int8: minus 128 where the file has uint8
  int32_t x_zero_point(const Frame& frame, int x) const {
    return dynamic_ ? frame.dynamic[x].zero_point : x_zero_point_;
  }

 private:
  void find_multipliers(OpReader& reader);
  void check_sum(OpReader& reader, int64_t depth, int bits) const;

  Epilogue fixed_;
  bool dynamic_ = false;
  int32_t x_zero_point_ = 0;
  double y_scale_ = 1.0;  // 1 for float outputs
  std::vector<float> weight_scale_, multipliers_, float_bias_;
  std::vector<int32_t> bias_;
};

// Attribute `bits`: 2 to 7 where the weight param is packed, 8 where it has a byte for each weight and their shape.
int weight_bits(OpReader& reader);

// The `count` weights as int8 codes: of uint8 ones 128 is taken off, of packed ones 2^(bits - 1).
std::vector<int8_t> int8_weights(OpReader& reader, int64_t count);

}  // namespace lowbit
