"""The kernels on NumPy arrays: shapes, dtypes and friendly errors around `lowbit._core`."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from lowbit import _core
from lowbit._core import PackedConvI8, PackedDepthwiseI8, PackedI8

Array: TypeAlias = npt.NDArray[Any]
FloatArray: TypeAlias = npt.NDArray[np.float32]
Size: TypeAlias = int | tuple[int, int]
Padding: TypeAlias = int | tuple[int, int] | tuple[int, int, int, int]


def _array(name: str, value: npt.ArrayLike, *dtypes: type[np.generic]) -> npt.NDArray[Any]:
    """`value` in C order, its dtype one of `dtypes`: a wrong dtype is an error, never a silent copy."""
    array = np.asarray(value)
    if array.dtype not in dtypes:
        wanted = " or ".join(np.dtype(d).name for d in dtypes)
        raise TypeError(f"{name} must be {wanted}, it is {array.dtype}")
    return np.ascontiguousarray(array) if array.ndim else array


def _optional(name: str, value: npt.ArrayLike | None, *dtypes: type[np.generic]) -> npt.NDArray[Any] | None:
    return None if value is None else _array(name, value, *dtypes)


def _pair(name: str, value: Size) -> tuple[int, int]:
    """(height, width) of a stride or dilation given as one number or two."""
    pair = (value, value) if isinstance(value, int | np.integer) else tuple(value)
    if len(pair) != 2:
        raise ValueError(f"{name} must be one number or two, it is {value}")
    return int(pair[0]), int(pair[1])


def _padding(value: Padding) -> tuple[int, int, int, int]:
    """(top, left, bottom, right) of a padding given as one number, (height, width) or all four."""
    sides = (value, value) if isinstance(value, int | np.integer) else tuple(value)
    if len(sides) == 2:
        sides = (*sides, *sides)
    if len(sides) != 4:
        raise ValueError(f"padding must be one number, (height, width) or (top, left, bottom, right), it is {value}")
    return int(sides[0]), int(sides[1]), int(sides[2]), int(sides[3])


# Numbers of lowbit::DType and lowbit::Rounding.
_DTYPES: dict[Any, int] = {
    spelling: number
    for number, name in enumerate(("float32", "int8", "uint8", "int32"))
    for spelling in (name, np.dtype(name), np.dtype(name).type)
}
_ROUNDINGS = {"nearest_even": 0, "gemmlowp": 1, "single": 2}


def _view(x: Any) -> Array:
    """An array as it is, or a view of anything else through DLPack or ``__array__``."""
    if isinstance(x, np.ndarray):
        return x
    if hasattr(x, "__dlpack__"):
        return np.from_dlpack(x)
    return np.asarray(x)


def _dtype(function: str, name: str, dtype: npt.DTypeLike) -> int:
    number = _DTYPES.get(dtype)
    if number is None:
        raise ValueError(f"{function}: {name} {dtype!r} is not one of float32, int8, uint8, int32")
    return number


def _rounding(function: str, rounding: str) -> int:
    number = _ROUNDINGS.get(rounding)
    if number is None:
        raise ValueError(f"{function}: rounding {rounding!r} is not one of {', '.join(_ROUNDINGS)}")
    return number


def pack_f32(b: npt.ArrayLike) -> _core.PackedF32:
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
    array = np.asarray(b)
    if array.dtype != np.float32:
        raise TypeError(f"pack_f32: b must be float32, it is {array.dtype}")
    return _core.pack_f32(array)


def gemm_f32(
    a: npt.ArrayLike,
    b: npt.ArrayLike | _core.PackedF32,
    *,
    bias: npt.ArrayLike | None = None,
    residual: npt.ArrayLike | None = None,
    clamp: tuple[float, float] = (-np.inf, np.inf),
    isa: str | None = None,
    threads: int | None = None,
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

    Returns:
        (m, n) float32.

    Raises:
        TypeError: where an array is not float32.
        ValueError: where shapes disagree, or the level is unknown or not on this machine.

    Example:
        >>> import numpy as np, lowbit
        >>> a = np.arange(6, dtype=np.float32).reshape(2, 3)
        >>> lowbit.gemm_f32(a, np.eye(3, dtype=np.float32), clamp=(1, 4))
        array([[1., 1., 2.],
               [3., 4., 4.]], dtype=float32)
    """
    packed = b if isinstance(b, _core.PackedF32) else pack_f32(b)
    return _core.gemm_f32(
        _array("gemm_f32: a", a, np.float32),
        packed,
        _optional("gemm_f32: bias", bias, np.float32),
        _optional("gemm_f32: residual", residual, np.float32),
        clamp[0],
        clamp[1],
        isa,
        threads,
    )


def pack_conv_f32(w: npt.ArrayLike, groups: int = 1) -> _core.PackedConvF32:
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
    return _core.pack_conv_f32(_array("pack_conv_f32: w", w, np.float32), groups)


def conv2d_f32(
    x: npt.ArrayLike,
    w: npt.ArrayLike | _core.PackedConvF32,
    stride: Size = 1,
    padding: Padding = 0,
    dilation: Size = 1,
    groups: int = 1,
    *,
    bias: npt.ArrayLike | None = None,
    residual: npt.ArrayLike | None = None,
    clamp: tuple[float, float] = (-np.inf, np.inf),
    isa: str | None = None,
    threads: int | None = None,
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

    Returns:
        (batch, out_h, out_w, oc) float32.

    Raises:
        TypeError: where an array is not float32.
        ValueError: where shapes disagree, the window does not fit, or the level is unknown or not on this machine.

    Example:
        >>> import numpy as np, lowbit
        >>> x = np.ones((1, 3, 3, 1), np.float32)
        >>> lowbit.conv2d_f32(x, np.ones((1, 3, 3, 1), np.float32), padding=1)[0, :, :, 0]
        array([[4., 6., 4.],
               [6., 9., 6.],
               [4., 6., 4.]], dtype=float32)
    """
    packed = w if isinstance(w, _core.PackedConvF32) else pack_conv_f32(w, groups)
    return _core.conv2d_f32(
        _array("conv2d_f32: x", x, np.float32),
        packed,
        _pair("conv2d_f32: stride", stride),
        _padding(padding),
        _pair("conv2d_f32: dilation", dilation),
        _optional("conv2d_f32: bias", bias, np.float32),
        _optional("conv2d_f32: residual", residual, np.float32),
        clamp[0],
        clamp[1],
        isa,
        threads,
    )


def requantize(
    acc: Array,
    scale: npt.ArrayLike,
    zero_point: int = 0,
    bias: npt.ArrayLike | None = None,
    dtype: npt.DTypeLike = "int8",
    rounding: str = "nearest_even",
    *,
    clamp: tuple[float, float] | None = None,
    residual: Array | None = None,
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
    return _core.requantize(
        _view(acc), scale, bias, zero_point, _dtype("requantize", "dtype", dtype), _rounding("requantize", rounding),
        clamp, None if residual is None else _view(residual), residual_scale, residual_zero_point, out, isa, threads,
    )  # fmt: skip


def pack_i8(b: Array) -> PackedI8:
    """Weights of :func:`gemm_i8` in the kernels' tiled order, made once and shared by all levels and threads.

    Args:
        b: (k, n) int8 or uint8, any strides.

    Example:
        >>> import numpy as np
        >>> lowbit.pack_i8(np.ones((3, 5), np.int8)).shape
        (3, 5)
    """
    return _core.pack_i8(_view(b))


def gemm_i8(
    a: Array,
    b: Array | PackedI8,
    a_zero_point: int = 0,
    b_zero_point: int = 0,
    *,
    scale: npt.ArrayLike | None = None,
    bias: npt.ArrayLike | None = None,
    zero_point: int = 0,
    out_dtype: npt.DTypeLike = "int32",
    rounding: str = "nearest_even",
    clamp: tuple[float, float] | None = None,
    residual: Array | None = None,
    residual_scale: float | None = None,
    residual_zero_point: int = 0,
    isa: str | None = None,
    threads: int | None = None,
    out: Array | None = None,
) -> Array:
    """Matrix product ``(a - a_zero_point) @ (b - b_zero_point)``, exact in int32, with a fused epilogue.

    Args:
        a: (m, k) int8 or uint8.
        b: (k, n) int8 or uint8, or :func:`pack_i8` of it.
        a_zero_point: of ``a``.
        b_zero_point: of ``b``.
        scale: multiplier of the sums, one or one per column; default 1. Not for int32.
        bias: (n,) int32, added to the sums before the scale; for float32 results also float32, added after it.
        zero_point: of an int8 or uint8 result.
        out_dtype: ``"int32"``, ``"float32"``, ``"int8"`` or ``"uint8"``.
        rounding: as in :func:`requantize`.
        clamp: smallest and largest result.
        residual: (m, n), added as in :func:`requantize`.
        residual_scale: as in :func:`requantize`.
        residual_zero_point: as in :func:`requantize`.
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
    return _core.gemm_i8(
        _view(a), b if isinstance(b, PackedI8) else _view(b), a_zero_point, b_zero_point, scale, bias, zero_point,
        _dtype("gemm_i8", "out_dtype", out_dtype), _rounding("gemm_i8", rounding), clamp,
        None if residual is None else _view(residual), residual_scale, residual_zero_point, out, isa, threads,
    )  # fmt: skip


def pack_conv2d_i8(w: Array, stride: Size = 1, dilation: Size = 1, groups: int = 1) -> PackedConvI8:
    """Weights of :func:`conv2d_i8` in the kernels' tiled order, for one stride, dilation and group count.

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
    strides, dilations = _pair("pack_conv2d_i8: stride", stride), _pair("pack_conv2d_i8: dilation", dilation)
    return _core.pack_conv2d_i8(_view(w), strides, dilations, groups)


def conv2d_i8(
    x: Array,
    w: Array | PackedConvI8,
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
    residual: Array | None = None,
    residual_scale: float | None = None,
    residual_zero_point: int = 0,
    isa: str | None = None,
    threads: int | None = None,
    out: Array | None = None,
) -> Array:
    """2-d convolution (cross-correlation) of NHWC images with OHWI weights, exact in int32, with a fused epilogue.

    Padded pixels hold ``x_zero_point`` exactly, so they add nothing. Int8 weights with one channel per group and no
    zero point of their own go to :func:`depthwise_conv2d_i8`.

    Args:
        x: (n, h, w, c) int8 or uint8; may be a channel slice of a wider array.
        w: (oc, kh, kw, c / groups) int8 or uint8, or :func:`pack_conv2d_i8` of it (then ``stride``, ``dilation`` and
            ``groups`` are those it was packed for, and the arguments are not used).
        stride: one number, or (vertical, horizontal).
        padding: one number, (vertical, horizontal), or (top, left, bottom, right).
        dilation: one number, or (vertical, horizontal).
        groups: divides ``c`` and ``oc``.
        x_zero_point: of ``x``.
        w_zero_point: of ``w``.
        scale: multiplier of the sums, one or one per output channel; default 1. Not for int32.
        bias: (oc,) as in :func:`gemm_i8`.
        zero_point: of an int8 or uint8 result.
        out_dtype: ``"int32"``, ``"float32"``, ``"int8"`` or ``"uint8"``.
        rounding: as in :func:`requantize`.
        clamp: smallest and largest result.
        residual: an array of the result's shape, added as in :func:`requantize`.
        residual_scale: as in :func:`requantize`.
        residual_zero_point: as in :func:`requantize`.
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
        w = _view(w)
        if (
            groups > 1
            and w.ndim == 4
            and w.shape[0] == groups
            and w.shape[3] == 1
            and w.dtype == np.int8
            and w_zero_point == 0
        ):
            return depthwise_conv2d_i8(
                x, w[..., 0].transpose(1, 2, 0), stride, padding, dilation, x_zero_point, scale=scale, bias=bias,
                zero_point=zero_point, out_dtype=out_dtype, rounding=rounding, clamp=clamp, residual=residual,
                residual_scale=residual_scale, residual_zero_point=residual_zero_point, isa=isa, threads=threads,
                out=out,
            )  # fmt: skip
    packed = w if isinstance(w, PackedConvI8) else pack_conv2d_i8(w, stride, dilation, groups)
    return _core.conv2d_i8(
        _view(x), packed, _padding(padding), x_zero_point, w_zero_point, scale, bias, zero_point,
        _dtype("conv2d_i8", "out_dtype", out_dtype), _rounding("conv2d_i8", rounding), clamp,
        None if residual is None else _view(residual), residual_scale, residual_zero_point, out, isa, threads,
    )  # fmt: skip


def pack_depthwise_i8(w: Array) -> PackedDepthwiseI8:
    """Weights of :func:`depthwise_conv2d_i8` in the kernels' order, made once and shared by all levels and threads.

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
    return _core.pack_depthwise_i8(_view(w))


def depthwise_conv2d_i8(
    x: Array,
    w: Array | PackedDepthwiseI8,
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
    residual: Array | None = None,
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
        w: (kh, kw, c) int8, symmetric, or :func:`pack_depthwise_i8` of it.
        stride: one number, or (vertical, horizontal).
        padding: one number, (vertical, horizontal), or (top, left, bottom, right).
        dilation: one number, or (vertical, horizontal).
        x_zero_point: of ``x``.
        scale: multiplier of the sums, one or one per channel; default 1. Not for int32.
        bias: (c,) as in :func:`gemm_i8`.
        zero_point: of an int8 or uint8 result.
        out_dtype: ``"int32"``, ``"float32"``, ``"int8"`` or ``"uint8"``.
        rounding: as in :func:`requantize`.
        clamp: smallest and largest result.
        residual: an array of the result's shape, added as in :func:`requantize`.
        residual_scale: as in :func:`requantize`.
        residual_zero_point: as in :func:`requantize`.
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
    packed = w if isinstance(w, PackedDepthwiseI8) else pack_depthwise_i8(w)
    name = "depthwise_conv2d_i8"
    return _core.depthwise_conv2d_i8(
        _view(x), packed, _pair(f"{name}: stride", stride), _padding(padding), _pair(f"{name}: dilation", dilation),
        x_zero_point, scale, bias, zero_point, _dtype(name, "out_dtype", out_dtype), _rounding(name, rounding), clamp,
        None if residual is None else _view(residual), residual_scale, residual_zero_point, out, isa, threads,
    )  # fmt: skip
