"""Sparse positions as gaps of a few bits, with fillers where a gap is too wide."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lowbit._core import FormatError

Codes = NDArray[np.uint8]


def relative_encode(codes: Codes, gap_bits: int) -> tuple[Codes, Codes]:
    """Codes with many zeros as (gap, code) entries.

    A stored gap g stands for g + 1: the distance from the entry before, the first from position -1. Where the distance
    exceeds ``span = 2**gap_bits``, fillers (gap span - 1, code 0) come first; so code 0 must mean 0.0. What follows the
    last code other than 0 is not stored.

    Args:
        codes: uint8, any shape; read in row-major order.
        gap_bits: 1 to 8.

    Returns:
        gaps, codes: uint8, one per entry.

    Raises:
        ValueError: ``gap_bits`` outside 1..8.
        TypeError: codes that are not uint8.

    Source: Deep Compression (arXiv 1510.00149), section 2 and figure 2.

    Example:
        >>> relative_encode(np.uint8([0, 7, 0, 0, 0, 0, 9, 0]), gap_bits=2)
        (array([1, 3, 0], dtype=uint8), array([7, 0, 9], dtype=uint8))
    """
    if codes.dtype != np.uint8:
        raise TypeError(f"relative_encode: codes must be uint8, they are {codes.dtype}")
    span = _span("relative_encode", gap_bits)
    flat = codes.reshape(-1)
    at = np.flatnonzero(flat)
    distance = np.diff(at, prepend=-1) - 1
    last = np.cumsum(distance // span + 1) - 1  # entry of each code, after its fillers
    entries = int(last[-1]) + 1 if at.size else 0
    gaps, kept = np.full(entries, span - 1, np.uint8), np.zeros(entries, np.uint8)
    gaps[last], kept[last] = distance % span, flat[at]
    return gaps, kept


def relative_positions(gaps: Codes, size: int, layer: str = "") -> NDArray[np.int64]:
    """Position of every entry, ``cumsum(gap + 1) - 1``.

    Raises:
        lowbit.FormatError: an entry lies beyond ``size``; names it.

    Example:
        >>> relative_positions(np.uint8([1, 3, 0]), 8)
        array([1, 5, 6])
    """
    at = np.cumsum(gaps.astype(np.int64) + 1) - 1
    if at.size and at[-1] >= size:
        first = int(np.argmax(at >= size))
        where = f"layer {layer!r}: " if layer else ""
        raise FormatError(f"{where}entry {first} of {at.size} lies at {at[first]}, beyond {size} weights")
    return np.asarray(at)


def relative_decode(gaps: Codes, codes: Codes, size: int, layer: str = "") -> Codes:
    """The codes that :func:`relative_encode` was given, as ``size`` uint8 in row-major order.

    Raises:
        lowbit.FormatError: gaps and codes differ in number, or an entry lies beyond ``size``; names layer and entry.

    Example:
        >>> relative_decode(np.uint8([1, 3, 0]), np.uint8([7, 0, 9]), 8)
        array([0, 7, 0, 0, 0, 0, 9, 0], dtype=uint8)
    """
    if gaps.shape != codes.shape or gaps.ndim != 1:
        where = f"layer {layer!r}: " if layer else ""
        raise FormatError(f"{where}{gaps.shape} gaps for {codes.shape} codes")
    out = np.zeros(size, np.uint8)
    out[relative_positions(gaps, size, layer)] = codes
    return out


def _span(function: str, gap_bits: int) -> int:
    if not 1 <= gap_bits <= 8:
        raise ValueError(f"{function}: gap_bits is {gap_bits}; it must be 1 to 8")
    return 1 << gap_bits
