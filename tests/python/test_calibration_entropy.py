"""The entropy search against plain NumPy written from the slides (papers.md section 5), and its decided open points."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lowbit
from lowbit import _core
from lowbit.calibration import EntropyObserver, Histogram, entropy_distributions, entropy_search


def reference_pq(h: np.ndarray, i: int, levels: int) -> tuple[np.ndarray, np.ndarray]:
    """P and Q of one candidate, by loops."""
    p = h[:i].astype(np.float64)
    p[i - 1] += h[i:].sum()
    q = np.zeros(i)
    for j in range(levels):
        group = range(j * i // levels, (j + 1) * i // levels)
        occupied = [k for k in group if h[k] > 0]
        for k in occupied:
            q[k] = sum(h[g] for g in group) / len(occupied)
    return p, q


def reference_curve(counts: np.ndarray, levels: int = 128, literal_bin0: bool = False) -> np.ndarray:
    h = counts.astype(np.float64)
    if not literal_bin0:
        h[0] = h[1]
    curve = []
    for i in range(levels, len(h) + 1):
        p, q = reference_pq(h, i, levels)
        if np.any((p > 0) & (q == 0)):
            curve.append(np.inf)
            continue
        p, q = p / p.sum(), q / q.sum()
        on = p > 0
        curve.append(float(np.sum(p[on] * np.log(p[on] / q[on]))))
    return np.array(curve)


def histogram_of(x: np.ndarray, bins: int = 2048) -> Histogram:
    h = Histogram(bins)
    h.observe(x.astype(np.float32))
    return h


def samples(name: str, n: int = 30_000) -> np.ndarray:
    rng = np.random.default_rng(7)
    x = rng.standard_normal(n)
    return {
        "normal": x,
        "outliers": np.append(x, 2.5 * rng.standard_normal(10)),
        "relu": np.maximum(x, 0),
        "relu6": np.clip(4 * x, 0, 6),
        "cubed": x**3,
        "few": np.append(x[:300], [40.0]),
    }[name]


def test_slide_example():
    p, q = entropy_distributions(np.array([1, 0, 2, 3, 5, 3, 1, 7]), 8, levels=2)
    assert p.tolist() == [1, 0, 2, 3, 5, 3, 1, 7]
    assert q.tolist() == [2, 0, 2, 2, 4, 4, 4, 4]


@pytest.mark.parametrize("isa", lowbit.isas())
def test_slide_example_through_the_search(isa):
    h = np.array([1, 0, 2, 3, 5, 3, 1, 7, 1, 1], np.int64)
    _, curve = _core.entropy_search(h, 2, literal_bin0=True, isa=isa)
    assert len(curve) == 9
    p = np.array([1, 0, 2, 3, 5, 3, 1, 9]) / 24
    q = np.array([2, 0, 2, 2, 4, 4, 4, 4]) / 22
    on = p > 0
    assert curve[8 - 2] == pytest.approx(np.sum(p[on] * np.log(p[on] / q[on])), abs=1e-13)


@pytest.mark.parametrize("i", [8, 9, 11, 15, 16, 20])
def test_distributions_are_the_loops(i):
    h = np.random.default_rng(i).integers(0, 4, 20)
    for got, want in zip(entropy_distributions(h, i, 8), reference_pq(h, i, 8), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-15)


@pytest.mark.parametrize("literal", [False, True])
@pytest.mark.parametrize("name", ["outliers", "relu", "relu6", "cubed", "few"])
def test_curve_is_the_reference(name, literal):
    counts = histogram_of(samples(name), 256).magnitudes()
    best, curve = _core.entropy_search(counts, 128, literal_bin0=literal)
    want = reference_curve(counts, 128, literal)
    assert np.array_equal(np.isinf(curve), np.isinf(want))
    finite = np.isfinite(want)
    np.testing.assert_allclose(curve[finite], want[finite], atol=1e-12, rtol=0)
    assert best == 128 + np.argmax(want <= want.min() + 2e-12)


def test_curve_is_the_reference_at_2048_bins():
    counts = histogram_of(samples("outliers", 100_000)).magnitudes()
    best, curve = _core.entropy_search(counts)
    places = np.unique(np.linspace(128, len(counts), 60).astype(int))
    h = counts.copy()
    h[0] = h[1]
    for i in places:
        p, q = entropy_distributions(h, i)
        if q[-1] == 0:
            assert curve[i - 128] == np.inf
            continue
        p, q = p / p.sum(), q / q.sum()
        on = p > 0
        assert curve[i - 128] == pytest.approx(np.sum(p[on] * np.log(p[on] / q[on])), abs=1e-12)
    assert curve[best - 128] <= curve.min() + 1e-12


@pytest.mark.parametrize("levels", [2, 4, 8, 128, 256])
@pytest.mark.parametrize("name", ["normal", "relu6", "few"])
def test_every_level_gives_the_same_bits(name, levels):
    counts = histogram_of(samples(name)).magnitudes()
    ran = []
    for isa in lowbit.isas():
        best, curve = _core.entropy_search(counts, levels, isa=isa)
        ran.append((isa, best, curve.tobytes()))
    assert [isa for isa, _, _ in ran] == lowbit.isas()
    assert len({(best, curve) for _, best, curve in ran}) == 1


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 5) | st.integers(0, 2**40), min_size=8, max_size=70), st.sampled_from([2, 4, 8]))
def test_any_counts(counts, levels):
    h = np.array([*counts, 1], np.int64)
    want = reference_curve(h, levels)
    curves = [_core.entropy_search(h, levels, isa=isa)[1] for isa in lowbit.isas()]
    assert len({c.tobytes() for c in curves}) == 1
    finite = np.isfinite(want)
    assert np.array_equal(np.isfinite(curves[0]), finite)
    np.testing.assert_allclose(curves[0][finite], want[finite], atol=1e-11)


def test_bin_zero_is_bin_one_unless_taken_literally():
    counts = histogram_of(samples("relu")).magnitudes()
    other = counts.copy()
    other[0] = 12345678
    assert np.array_equal(_core.entropy_search(counts)[1], _core.entropy_search(other)[1])
    assert not np.array_equal(
        _core.entropy_search(counts, literal_bin0=True)[1], _core.entropy_search(other, literal_bin0=True)[1]
    )


def test_literal_bin_zero_drags_relu_down():
    x = samples("relu", 200_000)
    literal, default = EntropyObserver(literal_bin0=True), EntropyObserver()
    for obs in (literal, default):
        obs.observe(x.astype(np.float32))
    assert literal.threshold() < 0.6 * default.threshold()


def test_candidates_ending_in_an_empty_bin_are_infinite():
    h = histogram_of(samples("few"))
    found = entropy_search(h)
    counts = h.magnitudes()
    ends = counts[found.first - 1 :]
    assert np.array_equal(np.isinf(found.divergence), ends == 0)
    assert np.isinf(found.divergence).sum() > 1000


def test_no_clipping_is_a_candidate_and_gives_the_largest_value():
    x = samples("relu6")
    found = entropy_search(histogram_of(x))
    assert found.best == found.first + len(found.divergence) - 1
    assert found.threshold == 6.0


def test_threshold_is_half_a_bin_on():
    h = histogram_of(samples("cubed"))
    found = entropy_search(h)
    assert found.threshold == (found.best + 0.5) * h.width < h.largest
    assert found.thresholds[found.best - found.first] == found.threshold


def test_first_of_equal_minima_wins():
    # One value per group whatever the candidate: Q = P, so every candidate past the last value is exactly as good.
    counts = np.zeros(300, np.int64)
    counts[[0, 1, 2]] = 5
    counts[-1] = 1
    best, curve = _core.entropy_search(counts, 256)
    zero = np.flatnonzero(curve < 1e-12)
    assert best == 256 + zero[0]


def test_doors_check():
    ok = np.ones(200, np.int64)
    for counts, levels, what in [
        (ok, 3, "levels = 3"),
        (ok, 0, "levels = 0"),
        (ok[:100], 128, "used = 100"),
        (np.append(ok, 0), 128, "is zero"),
        (np.append(ok, -1), 128, "negative"),
        (np.append(ok, 2**53), 128, "2\\^52"),
    ]:
        with pytest.raises(ValueError, match=f"entropy_search: .*{what}"):
            _core.entropy_search(counts, levels)
    with pytest.raises(TypeError):
        _core.entropy_search(ok.astype(np.float64))
