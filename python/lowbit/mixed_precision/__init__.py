"""Mixed precision: measured latencies, sensitivities, budgets; ``lowbit.search`` (docs/mixed_precision.md)."""

from lowbit.mixed_precision.assignments import SearchLayer, bits_of
from lowbit.mixed_precision.exact import BudgetError, Program, Solution, exact
from lowbit.mixed_precision.latency import LatencyTable, Measured, measured_ms
from lowbit.mixed_precision.result import Point, SearchResult, load_recipe, pareto, save_recipe
from lowbit.mixed_precision.run import limits, search
from lowbit.mixed_precision.sampler import sample
from lowbit.mixed_precision.sensitivity import Evaluator, sensitivities
from lowbit.mixed_precision.sites import Site
from lowbit.mixed_precision.space import METRICS, Space, latency_table

__all__ = [
    "METRICS",
    "BudgetError",
    "Evaluator",
    "LatencyTable",
    "Measured",
    "Point",
    "Program",
    "SearchLayer",
    "SearchResult",
    "Site",
    "Solution",
    "Space",
    "bits_of",
    "exact",
    "latency_table",
    "limits",
    "load_recipe",
    "measured_ms",
    "pareto",
    "sample",
    "save_recipe",
    "search",
    "sensitivities",
]
