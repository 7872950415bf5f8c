// Weights into panels of 64 output channels, with the sums that an exact zero around the image needs.
#include <algorithm>
#include <stdexcept>

#include "conv2d_shape.h"
#include "xnor/xnor_packed.h"

namespace lowbit {
namespace {

// word_at(o, tap, p): word p of the channels of tap `tap` of output channel o, pad bits 0.
template <typename WordAt>
PackedXnor pack(const char* function, const Conv2dShape& shape, WordAt&& word_at) {
  auto data = std::make_shared<PackedXnor::Data>();
  PackedXnor::Data& d = *data;
  d.shape = {.c = shape.c, .oc = shape.oc, .kh = shape.kh, .kw = shape.kw, .groups = shape.groups};
  const int64_t depth = d.depth(), words = bit_words(depth), taps = shape.kh * shape.kw;
  const int64_t channels = d.channels(), padded = d.padded_channels(), all = shape.groups * padded;
  if (taps * depth >= int64_t{1} << 30) {
    fail_xnor(function, std::to_string(taps * depth) + " products per output are more than 2^30");
  }
  d.words.assign(size_t(all * taps * words), 0u);
  std::vector<int32_t> sums(size_t(taps * all), 0);
  for (int64_t o = 0; o < shape.oc; ++o) {
    const int64_t g = o / channels, j = o % channels, panel = g * d.panels() + j / kXnorPanel;
    uint32_t* out = d.words.data() + panel * taps * words * kXnorPanel + j % kXnorPanel;
    for (int64_t t = 0; t < taps; ++t) {
      int32_t ones = 0;
      for (int64_t p = 0; p < words; ++p) {
        const uint32_t word = word_at(o, t, p);
        ones += __builtin_popcount(word);
        out[(t * words + p) * kXnorPanel] = word;
      }
      sums[size_t(t * all + g * padded + j)] = 2 * ones - static_cast<int32_t>(depth);
    }
  }
  // Prefix sums over rectangles of taps.
  d.tap_sums.assign(size_t((shape.kh + 1) * (shape.kw + 1) * all), 0);
  auto at = [&](int64_t ky, int64_t kx) { return d.tap_sums.data() + (ky * (shape.kw + 1) + kx) * all; };
  for (int64_t ky = 0; ky < shape.kh; ++ky) {
    for (int64_t kx = 0; kx < shape.kw; ++kx) {
      const int32_t* own = sums.data() + (ky * shape.kw + kx) * all;
      for (int64_t j = 0; j < all; ++j) {
        at(ky + 1, kx + 1)[j] = own[j] + at(ky, kx + 1)[j] + at(ky + 1, kx)[j] - at(ky, kx)[j];
      }
    }
  }
  PackedXnor packed;
  packed.data = std::move(data);
  return packed;
}

void check(const char* function, const Conv2dShape& shape, const void* bits) {
  check_conv2d_weights(function, shape);
  if (shape.c < 1) fail_xnor(function, "c is " + std::to_string(shape.c) + ", must be at least 1");
  if (!bits && shape.oc > 0) fail_xnor(function, "bits is null");
}

PackedXnor pack_dense(const char* function, const uint8_t* bits, const Conv2dShape& shape) {
  check(function, shape, bits);
  const int64_t depth = shape.c / shape.groups, taps = shape.kh * shape.kw;
  return pack(function, shape, [=](int64_t o, int64_t t, int64_t p) {
    const int64_t first = (o * taps + t) * depth + 32 * p, count = std::min<int64_t>(32, depth - 32 * p);
    uint64_t raw = 0;
    for (int64_t byte = first / 8; byte <= (first + count - 1) / 8; ++byte) {
      raw |= uint64_t{bits[byte]} << 8 * (byte - first / 8);
    }
    return static_cast<uint32_t>(raw >> first % 8 & ((uint64_t{1} << count) - 1));
  });
}

}  // namespace

void fail_xnor(const char* function, const std::string& what) {
  throw std::invalid_argument(std::string(function) + ": " + what);
}

int64_t PackedXnor::bytes() const noexcept {
  return data ? int64_t(data->words.size() * sizeof(uint32_t) + data->tap_sums.size() * sizeof(int32_t)) : 0;
}

PackedXnor pack_xnor(const uint8_t* bits, const Conv2dShape& shape) { return pack_dense("pack_xnor", bits, shape); }

PackedXnor pack_xnor(const uint8_t* bits, int64_t n, int64_t k) {
  if (k < 1) fail_xnor("pack_xnor", "k is " + std::to_string(k) + ", must be at least 1");
  return pack_dense("pack_xnor", bits, {.c = k, .oc = n});
}

PackedXnor pack_xnor_rows(const uint32_t* rows, const Conv2dShape& shape) {
  constexpr const char* kName = "pack_xnor_rows";
  check(kName, shape, rows);
  const int64_t depth = shape.c / shape.groups, words = bit_words(depth), taps = shape.kh * shape.kw;
  return pack(kName, shape, [=](int64_t o, int64_t t, int64_t p) {
    const int64_t count = std::min<int64_t>(32, depth - 32 * p);
    return rows[(o * taps + t) * words + p] & static_cast<uint32_t>((uint64_t{1} << count) - 1);
  });
}

}  // namespace lowbit
