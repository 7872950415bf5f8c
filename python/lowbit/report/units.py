"""Numbers for people."""

from __future__ import annotations

import math


def size(count: float) -> str:
    """Bytes, decimal units.

    Example:
        >>> size(812), size(14_190_651), size(35_200)
        ('812 B', '14.2 MB', '35.2 kB')
    """
    if count < 1000:
        return f"{count:.0f} B"
    return f"{count / 1e3:.1f} kB" if count < 1e6 else f"{count / 1e6:.1f} MB"


def quantity(count: float) -> str:
    """A large count.

    Example:
        >>> quantity(1_234_567), quantity(300_774_272), quantity(950)
        ('1.23 M', '301 M', '950')
    """
    for divisor, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if count >= divisor:
            return f"{count / divisor:.3g}{unit}"
    return f"{count:.0f}"


def milliseconds(ms: float | None) -> str:
    """Three figures.

    Example:
        >>> milliseconds(12.345), milliseconds(0.01234), milliseconds(None)
        ('12.3', '0.012', '-')
    """
    if ms is None:
        return "-"
    return f"{ms:.1f}" if ms >= 10 else f"{ms:.2f}" if ms >= 1 else f"{ms:.3f}"


def decibel(value: float | None) -> str:
    """One decimal; no noise at all is ``exact``.

    Example:
        >>> decibel(31.25), decibel(float("inf")), decibel(None)
        ('31.2', 'exact', '-')
    """
    if value is None:
        return "-"
    return "exact" if math.isinf(value) else f"{value:.1f}"


def ratio(before: float, after: float, better: str, worse: str) -> str:
    """How many times smaller, or larger.

    Example:
        >>> ratio(8.0, 2.0, "faster", "slower"), ratio(1.0, 2.0, "faster", "slower")
        ('4.00 x faster', '2.00 x slower')
    """
    if before <= 0 or after <= 0:
        return "-"
    return f"{before / after:.2f} x {better}" if before >= after else f"{after / before:.2f} x {worse}"
