// Bursts of one probe and of the clock chain in turn; the best group of bursts counts.
#include "lowbit/probe.h"

#include <algorithm>
#include <chrono>
#include <stdexcept>
#include <string>
#include <tuple>

#include "probe_kernel.h"
#include "target.h"
#include "variant.h"

namespace lowbit {
namespace {

#if LOWBIT_X86

using Clock = std::chrono::steady_clock;

constexpr Variant<ProbeFn> kVnni[] = {{Isa::avx512_vnni, probe_vnni_avx512_vnni}};
constexpr Variant<ProbeFn> kAmx[] = {{Isa::amx, probe_amx_amx}};
constexpr Variant<ProbeFn> kXnor[] = {{Isa::avx512, probe_xnor_avx512}};
constexpr Variant<ProbeFn> kAvx2[] = {{Isa::avx2, probe_avx2_avx2}};
constexpr Variant<ProbeFn> kFma[] = {{Isa::avx512_vnni, probe_fma_avx512_vnni}, {Isa::avx2, probe_fma_avx2}};

// What cores can do in a cycle, ascending.
constexpr double kVnniLimits[] = {64, 128};                 // one port (Zen 4, client Ice Lake), two (Xeon, Zen 5)
constexpr double kAmxLimits[] = {1024, 2048};               // one tile product in 16 cycles
constexpr double kAvx2Limits[] = {16, 32};                  // one multiplier port, two
constexpr double kXnorLimits[] = {1024.0 / 3, 2048.0 / 3};  // three operations on two ports (Xeon, Zen 4), on four
constexpr double kFmaLimits[] = {8, 16, 32};

template <size_t N>
ProbeFn on_this_machine(const Variant<ProbeFn> (&table)[N], const char* name) {
  for (const Variant<ProbeFn>& row : table) {
    if (isa_supported(row.isa)) return row.fn;
  }
  throw std::invalid_argument("peak_probe: this machine lacks the instructions of '" + std::string(name) + "'");
}

// Cycles of a chain of dependent multiplications.
int64_t clock_chain(int64_t iterations) noexcept {
  int64_t x = 3, n = iterations;
  asm volatile(
      "1:\n imul %0,%0\n imul %0,%0\n imul %0,%0\n imul %0,%0\n imul %0,%0\n imul %0,%0\n imul %0,%0\n imul %0,%0\n"
      "dec %1\n jnz 1b\n"
      : "+r"(x), "+r"(n)
      :
      : "cc");
  return iterations * 8 * 3;
}

// Seconds of one burst.
double spend(ProbeFn fn, int64_t iterations, int64_t& work) {
  const auto start = Clock::now();
  work += fn(iterations);
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// Iterations that take about 20 us: long beside the timer and the entry of a probe, short beside a change of the clock.
int64_t burst_length(ProbeFn fn) {
  constexpr int64_t kTry = 64;
  int64_t work = 0;
  double best = 1;
  for (int i = 0; i < 8; ++i) best = std::min(best, spend(fn, kTry, work));
  return std::max<int64_t>(1, static_cast<int64_t>(20e-6 / best * kTry));
}

Peak judge(double rate, double clock, const double* limits, size_t limit_count) {
  const double per_cycle = rate / clock;
  const double* limit = std::find_if(limits, limits + limit_count - 1, [&](double l) { return per_cycle <= 1.03 * l; });
  return {rate, clock, *limit, per_cycle >= 0.97 * *limit && per_cycle <= 1.03 * *limit};
}

// A core slows down under wide instructions and recovers within a millisecond, so the two take turns far faster than
// that. The bursts of one group share a clock; the fastest of each kind was not interrupted. A group that counts beats
// one that does not (the clock changed in its middle).
Peak measure(ProbeFn fn, const double* limits, size_t limit_count, double seconds) {
  constexpr int kPairs = 10;
  const int64_t length = burst_length(fn), chain = burst_length(clock_chain);
  Peak peak;
  int64_t unused = 0;
  spend(fn, 50 * length, unused);  // 1 ms: wide units wake up slowly
  const auto end = Clock::now() + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
  do {
    double rate = 0, clock = 0;
    for (int i = 0; i < kPairs; ++i) {
      int64_t macs = 0, cycles = 0;
      const double probe_seconds = spend(fn, length, macs), chain_seconds = spend(clock_chain, chain, cycles);
      rate = std::max(rate, static_cast<double>(macs) / probe_seconds);
      clock = std::max(clock, static_cast<double>(cycles) / chain_seconds);
    }
    const Peak group = judge(rate, clock, limits, limit_count);
    if (std::tuple(group.valid, group.macs_per_second) > std::tuple(peak.valid, peak.macs_per_second)) peak = group;
  } while (Clock::now() < end);
  return peak;
}

#endif

}  // namespace

Peak peak_probe(Probe probe, double seconds) {
  if (!(seconds > 0 && seconds <= 10)) {
    throw std::invalid_argument("peak_probe: seconds must be in (0, 10], not " + std::to_string(seconds));
  }
#if LOWBIT_X86
  switch (probe) {
    case Probe::vnni:
      return measure(on_this_machine(kVnni, "vnni"), kVnniLimits, std::size(kVnniLimits), seconds);
    case Probe::amx:
      return measure(on_this_machine(kAmx, "amx"), kAmxLimits, std::size(kAmxLimits), seconds);
    case Probe::avx2:
      return measure(on_this_machine(kAvx2, "avx2"), kAvx2Limits, std::size(kAvx2Limits), seconds);
    case Probe::xnor:
      return measure(on_this_machine(kXnor, "xnor"), kXnorLimits, std::size(kXnorLimits), seconds);
    case Probe::fma:
      return measure(on_this_machine(kFma, "fma"), kFmaLimits, std::size(kFmaLimits), seconds);
  }
#endif
  throw std::invalid_argument("peak_probe: no such probe on this machine");
}

}  // namespace lowbit
