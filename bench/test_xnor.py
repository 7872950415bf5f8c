"""1 bit: the GEMM shapes and 3x3 layers of compare.py, every level."""

import pytest

import compare
import lowbit
import ours

LAYERS = [pytest.param(layer, id=f"{layer[1]}ch@{layer[0]}") for layer in compare.CONVS]
SHAPES = [pytest.param(shape, id="x".join(map(str, shape))) for shape in compare.XNOR_GEMMS]


@pytest.mark.parametrize("shape", SHAPES)
def test_gemm(shape, isa, threads, rng, timed):
    m, n, k = shape
    timed(ours.xnor_gemm(m, n, k, threads, isa, rng), m * n * k)


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("kind", ["float", "bits"])
def test_conv(layer, kind, isa, threads, rng, timed):
    side, c = layer
    timed(ours.xnor_conv(side, c, kind, threads, isa, rng), side * side * c * c * 9)


@pytest.mark.parametrize("layer", LAYERS)
def test_pack(layer, isa, threads, rng, timed):
    side, c = layer
    x = rng.standard_normal((1, side, side, c), "float32")
    timed(lambda: lowbit.pack_bits(x, isa=isa, threads=threads))
