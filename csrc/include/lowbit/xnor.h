// 1 bit: products and convolutions of {-1, +1} by xor and popcount, with a fused epilogue that can stay in bits.
//
// A bit 1 means +1, a bit 0 means -1. Activations are rows (pixels) of bit_words(c) uint32 words, channel j at bit j %
// 32 of word j / 32; the pad bits of the last word are 0, on input (the caller's duty) and on output. Then
//
//   dot = sum a * b = k - 2 * popcount(a xor b)                                 (equal bits give +1, others -1)
//
//   gemm:   dot[i, j]       = sum_p a[i, p] * b[j, p]
//   conv2d: dot[b, y, x, o] = sum over the window of x * w; padded pixels hold pad_value in every channel:
//                             -1, +1, or an exact 0, so that they add nothing
//
// Epilogue, for output channel j and row (pixel) i; every float operation is a single rounded binary32 operation in the
// order written, so that every level and thread count gives the same bits:
//
//   v = float(dot);  v = v * scale[j];  v = v * input_scale[i];  v = v + bias[j];  v = v + residual[i, j];
//   v = min(max(v, lo), hi)                                        (each step only where its pointer is given)
//   y: s32      dot
//      f32      v
//      s8, u8   min(max(zero_point + rne(v), least), greatest) of the type; rne: half to even; a NaN gives `least`
//   bits: dot_threshold given     bit = (dot >= dot_threshold[j]) xor flip[j]
//         else                    bit = (v >= threshold[j]) xor flip[j]      (threshold null: 0; false for a NaN)
//
// BatchNorm and sign fold into a threshold: with y = gamma * (dot - mean) / s + beta, s = sqrt(var + eps) > 0,
//   gamma > 0: y >= 0 <=> dot >= mean - beta * s / gamma =: t    bit = dot >= ceil(t)
//   gamma < 0: y >= 0 <=> dot <= t                               bit = not (dot >= floor(t) + 1): flip
//   gamma = 0: y = beta                                          bit = beta >= 0: INT32_MIN, flip where beta < 0
// pack_bits does the same on real numbers: there the flipped comparison x <= t is not (x >= the next float above t).
#pragma once

#include "lowbit/gemm_i8.h"

namespace lowbit {

// Words of a row of c bits.
constexpr int64_t bit_words(int64_t c) { return (c + 31) / 32; }

// bit = (float(x[i, j]) >= threshold[j]) xor flip[j]. x (rows, c) float32, int8 or uint8 with ldx elements between
// rows; threshold null: 0, so that 0 and -0.0 give +1; flip null: none, else 0 or 1 per channel. bits: ld_bits words
// between rows. Infinities are ordered as they stand. Throws std::invalid_argument where x or threshold holds a NaN,
// naming it.
LOWBIT_API void pack_bits(const void* x, DType dtype, int64_t rows, int64_t ldx, int64_t c, const float* threshold,
                          const uint8_t* flip, uint32_t* bits, int64_t ld_bits, Isa isa = best_isa(), int threads = 0);

// x[i, j] = bit ? +1 : -1.
LOWBIT_API void unpack_bits(const uint32_t* bits, int64_t rows, int64_t ld_bits, int64_t c, int8_t* x, int64_t ldx,
                            Isa isa = best_isa(), int threads = 0);

// Maximum over windows of +-1: OR of the bits. Takes batch, h, w, c, kernel, stride, padding and dilation from shape;
// padded pixels do not count, and a window without pixels gives -1. x and y: ldx and ldy words between pixels.
LOWBIT_API void max_pool_bits(const uint32_t* x, int64_t ldx, const Conv2dShape& shape, uint32_t* y, int64_t ldy,
                              Isa isa = best_isa(), int threads = 0);

// Weights in the kernel's tiled order, made once and shared by every level and thread. Immutable and copyable (shared
// storage). Level avx2 adds as much again at its first call; level amx, in the layers that run as int8 there
// (xnor_i8.cpp), a byte per weight and geometry, 8 times the bits. bytes() does not count these.
class LOWBIT_API PackedXnor {
 public:
  PackedXnor() = default;
  int64_t bytes() const noexcept;

  struct Data;
  std::shared_ptr<const Data> data;
};

// Dense canonical bits: weight e = ((o * kh + ky) * kw + kx) * (c / groups) + j is bit e % 8 of bits[e / 8], so
// ceil(oc * kh * kw * c / groups / 8) bytes are read. Takes c, oc, kh, kw and groups from shape. c / groups >= 1.
LOWBIT_API PackedXnor pack_xnor(const uint8_t* bits, const Conv2dShape& shape);
// A matrix (n, k) for xnor_gemm, dense in the same way; k >= 1.
LOWBIT_API PackedXnor pack_xnor(const uint8_t* bits, int64_t n, int64_t k);
// From rows as activations have them: (oc, kh, kw) rows of bit_words(c / groups) words; pad bits are ignored.
LOWBIT_API PackedXnor pack_xnor_rows(const uint32_t* rows, const Conv2dShape& shape);

// What happens between a dot product and its outputs (see above). Pointers are borrowed for the call. n is the number
// of output channels.
struct XnorEpilogue {
  DType out_dtype = DType::f32;        // of y
  const float* scale = nullptr;        // [n] or null
  const float* input_scale = nullptr;  // one per row, or null: XNOR-Net's K, (batch, out_h, out_w)
  const float* bias = nullptr;         // [n] or null
  const float* residual = nullptr;     // float32 rows, residual_stride elements apart, or null; may be y itself
  int64_t residual_stride = 0;
  float lo = -__builtin_inff();
  float hi = __builtin_inff();
  int32_t zero_point = 0;  // of s8 and u8

  uint32_t* bits = nullptr;                // rows of bit_words(n) words, or null: no bits out
  int64_t ld_bits = 0;                     // words between rows
  const int32_t* dot_threshold = nullptr;  // [n], or null: compare v
  const float* threshold = nullptr;        // [n] or null
  const uint8_t* flip = nullptr;           // [n] of 0 and 1, or null
};

// a (m, k) as rows of bit_words(k) words, lda words apart; b as pack_xnor(bits, n, k). y (m, n) of out_dtype, ldy
// elements between rows; null where only bits are wanted.
LOWBIT_API void xnor_gemm(const uint32_t* a, int64_t m, int64_t lda, const PackedXnor& b, void* y, int64_t ldy,
                          const XnorEpilogue& epilogue, Isa isa = best_isa(), int threads = 0);

// How a real number becomes a code of few bits: codes[number of thresholds below it], ties down. Bit q of the code is
// the element's bit of plane q.
//   code(x) = codes[#{i: x > threshold[i]}]; a NaN is above no threshold
struct Levels {
  int64_t bits = 0;                  // 1 to 4
  const float* threshold = nullptr;  // [2^bits - 1], ascending, no NaN
  const uint8_t* codes = nullptr;    // [2^bits], each below 2^bits; null: 0, 1, 2, ...
};

// x (rows, c) with ldx elements between rows. Plane q of row i: planes + q * stride + i * ld words, pad bits 0.
LOWBIT_API void pack_planes(const float* x, int64_t rows, int64_t ldx, int64_t c, const Levels& levels,
                            uint32_t* planes, int64_t stride, int64_t ld, Isa isa = best_isa(), int threads = 0);
// The bits of codes as they stand, bits 1 to 8; those above are ignored.
LOWBIT_API void pack_planes(const uint8_t* codes, int64_t rows, int64_t ldx, int64_t c, int64_t bits, uint32_t* planes,
                            int64_t stride, int64_t ld, Isa isa = best_isa(), int threads = 0);

// Products of few bits by products of bits (LQ-Nets, Zhang et al. 2018, section 3.1): a's codes are a_bits planes of
// bits, plane q times a_basis[q]; b's are b_bits planes of +-1, plane p of column j times b_basis[p * n + j]:
//
//   y[i, j] = sum_q sum_p a_basis[q] * b_basis[p, j] * <A_q[i], B_p[j]>
//
// Bits of A stand for -1 and +1, or for 0 and 1 (zero_one).
//   int32    exact; throws where sum |a_basis| |b_basis| k (twice that for zero_one) leaves int32 for some column
//   float32  with c[q, p, j] = a_basis[q] * b_basis[p, j] and the exact d = <A_q, B_p>: v = float(d) * c of q = p = 0,
//            then for every further pair, q first, v = v + float(d) * c; v = v + bias[j]; v = v + residual[i, j];
//            v = min(max(v, lo), hi). Single rounded operations (for zero_one c is halved and d doubled, both exact).
struct BitPlanes {
  const uint32_t* bits = nullptr;
  int64_t count = 0;   // planes, 1 to 8
  int64_t stride = 0;  // words between planes
  int64_t ld = 0;      // words between rows
  bool zero_one = false;
};

// What codes of `bits` bits stand for: y[i, j] = level[code], level[2^count]. zero_one is not read.
LOWBIT_API void unpack_levels(const BitPlanes& codes, int64_t rows, int64_t c, const float* level, float* y,
                              int64_t ldy, Isa isa = best_isa(), int threads = 0);

// Whether `pairs` pairs of planes, of k products each, take less time than one product in float32 on the levels
// themselves. m rows a batch item and n outputs. Measured (bench/bitserial.py), the same on every level and machine,
// since results depend on it:
//   pairs <= 9 and 64 * pairs <= k; or pairs <= 16, m = 1 and n k >= 2^20 (float32 weights would come from memory)
LOWBIT_API bool bitserial_pays(int64_t pairs, int64_t m, int64_t n, int64_t k);

// Where the sums go: to y, to planes of their codes, or to both. Pointers are borrowed for the call.
struct BitserialEpilogue {
  float* y = nullptr;
  int64_t ldy = 0;                  // elements between rows
  const float* bias = nullptr;      // [n] or null
  const float* residual = nullptr;  // rows residual_stride elements apart, or null; may be y itself
  int64_t residual_stride = 0;
  float lo = -__builtin_inff();
  float hi = __builtin_inff();
  uint32_t* planes = nullptr;  // codes of v by levels; output channels of a group must then be whole words
  int64_t plane_stride = 0, ld_planes = 0;
  Levels levels;
};
LOWBIT_API void bitserial_gemm(const BitPlanes& a, int64_t m, const PackedXnor* b, int64_t b_bits,
                               const int32_t* a_basis, const int32_t* b_basis, int32_t* y, int64_t ldy,
                               Isa isa = best_isa(), int threads = 0);
LOWBIT_API void bitserial_gemm(const BitPlanes& a, int64_t m, const PackedXnor* b, int64_t b_bits, const float* a_basis,
                               const float* b_basis, const BitserialEpilogue& epilogue, Isa isa = best_isa(),
                               int threads = 0);

// What a padded pixel holds, in every channel.
enum class PadValue : int { minus_one = -1, zero = 0, plus_one = 1 };

// x: pixel (b, y, x) at x + ((b * h + y) * w + x) * ldx, ldx >= bit_words(c) words. Channels of group g are bits
// [g * c / groups, (g + 1) * c / groups) of the row. y: rows are output pixels, ldy elements apart, or null.
LOWBIT_API void xnor_conv2d(const uint32_t* x, int64_t ldx, const Conv2dShape& shape, const PackedXnor& w,
                            PadValue pad_value, void* y, int64_t ldy, const XnorEpilogue& epilogue,
                            Isa isa = best_isa(), int threads = 0);

// How real inputs become bits on the way in: as pack_bits.
struct BinarizeInput {
  const float* threshold = nullptr;  // [c] or null
  const uint8_t* flip = nullptr;     // [c] or null
};

// The same with real activations (float32, int8, uint8; ldx elements between pixels), packed into scratch first.
LOWBIT_API void xnor_conv2d(const void* x, DType dtype, int64_t ldx, const BinarizeInput& binarize,
                            const Conv2dShape& shape, const PackedXnor& w, PadValue pad_value, void* y, int64_t ldy,
                            const XnorEpilogue& epilogue, Isa isa = best_isa(), int threads = 0);

// bitserial_gemm over the windows of an image: planes of pixels. Padded pixels hold 0 where codes are zero_one, else
// pad_value in every plane.
LOWBIT_API void bitserial_conv2d(const BitPlanes& x, const Conv2dShape& shape, PadValue pad_value, const PackedXnor* w,
                                 int64_t w_bits, const int32_t* x_basis, const int32_t* w_basis, int32_t* y,
                                 int64_t ldy, Isa isa = best_isa(), int threads = 0);
LOWBIT_API void bitserial_conv2d(const BitPlanes& x, const Conv2dShape& shape, PadValue pad_value, const PackedXnor* w,
                                 int64_t w_bits, const float* x_basis, const float* w_basis,
                                 const BitserialEpilogue& epilogue, Isa isa = best_isa(), int threads = 0);

}  // namespace lowbit
