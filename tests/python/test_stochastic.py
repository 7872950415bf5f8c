"""quantize_stochastic and clip_deviations against NumPy written from the definition, on every level."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lowbit

LEVELS = lowbit.isas()
SIZES = [0, 1, 15, 16, 17, 63, 64, 65, 1000, 1023, 1024, 1025, 2500]


def philox(key: list[int], counter: np.ndarray) -> np.ndarray:
    """Philox4x32-10: counter (n, 4) to words (n, 4), uint32 in uint64."""
    mask = np.uint64(0xFFFFFFFF)
    c, k = [counter[:, i].astype(np.uint64) for i in range(4)], [np.uint64(v) for v in key]
    for _ in range(10):
        p0, p1 = np.uint64(0xD2511F53) * c[0], np.uint64(0xCD9E8D57) * c[2]
        c = [(p1 >> np.uint64(32)) ^ c[1] ^ k[0], p1 & mask, (p0 >> np.uint64(32)) ^ c[3] ^ k[1], p0 & mask]
        k = [(k[0] + np.uint64(0x9E3779B9)) & mask, (k[1] + np.uint64(0xBB67AE85)) & mask]
    return np.stack(c, 1)


def uniforms(n: int, seed: int, stream: int) -> np.ndarray:
    """u of elements 0..n-1 in float32."""
    i = np.arange(n, dtype=np.uint64)
    block = i // np.uint64(64) * np.uint64(16) + i % np.uint64(16)
    halves = [seed & 0xFFFFFFFF, seed >> 32]
    stream_words = np.full((n, 2), [stream & 0xFFFFFFFF, stream >> 32], np.uint64)
    counter = np.concatenate([(block & np.uint64(0xFFFFFFFF))[:, None], (block >> np.uint64(32))[:, None]], 1)
    words = philox(halves, np.concatenate([counter, stream_words], 1))
    word = words[np.arange(n), (i % np.uint64(64) // np.uint64(16)).astype(int)]
    return (word >> np.uint64(8)).astype(np.float32) * np.float32(2.0**-24)


def reference(x: np.ndarray, scale: float, seed: int, stream: int) -> np.ndarray:
    v = x.ravel() * (np.float32(1) / np.float32(scale))
    c = np.clip(v, np.float32(-127), np.float32(127))
    low = np.floor(c)
    return (low + (uniforms(x.size, seed, stream) < c - low) + 128).astype(np.uint8).reshape(x.shape)


def deviation(x: np.ndarray, q: np.ndarray) -> float:
    x, q = x.ravel().astype(np.float64), q.ravel().astype(np.float64)
    return 1 - x @ q / math.sqrt((x @ x) * (q @ q))


def test_philox_is_the_published_one():
    """Known answers of Random123 (Salmon et al. 2011)."""
    zeros, ones = np.zeros((1, 4), np.uint64), np.full((1, 4), 0xFFFFFFFF, np.uint64)
    pi = np.array([[0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344]], np.uint64)
    assert [hex(w) for w in philox([0, 0], zeros)[0]] == ["0x6627e8d5", "0xe169c58d", "0xbc57ac4c", "0x9b00dbd8"]
    assert [hex(w) for w in philox([0xFFFFFFFF] * 2, ones)[0]] == [
        "0x408f276d", "0x41c83b0e", "0xa20bc7c6", "0x6d5451fd",
    ]  # fmt: skip
    assert [hex(w) for w in philox([0xA4093822, 0x299F31D0], pi)[0]] == [
        "0xd16cfe09", "0x94fdcceb", "0x5001e420", "0x24126ea1",
    ]  # fmt: skip


@pytest.mark.parametrize("isa", LEVELS)
@pytest.mark.parametrize("n", SIZES)
def test_codes_are_those_of_the_definition(isa, n):
    rng = np.random.default_rng(n)
    x = (rng.standard_normal(n) * rng.choice([1e-6, 0.1, 1, 40], n)).astype(np.float32)
    seed, stream = 0x0123456789ABCDEF, 0xFEDCBA9876543210
    codes, d, peak = lowbit.quantize_stochastic(x, 0.11, seed=seed, stream=stream, isa=isa)
    assert np.array_equal(codes, reference(x, 0.11, seed, stream))
    assert peak == (np.abs(x).max() if n else 0)
    if n > 1:
        assert d == pytest.approx(deviation(x, codes.astype(int) - 128), abs=1e-6)


def test_levels_and_threads_agree_to_the_last_bit():
    assert LEVELS[-1] == "scalar"
    rng = np.random.default_rng(0)
    x = rng.standard_normal(3 * 65536 + 77).astype(np.float32)
    expected = lowbit.quantize_stochastic(x, 0.03, seed=7, stream=9, isa="scalar", threads=1)
    clips = np.float32(4) * 2.0 ** (-np.arange(6) / 2)
    deviations = lowbit.clip_deviations(x, clips, isa="scalar", threads=1)
    for isa in LEVELS:
        for threads in (1, 2, 3):
            codes, d, peak = lowbit.quantize_stochastic(x, 0.03, seed=7, stream=9, isa=isa, threads=threads)
            assert np.array_equal(codes, expected[0]) and (d, peak) == expected[1:]
            assert np.array_equal(lowbit.clip_deviations(x, clips, isa=isa, threads=threads), deviations)


@pytest.mark.parametrize("fraction", [0.0, 0.001, 0.25, 0.5, 0.9, 1.0])
def test_the_mean_of_a_code_is_the_value(fraction):
    """n independent draws of variance f (1 - f): 6 standard deviations fail once in 5e8 tests."""
    n = 200_000
    codes, _, _ = lowbit.quantize_stochastic(np.full(n, -3 + fraction, np.float32), 1.0, seed=1)
    allowed = 6 * math.sqrt(fraction * (1 - fraction) / n) + 2.0**-22  # the value itself is rounded to float32
    assert abs(codes.astype(np.float64).mean() - 128 - (-3 + fraction)) <= allowed


def test_streams_and_seeds_differ_and_do_not_correlate():
    n = 100_000
    x = np.full(n, 0.5, np.float32)
    draws = [
        lowbit.quantize_stochastic(x, 1.0, seed=seed, stream=stream)[0].astype(np.float64) - 128.5
        for seed, stream in ((0, 0), (0, 1), (1, 0), (0, 1 << 48))
    ]
    for i in range(len(draws)):
        for j in range(i):
            assert abs(4 * np.mean(draws[i] * draws[j])) < 6 / math.sqrt(n)


@pytest.mark.parametrize("isa", LEVELS)
def test_values_at_the_ends(isa):
    x = np.array([127, 128, 1e30, -127, -128, -1e30, 0, -0.0, 1e-40], np.float32)
    codes, _, peak = lowbit.quantize_stochastic(x, 1.0, isa=isa)
    assert codes.tolist() == [255, 255, 255, 1, 1, 1, 128, 128, 128] and peak == np.float32(1e30)


def test_what_zero_deviates():
    x = np.zeros(100, np.float32)
    assert lowbit.quantize_stochastic(x, 1.0)[1:] == (0.0, 0.0)
    assert lowbit.clip_deviations(x, [1.0]).tolist() == [0.0]
    assert lowbit.clip_deviations(np.float32([1e-9]), [1.0]).tolist() == [1.0]  # all codes are 0


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=200), st.floats(0.01, 100))
def test_deviations_are_those_of_rounding_to_nearest(values, clip):
    x, clip = np.float32(values), np.float32(clip)
    q = np.rint(np.clip(x * (np.float32(1) / (clip / np.float32(127))), -127, 127))
    found = float(lowbit.clip_deviations(x, [clip])[0])
    if not x.any():
        assert found == 0
    elif q.any() and np.abs(x).max() > 1e-10:
        assert found == pytest.approx(deviation(x, q), abs=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("isa", LEVELS)
def test_what_is_not_a_number_is_an_error(bad, isa):
    for at in (0, 17, 99):
        x = np.ones(100, np.float32)
        x[at] = bad
        with pytest.raises(ValueError, match="quantize_stochastic: x holds a NaN or an infinity"):
            lowbit.quantize_stochastic(x, 1.0, isa=isa)
        with pytest.raises(ValueError, match="NaN or an infinity"):
            lowbit.clip_deviations(x, [1.0], isa=isa)


def test_bad_arguments():
    x = np.ones(4, np.float32)
    for scale in (0.0, -1.0, np.nan, np.inf, 1e-45):
        with pytest.raises(ValueError, match="scale"):
            lowbit.quantize_stochastic(x, scale)
    with pytest.raises(TypeError, match="float64"):
        lowbit.quantize_stochastic(x.astype(np.float64), 1.0)
    with pytest.raises(ValueError, match="contiguous"):
        lowbit.quantize_stochastic(np.ones((4, 4), np.float32)[:, ::2], 1.0)
    with pytest.raises(ValueError, match="out"):
        lowbit.quantize_stochastic(x, 1.0, out=np.empty(5, np.uint8))
