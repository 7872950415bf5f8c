#include "model/ops/bit_weights.h"

namespace lowbit {

BitWeights bit_weights(OpReader& reader, std::initializer_list<int64_t> dims, int64_t planes) {
  const FileTensor& w = reader.param("weight", {DType::u8});
  const int64_t size = static_cast<int64_t>(w.bytes.size());
  int64_t bits = 1;
  for (int64_t d : dims) {
    if (d > size * 8 / bits) {
      reader.fail("param 'weight' (" + w.name + ") holds " + std::to_string(size) + " bytes, too few for " +
                  shape_text(std::vector<int64_t>(dims)));
    }
    bits *= d;
  }
  const int64_t bytes = (bits + 7) / 8, one[] = {bytes}, several[] = {planes, bytes};
  if (planes > 0) {
    reader.need_shape("weight", w, several);
  } else {
    reader.need_shape("weight", w, one);
  }
  const uint8_t* data = reinterpret_cast<const uint8_t*>(w.bytes.data());
  for (int64_t end = bytes; bits % 8 != 0 && end <= size; end += bytes) {
    if (data[end - 1] >> bits % 8 != 0) {
      reader.fail("param 'weight' (" + w.name + ") has bits set behind its " + std::to_string(bits));
    }
  }
  return {data, bytes};
}

}  // namespace lowbit
