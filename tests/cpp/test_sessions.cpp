// Sessions in several threads on one model, and in a forked child. Under TSan this also tests the kernels' use of the
// pool.
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <thread>

#include "expect.h"
#include "lowbit/lowbit.h"
#include "net_writer.h"

using namespace lowbit;

namespace {

using Floats = std::vector<float>;

Floats input(size_t batch) {
  Floats x(batch * 432);
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i * 37 % 101) / 25.0f - 2.0f;
  return x;
}

Floats run(Session& session, size_t batch) {
  Floats y(batch * 10);
  session.run(input(batch), y);
  return y;
}

void several_threads(const Model& model, const std::vector<Floats>& expected) {
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      Session session(model, {.threads = 1 + t % 3});
      for (size_t round = 0; round < 12; ++round) {
        const size_t batch = 1 + round % expected.size();
        if (run(session, batch) != expected[batch - 1]) ++wrong;
      }
    });
  }
  for (std::thread& t : threads) t.join();
  EXPECT(wrong == 0);
}

void a_forked_child(const Model& model, const Floats& expected) {
#ifndef __SANITIZE_THREAD__  // TSan refuses threads in a child of a threaded process
  Session session(model, {.threads = 2});
  EXPECT(run(session, 1) == expected);
  const pid_t child = fork();
  if (child == 0) _exit(run(session, 1) == expected ? 0 : 1);
  int status = -1;
  EXPECT(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
  EXPECT(run(session, 1) == expected);
#else
  (void)model;
  (void)expected;
#endif
}

}  // namespace

int main() {
  const Model model = Model::from_bytes(nets::small_net().bytes());
  Session session(model, {.threads = 1});
  std::vector<Floats> expected;
  for (size_t batch = 1; batch <= 3; ++batch) expected.push_back(run(session, batch));
  several_threads(model, expected);
  a_forked_child(model, expected[0]);
  return expect::failures() != 0;
}
