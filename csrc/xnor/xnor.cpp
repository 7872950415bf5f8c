// Doors: xnor_gemm, xnor_conv2d.
#include "xnor/bit_windows.h"

namespace lowbit {

void xnor_gemm(const uint32_t* a, int64_t m, int64_t lda, const PackedXnor& b, void* y, int64_t ldy,
               const XnorEpilogue& epilogue, Isa isa, int threads) {
  constexpr const char* kName = "xnor_gemm";
  const PackedXnor::Data& w = check_gemm(kName, m, lda, b);
  XnorCall call(kName, w, epilogue, y, ldy, isa);
  threads = resolve_threads(threads);
  if (m == 0 || w.shape.oc == 0) return;
  run_gemm({a, lda, 1, 0}, m, w, call, 1, threads);
}

void xnor_conv2d(const uint32_t* x, int64_t ldx, const Conv2dShape& s, const PackedXnor& packed, PadValue pad_value,
                 void* y, int64_t ldy, const XnorEpilogue& epilogue, Isa isa, int threads) {
  constexpr const char* kName = "xnor_conv2d";
  const PackedXnor::Data& w = check_conv2d(kName, s, ldx, packed, pad_value);
  XnorCall call(kName, w, epilogue, y, ldy, isa);
  threads = resolve_threads(threads);
  if (s.batch == 0 || s.oc == 0) return;
  if (xnor_conv2d_as_i8(x, ldx, s, w, pad_value, y, ldy, epilogue, isa, threads)) return;
  run_conv2d({x, ldx, 1, 0}, s, w, pad_value, call, 1, threads);
}

void xnor_conv2d(const void* x, DType dtype, int64_t ldx, const BinarizeInput& binarize, const Conv2dShape& s,
                 const PackedXnor& w, PadValue pad_value, void* y, int64_t ldy, const XnorEpilogue& epilogue, Isa isa,
                 int threads) {
  check_conv2d_shape("xnor_conv2d", s);
  const int64_t pixels = s.batch * s.h * s.w, words = bit_words(s.c);
  uint32_t* bits = scratch<uint32_t>(ScratchSlot::packed_bits, size_t(pixels * words));
  pack_bits(x, dtype, pixels, ldx, s.c, binarize.threshold, binarize.flip, bits, words, isa, threads);
  xnor_conv2d(bits, words, s, w, pad_value, y, ldy, epilogue, isa, threads);
}

}  // namespace lowbit
