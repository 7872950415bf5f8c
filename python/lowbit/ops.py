"""The kernels on NumPy arrays: shapes, dtypes and friendly errors around `lowbit._core`."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from lowbit import _core

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
