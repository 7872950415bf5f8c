// The tiled form: indices taken as they come, a row at a time.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <utility>
#include <vector>

#include "codebook/codebook_packed.h"
#include "thread_pool.h"

namespace lowbit {
namespace {

using codebook::fail;
constexpr const char* kName = "pack_codebook";

// 32 indices of one channel into their block: the quads are 32-bit words, whose four bytes shift together.
template <int kBits>
void tile_block(const uint8_t* indices, uint8_t* block) {
  constexpr IndexPlanes planes = index_planes(kBits);
  uint32_t quads[kQuads];
  std::memcpy(quads, indices, sizeof(quads));
  int bit = 0;
  for (int t = 0; t < planes.count; ++t) {
    const int width = planes.width[t], per_byte = 8 / width;
    const uint32_t mask = 0x01010101u * ((1u << width) - 1);
    for (int v = 0; v < width; ++v, block += 64) {
      uint32_t word = 0;
      for (int s = 0; s < per_byte; ++s) word |= (quads[v * per_byte + s] >> bit & mask) << (width * s);
      std::memcpy(block, &word, sizeof(word));
    }
    bit += width;
  }
}

using TileFn = void (*)(const uint8_t*, uint8_t*);
constexpr TileFn kTile[] = {nullptr,       tile_block<1>, tile_block<2>, tile_block<3>, tile_block<4>,
                            tile_block<5>, tile_block<6>, tile_block<7>, tile_block<8>};

}  // namespace

struct CodebookPacker::State {
  std::shared_ptr<PackedCodebook::Data> data;
  int64_t entries = 0, taken = 0;
  std::vector<uint8_t> row;

  // The next `count` indices are in `row` behind those of it that were there.
  void took(int64_t count) {
    PackedCodebook::Data& d = *data;
    uint8_t* fresh = row.data() + taken % d.k;
    if (entries < int64_t{1} << d.bits) {
      const uint8_t* wrong = std::find_if(fresh, fresh + count, [&](uint8_t v) { return v >= entries; });
      if (wrong != fresh + count) {
        const int64_t t = taken + (wrong - fresh);
        fail(kName, "index " + std::to_string(*wrong) + " at (" + std::to_string(t / d.k) + ", " +
                        std::to_string(t % d.k) + ") is beyond the codebook of " + std::to_string(entries));
      }
    }
    taken += count;
    if (taken % d.k == 0) tile_row(taken / d.k - 1, row.data());
  }

  // All indices at once, if all are in the codebook: whole panels, by several threads.
  bool took_all(const uint8_t* indices, int64_t count) {
    const PackedCodebook::Data& d = *data;
    if (taken > 0 || count == 0 || count != d.n * d.k) return false;
    uint8_t top = 0;
    for (int64_t t = 0; t < count; ++t) top = std::max(top, indices[t]);
    if (top >= entries) return false;
    parallel_for(resolve_threads(0), (d.n + kChannels - 1) / kChannels,
                 std::max<int64_t>(1, (1 << 16) / d.k / kChannels), [&](int64_t begin, int64_t end) {
                   const int64_t last = std::min(end * kChannels, d.n);
                   for (int64_t j = begin * kChannels; j < last; ++j) tile_row(j, indices + j * d.k);
                 });
    taken = count;
    return true;
  }

  void tile_row(int64_t j, const uint8_t* indices) const {
    PackedCodebook::Data& d = *data;
    uint8_t* tile = d.tiles.data() + j / kChannels * d.blocks * 64 * d.bits + j % kChannels * 4;
    for (int64_t g = 0; g < d.groups; ++g) {
      const uint8_t* from = indices + g * d.group_size;
      for (int64_t left = std::min(d.group_size, d.k - g * d.group_size); left > 0; left -= kBlockColumns) {
        uint8_t last[kBlockColumns] = {};
        if (left < kBlockColumns) from = static_cast<uint8_t*>(std::memcpy(last, from, static_cast<size_t>(left)));
        kTile[d.bits](from, tile);
        from += kBlockColumns;
        tile += 64 * d.bits;
      }
    }
  }

  // Calls take(at, t, some): indices t.. of the chunk, `some` of them, belong at `at`.
  template <typename Take>
  void append(const char* function, int64_t count, Take&& take) {
    const PackedCodebook::Data& d = *data;
    if (count < 0 || count > d.n * d.k - taken) {
      fail(function, std::to_string(taken) + " indices and " + std::to_string(count) + " more, n * k is " +
                         std::to_string(d.n * d.k));
    }
    for (int64_t t = 0; t < count;) {
      const int64_t some = std::min(count - t, d.k - taken % d.k);
      take(row.data() + taken % d.k, t, some);
      took(some);
      t += some;
    }
  }
};

CodebookPacker::CodebookPacker(int64_t n, int64_t k, int bits, const Codebook<float>& c)
    : state_(std::make_unique<State>()) {
  codebook::check_indices(kName, n, k, bits);
  codebook::check_codebook(kName, n, k, bits, c);
  auto data = std::make_shared<PackedCodebook::Data>();
  PackedCodebook::Data& d = *data;
  d.n = n;
  d.k = k;
  d.bits = bits;
  d.per = c.per;
  d.group_size = c.per == CodebookPer::columns ? std::min(c.group_size, k) : k;
  d.groups = c.per == CodebookPer::columns ? std::max<int64_t>(c.rows(n, k), 1) : 1;
  d.group_blocks = (d.group_size + kBlockColumns - 1) / kBlockColumns;
  const int64_t last = k - (d.groups - 1) * d.group_size;
  d.blocks = (d.groups - 1) * d.group_blocks + (last + kBlockColumns - 1) / kBlockColumns;
  const int64_t panels = (n + kChannels - 1) / kChannels, size = int64_t{1} << bits;
  // A codebook row's int32 sums, 127 * 127 at most a column.
  if (d.group_size > INT32_MAX / (127 * 127)) {
    fail(kName, std::to_string(d.group_size) + " columns of one codebook, int32 sums allow " +
                    std::to_string(INT32_MAX / (127 * 127)));
  }
  d.tiles.resize(static_cast<size_t>(panels * d.blocks * 64 * bits));
  const int64_t rows = c.rows(n, k), padded = c.per == CodebookPer::channel ? panels * kChannels : d.groups;
  d.table.resize(static_cast<size_t>(padded * size));
  d.table_i8.resize(static_cast<size_t>(padded * size));
  d.scale.resize(static_cast<size_t>(padded));
  std::vector<int8_t> q(static_cast<size_t>(rows * c.entries));
  quantize_codebook(c, rows, q.data(), d.scale.data());
  for (int64_t r = 0; r < rows; ++r) {
    std::copy_n(c.values + r * c.entries, c.entries, d.table.data() + r * size);
    std::copy_n(q.data() + r * c.entries, c.entries, d.table_i8.data() + r * size);
  }
  state_->data = std::move(data);
  state_->entries = c.entries;
  state_->row.resize(static_cast<size_t>(k));
}

CodebookPacker::CodebookPacker(CodebookPacker&&) noexcept = default;
CodebookPacker::~CodebookPacker() = default;

void CodebookPacker::append(const uint8_t* indices, int64_t count) {
  if (!state_) fail(kName, "the packer has been finished");
  if (state_->took_all(indices, count)) return;
  const int bits = state_->data->bits;
  state_->append(kName, count, [&](uint8_t* at, int64_t t, int64_t some) {
    uint8_t all = 0;
    for (int64_t s = 0; s < some; ++s) all |= at[s] = indices[t + s];
    if (all >> bits) {
      const auto* wrong = std::find_if(at, at + some, [&](uint8_t v) { return v >> bits; });
      fail(kName, "index " + std::to_string(*wrong) + " at " + std::to_string(state_->taken + (wrong - at)) +
                      " needs more than " + std::to_string(bits) + " bits");
    }
  });
}

void CodebookPacker::append_packed(const uint8_t* packed, int64_t count) {
  if (!state_) fail(kName, "the packer has been finished");
  const int bits = state_->data->bits;
  const DecodeFn<int8_t> unpack = codebook::variants(best_isa()).decode_i8;
  std::array<int8_t, 256> same;
  for (int v = 0; v < 256; ++v) same[static_cast<size_t>(v)] = static_cast<int8_t>(v);
  state_->append(kName, count, [&](uint8_t* at, int64_t t, int64_t some) {
    unpack({packed, t, some, same.data(), reinterpret_cast<int8_t*>(at)}, bits);
  });
}

PackedCodebook CodebookPacker::finish() {
  if (!state_) fail(kName, "the packer has been finished");
  const PackedCodebook::Data& d = *state_->data;
  if (state_->taken != d.n * d.k) {
    fail(kName, std::to_string(state_->taken) + " indices came, n * k is " + std::to_string(d.n * d.k));
  }
  PackedCodebook packed;
  packed.data = std::move(state_->data);
  state_.reset();
  return packed;
}

int64_t PackedCodebook::n() const noexcept { return data ? data->n : 0; }
int64_t PackedCodebook::k() const noexcept { return data ? data->k : 0; }
int PackedCodebook::bits() const noexcept { return data ? data->bits : 0; }
CodebookPer PackedCodebook::per() const noexcept { return data ? data->per : CodebookPer::tensor; }
int64_t PackedCodebook::bytes() const noexcept {
  if (!data) return 0;
  return static_cast<int64_t>(data->tiles.size() + data->table.size() * sizeof(float) + data->table_i8.size() +
                              data->scale.size() * sizeof(float));
}

PackedCodebook pack_codebook(const uint8_t* packed, int64_t n, int64_t k, int bits, const Codebook<float>& codebook) {
  CodebookPacker packer(n, k, bits, codebook);
  packer.append_packed(packed, n * k);
  return packer.finish();
}

void quantize_codebook(const Codebook<float>& c, int64_t rows, int8_t* q, float* scale) {
  for (int64_t r = 0; r < rows; ++r, q += c.entries) {
    const float* v = c.values + r * c.entries;
    double top = 0;
    bool whole = true;
    for (int64_t t = 0; t < c.entries; ++t) {
      top = std::max(top, std::abs(static_cast<double>(v[t])));
      whole = whole && v[t] == std::nearbyint(v[t]);
    }
    const double step = top == 0 ? 0 : whole && top <= 127 ? 1 : top / 127;
    scale[r] = static_cast<float>(step);
    for (int64_t t = 0; t < c.entries; ++t) {
      q[t] = static_cast<int8_t>(step > 0 ? std::nearbyint(static_cast<double>(v[t]) / step) : 0);
    }
  }
}

}  // namespace lowbit
