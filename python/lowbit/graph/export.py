"""A plan as ONNX: QDQ for engines that take quantized networks, or float.

Inside, a plan's images are NHWC; ONNX's are NCHW. Every plan tensor is held here as an ONNX tensor and the order of
its axes,
as in the importer, so the plan's transpositions cost nothing where ONNX has the other order anyway.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from lowbit.graph import export_bits, export_levels
from lowbit.graph.codebook import dense_weights, is_codebook
from lowbit.graph.few_bits import is_packed, weight_codes
from lowbit.graph.net import NHWC, Array, Perm, inverse
from lowbit.graph.plan import Plan
from lowbit.graph.source import import_package

OPSET = 17
_RANGE = {"int8": (-128, 127), "uint8": (0, 255)}
_SIMPLE = {"relu": "Relu", "sigmoid": "Sigmoid", "tanh": "Tanh", "exp": "Exp", "hard_swish": "HardSwish"}


def export_onnx(plan: Plan, form: str = "qdq") -> Any:
    """A ModelProto that computes what the plan does.

    Args:
        plan: the plan.
        form: ``qdq``, or ``float`` (dequantized weights, activations not quantized).

    Raises:
        ValueError: where form is unknown.
        ImportError: where onnx is missing.
    """
    if form not in ("qdq", "float"):
        raise ValueError(f"export_onnx: form {form!r} is neither 'qdq' nor 'float'")
    return _Exporter(plan, form == "qdq").run()


def write(model: Any, path: str | os.PathLike[str]) -> None:
    """Write the model aside, then rename it into place."""
    aside = f"{os.fspath(path)}.part"
    try:
        with open(aside, "wb") as file:
            file.write(model.SerializeToString())
        os.replace(aside, path)
    finally:
        if os.path.exists(aside):
            os.remove(aside)


@dataclass
class _Value:
    """An ONNX tensor and the order in which the plan stores its axes: plan axis i is ONNX axis perm[i]."""

    name: str
    perm: Perm


class _Exporter:
    def __init__(self, plan: Plan, quantized: bool):
        self.onnx = import_package()
        self.plan, self.quantized = plan, quantized
        self.nodes: list[Any] = []
        self.initializers: dict[str, Array] = {}
        self.values: dict[int, _Value] = {}
        self.codes: dict[int, _Value] = {}  # plan code tensors whose codes exist as an ONNX tensor
        self.names: set[str] = {self.entry(i)["name"] for i in (*plan.data["inputs"], *plan.data["outputs"])}

    # Building ---------------------------------------------------------------------------------------------------------

    def entry(self, index: int) -> dict[str, Any]:
        return self.plan.activations[index]

    def params(self, op: dict[str, Any]) -> dict[str, Array]:
        return {role: self.plan.tensors[key] for role, key in op.get("params", {}).items()}

    def shape(self, index: int, perm: Perm) -> list[int]:
        """ONNX shape of a plan tensor."""
        stored = self.entry(index)["shape"]
        return [stored[i] for i in inverse(perm)]

    def fresh(self, name: str) -> str:
        candidate, n = name, 0
        while candidate in self.names:
            n += 1
            candidate = f"{name}_{n}"
        self.names.add(candidate)
        return candidate

    def constant(self, name: str, value: Array) -> str:
        name = self.fresh(name)
        self.initializers[name] = np.array(value, order="C")  # ascontiguousarray would give scalars an axis
        return name

    def node(self, op: str, inputs: list[str], out: str, **attrs: Any) -> str:
        out = self.fresh(out)
        self.nodes.append(self.onnx.helper.make_node(op, inputs, [out], name=self.fresh(f"{op}/{out}"), **attrs))
        return out

    # Values -----------------------------------------------------------------------------------------------------------

    def value(self, index: int, perm: Perm | None = None) -> _Value:
        """A plan tensor as float, in a given order of axes or its own."""
        return self.turned(self.values[index], index, perm)

    def turned(self, v: _Value, index: int, perm: Perm | None) -> _Value:
        if perm is None or v.perm == perm:
            return v
        if self._same_memory(v, index, perm):
            shape = self.shape(index, perm)
            return _Value(self.node("Reshape", [v.name, self.shape_constant(shape)], f"{v.name}.turned"), perm)
        order = [v.perm[i] for i in inverse(perm)]
        return _Value(self.node("Transpose", [v.name], f"{v.name}.turned", perm=order), perm)

    def _same_memory(self, v: _Value, index: int, perm: Perm) -> bool:
        """Whether the two ONNX tensors differ only in where their axes of size 1 stand."""
        stored = self.entry(index)["shape"]
        first = [i for i in inverse(v.perm) if stored[i] != 1]
        return first == [i for i in inverse(perm) if stored[i] != 1]

    def shape_constant(self, shape: list[int]) -> str:
        return self.constant("shape", np.array([0 if i == 0 else s for i, s in enumerate(shape)], np.int64))

    def store(self, index: int, name: str, perm: Perm) -> None:
        """Keep an operation's float result as a plan tensor, through Q and DQ where that holds codes."""
        entry = self.entry(index)
        if entry["dtype"] in _RANGE and self.quantized and not entry.get("dynamic"):
            name = self.fake_quantize(index, name, perm)
        self.values[index] = _Value(name, perm)

    def parameters(self, index: int) -> list[str]:
        """Names of scale and zero point of a code tensor."""
        entry = self.entry(index)
        scale = self.constant(f"{entry['name']}.scale", np.array(self.plan.scale(entry), np.float32))
        return [scale, self.constant(f"{entry['name']}.zero_point", np.array(entry["zero_point"], entry["dtype"]))]

    def fake_quantize(self, index: int, name: str, perm: Perm) -> str:
        entry = self.entry(index)
        parameters = self.parameters(index)
        codes = self.node("QuantizeLinear", [name, *parameters], f"{entry['name']}.codes")
        self.codes[index] = _Value(codes, perm)
        return self.node("DequantizeLinear", [codes, *parameters], f"{entry['name']}.values")

    def clamped(self, op: dict[str, Any], name: str) -> str:
        """A fused clamp as Relu or Clip before the output is quantized."""
        attrs, entry = op.get("attrs", {}), self.entry(op["outputs"][0])
        lo, hi = attrs.get("min"), attrs.get("max")
        if entry["dtype"] in _RANGE and not entry.get("dynamic"):
            scale, zero = self.plan.scale(entry), entry["zero_point"]
            narrow = entry["dtype"] == "int8" and attrs.get("lo") == -127  # symmetric codes, no clamp
            lo = scale * (attrs["lo"] - zero) if "lo" in attrs and not narrow else None
            hi = scale * (attrs["hi"] - zero) if "hi" in attrs else None
        if lo is None and hi is None:
            return name
        if lo == 0 and hi is None:
            return self.node("Relu", [name], f"{name}.relu")
        bounds = ["" if b is None else self.constant("bound", np.array(b, np.float32)) for b in (lo, hi)]
        return self.node("Clip", [name, *bounds], f"{name}.clip")

    # The walk ---------------------------------------------------------------------------------------------------------

    def run(self) -> Any:
        helper, proto = self.onnx.helper, self.onnx.TensorProto
        types = {"float32": proto.FLOAT, "int8": proto.INT8, "uint8": proto.UINT8}
        data = self.plan.data
        infos = []
        for i in data["inputs"]:
            entry = self.entry(i)
            infos.append(helper.make_tensor_value_info(entry["name"], types[entry["dtype"]], _open(entry["shape"])))
            self.values[i] = _Value(entry["name"], tuple(range(len(entry["shape"]))))
        for op in data["ops"]:
            params = self.params(op)
            if is_codebook(op):
                params["weight"] = dense_weights(self.plan, op)
            elif is_packed(op):
                params["weight"] = weight_codes(self.plan, op)
            elif op["op"].endswith("_bitserial"):
                params = export_levels.as_float(self, op, params)
            kind = op["op"].removesuffix("_f32").removesuffix("_codebook").removesuffix("_bitserial")
            rule: Callable[..., None] = getattr(self, f"_{kind}")
            rule(op, op.get("attrs", {}), params, op["inputs"], op["outputs"][0])
        outputs = []
        for i in data["outputs"]:
            entry = self.entry(i)
            v = self.value(i, tuple(range(len(entry["shape"]))))
            self.nodes.append(helper.make_node("Identity", [v.name], [entry["name"]]))
            outputs.append(helper.make_tensor_value_info(entry["name"], types[entry["dtype"]], _open(entry["shape"])))
        tensors = [self.onnx.numpy_helper.from_array(a, n) for n, a in self.initializers.items()]
        graph = helper.make_graph(self.nodes, "lowbit", infos, outputs, tensors)
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8, producer_name="lowbit"
        )
        self.onnx.checker.check_model(model)
        return model

    # Conversions ------------------------------------------------------------------------------------------------------

    def _quantize(self, op: Any, attrs: Any, params: Any, ins: list[int], out: int) -> None:
        v = self.values[ins[0]]
        perm = tuple(v.perm[i] for i in NHWC) if attrs.get("nchw_to_nhwc") else v.perm
        self.store(out, self.clamped(op, v.name), perm)

    def _quantize_dynamic(self, op: Any, attrs: Any, params: Any, ins: list[int], out: int) -> None:
        v = self.values[ins[0]]
        perm = tuple(v.perm[i] for i in NHWC) if attrs.get("nchw_to_nhwc") else v.perm
        name = v.name
        if self.quantized:
            outs = [self.fresh(f"{name}.{part}") for part in ("codes", "scale", "zero_point")]
            self.nodes.append(self.onnx.helper.make_node("DynamicQuantizeLinear", [name], outs))
            name = self.node("DequantizeLinear", outs, f"{name}.values")
        self.values[out] = _Value(name, perm)

    def _dequantize(self, op: Any, attrs: Any, params: Any, ins: list[int], out: int) -> None:
        self.values[out] = self.values[ins[0]]

    def _lookup(self, op: Any, attrs: Any, params: Any, ins: list[int], out: int) -> None:
        """Gather from the table of real values; bytes are the indices, and a negative one counts from the end."""
        table = params["table"]
        target = self.entry(out)
        if target["dtype"] != "float32":
            table = (table.astype(np.float64) - target["zero_point"]) * self.plan.scale(target)
        rank = len(target["shape"])
        perm: Perm = NHWC if rank == 4 else tuple(range(rank))
        name = op["name"]
        source = self.entry(ins[0])
        if "scale" in source and ins[0] not in self.codes:
            v = self.value(ins[0], perm)
            codes = _Value(self.node("QuantizeLinear", [v.name, *self.parameters(ins[0])], f"{name}.codes"), perm)
        else:
            codes = self.turned(self.codes.get(ins[0], self.values[ins[0]]), ins[0], perm)
        index = self.node("Cast", [codes.name], f"{name}.index", to=self.onnx.TensorProto.INT32)
        if table.ndim == 2:
            along = [1] * rank
            along[perm[-1]] = table.shape[0]
            byte = self.node("Mod", [index, self.constant("bytes", np.array(256, np.int32))], f"{name}.byte")
            offset = self.constant("offset", (256 * np.arange(table.shape[0], dtype=np.int32)).reshape(along))
            index = self.node("Add", [byte, offset], f"{name}.row")
        values = self.constant(f"{name}.table", table.reshape(-1).astype(np.float32))
        self.store(out, self.node("Gather", [values, index], name, axis=0), perm)

    # Products ---------------------------------------------------------------------------------------------------------

    def weight(self, op: dict[str, Any], attrs: Any, params: Any, order: tuple[int, ...], axis: int) -> str:
        """Weights in ONNX's order: an int8 initializer through DequantizeLinear, or floats."""
        w, name = params["weight"].transpose(order), f"{op['name']}.weight"
        if "weight_scale" not in params:
            return self.constant(name, w)
        scale, zero = params["weight_scale"], attrs.get("weight_zero_point", 0)
        along = [1] * w.ndim
        if scale.size > 1:
            along[axis] = scale.size
        if not self.quantized:
            return self.constant(name, ((w.astype(np.float64) - zero) * scale.reshape(along)).astype(np.float32))
        one = scale.size == 1
        inputs = [
            self.constant(f"{name}_quantized", w),
            self.constant(f"{name}.scale", scale.reshape(()) if one else scale),
            self.constant(f"{name}.zero_point", np.full(() if one else scale.shape, zero, w.dtype)),
        ]
        return self.node("DequantizeLinear", inputs, name, **({} if one else {"axis": axis}))

    def bias(self, op: dict[str, Any], params: Any, ins: list[int]) -> str | None:
        """The bias: int32 through DequantizeLinear with scale s_x * s_w, or floats."""
        for role in ("float_bias", "bias"):
            if role in params and params[role].dtype == np.float32:
                return self.constant(f"{op['name']}.bias", params[role])
        if "bias" not in params:
            return None
        scale = (float(self.plan.scale(self.entry(ins[0]))) * params["weight_scale"].astype(np.float64)).astype(
            np.float32
        )
        bias, name = params["bias"], f"{op['name']}.bias"
        if not self.quantized:
            return self.constant(name, (bias * scale.astype(np.float64)).astype(np.float32))
        one = scale.size == 1
        inputs = [
            self.constant(f"{name}_quantized", bias),
            self.constant(f"{name}.scale", scale.reshape(()) if one else scale),
        ]
        return self.node("DequantizeLinear", inputs, name, **({} if one else {"axis": 0}))

    def finish(self, op: dict[str, Any], name: str, perm: Perm, ins: list[int], out: int) -> None:
        """Residual, clamp, result."""
        if len(ins) > 1:
            name = self.node("Add", [name, self.value(ins[1], perm).name], f"{op['name']}.sum")
        name = self.clamped(op, name)
        if op["op"].endswith("_bitserial"):
            export_levels.finish(self, op, self.params(op), name, perm)
        else:
            self.store(out, name, perm)

    def _conv2d(self, op: Any, attrs: Any, params: Any, ins: list[int], out: int) -> None:
        x = self.value(ins[0], NHWC)
        w = params["weight"]
        inputs = [x.name, self.weight(op, attrs, params, (0, 3, 1, 2), 0)]
        bias = self.bias(op, params, ins)
        if bias is not None:
            inputs.append(bias)
        name = self.node(
            "Conv",
            inputs,
            op["name"],
            kernel_shape=list(w.shape[1:3]),
            strides=attrs.get("strides", [1, 1]),
            pads=attrs.get("pads", [0, 0, 0, 0]),
            dilations=attrs.get("dilations", [1, 1]),
            group=attrs.get("groups", 1),
        )
        self.finish(op, name, NHWC, ins, out)

    def _gemm(self, op: Any, attrs: Any, params: Any, ins: list[int], out: int) -> None:
        rank = len(self.entry(out)["shape"])
        perm = tuple(range(rank))
        x = self.value(ins[0], perm)
        bias = self.bias(op, params, ins)
        if rank == 2:
            weight = self.weight(op, attrs, params, (0, 1), 0)
            name = self.node("Gemm", [x.name, weight, *([bias] if bias else [])], op["name"], transB=1)
        else:
            name = self.node("MatMul", [x.name, self.weight(op, attrs, params, (1, 0), 1)], op["name"])
            if bias:
                name = self.node("Add", [name, bias], f"{op['name']}.biased")
        self.finish(op, name, perm, ins, out)

    _binarize = export_bits.binarize
    _xnor_conv2d = export_bits.xnor_conv2d
    _xnor_gemm = export_bits.xnor_gemm
    _quantize_levels = export_levels.quantize_levels
    _dequantize_levels = export_levels.dequantize_levels

    # Arithmetic -------------------------------------------------------------------------------------------------------

    def _two(self, op: Any, kind: str, ins: list[int], out: int) -> None:
        perm = self.values[ins[0]].perm
        a, b = self.value(ins[0], perm), self.value(ins[1], perm)
        self.store(out, self.clamped(op, self.node(kind, [a.name, b.name], op["name"])), perm)

    def _add(self, op: Any, attrs: Any, params: Any, ins: list[int], out: int) -> None:
        self._two(op, "Add", ins, out)

    def _mul(self, op: Any, attrs: Any, params: Any, ins: list[int], out: int) -> None:
        self._two(op, "Mul", ins, out)

    def _binary(self, op: Any, attrs: Any, params: Any, ins: list[int], out: int) -> None:
        kind = attrs["kind"].capitalize()
        if len(ins) > 1:
            self._two(op, kind, ins, out)
            return
        v, b = self.values[ins[0]], params["b"]
        b = b.reshape((1,) * (len(v.perm) - b.ndim) + b.shape).transpose(inverse(v.perm))
        name = self.node(kind, [v.name, self.constant(f"{op['name']}.b", b)], op["name"])
        self.store(out, self.clamped(op, name), v.perm)

    def _unary(self, op: Any, attrs: Any, params: Any, ins: list[int], out: int) -> None:
        v, kind, name = self.values[ins[0]], attrs["kind"], op["name"]
        if kind in _SIMPLE:
            result = self.node(_SIMPLE[kind], [v.name], name)
        elif kind == "clip":
            bounds = [self.constant("bound", np.array(attrs[k], np.float32)) for k in ("alpha", "beta")]
            result = self.node("Clip", [v.name, *bounds], name)
        elif kind == "swish":
            result = self.node("Mul", [v.name, self.node("Sigmoid", [v.name], f"{name}.gate")], name)
        elif kind == "hard_sigmoid":
            result = self.node("HardSigmoid", [v.name], name, alpha=attrs["alpha"], beta=attrs["beta"])
        else:
            result = self.node("LeakyRelu", [v.name], name, alpha=attrs["alpha"])
        self.store(out, result, v.perm)

    def _prelu(self, op: Any, attrs: Any, params: Any, ins: list[int], out: int) -> None:
        v, slope = self.values[ins[0]], params["slope"]
        slope = slope.reshape((1,) * (len(v.perm) - 1) + slope.shape).transpose(inverse(v.perm))[0]
        self.store(out, self.node("PRelu", [v.name, self.constant(f"{op['name']}.slope", slope)], op["name"]), v.perm)

    def _softmax(self, op: Any, attrs: Any, params: Any, ins: list[int], out: int) -> None:
        v = self.values[ins[0]]
        self.store(out, self.node("Softmax", [v.name], op["name"], axis=v.perm[-1]), v.perm)

    # Windows ----------------------------------------------------------------------------------------------------------

    def _max_pool(self, op: Any, attrs: Any, params: Any, ins: list[int], out: int) -> None:
        x = self.value(ins[0], NHWC)
        pads, kernel = attrs.get("pads", [0, 0, 0, 0]), attrs["kernel"]
        name = x.name
        if any(p >= k for p, k in zip(pads, [*kernel, *kernel], strict=True)):  # ONNX wants pads below the kernel
            amounts = np.array([0, 0, pads[0], pads[1], 0, 0, pads[2], pads[3]], np.int64)
            lowest = self.constant("lowest", np.array(np.finfo(np.float32).min, np.float32))
            name = self.node("Pad", [name, self.constant("pads", amounts), lowest], f"{op['name']}.padded")
            pads = [0, 0, 0, 0]
        name = self.node(
            "MaxPool",
            [name],
            op["name"],
            kernel_shape=kernel,
            strides=attrs.get("strides", [1, 1]),
            pads=pads,
            dilations=attrs.get("dilations", [1, 1]),
        )
        self.store(out, export_bits.negated(self, op, params, name), NHWC)

    def _average_pool(self, op: Any, attrs: Any, params: Any, ins: list[int], out: int) -> None:
        x = self.value(ins[0], NHWC)
        kernel, stored = attrs["kernel"], self.entry(ins[0])["shape"]
        pads = attrs.get("pads", [0, 0, 0, 0])
        if kernel == stored[1:3] and not any(pads):
            name = self.node("GlobalAveragePool", [x.name], op["name"])
        else:
            name = self.node(
                "AveragePool",
                [x.name],
                op["name"],
                kernel_shape=kernel,
                strides=attrs.get("strides", [1, 1]),
                pads=pads,
                count_include_pad=int(attrs.get("count_include_pad", False)),
            )
        self.store(out, name, NHWC)

    def _resize(self, op: Any, attrs: Any, params: Any, ins: list[int], out: int) -> None:
        """Gathers of rows and columns, which hold for every coordinate mode."""
        x = self.value(ins[0], NHWC)
        name = op["name"]

        def take(v: str, role: str, axis: int) -> str:
            index = self.constant(f"{name}.{role}", params[role])
            return self.node("Gather", [v, index], f"{name}.{role}.taken", axis=axis)

        def mix(v: str, label: str, axis: int) -> str:
            a, b = take(v, f"{label}s0", axis), take(v, f"{label}s1", axis)
            shape = [1, 1, 1, 1]
            shape[axis] = -1
            weight = self.constant(f"{name}.{label}_weight", params[f"{label}_weight"].reshape(shape))
            step = self.node("Mul", [self.node("Sub", [b, a], f"{name}.difference"), weight], f"{name}.step")
            return self.node("Add", [a, step], f"{name}.mixed")

        if attrs["mode"] == "nearest":
            result = take(take(x.name, "rows", 2), "cols", 3)
        else:
            result = mix(mix(x.name, "col", 3), "row", 2)
        self.store(out, result, NHWC)

    # Moving data ------------------------------------------------------------------------------------------------------

    def _concat(self, op: Any, attrs: Any, params: Any, ins: list[int], out: int) -> None:
        perm = self.values[ins[0]].perm
        parts = [self.value(i, perm).name for i in ins]
        self.store(out, self.node("Concat", parts, op["name"], axis=perm[attrs["axis"]]), perm)

    def _transpose(self, op: Any, attrs: Any, params: Any, ins: list[int], out: int) -> None:
        v = self.values[ins[0]]
        self.values[out] = _Value(v.name, tuple(v.perm[p] for p in attrs["perm"]))
        if ins[0] in self.codes:
            self.codes[out] = _Value(self.codes[ins[0]].name, self.values[out].perm)

    def _reshape(self, op: Any, attrs: Any, params: Any, ins: list[int], out: int) -> None:
        v = self.value(ins[0], tuple(range(len(self.entry(ins[0])["shape"]))))
        shape = self.entry(out)["shape"]
        name = self.node("Reshape", [v.name, self.shape_constant(shape)], op["name"])
        self.store(out, name, tuple(range(len(shape))))

    def _slice(self, op: Any, attrs: Any, params: Any, ins: list[int], out: int) -> None:
        v, shape = self.values[ins[0]], self.entry(out)["shape"]
        starts, ends, axes, steps = [], [], [], []
        for i in range(1, len(shape)):
            start, step = attrs["starts"][i], attrs["steps"][i]
            end = start + step * shape[i]
            starts.append(start)
            ends.append(end if end >= 0 else -(1 << 30))
            axes.append(v.perm[i])
            steps.append(step)
        inputs = [
            self.constant(n, np.array(a, np.int64)) for n, a in zip("seat", (starts, ends, axes, steps), strict=True)
        ]
        self.store(out, self.node("Slice", [v.name, *inputs], op["name"]), v.perm)

    def _pad(self, op: Any, attrs: Any, params: Any, ins: list[int], out: int) -> None:
        v = self.values[ins[0]]
        order = inverse(v.perm)
        amounts = [attrs["before"][i] for i in order] + [attrs["after"][i] for i in order]
        value = self.constant("value", np.array(attrs.get("value", 0.0), np.float32))
        inputs = [v.name, self.constant("pads", np.array(amounts, np.int64)), value]
        self.store(out, self.node("Pad", inputs, op["name"]), v.perm)


def _open(shape: list[int]) -> list[Any]:
    return ["batch", *shape[1:]]
