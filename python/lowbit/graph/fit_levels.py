"""Recipe ``lq:W/A`` on a float network: bases fitted to trained weights and to what calibration saw."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from lowbit import lq
from lowbit.graph.levels import leveled
from lowbit.graph.net import Array, Layer, Net, Tensor
from lowbit.graph.precision import Ranges, non_negative_tensors
from lowbit.graph.recipe import Recipe

_SAMPLE = 1 << 14  # values that stand for an activation


def fit_levels(net: Net, recipes: list[Recipe], forced: set[str], ranges: Ranges) -> tuple[Net, list[Recipe]]:
    """The network with a layer of levels before every product that the recipe reaches, and the recipes of its layers.

    Products that come with levels keep theirs. The others are quantized where their input cannot be negative and a
    range of it is known, except the last ones before the outputs (unless an override names them), depthwise ones and
    those on the network's input: they keep the recipe's rest (Zhang et al. 2018, section 4: the first and the last
    layer are not quantized).

    Args:
        net: fused, named layers; unchanged.
        recipes: one per layer.
        forced: names of layers that an override chose.
        ranges: of the activations; with histograms bases are fitted to them, else spread evenly over the range.
    """
    wanted = [r.is_leveled and r.activation_bits <= 4 for r in recipes]
    if not any(wanted) or ranges.table is None:
        return net, recipes
    values, non_negative, last = leveled(net), non_negative_tensors(net), _last_products(net)
    layers: list[Layer] = []
    chosen: list[Recipe] = []
    made: dict[tuple[Tensor, int], Tensor] = {}
    for layer, recipe, fits in zip(net.layers, recipes, wanted, strict=True):
        if (
            fits
            and layer.is_mac
            and layer.basis is None
            and layer.scale_map is None
            and layer.inputs[0] in non_negative
            and layer.inputs[0] not in values
            and (layer not in last or layer.name in forced)
            and not 1 < layer.attrs.get("groups", 1) == layer.inputs[0].shape[-1]
            and (basis := _input_basis(ranges, layer.inputs[0], recipe.activation_bits)) is not None
        ):
            x = layer.inputs[0]
            key = (x, recipe.activation_bits)
            if key not in made:
                made[key] = Tensor(f"{x.name}:levels", x.shape, x.perm, x.flat)
                levels = Layer("levels", [x], made[key], params={"basis": basis}, onnx_op="LevelQuantize")
                levels.name = f"{layer.name}.levels"
                layers.append(levels)
                chosen.append(recipe)
            layer = _in_levels(layer, made[key], recipe.bits, ranges.mean(x))
        layers.append(layer)
        chosen.append(recipe)
    return Net(layers, net.inputs, net.outputs, net.quantized), chosen


def _in_levels(layer: Layer, x: Tensor, bits: int, mean: Array | None) -> Layer:
    """A product of x with a fitted basis per output channel; its bias takes back what the weights' means lost."""
    weight, n = layer.params["weight"], layer.params["weight"].shape[0]
    basis = lq.fit_basis(weight, bits, signed=True, per_row=True)
    rounded = lq.quantize(weight, basis, signed=True)
    params = {**layer.params, "weight": rounded}
    if mean is not None:
        groups = int(layer.attrs.get("groups", 1))
        error = (weight.astype(np.float64) - rounded).reshape(n, -1, weight.shape[-1]).sum(axis=1)
        shift = (error * np.repeat(mean.reshape(groups, -1), n // groups, axis=0)).sum(axis=1)
        params["bias"] = (layer.params.get("bias", np.zeros(n, np.float32)) + shift).astype(np.float32)
    return replace(layer, inputs=[x, *layer.inputs[1:]], params=params, basis=basis, codes=None)


def _input_basis(ranges: Ranges, t: Tensor, bits: int) -> Array | None:
    """A basis for an activation, or None where nothing is known of it."""
    if ranges.table is None or t.name not in ranges.table:
        return None
    histogram = getattr(ranges.table[t.name], "histogram", None)
    if histogram is None or histogram.count == 0:
        params = ranges.params(t.name, "uint8", True)
        assert params is not None
        return np.asarray(params.range[1] / (2**bits - 1) * 2.0 ** np.arange(bits), np.float32)
    counts, first = histogram.signed()
    centres = (first + np.arange(len(counts)) + 0.5) * histogram.width
    centres[: 1 - first] = 0.0  # the bin of the zeros of a ReLU
    places = (np.arange(_SAMPLE) + 0.5) * (counts.sum() / _SAMPLE)
    sample = centres[np.searchsorted(np.cumsum(counts), places, side="right").clip(max=len(counts) - 1)]
    return np.asarray(lq.fit_basis(sample.astype(np.float32), bits, signed=False), np.float32)


def _last_products(net: Net) -> set[Layer]:
    """Products whose results reach an output of the network without another product."""
    reached = set(net.output_tensors())
    found: set[Layer] = set()
    for layer in reversed(net.layers):
        if layer.output in reached:
            if layer.is_mac:
                found.add(layer)
                side: Iterable[Tensor] = layer.inputs[1:]
            else:
                side = layer.inputs
            reached.update(side)
    return found
