"""Back to float, layer by layer, until the accuracy is kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from lowbit.graph.net import Array, Net
from lowbit.graph.recipe import parse_recipe

if TYPE_CHECKING:
    from lowbit.model import Model

_RANKING_SAMPLES = 16
_BATCH = 16


def fall_back(
    net: Net,
    make: Callable[..., Model],
    overrides: dict[str, Any],
    max_drop: float,
    data: tuple[Any, Any] | None,
    evaluate: Callable[[Model], float] | None,
    progress: Callable[[str, int, int | None], None] | None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Keep the layers that hurt most in float32, one more at a time, until the drop is at most ``max_drop``.

    Layers are ranked by the output's error when they alone are quantized (with ``data``), else by the score that
    ``evaluate`` then gives. The float network itself is the last resort, so the loop always ends.

    Returns:
        The overrides that meet the drop, and a note for the manifest: the float network's score, the score reached, and
        the layers kept in float.
    """
    if data is not None:
        inputs, labels = np.asarray(data[0]), np.asarray(data[1])
        if len(inputs) != len(labels) or not len(inputs):
            raise ValueError(f"convert: data has {len(inputs)} inputs and {len(labels)} labels")
    score = evaluate or (lambda model: top1(model, inputs, labels))
    reference = make({}, parse_recipe("float32"))
    target = score(reference) - max_drop
    reached = score(make(overrides))
    if reached >= target:
        return overrides, {"float": target + max_drop, "reached": reached, "kept_in_float": []}
    macs = [layer.name for layer in net.layers if layer.is_mac]
    losses = []
    wanted = None if data is None else _outputs(reference, inputs[:_RANKING_SAMPLES])
    for i, name in enumerate(macs):
        others: dict[str, Any] = {_literal(other): "float32" for other in macs if other != name}
        alone = make({**others, **overrides})
        if wanted is None:
            losses.append(-score(alone))
        else:
            losses.append(float(((_outputs(alone, inputs[:_RANKING_SAMPLES]) - wanted) ** 2).sum()))
        if progress is not None:
            progress("rank layers", i + 1, len(macs))
    kept: list[str] = []
    chosen = overrides
    for i in np.argsort(losses)[::-1]:
        kept.append(macs[int(i)])
        chosen = {**{_literal(k): "float32" for k in kept}, **overrides}
        reached = score(make(chosen))
        if progress is not None:
            progress("fall back", len(kept), len(macs))
        if reached >= target:
            break
    return chosen, {"float": target + max_drop, "reached": reached, "kept_in_float": kept}


def _literal(name: str) -> str:
    import re

    return re.escape(name)


def _outputs(model: Model, x: Array) -> Array:
    y = model.run(x)
    return np.asarray(y if not isinstance(y, dict) else next(iter(y.values())))


def top1(model: Model, inputs: Array, labels: Array) -> float:
    """Top-1 accuracy in percent."""
    right = 0
    for i in range(0, len(inputs), _BATCH):
        right += int((_outputs(model, inputs[i : i + _BATCH]).argmax(axis=-1) == labels[i : i + _BATCH]).sum())
    return 100.0 * right / len(inputs)
