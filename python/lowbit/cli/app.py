"""The commands. Each gathers its options, calls the library, prints a table or JSON."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import typer

import lowbit
from lowbit.calibration.observers import DEFAULT_METHOD
from lowbit.cli import options as o
from lowbit.cli.compress import compress
from lowbit.cli.console import emit, progress, say
from lowbit.cli.search import latency, search
from lowbit.data import parse_shard
from lowbit.preprocessing import Preprocessing, find_preprocessing
from lowbit.report import units
from lowbit.report.text import table

app = typer.Typer(
    help="Neural networks in few bits on CPUs: calibrate, quantize, run, compare.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

OnnxFile = Annotated[Path, typer.Argument(metavar="NET.onnx", help="The float network.")]
Output = Annotated[Path, typer.Option("-o", "--output", help="File to write.")]
Method = Annotated[str, typer.Option(help="mse, entropy, minmax or percentile.")]


@app.callback(invoke_without_command=True)
def _main(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        print(lowbit.__version__)
        raise typer.Exit()


@app.command()
def demo(
    seconds: Annotated[float, typer.Option(help="Measuring time for each network.")] = 1.0,
    threads: o.Threads = None,
    keep: Annotated[Path | None, typer.Option(help="Folder to write nets, data and HTML reports to.")] = None,
    as_json: o.Json = False,
) -> None:
    """The main job on data and a net that ship with the package: float beside int8. No network needed."""
    from lowbit.demo import run, text

    with progress() as report:
        result = run(threads=threads, seconds=seconds, keep=keep, progress=report)
    if as_json:
        emit(result)
    say(text(result), quiet=as_json)


@app.command()
def doctor(as_json: o.Json = False) -> None:
    """CPU, levels, threads, versions, and a self-test of every level."""
    from lowbit.doctor import main

    raise typer.Exit(main(["--json"] if as_json else []))


@app.command()
@o.takes_images
def calibrate(
    images: o.ImageOptions,
    net: OnnxFile,
    data: Annotated[str, typer.Argument(help="Folder or .zip of images, .npz (file.npz:x,y) or .npy.")],
    output: Output,
    method: Method = DEFAULT_METHOD,
    shard: Annotated[str | None, typer.Option(help="i/n: only part i of n; see merge.")] = None,
    tensorrt: Annotated[Path | None, typer.Option(help="Write TensorRT's calibration cache as well.")] = None,
    rows: o.Rows = None,
    skip_rows: o.SkipRows = None,
    batch: o.BatchSize = 8,
    threads: o.Threads = None,
    input_shape: o.InputShape = None,
    as_json: o.Json = False,
) -> None:
    """Run sample data through a float network and record the ranges of its activations."""
    expected = images.resolve(net)
    source = o.dataset(data, expected, rows, skip_rows, shard)
    ranges = _calibrate(net, source, method, batch, threads, o.input_shapes(net, expected, input_shape))
    if shard:
        part = parse_shard(shard)
        ranges.shards = [part] if part[1] > 1 else []
    ranges.save(output)
    if tensorrt:
        ranges.save_tensorrt(tensorrt)
    _print_ranges(ranges, output, as_json)


@app.command()
def merge(
    tables: Annotated[list[Path], typer.Argument(help="Calibration tables of shards.")],
    output: Output,
    tensorrt: Annotated[Path | None, typer.Option(help="Write TensorRT's calibration cache as well.")] = None,
    as_json: o.Json = False,
) -> None:
    """Put the calibration tables of shards together: the same, to the last count, as one table of everything."""
    merged = lowbit.CalibrationTable.load(tables[0])
    for path in tables[1:]:
        merged.merge(lowbit.CalibrationTable.load(path))
    merged.save(output)
    if tensorrt:
        merged.save_tensorrt(tensorrt)
    _print_ranges(merged, output, as_json)


@app.command()
@o.takes_images
def convert(
    images: o.ImageOptions,
    net: OnnxFile,
    output: Output,
    recipe: Annotated[
        str,
        typer.Option(
            help="int8, int8-tensor, int8-affine, int8-dynamic, int:W/A, codebook:B, xnor, xnor-int8, float32, or a "
            "recipe file (.json) of lowbit search."
        ),
    ] = "int8",
    calib: Annotated[
        str | None, typer.Option(help="A table (.json, TensorRT .cache), or data to calibrate with.")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="'pattern=recipe' for layers; op:TYPE matches operators.")
    ] = None,
    rounding: Annotated[str | None, typer.Option(help="nearest_even, gemmlowp or single.")] = None,
    method: Method = DEFAULT_METHOD,
    max_drop: Annotated[
        float | None, typer.Option(help="Points of top-1 that may be lost on --data; worst layers stay in float.")
    ] = None,
    data: Annotated[str | None, typer.Option(help="Labelled data for --max-drop.")] = None,
    raw_input: Annotated[bool, typer.Option(help="Take raw uint8 NHWC pixels; preprocessing is folded in.")] = False,
    rows: o.Rows = None,
    skip_rows: o.SkipRows = None,
    batch: o.BatchSize = 8,
    threads: o.Threads = None,
    input_shape: o.InputShape = None,
    as_json: o.Json = False,
) -> None:
    """Quantize a float network to a .lowbit file. --rows and --skip-rows select from the calibration data."""
    expected = images.resolve(net)
    if max_drop is not None and data is None:
        raise typer.BadParameter("--max-drop needs --data, labelled images to judge by")
    shapes = o.input_shapes(net, expected, input_shape)
    ranges = None
    if calib is not None:
        ranges = _load_ranges(calib)
        if ranges is None:
            ranges = _calibrate(net, o.dataset(calib, expected, rows, skip_rows), method, batch, threads, shapes)
    named, overrides = recipe, o.overrides(settings or [])
    if recipe.endswith(".json"):
        found = lowbit.mixed_precision.load_recipe(recipe)
        named, overrides = (
            found["recipe"],
            overrides | {k: v for k, v in found["overrides"].items() if k not in overrides},
        )
    judged = _labelled(o.dataset(data, expected, None, None)) if data is not None and max_drop is not None else None
    with progress() as report:
        model = lowbit.convert(
            str(net),
            recipe=named,
            calibration=ranges,
            overrides=overrides,
            rounding=rounding,
            input_shapes=shapes,
            preprocessing=expected if expected.to_dict() else None,
            input_dtype="uint8" if raw_input else "float32",
            max_drop=max_drop,
            data=judged,
            progress=report,
        )
    model.save(output)
    before, after = net.stat().st_size, output.stat().st_size
    multiplying = [row for row in model.layers() if row.macs]
    kept = [row.layer for row in multiplying if row.weights.startswith("float")]
    if as_json:
        emit(
            {
                "file": str(output),
                "bytes": after,
                "float_bytes": before,
                "layers": len(multiplying),
                "float_layers": kept,
                "manifest": model.manifest,
            }
        )
    say(
        f"{output}: {units.size(after)}, {units.ratio(before, after, 'smaller', 'larger')} than {net.name}; "
        f"{len(multiplying) - len(kept)} of {len(multiplying)} layers in {recipe}"
        + (f", in float32: {', '.join(kept)}" if kept else ""),
        quiet=as_json,
    )


app.command()(compress)
app.command()(latency)
app.command()(search)


@app.command()
def info(
    net: Annotated[Path, typer.Argument(metavar="NET.lowbit|NET.onnx", help="The network.")],
    input_shape: o.InputShape = None,
    as_json: o.Json = False,
) -> None:
    """Layers, bits, bytes: where a file's size goes and what the layers are called."""
    if not net.is_file():
        raise FileNotFoundError(f"{net}: no such file")
    if net.suffix == ".lowbit":
        model = lowbit.load(net)
    else:
        shapes = o.input_shapes(net, find_preprocessing(net) or Preprocessing(), input_shape)
        model = lowbit.convert(str(net), recipe="float32", input_shapes=shapes)
    rows, size = model.layers(), net.stat().st_size
    sections: dict[str, int] = {}
    for name, array in model.plan.tensors.items():
        role = name.rpartition(".")[2] if "." in name else name
        sections[role] = sections.get(role, 0) + int(array.nbytes)
    if net.suffix == ".lowbit":
        sections["plan, names, checksums, padding"] = size - sum(sections.values())
    if as_json:
        emit({"file": str(net), "bytes": size, "sections": sections, "inputs": model.inputs, "outputs": model.outputs,
              "manifest": model.manifest, "layers": [vars(row) for row in rows]})  # fmt: skip
        return
    inputs = [f"{name} {dtype} ({', '.join('n' if d < 0 else str(d) for d in s)})" for name, dtype, s in model.inputs]
    say(f"{net.name}: {units.size(size)}, input {', '.join(inputs)}")
    if net.suffix == ".lowbit":
        known = {k: v for k, v in model.manifest.items() if v not in (None, "", {}, [])}
        say("\n".join(f"  {k}: {_plain(v)}" for k, v in known.items()))
    say("\n" + model.summary() + "\n")
    parts = [[name, units.size(count)] for name, count in sorted(sections.items(), key=lambda item: -item[1])]
    say("\n".join(table(["bytes in the file" if net.suffix == ".lowbit" else "bytes of parameters", ""], parts)))


@app.command()
@o.takes_images
def compare(
    images: o.ImageOptions,
    net: OnnxFile,
    model: Annotated[Path, typer.Argument(metavar="NET.lowbit", help="The low-bit network.")],
    data: Annotated[str, typer.Option(help="Folder or .zip of images, .npz (file.npz:x,y) or .npy.")],
    html: Annotated[Path | None, typer.Option(help="Write a report with plots, one offline file.")] = None,
    calib: Annotated[Path | None, typer.Option(help="The calibration table, for the plots of thresholds.")] = None,
    seconds: Annotated[float, typer.Option(help="Measuring time for each engine.")] = 1.0,
    sqnr_images: Annotated[int, typer.Option(min=0, help="Images for the errors per layer.")] = 16,
    rows: o.Rows = None,
    skip_rows: o.SkipRows = None,
    batch: o.BatchSize = 1,
    threads: o.Threads = None,
    as_json: o.Json = False,
) -> None:
    """Accuracy, error per layer, bytes, milliseconds and estimated energy beside the float network."""
    low = lowbit.load(model)
    expected = images.resolve(net, model, kept=low.manifest.get("preprocessing"))
    source = o.dataset(data, expected, rows, skip_rows)
    ranges = lowbit.CalibrationTable.load(calib) if calib else None
    with progress() as report:
        found = lowbit.compare(
            net, low, source, threads=threads, batch=batch, calibration=ranges, sqnr_images=sqnr_images,
            seconds=seconds, progress=report,
        )  # fmt: skip
    found.model = model.name
    if html:
        found.to_html(html)
    if as_json:
        emit(found.to_dict())
    say(str(found) + (f"\n\nreport: {html}" if html else ""), quiet=as_json)


@app.command()
def bench(
    model: Annotated[Path, typer.Argument(metavar="NET.lowbit", help="The low-bit network.")],
    against: Annotated[
        Path | None, typer.Option(help="A float network that onnxruntime runs in the same process.")
    ] = None,
    threads: Annotated[str | None, typer.Option(help="Thread counts, such as 1,2.")] = None,
    per_layer: Annotated[bool, typer.Option(help="Time every operation.")] = False,
    batch: o.BatchSize = 1,
    seconds: Annotated[float, typer.Option(help="Measuring time for each network and thread count.")] = 2.0,
    as_json: o.Json = False,
) -> None:
    """Milliseconds per run, beside onnxruntime in the same process, in alternating blocks."""
    from lowbit.benchmark import bench as measure
    from lowbit.benchmark import text

    counts = [int(t) for t in threads.split(",")] if threads and re.fullmatch(r"\d+(,\d+)*", threads) else None
    if threads and (counts is None or 0 in counts):
        raise typer.BadParameter(f"--threads {threads!r} is not a list of counts, such as 1,2")
    with progress() as report:
        result = measure(
            model, against, threads=counts, per_layer=per_layer, batch=batch, seconds=seconds, progress=report
        )
    if as_json:
        emit(result)
    say(text(result), quiet=as_json)


@app.command()
def export(
    model: Annotated[Path, typer.Argument(metavar="NET.lowbit", help="The low-bit network.")],
    output: Output,
    form: Annotated[str, typer.Option(help="qdq, or float (weights dequantized).")] = "qdq",
    as_json: o.Json = False,
) -> None:
    """Write a low-bit network as ONNX for other engines."""
    lowbit.load(model).export_onnx(output, form=form)
    size = output.stat().st_size
    if as_json:
        emit({"file": str(output), "bytes": size, "form": form})
    say(f"{output}: {units.size(size)}", quiet=as_json)


def _calibrate(net: Path, source: Any, method: str, batch: int, threads: int | None, shapes: Any) -> Any:
    """A calibration run with a progress bar over images."""
    from lowbit.graph.source import tensors_to_calibrate

    with progress() as report:
        report("calibrating", 0, len(source))
        return lowbit.calibrate(
            str(net),
            lambda: source.batches(batch),
            method=method,
            tensors=tensors_to_calibrate(str(net), shapes),
            threads=threads,
            progress=lambda done, _: report("calibrating", min(done * batch, len(source)), len(source)),
        )


def _plain(value: Any) -> str:
    """A value of the manifest on one line."""
    if isinstance(value, dict):
        return ", ".join(f"{k} {_plain(v)}" for k, v in value.items())
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _load_ranges(path: str) -> Any:
    """A calibration table or TensorRT cache; None where the path is data to calibrate with."""
    if path.endswith(".json"):
        return lowbit.CalibrationTable.load(path)
    return lowbit.CalibrationTable.load_tensorrt(path) if path.endswith(".cache") else None


def _labelled(source: Any) -> tuple[Any, Any]:
    import numpy as np

    if source.labels is None:
        raise ValueError(f"{source.source}: --max-drop needs labels")
    return np.concatenate(list(source.batches(16))), source.labels


def _print_ranges(ranges: Any, output: Path, as_json: bool) -> None:
    values = {name: float(ranges.threshold(name)) for name in ranges}
    if as_json:
        emit({"file": str(output), "method": ranges.method, "samples": ranges.samples, "thresholds": values})
        return
    part = f", shards {', '.join(f'{i}/{n}' for i, n in ranges.shards)}" if ranges.shards else ""
    say(f"{output}: {len(values)} tensors, {ranges.samples} samples, method {ranges.method}{part}")
