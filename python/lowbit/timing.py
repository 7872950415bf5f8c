"""Wall-clock timing of several functions beside each other, so that what disturbs one disturbs all."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Timing:
    """Milliseconds of one function: the fastest run, the median run, and how many runs there were."""

    min: float
    median: float
    runs: int


def interleaved(
    functions: dict[str, Callable[[], object]], seconds: float = 1.0, block_seconds: float = 0.05
) -> dict[str, Timing]:
    """Times functions in short alternating blocks.

    Every block begins with a run that is not counted: it fills the caches, and outlasts other libraries' threads, which
    spin for a while after their own block.

    Args:
        functions: Name -> function without arguments.
        seconds: Time for each function, about; at least 5 runs.
        block_seconds: Time of one block.

    Example:
        >>> interleaved({"nothing": lambda: None}, seconds=0.001)["nothing"].runs >= 5
        True
    """
    spent = dict.fromkeys(functions, 0.0)
    runs: dict[str, list[float]] = {name: [] for name in functions}
    while any(spent[n] < seconds or len(runs[n]) < 5 for n in functions):
        for name, function in functions.items():
            function()
            block = 0.0
            while block < block_seconds or len(runs[name]) < 5:
                started = time.perf_counter()
                function()
                taken = time.perf_counter() - started
                runs[name].append(1000 * taken)
                block += max(taken, 1e-6)
            spent[name] += block
    return {name: Timing(min(ms), float(np.median(ms)), len(ms)) for name, ms in runs.items()}
