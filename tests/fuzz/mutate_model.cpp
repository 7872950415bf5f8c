// Malformed files made from a good one, for compilers without libFuzzer: cut at every byte, bits flipped, bytes
// overwritten, and plans and headers changed member by member with the checksums made right, so that the checks behind
// them are reached. Usage: mutate_model [changes = 800] [seed = 1]
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>

#include "fuzz_model.h"
#include "net_writer.h"

using nets::Bytes;
using nets::Json;

namespace {

std::mt19937_64 g_random;

size_t below(size_t n) { return static_cast<size_t>(g_random() % n); }

void feed(const Bytes& bytes) { LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()); }

void cut_everywhere(const Bytes& good) {
  for (size_t n = 0; n < good.size(); ++n) feed(Bytes(good.begin(), good.begin() + static_cast<std::ptrdiff_t>(n)));
}

void flip_bits(const Bytes& good, int64_t rounds) {
  for (int64_t r = 0; r < rounds; ++r) {
    Bytes bad = good;
    for (size_t flips = 1 + below(3); flips > 0; --flips) {
      // The header decides most, so most flips go there.
      const size_t at = below(below(2) ? bad.size() : std::min<size_t>(bad.size(), 4096));
      bad[at] ^= std::byte{1} << below(8);
    }
    feed(bad);
  }
}

void collect(Json& node, std::vector<Json*>& out) {
  out.push_back(&node);
  if (node.is_structured()) {
    for (Json& child : node) collect(child, out);
  }
}

Json interesting() {
  static const Json values[] = {-1,
                                0,
                                1,
                                2,
                                3,
                                7,
                                127,
                                128,
                                255,
                                256,
                                -128,
                                -129,
                                65536,
                                4096,
                                INT32_MAX,
                                INT32_MIN,
                                INT64_MAX,
                                INT64_MIN,
                                UINT64_MAX,
                                0.5,
                                1e300,
                                -1e-300,
                                "",
                                "t1",
                                "gemm",
                                "uint8",
                                "float32",
                                nullptr,
                                true,
                                Json::array(),
                                Json::object(),
                                Json::array({1, 1}),
                                Json::array({-1, 4}),
                                Json::array({2, 2, 2, 2})};
  return values[below(std::size(values))];
}

void change_once(Json& root) {
  std::vector<Json*> nodes;
  collect(root, nodes);
  Json& node = *nodes[below(nodes.size())];
  switch (below(8)) {
    case 0:
      node = interesting();
      break;
    case 1:
      node = Json(*nodes[below(nodes.size())]);
      break;
    case 2:
    case 3:
      if (node.is_number_integer()) node = node.get<int64_t>() + (below(2) ? 1 : -1);
      break;
    case 4:
      if (node.is_number_integer()) node = node.get<int64_t>() * (below(2) ? 2 : -1);
      break;
    case 5:
      if (node.is_structured() && !node.empty())
        node.erase(std::next(node.begin(), static_cast<std::ptrdiff_t>(below(node.size()))));
      break;
    case 6:
      if (node.is_array()) node.push_back(node.empty() || below(2) ? interesting() : Json(node[below(node.size())]));
      if (node.is_object()) node["more"] = interesting();
      break;
    case 7:
      if (node.is_array() && node.size() > 1) std::swap(node[0], node[below(node.size())]);
      break;
  }
}

void change_plans(const nets::NetWriter& net, int64_t rounds) {
  for (int64_t r = 0; r < rounds; ++r) {
    Json plan = net.plan();
    for (size_t changes = 1 + below(3); changes > 0; --changes) change_once(plan);
    feed(net.bytes(plan));
  }
}

void change_headers(const Bytes& good, int64_t rounds) {
  uint64_t size = 0;
  for (size_t i = 8; i-- > 0;) size = size << 8 | static_cast<uint64_t>(good[i]);
  const char* text = reinterpret_cast<const char*>(good.data());
  const Json header = Json::parse(std::string_view(text + 8, size));
  const std::string data(text + 8 + size, good.size() - 8 - size);
  for (int64_t r = 0; r < rounds; ++r) {
    Json changed = header;
    change_once(changed);
    if (!changed.is_object() || !changed.contains("__metadata__") || !changed["__metadata__"].is_object()) continue;
    std::string bytes = data;
    if (below(2)) bytes[below(bytes.size())] = static_cast<char>(g_random());  // weights, scales, tables
    feed(nets::sealed(changed, bytes));
  }
}

}  // namespace

int main(int argc, char** argv) {
  const int64_t rounds = argc > 1 ? std::atoll(argv[1]) : 800;
  g_random.seed(argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 1);
  cut_everywhere(nets::tiny_net().bytes());
  int64_t changed_plans = 0;
  for (const nets::NetWriter& net :
       {nets::small_net(), nets::other_net(), nets::binary_net(), nets::few_bits_net(), nets::planes_net()}) {
    const Bytes good = net.bytes();
    const int64_t opened = models_opened();
    feed(good);
    if (models_opened() == opened) {
      std::fprintf(stderr, "mutate_model: a good file does not open\n");
      return 1;
    }
    flip_bits(good, rounds);
    change_headers(good, rounds);
    const int64_t before = models_opened();
    change_plans(net, rounds);
    changed_plans += models_opened() - before;
  }
  std::printf("%lld models opened, %lld of them with a changed plan\n", static_cast<long long>(models_opened()),
              static_cast<long long>(changed_plans));
  return changed_plans < rounds / 50;  // most changes must be refused, but some reach the engine
}
