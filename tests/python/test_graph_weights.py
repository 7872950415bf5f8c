"""Weights as codes: scales, balanced rounding, biases that fit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lowbit.graph.moments import clipped, weight_shift
from lowbit.graph.source import build
from lowbit.graph.weights import balance, quantize_bias, quantize_weights
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


@pytest.mark.parametrize(("lo", "hi"), [(0.0, np.inf), (0.0, 6.0), (-np.inf, 1.0), (-0.5, 0.5)])
def test_clipped_moments_are_those_of_samples(lo, hi):
    mean, std = np.array([-2.0, 0.0, 0.7, 5.0]), np.array([1.0, 0.5, 2.0, 3.0])
    samples = np.clip(mean + std * rng.normal(size=(400_000, 4)), lo, hi)
    got_mean, got_std = clipped((mean, std), lo, hi)
    np.testing.assert_allclose(got_mean, samples.mean(axis=0), atol=0.02)
    np.testing.assert_allclose(got_std, samples.std(axis=0), atol=0.02)


@pytest.mark.parametrize("groups", [1, 2, 6])
def test_bias_takes_back_what_rounding_shifts(groups):
    """conv, batch normalisation, ReLU, conv: fed with what the normalisation promises, the mean error vanishes."""
    c = 6
    weights = {
        "w1": np.eye(c, dtype=np.float32).reshape(c, c, 1, 1),
        "g": np.abs(rng.normal(size=c)).astype(np.float32) + 0.5,
        "b": rng.normal(size=c).astype(np.float32),
        "m": np.zeros(c, np.float32),
        "v": np.ones(c, np.float32),
        "w2": (rng.normal(size=(c, c // groups, 1, 1)) * [[[[10]]]] + 40).astype(np.float32),
    }
    nodes = [
        node("Conv", ["x", "w1"], ["c"]),
        node("BatchNormalization", ["c", "g", "b", "m", "v"], ["n"], epsilon=0.0),
        node("Relu", ["n"], ["r"]),
        node("Conv", ["r", "w2"], ["y"], group=groups),
    ]
    built = build(net(nodes, {"x": (c, 16, 16)}, weights))
    last = built.layers[-2] if built.layers[-1].op == "transpose" else built.layers[-1]
    x = rng.normal(size=(200, c, 16, 16)).astype(np.float32)
    seen = np.maximum(x * weights["g"].reshape(-1, 1, 1) + weights["b"].reshape(-1, 1, 1), 0).mean(axis=(0, 2, 3))
    np.testing.assert_allclose(last.inputs[0].mean, seen, atol=0.02)
    rough = np.round(last.params["weight"].astype(np.float64), -1)
    shift = weight_shift(last, rough, 0.0, 99.0)
    error = (last.params["weight"] - rough).reshape(c, -1)
    wanted = [error[j] @ seen.reshape(groups, -1)[j // (c // groups)] for j in range(c)]
    np.testing.assert_allclose(shift, wanted, atol=0.5)
    assert weight_shift(last, rough, 0.0, 0.01) is None  # means beyond the calibrated range are not believed
