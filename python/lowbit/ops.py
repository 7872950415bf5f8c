"""The kernels on NumPy arrays: shapes, dtypes and friendly errors around `lowbit._core`.

Arrays are NumPy's or anything on the CPU with ``__dlpack__`` or ``__array__``, which is viewed, not copied. A wrong
dtype is a TypeError. ``out=`` is the caller's NumPy array, in C order.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from lowbit import _core
from lowbit._core import PackedConvF32, PackedConvI8, PackedDepthwiseI8, PackedF32, PackedI8
from lowbit.arguments import (
    Array,
    FloatArray,
    Padding,
    Size,
    dtype_number,
    optional_view,
    pair,
    rounding_number,
    sides,
    view,
)


def pack_f32(b: npt.ArrayLike) -> PackedF32:
    """Float weights in the order `gemm_f32` reads them, made once.

    Args:
        b: (k, n) float32, any strides (so `w.T` of an (n, k) weight costs no copy of its own).

    Returns:
        The packed weights; `k`, `n` and `nbytes` are attributes.

    Raises:
        TypeError: where b is not float32.
        ValueError: where b is not two-dimensional.

    Example:
        >>> import numpy as np, lowbit
        >>> lowbit.pack_f32(np.ones((3, 20), np.float32)).n
        20
    """
    return _core.pack_f32(view(b))


def gemm_f32(
    a: npt.ArrayLike,
    b: npt.ArrayLike | PackedF32,
    *,
    bias: npt.ArrayLike | None = None,
    residual: npt.ArrayLike | None = None,
    clamp: tuple[float, float] | None = None,
    isa: str | None = None,
    threads: int | None = None,
    out: Array | None = None,
) -> FloatArray:
    """Float matrix product, for layers kept in float: clamp(a @ b + bias + residual).

    The order of summation is not fixed. With u = 2^-24 the result is within (k + 2) u / (1 - (k + 2) u) times
    (sum |a| |b| + |bias| + |residual|) of the exact one (Higham, Accuracy and Stability of Numerical Algorithms,
    section 3.1), so levels agree within twice that, and not bit for bit.

    Args:
        a: (m, k) float32.
        b: (k, n) float32, or `pack_f32(b)`.
        bias: (n,) float32, added to every row.
        residual: (m, n) float32, added after the bias.
        clamp: least and greatest value of the result, such as (0, inf) for a ReLU.
        isa: level to run at (`lowbit.isas()`); the best by default.
        threads: number of threads; `lowbit.num_threads()` by default.
        out: receives the result.

    Returns:
        (m, n) float32.

    Raises:
        TypeError: where an array, ``out`` too, is not float32.
        ValueError: where shapes disagree, or the level is unknown or not on this machine.

    Example:
        >>> import numpy as np, lowbit
        >>> a = np.arange(6, dtype=np.float32).reshape(2, 3)
        >>> lowbit.gemm_f32(a, np.eye(3, dtype=np.float32), clamp=(1, 4))
        array([[1., 1., 2.],
               [3., 4., 4.]], dtype=float32)
    """
    packed = b if isinstance(b, PackedF32) else pack_f32(b)
    return _core.gemm_f32(view(a), packed, optional_view(bias), optional_view(residual), clamp, out, isa, threads)


def pack_conv_f32(w: npt.ArrayLike, groups: int = 1) -> PackedConvF32:
    """Float convolution weights in the order `conv2d_f32` reads them, made once.

    Args:
        w: (oc, kh, kw, c / groups) float32.
        groups: number of groups; equal to c and oc for a depthwise convolution.

    Returns:
        The packed weights; `shape`, `groups` and `nbytes` are attributes.

    Raises:
        TypeError: where w is not float32.
        ValueError: where w is not four-dimensional or groups do not divide the channels.

    Example:
        >>> import numpy as np, lowbit
        >>> lowbit.pack_conv_f32(np.ones((8, 3, 3, 1), np.float32), groups=8).shape
        (8, 3, 3, 1)
    """
    return _core.pack_conv_f32(view(w), groups)


def conv2d_f32(
    x: npt.ArrayLike,
    w: npt.ArrayLike | PackedConvF32,
    stride: Size = 1,
    padding: Padding = 0,
    dilation: Size = 1,
    groups: int = 1,
    *,
    bias: npt.ArrayLike | None = None,
    residual: npt.ArrayLike | None = None,
    clamp: tuple[float, float] | None = None,
    isa: str | None = None,
    threads: int | None = None,
    out: Array | None = None,
) -> FloatArray:
    """Float convolution over NHWC images, for layers kept in float: clamp(conv(x, w) + bias + residual).

    Accuracy as in `gemm_f32`, with k = kh * kw * c / groups.

    Args:
        x: (batch, h, w, c) float32.
        w: (oc, kh, kw, c / groups) float32, or `pack_conv_f32(w, groups)`, which carries its own groups.
        stride: one number or (height, width).
        padding: zeros around the image: one number, (height, width) or (top, left, bottom, right).
        dilation: one number or (height, width).
        groups: number of groups.
        bias: (oc,) float32.
        residual: the result's shape, float32, added after the bias.
        clamp: least and greatest value of the result.
        isa: level to run at (`lowbit.isas()`); the best by default.
        threads: number of threads; `lowbit.num_threads()` by default.
        out: receives the result.

    Returns:
        (batch, out_h, out_w, oc) float32.

    Raises:
        TypeError: where an array, ``out`` too, is not float32.
        ValueError: where shapes disagree, the window does not fit, or the level is unknown or not on this machine.

    Example:
        >>> import numpy as np, lowbit
        >>> x = np.ones((1, 3, 3, 1), np.float32)
        >>> lowbit.conv2d_f32(x, np.ones((1, 3, 3, 1), np.float32), padding=1)[0, :, :, 0]
        array([[4., 6., 4.],
               [6., 9., 6.],
               [4., 6., 4.]], dtype=float32)
    """
    name = "conv2d_f32"
    packed = w if isinstance(w, PackedConvF32) else pack_conv_f32(w, groups)
    return _core.conv2d_f32(
        view(x), packed, pair(f"{name}: stride", stride), sides(name, padding), pair(f"{name}: dilation", dilation),
        optional_view(bias), optional_view(residual), clamp, out, isa, threads,
    )  # fmt: skip


def requantize(
    acc: npt.ArrayLike,
    scale: npt.ArrayLike,
    zero_point: int = 0,
    bias: npt.ArrayLike | None = None,
    dtype: npt.DTypeLike = "int8",
    rounding: str = "nearest_even",
    *,
    clamp: tuple[float, float] | None = None,
    residual: npt.ArrayLike | None = None,
    residual_scale: float | None = None,
    residual_zero_point: int = 0,
    isa: str | None = None,
    threads: int | None = None,
    out: Array | None = None,
) -> Array:
    """Accumulators to codes or float32: ``clamp(zero_point + round((acc + bias) * scale + residual))``.

    ``"nearest_even"`` multiplies in float32 and rounds half to even. ``"gemmlowp"`` (Jacob et al. 2018, section 2.2)
    multiplies by a 32-bit fixed-point number: doubling and rounding high multiply, then rounding shift. ``"single"``
    rounds that product once. The formulas are in ``lowbit/requantize.h``.

    Args:
        acc: int32, any shape; channels are the last axis.
        scale: one multiplier or one per channel, finite and > 0 (input scale * weight scale / output scale).
        zero_point: of the result.
        bias: int32 per channel, added to ``acc`` (wrapping); for a float32 result also float32, added after the scale.
        dtype: ``"int8"``, ``"uint8"`` or ``"float32"``.
        rounding: ``"nearest_even"``, ``"gemmlowp"`` or ``"single"``; not used for float32.
        clamp: smallest and largest result (a fused ReLU or ReLU6).
        residual: array of the result's shape, added before rounding: int8 or uint8, or float32 for a float32 result.
        residual_scale: the residual's scale / output scale; default 1.
        residual_zero_point: the residual's zero point.
        isa: level to run.
        threads: thread count.
        out: receives the result.

    Returns:
        Array of ``acc``'s shape and type ``dtype``.

    Raises:
        TypeError: a wrong dtype.
        ValueError: shapes that disagree, a scale that is not finite and > 0, a clamp that leaves no value.

    Example:
        >>> import numpy as np
        >>> lowbit.requantize(np.array([[10, 11, 30, 4000]], np.int32), 0.25)
        array([[  2,   3,   8, 127]], dtype=int8)
        >>> lowbit.requantize(np.array([-12, 12], np.int32), 0.125, rounding="gemmlowp")  # halves away from zero
        array([-2,  2], dtype=int8)
    """
    name = "requantize"
    return _core.requantize(
        view(acc), scale, bias, zero_point, dtype_number(name, "dtype", dtype), rounding_number(name, rounding), clamp,
        optional_view(residual), residual_scale, residual_zero_point, out, isa, threads,
    )  # fmt: skip


def pack_i8(b: npt.ArrayLike) -> PackedI8:
    """Weights of `gemm_i8` in the kernels' tiled order, made once and shared by all levels and threads.

    Args:
        b: (k, n) int8 or uint8, any strides.

    Example:
        >>> import numpy as np
        >>> lowbit.pack_i8(np.ones((3, 5), np.int8)).shape
        (3, 5)
    """
    return _core.pack_i8(view(b))


def gemm_i8(
    a: npt.ArrayLike,
    b: npt.ArrayLike | PackedI8,
    a_zero_point: int = 0,
    b_zero_point: int = 0,
    *,
    scale: npt.ArrayLike | None = None,
    bias: npt.ArrayLike | None = None,
    zero_point: int = 0,
    out_dtype: npt.DTypeLike = "int32",
    rounding: str = "nearest_even",
    clamp: tuple[float, float] | None = None,
    residual: npt.ArrayLike | None = None,
    residual_scale: float | None = None,
    residual_zero_point: int = 0,
    isa: str | None = None,
    threads: int | None = None,
    out: Array | None = None,
) -> Array:
    """Matrix product ``(a - a_zero_point) @ (b - b_zero_point)``, exact in int32, with a fused epilogue.

    Args:
        a: (m, k) int8 or uint8.
        b: (k, n) int8 or uint8, or `pack_i8` of it.
        a_zero_point: of ``a``.
        b_zero_point: of ``b``.
        scale: multiplier of the sums, one or one per column; default 1. Not for int32.
        bias: (n,) int32, added to the sums before the scale; for float32 results also float32, added after it.
        zero_point: of an int8 or uint8 result.
        out_dtype: ``"int32"``, ``"float32"``, ``"int8"`` or ``"uint8"``.
        rounding: as in `requantize`.
        clamp: smallest and largest result.
        residual: (m, n), added as in `requantize`.
        residual_scale: as in `requantize`.
        residual_zero_point: as in `requantize`.
        isa: level to run.
        threads: thread count.
        out: receives the result.

    Returns:
        (m, n) of ``out_dtype``; the same bits at every level and thread count.

    Raises:
        TypeError: a wrong dtype.
        ValueError: shapes that disagree; ``k`` beyond what int32 holds for these types and zero points.

    Example:
        >>> import numpy as np
        >>> a, b = np.array([[1, 2, 3]], np.uint8), np.array([[1, -1], [2, -2], [3, 4]], np.int8)
        >>> lowbit.gemm_i8(a, b)
        array([[14,  7]], dtype=int32)
        >>> lowbit.gemm_i8(a, lowbit.pack_i8(b), scale=0.5, zero_point=128, out_dtype="uint8")
        array([[135, 132]], dtype=uint8)
    """
    name = "gemm_i8"
    return _core.gemm_i8(
        view(a), b if isinstance(b, PackedI8) else view(b), a_zero_point, b_zero_point, scale, bias, zero_point,
        dtype_number(name, "out_dtype", out_dtype), rounding_number(name, rounding), clamp,
        optional_view(residual), residual_scale, residual_zero_point, out, isa, threads,
    )  # fmt: skip


def pack_conv2d_i8(w: npt.ArrayLike, stride: Size = 1, dilation: Size = 1, groups: int = 1) -> PackedConvI8:
    """Weights of `conv2d_i8` in the kernels' tiled order, for one stride, dilation and group count.

    Args:
        w: (oc, kh, kw, c / groups) int8 or uint8.
        stride: one number, or (vertical, horizontal).
        dilation: likewise.
        groups: divides ``c`` and ``oc``.

    Example:
        >>> import numpy as np
        >>> w = lowbit.pack_conv2d_i8(np.ones((4, 3, 3, 2), np.int8))
        >>> lowbit.conv2d_i8(np.ones((1, 5, 5, 2), np.uint8), w, padding=1).shape
        (1, 5, 5, 4)
    """
    name = "pack_conv2d_i8"
    return _core.pack_conv2d_i8(view(w), pair(f"{name}: stride", stride), pair(f"{name}: dilation", dilation), groups)


def conv2d_i8(
    x: npt.ArrayLike,
    w: npt.ArrayLike | PackedConvI8,
    stride: Size = 1,
    padding: Padding = 0,
    dilation: Size = 1,
    groups: int = 1,
    x_zero_point: int = 0,
    w_zero_point: int = 0,
    *,
    scale: npt.ArrayLike | None = None,
    bias: npt.ArrayLike | None = None,
    zero_point: int = 0,
    out_dtype: npt.DTypeLike = "int32",
    rounding: str = "nearest_even",
    clamp: tuple[float, float] | None = None,
    residual: npt.ArrayLike | None = None,
    residual_scale: float | None = None,
    residual_zero_point: int = 0,
    isa: str | None = None,
    threads: int | None = None,
    out: Array | None = None,
) -> Array:
    """2-d convolution (cross-correlation) of NHWC images with OHWI weights, exact in int32, with a fused epilogue.

    Padded pixels hold ``x_zero_point`` exactly, so they add nothing. Int8 weights with one channel per group and no
    zero point of their own go to `depthwise_conv2d_i8`.

    Args:
        x: (n, h, w, c) int8 or uint8; may be a channel slice of a wider array.
        w: (oc, kh, kw, c / groups) int8 or uint8, or `pack_conv2d_i8` of it (then ``stride``, ``dilation`` and
            ``groups`` are those it was packed for, and the arguments are not used).
        stride: one number, or (vertical, horizontal).
        padding: one number, (vertical, horizontal), or (top, left, bottom, right).
        dilation: one number, or (vertical, horizontal).
        groups: divides ``c`` and ``oc``.
        x_zero_point: of ``x``.
        w_zero_point: of ``w``.
        scale: multiplier of the sums, one or one per output channel; default 1. Not for int32.
        bias: (oc,) as in `gemm_i8`.
        zero_point: of an int8 or uint8 result.
        out_dtype: ``"int32"``, ``"float32"``, ``"int8"`` or ``"uint8"``.
        rounding: as in `requantize`.
        clamp: smallest and largest result.
        residual: an array of the result's shape, added as in `requantize`.
        residual_scale: as in `requantize`.
        residual_zero_point: as in `requantize`.
        isa: level to run.
        threads: thread count.
        out: receives the result.

    Returns:
        (n, oh, ow, oc) of ``out_dtype``; the same bits at every level and thread count.

    Raises:
        TypeError: a wrong dtype.
        ValueError: shapes that disagree, a window larger than the padded image, sums that int32 may not hold.

    Example:
        >>> import numpy as np
        >>> x, w = np.full((1, 3, 3, 1), 2, np.uint8), np.ones((1, 3, 3, 1), np.int8)
        >>> lowbit.conv2d_i8(x, w, padding=1)[0, :, :, 0]
        array([[ 8, 12,  8], [12, 18, 12], [ 8, 12,  8]], dtype=int32)
    """
    if not isinstance(w, PackedConvI8):
        w = view(w)
        one_channel_each = groups > 1 and w.ndim == 4 and (w.shape[0], w.shape[3]) == (groups, 1)
        if one_channel_each and w.dtype == np.int8 and w_zero_point == 0:
            return depthwise_conv2d_i8(
                x, w[..., 0].transpose(1, 2, 0), stride, padding, dilation, x_zero_point, scale=scale, bias=bias,
                zero_point=zero_point, out_dtype=out_dtype, rounding=rounding, clamp=clamp, residual=residual,
                residual_scale=residual_scale, residual_zero_point=residual_zero_point, isa=isa, threads=threads,
                out=out,
            )  # fmt: skip
    name = "conv2d_i8"
    packed = w if isinstance(w, PackedConvI8) else pack_conv2d_i8(w, stride, dilation, groups)
    return _core.conv2d_i8(
        view(x), packed, sides(name, padding), x_zero_point, w_zero_point, scale, bias, zero_point,
        dtype_number(name, "out_dtype", out_dtype), rounding_number(name, rounding), clamp,
        optional_view(residual), residual_scale, residual_zero_point, out, isa, threads,
    )  # fmt: skip


def pack_depthwise_i8(w: npt.ArrayLike) -> PackedDepthwiseI8:
    """Weights of `depthwise_conv2d_i8` in the kernels' order, made once and shared by all levels and threads.

    Args:
        w: (kh, kw, c) int8, any strides (so ``w_ohwi[..., 0].transpose(1, 2, 0)`` does).

    Raises:
        TypeError: where w is not int8.
        ValueError: where w is not three-dimensional.

    Example:
        >>> import numpy as np
        >>> lowbit.pack_depthwise_i8(np.ones((3, 3, 32), np.int8)).shape
        (3, 3, 32)
    """
    return _core.pack_depthwise_i8(view(w))


def depthwise_conv2d_i8(
    x: npt.ArrayLike,
    w: npt.ArrayLike | PackedDepthwiseI8,
    stride: Size = 1,
    padding: Padding = 0,
    dilation: Size = 1,
    x_zero_point: int = 0,
    *,
    scale: npt.ArrayLike | None = None,
    bias: npt.ArrayLike | None = None,
    zero_point: int = 0,
    out_dtype: npt.DTypeLike = "int32",
    rounding: str = "nearest_even",
    clamp: tuple[float, float] | None = None,
    residual: npt.ArrayLike | None = None,
    residual_scale: float | None = None,
    residual_zero_point: int = 0,
    isa: str | None = None,
    threads: int | None = None,
    out: Array | None = None,
) -> Array:
    """Depthwise convolution of NHWC images, every channel with its own window, exact in int32, with a fused epilogue.

    Any kernel size, stride and dilation; 3x3 and 5x5 with stride 1 or 2 and 8-bit results are the fast ones. Padded
    pixels hold ``x_zero_point`` exactly.

    Args:
        x: (n, h, w, c) int8 or uint8.
        w: (kh, kw, c) int8, symmetric, or `pack_depthwise_i8` of it.
        stride: one number, or (vertical, horizontal).
        padding: one number, (vertical, horizontal), or (top, left, bottom, right).
        dilation: one number, or (vertical, horizontal).
        x_zero_point: of ``x``.
        scale: multiplier of the sums, one or one per channel; default 1. Not for int32.
        bias: (c,) as in `gemm_i8`.
        zero_point: of an int8 or uint8 result.
        out_dtype: ``"int32"``, ``"float32"``, ``"int8"`` or ``"uint8"``.
        rounding: as in `requantize`.
        clamp: smallest and largest result.
        residual: an array of the result's shape, added as in `requantize`.
        residual_scale: as in `requantize`.
        residual_zero_point: as in `requantize`.
        isa: level to run.
        threads: thread count.
        out: receives the result.

    Returns:
        (n, oh, ow, c) of ``out_dtype``; the same bits at every level and thread count.

    Raises:
        TypeError: a wrong dtype.
        ValueError: shapes that disagree, a window larger than the padded image, sums that int32 may not hold.

    Example:
        >>> import numpy as np
        >>> x, w = np.full((1, 3, 3, 2), 2, np.uint8), np.ones((3, 3, 2), np.int8)
        >>> lowbit.depthwise_conv2d_i8(x, w, padding=1)[0, :, :, 1]
        array([[ 8, 12,  8], [12, 18, 12], [ 8, 12,  8]], dtype=int32)
    """
    name = "depthwise_conv2d_i8"
    packed = w if isinstance(w, PackedDepthwiseI8) else pack_depthwise_i8(w)
    return _core.depthwise_conv2d_i8(
        view(x), packed, pair(f"{name}: stride", stride), sides(name, padding), pair(f"{name}: dilation", dilation),
        x_zero_point, scale, bias, zero_point, dtype_number(name, "out_dtype", out_dtype),
        rounding_number(name, rounding), clamp, optional_view(residual), residual_scale, residual_zero_point, out, isa,
        threads,
    )  # fmt: skip
