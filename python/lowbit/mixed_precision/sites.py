"""Where the operations of a plan stand, and which layers' precisions decide what they are.

A site is a layer, or a tensor that layers of different precision hand on (where conversions stand). A layer's
operations depend on its own precision, the form that its readers want and what ran before it; a tensor's on whether its
writer and its readers run on codes or in float.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lowbit.graph.net import Layer, Net, Tensor
from lowbit.graph.plan import Plan
from lowbit.mixed_precision.assignments import Assignments

_MOST_STATES = 2048  # of a site; a tensor with more readers than that is taken with its nearest ones

State = tuple[str, ...]


@dataclass(frozen=True)
class Site:
    """Where operations stand, and which layers decide what they are.

    Attributes:
        name: layer or tensor.
        layer: the layer whose own precision matters, None at a tensor.
        near: layers of which only the class matters: codes or float.
        fine: for each of them, whether the bits of its activations matter too (where it reads a tensor).
    """

    name: str
    layer: str | None
    near: tuple[str, ...]
    fine: tuple[bool, ...]


class Clusters:
    """Tensors that only layers without a choice stand between share a cluster."""

    def __init__(self, net: Net) -> None:
        self._macs = {layer.name: layer for layer in net.layers if layer.is_mac}
        parent: dict[Tensor, Tensor] = {}

        def root(t: Tensor) -> Tensor:
            while t in parent:
                t = parent[t]
            return t

        for layer in net.layers:
            if layer.is_mac:
                continue
            for t in layer.inputs:
                if root(t) is not root(layer.output):
                    parent[root(t)] = root(layer.output)
        tensors = [*(t for _, t in net.inputs), *(layer.output for layer in net.layers)]
        self._cluster = {t: root(t) for t in tensors}
        self._readers: dict[Tensor, list[Layer]] = {}
        self._writers: dict[Tensor, list[Layer]] = {}
        for mac in self._macs.values():
            self._writers.setdefault(root(mac.output), []).append(mac)
            for t in dict.fromkeys(root(t) for t in mac.inputs):
                self._readers.setdefault(t, []).append(mac)
        # Which cluster an operation without a layer's name belongs to: plan tensors are named after ONNX tensors.
        self._named: dict[str, Tensor] = {t.name: self._cluster[t] for t in tensors}
        self._named |= {m.name: self._cluster[m.output] for m in net.layers}
        self._named |= dict(zip((name for name, _ in net.outputs), (root(t) for _, t in net.outputs), strict=True))

    def sites(self, layers: Assignments) -> list[Site]:
        """Every layer, then every cluster."""
        out, macs = [], list(self._macs.values())
        for before, mac in zip([None, *macs], macs, strict=False):
            t = self._cluster[mac.output]
            near = [*([before] if before else []), *self._writers.get(t, []), *self._readers.get(t, [])]
            out.append(_site(mac.name, mac.name, {m.name: False for m in near if m is not mac}, layers))
        for t in dict.fromkeys(self._cluster.values()):
            readers = self._readers.get(t, [])
            fine = {m.name: self._cluster[m.inputs[0]] is t for m in readers}
            near = [*self._writers.get(t, [])]
            for reader in readers:  # a residual comes in the form that its layer's readers want
                if any(self._cluster[i] is t for i in reader.inputs[1:]):
                    near += self._readers.get(self._cluster[reader.output], [])
            out.append(_site(f"tensor {t.name}", None, {m.name: False for m in near} | fine, layers))
        return out

    def where(self, plan: Plan, op: Mapping[str, Any]) -> str:
        """The name of an operation's site."""
        if op["name"] in self._macs:
            return str(op["name"])
        if op["name"] in self._named:
            return f"tensor {self._named[op['name']].name}"
        own = op["outputs"] if op["op"] == "binary" else op["inputs"]  # a residual's addition; a conversion
        name = str(plan.activations[own[0]]["name"])
        while name:
            for candidate in (name, re.sub(r"_\d+$", "", name)):
                if candidate in self._macs and op["op"] == "binary":
                    return candidate
                if candidate in self._named:
                    return f"tensor {self._named[candidate].name}"
            name = name.rpartition(".")[0]
        return f"tensor {next(iter(self._cluster.values())).name}"


def _site(name: str, layer: str | None, near: Mapping[str, bool], layers: Assignments) -> Site:
    kept: list[tuple[str, bool]] = []
    states = len(layers.choices[layer]) if layer else 1
    for other, fine in sorted(near.items(), key=lambda item: not item[1]):
        classes = len(layers.classes(other, fine))
        if classes > 1 and states * classes <= _MOST_STATES:
            kept.append((other, fine))
            states *= classes
    return Site(name, layer, tuple(n for n, _ in kept), tuple(f for _, f in kept))
