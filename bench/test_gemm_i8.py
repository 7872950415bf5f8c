"""The GEMM shapes, every level; and the peers, held to nothing."""

import pytest

import compare
import ours
import peers

SHAPES = [pytest.param(shape, id="x".join(map(str, shape))) for shape in compare.GEMMS]


@pytest.mark.parametrize("shape", SHAPES)
def test_lowbit(shape, isa, threads, rng, timed):
    m, n, k = shape
    timed(ours.gemm(m, n, k, threads, isa, rng), m * n * k)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("label", ["torch._int_mm", "oneDNN qlinear", "onnxruntime u8s8", "torch fp32"])
def test_peer(shape, label, threads, rng, timed):
    m, n, k = shape
    low, full = peers.gemm(m, n, k, threads, rng)
    calls = {**low, **full}
    if label not in calls:
        pytest.skip(f"{label} is not installed")
    timed(calls[label], m * n * k)
