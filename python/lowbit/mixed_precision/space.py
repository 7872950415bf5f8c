"""What assignments cost.

A cost is a sum over *sites* (`sites.py`), whose operations depend on a few layers only. So the costs of all assignments
follow from those of a few, each lowered to a plan as ``convert`` does it; nothing about conversions is assumed.
"""

from __future__ import annotations

import itertools
import random as randoms
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lowbit.compare import energy_pj
from lowbit.graph.summary import rows
from lowbit.mixed_precision.assignments import Assignment, Assignments, Choices, bits_of
from lowbit.mixed_precision.latency import LatencyTable, Progress, cover, measure
from lowbit.mixed_precision.signature import signatures
from lowbit.mixed_precision.sites import Clusters, Site, State

METRICS = ("latency", "size", "energy", "bops")


@dataclass(frozen=True)
class _Cost:
    """What one site's operations cost in one state."""

    keys: tuple[str, ...]
    bytes: int
    picojoules: float


class Space(Assignments):
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
        super().__init__(net, choices, example, input_shapes)
        self._clusters = Clusters(self.net)
        self.sites = self._clusters.sites(self)
        self._macs_of = {layer.name: layer.macs for layer in self.layers}
        self.costs: dict[str, dict[State, _Cost]] = {}
        self.probes: list[tuple[dict[str, str], frozenset[str]]] = []
        self._explore(progress)
        self.table: LatencyTable | None = None
        if table is not None:
            self.attach(table)

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

    def states(self, site: Site) -> Iterator[State]:
        """Every state that a site can be in."""
        own = [self.choices[site.layer]] if site.layer else []
        near = [self.classes(name, fine) for name, fine in zip(site.near, site.fine, strict=True)]
        return itertools.product(*own, *near)

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

    # How the costs are found ------------------------------------------------------------------------------------------

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
            where = self._clusters.where(plan, op)
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
