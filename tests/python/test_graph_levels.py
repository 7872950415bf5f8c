"""Networks of few learned levels (LQ-Nets) from ONNX: what runs on planes, and that it gives what the nodes say."""

from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

import lowbit
import lowbit.graph.export
from lowbit import lq
from plan_reference import Reference


class LevelQuantize(OpRun):
    op_domain = "lowbit"

    def _run(self, x: np.ndarray, basis: np.ndarray) -> tuple[np.ndarray]:
        return (lq.quantize(x, basis, signed=False),)


class BasisWeight(OpRun):
    op_domain = "lowbit"

    def _run(self, planes: np.ndarray, basis: np.ndarray) -> tuple[np.ndarray]:
        along = basis.T.reshape(*basis.shape[::-1], *(1,) * (planes.ndim - 2))
        return ((along.astype(np.float64) * planes).sum(0).astype(np.float32),)


class Builder:
    """Nodes and initializers, one after the other; values are names."""

    def __init__(self, seed: int = 0):
        self.rng = np.random.default_rng(seed)
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, value: np.ndarray) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def node(self, op: str, *inputs: str, **attrs: Any) -> str:
        out = f"t{len(self.nodes)}"
        domain = "lowbit" if op in ("LevelQuantize", "BasisWeight") else ""
        self.nodes.append(helper.make_node(op, list(inputs), [out], domain=domain, **attrs))
        return out

    def floats(self, *shape: int) -> np.ndarray:
        return self.rng.normal(size=shape).astype(np.float32)

    def weight(self, planes: int, *shape: int) -> str:
        signs = self.rng.choice(np.int8([-1, 1]), (planes, *shape))
        basis = self.floats(shape[0], planes) / np.float32(np.prod(shape[1:]) ** 0.5)
        return self.node("BasisWeight", self.constant(signs), self.constant(basis))

    def levels(self, x: str, bits: int, basis: list[float] | None = None) -> str:
        found = np.float32(basis) if basis else np.abs(self.floats(bits))
        return self.node("LevelQuantize", x, self.constant(found))

    def norm(self, x: str, c: int) -> str:
        rows = [self.floats(c), self.floats(c), self.floats(c), np.abs(self.floats(c)) + np.float32(0.1)]
        return self.node("BatchNormalization", x, *map(self.constant, rows))

    def model(self, shape: list[int], *outputs: str) -> ModelProto:
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *shape])
        ys = [helper.make_tensor_value_info(o, TensorProto.FLOAT, None) for o in outputs]
        graph = helper.make_graph(self.nodes, "g", [x], ys, self.constants)
        opsets = [helper.make_opsetid("", 15), helper.make_opsetid("lowbit", 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def check(net: ModelProto, shape: list[int], *ops: str, recipe: str = "lq") -> lowbit.Model:
    """Against the nodes' definition, and against the plan's; ``ops`` are those with ``bitserial`` or ``levels``."""
    x = np.random.default_rng(5).normal(size=(3, *shape)).astype(np.float32)
    expected = ReferenceEvaluator(net, new_ops=[LevelQuantize, BasisWeight]).run(None, {"x": x})
    model = lowbit.convert(net, recipe=recipe)
    got = model.run(x)
    for y, e in zip(got.values() if isinstance(got, dict) else [got], expected, strict=True):
        np.testing.assert_allclose(y, e, rtol=2e-4, atol=2e-4 * np.abs(e).max())
    Reference(model.plan).run({"x": x})
    exported = ReferenceEvaluator(lowbit.graph.export.export_onnx(model.plan, "float")).run(None, {"x": x})
    for y, e in zip(exported, expected, strict=True):
        np.testing.assert_allclose(y, e, rtol=2e-4, atol=2e-4 * np.abs(e).max())
    if ops:
        assert [op["op"] for op in model.plan.ops if "bitserial" in op["op"] or "levels" in op["op"]] == list(ops)
    return model


@pytest.mark.parametrize("w_bits, a_bits", [(1, 1), (1, 2), (2, 2), (3, 3), (4, 4)])
def test_a_chain_stays_in_planes(w_bits: int, a_bits: int, tmp_path: Any):
    b = Builder(w_bits)
    t = b.node("Relu", b.node("Conv", "x", b.constant(b.floats(32, 3, 3, 3)), pads=[1, 1, 1, 1]))
    t = b.node("Conv", b.levels(t, a_bits), b.weight(w_bits, 40, 32, 3, 3), pads=[1, 1, 1, 1])
    t = b.node("Relu", b.norm(t, 40))
    t = b.node("Conv", b.levels(t, a_bits), b.weight(w_bits, 8, 40, 1, 1), b.constant(b.floats(8)))
    net = b.model([3, 6, 7], t)
    model = check(net, [3, 6, 7], "quantize_levels", "conv2d_bitserial", "conv2d_bitserial")
    assert [model.plan.activations[i]["dtype"] for i in model.plan.ops[-2]["inputs"]] == ["planes"]
    model.save(tmp_path / "net.lowbit")
    x = np.random.default_rng(1).normal(size=(2, 3, 6, 7)).astype(np.float32)
    np.testing.assert_array_equal(lowbit.load(tmp_path / "net.lowbit").run(x), model.run(x))
    assert f"levels {w_bits} bit per channel" in str(model.summary()) and f"levels {a_bits} bit" in str(model.summary())
    in_float = [row.weights.endswith(", runs in float32") for row in model.layers() if "bitserial" in row.op]
    assert in_float == [w_bits * a_bits > 4, True]  # sums of 288 and of 40 products


def test_residual_blocks():
    """The sum is read by the next block and by the shortcut: float32 and planes from one operation."""
    b = Builder(1)
    t = b.node("Relu", b.node("Conv", "x", b.constant(b.floats(16, 3, 3, 3))))
    for _ in range(2):
        u = b.node("Conv", b.levels(t, 2), b.weight(2, 16, 16, 3, 3), pads=[1, 1, 1, 1])
        u = b.levels(b.node("Relu", b.norm(u, 16)), 2)
        u = b.norm(b.node("Conv", u, b.weight(2, 16, 16, 3, 3), pads=[1, 1, 1, 1]), 16)
        t = b.node("Relu", b.node("Add", u, t))
    check(b.model([3, 7, 7], t), [3, 7, 7], "quantize_levels", *["conv2d_bitserial"] * 4)


def test_pre_activation_blocks():
    b = Builder(2)
    t = b.node("Conv", "x", b.constant(b.floats(16, 3, 3, 3)))
    for _ in range(2):
        u = b.levels(b.node("Relu", b.norm(t, 16)), 2)
        u = b.norm(b.node("Conv", u, b.weight(1, 16, 16, 3, 3), pads=[1, 1, 1, 1]), 16)
        u = b.node("Conv", b.levels(b.node("Relu", u), 2), b.weight(1, 16, 16, 3, 3), pads=[1, 1, 1, 1])
        t = b.node("Add", t, u)
    check(b.model([3, 7, 7], t), [3, 7, 7])


def test_pooled_and_flattened_levels():
    b = Builder(3)
    t = b.node("Conv", b.levels("x", 2), b.weight(2, 24, 6, 3, 3), strides=[2, 2], pads=[1, 1, 1, 1])
    t = b.node("MaxPool", b.levels(t, 3), kernel_shape=[2, 2], strides=[2, 2])
    t = b.node("Flatten", t)
    t = b.node("Gemm", t, b.weight(2, 10, 24 * 2 * 2), b.constant(b.floats(10)), transB=1, alpha=0.5)
    check(b.model([6, 8, 8], t), [6, 8, 8], "quantize_levels", "conv2d_bitserial", "dequantize_levels",
          "quantize_levels", "gemm_bitserial")  # fmt: skip


def test_groups_and_many_readers():
    b = Builder(4)
    q = b.levels("x", 2)
    t = b.node("Conv", q, b.weight(2, 12, 4, 3, 3), group=2)
    u = b.node("Conv", q, b.weight(1, 12, 8, 3, 3))
    v, w = b.levels(t, 1), b.levels(t, 3)  # two quantizers of one sum
    y = b.node("Conv", v, b.weight(2, 5, 12, 1, 1))
    z = b.node("Conv", w, b.weight(2, 5, 12, 1, 1))
    check(b.model([8, 5, 5], t, u, y, z, b.node("Relu", v)), [8, 5, 5])


@pytest.mark.parametrize("basis", [[-0.5, 1.0], [1.0, 0.25], [0.5, 0.5], [0.0, 0.7], [-0.3, -0.6]])
def test_bases_that_crossed_or_collapsed(basis: list[float]):
    b = Builder(5)
    t = b.node("Gemm", b.levels("x", 2, basis), b.weight(2, 9, 20), transB=1)
    t = b.node("Gemm", b.levels(t, 2, basis), b.weight(3, 7, 9), transB=1)
    check(b.model([20], t), [20], "quantize_levels", "gemm_bitserial", "gemm_bitserial")


def test_other_recipes_run_the_same_levels_in_float():
    b = Builder(6)
    t = b.node("Conv", b.levels("x", 2), b.weight(2, 8, 4, 3, 3))
    check(b.model([4, 5, 5], t), [4, 5, 5], "quantize_levels", "dequantize_levels", recipe="float32")


def test_layers_without_levels_get_the_rest():
    b = Builder(7)
    t = b.node("Conv", b.levels("x", 2), b.constant(b.floats(8, 4, 3, 3)))  # float weights
    t = b.node("Conv", b.levels(t, 2), b.weight(2, 8, 8, 3, 3))
    t = b.node("Conv", t, b.weight(2, 8, 8, 1, 1))  # float activations
    net = b.model([4, 7, 7], t)
    model = check(net, [4, 7, 7], "quantize_levels", "dequantize_levels", "quantize_levels", "conv2d_bitserial")
    assert [op["op"] for op in model.plan.ops].count("conv2d_f32") == 2
    with pytest.raises(ValueError, match=r"'conv_0'.*weights are not in levels"):
        lowbit.convert(net, recipe="float32", overrides={"conv_0": "lq"})


def test_a_net_without_levels_is_an_error():
    b = Builder(8)
    net = b.model([4, 5, 5], b.node("Conv", "x", b.constant(b.floats(8, 4, 3, 3))))
    with pytest.raises(ValueError, match="no layer is in levels"):
        lowbit.convert(net, recipe="lq")


@pytest.mark.parametrize(
    "planes, basis, message",
    [
        (np.zeros((2, 8, 4, 3, 3), np.int8), np.ones((8, 2), np.float32), "planes"),
        (np.ones((2, 8, 4, 3, 3), np.int8), np.ones((8, 3), np.float32), "planes"),
        (np.ones((5, 8, 4, 3, 3), np.int8), np.ones((8, 5), np.float32), "basis"),
        (np.ones((1, 8, 4, 3, 3), np.int8), np.full((8, 1), np.nan, np.float32), "basis"),
    ],
)
def test_wrong_nodes_are_named(planes: np.ndarray, basis: np.ndarray, message: str):
    b = Builder()
    w = b.node("BasisWeight", b.constant(planes), b.constant(basis))
    with pytest.raises(lowbit.UnsupportedError, match=f"BasisWeight.*{message}"):
        lowbit.convert(b.model([4, 5, 5], b.node("Conv", b.levels("x", 2), w)), recipe="lq")


def float_net() -> ModelProto:
    """Conv, ReLU, Conv, ReLU, pool, Conv + shortcut, ReLU, Gemm."""
    b = Builder(11)

    def conv(x: str, oc: int, c: int, k: int, scale: float = 1.0) -> str:
        w = b.floats(oc, c, k, k) * np.float32(scale / (c * k * k) ** 0.5)
        return b.node("Conv", x, b.constant(w), b.constant(b.floats(oc)), pads=[k // 2] * 4)

    t = b.node("Relu", conv("x", 32, 3, 3))
    t = b.node("MaxPool", b.node("Relu", conv(t, 32, 32, 3)), kernel_shape=[2, 2], strides=[2, 2])
    t = b.node("Relu", b.node("Add", conv(t, 32, 32, 3), t))
    t = b.node("Flatten", b.node("GlobalAveragePool", t))
    return b.model([3, 8, 8], b.node("Gemm", t, b.constant(b.floats(10, 32)), transB=1))


@pytest.fixture(scope="module")
def calibrated() -> tuple[ModelProto, Any]:
    net = float_net()
    rng = np.random.default_rng(2)
    batches = [rng.normal(size=(16, 3, 8, 8)).astype(np.float32) for _ in range(2)]
    return net, lowbit.calibrate(net, batches)


@pytest.mark.parametrize("recipe, most", [("lq:4/4", 0.12), ("lq:2/3", 0.4), ("lq-int8:4/4", 0.12)])
def test_bases_are_fitted_after_training(calibrated: tuple[ModelProto, Any], recipe: str, most: float):
    """First and last layer keep the rest; the error shrinks with the bits."""
    net, table = calibrated
    x = np.random.default_rng(3).normal(size=(8, 3, 8, 8)).astype(np.float32)
    (expected,) = ReferenceEvaluator(net).run(None, {"x": x})
    model = lowbit.convert(net, recipe, table)
    y = model.run(x)
    assert np.linalg.norm(y - expected) < most * np.linalg.norm(expected)
    ops = [op["op"] for op in model.plan.ops if "conv2d" in op["op"] or "gemm" in op["op"]]
    rest = ("conv2d", "gemm") if "int8" in recipe else ("conv2d_f32", "gemm_f32")
    assert ops == [rest[0], "conv2d_bitserial", "conv2d_bitserial", rest[1]]
    if "int8" not in recipe:
        (reference,) = Reference(model.plan).run({"x": x}).values()
        np.testing.assert_allclose(y, reference, rtol=2e-4, atol=2e-4 * np.abs(expected).max())
    for isa in lowbit.isas():
        np.testing.assert_array_equal(model.run(x, isa=isa, threads=2), model.run(x, isa=isa, threads=1))


def test_an_override_reaches_the_last_layer_and_bits_differ_by_layer(calibrated: tuple[ModelProto, Any]):
    net, table = calibrated
    model = lowbit.convert(net, "float32", table, overrides={"op:Gemm": "lq:2/2", "conv_1": "lq:3/1"})
    found = {
        op["name"]: model.plan.tensors[op["params"]["weight"]].shape[0]
        for op in model.plan.ops
        if "bits" in op["op"] or "bitserial" in op["op"]
    }
    assert found == {"gemm_0": 2, "conv_1": 3}


def test_ranges_without_histograms_spread_levels_evenly(calibrated: tuple[ModelProto, Any]):
    net, table = calibrated
    ranges = {name: table.range(name) for name in table}
    model = lowbit.convert(net, "lq:2/2", ranges)
    bases = [model.plan.tensors[op["params"]["input_basis"]] for op in model.plan.ops if "bitserial" in op["op"]]
    assert len(bases) == 2
    for basis in bases:
        assert basis[1] == pytest.approx(2 * basis[0])


def test_it_needs_a_calibration(calibrated: tuple[ModelProto, Any]):
    with pytest.raises(ValueError, match="needs calibration"):
        lowbit.convert(calibrated[0], "lq:2/2")
    with pytest.raises(ValueError, match="lq:W/A"):
        lowbit.convert(calibrated[0], "lq:5/2")
