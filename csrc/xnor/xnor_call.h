// One call of a product or convolution, checked: what its parts share, and how rows and panels are split over threads.
#pragma once

#include "xnor/xnor_packed.h"

namespace lowbit {

// Work in row_parts x panel_parts pieces.
struct XnorSplit {
  int row_parts = 1, panel_parts = 1;
};
XnorSplit split_xnor(int threads, int64_t rows, int64_t panels, int64_t macs);

// The arguments of a product or convolution, and the weights' contents. Throw std::invalid_argument naming function.
const PackedXnor::Data& check_gemm(const char* function, int64_t m, int64_t lda, const PackedXnor& b);
const PackedXnor::Data& check_conv2d(const char* function, const Conv2dShape& s, int64_t ldx, const PackedXnor& w,
                                     PadValue pad_value);

struct XnorVariant {
  void (*fn)(const XnorBlock&) noexcept;
  bool byte_order;  // wants PackedXnor::Data::bytes_ordered
};
XnorVariant pick_xnor(Isa isa);

// A rectangle of taps.
struct Taps {
  int64_t ky0, ky1, kx0, kx1;
};

// dot + 2 * pop for every channel of all groups, padded to panels, where the taps outside `in` meet pixels of an exact
// zero that are stored as -1.
void fill_starts(const PackedXnor::Data& w, const Taps& in, int32_t* start);

// Rows of outputs: rows[i] of plane 0 is output row first_row + i; rows[q * count + i] that of plane q.
struct WindowRows {
  const uint32_t* const* rows;
  int64_t count, first_row;
  const int64_t* pattern;
  const int64_t* run_offset;
  int64_t runs, run_words;
  int64_t group_words;  // between a row's groups
};

class XnorCall {
 public:
  // Throws std::invalid_argument naming function. patterns: kinds of rows, each with its own start; 1 unless padded
  // with an exact zero. row_count: rows of the outputs.
  XnorCall(const char* function, const PackedXnor::Data& w, const XnorEpilogue& e, void* y, int64_t ldy, Isa isa);

  // Writes what start, half and least are for every pattern, into this thread's scratch: inside(p) is the rectangle of
  // taps that lie inside the image, {ky0, ky1, kx0, kx1}, or all of them where pad pixels hold a bit.
  template <typename Inside>
  void prepare(int64_t patterns, Inside&& inside) {
    reserve(patterns);
    for (int64_t p = 0; p < patterns; ++p) fill(p, inside(p));
  }
  int64_t pattern_stride() const { return all_; }
  bool splits_panels() const { return !groups_share_words_; }

  // Rows of every group times its panels [p0, p1).
  void run(const WindowRows& rows, int64_t p0, int64_t p1) const;

 private:
  void reserve(int64_t patterns);
  void fill(int64_t pattern, const Taps& inside);
  void run_group(const WindowRows& rows, int64_t g, int64_t p0, int64_t p1, uint32_t* bits, int64_t ld_bits) const;

  const PackedXnor::Data& w_;
  const XnorEpilogue& e_;
  void* y_;
  int64_t ldy_;
  XnorVariant variant_;
  bool groups_share_words_;  // a word of the output's bits holds channels of two groups
  int64_t all_;              // channels of all groups, padded to panels
  int32_t* start_ = nullptr;
  int32_t* half_ = nullptr;
  int32_t* least_ = nullptr;
  const uint32_t* flips_ = nullptr;
};

}  // namespace lowbit
