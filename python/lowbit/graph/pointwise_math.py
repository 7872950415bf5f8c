"""Elementwise layers as plain functions of real numbers: what look-up tables are filled from."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from lowbit.graph.net import Array, Layer


def _sigmoid(x: Array) -> Array:
    return np.where(x >= 0, 1.0 / (1.0 + np.exp(-np.abs(x))), np.exp(-np.abs(x)) / (1.0 + np.exp(-np.abs(x))))


_UNARY: dict[str, Callable[[Array, float, float], Array]] = {
    "relu": lambda x, a, b: np.maximum(x, 0.0),
    "clip": lambda x, a, b: np.minimum(np.maximum(x, a), b),
    "sigmoid": lambda x, a, b: _sigmoid(x),
    "hard_sigmoid": lambda x, a, b: np.clip(a * x + b, 0.0, 1.0),
    "hard_swish": lambda x, a, b: x * np.clip(x / 6.0 + 0.5, 0.0, 1.0),
    "swish": lambda x, a, b: x * _sigmoid(x),
    "leaky_relu": lambda x, a, b: np.where(x > 0, x, a * x),
    "tanh": lambda x, a, b: np.tanh(x),
    "exp": lambda x, a, b: np.exp(x),
}
_BINARY: dict[str, Callable[[Array, Array], Array]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
}


def is_elementwise(layer: Layer) -> bool:
    """Whether the layer is a function of one number, or of one number and its channel."""
    if layer.op in ("unary", "prelu"):
        return True
    return layer.op == "binary" and "b" in layer.params and layer.params["b"].ndim == 1


def apply(layer: Layer, x: Array) -> Array:
    """The layer's function of float64 values whose last axis is the channel (or broadcasts against it)."""
    if layer.op == "unary":
        with np.errstate(over="ignore"):
            return _UNARY[layer.attrs["kind"]](x, float(layer.attrs["alpha"]), float(layer.attrs["beta"]))
    if layer.op == "prelu":
        return np.where(x > 0, x, x * layer.params["slope"].astype(np.float64))
    with np.errstate(divide="ignore", invalid="ignore"):
        y = _BINARY[layer.attrs["kind"]](x, layer.params["b"].astype(np.float64))
    return np.clip(y, layer.attrs.get("min", -math.inf), layer.attrs.get("max", math.inf))


def channels(layer: Layer) -> int:
    """How many channels the function tells apart."""
    constant = layer.params.get("slope", layer.params.get("b"))
    return 1 if constant is None else int(constant.size)
