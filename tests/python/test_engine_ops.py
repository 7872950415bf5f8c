"""Every operator of the engine, in small nets, against the NumPy reference of the plan."""

from typing import Any

import numpy as np
import pytest

from lowbit import _core
from tiny_nets import Net, check

CODES = [("int8", 0.1, 0), ("int8", 0.07, -5), ("uint8", 0.05, 131)]


@pytest.mark.parametrize("dtype, scale, zero", CODES)
@pytest.mark.parametrize("nchw", [False, True])
def test_quantize_and_dequantize(dtype: str, scale: float, zero: int, nchw: bool):
    net = Net()
    x = net.input("float32", (3, 4, 5))
    q = net.tensor(dtype, (4, 5, 3) if nchw else (3, 4, 5), scale, zero)
    net.op("quantize", [x], q, nchw_to_nhwc=nchw, lo=0 if dtype == "uint8" else -127)
    y = net.op("dequantize", [q], net.tensor("float32", (4, 5, 3) if nchw else (3, 4, 5)))
    check(net.outputs(y, q))


CONVS: list[dict[str, Any]] = [
    {},
    {"strides": [2, 1], "pads": [1, 0, 2, 1]},
    {"dilations": [2, 1], "pads": [2, 1, 2, 1]},
    {"groups": 2, "pads": [1, 1, 1, 1]},
    {"lo": -20, "hi": 30},
]


@pytest.mark.parametrize("attrs", CONVS)
@pytest.mark.parametrize("rounding", ["nearest_even", "gemmlowp", "single"])
@pytest.mark.parametrize("weight", ["int8", "uint8"])
def test_conv2d_with_a_residual(attrs: dict[str, Any], rounding: str, weight: str):
    net = Net()
    x = net.input("int8", (7, 6, 4), 0.1, 7)
    s, p, d = attrs.get("strides", [1, 1]), attrs.get("pads", [0] * 4), attrs.get("dilations", [1, 1])
    h, w = (7 + p[0] + p[2] - 2 * d[0] - 1) // s[0] + 1, (6 + p[1] + p[3] - 2 * d[1] - 1) // s[1] + 1
    attrs = {**attrs, "rounding": rounding, "weight_zero_point": 3 if weight == "int8" else 120}
    r = net.input("uint8", (h, w, 6), 0.2, 100)
    params = net.weights(6, 3, 3, 4 // attrs.get("groups", 1), dtype=weight)
    y = net.op("conv2d", [x, r], net.tensor("int8", (h, w, 6), 0.15, -9), params, **attrs)
    check(net.outputs(y))


@pytest.mark.parametrize("channels", [5, 16, 33])
@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("weight, zero", [("int8", 0), ("uint8", 128), ("int8", 2)])
def test_depthwise(channels: int, kernel: int, weight: str, zero: int):
    net = Net()
    x = net.input("int8", (9, 8, channels), 0.1, -3)
    params = net.weights(channels, kernel, kernel, 1, dtype=weight)
    p = kernel // 2
    y = net.tensor("uint8", (9, 8, channels), 0.1, 128)
    net.op("conv2d", [x], y, params, groups=channels, pads=[p] * 4, weight_zero_point=zero)
    check(net.outputs(y))


def test_conv2d_to_float_with_float_bias_and_residual():
    net = Net()
    x = net.input("uint8", (5, 5, 3), 0.1, 128)
    r = net.input("float32", (5, 5, 7))
    params = net.weights(7, 1, 1, 3, per_channel=False) | {"float_bias": net.rng.normal(size=7).astype(np.float32)}
    y = net.op("conv2d", [x, r], net.tensor("float32", (5, 5, 7)), params, min=-1.5, max=2.0)
    check(net.outputs(y))


@pytest.mark.parametrize("shape", [(5,), (3, 4, 5)])
@pytest.mark.parametrize("rounding", ["nearest_even", "gemmlowp", "single"])
def test_gemm(shape: tuple[int, ...], rounding: str):
    net = Net()
    x = net.input("int8", shape, 0.1, 4)
    r = net.input("int8", (*shape[:-1], 19), 0.03, 2)
    y = net.tensor("int8", (*shape[:-1], 19), 0.1, -4)
    net.op("gemm", [x, r], y, net.weights(19, 5), rounding=rounding, lo=-127)
    z = net.op(
        "gemm", [y], net.tensor("float32", (*shape[:-1], 3)), net.weights(3, 19, dtype="uint8"), weight_zero_point=7
    )
    check(net.outputs(z))


def test_dynamic_quantization():
    net = Net()
    x = net.input("float32", (3, 6, 5))
    q = net.op("quantize_dynamic", [x], net.tensor("uint8", (6, 5, 3), dynamic=True), nchw_to_nhwc=True)
    y = net.op("conv2d", [q], net.tensor("float32", (6, 5, 4)), net.weights(4, 3, 3, 3), pads=[1, 1, 1, 1])
    f = net.op("reshape", [q], net.tensor("uint8", (90,), dynamic=True))
    z = net.op("gemm", [f], net.tensor("float32", (4,)), net.weights(4, 90))
    d = net.op("dequantize", [f], net.tensor("float32", (90,)))
    net.plan["outputs"] += [y, z, d]

    # The reference keeps a dynamic tensor's parameters under its own index only.
    inputs = net.random_inputs(2)
    session = _core.Session(_core.Model.from_bytes(net.bytes()), keep_tensors=True)
    got = session.run(inputs)
    x0 = inputs["t0"]
    lo, hi = min(x0.min(), np.float32(0)), max(x0.max(), np.float32(0))
    scale = np.float32((hi - lo) / np.float32(255))
    zero = int(np.rint(np.clip(-lo / scale, 0, 255)))
    codes = np.clip(np.rint(x0.transpose(0, 2, 3, 1) / scale) + zero, 0, 255).astype(np.int64)
    np.testing.assert_array_equal(session.tensor_codes(q), codes)
    real = (codes - zero).astype(np.float32) * scale
    np.testing.assert_array_equal(session.tensor(q), real)
    np.testing.assert_array_equal(got[f"t{d}"], real.reshape(2, 90))
    acc = (codes - zero).reshape(2, 90) @ net.files["gemm_3.weight"].T.astype(np.int64) + net.files["gemm_3.bias"]
    m = (float(scale) * net.files["gemm_3.weight_scale"].astype(np.float64)).astype(np.float32)
    np.testing.assert_array_equal(got[f"t{z}"], acc.astype(np.float32) * m)


def test_dynamic_quantization_against_the_reference():
    net = Net()
    x = net.input("float32", (4, 6))
    q = net.op("quantize_dynamic", [x], net.tensor("uint8", (4, 6), dynamic=True))
    y = net.op("gemm", [q], net.tensor("float32", (4, 9)), net.weights(9, 6), max=0.5)
    check(net.outputs(y))


def test_dynamic_quantization_of_zeros_and_of_what_has_no_scale():
    net = Net()
    q = net.op("quantize_dynamic", [net.input("float32", (4,))], net.tensor("uint8", (4,), dynamic=True))
    net.outputs(net.op("dequantize", [q], net.tensor("float32", (4,))))
    session = _core.Session(_core.Model.from_bytes(net.bytes()))
    assert not session.run({"t0": np.zeros((2, 4), np.float32)})["t2"].any()
    for bad in (np.nan, np.inf):
        with pytest.raises(ValueError):
            session.run({"t0": np.array([[1, bad, 0, 0]], np.float32)})


@pytest.mark.parametrize("kind", ["add", "mul"])
def test_add_and_mul(kind: str):
    net = Net()
    a, b = net.input("int8", (3, 5, 6), 0.1, 3), net.input("uint8", (3, 5, 6), 0.07, 120)
    y = net.op(kind, [a, b], net.tensor("int8", (3, 5, 6), 0.13, -2), lo=-100, hi=99)
    z = net.op(kind, [y, y], net.tensor("uint8", (3, 5, 6), 0.2, 7))  # in place over y
    check(net.outputs(z))


def test_mul_per_channel():
    net = Net()
    a, b = net.input("int8", (3, 5, 6), 0.1, 3), net.input("uint8", (1, 1, 6), 0.004, 0)
    check(net.outputs(net.op("mul", [a, b], net.tensor("int8", (3, 5, 6), 0.09, 1))))


@pytest.mark.parametrize("source", ["int8", "uint8", "raw"])
@pytest.mark.parametrize("target", ["int8", "uint8", "float32"])
@pytest.mark.parametrize("per_channel", [False, True])
def test_lookup(source: str, target: str, per_channel: bool):
    net = Net()
    x = net.input("uint8", (4, 5)) if source == "raw" else net.input(source, (4, 5), 0.1, 3)
    y = net.tensor(target, (4, 5)) if target == "float32" else net.tensor(target, (4, 5), 0.2, 5)
    raw = net.rng.integers(0, 256, (5, 256) if per_channel else 256)
    table = raw.astype(np.float32) / 7 if target == "float32" else raw.astype(np.uint8).view(target)
    net.op("lookup", [x], y, {"table": table})
    check(net.outputs(y))


@pytest.mark.parametrize("dtype", ["int8", "uint8", "raw", "float32"])
def test_max_pool(dtype: str):
    net = Net()
    shape = (7, 6, 5)
    x = (
        net.input("uint8", shape)
        if dtype == "raw"
        else net.input(dtype, shape, *([] if dtype == "float32" else [0.1, 3]))
    )
    attrs = {"kernel": [3, 2], "strides": [2, 1], "pads": [1, 0, 1, 1], "dilations": [1, 2]}
    check(net.outputs(net.op("max_pool", [x], net.like(x, 4, 5, 5), **attrs)))


@pytest.mark.parametrize("include", [False, True])
def test_average_pool(include: bool):
    net = Net()
    x = net.input("int8", (7, 6, 5), 0.1, 3)
    y = net.tensor("uint8", (4, 6, 5), 0.09, 120)
    net.op("average_pool", [x], y, kernel=[3, 3], strides=[2, 1], pads=[1, 1, 1, 1], count_include_pad=include)
    z = net.op("average_pool", [y], net.tensor("int8", (1, 1, 5), 0.05, 0), kernel=[4, 6])
    check(net.outputs(z))


def test_average_pool_f32():
    net = Net()
    x = net.input("float32", (7, 6, 5))
    y = net.op("average_pool", [x], net.tensor("float32", (4, 6, 5)), kernel=[3, 3], strides=[2, 1], pads=[1, 1, 1, 1])
    check(net.outputs(y), rtol=1e-6)


@pytest.mark.parametrize("axis", [1, 2, 3])
@pytest.mark.parametrize("dtype", ["int8", "float32"])
def test_concat(axis: int, dtype: str):
    net = Net()
    shapes = [[3, 4, 5] for _ in range(3)]
    for i, shape in enumerate(shapes):
        shape[axis - 1] = i + 1
    q = [] if dtype == "float32" else [0.1, 3]
    parts = [net.input(dtype, tuple(s), *q) for s in shapes]
    whole = list(shapes[0])
    whole[axis - 1] = 6 + 1
    y = net.tensor(dtype, tuple(whole), *q)
    net.op("concat", [*parts, parts[0]], y, axis=axis)
    check(net.outputs(y))


@pytest.mark.parametrize("batchwise", [False, True])
def test_concat_written_in_place(batchwise: bool):
    """Fire module with a nested concatenation: parts are written where they end up; a part is read by others too."""
    net = Net()
    x = net.input("int8", (6, 6, 5), 0.1, 3)
    q = (0.2, -1)

    def conv(t: int, c: int, oc: int, **attrs: Any) -> int:
        k = 3 if "pads" in attrs else 1
        return net.op("conv2d", [t], net.tensor("int8", (6, 6, oc), *q), net.weights(oc, k, k, c), **attrs)

    a, b = conv(x, 5, 3), conv(x, 5, 16, pads=[1, 1, 1, 1])
    inner = net.op("concat", [a, b], net.like(a, 6, 6, 19), axis=3)
    pooled = net.op("max_pool", [a], net.like(a, 6, 6, 3), kernel=[3, 3], pads=[1, 1, 1, 1])
    depth = net.op("conv2d", [b], net.like(a, 6, 6, 16), net.weights(16, 3, 3, 1), groups=16, pads=[1, 1, 1, 1])
    outer = net.op("concat", [pooled, inner, depth, x2 := conv(inner, 19, 4)], net.like(a, 6, 6, 42), axis=3)
    y = conv(outer, 42, 7)
    if batchwise:
        tall = net.op("concat", [y, conv(x2, 4, 7)], net.like(a, 12, 6, 7), axis=1)
        y = net.op("max_pool", [tall], net.like(a, 6, 6, 7), kernel=[2, 1], strides=[2, 1])
    check(net.outputs(y))


def taps(net: Net, size: int, out: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    at = np.clip((np.arange(out) + 0.5) * size / out - 0.5, 0, size - 1)
    first = np.floor(at).astype(np.int32)
    return first, np.minimum(first + 1, size - 1).astype(np.int32), (at - first).astype(np.float32)


@pytest.mark.parametrize("dtype", ["int8", "float32"])
@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_resize(dtype: str, mode: str):
    net = Net()
    q = [] if dtype == "float32" else [0.1, 3]
    x = net.input(dtype, (4, 5, 6), *q)
    if mode == "nearest":
        params = {"rows": np.arange(8, dtype=np.int32) // 2, "cols": np.array([4, 0, 2], np.int32)}
        y = net.like(x, 8, 3, 6)
    else:
        r0, r1, rw = taps(net, 4, 9)
        c0, c1, cw = taps(net, 5, 3)
        params = {"rows0": r0, "rows1": r1, "row_weight": rw, "cols0": c0, "cols1": c1, "col_weight": cw}
        y = net.tensor(dtype, (9, 3, 6), *([] if dtype == "float32" else [0.09, 1]))
    net.op("resize", [x], y, params, mode=mode)
    check(net.outputs(y))


UNARY = {
    "relu": {},
    "clip": {"alpha": -0.5, "beta": 1.0},
    "sigmoid": {},
    "hard_sigmoid": {"alpha": 0.2, "beta": 0.5},
    "hard_swish": {},
    "swish": {},
    "leaky_relu": {"alpha": 0.1},
    "tanh": {},
    "exp": {},
}


@pytest.mark.parametrize("kind", UNARY)
def test_unary(kind: str):
    net = Net()
    x = net.input("float32", (4, 33))
    y = net.op("unary", [x], net.tensor("float32", (4, 33)), kind=kind, **UNARY[kind])
    z = net.op("unary", [y], net.tensor("float32", (4, 33)), kind="relu")  # in place
    check(net.outputs(z), rtol=2e-6)


@pytest.mark.parametrize("shape", [(1,), (6,)])
def test_prelu(shape: tuple[int, ...]):
    net = Net()
    x = net.input("float32", (3, 5, 6))
    slope = net.rng.normal(size=shape).astype(np.float32)
    check(net.outputs(net.op("prelu", [x], net.like(x), {"slope": slope})))


@pytest.mark.parametrize("kind", ["add", "sub", "mul", "div"])
@pytest.mark.parametrize("second", [(3, 5, 6), (1, 1, 6), "(1)", "(c)", "item"])
def test_binary(kind: str, second: Any):
    net = Net()
    x = net.input("float32", (3, 5, 6))
    if isinstance(second, tuple):
        b, params = [net.input("float32", second)], {}
    else:
        shape = {"(1)": (1,), "(c)": (6,), "item": (3, 5, 6)}[second]
        b, params = [], {"b": net.rng.uniform(0.5, 2, shape).astype(np.float32)}
    y = net.op("binary", [x, *b], net.like(x), params, kind=kind, min=-1.0)
    check(net.outputs(net.op("binary", [y, y], net.like(x), kind="add")))


def test_softmax():
    net = Net()
    x = net.input("float32", (3, 17))
    check(net.outputs(net.op("softmax", [x], net.like(x))), rtol=2e-6)


def test_float_products():
    net = Net()
    x = net.input("float32", (5, 6, 4))
    r = net.input("float32", (5, 6, 8))
    w = {
        "weight": net.rng.normal(0, 0.1, (8, 3, 3, 2)).astype(np.float32),
        "bias": net.rng.normal(size=8).astype(np.float32),
    }
    y = net.op("conv2d_f32", [x, r], net.like(r), w, groups=2, pads=[1, 1, 1, 1], min=0.0, max=6.0)
    depthwise = {"weight": net.rng.normal(size=(8, 3, 3, 1)).astype(np.float32)}
    d = net.op("conv2d_f32", [y], net.like(r), depthwise, groups=8, pads=[1, 1, 1, 1])
    dense = {"weight": net.rng.normal(size=(3, 8)).astype(np.float32)}
    z = net.op("gemm_f32", [d], net.tensor("float32", (5, 6, 3)), dense)
    check(net.outputs(z), rtol=1e-4)


@pytest.mark.parametrize("perm", [(0, 2, 3, 1), (0, 3, 1, 2), (0, 1, 2, 3), (0, 3, 2, 1)])
@pytest.mark.parametrize("dtype", ["int8", "float32"])
@pytest.mark.parametrize("shape", [(3, 4, 5), (1, 1, 5), (3, 1, 4)])
def test_transpose(perm: tuple[int, ...], dtype: str, shape: tuple[int, ...]):
    net = Net()
    x = net.input(dtype, shape, *([] if dtype == "float32" else [0.1, 3]))
    y = net.op("transpose", [x], net.like(x, *[(0, *shape)[p] for p in perm[1:]]), perm=list(perm))
    z = net.op("reshape", [y], net.like(x, int(np.prod(shape))))
    check(net.outputs(y, z))


@pytest.mark.parametrize("dtype", ["int8", "float32"])
def test_slice_and_pad(dtype: str):
    net = Net()
    q = [] if dtype == "float32" else [0.1, 3]
    x = net.input(dtype, (5, 6, 7), *q)
    y = net.op("slice", [x], net.like(x, 2, 3, 4), starts=[0, 1, 5, 0], steps=[1, 2, -2, 2])
    z = net.op("slice", [x], net.like(x, 4, 6, 2), starts=[0, 1, 0, 3], steps=[1, 1, 1, 1])
    p = net.op("pad", [y], net.like(x, 5, 4, 6), before=[0, 1, 0, 2], after=[0, 2, 1, 0], value=-0.43)
    check(net.outputs(p, z, y))


def test_outputs_that_share_memory_with_inputs_and_each_other():
    net = Net()
    x = net.input("float32", (2, 3))
    r = net.op("reshape", [x], net.tensor("float32", (6,)))
    s = net.op("unary", [r], net.tensor("float32", (6,)), kind="relu")
    t = net.op("reshape", [s], net.tensor("float32", (3, 2)))
    check(net.outputs(x, r, s, t))


def test_raw_bytes_move_and_int8_inputs_come_back():
    net = Net()
    x = net.input("uint8", (3, 4, 5))
    y = net.op("transpose", [x], net.tensor("uint8", (4, 5, 3)), perm=[0, 2, 3, 1])
    q = net.input("int8", (7,), 0.1, 3)
    check(net.outputs(y, q))


OP_FAULTS: list[tuple[dict[str, Any], str]] = [
    ({"strides": [0, 1]}, "strides"),
    ({"strides": [1]}, "strides"),
    ({"pads": [0, 0, 0]}, "pads"),
    ({"pads": [-1, 0, 0, 0]}, "pads"),
    ({"pads": [1, 1, 1, 1]}, "must be"),
    ({"dilations": [9, 1]}, "does not fit"),
    ({"groups": 3}, "groups"),
    ({"min": 0.0}, "min"),
]


@pytest.mark.parametrize("attrs, message", OP_FAULTS)
def test_wrong_attributes_name_the_op(attrs: dict[str, Any], message: str):
    net = Net()
    x = net.input("int8", (7, 6, 4), 0.1, 7)
    net.outputs(net.op("conv2d", [x], net.tensor("int8", (5, 4, 6), 0.1, 0), net.weights(6, 3, 3, 4), **attrs))
    with pytest.raises(ValueError, match=f"conv2d_0.*{message}"):
        _core.Model.from_bytes(net.bytes())
