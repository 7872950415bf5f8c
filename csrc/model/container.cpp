#include "model/container.h"

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>

#include "crc32/crc32.h"
#include "lowbit/error.h"
#include "model/strict_json.h"

namespace lowbit {
namespace {

constexpr uint64_t kMaxHeader = 32 << 20;
constexpr int64_t kAlignment = 64;
constexpr int64_t kVersion = 1;
constexpr std::string_view kPadPrefix = "__pad_";

// Where the 8 digits of "header_crc32" stand in the header's text. Inside a JSON string the quotes would be escaped, so
// the pattern can only be the key itself.
size_t find_header_crc(std::string_view header) {
  constexpr std::string_view key = "\"header_crc32\"";
  size_t found = std::string_view::npos;
  for (size_t at = header.find(key); at != std::string_view::npos; at = header.find(key, at + 1)) {
    size_t p = at + key.size();
    const auto skip_spaces = [&] { p = std::min(header.find_first_not_of(" \t\r\n", p), header.size()); };
    skip_spaces();
    if (p == header.size() || header[p] != ':') continue;
    ++p;
    skip_spaces();
    if (p == header.size() || header[p] != '"') continue;
    const std::string_view digits = header.substr(p + 1, 9);
    if (digits.size() != 9 || digits[8] != '"' || digits.find_first_not_of("0123456789abcdef") != 8) {
      throw FormatError("lowbit file: header_crc32 is not 8 lower-case hex digits", static_cast<int64_t>(8 + p));
    }
    if (found != std::string_view::npos) throw FormatError("lowbit file: header_crc32 occurs twice");
    found = p + 1;
  }
  if (found == std::string_view::npos) throw FormatError("lowbit file: the header has no header_crc32");
  return found;
}

void check_header_crc(std::string_view header) {
  const size_t at = find_header_crc(header);
  const auto bytes = [](std::string_view s) { return std::as_bytes(std::span(s.data(), s.size())); };
  uint32_t crc = crc32(bytes(header.substr(0, at)));
  crc = crc32(bytes("00000000"), crc);
  crc = crc32(bytes(header.substr(at + 8)), crc);
  if (header.substr(at, 8) != crc32_text(crc)) {
    throw FormatError("lowbit file: the header's checksum is " + crc32_text(crc) + ", not " +
                      std::string(header.substr(at, 8)) + " as it says: the file is damaged");
  }
}

DType file_dtype(Fields& fields) {
  const std::string name = fields.choice("dtype", {"F32", "I32", "I8", "U8"}, nullptr);
  return name == "F32" ? DType::f32 : name == "I32" ? DType::s32 : name == "I8" ? DType::s8 : DType::u8;
}

struct Extent {
  int64_t begin, end;
  FileTensor tensor;
};

Extent read_entry(const std::string& name, const Json& entry, std::span<const std::byte> data) {
  Fields fields(entry, "lowbit file: tensor '" + name + "'");
  FileTensor t;
  t.name = name;
  t.dtype = file_dtype(fields);
  const int64_t total = static_cast<int64_t>(data.size());
  t.shape = fields.integers("shape", 0, total);
  const std::vector<int64_t> offsets = fields.integers("data_offsets", 2, 0, total, 0);
  if (!fields.has("data_offsets")) fields.fail("'data_offsets' is missing");
  fields.done();
  if (t.shape.size() > 8) fields.fail("more than 8 dimensions");
  int64_t bytes = static_cast<int64_t>(dtype_size(t.dtype));
  for (int64_t d : t.shape) {
    if (d > 0 && bytes > total / d) fields.fail("shape " + shape_text(t.shape) + " is larger than the file");
    bytes *= d;
  }
  if (offsets[0] > offsets[1] || offsets[1] - offsets[0] != bytes) {
    fields.fail("data_offsets " + std::to_string(offsets[0]) + ".." + std::to_string(offsets[1]) + " do not hold the " +
                std::to_string(bytes) + " bytes of " + dtype_name(t.dtype) + " " + shape_text(t.shape));
  }
  if (name.starts_with(kPadPrefix)) {
    if (t.dtype != DType::u8 || bytes >= kAlignment) fields.fail("padding must be fewer than 64 bytes of U8");
  } else if (offsets[0] % kAlignment != 0) {
    fields.fail("begins at " + std::to_string(offsets[0]) + ", not a multiple of 64");
  }
  t.bytes = data.subspan(static_cast<size_t>(offsets[0]), static_cast<size_t>(bytes));
  return {offsets[0], offsets[1], std::move(t)};
}

void check_tensor_crcs(const Container& file, const std::string& text) {
  const Json crcs = parse_json(text, "lowbit file: crc32");
  Fields fields(crcs, "lowbit file: crc32");
  for (const auto& [name, tensor] : file.tensors) {
    const std::string expected = fields.text(name.c_str());
    const std::string actual = crc32_text(crc32(tensor.bytes));
    if (actual != expected) {
      throw FormatError("lowbit file: tensor '" + name + "': the checksum is " + actual + ", not '" + expected +
                        "' as the header says: the file is damaged");
    }
  }
  fields.done();
}

}  // namespace

std::string shape_text(std::span<const int64_t> shape) {
  std::string text = "(";
  for (size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + (shape.size() == 1 ? ",)" : ")");
}

Container read_container(std::span<const std::byte> bytes) {
  if (bytes.size() < 8) throw FormatError("lowbit file: " + std::to_string(bytes.size()) + " bytes are not a file");
  uint64_t header_size = 0;
  for (size_t i = 8; i-- > 0;) header_size = header_size << 8 | static_cast<uint64_t>(bytes[i]);
  if (header_size > kMaxHeader || header_size > bytes.size() - 8) {
    throw FormatError("lowbit file: a header of " + std::to_string(header_size) + " bytes in a file of " +
                          std::to_string(bytes.size()) + " (at most " + std::to_string(kMaxHeader) +
                          "): not a .lowbit file, or cut off",
                      0);
  }
  if ((8 + header_size) % kAlignment != 0) {
    throw FormatError("lowbit file: the data begins at " + std::to_string(8 + header_size) + ", not a multiple of 64",
                      0);
  }
  const std::string_view header(reinterpret_cast<const char*>(bytes.data() + 8), header_size);
  const std::span<const std::byte> data = bytes.subspan(8 + header_size);
  const Json root = parse_json(header, "lowbit file: header");
  if (!root.is_object()) throw FormatError("lowbit file: the header is not a JSON object", 8);
  const auto meta = root.find("__metadata__");
  if (meta == root.end()) throw FormatError("lowbit file: the header has no __metadata__: not a .lowbit file");
  Fields fields(*meta, "lowbit file: __metadata__");
  fields.choice("format", {"lowbit"}, nullptr);
  const std::string version = fields.text("version");
  if (version != std::to_string(kVersion)) {
    throw FormatError("lowbit file: format version " + version + "; this lowbit reads version " +
                      std::to_string(kVersion) +
                      (version.size() > 1 || version > "1" ? " (a newer lowbit is needed)" : ""));
  }
  check_header_crc(header);

  Container file;
  file.plan = fields.text("plan");
  file.manifest = fields.text("manifest");
  const std::string crcs = fields.text("crc32");
  fields.text("header_crc32");
  fields.done();
  parse_json(file.manifest, "lowbit file: manifest");

  std::vector<Extent> extents;
  for (const auto& [name, entry] : root.items()) {
    if (name != "__metadata__") extents.push_back(read_entry(name, entry, data));
  }
  std::sort(extents.begin(), extents.end(),
            [](const Extent& a, const Extent& b) { return std::pair(a.begin, a.end) < std::pair(b.begin, b.end); });
  int64_t end = 0;
  for (Extent& e : extents) {
    if (e.begin != end) {
      throw FormatError("lowbit file: tensor '" + e.tensor.name + "' begins at " + std::to_string(e.begin) +
                            (e.begin < end ? ", inside the one before, which ends at " : ", after a hole from ") +
                            std::to_string(end),
                        static_cast<int64_t>(8 + header_size) + e.begin);
    }
    end = e.end;
    std::string name = e.tensor.name;
    if (!name.starts_with(kPadPrefix)) file.tensors.emplace(std::move(name), std::move(e.tensor));
  }
  if (end != static_cast<int64_t>(data.size())) {
    throw FormatError(
        "lowbit file: " + std::to_string(static_cast<int64_t>(data.size()) - end) + " bytes after the last tensor",
        static_cast<int64_t>(8 + header_size) + end);
  }
  check_tensor_crcs(file, crcs);
  return file;
}

}  // namespace lowbit
