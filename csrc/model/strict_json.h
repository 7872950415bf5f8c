// JSON from outside: parsed with duplicate keys refused and depth bounded, read through Fields, which names what is
// wrong where and refuses keys that nobody asked for. Everything wrong is a FormatError.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <nlohmann/json_fwd.hpp>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace lowbit {

using Json = nlohmann::json;

// `what` names the text in errors. One value and nothing behind it.
Json parse_json(std::string_view text, const std::string& what);

// The members of one JSON object. `where` is kept by reference-free copy and starts every error: "op 'conv1': ...".
class Fields {
 public:
  Fields(const Json& object, std::string where);

  bool has(const char* key);
  const Json& get(const char* key);   // required
  std::string text(const char* key);  // required
  std::string text(const char* key, std::string absent);
  std::string choice(const char* key, std::initializer_list<const char*> allowed, const char* absent);
  int64_t integer(const char* key, int64_t lo, int64_t hi);  // required
  int64_t integer(const char* key, int64_t lo, int64_t hi, int64_t absent);
  bool flag(const char* key, bool absent);
  float number(const char* key, float absent);                             // finite in float32
  std::vector<int64_t> integers(const char* key, int64_t lo, int64_t hi);  // required
  // `size` numbers, or `absent` repeated.
  std::vector<int64_t> integers(const char* key, size_t size, int64_t lo, int64_t hi, int64_t absent);

  // Refuses members that none of the calls above has named.
  void done() const;

  const std::string& where() const { return where_; }
  [[noreturn]] void fail(const std::string& message) const;

 private:
  const Json* find(const char* key);

  const Json* object_;
  std::string where_;
  std::set<std::string, std::less<>> asked_;
};

// A JSON value for an error message, cut where it is long.
std::string shown(const Json& value);

}  // namespace lowbit
