// The model layer from C++: levels and threads agree bit for bit, kept tensors too; wrong calls say what is wrong; a
// warm session allocates nothing. What the operators should give is tested in tests/python against NumPy.
#include <atomic>
#include <cstdlib>
#include <new>

#include "expect.h"
#include "lowbit/lowbit.h"
#include "net_writer.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define COUNTS_ALLOCATIONS 0  // a sanitizer has its own malloc
#else
#define COUNTS_ALLOCATIONS 1
namespace {
std::atomic<int64_t> g_allocations{0};
}
extern "C" {
void* __libc_malloc(size_t);
void* __libc_calloc(size_t, size_t);
void* __libc_realloc(void*, size_t);
void* __libc_memalign(size_t, size_t);
void* malloc(size_t n) { return ++g_allocations, __libc_malloc(n); }
void* calloc(size_t n, size_t size) { return ++g_allocations, __libc_calloc(n, size); }
void* realloc(void* p, size_t n) { return ++g_allocations, __libc_realloc(p, n); }
void* aligned_alloc(size_t alignment, size_t n) { return ++g_allocations, __libc_memalign(alignment, n); }
}
#endif

using namespace lowbit;

namespace {

std::vector<float> random_input(nets::NetWriter& net, int64_t batch) {
  std::vector<float> x(static_cast<size_t>(batch * 3 * 12 * 12));
  for (float& v : x) v = static_cast<float>(net.number(-400, 400)) / 100.0f;
  return x;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

void every_level_and_thread_count_agrees(const Model& model, nets::NetWriter& net) {
  for (int64_t batch : {1, 2, 5}) {
    const std::vector<float> x = random_input(net, batch);
    std::vector<float> expected(static_cast<size_t>(batch * 10));
    Session({model}, {.threads = 1, .isa = Isa::scalar}).run(x, expected);
    size_t levels = 0;
    for (Isa isa : isas()) {
      for (int threads : {1, 2, 3}) {
        for (bool keep : {false, true}) {
          std::vector<float> y(expected.size(), -1);
          Session session(model, {.threads = threads, .isa = isa, .keep_tensors = keep});
          for (int repeat = 0; repeat < 2; ++repeat) {
            session.run(x, y);
            EXPECT(same_bits(y, expected));
          }
        }
      }
      ++levels;
    }
    EXPECT(levels == isas().size() && levels >= 1);
  }
}

void a_warm_session_allocates_nothing(const Model& model, nets::NetWriter& net) {
#if COUNTS_ALLOCATIONS
  for (Isa isa : isas()) {
    Session session(model, {.threads = 2, .isa = isa});
    std::vector<float> x = random_input(net, 3), y(30);
    const auto run = [&](size_t batch) {
      session.run(std::span(x).first(batch * 432), std::span(y).first(batch * 10));
    };
    const int64_t start = g_allocations;
    int quiet = 0;  // runs in a row; on a busy machine a worker may take part, and grow its scratch, only later
    for (int i = 0; i < 2000 && quiet < 20; ++i) {
      const int64_t before = g_allocations;
      run(static_cast<size_t>(3 - i % 3));
      quiet = g_allocations == before ? quiet + 1 : 0;
    }
    EXPECT(g_allocations > start);
    EXPECT(quiet == 20);
  }
#else
  (void)model;
  (void)net;
#endif
}

void wrong_calls_say_what_is_wrong(const Model& model) {
  Session session(model);
  std::vector<float> x(432), y(10);
  std::vector<uint8_t> bytes(432);
  EXPECT_THROWS(std::invalid_argument, "431 elements", session.run(std::span<const float>(x).first(431), y));
  EXPECT_THROWS(std::invalid_argument, "9 elements", session.run(x, std::span(y).first(9)));
  EXPECT_THROWS(std::invalid_argument, "'t0' is uint8, but must be float32", session.run(bytes, y));
  const int64_t shape[] = {1, 3, 12, 12}, wrong[] = {1, 12, 12, 3}, out[] = {1, 10}, two[] = {2, 10};
  const auto named = [&](std::string_view name, DType dtype, std::span<const int64_t> dims, void* data) {
    return TensorView{name, dtype, dims, data};
  };
  const std::string last = model.outputs()[0].name;
  const TensorView good_in = named("t0", DType::f32, shape, x.data()),
                   good_out = named(last, DType::f32, out, y.data());
  const auto run = [&](const std::vector<TensorView>& in, const std::vector<TensorView>& outs) {
    session.run(in, outs);
  };
  run({good_in}, {good_out});
  EXPECT_THROWS(std::invalid_argument, "'t0' is missing", run({}, {good_out}));
  EXPECT_THROWS(std::invalid_argument, "given twice", run({good_in, good_in}, {good_out}));
  EXPECT_THROWS(std::invalid_argument, "named 'z'", run({named("z", DType::f32, shape, x.data())}, {good_out}));
  EXPECT_THROWS(std::invalid_argument, "(1, 12, 12, 3), but must have (-1, 3, 12, 12)",
                run({named("t0", DType::f32, wrong, x.data())}, {good_out}));
  EXPECT_THROWS(std::invalid_argument, "(2, 10), but must have (1, 10)",
                run({good_in}, {named(last, DType::f32, two, y.data())}));
  EXPECT_THROWS(std::invalid_argument, "has no data", run({named("t0", DType::f32, shape, nullptr)}, {good_out}));
  EXPECT_THROWS(std::invalid_argument, "overlaps", session.run(x, std::span(x).last(10)));
  EXPECT_THROWS(std::invalid_argument, "keep_tensors", session.tensor_bytes(0));
  EXPECT_THROWS(std::invalid_argument, "threads", Session(model, {.threads = -1}));
  EXPECT_THROWS(std::invalid_argument, "empty", Session(Model{}));
  session.run(std::span<const float>{}, std::span<float>{});  // a batch of none
}

void what_the_caller_owns_stays_whole(const Model& model, nets::NetWriter& net) {
  // Exact-size heap blocks for the sanitizer; the guard behind the output for everybody else.
  const std::vector<float> x = random_input(net, 2), before = x;
  std::vector<float> y(20 + 16, 7.0f);
  Session session(model);
  session.run(x, std::span(y).first(20));
  EXPECT(same_bits(x, before));
  for (size_t i = 20; i < y.size(); ++i) EXPECT(y[i] == 7.0f);
}

void missing_and_wrong_files() {
  EXPECT_THROWS(std::runtime_error, "No such file", Model::open("/nowhere/net.lowbit"));
  EXPECT_THROWS(FormatError, "bytes are not a file", Model::from_bytes({}));
  nets::Bytes bytes = nets::small_net().bytes();
  bytes.back() ^= std::byte{1};
  EXPECT_THROWS(FormatError, "damaged", Model::from_bytes(bytes));
}

}  // namespace

int main() {
  nets::NetWriter net = nets::small_net();
  const Model model = Model::from_bytes(net.bytes());
  EXPECT(model.inputs().size() == 1 && model.inputs()[0].shape == std::vector<int64_t>({-1, 3, 12, 12}));
  EXPECT(model.manifest() == "{\"test\":1}");
  every_level_and_thread_count_agrees(model, net);
  a_warm_session_allocates_nothing(model, net);
  wrong_calls_say_what_is_wrong(model);
  what_the_caller_owns_stays_whole(model, net);
  const Model binary = Model::from_bytes(nets::binary_net().bytes());
  every_level_and_thread_count_agrees(binary, net);
  a_warm_session_allocates_nothing(binary, net);
  what_the_caller_owns_stays_whole(binary, net);
  const Model few_bits = Model::from_bytes(nets::few_bits_net().bytes());
  every_level_and_thread_count_agrees(few_bits, net);
  a_warm_session_allocates_nothing(few_bits, net);
  what_the_caller_owns_stays_whole(few_bits, net);
  const Model planes = Model::from_bytes(nets::planes_net().bytes());
  every_level_and_thread_count_agrees(planes, net);
  a_warm_session_allocates_nothing(planes, net);
  what_the_caller_owns_stays_whole(planes, net);
  missing_and_wrong_files();
  return expect::failures() != 0;
}
