"""Which tensors hold few levels, which layers can be products of planes of bits, and their weights as planes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lowbit import lq
from lowbit.graph.net import Array, Layer, Net, Tensor

_MOVES = ("max_pool", "reshape", "transpose")


def leveled(net: Net) -> dict[Tensor, Array]:
    """Tensors whose values are levels, and the basis of these."""
    found: dict[Tensor, Array] = {}
    for layer in net.layers:
        if layer.op == "levels":
            found[layer.output] = layer.params["basis"]
        elif layer.op in _MOVES and layer.inputs[0] in found:
            found[layer.output] = found[layer.inputs[0]]
    return found


@dataclass(frozen=True)
class PlaneMac:
    """A convolution or product of levels: bits of the weights (W, oc, ...), the bases of both sides."""

    signs: Array
    weight_basis: Array  # (W, oc) float32
    input_basis: Array  # (A,)

    def params(self) -> dict[str, Array]:
        """What the plan's operation takes."""
        rows = self.signs.reshape(len(self.signs), -1)
        packed = np.packbits(rows, axis=1, bitorder="little")
        return {"weight": packed, "weight_basis": self.weight_basis, "input_basis": self.input_basis}


def plane_mac(layer: Layer, values: dict[Tensor, Array]) -> PlaneMac | str:
    """A layer as a product of planes, or why it is none."""
    if layer.inputs[0] not in values:
        return f"its input {layer.inputs[0].name!r} is not in levels (no LevelQuantize before it)"
    if layer.basis is None:
        return "its weights are not in levels (no BasisWeight)"
    if layer.scale_map is not None:
        return "its sums are multiplied by a map"
    codes = lq.assign(layer.params["weight"], layer.basis, signed=True)
    signs = np.stack([codes >> p & 1 for p in range(layer.basis.shape[1])]).astype(bool)
    basis = np.ascontiguousarray(layer.basis.T, np.float32)
    return PlaneMac(signs, basis, np.asarray(values[layer.inputs[0]], np.float32))


def level_params(basis: Array) -> dict[str, Array]:
    """Thresholds and codes of the plan's operations that quantize to levels."""
    sums, codes = lq.levels(basis, signed=False)
    return {"threshold": lq.thresholds(sums), "codes": codes}
