"""What a search found: points with their costs, a table, a plot, and the recipe of the best."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lowbit
from lowbit.atomic import write_aside
from lowbit.mixed_precision.assignments import bits_of
from lowbit.mixed_precision.exact import amount
from lowbit.mixed_precision.latency import LatencyTable
from lowbit.mixed_precision.space import Space

__all__ = ["Point", "SearchResult", "load_recipe", "pareto", "save_recipe"]

_FORMAT = "lowbit recipe"


@dataclass
class Point:
    """One assignment.

    Attributes:
        name: ``best``, ``uniform int8``, ``exact size 0.2``, ...
        assignment: layer -> precision.
        costs: ``size`` (bytes), ``bops``, ``energy`` (microjoules) and, where there is a table, ``latency`` (ms).
        accuracy: percent of right answers on the data.
        error: what the outputs lose against the float network's.
        measured_ms: latency measured, where it was.
    """

    name: str
    assignment: dict[str, str]
    costs: dict[str, float]
    accuracy: float
    error: float
    measured_ms: float | None = None

    @property
    def mean_bits(self) -> tuple[float, float]:
        """Mean bits of weights and activations over the layers."""
        bits = [bits_of(choice) for choice in self.assignment.values()]
        return sum(w for w, _ in bits) / len(bits), sum(a for _, a in bits) / len(bits)


def pareto(points: Sequence[Point], metric: str) -> list[Point]:
    """The points that no other beats in accuracy (then error) at the same or a lower cost; cheapest first.

    Example:
        >>> a, b, c = (Point(n, {}, {"size": s}, p, 0.0) for n, s, p in [("a", 1, 80), ("b", 2, 79), ("c", 3, 90)])
        >>> [p.name for p in pareto([a, b, c], "size")]
        ['a', 'c']
    """
    front: list[Point] = []
    for point in sorted(points, key=lambda p: (p.costs[metric], -p.accuracy, p.error)):
        if not front or (point.accuracy, -point.error) > (front[-1].accuracy, -front[-1].error):
            front.append(point)
    return front


@dataclass
class SearchResult:
    """What ``lowbit.search`` returns.

    Attributes:
        best: the assignment that was asked for.
        points: it, uniform precisions, and the best at other budgets: for the table and the plot.
        budgets: cost -> its largest value, absolute.
        method: ``exact``, ``optuna`` or ``haq``.
        space: layers, choices, costs.
        table: measured times, where latency was among the costs.
        sensitivities: layer -> precision -> error.
        optimal: whether the exact search proved its answer.
    """

    best: Point
    points: list[Point]
    budgets: dict[str, float]
    method: str
    space: Space = field(repr=False)
    table: LatencyTable | None = field(default=None, repr=False)
    sensitivities: dict[str, dict[str, float]] = field(default_factory=dict, repr=False)
    optimal: bool | None = None

    @property
    def recipe(self) -> dict[str, Any]:
        """Default recipe and overrides, as ``lowbit.convert`` takes them."""
        return {"recipe": self.space.default, "overrides": self.space.overrides(self.best.assignment)}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the recipe file that ``lowbit convert --recipe`` and ``load_recipe`` read."""
        found = {
            "method": self.method,
            "budgets": self.budgets,
            "costs": self.best.costs,
            "accuracy": self.best.accuracy,
            "lowbit": lowbit.__version__,
            "machine": self.table.machine if self.table else None,
        }
        save_recipe(path, **self.recipe, net={"file": self.space.file, "sha256": self.space.sha256}, found=found)

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain data, for JSON."""
        return {
            "method": self.method,
            "optimal": self.optimal,
            "budgets": self.budgets,
            **self.recipe,
            "best": vars(self.best),
            "points": [vars(point) for point in self.points],
            "sensitivities": self.sensitivities,
        }

    def front(self, metric: str | None = None) -> list[Point]:
        """The points that no other beats; by the first budget's cost."""
        return pareto(self.points, metric or next(iter(self.budgets)))

    def __str__(self) -> str:
        from lowbit.report import units
        from lowbit.report.text import table

        front = {id(p) for p in self.front()}
        timed = any(p.measured_ms is not None for p in self.points)
        rows = []
        for p in sorted(self.points, key=lambda p: p.costs[next(iter(self.budgets))]):
            w, a = p.mean_bits
            ms = [units.milliseconds(p.costs.get("latency"))] + [units.milliseconds(p.measured_ms)] * timed
            size, energy = units.size(p.costs["size"]), f"{p.costs['energy']:.1f}"
            mark = "=>" if p is self.best else "*" if id(p) in front else ""
            rows.append([mark, p.name, f"{w:.1f}/{a:.1f}", f"{p.accuracy:.2f} %", f"{p.error:.2g}", size, *ms, energy])
        head = ["", "point", "mean W/A", "accuracy", "error", "size", "ms", *["measured"] * timed, "uJ"]
        budgets = ", ".join(f"{m} {amount(m, b)}" for m, b in self.budgets.items())
        layers = [[name, choice] for name, choice in self.best.assignment.items()]
        lines = [f"{self.method} search within {budgets}" + (", proved optimal" if self.optimal else ""), ""]
        lines += [*table(head, rows, left=2), "", "=> chosen, * no other point is better at its cost", ""]
        return "\n".join([*lines, *table(["layer", "precision"], layers, left=2)])

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Accuracy against size and latency, as PNG, SVG or PDF by the file's name.

        Raises:
            ImportError: where matplotlib is missing.
        """
        try:
            from matplotlib.figure import Figure
        except ImportError as error:
            raise ImportError('plots need matplotlib: pip install "lowbit[report]"') from error
        metrics = [m for m in ("size", "latency") if m in self.best.costs]
        figure = Figure(figsize=(5.2 * len(metrics), 3.8), layout="constrained")
        axes = figure.subplots(1, len(metrics), squeeze=False)[0]
        labels = {"size": ("size in kB", 1e-3), "latency": ("predicted latency in ms", 1.0)}
        for ax, metric in zip(axes, metrics, strict=True):
            text, unit = labels[metric]
            uniform = [p for p in self.points if "uniform" in p.name]
            searched = [p for p in self.points if "uniform" not in p.name]
            front = pareto(self.points, metric)
            ax.step(
                [unit * p.costs[metric] for p in front], [p.accuracy for p in front], where="post", lw=1, color="0.6"
            )
            for group, style in ((uniform, "s"), (searched, "o")):
                ax.plot([unit * p.costs[metric] for p in group], [p.accuracy for p in group], style, ms=5)
            for p in uniform:
                at = (unit * p.costs[metric], p.accuracy)
                ax.annotate(
                    p.name.rpartition("uniform ")[2], at, xytext=(4, -9), textcoords="offset points", fontsize=7
                )
            ax.plot(unit * self.best.costs[metric], self.best.accuracy, "*", ms=13, color="C3", label="chosen")
            if metric in self.budgets:
                ax.axvline(unit * self.budgets[metric], lw=0.8, ls="--", color="C3", label="budget")
            ax.set(xlabel=text, ylabel="accuracy in %")
            ax.legend(fontsize=8)
        figure.savefig(path, dpi=150)


def save_recipe(path: str | os.PathLike[str], recipe: str, overrides: Mapping[str, str], **facts: Any) -> None:
    """Write a recipe file.

    Args:
        path: where to; an older file stays until the new one is whole.
        recipe: the default.
        overrides: pattern -> recipe, as ``lowbit.convert`` takes them.
        facts: what else the file shall say, in JSON's types; nothing reads it.

    Example:
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "recipe.json"
        >>> save_recipe(path, "int8", {"conv1": "float32"}, why="the first layer")
        >>> load_recipe(path)
        {'recipe': 'int8', 'overrides': {'conv1': 'float32'}}
    """
    data = {"format": _FORMAT, "version": 1, "recipe": recipe, "overrides": dict(overrides), **facts}
    with write_aside(Path(path)) as aside:
        aside.write_text(json.dumps(data, indent=1))


def load_recipe(path: str | os.PathLike[str]) -> dict[str, Any]:
    """A recipe file: default recipe and overrides.

    Args:
        path: what ``SearchResult.save`` or :func:`save_recipe` wrote.

    Returns:
        dict with ``recipe`` and ``overrides``, for ``lowbit.convert(net, **load_recipe(path), calibration=...)``.

    Raises:
        lowbit.FormatError: the file is no recipe.
        OSError: it cannot be read.

    Example:
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "recipe.json"
        >>> save_recipe(path, "int8", {"conv1": "float32"})
        >>> load_recipe(path)
        {'recipe': 'int8', 'overrides': {'conv1': 'float32'}}
    """
    try:
        data = json.loads(Path(path).read_text())
        if data["format"] != _FORMAT or data["version"] != 1:
            raise ValueError(f"format {data['format']!r}, version {data['version']!r}")
        recipe, overrides = data["recipe"], data["overrides"]
        if not isinstance(recipe, str) or not all(isinstance(r, str) for r in overrides.values()):
            raise ValueError("recipe and overrides must be text")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise lowbit.FormatError(f"{path}: not a recipe file: {error}") from None
    return {"recipe": recipe, "overrides": dict(overrides)}
