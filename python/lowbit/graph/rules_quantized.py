"""Files that are quantized already: QDQ, and onnxruntime's QOperator forms.

A quantized activation is treated as the float tensor it stands for, which remembers the scale and zero point that the
file
gives it; a dequantized constant becomes float and remembers its codes. Lowering then uses both as they are.
"""

from __future__ import annotations

import numpy as np

from lowbit.graph.importer import Importer, Node, rule
from lowbit.graph.net import Array, Codes, FixedCodes, Tensor


def _zero_point(ctx: Importer, node: Node, i: int) -> Array:
    z = ctx.optional(node, i)
    return np.zeros((), np.uint8) if z is None else z


def fix(ctx: Importer, node: Node, t: Tensor, scale: Array, zero: Array) -> Tensor:
    """The tensor with the file's parameters; a second, different pair becomes a change of scale."""
    if scale.size != 1:
        raise node.unsupported("activations with a scale per channel are not supported; only one scale per tensor")
    if zero.dtype.name not in ("int8", "uint8"):
        raise node.unsupported(f"activations of type {zero.dtype.name}; only int8 and uint8 are supported")
    fixed = FixedCodes(float(np.float32(np.ravel(scale)[0])), int(np.ravel(zero)[0]), zero.dtype.name)
    ctx.quantized = True
    if t.fixed is None:
        t.fixed = fixed
    if t.fixed == fixed:
        return t
    layer = ctx.emit(node, "identity", [t], t.shape, t.perm)
    layer.output.flat, layer.output.fixed = t.flat, fixed
    return layer.output


@rule("QuantizeLinear")
@rule("QuantizeLinear", domain="com.microsoft")
def quantize_linear(ctx: Importer, node: Node) -> None:
    """Marks the tensor with its parameters."""
    zero = _zero_point(ctx, node, 2)
    t = fix(ctx, node, ctx.tensor(node), ctx.constant(node, 1), zero)
    ctx.set(node, t)


def dequantized(ctx: Importer, name: str, codes: Array, scale: Array, zero: Array, axis: int) -> Array:
    """Float values of constant codes, remembered under ``name``."""
    scale = np.ravel(scale).astype(np.float32)
    zeros = np.ravel(zero)
    along = [1] * codes.ndim
    if scale.size > 1:
        along[axis % codes.ndim] = scale.size
    z = zeros.astype(np.int64)
    values = (codes.astype(np.int64) - (z.reshape(along) if z.size > 1 else z[0])) * scale.astype(np.float64).reshape(
        along or ()
    )
    if codes.dtype.name in ("int8", "uint8") and (z == z[0]).all():
        ctx.codes[name] = Codes(codes, scale, int(z[0]))
        ctx.quantized = True
    return np.asarray(values, dtype=np.float32).reshape(codes.shape)


@rule("DequantizeLinear")
@rule("DequantizeLinear", domain="com.microsoft")
def dequantize_linear(ctx: Importer, node: Node) -> None:
    """Of an activation: the tensor itself. Of a constant: its values, the codes remembered."""
    x = ctx.value(node, 0)
    if isinstance(x, Tensor):
        if x.fixed is None:
            raise node.unsupported("its input was never quantized (integer inputs are not supported)")
        ctx.set(node, x)
        return
    scale = ctx.constant(node, 1)
    zero = ctx.optional(node, 2)
    if int(node.attrs.get("block_size", 0)):
        raise node.unsupported("blocked scales are not supported")
    zero = np.zeros((), x.dtype) if zero is None else zero
    ctx.origins[node.outputs[0]] = node.inputs[0]
    ctx.set(node, dequantized(ctx, node.outputs[0], x, scale, zero, int(node.attrs.get("axis", 1))))


def _expand(
    ctx: Importer, node: Node, op: str, inputs: list[str], attrs: dict[str, object], out: tuple[Array, Array]
) -> None:
    """Run the float rule of ``op`` on dequantized inputs and mark its output."""
    from lowbit.graph import importer

    inner = Node(node.proto, op, "", node.name, inputs, node.outputs[:1], dict(attrs))
    importer._RULES[("", op)](ctx, inner)
    result = ctx.tensor(Node(node.proto, op, "", node.name, node.outputs[:1], node.outputs[:1], {}))
    ctx.set(node, fix(ctx, node, result, *out))


def _weight(ctx: Importer, node: Node, i: int, axis: int) -> str:
    """Name of the float values of the constant codes at inputs i (codes), i + 1 (scale), i + 2 (zero point)."""
    name = node.inputs[i]
    key = f"{name}:values"
    codes, scale = ctx.constant(node, i), ctx.constant(node, i + 1)
    ctx.values[key] = dequantized(ctx, key, codes, scale, _zero_point(ctx, node, i + 2), axis)
    return key


def _activation(ctx: Importer, node: Node, i: int) -> str:
    t = fix(ctx, node, ctx.tensor(node, i), ctx.constant(node, i + 1), _zero_point(ctx, node, i + 2))
    key = f"{node.inputs[i]}:codes"
    ctx.values[key] = t
    return key


def _bias(ctx: Importer, node: Node, i: int, s_x: Array, s_w: Array) -> str:
    key = f"{node.inputs[i]}:values"
    bias = ctx.constant(node, i)
    ctx.values[key] = (
        bias.astype(np.float64) * np.ravel(s_x).astype(np.float64) * np.ravel(s_w).astype(np.float64)
    ).astype(np.float32)
    return key


@rule("QLinearConv")
def qlinear_conv(ctx: Importer, node: Node) -> None:
    """x, s, z, w, s, z, s_y, z_y, bias."""
    inputs = [_activation(ctx, node, 0), _weight(ctx, node, 3, 0)]
    if ctx.has(node, 8):
        inputs.append(_bias(ctx, node, 8, ctx.constant(node, 1), ctx.constant(node, 4)))
    _expand(ctx, node, "Conv", inputs, node.attrs, (ctx.constant(node, 6), ctx.constant(node, 7)))


@rule("QLinearMatMul")
def qlinear_matmul(ctx: Importer, node: Node) -> None:
    """a, s, z, b, s, z, s_y, z_y."""
    inputs = [_activation(ctx, node, 0), _weight(ctx, node, 3, 1)]
    _expand(ctx, node, "MatMul", inputs, {}, (ctx.constant(node, 6), ctx.constant(node, 7)))


@rule("QGemm", domain="com.microsoft")
def qgemm(ctx: Importer, node: Node) -> None:
    """a, s, z, b, s, z, c, s_y, z_y; float output where s_y is absent."""
    trans = int(node.attrs.get("transB", 0))
    inputs = [_activation(ctx, node, 0), _weight(ctx, node, 3, 0 if trans else 1)]
    if ctx.has(node, 6):
        inputs.append(_bias(ctx, node, 6, ctx.constant(node, 1), ctx.constant(node, 4)))
    if ctx.has(node, 7):
        _expand(ctx, node, "Gemm", inputs, node.attrs, (ctx.constant(node, 7), _zero_point(ctx, node, 8)))
        return
    from lowbit.graph.rules_mac import gemm

    gemm(ctx, Node(node.proto, "Gemm", "", node.name, inputs, node.outputs, node.attrs))


@rule("QLinearAdd", "QLinearMul", domain="com.microsoft")
def qlinear_binary(ctx: Importer, node: Node) -> None:
    """a, s, z, b, s, z, s_y, z_y."""
    inputs = []
    for i in (0, 3):
        constant = not isinstance(ctx.value(node, i), Tensor)
        inputs.append(_weight(ctx, node, i, 0) if constant else _activation(ctx, node, i))
    _expand(ctx, node, node.op[7:], inputs, {}, (ctx.constant(node, 6), _zero_point(ctx, node, 7)))


@rule("QLinearGlobalAveragePool", "QLinearAveragePool", "QLinearSigmoid", "QLinearLeakyRelu", domain="com.microsoft")
def qlinear_unary(ctx: Importer, node: Node) -> None:
    """x, s, z, s_y, z_y."""
    if node.attrs.get("channels_last", 0):
        raise node.unsupported("channels_last=1 is not supported; save the file with basic optimisations only")
    out = (ctx.constant(node, 3), _zero_point(ctx, node, 4))
    _expand(ctx, node, node.op[7:], [_activation(ctx, node, 0)], node.attrs, out)


@rule("QLinearConcat", domain="com.microsoft")
def qlinear_concat(ctx: Importer, node: Node) -> None:
    """s_y, z_y, then x, s, z for each part."""
    inputs = [_activation(ctx, node, i) for i in range(2, len(node.inputs), 3)]
    _expand(ctx, node, "Concat", inputs, node.attrs, (ctx.constant(node, 0), ctx.constant(node, 1)))
