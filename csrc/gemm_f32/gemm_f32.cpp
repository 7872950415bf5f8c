// The product's door: packing, and the walk over bands of rows that stay in the L2 cache while B passes in strips.
#include "lowbit/gemm_f32.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>

#include "gemm_f32/gemm_f32_packed.h"
#include "scratch.h"
#include "target.h"
#include "thread_pool.h"
#include "variant.h"

namespace lowbit {
namespace {

constexpr Variant<StripFn> kStrips[] = {
#if LOWBIT_X86
    {Isa::avx512_vnni, gemm_f32_strip_avx512_vnni},
    {Isa::avx2, gemm_f32_strip_avx2},
#endif
    {Isa::scalar, gemm_f32_strip_scalar}};

constexpr int64_t kBandBytes = 256 << 10;
constexpr int64_t kTileRows = 14;

[[noreturn]] void fail(const char* function, const std::string& what) {
  throw std::invalid_argument(std::string(function) + ": " + what);
}

// Rows that are a multiple of 2 KB apart fall into two sets of the L1 cache: more than it holds of a tile's 14.
bool rows_collide(int64_t lda) { return lda * sizeof(float) % 2048 == 0; }

}  // namespace

StripFn pick_strip_f32(Isa isa) { return pick(kStrips, isa); }

void check_finish_f32(const char* function, const EpilogueF32& e, int64_t n) {
  if (e.residual && e.residual_stride < n) {
    fail(function, "residual_stride is " + std::to_string(e.residual_stride) + ", a row has " + std::to_string(n));
  }
  if (!(e.lo <= e.hi)) fail(function, "clamp from " + std::to_string(e.lo) + " to " + std::to_string(e.hi));
}

FinishF32 finish_f32(const EpilogueF32& e, int64_t row, int64_t column) {
  return {e.bias ? e.bias + column : nullptr, e.residual ? e.residual + row * e.residual_stride + column : nullptr,
          e.residual_stride, e.lo, e.hi};
}

int64_t PackedF32::k() const noexcept { return data ? data->k : 0; }
int64_t PackedF32::n() const noexcept { return data ? data->n : 0; }
int64_t PackedF32::bytes() const noexcept { return data ? int64_t(data->panels.size() * sizeof(float)) : 0; }

PackedF32 pack_f32(const float* b, int64_t k, int64_t n, int64_t row_stride, int64_t col_stride) {
  int64_t size;
  if (k < 0 || n < 0 || n > int64_t{1} << 40 || __builtin_mul_overflow(k, n + kPanelF32, &size) ||
      size > int64_t{1} << 46) {
    fail("pack_f32", "k = " + std::to_string(k) + ", n = " + std::to_string(n));
  }
  auto data = std::make_shared<PackedF32::Data>();
  data->k = k;
  data->n = n;
  data->panels.resize((n + kPanelF32 - 1) / kPanelF32 * kPanelF32 * k);
  float* out = data->panels.data();
  for (int64_t first = 0; first < n; first += kPanelF32) {
    const int64_t columns = std::min(kPanelF32, n - first);
    for (int64_t p = 0; p < k; ++p, out += kPanelF32) {
      for (int64_t j = 0; j < columns; ++j) out[j] = b[p * row_stride + (first + j) * col_stride];
    }
  }
  PackedF32 packed;
  packed.data = std::move(data);
  return packed;
}

void gemm_f32(const float* a, int64_t m, int64_t lda, const PackedF32& b, float* c, int64_t ldc,
              const EpilogueF32& epilogue, Isa isa, int threads) {
  const int64_t k = b.k(), n = b.n();
  if (!b.data) fail("gemm_f32", "b is empty: it was not packed");
  if (m < 0) fail("gemm_f32", "m is " + std::to_string(m));
  if (m > 1 && lda < k) fail("gemm_f32", "lda is " + std::to_string(lda) + ", k is " + std::to_string(k));
  if (m > 1 && ldc < n) fail("gemm_f32", "ldc is " + std::to_string(ldc) + ", n is " + std::to_string(n));
  check_finish_f32("gemm_f32", epilogue, n);
  threads = resolve_threads(threads);
  if (m == 0 || n == 0) return;

  const StripFn strip = pick(kStrips, isa);
  const int64_t strips = (n + kStripColumnsF32 - 1) / kStripColumnsF32;
  const int64_t band =
      std::max(kTileRows, kBandBytes / int64_t(sizeof(float)) / std::max<int64_t>(k, 1) / kTileRows * kTileRows);
  const bool copy = m >= 8 && strips >= 4 && rows_collide(lda);
  const int64_t copy_stride = k + kPanelF32;

  parallel_rows_or_strips(threads, m, kTileRows, strips,
                          [&](int64_t begin, int64_t end, int64_t first_strip, int64_t last_strip) {
                            for (int64_t i = begin; i < end; i += band) {
                              const int64_t rows = std::min(band, end - i), zero = 0;
                              const float* rows_of_a = a + i * lda;
                              if (copy) {
                                float* copied = scratch<float>(ScratchSlot::a_panel, size_t(rows * copy_stride));
                                for (int64_t r = 0; r < rows; ++r)
                                  std::memcpy(copied + r * copy_stride, rows_of_a + r * lda, size_t(k) * sizeof(float));
                                rows_of_a = copied;
                              }
                              for (int64_t q = first_strip; q < last_strip; ++q) {
                                const int64_t j = q * kStripColumnsF32;
                                strip({.a = rows_of_a,
                                       .row_step = copy ? copy_stride : lda,
                                       .rows = rows,
                                       .run_offset = &zero,
                                       .runs = 1,
                                       .run_length = k,
                                       .b = b.data->panels.data() + j * k,
                                       .columns = std::min(kStripColumnsF32, n - j),
                                       .c = c + i * ldc + j,
                                       .ldc = ldc,
                                       .finish = finish_f32(epilogue, i, j)});
                              }
                            }
                          });
}

}  // namespace lowbit
