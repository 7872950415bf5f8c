"""Which tensors hold two values, which layers can run on bits, and the exact threshold of what stands before a step.

A BatchNorm and a sign after a binary product compare a*d + b with 0, where d is a whole number: that is one integer
threshold per channel. It is not computed from a and b (rounding could move it by one) but searched: the float32
operations of the chain, in the network's order, are evaluated on d, and since each of them rises or falls with its
input, bisection finds the one place where the answer turns. The same search over all float32 numbers turns a chain
before a step on real inputs into one comparison that gives the same answer for every input.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lowbit.graph.net import Array, Layer, Net, Tensor
from lowbit.graph.pointwise_math import apply_f32, direction

Signs = NDArray[np.bool_]
_GREATEST = 0x7F7FFFFF  # the bits of float32's largest number


@dataclass(frozen=True)
class Pair:
    """The two values of a tensor, low < high; bit 1 is high."""

    low: float
    high: float

    @property
    def middle(self) -> float:
        """Value of bit = 0 if +-1 were 0."""
        return (self.low + self.high) / 2

    @property
    def half(self) -> float:
        """Distance from the middle: value = middle + half * (+-1)."""
        return (self.high - self.low) / 2

    def bit_of(self, value: float) -> float:
        """The +-1 (or whatever number) that stands for a value."""
        return (value - self.middle) / self.half


def two_valued(net: Net) -> dict[Tensor, Pair]:
    """Tensors that hold two values, the same two in every channel."""
    found: dict[Tensor, Pair] = {}
    for layer in net.layers:
        if layer.op == "step":
            ends = np.sort(np.stack(np.broadcast_arrays(layer.params["low"], layer.params["high"])), axis=0)
            if (ends == ends[:, :1]).all() and ends[0, 0] < ends[1, 0]:
                found[layer.output] = Pair(float(ends[0, 0]), float(ends[1, 0]))
        elif layer.op in ("max_pool", "reshape") and layer.inputs[0] in found:
            found[layer.output] = found[layer.inputs[0]]
    return found


@dataclass(frozen=True)
class BinaryMac:
    """A convolution or product on bits: v = float(d) * scale + bias, d the sum of +-1 products.

    ``source`` is the two-valued tensor that it reads; a Pad between is folded into ``pads`` and ``pad_value``.
    """

    source: Tensor
    signs: Signs
    scale: NDArray[np.float32]
    bias: NDArray[np.float32] | None
    pads: list[int]
    pad_value: int
    folded_pad: Layer | None

    @property
    def depth(self) -> int:
        """Products in a sum."""
        return int(self.signs[0].size)


def binary_mac(layer: Layer, pairs: dict[Tensor, Pair], producers: dict[Tensor, Layer]) -> BinaryMac | str:
    """A layer in binary form, or why it has none."""
    source, pads, outside, folded = layer.inputs[0], list(layer.attrs.get("pads", [0] * 4)), 0.0, None
    producer = producers.get(source)
    if producer is not None and producer.op == "pad" and producer.inputs[0] in pairs and not any(pads):
        before, after = producer.attrs["before"], producer.attrs["after"]
        if layer.op == "conv2d" and not (before[3] or after[3]):
            source, outside, folded = producer.inputs[0], float(producer.attrs["value"]), producer
            pads = [*before[1:3], *after[1:3]]
    pair = pairs.get(source)
    if pair is None:
        return f"its input {layer.inputs[0].name!r} is not binary (no sign before it)"
    pad_value = pair.bit_of(outside) if any(pads) else 0.0
    if pad_value not in (-1.0, 0.0, 1.0):
        return f"its input is padded with {outside}, which is no -1, 0 or +1 beside {pair.low} and {pair.high}"
    weight = layer.params["weight"]
    rows = weight.reshape(weight.shape[0], -1)
    size = np.abs(rows[:, 0])
    if not (np.abs(rows) == size[:, None]).all():
        return "its weights are not +-1 times one scale per output channel"
    signs: Signs = weight >= 0
    scale = (size.astype(np.float64) * pair.half).astype(np.float32)
    bias = layer.params.get("bias")
    if pair.middle != 0:
        shift = pair.middle * rows.astype(np.float64).sum(axis=1)
        bias = (shift + (0.0 if bias is None else bias)).astype(np.float32)
    return BinaryMac(source, signs, scale, bias, pads, int(pad_value), folded)


# Thresholds -----------------------------------------------------------------------------------------------------------


def chain_direction(chain: Sequence[Layer], channels: int) -> NDArray[np.int64]:
    """+1 where a chain of elementwise layers rises with its input, -1 where it falls, 0 where it is constant."""
    out = np.ones(channels, np.int64)
    for layer in chain:
        d = direction(layer)
        assert d is not None
        out = out * d
    return out


def run_chain(chain: Sequence[Layer], v: Array) -> Array:
    """A chain of elementwise layers in float32; the last axis of v is the channel."""
    for layer in chain:
        v = apply_f32(layer, v)
    return v


def _turning_point(holds: Callable[[Array], Array], falls: Array, least: int, most: int) -> NDArray[np.int64]:
    """Smallest key per channel from which ``holds`` stays true (false where it ``falls``); most + 1 where none."""
    low = np.full(falls.shape, least, np.int64)
    high = np.full(falls.shape, most + 1, np.int64)
    while (low < high).any():
        middle = (low + high) >> 1
        turned = holds(np.minimum(middle, most)) != falls
        open_ = low < high
        high = np.where(open_ & turned, middle, high)
        low = np.where(open_ & ~turned, middle + 1, low)
    return low


def integer_thresholds(
    holds: Callable[[Array], Array], falls: Array, depth: int
) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
    """(t, flip) per channel so that for every whole d in -depth..depth: holds(d) = (d >= t) xor flip.

    Args:
        holds: float32 (c) -> bool (c), monotone in each channel.
        falls: bool (c): true for small inputs, false for great ones.
        depth: the largest |d|.
    """
    t = _turning_point(lambda k: holds(k.astype(np.float32)), falls, -depth, depth)
    return t.astype(np.int32), falls.astype(np.uint8)


def float_of(key: Array) -> NDArray[np.float32]:
    """The float32 number with a place in the order of all: -1 is -0.0, 0 is 0.0, 1 the smallest above it.

    Example:
        >>> float_of(np.array([-2, -1, 0, 1])).tolist()
        [-1.401298464324817e-45, -0.0, 0.0, 1.401298464324817e-45]
    """
    bits = np.where(key >= 0, key, 0x80000000 - key - 1)
    return bits.astype(np.uint32).view(np.float32)


def float_thresholds(holds: Callable[[Array], Array], falls: Array) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """(t, flip) per channel so that for every finite float32 x: holds(x) = (x >= t) xor flip.

    A channel whose answer is always the same has t = -inf.
    """
    key = _turning_point(lambda k: holds(float_of(k)), falls, -_GREATEST - 1, _GREATEST)
    never = key > _GREATEST
    constant = never | (key == -_GREATEST - 1)
    t = np.where(constant, np.float32(-np.inf), float_of(np.minimum(key, _GREATEST)) + np.float32(0))
    return t.astype(np.float32), (falls ^ never).astype(np.uint8)
