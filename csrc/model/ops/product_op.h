// What the 8-bit products (conv2d, gemm) share: the epilogue, with every multiplier computed when the model is opened.
#pragma once

#include "lowbit/requantize.h"
#include "model/op_reader.h"

namespace lowbit {

// The weights of an 8-bit product as int8 codes.
struct ProductWeights {
  std::vector<int8_t> values;
  int bits = 8;  // that they use: -2^(bits - 1) at least
  int32_t zero_point = 0;
};
// Those of param `weight`, one of `count`: int8, uint8 (128 is taken off codes and zero point), or packed.
ProductWeights int8_weights(OpReader& reader, int64_t count);
// Attribute `bits` of a layer without a codebook: 2 to 7 where the weight param is packed, 8 where it has a byte for
// each weight and their shape.
int weight_bits(OpReader& reader);

// Fails unless input 0 is (-1, ..., k) and the output has its dimensions but for the last.
void check_product_dims(OpReader& reader);

std::unique_ptr<Op> make_conv2d_i8(OpReader& reader, const Conv2dShape& shape, const ProductWeights& weights);
std::unique_ptr<Op> make_gemm_i8(OpReader& reader, const ProductWeights& weights);

class ProductEpilogue {
 public:
  // Reads the attributes and params of the epilogue for n output channels; input 1, if there, is the residual. depth:
  // products summed into one output, whose true sum must fit int32.
  ProductEpilogue(OpReader& reader, int64_t n, int64_t depth, const ProductWeights& weights);

  // The epilogue of this run: residual, and multipliers of a dynamic input (written to scratch, n floats).
  Epilogue at(const Frame& frame, const std::vector<int>& inputs) const;
  int64_t scratch_bytes() const;

  // Weights of few bits have large scales, and some kernels are faster with multipliers below 1. Where one is not, and
  // it changes no result: prepares for weights, and so sums, 2^shift times as large. False: for weights as they are.
  bool enlarge_sums(int64_t depth, int shift);

  int32_t weight_zero_point;
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

}  // namespace lowbit
