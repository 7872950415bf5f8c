// One word of state publishes a job: (epoch << 16) | parts. Worker i runs part i, so that a thread meets the same rows
// from layer to layer, but it must claim the part first: a caller that is done with its own part runs those that no
// worker has begun, and so never waits for a worker that is asleep or has no core. A claim is the job's epoch in the
// part's word; a worker that comes late for an old job finds it claimed and never looks at the job's fields, which
// cannot change while a claimed part runs, because the publisher waits for it. Each worker sleeps on a word of its own
// and is woken for jobs that have a part for it; other jobs neither wake it nor keep it spinning.
#include "thread_pool.h"

#include <pthread.h>
#include <sched.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>

#include "lowbit/threads.h"

namespace lowbit {
namespace {

constexpr int kMaxThreads = 1024;

void cpu_relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

// Sleeping and waking costs 50 us and more; layers of a network follow each other within a few. So a worker spins this
// long before it sleeps (measured: sleeping at once loses a third of two threads' gain at 0.1 ms of work).
constexpr auto kSpin = std::chrono::microseconds(100);

thread_local bool t_inside = false;

class Pool {
 public:
  // False if another thread holds the pool.
  bool run(int parts, detail::PartFn fn, void* context) {
    std::unique_lock<std::mutex> hold(owner_, std::try_to_lock);
    if (!hold.owns_lock()) return false;
    while (workers_ < parts - 1) {
      const int index = workers_ + 1;
      try {
        std::thread([this, index, seen = state_.load()] { work(index, seen); }).detach();
      } catch (const std::system_error&) {
        return false;  // no more threads to be had: the caller does all parts
      }
      ++workers_;
    }
    fn_ = fn;
    context_ = context;
    pending_.store(parts - 1, std::memory_order_relaxed);
    ++epoch_;  // 2^48 jobs take a few years
    state_.store(epoch_ << 16 | static_cast<uint64_t>(parts));
    for (int part = 1; part < parts; ++part) {
      std::atomic<int>& asleep = seats_[part].asleep;
      if (asleep.load() && asleep.exchange(0)) asleep.notify_one();
    }
    t_inside = true;
    fn(context, 0, parts);
    for (int part = parts - 1; part > 0; --part) {
      if (claim(part, epoch_)) run_part(part, parts);
    }
    t_inside = false;
    for (int spins = 0; pending_.load(std::memory_order_acquire) != 0; ++spins) {
      if (spins < 1000) {
        cpu_relax();
      } else {
        sched_yield();  // more threads than cores: let the worker finish
      }
    }
    return true;
  }

  void lock() { owner_.lock(); }
  void unlock() { owner_.unlock(); }

 private:
  void work(int index, uint64_t seen) {
    t_inside = true;
    for (;;) {
      seen = wait(index, seen);
      if (claim(index, seen >> 16)) run_part(index, parts_of(seen));
    }
  }

  static int parts_of(uint64_t state) { return static_cast<int>(state & 0xffff); }

  bool claim(int part, uint64_t epoch) {
    std::atomic<uint64_t>& word = seats_[part].epoch;
    uint64_t last = word.load();
    return last < epoch && word.compare_exchange_strong(last, epoch);
  }

  void run_part(int part, int parts) {
    fn_(context_, part, parts);
    pending_.fetch_sub(1, std::memory_order_release);
  }

  // The next job that has a part for this worker.
  uint64_t wait(int index, uint64_t seen) {
    const auto is_mine = [&](uint64_t state) { return state != seen && parts_of(state) > index; };
    const auto start = std::chrono::steady_clock::now();
    for (int i = 1;; ++i) {
      const uint64_t now = state_.load(std::memory_order_acquire);
      if (is_mine(now)) return now;
      cpu_relax();
      if (i % 64 == 0 && std::chrono::steady_clock::now() - start > kSpin) break;
    }
    std::atomic<int>& asleep = seats_[index].asleep;
    for (;;) {
      asleep.store(1);  // before the look at state_, as the publisher stores state_ before it looks at asleep
      const uint64_t now = state_.load();
      if (is_mine(now)) {
        asleep.store(0);
        return now;
      }
      asleep.wait(1);
    }
  }

  std::mutex owner_;
  int workers_ = 0;
  uint64_t epoch_ = 0;
  detail::PartFn fn_ = nullptr;
  void* context_ = nullptr;
  struct alignas(64) Seat {
    std::atomic<uint64_t> epoch{0};  // the last job whose part of this number was claimed
    std::atomic<int> asleep{0};
  };
  Seat seats_[kMaxThreads];
  alignas(64) std::atomic<uint64_t> state_{0};
  alignas(64) std::atomic<int> pending_{0};
};

// Never destroyed: workers wait on it until the process ends. A fork leaves the child with a pool whose workers do not
// exist, so the child starts a new one and forgets the old.
Pool* g_pool = nullptr;

void before_fork() { g_pool->lock(); }
void after_fork_in_parent() { g_pool->unlock(); }
void after_fork_in_child() {
  g_pool = new Pool;
  t_inside = false;
}

Pool& pool() {
  static const bool once = [] {
    g_pool = new Pool;
    pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
    return true;
  }();
  (void)once;
  return *g_pool;
}

int positive_env(const char* name) {
  const char* text = std::getenv(name);
  if (!text || !*text) return 0;
  char* end = nullptr;
  const long n = std::strtol(text, &end, 10);
  return n >= 1 && n <= kMaxThreads && (*end == '\0' || *end == ',') ? static_cast<int>(n) : 0;  // OMP allows "4,2"
}

int cgroup_quota() {
  double quota = -1, period = 0;
  std::ifstream v2("/sys/fs/cgroup/cpu.max");
  std::string first;
  if (v2 >> first >> period) {
    if (first != "max") quota = std::strtod(first.c_str(), nullptr);
  } else {
    std::ifstream q("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"), p("/sys/fs/cgroup/cpu/cpu.cfs_period_us");
    if (!(q >> quota && p >> period)) return 0;
  }
  if (quota <= 0 || period <= 0) return 0;
  return std::max(1, static_cast<int>(quota / period + 0.999));
}

int usable_cores() {
  cpu_set_t set;
  int n = sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 1;
  const int quota = cgroup_quota();
  if (quota > 0) n = std::min(n, quota);
  return std::clamp(n, 1, kMaxThreads);
}

int initial_threads() {
  if (const int n = positive_env("LOWBIT_NUM_THREADS")) return n;
  if (const int n = positive_env("OMP_NUM_THREADS")) return n;
  return usable_cores();
}

std::atomic<int> g_threads{0};

}  // namespace

int num_threads() {
  static const int initial = initial_threads();
  const int n = g_threads.load(std::memory_order_relaxed);
  return n > 0 ? n : initial;
}

void set_num_threads(int n) {
  if (n < 0 || n > kMaxThreads) {
    throw std::invalid_argument("set_num_threads: " + std::to_string(n) + " is not in 0.." +
                                std::to_string(kMaxThreads));
  }
  g_threads.store(n, std::memory_order_relaxed);
}

int resolve_threads(int threads) {
  if (threads < 0 || threads > kMaxThreads) {
    throw std::invalid_argument("threads: " + std::to_string(threads) + " is not in 0.." + std::to_string(kMaxThreads));
  }
  return threads == 0 ? num_threads() : threads;
}

namespace detail {

void run_parts(int parts, PartFn fn, void* context) {
  if (!t_inside && pool().run(parts, fn, context)) return;
  for (int part = 0; part < parts; ++part) fn(context, part, parts);
}

}  // namespace detail
}  // namespace lowbit
