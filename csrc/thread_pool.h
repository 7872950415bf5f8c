// A small persistent pool. Work is split statically; the caller takes part 0 and any part that no worker has begun;
// workers spin briefly before sleeping.
#pragma once

#include <algorithm>
#include <cstdint>

namespace lowbit {

// threads = 0 means num_threads(); throws std::invalid_argument where negative.
int resolve_threads(int threads);

namespace detail {
using PartFn = void (*)(void* context, int part, int parts);
void run_parts(int parts, PartFn fn, void* context);
}  // namespace detail

// body(part, parts) for every part in [0, parts), each on its own thread where the pool is free, else one after the
// other. body must not throw. Calls from inside a body, and calls while another thread holds the pool, run in the
// caller.
template <typename Body>
void parallel(int parts, Body&& body) {
  if (parts <= 1) {
    body(0, 1);
    return;
  }
  auto call = [](void* context, int part, int total) { (*static_cast<Body*>(context))(part, total); };
  detail::run_parts(parts, call, const_cast<void*>(static_cast<const void*>(&body)));
}

// body(begin, end) over [0, n) in at most `threads` contiguous ranges of at least `grain` items, equal to within one
// grain.
template <typename Body>
void parallel_for(int threads, int64_t n, int64_t grain, Body&& body) {
  grain = std::max<int64_t>(grain, 1);
  const int64_t blocks = (n + grain - 1) / grain;
  if (blocks <= 0) return;
  const int parts = static_cast<int>(std::min<int64_t>(threads, blocks));
  parallel(parts, [&](int part, int total) {
    const int64_t begin = blocks * part / total * grain, end = std::min(n, blocks * (part + 1) / total * grain);
    if (begin < end) body(begin, end);
  });
}

}  // namespace lowbit
