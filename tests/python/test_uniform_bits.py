"""Recipe int:W/A: weights and activations in 2 to 8 bits, through the 8-bit kernels."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lowbit
from lowbit.graph.export import export_onnx
from lowbit.graph.precision import Ranges
from lowbit.graph.recipe import parse_recipe
from lowbit.graph.weights import balance, mse_scale, quantize_weights
from onnx_nets import make_plan, min_max, net, node, run_onnx, sqnr
from plan_reference import Reference
from test_graph_nets import residual_net
from test_graph_ops import CASES, FLOAT_ONLY, between_products

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
        weight, x = plan.tensors[op["params"]["weight"]], reference.values[op["inputs"][0]].astype(int)
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


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 5), st.integers(1, 40), st.integers(2, 8), st.floats(0.5, 3.0), st.integers(0, 2**31))
def test_balance_in_few_bits(n, k, bits, spread, seed):
    top = 2 ** (bits - 1) - 1
    rows = np.random.default_rng(seed).uniform(-spread * top, spread * top, size=(n, k))
    codes = balance(rows, top)
    assert (codes == np.rint(codes)).all() and (np.abs(codes) <= top).all()
    inside = np.clip(rows, -top, top)
    assert (np.abs(codes - inside) < 1 + 1e-9).all()  # floor or ceiling, or the end
    plain = np.clip(np.rint(rows), -top, top)
    assert (np.abs((codes - rows).sum(axis=1)) <= np.maximum(np.abs((plain - rows).sum(axis=1)), 0.5) + 1e-9).all()


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 30), st.integers(2, 7), st.integers(0, 2**31))
def test_mse_scale_is_near_the_best(k, bits, seed):
    top = 2 ** (bits - 1) - 1
    rows = np.random.default_rng(seed).standard_t(3, size=(3, k))

    def error(scale):
        return np.square(rows - np.clip(np.rint(rows / scale), -top, top) * scale).sum(axis=1)

    highest = np.abs(rows).max(axis=1, keepdims=True) / top
    best = np.min([error(highest * share) for share in np.linspace(0.02, 1, 500)], axis=0)
    found = error(mse_scale(rows, top)[:, None])
    assert (found <= error(highest) * (1 + 1e-5) + 1e-12).all()
    assert (found <= best * 1.15 + 1e-9).all()


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
