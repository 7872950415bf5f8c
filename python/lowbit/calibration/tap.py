"""An ONNX net whose inner tensors can be read: the graph cut and given more outputs, run by onnxruntime."""

from __future__ import annotations

import difflib
import hashlib
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowbit import _core

_NUMPY_TYPES = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(double)": "float64"}


class TappedNet:
    """A net whose activations are given batch by batch, in several runs of parts of it where memory asks for it.

    Args:
        net: path of an ONNX file, or an ``onnx.ModelProto``.
        tensors: names to give, default every float tensor that depends on an input.
        memory_limit: bytes that the outputs of one run may take.
        threads: onnxruntime's, default ``lowbit.num_threads()``.

    Attributes:
        tensors: the names, in the graph's order.
        input_shapes: the inputs' shapes, with names or None where a size is open.
        digest: sha256 of the file (or of the serialised ModelProto), without external data.
    """

    def __init__(
        self, net: Any, tensors: Sequence[str] | None = None, *, memory_limit: int = 1 << 30, threads: int | None = None
    ) -> None:
        if memory_limit <= 0:
            raise ValueError(f"calibrate: memory_limit {memory_limit} is not positive")
        self._onnx, self._ort = _import_onnx()
        self._model, self.digest = self._load(net)
        self._limit, self._threads = memory_limit, threads or _core.num_threads()
        initializers = {t.name for t in self._model.graph.initializer}
        self._inputs = [i for i in self._model.graph.input if i.name not in initializers]
        if not self._inputs or not self._model.graph.node:
            raise ValueError(
                f"calibrate: {net if isinstance(net, str | os.PathLike) else 'the net'} has no inputs or no nodes"
            )
        self.input_shapes = {i.name: _open_shape(i.type.tensor_type.shape) for i in self._inputs}
        self._producer = {o: n for n in self._model.graph.node for o in n.output if o}
        self.tensors = self._wanted(tensors)
        self._taps: list[tuple[list[str], Any]] = []
        self._planned: dict[str, int] = {}

    def feeds(self, batch: Any, where: str) -> dict[str, NDArray[Any]]:
        """The batch as arrays by input name, checked against the net's inputs."""
        if not isinstance(batch, Mapping):
            if len(self._inputs) != 1:
                names = ", ".join(repr(i.name) for i in self._inputs)
                raise ValueError(f"calibrate: {where} is one array, the net has inputs {names}: give a mapping")
            batch = {self._inputs[0].name: batch}
        if unknown := set(batch) - set(self.input_shapes):
            raise ValueError(
                f"calibrate: {where} names input {min(unknown)!r}, the net has {', '.join(self.input_shapes)}"
            )
        feeds = {}
        for info in self._inputs:
            if info.name not in batch:
                raise ValueError(f"calibrate: {where} lacks input {info.name!r}")
            feeds[info.name] = self._checked(info, batch[info.name], where)
        return feeds

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> Iterator[tuple[str, NDArray[Any]]]:
        """Every wanted tensor and its value, one tap after the other."""
        for name in self.tensors:
            if name in feeds:
                yield name, feeds[name]
        sizes = {name: array.size for name, array in feeds.items()}
        if any(size > self._planned.get(name, 0) for name, size in sizes.items()):
            self._taps = [(names, self._session(names)) for names in self._plan(feeds)]
            self._planned = sizes
        for names, session in self._taps:
            taken = {i.name: feeds[i.name] for i in session.get_inputs()}
            yield from zip(names, session.run(names, taken), strict=True)

    @property
    def taps(self) -> list[list[str]]:
        """The tensors of each tap, known after the first run."""
        return [names for names, _ in self._taps]

    def _load(self, net: Any) -> tuple[Any, str]:
        if isinstance(net, self._onnx.ModelProto):
            return net, hashlib.sha256(net.SerializeToString(deterministic=True)).hexdigest()
        if not isinstance(net, str | os.PathLike):
            raise TypeError(f"calibrate: net is a {type(net).__name__}, not a path or an onnx.ModelProto")
        raw = Path(net).read_bytes()
        try:
            return self._onnx.load(os.fspath(net)), hashlib.sha256(raw).hexdigest()
        except Exception as e:  # protobuf's DecodeError, onnx's checks of external data
            raise ValueError(f"calibrate: {net} is not an ONNX file: {e}") from e

    def _wanted(self, tensors: Sequence[str] | None) -> list[str]:
        if isinstance(tensors, str):
            raise TypeError("calibrate: tensors is a string, not a sequence of names")
        if tensors is None:
            return self._float_activations()
        names = list(dict.fromkeys(tensors))
        known = [*self.input_shapes, *self._producer]
        for name in names:
            if name not in known:
                close = difflib.get_close_matches(name, known, 1)
                raise ValueError(f"calibrate: the net has no tensor {name!r}" + (f"; {close[0]!r}?" if close else ""))
        return names

    def _float_activations(self) -> list[str]:
        """Inputs and nodes' outputs that depend on an input and are float, in the graph's order."""
        depend = set(self.input_shapes)
        for node in self._model.graph.node:
            if any(i in depend for i in node.input) or any(a.HasField("g") or a.graphs for a in node.attribute):
                depend.update(o for o in node.output if o)
        types = self._element_types(depend)
        return [n for n in [*self.input_shapes, *self._producer] if n in depend and types[n] in _NUMPY_TYPES]

    def _element_types(self, names: Iterable[str]) -> dict[str, str]:
        """Onnxruntime's type of each tensor: it knows every one that it can run."""
        outputs = [n for n in self._producer if n in names]
        types = {o.name: o.type for o in self._session(outputs).get_outputs()} if outputs else {}
        for i in self._inputs:
            types[i.name] = _type_name(self._onnx, i)
        return types

    def _checked(self, info: Any, value: Any, where: str) -> NDArray[Any]:
        array = value if isinstance(value, np.ndarray) else _as_array(value)
        expected = self._onnx.helper.tensor_dtype_to_np_dtype(info.type.tensor_type.elem_type)
        if array.dtype != expected:
            raise TypeError(f"calibrate: {where}, input {info.name!r} is {array.dtype}, the net takes {expected}")
        shape = self.input_shapes[info.name]
        fits = array.ndim == len(shape) and all(
            not isinstance(want, int) or want == have for want, have in zip(shape, array.shape, strict=True)
        )
        if not fits:
            raise ValueError(f"calibrate: {where}, input {info.name!r} has shape {array.shape}, the net takes {shape}")
        return array

    def _plan(self, feeds: Mapping[str, NDArray[Any]]) -> list[list[str]]:
        """Neighbours go to one tap until its outputs would exceed the limit."""
        names = [n for n in self._producer if n in set(self.tensors)]
        sizes = self._sizes(feeds)
        unknown = max(sizes.values(), default=0)  # as large as the largest
        taps: list[list[str]] = []
        taken = math.inf
        for name in names:
            size = sizes.get(name, unknown)
            if taken + size > self._limit:
                taps.append([])
                taken = 0
            taps[-1].append(name)
            taken += size
        return taps

    def _sizes(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, int]:
        """Bytes of each tensor for these inputs, where shape inference knows them."""
        shapes = self._onnx.ModelProto()
        shapes.CopyFrom(self._model)
        del shapes.graph.value_info[:]
        for i in shapes.graph.input:
            if i.name in feeds:
                i.CopyFrom(
                    self._onnx.helper.make_tensor_value_info(i.name, i.type.tensor_type.elem_type, feeds[i.name].shape)
                )
        for o in shapes.graph.output:
            o.type.tensor_type.ClearField("shape")
        try:
            shapes = self._onnx.shape_inference.infer_shapes(shapes, data_prop=True)
        except Exception:  # a guess for planning; onnxruntime is the judge of the net
            return {}
        sizes = {}
        for info in [*shapes.graph.value_info, *shapes.graph.output]:
            dims = _open_shape(info.type.tensor_type.shape)
            kind = _NUMPY_TYPES.get(_type_name(self._onnx, info))
            if kind and all(isinstance(d, int) for d in dims):
                sizes[info.name] = math.prod(dims) * np.dtype(kind).itemsize
        return sizes

    def _session(self, names: Sequence[str]) -> Any:
        """A session on what these tensors need and nothing else."""
        graph = self._model.graph
        need, nodes = set(names), []
        for node in reversed(graph.node):
            if need.intersection(node.output):
                nodes.append(node)
                need.update(node.input)
                need.update(_captured(node))
        onnx = self._onnx
        outputs = [onnx.ValueInfoProto(name=n) for n in names]
        tapped = onnx.helper.make_graph(
            nodes[::-1], graph.name or "tapped", [i for i in self._inputs if i.name in need], outputs
        )
        tapped.initializer.extend(t for t in graph.initializer if t.name in need)
        tapped.sparse_initializer.extend(t for t in graph.sparse_initializer if t.values.name in need)
        model = onnx.ModelProto()
        model.ir_version = self._model.ir_version
        model.opset_import.extend(self._model.opset_import)
        model.functions.extend(self._model.functions)
        model.graph.CopyFrom(tapped)
        options = self._ort.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.log_severity_level = 3
        # As written: fusion would round differently with other taps, and the table must not depend on memory_limit.
        options.graph_optimization_level = self._ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        # Between two runs the histograms want the cores that onnxruntime's threads would spin on.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            return self._ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        except Exception as e:
            raise ValueError(f"calibrate: onnxruntime refuses the net: {e}") from e


def _import_onnx() -> tuple[Any, Any]:
    try:
        import onnx
        import onnx.helper
        import onnx.shape_inference
        import onnxruntime
    except ImportError as e:
        raise ImportError(f'calibrate: {e.name} is missing: pip install "lowbit[onnx]"') from e
    return onnx, onnxruntime


def _as_array(value: Any) -> NDArray[Any]:
    return np.from_dlpack(value) if hasattr(value, "__dlpack__") else np.asarray(value)


def _open_shape(shape: Any) -> list[Any]:
    return [d.dim_value if d.HasField("dim_value") else d.dim_param or None for d in shape.dim]


def _type_name(onnx: Any, info: Any) -> str:
    kinds = {onnx.TensorProto.FLOAT: "tensor(float)", onnx.TensorProto.FLOAT16: "tensor(float16)"}
    kinds[onnx.TensorProto.DOUBLE] = "tensor(double)"
    return kinds.get(info.type.tensor_type.elem_type, "other")


def _captured(node: Any) -> set[str]:
    """Names that a node's subgraphs (If, Loop, Scan) may take from outside."""
    names: set[str] = set()
    for attribute in node.attribute:
        for graph in [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]:
            for inner in graph.node:
                names.update(inner.input)
                names |= _captured(inner)
            names.update(o.name for o in graph.output)
    return names
