"""bitserial_gemm and bitserial_conv2d against NumPy: exact for integers, in the stated order for floats."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lowbit
from lowbit import _core, lq

LEVELS = lowbit.isas()


def planes_of(rng, *shape):
    return (rng.random(shape) < 0.5).astype(np.uint8)


def ordered(a, b, a_basis, b_basis):
    """The float32 sum of lowbit/xnor.h. a (A, m, k), b (W, n, k) of +-1, b_basis (W, n)."""
    terms = [
        (a[q].astype(int) @ b[p].T.astype(int)).astype(np.float32) * (a_basis[q] * b_basis[p])
        for q in range(len(a))
        for p in range(len(b))
    ]
    y = terms[0]
    for term in terms[1:]:
        y = y + term
    return y


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_integer_bases_are_exact(data):
    draw = lambda low, high: data.draw(st.integers(low, high))  # noqa: E731
    m, n, k, abits, bbits = draw(0, 9), draw(1, 70), draw(1, 200), draw(1, 4), draw(1, 3)
    rng = np.random.default_rng(draw(0, 1000))
    a, b = planes_of(rng, abits, m, k), planes_of(rng, bbits, n, k)
    a_basis = rng.integers(-9, 10, abits)
    b_basis = rng.integers(-9, 10, (n, bbits) if draw(0, 1) else bbits)
    signed = bool(draw(0, 1))
    left = np.tensordot(a_basis, 2 * a.astype(int) - 1 if signed else a.astype(int), 1)
    per_row = np.broadcast_to(b_basis, (n, bbits))
    right = np.einsum("np,pnk->nk", per_row, 2 * b.astype(int) - 1)
    ab, bb = (lowbit.pack_bits(v, threshold=np.ones(k)) for v in (a, b))
    isa, threads = data.draw(st.sampled_from(LEVELS)), draw(1, 3)
    y = lowbit.bitserial_gemm(ab, bb, a_basis, b_basis, a_signed=signed, isa=isa, threads=threads)
    assert y.dtype == np.int32
    np.testing.assert_array_equal(y, left @ right.T)


@pytest.mark.parametrize("isa", LEVELS)
@pytest.mark.parametrize("signed", [False, True])
def test_float_bases_in_the_stated_order(signed, isa):
    rng = np.random.default_rng(1)
    a, b = planes_of(rng, 3, 13, 150), planes_of(rng, 2, 70, 150)
    a_basis, b_basis = (rng.standard_normal(s).astype(np.float32) for s in (3, (70, 2)))
    ab, bb = (lowbit.pack_bits(v, threshold=np.ones(150)) for v in (a, b))
    expected = ordered(2 * a.astype(np.int8) - 1 if signed else a, 2 * b.astype(np.int8) - 1, a_basis, b_basis.T)
    for threads in (1, 3):
        y = lowbit.bitserial_gemm(ab, bb, a_basis, b_basis, a_signed=signed, isa=isa, threads=threads)
        np.testing.assert_array_equal(y, expected)
    left = np.tensordot(a_basis.astype(float), 2.0 * a - 1 if signed else a.astype(float), 1)
    right = np.einsum("np,pnk->nk", b_basis.astype(float), 2.0 * b - 1)
    np.testing.assert_allclose(y, left @ right.T, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("isa", LEVELS)
def test_convolution_of_codes(isa):
    """2-bit activations by 2-bit weights, padded with code 0, groups, stride; against the float convolution."""
    rng = np.random.default_rng(2)
    codes = rng.integers(0, 4, (2, 7, 6, 40), dtype=np.uint8)
    w = planes_of(rng, 2, 12, 3, 3, 20)
    x, wb = lowbit.bit_planes(codes, 2), lowbit.pack_bits(w, threshold=np.ones(20))
    real_w = 2 * (2 * w[1].astype(np.float32) - 1) + (2 * w[0].astype(np.float32) - 1)
    geometry = {"stride": 2, "padding": 1, "groups": 2}
    exact = lowbit.conv2d_f32(codes.astype(np.float32), real_w, **geometry)
    y = lowbit.bitserial_conv2d(x, wb, [1, 2], [1, 2], **geometry, isa=isa)
    assert y.dtype == np.int32
    np.testing.assert_array_equal(y, exact)
    y = lowbit.bitserial_conv2d(x, wb, [0.25, 0.5], [1.0, 2.0], **geometry, isa=isa)  # exact in float32 too
    np.testing.assert_array_equal(y, exact * 0.25)
    signed = np.tensordot([1, 2], np.where(lowbit.unpack_bits(x) > 0, 1, -1), 1).astype(np.float32)
    y = lowbit.bitserial_conv2d(x, wb, [1, 2], [1, 2], **geometry, pad_value=0, x_signed=True, isa=isa)
    np.testing.assert_array_equal(y, lowbit.conv2d_f32(signed, real_w, **geometry))


def test_bad_input():
    rng = np.random.default_rng(3)
    a, b = lowbit.bit_planes(planes_of(rng, 4, 40), 1), lowbit.pack_bits(planes_of(rng, 1, 5, 40))
    with pytest.raises(ValueError, match="sums of channel 0 with k = 40 and these bases leave int32"):
        lowbit.bitserial_gemm(a, b, [2**20], [2**7])
    with pytest.raises(ValueError, match=r"a_basis is \(2,\), a has 1 planes"):
        lowbit.bitserial_gemm(a, b, [1, 2], [1])
    with pytest.raises(ValueError, match=r"b_basis is \(3,\), must be \(1,\) or \(5, 1\)"):
        lowbit.bitserial_gemm(a, b, [1], [1, 2, 3])
    with pytest.raises(ValueError, match="b_basis is not finite"):
        lowbit.bitserial_gemm(a, b, [1.0], [np.nan])
    with pytest.raises(ValueError, match="a has k = 40, b has k = 41"):
        lowbit.bitserial_gemm(a, lowbit.pack_bits(planes_of(rng, 1, 5, 41)), [1], [1])
    with pytest.raises(ValueError, match=r"b is \(5, 40\), must be \(planes, n, k\)"):
        lowbit.bitserial_gemm(a, lowbit.pack_bits(planes_of(rng, 5, 40)), [1], [1])
    with pytest.raises(ValueError, match="9 and 1 planes, must be 1 to 8"):
        lowbit.bitserial_gemm(lowbit.pack_bits(planes_of(rng, 9, 4, 40)), b, np.ones(9, int), [1])
    with pytest.raises(ValueError, match="code 4 has more than 2 bits"):
        lowbit.bit_planes(np.array([4], np.uint8), 2)
    with pytest.raises(TypeError, match="codes are int64"):
        lowbit.bit_planes(np.array([4]), 2)


@pytest.mark.parametrize("isa", LEVELS)
@pytest.mark.parametrize("bits", [1, 2, 3, 4, 8])
def test_planes_are_the_bits_of_codes(bits, isa):
    rng = np.random.default_rng(bits)
    for k in (0, 1, 31, 32, 33, 63, 64, 65, 200):
        codes = rng.integers(0, 1 << bits, (2, 3, k)).astype(np.uint8)
        planes = lowbit.bit_planes(codes, bits, isa=isa, threads=2)
        assert planes.shape == (bits, 2, 3, k)
        expected = np.stack([codes >> q & 1 for q in range(bits)])
        np.testing.assert_array_equal(planes.words, lowbit.pack_bits(expected, threshold=np.ones(k)).words)


@pytest.mark.parametrize("isa", LEVELS)
@pytest.mark.parametrize("basis", [[0.7], [0.5, 1.0], [1.0, -0.25, 0.1], [0.1, 0.2, 0.4, 0.8], [0.3, 0.3]])
def test_level_planes_are_lq_codes(basis, isa):
    rng = np.random.default_rng(3)
    for k in (1, 15, 16, 17, 31, 33, 64, 70, 129):
        x = rng.normal(0.5, 1, (5, k)).astype(np.float32)
        x[0] = lq.thresholds(lq.levels(basis, signed=False)[0])[rng.integers(0, 2 ** len(basis) - 1, k)]  # ties
        planes = lowbit.level_planes(x, basis, isa=isa)
        codes = lq.assign(x, basis, signed=False)
        np.testing.assert_array_equal(planes.words, lowbit.bit_planes(codes, len(basis)).words)


@pytest.mark.parametrize("isa", LEVELS)
@pytest.mark.parametrize("bits", range(1, 9))
def test_codes_back_to_levels(bits, isa):
    rng = np.random.default_rng(bits)
    level = np.r_[np.float32([np.inf, np.nan]), rng.normal(size=2**bits - 2).astype(np.float32)]
    for c in (1, 7, 8, 9, 15, 16, 17, 31, 32, 33, 64, 65):
        codes = rng.integers(0, 2**bits, (2, 3, c), dtype=np.uint8)
        words = lowbit.bit_planes(codes, bits).words
        got = _core.unpack_levels(words, c, level, isa, 2)
        np.testing.assert_array_equal(got, level[codes])
    with pytest.raises(ValueError, match=f"c is 65, levels are {len(level) - 1}"):
        _core.unpack_levels(words, c, level[1:], isa, 1)
    with pytest.raises(ValueError, match=r"planes are \(\d, 2, 3, 3\), c is 97"):
        _core.unpack_levels(words, 97, level, isa, 1)
    with pytest.raises(ValueError, match="0 planes"):
        _core.unpack_levels(words[:0], c, level[:1], isa, 1)


def test_wrong_arguments_of_level_planes():
    with pytest.raises(TypeError, match="float64"):
        lowbit.level_planes(np.zeros(3), [1.0])
    with pytest.raises(ValueError, match="1 to 4 numbers"):
        lowbit.level_planes(np.zeros(3, np.float32), np.ones(5))
    with pytest.raises(ValueError, match="NaN"):
        lowbit.level_planes(np.zeros(3, np.float32), [np.nan])
