// The entry that libFuzzer, the replay program and the mutation driver of Huffman streams share.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

// Decodes the bytes at every level, whole, packed and chunk by chunk, as they are and with their checksums made right.
// Aborts where levels disagree on accepting, on the error or on the symbols, or where anything but FormatError is
// thrown.
int fuzz_huffman(const uint8_t* data, size_t size);

// The stream with the checksums of its header and chunks recomputed, where the header is readable enough to say what
// they are of; else as it is.
std::vector<uint8_t> resealed_huffman(const uint8_t* data, size_t size);

// How many streams were decoded and how many refused.
struct HuffmanVerdicts {
  int64_t accepted = 0, refused = 0;
};
HuffmanVerdicts huffman_verdicts();
