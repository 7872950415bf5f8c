"""The calibration table: one observer per tensor and where the values came from, in one JSON file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from lowbit._core import FormatError
from lowbit.atomic import write_aside
from lowbit.calibration import tensorrt
from lowbit.calibration.channel_mean import ChannelMean
from lowbit.calibration.observers import (
    DEFAULT_METHOD,
    FixedObserver,
    HistogramObserver,
    Observer,
    make_observer,
    observer_from_state,
)
from lowbit.qparams import QParams

FORMAT, VERSION = "lowbit.calibration", 1


class CalibrationTable:
    """Observers by tensor name.

    The observers' whole state is kept, so tables of shards merge to exactly the table of the whole, and another
    method's ranges can be taken from the same histograms (``with_method``).

    Args:
        tensors: observer of each tensor, in the net's order.
        method: name of the observers' method.
        model: sha256 of the ONNX file as hexadecimal digits, empty where unknown.
        samples: number of samples seen.
        shards: (i, n) for each part i of n that was seen; empty for the whole.
        means: mean of each channel, by tensor name; conversion corrects biases with them.

    Example:
        >>> import numpy as np, lowbit
        >>> obs = lowbit.MinMaxObserver()
        >>> obs.observe(np.float32([-2.54, 1.0]))
        >>> table = lowbit.CalibrationTable({"conv1": obs}, method="minmax")
        >>> round(table.qparams("conv1").scale, 6)
        0.02
    """

    def __init__(
        self,
        tensors: Mapping[str, Observer] | None = None,
        *,
        method: str = DEFAULT_METHOD,
        model: str = "",
        samples: int = 0,
        shards: list[tuple[int, int]] | None = None,
        means: Mapping[str, ChannelMean] | None = None,
    ) -> None:
        self.tensors, self._means = dict(tensors or {}), dict(means or {})
        self.method, self.model, self.samples = method, model, samples
        self.shards = sorted(shards or [])

    @property
    def shard(self) -> tuple[int, int] | None:
        """(i, n) where this table is part i of n; None where it is the whole, or several parts merged."""
        return self.shards[0] if len(self.shards) == 1 else None

    @property
    def digest(self) -> str:
        """sha256 of the table's canonical JSON, as hexadecimal digits."""
        return hashlib.sha256(self._json().encode()).hexdigest()

    def __getitem__(self, name: str) -> Observer:
        try:
            return self.tensors[name]
        except KeyError:
            raise KeyError(f"tensor {name!r} is not in the calibration table, which has {len(self)}") from None

    def __contains__(self, name: object) -> bool:
        return name in self.tensors

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)

    def __repr__(self) -> str:
        shard = f", shards={self.shards}" if self.shards else ""
        return f"CalibrationTable({len(self)} tensors, method={self.method!r}, samples={self.samples}{shard})"

    def threshold(self, name: str, bits: int = 8) -> float:
        """T of a tensor's symmetric range for codes of ``bits``."""
        return self[name].threshold(bits)

    def range(self, name: str, bits: int = 8) -> tuple[float, float]:
        """(lo, hi) of a tensor's affine range for codes of ``bits``."""
        return self[name].range(bits)

    def mean(self, name: str) -> NDArray[np.float64] | None:
        """Mean of each channel of a tensor, float64 (c) in the ONNX tensor's order; None where it is not known."""
        return self._means[name].mean() if name in self._means else None

    def qparams(self, name: str, dtype: str = "int8", symmetric: bool = True, bits: int = 8) -> QParams:
        """Quantisation parameters of a tensor (see ``Observer.qparams``); errors name the tensor."""
        try:
            return self[name].qparams(dtype, symmetric, bits)
        except ValueError as e:
            raise ValueError(f"tensor {name!r}: {e}") from e

    def with_method(self, method: str, **settings: Any) -> CalibrationTable:
        """The same counts, read by another method.

        Args:
            method: "entropy", "minmax", "percentile" or "mse".
            settings: of the observer, such as ``percentile=99.9``.

        Raises:
            ValueError: where the method is unknown, or needs histograms and the table has none.
        """
        tensors: dict[str, Observer] = {}
        for name, old in self.tensors.items():
            new = make_observer(method, **settings)
            if isinstance(new, HistogramObserver):
                if not isinstance(old, HistogramObserver):
                    raise ValueError(
                        f"with_method: tensor {name!r} has no histogram, method {self.method!r} keeps none"
                    )
                new.histogram = old.histogram
            else:
                new.lo, new.hi, new.count = old.lo, old.hi, old.count
            tensors[name] = new
        return CalibrationTable(
            tensors, method=method, model=self.model, samples=self.samples, shards=self.shards, means=self._means
        )

    def merge(self, other: CalibrationTable) -> Self:
        """Add another shard's counts; returns self. The result equals, to the last count, the table of both together.

        Raises:
            ValueError: where net, method or tensors differ, or both hold the same shard; this table is then unchanged.
        """
        for what in ("model", "method"):
            if getattr(self, what) != getattr(other, what):
                raise ValueError(f"merge: {what} {getattr(self, what)!r} and {getattr(other, what)!r} differ")
        if set(self) != set(other):
            name = sorted(set(self) ^ set(other))[0]
            raise ValueError(f"merge: tensor {name!r} is in the {'first' if name in self else 'second'} table only")
        if bool(self.shards) != bool(other.shards) and self.samples and other.samples:
            raise ValueError(f"merge: one table is the whole, the other shard {(self.shards or other.shards)[0]}")
        parts = {n for _, n in self.shards + other.shards}
        if len(parts) > 1:
            raise ValueError(f"merge: shards of {' and of '.join(map(str, sorted(parts)))}")
        if twice := set(self.shards) & set(other.shards):
            raise ValueError(f"merge: shard {min(twice)} is in both tables")
        merged: dict[str, Observer] = {}
        for name, mine in self.tensors.items():
            try:
                merged[name] = type(mine).from_state_dict(mine.state_dict()).merge(other[name])
            except ValueError as e:
                raise ValueError(f"tensor {name!r}: {e}") from e
        both = self._means.keys() & other._means.keys()
        copies = {name: ChannelMean().merge(self._means[name]) for name in self.tensors if name in both}
        self._means = {name: mine.merge(other._means[name]) for name, mine in copies.items()}
        self.tensors = merged
        self.samples += other.samples
        shards = sorted(self.shards + other.shards)
        self.shards = [] if parts and len(shards) == min(parts) else shards
        return self

    def save(self, path: str | Path) -> None:
        """Write the table as JSON, whole or not at all."""
        with write_aside(path) as aside:
            aside.write_text(self._json(indent=1), encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> CalibrationTable:
        """Read a table that ``save`` wrote.

        Raises:
            lowbit.FormatError: where the file is no calibration table; says where.
            OSError: where it cannot be read.
        """
        try:
            return cls._from_json(json.loads(Path(path).read_bytes()))
        except (ValueError, RecursionError) as e:  # FormatError, JSONDecodeError and UnicodeDecodeError are ValueErrors
            raise FormatError(f"{path}: {e}") from None

    def save_tensorrt(self, path: str | Path, version: str = "8601") -> None:
        """Write TensorRT's calibration cache: a scale T / 127 per tensor.

        Args:
            path: file to write.
            version: TensorRT's version as its first line gives it, such as 8601 for 8.6.1; TensorRT refuses another's.
        """
        scales = {name: self.qparams(name).scale for name in self}
        with write_aside(path) as aside:
            aside.write_text(tensorrt.cache_text(scales, version), encoding="utf-8")

    @classmethod
    def load_tensorrt(cls, path: str | Path) -> CalibrationTable:
        """Read TensorRT's calibration cache: a table of fixed thresholds, method "fixed".

        Raises:
            lowbit.FormatError: where a line is wrong; gives its number.
        """
        try:
            scales = tensorrt.parse_cache(Path(path).read_bytes())
        except FormatError as e:
            raise FormatError(f"{path}: {e}") from None
        return cls({name: FixedObserver(scale * 127.0) for name, scale in scales.items()}, method="fixed")

    def _json(self, indent: int | None = None) -> str:
        from lowbit import __version__

        return json.dumps(
            {
                "format": FORMAT,
                "version": VERSION,
                "lowbit": __version__,
                "method": self.method,
                "model": self.model,
                "samples": self.samples,
                "shards": self.shards,
                "tensors": {name: observer.state_dict() for name, observer in self.tensors.items()},
                "means": {name: mean.state_dict() for name, mean in self._means.items()},
            },
            indent=indent,
        )

    @classmethod
    def _from_json(cls, root: Any) -> CalibrationTable:
        if not isinstance(root, dict) or root.get("format") != FORMAT:
            raise FormatError(f"not a calibration table: no format {FORMAT!r}")
        if root.get("version") != VERSION:
            raise FormatError(f"version {root.get('version')!r}; this lowbit reads version {VERSION}")
        tensors, samples, shards = root.get("tensors"), root.get("samples"), root.get("shards")
        if not isinstance(tensors, dict):
            raise FormatError("tensors is not an object")
        if type(samples) is not int or samples < 0:
            raise FormatError(f"samples is {samples!r}")
        method, model = root.get("method"), root.get("model")
        if not isinstance(method, str) or not isinstance(model, str):
            raise FormatError("method or model is not a string")
        if not isinstance(shards, list) or not all(_is_shard(s) for s in shards):
            raise FormatError(f"shards is {shards!r:.80}")
        observers = {}
        for name, state in tensors.items():
            try:
                observers[name] = observer_from_state(state)
            except FormatError as e:
                raise FormatError(f"tensor {name!r}: {e}") from None
            if observers[name].method != method:
                raise FormatError(f"tensor {name!r}: method {observers[name].method!r} in a table of {method!r}")
        means = root.get("means", {})
        if not isinstance(means, dict):
            raise FormatError("means is not an object")
        for name, state in means.items():
            try:
                means[name] = ChannelMean.from_state_dict(state)
            except FormatError as e:
                raise FormatError(f"tensor {name!r}: {e}") from None
        found = [(i, n) for i, n in shards]
        return cls(observers, method=method, model=model, samples=samples, shards=found, means=means)


def _is_shard(value: Any) -> bool:
    whole = isinstance(value, list) and len(value) == 2 and all(type(v) is int for v in value)
    return whole and 0 <= value[0] < value[1]
