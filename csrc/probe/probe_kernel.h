// Loops that do nothing but keep one unit busy; each returns the multiply-accumulates it did.
#pragma once

#include <cstdint>

namespace lowbit {

using ProbeFn = int64_t (*)(int64_t iterations) noexcept;

int64_t probe_vnni_avx512_vnni(int64_t iterations) noexcept;
int64_t probe_fma_avx512_vnni(int64_t iterations) noexcept;
int64_t probe_xnor_avx512(int64_t iterations) noexcept;
int64_t probe_amx_amx(int64_t iterations) noexcept;
int64_t probe_avx2_avx2(int64_t iterations) noexcept;
int64_t probe_fma_avx2(int64_t iterations) noexcept;

}  // namespace lowbit
