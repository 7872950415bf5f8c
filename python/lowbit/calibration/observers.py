"""Observers: what was seen of a tensor, in O(bins) memory, and the range that each method takes from it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from lowbit import _core
from lowbit._core import FormatError
from lowbit.calibration.histogram import Histogram, as_values
from lowbit.calibration.threshold import (
    EntropySearch,
    entropy_search,
    mse_range,
    mse_threshold,
    percentile_range,
    percentile_threshold,
)
from lowbit.qparams import QParams, affine_qparams, symmetric_qparams

_FLOAT32_MAX = 3.4028234663852886e38


class Observer(ABC):
    """What was seen of a tensor, and the range taken from it.

    An observer is a function of the values seen, whatever their order: observing shards apart and merging gives the
    same state as observing everything at once. Empty arrays change nothing; NaN and infinity are a ValueError that
    leaves the observer as it was. A tensor that was always 0 gets scale 1 (zero point 0); one that was always the same
    value c gets the range that ends in c exactly.
    """

    method: ClassVar[str]
    count: int
    lo: float
    hi: float

    @abstractmethod
    def observe(self, x: Any, *, isa: str | None = None, threads: int | None = None) -> None:
        """Add the values of a float32 array of any shape (float16 and float64 are converted).

        Raises:
            ValueError: where a value is NaN or infinite.
            TypeError: where x is not a float array.
        """

    @abstractmethod
    def merge(self, other: Observer) -> Self:
        """Add what another observer of the same kind has seen; returns self.

        Raises:
            ValueError: where the two differ in kind or settings.
        """

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on observing, as JSON values."""

    @classmethod
    @abstractmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> Self:
        """The observer that ``state_dict`` described; lowbit.FormatError where the state cannot be one."""

    @abstractmethod
    def _threshold(self, bits: int) -> float: ...

    @abstractmethod
    def _range(self, bits: int) -> tuple[float, float]: ...

    def threshold(self, bits: int = 8) -> float:
        """T of the symmetric range -T..T for codes of ``bits``; ``max(abs(x))`` where all values were the same."""
        self._need(bits)
        return max(-self.lo, self.hi) if self.lo == self.hi else self._threshold(bits)

    def range(self, bits: int = 8) -> tuple[float, float]:
        """(lo, hi) of the affine range for codes of ``bits``, widened to include 0."""
        self._need(bits)
        lo, hi = (self.lo, self.hi) if self.lo == self.hi else self._range(bits)
        return min(lo, 0.0), max(hi, 0.0)

    def qparams(self, dtype: str = "int8", symmetric: bool = True, bits: int = 8) -> QParams:
        """Scale and zero point: T / 127 and none, or with ``symmetric=False`` those of the range (lo, hi).

        Args:
            dtype: ``"int8"`` or ``"uint8"``.
            symmetric: take the threshold, not the range.
            bits: 2 to 8. Methods that search (entropy, mse) search the range that suits so many codes: the fewer, the
                more they clip.

        Raises:
            ValueError: where no value was observed.
        """
        if symmetric:
            return symmetric_qparams(self.threshold(bits), dtype, bits=bits, zero_scale=1.0)
        return affine_qparams(*self.range(bits), dtype, bits=bits, zero_scale=1.0)

    def _need(self, bits: int) -> None:
        if self.count == 0:
            raise ValueError(f"{type(self).__name__}: no value was observed")
        if not 2 <= bits <= 8:
            raise ValueError(f"bits: {bits} is not in 2..8")

    def _check_other(self, other: Observer) -> None:
        if type(other) is not type(self):
            raise ValueError(f"merge: {type(self).__name__} and {type(other).__name__} differ")

    def __repr__(self) -> str:
        return f"{type(self).__name__}(count={self.count}, lo={self.lo:g}, hi={self.hi:g})"


class MinMaxObserver(Observer):
    """The smallest and the largest value: no clipping.

    Example:
        >>> import numpy as np, lowbit
        >>> obs = lowbit.MinMaxObserver()
        >>> obs.observe(np.array([-1.0, 12.7], np.float32))
        >>> round(obs.qparams().scale, 6)
        0.1
    """

    method = "minmax"

    def __init__(self) -> None:
        self.count, self.lo, self.hi = 0, 0.0, 0.0

    def observe(self, x: Any, *, isa: str | None = None, threads: int | None = None) -> None:  # noqa: D102
        values = as_values(x, "observe")
        if values.size:
            self._extend(*_core.finite_range(values, isa=isa, threads=threads), values.size)

    def merge(self, other: Observer) -> Self:  # noqa: D102
        self._check_other(other)
        if other.count:
            self._extend(other.lo, other.hi, other.count)
        return self

    def _extend(self, lo: float, hi: float, count: int) -> None:
        self.lo = min(self.lo, lo) if self.count else lo
        self.hi = max(self.hi, hi) if self.count else hi
        self.count += count

    def state_dict(self) -> dict[str, Any]:  # noqa: D102
        return {"method": self.method, "count": self.count, "lo": self.lo, "hi": self.hi}

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> Self:  # noqa: D102
        _check_method(cls.method, state)
        count, lo, hi = state.get("count"), state.get("lo"), state.get("hi")
        if type(count) is not int or count < 0:
            raise FormatError(f"minmax: count {count!r} is not a whole number")
        if not _finite(lo) or not _finite(hi) or not lo <= hi:  # type: ignore[operator]
            raise FormatError(f"minmax: {lo!r}..{hi!r} is not a range")
        observer = cls()
        observer.count, observer.lo, observer.hi = count, float(lo), float(hi)  # type: ignore[arg-type]
        return observer

    def _threshold(self, bits: int) -> float:
        return max(-self.lo, self.hi)

    def _range(self, bits: int) -> tuple[float, float]:
        return self.lo, self.hi


class HistogramObserver(Observer):
    """An observer that keeps a histogram.

    Attributes:
        histogram: the counts.
    """

    def __init__(self, bins: int = 2048, histogram: Histogram | None = None) -> None:
        self.histogram = Histogram(bins) if histogram is None else histogram

    @property
    def count(self) -> int:  # type: ignore[override]
        """Number of values seen."""
        return self.histogram.count

    @property
    def lo(self) -> float:  # type: ignore[override]
        """Smallest value seen, exactly."""
        return self.histogram.lo

    @property
    def hi(self) -> float:  # type: ignore[override]
        """Largest value seen, exactly."""
        return self.histogram.hi

    def observe(self, x: Any, *, isa: str | None = None, threads: int | None = None) -> None:  # noqa: D102
        self.histogram.observe(x, isa=isa, threads=threads)

    def merge(self, other: Observer) -> Self:  # noqa: D102
        self._check_other(other)
        assert isinstance(other, HistogramObserver)
        if self._settings() != other._settings():
            raise ValueError(f"merge: {self.method} observers with {self._settings()} and {other._settings()}")
        self.histogram.merge(other.histogram)
        return self

    def state_dict(self) -> dict[str, Any]:  # noqa: D102
        return {"method": self.method, **self._settings(), **self.histogram.state_dict()}

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> Self:  # noqa: D102
        _check_method(cls.method, state)
        histogram = Histogram.from_state_dict(state)
        try:
            settings = {name: state[name] for name in cls()._settings()}
            return cls(histogram=histogram, **settings)
        except (KeyError, TypeError, ValueError) as e:
            raise FormatError(f"{cls.method}: {type(e).__name__} {e}") from None

    def _settings(self) -> dict[str, Any]:
        return {}


class EntropyObserver(HistogramObserver):
    """TensorRT's entropy calibration: the threshold with the smallest KL(P || Q) (see ``entropy_search``).

    The affine range is -T..T cut to what was seen, T searched with 256 levels where all values have one sign, else 128.

    Args:
        bins: a power of two in 16..65536; ``bins + 1`` to ``2 * bins`` are in use.
        literal_bin0: take bin 0 as counted, not as bin 1: the letter of the slides, which ruins nets with ReLU.

    Source: Migacz, 8-bit Inference with TensorRT, GTC 2017.

    Example:
        >>> import numpy as np, lowbit
        >>> x = np.random.default_rng(0).standard_normal(100_000).astype(np.float32)
        >>> obs = lowbit.EntropyObserver(bins=2048)
        >>> obs.observe(x)
        >>> bool(obs.qparams(dtype="int8").scale == np.float32(obs.threshold() / 127))
        True
    """

    method = "entropy"

    def __init__(self, bins: int = 2048, literal_bin0: bool = False, histogram: Histogram | None = None) -> None:
        super().__init__(bins, histogram)
        self.literal_bin0 = bool(literal_bin0)

    def search(self, levels: int = 128) -> EntropySearch:
        """The whole search: threshold and divergence curve."""
        self._need(8)
        return entropy_search(self.histogram, levels, self.literal_bin0)

    def _threshold(self, bits: int) -> float:
        return self.search(1 << (bits - 1)).threshold

    def _range(self, bits: int) -> tuple[float, float]:
        t = self.search(1 << (bits if self.lo >= 0 or self.hi <= 0 else bits - 1)).threshold
        return max(self.lo, -t), min(self.hi, t)

    def _settings(self) -> dict[str, Any]:
        return {"literal_bin0": self.literal_bin0}


class PercentileObserver(HistogramObserver):
    """The range that holds a percentage of the values.

    The threshold holds ``percentile`` % of ``abs(x)``; the affine range leaves out ``(100 - percentile) / 2`` % at
    either end.

    Args:
        percentile: in (0, 100]; 100 is min-max.
        bins: as in EntropyObserver.

    Example:
        >>> import numpy as np, lowbit
        >>> obs = lowbit.PercentileObserver(percentile=99)
        >>> obs.observe(np.linspace(0, 1, 100_001, dtype=np.float32))
        >>> round(obs.threshold(), 3)
        0.99
    """

    method = "percentile"

    def __init__(self, percentile: float = 99.99, bins: int = 2048, histogram: Histogram | None = None) -> None:
        if not 0 < percentile <= 100:
            raise ValueError(f"percentile: {percentile} is not in (0, 100]")
        super().__init__(bins, histogram)
        self.percentile = float(percentile)

    def _threshold(self, bits: int) -> float:
        return percentile_threshold(self.histogram, self.percentile)

    def _range(self, bits: int) -> tuple[float, float]:
        return percentile_range(self.histogram, self.percentile)

    def _settings(self) -> dict[str, Any]:
        return {"percentile": self.percentile}


class MSEObserver(HistogramObserver):
    """The range whose grid of codes has the smallest mean squared error on the values seen (at their bins' centres).

    Args:
        bins: as in EntropyObserver.

    Example:
        >>> import numpy as np, lowbit
        >>> x = np.random.default_rng(0).standard_normal(100_000).astype(np.float32)
        >>> obs = lowbit.MSEObserver()
        >>> obs.observe(x)
        >>> 3.5 < obs.threshold() < obs.hi
        True
    """

    method = "mse"

    def _threshold(self, bits: int) -> float:
        return mse_threshold(self.histogram, (1 << (bits - 1)) - 1)

    def _range(self, bits: int) -> tuple[float, float]:
        return mse_range(self.histogram, (1 << bits) - 1)


class FixedObserver(Observer):
    """A threshold from outside (a TensorRT cache): nothing can be observed or merged.

    Args:
        threshold: T >= 0, finite.
    """

    method = "fixed"
    count = 1

    def __init__(self, threshold: float) -> None:
        if not _finite(threshold) or threshold < 0:
            raise ValueError(f"threshold: {threshold!r} is not a finite number >= 0")
        self.lo, self.hi = -float(threshold), float(threshold)

    def observe(self, x: Any, *, isa: str | None = None, threads: int | None = None) -> None:  # noqa: D102
        raise ValueError("observe: a fixed threshold does not observe")

    def merge(self, other: Observer) -> Self:  # noqa: D102
        self._check_other(other)
        if other.hi != self.hi:
            raise ValueError(f"merge: fixed thresholds {self.hi} and {other.hi} differ")
        return self

    def state_dict(self) -> dict[str, Any]:  # noqa: D102
        return {"method": self.method, "threshold": self.hi}

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> Self:  # noqa: D102
        _check_method(cls.method, state)
        try:
            return cls(state["threshold"])
        except (KeyError, ValueError) as e:
            raise FormatError(f"fixed: {e}") from None

    def _threshold(self, bits: int) -> float:
        return self.hi

    def _range(self, bits: int) -> tuple[float, float]:
        return self.lo, self.hi


METHODS: dict[str, type[Observer]] = {
    c.method: c for c in (EntropyObserver, MinMaxObserver, PercentileObserver, MSEObserver, FixedObserver)
}

# The method that keeps real networks closest to float. Agreement of int8 with float on 500 ImageNet images, calibrated
# on the first 100, mse / entropy, in percent: MobileNetV2 98.8 / 96.8, EfficientNet-lite0 99.3 / 97.8, SqueezeNet 1.1
# 95.5 / 95.5.
DEFAULT_METHOD = "mse"


def make_observer(method: str, **settings: Any) -> Observer:
    """A new observer by its method's name: "entropy", "minmax", "percentile" or "mse"."""
    if method not in METHODS or method == "fixed":
        raise ValueError(f"method: {method!r} is not one of {', '.join(m for m in METHODS if m != 'fixed')}")
    return METHODS[method](**settings)


def observer_from_state(state: Any) -> Observer:
    """The observer of a state, by the method that it names."""
    method = state.get("method") if isinstance(state, Mapping) else None
    if not isinstance(method, str) or method not in METHODS:
        raise FormatError(f"observer: {state!r:.80} names no method of {', '.join(METHODS)}")
    return METHODS[method].from_state_dict(state)


def _finite(value: Any) -> bool:
    return type(value) in (int, float) and -_FLOAT32_MAX <= value <= _FLOAT32_MAX  # so not NaN


def _check_method(method: str, state: Mapping[str, Any]) -> None:
    if state.get("method") != method:
        raise FormatError(f"{method}: the state is of method {state.get('method')!r}")
