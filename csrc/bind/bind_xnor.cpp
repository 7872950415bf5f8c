#include "bind_conv2d_shape.h"
#include "lowbit/xnor.h"

namespace lowbit {
namespace {

using Clamp = std::optional<std::pair<float, float>>;
using Optional = std::optional<py::array>;

// Binary weights with what their shape was; a matrix (n, k) is (n, 1, 1, k).
struct XnorWeights {
  PackedXnor packed;
  int64_t oc, kh, kw, c, groups;
};

// Whether a holds T in this machine's byte order; by number, since asking NumPy about equivalence costs a tenth of a
// small call.
template <typename T>
bool holds(const py::array& a) {
  const py::dtype dtype = a.dtype();
  return dtype.normalized_num() == py::dtype::num_of<T>() && (dtype.byteorder() == '=' || dtype.byteorder() == '|');
}

py::dtype words_dtype() { return py::dtype::of<uint32_t>(); }

// Words of bits, C order.
const uint32_t* words_of(const char* function, const char* name, const py::array& a) {
  if (!holds<uint32_t>(a)) {
    throw py::type_error(std::string(function) + ": " + name + " is " + dtype_text(a) + ", must be uint32");
  }
  if (!(a.flags() & py::array::c_style))
    throw py::value_error(std::string(function) + ": " + name + " must be in C order");
  return static_cast<const uint32_t*>(a.data());
}

// Rows of c bits over the leading axes of a; the last must have bit_words(c) words.
const uint32_t* bit_rows(const char* function, const char* name, const py::array& a, int64_t c) {
  const uint32_t* words = words_of(function, name, a);
  if (a.ndim() < 1 || c < 0 || a.shape(a.ndim() - 1) != bit_words(c)) {
    throw py::value_error(std::string(function) + ": " + name + " is " + text(shape_of(a)) + ", rows of " +
                          std::to_string(c) + " bits have " + std::to_string(bit_words(c)) + " words");
  }
  return words;
}

int64_t rows_before_last(const py::array& a) {
  int64_t rows = 1;
  for (py::ssize_t i = 0; i + 1 < a.ndim(); ++i) rows *= a.shape(i);
  return rows;
}

// `out` checked, or new words.
py::array output_words(const char* function, const py::object& out, const Shape& shape) {
  if (out.is_none()) return py::array(words_dtype(), shape);
  py::array a = py::cast<py::array>(out);
  words_of(function, "out", a);
  if (shape_of(a) != shape) {
    throw py::value_error(std::string(function) + ": out is " + text(shape_of(a)) + ", the result is " + text(shape));
  }
  if (!a.writeable()) throw py::value_error(std::string(function) + ": out is read-only");
  return a;
}

// An XnorEpilogue with the arrays that it borrows, and its outputs.
class XnorArguments {
 public:
  // Of an output of `shape_`, channels last.
  XnorArguments(const char* name, Shape output) : function_(name), shape_(std::move(output)) {}

  template <typename T>
  const T* per_channel(const char* name, const Optional& a) {
    if (!a) return nullptr;
    return checked<T>(name, *a, {shape_.back()});
  }

  const uint8_t* flips(const Optional& a) { return reinterpret_cast<const uint8_t*>(per_channel<bool>("flip", a)); }

  void fill(const Optional& scale, const Optional& bias, const Optional& input_scale, const Optional& residual,
            const Optional& threshold, const Optional& flip, const Clamp& clamp, int32_t zero_point) {
    e.scale = per_channel<float>("scale", scale);
    e.bias = per_channel<float>("bias", bias);
    if (input_scale) e.input_scale = checked<float>("input_scale", *input_scale, {shape_.begin(), shape_.end() - 1});
    if (residual) e.residual = checked<float>("residual", *residual, shape_);
    e.residual_stride = shape_.back();
    if (threshold && array_dtype(*threshold) == DType::s32) {
      e.dot_threshold = per_channel<int32_t>("threshold", threshold);
    } else {
      e.threshold = per_channel<float>("threshold", threshold);
    }
    e.flip = flips(flip);
    if (clamp) std::tie(e.lo, e.hi) = *clamp;
    e.zero_point = zero_point;
  }

  // dtype: of y, or none; bits: whether they are wanted.
  void outputs(std::optional<int> dtype, bool want_bits, const py::object& out) {
    if (dtype) {
      e.out_dtype = static_cast<DType>(*dtype);
      y_ = output_array(function_, out, e.out_dtype, shape_);
      y = y_.mutable_data();
    }
    if (want_bits) {
      Shape words = shape_;
      words.back() = bit_words(shape_.back());
      bits_ = output_words(function_, dtype ? py::none() : out, words);
      e.bits = static_cast<uint32_t*>(bits_.mutable_data());
      e.ld_bits = words.back();
    }
  }

  py::object result() const {
    if (!y) return bits_;
    if (!e.bits) return y_;
    return py::make_tuple(y_, bits_);
  }

  XnorEpilogue e;
  void* y = nullptr;

 private:
  const char* function_;
  Shape shape_;
  template <typename T>
  const T* checked(const char* name, const py::array& a, const Shape& want) {
    if (!holds<T>(a)) {
      throw py::type_error(std::string(function_) + ": " + name + " is " + dtype_text(a) + ", must be " +
                           py::str(py::dtype::of<T>()).cast<std::string>());
    }
    if (!std::equal(want.begin(), want.end(), a.shape(), a.shape() + a.ndim())) {
      throw py::value_error(std::string(function_) + ": " + name + " is " + text(shape_of(a)) + ", must be " +
                            text(want));
    }
    held_.push_back(dense(a));
    return static_cast<const T*>(held_.back().data());
  }

  std::vector<py::array> held_;
  py::array y_, bits_;
};

py::array pack(const py::array& x, const Optional& threshold, const Optional& flip, const py::object& out,
               const std::optional<std::string>& isa, std::optional<int> threads) {
  constexpr const char* kName = "pack_bits";
  const auto dtype = array_dtype(x);
  if (!dtype || *dtype == DType::s32) {
    throw py::type_error(std::string(kName) + ": x is " + dtype_text(x) + ", must be float32, int8 or uint8");
  }
  if (x.ndim() < 1) throw py::value_error("pack_bits: x has no axes, bits go along the last");
  const py::array rows = dense(x);
  const int64_t c = x.shape(x.ndim() - 1), count = rows_before_last(x);
  Shape shape = shape_of(x);
  XnorArguments a(kName, shape);
  const float* thresholds = a.per_channel<float>("threshold", threshold);
  const uint8_t* flips = a.flips(flip);
  shape.back() = bit_words(c);
  py::array bits = output_words(kName, out, shape);
  auto* to = static_cast<uint32_t*>(bits.mutable_data());
  const void* from = rows.data();
  const Isa level = isa_argument(isa);
  {
    py::gil_scoped_release release;
    pack_bits(from, *dtype, count, c, c, thresholds, flips, to, bit_words(c), level, threads_argument(threads));
  }
  return bits;
}

// x float32 with levels, or uint8 codes without: words (bits, ..., w).
py::array pack_into_planes(const py::array& x, int64_t bits, const Optional& threshold, const Optional& codes,
                           const std::optional<std::string>& isa, std::optional<int> threads) {
  constexpr const char* kName = "pack_planes";
  const DType dtype = threshold ? DType::f32 : DType::u8;
  need_dtype(kName, "x", x, dtype);
  if (x.ndim() < 1) throw py::value_error("pack_planes: x has no axes, bits go along the last");
  if (bits < 1 || bits > 8) throw py::value_error("pack_planes: bits is " + std::to_string(bits) + ", must be 1 to 8");
  const py::array rows = dense(x);
  const int64_t c = x.shape(x.ndim() - 1), count = rows_before_last(x), words = bit_words(c);
  Shape shape = shape_of(x);
  shape.back() = words;
  shape.insert(shape.begin(), bits);
  py::array planes = output_words(kName, py::none(), shape);
  auto* to = static_cast<uint32_t*>(planes.mutable_data());
  const Isa level = isa_argument(isa);
  if (!threshold) {
    const auto* from = static_cast<const uint8_t*>(rows.data());
    py::gil_scoped_release release;
    pack_planes(from, count, c, c, bits, to, count * words, words, level, threads_argument(threads));
    return planes;
  }
  const py::array steps = dense(*threshold), table = codes ? dense(*codes) : py::array();
  const Shape want{(py::ssize_t{1} << bits) - 1}, all{py::ssize_t{1} << bits};
  if (array_dtype(steps) != DType::f32 || shape_of(steps) != want ||
      (codes && (array_dtype(table) != DType::u8 || shape_of(table) != all))) {
    throw py::value_error("pack_planes: thresholds and codes do not fit " + std::to_string(bits) + " bits");
  }
  const Levels levels{bits, static_cast<const float*>(steps.data()),
                      codes ? static_cast<const uint8_t*>(table.data()) : nullptr};
  const auto* from = static_cast<const float*>(rows.data());
  py::gil_scoped_release release;
  pack_planes(from, count, c, c, levels, to, count * words, words, level, threads_argument(threads));
  return planes;
}

// words (bits, ..., w) and level (2^bits): float32 (..., c).
py::array unpack_to_levels(const py::array& words, int64_t c, const py::array& level,
                           const std::optional<std::string>& isa, std::optional<int> threads) {
  constexpr const char* kName = "unpack_levels";
  need_dtype(kName, "level", level, DType::f32);
  const py::array planes = dense(words), values = dense(level);
  if (!py::isinstance<py::array_t<uint32_t>>(words) || words.ndim() < 2 || words.shape(0) > 8 ||
      words.shape(words.ndim() - 1) != bit_words(c) || level.size() != py::ssize_t{1} << words.shape(0)) {
    throw py::value_error("unpack_levels: planes are " + text(shape_of(words)) + ", c is " + std::to_string(c) +
                          ", levels are " + std::to_string(level.size()) +
                          ": must be uint32 (bits, ..., words of c), bits to 8, 2^bits levels");
  }
  Shape shape = shape_of(words);
  const int64_t count = rows_before_last(words) / std::max<int64_t>(shape[0], 1);
  const BitPlanes codes{static_cast<const uint32_t*>(planes.data()), shape[0], count * bit_words(c), bit_words(c),
                        true};
  shape.erase(shape.begin());
  shape.back() = c;
  py::array_t<float> y(shape);
  float* to = y.mutable_data();
  const auto* table = static_cast<const float*>(values.data());
  const Isa best = isa_argument(isa);
  py::gil_scoped_release release;
  unpack_levels(codes, count, c, table, to, c, best, threads_argument(threads));
  return std::move(y);
}

py::array unpack(const py::array& words, int64_t c, const py::object& out, const std::optional<std::string>& isa,
                 std::optional<int> threads) {
  constexpr const char* kName = "unpack_bits";
  const uint32_t* from = bit_rows(kName, "bits", words, c);
  Shape shape = shape_of(words);
  shape.back() = c;
  py::array x = output_array(kName, out, DType::s8, shape);
  auto* to = static_cast<int8_t*>(x.mutable_data());
  const int64_t rows = rows_before_last(words);
  const Isa level = isa_argument(isa);
  {
    py::gil_scoped_release release;
    unpack_bits(from, rows, bit_words(c), c, to, c, level, threads_argument(threads));
  }
  return x;
}

py::array max_pool(const py::array& words, int64_t c, const Pair& kernel, const Pair& stride, const Padding& padding,
                   const Pair& dilation, const py::object& out, const std::optional<std::string>& isa,
                   std::optional<int> threads) {
  constexpr const char* kName = "max_pool_bits";
  Conv2dShape s = conv2d_shape(kName, words, c, kernel[0], kernel[1], stride, padding, dilation, 1);
  const uint32_t* from = bit_rows(kName, "x", words, c);
  s.c = c;
  Shape shape = output_shape(s);
  shape.back() = bit_words(c);
  py::array y = output_words(kName, out, shape);
  auto* to = static_cast<uint32_t*>(y.mutable_data());
  const Isa level = isa_argument(isa);
  {
    py::gil_scoped_release release;
    max_pool_bits(from, bit_words(c), s, to, bit_words(c), level, threads_argument(threads));
  }
  return y;
}

// words: (oc, kh, kw, w) or (n, w); depth: channels of a group.
XnorWeights pack_weights(const py::array& words, int64_t depth, int64_t groups) {
  constexpr const char* kName = "pack_xnor";
  if (words.ndim() != 2 && words.ndim() != 4) {
    throw py::value_error("pack_xnor: weights have " + std::to_string(words.ndim()) + " axes, must have 2 or 4");
  }
  const uint32_t* rows = bit_rows(kName, "weights", words, depth);
  const bool matrix = words.ndim() == 2;
  XnorWeights out{{}, words.shape(0), matrix ? 1 : words.shape(1), matrix ? 1 : words.shape(2), depth * groups, groups};
  py::gil_scoped_release release;
  out.packed = pack_xnor_rows(rows, {.c = out.c, .oc = out.oc, .kh = out.kh, .kw = out.kw, .groups = groups});
  return out;
}

py::object gemm(const py::array& a, int64_t k, const XnorWeights& b, const Optional& scale, const Optional& bias,
                const Optional& input_scale, const Optional& residual, const Optional& threshold, const Optional& flip,
                const Clamp& clamp, int32_t zero_point, std::optional<int> out_dtype, bool want_bits,
                const py::object& out, const std::optional<std::string>& isa, std::optional<int> threads) {
  constexpr const char* kName = "xnor_gemm";
  need_rank(kName, "a", a, 2);
  const uint32_t* from = bit_rows(kName, "a", a, k);
  if (k != b.c || b.kh != 1 || b.kw != 1) {
    throw py::value_error("xnor_gemm: a has k = " + std::to_string(k) + ", b has k = " + std::to_string(b.c));
  }
  const int64_t m = a.shape(0);
  XnorArguments args(kName, {m, b.oc});
  args.fill(scale, bias, input_scale, residual, threshold, flip, clamp, zero_point);
  args.outputs(out_dtype, want_bits, out);
  const Isa level = isa_argument(isa);
  {
    py::gil_scoped_release release;
    xnor_gemm(from, m, bit_words(k), b.packed, args.y, b.oc, args.e, level, threads_argument(threads));
  }
  return args.result();
}

// x: words of c bits (c given), or real numbers.
py::object convolve(const py::array& x, std::optional<int64_t> c, const XnorWeights& w, const Pair& stride,
                    const Padding& padding, const Pair& dilation, int pad_value, const Optional& scale,
                    const Optional& bias, const Optional& input_scale, const Optional& residual,
                    const Optional& threshold, const Optional& flip, const Clamp& clamp, int32_t zero_point,
                    std::optional<int> out_dtype, bool want_bits, const py::object& out,
                    const std::optional<std::string>& isa, std::optional<int> threads) {
  constexpr const char* kName = "xnor_conv2d";
  Conv2dShape s = conv2d_shape(kName, x, w.oc, w.kh, w.kw, stride, padding, dilation, w.groups);
  py::array pixels = x;
  DType dtype = DType::f32;
  if (c) {
    bit_rows(kName, "x", x, *c);
    s.c = *c;
  } else {
    const auto real = array_dtype(x);
    if (!real || *real == DType::s32) {
      throw py::type_error(std::string(kName) + ": x is " + dtype_text(x) + ", must be float32, int8 or uint8");
    }
    dtype = *real;
    pixels = dense(x);
  }
  if (s.c != w.c) {
    throw py::value_error("xnor_conv2d: x has " + std::to_string(s.c) + " channels, w (with groups) has " +
                          std::to_string(w.c));
  }
  XnorArguments args(kName, output_shape(s));
  args.fill(scale, bias, input_scale, residual, threshold, flip, clamp, zero_point);
  args.outputs(out_dtype, want_bits, out);
  const void* from = pixels.data();
  const Isa level = isa_argument(isa);
  const auto pad = static_cast<PadValue>(pad_value);
  {
    py::gil_scoped_release release;
    if (c) {
      xnor_conv2d(static_cast<const uint32_t*>(from), bit_words(s.c), s, w.packed, pad, args.y, s.oc, args.e, level,
                  threads_argument(threads));
    } else {
      xnor_conv2d(from, dtype, s.c, {}, s, w.packed, pad, args.y, s.oc, args.e, level, threads_argument(threads));
    }
  }
  return args.result();
}

// a: words (planes, ..., w) of k bits; b: a list of weights. Bases both int32 or both float32; b_basis (planes, n).
struct Planes {
  BitPlanes bits;
  std::vector<PackedXnor> weights;
  DType dtype;
  py::array a_basis, b_basis;

  Planes(const char* function, const py::array& a, int64_t k, bool zero_one, const std::vector<XnorWeights>& b,
         const py::array& a_terms, const py::array& b_terms) {
    bits.bits = bit_rows(function, "a", a, k);
    if (a.ndim() < 2 || b.empty()) throw py::value_error(std::string(function) + ": no planes");
    bits.count = a.shape(0);
    bits.ld = bit_words(k);
    bits.stride = bits.count ? a.size() / bits.count : 0;
    bits.zero_one = zero_one;
    for (const XnorWeights& w : b) {
      if (w.oc != b[0].oc || w.kh != b[0].kh || w.kw != b[0].kw || w.c != b[0].c || w.groups != b[0].groups) {
        throw py::value_error(std::string(function) + ": planes of the weights differ in shape");
      }
      weights.push_back(w.packed);
    }
    if (k != b[0].c) {
      throw py::value_error(std::string(function) + ": a has k = " + std::to_string(k) +
                            ", b has k = " + std::to_string(b[0].c));
    }
    dtype = array_dtype(a_terms) == DType::s32 ? DType::s32 : DType::f32;
    need_dtype(function, "a_basis", a_terms, dtype);
    need_dtype(function, "b_basis", b_terms, dtype);
    if (shape_of(a_terms) != Shape{bits.count}) {
      throw py::value_error(std::string(function) + ": a_basis is " + text(shape_of(a_terms)) + ", a has " +
                            std::to_string(bits.count) + " planes");
    }
    const Shape want{static_cast<py::ssize_t>(b.size()), b[0].oc};
    if (shape_of(b_terms) != want) {
      throw py::value_error(std::string(function) + ": b_basis is " + text(shape_of(b_terms)) + ", must be " +
                            text(want));
    }
    a_basis = dense(a_terms);
    b_basis = dense(b_terms);
  }
};

py::array bitserial(const py::array& a, int64_t k, bool zero_one, const std::vector<XnorWeights>& b,
                    const py::array& a_basis, const py::array& b_basis, const py::object& out,
                    const std::optional<std::string>& isa, std::optional<int> threads) {
  constexpr const char* kName = "bitserial_gemm";
  need_rank(kName, "a", a, 3);
  const Planes p(kName, a, k, zero_one, b, a_basis, b_basis);
  if (b[0].kh != 1 || b[0].kw != 1) throw py::value_error("bitserial_gemm: b is no matrix");
  const int64_t m = a.shape(1), n = b[0].oc, planes = static_cast<int64_t>(b.size());
  py::array y = output_array(kName, out, p.dtype, {m, n});
  const void *from = p.a_basis.data(), *terms = p.b_basis.data();
  void* to = y.mutable_data();
  const Isa level = isa_argument(isa);
  {
    py::gil_scoped_release release;
    auto run = [&](auto* c) {
      using T = std::remove_pointer_t<decltype(c)>;
      const T *first = static_cast<const T*>(from), *second = static_cast<const T*>(terms);
      if constexpr (std::is_same_v<T, float>) {
        bitserial_gemm(p.bits, m, p.weights.data(), planes, first, second, {.y = c, .ldy = n}, level,
                       threads_argument(threads));
      } else {
        bitserial_gemm(p.bits, m, p.weights.data(), planes, first, second, c, n, level, threads_argument(threads));
      }
    };
    p.dtype == DType::s32 ? run(static_cast<int32_t*>(to)) : run(static_cast<float*>(to));
  }
  return y;
}

// x: words (planes, batch, h, w, words).
py::array bitserial_convolve(const py::array& x, int64_t c, bool zero_one, const std::vector<XnorWeights>& w,
                             const Pair& stride, const Padding& padding, const Pair& dilation, int pad_value,
                             const py::array& x_basis, const py::array& w_basis, const py::object& out,
                             const std::optional<std::string>& isa, std::optional<int> threads) {
  constexpr const char* kName = "bitserial_conv2d";
  need_rank(kName, "x", x, 5);
  const Planes p(kName, x, c, zero_one, w, x_basis, w_basis);
  const Conv2dShape s = {.batch = x.shape(1),
                         .h = x.shape(2),
                         .w = x.shape(3),
                         .c = c,
                         .oc = w[0].oc,
                         .kh = w[0].kh,
                         .kw = w[0].kw,
                         .stride_h = stride[0],
                         .stride_w = stride[1],
                         .pad_top = padding[0],
                         .pad_left = padding[1],
                         .pad_bottom = padding[2],
                         .pad_right = padding[3],
                         .dilation_h = dilation[0],
                         .dilation_w = dilation[1],
                         .groups = w[0].groups};
  py::array y = output_array(kName, out, p.dtype, output_shape(s));
  const void *from = p.a_basis.data(), *terms = p.b_basis.data();
  void* to = y.mutable_data();
  const int64_t planes = static_cast<int64_t>(w.size());
  const Isa level = isa_argument(isa);
  {
    py::gil_scoped_release release;
    auto run = [&](auto* to_y) {
      using T = std::remove_pointer_t<decltype(to_y)>;
      const T *first = static_cast<const T*>(from), *second = static_cast<const T*>(terms);
      const auto pad = static_cast<PadValue>(pad_value);
      if constexpr (std::is_same_v<T, float>) {
        bitserial_conv2d(p.bits, s, pad, p.weights.data(), planes, first, second, {.y = to_y, .ldy = s.oc}, level,
                         threads_argument(threads));
      } else {
        bitserial_conv2d(p.bits, s, pad, p.weights.data(), planes, first, second, to_y, s.oc, level,
                         threads_argument(threads));
      }
    };
    p.dtype == DType::s32 ? run(static_cast<int32_t*>(to)) : run(static_cast<float*>(to));
  }
  return y;
}

}  // namespace

void bind_xnor(py::module_& m) {
  py::class_<XnorWeights>(m, "PackedXnor",
                          "Binary weights in the kernels' order; lowbit.PackedBits holds and makes it.")
      .def_property_readonly("shape",
                             [](const XnorWeights& w) { return py::make_tuple(w.oc, w.kh, w.kw, w.c / w.groups); })
      .def_readonly("groups", &XnorWeights::groups)
      .def_property_readonly("nbytes", [](const XnorWeights& w) { return w.packed.bytes(); });
  m.def("pack_bits", &pack, py::arg("x"), py::arg("threshold"), py::arg("flip"), py::arg("out"), py::arg("isa"),
        py::arg("threads"));
  m.def("pack_planes", &pack_into_planes, py::arg("x"), py::arg("bits"), py::arg("threshold"), py::arg("codes"),
        py::arg("isa"), py::arg("threads"));
  m.def("unpack_levels", &unpack_to_levels, py::arg("planes"), py::arg("c"), py::arg("level"), py::arg("isa"),
        py::arg("threads"));
  m.def("bitserial_pays", &bitserial_pays, py::arg("pairs"), py::arg("m"), py::arg("n"), py::arg("k"));
  m.def("unpack_bits", &unpack, py::arg("bits"), py::arg("c"), py::arg("out"), py::arg("isa"), py::arg("threads"));
  m.def("max_pool_bits", &max_pool, py::arg("x"), py::arg("c"), py::arg("kernel"), py::arg("stride"),
        py::arg("padding"), py::arg("dilation"), py::arg("out"), py::arg("isa"), py::arg("threads"));
  m.def("pack_xnor", &pack_weights, py::arg("rows"), py::arg("depth"), py::arg("groups"));
  m.def("xnor_gemm", &gemm, py::arg("a"), py::arg("k"), py::arg("b"), py::arg("scale"), py::arg("bias"),
        py::arg("input_scale"), py::arg("residual"), py::arg("threshold"), py::arg("flip"), py::arg("clamp"),
        py::arg("zero_point"), py::arg("out_dtype"), py::arg("bits"), py::arg("out"), py::arg("isa"),
        py::arg("threads"));
  m.def("xnor_conv2d", &convolve, py::arg("x"), py::arg("c"), py::arg("w"), py::arg("stride"), py::arg("padding"),
        py::arg("dilation"), py::arg("pad_value"), py::arg("scale"), py::arg("bias"), py::arg("input_scale"),
        py::arg("residual"), py::arg("threshold"), py::arg("flip"), py::arg("clamp"), py::arg("zero_point"),
        py::arg("out_dtype"), py::arg("bits"), py::arg("out"), py::arg("isa"), py::arg("threads"));
  m.def("bitserial_gemm", &bitserial, py::arg("a"), py::arg("k"), py::arg("zero_one"), py::arg("b"), py::arg("a_basis"),
        py::arg("b_basis"), py::arg("out"), py::arg("isa"), py::arg("threads"));
  m.def("bitserial_conv2d", &bitserial_convolve, py::arg("x"), py::arg("c"), py::arg("zero_one"), py::arg("w"),
        py::arg("stride"), py::arg("padding"), py::arg("dilation"), py::arg("pad_value"), py::arg("x_basis"),
        py::arg("w_basis"), py::arg("out"), py::arg("isa"), py::arg("threads"));
}

}  // namespace lowbit
