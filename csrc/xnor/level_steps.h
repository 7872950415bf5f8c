// Levels as the variants take them.
#pragma once

#include "lowbit/xnor.h"
#include "xnor/bitserial_kernel.h"

namespace lowbit {

// Throws std::invalid_argument naming function.
LevelSteps checked_steps(const char* function, const Levels& levels);

}  // namespace lowbit
