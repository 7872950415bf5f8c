"""A report as a table for terminals; plain text, no extra needed."""

from __future__ import annotations

from lowbit.report.report import Report
from lowbit.report.units import decibel, milliseconds, quantity, ratio, size

ENERGY_BASIS = (
    "an argument, not a measurement: operations and one 1 MB cache access per 8 bytes moved, "
    "at the 45 nm costs of Horowitz (2014)"
)


def table(header: list[str], rows: list[list[str]], left: int = 1) -> list[str]:
    r"""Aligned columns: the first `left` to the left, the others to the right.

    Example:
        >>> print("\n".join(table(["name", "ms"], [["conv1", "1.25"], ["fc", "0.1"]])))
        name     ms
        conv1  1.25
        fc      0.1
    """
    widths = [max(len(r[i]) for r in [header, *rows]) for i in range(len(header))]
    return [
        "  ".join(
            c.ljust(w) if i < left else c.rjust(w) for i, (c, w) in enumerate(zip(r, widths, strict=True))
        ).rstrip()
        for r in [header, *rows]
    ]


def summary_rows(report: Report) -> list[list[str]]:
    """What, float, low-bit, comparison: the table at the top of every form of the report."""
    rows = []
    if report.accuracy is not None and report.accuracy_float is not None and report.drop is not None:
        change = f"{0.0 - report.drop:+.2f} points"
        rows.append(
            [f"top-1, {report.images} images", f"{report.accuracy_float:.2f} %", f"{report.accuracy:.2f} %", change]
        )
    rows.append([f"same answer, {report.images} images", "", f"{report.agreement:.2f} %", ""])
    if report.sqnr_output is not None:
        rows.append([f"output SQNR, {report.sqnr_images} images", "", f"{decibel(report.sqnr_output)} dB", ""])
    rows += [
        [
            "file",
            size(report.file_bytes_float),
            size(report.file_bytes),
            ratio(report.file_bytes_float, report.file_bytes, "smaller", "larger"),
        ],
        [
            f"time, batch {report.batch}, median",
            f"{milliseconds(report.ms_float)} ms",
            f"{milliseconds(report.ms)} ms",
            ratio(report.ms_float, report.ms, "faster", "slower"),
        ],
        [
            f"time, fastest of {report.runs}",
            f"{milliseconds(report.ms_float_min)} ms",
            f"{milliseconds(report.ms_min)} ms",
            ratio(report.ms_float_min, report.ms_min, "faster", "slower"),
        ],
        [
            "energy*",
            f"{report.energy_float:.0f} uJ",
            f"{report.energy:.0f} uJ",
            ratio(report.energy_float, report.energy, "less", "more"),
        ],
    ]
    return rows


def steps_line(steps: list[tuple[str, int]]) -> str:
    """The steps of `lowbit.compression.size_steps`.

    Example:
        >>> steps_line([("float32", 8000), ("pruned", 2000), ("shared codes", 400)])
        'float32 8.0 kB -> pruned 2.0 kB -> shared codes 400 B (20.00 x smaller)'
    """
    change = ratio(steps[0][1], steps[-1][1], "smaller", "larger")
    return " -> ".join(f"{step} {size(count)}" for step, count in steps) + f" ({change})"


LAYER_HEADER = [
    "layer",
    "op",
    "weights",
    "in",
    "out",
    "MACs",
    "bytes",
    "ms",
    "float ms",
    "dB w",
    "dB a",
    "dB own",
    "dB here",
]


def layer_rows(report: Report) -> list[list[str]]:
    """One row per convolution and matrix product, as in `LAYER_HEADER`."""
    return [
        [
            *(layer.name, layer.op, layer.weight, layer.activation, layer.output),
            *(quantity(layer.macs), size(layer.bytes), milliseconds(layer.ms), milliseconds(layer.float_ms)),
            *(decibel(d) for d in (layer.sqnr_weight, layer.sqnr_activation, layer.sqnr_own, layer.sqnr)),
        ]
        for layer in report.layers
    ]


def render(report: Report) -> str:
    """The whole report as text."""
    threads = f"{report.threads} thread" + ("s" if report.threads != 1 else "")
    lines = [
        f"{report.net} (float, onnxruntime {report.versions.get('onnxruntime', '?')}) against "
        f"{report.model} ({report.recipe})",
        f"{report.cpu}, level {report.level}, {threads}",
        "",
        *table(["", "float", "low-bit", ""], summary_rows(report)),
        *(["", f"weights and biases: {steps_line(report.size_steps)}"] if report.size_steps else []),
        "",
        *table(LAYER_HEADER, layer_rows(report), left=5),
    ]
    if report.others:
        lines += [
            "",
            "the rest: " + ", ".join(f"{o['count']} {o['op']} {milliseconds(o['ms'])} ms" for o in report.others),
        ]
    lines += [
        "",
        "SQNR in dB, one layer at a time: w = its quantized weights alone, a = its quantized input alone, own = both;",
        "here = its output in the running network, errors of all layers before it included.",
        f"* energy: {ENERGY_BASIS}.",
    ]
    if report.notes:
        lines += ["", "notes", *(f"  - {note}" for note in report.notes)]
    if report.exclusions:
        lines += ["", "to try: " + " ".join(f"--set '{name}=float32'" for name in report.exclusions)]
    return "\n".join(lines)
