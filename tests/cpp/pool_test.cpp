// The thread pool: every part once, nested calls, several callers, fork, many short jobs, more threads than cores.
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <numeric>
#include <thread>
#include <vector>

#include "expect.h"
#include "lowbit/threads.h"
#include "thread_pool.h"

using namespace lowbit;

namespace {

void every_part_once() {
  for (int parts : {1, 2, 3, 8, 33}) {
    std::vector<std::atomic<int>> seen(static_cast<size_t>(parts));
    parallel(parts, [&](int part, int total) {
      if (total == parts) seen[static_cast<size_t>(part)].fetch_add(1);
    });
    for (auto& count : seen) EXPECT(count == 1);
  }
}

// Plain memory written by one job and read by the next: the pool must order them (TSan looks).
void jobs_are_ordered() {
  std::vector<int64_t> data(10007, 0);
  const int64_t n = static_cast<int64_t>(data.size());
  for (int round = 0; round < 300; ++round) {
    const int threads = 1 + round % 4;
    parallel_for(threads, n, 64, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) data[static_cast<size_t>(i)] += i;
    });
  }
  for (int64_t i = 0; i < n; ++i) EXPECT(data[static_cast<size_t>(i)] == 300 * i);
}

void ranges_cover_and_respect_the_grain() {
  for (int64_t n : {0, 1, 63, 64, 65, 1000}) {
    for (int64_t grain : {0, 1, 7, 64, 5000}) {
      std::vector<std::atomic<int>> seen(static_cast<size_t>(n));
      std::atomic<int> ranges{0};
      parallel_for(3, n, grain, [&](int64_t begin, int64_t end) {
        ++ranges;
        EXPECT(begin < end && end <= n && begin % std::max<int64_t>(grain, 1) == 0);
        for (int64_t i = begin; i < end; ++i) seen[static_cast<size_t>(i)].fetch_add(1);
      });
      for (auto& count : seen) EXPECT(count == 1);
      EXPECT(ranges <= 3);
    }
  }
}

void nested_calls_run_in_their_caller() {
  std::atomic<int> inner{0};
  parallel(4, [&](int, int) {
    const std::thread::id me = std::this_thread::get_id();
    parallel(3, [&](int, int total) {
      EXPECT(std::this_thread::get_id() == me);
      EXPECT(total == 3);
      ++inner;
    });
  });
  EXPECT(inner == 12);
}

void several_callers() {
  std::vector<std::thread> callers;
  std::vector<int64_t> sums(4, 0);
  for (size_t c = 0; c < sums.size(); ++c) {
    callers.emplace_back([&sums, c] {
      for (int round = 0; round < 200; ++round) {
        int64_t parts[3] = {};
        parallel(3, [&](int part, int) { parts[part] = part + 1; });
        sums[c] += std::accumulate(parts, parts + 3, int64_t{0});
      }
    });
  }
  for (std::thread& t : callers) t.join();
  for (int64_t sum : sums) EXPECT(sum == 200 * 6);
}

void work_after_a_pause() {  // workers have gone to sleep
  for (int round = 0; round < 5; ++round) {
    usleep(3000);
    std::atomic<int> count{0};
    parallel(3, [&](int, int) { ++count; });
    EXPECT(count == 3);
  }
}

void workers_sleep_through_jobs_without_a_part_for_them() {
  std::vector<int64_t> data(8, 0);
  for (int round = 0; round < 20; ++round) {
    for (int parts : {8, 2, 2, 2, 5, 2, 8, 3}) {
      parallel(parts, [&](int part, int) { ++data[static_cast<size_t>(part)]; });
      usleep(static_cast<useconds_t>(round % 4 * 60));  // around the time that a worker spins
    }
  }
  EXPECT(data == (std::vector<int64_t>{160, 160, 80, 60, 60, 40, 40, 40}));
}

void a_forked_child_has_its_own_pool() {
#ifndef __SANITIZE_THREAD__  // TSan refuses threads in a child of a threaded process
  for (int generation = 0; generation < 3; ++generation) {
    const pid_t child = fork();
    if (child == 0) {
      std::atomic<int> count{0};
      for (int round = 0; round < 20; ++round) parallel(4, [&](int, int) { ++count; });
      _exit(count == 80 ? 0 : 1);
    }
    int status = -1;
    EXPECT(waitpid(child, &status, 0) == child);
    EXPECT(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    every_part_once();  // the parent's pool goes on
  }
#endif
}

void thread_counts_are_checked() {
  EXPECT(num_threads() >= 1);
  set_num_threads(3);
  EXPECT(num_threads() == 3 && resolve_threads(0) == 3 && resolve_threads(2) == 2);
  set_num_threads(0);
  EXPECT_THROWS(std::invalid_argument, "-1", set_num_threads(-1));
  EXPECT_THROWS(std::invalid_argument, "-2", resolve_threads(-2));
  EXPECT_THROWS(std::invalid_argument, "100000", resolve_threads(100000));
}

}  // namespace

int main() {
  every_part_once();
  jobs_are_ordered();
  ranges_cover_and_respect_the_grain();
  nested_calls_run_in_their_caller();
  several_callers();
  work_after_a_pause();
  workers_sleep_through_jobs_without_a_part_for_them();
  a_forked_child_has_its_own_pool();
  thread_counts_are_checked();
  return expect::failures() != 0;
}
