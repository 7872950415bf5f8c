"""Interleaved best-of-N: the contenders take turns, so that a disturbance of the machine meets them all alike."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Timing:
    """Seconds per call: the best and the median of `readings` short runs."""

    best: float
    median: float
    readings: int


def settle(limit: float = 0.3) -> None:
    """Waits until this process is idle: a thread pool spins after its work and would hold a core of the next one.

    onnxruntime's workers spin for 20 ms. The kernel may account a running thread's time only at its ticks (4 ms), so
    two quiet spells longer than a tick are asked for.
    """
    end = time.perf_counter() + limit
    quiet = 0
    while quiet < 2 and time.perf_counter() < end:
        used = time.process_time()
        time.sleep(6e-3)
        quiet = quiet + 1 if time.process_time() - used < 1e-3 else 0


def interleave(
    calls: dict[str, Callable[[], object]],
    seconds: float = 1.0,
    quiet: bool = False,
    every_round: Callable[[], object] | None = None,
    burst: float = 1e-3,
    turn: float = 1e-2,
) -> dict[str, Timing]:
    """Times every call in turn for about `seconds` each, at least 20 readings.

    A turn is one or more readings and lasts about `turn` seconds, or one call if that is longer; calls shorter than
    `burst` are repeated inside one reading. With `quiet`, each turn waits until the threads of the one before stop
    spinning. `every_round` runs between the rounds.
    """
    repeats: dict[str, int] = {}
    readings: dict[str, list[float]] = {name: [] for name in calls}
    for name, call in calls.items():
        call()
        once = 1e9
        for _ in range(5):
            started = time.perf_counter()
            call()
            once = min(once, time.perf_counter() - started)
        repeats[name] = max(1, round(burst / max(once, 1e-8)))
    spent = dict.fromkeys(calls, 0.0)
    while any(spent[name] < seconds or len(readings[name]) < 20 for name in calls):
        if every_round:
            every_round()
        for name, call in calls.items():
            if quiet:
                settle()
            k = repeats[name]
            call()  # brings caches, clock and workers to this contender's steady state
            began = now = time.perf_counter()
            while now - began < turn:
                started = now
                for _ in range(k):
                    call()
                now = time.perf_counter()
                readings[name].append((now - started) / k)
            spent[name] += now - began
    return {name: Timing(min(t), statistics.median(t), len(t)) for name, t in readings.items()}
