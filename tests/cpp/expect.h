// EXPECT counts failures and goes on; a test program returns failures() != 0.
#pragma once

#include <cstdio>
#include <exception>
#include <string>

namespace expect {

inline int& failures() {
  static int count = 0;
  return count;
}

inline void that(bool holds, const char* what, const char* file, int line, const std::string& more = "") {
  if (holds) return;
  ++failures();
  std::fprintf(stderr, "%s:%d: %s does not hold%s%s\n", file, line, what, more.empty() ? "" : ": ", more.c_str());
}

// The call must throw Error with `words` in its message.
template <typename Error, typename Call>
void throws(Call&& call, const std::string& words, const char* file, int line) {
  try {
    call();
    that(false, "an exception", file, line, words);
  } catch (const Error& e) {
    that(std::string(e.what()).find(words) != std::string::npos, "the message", file, line,
         "'" + words + "' in: " + e.what());
  } catch (const std::exception& e) {
    that(false, "the exception's type", file, line, e.what());
  }
}

}  // namespace expect

#define EXPECT(...) expect::that(static_cast<bool>(__VA_ARGS__), #__VA_ARGS__, __FILE__, __LINE__)
#define EXPECT_THROWS(Error, words, ...) expect::throws<Error>([&] { __VA_ARGS__; }, words, __FILE__, __LINE__)
