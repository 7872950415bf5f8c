// Element types of arrays and tensors.
#pragma once

#include <cstddef>
#include <cstdint>

namespace lowbit {

enum class DType : uint8_t { f32 = 0, s8 = 1, u8 = 2, s32 = 3 };

constexpr size_t dtype_size(DType t) { return t == DType::f32 || t == DType::s32 ? 4 : 1; }
constexpr const char* dtype_name(DType t) {
  return t == DType::f32 ? "float32" : t == DType::s8 ? "int8" : t == DType::u8 ? "uint8" : "int32";
}

}  // namespace lowbit
