"""Weights and biases as codes."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from lowbit.graph.net import Array, Layer

_INT32 = 2**31 - 1


def quantize_weights(
    weight: Array,
    per_channel: bool,
    bias: Array | None,
    input_scale: float | None,
    input_reach: int = 255,
    bits: int = 8,
    bias_limit: int = 1 << 30,
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Symmetric int8 codes -127..127, scale = max |w| / 127 per output channel (axis 0) or per tensor, no saturation.

    With fewer bits 2^(bits - 1) - 1 takes the place of 127, and the scale is ``clip_scale``'s: the largest saturate.

    Codes are rounded so that the errors of each output channel sum to at most half a step (``balance``). A channel
    of zeros, or one whose weights are tiny beside its bias, gets a scale that still lets
    round(bias / (input_scale * scale)) plus any accumulator fit int32.

    Args:
        weight: float32, output channel first.
        per_channel: one scale per output channel, else one.
        bias: float32 (oc) or None.
        input_scale: scale of the input's codes; None where the bias stays in float.
        input_reach: largest |code - zero_point| of the input.
        bits: 2 to 8.
        bias_limit: greatest code of a bias; 2^22 where fixed-point roundings are to be fast (csrc/requantize).

    Returns:
        codes like weight, scales float32 (oc) or (1).
    """
    scale = weight_scales(weight, per_channel, bias, input_scale, input_reach, bits, bias_limit)
    rows = weight.reshape(weight.shape[0], -1).astype(np.float64)
    taps = int(np.prod(weight.shape[1:-1])) if bits < 8 else 1
    codes = balance(rows / scale.astype(np.float64)[:, None], (1 << (bits - 1)) - 1, taps).astype(np.int8)
    return codes.reshape(weight.shape), scale


def weight_scales(
    weight: Array,
    per_channel: bool,
    bias: Array | None,
    input_scale: float | None,
    input_reach: int = 255,
    bits: int = 8,
    bias_limit: int = 1 << 30,
) -> NDArray[np.float32]:
    """The scales of :func:`quantize_weights`, (oc) or (1)."""
    rows = weight.reshape(weight.shape[0], -1).astype(np.float64)
    top = (1 << (bits - 1)) - 1
    groups = rows if per_channel else rows.reshape(1, -1)
    wide = np.abs(groups).max(axis=1, initial=0.0) / top if bits == 8 else clip_scale(groups, top)
    if bias is not None and input_scale is not None:
        room = max(_INT32 - rows.shape[1] * top * input_reach, 1 << 16)
        floor = np.abs(bias.astype(np.float64)) / (input_scale * min(room // 2, bias_limit))
        wide = np.maximum(wide, floor if per_channel else floor.max(initial=0.0))
    return np.where(wide < 1e-30, 1.0, wide).astype(np.float32)


def clip_scale(rows: NDArray[np.float64], top: int) -> NDArray[np.float64]:
    """The scale of each row at which codes -top..top, the largest weights saturated, have the smallest error.

    The error is the mean square from 5 bits on, and the mean fourth power below, where the largest weights must not
    lose too much: on ResNet-20 without training that is 89.7 instead of 85.0 % at 3 bits (activations of 8).

    Args:
        rows: (n, k).
        top: the highest code, 2^(bits - 1) - 1.

    Returns:
        (n), 0 for rows of zeros.

    Example:
        >>> clip_scale(np.array([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]]), 3).round(3)
        array([1., 0.])
    """
    values = rows.astype(np.float32)
    highest = np.abs(values).max(axis=1, initial=0.0, keepdims=True) / np.float32(top)
    values /= np.where(highest > 0, highest, np.float32(1))  # the largest is top: no fourth power runs out of range
    best, least = np.ones(highest.shape, np.float32), np.full(highest.shape, np.inf)
    # With few weights the error is a rugged function of the scale and wants a closer look.
    for scale in np.linspace(1.0, 0.05, 40 + 1200 // max(rows.shape[1], 1), dtype=np.float32):
        error = np.square(values - np.clip(np.rint(values / scale), -top, top) * scale)
        total = (error if top > 7 else np.square(error)).sum(axis=1, keepdims=True)
        best, least = np.where(total < least, scale, best), np.minimum(total, least)
    return np.asarray((best * highest)[:, 0], np.float64)


def balance(rows: NDArray[np.float64], top: int = 127, taps: int = 1) -> NDArray[np.float64]:
    """Round each row to whole numbers within -top..top whose sum is the row's, to half a unit, where that can be.

    Values are rounded to nearest; then, where the errors of a row sum to E, the round(|E|) values that were nearest
    to a tie on that side are rounded the other way. Activations after ReLU have a positive mean, which would turn a
    row's summed error into a shift of its output channel: on MobileNetV2 and EfficientNet-lite0 this gives 2 and 3 dB
    at the output.

    With ``taps`` the sums of kernels come first, whose inputs are neighbours and so much alike; then at most one value
    of each kernel turns for the row. In few bits that is a point of accuracy or two (ResNet-20); in 8 it is not needed.

    Args:
        rows: (n, k); values beyond ``top`` saturate, the others keep to their floor or ceiling.
        top: highest code.
        taps: k is (taps, channels): the weights of a kernel lie k / taps apart.

    Returns:
        (n, k) whole numbers.

    Source: SQuant (Guo et al. 2022, arXiv 2202.07471), the kernel-wise and the channel-wise step.

    Example:
        >>> balance(np.array([[0.4, 0.4, 0.4, -3.0]]))
        array([[ 1.,  0.,  0., -3.]])
    """
    if taps == 1:
        codes: NDArray[np.float64] = np.clip(np.rint(rows), -top, top)
        error = codes - rows
        total = np.rint(error.sum(axis=1))[:, None]
        gain = np.where(np.abs(codes - np.sign(total)) <= top, np.sign(total) * error, 0.0)
        return np.asarray(codes - _foremost(gain, total) * np.sign(total))
    n, k = rows.shape
    kernels = rows.reshape(n, taps, -1).transpose(0, 2, 1)  # (n, channels, taps)
    codes = balance(kernels.reshape(-1, taps), top).reshape(kernels.shape)
    error = codes - kernels
    total = np.rint(error.sum(axis=(1, 2)))[:, None]
    side = np.sign(total)[:, :, None]
    gain = np.where(np.abs(codes - side) <= top, side * error, 0.0)
    turned = _foremost(np.where(gain.max(axis=2) > 0, side[:, :, 0] * error.sum(axis=2), 0.0), total)
    codes -= side * turned[:, :, None] * (np.arange(taps) == gain.argmax(axis=2)[:, :, None])
    return codes.transpose(0, 2, 1).reshape(n, k)


def _foremost(gain: NDArray[np.float64], total: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Of each row of gains (n, m) the |total| (n, 1) largest that are > 0."""
    order = np.argsort(-gain, axis=1, kind="stable")
    wanted = np.minimum(np.abs(total), (gain > 0).sum(axis=1, keepdims=True))
    found = np.zeros(gain.shape, dtype=bool)
    np.put_along_axis(found, order, np.arange(gain.shape[1]) < wanted, axis=1)
    return found


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


def mean_shift(layer: Layer, mean: NDArray[np.float64], codes: Array, scale: NDArray[np.float32]) -> Array:
    """What rounded weights take from the mean of each output channel: (W - W_q) E[x], float64 (oc).

    Its bias can take that back. On MobileNetV2 it is worth 3 dB at the output and 1.5 points of agreement with float;
    expecting E[x] from the file's batch normalisations instead of measuring it was worth half a dB.

    Args:
        layer: convolution or product, its float weights output channel first, input channel last.
        mean: E[x] per input channel.
        codes: W_q as codes.
        scale: of the codes, (oc) or (1).

    Source: Nagel et al. 2019 (arXiv 1906.04721), section 4.2.
    """
    n = codes.shape[0]
    error = layer.params["weight"].astype(np.float64).reshape(n, -1, codes.shape[-1])
    error = (error - codes.reshape(error.shape) * scale.reshape(-1, 1, 1).astype(np.float64)).sum(axis=1)
    groups = int(layer.attrs.get("groups", 1))
    return np.asarray((error * np.repeat(mean.reshape(groups, -1), n // groups, axis=0)).sum(axis=1))
