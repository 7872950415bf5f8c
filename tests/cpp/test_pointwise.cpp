// pointwise: every level and 1 and 3 threads against the scalar variant, on heap arrays of the exact size, so that a
// sanitizer sees any access outside. Sizes cross every vector width. What the scalar variant gives is tested in
// tests/python.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <functional>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "lowbit/pointwise.h"

using namespace lowbit;

namespace {

std::mt19937 g_random(1);
int g_failures = 0;

int64_t pick(int64_t lo, int64_t hi) { return std::uniform_int_distribution<int64_t>(lo, hi)(g_random); }

// Small sizes, and those around the vector widths.
int64_t size() { return pick(0, 3) ? pick(0, 80) : 64 * pick(1, 4) + pick(-1, 1); }

std::vector<uint8_t> bytes(int64_t n) {
  std::vector<uint8_t> v(static_cast<size_t>(n));
  for (uint8_t& b : v) b = static_cast<uint8_t>(pick(0, 3) ? pick(0, 255) : 255 * pick(0, 1));
  return v;
}

std::vector<float> floats(int64_t n) {
  std::vector<float> v(static_cast<size_t>(n));
  for (float& f : v) {
    const int64_t kind = pick(0, 19);
    const float real = std::normal_distribution<float>(0, 4)(g_random);
    f = kind == 0 ? __builtin_inff() : kind == 1 ? -__builtin_inff() : kind == 2 ? 1e-41f : kind == 3 ? -3e38f : real;
  }
  return v;
}

// Without infinities: they make NaNs, whose payloads are left open.
std::vector<float> finite_floats(int64_t n) {
  std::vector<float> v = floats(n);
  for (float& f : v) f = f - f == 0 && f > -1e38f ? f : 1.0f;
  return v;
}

Codes codes() {
  const bool s8 = pick(0, 1);
  return {s8 ? DType::s8 : DType::u8, static_cast<int32_t>(pick(0, 255)) - (s8 ? 128 : 0),
          0.01f * static_cast<float>(pick(1, 50))};
}

// call(y, isa, threads) writes y, of `bytes` bytes.
void compare(const char* what, int64_t bytes, const std::function<void(void*, Isa, int)>& call) {
  std::vector<uint8_t> expected(static_cast<size_t>(bytes), 0x5a);
  call(expected.data(), Isa::scalar, 1);
  for (Isa isa : isas()) {
    for (int threads : {1, 3}) {
      std::vector<uint8_t> y(static_cast<size_t>(bytes), 0x5a);
      call(y.data(), isa, threads);
      if (bytes > 0 && std::memcmp(y.data(), expected.data(), y.size()) != 0) {
        std::printf("%s: %s with %d threads differs from scalar\n", what, isa_name(isa), threads);
        ++g_failures;
      }
    }
  }
}

void elementwise() {
  const int64_t n = size(), outer = pick(0, 3), repeat = pick(0, 5);
  const auto x = floats(n), a = floats(outer * repeat * n), b = floats(outer * n);
  const auto p = bytes(n), q = bytes(n), table = bytes(256), u = bytes(outer * repeat * n), v = bytes(outer * n);
  const Codes ca = codes(), cb = codes(), cy = codes();
  const Rounding rounding = static_cast<Rounding>(pick(0, 2));
  compare("quantize", n, [&](void* y, Isa isa, int t) { quantize(x.data(), n, cy, y, -128, 255, isa, t); });
  compare("dequantize", 4 * n,
          [&](void* y, Isa isa, int t) { dequantize(p.data(), n, ca, static_cast<float*>(y), isa, t); });
  compare("lookup", n, [&](void* y, Isa isa, int t) { lookup(p.data(), n, table.data(), false, 1, y, isa, t); });
  compare("add_i8", n,
          [&](void* y, Isa isa, int t) { add_i8(p.data(), ca, q.data(), cb, n, y, cy, -128, 255, rounding, isa, t); });
  compare("mul_i8", outer * repeat * n, [&](void* y, Isa isa, int t) {
    mul_i8(u.data(), ca, v.data(), cb, outer, repeat, n, y, cy, -128, 255, rounding, isa, t);
  });
  for (Binary op : {Binary::add, Binary::mul, Binary::sub, Binary::div}) {
    compare("binary_f32", 4 * outer * repeat * n, [&](void* y, Isa isa, int t) {
      binary_f32(op, a.data(), b.data(), outer, repeat, n, -5.0f, 5.0f, static_cast<float*>(y), isa, t);
    });
  }
  for (int op = 0; op <= static_cast<int>(Unary::exp); ++op) {
    const auto finite = finite_floats(n);
    compare("unary_f32", 4 * n, [&](void* y, Isa isa, int t) {
      unary_f32(static_cast<Unary>(op), finite.data(), n, 0.25f, 2.5f, static_cast<float*>(y), isa, t);
    });
  }
  if (n > 0) {
    const auto finite = finite_floats(outer * n), slopes = finite_floats(n);
    compare("prelu_f32", 4 * outer * n, [&](void* y, Isa isa, int t) {
      prelu_f32(finite.data(), outer * n, slopes.data(), n, static_cast<float*>(y), isa, t);
    });
    compare("softmax_f32", 4 * outer * n,
            [&](void* y, Isa isa, int t) { softmax_f32(finite.data(), outer, n, static_cast<float*>(y), isa, t); });
  }
  compare("min_max", 8, [&](void* y, Isa isa, int t) {
    float* range = static_cast<float*>(y);
    min_max(x.data(), n, range[0], range[1], isa, t);
  });
}

void images() {
  Conv2dShape s;
  s.batch = pick(0, 2), s.h = pick(1, 9), s.w = pick(1, 9), s.c = size();
  s.kh = pick(1, 3), s.kw = pick(1, 3), s.stride_h = pick(1, 2), s.stride_w = pick(1, 3);
  s.dilation_h = pick(1, 2), s.dilation_w = pick(1, 2);
  s.pad_top = pick(0, 2), s.pad_left = pick(0, 2), s.pad_bottom = pick(2, 3), s.pad_right = pick(2, 3);
  if (s.h + s.pad_top + s.pad_bottom < 5 || s.w + s.pad_left + s.pad_right < 5) return;
  const int64_t ldx = s.c + pick(0, 3), ldy = s.c + pick(0, 3), in_pixels = s.batch * s.h * s.w;
  const int64_t out_pixels = s.batch * s.out_h() * s.out_w();
  // The last pixel ends with its channels, not with its row.
  const int64_t in = in_pixels > 0 ? (in_pixels - 1) * ldx + s.c : 0,
                out = out_pixels > 0 ? (out_pixels - 1) * ldy + s.c : 0;
  const auto q = bytes(in);
  const auto x = floats(in);
  const Codes cx = codes(), cy = codes();
  for (DType dtype : {DType::u8, DType::s8}) {
    compare("max_pool", out, [&](void* y, Isa isa, int t) { max_pool(q.data(), dtype, ldx, s, y, ldy, isa, t); });
  }
  compare("max_pool f32", 4 * out,
          [&](void* y, Isa isa, int t) { max_pool(x.data(), DType::f32, ldx, s, y, ldy, isa, t); });
  const PoolCount count(pick(0, 1), pick(0, 2), pick(0, 2));
  const Rounding rounding = static_cast<Rounding>(pick(0, 2));
  compare("average_pool_i8", out,
          [&](void* y, Isa isa, int t) { average_pool_i8(q.data(), cx, ldx, s, count, y, cy, ldy, rounding, isa, t); });
  const auto finite = finite_floats(in);
  compare("average_pool_f32", 4 * out, [&](void* y, Isa isa, int t) {
    average_pool_f32(finite.data(), ldx, s, count, static_cast<float*>(y), ldy, isa, t);
  });

  const int64_t ldq = pick(0, 2) ? s.c + pick(0, 3) : 4, c = pick(0, 1) ? 3 : pick(1, 4), plane = size();
  const int64_t ld = std::max(ldq, c);
  const auto planes = floats(2 * c * plane);
  compare("quantize_nchw", 2 * plane * ld,
          [&](void* y, Isa isa, int t) { quantize_nchw(planes.data(), 2, c, plane, cy, y, ld, -128, 255, isa, t); });

  std::vector<int32_t> rows, cols;
  std::vector<float> weights;
  for (int i = 0; i < 5; ++i) {
    rows.push_back(static_cast<int32_t>(pick(0, s.h - 1)));
    cols.push_back(static_cast<int32_t>(pick(0, s.w - 1)));
    weights.push_back(0.2f * static_cast<float>(i));
  }
  const LinearTaps r{rows.data(), rows.data(), weights.data(), 5}, k{cols.data(), cols.data(), weights.data(), 5};
  const auto dense = bytes(in_pixels * s.c);
  compare("resize_bilinear_i8", s.batch * 25 * s.c, [&](void* y, Isa isa, int t) {
    resize_bilinear_i8(dense.data(), cx, s.batch, s.h, s.w, s.c, r, k, y, cy, isa, t);
  });
  std::vector<float> real(dense.begin(), dense.end());
  compare("resize_bilinear_f32", 4 * s.batch * 25 * s.c, [&](void* y, Isa isa, int t) {
    resize_bilinear_f32(real.data(), s.batch, s.h, s.w, s.c, r, k, static_cast<float*>(y), isa, t);
  });
}

void layout() {
  const int64_t dims[3] = {pick(0, 3), size(), size()}, perm[3] = {0, 2, 1};
  const int64_t n = dims[0] * dims[1] * dims[2];
  for (int64_t element : {1, 2, 4, 8}) {
    const auto x = bytes(n * element);
    std::vector<uint8_t> y(x.size()), back(x.size());
    const int64_t turned[3] = {dims[0], dims[2], dims[1]};
    transpose(x.data(), dims, perm, 3, element, y.data(), 3);
    transpose(y.data(), turned, perm, 3, element, back.data(), 1);
    if (x != back) {
      std::printf("transpose: twice is not once for all\n");
      ++g_failures;
    }
  }
  const int64_t rows = pick(1, 9), bytes_per_row = size(), gap = pick(0, 3);
  const auto src = bytes(rows * bytes_per_row);
  std::vector<uint8_t> wide((rows - 1) * (bytes_per_row + gap) + bytes_per_row), again(src.size());
  copy_2d(src.data(), bytes_per_row, wide.data(), bytes_per_row + gap, rows, bytes_per_row, 1);
  copy_2d(wide.data(), bytes_per_row + gap, again.data(), bytes_per_row, rows, bytes_per_row, 3);
  if (src != again) {
    std::printf("copy_2d: there and back differs\n");
    ++g_failures;
  }
}

void refusals() {
  const std::vector<std::function<void()>> wrong = {
      [] { quantize(nullptr, -1, {}, nullptr); },
      [] { quantize(nullptr, 0, {DType::f32, 0, 1.0f}, nullptr); },
      [] { dequantize(nullptr, 0, {DType::s8, 128, 1.0f}, nullptr); },
      [] { mul_i8(nullptr, {}, nullptr, {}, int64_t{1} << 40, int64_t{1} << 40, 2, nullptr, {}, 0, 255); },
      [] { transpose(nullptr, nullptr, nullptr, 9, 1, nullptr); },
      [] { softmax_f32(nullptr, -1, 4, nullptr); },
      [] { max_pool(nullptr, DType::s32, 0, {}, nullptr, 0); },
      [] { unary_f32(static_cast<Unary>(99), nullptr, 0, 0, 0, nullptr); },
  };
  for (size_t i = 0; i < wrong.size(); ++i) {
    try {
      wrong[i]();
      std::printf("refusal %zu did not come\n", i);
      ++g_failures;
    } catch (const std::invalid_argument&) {
    }
  }
}

}  // namespace

int main() {
  for (int i = 0; i < 150; ++i) {
    elementwise();
    images();
    layout();
  }
  refusals();
  std::printf("%d failures\n", g_failures);
  return g_failures != 0;
}
