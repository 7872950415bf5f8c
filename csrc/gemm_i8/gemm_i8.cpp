#include "lowbit/gemm_i8.h"

#include "gemm_i8/gemm_i8_plan.h"
#include "thread_pool.h"

namespace lowbit {

struct PackedI8::Data {
  Panels panels;
};

int64_t PackedI8::k() const noexcept { return data ? data->panels.run_bytes : 0; }
int64_t PackedI8::n() const noexcept { return data ? data->panels.n : 0; }
DType PackedI8::dtype() const noexcept { return data ? data->panels.dtype : DType::s8; }
int64_t PackedI8::bytes() const noexcept { return data ? data->panels.bytes() : 0; }

PackedI8 pack_i8(const void* b, DType dtype, int64_t k, int64_t n, int64_t row_stride, int64_t col_stride) {
  constexpr const char* kName = "pack_i8";
  constexpr int64_t kMost = int64_t{1} << 40;
  if (dtype != DType::s8 && dtype != DType::u8)
    fail(kName, std::string("b is ") + dtype_name(dtype) + ", must be int8 or uint8");
  if (k < 0 || n < 0) fail(kName, "k = " + std::to_string(k) + ", n = " + std::to_string(n) + " must be >= 0");
  if (k > kMost || n > kMost || (k > 0 && n > kMost / k)) {
    fail(kName, "k * n = " + std::to_string(k) + " * " + std::to_string(n) + " is more than 2^40");
  }
  if (k > 0 && n > 0 && !b) fail(kName, "b is null");
  auto data = std::make_shared<PackedI8::Data>();
  data->panels = make_panels(dtype, 1, n, 1, k);
  fill_panels(data->panels, b, [=](int64_t, int64_t, int64_t p, int64_t j) { return p * row_stride + j * col_stride; });
  PackedI8 packed;
  packed.data = std::move(data);
  return packed;
}

void gemm_i8(const void* a, DType a_dtype, int64_t m, int64_t lda, int32_t a_zero_point, const PackedI8& b,
             int32_t b_zero_point, void* c, int64_t ldc, const Epilogue& epilogue, Isa isa, int threads) {
  constexpr const char* kName = "gemm_i8";
  if (!b.data) fail(kName, "b is not packed");
  const Panels& panels = b.data->panels;
  const int64_t k = panels.run_bytes, n = panels.n;
  if (m < 0) fail(kName, "m = " + std::to_string(m) + " must be >= 0");
  if (m > 1 && lda < k) fail(kName, "lda = " + std::to_string(lda) + " is less than k = " + std::to_string(k));
  if (m > 1 && ldc < n) fail(kName, "ldc = " + std::to_string(ldc) + " is less than n = " + std::to_string(n));
  const ZeroPoints z = check_operands(kName, a_dtype, a_zero_point, panels.dtype, b_zero_point, k);
  Requantizer q = make_requantizer(kName, epilogue, n, z.sum_limit);
  threads = resolve_threads(threads);
  if (m == 0 || n == 0) return;
  if (!c || (!a && k > 0)) fail(kName, "a or c is null");

  const int32_t* init = fold_columns(panels, z, q.bias);
  q.bias = nullptr;
  run_product(panels, {a, a_dtype, m, lda, z.b, init, c, ldc}, q, isa, threads);
}

}  // namespace lowbit
