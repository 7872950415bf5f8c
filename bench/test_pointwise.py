"""What surrounds the products of a CNN at batch 1, at the sizes of ImageNet nets."""

import numpy as np
import pytest

from lowbit import _core


def test_quantize_image(rng, timed, isa, threads):
    x = rng.standard_normal((1, 3, 224, 224)).astype(np.float32)
    q = np.empty((1, 224, 224, 3), np.uint8)
    timed(lambda: _core.quantize_nchw(x, 0.0187, 114, q, isa=isa, threads=threads))


@pytest.mark.parametrize("shape", [(56, 56, 64), (14, 14, 256), (7, 7, 2048)], ids=str)
def test_residual_add(rng, timed, shape, isa, threads):
    a, b = (rng.integers(0, 256, shape).astype(np.uint8) for _ in range(2))
    y = np.empty_like(a)
    timed(lambda: _core.add_i8(a, 0.02, 110, b, 0.03, 128, y, 0.04, 120, isa=isa, threads=threads))


@pytest.mark.parametrize("shape,padding", [((112, 112, 64), 1), ((55, 55, 128), 0)], ids=str)
def test_max_pool_3x3_stride_2(rng, timed, shape, padding, isa, threads):
    x = rng.integers(0, 256, (1, *shape)).astype(np.uint8)
    side = (shape[0] + 2 * padding - 3) // 2 + 1
    y = np.empty((1, side, side, shape[2]), np.uint8)
    timed(lambda: _core.max_pool(x, y, (3, 3), (2, 2), (padding,) * 4, isa=isa, threads=threads))


@pytest.mark.parametrize("rounding", ["nearest_even", "gemmlowp"])
@pytest.mark.parametrize("shape", [(7, 7, 1280), (13, 13, 1000)], ids=str)
def test_global_average_pool(rng, timed, shape, rounding, isa, threads):
    x = rng.integers(0, 256, (1, *shape)).astype(np.uint8)
    y = np.empty((1, 1, 1, shape[2]), np.uint8)
    more = {"rounding": rounding, "isa": isa, "threads": threads}
    timed(lambda: _core.average_pool_i8(x, 0.02, 3, y, 0.01, 5, shape[:2], **more))


def test_lookup(rng, timed, isa, threads):
    x = rng.integers(0, 256, 56 * 56 * 64).astype(np.uint8)
    table, y = rng.integers(0, 256, (1, 256)).astype(np.uint8), np.empty_like(x)
    timed(lambda: _core.lookup(x, table, y, isa=isa, threads=threads))


def test_squeeze_excite_multiply(rng, timed, isa, threads):
    a, b = rng.integers(0, 256, (1, 784, 120)).astype(np.uint8), rng.integers(0, 256, (1, 120)).astype(np.uint8)
    y = np.empty_like(a)
    timed(lambda: _core.mul_i8(a, 0.02, 110, b, 0.004, 0, y, 0.02, 120, isa=isa, threads=threads))


def test_softmax(rng, timed, isa):
    x = rng.standard_normal((1, 1000)).astype(np.float32)
    y = np.empty_like(x)
    timed(lambda: _core.softmax_f32(x, y, isa=isa, threads=1))
