// The weights of conv2d_codebook and gemm_codebook as a file has them: codes of every weight, or of some with gaps.
#pragma once

#include <vector>

#include "lowbit/codebook.h"
#include "model/op_reader.h"

namespace lowbit {

class CodebookParams {
 public:
  // Of the (n, k) weights of a layer; the codebook is float32, or int8 where the layer reads codes.
  CodebookParams(OpReader& reader, int64_t n, int64_t k);

  bool sparse() const { return sparse_; }
  // Entries of a sparse layer, fillers included.
  const std::vector<uint8_t>& codes() const { return codes_; }
  const std::vector<uint8_t>& gaps() const { return gaps_; }
  const Codebook<float>& codebook() const { return float_book_; }
  // The code of every weight; codes() is gone then.
  std::vector<uint8_t> take_indices();

  // The weights tiled, decoded to float, or decoded to int8.
  PackedCodebook take_packed();
  PackedConvCodebook take_packed(const Conv2dShape& shape);
  std::vector<float> take_floats();
  std::vector<int8_t> take_int8();

 private:
  void read_codebook(OpReader& reader, DType dtype);
  void read_codes(OpReader& reader);
  // A codebook for every output channel: the one there is, times the channel's scale.
  void scale_codebook(OpReader& reader, const std::vector<float>& scale);
  void read_gaps(OpReader& reader, int gap_bits);
  template <typename T>
  std::vector<T> decoded(const Codebook<T>& book);

  int64_t n_, k_;
  int bits_;
  bool sparse_;
  std::vector<float> floats_;  // one of the two
  std::vector<int8_t> int8s_;
  Codebook<float> float_book_;
  Codebook<int8_t> int8_book_;
  int64_t entries_ = 0, rows_ = 0;  // of the codebook
  std::vector<uint8_t> codes_, gaps_;
};

}  // namespace lowbit
