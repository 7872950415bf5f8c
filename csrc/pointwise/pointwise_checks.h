// What the doors of this kernel check alike. Every function throws std::invalid_argument naming `function`.
#pragma once

#include <string>

#include "pointwise/pointwise_kernel.h"

namespace lowbit::pointwise {

// Elements that one thread should have at least, for work like an addition of codes: about 4 us. Waking another takes 1
// to 2.
constexpr int64_t kGrain = 32768;

[[noreturn]] void fail(const char* function, const std::string& what);
void check_level(const char* function, Isa isa);
void check_rounding(const char* function, Rounding rounding);
void check_size(const char* function, const char* name, int64_t size);
// a * b * c, all >= 0; throws where it leaves int64.
int64_t check_product(const char* function, int64_t a, int64_t b, int64_t c);

void check_codes(const char* function, const char* name, const Codes& codes);
// factor: what a difference from the zero point is multiplied by.
CodeIn code_in(const char* function, const char* name, const Codes& codes, float factor);
CodeOut code_out(const char* function, const Codes& codes, int32_t lo = INT32_MIN, int32_t hi = INT32_MAX);

}  // namespace lowbit::pointwise
