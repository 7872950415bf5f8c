"""Convolutions, matrix products, batch normalisation."""

from __future__ import annotations

import math

import numpy as np

from lowbit.graph.importer import Importer, Node, rule
from lowbit.graph.net import BATCH, NHWC, Array, Codes, Tensor


def window(
    ctx: Importer, node: Node, t: Tensor, kernel: list[int]
) -> tuple[list[int], list[int], list[int], list[int], list[int]]:
    """Strides, pads, dilations, output size and overhang [bottom, right] of a window over an NHWC tensor.

    ``pads`` includes the overhang that ceil_mode needs.
    """
    if len(kernel) != 2:
        raise node.unsupported(f"a {len(kernel)}-d kernel; only 2-d images are supported")
    strides = [int(s) for s in node.attrs.get("strides", [1, 1])]
    dilations = [int(d) for d in node.attrs.get("dilations", [1, 1])]
    pads = [int(p) for p in node.attrs.get("pads", [0, 0, 0, 0])]
    auto = node.attrs.get("auto_pad", "NOTSET")
    sizes = [t.shape[1], t.shape[2]]
    reach = [d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True)]
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        total = [max((math.ceil(i / s) - 1) * s + r - i, 0) for i, s, r in zip(sizes, strides, reach, strict=True)]
        small, large = [p // 2 for p in total], [p - p // 2 for p in total]
        pads = small + large if auto == "SAME_UPPER" else large + small
    elif auto == "VALID":
        pads = [0, 0, 0, 0]
    out, over = [], []
    for i in range(2):
        span = sizes[i] + pads[i] + pads[i + 2] - reach[i]
        n = span // strides[i] + 1
        if node.attrs.get("ceil_mode", 0) and span % strides[i] and n * strides[i] < sizes[i] + pads[i]:
            n += 1  # one more window, if it starts inside the image or the padding before it
        if span < 0:
            raise node.unsupported(f"the kernel {kernel} is larger than the padded image {sizes}")
        out.append(n)
        over.append(max((n - 1) * strides[i] + reach[i] - sizes[i] - pads[i] - pads[i + 2], 0))
    pads = [pads[0], pads[1], pads[2] + over[0], pads[3] + over[1]]
    return strides, pads, dilations, out, over


def _weight(ctx: Importer, node: Node, i: int, axes: tuple[int, ...]) -> tuple[Array, Codes | None]:
    """Constant weights as float32 with axes permuted so that the output channel leads, and the codes they came from."""
    array = ctx.constant(node, i)
    codes = ctx.codes.get(node.inputs[i])
    if codes is not None:
        codes = Codes(codes.codes.transpose(axes), codes.scale, codes.zero_point)
    return np.ascontiguousarray(array.astype(np.float32).transpose(axes)), codes


@rule("Conv")
def conv(ctx: Importer, node: Node) -> None:
    """Conv over 2-d images."""
    x = ctx.nhwc(node, ctx.tensor(node))
    if ctx.constant(node, 1).ndim != 4:
        raise node.unsupported("only 2-d convolution is supported")
    weight, codes = _weight(ctx, node, 1, (0, 2, 3, 1))
    groups = int(node.attrs.get("group", 1))
    oc, kh, kw, icg = weight.shape
    if icg * groups != x.shape[3] or oc % groups:
        raise node.unsupported(
            f"{x.shape[3]} channels, {groups} groups and weights for {icg} channels a group disagree"
        )
    strides, pads, dilations, out, _ = window(ctx, node, x, [kh, kw])
    layer = ctx.emit(
        node, "conv2d", [x], (BATCH, *out, oc), NHWC, strides=strides, pads=pads, dilations=dilations, groups=groups
    )
    layer.params["weight"] = weight
    layer.codes = codes
    layer.basis = ctx.bases.get(node.inputs[1])
    layer.weight_name = ctx.parameter_name(node, 1)
    bias = ctx.optional(node, 2)
    if bias is not None:
        layer.params["bias"] = bias.astype(np.float32)
    ctx.set(node, layer.output)


def _product(ctx: Importer, node: Node, x: Tensor, weight: Array, codes: Codes | None, bias: Array | None) -> Tensor:
    """A gemm over x's last axis with weight (n, k)."""
    k = weight.shape[1]
    if x.flat is not None:
        h, w, c = x.flat
        weight = np.ascontiguousarray(weight.reshape(-1, c, h, w).transpose(0, 2, 3, 1).reshape(-1, k))
        if codes is not None:
            turned = codes.codes.reshape(-1, c, h, w).transpose(0, 2, 3, 1).reshape(-1, k)
            codes = Codes(np.ascontiguousarray(turned), codes.scale, codes.zero_point)
    elif x.perm[-1] != x.rank - 1:
        x = ctx.plain(x)
    if x.shape[-1] != k:
        raise node.unsupported(f"{x.shape[-1]} columns against {k} rows of weights")
    layer = ctx.emit(node, "gemm", [x], (*x.shape[:-1], weight.shape[0]), x.perm)
    layer.params["weight"] = weight
    layer.codes = codes
    layer.weight_name = ctx.parameter_name(node, 1)
    if bias is not None:
        layer.params["bias"] = bias
    return layer.output


@rule("Gemm")
def gemm(ctx: Importer, node: Node) -> None:
    """Gemm with constant weights."""
    x = ctx.tensor(node)
    if node.attrs.get("transA", 0):
        raise node.unsupported("transA=1 would turn the batch axis; only transA=0 is supported")
    weight, codes = _weight(ctx, node, 1, (0, 1) if node.attrs.get("transB", 0) else (1, 0))
    alpha, beta = float(node.attrs.get("alpha", 1.0)), float(node.attrs.get("beta", 1.0))
    if alpha != 1.0:
        weight, codes = weight * np.float32(alpha), None
    bias = ctx.optional(node, 2)
    if bias is not None:
        if bias.ndim == 2 and bias.shape[0] != 1:
            raise node.unsupported(f"C of shape {bias.shape} differs per row; only a row vector is supported")
        bias = np.broadcast_to(np.ravel(bias) * np.float32(beta), (weight.shape[0],)).astype(np.float32)
    ctx.set(node, _product(ctx, node, x, weight, codes, bias))
    basis = ctx.bases.get(node.inputs[1])
    if basis is not None and node.attrs.get("transB", 0):
        ctx.layers[-1].basis = basis * np.float32(alpha)


@rule("MatMul")
def matmul(ctx: Importer, node: Node) -> None:
    """MatMul with constant weights on the right."""
    x, w = ctx.value(node, 0), ctx.value(node, 1)
    if not isinstance(x, Tensor) or isinstance(w, Tensor):
        raise node.unsupported("only activations times constant weights are supported (attention is not)")
    if w.ndim != 2:
        raise node.unsupported(f"weights of shape {w.shape}; only a matrix is supported")
    weight, codes = _weight(ctx, node, 1, (1, 0))
    ctx.set(node, _product(ctx, node, x, weight, codes, None))


@rule("BatchNormalization")
def batch_normalization(ctx: Importer, node: Node) -> None:
    """Y = x * (gamma / sqrt(var + eps)) + (beta - mean * gamma / sqrt(var + eps)), per channel, as two layers."""
    if node.attrs.get("training_mode", 0) or len([o for o in node.outputs if o]) > 1:
        raise node.unsupported("training mode; export the network in evaluation mode")
    gamma, beta, mean, var = (ctx.constant(node, i).astype(np.float64) for i in range(1, 5))
    scale = gamma / np.sqrt(var + float(node.attrs.get("epsilon", 1e-5)))
    t = channels_last(ctx, ctx.tensor(node))
    for kind, b in (("mul", scale), ("add", beta - mean * scale)):
        name = node.outputs[0] if kind == "add" else node.outputs[0] + ":scaled"
        layer = ctx.emit(node, "binary", [t], t.shape, t.perm, name, kind=kind)
        layer.params["b"] = b.astype(np.float32)
        layer.weight_name = ctx.parameter_name(node, 1)
        t = layer.output
    ctx.set(node, t)


def channels_last(ctx: Importer, t: Tensor) -> Tensor:
    """The tensor with ONNX axis 1 stored last."""
    if t.rank == 1 or (t.flat is None and t.perm[-1] == 1):
        return t
    return ctx.to_perm(t, (0, *range(2, t.rank), 1))
