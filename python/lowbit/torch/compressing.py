"""Deep Compression of a module, with retraining: pruned, then with shared weights."""

import copy
import re
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from lowbit.torch.compression.codebook_layers import unshared
from lowbit.torch.compression.pruner import Pruner
from lowbit.torch.swapping import swap


def compress_module(
    model: nn.Module,
    sparsity: float | Mapping[str, float] | None,
    bits: int | Mapping[str, int],
    finetune: Callable[[nn.Module, str], None],
    init: str = "linear",
    per: str = "tensor",
) -> nn.Module:
    """Prune, retrain, share, fine-tune: a copy of a module, in float, whose weights take few values.

    Args:
        model: unchanged.
        sparsity: share of weights to drop, or layer pattern -> share, as in ``lowbit.compress``.
        bits: of a code, or layer pattern -> bits.
        finetune: called with the module and ``"prune"``, then ``"codebook"``; it may make an optimiser of its own.
        init: of k-means.
        per: what has a codebook of its own, see ``lowbit.compression.share_weights``.

    Raises:
        ValueError: see :class:`Pruner` and :func:`lowbit.torch.swap`.
    """
    model = copy.deepcopy(model)
    if sparsity:
        pruner = Pruner(model)
        shares = _by_name(sparsity, pruner.layers)
        pruner.prune({re.escape(name): 1 - share for name, share in shares.items()})
        hook = register_optimizer_step_post_hook(lambda *_: pruner.apply())
        try:
            finetune(model, "prune")
        finally:
            hook.remove()
        pruner.apply()
    layers = {n: m for n, m in model.named_modules() if type(m) in (nn.Linear, nn.Conv2d)}
    options = {"layer": "codebook", "init": init, "per": per}
    choices = {re.escape(n): options | {"bits": b} for n, b in _by_name(bits, layers).items()}
    model = swap(model, choices)
    finetune(model, "codebook")
    return unshared(model)


_ONNX = {"Conv": nn.Conv2d, "Gemm": nn.Linear, "MatMul": nn.Linear}


def _by_name(given: Any, layers: Mapping[str, nn.Module]) -> dict[str, Any]:
    """The value of every layer that a pattern, or one value for all, gives one."""
    if not isinstance(given, Mapping):
        return dict.fromkeys(layers, given)

    def matches(pattern: str, name: str, layer: nn.Module) -> bool:
        kind = pattern.removeprefix("op:")
        if kind in _ONNX:
            return isinstance(layer, _ONNX[kind])
        return type(layer).__name__ == kind or re.fullmatch(pattern, name) is not None

    found = {n: next((v for p, v in given.items() if matches(p, n, m)), None) for n, m in layers.items()}
    return {name: value for name, value in found.items() if value is not None}
