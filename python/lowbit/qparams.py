"""Quantisation parameters: what a code means, how a range becomes a scale and a zero point, and the one rounding.

``real = scale * (code - zero_point)``, and ``code = clamp(zero_point + rint(x / scale), qmin, qmax)`` with the quotient
rounded to float32 and ``rint`` rounding half to even: ONNX's QuantizeLinear.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lowbit import _core

__all__ = ["QParams", "affine_qparams", "dequantize", "quantize", "symmetric_qparams"]

_DTYPES = ("int8", "uint8")


def _code_range(dtype: str, bits: int, narrow_range: bool) -> tuple[int, int]:
    if dtype not in _DTYPES:
        raise ValueError(f"dtype: {dtype!r} is not one of {', '.join(_DTYPES)}")
    if not 2 <= bits <= 8:
        raise ValueError(f"bits: {bits} is not in 2..8")
    lowest = -(1 << (bits - 1)) if dtype == "int8" else 0
    return lowest + narrow_range, lowest + (1 << bits) - 1


@dataclass(frozen=True, eq=False)
class QParams:
    """Scale and zero point of a tensor: ``real = scale * (code - zero_point)``.

    Attributes:
        scale: float32 value(s), finite and > 0: one number, or with ``axis`` an array of one per slice.
        zero_point: code(s) of real zero, within ``qmin..qmax``; one number or an array as long as ``scale``.
        dtype: ``"int8"`` or ``"uint8"``.
        bits: 2 to 8; fewer than 8 use the lowest codes of ``uint8`` and the middle ones of ``int8``.
        axis: the axis along which ``scale`` runs; None for one scale per tensor.
        narrow_range: leave out the lowest code, so that ``int8`` is -127..127 (as every symmetric range does).

    Raises:
        ValueError: where a value is outside its range, or lengths disagree.

    Example:
        >>> from lowbit.qparams import QParams
        >>> p = QParams(scale=0.5, zero_point=10, dtype="uint8")
        >>> p.qmin, p.qmax
        (0, 255)
    """

    scale: Any
    zero_point: Any
    dtype: str
    bits: int = 8
    axis: int | None = None
    narrow_range: bool = False

    def __post_init__(self) -> None:
        lo, hi = _code_range(self.dtype, self.bits, self.narrow_range)
        with np.errstate(over="ignore"):
            scale = np.array(self.scale, dtype=np.float32)
        zero = np.array(self.zero_point)
        if zero.dtype.kind not in "iu" and not np.all(zero == np.rint(zero)):
            raise ValueError(f"QParams: zero_point {self.zero_point} is not whole")
        expected = 0 if self.axis is None else 1
        if scale.ndim != expected:
            what = "one scale" if self.axis is None else "a 1-d scale"
            raise ValueError(f"QParams: axis={self.axis} needs {what}, got shape {scale.shape}")
        bad = ~(np.isfinite(scale) & (scale > 0))
        if bad.any():
            raise ValueError(f"QParams: scale{_where(bad)} is {scale[bad].flat[0]}, not finite and > 0")
        if zero.ndim == 0 and self.axis is not None:
            zero = np.full(scale.shape, zero)
        if zero.shape != scale.shape:
            raise ValueError(f"QParams: zero_point has shape {zero.shape}, scale {scale.shape}")
        bad = (zero < lo) | (zero > hi)
        if bad.any():
            raise ValueError(f"QParams: zero_point{_where(bad)} is {zero[bad].flat[0]}, not in {lo}..{hi}")
        zero = zero.astype(np.int32)
        if self.axis is None:
            object.__setattr__(self, "scale", float(scale))
            object.__setattr__(self, "zero_point", int(zero))
        else:
            for name, array in (("scale", scale), ("zero_point", zero)):
                array.setflags(write=False)
                object.__setattr__(self, name, array)

    @property
    def qmin(self) -> int:
        """The lowest code."""
        return _code_range(self.dtype, self.bits, self.narrow_range)[0]

    @property
    def qmax(self) -> int:
        """The highest code."""
        return _code_range(self.dtype, self.bits, self.narrow_range)[1]

    def _key(self) -> tuple[Any, ...]:
        scale, zero = np.float32(self.scale).tobytes(), np.int32(self.zero_point).tobytes()
        return scale, zero, self.dtype, self.bits, self.axis, self.narrow_range

    def __eq__(self, other: object) -> bool:
        return isinstance(other, QParams) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())


def _where(bad: NDArray[np.bool_]) -> str:
    return f"[{int(np.flatnonzero(bad)[0])}]" if bad.ndim else ""


def _finite(name: str, values: ArrayLike, axis: int | None) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != (0 if axis is None else 1):
        raise ValueError(
            f"{name}: axis={axis} needs {'a number' if axis is None else 'a 1-d array'}, got {array.shape}"
        )
    if array.size == 0:
        raise ValueError(f"{name}: empty")
    bad = ~np.isfinite(array)
    if bad.any():
        raise ValueError(f"{name}{_where(bad)} is {array[bad].flat[0]}, not finite")
    return array


def _scales(name: str, span: NDArray[np.float64], steps: int, zero_scale: float | None) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):
        scale = np.array(span / steps, dtype=np.float32)
    empty = span == 0
    if empty.any():
        if zero_scale is None:
            raise ValueError(f"{name}{_where(empty)}: the range holds only zero, so it has no scale (see zero_scale=)")
        scale = np.where(empty, np.float32(zero_scale), scale)
    bad = ~(np.isfinite(scale) & (scale > 0))
    if bad.any():
        raise ValueError(f"{name}{_where(bad)}: range {span[bad].flat[0]} is beyond float32's scales")
    return scale


def symmetric_qparams(
    threshold: ArrayLike,
    dtype: str = "int8",
    *,
    bits: int = 8,
    axis: int | None = None,
    zero_scale: float | None = None,
) -> QParams:
    """Parameters of a symmetric range -threshold..threshold: int8 codes -127..127, scale = threshold / 127.

    Values beyond the threshold saturate. ``uint8`` is the same range around zero point 128. With fewer bits,
    ``2**(bits - 1) - 1`` takes the place of 127.

    Args:
        threshold: positive number, or with ``axis`` a 1-d array, one per slice.
        dtype: ``"int8"`` or ``"uint8"``.
        bits: 2 to 8.
        axis: axis of the tensor along which the thresholds run.
        zero_scale: the scale given to a threshold of exactly 0 (a dead channel); None makes that an error.

    Returns:
        QParams with ``narrow_range=True``.

    Raises:
        ValueError: where a threshold is NaN, infinite, negative, 0 without ``zero_scale``, or there is none.

    Source: TensorRT 8-bit inference (Migacz, GTC 2017), slides on symmetric linear quantisation.

    Example:
        >>> from lowbit.qparams import symmetric_qparams
        >>> p = symmetric_qparams(12.7)
        >>> round(p.scale, 6), p.zero_point, p.qmin, p.qmax
        (0.1, 0, -127, 127)
    """
    lowest, _ = _code_range(dtype, bits, False)
    t = _finite("symmetric_qparams: threshold", threshold, axis)
    if (t < 0).any():
        raise ValueError(f"symmetric_qparams: threshold{_where(t < 0)} is {t[t < 0].flat[0]}, negative")
    scale = _scales("symmetric_qparams: threshold", t, (1 << (bits - 1)) - 1, zero_scale)
    zero = np.full(scale.shape, lowest + (1 << (bits - 1)), dtype=np.int32)
    return QParams(scale, zero, dtype, bits, axis, narrow_range=True)


def affine_qparams(
    lo: ArrayLike,
    hi: ArrayLike,
    dtype: str = "uint8",
    *,
    bits: int = 8,
    axis: int | None = None,
    narrow_range: bool = False,
    zero_scale: float | None = None,
) -> QParams:
    """Parameters of a range lo..hi, widened to include 0, which then has an exact code.

    ``S = (max - min) / (qmax - qmin)`` and ``Z = clamp(qmin + rint(-min / S), qmin, qmax)``.

    Args:
        lo: smallest value, a number or with ``axis`` a 1-d array.
        hi: largest value, of the same shape, not below ``lo``.
        dtype: ``"uint8"`` or ``"int8"``.
        bits: 2 to 8.
        axis: axis of the tensor along which the ranges run.
        narrow_range: leave out the lowest code.
        zero_scale: the scale given to the range 0..0; None makes that an error.

    Returns:
        QParams.

    Raises:
        ValueError: where a bound is NaN or infinite, ``lo > hi``, the range is 0..0 without ``zero_scale``, or empty.

    Source: Jacob et al. 2018 (arXiv 1712.05877), section 3; gemmlowp's ChooseQuantizationParams.

    Example:
        >>> from lowbit.qparams import affine_qparams
        >>> p = affine_qparams(-1.0, 4.1)
        >>> round(p.scale, 6), p.zero_point
        (0.02, 50)
        >>> affine_qparams(2.0, 5.1).zero_point       # zero is always inside
        0
    """
    qmin, qmax = _code_range(dtype, bits, narrow_range)
    low = _finite("affine_qparams: lo", lo, axis)
    high = _finite("affine_qparams: hi", hi, axis)
    if low.shape != high.shape:
        raise ValueError(f"affine_qparams: lo has shape {low.shape}, hi {high.shape}")
    if (low > high).any():
        bad = low > high
        raise ValueError(f"affine_qparams: lo{_where(bad)} {low[bad].flat[0]} is above hi {high[bad].flat[0]}")
    low, high = np.minimum(low, 0.0), np.maximum(high, 0.0)
    scale = _scales("affine_qparams: range", high - low, qmax - qmin, zero_scale)
    zero = np.clip(qmin + np.rint(-low / scale.astype(np.float64)), qmin, qmax).astype(np.int32)
    return QParams(scale, zero, dtype, bits, axis, narrow_range)


def _as_array(name: str, x: Any, dtypes: tuple[str, ...]) -> NDArray[Any]:
    array = x if isinstance(x, np.ndarray) else np.from_dlpack(x) if hasattr(x, "__dlpack__") else np.asarray(x)
    if array.dtype.name not in dtypes:
        raise TypeError(f"{name}: dtype {array.dtype} is not {' or '.join(dtypes)}")
    return array


def _output(name: str, out: NDArray[Any] | None, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
    if out is None:
        return np.empty(shape, dtype)
    if out.dtype != np.dtype(dtype):
        raise TypeError(f"{name}: out has dtype {out.dtype}, the result {dtype}")
    if out.shape != shape:
        raise ValueError(f"{name}: out has shape {out.shape}, the result {shape}")
    if not (out.flags.c_contiguous and out.flags.writeable):
        raise ValueError(f"{name}: out must be C-contiguous and writeable")
    return out


def _per_axis(name: str, qparams: QParams, shape: tuple[int, ...]) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    axis, n = qparams.axis, len(qparams.scale)
    assert axis is not None
    if not -len(shape) <= axis < len(shape):
        raise ValueError(f"{name}: axis {axis} is not in an array of shape {shape}")
    if shape[axis] != n:
        raise ValueError(f"{name}: {n} scales, but axis {axis} of shape {shape} has {shape[axis]}")
    along = [1] * len(shape)
    along[axis] = n
    return qparams.scale.reshape(along), qparams.zero_point.reshape(along)


def quantize(
    x: Any, qparams: QParams, *, isa: str | None = None, threads: int | None = None, out: NDArray[Any] | None = None
) -> NDArray[Any]:
    """Codes of real values: ``clamp(zero_point + rint(float32(x / scale)), qmin, qmax)``, half to even. NaN gives qmin.

    Args:
        x: float32, any shape.
        qparams: one scale, or one per slice along ``qparams.axis``.
        isa: level; None for the best. The codes are the same on every level.
        threads: None for the default.
        out: C-contiguous array of ``qparams.dtype`` and x's shape for the result.

    Returns:
        Array of x's shape and ``qparams.dtype``.

    Raises:
        TypeError: where x is not float32.
        ValueError: where shapes disagree.

    Source: ONNX QuantizeLinear; Jacob et al. 2018 (arXiv 1712.05877), section 2.1.

    Example:
        >>> import numpy as np
        >>> from lowbit.qparams import QParams, quantize
        >>> quantize(np.float32([-0.2, 0.0, 0.25, 0.75, 9e9]), QParams(0.5, 3, "uint8"))
        array([  3,   3,   3,   5, 255], dtype=uint8)
    """
    array = _as_array("quantize: x", x, ("float32",))
    result = _output("quantize", out, array.shape, qparams.dtype)
    if qparams.axis is None:
        contiguous = np.ascontiguousarray(array)
        _core.quantize(
            contiguous, qparams.scale, qparams.zero_point, result, qparams.qmin, qparams.qmax, isa=isa, threads=threads
        )
        return result
    scale, zero = _per_axis("quantize", qparams, array.shape)
    with np.errstate(over="ignore", invalid="ignore"):
        f = np.rint(array / scale)
    f = np.fmin(np.fmax(f, np.float32(qparams.qmin) - zero), np.float32(qparams.qmax) - zero)
    result[...] = zero + f.astype(np.int32)
    return result


def dequantize(
    q: Any, qparams: QParams, *, isa: str | None = None, threads: int | None = None, out: NDArray[Any] | None = None
) -> NDArray[np.float32]:
    """Real values of codes: ``float32(code - zero_point) * scale``.

    Args:
        q: codes of ``qparams.dtype``, any shape.
        qparams: one scale, or one per slice along ``qparams.axis``.
        isa: level; None for the best. The values are the same on every level.
        threads: None for the default.
        out: C-contiguous float32 array of q's shape for the result.

    Returns:
        float32 array of q's shape.

    Raises:
        TypeError: where q is not of ``qparams.dtype``.
        ValueError: where shapes disagree.

    Source: ONNX DequantizeLinear; Jacob et al. 2018 (arXiv 1712.05877), equation 1.

    Example:
        >>> import numpy as np
        >>> from lowbit.qparams import QParams, dequantize
        >>> dequantize(np.uint8([3, 4, 255]), QParams(0.5, 3, "uint8"))
        array([  0. ,   0.5, 126. ], dtype=float32)
    """
    array = _as_array("dequantize: q", q, (qparams.dtype,))
    result = _output("dequantize", out, array.shape, "float32")
    if qparams.axis is None:
        contiguous = np.ascontiguousarray(array)
        _core.dequantize(contiguous, qparams.scale, qparams.zero_point, result, isa=isa, threads=threads)
        return result
    scale, zero = _per_axis("dequantize", qparams, array.shape)
    np.multiply((array.astype(np.int32) - zero).astype(np.float32), scale, out=result)
    return result
