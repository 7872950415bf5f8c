"""Codebook weights against NumPy written from the definition: indices, decoding, products in both modes."""

import ctypes
import mmap

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lowbit

LEVELS = lowbit.isas()
BITS = range(1, 9)
GRANULARITIES = ["tensor", "channel", "columns"]


def dense_bytes(idx, bits):
    """From the definition: bit t * bits + s of the stream is bit s of index t."""
    stream = (idx.reshape(-1, 1) >> np.arange(bits) & 1).reshape(-1)
    return np.packbits(stream.astype(np.uint8), bitorder="little")


def make(rng, n, k, bits, per="tensor", group_size=None, entries=None):
    """Random indices, their codebook, its group size, and the weights that they stand for."""
    entries = entries or 1 << bits
    idx = rng.integers(0, entries, (n, k), np.uint8, endpoint=False)
    if per == "columns":
        group_size = group_size or max(1, k // 3)
    else:
        group_size = None
    shape = {"tensor": (entries,), "channel": (n, entries), "columns": (-(-k // (group_size or 1)), entries)}[per]
    codebook = rng.standard_normal(shape).astype(np.float32)
    return idx, codebook, group_size, weights(idx, codebook, group_size)


def rows_of(idx, codebook, group_size):
    """The codebook's row that each index looks into."""
    n, k = idx.shape
    if group_size:
        return np.broadcast_to(np.arange(k) // group_size, (n, k))
    return np.broadcast_to(np.arange(n)[:, None] if codebook.ndim == 2 else 0, (n, k))


def weights(idx, codebook, group_size):
    return np.atleast_2d(codebook)[rows_of(idx, codebook, group_size), idx]


def test_levels_that_run():
    assert LEVELS[-1] == "scalar" and len(LEVELS) >= 1


@pytest.mark.parametrize("bits", BITS)
def test_pack_and_unpack(bits):
    rng = np.random.default_rng(bits)
    for size in [0, 1, 2, 7, 8, 9, 63, 64, 65, 127, 130, 255, 1000]:
        idx = rng.integers(0, 1 << bits, size, np.uint8, endpoint=False).reshape(1, size)
        p = lowbit.pack_indices(idx, bits)
        np.testing.assert_array_equal(p.data, dense_bytes(idx, bits))
        assert p.nbytes == -(-size * bits // 8) and p.shape == idx.shape
        for isa in LEVELS:
            np.testing.assert_array_equal(lowbit.unpack_indices(p, isa=isa), idx)


def test_the_surveys_example():
    codebook = np.array([-1, 0, 1.5, 2], np.float32)
    idx = np.array([[3, 0, 2, 1], [1, 1, 0, 3], [0, 3, 1, 0], [3, 1, 2, 2]], np.uint8)
    p = lowbit.pack_indices(idx, 2)
    assert (p.nbytes, codebook.nbytes) == (4, 16)
    assert (16 * p.bits + 4 * 32) / (16 * 32) == (p.nbytes + codebook.nbytes) / 64 == 0.3125
    np.testing.assert_array_equal(lowbit.codebook_decode(p, codebook), codebook[idx])
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    for isa in LEVELS:
        np.testing.assert_array_equal(lowbit.codebook_gemm(x, p, codebook, isa=isa), x @ codebook[idx].T)


@pytest.mark.parametrize("isa", LEVELS)
@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("per", GRANULARITIES)
def test_decode(per, bits, isa):
    rng = np.random.default_rng(bits)
    for n, k in [(1, 1), (3, 5), (1, 64), (7, 65), (5, 31), (2, 130), (17, 48), (3, 333)]:
        idx, codebook, group, w = make(rng, n, k, bits, per)
        p = lowbit.pack_indices(idx, bits)
        for threads in (1, 2):
            y = lowbit.codebook_decode(p, codebook, group_size=group, isa=isa, threads=threads)
            assert y.dtype == np.float32
            np.testing.assert_array_equal(y, w)
        book = rng.integers(-128, 128, codebook.shape, np.int8, endpoint=False)
        y = lowbit.codebook_decode(p, book, "int8", group_size=group, isa=isa)
        assert y.dtype == np.int8
        np.testing.assert_array_equal(y, weights(idx, book, group))


@pytest.mark.parametrize("isa", LEVELS)
def test_decode_long_with_threads(isa):
    rng = np.random.default_rng(3)
    for bits, n, k in [(2, 300, 501), (3, 1, 100_003), (5, 999, 77), (8, 100, 1000)]:
        idx, codebook, _, w = make(rng, n, k, bits)
        y = lowbit.codebook_decode(lowbit.pack_indices(idx, bits), codebook, isa=isa, threads=3)
        np.testing.assert_array_equal(y, w)


def check_float(y, x, w, bias=None, clamp=(-np.inf, np.inf)):
    """Higham's gamma_k on the sum, one rounding of the bias."""
    exact, magnitude = x.astype(float) @ w.T.astype(float), np.abs(x).astype(float) @ np.abs(w.T)
    if bias is not None:
        exact, magnitude = exact + bias, magnitude + np.abs(bias)
    ku = (x.shape[1] + 1) * 2.0**-24
    assert np.all(np.abs(y - np.clip(exact, *clamp)) <= ku / (1 - ku) * magnitude)


def chain(x, w):
    """The sum as stated: fused multiply-adds in the order of k (double holds a product of floats exactly)."""
    total = np.zeros((x.shape[0], w.shape[0]), np.float32)
    for p in range(x.shape[1]):
        exact = x[:, p : p + 1].astype(np.longdouble) * w[:, p].astype(np.longdouble) + total
        total = exact.astype(np.float32)
    return total


def int8_reference(x, idx, codebook, group, bias=None, clamp=None, x_scale=None):
    """Int8 mode as lowbit/codebook.h states it: exact integer sums, then single float32 operations."""
    one = np.float32
    q, t = lowbit.quantize_codebook(codebook)
    if x_scale is None:
        peak = np.abs(x).max(axis=1, initial=0, keepdims=True)
        s, inverse = peak / one(127), np.where(peak > 0, one(127) / np.where(peak > 0, peak, 1), one(0))
    else:
        s, inverse = np.full((len(x), 1), x_scale, one), one(1) / one(x_scale)
    codes = np.clip(np.rint(x * inverse.astype(one)), -127, 127).astype(np.int64)
    total = np.zeros((len(x), len(idx)), one)
    w = weights(idx, q, group).astype(np.int64)
    for first in range(0, x.shape[1], group or max(1, x.shape[1])):
        columns = slice(first, first + (group or x.shape[1]))
        scale = t[first // group] if group else t if codebook.ndim == 2 else t[0]
        total += (codes[:, columns] @ w[:, columns].T).astype(one) * scale
    y = total * s
    if bias is not None:
        y = y + bias
    return y if clamp is None else np.clip(y, *map(one, clamp))


SHAPES = [(1, 1, 1), (1, 3, 5), (2, 16, 32), (3, 17, 33), (5, 15, 31), (1, 65, 100), (7, 33, 64), (8, 48, 65),
          (17, 130, 96), (33, 20, 129), (4, 64, 257), (1, 300, 40), (19, 7, 70)]  # fmt: skip


@pytest.mark.parametrize("isa", LEVELS)
@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("per", GRANULARITIES)
def test_gemm_both_modes(per, bits, isa):
    rng = np.random.default_rng(bits)
    for m, n, k in SHAPES:
        idx, codebook, group, w = make(rng, n, k, bits, per)
        x, bias = rng.standard_normal((m, k)).astype(np.float32), rng.standard_normal(n).astype(np.float32)
        p = lowbit.pack_codebook(lowbit.pack_indices(idx, bits), codebook, group_size=group)
        assert p.shape == (n, k) and p.bits == bits
        y = lowbit.codebook_gemm(x, p, isa=isa)
        check_float(y, x, w)
        np.testing.assert_array_equal(y, lowbit.codebook_gemm(x, p, isa="scalar"))
        y = lowbit.codebook_gemm(x, p, mode="int8", bias=bias, clamp=(-2, 3), isa=isa, threads=2)
        np.testing.assert_array_equal(y, int8_reference(x, idx, codebook, group, bias, (-2, 3)))


@pytest.mark.parametrize("isa", LEVELS)
def test_float_sums_are_the_stated_chain(isa):
    rng = np.random.default_rng(9)
    idx, codebook, _, w = make(rng, 21, 300, 4)
    x = rng.standard_normal((3, 300)).astype(np.float32)
    y = lowbit.codebook_gemm(x, lowbit.pack_indices(idx, 4), codebook, isa=isa)
    np.testing.assert_array_equal(y, chain(x, w))


@pytest.mark.parametrize("isa", LEVELS)
def test_gemm_large_with_threads(isa):
    rng = np.random.default_rng(5)
    for bits, per, m, n, k in [(2, "tensor", 20, 200, 300), (4, "columns", 70, 70, 260), (3, "channel", 6, 150, 213)]:
        idx, codebook, group, w = make(rng, n, k, bits, per, group_size=128)
        x, bias = rng.standard_normal((m, k)).astype(np.float32), rng.standard_normal(n).astype(np.float32)
        p = lowbit.pack_codebook(lowbit.pack_indices(idx, bits), codebook, group_size=group)
        first = None
        for threads in (1, 2, 3):
            y = lowbit.codebook_gemm(x, p, bias=bias, clamp=(-20, 25), isa=isa, threads=threads)
            first = y if first is None else first
            check_float(y, x, w, bias, (-20, 25))
            np.testing.assert_array_equal(y, first)
            y = lowbit.codebook_gemm(x, p, mode="int8", bias=bias, isa=isa, threads=threads)
            np.testing.assert_array_equal(y, int8_reference(x, idx, codebook, group, bias))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_int8_error_is_within_the_stated_bound(data):
    draw = lambda low, high: data.draw(st.integers(low, high))  # noqa: E731
    rng = np.random.default_rng(draw(0, 10_000))
    m, n, k, bits = draw(1, 5), draw(1, 40), draw(1, 80), draw(1, 8)
    per, isa = data.draw(st.sampled_from(GRANULARITIES)), data.draw(st.sampled_from(LEVELS))
    idx, codebook, group, w = make(rng, n, k, bits, per, group_size=draw(1, k))
    x = (rng.standard_normal((m, k)) * 10.0 ** draw(-3, 3)).astype(np.float32)
    packed = lowbit.pack_indices(idx, bits)
    y = lowbit.codebook_gemm(x, packed, codebook, "int8", group_size=group, isa=isa, threads=draw(1, 3))
    q, t = lowbit.quantize_codebook(codebook)
    assert np.all(np.abs(codebook - (q.reshape(-1, q.shape[-1]) * t[:, None]).reshape(q.shape)) <= 0.5001 * t.max())
    rows = rows_of(idx, codebook, group)
    s, w8 = np.abs(x).max(axis=1, keepdims=True).astype(float) / 127, weights(idx, q, group) * t[rows].astype(float)
    bound = 0.5001 * (s * np.abs(w8).sum(axis=1) + np.abs(x).astype(float) @ t[rows].T.astype(float))
    roundings = (len(t) + 3) * 2.0**-24 * (np.abs(x).astype(float) + s) @ (np.abs(w8) + t[rows]).T
    assert np.all(np.abs(y - x.astype(float) @ w.T.astype(float)) <= bound + roundings)


@pytest.mark.parametrize("isa", LEVELS)
def test_int8_integers_are_exact_and_scales_given(isa):
    rng = np.random.default_rng(6)
    codebook = rng.integers(-127, 128, 16).astype(np.float32)
    q, t = lowbit.quantize_codebook(codebook)
    np.testing.assert_array_equal(q, codebook)
    assert t == 1
    idx = rng.integers(0, 16, (37, 90), np.uint8)
    x = rng.integers(-127, 128, (4, 90)).astype(np.float32)
    packed = lowbit.pack_indices(idx, 4)
    y = lowbit.codebook_gemm(x, packed, codebook, "int8", x_scale=1, isa=isa)
    np.testing.assert_array_equal(y, x @ codebook[idx].T)
    x = (10 * rng.standard_normal((5, 90))).astype(np.float32)
    y = lowbit.codebook_gemm(x, packed, codebook, "int8", x_scale=0.05, isa=isa)
    np.testing.assert_array_equal(y, int8_reference(x, idx, codebook, None, x_scale=0.05))


@pytest.mark.parametrize("isa", LEVELS)
def test_special_values(isa):
    rng = np.random.default_rng(7)
    idx, codebook, _, _ = make(rng, 20, 70, 3)
    p = lowbit.pack_codebook(lowbit.pack_indices(idx, 3), codebook)
    x = rng.standard_normal((6, 70)).astype(np.float32)
    x[1, 69], x[2, 0], x[3], x[4] = np.nan, -np.inf, 0, 1e-33
    y = lowbit.codebook_gemm(x, p, mode="int8", clamp=(-1, 1), isa=isa)
    assert np.isnan(y[[1, 2]]).all() and not y[[3, 4]].any() and np.isfinite(y[[0, 5]]).all()
    y = lowbit.codebook_gemm(x, p, mode="int8", x_scale=0.01, isa=isa)
    assert np.isnan(y[1]).all() and np.isfinite(np.delete(y, 1, 0)).all()
    y = lowbit.codebook_gemm(x, p, clamp=(-1, 1), isa=isa)
    assert np.isnan(y[1]).all() and np.all(np.abs(np.delete(y, 1, 0)) <= 1)
    for shape in [(0, 5, 7), (3, 0, 7), (3, 5, 0)]:
        m, n, k = shape
        packed = lowbit.pack_indices(np.zeros((n, k), np.uint8), 3)
        for mode in ("float32", "int8"):
            y = lowbit.codebook_gemm(
                np.ones((m, k), np.float32), packed, codebook, mode, bias=np.ones(n, np.float32), isa=isa
            )
            np.testing.assert_array_equal(y, np.ones((m, n)))


def conv_reference(x, w, stride, padding, dilation, groups):
    """The windows as rows of a matrix, per group: (group, (n, oh, ow) pixels, kh * kw * c / groups)."""
    (sh, sw), (dh, dw), (top, left, bottom, right) = stride, dilation, padding
    x = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)))
    _, kh, kw, c = w.shape
    oh = (x.shape[1] - dh * (kh - 1) - 1) // sh + 1
    ow = (x.shape[2] - dw * (kw - 1) - 1) // sw + 1
    rows = [
        x[:, i * sh : i * sh + dh * (kh - 1) + 1 : dh, j * sw : j * sw + dw * (kw - 1) + 1 : dw, g * c : (g + 1) * c]
        for g in range(groups) for i in range(oh) for j in range(ow)
    ]  # fmt: skip
    windows = np.stack(rows).reshape(groups, oh * ow, len(x), -1).transpose(0, 2, 1, 3)
    return windows, (len(x), oh, ow, len(w))


CONVOLUTIONS = [  # h, w, c, oc, kernel, stride, padding, dilation, groups
    (7, 6, 5, 18, (3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1),
    (9, 8, 6, 9, (3, 2), (1, 2), (2, 0, 1, 3), (2, 1), 3),
    (5, 6, 8, 20, (1, 1), (1, 1), (0, 0, 0, 0), (1, 1), 1),
    (6, 5, 4, 4, (3, 3), (2, 2), (1, 1, 1, 1), (1, 1), 4),
]


@pytest.mark.parametrize("isa", LEVELS)
@pytest.mark.parametrize("per", GRANULARITIES)
@pytest.mark.parametrize("case", CONVOLUTIONS, ids=str)
def test_convolution(case, per, isa):
    h, w, c, oc, kernel, stride, padding, dilation, groups = case
    rng = np.random.default_rng(4)
    k = kernel[0] * kernel[1] * c // groups
    idx, codebook, group, dense = make(rng, oc, k, 3, per)
    x, bias = rng.standard_normal((2, h, w, c)).astype(np.float32), rng.standard_normal(oc).astype(np.float32)
    indices = lowbit.pack_indices(idx.reshape(oc, *kernel, c // groups), 3)
    p = lowbit.pack_conv_codebook(indices, codebook, groups, group_size=group)
    assert p.shape == (oc, *kernel, c // groups) and p.groups == groups
    windows, shape = conv_reference(x, dense.reshape(oc, *kernel, c // groups), stride, padding, dilation, groups)
    y, y8 = (
        lowbit.codebook_conv2d(
            x, p, None, stride, padding, dilation, mode=mode, bias=bias, clamp=(-3, 4), isa=isa, threads=2
        )
        for mode in ("float32", "int8")
    )
    assert y.shape == y8.shape == shape
    n = oc // groups
    for g in range(groups):
        of = slice(g * n, (g + 1) * n)
        book = codebook[of] if per == "channel" else codebook
        for b in range(2):
            rows = windows[g, b]
            check_float(y[b, ..., of].reshape(-1, n), rows, dense[of], bias[of], (-3, 4))
            peak = np.abs(x[b]).max()
            fake = np.concatenate([rows, np.full((1, k), peak)])  # a scale serves the whole image
            q = int8_reference_image(fake.astype(np.float32), idx[of], book, group, bias[of], (-3, 4), peak)[:-1]
            np.testing.assert_array_equal(y8[b, ..., of].reshape(-1, n), q)


def int8_reference_image(x, idx, codebook, group, bias, clamp, peak):
    """`int8_reference` with one peak for all rows."""
    one = np.float32
    q, t = lowbit.quantize_codebook(codebook)
    codes = np.clip(np.rint(x * (one(127) / peak)), -127, 127).astype(np.int64)
    total, w = np.zeros((len(x), len(idx)), one), weights(idx, q, group).astype(np.int64)
    for first in range(0, x.shape[1], group or x.shape[1]):
        columns = slice(first, first + (group or x.shape[1]))
        scale = t[first // group] if group else t if codebook.ndim == 2 else t[0]
        total += (codes[:, columns] @ w[:, columns].T).astype(one) * scale
    return np.clip(total * (peak / one(127)) + bias, *map(one, clamp))


@pytest.mark.parametrize("bits", [2, 3, 8])
def test_weights_from_chunks(bits):
    rng = np.random.default_rng(8)
    n, k = 37, 45
    idx, codebook, _, _ = make(rng, n, k, bits)
    x = rng.standard_normal((3, k)).astype(np.float32)
    whole = lowbit.codebook_gemm(x, lowbit.pack_indices(idx, bits), codebook)
    flat, packer = idx.reshape(-1), lowbit.CodebookPacker(n, k, bits, codebook)
    for number, first in enumerate(range(0, flat.size, 208)):
        chunk = flat[first : first + 208]
        if number % 2:
            packer.append(chunk)
        else:
            packer.append_packed(dense_bytes(chunk, bits), bits, chunk.size)
    np.testing.assert_array_equal(lowbit.codebook_gemm(x, packer.finish()), whole)
    with pytest.raises(ValueError, match="has been finished"):
        packer.finish()
    packer = lowbit.CodebookPacker(n, k, bits, codebook)
    packer.append(flat[:100])
    with pytest.raises(ValueError, match=rf"100 indices came, n \* k is {n * k}"):
        packer.finish()
    with pytest.raises(ValueError, match=rf"100 indices and {n * k} more"):
        packer.append(flat)


def before_guard_page(values):
    """A copy of values whose last byte is the last readable one: reading past its end is a crash."""
    page = mmap.PAGESIZE
    room = -(-max(values.nbytes, 1) // page) * page
    memory = mmap.mmap(-1, room + page)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    assert ctypes.CDLL(None, use_errno=True).mprotect(ctypes.c_void_p(start + room), ctypes.c_size_t(page), 0) == 0
    array = np.frombuffer(memory, values.dtype, values.size, room - values.nbytes).reshape(values.shape)
    array[...] = values
    return array


@pytest.mark.parametrize("isa", LEVELS)
@pytest.mark.parametrize("bits", BITS)
def test_nothing_is_read_past_the_end(bits, isa):
    rng = np.random.default_rng(bits)
    for n, k in [(1, 1), (1, 17), (3, 21), (1, 64), (2, 96), (5, 129), (1, 130), (16, 33)]:
        idx, codebook, _, w = make(rng, n, k, bits)
        p = lowbit.pack_indices(idx, bits)
        guarded = lowbit.PackedIndices(before_guard_page(p.data), p.shape, bits)
        out = before_guard_page(np.zeros((n, k), np.float32))
        lowbit.codebook_decode(guarded, codebook, isa=isa, out=out)
        np.testing.assert_array_equal(out, w)
        np.testing.assert_array_equal(lowbit.unpack_indices(guarded, isa=isa, out=before_guard_page(idx * 0)), idx)
        x = rng.standard_normal((5, k)).astype(np.float32)
        for mode in ("float32", "int8"):
            out, bias = before_guard_page(np.zeros((5, n), np.float32)), before_guard_page(np.zeros(n, np.float32))
            args = before_guard_page(x), guarded, before_guard_page(codebook)
            y = lowbit.codebook_gemm(*args, mode, bias=bias, isa=isa, out=out)
            np.testing.assert_array_equal(y, lowbit.codebook_gemm(x, p, codebook, mode, isa=isa))


def test_errors_name_what_and_where():
    idx = np.array([[0, 1, 2], [3, 5, 0]], np.uint8)
    book, x = np.arange(8, dtype=np.float32), np.ones((2, 3), np.float32)
    with pytest.raises(ValueError, match="index 5 at 4 needs more than 2 bits"):
        lowbit.pack_indices(idx, 2)
    with pytest.raises(ValueError, match="bits is 9, must be 1 to 8"):
        lowbit.pack_indices(idx, 9)
    with pytest.raises(TypeError, match="indices is int64, must be uint8"):
        lowbit.pack_indices(idx.astype(int), 3)
    p = lowbit.pack_indices(idx, 3)
    for call in (lambda c: lowbit.codebook_decode(p, c), lambda c: lowbit.codebook_gemm(x, p, c)):
        with pytest.raises(ValueError, match=r"index 5 at \(1, 1\) is beyond the codebook of 5"):
            call(book[:5])
        with pytest.raises(ValueError, match="the codebook has 9 entries, 3 bits allow 1 to 8"):
            call(np.arange(9, dtype=np.float32))
        with pytest.raises(ValueError, match="codebook entry 3 of row 0 is nan, must be finite"):
            call(np.where(book == 3, np.nan, book).astype(np.float32))
        with pytest.raises(TypeError, match="codebook is float64, must be float32"):
            call(book.astype(float))
        with pytest.raises(ValueError, match=r"codebook is \(3, 8\), 2 output channels need 2 rows"):
            call(np.ones((3, 8), np.float32))
        with pytest.raises(ValueError, match="codebook has 3 axes, must have 1 or 2"):
            call(np.ones((1, 1, 8), np.float32))
    with pytest.raises(ValueError, match=r"codebook is \(8,\), 3 columns in groups of 2 need 2 rows"):
        lowbit.codebook_decode(p, book, group_size=2)
    with pytest.raises(ValueError, match="group_size is 0, must be at least 1"):
        lowbit.codebook_decode(p, np.ones((1, 8), np.float32), group_size=0)
    with pytest.raises(ValueError, match="integers within"):
        lowbit.codebook_decode(p, book + 0.5, "int8")
    with pytest.raises(ValueError, match="dtype 'int16' is not float32 or int8"):
        lowbit.codebook_decode(p, book, "int16")
    with pytest.raises(ValueError, match="x has k = 4, p has k = 3"):
        lowbit.codebook_gemm(np.ones((2, 4), np.float32), p, book)
    with pytest.raises(ValueError, match="mode 'int4' is not one of"):
        lowbit.codebook_gemm(x, p, book, "int4")
    with pytest.raises(ValueError, match="x_scale is 0, must be positive"):
        lowbit.codebook_gemm(x, p, book, "int8", x_scale=0)
    with pytest.raises(ValueError, match="x_scale is for mode int8"):
        lowbit.codebook_gemm(x, p, book, x_scale=1)
    with pytest.raises(ValueError, match=r"bias is \(3,\), the output has 2 channels"):
        lowbit.codebook_gemm(x, p, book, bias=np.ones(3, np.float32))
    with pytest.raises(ValueError, match="clamp from 2"):
        lowbit.codebook_gemm(x, p, book, clamp=(2, 1))
    with pytest.raises(ValueError, match="packed indices need a codebook"):
        lowbit.codebook_gemm(x, p)
    with pytest.raises(ValueError, match="p carries its own codebook"):
        lowbit.codebook_gemm(x, lowbit.pack_codebook(p, book), book)
    with pytest.raises(TypeError, match="x is float64, must be float32"):
        lowbit.codebook_gemm(x.astype(float), p, book)
    with pytest.raises(ValueError, match="take 3 bytes, data is"):
        lowbit.PackedIndices(np.zeros(4, np.uint8), (2, 3), 3)
    with pytest.raises(ValueError, match="133145 columns of one codebook, int32 sums allow 133144"):
        lowbit.pack_codebook(lowbit.pack_indices(np.zeros((1, 133145), np.uint8), 1), book[:2])
    with pytest.raises(ValueError, match="out must be in C order"):
        lowbit.codebook_decode(p, book, out=np.zeros((2, 3), np.float32, order="F"))
    image = np.ones((1, 4, 4, 3), np.float32)
    kernel = lowbit.pack_indices(np.zeros((4, 2, 2, 3), np.uint8), 3)
    with pytest.raises(ValueError, match=r"p is \(2, 3\), must be"):
        lowbit.codebook_conv2d(image, p, book)
    with pytest.raises(ValueError, match=r"x has 2 channels, p \(with groups\) has 3"):
        lowbit.codebook_conv2d(image[..., :2], kernel, book)
    with pytest.raises(ValueError, match="kernel's height is 7, the padded image's 4"):
        lowbit.codebook_conv2d(image, kernel, book, dilation=(6, 1))
