"""gemm_f32 and conv2d_f32 against float64 NumPy written from the definition, within Higham's bound."""

import ctypes
import mmap

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lowbit

LEVELS = lowbit.isas()
EDGES = [1, 2, 5, 6, 7, 13, 14, 15, 16, 17, 31, 32, 33, 65]


def check(y, exact, magnitude, k):
    """Higham's gamma_(k + 2) (k fused products, bias, residual) times the sum of the terms' magnitudes."""
    assert y.dtype == np.float32 and y.shape == exact.shape
    ku = (k + 2) * 2.0**-24
    bound = ku / (1 - ku) * magnitude
    assert np.all(np.abs(y - exact) <= bound), float(np.max(np.abs(y - exact) - bound))


def normal(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32)


def reference(x, w, stride, padding, dilation, groups):
    """From the definition: pad, then one window at a time. x (b, h, w, c), w (oc, kh, kw, c / groups), float64."""
    (sh, sw), (dh, dw), (top, left, bottom, right) = stride, dilation, padding
    x = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)))
    oc, kh, kw, cg = w.shape
    out_h = (x.shape[1] - dh * (kh - 1) - 1) // sh + 1
    out_w = (x.shape[2] - dw * (kw - 1) - 1) // sw + 1
    y = np.zeros((x.shape[0], out_h, out_w, oc))
    for o in range(oc):
        first = o // (oc // groups) * cg
        for i in range(out_h):
            for j in range(out_w):
                window = x[:, i * sh : i * sh + dh * (kh - 1) + 1 : dh, j * sw : j * sw + dw * (kw - 1) + 1 : dw]
                y[:, i, j, o] = np.sum(window[..., first : first + cg] * w[o], axis=(1, 2, 3))
    return y


def test_levels_that_run():
    assert LEVELS[-1] == "scalar" and len(LEVELS) >= 1


@pytest.mark.parametrize("isa", LEVELS)
def test_gemm_at_every_edge(isa):
    rng = np.random.default_rng(1)
    for m in EDGES:
        for n in EDGES:
            k = int(rng.integers(1, 70))
            a, b = normal(rng, m, k), normal(rng, k, n)
            exact, magnitude = a.astype(float) @ b.astype(float), np.abs(a).astype(float) @ np.abs(b)
            check(lowbit.gemm_f32(a, b, isa=isa), exact, magnitude, k)


@pytest.mark.parametrize("isa", LEVELS)
def test_gemm_deep_k_in_bands_with_everything(isa):
    rng = np.random.default_rng(2)
    for m, n, k in [(61, 130, 4608), (300, 40, 512), (9, 200, 1024)]:  # the last two copy bands of A
        a, b, bias, residual = normal(rng, m, k), normal(rng, n, k).T, normal(rng, n), normal(rng, m, n)
        exact = a.astype(float) @ b.astype(float) + bias + residual
        magnitude = np.abs(a).astype(float) @ np.abs(b) + np.abs(bias) + np.abs(residual)
        for threads in (1, 2, 3):
            y = lowbit.gemm_f32(a, b, bias=bias, residual=residual, clamp=(-20, 30), isa=isa, threads=threads)
            check(y, np.clip(exact, -20, 30), magnitude, k)


@pytest.mark.parametrize("isa", LEVELS)
def test_gemm_of_integers_is_exact_and_packed_equals_plain(isa):
    rng = np.random.default_rng(3)
    a, b = (rng.integers(-50, 50, s).astype(np.float32) for s in ((37, 100), (100, 53)))
    packed = lowbit.pack_f32(b)
    assert (packed.k, packed.n) == (100, 53) and packed.nbytes >= b.nbytes
    np.testing.assert_array_equal(lowbit.gemm_f32(a, packed, isa=isa), a.astype(int) @ b.astype(int))


@pytest.mark.parametrize("isa", LEVELS)
def test_empty_sizes_and_special_values(isa):
    ones = np.ones((3, 4), np.float32)
    assert lowbit.gemm_f32(np.ones((0, 4), np.float32), np.ones((4, 5), np.float32), isa=isa).shape == (0, 5)
    assert lowbit.gemm_f32(ones, np.ones((4, 0), np.float32), isa=isa).shape == (3, 0)
    bias = np.array([1, 2], np.float32)
    y = lowbit.gemm_f32(np.ones((3, 0), np.float32), np.ones((0, 2), np.float32), bias=bias, isa=isa)
    np.testing.assert_array_equal(y, np.tile(bias, (3, 1)))
    ones[1, 2] = np.nan
    assert np.isnan(lowbit.gemm_f32(ones, np.ones((4, 2), np.float32), clamp=(0, 6), isa=isa)[1]).all()


CONVOLUTIONS = [  # h, w, c, oc, kernel, stride, padding, dilation, groups
    (7, 7, 16, 33, (3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1),
    (9, 30, 3, 32, (3, 3), (2, 2), (1, 1, 1, 1), (1, 1), 1),
    (8, 17, 5, 7, (1, 1), (1, 1), (0, 0, 0, 0), (1, 1), 1),
    (8, 17, 5, 40, (1, 1), (2, 2), (0, 0, 0, 0), (1, 1), 1),
    (8, 9, 8, 20, (3, 2), (2, 1), (0, 0, 0, 0), (1, 1), 1),
    (9, 8, 6, 9, (3, 3), (1, 2), (2, 0, 1, 3), (2, 2), 1),
    (9, 8, 12, 18, (3, 3), (1, 1), (1, 1, 1, 1), (1, 2), 3),
    (5, 6, 512, 20, (3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1),
    (4, 4, 3, 5, (2, 2), (1, 1), (6, 7, 5, 8), (1, 1), 1),
    (7, 9, 35, 35, (3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 35),
    (7, 9, 16, 16, (5, 5), (2, 2), (2, 2, 2, 2), (1, 1), 16),
    (7, 9, 19, 19, (2, 3), (1, 2), (0, 1, 2, 0), (2, 1), 19),
    (7, 9, 3, 6, (3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 3),
]


@pytest.mark.parametrize("isa", LEVELS)
@pytest.mark.parametrize("case", CONVOLUTIONS, ids=str)
def test_convolution(case, isa):
    h, w, c, oc, kernel, stride, padding, dilation, groups = case
    rng = np.random.default_rng(4)
    x, weights, bias = normal(rng, 2, h, w, c), normal(rng, oc, *kernel, c // groups), normal(rng, oc)
    exact, magnitude = (
        reference(f(x).astype(float), f(weights), stride, padding, dilation, groups) for f in (np.array, np.abs)
    )
    residual = normal(rng, *exact.shape)
    exact, magnitude = exact + bias + residual, magnitude + np.abs(bias) + np.abs(residual)
    for threads in (1, 3):
        y = lowbit.conv2d_f32(
            x,
            weights,
            stride,
            padding,
            dilation,
            groups,
            bias=bias,
            residual=residual,
            clamp=(-3, 5),
            isa=isa,
            threads=threads,
        )
        check(y, np.clip(exact, -3, 5), magnitude, weights[0].size)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_convolution_properties(data):
    draw = lambda low, high: data.draw(st.integers(low, high))  # noqa: E731
    groups = draw(1, 3)
    c, oc = groups * draw(1, 5), groups * draw(1, 9)
    kernel, stride, dilation = ((draw(1, 3), draw(1, 3)) for _ in range(3))
    padding = tuple(draw(0, 3) for _ in range(4))
    h, w = (dilation[i] * (kernel[i] - 1) + 1 + draw(0, 6) for i in (0, 1))
    rng = np.random.default_rng(draw(0, 1000))
    x = rng.integers(-9, 9, (draw(0, 2), h, w, c)).astype(np.float32)
    weights = rng.integers(-9, 9, (oc, *kernel, c // groups)).astype(np.float32)
    exact = reference(x.astype(int), weights.astype(int), stride, padding, dilation, groups)
    isa, threads = data.draw(st.sampled_from(LEVELS)), draw(1, 3)
    y = lowbit.conv2d_f32(x, weights, stride, padding, dilation, groups, isa=isa, threads=threads)
    if len(x):
        np.testing.assert_array_equal(y, exact)
    else:
        assert y.size == 0


def test_errors_name_what_disagrees():
    a, b, x = np.ones((2, 3), np.float32), np.ones((4, 5), np.float32), np.ones((1, 4, 4, 6), np.float32)
    w = np.ones((6, 3, 3, 6), np.float32)
    with pytest.raises(ValueError, match="a has k = 3, b has k = 4"):
        lowbit.gemm_f32(a, b)
    with pytest.raises(TypeError, match="gemm_f32: a is float64, must be float32"):
        lowbit.gemm_f32(a.astype(float), b)
    with pytest.raises(TypeError, match="pack_f32: b is int8, must be float32"):
        lowbit.gemm_f32(a, b.astype(np.int8))
    with pytest.raises(ValueError, match=r"bias is \(4,\), the output has 5 channels"):
        lowbit.gemm_f32(b.T.copy(), b, bias=np.ones(4, np.float32))
    with pytest.raises(ValueError, match=r"residual is \(2, 2\), the output is \(2, 5\)"):
        lowbit.gemm_f32(np.ones((2, 4), np.float32), b, residual=np.ones((2, 2), np.float32))
    with pytest.raises(ValueError, match="clamp from 3"):
        lowbit.gemm_f32(np.ones((2, 4), np.float32), b, clamp=(3, 1))
    with pytest.raises(ValueError, match="unknown level"):
        lowbit.gemm_f32(np.ones((2, 4), np.float32), b, isa="sse9")
    with pytest.raises(ValueError, match=r"x has 6 channels, w \(with groups\) has 5"):
        lowbit.conv2d_f32(x, np.ones((6, 3, 3, 5), np.float32))
    with pytest.raises(ValueError, match="kernel's height is 9, the padded image's 4"):
        lowbit.conv2d_f32(x, w, dilation=(4, 1))
    with pytest.raises(ValueError, match="stride_h is 0"):
        lowbit.conv2d_f32(x, w, stride=0)
    with pytest.raises(ValueError, match="pad_left is -1"):
        lowbit.conv2d_f32(x, w, padding=(0, -1, 0, 0))
    with pytest.raises(ValueError, match="groups = 4 does not divide"):
        lowbit.conv2d_f32(x, w, groups=4)
    with pytest.raises(ValueError, match="conv2d_f32: padding must be one number"):
        lowbit.conv2d_f32(x, w, padding=(1, 2, 3))


@pytest.mark.parametrize("isa", LEVELS)
def test_out_is_the_callers_buffer(isa):
    rng = np.random.default_rng(5)
    a, b, x, w = (normal(rng, *shape) for shape in ((7, 9), (9, 18), (2, 5, 6, 4), (8, 3, 3, 4)))
    for run, shape in (
        (lambda out: lowbit.gemm_f32(a, b, clamp=(-1, 1), isa=isa, out=out), (7, 18)),
        (lambda out: lowbit.conv2d_f32(x, w, padding=1, isa=isa, out=out), (2, 5, 6, 8)),
    ):
        wide = np.full((shape[0] + 2, *shape[1:]), np.nan, np.float32)
        out = wide[1:-1]
        assert run(out) is out
        np.testing.assert_array_equal(out, run(None))
        assert np.isnan(wide[0]).all() and np.isnan(wide[-1]).all()
        with pytest.raises(TypeError, match="out is float64, the result is float32"):
            run(np.zeros(shape))
        with pytest.raises(TypeError, match="out is >f4"):
            run(np.zeros(shape, ">f4"))
        with pytest.raises(TypeError, match="out must be a NumPy array"):
            run(out.tolist())
        with pytest.raises(ValueError, match=rf"out is \({shape[0] + 2}, .*the result is \({shape[0]}, "):
            run(wide)
        with pytest.raises(ValueError, match="out must be in C order"):
            run(np.zeros(shape, np.float32, order="F"))
        out.flags.writeable = False
        with pytest.raises(ValueError, match="out is read-only"):
            run(out)


def test_any_strides_and_no_pixels():
    rng = np.random.default_rng(6)
    wide, b = normal(rng, 9, 40), normal(rng, 10, 12)
    record = np.zeros((10, 12), [("code", np.int8), ("value", np.float32)])
    record["value"] = b
    for a in (wide[:, 3:13], wide[::-1, ::4], np.asfortranarray(wide[:, :10])):
        np.testing.assert_array_equal(lowbit.gemm_f32(a, record["value"]), lowbit.gemm_f32(a.copy("C"), b))
    x, w = normal(rng, 0, 5, 6, 4), normal(rng, 8, 3, 3, 4)
    assert lowbit.conv2d_f32(x, w).shape == (0, 3, 4, 8)


def before_guard_page(values):
    """A copy of float32 values whose last byte is the last readable one: reading past its end is a crash."""
    page = mmap.PAGESIZE
    room = -(-values.nbytes // page) * page
    memory = mmap.mmap(-1, room + page)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    assert ctypes.CDLL(None, use_errno=True).mprotect(ctypes.c_void_p(start + room), ctypes.c_size_t(page), 0) == 0
    array = np.frombuffer(memory, np.float32, values.size, room - values.nbytes).reshape(values.shape)
    array[...] = values
    return array


@pytest.mark.parametrize("isa", LEVELS)
def test_nothing_is_read_past_the_end(isa):
    rng = np.random.default_rng(8)
    for c in (1, 7, 8, 15, 16, 17, 40):
        for w in (normal(rng, c, 3, 3, 1), normal(rng, 9, 3, 3, c), normal(rng, 9, 1, 1, c)):
            groups = c if w.shape[0] == c and w.shape[3] == 1 else 1
            args = [normal(rng, 1, 5, 6, c), normal(rng, w.shape[0]), normal(rng, 1, 3, 4, w.shape[0])]
            if w.shape[1] == 1:
                args[2] = normal(rng, 1, 5, 6, w.shape[0])
            plain = lowbit.conv2d_f32(args[0], w, groups=groups, bias=args[1], residual=args[2], isa=isa)
            x, bias, residual = map(before_guard_page, args)
            y = lowbit.conv2d_f32(x, w, groups=groups, bias=bias, residual=residual, isa=isa)
            np.testing.assert_array_equal(y, plain)
