"""Which layer hurts: signal-to-quantization-noise ratios, one layer at a time and in the running network.

For a layer ``y = conv(x, W) + b`` of the float network (batch norm folded) with its float input x:

    weight error      conv(x, Wq - W)        its quantized weights alone
    activation error  conv(xq - x, W)        its quantized input alone

and SQNR = 10 log10(sum y^2 / sum error^2) over all pixels and images. Float and binary layers have neither error: a
binary network's weights and activations are +-1 in the float network too. ``here`` compares the tensor that the low-bit
engine really computed with the float network's, after activation and residual.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

import lowbit
from lowbit.graph.codebook import float_weights, is_codebook
from lowbit.graph.few_bits import code_range, weight_codes
from lowbit.graph.plan import Plan

Array = NDArray[Any]
Floats = NDArray[np.float32]
_QUANTIZED = ("conv2d", "gemm", "conv2d_codebook", "gemm_codebook")
MULTIPLIES = (*_QUANTIZED, "xnor_conv2d", "xnor_gemm", "conv2d_f32", "gemm_f32")


@dataclass
class Ratio:
    """Sums of squares of a signal and of the errors on it."""

    signal: float = 0.0
    noise: float = 0.0

    def add(self, signal: Array, noise: Array) -> None:
        """Adds the squares of both."""
        self.signal += float(np.sum(np.square(signal, dtype=np.float64)))
        self.noise += float(np.sum(np.square(noise, dtype=np.float64)))

    @property
    def dB(self) -> float | None:
        """10 log10(signal / noise); infinite without noise, None without signal.

        Example:
            >>> Ratio(100.0, 1.0).dB
            20.0
        """
        if self.signal == 0:
            return None
        return float("inf") if self.noise == 0 else 10 * float(np.log10(self.signal / self.noise))


@dataclass
class Errors:
    """The three ratios of one layer."""

    weight: Ratio = field(default_factory=Ratio)
    activation: Ratio = field(default_factory=Ratio)
    here: Ratio = field(default_factory=Ratio)


def quantized_and_back(x: Floats, plan: Plan, index: int) -> Floats | None:
    """What a code tensor of the plan keeps of x; None where it keeps everything (float) or is raw bytes."""
    tensor = plan.activations[index]
    if tensor["dtype"] == "float32":
        return None
    if tensor.get("dynamic"):
        lo, hi = min(float(x.min()), 0.0), max(float(x.max()), 0.0)
        scale = np.float32((hi - lo) / 255 or 1.0)
        zero, lowest, highest = float(np.rint(np.clip(-lo / scale, 0, 255))), 0.0, 255.0
    elif "scale" not in tensor:
        return None
    else:
        scale, zero = np.float32(plan.scale(tensor)), float(tensor["zero_point"])
        lowest, highest = map(float, code_range(plan, index))
    codes = np.clip(np.rint(x / scale) + np.float32(zero), lowest, highest)
    return np.asarray((codes - np.float32(zero)) * scale, np.float32)


def real_weights(plan: Plan, op: Mapping[str, Any]) -> Floats:
    """A layer's weights as real numbers, in the plan's order."""
    if is_codebook(dict(op)):
        return float_weights(plan, dict(op))
    weight = weight_codes(plan, dict(op))
    if weight.dtype == np.float32:
        return weight
    scale = plan.tensors[op["params"]["weight_scale"]].reshape(-1, *[1] * (weight.ndim - 1))
    zero = np.float32(op.get("attrs", {}).get("weight_zero_point", 0))
    return ((weight.astype(np.float32) - zero) * scale).astype(np.float32)


def apply(op: Mapping[str, Any], x: Floats, weight: Floats, threads: int | None) -> Floats:
    """A layer's sums in float, without bias: x as the plan stores it (NHWC, or (..., k))."""
    if op["op"].startswith("gemm"):
        flat = lowbit.gemm_f32(x.reshape(-1, x.shape[-1]), np.ascontiguousarray(weight.T), threads=threads)
        return np.asarray(flat).reshape(*x.shape[:-1], -1)
    attrs = op.get("attrs", {})
    return np.asarray(
        lowbit.conv2d_f32(
            x,
            weight,
            stride=tuple(attrs.get("strides", (1, 1))),
            padding=tuple(attrs.get("pads", (0, 0, 0, 0))),
            dilation=tuple(attrs.get("dilations", (1, 1))),
            groups=attrs.get("groups", 1),
            threads=threads,
        )
    )


class LayerErrors:
    """Gathers the errors of every layer that both plans have, batch by batch.

    Args:
        float_plan: Plan of the float network (recipe float32).
        plan: Plan of the low-bit network, with the same layer names.
        float_arrays: File tensors of the float plan.
        arrays: File tensors of the low-bit plan.
        known: Tensors that the float network has; layers that start from others are left out.
        threads: For the kernels.
    """

    def __init__(
        self,
        float_plan: Mapping[str, Any],
        plan: Mapping[str, Any],
        float_arrays: Mapping[str, Array],
        arrays: Mapping[str, Array],
        known: Collection[str],
        threads: int | None = None,
    ) -> None:
        self._known = known
        self._float_plan, self._plan, self._threads = float_plan, plan, threads
        self._low = Plan(dict(plan), dict(arrays))
        reference = {op["name"]: op for op in float_plan["ops"] if op["op"] in MULTIPLIES}
        self._pairs = [
            (op, reference[op["name"]])
            for op in plan["ops"]
            if op["op"] in MULTIPLIES and op["name"] in reference and self._comparable(op, reference[op["name"]])
        ]
        self._weights = {op["name"]: real_weights(self._low, op) for op, _ in self._pairs if op["op"] in _QUANTIZED}
        floats = Plan(dict(float_plan), dict(float_arrays))
        self._float_weights = {op["name"]: real_weights(floats, ref) for op, ref in self._pairs}
        self._bias = {op["name"]: float_arrays.get(ref["params"].get("bias", "")) for op, ref in self._pairs}
        self.layers: dict[str, Errors] = {op["name"]: Errors() for op, _ in self._pairs}

    def _origin(self, index: int) -> Mapping[str, Any]:
        """The float plan's tensor; where a flattening made it (in NHWC order, which no ONNX tensor has), its origin."""
        tensor: Mapping[str, Any] = self._float_plan["tensors"][index]
        if "source" not in tensor:
            for op in self._float_plan["ops"]:
                if op["op"] == "reshape" and op["outputs"] == [index]:
                    return self._origin(op["inputs"][0])
        return tensor

    def _comparable(self, op: Mapping[str, Any], ref: Mapping[str, Any]) -> bool:
        x = self._origin(ref["inputs"][0])
        same = self._plan_shape(op) == self._plan_shape(ref, plain=True)
        return x.get("source") in self._known and same

    def _plan_shape(self, op: Mapping[str, Any], plain: bool = False) -> list[int]:
        tensors = (self._float_plan if plain else self._plan)["tensors"]
        return [*tensors[op["inputs"][0]]["shape"], *tensors[op["outputs"][0]]["shape"]]

    @property
    def taps(self) -> list[str]:
        """The ONNX tensors that `add` needs of the float network."""
        names: dict[str, None] = {}
        for op, ref in self._pairs:
            names[self._origin(ref["inputs"][0])["source"]] = None
            source = self._plan["tensors"][op["outputs"][0]].get("source")
            if source in self._known:
                names[source] = None
        return list(names)

    def add(self, floats: Mapping[str, Array], session: Any) -> None:
        """One batch.

        Args:
            floats: The tapped tensors of the float network.
            session: An engine session (keep_tensors) that has run the same batch.
        """
        for op, ref in self._pairs:
            name = op["name"]
            found = self.layers[name]
            x = stored(floats, self._origin(ref["inputs"][0]))
            x = x.reshape(len(x), *self._float_plan["tensors"][ref["inputs"][0]]["shape"][1:])
            weight = self._float_weights[name]
            sums = apply(ref, x, weight, self._threads)
            bias = self._bias[name]
            signal = sums if bias is None else sums + bias
            if op["op"] in _QUANTIZED:
                found.weight.add(signal, apply(ref, x, self._weights[name] - weight, self._threads))
                back = quantized_and_back(x, self._low, op["inputs"][0])
                found.activation.add(
                    signal, np.zeros(1) if back is None else apply(ref, back - x, weight, self._threads)
                )
            else:
                found.weight.add(signal, np.zeros(1))
                found.activation.add(signal, np.zeros(1))
            index = op["outputs"][0]
            tensor = self._plan["tensors"][index]
            if tensor.get("source") in floats:
                truth = stored(floats, tensor)
                found.here.add(truth, np.asarray(session.tensor(index)).reshape(truth.shape) - truth)


def stored(floats: Mapping[str, Array], tensor: Mapping[str, Any]) -> Floats:
    """A float network's tensor in the order in which the plan stores it."""
    value = floats[tensor["source"]]
    if tensor.get("layout") == "NHWC":
        value = value.transpose(0, 2, 3, 1)
    shape = (len(value), *tensor["shape"][1:])
    return np.ascontiguousarray(value, np.float32).reshape(shape)


def multiplying(plan: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The convolutions and matrix products of a plan."""
    return (op for op in plan["ops"] if op["op"] in MULTIPLIES)
