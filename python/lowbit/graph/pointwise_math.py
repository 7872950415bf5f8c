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


def apply_f32(layer: Layer, x: Array) -> Array:
    """The same in the engine's float32 arithmetic, one rounding per operation, for float32 values; steps too."""
    if layer.op == "step":
        return np.where(x >= layer.params["threshold"], layer.params["high"], layer.params["low"])
    if layer.op == "prelu":
        return np.where(x > 0, x, x * layer.params["slope"])
    if layer.op == "binary":
        with np.errstate(all="ignore"):
            y = _BINARY[layer.attrs["kind"]](x, layer.params["b"])
        lo, hi = (np.float32(layer.attrs.get(k, v)) for k, v in (("min", -math.inf), ("max", math.inf)))
        clamped: Array = np.clip(y, lo, hi)
        return clamped
    return apply(layer, x.astype(np.float64)).astype(np.float32)


def direction(layer: Layer) -> Array | None:
    """+1 where the layer rises with its input, -1 where it falls, 0 where it is constant: (1) or (c).

    None where it does neither, or is no elementwise layer.
    """
    one = np.ones(1, np.int64)
    if layer.op == "step":
        signs: Array = np.sign(layer.params["high"] - layer.params["low"]).astype(np.int64)
        return signs
    if layer.op == "prelu":
        return one if (layer.params["slope"] >= 0).all() else None
    if layer.op == "unary":
        kind, alpha = layer.attrs["kind"], layer.attrs.get("alpha", 0.0)
        rises = kind in ("relu", "clip", "sigmoid", "tanh", "exp") or (
            kind in ("hard_sigmoid", "leaky_relu") and alpha >= 0
        )
        return one if rises else None
    if not is_elementwise(layer):
        return None
    sign: Array = np.sign(layer.params["b"]).astype(np.int64)
    if layer.attrs["kind"] == "div":
        return sign if sign.all() else None
    return sign if layer.attrs["kind"] == "mul" else one


def channels(layer: Layer) -> int:
    """How many channels the function tells apart."""
    constant = layer.params.get("slope", layer.params.get("b"))
    return 1 if constant is None else int(constant.size)
