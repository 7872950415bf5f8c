"""Canonical layer names: the module path where the file tells it, ``conv_0`` where it does not."""

from __future__ import annotations

import re
from collections import Counter

from lowbit.graph.net import Layer

_WEIGHT = re.compile(r"(.+?)[./](weight|kernel|W|w|weights|ReadVariableOp)(:0)?$")


def module_path(path: str) -> str:
    """A torch exporter's scope, joined: each part repeats the prefix of the one before.

    Example:
        >>> module_path("features/features.1/conv/conv.0/conv.0.0")
        'features.1.conv.0.0'
        >>> module_path("fire2/squeeze1x1")
        'fire2.squeeze1x1'
    """
    parts: list[str] = []
    for part in path.strip("/").split("/"):
        if parts and part.startswith(parts[-1] + "."):
            parts[-1] = part
        elif part:
            parts.append(part)
    return ".".join(parts)


def _from_weight(name: str) -> str | None:
    """The module that a parameter belongs to."""
    for suffix in (":values", "_DequantizeLinear_Output", "_dequantized", "_quantized"):
        name = name.removesuffix(suffix)
    match = _WEIGHT.fullmatch(name)
    return module_path(match[1]) if match and not name.startswith("onnx::") else None


def _from_node(layer: Layer) -> tuple[str, bool] | None:
    """The path in a node's name, and whether the operator's own name was cut off its end."""
    name = layer.node_name.removesuffix("_quant")
    parts = name.strip("/").split("/")
    own = re.fullmatch(re.escape(layer.onnx_op.removeprefix("QLinear")) + r"(_\d+)?", parts[-1])
    if not name or name.startswith("node_") or (own and len(parts) == 1):
        return None  # made up by an exporter
    return module_path("/".join(parts[:-1] if own else parts)), bool(own)


def assign(layers: list[Layer]) -> None:
    """Give every layer its unique canonical name."""
    claims: dict[int, tuple[str, bool]] = {}
    for i, layer in enumerate(layers):
        weight = _from_weight(layer.weight_name) if layer.weight_name else None
        claim = (weight, False) if weight else _from_node(layer)
        if claim and claim[0]:
            claims[i] = claim
    uses = Counter(path for path, _ in claims.values())
    prefixes = {path[:k] for path, _ in claims.values() for k, ch in enumerate(path) if ch == "."}
    taken: Counter[str] = Counter()
    used: set[str] = set()
    for i, layer in enumerate(layers):
        short = layer.op.removesuffix("2d") if layer.op != "binary" else str(layer.attrs["kind"])
        if layer.op == "unary":
            short = str(layer.attrs["kind"])
        if i in claims:
            path, cut = claims[i]
            name = f"{path}.{short}" if cut and (uses[path] > 1 or path in prefixes) and not layer.is_mac else path
            start = 1
        else:
            name, start = f"{short}_", 0
        candidate = name
        while candidate in used or candidate.endswith("_"):
            n = taken[name] + start
            taken[name] += 1
            candidate = f"{name}{n}" if start == 0 else f"{name}_{n}"
        used.add(candidate)
        layer.name = candidate
