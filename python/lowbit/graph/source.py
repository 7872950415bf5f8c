"""Where a network comes from: an ONNX file, a ModelProto, or a torch module."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lowbit.graph.net import Net


@dataclass
class Source:
    """An ONNX model, its origin for the manifest, and the float tensors that calibration may observe."""

    model: Any
    file: str
    sha256: str


def import_package() -> Any:
    """The onnx package.

    Raises:
        ImportError: naming the extra that brings it.
    """
    try:
        import onnx
    except ImportError as error:
        raise ImportError('reading ONNX networks needs the onnx package: pip install "lowbit[onnx]"') from error
    return onnx


def read(net: Any, example: Any = None) -> Source:
    """A network as an ONNX model.

    Args:
        net: path of an ONNX file, a ModelProto, or a torch.nn.Module.
        example: input (tensor, or tuple of tensors) for exporting a torch module.

    Raises:
        TypeError: for anything else.
        ValueError: where the file is no ONNX model, or a module comes without ``example``.
        FileNotFoundError: where there is no such file.
        ImportError: where onnx is missing.
    """
    onnx = import_package()
    if isinstance(net, onnx.ModelProto):
        raw = net.SerializeToString()
        return Source(_inlined(net), net.graph.name, hashlib.sha256(raw).hexdigest())
    if isinstance(net, str | os.PathLike):
        path = os.fspath(net)
        with open(path, "rb") as file:
            raw = file.read()
        try:
            model = onnx.load_model_from_string(raw)
            onnx.load_external_data_for_model(model, os.path.dirname(os.path.abspath(path)))
        except Exception as error:
            raise ValueError(f"{path}: not an ONNX model that can be read: {error}") from error
        if not model.graph.node and not model.graph.output:
            raise ValueError(f"{path}: not an ONNX model, or an empty one")
        return Source(_inlined(model), os.path.basename(path), hashlib.sha256(raw).hexdigest())
    if hasattr(net, "state_dict") and hasattr(net, "forward"):
        return _export_torch(net, example)
    raise TypeError(f"convert: a path, an onnx.ModelProto or a torch.nn.Module is needed, not {type(net).__name__}")


def _inlined(model: Any) -> Any:
    """The model with its local functions (as newer exporters write them) put in place."""
    if not model.functions:
        return model
    from onnx import inliner

    return inliner.inline_local_functions(model)


def _export_torch(module: Any, example: Any) -> Source:
    if example is None:
        raise ValueError("convert: a torch.nn.Module needs example=, an input to export it with")
    from lowbit.torch.lowering import to_onnx

    onnx = import_package()
    raw = to_onnx(module, example)
    return Source(onnx.load_model_from_string(raw), type(module).__name__, hashlib.sha256(raw).hexdigest())


def float_names(model: Any) -> set[str]:
    """Names of the graph's tensors that a calibration may know: inputs and node outputs."""
    initializers = {i.name for i in model.graph.initializer}
    names = {i.name for i in model.graph.input} - initializers
    for node in model.graph.node:
        names.update(o for o in node.output if o)
    return names


def build(model: Any, input_shapes: Mapping[str, Sequence[int | None]] | None = None) -> Net:
    """Import, fuse and name: the float network that precisions are assigned to.

    Raises:
        UnsupportedError: see ``import_onnx``.
        ValueError: where weights hold NaN or infinity.
    """
    from lowbit.graph import names
    from lowbit.graph.fuse import fuse
    from lowbit.graph.importer import import_onnx

    net = import_onnx(model, input_shapes)
    fuse(net)
    names.assign(net.layers)
    for layer in net.layers:
        for role, array in layer.params.items():
            if not np.isfinite(array).all():
                raise ValueError(f"layer {layer.name!r} ({layer.onnx_op}): its {role} holds NaN or infinity")
    return net


def tensors_to_calibrate(net: Any, input_shapes: Mapping[str, Sequence[int | None]] | None = None) -> list[str]:
    """Names of the ONNX tensors that still exist after fusion: all that a calibration of this network need observe.

    Args:
        net: path of an ONNX file or a ModelProto.
        input_shapes: sizes of axes that the file leaves open.

    Returns:
        Tensor names in execution order.
    """
    source = read(net)
    return calibrated_names(build(source.model, input_shapes), float_names(source.model))


def calibrated_names(net: Net, onnx_names: set[str]) -> list[str]:
    """``tensors_to_calibrate`` of a network that is built already."""
    tensors = [*(t for _, t in net.inputs), *(layer.output for layer in net.layers)]
    return list(dict.fromkeys(t.name for t in tensors if t.name in onnx_names))
