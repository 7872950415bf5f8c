"""Operators on planes of few-bit codes: the engine against the NumPy reference, every level, one and two threads."""

from typing import Any

import numpy as np
import pytest

from lowbit import _core
from tiny_nets import Net, check


def floats(net: Net, *shape: int) -> np.ndarray:
    return net.rng.normal(size=shape).astype(np.float32)


def basis(net: Net, on_planes: bool, *shape: int) -> np.ndarray:
    """Any numbers for products of planes, whose order of sums is fixed; for float32 such that sums are exact."""
    any_numbers = floats(net, *shape)
    return any_numbers if on_planes else np.rint(any_numbers * 16) / np.float32(16)


def levels(net: Net, bits: int) -> dict[str, np.ndarray]:
    """Thresholds in order, two of them equal, and any codes."""
    t = np.sort(floats(net, 2**bits - 1))
    t[:2] = t[0]
    return {"threshold": t, "codes": net.rng.permutation(2**bits).astype(np.uint8)}


def quantized(net: Net, shape: tuple[int, ...], bits: int) -> int:
    x = net.input("float32", shape)
    return net.op("quantize_levels", [x], net.tensor("planes", shape, bits=bits), levels(net, bits))


def seen(net: Net, t: int) -> int:
    """Planes are no output of a network; their values are."""
    entry = net.plan["tensors"][t]
    basis = {"basis": floats(net, entry["bits"])}
    return net.op("dequantize_levels", [t], net.tensor("float32", tuple(entry["shape"][1:])), basis)


def weights(net: Net, planes: int, n: int, depth: int) -> np.ndarray:
    return np.packbits(net.rng.integers(0, 2, (planes, n * depth), dtype=np.uint8), axis=1, bitorder="little")


@pytest.mark.parametrize("bits", [1, 2, 3, 4])
@pytest.mark.parametrize("c", [1, 31, 32, 33, 64, 70, 130])
def test_levels(bits: int, c: int):
    net = Net()
    t = quantized(net, (2, 3, c), bits)
    check(net.outputs(seen(net, t)))


def test_hostile_numbers_take_levels_too():
    net = Net()
    params = {"threshold": np.float32([-0.0, 0.5, 1.0]), "codes": np.uint8([3, 0, 2, 1])}
    planes = net.op("quantize_levels", [net.input("float32", (9,))], net.tensor("planes", (9,), bits=2), params)
    net.outputs(net.op("dequantize_levels", [planes], net.tensor("float32", (9,)), {"basis": np.float32([1, 2])}))
    x = np.float32([[np.nan, np.inf, -np.inf, 0.0, -0.0, 0.5, 1.0, np.nextafter(np.float32(1), 2), 1e-45]])
    for isa in _core.isas():
        y = _core.Session(_core.Model.from_bytes(net.bytes()), isa=isa).run({"t0": x})["t2"]
        assert y[0].tolist() == [3, 1, 3, 3, 3, 0, 2, 1, 0]


CONVS: list[tuple[tuple[int, int, int], int, tuple[int, int], dict[str, Any]]] = [
    ((5, 6, 32), 64, (3, 3), {"pads": [1, 1, 1, 1]}),
    ((5, 6, 20), 33, (3, 3), {"pads": [1, 0, 2, 1], "strides": [2, 1]}),
    ((7, 5, 64), 70, (2, 3), {"pads": [1, 1, 0, 1], "dilations": [2, 1]}),
    ((4, 4, 12), 64, (1, 1), {"groups": 2, "strides": [2, 2]}),
    ((5, 5, 96), 96, (3, 3), {"groups": 3, "pads": [1, 1, 1, 1]}),
    ((9, 9, 16), 130, (1, 1), {}),
]


@pytest.mark.parametrize("w_bits, x_bits", [(1, 2), (2, 2), (3, 1), (4, 4)])
@pytest.mark.parametrize("shape, oc, kernel, attrs", CONVS)
def test_conv2d(
    shape: tuple[int, int, int], oc: int, kernel: tuple[int, int], attrs: dict[str, Any], w_bits: int, x_bits: int
):
    net = Net(w_bits)
    x = quantized(net, shape, x_bits)
    k = kernel[0] * kernel[1] * shape[2] // attrs.get("groups", 1)
    pads, strides, dilations = attrs.get("pads", [0] * 4), attrs.get("strides", [1, 1]), attrs.get("dilations", [1, 1])
    h, w = ((shape[i] + pads[i] + pads[i + 2] - dilations[i] * (kernel[i] - 1) - 1) // strides[i] + 1 for i in range(2))
    attrs = {**attrs, "kernel": list(kernel)}
    on_planes = _core.bitserial_pays(w_bits * x_bits, h * w, oc, k)
    params = {
        "weight": weights(net, w_bits, oc, k),
        "weight_basis": basis(net, on_planes, w_bits, oc),
        "input_basis": basis(net, on_planes, x_bits),
    }
    bias, r = {"bias": floats(net, oc)}, net.input("float32", (h, w, oc))
    real = [net.tensor("float32", (h, w, oc)) for _ in range(3)]
    planes = [net.tensor("planes", (h, w, oc), bits=b) for b in (2, 3)]
    net.op("conv2d_bitserial", [x], real[0], params, **attrs)
    net.op("conv2d_bitserial", [x, r], real[1], {**params, **bias}, **attrs, min=-1.0, max=2.0)
    net.op("conv2d_bitserial", [x], planes[0], {**params, **bias, **levels(net, 2)}, **attrs, min=0.0)
    net.op("conv2d_bitserial", [x, r], real[2], {**params, **levels(net, 3)}, **attrs)
    net.plan["ops"][-1]["outputs"] = [real[2], planes[1]]
    check(net.outputs(*real, *(seen(net, t) for t in planes)))


@pytest.mark.parametrize("k, n", [(1, 1), (33, 7), (64, 64), (200, 33), (300, 256)])
def test_gemm(k: int, n: int):
    net = Net()
    x = quantized(net, (3, k), 2)

    def product(w_bits: int, x_bits: int, n: int, k: int) -> dict[str, np.ndarray]:
        on_planes = _core.bitserial_pays(w_bits * x_bits, 3, n, k)
        bases = {"weight_basis": basis(net, on_planes, w_bits, n), "input_basis": basis(net, on_planes, x_bits)}
        return {"weight": weights(net, w_bits, n, k), **bases}

    first, second = product(2, 2, n, k), product(1, 4, 5, n)
    h = net.op("gemm_bitserial", [x], net.tensor("planes", (3, n), bits=4), {**first, **levels(net, 4)})
    y = net.op("gemm_bitserial", [h], net.tensor("float32", (3, 5)), {**second, "bias": floats(net, 5)})
    check(net.outputs(y, seen(net, h)))


def test_products_of_planes_pay():
    """The rule of docs/lq.md."""
    conv = [(16, {1, 2}), (32, {1, 2, 3, 4}), (64, {1, 2, 3, 4, 6, 8, 9}), (256, {1, 2, 3, 4, 6, 8, 9})]
    for c, paying in conv:
        assert {p for p in (1, 2, 3, 4, 6, 8, 9, 12, 16) if _core.bitserial_pays(p, 64, c, 9 * c)} == paying
    assert _core.bitserial_pays(16, 1, 1024, 1024) and not _core.bitserial_pays(16, 2, 1024, 1024)
    assert not _core.bitserial_pays(16, 1, 1023, 1024) and not _core.bitserial_pays(17, 1, 4096, 4096)
    assert not _core.bitserial_pays(1, 1, 0, 0)


@pytest.mark.parametrize("w_bits, x_bits", [(3, 2), (4, 4), (8, 4)])
def test_float32_on_levels_stays_within_its_bound(w_bits: int, x_bits: int):
    """docs/lq.md: j u / (1 - j u) sum |x| |w|, j = k + 4, around the product of the bases' exact sums."""
    net, (c, oc) = Net(w_bits), (24, 40)
    assert not _core.bitserial_pays(w_bits * x_bits, 30, oc, 9 * c)
    steps = levels(net, x_bits)
    x = net.input("float32", (5, 6, c))
    codes = net.op("quantize_levels", [x], net.tensor("planes", (5, 6, c), bits=x_bits), steps)
    params = {
        "weight": weights(net, w_bits, oc, 9 * c),
        "weight_basis": floats(net, w_bits, oc),
        "input_basis": floats(net, x_bits),
    }
    y = net.tensor("float32", (5, 6, oc))
    net.op("conv2d_bitserial", [codes], y, params, kernel=[3, 3], pads=[1, 1, 1, 1])
    model = _core.Model.from_bytes(net.outputs(y).bytes())
    image = net.random_inputs(2)
    signs = np.unpackbits(params["weight"], axis=1, count=oc * 9 * c, bitorder="little").reshape(w_bits, oc, 3, 3, c)
    w = np.einsum("pokxc,po->okxc", 2.0 * signs - 1, params["weight_basis"].astype(np.float64))
    code = steps["codes"][(image["t0"][..., None] > steps["threshold"]).sum(-1)]
    level = sum((code >> q & 1) * np.float64(b) for q, b in enumerate(params["input_basis"]))
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(level, [(0, 0), (1, 1), (1, 1), (0, 0)]), (3, 3), (1, 2))
    exact, size = (np.einsum("nyxckl,oklc->nyxo", f(windows), f(w)) for f in (np.asarray, np.abs))
    j = (9 * c + 4) * 2.0**-24
    first = {}
    for isa in _core.isas():
        for threads in (1, 2):
            got = _core.Session(model, isa=isa, threads=threads).run(image)["t2"]
            assert (np.abs(got - exact) <= j / (1 - j) * size).all(), isa
            np.testing.assert_array_equal(got, first.setdefault(isa, got))
    assert list(first) == _core.isas()


def test_many_items_go_in_pieces_that_threads_do_not_change():
    """More floats than one piece of scratch holds."""
    net = Net()
    x = quantized(net, (20, 20, 32), 4)
    params = {
        "weight": weights(net, 4, 32, 32),
        "weight_basis": floats(net, 4, 32),
        "input_basis": floats(net, 4),
    }
    y = net.op(
        "conv2d_bitserial", [x], net.tensor("planes", (20, 20, 32), bits=3), {**params, **levels(net, 3)}, kernel=[1, 1]
    )
    model = _core.Model.from_bytes(net.outputs(seen(net, y)).bytes())
    image = net.random_inputs(23)
    whole = [_core.Session(model, threads=threads).run(image)["t3"] for threads in (1, 2, 3)]
    single = [_core.Session(model).run({"t0": item[None]})["t3"] for item in image["t0"]]
    for other in (*whole[1:], np.concatenate(single)):
        np.testing.assert_array_equal(whole[0], other)


GOOD = {
    "weight": np.zeros((2, 34), np.uint8),  # 5 * 9 * 6 bits, two over
    "weight_basis": np.ones((2, 5), np.float32),
    "input_basis": np.ones(2, np.float32),
    "threshold": np.float32([0, 1, 1]),
    "codes": np.arange(4, dtype=np.uint8),
}
FAULTS: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({}, {"weight": np.zeros((2, 33), np.uint8)}, "weight"),
    ({}, {"weight": np.zeros((1, 34), np.uint8)}, "weight"),
    ({}, {"weight": np.zeros(68, np.uint8)}, "weight"),
    ({}, {"weight": np.r_[np.zeros(33, np.uint8), np.uint8(64)] * np.ones((2, 1), np.uint8)}, "behind"),
    ({"kernel": [65536, 65536]}, {}, "fit"),
    ({"groups": 3}, {}, "groups"),
    ({"pad_value": 1}, {}, "pad_value"),
    ({"min": 1.0, "max": 0.0}, {}, "above"),
    ({}, {"weight_basis": np.ones((2, 4), np.float32)}, "weight_basis"),
    ({}, {"weight_basis": np.ones((9, 5), np.float32)}, "weight_basis"),
    ({}, {"weight_basis": np.full((2, 5), np.nan, np.float32)}, "weight_basis"),
    ({}, {"input_basis": np.ones(3, np.float32)}, "input_basis"),
    ({}, {"bias": np.ones(4, np.float32)}, "bias"),
    ({}, {"threshold": np.float32([0, 1])}, "threshold"),
    ({}, {"threshold": np.float32([0, 1, 0.5])}, "ascend"),
    ({}, {"threshold": np.float32([0, np.nan, 1])}, "threshold"),
    ({}, {"codes": np.uint8([0, 1, 2, 4])}, "codes"),
    ({}, {"codes": np.uint8([0, 1])}, "codes"),
    ({}, {"scale": np.ones(5, np.float32)}, "scale"),
]


@pytest.mark.parametrize("attrs, params, message", FAULTS)
def test_wrong_files_name_the_op(attrs: dict[str, Any], params: dict[str, Any], message: str):
    net = Net()
    x = quantized(net, (5, 5, 6), 2)
    y = net.tensor("planes", (3, 3, 5), bits=2)
    net.op("conv2d_bitserial", [x], y, {**GOOD, **params}, **{"kernel": [3, 3], **attrs})
    net.outputs(seen(net, y))
    with pytest.raises(ValueError, match=f"conv2d_bitserial_1.*{message}"):
        _core.Model.from_bytes(net.bytes())


def test_the_good_file_opens():
    net = Net()
    y = net.tensor("planes", (3, 3, 5), bits=2)
    net.op("conv2d_bitserial", [quantized(net, (5, 5, 6), 2)], y, GOOD, kernel=[3, 3])
    _core.Model.from_bytes(net.outputs(seen(net, y)).bytes())


@pytest.mark.parametrize("op", ["transpose", "concat", "slice", "pad", "reshape", "max_pool", "dequantize", "binarize"])
def test_operators_that_take_no_planes(op: str):
    net = Net()
    x = quantized(net, (4, 6, 8), 2)
    attrs: dict[str, Any] = {
        "transpose": {"perm": [0, 1, 2, 3]},
        "concat": {"axis": 2},
        "slice": {"starts": [0, 0, 0, 0]},
        "pad": {"before": [0, 0, 0, 0], "after": [0, 0, 0, 0]},
        "max_pool": {"kernel": [1, 1]},
    }.get(op, {})
    kinds = {"dequantize": "float32", "binarize": "bits"}
    y = net.tensor(kinds[op], (4, 6, 8)) if op in kinds else net.like(x)
    net.op(op, [x], y, **attrs)
    net.outputs(net.op("reshape", [net.input("float32", (1,))], net.tensor("float32", (1,))))
    with pytest.raises(ValueError, match=f"{op}_1.*(planes|codes)"):
        _core.Model.from_bytes(net.bytes())


@pytest.mark.parametrize("entry", [{}, {"bits": 0}, {"bits": 9}, {"bits": 2, "dynamic": True}])
def test_planes_say_how_many(entry: dict[str, Any]):
    net = Net()
    net.input("planes", (4,), **entry)
    with pytest.raises(ValueError, match="tensor 0 't0'"):
        _core.Model.from_bytes(net.outputs(0).bytes())


def test_planes_stay_inside():
    net = Net()
    with pytest.raises(ValueError, match="output tensor 't1' cannot be dynamic, bits or planes"):
        _core.Model.from_bytes(net.outputs(quantized(net, (4,), 2)).bytes())
