"""gemm_i8: against NumPy's int64 product, every level, hostile values, edges of every tile."""

import contextlib
import ctypes
import mmap

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lowbit
from test_requantize import expected

LEVELS = lowbit.isas()
TYPES = ["int8", "uint8"]


def codes(rng, dtype, shape, extreme=0.3):
    """Random codes, many of them at the ends of the type."""
    info = np.iinfo(dtype)
    values = rng.integers(info.min, info.max + 1, shape)
    return np.where(rng.random(shape) < extreme, rng.choice([info.min, info.max], shape), values).astype(dtype)


def product(a, b, za=0, zb=0):
    return ((a.astype(np.int64) - za) @ (b.astype(np.int64) - zb)).astype(np.int32)


def check(a, b, za=0, zb=0, **epilogue):
    want = product(a, b, za, zb)
    if epilogue.get("out_dtype", "int32") != "int32":
        e = {"zero_point": 0, "bias": None, "rounding": "nearest_even", **epilogue}
        e["dtype"] = e.pop("out_dtype")
        want = expected(want, **e)
    packed = lowbit.pack_i8(b)
    for isa in LEVELS:
        for threads in (1, 2):
            got = lowbit.gemm_i8(a, packed, za, zb, **epilogue, isa=isa, threads=threads)
            np.testing.assert_array_equal(got, want, err_msg=f"{isa}, {threads} threads, {a.shape} x {b.shape}")


@pytest.mark.parametrize("k", [0, 1, 3, 4, 5, 16, 63, 64, 65, 127, 130])
@pytest.mark.parametrize("n", [1, 15, 16, 17, 31, 33, 49, 64, 65])
def test_every_edge(k, n):
    rng = np.random.default_rng(k * 100 + n)
    for m in (1, 2, 5, 7, 16, 17, 33, 48, 50):
        check(codes(rng, "uint8", (m, k)), codes(rng, "int8", (k, n)))


@pytest.mark.parametrize("a_type", TYPES)
@pytest.mark.parametrize("b_type", TYPES)
def test_types_and_zero_points(a_type, b_type):
    rng = np.random.default_rng(5)
    for m, k, n in [(1, 1, 1), (3, 70, 20), (40, 33, 65), (70, 128, 48)]:
        a, b = codes(rng, a_type, (m, k)), codes(rng, b_type, (k, n))
        check(a, b)
        for za in (np.iinfo(a_type).min, np.iinfo(a_type).max, 7):
            for zb in (np.iinfo(b_type).min, np.iinfo(b_type).max, 3, 128 if b_type == "uint8" else 0):
                check(a, b, za, zb)


@pytest.mark.parametrize("value", [(-128, -128), (127, -128), (-128, 127)])
def test_constant_extremes(value):
    for m, k, n in [(33, 4096, 17), (1, 16512, 3)]:
        check(np.full((m, k), value[0], np.int8), np.full((k, n), value[1], np.int8))
    check(np.full((20, 4096), 255, np.uint8), np.full((4096, 33), -128, np.int8))


def test_the_exact_bound():
    for a_type, za, b_type, zb, reach in [
        ("uint8", 0, "int8", 0, 255 * 128),
        ("int8", 0, "int8", 0, 128 * 128),
        ("uint8", 128, "int8", -128, 128 * 255),
    ]:
        k = (2**31 - 1) // reach
        low, high = (np.iinfo(a_type).min, np.iinfo(a_type).max)
        a = np.full((1, k), high if high - za == reach // (255 if zb else 128) else low, a_type)
        b = np.full((k, 1), np.iinfo(b_type).max if zb else np.iinfo(b_type).min, b_type)
        check(a, b, za, zb)
        with pytest.raises(ValueError, match=f"k = {k + 1}"):
            lowbit.gemm_i8(np.zeros((1, k + 1), a_type), np.zeros((k + 1, 1), b_type), za, zb)


@pytest.mark.parametrize("rounding", ["nearest_even", "gemmlowp", "single"])
@pytest.mark.parametrize("out_dtype", TYPES)
def test_fused_codes(rounding, out_dtype):
    rng = np.random.default_rng(11)
    for m, k, n in [(1, 50, 70), (19, 64, 24), (50, 200, 100), (97, 72, 33)]:
        a, b = codes(rng, "uint8", (m, k)), codes(rng, "int8", (k, n))
        scale = np.exp(rng.uniform(-10, -5, n)).astype(np.float32)
        bias = rng.integers(-100000, 100000, n).astype(np.int32)
        check(a, b, 3, 0, out_dtype=out_dtype, scale=scale, bias=bias, zero_point=17, rounding=rounding)
        check(a, b, 0, 5, out_dtype=out_dtype, scale=0.0021, zero_point=100, rounding=rounding, clamp=(100, 120))
        residual = codes(rng, "uint8", (m, n))
        more = {"residual": residual, "residual_scale": 0.71, "residual_zero_point": 100}
        check(a, b, out_dtype=out_dtype, scale=scale, bias=bias, zero_point=50, rounding=rounding, **more)


@pytest.mark.parametrize("rounding", ["gemmlowp", "single"])
@pytest.mark.parametrize("bias_bits", [10, 22, 30])
def test_fused_fixed_point_from_tiny_to_large_multipliers(rounding, bias_bits):
    """The sums' bound lets multipliers down to 2^-24 through float arithmetic; biases of 2^30 do not."""
    rng = np.random.default_rng(bias_bits)
    for m, k, n in [(5, 9, 16), (40, 24, 70), (33, 385, 144)]:
        a, b = codes(rng, "uint8", (m, k)), codes(rng, "int8", (k, n))
        residual = codes(rng, "uint8", (m, n))
        for low, high in [(-33, -20), (-24, -16), (-20, -6), (-9, -0.5), (-3, 2)]:
            scale = np.exp2(rng.uniform(low, high, n)).astype(np.float32)
            scale[::4] = np.exp2(np.floor(np.log2(scale[::4])))
            top = 2.0**bias_bits
            bias = np.clip(np.rint(rng.integers(-200, 300, n) * 0.5 / scale.astype(np.float64)), -top, top)
            case = {"scale": scale, "bias": bias.astype(np.int32), "zero_point": 12, "rounding": rounding}
            for more in ({}, {"clamp": (12, 255)}, {"residual": residual, "residual_scale": 0.7}):
                every = [lowbit.gemm_i8(a, b, 0, out_dtype="uint8", isa=isa, **case, **more) for isa in LEVELS]
                wanted = lowbit.requantize(
                    product(a, b).astype(np.int32), **case, **more, dtype="uint8",
                    isa="scalar",
                )  # fmt: skip
                for isa, got in zip(LEVELS, every, strict=True):
                    np.testing.assert_array_equal(got, wanted, err_msg=f"{isa} {(m, k, n)} {low} {list(more)}")


def test_fused_float_and_int_bias():
    rng = np.random.default_rng(12)
    a, b = codes(rng, "int8", (37, 90)), codes(rng, "int8", (90, 40))
    scale = rng.uniform(0.001, 0.1, 40).astype(np.float32)
    bias, float_bias = rng.integers(-9999, 9999, 40).astype(np.int32), rng.normal(size=40).astype(np.float32)
    acc = product(a, b)
    for isa in LEVELS:
        np.testing.assert_array_equal(lowbit.gemm_i8(a, b, bias=bias, isa=isa), acc + bias)
        got = lowbit.gemm_i8(a, b, scale=scale, bias=bias, out_dtype="float32", isa=isa)
        np.testing.assert_array_equal(got, (acc + bias).astype(np.float32) * scale)
        got = lowbit.gemm_i8(a, b, scale=scale, bias=float_bias, out_dtype="float32", clamp=(0, 50), isa=isa)
        np.testing.assert_array_equal(got, np.clip(acc.astype(np.float32) * scale + float_bias, 0, 50))


@settings(max_examples=60, deadline=None)
@given(
    m=st.integers(0, 80), k=st.integers(0, 200), n=st.integers(0, 150),
    a_type=st.sampled_from(TYPES), b_type=st.sampled_from(TYPES), seed=st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_any_shape(m, k, n, a_type, b_type, seed):
    rng = np.random.default_rng(seed)
    za, zb = int(rng.integers(0, 100)), int(rng.choice([0, 0, 5]))
    check(codes(rng, a_type, (m, k)), codes(rng, b_type, (k, n)), za, zb)


@pytest.mark.parametrize("shape", [(1, 512, 4096), (8, 300, 1100), (600, 64, 64), (300, 700, 100)])
def test_threads_split_rows_and_columns(shape):
    m, k, n = shape
    rng = np.random.default_rng(3)
    a, b = codes(rng, "uint8", (m, k)), lowbit.pack_i8(codes(rng, "int8", (k, n)))
    for isa in LEVELS[:-1]:
        want = lowbit.gemm_i8(a, b, threads=1, isa=isa)
        for threads in (2, 3, 7):
            np.testing.assert_array_equal(lowbit.gemm_i8(a, b, threads=threads, isa=isa), want)


def test_strides_out_and_linearity():
    rng = np.random.default_rng(4)
    wide, b = codes(rng, "uint8", (30, 300)), codes(rng, "int8", (70, 50))
    for a in (wide[:, 20:90], wide[::-1, 100:170], wide[:, 10:220:3], np.asfortranarray(wide[:, :70])):
        check(a, b)
        check(a, np.asfortranarray(b))
        check(a, codes(rng, "int8", (50, 70)).T)
    a = np.ascontiguousarray(wide[:, :70])
    out = np.zeros((30, 50), np.int32)
    assert lowbit.gemm_i8(a, b, out=out) is out
    np.testing.assert_array_equal(
        out, lowbit.gemm_i8(a[:, :40].copy(), b[:40]) + lowbit.gemm_i8(a[:, 40:].copy(), b[40:])
    )


@contextlib.contextmanager
def guarded():
    """Random bytes between two unreadable pages."""
    libc, page = ctypes.CDLL(None, use_errno=True), mmap.PAGESIZE
    area = mmap.mmap(-1, 5 * page)
    view = ctypes.c_char.from_buffer(area)
    start = ctypes.addressof(view)
    for guard in (start, start + 4 * page):
        assert libc.mprotect(ctypes.c_void_p(guard), page, 0) == 0
    memory = np.frombuffer(area, np.uint8, 3 * page, page)
    memory[:] = np.random.default_rng(9).integers(0, 256, memory.size)
    yield memory
    for guard in (start, start + 4 * page):
        libc.mprotect(ctypes.c_void_p(guard), page, mmap.PROT_READ | mmap.PROT_WRITE)


def test_reads_only_what_is_given():
    rng = np.random.default_rng(9)
    with guarded() as memory:
        for m, k in [(1, 1), (1, 5), (7, 3), (16, 24), (33, 70), (40, 64), (100, 96), (50, 130)]:
            for a in (memory[: m * k], memory[memory.size - m * k :]):
                check(a.reshape(m, k), codes(rng, "int8", (k, 20)))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"a": np.zeros((2, 4), np.uint8)}, ValueError, "k = 4"),
        ({"a": np.zeros((2, 3), np.int16)}, TypeError, "int16"),
        ({"a": np.zeros(3, np.int8)}, ValueError, "axes"),
        ({"b": np.zeros((3, 2), np.float32)}, TypeError, "float32"),
        ({"a_zero_point": 200}, ValueError, "zero point 200"),
        ({"b_zero_point": -200}, ValueError, "zero point -200"),
        ({"scale": 0.5}, ValueError, "scale needs"),
        ({"out_dtype": "int8", "scale": [1.0, np.nan]}, ValueError, r"scale\[1\]"),
        ({"out_dtype": "int8", "scale": [1.0, -1.0]}, ValueError, "> 0"),
        ({"out_dtype": "int64"}, ValueError, "int64"),
        ({"out": np.zeros((2, 3), np.int32)}, ValueError, "out is"),
        ({"out": np.zeros((2, 4), np.int32)[:, ::2]}, ValueError, "C order"),
        ({"bias": np.zeros(3, np.int32)}, ValueError, "bias has 3"),
        ({"isa": "avx1024"}, ValueError, "avx1024"),
        ({"threads": -3}, ValueError, "threads"),
    ],
)
def test_errors_name_what_is_wrong(change, error, message):
    arguments = {"a": np.zeros((2, 3), np.int8), "b": np.zeros((3, 2), np.int8), **change}
    with pytest.raises(error, match=message):
        lowbit.gemm_i8(**arguments)


def test_packed_weights():
    p = lowbit.pack_i8(np.zeros((70, 20), np.uint8))
    assert p.shape == (70, 20) and p.dtype == np.uint8 and p.nbytes >= 1400
