"""Weights as codes: scales, balanced rounding, biases that fit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lowbit
from lowbit.graph.source import build
from lowbit.graph.weights import balance, mean_shift, quantize_bias, quantize_weights
from onnx_nets import net, node

rng = np.random.default_rng(2)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 5), st.integers(1, 40), st.integers(0, 2**31))
def test_balance_keeps_the_sum_and_every_floor_or_ceiling(n, k, seed):
    rows = np.random.default_rng(seed).uniform(-127, 127, size=(n, k))
    rows[:, 0] = 127  # every channel's largest weight is code 127
    codes = balance(rows)
    assert (np.abs(codes - rows) < 1).all() and (np.abs(codes) <= 127).all()
    assert (np.abs((codes - rows).sum(axis=1)) <= 0.5 + 1e-9).all()
    assert (codes[:, 0] == 127).all()
    whole = np.rint(rows)
    np.testing.assert_array_equal(balance(whole), whole)


@pytest.mark.parametrize("per_channel", [True, False])
def test_scales(per_channel):
    w = rng.normal(size=(4, 3, 3, 5)).astype(np.float32)
    codes, scale = quantize_weights(w, per_channel, None, None)
    highest = np.abs(w).reshape(4, -1).max(axis=1) if per_channel else np.abs(w).max(keepdims=True).ravel()
    np.testing.assert_array_equal(scale, (highest.astype(np.float64) / 127).astype(np.float32))
    assert codes.dtype == np.int8 and codes.shape == w.shape and np.abs(codes).max() == 127
    error = codes * scale.reshape(-1, 1, 1, 1).astype(np.float64) - w
    assert (np.abs(error) <= scale.reshape(-1, 1, 1, 1)).all()


@pytest.mark.parametrize("bias", [0.0, 1e-3, 5.0, 1e6])
def test_bias_fits_beside_any_accumulator(bias):
    w = np.stack([np.zeros(20), np.full(20, 1e-20), rng.normal(size=20)]).astype(np.float32)
    b = np.full(3, bias, np.float32)
    codes, scale = quantize_weights(w, True, b, 0.02, 255)
    bias_codes = quantize_bias(b, 0.02, scale)
    assert np.isfinite(scale).all() and (scale > 0).all()
    assert np.abs(bias_codes.astype(np.int64)).max() + 20 * 127 * 255 < 2**31
    np.testing.assert_allclose(bias_codes * 0.02 * scale.astype(np.float64), b, rtol=1e-4, atol=0.01 * scale.max())
    assert (codes[0] == 0).all()


@pytest.mark.parametrize("groups", [1, 2, 3])
def test_biases_take_back_what_rounding_shifts(groups):
    """An input with a large mean and coarse weights: with the mean known, every output channel keeps its own."""
    c = 6
    weight = rng.normal(size=(c, c // groups, 1, 1)).astype(np.float32)
    weight[:, 0] = 127  # a coarse scale: 1
    file = net([node("Conv", ["x", "w"], ["y"], group=groups)], {"x": (c, 8, 8)}, {"w": weight})
    x = (30 * rng.uniform(size=(50, c, 8, 8)) + 20 * np.arange(c).reshape(-1, 1, 1)).astype(np.float32)
    table = lowbit.calibrate(file, [x[:20], x[20:]], method="minmax")
    np.testing.assert_allclose(table.mean("x"), x.mean(axis=(0, 2, 3)), rtol=1e-6)
    layer = next(layer for layer in build(file).layers if layer.op == "conv2d")
    codes, scale = quantize_weights(layer.params["weight"], True, None, None)
    shift = mean_shift(layer, table.mean("x"), codes, scale)
    error = (layer.params["weight"] - codes * scale.reshape(-1, 1, 1, 1).astype(np.float64)).reshape(c, -1)
    seen = table.mean("x").reshape(groups, -1)
    np.testing.assert_allclose(shift, [error[j] @ seen[j // (c // groups)] for j in range(c)], atol=1e-9)

    exact = lowbit.convert(file, recipe="float32").run(x).mean(axis=(0, 2, 3))
    unaware = {name: table.range(name) for name in table}
    aware_drift, drift = (
        np.abs(lowbit.convert(file, calibration=known).run(x).mean(axis=(0, 2, 3)) - exact)
        for known in (table, unaware)
    )
    assert aware_drift.max() < 2 and drift.max() > 4 * aware_drift.max()
