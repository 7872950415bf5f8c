"""Weights and biases as codes."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from lowbit.graph.net import Array, Layer

_INT32 = 2**31 - 1


def quantize_weights(
    weight: Array, per_channel: bool, bias: Array | None, input_scale: float | None, input_reach: int = 255
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Symmetric int8 codes -127..127, scale = max |w| / 127 per output channel (axis 0) or per tensor, no saturation.

    A channel of zeros, or one whose weights are tiny beside its bias, gets a scale that still lets
    round(bias / (input_scale * scale)) plus any accumulator fit int32.

    Args:
        weight: float32, output channel first.
        per_channel: one scale per output channel, else one.
        bias: float32 (oc) or None.
        input_scale: scale of the input's codes; None where the bias stays in float.
        input_reach: largest |code - zero_point| of the input.

    Returns:
        codes like weight, scales float32 (oc) or (1).
    """
    n = weight.shape[0]
    rows = weight.reshape(n, -1).astype(np.float64)
    highest = np.abs(rows).max(axis=1, initial=0.0)
    if not per_channel:
        highest = highest.max(initial=0.0, keepdims=True)
    scale = highest / 127.0
    if bias is not None and input_scale is not None:
        room = max(_INT32 - rows.shape[1] * 127 * input_reach, 1 << 16)
        floor = np.abs(bias.astype(np.float64)) / (input_scale * min(room // 2, 1 << 30))
        scale = np.maximum(scale, floor if per_channel else floor.max(initial=0.0))
    scale = np.where(scale < 1e-30, 1.0, scale).astype(np.float32)
    codes = np.clip(np.rint(rows / scale.astype(np.float64)[:, None]), -127, 127).astype(np.int8)
    return codes.reshape(weight.shape), scale


def quantize_bias(bias: Array, input_scale: float, weight_scale: NDArray[np.float32]) -> NDArray[np.int32]:
    """round(b / (s_x s_w)), half to even, in float64 (Jacob et al. 2018, section 2.4)."""
    step = float(np.float32(input_scale)) * weight_scale.astype(np.float64)
    return np.clip(np.rint(bias.astype(np.float64) / step), -_INT32, _INT32).astype(np.int32)


def given_codes(layer: Layer, depthwise: bool) -> tuple[Array, NDArray[np.float32], int] | None:
    """The codes that the file brought as int8, scales and zero point; None where the kernels cannot take them."""
    if layer.codes is None:
        return None
    codes, scale, zero = layer.codes.codes, layer.codes.scale, layer.codes.zero_point
    if codes.dtype == np.uint8:
        codes, zero = (codes.astype(np.int16) - 128).astype(np.int8), zero - 128
    if (
        (depthwise and zero != 0)
        or scale.size not in (1, codes.shape[0])
        or not all(math.isfinite(s) and s > 0 for s in scale)
    ):
        return None
    return np.ascontiguousarray(codes), scale, zero
