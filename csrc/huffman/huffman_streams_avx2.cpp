// shrx (BMI2): a variable shift in one micro-operation that leaves the flags alone.
#include "huffman/huffman_streams_kernel.h"
#include "target.h"

#if LOWBIT_X86

LOWBIT_TARGET_BEGIN_AVX2

namespace lowbit {

bool huffman_streams_avx2(const StreamsChunk& c) noexcept { return streams_loop(c); }

}  // namespace lowbit

LOWBIT_TARGET_END
#endif
