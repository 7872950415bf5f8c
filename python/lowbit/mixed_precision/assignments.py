"""Which precision each layer of a network can have, and the plan of an assignment: a dict from layer to precision."""

from __future__ import annotations

import itertools
import random as randoms
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lowbit.graph import source as sources
from lowbit.graph.lower import lower
from lowbit.graph.net import Layer, Net
from lowbit.graph.plan import Plan
from lowbit.graph.recipe import parse_recipe
from lowbit.mixed_precision.signature import signature

Assignment = Mapping[str, str]
Choices = Sequence[str] | Mapping[str, Sequence[str]]

DEFAULT_CHOICES = ("float32", "int8", "int:6/8", "int:4/8", "int:3/8", "int:2/8")


def bits_of(choice: str) -> tuple[int, int]:
    """Bits of weights and activations.

    Example:
        >>> bits_of("int8"), bits_of("codebook:4"), bits_of("int:4/8"), bits_of("xnor")
        ((8, 8), (4, 32), (4, 8), (1, 1))
    """
    if match := re.fullmatch(r"(?:int|lq):(\d+)/(\d+)", choice):
        return int(match[1]), int(match[2])
    if match := re.fullmatch(r"codebook:(\d+)(/huffman)?", choice):
        return int(match[1]), 32
    if choice.startswith("xnor"):
        return 1, 1
    return (32, 32) if choice == "float32" else (8, 8)


@dataclass(frozen=True)
class SearchLayer:
    """A convolution or matrix product.

    Attributes:
        name: canonical name.
        op: ``conv2d`` or ``gemm``.
        macs: multiply-accumulates for one item.
        weights: how many.
        in_channels: of the input, all groups together.
        out_channels: of the output.
        kernel: height and width, (1, 1) for a product.
        stride: down and across, (1, 1) for a product.
        in_size: height and width of the input, (1, 1) for a product.
        groups: of a convolution.
        choices: the precisions that it can have.
    """

    name: str
    op: str
    macs: int
    weights: int
    in_channels: int
    out_channels: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    in_size: tuple[int, int]
    groups: int
    choices: tuple[str, ...]

    @property
    def depthwise(self) -> bool:
        """Whether every channel has a filter of its own."""
        return self.groups > 1 and self.groups == self.in_channels


class Assignments:
    """Layers and choices of a network, and what becomes of an assignment; arguments and errors as of ``Space``."""

    def __init__(
        self,
        net: Any,
        choices: Choices | None,
        example: Any,
        input_shapes: Mapping[str, Sequence[int | None]] | None,
    ) -> None:
        source = sources.read(net, example)
        self.model, self.file, self.sha256 = source.model, source.file, source.sha256
        self.net: Net = sources.build(source.model, input_shapes)
        self.onnx_names = sources.float_names(source.model)
        # Times and bytes do not depend on ranges, but on which tensors share one.
        self._ranges = {name: (-1.0 - i / 1000, 1.0 + i / 1000) for i, name in enumerate(sorted(self.onnx_names))}
        self._macs = [layer for layer in self.net.layers if layer.is_mac]
        if not self._macs:
            raise ValueError(f"{self.file}: no convolution or matrix product to choose a precision for")
        given = self._choices_by_layer(DEFAULT_CHOICES if choices is None else choices)
        everything = list(dict.fromkeys(itertools.chain.from_iterable(given.values())))
        self._recipes = {choice: parse_recipe(choice) for choice in everything}
        self.default = "int8" if any(r.is_static for r in self._recipes.values()) else "float32"
        fitting = self._fitting(given)
        self.layers: list[SearchLayer] = [_describe(layer, tuple(fitting[layer.name])) for layer in self._macs]
        self.choices: dict[str, tuple[str, ...]] = {layer.name: layer.choices for layer in self.layers}

    def uniform(self, choice: str) -> dict[str, str]:
        """Every layer with one precision; a layer that cannot have it takes the next more precise one that it can."""
        if choice not in self._recipes:
            raise ValueError(f"space: {choice!r} is not one of the choices {', '.join(self._recipes)}")
        wanted = bits_of(choice)
        out = {}
        for layer in self.layers:
            more = [c for c in layer.choices if bits_of(c) >= wanted]
            best = min(more, key=bits_of) if more else max(layer.choices, key=bits_of)
            out[layer.name] = choice if choice in layer.choices else best
        return out

    def random(self, rng: randoms.Random) -> dict[str, str]:
        """An assignment drawn uniformly."""
        return {name: rng.choice(options) for name, options in self.choices.items()}

    def check(self, assignment: Assignment) -> None:
        """ValueError where a layer is missing, unknown, or has a precision that it cannot have."""
        if unknown := set(assignment) ^ set(self.choices):
            name = sorted(unknown)[0]
            raise ValueError(f"space: layer {name!r} is {'missing' if name in self.choices else 'not in the network'}")
        for name, choice in assignment.items():
            if choice not in self.choices[name]:
                options = ", ".join(self.choices[name])
                raise ValueError(f"space: layer {name!r} cannot have {choice!r}; its choices are {options}")

    def overrides(self, assignment: Assignment) -> dict[str, str]:
        """What ``lowbit.convert(recipe=space.default, overrides=...)`` takes."""
        return {re.escape(name): choice for name, choice in assignment.items()}

    def plan(self, assignment: Assignment, ranges: Any = None) -> Plan:
        """The plan of an assignment.

        Args:
            assignment: layer -> precision.
            ranges: a calibration table; without one ranges are made up, which is enough for what a plan costs.
        """
        table = self._ranges if ranges is None else ranges
        return lower(self.net, parse_recipe(self.default), table, self.overrides(assignment), None, self.onnx_names)

    def class_of(self, choice: str, fine: bool = False) -> str:
        """What a layer's neighbours see of its precision: their costs depend on nothing else of it."""
        recipe = self._recipes[choice]
        if recipe.activation == "levels":  # planes of so many bits, which the layer before may write itself
            return f"levels:{recipe.activation_bits}"
        if not recipe.is_static:
            return "dynamic" if recipe.activation == "dynamic" else "float"
        return f"{recipe.activation}:{recipe.activation_bits}" if fine else recipe.activation

    def classes(self, name: str, fine: bool) -> tuple[str, ...]:
        """The different ones among a layer's choices, see ``class_of``."""
        return tuple(dict.fromkeys(self.class_of(choice, fine) for choice in self.choices[name]))

    def _choices_by_layer(self, choices: Choices) -> dict[str, tuple[str, ...]]:
        if not isinstance(choices, Mapping):
            choices = {".*": choices}
        out: dict[str, tuple[str, ...]] = {}
        for pattern, options in choices.items():
            if isinstance(options, str) or not options:
                raise ValueError(f"space: choices for {pattern!r} must be a list of recipes, not {options!r}")
            hits = [m.name for m in self._macs if re.fullmatch(pattern, m.name) or pattern == f"op:{m.onnx_op}"]
            if not hits:
                raise ValueError(f"space: pattern {pattern!r} matches no convolution or matrix product")
            for name in hits:
                out.setdefault(name, tuple(dict.fromkeys(options)))
        for mac in self._macs:
            if mac.name not in out:
                raise ValueError(f"space: no pattern matches layer {mac.name!r}; add '.*': [...]")
        return out

    def _fitting(self, given: Mapping[str, tuple[str, ...]]) -> dict[str, list[str]]:
        """The choices that do something: the others leave a layer in float."""
        in_float = self._layer_keys({m.name: "float32" for m in self._macs})
        fitting: dict[str, list[str]] = {m.name: [] for m in self._macs}
        why: dict[str, str] = {}
        for choice in self._recipes:
            having = [name for name, options in given.items() if choice in options]
            applied: dict[str, str] = {}
            for names in (having,) if self._works(having, choice, why) else ([n] for n in having):
                if self._works(names, choice, why):
                    wanted = {m.name: "float32" for m in self._macs} | dict.fromkeys(names, choice)
                    keys = self._layer_keys(wanted)
                    applied |= {n: keys[n] for n in names}
            for name, key in applied.items():
                if choice == "float32" or key != in_float[name]:
                    fitting[name].append(choice)
        for name, options in fitting.items():
            if not options:
                reason = f": {why[name]}" if name in why else ": they leave it in float32"
                raise ValueError(f"space: none of {', '.join(given[name])} fits layer {name!r}{reason}")
        return {name: [c for c in given[name] if c in options] for name, options in fitting.items()}

    def _works(self, names: Sequence[str], choice: str, why: dict[str, str]) -> bool:
        try:
            self.plan({m.name: "float32" for m in self._macs} | dict.fromkeys(names, choice))
        except ValueError as error:
            why |= dict.fromkeys(names, str(error))
            return False
        return True

    def _layer_keys(self, assignment: Assignment) -> dict[str, str]:
        plan = self.plan(assignment)
        return {op["name"]: signature(plan, op) for op in plan.ops}


def _describe(layer: Layer, choices: tuple[str, ...]) -> SearchLayer:
    weight, x = layer.params["weight"], layer.inputs[0]
    conv = layer.op == "conv2d"
    return SearchLayer(
        name=layer.name,
        op=layer.op,
        macs=layer.macs(),
        weights=int(weight.size),
        in_channels=int(x.shape[-1]),
        out_channels=int(weight.shape[0]),
        kernel=(int(weight.shape[1]), int(weight.shape[2])) if conv else (1, 1),
        stride=tuple(int(s) for s in layer.attrs.get("strides", (1, 1))) if conv else (1, 1),  # type: ignore[arg-type]
        in_size=(int(x.shape[1]), int(x.shape[2])) if conv else (1, 1),
        groups=int(layer.attrs.get("groups", 1)),
        choices=choices,
    )
