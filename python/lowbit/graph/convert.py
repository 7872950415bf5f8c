"""``lowbit.convert``: a float network in, a low-bit Model out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lowbit.graph import source as sources
from lowbit.graph.lower import lower
from lowbit.graph.net import NHWC, Array, Net
from lowbit.graph.recipe import Recipe, parse_recipe

if TYPE_CHECKING:
    from lowbit.model import Model

Overrides = Mapping[str, str | Mapping[str, str]]


def convert(
    net: Any,
    recipe: str | Mapping[str, str] = "int8",
    calibration: Any = None,
    overrides: Overrides | None = None,
    rounding: str | None = None,
    *,
    example: Any = None,
    input_shapes: Mapping[str, Sequence[int | None]] | None = None,
    method: str | None = None,
    preprocessing: Any = None,
    input_dtype: str = "float32",
    max_drop: float | None = None,
    data: tuple[Any, Any] | None = None,
    evaluate: Callable[[Model], float] | None = None,
    progress: Callable[[str, int, int | None], None] | None = None,
) -> Model:
    """Quantize a trained float network.

    Args:
        net: path of an ONNX file (opset 11 or newer), an ``onnx.ModelProto``, or a ``torch.nn.Module`` with
        ``example``.
            A file that is quantized already (QDQ or QOperator) keeps its scales and weight codes.
        recipe: ``int8`` (symmetric, a weight scale per output channel), ``int8-tensor`` (one weight scale),
            ``int8-affine`` (uint8 activations with zero points, integer-only), ``int8-dynamic`` (no calibration),
            ``xnor`` (products of +-1 activations and weights on bits, the rest in float; ``xnor-int8``: the rest in
            int8), ``codebook:B``, ``int:W/A`` (W-bit weights and A-bit activations, 2 to 8, see docs/int8.md; A = 32:
            weights alone, no calibration), ``lq`` and ``lq:W/A`` (levels of a basis, 1 to 4 bits, on planes of bits,
            see docs/lq.md), ``float32``, or a dict with ``weight``, ``activation``, ``output``, ``rounding``.
        calibration: ``CalibrationTable``, or batches for ``lowbit.calibrate``, or a mapping of ONNX tensor name ->
            (lo, hi). Not needed by ``int8-dynamic``, ``float32`` and quantized files.
        overrides: pattern -> recipe for single layers. A pattern matches canonical layer names by ``re.fullmatch``, or
            operators as ``op:Gemm``; the first that matches wins.
        rounding: ``nearest_even``, ``gemmlowp`` or ``single``; None takes the recipe's (``gemmlowp`` for
            ``int8-affine``, else ``nearest_even``).
        example: input (or tuple) that a torch module is exported with.
        input_shapes: input name -> shape, for axes that the file leaves open; the batch stays open always. Without
            it the size of ``preprocessing``, or the shape of the first batch, fills them in.
        method: observer for batches, see ``lowbit.calibrate``; ``mse`` by default, which keeps the ImageNet nets within
            a point.
        preprocessing: ``lowbit.Preprocessing`` or a dict with its fields; kept in the file, needed by raw images.
        input_dtype: ``float32``, or ``uint8``: the input takes raw NHWC pixels in the order of the network's channels,
            with scale, mean and std folded into one look-up.
        max_drop: keep layers in float32, worst first, until the loss against the float network is at most this: in
            percentage points of top-1 accuracy with ``data``, in units of ``evaluate`` otherwise.
        data: (inputs, labels) for ``max_drop``.
        evaluate: function of a Model that gives a figure of merit, for ``max_drop``.
        progress: called as ``progress(stage, done, total)``.

    Returns:
        Model.

    Raises:
        UnsupportedError: the network uses something that is not supported; names node and operator.
        ValueError: an unknown recipe, a pattern that matches nothing, a tensor without a range, ...
        ImportError: where onnx (or onnxruntime, for batches) is missing.

    Example:
        >>> import numpy as np, lowbit
        >>> from onnx import TensorProto, helper, numpy_helper
        >>> x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", 2]) for n in "xy")
        >>> w = numpy_helper.from_array(np.float32([[1, 0], [0.5, -1]]), "fc.weight")
        >>> fc = helper.make_node("Gemm", ["x", "fc.weight"], ["y"], transB=1)
        >>> graph = helper.make_graph([fc], "g", [x], [y], [w])
        >>> net = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
        >>> model = lowbit.convert(net, calibration={"x": (-1.27, 1.27)})
        >>> model.run(np.float32([[0.5, 1.0]])).round(2)
        array([[ 0.5 , -0.75]], dtype=float32)
    """
    from lowbit.model import Model

    default = parse_recipe(recipe, rounding)
    if input_dtype not in ("float32", "uint8"):
        raise ValueError(f"convert: input_dtype {input_dtype!r} is neither 'float32' nor 'uint8'")
    if max_drop is not None and (data is None) == (evaluate is None):
        raise ValueError("convert: max_drop needs data=(inputs, labels) or evaluate=, one of them")
    source = sources.read(net, example)
    prepared = _as_dict(preprocessing)
    built = sources.build(source.model, input_shapes or _shapes(source.model, prepared, calibration, data))
    names = sources.float_names(source.model)
    images = _images(built, prepared, preprocessing) if input_dtype == "uint8" else None
    table = _table(source, built, names, calibration, default, overrides, method, progress)
    manifest: dict[str, Any] = {
        "recipe": recipe if isinstance(recipe, str) else dict(recipe),
        "source": source.file,
        "source_sha256": source.sha256,
        "input_dtype": input_dtype,
    }
    if rounding is not None:
        manifest["rounding"] = rounding
    if prepared:
        manifest["preprocessing"] = prepared
    if hasattr(table, "digest"):
        manifest["calibration"] = {"sha256": table.digest, "method": table.method, "samples": table.samples}

    def make(chosen: Overrides | None, base: Recipe = default, raw: bool = False) -> Model:
        plan = lower(built, base, table, chosen, rounding, names, images if raw else None)
        return Model(plan, manifest | ({"overrides": dict(chosen)} if chosen else {}))

    if max_drop is None:
        return make(overrides, raw=True)
    from lowbit.graph.fallback import fall_back

    chosen, note = fall_back(built, make, dict(overrides or {}), max_drop, data, evaluate, progress)
    manifest["max_drop"] = note
    return make(chosen, raw=True)


def _shapes(model: Any, prepared: dict[str, Any], calibration: Any, data: Any) -> dict[str, list[int | None]] | None:
    """Sizes for an image input that the file leaves open, from what else is known."""
    initializers = {i.name for i in model.graph.initializer}
    inputs = [i for i in model.graph.input if i.name not in initializers]
    if len(inputs) != 1:
        return None
    dims = [d.dim_value or None for d in inputs[0].type.tensor_type.shape.dim]
    if None not in dims[1:]:
        return None
    if len(dims) == 4 and "size" in prepared:
        size = prepared["size"]
        h, w = (size, size) if isinstance(size, int) else size
        if prepared.get("layout") == "NHWC":
            return {inputs[0].name: [None, int(h), int(w), dims[3]]}
        return {inputs[0].name: [None, dims[1], int(h), int(w)]}
    first = data[0] if data is not None else calibration
    if isinstance(first, Sequence) and first:
        first = first[0]
    shape = getattr(first, "shape", ())
    return {inputs[0].name: [None, *shape[1:]]} if len(shape) == len(dims) else None


def _as_dict(preprocessing: Any) -> dict[str, Any]:
    if preprocessing is None:
        return {}
    if isinstance(preprocessing, Mapping):
        return dict(preprocessing)
    return dict(preprocessing.to_dict())


def _images(net: Net, fields: dict[str, Any], given: Any) -> dict[str, Array]:
    """Real value of every byte per channel, (pixel * scale - mean) / std, for the one image input."""
    if given is None or not {"scale", "mean", "std"} & set(fields):
        raise ValueError("convert: input_dtype='uint8' needs preprocessing= with scale, or mean and std")
    if len(net.inputs) != 1 or net.inputs[0][1].rank != 4:
        raise ValueError("convert: input_dtype='uint8' needs a network with one image input")
    name, t = net.inputs[0]
    readers = net.consumers().get(t, [])
    image = readers[0].output if len(readers) == 1 and readers[0].op in ("transpose", "reshape") else t
    channels = image.shape[-1] if image.perm == NHWC or image is t else t.shape[1]
    values = np.tile(np.arange(256.0), (channels, 1))

    def column(value: Any) -> Array:
        return np.broadcast_to(np.ravel(np.asarray(value, np.float64)), (channels,))[:, None]

    values = values * float(fields.get("scale", 1.0))
    try:
        values = (values - column(fields.get("mean", 0.0))) / column(fields.get("std", 1.0))
    except ValueError:
        raise ValueError(
            f"convert: preprocessing's mean and std do not fit the {channels} channels of {name!r}"
        ) from None
    return {name: values}


def _table(
    source: sources.Source,
    net: Net,
    names: set[str],
    calibration: Any,
    default: Recipe,
    overrides: Overrides | None,
    method: str | None,
    progress: Callable[[str, int, int | None], None] | None,
) -> Any:
    """A calibration as something that gives ranges by name; batches are run through the float network."""
    used = [default, *(parse_recipe(r) for r in (overrides or {}).values())]
    if calibration is None:
        brought = net.quantized or any(layer.op == "levels" for layer in net.layers)
        if any(r.needs_ranges for r in used) and not brought:
            raise ValueError(
                f"convert: recipe {default.name!r} needs calibration=: a CalibrationTable, or batches of sample inputs "
                "(or use recipe 'int8-dynamic', which needs none)"
            )
        return None
    if hasattr(calibration, "qparams"):
        return calibration
    if isinstance(calibration, Mapping) and not any(isinstance(v, np.ndarray) for v in calibration.values()):
        return calibration
    from lowbit import calibrate

    options: dict[str, Any] = {"method": method or "mse"}
    if progress is not None:
        report = progress
        options["progress"] = lambda done, total: report("calibrate", done, total)
    return calibrate(source.model, calibration, tensors=sources.calibrated_names(net, names), **options)
