"""kmeans1d: the optimum against a plain dynamic programme, and what every start promises."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lowbit

INITS = ["linear", "density", "forgy", "optimal"]


def optimum(values, k):
    """The least sum of squares of k clusters, by trying every border: O(k n^2)."""
    x = np.sort(values.astype(float)) - values.astype(float).mean()
    s, q = np.r_[0, np.cumsum(x)], np.r_[0, np.cumsum(x * x)]

    def error(t):  # of the values [0..t) from every start
        n = t - np.arange(t)
        return q[t] - q[:t] - (s[t] - s[:t]) ** 2 / n

    best = np.r_[0, [error(t)[0] for t in range(1, len(x) + 1)]]
    for _ in range(k - 1):
        best = np.r_[0, [min(best[t], np.min(best[:t] + error(t))) for t in range(1, len(x) + 1)]]
    return best[-1]


def error(x, codebook, idx):
    return np.sum((x.astype(float) - codebook[idx]) ** 2)


def check(x, k, codebook, idx):
    assert codebook.shape == (k,) and codebook.dtype == np.float32
    assert idx.shape == x.shape and idx.dtype == np.uint8
    assert np.all(np.diff(codebook) > 0)
    assert np.array_equal(np.unique(idx), np.arange(k))  # none is empty
    for c in range(k):
        np.testing.assert_allclose(codebook[c], x[idx == c].mean(dtype=float), rtol=1e-6, atol=1e-30)


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_optimum_and_starts(data):
    draw = lambda low, high: data.draw(st.integers(low, high))  # noqa: E731
    rng = np.random.default_rng(draw(0, 10_000))
    x = rng.standard_normal(draw(1, 60)).astype(np.float32)
    if draw(0, 1):
        x = np.round(x * 2).astype(np.float32)
    k = draw(1, len(np.unique(x)))
    least = optimum(x, k)
    for init in INITS:
        codebook, idx = lowbit.kmeans1d(x, k, init, seed=3)
        check(x, k, codebook, idx)
        e = error(x, codebook, idx)
        assert e >= least * (1 - 1e-5) - 1e-9
        if init == "optimal":
            assert e <= least * (1 + 1e-5) + 1e-9


@pytest.mark.parametrize("init", INITS)
def test_nearest_and_deterministic(init):
    rng = np.random.default_rng(1)
    x = rng.laplace(size=(50, 40)).astype(np.float32)
    for k in (2, 16, 255, 256):
        codebook, idx = lowbit.kmeans1d(x, k, init, seed=5)
        check(x, k, codebook, idx)
        distance = np.abs(x[..., None].astype(float) - codebook)
        own = np.take_along_axis(distance, idx[..., None].astype(int), -1)[..., 0]
        assert np.all(own <= distance.min(-1) + 1e-6)
        again = lowbit.kmeans1d(x, k, init, seed=5, threads=2)
        np.testing.assert_array_equal(again[0], codebook)
        np.testing.assert_array_equal(again[1], idx)


def test_starts_differ_and_none_beats_the_optimum():
    x = np.random.default_rng(2).laplace(size=5000).astype(np.float32)
    errors = {init: error(x, *lowbit.kmeans1d(x, 8, init)) for init in INITS}
    assert len(set(errors.values())) == 4 and min(errors, key=errors.get) == "optimal"
    assert max(errors.values()) < 1.5 * errors["optimal"]
    seeds = {lowbit.kmeans1d(x, 64, "forgy", seed=s)[0].tobytes() for s in range(4)}
    assert len(seeds) > 1


@pytest.mark.parametrize("k", [2, 17, 256])
def test_optimum_against_kmeans1d(k):
    kmeans1d = pytest.importorskip("kmeans1d", reason="kmeans1d, the exact optimum in O(k n), is not installed")
    x = np.random.default_rng(k).laplace(size=20_000).astype(np.float32)
    clusters, centroids = kmeans1d.cluster(x.astype(float), k)
    least = error(x, np.array(centroids), np.array(clusters))
    assert error(x, *lowbit.kmeans1d(x, k, "optimal")) == pytest.approx(least, rel=1e-5)


def test_linear_starts_where_it_says():
    x = np.array([0, 0.1, 0.9, 10], np.float32)
    codebook, idx = lowbit.kmeans1d(x, 3, "linear", max_iterations=0)  # centroids 0, 5, 10: the middle one is empty
    assert np.array_equal(idx, [0, 0, 1, 2])
    np.testing.assert_allclose(codebook, [0.05, 0.9, 10], rtol=1e-6)


@pytest.mark.parametrize("init", INITS)
def test_histogram_of_many_values(init):
    x = np.random.default_rng(4).standard_normal(200_000).astype(np.float32)
    assert len(np.unique(x)) > 65536
    codebook, idx = lowbit.kmeans1d(x, 16, init)
    check(x, 16, codebook, idx)
    gaussian = 0.009497 * len(x)  # Max (1960): a 16-level quantizer of the normal distribution, mean squared error
    assert error(x, codebook, idx) == pytest.approx(gaussian, rel=0.01 if init == "optimal" else 0.2)


def test_far_values_leave_enough_bins():
    x = np.random.default_rng(5).standard_normal(100_000).astype(np.float32)
    x[7] = 3e38
    for init in INITS:
        codebook, idx = lowbit.kmeans1d(x, 16, init)
        check(x, 16, codebook, idx)
        assert idx[7] == 15 and np.sum(idx == 15) <= 2


def test_edges_and_errors():
    codebook, idx = lowbit.kmeans1d(np.array([[0.0, -0.0], [0.0, 0.0]], np.float32), 1)
    assert codebook == 0 and not idx.any()
    x = np.arange(5, dtype=np.float32)
    for init in INITS:
        codebook, idx = lowbit.kmeans1d(x[::-1], 5, init)
        np.testing.assert_array_equal(codebook, x)
        np.testing.assert_array_equal(idx, [4, 3, 2, 1, 0])
    with pytest.raises(ValueError, match="k is 6, there are 5 distinct values"):
        lowbit.kmeans1d(x, 6)
    with pytest.raises(ValueError, match="k is 2, there are 1 distinct values"):
        lowbit.kmeans1d(np.zeros(9, np.float32), 2)
    with pytest.raises(ValueError, match="there are 0 distinct values"):
        lowbit.kmeans1d(np.zeros(0, np.float32), 1)
    for k in (0, 257):
        with pytest.raises(ValueError, match=f"k is {k}, must be 1 to 256"):
            lowbit.kmeans1d(x, k)
    with pytest.raises(ValueError, match="value 3 is nan, must be finite"):
        lowbit.kmeans1d(np.array([[0, 1], [2, np.nan]], np.float32), 2)
    with pytest.raises(ValueError, match="value 0 is -inf"):
        lowbit.kmeans1d(np.array([-np.inf, 1], np.float32), 2)
    with pytest.raises(TypeError, match="x is float64, must be float32"):
        lowbit.kmeans1d(x.astype(float), 2)
    with pytest.raises(ValueError, match="init 'kmeans' is not one of"):
        lowbit.kmeans1d(x, 2, "kmeans++"[:6])
