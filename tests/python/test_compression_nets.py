"""Whole networks with codebook weights: recipe, file, engine against Python and onnxruntime, export, command line."""

import json
import re

import numpy as np
import pytest

import lowbit
from lowbit import cli
from lowbit.compression import layer_sizes, size_steps, size_table
from lowbit.container import to_bytes
from lowbit.demo import files
from lowbit.graph.codebook import coded_weights, float_weights, is_codebook

onnx_nets = pytest.importorskip("onnx_nets", reason="needs onnx and onnxruntime")
node, net, run_onnx = onnx_nets.node, onnx_nets.net, onnx_nets.run_onnx
FASHION = str(files("lowbit.demo") / "fashion.onnx")


def sparse(shape, density, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=shape) * (rng.random(shape) < density)).astype(np.float32)


def small_net(density=0.3):
    """conv (strided, padded, ReLU), grouped conv, flatten, gemm."""
    nodes = [
        node("Conv", ["x", "conv1.weight", "conv1.bias"], ["a"], strides=[2, 1], pads=[1, 0, 2, 1]),
        node("Relu", ["a"], ["b"]),
        node("Conv", ["b", "conv2.weight"], ["c"], group=2),
        node("Flatten", ["c"], ["d"]),
        node("Gemm", ["d", "fc.weight", "fc.bias"], ["y"], transB=1),
    ]
    weights = {
        "conv1.weight": sparse((8, 3, 3, 3), density),
        "conv1.bias": sparse(8, 1),
        "conv2.weight": sparse((6, 4, 2, 2), density, 1),
        "fc.weight": sparse((10, 6 * 4 * 7), density, 2),
        "fc.bias": sparse(10, 1, 3),
    }
    return net(nodes, {"x": (3, 9, 9)}, weights)


def images(n=3):
    return np.random.default_rng(5).normal(size=(n, 3, 9, 9)).astype(np.float32)


def ops(model):
    return {op["name"]: op for op in model.plan.ops if is_codebook(op)}


@pytest.mark.parametrize("density", [0.1, 1.0])
@pytest.mark.parametrize("recipe", ["codebook:3", "codebook:8", "codebook:5/huffman"])
def test_the_engine_runs_what_the_export_says(recipe, density):
    """The float export has the decoded weights; onnxruntime runs it with other sums."""
    model = lowbit.convert(small_net(density), recipe=recipe)
    assert len(ops(model)) == 3
    expected = run_onnx(model.export_onnx(form="float"), {"x": images()})["y"]
    np.testing.assert_allclose(model.run(images()), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("density", [0.1, 1.0])
def test_every_level_and_thread_count_equals_the_kernel(density):
    """A product in a plan is lowbit.codebook_gemm, bit for bit."""
    model = lowbit.convert(small_net(density), recipe="codebook:4/huffman")
    session = model.session(keep_tensors=True)
    y = next(iter(session.run({"x": images()}).values()))
    op = ops(model)["fc"]
    coded = coded_weights(model.plan, op)
    x = np.ascontiguousarray(np.asarray(session.tensor(op["inputs"][0])).reshape(3, -1))
    packed = lowbit.pack_indices(coded.indices(), coded.bits)
    bias = model.plan.tensors[op["params"]["bias"]]
    assert np.array_equal(lowbit.codebook_gemm(x, packed, coded.codebook, bias=bias), y)
    ran = [
        isa for isa in lowbit.isas() if all(np.array_equal(model.run(images(), isa=isa, threads=t), y) for t in (1, 3))
    ]
    assert ran == lowbit.isas() and "scalar" in ran


def test_the_file_gives_the_same_model(tmp_path):
    model = lowbit.compress(small_net(1.0), sparsity=0.8, bits=4)
    model.save(tmp_path / "net.lowbit")
    again = lowbit.load(tmp_path / "net.lowbit")
    assert np.array_equal(again.run(images()), model.run(images()))
    for name, op in ops(again).items():
        assert np.array_equal(float_weights(again.plan, op), float_weights(model.plan, ops(model)[name]))


def test_sparsity_and_bits_by_pattern():
    model = lowbit.compress(small_net(1.0), sparsity={"Gemm": 0.9, r"conv\d": 0.5}, bits={"op:Conv": 6, "fc": 2})
    found = {s.layer: s for s in layer_sizes(model.plan)}
    assert {n: s.bits for n, s in found.items()} == {"conv1": 6, "conv2": 6, "fc": 2}
    assert found["conv1"].kept == 108 and found["fc"].kept == 168
    part = lowbit.compress(small_net(1.0), bits={"fc": 2})
    assert list(ops(part)) == ["fc"]
    assert {s.form for s in layer_sizes(part.plan)} == {"float32", "dense"}


def test_shared_weights_survive_another_compression():
    """Weights of few values are kept as they are: compress, export, compress gives the same weights."""
    first = lowbit.compress(small_net(1.0), sparsity=0.6, bits=4)
    second = lowbit.compress(first.export_onnx(form="float"), bits=4)
    for (_, a), (_, b) in zip(ops(first).items(), ops(second).items(), strict=True):
        assert np.array_equal(float_weights(first.plan, a), float_weights(second.plan, b))


def test_residuals_are_added_after_the_product():
    nodes = [
        node("Conv", ["x", "conv.weight"], ["a"], pads=[1, 1, 1, 1]),
        node("Add", ["a", "x"], ["b"]),
        node("Relu", ["b"], ["y"]),
    ]
    model = net(nodes, {"x": (4, 5, 5)}, {"conv.weight": sparse((4, 4, 3, 3), 1)})
    low = lowbit.convert(model, recipe="codebook:8")
    x = np.random.default_rng(0).normal(size=(2, 4, 5, 5)).astype(np.float32)
    expected = run_onnx(low.export_onnx(form="float"), {"x": x})["y"]
    np.testing.assert_allclose(low.run(x), expected, rtol=1e-5, atol=1e-5)
    assert len(ops(low)) == 1 and (low.run(x) >= 0).all()


def test_depthwise_layers():
    nodes = [node("Conv", ["x", "dw.weight", "dw.bias"], ["a"], group=4, pads=[1, 1, 1, 1]), node("Relu", ["a"], ["y"])]
    model = net(nodes, {"x": (4, 6, 6)}, {"dw.weight": sparse((4, 1, 3, 3), 0.6), "dw.bias": sparse(4, 1)})
    low = lowbit.convert(model, recipe="codebook:3")
    x = np.random.default_rng(0).normal(size=(2, 4, 6, 6)).astype(np.float32)
    expected = run_onnx(low.export_onnx(form="float"), {"x": x})["y"]
    for isa in lowbit.isas():
        np.testing.assert_allclose(low.run(x, isa=isa), expected, rtol=1e-5, atol=1e-5)


def test_sizes_add_up_to_the_file_s_tensors():
    model = lowbit.compress(small_net(1.0), sparsity=0.7, bits=4)
    sizes = layer_sizes(model.plan)
    held = sum(t.nbytes for name, t in model.plan.tensors.items() if name != "activation_scales")
    assert sum(s.bytes for s in sizes) == held
    table = size_table(sizes, {"fc": ("8", "6 -> 5", "5 -> 4", "3 -> 2")})
    assert table.count("\n") == 5 and "(6 -> 5)" in table and "| total |" in table
    rows = {row.layer: row for row in model.layers()}
    assert rows["fc"].weights.startswith("codebook 4 bit") and rows["fc"].macs == 10 * 168


def test_steps_from_float_to_huffman():
    """Counted from the decoded weights; biases are in every step, a layer left in float stays what it is."""
    model = lowbit.compress(FASHION, sparsity={"classifier": 0.9, "op:Conv": 0.3}, bits=4)
    coded = [coded_weights(model.plan, op) for op in ops(model).values()]
    left = sum(np.count_nonzero(float_weights(model.plan, op)) for op in ops(model).values())
    packed = sum(
        c.codebook.nbytes + -(-c.codes.size * c.bits // 8) - (-(c.gaps.size * c.gap_bits) // 8 if c.sparse else 0)
        for c in coded
    )
    assert {c.sparse for c in coded} == {True, False}
    stored, bias = (sum(getattr(s, part) for s in layer_sizes(model.plan)) for part in ("bytes", "bias"))
    whole = sum(c.size for c in coded)
    steps = [("float32", 4 * whole + bias), ("pruned", 4 * left + bias), ("shared codes", packed + bias)]
    assert size_steps(model.plan) == [*steps, ("Huffman", stored)] and stored < packed and bias > 0

    part = size_steps(lowbit.compress(small_net(1.0), sparsity={"fc": 0.9}, bits={"fc": 3}).plan)
    assert part[:2] == [("float32", 4 * (216 + 96 + 1680 + 18)), ("pruned", 4 * (216 + 96 + 168 + 18))]


@pytest.mark.parametrize("bits", [1, 3, 7])
@pytest.mark.parametrize("sparsity", [0.0, 0.7])
def test_steps_that_change_nothing_are_left_out(sparsity, bits):
    plain = lowbit.compress(small_net(1.0), sparsity=sparsity, bits=bits, huffman=False).plan
    names = ["float32", "pruned", "shared codes"] if sparsity else ["float32", "shared codes"]
    assert [step for step, _ in size_steps(plain)] == names
    assert size_steps(plain)[-1][1] == sum(s.bytes for s in layer_sizes(plain))
    assert size_steps(lowbit.convert(small_net(), recipe="float32").plan) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sparsity": 1.0}, "layer 'conv1': sparsity is 1.0"),
        ({"sparsity": -0.1}, "layer 'conv1': sparsity is -0.1"),
        ({"bits": 9}, "bits is 9"),
        ({"bits": {"nothing": 4}}, "bits 'nothing' matches no layer; the names are conv1, conv2, fc"),
        ({"finetune": lambda net, stage: None}, "finetune= needs a torch.nn.Module"),
        ({"init": "best"}, "best"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        lowbit.compress(small_net(1.0), **arguments)


def test_compare_measures_the_weights_of_codebook_layers():
    """Fewer bits, a worse ratio of signal to weight error; activations stay in float."""
    found = []
    for bits in (8, 4):
        model = lowbit.convert(FASHION, recipe=f"codebook:{bits}")
        x = np.load(files("lowbit.demo") / "fashion.npz")["x_test"][:16, None].astype(np.float32) / 255
        report = lowbit.compare(FASHION, model, x, None, seconds=0.01, sqnr_images=16)
        assert report.size_steps == size_steps(model.plan) != []
        found.append(report.layers)
    assert len(found[0]) == 10 and all(layer.sqnr_activation == np.inf for layer in found[0])
    assert all(fine.sqnr_weight > coarse.sqnr_weight for fine, coarse in zip(*found, strict=True))


def test_recipes():
    with pytest.raises(ValueError, match="codebook:9"):
        lowbit.convert(small_net(), recipe="codebook:9")
    model = lowbit.convert(small_net(), recipe="float32", overrides={"fc": "codebook:2"})
    assert list(ops(model)) == ["fc"]


def damaged(model, layer, **changes):
    """The bytes of a model with one layer's attributes or params changed."""
    data = json.loads(json.dumps(model.plan.data))
    tensors = dict(model.plan.tensors)
    op = next(op for op in data["ops"] if op["name"] == layer)
    for key, value in changes.items():
        if isinstance(value, np.ndarray):
            tensors[op["params"][key]] = value
        else:
            op["attrs"][key] = value
    return to_bytes(tensors, data, {})


@pytest.mark.parametrize("huffman", [False, True])
def test_damaged_layers_are_refused_by_name(huffman):
    model = lowbit.compress(small_net(1.0), sparsity=0.8, bits=4, huffman=huffman)
    op = ops(model)["fc"]
    params = {role: model.plan.tensors[key] for role, key in op["params"].items()}
    assert op["attrs"].get("gap_bits"), "the test needs a sparse layer"
    cases = {
        "entries": op["attrs"]["entries"] + 9,
        "bits": 1,
        "gap_bits": 9,
        "codebook": params["codebook"][:2],
        "weight": params["weight"][:-1],
        "gaps": params["gaps"][1:],
    }
    for key, value in cases.items():
        with pytest.raises(lowbit.FormatError, match="'fc'"):
            lowbit._core.Model.from_bytes(damaged(model, "fc", **{key: value}))
    book = params["codebook"].copy()
    book[0] = 1
    with pytest.raises(lowbit.FormatError, match="code 0 of a sparse layer"):
        lowbit._core.Model.from_bytes(damaged(model, "fc", codebook=book))


def test_entries_beyond_the_layer_are_refused():
    model = lowbit.compress(small_net(1.0), sparsity=0.8, bits=4, huffman=False)
    op = ops(model)["fc"]
    gaps = np.full_like(model.plan.tensors[op["params"]["gaps"]], 255)
    gaps[-1] = 0  # bits behind the last gap are an error of their own
    with pytest.raises(lowbit.FormatError, match=r"'fc'.*entry \d+ lies at \d+, beyond 1680 weights"):
        lowbit._core.Model.from_bytes(damaged(model, "fc", gaps=gaps))


def test_command_line(tmp_path, capsys):
    path = tmp_path / "fashion.lowbit"
    status = cli.main(
        ["compress", FASHION, "-o", str(path), "--sparsity", "0.3", "--bits", "Conv=6", "--bits", "Gemm=5"]
    )
    out = capsys.readouterr().out
    assert status == 0 and "smaller than in float32" in out and "classifier" in out
    assert cli.main(["compress", FASHION, "-o", str(path), "--bits", "6", "--no-huffman", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (
        result["bytes"] == sum(layer["bytes"] for layer in result["layers"]) and result["file_bytes"] > result["bytes"]
    )
    assert lowbit.load(path).run(np.zeros((1, 1, 28, 28), np.float32)).shape == (1, 10)
    assert cli.main(["compress", FASHION, "-o", str(tmp_path / "no.lowbit"), "--bits", "Conv=many"]) == 2
    assert "neither one number" in capsys.readouterr().err and not (tmp_path / "no.lowbit").exists()
