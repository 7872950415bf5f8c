// Operators that move values: concat, transpose, reshape, slice, pad.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "lowbit/pointwise.h"
#include "model/op_reader.h"
#include "thread_pool.h"

namespace lowbit {
namespace {

constexpr int64_t kCopyGrain = 1 << 16;  // bytes: less is not worth a second thread

int64_t product(const std::vector<int64_t>& dims, size_t begin, size_t end) {
  int64_t p = 1;
  for (size_t i = begin; i < end; ++i) p *= dims[i];
  return p;
}

// rows of `bytes`, at from + r * from_stride and to + r * to_stride.
void copy_rows(const std::byte* from, int64_t from_stride, std::byte* to, int64_t to_stride, int64_t bytes,
               int64_t rows, int threads) {
  parallel_for(threads, rows, std::max<int64_t>(1, kCopyGrain / bytes), [=](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      std::memcpy(to + r * to_stride, from + r * from_stride, static_cast<size_t>(bytes));
    }
  });
}

// A dynamic tensor's scale and zero point go with its values.
class Moving : public Op {
 public:
  explicit Moving(OpReader& reader) {
    reader.arity(1, 1);
    reader.need_same_values(reader.input(0), reader.output());
    size_ = static_cast<int64_t>(dtype_size(reader.output().dtype));
    dynamic_ = reader.output().content == Content::dynamic;
  }

 protected:
  void move_parameters(const Frame& f) const {
    if (dynamic_) f.dynamic[outputs[0]] = f.dynamic[inputs[0]];
  }
  int64_t size_;  // of an element
  bool dynamic_;
};

// Parts that the planner has placed are already where they belong.
class Concat final : public Op {
 public:
  explicit Concat(OpReader& reader) {
    reader.arity(1, SIZE_MAX);
    const Activation& y = reader.output();
    if (y.dims.size() < 2) reader.fail("tensor '" + y.name + "' has only a batch");
    axis_ = static_cast<size_t>(reader.attrs().integer("axis", 1, static_cast<int64_t>(y.dims.size()) - 1));
    if (y.content == Content::dynamic) reader.fail("takes no dynamic codes");
    int64_t sum = 0;
    for (size_t i = 0; i < reader.inputs(); ++i) {
      const Activation& x = reader.input(i);
      reader.need_same_values(x, y);
      std::vector<int64_t> expected = y.dims;
      if (x.dims.size() == y.dims.size()) expected[axis_] = x.dims[axis_];
      reader.need_dims(x, expected);
      sum += x.dims[axis_];
      parts_.push_back(product(x.dims, axis_, x.dims.size()));
    }
    if (sum != y.dims[axis_]) {
      reader.fail("the inputs have " + std::to_string(sum) + " along axis " + std::to_string(axis_) + ", the output " +
                  std::to_string(y.dims[axis_]));
    }
    last_ = axis_ + 1 == y.dims.size();
    outer_ = product(y.dims, 1, axis_);
    whole_ = product(y.dims, axis_, y.dims.size());
    size_ = static_cast<int64_t>(dtype_size(y.dtype));
  }

  void run(const Frame& f) const override {
    const int64_t row = last_ ? f.pitch(outputs[0]) : whole_;
    std::byte* to = f.data<std::byte>(outputs[0]);
    for (size_t i = 0; i < inputs.size(); ++i) {
      const std::byte* from = f.data<std::byte>(inputs[i]);
      if (from != to) {
        copy_rows(from, (last_ ? f.pitch(inputs[i]) : parts_[i]) * size_, to, row * size_, parts_[i] * size_,
                  f.batch * outer_, f.threads);
      }
      to += parts_[i] * size_;
    }
  }

  bool strided_input(size_t) const override { return last_; }
  bool strided_output() const override { return last_; }
  int concat_axis() const override { return static_cast<int>(axis_); }

 private:
  size_t axis_;
  bool last_;
  int64_t outer_, whole_, size_;
  std::vector<int64_t> parts_;  // elements of each input behind the axis, axis included
};

class Transpose final : public Moving {
 public:
  explicit Transpose(OpReader& reader) : Moving(reader), dims_(reader.input(0).dims) {
    const size_t rank = dims_.size();
    if (!reader.attrs().has("perm")) reader.fail("'perm' is missing");
    perm_ = reader.attrs().integers("perm", rank, 0, static_cast<int64_t>(rank) - 1, 0);
    if (perm_[0] != 0) reader.fail("'perm' moves the batch");
    std::vector<int64_t> expected;
    std::vector<char> seen(rank, 0);
    for (int64_t axis : perm_) {
      if (std::exchange(seen[static_cast<size_t>(axis)], 1))
        reader.fail("'perm' holds axis " + std::to_string(axis) + " twice");
      expected.push_back(dims_[static_cast<size_t>(axis)]);
    }
    reader.need_dims(reader.output(), expected);
    int64_t before = 0;  // axes of one element may go anywhere
    for (int64_t axis : perm_) {
      if (dims_[static_cast<size_t>(axis)] == 1) continue;
      moves_ = moves_ || axis < before;
      before = axis;
    }
  }

  void run(const Frame& f) const override {
    move_parameters(f);
    int64_t dims[8];
    std::copy(dims_.begin(), dims_.end(), dims);
    dims[0] = f.batch;
    transpose(f.data(inputs[0]), dims, perm_.data(), static_cast<int>(dims_.size()), size_, f.data(outputs[0]),
              f.threads);
  }
  bool alias() const override { return !moves_ && !dynamic_; }

 private:
  std::vector<int64_t> dims_, perm_;
  bool moves_ = false;
};

// Bits keep their order, not their place: rows are whole words. Where they are so by themselves, nothing moves.
class ReshapeBits final : public Op {
 public:
  explicit ReshapeBits(OpReader& reader) {
    const Activation &x = reader.input(0), &y = reader.output();
    reader.need_bits(y);
    if (x.items != y.items) {
      reader.fail("'" + x.name + "' " + shape_text(x.dims) + " does not have as many elements as " +
                  shape_text(y.dims));
    }
    items_ = x.items;
    x_row_ = x.row();
    y_row_ = y.row();
    words_ = y.rows() * y.held_row();
  }

  void run(const Frame& f) const override {
    const int64_t x_pitch = f.pitch(inputs[0]), y_pitch = f.pitch(outputs[0]);
    const int64_t x_rows = items_ / x_row_, y_rows = items_ / y_row_;
    parallel_for(f.threads, f.batch, 1, [&](int64_t begin, int64_t end) {
      for (int64_t b = begin; b < end; ++b) {
        const uint32_t* x = f.data<uint32_t>(inputs[0]) + b * x_rows * x_pitch;
        uint32_t* y = f.data<uint32_t>(outputs[0]) + b * y_rows * y_pitch;
        std::memset(y, 0, static_cast<size_t>(words_) * sizeof(uint32_t));
        for (int64_t i = 0; i < items_;) {  // as many bits at a time as one word of each side holds
          const int64_t xj = i % x_row_, yj = i % y_row_;
          const int64_t n = std::min({32 - xj % 32, 32 - yj % 32, x_row_ - xj, y_row_ - yj});
          const uint32_t bits = x[i / x_row_ * x_pitch + xj / 32] >> xj % 32;
          y[i / y_row_ * y_pitch + yj / 32] |= (n < 32 ? bits & ((uint32_t{1} << n) - 1) : bits) << yj % 32;
          i += n;
        }
      }
    });
  }
  bool alias() const override { return x_row_ == y_row_ || (x_row_ % 32 == 0 && y_row_ % 32 == 0); }

 private:
  int64_t items_, x_row_, y_row_, words_;
};

class Reshape final : public Moving {
 public:
  explicit Reshape(OpReader& reader) : Moving(reader), items_(reader.input(0).items) {
    if (items_ != reader.output().items) {
      reader.fail("'" + reader.input(0).name + "' " + shape_text(reader.input(0).dims) +
                  " does not have as many elements as " + shape_text(reader.output().dims));
    }
  }

  void run(const Frame& f) const override {
    move_parameters(f);
    copy_rows(f.data<std::byte>(inputs[0]), items_ * size_, f.data<std::byte>(outputs[0]), items_ * size_,
              items_ * size_, f.batch, f.threads);
  }
  bool alias() const override { return !dynamic_; }

 private:
  int64_t items_;
};

// Walks every row (all axes but the last) of an array in order; index holds the axes of the row.
template <typename Visit>
void for_rows(const std::vector<int64_t>& dims, int64_t batch, int64_t begin, int64_t end, Visit&& visit) {
  const size_t axes = dims.size() - 1;
  int64_t index[8] = {};
  int64_t rest = begin;
  for (size_t a = axes; a-- > 0;) {
    const int64_t size = a == 0 ? batch : dims[a];
    index[a] = rest % size;
    rest /= size;
  }
  for (int64_t r = begin; r < end; ++r) {
    visit(r, index);
    for (size_t a = axes; a-- > 0;) {
      if (++index[a] < (a == 0 ? batch : dims[a]) || a == 0) break;
      index[a] = 0;
    }
  }
}

class Slice final : public Moving {
 public:
  explicit Slice(OpReader& reader) : Moving(reader), in_(reader.input(0).dims), out_(reader.output().dims) {
    const size_t rank = in_.size();
    if (rank < 2) reader.fail("tensor '" + reader.input(0).name + "' has only a batch");
    reader.need_rank(reader.output(), rank);
    constexpr int64_t kMax = int64_t{1} << 31;
    starts_ = reader.attrs().integers("starts", rank, 0, kMax, 0);
    steps_ = reader.attrs().integers("steps", rank, -kMax, kMax, 1);
    if (starts_[0] != 0 || steps_[0] != 1) reader.fail("cuts the batch");
    for (size_t a = 1; a < rank; ++a) {
      const int64_t last = starts_[a] + (out_[a] - 1) * steps_[a];
      if (steps_[a] == 0 || starts_[a] >= in_[a] || last < 0 || last >= in_[a]) {
        reader.fail("axis " + std::to_string(a) + ": " + std::to_string(out_[a]) + " from " +
                    std::to_string(starts_[a]) + " in steps of " + std::to_string(steps_[a]) + " leaves 0.." +
                    std::to_string(in_[a] - 1));
      }
    }
    rows_ = reader.output().rows();
  }

  void run(const Frame& f) const override {
    move_parameters(f);
    const std::byte* x = f.data<std::byte>(inputs[0]);
    std::byte* y = f.data<std::byte>(outputs[0]);
    const size_t last = in_.size() - 1;
    const int64_t row = out_[last] * size_;
    parallel_for(f.threads, f.batch * rows_, std::max<int64_t>(1, kCopyGrain / row), [&](int64_t begin, int64_t end) {
      for_rows(out_, f.batch, begin, end, [&](int64_t r, const int64_t* index) {
        int64_t from = 0;
        for (size_t a = 0; a < last; ++a) from = from * (a == 0 ? 1 : in_[a]) + starts_[a] + index[a] * steps_[a];
        copy_steps(x + (from * in_[last] + starts_[last]) * size_, y + r * row);
      });
    });
  }

 private:
  void copy_steps(const std::byte* from, std::byte* to) const {
    const int64_t n = out_.back(), step = steps_.back() * size_;
    if (step == size_) {
      std::memcpy(to, from, static_cast<size_t>(n * size_));
    } else if (size_ == 1) {
      for (int64_t i = 0; i < n; ++i) to[i] = from[i * step];
    } else {
      for (int64_t i = 0; i < n; ++i) std::memcpy(to + i * 4, from + i * step, 4);
    }
  }

  std::vector<int64_t> in_, out_, starts_, steps_;
  int64_t rows_;
};

class Pad final : public Moving {
 public:
  explicit Pad(OpReader& reader) : Moving(reader), in_(reader.input(0).dims), out_(reader.output().dims) {
    const size_t rank = in_.size();
    if (rank < 2) reader.fail("tensor '" + reader.input(0).name + "' has only a batch");
    if (!reader.attrs().has("before") || !reader.attrs().has("after")) reader.fail("'before' and 'after' are needed");
    constexpr int64_t kMax = int64_t{1} << 31;
    before_ = reader.attrs().integers("before", rank, 0, kMax, 0);
    const std::vector<int64_t> after = reader.attrs().integers("after", rank, 0, kMax, 0);
    if (before_[0] != 0 || after[0] != 0) reader.fail("pads the batch");
    std::vector<int64_t> expected = in_;
    for (size_t a = 1; a < rank; ++a) expected[a] += before_[a] + after[a];
    reader.need_dims(reader.output(), expected);
    rows_ = reader.output().rows();
    find_value(reader);
  }

  void run(const Frame& f) const override {
    const std::byte* x = f.data<std::byte>(inputs[0]);
    std::byte* y = f.data<std::byte>(outputs[0]);
    const size_t last = in_.size() - 1;
    const int64_t row = out_[last];
    parallel_for(f.threads, f.batch * rows_, std::max<int64_t>(1, kCopyGrain / (row * size_)),
                 [&](int64_t begin, int64_t end) {
                   for_rows(out_, f.batch, begin, end, [&](int64_t r, const int64_t* index) {
                     int64_t from = 0;
                     bool inside = true;
                     for (size_t a = 0; a < last; ++a) {
                       const int64_t i = index[a] - before_[a];
                       inside = inside && i >= 0 && (a == 0 || i < in_[a]);
                       from = from * (a == 0 ? 1 : in_[a]) + i;
                     }
                     std::byte* to = y + r * row * size_;
                     if (!inside) return fill(to, row);
                     fill(to, before_[last]);
                     std::memcpy(to + before_[last] * size_, x + from * in_[last] * size_,
                                 static_cast<size_t>(in_[last] * size_));
                     fill(to + (before_[last] + in_[last]) * size_, row - before_[last] - in_[last]);
                   });
                 });
  }

 private:
  void find_value(OpReader& reader) {
    const float value = reader.attrs().number("value", 0.0f);
    const Activation& y = reader.output();
    if (y.content == Content::real) {
      std::memcpy(value_, &value, 4);
      return;
    }
    reader.need_codes(y);
    const Codes codes = y.held();
    const float steps = std::clamp(value / codes.scale, static_cast<float>(-codes.zero_point),
                                   static_cast<float>(255 - codes.zero_point));
    value_[0] = static_cast<std::byte>(static_cast<int32_t>(std::nearbyintf(steps)) + codes.zero_point);
  }

  void fill(std::byte* to, int64_t n) const {
    if (size_ == 1) {
      if (n > 0) std::memset(to, static_cast<int>(value_[0]), static_cast<size_t>(n));
    } else {
      for (int64_t i = 0; i < n; ++i) std::memcpy(to + i * 4, value_, 4);
    }
  }

  std::vector<int64_t> in_, out_, before_;
  int64_t rows_;
  std::byte value_[4] = {};
};

}  // namespace

std::unique_ptr<Op> compile_concat(OpReader& reader) { return std::make_unique<Concat>(reader); }
std::unique_ptr<Op> compile_transpose(OpReader& reader) { return std::make_unique<Transpose>(reader); }
std::unique_ptr<Op> compile_reshape(OpReader& reader) {
  reader.arity(1, 1);
  if (reader.input(0).is_bits()) return std::make_unique<ReshapeBits>(reader);
  return std::make_unique<Reshape>(reader);
}
std::unique_ptr<Op> compile_slice(OpReader& reader) { return std::make_unique<Slice>(reader); }
std::unique_ptr<Op> compile_pad(OpReader& reader) { return std::make_unique<Pad>(reader); }

}  // namespace lowbit
