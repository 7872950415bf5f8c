"""The mean that each channel of an activation is expected to have, from the file's own batch normalisations.

A batch normalisation gives its channels mean beta and deviation gamma; clamps, sums and pools follow from there.
Rounded weights shift the mean of a layer's output by (W_q - W) E[x], which its bias can take back. On MobileNetV2 that
is worth half a dB at the output; files with their batch normalisations folded give no means and lose nothing.

Source: Nagel et al. 2019, Data-Free Quantization Through Weight Equalization and Bias Correction (arXiv 1906.04721),
section 4.2 and appendix B (mean of a clipped normal distribution).
"""

from __future__ import annotations

import math

import numpy as np

from lowbit.graph.net import Array, Layer, Net, Tensor

Moments = tuple[Array, Array]  # mean and deviation per channel, float64
_PASSING = ("reshape", "transpose", "slice", "identity", "average_pool", "resize")


def clipped(moments: Moments, lo: float, hi: float) -> Moments:
    """Mean and deviation of a normal variable clipped to lo..hi.

    Example:
        >>> mean, std = clipped((np.zeros(1), np.ones(1)), 0.0, math.inf)
        >>> float(mean[0].round(4)), float(std[0].round(4))
        (0.3989, 0.5838)
    """
    mean, std = moments
    std = np.maximum(std, 1e-12)
    density, below, shifted = [], [], []
    for bound in (lo, hi):
        z = np.clip((bound - mean) / std, -40.0, 40.0)
        density.append(np.exp(-0.5 * z * z) / math.sqrt(2.0 * math.pi))
        below.append(0.5 * (1.0 + np.array([math.erf(v / math.sqrt(2.0)) for v in z])))
        shifted.append(z * density[-1] if math.isfinite(bound) else np.zeros_like(z))
    inside = below[1] - below[0]
    low, high = (b if math.isfinite(b) else 0.0 for b in (lo, hi))
    first = mean * inside + std * (density[0] - density[1]) + low * below[0] + high * (1.0 - below[1])
    second = (mean**2 + std**2) * inside + 2.0 * mean * std * (density[0] - density[1])
    second += std**2 * (shifted[0] - shifted[1]) + low**2 * below[0] + high**2 * (1.0 - below[1])
    return first, np.sqrt(np.maximum(second - first**2, 0.0))


def expected_means(net: Net) -> None:
    """Set ``mean`` of every tensor whose channels' means follow from batch normalisations. Runs before fusion."""
    known: dict[Tensor, Moments] = {}
    for layer in net.layers:
        if layer.normalised is not None:
            found: Moments | None = layer.normalised
        else:
            found = _through(layer, [known.get(t) for t in layer.inputs])
        if found is not None and found[0].size == layer.output.shape[-1]:
            known[layer.output] = found
            layer.output.mean = found[0]


def _through(layer: Layer, inputs: list[Moments | None]) -> Moments | None:
    given = [m for m in inputs if m is not None]
    if len(given) != len(inputs) or not given:
        return None
    first = given[0]
    if layer.op == "unary" and layer.attrs["kind"] in ("relu", "clip"):
        relu = layer.attrs["kind"] == "relu"
        lo, hi = (0.0, math.inf) if relu else (float(layer.attrs["alpha"]), float(layer.attrs["beta"]))
        return clipped(first, lo if lo > -1e30 else -math.inf, hi if hi < 1e30 else math.inf)
    if layer.op == "binary" and layer.attrs["kind"] == "add" and len(given) == 2:
        return given[0][0] + given[1][0], np.hypot(given[0][1], given[1][1])
    if layer.op == "concat" and layer.attrs["axis"] == layer.output.rank - 1:
        return np.concatenate([m[0] for m in given]), np.concatenate([m[1] for m in given])
    return first if layer.op in _PASSING and layer.output.shape[-1] == layer.inputs[0].shape[-1] else None


def weight_shift(layer: Layer, weight: Array, lo: float, hi: float) -> Array | None:
    """What the bias must add where ``weight`` (float64) stands in for the layer's own; None where no mean is known.

    A mean outside the input's calibrated range lo..hi says that the file's batch normalisation was not fitted to data:
    then none of that tensor's means is believed.
    """
    mean = layer.inputs[0].mean
    if mean is None or (mean < lo).any() or (mean > hi).any():
        return None
    error = layer.params["weight"].astype(np.float64) - weight
    n = error.shape[0]
    error = error.reshape(n, -1, error.shape[-1]).sum(axis=1)  # (n, channels of a group)
    groups = int(layer.attrs.get("groups", 1))
    if error.shape[1] * groups != mean.size:
        return None
    return np.asarray((error * np.repeat(mean.reshape(groups, -1), n // groups, axis=0)).sum(axis=1))
