"""Layers with codebook weights in plans: writing them, and reading their weights back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowbit._core import FormatError, sparse_pays
from lowbit.compression.coded import CodedWeights, code_weights, decode_stream
from lowbit.compression.sharing import is_shared
from lowbit.graph.few_bits import weight_shape
from lowbit.graph.net import Array, Layer
from lowbit.graph.plan import Plan, PlanBuilder
from lowbit.graph.recipe import Recipe
from lowbit.graph.weights import mean_shift, quantize_weights, weight_scales


def write_codebook(
    builder: PlanBuilder, layer: Layer, inputs: list[int], output: int, recipe: Recipe, mean: Array | None = None
) -> None:
    """Write a float convolution or product as ``conv2d_codebook`` or ``gemm_codebook``; a residual is added after it.

    Weights that already take few values keep them exactly (see ``share_weights``); zeros count as pruned. Uniform
    weights are whole numbers with a scale per output channel; ``mean``, E[x] per input channel where it is known,
    lets biases take back what their rounding shifts.
    """
    weight, bias = layer.params["weight"], layer.params.get("bias")
    params: dict[str, Array] = {}
    if recipe.weight == "uniform":
        codes, params["scale"] = layer.remembered(
            ("uniform", recipe.bits), lambda: quantize_weights(weight, True, None, None, bits=recipe.bits)
        )
        top = (1 << (recipe.bits - 1)) - 1
        levels = np.arange(-top, top + 1)
        coded = CodedWeights(weight.shape, recipe.bits, levels.astype(np.float32), (codes + top).astype(np.uint8))
        if mean is not None:
            shift = mean_shift(layer, mean, codes, params["scale"])
            bias = (shift if bias is None else bias + shift).astype(np.float32)
    else:
        coded = layer.remembered(
            ("codebook", recipe.bits, recipe.per, recipe.huffman),
            lambda: code_weights(weight, recipe.bits, per=recipe.per, huffman=recipe.huffman, layer=layer.name),
        )
    clamp = {k: v for k, v in layer.attrs.items() if k in ("min", "max")}
    attrs = {k: v for k, v in layer.attrs.items() if k not in clamp}
    more, streams = coded_parts(coded, recipe.huffman)
    attrs |= more
    params |= {"codebook": coded.codebook, **streams}
    if bias is not None:
        params["bias"] = bias
    if len(inputs) == 1:
        builder.op(f"{layer.op}_codebook", inputs, output, attrs | clamp, params, name=layer.name)
        return
    product = builder.tensor(f"{layer.name}.product", "float32", tuple(builder.tensors[output]["shape"]))
    builder.op(f"{layer.op}_codebook", inputs[:1], product, attrs, params, name=layer.name)
    builder.op("binary", [product, inputs[1]], output, {"kind": "add", **clamp})


def code_int8(
    layer: Layer, recipe: Recipe, bias: Array | None, input_scale: float | None, input_reach: int
) -> tuple[CodedWeights, Array]:
    """A layer's weights as codes into a codebook of int8 values, and the scales that those have.

    Weights are divided by the scale of their output channel before they are shared, so that channels of any size can
    share a codebook; those that already take few values keep them, to int8's rounding, with one scale.

    Args:
        layer: a convolution or product.
        recipe: bits, per, huffman.
        bias: see ``quantize_weights``.
        input_scale: likewise.
        input_reach: likewise.

    Returns:
        codes, their codebook of whole float32 numbers within +-127; scales (oc) or (1).
    """
    weight = layer.params["weight"]
    per_channel = recipe.per == "channel" or not is_shared(weight, recipe.bits, recipe.per)
    scale = weight_scales(weight, per_channel, bias, input_scale, input_reach)
    scaled = (weight / scale.reshape(-1, *[1] * (weight.ndim - 1))).astype(np.float32)
    coded = code_weights(scaled, recipe.bits, per=recipe.per, huffman=recipe.huffman, layer=layer.name)
    return replace(coded, codebook=np.clip(np.rint(coded.codebook), -127, 127)), scale


def coded_parts(coded: CodedWeights, huffman: bool) -> tuple[dict[str, Any], dict[str, Array]]:
    """What a plan's operation says of its codes: attributes, and params but for the codebook."""
    attrs: dict[str, Any] = {"bits": coded.bits}
    if len(coded.shape) == 4:
        attrs["kernel"] = list(coded.shape[1:3])
    if coded.group_size:
        attrs["group_size"] = coded.group_size
    streams = coded.streams(huffman)
    params: dict[str, Array] = {"weight": streams["codes"].data}
    if streams["codes"].huffman:
        attrs["huffman"] = True
    if coded.sparse:
        attrs |= {"gap_bits": coded.gap_bits, "entries": int(coded.codes.size)}
        params["gaps"] = streams["gaps"].data
        if streams["gaps"].huffman:
            attrs["gaps_huffman"] = True
    return attrs, params


def is_codebook(op: dict[str, Any]) -> bool:
    """Whether a plan's operation has codebook weights."""
    return str(op["op"]).endswith("_codebook")


def runs_sparse(plan: Plan, op: dict[str, Any]) -> bool:
    """Whether the engine multiplies only the entries of a codebook operation (``csrc/model/ops/codebook_op.cpp``)."""
    attrs, y = op["attrs"], plan.activations[op["outputs"][0]]["shape"]
    x, n = plan.activations[op["inputs"][0]], y[-1]
    one_codebook = plan.tensors[op["params"]["codebook"]].ndim == 1
    matrix = op["op"] == "gemm_codebook" or (
        attrs.get("kernel", [1, 1]) == [1, 1] and attrs.get("groups", 1) == 1 and x["shape"][1:3] == y[1:3]
    )
    if "gap_bits" not in attrs or not one_codebook or not matrix or x["dtype"] != "float32":
        return False
    return bool(sparse_pays(int(np.prod(y[1:-1])), n, x["shape"][-1], int(attrs["entries"])))


def coded_weights(plan: Plan, op: dict[str, Any]) -> CodedWeights:
    """The weights of a codebook operation, read back from the plan; int8 ones without their scale.

    Raises:
        lowbit.FormatError: the streams are damaged; names the layer.
    """
    attrs = op.get("attrs", {})
    params = {role: plan.tensors[key] for role, key in op["params"].items()}
    shape, bits, name = weight_shape(plan, op), int(attrs["bits"]), str(op["name"])
    gap_bits = int(attrs.get("gap_bits", 0))
    count = int(attrs["entries"]) if gap_bits else int(np.prod(shape, dtype=np.int64))
    codes = decode_stream(params["weight"], bits, count, bool(attrs.get("huffman", False)), name)
    gaps = None
    if gap_bits:
        if "gaps" not in params:
            raise FormatError(f"layer {name!r}: param 'gaps' is missing")
        gaps = decode_stream(params["gaps"], gap_bits, count, bool(attrs.get("gaps_huffman", False)), name)
    book, group_size = params["codebook"].astype(np.float32), int(attrs.get("group_size", 0))
    return CodedWeights(shape, bits, book, codes, gaps, gap_bits, name, group_size)


def dense_weights(plan: Plan, op: dict[str, Any]) -> Array:
    """The weights of a codebook operation in the plan's order: float32, or int8 to which ``weight_scale`` belongs."""
    if "weight_scale" in op["params"]:
        return coded_weights(plan, op).weights().astype(np.int8)
    return float_weights(plan, op)


def float_weights(plan: Plan, op: dict[str, Any]) -> NDArray[np.float32]:
    """The weights of a codebook operation as float32, in the plan's order."""
    weights = coded_weights(plan, op).weights()
    for role in ("scale", "weight_scale"):
        if role in op["params"]:
            weights *= plan.tensors[op["params"][role]].reshape(-1, *[1] * (weights.ndim - 1))
    return weights
