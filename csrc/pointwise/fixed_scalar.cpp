// Integer-only forms of add, mul and average pooling (TensorFlow Lite's arithmetic): no float between codes and codes.
#include "pointwise/saturate_kernel.h"
#include "requantize/requantize_scalar.h"

namespace lowbit::pointwise {

static int32_t whole_difference(uint8_t byte, const CodeIn& in) { return (byte ^ in.flip) - in.zero; }

void add_fixed_scalar(const uint8_t* a, const CodeIn& ca, const uint8_t* b, const CodeIn& cb, int64_t n, uint8_t* y,
                      const CodeOut& out, const FixedSum& fixed) noexcept {
  int32_t scaled_a[256], scaled_b[256];  // of every byte; at most 255 * 2^19 each
  for (int i = 0; i < 256; ++i) {
    const uint8_t byte = static_cast<uint8_t>(i);
    scaled_a[i] = static_cast<int32_t>(multiply_fixed(whole_difference(byte, ca) * (1 << 20), fixed.a, fixed.rounding));
    scaled_b[i] = static_cast<int32_t>(multiply_fixed(whole_difference(byte, cb) * (1 << 20), fixed.b, fixed.rounding));
  }
  for (int64_t i = 0; i < n; ++i) {
    y[i] = saturate_fixed(multiply_fixed(scaled_a[a[i]] + scaled_b[b[i]], fixed.sum, fixed.rounding), out);
  }
}

void mul_fixed_scalar(const uint8_t* a, const CodeIn& ca, const uint8_t* b, const CodeIn& cb, int64_t repeat,
                      int64_t inner, uint8_t* y, const CodeOut& out, FixedPoint ratio, Rounding rounding) noexcept {
  for (int64_t r = 0; r < repeat; ++r) {
    for (int64_t i = 0; i < inner; ++i) {
      const int64_t at = r * inner + i;
      const int32_t product = whole_difference(a[at], ca) * whole_difference(b[i], cb);
      y[at] = saturate_fixed(multiply_fixed(product, ratio, rounding), out);
    }
  }
}

struct Mean {
  FixedPoint multiplier;
  int headroom;
};

// m / count as the multiplier of sums of count differences that are shifted left by headroom, for int32 still to hold
// them: the first of gemmlowp's two roundings then falls far below the second. In whole numbers: m0 * 2^k / count,
// rounded half up, with the greatest k that leaves it below 2^31.
static Mean divided(FixedPoint m, int64_t count) {
  int k = 0;
  while (int64_t{1} << k < count) ++k;
  const int headroom = k < 23 ? 23 - k : 0;
  for (;; --k) {
    const int64_t m0 = (2 * (int64_t{m.m0} << k) + count) / (2 * count);
    if (m0 >= int64_t{1} << 31) continue;
    const int shift = m.shift - k - headroom;  // below -32 a mean is less than half a code
    return {shift < -32 ? FixedPoint{1 << 30, -32} : FixedPoint{static_cast<int32_t>(m0), shift}, headroom};
  }
}

static int64_t floor_div(int64_t a, int64_t b) { return a / b - (a % b < 0); }

void means_fixed_scalar(const int32_t* sums, int64_t n, int64_t counted, const CodeOut& out, const FixedPoint* ratio,
                        Rounding rounding, uint8_t* y) noexcept {
  const int64_t count = counted > 1 ? counted : 1;
  const Mean mean = ratio ? divided(*ratio, count) : Mean{};
  for (int64_t j = 0; j < n; ++j) {
    const int64_t v = ratio ? multiply_fixed(sums[j] * (1 << mean.headroom), mean.multiplier, rounding)
                            : floor_div(2 * int64_t{sums[j]} + count, 2 * count);
    y[j] = saturate_fixed(v, out);
  }
}

void average_pool_fixed_scalar(const PoolRow& row, const CodeIn& in, const CodeOut& out, const FixedPoint* ratio,
                               Rounding rounding) noexcept {
  for (int64_t ox = 0; ox < row.out_w; ++ox) {
    const PoolColumn& column = row.columns[ox];
    uint8_t* y = static_cast<uint8_t*>(row.y) + ox * row.y_step;
    int32_t sums[32];
    for (int64_t j = 0; j < row.c; j += 32) {
      const int64_t width = row.c - j < 32 ? row.c - j : 32;
      for (int64_t i = 0; i < width; ++i) {
        sums[i] = 0;
        for (int64_t r = 0; r < row.rows; ++r) {
          const uint8_t* x =
              static_cast<const uint8_t*>(row.x) + r * row.row_step + column.first * row.pixel_step + j + i;
          for (int64_t t = 0; t < column.taps; ++t) sums[i] += whole_difference(x[t * row.tap_step], in);
        }
      }
      means_fixed_scalar(sums, width, row.count * column.count, out, ratio, rounding, y + j);
    }
  }
}

}  // namespace lowbit::pointwise
