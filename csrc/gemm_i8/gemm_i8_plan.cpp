#include "gemm_i8/gemm_i8_plan.h"

#include <algorithm>
#include <cstring>
#include <new>
#include <stdexcept>

#include "scratch.h"
#include "target.h"
#include "thread_pool.h"
#include "variant.h"

namespace lowbit {
namespace {

constexpr Variant<GemmI8Fn> kGemmI8[] = {
#if LOWBIT_X86
    {Isa::amx, gemm_i8_amx},
    {Isa::avx512_vnni, gemm_i8_avx512_vnni},
    {Isa::avx2, gemm_i8_avx2},
#endif
    {Isa::scalar, gemm_i8_scalar},
};

// Largest |v - zero_point| over the values of an 8-bit type; throws where zero_point is not one of them.
int64_t reach(const char* function, const char* operand, DType dtype, int32_t zero_point) {
  if (dtype != DType::s8 && dtype != DType::u8) {
    fail(function, std::string(operand) + " is " + dtype_name(dtype) + ", must be int8 or uint8");
  }
  const int32_t lo = dtype == DType::u8 ? 0 : -128, hi = lo + 255;
  if (zero_point < lo || zero_point > hi) {
    fail(function, std::string(operand) + "'s zero point " + std::to_string(zero_point) + " is not a value of " +
                       dtype_name(dtype));
  }
  return std::max(hi - zero_point, zero_point - lo);
}

// Rows [begin, end) of A where the kernels may read them in whole 64-byte steps: int8 is copied as uint8; of uint8 only
// the last rows are copied, whose steps would leave the caller's memory; for AMX all where rows lie a power of two
// apart, which crowds the 16 of a tile into a few sets of the cache, and are read often enough to pay for the copy.
void place_rows(GemmI8& g, const Product& product, int64_t begin, int64_t end, Isa isa) {
  const uint8_t* a = static_cast<const uint8_t*>(product.a);
  const int64_t m = product.m, lda = product.lda;
  const int64_t k = g.run_bytes, pad = g.run_pad;
  g.a = a;
  g.lda = lda;
  g.first_row = 0;
  g.out_w = g.virtual_w = m;
  const uint8_t flip = product.a_dtype == DType::s8 ? 0x80 : 0;
  int64_t from = begin;
  const bool crowded = isa >= Isa::amx && lda % 512 == 0 && g.n >= 256 && end - begin >= 32;
  if (!flip && !crowded) {
    // Row i may be read where i * lda + pad <= (m - 1) * lda + k, and tiles end with the matrix.
    const int64_t unsafe = lda > 0 ? (pad - k + lda - 1) / lda : m;
    from = std::max(begin, (m - std::min(m, unsafe)) / 16 * 16);
    if (from >= end) return;
  }
  const int64_t pitch = crowded ? pad + 64 : pad;
  uint8_t* copy = scratch<uint8_t>(ScratchSlot::a_panel, static_cast<size_t>(round_up(end - from, 16) * pitch));
  for (int64_t i = from; i < end; ++i) {
    const uint8_t* row = a + i * lda;
    uint8_t* to = copy + (i - from) * pitch;
    for (int64_t p = 0; p < k; ++p) to[p] = row[p] ^ flip;
  }
  g.tail = copy;
  g.tail_row = from;
  g.tail_lda = pitch;
}

}  // namespace

void fail(const char* function, const std::string& what) {
  throw std::invalid_argument(std::string(function) + ": " + what);
}

Panels make_panels(DType dtype, int64_t groups, int64_t n, int64_t runs, int64_t run_bytes) {
  Panels panels;
  panels.dtype = dtype;
  panels.groups = groups;
  panels.n = n;
  panels.runs = runs;
  panels.run_bytes = run_bytes;
  panels.real_k = runs * run_bytes;
  panels.chunk = run_chunk(run_bytes);
  panels.run_pad = run_chunks(run_bytes) * panels.chunk;
  const size_t bytes = static_cast<size_t>(groups * panels.group_bytes());
  panels.data.reset(static_cast<int8_t*>(std::aligned_alloc(64, std::max<size_t>(bytes, 64))));
  if (!panels.data) throw std::bad_alloc();
  std::memset(panels.data.get(), 0, bytes);
  panels.column_sums.resize(static_cast<size_t>(groups * panels.padded_n()));
  return panels;
}

void fill_panels_from_rows(Panels& panels, const uint8_t* b, int threads) {
  const int64_t row_bytes = panels.runs * panels.run_bytes, panel_bytes = panels.runs * panels.run_pad * kPanel;
  const uint32_t flip = panels.dtype == DType::u8 ? 0x80808080u : 0;
  const int64_t columns = panels.groups * panels.padded_n();
  parallel_for(threads, columns, kPanel, [&](int64_t first, int64_t last) {
    for (int64_t at = first; at < last; ++at) {
      const int64_t g = at / panels.padded_n(), j = at % panels.padded_n();
      if (j >= panels.n) continue;
      const uint8_t* row = b + (g * panels.n + j) * row_bytes;
      int8_t* column = panels.data.get() + g * panels.group_bytes() + j / kPanel * panel_bytes + j % kPanel * 4;
      int32_t sum = 0;
      for (int64_t p = 0; p < row_bytes; ++p) sum += as_s8(row[p], panels.dtype);
      panels.column_sums[static_cast<size_t>(at)] = sum;
      for (int64_t t = 0; t < panels.runs; ++t, row += panels.run_bytes, column += panels.run_pad * kPanel) {
        int64_t p = 0;
        for (; p + 4 <= panels.run_bytes; p += 4) {
          uint32_t four;
          std::memcpy(&four, row + p, 4);
          four ^= flip;
          std::memcpy(column + p * kPanel, &four, 4);
        }
        for (; p < panels.run_bytes; ++p) column[p / 4 * 4 * kPanel + p % 4] = as_s8(row[p], panels.dtype);
      }
    }
  });
}

ZeroPoints check_operands(const char* function, DType a_dtype, int32_t a_zero_point, DType b_dtype,
                          int32_t b_zero_point, int64_t k) {
  const int64_t a = reach(function, "a", a_dtype, a_zero_point), b = reach(function, "b", b_dtype, b_zero_point);
  const int64_t limit = INT32_MAX / (a * b);
  if (k > limit) {
    fail(function, "k = " + std::to_string(k) + " can overflow int32: |a - zero point| <= " + std::to_string(a) +
                       " and |b - zero point| <= " + std::to_string(b) + " allow k <= " + std::to_string(limit));
  }
  return {a_dtype == DType::s8 ? a_zero_point + 128 : a_zero_point,
          b_dtype == DType::u8 ? b_zero_point - 128 : b_zero_point, k * a * b};
}

const int32_t* fold_columns(const Panels& panels, ZeroPoints z, const int32_t* bias) {
  const int64_t padded = panels.padded_n();
  int32_t* init = scratch<int32_t>(ScratchSlot::columns, static_cast<size_t>(panels.groups * padded));
  const uint32_t both = static_cast<uint32_t>(panels.k()) * static_cast<uint32_t>(z.a) * static_cast<uint32_t>(z.b);
  const int32_t* sums = panels.column_sums.data();
  for (int64_t g = 0; g < panels.groups; ++g, init += padded, sums += padded) {
    for (int64_t j = 0; j < padded; ++j) {
      const uint32_t start = bias && j < panels.n ? static_cast<uint32_t>(bias[g * panels.n + j]) : 0;
      init[j] = static_cast<int32_t>(start - static_cast<uint32_t>(z.a) * static_cast<uint32_t>(sums[j]) + both);
    }
  }
  return init - panels.groups * padded;
}

const int32_t* fold_rows(const GemmI8& g, int64_t i0, int64_t i1, int32_t b_zero_point,
                         const std::vector<uint8_t>& no_weight) {
  if (b_zero_point == 0) return nullptr;
  int32_t* terms = scratch<int32_t>(ScratchSlot::row_sums, static_cast<size_t>(i1 - g.first_row));
  for (int64_t i = i0; i < i1; ++i) {
    const uint8_t* row = g.row(i);
    uint32_t sum = 0;
    for (int64_t t = 0; t < g.runs; ++t) {
      const uint8_t* run = row + g.run_offset[t];
      if (no_weight.empty()) {
        for (int64_t p = 0; p < g.run_bytes; ++p) sum += run[p];
      } else {
        for (int64_t p = 0; p < g.run_bytes; ++p) sum += no_weight[static_cast<size_t>(p)] ? 0 : run[p];
      }
    }
    terms[i - g.first_row] = static_cast<int32_t>(0u - static_cast<uint32_t>(b_zero_point) * sum);
  }
  return terms;
}

void lend_wide(GemmI8& g, int64_t i0, int64_t i1, int64_t panels, Isa isa) {
  constexpr int64_t kNear = 1 << 14;  // values of a panel that stay in L1
  g.wide = nullptr;
  if (isa != Isa::avx2 || g.runs == 0) return;
  const int64_t values = g.wide_rows(i0, i1), panel = g.wide_panel();
  const int64_t sums = (i1 - i0) * std::min(g.n, panels * kPanel);
  if (i1 - i0 < (panel > kNear ? 12 : 6) || values > 3 * sums * panel / (kPanel * kPanel)) return;
  g.wide = scratch<int16_t>(ScratchSlot::wide_values, static_cast<size_t>(panel + values));
}

GemmI8Fn gemm_i8_variant(Isa isa) { return pick(kGemmI8, isa); }

Split split_work(int threads, Isa isa, int64_t blocks, int64_t block_rows, int64_t panels, int64_t k) {
  // Nanoseconds on one core, roughly: products, epilogues, and the weights' way from memory. A thread is worth 2 us.
  const double per_product = isa >= Isa::amx ? 0.001 : isa >= Isa::avx512_vnni ? 0.003 : isa >= Isa::avx2 ? 0.02 : 1.0;
  constexpr double kPerOutput = 0.05, kPerWeight = 0.03, kThreadWork = 2000;
  const double rows = static_cast<double>(blocks * block_rows), columns = static_cast<double>(panels * kPanel);
  const double depth = static_cast<double>(k);
  const double work = rows * columns * (depth * per_product + kPerOutput) + columns * depth * kPerWeight;
  const int useful = static_cast<int>(std::clamp(work / kThreadWork, 1.0, static_cast<double>(threads)));
  const int64_t panel_pairs = (panels + 1) / 2;
  // By rows alone each thread finds its input in its own cache, where the layer before left it (5 % of a MobileNet with
  // two threads); but every thread reads all weights, which beyond 128 KB cost more than that.
  const bool by_rows = blocks >= useful && blocks * block_rows >= 64 * useful && panels * kPanel * k <= 1 << 17;
  Split best;
  int64_t best_cost = INT64_MAX;
  for (int row_parts = 1; row_parts <= useful; ++row_parts) {
    const int panel_parts = useful / row_parts;
    if (row_parts > blocks || panel_parts > panel_pairs) continue;
    if (by_rows && panel_parts > 1) continue;
    const int64_t r = (blocks + row_parts - 1) / row_parts * block_rows;
    const int64_t c = (panel_pairs + panel_parts - 1) / panel_parts * 2 * kPanel;
    const int64_t cost = r * c + 32 * (r + c);  // products of a thread, and the bytes of A and B that it reads
    if (cost < best_cost) {
      best_cost = cost;
      best = {row_parts, panel_parts};
    }
  }
  return best;
}

void run_product(const Panels& panels, const Product& product, const Requantizer& q, Isa isa, int threads) {
  GemmI8 g;
  const int64_t offset = 0;
  g.run_offset = &offset;
  g.runs = 1;
  g.run_bytes = panels.run_bytes;
  g.run_pad = panels.run_pad;
  g.chunk = panels.chunk;
  g.b = panels.data.get();
  g.init = product.init;
  g.n = panels.n;
  g.c = product.c;
  g.ldc = product.ldc;
  g.requantizer = &q;
  const GemmI8Fn fn = gemm_i8_variant(isa);
  constexpr int64_t kBlock = 16, kRowBytes = 1 << 19;
  const int64_t m = product.m;
  const Split split = split_work(threads, isa, (m + kBlock - 1) / kBlock, kBlock, g.panels(), g.run_bytes);
  parallel(split.parts(), [&](int part, int) {
    const int rp = part % split.row_parts, pp = part / split.row_parts;
    const int64_t i0 = part_begin(m, kBlock, rp, split.row_parts), i1 = part_begin(m, kBlock, rp + 1, split.row_parts);
    const int64_t p0 = part_begin(g.panels(), 2, pp, split.panel_parts),
                  p1 = part_begin(g.panels(), 2, pp + 1, split.panel_parts);
    if (i0 >= i1 || p0 >= p1) return;
    // Rows that stay in the L2 cache while all panels pass by.
    const int64_t row_bytes = isa == Isa::avx2 ? 2 * g.run_pad : g.run_pad;
    const int64_t rows = std::max(kBlock, kRowBytes / row_bytes / kBlock * kBlock);
    for (int64_t i = i0; i < i1; i += rows) {
      const int64_t end = std::min(i1, i + rows);
      GemmI8 mine = g;
      place_rows(mine, product, i, end, isa);
      mine.row_term = fold_rows(mine, i, end, product.b_zero_point, panels.no_weight);
      lend_wide(mine, i, end, p1 - p0, isa);
      fn(mine, i, end, p0, p1);
    }
  });
}

}  // namespace lowbit
