"""Mixed precision: measured latencies, sensitivities, budgets (docs/mixed_precision.md)."""

from __future__ import annotations

from lowbit.search.exact import BudgetError, Program, Solution, exact
from lowbit.search.latency import LatencyTable, Measured, measured_ms
from lowbit.search.sensitivity import Evaluator, sensitivities
from lowbit.search.space import METRICS, SearchLayer, Site, Space, bits_of, latency_table

__all__ = [
    "METRICS",
    "BudgetError",
    "Evaluator",
    "LatencyTable",
    "Measured",
    "Program",
    "SearchLayer",
    "Site",
    "Solution",
    "Space",
    "bits_of",
    "exact",
    "latency_table",
    "measured_ms",
    "sensitivities",
]
