"""The plan: what a .lowbit file says about a network (docs/format.md), and the object that writes one."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lowbit.graph.net import Array

VERSION = 1


@dataclass
class Plan:
    """A plan as data, and the file tensors that it names.

    Attributes:
        data: the JSON object of docs/format.md.
        tensors: name -> array (float32, int32, int8, uint8), ``activation_scales`` included.
    """

    data: dict[str, Any]
    tensors: dict[str, Array]

    def to_json(self) -> str:
        """The plan's JSON text."""
        return json.dumps(self.data, separators=(",", ":"))

    @property
    def ops(self) -> list[dict[str, Any]]:
        """Operations in order."""
        ops: list[dict[str, Any]] = self.data["ops"]
        return ops

    @property
    def activations(self) -> list[dict[str, Any]]:
        """Plan tensors in order."""
        tensors: list[dict[str, Any]] = self.data["tensors"]
        return tensors

    def scale(self, tensor: dict[str, Any]) -> float:
        """Scale of a code tensor."""
        return float(self.tensors["activation_scales"][tensor["scale"]])


@dataclass
class PlanBuilder:
    """Collects tensors, operations and parameters; names stay unique."""

    tensors: list[dict[str, Any]] = field(default_factory=list)
    ops: list[dict[str, Any]] = field(default_factory=list)
    arrays: dict[str, Array] = field(default_factory=dict)
    _scales: dict[float, int] = field(default_factory=dict)
    _names: set[str] = field(default_factory=set)
    _tensor_names: set[str] = field(default_factory=set)

    def reserve(self, name: str) -> None:
        """Keep a name for a layer still to come."""
        self._names.add(name)

    def _unique(self, name: str, used: set[str]) -> str:
        candidate, n = name, 0
        while candidate in used:
            n += 1
            candidate = f"{name}_{n}"
        used.add(candidate)
        return candidate

    def tensor(
        self,
        name: str,
        dtype: str,
        shape: tuple[int, ...],
        *,
        scale: float | None = None,
        zero_point: int = 0,
        dynamic: bool = False,
        source: str | None = None,
        layout: str | None = None,
    ) -> int:
        """Add a tensor; returns its index."""
        entry: dict[str, Any] = {"name": self._unique(name, self._tensor_names), "dtype": dtype, "shape": list(shape)}
        if scale is not None:
            entry["scale"] = self._scales.setdefault(float(np.float32(scale)), len(self._scales))
            entry["zero_point"] = int(zero_point)
        if dynamic:
            entry["dynamic"] = True
        if source:
            entry["source"] = source
        if layout:
            entry["layout"] = layout
        self.tensors.append(entry)
        return len(self.tensors) - 1

    def op(
        self,
        op: str,
        inputs: list[int],
        output: int | list[int],
        attrs: dict[str, Any] | None = None,
        params: dict[str, Array] | None = None,
        *,
        name: str | None = None,
    ) -> None:
        """Add an operation. ``name`` is a layer's canonical name; without it one is made from the op."""
        if name is None:
            n = 0
            while f"{op}_{n}" in self._names:
                n += 1
            name = f"{op}_{n}"
            self._names.add(name)
        roles = {}
        for role, array in (params or {}).items():
            key = f"{name}.{role}"
            self.arrays[key] = np.ascontiguousarray(array)
            roles[role] = key
        outputs = output if isinstance(output, list) else [output]
        entry: dict[str, Any] = {"op": op, "name": name, "inputs": inputs, "outputs": outputs}
        if attrs:
            entry["attrs"] = attrs
        if roles:
            entry["params"] = roles
        self.ops.append(entry)

    def finish(self, inputs: list[int], outputs: list[int]) -> Plan:
        """The finished plan."""
        self.arrays["activation_scales"] = np.array(list(self._scales), dtype=np.float32)
        data = {"version": VERSION, "tensors": self.tensors, "inputs": inputs, "outputs": outputs, "ops": self.ops}
        return Plan(data, self.arrays)
