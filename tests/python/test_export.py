"""Exported ONNX against the plan's reference: the same network, run by onnxruntime."""

import numpy as np
import onnx
import pytest

from lowbit.graph.export import export_onnx, write
from onnx_nets import make_plan, min_max, net, node, run_onnx, run_plan, sqnr
from test_graph_ops import CASES, between_products, case, rng

NAMES = [n for n in CASES if n != "max_pool_ceil_last_outside"]


@pytest.mark.parametrize("recipe", ["int8", "int8-affine", "int8-dynamic"])
@pytest.mark.parametrize("name", NAMES)
def test_qdq_gives_what_the_plan_gives(name, recipe):
    model, shape = between_products(name)
    x = rng.normal(size=(4, *shape)).astype(np.float32)
    ranges = None if recipe == "int8-dynamic" else min_max(model, {"in": x})
    plan = make_plan(model, recipe, ranges)
    y = run_plan(plan, {"in": x})["out"]
    exported = run_onnx(export_onnx(plan), {"in": x})["out"]
    assert exported.shape == y.shape
    assert sqnr(y, exported) > 30, sqnr(y, exported)  # a few codes differ by one where onnxruntime rounds otherwise


@pytest.mark.parametrize("name", CASES)
def test_float_recipe_exports_the_float_network(name):
    model, x = case(name)
    exported = export_onnx(make_plan(model), "float")
    np.testing.assert_allclose(run_onnx(exported, {"x": x})["y"], run_onnx(model, {"x": x})["y"], rtol=2e-5, atol=2e-5)


def test_weights_are_int8_and_biases_int32():
    model = net(
        [node("Conv", ["x", "w", "b"], ["y"])],
        {"x": (3, 4, 4)},
        {"w": rng.normal(size=(5, 3, 1, 1)).astype(np.float32), "b": rng.normal(size=5).astype(np.float32)},
    )
    plan = make_plan(model, "int8", {"x": (-1, 1)})
    exported = export_onnx(plan)
    types = {i.name: i.data_type for i in exported.graph.initializer}
    assert types["conv_0.weight_quantized"] == onnx.TensorProto.INT8
    assert types["conv_0.bias_quantized"] == onnx.TensorProto.INT32
    axes = [n.attribute[0].i for n in exported.graph.node if n.op_type == "DequantizeLinear" and n.attribute]
    assert axes == [0, 0]
    floats = export_onnx(plan, "float")
    assert not [n for n in floats.graph.node if "Quantize" in n.op_type]


def test_any_batch(tmp_path):
    model, _ = case("flatten_gemm")
    exported = export_onnx(make_plan(model))
    write(exported, tmp_path / "net.onnx")
    assert [p.name for p in tmp_path.iterdir()] == ["net.onnx"]
    loaded = onnx.load(tmp_path / "net.onnx")
    for n in (1, 5):
        assert run_onnx(loaded, {"x": np.zeros((n, 6, 9, 11), np.float32)})["y"].shape == (n, 7)


def test_unknown_form():
    model, _ = case("relu")
    with pytest.raises(ValueError, match="qop"):
        export_onnx(make_plan(model), "qop")
