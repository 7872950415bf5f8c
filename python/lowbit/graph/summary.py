"""What a plan consists of: bytes, multiply-accumulates and memory traffic of every operation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from lowbit._core import bitserial_pays
from lowbit.graph.codebook import is_codebook, runs_sparse
from lowbit.graph.few_bits import code_bits, is_packed, weight_shape
from lowbit.graph.net import Array
from lowbit.graph.plan import Plan

_SIZE = {"float32": 4, "int8": 1, "uint8": 1}


@dataclass(frozen=True)
class Row:
    """One operation.

    Attributes:
        layer: canonical name.
        op: the plan's operation.
        weights: precision of the weights (``int8 per channel``, ``bits``), empty where there are none.
        activations: of the first input.
        output: of the output.
        shape: of the output, -1 for the batch.
        bytes: parameters in the file.
        macs: multiply-accumulates for one item.
        moved: bytes read and written for one item, parameters included.
    """

    layer: str
    op: str
    weights: str
    activations: str
    output: str
    shape: tuple[int, ...]
    bytes: int
    macs: int
    moved: int


def _precision(plan: Plan, index: int) -> str:
    """``float32``, ``uint8``, ``uint4`` where codes keep to so few bits, ``uint8 dynamic``."""
    tensor = plan.activations[index]
    dtype = str(tensor["dtype"])
    if tensor.get("dynamic"):
        return f"{dtype} dynamic"
    if dtype == "planes":
        return f"levels {tensor['bits']} bit"
    return dtype.replace("8", str(code_bits(plan, index))) if "scale" in tensor else dtype


def _items(tensor: dict[str, Any]) -> int:
    return int(np.prod(tensor["shape"][1:], dtype=np.int64))


def _bytes(tensor: dict[str, Any]) -> int:
    """Of one item in memory; bits are whole words along the last axis."""
    if tensor["dtype"] in ("bits", "planes"):
        row = tensor["shape"][-1]
        return _items(tensor) // int(row) * ((int(row) + 31) // 32) * 4 * int(tensor.get("bits", 1))
    return _items(tensor) * _SIZE[tensor["dtype"]]


def weight_count(plan: Plan, op: dict[str, Any]) -> int:
    """Weights of a convolution or product, 0 elsewhere."""
    weight = op.get("params", {}).get("weight")
    if weight is None:
        return 0
    if is_codebook(op) or is_packed(op):
        return int(np.prod(weight_shape(plan, op), dtype=np.int64))
    if not on_bits(op):
        return int(plan.tensors[weight].size)
    attrs = op.get("attrs", {})
    k, n = (plan.activations[i]["shape"][-1] for i in (op["inputs"][0], op["outputs"][0]))
    return int(n * k // attrs.get("groups", 1) * np.prod(attrs.get("kernel", [1])))


def on_bits(op: dict[str, Any]) -> bool:
    """Whether an operation multiplies bits."""
    return str(op["op"]).startswith("xnor") or str(op["op"]).endswith("_bitserial")


def runs_on_planes(plan: Plan, op: dict[str, Any]) -> bool:
    """Whether the engine multiplies an operation on planes by planes (``csrc/model/ops/bitserial_op.cpp``)."""
    x, y = (plan.activations[i] for i in (op["inputs"][0], op["outputs"][0]))
    pairs = int(x["bits"]) * len(plan.tensors[op["params"]["weight"]])
    n = int(y["shape"][-1])
    return bitserial_pays(pairs, int(np.prod(y["shape"][1:-1])), n, weight_count(plan, op) // n)


def _kind(plan: Plan, op: dict[str, Any], weight: Array) -> str:
    """The precision of an operation's weights."""
    if op["op"].endswith("_bitserial"):
        return f"levels {len(weight)} bit per channel" + ", runs in float32" * (not runs_on_planes(plan, op))
    if is_packed(op):
        return f"int{op['attrs']['bits']}"
    if is_codebook(op) and "scale" in op["params"]:
        return f"int{op['attrs']['bits']} per channel"
    return "bits" if on_bits(op) else _codebook(plan, op) or str(weight.dtype)


def _codebook(plan: Plan, op: dict[str, Any]) -> str:
    """``codebook 4 bit per channel, int8, runs sparse, huffman``; empty for other operations.

    ``sparse`` is a layer that lies in the file with gaps and runs dense, ``runs sparse`` one that is multiplied so.
    """
    if not is_codebook(op):
        return ""
    attrs, book = op["attrs"], plan.tensors[op["params"]["codebook"]]
    per = f" per {attrs['group_size']} columns" if "group_size" in attrs else " per channel" * (book.ndim == 2)
    parts = [f"codebook {attrs['bits']} bit{per}"]
    parts += ["int8"] * (book.dtype == np.int8) + ["huffman"] * ("huffman" in attrs)
    if "gap_bits" in attrs:
        parts.append("runs sparse" if runs_sparse(plan, op) else "sparse")
    return ", ".join(parts)


def rows(plan: Plan) -> list[Row]:
    """One row for every operation, in order."""
    out = []
    for op in plan.ops:
        inputs = [plan.activations[i] for i in op["inputs"]]
        outputs = [plan.activations[i] for i in op["outputs"]]
        output = outputs[0]
        params = {role: plan.tensors[key] for role, key in op.get("params", {}).items()}
        size = sum(int(a.nbytes) for a in params.values())
        weight = params.get("weight")
        kind, macs = "", 0
        if weight is not None:
            kind = _kind(plan, op, weight)
            scale = params.get("weight_scale", params.get("scale"))
            if scale is not None and scale.size > 1 and not is_codebook(op):
                kind += " per channel"
            macs = weight_count(plan, op) * (_items(output) // output["shape"][-1])
        moved = size + sum(_bytes(t) for t in (*inputs, *outputs))
        out.append(
            Row(
                op["name"],
                op["op"],
                kind,
                _precision(plan, op["inputs"][0]),
                " + ".join(_precision(plan, i) for i in op["outputs"]),
                tuple(output["shape"]),
                size,
                macs,
                moved,
            )
        )
    return out


def _short(n: int) -> str:
    for unit in ("", "k", "M"):
        if n < 10_000:
            return f"{n}{unit}"
        n = round(n / 1000)
    return f"{n}G"


def table(all_rows: list[Row]) -> str:
    """The rows as text, with a line of totals."""
    head = ["layer", "op", "weights", "activations", "output", "shape", "bytes", "MACs", "moved"]
    lines = [
        [
            r.layer,
            r.op,
            r.weights,
            r.activations,
            r.output,
            "x".join(map(str, r.shape[1:])),
            _short(r.bytes),
            _short(r.macs),
            _short(r.moved),
        ]
        for r in all_rows
    ]
    totals = [sum(r.bytes for r in all_rows), sum(r.macs for r in all_rows), sum(r.moved for r in all_rows)]
    lines.append(["total", "", "", "", "", "", *(_short(t) for t in totals)])
    widths = [max(len(line[i]) for line in (head, *lines)) for i in range(len(head))]

    def text(line: list[str]) -> str:
        cells = [c.ljust(w) if i < 6 else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True))]
        return "  ".join(cells).rstrip()

    rule = "-" * len(text(["-" * w for w in widths]))
    return "\n".join([text(head), rule, *(text(line) for line in lines[:-1]), rule, text(lines[-1])])
