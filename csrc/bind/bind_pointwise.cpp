// The doors of pointwise on NumPy arrays. Results go into arrays that the caller made; sizes come from the arrays.
#include "bind.h"
#include "lowbit/pointwise.h"

namespace lowbit {
namespace {

using Level = std::optional<std::string>;
using Threads = std::optional<int>;

DType dtype_of(const char* name, const py::array& a) {
  if (a.dtype().equal(py::dtype::of<float>())) return DType::f32;
  if (a.dtype().equal(py::dtype::of<int8_t>())) return DType::s8;
  if (a.dtype().equal(py::dtype::of<uint8_t>())) return DType::u8;
  if (a.dtype().equal(py::dtype::of<int32_t>())) return DType::s32;
  throw py::type_error(std::string(name) + ": dtype " + py::str(a.dtype()).cast<std::string>() + " is not supported");
}

const void* input(const char* name, const py::array& a) {
  if (!(a.flags() & py::array::c_style)) throw py::value_error(std::string(name) + " is not C-contiguous");
  return a.data();
}

void* output(const char* name, py::array& a) {
  if (!(a.flags() & py::array::c_style)) throw py::value_error(std::string(name) + " is not C-contiguous");
  return a.mutable_data();  // throws where the array is read-only
}

template <typename T>
const T* input_as(const char* name, const py::array& a) {
  if (!a.dtype().equal(py::dtype::of<T>())) {
    throw py::type_error(std::string(name) + ": dtype " + py::str(a.dtype()).cast<std::string>() + " is not " +
                         py::str(py::dtype::of<T>()).cast<std::string>());
  }
  return static_cast<const T*>(input(name, a));
}

template <typename T>
T* output_as(const char* name, py::array& a) {
  input_as<T>(name, a);
  return static_cast<T*>(output(name, a));
}

void same_size(const char* name, int64_t size, int64_t expected) {
  if (size != expected) {
    throw py::value_error(std::string(name) + " has " + std::to_string(size) + " elements, expected " +
                          std::to_string(expected));
  }
}

void check_rank(const char* name, const py::array& a, py::ssize_t rank) {
  if (a.ndim() != rank) {
    throw py::value_error(std::string(name) + " has " + std::to_string(a.ndim()) + " axes, expected " +
                          std::to_string(rank));
  }
}

Codes codes(const char* name, const py::array& a, float scale, int32_t zero_point) {
  return Codes{dtype_of(name, a), zero_point, scale};
}

// (n, h, w, c) and the window; the output array must have its shape.
Conv2dShape pool_shape(const py::array& x, const py::array& y, std::pair<int64_t, int64_t> kernel,
                       std::pair<int64_t, int64_t> stride, std::array<int64_t, 4> padding,
                       std::pair<int64_t, int64_t> dilation) {
  check_rank("x", x, 4);
  check_rank("y", y, 4);
  Conv2dShape s;
  s.batch = x.shape(0), s.h = x.shape(1), s.w = x.shape(2), s.c = x.shape(3);
  s.kh = kernel.first, s.kw = kernel.second;
  s.stride_h = stride.first, s.stride_w = stride.second;
  s.pad_top = padding[0], s.pad_left = padding[1], s.pad_bottom = padding[2], s.pad_right = padding[3];
  s.dilation_h = dilation.first, s.dilation_w = dilation.second;
  if (s.stride_h > 0 && s.stride_w > 0 && s.batch > 0) {  // the door refuses the others
    const int64_t expected[4] = {s.batch, s.out_h(), s.out_w(), s.c};
    for (int i = 0; i < 4; ++i) same_size("an axis of y", y.shape(i), expected[i]);
  }
  return s;
}

template <typename E>
E by_name(const char* what, const std::string& name, std::initializer_list<const char*> names) {
  int i = 0;
  for (const char* known : names) {
    if (name == known) return static_cast<E>(i);
    ++i;
  }
  throw py::value_error(std::string(what) + ": '" + name + "' is unknown");
}

void bind_quantize(py::module_& m) {
  m.def(
      "quantize",
      [](const py::array& x, float scale, int32_t zero_point, py::array& q, int32_t lo, int32_t hi, const Level& isa,
         Threads threads) {
        const float* from = input_as<float>("x", x);
        const Codes out = codes("q", q, scale, zero_point);
        void* to = output("q", q);
        const int64_t n = x.size();
        same_size("q", q.size(), n);
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
        check_rank("x", x, 4);
        check_rank("q", q, 4);
        const float* from = input_as<float>("x", x);
        const Codes out = codes("q", q, scale, zero_point);
        void* to = output("q", q);
        const int64_t batch = x.shape(0), c = x.shape(1), plane = x.shape(2) * x.shape(3), ldq = q.shape(3);
        same_size("q", q.size(), batch * plane * ldq);
        const Isa level = isa_argument(isa);
        py::gil_scoped_release release;
        quantize_nchw(from, batch, c, plane, out, to, ldq, lo, hi, level, threads_argument(threads));
      },
      py::arg("x"), py::arg("scale"), py::arg("zero_point"), py::arg("q"), py::arg("lo") = -128, py::arg("hi") = 255,
      py::arg("isa") = py::none(), py::arg("threads") = py::none());
  m.def(
      "dequantize",
      [](const py::array& q, float scale, int32_t zero_point, py::array& x, const Level& isa, Threads threads) {
        const Codes in = codes("q", q, scale, zero_point);
        const void* from = input("q", q);
        float* to = output_as<float>("x", x);
        const int64_t n = q.size();
        same_size("x", x.size(), n);
        const Isa level = isa_argument(isa);
        py::gil_scoped_release release;
        dequantize(from, n, in, to, level, threads_argument(threads));
      },
      py::arg("q"), py::arg("scale"), py::arg("zero_point"), py::arg("x"), py::arg("isa") = py::none(),
      py::arg("threads") = py::none());
  m.def(
      "min_max",
      [](const py::array& x, const Level& isa, Threads threads) {
        const float* from = input_as<float>("x", x);
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
        const uint8_t* from = static_cast<const uint8_t*>(input("x", x));
        const void* values = input("table", table);
        void* to = output("y", y);
        if (dtype_of("x", x) != DType::u8 && dtype_of("x", x) != DType::s8)
          throw py::type_error("x is not int8 or uint8");
        if (!table.dtype().equal(y.dtype())) throw py::type_error("table and y differ in dtype");
        const bool f32 = dtype_of("y", y) == DType::f32;
        if (!f32 && y.itemsize() != 1) throw py::type_error("y is not int8, uint8 or float32");
        check_rank("table", table, 2);
        same_size("a row of table", table.shape(1), 256);
        const int64_t n = x.size(), channels = table.shape(0);
        same_size("y", y.size(), n);
        const Isa level = isa_argument(isa);
        py::gil_scoped_release release;
        lookup(from, n, values, f32, channels, to, level, threads_argument(threads));
      },
      py::arg("x"), py::arg("table"), py::arg("y"), py::arg("isa") = py::none(), py::arg("threads") = py::none());
}

void bind_arithmetic(py::module_& m) {
  // A quantised array is three arguments: codes, scale, zero point.
  m.def(
      "add_i8",
      [](const py::array& a, float sa, int32_t za, const py::array& b, float sb, int32_t zb, py::array& y, float sy,
         int32_t zy, int32_t lo, int32_t hi, const Level& isa, Threads threads) {
        const Codes ca = codes("a", a, sa, za), cb = codes("b", b, sb, zb), cy = codes("y", y, sy, zy);
        const void *pa = input("a", a), *pb = input("b", b);
        void* to = output("y", y);
        const int64_t n = a.size();
        same_size("b", b.size(), n);
        same_size("y", y.size(), n);
        const Isa level = isa_argument(isa);
        py::gil_scoped_release release;
        add_i8(pa, ca, pb, cb, n, to, cy, lo, hi, level, threads_argument(threads));
      },
      py::arg("a"), py::arg("a_scale"), py::arg("a_zero_point"), py::arg("b"), py::arg("b_scale"),
      py::arg("b_zero_point"), py::arg("y"), py::arg("y_scale"), py::arg("y_zero_point"), py::arg("lo") = -128,
      py::arg("hi") = 255, py::arg("isa") = py::none(), py::arg("threads") = py::none());
  m.def(
      "mul_i8",
      [](const py::array& a, float sa, int32_t za, const py::array& b, float sb, int32_t zb, py::array& y, float sy,
         int32_t zy, int32_t lo, int32_t hi, const Level& isa, Threads threads) {
        check_rank("a", a, 3);
        check_rank("b", b, 2);
        const Codes ca = codes("a", a, sa, za), cb = codes("b", b, sb, zb), cy = codes("y", y, sy, zy);
        const void *pa = input("a", a), *pb = input("b", b);
        void* to = output("y", y);
        const int64_t outer = a.shape(0), repeat = a.shape(1), inner = a.shape(2);
        same_size("b", b.size(), outer * inner);
        same_size("y", y.size(), a.size());
        const Isa level = isa_argument(isa);
        py::gil_scoped_release release;
        mul_i8(pa, ca, pb, cb, outer, repeat, inner, to, cy, lo, hi, level, threads_argument(threads));
      },
      py::arg("a"), py::arg("a_scale"), py::arg("a_zero_point"), py::arg("b"), py::arg("b_scale"),
      py::arg("b_zero_point"), py::arg("y"), py::arg("y_scale"), py::arg("y_zero_point"), py::arg("lo") = -128,
      py::arg("hi") = 255, py::arg("isa") = py::none(), py::arg("threads") = py::none());
  m.def(
      "binary_f32",
      [](const std::string& op, const py::array& a, const py::array& b, py::array& y, float lo, float hi,
         const Level& isa, Threads threads) {
        const Binary binary = by_name<Binary>("op", op, {"add", "mul", "sub", "div"});
        check_rank("a", a, 3);
        check_rank("b", b, 2);
        const float *pa = input_as<float>("a", a), *pb = input_as<float>("b", b);
        float* to = output_as<float>("y", y);
        const int64_t outer = a.shape(0), repeat = a.shape(1), inner = a.shape(2);
        same_size("b", b.size(), outer * inner);
        same_size("y", y.size(), a.size());
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
            "op", op, {"relu", "clip", "sigmoid", "hard_sigmoid", "hard_swish", "swish", "leaky_relu", "tanh", "exp"});
        const float* from = input_as<float>("x", x);
        float* to = output_as<float>("y", y);
        const int64_t n = x.size();
        same_size("y", y.size(), n);
        const Isa level = isa_argument(isa);
        py::gil_scoped_release release;
        unary_f32(unary, from, n, alpha, beta, to, level, threads_argument(threads));
      },
      py::arg("op"), py::arg("x"), py::arg("y"), py::arg("alpha") = 0.0f, py::arg("beta") = 0.0f,
      py::arg("isa") = py::none(), py::arg("threads") = py::none());
  m.def(
      "prelu_f32",
      [](const py::array& x, const py::array& slope, py::array& y, const Level& isa, Threads threads) {
        const float *from = input_as<float>("x", x), *slopes = input_as<float>("slope", slope);
        float* to = output_as<float>("y", y);
        const int64_t n = x.size(), channels = slope.size();
        same_size("y", y.size(), n);
        const Isa level = isa_argument(isa);
        py::gil_scoped_release release;
        prelu_f32(from, n, slopes, channels, to, level, threads_argument(threads));
      },
      py::arg("x"), py::arg("slope"), py::arg("y"), py::arg("isa") = py::none(), py::arg("threads") = py::none());
  m.def(
      "softmax_f32",
      [](const py::array& x, py::array& y, const Level& isa, Threads threads) {
        check_rank("x", x, 2);
        const float* from = input_as<float>("x", x);
        float* to = output_as<float>("y", y);
        same_size("y", y.size(), x.size());
        const int64_t rows = x.shape(0), n = x.shape(1);
        const Isa level = isa_argument(isa);
        py::gil_scoped_release release;
        softmax_f32(from, rows, n, to, level, threads_argument(threads));
      },
      py::arg("x"), py::arg("y"), py::arg("isa") = py::none(), py::arg("threads") = py::none());
}

void bind_pool(py::module_& m) {
  using Pair = std::pair<int64_t, int64_t>;
  using Four = std::array<int64_t, 4>;
  m.def(
      "max_pool",
      [](const py::array& x, py::array& y, Pair kernel, Pair stride, Four padding, Pair dilation, const Level& isa,
         Threads threads) {
        const Conv2dShape shape = pool_shape(x, y, kernel, stride, padding, dilation);
        const DType dtype = dtype_of("x", x);
        if (!x.dtype().equal(y.dtype())) throw py::type_error("x and y differ in dtype");
        const void* from = input("x", x);
        void* to = output("y", y);
        const Isa level = isa_argument(isa);
        py::gil_scoped_release release;
        max_pool(from, dtype, shape.c, shape, to, shape.c, level, threads_argument(threads));
      },
      py::arg("x"), py::arg("y"), py::arg("kernel"), py::arg("stride") = Pair{1, 1}, py::arg("padding") = Four{},
      py::arg("dilation") = Pair{1, 1}, py::arg("isa") = py::none(), py::arg("threads") = py::none());
  m.def(
      "average_pool_i8",
      [](const py::array& x, float sx, int32_t zx, py::array& y, float sy, int32_t zy, Pair kernel, Pair stride,
         Four padding, Pair dilation, bool count_include_pad, Pair overhang, const Level& isa, Threads threads) {
        const Conv2dShape shape = pool_shape(x, y, kernel, stride, padding, dilation);
        const Codes cx = codes("x", x, sx, zx), cy = codes("y", y, sy, zy);
        const void* from = input("x", x);
        void* to = output("y", y);
        const Isa level = isa_argument(isa);
        py::gil_scoped_release release;
        average_pool_i8(from, cx, shape.c, shape, PoolCount(count_include_pad, overhang.first, overhang.second), to, cy,
                        shape.c, level, threads_argument(threads));
      },
      py::arg("x"), py::arg("x_scale"), py::arg("x_zero_point"), py::arg("y"), py::arg("y_scale"),
      py::arg("y_zero_point"), py::arg("kernel"), py::arg("stride") = Pair{1, 1}, py::arg("padding") = Four{},
      py::arg("dilation") = Pair{1, 1}, py::arg("count_include_pad") = false, py::arg("overhang") = Pair{0, 0},
      py::arg("isa") = py::none(), py::arg("threads") = py::none());
  m.def(
      "average_pool_f32",
      [](const py::array& x, py::array& y, Pair kernel, Pair stride, Four padding, Pair dilation,
         bool count_include_pad, Pair overhang, const Level& isa, Threads threads) {
        const Conv2dShape shape = pool_shape(x, y, kernel, stride, padding, dilation);
        const float* from = input_as<float>("x", x);
        float* to = output_as<float>("y", y);
        const Isa level = isa_argument(isa);
        py::gil_scoped_release release;
        average_pool_f32(from, shape.c, shape, PoolCount(count_include_pad, overhang.first, overhang.second), to,
                         shape.c, level, threads_argument(threads));
      },
      py::arg("x"), py::arg("y"), py::arg("kernel"), py::arg("stride") = Pair{1, 1}, py::arg("padding") = Four{},
      py::arg("dilation") = Pair{1, 1}, py::arg("count_include_pad") = false, py::arg("overhang") = Pair{0, 0},
      py::arg("isa") = py::none(), py::arg("threads") = py::none());
}

void bind_layout(py::module_& m) {
  m.def(
      "resize_nearest",
      [](const py::array& x, const py::array& rows, const py::array& cols, py::array& y, const Level& isa,
         Threads threads) {
        check_rank("x", x, 4);
        const DType dtype = dtype_of("x", x);
        if (!x.dtype().equal(y.dtype())) throw py::type_error("x and y differ in dtype");
        const int32_t *r = input_as<int32_t>("rows", rows), *c = input_as<int32_t>("cols", cols);
        const void* from = input("x", x);
        void* to = output("y", y);
        const int64_t batch = x.shape(0), h = x.shape(1), w = x.shape(2), channels = x.shape(3);
        const int64_t out_h = rows.size(), out_w = cols.size();
        same_size("y", y.size(), batch * out_h * out_w * channels);
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
        check_rank("x", x, 4);
        auto taps = [](const Taps& t) {
          const auto& [first, second, weight] = t;
          same_size("second", second.size(), first.size());
          same_size("weight", weight.size(), first.size());
          return LinearTaps{input_as<int32_t>("first", first), input_as<int32_t>("second", second),
                            input_as<float>("weight", weight), first.size()};
        };
        const LinearTaps r = taps(rows), c = taps(cols);
        const int64_t batch = x.shape(0), h = x.shape(1), w = x.shape(2), channels = x.shape(3);
        same_size("y", y.size(), batch * r.size * c.size * channels);
        const DType dtype = dtype_of("x", x);
        const void* from = input("x", x);
        void* to = output("y", y);
        const Codes cx = codes("x", x, sx, zx), cy = codes("y", y, sy, zy);
        if ((dtype == DType::f32) != (cy.dtype == DType::f32)) throw py::type_error("only one of x and y is float32");
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
        check_rank("x", x, static_cast<py::ssize_t>(perm.size()));
        if (!x.dtype().equal(y.dtype())) throw py::type_error("x and y differ in dtype");
        const std::vector<int64_t> dims(x.shape(), x.shape() + x.ndim());
        const void* from = input("x", x);
        void* to = output("y", y);
        same_size("y", y.size(), x.size());
        const int64_t size = x.itemsize();
        py::gil_scoped_release release;
        transpose(from, dims.data(), perm.data(), static_cast<int>(perm.size()), size, to, threads_argument(threads));
      },
      py::arg("x"), py::arg("perm"), py::arg("y"), py::arg("threads") = py::none());
  m.def(
      "copy_2d",
      [](const py::array& src, py::array& dst, int64_t row_bytes, Threads threads) {
        check_rank("src", src, 2);
        check_rank("dst", dst, 2);
        same_size("the rows of dst", dst.shape(0), src.shape(0));
        const int64_t rows = src.shape(0), from = src.shape(1) * src.itemsize(), to = dst.shape(1) * dst.itemsize();
        if (row_bytes < 0 || row_bytes > from || row_bytes > to) throw py::value_error("row_bytes is beyond a row");
        const void* s = input("src", src);
        void* d = output("dst", dst);
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
