"""Weights of 1 to 8 bits as indices into a codebook: packing, decoding, products on the indices, 1-D k-means.

Han, Mao, Dally, *Deep Compression* (ICLR 2016, arXiv 1510.00149), section 3: weights share 2^b values. A codebook is
an array of at most 2^b entries for the whole tensor, or one row of them per output channel, or, with ``group_size=``,
one row per group of that many input columns.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lowbit import _core
from lowbit._core import CodebookPacker, PackedCodebook, PackedConvCodebook
from lowbit.arguments import Array, FloatArray, Padding, Size, optional_view, pair, sides, view

__all__ = [
    "CodebookPacker",
    "PackedCodebook",
    "PackedConvCodebook",
    "PackedIndices",
    "codebook_conv2d",
    "codebook_decode",
    "codebook_gemm",
    "kmeans1d",
    "pack_codebook",
    "pack_conv_codebook",
    "pack_indices",
    "quantize_codebook",
    "unpack_indices",
]

_MODES = ("float32", "int8")
_INITS = {"linear": 0, "density": 1, "forgy": 2, "optimal": 3}


@dataclass(frozen=True, eq=False)
class PackedIndices:
    """Dense canonical indices: row-major, ``bits`` bits each, lowest bit first, no gap between rows.

    Attributes:
        data: (ceil(size * bits / 8),) uint8.
        shape: of the indices; the first axis is the output channels.
        bits: 1 to 8.

    Example:
        >>> packed = lowbit.pack_indices(np.array([[0, 1, 2, 3], [3, 2, 1, 0]], np.uint8), bits=2)
        >>> packed.shape, packed.nbytes, [f"{byte:08b}" for byte in packed.data]
        ((2, 4), 2, ['11100100', '00011011'])
    """

    data: npt.NDArray[np.uint8]
    shape: tuple[int, ...]
    bits: int

    def __post_init__(self) -> None:
        if self.data.dtype != np.uint8:
            raise TypeError(f"PackedIndices: data is {self.data.dtype}, must be uint8")
        if not 1 <= self.bits <= 8:
            raise ValueError(f"PackedIndices: bits is {self.bits}, must be 1 to 8")
        if self.data.ndim != 1 or self.data.size != -(-self.size * self.bits // 8):
            raise ValueError(
                f"PackedIndices: {self.size} indices of {self.bits} bits take {-(-self.size * self.bits // 8)} bytes, "
                f"data is {self.data.shape}"
            )

    @property
    def size(self) -> int:
        """Number of indices."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def nbytes(self) -> int:
        """Bytes of the packed indices."""
        return int(self.data.nbytes)

    @property
    def matrix(self) -> tuple[int, int]:
        """(output channels, columns): all axes but the first are columns."""
        n = self.shape[0] if self.shape else 1
        return n, self.size // n if n else int(np.prod(self.shape[1:], dtype=np.int64))


def pack_indices(idx: npt.ArrayLike, bits: int) -> PackedIndices:
    """Indices of ``bits`` bits each, packed: 16 two-bit indices take 4 bytes.

    Args:
        idx: (n, k) uint8, or (oc, kh, kw, c) for a convolution; each below 2^bits.
        bits: 1 to 8.

    Returns:
        The packed indices; `unpack_indices` gives them back.

    Raises:
        TypeError: where idx is not uint8.
        ValueError: where bits is not 1 to 8 or an index has more bits, naming its place in row-major order.

    Example:
        >>> import numpy as np, lowbit
        >>> lowbit.pack_indices(np.array([[0, 1, 2, 3], [3, 3, 0, 0]], np.uint8), 2).data
        array([228,  15], dtype=uint8)
    """
    indices = view(idx)
    return PackedIndices(_core.pack_indices(indices, bits), indices.shape, bits)


def unpack_indices(
    p: PackedIndices, *, isa: str | None = None, threads: int | None = None, out: Array | None = None
) -> npt.NDArray[np.uint8]:
    """The indices of `pack_indices`, one per byte.

    Args:
        p: packed indices.
        isa: level to run.
        threads: thread count.
        out: receives the result.

    Returns:
        uint8 array of p's shape.

    Example:
        >>> import numpy as np, lowbit
        >>> lowbit.unpack_indices(lowbit.pack_indices(np.array([[5, 0, 7]], np.uint8), 3))
        array([[5, 0, 7]], dtype=uint8)
    """
    return _core.unpack_indices(p.data, p.shape, p.bits, out, isa, threads)


def _int8_codebook(codebook: Array) -> Array:
    """An int8 codebook, also of whole float32 numbers."""
    if codebook.dtype != np.float32:
        return codebook
    whole = codebook.astype(np.int8) if np.all(np.abs(codebook) <= 127) else np.zeros(codebook.shape, np.int8)
    if not np.array_equal(whole, codebook):
        raise ValueError(
            "codebook_decode: dtype int8 needs a codebook of integers within +-127; lowbit.quantize_codebook makes one"
        )
    return whole


def codebook_decode(
    p: PackedIndices,
    codebook: npt.ArrayLike,
    dtype: npt.DTypeLike = "float32",
    *,
    group_size: int | None = None,
    isa: str | None = None,
    threads: int | None = None,
    out: Array | None = None,
) -> Array:
    """The weights themselves: ``codebook[row, index]``.

    Args:
        p: packed indices; the first axis is output channels, the others are columns.
        codebook: float32 (or, for int8, int8 or whole float32 numbers): (entries,) for all, (n, entries) per output
            channel, or (ceil(k / group_size), entries) per group of columns; at most 2^bits entries.
        dtype: ``"float32"`` or ``"int8"``.
        group_size: columns that share a row of the codebook.
        isa: level to run.
        threads: thread count.
        out: receives the result.

    Returns:
        Array of p's shape and ``dtype``.

    Raises:
        TypeError: a codebook of another dtype.
        ValueError: shapes that disagree, an entry that is not finite, an index beyond the codebook (naming its place).

    Example:
        >>> import numpy as np, lowbit
        >>> p = lowbit.pack_indices(np.array([[0, 3], [2, 1]], np.uint8), 2)
        >>> lowbit.codebook_decode(p, np.array([-1, 0, 1.5, 2], np.float32))
        array([[-1. ,  2. ],
               [ 1.5,  0. ]], dtype=float32)
    """
    if np.dtype(dtype) == np.int8:
        book = _int8_codebook(view(codebook))
        return _core.codebook_decode_i8(p.data, p.shape, p.bits, book, group_size, out, isa, threads)
    if np.dtype(dtype) != np.float32:
        raise ValueError(f"codebook_decode: dtype {dtype!r} is not float32 or int8")
    return _core.codebook_decode_f32(p.data, p.shape, p.bits, view(codebook), group_size, out, isa, threads)


def quantize_codebook(codebook: npt.ArrayLike) -> tuple[npt.NDArray[np.int8], FloatArray]:
    """A float codebook as int8, as int8 mode uses it: of each row, scale = max |v| / 127, q = round(v / scale).

    A row of whole numbers within +-127 keeps them (scale 1); a row of zeros has scale 0.
    |v - scale * q| <= 0.5001 * scale.

    Args:
        codebook: (entries,) or (rows, entries) float32, finite.

    Returns:
        int8 of the codebook's shape, and the scales (rows,) float32.

    Example:
        >>> import numpy as np, lowbit
        >>> q, scale = lowbit.quantize_codebook(np.array([-1, 0, 1.5, 2], np.float32))
        >>> q, np.round(scale, 5)
        (array([-64,   0,  95, 127], dtype=int8), array([0.01575], dtype=float32))
    """
    return _core.quantize_codebook(view(codebook))


def pack_codebook(p: PackedIndices, codebook: npt.ArrayLike, *, group_size: int | None = None) -> PackedCodebook:
    """Codebook weights of `codebook_gemm` in the kernels' tiled order, made once for all levels and threads.

    Args:
        p: packed indices (n, k).
        codebook: float32, as in `codebook_decode`.
        group_size: columns that share a row of the codebook.

    Returns:
        The tiled weights; `shape`, `bits` and `nbytes` are attributes.

    Example:
        >>> import numpy as np, lowbit
        >>> p = lowbit.pack_indices(np.zeros((3, 5), np.uint8), 2)
        >>> lowbit.pack_codebook(p, np.array([1, 2, 3, 4], np.float32)).shape
        (3, 5)
    """
    n, k = p.matrix
    return _core.pack_codebook(p.data, n, k, p.bits, view(codebook), group_size)


def _mode(function: str, mode: str, x_scale: float | None) -> tuple[bool, float]:
    """Whether int8, and the given scale or 0."""
    if mode not in _MODES:
        raise ValueError(f"{function}: mode {mode!r} is not one of {', '.join(_MODES)}")
    if x_scale is None:
        return mode == "int8", 0.0
    if mode != "int8":
        raise ValueError(f"{function}: x_scale is for mode int8")
    if not 0 < x_scale < float("inf"):
        raise ValueError(f"{function}: x_scale is {x_scale}, must be positive and finite")
    return True, float(x_scale)


def _packed_once(function: str, codebook: npt.ArrayLike | None, group_size: int | None) -> None:
    if codebook is not None or group_size is not None:
        raise ValueError(f"{function}: p carries its own codebook, codebook and group_size must be None")


def codebook_gemm(
    x: npt.ArrayLike,
    p: PackedIndices | PackedCodebook,
    codebook: npt.ArrayLike | None = None,
    mode: str = "float32",
    *,
    group_size: int | None = None,
    x_scale: float | None = None,
    bias: npt.ArrayLike | None = None,
    clamp: tuple[float, float] | None = None,
    isa: str | None = None,
    threads: int | None = None,
    out: Array | None = None,
) -> FloatArray:
    """``clamp(x @ w.T + bias)`` with ``w = codebook[p]``, which is never written out.

    ``mode="float32"`` is exact in the sense of float32: one chain of fused multiply-adds in the order of k, the same
    bits at every level; within k u / (1 - k u) * sum |x| |w| of the exact sum, u = 2^-24. ``mode="int8"`` rounds
    activations and codebook to int8 (scales s per row of x, t per row of the codebook) and sums exactly in int32:
    within 0.5001 * sum (s |w8| + t |x|) of the product with the float codebook, the same bits at every level; see
    ``lowbit/codebook.h``.

    Args:
        x: (m, k) float32.
        p: (n, k) packed indices, or `pack_codebook` of them, which saves tiling them anew.
        codebook: as in `codebook_decode`; None with packed weights.
        mode: ``"float32"`` or ``"int8"``.
        group_size: columns that share a row of the codebook.
        x_scale: int8 mode: step of the activations, which saturate at +-127 steps; by default max |row| / 127.
        bias: (n,) float32.
        clamp: least and greatest value of the result, such as (0, inf) for a ReLU.
        isa: level to run.
        threads: thread count.
        out: receives the result.

    Returns:
        (m, n) float32.

    Raises:
        TypeError: an array that is not float32.
        ValueError: shapes that disagree, an index beyond the codebook, an unknown mode.

    Example:
        >>> import numpy as np, lowbit
        >>> p = lowbit.pack_indices(np.array([[0, 3], [2, 1]], np.uint8), 2)
        >>> lowbit.codebook_gemm(np.array([[2, 4]], np.float32), p, np.array([-1, 0, 1.5, 2], np.float32))
        array([[6., 3.]], dtype=float32)
    """
    name = "codebook_gemm"
    int8, scale = _mode(name, mode, x_scale)
    if isinstance(p, PackedCodebook):
        _packed_once(name, codebook, group_size)
    elif codebook is None:
        raise ValueError("codebook_gemm: packed indices need a codebook")
    else:
        p = pack_codebook(p, codebook, group_size=group_size)
    return _core.codebook_gemm(view(x), p, int8, scale, optional_view(bias), clamp, out, isa, threads)


def pack_conv_codebook(
    p: PackedIndices, codebook: npt.ArrayLike, groups: int = 1, *, group_size: int | None = None
) -> PackedConvCodebook:
    """Codebook weights of `codebook_conv2d` in the kernels' tiled order, made once.

    Args:
        p: packed indices (oc, kh, kw, c / groups).
        codebook: float32, as in `codebook_decode`; columns are (kh, kw, c / groups) in row-major order.
        groups: divides c and oc.
        group_size: columns that share a row of the codebook.

    Returns:
        The tiled weights; `shape`, `groups` and `nbytes` are attributes.

    Example:
        >>> import numpy as np, lowbit
        >>> p = lowbit.pack_indices(np.zeros((4, 3, 3, 2), np.uint8), 1)
        >>> lowbit.pack_conv_codebook(p, np.array([1, 2], np.float32)).shape
        (4, 3, 3, 2)
    """
    return _core.pack_conv_codebook(p.data, p.shape, p.bits, view(codebook), group_size, groups)


def codebook_conv2d(
    x: npt.ArrayLike,
    p: PackedIndices | PackedConvCodebook,
    codebook: npt.ArrayLike | None = None,
    stride: Size = 1,
    padding: Padding = 0,
    dilation: Size = 1,
    groups: int = 1,
    mode: str = "float32",
    *,
    group_size: int | None = None,
    x_scale: float | None = None,
    bias: npt.ArrayLike | None = None,
    clamp: tuple[float, float] | None = None,
    isa: str | None = None,
    threads: int | None = None,
    out: Array | None = None,
) -> FloatArray:
    """2-d convolution (cross-correlation) of NHWC images with codebook weights, as `codebook_gemm` over windows.

    Args:
        x: (batch, h, w, c) float32.
        p: (oc, kh, kw, c / groups) packed indices, or `pack_conv_codebook` of them, which carries its own groups.
        codebook: as in `codebook_decode`; None with packed weights.
        stride: one number or (height, width).
        padding: zeros around the image: one number, (height, width) or (top, left, bottom, right).
        dilation: one number or (height, width).
        groups: divides c and oc.
        mode: as in `codebook_gemm`; in int8 mode a scale of the activations serves one image.
        group_size: columns that share a row of the codebook.
        x_scale: as in `codebook_gemm`.
        bias: (oc,) float32.
        clamp: least and greatest value of the result.
        isa: level to run.
        threads: thread count.
        out: receives the result.

    Returns:
        (batch, out_h, out_w, oc) float32.

    Raises:
        TypeError: an array that is not float32.
        ValueError: shapes that disagree, an index beyond the codebook, an unknown mode.

    Example:
        >>> import numpy as np, lowbit
        >>> p = lowbit.pack_indices(np.ones((1, 2, 2, 1), np.uint8), 1)
        >>> x = np.arange(9, dtype=np.float32).reshape(1, 3, 3, 1)
        >>> lowbit.codebook_conv2d(x, p, np.array([0, 0.5], np.float32))[0, :, :, 0]
        array([[ 4.,  6.],
               [10., 12.]], dtype=float32)
    """
    name = "codebook_conv2d"
    int8, scale = _mode(name, mode, x_scale)
    if isinstance(p, PackedConvCodebook):
        _packed_once(name, codebook, group_size)
    elif codebook is None:
        raise ValueError("codebook_conv2d: packed indices need a codebook")
    else:
        p = pack_conv_codebook(p, codebook, groups, group_size=group_size)
    return _core.codebook_conv2d(
        view(x), p, pair(f"{name}: stride", stride), sides(name, padding), pair(f"{name}: dilation", dilation),
        int8, scale, optional_view(bias), clamp, out, isa, threads,
    )  # fmt: skip


def kmeans1d(
    x: npt.ArrayLike,
    k: int,
    init: str = "linear",
    *,
    seed: int = 0,
    max_iterations: int = 10_000,
    threads: int | None = None,
) -> tuple[FloatArray, npt.NDArray[np.uint8]]:
    """Weights that share k values (Deep Compression, section 3).

    Up to 65,536 distinct values are clustered as they are, more as a histogram of 65,536 bins, each at the mean of its
    values. ``"linear"`` (equally spaced between least and greatest), ``"density"`` (equally spaced on the distribution
    function) and ``"forgy"`` (k values at random) are where Lloyd's iterations begin (section 3.2); ``"optimal"`` is
    the least sum of squared errors there is (Wu 1991; Grønlund et al., arXiv 1701.07204). No cluster stays empty: one
    that is takes the upper part of the cluster with the greatest error.

    Args:
        x: float32, any shape, finite.
        k: 1 to 256, at most the number of distinct values.
        init: ``"linear"``, ``"density"``, ``"forgy"`` or ``"optimal"``.
        seed: of ``"forgy"``.
        max_iterations: of Lloyd's.
        threads: thread count.

    Returns:
        The codebook (k,) float32, ascending, each entry the mean of its values; and the index of each value, uint8, x's
        shape.

    Raises:
        TypeError: where x is not float32.
        ValueError: where k is out of range or above the number of distinct values, or a value is not finite (naming its
            place in row-major order).

    Example:
        >>> import numpy as np, lowbit
        >>> lowbit.kmeans1d(np.array([1, 2, 9, 11, 1], np.float32), 2)
        (array([ 1.3333334, 10.       ], dtype=float32), array([0, 0, 1, 1, 0], dtype=uint8))
    """
    if init not in _INITS:
        raise ValueError(f"kmeans1d: init {init!r} is not one of {', '.join(_INITS)}")
    return _core.kmeans1d(view(x), k, _INITS[init], seed, max_iterations, threads)
