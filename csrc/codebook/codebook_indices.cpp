// Dense indices: packing, unpacking, and decoding to values.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <stdexcept>

#include "codebook/codebook_packed.h"
#include "thread_pool.h"

namespace lowbit {
namespace codebook {

void fail(const char* function, const std::string& what) {
  throw std::invalid_argument(std::string(function) + ": " + what);
}

void check_indices(const char* function, int64_t n, int64_t k, int bits) {
  int64_t size;
  if (n < 0 || k < 0 || __builtin_mul_overflow(n, k, &size) || size > int64_t{1} << 46 || n > int64_t{1} << 40 ||
      k > int64_t{1} << 40) {
    fail(function, "indices of " + std::to_string(n) + " x " + std::to_string(k));
  }
  if (bits < 1 || bits > 8) fail(function, "bits is " + std::to_string(bits) + ", must be 1 to 8");
}

template <typename T>
void check_codebook(const char* function, int64_t n, int64_t k, int bits, const Codebook<T>& c) {
  if (c.entries < 1 || c.entries > int64_t{1} << bits) {
    fail(function, "the codebook has " + std::to_string(c.entries) + " entries, " + std::to_string(bits) +
                       " bits allow 1 to " + std::to_string(1 << bits));
  }
  if (c.per > CodebookPer::columns) fail(function, "codebook per " + std::to_string(static_cast<int>(c.per)));
  if (c.per == CodebookPer::columns && c.group_size < 1) {
    fail(function, "group_size is " + std::to_string(c.group_size) + ", must be at least 1");
  }
  if constexpr (std::is_floating_point_v<T>) {
    for (int64_t t = 0; t < c.rows(n, k) * c.entries; ++t) {
      if (std::isfinite(c.values[t])) continue;
      fail(function, "codebook entry " + std::to_string(t % c.entries) + " of row " + std::to_string(t / c.entries) +
                         " is " + std::to_string(c.values[t]) + ", must be finite");
    }
  }
}
template void check_codebook<float>(const char*, int64_t, int64_t, int, const Codebook<float>&);
template void check_codebook<int8_t>(const char*, int64_t, int64_t, int, const Codebook<int8_t>&);

}  // namespace codebook

namespace {

using codebook::fail;

// Indices between places where all threads may begin: 8 of them end with a byte at any width.
constexpr int64_t kGrain = 1 << 14;

constexpr auto kIdentity = [] {
  struct {
    int8_t values[256] = {};
  } t;
  for (int v = 0; v < 256; ++v) t.values[v] = static_cast<int8_t>(v);
  return t;
}();

// Rows of 2^bits entries, zeros behind the codebook's own.
template <typename T>
std::vector<T> whole_tables(const Codebook<T>& c, int64_t rows, int bits) {
  const int64_t size = int64_t{1} << bits;
  std::vector<T> tables(static_cast<size_t>(rows * size));
  for (int64_t r = 0; r < rows; ++r) std::copy_n(c.values + r * c.entries, c.entries, tables.data() + r * size);
  return tables;
}

void unpack(const uint8_t* packed, int64_t first, int64_t count, int bits, uint8_t* out, Isa isa) {
  codebook::variants(isa).decode_i8({packed, first, count, kIdentity.values, reinterpret_cast<int8_t*>(out)}, bits);
}

void check_within(const uint8_t* packed, int64_t n, int64_t k, int bits, int64_t entries, Isa isa) {
  uint8_t some[4096];
  for (int64_t first = 0; first < n * k; first += sizeof(some)) {
    const int64_t count = std::min<int64_t>(sizeof(some), n * k - first);
    unpack(packed, first, count, bits, some, isa);
    if (*std::max_element(some, some + count) < entries) continue;
    const int64_t t = first + (std::find_if(some, some + count, [&](uint8_t v) { return v >= entries; }) - some);
    fail("codebook_decode", "index " + std::to_string(some[t - first]) + " at (" + std::to_string(t / k) + ", " +
                                std::to_string(t % k) + ") is beyond the codebook of " + std::to_string(entries));
  }
}

template <typename T>
void decode(const uint8_t* packed, int64_t n, int64_t k, int bits, const Codebook<T>& c, T* out, Isa isa, int threads,
            DecodeFn<T> fn) {
  constexpr const char* kName = "codebook_decode";
  codebook::check_indices(kName, n, k, bits);
  codebook::check_codebook(kName, n, k, bits, c);
  threads = resolve_threads(threads);
  if (n * k == 0) return;
  if (c.entries < int64_t{1} << bits) check_within(packed, n, k, bits, c.entries, isa);
  const bool whole = c.entries == int64_t{1} << bits;
  const std::vector<T> filled = whole ? std::vector<T>() : whole_tables(c, c.rows(n, k), bits);
  const T* tables = whole ? c.values : filled.data();
  if (c.per == CodebookPer::tensor) {
    parallel_for(threads, n * k, kGrain,
                 [&](int64_t begin, int64_t end) { fn({packed, begin, end - begin, tables, out + begin}, bits); });
    return;
  }
  const int64_t group = c.per == CodebookPer::columns ? c.group_size : k;
  parallel_for(threads, n, std::max<int64_t>(1, kGrain / k), [&](int64_t begin, int64_t end) {
    for (int64_t j = begin; j < end; ++j) {
      for (int64_t p = 0; p < k; p += group) {
        const int64_t row = c.per == CodebookPer::channel ? j : p / group, first = j * k + p;
        fn({packed, first, std::min(group, k - p), tables + (row << bits), out + first}, bits);
      }
    }
  });
}

}  // namespace

int64_t index_bytes(int64_t count, int bits) {
  codebook::check_indices("index_bytes", 1, count, bits);
  return (count * bits + 7) / 8;
}

void pack_indices(const uint8_t* indices, int64_t count, int bits, uint8_t* packed) {
  codebook::check_indices("pack_indices", 1, count, bits);
  const int limit = 1 << bits;
  uint32_t word = 0;
  int filled = 0;
  for (int64_t t = 0; t < count; ++t) {
    if (indices[t] >= limit) {
      fail("pack_indices", "index " + std::to_string(indices[t]) + " at " + std::to_string(t) + " needs more than " +
                               std::to_string(bits) + " bits");
    }
    word |= uint32_t{indices[t]} << filled;
    filled += bits;
    if (filled >= 8) {
      *packed++ = static_cast<uint8_t>(word);
      word >>= 8;
      filled -= 8;
    }
  }
  if (filled > 0) *packed = static_cast<uint8_t>(word);
}

void unpack_indices(const uint8_t* packed, int64_t count, int bits, uint8_t* indices, Isa isa, int threads) {
  codebook::check_indices("unpack_indices", 1, count, bits);
  parallel_for(resolve_threads(threads), count, kGrain,
               [&](int64_t begin, int64_t end) { unpack(packed, begin, end - begin, bits, indices + begin, isa); });
}

void codebook_decode(const uint8_t* packed, int64_t n, int64_t k, int bits, const Codebook<float>& codebook, float* out,
                     Isa isa, int threads) {
  decode(packed, n, k, bits, codebook, out, isa, threads, codebook::variants(isa).decode_f32);
}

void codebook_decode(const uint8_t* packed, int64_t n, int64_t k, int bits, const Codebook<int8_t>& codebook,
                     int8_t* out, Isa isa, int threads) {
  decode(packed, n, k, bits, codebook, out, isa, threads, codebook::variants(isa).decode_i8);
}

}  // namespace lowbit
