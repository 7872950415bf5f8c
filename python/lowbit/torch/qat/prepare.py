"""A float network prepared for quantization-aware training: where values become codes, and which layers fold."""

import copy
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F

from lowbit.torch.qat.fake_quantize import FakeQuantize
from lowbit.torch.qat.folding import QatConv2d, QatLayer, QatLinear

# What a node does, told by its module's type, its function or its method's name.
_ADD = (operator.add, operator.iadd, torch.add, "add", "add_")
_CLAMP = (
    nn.ReLU, nn.ReLU6, nn.Hardtanh, F.relu, F.relu_, F.relu6, F.hardtanh, torch.relu, torch.relu_, torch.clamp,
    "relu", "relu_", "clamp", "clamp_",
)  # fmt: skip
_PASSING = (
    nn.MaxPool2d, nn.Flatten, nn.Identity, nn.Dropout, nn.Dropout2d, nn.ZeroPad2d, nn.AdaptiveMaxPool2d,
    F.max_pool2d, F.pad, F.dropout, torch.flatten, torch.reshape, torch.permute, torch.transpose, torch.squeeze,
    operator.getitem, "view", "reshape", "flatten", "permute", "transpose", "squeeze", "contiguous",
)  # fmt: skip
_OTHER = (
    nn.BatchNorm1d, nn.BatchNorm2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.Sigmoid, nn.SiLU, nn.Hardswish,
    nn.Hardsigmoid, nn.Tanh, nn.LeakyReLU, nn.Upsample, operator.mul, operator.imul, torch.mul, torch.mean, torch.cat,
    torch.concat, torch.sigmoid, torch.tanh, F.avg_pool2d, F.adaptive_avg_pool2d, F.silu, F.hardswish, F.hardsigmoid,
    F.leaky_relu, F.interpolate, "mean", "mul", "mul_", "sigmoid", "tanh",
)  # fmt: skip


def prepare_qat(
    model: nn.Module,
    *,
    weight_bits: int = 8,
    activation_bits: int = 8,
    per_channel: bool = True,
    symmetric_weights: bool = True,
    overrides: Mapping[str, Mapping[str, int]] | None = None,
    decay: float = 0.999,
    delay: int = 0,
    freeze_delay: int | None = None,
) -> fx.GraphModule:
    """A copy of a network whose training feels what int8 inference will do to it.

    Values are fake-quantized where the integer kernels narrow: the input, after a layer's activation, after a
    residual sum and its activation, after pooling that averages. What a kernel keeps in 32 bits stays float: a
    convolution before its ReLU or residual sum, biases, the last layer's result. Batch normalisations after
    convolutions and products are folded into them (:class:`QatLayer`). Parameters are those of the model's own
    layers, under new names where they were folded.

    Train it (start from trained float weights, at a small rate), then ``lowbit.convert(net, "int8-affine",
    example=x)`` gives the integer-only model whose weights, scales and zero points are exactly those trained.

    Args:
        model: traceable by ``torch.fx``: no control flow that depends on values. Unchanged.
        weight_bits: 2 to 8.
        activation_bits: 2 to 8; the input always has 8.
        per_channel: a weight scale per output channel, else one per layer.
        symmetric_weights: codes -127..127 around 0; else uint8 1..255 with a zero point, one for the layer.
        overrides: pattern (``re.fullmatch`` on the layers' names) -> ``weight_bits`` and ``activation_bits`` of these
            layers: of their weights, and of the values that come out of them.
        decay: of the moving averages of activations' ranges.
        delay: training steps before activations are quantized; the paper waits 50,000 or more from random weights,
            none are needed from trained ones.
        freeze_delay: training steps before the folded normalisations freeze; None: when
            :func:`freeze_batch_norm` says so.

    Returns:
        The network, in training mode.

    Raises:
        ValueError: a network that cannot be traced, without a convolution or product, one that calls a normalised
            layer twice, a pattern that matches nothing, a range of bits; named.

    Source: Jacob et al. 2018 (arXiv 1712.05877), section 3.

    Example:
        >>> import torch
        >>> from lowbit.torch import prepare_qat
        >>> parts = torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU(), torch.nn.Conv2d(4, 2, 1)
        >>> net = prepare_qat(torch.nn.Sequential(*parts))
        >>> [name for name, m in net.named_modules() if type(m).__name__ in ("FakeQuantize", "QatConv2d")]
        ['0', '0.quantizer', '3', '3.quantizer', 'input_1_quantizer', '2_quantizer']
    """
    if per_channel and not symmetric_weights:
        raise ValueError("prepare_qat: asymmetric weights have one zero point: per_channel=False")
    try:
        traced = fx.symbolic_trace(copy.deepcopy(model))
    except Exception as error:
        raise ValueError(f"prepare_qat: torch.fx cannot trace {type(model).__name__}: {error}") from error
    bits = _Bits(overrides or {}, weight_bits, activation_bits)

    def value_quantizer(name: str, bits: int = 8) -> FakeQuantize:
        return FakeQuantize(bits, decay=decay, delay=delay, name=name)

    def weight_quantizer(name: str) -> FakeQuantize:
        return FakeQuantize(
            bits.of(name)[0],
            symmetric=symmetric_weights,
            narrow_range=not symmetric_weights,
            axis=0 if per_channel else None,
            weight=True,
            name=name,
        )

    _fold(traced, weight_quantizer, freeze_delay)
    graph = _Graph(traced)
    for node in list(traced.graph.nodes):
        if node.op == "placeholder" and node.users:
            _insert(traced, node, value_quantizer(f"{node.name} (the input)"))
        elif graph.narrows(node):
            name = graph.name(node)
            quantizer = value_quantizer(f"{name} (its values)", bits.of(name)[1])
            quantizer.follows_clamp = graph.kind(node) in ("product", "add", "clamp")
            _insert(traced, node, quantizer)
    bits.check()
    traced.graph.lint()
    traced.recompile()
    return traced.train()


class _Bits:
    """Overrides, and which of them were of use."""

    def __init__(self, overrides: Mapping[str, Mapping[str, int]], weight: int, activation: int):
        self.overrides, self.default, self.used = overrides, (weight, activation), set[str]()
        self.names: list[str] = []
        for pattern, chosen in overrides.items():
            if unknown := set(chosen) - {"weight_bits", "activation_bits"}:
                raise ValueError(f"prepare_qat: {pattern!r}: unknown key {min(unknown)!r}")

    def of(self, name: str) -> tuple[int, int]:
        self.names.append(name)
        for pattern, chosen in self.overrides.items():
            if re.fullmatch(pattern, name):
                self.used.add(pattern)
                weight, activation = self.default
                return chosen.get("weight_bits", weight), chosen.get("activation_bits", activation)
        return self.default

    def check(self) -> None:
        for pattern in self.overrides:
            if pattern not in self.used:
                raise ValueError(f"prepare_qat: {pattern!r} matches no layer; they are {', '.join(self.names)}")


def _fold(traced: fx.GraphModule, quantizer: Callable[[str], FakeQuantize], freeze_delay: int | None) -> None:
    """Convolutions and products become their QAT forms, with the normalisation that alone reads them."""
    modules = dict(traced.named_modules())
    calls: dict[str, list[fx.Node]] = {}
    for node in traced.graph.nodes:
        if node.op == "call_module":
            calls.setdefault(str(node.target), []).append(node)
    found = False
    for name, nodes in calls.items():
        layer = modules[name]
        if type(layer) not in (nn.Conv2d, nn.Linear):
            continue
        found = True
        readers = [user for node in nodes for user in node.users]
        norms = [r for r in readers if r.op == "call_module" and isinstance(modules[str(r.target)], _NORMS)]
        norm = None
        if norms:
            if len(readers) > 1 or len(calls[str(norms[0].target)]) > 1:
                raise ValueError(f"prepare_qat: {name} or its batch normalisation has several readers; it cannot fold")
            norm = modules[str(norms[0].target)]
            norms[0].replace_all_uses_with(nodes[0])
            traced.graph.erase_node(norms[0])
        kind = QatConv2d if isinstance(layer, nn.Conv2d) else QatLinear
        _set(traced, name, kind.of_layer(layer, norm, quantizer(name), freeze_delay))
    traced.delete_all_unused_submodules()
    if not found:
        raise ValueError(f"prepare_qat: {traced._get_name()} calls no nn.Conv2d or nn.Linear")


_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


def _set(traced: fx.GraphModule, name: str, module: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(traced.get_submodule(parent), last, module)


def _insert(traced: fx.GraphModule, node: fx.Node, quantizer: FakeQuantize) -> None:
    target = f"{node.target if node.op == 'call_module' else node.name}_quantizer"
    while hasattr(traced, target):  # a module that is called twice
        target += "_"
    traced.add_submodule(target, quantizer)
    with traced.graph.inserting_after(node):
        new = traced.graph.call_module(target, (node,))
    node.replace_all_uses_with(new, delete_user_cb=lambda user: user is not new)


class _Graph:
    """What each node does, and where its result becomes codes."""

    def __init__(self, traced: fx.GraphModule):
        self.modules = dict(traced.named_modules())
        self.order = {node: i for i, node in enumerate(traced.graph.nodes)}
        self.fused = {m for node in traced.graph.nodes if self.kind(node) == "add" and (m := self._fused_into(node))}

    def name(self, node: fx.Node) -> str:
        return str(node.target) if node.op == "call_module" else node.name

    def kind(self, node: Any) -> str | None:
        """product, add, clamp, passing, other; None for what has no values of a layer (sizes, unknown functions)."""
        if not isinstance(node, fx.Node) or node.op not in ("call_module", "call_function", "call_method"):
            return None
        what: Any = node.target
        if node.op == "call_module":
            module = self.modules[str(node.target)]
            if isinstance(module, QatLayer):
                return "product"
            what = type(module)
        if what in _ADD:
            return "add" if len(self._operands(node)) == 2 else "other"
        for kind, members in (("clamp", _CLAMP), ("passing", _PASSING), ("other", _OTHER)):
            if what in members:
                return kind
        return None

    def _operands(self, node: fx.Node) -> list[fx.Node]:
        return [a for a in node.args[:2] if isinstance(a, fx.Node)]

    def _fused_into(self, add: fx.Node) -> fx.Node | None:
        """The product that takes the sum into its epilogue: the last one that only the sum reads."""
        free = [a for a in self._operands(add) if self.kind(a) == "product" and len(a.users) == 1]
        return max(free, key=self.order.__getitem__, default=None)

    def narrows(self, node: fx.Node) -> bool:
        kind = self.kind(node)
        if kind in (None, "passing") or node in self.fused or not self._read_by_a_layer(node):
            return False
        readers = list(node.users)
        clamped = kind in ("product", "add") and len(readers) == 1 and self.kind(readers[0]) == "clamp"
        return not clamped

    def _read_by_a_layer(self, node: fx.Node) -> bool:
        return any(
            self._read_by_a_layer(user) if self.kind(user) == "passing" else self.kind(user) is not None
            for user in node.users
        )
