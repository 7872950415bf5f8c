"""``lowbit demo``: the main job on 2500 Fashion-MNIST images and two small nets that ship with the package.

`examples/python/train_demo.py` trained the float net, which is converted, and cut the data: 500 training images that
the net did not train on, for calibration, and the first 2000 test images. `examples/python/train_binary_demo.py`
trained the binary net: nets of one bit are trained so, not converted. Fashion-MNIST is under the MIT licence, copyright
2017 Zalando SE (https://github.com/zalandoresearch/fashion-mnist); `LICENSE.fashion-mnist` has its text.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import numpy as np

import lowbit
from lowbit.data import Dataset
from lowbit.preprocessing import Preprocessing
from lowbit.report.text import table
from lowbit.report.units import milliseconds, size
from lowbit.timing import interleaved

# Layers with few weights keep 8 bits. Chosen on the calibration images: float 93.6 %, Deep Compression 93.0 %.
FRAGILE = r"stem\.0|.*depthwise.*"
SPARSITY = {r"residual\.0": 0.5, r"pointwise.*|block1\.(up|down)\.0|classifier": 0.2}
# What lowbit.search(net, calibration images, {"size": "50 kB"}, choices=["int8", "int:4/8", "int:3/8", "int:2/8"])
# finds in half a minute: one layer of 83,000 weights stands two bits.
MIXED = {r"block1\.down\.0|depthwise2\.0": "int:4/8", r"residual\.0": "int:2/8"}
# Half of all pixels are one value, the background, and the entropy search puts the input's threshold at that spike.
# Calibrated on one half of the 500 images and judged on the other (float: 94.8 %): entropy 82.8 %, min-max and MSE
# 94.8 %, percentile 95.2 %. So entropy is out; between the other three such data cannot decide.
METHOD = "mse"
FILES = ("fashion.onnx", "fashion.toml", "fashion.npz", "fashion.xnor.lowbit")
Progress = Callable[[str, int, int | None], None]


def run(
    *,
    threads: int | None = None,
    seconds: float = 1.0,
    keep: str | Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Calibrates, converts and compares; needs onnx and onnxruntime.

    Args:
        threads: For both engines; default ``lowbit.num_threads()``.
        seconds: Measuring time for each network.
        keep: Folder for the nets, the data and an HTML report (that with matplotlib and jinja2); default none.
        progress: Called as ``progress(stage, done, total)``.

    Returns:
        ``images``, ``threads`` and ``rows``: one dict per network with accuracy, agreement, bytes, ms; converted nets
        also with ``size_steps``, see `lowbit.compression.size_steps`.
    """
    with tempfile.TemporaryDirectory(prefix="lowbit-demo-") as scratch:
        folder = Path(keep) if keep else Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            with as_file(files("lowbit.demo") / name) as shipped:
                shutil.copyfile(shipped, folder / name)
        return _run(folder, threads, seconds, bool(keep), progress)


def _run(folder: Path, threads: int | None, seconds: float, keep: bool, progress: Progress | None) -> dict[str, Any]:
    onnx = folder / "fashion.onnx"
    images = Preprocessing.load(folder / "fashion.toml")
    calibration = Dataset(f"{folder / 'fashion.npz'}:x_calibration,y_calibration", images)
    test = Dataset(f"{folder / 'fashion.npz'}:x_test,y_test", images)
    say = progress or (lambda stage, done, total: None)
    say("calibrating", 0, len(calibration))
    ranges = lowbit.calibrate(
        str(onnx),
        lambda: calibration.batches(50),
        method=METHOD,
        threads=threads,
        progress=lambda done, _: say("calibrating", done * 50, len(calibration)),
    )
    rows: list[dict[str, Any]] = []
    for network, stem, make in _networks(str(onnx), ranges, images):
        model = make()
        found = lowbit.compare(
            onnx, model, test, threads=threads, calibration=ranges, seconds=seconds, progress=progress
        )
        found.model = f"fashion.{stem}.lowbit"
        if not rows:
            rows.append(
                {"network": "float32 (onnxruntime)", "accuracy": found.accuracy_float, "agreement": None,
                 "bytes": found.file_bytes_float, "ms": found.ms_float, "min_ms": found.ms_float_min}
            )  # fmt: skip
        rows.append(
            {"network": network, "accuracy": found.accuracy, "agreement": found.agreement, "bytes": found.file_bytes,
             "ms": found.ms, "min_ms": found.ms_min, "size_steps": found.size_steps}
        )  # fmt: skip
        if keep:
            model.save(folder / found.model)
            ranges.save(folder / "fashion.calib.json")
            found.to_html(folder / f"fashion.{stem}.html")
    say("binary net", 0, 1)
    rows.append(_binary(folder / "fashion.xnor.lowbit", test, threads, seconds))
    return {
        "data": "Fashion-MNIST",
        "images": len(test),
        "calibration_images": len(calibration),
        "method": METHOD,
        "cpu": lowbit.cpu_name(),
        "level": lowbit.best_isa(),
        "threads": threads or lowbit.num_threads(),
        "batch": 1,
        "folder": str(folder) if keep else None,
        "rows": rows,
    }


def _binary(path: Path, test: Dataset, threads: int | None, seconds: float) -> dict[str, Any]:
    """The binary net's row: a net of its own, so there is no agreement with the float one."""
    model = lowbit.load(path)
    answers = [model.run(x, threads=threads).argmax(axis=1) for x in test.batches(100)]
    one = next(test.batches(1))
    times = interleaved({"xnor": lambda: model.run(one, threads=threads)}, seconds)["xnor"]
    return {
        "network": "xnor (trained so)",
        "accuracy": 100 * float((np.concatenate(answers) == test.labels).mean()),
        "agreement": None,
        "bytes": path.stat().st_size,
        "ms": times.median,
        "min_ms": times.min,
    }


def _networks(net: str, ranges: Any, images: Preprocessing) -> list[tuple[str, str, Callable[[], Any]]]:
    """(what it is called, its file's name, how it is made)."""
    return [
        ("int8", "int8", lambda: lowbit.convert(net, recipe="int8", calibration=ranges, preprocessing=images)),
        ("int:4/4", "int44", lambda: lowbit.convert(net, "int:4/4", ranges, {FRAGILE: "int8"}, preprocessing=images)),
        ("mixed 8, 4, 2 bits", "mixed", lambda: lowbit.convert(net, "int8", ranges, MIXED, preprocessing=images)),
        ("lq:4/4", "lq44", lambda: lowbit.convert(net, "lq-int8:4/4", ranges, preprocessing=images)),
        (
            "4-bit codebook",
            "codebook",
            lambda: lowbit.convert(net, "codebook:4/int8", ranges, {FRAGILE: "codebook:8/int8"}, preprocessing=images),
        ),
        (
            "Deep Compression",
            "compressed",
            lambda: lowbit.compress(net, SPARSITY, {FRAGILE: 8, ".*": 4}, init="optimal", preprocessing=images),
        ),
    ]


def text(result: dict[str, Any]) -> str:
    """The result of `run` for people."""
    base = result["rows"][0]
    rows = []
    for row in result["rows"]:
        rows.append(
            [
                row["network"],
                f"{row['accuracy']:.2f} %",
                "" if row["agreement"] is None else f"{row['agreement']:.2f} %",
                size(row["bytes"]),
                "" if row is base else f"{base['bytes'] / row['bytes']:.2f} x",
                milliseconds(row["ms"]),
                "" if row is base else f"{base['ms'] / row['ms']:.2f} x",
            ]
        )
    lines = [
        f"{result['data']}: {result['images']} test images, "
        f"calibrated ({result['method']}) on {result['calibration_images']} others",
        f"{result['cpu']}, level {result['level']}, threads {result['threads']}, batch {result['batch']}",
        "",
        *table(["network", "top-1", "same answer", "file", "smaller", "ms", "faster"], rows),
    ]
    shrunk = [(row["network"], dict(row["size_steps"])) for row in result["rows"] if row.get("size_steps")]
    if shrunk:
        names = max((list(steps) for _, steps in shrunk), key=len)
        cells = [[network, *(size(steps[n]) if n in steps else "" for n in names)] for network, steps in shrunk]
        lines += ["", *table(["weights and biases", *names], cells)]
    if result["folder"]:
        lines += ["", f"nets, data and reports: {result['folder']}"]
    return "\n".join(lines)
