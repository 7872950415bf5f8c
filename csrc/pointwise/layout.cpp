// Doors: transpose, copy_2d. Moving bytes is bound by memory, so there are no levels: loops that the compiler
// vectorises.
#include <algorithm>
#include <cstring>
#include <utility>

#include "pointwise/pointwise_checks.h"
#include "thread_pool.h"

namespace lowbit {

using namespace pointwise;

namespace {

constexpr int kMaxRank = 8;

// One axis of the output: how many steps, and how far each goes in x and in y (elements).
struct Axis {
  int64_t size, from, to;
};

// The permutation without axes of one element and with axes that stay neighbours made one; in the output's order.
int simplify(const int64_t* dims, const int64_t* perm, int rank, Axis* axes) {
  int64_t stride[kMaxRank] = {}, step = 1;
  for (int i = rank - 1; i >= 0; --i) {
    stride[i] = step;
    step *= dims[i];
  }
  int n = 0;
  for (int i = 0; i < rank; ++i) {
    const Axis axis = {dims[perm[i]], stride[perm[i]], 0};
    if (axis.size == 1) continue;
    if (n > 0 && axes[n - 1].from == axis.from * axis.size) {
      axes[n - 1].size *= axis.size;
      axes[n - 1].from = axis.from;
    } else {
      axes[n++] = axis;
    }
  }
  step = 1;
  for (int i = n - 1; i >= 0; --i) {
    axes[i].to = step;
    step *= axes[i].size;
  }
  return n;
}

// A square of 16-byte vectors, N x N elements, transposed by log2(N) rounds of interleaving its first half with its
// second.
template <typename T>
struct Square {
  static constexpr int64_t kSize = 16 / sizeof(T);
  typedef T Vec __attribute__((vector_size(16)));

  // Elements `from` .. from + N / 2 of a and b in turn.
  template <int64_t from, size_t... I>
  static Vec interleave(Vec a, Vec b, std::index_sequence<I...>) {
    return __builtin_shufflevector(a, b, static_cast<int>(from + I / 2 + (I % 2) * kSize)...);
  }

  static void transpose(const T* x, int64_t x_step, T* y, int64_t y_step) {
    constexpr std::make_index_sequence<kSize> kAll;
    Vec v[kSize], w[kSize];
    for (int64_t i = 0; i < kSize; ++i) std::memcpy(&v[i], x + i * x_step, 16);
    for (int64_t round = 1; round < kSize; round *= 2) {
      for (int64_t i = 0; i < kSize / 2; ++i) {
        w[2 * i] = interleave<0>(v[i], v[i + kSize / 2], kAll);
        w[2 * i + 1] = interleave<kSize / 2>(v[i], v[i + kSize / 2], kAll);
      }
      std::memcpy(v, w, sizeof(v));
    }
    for (int64_t i = 0; i < kSize; ++i) std::memcpy(y + i * y_step, &v[i], 16);
  }
};

// y (rows, cols) = x, contiguous along rows in x and along cols in y.
template <typename T>
void transpose_plane(const T* x, int64_t rows, int64_t y_step, int64_t cols, int64_t x_step, T* y) {
  constexpr int64_t kSize = Square<T>::kSize;
  const int64_t full_rows = rows / kSize * kSize, full_cols = cols / kSize * kSize;
  for (int64_t c = 0; c < full_cols; c += kSize) {
    for (int64_t r = 0; r < full_rows; r += kSize) {
      Square<T>::transpose(x + c * x_step + r, x_step, y + r * y_step + c, y_step);
    }
  }
  for (int64_t c = 0; c < cols; ++c) {
    for (int64_t r = c < full_cols ? full_rows : 0; r < rows; ++r) y[r * y_step + c] = x[c * x_step + r];
  }
}

template <typename T>
void copy_line(const T* x, const Axis& axis, T* y) {
  if (axis.from == 1) {
    std::memcpy(y, x, static_cast<size_t>(axis.size) * sizeof(T));
  } else {
    for (int64_t i = 0; i < axis.size; ++i) y[i] = x[i * axis.from];
  }
}

template <typename T>
void permute(const void* x_bytes, const Axis* axes, int n, void* y_bytes, int threads) {
  const T* x = static_cast<const T*>(x_bytes);
  T* y = static_cast<T*>(y_bytes);
  // The plane that is moved at once: the output's last axis, and the axis that is contiguous in x where that is
  // another.
  const Axis last = axes[n - 1];
  int other = -1;
  for (int i = 0; i < n - 1; ++i) {
    if (axes[i].from == 1) other = i;
  }
  Axis rest[kMaxRank];
  int depth = 0;
  int64_t planes = 1;
  for (int i = 0; i < n - 1; ++i) {
    if (i == other) continue;
    rest[depth++] = axes[i];
    planes *= axes[i].size;
  }
  const Axis rows = other >= 0 ? axes[other] : Axis{1, 1, 1};
  // Both the planes and their rows are shared among the threads, in strips of 16 rows.
  constexpr int64_t kStrip = 16;
  const int64_t strips = (rows.size + kStrip - 1) / kStrip;
  const int64_t work = std::min(rows.size, kStrip) * last.size;
  parallel_for(threads, planes * strips, std::max<int64_t>(kGrain / work, 1), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      int64_t plane = i / strips, from = 0, to = 0;
      for (int d = depth - 1; d >= 0; --d) {
        from += plane % rest[d].size * rest[d].from;
        to += plane % rest[d].size * rest[d].to;
        plane /= rest[d].size;
      }
      const int64_t row = i % strips * kStrip;
      if (other >= 0) {
        transpose_plane(x + from + row, std::min(kStrip, rows.size - row), rows.to, last.size, last.from,
                        y + to + row * rows.to);
      } else {
        copy_line(x + from, last, y + to);
      }
    }
  });
}

// A row of a few cache lines costs less in plain 16-byte moves than in a call of memcpy.
void copy_row(const char* src, char* dst, int64_t bytes) {
  if (bytes > 512) {
    std::memcpy(dst, src, static_cast<size_t>(bytes));
    return;
  }
  for (; bytes >= 16; bytes -= 16, src += 16, dst += 16) std::memcpy(dst, src, 16);
  for (; bytes > 0; --bytes) *dst++ = *src++;
}

}  // namespace

void transpose(const void* x, const int64_t* dims, const int64_t* perm, int rank, int64_t size, void* y, int threads) {
  if (rank < 0 || rank > kMaxRank) fail("transpose", "rank " + std::to_string(rank) + " is not in 0..8");
  int64_t elements = size;
  unsigned seen = 0;
  for (int i = 0; i < rank; ++i) {
    if (perm[i] < 0 || perm[i] >= rank || (seen >> perm[i] & 1u)) {
      fail("transpose",
           "perm[" + std::to_string(i) + "] = " + std::to_string(perm[i]) + " does not make a permutation");
    }
    seen |= 1u << perm[i];
    elements = check_product("transpose", elements, dims[i], 1);
  }
  const int team = resolve_threads(threads);
  if (size != 1 && size != 2 && size != 4 && size != 8) {
    fail("transpose", "elements of " + std::to_string(size) + " bytes; 1, 2, 4 and 8 are known");
  }
  if (elements == 0) return;
  Axis axes[kMaxRank + 1];
  int n = simplify(dims, perm, rank, axes);
  if (n == 0) axes[n++] = {1, 1, 1};
  switch (size) {
    case 1:
      return permute<uint8_t>(x, axes, n, y, team);
    case 2:
      return permute<uint16_t>(x, axes, n, y, team);
    case 4:
      return permute<uint32_t>(x, axes, n, y, team);
    default:
      return permute<uint64_t>(x, axes, n, y, team);
  }
}

void copy_2d(const void* src, int64_t src_stride, void* dst, int64_t dst_stride, int64_t rows, int64_t row_bytes,
             int threads) {
  check_product("copy_2d", rows, row_bytes, 1);
  const int team = resolve_threads(threads);
  if (row_bytes == 0) return;
  parallel_for(team, rows, std::max<int64_t>(4 * kGrain / row_bytes, 1), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      copy_row(static_cast<const char*>(src) + i * src_stride, static_cast<char*>(dst) + i * dst_stride, row_bytes);
    }
  });
}

}  // namespace lowbit
