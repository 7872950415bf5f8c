// Small .lowbit files for tests, written from C++: tensors, ops, parameters, checksums.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <utility>
#include <vector>

namespace nets {

using Json = nlohmann::ordered_json;
using Bytes = std::vector<std::byte>;

inline std::string crc32_text(const std::string& bytes) {
  uint32_t crc = ~0u;
  for (unsigned char byte : bytes) {
    crc ^= byte;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ (crc & 1 ? 0xedb88320u : 0);
  }
  char text[9];
  std::snprintf(text, sizeof text, "%08x", static_cast<unsigned>(~crc));
  return text;
}

// A file of this header, padded, its own checksum made right; the data as it is.
inline Bytes sealed(Json header, const std::string& data) {
  const std::string key = "\"header_crc32\":\"";
  header["__metadata__"]["header_crc32"] = "00000000";
  std::string text = header.dump(-1, ' ', false, Json::error_handler_t::replace);
  text.append((64 - (8 + text.size()) % 64) % 64, ' ');
  text.replace(text.find(key) + key.size(), 8, crc32_text(text));
  std::string file(8, '\0');
  for (size_t i = 0; i < 8; ++i) file[i] = static_cast<char>(text.size() >> (8 * i) & 255);
  file += text + data;
  Bytes out(file.size());
  std::memcpy(out.data(), file.data(), file.size());
  return out;
}

class NetWriter {
 public:
  explicit NetWriter(uint32_t seed = 1) : random_(seed) {}

  // dtype "float32", "int8", "uint8"; a scale of 0 is none (float32, raw bytes).
  int tensor(const std::string& dtype, std::vector<int64_t> item, float scale = 0, int zero_point = 0) {
    item.insert(item.begin(), -1);
    Json entry = {{"name", "t" + std::to_string(tensors_.size())}, {"dtype", dtype}, {"shape", item}};
    if (scale > 0) {
      size_t index = 0;
      while (index < scales_.size() && scales_[index] != scale) ++index;
      if (index == scales_.size()) scales_.push_back(scale);
      entry["scale"] = index;
      entry["zero_point"] = zero_point;
    }
    tensors_.push_back(entry);
    return static_cast<int>(tensors_.size()) - 1;
  }
  int input(const std::string& dtype, std::vector<int64_t> item, float scale = 0, int zero_point = 0) {
    inputs_.push_back(tensor(dtype, std::move(item), scale, zero_point));
    return inputs_.back();
  }

  int op(const std::string& kind, std::vector<int> in, int out, Json attrs = Json::object(),
         Json params = Json::object()) {
    op(kind, std::move(in), std::vector<int>{out}, std::move(attrs), std::move(params));
    return out;
  }
  void op(const std::string& kind, std::vector<int> in, std::vector<int> outs, Json attrs, Json params) {
    ops_.push_back({{"op", kind},
                    {"name", kind + "_" + std::to_string(ops_.size())},
                    {"inputs", in},
                    {"outputs", outs},
                    {"attrs", attrs},
                    {"params", params}});
  }
  void output(int tensor) { outputs_.push_back(tensor); }
  int planes(int tensor, int bits) {
    tensors_[static_cast<size_t>(tensor)]["bits"] = bits;
    return tensor;
  }
  void make_dynamic(int tensor) { tensors_[static_cast<size_t>(tensor)]["dynamic"] = true; }

  template <typename T>
  std::string file(const std::string& name, const char* dtype, std::vector<int64_t> shape,
                   const std::vector<T>& values) {
    std::string bytes(values.size() * sizeof(T), '\0');
    if (!bytes.empty()) std::memcpy(bytes.data(), values.data(), bytes.size());
    files_.push_back({name, dtype, std::move(shape), std::move(bytes)});
    return name;
  }

  // Random int8 weights (oc, rest...), a scale per channel and a bias, as conv2d and gemm want them.
  Json weights(int64_t oc, std::vector<int64_t> rest) {
    int64_t depth = 1;
    for (int64_t d : rest) depth *= d;
    std::vector<int8_t> w(static_cast<size_t>(oc * depth));
    for (int8_t& v : w) v = static_cast<int8_t>(number(-127, 127));
    std::vector<float> scale(static_cast<size_t>(oc));
    for (float& s : scale) s = static_cast<float>(number(50, 150)) / 12800.0f / std::sqrt(static_cast<float>(depth));
    std::vector<int32_t> bias(static_cast<size_t>(oc));
    for (int32_t& b : bias) b = static_cast<int32_t>(number(-1000, 1000));
    const std::string at = "op" + std::to_string(ops_.size());
    rest.insert(rest.begin(), oc);
    return {{"weight", file(at + ".weight", "I8", rest, w)},
            {"weight_scale", file(at + ".weight_scale", "F32", {oc}, scale)},
            {"bias", file(at + ".bias", "I32", {oc}, bias)}};
  }

  Json plan() const {
    return {{"version", 1}, {"tensors", tensors_}, {"inputs", inputs_}, {"outputs", outputs_}, {"ops", ops_}};
  }

  Bytes bytes() const { return bytes(plan()); }
  Bytes bytes(const Json& plan) const {
    std::vector<File> files = files_;
    std::string scales(scales_.size() * sizeof(float), '\0');
    if (!scales.empty()) std::memcpy(scales.data(), scales_.data(), scales.size());
    files.push_back({"activation_scales", "F32", {static_cast<int64_t>(scales_.size())}, scales});
    Json header = {{"__metadata__", Json::object()}}, crcs = Json::object();
    std::string data;
    int pads = 0;
    for (const File& f : files) {
      if (data.size() % 64) {
        const size_t gap = 64 - data.size() % 64;
        header["__pad_" + std::to_string(pads++)] = {
            {"dtype", "U8"}, {"shape", {gap}}, {"data_offsets", {data.size(), data.size() + gap}}};
        data.append(gap, '\0');
      }
      header[f.name] = {
          {"dtype", f.dtype}, {"shape", f.shape}, {"data_offsets", {data.size(), data.size() + f.bytes.size()}}};
      crcs[f.name] = crc32_text(f.bytes);
      data += f.bytes;
    }
    header["__metadata__"] = {{"format", "lowbit"},         {"version", "1"},       {"plan", plan.dump()},
                              {"manifest", "{\"test\":1}"}, {"crc32", crcs.dump()}, {"header_crc32", "00000000"}};
    return sealed(header, data);
  }

  int64_t number(int64_t lo, int64_t hi) { return std::uniform_int_distribution<int64_t>(lo, hi)(random_); }

 private:
  struct File {
    std::string name, dtype;
    std::vector<int64_t> shape;
    std::string bytes;
  };
  std::mt19937 random_;
  std::vector<Json> tensors_, ops_;
  std::vector<int> inputs_, outputs_;
  std::vector<float> scales_;
  std::vector<File> files_;
};

// quantize, gemm, dequantize: (b, 3) -> (b, 2).
inline NetWriter tiny_net() {
  NetWriter net;
  const int x = net.input("float32", {3});
  const int q = net.op("quantize", {x}, net.tensor("int8", {3}, 0.1f, 3));
  const int y = net.op("gemm", {q}, net.tensor("int8", {2}, 0.1f, 3), Json::object(), net.weights(2, {3}));
  net.output(net.op("dequantize", {y}, net.tensor("float32", {2})));
  return net;
}

// A small net with most of what real ones have: stem, depthwise and pointwise layers, a residual, a fire module
// (concatenation written in place), squeeze and excite, look-up activation, pools, a float tail. (b, 3, 12, 12) -> (b,
// 10).
inline NetWriter small_net() {
  NetWriter net;
  const int x = net.input("float32", {3, 12, 12});
  const auto codes = [&](std::vector<int64_t> item, float scale = 0.1f) {
    return net.tensor("int8", std::move(item), scale, 3);
  };
  const auto pads = [](int p) { return Json{{"pads", {p, p, p, p}}}; };
  const int q = net.op("quantize", {x}, codes({12, 12, 3}, 0.03f), {{"nchw_to_nhwc", true}, {"lo", -127}});
  const int stem = net.op("conv2d", {q}, codes({12, 12, 16}), pads(1), net.weights(16, {3, 3, 3}));
  Json depthwise = pads(1);
  depthwise["groups"] = 16;
  const int deep = net.op("conv2d", {stem}, codes({12, 12, 16}), depthwise, net.weights(16, {3, 3, 1}));
  const int sum =
      net.op("conv2d", {deep, stem}, codes({12, 12, 16}), {{"rounding", "gemmlowp"}}, net.weights(16, {1, 1, 16}));
  const int squeeze = net.op("average_pool", {sum}, codes({1, 1, 16}), {{"kernel", {12, 12}}});
  std::vector<uint8_t> table(256);
  for (size_t i = 0; i < table.size(); ++i) table[i] = static_cast<uint8_t>(i * 7 + 3);
  const int gate = net.op("lookup", {squeeze}, net.tensor("uint8", {1, 1, 16}, 1.0f / 255, 0), Json::object(),
                          {{"table", net.file("gate.table", "U8", {256}, table)}});
  const int scaled = net.op("mul", {sum, gate}, codes({12, 12, 16}));
  const int pooled =
      net.op("max_pool", {scaled}, net.tensor("int8", {6, 6, 16}, 0.1f, 3), {{"kernel", {2, 2}}, {"strides", {2, 2}}});
  const int left =
      net.op("conv2d", {pooled}, net.tensor("int8", {6, 6, 8}, 0.1f, 3), Json::object(), net.weights(8, {1, 1, 16}));
  const int right =
      net.op("conv2d", {pooled}, net.tensor("int8", {6, 6, 24}, 0.1f, 3), pads(1), net.weights(24, {3, 3, 16}));
  const int both = net.op("concat", {left, right}, net.tensor("int8", {6, 6, 32}, 0.1f, 3), {{"axis", 3}});
  const int self = net.op("add", {both, both}, net.tensor("int8", {6, 6, 32}, 0.2f, 3), {{"lo", -100}});
  const int flat = net.op("reshape", {self}, net.tensor("int8", {6 * 6 * 32}, 0.2f, 3));
  const int logits = net.op("gemm", {flat}, net.tensor("float32", {10}), Json::object(), net.weights(10, {6 * 6 * 32}));
  net.output(net.op("softmax", {logits}, net.tensor("float32", {10})));
  return net;
}

// The operators that small_net has not: float layers, dynamic codes, moving values. (b, 2, 5, 6) float32 and (b, 8) raw
// bytes.
inline NetWriter other_net() {
  NetWriter net;
  const auto real = [&](std::vector<int64_t> item) { return net.tensor("float32", std::move(item)); };
  const auto floats = [&](const char* name, std::vector<int64_t> shape) {
    int64_t n = 1;
    for (int64_t d : shape) n *= d;
    std::vector<float> values(static_cast<size_t>(n));
    for (float& v : values) v = static_cast<float>(net.number(1, 100)) / 100;
    return net.file(name, "F32", shape, values);
  };
  const auto indices = [&](const char* name, std::vector<int32_t> values) {
    return net.file(name, "I32", {static_cast<int64_t>(values.size())}, values);
  };
  const int x = net.input("float32", {2, 5, 6});
  const int t = net.op("transpose", {x}, real({5, 6, 2}), {{"perm", {0, 2, 3, 1}}});
  const int c = net.op("conv2d_f32", {t}, real({3, 3, 4}), {{"strides", {2, 2}}, {"pads", {1, 1, 1, 1}}, {"min", 0}},
                       {{"weight", floats("c.w", {4, 3, 3, 2})}, {"bias", floats("c.b", {4})}});
  const int p = net.op("prelu", {c}, real({3, 3, 4}), Json::object(), {{"slope", floats("p.s", {4})}});
  const int b = net.op("binary", {p, c}, real({3, 3, 4}), {{"kind", "sub"}, {"max", 5}});
  const int k = net.op("binary", {b}, real({3, 3, 4}), {{"kind", "mul"}}, {{"b", floats("k.b", {4})}});
  const int u = net.op("unary", {k}, real({3, 3, 4}), {{"kind", "clip"}, {"alpha", -1}, {"beta", 2.5}});
  const int a = net.op("average_pool", {u}, real({2, 2, 4}), {{"kernel", {2, 2}}, {"count_include_pad", true}});
  const int r = net.op("resize", {a}, real({3, 2, 4}), {{"mode", "linear"}},
                       {{"rows0", indices("r.r0", {0, 0, 1})},
                        {"rows1", indices("r.r1", {0, 1, 1})},
                        {"row_weight", floats("r.rw", {3})},
                        {"cols0", indices("r.c0", {0, 1})},
                        {"cols1", indices("r.c1", {1, 1})},
                        {"col_weight", floats("r.cw", {2})}});
  const int n = net.op("resize", {r}, real({2, 4, 4}), {{"mode", "nearest"}},
                       {{"rows", indices("n.r", {2, 0})}, {"cols", indices("n.c", {0, 0, 1, 1})}});
  const int s = net.op("slice", {n}, real({2, 2, 3}), {{"starts", {0, 0, 3, 0}}, {"steps", {1, 1, -2, 1}}});
  const int w =
      net.op("pad", {s}, real({4, 3, 3}), {{"before", {0, 1, 0, 0}}, {"after", {0, 1, 1, 0}}, {"value", 0.5}});
  const int d = net.op("quantize_dynamic", {w}, net.tensor("uint8", {4, 3, 3}));
  const int y = net.op("conv2d", {d}, real({4, 3, 6}), {{"rounding", "single"}}, net.weights(6, {1, 1, 3}));
  const int flat = net.op("reshape", {y}, real({72}));
  net.output(net.op("gemm_f32", {flat}, real({5}), Json::object(), {{"weight", floats("g.w", {5, 72})}}));
  net.output(net.op("dequantize", {d}, real({4, 3, 3})));
  const int raw = net.input("uint8", {8});
  std::vector<float> table(256, 0.25f);
  net.output(net.op("lookup", {raw}, real({8}), Json::object(), {{"table", net.file("table", "F32", {256}, table)}}));
  net.make_dynamic(d);
  return net;
}

// Packed weights: 8-bit products, and a codebook with a scale for every channel. (b, 3, 12, 12) -> (b, 10).
inline NetWriter few_bits_net() {
  NetWriter net;
  const auto packed = [&](int bits, int64_t oc, int64_t depth) {
    Json params = net.weights(oc, {depth});
    std::vector<uint8_t> bytes(static_cast<size_t>((oc * depth * bits + 7) / 8));
    for (uint8_t& b : bytes) b = static_cast<uint8_t>(net.number(0, 255));
    if (oc * depth * bits % 8) bytes.back() &= static_cast<uint8_t>((1 << oc * depth * bits % 8) - 1);
    const auto size = static_cast<int64_t>(bytes.size());
    params["weight"] = net.file(params["weight"].get<std::string>() + ".packed", "U8", {size}, bytes);
    return params;
  };
  const Json window = {{"kernel", {3, 3}}, {"pads", {1, 1, 1, 1}}, {"bits", 5}, {"hi", 15}};
  Json deep = window;
  deep.update({{"bits", 3}, {"groups", 7}});
  const auto real = [&](std::vector<int64_t> item) { return net.tensor("float32", std::move(item)); };
  const auto codes = [&](int64_t c) { return net.tensor("uint8", {3, 12, c}, 0.1f, 0); };
  const int x = net.input("float32", {3, 12, 12});
  const int q = net.op("quantize", {x}, codes(12), {{"hi", 31}});
  const int a = net.op("conv2d", {q}, codes(7), window, packed(5, 7, 108));
  const int b = net.op("conv2d", {a}, real({3, 12, 7}), {{"bits", 7}}, packed(7, 7, 7));
  const int c = net.op("conv2d", {a, a}, codes(7), deep, packed(3, 7, 9));
  const int g = net.op("gemm", {c}, real({3, 12, 7}), {{"bits", 2}}, packed(2, 7, 7));
  const int s = net.op("binary", {b, g}, real({3, 12, 7}), {{"kind", "add"}});
  const Json book = packed(2, 10, 252);
  const int f = net.op("reshape", {s}, real({252}));
  const int y = net.op("gemm_codebook", {f}, real({10}), {{"bits", 2}},
                       {{"codebook", net.file("book", "F32", {4}, std::vector<float>{-1, 0, 1, 0.5f})},
                        {"weight", book["weight"]},
                        {"scale", book["weight_scale"]}});
  net.output(y);
  return net;
}

// Planes: levels of 2, 3 and 1 bits, both outputs of a product, a residual, groups. (b, 3, 12, 12) -> (b, 10).
inline NetWriter planes_net() {
  NetWriter net;
  const auto real = [&](int64_t c) { return net.tensor("float32", {3, 12, c}); };
  const auto planes = [&](int64_t c, int bits) { return net.planes(net.tensor("planes", {3, 12, c}), bits); };
  const auto floats = [&](const std::string& name, std::vector<int64_t> shape) {
    int64_t n = 1;
    for (int64_t d : shape) n *= d;
    std::vector<float> values(static_cast<size_t>(n));  // such that sums are exact, whatever their order
    for (float& v : values) v = static_cast<float>(net.number(-100, 100)) / 64;
    return net.file(name, "F32", std::move(shape), values);
  };
  const auto with_levels = [&](Json params, const std::string& name, int bits) {
    std::vector<float> threshold((size_t{1} << bits) - 1);
    std::vector<uint8_t> codes(size_t{1} << bits);
    for (size_t i = 0; i < codes.size(); ++i) codes[i] = static_cast<uint8_t>(codes.size() - 1 - i);
    for (size_t i = 0; i < threshold.size(); ++i) threshold[i] = static_cast<float>(i) / 4 - 0.5f;
    params["threshold"] = net.file(name + ".t", "F32", {static_cast<int64_t>(threshold.size())}, threshold);
    params["codes"] = net.file(name + ".c", "U8", {static_cast<int64_t>(codes.size())}, codes);
    return params;
  };
  const auto product = [&](const std::string& name, int64_t w_bits, int64_t x_bits, int64_t n, int64_t depth) {
    std::vector<uint8_t> bytes;
    for (int64_t i = 0; i < w_bits * ((n * depth + 7) / 8); ++i) {
      bytes.push_back(static_cast<uint8_t>(net.number(0, 255)));
      if ((i + 1) % ((n * depth + 7) / 8) == 0 && n * depth % 8)
        bytes.back() &= static_cast<uint8_t>((1 << n * depth % 8) - 1);
    }
    return Json{{"weight", net.file(name + ".w", "U8", {w_bits, (n * depth + 7) / 8}, bytes)},
                {"weight_basis", floats(name + ".v", {w_bits, n})},
                {"input_basis", floats(name + ".a", {x_bits})},
                {"bias", floats(name + ".b", {n})}};
  };
  const Json window = {{"kernel", {3, 3}}, {"pads", {1, 1, 1, 1}}, {"min", -1}};
  const int x = net.input("float32", {3, 12, 12});
  const int q = net.op("quantize_levels", {x}, planes(12, 2), Json::object(), with_levels(Json::object(), "q", 2));
  const int a =
      net.op("conv2d_bitserial", {q}, planes(33, 3), window, with_levels(product("a", 2, 2, 33, 108), "a", 3));
  const int b = real(64), c = planes(64, 1);
  net.op("conv2d_bitserial", {a}, {b, c}, {{"kernel", {1, 1}}}, with_levels(product("b", 1, 3, 64, 33), "b", 1));
  Json grouped = window;
  grouped["groups"] = 2;
  const int d = net.op("conv2d_bitserial", {c, b}, real(64), grouped, product("d", 3, 1, 64, 288));
  const int e = net.op("quantize_levels", {d}, planes(64, 4), Json::object(), with_levels(Json::object(), "e", 4));
  const int f = net.op("dequantize_levels", {e}, real(64), Json::object(), {{"basis", floats("f.a", {4})}});
  const int g = net.op("gemm_bitserial", {e, f}, real(64), Json::object(), product("g", 2, 4, 64, 64));
  const int flat = net.op("reshape", {g}, net.tensor("float32", {2304}));
  const int h = net.op("quantize_levels", {flat}, net.planes(net.tensor("planes", {2304}), 1), Json::object(),
                       with_levels(Json::object(), "h", 1));
  net.output(net.op("gemm_bitserial", {h}, net.tensor("float32", {10}), Json::object(), product("y", 1, 1, 10, 2304)));
  return net;
}

// Bits: thresholds whole and real, both outputs of a product, a residual, a scale map, pools, rows that are no whole
// words. (b, 3, 12, 12) -> (b, 10).
inline NetWriter binary_net() {
  NetWriter net;
  const auto real = [&](std::vector<int64_t> item) { return net.tensor("float32", std::move(item)); };
  const auto bits = [&](std::vector<int64_t> item) { return net.tensor("bits", std::move(item)); };
  const auto packed = [&](const char* name, int64_t weights) {
    std::vector<uint8_t> bytes(static_cast<size_t>((weights + 7) / 8));
    for (uint8_t& b : bytes) b = static_cast<uint8_t>(net.number(0, 255));
    if (weights % 8) bytes.back() &= static_cast<uint8_t>((1 << weights % 8) - 1);
    return net.file(name, "U8", {static_cast<int64_t>(bytes.size())}, bytes);
  };
  const auto floats = [&](const char* name, int64_t n) {
    std::vector<float> values(static_cast<size_t>(n));
    for (float& v : values) v = static_cast<float>(net.number(-100, 100)) / 100;
    return net.file(name, "F32", {n}, values);
  };
  const auto flips = [&](const char* name, int64_t n) {
    std::vector<uint8_t> values(static_cast<size_t>(n));
    for (uint8_t& v : values) v = static_cast<uint8_t>(net.number(0, 1));
    return net.file(name, "U8", {n}, values);
  };
  std::vector<int32_t> whole(34);
  for (int32_t& t : whole) t = static_cast<int32_t>(net.number(-20, 20));
  const Json window = {{"kernel", {3, 3}}, {"pads", {1, 1, 1, 1}}};
  Json grouped = window, mapped = window;
  grouped.update({{"groups", 2}, {"pad_value", -1}});
  mapped.update({{"input_scale", true}, {"pad_value", 1}, {"min", -3}});

  const int x = net.input("float32", {3, 12, 12});
  const int b = net.op("binarize", {x}, bits({3, 12, 12}), Json::object(),
                       {{"threshold", floats("b.t", 12)}, {"flip", flips("b.f", 12)}});
  const int c = net.op("xnor_conv2d", {b}, bits({3, 12, 34}), grouped,
                       {{"weight", packed("c.w", 34 * 9 * 6)},
                        {"threshold", net.file("c.t", "I32", {34}, whole)},
                        {"flip", flips("c.f", 34)}});
  const int r = net.op("xnor_conv2d", {c}, real({3, 12, 34}), window, {{"weight", packed("r.w", 34 * 9 * 34)}});
  const int k = net.op("xnor_gemm", {c}, real({3, 12, 1}), Json::object(),
                       {{"weight", packed("k.w", 34)}, {"scale", floats("k.s", 1)}});
  const int y = real({3, 12, 34}), z = bits({3, 12, 34});
  net.op("xnor_conv2d", {c, r, k}, {y, z}, mapped,
         {{"weight", packed("y.w", 34 * 9 * 34)},
          {"scale", floats("y.s", 34)},
          {"bias", floats("y.b", 34)},
          {"threshold", floats("y.t", 34)},
          {"flip", flips("y.f", 34)}});
  const int s =
      net.op("xnor_conv2d", {z, y}, bits({3, 12, 34}), {{"kernel", {1, 1}}}, {{"weight", packed("s.w", 34 * 34)}});
  const int p = net.op("max_pool", {s}, bits({2, 5, 34}), {{"kernel", {2, 3}}, {"strides", {1, 2}}},
                       {{"flip", flips("p.f", 34)}});
  const int f = net.op("reshape", {p}, bits({340}));
  const int d = net.op("dequantize", {f}, real({340}));
  const int again = net.op("binarize", {d}, bits({340}));
  net.output(net.op("xnor_gemm", {again}, real({10}), Json::object(),
                    {{"weight", packed("g.w", 3400)}, {"scale", floats("g.s", 10)}, {"bias", floats("g.b", 10)}}));
  return net;
}

}  // namespace nets
