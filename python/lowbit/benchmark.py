"""``lowbit bench``: milliseconds per run, beside onnxruntime's float network in the same process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import lowbit
from lowbit.report.text import table
from lowbit.report.units import milliseconds, quantity, ratio
from lowbit.timing import interleaved


def bench(
    model: str | Path | Any,
    against: str | Path | None = None,
    *,
    threads: Sequence[int] | None = None,
    per_layer: bool = False,
    batch: int = 1,
    seconds: float = 2.0,
    progress: Callable[[str, int, int | None], None] | None = None,
) -> dict[str, Any]:
    """Times a model, alternating with onnxruntime on a float file if one is given.

    Args:
        model: A `lowbit.Model` or the path of a ``.lowbit`` file.
        against: ONNX file.
        threads: Thread counts; default only ``lowbit.num_threads()``.
        per_layer: Time every operation too.
        batch: Items per run; inputs are random, since times do not depend on values.
        seconds: For each network and thread count.
        progress: Called as ``progress(stage, done, total)``.

    Returns:
        ``results``: for every thread count the fastest and the median ms of both, and their ratio; ``layers``.
    """
    name = Path(model).name if isinstance(model, str | Path) else "model"
    model = lowbit.load(model) if isinstance(model, str | Path) else model
    if batch < 1 or seconds <= 0:
        raise ValueError(f"bench: batch {batch}, seconds {seconds}")
    counts = list(threads or [lowbit.num_threads()])
    rng = np.random.default_rng(0)
    feed = {}
    for key, dtype, shape in model.inputs:
        values = rng.standard_normal((batch, *shape[1:]), np.float32)
        feed[key] = values if dtype == "float32" else rng.integers(0, 256, values.shape).astype(dtype)
    results: list[dict[str, Any]] = []
    layers: list[dict[str, Any]] = []
    for done, count in enumerate(counts):
        if progress:
            progress("timing", done, len(counts))
        session = model.session(count)
        functions: dict[str, Callable[[], object]] = {"lowbit": lambda session=session: session.run(feed)}  # type: ignore[misc]
        if against is not None:
            functions["float"] = _float_run(against, feed, batch, count)
        timed = interleaved(functions, seconds)
        row: dict[str, Any] = {"threads": count}
        for key, timing in timed.items():
            row |= {f"{key}_ms": timing.median, f"{key}_min_ms": timing.min, f"{key}_runs": timing.runs}
        results.append(row)
        if per_layer:
            layers.append({"threads": count, "ops": _per_layer(model, feed, count)})
    if progress:
        progress("timing", len(counts), len(counts))
    return {
        "model": name,
        "against": None if against is None else Path(against).name,
        "cpu": lowbit.cpu_name(),
        "level": lowbit.best_isa(),
        "batch": batch,
        "macs": sum(row.macs for row in model.layers()),
        "results": results,
        "layers": layers,
    }


def _float_run(path: str | Path, feed: dict[str, Any], batch: int, threads: int) -> Callable[[], object]:
    from lowbit.float_reference import FloatNet

    net = FloatNet(path, threads=threads)
    rng = np.random.default_rng(0)
    shapes = {i.name: i.shape[1:] for i in net.session.get_inputs()}
    own = {}
    for name, shape in shapes.items():
        given = feed.get(name)
        if given is not None and given.dtype == np.float32:
            own[name] = given
        elif all(isinstance(d, int) for d in shape):
            own[name] = rng.standard_normal((batch, *shape), np.float32)
        else:
            raise ValueError(f"{path}: input {name!r} has open sizes {shape}")
    outputs = net.outputs
    return lambda: net.session.run(outputs, own)


def _per_layer(model: Any, feed: dict[str, Any], threads: int, runs: int = 15) -> list[dict[str, Any]]:
    session = model.session(threads, profile=True)
    times = []
    for i in range(runs + 2):
        session.run(feed)
        if i >= 2:
            times.append(session.op_ms())
    batch = len(next(iter(feed.values())))
    return [
        {"layer": r.layer, "op": r.op, "ms": float(ms), "gmac_per_s": batch * r.macs / ms / 1e6 if ms > 0 else None}
        for r, ms in zip(model.layers(), np.median(np.array(times), axis=0), strict=True)
    ]


def text(result: dict[str, Any]) -> str:
    """The result of `bench` for people."""
    head = f"{result['model']}, batch {result['batch']}, {quantity(result['macs'])} multiply-adds an image"
    lines = [head, f"{result['cpu']}, level {result['level']}", ""]
    header = ["threads", "low-bit ms", "fastest"]
    if result["against"]:
        header += ["float ms", "fastest", "median", "fastest runs"]
        lines.insert(1, f"against {result['against']} in onnxruntime, in alternating blocks")
    rows = []
    for r in result["results"]:
        row = [str(r["threads"]), milliseconds(r["lowbit_ms"]), milliseconds(r["lowbit_min_ms"])]
        if result["against"]:
            row += [milliseconds(r["float_ms"]), milliseconds(r["float_min_ms"])]
            row += [ratio(r["float_ms"], r["lowbit_ms"], "faster", "slower")]
            row += [ratio(r["float_min_ms"], r["lowbit_min_ms"], "faster", "slower")]
        rows.append(row)
    lines += table(header, rows)
    for entry in result["layers"]:
        ops = [
            [op["layer"], op["op"], milliseconds(op["ms"]), f"{op['gmac_per_s']:.0f}" if op["gmac_per_s"] else ""]
            for op in entry["ops"]
        ]
        lines += ["", f"{entry['threads']} thread{'s' if entry['threads'] != 1 else ''}"]
        lines += table(["layer", "op", "ms", "GMAC/s"], ops, left=2)
    return "\n".join(lines)
