"""Float layers replaced by low-bit ones, by name or type."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from lowbit.torch.binary.bnn import BinaryConv2d, BinaryLinear
from lowbit.torch.binary.connect import BinaryConnectConv2d, BinaryConnectLinear
from lowbit.torch.binary.layers import BinaryWeightConv2d, BinaryWeightLinear
from lowbit.torch.binary.ternary import TernaryConv2d, TernaryLinear
from lowbit.torch.binary.xnor import XnorConv2d, XnorLinear
from lowbit.torch.compression.codebook_layers import CodebookConv2d, CodebookLinear
from lowbit.torch.few_bits.lq_layers import LQConv2d, LQLinear
from lowbit.torch.int8_training.int8_train import Int8Train, Int8TrainConv2d, Int8TrainLinear

KINDS: dict[
    str,
    tuple[
        type[BinaryWeightLinear | CodebookLinear | LQLinear | Int8TrainLinear],
        type[BinaryWeightConv2d | CodebookConv2d | LQConv2d | Int8TrainConv2d],
    ],
] = {
    "binary_connect": (BinaryConnectLinear, BinaryConnectConv2d),
    "binary": (BinaryLinear, BinaryConv2d),
    "xnor": (XnorLinear, XnorConv2d),
    "ternary": (TernaryLinear, TernaryConv2d),
    "codebook": (CodebookLinear, CodebookConv2d),
    "lq": (LQLinear, LQConv2d),
    "int8_train": (Int8TrainLinear, Int8TrainConv2d),
}

Choice = str | None | Mapping[str, Any] | Callable[[nn.Module], nn.Module]


def swap(model: nn.Module, config: Mapping[str, Choice]) -> nn.Module:
    """Replaces a model's ``nn.Linear`` and ``nn.Conv2d`` layers by low-bit ones that start from the same weights.

    Args:
        model: changed in place.
        config: pattern -> choice, in order. A pattern is matched with ``re.fullmatch`` against the layers' names as
            ``named_modules`` gives them, or is ``op:Linear`` or ``op:Conv2d``; the first match wins; layers that
            nothing matches stay. A choice is one of ``binary_connect``, ``binary``, ``xnor``, ``ternary``,
            ``codebook:B``, ``lq:W/A``, ``int8_train``; a dict ``{"layer": "xnor", "input_scale": True}`` with that
            layer's arguments; a callable that takes the layer and returns its replacement; or ``float32`` or None,
            which keep it.

    Returns:
        The model; its replacement where the model itself is the one layer.

    Raises:
        ValueError: a pattern that matches no layer, an unknown choice, or a layer that has no low-bit form; named.
        TypeError: arguments that the layer does not take; named.

    Example:
        >>> import torch
        >>> from lowbit.torch import swap
        >>> net = torch.nn.Sequential(torch.nn.Conv2d(1, 8, 3), torch.nn.Conv2d(8, 8, 3), torch.nn.Conv2d(8, 8, 3))
        >>> config = {"0": "float32", "2": {"layer": "binary", "pad_value": -1}, "op:Conv2d": "xnor"}
        >>> [type(m).__name__ for m in swap(net, config)]
        ['Conv2d', 'XnorConv2d', 'BinaryConv2d']
    """
    candidates = [
        (name, m) for name, m in model.named_modules(remove_duplicate=False) if type(m) in (nn.Linear, nn.Conv2d)
    ]
    for pattern in config:
        if not any(_matches(pattern, name, layer) for name, layer in candidates):
            names = ", ".join(name or "(the model itself)" for name, _ in candidates) or "none"
            raise ValueError(f"swap: {pattern!r} matches no nn.Linear or nn.Conv2d of the model; it has {names}")
    made: dict[int, nn.Module] = {}  # a layer that the model uses twice is replaced by one
    for name, layer in candidates:
        chosen = next((choice for pattern, choice in config.items() if _matches(pattern, name, layer)), None)
        if id(layer) not in made:
            made[id(layer)] = _replacement(name, layer, chosen)
    for name, layer in candidates:
        if name == "":
            return made[id(layer)]
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, made[id(layer)])
    return model


def _matches(pattern: str, name: str, layer: nn.Module) -> bool:
    if pattern.startswith("op:"):
        return type(layer).__name__ == pattern.removeprefix("op:")
    return re.fullmatch(pattern, name) is not None


def _replacement(name: str, layer: nn.Module, choice: Choice) -> nn.Module:
    if choice is None or choice == "float32":
        return layer
    if callable(choice):
        return choice(layer)
    options: dict[str, Any] = dict(choice) if isinstance(choice, Mapping) else {"layer": choice}
    kind = options.pop("layer", None)
    if isinstance(kind, str) and re.fullmatch("codebook:[1-8]", kind):
        options["bits"], kind = int(kind[-1]), "codebook"
    elif isinstance(kind, str) and re.fullmatch(r"lq:[1-4]/([1-4]|32)", kind):
        (options["w_bits"], options["a_bits"]), kind = map(int, kind[3:].split("/")), "lq"
    if kind not in KINDS:
        raise ValueError(f"swap: {name}: {kind!r} is not one of {', '.join(KINDS)}, float32")
    linear, convolution = KINDS[kind]
    chosen: Any = linear if isinstance(layer, nn.Linear) else convolution
    try:
        made: nn.Module = chosen.from_float(layer, **options)
        if isinstance(made, Int8Train):
            made.name = name  # for its errors
        return made
    except (ValueError, TypeError) as error:
        raise type(error)(f"swap: {name}: {error}") from error
