"""A float network and its low-bit version side by side: accuracy, error per layer, bytes, time, estimated energy."""

from __future__ import annotations

import platform
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import lowbit
from lowbit.compression import size_steps
from lowbit.data import Dataset
from lowbit.float_reference import FloatNet, float_tensors, match, multiplications, onnxruntime
from lowbit.graph.summary import Row, weight_count
from lowbit.layer_errors import LayerErrors, Ratio, multiplying
from lowbit.report import LayerReport, Report, Threshold
from lowbit.report.notes import exclusions, notes
from lowbit.timing import interleaved

Array = NDArray[Any]
Progress = Callable[[str, int, int | None], None]

# Picojoules at 45 nm: Horowitz, ISSCC 2014. A float32 multiplication and addition; an 8-bit multiplication and a 32-bit
# integer addition (what a dot product really adds); 64 bits from a 1 MB cache.
MAC_FLOAT_PJ, MAC_INT8_PJ, CACHE_PJ_PER_BYTE = 3.7 + 0.9, 0.2 + 0.1, 100 / 8
MAC_BITS_PJ = 0.03 / 8  # an eighth of an 8-bit addition
DATA_BATCH = 16


def compare(
    onnx: str | Path,
    model: Any,
    images: Any,
    labels: Any = None,
    *,
    threads: int | None = None,
    batch: int = 1,
    calibration: Any = None,
    sqnr_images: int = 16,
    seconds: float = 1.0,
    progress: Progress | None = None,
) -> Report:
    """Runs both networks on the same images and says what the bits cost and bring.

    Args:
        onnx: Path of the float network, run by onnxruntime.
        model: The `lowbit.Model`, or the path of a ``.lowbit`` file.
        images: Network inputs (n, ...) float32, an iterable of batches of them, or a `lowbit.data.Dataset`. A network
            that takes raw pixels needs a Dataset of images, so that each network gets its own form of them.
        labels: (n,) class numbers; without them accuracies are left out. A Dataset brings its own.
        threads: For both engines; default ``lowbit.num_threads()``.
        batch: Images per run in the timings.
        calibration: The `CalibrationTable` that converted the network: adds histograms and thresholds to the report.
        sqnr_images: Images for the errors per layer; 0 leaves them out.
        seconds: Measuring time for each engine.
        progress: Called as ``progress(stage, done, total)``.

    Returns:
        A `Report`: print it, or use its ``to_html`` and ``to_json``.

    Raises:
        ValueError: No images, labels that do not match, a network with several inputs, images of the wrong shape.
        TypeError: Images that are not float32.
        ImportError: onnx or onnxruntime is missing; names the extra.

    Example:
        >>> from importlib.resources import files
        >>> net = str(files("lowbit.demo") / "fashion.onnx")
        >>> images = np.random.default_rng(0).normal(size=(20, 1, 28, 28)).astype(np.float32)
        >>> model = lowbit.convert(net, recipe="int8", calibration=[images])
        >>> report = lowbit.compare(net, model, images, sqnr_images=0, seconds=0.05)
        >>> report.agreement > 50
        True
    """
    if batch < 1 or sqnr_images < 0 or seconds <= 0:
        raise ValueError(f"compare: batch {batch}, sqnr_images {sqnr_images}, seconds {seconds}")
    low_name = "the model"
    if isinstance(model, str | Path):
        low_name, model = Path(model).name, lowbit.load(model)
    say = progress or (lambda stage, done, total: None)
    workers = threads or lowbit.num_threads()
    reference = FloatNet(onnx, threads=workers)
    if len(model.inputs) != 1 or len(reference.inputs) != 1:
        raise ValueError(f"compare: one input needed, {onnx} has {reference.inputs}, the model {len(model.inputs)}")

    source = Feed(images, labels, raw=model.inputs[0][1] == "uint8", fixed=reference.fixed_batch)
    judged = Judge()
    for float_x, low_x in source.pairs(DATA_BATCH):
        judged.add(reference.run(float_x), first(model.run(low_x, threads=threads)))
        say("answers", judged.images, source.total)
    accuracy_float, accuracy = judged.accuracies(source.labels)

    errors, output_ratio, probed = None, None, 0
    if sqnr_images:
        errors, output_ratio, probed = layer_errors(reference, model, source, sqnr_images, threads, say)

    float_x, low_x = source.repeated(batch)
    say("timing", 0, 2)
    timings = interleaved(
        {"float": lambda: reference.run(float_x), "low": lambda: model.run(low_x, threads=threads)}, seconds
    )
    say("timing", 1, 2)
    float_ms, low_ms = layer_times(onnx, model, float_x, low_x, workers)
    say("timing", 2, 2)

    layers, others = describe(onnx, model, float_ms, low_ms, errors)
    energies = [estimated_energy(model, as_float=True), estimated_energy(model, as_float=False)]
    report = Report(
        net=Path(onnx).name,
        model=low_name,
        recipe=str(model.manifest.get("recipe", "unknown recipe")),
        cpu=lowbit.cpu_name(),
        level=lowbit.best_isa(),
        threads=workers,
        batch=batch,
        images=judged.images,
        accuracy_float=accuracy_float,
        accuracy=accuracy,
        agreement=100 * judged.same / judged.images,
        file_bytes_float=Path(onnx).stat().st_size,
        file_bytes=len(model.to_bytes()),
        ms_float=timings["float"].median,
        ms=timings["low"].median,
        ms_float_min=timings["float"].min,
        ms_min=timings["low"].min,
        runs=min(t.runs for t in timings.values()),
        energy_float=energies[0],
        energy=energies[1],
        sqnr_images=probed,
        layers=layers,
        others=others,
        size_steps=size_steps(model.plan),
        sqnr_output=output_ratio.dB if output_ratio else None,
        thresholds=[] if calibration is None else thresholds(model, calibration),
        versions={
            "lowbit": lowbit.__version__,
            "onnxruntime": str(onnxruntime().__version__),
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
    )
    report.notes, report.exclusions = notes(report), exclusions(report)
    return report


def first(result: Any) -> Array:
    """The first output of a network that may have several."""
    return np.asarray(next(iter(result.values())) if isinstance(result, Mapping) else result)


class Feed:
    """The same images for both networks, from an array, batches or a Dataset."""

    def __init__(self, images: Any, labels: Any, raw: bool, fixed: int | None) -> None:
        self._images, self._raw, self._fixed = images, raw, fixed
        self._head: list[tuple[Array, Array]] = []
        if raw and not isinstance(images, Dataset):
            raise ValueError("compare: the model takes raw uint8 pixels: give images as a lowbit.data.Dataset")
        if isinstance(images, np.ndarray) and images.dtype != np.float32:
            raise TypeError(f"compare: images are {images.dtype}, but must be float32 network inputs")
        self.total = len(images) if isinstance(images, np.ndarray | Dataset) else None
        if labels is None and isinstance(images, Dataset):
            labels = images.labels
        self.labels = None if labels is None else np.asarray(labels)

    def pairs(self, size: int) -> Iterator[tuple[Array, Array]]:
        """(float input, low-bit input), batch by batch; the first ones are remembered."""
        size = max(size // self._fixed, 1) * self._fixed if self._fixed else size
        for pair in self._pairs(size):
            if sum(len(x) for x, _ in self._head) < 64:
                self._head.append(pair)
            yield pair

    def _pairs(self, size: int) -> Iterator[tuple[Array, Array]]:
        if isinstance(self._images, Dataset):
            if self._raw:
                for pixels in self._images.raw_batches(size):
                    yield self._images.preprocessing.normalise(pixels), pixels
                return
            batches: Iterable[Array] = self._images.batches(size)
        elif isinstance(self._images, np.ndarray):
            batches = (self._images[i : i + size] for i in range(0, len(self._images), size))
        else:
            batches = self._images
        for x in batches:
            x = np.ascontiguousarray(x)
            if x.dtype != np.float32:
                raise TypeError(f"compare: images are {x.dtype}, but must be float32 network inputs")
            yield x, x

    def repeated(self, batch: int) -> tuple[Array, Array]:
        """One batch of the given size from the first images, repeated where there are too few."""
        columns = [np.concatenate(column) for column in zip(*self._head, strict=True)]
        return tuple(np.ascontiguousarray(c[np.arange(batch) % len(c)]) for c in columns)  # type: ignore[return-value]

    def head(self, count: int, size: int) -> Iterator[tuple[Array, Array]]:
        """The first images again, in small batches."""
        floats, lows = (np.concatenate(column) for column in zip(*self._head, strict=True))
        size = self._fixed or size
        for i in range(0, min(count, len(floats)) // size * size or size, size):
            yield floats[i : i + size], lows[i : i + size]


class Judge:
    """Top-1 answers of both networks."""

    def __init__(self) -> None:
        self.images = self.same = 0
        self._answers: tuple[list[Array], list[Array]] = ([], [])

    def add(self, float_scores: Array, low_scores: Array) -> None:
        """One batch of scores (n, classes), or maps (n, ...) whose last axis is taken as classes."""
        answers = [np.asarray(s).reshape(len(s), -1).argmax(1) for s in (float_scores, low_scores)]
        self.same += int((answers[0] == answers[1]).sum())
        self.images += len(answers[0])
        for kept, new in zip(self._answers, answers, strict=True):
            kept.append(new)

    def accuracies(self, labels: Array | None) -> tuple[float | None, float | None]:
        """Of the float and of the low-bit network, in percent."""
        if not self.images:
            raise ValueError("compare: no images")
        if labels is None:
            return None, None
        if labels.shape != (self.images,) or labels.dtype.kind not in "iu":
            raise ValueError(f"compare: labels are {labels.dtype} {labels.shape}, but there are {self.images} images")
        a, b = (100 * float((np.concatenate(kept) == labels).mean()) for kept in self._answers)
        return a, b


def layer_errors(
    reference: FloatNet, model: Any, source: Feed, count: int, threads: int | None, say: Progress
) -> tuple[LayerErrors, Ratio, int]:
    """Errors of every layer, and of the network's first output, over the first images; and how many those were."""
    shape = next(source.head(1, 1))[0].shape
    plain = lowbit.convert(reference.path, recipe="float32", input_shapes={reference.inputs[0]: (None, *shape[1:])})
    known = float_tensors(reference.path)
    errors = LayerErrors(plain.plan.data, model.plan.data, plain.plan.tensors, model.plan.tensors, known, threads)
    taps = errors.taps
    tapped = FloatNet(reference.path, threads=threads or lowbit.num_threads(), taps=taps) if taps else None
    session = model.session(threads, keep_tensors=True)
    output, done = Ratio(), 0
    for float_x, low_x in source.head(count, 4):
        truth = reference.run(float_x)
        scores = first(session.run({model.inputs[0][0]: low_x}))
        output.add(truth, scores.reshape(truth.shape) - truth)
        if tapped:
            errors.add(tapped.tap(float_x), session)
        done += len(float_x)
        say("errors per layer", done, count)
    return errors, output, done


def layer_times(
    onnx: str | Path, model: Any, float_x: Array, low_x: Array, threads: int, runs: int = 15
) -> tuple[dict[str, float], dict[str, float]]:
    """Median ms per multiplying node (by its output tensor) in onnxruntime, and per operation in the engine."""
    _, owners = multiplications(onnx)
    profiled = FloatNet(onnx, threads=threads, profile=True)
    session = model.session(threads, profile=True)
    feed = {model.inputs[0][0]: low_x}
    times = []
    for _ in range(runs):
        profiled.run(float_x)
    for i in range(runs + 2):
        session.run(feed)
        if i >= 2:
            times.append(session.op_ms())
    float_ms: dict[str, float] = {}
    for node, ms in profiled.node_ms().items():
        owner = owners.get(node, "")
        float_ms[owner] = float_ms.get(owner, 0.0) + ms
    names = [op["name"] for op in model.plan.data["ops"]]
    return float_ms, dict(zip(names, np.median(np.array(times), axis=0).tolist(), strict=True))


def describe(
    onnx: str | Path, model: Any, float_ms: dict[str, float], low_ms: dict[str, float], errors: LayerErrors | None
) -> tuple[list[LayerReport], list[dict[str, Any]]]:
    """One LayerReport per multiplying operation, and sums of the other operations."""
    plan = model.plan.data
    sources = [tensor.get("source", "") for tensor in plan["tensors"]]
    ends = {op["name"]: (sources[op["inputs"][0]], sources[op["outputs"][0]]) for op in multiplying(plan)}
    nodes = match(onnx, ends)
    layers: list[LayerReport] = []
    others: dict[str, dict[str, Any]] = {}
    for op, row in zip(plan["ops"], model.layers(), strict=True):
        if not row.macs:
            entry = others.setdefault(op["op"], {"op": op["op"], "count": 0, "ms": 0.0})
            entry["count"] += 1
            entry["ms"] += low_ms[op["name"]]
            continue
        weights = weight_count(model.plan, op)
        found = errors.layers.get(op["name"]) if errors else None
        layers.append(
            LayerReport(
                name=op["name"],
                op="depthwise"
                if _is_depthwise(op, model.plan.activations)
                else re.sub("_(f32|codebook)$", "", op["op"]),
                weight=row.weights,
                activation=row.activations,
                output=row.output,
                depth=weights // row.shape[-1],
                macs=row.macs,
                bytes=row.bytes,
                float_bytes=4 * (weights + row.shape[-1]),
                moved=row.moved,
                ms=low_ms[op["name"]],
                float_ms=float_ms.get(nodes.get(op["name"], "")),
                sqnr_weight=found.weight.dB if found else None,
                sqnr_activation=found.activation.dB if found else None,
                sqnr=found.here.dB if found else None,
            )
        )
    return layers, list(others.values())


def _is_depthwise(op: Mapping[str, Any], activations: list[dict[str, Any]]) -> bool:
    c, oc = (activations[op[side][0]]["shape"][-1] for side in ("inputs", "outputs"))
    return bool(1 < op.get("attrs", {}).get("groups", 1) == c == oc)


def estimated_energy(model: Any, as_float: bool) -> float:
    """Microjoules for one image by Horowitz's table: an argument, not a measurement.

    Args:
        model: The model.
        as_float: As if every weight and activation were float32.
    """
    rows = [
        row for row in model.layers() if not as_float or "quantize" not in row.op
    ]  # a float network converts nothing
    return sum(energy_pj(row, as_float) for row in rows) / 1e6


def energy_pj(row: Row, as_float: bool = False) -> float:
    """Picojoules of one operation for one item, see `estimated_energy`."""
    in_float, binary = as_float or row.activations == "float32", row.weights.startswith("bits")
    per_mac = MAC_BITS_PJ if binary else MAC_FLOAT_PJ if in_float else MAC_INT8_PJ
    grown = 1 if not as_float or row.activations.startswith("float") else 32 if row.activations == "bits" else 4
    return row.macs * per_mac + row.moved * grown * CACHE_PJ_PER_BYTE


def thresholds(model: Any, table: Any) -> list[Threshold]:
    """Histogram, threshold and divergence curve of every code tensor that a table with histograms ranged."""
    found: dict[str, Threshold] = {}
    for tensor in model.plan.data["tensors"]:
        name = tensor.get("source", "")
        if "scale" not in tensor or name not in table or name in found or not hasattr(table[name], "histogram"):
            continue
        observer = table[name]
        histogram = observer.histogram
        curve_at: list[float] = []
        curve: list[float] = []
        if hasattr(observer, "search"):
            search = observer.search()
            curve_at, curve = np.asarray(search.thresholds).tolist(), np.asarray(search.divergence).tolist()
        found[name] = Threshold(
            tensor=name,
            width=float(histogram.width),
            counts=np.asarray(histogram.magnitudes()).tolist(),
            threshold=float(observer.threshold()),
            maximum=float(histogram.largest),
            method=str(table.method),
            curve_at=curve_at,
            curve=curve,
        )
    return list(found.values())
