// tdpbusd: 16 x 16 sums over 64 bytes in 16 cycles, whatever the number of rows used. Blocks of four accumulator tiles,
// 2 x 2 where the shape allows (two loads from either side for four products), 1 x 4 for few rows, 4 x 1 for one panel.
//
// A finished block is stored to a buffer in L1, and its epilogue runs in pieces between the next block's products,
// which leave the vector units idle. A run's chunks are all of one length (96 bytes are 2 x 48, not 64 + 32), so that
// one tile configuration serves a call. Tile rows that cross a cache line cost 5 times as much as others: see aligned
// copies in place_rows(). Lost: fewer rows configured for the last tile (a product costs max(rows, K / 4) cycles).
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
};

// One chunk of a block. Loads and products alternate so that a product never waits for more than one load.
template <int kR, int kC>
static inline void chunk_step(const Operands& o, int64_t a, int64_t b) {
  if constexpr (kR == 2) {
    load<6>(o.b[0] + b, 64);
    load<4>(o.a[0] + a, o.lda[0]);
    multiply<0, 4, 6>();
    load<7>(o.b[1] + b, 64);
    multiply<1, 4, 7>();
    load<5>(o.a[1] + a, o.lda[1]);
    multiply<2, 5, 6>();
    multiply<3, 5, 7>();
  } else if constexpr (kR == 1) {
    load<4>(o.a[0] + a, o.lda[0]);
    load<5>(o.b[0] + b, 64);
    multiply<0, 4, 5>();
    load<6>(o.b[1] + b, 64);
    multiply<1, 4, 6>();
    load<7>(o.b[2] + b, 64);
    multiply<2, 4, 7>();
    load<5>(o.b[3] + b, 64);
    multiply<3, 4, 5>();
  } else {
    load<7>(o.b[0] + b, 64);
    load<4>(o.a[0] + a, o.lda[0]);
    multiply<0, 4, 7>();
    load<5>(o.a[1] + a, o.lda[1]);
    multiply<1, 5, 7>();
    load<6>(o.a[2] + a, o.lda[2]);
    multiply<2, 6, 7>();
    load<4>(o.a[3] + a, o.lda[3]);
    multiply<3, 4, 7>();
  }
}

// A finished block whose epilogue is still to run.
struct Pending {
  int32_t* sums;      // [row][kC * 16]
  uint8_t rows[128];  // the rows of it that are output pixels, in order
  int count = 0;      // of them
  int done = 0;       // rows of them finished
  int64_t i = 0;      // first output row
  int64_t j = 0, cols = 0;
};

class Worker {
 public:
  Worker(const GemmI8& g, int32_t* sums) : g_(g), q_(*g.requantizer), e_(codes_avx512(q_)) {
    pending_[0].sums = sums;
    pending_[1].sums = sums + kBlockValues;
    const bool codes = q_.out_dtype == DType::s8 || q_.out_dtype == DType::u8;
    fast_ = codes && q_.rounding == Rounding::nearest_even;
    direct_ = q_.out_dtype == DType::s32 && !g_.row_term && g_.virtual_w == g_.out_w;
    chunk_ = (int)g.chunk();
    chunks_ = (int)(g.run_pad / chunk_);
    const int64_t steps = g.runs * chunks_, units = kBlockValues / kCodesUnit;
    quota_ = steps < units ? (int)((units + steps - 1) / (steps > 0 ? steps : 1)) : 1;
    for (int r = 0; r < 64; ++r) in_order_[r] = (uint8_t)r;
  }

  // Virtual rows [v0, v1) of panels [p0, p1).
  template <int kR, int kC>
  void sweep(int64_t v0, int64_t v1, int64_t p0, int64_t p1) {
    configure(kR == 1 ? 1 : kR == 2 ? 2 : 3, chunk_);
    const int64_t rows = kR * kTileRows;
    // Whichever side is small stays in L1 under the other.
    if ((p1 - p0) * g_.panel_bytes() <= kStay) {
      for (int64_t v = v0; v < v1; v += rows) {
        for (int64_t p = p0; p < p1; p += kC) block<kR, kC>(v, v1, p, p1);
      }
    } else {
      for (int64_t p = p0; p < p1; p += kC) {
        for (int64_t v = v0; v < v1; v += rows) block<kR, kC>(v, v1, p, p1);
      }
    }
    for (int turns = 0; turns < 2; ++turns, turn_ ^= 1) finish<kC>(64);
  }

 private:
  static constexpr int64_t kStay = 24576;

  const uint8_t* row(int64_t v, int64_t* lda) const {
    const int64_t tail = g_.tail_row - g_.first_row;
    *lda = v < tail ? g_.lda : g_.tail_lda;
    return v < tail ? g_.a + v * g_.lda : g_.tail + (v - tail) * g_.tail_lda;
  }

  template <int kR, int kC>
  void block(int64_t v, int64_t v1, int64_t p, int64_t p1) {
    Operands o;
    for (int r = 0; r < kR; ++r) {  // beyond the end: the first one again, not used
      const int64_t at = v + r * kTileRows;
      o.a[r] = row(at < v1 ? at : v, &o.lda[r]);
    }
    for (int c = 0; c < kC; ++c) o.b[c] = g_.b + (p + c < p1 ? p + c : p) * g_.panel_bytes();
    const int32_t* init = g_.init + p * kPanel;
    const int64_t step = kC == 1 || p + 1 >= p1 ? 0 : kPanel;
    if constexpr (kC == 1) {
      load<0>(init, 0), load<1>(init, 0), load<2>(init, 0), load<3>(init, 0);
    } else if constexpr (kC == 2) {
      load<0>(init, 0), load<1>(init + step, 0), load<2>(init, 0), load<3>(init + step, 0);
    } else {
      load<0>(init, 0), load<1>(init + step, 0);
      load<2>(p + 2 < p1 ? init + 2 * kPanel : init, 0), load<3>(p + 3 < p1 ? init + 3 * kPanel : init, 0);
    }
    const int64_t chunk_bytes = (int64_t)chunk_ * kPanel;
    const int quota = quota_ * (4 / kC);
    int64_t b = 0;
    for (int64_t t = 0; t < g_.runs; ++t) {
      int64_t a = g_.run_offset[t];
      for (int s = 0; s < chunks_; ++s, a += chunk_, b += chunk_bytes) {
        chunk_step<kR, kC>(o, a, b);
        if (fast_) finish_codes<kC>(quota);
      }
    }
    if constexpr (kR == 2 && kC == 2) {
      if (direct_ && v + 2 * kTileRows <= v1 && (p + 2) * kPanel <= g_.n) {
        int32_t* c = (int32_t*)g_.c + (g_.first_row + v) * g_.ldc + p * kPanel;
        int32_t* below = c + kTileRows * g_.ldc;
        store<0>(c, g_.ldc * 4), store<1>(c + kPanel, g_.ldc * 4);
        store<2>(below, g_.ldc * 4), store<3>(below + kPanel, g_.ldc * 4);
        return;
      }
    }
    finish<kC>(64);
    int32_t* to = pending_[turn_].sums;
    if constexpr (kC == 1) {
      store<0>(to, 64), store<1>(to + 256, 64), store<2>(to + 512, 64), store<3>(to + 768, 64);
    } else if constexpr (kC == 2) {
      store<0>(to, 128), store<1>(to + 16, 128), store<2>(to + 512, 128), store<3>(to + 528, 128);
    } else {
      store<0>(to, 256), store<1>(to + 16, 256), store<2>(to + 32, 256), store<3>(to + 48, 256);
    }
    note<kR, kC>(v, v1, p, p1);
    turn_ ^= 1;
  }

  // Which of the block's rows are output pixels.
  template <int kR, int kC>
  void note(int64_t v, int64_t v1, int64_t p, int64_t p1) {
    const int rows = (int)(v1 - v < kR * kTileRows ? v1 - v : kR * kTileRows);
    Pending& n = pending_[turn_];
    n.done = 0;
    n.j = p * kPanel;
    const int64_t end = p1 * kPanel < g_.n ? p1 * kPanel : g_.n;
    n.cols = end - n.j < kC * kPanel ? end - n.j : kC * kPanel;
    n.count = 0;
    if (g_.virtual_w == g_.out_w) {
      n.i = g_.first_row + v;
      add_rows(0, rows);
    } else {
      const int64_t y = v / g_.virtual_w, x = v - y * g_.virtual_w;
      n.i = g_.first_row + y * g_.out_w + (x < g_.out_w ? x : g_.out_w);
      for (int64_t start = -x; start < rows; start += g_.virtual_w) {  // rows of pixels that the block meets
        const int64_t end = start + g_.out_w;
        add_rows((int)(start > 0 ? start : 0), (int)(end < rows ? end : rows));
      }
    }
    if (g_.row_term) {
      for (int t = 0; t < n.count; ++t) {
        int32_t* sums = n.sums + n.rows[t] * (kC * kPanel);
        const __m512i term = _mm512_set1_epi32(g_.row_term[n.i - g_.first_row + t]);
        for (int c = 0; c < kC * kPanel; c += 16) {
          _mm512_storeu_si512(sums + c, _mm512_add_epi32(_mm512_loadu_si512(sums + c), term));
        }
      }
    }
  }

  void add_rows(int begin, int end) {
    Pending& n = pending_[turn_];
    if (end <= begin) return;
    _mm512_storeu_si512(n.rows + n.count, _mm512_loadu_si512(in_order_ + begin));
    n.count += end - begin;
  }

  // Up to `rows` rows of the pending block.
  template <int kC>
  void finish(int rows) {
    if (fast_) {
      finish_codes<kC>(rows);
      return;
    }
    Pending& p = pending_[turn_];
    for (int t = 0; t < p.count;) {  // stretches of rows that follow each other in the buffer
      int n = 1;
      while (t + n < p.count && p.rows[t + n] == p.rows[t] + n) ++n;
      requantize_rows_avx512(p.sums + p.rows[t] * (kC * kPanel), kC * kPanel, p.i + t, n, p.j, p.cols, g_.c, g_.ldc,
                             q_);
      t += n;
    }
    p.count = 0;
  }

  template <int kC>
  inline __attribute__((always_inline)) void finish_codes(int rows) {
    Pending& n = pending_[turn_];
    const int left = n.count - n.done;
    if (rows > left) rows = left;
    if (rows <= 0) return;
    TileCodes t;
    t.sums = n.sums;
    t.rows = n.rows + n.done;
    t.to = (uint8_t*)g_.c + (n.i + n.done) * g_.ldc + n.j;
    t.residual = t.to;
    t.scale = q_.scale + n.j * q_.scale_step;
    t.cols = n.cols;
    if (q_.residual) {
      t.residual = residual_codes_avx512(q_, n.i + n.done, n.j);
      tile_codes_avx512<kC, true>(e_, g_, (int)q_.scale_step, t, rows);
    } else {
      tile_codes_avx512<kC, false>(e_, g_, (int)q_.scale_step, t, rows);
    }
    n.done += rows;
  }

  const GemmI8& g_;
  const Requantizer& q_;
  const CodesAvx512 e_;
  bool fast_;
  bool direct_;  // int32 outputs go from the tiles to their place
  int chunk_, chunks_;
  int quota_;              // units of the pending block to finish with each chunk
  uint8_t in_order_[128];  // 0..63
  // The block finished during this one is the last but one: what a tile store wrote cannot be loaded until it has left
  // the store buffer.
  Pending pending_[2];
  int turn_ = 0;
};

}  // namespace

void gemm_i8_amx(const GemmI8& g, int64_t i0, int64_t i1, int64_t p0, int64_t p1) noexcept {
  alignas(64) int32_t sums[2 * kBlockValues];
  Worker w(g, sums);
  const int64_t v0 = g.virtual_row(i0), v1 = g.virtual_row(i1 - 1) + 1;
  if (v1 - v0 <= kTileRows) {
    w.sweep<1, 4>(v0, v1, p0, p1);
  } else {
    const int64_t paired = p0 + (p1 - p0) / 2 * 2;
    if (paired > p0) w.sweep<2, 2>(v0, v1, p0, paired);
    if (paired < p1) w.sweep<4, 1>(v0, v1, paired, p1);
  }
  __asm__ volatile("tilerelease");
}

}  // namespace lowbit

LOWBIT_TARGET_END

#endif
