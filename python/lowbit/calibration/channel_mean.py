"""The mean of each channel of an activation, exact under merging, in O(channels) memory."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from lowbit._core import FormatError

_STEP = 2.0**-24
_LARGEST = 2.0**15  # of one sample's mean: 2**24 samples then fit int64
_MOST_CHANNELS = 1 << 20


class ChannelMean:
    """Mean over samples and positions of each channel: axis 1 of (n, c) or (n, c, h, w), as ONNX lays them out.

    Each sample's mean is rounded to a multiple of 2**-24 and summed in int64, so that the order of samples, and how
    they were dealt to shards, changes nothing. A tensor of another rank, or one of whose samples has a mean beyond
    32768, has none.

    Example:
        >>> import numpy as np
        >>> m = ChannelMean()
        >>> m.observe(np.float32([[1, 2], [3, 2]]))
        >>> m.mean()
        array([2., 2.])
    """

    def __init__(self) -> None:
        self.count = 0
        self._sums: NDArray[np.int64] | None = None
        self._lost = False

    def observe(self, x: NDArray[Any]) -> None:
        """Add the samples of a float array; values are taken to be finite."""
        if x.size == 0:
            return
        if x.ndim not in (2, 4):
            self._lose()
            return
        mean = np.asarray(x, np.float64) if x.ndim == 2 else x.mean(axis=(2, 3), dtype=np.float64)
        if float(np.abs(mean).max()) > _LARGEST:
            self._lose()
            return
        self._add(len(x), np.rint(mean / _STEP).astype(np.int64).sum(axis=0))

    def merge(self, other: ChannelMean) -> Self:
        """Add what another one has seen; returns self."""
        if other._lost:
            self._lose()
        elif other._sums is not None:
            self._add(other.count, other._sums)
        return self

    def mean(self) -> NDArray[np.float64] | None:
        """float64 (c); None where nothing was seen, or there is none."""
        return None if self._sums is None else self._sums * _STEP / self.count

    def state_dict(self) -> dict[str, Any]:
        """The state as JSON values: sums as base64 of zlib of little-endian int64."""
        if self._sums is None:
            return {"count": 0, "lost": self._lost}
        raw = zlib.compress(self._sums.astype("<i8").tobytes(), 6)
        return {"count": self.count, "channels": self._sums.size, "sums": base64.b64encode(raw).decode("ascii")}

    @classmethod
    def from_state_dict(cls, state: Any) -> ChannelMean:
        """What ``state_dict`` described; lowbit.FormatError where it cannot be one."""
        found = cls()
        if not isinstance(state, Mapping):
            raise FormatError(f"channel means are {state!r:.60}")
        count, channels = state.get("count"), state.get("channels", 0)
        if type(count) is not int or not 0 <= count <= 1 << 24 or type(channels) is not int:
            raise FormatError(f"channel means: count is {count!r:.40}, channels {channels!r:.40}")
        if count == 0:
            found._lost = state.get("lost") is True
            return found
        if not 0 < channels <= _MOST_CHANNELS:
            raise FormatError(f"channel means: channels is {channels}")
        try:
            stream = zlib.decompressobj()
            raw = stream.decompress(base64.b64decode(state.get("sums", ""), validate=True), 8 * channels + 1)
        except (ValueError, TypeError, zlib.error) as e:
            raise FormatError(f"channel means: sums: {e}") from None
        if len(raw) != 8 * channels:
            raise FormatError(f"channel means: sums of {len(raw)} bytes for {channels} channels")
        found.count, found._sums = count, np.frombuffer(raw, "<i8").astype(np.int64)
        if float(np.abs(found._sums.astype(np.float64)).max()) * _STEP > _LARGEST * count:
            raise FormatError(f"channel means: a sum of {count} samples is beyond {_LARGEST:g} each")
        return found

    def _add(self, count: int, sums: NDArray[np.int64]) -> None:
        if self._lost:
            return
        if (self._sums is not None and self._sums.shape != sums.shape) or self.count + count > 1 << 24:
            self._lose()
            return
        self._sums = sums.copy() if self._sums is None else self._sums + sums
        self.count += count

    def _lose(self) -> None:
        self.count, self._sums, self._lost = 0, None, True
