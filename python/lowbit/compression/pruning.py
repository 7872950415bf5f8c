"""Magnitude pruning: which weights a layer keeps."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]


def check_weights(weights: NDArray[Any], layer: str = "") -> NDArray[np.float32]:
    """Weights as contiguous float32.

    Raises:
        TypeError: they are not float32.
        ValueError: there are none, or one is not finite; names the layer and the first such weight's offset.
    """
    where = f"layer {layer!r}: " if layer else ""
    if weights.dtype != np.float32:
        raise TypeError(f"{where}weights must be float32, they are {weights.dtype}")
    if weights.size == 0:
        raise ValueError(f"{where}weights of shape {weights.shape} are empty")
    flat = np.ascontiguousarray(weights).reshape(-1)
    finite = np.isfinite(flat)
    if not finite.all():
        at = int(np.argmin(finite))
        raise ValueError(f"{where}weight {at} is {flat[at]}; weights must be finite")
    return flat.reshape(weights.shape)


def magnitude_mask(
    weights: NDArray[np.float32],
    *,
    density: float | None = None,
    deviations: float | None = None,
    mask: Mask | None = None,
    layer: str = "",
) -> Mask:
    """Which weights to keep: the largest ones.

    Args:
        weights: float32, any shape.
        density: share to keep, 0 < density <= 1: the ``round(density * size)`` largest, at least one. Of equal ones
            the first are kept.
        deviations: keep |w| >= deviations * std(w), the standard deviation taken over the weights still there (the
            quality parameter of Han et al. 2015); either this or ``density``.
        mask: earlier decision: what it drops stays dropped.
        layer: named in errors.

    Returns:
        True where a weight stays, shape of ``weights``. A zero is never kept.

    Raises:
        ValueError: a density outside (0, 1], a negative ``deviations``, both or none of them, a wrong mask shape, or
            weights that are not finite.
        TypeError: weights that are not float32.

    Source: Han, Pool, Tran, Dally 2015 (arXiv 1506.02626); Deep Compression (arXiv 1510.00149), section 2.

    Example:
        >>> magnitude_mask(np.float32([0.1, -3, 0, 2]), density=0.5)
        array([False,  True, False,  True])
    """
    where = f"layer {layer!r}: " if layer else ""
    weights = check_weights(weights, layer)
    if (density is None) == (deviations is None):
        raise ValueError(f"{where}give density or deviations, one of them")
    if mask is not None and mask.shape != weights.shape:
        raise ValueError(f"{where}the mask is {mask.shape}, the weights are {weights.shape}")
    alive: Mask = weights != 0 if mask is None else mask & (weights != 0)
    if deviations is not None:
        if not deviations >= 0:
            raise ValueError(f"{where}deviations is {deviations}; it must be >= 0")
        spread = float(weights[alive].std(dtype=np.float64)) if alive.any() else 0.0
        return alive & (np.abs(weights) >= np.float32(deviations * spread))
    assert density is not None
    if not 0 < density <= 1:
        raise ValueError(f"{where}density is {density}; it must be above 0 and at most 1")
    keep = max(round(density * weights.size), 1)
    if keep >= np.count_nonzero(alive):
        return alive
    size = np.where(alive, np.abs(weights), -1).reshape(-1)
    least = np.partition(size, size.size - keep)[size.size - keep]
    chosen: Mask = size > least
    ties = np.flatnonzero(size == least)
    chosen[ties[: keep - np.count_nonzero(chosen)]] = True
    return chosen.reshape(weights.shape)


def gradual_density(progress: float, density: float, initial: float = 1.0) -> float:
    """Density at one point of a gradual schedule, ``d + (d0 - d) (1 - t)^3``: fast while there is plenty.

    Args:
        progress: t, 0 at the start of pruning and 1 at its end; values outside are clipped.
        density: d, the last.
        initial: d0.

    Source: Zhu, Gupta 2017 (arXiv 1710.01878), equation 1.

    Example:
        >>> [round(gradual_density(t, 0.1), 4) for t in (0, 0.5, 1)]
        [1.0, 0.2125, 0.1]
    """
    t = min(max(progress, 0.0), 1.0)
    return density + (initial - density) * (1 - t) ** 3
