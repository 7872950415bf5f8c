// The one settable default: how many threads a door uses when it is not told.
#pragma once

#include "lowbit/export.h"

namespace lowbit {

// The default: set_num_threads, else LOWBIT_NUM_THREADS, else OMP_NUM_THREADS, else the cores this process may use
// (affinity mask and cgroup quota). At least 1. Results never depend on it.
LOWBIT_API int num_threads();

// n >= 1; 0 goes back to the default. Throws std::invalid_argument for anything else.
LOWBIT_API void set_num_threads(int n);

}  // namespace lowbit
