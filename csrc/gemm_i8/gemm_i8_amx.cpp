// tdpbusd: 16 x 16 sums over 64 bytes in 16 cycles, whatever the number of rows used. Blocks of four accumulator tiles,
// 2 x 2 where the shape allows (two loads from either side for four products), 1 x 4 for few rows, 4 x 1 for one panel.
//
// A block's epilogue runs two blocks later, after each chunk but the first: one in short pieces between single products
// lost 15 %. Products and float operations share port 5, so with few chunks their times add up. A run's chunks are all
// of one length (96 bytes are 2 x 48, not 64 + 32), so that one tile configuration serves a call. A tile row that
// crosses a cache line costs three cycles more. Lost: fewer rows configured for the last tile (a product costs
// max(rows, K / 4) cycles); at 2048^3 into int32, where C is the bound, fetching its lines for writing a block ahead,
// and streaming stores (both level).
#include "gemm_i8/gemm_i8_kernel.h"
#include "gemm_i8/tile_codes_avx512.h"
#include "requantize/requantize_avx512.h"
#include "target.h"

#if LOWBIT_X86
#include <immintrin.h>
#include <stdint.h>

LOWBIT_TARGET_BEGIN_AMX

namespace lowbit {
namespace {

constexpr int kTileRows = 16;
constexpr int kBlockValues = 4 * kTileRows * kPanel;

struct TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t column_bytes[16] = {};
  uint8_t rows[16] = {};
};

// Accumulators 0-3; the other four hold A or B: `a_tiles` of them, from 4 on, A.
static inline void configure(int a_tiles, int chunk) {
  TileConfig config;
  for (int t = 0; t < 8; ++t) {
    const bool is_b = t >= 4 + a_tiles;
    config.rows[t] = (uint8_t)(is_b ? chunk / 4 : kTileRows);
    config.column_bytes[t] = (uint16_t)(t < 4 || is_b ? 64 : chunk);
  }
  __asm__ volatile("ldtilecfg %0" ::"m"(config));
}

template <int kTile>
static inline void load(const void* from, int64_t stride) {
  __asm__ volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(stride), "i"(kTile) : "memory");
}

template <int kTile>
static inline void store(void* to, int64_t stride) {
  __asm__ volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(to), "r"(stride), "i"(kTile) : "memory");
}

template <int kSum, int kA, int kB>
static inline void multiply(void) {
  __asm__ volatile("tdpbusd %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(kSum), "i"(kA), "i"(kB));
}

// What one block of kR x kC tiles reads.
struct Operands {
  const uint8_t* a[4];
  int64_t lda[4];
  const int8_t* b[4];
  const int32_t* init[4];
};

// A block whose sums are in tiles or stored, and whose epilogue is still to run.
struct Block {
  int32_t* sums;  // [row][kC * 16]
  bool in_tiles = false;
  int32_t* direct = nullptr;  // where int32 sums go without an epilogue
  const uint8_t* rows;        // the rows of it that are output pixels, in order
  uint8_t row_numbers[128];
  int count = 0;  // of rows
  int done = 0;   // rows finished
  int64_t i = 0;  // first output row
  int64_t j = 0, cols = 0;
};

// Blocks of kR x kC tiles. While block b is multiplied, block b - 1 goes from the tiles to memory and block b - 2
// through the epilogue: what a tile store wrote cannot be loaded until it has left the store buffer.
template <int kR, int kC, bool kResidual, Finish kFinish>
class Sweep {
 public:
  Sweep(const GemmI8& g, int32_t* sums) : g_(g), q_(*g.requantizer), e_(codes_avx512(q_)) {
    for (int r = 0; r < 64; ++r) in_order_[r] = (uint8_t)r;
    for (int k = 0; k < 3; ++k) blocks_[k].sums = sums + (k & 1) * kBlockValues;
    fast_ = finish_of(q_, true) != Finish::any && !g.row_term;
    direct_ = q_.out_dtype == DType::s32 && !g.row_term;
    chunk_ = g.chunk;
    chunks_ = (int)(g.run_pad / chunk_);
    panel_bytes_ = g.panel_bytes();
    const int64_t later = g.runs * chunks_ - 1;  // chunks but the first
    quota_ = fast_ && later > 0 ? (4 / kC) * (int)((kUnits + later - 1) / later) : 0;
  }

  // Virtual rows [v0, v1) of panels [p0, p1).
  void run(int64_t v0, int64_t v1, int64_t p0, int64_t p1) {
    configure(kR == 4 ? 3 : kR, (int)chunk_);
    constexpr int64_t kStay = 24576;  // bytes of B that stay in L1 while A passes by
    if ((p1 - p0) * panel_bytes_ <= kStay) {
      for (int64_t v = v0; v < v1; v += kRows) {
        for (int64_t p = p0; p < p1; p += kC) block(v, v1, p, p1);
      }
    } else {
      for (int64_t p = p0; p < p1; p += kC) {
        for (int64_t v = v0; v < v1; v += kRows) block(v, v1, p, p1);
      }
    }
    finish_rest(*pending_);
    if (held_->in_tiles) {
      store_quarter<0>(), store_quarter<1>(), store_quarter<2>(), store_quarter<3>();
      finish_rest(*held_);
    }
  }

 private:
  static constexpr int64_t kRows = kR * kTileRows, kWidth = kC * kPanel;
  static constexpr int kUnits = kBlockValues / 64;

  const uint8_t* row(int64_t v, int64_t* lda) const {
    const int64_t tail = g_.tail_row - g_.first_row;
    *lda = v < tail ? g_.lda : g_.tail_lda;
    return v < tail ? g_.a + v * g_.lda : g_.tail + (v - tail) * g_.tail_lda;
  }

  void block(int64_t v, int64_t v1, int64_t p, int64_t p1) {
    Operands o;
#pragma GCC unroll 4
    for (int r = 0; r < kR; ++r) {  // beyond the end: the first one again, not used
      const int64_t at = v + r * kTileRows;
      o.a[r] = row(at < v1 ? at : v, &o.lda[r]);
    }
#pragma GCC unroll 4
    for (int c = 0; c < kC; ++c) {
      const int64_t at = p + c < p1 ? p + c : p;
      o.b[c] = g_.b + at * panel_bytes_;
      o.init[c] = g_.init + at * kPanel;
    }
    note(*next_, v, v1, p, p1);
    int64_t a = g_.run_offset[0], b = 0;
    first_quarter<0>(o, a), first_quarter<1>(o, a), first_quarter<2>(o, a), first_quarter<3>(o, a);
    int s = 1;
    for (int64_t t = 0;;) {
      for (; s < chunks_; ++s) {
        a += chunk_, b += chunk_ * kPanel;
        quarter<0>(o, a, b), quarter<1>(o, a, b), quarter<2>(o, a, b), quarter<3>(o, a, b);
        finish_codes(*pending_, quota_);
      }
      if (++t == g_.runs) break;
      s = 0;
      a = g_.run_offset[t] - chunk_;
    }
    finish_rest(*pending_);
    Block* spare = pending_;
    pending_ = held_;
    held_ = next_;
    next_ = spare;
    held_->sums = spare->sums;
  }

  // The kQ-th product of a chunk and the loads that come before it; loads and products alternate.
  template <int kQ>
  inline __attribute__((always_inline)) void quarter(const Operands& o, int64_t a, int64_t b) {
    if constexpr (kR == 2) {
      if constexpr (kQ == 0) load<6>(o.b[0] + b, 64), load<4>(o.a[0] + a, o.lda[0]), multiply<0, 4, 6>();
      if constexpr (kQ == 1) load<7>(o.b[1] + b, 64), multiply<1, 4, 7>();
      if constexpr (kQ == 2) load<5>(o.a[1] + a, o.lda[1]), multiply<2, 5, 6>();
      if constexpr (kQ == 3) multiply<3, 5, 7>();
    } else if constexpr (kR == 1) {
      if constexpr (kQ == 0) load<4>(o.a[0] + a, o.lda[0]), load<5>(o.b[0] + b, 64), multiply<0, 4, 5>();
      if constexpr (kQ == 1) load<6>(o.b[1] + b, 64), multiply<1, 4, 6>();
      if constexpr (kQ == 2) load<7>(o.b[2] + b, 64), multiply<2, 4, 7>();
      if constexpr (kQ == 3) load<5>(o.b[3] + b, 64), multiply<3, 4, 5>();
    } else {
      if constexpr (kQ == 0) load<7>(o.b[0] + b, 64), load<4>(o.a[0] + a, o.lda[0]), multiply<0, 4, 7>();
      if constexpr (kQ == 1) load<5>(o.a[1] + a, o.lda[1]), multiply<1, 5, 7>();
      if constexpr (kQ == 2) load<6>(o.a[2] + a, o.lda[2]), multiply<2, 6, 7>();
      if constexpr (kQ == 3) load<4>(o.a[3] + a, o.lda[3]), multiply<3, 4, 7>();
    }
  }

  // The same for a block's first chunk: the tile is freed of the previous block and starts from init.
  template <int kQ>
  inline __attribute__((always_inline)) void first_quarter(const Operands& o, int64_t a) {
    if (held_->in_tiles) store_quarter<kQ>();
    load<kQ>(o.init[kQ % kC], 0);
    quarter<kQ>(o, a, 0);
  }

  template <int kQ>
  inline __attribute__((always_inline)) void store_quarter() {
    const int64_t stride = held_->direct ? g_.ldc : kWidth;
    int32_t* to = held_->direct ? held_->direct : held_->sums;
    store<kQ>(to + kQ / kC * kTileRows * stride + kQ % kC * kPanel, stride * 4);
  }

  // Which of a block's rows are output pixels.
  void note(Block& n, int64_t v, int64_t v1, int64_t p, int64_t p1) {
    const int rows = (int)(v1 - v < kRows ? v1 - v : kRows);
    n.done = 0;
    n.j = p * kPanel;
    n.in_tiles = true;
    n.direct = nullptr;
    const int64_t end = p1 * kPanel < g_.n ? p1 * kPanel : g_.n;
    n.cols = end - n.j < kWidth ? end - n.j : kWidth;
    if (g_.virtual_w == g_.out_w) {
      n.i = g_.first_row + v;
      n.rows = in_order_;
      n.count = rows;
      if (direct_ && rows == kRows && n.cols == kWidth) {
        n.direct = (int32_t*)g_.c + n.i * g_.ldc + n.j;
        n.count = 0;
      }
      return;
    }
    const int64_t y = v / g_.virtual_w, x = v - y * g_.virtual_w;
    n.i = g_.first_row + y * g_.out_w + (x < g_.out_w ? x : g_.out_w);
    n.rows = n.row_numbers;
    n.count = 0;
    for (int64_t start = -x; start < rows; start += g_.virtual_w) {  // rows of pixels that the block meets
      const int begin = (int)(start > 0 ? start : 0), stop = (int)(start + g_.out_w < rows ? start + g_.out_w : rows);
      if (stop <= begin) continue;
      _mm512_storeu_si512(n.row_numbers + n.count, _mm512_loadu_si512(in_order_ + begin));
      n.count += stop - begin;
    }
  }

  // Up to `rows` rows of a stored block.
  inline __attribute__((always_inline)) void finish_codes(Block& n, int rows) {
    const int left = n.count - n.done;
    if (rows > left) rows = left;
    if (rows <= 0) return;
    TileCodes t;
    t.sums = n.sums;
    t.rows = n.rows + n.done;
    t.to = (uint8_t*)g_.c + (n.i + n.done) * g_.ldc + n.j;
    t.residual = kResidual ? residual_codes_avx512(q_, n.i + n.done, n.j) : t.to;
    t.j = n.j;
    t.cols = n.cols;
    tile_codes_avx512<kC, kResidual, kFinish>(e_, q_, g_.ldc, t, rows);
    n.done += rows;
  }

  __attribute__((noinline)) void finish_rest(Block& n) {
    if (n.count > n.done && fast_) finish_codes(n, n.count - n.done);
    if (!fast_) finish_plain(n);
    n.count = n.done = 0;
    n.in_tiles = false;
  }

  // Any epilogue, by stretches of rows that follow each other.
  void finish_plain(Block& n) {
    for (int t = 0; g_.row_term && t < n.count; ++t) {
      const __m512i term = _mm512_set1_epi32(g_.row_term[n.i - g_.first_row + t]);
      for (int c = 0; c < kC; ++c) {
        int32_t* sums = n.sums + n.rows[t] * kWidth + c * kPanel;
        _mm512_store_si512(sums, _mm512_add_epi32(_mm512_load_si512(sums), term));
      }
    }
    for (int t = 0; t < n.count;) {
      int rows = 1;
      while (t + rows < n.count && n.rows[t + rows] == n.rows[t] + rows) ++rows;
      requantize_rows_avx512(n.sums + n.rows[t] * kWidth, kWidth, n.i + t, rows, n.j, n.cols, g_.c, g_.ldc, q_);
      t += rows;
    }
  }

  const GemmI8& g_;
  const Requantizer& q_;
  const CodesAvx512 e_;
  bool fast_;    // codes by tile_codes_avx512.h, no row terms
  bool direct_;  // int32 outputs without row terms: whole blocks go from the tiles to their place
  int chunks_, quota_;
  int64_t chunk_, panel_bytes_;
  uint8_t in_order_[128];  // 0..63
  Block blocks_[3];
  Block *next_ = blocks_, *held_ = blocks_ + 1, *pending_ = blocks_ + 2;
};

template <int kR, int kC, Finish kFinish>
static void sweep(const GemmI8& g, int32_t* sums, int64_t v0, int64_t v1, int64_t p0, int64_t p1) {
  g.requantizer->residual ? Sweep<kR, kC, true, kFinish>(g, sums).run(v0, v1, p0, p1)
                          : Sweep<kR, kC, false, kFinish>(g, sums).run(v0, v1, p0, p1);
}

template <int kR, int kC>
static void sweep(const GemmI8& g, int32_t* sums, int64_t v0, int64_t v1, int64_t p0, int64_t p1) {
  switch (finish_of(*g.requantizer, true)) {
    case Finish::floor:
      return sweep<kR, kC, Finish::floor>(g, sums, v0, v1, p0, p1);
    case Finish::fixed:
      return sweep<kR, kC, Finish::fixed>(g, sums, v0, v1, p0, p1);
    default:  // Finish::any has its own way
      return sweep<kR, kC, Finish::floats>(g, sums, v0, v1, p0, p1);
  }
}

}  // namespace

void gemm_i8_amx(const GemmI8& g, int64_t i0, int64_t i1, int64_t p0, int64_t p1) noexcept {
  alignas(64) int32_t sums[2 * kBlockValues];
  const int64_t v0 = g.virtual_row(i0), v1 = g.virtual_row(i1 - 1) + 1;
  if (v1 - v0 <= kTileRows) {
    sweep<1, 4>(g, sums, v0, v1, p0, p1);
  } else {
    const int64_t paired = p0 + (p1 - p0) / 2 * 2;
    if (paired > p0) sweep<2, 2>(g, sums, v0, v1, p0, paired);
    if (paired < p1) sweep<4, 1>(g, sums, v0, v1, paired, p1);
  }
  __asm__ volatile("tilerelease");
}

}  // namespace lowbit

LOWBIT_TARGET_END

#endif
