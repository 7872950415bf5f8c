"""``lowbit.compress``: a float network pruned, its weights shared, codes and gaps Huffman-coded."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from lowbit.compression.coded import code_weights
from lowbit.compression.pruning import magnitude_mask

if TYPE_CHECKING:
    from lowbit.graph.net import Layer
    from lowbit.model import Model

T = TypeVar("T")
Progress = Callable[[str, int, int | None], None]
_TYPES = ("Conv", "Gemm", "MatMul")


def compress(
    net: Any,
    sparsity: float | Mapping[str, float] | None = None,
    bits: int | Mapping[str, int] = 8,
    huffman: bool = True,
    finetune: Callable[[Any, str], None] | None = None,
    *,
    init: str = "linear",
    per: str = "tensor",
    example: Any = None,
    input_shapes: Mapping[str, Sequence[int | None]] | None = None,
    preprocessing: Any = None,
    progress: Progress | None = None,
) -> Model:
    """Deep Compression of a whole network: prune, share weights, code.

    Args:
        net: path of an ONNX file, an ``onnx.ModelProto``, or a ``torch.nn.Module`` with ``example``.
        sparsity: share of each layer's weights to drop, 0 <= s < 1, smallest first; or pattern -> share. None keeps
            what the net has: zeros among its weights count as pruned already.
        bits: of a code, 1 to 8, or pattern -> bits; layers without a pattern stay in float32. A pattern is an
            operator (``Conv``, ``Gemm``, ``MatMul``), ``op:TYPE``, or is matched with a layer's canonical name by
            ``re.fullmatch``; the first that matches wins.
        huffman: Huffman-code codes and gaps where that makes them smaller.
        finetune: for a torch module: called as ``finetune(module, stage)`` to train it, with stage ``"prune"`` (the
            masks are applied after every step of any optimiser) and then ``"codebook"`` (only codebooks and biases
            learn). Without it the compression is post-training.
        init: how k-means starts, see ``lowbit.kmeans1d``.
        per: what has a codebook of its own: ``tensor``, ``channel`` (output channel), or ``columns:G``, groups of G
            input columns.
        example: input (or tuple) that a torch module is exported with.
        input_shapes: sizes of axes that the file leaves open.
        preprocessing: ``lowbit.Preprocessing`` or a dict with its fields; kept in the file.
        progress: called as ``progress(stage, done, total)``.

    Returns:
        Model, which runs the compressed weights.

    Raises:
        ValueError: a sparsity or bits out of range, a pattern that matches nothing, weights that are not finite (names
            layer and offset), ``finetune`` without a torch module.
        UnsupportedError: the network uses something that is not supported.
        ImportError: onnx is missing.

    Source: Han, Mao, Dally 2015 (arXiv 1510.00149).

    Example:
        >>> import lowbit
        >>> from importlib.resources import files
        >>> net = str(files("lowbit.demo") / "fashion.onnx")
        >>> small = lowbit.compress(net, sparsity=0.5, bits={"Conv": 6, "Gemm": 5})
        >>> len(small.to_bytes()) < 0.3 * len(lowbit.convert(net, recipe="float32").to_bytes())
        True
    """
    from lowbit.graph import source as sources
    from lowbit.graph.convert import _as_dict, _shapes
    from lowbit.graph.lower import lower
    from lowbit.graph.recipe import parse_recipe
    from lowbit.model import Model

    report = progress or (lambda stage, done, total: None)
    if finetune is not None:
        if not hasattr(net, "named_modules"):
            raise ValueError("compress: finetune= needs a torch.nn.Module; an ONNX file cannot be trained here")
        from lowbit.torch.compressing import compress_module

        net = compress_module(net, sparsity, bits, finetune, init, per)
        sparsity = None
    source = sources.read(net, example)
    prepared = _as_dict(preprocessing)
    built = sources.build(source.model, input_shapes or _shapes(source.model, prepared, None, None))
    layers = [layer for layer in built.layers if layer.is_mac]
    shares, widths = _per_layer("sparsity", sparsity, layers), _per_layer("bits", bits, layers)
    overrides: dict[str, str] = {}
    for done, layer in enumerate(layers):
        report("compress", done, len(layers))
        width, share = widths[layer.name], shares[layer.name]
        if width is None:
            continue
        layer.params["weight"] = _compressed(layer, width, share, init, per)
        overrides[re.escape(layer.name)] = f"codebook:{width}" + f"/{per}" * (per != "tensor") + "/huffman" * huffman
    report("compress", len(layers), len(layers))
    plan = lower(built, parse_recipe("float32"), None, overrides, None, sources.float_names(source.model))
    manifest: dict[str, Any] = {
        "recipe": "codebook",
        "source": source.file,
        "source_sha256": source.sha256,
        "compression": {
            "sparsity": _plain(sparsity),
            "bits": _plain(bits),
            "huffman": huffman,
            "init": init,
            "per": per,
        },
    }
    if prepared:
        manifest["preprocessing"] = prepared
    return Model(plan, manifest)


def _compressed(layer: Layer, bits: int, sparsity: float | None, init: str, per: str) -> Any:
    """The layer's weights, pruned and shared, as float32 of at most 2**bits values a codebook."""
    weight = layer.params["weight"]
    mask = weight != 0
    if sparsity:
        if not 0 <= sparsity < 1:
            raise ValueError(f"layer {layer.name!r}: sparsity is {sparsity}; it must be at least 0 and below 1")
        mask = magnitude_mask(weight, density=1 - sparsity, layer=layer.name)
    return code_weights(weight, bits, mask=mask, init=init, per=per, form="dense", layer=layer.name).weights()


def _per_layer(what: str, given: T | Mapping[str, T] | None, layers: Sequence[Layer]) -> dict[str, T | None]:
    """The value of every layer."""
    if not isinstance(given, Mapping):
        return {layer.name: given for layer in layers}

    def matches(pattern: str, layer: Layer) -> bool:
        kind = pattern.removeprefix("op:")
        if pattern.startswith("op:") or pattern in _TYPES:
            return re.fullmatch(kind, layer.onnx_op) is not None or re.fullmatch(kind, layer.op) is not None
        return re.fullmatch(pattern, layer.name) is not None

    for pattern in given:
        if pattern not in _TYPES and not any(matches(pattern, layer) for layer in layers):
            names = ", ".join(layer.name for layer in layers[:8]) + ", ..." * (len(layers) > 8)
            raise ValueError(f"compress: {what} {pattern!r} matches no layer; the names are {names}")
    return {layer.name: next((v for p, v in given.items() if matches(p, layer)), None) for layer in layers}


def _plain(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else value
