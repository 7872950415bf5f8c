// k-means in one dimension: clusters are runs of the sorted values, so their sums come from prefix sums, an iteration
// of Lloyd's costs k searches, and the optimum is a dynamic programme over borders. The best border of the last cluster
// moves only up with the number of values, which makes a layer of it n log n by halving (Wu 1991; Grønlund et al. 2017,
// arXiv 1701.07204, section 2.2). That paper's linear time (SMAWK) was not needed: 256 clusters of 65,536 bins take
// about a second.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include "codebook/codebook_packed.h"
#include "thread_pool.h"

namespace lowbit {
namespace {

using codebook::fail;
constexpr const char* kName = "kmeans1d";
constexpr int64_t kPoints = 65536;
constexpr int64_t kGrain = 1 << 16;

// Values that stay together: equal ones, or those of a bin.
struct Point {
  double weight = 0, mean = 0;  // mean: first the sum
  float top = -std::numeric_limits<float>::infinity();

  void add(float v, double times) {
    weight += times;
    mean += v * times;
    top = std::max(top, v);
  }
};

// The distinct values and their numbers, unsorted; empty where there are more than kPoints.
std::vector<Point> distinct_values(const float* values, int64_t count) {
  constexpr size_t kSlots = 4 * kPoints;  // a power of two: linear probing at most a quarter full
  std::vector<uint32_t> slot_point(kSlots, UINT32_MAX);
  std::vector<Point> points;
  for (int64_t t = 0; t < count; ++t) {
    const float v = values[t] + 0.0f;  // -0 is 0
    uint32_t bits;
    std::memcpy(&bits, &v, sizeof(bits));
    size_t slot = bits * 0x9e3779b1u >> 14;
    while (slot_point[slot] != UINT32_MAX && points[slot_point[slot]].top != v) slot = (slot + 1) % kSlots;
    if (slot_point[slot] == UINT32_MAX) {
      if (points.size() == kPoints) return {};
      slot_point[slot] = static_cast<uint32_t>(points.size());
      points.emplace_back();
    }
    points[slot_point[slot]].add(v, 1);
  }
  std::sort(points.begin(), points.end(), [](const Point& a, const Point& b) { return a.top < b.top; });
  return points;
}

// kPoints bins of equal width from the least to the greatest value; those that are not empty.
std::vector<Point> histogram(const float* values, int64_t count) {
  const auto [least, greatest] = std::minmax_element(values, values + count);
  const double low = *least, per_bin = kPoints / (static_cast<double>(*greatest) - low);
  std::vector<Point> bins(kPoints);
  for (int64_t t = 0; t < count; ++t) {
    bins[static_cast<size_t>(std::min<int64_t>(kPoints - 1, static_cast<int64_t>((values[t] - low) * per_bin)))].add(
        values[t], 1);
  }
  std::erase_if(bins, [](const Point& p) { return p.weight == 0; });
  return bins;
}

// kPoints runs of the sorted values, of equal numbers but for equal values, which stay together: where a few values far
// out leave most bins of equal width empty.
std::vector<Point> equal_counts(const float* values, int64_t count) {
  std::vector<float> sorted(values, values + count);
  std::sort(sorted.begin(), sorted.end());
  std::vector<Point> points;
  int64_t end = 0;
  for (int64_t t = 0; t < count; ++t) {
    if (t >= end && (t == 0 || sorted[static_cast<size_t>(t)] != sorted[static_cast<size_t>(t - 1)])) {
      points.emplace_back();
      end = t + (count - t) / std::max<int64_t>(1, kPoints - static_cast<int64_t>(points.size()) + 1);
    }
    points.back().add(sorted[static_cast<size_t>(t)], 1);
  }
  return points;
}

class Clusters {
 public:
  Clusters(std::vector<Point> points, int64_t k) : points_(std::move(points)), n_(std::ssize(points_)), k_(k) {
    for (Point& p : points_) p.mean /= p.weight;
    // Sums from the middle point outwards and about its value: squares cancel least, and values far out spoil only
    // the sums of runs that reach them.
    const int64_t middle = n_ / 2;
    center_ = point(middle).mean;
    sums_.resize(static_cast<size_t>(n_ + 1));
    for (int64_t t = middle; t < n_; ++t) sums_[static_cast<size_t>(t + 1)] = plus(sum(t), point(t), 1);
    for (int64_t t = middle; t > 0; --t) sums_[static_cast<size_t>(t - 1)] = plus(sum(t), point(t - 1), -1);
  }

  void optimal() {
    const int64_t n = n_;
    std::vector<double> before(static_cast<size_t>(n + 1)), now(static_cast<size_t>(n + 1));
    std::vector<uint16_t> border(static_cast<size_t>(k_ * (n + 1)));  // of the last of c + 1 clusters of t points
    for (int64_t t = 1; t <= n; ++t) before[static_cast<size_t>(t)] = error(0, t);
    for (int64_t c = 1; c < k_; ++c) {
      layer(before.data(), now.data(), border.data() + c * (n + 1), c + 1, n, c, n - 1);
      std::swap(before, now);
    }
    starts_.assign(static_cast<size_t>(k_ + 1), 0);
    starts_.back() = n;
    for (int64_t c = k_ - 1; c > 0; --c) start(c) = border[static_cast<size_t>(c * (n + 1) + start(c + 1))];
  }

  void lloyd(KmeansInit init, uint64_t seed, int64_t max_iterations) {
    starts_ = nearest(first_centroids(init, seed));
    fill_empty();
    for (int64_t i = 0; i < max_iterations; ++i) {
      std::vector<int64_t> last = starts_;
      std::vector<double> centroids(static_cast<size_t>(k_));
      for (int64_t c = 0; c < k_; ++c) centroids[static_cast<size_t>(c)] = mean(start(c), start(c + 1));
      starts_ = nearest(centroids);
      fill_empty();
      if (starts_ == last) break;
    }
  }

  // The means of the clusters and their greatest values.
  void result(float* codebook, float* tops) const {
    for (int64_t c = 0; c < k_; ++c) {
      codebook[c] = static_cast<float>(mean(start(c), start(c + 1)));
      tops[c] = point(start(c + 1) - 1).top;
    }
  }

 private:
  struct Sums {
    double w = 0, x = 0, xx = 0;
  };
  Sums plus(const Sums& s, const Point& p, double sign) const {
    const double w = sign * p.weight, x = p.mean - center_;
    return {s.w + w, s.x + w * x, s.xx + w * x * x};
  }
  const Point& point(int64_t t) const { return points_[static_cast<size_t>(t)]; }
  const Sums& sum(int64_t t) const { return sums_[static_cast<size_t>(t)]; }
  int64_t& start(int64_t c) { return starts_[static_cast<size_t>(c)]; }
  int64_t start(int64_t c) const { return starts_[static_cast<size_t>(c)]; }

  // Of the points [a, b), a < b: the mean and the sum of squares about it.
  double mean(int64_t a, int64_t b) const {
    if (b - a == 1) return point(a).mean;
    return center_ + (sum(b).x - sum(a).x) / (sum(b).w - sum(a).w);
  }
  double error(int64_t a, int64_t b) const {
    const double x = sum(b).x - sum(a).x;
    return sum(b).xx - sum(a).xx - x * x / (sum(b).w - sum(a).w);
  }

  // now[t] = min over s in [s0, s1] of before[s] + error(s, t) for t in [t0, t1]: the middle one, then either half
  // within its border.
  void layer(const double* before, double* now, uint16_t* border, int64_t t0, int64_t t1, int64_t s0, int64_t s1) {
    if (t0 > t1) return;
    const int64_t t = (t0 + t1) / 2;
    double least = std::numeric_limits<double>::infinity();
    int64_t best = s0;
    for (int64_t s = s0, last = std::min(s1, t - 1); s <= last; ++s) {
      const double e = before[s] + error(s, t);
      if (e < least) least = e, best = s;
    }
    now[t] = least;
    border[t] = static_cast<uint16_t>(best);
    layer(before, now, border, t0, t - 1, s0, best);
    layer(before, now, border, t + 1, t1, best, s1);
  }

  std::vector<double> first_centroids(KmeansInit init, uint64_t seed) const {
    std::vector<double> c(static_cast<size_t>(k_));
    const double low = point(0).mean, high = point(n_ - 1).mean, total = sum(n_).w - sum(0).w;
    auto at = [&](double weight) {  // the point under a place of the cumulative weight
      const auto it =
          std::upper_bound(sums_.begin(), sums_.end(), weight, [](double w, const Sums& s) { return w < s.w; });
      return std::clamp<int64_t>(it - sums_.begin() - 1, 0, n_ - 1);
    };
    if (init == KmeansInit::linear) {
      for (int64_t t = 0; t < k_; ++t) {
        c[static_cast<size_t>(t)] =
            low + (high - low) * static_cast<double>(t) / static_cast<double>(std::max<int64_t>(1, k_ - 1));
      }
    } else if (init == KmeansInit::density) {
      for (int64_t t = 0; t < k_; ++t) {
        c[static_cast<size_t>(t)] = point(at(total * (static_cast<double>(t) + 0.5) / static_cast<double>(k_))).mean;
      }
    } else {
      std::mt19937_64 random(seed);
      std::vector<char> taken(static_cast<size_t>(n_));
      int64_t found = 0;
      for (int64_t tries = 0; tries < 64 * k_ && found < k_; ++tries) {
        const int64_t t = at(total * (static_cast<double>(random() >> 11) * 0x1p-53));
        if (!taken[static_cast<size_t>(t)]) taken[static_cast<size_t>(t)] = 1, ++found;
      }
      for (int64_t t = 0; found < k_; ++t) {  // rare values among frequent ones
        if (!taken[static_cast<size_t>(t)]) taken[static_cast<size_t>(t)] = 1, ++found;
      }
      for (int64_t t = 0, i = 0; t < n_; ++t) {
        if (taken[static_cast<size_t>(t)]) c[static_cast<size_t>(i++)] = point(t).mean;
      }
    }
    return c;
  }

  // Borders half way between centroids, a point on one goes to the lower.
  std::vector<int64_t> nearest(const std::vector<double>& c) const {
    std::vector<int64_t> starts(static_cast<size_t>(k_ + 1));
    for (size_t t = 1; t < c.size(); ++t) {
      const double middle = (c[t - 1] + c[t]) / 2;
      starts[t] =
          std::partition_point(points_.begin(), points_.end(), [&](const Point& p) { return p.mean <= middle; }) -
          points_.begin();
    }
    starts.back() = n_;
    return starts;
  }

  // An empty cluster takes the upper part, from its mean on, of the one with the greatest error.
  void fill_empty() {
    for (;;) {
      int64_t empty = -1, worst = -1;
      double most = 0;
      for (int64_t c = 0; c < k_; ++c) {
        const int64_t size = start(c + 1) - start(c);
        if (size == 0) empty = c;
        if (size > 1 && (worst < 0 || error(start(c), start(c + 1)) > most))
          most = error(start(c), start(c + 1)), worst = c;
      }
      if (empty < 0) return;
      const int64_t a = start(worst), b = start(worst + 1);
      const double middle = mean(a, b);
      int64_t cut = std::partition_point(points_.begin() + a, points_.begin() + b,
                                         [&](const Point& p) { return p.mean <= middle; }) -
                    points_.begin();
      cut = std::clamp(cut, a + 1, b - 1);
      starts_.erase(starts_.begin() + empty);  // its border, twice there
      starts_.insert(std::upper_bound(starts_.begin(), starts_.end(), cut), cut);
    }
  }

  std::vector<Point> points_;
  int64_t n_, k_;
  double center_ = 0;
  std::vector<Sums> sums_;
  std::vector<int64_t> starts_;
};

}  // namespace

void kmeans1d(const float* values, int64_t count, int64_t k, KmeansInit init, uint64_t seed, int64_t max_iterations,
              float* codebook, uint8_t* indices, int threads) {
  if (k < 1 || k > 256) fail(kName, "k is " + std::to_string(k) + ", must be 1 to 256");
  if (init > KmeansInit::optimal) fail(kName, "init is " + std::to_string(static_cast<int>(init)));
  if (count < 0 || max_iterations < 0) {
    fail(kName, "count is " + std::to_string(count) + ", max_iterations " + std::to_string(max_iterations));
  }
  for (int64_t t = 0; t < count; ++t) {
    if (!std::isfinite(values[t])) {
      fail(kName, "value " + std::to_string(t) + " is " + std::to_string(values[t]) + ", must be finite");
    }
  }
  threads = resolve_threads(threads);
  std::vector<Point> points = distinct_values(values, count);
  if (points.empty() && count > 0) {
    points = histogram(values, count);
    if (std::ssize(points) < k) points = equal_counts(values, count);
  }
  if (std::ssize(points) < k) {
    fail(kName, "k is " + std::to_string(k) + ", there are " + std::to_string(points.size()) + " distinct values");
  }
  Clusters clusters(std::move(points), k);
  if (init == KmeansInit::optimal) {
    clusters.optimal();
  } else {
    clusters.lloyd(init, seed, max_iterations);
  }
  float tops[256];
  clusters.result(codebook, tops);
  parallel_for(threads, count, kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      indices[t] = static_cast<uint8_t>(std::lower_bound(tops, tops + k, values[t]) - tops);
    }
  });
}

}  // namespace lowbit
