"""conv2d_i8: against a plain NumPy convolution, every geometry and level."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lowbit
from test_gemm_i8 import codes, guarded
from test_requantize import expected

LEVELS = lowbit.isas()


def convolution(x, w, stride, padding, dilation, groups, zx=0, zw=0):
    """The definition, one kernel position at a time; padding adds zeros after the zero point is taken off."""
    top, left, bottom, right = padding
    x = np.pad(x.astype(np.int64) - zx, ((0, 0), (top, bottom), (left, right), (0, 0)))
    w = w.astype(np.int64) - zw
    batch, h, width, _ = x.shape
    oc, kh, kw, depth = w.shape
    oh, ow = (h - dilation[0] * (kh - 1) - 1) // stride[0] + 1, (width - dilation[1] * (kw - 1) - 1) // stride[1] + 1
    y = np.zeros((batch, oh, ow, oc), np.int64)
    for g in range(groups):
        inputs, outputs = slice(g * depth, (g + 1) * depth), slice(g * oc // groups, (g + 1) * oc // groups)
        for ky in range(kh):
            for kx in range(kw):
                rows, columns = ky * dilation[0], kx * dilation[1]
                window = x[
                    :,
                    rows : rows + (oh - 1) * stride[0] + 1 : stride[0],
                    columns : columns + (ow - 1) * stride[1] + 1 : stride[1],
                    inputs,
                ]
                y[..., outputs] += window @ w[outputs, ky, kx, :].T
    return y.astype(np.int32)


def check(x, w, stride=(1, 1), padding=(0, 0, 0, 0), dilation=(1, 1), groups=1, zx=0, zw=0, threads=(1, 2), **epilogue):
    want = convolution(x, w, stride, padding, dilation, groups, zx, zw)
    if epilogue.get("out_dtype", "int32") != "int32":
        e = {"zero_point": 0, "bias": None, "rounding": "nearest_even", **epilogue}
        e["dtype"] = e.pop("out_dtype")
        want = expected(want, **e)
    packed = lowbit.pack_conv2d_i8(w, stride, dilation, groups)
    for isa in LEVELS:
        for t in threads:
            got = lowbit.conv2d_i8(
                x, packed, padding=padding, x_zero_point=zx, w_zero_point=zw, **epilogue, isa=isa, threads=t
            )
            np.testing.assert_array_equal(got, want, err_msg=f"{isa}, {t} threads")


NETWORK_LAYERS = [  # size, c, oc, kernel, stride, padding: the nets' layers, cut in size
    (17, 3, 20, 7, 2, 3),
    (18, 3, 32, 3, 2, 1),
    (14, 64, 33, 3, 1, 1),
    (14, 40, 16, 3, 2, 1),
    (13, 24, 144, 1, 1, 0),
    (14, 64, 48, 1, 2, 0),
    (7, 130, 70, 3, 1, 1),
    (9, 16, 24, 5, 1, 2),
    (8, 32, 17, 1, 1, 1),
]


@pytest.mark.parametrize("layer", NETWORK_LAYERS, ids=str)
@pytest.mark.parametrize("x_type", ["uint8", "int8"])
def test_layers_of_networks(layer, x_type):
    size, c, oc, kernel, stride, pad = layer
    rng = np.random.default_rng(size * c)
    x, w = codes(rng, x_type, (2, size, size + 1, c)), codes(rng, "int8", (oc, kernel, kernel, c))
    check(x, w, (stride, stride), (pad, pad, pad, pad))
    scale = np.exp(rng.uniform(-10, -6, oc)).astype(np.float32)
    bias = rng.integers(-5000, 5000, oc).astype(np.int32)
    case = {"scale": scale, "bias": bias, "zero_point": 30, "clamp": (30, 200), "out_dtype": "uint8"}
    check(x, w, (stride, stride), (pad, pad, pad, pad), zx=11, **case)


def test_residual_and_other_outputs():
    rng = np.random.default_rng(2)
    x, w = codes(rng, "uint8", (2, 10, 9, 32)), codes(rng, "int8", (40, 3, 3, 32))
    residual = codes(rng, "uint8", (2, 10, 9, 40))
    more = {"residual": residual, "residual_scale": 0.9, "residual_zero_point": 4, "zero_point": 7}
    for rounding in ("nearest_even", "gemmlowp", "single"):
        check(x, w, padding=(1, 1, 1, 1), zx=128, scale=0.0007, out_dtype="int8", rounding=rounding, **more)
    acc = convolution(x, w, (1, 1), (1, 1, 1, 1), (1, 1), 1)
    for isa in LEVELS:
        got = lowbit.conv2d_i8(
            x, w, padding=1, scale=0.5, out_dtype="float32", residual=residual.astype(np.float32), isa=isa
        )
        np.testing.assert_array_equal(got, acc.astype(np.float32) * np.float32(0.5) + residual.astype(np.float32))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_geometry(data):
    def draw(low, high):
        return data.draw(st.integers(low, high))

    groups = data.draw(st.sampled_from([1, 1, 1, 2, 3]))
    depth, oc = draw(1, 20), groups * draw(1, 12)
    kh, kw = draw(1, 5), draw(1, 5)
    stride, dilation = (draw(1, 3), draw(1, 3)), (draw(1, 3), draw(1, 3))
    padding = tuple(draw(0, 3) for _ in range(4))
    h = max(1, dilation[0] * (kh - 1) + 1 - padding[0] - padding[2]) + draw(0, 8)
    width = max(1, dilation[1] * (kw - 1) + 1 - padding[1] - padding[3]) + draw(0, 8)
    rng = np.random.default_rng(draw(0, 2**32 - 1))
    x_type, w_type = data.draw(st.sampled_from(["uint8", "int8"])), data.draw(st.sampled_from(["uint8", "int8"]))
    x, w = codes(rng, x_type, (draw(1, 3), h, width, groups * depth)), codes(rng, w_type, (oc, kh, kw, depth))
    zx, zw = (
        draw(np.iinfo(x_type).min, np.iinfo(x_type).max),
        draw(0, 1) * draw(np.iinfo(w_type).min, np.iinfo(w_type).max),
    )
    check(x, w, stride, padding, dilation, groups, zx, zw, threads=(draw(1, 3),))


def test_channel_slice_and_empty():
    rng = np.random.default_rng(8)
    wide = codes(rng, "uint8", (2, 6, 5, 50))
    w1, w3 = codes(rng, "int8", (18, 1, 1, 20)), codes(rng, "int8", (18, 3, 3, 20))
    for x in (wide[..., 30:], wide[..., 4:24], wide[:, ::-1, :, :20]):
        check(x, w1)
        check(x, w3, padding=(1, 1, 1, 1))
    assert lowbit.conv2d_i8(wide[:0], codes(rng, "int8", (3, 1, 1, 50))).shape == (0, 6, 5, 3)
    check(np.zeros((1, 3, 3, 0), np.uint8), np.zeros((4, 3, 3, 0), np.int8))


def test_reads_only_what_is_given():
    rng = np.random.default_rng(7)
    with guarded() as memory:
        for h, width, c, k, stride in [
            (1, 1, 1, 1, 1),
            (9, 10, 3, 3, 2),
            (11, 9, 3, 7, 2),
            (6, 6, 24, 1, 1),
            (7, 5, 20, 3, 1),
        ]:
            w, pad, size = codes(rng, "int8", (18, k, k, c)), (k // 2,) * 4, h * width * c
            for x in (memory[:size], memory[memory.size - size :]):
                check(x.reshape(1, h, width, c), w, (stride, stride), pad)


def test_threads_split_an_image():
    rng = np.random.default_rng(6)
    x, w = codes(rng, "uint8", (1, 40, 41, 32)), codes(rng, "int8", (96, 3, 3, 32))
    packed = lowbit.pack_conv2d_i8(w, 2)
    for isa in LEVELS[:-1]:
        want = lowbit.conv2d_i8(x, packed, padding=1, threads=1, isa=isa)
        for threads in (2, 5, 16):
            np.testing.assert_array_equal(lowbit.conv2d_i8(x, packed, padding=1, threads=threads, isa=isa), want)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"x": np.zeros((1, 4, 4, 2), np.uint8)}, ValueError, "2 channels"),
        ({"x": np.zeros((4, 4, 3), np.uint8)}, ValueError, "axes"),
        ({"x": np.zeros((1, 4, 4, 3), np.float32)}, TypeError, "float32"),
        ({"x": np.zeros((1, 2, 4, 3), np.uint8)}, ValueError, "height"),
        ({"w": np.zeros((5, 3, 3, 3), np.int32)}, TypeError, "int32"),
        ({"stride": 0}, ValueError, "stride"),
        ({"dilation": (1, -1)}, ValueError, "dilation"),
        ({"padding": -1}, ValueError, "pad"),
        ({"padding": (1, 2, 3)}, ValueError, "padding"),
        ({"groups": 2}, ValueError, "groups"),
        ({"x_zero_point": -1}, ValueError, "zero point -1"),
    ],
)
def test_errors_name_what_is_wrong(change, error, message):
    arguments = {"x": np.zeros((1, 4, 4, 3), np.uint8), "w": np.zeros((5, 3, 3, 3), np.int8), **change}
    with pytest.raises(error, match=message):
        lowbit.conv2d_i8(**arguments)
