"""requantize: against NumPy and Python integers written from the definition, golden vectors, every level."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lowbit
from lowbit import _core

LEVELS = lowbit.isas()
RANGE = {"int8": (-128, 127), "uint8": (0, 255)}


def fixed_pair(scale):
    mantissa, exponent = math.frexp(float(np.float32(scale)))
    return int(mantissa * 2**31), exponent


def gemmlowp(x, m0, shift):
    """gemmlowp's fixedpoint.h in Python integers: saturating left shift, SRDHM, RoundingDivideByPOT."""
    x = max(-(2**31), min(2**31 - 1, x << max(shift, 0)))
    product = x * m0
    nudged = product + (2**30 if product >= 0 else 1 - 2**30)
    high = -(-nudged // 2**31) if nudged < 0 else nudged // 2**31  # C's division truncates
    right = max(-shift, 0)
    remainder, threshold = high & ((1 << right) - 1), (((1 << right) - 1) >> 1) + (high < 0)
    return (high >> right) + (remainder > threshold)


def single(x, m0, shift):
    return (x * m0 + (1 << (30 - shift))) >> (31 - shift)


def expected(
    acc, scale, zero_point, bias, dtype, rounding, clamp=None, residual=None, residual_scale=1.0, residual_zero_point=0
):
    n = acc.shape[-1]
    acc = acc if bias is None else (acc.astype(np.int64) + bias).astype(np.uint32).astype(np.int32)  # wraps
    scale = np.broadcast_to(np.float32(scale), (n,))
    lo, hi = RANGE[dtype]
    if clamp:
        lo, hi = max(lo, clamp[0]), min(hi, clamp[1])
    r = None if residual is None else residual.astype(np.int64) - residual_zero_point
    if rounding == "nearest_even":
        f = acc.astype(np.float32) * scale
        if r is not None:
            f = f + r.astype(np.float32) * np.float32(residual_scale)
        return (zero_point + np.rint(np.clip(f, lo - zero_point, hi - zero_point))).astype(dtype)
    multiply = {"gemmlowp": gemmlowp, "single": single}[rounding]
    out = np.empty(acc.shape, dtype)
    m0, shift = fixed_pair(residual_scale)
    for at in np.ndindex(acc.shape):
        v = multiply(int(acc[at]), *fixed_pair(scale[at[-1]]))
        if r is not None:
            v += multiply(int(r[at]) << 16, m0, shift - 16)
        out[at] = max(lo, min(hi, zero_point + v))
    return out


def hostile(rng, shape):
    """Small sums, large ones, and the ends of int32."""
    acc = np.where(rng.random(shape) < 0.7, rng.integers(-20000, 20000, shape), rng.integers(-(2**31), 2**31, shape))
    ends = rng.choice([-(2**31), 2**31 - 1, 0, -1, 1], shape)
    return np.where(rng.random(shape) < 0.1, ends, acc).astype(np.int32)


def test_the_levels_that_run():
    assert LEVELS[-1] == "scalar" and set(LEVELS) <= {"amx", "avx512", "avx512_vnni", "avx2", "scalar"}


@pytest.mark.parametrize("rounding", ["nearest_even", "gemmlowp", "single"])
@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize("n", [1, 7, 15, 16, 17, 31, 33, 63, 64, 65, 100])
def test_codes_match_the_definition_at_every_level(rounding, dtype, n):
    rng = np.random.default_rng(n)
    acc = hostile(rng, (5, n))
    lo, hi = RANGE[dtype]
    residual_type = rng.choice(["int8", "uint8"])
    low = np.iinfo(residual_type).min
    residual = rng.integers(low, low + 256, (5, n)).astype(residual_type)
    scale = np.exp(rng.uniform(np.log(1e-5), np.log(2.0), n)).astype(np.float32)
    below_half = np.minimum(scale, np.nextafter(np.float32(0.5), np.float32(0)))
    below_half[n // 2] = 2.0**-36
    bias = rng.integers(-3000, 3000, n).astype(np.int32)
    cases = [
        {"scale": 0.0123, "zero_point": 0},
        {"scale": scale, "zero_point": int(rng.integers(lo, hi + 1)), "bias": bias},
        {"scale": scale, "zero_point": lo, "bias": bias, "clamp": (lo + 5, hi - 20)},
        {
            "scale": scale,
            "zero_point": 3,
            "residual": residual,
            "residual_scale": 0.37,
            "residual_zero_point": int(rng.integers(low, low + 256)),
        },
        {"scale": 1.7, "zero_point": hi, "residual": residual, "residual_scale": 3.5},
        # Fixed-point multipliers below 1/2 have a path of their own.
        {"scale": below_half, "zero_point": int(rng.integers(lo, hi + 1)), "bias": bias, "clamp": (lo + 1, hi)},
        {"scale": below_half, "zero_point": 1, "residual": residual, "residual_scale": 2.0**14},
        {"scale": below_half, "zero_point": 1, "residual": residual, "residual_scale": 2.0**15},
        {"scale": below_half, "zero_point": hi, "residual": residual, "residual_scale": 0.61, "residual_zero_point": 9},
    ]
    for case in cases:
        want = expected(acc, **{"bias": None, **case}, dtype=dtype, rounding=rounding)
        for isa in LEVELS:
            got = lowbit.requantize(acc, **case, dtype=dtype, rounding=rounding, isa=isa)
            assert got.dtype == dtype
            np.testing.assert_array_equal(got, want, err_msg=f"{isa} {case}")


@pytest.mark.parametrize("n", [1, 15, 16, 17, 33, 64, 67])
def test_float_output(n):
    rng = np.random.default_rng(n)
    acc = hostile(rng, (4, n))
    scale = np.exp(rng.uniform(-12, 1, n)).astype(np.float32)
    bias, float_bias = rng.integers(-(2**31), 2**31, n).astype(np.int32), rng.normal(size=n).astype(np.float32)
    residual = rng.normal(size=(4, n)).astype(np.float32)
    residual[0, 0] = np.nan
    for isa in LEVELS:
        got = lowbit.requantize(acc, scale, bias=bias, dtype="float32", isa=isa)
        wrapped = (acc.astype(np.int64) + bias).astype(np.uint32).astype(np.int32)
        np.testing.assert_array_equal(got, wrapped.astype(np.float32) * scale)
        got = lowbit.requantize(acc, 0.5, bias=float_bias, dtype="float32", residual=residual, clamp=(0, 6), isa=isa)
        want = np.clip(acc.astype(np.float32) * np.float32(0.5) + float_bias + residual, 0, 6)
        np.testing.assert_array_equal(got, want)


def test_rounding_traps():
    """papers.md section 6: where the three roundings differ."""
    m0, shift = 1583594044, -9  # tensorflow issue 25087
    assert (gemmlowp(7984, m0, shift), single(7984, m0, shift)) == (12, 11)
    # The same trap with multipliers that a float32 holds: x, scale, nearest_even, gemmlowp, single
    golden = [
        (-12, 0.125, -2, -2, -1),  # -1.5
        (12, 0.125, 2, 2, 2),
        (-20, 0.125, -2, -3, -2),  # -2.5
        (20, 0.125, 2, 3, 3),
        (-1, 0.5, 0, -1, 0),  # not shifted: a tie of the high multiply goes up, to 0 ... see below
    ]
    for x, scale, *want in golden[:4]:
        for rounding, value in zip(("nearest_even", "gemmlowp", "single"), want, strict=True):
            for isa in LEVELS:
                got = lowbit.requantize(np.array([x], np.int32), scale, rounding=rounding, isa=isa)
                assert got[0] == value, (x, scale, rounding, isa)
    # scale 1/2 is m0 = 2^30, shift 0: the tie is met in the doubling high multiply, which rounds up.
    assert lowbit.requantize(np.array([-1, 1], np.int32), 0.5, rounding="gemmlowp").tolist() == [0, 1]


def test_double_rounding_differs_from_single_where_it_should():
    rng = np.random.default_rng(0)
    acc = rng.integers(-20000, 20000, 4000).astype(np.int32)
    scale = np.float32(0.00144)
    g, s = (lowbit.requantize(acc, scale, rounding=r).astype(int) for r in ("gemmlowp", "single"))
    m0, shift = fixed_pair(scale)
    np.testing.assert_array_equal(g, [max(-128, min(127, gemmlowp(int(x), m0, shift))) for x in acc])
    assert np.abs(g - s).max() <= 1


def test_double_rounding_golden():
    """A float32 multiplier where rounding twice gives 12 and once 11, found by search."""
    x, scale = find_double_rounding()
    assert lowbit.requantize(np.array([x], np.int32), scale, rounding="gemmlowp")[0] == 12
    assert lowbit.requantize(np.array([x], np.int32), scale, rounding="single")[0] == 11


def find_double_rounding():
    for x in range(7000, 9000):
        scale = np.float32(11.5 / x)
        for _ in range(4):
            m0, shift = fixed_pair(scale)
            if (gemmlowp(x, m0, shift), single(x, m0, shift)) == (12, 11):
                return x, float(scale)
            scale = np.nextafter(scale, np.float32(0))
    raise AssertionError("no such multiplier")


@settings(max_examples=200, deadline=None)
@given(
    x=st.integers(-(2**31), 2**31 - 1),
    scale=st.floats(min_value=2.0**-140, max_value=2.0**29, width=32),
    zero_point=st.integers(-128, 127),
    rounding=st.sampled_from(["nearest_even", "gemmlowp", "single"]),
)
def test_any_multiplier(x, scale, zero_point, rounding):
    acc = np.resize(np.array([x, -x if x > -(2**31) else x, x // 3], np.int32), (1, 21))  # vectors and a rest
    want = expected(acc, scale, zero_point, None, "int8", rounding)
    for isa in LEVELS:
        np.testing.assert_array_equal(lowbit.requantize(acc, scale, zero_point, rounding=rounding, isa=isa), want)


@given(scale=st.floats(min_value=2.0**-140, max_value=2.0**100, width=32))
def test_fixed_point_multiplier_is_exact(scale):
    m0, shift = _core.fixed_point_multiplier(scale)
    assert 2**30 <= m0 < 2**31 and math.ldexp(m0, shift - 31) == scale


def hostile_sums(rng, shape, scale):
    """Sums whose products lie on and beside ties of every code, and a tenth at the ends of int32 and of float32."""
    tie = rng.integers(-200, 457, shape) + rng.choice([0.5, -0.5, 0.0, 0.25], shape)
    acc = np.rint(tie / scale.astype(np.float64)) + rng.integers(-2, 3, shape)
    ends = np.array([-(2**31), 2**31 - 1, 2**24, 2**24 + 1, -(2**24) - 1, 0, 1, -1])
    acc = np.where(rng.random(shape) < 0.1, rng.choice(ends, shape), acc)
    return np.clip(acc, -(2**31), 2**31 - 1).astype(np.int32)


@pytest.mark.parametrize("rounding", ["gemmlowp", "single"])
@pytest.mark.parametrize("least", [-30, -24, -15, -6])
@pytest.mark.parametrize("greatest", [-1.01, 0, 6, 29])
def test_fixed_point_at_its_ties(rounding, least, greatest):
    """Multipliers around 2^-24, 1/2 and 1, powers of two and odd ones, with and without what AVX-512 does in floats."""
    rng = np.random.default_rng([least + 40, int(greatest) + 9])
    ran = []
    for n in (1, 16, 35, 64, 67):
        scale = np.float32(2.0 ** rng.uniform(least, greatest, n))
        scale[::3] = np.float32(2) ** np.floor(np.log2(scale[::3]))
        scale[1::3] = np.nextafter(scale[1::3], np.float32(np.inf))
        acc = hostile_sums(rng, (3, n), scale)
        residual = rng.integers(0, 256, (3, n)).astype(np.uint8)
        cases = [{}, {"clamp": (20, 255)}, {"bias": rng.integers(-(2**31), 2**31, n).astype(np.int32)}]
        cases += [
            {"residual": residual, "residual_scale": s, "residual_zero_point": 130, "bias": rng.integers(-99, 99, n)}
            for s in np.float32([2**-9, 2**-8, 0.77, 1.0, 30.0, 300.0])
        ]
        for case in cases:
            case = {k: np.int32(v) if k == "bias" else v for k, v in case.items()}
            wanted = lowbit.requantize(acc, scale, 20, dtype="uint8", rounding=rounding, isa="scalar", **case)
            for isa in LEVELS:
                got = lowbit.requantize(acc, scale, 20, dtype="uint8", rounding=rounding, isa=isa, **case)
                np.testing.assert_array_equal(got, wanted, err_msg=f"{isa} {n} {case}")
                ran.append(isa)
    assert set(ran) == set(LEVELS)


def test_threads_and_shapes():
    rng = np.random.default_rng(1)
    for shape in [(), (3,), (0, 4), (4, 0), (2, 3, 5), (700, 130), (1, 100000)]:
        acc = np.asarray(hostile(rng, shape))
        one = lowbit.requantize(acc, 0.01, threads=1)
        assert one.shape == shape
        np.testing.assert_array_equal(one, lowbit.requantize(acc, 0.01, threads=3))
        out = np.empty(shape, np.int8)
        assert lowbit.requantize(acc, 0.01, out=out) is out
        np.testing.assert_array_equal(out, one)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"scale": float("nan")}, ValueError, "finite"),
        ({"scale": 0.0}, ValueError, "> 0"),
        ({"scale": float("inf")}, ValueError, "finite"),
        ({"scale": [1.0, 1.0]}, ValueError, "scale has 2 values for 3"),
        ({"bias": [1, 2]}, ValueError, "bias has 2 values for 3"),
        ({"bias": [2**40, 0, 0]}, ValueError, "does not fit int32"),
        ({"bias": [0.5, 0, 0]}, TypeError, "bias"),
        ({"zero_point": 128}, ValueError, "zero_point 128"),
        ({"clamp": (5, 4)}, ValueError, "no value"),
        ({"dtype": "int16"}, ValueError, "int16"),
        ({"rounding": "up"}, ValueError, "'up'"),
        ({"rounding": "single", "scale": 2.0**30}, ValueError, "2\\^30"),
        ({"isa": "sse9"}, ValueError, "sse9"),
        ({"threads": -1}, ValueError, "threads"),
        ({"out": np.zeros(3, np.int32)}, TypeError, "out"),
        ({"out": np.zeros(4, np.int8)}, ValueError, "out"),
        ({"residual": np.zeros(4, np.int8)}, ValueError, "residual"),
        ({"residual": np.zeros(3, np.int64)}, TypeError, "residual"),
        ({"acc": np.zeros(3, np.int64)}, TypeError, "int64"),
    ],
)
def test_errors_name_what_is_wrong(change, error, message):
    arguments = {"acc": np.zeros(3, np.int32), "scale": 1.0, **change}
    with pytest.raises(error, match=message):
        lowbit.requantize(**arguments)
