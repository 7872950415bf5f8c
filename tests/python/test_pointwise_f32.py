"""Float activations, arithmetic and softmax: accuracy against float64, formulas in NumPy, levels against scalar."""

import itertools

import numpy as np
import pytest

import lowbit
from lowbit import _core

LEVELS = lowbit.isas()
SIZES = [0, 1, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 1000]
F32 = np.float32
SPECIAL = np.array(
    [
        0.0,
        -0.0,
        1e-45,
        -1e-40,
        np.inf,
        -np.inf,
        88.72283,
        88.7229,
        -87.4,
        -103.9,
        -104.1,
        0.625,
        0.6249999,
        3.4e38,
        -3.4e38,
        200,
        -200,
    ],
    F32,
)


def values(n):
    r = np.random.default_rng(n)
    return np.where(r.random(n) < 0.2, r.choice(SPECIAL, n), r.normal(0, 10, n)).astype(F32)


def same_bits(a, b, what):
    both_nan = np.isnan(a) & np.isnan(b)
    wrong = (a.view(np.int32) != b.view(np.int32)) & ~both_nan
    assert not wrong.any(), (what, a[wrong][:3], b[wrong][:3])


def on_every_level(call, make):
    expected = make()
    call(expected, "scalar", 1)
    for isa, threads in itertools.product(LEVELS, (1, 2)):
        out = make()
        call(out, isa, threads)
        same_bits(out, expected, (isa, threads))
    return expected


def unary(op, x, alpha=0.0, beta=0.0):
    return on_every_level(
        lambda out, isa, threads: _core.unary_f32(op, x, out, alpha, beta, isa=isa, threads=threads),
        lambda: np.empty_like(x),
    )


def ulps(y, exact):
    """Distance from a float64 result in units of the last place of the float32 it rounds to."""
    with np.errstate(over="ignore"):
        near = exact.astype(F32)
    finite = np.isfinite(near)
    assert (np.isfinite(y) == finite).all()
    assert (y[~finite] == near[~finite]).all()
    unit = np.spacing(np.abs(near[finite])).astype(np.float64)
    return np.abs(y[finite].astype(np.float64) - exact[finite]) / unit


GRID = np.concatenate([np.linspace(-110, 95, 200_001), np.linspace(-1, 1, 100_001), SPECIAL]).astype(F32)


def test_exp_within_two_ulp():
    with np.errstate(over="ignore"):
        exact = np.exp(GRID.astype(np.float64))
    assert ulps(unary("exp", GRID), exact).max() < 2


def test_tanh_within_three_ulp():
    y = unary("tanh", GRID)
    assert ulps(y, np.tanh(GRID.astype(np.float64))).max() < 3
    assert (np.signbit(y) == np.signbit(GRID)).all()


def test_sigmoid_and_swish():
    with np.errstate(over="ignore", invalid="ignore"):
        exact = 1 / (1 + np.exp(-GRID.astype(np.float64)))
        assert np.abs(unary("sigmoid", GRID) - exact).max() < 2e-7
        x = GRID[np.isfinite(GRID)]
        swish = unary("swish", x).astype(np.float64)
        exact = x / (1 + np.exp(-x.astype(np.float64)))
        assert (np.abs(swish - exact) <= 4e-7 * np.abs(exact) + 1e-35).all()


@pytest.mark.parametrize("op", ["exp", "tanh", "sigmoid", "swish"])
def test_nan_stays(op):
    x = np.ones(40, F32)
    x[[0, 17, 39]] = np.nan
    assert (np.isnan(unary(op, x)) == np.isnan(x)).all()


def clip(x, lo, hi):
    return np.fmin(np.fmax(x, F32(lo)), F32(hi))


@pytest.mark.parametrize("n", SIZES)
def test_simple_activations(n):
    x = values(n)
    with np.errstate(invalid="ignore", over="ignore"):
        np.testing.assert_array_equal(unary("relu", x), np.fmax(x, F32(0)))
        np.testing.assert_array_equal(unary("clip", x, -1.5, 6), clip(x, -1.5, 6))
        np.testing.assert_array_equal(unary("hard_sigmoid", x, 0.2, 0.5), clip(F32(0.2) * x + F32(0.5), 0, 1))
        np.testing.assert_array_equal(unary("hard_swish", x), x * clip(x * F32(1 / 6) + F32(0.5), 0, 1))
        np.testing.assert_array_equal(unary("leaky_relu", x, 0.01), np.where(x > 0, x, F32(0.01) * x))
        for op in ("exp", "tanh", "sigmoid", "swish"):
            unary(op, x)


def test_nan_takes_the_lower_bound():
    x = np.full(33, np.nan, F32)
    assert (unary("relu", x) == 0).all() and (unary("clip", x, -2, 3) == -2).all()


@pytest.mark.parametrize("channels", [1, 3, 16, 17, 40])
def test_prelu(channels):
    slope = np.random.default_rng(1).normal(size=channels).astype(F32)
    for rows in (0, 1, 5, 2000):
        x = values(rows * channels)
        y = on_every_level(
            lambda out, isa, threads, x=x: _core.prelu_f32(x, slope, out, isa=isa, threads=threads),
            lambda x=x: np.empty_like(x),
        )
        with np.errstate(invalid="ignore", over="ignore"):
            expected = np.where(x > 0, x, x * np.tile(slope, rows))
        np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("op,ufunc", [("add", np.add), ("mul", np.multiply), ("sub", np.subtract), ("div", np.divide)])
def test_binary(op, ufunc):
    for outer, repeat, inner in (
        [(1, 1, n) for n in SIZES] + [(2, 3, n) for n in SIZES] + [(2, 900, 40), (1, 1, 70_001), (0, 2, 5), (2, 0, 5)]
    ):
        a, b = (
            values(outer * repeat * inner).reshape(outer, repeat, inner),
            values(outer * inner + 1)[1:].reshape(outer, inner),
        )
        for lo, hi in [(-np.inf, np.inf), (0, 6)]:
            y = on_every_level(
                lambda out, isa, threads, a=a, b=b, lo=lo, hi=hi: _core.binary_f32(
                    op, a, b, out, lo, hi, isa=isa, threads=threads
                ),
                lambda a=a: np.empty_like(a),
            )
            with np.errstate(all="ignore"):
                f = ufunc(a, b[:, None])
            np.testing.assert_array_equal(y, clip(f, lo, hi))


def softmax(x):
    """From the definition, with the stated order of the sum and our own exp."""
    y = np.empty_like(x)
    for row, out in zip(x, y, strict=True):
        e = np.empty_like(row)
        _core.unary_f32("exp", row - row.max(), e, isa="scalar")
        s = [F32(0)] * 16
        for i, v in enumerate(e):
            s[i % 16] += v
        for step in (8, 4, 2, 1):
            s = [s[j] + s[j + step] for j in range(step)]
        out[:] = e / s[0]
    return y


@pytest.mark.parametrize("n", [1, 2, 10, 15, 16, 17, 33, 1000, 1001])
def test_softmax(n):
    x = np.random.default_rng(n).normal(0, 5, (20, n)).astype(F32)
    x[1, n // 2] = 300
    x[2, n // 3] = -np.inf if n > 1 else 0
    y = on_every_level(
        lambda out, isa, threads: _core.softmax_f32(x, out, isa=isa, threads=threads), lambda: np.empty_like(x)
    )
    same_bits(y, softmax(x), n)
    e = np.exp(x.astype(np.float64) - x.max(axis=1, keepdims=True))
    np.testing.assert_allclose(y, e / e.sum(axis=1, keepdims=True), rtol=4e-6, atol=1e-40)  # x - max rounds before exp


def test_softmax_hostile_rows():
    x = np.zeros((3, 20), F32)
    x[0, 3] = np.nan
    x[1] = -np.inf
    x[2, 7] = np.inf
    y = on_every_level(
        lambda out, isa, threads: _core.softmax_f32(x, out, isa=isa, threads=threads), lambda: np.empty_like(x)
    )
    assert np.isnan(y[0]).all() and np.isnan(y[1]).all() and np.isnan(y[2, 7])
    _core.softmax_f32(np.empty((0, 5), F32), np.empty((0, 5), F32))
    _core.softmax_f32(np.empty((5, 0), F32), np.empty((5, 0), F32))


def test_errors():
    x = np.zeros(6, F32)
    with pytest.raises(ValueError, match="'gelu' is unknown"):
        _core.unary_f32("gelu", x, x)
    with pytest.raises(ValueError, match="unary_f32: clip to 2"):
        _core.unary_f32("clip", x, x, 2, 1)
    with pytest.raises(ValueError, match="n = 6 is no multiple of channels = 4"):
        _core.prelu_f32(x, np.zeros(4, F32), x)
    with pytest.raises(ValueError, match="binary_f32: lo"):
        _core.binary_f32("add", x.reshape(1, 1, 6), x.reshape(1, 6), x, 1, float("nan"))
