"""Recipe int:W/A: weights and activations in 2 to 8 bits, through the 8-bit kernels."""

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lowbit
from lowbit import _core
from lowbit.graph.codebook import float_weights
from lowbit.graph.export import export_onnx
from lowbit.graph.few_bits import code_bits, is_packed, weight_codes
from lowbit.graph.precision import Ranges
from lowbit.graph.recipe import parse_recipe
from lowbit.graph.weights import balance, clip_scale, quantize_weights
from onnx_nets import make_plan, min_max, net, node, run_onnx, sqnr
from plan_reference import Reference
from test_graph_nets import residual_net
from test_graph_ops import CASES, FLOAT_ONLY, between_products
from tiny_nets import Net, check

rng = np.random.default_rng(17)
BITS = st.integers(2, 8)


def macs(plan):
    return [op for op in plan.ops if op["op"] in ("conv2d", "gemm")]


def check_codes(plan, feeds, wanted):
    """Run the reference; products read and multiply codes of the bits wanted (name -> W, A)."""
    reference = Reference(plan)
    outputs = reference.run(feeds)
    for op in macs(plan):
        w_bits, a_bits = wanted[op["name"]] if isinstance(wanted, dict) else wanted
        weight, x = weight_codes(plan, op), reference.values[op["inputs"][0]].astype(int)
        assert is_packed(op) == (w_bits < 8)
        assert code_bits(plan, op["inputs"][0]) <= a_bits
        top = 2 ** (w_bits - 1) - 1
        assert np.abs(weight.astype(int)).max() <= top
        if plan.activations[op["inputs"][0]]["dtype"] == "uint8":
            assert x.min() >= 0 and x.max() <= 2**a_bits - 1, op["name"]
        else:
            assert np.abs(x).max() <= 2 ** (a_bits - 1) - 1, op["name"]
    return outputs


@settings(max_examples=40, deadline=None)
@given(BITS, BITS, st.integers(0, 2**31))
def test_codes_stay_within_their_bits_and_every_level_agrees(w_bits, a_bits, seed):
    file = residual_net()
    x = np.random.default_rng(seed).normal(size=(2, 3, 10, 10)).astype(np.float32)
    model = lowbit.convert(file, f"int:{w_bits}/{a_bits}", min_max(file, {"x": x}))
    wanted = check_codes(model.plan, {"x": x}, (w_bits, a_bits))["y"]
    ran = []
    for isa in lowbit.isas():
        np.testing.assert_array_equal(model.run(x, isa=isa, threads=2), wanted)
        ran.append(isa)
    assert ran == lowbit.isas() and "scalar" in ran


@pytest.mark.parametrize("name", [n for n in CASES if n not in FLOAT_ONLY])
def test_every_operator_between_products_in_few_bits(name):
    model, shape = between_products(name)
    x = rng.normal(size=(4, *shape)).astype(np.float32)
    ranges = min_max(model, {"in": x})
    plan = make_plan(model, "int:5/4", ranges)
    y = check_codes(plan, {"in": x}, (5, 4))["out"]
    assert sqnr(run_onnx(model, {"in": x})["out"], y) > 5
    exported = run_onnx(export_onnx(plan), {"in": x})["out"]
    # onnxruntime's float sums fall on the other side of a tie here and there, and a step of four bits is large
    assert sqnr(y, exported) > 15, sqnr(y, exported)


def test_eight_bits_are_recipe_int8():
    file, x = residual_net(), rng.normal(size=(4, 3, 10, 10)).astype(np.float32)
    table = lowbit.calibrate(file, [x])
    for ranges in (table, min_max(file, {"x": x})):
        a, b = make_plan(file, "int8", ranges), make_plan(file, "int:8/8", ranges)
        assert a.data == b.data and a.tensors.keys() == b.tensors.keys()
        for name in a.tensors:
            np.testing.assert_array_equal(a.tensors[name], b.tensors[name])


@pytest.mark.parametrize(
    "name", ["int:1/4", "int:9/8", "int:4/1", "int:4/9", "int:4/16", "int:4", "int:/4", "int:4/4/4"]
)
def test_unknown_widths_are_named(name):
    with pytest.raises(ValueError, match=f"recipe '{name}' is not one of .* int:W/A"):
        parse_recipe(name)


def branches():
    """A stem, and two convolutions that read it, added."""
    w = {f"w{i}": rng.normal(size=(8, 8 if i else 3, 3, 3)).astype(np.float32) for i in range(3)}
    pads = {"pads": [1, 1, 1, 1]}
    return net(
        [
            node("Conv", ["x", "w0"], ["c0"], **pads),
            node("Relu", ["c0"], ["r0"]),
            node("Conv", ["r0", "w1"], ["c1"], **pads),
            node("Conv", ["r0", "w2"], ["c2"], **pads),
            node("Add", ["c1", "c2"], ["a"]),
            node("Relu", ["a"], ["y"]),
        ],
        {"x": (3, 8, 8)},
        w,
    )


def test_a_tensor_is_written_in_every_form_that_its_readers_take():
    file, x = branches(), rng.normal(size=(2, 3, 8, 8)).astype(np.float32)
    widths = {"conv_0": (8, 8), "conv_1": (3, 4), "conv_2": (5, 6)}
    overrides = {k: f"int:{w}/{a}" for k, (w, a) in widths.items()}
    plan = make_plan(file, "int8", min_max(file, {"x": x}), overrides)
    y = check_codes(plan, {"x": x}, widths)["y"]
    assert sqnr(run_onnx(file, {"x": x})["y"], y) > 10
    sources = [plan.activations[op["inputs"][0]] for op in macs(plan)]
    assert [t["source"] for t in sources] == ["x", "r0", "r0"]
    assert len({t["scale"] for t in sources}) == 3
    assert [op["op"] for op in plan.ops].count("lookup") == 1  # six bits as they are written, four from them


def test_residuals_keep_eight_bits():
    file, x = residual_net(), rng.normal(size=(4, 3, 10, 10)).astype(np.float32)
    plan = make_plan(file, "int:4/3", min_max(file, {"x": x}))
    second = macs(plan)[1]
    read, residual = (plan.scale(plan.activations[i]) for i in second["inputs"])
    assert residual / read == pytest.approx(7 / 255)  # r1: 0..6 in three bits, and in eight


@settings(max_examples=80, deadline=None)
@given(
    st.integers(1, 5), st.sampled_from([1, 4, 9]), st.integers(1, 12), BITS, st.floats(0.5, 3.0), st.integers(0, 2**31)
)
def test_balance_in_few_bits(n, taps, channels, bits, spread, seed):
    top = 2 ** (bits - 1) - 1
    rows = np.random.default_rng(seed).uniform(-spread * top, spread * top, size=(n, taps * channels))
    codes = balance(rows, top, taps)
    assert (codes == np.rint(codes)).all() and (np.abs(codes) <= top).all()
    assert (np.abs(codes - np.clip(rows, -top, top)) < 1 + 1e-9).all()  # floor or ceiling, or the end
    plain = np.clip(np.rint(rows), -top, top)

    def errors(c):  # of kernels
        return (c - rows).reshape(n, taps, channels).sum(axis=1)

    if taps > 1:
        assert (np.abs(errors(codes)) <= np.maximum(np.abs(errors(plain)), 1) + 0.5 + 1e-9).all()
    if spread < 1:  # nothing saturates much: the sums of kernels and rows can be kept
        assert (np.abs(errors(codes)) < 1 + 1e-9).all() or taps == 1
        assert (np.abs((codes - rows).sum(axis=1)) <= 0.5 + 1e-9).all() or top == 1


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 30), st.integers(2, 7), st.integers(0, 2**31))
def test_clip_scale_is_the_best_of_those_it_tries(k, bits, seed):
    top = 2 ** (bits - 1) - 1
    rows = np.random.default_rng(seed).standard_t(3, size=(3, k))

    def error(scale):
        e = np.abs(rows - np.clip(np.rint(rows / scale), -top, top) * scale)
        return (e ** (2 if bits > 4 else 4)).sum(axis=1)

    highest = np.abs(rows).max(axis=1, keepdims=True) / top
    shares = np.linspace(1, 0.05, 40 + 1200 // k)  # of the widest scale, as many as the function tries
    best = np.min([error(highest * share) for share in shares], axis=0)
    found = error(clip_scale(rows, top)[:, None])
    assert (found <= error(highest) * 1.01 + 1e-9).all()
    assert (found <= best * 1.01 + 1e-9).all()  # the function compares in float32


def test_dead_channels_and_outliers():
    w = np.zeros((3, 4), np.float32)
    w[1], w[2] = [1e-38, 0, 0, 0], [100, 1, -1, 1]
    for bits in range(2, 9):
        codes, scale = quantize_weights(w, True, None, None, bits=bits)
        assert (codes[:2] == 0).all() and np.isfinite(scale).all() and (scale > 0).all()
        assert np.abs(codes).max() == 2 ** (bits - 1) - 1


@settings(max_examples=30, deadline=None)
@given(BITS, st.booleans(), st.integers(0, 2**31))
def test_ranges_suit_the_bits(bits, positive, seed):
    """The table's range has nearly the smallest error that codes of so many bits can have."""
    x = np.random.default_rng(seed).standard_normal(3000).astype(np.float32)
    x = np.maximum(x, 0) if positive else x
    obs = lowbit.MSEObserver()
    obs.observe(x)
    found = Ranges(lowbit.CalibrationTable({"t": obs})).params("t", "uint8" if positive else "int8", positive, bits)
    span = 2**bits - 1 if positive else 2 ** (bits - 1) - 1
    assert (found.lo, found.hi) == ((0, span) if positive else (-span, span)) and found.zero_point == 0

    def error(scale):
        return np.square(x - np.clip(np.rint(x / scale), found.lo, found.hi) * scale).sum()

    best = min(error(np.abs(x).max() / span * share) for share in np.linspace(0.05, 1, 200))
    assert error(found.scale) <= best * 1.05


def test_methods_that_search_clip_more_in_fewer_bits():
    x = rng.standard_normal(50_000).astype(np.float32)
    for observer in (lowbit.MSEObserver(), lowbit.EntropyObserver(), lowbit.MinMaxObserver()):
        observer.observe(x)
        thresholds = [observer.threshold(bits) for bits in range(2, 9)]
        tops = [observer.range(bits)[1] for bits in range(2, 9)]
        assert observer.threshold() == thresholds[-1]
        if isinstance(observer, lowbit.MinMaxObserver):
            assert len(set(thresholds)) == len(set(tops)) == 1
        else:
            assert thresholds[0] < thresholds[2] < thresholds[-1] and tops[0] < tops[-1]
        for bits in (1, 9):
            with pytest.raises(ValueError, match=r"not in 2\.\.8"):
                observer.qparams(bits=bits)


# Packed weights in the file -------------------------------------------------------------------------------------------

CONV = {"kernel": [3, 3], "pads": [1, 1, 1, 1]}


@pytest.mark.parametrize("bits", range(2, 8))
@pytest.mark.parametrize("groups", [1, 2, 6])
def test_packed_convolutions_give_what_the_reference_gives(bits, groups):
    """7 * 9 * 6 codes end within a byte for most widths."""
    net_ = Net(bits)
    oc = 8 if groups == 2 else 6 if groups == 6 else 7
    x = net_.input("int8", (5, 4, 6), 0.1, 3)
    y = net_.tensor("uint8", (5, 4, oc), 0.5, 100)
    net_.op("conv2d", [x], y, net_.packed(bits, oc, 3, 3, 6 // groups), bits=bits, groups=groups, **CONV)
    z = net_.op("gemm", [y], net_.tensor("float32", (5, 4, 3)), net_.packed(bits, 3, oc), bits=bits)
    check(net_.outputs(y, z))


@pytest.mark.parametrize("bits", range(2, 8))
@pytest.mark.parametrize("factor", [0.01, 1.0, 40.0])
@pytest.mark.parametrize("bias", [0, 1000, 2**27])
@pytest.mark.parametrize("rounding", ["nearest_even", "gemmlowp"])
def test_depthwise_layers_whose_multipliers_reach_1(bits, factor, bias, rounding):
    """The engine may enlarge weights of few bits for its faster depthwise kernel: that changes nothing."""
    net_ = Net(bits)
    c = 37
    x = net_.input("uint8", (9, 8, c), 0.1, 7)
    params = net_.packed(bits, c, 3, 3, 1)
    params["weight_scale"] = (params["weight_scale"] * factor).astype(np.float32)
    params["bias"] = net_.rng.integers(-bias, bias + 1, c).astype(np.int32)
    y = net_.tensor("uint8", (9, 8, c), 0.1, 3)
    net_.op("conv2d", [x], y, params, bits=bits, groups=c, rounding=rounding, hi=100, **CONV)
    check(net_.outputs(y), batches=(1,))


def packed_conv(change):
    net_ = Net()
    x = net_.input("int8", (5, 4, 3), 0.1, 3)
    params = net_.packed(5, 7, 3, 3, 3)
    attrs = {"bits": 5, **CONV}
    change(params, attrs)
    return net_.outputs(net_.op("conv2d", [x], net_.tensor("int8", (5, 4, 7), 0.1, 0), params, **attrs)).bytes()


def put(key, value):
    return lambda params, attrs: (params if key == "weight" else attrs).update({key: value})


FAULTS = [
    (put("bits", 1), "bits"),
    (put("bits", 8), "bits"),
    (put("bits", 4), "119 bytes, not 95 for 189 symbols of 4 bits"),
    (put("kernel", [3, 1]), "must be"),
    (put("kernel", [3]), "kernel"),
    (put("weight_zero_point", 1), "weight_zero_point"),
    (put("weight", np.zeros(118, np.uint8)), "118 bytes, not 119"),
    (put("weight", np.zeros((7, 17), np.uint8)), "not one-dimensional"),
    (put("weight", np.zeros(119, np.int8)), "is .*8, not .*8"),
    (put("weight", np.full(119, 255, np.uint8)), "behind the last code"),
    (lambda params, attrs: attrs.pop("bits"), "not 4-dimensional"),
]


@pytest.mark.parametrize(("change", "message"), FAULTS)
def test_wrong_packed_weights_are_refused(change, message):
    _core.Model.from_bytes(packed_conv(lambda params, attrs: None))
    with pytest.raises(lowbit.FormatError, match=f"conv2d_0.*{message}"):
        _core.Model.from_bytes(packed_conv(change))


def test_file_holds_the_bits(tmp_path):
    file = residual_net()
    x = rng.normal(size=(2, 3, 10, 10)).astype(np.float32)
    ranges = min_max(file, {"x": x})
    for bits in range(2, 8):
        model = lowbit.convert(file, f"int:{bits}/5", ranges)
        stored = {row.layer: model.plan.tensors[f"{row.layer}.weight"].nbytes for row in model.layers() if row.macs}
        assert stored == {"conv1": 27 * bits, "layer1.0.conv2": 72 * bits, "fc": 4 * bits}
        rows = [row for row in model.layers() if row.macs]
        assert {row.weights for row in rows} == {f"int{bits} per channel"}
        assert [row.activations for row in rows] == ["int5", "uint5", "uint5"]
        assert [row.macs for row in rows] == [216 * 100, 576 * 100, 32]
        model.save(tmp_path / "net.lowbit")
        np.testing.assert_array_equal(lowbit.load(tmp_path / "net.lowbit").run(x), model.run(x))


# Weights alone --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["conv_3x3", "conv_groups", "conv_depthwise", "add_two", "flatten_gemm"])
@pytest.mark.parametrize("bits", [2, 3, 5, 8])
def test_weights_alone(name, bits):
    """Products of float activations with exactly scale * code, a scale for every output channel."""
    file, shape = between_products(name)
    x = rng.normal(size=(3, *shape)).astype(np.float32)
    model = lowbit.convert(file, f"int:{bits}/32")
    y = model.run(x)
    back = model.export_onnx(form="float")
    np.testing.assert_allclose(run_onnx(back, {"in": x})["out"], y, rtol=1e-4, atol=1e-4)
    for isa in lowbit.isas():
        # Depthwise weights are decoded when the file is opened; float depthwise sums differ in rounding by level.
        tolerance = 1e-5 if name == "conv_depthwise" else 0
        np.testing.assert_allclose(model.run(x, isa=isa, threads=2), y, rtol=tolerance, atol=tolerance)
    reference = lowbit.convert(file, "float32").plan
    for op in model.plan.ops:
        if "codebook" not in op.get("params", {}):
            continue
        weight, scale = reference.tensors[f"{op['name']}.weight"], model.plan.tensors[op["params"]["scale"]]
        error = float_weights(model.plan, op) - weight
        assert scale.shape == (weight.shape[0],)
        assert next(r for r in model.layers() if r.layer == op["name"]).weights == f"int{bits} per channel"
        top = 2 ** (bits - 1) - 1
        inside = np.abs(weight) <= (scale * top).reshape(-1, *[1] * (weight.ndim - 1))
        assert (np.abs(error) <= scale.reshape(-1, *[1] * (weight.ndim - 1)) * 1.0001)[inside].all()
        assert model.plan.tensors[op["params"]["weight"]].nbytes == (weight.size * bits + 7) // 8


def test_weights_alone_need_no_calibration_and_use_one():
    file = residual_net()
    x = np.abs(rng.normal(size=(16, 3, 10, 10)).astype(np.float32)) + 1
    wanted = run_onnx(file, {"x": x})["y"]
    table = lowbit.calibrate(file, [x])
    plain, aware = lowbit.convert(file, "int:3/32"), lowbit.convert(file, "int:3/32", table)
    assert np.abs((aware.run(x) - wanted).mean(axis=0)).max() < np.abs((plain.run(x) - wanted).mean(axis=0)).max()


def test_a_scale_is_for_dense_codebooks():
    net_ = Net()
    x = net_.input("float32", (4,))
    params = {"codebook": np.float32([0, 1]), "weight": np.uint8([1]), "gaps": np.uint8([0])}
    attrs = {"bits": 1, "gap_bits": 3, "entries": 1}
    net_.op("gemm_codebook", [x], y := net_.tensor("float32", (2,)), params, **attrs)
    _core.Model.from_bytes(net_.outputs(y).bytes())
    net_.files["scale"] = np.float32([1, 2])
    net_.plan["ops"][0]["params"]["scale"] = "scale"
    with pytest.raises(lowbit.FormatError, match=r"gemm_codebook_0.*'scale' is for dense weights only"):
        _core.Model.from_bytes(net_.bytes())


def test_codes_that_a_file_brings_are_packed_where_they_fit():
    """QDQ as a network trained in few bits writes it: int8 codes that use 3 bits, and ones that use 8."""
    file, x = residual_net(), rng.normal(size=(2, 3, 10, 10)).astype(np.float32)
    model = lowbit.convert(file, "int:3/8", min_max(file, {"x": x}), {"fc": "int8"})
    again = lowbit.convert(model.export_onnx())
    assert [op.get("attrs", {}).get("bits", 8) for op in macs(again.plan)] == [3, 3, 8]
    for a, b in zip(macs(model.plan), macs(again.plan), strict=True):
        np.testing.assert_array_equal(weight_codes(again.plan, b), weight_codes(model.plan, a))
    np.testing.assert_allclose(again.run(x), model.run(x), rtol=1e-3, atol=2e-2)


def test_the_example_of_the_page_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parents[2] / "docs" / "int8.md").read_text()
    code = re.search(r"```python\n(.*?)```", page, re.DOTALL)[1]
    scope = {}
    exec(code, scope)
    assert 0.5 < (tmp_path / "fashion.lowbit").stat().st_size / len(scope["eight"].to_bytes()) < 0.65
    x = next(scope["sample"].batches(100))
    agreement = (scope["four"].run(x).argmax(1) == scope["eight"].run(x).argmax(1)).mean()
    assert agreement > 0.9
