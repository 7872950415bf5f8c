"""pytest-benchmark entries: `pytest bench` (plain `pytest` does not collect them). Nothing here asserts a time."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import numpy as np
import pytest

import lowbit


def pytest_generate_tests(metafunc):
    if "isa" in metafunc.fixturenames:
        metafunc.parametrize("isa", [level for level in lowbit.isas() if level != "scalar"])
    if "threads" in metafunc.fixturenames:
        metafunc.parametrize("threads", [1, 2])


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def timed(benchmark):
    """Runs one call under pytest-benchmark and notes its rate."""

    def run(call, macs: int = 0):
        call()
        benchmark(call)
        if macs and benchmark.stats:
            benchmark.extra_info["GMAC/s"] = round(macs / benchmark.stats.stats.min / 1e9, 1)

    return run
