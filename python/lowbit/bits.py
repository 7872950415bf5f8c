"""1 bit: numbers as bits, and products and convolutions of {-1, +1} by xor and popcount.

A bit 1 stands for +1, a bit 0 for -1. The formulas are in ``lowbit/xnor.h``.
"""

from __future__ import annotations

import math
import threading
from typing import Any

import numpy as np
import numpy.typing as npt

from lowbit import _core
from lowbit._core import PackedXnor
from lowbit.arguments import Array, Padding, Size, dtype_number, pair, sides, view

# Comparing with a type would make the dtype every time.
_FLOAT32, _INT32, _UINT32, _BOOL = (np.dtype(t) for t in (np.float32, np.int32, np.uint32, np.bool_))


class PackedBits:
    """An array of {-1, +1} in bits: dense rows along the last axis, channel j at bit j % 32 of uint32 word j // 32.

    Used as weights, the tiled order of the kernels is made at the first use and kept; the words are read-only from then
    on.

    Attributes:
        words: uint32, ``shape[:-1] + (ceil(shape[-1] / 32),)``; the bits beyond the last channel are 0.
        shape: of the array that the bits stand for.

    Example:
        >>> import numpy as np
        >>> a = lowbit.pack_bits(np.array([[0.5, -2.0, 0.0]], np.float32))
        >>> a.shape, a.words.tolist()
        ((1, 3), [[5]])
    """

    __slots__ = ("_lock", "_planes", "_tiled", "shape", "words")

    def __init__(self, words: npt.NDArray[np.uint32], channels: int):
        """Takes words as they are.

        Args:
            words: uint32 in C order, ``(..., ceil(channels / 32))``, bits beyond ``channels`` 0.
            channels: length of the last axis.

        Raises:
            TypeError: words that are not uint32.
            ValueError: a number of words that does not fit ``channels``, or set bits beyond them.
        """
        words = view(words)
        if words.dtype != np.uint32:
            raise TypeError(f"PackedBits: words are {words.dtype}, must be uint32")
        if channels < 0 or words.ndim < 1 or words.shape[-1] != (channels + 31) // 32:
            raise ValueError(
                f"PackedBits: words are {words.shape}, rows of {channels} bits have {(channels + 31) // 32}"
            )
        if channels % 32 and np.any(words[..., -1] >> np.uint32(channels % 32)):
            raise ValueError(f"PackedBits: bits beyond channel {channels} are set")
        self._set(np.ascontiguousarray(words), channels)

    def _set(self, words: npt.NDArray[np.uint32], channels: int) -> None:
        self.words = words
        self.shape: tuple[int, ...] = (*words.shape[:-1], channels)
        self._tiled: dict[int, PackedXnor] = {}
        self._planes: dict[int, list[PackedXnor]] = {}
        self._lock = threading.Lock()

    @classmethod
    def _of(cls, words: npt.NDArray[np.uint32], channels: int) -> PackedBits:
        """Words that a kernel wrote: nothing to check."""
        bits = cls.__new__(cls)
        bits._set(words, channels)
        return bits

    @classmethod
    def from_dense(cls, data: npt.ArrayLike, shape: tuple[int, ...]) -> PackedBits:
        """From one run of bits over all axes, lowest bit of a byte first, as files hold them.

        Args:
            data: (ceil(prod(shape) / 8),) uint8.
            shape: of the array.

        Raises:
            ValueError: a number of bytes that does not fit the shape.

        Example:
            >>> import numpy as np
            >>> lowbit.unpack_bits(lowbit.PackedBits.from_dense(np.array([5], np.uint8), (2, 2))).tolist()
            [[1, -1], [1, -1]]
        """
        flat = view(data)
        count = math.prod(shape)
        if flat.dtype != np.uint8:
            raise TypeError(f"PackedBits.from_dense: data is {flat.dtype}, must be uint8")
        if flat.shape != ((count + 7) // 8,):
            raise ValueError(f"PackedBits.from_dense: {flat.shape} bytes for {shape}, which needs {(count + 7) // 8}")
        rows = np.unpackbits(flat, count=count, bitorder="little").reshape(shape)
        return cls._of(word_rows(rows), shape[-1])

    def dense(self) -> npt.NDArray[np.uint8]:
        """The bits as one run over all axes, lowest bit of a byte first: 1/32 of the float32 array's bytes.

        Example:
            >>> import numpy as np
            >>> lowbit.pack_bits(np.ones((3, 3), np.float32)).dense().tolist()
            [255, 1]
        """
        rows = np.unpackbits(self.words.view(np.uint8), axis=-1, bitorder="little")[..., : self.shape[-1]]
        return np.packbits(rows, bitorder="little")

    @property
    def nbytes(self) -> int:
        """Of the words."""
        return int(self.words.nbytes)

    def tiled(self, groups: int = 1) -> PackedXnor:
        """The weights (n, k) or (oc, kh, kw, c / groups) in the kernels' order, made once."""
        packed = self._tiled.get(groups)
        if packed is not None:
            return packed
        with self._lock:
            if groups not in self._tiled:
                packed = _core.pack_xnor(self.words, self.shape[-1], groups)
                self.words.flags.writeable = False
                self._tiled[groups] = packed
            return self._tiled[groups]

    def planes(self, groups: int = 1) -> list[PackedXnor]:
        """`tiled` of every plane of weights (planes, n, k) or (planes, oc, kh, kw, c / groups)."""
        with self._lock:
            if groups not in self._planes:
                self._planes[groups] = [_core.pack_xnor(plane, self.shape[-1], groups) for plane in self.words]
                self.words.flags.writeable = False
            return self._planes[groups]

    def __repr__(self) -> str:
        return f"PackedBits(shape={self.shape})"

    def __reduce__(self) -> tuple[type[PackedBits], tuple[Array, int]]:
        return PackedBits, (self.words, self.shape[-1])


def word_rows(bits: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint32]:
    """Rows of 0 and 1 as rows of words."""
    words = (bits.shape[-1] + 31) // 32
    rows = np.zeros((*bits.shape[:-1], words * 4), np.uint8)
    packed = np.packbits(bits, axis=-1, bitorder="little")
    rows[..., : packed.shape[-1]] = packed
    return rows.view(np.uint32)


def binarize(x: npt.ArrayLike, mode: str = "sign", seed: int | None = None) -> npt.NDArray[np.int8]:
    """Numbers to {-1, +1} (BinaryConnect, Courbariaux et al. 2015, section 2.2).

    Args:
        x: numbers, any shape.
        mode: ``"sign"``: +1 where x >= 0 (so for 0 and -0.0), else -1. ``"stochastic"``: +1 with probability
            clip((x + 1) / 2, 0, 1), the hard sigmoid.
        seed: of ``numpy.random.default_rng``; the same seed gives the same signs.

    Returns:
        int8 of x's shape.

    Raises:
        ValueError: an unknown mode, or a NaN in x.

    Example:
        >>> import numpy as np
        >>> lowbit.binarize(np.array([-0.3, -0.0, 0.7]))
        array([-1,  1,  1], dtype=int8)
        >>> lowbit.binarize(np.array([-1.0, -0.2, 0.2, 1.0]), mode="stochastic", seed=0)
        array([-1,  1,  1,  1], dtype=int8)
    """
    x = view(x)
    if np.isnan(x).any():
        raise ValueError(f"binarize: x{tuple(map(int, np.argwhere(np.isnan(x))[0]))} is NaN")
    if mode == "sign":
        positive = x >= 0
    elif mode == "stochastic":
        positive = np.random.default_rng(seed).random(x.shape) < np.clip((x + 1) / 2, 0, 1)
    else:
        raise ValueError(f"binarize: mode {mode!r} is not one of sign, stochastic")
    return np.where(positive, np.int8(1), np.int8(-1))


def _float32(function: str, name: str, a: npt.ArrayLike | None) -> Array | None:
    """Per-channel numbers as float32: a list, or an array of a real dtype."""
    if a is None:
        return None
    array = view(a)
    if array.dtype == _FLOAT32:
        return array
    if array.dtype.kind not in "fiu":
        raise TypeError(f"{function}: {name} is {array.dtype}, must be numbers")
    return np.ascontiguousarray(array, np.float32)


def _threshold(function: str, a: npt.ArrayLike | None) -> Array | None:
    """Integers stay integers (they are compared with the dot product), within int32; floats become float32."""
    if a is None:
        return None
    array = view(a)
    if array.dtype == _INT32:
        return array
    if array.dtype.kind not in "iu":
        return _float32(function, "threshold", array)
    if array.size and (int(array.min()) < -(2**31) or int(array.max()) > 2**31 - 1):
        raise ValueError(f"{function}: threshold of {array.min()} to {array.max()} is beyond int32")
    return np.ascontiguousarray(array, np.int32)


def _flip(function: str, a: npt.ArrayLike | None) -> Array | None:
    """Booleans, or 0 and 1."""
    if a is None:
        return None
    array = view(a)
    if array.dtype == _BOOL:
        return array
    if array.dtype.kind not in "iu" or not np.isin(array, (0, 1)).all():
        raise ValueError(f"{function}: flip must be booleans, or 0 and 1")
    return array.astype(np.bool_)


def _words_out(function: str, out: object, channels: int) -> Array | None:
    """The words of a result's PackedBits."""
    if out is None:
        return None
    if not isinstance(out, PackedBits):
        raise TypeError(f"{function}: out must be a PackedBits where the result is bits")
    if out.shape[-1] != channels:
        raise ValueError(f"{function}: out is {out.shape}, rows of the result have {channels} bits")
    return out.words


def pack_bits(
    x: npt.ArrayLike,
    *,
    threshold: npt.ArrayLike | None = None,
    flip: npt.ArrayLike | None = None,
    isa: str | None = None,
    threads: int | None = None,
    out: PackedBits | None = None,
) -> PackedBits:
    """Numbers to bits along the last axis: bit = (x >= threshold) xor flip.

    A BatchNorm before the sign folds into the threshold: gamma * (x - mean) / s + beta >= 0 is
    x >= mean - beta * s / gamma where gamma > 0; where gamma < 0 it is not (x >= the next float above), so flip.

    Args:
        x: (..., c) float32, int8 or uint8. Infinities are ordered as they stand.
        threshold: (c,); default 0, so that 0 and -0.0 give +1.
        flip: (c,) booleans.
        isa: level to run.
        threads: thread count.
        out: a `PackedBits` of the result's shape that receives the bits.

    Returns:
        `PackedBits` of x's shape.

    Raises:
        TypeError: x of another dtype.
        ValueError: a NaN in x or threshold; shapes that disagree.

    Example:
        >>> import numpy as np
        >>> lowbit.unpack_bits(lowbit.pack_bits(np.array([-1.5, 0.0, -0.0, 3.0], np.float32)))
        array([-1,  1,  1,  1], dtype=int8)
    """
    name = "pack_bits"
    x = view(x)
    channels = x.shape[-1] if x.ndim else 0
    words = _core.pack_bits(
        x, _float32(name, "threshold", threshold), _flip(name, flip), _words_out(name, out, channels), isa, threads
    )
    return PackedBits._of(words, channels) if out is None else out


def unpack_bits(
    a: PackedBits, *, isa: str | None = None, threads: int | None = None, out: Array | None = None
) -> npt.NDArray[np.int8]:
    """Bits to {-1, +1}.

    Args:
        a: what `pack_bits` gave.
        isa: level to run.
        threads: thread count.
        out: receives the result, int8.

    Example:
        >>> import numpy as np
        >>> lowbit.unpack_bits(lowbit.pack_bits(np.array([[1, -1], [-1, -1]], np.int8)))
        array([[ 1, -1], [-1, -1]], dtype=int8)
    """
    return _core.unpack_bits(need_bits("unpack_bits", "a", a).words, a.shape[-1], out, isa, threads)


def need_bits(function: str, name: str, a: PackedBits) -> PackedBits:
    """An argument that must be bits; TypeError where it is not."""
    if not isinstance(a, PackedBits):
        raise TypeError(f"{function}: {name} is {type(a).__name__}, must be PackedBits (lowbit.pack_bits)")
    return a


def max_pool_bits(
    x: PackedBits,
    kernel: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    dilation: Size = 1,
    *,
    isa: str | None = None,
    threads: int | None = None,
    out: PackedBits | None = None,
) -> PackedBits:
    """Maximum over windows of {-1, +1}: an OR of bits. sign(max(x)) = max(sign(x)), so pooling may follow the sign.

    Args:
        x: (n, h, w, c).
        kernel: one number or (height, width).
        stride: likewise; default the kernel.
        padding: one number, (height, width) or (top, left, bottom, right); padded pixels do not count.
        dilation: one number or (height, width).
        isa: level to run.
        threads: thread count.
        out: receives the result.

    Returns:
        `PackedBits` (n, out_h, out_w, c).

    Example:
        >>> import numpy as np
        >>> x = np.array([[-1, -1, -1, 1]], np.int8).reshape(1, 2, 2, 1)
        >>> lowbit.unpack_bits(lowbit.max_pool_bits(lowbit.pack_bits(x), 2)).ravel()
        array([1], dtype=int8)
    """
    name = "max_pool_bits"
    x = need_bits(name, "x", x)
    size, channels = pair(f"{name}: kernel", kernel), x.shape[-1]
    words = _core.max_pool_bits(
        x.words, channels, size, size if stride is None else pair(f"{name}: stride", stride), sides(name, padding),
        pair(f"{name}: dilation", dilation), _words_out(name, out, channels), isa, threads,
    )  # fmt: skip
    return PackedBits._of(words, channels) if out is None else out


def _epilogue(
    function: str, scale: Any, bias: Any, input_scale: Any, residual: Any, threshold: Any, flip: Any,
    clamp: tuple[float, float] | None, zero_point: int, out_dtype: Any, with_bits: bool, out: Any,
    isa: str | None, threads: int | None, channels: int,
) -> tuple[Any, ...]:  # fmt: skip
    """What `_core.xnor_gemm` and `_core.xnor_conv2d` take after their operands; in one call, since calls add up."""
    bits = out_dtype.__class__ is str and out_dtype == "bits"
    if bits:
        out = _words_out(function, out, channels)
    elif out.__class__ is PackedBits:
        raise TypeError(f"{function}: out is PackedBits, the result is not bits")
    return (
        None if scale is None else _float32(function, "scale", scale),
        None if bias is None else _float32(function, "bias", bias),
        None if input_scale is None else view(input_scale),
        None if residual is None else view(residual),
        None if threshold is None else _threshold(function, threshold),
        None if flip is None else _flip(function, flip),
        clamp, zero_point, None if bits else dtype_number(function, "out_dtype", out_dtype), bits or with_bits, out,
        isa, threads,
    )  # fmt: skip


def _result(raw: Any, channels: int, out: Any) -> Any:
    if raw.__class__ is tuple:
        return raw[0], PackedBits._of(raw[1], channels)
    if out is not None:
        return out
    return PackedBits._of(raw, channels) if raw.dtype == _UINT32 else raw


def xnor_gemm(
    a: PackedBits,
    b: PackedBits,
    *,
    scale: npt.ArrayLike | None = None,
    bias: npt.ArrayLike | None = None,
    input_scale: npt.ArrayLike | None = None,
    threshold: npt.ArrayLike | None = None,
    flip: npt.ArrayLike | None = None,
    out_dtype: npt.DTypeLike = "int32",
    with_bits: bool = False,
    residual: npt.ArrayLike | None = None,
    clamp: tuple[float, float] | None = None,
    zero_point: int = 0,
    isa: str | None = None,
    threads: int | None = None,
    out: Array | PackedBits | None = None,
) -> Any:
    """Product a @ b.T of {-1, +1}, exact in int32, with a fused epilogue as in `xnor_conv2d`.

    Args:
        a: (m, k).
        b: (n, k); its tiled form is made at the first use.
        scale: as in `xnor_conv2d`, (n,).
        bias: likewise, (n,).
        input_scale: likewise, (m,).
        threshold: likewise, (n,).
        flip: likewise, (n,).
        out_dtype: ``"int32"``, ``"float32"``, ``"int8"``, ``"uint8"`` or ``"bits"``.
        with_bits: also give bits, as in `xnor_conv2d`.
        residual: likewise, (m, n).
        clamp: likewise.
        zero_point: likewise.
        isa: level to run.
        threads: thread count.
        out: receives the result.

    Returns:
        (m, n) of ``out_dtype``; the same bits at every level and thread count.

    Raises:
        TypeError: a or b that are not `PackedBits`; a wrong dtype.
        ValueError: k that disagree or are 0; shapes that disagree; thresholds beyond int32.

    Example:
        >>> import numpy as np
        >>> a = lowbit.pack_bits(np.array([[1, 1, -1]], np.int8))
        >>> b = lowbit.pack_bits(np.array([[1, 1, 1], [-1, -1, 1]], np.int8))
        >>> lowbit.xnor_gemm(a, b)
        array([[ 1, -3]], dtype=int32)
    """
    name = "xnor_gemm"
    a, b = need_bits(name, "a", a), need_bits(name, "b", b)
    n = b.shape[0] if b.shape else 0
    epilogue = _epilogue(
        name, scale, bias, input_scale, residual, threshold, flip, clamp, zero_point, out_dtype, with_bits, out,
        isa, threads, n,
    )  # fmt: skip
    return _result(_core.xnor_gemm(a.words, a.shape[-1], b.tiled(), *epilogue), n, out)


def xnor_conv2d(
    x: npt.ArrayLike | PackedBits,
    w: PackedBits,
    stride: Size = 1,
    padding: Padding = 0,
    dilation: Size = 1,
    groups: int = 1,
    pad_value: int = 1,
    scale: npt.ArrayLike | None = None,
    bias: npt.ArrayLike | None = None,
    input_scale: npt.ArrayLike | None = None,
    threshold: npt.ArrayLike | None = None,
    flip: npt.ArrayLike | None = None,
    out_dtype: npt.DTypeLike = "float32",
    *,
    with_bits: bool = False,
    residual: npt.ArrayLike | None = None,
    clamp: tuple[float, float] | None = None,
    zero_point: int = 0,
    isa: str | None = None,
    threads: int | None = None,
    out: Array | PackedBits | None = None,
) -> Any:
    """2-d convolution (cross-correlation) of {-1, +1} NHWC images with OHWI weights.

    v = clamp(dot * scale * input_scale + bias + residual), every step a float32 operation in this order. XNOR-Net
    (Rastegari et al. 2016, section 3.2) is scale = alpha and input_scale = K.

    Args:
        x: (n, h, w, c) `PackedBits`, or float32, int8 or uint8, of which the signs are taken (x >= 0 is +1).
        w: (oc, kh, kw, c / groups) `PackedBits`; its tiled form is made at the first use.
        stride: one number or (height, width).
        padding: one number, (height, width) or (top, left, bottom, right).
        dilation: one number or (height, width).
        groups: divides ``c`` and ``oc``.
        pad_value: what padded pixels hold: -1, +1, or 0 exactly.
        scale: (oc,), multiplies the dot product.
        bias: (oc,).
        input_scale: (n, out_h, out_w) float32, multiplies every channel of a pixel.
        threshold: (oc,) for bits. Integers are compared with the dot product, floats with v; default v >= 0. A
            BatchNorm after the convolution folds into it, flipped where gamma < 0 (``lowbit/xnor.h``).
        flip: (oc,) booleans: which bits to turn round.
        out_dtype: ``"float32"`` v, ``"int32"`` the dot product, ``"int8"`` or ``"uint8"`` v rounded half to even plus
            zero_point, or ``"bits"``.
        with_bits: also give the bits, in the same pass: the result is then (array, PackedBits).
        residual: float32 of the result's shape.
        clamp: least and greatest v.
        zero_point: of an int8 or uint8 result.
        isa: level to run.
        threads: thread count.
        out: receives the result: an array, or a `PackedBits` where out_dtype is ``"bits"``.

    Returns:
        (n, out_h, out_w, oc) of ``out_dtype``; the same bits at every level and thread count.

    Raises:
        TypeError: a wrong dtype; w that is not `PackedBits`.
        ValueError: shapes that disagree, groups that do not divide the channels, a window larger than the padded image,
            a NaN in x, thresholds beyond int32.

    Example:
        >>> import numpy as np
        >>> ones = np.ones((1, 3, 3, 1), np.float32)
        >>> w = lowbit.pack_bits(ones)
        >>> lowbit.xnor_conv2d(ones, w, padding=1, pad_value=0)[0, :, :, 0]
        array([[4., 6., 4.], [6., 9., 6.], [4., 6., 4.]], dtype=float32)
        >>> lowbit.xnor_conv2d(ones, w, padding=1, pad_value=-1, out_dtype="int32")[0, :, :, 0]
        array([[-1,  3, -1], [ 3,  9,  3], [-1,  3, -1]], dtype=int32)
    """
    name = "xnor_conv2d"
    w = need_bits(name, "w", w)
    if len(w.shape) != 4:
        raise ValueError(f"{name}: w is {w.shape}, must be (oc, kh, kw, c / groups)")
    rows, channels = (x.words, x.shape[-1]) if isinstance(x, PackedBits) else (view(x), None)
    n = w.shape[0]
    epilogue = _epilogue(
        name, scale, bias, input_scale, residual, threshold, flip, clamp, zero_point, out_dtype, with_bits, out,
        isa, threads, n,
    )  # fmt: skip
    raw = _core.xnor_conv2d(
        rows, channels, w.tiled(groups), pair("xnor_conv2d: stride", stride), sides(name, padding),
        pair("xnor_conv2d: dilation", dilation), pad_value, *epilogue,
    )  # fmt: skip
    return _result(raw, n, out)
