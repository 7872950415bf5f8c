"""lowbit.compare on the demo's net, against the same figures computed here from onnxruntime and NumPy."""

import numpy as np
import onnx
import onnxruntime
import pytest

import lowbit
from lowbit.compare import thresholds
from lowbit.data import Dataset
from lowbit.demo import files
from lowbit.float_reference import FloatNet, float_tensors, match, multiplications
from lowbit.layer_errors import LayerErrors, Ratio, multiplying
from lowbit.preprocessing import Preprocessing
from lowbit.timing import interleaved
from onnx_nets import net, node

FOLDER = files("lowbit.demo")
ONNX = str(FOLDER / "fashion.onnx")
IMAGES = Preprocessing.load(FOLDER / "fashion.toml")


@pytest.fixture(scope="module")
def data():
    return Dataset(f"{FOLDER / 'fashion.npz'}:x_test,y_test", IMAGES, rows=slice(96))


@pytest.fixture(scope="module")
def table():
    batches = Dataset(f"{FOLDER / 'fashion.npz'}:x_calibration", IMAGES, rows=slice(100)).batches(20)
    return lowbit.calibrate(ONNX, batches, method="mse")


@pytest.fixture(scope="module")
def model(table):
    return lowbit.convert(ONNX, calibration=table, preprocessing=IMAGES)


@pytest.fixture(scope="module")
def found(model, data, table):
    return lowbit.compare(ONNX, model, data, threads=1, calibration=table, sqnr_images=8, seconds=0.05)


@pytest.fixture(scope="module")
def inputs(data):
    return np.concatenate(list(data.batches(96)))


def test_accuracy_and_agreement(found, model, data, inputs):
    session = onnxruntime.InferenceSession(ONNX)
    answers = session.run(None, {session.get_inputs()[0].name: inputs})[0].argmax(1)
    low = model.run(inputs).argmax(1)
    assert found.images == 96
    assert found.accuracy_float == pytest.approx(100 * (answers == data.labels).mean())
    assert found.accuracy == pytest.approx(100 * (low == data.labels).mean())
    assert found.agreement == pytest.approx(100 * (answers == low).mean())


def test_every_layer_is_measured(found, model):
    names = [op["name"] for op in multiplying(model.plan.data)]
    assert [layer.name for layer in found.layers] == names and len(names) == 10
    for layer in found.layers:
        assert layer.ms > 0 and layer.macs > 0 and layer.bytes < layer.float_bytes
        assert layer.float_ms is None or layer.float_ms > 0
        for dB in (layer.sqnr_weight, layer.sqnr_activation, layer.sqnr):
            assert 10 < dB < 80, (layer.name, dB)
    assert sum(layer.float_ms is not None for layer in found.layers) >= 8
    assert {layer.op for layer in found.layers} == {"conv2d", "depthwise", "gemm"}


def test_errors_of_the_first_layer_against_numpy(model, inputs):
    plain = lowbit.convert(ONNX, recipe="float32")
    known = float_tensors(ONNX)
    errors = LayerErrors(plain.plan.data, model.plan.data, plain.plan.tensors, model.plan.tensors, known)
    session = model.session(keep_tensors=True)
    x = inputs[:4]
    session.run({model.inputs[0][0]: x})
    errors.add(FloatNet(ONNX, taps=errors.taps).tap(x), session)

    op = next(multiplying(model.plan.data))
    ref = next(multiplying(plain.plan.data))
    w = plain.plan.tensors[ref["params"]["weight"]].astype(np.float64)
    b = plain.plan.tensors[ref["params"]["bias"]].astype(np.float64)
    codes = model.plan.tensors[op["params"]["weight"]].astype(np.float64)
    wq = codes * model.plan.tensors[op["params"]["weight_scale"]].reshape(-1, 1, 1, 1)
    tensor = model.plan.data["tensors"][op["inputs"][0]]
    scale = float(model.plan.tensors["activation_scales"][tensor["scale"]])
    nhwc = x.transpose(0, 2, 3, 1).astype(np.float64)
    xq = np.clip(np.rint(nhwc / scale), -127, 127) * scale

    def conv(a, kernel):
        windows = np.lib.stride_tricks.sliding_window_view(np.pad(a, ((0, 0), (1, 1), (1, 1), (0, 0))), (3, 3), (1, 2))
        return np.einsum("nyxcij,oijc->nyxo", windows, kernel)

    truth = conv(nhwc, w) + b
    for got, wrong in [("weight", conv(nhwc, wq) + b), ("activation", conv(xq, w) + b)]:
        dB = 10 * np.log10((truth**2).sum() / ((wrong - truth) ** 2).sum())
        assert getattr(errors.layers[op["name"]], got).dB == pytest.approx(dB, abs=0.05)


def test_a_layer_left_in_float_has_no_error_of_its_own(table, data):
    name = next(multiplying(lowbit.convert(ONNX, recipe="float32").plan.data))["name"]
    mixed = lowbit.convert(ONNX, calibration=table, overrides={name: "float32"})
    layer = lowbit.compare(ONNX, mixed, data, threads=1, sqnr_images=4, seconds=0.01).layers[0]
    assert layer.sqnr_weight == layer.sqnr_activation == float("inf") and layer.weight == "float32"


def test_thresholds_carry_histogram_and_curve(found, model, table):
    assert len(found.thresholds) >= 9
    for chosen in found.thresholds:
        assert sum(chosen.counts) == table[chosen.tensor].count and chosen.threshold <= chosen.maximum * 1.01
        assert chosen.curve == []  # this method has none
    for chosen in thresholds(model, table.with_method("entropy")):
        best = chosen.curve_at[int(np.nanargmin(chosen.curve))]
        assert len(chosen.curve) == len(chosen.curve_at) and chosen.threshold == pytest.approx(best)


def test_raw_pixels(table, data):
    raw = lowbit.convert(ONNX, calibration=table, preprocessing=IMAGES, input_dtype="uint8")
    found = lowbit.compare(ONNX, raw, data, threads=1, sqnr_images=4, seconds=0.01)
    assert found.agreement > 90
    with pytest.raises(ValueError, match="raw uint8 pixels"):
        lowbit.compare(ONNX, raw, next(data.batches(8)))


def test_a_model_made_from_another_file(model, data, tmp_path):
    model.export_onnx(tmp_path / "qdq.onnx")
    again = lowbit.convert(str(tmp_path / "qdq.onnx"))
    found = lowbit.compare(ONNX, again, data, threads=1, sqnr_images=4, seconds=0.01)
    assert found.agreement > 95 and len(found.layers) == 10  # its tensors have other names: no errors, no failure


def test_bad_input(model, data, inputs, tmp_path):
    with pytest.raises(ValueError, match="no images"):
        lowbit.compare(ONNX, model, inputs[:0])
    with pytest.raises(ValueError, match="labels are"):
        lowbit.compare(ONNX, model, inputs[:8], np.zeros(7, np.int64), seconds=0.01)
    with pytest.raises(TypeError, match="float64"):
        lowbit.compare(ONNX, model, inputs.astype(np.float64))
    with pytest.raises(FileNotFoundError):
        lowbit.compare(tmp_path / "none.onnx", model, inputs)
    (tmp_path / "bad.onnx").write_bytes(b"no net")
    with pytest.raises(ValueError, match=r"bad\.onnx"):
        lowbit.compare(tmp_path / "bad.onnx", model, inputs)
    with pytest.raises(ValueError, match="batch 0"):
        lowbit.compare(ONNX, model, inputs, batch=0)


def test_match_tells_branches_apart(tmp_path):
    from onnx import TensorProto, helper, numpy_helper, save

    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", 2, 4, 4]) for n in "xy")
    weights = [numpy_helper.from_array(np.ones((2, 2, 1, 1), np.float32), n) for n in ("wa", "wb", "wc")]
    nodes = [
        helper.make_node("Conv", ["x", "wa"], ["a"], "A"),
        helper.make_node("Conv", ["a", "wb"], ["b"], "B"),
        helper.make_node("Conv", ["x", "wc"], ["c"], "C"),
        helper.make_node("Add", ["b", "c"], ["s"], "S"),
        helper.make_node("Relu", ["s"], ["y"], ""),
    ]
    graph = helper.make_graph(nodes, "g", [x], [y], weights)
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), tmp_path / "n.onnx")
    found, owner = multiplications(tmp_path / "n.onnx")
    assert [m.output for m in found] == ["a", "b", "c"] and owner["S"] == owner["y"] == "c"
    ends = {"one": ("x", "a"), "two": ("a", "y"), "three": ("x", "c")}  # the addition is fused into two
    assert match(tmp_path / "n.onnx", ends) == {"one": "a", "two": "b", "three": "c"}


def test_errors_behind_a_flattening(tmp_path):
    from onnx import TensorProto, helper, numpy_helper, save

    rng = np.random.default_rng(0)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 6, 6])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 5])
    shapes = {"conv.weight": (4, 3, 3, 3), "fc.weight": (5, 64)}
    weights = [numpy_helper.from_array(rng.standard_normal(s, np.float32), n) for n, s in shapes.items()]
    nodes = [
        helper.make_node("Conv", ["x", "conv.weight"], ["c"]),
        helper.make_node("Flatten", ["c"], ["f"]),
        helper.make_node("Gemm", ["f", "fc.weight"], ["y"], transB=1),
    ]
    graph = helper.make_graph(nodes, "g", [x], [y], weights)
    path = tmp_path / "n.onnx"
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    images = rng.standard_normal((8, 3, 6, 6), np.float32)
    model = lowbit.convert(str(path), calibration=lowbit.calibrate(str(path), [images], method="minmax"))
    layers = lowbit.compare(path, model, images, threads=1, seconds=0.01).layers
    assert [layer.name for layer in layers] == ["conv", "fc"]
    for layer in layers:  # a wrong order of the flattened channels would give about 0 dB
        assert layer.sqnr_weight > 30 and layer.sqnr_activation > 30 and layer.sqnr > 25 and layer.float_ms > 0


def test_node_names_that_are_tensors_of_others(tmp_path):
    """As Keras exporters write them: a node named like the tensor that a nameless node gives."""
    nodes = [
        node("Conv", ["x", "w"], ["c"], name="pool"),
        node("GlobalAveragePool", ["c"], ["p"], name="flat"),
        node("Flatten", ["p"], ["flat"]),
    ]
    path = tmp_path / "names.onnx"
    onnx.save(net(nodes, {"x": (3, 8, 8)}, {"w": np.ones((4, 3, 3, 3), np.float32)}, outputs=["flat"]), path)
    x = np.ones((1, 3, 8, 8), np.float32)
    timed = FloatNet(path, taps=["c"], profile=True)
    assert timed.run(x).shape == (1, 4) and timed.tap(x)["c"].shape == (1, 4, 6, 6)
    found, owner = multiplications(path)
    assert [m.output for m in found] == ["c"]
    assert {owner[name] for name in timed.node_ms() if name in owner} == {"c"}


def test_ratio():
    ratio = Ratio()
    assert ratio.dB is None
    ratio.add(np.float32([3, 4]), np.float32([0, 0]))
    assert ratio.dB == np.inf
    ratio.add(np.float32([0]), np.float32([0.5]))
    assert ratio.dB == pytest.approx(20)


def test_interleaved_alternates():
    calls = []
    timed = interleaved({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 0.002, 0.001)
    assert timed["a"].runs >= 5 and timed["a"].min <= timed["a"].median
    assert "".join(calls).count("ab") >= 2 and "".join(calls).count("ba") >= 1


def test_a_binary_network(tmp_path):
    rng = np.random.default_rng(0)
    w = {
        "w0": rng.normal(size=(40, 3, 3, 3)),
        "w1": np.where(rng.normal(size=(33, 40, 3, 3)) >= 0, 1, -1),
        "w2": np.where(rng.normal(size=(33 * 4 * 3, 10)) >= 0, 1, -1),
        "half": 0.5,
    }
    nodes = [
        node("Conv", ["x", "w0"], ["a"], name="/stem/Conv"),
        node("Sign", ["a"], ["s"]),
        node("Conv", ["s", "w1"], ["b"], name="/body/Conv"),
        node("Add", ["b", "half"], ["c"]),
        node("Sign", ["c"], ["t"]),
        node("Flatten", ["t"], ["f"]),
        node("MatMul", ["f", "w2"], ["y"], name="/head/MatMul"),
    ]
    path = tmp_path / "b.onnx"
    onnx.save(net(nodes, {"x": (3, 8, 7)}, {k: np.float32(v) for k, v in w.items()}), path)
    model = lowbit.convert(str(path), recipe="xnor")
    images = rng.normal(size=(8, 3, 8, 7)).astype(np.float32)
    report = lowbit.compare(path, model, images, sqnr_images=4, seconds=0.05)
    assert report.agreement == 100
    body = next(layer for layer in report.layers if layer.name == "body")
    assert (body.weight, body.activation, body.output, body.depth) == ("bits", "bits", "bits", 360)
    assert body.float_bytes == 4 * (33 * 360 + 33) and body.bytes == 33 * 360 // 8 + 33 * 4
    assert body.sqnr > 20 and body.sqnr_weight == np.inf
    assert "body" in str(report) and report.energy < report.energy_float
