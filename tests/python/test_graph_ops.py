# ruff: noqa: E501
"""Every operator against onnxruntime: in float to float's rounding, and as codes between two products."""

import numpy as np
import pytest

from lowbit.graph.net import UnsupportedError
from onnx_nets import make_plan, min_max, net, node, run_onnx, run_plan, sqnr

rng = np.random.default_rng(7)


def w(*shape, scale=0.3):
    return rng.normal(size=shape).astype(np.float32) * np.float32(scale)


def i64(*values):
    return np.array(values, dtype=np.int64)


IMAGE = (6, 9, 11)
# name -> (nodes from x to y, weights, opset, input shape)
CASES = {
    "conv_3x3": ([node("Conv", ["x", "w", "b"], ["y"], pads=[1, 1, 1, 1])], {"w": w(5, 6, 3, 3), "b": w(5)}),
    "conv_stride_asymmetric": ([node("Conv", ["x", "w"], ["y"], pads=[0, 1, 1, 2], strides=[2, 1])], {"w": w(5, 6, 3, 2)}),
    "conv_dilated": ([node("Conv", ["x", "w"], ["y"], dilations=[2, 3], pads=[2, 3, 2, 3])], {"w": w(4, 6, 3, 3)}),
    "conv_groups": ([node("Conv", ["x", "w"], ["y"], group=3)], {"w": w(9, 2, 1, 1)}),
    "conv_depthwise": ([node("Conv", ["x", "w", "b"], ["y"], group=6, pads=[1, 1, 1, 1])], {"w": w(6, 1, 3, 3), "b": w(6)}),
    "conv_same_upper": ([node("Conv", ["x", "w"], ["y"], auto_pad="SAME_UPPER", strides=[2, 2])], {"w": w(4, 6, 3, 3)}),
    "conv_same_lower": ([node("Conv", ["x", "w"], ["y"], auto_pad="SAME_LOWER", strides=[2, 2])], {"w": w(4, 6, 4, 4)}),
    "batch_norm": ([node("BatchNormalization", ["x", "g", "b", "m", "v"], ["y"])],
                   {"g": w(6), "b": w(6), "m": w(6), "v": np.abs(w(6)) + np.float32(0.1)}),
    "relu": ([node("Relu", ["x"], ["y"])], {}),
    "clip_inputs": ([node("Clip", ["x", "lo", "hi"], ["y"])], {"lo": np.float32(-0.5), "hi": np.float32(1.0)}),
    "clip_only_max": ([node("Clip", ["x", "", "hi"], ["y"])], {"hi": np.float32(0.7)}),
    "hard_swish": ([node("HardSwish", ["x"], ["y"])], {}),
    "hard_sigmoid": ([node("HardSigmoid", ["x"], ["y"], alpha=0.3, beta=0.4)], {}),
    "sigmoid": ([node("Sigmoid", ["x"], ["y"])], {}),
    "tanh": ([node("Tanh", ["x"], ["y"])], {}),
    "swish_pattern": ([node("Sigmoid", ["x"], ["s"]), node("Mul", ["x", "s"], ["y"])], {}),
    "hard_swish_pattern": ([node("Add", ["x", "three"], ["a"]), node("Clip", ["a", "zero", "six"], ["c"]),
                            node("Mul", ["x", "c"], ["m"]), node("Div", ["m", "six"], ["y"])],
                           {"three": np.float32(3), "zero": np.float32(0), "six": np.float32(6)}),
    "hard_swish_by_sigmoid": ([node("HardSigmoid", ["x"], ["s"], alpha=1 / 6, beta=0.5), node("Mul", ["s", "x"], ["y"])], {}),
    "leaky_relu": ([node("LeakyRelu", ["x"], ["y"], alpha=0.1)], {}),
    "prelu_channel": ([node("PRelu", ["x", "s"], ["y"])], {"s": w(6, 1, 1)}),
    "prelu_one": ([node("PRelu", ["x", "s"], ["y"])], {"s": w(1)}),
    "add_channel": ([node("Add", ["x", "c"], ["y"])], {"c": w(1, 6, 1, 1)}),
    "sub_from_constant": ([node("Sub", ["c", "x"], ["y"])], {"c": np.float32(1.5)}),
    "mul_full": ([node("Mul", ["x", "c"], ["y"])], {"c": w(1, *IMAGE)}),
    "div_scalar": ([node("Div", ["x", "c"], ["y"])], {"c": np.float32(0.7)}),
    "add_itself": ([node("Add", ["x", "x"], ["y"])], {}),
    "add_two": ([node("Relu", ["x"], ["a"]), node("Add", ["a", "x"], ["y"])], {}),
    "sub_two": ([node("Relu", ["x"], ["a"]), node("Sub", ["a", "x"], ["y"])], {}),
    "mul_two": ([node("Sigmoid", ["x"], ["a"]), node("Mul", ["a", "x"], ["b"]), node("Mul", ["b", "a"], ["y"])], {}),
    "sum_three": ([node("Relu", ["x"], ["a"]), node("Tanh", ["x"], ["b"]), node("Sum", ["a", "x", "b"], ["y"])], {}),
    "squeeze_excite": ([node("GlobalAveragePool", ["x"], ["p"]), node("Conv", ["p", "w"], ["c"]),
                        node("Sigmoid", ["c"], ["s"]), node("Mul", ["x", "s"], ["y"])], {"w": w(6, 6, 1, 1)}),
    "max_constant": ([node("Max", ["x", "c"], ["y"])], {"c": np.float32(0.2)}),
    "min_constant": ([node("Min", ["x", "c"], ["y"])], {"c": np.float32(0.2)}),
    "neg": ([node("Neg", ["x"], ["y"])], {}),
    "concat": ([node("Relu", ["x"], ["a"]), node("Concat", ["a", "x"], ["y"], axis=1)], {}),
    "concat_height": ([node("Relu", ["x"], ["a"]), node("Concat", ["a", "x"], ["y"], axis=-2)], {}),
    "max_pool": ([node("MaxPool", ["x"], ["y"], kernel_shape=[3, 2], strides=[2, 2], pads=[1, 0, 1, 1])], {}),
    "max_pool_ceil": ([node("MaxPool", ["x"], ["y"], kernel_shape=[3, 3], strides=[2, 3], ceil_mode=1)], {}),
    "max_pool_ceil_last_outside": ([node("MaxPool", ["x"], ["y"], kernel_shape=[2, 2], strides=[3, 3], pads=[1, 1, 1, 1],
                                         ceil_mode=1)], {}),
    "max_pool_dilated": ([node("MaxPool", ["x"], ["y"], kernel_shape=[2, 2], dilations=[2, 3])], {}),
    "average_pool": ([node("AveragePool", ["x"], ["y"], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])], {}),
    "average_pool_include": ([node("AveragePool", ["x"], ["y"], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 0, 1],
                                   count_include_pad=1)], {}),
    "average_pool_ceil": ([node("AveragePool", ["x"], ["y"], kernel_shape=[3, 2], strides=[2, 3], ceil_mode=1)], {}),
    "average_pool_ceil_include": ([node("AveragePool", ["x"], ["y"], kernel_shape=[3, 3], strides=[3, 3], pads=[1, 1, 1, 1],
                                        ceil_mode=1, count_include_pad=1)], {}, 19),
    "global_average_pool": ([node("GlobalAveragePool", ["x"], ["y"])], {}),
    "global_max_pool": ([node("GlobalMaxPool", ["x"], ["y"])], {}),
    "reduce_mean_attribute": ([node("ReduceMean", ["x"], ["y"], axes=[2, 3], keepdims=0)], {}, 13),
    "reduce_mean_input": ([node("ReduceMean", ["x", "a"], ["y"])], {"a": i64(-1, -2)}, 18),
    "flatten": ([node("Flatten", ["x"], ["y"])], {}),
    "flatten_gemm": ([node("Flatten", ["x"], ["f"]), node("Gemm", ["f", "w", "b"], ["y"], transB=1)],
                     {"w": w(7, 594, scale=0.05), "b": w(7)}),
    "flatten_relu_gemm": ([node("Flatten", ["x"], ["f"]), node("Relu", ["f"], ["r"]), node("Gemm", ["r", "w"], ["y"])],
                          {"w": w(594, 7, scale=0.05)}),
    "gemm_alpha_beta": ([node("Flatten", ["x"], ["f"]), node("Gemm", ["f", "w", "b"], ["y"], alpha=0.5, beta=2.0)],
                        {"w": w(594, 7, scale=0.05), "b": w(1, 7)}),
    "matmul_bias": ([node("Reshape", ["x", "s"], ["f"]), node("MatMul", ["f", "w"], ["m"]), node("Add", ["m", "b"], ["y"])],
                    {"s": i64(0, -1), "w": w(594, 7, scale=0.05), "b": w(7)}),
    "matmul_last_axis": ([node("MatMul", ["x", "w"], ["y"])], {"w": w(11, 4)}),
    "reshape_split_channels": ([node("Reshape", ["x", "s"], ["y"])], {"s": i64(0, 2, 3, 9, 11)}),
    "reshape_merge_space": ([node("Reshape", ["x", "s"], ["y"])], {"s": i64(-1, 6, 99)}),
    "channel_shuffle": ([node("Reshape", ["x", "s"], ["r"]), node("Transpose", ["r"], ["t"], perm=[0, 2, 1, 3, 4]),
                         node("Reshape", ["t", "u"], ["y"])], {"s": i64(0, 2, 3, 9, 11), "u": i64(0, -1, 9, 11)}),
    "transpose": ([node("Transpose", ["x"], ["y"], perm=[0, 3, 1, 2])], {}),
    "transpose_back": ([node("Transpose", ["x"], ["t"], perm=[0, 2, 3, 1]), node("Relu", ["t"], ["r"]),
                        node("Transpose", ["r"], ["y"], perm=[0, 3, 1, 2])], {}),
    "pad": ([node("Pad", ["x", "p", "v"], ["y"])], {"p": i64(0, 1, 2, 0, 0, 0, 1, 3), "v": np.float32(0.5)}),
    "pad_crop": ([node("Pad", ["x", "p"], ["y"])], {"p": i64(0, 0, -2, 1, 0, 0, 1, -1)}),
    "pad_axes": ([node("Pad", ["x", "p", "", "a"], ["y"])], {"p": i64(1, 2, 3, 4), "a": i64(-1, 1)}, 18),
    "pad_conv": ([node("Pad", ["x", "p"], ["q"]), node("Conv", ["q", "w"], ["y"], strides=[2, 2])],
                 {"p": i64(0, 0, 0, 1, 0, 0, 1, 0), "w": w(4, 6, 3, 3)}),
    "pad_average": ([node("Pad", ["x", "p"], ["q"]), node("AveragePool", ["q"], ["y"], kernel_shape=[3, 3])],
                    {"p": i64(0, 0, 1, 1, 0, 0, 1, 1)}),
    "relu_pad_max": ([node("Relu", ["x"], ["r"]), node("Pad", ["r", "p"], ["q"]),
                      node("MaxPool", ["q"], ["y"], kernel_shape=[3, 3])], {"p": i64(0, 0, 1, 1, 0, 0, 1, 1)}),
    "pad_max": ([node("Pad", ["x", "p"], ["q"]), node("MaxPool", ["q"], ["y"], kernel_shape=[3, 3])],
                {"p": i64(0, 0, 1, 1, 0, 0, 1, 1)}),
    "softmax_channels": ([node("Softmax", ["x"], ["y"], axis=1)], {}),
    "softmax_last": ([node("Softmax", ["x"], ["y"])], {}),
    "softmax_opset_11": ([node("Softmax", ["x"], ["y"], axis=1)], {}, 11),
    "slice": ([node("Slice", ["x", "s", "e", "a", "t"], ["y"])],
              {"s": i64(1, -1), "e": i64(5, -100), "a": i64(1, 3), "t": i64(2, -2)}),
    "slice_strided_twice": ([node("Slice", ["x", "s", "e", "a", "t"], ["m"]), node("Slice", ["m", "s", "e", "b", "t"], ["y"])],
                            {"s": i64(0), "e": i64(1 << 40), "a": i64(2), "b": i64(3), "t": i64(2)}),
    "split": ([node("Split", ["x", "p"], ["a", "b"], axis=1), node("Concat", ["b", "a"], ["y"], axis=1)], {"p": i64(2, 4)}),
    "gather": ([node("Gather", ["x", "i"], ["y"], axis=1)], {"i": i64(1, 3, 5)}),
    "gather_scalar": ([node("Gather", ["x", "i"], ["y"], axis=2)], {"i": np.array(3, np.int64)}),
    "squeeze_unsqueeze": ([node("GlobalAveragePool", ["x"], ["p"]), node("Squeeze", ["p", "a"], ["s"]),
                           node("Unsqueeze", ["s", "b"], ["u"]), node("Add", ["x", "u"], ["y"])],
                          {"a": i64(2, 3), "b": i64(2, 3)}),
    "identity_dropout": ([node("Identity", ["x"], ["i"]), node("Dropout", ["i"], ["y"])], {}),
    "depth_to_space": ([node("SpaceToDepth", ["x"], ["d"], blocksize=1), node("Reshape", ["d", "s"], ["r"]),
                        node("DepthToSpace", ["r"], ["y"], blocksize=2)], {"s": i64(0, 12, 3, 16)}, 17, (6, 8, 12)),
    "depth_to_space_crd": ([node("DepthToSpace", ["x"], ["y"], blocksize=2, mode="CRD")], {}, 17, (8, 3, 5)),
    "space_to_depth": ([node("SpaceToDepth", ["x"], ["y"], blocksize=3)], {}, 17, (2, 6, 9)),
    "shape_chain": ([node("Shape", ["x"], ["s"]), node("Gather", ["s", "zero"], ["n"]), node("Unsqueeze", ["n", "axis"], ["u"]),
                     node("Concat", ["u", "rest"], ["t"], axis=0), node("Reshape", ["x", "t"], ["y"])],
                    {"zero": np.array(0, np.int64), "axis": i64(0), "rest": i64(-1)}),
    "shape_slice": ([node("Shape", ["x"], ["s"]), node("Slice", ["s", "b", "e"], ["h"]), node("Concat", ["m", "h"], ["t"], axis=0),
                     node("Reshape", ["x", "t"], ["y"])], {"b": i64(1), "e": i64(4), "m": i64(-1)}),
    "constant_of_shape": ([node("ConstantOfShape", ["s"], ["z"]), node("Add", ["x", "z"], ["y"])], {"s": i64(1, 6, 1, 1)}),
}  # fmt: skip


def case(name):
    nodes, weights, *rest = CASES[name]
    opset = rest[0] if rest else (14 if name == "hard_swish" else 17)
    shape = rest[1] if len(rest) > 1 else IMAGE
    return net(nodes, {"x": shape}, weights, opset=opset), rng.normal(size=(3, *shape)).astype(np.float32)


@pytest.mark.parametrize("name", CASES)
def test_float(name):
    model, x = case(name)
    wanted = run_onnx(model, {"x": x})["y"]
    y = run_plan(make_plan(model), {"x": x})["y"]
    assert y.shape == wanted.shape
    np.testing.assert_allclose(y, wanted, rtol=2e-5, atol=2e-5)


def between_products(name):
    """The case between a 1x1 convolution and a convolution or product, so that it runs on codes."""
    nodes, weights, *rest = CASES[name]
    opset = rest[0] if rest else 17
    shape = rest[1] if len(rest) > 1 else IMAGE
    inner = net(nodes, {"x": shape}, weights, opset=opset)
    out = run_onnx(inner, {"x": np.zeros((1, *shape), np.float32)})["y"].shape
    c = shape[0]
    before = [node("Conv", ["in", "w0", "b0"], ["x"])]
    head = {"w0": np.eye(c, dtype=np.float32).reshape(c, c, 1, 1) + w(c, c, 1, 1, scale=0.1), "b0": w(c, scale=0.1)}
    if len(out) == 4:
        tail = {"w1": w(4, out[1], 1, 1)}
        after = [node("Conv", ["y", "w1"], ["out"])]
    else:
        tail = {"w1": w(out[-1], 4)}
        after = [node("MatMul", ["y", "w1"], ["out"])]
    return net(
        [*before, *nodes, *after], {"in": shape}, {**weights, **head, **tail}, outputs=("out",), opset=opset
    ), shape


# Softmax, differences, operands of every shape, sums of three and broadcast sums have no integer form.
FLOAT_ONLY = {
    "softmax_channels", "softmax_last", "softmax_opset_11", "sub_two", "mul_full", "sum_three", "squeeze_unsqueeze"
}  # fmt: skip


@pytest.mark.parametrize("recipe", ["int8", "int8-affine"])
@pytest.mark.parametrize("name", [n for n in CASES if n != "max_pool_ceil_last_outside"])
def test_codes(name, recipe):
    model, shape = between_products(name)
    x = rng.normal(size=(4, *shape)).astype(np.float32)
    wanted = run_onnx(model, {"in": x})["out"]
    plan = make_plan(model, recipe, min_max(model, {"in": x}))
    y = run_plan(plan, {"in": x})["out"]
    assert sqnr(wanted, y) > 24, sqnr(wanted, y)
    floats = [op["op"] for op in plan.ops if op["op"] not in ("quantize", "dequantize", "transpose", "reshape")
              and plan.activations[op["inputs"][0]]["dtype"] == "float32"]  # fmt: skip
    if name not in FLOAT_ONLY:
        assert floats == [], floats


@pytest.mark.parametrize(
    "mode", ["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric", "half_pixel_symmetric"]
)
@pytest.mark.parametrize("kind", ["nearest", "linear"])
@pytest.mark.parametrize("size", [(14, 22), (5, 7), (1, 1), (9, 33)])
def test_resize(mode, kind, size):
    x = rng.normal(size=(2, 3, 7, 11)).astype(np.float32)
    sizes = np.array([2, 3, *size], np.int64)
    model = net(
        [node("Resize", ["x", "", "", "s"], ["y"], mode=kind, coordinate_transformation_mode=mode)],
        {"x": (3, 7, 11)}, {"s": sizes}, opset=19, batch=2,
    )  # fmt: skip
    wanted = run_onnx(model, {"x": x})["y"]
    y = run_plan(make_plan(model), {"x": x})["y"]
    np.testing.assert_allclose(y, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("nearest", ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"])
@pytest.mark.parametrize("scale", [2.0, 0.5, 1.7])
def test_resize_by_scales(nearest, scale):
    x = rng.normal(size=(2, 3, 7, 11)).astype(np.float32)
    model = net(
        [node("Resize", ["x", "", "s"], ["y"], nearest_mode=nearest, coordinate_transformation_mode="asymmetric")],
        {"x": (3, 7, 11)}, {"s": np.float32([1, 1, scale, scale])}, opset=13,
    )  # fmt: skip
    np.testing.assert_array_equal(run_plan(make_plan(model), {"x": x})["y"], run_onnx(model, {"x": x})["y"])


@pytest.mark.parametrize(
    ("nodes", "weights", "words"),
    [
        ([node("Erf", ["x"], ["y"], name="odd")], {}, ["odd", "Erf", "replace"]),
        ([node("MatMul", ["x", "x"], ["y"], name="self")], {}, ["self", "MatMul", "attention"]),
        ([node("Conv", ["x", "w"], ["y"])], {"w": w(3, 5, 1, 1)}, ["'y'", "Conv", "channels"]),
        ([node("Reshape", ["x", "s"], ["y"], name="r")], {"s": i64(-1)}, ["'r'", "Reshape", "batch"]),
        ([node("Transpose", ["x"], ["y"], perm=[1, 0, 2, 3])], {}, ["Transpose", "batch"]),
        ([node("Softmax", ["x"], ["y"], axis=0)], {}, ["Softmax", "batch"]),
        ([node("Concat", ["x", "x"], ["y"], axis=0)], {}, ["Concat", "batch"]),
        ([node("Pad", ["x", "p"], ["y"], mode="reflect")], {"p": i64(0, 0, 1, 1, 0, 0, 1, 1)}, ["Pad", "reflect"]),
        ([node("Resize", ["x", "", "s"], ["y"], mode="cubic")], {"s": np.float32([1, 1, 2, 2])}, ["Resize", "cubic"]),
    ],
)
def test_unsupported_names_the_node(nodes, weights, words):
    with pytest.raises(UnsupportedError) as error:
        make_plan(net(nodes, {"x": IMAGE}, weights))
    for word in words:
        assert word in str(error.value)
    assert isinstance(error.value, ValueError)


OLD = {  # forms that later opsets changed
    11: [
        ([node("Squeeze", ["p"], ["y"], axes=[2, 3])], {}),
        ([node("Unsqueeze", ["p"], ["y"], axes=[2])], {}),
        ([node("ReduceMean", ["p"], ["y"], axes=[-1, -2])], {}),
        ([node("Split", ["x", ], ["a", "b"], axis=1, split=[2, 4]), node("Concat", ["b", "a"], ["y"], axis=1)], {}),
        ([node("Dropout", ["x"], ["y"])], {}),
        ([node("Clip", ["x", "lo", "hi"], ["y"])], {"lo": np.float32(-0.5), "hi": np.float32(1.0)}),
        ([node("BatchNormalization", ["x", "g", "b", "m", "v"], ["y"])],
         {"g": w(6), "b": w(6), "m": w(6), "v": np.abs(w(6)) + np.float32(0.1)}),
        ([node("Resize", ["x", "roi", "s"], ["y"], coordinate_transformation_mode="asymmetric", nearest_mode="floor")],
         {"roi": np.zeros(0, np.float32), "s": np.float32([1, 1, 2, 2])}),
        ([node("Pad", ["x", "p2"], ["y"])], {"p2": i64(0, 0, 1, 1, 0, 0, 2, 0)}),
        ([node("Gemm", ["q", "w"], ["y"])], {"w": w(6, 3)}),
    ],
}  # fmt: skip


@pytest.mark.parametrize("i", range(len(OLD[11])))
@pytest.mark.parametrize("opset", [11, 12])
def test_older_opsets(opset, i):
    nodes, weights = OLD[11][i]
    before = [node("GlobalAveragePool", ["x"], ["p"]), node("Flatten", ["p"], ["q"])]
    model = net([*before, *nodes], {"x": IMAGE}, weights, opset=opset)
    x = rng.normal(size=(2, *IMAGE)).astype(np.float32)
    y = run_plan(make_plan(model), {"x": x})["y"]
    np.testing.assert_allclose(y, run_onnx(model, {"x": x})["y"], rtol=2e-5, atol=2e-5)


NEWEST = ("conv_3x3", "relu", "average_pool", "max_pool_ceil", "reduce_mean_input", "flatten_gemm", "pad_axes", "split",
          "softmax_channels", "shape_chain", "squeeze_unsqueeze", "hard_swish", "clip_inputs", "prelu_channel")  # fmt: skip


@pytest.mark.parametrize("name", NEWEST)
@pytest.mark.parametrize("opset", [19, 21, 23])
def test_newer_opsets(opset, name):
    nodes, weights, *_ = CASES[name]
    model = net(nodes, {"x": IMAGE}, weights, opset=opset)
    x = rng.normal(size=(2, *IMAGE)).astype(np.float32)
    y = run_plan(make_plan(model), {"x": x})["y"]
    np.testing.assert_allclose(y, run_onnx(model, {"x": x})["y"], rtol=2e-5, atol=2e-5)


def test_swish_of_opset_24():
    x = rng.normal(size=(2, *IMAGE)).astype(np.float32)
    model = net([node("Swish", ["x"], ["y"])], {"x": IMAGE}, opset=24)
    np.testing.assert_allclose(run_plan(make_plan(model), {"x": x})["y"], x / (1 + np.exp(-x)), rtol=1e-5, atol=1e-6)
    with pytest.raises(UnsupportedError, match="alpha"):
        make_plan(net([node("Swish", ["x"], ["y"], alpha=0.5)], {"x": IMAGE}, opset=24))


def test_nhwc_network():
    """What tf2onnx writes: an NHWC input, a transposition to NCHW before the convolution, one back at the end."""
    nodes = [
        node("Sub", ["x", "mean"], ["m"]),
        node("Transpose", ["m"], ["t"], perm=[0, 3, 1, 2]),
        node("Conv", ["t", "w"], ["c"]),
        node("Relu", ["c"], ["r"]),
        node("Transpose", ["r"], ["u"], perm=[0, 2, 3, 1]),
        node("ReduceMean", ["u"], ["p"], axes=[1, 2], keepdims=0),
        node("MatMul", ["p", "k"], ["y"]),
    ]
    model = net(nodes, {"x": (9, 11, 3)}, {"mean": w(3), "w": w(4, 3, 3, 3), "k": w(4, 5)})
    x = rng.normal(size=(2, 9, 11, 3)).astype(np.float32)
    plan = make_plan(model)
    assert [op["op"] for op in plan.ops] == ["binary", "conv2d_f32", "average_pool", "reshape", "gemm_f32"]
    np.testing.assert_allclose(run_plan(plan, {"x": x})["y"], run_onnx(model, {"x": x})["y"], rtol=2e-5, atol=2e-5)


def test_nan_weights_name_the_layer():
    bad = w(3, 6, 1, 1)
    bad[1, 2] = np.nan
    with pytest.raises(ValueError, match=r"conv1.*weight.*NaN"):
        make_plan(net([node("Conv", ["x", "conv1.weight"], ["y"])], {"x": IMAGE}, {"conv1.weight": bad}))
    with pytest.raises(ValueError, match=r"'x'.*nan"):
        good = net([node("Conv", ["x", "conv1.weight"], ["y"])], {"x": IMAGE}, {"conv1.weight": w(3, 6, 1, 1)})
        make_plan(good, "int8", {"x": (0, float("nan"))})
