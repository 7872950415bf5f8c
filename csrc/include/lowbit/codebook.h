// Weights as indices of 1 to 8 bits into a small codebook: packing, decoding, and products that read the indices
// themselves, so that the weights are never written out.
//
// Dense canonical indices: the (n, k) indices in row-major order, `bits` bits each, lowest bit first, with no gap
// between rows: index t lies in bits [t * bits, (t + 1) * bits) of the bytes, counted from the lowest bit of byte 0.
// Unused bits of the last byte are 0.
//
//   w[j, p] = codebook[r(j, p)][index[j, p]],   r = 0 (tensor), j (channel) or p / group_size (columns)
#pragma once

#include <cstdint>
#include <memory>

#include "lowbit/export.h"
#include "lowbit/gemm_f32.h"
#include "lowbit/isa.h"

namespace lowbit {

// What has a codebook of its own: the whole tensor, an output channel (row of indices), or a group of input columns.
enum class CodebookPer : uint8_t { tensor = 0, channel = 1, columns = 2 };

template <typename T>
struct Codebook {
  const T* values = nullptr;  // (rows, entries), dense; float32 ones must be finite
  int64_t entries = 0;        // 1 .. 2^bits
  CodebookPer per = CodebookPer::tensor;
  int64_t group_size = 0;  // columns: how many share a codebook; the last group may be shorter
  int64_t rows(int64_t n, int64_t k) const noexcept {
    if (per == CodebookPer::channel) return n;
    return per == CodebookPer::columns && group_size > 0 ? (k + group_size - 1) / group_size : 1;
  }
};

// Bytes of `count` dense indices.
LOWBIT_API int64_t index_bytes(int64_t count, int bits);
// One index per byte to dense ones and back. Packing throws where an index has more than `bits` bits.
LOWBIT_API void pack_indices(const uint8_t* indices, int64_t count, int bits, uint8_t* packed);
LOWBIT_API void unpack_indices(const uint8_t* packed, int64_t count, int bits, uint8_t* indices, Isa isa = best_isa(),
                               int threads = 0);

// w as above from dense indices, to out (n, k). Throws where an index is beyond the codebook.
LOWBIT_API void codebook_decode(const uint8_t* packed, int64_t n, int64_t k, int bits, const Codebook<float>& codebook,
                                float* out, Isa isa = best_isa(), int threads = 0);
LOWBIT_API void codebook_decode(const uint8_t* packed, int64_t n, int64_t k, int bits, const Codebook<int8_t>& codebook,
                                int8_t* out, Isa isa = best_isa(), int threads = 0);

// A float codebook as int8: of each row, scale = max |v| / 127 (1 where all values are integers within +-127, so that
// an integer codebook is kept; 0 where all are 0) and q = round(v / scale), half to even. |v - scale q| <= 0.5001
// scale.
LOWBIT_API void quantize_codebook(const Codebook<float>& codebook, int64_t rows, int8_t* q, float* scale);

// Indices in the kernels' tiled order with their codebook, float and int8: made once, shared by every level and thread.
// Immutable and copyable (shared storage).
class LOWBIT_API PackedCodebook {
 public:
  PackedCodebook() = default;
  int64_t n() const noexcept;
  int64_t k() const noexcept;
  int bits() const noexcept;
  CodebookPer per() const noexcept;
  int64_t bytes() const noexcept;

  struct Data;
  std::shared_ptr<const Data> data;
};

// Tiles indices as they come, as from a Huffman decoder chunk by chunk: neither the dense indices nor the weights are
// ever whole in memory.
class LOWBIT_API CodebookPacker {
 public:
  CodebookPacker(int64_t n, int64_t k, int bits, const Codebook<float>& codebook);
  CodebookPacker(CodebookPacker&&) noexcept;
  ~CodebookPacker();

  // The next `count` indices in row-major order: one per byte, or dense from bit 0 of packed[0]. Throw where there are
  // more than n * k or one is beyond the codebook, naming its place in the whole.
  void append(const uint8_t* indices, int64_t count);
  void append_packed(const uint8_t* packed, int64_t count);
  // Throws unless all n * k came. The packer is empty afterwards.
  PackedCodebook finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

LOWBIT_API PackedCodebook pack_codebook(const uint8_t* packed, int64_t n, int64_t k, int bits,
                                        const Codebook<float>& codebook);

struct EpilogueCodebook {
  const float* bias = nullptr;   // [n] or null
  float lo = -__builtin_inff();  // clamp after the bias; NaN passes
  float hi = __builtin_inff();
};

// Exact float mode: y[i, j] = clamp(sum_p x[i, p] * w[j, p] + bias[j]). The sum is one chain of fused multiply-adds in
// ascending p, started at 0, so every level and thread count gives the same numbers; with u = 2^-24 it is within
// k u / (1 - k u) * sum_p |x w| of the exact sum (Higham's gamma_k), the bias rounding once more.
//
// x (m, k) with ldx floats between rows, y (m, n) with ldy.
LOWBIT_API void codebook_gemm_f32(const float* x, int64_t m, int64_t ldx, const PackedCodebook& w, float* y,
                                  int64_t ldy, const EpilogueCodebook& epilogue, Isa isa = best_isa(), int threads = 0);

// Int8 mode. Activations become int8 codes q = round(x / s), half to even, |q| <= 127, with s = max |x[i, :]| / 127 of
// each row (x_scale = 0), or s = x_scale > 0 for all, where values beyond +-127 s saturate. Codebooks become int8 as in
// quantize_codebook: p with scale t[r]. Then
//
//   y[i, j] = clamp(s[i] * sum over r of t[r] * float(sum over p of r of q[i, p] * p[j, p]) + bias[j])
//
// with exact int32 inner sums (k <= 133,144 for a codebook row), and single float operations in that order: bit for bit
// the same on every level and thread count. A row with a value that is NaN, or infinite without x_scale, gives NaN;
// without x_scale a row below 2^-100 counts as zero. Where nothing saturates, |x - s q| <= 0.5001 s and
// |w - t p| <= 0.5001 t, so before the last float roundings the result is within
//
//   0.5001 sum_p (s[i] |t p[j, p]| + t |x[i, p]|)   of the exact product with the float codebook.
LOWBIT_API void codebook_gemm_i8(const float* x, int64_t m, int64_t ldx, float x_scale, const PackedCodebook& w,
                                 float* y, int64_t ldy, const EpilogueCodebook& epilogue, Isa isa = best_isa(),
                                 int threads = 0);

// Convolution over NHWC images, weights (oc, kh, kw, c / groups), k = kh * kw * c / groups; padded pixels hold 0.
// Codebook per tensor, per output channel, or per group of columns of the (oc, k) matrix.
class LOWBIT_API PackedConvCodebook {
 public:
  PackedConvCodebook() = default;
  int64_t bytes() const noexcept;

  struct Data;
  std::shared_ptr<const Data> data;
};

// From dense indices. Takes c, oc, kh, kw and groups from shape.
LOWBIT_API PackedConvCodebook pack_conv_codebook(const uint8_t* packed, const Conv2dShape& shape, int bits,
                                                 const Codebook<float>& codebook);
// From indices tiled as they came, (oc, k); shape.groups must be 1.
LOWBIT_API PackedConvCodebook pack_conv_codebook(const PackedCodebook& w, const Conv2dShape& shape);

// Pixels lie ldx >= c and ldy >= oc floats apart, as in conv2d_i8. Sums in the order of (ky, kx, channel), as above. In
// int8 mode without x_scale a scale serves one image.
LOWBIT_API void codebook_conv2d_f32(const float* x, int64_t ldx, const Conv2dShape& shape, const PackedConvCodebook& w,
                                    float* y, int64_t ldy, const EpilogueCodebook& epilogue, Isa isa = best_isa(),
                                    int threads = 0);
LOWBIT_API void codebook_conv2d_i8(const float* x, int64_t ldx, const Conv2dShape& shape, float x_scale,
                                   const PackedConvCodebook& w, float* y, int64_t ldy, const EpilogueCodebook& epilogue,
                                   Isa isa = best_isa(), int threads = 0);

// How k-means starts (Deep Compression, section 3.2), or `optimal`: the least sum of squares there is.
enum class KmeansInit : uint8_t { linear = 0, density = 1, forgy = 2, optimal = 3 };

// k centroids, ascending, that share `count` values, and the index of the nearest one (the lower of two) for each.
// Every centroid is the mean of its values and has at least one. Up to 65,536 distinct values are clustered as they
// are; more as a histogram of 65,536 bins, each at the mean of its values. linear, density, forgy: Lloyd's iterations
// from there until nothing moves, at most max_iterations; an empty cluster takes the value that is worst represented.
// Throws where a value is not finite (naming it), or k is below 1, above 256, or above the number of distinct values.
LOWBIT_API void kmeans1d(const float* values, int64_t count, int64_t k, KmeansInit init, uint64_t seed,
                         int64_t max_iterations, float* codebook, uint8_t* indices, int threads = 0);

}  // namespace lowbit
