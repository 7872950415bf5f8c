"""The peak probe: what it answers and refuses. How fast it reads is for bench/, not for a test."""

import math

import pytest

from lowbit import _core

NEEDS = {"vnni": "avx512_vnni", "amx": "amx", "avx2": "avx2", "fma": "avx2", "xnor": "avx512"}


@pytest.mark.parametrize("kind", NEEDS)
def test_probe_answers_where_the_machine_has_the_instruction(kind):
    if NEEDS[kind] not in _core.isas():
        with pytest.raises(ValueError, match=f"lacks the instructions of '{kind}'"):
            _core.peak_probe(kind, 0.001)
        return
    peak = _core.peak_probe(kind, 0.002)
    assert peak.keys() == {"macs_per_second", "clock_hz", "limit_per_cycle", "valid"}
    assert peak["macs_per_second"] > 1e8
    assert 1e8 < peak["clock_hz"] < 1e11
    per_cycle = peak["limit_per_cycle"] * (3 if kind == "xnor" else 1)
    assert math.log2(per_cycle).is_integer()


@pytest.mark.parametrize("seconds", [0, -1, 11, math.nan, math.inf])
def test_probe_refuses_a_senseless_duration(seconds):
    with pytest.raises(ValueError, match=r"peak_probe: seconds must be in \(0, 10\]"):
        _core.peak_probe("vnni", seconds)


def test_probe_names_the_kinds_there_are():
    with pytest.raises(ValueError, match="unknown kind 'popcnt'; there are vnni, amx, avx2, fma, xnor"):
        _core.peak_probe("popcnt")
