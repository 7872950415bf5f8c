"""Pooling, resizing and layout against NumPy written from the header's formulas, every level against scalar."""

import itertools

import numpy as np
import pytest

import lowbit
from lowbit import _core

LEVELS = lowbit.isas()
F32 = np.float32

# h, w, c, kernel, stride, padding (top, left, bottom, right), dilation
POOLS = [
    (7, 7, 16, (7, 7), (1, 1), (0, 0, 0, 0), (1, 1)),
    (7, 7, 1, (7, 7), (1, 1), (0, 0, 0, 0), (1, 1)),
    (20, 20, 65, (20, 20), (1, 1), (0, 0, 0, 0), (1, 1)),
    (12, 11, 64, (3, 3), (2, 2), (1, 1, 1, 1), (1, 1)),
    (12, 11, 33, (3, 3), (2, 2), (0, 0, 1, 1), (1, 1)),
    (5, 9, 130, (2, 3), (1, 2), (1, 2, 0, 1), (1, 1)),
    (9, 9, 8, (3, 2), (1, 1), (2, 1, 2, 1), (2, 3)),
    (1, 1, 17, (3, 3), (1, 1), (1, 1, 1, 1), (1, 1)),
    (2, 2, 31, (2, 2), (3, 3), (1, 1, 1, 1), (1, 1)),
    (3, 2, 9, (2, 2), (1, 1), (0, 0, 0, 0), (2, 1)),
    (40, 39, 64, (3, 3), (1, 1), (1, 1, 1, 1), (1, 1)),
    (4, 3, 15, (1, 1), (2, 2), (3, 0, 0, 4), (1, 1)),
]


def window(size, kernel, stride, before, after, dilation, overhang=0):
    """Per output position: the image positions of its taps, how many taps lie in the padded image."""
    out = (size + before + after - dilation * (kernel - 1) - 1) // stride + 1
    for o in range(out):
        taps = [o * stride - before + k * dilation for k in range(kernel)]
        yield [t for t in taps if 0 <= t < size], sum(-before <= t < size + after - overhang for t in taps)


def pool(x, kernel, stride, padding, dilation, reduce, overhang=(0, 0)):
    top, left, bottom, right = padding
    rows = list(window(x.shape[1], kernel[0], stride[0], top, bottom, dilation[0], overhang[0]))
    cols = list(window(x.shape[2], kernel[1], stride[1], left, right, dilation[1], overhang[1]))
    y = [[reduce(x[:, r][:, :, c], nr * nc) for c, nc in cols] for r, nr in rows]
    return np.ascontiguousarray(np.array(y).transpose(2, 0, 1, 3))


def random_input(shape, dtype):
    r = np.random.default_rng(list(shape))
    if dtype == "float32":
        return r.normal(size=shape).astype(F32)
    info = np.iinfo(dtype)
    return np.where(r.random(shape) < 0.2, info.min, r.integers(info.min, info.max + 1, shape)).astype(dtype)


def on_every_level(call, make):
    expected = make()
    call(expected, "scalar", 1)
    for isa, threads in itertools.product(LEVELS, (1, 2)):
        out = make()
        call(out, isa, threads)
        np.testing.assert_array_equal(out, expected, err_msg=f"{isa}, {threads} threads")
    return expected


@pytest.mark.parametrize("dtype", ["uint8", "int8", "float32"])
@pytest.mark.parametrize("case", POOLS, ids=str)
def test_max_pool(case, dtype):
    h, w, c, *geometry = case
    x = random_input((2, h, w, c), dtype)
    lowest = -np.inf if dtype == "float32" else np.iinfo(dtype).min
    expected = pool(x, *geometry, lambda v, _: v.max(axis=(1, 2), initial=lowest)).astype(dtype)
    y = on_every_level(
        lambda out, isa, threads: _core.max_pool(x, out, *geometry, isa=isa, threads=threads),
        lambda: np.empty_like(expected),
    )
    np.testing.assert_array_equal(y, expected)


def test_max_pool_ignores_nan():
    x = np.full((1, 2, 2, 20), np.nan, F32)
    x[0, 1, 0] = 3
    x[0, 1, 0, 0] = np.nan
    for isa in LEVELS:
        y = np.empty((1, 1, 1, 20), F32)
        _core.max_pool(x, y, (2, 2), isa=isa)
        np.testing.assert_array_equal(y[0, 0, 0], [-np.inf] + [3] * 19)


@pytest.mark.parametrize("include_pad,overhang", [(False, (0, 0)), (True, (0, 0)), (True, (1, 1))])
@pytest.mark.parametrize("case", POOLS, ids=str)
def test_average_pool(case, include_pad, overhang):
    h, w, c, *geometry = case
    overhang = (min(overhang[0], geometry[2][2]), min(overhang[1], geometry[2][3]))
    counting = {"count_include_pad": include_pad, "overhang": overhang}

    for dtype, zx, out_dtype, zy in [("uint8", 0, "uint8", 0), ("int8", -7, "uint8", 30), ("uint8", 200, "int8", 5)]:
        x = random_input((2, h, w, c), dtype)
        ratio = F32(0.05) / F32(0.021)

        def average(v, count, zx=zx, ratio=ratio):
            count = count if include_pad else v.shape[1] * v.shape[2]
            total = (v.astype(np.int32) - zx).sum(axis=(1, 2))
            return (total.astype(F32) * ratio) / F32(max(count, 1))

        info = np.iinfo(out_dtype)
        f = pool(x, *geometry, average, overhang)
        expected = (zy + np.rint(np.clip(f, F32(info.min - zy), F32(info.max - zy)))).astype(out_dtype)
        y = on_every_level(
            lambda out, isa, threads, x=x, zx=zx, zy=zy: _core.average_pool_i8(
                x, 0.05, zx, out, 0.021, zy, *geometry, **counting, isa=isa, threads=threads
            ),
            lambda e=expected: np.empty_like(e),
        )
        np.testing.assert_array_equal(y, expected)

    x = random_input((2, h, w, c), "float32")

    def average_f32(v, count):
        total = np.zeros((v.shape[0], v.shape[3]), F32)
        for r, q in itertools.product(range(v.shape[1]), range(v.shape[2])):
            total = total + v[:, r, q]
        return total / F32(max(count if include_pad else v.shape[1] * v.shape[2], 1))

    expected = pool(x, *geometry, average_f32, overhang)
    y = on_every_level(
        lambda out, isa, threads: _core.average_pool_f32(x, out, *geometry, **counting, isa=isa, threads=threads),
        lambda: np.empty_like(expected),
    )
    np.testing.assert_array_equal(y, expected)


def test_average_pool_of_many_pixels():
    """Sums beyond 16 bits: 40 x 40 pixels of 255 and of -128."""
    for dtype, value in [("uint8", 255), ("int8", -128)]:
        x = np.full((1, 40, 40, 70), value, dtype)
        for isa in LEVELS:
            y = np.empty((1, 1, 1, 70), dtype)
            _core.average_pool_i8(x, 0.5, 0, y, 0.5, 0, (40, 40), isa=isa)
            assert (y == value).all()


def test_pool_errors():
    x = np.zeros((1, 4, 4, 3), "uint8")
    y = np.zeros((1, 2, 2, 3), "uint8")
    with pytest.raises(ValueError, match=r"max_pool.*stride_h is 0"):
        _core.max_pool(x, y, (2, 2), (0, 1))
    with pytest.raises(ValueError, match=r"max_pool.*height"):
        _core.max_pool(x, np.zeros((1, 0, 0, 3), "uint8"), (5, 5))
    with pytest.raises(ValueError, match="an axis of y has 2"):
        _core.max_pool(x, y, (2, 2))
    with pytest.raises(TypeError, match="differ in dtype"):
        _core.max_pool(x, y.view("int8"), (2, 2), (2, 2))
    with pytest.raises(ValueError, match="average_pool_f32: overhang 1, 0 is not within the padding 0, 0"):
        _core.average_pool_f32(x.astype(F32), y.astype(F32), (2, 2), (2, 2), overhang=(1, 0))


# resize ----------------------------------------------------------


@pytest.mark.parametrize("dtype", ["uint8", "int8", "float32"])
@pytest.mark.parametrize("c", [1, 3, 16, 40, 2000])
def test_resize_nearest(dtype, c):
    x = random_input((2, 5, 4, c), dtype)
    rows, cols = np.array([0, 0, 4, 3, 2, 2], np.int32), np.array([3, 0, 1, 1, 2], np.int32)
    y = on_every_level(
        lambda out, isa, threads: _core.resize_nearest(x, rows, cols, out, isa=isa, threads=threads),
        lambda: np.empty((2, 6, 5, c), dtype),
    )
    np.testing.assert_array_equal(y, x[:, rows][:, :, cols])


def taps(out, size, seed):
    r = np.random.default_rng(seed)
    first = r.integers(0, size, out).astype(np.int32)
    return first, np.minimum(first + 1, size - 1).astype(np.int32), r.random(out).astype(F32)


@pytest.mark.parametrize("c", [1, 3, 8, 16, 33, 64, 200])
def test_resize_bilinear(c):
    rows, cols = taps(7, 5, 1), taps(9, 4, 2)

    def lerp(v):
        v = v[:, :, cols[0]] + (v[:, :, cols[1]] - v[:, :, cols[0]]) * cols[2][:, None]
        return v[:, rows[0]] + (v[:, rows[1]] - v[:, rows[0]]) * rows[2][:, None, None]

    x = random_input((2, 5, 4, c), "float32")
    y = on_every_level(
        lambda out, isa, threads: _core.resize_bilinear(x, rows, cols, out, isa=isa, threads=threads),
        lambda: np.empty((2, 7, 9, c), F32),
    )
    np.testing.assert_array_equal(y, lerp(x))
    for dtype, zx, out_dtype, zy in [("uint8", 3, "uint8", 9), ("int8", -128, "uint8", 0), ("uint8", 255, "int8", -1)]:
        q = random_input((2, 5, 4, c), dtype)
        f = lerp((q.astype(np.int32) - zx).astype(F32)) * (F32(0.3) / F32(0.2))
        info = np.iinfo(out_dtype)
        expected = (zy + np.rint(np.clip(f, F32(info.min - zy), F32(info.max - zy)))).astype(out_dtype)
        y = on_every_level(
            lambda out, isa, threads, q=q, zx=zx, zy=zy: _core.resize_bilinear(
                q, rows, cols, out, 0.3, zx, 0.2, zy, isa=isa, threads=threads
            ),
            lambda d=out_dtype: np.empty((2, 7, 9, c), d),
        )
        np.testing.assert_array_equal(y, expected)


def test_resize_refuses_indices_outside():
    x, y = np.zeros((1, 2, 2, 1), "uint8"), np.zeros((1, 1, 1, 1), "uint8")
    one, two, w = np.array([1], np.int32), np.array([2], np.int32), np.zeros(1, F32)
    with pytest.raises(ValueError, match=r"rows\[0\] = 2 is not in \[0, 2\)"):
        _core.resize_nearest(x, two, one, y)
    with pytest.raises(ValueError, match=r"cols\[0\] = 2"):
        _core.resize_bilinear(x, (one, one, w), (one, two, w), y)


# layout ----------------------------------------------------------


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "float64"])
def test_transpose_every_permutation(dtype):
    r = np.random.default_rng(3)
    for dims in [(), (5,), (33, 18), (1, 7, 20), (3, 17, 5), (2, 3, 4, 5), (2, 16, 1, 33), (2, 1, 3, 2, 4), (0, 3)]:
        x = r.integers(0, 255, dims).astype(dtype)
        for perm in itertools.permutations(range(len(dims))):
            expected = np.ascontiguousarray(x.transpose(perm))
            for threads in (1, 2):
                y = np.empty(expected.shape, dtype)
                _core.transpose(x, list(perm), y, threads=threads)
                np.testing.assert_array_equal(y, expected)


def test_transpose_large_by_threads():
    x = np.random.default_rng(4).integers(0, 255, (3, 200, 190)).astype("uint8")
    y = np.empty((3, 190, 200), "uint8")
    _core.transpose(x, [0, 2, 1], y, threads=3)
    np.testing.assert_array_equal(y, x.transpose(0, 2, 1))


def test_transpose_errors():
    x = np.zeros((2, 3), "uint8")
    with pytest.raises(ValueError, match=r"perm\[1\] = 0"):
        _core.transpose(x, [0, 0], x)
    with pytest.raises(ValueError, match=r"perm\[0\] = 2"):
        _core.transpose(x, [2, 0], x)


def test_copy_2d():
    r = np.random.default_rng(5)
    for rows, wide_from, wide_to in itertools.product([0, 1, 9, 300], [1, 24, 33, 700], [1, 24, 64, 900]):
        src = r.integers(0, 255, (rows, wide_from)).astype("uint8")
        for size in {0, 1, min(wide_from, wide_to), min(wide_from, wide_to) // 2}:
            for threads in (1, 2):
                dst = np.full((rows, wide_to), 7, "uint8")
                _core.copy_2d(src, dst, size, threads=threads)
                np.testing.assert_array_equal(dst[:, :size], src[:, :size])
                assert (dst[:, size:] == 7).all()
