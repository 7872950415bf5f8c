"""A table of measured times: every operation that a network's layers become in one precision or another.

Operations are timed where they run, inside whole networks on the engine (their inputs as warm, or as cold, as the layer
before has left them). Networks take turns, so that what disturbs the machine disturbs all. Of each network's runs the
fastest quarter counts, and an operation's time is its mean over these runs and over all networks that have it: the sum
over a plan's operations, plus what a run costs beside them, is then the time of the whole network.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import lowbit
from lowbit.atomic import write_aside
from lowbit.graph.plan import Plan
from lowbit.graph.summary import rows
from lowbit.mixed_precision.signature import signatures

__all__ = ["LatencyTable", "Measured", "machine"]

Progress = Callable[[str, int, int | None], None]
_FORMAT = "lowbit latency table"
_KEPT = 0.25  # part of a network's runs that counts: the fastest


@dataclass(frozen=True)
class Measured:
    """One operation.

    Attributes:
        key: see ``signatures``.
        layer: a layer that becomes it, for people.
        op: operation of the plan.
        weights: precision of the weights, empty for a conversion or a pool.
        activations: precision of the input.
        output: precision of the output.
        shape: of the output, without the batch.
        macs: multiply-accumulates for one item.
        ms: its time.
        spread: largest difference from ``ms`` among the networks that had it, as a part of ``ms``.
        networks: how many of them had it.
    """

    key: str
    layer: str
    op: str
    weights: str
    activations: str
    output: str
    shape: tuple[int, ...]
    macs: int
    ms: float
    spread: float = 0.0
    networks: int = 1


def machine(threads: int | None = None, isa: str | None = None) -> dict[str, Any]:
    """What a time depends on beside the network: processor, level, threads, version.

    Example:
        >>> machine(threads=1)["threads"]
        1
    """
    return {
        "cpu": lowbit.cpu_name(),
        "level": isa or lowbit.best_isa(),
        "threads": threads or lowbit.num_threads(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "lowbit": lowbit.__version__,
    }


@dataclass
class LatencyTable:
    """Milliseconds of every operation by its signature, with the machine that they were measured on.

    Attributes:
        rows: signature -> Measured.
        run_ms: what a run costs beside its operations.
        machine: see ``machine``.
        batch: items per run.
        seconds: how long measuring took.
    """

    rows: dict[str, Measured]
    run_ms: float
    machine: dict[str, Any]
    batch: int = 1
    seconds: float = 0.0

    def predict(self, model: Any) -> float:
        """Milliseconds of a whole network.

        Args:
            model: ``lowbit.Model`` or its plan.

        Raises:
            ValueError: an operation was not measured; names the layer and what is missing.
        """
        plan: Plan = model if isinstance(model, Plan) else model.plan
        total = self.run_ms
        for op, key in zip(plan.ops, signatures(plan), strict=True):
            if key not in self.rows:
                raise ValueError(f"{self.lacks(key)}; layer {op['name']!r} needs it")
            total += self.rows[key].ms
        return total

    @staticmethod
    def lacks(key: str) -> str:
        """What to say where an operation was not measured."""
        return (
            f"latency table: {key} was not measured: build the table from this network and with these precisions "
            "(lowbit latency)"
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the table as JSON."""
        data = {
            "format": _FORMAT,
            "version": 1,
            "machine": self.machine,
            "batch": self.batch,
            "seconds": self.seconds,
            "run_ms": self.run_ms,
            "rows": [vars(row) for row in self.rows.values()],
        }
        with write_aside(Path(path)) as aside:
            aside.write_text(json.dumps(data, indent=1))

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, force: bool = False) -> LatencyTable:
        """Read a table.

        Args:
            path: what ``save`` wrote.
            force: take times of another machine or version.

        Raises:
            ValueError: the table is of another machine; names the differences.
            lowbit.FormatError: the file is no latency table.
            OSError: it cannot be read.
        """
        try:
            data = json.loads(Path(path).read_text())
            if data["format"] != _FORMAT or data["version"] != 1:
                raise ValueError(f"format {data['format']!r}, version {data['version']!r}")
            found = [Measured(**{**row, "shape": tuple(row["shape"])}) for row in data["rows"]]
            if not all(np.isfinite(row.ms) and row.ms >= 0 for row in found):
                raise ValueError("a time is negative or no number")
            table = cls(
                {row.key: row for row in found},
                float(data["run_ms"]),
                dict(data["machine"]),
                int(data["batch"]),
                float(data["seconds"]),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise lowbit.FormatError(f"{path}: not a latency table: {error}") from None
        here = machine(table.machine.get("threads"))
        other = [k for k in ("cpu", "level", "lowbit") if here[k] != table.machine.get(k)]
        if other and not force:
            what = ", ".join(f"{k} {table.machine.get(k)!r} instead of {here[k]!r}" for k in other)
            raise ValueError(
                f"{path}: measured on another machine: {what}; measure anew (lowbit latency), or force=True"
            )
        return table

    def __str__(self) -> str:
        from lowbit.report.text import table

        order = sorted(self.rows.values(), key=lambda r: (not r.macs, r.layer, r.weights, r.activations))
        cells = [
            [r.layer, r.op, r.weights, r.activations, r.output, "x".join(map(str, r.shape)), f"{1000 * r.ms:.1f}"]
            for r in order
        ]
        head = ["layer", "op", "weights", "activations", "output", "shape", "us"]
        where = f"{self.machine['cpu']}, level {self.machine['level']}, {self.machine['threads']} thread(s)"
        return "\n".join([f"{where}, batch {self.batch}: {len(cells)} operations", *table(head, cells, left=6)])


def measure(
    plans: Sequence[Plan],
    *,
    threads: int | None = None,
    isa: str | None = None,
    batch: int = 1,
    seconds: float = 20.0,
    progress: Progress | None = None,
) -> LatencyTable:
    """Time every operation of some plans.

    Args:
        plans: lowered networks.
        threads: worker threads, default ``lowbit.num_threads()``.
        isa: level, default the best.
        batch: items per run; inputs are random, since times do not depend on values.
        seconds: for all of them together, about; at least eight runs each.
        progress: called as ``progress(stage, done, total)``.
    """
    started = time.perf_counter()
    models = [lowbit.Model(plan) for plan in plans]
    feeds = [random_inputs(model, batch) for model in models]
    profiled = [model.session(threads, isa, profile=True) for model in models]
    plain = [model.session(threads, isa) for model in models]
    ops: list[list[Any]] = [[] for _ in models]
    whole: list[list[float]] = [[] for _ in models]
    rounds, spent, block = 0, 0.0, 4
    while rounds < 3 or spent < seconds:
        began = time.perf_counter()
        for i, feed in enumerate(feeds):
            profiled[i].run(feed)  # warms up: the network before has filled the caches
            for _ in range(block):
                profiled[i].run(feed)
                ops[i].append(profiled[i].op_ms())
            plain[i].run(feed)
            whole[i] += [_run_ms(plain[i], feed) for _ in range(block)]
        spent += time.perf_counter() - began
        rounds += 1
        if progress:
            progress("measuring", min(int(100 * spent / max(seconds, 1e-9)), 100), 100)
    per_op = [_fastest(np.array(runs)) for runs in ops]
    beside = [float(np.mean(np.sort(w)[: _kept(len(w))]) - t.sum()) for w, t in zip(whole, per_op, strict=True)]
    times: dict[str, list[float]] = {}
    about: dict[str, Measured] = {}
    for plan, op_times in zip(plans, per_op, strict=True):
        here: dict[str, list[float]] = {}
        for key, row, ms in zip(signatures(plan), rows(plan), op_times, strict=True):
            here.setdefault(key, []).append(float(ms))
            about.setdefault(
                key,
                Measured(
                    key, row.layer, row.op, row.weights, row.activations, row.output, row.shape[1:], row.macs, 0.0
                ),
            )
        for key, found in here.items():
            times.setdefault(key, []).append(float(np.mean(found)))
    table = {}
    for key, found in times.items():
        mean = float(np.mean(found))
        spread = max(abs(t - mean) for t in found) / mean if mean > 0 else 0.0
        table[key] = Measured(**{**vars(about[key]), "ms": mean, "spread": spread, "networks": len(found)})
    taken = round(time.perf_counter() - started, 1)
    return LatencyTable(table, max(float(np.median(beside)), 0.0), machine(threads, isa), batch, taken)


def measured_ms(
    models: Mapping[str, Any],
    *,
    threads: int | None = None,
    isa: str | None = None,
    batch: int = 1,
    seconds: float = 1.0,
) -> dict[str, float]:
    """Milliseconds of whole networks that take turns: the mean of the fastest quarter of their runs, as in the table.

    Args:
        models: name -> ``lowbit.Model``.
        threads: worker threads, default ``lowbit.num_threads()``.
        isa: level, default the best.
        batch: items per run.
        seconds: for each.
    """
    feeds = {name: random_inputs(model, batch) for name, model in models.items()}
    sessions = {name: model.session(threads, isa) for name, model in models.items()}
    runs: dict[str, list[float]] = {name: [] for name in models}
    started, total = time.perf_counter(), seconds * len(models)
    while time.perf_counter() - started < total or min(map(len, runs.values()), default=8) < 8:
        for name, session in sessions.items():
            session.run(feeds[name])
            runs[name] += [_run_ms(session, feeds[name]) for _ in range(4)]
    return {name: float(np.mean(np.sort(ms)[: _kept(len(ms))])) for name, ms in runs.items()}


def random_inputs(model: Any, batch: int) -> dict[str, Any]:
    """Inputs of the right shape and type."""
    rng = np.random.default_rng(0)
    feed = {}
    for name, dtype, shape in model.inputs:
        values = rng.standard_normal((batch, *shape[1:]), np.float32)
        feed[name] = values if dtype == "float32" else rng.integers(0, 256, values.shape).astype(dtype)
    return feed


def _run_ms(session: Any, feed: dict[str, Any]) -> float:
    started = time.perf_counter()
    session.run(feed)
    return 1000 * (time.perf_counter() - started)


def _kept(runs: int) -> int:
    return max(1, round(_KEPT * runs))


def _fastest(runs: Any) -> Any:
    """Mean time of each operation over the runs (n, ops) that were fastest as a whole."""
    order = np.argsort(runs.sum(axis=1))
    return runs[order[: _kept(len(runs))]].mean(axis=0)


def cover(needed: Sequence[Iterable[str]], times: int = 3) -> list[int]:
    """Which of some sets to take so that every element is taken ``times`` times, or as often as there is: greedy.

    Example:
        >>> cover([{"a"}, {"a", "b"}, {"b", "c"}], times=1)
        [1, 2]
    """
    sets = [set(s) for s in needed]
    left: dict[str, int] = {}
    for s in sets:
        for key in s:
            left[key] = min(left.get(key, 0) + 1, times)
    chosen: list[int] = []
    rest = set(range(len(sets)))
    while any(left.values()):
        best = max(sorted(rest), key=lambda i: sum(left[key] > 0 for key in sets[i]))
        rest.remove(best)
        chosen.append(best)
        for key in sets[best]:
            left[key] = max(left[key] - 1, 0)
    return sorted(chosen)
