"""``lowbit.convert``, ``Model``, ``lowbit.load``: whole networks on the engine, against the reference of the plan."""

import json
import threading

import numpy as np
import onnx
import pytest

import lowbit
from onnx_nets import min_max, net, node, run_onnx, sqnr
from plan_reference import Reference
from test_graph_nets import REAL, real, residual_net
from test_graph_ops import CASES, between_products, case

rng = np.random.default_rng(3)
RECIPES = ["int8", "int8-tensor", "int8-affine", "int8-dynamic", "float32", {"weight": "int8", "activation": "uint8"}]


def images(n, *shape):
    return rng.normal(size=(n, *shape)).astype(np.float32)


@pytest.fixture(scope="module")
def small():
    model, x = residual_net(), images(6, 3, 10, 10)
    return model, x, min_max(model, {"x": x})


def same(y, wanted, exact):
    if exact:
        np.testing.assert_array_equal(y, wanted)
    else:
        np.testing.assert_allclose(y, wanted, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("recipe", ["int8", "int8-affine", "int8-dynamic"])
@pytest.mark.parametrize("name", CASES)
def test_every_operator_on_the_engine(name, recipe):
    """Codes are equal bit for bit; what runs in float agrees within its rounding."""
    model, shape = between_products(name)
    x = images(3, *shape)
    ranges = None if recipe == "int8-dynamic" else min_max(model, {"in": x})
    converted = lowbit.convert(model, recipe, ranges)
    wanted = Reference(converted.plan).run({"in": x})["out"]
    floats = [op for op in converted.plan.ops if op["op"] in ("unary", "softmax", "conv2d_f32", "gemm_f32")]
    same(converted.run(x), wanted, not floats)


@pytest.mark.parametrize("name", CASES)
def test_every_operator_in_float_on_the_engine(name):
    model, x = case(name)
    np.testing.assert_allclose(
        lowbit.convert(model, "float32").run(x), run_onnx(model, {"x": x})["y"], rtol=1e-4, atol=2e-5
    )


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_levels_and_threads_give_one_result(small, recipe):
    model, x, ranges = small
    converted = lowbit.convert(model, recipe, ranges)
    wanted = Reference(converted.plan).run({"x": x})["y"]
    ran = []
    for isa in lowbit.isas():
        for threads in (1, 2):
            same(converted.run(x, isa=isa, threads=threads), wanted, recipe != "float32")
        ran.append(isa)
    assert ran == lowbit.isas() and "scalar" in ran
    assert sqnr(run_onnx(model, {"x": x})["y"], wanted) > 20


@pytest.mark.parametrize("rounding", ["nearest_even", "gemmlowp", "single"])
@pytest.mark.parametrize("name", [n for n, s in REAL.items() if s[1] < 100])
def test_real_nets_bit_for_bit(name, rounding):
    model, shape = real(name), REAL[name]
    feed = {model.graph.input[0].name: images(2, *shape)}
    shapes = {model.graph.input[0].name: shape}
    converted = lowbit.convert(model, "int8", min_max(model, feed), rounding=rounding, input_shapes=shapes)
    (wanted,) = Reference(converted.plan).run(feed).values()
    for isa in lowbit.isas():
        if isa != "scalar" or shape[1] < 40:
            np.testing.assert_array_equal(converted.run(feed, isa=isa), wanted)


def test_batches_of_any_size(small):
    model, x, ranges = small
    converted = lowbit.convert(model, "int8", ranges)
    whole = converted.run(x)
    for n in (1, 2, 5):
        np.testing.assert_array_equal(converted.run(x[:n]), whole[:n])


def test_save_load_and_manifest(small, tmp_path):
    model, x, ranges = small
    onnx.save(model, tmp_path / "net.onnx")
    converted = lowbit.convert(
        tmp_path / "net.onnx", "int8", ranges, overrides={"fc": "float32"}, preprocessing={"size": 10}
    )
    converted.save(tmp_path / "net.lowbit")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["net.lowbit", "net.onnx"]
    loaded = lowbit.load(tmp_path / "net.lowbit")
    np.testing.assert_array_equal(loaded.run(x), converted.run(x))
    assert loaded.plan.data == json.loads(converted.plan.to_json())
    manifest = loaded.manifest
    assert manifest["recipe"] == "int8" and manifest["source"] == "net.onnx" and len(manifest["source_sha256"]) == 64
    assert manifest["preprocessing"] == {"size": 10} and manifest["overrides"] == {"fc": "float32"}
    assert loaded.summary() == converted.summary()
    before = (tmp_path / "net.lowbit").read_bytes()
    with pytest.raises(OSError):
        converted.save(tmp_path / "no folder" / "net.lowbit")
    assert (tmp_path / "net.lowbit").read_bytes() == before
    (tmp_path / "cut.lowbit").write_bytes(before[:-7])
    with pytest.raises(lowbit.FormatError):
        lowbit.load(tmp_path / "cut.lowbit")


def test_summary_counts(small):
    model, _, ranges = small
    rows = lowbit.convert(model, "int8", ranges).layers()
    by_name = {r.layer: r for r in rows}
    assert by_name["conv1"].macs == 8 * 27 * 100 and by_name["conv1"].bytes == 8 * 27 + 8 * 4 + 8 * 4
    assert by_name["conv1"].weights == "int8 per channel" and by_name["conv1"].output == "uint8"
    assert by_name["conv1"].moved == by_name["conv1"].bytes + 300 + 800
    assert by_name["fc"].output == "float32"
    text = lowbit.convert(model, "int8-dynamic").summary()
    assert "uint8 dynamic" in text and "total" in text.splitlines()[-1]


def test_batches_are_calibrated(small):
    model, x, _ = small
    by_batches = lowbit.convert(model, "int8", [x[:3], x[3:]], method="minmax")
    table = lowbit.calibrate(model, [x[:3], x[3:]], method="minmax")
    np.testing.assert_array_equal(by_batches.run(x), lowbit.convert(model, "int8", table).run(x))
    assert (
        by_batches.manifest["calibration"]["method"] == "minmax" and by_batches.manifest["calibration"]["samples"] == 6
    )
    table = lowbit.calibrate(model, [x], method="percentile")
    assert sqnr(run_onnx(model, {"x": x})["y"], lowbit.convert(model, calibration=table).run(x)) > 15
    with pytest.raises(ValueError, match="calibration"):
        lowbit.convert(model)


@pytest.mark.parametrize("batch", [np.float32([1]), np.zeros((1, 3, 9, 10), np.float32), np.zeros((1, 3, 10, 10))])
def test_wrong_inputs(small, batch):
    model, _, ranges = small
    converted = lowbit.convert(model, "int8", ranges)
    with pytest.raises(TypeError if batch.dtype == np.float64 else ValueError, match="x"):
        converted.run(batch)
    with pytest.raises(ValueError, match="z"):
        converted.run({"z": batch})


def test_several_inputs_and_outputs():
    model = net(
        [node("Add", ["a", "b"], ["s"]), node("Relu", ["s"], ["y"]), node("Conv", ["s", "w"], ["z"])],
        {"a": (3, 4, 4), "b": (3, 4, 4)},
        {"w": images(2, 3, 1, 1)},
        outputs=("y", "z", "s"),
    )
    feeds = {"a": images(2, 3, 4, 4), "b": images(2, 3, 4, 4)}
    wanted = run_onnx(model, feeds)
    for recipe in ("float32", "int8"):
        converted = lowbit.convert(model, recipe, min_max(model, feeds))
        got = converted.run(feeds)
        assert list(got) == ["y", "z", "s"]
        for name, y in got.items():
            assert sqnr(wanted[name], y) > 25
    with pytest.raises(ValueError, match="a, b"):
        converted.run(feeds["a"])


def test_sessions_in_threads(small):
    model, x, ranges = small
    converted = lowbit.convert(model, "int8", ranges)
    wanted = converted.run(x)
    wrong = []

    def work():
        session = converted.session(threads=1)
        for _ in range(20):
            if not np.array_equal(session.run({"x": x})["y"], wanted):
                wrong.append(1)

    workers = [threading.Thread(target=work) for _ in range(4)]
    for t in workers:
        t.start()
    for t in workers:
        t.join()
    assert not wrong


@pytest.mark.parametrize("recipe", ["int8", "int8-affine", "float32"])
def test_raw_images(small, recipe):
    model, _, _ = small
    raw = rng.integers(0, 256, size=(4, 10, 10, 3), dtype=np.uint8)
    prepared = {"scale": 1 / 255, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "layout": "NCHW"}
    x = ((raw.astype(np.float64) / 255 - prepared["mean"]) / prepared["std"]).transpose(0, 3, 1, 2).astype(np.float32)
    ranges = min_max(model, {"x": x})
    converted = lowbit.convert(model, recipe, ranges, preprocessing=prepared, input_dtype="uint8")
    assert converted.inputs == [("x", "uint8", (-1, 10, 10, 3))]
    assert converted.plan.ops[0]["op"] == "lookup"
    same(converted.run(raw), lowbit.convert(model, recipe, ranges).run(x), recipe != "float32")
    with pytest.raises(ValueError, match="preprocessing"):
        lowbit.convert(model, recipe, ranges, input_dtype="uint8")
    with pytest.raises(ValueError, match="int16"):
        lowbit.convert(model, recipe, ranges, input_dtype="int16")


def test_max_drop_keeps_the_worst_layer_in_float():
    """A layer whose range is far too small ruins the net; it alone must go back to float."""
    model, x = residual_net(), images(64, 3, 10, 10)
    ranges = min_max(model, {"x": x})
    labels = run_onnx(model, {"x": x})["y"].argmax(axis=1)
    ranges["p"] = (-1e-3, 1e-3)
    converted = lowbit.convert(model, "int8", ranges, max_drop=10, data=(x, labels))
    note = converted.manifest["max_drop"]
    assert note["float"] == 100 and note["reached"] >= 90 and note["kept_in_float"] == ["fc"]
    assert [op["op"] for op in converted.plan.ops if op["name"] == "fc"] == ["gemm_f32"]
    wanted = run_onnx(model, {"x": x})["y"]
    scored = lowbit.convert(model, "int8", ranges, max_drop=15, evaluate=lambda m: min(sqnr(wanted, m.run(x)), 40.0))
    assert scored.manifest["max_drop"]["kept_in_float"] == ["fc"]
    with pytest.raises(ValueError, match="max_drop"):
        lowbit.convert(model, "int8", ranges, max_drop=1)


def test_quantized_export_runs_alike(small, tmp_path):
    model, x, ranges = small
    converted = lowbit.convert(model, "int8", ranges)
    converted.export_onnx(tmp_path / "q.onnx")
    y = run_onnx(onnx.load(tmp_path / "q.onnx"), {"x": x})["y"]
    assert sqnr(converted.run(x), y) > 30
    again = lowbit.convert(tmp_path / "q.onnx", "int8")  # its own scales come back
    assert sqnr(converted.run(x), again.run(x)) > 40


def test_torch_module():
    torch = pytest.importorskip("torch")
    import torch_nets

    torch.manual_seed(1)
    module = torch_nets.resnet18(width=8, classes=10).eval()
    x = torch.randn(2, 3, 64, 64)
    converted = lowbit.convert(module, "float32", example=x)
    np.testing.assert_allclose(converted.run(x), module(x).detach().numpy(), rtol=1e-3, atol=1e-4)
    with pytest.raises(ValueError, match="example"):
        lowbit.convert(module, "float32")


def test_unsupported_is_a_value_error():
    model = net([node("Erf", ["x"], ["y"], name="odd")], {"x": (3,)})
    with pytest.raises(lowbit.UnsupportedError, match=r"'odd' \(Erf\)"):
        lowbit.convert(model, "float32")
    assert issubclass(lowbit.UnsupportedError, ValueError)
