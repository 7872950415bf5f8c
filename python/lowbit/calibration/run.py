"""Calibration runs: a float ONNX net in onnxruntime, batch by batch, its activations observed as they come."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowbit.calibration.channel_mean import ChannelMean
from lowbit.calibration.observers import DEFAULT_METHOD, Observer, make_observer
from lowbit.calibration.table import CalibrationTable
from lowbit.calibration.tap import TappedNet

Batch = Any  # an array, or a mapping of arrays by input name
Batches = Iterable[Batch] | Callable[[], Iterable[Batch]]
Progress = Callable[[int, int | None], None]


def calibrate(
    net: Any,
    batches: Batches,
    *,
    method: str = DEFAULT_METHOD,
    engine: str | None = None,
    tensors: Sequence[str] | None = None,
    memory_limit: int = 1 << 30,
    progress: Progress | None = None,
    shard: tuple[int, int] | None = None,
    threads: int | None = None,
    **settings: Any,
) -> CalibrationTable:
    """Observe a float net's activations on sample inputs.

    The net runs in onnxruntime with the observed tensors as outputs. Memory does not depend on the number of batches.
    Where one batch's outputs would exceed ``memory_limit``, the net is split into several taps, each giving some of the
    tensors, and every batch runs through all of them; ``batches`` is read once in any case.

    Args:
        net: path of an ONNX file, or an ``onnx.ModelProto``.
        batches: arrays (for a net with one input) or mappings from input name to array, or a function that gives them.
            One array with as many axes as the input is cut along its first axis. Empty batches are passed over.
        method: "mse" (the default), "entropy", "minmax" or "percentile".
        engine: None runs here; "ray" spreads the batches over a ray cluster (``pip install "lowbit[ray]"``).
        tensors: names to observe; default every float activation: inputs and nodes' outputs that depend on them.
        memory_limit: bytes that the outputs of one tap may take; a single larger tensor still runs, alone.
        progress: called as ``progress(done, total)`` after every batch; total is None where it is not known.
        shard: (i, n): take only the batches whose place is i modulo n. Tables of the n shards merge to the whole, to
            the last count (where the batches are the same: onnxruntime may round differently at another batch size).
        threads: of onnxruntime and of the histograms, default ``lowbit.num_threads()``.
        settings: of the observer, such as ``bins=4096`` or ``percentile=99.9``.

    Returns:
        CalibrationTable with the observers by tensor name.

    Raises:
        ValueError: no batches, an unknown tensor, input or method, a wrong shape, or NaN or infinity in a tensor
            (named).
        TypeError: where an input has the wrong dtype.
        ImportError: where onnx or onnxruntime (or ray) is missing; names the extra.

    Example:
        >>> import numpy as np, lowbit
        >>> from onnx import TensorProto, helper
        >>> x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", 4]) for n in "xy")
        >>> graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y])
        >>> net = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
        >>> table = lowbit.calibrate(net, [np.float32([[-1, 2, 3, 6.35]])], method="minmax")
        >>> {name: round(table.threshold(name), 6) for name in table}
        {'x': 6.35, 'y': 6.35}
    """
    if engine == "ray":
        if shard is not None:
            raise ValueError("calibrate: engine='ray' makes its own shards; leave shard out")
        from lowbit.calibration.ray_engine import calibrate_on_ray

        options = dict(method=method, tensors=tensors, memory_limit=memory_limit, threads=threads, **settings)
        return calibrate_on_ray(net, batches, progress, options)
    if engine is not None:
        raise ValueError(f"calibrate: engine {engine!r} is neither None nor 'ray'")
    if shard is not None and not 0 <= shard[0] < shard[1]:
        raise ValueError(f"calibrate: shard {shard} is not (i, n) with 0 <= i < n")
    make_observer(method, **settings)  # a wrong method or setting is known before the first run

    tapped = TappedNet(net, tensors, memory_limit=memory_limit, threads=threads)
    observers: dict[str, Observer] = {name: make_observer(method, **settings) for name in tapped.tensors}
    means = {name: ChannelMean() for name in tapped.tensors}
    stream, total = open_batches(batches, tapped.input_shapes)
    if shard is not None:
        stream = islice(stream, shard[0], None, shard[1])
        total = None if total is None else len(range(shard[0], total, shard[1]))
    samples = 0
    for done, batch in enumerate(stream, 1):
        feeds = tapped.feeds(batch, f"batch {done - 1}")
        size = _samples(feeds)
        if size:
            for name, value in tapped.run(feeds):
                try:
                    observers[name].observe(value, threads=threads)
                    means[name].observe(value)
                except ValueError as e:
                    raise ValueError(f"calibrate: tensor {name!r}, batch {done - 1}: {e}") from None
        samples += size
        if progress is not None:
            progress(done, total)
    if not samples:
        raise ValueError(f"calibrate: no samples in {'shard ' + str(shard) if shard else 'the batches'}")
    shards = None if shard is None or shard[1] == 1 else [(int(shard[0]), int(shard[1]))]
    return CalibrationTable(observers, method=method, model=tapped.digest, samples=samples, shards=shards, means=means)


def open_batches(batches: Batches, input_shapes: Mapping[str, list[Any]]) -> tuple[Iterator[Batch], int | None]:
    """An iterator over the batches, and their number where it is known."""
    if callable(batches):
        batches = batches()
    if isinstance(batches, str | bytes | os.PathLike | Mapping):
        raise TypeError(f"calibrate: batches is a {type(batches).__name__}, not an iterable of arrays or mappings")
    if isinstance(batches, np.ndarray) and len(input_shapes) == 1:
        shape = next(iter(input_shapes.values()))
        if batches.ndim == len(shape):
            step = shape[0] if isinstance(shape[0], int) and shape[0] > 0 else 1
            return iter([batches[i : i + step] for i in range(0, len(batches), step)]), -(-len(batches) // step)
    try:
        total = len(batches)  # type: ignore[arg-type]
    except TypeError:
        total = None
    return iter(batches), total


def _samples(feeds: Mapping[str, NDArray[Any]]) -> int:
    if any(array.size == 0 for array in feeds.values()):
        return 0
    first = next(iter(feeds.values()))
    return first.shape[0] if first.ndim else 1
