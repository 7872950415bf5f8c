"""Files that onnxruntime quantized: QDQ and QOperator forms keep their scales and codes."""

import numpy as np
import onnx
import pytest
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static

from onnx_nets import make_plan, net, node, run_onnx, run_plan, sqnr

rng = np.random.default_rng(5)


def w(*shape, scale=0.3):
    return rng.normal(size=shape).astype(np.float32) * np.float32(scale)


class Reader(CalibrationDataReader):
    def __init__(self, x):
        self.batches = iter([{"x": x}])

    def get_next(self):
        return next(self.batches, None)


def float_net():
    return net(
        [
            node("Conv", ["x", "conv1.weight", "conv1.bias"], ["c1"], pads=[1, 1, 1, 1], name="conv1"),
            node("Relu", ["c1"], ["r1"], name="relu1"),
            node("Conv", ["r1", "dw.weight"], ["c2"], pads=[1, 1, 1, 1], group=8, name="dw"),
            node("Sigmoid", ["c2"], ["s2"], name="sigmoid"),
            node("Mul", ["c2", "s2"], ["m2"], name="mul"),
            node("Add", ["r1", "m2"], ["a2"], name="add"),
            node("MaxPool", ["a2"], ["p2"], kernel_shape=[2, 2], strides=[2, 2], name="pool"),
            node("Concat", ["p2", "p2"], ["cc"], axis=1, name="concat"),
            node("LeakyRelu", ["cc"], ["l3"], alpha=0.1, name="leaky"),
            node("GlobalAveragePool", ["l3"], ["g3"], name="gap"),
            node("Flatten", ["g3"], ["f3"], name="flatten"),
            node("Gemm", ["f3", "fc.weight", "fc.bias"], ["g4"], transB=1, name="fc"),
            node("MatMul", ["g4", "last.weight"], ["y"], name="last"),
        ],
        {"x": (3, 8, 8)},
        {
            "conv1.weight": w(8, 3, 3, 3),
            "conv1.bias": w(8),
            "dw.weight": w(8, 1, 3, 3),
            "fc.weight": w(6, 16),
            "fc.bias": w(6),
            "last.weight": w(6, 4),
        },
    )


@pytest.fixture(scope="module")
def x():
    return rng.normal(size=(8, 3, 8, 8)).astype(np.float32)


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("activation", [QuantType.QUInt8, QuantType.QInt8])
@pytest.mark.parametrize("form", [QuantFormat.QDQ, QuantFormat.QOperator])
def test_static(tmp_path, x, form, activation, per_channel):
    onnx.save(float_net(), tmp_path / "float.onnx")
    quantize_static(
        tmp_path / "float.onnx",
        tmp_path / "int8.onnx",
        Reader(x),
        quant_format=form,
        activation_type=activation,
        weight_type=QuantType.QInt8,
        per_channel=per_channel,
    )
    model = onnx.load(tmp_path / "int8.onnx")
    plan = make_plan(model, "int8")
    wanted, exact = run_onnx(model, {"x": x})["y"], run_onnx(float_net(), {"x": x})["y"]
    y = run_plan(plan, {"x": x})["y"]
    assert sqnr(wanted, y) > 28, sqnr(wanted, y)
    assert sqnr(exact, y) > sqnr(exact, wanted) - 2
    products = [op for op in plan.ops if op["op"] in ("conv2d", "gemm")]
    assert [op["name"] for op in products] == ["conv1", "dw", "fc", "last"]
    given = {i.name: onnx.numpy_helper.to_array(i) for i in model.graph.initializer}
    codes = next(a for n, a in given.items() if n.startswith("conv1.weight") and a.ndim == 4)
    np.testing.assert_array_equal(plan.tensors["conv1.weight"], codes.transpose(0, 2, 3, 1))
    scale = next(a for n, a in given.items() if n.startswith("x_scale"))
    np.testing.assert_array_equal(
        plan.tensors["activation_scales"][plan.activations[products[0]["inputs"][0]]["scale"]], scale
    )


def test_uint8_weights_become_int8_with_the_same_meaning(tmp_path, x):
    onnx.save(float_net(), tmp_path / "float.onnx")
    both = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QUInt8}
    quantize_static(tmp_path / "float.onnx", tmp_path / "int8.onnx", Reader(x), quant_format=QuantFormat.QDQ, **both)
    model = onnx.load(tmp_path / "int8.onnx")
    plan = make_plan(model, "int8")
    assert plan.ops[1]["attrs"].get("weight_zero_point", 0) != 0
    assert sqnr(run_onnx(model, {"x": x})["y"], run_plan(plan, {"x": x})["y"]) > 25


def test_dynamic_files_need_static_scales(tmp_path):
    onnx.save(float_net(), tmp_path / "float.onnx")
    quantize_dynamic(tmp_path / "float.onnx", tmp_path / "int8.onnx")
    with pytest.raises(ValueError, match="DynamicQuantizeLinear"):
        make_plan(onnx.load(tmp_path / "int8.onnx"), "int8")


def test_two_scales_of_one_tensor_are_a_lookup():
    s = {
        "s0": np.float32(0.04),
        "k0": w(3, 3, 1, 1),
        "s1": np.float32(0.1),
        "s2": np.float32(0.05),
        "z": np.uint8(128),
        "k": w(4, 3, 1, 1),
    }
    model = net(
        [
            node("QuantizeLinear", ["x", "s0", "z"], ["q0"]),
            node("DequantizeLinear", ["q0", "s0", "z"], ["d0"]),
            node("Conv", ["d0", "k0"], ["c0"]),
            node("QuantizeLinear", ["c0", "s1", "z"], ["q1"]),
            node("DequantizeLinear", ["q1", "s1", "z"], ["d1"]),
            node("Conv", ["d1", "k"], ["c1"]),
            node("QuantizeLinear", ["d1", "s2", "z"], ["q2"]),
            node("DequantizeLinear", ["q2", "s2", "z"], ["d2"]),
            node("Conv", ["d2", "k"], ["c2"]),
            node("Add", ["c1", "c2"], ["y"]),
        ],
        {"x": (3, 4, 4)},
        s,
    )
    plan = make_plan(model, "int8")
    x = rng.normal(size=(2, 3, 4, 4)).astype(np.float32) * 2
    assert sum(op["op"] == "lookup" for op in plan.ops) == 1
    assert sqnr(run_onnx(model, {"x": x})["y"], run_plan(plan, {"x": x})["y"]) > 30
