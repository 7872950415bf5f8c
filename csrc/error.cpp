#include "lowbit/error.h"

namespace lowbit {

FormatError::FormatError(const std::string& what, int64_t offset)
    : std::runtime_error(offset < 0 ? what : what + " (at byte " + std::to_string(offset) + ")"), offset_(offset) {}

FormatError::~FormatError() = default;

}  // namespace lowbit
