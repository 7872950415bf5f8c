"""Sizes of layers: what those of every room ask of them."""

from typing import Any

from torch import nn


def pair(value: int | tuple[int, ...]) -> tuple[int, int]:
    """One number for both axes, or two."""
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def layer_sizes(name: str, layer: nn.Linear | nn.Conv2d) -> dict[str, Any]:
    """A layer's sizes, as the arguments that make another.

    Raises:
        ValueError: a convolution's padding_mode is not ``zeros``; says so of ``name``.
    """
    if isinstance(layer, nn.Linear):
        return {"in_features": layer.in_features, "out_features": layer.out_features, "bias": layer.bias is not None}
    if layer.padding_mode != "zeros":
        raise ValueError(f"{name}: padding_mode {layer.padding_mode!r} is not 'zeros'")
    return {
        "in_channels": layer.in_channels,
        "out_channels": layer.out_channels,
        "kernel_size": pair(layer.kernel_size),
        "stride": pair(layer.stride),
        "padding": layer.padding if isinstance(layer.padding, str) else pair(layer.padding),
        "dilation": pair(layer.dilation),
        "groups": layer.groups,
        "bias": layer.bias is not None,
    }


def named_padding(
    name: str,
    padding: str,
    kernel_size: int | tuple[int, int],
    stride: int | tuple[int, int],
    dilation: int | tuple[int, int],
) -> tuple[int, int]:
    """``valid``, or ``same`` where it is symmetric."""
    if padding == "valid":
        return 0, 0
    if padding != "same":
        raise ValueError(f"{name}: padding {padding!r} is not a number, 'same' or 'valid'")
    total = [d * (k - 1) for k, d in zip(pair(kernel_size), pair(dilation), strict=True)]
    if pair(stride) != (1, 1) or total[0] % 2 or total[1] % 2:
        raise ValueError(f"{name}: padding 'same' needs stride 1 and an odd kernel, not {stride} and {kernel_size}")
    return total[0] // 2, total[1] // 2
