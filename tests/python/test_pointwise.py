"""pointwise on codes: scalar against NumPy written from the header's formulas, every level against scalar."""

import numpy as np
import pytest

import lowbit
from lowbit import _core

LEVELS = lowbit.isas()
SIZES = [0, 1, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 255, 1000]
KINDS = [("uint8", 0), ("uint8", 131), ("int8", 0), ("int8", -128), ("int8", 17)]
F32 = np.float32


def rng(*seed):
    return np.random.default_rng([7, *seed])


def codes(shape, dtype, seed=0):
    """Random codes, with the hostile ones well represented."""
    info = np.iinfo(dtype)
    r = rng(seed)
    q = r.integers(info.min, info.max + 1, shape)
    hostile = r.choice([info.min, info.max, info.max // 2, info.min + 1], shape)
    return np.where(r.random(shape) < 0.3, hostile, q).astype(dtype)


def limits(dtype, lo=-128, hi=255):
    info = np.iinfo(dtype)
    return max(lo, info.min), min(hi, info.max)


def sat(f, zero, dtype, lo=-128, hi=255):
    lo, hi = limits(dtype, lo, hi)
    f = np.fmin(np.fmax(np.asarray(f, F32), F32(lo - zero)), F32(hi - zero))
    return (zero + np.rint(f).astype(np.int32)).astype(dtype)


def real(q, zero):
    return (q.astype(np.int32) - zero).astype(F32)


def test_the_levels_that_run_here():
    assert LEVELS[-1] == "scalar" and LEVELS[0] == lowbit.best_isa()


def on_every_level(call, make):
    """The result of call(out, isa, threads), which is the same on every level and thread count."""
    expected = make()
    call(expected, "scalar", 1)
    ran = []
    for isa in LEVELS:
        for threads in (1, 3):
            out = make()
            call(out, isa, threads)
            np.testing.assert_array_equal(out, expected, err_msg=f"{isa}, {threads} threads")
        ran.append(isa)
    assert ran == lowbit.isas()
    return expected


def quantized(x, scale, zero, dtype, lo=-128, hi=255):
    with np.errstate(over="ignore", invalid="ignore"):
        return sat(x / F32(scale), zero, dtype, lo, hi)


# quantize ----------------------------------------------------------


def floats(n, scale, seed=0):
    """Floats of every fate: near ties, exact ties, saturating, tiny, infinite, NaN."""
    r = rng(seed, n)
    x = r.normal(0, 150, n)
    tie = r.integers(-300, 300, n) + 0.5
    x = np.where(r.random(n) < 0.4, tie, x) * np.float64(F32(scale))
    with np.errstate(over="ignore"):
        x = x.astype(F32)
        x = np.where(r.random(n) < 0.3, np.nextafter(x, r.choice([-np.inf, np.inf], n).astype(F32)), x)
        special = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 3.4e38, -3.4e38, 1e-45, -1e-38], F32)
    return np.where(r.random(n) < 0.1, r.choice(special, n), x).astype(F32)


@pytest.mark.parametrize("scale", [1.0, 0.1, 0.017, 1 / 255, 3.3e-38, 1e-30, 1e30, 2.7e36])
@pytest.mark.parametrize("dtype,zero", KINDS)
def test_quantize(dtype, zero, scale):
    for n in SIZES:
        x = floats(n, scale)
        q = on_every_level(
            lambda out, isa, threads, x=x: _core.quantize(x, scale, zero, out, isa=isa, threads=threads),
            lambda n=n: np.empty(n, dtype),
        )
        np.testing.assert_array_equal(q, quantized(x, scale, zero, dtype))


@pytest.mark.parametrize("seed", range(4))
def test_quantize_rounds_the_true_quotient(seed):
    """Every level divides, or does what equals division, at and around the ties of many scales."""
    r = rng(seed)
    for scale in np.exp(r.uniform(-12, 5, 40)).astype(F32):
        k = r.integers(-300, 300, 3000) + 0.5
        x = (k * np.float64(scale)).astype(F32)
        x = np.concatenate(
            [x, np.nextafter(x, F32(np.inf)), np.nextafter(x, F32(-np.inf)), np.nextafter(x, F32(0)) * F32(1.0000001)]
        )
        expected = sat(x / scale, 0, "int8")
        for isa in LEVELS:
            q = np.empty(len(x), "int8")
            _core.quantize(x, float(scale), 0, q, isa=isa)
            np.testing.assert_array_equal(q, expected, err_msg=isa)


def test_quantize_clamp_and_shared_threads():
    x = floats(100_003, 0.1)
    q = on_every_level(
        lambda out, isa, threads: _core.quantize(x, 0.1, 5, out, 3, 77, isa=isa, threads=threads),
        lambda: np.empty(len(x), "uint8"),
    )
    assert q.min() == 3 and q.max() == 77
    np.testing.assert_array_equal(q, quantized(x, 0.1, 5, "uint8", 3, 77))


@pytest.mark.parametrize("c,ldq", [(1, 1), (1, 4), (2, 2), (3, 3), (3, 4), (3, 8), (4, 4), (5, 7), (16, 16), (17, 32)])
@pytest.mark.parametrize("dtype,zero", [("uint8", 114), ("int8", -3)])
def test_quantize_nchw(c, ldq, dtype, zero):
    for h, w in [(0, 3), (1, 1), (1, 15), (4, 4), (5, 13), (8, 8), (9, 15), (16, 16), (33, 33), (120, 121)]:
        x = floats(2 * c * h * w, 0.02).reshape(2, c, h, w)
        q = on_every_level(
            lambda out, isa, threads, x=x: _core.quantize_nchw(x, 0.02, zero, out, isa=isa, threads=threads),
            lambda h=h, w=w: np.full((2, h, w, ldq), 99, dtype),
        )
        np.testing.assert_array_equal(q[..., :c], quantized(x, 0.02, zero, dtype).transpose(0, 2, 3, 1))
        assert (q[..., c:] == 99).all()


@pytest.mark.parametrize("dtype,zero", KINDS)
def test_dequantize(dtype, zero):
    for n in [*SIZES, 70_001]:
        q = codes(n, dtype)
        x = on_every_level(
            lambda out, isa, threads, q=q: _core.dequantize(q, 0.37, zero, out, isa=isa, threads=threads),
            lambda n=n: np.empty(n, F32),
        )
        np.testing.assert_array_equal(x, real(q, zero) * F32(0.37))


def test_min_max():
    for n in [*SIZES[1:], 300_001]:
        x = rng(n).normal(0, 3, n).astype(F32)
        for isa in LEVELS:
            assert _core.min_max(x, isa=isa, threads=2) == (x.min(), x.max())
    for isa in LEVELS:
        assert _core.min_max(np.empty(0, F32), isa=isa) == (0, 0)
        low, high = _core.min_max(np.array([-0.0] * 40, F32), isa=isa)
        assert not np.signbit([low, high]).any()
        assert _core.min_max(np.array([np.inf, 1, -np.inf], F32), isa=isa) == (-np.inf, np.inf)
        for at in (0, 1, 16, 39):
            x = np.ones(40, F32)
            x[at] = np.nan
            with pytest.raises(ValueError, match=r"min_max.*NaN"):
                _core.min_max(x, isa=isa)


# lookup ----------------------------------------------------------


@pytest.mark.parametrize("dtype", ["uint8", "int8", "float32"])
@pytest.mark.parametrize("channels", [1, 3])
def test_lookup(dtype, channels):
    table = rng(1).integers(0, 256, (channels, 256)).astype("uint8")
    table = table.view("int8") if dtype == "int8" else table.astype(dtype)
    for n in [*SIZES, 300_001]:
        x = codes(n - n % channels, "uint8", n)
        y = on_every_level(
            lambda out, isa, threads, x=x: _core.lookup(x, table, out, isa=isa, threads=threads),
            lambda x=x: np.empty(len(x), dtype),
        )
        np.testing.assert_array_equal(y, table[np.arange(len(x)) % channels, x])


def test_lookup_every_code_and_in_place():
    table = rng(2).permutation(256).astype("uint8")[None]
    for isa in LEVELS:
        x = np.arange(256, dtype="uint8")
        _core.lookup(x, table, x, isa=isa)
        np.testing.assert_array_equal(x, table[0])


# add, mul ----------------------------------------------------------


@pytest.mark.parametrize("ka", KINDS)
@pytest.mark.parametrize("kb", [KINDS[1], KINDS[3]])
@pytest.mark.parametrize("ky", [KINDS[0], KINDS[4]])
def test_add(ka, kb, ky):
    for n in [*SIZES, 70_001]:
        a, b = codes(n, ka[0], 1), codes(n, kb[0], 2)
        for sa, sb, sy, lo, hi in [
            (0.1, 0.03, 0.11, -128, 255),
            (0.5, 0.5, 0.25, -5, 100),
            (3e38, 1e38, 1e-38, -128, 255),
        ]:
            y = on_every_level(
                lambda out, isa, threads, a=a, b=b, sa=sa, sb=sb, sy=sy, lo=lo, hi=hi: _core.add_i8(
                    a, sa, ka[1], b, sb, kb[1], out, sy, ky[1], lo, hi, isa=isa, threads=threads
                ),
                lambda n=n: np.empty(n, ky[0]),
            )
            with np.errstate(over="ignore", invalid="ignore"):
                f = real(a, ka[1]) * (F32(sa) / F32(sy)) + real(b, kb[1]) * (F32(sb) / F32(sy))
            np.testing.assert_array_equal(y, sat(f, ky[1], ky[0], lo, hi))


def test_add_in_place():
    a, b = codes(1001, "uint8", 1), codes(1001, "uint8", 2)
    expected = np.empty_like(a)
    _core.add_i8(a, 0.1, 3, b, 0.2, 9, expected, 0.2, 5, isa="scalar")
    for isa in LEVELS:
        y = a.copy()
        _core.add_i8(y, 0.1, 3, b, 0.2, 9, y, 0.2, 5, isa=isa)
        np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize(
    "ka,kb,ky", [(KINDS[1], KINDS[0], KINDS[1]), (KINDS[3], KINDS[1], KINDS[4]), (KINDS[0], KINDS[2], KINDS[2])]
)
@pytest.mark.parametrize("scales", [(0.1, 0.004, 0.02), (1.0, 1.0, 1.0), (1e20, 1e19, 1e-30)])
def test_mul(ka, kb, ky, scales):
    sa, sb, sy = scales
    for outer, repeat, inner in (
        [(1, 1, n) for n in SIZES]
        + [(2, 3, n) for n in SIZES]
        + [(3, 49, 40), (0, 2, 5), (2, 0, 5), (1, 900, 33), (2, 900, 40), (1, 1, 70_001)]
    ):
        a, b = codes((outer, repeat, inner), ka[0], 1), codes((outer, inner), kb[0], 2)
        y = on_every_level(
            lambda out, isa, threads, a=a, b=b: _core.mul_i8(
                a, sa, ka[1], b, sb, kb[1], out, sy, ky[1], -100, 250, isa=isa, threads=threads
            ),
            lambda a=a: np.empty(a.shape, ky[0]),
        )
        with np.errstate(over="ignore", invalid="ignore"):
            factor = F32(F32(sa) * F32(sb)) / F32(sy)
            product = (a.astype(np.int32) - ka[1]) * (b.astype(np.int32)[:, None] - kb[1])
            expected = sat(product.astype(F32) * factor, ky[1], ky[0], -100, 250)
        np.testing.assert_array_equal(y, expected)


# errors ----------------------------------------------------------


def test_errors_name_function_and_numbers():
    x, q = np.zeros(4, F32), np.zeros(4, "uint8")
    with pytest.raises(ValueError, match="quantize: the output has scale nan"):
        _core.quantize(x, float("nan"), 0, q)
    with pytest.raises(ValueError, match="scale 0"):
        _core.quantize(x, 0.0, 0, q)
    with pytest.raises(ValueError, match=r"zero point 256, not in 0..255"):
        _core.quantize(x, 1.0, 256, q)
    with pytest.raises(ValueError, match="lo = 9 and hi = 3"):
        _core.quantize(x, 1.0, 0, q, 9, 3)
    with pytest.raises(ValueError, match="lo = 200 and hi = 255 leave no int8"):
        _core.quantize(x, 1.0, 0, q.view("int8"), 200, 255)
    with pytest.raises(ValueError, match="q has 3 elements, expected 4"):
        _core.quantize(x, 1.0, 0, q[:3])
    with pytest.raises(TypeError, match="float64"):
        _core.quantize(x.astype("float64"), 1.0, 0, q)
    with pytest.raises(ValueError, match="not C-contiguous"):
        _core.quantize(np.zeros(8, F32)[::2], 1.0, 0, q)
    with pytest.raises(ValueError, match="threads: -1"):
        _core.quantize(x, 1.0, 0, q, threads=-1)
    with pytest.raises(ValueError, match="unknown level"):
        _core.quantize(x, 1.0, 0, q, isa="mmx")
    with pytest.raises(ValueError, match="codes are int8 or uint8"):
        _core.quantize(x, 1.0, 0, np.zeros(4, "int32"))
    with pytest.raises(ValueError, match="n = 4 is no multiple of channels = 3"):
        _core.lookup(q, np.zeros((3, 256), "uint8"), q)
    with pytest.raises(ValueError, match="quantize_nchw: ldq = 2 is below c = 3"):
        _core.quantize_nchw(np.zeros((1, 3, 2, 2), F32), 1.0, 0, np.zeros((1, 2, 2, 2), "uint8"))
