"""Layers of few levels as ONNX: values and weights as the floats that their levels stand for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lowbit.graph.net import Array
from lowbit.graph.summary import weight_count

if TYPE_CHECKING:
    from lowbit.graph.export import _Exporter


def quantize_levels(ex: _Exporter, op: Any, attrs: Any, params: Any, ins: list[int], out: int) -> None:
    """The level of every value."""
    v = ex.values[ins[0]]
    ex.store(out, _levels(ex, out, params, v.name), v.perm)


def dequantize_levels(ex: _Exporter, op: Any, attrs: Any, params: Any, ins: list[int], out: int) -> None:
    """Planes are exported as their levels already."""
    ex.values[out] = ex.values[ins[0]]


def _levels(ex: _Exporter, index: int, params: Any, name: str) -> str:
    """The level of each code of a planes tensor, chosen from the lowest threshold up: exact, unlike a sum of steps."""
    label, level = ex.entry(index)["name"], _level_of_codes(ex, index)[params["codes"]]
    chosen = ex.constant(f"{label}.level", level[0])
    for i, threshold in enumerate(params["threshold"]):
        above = ex.node("Greater", [name, ex.constant(f"{label}.threshold", threshold)], f"{label}.above")
        chosen = ex.node("Where", [above, ex.constant(f"{label}.level", level[i + 1]), chosen], f"{label}.levels")
    return chosen


def _level_of_codes(ex: _Exporter, index: int) -> Array:
    """What each code means to the operation that reads it; nothing where nobody does."""
    bits = ex.entry(index)["bits"]
    basis = np.zeros(bits, np.float32)
    for op in ex.plan.ops:
        if op["inputs"][0] == index:
            role = "basis" if op["op"] == "dequantize_levels" else "input_basis"
            basis = ex.plan.tensors[op["params"][role]]
    codes = np.arange(2**bits)
    level: Array = basis[0] * (codes & 1).astype(np.float32)
    for q in range(1, bits):
        level = level + basis[q] * (codes >> q & 1).astype(np.float32)
    return level


def as_float(ex: _Exporter, op: Any, params: Any) -> dict[str, Array]:
    """The parameters of the float operation that a product of planes stands for."""
    n = ex.entry(op["outputs"][0])["shape"][-1]
    bits = np.unpackbits(params["weight"], axis=1, bitorder="little")[:, : weight_count(ex.plan, op)]
    signs = np.where(bits, 1.0, -1.0).reshape(len(bits), n, -1)
    weight = (params["weight_basis"].astype(np.float64)[..., None] * signs).sum(axis=0).astype(np.float32)
    shape = (n, *op["attrs"]["kernel"], -1) if op["op"].startswith("conv2d") else (n, -1)
    return {k: v for k, v in params.items() if k == "bias"} | {"weight": weight.reshape(shape)}


def finish(ex: _Exporter, op: Any, params: Any, name: str, perm: Any) -> None:
    """The outputs of a product: its value, levels, or both."""
    for index in op["outputs"]:
        ex.store(index, _levels(ex, index, params, name) if ex.entry(index)["dtype"] == "planes" else name, perm)
