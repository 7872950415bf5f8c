"""Products of few-bit codes as sums of binary products, plane by plane. The formulas are in ``lowbit/xnor.h``."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from lowbit import _core
from lowbit.arguments import Array, Padding, Size, pair, sides, view
from lowbit.bits import PackedBits, need_bits


def bit_planes(codes: npt.ArrayLike, bits: int, *, isa: str | None = None, threads: int | None = None) -> PackedBits:
    """Codes as planes of bits, lowest first: plane q of `bitserial_gemm` holds bit q of every code.

    Args:
        codes: (..., k) uint8 below 2**bits.
        bits: 1 to 8.
        isa: level to run.
        threads: thread count.

    Returns:
        `PackedBits` (bits, ..., k).

    Raises:
        TypeError: codes that are not uint8.
        ValueError: a code of more bits.

    Example:
        >>> import numpy as np
        >>> lowbit.bit_planes(np.array([[0, 1, 2, 3]], np.uint8), 2).words.tolist()
        [[[10]], [[12]]]
    """
    codes = view(codes)
    if codes.dtype != np.uint8:
        raise TypeError(f"bit_planes: codes are {codes.dtype}, must be uint8")
    if not 1 <= bits <= 8:
        raise ValueError(f"bit_planes: bits is {bits}, must be 1 to 8")
    if codes.size and int(codes.max()) >> bits:
        raise ValueError(f"bit_planes: code {codes.max()} has more than {bits} bits")
    return PackedBits._of(_core.pack_planes(codes, bits, None, None, isa, threads), codes.shape[-1])


def level_planes(
    x: npt.ArrayLike, basis: npt.ArrayLike, *, isa: str | None = None, threads: int | None = None
) -> PackedBits:
    """Numbers as planes of the codes of their levels, see `lowbit.lq`: what `bitserial_gemm` takes with that basis.

    A level is a sum of the basis with bits 0 and 1; a number takes the level whose interval holds it, intervals end at
    mid-points, ties go down, a NaN takes the lowest (Zhang et al. 2018, section 3).

    Args:
        x: (..., k) float32.
        basis: (A,) finite numbers, A from 1 to 4.
        isa: level to run.
        threads: thread count.

    Returns:
        `PackedBits` (A, ..., k).

    Raises:
        TypeError: x that is not float32.
        ValueError: a basis of another shape, or not finite.

    Example:
        >>> import numpy as np
        >>> lowbit.level_planes(np.float32([[-1.0, 0.3, 0.9, 7.0]]), [1.0, 0.5]).words.tolist()
        [[[12]], [[10]]]
    """
    from lowbit import lq

    x, basis = view(x), np.asarray(basis, np.float32)
    if x.dtype != np.float32:
        raise TypeError(f"level_planes: x is {x.dtype}, must be float32")
    if basis.ndim != 1 or not 1 <= len(basis) <= 4:
        raise ValueError(f"level_planes: the basis is {basis.shape}, must be 1 to 4 numbers")
    sums, codes = lq.levels(basis, signed=False)
    planes = _core.pack_planes(x, len(basis), lq.thresholds(sums), codes, isa, threads)
    return PackedBits._of(planes, x.shape[-1])


def _bases(function: str, a: npt.ArrayLike, b: npt.ArrayLike, b_planes: int, n: int) -> tuple[Array, Array]:
    """Both int32, or both float32; b as (planes, n)."""
    first, second = view(a), view(b)
    integers = first.dtype.kind in "iu" and second.dtype.kind in "iu"
    for name, basis in (("a_basis", first), ("b_basis", second)):
        if basis.dtype.kind not in "fiu":
            raise TypeError(f"{function}: {name} is {basis.dtype}, must be numbers")
        if integers and basis.size and int(np.abs(basis.astype(np.int64)).max()) > 2**31 - 1:
            raise ValueError(f"{function}: {name} is beyond int32")
        if not integers and not np.isfinite(basis).all():
            raise ValueError(f"{function}: {name} is not finite")
    dtype = np.int32 if integers else np.float32
    second = np.broadcast_to(second[:, None], (len(second), n)) if second.ndim == 1 else second.T
    if second.shape != (b_planes, n):
        raise ValueError(
            f"{function}: b_basis is {view(b).shape}, must be ({b_planes},) or ({n}, {b_planes}): a number per plane"
        )
    return np.ascontiguousarray(first, dtype), np.ascontiguousarray(second, dtype)


def bitserial_gemm(
    a: PackedBits,
    b: PackedBits,
    a_basis: npt.ArrayLike,
    b_basis: npt.ArrayLike,
    *,
    a_signed: bool = False,
    isa: str | None = None,
    threads: int | None = None,
    out: Array | None = None,
) -> Array:
    """Product of few-bit codes by binary products: a @ b.T of sums of planes, each times its basis.

    y[i, j] = sum_q sum_p a_basis[q] * b_basis[j, p] * <A_q[i], B_p[j]>, the inference form of LQ-Nets (Zhang et al.
    2018, section 3.1). Integer bases give exact int32, float bases float32 in the order that ``lowbit/xnor.h`` states.

    Args:
        a: planes (A, m, k), 1 to 8 of them, as of `bit_planes`.
        b: planes (W, n, k) of {-1, +1}.
        a_basis: (A,) integers or floats.
        b_basis: (W,), or (n, W) for one per row of b.
        a_signed: bits of a stand for {-1, +1} instead of {0, 1}.
        isa: level to run.
        threads: thread count.
        out: receives the result.

    Returns:
        (m, n) int32 or float32; the same bits at every level and thread count.

    Raises:
        ValueError: shapes that disagree; integer bases whose sums may leave int32.

    Example:
        >>> import numpy as np
        >>> a, b = np.array([[0, 1, 2, 3]], np.uint8), np.array([[1, -1, 1, -1], [1, 1, 1, 1]], np.int8)
        >>> lowbit.bitserial_gemm(lowbit.bit_planes(a, 2), lowbit.pack_bits(b[None]), [1, 2], [1])
        array([[-2,  6]], dtype=int32)
    """
    name = "bitserial_gemm"
    a, b = need_bits(name, "a", a), need_bits(name, "b", b)
    if len(b.shape) != 3:
        raise ValueError(f"{name}: b is {b.shape}, must be (planes, n, k)")
    first, second = _bases(name, a_basis, b_basis, b.shape[0], b.shape[1])
    return _core.bitserial_gemm(a.words, a.shape[-1], not a_signed, b.planes(), first, second, out, isa, threads)


def bitserial_conv2d(
    x: PackedBits,
    w: PackedBits,
    x_basis: npt.ArrayLike,
    w_basis: npt.ArrayLike,
    stride: Size = 1,
    padding: Padding = 0,
    dilation: Size = 1,
    groups: int = 1,
    pad_value: int = 1,
    *,
    x_signed: bool = False,
    isa: str | None = None,
    threads: int | None = None,
    out: Array | None = None,
) -> Array:
    """`bitserial_gemm` over the windows of NHWC images.

    Args:
        x: planes (A, n, h, w, c).
        w: planes (W, oc, kh, kw, c / groups) of {-1, +1}.
        x_basis: (A,) integers or floats.
        w_basis: (W,) or (oc, W).
        stride: one number or (height, width).
        padding: one number, (height, width) or (top, left, bottom, right).
        dilation: one number or (height, width).
        groups: divides ``c`` and ``oc``.
        pad_value: what padded pixels hold where ``x_signed``: -1, 0 or +1 in every plane; else they hold code 0.
        x_signed: bits of x stand for {-1, +1} instead of {0, 1}.
        isa: level to run.
        threads: thread count.
        out: receives the result.

    Returns:
        (n, out_h, out_w, oc) int32 or float32.

    Raises:
        ValueError: as `bitserial_gemm` and `xnor_conv2d`.

    Example:
        >>> import numpy as np
        >>> x = lowbit.bit_planes(np.full((1, 3, 3, 1), 3, np.uint8), 2)
        >>> w = lowbit.pack_bits(np.ones((1, 1, 3, 3, 1), np.int8))
        >>> lowbit.bitserial_conv2d(x, w, [1, 2], [1], padding=1)[0, :, :, 0]
        array([[12, 18, 12], [18, 27, 18], [12, 18, 12]], dtype=int32)
    """
    name = "bitserial_conv2d"
    x, w = need_bits(name, "x", x), need_bits(name, "w", w)
    if len(w.shape) != 5:
        raise ValueError(f"{name}: w is {w.shape}, must be (planes, oc, kh, kw, c / groups)")
    first, second = _bases(name, x_basis, w_basis, w.shape[0], w.shape[1])
    return _core.bitserial_conv2d(
        x.words, x.shape[-1], not x_signed, w.planes(groups), pair(f"{name}: stride", stride), sides(name, padding),
        pair(f"{name}: dilation", dilation), pad_value, first, second, out, isa, threads,
    )  # fmt: skip
