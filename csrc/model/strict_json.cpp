#include "model/strict_json.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <unordered_set>

#include "lowbit/error.h"

namespace lowbit {
namespace {

constexpr size_t kMaxDepth = 32;

int64_t checked_integer(const Fields& fields, const char* key, const Json& value, int64_t lo, int64_t hi) {
  // Unsigned values above the signed range would wrap in get<int64_t>().
  const bool whole = value.is_number_integer() && !(value.is_number_unsigned() && value.get<uint64_t>() > INT64_MAX);
  if (!whole) fields.fail("'" + std::string(key) + "' must be an integer, not " + shown(value));
  const int64_t v = value.get<int64_t>();
  if (v < lo || v > hi) {
    fields.fail("'" + std::string(key) + "' is " + std::to_string(v) + ", not in " + std::to_string(lo) + ".." +
                std::to_string(hi));
  }
  return v;
}

// The parser quotes the bytes it stumbled over, which may be no text at all.
std::string printable(std::string message) {
  for (char& c : message) {
    if (c < ' ' || c > '~') c = '?';
  }
  return message;
}

}  // namespace

Json parse_json(std::string_view text, const std::string& what) {
  std::vector<std::unordered_set<std::string>> open;  // keys of the objects being read; arrays hold an empty set
  const auto watch = [&](int, Json::parse_event_t event, Json& parsed) {
    switch (event) {
      case Json::parse_event_t::object_start:
      case Json::parse_event_t::array_start:
        if (open.size() == kMaxDepth) throw FormatError(what + ": nested deeper than " + std::to_string(kMaxDepth));
        open.emplace_back();
        break;
      case Json::parse_event_t::key:
        if (!open.back().insert(parsed.get<std::string>()).second) {
          throw FormatError(what + ": duplicate key " + shown(parsed));
        }
        break;
      case Json::parse_event_t::object_end:
      case Json::parse_event_t::array_end:
        open.pop_back();
        break;
      case Json::parse_event_t::value:
        break;
    }
    return true;
  };
  try {
    return Json::parse(text.begin(), text.end(), watch);
  } catch (const Json::exception& e) {
    throw FormatError(what + ": " + printable(e.what()));
  }
}

std::string shown(const Json& value) {
  std::string text = value.dump(-1, ' ', true, Json::error_handler_t::replace);
  if (text.size() > 80) text = text.substr(0, 77) + "...";
  return text;
}

Fields::Fields(const Json& object, std::string where) : object_(&object), where_(std::move(where)) {
  if (!object.is_object()) fail("must be an object, not " + shown(object));
}

void Fields::fail(const std::string& message) const { throw FormatError(where_ + ": " + message); }

const Json* Fields::find(const char* key) {
  asked_.insert(key);
  const auto it = object_->find(key);
  return it == object_->end() ? nullptr : &*it;
}

bool Fields::has(const char* key) { return find(key) != nullptr; }

const Json& Fields::get(const char* key) {
  const Json* value = find(key);
  if (!value) fail("'" + std::string(key) + "' is missing");
  return *value;
}

std::string Fields::text(const char* key) {
  const Json& value = get(key);
  if (!value.is_string()) fail("'" + std::string(key) + "' must be a string, not " + shown(value));
  return value.get<std::string>();
}

std::string Fields::text(const char* key, std::string absent) { return has(key) ? text(key) : std::move(absent); }

std::string Fields::choice(const char* key, std::initializer_list<const char*> allowed, const char* absent) {
  if (!absent || has(key)) {
    const std::string value = text(key);
    std::string names;
    for (const char* name : allowed) {
      if (value == name) return value;
      names += std::string(names.empty() ? "" : ", ") + name;
    }
    fail("'" + std::string(key) + "' is '" + value + "', not one of " + names);
  }
  return absent;
}

int64_t Fields::integer(const char* key, int64_t lo, int64_t hi) {
  return checked_integer(*this, key, get(key), lo, hi);
}

int64_t Fields::integer(const char* key, int64_t lo, int64_t hi, int64_t absent) {
  return has(key) ? integer(key, lo, hi) : absent;
}

bool Fields::flag(const char* key, bool absent) {
  const Json* value = find(key);
  if (!value) return absent;
  if (!value->is_boolean()) fail("'" + std::string(key) + "' must be true or false, not " + shown(*value));
  return value->get<bool>();
}

float Fields::number(const char* key, float absent) {
  const Json* value = find(key);
  if (!value) return absent;
  if (!value->is_number()) fail("'" + std::string(key) + "' must be a number, not " + shown(*value));
  const float v = static_cast<float>(value->get<double>());
  if (!std::isfinite(v)) fail("'" + std::string(key) + "' is " + shown(*value) + ", which float32 cannot hold");
  return v;
}

std::vector<int64_t> Fields::integers(const char* key, int64_t lo, int64_t hi) {
  const Json& value = get(key);
  if (!value.is_array()) fail("'" + std::string(key) + "' must be a list of integers, not " + shown(value));
  std::vector<int64_t> out;
  out.reserve(value.size());
  for (const Json& v : value) out.push_back(checked_integer(*this, key, v, lo, hi));
  return out;
}

std::vector<int64_t> Fields::integers(const char* key, size_t size, int64_t lo, int64_t hi, int64_t absent) {
  if (!has(key)) return std::vector<int64_t>(size, absent);
  std::vector<int64_t> out = integers(key, lo, hi);
  if (out.size() != size) {
    fail("'" + std::string(key) + "' holds " + std::to_string(out.size()) + " numbers, not " + std::to_string(size));
  }
  return out;
}

void Fields::done() const {
  for (const auto& [key, value] : object_->items()) {
    if (!asked_.contains(key)) fail("unknown member '" + key + "'");
  }
}

}  // namespace lowbit
