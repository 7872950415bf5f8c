"""Operators on bits: the engine against the NumPy reference, every level, one and two threads."""

from typing import Any

import numpy as np
import pytest

from lowbit import _core
from tiny_nets import Net, check


def packed(net: Net, *shape: int) -> np.ndarray:
    return np.packbits(net.rng.integers(0, 2, int(np.prod(shape)), dtype=np.uint8), bitorder="little")


def binarized(net: Net, shape: tuple[int, ...]) -> int:
    x = net.input("float32", shape)
    return net.op("binarize", [x], net.tensor("bits", shape))


def seen(net: Net, t: int) -> int:
    """Bits are no output of a network; their values as float32 are."""
    shape = tuple(net.plan["tensors"][t]["shape"][1:])
    return net.op("dequantize", [t], net.tensor("float32", shape))


@pytest.mark.parametrize("c", [1, 31, 32, 33, 70])
def test_binarize_float(c: int):
    net = Net()
    x = net.input("float32", (3, 4, c))
    t = net.rng.normal(size=c).astype(np.float32)
    t[0] = -np.inf
    flip = net.rng.integers(0, 2, c, dtype=np.uint8)
    bits = net.op("binarize", [x], net.tensor("bits", (3, 4, c)), {"threshold": t, "flip": flip})
    one = net.op("binarize", [x], net.like(bits), {"threshold": np.float32([0.3])})
    plain = net.op("binarize", [x], net.like(bits))
    check(net.outputs(seen(net, bits), seen(net, one), seen(net, plain)))


@pytest.mark.parametrize("dtype, zero", [("int8", -3), ("uint8", 130), ("uint8", None)])
def test_binarize_codes(dtype: str, zero: int | None):
    net = Net()
    x = net.input(dtype, (5, 37), *([] if zero is None else [0.1, zero]))
    t = net.rng.uniform(-140, 140 if dtype == "int8" else 270, 37).astype(np.float32)
    t[:3] = [np.inf, -np.inf, 3.0]
    flip = net.rng.integers(0, 2, 37, dtype=np.uint8)
    outputs = [net.op("binarize", [x], net.tensor("bits", (5, 37)), {"threshold": t, "flip": flip})]
    if zero is not None:
        outputs.append(net.op("binarize", [x], net.like(outputs[0])))
    check(net.outputs(*(seen(net, y) for y in outputs)))


CONVS: list[tuple[tuple[int, int, int], int, tuple[int, int], dict[str, Any]]] = [
    ((5, 6, 32), 32, (3, 3), {"pads": [1, 1, 1, 1]}),
    ((5, 6, 20), 33, (3, 3), {"pads": [1, 0, 2, 1], "pad_value": 1, "strides": [2, 1]}),
    ((7, 5, 64), 5, (2, 3), {"pads": [1, 1, 0, 1], "pad_value": -1, "dilations": [2, 1]}),
    ((4, 4, 12), 40, (1, 1), {"groups": 2, "strides": [2, 2]}),
    ((5, 5, 96), 6, (3, 3), {"groups": 3, "pads": [1, 1, 1, 1]}),
]


def out_size(shape: tuple[int, int, int], kernel: tuple[int, int], attrs: dict[str, Any]) -> tuple[int, int]:
    pads, strides = attrs.get("pads", [0] * 4), attrs.get("strides", [1, 1])
    dilations = attrs.get("dilations", [1, 1])
    h, w = ((shape[i] + pads[i] + pads[i + 2] - dilations[i] * (kernel[i] - 1) - 1) // strides[i] + 1 for i in range(2))
    return h, w


@pytest.mark.parametrize("shape, oc, kernel, attrs", CONVS)
def test_xnor_conv2d(shape: tuple[int, int, int], oc: int, kernel: tuple[int, int], attrs: dict[str, Any]):
    net = Net()
    x = binarized(net, shape)
    attrs = {**attrs, "kernel": list(kernel)}
    y = (*out_size(shape, kernel, attrs), oc)
    depth = kernel[0] * kernel[1] * shape[2] // attrs.get("groups", 1)
    weight = {"weight": packed(net, oc, depth)}
    flip = {"flip": net.rng.integers(0, 2, oc, dtype=np.uint8)}
    affine = {
        "scale": net.rng.normal(size=oc).astype(np.float32),
        "bias": net.rng.normal(size=oc).astype(np.float32),
    }
    whole = {"threshold": net.rng.integers(-depth // 2, depth // 2 + 1, oc, dtype=np.int32)}
    real = {"threshold": net.rng.normal(size=oc).astype(np.float32)}
    r = net.input("float32", y)
    k = net.input("float32", (*y[:2], 1))
    bits = net.tensor("bits", y)

    def real_output() -> int:
        return net.tensor("float32", y)

    outputs = [
        seen(net, net.op("xnor_conv2d", [x], bits, {**weight, **whole, **flip}, **attrs)),
        net.op("xnor_conv2d", [x], real_output(), weight, **attrs),
        net.op("xnor_conv2d", [x, r], real_output(), {**weight, **affine}, **attrs, min=-1.0, max=2.0),
        net.op("xnor_conv2d", [x, k], real_output(), {**weight, "scale": np.float32([0.2])}, **attrs, input_scale=True),
    ]
    both = [real_output(), net.like(bits)]
    net.op("xnor_conv2d", [x, r, k], both[0], {**weight, **affine, **real, **flip}, **attrs, input_scale=True)
    net.plan["ops"][-1]["outputs"] = both
    outputs += [both[0], seen(net, both[1])]
    compared = net.op("xnor_conv2d", [x, r], net.like(bits), {**weight, **affine}, **attrs)
    check(net.outputs(*outputs, seen(net, compared)))


@pytest.mark.parametrize("k, n", [(1, 1), (33, 7), (64, 64), (200, 33)])
def test_xnor_gemm(k: int, n: int):
    net = Net()
    x = binarized(net, (3, k))
    weight = {"weight": packed(net, n, k)}
    h = net.op("xnor_gemm", [x], net.tensor("bits", (3, n)), {**weight, "threshold": np.zeros(n, np.int32)})
    y = net.op("xnor_gemm", [h], net.tensor("float32", (3, 5)), {"weight": packed(net, 5, n)})
    f = net.op("reshape", [h], net.tensor("bits", (3 * n,)))  # rows that are no whole words move
    z = net.op("xnor_gemm", [f], net.tensor("float32", (5,)), {"weight": packed(net, 5, 3 * n)})
    check(net.outputs(y, z, seen(net, f)))


@pytest.mark.parametrize("shape, to", [((2, 3, 33), (2 * 3 * 33,)), ((198,), (2, 3, 33)), ((2, 3, 64), (6, 64)),
                                       ((2, 64), (4, 32)), ((40, 5), (25, 8))])  # fmt: skip
def test_reshape(shape: tuple[int, ...], to: tuple[int, ...]):
    net = Net()
    x = binarized(net, shape)
    y = net.op("reshape", [x], net.tensor("bits", to))
    check(net.outputs(seen(net, y), seen(net, x)))


@pytest.mark.parametrize("pads", [[0, 0, 0, 0], [1, 1, 1, 0]])
def test_max_pool(pads: list[int]):
    net = Net()
    x = binarized(net, (7, 6, 40))
    y = net.op("xnor_conv2d", [x], net.tensor("bits", (7, 6, 33)),
               {"weight": packed(net, 33, 40), "threshold": np.full(33, 8, np.int32)}, kernel=[1, 1])  # fmt: skip
    attrs = {"kernel": [3, 2], "strides": [2, 2], "pads": pads}
    h, w = out_size((7, 6, 33), (3, 2), attrs)
    flip = {"flip": net.rng.integers(0, 2, 33, dtype=np.uint8)}
    a = net.op("max_pool", [y], net.tensor("bits", (h, w, 33)), **attrs)
    b = net.op("max_pool", [y], net.like(a), flip, **attrs)
    check(net.outputs(seen(net, a), seen(net, b)))


FAULTS: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({}, {"weight": np.zeros(35, np.uint8)}, "weight"),
    ({}, {"weight": np.zeros(37, np.uint8)}, "weight"),
    ({}, {"weight": np.zeros(0, np.uint8)}, "too few"),
    ({}, {"weight": np.r_[np.zeros(33, np.uint8), np.uint8(128)]}, "behind"),
    ({"kernel": [65536, 65536]}, {}, "fit"),
    ({"pad_value": 2}, {}, "pad_value"),
    ({"groups": 3}, {}, "groups"),
    ({"input_scale": True}, {}, "inputs"),
    ({}, {"threshold": np.zeros(3, np.int32)}, "threshold"),
    ({}, {"threshold": np.zeros(5, np.int32), "scale": np.ones(5, np.float32)}, "scale"),
    ({"min": 0.0}, {"threshold": np.zeros(5, np.int32)}, "min"),
    ({}, {"threshold": np.full(5, np.nan, np.float32)}, "NaN"),
    ({}, {"flip": np.full(5, 2, np.uint8)}, "flip"),
    ({}, {"bias": np.full(5, np.inf, np.float32)}, "bias"),
]


@pytest.mark.parametrize("attrs, params, message", FAULTS)
def test_wrong_files_name_the_op(attrs: dict[str, Any], params: dict[str, Any], message: str):
    net = Net()
    x = binarized(net, (5, 5, 6))
    bits = 5 * 9 * 6  # 270: two bits over
    good = {"weight": np.r_[np.zeros(33, np.uint8), np.uint8(3)]}
    assert bits == 270
    y = net.op("xnor_conv2d", [x], net.tensor("bits", (3, 3, 5)), {**good, **params}, **{"kernel": [3, 3], **attrs})
    net.outputs(seen(net, y))
    with pytest.raises(ValueError, match=f"xnor_conv2d_1.*{message}"):
        _core.Model.from_bytes(net.bytes())


@pytest.mark.parametrize("op", ["transpose", "concat", "slice", "pad"])
def test_operators_that_take_no_bits(op: str):
    net = Net()
    x = binarized(net, (4, 6))
    attrs: dict[str, Any] = {
        "transpose": {"perm": [0, 1, 2]},
        "concat": {"axis": 2},
        "slice": {"starts": [0, 0, 0]},
        "pad": {"before": [0, 0, 0], "after": [0, 0, 0]},
    }[op]
    net.outputs(seen(net, net.op(op, [x], net.like(x), **attrs)))
    with pytest.raises(ValueError, match=f"{op}_1.*bits"):
        _core.Model.from_bytes(net.bytes())


def test_bits_stay_inside():
    net = Net()
    x = binarized(net, (4,))
    with pytest.raises(ValueError, match="output tensor 't1' cannot be dynamic, bits or planes"):
        _core.Model.from_bytes(net.outputs(x).bytes())


def test_nan_is_an_error_of_the_run():
    net = Net()
    net.outputs(seen(net, binarized(net, (4,))))
    session = _core.Session(_core.Model.from_bytes(net.bytes()))
    with pytest.raises(ValueError, match="NaN"):
        session.run({"t0": np.float32([[0, np.nan, 1, 2]])})
