"""Golden vectors of TensorFlow Lite's quantized operators: single-operator models run by its reference kernels.

Needs `pip install ai-edge-litert` (the values in tests/golden/tflite come from version 2.3.0, op resolver BUILTIN_REF);
not a requirement of the tests, which read the arrays:

    python tests/golden/make_tflite.py tests/golden/tflite

Each file holds codes in, weights, int32 bias, scales and zero points, and the codes that TensorFlow Lite gives (`y`).
"""

import sys
from pathlib import Path

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType

CODES = {"int8": schema.TensorType.INT8, "uint8": schema.TensorType.UINT8, "int32": schema.TensorType.INT32}
OPERATORS = schema.BuiltinOperator


class OneOperator:
    """A model of one operator."""

    def __init__(self):
        self.tensors, self.buffers = [], [schema.BufferT()]

    def tensor(self, shape, dtype, scale, zero_point=0, data=None, axis=0):
        t = schema.TensorT()
        t.shape, t.type, t.name = list(shape), CODES[dtype], f"t{len(self.tensors)}".encode()
        t.quantization = schema.QuantizationParametersT()
        t.quantization.scale = np.atleast_1d(np.float32(scale)).tolist()
        t.quantization.zeroPoint = [int(zero_point)] * len(t.quantization.scale)
        t.quantization.quantizedDimension = axis
        if data is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(np.ascontiguousarray(data).tobytes(), np.uint8)
            self.buffers.append(buffer)
            t.buffer = len(self.buffers) - 1
        self.tensors.append(t)
        return len(self.tensors) - 1

    def run(self, operator, version, options_type, options, inputs, output, feeds):
        code = schema.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = operator
        code.version = version
        op = schema.OperatorT()
        op.opcodeIndex, op.inputs, op.outputs = 0, inputs, [output]
        op.builtinOptionsType, op.builtinOptions = options_type, options
        graph = schema.SubGraphT()
        graph.tensors, graph.operators = self.tensors, [op]
        graph.inputs, graph.outputs = list(feeds), [output]
        model = schema.ModelT()
        model.version, model.operatorCodes, model.subgraphs, model.buffers = 3, [code], [graph], self.buffers
        builder = flatbuffers.Builder(1 << 16)
        builder.Finish(model.Pack(builder), b"TFL3")
        interpreter = Interpreter(
            model_content=bytes(builder.Output()), experimental_op_resolver_type=OpResolverType.BUILTIN_REF
        )
        interpreter.allocate_tensors()
        for (_, value), detail in zip(feeds.items(), interpreter.get_input_details(), strict=True):
            interpreter.set_tensor(detail["index"], value)
        interpreter.invoke()
        return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


def codes(rng, shape, dtype="int8"):
    """Random ones, the extreme ones among them."""
    info = np.iinfo(dtype)
    q = rng.integers(info.min, info.max, shape, endpoint=True)
    return np.where(rng.random(shape) < 0.1, rng.choice([info.min, info.max], shape), q).astype(dtype)


def product(kind, seed, per_channel=True, relu6=False):
    """CONV_2D, DEPTHWISE_CONV_2D or FULLY_CONNECTED with int8 codes, symmetric int8 weights, int32 bias."""
    rng = np.random.default_rng(seed)
    c, oc = (8, 8) if kind == "depthwise" else (5, 12)
    x_shape = (200, 40) if kind == "dense" else (8, 15, 14, c)
    w_shape = {"dense": (oc, 40), "depthwise": (1, 3, 3, oc), "conv": (oc, 3, 3, c)}[kind]
    depth = {"dense": 40, "depthwise": 9, "conv": 9 * c}[kind]
    x, w = codes(rng, x_shape), np.clip(codes(rng, w_shape), -127, 127).astype(np.int8)
    x_scale, x_zero, y_zero = (
        np.float32(rng.uniform(0.01, 0.05)),
        int(rng.integers(-128, 128)),
        int(rng.integers(-60, 60)),
    )
    w_scale = np.float32(rng.uniform(0.002, 0.02, oc if per_channel else 1))
    bias = rng.integers(-3000, 3000, oc).astype(np.int32)
    y_scale = np.float32(x_scale * w_scale.mean() * 60 * depth**0.5)
    model = OneOperator()
    inputs = [
        model.tensor(x_shape, "int8", x_scale, x_zero),
        model.tensor(w_shape, "int8", w_scale, data=w, axis=3 if kind == "depthwise" else 0),
        model.tensor((oc,), "int32", x_scale * w_scale, data=bias),
    ]
    y_shape = (200, oc) if kind == "dense" else (8, 8, 7, oc)
    y = model.tensor(y_shape, "int8", y_scale, y_zero)
    clamp = schema.ActivationFunctionType.RELU6 if relu6 else schema.ActivationFunctionType.NONE
    if kind == "dense":
        options, options_type = schema.FullyConnectedOptionsT(), schema.BuiltinOptions.FullyConnectedOptions
        operator, version = OPERATORS.FULLY_CONNECTED, 4
    else:
        made = {"conv": ("Conv2D", OPERATORS.CONV_2D), "depthwise": ("DepthwiseConv2D", OPERATORS.DEPTHWISE_CONV_2D)}
        name, operator = made[kind]
        options, version = getattr(schema, f"{name}OptionsT")(), 3
        options_type = getattr(schema.BuiltinOptions, f"{name}Options")
        options.padding, options.strideH, options.strideW = schema.Padding.SAME, 2, 2
        options.dilationHFactor = options.dilationWFactor = 1
        if kind == "depthwise":
            options.depthMultiplier = 1
    options.fusedActivationFunction = clamp
    result = model.run(operator, version, options_type, options, inputs, y, {inputs[0]: x})
    return {
        "x": x, "w": w, "bias": bias, "x_scale": x_scale, "x_zero_point": x_zero, "w_scale": w_scale,
        "y_scale": y_scale, "y_zero_point": y_zero, "relu6": relu6, "y": result,
    }  # fmt: skip


def pair(kind, seed, dtype="int8"):
    """ADD or MUL."""
    rng = np.random.default_rng(seed)
    shape, lo = (2, 15, 15, 9), -128 if dtype == "int8" else 0
    a, b = codes(rng, shape, dtype), codes(rng, shape, dtype)
    scales = np.float32(rng.uniform(0.01, 0.05, 3))
    if kind == "mul":
        scales[2] = scales[0] * scales[1] * 90
    zeros = rng.integers(lo, lo + 256, 3)
    model = OneOperator()
    ia, ib, y = (model.tensor(shape, dtype, s, z) for s, z in zip(scales, zeros, strict=True))
    name, operator = {"add": ("Add", OPERATORS.ADD), "mul": ("Mul", OPERATORS.MUL)}[kind]
    options = getattr(schema, f"{name}OptionsT")()
    options.fusedActivationFunction = schema.ActivationFunctionType.NONE
    result = model.run(
        operator, 2, getattr(schema.BuiltinOptions, f"{name}Options"), options, [ia, ib], y, {ia: a, ib: b}
    )
    return {"a": a, "b": b, "scales": scales, "zero_points": zeros, "y": result}


def average(seed, dtype):
    """AVERAGE_POOL_2D: one scale and zero point for both."""
    rng = np.random.default_rng(seed)
    x = codes(rng, (2, 7, 8, 5), dtype)
    zero = int(rng.integers(0, 100))
    model = OneOperator()
    i = model.tensor(x.shape, dtype, 0.05, zero)
    y = model.tensor((2, 4, 4, 5), dtype, 0.05, zero)
    options = schema.Pool2DOptionsT()
    options.padding, options.strideH, options.strideW = schema.Padding.SAME, 2, 2
    options.filterHeight, options.filterWidth = 3, 3
    options.fusedActivationFunction = schema.ActivationFunctionType.NONE
    result = model.run(OPERATORS.AVERAGE_POOL_2D, 2, schema.BuiltinOptions.Pool2DOptions, options, [i], y, {i: x})
    return {"x": x, "scale": np.float32(0.05), "zero_point": zero, "y": result}


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    made = {
        "conv_2d": product("conv", 1),
        "conv_2d_relu6": product("conv", 2, relu6=True),
        "depthwise_conv_2d": product("depthwise", 3),
        "fully_connected": product("dense", 4, per_channel=False),
        "add_int8": pair("add", 5),
        "add_uint8": pair("add", 6, "uint8"),
        "mul_int8": pair("mul", 7),
        "average_pool_2d_uint8": average(8, "uint8"),
        "average_pool_2d_int8": average(9, "int8"),
    }
    for name, arrays in made.items():
        np.savez_compressed(folder / f"{name}.npz", **arrays)
        print(name, made[name]["y"].shape, np.unique(made[name]["y"]).size)


if __name__ == "__main__":
    main()
