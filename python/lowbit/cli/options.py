"""Options that several commands share, and what becomes of them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from lowbit.data import Dataset, parse_shard, parse_slice
from lowbit.preprocessing import CHANNELS, Preprocessing, find_preprocessing

_IMAGES = "What the network expects of images"

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Threads = Annotated[int | None, typer.Option(min=1, help="Worker threads; default LOWBIT_NUM_THREADS, or all cores.")]
BatchSize = Annotated[int, typer.Option("--batch", min=1, help="Images at a time.")]
Rows = Annotated[str | None, typer.Option(help="Rows of the data to use: n, start:stop or start:stop:step.")]
SkipRows = Annotated[str | None, typer.Option(help="Rows to leave out, such as those that calibrated.")]
InputShape = Annotated[
    str | None, typer.Option(help="Sizes without the batch, such as 3,224,224, for a net that leaves them open.")
]
Preprocess = Annotated[
    Path | None,
    typer.Option(
        help="TOML file with a \\[preprocessing] table; default net.toml beside the net.", rich_help_panel=_IMAGES
    ),
]
Size = Annotated[str | None, typer.Option(help="224, or height,width.", rich_help_panel=_IMAGES)]
Crop = Annotated[
    float | None, typer.Option(help="Part of the shorter side that is kept, 0..1.", rich_help_panel=_IMAGES)
]
Interpolation = Annotated[
    str | None, typer.Option(help="nearest, bilinear, bicubic or lanczos.", rich_help_panel=_IMAGES)
]
Channels = Annotated[str | None, typer.Option(help="RGB, BGR or L (grey).", rich_help_panel=_IMAGES)]
Scale = Annotated[float | None, typer.Option(help="Factor on pixels 0..255.", rich_help_panel=_IMAGES)]
Mean = Annotated[
    str | None, typer.Option(help="One number, or one per channel: 123.7,116.3,103.5.", rich_help_panel=_IMAGES)
]
Std = Annotated[str | None, typer.Option(help="Like --mean.", rich_help_panel=_IMAGES)]
Layout = Annotated[str | None, typer.Option(help="NCHW or NHWC.", rich_help_panel=_IMAGES)]


@dataclass
class ImageOptions:
    """The flags of preprocessing as they were given."""

    preprocess: Preprocess = None
    size: Size = None
    crop: Crop = None
    interpolation: Interpolation = None
    channels: Channels = None
    scale: Scale = None
    mean: Mean = None
    std: Std = None
    layout: Layout = None

    def resolve(self, *nets: Path | None, kept: dict[str, Any] | None = None) -> Preprocessing:
        """Flags over the TOML file named, over the one beside a net, over what a ``.lowbit`` file keeps."""
        found = Preprocessing.from_dict(kept or {}, "the .lowbit file's preprocessing")
        if self.preprocess:
            found = found.updated(Preprocessing.load(self.preprocess))
        else:
            beside = next((p for net in nets if net and (p := find_preprocessing(net))), None)
            found = found.updated(beside) if beside else found
        flags: dict[str, Any] = {
            "size": _numbers("--size", self.size, int),
            "crop": self.crop,
            "interpolation": self.interpolation,
            "channels": self.channels,
            "scale": self.scale,
            "mean": _numbers("--mean", self.mean, float),
            "std": _numbers("--std", self.std, float),
            "layout": self.layout,
        }
        if flags["size"] and len(flags["size"]) == 1:
            flags["size"] = flags["size"] * 2
        return found.updated(Preprocessing.from_dict(flags, "flags"))


def takes_images(command: Callable[..., None]) -> Callable[..., None]:
    """Put the flags of ``ImageOptions`` in the place of a command's parameter ``images``, before ``--json``."""
    given = inspect.signature(command, eval_str=True)
    hints = get_type_hints(ImageOptions, include_extras=True)
    flags = [inspect.Parameter(n, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=h) for n, h in hints.items()]
    own = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for n, p in given.parameters.items() if n != "images"]

    def with_flags(**options: Any) -> None:
        images = ImageOptions(**{name: options.pop(name) for name in hints})
        command(images=images, **options)

    with_flags.__name__, with_flags.__doc__ = command.__name__, command.__doc__
    with_flags.__signature__ = inspect.Signature([*own[:-1], *flags, own[-1]])  # type: ignore[attr-defined]
    with_flags.__annotations__ = {p.name: p.annotation for p in [*own, *flags]}
    return with_flags


def _numbers(flag: str, text: str | None, kind: type) -> list[Any] | None:
    if text is None:
        return None
    try:
        return [kind(part) for part in text.split(",")]
    except ValueError:
        raise typer.BadParameter(f"{flag} {text!r} is not a list of numbers") from None


def dataset(
    source: str, images: Preprocessing, rows: str | None, skip_rows: str | None, shard: str | None = None
) -> Dataset:
    """The data that ``--data`` and its companions name."""
    return Dataset(
        source,
        images,
        rows=parse_slice(rows) if rows else None,
        skip=parse_slice(skip_rows) if skip_rows else None,
        shard=parse_shard(shard) if shard else None,
    )


def input_shapes(net: Path, images: Preprocessing, given: str | None) -> dict[str, tuple[int | None, ...]] | None:
    """Shapes for a net that leaves sizes open: those given, else those of the preprocessed images."""
    from lowbit.graph.source import read

    graph = read(str(net)).model.graph
    constants = {i.name for i in graph.initializer}
    inputs = [i for i in graph.input if i.name not in constants]
    if len(inputs) != 1:
        return None
    sizes = _numbers("--input-shape", given, int)
    if sizes is None:
        dims = [d.dim_value for d in inputs[0].type.tensor_type.shape.dim]
        if all(dims[1:]) or len(dims) != 4 or not (images.size and images.channels and images.layout):
            return None
        sizes = [*images.size, CHANNELS[images.channels]]
        sizes = sizes if images.layout == "NHWC" else [sizes[2], *sizes[:2]]
    return {inputs[0].name: (None, *sizes)}


def overrides(settings: list[str]) -> dict[str, str]:
    """``--set 'pattern=recipe'``, in order."""
    found = {}
    for setting in settings:
        pattern, equals, recipe = setting.rpartition("=")
        if not equals or not pattern or not recipe:
            raise typer.BadParameter(f"--set {setting!r} is not 'pattern=recipe', such as 'conv1=float32'")
        found[pattern] = recipe
    return found
