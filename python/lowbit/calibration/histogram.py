"""A streaming histogram whose bins have power-of-two width, so that shards merge to the last count."""

from __future__ import annotations

import base64
import binascii
import math
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowbit import _core
from lowbit._core import FormatError

MIN_EXPONENT = -126  # kMinExponent of lowbit/calibrate.h


def as_values(x: Any, what: str) -> NDArray[np.float32]:
    """``x`` as a flat float32 array, in any order of its elements, without a copy where its layout allows.

    float16 and float64 are converted (float64 rounds to the nearest float32). Anything else is a TypeError.
    """
    array = x if isinstance(x, np.ndarray) else np.from_dlpack(x) if hasattr(x, "__dlpack__") else np.asarray(x)
    if array.dtype != np.float32:
        if array.dtype.kind != "f" or array.dtype.itemsize > 8:
            raise TypeError(f"{what}: dtype {array.dtype} is not float32, float16 or float64")
        with np.errstate(over="ignore"):
            array = array.astype(np.float32)
    flat: NDArray[np.float32] = np.require(array.ravel(order="K"), np.float32, ["C", "A"])
    return flat


class Histogram:
    """Counts of x in bins of width ``2**exponent``: bin ``floor(abs(x) / width)``, apart for x < 0 and x >= 0.

    The width follows from the largest ``abs(x)`` seen: it leaves between ``bins + 1`` and ``2 * bins`` bins in use.
    When the range grows, bins fold in pairs, which gives exactly what wider bins would have counted. So the state
    depends on the values alone, never on their order or on how they were split, and memory is O(bins).

    Attributes:
        bins: a power of two in 16..65536.
        counts: int64 (2, 2 * bins): x >= 0 in row 0 (-0.0 counts as 0), x < 0 in row 1.
        exponent: log2 of the width; -126, the narrowest, until a value other than 0 is seen.
        count: number of values seen.
        lo, hi: smallest and largest of them, exactly; 0.0 while count is 0.

    Example:
        >>> import numpy as np
        >>> from lowbit.calibration import Histogram
        >>> h = Histogram(bins=16)
        >>> h.observe(np.array([0.5, -1.0, 3.0], np.float32))
        >>> h.width, h.lo, h.hi, h.magnitudes().nonzero()[0].tolist()
        (0.125, -1.0, 3.0, [4, 8, 24])
    """

    def __init__(self, bins: int = 2048) -> None:
        if not isinstance(bins, int) or not 16 <= bins <= 65536 or bins & (bins - 1):
            raise ValueError(f"bins: {bins} is not a power of two in 16..65536")
        self.bins = bins
        self.counts: NDArray[np.int64] = np.zeros((2, 2 * bins), np.int64)
        self.exponent = MIN_EXPONENT
        self.count = 0
        self.lo = 0.0
        self.hi = 0.0

    @property
    def width(self) -> float:
        """Width of a bin."""
        return math.ldexp(1.0, self.exponent)

    @property
    def largest(self) -> float:
        """The largest absolute value seen."""
        return max(-self.lo, self.hi)

    @property
    def used(self) -> int:
        """Number of bins of ``abs(x)`` in use: the last one holds ``largest``."""
        return math.floor(math.ldexp(self.largest, -self.exponent)) + 1

    def observe(self, x: Any, *, isa: str | None = None, threads: int | None = None) -> None:
        """Add the values of an array; an empty one changes nothing.

        Args:
            x: float32 array of any shape (float16 and float64 are converted).
            isa: level, default the best.
            threads: default ``lowbit.num_threads()``.

        Raises:
            ValueError: where a value is NaN or infinite; the state is as before.
            TypeError: where x is not a float array.
        """
        values = as_values(x, "observe")
        state = _core.histogram_observe(
            self.counts, self.exponent, self.count, self.lo, self.hi, values, isa=isa, threads=threads
        )
        self.exponent, self.count, self.lo, self.hi = state

    def merge(self, other: Histogram) -> None:
        """Add another histogram's counts: the result is as if this one had seen all its values."""
        if self.bins != other.bins:
            raise ValueError(f"merge: histograms of {self.bins} and {other.bins} bins")
        if other.count == 0:
            return
        counts = other.counts
        exponent = max(self.exponent, other.exponent)
        if other.exponent < exponent:
            counts = counts.copy()
            _core.histogram_fold(counts, other.exponent, exponent)
        _core.histogram_fold(self.counts, self.exponent, exponent)
        self.counts += counts
        self.exponent = exponent
        self.lo = min(self.lo, other.lo) if self.count else other.lo
        self.hi = max(self.hi, other.hi) if self.count else other.hi
        self.count += other.count

    def magnitudes(self) -> NDArray[np.int64]:
        """Counts of ``abs(x)`` in the bins in use; bin k holds ``k * width <= abs(x) < (k + 1) * width``."""
        counts: NDArray[np.int64] = self.counts[:, : self.used].sum(axis=0)
        return counts

    def signed(self) -> tuple[NDArray[np.int64], int]:
        """Counts of x in the bins in use, from the lowest, and the place p of the first: it starts at ``p * width``."""
        positive, negative = self._ends()
        counts = np.concatenate([self.counts[1, :negative][::-1], self.counts[0, :positive]])
        return counts, -negative

    def _ends(self) -> tuple[int, int]:
        """Number of bins in use of x >= 0 and of x < 0."""
        positive = math.floor(math.ldexp(self.hi, -self.exponent)) + 1 if self.hi >= 0 else 0
        negative = math.floor(math.ldexp(-self.lo, -self.exponent)) + 1 if self.lo < 0 else 0
        return positive, negative

    def state_dict(self) -> dict[str, Any]:
        """The state as JSON values; counts as base64 of zlib of little-endian int64, without trailing zeros."""
        return {
            "bins": self.bins,
            "exponent": self.exponent,
            "count": self.count,
            "lo": self.lo,
            "hi": self.hi,
            "positive": _encode(self.counts[0]),
            "negative": _encode(self.counts[1]),
        }

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> Histogram:
        """The histogram that ``state_dict`` described; lowbit.FormatError where it cannot be one."""
        try:
            h = cls(state["bins"])
            h.exponent, h.count = state["exponent"], state["count"]
            h.lo, h.hi = state["lo"], state["hi"]
            h.counts = np.stack([_decode(state["positive"], 2 * h.bins), _decode(state["negative"], 2 * h.bins)])
        except (KeyError, ValueError, TypeError) as e:
            raise FormatError(f"histogram: {type(e).__name__} {e}") from None
        h._check()
        return h

    def _check(self) -> None:
        whole = all(type(v) is int for v in (self.exponent, self.count))
        if not whole or self.count < 0 or not all(type(v) in (int, float) for v in (self.lo, self.hi)):
            raise FormatError("histogram: exponent, count, lo or hi is not a number of its kind")
        top = float(np.finfo(np.float32).max)
        if not -top <= self.lo <= self.hi <= top:
            raise FormatError(f"histogram: lo {self.lo} and hi {self.hi} are no range of float32")
        frexp = math.frexp(self.largest)[1] - 1 if self.largest else MIN_EXPONENT
        if self.exponent != max(frexp - (self.bins.bit_length() - 1), MIN_EXPONENT):
            raise FormatError(f"histogram: exponent {self.exponent} does not fit the range {self.lo}..{self.hi}")
        if (self.counts < 0).any() or sum(map(int, self.counts.ravel())) != self.count:
            raise FormatError(f"histogram: the counts do not add up to {self.count}")
        self.lo, self.hi = float(self.lo), float(self.hi)
        for row, end in zip(self.counts, self._ends(), strict=True):
            if row[end:].any() or (self.count and end and not row[end - 1]):
                raise FormatError(f"histogram: the counts do not end at the bins of {self.lo} and {self.hi}")


def _encode(counts: NDArray[np.int64]) -> str:
    used = int(np.flatnonzero(counts)[-1]) + 1 if counts.any() else 0
    return base64.b64encode(zlib.compress(counts[:used].astype("<i8").tobytes(), 6)).decode("ascii")


def _decode(text: str, size: int) -> NDArray[np.int64]:
    try:
        stream = zlib.decompressobj()
        raw = stream.decompress(base64.b64decode(text, validate=True), 8 * size + 1)  # no more, whatever the bytes say
    except (binascii.Error, zlib.error) as e:
        raise ValueError(f"counts: {e}") from None
    if len(raw) > 8 * size or len(raw) % 8 or not stream.eof:
        raise ValueError(f"counts: {len(raw)} bytes are not up to {size} int64")
    counts = np.zeros(size, np.int64)
    counts[: len(raw) // 8] = np.frombuffer(raw, "<i8")
    return counts
