#include "pointwise/saturate_kernel.h"

namespace lowbit::pointwise {

// start, then step(value) for every tap of the window, row-major: one channel of one output pixel.
template <typename T, typename Value, typename Step>
static Value over_window(const PoolRow& row, const PoolColumn& column, int64_t channel, Value start, Step step) {
  Value v = start;
  for (int64_t r = 0; r < row.rows; ++r) {
    const T* x = static_cast<const T*>(row.x) + r * row.row_step + column.first * row.pixel_step + channel;
    for (int64_t t = 0; t < column.taps; ++t) v = step(v, x[t * row.tap_step]);
  }
  return v;
}

template <typename T>
static void max_pool(const PoolRow& row, T lowest) {
  for (int64_t ox = 0; ox < row.out_w; ++ox) {
    T* y = static_cast<T*>(row.y) + ox * row.y_step;
    for (int64_t j = 0; j < row.c; ++j) {
      y[j] = over_window<T>(row, row.columns[ox], j, lowest, [](T m, T x) { return x > m ? x : m; });
    }
  }
}

void max_pool_u8_scalar(const PoolRow& row) noexcept { max_pool<uint8_t>(row, 0); }
void max_pool_s8_scalar(const PoolRow& row) noexcept { max_pool<int8_t>(row, -128); }
void max_pool_f32_scalar(const PoolRow& row) noexcept { max_pool<float>(row, -HUGE_VALF); }

static float divisor(const PoolRow& row, const PoolColumn& column) {
  const int64_t count = row.count * column.count;
  return static_cast<float>(count > 1 ? count : 1);
}

void average_pool_codes_scalar(const PoolRow& row, const CodeIn& in, const CodeOut& out) noexcept {
  for (int64_t ox = 0; ox < row.out_w; ++ox) {
    uint8_t* y = static_cast<uint8_t*>(row.y) + ox * row.y_step;
    const float count = divisor(row, row.columns[ox]);
    for (int64_t j = 0; j < row.c; ++j) {
      const int32_t sum = over_window<uint8_t>(row, row.columns[ox], j, int32_t{0},
                                               [&](int32_t s, uint8_t x) { return s + ((x ^ in.flip) - in.zero); });
      y[j] = saturate((static_cast<float>(sum) * in.factor) / count, out);
    }
  }
}

void average_pool_f32_scalar(const PoolRow& row) noexcept {
  for (int64_t ox = 0; ox < row.out_w; ++ox) {
    float* y = static_cast<float*>(row.y) + ox * row.y_step;
    const float count = divisor(row, row.columns[ox]);
    for (int64_t j = 0; j < row.c; ++j) {
      y[j] = over_window<float>(row, row.columns[ox], j, 0.0f, [](float s, float x) { return s + x; }) / count;
    }
  }
}

}  // namespace lowbit::pointwise
