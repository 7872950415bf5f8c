// Doors: resize_nearest, resize_bilinear_i8, resize_bilinear_f32.
#include <cstring>

#include "pointwise/pointwise_checks.h"
#include "thread_pool.h"
#include "variant.h"

namespace lowbit {

using namespace pointwise;

namespace {

constexpr Variant<BilinearCodes*> kBilinearCodes[] = {
#if LOWBIT_X86
    {Isa::avx512, bilinear_codes_avx512},
    {Isa::avx2, bilinear_codes_avx2},
#endif
    {Isa::scalar, bilinear_codes_scalar},
};
constexpr Variant<Bilinear*> kBilinear[] = {
#if LOWBIT_X86
    {Isa::avx512, bilinear_f32_avx512},
#endif
    {Isa::scalar, bilinear_f32_scalar},
};

void check_indices(const char* function, const char* name, const int32_t* index, int64_t count, int64_t size) {
  for (int64_t i = 0; i < count; ++i) {
    if (index[i] < 0 || index[i] >= size) {
      fail(function, std::string(name) + "[" + std::to_string(i) + "] = " + std::to_string(index[i]) +
                         " is not in [0, " + std::to_string(size) + ")");
    }
  }
}

void check_taps(const char* function, const char* name, const LinearTaps& taps, int64_t size) {
  check_size(function, name, taps.size);
  check_indices(function, name, taps.first, taps.size, size);
  check_indices(function, name, taps.second, taps.size, size);
}

// run(row) for every output row of NHWC images.
template <typename T, typename Run>
void over_rows(const char* function, const T* x, int64_t batch, int64_t h, int64_t w, int64_t c, const LinearTaps& rows,
               const LinearTaps& cols, T* y, int threads, Run run) {
  check_product(function, batch, check_product(function, h, w, c), sizeof(T));
  const int team = resolve_threads(threads);
  check_taps(function, "rows", rows, h);
  check_taps(function, "cols", cols, w);
  const int64_t row_size = check_product(function, cols.size, c, 1);
  check_product(function, batch, check_product(function, rows.size, row_size, 1), sizeof(T));
  if (row_size == 0) return;
  parallel_for(team, batch * rows.size, std::max<int64_t>(kGrain / 4 / row_size, 1), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t oy = i % rows.size;
      const T* image = x + i / rows.size * h * w * c;
      LinearRow row;
      row.top = image + rows.first[oy] * w * c;
      row.bottom = image + rows.second[oy] * w * c;
      row.weight = rows.weight[oy];
      row.first = cols.first;
      row.second = cols.second;
      row.weights = cols.weight;
      row.out_w = cols.size;
      row.c = c;
      row.y = y + i * row_size;
      run(row);
    }
  });
}

}  // namespace

void resize_nearest(const void* x, DType dtype, int64_t batch, int64_t h, int64_t w, int64_t c, const int32_t* rows,
                    int64_t out_h, const int32_t* cols, int64_t out_w, void* y, Isa isa, int threads) {
  constexpr const char* kName = "resize_nearest";
  check_level(kName, isa);
  const int64_t pixel = check_product(kName, c, static_cast<int64_t>(dtype_size(dtype)), 1);
  const int64_t image = check_product(kName, h, w, pixel), row_bytes = check_product(kName, out_w, pixel, 1);
  check_product(kName, batch, image, 1);
  check_product(kName, batch, out_h, row_bytes);
  const int team = resolve_threads(threads);
  check_indices(kName, "rows", rows, out_h, h);
  check_indices(kName, "cols", cols, out_w, w);
  if (row_bytes == 0) return;
  parallel_for(team, batch * out_h, std::max<int64_t>(kGrain / row_bytes, 1), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const char* from = static_cast<const char*>(x) + i / out_h * image + rows[i % out_h] * w * pixel;
      char* to = static_cast<char*>(y) + i * row_bytes;
      for (int64_t ox = 0; ox < out_w; ++ox) std::memcpy(to + ox * pixel, from + cols[ox] * pixel, pixel);
    }
  });
}

void resize_bilinear_i8(const void* x, const Codes& cx, int64_t batch, int64_t h, int64_t w, int64_t c,
                        const LinearTaps& rows, const LinearTaps& cols, void* y, const Codes& cy, Isa isa,
                        int threads) {
  constexpr const char* kName = "resize_bilinear_i8";
  check_level(kName, isa);
  const CodeOut out = code_out(kName, cy);
  const CodeIn in = code_in(kName, "x", cx, cx.scale / cy.scale);
  BilinearCodes* const run = pick(kBilinearCodes, isa);
  over_rows(kName, static_cast<const uint8_t*>(x), batch, h, w, c, rows, cols, static_cast<uint8_t*>(y), threads,
            [&](const LinearRow& row) { run(row, in, out); });
}

void resize_bilinear_f32(const float* x, int64_t batch, int64_t h, int64_t w, int64_t c, const LinearTaps& rows,
                         const LinearTaps& cols, float* y, Isa isa, int threads) {
  check_level("resize_bilinear_f32", isa);
  over_rows("resize_bilinear_f32", x, batch, h, w, c, rows, cols, y, threads, pick(kBilinear, isa));
}

}  // namespace lowbit
