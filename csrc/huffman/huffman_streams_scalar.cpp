#include "huffman/huffman_streams_kernel.h"

namespace lowbit {

bool huffman_streams_scalar(const StreamsChunk& c) noexcept { return streams_loop(c); }

}  // namespace lowbit
