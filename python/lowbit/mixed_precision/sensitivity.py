"""How much each layer suffers in each precision, and how good a whole assignment is.

The error of an assignment is what the network's outputs lose against the float network's on sample data. Of one layer
alone it is measured with all the others in float; that of a whole assignment is predicted as the sum over its layers,
as if their errors did not know of each other (which holds the better the smaller they are).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import lowbit
from lowbit.atomic import write_aside
from lowbit.mixed_precision.assignments import Assignment
from lowbit.mixed_precision.latency import Progress
from lowbit.mixed_precision.space import Space

__all__ = ["Evaluator", "divergence", "noise", "sensitivities"]

Array = NDArray[Any]
Errors = dict[str, dict[str, float]]
_FORMAT = "lowbit sensitivities"
_BATCH = 32


def noise(reference: Array, outputs: Array) -> float:
    """Squared error of the outputs relative to their variance: the inverse of the signal-to-noise ratio.

    Example:
        >>> noise(np.float32([[1.0, -1.0]]), np.float32([[1.0, -0.9]])).__round__(4)
        0.005
    """
    signal = np.square(reference - reference.mean(), dtype=np.float64).sum()
    return float(np.square(outputs - reference, dtype=np.float64).sum() / max(signal, 1e-30))


def divergence(reference: Array, outputs: Array) -> float:
    """Mean Kullback-Leibler divergence, in nats, of the classes' probabilities from the float network's.

    Example:
        >>> divergence(np.float32([[0.0, 0.0]]), np.float32([[0.0, 1.0]])).__round__(4)
        0.1201
    """
    p, q = _log_softmax(reference), _log_softmax(outputs)
    return max(float((np.exp(p) * (p - q)).sum(axis=-1).mean()), 0.0)


def _log_softmax(x: Array) -> Array:
    x = x.astype(np.float64)
    x = x - x.max(axis=-1, keepdims=True)
    return np.asarray(x - np.log(np.exp(x).sum(axis=-1, keepdims=True)))


_METRICS = {"divergence": divergence, "noise": noise}


class Evaluator:
    """Runs assignments on sample data on the engine.

    Args:
        space: layers and choices.
        inputs: network inputs, float32.
        labels: classes of the inputs; without them the float network's answers count as right.
        calibration: ``CalibrationTable``, or a mapping of tensor name -> (lo, hi); by default one is made from the
            first 256 inputs.
        metric: ``divergence``, ``noise``, or a function of (float outputs, outputs); by default the divergence where
            the output is a row of at least two scores, the noise elsewhere.
        threads: of the engine.

    Raises:
        ValueError: no inputs, or another number of labels.

    Example:
        >>> from importlib.resources import files
        >>> from lowbit.mixed_precision.space import Space
        >>> space = Space(str(files("lowbit.demo") / "fashion.onnx"), ["float32", "int8"])
        >>> images = np.random.default_rng(0).random((8, 1, 28, 28), np.float32)
        >>> evaluator = Evaluator(space, images)
        >>> evaluator.error(space.uniform("int8")) < 0.01
        True
    """

    def __init__(
        self,
        space: Space,
        inputs: Array,
        labels: Array | None = None,
        *,
        calibration: Any = None,
        metric: Any = None,
        threads: int | None = None,
    ) -> None:
        if not len(inputs):
            raise ValueError("search: there is no data to judge by")
        if labels is not None and len(labels) != len(inputs):
            raise ValueError(f"search: {len(inputs)} inputs and {len(labels)} labels")
        self.space, self.inputs, self.threads = space, np.ascontiguousarray(inputs, np.float32), threads
        table = _calibrated(space, self.inputs) if calibration is None else calibration
        self.ranges: Any = _Remembering(table) if hasattr(table, "qparams") else table
        in_float = dict.fromkeys(space.choices, "float32")
        self.reference = self.outputs(in_float)
        classes = self.reference.ndim == 2 and self.reference.shape[1] > 1
        self.labels = self.reference.argmax(axis=-1) if labels is None else np.asarray(labels).astype(np.int64)
        name = metric or ("divergence" if classes else "noise")
        if isinstance(name, str) and name not in _METRICS:
            raise ValueError(f"search: error metric {name!r} is not one of {', '.join(_METRICS)}")
        self.metric = name if isinstance(name, str) else getattr(name, "__name__", "custom")
        self._error = _METRICS[name] if isinstance(name, str) else name

    def model(self, assignment: Assignment) -> Any:
        """The ``lowbit.Model`` of an assignment."""
        return lowbit.Model(self.space.plan(assignment, self.ranges))

    def outputs(self, assignment: Assignment) -> Array:
        """The network's (first) output on all inputs."""
        model = self.model(assignment)
        parts = []
        for start in range(0, len(self.inputs), _BATCH):
            y = model.run(self.inputs[start : start + _BATCH], threads=self.threads)
            parts.append(np.asarray(next(iter(y.values())) if isinstance(y, dict) else y))
        return np.concatenate(parts)

    def error(self, assignment: Assignment) -> float:
        """What the outputs lose against the float network's; at least 0."""
        return float(self._error(self.reference, self.outputs(assignment)))

    def accuracy(self, assignment: Assignment) -> float:
        """Percent of right answers; of the float network's answers where there are no labels."""
        return self.judge(assignment)[0]

    def judge(self, assignment: Assignment) -> tuple[float, float]:
        """Accuracy and error from one run."""
        y = self.outputs(assignment)
        right = y.argmax(axis=-1) == (self.labels if self.labels.ndim else self.labels[None])
        return 100.0 * float(np.mean(right)), float(self._error(self.reference, y))

    @property
    def digest(self) -> str:
        """SHA-256 of the inputs."""
        return hashlib.sha256(self.inputs.tobytes()).hexdigest()


class _Remembering:
    """A calibration whose thresholds are searched once, not for every assignment."""

    def __init__(self, calibration: Any) -> None:
        self._calibration = calibration
        self._known: dict[tuple[Any, ...], Any] = {}

    def __contains__(self, name: object) -> bool:
        return name in self._calibration

    def __getattr__(self, attribute: str) -> Any:
        found = getattr(self._calibration, attribute)
        if not callable(found):
            return found

        def call(*args: Any, **options: Any) -> Any:
            key = (attribute, args, tuple(sorted(options.items())))
            if key not in self._known:
                self._known[key] = found(*args, **options)
            return self._known[key]

        return call


def _calibrated(space: Space, inputs: Array) -> Any:
    from lowbit.graph.source import calibrated_names

    names = calibrated_names(space.net, space.onnx_names)
    return lowbit.calibrate(
        space.model, [inputs[i : i + _BATCH] for i in range(0, min(len(inputs), 256), _BATCH)], tensors=names
    )


def sensitivities(
    evaluator: Evaluator, path: str | os.PathLike[str] | None = None, progress: Progress | None = None
) -> Errors:
    """The error of every layer in each of its precisions, all others in float.

    Args:
        evaluator: space, data and metric.
        path: JSON file that keeps what was measured: an interrupted run goes on where it was, a later one is done at
            once, and further choices are added.
        progress: called as ``progress(stage, done, total)``.

    Returns:
        layer -> precision -> error.

    Raises:
        ValueError: the file belongs to another network, other data or another metric.
        lowbit.FormatError: the file is damaged.

    Example:
        >>> from importlib.resources import files
        >>> from lowbit.mixed_precision.space import Space
        >>> space = Space(str(files("lowbit.demo") / "fashion.onnx"), ["float32", "codebook:2"])
        >>> images = np.random.default_rng(0).random((8, 1, 28, 28), np.float32)
        >>> found = sensitivities(Evaluator(space, images))
        >>> all(e["float32"] == 0 < e["codebook:2"] for e in found.values())
        True
    """
    space = evaluator.space
    about = {
        "net": space.sha256,
        "data": evaluator.digest,
        "metric": evaluator.metric,
        "calibration": str(getattr(evaluator.ranges, "digest", "ranges")),
    }
    known = _load(path, about) if path is not None and Path(path).exists() else {}
    in_float = dict.fromkeys(space.choices, "float32")
    wanted = [(name, c) for name, options in space.choices.items() for c in options if c not in known.get(name, {})]
    for done, (name, choice) in enumerate(wanted):
        error = 0.0 if choice == "float32" else evaluator.error({**in_float, name: choice})
        if not np.isfinite(error):
            raise ValueError(f"search: layer {name!r} in {choice} gives outputs that are no numbers")
        known.setdefault(name, {})[choice] = error
        if path is not None and (done % 16 == 15 or done == len(wanted) - 1):
            with write_aside(Path(path)) as aside:
                aside.write_text(json.dumps({"format": _FORMAT, "version": 1, **about, "errors": known}, indent=1))
        if progress:
            progress("sensitivity", done + 1, len(wanted))
    return {name: {c: known[name][c] for c in options} for name, options in space.choices.items()}


def _load(path: str | os.PathLike[str], about: Mapping[str, str]) -> Errors:
    try:
        data = json.loads(Path(path).read_text())
        if data["format"] != _FORMAT or data["version"] != 1:
            raise ValueError(f"format {data['format']!r}, version {data['version']!r}")
        errors = {str(n): {str(c): float(e) for c, e in of.items()} for n, of in data["errors"].items()}
        there = {key: str(data[key]) for key in about}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise lowbit.FormatError(f"{path}: not a file of sensitivities: {error}") from None
    for key, value in about.items():
        if there[key] != value:
            raise ValueError(f"{path}: these sensitivities are of another {key}; give another file or delete it")
    return errors
