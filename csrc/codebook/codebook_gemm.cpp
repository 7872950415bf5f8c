// The products' doors: checks, codes of the activations, and how the work is shared out.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "codebook/codebook_packed.h"
#include "scratch.h"
#include "target.h"
#include "thread_pool.h"
#include "variant.h"

namespace lowbit {
namespace {

using codebook::fail;
using codebook::Variants;

constexpr Variants kScalar{codebook_decode_f32_scalar, codebook_decode_i8_scalar, codebook_f32_scalar,
                           codebook_i8_scalar,         codebook_peak_scalar,      codebook_codes_scalar};
#if LOWBIT_X86
constexpr Variants kAvx2{codebook_decode_f32_avx2, codebook_decode_i8_avx2, codebook_f32_avx2,
                         codebook_i8_avx2,         codebook_peak_avx2,      codebook_codes_avx2};
constexpr Variants kAvx512{codebook_decode_f32_avx512, codebook_decode_i8_avx512, codebook_f32_avx512,
                           codebook_i8_avx512,         codebook_peak_avx512,      codebook_codes_avx512};
constexpr Variants kAmx{codebook_decode_f32_avx512, codebook_decode_i8_avx512, codebook_f32_avx512, codebook_i8_amx,
                        codebook_peak_avx512,       codebook_codes_avx512};
#endif
constexpr Variant<const Variants*> kVariants[] = {
#if LOWBIT_X86
    {Isa::amx, &kAmx},
    {Isa::avx512, &kAvx512},
    {Isa::avx2, &kAvx2},
#endif
    {Isa::scalar, &kScalar}};

void check_product(const char* function, int64_t m, int64_t ldx, const PackedCodebook& w, int64_t ldy) {
  if (!w.data) fail(function, "w is empty: it was not packed");
  if (m < 0) fail(function, "m is " + std::to_string(m));
  if (m > 1 && ldx < w.k()) fail(function, "ldx is " + std::to_string(ldx) + ", k is " + std::to_string(w.k()));
  if (m > 1 && ldy < w.n()) fail(function, "ldy is " + std::to_string(ldy) + ", n is " + std::to_string(w.n()));
}

// body(i0, i1, p0, p1): by panels where there are enough, so that a thread decodes only its own, else by rows.
template <typename Body>
void share_out(int threads, int64_t m, int64_t panels, double macs, Body&& body) {
  constexpr int64_t kStep = 4;         // panels that go together
  constexpr double kThreadWork = 1e5;  // products that pay for a thread
  threads = static_cast<int>(std::clamp<double>(macs / kThreadWork, 1, threads));
  if (panels >= kStep * threads || m < 16 * threads) {
    parallel_for(threads, panels, panels >= 2 * kStep * threads ? kStep : 1,
                 [&](int64_t p0, int64_t p1) { body(int64_t{0}, m, p0, p1); });
  } else {
    parallel_for(threads, m, 16, [&](int64_t i0, int64_t i1) { body(i0, i1, int64_t{0}, panels); });
  }
}

}  // namespace

namespace codebook {

const Variants& variants(Isa isa) { return *pick(kVariants, isa); }

FinishCodebook finish(const char* function, const EpilogueCodebook& e) {
  if (!(e.lo <= e.hi)) fail(function, "clamp from " + std::to_string(e.lo) + " to " + std::to_string(e.hi));
  return {e.bias, e.lo, e.hi};
}

void run_f32(const PackedCodebook::Data& w, const float* x, int64_t m, int64_t ldx, float* y, int64_t ldy,
             const FinishCodebook& finish, Isa isa, int threads) {
  const CodebookF32 c{w.indices(), w.table.data(), x, ldx, y, ldy, finish, nullptr};
  share_out(threads, m, c.w.panels(), static_cast<double>(m) * static_cast<double>(w.n * w.k),
            [&](int64_t i0, int64_t i1, int64_t p0, int64_t p1) {
              CodebookF32 mine = c;
              const int64_t floats = f32_work_floats(i1 - i0);
              mine.work = scratch<float>(ScratchSlot::codebook_tile, static_cast<size_t>(floats));
              variants(isa).f32(mine, i0, i1, p0, p1);
            });
}

float code_scale(float peak, float x_scale) {
  if (x_scale > 0) return std::isnan(peak) ? peak : x_scale;
  if (!std::isfinite(peak)) return std::numeric_limits<float>::quiet_NaN();
  return peak < 0x1p-100f ? 0 : peak / 127;
}

float code_inverse(float peak, float x_scale) {
  if (x_scale > 0) return 1 / x_scale;
  return std::isfinite(peak) && peak >= 0x1p-100f ? 127 / peak : 0;
}

void check_x_scale(const char* function, float x_scale) {
  if (!(x_scale >= 0) || std::isinf(x_scale) || std::isinf(1 / x_scale) != (x_scale == 0)) {
    fail(function, "x_scale is " + std::to_string(x_scale) + ", must be positive and finite");
  }
}

void CodeRows::write(const PackedCodebook::Data& w, const Variants& v, const float* x, float inverse,
                     int8_t* codes) const {
  v.codes(x, w.k, inverse, codes);
  spread(w, codes);
}

void CodeRows::spread(const PackedCodebook::Data& w, int8_t* codes) const {
  int8_t* end = codes + pitch;
  for (int64_t g = w.groups - 1; g >= 0; --g) {  // from the last on, since groups only move back
    const int64_t first = g * w.group_size, count = std::min(w.group_size, w.k - first);
    int8_t* to = codes + g * w.group_blocks * kBlockColumns;
    std::memmove(to, codes + first, static_cast<size_t>(count));
    std::fill(to + count, end, int8_t{0});
    end = to;
  }
}

void run_i8(const PackedCodebook::Data& w, const int8_t* codes, const float* x_scale, int64_t m, float* y, int64_t ldy,
            const FinishCodebook& finish, Isa isa, int threads) {
  const CodebookI8 c{w.indices(), w.table_i8.data(), w.scale.data(), codes, CodeRows(w).pitch, x_scale, y, ldy, finish,
                     nullptr};
  share_out(threads, m, c.w.panels(), static_cast<double>(m) * static_cast<double>(w.n * w.k) / 4,
            [&](int64_t i0, int64_t i1, int64_t p0, int64_t p1) {
              CodebookI8 mine = c;
              const int64_t bytes = i8_work_bytes(w.group_size);
              mine.work = scratch<uint8_t>(ScratchSlot::codebook_tile, static_cast<size_t>(bytes));
              variants(isa).i8(mine, i0, i1, p0, p1);
            });
}

}  // namespace codebook

void codebook_gemm_f32(const float* x, int64_t m, int64_t ldx, const PackedCodebook& w, float* y, int64_t ldy,
                       const EpilogueCodebook& epilogue, Isa isa, int threads) {
  check_product("codebook_gemm_f32", m, ldx, w, ldy);
  const FinishCodebook finish = codebook::finish("codebook_gemm_f32", epilogue);
  threads = resolve_threads(threads);
  if (m > 0 && w.n() > 0) codebook::run_f32(*w.data, x, m, ldx, y, ldy, finish, isa, threads);
}

void codebook_gemm_i8(const float* x, int64_t m, int64_t ldx, float x_scale, const PackedCodebook& w, float* y,
                      int64_t ldy, const EpilogueCodebook& epilogue, Isa isa, int threads) {
  constexpr const char* kName = "codebook_gemm_i8";
  check_product(kName, m, ldx, w, ldy);
  codebook::check_x_scale(kName, x_scale);
  const FinishCodebook finish = codebook::finish(kName, epilogue);
  threads = resolve_threads(threads);
  if (m == 0 || w.n() == 0) return;
  const PackedCodebook::Data& d = *w.data;
  const codebook::CodeRows rows(d);
  int8_t* codes = scratch<int8_t>(ScratchSlot::codebook_codes, static_cast<size_t>(rows.bytes(m)));
  float* scales = scratch<float>(ScratchSlot::codebook_scales, static_cast<size_t>(m));
  const Variants& v = codebook::variants(isa);
  parallel_for(threads, m, std::max<int64_t>(1, (1 << 15) / (d.k + 1)), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const float* row = x + i * ldx;
      const float peak = v.peak(row, d.k);
      scales[i] = codebook::code_scale(peak, x_scale);
      rows.write(d, v, row, codebook::code_inverse(peak, x_scale), codes + i * rows.pitch);
    }
  });
  codebook::run_i8(d, codes, scales, m, y, ldy, finish, isa, threads);
}

}  // namespace lowbit
