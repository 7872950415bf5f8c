// Classifies raw images with a .lowbit network: no Python, no framework.
//
//   cmake -S examples/cpp -B build -DCMAKE_PREFIX_PATH="$(python -m lowbit --cmakedir)" && cmake --build build
//   build/classify net.lowbit images.bin [threads]
//
// images.bin holds images one after the other as the network takes them: float32 values, or bytes where its input is
// uint8.
#include <lowbit/lowbit.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <vector>

namespace {

std::vector<char> read_all(const char* path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error(std::string("cannot open ") + path);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

size_t items(const lowbit::TensorInfo& info) {
  size_t n = 1;
  for (size_t i = 1; i < info.shape.size(); ++i) n *= static_cast<size_t>(info.shape[i]);
  return n;
}

void classify(const char* net, const char* images, int threads) {
  const lowbit::Model model = lowbit::Model::open(net);
  const bool raw = model.inputs()[0].dtype == lowbit::DType::u8;
  const std::vector<char> bytes = read_all(images);
  const size_t image = items(model.inputs()[0]), classes = items(model.outputs()[0]);
  const size_t image_bytes = image * (raw ? 1 : sizeof(float));
  const size_t count = bytes.size() / image_bytes;
  if (count * image_bytes != bytes.size()) {
    throw std::runtime_error(std::to_string(bytes.size()) + " bytes are no multiple of an image's " +
                             std::to_string(image_bytes));
  }

  lowbit::Session session(model, {.threads = threads});
  std::vector<float> scores(classes);
  for (size_t i = 0; i < count; ++i) {
    const char* begin = bytes.data() + i * image_bytes;
    const auto start = std::chrono::steady_clock::now();
    if (raw) {
      session.run(std::span(reinterpret_cast<const uint8_t*>(begin), image), scores);
    } else {
      session.run(std::span(reinterpret_cast<const float*>(begin), image), scores);
    }
    const double ms = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
    const auto best = std::max_element(scores.begin(), scores.end());
    std::printf("image %zu: class %td, score %.4f, %.3f ms\n", i, best - scores.begin(), *best, ms);
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(stderr, "usage: classify net.lowbit images.bin [threads]\n");
    return 2;
  }
  try {
    classify(argv[1], argv[2], argc > 3 ? std::atoi(argv[3]) : 0);
    return 0;
  } catch (const std::exception& e) {
    std::fprintf(stderr, "classify: %s\n", e.what());
    return 1;
  }
}
