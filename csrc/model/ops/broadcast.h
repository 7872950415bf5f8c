// A second operand that repeats: a is (outer, repeat, inner), b is (outer, inner).
#pragma once

#include "model/op_reader.h"

namespace lowbit {

struct Broadcast {
  int64_t outer = 1, repeat = 1, inner = 1;  // outer: per batch item
};

// b has a's shape, or is (-1, 1, 1, c) or (-1, h, w, 1) against (-1, h, w, c).
inline Broadcast read_broadcast(const OpReader& reader, const Activation& a, const Activation& b) {
  if (a.dims == b.dims) return {1, 1, a.items};
  if (b.row() == 1 && a.dims.size() == b.dims.size()) {
    std::vector<int64_t> per_pixel = a.dims;
    per_pixel.back() = 1;
    reader.need_dims(b, per_pixel);
    return {a.rows(), a.row(), 1};
  }
  if (a.dims.size() == 4) {
    const int64_t per_channel[] = {-1, 1, 1, a.row()};
    reader.need_dims(b, per_channel);
    return {1, a.rows(), a.row()};
  }
  reader.need_dims(b, a.dims);
  return {};
}

}  // namespace lowbit
