#include "fuzz_model.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>

#include "lowbit/lowbit.h"
#include "net_writer.h"

using namespace lowbit;

namespace {

int64_t g_opened = 0;

[[noreturn]] void give_up(const char* what, const char* message) {
  std::fprintf(stderr, "fuzz_model: %s: %s\n", what, message);
  std::abort();
}

// Elements of one batch item of a tensor, or too many.
int64_t items(const TensorInfo& info) {
  int64_t n = 1;
  for (size_t i = 1; i < info.shape.size(); ++i) n *= info.shape[i];
  return n;
}

// A plan may ask for more memory or time than a test has; that is no fault.
bool affordable(const Model& model, size_t file_size) {
  int64_t elements = 0;
  for (const TensorInfo& t : model.tensors()) {
    elements += items(t);
    if (elements > (1 << 20)) return false;
  }
  return elements * static_cast<int64_t>(file_size) < (int64_t{1} << 33);
}

void run(const Model& model, int64_t batch, Isa isa, bool keep) {
  Session session(model, {.threads = 1, .isa = isa, .keep_tensors = keep});
  std::vector<std::vector<std::byte>> memory;
  std::vector<std::vector<int64_t>> shapes;
  const auto views = [&](const std::vector<TensorInfo>& infos) {
    std::vector<TensorView> out;
    for (const TensorInfo& info : infos) {
      shapes.push_back(info.shape);
      shapes.back()[0] = batch;
      memory.emplace_back(static_cast<size_t>(batch * items(info)) * dtype_size(info.dtype), std::byte{0x3c});
    }
    const size_t first = memory.size() - infos.size();
    for (size_t i = 0; i < infos.size(); ++i) {
      out.push_back({infos[i].name, infos[i].dtype, shapes[first + i], memory[first + i].data()});
    }
    return out;
  };
  shapes.reserve(model.inputs().size() + model.outputs().size());  // views borrow from it
  const std::vector<TensorView> in = views(model.inputs()), out = views(model.outputs());
  try {
    session.run(in, out);
    if (keep) session.tensor_bytes(static_cast<int>(model.tensors().size()) - 1);
  } catch (const std::invalid_argument& e) {
    // What the values, not the plan, bring about: a range that has no scale.
    if (!std::strstr(e.what(), "finite") && !std::strstr(e.what(), "NaN")) give_up("run", e.what());
  }
}

void open_and_run(std::span<const std::byte> bytes) {
  try {
    const Model model = Model::from_bytes(bytes);
    ++g_opened;
    if (!affordable(model, bytes.size())) return;
    run(model, 1, best_isa(), false);
    run(model, 3, Isa::scalar, true);
  } catch (const FormatError&) {
  } catch (const std::exception& e) {
    give_up("unexpected exception", e.what());
  }
}

// The same with every checksum recomputed, where the header is readable enough to say what they are of.
void open_resealed(std::span<const std::byte> bytes) {
  if (bytes.size() < 8) return;
  uint64_t size = 0;
  for (size_t i = 8; i-- > 0;) size = size << 8 | static_cast<uint64_t>(bytes[i]);
  if (size > bytes.size() - 8) return;
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()) + 8, size);
  nets::Json header = nets::Json::parse(text, nullptr, false);
  if (!header.is_object() || !header.contains("__metadata__") || !header["__metadata__"].is_object()) return;
  const std::string data(reinterpret_cast<const char*>(bytes.data()) + 8 + size, bytes.size() - 8 - size);
  nets::Json crcs = nets::Json::object();
  for (const auto& [name, entry] : header.items()) {
    if (name.starts_with("__") || !entry.is_object() || !entry.contains("data_offsets")) continue;
    const nets::Json& at = entry["data_offsets"];
    if (!at.is_array() || at.size() != 2 || !at[0].is_number_unsigned() || !at[1].is_number_unsigned()) continue;
    const uint64_t begin = at[0].get<uint64_t>(), end = at[1].get<uint64_t>();
    if (begin <= end && end <= data.size()) crcs[name] = nets::crc32_text(data.substr(begin, end - begin));
  }
  header["__metadata__"]["crc32"] = crcs.dump(-1, ' ', false, nets::Json::error_handler_t::replace);
  const nets::Bytes sealed = nets::sealed(header, data);
  open_and_run(sealed);
}

}  // namespace

int64_t models_opened() { return g_opened; }

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  // A heap block of the exact size, so that AddressSanitizer sees any read behind it.
  const std::span<const std::byte> given = std::as_bytes(std::span(data, size));
  const std::vector<std::byte> bytes(given.begin(), given.end());
  open_and_run(bytes);
  open_resealed(bytes);
  return 0;
}
