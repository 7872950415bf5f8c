// The doors: entries to slices of sixteen channels, checks, how the work is shared out.
#include "lowbit/sparse.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

#include "scratch.h"
#include "sparse/sparse_kernel.h"
#include "target.h"
#include "thread_pool.h"
#include "variant.h"

namespace lowbit {
namespace {

constexpr int64_t kMaxColumns = 1 << 16;  // uint16 holds one

constexpr SparseVariant kScalar{sparse_row_scalar, sparse_panel_scalar};
#if LOWBIT_X86
constexpr SparseVariant kAvx2{sparse_row_avx2, sparse_panel_avx2};
constexpr SparseVariant kAvx512{sparse_row_avx512_vnni, sparse_panel_avx512_vnni};
#endif
constexpr Variant<const SparseVariant*> kVariants[] = {
#if LOWBIT_X86
    {Isa::avx512_vnni, &kAvx512},
    {Isa::avx2, &kAvx2},
#endif
    {Isa::scalar, &kScalar},
};

[[noreturn]] void fail(const char* function, const std::string& message) {
  throw std::invalid_argument(std::string(function) + ": " + message);
}

// NaN passes.
float finished(float v, const EpilogueCodebook& e, int64_t j) {
  if (e.bias) v += e.bias[j];
  v = v < e.lo ? e.lo : v;
  return v > e.hi ? e.hi : v;
}

}  // namespace

struct PackedSparse::Data {
  int64_t n = 0, k = 0, entries = 0, book_entries = 0;
  std::vector<float> codebook = std::vector<float>(256, 0.0f);
  std::vector<int32_t>
      channel;                  // of every lane; -1 behind the last. Sorted by count, so that a slice's lanes are alike
  std::vector<int32_t> counts;  // of every lane
  std::vector<int64_t> start;   // of a slice's steps, in entries
  std::vector<uint16_t> columns;  // padded with column 0
  std::vector<uint8_t> codes;

  int64_t slices() const { return static_cast<int64_t>(start.size()); }
  SparseSlice slice(int64_t i) const {
    return {columns.data() + start[i], codes.data() + start[i], counts.data() + i * kSparseLanes, codebook.data(),
            book_entries};
  }
};

int64_t PackedSparse::n() const noexcept { return data ? data->n : 0; }
int64_t PackedSparse::k() const noexcept { return data ? data->k : 0; }
int64_t PackedSparse::entries() const noexcept { return data ? data->entries : 0; }
int64_t PackedSparse::bytes() const noexcept {
  if (!data) return 0;
  return static_cast<int64_t>(data->columns.size() * 3 + (data->channel.size() + data->counts.size()) * 4 + 1024);
}

bool sparse_pays(int64_t m, int64_t n, int64_t k, int64_t entries, CodebookPer per) {
  if (per != CodebookPer::tensor || k > kMaxColumns) return false;
  // Where `bench/sparse.py --crossover` found both to take the same time (AVX-512; 256 to 4096 channels differ little):
  // m 1: 0.12 to 0.15, 4: 0.10 to 0.13, 8: 0.20, 12: 0.23, 16: 0.30 to 0.35, 64 and 256: 0.24 to 0.30. AVX2: later.
  const double density = m < 8 ? 0.13 : m < 16 ? 0.2 : 0.25;
  return static_cast<double>(entries) <= density * static_cast<double>(n) * static_cast<double>(k);
}

PackedSparse pack_sparse(const uint8_t* gaps, const uint8_t* codes, int64_t entries, int64_t n, int64_t k,
                         const Codebook<float>& codebook) {
  constexpr const char* kName = "pack_sparse";
  constexpr int64_t kMaxRows = int64_t{1} << 31;
  if (n < 0 || k < 0 || n >= kMaxRows || k > kMaxColumns) {
    fail(kName, std::to_string(n) + " x " + std::to_string(k) + " weights; k may be up to 65536, n below 2^31");
  }
  if (entries < 0) fail(kName, "entries is " + std::to_string(entries));
  if (codebook.per != CodebookPer::tensor || codebook.entries < 1 || codebook.entries > 256) {
    fail(kName, "needs one codebook of 1 to 256 entries, it has " + std::to_string(codebook.entries));
  }
  if (codebook.values[0] != 0) fail(kName, "codebook[0] is " + std::to_string(codebook.values[0]) + ", must be 0");
  auto data = std::make_shared<PackedSparse::Data>();
  data->n = n;
  data->k = k;
  data->book_entries = codebook.entries;
  std::copy_n(codebook.values, codebook.entries, data->codebook.data());

  std::vector<int32_t> counts(static_cast<size_t>(n), 0);
  const auto walk = [&](auto&& body) {  // (row, column, code) of every weight that is not code 0
    int64_t at = -1;
    for (int64_t e = 0; e < entries; ++e) {
      at += gaps[e] + 1;
      if (at >= n * k) {
        fail(kName, "entry " + std::to_string(e) + " lies at " + std::to_string(at) + ", beyond " +
                        std::to_string(n * k) + " weights");
      }
      if (codes[e] >= codebook.entries) {
        fail(kName, "entry " + std::to_string(e) + " has code " + std::to_string(codes[e]) + " in a codebook of " +
                        std::to_string(codebook.entries));
      }
      if (codes[e] != 0) body(at / k, at % k, codes[e]);
    }
  };
  walk([&](int64_t row, int64_t, uint8_t) {
    ++counts[row];
    ++data->entries;
  });

  const int64_t slices = (n + kSparseLanes - 1) / kSparseLanes, lanes = slices * kSparseLanes;
  data->channel.assign(static_cast<size_t>(lanes), -1);
  std::iota(data->channel.begin(), data->channel.begin() + n, 0);
  std::stable_sort(data->channel.begin(), data->channel.begin() + n,
                   [&](int32_t a, int32_t b) { return counts[a] > counts[b]; });
  data->counts.assign(static_cast<size_t>(lanes), 0);
  std::vector<int64_t> next(static_cast<size_t>(n));  // where a channel's next entry goes
  int64_t size = 0;
  for (int64_t s = 0; s < slices; ++s) {
    data->start.push_back(size);
    for (int64_t l = s * kSparseLanes; l < std::min(n, (s + 1) * kSparseLanes); ++l) {
      data->counts[l] = counts[data->channel[l]];
      next[data->channel[l]] = size + l % kSparseLanes;
    }
    size += data->counts[s * kSparseLanes] * kSparseLanes;
  }
  data->columns.assign(static_cast<size_t>(size), 0);
  data->codes.assign(static_cast<size_t>(size), 0);
  walk([&](int64_t row, int64_t column, uint8_t code) {
    data->columns[next[row]] = static_cast<uint16_t>(column);
    data->codes[next[row]] = code;
    next[row] += kSparseLanes;
  });
  PackedSparse packed;
  packed.data = std::move(data);
  return packed;
}

void sparse_gemm_f32(const float* x, int64_t m, int64_t ldx, const PackedSparse& w, float* y, int64_t ldy,
                     const EpilogueCodebook& epilogue, Isa isa, int threads) {
  constexpr const char* kName = "sparse_gemm_f32";
  if (!w.data) fail(kName, "w is empty: it was not packed");
  const PackedSparse::Data& d = *w.data;
  if (m < 0) fail(kName, "m is " + std::to_string(m));
  if (m > 1 && ldx < d.k) fail(kName, "ldx is " + std::to_string(ldx) + ", k is " + std::to_string(d.k));
  if (m > 1 && ldy < d.n) fail(kName, "ldy is " + std::to_string(ldy) + ", n is " + std::to_string(d.n));
  if (!(epilogue.lo <= epilogue.hi)) {
    fail(kName, "clamp from " + std::to_string(epilogue.lo) + " to " + std::to_string(epilogue.hi));
  }
  const SparseVariant& variant = *pick(kVariants, isa);
  threads = resolve_threads(threads);
  constexpr double kThreadWork = 5e4;  // products that pay for a thread
  threads = static_cast<int>(
      std::clamp<double>(static_cast<double>(m) * static_cast<double>(d.entries) / kThreadWork, 1, threads));

  constexpr int64_t kFewestRows = 3;  // that pay for a panel
  for (int64_t i = 0; i < m;) {
    const int64_t rows = m - i >= kFewestRows ? std::min(m - i, kSparseRows) : 1;
    const int64_t pitch = rows > 1 ? kSparseRows : 1;
    const float* values = x + i * ldx;
    if (rows > 1) {  // up to sixteen rows, each column's values together
      float* panel = scratch<float>(ScratchSlot::sparse_panel, static_cast<size_t>(d.k * kSparseRows));
      for (int64_t p = 0; p < d.k; ++p) {
        for (int64_t r = 0; r < rows; ++r) panel[p * kSparseRows + r] = values[r * ldx + p];
        for (int64_t r = rows; r < kSparseRows; ++r) panel[p * kSparseRows + r] = 0;
      }
      values = panel;
    }
    parallel_for(threads, d.slices(), 1, [&](int64_t begin, int64_t end) {
      float sums[kSparseLanes * kSparseRows];
      for (int64_t s = begin; s < end; ++s) {
        (rows > 1 ? variant.panel : variant.row)(d.slice(s), values, sums);
        for (int64_t l = 0; l < kSparseLanes; ++l) {
          const int32_t j = d.channel[s * kSparseLanes + l];
          if (j < 0) break;
          for (int64_t r = 0; r < rows; ++r) y[(i + r) * ldy + j] = finished(sums[l * pitch + r], epilogue, j);
        }
      }
    });
    i += rows;
  }
}

}  // namespace lowbit
