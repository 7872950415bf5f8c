# ruff: noqa: E501
"""Binary networks from ONNX: patterns, thresholds, what is absorbed; against onnxruntime and the plan's reference."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

sys.path.insert(0, str(Path(__file__).parents[2] / "examples" / "python"))

import finn_nets
import lowbit
from lowbit.graph.binary import float_of, float_thresholds, integer_thresholds
from lowbit.graph.net import UnsupportedError
from onnx_nets import make_plan, net, node, run_onnx, run_plan

rng = np.random.default_rng(11)
QONNX = "qonnx.custom_op.general"


def signs(*shape):
    return np.where(rng.normal(size=shape) >= 0, 1, -1).astype(np.float32)


def norm(prefix, c, spread=3.0):
    """Parameters of a BatchNormalization; the first gammas are negative, the second 0."""
    gamma = rng.normal(size=c).astype(np.float32)
    gamma[0], gamma[1 % c] = -1.25, 0.0
    values = (gamma, rng.normal(size=c), rng.normal(size=c) * spread, rng.uniform(0.5, 2, c))
    return {prefix + k: v.astype(np.float32) for k, v in zip("gbmv", values, strict=True)}


def batch_norm(x, y, prefix):
    return node("BatchNormalization", [x, *(prefix + k for k in "gbmv")], [y])


def ops(model):
    return [op["op"] for op in model.plan.ops]


def run_both(proto, recipe="xnor", shape=(3, 9, 10), batch=4, exact=False):
    """The model, and its output beside onnxruntime's and the reference's."""
    x = rng.normal(size=(batch, *shape)).astype(np.float32)
    model = lowbit.convert(proto, recipe=recipe)
    y = model.run(x)
    np.testing.assert_allclose(y, run_onnx(proto, {"x": x})["y"], rtol=0 if exact else 1e-4, atol=0 if exact else 1e-4)
    if exact:  # no float layer, whose rounding may differ
        np.testing.assert_array_equal(y, run_plan(model.plan, {"x": x})["y"])
    return model


# How exporters write a sign whose value at 0 is +1 (or, strict, -1).
GE, GT, LT = "GreaterOrEqual", "Greater", "Less"
SIGNS = {
    "sign": [node("Sign", ["x"], ["s"])],
    "where": [node(GE, ["x", "zero"], ["c"]), node("Where", ["c", "one", "minus"], ["s"])],
    "where_strict": [node(GT, ["x", "zero"], ["c"]), node("Where", ["c", "one", "minus"], ["s"])],
    "where_less": [node(LT, ["x", "zero"], ["c"]), node("Where", ["c", "minus", "one"], ["s"])],
    "where_not": [node(LT, ["zero", "x"], ["c"]), node("Not", ["c"], ["n"]), node("Where", ["n", "minus", "one"], ["s"])],
    "cast": [node(GE, ["x", "zero"], ["c"]), node("Cast", ["c"], ["f"], to=1), node("Mul", ["f", "two"], ["d"]),
             node("Sub", ["d", "one"], ["s"])],
    "ones_like": [node("Shape", ["x"], ["h"]), node("ConstantOfShape", ["h"], ["ones"], value=helper.make_tensor("v", 1, [1], [1.0])),
                  node("Neg", ["ones"], ["minuses"]), node(GE, ["x", "zero"], ["c"]), node("Where", ["c", "ones", "minuses"], ["s"])],
    "sign_of_sign": [node("Sign", ["x"], ["t"]), node("Add", ["t", "tenth"], ["u"]), node("Sign", ["u"], ["s"])],
    "estimator": [node("Sign", ["x"], ["t"]), node("Clip", ["x", "minus", "one"], ["p"]), node("Sub", ["t", "p"], ["u"]),
                  node("Add", ["u", "p"], ["s"])],
    "channels": [node("Add", ["x", "per"], ["t"]), node("Sign", ["t"], ["s"])],
    "scaled": [node("Sign", ["x"], ["t"]), node("Mul", ["t", "half"], ["s"])],
    "zero_one": [node(GE, ["x", "zero"], ["c"]), node("Cast", ["c"], ["s"], to=1)],
}  # fmt: skip
NUMBERS = {"zero": 0, "one": 1, "minus": -1, "two": 2, "tenth": 0.1, "half": 0.5}


@pytest.mark.parametrize("pads", [0, 1])
@pytest.mark.parametrize("form", SIGNS)
def test_signs(form: str, pads: int):
    weights = {k: np.float32(v) for k, v in NUMBERS.items()} | {"per": rng.normal(size=(1, 3, 1, 1)).astype(np.float32)}
    weights["w"] = signs(5, 3, 3, 3)
    proto = net([*SIGNS[form], node("Conv", ["s", "w"], ["y"], pads=[pads] * 4)], {"x": (3, 9, 10)}, weights)
    model = run_both(proto)
    assert ops(model) == ["transpose", "binarize", "xnor_conv2d", "transpose"]


def test_sign_at_zero_follows_the_comparison():
    weights = {k: np.float32(v) for k, v in NUMBERS.items()} | {"w": np.eye(4, dtype=np.float32)}
    x = np.float32([[0.0, -0.0, 1e-45, -1e-45]])
    for form, at_zero in (("sign", 1), ("where", 1), ("where_strict", -1), ("where_less", 1), ("where_not", -1)):
        w = {**weights, "w": np.ones((4, 1), np.float32)}
        proto = net([*SIGNS[form], node("MatMul", ["s", "w"], ["y"])], {"x": (4,)}, w)
        model = lowbit.convert(proto, recipe="xnor")
        assert model.run(x)[0, 0] == 2 * at_zero, form
        if form != "sign":  # ONNX's own gives 0 there
            assert run_onnx(proto, {"x": x})["y"][0, 0] == 2 * at_zero


def quant(x, y, scale):
    return helper.make_node("BipolarQuant", [x, scale], [y], domain=QONNX)


def test_bipolar_quant_on_activations_and_weights():
    weights = {"w": rng.normal(size=(6, 3, 3, 3)), "sw": rng.uniform(0.1, 1, (6, 1, 1, 1)), "sx": np.array([0.7])}
    weights = {k: v.astype(np.float32) for k, v in weights.items()}
    nodes = [quant("x", "s", "sx"), quant("w", "q", "sw"), node("Conv", ["s", "q"], ["y"], pads=[1, 1, 1, 1])]
    proto = net(nodes, {"x": (3, 9, 10)}, weights, domains=(QONNX,))
    x = rng.normal(size=(2, 3, 9, 10)).astype(np.float32)
    model = lowbit.convert(proto, recipe="xnor")
    q = np.where(weights["w"] >= 0, 1, -1) * weights["sw"]
    plain = net([node("Conv", ["x", "q"], ["y"], pads=[1, 1, 1, 1])], {"x": (3, 9, 10)}, {"q": q.astype(np.float32)})
    wanted = run_onnx(plain, {"x": np.where(x >= 0, 0.7, -0.7).astype(np.float32)})["y"]
    np.testing.assert_allclose(model.run(x), wanted, rtol=1e-5, atol=1e-5)
    assert "xnor_conv2d" in ops(model)


def deep(*between, pool_first=True, **more):
    """Sign -> Conv -> what is given, from "a" to "b" -> Sign -> Conv."""
    nodes = [node("Sign", ["x"], ["s"]), node("Conv", ["s", "w1"], ["a"], pads=[1, 1, 1, 1]), *between,
             node("Sign", ["b"], ["t"]), node("Conv", ["t", "w2"], ["y"], pads=[1, 0, 0, 1])]  # fmt: skip
    weights = {
        "w1": signs(40, 3, 3, 3) * rng.uniform(0.1, 1, (40, 1, 1, 1)).astype(np.float32),
        "w2": signs(7, 40, 3, 3),
    }
    weights |= {"half": np.float32(0.5), "lo": np.float32(-1), "hi": np.float32(1), **norm("n", 40), **norm("o", 40)}
    weights["slope"] = rng.uniform(0.1, 0.5, (40, 1, 1)).astype(np.float32)
    return net(nodes, {"x": (3, 9, 10)}, weights | more)


POOL = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}
BETWEEN = {
    "norm": [batch_norm("a", "b", "n")],
    "pool_norm": [node("MaxPool", ["a"], ["p"], **POOL), batch_norm("p", "b", "n")],
    "norm_pool": [batch_norm("a", "p", "n"), node("MaxPool", ["p"], ["b"], **POOL)],
    "norm_pool_norm": [batch_norm("a", "p", "n"), node("MaxPool", ["p"], ["q"], **POOL), batch_norm("q", "b", "o")],
    "clip": [batch_norm("a", "p", "n"), node("Clip", ["p", "lo", "hi"], ["b"])],
    "relu_norm": [batch_norm("a", "p", "n"), node("Relu", ["p"], ["q"]), batch_norm("q", "b", "o")],
    "prelu_pool_norm": [batch_norm("a", "p", "n"), node("PRelu", ["p", "slope"], ["q"]), node("MaxPool", ["q"], ["r"], **POOL),
                        batch_norm("r", "b", "o")],
    "tanh": [batch_norm("a", "p", "n"), node("Tanh", ["p"], ["b"])],
}  # fmt: skip


@pytest.mark.parametrize("between", BETWEEN)
def test_what_stands_before_a_sign_becomes_thresholds(between: str):
    model = run_both(deep(*BETWEEN[between]))
    pool = ["max_pool"] if "pool" in between else []
    assert ops(model) == ["transpose", "binarize", "xnor_conv2d", *pool, "xnor_conv2d", "transpose"]
    thresholds = model.plan.tensors[model.plan.ops[2]["params"]["threshold"]]
    assert thresholds.dtype == np.int32


def test_every_layer_is_bit_for_bit_the_reference_on_every_level():
    proto = deep(*BETWEEN["norm_pool_norm"])
    model = lowbit.convert(proto, recipe="xnor")
    x = rng.normal(size=(2, 3, 9, 10)).astype(np.float32)
    wanted = run_plan(model.plan, {"x": x})["y"]
    ran = []
    for isa in lowbit.isas():
        for threads in (1, 2):
            np.testing.assert_array_equal(model.run(x, isa=isa, threads=threads), wanted)
        ran.append(isa)
    assert ran == lowbit.isas()


def shortcuts():
    """Three binary convolutions, a shortcut around each."""
    nodes, at = [node("Conv", ["x", "w0"], ["h0"], pads=[1, 1, 1, 1])], "h0"
    weights = {"w0": rng.normal(size=(32, 3, 3, 3)).astype(np.float32)}
    for i in range(1, 4):
        weights |= {f"w{i}": signs(32, 32, 3, 3), **norm(f"n{i}", 32, 20.0)}
        nodes += [node("Sign", [at], [f"s{i}"]), node("Conv", [f"s{i}", f"w{i}"], [f"c{i}"], pads=[1, 1, 1, 1]),
                  batch_norm(f"c{i}", f"b{i}", f"n{i}"), node("Add", [f"b{i}", at], [f"h{i}"])]  # fmt: skip
        at = f"h{i}"
    nodes.append(node("GlobalAveragePool", [at], ["y"]))
    return net(nodes, {"x": (3, 9, 10)}, weights)


def test_residuals_stay_in_float_and_give_the_next_bits_in_passing():
    proto = shortcuts()
    model = lowbit.convert(proto, recipe="xnor")
    assert ops(model)[:6] == ["transpose", "conv2d_f32", "binarize", *["xnor_conv2d"] * 3]
    assert [len(op["outputs"]) for op in model.plan.ops[3:6]] == [2, 2, 1]
    x = rng.normal(size=(2, 3, 9, 10)).astype(np.float32)
    np.testing.assert_allclose(model.run(x), run_onnx(proto, {"x": x})["y"], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("form", ["qdq", "float"])
@pytest.mark.parametrize("between", ["clip", "norm_pool_norm"])
def test_export_gives_the_same_bits_and_comes_back(form: str, between: str):
    x = rng.normal(size=(2, 3, 9, 10)).astype(np.float32)
    model = lowbit.convert(deep(*BETWEEN[between]), recipe="xnor")
    exported = model.export_onnx(form=form)
    (y,) = run_onnx(exported, {"x": x}).values()
    np.testing.assert_array_equal(y, model.run(x))
    again = lowbit.convert(exported, recipe="xnor")
    assert ops(again).count("xnor_conv2d") == (2 if between == "clip" else 1)  # channels that flip after a pool
    np.testing.assert_array_equal(again.run(x), model.run(x))


def test_export_of_shortcuts_and_mixed_precisions():
    proto, x = shortcuts(), rng.normal(size=(2, 3, 9, 10)).astype(np.float32)
    for recipe, rtol in (("xnor", 1e-4), ("xnor-int8", 0.05)):
        model = lowbit.convert(proto, recipe=recipe, calibration=[x] if "int8" in recipe else None)
        (y,) = run_onnx(model.export_onnx(), {"x": x}).values()
        np.testing.assert_allclose(y, model.run(x), atol=rtol * np.abs(y).max())


def test_padding_with_ones():
    w = {
        "w": signs(5, 3, 3, 3),
        "p": np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64),
        "one": np.float32(1),
        "minus": np.float32(-1),
    }
    for value, expected in (("one", 1), ("minus", -1)):
        nodes = [node("Sign", ["x"], ["s"]), node("Pad", ["s", "p", value], ["t"]), node("Conv", ["t", "w"], ["y"])]
        model = run_both(net(nodes, {"x": (3, 9, 10)}, w))
        conv = next(op for op in model.plan.ops if op["op"] == "xnor_conv2d")
        assert conv["attrs"]["pad_value"] == expected and conv["attrs"]["pads"] == [1, 1, 1, 1]


def test_flattening_and_products():
    nodes = [node("Sign", ["x"], ["s"]), node("Conv", ["s", "w1"], ["a"]), batch_norm("a", "b", "n"), node("Sign", ["b"], ["t"]),
             node("Flatten", ["t"], ["f"]), node("Gemm", ["f", "w2", "c"], ["g"], transB=1), node("Sign", ["g"], ["u"]),
             node("MatMul", ["u", "w3"], ["y"])]  # fmt: skip
    w = {"w1": signs(10, 3, 3, 3), **norm("n", 10), "w2": signs(33, 10 * 7 * 8), "w3": signs(33, 4) * np.float32(0.3)}
    w["c"] = rng.integers(-3, 3, 33).astype(np.float32) + np.float32(0.5)
    model = run_both(net(nodes, {"x": (3, 9, 10)}, w))
    assert ops(model) == ["transpose", "binarize", "xnor_conv2d", "reshape", "xnor_gemm", "xnor_gemm"]


def test_file_holds_one_bit_per_weight():
    model = lowbit.convert(deep(*BETWEEN["norm"]), recipe="xnor")
    row = next(r for r in model.layers() if r.op == "xnor_conv2d")
    assert model.plan.tensors[f"{row.layer}.weight"].nbytes == 40 * 27 // 8
    assert (row.weights, row.activations, row.output) == ("bits", "bits", "bits")


def test_a_binary_net_in_float_and_beside_int8():
    proto = deep(*BETWEEN["pool_norm"])
    x = rng.normal(size=(3, 3, 9, 10)).astype(np.float32)
    wanted = run_onnx(proto, {"x": x})["y"]
    kept = lowbit.convert(proto, recipe="float32")
    assert "xnor_conv2d" not in ops(kept)
    np.testing.assert_allclose(kept.run(x), wanted, rtol=1e-4, atol=1e-4)
    last = make_plan(proto, "xnor").ops[-2]["name"]
    mixed = lowbit.convert(proto, recipe="xnor", overrides={last: "int8"}, calibration=[x])
    assert ops(mixed).count("xnor_conv2d") == 1 and "conv2d" in ops(mixed)
    np.testing.assert_allclose(mixed.run(x), wanted, atol=0.05 * np.abs(wanted).max())


def test_what_cannot_be_binary_is_named():
    nodes = [node("Conv", ["x", "w"], ["a"], name="/stem/Conv"), node("Sign", ["a"], ["s"]),
             node("Conv", ["s", "v"], ["b"], name="/body/Conv"), node("Sign", ["b"], ["t"]), node("Conv", ["t", "u"], ["y"], name="/head/Conv")]  # fmt: skip
    w = {"w": signs(8, 3, 3, 3), "v": signs(8, 8, 3, 3), "u": rng.normal(size=(4, 8, 3, 3)).astype(np.float32)}
    proto = net(nodes, {"x": (3, 9, 10)}, w)
    model = lowbit.convert(proto, recipe="xnor")
    assert [r.layer for r in model.layers() if r.op == "xnor_conv2d"] == ["body"]
    with pytest.raises(ValueError, match=r"layer 'stem' \(Conv\) cannot run on bits: its input 'x' is not binary"):
        lowbit.convert(proto, recipe="float32", overrides={"stem": "xnor"})
    with pytest.raises(ValueError, match=r"layer 'head' \(Conv\).*weights are not"):
        lowbit.convert(proto, recipe="xnor", overrides={"head": "xnor"})
    plain = net([node("Conv", ["x", "w"], ["y"], name="/stem/Conv")], {"x": (3, 9, 10)}, w)
    with pytest.raises(ValueError, match="no layer is binary; layer 'stem'"):
        lowbit.convert(plain, recipe="xnor")


def test_comparisons_that_are_no_choice_between_numbers():
    nodes = [node("Greater", ["x", "zero"], ["c"]), node("Where", ["c", "x", "zero"], ["y"])]
    with pytest.raises(UnsupportedError, match="Where"):
        lowbit.convert(net(nodes, {"x": (4,)}, {"zero": np.float32(0)}), recipe="float32")


@pytest.mark.parametrize("depth", [1, 9, 200])
def test_integer_thresholds_are_the_float_comparison_on_every_sum(depth: int):
    c = 400
    a, b = rng.normal(size=c).astype(np.float32), (rng.normal(size=c) * depth / 2).astype(np.float32)
    a[:3], b[:8] = 0, 0
    t, flip = integer_thresholds(lambda d: d * a + b >= 0, a < 0, depth)
    d = np.arange(-depth, depth + 1)[:, None]
    np.testing.assert_array_equal((d >= t) ^ flip.astype(bool), d.astype(np.float32) * a + b >= 0)


def test_float_thresholds_are_the_comparison_on_every_float():
    c = 300
    a, b = rng.normal(size=c).astype(np.float32), rng.normal(size=c).astype(np.float32)
    a[:4], b[2:6] = 0, 0
    b[0] = -1
    t, flip = float_thresholds(lambda x: x * a + b >= 0, a < 0)
    near = (-b / np.where(a == 0, 1, a)).astype(np.float32)  # where it turns, and the floats around
    for x in (near, np.nextafter(near, np.float32(9e9)), np.nextafter(near, np.float32(-9e9)), *(
        float_of(rng.integers(-0x7F000000, 0x7F000000, c)) for _ in range(20)), np.zeros(c, np.float32)):  # fmt: skip
        with np.errstate(over="ignore"):
            np.testing.assert_array_equal((x >= t) ^ flip.astype(bool), x * a + b >= 0)


# The published nets of FINN -------------------------------------------------------------------------------------------

DATA = Path(os.environ.get("LOWBIT_DATA", Path(__file__).parents[3] / "shared" / "data"))


def test_finn_lfc_reaches_its_accuracy_on_mnist():
    files = [DATA / "finn_lfcW1A1_mnist.npz", DATA / "mnist.npz"]
    if not all(f.exists() for f in files):
        pytest.skip(f"{files[0]} or {files[1]} is not here; set LOWBIT_DATA")
    proto = finn_nets.lfc(np.load(files[0]))
    model = lowbit.convert(proto, recipe="xnor")
    assert ops(model) == ["reshape", "binarize", *["xnor_gemm"] * 4]
    mnist = np.load(files[1])
    x = finn_nets.lfc_input(mnist["x_test"])
    scores = model.run(x)
    assert (scores.argmax(axis=1) == mnist["y_test"]).mean() == 0.9834
    np.testing.assert_array_equal(scores[:200], run_onnx(proto, {"x": x[:200]})[proto.graph.output[0].name])


def test_finn_cnv_gives_what_onnxruntime_gives():
    """On CIFAR-10's 10,000 test images it reaches 79.37 % (examples/python/finn_nets.py); the images are not here."""
    path = DATA / "finn_cnvW1A1_cifar10.npz"
    if not path.exists():
        pytest.skip(f"{path} is not here; set LOWBIT_DATA")
    proto = finn_nets.cnv(np.load(path))
    model = lowbit.convert(proto, recipe="xnor")
    assert ops(model).count("xnor_conv2d") == 5 and ops(model).count("xnor_gemm") == 3
    coarse = rng.integers(0, 256, (16, 5, 5, 3)).repeat(7, 1).repeat(7, 2)[:, :32, :32]
    x = finn_nets.cnv_input(coarse.astype(np.uint8))
    np.testing.assert_array_equal(model.run(x), run_onnx(proto, {"x": x})[proto.graph.output[0].name])
