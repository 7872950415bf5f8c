"""From a histogram to a range: the entropy, percentile and mean-squared-error searches."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lowbit import _core
from lowbit.calibration.histogram import Histogram

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class EntropySearch:
    """What the entropy search found, and its whole curve (the report plots it).

    Attributes:
        threshold: T. ``(best + 0.5) * bin_width``, and ``max(abs(x))`` itself where no clipping is best.
        best: number of bins kept, the first with the smallest divergence.
        bin_width: width of a bin.
        first: number of bins of the first candidate (the number of levels); 0 where there were too few bins to search.
        divergence: float64, KL(P || Q) in nats of keeping ``first + k`` bins; inf where the candidate ends in an empty
            bin.
    """

    threshold: float
    best: int
    bin_width: float
    first: int
    divergence: Floats

    @property
    def thresholds(self) -> Floats:
        """The threshold of every candidate, for plots."""
        places: Floats = self.first + 0.5 + np.arange(len(self.divergence), dtype=np.float64)
        return places * self.bin_width


def entropy_search(
    h: Histogram, levels: int = 128, literal_bin0: bool = False, isa: str | None = None
) -> EntropySearch:
    """The threshold of TensorRT's entropy calibration, searched on the histogram of ``abs(x)``.

    For i = ``levels`` .. the bin of ``max(abs(x))``, both included: P is the histogram cut after i bins with the rest
    added to its last bin, Q the same cut without the rest, brought to ``levels`` levels and back. The i with the
    smallest ``KL(P || Q)`` wins. What the slides leave open:

    * bin 0 is replaced by bin 1 (exact zeros after ReLU would drag the threshold down and ruin nets); ``literal_bin0``
      keeps it;
    * where i is no multiple of ``levels``, group j is ``floor(j i / levels) .. floor((j + 1) i / levels)``;
    * a candidate that ends in an empty bin has P > 0 and Q = 0 there: its divergence is infinite, as defined, and it
      never wins; the last candidate is always finite;
    * the search includes "no clipping" (i = the number of bins in use), and then T is ``max(abs(x))``, not half a bin
      beyond it;
    * of equal divergences (to 1e-12) the first wins;
    * with fewer than ``levels`` bins in use (all values zero or denormal) nothing is clipped.

    Args:
        h: histogram with at least one value.
        levels: 128 for int8 codes of ``abs(x)``; a power of two.
        literal_bin0: keep bin 0 as counted.
        isa: level, default the best.

    Source: Migacz, 8-bit Inference with TensorRT, GTC 2017.

    Example:
        >>> import numpy as np
        >>> from lowbit.calibration import Histogram, entropy_search
        >>> h = Histogram()
        >>> h.observe(np.random.default_rng(0).standard_normal(100_000, np.float32) ** 3)
        >>> found = entropy_search(h)
        >>> found.threshold < h.hi / 2, len(found.divergence) == h.used - 127
        (True, True)
    """
    if h.used < levels:
        return EntropySearch(h.largest, h.used, h.width, 0, np.empty(0))
    best, divergence = _core.entropy_search(h.magnitudes(), levels, literal_bin0=literal_bin0, isa=isa)
    threshold = h.largest if best == h.used else (best + 0.5) * h.width
    return EntropySearch(threshold, best, h.width, levels, divergence)


def entropy_distributions(counts: NDArray[np.int64], i: int, levels: int = 128) -> tuple[Floats, Floats]:
    """P and Q of one candidate of the entropy search, not normalised, bin 0 taken as it is.

    Args:
        counts: counts of ``abs(x)``, 1-d.
        i: number of bins kept, ``levels <= i <= len(counts)``.
        levels: number of groups.

    Returns:
        P and Q, float64 of length i.

    Example:
        >>> from lowbit.calibration import entropy_distributions
        >>> p, q = entropy_distributions([1, 0, 2, 3, 5, 3, 1, 7], 8, levels=2)      # the slides' example
        >>> q.tolist()
        [2.0, 0.0, 2.0, 2.0, 4.0, 4.0, 4.0, 4.0]
    """
    h = np.asarray(counts, dtype=np.float64)
    if h.ndim != 1 or not 1 <= levels <= i <= len(h):
        raise ValueError(f"entropy_distributions: levels {levels}, i {i} and counts of shape {h.shape} do not fit")
    p = h[:i].copy()
    p[-1] += h[i:].sum()
    first = np.arange(levels) * i // levels
    group = np.repeat(np.arange(levels), np.diff(first, append=i))
    full = h[:i] > 0
    sums, sizes = np.add.reduceat(h[:i], first), np.add.reduceat(full.astype(np.float64), first)
    q = np.where(full, (sums / np.maximum(sizes, 1.0))[group], 0.0)
    return p, q


def percentile_threshold(h: Histogram, percentile: float) -> float:
    """The smallest T with ``percentile`` % of ``abs(x) <= T``, linear inside a bin, at most ``max(abs(x))``."""
    place = _quantile(h.magnitudes(), percentile / 100)
    return min(place * h.width, h.largest)


def percentile_range(h: Histogram, percentile: float) -> tuple[float, float]:
    """(lo, hi) that leave out ``(100 - percentile) / 2`` % at either end, linear inside a bin, within what was seen."""
    counts, first = h.signed()
    tail = (1 - percentile / 100) / 2
    lo = (first + len(counts) - _quantile(counts[::-1], 1 - tail)) * h.width
    hi = (first + _quantile(counts, 1 - tail)) * h.width
    return min(max(lo, h.lo), h.hi), max(min(hi, h.hi), h.lo)


def _quantile(counts: NDArray[np.int64], fraction: float) -> float:
    """The place, in bins, below which ``fraction`` of the values lie."""
    total = np.cumsum(counts)
    target = fraction * float(total[-1])
    k = min(int(np.searchsorted(total, target)), len(counts) - 1)
    before = float(total[k - 1]) if k else 0.0
    return k + (min((target - before) / float(counts[k]), 1.0) if counts[k] else 0.0)


class _SquaredError:
    """Squared error of rounding a histogram's bin centres to ``steps + 1`` points, for many candidate grids at once.

    Sums of 1, v and v^2 over the values that share a code come from prefix sums, so a grid costs O(steps), not O(bins).
    """

    def __init__(self, counts: NDArray[np.int64], first: int, width: float, steps: int) -> None:
        place = first + 0.5 + np.arange(len(counts))  # bin centres, in bins
        weights = np.stack([np.ones_like(place), place, place * place]) * counts
        self._sums = np.concatenate([np.zeros((3, 1)), np.cumsum(weights, axis=1)], axis=1)
        self._first, self._bins, self._width, self._steps = first, len(counts), width, steps

    def __call__(self, lowest: Floats, step: Floats) -> Floats:
        """Error of the grids ``lowest + k * step``, k = 0 .. steps, each in units of values."""
        low, s = (lowest / self._width)[:, None], (step / self._width)[:, None]
        points = low + s * np.arange(self._steps + 1)
        edges = np.ceil(points[:, :-1] + s / 2 - 0.5 - self._first)
        inner = np.clip(edges, 0, self._bins).astype(np.int64)
        ends = np.full((len(lowest), 1), self._bins)
        cuts = np.concatenate([np.zeros_like(ends), inner, ends], axis=1)
        n, v, v2 = np.diff(self._sums[:, cuts], axis=2)
        error: Floats = (v2 - 2 * points * v + points * points * n).sum(axis=1)
        return error


def mse_threshold(h: Histogram, codes: int = 127) -> float:
    """The T <= ``max(abs(x))`` whose grid ``T / codes`` rounds the bin centres with the smallest squared error.

    Tried are 256 thresholds from ``max / 256`` to ``max``, then every bin between the neighbours of the best.
    """
    cost = _SquaredError(h.magnitudes(), 0, h.width, codes)

    def best_of(t: Floats) -> float:
        return float(t[np.argmin(cost(np.zeros_like(t), t / codes))])

    coarse = best_of(h.largest * np.arange(256, 0, -1) / 256)
    near = h.largest / 256
    fine = np.arange(max(coarse - near, h.width), min(coarse + near, h.largest), max(h.width, near / 64))
    return best_of(np.append([coarse], fine[::-1]))


def mse_range(h: Histogram, steps: int = 255) -> tuple[float, float]:
    """The (lo, hi) around 0 whose grid of ``steps + 1`` points, 0 among them, rounds with the smallest squared error.

    Descent by coordinates from the whole range: both ends shrunk together, then each end in turn on an ever finer grid,
    as long as the error falls. The zero point rounds as in ``lowbit.qparams.affine_qparams``.
    """
    counts, first = h.signed()
    cost = _SquaredError(counts, first, h.width, steps)
    lo, hi = min(h.lo, 0.0), max(h.hi, 0.0)

    def error(low: Floats, high: Floats) -> Floats:
        step = np.maximum(high - low, np.finfo(np.float64).tiny) / steps
        return cost(-step * np.rint(-low / step), step)

    shrink = np.arange(64, 0, -1) / 64
    k = int(np.argmin(error(lo * shrink, hi * shrink)))
    span, (lo, hi) = (hi - lo) / 2, (lo * float(shrink[k]), hi * float(shrink[k]))
    least = math.inf
    while span > 16 * h.width:  # moves of half a bin
        move = span * np.arange(-32, 33) / 32
        highs = np.append([hi], np.clip(hi + move, 0.0, max(h.hi, 0.0)))
        hi = float(highs[np.argmin(error(np.full_like(highs, lo), highs))])
        lows = np.append([lo], np.clip(lo + move, min(h.lo, 0.0), 0.0))
        errors = error(lows, np.full_like(lows, hi))
        lo, reached = float(lows[np.argmin(errors)]), float(errors.min())
        if reached >= least:
            span /= 8
        least = reached
    return lo, hi
