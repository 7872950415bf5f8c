"""Passes over the float network: what can be folded into a neighbour is, and dead layers go."""

from __future__ import annotations

import math

import numpy as np

from lowbit.graph.net import Array, Layer, Net, Tensor
from lowbit.graph.pointwise_math import apply_f32, is_elementwise

_CLAMPED = ("conv2d", "gemm", "binary")
_OPEN = (-math.inf, math.inf)


def fuse(net: Net) -> None:
    """Run every pass until none changes anything."""
    passes = (
        drop_empty_reshapes,
        raise_transposes,
        merge_slices,
        fold_padding,
        fold_affine,
        fuse_clamps,
        merge_affine,
        recognise_activations,
        drop_estimators,
        merge_steps,
        fuse_maps,
        fuse_residuals,
    )
    changed = True
    while changed:
        changed = False
        for run in passes:
            while run(net):
                changed = True
        net.drop_dead()


class _Uses:
    """Who reads and who writes each tensor, for one pass."""

    def __init__(self, net: Net):
        self.consumers = net.consumers()
        self.producers = net.producers()
        self.outputs = net.output_tensors()

    def only_reader(self, t: Tensor) -> Layer | None:
        """The layer that alone reads ``t``, if it is not also a network output."""
        readers = self.consumers.get(t, [])
        return readers[0] if len(readers) == 1 and t not in self.outputs else None


def _absorb(net: Net, layer: Layer, next_: Layer) -> None:
    """``layer`` takes over the output of ``next_``, which goes."""
    layer.output = next_.output
    net.layers.remove(next_)


def drop_empty_reshapes(net: Net) -> bool:
    """A reshape to the same shape is nothing; of a reshape's result, only the last counts."""
    producers, outputs = net.producers(), net.output_tensors()
    for layer in list(net.layers):
        if layer.op != "reshape":
            continue
        before = producers.get(layer.inputs[0])
        if before is not None and before.op == "reshape" and before.inputs[0].fixed in (None, layer.inputs[0].fixed):
            layer.inputs = [before.inputs[0]]
            return True
        x, y = layer.inputs[0], layer.output
        if x.shape != y.shape or (y in outputs and (x in outputs or before is None)):
            continue
        if x.fixed is not None and y.fixed is not None and x.fixed != y.fixed:
            layer.op = "identity"
            return True
        if y in outputs and before is not None:
            y.fixed = y.fixed or x.fixed
            before.output = y
            net.redirect(x, y)
            net.layers.remove(layer)
        else:
            x.fixed = x.fixed or y.fixed
            net.layers.remove(layer)
            net.redirect(y, x)
        return True
    return False


def raise_transposes(net: Net) -> bool:
    """Padding, slices and activations of an image change places with the transposition that alone reads them.

    So the layers of an NCHW head become NHWC layers, which fold into what follows, and the transposition meets the
    input.
    """
    uses = _Uses(net)
    for layer in net.layers:
        reader = uses.only_reader(layer.output)
        if reader is None or reader.op != "transpose" or len(layer.inputs) != 1:
            continue
        scalar = layer.op in ("unary", "binary", "step") and all(p.size == 1 for p in layer.params.values())
        if layer.op not in ("pad", "slice", "levels") and not scalar:
            continue
        perm = reader.attrs["perm"]
        x, y = layer.inputs[0], reader.output
        turned = Tensor(x.name, tuple(x.shape[p] for p in perm), tuple(x.perm[p] for p in perm), fixed=x.fixed)
        for key in ("before", "after", "starts", "steps"):
            if key in layer.attrs:
                layer.attrs[key] = [layer.attrs[key][p] for p in perm]
        i, j = net.layers.index(layer), net.layers.index(reader)
        reader.inputs, reader.output = [x], turned
        layer.inputs, layer.output = [turned], y
        net.layers[i], net.layers[j] = reader, layer
        return True
    return False


def merge_slices(net: Net) -> bool:
    """A slice of a slice is one slice."""
    uses = _Uses(net)
    for layer in net.layers:
        reader = uses.only_reader(layer.output)
        if layer.op != "slice" or reader is None or reader.op != "slice":
            continue
        a, b = layer.attrs, reader.attrs
        reader.attrs["starts"] = [s + t * d for s, t, d in zip(a["starts"], b["starts"], a["steps"], strict=True)]
        reader.attrs["steps"] = [d * e for d, e in zip(a["steps"], b["steps"], strict=True)]
        reader.inputs = list(layer.inputs)
        net.layers.remove(layer)
        return True
    return False


def _floor(layer: Layer | None) -> float:
    """A lower bound of what a layer gives."""
    if layer is None:
        return -math.inf
    if layer.op == "unary" and layer.attrs["kind"] in ("relu", "sigmoid", "hard_sigmoid", "exp"):
        return 0.0
    if layer.op == "unary" and layer.attrs["kind"] == "clip":
        return float(layer.attrs["alpha"])
    return float(layer.attrs.get("min", -math.inf))


def fold_padding(net: Net) -> bool:
    """Spatial zero padding moves into the convolution or pool that alone reads it."""
    uses = _Uses(net)
    changed = False
    for layer in list(net.layers):
        reader = uses.only_reader(layer.output) if layer.op == "pad" else None
        if (
            reader is None
            or reader.op not in ("conv2d", "max_pool", "average_pool")
            or reader.inputs[0] is not layer.output
        ):
            continue
        before, after, value = layer.attrs["before"], layer.attrs["after"], layer.attrs["value"]
        if before[3] or after[3] or len(reader.inputs) > 1:
            continue
        pads = reader.attrs["pads"]
        if reader.op == "max_pool":
            safe = value == -math.inf or (value == 0.0 and _floor(uses.producers.get(layer.inputs[0])) >= 0.0)
            inside = all(max(b, a) < k for b, a, k in zip(before[1:3], after[1:3], reader.attrs["kernel"], strict=True))
            if not safe or not inside or any(pads):
                continue
        elif value != 0.0:
            continue
        if reader.op == "average_pool":
            if any(pads):
                continue
            reader.attrs["count_include_pad"] = True
        reader.attrs["pads"] = [pads[0] + before[1], pads[1] + before[2], pads[2] + after[1], pads[3] + after[2]]
        reader.inputs[0] = layer.inputs[0]
        net.layers.remove(layer)
        return True
    return changed


def _affine(layer: Layer) -> tuple[Array, Array] | None:
    """(scale, shift) of a binary layer with a constant number or row."""
    b = layer.params.get("b")
    if layer.op != "binary" or b is None or b.ndim != 1:
        return None
    b = b.astype(np.float64)
    one, zero = np.ones(1), np.zeros(1)
    pairs = {"mul": (b, zero), "div": (1.0 / np.where(b == 0, np.nan, b), zero), "add": (one, b), "sub": (one, -b)}
    scale, shift = pairs[layer.attrs["kind"]]
    return (scale, shift) if np.isfinite(scale).all() else None


def _clamp(layer: Layer) -> tuple[float, float]:
    return layer.attrs.get("min", -math.inf), layer.attrs.get("max", math.inf)


def fold_affine(net: Net) -> bool:
    """A batch normalisation, bias or scale after a convolution or product goes into its weights."""
    uses = _Uses(net)
    for layer in net.layers:
        if not layer.is_mac or layer.residual is not None or _clamp(layer) != _OPEN:
            continue
        reader = uses.only_reader(layer.output)
        pair = _affine(reader) if reader is not None else None
        if reader is None or pair is None:
            continue
        scale, shift = pair
        weight = layer.params["weight"]
        n = weight.shape[0]
        if scale.size not in (1, n) or shift.size not in (1, n):
            continue
        bias = layer.params.get("bias", np.zeros(n, np.float32)).astype(np.float64)
        if not (scale == 1.0).all():
            along = np.broadcast_to(scale, (n,)).reshape(n, *(1,) * (weight.ndim - 1))
            layer.params["weight"] = (weight * along).astype(np.float32)
            if layer.basis is not None:
                layer.basis = (layer.basis * scale.reshape(-1, 1)).astype(np.float32)
            if layer.codes is not None:
                if (scale > 0).all():
                    layer.codes.scale = (layer.codes.scale * scale).astype(np.float32)
                else:
                    layer.codes = None
        layer.params["bias"] = (bias * scale + shift).astype(np.float32)
        layer.attrs.update({k: v for k, v in zip(("min", "max"), _clamp(reader), strict=True) if math.isfinite(v)})
        _absorb(net, layer, reader)
        return True
    return False


def merge_affine(net: Net) -> bool:
    """Two scalings, or two shifts, in a row are one."""
    uses = _Uses(net)
    same = {"mul": ("mul", np.multiply), "add": ("add", np.add)}
    for layer in net.layers:
        reader = uses.only_reader(layer.output)
        if (
            reader is None
            or _affine(layer) is None
            or _affine(reader) is None
            or "min" in layer.attrs
            or "max" in layer.attrs
        ):
            continue
        kind = layer.attrs["kind"]
        if kind not in same or reader.attrs["kind"] != kind:
            continue
        b = same[kind][1](layer.params["b"].astype(np.float64), reader.params["b"].astype(np.float64))
        reader.params["b"] = b.astype(np.float32)
        reader.inputs = list(layer.inputs)
        net.layers.remove(layer)
        return True
    return False


def fuse_clamps(net: Net) -> bool:
    """ReLU and Clip become the clamp of the layer that they alone read."""
    uses = _Uses(net)
    changed = False
    for layer in list(net.layers):
        if layer.op not in _CLAMPED:
            continue
        reader = uses.only_reader(layer.output)
        if reader is None or reader.op != "unary" or reader.attrs["kind"] not in ("relu", "clip"):
            continue
        relu = reader.attrs["kind"] == "relu"
        lo, hi = (0.0, math.inf) if relu else (reader.attrs["alpha"], reader.attrs["beta"])
        bounds = [min(max(b, lo), hi) for b in _clamp(layer)]
        for key, bound in zip(("min", "max"), bounds, strict=True):
            if abs(bound) < float(np.finfo(np.float32).max):
                layer.attrs[key] = bound
        _absorb(net, layer, reader)
        return True
    return changed


def _is_number(layer: Layer | None, kind: str, value: float) -> bool:
    if layer is None or layer.op != "binary" or layer.attrs["kind"] != kind or "b" not in layer.params:
        return False
    b = layer.params["b"]
    return b.size == 1 and abs(float(b[0]) - value) <= 1e-6 * abs(value)


def _relu6_of_x_plus_3(layer: Layer | None) -> Tensor | None:
    if layer is None or not _is_number(layer, "add", 3.0) or _clamp(layer) != (0.0, 6.0):
        return None
    return layer.inputs[0]


def recognise_activations(net: Net) -> bool:
    """X * sigmoid(x), and the ways to spell HardSigmoid and HardSwish."""
    producers, uses = net.producers(), _Uses(net)
    for layer in net.layers:
        if layer.op != "binary" or _clamp(layer) != _OPEN:
            continue
        kind = layer.attrs["kind"]
        if len(layer.inputs) == 1:  # relu6(x + 3) / 6, and (x * relu6(x + 3)) / 6
            if not (_is_number(layer, "div", 6.0) or _is_number(layer, "mul", 1.0 / 6.0)):
                continue
            before = producers.get(layer.inputs[0])
            x = _relu6_of_x_plus_3(before)
            if x is not None:
                _become(layer, x, "hard_sigmoid", 1.0 / 6.0, 0.5)
                return True
            if (
                before is not None
                and before.op == "binary"
                and before.attrs["kind"] == "mul"
                and len(before.inputs) == 2
            ):
                for a, b in (before.inputs, before.inputs[::-1]):
                    if _relu6_of_x_plus_3(producers.get(b)) is a and uses.only_reader(before.output) is layer:
                        _become(layer, a, "hard_swish")
                        return True
        elif kind == "mul":
            for a, b in (layer.inputs, layer.inputs[::-1]):
                gate = producers.get(b)
                if gate is None or gate.op != "unary" or gate.inputs[0] is not a:
                    continue
                if gate.attrs["kind"] == "sigmoid":
                    _become(layer, a, "swish")
                    return True
                third = (gate.attrs["alpha"], gate.attrs["beta"])
                if gate.attrs["kind"] == "hard_sigmoid" and np.allclose(third, (1 / 6, 0.5), rtol=1e-6):
                    _become(layer, a, "hard_swish")
                    return True
    return False


def _become(layer: Layer, x: Tensor, kind: str, alpha: float = 0.0, beta: float = 0.0) -> None:
    layer.op, layer.inputs, layer.params = "unary", [x], {}
    layer.attrs = {"kind": kind, "alpha": alpha, "beta": beta}


def drop_estimators(net: Net) -> bool:
    """``(step(x) - p) + p``, a straight-through estimator whose detach() the exporter dropped, is step(x)."""
    producers = net.producers()
    for layer in net.layers:
        if layer.op != "binary" or layer.attrs["kind"] != "add" or len(layer.inputs) != 2:
            continue
        for difference, p in (layer.inputs, layer.inputs[::-1]):
            sub = producers.get(difference)
            if sub is None or sub.op != "binary" or sub.attrs["kind"] != "sub" or len(sub.inputs) != 2:
                continue
            values, other = sub.inputs
            origin = producers.get(values)
            if other is p and origin is not None and origin.op == "step" and _clamp(layer) == _clamp(sub) == _OPEN:
                net.layers.remove(layer)
                net.redirect(layer.output, values)
                return True
    return False


def merge_steps(net: Net) -> bool:
    """What is done to a step's two values is done to the two values."""
    uses = _Uses(net)
    for layer in net.layers:
        reader = uses.only_reader(layer.output) if layer.op == "step" else None
        if reader is None or not (is_elementwise(reader) or reader.op == "step"):
            continue
        values = {key: apply_f32(reader, layer.params[key]) for key in ("low", "high")}
        if any(np.unique(v).size > 1 for v in values.values()) and all(layer.params[k].size == 1 for k in values):
            continue  # the step is worth more than the layer after it
        layer.params |= values
        _absorb(net, layer, reader)
        return True
    return False


def fuse_maps(net: Net) -> bool:
    """A product of signs times a value per row or pixel (XNOR-Net's K) is one layer; biases come after."""
    uses = _Uses(net)
    for layer in net.layers:
        if layer.op != "binary" or layer.attrs["kind"] != "mul" or len(layer.inputs) != 2:
            continue
        t, values = layer.inputs
        mac = uses.producers.get(t)
        if mac is None or not mac.is_mac or uses.only_reader(t) is not layer or values.shape != (*t.shape[:-1], 1):
            continue
        plain = len(mac.inputs) == 1 and _clamp(mac) == _OPEN and not mac.params.get("bias", np.zeros(1)).any()
        if not plain or t.shape[-1] == 1 or not _reads_a_step(mac, uses):
            continue
        mac.params.pop("bias", None)
        mac.inputs.append(values)
        mac.attrs["input_scale"] = True
        mac.attrs.update({k: v for k, v in zip(("min", "max"), _clamp(layer), strict=True) if math.isfinite(v)})
        mac.output = layer.output
        net.layers.remove(mac)
        net.layers[net.layers.index(layer)] = mac  # the map may be written between the two
        return True
    return False


def _reads_a_step(mac: Layer, uses: _Uses) -> bool:
    """Whether the input comes from a step, perhaps padded or moved."""
    producer = uses.producers.get(mac.inputs[0])
    while producer is not None and producer.op in ("pad", "reshape", "max_pool"):
        producer = uses.producers.get(producer.inputs[0])
    return producer is not None and producer.op == "step"


def fuse_residuals(net: Net) -> bool:
    """An addition becomes the residual of the convolution or product before it, with its clamp."""
    uses = _Uses(net)
    order = {layer: i for i, layer in enumerate(net.layers)}
    for layer in net.layers:
        if layer.op != "binary" or layer.attrs["kind"] != "add" or len(layer.inputs) != 2:
            continue
        a, b = layer.inputs
        if a.shape != b.shape or a is b:
            continue
        candidates = []
        for t, other in ((a, b), (b, a)):
            mac = uses.producers.get(t)
            free = mac is not None and mac.is_mac and mac.residual is None and _clamp(mac) == _OPEN
            if mac is not None and free and uses.only_reader(t) is layer:
                candidates.append(((_reads_a_step(mac, uses), order[mac]), mac, other))
        if not candidates:
            continue
        _, mac, other = max(candidates, key=lambda c: c[0])  # a binary one can give the sum's bits in passing
        mac.inputs.insert(1, other)
        mac.attrs.update({k: layer.attrs[k] for k in ("min", "max") if k in layer.attrs})
        mac.output = layer.output
        net.layers.remove(mac)
        net.layers[net.layers.index(layer)] = mac  # the residual may be written between the two
        return True
    return False
