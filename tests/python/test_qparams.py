"""QParams, the choice of scales and zero points, quantize and dequantize."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import lowbit
from lowbit import QParams, affine_qparams, dequantize, quantize, symmetric_qparams

F32 = np.float32
finite = st.floats(-1e6, 1e6, allow_nan=False, width=32)
dtypes = st.sampled_from(["int8", "uint8"])
bits = st.integers(2, 8)


def formula(x, scale, zero, lo, hi):
    """The definition, in NumPy."""
    with np.errstate(over="ignore", invalid="ignore"):
        f = np.rint(np.asarray(x, F32) / F32(scale)).astype(np.float64)
    return np.fmin(np.fmax(f + zero, lo), hi).astype(np.int64)


def test_ranges_of_codes():
    assert (QParams(1, 0, "int8").qmin, QParams(1, 0, "int8").qmax) == (-128, 127)
    assert (QParams(1, 0, "uint8").qmin, QParams(1, 0, "uint8").qmax) == (0, 255)
    assert (QParams(1, 0, "int8", 4).qmin, QParams(1, 0, "int8", 4).qmax) == (-8, 7)
    assert (QParams(1, 0, "uint8", 2).qmin, QParams(1, 0, "uint8", 2).qmax) == (0, 3)
    assert QParams(1, 0, "int8", narrow_range=True).qmin == -127
    assert QParams(1, 1, "uint8", narrow_range=True).qmin == 1


def test_value_semantics():
    a, b = QParams([0.5, 2.0], [1, 2], "uint8", axis=0), QParams([0.5, 2.0], [1, 2], "uint8", axis=0)
    assert a == b and hash(a) == hash(b) and a != QParams([0.5, 2.0], [1, 3], "uint8", axis=0) and a != 3
    with pytest.raises(dataclasses.FrozenInstanceError):
        a.scale = 3
    with pytest.raises(ValueError, match="read-only"):
        a.scale[0] = 3
    assert QParams(0.1, 0, "int8").scale == float(F32(0.1))
    assert QParams([0.5, 2.0], 7, "uint8", axis=0).zero_point.tolist() == [7, 7]


@pytest.mark.parametrize(
    "arguments,match",
    [
        ((0.0, 0, "int8"), "scale is 0.0, not finite and > 0"),
        ((float("nan"), 0, "int8"), "scale is nan"),
        ((1e300, 0, "int8"), "scale is inf"),
        ((1e-60, 0, "int8"), "scale is 0.0"),
        (([1.0, -1.0], [0, 0], "int8", 8, 0), r"scale\[1\] is -1.0"),
        (([1.0, 1.0], [0, 0], "int8"), "needs one scale"),
        ((1.0, 0, "int8", 8, 0), "needs a 1-d scale"),
        (([1.0, 1.0], [0, 0, 0], "int8", 8, 0), r"zero_point has shape \(3,\), scale \(2,\)"),
        ((1.0, 128, "int8"), "zero_point is 128, not in -128..127"),
        ((1.0, 4, "uint8", 2), "not in 0..3"),
        ((1.0, 0.5, "uint8"), "not whole"),
        ((1.0, 0, "int4"), "'int4' is not one of int8, uint8"),
        ((1.0, 0, "int8", 9), "bits: 9 is not in 2..8"),
    ],
)
def test_refused(arguments, match):
    with pytest.raises(ValueError, match=match):
        QParams(*arguments)


def test_symmetric_is_minus_127_to_127():
    p = symmetric_qparams(127.0)
    assert (p.scale, p.zero_point, p.qmin, p.qmax, p.dtype) == (1.0, 0, -127, 127, "int8")
    x = np.array([-500, -128, -127, 0.5, 1.5, 127, 128, np.inf, -np.inf], F32)
    assert quantize(x, p).tolist() == [-127, -127, -127, 0, 2, 127, 127, 127, -127]
    assert quantize(x, symmetric_qparams(127.0, "uint8")).tolist() == [1, 1, 1, 128, 130, 255, 255, 255, 1]
    assert symmetric_qparams(7.0, bits=4).scale == 1.0


@given(st.floats(1e-30, 1e30), dtypes, bits)
def test_symmetric_properties(threshold, dtype, b):
    p = symmetric_qparams(threshold, dtype, bits=b)
    steps = 2 ** (b - 1) - 1
    assert p.scale == float(F32(threshold / steps))
    assert p.qmax - p.zero_point == p.zero_point - p.qmin == steps


@given(finite, finite, dtypes, bits, st.booleans())
def test_affine_properties(a, b, dtype, b_bits, narrow):
    lo, hi = min(a, b), max(a, b)
    if max(hi, 0) - min(lo, 0) < 1e-30:
        return
    p = affine_qparams(lo, hi, dtype, bits=b_bits, narrow_range=narrow)
    lo, hi = min(lo, 0.0), max(hi, 0.0)
    assert p.scale == float(F32((hi - lo) / (p.qmax - p.qmin)))
    assert p.qmin <= p.zero_point <= p.qmax
    # zero is exact, and every real value of the range is within one step of a code's
    assert dequantize(quantize(np.zeros(1, F32), p), p)[0] == 0
    x = np.linspace(lo, hi, 101).astype(F32)
    error = np.abs(dequantize(quantize(x, p), p).astype(np.float64) - x)
    assert error.max() <= p.scale * 1.0001


def test_affine_examples():
    assert affine_qparams(0.0, 255.0) == QParams(1.0, 0, "uint8")
    assert affine_qparams(-255.0, 0.0) == QParams(1.0, 255, "uint8")
    assert affine_qparams(3.0, 255.0).zero_point == 0
    assert affine_qparams(-255.0, -4.0).zero_point == 255
    assert affine_qparams(-128.0, 127.0, "int8") == QParams(1.0, 0, "int8")
    assert affine_qparams(-6.0, 6.0, narrow_range=True).zero_point == 128


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_not_finite_is_an_error(value):
    with pytest.raises(ValueError, match="not finite"):
        symmetric_qparams(value)
    with pytest.raises(ValueError, match=r"lo is .* not finite"):
        affine_qparams(value, 1.0)
    with pytest.raises(ValueError, match=r"hi\[1\] is"):
        affine_qparams([0.0, 0.0], [1.0, value], axis=0)


def test_empty_zero_and_crossed_ranges():
    with pytest.raises(ValueError, match="holds only zero"):
        symmetric_qparams(0.0)
    with pytest.raises(ValueError, match=r"range\[1\]: the range holds only zero"):
        affine_qparams([0.0, 0.0], [1.0, 0.0], axis=0)
    assert symmetric_qparams(0.0, zero_scale=1.0).scale == 1.0
    assert affine_qparams([0.0, 0.0], [255.0, 0.0], axis=0, zero_scale=3.0).scale.tolist() == [1.0, 3.0]
    with pytest.raises(ValueError, match=r"is -1.0, negative"):
        symmetric_qparams(-1.0)
    with pytest.raises(ValueError, match=r"lo 2.0 is above hi 1.0"):
        affine_qparams(2.0, 1.0)
    with pytest.raises(ValueError, match="empty"):
        symmetric_qparams([], axis=0)
    with pytest.raises(ValueError, match="beyond float32"):
        symmetric_qparams(1e-45)
    with pytest.raises(ValueError, match="needs a number"):
        symmetric_qparams([1.0, 2.0])


@given(
    st.lists(st.floats(width=32), max_size=40),
    st.floats(1e-3, 1e3),
    st.integers(0, 255),
    st.sampled_from(lowbit.isas()),
)
def test_quantize_is_the_formula(values, scale, zero, isa):
    x = np.array(values, F32)
    q = quantize(x, QParams(scale, zero, "uint8"), isa=isa)
    assert q.dtype == np.uint8
    np.testing.assert_array_equal(q, formula(x, scale, zero, 0, 255))


@given(st.integers(1, 5), st.integers(0, 4), st.integers(0, 2), dtypes, bits)
def test_per_axis_equals_slice_by_slice(channels, other, axis, dtype, b):
    r = np.random.default_rng(channels * 100 + other)
    shape = [other, 3, 2]
    shape[axis] = channels
    x = r.normal(0, 2, shape).astype(F32)
    p = affine_qparams(-r.random(channels), r.random(channels) + 0.1, dtype, bits=b, axis=axis - 3)
    q = quantize(x, p)
    back = dequantize(q, p)
    for i in range(channels):
        one = QParams(p.scale[i], p.zero_point[i], dtype, b)
        part = np.ascontiguousarray(np.take(x, i, axis))
        np.testing.assert_array_equal(np.take(q, i, axis), quantize(part, one))
        np.testing.assert_array_equal(np.take(back, i, axis), dequantize(quantize(part, one), one))


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize("isa", lowbit.isas())
def test_every_code_survives_a_round_trip(dtype, isa):
    for zero in (-128, -5, 0, 127) if dtype == "int8" else (0, 128, 255):
        q = np.arange(*((-128, 128) if dtype == "int8" else (0, 256))).astype(dtype)
        for scale in (1e-6, 0.0173, 1.0, 3e4):
            p = QParams(scale, zero, dtype)
            x = dequantize(q, p, isa=isa)
            np.testing.assert_array_equal(x, (q.astype(np.int32) - zero).astype(F32) * F32(scale))
            np.testing.assert_array_equal(quantize(x, p, isa=isa), q)


def test_arrays_in_and_out():
    p = QParams(0.5, 3, "uint8")
    x = np.arange(12, dtype=F32).reshape(3, 4)
    out = np.empty((3, 4), np.uint8)
    assert quantize(x, p, out=out) is out
    np.testing.assert_array_equal(out, formula(x, 0.5, 3, 0, 255))
    np.testing.assert_array_equal(quantize(x.T, p), out.T)  # any strides in
    assert quantize(F32(2.0), p).shape == () and quantize(np.empty((0, 5), F32), p).shape == (0, 5)

    class Foreign:
        def __dlpack__(self, **kwargs):
            return x.__dlpack__(**kwargs)

        def __dlpack_device__(self):
            return x.__dlpack_device__()

    np.testing.assert_array_equal(quantize(Foreign(), p), out)


def test_wrong_arguments():
    p = QParams(0.5, 3, "uint8")
    x = np.zeros((2, 3), F32)
    with pytest.raises(TypeError, match="quantize: x: dtype float64 is not float32"):
        quantize(np.zeros(3), p)
    with pytest.raises(TypeError, match="dequantize: q: dtype int8 is not uint8"):
        dequantize(np.zeros(3, np.int8), p)
    with pytest.raises(TypeError, match="out has dtype int8"):
        quantize(x, p, out=np.zeros((2, 3), np.int8))
    with pytest.raises(ValueError, match=r"out has shape \(3, 2\)"):
        quantize(x, p, out=np.zeros((3, 2), np.uint8))
    with pytest.raises(ValueError, match="contiguous"):
        quantize(x, p, out=np.zeros((3, 2), np.uint8).T)
    with pytest.raises(ValueError, match=r"2 scales, but axis 1 of shape \(2, 3\) has 3"):
        quantize(x, QParams([1.0, 1.0], 0, "uint8", axis=1))
    with pytest.raises(ValueError, match="axis 2 is not in an array of shape"):
        quantize(x, QParams([1.0, 1.0], 0, "uint8", axis=2))
    with pytest.raises(ValueError, match="isa"):
        quantize(x, p, isa="mmx")
