"""Layers with codebook weights in plans: writing them, and reading their weights back."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowbit._core import FormatError
from lowbit.compression.coded import CodedWeights, code_weights, decode_stream
from lowbit.graph.few_bits import weight_shape
from lowbit.graph.net import Array, Layer
from lowbit.graph.plan import Plan, PlanBuilder
from lowbit.graph.recipe import Recipe
from lowbit.graph.weights import mean_shift, quantize_weights


def write_codebook(
    builder: PlanBuilder, layer: Layer, inputs: list[int], output: int, recipe: Recipe, mean: Array | None = None
) -> None:
    """Write a convolution or product as ``conv2d_codebook`` or ``gemm_codebook``; a residual is added after it.

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
            ("codebook", recipe.bits, recipe.huffman),
            lambda: code_weights(weight, recipe.bits, huffman=recipe.huffman, layer=layer.name),
        )
    clamp = {k: v for k, v in layer.attrs.items() if k in ("min", "max")}
    attrs = {k: v for k, v in layer.attrs.items() if k not in clamp} | {"bits": coded.bits}
    if layer.op == "conv2d":
        attrs["kernel"] = list(weight.shape[1:3])
    streams = coded.streams(recipe.huffman)
    params |= {"codebook": coded.codebook, "weight": streams["codes"].data}
    if streams["codes"].huffman:
        attrs["huffman"] = True
    if coded.sparse:
        attrs |= {"gap_bits": coded.gap_bits, "entries": int(coded.codes.size)}
        params["gaps"] = streams["gaps"].data
        if streams["gaps"].huffman:
            attrs["gaps_huffman"] = True
    if bias is not None:
        params["bias"] = bias
    if len(inputs) == 1:
        builder.op(f"{layer.op}_codebook", inputs, output, attrs | clamp, params, name=layer.name)
        return
    product = builder.tensor(f"{layer.name}.product", "float32", tuple(builder.tensors[output]["shape"]))
    builder.op(f"{layer.op}_codebook", inputs[:1], product, attrs, params, name=layer.name)
    builder.op("binary", [product, inputs[1]], output, {"kind": "add", **clamp})


def is_codebook(op: dict[str, Any]) -> bool:
    """Whether a plan's operation has codebook weights."""
    return str(op["op"]).endswith("_codebook")


def coded_weights(plan: Plan, op: dict[str, Any]) -> CodedWeights:
    """The weights of a codebook operation, read back from the plan.

    Raises:
        lowbit.FormatError: the streams are damaged; names the layer.
    """
    attrs = op.get("attrs", {})
    params = {role: plan.tensors[key] for role, key in op["params"].items()}
    shape, bits, name = weight_shape(plan, op), int(attrs["bits"]), str(op["name"])
    gap_bits = int(attrs.get("gap_bits", 0))
    count = int(attrs["entries"]) if gap_bits else int(np.prod(shape, dtype=np.int64))
    codes = decode_stream(params["weight"], bits, count, bool(attrs.get("huffman", False)), name)
    if not gap_bits:
        return CodedWeights(shape, bits, params["codebook"], codes, layer=name)
    if "gaps" not in params:
        raise FormatError(f"layer {name!r}: param 'gaps' is missing")
    gaps = decode_stream(params["gaps"], gap_bits, count, bool(attrs.get("gaps_huffman", False)), name)
    return CodedWeights(shape, bits, params["codebook"], codes, gaps, gap_bits, name)


def float_weights(plan: Plan, op: dict[str, Any]) -> NDArray[np.float32]:
    """The weights of a codebook operation as float32, in the plan's order."""
    weights = coded_weights(plan, op).weights()
    if "scale" not in op["params"]:
        return weights
    scale: NDArray[np.float32] = plan.tensors[op["params"]["scale"]]
    return weights * scale.reshape(-1, *[1] * (weights.ndim - 1))
