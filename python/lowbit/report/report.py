"""The result of a comparison as plain values."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lowbit.atomic import write_aside


@dataclass
class LayerReport:
    """One convolution or matrix product.

    Attributes:
        name: Canonical layer name.
        op: The plan's operator.
        weight: Precision of the weights, such as ``int8 x 64`` (64 scales), ``float32``.
        activation: Precision of the input.
        output: Precision of the output.
        depth: Products in one sum.
        macs: Multiply-accumulates for one image.
        bytes: Bytes of weights, scales and bias in the file.
        float_bytes: Bytes of the float weights and bias.
        moved: Bytes of weights, input and output for one image.
        ms: Median milliseconds in the engine, None where not measured.
        float_ms: The same in onnxruntime, of the nodes that this layer stands for; None where they cannot be told.
        sqnr_weight: dB, quantized weights on the float network's inputs, against the float layer's sums.
        sqnr_activation: dB, float weights on quantized inputs.
        sqnr: dB, the layer's real output in the engine against the float network's, all earlier errors included.
    """

    name: str
    op: str
    weight: str
    activation: str
    output: str
    depth: int
    macs: int
    bytes: int
    float_bytes: int
    moved: int
    ms: float | None = None
    float_ms: float | None = None
    sqnr_weight: float | None = None
    sqnr_activation: float | None = None
    sqnr: float | None = None

    @property
    def sqnr_own(self) -> float | None:
        """DB of the layer's own two errors together, taken as independent."""
        if self.sqnr_weight is None or self.sqnr_activation is None:
            return None
        noise = 10 ** (-self.sqnr_weight / 10) + 10 ** (-self.sqnr_activation / 10)
        return math.inf if noise == 0 else -10 * math.log10(noise)


@dataclass
class Threshold:
    """How one activation's range was chosen: for the plot of histogram, divergence and threshold.

    Attributes:
        tensor: Its name.
        width: Width of a bin of |x|.
        counts: Values per bin.
        threshold: |x| that becomes code 127.
        maximum: Largest |x| seen.
        method: Name of the observer.
        curve_at: Thresholds tried.
        curve: KL divergence of each; empty where the method computes none.
    """

    tensor: str
    width: float
    counts: list[int]
    threshold: float
    maximum: float
    method: str
    curve_at: list[float] = field(default_factory=list)
    curve: list[float] = field(default_factory=list)


@dataclass
class Report:
    """A float network and its low-bit version side by side; `lowbit.compare` makes it.

    ``print(report)`` is a table, `to_html` one file with plots that needs no network, `to_json` everything as JSON.
    Accuracies and agreement are in percent, times in milliseconds for one batch, energy in microjoules for one image.
    """

    net: str
    model: str
    recipe: str
    cpu: str
    level: str
    threads: int
    batch: int
    images: int
    accuracy_float: float | None
    accuracy: float | None
    agreement: float
    file_bytes_float: int
    file_bytes: int
    ms_float: float
    ms: float
    ms_float_min: float
    ms_min: float
    runs: int
    energy_float: float
    energy: float
    sqnr_images: int
    layers: list[LayerReport]
    others: list[dict[str, Any]] = field(
        default_factory=list
    )  # op, count, ms: what is no convolution or matrix product
    size_steps: list[tuple[str, int]] = field(default_factory=list)  # of `lowbit.compression.size_steps`
    sqnr_output: float | None = None
    notes: list[str] = field(default_factory=list)
    exclusions: list[str] = field(default_factory=list)
    thresholds: list[Threshold] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def drop(self) -> float | None:
        """Points of top-1 accuracy lost."""
        return None if self.accuracy is None or self.accuracy_float is None else self.accuracy_float - self.accuracy

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON values: infinite dB become None."""
        plain = asdict(self)
        plain["drop"] = self.drop
        for row, layer in zip(plain["layers"], self.layers, strict=True):
            row["sqnr_own"] = layer.sqnr_own
        return dict(_finite(plain))

    def to_json(self, path: str | Path) -> None:
        """Writes `to_dict` to a file."""
        with write_aside(path) as file:
            file.write_text(json.dumps(self.to_dict(), indent=1) + "\n", encoding="utf-8")

    def to_html(self, path: str | Path) -> None:
        """Writes one HTML file with tables and plots, readable offline.

        Raises:
            ImportError: matplotlib or jinja2 is missing: ``pip install "lowbit[report]"``.
        """
        from lowbit.report.html import render

        content = render(self)
        with write_aside(path) as file:
            file.write_text(content, encoding="utf-8")

    def __str__(self) -> str:
        from lowbit.report.text import render

        return render(self)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    return [_finite(v) for v in value] if isinstance(value, list) else value
