"""``Model``: a low-bit network that runs on the C++ engine."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowbit import _core
from lowbit.container import read_container, to_bytes, write_container
from lowbit.graph.plan import Plan
from lowbit.graph.summary import Row, rows, table

__all__ = ["Model", "load"]


class Model:
    """A network in few bits: its plan, its weights, and the engine that runs them.

    Made by ``lowbit.convert`` and ``lowbit.load``. Immutable but for ``manifest``; ``run`` may be called from several
    threads (one call at a time for each pair of threads and isa; ``session`` gives independent ones).

    Attributes:
        plan: what the file says (docs/format.md): ``plan.data``, and the file's tensors ``plan.tensors``.
        manifest: recipe, source, calibration, preprocessing; free-form.
    """

    def __init__(self, plan: Plan, manifest: Mapping[str, Any] | None = None, *, _core_model: Any = None):
        self.plan = plan
        self.manifest: dict[str, Any] = {"lowbit": _version(), **(manifest or {})}
        self._model = _core_model or _core.Model.from_bytes(to_bytes(plan.tensors, plan.data, self.manifest))
        self._sessions: dict[tuple[int | None, str | None], Any] = {}
        self._lock = threading.Lock()

    @property
    def inputs(self) -> list[tuple[str, str, tuple[int, ...]]]:
        """(name, dtype, shape) of every input; -1 is the batch."""
        return list(self._model.inputs())

    @property
    def outputs(self) -> list[tuple[str, str, tuple[int, ...]]]:
        """(name, dtype, shape) of every output; -1 is the batch."""
        return list(self._model.outputs())

    def session(
        self,
        threads: int | None = None,
        isa: str | None = None,
        *,
        keep_tensors: bool = False,
        profile: bool = False,
    ) -> Any:
        """A session of its own: working memory for one run at a time.

        Args:
            threads: default ``lowbit.num_threads()``.
            isa: level, default the best.
            keep_tensors: keep every tensor after a run, for ``session.tensor(index)``.
            profile: measure each operation, for ``session.op_ms()``.

        Returns:
            A session with ``run(dict) -> dict``.
        """
        return _core.Session(self._model, threads=threads, isa=isa, keep_tensors=keep_tensors, profile=profile)

    def run(self, x: Any, *, threads: int | None = None, isa: str | None = None) -> Any:
        """Run the network.

        Args:
            x: the input, or a dict of them where the network has several: float32 (or uint8 for raw images), in the
                imported network's layout, any batch size. NumPy, or anything with ``__dlpack__`` or ``__array__``.
            threads: default ``lowbit.num_threads()``.
            isa: level, default the best. Integer layers give the same result on every level.

        Returns:
            The output, or a dict of them where the network has several.

        Raises:
            ValueError: a missing or unknown input, or a wrong shape; names it.
            TypeError: a wrong dtype.

        Example:
            >>> import numpy as np, lowbit
            >>> from lowbit.graph.plan import PlanBuilder
            >>> builder = PlanBuilder()
            >>> x, y = (builder.tensor(n, "float32", (-1, 3)) for n in "xy")
            >>> builder.op("unary", [x], y, {"kind": "relu"})
            >>> lowbit.Model(builder.finish([x], [y])).run(np.float32([[-1, 0, 2]]))
            array([[0., 0., 2.]], dtype=float32)
        """
        names = [name for name, _, _ in self.inputs]
        if isinstance(x, Mapping):
            given = {name: _as_array(value) for name, value in x.items()}
        elif len(names) == 1:
            given = {names[0]: _as_array(x)}
        else:
            raise ValueError(f"run: the network has inputs {', '.join(names)}; give a dict")
        key = (threads, isa)
        with self._lock:
            if key not in self._sessions:
                self._sessions[key] = self.session(threads, isa)
            session = self._sessions[key]
        results: dict[str, NDArray[Any]] = session.run(given)
        return next(iter(results.values())) if len(results) == 1 else results

    __call__ = run

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a ``.lowbit`` file: aside first, then renamed.

        Raises:
            OSError: where it cannot be written; no partial file stays.
        """
        write_container(path, self.plan.tensors, self.plan.data, self.manifest)

    def to_bytes(self) -> bytes:
        """The bytes that ``save`` writes."""
        return to_bytes(self.plan.tensors, self.plan.data, self.manifest)

    def layers(self) -> list[Row]:
        """What ``summary`` shows, as data."""
        return rows(self.plan)

    def summary(self) -> str:
        """A table: layer, op, precision of weights, activations and output, bytes, MACs, bytes moved (for one item)."""
        return table(rows(self.plan))

    def export_onnx(self, path: str | os.PathLike[str] | None = None, form: str = "qdq") -> Any:
        """The network as ONNX, for other engines.

        Args:
            path: where to write it; None only returns it.
            form: ``qdq`` (QuantizeLinear and DequantizeLinear around float operators, weights as int8) or ``float``
                (weights dequantized, activations not quantized).

        Returns:
            The onnx.ModelProto.

        Raises:
            ValueError: where form is neither, or the plan has something that ONNX cannot say.
            ImportError: where onnx is missing.
        """
        from lowbit.graph.export import export_onnx

        model = export_onnx(self.plan, form)
        if path is not None:
            from lowbit.graph.export import write

            write(model, path)
        return model

    def __repr__(self) -> str:
        shapes = ", ".join(f"{n} {tuple(s)}" for n, _, s in self.inputs)
        return f"Model({self.manifest.get('recipe', 'plan')}, {len(self.plan.ops)} ops, input {shapes})"


def load(path: str | os.PathLike[str]) -> Model:
    """Open a ``.lowbit`` file.

    Args:
        path: the file.

    Returns:
        Model.

    Raises:
        lowbit.FormatError: where anything in the file is wrong; names what and where.
        OSError: where it cannot be read.

    Example:
        >>> import numpy as np, lowbit, pathlib, tempfile
        >>> from importlib.resources import files
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "fashion.lowbit"
        >>> lowbit.convert(str(files("lowbit.demo") / "fashion.onnx"), recipe="int8-dynamic").save(path)
        >>> lowbit.load(path).run(np.zeros((3, 1, 28, 28), np.float32)).shape
        (3, 10)
    """
    with open(path, "rb") as file:
        raw = file.read()
    core = _core.Model.from_bytes(raw)  # checks everything
    tensors, data, manifest = read_container(raw)
    return Model(Plan(data, dict(tensors)), manifest, _core_model=core)


def _version() -> str:
    from lowbit import __version__

    return __version__


def _as_array(value: Any) -> NDArray[Any]:
    if isinstance(value, np.ndarray):
        return value
    if hasattr(value, "__dlpack__"):
        return np.from_dlpack(value)
    return np.asarray(value)
