"""Binary layers in the plan: what runs on bits, what is absorbed into a comparison, and the operations written.

Between binary layers activations stay packed. A step takes in the elementwise layers before it as thresholds; where
they come from a binary product, the product compares and writes bits itself. Max-pooling changes places with the
comparison: the maximum of (v >= t) over a window is (maximum >= t). Where what follows the pool falls with its input,
the minimum is wanted instead, which is the maximum of the negated bits, negated.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from lowbit.graph.binary import (
    BinaryMac,
    binary_mac,
    chain_direction,
    float_thresholds,
    integer_thresholds,
    run_chain,
    two_valued,
)
from lowbit.graph.net import Array, Layer, Net, Tensor
from lowbit.graph.pointwise_math import direction
from lowbit.graph.recipe import Recipe

if TYPE_CHECKING:
    from lowbit.graph.lower import Lowering


@dataclass
class Origin:
    """Where a step's bits come from.

    ``tensor`` is what is compared; ``before`` and ``after`` are the elementwise layers ahead of and behind the pool
    (all of them ``after`` where there is none), the step the last; ``moves`` are the pool and reshapes, done on bits.
    """

    tensor: Tensor
    mac: Layer | None = None
    before: list[Layer] = field(default_factory=list)
    after: list[Layer] = field(default_factory=list)
    moves: list[Layer] = field(default_factory=list)

    @property
    def step(self) -> Layer:
        """The step itself."""
        return self.after[-1]

    def thresholds(
        self, channels: int, head: Callable[[Array], Array] | None = None, depth: int = 0
    ) -> dict[str, Array]:
        """``threshold`` and ``flip`` of the bits before ``moves``.

        Args:
            channels: of ``tensor``.
            head: what makes ``tensor`` of the number compared, a rising function of float32 (c).
            depth: the number compared is whole, -depth..depth; 0: any float32.
        """
        chain = [*self.before, *self.after]
        inverted = self.pool_flips(channels)
        greater = np.maximum(self.step.params["low"], self.step.params["high"])

        def holds(v: Array) -> Array:
            return np.asarray((run_chain(chain, v if head is None else head(v)) == greater) ^ inverted)

        falls = (chain_direction(chain, channels) < 0) ^ inverted
        t, flip = integer_thresholds(holds, falls, depth) if depth else float_thresholds(holds, falls)
        if not depth and (t == t[0]).all():
            t = t[:1]
        params: dict[str, Array] = {"threshold": t} if depth or t.any() else {}
        return params | ({"flip": flip} if flip.any() else {})

    def pool_flips(self, channels: int) -> Array:
        """Channels where the minimum of what comes into the pool counts."""
        if not any(m.op == "max_pool" for m in self.moves):
            return np.zeros(channels, bool)
        return chain_direction(self.after, channels) < 0


class BitLayers:
    """The binary part of one lowering."""

    def __init__(self, net: Net, recipes: list[Recipe], forced: set[str]):
        self.net = net
        self.consumers, self.producers, self.outputs = net.consumers(), net.producers(), net.output_tensors()
        self.pairs = two_valued(net)
        self.macs: dict[Layer, BinaryMac] = {}
        self.recipes = self._choose(recipes, forced)
        self.origins = {s: self._origin(s) for s in net.layers if s.op == "step"}
        self.bits_of: dict[Layer, Origin] = {}
        for origin in self.origins.values():
            if origin.mac is not None and origin.mac not in self.bits_of:
                self.bits_of[origin.mac] = origin
            else:
                origin.mac = None

    def _choose(self, recipes: list[Recipe], forced: set[str]) -> list[Recipe]:
        """Find the binary products; the recipes of all layers, with what is not binary given its rest."""
        reasons = []
        for layer, recipe in zip(self.net.layers, recipes, strict=True):
            if not (layer.is_mac and recipe.is_binary):
                continue
            found = binary_mac(layer, self.pairs, self.producers)
            if isinstance(found, BinaryMac):
                self.macs[layer] = found
                continue
            reasons.append(f"layer {layer.name!r} ({layer.onnx_op}) cannot run on bits: {found}")
            if layer.name in forced:
                raise ValueError(f"convert: {reasons[-1]}")
        if reasons and not self.macs:
            raise ValueError(f"convert: recipe 'xnor': no layer is binary; {'; '.join(reasons[:3])}")
        return [
            r if not r.is_binary or layer in self.macs else r.for_the_rest()
            for layer, r in zip(self.net.layers, recipes, strict=True)
        ]

    def _shared(self, t: Tensor) -> bool:
        return t in self.outputs or len(self.consumers.get(t, [])) > 1

    def _origin(self, step: Layer) -> Origin:
        origin = Origin(step.inputs[0], after=[step])
        pooled = False
        while True:
            producer = self.producers.get(origin.tensor)
            if producer in self.macs:
                origin.mac = producer
                return origin
            if producer is None or self._shared(origin.tensor) or producer.inputs[0] in self.pairs:
                return origin
            if direction(producer) is not None and producer.op != "step":
                (origin.before if pooled else origin.after).insert(0, producer)
            elif producer.op == "max_pool" and not pooled:
                pooled = True
                origin.moves.insert(0, producer)
            elif producer.op == "reshape" and producer.output.shape[-1] == producer.inputs[0].shape[-1]:
                origin.moves.insert(0, producer)
            else:
                return origin
            origin.tensor = producer.inputs[0]

    def domains(self, chosen: dict[Layer, str]) -> dict[Layer, str]:
        """``bits`` for what is written here, ``done`` for what is absorbed.

        A pool after an int8 product is on codes, whoever reads it: the stem of a binary net is its largest tensor.
        """
        out = dict.fromkeys(self.macs, "bits")
        for layer, recipe in zip(self.net.layers, self.recipes, strict=True):
            producer = self.producers.get(layer.inputs[0])
            if self.macs and layer.op == "max_pool" and producer is not None and producer.is_mac:
                alone = recipe.is_static and recipe.output == "auto" and not self._shared(layer.inputs[0])
                if alone and chosen[producer] == "codes":
                    out[layer] = "codes"
        for step, origin in self.origins.items():
            out |= dict.fromkeys((*origin.before, *origin.after, *origin.moves), "done") | {step: "bits"}
        for layer in self.net.layers:
            if layer.op in ("max_pool", "reshape") and layer.output in self.pairs:
                out[layer] = "bits"
            readers = self.consumers.get(layer.output, [])
            folded = [self.macs[r].folded_pad is layer for r in readers if r in self.macs]
            if layer.op == "pad" and layer.output not in self.outputs and len(folded) == len(readers) and all(folded):
                out[layer] = "done"
        return out

    # Writing ----------------------------------------------------------------------------------------------------------

    def write(self, low: Lowering, layer: Layer) -> None:
        """The operations of one layer in the ``bits`` domain."""
        if layer in self.macs:
            self._mac(low, layer)
        elif layer.op == "step":
            self._step(low, layer)
        else:
            bits = self._tensor(low, layer.name, layer.output)
            low.builder.op(layer.op, [low.form[layer.inputs[0], "bits"]], bits, dict(layer.attrs), name=layer.name)
            low.form[layer.output, "bits"] = bits

    def as_float(self, low: Lowering, t: Tensor) -> int:
        """The two values of t as float32."""
        if t in self.pairs:
            ends: Array = np.array([[self.pairs[t].low], [self.pairs[t].high]])
        else:  # a step whose channels have values of their own
            params = self.producers[t].params
            ends = np.sort(np.stack(np.broadcast_arrays(params["low"], params["high"])).astype(np.float64), axis=0)
        index = low.float_tensor(f"{t.name}.float", t)
        low.builder.op("dequantize", [low.form[t, "bits"]], index)
        for kind, row, neutral in (("mul", ends[1] - ends[0], 2.0), ("add", ends[0] + ends[1], 0.0)):
            if (row != neutral).any():
                scaled = low.float_tensor(f"{t.name}.{kind}", t)
                low.builder.op("binary", [index], scaled, {"kind": kind}, {"b": (row / 2).astype(np.float32)})
                index = scaled
        return index

    def _tensor(self, low: Lowering, name: str, t: Tensor) -> int:
        """A bits tensor for t, or for what stands before it (then of no ONNX tensor)."""
        pair = self.pairs.get(t)
        described = low.describe(t) if pair is not None and (pair.low, pair.high) == (-1.0, 1.0) else {}
        return low.builder.tensor(name, "bits", t.shape, **described)

    def _step(self, low: Lowering, step: Layer) -> None:
        origin = self.origins[step]
        channels = origin.tensor.shape[-1]
        index = low.form.get((step.output, "unmoved"))
        last = f"{step.name}.binarize" if origin.moves else step.name
        if index is None:
            codes = low.form.get((origin.tensor, "codes"))
            index = self._tensor(low, last, step.output if not origin.moves else origin.tensor)
            if codes is None:
                source, params = low.as_float(origin.tensor), origin.thresholds(channels)
            else:
                source, params = codes, origin.thresholds(channels, low.params[codes].real, 255)
                params["threshold"] = params["threshold"].astype(np.float32)
            low.builder.op("binarize", [source], index, params=params, name=last)
        for move in origin.moves:
            out = self._tensor(low, move.name, step.output if move is origin.moves[-1] else move.output)
            flips = origin.pool_flips(channels) if move.op == "max_pool" else np.zeros(1, bool)
            params = {"flip": flips.astype(np.uint8)} if flips.any() else {}
            low.builder.op(move.op, [index], out, dict(move.attrs), params, name=move.name)
            index = out
        low.form[step.output, "bits"] = index

    def _mac(self, low: Lowering, layer: Layer) -> None:
        binary, origin, t = self.macs[layer], self.bits_of.get(layer), layer.output
        clamp: dict[str, float] = {k: float(layer.attrs[k]) for k in ("min", "max") if k in layer.attrs}
        others = [low.as_float(r) for r in layer.inputs[1:]]
        needs_float = origin is None or self._shared(t)
        attrs: dict[str, Any] = {}
        if layer.op == "conv2d":
            attrs = {k: v for k, v in layer.attrs.items() if k not in ("min", "max")}
            attrs |= {"kernel": list(binary.signs.shape[1:3]), "pads": binary.pads, "pad_value": binary.pad_value}
        params: dict[str, Array] = {"weight": np.packbits(binary.signs.reshape(-1), bitorder="little")}
        channels, outputs = t.shape[-1], []
        if layer.scale_map is not None:
            attrs["input_scale"] = True
        if needs_float or others:
            attrs |= clamp
            if (binary.scale != 1).any():
                params["scale"] = binary.scale
            if binary.bias is not None and binary.bias.any():
                params["bias"] = binary.bias
            if needs_float:
                low.form[t, "float"] = low.float_tensor(layer.name, t)
                outputs.append(low.form[t, "float"])
            if origin is not None:
                params |= origin.thresholds(channels)
        elif origin is not None:
            params |= origin.thresholds(channels, _head(binary, clamp), binary.depth)
        if origin is not None:
            whole = origin.step.output if not origin.moves else t
            low.form[origin.step.output, "unmoved"] = self._tensor(low, f"{layer.name}.bits", whole)
            outputs.append(low.form[origin.step.output, "unmoved"])
        source = low.form[binary.source, "bits"]
        low.builder.op(f"xnor_{layer.op}", [source, *others], outputs, attrs, params, name=layer.name)


def _head(binary: BinaryMac, clamp: dict[str, float]) -> Callable[[Array], Array]:
    """A binary product's float arithmetic on its sum, as xnor.h says."""

    def head(d: Array) -> Array:
        v = d * binary.scale
        if binary.bias is not None:
            v = v + binary.bias
        return np.asarray(np.clip(v, np.float32(clamp.get("min", -np.inf)), np.float32(clamp.get("max", np.inf))))

    return head
