// Convolution: windows of a band of output pixels are written out as rows (floats or codes), the weights stay packed.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "codebook/codebook_packed.h"
#include "conv2d_shape.h"
#include "scratch.h"
#include "thread_pool.h"

namespace lowbit {

struct PackedConvCodebook::Data {
  int64_t c = 0, oc = 0, kh = 0, kw = 0, groups = 0;
  std::vector<PackedCodebook> weights;  // of each group, n = oc / groups, k = kh * kw * c / groups
};

namespace {

using codebook::CodeRows;
using codebook::fail;
using codebook::Variants;

constexpr int64_t kBandBytes = 512 << 10;

// The window of output pixel `pixel` over channels [first, first + count) of an image whose pixels lie `pitch` apart.
template <typename T>
void window(const Conv2dShape& s, const T* image, int64_t pitch, int64_t pixel, int64_t first, int64_t count, T* to) {
  const int64_t top = pixel / s.out_w() * s.stride_h - s.pad_top, left = pixel % s.out_w() * s.stride_w - s.pad_left;
  for (int64_t ky = 0; ky < s.kh; ++ky) {
    const int64_t y = top + ky * s.dilation_h;
    for (int64_t kx = 0; kx < s.kw; ++kx, to += count) {
      const int64_t x = left + kx * s.dilation_w;
      const bool inside = y >= 0 && y < s.h && x >= 0 && x < s.w;
      if (inside) std::memcpy(to, image + (y * s.w + x) * pitch + first, static_cast<size_t>(count) * sizeof(T));
      if (!inside) std::memset(to, 0, static_cast<size_t>(count) * sizeof(T));
    }
  }
}

// product(image, pixel, rows, group, columns): rows of `pitch` elements that row(image, pixel, group, to) wrote.
template <typename T, typename Row, typename Product>
void by_bands(const Conv2dShape& s, int64_t pitch, int threads, Row&& row, Product&& product) {
  const int64_t pixels = s.out_h() * s.out_w();
  const int64_t band = std::clamp<int64_t>(kBandBytes / std::max<int64_t>(pitch * int64_t{sizeof(T)}, 1) / 16 * 16,
                                           16 * threads, std::max<int64_t>(pixels, 16 * threads));
  T* columns = scratch<T>(ScratchSlot::codebook_columns, static_cast<size_t>((band + 15) / 16 * 16 * pitch + 64));
  for (int64_t image = 0; image < s.batch; ++image) {
    for (int64_t first = 0; first < pixels; first += band) {
      const int64_t rows = std::min(band, pixels - first);
      for (int64_t group = 0; group < s.groups; ++group) {
        parallel_for(threads, rows, 16, [&](int64_t begin, int64_t end) {
          for (int64_t i = begin; i < end; ++i) row(image, first + i, group, columns + i * pitch);
        });
        product(image, first, rows, group, columns);
      }
    }
  }
}

const PackedConvCodebook::Data& check(const char* function, int64_t ldx, const Conv2dShape& s,
                                      const PackedConvCodebook& w, int64_t ldy) {
  check_conv2d_shape(function, s);
  if (!w.data) fail(function, "w is empty: it was not packed");
  const PackedConvCodebook::Data& d = *w.data;
  if (d.c != s.c || d.oc != s.oc || d.kh != s.kh || d.kw != s.kw || d.groups != s.groups) {
    auto text = [](int64_t oc, int64_t kh, int64_t kw, int64_t c, int64_t groups) {
      return "(" + std::to_string(oc) + ", " + std::to_string(kh) + ", " + std::to_string(kw) + ", " +
             std::to_string(c / groups) + ") in " + std::to_string(groups) + " groups";
    };
    fail(function, "w was packed as " + text(d.oc, d.kh, d.kw, d.c, d.groups) + ", shape asks for " +
                       text(s.oc, s.kh, s.kw, s.c, s.groups));
  }
  if (ldx < s.c) fail(function, "ldx is " + std::to_string(ldx) + ", c is " + std::to_string(s.c));
  if (ldy < s.oc) fail(function, "ldy is " + std::to_string(ldy) + ", oc is " + std::to_string(s.oc));
  return d;
}

FinishCodebook of_group(const FinishCodebook& f, int64_t channel) {
  return {f.bias ? f.bias + channel : nullptr, f.lo, f.hi};
}

// A 1 x 1 kernel over every pixel: the image is the matrix.
bool is_product(const Conv2dShape& s) {
  return s.kh == 1 && s.kw == 1 && s.stride_h == 1 && s.stride_w == 1 && s.groups == 1 && s.pad_top == 0 &&
         s.pad_left == 0 && s.pad_bottom == 0 && s.pad_right == 0;
}

}  // namespace

int64_t PackedConvCodebook::bytes() const noexcept {
  int64_t total = 0;
  if (data) {
    for (const PackedCodebook& w : data->weights) total += w.bytes();
  }
  return total;
}

PackedConvCodebook pack_conv_codebook(const uint8_t* packed, const Conv2dShape& s, int bits,
                                      const Codebook<float>& codebook) {
  constexpr const char* kName = "pack_conv_codebook";
  check_conv2d_weights(kName, s);
  const int64_t n = s.oc / s.groups, k = s.kh * s.kw * (s.c / s.groups);
  codebook::check_indices(kName, s.oc, k, bits);
  codebook::check_codebook(kName, s.oc, k, bits, codebook);
  auto data = std::make_shared<PackedConvCodebook::Data>();
  data->c = s.c, data->oc = s.oc, data->kh = s.kh, data->kw = s.kw, data->groups = s.groups;
  std::vector<uint8_t> indices(static_cast<size_t>(s.oc * k));
  unpack_indices(packed, s.oc * k, bits, indices.data());
  for (int64_t g = 0; g < s.groups; ++g) {
    Codebook<float> mine = codebook;
    if (codebook.per == CodebookPer::channel) mine.values += g * n * codebook.entries;
    CodebookPacker packer(n, k, bits, mine);
    packer.append(indices.data() + g * n * k, n * k);
    data->weights.push_back(packer.finish());
  }
  PackedConvCodebook w;
  w.data = std::move(data);
  return w;
}

PackedConvCodebook pack_conv_codebook(const PackedCodebook& weights, const Conv2dShape& s) {
  constexpr const char* kName = "pack_conv_codebook";
  check_conv2d_weights(kName, s);
  if (!weights.data) fail(kName, "w is empty: it was not packed");
  const int64_t k = s.kh * s.kw * s.c;
  if (s.groups != 1 || weights.n() != s.oc || weights.k() != k) {
    fail(kName, "w is " + std::to_string(weights.n()) + " x " + std::to_string(weights.k()) + ", shape asks for " +
                    std::to_string(s.oc) + " x " + std::to_string(k) + " in " + std::to_string(s.groups) + " groups");
  }
  auto data = std::make_shared<PackedConvCodebook::Data>();
  data->c = s.c, data->oc = s.oc, data->kh = s.kh, data->kw = s.kw, data->groups = 1;
  data->weights.push_back(weights);
  PackedConvCodebook w;
  w.data = std::move(data);
  return w;
}

void codebook_conv2d_f32(const float* x, int64_t ldx, const Conv2dShape& s, const PackedConvCodebook& w, float* y,
                         int64_t ldy, const EpilogueCodebook& epilogue, Isa isa, int threads) {
  constexpr const char* kName = "codebook_conv2d_f32";
  const PackedConvCodebook::Data& d = check(kName, ldx, s, w, ldy);
  const FinishCodebook finish = codebook::finish(kName, epilogue);
  threads = resolve_threads(threads);
  if (s.batch == 0 || s.oc == 0) return;
  if (is_product(s)) {
    return codebook::run_f32(*d.weights[0].data, x, s.batch * s.h * s.w, ldx, y, ldy, finish, isa, threads);
  }
  const int64_t n = s.oc / s.groups, c = s.c / s.groups, k = s.kh * s.kw * c, pixels = s.out_h() * s.out_w();
  by_bands<float>(
      s, k, threads,
      [&](int64_t image, int64_t pixel, int64_t group, float* to) {
        window(s, x + image * s.h * s.w * ldx, ldx, pixel, group * c, c, to);
      },
      [&](int64_t image, int64_t first, int64_t rows, int64_t group, const float* columns) {
        codebook::run_f32(*d.weights[static_cast<size_t>(group)].data, columns, rows, k,
                          y + (image * pixels + first) * ldy + group * n, ldy, of_group(finish, group * n), isa,
                          threads);
      });
}

void codebook_conv2d_i8(const float* x, int64_t ldx, const Conv2dShape& s, float x_scale, const PackedConvCodebook& w,
                        float* y, int64_t ldy, const EpilogueCodebook& epilogue, Isa isa, int threads) {
  constexpr const char* kName = "codebook_conv2d_i8";
  const PackedConvCodebook::Data& d = check(kName, ldx, s, w, ldy);
  codebook::check_x_scale(kName, x_scale);
  const FinishCodebook finish = codebook::finish(kName, epilogue);
  threads = resolve_threads(threads);
  if (s.batch == 0 || s.oc == 0) return;

  // Codes of all images, each with its scale; then windows of codes.
  const Variants& v = codebook::variants(isa);
  const int64_t size = s.h * s.w, c = s.c / s.groups, n = s.oc / s.groups, pixels = s.out_h() * s.out_w();
  int8_t* codes = scratch<int8_t>(ScratchSlot::codebook_image, static_cast<size_t>(s.batch * size * s.c));
  const int64_t scale_rows = std::max<int64_t>(pixels, 1);
  float* scales = scratch<float>(ScratchSlot::codebook_scales, static_cast<size_t>(s.batch + scale_rows));
  for (int64_t b = 0; b < s.batch; ++b) {
    float peak = 0;
    for (int64_t p = b * size; p < (b + 1) * size; ++p) {
      const float here = v.peak(x + p * ldx, s.c);
      if (!(here <= peak) && !std::isnan(peak)) peak = here;
    }
    scales[b] = codebook::code_scale(peak, x_scale);
    const float inverse = codebook::code_inverse(peak, x_scale);
    parallel_for(threads, size, std::max<int64_t>(1, (1 << 15) / (s.c + 1)), [&](int64_t begin, int64_t end) {
      for (int64_t p = b * size + begin; p < b * size + end; ++p) v.codes(x + p * ldx, s.c, inverse, codes + p * s.c);
    });
  }
  const CodeRows rows_of(*d.weights[0].data);
  by_bands<int8_t>(
      s, rows_of.pitch, threads,
      [&](int64_t image, int64_t pixel, int64_t group, int8_t* to) {
        window(s, codes + image * size * s.c, s.c, pixel, group * c, c, to);
        rows_of.spread(*d.weights[0].data, to);
      },
      [&](int64_t image, int64_t first, int64_t rows, int64_t group, const int8_t* columns) {
        float* row_scales = scales + s.batch;
        std::fill_n(row_scales, rows, scales[image]);
        codebook::run_i8(*d.weights[static_cast<size_t>(group)].data, columns, row_scales, rows,
                         y + (image * pixels + first) * ldy + group * n, ldy, of_group(finish, group * n), isa,
                         threads);
      });
}

}  // namespace lowbit
