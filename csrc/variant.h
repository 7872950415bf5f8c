// A kernel's variants: one row per level, best first, the last row scalar. pick() takes the first row at or below a
// level.
#pragma once

#include <cstddef>

#include "lowbit/isa.h"

namespace lowbit {

template <typename Fn>
struct Variant {
  Isa isa;
  Fn fn;
};

template <typename Fn, size_t N>
constexpr Fn pick(const Variant<Fn> (&table)[N], Isa isa) {
  for (const Variant<Fn>& row : table) {
    if (row.isa <= isa) return row.fn;
  }
  return table[N - 1].fn;
}

}  // namespace lowbit
