"""The imported network: layers in the plan's vocabulary, still in float, before any precision is assigned.

Every tensor remembers which ONNX tensor it stands for and how its stored axes are permuted against that tensor's, so
that a
Transpose costs nothing until someone needs the other order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Perm = tuple[int, ...]
Shape = tuple[int, ...]
Made = TypeVar("Made")

BATCH = -1
NHWC: Perm = (0, 2, 3, 1)


class UnsupportedError(ValueError):
    """A network uses something that has no rule here; the message names node, operator and what could be done.

    Example:
        >>> import lowbit
        >>> from onnx import TensorProto, helper
        >>> x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", 2]) for n in "xy")
        >>> graph = helper.make_graph([helper.make_node("Erf", ["x"], ["y"], name="gelu")], "g", [x], [y])
        >>> net = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
        >>> lowbit.convert(net, recipe="float32")
        Traceback (most recent call last):
        ...
        lowbit.graph.net.UnsupportedError: node 'gelu' (Erf): operator Erf is not supported; ...
    """


@dataclass(frozen=True)
class FixedCodes:
    """Scale and zero point that a file brought with it (QuantizeLinear and the like)."""

    scale: float
    zero_point: int
    dtype: str


@dataclass(eq=False)
class Tensor:
    """An activation. ``shape`` is in stored order, stored axis i is ONNX axis ``perm[i]``; ``shape[0]`` is the batch,
    -1.

    ``flat`` marks a 2-d tensor that stands for a flattened NCHW tensor but is stored in (h, w, c) order: it holds (h,
    w, c).
    """

    name: str
    shape: Shape
    perm: Perm
    flat: tuple[int, int, int] | None = None
    fixed: FixedCodes | None = None

    @property
    def rank(self) -> int:
        """Number of axes, the batch included."""
        return len(self.shape)

    @property
    def onnx_shape(self) -> Shape:
        """The shape in the ONNX tensor's axis order."""
        out = [0] * self.rank
        for size, axis in zip(self.shape, self.perm, strict=True):
            out[axis] = size
        return tuple(out)

    @property
    def items(self) -> int:
        """Elements of one item of the batch."""
        return int(np.prod(self.shape[1:], dtype=np.int64))

    @property
    def is_plain(self) -> bool:
        """Whether memory order is the ONNX tensor's."""
        return self.flat is None and self.perm == tuple(range(self.rank))


@dataclass
class Codes:
    """Weights that came quantized: the codes in the layer's own order, scale (1) or (oc), zero point (one number)."""

    codes: Array
    scale: NDArray[np.float32]
    zero_point: int


@dataclass(eq=False)
class Layer:
    """One operation with one output. ``op`` is a plan operation in its float sense.

    conv2d, gemm, binary, unary, prelu, max_pool, average_pool, concat, resize, softmax, transpose, reshape, slice,
    pad, ``identity``, which changes nothing but may change the scale of codes, ``step``, which gives param ``high``
    where x >= param ``threshold``, else ``low`` (each (1) or (c)), and ``levels``, which gives the level of param
    ``basis`` (A,) in whose interval x lies (see ``lowbit.lq``). conv2d, gemm and binary carry ``min`` and ``max``
    attributes where a clamp was fused; further inputs of conv2d or gemm are the fused residual and, where attribute
    ``input_scale`` says so, last, a map (one value per row or pixel) that multiplies the sums before the bias.
    """

    op: str
    inputs: list[Tensor]
    output: Tensor
    attrs: dict[str, Any] = field(default_factory=dict)
    params: dict[str, Array] = field(default_factory=dict)
    onnx_op: str = ""
    node_name: str = ""
    weight_name: str = ""
    name: str = ""
    codes: Codes | None = None
    basis: Array | None = None  # (oc, W): weights are sums of +-1 times these
    memo: dict[Any, Any] = field(default_factory=dict, repr=False)

    def remembered(self, key: Any, make: Callable[[], Made]) -> Made:
        """What ``make`` gives, made once for each key: weights in some precision, for those who lower a net often."""
        if key not in self.memo:
            self.memo[key] = make()
        made: Made = self.memo[key]
        return made

    @property
    def is_mac(self) -> bool:
        """Whether this is a convolution or a matrix product."""
        return self.op in ("conv2d", "gemm")

    @property
    def scale_map(self) -> Tensor | None:
        """What multiplies a product's sums, one value per row or pixel."""
        return self.inputs[-1] if self.attrs.get("input_scale") else None

    @property
    def residual(self) -> Tensor | None:
        """What is added to a product's result."""
        return self.inputs[1] if len(self.inputs) - bool(self.attrs.get("input_scale")) > 1 else None

    def macs(self) -> int:
        """Multiply-accumulates for one item."""
        if not self.is_mac:
            return 0
        weight = self.params["weight"]
        return int(weight.size) * (self.output.items // self.output.shape[-1])


@dataclass
class Net:
    """Layers in execution order, with the network's inputs and outputs by name."""

    layers: list[Layer]
    inputs: list[tuple[str, Tensor]]
    outputs: list[tuple[str, Tensor]]
    quantized: bool = False  # the file brought its own scales

    def consumers(self) -> dict[Tensor, list[Layer]]:
        """Which layers read each tensor; a layer that reads it twice stands twice."""
        out: dict[Tensor, list[Layer]] = {}
        for layer in self.layers:
            for t in layer.inputs:
                out.setdefault(t, []).append(layer)
        return out

    def producers(self) -> dict[Tensor, Layer]:
        """Which layer writes each tensor."""
        return {layer.output: layer for layer in self.layers}

    def output_tensors(self) -> set[Tensor]:
        """The tensors that leave the network."""
        return {t for _, t in self.outputs}

    def redirect(self, old: Tensor, new: Tensor) -> None:
        """Let every reader of ``old`` read ``new``."""
        for layer in self.layers:
            layer.inputs = [new if t is old else t for t in layer.inputs]
        self.outputs = [(n, new if t is old else t) for n, t in self.outputs]

    def drop_dead(self) -> None:
        """Remove layers that reach no output."""
        live = self.output_tensors()
        kept = []
        for layer in reversed(self.layers):
            if layer.output in live:
                live.update(layer.inputs)
                kept.append(layer)
        self.layers = kept[::-1]


def inverse(perm: Sequence[int]) -> Perm:
    """The permutation that undoes ``perm``."""
    out = [0] * len(perm)
    for i, p in enumerate(perm):
        out[p] = i
    return tuple(out)


def significant(perm: Iterable[int], onnx_shape: Shape) -> Perm:
    """The axes of ``perm`` whose size is not 1: two permutations that agree here share a memory order."""
    return tuple(p for p in perm if onnx_shape[p] != 1)
