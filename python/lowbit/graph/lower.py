"""Net to plan: the operations of docs/format.md, with quantize, dequantize and look-ups where precisions meet."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from lowbit.compression.coded import CodedWeights
from lowbit.graph import pointwise_math
from lowbit.graph.codebook import code_int8, coded_parts, write_codebook
from lowbit.graph.few_bits import least_bits, pack_weights
from lowbit.graph.fit_levels import fit_levels
from lowbit.graph.lower_bits import BitLayers
from lowbit.graph.lower_planes import PlaneLayers
from lowbit.graph.net import BATCH, NHWC, Array, Layer, Net, Shape, Tensor
from lowbit.graph.plan import Plan, PlanBuilder
from lowbit.graph.precision import CodeParams, Ranges, Scales, choose_domains, leave_unknown_in_float, passes_scale
from lowbit.graph.recipe import Recipe, assign_recipes
from lowbit.graph.weights import given_codes, mean_shift, quantize_bias, quantize_weights

_TO_NHWC = [0, 2, 3, 1]


def lower(
    net: Net,
    recipe: Recipe,
    ranges: Any = None,
    overrides: Mapping[str, Any] | None = None,
    rounding: str | None = None,
    onnx_names: frozenset[str] | set[str] = frozenset(),
    images: Mapping[str, Array] | None = None,
) -> Plan:
    """Assign precisions and write the plan.

    Args:
        net: fused, named layers.
        recipe: the default.
        ranges: calibration table, or mapping of ONNX tensor name -> (lo, hi); None where no layer needs it.
        overrides: pattern -> recipe (see ``assign_recipes``).
        rounding: overrides the recipes' own.
        onnx_names: tensors of the ONNX graph; a plan tensor that stands for one of them says so.
        images: input name -> float64 (c, 256), the real value of every raw byte per channel: that input takes raw NHWC
        bytes.

    Raises:
        ValueError: where a pattern matches nothing or a tensor has no range.
    """
    recipes, forced = assign_recipes(net, recipe, overrides, rounding)
    net, recipes = fit_levels(net, recipes, forced, Ranges(ranges))
    return Lowering(net, recipe, recipes, forced, Ranges(ranges), onnx_names, images or {}).run()


class Lowering:
    """One walk over the layers; every tensor is written in the forms that its readers ask for."""

    def __init__(
        self,
        net: Net,
        default: Recipe,
        recipes: list[Recipe],
        forced: set[str],
        ranges: Ranges,
        onnx_names: frozenset[str] | set[str],
        images: Mapping[str, Array],
    ):
        self.net = net
        self.bits = BitLayers(net, recipes, forced)
        self.planes = PlaneLayers(net, self.bits.recipes, forced)
        recipes = self.planes.recipes
        if default.is_binary or default.is_leveled:
            default = default.for_the_rest()
        self.recipe = dict(zip(net.layers, recipes, strict=True))
        self.consumers = net.consumers()
        self.producers = net.producers()
        self.outputs = net.output_tensors()
        self.onnx_names = onnx_names
        self.ranges = ranges
        self.images = images
        self.domain = choose_domains(net, recipes, forced)
        self.domain |= self.bits.domains(self.domain) | self.planes.domains()
        self.scales = Scales(net, self.domain, recipes, default, ranges)
        own_scales = net.quantized and ranges.table is None
        if leave_unknown_in_float(
            net, self.domain, lambda t: (t.name in onnx_names and not own_scales) or self.scales.known(t)
        ):
            self.scales = Scales(net, self.domain, recipes, default, ranges)
        self.builder = PlanBuilder()
        self.form: dict[tuple[Tensor, str], int] = {}
        self.params: dict[int, CodeParams] = {}
        self.waiting: dict[Tensor, Layer] = {}  # float transposes that nobody asked for yet
        self.chained: dict[Tensor, list[Layer]] = {}  # look-ups that their only reader will absorb

    # Tensors ----------------------------------------------------------------------------------------------------------

    def describe(self, t: Tensor) -> dict[str, Any]:
        """What a plan tensor says about the ONNX tensor that it stands for."""
        if t.name not in self.onnx_names or t.flat is not None:
            return {}
        if t.rank == 4 and t.perm == NHWC:
            return {"source": t.name, "layout": "NHWC"}
        return {"source": t.name} if t.is_plain else {}

    def float_tensor(self, name: str, t: Tensor, shape: Shape | None = None) -> int:
        """A new float32 plan tensor for t."""
        return self.builder.tensor(name, "float32", shape or t.shape, **(self.describe(t) if shape is None else {}))

    def code_tensor(self, name: str, t: Tensor, params: CodeParams) -> int:
        """A new code tensor for t."""
        index = self.builder.tensor(
            name, params.dtype, t.shape, scale=params.scale, zero_point=params.zero_point, **self.describe(t)
        )
        self.params[index] = params
        return index

    def as_float(self, t: Tensor) -> int:
        """T as float32."""
        if (t, "float") not in self.form:
            if t in self.waiting:
                layer = self.waiting.pop(t)
                self._emit_plain(layer, [self.as_float(layer.inputs[0])], self.float_tensor(layer.name, t))
            elif (t, "bits") in self.form:
                self.form[t, "float"] = self.bits.as_float(self, t)
            elif (t, "planes") in self.form:
                self.form[t, "float"] = self.planes.as_float(self, t)
            else:
                codes = self.form[t, "codes"]
                index = self.float_tensor(f"{t.name}.float", t)
                self.builder.op("dequantize", [codes], index)
                self.form[t, "float"] = index
        return self.form[t, "float"]

    def as_codes(self, t: Tensor, bits: int | None = None) -> int:
        """T as codes with its own parameters, or as codes of so many bits."""
        params = self.scales.of(t, bits)
        form = "codes" if params == self.scales.of(t) else f"codes of {bits} bits"
        if (t, form) not in self.form:
            if (t, "codes") in self.form:
                self.form[t, form] = self.with_params(self.form[t, "codes"], t, params)
            else:
                index = self.code_tensor(f"{t.name}.codes", t, params)
                source, attrs = self._image_source(t)
                attrs |= _code_clamp(params, {})
                self.builder.op("quantize", [source], index, attrs)
                self.form[t, form] = index
        return self.form[t, form]

    def as_dynamic(self, t: Tensor) -> int:
        """T as uint8 with a scale found at run time."""
        if (t, "dynamic") not in self.form:
            index = self.builder.tensor(f"{t.name}.dynamic", "uint8", t.shape, dynamic=True, **self.describe(t))
            source, attrs = self._image_source(t)
            self.builder.op("quantize_dynamic", [source], index, attrs)
            self.form[t, "dynamic"] = index
        return self.form[t, "dynamic"]

    def _image_source(self, t: Tensor) -> tuple[int, dict[str, Any]]:
        """What to quantize to get t: an NCHW tensor whose transposition quantize does in passing, or t itself."""
        layer = self.waiting.get(t)
        if layer is not None and t.rank == 4 and layer.attrs["perm"] == _TO_NHWC:
            return self.as_float(layer.inputs[0]), {"nchw_to_nhwc": True}
        return self.as_float(t), {}

    def with_params(self, index: int, t: Tensor, params: CodeParams) -> int:
        """Codes ``index`` as codes with other parameters, by look-up where they differ."""
        if self.params[index] == params or _same_codes(self.params[index], params):
            return index
        out = self.code_tensor(f"{self.builder.tensors[index]['name']}.rescaled", t, params)
        table = _table(lambda x: x, self.params[index], params)
        self.builder.op("lookup", [index], out, params={"table": table})
        return out

    def wants_codes(self, t: Tensor) -> bool:
        """Whether some reader runs on codes."""
        return any(self.domain[c] == "codes" for c in self.consumers.get(t, []))

    # The walk ---------------------------------------------------------------------------------------------------------

    def run(self) -> Plan:
        """Write the plan."""
        for layer in self.net.layers:
            self.builder.reserve(layer.name)
        inputs = []
        for name, t in self.net.inputs:
            if name in self.images:
                inputs.append(self._raw_input(name, t))
                continue
            index = self.builder.tensor(name, "float32", t.shape, **self.describe(t))
            self.form[t, "float"] = index
            inputs.append(index)
        for name, _ in self.net.outputs:  # the names that the outputs will have
            if name not in self.builder._tensor_names:
                self.builder._tensor_names.add(name)
        for layer in self.net.layers:
            self._layer(layer)
        self.taken = set(inputs)
        outputs = [self._output(name, t) for name, t in self.net.outputs]
        return self.builder.finish(inputs, outputs)

    def _output(self, name: str, t: Tensor) -> int:
        index = self.as_float(t)
        entry = self.builder.tensors[index]
        if index in self.taken:  # an input, or an output already
            copy = self.float_tensor(name, t)
            self.builder.op("reshape", [index], copy)
            index, entry = copy, self.builder.tensors[copy]
        entry["name"] = name
        self.taken.add(index)
        return index

    def _layer(self, layer: Layer) -> None:
        domain, t = self.domain[layer], layer.output
        if domain == "done":
            return
        if domain == "bits":
            self.bits.write(self, layer)
        elif domain == "planes":
            self.planes.write(self, layer)
        elif domain == "float":
            if layer.op == "transpose":
                self.waiting[t] = layer
            elif layer.op == "identity":
                self.form[t, "float"] = self.as_float(layer.inputs[0])
            else:
                self._float(layer)
        elif layer.is_mac:
            self._mac(layer, domain == "dynamic")
        elif pointwise_math.is_elementwise(layer) or layer.op == "identity":
            self._lookup(layer)
        elif passes_scale(layer):
            self._passing(layer)
        else:
            self._codes(layer)

    def _emit_plain(self, layer: Layer, inputs: list[int], out: int) -> None:
        attrs = {k: v for k, v in layer.attrs.items() if v is not None}
        self.builder.op(layer.op, inputs, out, attrs, layer.params, name=layer.name)
        self.form[layer.output, "float" if out not in self.params else "codes"] = out

    def _float(self, layer: Layer) -> None:
        inputs = [self.as_float(t) for t in layer.inputs]
        out = self.float_tensor(layer.name, layer.output)
        if layer.scale_map is not None:
            self._scaled_product(layer, inputs, out)
        elif layer.is_mac and self.recipe[layer].weight in ("codebook", "uniform"):
            write_codebook(self.builder, layer, inputs, out, self.recipe[layer], self.ranges.mean(layer.inputs[0]))
            self.form[layer.output, "float"] = out
        elif layer.is_mac:
            self.builder.op(f"{layer.op}_f32", inputs, out, dict(layer.attrs), layer.params, name=layer.name)
            self.form[layer.output, "float"] = out
        else:
            self._emit_plain(layer, inputs, out)

    def _scaled_product(self, layer: Layer, inputs: list[int], out: int) -> None:
        """A float product times a map, plus bias and residual, one operation each."""
        attrs = {k: v for k, v in layer.attrs.items() if k not in ("input_scale", "min", "max")}
        clamp = {k: v for k, v in layer.attrs.items() if k in ("min", "max")}
        steps: list[tuple[str, list[int], dict[str, Array]]] = [("mul", [inputs[-1]], {})]
        if "bias" in layer.params:
            steps.append(("add", [], {"b": layer.params["bias"]}))
        if layer.residual is not None:
            steps.append(("add", [inputs[1]], {}))
        index = self.float_tensor(f"{layer.name}.sums", layer.output, layer.output.shape)
        weight = {"weight": layer.params["weight"]}
        self.builder.op(f"{layer.op}_f32", inputs[:1], index, attrs, weight, name=layer.name)
        for i, (kind, others, params) in enumerate(steps):
            last = i + 1 == len(steps)
            y = out if last else self.float_tensor(f"{layer.name}.{kind}", layer.output, layer.output.shape)
            self.builder.op("binary", [index, *others], y, {"kind": kind, **(clamp if last else {})}, params)
            index = y
        self.form[layer.output, "float"] = out

    def _mac(self, layer: Layer, dynamic: bool) -> None:
        recipe, t, x = self.recipe[layer], layer.output, layer.inputs[0]
        source = self.as_dynamic(x) if dynamic else self.as_codes(x, recipe.activation_bits)
        to_codes = not dynamic and recipe.output == "auto" and self.wants_codes(t)
        weight, bias = layer.params["weight"], layer.params.get("bias")
        depthwise = layer.attrs.get("groups", 1) == weight.shape[0] == x.shape[-1] and layer.attrs.get("groups", 1) > 1
        attrs = {k: v for k, v in layer.attrs.items() if k not in ("min", "max")}
        params: dict[str, Array] = {}
        input_params = None if dynamic else self.params[source]
        coded: CodedWeights | None = None
        given = None if recipe.weight == "codebook" else given_codes(layer, depthwise)
        if given is not None:
            params["weight"], params["weight_scale"], zero = given
            if zero:
                attrs["weight_zero_point"] = zero
        else:
            reach = (
                255
                if input_params is None
                else max(abs(c - input_params.zero_point) for c in (input_params.lo, input_params.hi))
            )
            s_x = None if input_params is None else input_params.scale
            per_channel = recipe.weight == "int8"
            if recipe.weight == "codebook":
                coded, params["weight_scale"] = layer.remembered(
                    ("codebook int8", s_x, reach, recipe.bits, recipe.per, recipe.huffman),
                    lambda: code_int8(layer, recipe, bias, s_x, reach),
                )
                params["weight"] = coded.weights().astype(np.int8)
            else:
                limit = 1 << (30 if recipe.rounding == "nearest_even" else 22)
                params["weight"], params["weight_scale"] = layer.remembered(
                    ("int8", per_channel, s_x, reach, recipe.bits, limit),
                    lambda: quantize_weights(weight, per_channel, bias, s_x, reach, recipe.bits, limit),
                )
        if given is None and (mean := self.ranges.mean(x)) is not None:
            shift = mean_shift(layer, mean, params["weight"], params["weight_scale"])
            bias = (shift if bias is None else bias + shift).astype(np.float32)
        if bias is not None and input_params is None:
            params["float_bias"] = bias.astype(np.float32)
        elif bias is not None and input_params is not None:
            params["bias"] = quantize_bias(bias, input_params.scale, params["weight_scale"])
        bits = recipe.bits if given is None else least_bits(params["weight"])
        if bits < 8 and coded is None and "weight_zero_point" not in attrs:
            attrs |= {"bits": bits} | ({"kernel": list(weight.shape[1:3])} if layer.op == "conv2d" else {})
            params["weight"] = pack_weights(params["weight"], bits)
        inputs = [source]
        if len(layer.inputs) > 1:
            inputs.append(self.as_codes(layer.inputs[1]) if to_codes else self.as_float(layer.inputs[1]))
        if to_codes:
            y = self.scales.of(t)
            out = self.code_tensor(layer.name, t, y)
            attrs |= _code_clamp(y, layer.attrs)
            if recipe.rounding != "nearest_even":
                attrs["rounding"] = recipe.rounding
        else:
            out = self.float_tensor(layer.name, t)
            attrs |= {k: float(v) for k, v in layer.attrs.items() if k in ("min", "max")}
        if coded is not None:
            more, streams = coded_parts(coded, recipe.huffman)
            attrs |= more
            params |= streams | {"codebook": coded.codebook.astype(np.int8)}
        self.builder.op(layer.op + "_codebook" * (coded is not None), inputs, out, attrs, params, name=layer.name)
        self.form[t, "codes" if to_codes else "float"] = out

    def _lookup(self, layer: Layer) -> None:
        """An elementwise layer; those before it that only it reads are part of the same table."""
        x, t = layer.inputs[0], layer.output
        chain = [*self.chained.pop(x, []), layer]
        readers = self.consumers.get(t, [])
        if (
            len(readers) == 1
            and t not in self.outputs
            and self.domain[readers[0]] == "codes"
            and pointwise_math.is_elementwise(readers[0])
        ):
            self.chained[t] = chain
            return
        source = self.as_codes(chain[0].inputs[0])
        y = self.scales.of(t)
        out = self.code_tensor(layer.name, t, y)
        channels = max(pointwise_math.channels(link) for link in chain)

        def function(v: Array) -> Array:
            for link in chain:
                if link.op != "identity":
                    v = pointwise_math.apply(link, v)
            return v

        self.builder.op(
            "lookup",
            [source],
            out,
            params={"table": _table(function, self.params[source], y, channels)},
            name=layer.name,
        )
        self.form[t, "codes"] = out

    def _passing(self, layer: Layer) -> None:
        """A layer whose output codes mean what its input's do."""
        t = layer.output
        wanted = self.scales.of(t)
        if layer.op == "concat":
            inputs = [self.with_params(self.as_codes(x), x, wanted) for x in layer.inputs]
        else:
            inputs = [self.as_codes(layer.inputs[0])]
        params = self.params[inputs[0]]
        out = self.code_tensor(layer.name, t, params)
        self._emit_plain(layer, inputs, out)
        self.form[t, "codes"] = self.with_params(out, t, wanted)

    def _codes(self, layer: Layer) -> None:
        """add, mul, average_pool, linear resize."""
        t = layer.output
        y = self.scales.of(t)
        inputs = [self.as_codes(x) for x in layer.inputs]
        out = self.code_tensor(layer.name, t, y)
        rounding = self.recipe[layer].rounding
        fixed = {} if rounding == "nearest_even" or layer.op == "resize" else {"rounding": rounding}
        if layer.op == "binary":
            attrs = _code_clamp(y, layer.attrs) | fixed
            self.builder.op(layer.attrs["kind"], inputs, out, attrs, name=layer.name)
        else:
            self.builder.op(layer.op, inputs, out, layer.attrs | fixed, layer.params, name=layer.name)
        self.form[t, "codes"] = out

    def _raw_input(self, name: str, t: Tensor) -> int:
        """Raw NHWC bytes: one look-up gives the codes, or the floats, of the preprocessed image."""
        values = self.images[name]
        readers = self.consumers.get(t, [])
        image = readers[0].output if readers and readers[0].op in ("transpose", "reshape") else t
        if len(readers) != 1 or image.rank != 4 or (image.perm != NHWC and image is not t):
            raise ValueError(f"input_dtype='uint8': input {name!r} is not an image read by one layer; use float32")
        _, h, w, c = image.shape
        if values.shape != (c, 256):
            raise ValueError(
                f"input_dtype='uint8': preprocessing for {values.shape[0]} channels, input {name!r} has {c}"
            )
        raw = self.builder.tensor(name, "uint8", (BATCH, h, w, c))
        if image is not t:
            self.domain[readers[0]] = "done"
        if self.wants_codes(image):
            y = self.scales.of(image)
            self.form[image, "codes"] = out = self.code_tensor(f"{name}.codes", image, y)
            table: Array = _encode(values, y)
        else:
            self.form[image, "float"] = out = self.float_tensor(f"{name}.float", image)
            table = values.astype(np.float32)
        self.builder.op("lookup", [raw], out, params={"table": table})
        return raw


def _same_codes(a: CodeParams, b: CodeParams) -> bool:
    return (a.scale, a.zero_point, a.dtype) == (b.scale, b.zero_point, b.dtype)


def _code_clamp(params: CodeParams, attrs: Mapping[str, Any]) -> dict[str, int]:
    """Lo and hi of output codes: a fused clamp, or what differs from the type's range."""
    lo = params.code(attrs["min"]) if "min" in attrs else params.lo
    hi = params.code(attrs["max"]) if "max" in attrs else params.hi
    full = (-128, 127) if params.dtype == "int8" else (0, 255)
    asked = ("min" in attrs, "max" in attrs)
    return {k: v for k, v, f, a in zip(("lo", "hi"), (lo, hi), full, asked, strict=True) if a or v != f}


def _encode(values: Array, y: CodeParams) -> Any:
    """Codes of real values."""
    f = np.nan_to_num(np.rint(values / y.scale), nan=y.lo - y.zero_point, posinf=math.inf, neginf=-math.inf)
    return (np.clip(f, y.lo - y.zero_point, y.hi - y.zero_point) + y.zero_point).astype(y.dtype)


def _table(function: Any, x: CodeParams, y: CodeParams, channels: int = 1) -> Array:
    """Output code for every input byte, (256) or (channels, 256): ``function`` in float64 on the code's real value."""
    byte = np.arange(256)
    codes = byte.astype(np.uint8).view(np.int8).astype(np.float64) if x.dtype == "int8" else byte.astype(np.float64)
    real = np.float64(np.float32(x.scale)) * (codes - x.zero_point)
    values = np.broadcast_to(function(np.repeat(real[:, None], channels, axis=1)), (256, channels))
    table: Array = np.ascontiguousarray(_encode(values, y).T)
    return table[0] if channels == 1 else table
