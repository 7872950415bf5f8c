"""What an operation's time depends on: kind, attributes, shapes and types, but no value and no name."""

from __future__ import annotations

from typing import Any

from lowbit.graph.few_bits import is_packed, weight_shape
from lowbit.graph.plan import Plan

# Bounds of a clamp are values; how a file codes weights is undone when it is loaded.
_NO_MATTER = ("min", "max", "lo", "hi", "alpha", "beta", "value", "huffman", "gaps_huffman", "weight_zero_point")
_STREAMS = ("weight", "gaps")
_FLOAT = ("_f32", "_codebook")
COLD = " after float"


def signatures(plan: Plan) -> list[str]:
    """The key of every operation of a plan.

    A product on codes that follows one in float takes up to 40 % longer than one that follows its like, whose working
    memory is still warm (ResNet-20's layers of 3 to 8 microseconds), so it is another key. Float products do not care.
    """
    keys, before = [], ""
    for op in plan.ops:
        key = signature(plan, op)
        if "weight" in op.get("params", {}):
            if before.endswith(_FLOAT) and not op["op"].endswith(_FLOAT):
                key += COLD
            before = str(op["op"])
        keys.append(key)
    return keys


def signature(plan: Plan, op: dict[str, Any]) -> str:
    """A key that two operations share if and only if the engine does the same work for both.

    Pruned codebook layers count as alike where their numbers of entries differ by less than a twentieth of the weights.

    Example:
        >>> from lowbit.graph.plan import PlanBuilder
        >>> builder = PlanBuilder()
        >>> x, y = (builder.tensor(n, "float32", (-1, 3)) for n in "xy")
        >>> builder.op("unary", [x], y, {"kind": "relu"})
        >>> signature(builder.finish([x], [y]), builder.ops[0])
        'unary kind=relu (float32 3) -> (float32 3)'
    """
    attrs = dict(op.get("attrs", {}))
    coded = str(op["op"]).endswith("_codebook")
    if is_packed(op):  # unpacked when the file is loaded: the engine then runs 8 bits
        attrs = {key: value for key, value in attrs.items() if key not in ("bits", "kernel")}
    if "entries" in attrs:
        sizes = [plan.activations[op[side][0]]["shape"][-1] for side in ("inputs", "outputs")]
        weights = sizes[0] * sizes[1] // attrs.get("groups", 1)
        for size in attrs.get("kernel", (1, 1)):
            weights *= size
        attrs["entries"] = f"{round(20 * attrs['entries'] / weights) * 5}%"
    words = [str(op["op"])]
    words += [f"{key}={_short(attrs[key])}" for key in sorted(attrs) if key not in _NO_MATTER]
    words += [_tensor(plan, i) for i in op["inputs"]]
    for role, key in sorted(op.get("params", {}).items()):
        array = plan.tensors[key]
        dtype, shape = str(array.dtype), array.shape
        if is_packed(op) and role == "weight":
            dtype, shape = "int8", weight_shape(plan, op)
        known = "" if coded and role in (*_STREAMS, "codebook") else " " + "x".join(map(str, shape))
        words.append(f"{role}:{dtype}{known}")
    words += ["->", *(_tensor(plan, i) for i in op["outputs"])]
    return " ".join(words)


def _tensor(plan: Plan, index: int) -> str:
    tensor = plan.activations[index]
    kind = tensor["dtype"] + ("*" if tensor.get("dynamic") else "")
    return f"({kind} {'x'.join(map(str, tensor['shape'][1:]))})"


def _short(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
