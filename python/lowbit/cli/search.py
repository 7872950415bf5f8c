"""``lowbit latency`` and ``lowbit search``: mixed precision by measured times."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import lowbit
from lowbit.cli import options as o
from lowbit.cli.console import emit, progress, say
from lowbit.report import units

Net = Annotated[Path, typer.Argument(metavar="NET.onnx", help="The float network.")]
ChoiceList = Annotated[
    list[str] | None,
    typer.Option(
        "--choices",
        help="Recipes that a layer may have: float32,int8,int:4/8,codebook:4,...; or 'pattern=recipes', several times.",
    ),
]
Seconds = Annotated[float, typer.Option(min=0.0, help="Time for measuring operations.")]


def latency(
    net: Net,
    output: Annotated[Path, typer.Option("-o", "--output", help="Table to write.")],
    choices: ChoiceList = None,
    threads: o.Threads = None,
    batch: o.BatchSize = 1,
    seconds: Seconds = 20.0,
    input_shape: o.InputShape = None,
    as_json: o.Json = False,
) -> None:
    """Measure every layer in every precision, and the conversions between them, on this machine."""
    from lowbit.preprocessing import Preprocessing, find_preprocessing

    shapes = o.input_shapes(net, find_preprocessing(net) or Preprocessing(), input_shape)
    with progress() as report:
        table = lowbit.mixed_precision.latency_table(
            str(net),
            _choices(choices),
            threads=threads,
            batch=batch,
            seconds=seconds,
            input_shapes=shapes,
            progress=report,
        )
    table.save(output)
    if as_json:
        emit({"file": str(output), "rows": len(table.rows), "machine": table.machine, "seconds": table.seconds})
    say(f"{table}\n\n{output}: {len(table.rows)} operations, measured in {table.seconds:.0f} s", quiet=as_json)


@o.takes_images
def search(
    images: o.ImageOptions,
    net: Net,
    data: Annotated[str, typer.Option(help="Folder or .zip of images, .npz (file.npz:x,y) or .npy.")],
    budget: Annotated[
        list[str],
        typer.Option(
            help="'cost=limit': latency, size, energy or bops; a part of the float network's (latency=0.6) or an "
            "amount (size=120kB). Several times for several costs."
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Recipe to write, for convert --recipe.")],
    method: Annotated[str, typer.Option(help="exact, optuna or haq.")] = "exact",
    choices: ChoiceList = None,
    table: Annotated[Path | None, typer.Option(help="Of lowbit latency; measured first where it is missing.")] = None,
    force: Annotated[bool, typer.Option(help="Take a table of another machine.")] = False,
    calib: Annotated[Path | None, typer.Option(help="A calibration table; default from the data.")] = None,
    sensitivity: Annotated[Path | None, typer.Option(help="File that keeps the layers' errors.")] = None,
    reference: Annotated[str, typer.Option(help="Uniform precision that parts of a budget refer to.")] = "float32",
    points: Annotated[int, typer.Option(min=0, help="Other budgets in the table and the plot.")] = 6,
    plot: Annotated[Path | None, typer.Option(help="Write a plot (.png, .svg, .pdf).")] = None,
    trials: Annotated[int, typer.Option(min=1, help="Of Optuna, or episodes of HAQ.")] = 100,
    sampler: Annotated[str, typer.Option(help="Of Optuna: tpe or nsga2.")] = "tpe",
    seed: Annotated[int, typer.Option(help="Of Optuna or HAQ.")] = 0,
    storage: Annotated[str | None, typer.Option(help="Of Optuna: URL or journal file that workers share.")] = None,
    study: Annotated[str, typer.Option(help="Of Optuna: the study's name.")] = "lowbit",
    checkpoint: Annotated[Path | None, typer.Option(help="Of HAQ: file to go on from.")] = None,
    measure: Annotated[bool, typer.Option(help="Measure the latency of every point too.")] = False,
    rows: o.Rows = None,
    skip_rows: o.SkipRows = None,
    batch: o.BatchSize = 1,
    threads: o.Threads = None,
    seconds: Seconds = 20.0,
    input_shape: o.InputShape = None,
    as_json: o.Json = False,
) -> None:
    """Choose a precision for every layer so that budgets hold and the network suffers least."""
    expected = images.resolve(net)
    source = o.dataset(data, expected, rows, skip_rows)
    with progress() as report:
        found = lowbit.search(
            str(net),
            source,
            _budgets(budget),
            method,
            choices=_choices(choices),
            table=None if table is None else lowbit.mixed_precision.LatencyTable.load(table, force=force),
            calibration=None if calib is None else lowbit.CalibrationTable.load(calib),
            sensitivity=sensitivity,
            reference=reference,
            points=points,
            trials=trials,
            sampler=sampler,
            seed=seed,
            storage=storage,
            study_name=study,
            checkpoint=checkpoint,
            measure=measure,
            batch=batch,
            threads=threads,
            seconds=seconds,
            input_shapes=o.input_shapes(net, expected, input_shape),
            progress=report,
        )
    found.save(output)
    if plot:
        found.plot(plot)
    if as_json:
        emit({"recipe_file": str(output), **found.to_dict()})
    size = units.size(found.best.costs["size"])
    say(
        f"{found}\n\n{output}: {found.best.accuracy:.2f} %, {size}" + (f"\nplot: {plot}" if plot else ""), quiet=as_json
    )


def _choices(given: list[str] | None) -> list[str] | dict[str, list[str]] | None:
    if not given:
        return None
    if len(given) == 1 and "=" not in given[0]:
        return given[0].split(",")
    pairs = [item.rpartition("=") for item in given]
    if not all(pattern and equals and recipes for pattern, equals, recipes in pairs):
        raise typer.BadParameter(f"--choices {' '.join(given)!r} is neither one list nor 'pattern=list' each time")
    return {pattern: recipes.split(",") for pattern, _, recipes in pairs}


def _budgets(given: list[str]) -> dict[str, float | str]:
    found: dict[str, float | str] = {}
    for item in given:
        metric, equals, limit = item.partition("=")
        if not equals or not metric or not limit:
            raise typer.BadParameter(f"--budget {item!r} is not 'cost=limit', such as latency=0.6 or size=120kB")
        found[metric.strip()] = limit.strip()
    return found
