// Errors: a wrong argument is std::invalid_argument naming the function and the numbers that disagree;
// wrong bytes from outside (files, streams) are FormatError with the offset.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

#include "lowbit/export.h"

namespace lowbit {

class LOWBIT_API FormatError : public std::runtime_error {
 public:
  // offset: byte position in the file or stream where the fault was found, -1 where none applies.
  explicit FormatError(const std::string& what, int64_t offset = -1);
  ~FormatError() override;
  int64_t offset() const noexcept { return offset_; }

 private:
  int64_t offset_;
};

}  // namespace lowbit
