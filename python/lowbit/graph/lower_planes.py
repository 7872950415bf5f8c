"""Layers of few levels in the plan (LQ-Nets): activations as planes of bits, products as sums of binary products.

A layer of levels costs nothing where a product of planes stands before it: that writes the planes itself, and float32
beside them only where someone else reads the values.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lowbit.graph.levels import PlaneMac, level_params, leveled, plane_mac
from lowbit.graph.net import Array, Layer, Net, Tensor
from lowbit.graph.recipe import Recipe

if TYPE_CHECKING:
    from lowbit.graph.lower import Lowering


class PlaneLayers:
    """The part of one lowering that runs on planes of bits."""

    def __init__(self, net: Net, recipes: list[Recipe], forced: set[str]):
        self.consumers, self.outputs = net.consumers(), net.output_tensors()
        self.values = leveled(net)
        self.macs: dict[Layer, PlaneMac] = {}
        self.recipes = self._choose(net, recipes, forced)
        self.levels = [layer for layer in net.layers if layer.op == "levels"]
        self.written_by: dict[Layer, Layer] = {}  # a product -> the layer of levels whose planes it writes
        producers = net.producers()
        for layer in self.levels:
            mac = producers.get(layer.inputs[0])
            if mac in self.macs and mac not in self.written_by and _whole_words(mac):
                self.written_by[mac] = layer

    def _choose(self, net: Net, recipes: list[Recipe], forced: set[str]) -> list[Recipe]:
        """Find the products of planes; the recipes of all layers, with the others given their rest."""
        reasons = []
        for layer, recipe in zip(net.layers, recipes, strict=True):
            if not (layer.is_mac and recipe.is_leveled):
                continue
            found = plane_mac(layer, self.values)
            if isinstance(found, PlaneMac):
                self.macs[layer] = found
                continue
            reasons.append(f"layer {layer.name!r} ({layer.onnx_op}) has no levels: {found}")
            if layer.name in forced:
                raise ValueError(f"convert: {reasons[-1]}")
        if reasons and not self.macs:
            raise ValueError(f"convert: recipe 'lq': no layer is in levels; {'; '.join(reasons[:3])}")
        return [
            r if not r.is_leveled or layer in self.macs else r.for_the_rest()
            for layer, r in zip(net.layers, recipes, strict=True)
        ]

    def domains(self) -> dict[Layer, str]:
        """``planes`` for what is written here."""
        return dict.fromkeys((*self.macs, *self.levels), "planes")

    # Writing ----------------------------------------------------------------------------------------------------------

    def write(self, low: Lowering, layer: Layer) -> None:
        """The operation of one layer in the ``planes`` domain."""
        if layer in self.macs:
            self._mac(low, layer)
        elif (layer.output, "planes") not in low.form:
            self._quantize(low, layer.output, layer.inputs[0], layer.name)

    def as_float(self, low: Lowering, t: Tensor) -> int:
        """The levels themselves."""
        index = low.float_tensor(f"{t.name}.float", t)
        low.builder.op("dequantize_levels", [low.form[t, "planes"]], index, params={"basis": self.values[t]})
        return index

    def _tensor(self, low: Lowering, name: str, t: Tensor, basis: Array) -> int:
        entry = low.builder.tensor(name, "planes", t.shape)
        low.builder.tensors[entry]["bits"] = len(basis)
        return entry

    def _quantize(self, low: Lowering, t: Tensor, source: Tensor, name: str | None = None) -> None:
        """The planes of t's levels, of the values of ``source``."""
        basis = self.values[t]
        index = self._tensor(low, name or f"{t.name}.planes", t, basis)
        low.builder.op("quantize_levels", [low.as_float(source)], index, params=level_params(basis), name=name)
        low.form[t, "planes"] = index

    def _mac(self, low: Lowering, layer: Layer) -> None:
        mac, levels, x, t = self.macs[layer], self.written_by.get(layer), layer.inputs[0], layer.output
        if (x, "planes") not in low.form:  # pooled or reshaped levels
            self._quantize(low, x, x)
        attrs: dict[str, Any] = {k: float(layer.attrs[k]) for k in ("min", "max") if k in layer.attrs}
        if layer.op == "conv2d":
            attrs |= {k: v for k, v in layer.attrs.items() if k not in attrs}
            attrs["kernel"] = list(layer.params["weight"].shape[1:3])
        params = mac.params()
        if "bias" in layer.params and layer.params["bias"].any():
            params["bias"] = layer.params["bias"]
        inputs = [low.form[x, "planes"], *(low.as_float(r) for r in layer.inputs[1:])]
        outputs = []
        if levels is None or t in self.outputs or len(self.consumers.get(t, [])) > 1:
            low.form[t, "float"] = low.float_tensor(layer.name, t)
            outputs.append(low.form[t, "float"])
        if levels is not None:
            basis = self.values[levels.output]
            low.form[levels.output, "planes"] = self._tensor(low, f"{layer.name}.planes", levels.output, basis)
            outputs.append(low.form[levels.output, "planes"])
            params |= level_params(basis)
        low.builder.op(f"{layer.op}_bitserial", inputs, outputs, attrs, params, name=layer.name)


def _whole_words(mac: Layer) -> bool:
    """Whether its groups' output channels are whole words of bits."""
    groups = int(mac.attrs.get("groups", 1))
    return groups == 1 or mac.output.shape[-1] // groups % 32 == 0
