// The doors of pointwise on NumPy arrays. Results go into arrays that the caller made; sizes come from the arrays.
#include "bind_conv2d_shape.h"
#include "lowbit/pointwise.h"

namespace lowbit {
namespace {

using Level = std::optional<std::string>;
using Threads = std::optional<int>;

DType dtype_of(const char* function, const char* name, const py::array& a) {
  if (const auto dtype = array_dtype(a)) return *dtype;
  throw py::type_error(std::string(function) + ": " + name + " is " + dtype_text(a) + ", which no kernel takes");
}

const void* input(const char* function, const char* name, const py::array& a) {
  if (a.flags() & py::array::c_style) return a.data();
  throw py::value_error(std::string(function) + ": " + name + " is not C-contiguous");
}

void* output(const char* function, const char* name, py::array& a) {
  input(function, name, a);
  return a.mutable_data();  // throws where the array is read-only
}

const float* floats(const char* function, const char* name, const py::array& a) {
  need_dtype(function, name, a, DType::f32);
  return static_cast<const float*>(input(function, name, a));
}

float* output_floats(const char* function, const char* name, py::array& a) {
  need_dtype(function, name, a, DType::f32);
  return static_cast<float*>(output(function, name, a));
}

const int32_t* indices(const char* function, const char* name, const py::array& a) {
  need_dtype(function, name, a, DType::s32);
  return static_cast<const int32_t*>(input(function, name, a));
}

void same_size(const char* function, const char* name, int64_t size, int64_t expected) {
  if (size == expected) return;
  throw py::value_error(std::string(function) + ": " + name + " has " + std::to_string(size) + " elements, expected " +
                        std::to_string(expected));
}

void same_dtype(const char* function, const py::array& x, const py::array& y) {
  if (x.dtype().equal(y.dtype())) return;
  throw py::type_error(std::string(function) + ": x and y differ in dtype: " + dtype_text(x) + ", " + dtype_text(y));
}

Codes codes(const char* function, const char* name, const py::array& a, float scale, int32_t zero_point) {
  return Codes{dtype_of(function, name, a), zero_point, scale};
}

// (n, h, w, c) and the window; the output array must have its shape.
Conv2dShape pool_shape(const char* function, const py::array& x, const py::array& y, const Pair& kernel,
                       const Pair& stride, const Padding& padding, const Pair& dilation) {
  need_rank(function, "x", x, 4);
  need_rank(function, "y", y, 4);
  Conv2dShape s = conv2d_shape(function, x, 0, kernel[0], kernel[1], stride, padding, dilation, 1);
  if (s.stride_h > 0 && s.stride_w > 0 && s.batch > 0) {  // the door refuses the others
    const int64_t expected[4] = {s.batch, s.out_h(), s.out_w(), s.c};
    for (int i = 0; i < 4; ++i) same_size(function, "an axis of y", y.shape(i), expected[i]);
  }
  return s;
}

template <typename E>
E by_name(const char* function, const std::string& name, std::initializer_list<const char*> names) {
  int i = 0;
  for (const char* known : names) {
    if (name == known) return static_cast<E>(i);
    ++i;
  }
  throw py::value_error(std::string(function) + ": op '" + name + "' is unknown");
}

void bind_quantize(py::module_& m) {
  m.def(
      "quantize",
      [](const py::array& x, float scale, int32_t zero_point, py::array& q, int32_t lo, int32_t hi, const Level& isa,
         Threads threads) {
        const float* from = floats("quantize", "x", x);
        const Codes out = codes("quantize", "q", q, scale, zero_point);
        void* to = output("quantize", "q", q);
        const int64_t n = x.size();
        same_size("quantize", "q", q.size(), n);
        const Isa level = isa_argument(isa);
        py::gil_scoped_release release;
        quantize(from, n, out, to, lo, hi, level, threads_argument(threads));
      },
      py::arg("x"), py::arg("scale"), py::arg("zero_point"), py::arg("q"), py::arg("lo") = -128, py::arg("hi") = 255,
      py::arg("isa") = py::none(), py::arg("threads") = py::none());
  m.def(
      "quantize_nchw",
      [](const py::array& x, float scale, int32_t zero_point, py::array& q, int32_t lo, int32_t hi, const Level& isa,
         Threads threads) {
        need_rank("quantize_nchw", "x", x, 4);
        need_rank("quantize_nchw", "q", q, 4);
        const float* from = floats("quantize_nchw", "x", x);
        const Codes out = codes("quantize_nchw", "q", q, scale, zero_point);
        void* to = output("quantize_nchw", "q", q);
        const int64_t batch = x.shape(0), c = x.shape(1), plane = x.shape(2) * x.shape(3), ldq = q.shape(3);
        same_size("quantize_nchw", "q", q.size(), batch * plane * ldq);
        const Isa level = isa_argument(isa);
        py::gil_scoped_release release;
        quantize_nchw(from, batch, c, plane, out, to, ldq, lo, hi, level, threads_argument(threads));
      },
      py::arg("x"), py::arg("scale"), py::arg("zero_point"), py::arg("q"), py::arg("lo") = -128, py::arg("hi") = 255,
      py::arg("isa") = py::none(), py::arg("threads") = py::none());
  m.def(
      "dequantize",
      [](const py::array& q, float scale, int32_t zero_point, py::array& x, const Level& isa, Threads threads) {
        const Codes in = codes("dequantize", "q", q, scale, zero_point);
        const void* from = input("dequantize", "q", q);
        float* to = output_floats("dequantize", "x", x);
        const int64_t n = q.size();
        same_size("dequantize", "x", x.size(), n);
        const Isa level = isa_argument(isa);
        py::gil_scoped_release release;
        dequantize(from, n, in, to, level, threads_argument(threads));
      },
      py::arg("q"), py::arg("scale"), py::arg("zero_point"), py::arg("x"), py::arg("isa") = py::none(),
      py::arg("threads") = py::none());
  m.def(
      "min_max",
      [](const py::array& x, const Level& isa, Threads threads) {
        const float* from = floats("min_max", "x", x);
        const int64_t n = x.size();
        const Isa level = isa_argument(isa);
        float lo = 0, hi = 0;
        {
          py::gil_scoped_release release;
          min_max(from, n, lo, hi, level, threads_argument(threads));
        }
        return std::make_pair(lo, hi);
      },
      py::arg("x"), py::arg("isa") = py::none(), py::arg("threads") = py::none());
  m.def(
      "lookup",
      [](const py::array& x, const py::array& table, py::array& y, const Level& isa, Threads threads) {
        const uint8_t* from = static_cast<const uint8_t*>(input("lookup", "x", x));
        const void* values = input("lookup", "table", table);
        void* to = output("lookup", "y", y);
        if (dtype_of("lookup", "x", x) != DType::u8 && dtype_of("lookup", "x", x) != DType::s8)
          throw py::type_error("lookup: x is not int8 or uint8");
        if (!table.dtype().equal(y.dtype())) throw py::type_error("lookup: table and y differ in dtype");
        const bool f32 = dtype_of("lookup", "y", y) == DType::f32;
        if (!f32 && y.itemsize() != 1) throw py::type_error("lookup: y is not int8, uint8 or float32");
        need_rank("lookup", "table", table, 2);
        same_size("lookup", "a row of table", table.shape(1), 256);
        const int64_t n = x.size(), channels = table.shape(0);
        same_size("lookup", "y", y.size(), n);
        const Isa level = isa_argument(isa);
        py::gil_scoped_release release;
        lookup(from, n, values, f32, channels, to, level, threads_argument(threads));
      },
      py::arg("x"), py::arg("table"), py::arg("y"), py::arg("isa") = py::none(), py::arg("threads") = py::none());
}

Rounding rounding_argument(const char* function, const std::string& name) {
  if (name == "nearest_even") return Rounding::nearest_even;
  if (name == "gemmlowp") return Rounding::gemmlowp;
  if (name == "single") return Rounding::single;
  throw std::invalid_argument(std::string(function) + ": rounding '" + name +
                              "' is not one of nearest_even, gemmlowp, single");
}

void bind_arithmetic(py::module_& m) {
  // A quantised array is three arguments: codes, scale, zero point.
  m.def(
      "add_i8",
      [](const py::array& a, float sa, int32_t za, const py::array& b, float sb, int32_t zb, py::array& y, float sy,
         int32_t zy, int32_t lo, int32_t hi, const std::string& rounding, const Level& isa, Threads threads) {
        const Codes ca = codes("add_i8", "a", a, sa, za), cb = codes("add_i8", "b", b, sb, zb),
                    cy = codes("add_i8", "y", y, sy, zy);
        const void *pa = input("add_i8", "a", a), *pb = input("add_i8", "b", b);
        void* to = output("add_i8", "y", y);
        const int64_t n = a.size();
        same_size("add_i8", "b", b.size(), n);
        same_size("add_i8", "y", y.size(), n);
        const Rounding how = rounding_argument("add_i8", rounding);
        const Isa level = isa_argument(isa);
        py::gil_scoped_release release;
        add_i8(pa, ca, pb, cb, n, to, cy, lo, hi, how, level, threads_argument(threads));
      },
      py::arg("a"), py::arg("a_scale"), py::arg("a_zero_point"), py::arg("b"), py::arg("b_scale"),
      py::arg("b_zero_point"), py::arg("y"), py::arg("y_scale"), py::arg("y_zero_point"), py::arg("lo") = -128,
      py::arg("hi") = 255, py::arg("rounding") = "nearest_even", py::arg("isa") = py::none(),
      py::arg("threads") = py::none());
  m.def(
      "mul_i8",
      [](const py::array& a, float sa, int32_t za, const py::array& b, float sb, int32_t zb, py::array& y, float sy,
         int32_t zy, int32_t lo, int32_t hi, const std::string& rounding, const Level& isa, Threads threads) {
        need_rank("mul_i8", "a", a, 3);
        need_rank("mul_i8", "b", b, 2);
        const Codes ca = codes("mul_i8", "a", a, sa, za), cb = codes("mul_i8", "b", b, sb, zb),
                    cy = codes("mul_i8", "y", y, sy, zy);
        const void *pa = input("mul_i8", "a", a), *pb = input("mul_i8", "b", b);
        void* to = output("mul_i8", "y", y);
        const int64_t outer = a.shape(0), repeat = a.shape(1), inner = a.shape(2);
        same_size("mul_i8", "b", b.size(), outer * inner);
        same_size("mul_i8", "y", y.size(), a.size());
        const Rounding how = rounding_argument("mul_i8", rounding);
        const Isa level = isa_argument(isa);
        py::gil_scoped_release release;
        mul_i8(pa, ca, pb, cb, outer, repeat, inner, to, cy, lo, hi, how, level, threads_argument(threads));
      },
      py::arg("a"), py::arg("a_scale"), py::arg("a_zero_point"), py::arg("b"), py::arg("b_scale"),
      py::arg("b_zero_point"), py::arg("y"), py::arg("y_scale"), py::arg("y_zero_point"), py::arg("lo") = -128,
      py::arg("hi") = 255, py::arg("rounding") = "nearest_even", py::arg("isa") = py::none(),
      py::arg("threads") = py::none());
  m.def(
      "binary_f32",
      [](const std::string& op, const py::array& a, const py::array& b, py::array& y, float lo, float hi,
         const Level& isa, Threads threads) {
        const Binary binary = by_name<Binary>("binary_f32", op, {"add", "mul", "sub", "div"});
        need_rank("binary_f32", "a", a, 3);
        need_rank("binary_f32", "b", b, 2);
        const float *pa = floats("binary_f32", "a", a), *pb = floats("binary_f32", "b", b);
        float* to = output_floats("binary_f32", "y", y);
        const int64_t outer = a.shape(0), repeat = a.shape(1), inner = a.shape(2);
        same_size("binary_f32", "b", b.size(), outer * inner);
        same_size("binary_f32", "y", y.size(), a.size());
        const Isa level = isa_argument(isa);
        py::gil_scoped_release release;
        binary_f32(binary, pa, pb, outer, repeat, inner, lo, hi, to, level, threads_argument(threads));
      },
      py::arg("op"), py::arg("a"), py::arg("b"), py::arg("y"), py::arg("lo") = -__builtin_inff(),
      py::arg("hi") = __builtin_inff(), py::arg("isa") = py::none(), py::arg("threads") = py::none());
  m.def(
      "unary_f32",
      [](const std::string& op, const py::array& x, py::array& y, float alpha, float beta, const Level& isa,
         Threads threads) {
        const Unary unary = by_name<Unary>(
            "unary_f32", op,
            {"relu", "clip", "sigmoid", "hard_sigmoid", "hard_swish", "swish", "leaky_relu", "tanh", "exp"});
        const float* from = floats("unary_f32", "x", x);
        float* to = output_floats("unary_f32", "y", y);
        const int64_t n = x.size();
        same_size("unary_f32", "y", y.size(), n);
        const Isa level = isa_argument(isa);
        py::gil_scoped_release release;
        unary_f32(unary, from, n, alpha, beta, to, level, threads_argument(threads));
      },
      py::arg("op"), py::arg("x"), py::arg("y"), py::arg("alpha") = 0.0f, py::arg("beta") = 0.0f,
      py::arg("isa") = py::none(), py::arg("threads") = py::none());
  m.def(
      "prelu_f32",
      [](const py::array& x, const py::array& slope, py::array& y, const Level& isa, Threads threads) {
        const float *from = floats("prelu_f32", "x", x), *slopes = floats("prelu_f32", "slope", slope);
        float* to = output_floats("prelu_f32", "y", y);
        const int64_t n = x.size(), channels = slope.size();
        same_size("prelu_f32", "y", y.size(), n);
        const Isa level = isa_argument(isa);
        py::gil_scoped_release release;
        prelu_f32(from, n, slopes, channels, to, level, threads_argument(threads));
      },
      py::arg("x"), py::arg("slope"), py::arg("y"), py::arg("isa") = py::none(), py::arg("threads") = py::none());
  m.def(
      "softmax_f32",
      [](const py::array& x, py::array& y, const Level& isa, Threads threads) {
        need_rank("softmax_f32", "x", x, 2);
        const float* from = floats("softmax_f32", "x", x);
        float* to = output_floats("softmax_f32", "y", y);
        same_size("softmax_f32", "y", y.size(), x.size());
        const int64_t rows = x.shape(0), n = x.shape(1);
        const Isa level = isa_argument(isa);
        py::gil_scoped_release release;
        softmax_f32(from, rows, n, to, level, threads_argument(threads));
      },
      py::arg("x"), py::arg("y"), py::arg("isa") = py::none(), py::arg("threads") = py::none());
}

void bind_pool(py::module_& m) {
  m.def(
      "max_pool",
      [](const py::array& x, py::array& y, Pair kernel, Pair stride, Padding padding, Pair dilation, const Level& isa,
         Threads threads) {
        const Conv2dShape shape = pool_shape("max_pool", x, y, kernel, stride, padding, dilation);
        const DType dtype = dtype_of("max_pool", "x", x);
        same_dtype("max_pool", x, y);
        const void* from = input("max_pool", "x", x);
        void* to = output("max_pool", "y", y);
        const Isa level = isa_argument(isa);
        py::gil_scoped_release release;
        max_pool(from, dtype, shape.c, shape, to, shape.c, level, threads_argument(threads));
      },
      py::arg("x"), py::arg("y"), py::arg("kernel"), py::arg("stride") = Pair{1, 1}, py::arg("padding") = Padding{},
      py::arg("dilation") = Pair{1, 1}, py::arg("isa") = py::none(), py::arg("threads") = py::none());
  m.def(
      "average_pool_i8",
      [](const py::array& x, float sx, int32_t zx, py::array& y, float sy, int32_t zy, Pair kernel, Pair stride,
         Padding padding, Pair dilation, bool count_include_pad, Pair overhang, const std::string& rounding,
         const Level& isa, Threads threads) {
        const Conv2dShape shape = pool_shape("average_pool_i8", x, y, kernel, stride, padding, dilation);
        const Codes cx = codes("average_pool_i8", "x", x, sx, zx), cy = codes("average_pool_i8", "y", y, sy, zy);
        const void* from = input("average_pool_i8", "x", x);
        void* to = output("average_pool_i8", "y", y);
        const Rounding how = rounding_argument("average_pool_i8", rounding);
        const Isa level = isa_argument(isa);
        py::gil_scoped_release release;
        average_pool_i8(from, cx, shape.c, shape, PoolCount(count_include_pad, overhang[0], overhang[1]), to, cy,
                        shape.c, how, level, threads_argument(threads));
      },
      py::arg("x"), py::arg("x_scale"), py::arg("x_zero_point"), py::arg("y"), py::arg("y_scale"),
      py::arg("y_zero_point"), py::arg("kernel"), py::arg("stride") = Pair{1, 1}, py::arg("padding") = Padding{},
      py::arg("dilation") = Pair{1, 1}, py::arg("count_include_pad") = false, py::arg("overhang") = Pair{0, 0},
      py::arg("rounding") = "nearest_even", py::arg("isa") = py::none(), py::arg("threads") = py::none());
  m.def(
      "average_pool_f32",
      [](const py::array& x, py::array& y, Pair kernel, Pair stride, Padding padding, Pair dilation,
         bool count_include_pad, Pair overhang, const Level& isa, Threads threads) {
        const Conv2dShape shape = pool_shape("average_pool_f32", x, y, kernel, stride, padding, dilation);
        const float* from = floats("average_pool_f32", "x", x);
        float* to = output_floats("average_pool_f32", "y", y);
        const Isa level = isa_argument(isa);
        py::gil_scoped_release release;
        average_pool_f32(from, shape.c, shape, PoolCount(count_include_pad, overhang[0], overhang[1]), to, shape.c,
                         level, threads_argument(threads));
      },
      py::arg("x"), py::arg("y"), py::arg("kernel"), py::arg("stride") = Pair{1, 1}, py::arg("padding") = Padding{},
      py::arg("dilation") = Pair{1, 1}, py::arg("count_include_pad") = false, py::arg("overhang") = Pair{0, 0},
      py::arg("isa") = py::none(), py::arg("threads") = py::none());
}

void bind_layout(py::module_& m) {
  m.def(
      "resize_nearest",
      [](const py::array& x, const py::array& rows, const py::array& cols, py::array& y, const Level& isa,
         Threads threads) {
        need_rank("resize_nearest", "x", x, 4);
        const DType dtype = dtype_of("resize_nearest", "x", x);
        same_dtype("resize_nearest", x, y);
        const int32_t *r = indices("resize_nearest", "rows", rows), *c = indices("resize_nearest", "cols", cols);
        const void* from = input("resize_nearest", "x", x);
        void* to = output("resize_nearest", "y", y);
        const int64_t batch = x.shape(0), h = x.shape(1), w = x.shape(2), channels = x.shape(3);
        const int64_t out_h = rows.size(), out_w = cols.size();
        same_size("resize_nearest", "y", y.size(), batch * out_h * out_w * channels);
        const Isa level = isa_argument(isa);
        py::gil_scoped_release release;
        resize_nearest(from, dtype, batch, h, w, channels, r, out_h, c, out_w, to, level, threads_argument(threads));
      },
      py::arg("x"), py::arg("rows"), py::arg("cols"), py::arg("y"), py::arg("isa") = py::none(),
      py::arg("threads") = py::none());
  // Taps are (first, second, weight). Codes take their scales and zero points; floats ignore them.
  using Taps = std::tuple<py::array, py::array, py::array>;
  m.def(
      "resize_bilinear",
      [](const py::array& x, const Taps& rows, const Taps& cols, py::array& y, float sx, int32_t zx, float sy,
         int32_t zy, const Level& isa, Threads threads) {
        need_rank("resize_bilinear", "x", x, 4);
        auto taps = [](const Taps& t) {
          const auto& [first, second, weight] = t;
          same_size("resize_bilinear", "second", second.size(), first.size());
          same_size("resize_bilinear", "weight", weight.size(), first.size());
          return LinearTaps{indices("resize_bilinear", "first", first), indices("resize_bilinear", "second", second),
                            floats("resize_bilinear", "weight", weight), first.size()};
        };
        const LinearTaps r = taps(rows), c = taps(cols);
        const int64_t batch = x.shape(0), h = x.shape(1), w = x.shape(2), channels = x.shape(3);
        same_size("resize_bilinear", "y", y.size(), batch * r.size * c.size * channels);
        const DType dtype = dtype_of("resize_bilinear", "x", x);
        const void* from = input("resize_bilinear", "x", x);
        void* to = output("resize_bilinear", "y", y);
        const Codes cx = codes("resize_bilinear", "x", x, sx, zx), cy = codes("resize_bilinear", "y", y, sy, zy);
        if ((dtype == DType::f32) != (cy.dtype == DType::f32))
          throw py::type_error("resize_bilinear: only one of x and y is float32");
        const Isa level = isa_argument(isa);
        py::gil_scoped_release release;
        if (dtype == DType::f32) {
          resize_bilinear_f32(static_cast<const float*>(from), batch, h, w, channels, r, c, static_cast<float*>(to),
                              level, threads_argument(threads));
        } else {
          resize_bilinear_i8(from, cx, batch, h, w, channels, r, c, to, cy, level, threads_argument(threads));
        }
      },
      py::arg("x"), py::arg("rows"), py::arg("cols"), py::arg("y"), py::arg("x_scale") = 1.0f,
      py::arg("x_zero_point") = 0, py::arg("y_scale") = 1.0f, py::arg("y_zero_point") = 0, py::arg("isa") = py::none(),
      py::arg("threads") = py::none());
  m.def(
      "transpose",
      [](const py::array& x, const std::vector<int64_t>& perm, py::array& y, Threads threads) {
        need_rank("transpose", "x", x, static_cast<py::ssize_t>(perm.size()));
        same_dtype("transpose", x, y);
        const std::vector<int64_t> dims(x.shape(), x.shape() + x.ndim());
        const void* from = input("transpose", "x", x);
        void* to = output("transpose", "y", y);
        same_size("transpose", "y", y.size(), x.size());
        const int64_t size = x.itemsize();
        py::gil_scoped_release release;
        transpose(from, dims.data(), perm.data(), static_cast<int>(perm.size()), size, to, threads_argument(threads));
      },
      py::arg("x"), py::arg("perm"), py::arg("y"), py::arg("threads") = py::none());
  m.def(
      "copy_2d",
      [](const py::array& src, py::array& dst, int64_t row_bytes, Threads threads) {
        need_rank("copy_2d", "src", src, 2);
        need_rank("copy_2d", "dst", dst, 2);
        same_size("copy_2d", "the rows of dst", dst.shape(0), src.shape(0));
        const int64_t rows = src.shape(0), from = src.shape(1) * src.itemsize(), to = dst.shape(1) * dst.itemsize();
        if (row_bytes < 0 || row_bytes > from || row_bytes > to)
          throw py::value_error("copy_2d: row_bytes is beyond a row");
        const void* s = input("copy_2d", "src", src);
        void* d = output("copy_2d", "dst", dst);
        py::gil_scoped_release release;
        copy_2d(s, from, d, to, rows, row_bytes, threads_argument(threads));
      },
      py::arg("src"), py::arg("dst"), py::arg("row_bytes"), py::arg("threads") = py::none());
}

}  // namespace

void bind_pointwise(py::module_& m) {
  bind_quantize(m);
  bind_arithmetic(m);
  bind_pool(m);
  bind_layout(m);
}

}  // namespace lowbit
