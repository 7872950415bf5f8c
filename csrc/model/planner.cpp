#include "model/planner.h"

#include <algorithm>
#include <numeric>
#include <stdexcept>
#include <string>

namespace lowbit {
namespace {

constexpr int64_t kAlignment = 64;
constexpr int64_t kSlack = 192;  // behind everything: a vector load may run over, never a page
constexpr int64_t kMaxBytes = int64_t{1} << 42;
constexpr int kNever = -1;

// A tensor inside another's memory.
struct Inside {
  int of = kNever;
  int64_t offset = 0;    // elements from its beginning
  bool by_rows = false;  // its rows are parts of that tensor's rows, else one piece of it
};

// A run of memory that lives from the first to the last op that touches it.
struct Block {
  int64_t bytes = 0, offset = 0;
  int first = 0, last = 0;
};

class Planner {
 public:
  Planner(const std::vector<Activation>& tensors, const std::vector<std::unique_ptr<const Op>>& ops,
          std::span<const int> inputs, std::span<const int> outputs, int64_t batch, bool keep)
      : tensors_(tensors), ops_(ops), inputs_(inputs), outputs_(outputs), batch_(batch), keep_(keep) {}

  Layout plan() {
    check_size();
    find_uses();
    place_concats();
    place_aliases();
    bind_callers_memory();
    if (!keep_) place_in_place();
    return assign();
  }

 private:
  size_t at(int t) const { return static_cast<size_t>(t); }
  const Activation& tensor(int t) const { return tensors_[at(t)]; }
  int op_count() const { return static_cast<int>(ops_.size()); }
  int64_t bytes(int t) const { return batch_ * tensor(t).item_bytes(); }
  bool is_input(int t) const { return producer_[at(t)] == kNever; }
  bool is_output(int t) const { return std::find(outputs_.begin(), outputs_.end(), t) != outputs_.end(); }

  void check_size() const {
    int64_t total = 0;
    for (const Activation& t : tensors_) {
      int64_t size;
      if (__builtin_mul_overflow(t.item_bytes(), batch_, &size) || size > kMaxBytes || (total += size) > kMaxBytes) {
        throw std::invalid_argument("Session: a batch of " + std::to_string(batch_) + " makes tensor '" + t.name +
                                    "' or all of them too large");
      }
    }
  }

  void find_uses() {
    producer_.assign(tensors_.size(), kNever);
    consumers_.assign(tensors_.size(), {});
    for (int i = 0; i < op_count(); ++i) {
      for (int t : ops_[at(i)]->inputs) consumers_[at(t)].push_back(i);
      for (int t : ops_[at(i)]->outputs) producer_[at(t)] = i;
    }
    inside_.assign(tensors_.size(), {});
    shared_.assign(tensors_.size(), 0);
  }

  // Whether every reader of t takes any pitch.
  bool readers_take_pitch(int t) const {
    for (int i : consumers_[at(t)]) {
      const Op& op = *ops_[at(i)];
      for (size_t k = 0; k < op.inputs.size(); ++k) {
        if (op.inputs[k] == t && !op.strided_input(k)) return false;
      }
    }
    return true;
  }

  // A part of a concatenation is written where it ends up, if its writer and all its other readers can work there.
  void place_concats() {
    for (int i = op_count(); i-- > 0;) {
      const Op& op = *ops_[at(i)];
      if (op.concat_axis() == 0) continue;
      const int y = op.outputs[0];
      const std::vector<int64_t>& dims = tensor(y).dims;
      const size_t axis = static_cast<size_t>(op.concat_axis());
      const bool last = axis + 1 == dims.size();
      int64_t outer = batch_;
      for (size_t d = 1; d < axis; ++d) outer *= dims[d];
      int64_t offset = 0;  // elements into an outer row
      for (int t : op.inputs) {
        const int64_t part = std::accumulate(tensor(t).dims.begin() + static_cast<int64_t>(axis), tensor(t).dims.end(),
                                             int64_t{1}, std::multiplies<>());
        const bool once = std::count(op.inputs.begin(), op.inputs.end(), t) == 1;
        const bool can = once && !is_input(t) && !is_output(t) && inside_[at(t)].of == kNever &&
                         ops_[at(producer_[at(t)])]->strided_output() && !ops_[at(producer_[at(t)])]->alias() &&
                         (last ? readers_take_pitch(t) : outer == 1 && inside_[at(y)].of == kNever);
        if (can) {
          inside_[at(t)] = {y, offset, last};
          shared_[at(t)] = 1;
        }
        offset += part;
      }
    }
  }

  void place_aliases() {
    for (const auto& op : ops_) {
      if (!op->alias()) continue;
      inside_[at(op->outputs[0])] = {op->inputs[0], 0, false};
    }
  }

  int root(int t) const {
    while (inside_[at(t)].of != kNever) t = inside_[at(t)].of;
    return t;
  }

  // Which class is the caller's memory, where its dtype and layout are ours.
  void bind_callers_memory() {
    spots_.assign(tensors_.size(), {});
    direct_.assign(outputs_.size(), 0);
    if (keep_) return;
    for (size_t i = 0; i < inputs_.size(); ++i) {
      if (tensor(inputs_[i]).dtype != DType::s8)
        spots_[at(inputs_[i])] = {Layout::Home::input, static_cast<int>(i), 0, 0};
    }
    for (size_t i = 0; i < outputs_.size(); ++i) {
      const int t = outputs_[i], r = root(t);
      const bool whole = !shared_[at(t)] && !is_input(r) && spots_[at(r)].home == Layout::Home::arena;
      if (!whole || tensor(t).dtype == DType::s8 || bytes(r) != bytes(t)) continue;
      spots_[at(r)] = {Layout::Home::output, static_cast<int>(i), 0, 0};
      direct_[i] = 1;
    }
  }

  // First and last op that touches each class; a network output is touched after the last op.
  std::vector<Block> lives() const {
    std::vector<Block> blocks(tensors_.size());
    for (Block& b : blocks) b = {0, 0, op_count() + 1, -1};
    for (size_t t = 0; t < tensors_.size(); ++t) {
      Block& b = blocks[at(root(static_cast<int>(t)))];
      b.first = std::min(b.first, producer_[t]);
      b.last = std::max(b.last, producer_[t]);
      for (int i : consumers_[t]) b.last = std::max(b.last, i);
    }
    for (int t : outputs_) blocks[at(root(t))].last = op_count();
    if (keep_) {
      for (Block& b : blocks) b = {0, 0, -1, op_count()};
    }
    return blocks;
  }

  // An elementwise op writes over an input that nothing reads afterwards.
  void place_in_place() {
    std::vector<Block> blocks = lives();
    for (int i = 0; i < op_count(); ++i) {
      const Op& op = *ops_[at(i)];
      const int y = op.outputs[0];
      if (op.alias() || inside_[at(y)].of != kNever || spots_[at(y)].home != Layout::Home::arena) continue;
      for (size_t k = 0; k < op.inputs.size(); ++k) {
        const int x = op.inputs[k], r = root(x);
        const bool free = op.in_place(k) && !shared_[at(x)] && bytes(x) == bytes(y) && bytes(r) == bytes(x) &&
                          spots_[at(r)].home == Layout::Home::arena && blocks[at(r)].last == i;
        if (!free) continue;
        inside_[at(y)] = {x, 0, false};
        blocks[at(r)].last = blocks[at(y)].last;
        break;
      }
    }
  }

  Layout assign() {
    Layout out;
    std::vector<Block> blocks = lives();
    std::vector<Block*> order;
    for (size_t t = 0; t < tensors_.size(); ++t) {
      if (inside_[t].of != kNever || spots_[t].home != Layout::Home::arena) continue;
      blocks[t].bytes = bytes(static_cast<int>(t));
      order.push_back(&blocks[t]);
    }
    std::vector<Block> scratch(ops_.size());
    for (size_t i = 0; i < ops_.size(); ++i) {
      scratch[i] = {ops_[i]->scratch_bytes(batch_), 0, static_cast<int>(i), static_cast<int>(i)};
      if (scratch[i].bytes > 0) order.push_back(&scratch[i]);
    }
    out.arena_bytes = pack(order) + kSlack;
    for (const Block& b : scratch) out.scratch.push_back(b.offset);

    for (size_t t = 0; t < tensors_.size(); ++t) spots_[t].pitch = tensors_[t].held_row();
    for (size_t t = 0; t < tensors_.size(); ++t) {
      if (inside_[t].of == kNever) spots_[t].offset = blocks[t].offset;
    }
    for (size_t t = 0; t < tensors_.size(); ++t) resolve(static_cast<int>(t));
    out.spots = std::move(spots_);
    out.output_is_direct = std::move(direct_);
    return out;
  }

  // Chains are as long as the net is deep at most, and resolved parents end them: a loop, not a recursion.
  void resolve(int tensor_index) {
    std::vector<int> chain;
    for (int t = tensor_index; inside_[at(t)].of != kNever; t = inside_[at(t)].of) chain.push_back(t);
    while (!chain.empty()) {
      const int t = chain.back();
      chain.pop_back();
      Inside& in = inside_[at(t)];
      const Layout::Spot parent = spots_[at(in.of)];
      Layout::Spot& spot = spots_[at(t)];
      const int64_t size = static_cast<int64_t>(dtype_size(tensor(t).held_dtype()));
      spot.home = parent.home;
      spot.index = parent.index;
      spot.offset = parent.offset + in.offset * size;
      if (in.by_rows) spot.pitch = parent.pitch;
      in = {};
    }
  }

  int64_t pack(std::vector<Block*>& order) const {
    std::stable_sort(order.begin(), order.end(), [](const Block* a, const Block* b) { return a->bytes > b->bytes; });
    std::vector<Block*> placed;  // by offset
    int64_t end = 0;
    for (Block* block : order) {
      const int64_t size = (block->bytes + kAlignment - 1) / kAlignment * kAlignment;
      int64_t best = -1, best_gap = kMaxBytes, free_from = 0;
      for (const Block* other : placed) {
        if (other->last < block->first || other->first > block->last) continue;
        const int64_t gap = other->offset - free_from;
        if (gap >= size && gap < best_gap) {
          best = free_from;
          best_gap = gap;
        }
        free_from = std::max(free_from, other->offset + (other->bytes + kAlignment - 1) / kAlignment * kAlignment);
      }
      block->offset = best >= 0 ? best : free_from;
      end = std::max(end, block->offset + size);
      placed.insert(std::upper_bound(placed.begin(), placed.end(), block,
                                     [](const Block* a, const Block* b) { return a->offset < b->offset; }),
                    block);
    }
    return end;
  }

  const std::vector<Activation>& tensors_;
  const std::vector<std::unique_ptr<const Op>>& ops_;
  const std::span<const int> inputs_, outputs_;
  const int64_t batch_;
  const bool keep_;
  std::vector<int> producer_;                // op, or kNever
  std::vector<std::vector<int>> consumers_;  // ops
  std::vector<Inside> inside_;
  std::vector<char> shared_;  // part of a concatenation
  std::vector<Layout::Spot> spots_;
  std::vector<int> direct_;
};

}  // namespace

Layout plan_layout(const std::vector<Activation>& tensors, const std::vector<std::unique_ptr<const Op>>& ops,
                   std::span<const int> inputs, std::span<const int> outputs, int64_t batch, bool keep_tensors) {
  return Planner(tensors, ops, inputs, outputs, batch, keep_tensors).plan();
}

}  // namespace lowbit
