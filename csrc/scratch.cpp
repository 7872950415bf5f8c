#include "scratch.h"

#include <cstdlib>
#include <new>

namespace lowbit {
namespace {

struct Buffers {
  void* data[static_cast<size_t>(ScratchSlot::count)] = {};
  size_t size[static_cast<size_t>(ScratchSlot::count)] = {};
  ~Buffers() {
    for (void* p : data) std::free(p);
  }
};

thread_local Buffers t_buffers;

}  // namespace

void* scratch(ScratchSlot slot, size_t bytes) {
  const size_t i = static_cast<size_t>(slot);
  if (bytes > t_buffers.size[i] || !t_buffers.data[i]) {
    const size_t rounded = (bytes + bytes / 4 + 4096) / 4096 * 4096;
    std::free(t_buffers.data[i]);
    t_buffers.data[i] = std::aligned_alloc(4096, rounded);
    t_buffers.size[i] = t_buffers.data[i] ? rounded : 0;
    if (!t_buffers.data[i]) throw std::bad_alloc();
  }
  return t_buffers.data[i];
}

}  // namespace lowbit
