// Doors: bitserial_gemm, bitserial_conv2d. One binary product per pair of planes, added up in the products' epilogues.
#include <algorithm>
#include <cmath>

#include "scratch.h"
#include "xnor/xnor_packed.h"

namespace lowbit {
namespace {

constexpr int64_t kMaxPlanes = 8;

void check_planes(const char* function, const BitPlanes& a, const PackedXnor* b, int64_t b_bits) {
  if (a.count < 1 || a.count > kMaxPlanes || b_bits < 1 || b_bits > kMaxPlanes) {
    fail_xnor(function, std::to_string(a.count) + " and " + std::to_string(b_bits) + " planes, must be 1 to 8");
  }
  for (int64_t p = 0; p < b_bits; ++p) {
    if (!b[p].data) fail_xnor(function, "plane " + std::to_string(p) + " of the weights is empty: it was not packed");
    if (b[p].data->shape.oc != b[0].data->shape.oc) {
      fail_xnor(function, "planes of the weights have " + std::to_string(b[0].data->shape.oc) + " and " +
                              std::to_string(b[p].data->shape.oc) + " channels");
    }
  }
}

// Sum of the +-1 weights of output channel j.
int32_t weight_sum(const PackedXnor::Data& w, int64_t j) {
  const Conv2dShape& s = w.shape;
  const int64_t all = s.groups * w.padded_channels();
  const int32_t* total = w.tap_sums.data() + ((s.kh + 1) * (s.kw + 1) - 1) * all;
  return total[j / w.channels() * w.padded_channels() + j % w.channels()];
}

// run(q, p, epilogue) for every pair of planes.
template <typename Run>
void accumulate(const char* function, const BitPlanes& a, const PackedXnor* b, int64_t b_bits, const int32_t* a_basis,
                const int32_t* b_basis, Run&& run) {
  const PackedXnor::Data& w = *b[0].data;
  const int64_t n = w.shape.oc, k = w.shape.kh * w.shape.kw * w.depth();
  for (int64_t j = 0; j < n; ++j) {
    double most = 0;
    for (int64_t q = 0; q < a.count; ++q) {
      for (int64_t p = 0; p < b_bits; ++p) most += std::abs(double(a_basis[q]) * double(b_basis[p * n + j]));
    }
    if (most * double(k) * (a.zero_one ? 2 : 1) > double(INT32_MAX)) {
      fail_xnor(function, "the sums of channel " + std::to_string(j) + " with k = " + std::to_string(k) +
                              " and these bases leave int32");
    }
  }
  // For zero_one twice the result is summed, and halved with the last pair: it is even.
  auto* multiplier = scratch<int32_t>(ScratchSlot::bit_bases, size_t(2 * n));
  int32_t* offset = multiplier + n;
  std::fill_n(offset, n, 0);
  XnorEpilogue e;
  e.out_dtype = DType::s32;
  e.multiplier = multiplier;
  e.offset = offset;
  for (int64_t q = 0; q < a.count; ++q) {
    for (int64_t p = 0; p < b_bits; ++p) {
      for (int64_t j = 0; j < n; ++j) {
        multiplier[j] = a_basis[q] * b_basis[p * n + j];
        if (a.zero_one) offset[j] = multiplier[j] * weight_sum(*b[p].data, j);
      }
      e.shift = a.zero_one && q + 1 == a.count && p + 1 == b_bits ? 1 : 0;
      run(q, p, e);
      e.accumulate = true;
    }
  }
}

template <typename Run>
void accumulate(const char*, const BitPlanes& a, const PackedXnor* b, int64_t b_bits, const float* a_basis,
                const float* b_basis, Run&& run) {
  const int64_t n = b[0].data->shape.oc;
  auto* sum = scratch<double>(ScratchSlot::bit_bases, size_t(2 * n));
  auto* scale = reinterpret_cast<float*>(sum + n);
  float* bias = scale + n;
  std::fill_n(sum, n, 0.0);
  XnorEpilogue e;
  e.scale = scale;
  for (int64_t q = 0; q < a.count; ++q) {
    for (int64_t p = 0; p < b_bits; ++p) {
      for (int64_t j = 0; j < n; ++j) {
        scale[j] = a_basis[q] * b_basis[p * n + j] * (a.zero_one ? 0.5f : 1.0f);
        sum[j] += double(scale[j]) * weight_sum(*b[p].data, j);
      }
      if (a.zero_one && q + 1 == a.count && p + 1 == b_bits) {
        for (int64_t j = 0; j < n; ++j) bias[j] = static_cast<float>(sum[j]);
        e.bias = bias;
      }
      run(q, p, e);
      e.accumulate = true;
    }
  }
}

template <typename T>
void gemm(const BitPlanes& a, int64_t m, const PackedXnor* b, int64_t b_bits, const T* a_basis, const T* b_basis, T* y,
          int64_t ldy, Isa isa, int threads) {
  constexpr const char* kName = "bitserial_gemm";
  check_planes(kName, a, b, b_bits);
  accumulate(kName, a, b, b_bits, a_basis, b_basis, [&](int64_t q, int64_t p, XnorEpilogue& e) {
    e.residual = e.accumulate && e.out_dtype == DType::f32 ? reinterpret_cast<const float*>(y) : nullptr;
    e.residual_stride = ldy;
    xnor_gemm(a.bits + q * a.stride, m, a.ld, b[p], y, ldy, e, isa, threads);
  });
}

template <typename T>
void conv2d(const BitPlanes& x, const Conv2dShape& shape, PadValue pad_value, const PackedXnor* w, int64_t w_bits,
            const T* x_basis, const T* w_basis, T* y, int64_t ldy, Isa isa, int threads) {
  constexpr const char* kName = "bitserial_conv2d";
  check_planes(kName, x, w, w_bits);
  if (x.zero_one) pad_value = PadValue::minus_one;  // code 0 is bits 0
  accumulate(kName, x, w, w_bits, x_basis, w_basis, [&](int64_t q, int64_t p, XnorEpilogue& e) {
    e.residual = e.accumulate && e.out_dtype == DType::f32 ? reinterpret_cast<const float*>(y) : nullptr;
    e.residual_stride = ldy;
    xnor_conv2d(x.bits + q * x.stride, x.ld, shape, w[p], pad_value, y, ldy, e, isa, threads);
  });
}

}  // namespace

void bitserial_gemm(const BitPlanes& a, int64_t m, const PackedXnor* b, int64_t b_bits, const int32_t* a_basis,
                    const int32_t* b_basis, int32_t* y, int64_t ldy, Isa isa, int threads) {
  gemm(a, m, b, b_bits, a_basis, b_basis, y, ldy, isa, threads);
}

void bitserial_gemm(const BitPlanes& a, int64_t m, const PackedXnor* b, int64_t b_bits, const float* a_basis,
                    const float* b_basis, float* y, int64_t ldy, Isa isa, int threads) {
  gemm(a, m, b, b_bits, a_basis, b_basis, y, ldy, isa, threads);
}

void bitserial_conv2d(const BitPlanes& x, const Conv2dShape& shape, PadValue pad_value, const PackedXnor* w,
                      int64_t w_bits, const int32_t* x_basis, const int32_t* w_basis, int32_t* y, int64_t ldy, Isa isa,
                      int threads) {
  conv2d(x, shape, pad_value, w, w_bits, x_basis, w_basis, y, ldy, isa, threads);
}

void bitserial_conv2d(const BitPlanes& x, const Conv2dShape& shape, PadValue pad_value, const PackedXnor* w,
                      int64_t w_bits, const float* x_basis, const float* w_basis, float* y, int64_t ldy, Isa isa,
                      int threads) {
  conv2d(x, shape, pad_value, w, w_bits, x_basis, w_basis, y, ldy, isa, threads);
}

}  // namespace lowbit
