"""Codes of fewer than 8 bits in plans: packed weights, and how many bits the codes of an activation take."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowbit.codebook import pack_indices
from lowbit.compression.coded import decode_stream
from lowbit.graph.net import Array
from lowbit.graph.plan import Plan

_CLAMPS = ("quantize", "conv2d", "gemm", "add", "mul")
_PASSES = ("max_pool", "concat", "reshape", "transpose", "slice", "pad", "resize")


def is_packed(op: dict[str, Any]) -> bool:
    """Whether an 8-bit product of a plan has packed weights."""
    return op["op"] in ("conv2d", "gemm") and "bits" in op.get("attrs", {})


def least_bits(codes: NDArray[np.int8]) -> int:
    """Bits that hold all codes, 2 to 8: what a network trained in few bits brings as int8.

    Example:
        >>> least_bits(np.int8([-4, 3])), least_bits(np.int8([-4, 4]))
        (3, 4)
    """
    lowest, highest = int(codes.min(initial=0)), int(codes.max(initial=0))
    return max(highest.bit_length(), (-lowest - 1).bit_length() if lowest else 0, 1) + 1


def pack_weights(codes: NDArray[np.int8], bits: int) -> NDArray[np.uint8]:
    """Signed codes of ``bits`` bits as the file holds them: code + 2^(bits - 1), dense, lowest bit first.

    Example:
        >>> pack_weights(np.int8([[1, -1], [0, 1]]), 2)
        array([231], dtype=uint8)
    """
    shifted = codes.reshape(-1).astype(np.int16) + (1 << (bits - 1))
    return pack_indices(shifted.astype(np.uint8), bits).data


def weight_shape(plan: Plan, op: dict[str, Any]) -> tuple[int, ...]:
    """Shape of an operation's packed or codebook weights: (oc, kh, kw, c / groups) or (n, k)."""
    attrs = op.get("attrs", {})
    k, n = (int(plan.activations[op[side][0]]["shape"][-1]) for side in ("inputs", "outputs"))
    if op["op"].startswith("gemm"):
        return n, k
    return n, *(int(size) for size in attrs.get("kernel", (1, 1))), k // int(attrs.get("groups", 1))


def weight_codes(plan: Plan, op: dict[str, Any]) -> Array:
    """The weight codes of an 8-bit product, packed or not, in their shape.

    Raises:
        lowbit.FormatError: packed weights of a wrong size; names the layer.
    """
    stored: Array = plan.tensors[op["params"]["weight"]]
    if not is_packed(op):
        return stored
    shape, bits = weight_shape(plan, op), int(op["attrs"]["bits"])
    codes = decode_stream(stored, bits, int(np.prod(shape, dtype=np.int64)), False, str(op["name"]))
    return (codes.astype(np.int16) - (1 << (bits - 1))).astype(np.int8).reshape(shape)


def code_range(plan: Plan, index: int) -> tuple[int, int]:
    """The lowest and highest code that a code tensor of a plan can hold, by what writes it."""
    full = (-128, 127) if plan.activations[index]["dtype"] == "int8" else (0, 255)
    writer = next((op for op in plan.ops if index in op["outputs"]), None)
    if writer is None:
        return full
    if writer["op"] in _CLAMPS:
        attrs = writer.get("attrs", {})
        return int(attrs.get("lo", full[0])), int(attrs.get("hi", full[1]))
    if writer["op"] == "lookup":
        table = plan.tensors[writer["params"]["table"]]
        return int(table.min()), int(table.max())
    if writer["op"] in _PASSES:
        ranges = [code_range(plan, i) for i in writer["inputs"]]
        if writer["op"] == "pad":
            entry, value = plan.activations[index], float(writer.get("attrs", {}).get("value", 0.0))
            code = int(np.clip(np.rint(value / plan.scale(entry)) + entry["zero_point"], *full))
            ranges.append((code, code))
        return min(lo for lo, _ in ranges), max(hi for _, hi in ranges)
    return full


def code_bits(plan: Plan, index: int) -> int:
    """Bits that the codes of a code tensor take, 1 to 8."""
    lo, hi = code_range(plan, index)
    if plan.activations[index]["dtype"] == "uint8":
        return max(hi.bit_length(), 1)
    return max(hi.bit_length(), (-lo - 1).bit_length() if lo < 0 else 0) + 1
