// Runs a model: binds the caller's arrays, keeps one memory layout per batch size, calls the operators in order.
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <new>
#include <stdexcept>

#include "lowbit/error.h"
#include "lowbit/xnor.h"
#include "model/model_data.h"
#include "model/planner.h"
#include "thread_pool.h"

namespace lowbit {
namespace {

constexpr size_t kLayoutsKept = 8;

struct Freer {
  void operator()(std::byte* p) const { std::free(p); }
};

// uint8 as held <-> int8, dense.
void flip_sign(const std::byte* from, std::byte* to, int64_t n) {
  for (int64_t i = 0; i < n; ++i) to[i] = from[i] ^ std::byte{0x80};
}

// A tensor's rows, `pitch` elements apart, made dense; int8 codes as the plan has them, bits as int8 +-1, planes as
// uint8 codes.
void copy_dense(const Activation& t, int64_t batch, const Place& from, std::byte* to) {
  const int64_t size = static_cast<int64_t>(dtype_size(t.dtype)), row = t.row(), rows = batch * t.rows();
  if (t.is_bits()) {
    unpack_bits(reinterpret_cast<const uint32_t*>(from.data), rows, from.pitch, row, reinterpret_cast<int8_t*>(to),
                row);
  } else if (t.is_planes()) {
    const auto* words = reinterpret_cast<const uint32_t*>(from.data);
    for (int64_t i = 0; i < rows; ++i) {
      for (int64_t j = 0; j < row; ++j) {
        unsigned code = 0;
        for (int64_t q = 0; q < t.planes; ++q) {
          code |= (words[i * from.pitch + q * t.plane_words() + j / 32] >> j % 32 & 1) << q;
        }
        to[i * row + j] = std::byte(code);
      }
    }
  } else if (t.dtype == DType::s8) {
    for (int64_t i = 0; i < rows; ++i) flip_sign(from.data + i * from.pitch, to + i * row, row);
  } else if (from.pitch == row) {
    if (rows > 0) std::memcpy(to, from.data, static_cast<size_t>(rows * row * size));
  } else {
    for (int64_t i = 0; i < rows; ++i) {
      std::memcpy(to + i * row * size, from.data + i * from.pitch * size, static_cast<size_t>(row * size));
    }
  }
}

// A layout with its addresses. Those in the caller's memory are set at every run.
struct BatchPlan {
  int64_t batch = 0;
  uint64_t used = 0;  // run number, for throwing out the oldest
  Layout layout;
  std::vector<Place> places;
  std::vector<int> callers;  // tensors in the caller's memory
};

}  // namespace

struct Session::State {
  std::shared_ptr<const Model::Data> model;
  SessionOptions options;
  std::vector<BatchPlan> plans;
  std::unique_ptr<std::byte, Freer> arena;
  int64_t arena_bytes = 0;
  std::vector<DynamicCodes> dynamic;
  std::vector<double> op_ms;
  std::vector<const TensorView*> views;  // inputs, then outputs, in the plan's order
  uint64_t runs = 0;
  int64_t last_batch = -1;

  size_t plan_for(int64_t batch);
  void bind_arena(BatchPlan& plan) const;
  void match(std::span<const TensorView> given, const std::vector<TensorInfo>& infos, size_t first, const char* what);
  int64_t check_shapes() const;
  void check_overlap(int64_t batch) const;
  void run();
  void run_ops(const Frame& frame, const BatchPlan& plan);
  const BatchPlan& finished(int index) const;
};

void Session::State::bind_arena(BatchPlan& plan) const {
  for (size_t t = 0; t < plan.places.size(); ++t) {
    const Layout::Spot& spot = plan.layout.spots[t];
    plan.places[t].pitch = spot.pitch;
    if (spot.home == Layout::Home::arena) plan.places[t].data = arena.get() + spot.offset;
  }
}

size_t Session::State::plan_for(int64_t batch) {
  for (size_t i = 0; i < plans.size(); ++i) {
    if (plans[i].batch == batch) return i;
  }
  BatchPlan plan;
  plan.batch = batch;
  plan.layout = plan_layout(model->tensors, model->ops, model->inputs, model->outputs, batch, options.keep_tensors);
  plan.places.resize(model->tensors.size());
  for (size_t t = 0; t < plan.places.size(); ++t) {
    if (plan.layout.spots[t].home != Layout::Home::arena) plan.callers.push_back(static_cast<int>(t));
  }
  if (plan.layout.arena_bytes > arena_bytes || !arena) {
    const size_t rounded = static_cast<size_t>((plan.layout.arena_bytes + 4095) / 4096 * 4096);
    std::unique_ptr<std::byte, Freer> grown(static_cast<std::byte*>(std::aligned_alloc(4096, rounded)));
    if (!grown) throw std::bad_alloc();
    arena = std::move(grown);
    arena_bytes = static_cast<int64_t>(rounded);
    last_batch = -1;
    for (BatchPlan& other : plans) bind_arena(other);
  }
  bind_arena(plan);
  if (plans.size() < kLayoutsKept) {
    plans.push_back(std::move(plan));
    return plans.size() - 1;
  }
  size_t oldest = 0;
  for (size_t i = 1; i < plans.size(); ++i) {
    if (plans[i].used < plans[oldest].used) oldest = i;
  }
  plans[oldest] = std::move(plan);
  return oldest;
}

void Session::State::match(std::span<const TensorView> given, const std::vector<TensorInfo>& infos, size_t first,
                           const char* what) {
  const auto names = [&] {
    std::string text;
    for (const TensorInfo& info : infos) text += (text.empty() ? "'" : ", '") + info.name + "'";
    return text;
  };
  for (size_t i = 0; i < infos.size(); ++i) views[first + i] = nullptr;
  for (const TensorView& view : given) {
    size_t i = 0;
    while (i < infos.size() && infos[i].name != view.name) ++i;
    if (i == infos.size()) {
      throw std::invalid_argument("Session::run: no " + std::string(what) + " is named '" + std::string(view.name) +
                                  "'; there is " + names());
    }
    if (views[first + i])
      throw std::invalid_argument("Session::run: " + std::string(what) + " '" + infos[i].name + "' is given twice");
    if (view.dtype != infos[i].dtype) {
      throw std::invalid_argument("Session::run: " + std::string(what) + " '" + infos[i].name + "' is " +
                                  dtype_name(view.dtype) + ", but must be " + dtype_name(infos[i].dtype));
    }
    views[first + i] = &view;
  }
  for (size_t i = 0; i < infos.size(); ++i) {
    if (!views[first + i])
      throw std::invalid_argument("Session::run: " + std::string(what) + " '" + infos[i].name + "' is missing");
  }
}

// The batch of the first input; everything else must agree with it.
int64_t Session::State::check_shapes() const {
  const int64_t batch = views[0]->shape.empty() ? -1 : views[0]->shape[0];
  for (size_t i = 0; i < views.size(); ++i) {
    const bool input = i < model->inputs.size();
    const TensorInfo& info = input ? model->input_infos[i] : model->output_infos[i - model->inputs.size()];
    std::vector<int64_t>::const_iterator dims = info.shape.begin();
    const std::span<const int64_t> shape = views[i]->shape;
    const bool same = batch >= 0 && shape.size() == info.shape.size() && shape[0] == batch &&
                      std::equal(shape.begin() + 1, shape.end(), dims + 1);
    if (!same) {
      std::vector<int64_t> wanted = info.shape;
      if (i > 0) wanted[0] = batch;
      throw std::invalid_argument("Session::run: " + std::string(input ? "input '" : "output '") + info.name +
                                  "' has shape " + shape_text(shape) + ", but must have " + shape_text(wanted) +
                                  (i > 0 ? "" : ", where -1 is any batch"));
    }
    if (!views[i]->data && batch > 0) {
      throw std::invalid_argument("Session::run: " + std::string(input ? "input '" : "output '") + info.name +
                                  "' has no data");
    }
  }
  return batch;
}

// Ops write straight to the caller's outputs while inputs are still read.
void Session::State::check_overlap(int64_t batch) const {
  const size_t inputs = model->inputs.size();
  const auto tensor = [&](size_t view) -> const Activation& {
    return model->tensors[static_cast<size_t>(view < inputs ? model->inputs[view] : model->outputs[view - inputs])];
  };
  const auto begin = [&](size_t view) { return reinterpret_cast<uintptr_t>(views[view]->data); };
  const auto end = [&](size_t view) { return begin(view) + static_cast<uintptr_t>(batch * tensor(view).item_bytes()); };
  for (size_t y = inputs; y < views.size(); ++y) {
    for (size_t x = 0; x < y; ++x) {
      if (begin(y) < end(x) && begin(x) < end(y)) {
        throw std::invalid_argument("Session::run: output '" + tensor(y).name + "' overlaps the memory of '" +
                                    tensor(x).name + "'");
      }
    }
  }
}

void Session::State::run_ops(const Frame& frame, const BatchPlan& plan) {
  const size_t n = model->ops.size();
  Frame f = frame;
  if (!options.profile) {
    for (size_t i = 0; i < n; ++i) {
      const Op& op = *model->ops[i];
      if (op.alias()) continue;
      f.scratch = arena.get() + plan.layout.scratch[i];
      op.run(f);
    }
    return;
  }
  for (size_t i = 0; i < n; ++i) {
    const Op& op = *model->ops[i];
    f.scratch = arena.get() + plan.layout.scratch[i];
    const auto start = std::chrono::steady_clock::now();
    if (!op.alias()) op.run(f);
    op_ms[i] = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
  }
}

void Session::State::run() {
  const int64_t batch = check_shapes();
  if (batch == 0) {
    last_batch = 0;
    std::fill(op_ms.begin(), op_ms.end(), 0.0);
    return;
  }
  BatchPlan& plan = plans[plan_for(batch)];
  check_overlap(batch);
  plan.used = ++runs;
  const size_t inputs = model->inputs.size();
  for (int t : plan.callers) {
    const Layout::Spot& spot = plan.layout.spots[static_cast<size_t>(t)];
    const size_t view = static_cast<size_t>(spot.index) + (spot.home == Layout::Home::output ? inputs : 0);
    plan.places[static_cast<size_t>(t)].data = static_cast<std::byte*>(views[view]->data) + spot.offset;
  }
  for (size_t i = 0; i < inputs; ++i) {
    const size_t t = static_cast<size_t>(model->inputs[i]);
    if (plan.layout.spots[t].home != Layout::Home::arena) continue;
    const Activation& a = model->tensors[t];
    const std::byte* from = static_cast<const std::byte*>(views[i]->data);
    if (a.dtype == DType::s8) {
      flip_sign(from, plan.places[t].data, batch * a.items);
    } else {
      std::memcpy(plan.places[t].data, from, static_cast<size_t>(batch * a.item_bytes()));
    }
  }
  Frame frame;
  frame.batch = batch;
  frame.isa = options.isa;
  frame.threads = resolve_threads(options.threads);
  frame.places = plan.places.data();
  frame.dynamic = dynamic.data();
  last_batch = -1;
  run_ops(frame, plan);
  for (size_t i = 0; i < model->outputs.size(); ++i) {
    if (plan.layout.output_is_direct[i]) continue;
    const size_t t = static_cast<size_t>(model->outputs[i]);
    copy_dense(model->tensors[t], batch, plan.places[t], static_cast<std::byte*>(views[inputs + i]->data));
  }
  last_batch = batch;
}

const BatchPlan& Session::State::finished(int index) const {
  if (!options.keep_tensors) throw std::invalid_argument("Session::tensor: the session was made without keep_tensors");
  if (index < 0 || index >= static_cast<int>(model->tensors.size())) {
    throw std::invalid_argument("Session::tensor: index " + std::to_string(index) + " is not in 0.." +
                                std::to_string(model->tensors.size() - 1));
  }
  for (const BatchPlan& plan : plans) {
    if (last_batch > 0 && plan.batch == last_batch) return plan;
  }
  throw std::invalid_argument("Session::tensor: there is no finished run to read from");
}

Session::Session(const Model& model, const SessionOptions& options) : state_(std::make_unique<State>()) {
  if (!model.data) throw std::invalid_argument("Session: the model is empty");
  if (!isa_supported(options.isa)) {
    throw std::invalid_argument("Session: level '" + std::string(isa_name(options.isa)) + "' is not on this machine");
  }
  resolve_threads(options.threads);
  state_->model = model.data;
  state_->options = options;
  state_->dynamic.resize(model.data->tensors.size());
  state_->op_ms.resize(model.data->ops.size());
  state_->views.resize(model.data->inputs.size() + model.data->outputs.size());
}

Session::~Session() = default;
Session::Session(Session&&) noexcept = default;
Session& Session::operator=(Session&&) noexcept = default;

void Session::run(std::span<const TensorView> inputs, std::span<const TensorView> outputs) {
  state_->match(inputs, state_->model->input_infos, 0, "input");
  state_->match(outputs, state_->model->output_infos, state_->model->inputs.size(), "output");
  state_->run();
}

namespace {

void run_simple(Session& session, const Model::Data& model, const void* input, DType dtype, size_t input_size,
                std::span<float> output) {
  if (model.inputs.size() != 1 || model.outputs.size() != 1) {
    throw std::invalid_argument("Session::run: the network has " + std::to_string(model.inputs.size()) +
                                " inputs and " + std::to_string(model.outputs.size()) + " outputs; give them by name");
  }
  const Activation& x = model.tensors[static_cast<size_t>(model.inputs[0])];
  const Activation& y = model.tensors[static_cast<size_t>(model.outputs[0])];
  const int64_t size = static_cast<int64_t>(input_size), batch = size / x.items;
  if (size % x.items != 0) {
    throw std::invalid_argument("Session::run: input '" + x.name + "' has " + std::to_string(size) +
                                " elements, which is no multiple of the " + std::to_string(x.items) + " of one item");
  }
  if (static_cast<int64_t>(output.size()) != batch * y.items) {
    throw std::invalid_argument("Session::run: output '" + y.name + "' has " + std::to_string(output.size()) +
                                " elements, but must have " + std::to_string(batch) + " x " + std::to_string(y.items));
  }
  int64_t x_shape[8], y_shape[8];
  std::copy(x.dims.begin(), x.dims.end(), x_shape);
  std::copy(y.dims.begin(), y.dims.end(), y_shape);
  x_shape[0] = y_shape[0] = batch;
  const TensorView in{x.name, dtype, {x_shape, x.dims.size()}, const_cast<void*>(input)};
  const TensorView out{y.name, DType::f32, {y_shape, y.dims.size()}, output.data()};
  session.run(std::span(&in, 1), std::span(&out, 1));
}

}  // namespace

void Session::run(std::span<const float> input, std::span<float> output) {
  run_simple(*this, *state_->model, input.data(), DType::f32, input.size(), output);
}

void Session::run(std::span<const uint8_t> input, std::span<float> output) {
  run_simple(*this, *state_->model, input.data(), DType::u8, input.size(), output);
}

std::vector<std::byte> Session::tensor_bytes(int index) const {
  const BatchPlan& plan = state_->finished(index);
  const Activation& t = state_->model->tensors[static_cast<size_t>(index)];
  std::vector<std::byte> out(static_cast<size_t>(plan.batch * t.items) * dtype_size(t.dtype));
  copy_dense(t, plan.batch, plan.places[static_cast<size_t>(index)], out.data());
  return out;
}

std::vector<float> Session::tensor(int index, std::vector<int64_t>& shape) const {
  const std::vector<std::byte> bytes = tensor_bytes(index);
  const Activation& t = state_->model->tensors[static_cast<size_t>(index)];
  shape = t.dims;
  shape[0] = state_->last_batch;
  std::vector<float> out(bytes.size() / dtype_size(t.dtype));
  if (t.dtype == DType::f32) {
    std::memcpy(out.data(), bytes.data(), bytes.size());
    return out;
  }
  DynamicCodes codes{t.scale, t.zero_point};  // scale 1, zero point 0 for raw bytes
  if (t.content == Content::dynamic) codes = state_->dynamic[static_cast<size_t>(index)];
  for (size_t i = 0; i < out.size(); ++i) {
    const int code = t.dtype == DType::s8 ? static_cast<int8_t>(bytes[i]) : static_cast<uint8_t>(bytes[i]);
    out[i] = static_cast<float>(code - codes.zero_point) * codes.scale;
  }
  return out;
}

std::vector<double> Session::op_ms() const { return state_->op_ms; }

int64_t Session::memory_bytes(int64_t batch) const {
  if (batch < 0) throw std::invalid_argument("Session::memory_bytes: batch is " + std::to_string(batch));
  const Model::Data& m = *state_->model;
  return batch == 0
             ? 0
             : plan_layout(m.tensors, m.ops, m.inputs, m.outputs, batch, state_->options.keep_tensors).arena_bytes;
}

}  // namespace lowbit
