"""xnor_gemm and xnor_conv2d: scalar against NumPy from the definition, every level against scalar bit for bit."""

import functools
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lowbit
from test_gemm_f32 import before_guard_page

LEVELS = lowbit.isas()
CHANNELS = [1, 2, 7, 8, 31, 32, 33, 63, 64, 65, 100, 127, 129, 256, 257]


def signs(rng, *shape):
    return np.where(rng.random(shape) < 0.5, -1, 1).astype(np.int8)


def reference(x, w, stride, padding, dilation, groups, pad_value):
    """From the definition: pad, then one tap of the window at a time."""
    (sh, sw), (dh, dw), (top, left, bottom, right) = stride, dilation, padding
    x = np.pad(x.astype(int), ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=pad_value)
    oc, kh, kw, depth = w.shape
    out_h = (x.shape[1] - dh * (kh - 1) - 1) // sh + 1
    out_w = (x.shape[2] - dw * (kw - 1) - 1) // sw + 1
    y = np.zeros((x.shape[0], out_h, out_w, oc), int)
    for o in range(oc):
        first = o // (oc // groups) * depth
        for i in range(kh):
            for j in range(kw):
                under = x[:, i * dh : i * dh + sh * (out_h - 1) + 1 : sh, j * dw : j * dw + sw * (out_w - 1) + 1 : sw]
                y[..., o] += under[..., first : first + depth] @ w[o, i, j].astype(int)
    return y


def real(dot, scale=None, input_scale=None, bias=None, residual=None, clamp=None):
    """The epilogue's v, one float32 operation after the other."""
    v = dot.astype(np.float32)
    v = v if scale is None else v * scale
    v = v if input_scale is None else v * input_scale[..., None]
    v = v if bias is None else v + bias
    v = v if residual is None else v + residual
    return v if clamp is None else np.clip(v, *clamp).astype(np.float32)


def test_levels_that_run():
    assert LEVELS[-1] == "scalar" and len(LEVELS) >= 1


@pytest.mark.parametrize("isa", LEVELS)
def test_gemm_at_every_width(isa):
    rng = np.random.default_rng(1)
    for k in CHANNELS:
        for m, n in [(1, 1), (5, 63), (6, 64), (7, 65), (13, 130), (25, 17)]:
            a, b = signs(rng, m, k), signs(rng, n, k)
            y = lowbit.xnor_gemm(lowbit.pack_bits(a), lowbit.pack_bits(b), isa=isa)
            assert y.dtype == np.int32
            np.testing.assert_array_equal(y, a.astype(int) @ b.T.astype(int))


@functools.cache
def long_rows(k):
    rng = np.random.default_rng(2)
    a, b = signs(rng, 7, k), signs(rng, 70, k)
    a[0] = b[0] = 1  # the greatest sum
    b[1] = -1
    return lowbit.pack_bits(a), lowbit.pack_bits(b), a.astype(np.int32) @ b.T.astype(np.int32)


@pytest.mark.parametrize("isa", LEVELS)
def test_gemm_of_long_rows(isa):
    for k in (4096, 33000):
        a, b, exact = long_rows(k)
        for threads in (1, 3):
            np.testing.assert_array_equal(lowbit.xnor_gemm(a, b, isa=isa, threads=threads), exact)


CONVOLUTIONS = [  # h, w, c, oc, kernel, stride, padding, dilation, groups
    (7, 7, 64, 64, (3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1),
    (9, 10, 32, 65, (3, 3), (2, 2), (1, 1, 1, 1), (1, 1), 1),
    (8, 17, 100, 7, (1, 1), (1, 1), (0, 0, 0, 0), (1, 1), 1),
    (8, 17, 33, 40, (1, 1), (2, 2), (0, 0, 0, 0), (1, 1), 1),
    (8, 9, 8, 130, (3, 2), (2, 1), (0, 0, 0, 0), (1, 1), 1),
    (9, 8, 31, 9, (3, 3), (1, 2), (2, 0, 1, 3), (2, 2), 1),
    (9, 8, 96, 18, (3, 3), (1, 1), (1, 1, 1, 1), (1, 2), 3),
    (6, 7, 30, 99, (3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 3),
    (6, 7, 128, 64, (3, 3), (2, 1), (0, 0, 0, 0), (1, 1), 2),
    (5, 6, 1, 3, (5, 5), (1, 1), (2, 2, 2, 2), (1, 1), 1),
    (4, 4, 3, 5, (2, 2), (1, 1), (6, 7, 5, 8), (1, 1), 1),
    (3, 4, 40, 40, (3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 40),
    (2, 3, 20, 6, (7, 5), (2, 1), (4, 5, 4, 3), (1, 2), 1),
]


@functools.cache
def convolution(case):
    """Images, weights and their dots for pad values -1, 0 and 1: the same for every level."""
    h, w, c, oc, kernel, stride, padding, dilation, groups = case
    rng = np.random.default_rng(3)
    x, weights = signs(rng, 2, h, w, c), signs(rng, oc, *kernel, c // groups)
    return x, weights, [reference(x, weights, stride, padding, dilation, groups, pad) for pad in (-1, 0, 1)]


@pytest.mark.parametrize("isa", LEVELS)
@pytest.mark.parametrize("case", CONVOLUTIONS, ids=str)
def test_convolution_and_every_epilogue(case, isa):
    _, _, _, oc, _, stride, padding, dilation, groups = case
    rng = np.random.default_rng(4)
    x, weights, of_pad_value = convolution(case)
    xb, wb = lowbit.pack_bits(x), lowbit.pack_bits(weights)
    scale, bias = (rng.standard_normal(oc).astype(np.float32) for _ in range(2))
    flip = rng.random(oc) < 0.5
    dots = rng.integers(-9, 10, oc)
    dots[0], dots[-1] = -(2**31), 2**31 - 1  # always, never
    for pad_value, dot in zip((-1, 0, 1), of_pad_value, strict=True):
        input_scale = rng.random(dot.shape[:3]).astype(np.float32)
        residual = rng.standard_normal(dot.shape).astype(np.float32)
        geometry = (stride, padding, dilation, groups, pad_value)
        full = {"scale": scale, "bias": bias, "input_scale": input_scale, "residual": residual, "clamp": (-4, 7)}
        v = real(dot, **full)
        for threads in (1, 3):
            args = {"isa": isa, "threads": threads}
            y = lowbit.xnor_conv2d(xb, wb, *geometry, out_dtype="int32", **args)
            np.testing.assert_array_equal(y, dot)
            np.testing.assert_array_equal(lowbit.xnor_conv2d(x.astype(np.float32), wb, *geometry, **args), dot)
            np.testing.assert_array_equal(lowbit.xnor_conv2d(xb, wb, *geometry, **full, **args), v)
            np.testing.assert_array_equal(
                lowbit.xnor_conv2d(x, wb, *geometry, scale=scale, **args), real(dot, scale=scale)
            )
            np.testing.assert_array_equal(
                lowbit.xnor_conv2d(xb, wb, *geometry, bias=bias, residual=residual, **args),
                real(dot, bias=bias, residual=residual),
            )
            for extra in ({}, {"residual": residual}, {"residual": residual, "clamp": (-1, 1)}):
                block = {"scale": scale, "bias": bias, **extra}
                y, b = lowbit.xnor_conv2d(xb, wb, *geometry, **block, threshold=bias, with_bits=True, **args)
                np.testing.assert_array_equal(y, real(dot, **block))
                np.testing.assert_array_equal(lowbit.unpack_bits(b), np.where(real(dot, **block) >= bias, 1, -1))
            for dtype, least, zero_point in (("int8", -128, -3), ("uint8", 0, 128)):
                codes = np.clip(np.rint(v * np.float32(1)) + zero_point, least, least + 255).astype(dtype)
                y = lowbit.xnor_conv2d(xb, wb, *geometry, **full, out_dtype=dtype, zero_point=zero_point, **args)
                np.testing.assert_array_equal(y, codes)
            b = lowbit.xnor_conv2d(xb, wb, *geometry, threshold=dots, flip=flip, out_dtype="bits", **args)
            bits = (dot >= dots) ^ flip
            np.testing.assert_array_equal(lowbit.unpack_bits(b, isa="scalar"), np.where(bits, 1, -1))
            lowbit.PackedBits(b.words, oc)  # no bits beyond the channels
            y, b = lowbit.xnor_conv2d(xb, wb, *geometry, **full, threshold=bias, flip=flip, with_bits=True, **args)
            np.testing.assert_array_equal(y, v)
            np.testing.assert_array_equal(lowbit.unpack_bits(b), np.where((v >= bias) ^ flip, 1, -1))
            b = lowbit.xnor_conv2d(xb, wb, *geometry, bias=bias, out_dtype="bits", **args)
            np.testing.assert_array_equal(lowbit.unpack_bits(b), np.where(real(dot, bias=bias) >= 0, 1, -1))


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_convolution_properties(data):
    draw = lambda low, high: data.draw(st.integers(low, high))  # noqa: E731
    groups = draw(1, 3)
    c, oc = groups * draw(1, 70), groups * draw(1, 9)
    kernel, stride, dilation = ((draw(1, 3), draw(1, 3)) for _ in range(3))
    padding = tuple(draw(0, 3) for _ in range(4))
    h, w = (dilation[i] * (kernel[i] - 1) + 1 + draw(0, 6) for i in (0, 1))
    rng = np.random.default_rng(draw(0, 1000))
    x, weights = signs(rng, draw(0, 2), h, w, c), signs(rng, oc, *kernel, c // groups)
    pad_value = draw(-1, 1)
    exact = reference(x, weights, stride, padding, dilation, groups, pad_value)
    isa, threads = data.draw(st.sampled_from(LEVELS)), draw(1, 3)
    y, b = lowbit.xnor_conv2d(
        lowbit.pack_bits(x), lowbit.pack_bits(weights), stride, padding, dilation, groups, pad_value,
        out_dtype="int32", threshold=np.arange(oc), with_bits=True, isa=isa, threads=threads,
    )  # fmt: skip
    np.testing.assert_array_equal(y, exact)
    np.testing.assert_array_equal(lowbit.unpack_bits(b), np.where(exact >= np.arange(oc), 1, -1))


@pytest.mark.parametrize("isa", LEVELS)
def test_batch_norm_and_sign_fold_into_a_threshold(isa):
    """The derivation of lowbit/xnor.h: gamma of either sign and 0."""
    rng = np.random.default_rng(4)
    a, b = signs(rng, 40, 75), signs(rng, 30, 75)
    gamma, beta, mean = rng.standard_normal((3, 30)) * [[1], [1], [4]]
    gamma[:3] = 0
    s = rng.random(30) + 0.5
    dot = a.astype(int) @ b.T.astype(int)
    t = np.divide(-beta * s, gamma, out=np.zeros(30), where=gamma != 0) + mean
    threshold = np.where(gamma > 0, np.ceil(t), np.floor(t) + 1).astype(np.int64)
    threshold[gamma == 0] = -(2**31)
    flip = (gamma < 0) | ((gamma == 0) & (beta < 0))
    bits = lowbit.xnor_gemm(
        lowbit.pack_bits(a), lowbit.pack_bits(b), threshold=threshold, flip=flip, out_dtype="bits", isa=isa
    )
    np.testing.assert_array_equal(lowbit.unpack_bits(bits), np.where(gamma * (dot - mean) / s + beta >= 0, 1, -1))


# Layers that run as int8 at level amx (csrc/xnor/xnor_i8.cpp): for bits, for every output, with weights split.
LARGE = [  # h, w, c, oc, padding, dilation
    (15, 13, 64, 258, (1, 1, 1, 1), (1, 1)),
    (15, 14, 128, 130, (2, 1, 3, 0), (2, 1)),
    (12, 13, 256, 460, (0, 1, 2, 2), (1, 2)),
]


@functools.cache
def large(case, pad_value, isa, threads):
    h, w, c, oc, padding, dilation = case
    rng = np.random.default_rng(9)
    x, weights = lowbit.pack_bits(signs(rng, 2, h, w, c)), lowbit.pack_bits(signs(rng, oc, 3, 3, c))
    kw = {"padding": padding, "dilation": dilation, "pad_value": pad_value, "isa": isa, "threads": threads}
    dot = lowbit.xnor_conv2d(x, weights, **kw, out_dtype="int32")
    scale, bias = rng.random((2, oc), np.float32)
    bias[:5] = np.nan, np.inf, -np.inf, 1e30, -0.0
    residual = rng.standard_normal(dot.shape).astype(np.float32)
    threshold, flip = rng.integers(-40, 40, oc), rng.random(oc) < 0.5
    threshold[:5] = -(2**31), 2**31 - 1, -9 * c, 9 * c, 9 * c + 1
    results = [
        dot,
        lowbit.xnor_conv2d(x, weights, **kw, threshold=threshold, flip=flip, out_dtype="bits").words,
        lowbit.xnor_conv2d(x, weights, **kw, threshold=threshold, out_dtype="bits").words,
        lowbit.xnor_conv2d(x, weights, **kw),
        lowbit.xnor_conv2d(x, weights, **kw, scale=scale, bias=bias, residual=residual, clamp=(-1e9, 2e9)),
    ]
    for odd in (0.0, -1.0, np.inf, np.nan, 1e38, 1e-45):
        scale[0] = odd
        results.append(lowbit.xnor_conv2d(x, weights, **kw, scale=scale, bias=bias))
    return results


@pytest.mark.parametrize("isa", LEVELS[:-1])
@pytest.mark.parametrize("pad_value", [-1, 0, 1])
@pytest.mark.parametrize("case", LARGE, ids=str)
def test_large_layers_and_special_floats(case, pad_value, isa):
    for threads in (1, 2):
        for y, expected in zip(large(case, pad_value, isa, threads), large(case, pad_value, "scalar", 1), strict=True):
            np.testing.assert_array_equal(y, expected)


def test_weights_serve_every_geometry():
    rng = np.random.default_rng(10)
    x, w = lowbit.pack_bits(signs(rng, 1, 16, 16, 128)), lowbit.pack_bits(signs(rng, 128, 3, 3, 128))
    for dilation in (1, 2, 1):
        y = [lowbit.xnor_conv2d(x, w, padding=dilation, dilation=dilation, isa=isa, threads=1) for isa in LEVELS]
        for other in y[:-1]:
            np.testing.assert_array_equal(other, y[-1])


def test_special_floats_in_the_epilogue():
    rng = np.random.default_rng(5)
    a, b = lowbit.pack_bits(signs(rng, 3, 40)), lowbit.pack_bits(signs(rng, 5, 40))
    bias = np.array([np.nan, np.inf, -np.inf, 1e30, -0.0], np.float32)
    y = {isa: lowbit.xnor_gemm(a, b, bias=bias, clamp=(-1e9, 2e9), out_dtype="float32", with_bits=True, isa=isa)
         for isa in LEVELS}  # fmt: skip
    codes = {isa: lowbit.xnor_gemm(a, b, bias=bias, out_dtype="int8", isa=isa) for isa in LEVELS}
    for isa in LEVELS:
        np.testing.assert_array_equal(y[isa][0], y["scalar"][0])
        np.testing.assert_array_equal(y[isa][1].words, y["scalar"][1].words)
        np.testing.assert_array_equal(codes[isa], codes["scalar"])
    assert np.isnan(y["scalar"][0][:, 0]).all() and (codes["scalar"][:, :4] == [-128, 127, -128, 127]).all()


def test_empty_sizes():
    w = lowbit.pack_bits(np.ones((4, 1, 1, 5), np.float32))
    for isa in LEVELS:
        assert lowbit.xnor_conv2d(np.ones((0, 3, 3, 5), np.float32), w, isa=isa).shape == (0, 3, 3, 4)
        none = lowbit.pack_bits(np.ones((0, 5), np.float32))
        five = lowbit.pack_bits(np.ones((3, 5), np.float32))
        assert lowbit.xnor_gemm(none, five, isa=isa).shape == (0, 3)
        assert lowbit.xnor_gemm(five, none, isa=isa).shape == (3, 0)


def test_weights_are_tiled_once_and_frozen():
    rng = np.random.default_rng(6)
    w = lowbit.pack_bits(signs(rng, 8, 3, 3, 40))
    assert w.tiled() is w.tiled() and w.tiled().shape == (8, 3, 3, 40)
    assert w.tiled(2) is not w.tiled() and w.tiled(2).groups == 2
    with pytest.raises(ValueError, match="read-only"):
        w.words[0] = 0
    again = pickle.loads(pickle.dumps(w))
    np.testing.assert_array_equal(again.words, w.words)


@pytest.mark.parametrize("isa", LEVELS)
def test_out_is_the_callers_buffer(isa):
    rng = np.random.default_rng(7)
    x, w = lowbit.pack_bits(signs(rng, 2, 5, 6, 40)), lowbit.pack_bits(signs(rng, 70, 3, 3, 40))
    wide = np.full((4, 5, 6, 70), np.nan, np.float32)
    y = lowbit.xnor_conv2d(x, w, padding=1, out=wide[1:-1], isa=isa)
    assert y.base is wide and np.isnan(wide[0]).all() and np.isnan(wide[-1]).all()
    np.testing.assert_array_equal(y, lowbit.xnor_conv2d(x, w, padding=1, isa="scalar"))
    out = lowbit.PackedBits(np.zeros((2, 5, 6, 3), np.uint32), 70)
    assert lowbit.xnor_conv2d(x, w, padding=1, out_dtype="bits", out=out, isa=isa) is out
    np.testing.assert_array_equal(lowbit.unpack_bits(out), np.where(y >= 0, 1, -1))


def test_errors_name_what_disagrees():
    ones = np.ones((1, 4, 4, 6), np.float32)
    x, w = lowbit.pack_bits(ones), lowbit.pack_bits(np.ones((6, 3, 3, 6), np.float32))
    a, b = lowbit.pack_bits(np.ones((2, 3), np.float32)), lowbit.pack_bits(np.ones((4, 5), np.float32))
    with pytest.raises(ValueError, match="a has k = 3, b has k = 5"):
        lowbit.xnor_gemm(a, b)
    none = lowbit.pack_bits(np.ones((2, 0), np.float32))
    with pytest.raises(ValueError, match="c is 0, must be at least 1"):
        lowbit.xnor_gemm(none, none)
    with pytest.raises(TypeError, match="xnor_gemm: a is ndarray, must be PackedBits"):
        lowbit.xnor_gemm(np.ones((2, 3)), b)
    with pytest.raises(TypeError, match="x is float64, must be float32, int8 or uint8"):
        lowbit.xnor_conv2d(ones.astype(float), w)
    with pytest.raises(ValueError, match=r"w is \(2, 3\)"):
        lowbit.xnor_conv2d(ones, a)
    with pytest.raises(ValueError, match=r"x has 6 channels, w \(with groups\) has 12"):
        lowbit.xnor_conv2d(x, w, groups=2)
    with pytest.raises(ValueError, match="groups = 4 does not divide"):
        lowbit.xnor_conv2d(x, w, groups=4)
    with pytest.raises(ValueError, match="pad_value is 2, must be -1, 0 or 1"):
        lowbit.xnor_conv2d(x, w, pad_value=2)
    with pytest.raises(ValueError, match="kernel's height is 9, the padded image's 4"):
        lowbit.xnor_conv2d(x, w, dilation=(4, 1))
    with pytest.raises(ValueError, match="stride_h is 0"):
        lowbit.xnor_conv2d(x, w, stride=0)
    with pytest.raises(ValueError, match="threshold of -5 to 2147483648 is beyond int32"):
        lowbit.xnor_conv2d(x, w, threshold=np.array([-5, 2**31, 0, 0, 0, 0]), out_dtype="bits")
    with pytest.raises(ValueError, match=r"threshold is \(5,\), must be \(6,\)"):
        lowbit.xnor_conv2d(x, w, threshold=np.zeros(5, int), out_dtype="bits")
    with pytest.raises(ValueError, match=r"threshold\[1\] is NaN"):
        lowbit.xnor_conv2d(x, w, threshold=[0, np.nan, 0, 0, 0, 0.0], out_dtype="bits")
    with pytest.raises(ValueError, match="flip must be booleans"):
        lowbit.xnor_conv2d(x, w, flip=np.array([0, 1, 2, 0, 0, 0]), out_dtype="bits")
    with pytest.raises(ValueError, match=r"input_scale is \(1, 4, 4\), must be \(1, 2, 2\)"):
        lowbit.xnor_conv2d(x, w, input_scale=np.ones((1, 4, 4), np.float32))
    with pytest.raises(ValueError, match="clamp from 3"):
        lowbit.xnor_conv2d(x, w, clamp=(3, 1))
    with pytest.raises(ValueError, match="zero_point 200 is not one of int8"):
        lowbit.xnor_conv2d(x, w, out_dtype="int8", zero_point=200)
    with pytest.raises(ValueError, match="out_dtype 'float16'"):
        lowbit.xnor_conv2d(x, w, out_dtype="float16")
    with pytest.raises(TypeError, match="out must be a PackedBits"):
        lowbit.xnor_conv2d(x, w, out_dtype="bits", out=np.zeros(3, np.uint32))
    with pytest.raises(ValueError, match="unknown level"):
        lowbit.xnor_gemm(a, a, isa="sse9")


@pytest.mark.parametrize("isa", LEVELS)
def test_nothing_is_read_past_the_end(isa):
    """Inputs whose last byte is the last readable one."""
    rng = np.random.default_rng(8)
    for c, oc, kernel in [(1, 5, 1), (33, 70, 1), (64, 64, 3), (100, 17, 3), (96, 50, 2)]:
        x, scale = rng.standard_normal((1, 5, 6, c)).astype(np.float32), rng.random(oc).astype(np.float32)
        w, guarded = lowbit.pack_bits(signs(rng, oc, kernel, kernel, c)), before_guard_page(x)
        words = before_guard_page(lowbit.pack_bits(guarded, isa=isa).words.view(np.float32)).view(np.uint32)
        bits = lowbit.PackedBits(words, c)
        np.testing.assert_array_equal(lowbit.unpack_bits(bits, isa=isa), np.where(x >= 0, 1, -1))
        y = lowbit.xnor_conv2d(bits, w, scale=before_guard_page(scale), isa=isa)
        residual = before_guard_page(y)
        expected = lowbit.xnor_conv2d(x, w, scale=scale, residual=y, isa="scalar")
        np.testing.assert_array_equal(lowbit.xnor_conv2d(x, w, scale=scale, residual=residual, isa=isa), expected)
        pooled = lowbit.max_pool_bits(bits, 2, isa=isa)
        assert pooled.shape == (1, 2, 3, c)
