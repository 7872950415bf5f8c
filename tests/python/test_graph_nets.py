"""Importing whole networks: folding, names, recipes and overrides, the real nets of LOWBIT_DATA, torch's exports."""

import os
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import pytest

from lowbit.graph.names import module_path
from lowbit.graph.net import UnsupportedError
from lowbit.graph.recipe import parse_recipe
from lowbit.graph.source import build, read, tensors_to_calibrate
from onnx_nets import make_plan, min_max, net, node, run_onnx, run_plan, sqnr

DATA = Path(os.environ.get("LOWBIT_DATA", Path(__file__).parents[3] / "shared" / "data"))
rng = np.random.default_rng(11)


def real(name):
    path = DATA / name
    if not path.is_file():
        pytest.skip(f"{path} is not here; set LOWBIT_DATA")
    return onnx.load(path)


def w(*shape, scale=0.3):
    return rng.normal(size=shape).astype(np.float32) * np.float32(scale)


def ops(plan):
    return [op["op"] for op in plan.ops]


def residual_net(batch="N"):
    """conv, BN, ReLU6, conv, BN, add, ReLU, mean, Gemm."""
    bn = {f"bn{i}.{k}": np.abs(w(8)) + np.float32(0.5) for i in (1, 2) for k in ("weight", "bias", "mean", "var")}
    return net(
        [
            node("Conv", ["x", "conv1.weight"], ["c1"], pads=[1, 1, 1, 1]),
            node("BatchNormalization", ["c1", *(f"bn1.{k}" for k in ("weight", "bias", "mean", "var"))], ["b1"]),
            node("Clip", ["b1", "zero", "six"], ["r1"]),
            node("Conv", ["r1", "layer1.0.conv2.weight", "layer1.0.conv2.bias"], ["c2"], pads=[1, 1, 1, 1]),
            node("BatchNormalization", ["c2", *(f"bn2.{k}" for k in ("weight", "bias", "mean", "var"))], ["b2"]),
            node("Add", ["r1", "b2"], ["a"]),
            node("Relu", ["a"], ["r2"]),
            node("GlobalAveragePool", ["r2"], ["p"]),
            node("Flatten", ["p"], ["f"]),
            node("Gemm", ["f", "fc.weight", "fc.bias"], ["y"], transB=1),
        ],
        {"x": (3, 10, 10)},
        {
            "conv1.weight": w(8, 3, 3, 3),
            "layer1.0.conv2.weight": w(8, 8, 3, 3),
            "layer1.0.conv2.bias": w(8),
            "fc.weight": w(4, 8),
            "fc.bias": w(4),
            "zero": np.float32(0),
            "six": np.float32(6),
            **bn,
        },
        batch=batch,
    )


def test_fusion_leaves_three_products():
    plan = make_plan(residual_net(), "int8", dict.fromkeys(("x", "r1", "r2", "p"), (-6.0, 6.0)))
    assert ops(plan) == ["quantize", "conv2d", "conv2d", "average_pool", "reshape", "gemm"]
    assert plan.ops[0]["attrs"]["nchw_to_nhwc"] is True
    first, second = plan.ops[1], plan.ops[2]
    assert (first["attrs"]["lo"], first["attrs"]["hi"]) == (
        0,
        255,
    )  # never negative: uint8, scale 6 / 255: 6 is code 255
    codes = [(t["dtype"], t["zero_point"]) for t in plan.activations if "scale" in t]
    assert codes == [("int8", 0), *[("uint8", 0)] * 4]
    assert len(second["inputs"]) == 2 and second["attrs"]["lo"] == 0  # residual and ReLU
    assert [t.get("source") for t in plan.activations] == ["x", "x", "r1", "r2", "p", "f", "y"]
    assert plan.activations[-1]["dtype"] == "float32" and plan.activations[-1]["name"] == "y"


def test_relu6_is_a_code():
    plan = make_plan(residual_net(), "int8-affine", {"x": (-2, 2), "r1": (0, 12.75), "r2": (0, 9), "p": (0, 3)})
    assert plan.ops[1]["attrs"]["hi"] == 120 and plan.ops[1]["attrs"]["rounding"] == "gemmlowp"
    assert plan.activations[2]["dtype"] == "uint8" and plan.activations[2]["zero_point"] == 0


@pytest.mark.parametrize("batch", ["N", 1, 4])
def test_batch_is_symbolic_whatever_the_file_says(batch):
    model = residual_net(batch)
    x = rng.normal(size=(3, 3, 10, 10)).astype(np.float32)
    wanted = run_onnx(residual_net(), {"x": x})["y"].shape
    assert run_plan(make_plan(model), {"x": x})["y"].shape == wanted


def test_names():
    built = build(residual_net())
    assert [layer.name for layer in built.layers if layer.is_mac] == ["conv1", "layer1.0.conv2", "fc"]
    assert module_path("/layer1/layer1.0/conv1") == "layer1.0.conv1"
    anonymous = net(
        [node("Conv", ["x", "1"], ["2"]), node("Relu", ["2"], ["3"]), node("Conv", ["3", "onnx::Conv_7"], ["y"])],
        {"x": (3, 4, 4)},
        {"1": w(3, 3, 1, 1), "onnx::Conv_7": w(3, 3, 1, 1)},
    )
    assert [layer.name for layer in build(anonymous).layers if layer.is_mac] == ["conv_0", "conv_1"]


def test_overrides_first_match_wins():
    ranges = dict.fromkeys(("x", "r1", "r2", "p"), (-6.0, 6.0))
    plan = make_plan(
        residual_net(),
        "int8",
        ranges,
        overrides={r"layer1\..*": "float32", ".*conv.*": "int8-tensor", "op:Gemm": "int8-dynamic"},
    )
    by_name = {op["name"]: op for op in plan.ops}
    assert by_name["layer1.0.conv2"]["op"] == "conv2d_f32"
    assert plan.tensors["conv1.weight_scale"].size == 1
    assert by_name["conv1"]["op"] == "conv2d"
    assert by_name["fc"]["op"] == "gemm" and plan.activations[by_name["fc"]["inputs"][0]]["dynamic"]
    with pytest.raises(ValueError, match=r"'conv7'.*matches no layer"):
        make_plan(residual_net(), "int8", ranges, overrides={"conv7": "float32"})
    with pytest.raises(ValueError, match="regular expression"):
        make_plan(residual_net(), "int8", ranges, overrides={"(": "float32"})


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ("int9", "int9"),
        ({"weight": "int3"}, "int3"),
        ({"weigth": "int8"}, "weigth"),
        ({"weight": "float32", "activation": "int8"}, "both"),
    ],
)
def test_unknown_recipe(recipe, message):
    with pytest.raises(ValueError, match=message):
        parse_recipe(recipe)


def test_missing_range_names_the_tensor():
    with pytest.raises(ValueError, match="'r1'"):
        make_plan(residual_net(), "int8", {"x": (-1, 1)})


def test_open_image_size_needs_a_shape():
    model = net([node("Conv", ["x", "w"], ["y"])], {"x": (3, "h", "w")}, {"w": w(2, 3, 1, 1)})
    with pytest.raises(UnsupportedError, match="input_shapes"):
        build(model)
    assert build(model, {"x": (3, 5, 6)}).outputs[0][1].onnx_shape == (-1, 2, 5, 6)
    with pytest.raises(ValueError, match="'z'"):
        build(model, {"z": (3, 5, 6)})


def test_file_errors(tmp_path):
    (tmp_path / "bad.onnx").write_bytes(b"\x01nothing of the kind")
    with pytest.raises(ValueError, match=r"bad\.onnx"):
        read(tmp_path / "bad.onnx")
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "none.onnx")
    with pytest.raises(TypeError, match="int"):
        read(3)


@pytest.mark.parametrize("rounding", ["nearest_even", "gemmlowp", "single"])
def test_tiny_weights_and_large_biases_fit(rounding):
    model = residual_net()
    for tensor in model.graph.initializer:
        if tensor.name == "layer1.0.conv2.weight":
            values = onnx.numpy_helper.to_array(tensor).copy()
            values[0], values[1] = 0, values[1] * 1e-12
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
        if tensor.name == "layer1.0.conv2.bias":
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.float32([3, -4, *range(6)]), tensor.name))
    x = rng.normal(size=(2, 3, 10, 10)).astype(np.float32)
    plan = make_plan(model, "int8", min_max(model, {"x": x}), rounding=rounding)
    bias = plan.tensors["layer1.0.conv2.bias"].astype(np.int64)
    assert np.abs(bias).max() + 72 * 127 * 127 < 2**31
    assert sqnr(run_onnx(model, {"x": x})["y"], run_plan(plan, {"x": x})["y"]) > 25


def test_concat_shares_its_scale_with_producers_that_feed_only_it():
    weights = {"a": w(4, 3, 1, 1), "b": w(4, 3, 1, 1), "c": w(2, 8, 1, 1), "d": w(2, 4, 1, 1)}
    nodes = [
        node("Conv", ["x", "a"], ["ca"]),
        node("Conv", ["x", "b"], ["cb"]),
        node("MaxPool", ["cb"], ["pb"], kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[1, 1]),
        node("Concat", ["ca", "pb"], ["cc"], axis=1),
        node("Conv", ["cc", "c"], ["y"]),
    ]
    ranges = {"x": (-1, 1), "ca": (-2, 2), "cb": (-3, 3), "pb": (-3, 3), "cc": (-3, 3)}
    plan = make_plan(net(nodes, {"x": (3, 5, 5)}, weights), "int8", ranges)
    assert "lookup" not in ops(plan) and len(plan.tensors["activation_scales"]) == 2
    shared = [*nodes, node("Conv", ["ca", "d"], ["z"])]
    plan = make_plan(net(shared, {"x": (3, 5, 5)}, weights, outputs=("y", "z")), "int8", ranges)
    assert ops(plan).count("lookup") == 1 and len(plan.tensors["activation_scales"]) == 3


def test_activations_in_a_row_are_one_table():
    nodes = [
        node("Conv", ["x", "a"], ["c"]),
        node("BatchNormalization", ["c", "g", "b", "m", "v"], ["n"]),
        node("HardSwish", ["n"], ["h"]),
        node("Mul", ["h", "s"], ["k"]),
        node("Tanh", ["k"], ["t"]),
        node("Conv", ["t", "a"], ["y"]),
        node("Relu", ["c"], ["other"]),
    ]
    weights = {"a": w(3, 3, 1, 1), "g": w(3), "b": w(3), "m": w(3), "v": np.abs(w(3)) + 1, "s": w(3, 1, 1)}
    model = net(nodes, {"x": (3, 5, 5)}, weights, outputs=("y", "other"))
    x = rng.normal(size=(2, 3, 5, 5)).astype(np.float32)
    plan = make_plan(model, "int8", min_max(model, {"x": x}))
    (lookup,) = [op for op in plan.ops if op["op"] == "lookup"]
    assert plan.tensors[lookup["params"]["table"]].shape == (3, 256)
    assert sqnr(run_onnx(model, {"x": x})["y"], run_plan(plan, {"x": x})["y"]) > 25


REAL = {
    "resnet20_cifar10.onnx": (3, 32, 32),
    "mlperftiny_resnet8_cifar10.onnx": (3, 32, 32),
    "lenet5_caffe.onnx": (1, 28, 28),
    "squeezenet1_1.onnx": (3, 67, 67),
    "mobilenet_v2_100.onnx": (3, 224, 224),
    "efficientnet_lite0.onnx": (3, 224, 224),
}


@pytest.mark.parametrize("name", REAL)
def test_real_nets(name):
    model, shape = real(name), REAL[name]
    shapes = {model.graph.input[0].name: shape}
    x = rng.normal(size=(1 if shape[1] > 100 else 4, *shape)).astype(np.float32)
    feed = {model.graph.input[0].name: x}
    wanted = run_onnx(model, feed)[model.graph.output[0].name]
    plan = make_plan(model, input_shapes=shapes)
    (y,) = run_plan(plan, feed).values()
    np.testing.assert_allclose(y, wanted, rtol=1e-4, atol=1e-4 * np.abs(wanted).max())
    assert not {"binary", "unary", "pad", "softmax"} & (set(ops(plan)) - ({"pad"} if "resnet20" in name else set()))
    quantized = make_plan(model, "int8", min_max(model, feed), input_shapes=shapes)
    (y,) = run_plan(quantized, feed).values()
    assert sqnr(wanted, y) > (12 if shape[1] > 100 else 22)
    assert "dequantize" not in ops(quantized) and ops(quantized).count("quantize") == 1


def test_resnet20_names_are_its_modules():
    built = build(real("resnet20_cifar10.onnx"))
    names = [layer.name for layer in built.layers if layer.is_mac]
    assert names[:3] == ["conv1", "layer1.0.conv1", "layer1.0.conv2"] and names[-1] == "linear"
    assert len(names) == 20


def test_calibration_observes_only_what_is_left():
    names = tensors_to_calibrate(real("mobilenet_v2_100.onnx"))
    assert "input" in names and "Conv1_relu" in names and "bn_Conv1" not in names
    assert len(names) == 56


# The newer exporter is tried where its onnxscript is installed.
EXPORTS = [(18, False), (50, False), *([(18, True)] if find_spec("onnxscript") else [])]


@pytest.mark.parametrize(("depth", "dynamo"), EXPORTS)
def test_resnets_from_torch(depth, dynamo, tmp_path):
    torch = pytest.importorskip("torch")
    import torch_nets

    torch.manual_seed(0)
    module = getattr(torch_nets, f"resnet{depth}")(width=8, classes=10).eval()
    x = torch.randn(2, 3, 64, 64)
    path = tmp_path / "net.onnx"
    axes = {"dynamic_shapes": ({0: torch.export.Dim("n")},)} if dynamo else {"dynamic_axes": {"input": {0: "n"}}}
    torch.onnx.export(module, (x,), str(path), input_names=["input"], dynamo=dynamo, verbose=False, **axes)
    built = read(path)
    plan = make_plan(built.model)
    names = [op["name"] for op in plan.ops if op["op"] in ("conv2d_f32", "gemm_f32")]
    assert set(names) == {n for n, m in module.named_modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear)}
    assert set(ops(plan)) == {"transpose", "conv2d_f32", "max_pool", "average_pool", "reshape", "gemm_f32"}
    (y,) = run_plan(plan, {"input": x.numpy()}).values()
    np.testing.assert_allclose(y, module(x).detach().numpy(), rtol=1e-3, atol=1e-4)
