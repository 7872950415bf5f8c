// The .lowbit file as bytes: a safetensors file with checksums, a plan and a manifest (docs/format.md, "The file").
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "lowbit/dtype.h"

namespace lowbit {

// A tensor of the file. `bytes` borrows from the file's bytes and has no alignment to rely on.
struct FileTensor {
  std::string name;
  DType dtype = DType::u8;
  std::vector<int64_t> shape;
  std::span<const std::byte> bytes;
};

struct Container {
  std::map<std::string, FileTensor, std::less<>> tensors;  // without the padding
  std::string plan, manifest;                              // JSON texts
};

// Everything is checked, checksums included; throws FormatError. The result borrows from `bytes`.
Container read_container(std::span<const std::byte> bytes);

// "(2, 3)"
std::string shape_text(std::span<const int64_t> shape);

}  // namespace lowbit
