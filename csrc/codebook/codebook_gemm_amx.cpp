// tdpbssd: 16 rows x 16 channels x 64 columns in 16 cycles. Four panels of a codebook group are decoded to int8 (L2),
// in the order of B tiles, then all rows pass by in blocks of 2 x 2 tiles, or 1 x 4 for at most 16 rows.
#include "codebook/codebook_kernel.h"
#include "codebook/codebook_tiles_avx512.h"
#include "target.h"

#if LOWBIT_X86
#include <immintrin.h>
#include <stdint.h>

LOWBIT_TARGET_BEGIN_AMX

namespace lowbit {
namespace {

constexpr int64_t kTogether = 4;    // panels
constexpr int64_t kStreamRows = 7;  // at most, for which vpdpbusd on indices is faster (8: 194 against 219 GMAC/s)
constexpr int64_t kTileRows = 16, kTileBytes = 1024, kTileColumns = 64;

struct TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t column_bytes[16] = {};
  uint8_t rows[16] = {};
};

static inline void configure(void) {
  TileConfig config;
  for (int t = 0; t < 8; ++t) {
    config.rows[t] = kTileRows;
    config.column_bytes[t] = 64;
  }
  __asm__ volatile("ldtilecfg %0" ::"m"(config));
}

template <int kTile>
static inline void load(const void* from, int64_t stride) {
  __asm__ volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(stride), "i"(kTile) : "memory");
}

template <int kTile>
static inline void store(void* to) {
  __asm__ volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(to), "r"((int64_t)64), "i"(kTile) : "memory");
}

template <int kTile>
static inline void zero(void) {
  __asm__ volatile("tilezero %%tmm%c0" ::"i"(kTile));
}

template <int kSum, int kA, int kB>
static inline void multiply(void) {
  __asm__ volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(kSum), "i"(kA), "i"(kB));
}

// Rows [i, i + rows), rows <= 16 kRows, of decoded panels p .. p + kPanels - 1, over one group.
template <int kRows, int kPanels>
static void block(const CodebookI8& c, int64_t i, int64_t rows, int64_t p, int64_t g, const uint8_t* b,
                  int64_t chunks) {
  zero<0>(), zero<1>(), zero<2>(), zero<3>();
  const int8_t* a = c.x + i * c.ldx + g * c.w.group_blocks * kBlockColumns;
  const int8_t* lower = a + kTileRows * c.ldx;
  const int64_t panel = chunks * kTileBytes;
  for (int64_t s = 0; s < chunks; ++s, a += kTileColumns, lower += kTileColumns, b += kTileBytes) {
    load<4>(a, c.ldx);
    if constexpr (kRows == 2) {
      load<6>(b, 64), multiply<0, 4, 6>();
      if constexpr (kPanels == 2) load<7>(b + panel, 64), multiply<1, 4, 7>();
      load<5>(lower, c.ldx), multiply<2, 5, 6>();
      if constexpr (kPanels == 2) multiply<3, 5, 7>();
    } else {
      load<5>(b, 64), multiply<0, 4, 5>();
      if constexpr (kPanels == 4) {
        load<6>(b + panel, 64), multiply<1, 4, 6>();
        load<7>(b + 2 * panel, 64), multiply<2, 4, 7>();
        load<5>(b + 3 * panel, 64), multiply<3, 4, 5>();
      }
    }
  }
  alignas(64) int32_t sums[4][kTileRows][kChannels];
  store<0>(sums[0]), store<1>(sums[1]), store<2>(sums[2]), store<3>(sums[3]);
  for (int q = 0; q < kPanels; ++q) {
    const __m512 scale = panel_scale(c, p + q, g);
    for (int64_t r = 0; r < rows; ++r) {
      const int tile = kRows == 2 ? (int)(r / kTileRows) * 2 + q : q;
      const __m512i sum = _mm512_load_si512(sums[tile][r % kTileRows]);
      add_total(c, i + r, p + q, g, _mm512_mul_ps(_mm512_cvtepi32_ps(sum), scale));
    }
  }
}

}  // namespace

void codebook_i8_amx(const CodebookI8& c, int64_t i0, int64_t i1, int64_t p0, int64_t p1) noexcept {
  if (i1 - i0 <= kStreamRows) return codebook_i8_avx512(c, i0, i1, p0, p1);
  const TiledIndices& w = c.w;
  configure();
  for (int64_t p = p0; p < p1; p += kTogether) {
    const int64_t panels = p1 - p < kTogether ? p1 - p : kTogether;
    for (int64_t g = 0; g < w.groups; ++g) {
      const int64_t blocks = (w.columns(g) + kBlockColumns - 1) / kBlockColumns, chunks = (blocks + 1) / 2;
      for (int64_t q = 0; q < panels; ++q) {
        uint8_t* out = c.work + q * chunks * kTileBytes;
        decode_panel(c, p + q, g, 0, out);
        if (blocks % 2) __builtin_memset(out + blocks * 512, 0, 512);
      }
      int64_t i = i0;
      for (; i1 - i > kTileRows; i += 2 * kTileRows) {
        const int64_t rows = i1 - i < 2 * kTileRows ? i1 - i : 2 * kTileRows;
        for (int64_t q = 0; q < panels; q += 2) {
          const uint8_t* b = c.work + q * chunks * kTileBytes;
          if (q + 1 < panels) block<2, 2>(c, i, rows, p + q, g, b, chunks);
          if (q + 1 == panels) block<2, 1>(c, i, rows, p + q, g, b, chunks);
        }
      }
      if (i >= i1) continue;
      if (panels == 4) {
        block<1, 4>(c, i, i1 - i, p, g, c.work, chunks);
      } else {
        for (int64_t q = 0; q < panels; ++q) {
          block<1, 1>(c, i, i1 - i, p + q, g, c.work + q * chunks * kTileBytes, chunks);
        }
      }
    }
  }
  __asm__ volatile("tilerelease");
}

}  // namespace lowbit

LOWBIT_TARGET_END

#endif
