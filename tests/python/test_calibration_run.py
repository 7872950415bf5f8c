"""Calibration runs on small ONNX nets: which tensors, taps, batches, errors, sharding."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest

import lowbit
from lowbit.calibration import Histogram
from lowbit.calibration.tap import TappedNet

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

DATA = Path(os.environ.get("LOWBIT_DATA", Path(__file__).resolve().parents[3] / "shared/data"))


def info(name, shape, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def model(nodes, inputs, outputs, weights=()):
    graph = helper.make_graph(nodes, "g", inputs, outputs, [numpy_helper.from_array(v, k) for k, v in weights])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def small_net():
    """x -> Conv -> BatchNormalization -> Relu -> Dropout -> + a constant that a node computes -> y; integers beside."""
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Constant", [], ["const"], value=numpy_helper.from_array(np.float32([2.0]))),
        helper.make_node("Neg", ["const"], ["minus"]),
        helper.make_node("Conv", ["x", "w"], ["conv"], pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["conv", "s", "b", "m", "v"], ["bn"]),
        helper.make_node("Relu", ["bn"], ["relu"]),
        helper.make_node("Shape", ["relu"], ["shape"]),
        helper.make_node("Dropout", ["relu"], ["drop", "mask"]),
        helper.make_node("Add", ["drop", "minus"], ["y"]),
    ]
    weights = [("w", rng.standard_normal((4, 3, 3, 3)).astype(np.float32))]
    weights += [(n, rng.uniform(0.5, 1, 4).astype(np.float32)) for n in "sbmv"]
    return model(nodes, [info("x", ["N", 3, 6, 6])], [info("y", ["N", 4, 6, 6])], weights)


def batches(count, size=2, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((size, 3, 6, 6)).astype(np.float32) for _ in range(count)]


def test_every_float_activation_and_nothing_else():
    table = lowbit.calibrate(small_net(), batches(3))
    assert list(table) == ["x", "conv", "bn", "relu", "drop", "y"]
    assert (table.samples, table.method, table.shard) == (6, "mse", None)
    assert {o.count for n, o in table.tensors.items() if n != "x"} == {3 * 2 * 4 * 36}


def test_histograms_are_those_of_a_plain_run():
    net, data = small_net(), batches(4)
    del net.graph.output[:]
    names = ["conv", "bn", "relu", "y"]
    net.graph.output.extend(onnx.ValueInfoProto(name=n) for n in names)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(net.SerializeToString(), options, providers=["CPUExecutionProvider"])
    want = {n: Histogram() for n in [*names, "x"]}
    for x in data:
        want["x"].observe(x)
        for name, value in zip(names, session.run(names, {"x": x}), strict=True):
            want[name].observe(value)
    table = lowbit.calibrate(small_net(), data, method="entropy", tensors=[*names, "x"])
    for name, h in want.items():
        assert table[name].state_dict() == {"method": "entropy", "literal_bin0": False, **h.state_dict()}


def test_several_taps_give_the_same_table():
    net = small_net()
    whole = lowbit.calibrate(net, batches(3))
    for limit in (1, 4 * 2 * 4 * 36, 3 * 4 * 2 * 4 * 36):
        assert lowbit.calibrate(net, iter(batches(3)), memory_limit=limit).digest == whole.digest
    tap = TappedNet(net, memory_limit=2 * 4 * 2 * 4 * 36)
    dict(tap.run({"x": batches(1)[0]}))
    assert tap.taps == [["conv", "bn"], ["relu", "drop"], ["y"]]
    dict(tap.run({"x": batches(1, size=4)[0]}))  # twice the batch: planned again
    assert tap.taps == [["conv"], ["bn"], ["relu"], ["drop"], ["y"]]
    dict(tap.run({"x": batches(1, size=1)[0]}))
    assert len(tap.taps) == 5


def test_shards_merge_to_the_whole():
    net, data = small_net(), batches(7)
    whole = lowbit.calibrate(net, data)
    shards = [lowbit.calibrate(net, iter(data), shard=(i, 3)) for i in range(3)]
    assert [(s.shard, s.samples) for s in shards] == [((0, 3), 6), ((1, 3), 4), ((2, 3), 4)]
    assert shards[1].merge(shards[2]).merge(shards[0]).digest == whole.digest


def test_forms_of_batches():
    net, data = small_net(), batches(3, size=1)
    want = lowbit.calibrate(net, data).digest
    stacked = np.concatenate(data)
    for form in (
        iter(data),
        tuple(data),
        (x for x in data),
        lambda: (x for x in data),
        [{"x": x} for x in data],
        stacked,
        [data[0], np.zeros((0, 3, 6, 6), np.float32), *data[1:]],
    ):
        assert lowbit.calibrate(net, form).digest == want
    path_free = [np.asfortranarray(x) for x in data]
    assert lowbit.calibrate(net, path_free).digest == want


def test_path_and_progress(tmp_path):
    path = tmp_path / "net.onnx"
    onnx.save(small_net(), path)
    calls = []
    table = lowbit.calibrate(str(path), batches(2), method="minmax", progress=lambda *a: calls.append(a))
    assert calls == [(1, 2), (2, 2)]
    lowbit.calibrate(path, iter(batches(2)), tensors=["y"], progress=lambda *a: calls.append(a))
    assert calls[2:] == [(1, None), (2, None)]
    import hashlib

    assert table.model == hashlib.sha256(path.read_bytes()).hexdigest()
    for b in (b"", b"not onnx", path.read_bytes()[:100]):
        path.write_bytes(b)
        with pytest.raises(ValueError, match=r"calibrate: .*(net\.onnx|onnxruntime)"):
            lowbit.calibrate(path, batches(1))


def test_settings_reach_the_observers():
    table = lowbit.calibrate(small_net(), batches(1), method="percentile", percentile=90, bins=64)
    assert table["y"].percentile == 90 and table["y"].histogram.bins == 64


def test_bad_input_is_named():
    net, x = small_net(), batches(1)[0]
    bad = x.copy()
    bad[1, 2, 3, 4] = np.nan
    for call, what in [
        (lambda: lowbit.calibrate(net, [x, bad]), "tensor 'x', batch 1: .*NaN"),
        (lambda: lowbit.calibrate(net, []), "no samples"),
        (lambda: lowbit.calibrate(net, [x[:0]]), "no samples"),
        (lambda: lowbit.calibrate(net, [x], shard=(1, 2)), "no samples in shard"),
        (lambda: lowbit.calibrate(net, [x], shard=(2, 2)), "shard"),
        (lambda: lowbit.calibrate(net, [x], method="best"), "'best'"),
        (lambda: lowbit.calibrate(net, [x], method="percentile", percentile=0), "percentile"),
        (lambda: lowbit.calibrate(net, [x], engine="spark"), "'spark'"),
        (lambda: lowbit.calibrate(net, [x], tensors=["relu1"]), "no tensor 'relu1'; 'relu'"),
        (lambda: lowbit.calibrate(net, [x], memory_limit=0), "memory_limit"),
        (lambda: lowbit.calibrate(net, [x[:, :2]]), r"batch 0, input 'x' has shape \(2, 2, 6, 6\)"),
        (lambda: lowbit.calibrate(net, [x[0]]), "shape"),
        (lambda: lowbit.calibrate(net, [{"z": x}]), "'z'"),
        (lambda: lowbit.calibrate(net, [{}]), "lacks input 'x'"),
    ]:
        with pytest.raises(ValueError, match=what):
            call()
    with pytest.raises(TypeError, match=r"input 'x' is float64, the net takes float32"):
        lowbit.calibrate(net, [x.astype(float)])
    for batches_ in ("images/", {"x": x}):
        with pytest.raises(TypeError, match="batches"):
            lowbit.calibrate(net, batches_)
    with pytest.raises(TypeError, match="net is a int"):
        lowbit.calibrate(3, [x])
    with pytest.raises(TypeError, match="tensors"):
        lowbit.calibrate(net, [x], tensors="relu")


def test_infinity_inside_the_net_is_named():
    net = model(
        [helper.make_node("Log", ["x"], ["log"]), helper.make_node("Relu", ["log"], ["y"])],
        [info("x", [2])],
        [info("y", [2])],
    )
    with pytest.raises(ValueError, match=r"tensor 'log', batch 1: .*index 1 of 2 is -infinite"):
        lowbit.calibrate(net, [np.float32([1, 2]), np.float32([1, 0])])


def test_several_inputs_and_integer_ones():
    nodes = [
        helper.make_node("Cast", ["u"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["f", "x"], ["sum"]),
        helper.make_node("ArgMax", ["sum"], ["top"], axis=1),
    ]
    net = model(
        nodes, [info("u", ["N", 3], TensorProto.UINT8), info("x", ["N", 3])], [info("top", ["N", 1], TensorProto.INT64)]
    )
    feeds = {"u": np.uint8([[1, 2, 250]]), "x": np.float32([[1, 2, 3]])}
    table = lowbit.calibrate(net, [feeds], method="minmax")
    assert {n: table[n].hi for n in table} == {"x": 3, "f": 250, "sum": 253}
    with pytest.raises(ValueError, match="give a mapping"):
        lowbit.calibrate(net, [feeds["x"]])


def test_subgraphs_see_outer_tensors():
    then = helper.make_graph([helper.make_node("Add", ["a", "k"], ["t"])], "then", [], [info("t", [2])])
    other = helper.make_graph([helper.make_node("Neg", ["a"], ["e"])], "else", [], [info("e", [2])])
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("If", ["c"], ["y"], then_branch=then, else_branch=other),
    ]
    weights = [("k", np.float32([10, 10])), ("c", np.array(True))]
    net = model(nodes, [info("x", [2])], [info("y", [2])], weights)
    table = lowbit.calibrate(net, [np.float32([1, 2])], method="minmax", memory_limit=8)
    assert {n: table[n].hi for n in table} == {"x": 2, "a": 2, "y": 12}


def test_missing_extras_are_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r'pip install "lowbit\[ray\]"'):
        lowbit.calibrate(small_net(), batches(1), engine="ray")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ImportError, match=r'pip install "lowbit\[onnx\]"'):
        lowbit.calibrate(small_net(), batches(1))


def test_a_real_net():
    path = DATA / "mobilenet_v2_100.onnx"
    if not path.exists():
        pytest.skip(f"{path} is not there (LOWBIT_DATA)")
    x = np.random.default_rng(0).uniform(-1, 1, (1, 3, 224, 224)).astype(np.float32)
    table = lowbit.calibrate(path, [x], memory_limit=32 << 20)
    assert len(table) == 153
    assert all(o.histogram.used > 2048 for o in table.tensors.values())
    relu6 = [n for n in table if table[n].lo == 0 and table[n].hi == 6]
    assert len(relu6) > 20
