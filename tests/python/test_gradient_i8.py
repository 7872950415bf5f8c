"""The gradients of an int8 convolution against NumPy sums from the definition, on every level and thread count."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lowbit

LEVELS = lowbit.isas()


def windows(h, w, kernel, stride, padding, dilation):
    """Of every tap: (ky, kx), and where the input pixels lie that its output pixels read, in the padded image."""
    (kh, kw), (sh, sw), (top, left, bottom, right), (dh, dw) = kernel, stride, padding, dilation
    oh = (h + top + bottom - dh * (kh - 1) - 1) // sh + 1
    ow = (w + left + right - dw * (kw - 1) - 1) // sw + 1
    for ky in range(kh):
        for kx in range(kw):
            rows = slice(ky * dh, ky * dh + (oh - 1) * sh + 1, sh)
            yield ky, kx, rows, slice(kx * dw, kx * dw + (ow - 1) * sw + 1, sw)


def signed(codes):
    return codes.astype(np.int64) - (128 if codes.dtype == np.uint8 else 0)


def weight_gradient(x, g, kernel, stride, padding, dilation, groups):
    top, left, bottom, right = padding
    padded = np.pad(signed(x), ((0, 0), (top, bottom), (left, right), (0, 0)))
    c, oc = x.shape[3] // groups, g.shape[3] // groups
    dw = np.zeros((g.shape[3], *kernel, c), np.int64)
    for ky, kx, rows, columns in windows(*x.shape[1:3], kernel, stride, padding, dilation):
        seen = padded[:, rows, columns]
        for k in range(groups):
            out, into = slice(k * oc, (k + 1) * oc), slice(k * c, (k + 1) * c)
            dw[out, ky, kx] = np.einsum("nyxo,nyxc->oc", signed(g)[..., out], seen[..., into])
    return dw


def input_gradient(g, w, size, stride, padding, dilation, groups):
    (h, width), (top, left, bottom, right) = size, padding
    c, oc = w.shape[3], w.shape[0] // groups
    dx = np.zeros((len(g), h + top + bottom, width + left + right, c * groups), np.int64)
    for ky, kx, rows, columns in windows(h, width, w.shape[1:3], stride, padding, dilation):
        for k in range(groups):
            out = slice(k * oc, (k + 1) * oc)
            dx[:, rows, columns, k * c : (k + 1) * c] += signed(g)[..., out] @ w[out, ky, kx].astype(np.int64)
    return dx[:, top : top + h, left : left + width]


def hostile(rng, shape, dtype):
    info = np.iinfo(dtype)
    x = rng.integers(info.min, info.max + 1, shape)
    return np.where(rng.random(shape) < 0.3, rng.choice([info.min, info.max], shape), x).astype(dtype)


GEOMETRIES = [  # batch, h, w, c, oc, kernel, stride, padding, dilation, groups
    (2, 5, 6, 3, 5, (3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1),
    (1, 14, 14, 20, 33, (3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1),
    (3, 7, 9, 17, 64, (3, 3), (2, 2), (1, 1, 1, 1), (1, 1), 1),
    (2, 8, 8, 16, 16, (3, 3), (2, 1), (0, 1, 1, 2), (1, 1), 1),
    (2, 9, 9, 4, 6, (3, 3), (1, 1), (2, 2, 2, 2), (2, 2), 1),
    (2, 9, 10, 4, 6, (3, 3), (2, 2), (2, 1, 0, 2), (2, 2), 1),
    (2, 9, 10, 4, 6, (2, 3), (3, 2), (1, 0, 0, 2), (1, 1), 1),
    (2, 8, 8, 12, 7, (1, 1), (1, 1), (0, 0, 0, 0), (1, 1), 1),
    (2, 8, 9, 12, 7, (1, 1), (2, 2), (0, 0, 0, 0), (1, 1), 1),
    (1, 6, 6, 8, 12, (3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 4),
    (1, 6, 6, 5, 5, (3, 3), (2, 2), (1, 1, 1, 1), (1, 1), 5),
    (1, 3, 3, 70, 66, (3, 3), (1, 1), (0, 0, 0, 0), (1, 1), 1),
    (2, 12, 3, 1, 1, (5, 1), (1, 1), (4, 0, 4, 0), (1, 1), 1),
    (1, 1, 300, 65, 17, (1, 1), (1, 1), (0, 0, 0, 0), (1, 1), 1),
    (1, 4, 9, 2, 3, (2, 2), (5, 5), (0, 0, 0, 0), (1, 1), 1),
]


@pytest.mark.parametrize("isa", LEVELS)
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_both_gradients_are_exact(isa, geometry, dtype):
    batch, h, w, c, oc, kernel, stride, padding, dilation, groups = geometry
    rng = np.random.default_rng(h * w)
    x, weights = hostile(rng, (batch, h, w, c), dtype), hostile(rng, (oc, *kernel, c // groups), "int8")
    packed = lowbit.pack_conv2d_i8(weights, stride, dilation, groups)
    zero = 128 if dtype == "uint8" else 0
    y = lowbit.conv2d_i8(x, packed, padding=padding, x_zero_point=zero)
    g = hostile(rng, y.shape, dtype)
    expected_dw = weight_gradient(x, g, kernel, stride, padding, dilation, groups)
    expected_dx = input_gradient(g, weights, (h, w), stride, padding, dilation, groups)
    scale = np.float32(0.37)
    for threads in (1, 2):
        run = {"scale": float(scale), "isa": isa, "threads": threads}
        dw = lowbit.weight_gradient_i8(x, g, kernel, stride, padding, dilation, groups, **run)
        assert np.array_equal(dw, expected_dw.astype(np.float32) * scale)
        turned = lowbit.pack_gradient_i8(weights, stride, dilation, groups, isa=isa, threads=threads)
        dx = lowbit.input_gradient_i8(g, turned, (h, w), padding, **run)
        assert np.array_equal(dx, expected_dx.astype(np.float32) * scale)


def test_levels_that_run():
    assert LEVELS[-1] == "scalar"


@pytest.mark.parametrize("isa", LEVELS)
def test_many_pixels_are_cut_in_pieces_added_in_float32(isa):
    """150 x 150 pixels without padding: 22500 places, 3 pieces of 7552 (a multiple of 64 that holds a third)."""
    rng = np.random.default_rng(0)
    x, g = hostile(rng, (1, 150, 150, 3), "int8"), hostile(rng, (1, 150, 150, 2), "int8")
    dw = lowbit.weight_gradient_i8(x, g, 1, scale=0.1, isa=isa)[:, 0, 0]
    rows, columns = signed(g).reshape(-1, 2), signed(x).reshape(-1, 3)
    expected = np.float32(0)
    for begin in range(0, 22500, 7552):
        piece = slice(begin, begin + 7552)
        expected = (rows[piece].T @ columns[piece]).astype(np.float32) * np.float32(0.1) + expected
    assert np.array_equal(dw, expected)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_geometry(data):
    draw = lambda lo, hi: data.draw(st.integers(lo, hi))  # noqa: E731
    kernel, dilation, stride = (draw(1, 4), draw(1, 4)), (draw(1, 2), draw(1, 3)), (draw(1, 3), draw(1, 3))
    reach = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
    padding = (draw(0, reach[0]), draw(0, reach[1]), draw(0, reach[0]), draw(0, reach[1]))
    h = draw(max(1, reach[0] + 1 - padding[0] - padding[2]), 12)
    w = draw(max(1, reach[1] + 1 - padding[1] - padding[3]), 12)
    groups, batch = draw(1, 2), draw(1, 3)
    c, oc = groups * draw(1, 20), groups * draw(1, 20)
    rng = np.random.default_rng(draw(0, 1000))
    weights = hostile(rng, (oc, *kernel, c // groups), "int8")
    x = hostile(rng, (batch, h, w, c), "uint8")
    g = hostile(rng, lowbit.conv2d_i8(x, weights, stride, padding, dilation, groups).shape, "uint8")
    dw = lowbit.weight_gradient_i8(x, g, kernel, stride, padding, dilation, groups)
    assert np.array_equal(dw, weight_gradient(x, g, kernel, stride, padding, dilation, groups))
    turned = lowbit.pack_gradient_i8(weights, stride, dilation, groups)
    dx = lowbit.input_gradient_i8(g, turned, (h, w), padding)
    assert np.array_equal(dx, input_gradient(g, weights, (h, w), stride, padding, dilation, groups))


def test_empty_batches():
    x, g = np.empty((0, 5, 5, 3), np.int8), np.empty((0, 5, 5, 4), np.int8)
    assert not lowbit.weight_gradient_i8(x, g, 3, padding=1, out=np.ones((4, 3, 3, 3), np.float32)).any()
    w = lowbit.pack_gradient_i8(np.ones((4, 3, 3, 3), np.int8))
    assert lowbit.input_gradient_i8(g, w, 5, 1).shape == (0, 5, 5, 3)


def test_bad_arguments():
    x, g = np.zeros((1, 5, 5, 3), np.int8), np.zeros((1, 5, 5, 4), np.int8)
    w = lowbit.pack_gradient_i8(np.ones((4, 3, 3, 3), np.int8))
    with pytest.raises(ValueError, match=r"weight_gradient_i8: g .*\(1, 3, 3, 4\)"):
        lowbit.weight_gradient_i8(x, g, 3)
    with pytest.raises(TypeError, match="weight_gradient_i8: x is float32"):
        lowbit.weight_gradient_i8(x.astype(np.float32), g, 1)
    with pytest.raises(ValueError, match="groups = 2"):
        lowbit.weight_gradient_i8(x, g, 1, groups=2)
    with pytest.raises(ValueError, match=r"input_gradient_i8: g .*\(1, 3, 3, 4\)"):
        lowbit.input_gradient_i8(g, w, 5)
    with pytest.raises(ValueError, match="top padding 3 is more than dilation"):
        lowbit.input_gradient_i8(np.zeros((1, 9, 9, 4), np.int8), w, 5, 3)
    with pytest.raises(TypeError, match="pack_gradient_i8: w is uint8"):
        lowbit.pack_gradient_i8(np.ones((4, 3, 3, 3), np.uint8))
    with pytest.raises(ValueError, match="scale"):
        lowbit.weight_gradient_i8(x, g, 3, padding=1, scale=0.0)
