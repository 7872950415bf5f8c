"""ONNX to Net: one walk over the nodes, constants folded on the way, one rule per operator.

The rules live in ``rules_*.py`` and are registered with ``@rule``. A value is a NumPy array where it is known, a Tensor
where it depends on the network's input.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lowbit.graph.constants import BATCH_MARK, evaluate
from lowbit.graph.net import (
    BATCH,
    NHWC,
    Array,
    Codes,
    Layer,
    Net,
    Perm,
    Shape,
    Tensor,
    UnsupportedError,
    inverse,
    significant,
)

Rule = Callable[["Importer", "Node"], None]
_RULES: dict[tuple[str, str], Rule] = {}


def rule(*ops: str, domain: str = "") -> Callable[[Rule], Rule]:
    """Register a function as the rule of ONNX operators."""

    def register(function: Rule) -> Rule:
        for op in ops:
            _RULES[(domain, op)] = function
        return function

    return register


@dataclass
class Node:
    """An ONNX node, its attributes read."""

    proto: Any
    op: str
    domain: str
    name: str
    inputs: list[str]
    outputs: list[str]
    attrs: dict[str, Any]

    def __str__(self) -> str:
        return f"node {self.name or self.outputs[0]!r} ({self.op})"

    def unsupported(self, why: str) -> UnsupportedError:
        """The error that names this node."""
        return UnsupportedError(f"{self}: {why}")


@dataclass
class Importer:
    """What the rules work on."""

    opsets: dict[str, int]
    exported_batch: int | None = None
    values: dict[str, Tensor | Array] = field(default_factory=dict)
    codes: dict[str, Codes] = field(default_factory=dict)  # constants that were dequantized: their codes, in ONNX order
    origins: dict[str, str] = field(default_factory=dict)  # constants that were dequantized: what held their codes
    bases: dict[str, Array] = field(default_factory=dict)  # constants in levels: (oc, W), a basis per output channel
    layers: list[Layer] = field(default_factory=list)
    quantized: bool = False
    _converted: dict[tuple[Tensor, Perm], Tensor] = field(default_factory=dict)

    @property
    def opset(self) -> int:
        """Version of the default operator set."""
        return self.opsets.get("", 1)

    # Reading inputs ---------------------------------------------------------------------------------------------------

    def has(self, node: Node, i: int) -> bool:
        """Whether input i is given."""
        return i < len(node.inputs) and bool(node.inputs[i])

    def parameter_name(self, node: Node, i: int) -> str:
        """The name of input i where it comes from: of its codes, if it was dequantized."""
        return self.origins.get(node.inputs[i], node.inputs[i])

    def value(self, node: Node, i: int) -> Tensor | Array:
        """Input i, known or not."""
        if not self.has(node, i):
            raise node.unsupported(f"input {i} is missing")
        return self.values[node.inputs[i]]

    def tensor(self, node: Node, i: int = 0) -> Tensor:
        """Input i, which must be an activation."""
        v = self.value(node, i)
        if not isinstance(v, Tensor):
            raise node.unsupported(
                f"input {i} ({node.inputs[i]!r}) is a constant; only activations are supported there"
            )
        return v

    def constant(self, node: Node, i: int) -> Array:
        """Input i, which must be known."""
        v = self.value(node, i)
        if isinstance(v, Tensor):
            raise node.unsupported(
                f"input {i} ({node.inputs[i]!r}) depends on the network's input; only constants are supported there"
            )
        return v

    def optional(self, node: Node, i: int) -> Array | None:
        """Input i if given, which must then be known."""
        return self.constant(node, i) if self.has(node, i) else None

    def axes(self, node: Node, i: int, attr: str = "axes") -> list[int] | None:
        """Axes from an attribute (older opsets) or input i (newer)."""
        if attr in node.attrs:
            return [int(a) for a in node.attrs[attr]]
        given = self.optional(node, i)
        return None if given is None else [int(a) for a in np.ravel(given)]

    # Writing layers ---------------------------------------------------------------------------------------------------

    def emit(
        self,
        node: Node,
        op: str,
        inputs: Sequence[Tensor],
        shape: Sequence[int],
        perm: Perm | None = None,
        name: str | None = None,
        **attrs: Any,
    ) -> Layer:
        """Append a layer whose output has the stored ``shape`` and stands for ONNX tensor ``name`` (the node's)."""
        shape = tuple(int(s) for s in shape)
        if any(s < 1 for s in shape[1:]) or shape[0] != BATCH:
            raise node.unsupported(
                f"the result would have shape {shape}; every axis but the batch needs a positive size"
            )
        out = Tensor(node.outputs[0] if name is None else name, shape, perm or tuple(range(len(shape))))
        layer = Layer(op, list(inputs), out, attrs, onnx_op=node.op, node_name=node.name)
        self.layers.append(layer)
        return layer

    def set(self, node: Node, value: Tensor | Array, i: int = 0) -> None:
        """Make ``value`` the node's output i."""
        self.values[node.outputs[i]] = value

    def alias(self, node: Node, t: Tensor) -> None:
        """The node changes nothing but how the axes are read."""
        self.values[node.outputs[0]] = t

    # Order in memory --------------------------------------------------------------------------------------------------

    def to_perm(self, t: Tensor, perm: Perm) -> Tensor:
        """The same tensor with stored axis i = ONNX axis perm[i]."""
        if t.flat is not None:
            t = self._unflatten(t)
        if t.perm == perm:
            return t
        key = (t, perm)
        if key not in self._converted:
            shape = t.onnx_shape
            out = Tensor(t.name, tuple(shape[p] for p in perm), perm, fixed=t.fixed)
            if significant(t.perm, shape) == significant(perm, shape):
                layer = Layer("reshape", [t], out)
            else:
                where = inverse(t.perm)
                layer = Layer("transpose", [t], out, {"perm": [where[p] for p in perm]})
            layer.onnx_op = "Transpose"
            self.layers.append(layer)
            self._converted[key] = out
        return self._converted[key]

    def nhwc(self, node: Node, t: Tensor) -> Tensor:
        """A 4-d tensor with the channels last."""
        if t.rank != 4:
            raise node.unsupported(f"its input has {t.rank} axes; only 4 (2-d images) are supported")
        return self.to_perm(t, NHWC)

    def plain(self, t: Tensor) -> Tensor:
        """The tensor in the ONNX tensor's own order."""
        return t if t.is_plain else self.to_perm(t, tuple(range(t.rank)))

    def _unflatten(self, t: Tensor) -> Tensor:
        """(n, h*w*c) back to (n, c*h*w)."""
        assert t.flat is not None
        key = (t, (0, 1))
        if key not in self._converted:
            h, w, c = t.flat
            image = Tensor(t.name, (BATCH, h, w, c), (0, 1, 2, 3), fixed=t.fixed)
            turned = Tensor(t.name, (BATCH, c, h, w), (0, 1, 2, 3), fixed=t.fixed)
            out = Tensor(t.name, t.shape, (0, 1), fixed=t.fixed)
            self.layers += [
                Layer("reshape", [t], image, onnx_op="Reshape"),
                Layer("transpose", [image], turned, {"perm": [0, 3, 1, 2]}, onnx_op="Transpose"),
                Layer("reshape", [turned], out, onnx_op="Reshape"),
            ]
            self._converted[key] = out
        return self._converted[key]


def attributes(proto: Any) -> dict[str, Any]:
    """A node's attributes as Python values, tensors as arrays."""
    import onnx

    out: dict[str, Any] = {}
    for a in proto.attribute:
        value = onnx.helper.get_attribute_value(a)
        if isinstance(value, onnx.TensorProto):
            value = onnx.numpy_helper.to_array(value)
        elif isinstance(value, bytes):
            value = value.decode()
        out[a.name] = value
    return out


def _input_shape(info: Any, given: Mapping[str, Sequence[int | None]]) -> tuple[list[int], int | None]:
    """Shape of a network input with -1 for the batch, and the batch it was exported with where that is fixed."""
    dims = [d.dim_value if d.HasField("dim_value") else None for d in info.type.tensor_type.shape.dim]
    if not dims:
        raise UnsupportedError(f"input {info.name!r} has no shape or no axes; the first axis must be the batch")
    batch = dims[0] if dims[0] else None
    if info.name in given:
        wanted = list(given[info.name])
        if len(wanted) == len(dims) - 1:
            wanted = [None, *wanted]
        if len(wanted) != len(dims):
            raise ValueError(f"input_shapes: {info.name!r} has {len(dims)} axes in the file, {len(wanted)} were given")
        for i, (d, w) in enumerate(zip(dims[1:], wanted[1:], strict=True), start=1):
            if d and w and d != w:
                raise ValueError(f"input_shapes: axis {i} of {info.name!r} is {d} in the file, {w} was given")
            dims[i] = w or d
    missing = [i for i, d in enumerate(dims) if i and not d]
    if missing:
        raise UnsupportedError(
            f"input {info.name!r}: axis {missing[0]} has no fixed size; give input_shapes={{{info.name!r}: (...)}} "
            "(only the batch may stay open)"
        )
    return [BATCH, *(int(d) for d in dims[1:] if d)], batch


def import_onnx(model: Any, input_shapes: Mapping[str, Sequence[int | None]] | None = None) -> Net:
    """Read an ONNX model into float layers.

    Args:
        model: a ModelProto.
        input_shapes: sizes of axes that the file leaves open, per input, with or without the batch.

    Returns:
        Net with NHWC images, constants folded, no fusion done yet.

    Raises:
        UnsupportedError: naming the node, its operator and what could be done.
    """
    import onnx

    from lowbit.graph import (  # noqa: F401
        rules_binary,
        rules_elementwise,
        rules_levels,
        rules_mac,
        rules_quantized,
        rules_shape,
        rules_window,
    )

    shapes = dict(input_shapes or {})
    graph = model.graph
    ctx = Importer({o.domain if o.domain != "ai.onnx" else "": o.version for o in model.opset_import})
    if ctx.opset < 11:
        raise UnsupportedError(f"opset {ctx.opset}: 11 is the oldest supported; onnx.version_converter can raise it")
    initializers = {i.name: onnx.numpy_helper.to_array(i) for i in graph.initializer}
    ctx.values.update(initializers)
    inputs = []
    known = {i.name for i in graph.input if i.name not in initializers}
    for name in shapes:
        if name not in known:
            raise ValueError(f"input_shapes: the network has no input {name!r}; it has {', '.join(sorted(known))}")
    for info in graph.input:
        if info.name in initializers:
            continue
        shape, batch = _input_shape(info, shapes)
        ctx.exported_batch = batch if ctx.exported_batch is None else ctx.exported_batch
        t = Tensor(info.name, tuple(shape), tuple(range(len(shape))))
        ctx.values[info.name] = t
        inputs.append((info.name, t))
    for proto in graph.node:
        _walk(ctx, proto)
    outputs = []
    for info in graph.output:
        v = ctx.values[info.name]
        if not isinstance(v, Tensor):
            raise UnsupportedError(f"output {info.name!r} does not depend on the input")
        outputs.append((info.name, ctx.plain(v)))
    net = Net(ctx.layers, inputs, outputs, ctx.quantized)
    net.drop_dead()
    return net


def _walk(ctx: Importer, proto: Any) -> None:
    domain = "" if proto.domain == "ai.onnx" else proto.domain
    node = Node(proto, proto.op_type, domain, proto.name, list(proto.input), list(proto.output), attributes(proto))
    for name in node.inputs:
        if name and name not in ctx.values:
            raise node.unsupported(f"input {name!r} is not defined; the file is broken")
    values = [ctx.values[n] if n else None for n in node.inputs]
    function = _RULES.get((node.domain, node.op))
    if node.op == "DequantizeLinear" and function:  # keeps the codes of constants
        function(ctx, node)
        return
    if node.domain == "" and node.op not in ("Shape", "Size") and not any(isinstance(v, Tensor) for v in values):
        known = [v for v in values if not isinstance(v, Tensor)]
        if node.op == "ConstantOfShape" and known[0] is not None and BATCH_MARK in known[0]:
            known[0] = np.ones_like(known[0])  # ones_like(x): one number, whatever the batch
        for name, array in zip(node.outputs, evaluate(proto, known, ctx.opsets), strict=True):
            if name:
                ctx.values[name] = array
        return
    if function is None:
        raise node.unsupported(
            f"operator {node.domain + '.' if node.domain else ''}{node.op} is not supported; replace it in the "
            f"network, or cut "
            "the file there (onnx.utils.extract_model) and run that part elsewhere"
        )
    function(ctx, node)


def marked(shape: Shape) -> Array:
    """A shape as shape arithmetic sees it, the batch as ``BATCH_MARK``."""
    return np.array([BATCH_MARK if s == BATCH else s for s in shape], dtype=np.int64)
