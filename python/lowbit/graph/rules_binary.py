"""Two-valued activations: Sign, comparisons and what exporters build from them, QONNX's BipolarQuant.

All become one layer, ``step``: ``high`` where x >= threshold, else ``low``. The sign of 0 is +1, as in every binary
network's own definition; ONNX's Sign would give 0 there.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lowbit.graph.importer import Importer, Node, rule
from lowbit.graph.net import Array, Layer, Tensor
from lowbit.graph.rules_elementwise import best_perm, stored_operand


def step(ctx: Importer, node: Node, t: Tensor, threshold: Array, low: float, high: float) -> Tensor:
    """A layer that gives ``high`` where t >= threshold, else ``low``."""
    if t.flat is not None and threshold.size > 1:
        t = ctx.plain(t)
    if t.flat is None:
        t = ctx.to_perm(t, best_perm(t, threshold))
    stored = stored_operand(node, threshold, t.onnx_shape, t.perm)
    if stored.ndim != 1:
        raise node.unsupported(f"a threshold of shape {threshold.shape}; only one number or one per channel")
    layer = ctx.emit(node, "step", [t], t.shape, t.perm)
    layer.output.flat = t.flat
    layer.params = {"threshold": stored, "low": np.array([low], np.float32), "high": np.array([high], np.float32)}
    return layer.output


def _signs(x: Array) -> Array:
    return np.where(x >= 0, np.float32(1), np.float32(-1))


@rule("Sign")
def sign(ctx: Importer, node: Node) -> None:
    """+1 where x >= 0, else -1."""
    ctx.set(node, step(ctx, node, ctx.tensor(node), np.zeros(1, np.float32), -1.0, 1.0))


@rule("BipolarQuant", domain="qonnx.custom_op.general")
@rule("BipolarQuant", domain="onnx.brevitas")
@rule("BipolarQuant", domain="finn.custom_op.general")
def bipolar_quant(ctx: Importer, node: Node) -> None:
    """QONNX: sign(x) * scale, of activations or weights."""
    x, scale = ctx.value(node, 0), ctx.constant(node, 1).astype(np.float32)
    if not isinstance(x, Tensor):
        ctx.set(node, _signs(x) * scale)
        return
    if scale.size != 1:
        raise node.unsupported(f"a scale of shape {scale.shape} on activations; only one number is supported")
    s = float(np.ravel(scale)[0])
    ctx.set(node, step(ctx, node, x, np.zeros(1, np.float32), -s, s))


@rule("Greater", "GreaterOrEqual", "Less", "LessOrEqual")
def compare(ctx: Importer, node: Node) -> None:
    """An activation against a constant: 1 where it holds, else 0."""
    a, b = ctx.value(node, 0), ctx.value(node, 1)
    strict, less = not node.op.endswith("OrEqual"), node.op.startswith("Less")
    if isinstance(a, Tensor) == isinstance(b, Tensor):
        raise node.unsupported("only an activation against a constant is supported")
    if isinstance(b, Tensor):  # c < x is x > c
        a, b, less = b, a, not less
    assert isinstance(a, Tensor) and not isinstance(b, Tensor)
    bound = b.astype(np.float32)
    if strict != less:  # x > c and x <= c turn at the next number above c
        bound = np.nextafter(bound, np.float32(np.inf))
    ctx.set(node, step(ctx, node, a, bound, *((1.0, 0.0) if less else (0.0, 1.0))))


def _again(ctx: Importer, node: Node, t: Tensor, of: Any) -> None:
    """The step that gave ``t``, with the values ``of`` its own two."""
    producer: Layer | None = next((layer for layer in reversed(ctx.layers) if layer.output is t), None)
    if producer is None or producer.op != "step":
        raise node.unsupported("its condition is no comparison of an activation with a constant")
    layer = ctx.emit(node, "step", producer.inputs, t.shape, t.perm)
    layer.output.flat = t.flat
    low, high = of(producer.params["low"]), of(producer.params["high"])
    layer.params = {"threshold": producer.params["threshold"], "low": low, "high": high}
    ctx.set(node, layer.output)


@rule("Where")
def where(ctx: Importer, node: Node) -> None:
    """Where(comparison, one number, another), or one row and another."""
    t = ctx.tensor(node)
    choices = []
    for i in (1, 2):
        number = np.unique(ctx.constant(node, i).astype(np.float32))
        stored = number if number.size == 1 else stored_operand(node, ctx.constant(node, i), t.onnx_shape, t.perm)
        if stored.ndim != 1:
            raise node.unsupported("only a choice between two numbers, or two rows along the channels, is supported")
        choices.append(stored)
    _again(ctx, node, t, lambda v: np.where(v != 0, *choices).astype(np.float32))


@rule("Not")
def negate(ctx: Importer, node: Node) -> None:
    """Not of a comparison."""
    _again(ctx, node, ctx.tensor(node), lambda v: np.float32(1) - v)
