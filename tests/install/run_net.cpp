// Opens the .lowbit file given on the command line, runs it on a ramp, prints what comes out; then the kernels alone.
#include <lowbit/lowbit.h>

#include <cstdio>
#include <exception>
#include <numeric>
#include <vector>

namespace {

int64_t items(const lowbit::TensorInfo& info) {
  return std::accumulate(info.shape.begin() + 1, info.shape.end(), int64_t{1}, std::multiplies<>());
}

void run_net(const char* path) {
  const lowbit::Model model = lowbit::Model::open(path);
  const lowbit::TensorInfo& in = model.inputs()[0];
  const lowbit::TensorInfo& out = model.outputs()[0];
  std::vector<float> x(static_cast<size_t>(items(in))), y(static_cast<size_t>(items(out)));
  for (size_t i = 0; i < x.size(); ++i) x[i] = 0.1f * static_cast<float>(i % 20) - 1.0f;
  lowbit::Session session(model, {.threads = 2});
  session.run(x, y);
  std::printf("%s -> %s:", in.name.c_str(), out.name.c_str());
  for (float v : y) std::printf(" %.6g", v);
  std::printf("\n");
}

void multiply() {
  const std::vector<int8_t> a = {1, 2, 3, 4, 5, 6}, b = {1, -1, 2, -2, 3, -3};  // (2, 3) x (3, 2)
  std::vector<int32_t> c(4);
  lowbit::gemm_i8(a.data(), lowbit::DType::s8, 2, 3, 0, lowbit::pack_i8(b.data(), lowbit::DType::s8, 3, 2, 2, 1), 0,
                  c.data(), 2, lowbit::Epilogue{});
  std::printf("gemm: %d %d %d %d\n", c[0], c[1], c[2], c[3]);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: run_net net.lowbit\n");
    return 2;
  }
  try {
    run_net(argv[1]);
    multiply();
    return 0;
  } catch (const std::exception& e) {
    std::fprintf(stderr, "run_net: %s\n", e.what());
    return 1;
  }
}
