"""The report's plots as SVG text, drawn with matplotlib without a display."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from lowbit.report.report import LayerReport, Threshold
from lowbit.report.units import size

BLUE, ORANGE, GREY, RED = "#2563a8", "#d97b29", "#9aa3ad", "#b83232"
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "lowbit",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#b6bcc4",
    "axes.labelcolor": "#444b54",
    "xtick.color": "#444b54",
    "ytick.color": "#444b54",
    "axes.grid": True,
    "grid.color": "#e8ebee",
    "axes.axisbelow": True,
    "legend.frameon": False,
}


def _figure(width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def _svg(figure: Any) -> str:
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None}, transparent=True)
    return text.getvalue()[text.getvalue().index("<svg") :]


def _styled(draw: Any) -> Any:
    """Decorator: draws under `STYLE`, leaving the caller's matplotlib settings alone."""

    def styled(*arguments: Any) -> str:
        import matplotlib

        with matplotlib.rc_context(STYLE):
            return str(draw(*arguments))

    return styled


def _rows(axes: Any, names: list[str], label: str) -> None:
    axes.set_yticks(np.arange(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(label)


@_styled
def sizes(steps: list[tuple[str, int]]) -> str:
    """A waterfall of bytes: what is left after each step, and in grey what the step saved."""
    figure, axes = _figure(7.6, 0.5 + 0.32 * len(steps))
    names, counts = [step for step, _ in steps], [count for _, count in steps]
    before = [counts[0], *counts[:-1]]
    unit, divisor = ("MB", 1e6) if counts[0] >= 1e6 else ("kB", 1e3)
    axes.barh(names, [b / divisor for b in before], 0.66, color="#d5dae0")
    axes.barh(names, [c / divisor for c in counts], 0.66, color=BLUE)
    for at, (count, taller) in enumerate(zip(counts, map(max, before, counts), strict=True)):
        change = f"  ({counts[0] / count:.1f} x smaller)" if 0 < count < counts[0] else ""
        axes.annotate(size(count) + change, (taller / divisor, at), (5, 0), textcoords="offset points", va="center")
    axes.set_xlim(0, 1.14 * max(counts) / divisor)
    _rows(axes, names, unit)
    return _svg(figure)


@_styled
def sqnr(layers: list[LayerReport]) -> str:
    """Bars per layer: weights alone, input alone; a dot for the running network."""
    figure, axes = _figure(7.6, 0.9 + 0.24 * len(layers))
    at = np.arange(len(layers))

    def values(name: str) -> Any:
        dB = [getattr(layer, name) for layer in layers]
        return np.array([np.nan if v is None or np.isinf(v) else v for v in dB], float)

    axes.barh(at - 0.18, values("sqnr_weight"), 0.34, color=BLUE, label="weights alone")
    axes.barh(at + 0.18, values("sqnr_activation"), 0.34, color=ORANGE, label="input alone")
    axes.plot(values("sqnr"), at, "o", ms=4.5, color="#1d232a", label="in the running network")
    _rows(axes, [layer.name for layer in layers], "SQNR, dB (more is better)")
    figure.legend(loc="outside upper right", ncols=3)
    return _svg(figure)


@_styled
def times(layers: list[LayerReport]) -> str:
    """Milliseconds per layer, float behind low-bit."""
    figure, axes = _figure(7.6, 0.9 + 0.22 * len(layers))
    at = np.arange(len(layers))
    axes.barh(at, [layer.float_ms or 0 for layer in layers], 0.74, color="#d5dae0", label="float, onnxruntime")
    slower = [(layer.float_ms or 0) < (layer.ms or 0) and layer.float_ms is not None for layer in layers]
    colours = [RED if s else BLUE for s in slower]
    axes.barh(at, [layer.ms or 0 for layer in layers], 0.4, color=colours, label="low-bit (red: slower than float)")
    _rows(axes, [layer.name for layer in layers], "ms")
    figure.legend(loc="outside upper right", ncols=2)
    return _svg(figure)


@_styled
def threshold(chosen: Threshold) -> str:
    """Histogram of |x| with the threshold, and over it the divergence of every threshold tried."""
    from matplotlib.ticker import LogLocator, NullLocator

    figure, axes = _figure(3.75, 2.5)
    counts = np.asarray(chosen.counts, float)
    used = int(np.nonzero(counts)[0][-1]) + 1 if counts.any() else 1
    step = max(1, used // 128)
    grouped = np.add.reduceat(counts[:used], np.arange(0, used, step))
    edges = np.append(np.arange(0, used, step), used) * chosen.width
    axes.stairs(np.maximum(grouped, 0.5), edges, baseline=0.5, fill=True, color="#c5d3e3")
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(numticks=5))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_ylim(0.5, None)
    axes.set_xlim(0, max(edges[-1], chosen.threshold) * 1.02)
    axes.axvline(chosen.threshold, color=RED, lw=1.4)
    axes.set_xlabel("|x|")
    axes.set_ylabel("values per bin")
    axes.set_title(chosen.tensor if len(chosen.tensor) < 44 else "..." + chosen.tensor[-41:], fontsize=9, loc="left")
    finite = np.isfinite(chosen.curve) if chosen.curve else np.array([])
    if finite.any():
        other = axes.twinx()
        some = np.flatnonzero(finite)[:: max(1, int(finite.sum()) // 200)]
        other.plot(np.asarray(chosen.curve_at)[some], np.asarray(chosen.curve)[some], color=ORANGE, lw=1.2)
        other.set_yscale("log")
        other.yaxis.set_major_locator(LogLocator(numticks=4))
        other.yaxis.set_minor_locator(NullLocator())
        other.grid(visible=False)
        other.spines["right"].set_visible(True)
        other.set_ylabel("KL divergence", color=ORANGE)
    return _svg(figure)
