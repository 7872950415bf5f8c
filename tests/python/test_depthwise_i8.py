"""depthwise_conv2d_i8 against NumPy written from the definition, on every level and thread count."""

import ctypes
import mmap

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lowbit

LEVELS = lowbit.isas()
CHANNELS = [1, 3, 15, 16, 17, 31, 32, 33, 47, 63, 64, 65, 96, 127, 144]
INFO = {"int8": np.iinfo(np.int8), "uint8": np.iinfo(np.uint8)}


def reference(x, w, stride, padding, dilation, x_zero_point):
    """int64 sums from the definition: subtract the zero point, pad with zeros, one window at a time. w (kh, kw, c)."""
    (sh, sw), (dh, dw), (top, left, bottom, right) = stride, dilation, padding
    x = np.pad(x.astype(np.int64) - x_zero_point, ((0, 0), (top, bottom), (left, right), (0, 0)))
    kh, kw, c = w.shape
    out_h = (x.shape[1] - dh * (kh - 1) - 1) // sh + 1
    out_w = (x.shape[2] - dw * (kw - 1) - 1) // sw + 1
    y = np.zeros((x.shape[0], out_h, out_w, c), np.int64)
    for i in range(out_h):
        for j in range(out_w):
            window = x[:, i * sh : i * sh + dh * (kh - 1) + 1 : dh, j * sw : j * sw + dw * (kw - 1) + 1 : dw]
            y[:, i, j] = np.sum(window * w, axis=(1, 2))
    return y


def codes(acc, scale, zero_point, dtype, clamp=(-1000, 1000)):
    """The formula of requantize.h for nearest_even, in float32."""
    lo, hi = max(clamp[0], INFO[dtype].min), min(clamp[1], INFO[dtype].max)
    f = acc.astype(np.int32).astype(np.float32) * np.float32(scale)
    return (zero_point + np.rint(np.clip(f, lo - zero_point, hi - zero_point))).astype(dtype)


def hostile(rng, shape, dtype):
    """Codes with many extremes."""
    info = INFO[dtype]
    x = rng.integers(info.min, info.max + 1, shape)
    return np.where(rng.random(shape) < 0.3, rng.choice([info.min, info.max], shape), x).astype(dtype)


def test_levels_that_run():
    assert LEVELS[-1] == "scalar"


GEOMETRIES = [  # h, w, kernel, stride, padding, dilation
    (5, 6, (3, 3), (1, 1), (1, 1, 1, 1), (1, 1)),
    (8, 7, (3, 3), (1, 1), (1, 1, 1, 1), (1, 1)),
    (9, 11, (3, 3), (1, 1), (0, 2, 3, 0), (1, 1)),
    (3, 3, (3, 3), (1, 1), (0, 0, 0, 0), (1, 1)),
    (1, 1, (3, 3), (1, 1), (4, 4, 4, 4), (1, 1)),
    (8, 8, (3, 3), (2, 2), (0, 0, 1, 1), (1, 1)),
    (9, 7, (3, 3), (2, 2), (1, 1, 1, 1), (1, 1)),
    (7, 8, (3, 3), (2, 1), (1, 1, 1, 1), (1, 1)),
    (9, 9, (3, 3), (1, 1), (2, 2, 2, 2), (2, 2)),
    (7, 9, (5, 5), (1, 1), (2, 2, 2, 2), (1, 1)),
    (6, 37, (5, 5), (1, 1), (1, 0, 3, 2), (1, 1)),
    (9, 8, (5, 5), (2, 2), (2, 2, 2, 2), (1, 1)),
    (4, 41, (5, 5), (2, 2), (1, 2, 2, 1), (1, 1)),
    (2, 2, (5, 5), (1, 1), (6, 6, 6, 6), (1, 1)),
    (6, 7, (1, 1), (1, 1), (0, 0, 0, 0), (1, 1)),
    (6, 7, (2, 4), (1, 3), (1, 0, 0, 2), (2, 1)),
    (9, 9, (7, 7), (1, 1), (3, 3, 3, 3), (1, 1)),
]


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_scalar_is_the_definition_and_every_level_is_scalar(geometry):
    h, w, kernel, stride, padding, dilation = geometry
    rng = np.random.default_rng(hash(geometry) % 1000)
    for c in CHANNELS:
        for dtype, x_zero_point in (("uint8", 3), ("int8", -7)) if c % 2 else (("uint8", 255),):
            x, weights = hostile(rng, (2, h, w, c), dtype), hostile(rng, (*kernel, c), "int8")
            bias = rng.integers(-3000, 3000, c).astype(np.int32)
            acc = reference(x, weights, stride, padding, dilation, x_zero_point)
            scale = (rng.random(c) * 0.01 + 1e-4).astype(np.float32)
            geo = {
                "stride": stride,
                "padding": padding,
                "dilation": dilation,
                "x_zero_point": x_zero_point,
                "bias": bias,
            }
            epilogues = [
                ({"out_dtype": "int32"}, acc + bias),
                ({"out_dtype": "uint8", "scale": scale, "zero_point": 10}, codes(acc + bias, scale, 10, "uint8")),
                (
                    {"out_dtype": "int8", "scale": scale, "zero_point": -5, "clamp": (-5, 60)},
                    codes(acc + bias, scale, -5, "int8", (-5, 60)),
                ),
            ]
            for rounding in ("gemmlowp", "single"):
                for fixed in (
                    {"scale": scale, "zero_point": 10, "out_dtype": "uint8", "clamp": (10, 200)},
                    {"scale": 0.003, "zero_point": -5, "out_dtype": "int8"},
                    {
                        "scale": np.exp2(rng.uniform(-24, 0, c)).astype(np.float32),
                        "zero_point": 7,
                        "out_dtype": "uint8",
                    },
                    {"scale": np.exp2(rng.uniform(-33, -20, c)).astype(np.float32), "out_dtype": "int8"},
                ):
                    want = lowbit.requantize(
                        (acc + bias).astype(np.int32), fixed["scale"], fixed.get("zero_point", 0),
                        dtype=fixed["out_dtype"], clamp=fixed.get("clamp"), rounding=rounding, isa="scalar",
                    )  # fmt: skip
                    epilogues.append(({**fixed, "rounding": rounding}, want))
            packed = lowbit.pack_depthwise_i8(weights)
            for epilogue, expected in epilogues:
                for isa in LEVELS:
                    for threads in (1, 3) if isa == LEVELS[0] else (1,):
                        y = lowbit.depthwise_conv2d_i8(x, packed, **geo, **epilogue, isa=isa, threads=threads)
                        np.testing.assert_array_equal(y, expected, err_msg=f"{isa} {threads} {c} {epilogue}")


@pytest.mark.parametrize("isa", LEVELS)
@pytest.mark.parametrize("rounding", ["nearest_even", "gemmlowp", "single"])
def test_uncommon_epilogues_are_requantize_after_int32(isa, rounding):
    """Residuals, float32, fixed point, scales of 1 and above: the door's sums through the requantize door."""
    rng = np.random.default_rng(5)
    for c in (5, 64, 100):
        x, weights = hostile(rng, (1, 9, 8, c), "uint8"), hostile(rng, (3, 3, c), "int8")
        bias, residual = rng.integers(-999, 999, c).astype(np.int32), hostile(rng, (1, 9, 8, c), "int8")
        geo = {"padding": 1, "x_zero_point": 100}
        acc = lowbit.depthwise_conv2d_i8(x, weights, **geo, isa="scalar")
        cases = [
            {
                "scale": 0.004,
                "residual": residual,
                "residual_scale": 0.7,
                "residual_zero_point": 3,
                "zero_point": 4,
                "out_dtype": "uint8",
            },
            {"scale": 1.0, "zero_point": 4, "out_dtype": "int8"},
            {"scale": np.linspace(0.1, 7, c, dtype=np.float32), "out_dtype": "int8", "clamp": (-100, 5)},
            {"scale": 3e8 if rounding == "nearest_even" else 1e8, "zero_point": 4, "out_dtype": "uint8"},
            {"scale": 0.01, "out_dtype": "float32", "clamp": (0.0, 6.0)},
            {"scale": 0.01, "out_dtype": "float32", "residual": residual.astype(np.float32)},
        ]
        for case in cases:
            y = lowbit.depthwise_conv2d_i8(x, weights, **geo, bias=bias, rounding=rounding, isa=isa, threads=2, **case)
            case["dtype"] = case.pop("out_dtype")
            expected = lowbit.requantize(acc, bias=bias, rounding=rounding, isa="scalar", **case)
            np.testing.assert_array_equal(y, expected, err_msg=str(case))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_geometry_on_any_level(data):
    draw = lambda low, high: data.draw(st.integers(low, high))  # noqa: E731
    square = data.draw(st.booleans())
    kernel = (draw(1, 6),) * 2 if square else (draw(1, 4), draw(1, 6))
    stride = (draw(1, 2),) * 2 if square else (draw(1, 3), draw(1, 3))
    dilation = (1, 1) if square else (draw(1, 3), draw(1, 3))
    padding = tuple(draw(0, 4) for _ in range(4))
    h, w = (dilation[i] * (kernel[i] - 1) + 1 + draw(0, 12) for i in (0, 1))
    c, batch = draw(1, 140), draw(0, 2)
    rng = np.random.default_rng(draw(0, 999))
    x, weights, x_zero_point = hostile(rng, (batch, h, w, c), "uint8"), hostile(rng, (*kernel, c), "int8"), draw(0, 255)
    y = lowbit.depthwise_conv2d_i8(
        x, weights, stride, padding, dilation, x_zero_point, scale=0.002, zero_point=128, out_dtype="uint8",
        isa=data.draw(st.sampled_from(LEVELS)), threads=draw(1, 4),
    )  # fmt: skip
    if batch:
        acc = reference(x, weights, stride, padding, dilation, x_zero_point)
        np.testing.assert_array_equal(y, codes(acc, 0.002, 128, "uint8"))
    else:
        assert y.size == 0


@pytest.mark.parametrize("isa", LEVELS)
def test_conv2d_i8_routes_here(isa):
    rng = np.random.default_rng(6)
    x, w = hostile(rng, (1, 9, 9, 40), "uint8"), hostile(rng, (40, 3, 3, 1), "int8")
    y = lowbit.conv2d_i8(x, w, 2, 1, groups=40, x_zero_point=9, isa=isa)
    np.testing.assert_array_equal(y, reference(x, w[..., 0].transpose(1, 2, 0), (2, 2), (1, 1, 1, 1), (1, 1), 9))


def test_strided_and_given_arrays():
    rng = np.random.default_rng(7)
    wide, w = hostile(rng, (1, 6, 12, 33), "uint8"), hostile(rng, (3, 6, 3), "int8").transpose(0, 2, 1)
    x = wide[:, :, ::2, 5:11]
    out = np.empty((1, 4, 4, 6), np.int32)
    assert lowbit.depthwise_conv2d_i8(x, w, out=out) is out
    np.testing.assert_array_equal(out, reference(x, w, (1, 1), (0, 0, 0, 0), (1, 1), 0))


def test_errors_name_what_disagrees():
    x, w = np.zeros((1, 5, 5, 8), np.uint8), np.zeros((3, 3, 8), np.int8)
    with pytest.raises(ValueError, match="x has 8 channels, w has 7"):
        lowbit.depthwise_conv2d_i8(x, w[..., :7])
    with pytest.raises(TypeError, match="w is uint8, must be int8"):
        lowbit.depthwise_conv2d_i8(x, w.astype(np.uint8))
    with pytest.raises(TypeError, match="x"):
        lowbit.depthwise_conv2d_i8(x.astype(np.int32), w)
    with pytest.raises(ValueError, match="x_zero_point 256 is not a value of uint8"):
        lowbit.depthwise_conv2d_i8(x, w, x_zero_point=256)
    with pytest.raises(ValueError, match="kernel's height is 3, the padded image's 2"):
        lowbit.depthwise_conv2d_i8(x[:, :2], w)
    with pytest.raises(ValueError, match="stride_w is 0"):
        lowbit.depthwise_conv2d_i8(x, w, stride=(1, 0))
    with pytest.raises(ValueError, match="scale"):
        lowbit.depthwise_conv2d_i8(x, w, scale=np.nan, out_dtype="int8")
    with pytest.raises(ValueError, match=r"can leave int32"):
        lowbit.depthwise_conv2d_i8(np.zeros((1, 300, 300, 1), np.uint8), np.zeros((300, 300, 1), np.int8))
    with pytest.raises(ValueError, match=r"w has 2 axes, must have 3"):
        lowbit.pack_depthwise_i8(np.zeros((3, 3), np.int8))


def before_guard_page(shape, dtype):
    """An array whose last byte is the last readable one: reading or writing past its end is a crash."""
    size, page = int(np.prod(shape)) * np.dtype(dtype).itemsize, mmap.PAGESIZE
    room = -(-size // page) * page
    memory = mmap.mmap(-1, room + page)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    assert ctypes.CDLL(None, use_errno=True).mprotect(ctypes.c_void_p(start + room), ctypes.c_size_t(page), 0) == 0
    return np.frombuffer(memory, dtype, int(np.prod(shape)), room - size).reshape(shape)


@pytest.mark.parametrize("isa", LEVELS)
def test_nothing_is_read_or_written_past_the_end(isa):
    rng = np.random.default_rng(8)
    for kernel, stride in ((3, 1), (3, 2), (5, 1), (5, 2), (4, 1)):
        for c in (1, 16, 17, 33, 63, 64, 80):
            x, w = before_guard_page((1, 6, 7, c), np.uint8), hostile(rng, (kernel, kernel, c), "int8")
            x[...] = hostile(rng, x.shape, "uint8")
            expected = reference(x, w, (stride,) * 2, (1,) * 4, (1, 1), 9)
            for dtype in ("int32", "uint8"):
                out = before_guard_page(expected.shape, dtype)
                scaled = {} if dtype == "int32" else {"scale": 0.003, "out_dtype": dtype}
                lowbit.depthwise_conv2d_i8(x, w, stride, 1, x_zero_point=9, out=out, isa=isa, threads=1, **scaled)
                np.testing.assert_array_equal(out, codes(expected, 0.003, 0, dtype) if scaled else expected)
