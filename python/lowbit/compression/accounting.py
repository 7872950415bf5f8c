"""Where the bytes of a compressed network are: codebooks, codes, gaps and their fillers, code tables, biases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lowbit.compression.coded import CodedWeights

if TYPE_CHECKING:
    from lowbit.graph.plan import Plan


_BOOKS = ("codebook", "scale", "weight_scale")  # params that count as codebook


@dataclass(frozen=True)
class LayerSize:
    """One layer's bytes in the file. Code tables and stream headers count with the stream they belong to.

    Attributes:
        layer: its name.
        form: ``dense``, ``sparse`` or ``float32``.
        weights: how many.
        kept: of them, not 0.0.
        entries: codes stored, fillers included.
        fillers: entries that only bridge a gap.
        bits: of a code before Huffman; 32 in float.
        index_bits: of a gap before Huffman; 0 where dense.
        codebook: bytes, those of its scales too.
        codes: bytes; of the floats in a float layer.
        gaps: bytes.
        bias: bytes.
    """

    layer: str
    form: str
    weights: int
    kept: int
    entries: int
    fillers: int
    bits: int
    index_bits: int
    codebook: int
    codes: int
    gaps: int
    bias: int

    @property
    def bytes(self) -> int:
        """All of it."""
        return self.codebook + self.codes + self.gaps + self.bias

    @property
    def float_bytes(self) -> int:
        """Weights and bias as float32."""
        return 4 * self.weights + self.bias

    @property
    def packed_bytes(self) -> int:
        """Without Huffman: codes and gaps of whole bits."""
        if self.form not in ("dense", "sparse"):
            return self.bytes
        codes, gaps = ((self.entries * bits + 7) // 8 for bits in (self.bits, self.index_bits))
        return self.codebook + codes + gaps + self.bias

    @property
    def pruned_bytes(self) -> int:
        """The weights that are left and the bias as float32; all of them where the layer has no codebook."""
        return 4 * self.kept + self.bias if self.form in ("dense", "sparse") else self.float_bytes


def layer_size(coded: CodedWeights, huffman: bool = True, bias: int = 0) -> LayerSize:
    """The size of one layer's weights with ``bias`` bytes of biases.

    Example:
        >>> import numpy as np
        >>> from lowbit.compression import code_weights, layer_size
        >>> w = np.float32([[-1, 0, 1.5, 2]] * 4)
        >>> size = layer_size(code_weights(w, 2, form="dense"), huffman=False)
        >>> size.codebook, size.codes, size.bytes / size.float_bytes
        (16, 4, 0.3125)
    """
    streams = coded.streams(huffman)
    return LayerSize(
        layer=coded.layer,
        form="sparse" if coded.sparse else "dense",
        weights=coded.size,
        kept=coded.kept,
        entries=int(coded.codes.size),
        fillers=coded.fillers,
        bits=coded.bits,
        index_bits=coded.gap_bits,
        codebook=int(coded.codebook.nbytes),
        codes=int(streams["codes"].data.size),
        gaps=int(streams["gaps"].data.size) if "gaps" in streams else 0,
        bias=bias,
    )


def layer_sizes(plan: Plan) -> list[LayerSize]:
    """The layers of a plan that have weights: what its file holds of each, float layers included.

    Args:
        plan: ``model.plan``.

    Raises:
        lowbit.FormatError: a layer's streams are damaged; names it.
    """
    from lowbit.graph.codebook import coded_weights, is_codebook

    found = []
    for op in plan.ops:
        params = {role: plan.tensors[key] for role, key in op.get("params", {}).items()}
        bias = int(params["bias"].nbytes) if "bias" in params else 0
        if is_codebook(op):
            coded = coded_weights(plan, op)
            found.append(
                LayerSize(
                    layer=str(op["name"]),
                    form="sparse" if coded.sparse else "dense",
                    weights=coded.size,
                    kept=coded.kept,
                    entries=int(coded.codes.size),
                    fillers=coded.fillers,
                    bits=coded.bits,
                    index_bits=coded.gap_bits,
                    codebook=sum(int(params[role].nbytes) for role in _BOOKS if role in params),
                    codes=int(params["weight"].nbytes),
                    gaps=int(params["gaps"].nbytes) if "gaps" in params else 0,
                    bias=bias,
                )
            )
        elif "weight" in params:
            found.append(_float_size(str(op["name"]), params["weight"], bias))
    return found


def _float_size(layer: str, weights: NDArray[Any], bias: int) -> LayerSize:
    return LayerSize(
        layer=layer,
        form=str(weights.dtype),
        weights=weights.size,
        kept=int(np.count_nonzero(weights)),
        entries=weights.size,
        fillers=0,
        bits=8 * weights.itemsize,
        index_bits=0,
        codebook=0,
        codes=int(weights.nbytes),
        gaps=0,
        bias=bias,
    )


def size_steps(plan: Plan) -> list[tuple[str, int]]:
    """The bytes of all weights and biases after each step of Deep Compression (arXiv 1510.00149, figure 1).

    Args:
        plan: ``model.plan``.

    Returns:
        (step, bytes), with the biases in every step: ``float32``; ``pruned``, the weights that are left as float32 and
        nothing for where they are; ``shared codes``, with codebooks and gaps; ``Huffman``, with its code tables. The
        last is what :func:`layer_sizes` counts. Steps that changed less than a thousandth are left out (a codebook
        entry that happens to be 0 is no pruning); empty without codebooks.

    Raises:
        lowbit.FormatError: a layer's streams are damaged; names it.

    Example:
        >>> import lowbit
        >>> from lowbit.demo import files
        >>> net = str(files("lowbit.demo") / "fashion.onnx")
        >>> [step for step, _ in size_steps(lowbit.compress(net, sparsity=0.6, bits=4).plan)]
        ['float32', 'pruned', 'shared codes', 'Huffman']
        >>> [step for step, _ in size_steps(lowbit.convert(net, recipe="codebook:4").plan)]
        ['float32', 'shared codes']
    """
    from lowbit.graph.codebook import is_codebook

    if not any(is_codebook(op) for op in plan.ops):
        return []
    sizes = layer_sizes(plan)
    steps = [("float32", sum(s.float_bytes for s in sizes))]
    for step, part in (("pruned", "pruned_bytes"), ("shared codes", "packed_bytes"), ("Huffman", "bytes")):
        count = sum(getattr(s, part) for s in sizes)
        if abs(count - steps[-1][1]) > 1e-3 * steps[-1][1]:
            steps.append((step, count))
    return steps


def size_table(sizes: Sequence[LayerSize], published: Mapping[str, Sequence[str]] | None = None) -> str:
    """Layers in the columns of Deep Compression's tables 2 to 5, as Markdown, with a line of totals.

    Args:
        sizes: of :func:`layer_sizes`.
        published: layer (or ``total``) -> what the paper has for the cells: kept %, bits of a code, bits of a gap,
            size % before and after Huffman; shown behind ours.

    Returns:
        Kept %; bits of a code and of a gap before and after Huffman; bytes of codebook, codes, gaps and biases; size
        before and after Huffman in % of float32, biases included.
    """
    head = ["layer", "weights", "kept %", "code bits", "gap bits", "fillers", "codebook", "codes", "gaps", "bias"]
    rows = [[*head, "bytes", "% of float32"]]

    def cell(ours: str, layer: str, column: int) -> str:
        theirs = published.get(layer) if published else None
        return f"{ours} ({theirs[column]})" if theirs else ours

    for s in sizes:
        entries = max(s.entries, 1)
        gap = f"{s.index_bits} -> {8 * s.gaps / entries:.1f}" if s.index_bits else "dense"
        share = f"{100 * s.packed_bytes / s.float_bytes:.2f} -> {100 * s.bytes / s.float_bytes:.2f}"
        rows.append(
            [
                s.layer,
                str(s.weights),
                cell(f"{100 * s.kept / max(s.weights, 1):.1f}", s.layer, 0),
                cell(f"{s.bits} -> {8 * s.codes / entries:.1f}", s.layer, 1),
                cell(gap, s.layer, 2),
                *map(str, (s.fillers, s.codebook, s.codes, s.gaps, s.bias, s.bytes)),
                cell(share, s.layer, 3),
            ]
        )
    total, whole = sum(s.bytes for s in sizes), max(sum(s.float_bytes for s in sizes), 1)
    kept = 100 * sum(s.kept for s in sizes) / max(sum(s.weights for s in sizes), 1)
    packed = sum(s.packed_bytes for s in sizes)
    sums = [str(sum(getattr(s, part) for s in sizes)) for part in ("fillers", "codebook", "codes", "gaps", "bias")]
    share = f"{100 * packed / whole:.2f} -> {100 * total / whole:.2f}"
    weights = str(sum(s.weights for s in sizes))
    rows.append(
        [
            "total",
            weights,
            cell(f"{kept:.1f}", "total", 0),
            cell("", "total", 1),
            cell("", "total", 2),
            *sums,
            str(total),
            cell(f"{share} ({whole / max(total, 1):.1f} x)", "total", 3),
        ]
    )
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|---|" + "---:|" * (len(head) + 1), *lines[1:]])
