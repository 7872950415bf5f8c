"""pack_bits, unpack_bits, max_pool_bits, binarize and PackedBits against NumPy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lowbit

LEVELS = lowbit.isas()
CHANNELS = [1, 7, 8, 15, 16, 17, 31, 32, 33, 63, 64, 65, 100, 127, 128, 129, 200]


def words_of(bits):
    """Bit j at bit j % 32 of word j // 32, from the definition."""
    rows = np.zeros((*bits.shape[:-1], -(-bits.shape[-1] // 32)), np.uint32)
    for j in range(bits.shape[-1]):
        rows[..., j // 32] |= bits[..., j].astype(np.uint32) << np.uint32(j % 32)
    return rows


@pytest.mark.parametrize("isa", LEVELS)
@pytest.mark.parametrize("dtype", ["float32", "int8", "uint8"])
def test_packing_at_every_width(dtype, isa):
    rng = np.random.default_rng(1)
    for c in CHANNELS:
        x = rng.integers(0 if dtype == "uint8" else -128, 128, (9, c)).astype(dtype)
        if dtype == "float32":
            x.ravel()[: 9 * c : 3] = 0.0
            x.ravel()[1 : 9 * c : 3] = -0.0
            x[-1, -1] = -np.inf
        t, flip = rng.integers(-40, 60, c).astype(np.float32), rng.random(c) < 0.5
        t[0] = np.inf
        for threads in (1, 3):
            args = {"isa": isa, "threads": threads}
            np.testing.assert_array_equal(lowbit.pack_bits(x, **args).words, words_of(x >= 0))
            np.testing.assert_array_equal(lowbit.pack_bits(x, threshold=t, **args).words, words_of(x >= t))
            np.testing.assert_array_equal(lowbit.pack_bits(x, flip=flip, **args).words, words_of((x >= 0) ^ flip))
            packed = lowbit.pack_bits(x, threshold=t, flip=flip, **args)
            np.testing.assert_array_equal(packed.words, words_of((x >= t) ^ flip))
            np.testing.assert_array_equal(lowbit.unpack_bits(packed, **args), np.where((x >= t) ^ flip, 1, -1))


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_round_trips(data):
    shape = (*data.draw(st.lists(st.integers(0, 9), max_size=2)), data.draw(st.integers(0, 140)))
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    x = np.where(rng.random(shape) < 0.5, -1, 1).astype(np.int8)
    packed = lowbit.pack_bits(x, isa=data.draw(st.sampled_from(LEVELS)))
    assert packed.shape == shape
    np.testing.assert_array_equal(lowbit.unpack_bits(packed, isa=data.draw(st.sampled_from(LEVELS))), x)
    dense = packed.dense()
    assert dense.shape == ((x.size + 7) // 8,)
    np.testing.assert_array_equal(dense, np.packbits(x.ravel() > 0, bitorder="little"))
    np.testing.assert_array_equal(lowbit.PackedBits.from_dense(dense, shape).words, packed.words)


@pytest.mark.parametrize("isa", LEVELS)
def test_nan_is_an_error_that_says_where_and_infinities_are_numbers(isa):
    for rows, c, at in [(3, 40, (1, 39)), (1, 1, (0, 0)), (5, 16, (4, 3)), (2000, 200, (1999, 1))]:
        x = np.zeros((rows, c), np.float32)
        x[at] = np.nan
        for threads in (1, 3):
            with pytest.raises(ValueError, match=rf"pack_bits: x\[{at[0]}, {at[1]}\] is NaN"):
                lowbit.pack_bits(x, isa=isa, threads=threads)
    x = np.array([[np.inf, -np.inf]], np.float32)
    assert lowbit.unpack_bits(lowbit.pack_bits(x, isa=isa)).tolist() == [[1, -1]]
    with pytest.raises(ValueError, match=r"threshold\[1\] is NaN"):
        lowbit.pack_bits(x, threshold=[0, np.nan], isa=isa)


def test_strided_input_and_callers_buffer():
    rng = np.random.default_rng(2)
    wide = rng.standard_normal((9, 80)).astype(np.float32)
    for x in (wide[:, 3:43], wide[::-1, ::2], np.asfortranarray(wide)):
        np.testing.assert_array_equal(lowbit.pack_bits(x).words, words_of(x >= 0))
    out = lowbit.PackedBits(np.zeros((9, 3), np.uint32), 80)
    assert lowbit.pack_bits(wide, out=out) is out
    np.testing.assert_array_equal(out.words, words_of(wide >= 0))


def test_bad_input():
    with pytest.raises(TypeError, match="x is float64, must be float32, int8 or uint8"):
        lowbit.pack_bits(np.zeros((2, 3)))
    with pytest.raises(ValueError, match="x has no axes"):
        lowbit.pack_bits(np.float32(1))
    with pytest.raises(ValueError, match=r"threshold is \(2,\), must be \(3,\)"):
        lowbit.pack_bits(np.zeros((2, 3), np.float32), threshold=[1, 2])
    with pytest.raises(ValueError, match="rows of 40 bits have 2"):
        lowbit.PackedBits(np.zeros((3, 1), np.uint32), 40)
    with pytest.raises(ValueError, match="bits beyond channel 31 are set"):
        lowbit.PackedBits(np.full((3, 1), 2**31, np.uint32), 31)
    with pytest.raises(TypeError, match="words are int32"):
        lowbit.PackedBits(np.zeros((3, 1), np.int32), 31)
    with pytest.raises(ValueError, match="which needs 2"):
        lowbit.PackedBits.from_dense(np.zeros(1, np.uint8), (3, 3))
    with pytest.raises(TypeError, match="unpack_bits: a is ndarray"):
        lowbit.unpack_bits(np.zeros((3, 1), np.uint32))
    with pytest.raises(ValueError, match="rows of the result have 3 bits"):
        lowbit.pack_bits(np.zeros((2, 3), np.float32), out=lowbit.PackedBits(np.zeros((2, 1), np.uint32), 4))


@pytest.mark.parametrize("isa", LEVELS)
def test_max_pool_is_the_maximum(isa):
    rng = np.random.default_rng(3)
    for c, kernel, stride, padding, dilation in [
        (40, 2, 2, 0, 1), (64, 3, 2, 1, 1), (1, (2, 3), (1, 2), (1, 0, 2, 3), (2, 1)), (33, 1, 3, (0, 4), 1),
    ]:  # fmt: skip
        x = np.where(rng.random((2, 9, 11, c)) < 0.2, 1, -1).astype(np.int8)
        (kh, kw), (sh, sw), (dh, dw) = (v if isinstance(v, tuple) else (v, v) for v in (kernel, stride, dilation))
        top, left, bottom, right = {int: lambda p: (p,) * 4, tuple: lambda p: p * (4 // len(p))}[type(padding)](padding)
        wide = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=-1)
        out_h = (wide.shape[1] - dh * (kh - 1) - 1) // sh + 1
        out_w = (wide.shape[2] - dw * (kw - 1) - 1) // sw + 1
        taps = [
            wide[:, ky * dh : ky * dh + sh * (out_h - 1) + 1 : sh, kx * dw : kx * dw + sw * (out_w - 1) + 1 : sw]
            for ky in range(kh) for kx in range(kw)
        ]  # fmt: skip
        for threads in (1, 2):
            y = lowbit.max_pool_bits(lowbit.pack_bits(x), kernel, stride, padding, dilation, isa=isa, threads=threads)
            np.testing.assert_array_equal(lowbit.unpack_bits(y), np.max(taps, axis=0))


def test_binarize():
    x = np.array([-1.5, -0.5, -0.0, 0.0, 0.5, 1.5])
    assert lowbit.binarize(x).tolist() == [-1, -1, 1, 1, 1, 1]
    draws = np.stack([lowbit.binarize(np.tile(x, 500), mode="stochastic", seed=s) for s in (1, 2)]).reshape(-1, 6)
    assert set(np.unique(draws)) == {-1, 1}
    assert (draws[:, 0] == -1).all() and (draws[:, 5] == 1).all()
    np.testing.assert_allclose((draws == 1).mean(0), np.clip((x + 1) / 2, 0, 1), atol=5 * 0.5 / np.sqrt(1000))
    once, again = (lowbit.binarize(x, mode="stochastic", seed=7) for _ in range(2))
    np.testing.assert_array_equal(once, again)
    with pytest.raises(ValueError, match="mode 'round'"):
        lowbit.binarize(x, mode="round")
    with pytest.raises(ValueError, match=r"x\(0, 1\) is NaN"):
        lowbit.binarize(np.array([[0, np.nan]]))
