// libFuzzer's entry; mutate_huffman calls fuzz_huffman itself.
#include "fuzz_huffman.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) { return fuzz_huffman(data, size); }
