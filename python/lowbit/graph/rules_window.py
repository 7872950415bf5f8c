"""Pooling, spatial means, resizing."""

from __future__ import annotations

from typing import Any

import numpy as np

from lowbit.graph.importer import Importer, Node, rule
from lowbit.graph.net import BATCH, NHWC, Array, Tensor
from lowbit.graph.rules_mac import window


@rule("MaxPool")
def max_pool(ctx: Importer, node: Node) -> None:
    """MaxPool; ceil_mode becomes padding at the end, which never wins."""
    if len([o for o in node.outputs if o]) > 1:
        raise node.unsupported("the Indices output is not supported")
    x = ctx.nhwc(node, ctx.tensor(node))
    kernel = [int(k) for k in node.attrs["kernel_shape"]]
    strides, pads, dilations, out, _ = window(ctx, node, x, kernel)
    shape = (BATCH, *out, x.shape[3])
    layer = ctx.emit(node, "max_pool", [x], shape, NHWC, kernel=kernel, strides=strides, pads=pads, dilations=dilations)
    ctx.set(node, layer.output)


@rule("AveragePool")
def average_pool(ctx: Importer, node: Node) -> None:
    """AveragePool; where padding counts and ceil_mode's overhang does not, the padding becomes a layer of its own."""
    x = ctx.nhwc(node, ctx.tensor(node))
    kernel = [int(k) for k in node.attrs["kernel_shape"]]
    if any(d != 1 for d in node.attrs.get("dilations", [1, 1])):
        raise node.unsupported("dilations are not supported; only 1")
    strides, pads, _, out, over = window(ctx, node, x, kernel)
    include = bool(node.attrs.get("count_include_pad", 0))
    if include and any(over) and any(pads):
        pads = [pads[0], pads[1], pads[2] - over[0], pads[3] - over[1]]
        _, h, w, c = x.shape
        padded = (BATCH, h + pads[0] + pads[2], w + pads[1] + pads[3], c)
        before, after = [0, pads[0], pads[1], 0], [0, pads[2], pads[3], 0]
        x = ctx.emit(node, "pad", [x], padded, NHWC, x.name + ":padded", before=before, after=after, value=0.0).output
        pads, include = [0, 0, *over], False
    layer = ctx.emit(
        node, "average_pool", [x], (BATCH, *out, x.shape[3]), NHWC,
        kernel=kernel, strides=strides, pads=pads, count_include_pad=include,
    )  # fmt: skip
    ctx.set(node, layer.output)


def _whole_image(ctx: Importer, node: Node, op: str, x: Tensor) -> Tensor:
    """A pool whose kernel is stored axes 1 and 2."""
    _, h, w, c = x.shape
    attrs: dict[str, Any] = {"kernel": [h, w], "strides": [1, 1], "pads": [0, 0, 0, 0]}
    attrs |= {"count_include_pad": False} if op == "average_pool" else {"dilations": [1, 1]}
    return ctx.emit(node, op, [x], (BATCH, 1, 1, c), x.perm, **attrs).output


@rule("GlobalAveragePool", "GlobalMaxPool")
def global_pool(ctx: Importer, node: Node) -> None:
    """A pool whose kernel is the image."""
    op = "average_pool" if node.op == "GlobalAveragePool" else "max_pool"
    ctx.set(node, _whole_image(ctx, node, op, ctx.nhwc(node, ctx.tensor(node))))


@rule("ReduceMean")
def reduce_mean(ctx: Importer, node: Node) -> None:
    """ReduceMean over two axes of an image, or over the channels, which is a product with equal weights."""
    x = ctx.tensor(node)
    axes = sorted(a % x.rank for a in ctx.axes(node, 1) or [])
    if axes == [1] and x.rank in (2, 4) and node.attrs.get("keepdims", 1):
        x = ctx.to_perm(x, NHWC if x.rank == 4 else (0, 1))
        c = x.shape[-1]
        layer = ctx.emit(node, "conv2d" if x.rank == 4 else "gemm", [x], (*x.shape[:-1], 1), x.perm)
        if x.rank == 4:
            layer.attrs = {"strides": [1, 1], "pads": [0, 0, 0, 0], "dilations": [1, 1], "groups": 1}
        layer.params["weight"] = np.full((1, 1, 1, c) if x.rank == 4 else (1, c), 1 / c, np.float32)
        ctx.set(node, layer.output)
        return
    if x.rank != 4 or len(axes) != 2 or 0 in axes:
        raise node.unsupported(
            f"axes {axes} of {x.rank}; only the mean over both spatial axes of images, or over their "
            "channels, is supported"
        )
    (channel,) = {1, 2, 3} - set(axes)
    t = _whole_image(ctx, node, "average_pool", ctx.to_perm(x, (0, axes[0], axes[1], channel)))
    if not node.attrs.get("keepdims", 1):
        t = ctx.emit(node, "reshape", [t], (BATCH, t.shape[3])).output
    ctx.set(node, t)


def _coordinates(node: Node, n_in: int, n_out: int, scale: Any, roi: tuple[float, float]) -> Any:
    """Where each output pixel samples the input, in float32 steps as onnxruntime's: they decide ties."""
    mode = node.attrs.get("coordinate_transformation_mode", "half_pixel")
    o: Array = np.arange(n_out, dtype=np.float32)
    scale = np.float32(scale)
    if mode == "half_pixel":
        return (o + 0.5) / scale - 0.5
    if mode == "half_pixel_symmetric":
        adjustment = n_out / (scale * n_in)
        return n_in / 2 * (1 - adjustment) + (o + 0.5) / scale - 0.5
    if mode == "pytorch_half_pixel":
        return (o + 0.5) / scale - 0.5 if n_out > 1 else np.zeros(1)
    if mode == "align_corners":
        return o * (n_in - 1) / (n_out - 1) if n_out > 1 else np.zeros(1)
    if mode == "asymmetric":
        return o / scale
    if mode == "tf_half_pixel_for_nn":
        return (o + 0.5) / scale
    if mode == "tf_crop_and_resize":
        lo, hi = roi
        if n_out == 1:
            return np.full(1, 0.5 * (lo + hi) * (n_in - 1))
        return lo * (n_in - 1) + o * (hi - lo) * (n_in - 1) / (n_out - 1)
    raise node.unsupported(f"coordinate_transformation_mode {mode!r} is not known")


@rule("Resize")
def resize(ctx: Importer, node: Node) -> None:
    """Resize of the spatial axes, nearest or linear."""
    x = ctx.nhwc(node, ctx.tensor(node))
    mode = node.attrs.get("mode", "nearest")
    if mode not in ("nearest", "linear") or node.attrs.get("antialias", 0) or node.attrs.get("exclude_outside", 0):
        raise node.unsupported(
            f"mode {mode!r}; only 'nearest' and 'linear' without antialias or exclude_outside are supported"
        )
    scales, sizes, roi = ctx.optional(node, 2), ctx.optional(node, 3), ctx.optional(node, 1)
    shape = x.onnx_shape
    axes = [a % 4 for a in node.attrs.get("axes", range(4))]
    ratio, out = [1.0] * 4, list(shape)
    for i, axis in enumerate(axes):
        if sizes is not None and sizes.size:
            ratio[axis] = 1.0 if axis == 0 else float(sizes[i]) / shape[axis]
            out[axis] = BATCH if axis == 0 else int(sizes[i])
        elif scales is not None and scales.size:
            ratio[axis] = float(scales[i])
            out[axis] = BATCH if axis == 0 else int(np.floor(shape[axis] * ratio[axis]))
    if sizes is not None and sizes.size and node.attrs.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise node.unsupported("keep_aspect_ratio_policy is not supported; only 'stretch'")
    if ratio[0] != 1.0 or out[1] != shape[1]:
        raise node.unsupported("it resizes the batch or the channels; only the spatial axes are supported")
    crop = node.attrs.get("coordinate_transformation_mode") == "tf_crop_and_resize"
    taps: dict[str, Array] = {}
    for axis, label in ((2, "rows"), (3, "cols")):
        where = axes.index(axis) if axis in axes else None
        window_of_axis = (0.0, 1.0)
        if crop and roi is not None and roi.size and where is not None:
            window_of_axis = (float(roi[where]), float(roi[where + len(axes)]))
        at = _coordinates(node, shape[axis], out[axis], ratio[axis], window_of_axis)
        if crop and bool(((at < 0) | (at > shape[axis] - 1)).any()):
            raise node.unsupported("tf_crop_and_resize reads outside the image; extrapolation is not supported")
        last = shape[axis] - 1
        if mode == "nearest":
            taps[label] = np.clip(_nearest(node, at), 0, last).astype(np.int32)
        else:
            at = np.clip(at, 0, last)
            first = np.floor(at).astype(np.int32)
            taps[label + "0"], taps[label + "1"] = first, np.minimum(first + 1, last).astype(np.int32)
            taps[label[:3] + "_weight"] = (at - first).astype(np.float32)
    layer = ctx.emit(node, "resize", [x], (BATCH, out[2], out[3], x.shape[3]), NHWC, mode=mode)
    layer.params.update(taps)
    ctx.set(node, layer.output)


def _nearest(node: Node, at: Array) -> Array:
    mode = node.attrs.get("nearest_mode", "round_prefer_floor")
    if mode == "round_prefer_floor":
        return np.ceil(at - 0.5)
    if mode == "round_prefer_ceil":
        return np.floor(at + 0.5)
    if mode == "floor":
        return np.floor(at)
    if mode == "ceil":
        return np.ceil(at)
    raise node.unsupported(f"nearest_mode {mode!r} is not known")


@rule("Upsample")
def upsample(ctx: Importer, node: Node) -> None:
    """The operator that Resize replaced."""
    raise node.unsupported("replaced by Resize in opset 10; onnx.version_converter can raise the file's opset")
