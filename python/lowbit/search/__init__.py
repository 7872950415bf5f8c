"""Mixed precision: measured latencies, sensitivities, budgets (docs/mixed_precision.md).

The package is also a function: ``lowbit.search(net, data, budget={"latency": 0.6})`` is ``lowbit.search.run.search``.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

from lowbit.search.exact import BudgetError, Program, Solution, exact
from lowbit.search.latency import LatencyTable, Measured, measured_ms
from lowbit.search.result import Point, SearchResult, load_recipe, pareto
from lowbit.search.run import limits, search
from lowbit.search.sampler import sample
from lowbit.search.sensitivity import Evaluator, sensitivities
from lowbit.search.space import METRICS, SearchLayer, Site, Space, bits_of, latency_table

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
    "search",
    "sensitivities",
]


class _Callable(ModuleType):
    """A package that is called."""

    __module__ = "lowbit.search.run"

    def __call__(self, *args: Any, **options: Any) -> SearchResult:
        return search(*args, **options)


sys.modules[__name__].__class__ = _Callable
