"""Codebooks per output channel and per group of columns, and of int8 values: sharing, files, the engine."""

import json
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import lowbit
from lowbit.compression import (
    CodedWeights,
    code_weights,
    compress_tensors,
    layer_sizes,
    load_compressed,
    relative_encode,
    save_compressed,
    share_weights,
    size_steps,
)
from lowbit.compression.sharing import is_shared
from lowbit.container import to_bytes
from lowbit.graph.codebook import coded_weights, float_weights, is_codebook, runs_sparse
from plan_reference import Reference

onnx_nets = pytest.importorskip("onnx_nets", reason="needs onnx and onnxruntime")
node, net, run_onnx = onnx_nets.node, onnx_nets.net, onnx_nets.run_onnx

RECIPES = ["codebook:3/channel", "codebook:2/columns:5", "codebook:5/channel/huffman", "codebook:4/columns:64/huffman"]
INT8 = ["codebook:4/int8", "codebook:3/channel/int8", "codebook:2/columns:5/int8/huffman", "codebook:8/int8"]


def weights(shape, density=1.0, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=shape) * (rng.random(shape) < density)).astype(np.float32)


def small_net(density=1.0):
    """Convolutions: strided and padded, in two groups, depthwise, 1 x 1 with a residual; a product."""
    nodes = [
        node("Conv", ["x", "conv1.weight", "conv1.bias"], ["a"], strides=[2, 1], pads=[1, 0, 2, 1]),
        node("Relu", ["a"], ["b"]),
        node("Conv", ["b", "conv2.weight"], ["c"], group=2, pads=[1, 1, 1, 1]),
        node("Conv", ["c", "deep.weight"], ["d"], group=8, pads=[1, 1, 1, 1]),
        node("Conv", ["d", "point.weight", "point.bias"], ["e"]),
        node("Add", ["e", "b"], ["f"]),
        node("Relu", ["f"], ["g"]),
        node("Flatten", ["g"], ["h"]),
        node("Gemm", ["h", "fc.weight", "fc.bias"], ["y"], transB=1),
    ]
    arrays = {
        "conv1.weight": weights((8, 3, 3, 3), density),
        "conv1.bias": weights(8),
        "conv2.weight": weights((8, 4, 3, 3), density, 1),
        "deep.weight": weights((8, 1, 3, 3), density, 2),
        "point.weight": weights((8, 8, 1, 1), density, 3),
        "point.bias": weights(8, 1, 4),
        "fc.weight": weights((10, 8 * 5 * 8), density, 5),
        "fc.bias": weights(10, 1, 6),
    }
    return net(nodes, {"x": (3, 9, 9)}, arrays)


def images(n=3, seed=5):
    return np.random.default_rng(seed).normal(size=(n, 3, 9, 9)).astype(np.float32)


def ops(model):
    return {op["name"]: op for op in model.plan.ops if is_codebook(op)}


@given(
    st.integers(1, 4), st.integers(1, 5), st.integers(1, 12), st.sampled_from(["channel", "columns:1", "columns:5"]),
    st.floats(0, 1), st.integers(0, 99),
)  # fmt: skip
def test_every_row_is_shared_by_itself(bits, n, k, per, density, seed):
    w = weights((n, k), density, seed)
    mask = w != 0
    book, codes = share_weights(w, bits, mask=None if mask.all() else mask, init="optimal", per=per)
    size = 5 if per == "columns:5" else 1
    parts = [np.s_[j] for j in range(n)] if per == "channel" else [np.s_[:, p : p + size] for p in range(0, k, size)]
    assert len(book) == len(parts) and book.shape[1] <= 2**bits
    for row, part in zip(book, parts, strict=True):
        alone, _ = share_weights(
            np.ascontiguousarray(w[part]), bits, mask=None if mask.all() else mask[part], init="optimal"
        )
        assert np.array_equal(row[: alone.size], alone)
        found = row[codes[part]]
        assert mask.all() or not found[~mask[part]].any()
    coded = code_weights(w, bits, init="optimal", per=per)
    j, p = np.indices((n, k))
    expected = book[j if per == "channel" else p // size, codes]
    assert np.array_equal(coded.weights(), expected) and coded.per == per
    assert is_shared(expected, bits, per)
    again = code_weights(expected, bits, per=per)
    assert np.array_equal(again.weights(), expected)


def test_is_shared():
    w = np.float32([[1, 2, 0], [3, 4, 0]])
    assert [is_shared(w, b) for b in (1, 2, 3)] == [False, False, True]
    assert [is_shared(w, b, "channel") for b in (1, 2)] == [False, True]
    assert (
        is_shared(np.ones((2, 3), np.float32), 1) and is_shared(w, 2, "columns:1") and not is_shared(w, 1, "columns:1")
    )


@pytest.mark.parametrize("per", ["rows", "columns", "columns:0", "columns:-1", "columns:x"])
def test_unknown_per(per):
    with pytest.raises(ValueError, match=re.escape(f"layer 'fc': per {per!r} is not tensor, channel or columns:G")):
        share_weights(weights((4, 4)), 2, per=per, layer="fc")
    with pytest.raises(ValueError, match="codebook:2"):
        lowbit.convert(small_net(), recipe=f"codebook:2/{per}")


def test_coded_weights_of_wrong_shape_are_refused():
    codes = np.zeros(6, np.uint8)
    for book, group_size in (
        (np.zeros((2, 2)), 0),
        (np.zeros((3, 5)), 0),
        (np.zeros((1, 2)), 1),
        (np.zeros((3, 1, 2)), 0),
    ):
        with pytest.raises(lowbit.FormatError, match="a codebook of shape"):
            CodedWeights((3, 2), 2, book.astype(np.float32), codes, group_size=group_size)
    book = np.float32([[0, 1], [0.5, 1], [0, 1]])
    with pytest.raises(lowbit.FormatError, match=r"code 0 of a sparse layer must stand for 0.0, not 0.5"):
        CodedWeights((3, 2), 1, book, codes, codes, 1)


@pytest.mark.parametrize("per", ["channel", "columns:3"])
def test_checkpoints_keep_rows(tmp_path, per):
    w = weights((8, 3, 5), 0.5)
    save_compressed(tmp_path / "net.safetensors", compress_tensors({"w": w}, bits=2, per=per))
    found = load_compressed(tmp_path / "net.safetensors")["w"]
    assert found.per == per and np.array_equal(found.weights(), code_weights(w, 2, per=per).weights())


@pytest.mark.parametrize("density", [0.2, 1.0])
@pytest.mark.parametrize("recipe", RECIPES)
def test_the_engine_runs_float_rows(recipe, density):
    model = lowbit.convert(small_net(density), recipe=recipe)
    assert len(ops(model)) == 5
    y = model.run(images())
    expected, near = Reference(model.plan).run({"x": images()})["y"], 1e-6 * np.abs(y).max()
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=near)
    np.testing.assert_allclose(y, run_onnx(model.export_onnx(form="float"), {"x": images()})["y"], rtol=1e-5, atol=near)
    again = lowbit._core.Session(lowbit._core.Model.from_bytes(model.to_bytes()))
    assert np.array_equal(again.run({"x": images()})["y"], y)


@pytest.mark.parametrize("density", [0.2, 1.0])
@pytest.mark.parametrize("recipe", INT8)
def test_int8_is_exact_on_every_level(recipe, density):
    """The engine gives the NumPy reference's bits, whatever the level and thread count."""
    model = lowbit.convert(small_net(density), recipe=recipe, calibration=[images(32, 1)])
    assert len(ops(model)) == 5 and {op["params"]["codebook"] for op in ops(model).values()} <= set(model.plan.tensors)
    expected = Reference(model.plan).run({"x": images()})["y"]
    ran = [
        i for i in lowbit.isas() if all(np.array_equal(model.run(images(), isa=i, threads=t), expected) for t in (1, 3))
    ]
    assert ran == lowbit.isas() and "scalar" in ran
    np.testing.assert_allclose(
        run_onnx(model.export_onnx(form="qdq"), {"x": images()})["y"], expected, rtol=1e-4, atol=1e-3
    )


def test_int8_rounds_the_codebook_by_less_than_a_step():
    """Against the float weights that 8 bits share: half a step of the codebook, and half of the 255 values'."""
    model = lowbit.convert(small_net(), recipe="codebook:8/int8", calibration=[images(32, 1)])
    op = ops(model)["fc"]
    scale = model.plan.tensors[op["params"]["weight_scale"]]
    given_weights = weights((10, 8 * 5 * 8), 1, 5).reshape(10, 8, 5, 8).transpose(0, 2, 3, 1).reshape(10, -1)
    error = np.abs(float_weights(model.plan, op) - given_weights)
    assert scale.shape == (10,) and (error.max(axis=1) <= 2 * scale).all() and error.mean() < 0.5 * scale.mean()


@pytest.mark.parametrize("per", ["tensor", "channel"])
def test_shared_weights_keep_their_values_in_int8(per):
    """What was compressed (and fine-tuned) before keeps its assignments: every value moves by less than half a step."""
    small = lowbit.compress(small_net(), sparsity=0.5, bits=3, per=per)
    floats = small.export_onnx(form="float")
    recipe = "codebook:3/int8" if per == "tensor" else f"codebook:3/{per}/int8"
    low = lowbit.convert(floats, recipe=recipe, calibration=[images(32, 1)])
    for name, op in ops(low).items():
        scale = low.plan.tensors[op["params"]["weight_scale"]]
        w, true = float_weights(low.plan, op), float_weights(small.plan, ops(small)[name])
        assert scale.size == (1 if per == "tensor" else len(w))
        assert (np.abs(w - true) <= 0.501 * scale.reshape(-1, *[1] * (w.ndim - 1))).all()
        assert np.array_equal(w == 0, np.abs(true) <= 0.5 * scale.reshape(-1, *[1] * (w.ndim - 1)))


def test_sizes_and_summary():
    model = lowbit.compress(small_net(), sparsity={"fc": 0.9}, bits=4, per="channel")
    sizes = {s.layer: s for s in layer_sizes(model.plan)}
    assert sizes["fc"].codebook == 4 * 10 * coded_weights(model.plan, ops(model)["fc"]).codebook.shape[1]
    held = sum(t.nbytes for name, t in model.plan.tensors.items() if name != "activation_scales")
    assert sum(s.bytes for s in sizes.values()) == held == size_steps(model.plan)[-1][1]
    rows = {row.layer: row.weights for row in model.layers()}
    assert rows["fc"].startswith("codebook 4 bit per channel") and rows["fc"].endswith("sparse")

    low = lowbit.convert(small_net(0.1), recipe="codebook:4/columns:16/int8", calibration=[images()])
    held = sum(t.nbytes for name, t in low.plan.tensors.items() if name != "activation_scales")
    bias = sum(low.plan.tensors[op["params"]["bias"]].nbytes for op in ops(low).values() if "bias" in op["params"])
    assert sum(s.bytes for s in layer_sizes(low.plan)) == held and bias > 0
    assert {row.weights for row in low.layers() if row.layer == "fc"} <= {
        f"codebook 4 bit per 16 columns, int8{form}" for form in ("", ", sparse")
    }


@pytest.mark.parametrize(
    ("density", "size", "sparse"), [(0.05, 1, True), (0.2, 1, False), (0.2, 6, True), (0.3, 6, False)]
)
def test_what_runs_sparse(density, size, sparse):
    """One rule for products and 1 x 1 convolutions; the numbers are the same either way."""
    rng = np.random.default_rng(0)
    kept = rng.permutation(64 * 64) < density * 64 * 64
    w = (rng.normal(size=(64, 64)) * kept.reshape(64, 64)).astype(np.float32)
    nodes = [node("Conv", ["x", "w"], ["y"])]
    model = lowbit.convert(net(nodes, {"x": (64, size, size)}, {"w": w[:, :, None, None]}), recipe="codebook:4/huffman")
    (op,) = ops(model).values()
    assert "gap_bits" in op["attrs"] and runs_sparse(model.plan, op) is sparse
    assert ("runs sparse" in model.layers()[1].weights) is sparse
    x = rng.normal(size=(2, 64, size, size)).astype(np.float32)
    coded = coded_weights(model.plan, op)
    packed = lowbit.pack_indices(coded.indices().reshape(64, 64), 4)
    expected = lowbit.codebook_gemm(x.transpose(0, 2, 3, 1).reshape(-1, 64), packed, coded.codebook)
    assert np.array_equal(model.run(x).transpose(0, 2, 3, 1).reshape(-1, 64), expected)


def damaged(model, layer, attrs=None, **params):
    data, tensors = json.loads(json.dumps(model.plan.data)), dict(model.plan.tensors)
    op = next(op for op in data["ops"] if op["name"] == layer)
    op["attrs"] |= attrs or {}
    tensors |= {op["params"][role]: array for role, array in params.items()}
    return to_bytes(tensors, data, {})


def test_damaged_rows_are_refused_by_name():
    channel = lowbit.convert(small_net(), recipe="codebook:3/channel")
    columns = lowbit.convert(small_net(), recipe="codebook:3/columns:7")
    low = lowbit.convert(small_net(), recipe="codebook:3/int8", calibration=[images()])
    book = channel.plan.tensors[ops(channel)["fc"]["params"]["codebook"]]
    groups = columns.plan.tensors[ops(columns)["fc"]["params"]["codebook"]]
    cases = [
        (damaged(channel, "fc", codebook=book[:-1]), r"codebook.*is \(9, 8\), not \(10, 1 to 8\)"),
        (damaged(channel, "fc", codebook=book[:, :0]), r"is \(10, 0\)"),
        (damaged(channel, "fc", codebook=np.repeat(book, 2, 1)), r"is \(10, 16\)"),
        (damaged(channel, "fc", codebook=book[:, :5]), r"code \d at \d+ in a codebook of 5"),
        (damaged(channel, "fc", codebook=book[None]), "is"),
        (damaged(channel, "fc", {"group_size": 7}), r"is \(10, 8\), not \(46, 1 to 8\)"),
        (damaged(columns, "fc", {"group_size": 321}), r"is \(46, 8\), not \(1, 1 to 8\)"),
        (damaged(columns, "fc", {"group_size": 0}), r"is \(46, 8\), not \(10, 1 to 8\)"),
        (damaged(columns, "fc", codebook=groups[0]), r"is \(8,\), not \(46, 1 to 8\)"),
        (damaged(low, "fc", codebook=book), "is float32, not int8"),
        (damaged(channel, "fc", codebook=book.astype(np.int8)), "is int8, not float32"),
        (damaged(low, "fc", {"weight_zero_point": 1}), "weight_zero_point"),
    ]
    for data, words in cases:
        with pytest.raises(lowbit.FormatError, match="'fc'.*" + words):
            lowbit._core.Model.from_bytes(data)
    sparse = code_weights(weights((4, 4), 0.5), 2, per="channel", form="sparse")
    assert np.array_equal(
        sparse.codes,
        relative_encode(code_weights(weights((4, 4), 0.5), 2, per="channel", form="dense").codes, sparse.gap_bits)[1],
    )
