"""What a reader of the report should know: slow layers and why, layers left in float, layers worth leaving in float."""

from __future__ import annotations

from lowbit.report.report import LayerReport, Report

LOW_SQNR = 20.0  # dB of a layer's own error below which leaving it in float is worth a try


def exclusions(report: Report) -> list[str]:
    """Up to three layers to leave in float, worst first, where answers differ and a layer's own error is large."""
    if report.agreement >= 99:
        return []
    own = {layer.name: layer.sqnr_own for layer in report.layers if not layer.weight.startswith("float")}
    poor = {name: dB for name, dB in own.items() if dB is not None and dB < LOW_SQNR}
    return sorted(poor, key=poor.__getitem__)[:3]


def notes(report: Report) -> list[str]:
    """What a reader should know: layers slower than float and why, layers left in float, time spent between layers."""
    out = []
    total = sum(layer.ms or 0.0 for layer in report.layers) + sum(o["ms"] for o in report.others)
    slow = [
        layer
        for layer in report.layers
        if layer.ms is not None
        and layer.float_ms is not None
        and layer.ms > 1.05 * layer.float_ms
        and layer.ms > 0.02 * total
    ]
    for layer in sorted(slow, key=lambda layer: (layer.float_ms or 0) - (layer.ms or 0))[:5]:
        ratio = (layer.ms or 0) / max(layer.float_ms or 0, 1e-9)
        out.append(f"{layer.name} takes {layer.ms:.3f} ms, {ratio:.2f} x its float time: {why_slow(layer)}")
    kept = [layer for layer in report.layers if layer.weight.startswith("float")]
    if kept and len(kept) < len(report.layers):
        share = 100 * sum(layer.ms or 0 for layer in kept) / total if total else 0.0
        out.append(f"{len(kept)} of {len(report.layers)} layers run in float32 and take {share:.0f} % of the time")
    between = sum(o["ms"] for o in report.others)
    if total and between > 0.2 * total:
        worst = max(report.others, key=lambda o: float(o["ms"]))
        out.append(
            f"{100 * between / total:.0f} % of the time goes into operations that multiply no weights, most into "
            f"{worst['count']} {worst['op']} ({worst['ms']:.3f} ms)"
        )
    unmatched = sum(1 for layer in report.layers if layer.float_ms is None)
    if unmatched:
        out.append(
            f"{unmatched} layers could not be matched with one of onnxruntime's nodes: no float time beside them"
        )
    return out


def why_slow(layer: LayerReport) -> str:
    """The likeliest reason why a layer gains nothing, from what it moves and multiplies."""
    if layer.weight.startswith("float"):
        return "it stays in float32, and conversions stand around it"
    if "dynamic" in layer.activation:
        return "its input is ranged and quantized at run time, which reads it twice more"
    per_byte = layer.macs / max(layer.moved, 1)
    if layer.op == "depthwise" or per_byte < 8:
        return f"{per_byte:.1f} multiplications per byte moved, so memory and not arithmetic sets its pace"
    if layer.macs < 200_000:
        return "so little work that starting it costs as much as doing it"
    if layer.depth < 64:
        return f"its sums have only {layer.depth} products, too few to fill the 8-bit dot products"
    return "no single cause stands out; its shape does not suit the kernels"
