"""Mixed precision: measured latencies, sensitivities, budgets (docs/mixed_precision.md)."""

from __future__ import annotations

from lowbit.search.latency import LatencyTable, Measured, measured_ms
from lowbit.search.space import METRICS, SearchLayer, Site, Space, bits_of, latency_table

__all__ = [
    "METRICS",
    "LatencyTable",
    "Measured",
    "SearchLayer",
    "Site",
    "Space",
    "bits_of",
    "latency_table",
    "measured_ms",
]
