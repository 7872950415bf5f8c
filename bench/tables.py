"""Rows of a comparison as lines and as Markdown tables."""

import math

from compare import OURS, Row, geometric_mean

NAMES = {
    "gemm_i8": "GEMM, m x n x k",
    "conv2d_i8": "3x3 convolution",
    "xnor": "1 bit",
    "codebook": "codebook (decode: G weights/s)",
    "net": "whole nets, batch 1",
}


def line(row: Row) -> str:
    """One row for the terminal: best (median) of everyone."""
    if row.kind == "net":
        values = [f"{label} {t.best * 1e3:.2f} ({t.median * 1e3:.2f}) ms" for label, t in row.times.items()]
    else:
        values = [
            f"{label} {row.macs / t.best / 1e9:.1f} ({row.macs / t.median / 1e9:.1f})" for label, t in row.times.items()
        ]
    return f"{row.isa} {row.threads}t {row.name}: {row.ratio:.2f} x, {row.share:.0%} of limit | " + "  ".join(values)


def _number(value: float, how: str) -> str:
    return "-" if math.isnan(value) else format(value, how)


def _table(kind: str, rows: list[Row]) -> list[str]:
    net = kind == "net"
    unit = "ms" if net else "GMAC/s"
    out = [
        f"| {NAMES[kind]} | threads | lowbit {unit} (median) | of limit | best 8-bit peer {unit} | ratio "
        f"| best float32 {unit} | against float32 |",
        "|---|---|---|---|---|---|---|---|",
    ]

    def show(row: Row, seconds: float) -> str:
        return f"{seconds * 1e3:.2f}" if net else f"{row.macs / seconds / 1e9:.4g}"

    for row in rows:
        mine = row.times.get(OURS)
        floats = {label: t for label, t in row.times.items() if label != OURS and label not in row.low}
        best_float = min(floats, key=lambda label: floats[label].best, default=None)
        out.append(
            f"| {row.name} | {row.threads} "
            f"| {f'{show(row, mine.best)} ({show(row, mine.median)})' if mine else '-'} | {_number(row.share, '.0%')} "
            f"| {f'{show(row, row.times[row.best_peer].best)} {row.best_peer}' if row.low else '-'} "
            f"| {_number(row.ratio, '.2f')} "
            f"| {f'{show(row, floats[best_float].best)} {best_float}' if best_float else '-'} "
            f"| {_number(row.float_ratio, '.2f')} |"
        )
    for threads in dict.fromkeys(row.threads for row in rows):
        some = [row for row in rows if row.threads == threads]
        keys = ("ratio", "float_ratio")
        mean, over_float = (_number(geometric_mean([getattr(row, k) for row in some]), ".2f") for k in keys)
        out.append(f"| **geometric mean** | {threads} | | | | **{mean}** | | **{over_float}** |")
    return [*out, ""]


def markdown(rows: list[Row], report: dict) -> str:
    """All of one level's results."""
    out = [f"### Level {report['isa']}", ""]
    for kind, p in report["probes"].items():
        rate, clock = p["macs_per_second"], p["clock_hz"]
        out.append(
            f"- probe {kind}: {rate / 1e9:.4g} GMAC/s at {clock / 1e9:.2f} GHz = {rate / clock:.4g} of "
            f"{p['limit_per_cycle']:.4g} MACs per cycle{'' if p['valid'] else ' (does not count)'}"
        )
    out.append("")
    for kind in NAMES:
        some = [row for row in rows if row.kind == kind]
        if some:
            out += _table(kind, some)
    for title, key, unit, factor in (
        ("a call from Python", "calls", "us", 1e6),
        ("entropy search, 2048 bins", "entropy_search", "ms", 1e3),
    ):
        if key in report:
            out += [f"| {title} | {unit} |", "|---|---|"]
            out += [f"| {name} | {seconds * factor:.2f} |" for name, seconds in report[key].items()] + [""]
    for threads, times in report.get("doors", {}).items():
        out += [f"| GEMM from C++, {threads} thread(s) | us | GMAC/s |", "|---|---|---|"]
        for name, seconds in times.items():
            m, n, k = (int(v) for v in name.split(" x "))
            out.append(f"| {name} | {seconds * 1e6:.2f} | {m * n * k / seconds / 1e9:.4g} |")
        out.append("")
    return "\n".join(out)
