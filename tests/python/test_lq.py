"""lowbit.lq against its definition: every combination of bits tried, least squares by numpy.linalg.lstsq."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lowbit import lq

BASES = [
    ([1.5], "one bit"),
    ([1.0, 2.0], "in order"),
    ([2.0, 0.5], "crossed"),
    ([-0.75, 2.0], "a negative component"),
    ([1.0, 1.0], "levels that coincide"),
    ([0.3, -0.7, 1.1], "three"),
    ([0.25, 0.5, 1.0, 2.0], "four"),
]


def brute(x, basis, signed):
    """The level of each value from the words of the definition, in Python floats; float32 where that decides."""
    digits = (-1, 1) if signed else (0, 1)
    sums = []
    for bits in itertools.product(digits, repeat=len(basis)):
        total = np.float32(basis[0]) * np.float32(bits[0])
        for v, e in zip(basis[1:], bits[1:], strict=True):
            total = np.float32(total + np.float32(v) * np.float32(e))
        sums.append(total)
    sums.sort()
    ends = [np.float32(0.5) * np.float32(a + b) for a, b in itertools.pairwise(sums)]
    return np.array([sums[sum(bool(v > end) for end in ends)] for v in np.ravel(x)], np.float32).reshape(np.shape(x))


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(("basis", "what"), BASES)
def test_quantize_is_the_definition(basis, what, signed):
    sums, codes = lq.levels(basis, signed=signed)
    assert (np.diff(sums) >= 0).all() and sorted(codes) == list(range(2 ** len(basis)))
    ends = lq.thresholds(sums)
    x = np.concatenate([np.random.default_rng(1).normal(0, 2, 200), sums, ends, [-50, 50, 0]]).astype(np.float32)
    q = lq.quantize(x, basis, signed=signed)
    np.testing.assert_array_equal(q, brute(x, basis, signed))
    assert len(set(np.round(sums, 5))) < len(sums) or set(q) == set(sums)  # every level occurs


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(("basis", "what"), BASES)
def test_codes_give_the_levels_back(basis, what, signed):
    x = np.random.default_rng(2).normal(0, 2, (5, 7)).astype(np.float32)
    codes = lq.assign(x, basis, signed=signed)
    bits = codes[..., None] >> np.arange(len(basis)) & 1
    terms = np.where(bits == 1, 1, -1 if signed else 0)
    assert codes.dtype == np.uint8 and codes.shape == x.shape
    np.testing.assert_allclose(terms @ np.array(basis), lq.quantize(x, basis, signed=signed), rtol=1e-6, atol=1e-6)


def test_a_value_on_a_mid_point_goes_down():
    assert lq.quantize([0.5, np.nextafter(np.float32(0.5), 1)], [1.0], signed=False).tolist() == [0.0, 1.0]
    assert lq.quantize([0.0, -0.0, 1e-30], [1.0], signed=True).tolist() == [-1.0, -1.0, 1.0]


def test_rows_have_their_own_bases():
    rng = np.random.default_rng(3)
    x, basis = rng.normal(size=(6, 4, 3)).astype(np.float32), rng.normal(size=(6, 3)).astype(np.float32)
    for row in range(6):
        np.testing.assert_array_equal(
            lq.quantize(x, basis, signed=True)[row], lq.quantize(x[row], basis[row], signed=True)
        )
        np.testing.assert_allclose(
            lq.qem_step(x, basis, signed=True)[row], lq.qem_step(x[row], basis[row], signed=True), rtol=1e-6
        )


def least_squares(x, basis, signed, ridge):
    """The same step with the matrix B written out, one row per value."""
    codes = lq.assign(x, basis, signed=signed).reshape(-1)
    b = (codes[:, None] >> np.arange(len(basis)) & 1).astype(float)
    b = 2 * b - 1 if signed else b
    rows = np.concatenate([b, np.sqrt(ridge) * np.eye(len(basis))])
    wanted = np.concatenate([np.ravel(x).astype(float), np.sqrt(ridge) * np.array(basis)])
    return np.linalg.lstsq(rows, wanted, rcond=None)[0]


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(("basis", "what"), BASES)
def test_a_step_is_ridge_least_squares(basis, what, signed):
    x = np.random.default_rng(4).normal(0, 1.5, 500).astype(np.float32)
    x = x if signed else np.maximum(x, 0)
    got = lq.qem_step(x, basis, signed=signed, ridge=1e-2)
    np.testing.assert_allclose(got, least_squares(x, basis, signed, 1e-2), rtol=1e-4, atol=1e-5)


@given(
    x=st.lists(st.floats(-8, 8, width=32), min_size=1, max_size=40),
    basis=st.lists(st.floats(-4, 4, width=32), min_size=1, max_size=4),
    signed=st.booleans(),
)
def test_a_step_never_adds_error(x, basis, signed):
    # both halves of the step can only lower |x - q|^2 + ridge |v - v_old|^2
    x = np.array(x, np.float32)

    def error(v):
        return ((x.astype(float) - lq.quantize(x, v, signed=signed)) ** 2).sum()

    after = lq.qem_step(x, basis, signed=signed)
    assert np.isfinite(after).all()
    assert error(after) <= error(basis) * (1 + 1e-5) + 1e-4


def test_steps_from_a_crossed_basis_reach_what_the_ordered_one_reaches():
    x = np.maximum(np.random.default_rng(5).normal(size=4000), 0).astype(np.float32)
    ordered, crossed = np.array([0.5, 1.0], np.float32), np.array([1.0, 0.5], np.float32)
    for _ in range(5):
        ordered, crossed = (lq.qem_step(x, v, signed=False) for v in (ordered, crossed))
        np.testing.assert_allclose(ordered, crossed[::-1], rtol=1e-5)


@pytest.mark.parametrize("bits", [1, 2, 3, 4])
@pytest.mark.parametrize("signed", [False, True])
def test_fit_of_values_that_have_exact_levels(bits, signed):
    true = np.float32(0.4) * 2 ** np.arange(bits, dtype=np.float32)
    sums, _ = lq.levels(true, signed=signed)
    x = np.tile(sums, 9)
    fitted = lq.fit_basis(x, bits, signed=signed)
    assert ((lq.quantize(x, fitted, signed=signed) - x) ** 2).mean() < 0.01 * (x**2).mean()


def test_fit_of_normal_values_is_near_the_best_uniform_steps():
    # Max 1960's uniform quantizer of normal values has a distortion of 0.3634, 0.1188, 0.03744, 0.01154
    x = np.random.default_rng(6).normal(size=60_000).astype(np.float32)
    for bits, distortion in zip((1, 2, 3, 4), (0.3634, 0.1188, 0.03744, 0.01154), strict=True):
        q = lq.quantize(x, lq.fit_basis(x, bits, signed=True), signed=True)
        assert ((x - q) ** 2).mean() < 1.03 * distortion


def test_one_bit_of_weights_is_the_mean_size():
    w = np.random.default_rng(7).normal(size=(3, 50)).astype(np.float32)
    np.testing.assert_allclose(
        lq.qem_step(w, np.full((3, 1), 0.3, np.float32), signed=True)[:, 0], abs(w).mean(1), rtol=1e-5
    )


@pytest.mark.parametrize(
    ("x", "signed"),
    [
        (np.zeros(100), False),  # a dead ReLU: no code but 0
        (np.zeros(100), True),
        (np.full(3, 7.0), False),  # one value: every bit constant
        (np.full(1, -2.0), True),
        (np.array([0.0, 1.0] * 10), False),  # fewer values than levels
    ],
)
def test_singular_systems(x, signed):
    for bits in (1, 2, 3, 4):
        start = lq.initial_basis(bits, signed=signed)
        after = lq.qem_step(x, start, signed=signed)
        assert np.isfinite(after).all()
        fitted = lq.fit_basis(x, bits, signed=signed)
        assert np.isfinite(fitted).all()
        q = lq.quantize(x, fitted, signed=signed)
        assert abs(q - x).max() < 1e-2


def test_a_dead_relu_keeps_its_basis_to_the_bit():
    start = np.array([0.3, 0.7, 1.9], np.float32)
    np.testing.assert_array_equal(lq.qem_step(np.zeros(50), start, signed=False), start)


def test_two_equal_components_stay_finite():
    x = np.maximum(np.random.default_rng(8).normal(size=1000), 0)
    v = np.array([0.6, 0.6], np.float32)
    for _ in range(10):
        v = lq.qem_step(x, v, signed=False)
        assert np.isfinite(v).all() and (abs(v) < 10).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite(bad):
    x = np.array([0.0, 1.0, bad])
    for function in (lq.qem_step, lambda x, v, signed: lq.fit_basis(x, 2, signed=signed)):
        with pytest.raises(ValueError, match="values hold NaN"):
            function(x, [1.0, 2.0], signed=False)
    with pytest.raises(ValueError, match="basis holds NaN"):
        lq.levels([1.0, bad], signed=True)
    if np.isnan(bad):
        with pytest.raises(ValueError, match="quantize: values hold NaN"):
            lq.quantize(x, [1.0], signed=False)
    else:
        assert lq.quantize(x, [1.0], signed=False)[2] == (1.0 if bad > 0 else 0.0)


def test_sizes_that_disagree():
    with pytest.raises(ValueError, match=r"values \(3, 4\) and basis \(2, 2\) disagree"):
        lq.quantize(np.zeros((3, 4)), np.zeros((2, 2)), signed=True)
    with pytest.raises(ValueError, match="at least one per row"):
        lq.qem_step(np.zeros(0), [1.0], signed=True)
    with pytest.raises(ValueError, match="1 to 8 components"):
        lq.levels(np.zeros(0), signed=True)
    with pytest.raises(ValueError, match="bits is 9"):
        lq.fit_basis(np.zeros(4), 9, signed=True)
    with pytest.raises(ValueError, match="ridge is 0"):
        lq.qem_step(np.zeros(4), [1.0], signed=True, ridge=0)
    assert lq.quantize(np.zeros((0, 5)), [1.0], signed=True).shape == (0, 5)
