"""Activations and arithmetic."""

from __future__ import annotations

import numpy as np

from lowbit.graph.importer import Importer, Node, rule
from lowbit.graph.net import BATCH, NHWC, Array, Layer, Perm, Tensor

FLOAT_MAX = float(np.finfo(np.float32).max)


def unary(ctx: Importer, node: Node, kind: str, alpha: float = 0.0, beta: float = 0.0) -> None:
    """An activation as one layer."""
    t = ctx.tensor(node)
    layer = ctx.emit(node, "unary", [t], t.shape, t.perm, kind=kind, alpha=float(alpha), beta=float(beta))
    layer.output.flat = t.flat
    ctx.set(node, layer.output)


@rule("Relu")
def relu(ctx: Importer, node: Node) -> None:
    """max(x, 0)."""
    unary(ctx, node, "relu")


@rule("Abs")
def absolute(ctx: Importer, node: Node) -> None:
    """|x|."""
    unary(ctx, node, "leaky_relu", -1.0)


@rule("Sigmoid")
def sigmoid(ctx: Importer, node: Node) -> None:
    """1 / (1 + exp(-x))."""
    unary(ctx, node, "sigmoid")


@rule("Tanh")
def tanh(ctx: Importer, node: Node) -> None:
    """Hyperbolic tangent."""
    unary(ctx, node, "tanh")


@rule("Exp")
def exp(ctx: Importer, node: Node) -> None:
    """Exponential."""
    unary(ctx, node, "exp")


@rule("HardSwish")
def hard_swish(ctx: Importer, node: Node) -> None:
    """X * clamp(x / 6 + 0.5, 0, 1)."""
    unary(ctx, node, "hard_swish")


@rule("HardSigmoid")
def hard_sigmoid(ctx: Importer, node: Node) -> None:
    """clamp(alpha * x + beta, 0, 1)."""
    unary(ctx, node, "hard_sigmoid", node.attrs.get("alpha", 0.2), node.attrs.get("beta", 0.5))


@rule("LeakyRelu")
def leaky_relu(ctx: Importer, node: Node) -> None:
    """X > 0 ? x : alpha * x."""
    unary(ctx, node, "leaky_relu", node.attrs.get("alpha", 0.01))


@rule("Swish")
@rule("QuickGelu", domain="com.microsoft")
def swish(ctx: Importer, node: Node) -> None:
    """X * sigmoid(alpha * x)."""
    alpha = float(node.attrs.get("alpha", 1.0 if node.op == "Swish" else 1.702))
    if alpha != 1.0:
        raise node.unsupported(f"alpha {alpha}; only 1 is supported")
    unary(ctx, node, "swish")


@rule("Clip")
def clip(ctx: Importer, node: Node) -> None:
    """Clip with bounds as attributes or inputs."""
    bounds = []
    for i, (name, default) in enumerate((("min", -FLOAT_MAX), ("max", FLOAT_MAX)), start=1):
        given = ctx.optional(node, i) if ctx.has(node, i) else node.attrs.get(name)
        bounds.append(default if given is None else float(np.ravel(given)[0]))
    if bounds[0] == 0.0 and bounds[1] >= FLOAT_MAX:
        unary(ctx, node, "relu")
    else:
        unary(ctx, node, "clip", *bounds)


@rule("Min", "Max")
def bound(ctx: Importer, node: Node) -> None:
    """Min or Max against one number."""
    tensors = [n for n in node.inputs if isinstance(ctx.values[n], Tensor)]
    numbers = [v for n in node.inputs if not isinstance(v := ctx.values[n], Tensor)]
    if len(tensors) != 1 or any(v.size != 1 for v in numbers):
        raise node.unsupported("only one activation against single numbers is supported")
    node.inputs = tensors
    values = [float(np.ravel(v)[0]) for v in numbers]
    if node.op == "Max" and max(values) == 0.0:
        unary(ctx, node, "relu")
    elif node.op == "Max":
        unary(ctx, node, "clip", max(values), FLOAT_MAX)
    else:
        unary(ctx, node, "clip", -FLOAT_MAX, min(values))


def stored_operand(node: Node, b: Array, onnx_shape: tuple[int, ...], perm: Perm) -> Array:
    """A constant operand in the plan's form: (1), (c) along the last stored axis, or the shape without the batch."""
    rank = len(onnx_shape)
    if b.size == 1:
        return b.reshape(1).astype(np.float32)
    if b.ndim > rank:
        if any(s != 1 for s in b.shape[: b.ndim - rank]):
            raise node.unsupported(f"a constant of shape {b.shape} against {onnx_shape} would add axes")
        b = b.reshape(b.shape[b.ndim - rank :])
    b = b.reshape((1,) * (rank - b.ndim) + b.shape)
    if b.shape[0] != 1:
        raise node.unsupported(f"a constant of shape {b.shape} differs along the batch")
    for size, full in zip(b.shape[1:], onnx_shape[1:], strict=True):
        if size not in (1, full):
            raise node.unsupported(
                f"a constant of shape {b.shape} does not broadcast to {onnx_shape} without growing it"
            )
    b = b.transpose(perm)[0].astype(np.float32)
    if all(s == 1 for s in b.shape[:-1]):
        return np.ascontiguousarray(b.reshape(-1))
    return np.ascontiguousarray(np.broadcast_to(b, [onnx_shape[p] for p in perm][1:]))


def best_perm(t: Tensor, b: Array) -> Perm:
    """The stored order in which a constant operand varies along the last axis only, where there is one."""
    if t.rank == 4 and b.size > 1:
        shape = (1,) * (4 - b.ndim) + b.shape[max(b.ndim - 4, 0) :]
        varying = [i for i in range(4) if shape[i] != 1]
        if varying == [1]:
            return NHWC
    return t.perm


def with_constant(ctx: Importer, node: Node, t: Tensor, kind: str, b: Array) -> Tensor:
    """A layer ``t kind b``."""
    if t.flat is not None and b.size > 1:
        t = ctx.plain(t)
    if t.flat is None:
        t = ctx.to_perm(t, best_perm(t, b))
    layer = ctx.emit(node, "binary", [t], t.shape, t.perm, kind=kind)
    layer.output.flat = t.flat
    layer.params["b"] = stored_operand(node, b, t.onnx_shape, t.perm)
    return layer.output


@rule("Add", "Sub", "Mul", "Div")
def arithmetic(ctx: Importer, node: Node) -> None:
    """Two activations, or an activation and a constant."""
    a, b = ctx.value(node, 0), ctx.value(node, 1)
    kind = node.op.lower()
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        ctx.set(node, between(ctx, node, kind, a, b))
    elif isinstance(a, Tensor):
        assert not isinstance(b, Tensor)
        ctx.set(node, with_constant(ctx, node, a, kind, b))
    else:
        assert isinstance(b, Tensor)
        if kind == "div":
            raise node.unsupported("a constant divided by an activation is not supported")
        if kind == "sub":
            b = with_constant(ctx, node, b, "mul", np.array([-1.0], np.float32))
            kind = "add"
        ctx.set(node, with_constant(ctx, node, b, kind, a))


@rule("Neg")
def negate(ctx: Importer, node: Node) -> None:
    """-x."""
    ctx.set(node, with_constant(ctx, node, ctx.tensor(node), "mul", np.array([-1.0], np.float32)))


@rule("Sum")
def total(ctx: Importer, node: Node) -> None:
    """Sum of any number of inputs, in order."""
    t = ctx.tensor(node, 0)
    for i in range(1, len(node.inputs)):
        t = between(ctx, node, "add", t, ctx.tensor(node, i))
        t.name = node.outputs[0] if i + 1 == len(node.inputs) else f"{node.outputs[0]}:{i}"
    ctx.set(node, t)


def between(ctx: Importer, node: Node, kind: str, a: Tensor, b: Tensor) -> Tensor:
    """A layer ``a kind b`` of two activations: the same shape, or one of them (n, c, 1, 1), or one channel."""
    if a.items < b.items:
        if kind not in ("add", "mul"):
            raise node.unsupported(f"shapes {a.onnx_shape} and {b.onnx_shape}: the second may not be the larger one")
        a, b = b, a
    if a.flat != b.flat:
        a, b = ctx.plain(a), ctx.plain(b)
    sa, sb = a.onnx_shape, b.onnx_shape
    if sa == sb:
        if a.flat is None:
            perm = a.perm if a.perm != tuple(range(a.rank)) else b.perm
            a, b = ctx.to_perm(a, perm), ctx.to_perm(b, perm)
    elif a.rank == b.rank and a.rank in (2, 4) and sb == (BATCH, 1, *sa[2:]):
        perm = NHWC if a.rank == 4 else (0, 1)
        a, b = ctx.to_perm(a, perm), ctx.to_perm(b, perm)
    elif a.rank == 4 and b.rank == 4 and sb == (BATCH, sa[1], 1, 1):
        a, b = ctx.to_perm(a, NHWC), ctx.to_perm(b, NHWC)
    elif a.rank == 4 and b.rank == 4 and sb == (BATCH, 1, 1, sa[3]):  # an NHWC network
        a, b = ctx.to_perm(a, (0, 1, 2, 3)), ctx.to_perm(b, (0, 1, 2, 3))
    else:
        raise node.unsupported(
            f"shapes {sa} and {sb}; only equal shapes, or (n, c, 1, 1) or (n, 1, h, w) against (n, c, h, w)"
        )
    layer: Layer = ctx.emit(node, "binary", [a, b], a.shape, a.perm, kind=kind)
    layer.output.flat = a.flat
    return layer.output


@rule("PRelu")
def prelu(ctx: Importer, node: Node) -> None:
    """X > 0 ? x : slope * x, one slope or one per channel."""
    t, slope = ctx.tensor(node), ctx.constant(node, 1)
    if slope.size > 1 and t.flat is not None:
        t = ctx.plain(t)
    if t.flat is None:
        t = ctx.to_perm(t, best_perm(t, slope))
    stored = stored_operand(node, slope, t.onnx_shape, t.perm)
    if stored.ndim != 1:
        raise node.unsupported(f"a slope of shape {slope.shape}; only one number or one per channel")
    layer = ctx.emit(node, "prelu", [t], t.shape, t.perm)
    layer.output.flat = t.flat
    layer.params["slope"] = stored
    layer.weight_name = node.inputs[1]
    ctx.set(node, layer.output)


@rule("Softmax")
def softmax(ctx: Importer, node: Node) -> None:
    """Softmax over one axis; before opset 13 over all axes from it on."""
    t = ctx.tensor(node)
    axis = int(node.attrs.get("axis", 1 if ctx.opset < 13 else -1)) % t.rank
    if axis == 0:
        raise node.unsupported("softmax over the batch is not supported")
    shape = t.onnx_shape
    if ctx.opset < 13 and any(s != 1 for s in shape[axis + 1 :]):
        t = ctx.plain(t)
        columns = int(np.prod(shape[axis:]))
        rows = ctx.emit(node, "reshape", [t], (*shape[:axis], columns), name=t.name)
        done = ctx.emit(node, "softmax", [rows.output], rows.output.shape)
        ctx.set(node, ctx.emit(node, "reshape", [done.output], shape).output)
        return
    if t.flat is not None or t.perm[-1] != axis:
        t = ctx.to_perm(t, (*(i for i in range(t.rank) if i != axis), axis))
    ctx.set(node, ctx.emit(node, "softmax", [t], t.shape, t.perm).output)
