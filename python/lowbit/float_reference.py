"""The float network beside which low-bit ones are judged: onnxruntime, with any tensor tapped and every node timed."""

from __future__ import annotations

import json
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
MAC_OPS = ("Conv", "Gemm", "MatMul", "ConvTranspose")


def onnxruntime() -> Any:
    """The onnxruntime module; ImportError naming the extra where it is missing."""
    try:
        import onnxruntime as module
    except ImportError:
        raise ImportError('the float network needs onnxruntime: pip install "lowbit[onnx]"') from None
    return module


class FloatNet:
    """An ONNX file run by onnxruntime.

    Args:
        path: The file.
        threads: Worker threads.
        taps: Names of inner tensors that `tap` returns.
        profile: Let `node_ms` time every node.

    Raises:
        ValueError: onnxruntime cannot load the file.
    """

    def __init__(
        self, path: str | Path, *, threads: int = 1, taps: list[str] | None = None, profile: bool = False
    ) -> None:
        ort = onnxruntime()
        if not Path(path).is_file():
            raise FileNotFoundError(f"{path}: no such file")
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._folder = tempfile.TemporaryDirectory(prefix="lowbit-") if profile else None
        if self._folder:
            options.enable_profiling = True
            options.profile_file_prefix = str(Path(self._folder.name) / "ort")
        self.path = str(path)
        self._taps = taps or []
        try:
            source: Any = _prepared(path, self._taps) if self._taps or profile else str(path)
            self.session = ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's own exceptions derive from Exception alone
            raise ValueError(f"{path}: onnxruntime cannot load it: {str(error).splitlines()[0]}") from None
        self.inputs: list[str] = [i.name for i in self.session.get_inputs()]
        self.outputs: list[str] = [o.name for o in self.session.get_outputs()]  # taps stand behind the file's own

    @property
    def fixed_batch(self) -> int | None:
        """The batch size that the file allows, None where any will do."""
        first = self.session.get_inputs()[0].shape[0]
        return first if isinstance(first, int) else None

    def run(self, x: Array) -> Array:
        """First input to first output, in pieces where the file fixes its batch size."""
        size = self.fixed_batch
        if size is None or size == len(x):
            return np.asarray(self._run(self.outputs[:1], x)[0])
        if len(x) % size:
            raise ValueError(f"{self.path}: its batch size is fixed to {size}, which does not divide {len(x)} images")
        return np.concatenate([self._run(self.outputs[:1], x[i : i + size])[0] for i in range(0, len(x), size)])

    def tap(self, x: Array) -> dict[str, Array]:
        """The tapped tensors for one batch."""
        return dict(zip(self._taps, self._run(self._taps, x), strict=True))

    def _run(self, names: list[str], x: Array) -> list[Array]:
        try:
            return [np.asarray(y) for y in self.session.run(names, {self.inputs[0]: x})]
        except Exception as error:
            raise ValueError(f"{self.path}: onnxruntime: {str(error).splitlines()[0]}") from None

    def node_ms(self) -> dict[str, float]:
        """Ends profiling: node name (onnxruntime's suffixes removed) -> median ms over the runs made."""
        if not self._folder:
            raise ValueError("node_ms needs FloatNet(profile=True)")
        events = json.loads(Path(self.session.end_profiling()).read_text())
        self._folder.cleanup()
        durations: dict[tuple[str, str], list[float]] = {}
        for event in events:
            if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
                name = re.sub(r"^fused |(_nchwc)?_kernel_time$", "", event["name"])
                durations.setdefault((name, event["args"].get("op_name", "")), []).append(event["dur"] / 1000)
        # A node and a layout change that onnxruntime put beside it share a name; their times add up.
        out: dict[str, float] = {}
        for (name, _), values in durations.items():
            out[name] = out.get(name, 0.0) + float(np.median(values))
        return out


def _prepared(path: str | Path, taps: list[str]) -> bytes:
    """The file with more outputs, and with every node named by what it writes, so that timings can be told apart.

    Names in files need not differ; what nodes write must.
    """
    import onnx

    model = onnx.load(str(path))
    for node in model.graph.node:
        node.name = next(name for name in node.output if name)
    have = {o.name for o in model.graph.output}
    for name in taps:
        if name not in have:
            model.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    return bytes(model.SerializeToString())


def float_tensors(path: str | Path) -> set[str]:
    """Names of a file's inputs and of everything that its nodes write."""
    import onnx

    graph = onnx.load(str(path), load_external_data=False).graph
    return {i.name for i in graph.input} | {name for node in graph.node for name in node.output if name}


@dataclass(frozen=True)
class Multiplication:
    """A convolution or matrix product of an ONNX file: the tensors it reads and writes."""

    input: str
    output: str


def multiplications(path: str | Path) -> tuple[list[Multiplication], dict[str, str]]:
    """The convolutions and matrix products of a file, and which of them each node may be fused into.

    Returns:
        The multiplications in file order; and name of a node, or of one of its outputs (``_prepared`` names nodes
        so) -> output tensor of the latest multiplication whose result reaches it. Multiplications map to
        themselves; nodes before the first are absent.
    """
    import onnx

    found: list[Multiplication] = []
    owner: dict[str, str] = {}
    position: dict[str, int] = {}
    for i, node in enumerate(onnx.load(str(path), load_external_data=False).graph.node):
        if node.op_type in MAC_OPS:
            mine = node.output[0]
            position[mine] = i
            found.append(Multiplication(node.input[0], mine))
        else:
            mine = max((owner[t] for t in node.input if t in owner), key=position.__getitem__, default="")
        if mine:
            owner.update(dict.fromkeys([n for n in (node.name, *node.output) if n], mine))
    return found, owner


def match(path: str | Path, ends: dict[str, tuple[str, str]]) -> dict[str, str]:
    """Finds the multiplication behind each layer of a plan.

    Args:
        path: ONNX file.
        ends: Layer -> the ONNX tensors that its input and its output stand for, fused activations included.

    Returns:
        Layer -> output tensor of its multiplication; layers that cannot be told apart are absent.
    """
    found, owner = multiplications(path)
    readers: dict[str, list[str]] = {}
    for one in found:
        readers.setdefault(one.input, []).append(one.output)
    matched: dict[str, str] = {}
    for layer, (start, _) in ends.items():  # first those that only one multiplication can be
        if len(readers.get(start, [])) == 1:
            matched[layer] = readers[start][0]
    for layer, (_, end) in ends.items():
        if layer not in matched and owner.get(end) and owner[end] not in matched.values():
            matched[layer] = owner[end]
    return matched
