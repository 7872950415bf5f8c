"""What a search may choose: the layers of a network, the precisions each of them can have, and what they cost.

An assignment is a dict from layer name to precision. What it costs is a sum over *sites*: a layer, or a tensor that
layers of different precision hand on (where conversions stand). A site's operations depend on a few layers only: a
layer's on its own precision, the form that its readers want and what ran before it; a tensor's on whether its writer
and its readers run on codes or in float. So the costs of all assignments follow from those of a few, each lowered to a
plan as ``convert`` does it; nothing about conversions is assumed.
"""

from __future__ import annotations

import itertools
import random as randoms
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lowbit.compare import energy_pj
from lowbit.graph import source as sources
from lowbit.graph.lower import lower
from lowbit.graph.net import Layer, Net, Tensor
from lowbit.graph.plan import Plan
from lowbit.graph.recipe import parse_recipe
from lowbit.graph.summary import rows
from lowbit.mixed_precision.latency import LatencyTable, Progress, cover, measure
from lowbit.mixed_precision.signature import signature, signatures

__all__ = ["METRICS", "Assignment", "SearchLayer", "Site", "Space", "bits_of"]

Assignment = Mapping[str, str]
Choices = Sequence[str] | Mapping[str, Sequence[str]]

METRICS = ("latency", "size", "energy", "bops")
DEFAULT_CHOICES = ("float32", "int8", "int:6/8", "int:4/8", "int:3/8", "int:2/8")
_MOST_STATES = 2048  # of a site; a tensor with more readers than that is taken with its nearest ones


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


@dataclass(frozen=True)
class _Cost:
    """What one site's operations cost in one state."""

    keys: tuple[str, ...]
    bytes: int
    picojoules: float


State = tuple[str, ...]


class Space:
    """Layers, choices and costs of a network.

    Args:
        net: path of an ONNX file, an ``onnx.ModelProto``, or a ``torch.nn.Module`` with ``example``.
        choices: recipes that every layer may have, or pattern -> recipes (as in overrides; the first match wins).
            What cannot apply to a layer is left out for it.
        table: measured times, for costs in milliseconds; see ``measure``.
        example: input that a torch module is exported with.
        input_shapes: for axes that the file leaves open.
        progress: called as ``progress(stage, done, total)``.

    Raises:
        ValueError: an unknown recipe, a pattern that matches nothing, or a layer that no precision fits; names it.

    Example:
        >>> from importlib.resources import files
        >>> space = Space(str(files("lowbit.demo") / "fashion.onnx"), ["float32", "int8"])
        >>> uniform = space.uniform("int8")
        >>> space.cost(uniform, "size") < 0.3 * space.cost(space.uniform("float32"), "size")
        True
    """

    def __init__(
        self,
        net: Any,
        choices: Choices | None = None,
        *,
        table: LatencyTable | None = None,
        example: Any = None,
        input_shapes: Mapping[str, Sequence[int | None]] | None = None,
        progress: Progress | None = None,
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
        self._clusters()
        self.sites = self._sites()
        self.costs: dict[str, dict[State, _Cost]] = {}
        self.probes: list[tuple[dict[str, str], frozenset[str]]] = []
        self._explore(progress)
        self.table: LatencyTable | None = None
        if table is not None:
            self.attach(table)

    # Assignments ------------------------------------------------------------------------------------------------------

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

    # Costs ------------------------------------------------------------------------------------------------------------

    def attach(self, table: LatencyTable) -> None:
        """Take times from a table.

        Raises:
            ValueError: where an operation was not measured; names it.
        """
        for site in self.costs.values():
            for cost in site.values():
                for key in cost.keys:
                    if key not in table.rows:
                        raise ValueError(table.lacks(key))
        self.table = table

    def measure(
        self,
        *,
        threads: int | None = None,
        isa: str | None = None,
        batch: int = 1,
        seconds: float = 20.0,
        progress: Progress | None = None,
    ) -> LatencyTable:
        """Measure the times of everything in the space, and take them; see ``lowbit.mixed_precision.latency_table``."""
        first = range(len(self._recipes) + 1)  # uniform ones
        chosen = {*first, *cover([keys for _, keys in self.probes])}
        plans = [self.plan(self.probes[i][0]) for i in sorted(chosen)]
        table = measure(plans, threads=threads, isa=isa, batch=batch, seconds=seconds, progress=progress)
        self.attach(table)
        return table

    def state(self, site: Site, assignment: Assignment) -> State:
        """What of an assignment matters at a site."""
        own = () if site.layer is None else (assignment[site.layer],)
        return (*own, *(self.class_of(assignment[n], fine) for n, fine in zip(site.near, site.fine, strict=True)))

    def site_cost(self, site: Site, state: State, metric: str) -> float:
        """What a site costs in one of its states: ms, bytes, microjoules or bit operations.

        Raises:
            ValueError: an unknown metric, or latency without a table.
        """
        cost = self.costs[site.name][state]
        if metric == "size":
            return float(cost.bytes)
        if metric == "energy":
            return cost.picojoules / 1e6
        if metric == "bops":
            if site.layer is None:
                return 0.0
            weight, activation = bits_of(state[0])
            return float(self._macs_of[site.layer] * weight * activation)
        if metric != "latency":
            raise ValueError(f"space: cost {metric!r} is not one of {', '.join(METRICS)}")
        if self.table is None:
            raise ValueError("space: latency needs a latency table (lowbit latency, or Space.measure)")
        return sum(self.table.rows[key].ms for key in cost.keys)

    def fixed_cost(self, metric: str) -> float:
        """What every assignment costs beside its sites."""
        return self.table.run_ms if metric == "latency" and self.table is not None else 0.0

    def cost(self, assignment: Assignment, metric: str) -> float:
        """What an assignment costs.

        Args:
            assignment: layer -> precision, for every layer.
            metric: ``latency`` (ms, predicted from the table), ``size`` (bytes of weights, scales, biases in the file),
                ``energy`` (estimated microjoules for one item) or ``bops`` (multiply-adds times bits times bits).

        Raises:
            ValueError: see ``check`` and ``site_cost``.
        """
        self.check(assignment)
        parts = [self.site_cost(site, self.state(site, assignment), metric) for site in self.sites]
        return self.fixed_cost(metric) + sum(parts)

    def reference_cost(self, choice: str, metric: str) -> float:
        """What the network costs with one precision throughout, even one that is none of the choices.

        Raises:
            ValueError: an unknown recipe or metric, or a time that was not measured.
        """
        if choice in self._recipes:
            return self.cost(self.uniform(choice), metric)
        plan = self.plan(dict.fromkeys(self.choices, choice))
        if metric == "latency":
            if self.table is None:
                raise ValueError("space: latency needs a latency table (lowbit latency, or Space.measure)")
            return self.table.predict(plan)
        if metric == "bops":
            weight, activation = bits_of(choice)
            return float(sum(self._macs_of.values()) * weight * activation)
        if metric not in METRICS:
            raise ValueError(f"space: cost {metric!r} is not one of {', '.join(METRICS)}")
        return sum(row.bytes if metric == "size" else energy_pj(row) / 1e6 for row in rows(plan))

    # How it is made ---------------------------------------------------------------------------------------------------

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

    def _clusters(self) -> None:
        """Tensors that only layers without a choice stand between share a cluster."""
        parent: dict[Tensor, Tensor] = {}

        def root(t: Tensor) -> Tensor:
            while t in parent:
                t = parent[t]
            return t

        for layer in self.net.layers:
            if layer.is_mac:
                continue
            for t in layer.inputs:
                if root(t) is not root(layer.output):
                    parent[root(t)] = root(layer.output)
        tensors = [*(t for _, t in self.net.inputs), *(layer.output for layer in self.net.layers)]
        self._cluster = {t: root(t) for t in tensors}
        self._readers: dict[Tensor, list[Layer]] = {}
        self._writers: dict[Tensor, list[Layer]] = {}
        for mac in self._macs:
            self._writers.setdefault(root(mac.output), []).append(mac)
            for t in dict.fromkeys(root(t) for t in mac.inputs):
                self._readers.setdefault(t, []).append(mac)
        self._macs_of = {m.name: m.macs() for m in self._macs}
        # Which cluster an operation without a layer's name belongs to: plan tensors are named after ONNX tensors.
        self._named: dict[str, Tensor] = {t.name: self._cluster[t] for t in tensors}
        self._named |= {m.name: self._cluster[m.output] for m in self.net.layers}
        self._named |= dict(
            zip((name for name, _ in self.net.outputs), (root(t) for _, t in self.net.outputs), strict=True)
        )

    def _sites(self) -> list[Site]:
        out = []
        for before, mac in zip([None, *self._macs], self._macs, strict=False):
            t = self._cluster[mac.output]
            near = [*([before] if before else []), *self._writers.get(t, []), *self._readers.get(t, [])]
            out.append(self._site(mac.name, mac.name, {m.name: False for m in near if m is not mac}))
        for t in dict.fromkeys(self._cluster.values()):
            readers = self._readers.get(t, [])
            fine = {m.name: self._cluster[m.inputs[0]] is t for m in readers}
            near = [*self._writers.get(t, [])]
            for reader in readers:  # a residual comes in the form that its layer's readers want
                if any(self._cluster[i] is t for i in reader.inputs[1:]):
                    near += self._readers.get(self._cluster[reader.output], [])
            out.append(self._site(f"tensor {t.name}", None, {m.name: False for m in near} | fine))
        return out

    def _site(self, name: str, layer: str | None, near: Mapping[str, bool]) -> Site:
        kept: list[tuple[str, bool]] = []
        states = len(self.choices[layer]) if layer else 1
        for other, fine in sorted(near.items(), key=lambda item: not item[1]):
            classes = len({self.class_of(c, fine) for c in self.choices[other]})
            if classes > 1 and states * classes <= _MOST_STATES:
                kept.append((other, fine))
                states *= classes
        return Site(name, layer, tuple(n for n, _ in kept), tuple(f for _, f in kept))

    def states(self, site: Site) -> Iterator[State]:
        """Every state that a site can be in."""
        own = [self.choices[site.layer]] if site.layer else []
        near = [
            tuple(dict.fromkeys(self.class_of(c, fine) for c in self.choices[n]))
            for n, fine in zip(site.near, site.fine, strict=True)
        ]
        return itertools.product(*own, *near)

    def _explore(self, progress: Progress | None) -> None:
        """Lower assignments until every state of every site was seen."""
        rng = randoms.Random(0)
        self.costs = {site.name: {} for site in self.sites}
        missing = {(site, state): None for site in self.sites for state in self.states(site)}
        total = len(missing)
        if "float32" not in self._recipes:  # what budgets refer to
            in_float = dict.fromkeys(self.choices, "float32")
            self.probes.append((in_float, frozenset(signatures(self.plan(in_float)))))
        for choice in self._recipes:
            self._record(self.uniform(choice), missing)
        while missing:
            self._record(self._towards(missing, rng), missing)
            if progress:
                progress("lowering", total - len(missing), total)

    def _towards(self, missing: Mapping[tuple[Site, State], None], rng: randoms.Random) -> dict[str, str]:
        """An assignment that brings many sites into states not seen yet."""
        allowed = {name: list(options) for name, options in self.choices.items()}
        wanted = list(missing)
        first = wanted[0]
        rng.shuffle(wanted)
        for site, state in (first, *wanted[:400]):
            narrowed = self._narrowed(allowed, site, state)
            if all(narrowed.values()):
                allowed |= narrowed
        return {name: rng.choice(options) for name, options in allowed.items()}

    def _narrowed(self, allowed: Mapping[str, list[str]], site: Site, state: State) -> dict[str, list[str]]:
        out: dict[str, list[str]] = {}
        own, classes = (state[:1], state[1:]) if site.layer else ((), state)
        for name, fine, wanted in zip(site.near, site.fine, classes, strict=True):
            out[name] = [c for c in allowed[name] if self.class_of(c, fine) == wanted]
        if site.layer:
            out[site.layer] = [c for c in out.get(site.layer, allowed[site.layer]) if c == own[0]]
        return out

    def _record(self, assignment: dict[str, str], missing: dict[tuple[Site, State], None]) -> None:
        plan = self.plan(assignment)
        keys: dict[str, list[str]] = {}
        size: Counter[str] = Counter()
        energy: Counter[str] = Counter()
        for op, key, row in zip(plan.ops, signatures(plan), rows(plan), strict=True):
            where = self._where(plan, op)
            keys.setdefault(where, []).append(key)
            size[where] += row.bytes
            energy[where] += energy_pj(row)  # type: ignore[assignment]
        self.probes.append((assignment, frozenset(itertools.chain.from_iterable(keys.values()))))
        for site in self.sites:
            name, state = site.name, self.state(site, assignment)
            cost = _Cost(tuple(sorted(keys.get(name, ()))), size[name], float(energy[name]))
            known = self.costs[name].setdefault(state, cost)
            if known.keys != cost.keys and len("".join(cost.keys)) > len("".join(known.keys)):
                self.costs[name][state] = cost  # a site with very many readers: the dearer case counts
            missing.pop((site, state), None)

    def _where(self, plan: Plan, op: Mapping[str, Any]) -> str:
        """The site of an operation."""
        if op["name"] in self._macs_of:
            return str(op["name"])
        if op["name"] in self._named:
            return f"tensor {self._named[op['name']].name}"
        own = op["outputs"] if op["op"] == "binary" else op["inputs"]  # a residual's addition; a conversion
        name = str(plan.activations[own[0]]["name"])
        while name:
            for candidate in (name, re.sub(r"_\d+$", "", name)):
                if candidate in self._macs_of and op["op"] == "binary":
                    return candidate
                if candidate in self._named:
                    return f"tensor {self._named[candidate].name}"
            name = name.rpartition(".")[0]
        return f"tensor {next(iter(self._cluster.values())).name}"


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


def latency_table(
    net: Any,
    choices: Choices | None = None,
    *,
    threads: int | None = None,
    isa: str | None = None,
    batch: int = 1,
    seconds: float = 20.0,
    example: Any = None,
    input_shapes: Mapping[str, Sequence[int | None]] | None = None,
    progress: Callable[[str, int, int | None], None] | None = None,
) -> LatencyTable:
    """Measure how long every layer of a network takes in every precision, and every conversion between them.

    Args:
        net: path of an ONNX file, an ``onnx.ModelProto``, or a ``torch.nn.Module`` with ``example``. No data: times do
            not depend on values.
        choices: see ``Space``.
        threads: worker threads, default ``lowbit.num_threads()``.
        isa: level, default the best.
        batch: items per run.
        seconds: of measuring, about.
        example: input that a torch module is exported with.
        input_shapes: for axes that the file leaves open.
        progress: called as ``progress(stage, done, total)``.

    Returns:
        LatencyTable.

    Raises:
        ValueError: see ``Space``.

    Example:
        >>> from importlib.resources import files
        >>> net = str(files("lowbit.demo") / "fashion.onnx")
        >>> table = latency_table(net, ["float32", "int8"], threads=1, seconds=0.1)
        >>> 0 < table.predict(lowbit.convert(net, recipe="float32"))
        True
    """
    space = Space(net, choices, example=example, input_shapes=input_shapes, progress=progress)
    return space.measure(threads=threads, isa=isa, batch=batch, seconds=seconds, progress=progress)
