"""Which layers run on codes, and which scale and zero point every code tensor has."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from lowbit.graph.net import Array, Layer, Net, Tensor
from lowbit.graph.pointwise_math import is_elementwise
from lowbit.graph.recipe import Recipe

# Their output has the input's scale and zero point.
_PASSING = ("max_pool", "concat", "reshape", "transpose", "slice", "pad", "resize")


@dataclass(frozen=True)
class CodeParams:
    """Scale, zero point and type of a code tensor; ``lo..hi`` are the codes in use."""

    scale: float
    zero_point: int
    dtype: str
    lo: int
    hi: int

    @classmethod
    def symmetric(cls, threshold: float, bits: int = 8) -> CodeParams:
        """int8 codes -127..127 (of 8 bits) for -threshold..threshold; scale 1 for a tensor of zeros."""
        top = (1 << (bits - 1)) - 1
        scale = float(np.float32(threshold / top))
        return cls(scale if scale > 0 else 1.0, 0, "int8", -top, top)

    @classmethod
    def affine(cls, lo: float, hi: float, bits: int = 8) -> CodeParams:
        """uint8 codes for a range that is widened to hold 0 (Jacob et al. 2018, section 3)."""
        lo, hi, top = min(lo, 0.0), max(hi, 0.0), (1 << bits) - 1
        scale = float(np.float32((hi - lo) / top)) or 1.0
        return cls(scale, int(np.clip(np.rint(-lo / scale), 0, top)), "uint8", 0, top)

    @property
    def range(self) -> tuple[float, float]:
        """Real values of the lowest and highest code."""
        return self.scale * (self.lo - self.zero_point), self.scale * (self.hi - self.zero_point)

    def real(self, codes: Any) -> Any:
        """What codes (float32, whole) stand for, in the engine's float32 arithmetic."""
        return (codes - np.float32(self.zero_point)) * np.float32(self.scale)

    def code(self, value: float) -> int:
        """The code nearest to a real value, within lo..hi."""
        return int(np.clip(np.rint(value / self.scale) + self.zero_point, self.lo, self.hi))


class Ranges:
    """What is known about the tensors' values: a calibration table, or a mapping of name -> (lo, hi)."""

    def __init__(self, table: Any):
        self.table = table

    def params(self, name: str, dtype: str, non_negative: bool = False, bits: int = 8) -> CodeParams | None:
        """Parameters for a tensor by its ONNX name, for codes of so many bits; None where nothing is known.

        ``non_negative``: no value is below 0, so that a symmetric range (as in TensorRT's cache) begins at 0.
        """
        if self.table is None or name not in self.table:
            return None
        if isinstance(self.table, Mapping):
            lo, hi = (float(v) for v in self.table[name])
            if not (math.isfinite(lo) and math.isfinite(hi) and lo <= hi):
                raise ValueError(
                    f"convert: the range of tensor {name!r} is ({lo}, {hi}), not two finite numbers in order"
                )
            if dtype == "int8":
                return CodeParams.symmetric(max(abs(lo), abs(hi)), bits)
            return CodeParams.affine(0.0 if non_negative else lo, hi, bits)
        q = self.table.qparams(name, dtype=dtype, symmetric=dtype == "int8", bits=bits)
        if non_negative and q.zero_point != 0:
            return CodeParams.affine(0.0, float(self.table.range(name, bits)[1]), bits)
        return CodeParams(float(q.scale), int(q.zero_point), dtype, q.qmin, q.qmax)

    def mean(self, t: Tensor) -> Array | None:
        """Measured mean of each channel, where t's last axis is the one that the table counts by; else None."""
        if self.table is None or isinstance(self.table, Mapping) or t.flat is not None or t.perm[-1] != 1:
            return None
        mean: Array | None = self.table.mean(t.name)
        return mean if mean is not None and mean.size == t.shape[-1] else None


def can_run_on_codes(layer: Layer) -> bool:
    """Whether an integer form exists."""
    if layer.scale_map is not None:
        return False
    if layer.is_mac or layer.op in (*_PASSING, "average_pool", "identity"):
        return True
    if layer.op == "binary" and len(layer.inputs) == 2:
        same = layer.inputs[0].shape == layer.inputs[1].shape
        return layer.attrs["kind"] == "mul" or (layer.attrs["kind"] == "add" and same)
    return is_elementwise(layer)


def passes_scale(layer: Layer) -> bool:
    """Whether the output's codes mean what the input's do."""
    return layer.op in _PASSING and layer.attrs.get("mode") != "linear"


def non_negative_tensors(net: Net) -> set[Tensor]:
    """Tensors none of whose values can be negative, whatever the input: after a ReLU, and what is made of such."""
    found: set[Tensor] = set()

    def holds(layer: Layer) -> bool:
        attrs, from_found = layer.attrs, all(t in found for t in layer.inputs)
        if layer.op in ("conv2d", "gemm", "binary") and attrs.get("min", -1.0) >= 0:
            return True
        if layer.op == "unary":
            kind = attrs["kind"]
            return kind in ("relu", "sigmoid", "hard_sigmoid", "exp") or (kind == "clip" and attrs["alpha"] >= 0)
        if layer.op == "binary":
            return len(layer.inputs) == 2 and from_found and attrs["kind"] in ("add", "mul")
        if layer.op == "pad":
            return from_found and attrs.get("value", 0.0) >= 0
        return layer.op == "softmax" or (layer.op in (*_PASSING, "average_pool", "identity") and from_found)

    for layer in net.layers:
        if holds(layer):
            found.add(layer.output)
    return found


def choose_domains(net: Net, recipes: list[Recipe], forced: set[str]) -> dict[Layer, str]:
    """``codes``, ``dynamic`` or ``float`` for every layer.

    Convolutions and products follow their recipe. The others run on codes where they stand between layers that do: some
    reader wants codes and some input comes as codes; elsewhere a float form costs less than the conversions.

    Args:
        net: the network.
        recipes: one per layer.
        forced: names of layers chosen by an override.
    """
    domain: dict[Layer, str] = {}
    consumers, producers = net.consumers(), net.producers()
    for layer, recipe in zip(reversed(net.layers), reversed(recipes), strict=True):
        if not can_run_on_codes(layer) or recipe.is_float:
            domain[layer] = "float"
        elif layer.is_mac:
            domain[layer] = "codes" if recipe.is_static else "dynamic"
        elif recipe.is_static and recipe.output == "auto":
            wanted = any(domain[c] == "codes" for c in consumers.get(layer.output, []))
            domain[layer] = "codes" if wanted or layer.name in forced else "float"
        else:
            domain[layer] = "float"
    for layer in net.layers:
        if domain[layer] != "codes" or layer.is_mac or layer.name in forced:
            continue
        if not any((p := producers.get(t)) is not None and domain[p] == "codes" for t in layer.inputs):
            domain[layer] = "float"
    return domain


def leave_unknown_in_float(net: Net, domain: dict[Layer, str], known: Callable[[Tensor], bool]) -> bool:
    """Layers on codes whose tensors can have no range stay in float: whether there were any.

    That is what a quantized file left in float, and sums of several terms, whose parts have no name in the ONNX graph.
    """
    consumers, producers = net.consumers(), net.producers()

    def absorbed(t: Tensor) -> bool:
        """Whether t only exists inside a chain of look-ups."""
        readers = consumers.get(t, [])
        producer = producers.get(t)
        alone = len(readers) == 1 and is_elementwise(readers[0]) and domain[readers[0]] == "codes"
        return alone and producer is not None and is_elementwise(producer) and t not in net.output_tensors()

    changed, any_change = True, False
    while changed:
        changed = False
        for layer in net.layers:
            if domain[layer] != "codes":
                continue
            needs = list(layer.inputs)
            if any(domain[c] == "codes" for c in consumers.get(layer.output, [])):
                needs.append(layer.output)
            if not all(known(t) or absorbed(t) for t in needs):
                domain[layer] = "float"
                changed = any_change = True
    return any_change


class Scales:
    """Parameters of every tensor that exists as codes. Tensors joined by layers that pass scales on share theirs."""

    def __init__(self, net: Net, domain: dict[Layer, str], recipes: list[Recipe], default: Recipe, ranges: Ranges):
        self._ranges = ranges
        self._parent: dict[Tensor, Tensor] = {}
        self._params: dict[tuple[Tensor, int], CodeParams] = {}
        self._net = net
        self._consumers = net.consumers()
        self._producers = net.producers()
        self._outputs = net.output_tensors()
        self._non_negative = non_negative_tensors(net)
        for layer in net.layers:
            if domain[layer] == "codes" and passes_scale(layer):
                for t in layer.inputs:
                    if layer.op != "concat" or self._exclusive(t, layer, domain):
                        self._join(t, layer.output)
        self._members: dict[Tensor, list[Tensor]] = {}
        for t in self._all_tensors():
            self._members.setdefault(self._root(t), []).append(t)
        self._dtype = self._choose_dtypes(domain, recipes, default)
        self._bits = self._choose_bits(domain, recipes)

    def _all_tensors(self) -> list[Tensor]:
        return [*(t for _, t in self._net.inputs), *(layer.output for layer in self._net.layers)]

    def _root(self, t: Tensor) -> Tensor:
        while t in self._parent:
            t = self._parent[t]
        return t

    def _join(self, a: Tensor, b: Tensor) -> None:
        ra, rb = self._root(a), self._root(b)
        if ra is rb:
            return
        fixed = {t.fixed for t in (a, b, ra, rb) if t.fixed is not None}
        if len(fixed) > 1:
            return  # the file gives them different scales: a look-up goes between
        if fixed:
            ra.fixed = rb.fixed = fixed.pop()
        self._parent[ra] = rb

    def _exclusive(self, t: Tensor, reader: Layer, domain: dict[Layer, str]) -> bool:
        """Whether only ``reader`` reads t (and what t was passed on from), so that t may take its scale."""
        if t in self._outputs or any(c is not reader for c in self._consumers[t]):
            return False
        producer = self._producers.get(t)
        if producer is None or domain[producer] != "codes" or not passes_scale(producer) or producer.op == "concat":
            return True
        return all(self._exclusive(i, producer, domain) for i in producer.inputs)

    def _choose_dtypes(self, domain: dict[Layer, str], recipes: list[Recipe], default: Recipe) -> dict[Tensor, str]:
        """What the readers' recipes say; where no value can be negative, symmetric codes are uint8 with zero point 0.

        That is twice as fine as int8, whose lower half would stand unused, and as fast.
        """
        votes: dict[Tensor, set[str]] = {}
        for layer, recipe in zip(self._net.layers, recipes, strict=True):
            if domain[layer] == "codes" and recipe.is_static:
                for t in layer.inputs:
                    votes.setdefault(self._root(t), set()).add(recipe.activation)
        fallback = default.activation if default.is_static else "int8"
        chosen = {root: next(iter(v)) if len(v) == 1 else fallback for root, v in votes.items()}
        return {root: "uint8" if self._is_non_negative(root) else dtype for root, dtype in chosen.items()}

    def _choose_bits(self, domain: dict[Layer, str], recipes: list[Recipe]) -> dict[Tensor, int]:
        """The most bits that any reader of a tensor takes.

        Products take what their recipe says. Every other reader takes 8, a sum's residual above all: the codes are
        bytes anyway, and in few bits the error of a residual stream would pile up. What cannot clamp writes 8.
        """
        bits: dict[Tensor, int] = {self._root(t): 8 for t in self._outputs}

        def ask(t: Tensor, wanted: int) -> None:
            root = self._root(t)
            bits[root] = max(bits.get(root, 0), wanted)

        for layer, recipe in zip(self._net.layers, recipes, strict=True):
            for i, t in enumerate(layer.inputs):
                if domain[layer] == "codes" and layer.is_mac and i == 0:
                    ask(t, recipe.activation_bits)
                elif not (
                    domain[layer] == "codes" and passes_scale(layer) and self._root(layer.output) is self._root(t)
                ):
                    ask(t, 8)
            if layer.op in ("average_pool", "resize") and not passes_scale(layer):
                ask(layer.output, 8)
        return bits

    def _is_non_negative(self, root: Tensor) -> bool:
        return all(t in self._non_negative for t in self._members[root])

    def known(self, t: Tensor) -> bool:
        """Whether parameters can be found."""
        return self._find(self._root(t), 8) is not None

    def of(self, t: Tensor, bits: int | None = None) -> CodeParams:
        """Parameters of a tensor's codes: of those that are written, or of ones of so many bits."""
        root = self._root(t)
        bits = self._bits.get(root, 8) if bits is None else bits
        if (root, bits) not in self._params:
            params = self._find(root, bits)
            if params is None:
                names = ", ".join(sorted({m.name for m in self._members[root]}))
                raise ValueError(
                    f"convert: the calibration has no range for tensor {names!r}; calibrate the same file, or "
                    f"keep the layer "
                    "that reads it in float32 by overrides="
                )
            self._params[root, bits] = params
        return self._params[root, bits]

    def _find(self, root: Tensor, bits: int) -> CodeParams | None:
        dtype = self._dtype.get(root, "int8")
        if root.fixed is not None:
            f = root.fixed
            lo, hi = (-128, 127) if f.dtype == "int8" else (0, 255)
            return CodeParams(f.scale, f.zero_point, f.dtype, lo, hi)
        members, positive = self._members[root], self._is_non_negative(root)
        joined = [m for m in members if m in self._producers and self._producers[m].op == "concat"]
        if joined:
            found = [p for m in joined if (p := self._ranges.params(m.name, dtype, positive, bits)) is not None]
            if found:
                return _widest(found, bits)
        # In execution order: the one that the others copy comes first.
        return next((p for m in members if (p := self._ranges.params(m.name, dtype, positive, bits)) is not None), None)


def _widest(found: list[CodeParams], bits: int) -> CodeParams:
    lo, hi = min(p.range[0] for p in found), max(p.range[1] for p in found)
    for p in found:
        if p.range == (lo, hi):
            return p
    if found[0].dtype == "int8":
        return CodeParams.symmetric(max(-lo, hi), bits)
    return CodeParams.affine(lo, hi, bits)
