"""Networks for the search's tests: every way in which layers hand on tensors, small enough to try all assignments."""

from __future__ import annotations

import random

import numpy as np

from lowbit.mixed_precision import LatencyTable, Measured
from lowbit.mixed_precision.latency import machine
from onnx_nets import net, node


def residual(seed=0, channels=4, size=6):
    """Three convolutions, the last with a residual, a pool and a product."""
    rng = np.random.default_rng(seed)
    weights = {"stem.weight": (channels, 3, 3, 3), "a.weight": (channels, channels, 3, 3),
               "b.weight": (channels, channels, 3, 3), "fc.weight": (5, channels)}  # fmt: skip
    arrays = {n: rng.normal(0, (2 / np.prod(s[1:])) ** 0.5, s).astype(np.float32) for n, s in weights.items()}
    arrays["axes"] = np.array([-1, channels], np.int64)
    nodes = [
        node("Conv", ["x", "stem.weight"], ["c0"], pads=[1, 1, 1, 1]),
        node("Relu", ["c0"], ["t0"]),
        node("Conv", ["t0", "a.weight"], ["c1"], pads=[1, 1, 1, 1]),
        node("Relu", ["c1"], ["t1"]),
        node("Conv", ["t1", "b.weight"], ["c2"], pads=[1, 1, 1, 1]),
        node("Add", ["c2", "t0"], ["s"]),
        node("Relu", ["s"], ["t2"]),
        node("GlobalAveragePool", ["t2"], ["p"]),
        node("Reshape", ["p", "axes"], ["f"]),
        node("Gemm", ["f", "fc.weight"], ["y"], transB=1),
    ]
    return net(nodes, {"x": (3, size, size)}, arrays)


def branches(seed=0):
    """Two convolutions joined by Concat, read by two more that are added: tensors with several readers and writers."""
    rng = np.random.default_rng(seed)
    shapes = {"a": (3, 3, 1, 1), "b": (3, 3, 3, 3), "c": (4, 6, 1, 1), "d": (4, 6, 1, 1)}
    arrays = {f"{n}.weight": rng.normal(0, 0.5, s).astype(np.float32) for n, s in shapes.items()}
    nodes = [
        node("Conv", ["x", "a.weight"], ["ca"]),
        node("Conv", ["x", "b.weight"], ["cb"], pads=[1, 1, 1, 1]),
        node("Concat", ["ca", "cb"], ["j"], axis=1),
        node("MaxPool", ["j"], ["m"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", ["m", "c.weight"], ["cc"]),
        node("Conv", ["m", "d.weight"], ["cd"]),
        node("Sigmoid", ["cd"], ["g"]),
        node("Mul", ["cc", "g"], ["y"]),
    ]
    return net(nodes, {"x": (3, 6, 6)}, arrays)


def made_up(space, seed=0):
    """A table with a random time for everything that the space can contain."""
    rng = random.Random(seed)
    keys = sorted(set().union(*(keys for _, keys in space.probes)))
    table = {k: Measured(k, "", "", "", "", "", (), 0, rng.uniform(0.1, 2.0)) for k in keys}
    return LatencyTable(table, 0.125, machine(1))
