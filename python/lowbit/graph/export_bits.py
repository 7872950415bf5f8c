"""Binary layers as ONNX: comparisons that choose between +1 and -1, convolutions and products of +-1 in float32.

Sums of +-1 are exact in float32 up to 2^24 products, so the exported network gives the same bits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lowbit.graph.net import NHWC, Array, Perm

if TYPE_CHECKING:
    from lowbit.graph.export import _Exporter


def binarize(ex: _Exporter, op: Any, attrs: Any, params: Any, ins: list[int], out: int) -> None:
    """A comparison of floats, of codes' real values, or of raw bytes."""
    v, source = ex.values[ins[0]], ex.entry(ins[0])
    name, threshold = v.name, params.get("threshold", np.zeros(1, np.float32))
    if source["dtype"] != "float32":
        threshold = np.ceil(params.get("threshold", np.array([source.get("zero_point", 0)], np.float32)))
        if "scale" in source:
            threshold = (threshold - np.float32(source["zero_point"])) * np.float32(ex.plan.scale(source))
        else:
            name = ex.node("Cast", [name], f"{op['name']}.cast", to=ex.onnx.TensorProto.FLOAT)
    ex.store(out, signs(ex, op["name"], name, threshold, params, v.perm), v.perm)


def signs(ex: _Exporter, label: str, name: str, threshold: Array, params: Any, perm: Perm) -> str:
    """+1 where name >= threshold, else -1; the other way round in channels that flip."""
    holds = ex.node("GreaterOrEqual", [name, _row(ex, f"{label}.threshold", threshold, perm)], f"{label}.holds")
    flip = params.get("flip", np.zeros(1, np.uint8)).astype(np.float32)
    chosen = [_row(ex, f"{label}.{k}", v, perm) for k, v in (("yes", 1 - 2 * flip), ("no", 2 * flip - 1))]
    return ex.node("Where", [holds, *chosen], f"{label}.signs")


def _row(ex: _Exporter, name: str, value: Array, perm: Perm) -> str:
    """A constant that varies along the plan's last axis."""
    along = [1] * len(perm)
    along[perm[-1]] = value.size
    return ex.constant(name, value.astype(np.float32).reshape(along))


def xnor_conv2d(ex: _Exporter, op: Any, attrs: Any, params: Any, ins: list[int], out: int) -> None:
    """A Pad where the border is not 0, a Conv, the epilogue."""
    x, groups = ex.value(ins[0], NHWC), attrs.get("groups", 1)
    pads, kernel = attrs.get("pads", [0] * 4), attrs["kernel"]
    oc, c = ex.entry(out)["shape"][-1], ex.entry(ins[0])["shape"][-1]
    name, border = x.name, attrs.get("pad_value", 0)
    if border and any(pads):
        amounts = np.array([0, 0, *pads[:2], 0, 0, *pads[2:]], np.int64)
        inputs = [name, ex.constant("pads", amounts), ex.constant("value", np.array(border, np.float32))]
        name, pads = ex.node("Pad", inputs, f"{op['name']}.padded"), [0] * 4
    weight = unpacked(params["weight"], (oc, *kernel, c // groups)).transpose(0, 3, 1, 2)
    name = ex.node(
        "Conv",
        [name, ex.constant(f"{op['name']}.weight", weight)],
        f"{op['name']}.sums",
        kernel_shape=kernel,
        strides=attrs.get("strides", [1, 1]),
        pads=pads,
        dilations=attrs.get("dilations", [1, 1]),
        group=groups,
    )
    _finish(ex, op, attrs, params, name, NHWC)


def xnor_gemm(ex: _Exporter, op: Any, attrs: Any, params: Any, ins: list[int], out: int) -> None:
    """A MatMul and the epilogue."""
    perm = tuple(range(len(ex.entry(out)["shape"])))
    k, n = ex.entry(ins[0])["shape"][-1], ex.entry(out)["shape"][-1]
    weight = ex.constant(f"{op['name']}.weight", unpacked(params["weight"], (n, k)).T)
    name = ex.node("MatMul", [ex.value(ins[0], perm).name, weight], f"{op['name']}.sums")
    _finish(ex, op, attrs, params, name, perm)


def unpacked(weight: Array, shape: tuple[int, ...]) -> Array:
    """+-1 as float32 from packed bits, lowest bit first."""
    bits = np.unpackbits(weight, bitorder="little")[: int(np.prod(shape))]
    return np.where(bits, np.float32(1), np.float32(-1)).reshape(shape)


def _finish(ex: _Exporter, op: Any, attrs: Any, params: Any, name: str, perm: Perm) -> None:
    """Scale, map, bias, residual, clamp; then the outputs."""
    label, others = op["name"], list(op["inputs"][1:])
    threshold = params.get("threshold", np.zeros(1, np.float32))
    if threshold.dtype == np.float32:
        if "scale" in params:
            name = ex.node("Mul", [name, _row(ex, f"{label}.scale", params["scale"], perm)], f"{label}.scaled")
        if attrs.get("input_scale"):
            name = ex.node("Mul", [name, ex.value(others.pop(), perm).name], f"{label}.mapped")
        if "bias" in params:
            name = ex.node("Add", [name, _row(ex, f"{label}.bias", params["bias"], perm)], f"{label}.biased")
        if others:
            name = ex.node("Add", [name, ex.value(others.pop(), perm).name], f"{label}.sum")
        name = ex.clamped(op, name)
    for index in op["outputs"]:
        bits = ex.entry(index)["dtype"] == "bits"
        ex.store(index, signs(ex, label, name, threshold, params, perm) if bits else name, perm)


def negated(ex: _Exporter, op: Any, params: Any, name: str) -> str:
    """A pool's result with the channels that flip times -1."""
    if "flip" not in params:
        return name
    return ex.node("Mul", [name, _row(ex, "flip", 1 - 2.0 * params["flip"], NHWC)], f"{op['name']}.flipped")
