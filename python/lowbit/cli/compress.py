"""``lowbit compress``: Deep Compression of a float network, post-training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

import lowbit
from lowbit.cli import options as o
from lowbit.cli.console import emit, progress, say
from lowbit.compression.accounting import LayerSize, layer_sizes
from lowbit.report import units
from lowbit.report.text import table


def _number_or_patterns(flag: str, given: list[str] | None, kind: type) -> Any:
    """``0.9``, or ``Conv=0.5`` and the like, in order."""
    if not given:
        return None
    try:
        if len(given) == 1 and "=" not in given[0]:
            return kind(given[0])
        pairs = [item.rpartition("=") for item in given]
        if all(pattern and equals for pattern, equals, _ in pairs):
            return {pattern: kind(value) for pattern, _, value in pairs}
    except ValueError:
        pass
    raise typer.BadParameter(f"{flag} {' '.join(given)!r} is neither one number nor 'pattern=number' each time")


@o.takes_images
def compress(
    images: o.ImageOptions,
    net: Annotated[Path, typer.Argument(metavar="NET.onnx", help="The float network.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="File to write.")],
    sparsity: Annotated[
        list[str] | None,
        typer.Option(help="Share of weights to drop, such as 0.9; or 'pattern=share', several times (Conv=0.5)."),
    ] = None,
    bits: Annotated[
        list[str] | None, typer.Option(help="Bits of a weight, 1 to 8, default 8; or 'pattern=bits', several times.")
    ] = None,
    huffman: Annotated[bool, typer.Option(help="Huffman-code weights and gaps.")] = True,
    init: Annotated[str, typer.Option(help="How k-means starts: linear, density, forgy or optimal.")] = "linear",
    input_shape: o.InputShape = None,
    as_json: o.Json = False,
) -> None:
    """Deep Compression: prune, share weights, code with Huffman. A pattern is Conv, Gemm, MatMul or a layer's name."""
    expected = images.resolve(net)
    with progress() as report:
        model = lowbit.compress(
            str(net),
            sparsity=_number_or_patterns("--sparsity", sparsity, float),
            bits=_number_or_patterns("--bits", bits, int) or 8,
            huffman=huffman,
            init=init,
            input_shapes=o.input_shapes(net, expected, input_shape),
            preprocessing=expected if expected.to_dict() else None,
            progress=report,
        )
    model.save(output)
    sizes = layer_sizes(model.plan)
    small, large, file = sum(s.bytes for s in sizes), sum(s.float_bytes for s in sizes), output.stat().st_size
    if as_json:
        layers = [vars(s) | {"bytes": s.bytes, "float_bytes": s.float_bytes} for s in sizes]
        emit({"file": str(output), "file_bytes": file, "bytes": small, "float_bytes": large, "layers": layers})
    say("\n".join(_lines(sizes)), quiet=as_json)
    say(
        f"\n{output}: {units.size(file)}; weights, tables and biases {units.size(small)}, "
        f"{units.ratio(large, small, 'smaller', 'larger')} than in float32",
        quiet=as_json,
    )


def _lines(sizes: list[LayerSize]) -> list[str]:
    head = ["layer", "form", "weights", "kept", "bits", "codebook", "codes", "gaps", "bias", "of float32"]
    return list(
        table(
            head,
            [
                [
                    *(s.layer, s.form, str(s.weights), f"{100 * s.kept / max(s.weights, 1):.1f} %", str(s.bits)),
                    *(units.size(part) for part in (s.codebook, s.codes, s.gaps, s.bias)),
                    f"{100 * s.bytes / max(s.float_bytes, 1):.2f} %",
                ]
                for s in sizes
            ],
        )
    )
